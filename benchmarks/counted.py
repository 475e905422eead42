"""What `instructions` counts: the work, and a mark where each piece of it begins and ends.

Runs under valgrind. A mark is a call of getppid, at which callgrind writes down its counter and begins anew;
nobody else calls it here. Each piece is done twice: first a tenth of it, for what happens only once, then all
of it, between two marks. So start-up counts nowhere.
"""

from __future__ import annotations

import gc
import json
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import Any
from unittest import mock

import anyio
import msgspec
import trio

import kkrpc_py as kk
from benchmarks.trial import BLOCK_64K, WrongResultError
from kkrpc_py.channel import producer

IN_FLIGHT = 100
REFERENCE = "reference"
PASSES = 600
"""Of the reference."""


class API:
    async def add(self, a: int, b: int) -> int:
        return a + b

    async def ints(self, count: int) -> AsyncGenerator[int]:
        for i in range(count):
            yield i & 0xFF

    async def dicts(self, count: int) -> AsyncGenerator[dict[str, Any]]:
        for i in range(count):
            yield {"id": i, "name": "a file", "done": True}

    async def blocks(self, count: int) -> AsyncGenerator[bytes]:
        for _ in range(count):
            yield BLOCK_64K


async def _received(stream: AsyncIterable[Any], count: int) -> None:
    received = 0
    async for _ in stream:
        received += 1
    if received != count:
        raise WrongResultError(f"{received} chunks came, {count} were asked for")


async def _ints(api: Any, count: int) -> None:
    await _received(api.ints(count), count)


async def _dicts(api: Any, count: int) -> None:
    await _received(api.dicts(count), count)


async def _blocks(api: Any, count: int) -> None:
    await _received(api.blocks(count), count)


async def _calls(api: Any, count: int) -> None:
    for i in range(count):
        if await api.add(i, 1) != i + 1:
            raise WrongResultError(f"add({i}, 1)")


async def _calls_in_flight(api: Any, count: int) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(IN_FLIGHT):
            tasks.start_soon(_calls, api, count // IN_FLIGHT)


WORKLOADS: dict[str, tuple[Callable[[Any, int], Awaitable[None]], int]] = {
    "int chunk": (_ints, 20_000),
    "dict chunk": (_dicts, 8000),
    "64 KiB chunk": (_blocks, 300),
    "call": (_calls, 400),
    f"call, {IN_FLIGHT} in flight": (_calls_in_flight, 800),
}
"""What is done, and how often."""


def _mark() -> None:
    os.getppid()


class _Counter:
    """Stands for a channel's own small objects in the reference."""

    __slots__ = ("seen", "waiting")

    def __init__(self) -> None:
        self.seen = 0
        self.waiting: deque[Any] = deque()

    def put(self, value: Any) -> None:
        self.waiting.append(value)
        self.seen += 1

    def take(self) -> list[Any]:
        taken = list(self.waiting)
        self.waiting.clear()
        return taken


async def _values(count: int) -> AsyncGenerator[dict[str, Any]]:
    for i in range(count):
        yield {"id": i, "name": "a file", "done": True}


def reference(passes: int) -> None:
    """What a channel is made of, without one: steps of a generator, small methods, JSON to and fro."""
    counter = _Counter()
    for _ in range(passes):
        values = _values(32)
        while True:
            step = values.__anext__()
            try:
                step.send(None)
            except StopIteration as stop:
                counter.put(stop.value)
            except StopAsyncIteration:
                break
        text = msgspec.json.encode({"type": "reference", "values": counter.take()})
        if len(msgspec.json.decode(text)["values"]) != 32:
            raise WrongResultError("the reference")


async def _measured(loop: str, done: list[tuple[str, int]], scale: float) -> None:
    async with kk.memory_pair(API()) as (_, caller):
        await caller.ready()
        api = caller.remote()
        for name, (work, full) in WORKLOADS.items():
            count = max(IN_FLIGHT, round(full * scale))
            await work(api, max(IN_FLIGHT, count // 10))
            gc.collect()
            _mark()
            await work(api, count)
            _mark()
            done.append((f"{loop}: {name}", count))


def main(scale: float) -> None:
    """Print what lies between each two marks, in order: `[[name, how often], ...]`."""
    passes = round(PASSES * scale)
    reference(passes // 10)
    _mark()
    reference(passes)
    _mark()
    done = [(REFERENCE, passes)]
    # The producer looks at the clock, and would decide by how slow valgrind is: for it time stands still.
    with mock.patch.object(producer, "perf_counter", float):
        anyio.run(_measured, "asyncio", done, scale)
        # trio takes its tasks in random order.
        trio._core._run._r.seed(0)
        anyio.run(_measured, "trio", done, scale, backend="trio")
    print(json.dumps(done))


if __name__ == "__main__":
    import sys

    main(float(sys.argv[1]))
