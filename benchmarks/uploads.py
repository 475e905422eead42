"""A large file through a Unix socket into a slow server: `python -m benchmarks.uploads [--mib 1024]`.

It prints how long it took, by how much either process grew at its highest, and whether the checksums are
equal; it fails where they are not. The server does nothing for a second and then waits after each piece, so
that whatever does not hold the client up would lie in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import anyio

import kkrpc_py as kk
from benchmarks.loops import LOOPS
from benchmarks.memory import resident

ROOT = Path(__file__).resolve().parents[1]
MIB = 1 << 20
NAME = "files"
STALL_SECONDS = 1.0
PAUSE_SECONDS = 0.001


@dataclass(frozen=True)
class Outcome:
    """One upload; memory in bytes, above what the process held when it began."""

    mib: int
    seconds: float
    here_bytes: int
    """The client's."""
    there_bytes: int
    """The server's."""
    equal: bool
    """The checksum of what the server got is the file's."""

    def __str__(self) -> str:
        return (
            f"{self.mib} MiB in {self.seconds:.1f} s ({self.mib / self.seconds:.0f} MiB/s); at the highest "
            f"{self.here_bytes / MIB:.1f} MiB more here, {self.there_bytes / MIB:.1f} MiB more at the "
            f"server; checksums {'equal' if self.equal else 'NOT EQUAL'}"
        )


def highest() -> int:
    """The most that this process ever had resident, in bytes."""
    with contextlib.suppress(OSError):
        # `getrusage` has what a process had before its program was started, too: its parent's.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


class Server:
    """What the other process serves."""

    def __init__(self) -> None:
        self.hub = kk.StreamHub()
        self._files = self.hub.create(NAME)

    async def receive(self, stall: float, pause: float) -> AsyncIterator[str | int]:
        """Yields the id to upload to; when all has come, the checksum, and by how much the process grew."""
        before = resident()
        reader = self._files.open_inbound()
        yield reader.id
        digest = hashlib.sha256()
        await anyio.sleep(stall)
        async for piece in reader:
            digest.update(piece)
            await anyio.sleep(pause)
        yield digest.hexdigest()
        yield highest() - before


async def serve(path: str) -> None:
    server = Server()
    async with anyio.create_task_group() as tasks:

        async def served(*, task_status: anyio.abc.TaskStatus[object]) -> None:
            await kk.serve_unix({"app": server, "streams": server.hub}, path, task_status=task_status)

        await tasks.start(served)
        print("listening", flush=True)


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


@contextlib.contextmanager
def other_process(path: str, loop: str) -> Iterator[None]:
    """The server, from when it listens on."""
    command = [sys.executable, "-m", "benchmarks.uploads", "--serve", path, "--loop", loop]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if process.stdout.readline() != b"listening\n":
                raise RuntimeError("the server did not come up")
            yield
        finally:
            process.stdin.close()


def make_file(path: Path, mib: int) -> str:
    """A file of that size whose pieces all differ; its checksum."""
    digest = hashlib.sha256()
    pad = os.urandom(MIB)
    with path.open("wb") as file:
        for number in range(mib):
            piece = number.to_bytes(8, "big") + pad[number % 4096 :] + pad[: number % 4096]
            piece = piece[:MIB]
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


async def pieces(path: Path, size: int) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(size):
            yield piece


async def measure(
    mib: int, loop: str, *, stall: float = STALL_SECONDS, pause: float = PAUSE_SECONDS
) -> Outcome:
    """Upload a file of `mib` MiB to a process of its own.

    This process must never have held more than it does now, or its growth is not seen.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, address = Path(folder, "file"), str(Path(folder, "socket"))
        checksum = make_file(file, mib)
        with other_process(address, loop):
            async with kk.connect_unix(address) as channel:
                await channel.ready()
                before = resident()
                began = perf_counter()
                answers = aiter(channel.remote().app.receive(stall, pause))
                async with kk.streams(channel).upload(NAME, await anext(answers)) as upload:
                    await upload.pipe_from(pieces(file, MIB))
                seconds = perf_counter() - began
                here = highest() - before
                received, there = await anext(answers), await anext(answers)
                return Outcome(mib, seconds, here, there, received == checksum)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.uploads", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--loop", choices=sorted(LOOPS), default="asyncio")
    parser.add_argument("--stall", type=float, default=STALL_SECONDS, help="seconds before the server reads")
    parser.add_argument("--pause", type=float, default=PAUSE_SECONDS, help="seconds after each piece")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--serve", metavar="SOCKET", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
        anyio.run(serve, given.serve, **LOOPS[given.loop])
        return 0

    async def run() -> Outcome:
        return await measure(given.mib, given.loop, stall=given.stall, pause=given.pause)

    outcome: Outcome = anyio.run(run, **LOOPS[given.loop])
    print(json.dumps(asdict(outcome)) if given.json else outcome)
    return 0 if outcome.equal else 1


if __name__ == "__main__":
    sys.exit(main())
