"""A child process for the fault tests: `python child.py ROLE BACKEND`. It owns no test."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from typing import Any

import anyio

import kkrpc_py as kk


class API:
    async def add(self, a: int, b: int) -> int:
        return a + b

    async def echo(self, value: Any) -> Any:
        return value

    async def pid(self) -> int:
        return os.getpid()

    async def park(self) -> None:
        await anyio.sleep_forever()

    def block(self) -> None:
        time.sleep(3600)

    async def count(self, n: int) -> Any:
        for i in range(n):
            yield i

    async def endless(self) -> Any:
        i = 0
        while True:
            yield i
            i += 1

    async def parked(self) -> Any:
        yield 1
        await anyio.sleep_forever()

    async def large(self, size: int) -> Any:
        while True:
            yield "x" * size

    def sync_endless(self) -> Any:
        i = 0
        while True:
            yield i
            i += 1

    def sync_blocked(self) -> Any:
        yield 1
        time.sleep(3600)

    async def shielded(self) -> Any:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep_forever()

    async def sink(self, sink: kk.StreamSink[int]) -> None:
        while True:
            await sink.send(1)

    async def close_stdin(self) -> None:
        """Close the reading end of the protocol, wherever it has been moved to."""
        for name in os.listdir("/proc/self/fd"):
            fd = int(name)
            if fd <= 2:
                continue
            try:
                link, flags = os.readlink(f"/proc/self/fd/{name}"), _access(fd)
            except OSError:
                continue
            if link.startswith("pipe:") and flags == os.O_RDONLY:
                null = os.open(os.devnull, os.O_RDONLY)
                os.dup2(null, fd, inheritable=False)
                os.close(null)
        await anyio.sleep_forever()

    # Output of others than the channel ---------------------------------------------------------

    async def prints(self, text: str) -> None:
        print(text, flush=True)

    async def prints_unflushed(self, text: str) -> None:
        print(text)

    async def writes_to_1(self, text: str) -> None:
        os.write(1, text.encode() + b"\n")

    async def c_puts(self, text: str) -> None:
        libc = ctypes.CDLL(None)
        libc.puts(text.encode())
        libc.printf(b"%s\n", text.encode())
        libc.fflush(None)

    def grandchild(self, text: str) -> int:
        return subprocess.run(["echo", text], check=True).returncode

    def grandchild_reads(self) -> list[Any]:
        """What a process started by a handler finds on its stdin: nothing of the protocol."""
        done = subprocess.run(["cat"], capture_output=True, check=True)
        return [done.stdout.decode(), done.returncode]

    def grandchild_descriptors(self) -> list[str]:
        """Where the descriptors of a process lead that was started without closing any."""
        listing = subprocess.run(
            ["sh", "-c", "ls -l /proc/self/fd"], capture_output=True, text=True, check=True, close_fds=False
        )
        return listing.stdout.splitlines()

    async def reads_stdin(self) -> str:
        return sys.stdin.read()

    async def printing(self, n: int) -> Any:
        """A stream between whose values everybody prints."""
        for i in range(n):
            print(f"print {i}\n", end="", flush=True)  # in one write, also where Python is unbuffered
            os.write(1, b"os.write %d\n" % i)
            yield i

    def noisy_thread(self, n: int) -> None:
        def shout() -> None:
            for i in range(n):
                os.write(1, b"thread %d\n" % i)

        threading.Thread(target=shout, daemon=False).start()  # a handler thread is a daemon


def _access(fd: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE


def main() -> None:
    role, backend = sys.argv[1:3]
    match role:
        case "serve":
            print("child is up", file=sys.stderr, flush=True)
        case "half":
            os.write(1, b"half a line")
        case "unflushed":
            sys.stdout.write("unflushed")
        case "last words":
            for i in range(30):
                print(f"word {i}", file=sys.stderr, flush=True)
        case "exits":
            print("I quit", file=sys.stderr, flush=True)
            sys.exit(7)
    if role == "serve_stdio":
        anyio.run(kk.serve_stdio, API(), backend=backend)
    else:
        kk.run_stdio(API(), backend=backend)


if __name__ == "__main__":
    main()
