"""Streams and calls, as many as come: the workloads whose figure is a number a second."""

from __future__ import annotations

import time
from typing import Any

import anyio

from benchmarks import trial


async def stream(api: Any, workload: str, count: int) -> dict[str, Any]:
    """One stream, counted as it comes."""
    handler = getattr(api, workload.replace("-", "_"))
    received, last = 0, None
    began = time.perf_counter()
    async for last in handler(count):  # noqa: B007 - the last one is checked below
        received += 1
    seconds = time.perf_counter() - began
    trial.check_stream(workload, count, received, last)
    return {"seconds": seconds, "count": count}


async def streams(api: Any, workload: str, count: int) -> dict[str, Any]:
    """Many streams of integers at once, the same number of chunks in each."""
    many = trial.CONCURRENCY[workload]
    ends: list[tuple[float, int, Any]] = []

    async def consume() -> None:
        received, last = 0, None
        async for last in api.ints(count // many):  # noqa: B007 - the last one is checked below
            received += 1
        ends.append((time.perf_counter(), received, last))

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(many):
            tasks.start_soon(consume)
    seconds = time.perf_counter() - began
    for _, received, last in ends:
        trial.check_stream(workload, count // many, received, last)
    finished = [end - began for end, _, _ in ends]
    return {"seconds": seconds, "count": count, "fastest": min(finished), "slowest": max(finished)}


async def calls(api: Any, workload: str, count: int) -> dict[str, Any]:
    """Callers with one call at a time each; the sequential ones are a single caller."""
    many = trial.CONCURRENCY.get(workload, 1)
    sums: list[int] = []

    async def caller() -> None:
        total = 0
        for i in range(count // many):
            total += await api.add(i, 1)
        sums.append(total)

    async def inline_caller() -> None:
        total = 0
        for i in range(count // many):
            total += await api.add_inline(i, 1)
        sums.append(total)

    began = time.perf_counter()
    if many == 1:
        await caller()
    else:
        async with anyio.create_task_group() as tasks:
            for _ in range(many):
                tasks.start_soon(inline_caller if "inline" in workload else caller)
    seconds = time.perf_counter() - began
    trial.check_sum(workload, count, many, sum(sums))
    return {"seconds": seconds, "count": count}


async def scaling(api: Any, workload: str, count: int) -> dict[str, Any]:
    """Streams of `count` chunks one after the other, a million chunks at least, so that short ones count."""
    repeats = max(1, 1_000_000 // count)
    await stream(api, "ints", min(count, 100_000))
    began = time.perf_counter()
    for _ in range(repeats):
        received, last = 0, None
        async for last in api.ints(count):  # noqa: B007 - the last one is checked below
            received += 1
        trial.check_stream("ints", count, received, last)
    return {"seconds": time.perf_counter() - began, "count": repeats * count}
