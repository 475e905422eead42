"""The floor for calls, pipes without protocol: `python -m benchmarks.peers.anyio_pipe LOOP WORKLOAD COUNT`.

Two anyio programs over a child's stdin and stdout, each with `anyio.wait_readable`, `os.read` and `os.write`
in its event loop. A call is a line of 80 bytes, sent back as it came; blocks are bytes without bounds, poured
into an enlarged pipe and read as they come.
"""

from __future__ import annotations

import fcntl
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio

from benchmarks import trial
from benchmarks.loops import LOOPS
from benchmarks.peers.processes import other_end

LINE_BYTES = 80
"""As long as a small call."""
PIPE_BYTES = 1 << 20
READ_BYTES = 112 << 10
"""A buffer that malloc does not ask the system for each time, as it does above 128 KiB."""
BLOCKS = {"blocks-64k": trial.BLOCK_64K, "blocks-1m": trial.BLOCK_1M}


async def echo() -> None:
    while True:
        await anyio.wait_readable(0)
        data = os.read(0, 1 << 16)
        if not data:
            return
        os.write(1, data)


async def pour() -> None:
    """For each line `WORKLOAD COUNT` that comes, as many blocks."""
    os.set_blocking(1, False)  # this pipe is nobody else's
    while True:
        await anyio.wait_readable(0)
        request = os.read(0, 1 << 16)
        if not request:
            return
        workload, count = request.decode().split()
        for _ in range(int(count)):
            left = memoryview(BLOCKS[workload])
            while left:
                # Tried first: to wait for what is there already costs a turn of the event loop.
                try:
                    left = left[os.write(1, left) :]
                except BlockingIOError:
                    await anyio.wait_writable(1)


@dataclass
class Pipes:
    """To the child, and from it."""

    outgoing: int
    incoming: int

    async def ping(self, line: bytes) -> bytes:
        os.write(self.outgoing, line)
        await anyio.wait_readable(self.incoming)
        return os.read(self.incoming, 1 << 16)

    async def read(self) -> bytes:
        await anyio.wait_readable(self.incoming)
        return os.read(self.incoming, READ_BYTES)


@contextmanager
def connected(loop: str, role: str) -> Iterator[Pipes]:
    command = [sys.executable, "-m", "benchmarks.peers.anyio_pipe", loop, role]
    with other_end(command) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Pipes(process.stdin.fileno(), process.stdout.fileno())


def enlarge(pipe: int) -> None:
    """Where the system can, and lets us."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def line(i: int) -> bytes:
    return b"%*d\n" % (LINE_BYTES - 1, i)


async def measure_calls(pipes: Pipes, workload: str, count: int) -> dict[str, Any]:
    back, total = b"", 0
    began = time.perf_counter()
    for i in range(count):
        back = await pipes.ping(line(i))
        total += len(back)
    seconds = time.perf_counter() - began
    if total != count * LINE_BYTES or back != line(count - 1):
        raise trial.WrongResultError(f"{workload}: the lines did not come back as they went")
    return {"seconds": seconds}


async def measure_blocks(pipes: Pipes, workload: str, count: int) -> dict[str, Any]:
    block, received, last = BLOCKS[workload], 0, b""
    expected = count * len(block)
    began = time.perf_counter()
    os.write(pipes.outgoing, f"{workload} {count}\n".encode())
    while received < expected and (data := await pipes.read()):
        received += len(data)
        last = data
    seconds = time.perf_counter() - began
    if received != expected or not block.endswith(last[-len(block) :]):
        raise trial.WrongResultError(
            f"{workload}: {received} bytes came, not {expected}, or not the right ones"
        )
    return {"seconds": seconds}


async def measure_spawn(loop: str, count: int) -> dict[str, Any]:
    times = []
    for _ in range(1 + count):
        began = time.perf_counter()
        with connected(loop, "echo") as pipes:
            back = await pipes.ping(line(1))
            times.append(time.perf_counter() - began)
        if back != line(1):
            raise trial.WrongResultError("spawn: the line did not come back as it went")
    del times[0]  # it read the files
    return {"seconds": math.fsum(times), "spawn_us": trial.percentiles_us(times)}


async def run(loop: str, workload: str, count: int) -> None:
    if workload == "spawn":
        trial.report(count=count, **await measure_spawn(loop, count))
        return
    measure, role = (measure_blocks, "pour") if workload in BLOCKS else (measure_calls, "echo")
    with connected(loop, role) as pipes:
        if role == "pour":
            enlarge(pipes.incoming)
        await measure(pipes, workload, trial.warm_up_count(workload, count))
        trial.report(count=count, **await measure(pipes, workload, count))


def main() -> None:
    loop, workload, *argument = sys.argv[1:]
    if workload in ("echo", "pour"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted benchmark is its parent's matter
        anyio.run(echo if workload == "echo" else pour, **LOOPS[loop])
    else:
        anyio.run(run, loop, workload, int(argument[0]), **LOOPS[loop])


if __name__ == "__main__":
    main()
