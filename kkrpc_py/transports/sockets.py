"""TCP and Unix sockets as byte streams: connecting, and listening for a server.

Owns addresses, TLS, the socket file, and what an accepting loop must survive. The streams are those
of `descriptors`, with TCP_NODELAY, since small frames must not wait for acknowledgements.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import socket
import ssl
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSStream

from kkrpc_py.transports.cancelled import is_cancelled
from kkrpc_py.transports.descriptors import PIPE_BYTES, DescriptorStream

__all__ = [
    "Server",
    "SocketByteStream",
    "connect_tcp",
    "connect_unix",
    "listen_tcp",
    "listen_unix",
]

NEXT_ADDRESS_SECONDS: Final = 0.25
"""How long one address of a host is tried alone before the next is tried beside it (RFC 8305)."""
HANDSHAKE_SECONDS: Final = 30.0
"""What a client's TLS handshake may take."""
BACKLOG: Final = 1024
"""Connections that the system holds until they are accepted."""
RETRY_SECONDS: Final = 0.1
"""How long accepting pauses when the process, or the system, is out of descriptors or memory."""
LOCK_SECONDS: Final = 5.0
"""How long another server's start in the same directory is waited for."""

_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_log = logging.getLogger("kkrpc_py.server")


class SocketByteStream(DescriptorStream):
    """A connected stream socket. Has anyio's attributes `local_address` and `remote_address`."""

    def __init__(self, connected: socket.socket) -> None:
        with connected:  # closed unless it is detached
            if connected.family == socket.AF_UNIX:
                _enlarge_buffer(connected)
            else:  # whose buffers the kernel fits itself, unless it is told a size
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._addresses: dict[Any, Any] = {
                SocketAttribute.local_address: connected.getsockname(),
                SocketAttribute.remote_address: connected.getpeername(),
            }
            connected.setblocking(False)
            fd = connected.detach()
        super().__init__(fd, fd, inherited=False)

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """For `anyio.TypedAttributeProvider.extra`."""
        return {name: partial(self._addresses.__getitem__, name) for name in self._addresses}


def _enlarge_buffer(connected: socket.socket) -> None:
    """Have the socket hold as much as an enlarged pipe, as far as the kernel agrees."""
    with contextlib.suppress(OSError):
        if connected.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < PIPE_BYTES:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIPE_BYTES)


async def connect_tcp(host: str, port: int, *, ssl_context: ssl.SSLContext | None = None) -> ByteStream:
    """Connect to a TCP server; given `ssl_context`, over TLS with a certificate for `host`.

    Raises OSError where nobody answers, or the certificate is refused.
    """
    stream = SocketByteStream(await _connect_to_any(await _resolve(host, port)))
    if ssl_context is None:
        return stream
    try:
        return await TLSStream.wrap(stream, hostname=host, ssl_context=ssl_context, standard_compatible=False)
    except BaseException as exc:
        stream.close()
        if isinstance(exc, anyio.EndOfStream | anyio.BrokenResourceError):
            raise ConnectionError("the server closed the connection within the TLS handshake") from exc
        raise


async def connect_unix(path: str | os.PathLike[str]) -> ByteStream:
    """Connect to the Unix socket at `path`. Raises OSError where nobody listens."""
    return SocketByteStream(await _connect(socket.AF_UNIX, os.fspath(path)))


async def _resolve(host: str, port: int, flags: int = 0) -> list[tuple[int, Any]]:
    """Family and address of each of the addresses of `host`."""
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


async def _connect_to_any(addresses: Sequence[tuple[int, Any]]) -> socket.socket:
    """Connect to the address that answers first; each next one gets its start a little later."""
    connected: list[socket.socket] = []
    failures: list[OSError] = []

    async def attempt(family: int, address: Any, failed: anyio.Event) -> None:
        try:
            connected.append(await _connect(family, address))
        except OSError as exc:
            failures.append(exc)
            failed.set()
        else:
            tg.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as tg:
            for family, address in addresses:
                failed = anyio.Event()
                tg.start_soon(attempt, family, address, failed)
                with anyio.move_on_after(NEXT_ADDRESS_SECONDS):
                    await failed.wait()
    except BaseException:  # cancelled, maybe with a connection that nobody will have
        for one in connected:
            one.close()
        raise
    for spare in connected[1:]:
        spare.close()
    if not connected:
        raise failures[0]
    return connected[0]


async def _connect(family: int, address: Any) -> socket.socket:
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        try:
            connecting.connect(address)
        except BlockingIOError:
            if family == socket.AF_UNIX:
                raise  # the server's queue is full: that is not waited for
            await anyio.wait_writable(connecting)
            if code := connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code), str(address)) from None
        else:
            await checkpoint()
    except BaseException:
        connecting.close()
        raise
    return connecting


class Server:
    """Listening sockets. Made by `listen_tcp` and `listen_unix`, which close them."""

    def __init__(self, listening: Sequence[socket.socket], ssl_context: ssl.SSLContext | None = None) -> None:
        self._listening = listening
        self._ssl_context = ssl_context

    @property
    def addresses(self) -> list[Any]:
        """Where it listens: (host, port, …) for TCP, the path for a Unix socket."""
        return [each.getsockname() for each in self._listening]

    async def serve(self, handler: Callable[[ByteStream], Awaitable[object]]) -> None:
        """Call `handler` with each connection, in a task of its own, until cancelled.

        The connection is closed when the handler returns. What it raises is logged, and concerns no other
        connection. Cancelled, it returns once the handlers have.
        """
        async with anyio.create_task_group() as tg:
            for each in self._listening:
                tg.start_soon(self._accept_from, each, handler)

    async def _accept_from(
        self, listening: socket.socket, handler: Callable[[ByteStream], Awaitable[object]]
    ) -> None:
        async with anyio.create_task_group() as tg:
            while True:
                try:
                    stream = SocketByteStream(listening.accept()[0])
                except BlockingIOError:
                    await anyio.wait_readable(listening)
                except OSError as exc:
                    if exc.errno in _EXHAUSTED:
                        _log.error("cannot accept a connection, trying again: %s", exc)
                        await anyio.sleep(RETRY_SECONDS)
                    else:  # that client is gone already
                        _log.info("a connection was lost before it was accepted: %s", exc)
                        await checkpoint()
                else:
                    tg.start_soon(self._handle, stream, handler)
                    await checkpoint()

    async def _handle(
        self, stream: SocketByteStream, handler: Callable[[ByteStream], Awaitable[object]]
    ) -> None:
        try:
            if self._ssl_context is None:
                await handler(stream)
                return
            with anyio.fail_after(HANDSHAKE_SECONDS):
                secured = await TLSStream.wrap(
                    stream, ssl_context=self._ssl_context, standard_compatible=False
                )
            await handler(secured)
        except (Exception, asyncio.CancelledError) as exc:
            if is_cancelled(exc):
                raise
            _log.exception("a connection failed")
        finally:
            stream.close()


@contextlib.asynccontextmanager
async def listen_tcp(
    host: str, port: int, *, ssl_context: ssl.SSLContext | None = None
) -> AsyncGenerator[Server, None]:
    """Listen on the addresses of `host`, which has no default; port 0 takes a free one.

    Raises OSError where the address is in use, or is not this machine's.
    """
    if not host:
        raise ValueError("the host to listen on must be named; all interfaces are 0.0.0.0 or ::")
    with contextlib.ExitStack() as listening:
        sockets: list[socket.socket] = []
        for family, address in await _resolve(host, port, socket.AI_PASSIVE):
            if port == 0 and sockets:  # one port for all addresses
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            made = socket.create_server(address, family=family, backlog=BACKLOG)
            made.setblocking(False)
            sockets.append(listening.enter_context(made))
        yield Server(sockets, ssl_context)


@contextlib.asynccontextmanager
async def listen_unix(path: str | os.PathLike[str], *, mode: int = 0o600) -> AsyncGenerator[Server, None]:
    """Listen on a Unix socket at `path`, whose file gets `mode`, and is removed at the end.

    The file that a dead server left behind is replaced. Raises OSError where a server listens there
    (EADDRINUSE), and FileExistsError where the file is no socket.
    """
    path = os.path.abspath(path)  # noqa: ASYNC240  (asks for the working directory alone)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.setblocking(False)
        async with _directory_lock(os.path.dirname(path)):
            _remove_dead_socket(path)
            listening.bind(path)
            created = os.lstat(path)
            os.chmod(path, mode)
            listening.listen(BACKLOG)  # before this nobody can connect, whatever the mode was
        try:
            yield Server([listening])
        finally:
            # Not a successor's, who may have taken the place meanwhile.
            with contextlib.suppress(OSError):
                if os.path.samestat(os.lstat(path), created):
                    os.unlink(path)


@contextlib.asynccontextmanager
async def _directory_lock(directory: str) -> AsyncGenerator[None, None]:
    """Let one server at a time look for a dead socket and put its own in place."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with anyio.move_on_after(LOCK_SECONDS):
            while not _try_lock(fd):  # noqa: ASYNC110  (nobody tells when a lock is free)
                await anyio.sleep(0.01)
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_dead_socket(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "not a socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:  # alive, with a full queue
            pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)
