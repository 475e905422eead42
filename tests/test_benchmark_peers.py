"""The peers of the benchmarks, for real and very shortly: what they report, refuse, and leave behind.

Those on Node are installed by `make bench`; what is not installed is skipped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import trial
from benchmarks.peers import PEERS, anyio_pipe

ROOT = Path(__file__).parents[1]
BOUND = 30.0
"""Seconds. Far above what any trial here takes."""

EXTRA = {
    "latency": {"idle_us", "loaded_us", "loaded_blocks", "loaded_seconds"},
    "first-chunk": {"first_us"},
    "spawn": {"spawn_us"},
    **{f"streams-{many}": {"fastest", "slowest"} for many in (1, 10, 100, 1000)},
}

# Asks for one more than will come, in whatever module.
EXPECT_ONE_MORE = """
import runpy, sys
from benchmarks import trial
check_stream, check_sum = trial.check_stream, trial.check_sum
trial.check_stream = lambda workload, count, *came: check_stream(workload, count + 1, *came)
trial.check_sum = lambda workload, count, *came: check_sum(workload, count + 1, *came)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def each(peers: list[trial.Peer], workloads: Callable[[trial.Peer], list[str]]) -> list[Any]:
    """Every trial as a parameter. Slow: uvloop, which is like asyncio, and 10 or 1000 streams, like 100."""

    def slow(name: str, workload: str) -> bool:
        return name.endswith("uvloop") or workload in ("streams-10", "streams-1000")

    return [
        pytest.param(
            peer,
            workload,
            id=f"{peer.name}-{workload}",
            marks=[pytest.mark.slow] if slow(peer.name, workload) else [],
        )
        for peer in peers
        for workload in workloads(peer)
    ]


def start(peer: trial.Peer, *arguments: str, command: list[str] | None = None) -> subprocess.Popen[str]:
    """A trial in a process group of its own, in which everything that it starts is too."""
    if reason := peer.needs():
        pytest.skip(reason)
    cached = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.Popen(
        [*(command or peer.command), *arguments],
        cwd=ROOT,
        env=cached,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def members(group: int) -> int:
    listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return sum(int(pgid) == group and not state.startswith("Z") for pgid, state in rows)


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Its output and its errors, once nothing of it runs any more."""
    try:
        output, errors = process.communicate(timeout=BOUND)
        wait_for(lambda: members(process.pid) == 0)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return output, errors


def test_the_table_names_known_workloads_and_nobody_twice() -> None:
    names = [peer.name for peer in PEERS]
    assert len(set(names)) == len(names)
    for peer in PEERS:
        assert peer.workloads
        assert peer.workloads <= set(trial.WORKLOADS)


@pytest.mark.parametrize(("peer", "workload"), each(PEERS, lambda peer: sorted(peer.workloads)))
def test_a_trial_reports_its_figures(peer: trial.Peer, workload: str) -> None:
    count = 1 if workload == "spawn" else 2 * trial.CONCURRENCY.get(workload, 5)
    process = start(peer, workload, str(count))
    output, errors = finish(process)
    assert process.returncode == 0, errors
    (line,) = output.splitlines()
    report = json.loads(line)
    assert report.keys() == {"seconds", "count"} | EXTRA.get(workload, set())
    assert report["count"] == count
    assert report["seconds"] > 0
    for figure in EXTRA.get(workload, ()):
        percentiles = report[figure] if figure.endswith("_us") else {"": report[figure]}
        assert all(value > 0 for value in percentiles.values())


ON_PYTHON = [peer for peer in PEERS if peer.name in ("grpc.aio", "rpyc", "multiprocessing.Pipe")]
ON_NODE = [peer for peer in PEERS if "node" in peer.command]


@pytest.mark.parametrize(("peer", "workload"), each(ON_PYTHON, lambda peer: ["ints", "calls"]))
def test_a_wrong_count_fails(peer: trial.Peer, workload: str) -> None:
    _, _, *command = peer.command
    process = start(peer, workload, "20", command=[sys.executable, "-c", EXPECT_ONE_MORE, *command])
    output, errors = finish(process)
    assert process.returncode != 0
    assert output == ""
    assert "WrongResultError" in errors


@pytest.mark.parametrize(
    ("peer", "workload"), each(ON_NODE, lambda peer: sorted({"ints", "calls"} & peer.workloads))
)
def test_a_wrong_count_fails_on_node(peer: trial.Peer, workload: str) -> None:
    # Half a chunk or call is asked for, and a whole one comes.
    process = start(peer, workload, "20.5")
    output, errors = finish(process)
    assert process.returncode != 0
    assert output == ""
    assert "wrong result" in errors


class Garbling(anyio_pipe.Pipes):
    async def ping(self, line: bytes) -> bytes:
        return line.replace(b"0", b"1")

    async def read(self) -> bytes:
        return trial.BLOCK_64K + b"one too many"


@pytest.mark.anyio
async def test_the_bare_pipe_fails_with_wrong_bytes() -> None:
    garbling = Garbling(os.open(os.devnull, os.O_WRONLY), 0)
    try:
        with pytest.raises(trial.WrongResultError):
            await anyio_pipe.measure_calls(garbling, "calls", 1)
        with pytest.raises(trial.WrongResultError):
            await anyio_pipe.measure_blocks(garbling, "blocks-64k", 1)
    finally:
        os.close(garbling.outgoing)


@pytest.mark.parametrize(
    ("peer", "workload"), each([peer for peer in PEERS if peer.name != "rpyc buffiter"], lambda _: ["calls"])
)
def test_nothing_outlives_a_killed_trial(peer: trial.Peer, workload: str) -> None:
    process = start(peer, workload, "1000000000")
    try:
        wait_for(lambda: members(process.pid) > 1)
        process.kill()
        process.communicate(timeout=BOUND)
        wait_for(lambda: members(process.pid) == 0)
    finally:
        if members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
