"""How much memory an idle channel, an idle stream, and a producer that nobody reads from hold."""

from __future__ import annotations

import contextlib
from typing import Any

import anyio

from benchmarks import trial
from benchmarks.memory import resident
from benchmarks.ours.link import Setting, channel_to_other_end

CHUNK_BYTES = {"memory-stalled-100": 100, "memory-stalled-1m": 1 << 20}
_STILL_SECONDS = 0.2
"""A producer that has made nothing for so long has stopped."""


async def idle_channels(setting: Setting, workload: str, count: int) -> dict[str, Any]:
    """Channels, each to a process of its own; what one adds to either process, on average."""
    here, there = resident(), 0
    async with contextlib.AsyncExitStack() as channels:
        for _ in range(count):
            channel = await channels.enter_async_context(channel_to_other_end(setting))
            api = channel.remote()
            there += await api.resident() - await api.resident_before()
        here = resident() - here
    return {"seconds": 0.0, "count": count, "here_bytes": here / count, "there_bytes": there / count}


async def idle_streams(api: Any, workload: str, count: int) -> dict[str, Any]:
    """Opened one after the other and all held; the growth of both processes, a stream."""

    async def opened(number: int) -> Any:
        iterator = aiter(await api.parked(number))
        if await anext(iterator) != number:
            raise trial.WrongResultError(f"stream {number} has another one's value")
        return iterator

    held = [await opened(0)]  # both sides warm
    here, there = resident(), await api.resident()
    held += [await opened(number) for number in range(count)]
    here, there = resident() - here, await api.resident() - there
    return {"seconds": 0.0, "count": count, "here_bytes": here / count, "there_bytes": there / count}


async def stalled(api: Any, workload: str, count: int) -> dict[str, Any]:
    """A stream of which one chunk is read; the growth of either process once the producer has stopped."""
    size = CHUNK_BYTES[workload]
    await api.produced()
    here, there = resident(), await api.resident()
    stream = await api.offered(count, size)
    iterator = aiter(stream)
    if len(await anext(iterator)) != size:
        raise trial.WrongResultError("a chunk is not as long as asked for")
    before, produced = -1, await api.produced()
    highest_here = highest_there = 0
    while produced != before:
        await anyio.sleep(_STILL_SECONDS)
        highest_here = max(highest_here, resident() - here)
        highest_there = max(highest_there, await api.resident() - there)
        before, produced = produced, await api.produced()
    if produced >= count:
        raise trial.WrongResultError(f"the producer was not held up: all {count} chunks were made")
    await stream.cancel()
    return {
        "seconds": 0.0,
        "count": count,
        "produced": produced,
        "here_bytes": highest_here,
        "there_bytes": highest_there,
    }
