"""One that stalls beside others that read: `python -m benchmarks.fanout.stalled [--loop L] stalled COUNT`.

The server is this process. One subscriber with the default options reads a single value and then nothing
until all are written; the others, of another process, read all there is and block. `growth` is what this
process's memory grew by from the first tenth of the values on, at most; `log` the most chunks that the stream
has kept.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio

import kkrpc_py as kk
from benchmarks import trial
from benchmarks.fanout.trial import Readers, serving, subscribed
from benchmarks.fanout.ways import NAME, Hub
from benchmarks.loops import LOOPS
from benchmarks.memory import resident

STALLED = "stalled"
READING = 10
_LOOKS = 100


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    hub, count = Hub(), options.count
    stream = hub.start("measured")
    growth = log = 0
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "socket"))
        async with serving(hub.exposed, path):
            words = [options.loop, "hub", "dicts", path, str(READING), "measured", str(count)]
            readers = await Readers.start(words, 1)
            async with kk.connect_unix(path) as channel:
                reader = kk.streams(channel).subscribe(NAME, "measured")
                async with reader:
                    await subscribed(stream, READING + 1)
                    before = 0
                    for i in range(count):
                        await stream.send(trial.dict_at(i))
                        log = max(log, len(stream.log))
                        if i == 0:
                            await reader.receive()
                        if (i + 1) % (count // _LOOKS) == 0:
                            now = resident()
                            before = before if i >= count // 10 else now
                            growth = max(growth, now - before)
                    stream.close()
                    await readers.finished()
                    received = 1
                    last = None
                    while True:
                        try:
                            last = await reader.receive()
                            received += 1
                        except anyio.EndOfStream:
                            break
            await readers.aclose()
    if last != trial.dict_at(count - 1) or received + reader.dropped != count or reader.gaps:
        raise trial.WrongResultError("the one that stalled was not told of all that it has missed")
    return {
        "seconds": 0.0,
        "count": count,
        "reading": READING,
        "growth": growth,
        "log": log,
        "dropped": reader.dropped,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fanout.stalled", description=__doc__)
    parser.add_argument("--loop", choices=list(LOOPS), default="asyncio")
    parser.add_argument("workload", choices=[STALLED])
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    trial.report(**anyio.run(measure, options, **LOOPS[options.loop]))


if __name__ == "__main__":
    sys.exit(main())
