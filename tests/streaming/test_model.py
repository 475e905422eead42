"""Whole streams, from `write` to the reader's loop, over connections that stall, break and come back.

Random schedules against the model in `tests.streaming.world`: nothing is doubled or reordered, every value is
delivered or reported, the signal is set when the last subscriber is gone and not before, nothing is left.
"""

from __future__ import annotations

import functools
import random
from typing import Any

import anyio
import pytest

from kkrpc_py.channel import producer
from kkrpc_py.core import credit
from tests.streaming.schedules import Action, follow_all
from tests.streaming.virtual import backend
from tests.streaming.world import SocketWorld, World, play

LOOPS = ["asyncio", "trio", pytest.param("uvloop", marks=pytest.mark.slow)]
OVERFLOWS = [
    ["drop_oldest", "drop_oldest", "latest", "block", "error"],
    ["drop_oldest", "latest"],
    ["drop_oldest", "block"],
    ["block"],
    ["latest"],
    ["error"],
]
"""What the readers of a run choose from: one that blocks holds up all the others."""
LARGE = [0, 0, 0, 0, 30, 500, 9_000, 70_000]
SMALL = [0, 0, 0, 30, 100]


def make(chance: random.Random) -> tuple[dict[str, Any], list[Action]]:
    hello = chance.random() < 0.85
    large = chance.random() < 0.5
    grace = chance.random() < 0.15
    settings = {
        "seed": chance.randrange(1 << 30),
        "window": chance.choice([0, 1, 5, 30, 256]),
        "most_bytes": chance.choice([None, None, None, 100, 2_000]),
        "grace": grace,
        "credit": chance.choice([(1, 1), (3, 200), (3, 200), (64, 256 * 1024)]),
        "capacity": 65536 if large else chance.choice([100, 1000, 65536]),
        "piece": chance.choice([10_000, 65536]) if large else chance.choice([10, 100, 65536]),
        "high_water": chance.choice([1, 1000, 1 << 20]),
        "hello": hello,
        "codec": chance.choice(["auto", "auto", "json", "cbor"] if hello else ["auto", "json"]),
        "links": chance.randrange(3),
        "bare": chance.randrange(3),
        "all_leave": chance.random() < 0.3,
        "abrupt": chance.random() < 0.3,
        "end": chance.choice(["close", "error"]),
    }
    if not settings["links"] and not settings["bare"]:
        settings["links"] = 1
    names = ["write"] * 6 + ["send"] * 5 + ["subscribe"] * 6 + ["permit"] * 8 + ["turns"] * 10
    if grace or chance.random() < 0.6:
        names += ["cut"] * 2 + ["stall"] * 2
    if not grace and chance.random() < 0.7:
        names += ["cancel"] * 2
    if chance.random() < 0.3:
        names += ["finish", "restart"]
    overflows = chance.choice(OVERFLOWS)
    sizes = LARGE if large else SMALL
    # Nothing but a lost connection may end a subscription where there is grace for that.
    on_gaps = ["report"] if grace else ["report", "report", "error"]
    if grace:
        overflows = [each for each in overflows if each != "error"] or ["block"]
    actions: list[Action] = []
    for name in chance.choices(names, k=chance.randrange(5, 45)):
        number = chance.randrange(8)
        match name:
            case "write" | "send":
                arguments: Action = (chance.choices(sizes, k=chance.choice([1, 1, 2, 3, 8, 20])),)
            case "subscribe":
                options = {
                    "overflow": chance.choice(overflows),
                    "high_water_mark": chance.choice([1, 2, 5, 30]),
                    "after": chance.choice([None, 0, 0, chance.randrange(40)]),
                    "on_gap": chance.choice(on_gaps),
                }
                mode = chance.choice(["iterate", "receive", "enter"])
                arguments = (number, options, mode, chance.choice([0, 1, 5, 1 << 40]))
            case "permit":
                arguments = (number, chance.choice([1, 2, 10, 1 << 40]))
            case "turns":
                arguments = (chance.choice([1, 2, 5, 20, 100]),)
            case "cut":
                arguments = (number, chance.choice([(0,), (1,), (0, 1), (0, 1)]), chance.random() < 0.5)
            case "stall":
                arguments = (number, chance.random() < 0.6)
            case "cancel":
                arguments = (number, chance.choice(["cancel", "stop", "leave", "interrupt", "interrupt"]))
            case "finish" | "restart":
                arguments = (chance.choice(["close", "error"]),)
        actions.append((name, *arguments))
    return settings, actions


def follow(loop: str, settings: dict[str, Any], actions: list[Action], world: type[World] = World) -> None:
    if world is World:
        name, options = backend(loop)
    else:  # time that passes by itself
        name, options = loop.replace("uvloop", "asyncio"), {"use_uvloop": True} if loop == "uvloop" else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(credit, "INITIAL_CHUNKS", settings["credit"][0])
        patch.setattr(credit, "INITIAL_BYTES", settings["credit"][1])
        patch.setattr(producer, "perf_counter", float)  # it decides by how fast the machine is
        if loop == "trio":
            import trio

            trio._core._run._r.seed(settings["seed"])
        anyio.run(play, world, settings, actions, backend=name, backend_options=options)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_every_reader_accounts_for_every_value(loop: str) -> None:
    follow_all(range(120), make, functools.partial(follow, loop))


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_every_reader_accounts_for_every_value_in_the_long_run(loop: str) -> None:
    follow_all(range(120, 4_000), make, functools.partial(follow, loop))


@pytest.mark.parametrize("loop", LOOPS)
def test_every_reader_accounts_for_every_value_over_sockets(loop: str) -> None:
    follow_all(range(20), make, functools.partial(follow, loop, world=SocketWorld))


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_every_reader_accounts_for_every_value_over_sockets_in_the_long_run(loop: str) -> None:
    follow_all(range(20, 1_000), make, functools.partial(follow, loop, world=SocketWorld))
