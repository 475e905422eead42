"""rpyc, client and server: `python -m benchmarks.peers.rpyc_peer plain|buffiter WORKLOAD COUNT`.

Over a pair of Unix sockets, without rpyc's compression, which costs more than a local socket saves. All
values travel by value: rpyc's own serializer takes what is immutable, so a dict goes as a tuple of its items
and is made a dict again here. A stream is a remote generator: iterated as it is (`plain`: each value is a
call, and comes as soon as it is made), or through `rpyc.buffiter` (a call brings up to 1000 values, once the
last of them is made).
"""

from __future__ import annotations

import math
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rpyc
from rpyc.core.channel import Channel
from rpyc.core.stream import SocketStream

from benchmarks import trial
from benchmarks.peers.processes import other_end

BLOCKS_A_CALL = 4
"""Of 64 KiB, where 1000 would be too many: the fastest of 1, 4, 16 and 64. (Of those of 1 MiB it is 1.)"""
SATURATED = 20
"""After as many blocks the bulk stream is at its full pace."""


class Bench(rpyc.Service):
    def exposed_add(self, a: int, b: int) -> int:
        return a + b

    def exposed_ints(self, count: int) -> Iterator[int]:
        for i in range(count):
            yield i & 0xFF

    def exposed_dicts(self, count: int) -> Iterator[tuple[tuple[str, Any], ...]]:
        for i in range(count):
            yield tuple({"id": i, "name": "a file", "done": True}.items())

    def exposed_strings(self, count: int) -> Iterator[str]:
        for _ in range(count):
            yield trial.STRING

    def exposed_blocks_64k(self, count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield trial.BLOCK_64K

    def exposed_blocks_1m(self, count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield trial.BLOCK_1M


def connection(end: socket.socket, service: type[rpyc.Service]) -> rpyc.Connection:
    return rpyc.connect_channel(Channel(SocketStream(end), compress=False), service)


@contextmanager
def connected() -> Iterator[Any]:
    """The root of a service in a process of its own."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "benchmarks.peers.rpyc_peer", "serve", str(theirs.fileno())]
    with theirs, other_end(command, pass_fds=[theirs.fileno()]):
        theirs.close()
        here = connection(ours, rpyc.VoidService)
        try:
            yield here.root
        finally:
            here.close()


def stream(root: Any, workload: str, count: int, *, buffered: bool) -> Iterator[Any]:
    values = getattr(root, workload.replace("-", "_"))(count)
    if buffered and workload == "blocks-64k":
        values = rpyc.buffiter(values, BLOCKS_A_CALL, BLOCKS_A_CALL)
    elif buffered:
        values = rpyc.buffiter(values)
    return map(dict, values) if workload == "dicts" else values


def measure_stream(root: Any, workload: str, count: int, *, buffered: bool) -> dict[str, Any]:
    received, last = 0, None
    began = time.perf_counter()
    for last in stream(root, workload, count, buffered=buffered):  # noqa: B007 - the last one is checked below
        received += 1
    seconds = time.perf_counter() - began
    trial.check_stream(workload, count, received, last)
    return {"seconds": seconds}


def measure_calls(root: Any, workload: str, count: int) -> dict[str, Any]:
    add, total = root.add, 0
    began = time.perf_counter()
    for i in range(count):
        total += add(i, 1)
    seconds = time.perf_counter() - began
    trial.check_sum(workload, count, 1, total)
    return {"seconds": seconds}


def measure_calls_in_flight(root: Any, workload: str, count: int) -> dict[str, Any]:
    """All callers call, then all answers are awaited: quicker here than a new call for each answer."""
    callers, add, total = trial.CONCURRENCY[workload], rpyc.async_(root.add), 0
    began = time.perf_counter()
    for i in range(count // callers):
        answers = [add(i, 1) for _ in range(callers)]
        total += sum(answer.value for answer in answers)
    seconds = time.perf_counter() - began
    trial.check_sum(workload, count, callers, total)
    return {"seconds": seconds}


def timed_calls(add: Callable[[int, int], int], count: int) -> list[float]:
    times, total = [], 0
    for i in range(count):
        began = time.perf_counter()
        total += add(i, 1)
        times.append(time.perf_counter() - began)
    trial.check_sum("latency", count, 1, total)
    return times


def measure_latency(root: Any, workload: str, count: int) -> dict[str, Any]:
    add = root.add
    idle = timed_calls(add, count)

    blocks, over = 0, False
    saturated = threading.Event()

    def saturate() -> None:
        nonlocal blocks
        for _ in stream(root, "blocks-64k", 2**40, buffered=False):
            blocks += 1
            if blocks == SATURATED:
                saturated.set()
            if over:
                return

    reader = threading.Thread(target=saturate, daemon=True)
    reader.start()
    saturated.wait()
    before, began = blocks, time.perf_counter()
    loaded = timed_calls(add, count)
    loaded_blocks, loaded_seconds = blocks - before, time.perf_counter() - began
    over = True
    reader.join()
    if not loaded_blocks:
        raise trial.WrongResultError("latency: no block came while the calls ran")
    return {
        "seconds": math.fsum(idle),
        "idle_us": trial.percentiles_us(idle),
        "loaded_us": trial.percentiles_us(loaded),
        "loaded_blocks": loaded_blocks,
        "loaded_seconds": loaded_seconds,
    }


def measure_first_chunk(root: Any, workload: str, count: int) -> dict[str, Any]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        values = root.ints(1000)
        first = next(values)
        times.append(time.perf_counter() - began)
        del values  # which the other side is told
        root.add(1, 1)  # and has heard: the next one's time is its own
        if first != trial.int_at(0):
            raise trial.WrongResultError(f"{workload}: {first} came first")
    return {"seconds": math.fsum(times), "first_us": trial.percentiles_us(times)}


def measure_spawn(count: int) -> dict[str, Any]:
    times = []
    for _ in range(1 + count):
        began = time.perf_counter()
        with connected() as root:
            answer = root.add(1, 1)
            times.append(time.perf_counter() - began)
        if answer != 2:
            raise trial.WrongResultError("spawn: 1 + 1 is not 2")
    del times[0]  # it read the files
    return {"seconds": math.fsum(times), "spawn_us": trial.percentiles_us(times)}


def main() -> None:
    how, workload, *argument = sys.argv[1:]
    if how == "serve":
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted benchmark is its parent's matter
        connection(socket.socket(fileno=int(workload)), Bench).serve_all()
        return
    count = int(argument[0])
    if workload == "spawn":
        trial.report(count=count, **measure_spawn(count))
        return
    measures = {
        "calls": measure_calls,
        "calls-100": measure_calls_in_flight,
        "calls-inline-100": measure_calls_in_flight,
        "latency": measure_latency,
        "first-chunk": measure_first_chunk,
    }

    def measure(root: Any, count: int) -> dict[str, Any]:
        if workload in measures:
            return measures[workload](root, workload, count)
        return measure_stream(root, workload, count, buffered=how == "buffiter")

    with connected() as root:
        measure(root, trial.warm_up_count(workload, count))
        trial.report(count=count, **measure(root, count))


if __name__ == "__main__":
    main()
