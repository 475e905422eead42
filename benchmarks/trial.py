"""What a trial is: the workloads, the same for every contender, and the line that a trial prints.

A trial is a program of its own: `COMMAND... WORKLOAD COUNT`. It starts its own other end (another process),
warms up, measures, checks what arrived, shuts its other end down, and prints one JSON object on one line of
stdout, with `seconds` and `count` in it. Anything else, or an exit code other than 0, is a failed trial.

The values, and what is checked after the clock has stopped, are here, so that everybody moves the same.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

WORKLOADS: dict[str, str] = {
    # One stream from the other process to this one: an asynchronous generator there where the contender
    # has such, `async for value in stream: received += 1` here. COUNT: its chunks.
    "ints": "one stream of small integers, int_at(i)",
    "dicts": "one stream of small dicts, dict_at(i), made anew for each chunk",
    "strings": "one stream of str of 1 KiB, STRING",
    "blocks-64k": "one stream of bytes of 64 KiB, BLOCK_64K",
    "blocks-1m": "one stream of bytes of 1 MiB, BLOCK_1M",
    # COUNT: the calls, all callers' together. Result i + 1 for add(i, 1), and the sum of all is checked.
    "calls": "add(a, b), the next one when the one before has answered",
    "calls-100": "add(a, b) from 100 callers, each with one call at a time; `async def` handlers",
    "calls-inline-100": "the same, with handlers that the contender runs without a task or thread each",
    # COUNT: the chunks of all streams together, as many in each. Extra: `fastest` and `slowest`, the seconds
    # from the common beginning until the first and until the last of the streams has ended.
    "streams-1": "one stream of small integers, opened and counted as the many are",
    "streams-10": "10 streams of small integers at once",
    "streams-100": "100 streams of small integers at once",
    "streams-1000": "1000 streams of small integers at once",
    # COUNT: the calls of each half; `seconds` is the idle half's. Extra: `idle_us` and `loaded_us`, each
    # percentiles_us() of add(i, 1); loaded: while this process reads a stream of BLOCK_64K over the same
    # channel (connection) as fast as it comes, from before the first call until after the last one. Also
    # `loaded_blocks`, how many blocks arrived meanwhile, which must be some, and `loaded_seconds`.
    "latency": "one small call at a time, first idle, then beside a saturating stream",
    # COUNT: how often. Extra: `first_us`, percentiles_us() from the call to its first chunk at hand.
    "first-chunk": "open a stream of small integers, read its first chunk, close it; one at a time",
    # COUNT: how often. Extra: `spawn_us`, percentiles_us() from before the start of the other process to
    # the answer of add(1, 1). No warm-up but one untimed time, for the files' cache.
    "spawn": "start the other process, call it once, stop it; one at a time",
}
"""What every contender is asked for, as far as it can: its COUNT is the second argument."""

OUR_WORKLOADS: dict[str, str] = {
    "import": "import kkrpc_py, over the start of bare Python; COUNT: how often each",
    "memory-idle": "COUNT channels that do nothing, and by how much one makes either process grow",
    "memory-streams": "COUNT streams, each opened, one value read, its generator waiting for an event",
    "memory-stalled-100": "COUNT chunks of 100 bytes at most, and a consumer that reads one and stalls",
    "memory-stalled-1m": "the same with chunks of 1 MiB",
    "scaling": "streams of COUNT small integers, one after the other until a million have come at least",
    "decode": "one frame of COUNT bytes, from its first piece of 64 KiB to the value; ns a byte",
}
"""What is asked of kkrpc_py alone."""

CONCURRENCY = {
    "calls-100": 100,
    "calls-inline-100": 100,
    "streams-1": 1,
    "streams-10": 10,
    "streams-100": 100,
    "streams-1000": 1000,
}
"""How many at once; COUNT is a multiple of it."""

STRING = "0123456789abcdef" * 64
BLOCK_64K = bytes(range(256)) * 256
BLOCK_1M = BLOCK_64K * 16
VALUE_BYTES = {"strings": len(STRING), "blocks-64k": len(BLOCK_64K), "blocks-1m": len(BLOCK_1M)}


def int_at(i: int) -> int:
    return i & 0xFF


def dict_at(i: int) -> dict[str, Any]:
    return {"id": i, "name": "a file", "done": True}


EXPECTED: dict[str, Callable[[int], Any]] = {
    "ints": int_at,
    "dicts": dict_at,
    "strings": lambda i: STRING,
    "blocks-64k": lambda i: BLOCK_64K,
    "blocks-1m": lambda i: BLOCK_1M,
}
"""The chunk at `i` of a stream, to check its last one with (a handler may spell it out, to be quicker)."""


class WrongResultError(Exception):
    """What arrived is not what was asked for: a trial that fails, whatever its speed."""


@dataclass(frozen=True)
class Peer:
    """A contender: what starts its trials, and what it can do."""

    name: str
    command: list[str]
    """The program, from the repository's root, without WORKLOAD and COUNT."""
    workloads: frozenset[str]
    needs: Callable[[], str | None] = lambda: None
    """Why it cannot run here ("grpcio is not installed"), or None."""


def warm_up_count(workload: str, count: int) -> int:
    """How many of the same workload come before the clock starts: a tenth of what is measured."""
    many = CONCURRENCY.get(workload, 1)
    return max(1, count // 10 // many) * many


def check_stream(workload: str, count: int, received: int, last: Any) -> None:
    """After the clock has stopped: as many chunks as asked for, and the right one at the end."""
    if received != count:
        raise WrongResultError(f"{workload}: {received} chunks came, {count} were asked for")
    expected = EXPECTED["ints" if workload.startswith("streams-") else workload](count - 1)
    if last != expected or (isinstance(expected, bytes) and not isinstance(last, bytes | memoryview)):
        raise WrongResultError(f"{workload}: the last chunk is not the right one")


def check_sum(workload: str, count: int, callers: int, total: int) -> None:
    """Each of `callers` called add(i, 1) for i from 0 to count // callers - 1; `total` adds all answers."""
    each = count // callers
    expected = callers * each * (each + 1) // 2
    if total != expected:
        raise WrongResultError(f"{workload}: the answers add up to {total}, not {expected}")


def percentiles_us(seconds: Sequence[float]) -> dict[str, float]:
    """The median and the 99th percentile, in microseconds."""
    ordered = sorted(seconds)
    return {
        "p50": statistics.median(ordered) * 1e6,
        "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] * 1e6,
    }


def report(seconds: float, count: int, **extra: Any) -> None:
    """The line of a trial that went well."""
    print(json.dumps({"seconds": seconds, "count": count, **extra}), flush=True)
