"""The benchmark of HTTP and WebSocket measures what it says: real trials with tiny counts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream

from benchmarks.results import Results
from benchmarks.run import ROOT, Outcome
from benchmarks.trial import WrongResultError
from benchmarks.web import trial
from benchmarks.web.__main__ import shown
from benchmarks.web.clients import RawEvents, Reader
from benchmarks.web.ways import GROUPS, WAYS
from benchmarks.web.workloads import LATENCY, THROUGHPUT, WORKLOADS, token_at

COUNT, BOUND = 300, 60
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def trials(asked: Iterable[tuple[str, str, int]], loop: str = "asyncio") -> list[Outcome]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.web.trial", "--loop", loop],
        cwd=ROOT,
        input="".join(json.dumps(each) + "\n" for each in asked),
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(outcomes: list[Outcome], asked: list[tuple[str, str, int]]) -> None:
    assert [outcome.get("failed") for outcome in outcomes] == [None] * len(asked)
    assert [outcome["count"] for outcome in outcomes] == [count for _, _, count in asked]
    assert ["us" in outcome for outcome in outcomes] == [workload in LATENCY for _, workload, _ in asked]


def every(workload: str, count: int) -> list[tuple[str, str, int]]:
    return [(name, workload, count) for name, way in WAYS.items() if workload in way.workloads]


def test_ours_and_the_plain_one_stream_every_chunk() -> None:
    asked = [
        ("kkrpc_py action", "tokens", COUNT),
        ("starlette", "tokens", COUNT),
        ("kkrpc_py action -> ActionClient", "first-chunk", 3),
        ("starlette -> httpx-sse", "lone", 3),
        ("kkrpc_py /ws -> kkrpc_py", "tokens-alone", COUNT),
        ("kkrpc_py /ws (counted)", "tokens", COUNT),
        ("starlette -> websockets", "streams-100", COUNT),
    ]
    check(trials(asked), asked)


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("workload", list(WORKLOADS))
def test_every_way_streams_every_chunk(workload: str, loop: str) -> None:
    asked = every(workload, 5 if workload in LATENCY else COUNT)
    check(trials(asked, loop), asked)


@pytest.mark.slow
def test_the_command_reports() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.web", "--rounds", "2", "--scale", "0.01", "--only", "tokens"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=True,
    )
    assert "tokens: small dicts" in done.stdout
    assert "failed" not in done.stdout


def test_a_way_that_fails_is_told_and_the_next_one_measured() -> None:
    outcomes = trials([("kkrpc_py TCP -> kkrpc_py", "tokens", 0), ("kkrpc_py TCP -> kkrpc_py", "tokens", 10)])
    assert outcomes[0]["failed"]
    assert outcomes[1]["count"] == 10


class Pieces(ByteStream):
    """Gives an answer in pieces of one size."""

    def __init__(self, answer: bytes, size: int) -> None:
        self._pieces = [answer[i : i + size] for i in range(0, len(answer), size)]

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return self._pieces.pop(0)

    async def send(self, item: bytes) -> None: ...

    async def send_eof(self) -> None: ...

    async def aclose(self) -> None: ...


def answered(chunks: int, together: int) -> bytes:
    """A chunked body with so many events in each of its parts."""
    events = [b"data: %b\n\n" % json.dumps(token_at(i)).encode() for i in range(chunks)]
    events.append(b"event: done\ndata: {}\n\n")
    parts = [b"".join(events[i : i + together]) for i in range(0, len(events), together)]
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])


@pytest.mark.parametrize("together", [1, 3, 50])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
def test_events_are_counted_however_they_are_divided(size: int, together: int) -> None:
    async def read() -> tuple[int, Any]:
        return await RawEvents(Pieces(answered(40, together), size), "/").read("tokens", 40)

    assert anyio.run(read) == (40, token_at(39))


class Short(Reader):
    async def read(self, workload: str, count: int) -> tuple[int, Any]:
        return count - 1, token_at(count - 1)

    async def arrivals(self, workload: str, count: int) -> list[tuple[float, Any]]:
        return []


@pytest.mark.anyio
async def test_what_is_missing_fails_the_trial() -> None:
    with pytest.raises(WrongResultError):
        await trial._read([Short()], "tokens", 10)
    with pytest.raises(WrongResultError):
        await trial._wait(Short(), "first-chunk", 10)


def test_each_group_has_its_plain_way_in_whatever_it_measures() -> None:
    for group in GROUPS:
        for way in group.ways.values():
            assert way.workloads <= group.ways[group.plain].workloads


def test_the_report_stands_ratios_within_rounds() -> None:
    def outcomes(rates: list[int], us: list[float]) -> dict[str, list[Outcome | None]]:
        costs = {"server_cpu": 1.0, "reader_cpu": 1.0}
        return {
            **{name: [{"seconds": 1.0, "count": rate, **costs} for rate in rates] for name in THROUGHPUT},
            **{
                name: [{"seconds": 1.0, "count": 1, "us": {"p50": each}, **costs} for each in us]
                for name in LATENCY
            },
        }

    made = {
        "kkrpc_py action": outcomes([300, 30, 90], [5, 50, 9]),
        "starlette": outcomes([100, 20, 10], [10, 100, 9]),
    }
    lines = list(shown(Results(made)))
    ratios = [line.split()[6] for line in lines if line.strip().startswith("kkrpc_py action ")]
    assert ratios == ["3.00"] * len(THROUGHPUT) + ["2.00"] * len(LATENCY)
    made["starlette"]["ints"] = [{"failed": "why"}]
    assert "FAILED: starlette, ints: 1 of 1: why" in list(shown(Results(made)))
