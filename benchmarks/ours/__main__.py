"""One trial of ours: `python -m benchmarks.ours --loop L --transport T --codec C WORKLOAD COUNT`."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from benchmarks import trial
from benchmarks.loops import LOOPS
from benchmarks.ours import costs, size, speed, waiting
from benchmarks.ours.link import TRANSPORTS, Setting, channel_to_other_end

# What runs over a channel that is open and warm...
OVER_A_CHANNEL: dict[str, Callable[[Any, str, int], Awaitable[dict[str, Any]]]] = {
    **dict.fromkeys(["ints", "dicts", "strings", "blocks-64k", "blocks-1m"], speed.stream),
    **dict.fromkeys(["streams-1", "streams-10", "streams-100", "streams-1000"], speed.streams),
    **dict.fromkeys(["calls", "calls-100", "calls-inline-100"], speed.calls),
    "latency": waiting.latency,
    "first-chunk": waiting.first_chunk,
}
# ... what warms up by itself, or must not find it warm,
OVER_A_COLD_CHANNEL = {
    "scaling": speed.scaling,
    "memory-streams": size.idle_streams,
    "memory-stalled-100": size.stalled,
    "memory-stalled-1m": size.stalled,
}
# or opens channels itself.
BY_ITSELF = {"spawn": waiting.spawn, "memory-idle": size.idle_channels}


async def measure(setting: Setting, workload: str, count: int) -> dict[str, Any]:
    """The figures of one trial. Raises WrongResultError where what arrived is not what was asked for."""
    if workload == "decode":
        return await costs.decode(workload, count)
    if workload in BY_ITSELF:
        return await BY_ITSELF[workload](setting, workload, count)
    async with channel_to_other_end(setting) as channel:
        api = channel.remote()
        if workload in OVER_A_COLD_CHANNEL:
            return await OVER_A_COLD_CHANNEL[workload](api, workload, count)
        run = OVER_A_CHANNEL[workload]
        await run(api, workload, trial.warm_up_count(workload, count))
        return await run(api, workload, count)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ours", description=__doc__)
    parser.add_argument("--loop", choices=list(LOOPS), default="asyncio")
    parser.add_argument("--transport", choices=TRANSPORTS, default="stdio")
    parser.add_argument("--codec", choices=["auto", "json", "cbor"], default="auto")
    parser.add_argument("workload", choices=[*trial.WORKLOADS, *trial.OUR_WORKLOADS], metavar="WORKLOAD")
    parser.add_argument("count", type=int, metavar="COUNT")
    options = parser.parse_args()
    if options.workload == "import":
        figures = costs.import_time(options.workload, options.count)
    else:
        setting = Setting(options.loop, options.transport, options.codec)
        figures = anyio.run(measure, setting, options.workload, options.count, **LOOPS[options.loop])
    trial.report(**figures)


if __name__ == "__main__":
    main()
