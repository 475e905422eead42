"""A process of subscribers: `python -m benchmarks.fanout.readers` and its arguments.

They are the event loop, the way, the workload, the socket, the number of connections, and of each stream the
id and the number of its values. Each of the connections reads the streams, one after the other, to their
ends. When all have read one, it says so on stdout: a line of JSON, with what came and the processor time that
it took. It ends with its stdin.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio

import kkrpc_py as kk
from benchmarks.fanout.ways import WAYS
from benchmarks.fanout.workloads import WORKLOADS
from benchmarks.loops import LOOPS


async def read(values: AsyncIterator[Any], received: list[tuple[int, Any]]) -> None:
    count = 0
    last = None
    async for last in values:  # noqa: B007 - the last one is looked at
        count += 1
    received.append((count, last))


async def main(way: str, workload: str, path: str, connections: int, streams: list[tuple[str, int]]) -> None:
    made = WORKLOADS[workload].value
    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(kk.connect_unix(path)) for _ in range(connections)]
        for id, count in streams:
            received: list[tuple[int, Any]] = []
            began = time.process_time()
            async with anyio.create_task_group() as tasks:
                for channel in channels:
                    tasks.start_soon(read, WAYS[way].read(channel, id), received)
            cpu = time.process_time() - began
            right = received == [(count, made(count - 1))] * connections
            print(
                json.dumps({"right": right, "received": sum(n for n, _ in received), "cpu": cpu}), flush=True
            )


def _end_with_stdin() -> None:
    while os.read(0, 4096):  # not by `sys.stdin`, whose lock a thread would hold at the end
        pass
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    loop, way, workload, path, connections, *rest = sys.argv[1:]
    pairs = [(id, int(count)) for id, count in zip(rest[::2], rest[1::2], strict=True)]
    anyio.run(main, way, workload, path, int(connections), pairs, **LOOPS[loop])
