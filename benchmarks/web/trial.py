"""The process of the clients: `python -m benchmarks.web.trial [--loop L]`.

It starts the servers as they are needed, and ends them with itself. Each line of its stdin is a trial, a JSON
array of way, workload and count; for each it prints a line of JSON, which is an outcome as `benchmarks.run`
has it. A trial has connections of its own, which are open before the clock starts.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import anyio

from benchmarks import trial
from benchmarks.loops import LOOPS
from benchmarks.run import ROOT, Outcome, failed
from benchmarks.web.clients import Reader
from benchmarks.web.ways import WAYS, Way
from benchmarks.web.workloads import LATENCY, WORKLOADS


class Server:
    """One of the other processes."""

    def __init__(self, kind: str, loop: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.web.servers", kind, loop],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.port = int(self._line())

    def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a server has ended by itself")
        return line

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextlib.contextmanager
def servers(loop: str) -> Iterator[dict[str, Server]]:
    """Those that run; they are ended with the block."""
    running: dict[str, Server] = {}
    try:
        yield running
    finally:
        for server in running.values():
            server.close()


async def _read(readers: list[Reader], workload: str, count: int) -> None:
    """Read `count` chunks, as many of each stream. Raises WrongResultError if they are not right."""
    found: list[tuple[int, Any]] = []
    each = count // len(readers)

    async def read(reader: Reader) -> None:
        found.append(await reader.read(workload, each))

    if len(readers) == 1:
        await read(readers[0])
    else:
        async with anyio.create_task_group() as tasks:
            for reader in readers:
                tasks.start_soon(read, reader)
    expected = WORKLOADS[workload].value(each - 1)
    if found != [(each, expected)] * len(readers):
        raise trial.WrongResultError(f"other chunks came than {len(readers)} times {each}: {found[0]}")


async def _wait(reader: Reader, name: str, count: int) -> list[float]:
    """How many seconds each chunk took. Raises WrongResultError if others came than were asked for."""
    if name == "lone":
        arrived = await reader.arrivals(name, count)
        waits = [when - value["at"] for when, value in arrived]
    else:
        waits = []
        for _ in range(count):
            asked = time.perf_counter()
            arrived = await reader.arrivals(name, 1)
            waits += [when - asked for when, _ in arrived]
    if len(waits) != count:
        raise trial.WrongResultError(f"{len(waits)} chunks came, {count} were asked for")
    return waits


async def _timed(work: Callable[[int], Awaitable[Any]], count: int, warm_up: int, server: Server) -> Outcome:
    await work(warm_up)
    gc.collect()
    there, here, began = server.cpu(), time.process_time(), time.perf_counter()
    found = await work(count)
    seconds = time.perf_counter() - began
    figures = {
        "seconds": seconds,
        "count": count,
        "reader_cpu": time.process_time() - here,
        "server_cpu": server.cpu() - there,
    }
    return figures if found is None else {**figures, "us": trial.percentiles_us(found)}


async def measure(way: Way, name: str, count: int, server: Server) -> Outcome:
    streams = WORKLOADS[name].streams
    async with contextlib.AsyncExitStack() as stack:
        readers = [
            await stack.enter_async_context(way.open(server.port, way.path))
            for _ in range(1 if way.shared else streams)
        ]
        if name in LATENCY:
            return await _timed(partial(_wait, readers[0], name), count, max(1, count // 10), server)
        if way.shared:
            readers *= streams
        warm_up = max(1, count // 10 // streams) * streams
        return await _timed(partial(_read, readers, name), count, warm_up, server)


def outcome(running: dict[str, Server], loop: str, way_name: str, name: str, count: int) -> Outcome:
    """One trial, from its connections on; `running` gets the server if it is not there."""
    way = WAYS[way_name]
    try:
        if way.server not in running:
            running[way.server] = Server(way.server, loop)
        found: Outcome = anyio.run(measure, way, name, count, running[way.server], **LOOPS[loop])
    except Exception as error:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        return failed(f"{type(error).__name__}: {error}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.web.trial", description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    loop = parser.parse_args().loop
    with servers(loop) as running:
        for line in sys.stdin:
            print(json.dumps(outcome(running, loop, *json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
