"""One trial: `python -m benchmarks.fanout.trial [--loop L] [--subscribers N] WAY WORKLOAD COUNT`.

This process is the server and has the producer; the subscribers are connections of other processes. COUNT is
what the producer sends; the `count` of the line that it prints is what was delivered to the readers' loops,
and `seconds` the time from the first value sent until the last reader has met the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process
from anyio.lowlevel import checkpoint
from anyio.streams.buffered import BufferedByteReceiveStream

import kkrpc_py as kk
from benchmarks import trial
from benchmarks.fanout.ways import WAYS, Feed, counted_encodings
from benchmarks.fanout.workloads import WORKLOADS, Workload
from benchmarks.loops import LOOPS
from benchmarks.run import ROOT

PROCESSES = 4
"""Those of the subscribers, if nothing else is said."""
_LINE_BYTES = 4096


class Readers:
    """The processes of the subscribers."""

    def __init__(self, processes: list[Process]) -> None:
        self._processes = processes
        self._outputs = [BufferedByteReceiveStream(each.stdout) for each in processes if each.stdout]

    @classmethod
    async def start(cls, words: list[str], processes: int) -> Readers:
        """So many processes with these arguments."""
        command = [sys.executable, "-m", "benchmarks.fanout.readers", *words]
        return cls([await anyio.open_process(command, cwd=ROOT, stderr=None) for _ in range(processes)])

    async def finished(self) -> list[dict[str, Any]]:
        """What each of them says when it has read the next stream. Raises WrongResultError."""
        said = [json.loads(await each.receive_until(b"\n", _LINE_BYTES)) for each in self._outputs]
        if not all(each["right"] for each in said):
            raise trial.WrongResultError("a reader got something else than was sent")
        return said

    async def aclose(self) -> None:
        for each in self._processes:
            assert each.stdin is not None
            await each.stdin.aclose()
        for each in self._processes:
            await each.wait()


@contextlib.asynccontextmanager
async def serving(exposed: dict[str, Any], path: str) -> AsyncGenerator[None]:
    """Serve on a Unix socket."""

    async def serve(*, task_status: Any) -> None:
        await kk.serve_unix(exposed, path, task_status=task_status)

    async with anyio.create_task_group() as tasks:
        await tasks.start(serve)
        yield
        tasks.cancel_scope.cancel()


async def subscribed(stream: Feed, subscribers: int) -> None:
    """Wait until so many are there."""
    while stream.subscribers < subscribers:  # noqa: ASYNC110 - they are other processes
        await anyio.sleep(0.01)


async def produce(stream: Feed, workload: Workload, count: int) -> None:
    made, alone, send = workload.value, workload.alone, stream.send
    for i in range(count):
        await send(made(i))
        if alone:
            await checkpoint()
    stream.close()


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    workload = WORKLOADS[options.workload]
    way = WAYS[options.way]()
    counts = {"warm-up": max(1, options.count // 10), "measured": options.count}
    streams = {id: way.start(id) for id in counts}
    each = options.subscribers // options.processes
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, counted_encodings() as encodings:
        path = str(Path(folder, "socket"))
        async with serving(way.exposed, path):
            words = [options.loop, options.way, options.workload, path, str(each)]
            words += [word for id, count in counts.items() for word in (id, str(count))]
            readers = await Readers.start(words, options.processes)
            for id, count in counts.items():
                await subscribed(streams[id], each * options.processes)
                encoded, cpu, began = encodings[0], time.process_time(), time.perf_counter()
                await produce(streams[id], workload, count)
                said = await readers.finished()
                figures = {
                    "seconds": time.perf_counter() - began,
                    "count": sum(one["received"] for one in said),
                    "server_cpu": time.process_time() - cpu,
                    "reader_cpu": sum(one["cpu"] for one in said),
                    "encodings": encodings[0] - encoded,
                }
            await readers.aclose()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fanout.trial", description=__doc__)
    parser.add_argument("--loop", choices=list(LOOPS), default="asyncio")
    parser.add_argument("--subscribers", type=int, default=100)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("way", choices=list(WAYS))
    parser.add_argument("workload", choices=list(WORKLOADS))
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    figures = anyio.run(measure, options, **LOOPS[options.loop])
    trial.report(**figures)


if __name__ == "__main__":
    main()
