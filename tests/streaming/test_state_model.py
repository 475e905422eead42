"""A shared state under changes of everybody at once, and connections that break: all see the same in the end.

Each change puts a name of its own into the state, so that it can be told of each whether it was made, and how
often: what its author was told must be so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kkrpc_py as kk
from kkrpc_py.limits import Limits
from kkrpc_py.streaming.documents import same
from tests.channel.harness import BOUND
from tests.streaming.connections import Connections, Sockets

CHANGES = st.sampled_from(["append", "append", "front", "pop", "set", "set", "drop", "nest"])
SERVER_STEPS = st.lists(st.tuples(st.one_of(CHANGES, st.just("burst")), st.integers(0, 3)), max_size=8)
CLIENT_STEPS = st.lists(st.tuples(CHANGES, st.integers(0, 3)), max_size=6)
CUTS = st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=3)


def change(draft: Any, kind: str, name: str) -> None:
    draft["names"][name] = 1
    log, tree = draft["log"], draft["tree"]
    if kind == "append":
        log.append(name)
    elif kind == "front":
        log.insert(0, name)
    elif kind == "pop" and log:
        log.pop(0)
    elif kind == "set":
        tree.setdefault("a", {})["x"] = name
    elif kind == "drop":
        tree.pop("a", None)
    elif kind == "nest":
        tree["a"] = {"x": 0, "y": [name]}


class World:
    """A server, and what everybody was told."""

    def __init__(self, window: int, waiting_bytes: int) -> None:
        self.hub = kk.StreamHub(limits=Limits(subscription_bytes=waiting_bytes))
        self.state = self.hub.shared_state(
            "s", initial={"log": [], "tree": {}, "names": {}}, writable=True, replay_window=window
        )
        self.history: dict[int, Any] = {1: self.state.value}
        self.state.on_change(lambda change: self.history.update({change.version: change.value}))
        self.made: list[str] = []
        self.refused: list[str] = []
        self.unknown: list[str] = []

    async def serve(self, steps: list[tuple[str, int]]) -> None:
        for number, (kind, pause) in enumerate(steps):
            if kind == "burst":
                for n in range(30):
                    self.serve_one("append", f"server {number} {n}")
                continue
            name = f"server {number}"
            try:
                with self.state.mutate() as draft:
                    change(draft, kind, name)
                    for _ in range(pause * 3):
                        await checkpoint()
                self.made.append(name)
            except kk.StateConflict:
                self.refused.append(name)
            await checkpoint()

    def serve_one(self, kind: str, name: str) -> None:
        with self.state.mutate() as draft:
            change(draft, kind, name)
        self.made.append(name)

    async def follow(self, client: int, connections: Connections, steps: Any, cuts: Any, over: Any) -> None:
        """One client, to the end of all."""
        async with connections.link() as link, kk.streams(link).shared_state("s") as remote:
            versions = [remote.version]
            remote.on_change(lambda change: self.look(change, versions))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cut, connections, cuts)
                for number, (kind, pause) in enumerate(steps):
                    await self.ask(remote, kind, f"client {client} {number}", pause)
            over()
            await self.all_over.wait()
            await remote.until(lambda value: remote.version == self.state.version)
            assert same(remote.value, self.state.value)

    def look(self, change: kk.StateChange, versions: list[int]) -> None:
        versions.append(change.version)
        if versions[-2] >= versions[-1]:
            self.wrong.append(f"{versions[-2]} and then {versions[-1]}")
        if not same(change.value, self.history[change.version]):
            self.wrong.append(f"another value at {change.version}")

    async def ask(self, remote: kk.RemoteState, kind: str, name: str, pause: int) -> None:
        try:
            async with remote.mutate() as draft:
                change(draft, kind, name)
                for _ in range(pause * 3):
                    await checkpoint()
        except kk.StateConflict as conflict:
            assert 1 <= conflict.version <= self.state.version
            self.refused.append(name)
        except kk.ChannelClosed:
            self.unknown.append(name)
            await checkpoint()
        else:
            assert name in remote.at("names")
            self.made.append(name)

    async def run(self, server: Any, clients: list[tuple[Any, Any]], links: list[Connections]) -> None:
        self.all_over = anyio.Event()
        self.wrong: list[str] = []
        running = len(clients) + 1

        def over() -> None:
            nonlocal running
            running -= 1
            if not running:
                self.all_over.set()

        with anyio.fail_after(BOUND):
            async with anyio.create_task_group() as tasks:
                for number, (steps, cuts) in enumerate(clients):
                    tasks.start_soon(self.follow, number, links[number], steps, cuts, over)
                await self.serve(server)
                over()
        assert self.wrong == []
        names = set(self.state.at("names"))
        assert set(self.made) <= names
        assert names.isdisjoint(self.refused)
        assert names <= {*self.made, *self.unknown}
        # Each of them once.
        assert self.state.version == len(names) + 1


async def cut(connections: Connections, cuts: list[tuple[int, bool]]) -> None:
    for pause, lost in cuts:
        for _ in range(pause):
            await checkpoint()
        await connections.cut(lost=lost)


WORLDS = {
    "server": SERVER_STEPS,
    "clients": st.lists(st.tuples(CLIENT_STEPS, CUTS), min_size=1, max_size=3),
    "window": st.sampled_from([0, 2, 64]),
    "waiting_bytes": st.sampled_from([300, 1 << 20]),
}


def play(backend: Any, server: Any, clients: Any, window: int, waiting_bytes: int) -> World:
    async def main() -> World:
        world = World(window, waiting_bytes)
        # Little room, so that patches wait and are dropped.
        links = [Connections({"streams": world.hub}, capacity=2048) for _ in clients]
        await world.run(server, clients, links)
        return world

    return anyio.run(main, backend=backend[0], backend_options=backend[1])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(**WORLDS)
def test_all_see_the_same_in_the_end(anyio_backend: Any, **world: Any) -> None:
    play(anyio_backend, **world)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(**WORLDS)
def test_all_see_the_same_in_the_end_at_length(anyio_backend: Any, **world: Any) -> None:
    play(anyio_backend, **world)


def test_the_worlds_are_what_they_should_be(anyio_backend: Any) -> None:
    """Changes are made, refused and lost in them; else the tests above would show little."""
    busy = [(["set", "front", "append", "nest"][n % 4], 2) for n in range(24)]
    clients = [(busy, [(5 * n, True) for n in range(10)]) for _ in range(3)]
    world = play(anyio_backend, [*busy, ("burst", 0), *busy], clients, 2, 300)
    assert min(len(world.made), len(world.refused), len(world.unknown)) > 5


@pytest.mark.anyio
async def test_over_unix_sockets_too(tmp_path: Path) -> None:
    world = World(8, 4000)
    busy = [(["set", "front", "append", "pop"][n % 4], 1) for n in range(12)]
    clients = [(busy, [(20, True)] * 3) for _ in range(3)]
    links: list[Connections] = [Sockets(world.hub, tmp_path / "socket") for _ in clients]
    async with anyio.create_task_group() as tasks:
        await tasks.start(kk.serve_unix, {"streams": world.hub}, tmp_path / "socket")
        await world.run([*busy, ("burst", 0)], clients, links)
        tasks.cancel_scope.cancel()
    assert world.made
