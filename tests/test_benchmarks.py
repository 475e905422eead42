"""The benchmarks measure what they say: real trials with tiny counts, and the arithmetic on made-up ones."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from benchmarks import __main__ as driver
from benchmarks import goals, machine, plan, report, run, trial
from benchmarks.caveats import CAVEATS
from benchmarks.ours import __main__ as ours
from benchmarks.ours import size, speed, waiting
from benchmarks.ours.link import Setting, channel_to_other_end
from benchmarks.results import Results, median, ratios, spread, worst

SECONDS = 60
SCRIPT = [sys.executable, "-c"]


def loop_of(backend: tuple[str, dict[str, Any]]) -> str:
    return "uvloop" if backend[1] else backend[0]


# Real trials, small.

TINY = {"latency": 3, "first-chunk": 2, "blocks-1m": 2, "memory-streams": 5, "memory-stalled-1m": 50}


@pytest.mark.anyio
async def test_every_workload_runs_on_every_loop(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    over_channels = {**ours.OVER_A_CHANNEL, **ours.OVER_A_COLD_CHANNEL}
    assert over_channels.keys() | ours.BY_ITSELF.keys() | {"import", "decode"} == (
        trial.WORKLOADS.keys() | trial.OUR_WORKLOADS.keys()
    )
    setting = Setting(loop_of(anyio_backend))
    with anyio.fail_after(SECONDS):
        async with channel_to_other_end(setting) as channel:
            for workload, measure in over_channels.items():
                count = run.in_multiples(workload, TINY.get(workload, 2000))
                if workload == "scaling":
                    count = 1_000_000  # once; a short stream would be repeated until so many have come
                outcome = await measure(channel.remote(), workload, count)
                assert outcome["count"] == count
                assert run.parsed(json.dumps(outcome)) == outcome
        for workload in ours.BY_ITSELF:
            assert (await ours.measure(setting, workload, 1))["count"] == 1


@pytest.mark.parametrize(
    ("arguments", "workload", "count"),
    [
        (["--transport", "stdio"], "calls", 20),
        (["--transport", "unix", "--codec", "json"], "dicts", 500),
        (["--transport", "tcp", "--codec", "cbor"], "blocks-64k", 20),
        ([], "import", 1),
        ([], "decode", 1000),
    ],
)
def test_a_trial_is_a_program(arguments: list[str], workload: str, count: int) -> None:
    outcome = run.run_trial([sys.executable, "-m", "benchmarks.ours", *arguments], workload, count)
    assert outcome.get("failed") is None
    assert outcome["count"] == count


class Wrong:
    async def ints(self, count: int) -> AsyncIterator[int]:
        for i in range(count - 1):
            yield i & 0xFF

    async def dicts(self, count: int) -> AsyncIterator[dict[str, Any]]:
        for i in range(count):
            yield {"id": i, "name": "another", "done": True}

    async def add(self, a: int, b: int) -> int:
        return a + b + (a == 7)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("measure", "workload"),
    [
        (speed.stream, "ints"),
        (speed.stream, "dicts"),
        (speed.streams, "streams-10"),
        (speed.calls, "calls"),
        (speed.calls, "calls-100"),
    ],
)
async def test_a_trial_fails_where_something_else_arrives(
    anyio_backend: tuple[str, dict[str, Any]], measure: Any, workload: str
) -> None:
    with anyio.fail_after(SECONDS):
        async with kk.memory_pair(Wrong(), None) as (_, client):
            with pytest.raises(trial.WrongResultError):
                await measure(client.remote(), workload, 1000)


class Starving:
    """Its stream dries up just when the calls beside it begin."""

    async def add(self, a: int, b: int) -> int:
        return a + b

    async def blocks_64k(self, count: int) -> AsyncIterator[bytes]:
        for _ in range(waiting.SATURATED):
            yield trial.BLOCK_64K
        await anyio.sleep_forever()


@pytest.mark.anyio
async def test_calls_beside_a_stream_that_stands_still_tell_nothing(
    anyio_backend: tuple[str, dict[str, Any]],
) -> None:
    with anyio.fail_after(SECONDS):
        async with kk.memory_pair(Starving(), None) as (_, client):
            with pytest.raises(trial.WrongResultError, match="no block came"):
                await waiting.latency(client.remote(), "latency", 20)


class NotHeldUp:
    """Makes all its chunks, whether they are read or not."""

    async def offered(self, count: int, size: int) -> AsyncIterator[bytes]:
        yield bytes(size)
        await anyio.sleep_forever()

    @kk.inline
    def produced(self) -> int:
        return 50

    @kk.inline
    def resident(self) -> int:
        return 0


@pytest.mark.anyio
async def test_a_producer_that_is_not_held_up_fails(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    with anyio.fail_after(SECONDS):
        async with kk.memory_pair(NotHeldUp(), None) as (_, client):
            with pytest.raises(trial.WrongResultError, match="not held up"):
                await size.stalled(client.remote(), "memory-stalled-100", 50)


# What becomes of a program that does not do as it should.


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise RuntimeError('no such peer')", "RuntimeError: no such peer"),
        ("raise SystemExit(3)", "exit code 3"),
        ("pass", "did not print"),
        ("print('{}')", "did not print"),
        ("print('[]')", "did not print"),
        ("""print('{"seconds": 1, "count": 1}'); print('more')""", "did not print"),
        ("""print('{"seconds": 1, "count": 0}')""", "figures that cannot be"),
        ("""print('{"seconds": 1, "count": 1}'); raise SystemExit(1)""", "exit code 1"),
    ],
)
def test_a_failed_trial_says_why(program: str, why: str) -> None:
    assert why in run.run_trial([*SCRIPT, program], "ints", 1)["failed"]


def test_a_program_that_cannot_be_started_is_a_failed_trial(tmp_path: Path) -> None:
    assert "cannot be started" in run.run_trial([str(tmp_path / "missing")], "ints", 1)["failed"]


def test_a_trial_that_hangs_is_ended_with_all_that_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    # The grandchild holds stdout: while it lives, the trial's output does not end.
    grandchild = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    )
    monkeypatch.setattr(run, "TIMEOUT_SECONDS", 0.3)
    assert "took longer" in run.run_trial([*SCRIPT, grandchild], "ints", 1)["failed"]


def test_a_reason_names_no_folder_of_this_machine() -> None:
    assert run.failed(f"FileNotFoundError: {run.ROOT}/benchmarks/x") == {
        "failed": "FileNotFoundError: ./benchmarks/x"
    }


@pytest.mark.parametrize(
    ("release", "number"),
    [("6.8.0-45-generic", "6.8.0"), ("6.18.44-build-of-somebody", "6.18.44"), ("5.15.", "5.15"), ("", "")],
)
def test_the_kernel_is_named_by_its_number_alone(
    monkeypatch: pytest.MonkeyPatch, release: str, number: str
) -> None:
    monkeypatch.setattr(machine.platform, "system", lambda: "Linux")
    monkeypatch.setattr(machine.platform, "release", lambda: release)
    assert machine.described()["system"] == f"Linux {number}".rstrip()


# How many, and in which order.


@pytest.mark.parametrize("a_second", [50, 20_000, 5_000_000])
def test_the_count_is_chosen_by_how_quick_the_contender_is(a_second: float) -> None:
    def trial_of(command: Any, workload: str, count: int) -> dict[str, Any]:
        return {"seconds": count / a_second, "count": count}

    assert run.calibrated([], "ints", 0.4, trial_of) == pytest.approx(0.4 * a_second, rel=0.05)


def test_a_contender_that_fails_is_not_probed_for_ever() -> None:
    asked = []

    def trial_of(command: Any, workload: str, count: int) -> dict[str, Any]:
        asked.append(count)
        return {"failed": "it does"}

    assert [run.calibrated([], "ints", 0.4, trial_of)] == asked


def test_counts_are_the_same_for_each_of_many() -> None:
    assert run.in_multiples("calls-100", 1234) == 1200
    assert run.in_multiples("streams-1000", 50) == 10_000
    assert run.in_multiples("ints", 7) == 7


def groups(only: list[str], scale: float = 1) -> list[list[plan.Cell]]:
    return plan.cells(plan.contenders(), plan.matching(only), scale)


def test_every_round_has_every_trial_once_and_begins_elsewhere() -> None:
    rounds = [plan.order(groups(["calls*", "ints", "dicts"]), number) for number in range(3)]
    assert rounds[0][0] != rounds[1][0] != rounds[2][0]
    for cells in rounds:
        assert len(set(map(key, cells))) == len(cells) == len(rounds[0])
        # What is compared runs close by: one workload after the other.
        workloads = [cell.workload for cell in cells]
        assert len([w for i, w in enumerate(workloads) if i == 0 or workloads[i - 1] != w]) == 5


def key(cell: plan.Cell) -> tuple[str, str]:
    return cell.peer.name, cell.label


def test_long_trials_are_part_of_the_first_rounds_alone() -> None:
    steady = {
        cell.workload for cell in plan.order(groups(["scaling", "ints", "memory*"]), plan.SELDOM_ROUNDS)
    }
    assert steady == {"ints"}


def test_a_part_can_be_asked_for() -> None:
    assert {cell.workload for group in groups(["calls*"]) for cell in group} == {
        "calls",
        "calls-100",
        "calls-inline-100",
    }
    assert [key(cell) for group in groups(["kkrpc_py trio/ints"]) for cell in group] == [
        ("kkrpc_py trio", "ints")
    ]
    (cell,) = (cell for group in groups(["kkrpc_py trio/memory-streams"], 0.5) for cell in group)
    assert cell.count == 5000


def test_contenders_are_asked_for_workloads_that_there_are() -> None:
    contenders = plan.contenders()
    names = [peer.name for peer in contenders]
    assert len(set(names)) == len(names)
    for peer in contenders:
        assert peer.workloads <= trial.WORKLOADS.keys() | trial.OUR_WORKLOADS.keys()
        if not peer.name.startswith(plan.OURS):
            assert peer.workloads <= trial.WORKLOADS.keys()


def test_goals_name_contenders_that_there_are() -> None:
    workloads = {peer.name: peer.workloads for peer in plan.contenders()}
    assert {"ints", "blocks-64k"} <= workloads[goals.PIPE]
    for loop in ("asyncio", "uvloop", "trio"):
        assert {"ints", "calls", "calls-100"} <= workloads[goals.grpc(loop)]
        assert "calls" in workloads[goals.ping_pong(loop)]


# The arithmetic, on made-up results.


def rated(*a_second: float | None) -> list[dict[str, Any] | None]:
    return [{"failed": "x"} if each is None else {"seconds": 2.0, "count": 2 * each} for each in a_second]


def test_medians_spreads_and_ratios() -> None:
    assert spread([3.0, None, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    assert spread([None]) is None
    assert median([]) is None
    # The ratio of each round, and not that of the medians (here 20 / 10).
    assert median(ratios([10, 20, 30], [10, 5, 15])) == 2
    assert median(ratios([10, 20, 60], [1, 10, 20])) == 3
    assert ratios([1, None, 3, 4], [2, 2, None, 0]) == [0.5, None, None, None]
    assert worst([1, 2, None], [2, 1, 1]) == [2, 2, None]
    assert worst([], [1]) == []
    assert machine.noise([1.0, 1.0, 1.5]) == 0.5


def made_up(**changed: Any) -> Results:
    """Results that reach each goal just so; `changed` replaces "CONTENDER/WORKLOAD", or ours on trio."""
    mib, kib = 1 << 20, 1 << 10
    usual: dict[str, Any] = {
        "ints": rated(2_000_000),
        "dicts": rated(800_000),
        "blocks-64k": rated(2e9 / (1 << 16)),
        "calls": rated(20_000),
        "calls-100": rated(70_000),
        "calls-inline-100": rated(120_000),
        "streams-1": rated(1_000_000),
        "streams-1000": [{"seconds": 2.0, "count": 1_000_000, "fastest": 1.0, "slowest": 2.0}],
        "latency": [
            {
                "seconds": 1,
                "count": 1,
                "idle_us": {"p50": 1, "p99": 100},
                "loaded_us": {"p50": 1, "p99": 500},
                "loaded_blocks": 1000,
                "loaded_seconds": 0.5,
            }
        ],
        "memory-stalled-100": [
            {"seconds": 0, "count": 1, "here_bytes": 2 * mib - 1, "there_bytes": 0},
        ],
        "memory-stalled-1m": [{"seconds": 0, "count": 1, "here_bytes": 0, "there_bytes": 6 * mib - 1}],
        "memory-streams": [{"seconds": 0, "count": 1, "here_bytes": 4 * kib, "there_bytes": 6 * kib}],
        "import": [{"seconds": 1, "count": 1, "import_ms": {"median": 59.9, "best": 50.0}}],
        "scaling@10000": rated(1_000_000),
        "scaling@100000": rated(1_200_000),
        "scaling@1000000": rated(800_000),
        "decode@1048576": [{"seconds": 0, "count": 1, "ns_per_byte": {"text": 1.0, "rows": 4.0}}],
        "decode@16776192": [{"seconds": 0, "count": 1, "ns_per_byte": {"text": 2.0, "rows": 5.0}}],
    }
    loops = ("asyncio", "uvloop", "trio")
    outcomes: dict[str, Any] = {plan.our_name(loop): dict(usual) for loop in loops}
    outcomes |= {plan.our_name(loop, codec="cbor"): {"dicts": rated(400_000)} for loop in loops}
    outcomes |= {goals.ping_pong(loop): {"calls": rated(20_000 / 0.7)} for loop in loops}
    outcomes[goals.GRPC] = {
        "ints": rated(25_000),
        "calls": rated(5_000),
        "calls-100": rated(70_000 / 9),
    }
    outcomes[goals.PIPE] = {"ints": rated(500_000), "blocks-64k": rated(2e9 / (1 << 16) / 0.6)}
    outcomes[goals.grpc("uvloop")] = dict(outcomes[goals.GRPC])
    for name, outcome in changed.items():
        contender, _, workload = name.rpartition("/")
        outcomes[contender or "kkrpc_py trio"][workload.replace("_", "-")] = outcome
    return Results(outcomes)


def missed(results: Results) -> list[str]:
    return [goal["what"] for goal in goals.judged(results) if not goal["reached"]]


def test_goals_are_reached_at_their_bounds() -> None:
    assert missed(made_up()) == []


MISSED = {
    "small-int chunks a second": {"ints": rated(1_999_999)},
    "small-int chunks, times grpc.aio": {"grpc.aio/ints": rated(25_001)},
    "small-int chunks, times multiprocessing.Pipe": {"multiprocessing.Pipe/ints": rated(500_001)},
    "small dicts a second, JSON": {"dicts": rated(799_999)},
    "small dicts a second, CBOR": {"kkrpc_py trio cbor/dicts": rated(399_999)},
    "64 KiB binary chunks (CBOR)": {"blocks-64k": rated(1.9999e9 / (1 << 16))},
    "64 KiB binary chunks, times multiprocessing.Pipe": {
        "multiprocessing.Pipe/blocks-64k": rated(2e9 / (1 << 16) / 0.599)
    },
    "sequential calls, times raw anyio ping-pong": {"anyio pipe trio/calls": rated(20_000 / 0.699)},
    "sequential calls, times grpc.aio": {"grpc.aio/calls": rated(5001)},
    "100 calls in flight, `async def`, a second": {"calls-100": rated(44_999)},
    "100 calls in flight, times grpc.aio": {"grpc.aio/calls-100": rated(70_000 / 8.999)},
    "100 calls in flight, inline, a second": {"calls-inline-100": rated(119_999)},
    "1000 streams: chunks a second, times one stream's": {"streams-1": rated(1_000_001)},
    "1000 streams: the slowest's time over the fastest's": {
        "streams-1000": [{"seconds": 2.0, "count": 1_000_000, "fastest": 1.0, "slowest": 2.001}]
    },
    "a call's p99 under a saturating stream over its idle p99": {
        "latency": [{"idle_us": {"p50": 500, "p99": 100}, "loaded_us": {"p50": 1, "p99": 501}}]
    },
    "stalled consumer, 100 B chunks": {"memory-stalled-100": [{"here_bytes": 0, "there_bytes": 2 << 20}]},
    "stalled consumer, 1 MiB chunks": {"memory-stalled-1m": [{"here_bytes": 6 << 20, "there_bytes": 0}]},
    "an idle stream of 10,000, both ends": {
        "memory-streams": [{"here_bytes": 4 << 10, "there_bytes": (6 << 10) + 1}]
    },
    "import kkrpc_py, over bare Python": {
        "kkrpc_py asyncio/import": [{"import_ms": {"median": 60.0, "best": 50.0}}]
    },
    "chunks a second, 10^4 to 10^7: off by at most": {"scaling@1000000": rated(799_999)},
    "decode a frame of 16 MiB, cost a byte over 1 MiB's": {
        "kkrpc_py asyncio/decode@16776192": [{"ns_per_byte": {"text": 1.0, "rows": 8.01}}]
    },
}
"""For each goal, what misses it by very little: on trio, or where it is said."""
WITH_OTHERS = {
    # Where ours is slower, so it is in relation.
    "small-int chunks a second": {
        "small-int chunks, times grpc.aio",
        "small-int chunks, times multiprocessing.Pipe",
    },
    "64 KiB binary chunks (CBOR)": {"64 KiB binary chunks, times multiprocessing.Pipe"},
    "100 calls in flight, `async def`, a second": {"100 calls in flight, times grpc.aio"},
}


@pytest.mark.parametrize("goal", [goal.what for goal in goals.GOALS])
def test_a_goal_is_missed_just_below_its_bound(goal: str) -> None:
    results = made_up(**MISSED[goal])
    assert set(missed(results)) == {goal} | WITH_OTHERS.get(goal, set())


def test_what_failed_or_was_not_measured_is_not_reached() -> None:
    assert missed(made_up(dicts=rated(None))) == ["small dicts a second, JSON"]
    # One round of ours that failed is enough, however well the others went; a peer's is not.
    assert missed(made_up(dicts=rated(None, 900_000, 900_000))) == ["small dicts a second, JSON"]
    assert missed(made_up(**{"grpc.aio/calls": rated(None)})) == ["sequential calls, times grpc.aio"]
    usual = rated(20_000, 20_000)
    calls = {f"kkrpc_py {loop}/calls": usual for loop in ("asyncio", "trio")}
    assert missed(made_up(**calls, **{"grpc.aio/calls": rated(None, 5_000)})) == []
    assert missed(made_up(dicts=[None, *rated(800_000)])) == []
    assert missed(made_up(streams_1=[])) == ["1000 streams: chunks a second, times one stream's"]
    assert len(missed(Results({}))) == len(goals.GOALS)


def test_a_figure_for_one_loop_is_asked_of_that_one() -> None:
    # 45,000 on trio, where asyncio has to reach 70,000; grpc.aio's multiple holds on all.
    assert missed(made_up(calls_100=rated(45_000))) == ["100 calls in flight, times grpc.aio"]


# What is printed and written.


def document() -> dict[str, Any]:
    results = made_up(dicts=rated(None, 900_000))
    return {
        "caveats": CAVEATS,
        "machine": machine.described(),
        "versions": {"kkrpc-py": "0"},
        "run": {
            "date": "2025-01-01", "rounds": 2, "scale": 1.0, "only": [], "memory": "resident set",
            "noise": 0.01, "load_before": 0.1,
        },
        "peers": [goals.GRPC, goals.PIPE],
        "skipped": {"capnweb": "no Node here"},
        "trials": results.outcomes,
        "goals": goals.judged(results),
    }  # fmt: skip


def test_the_report_begins_with_caveats_and_hides_nothing() -> None:
    lines = list(report.shown(document()))
    text = "\n".join(lines)
    assert lines[0] == "READ FIRST"
    for caveat in CAVEATS:
        assert caveat in " ".join(text.split())
    assert "capnweb: no Node here" in text
    assert "kkrpc_py trio, dicts: 1 of 2: x" in text
    assert "NOT QUIET" not in text
    assert ["kkrpc_py", "trio", "1.00", "100", "1.00", "500", "131"] in [line.split() for line in lines]
    assert "900,000 (1 of 2 failed) -  NOT reached" in text
    assert lines[-1].strip() == f"{len(goals.GOALS) - 1} of {len(goals.GOALS)} reached"
    noisy = document()
    noisy["run"]["noise"] = 0.5
    assert "NOT QUIET" in "\n".join(report.shown(noisy))


def test_what_is_written_is_the_document() -> None:
    assert json.loads(driver.written(document())) == document()


def test_the_plot_is_the_same_for_the_same_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `bench` is not installed")
    from benchmarks import plot

    for name in ("one.svg", "two.svg"):
        plot.draw(document(), tmp_path / name)
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    assert "grpc.aio" in text
    for caveat in CAVEATS:
        assert caveat[:40] in text
    assert "dc:date" not in text


def test_a_peer_that_lacks_something_is_skipped_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = trial.Peer("absent", [], frozenset({"ints"}), lambda: "it is not installed")
    present = dataclasses.replace(
        absent,
        name="present",
        command=[*SCRIPT, """print('{"seconds": 0.4, "count": 1000}')"""],
        needs=lambda: None,
    )
    monkeypatch.setattr(plan, "contenders", lambda: [absent, present])
    arguments = driver.parsed_arguments(["--rounds", "2"])
    found = driver.measured(arguments)
    assert next(iter(found)) == "caveats"
    assert found["skipped"] == {"absent": "it is not installed"}
    assert found["trials"] == {"present": {"ints": [{"seconds": 0.4, "count": 1000}] * 2}}
