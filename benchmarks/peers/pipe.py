"""multiprocessing.Pipe, as it comes: `python -m benchmarks.peers.pipe WORKLOAD COUNT`.

`Pipe(duplex=True)` to a process of the spawn method; `send` and `recv` of objects, which pickles them, and
`send_bytes` and `recv_bytes` for blocks. No protocol: a stream is as many values and an end mark, a call is a
tuple there and a number back, one at a time. No event loop and no threads.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from benchmarks import trial

GRACE_SECONDS = 5
BLOCKS = {"blocks-64k": trial.BLOCK_64K, "blocks-1m": trial.BLOCK_1M}


def serve(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted benchmark is its parent's matter
    # The other end may go at any time.
    with pipe, suppress(EOFError, OSError):
        for workload, count in iter(pipe.recv, None):
            serve_workload(pipe, workload, count)


def serve_workload(pipe: Connection, workload: str, count: int) -> None:
    match workload:
        case "ints":
            for i in range(count):
                pipe.send(i & 0xFF)
            pipe.send(None)
        case "dicts":
            for i in range(count):
                pipe.send({"id": i, "name": "a file", "done": True})
            pipe.send(None)
        case "strings":
            for _ in range(count):
                pipe.send(trial.STRING)
            pipe.send(None)
        case "blocks-64k" | "blocks-1m":
            block = BLOCKS[workload]
            for _ in range(count):
                pipe.send_bytes(block)
            pipe.send_bytes(b"")
        case "calls" | "spawn":
            for a, b in iter(pipe.recv, None):
                pipe.send(a + b)


@contextmanager
def connected() -> Iterator[Connection]:
    """A pipe to a process that serves it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=True)
    process = context.Process(target=serve, args=(there,), daemon=True)
    process.start()
    there.close()
    try:
        with here:
            yield here
    finally:
        process.join(GRACE_SECONDS)
        process.kill()
        process.join()


def measure(pipe: Connection, workload: str, count: int) -> dict[str, Any]:
    if workload == "calls":
        return measure_calls(pipe, workload, count)
    received, last = 0, None
    values = iter(pipe.recv_bytes, b"") if workload in BLOCKS else iter(pipe.recv, None)
    began = time.perf_counter()
    pipe.send((workload, count))
    for last in values:  # noqa: B007 - the last one is checked below
        received += 1
    seconds = time.perf_counter() - began
    trial.check_stream(workload, count, received, last)
    return {"seconds": seconds}


def measure_calls(pipe: Connection, workload: str, count: int) -> dict[str, Any]:
    total = 0
    pipe.send((workload, count))
    began = time.perf_counter()
    for i in range(count):
        pipe.send((i, 1))
        total += pipe.recv()
    seconds = time.perf_counter() - began
    pipe.send(None)
    trial.check_sum(workload, count, 1, total)
    return {"seconds": seconds}


def measure_spawn(count: int) -> dict[str, Any]:
    times = []
    for _ in range(1 + count):
        began = time.perf_counter()
        with connected() as pipe:
            pipe.send(("spawn", 1))
            pipe.send((1, 1))
            answer = pipe.recv()
            times.append(time.perf_counter() - began)
        if answer != 2:
            raise trial.WrongResultError("spawn: 1 + 1 is not 2")
    del times[0]  # it read the files
    return {"seconds": math.fsum(times), "spawn_us": trial.percentiles_us(times)}


def main() -> None:
    workload, count = sys.argv[1], int(sys.argv[2])
    if workload == "spawn":
        trial.report(count=count, **measure_spawn(count))
        return
    with connected() as pipe:
        measure(pipe, workload, trial.warm_up_count(workload, count))
        trial.report(count=count, **measure(pipe, workload, count))


if __name__ == "__main__":
    main()
