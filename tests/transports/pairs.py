"""Linked pairs of streams of every kind, for the tests that all of them must pass."""

from __future__ import annotations

import contextlib
import os
import pty
import socket
import sys
import threading
import tty
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
from anyio.abc import ByteStream

from kkrpc_py.transports.descriptors import DescriptorStream, open_pipe
from kkrpc_py.transports.memory import memory_byte_streams
from kkrpc_py.transports.process import spawn
from kkrpc_py.transports.sockets import Server, connect_tcp, connect_unix, listen_tcp, listen_unix

Pair = tuple[ByteStream, ByteStream]
PairMaker = Callable[[Path], AbstractAsyncContextManager[Pair]]

ECHO = "import os\nwhile data := os.read(0, 65536):\n    while data: data = data[os.write(1, data):]\n"


@contextlib.asynccontextmanager
async def _closing(one: ByteStream, other: ByteStream) -> AsyncGenerator[Pair, None]:
    async with one, other:
        yield one, other


@contextlib.asynccontextmanager
async def memory(path: Path) -> AsyncGenerator[Pair, None]:
    async with _closing(*memory_byte_streams()) as pair:
        yield pair


def _pipes(*, inherited: bool, turns: bool = False) -> PairMaker:
    @contextlib.asynccontextmanager
    async def pair(path: Path) -> AsyncGenerator[Pair, None]:
        (read_a, write_b), (read_b, write_a) = open_pipe(), open_pipe()
        one, other = (
            DescriptorStream(*ends, inherited=inherited, turn=threading.Lock() if turns else None)
            for ends in ((read_a, write_a), (read_b, write_b))
        )
        async with _closing(one, other) as streams:
            yield streams

    return pair


@contextlib.asynccontextmanager
async def one_socket_each(path: Path) -> AsyncGenerator[Pair, None]:
    one, other = socket.socketpair()
    fd_a, fd_b = one.detach(), other.detach()
    async with _closing(DescriptorStream(fd_a, fd_a), DescriptorStream(fd_b, fd_b)) as pair:
        yield pair


@contextlib.asynccontextmanager
async def two_sockets_each(path: Path) -> AsyncGenerator[Pair, None]:
    """As Node makes them for a child: a socket pair for stdin, another for stdout."""
    (read_a, write_b), (read_b, write_a) = socket.socketpair(), socket.socketpair()
    one = DescriptorStream(read_a.detach(), write_a.detach())
    other = DescriptorStream(read_b.detach(), write_b.detach())
    async with _closing(one, other) as pair:
        yield pair


@contextlib.asynccontextmanager
async def terminal(path: Path) -> AsyncGenerator[Pair, None]:
    """A raw terminal, then its other side: both are read and written by threads."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    async with _closing(DescriptorStream(slave, slave), DescriptorStream(master, master)) as pair:
        yield pair


@contextlib.asynccontextmanager
async def _connected(server: Server, connect: Callable[[], object]) -> AsyncGenerator[Pair, None]:
    accepted: list[ByteStream] = []
    arrived, done = anyio.Event(), anyio.Event()

    async def handler(stream: ByteStream) -> None:
        accepted.append(stream)
        arrived.set()
        await done.wait()

    async with anyio.create_task_group() as tg:
        tg.start_soon(server.serve, handler)
        client: ByteStream = await connect()  # type: ignore[misc]  # one of several factories
        await arrived.wait()
        async with client:
            yield accepted[0], client
        done.set()
        tg.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def tcp(path: Path) -> AsyncGenerator[Pair, None]:
    async with (
        listen_tcp("127.0.0.1", 0) as server,
        _connected(server, lambda: connect_tcp(*server.addresses[0])) as pair,
    ):
        yield pair


@contextlib.asynccontextmanager
async def unix(path: Path) -> AsyncGenerator[Pair, None]:
    file = path / "socket"
    async with listen_unix(file) as server, _connected(server, lambda: connect_unix(file)) as pair:
        yield pair


@contextlib.asynccontextmanager
async def echoing_child(path: Path) -> AsyncGenerator[ByteStream, None]:
    async with spawn([sys.executable, "-S", "-E", "-c", ECHO]) as child:
        yield child


PAIRS: dict[str, PairMaker] = {
    "memory": memory,
    "own pipes": _pipes(inherited=False),
    "inherited pipes": _pipes(inherited=True),
    "pipes in turn": _pipes(inherited=True, turns=True),
    "one socket": one_socket_each,
    "two sockets": two_sockets_each,
    "terminal": terminal,
    "tcp": tcp,
    "unix": unix,
}
# A terminal has no end that one side can set: hanging up is all there is.
HALF_CLOSING = [name for name in PAIRS if name != "terminal"]


def open_descriptors() -> set[str]:
    """What this process has open, as far as tests may leave nothing behind."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found
