"""What is streamed, the same from every server: the values, and what a server waits for before each."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import msgspec
from anyio.lowlevel import checkpoint

PAUSE_SECONDS = 0.005
"""Between two lone tokens: long enough that each finds both processes idle."""
MANY = 100
_PAD = "0123456789abcdef" * 63


class Asked(msgspec.Struct):
    """The input of every endpoint."""

    workload: str
    count: int


def token_at(i: int) -> dict[str, Any]:
    return {"index": i, "text": " word"}


def dict_1k_at(i: int) -> dict[str, Any]:
    return {"index": i, "text": _PAD}


def stamped(i: int) -> dict[str, Any]:
    """A token that says when it was made, by the clock that all processes of a machine share."""
    return {"index": i, "at": time.perf_counter()}


async def _gate() -> None:
    await anyio.sleep(PAUSE_SECONDS)


@dataclass(frozen=True)
class Workload:
    what: str
    value: Callable[[int], Any]
    """The value at a place, made anew for each."""
    pause: Callable[[], Awaitable[object]] | None = None
    """Awaited before each value is made."""
    streams: int = 1
    """So many at once, each on a connection of its own, COUNT chunks together."""


THROUGHPUT = {
    "ints": Workload("small integers as fast as they are taken", lambda i: i & 0xFF),
    "tokens": Workload("small dicts as fast as they are taken", token_at),
    "tokens-alone": Workload("small dicts, each sent before the next one is made", token_at, checkpoint),
    "dicts-1k": Workload("dicts of 1 KiB as fast as they are taken", dict_1k_at),
    "streams-100": Workload(f"{MANY} streams of small dicts at once", token_at, streams=MANY),
}
"""COUNT chunks; the figure is how many a second."""
LATENCY = {
    "first-chunk": Workload("from asking for a stream to its first chunk, on an open connection", token_at),
    "lone": Workload(
        f"from the making of a token to the reader, one every {PAUSE_SECONDS * 1e3:g} ms", stamped, _gate
    ),
}
"""COUNT times; the figure is the median of `us`."""
WORKLOADS = THROUGHPUT | LATENCY
