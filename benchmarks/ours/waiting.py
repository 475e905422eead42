"""How long one waits: for a call's answer, for a stream's first chunk, for a new process."""

from __future__ import annotations

import math
import time
from typing import Any

import anyio

from benchmarks import trial
from benchmarks.ours.link import Setting, channel_to_other_end

SATURATED = 20
"""After as many blocks the bulk stream is at its full pace."""


async def _call_times(api: Any, count: int) -> list[float]:
    times, total = [], 0
    for i in range(count):
        began = time.perf_counter()
        total += await api.add(i, 1)
        times.append(time.perf_counter() - began)
    trial.check_sum("latency", count, 1, total)
    return times


async def latency(api: Any, workload: str, count: int) -> dict[str, Any]:
    idle = await _call_times(api, count)
    blocks = 0
    saturated = anyio.Event()

    async def bulk() -> None:
        nonlocal blocks
        async for block in api.blocks_64k(2**40):
            blocks += len(block) == len(trial.BLOCK_64K)
            if blocks == SATURATED:
                saturated.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bulk)
        await saturated.wait()
        before = blocks
        began = time.perf_counter()
        loaded = await _call_times(api, count)
        loaded_seconds = time.perf_counter() - began
        loaded_blocks = blocks - before
        tasks.cancel_scope.cancel()
    if not loaded_blocks:
        raise trial.WrongResultError("latency: no block came while the calls ran")
    return {
        "seconds": math.fsum(idle),
        "count": count,
        "idle_us": trial.percentiles_us(idle),
        "loaded_us": trial.percentiles_us(loaded),
        "loaded_blocks": loaded_blocks,
        "loaded_seconds": loaded_seconds,
    }


async def first_chunk(api: Any, workload: str, count: int) -> dict[str, Any]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        stream = aiter(api.ints(1000))
        value = await anext(stream)
        times.append(time.perf_counter() - began)
        await stream.aclose()
        if value != 0:
            raise trial.WrongResultError(f"{value} came first")
    return {"seconds": math.fsum(times), "count": count, "first_us": trial.percentiles_us(times)}


async def spawn(setting: Setting, workload: str, count: int) -> dict[str, Any]:
    times = []
    for number in range(count + 1):
        began = time.perf_counter()
        async with channel_to_other_end(setting) as channel:
            if await channel.remote().add(1, 1) != 2:
                raise trial.WrongResultError("1 + 1 is not 2")
            if number:  # the first one read the files
                times.append(time.perf_counter() - began)
    return {"seconds": math.fsum(times), "count": count, "spawn_us": trial.percentiles_us(times)}
