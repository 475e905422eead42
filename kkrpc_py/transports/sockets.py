"""TCP and Unix sockets as byte streams: connecting, and listening for a server.

Owns addresses, TLS, the socket file, and what an accepting loop must survive. The streams are anyio's
own, with TCP_NODELAY, since small frames must not wait for acknowledgements.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import ssl
import stat
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketListener
from anyio.streams.tls import TLSStream

__all__ = ["Server", "connect_tcp", "connect_unix", "listen_tcp", "listen_unix"]

HANDSHAKE_SECONDS: Final = 30.0
"""What a client's TLS handshake may take."""
RETRY_SECONDS: Final = 0.1
"""How long accepting pauses when the process, or the system, is out of descriptors or memory."""
LOCK_SECONDS: Final = 5.0
"""How long another server's start in the same directory is waited for."""

_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_log = logging.getLogger("kkrpc_py.server")


async def connect_tcp(host: str, port: int, *, ssl_context: ssl.SSLContext | None = None) -> ByteStream:
    """Connect to a TCP server; given `ssl_context`, over TLS with a certificate for `host`.

    Raises OSError where nobody answers or the certificate is refused.
    """
    if ssl_context is None:
        return await anyio.connect_tcp(host, port)
    return await anyio.connect_tcp(host, port, ssl_context=ssl_context, tls_standard_compatible=False)


async def connect_unix(path: str | os.PathLike[str]) -> ByteStream:
    """Connect to the Unix socket at `path`. Raises OSError where nobody listens."""
    return await anyio.connect_unix(path)


class Server:
    """Listening sockets. Made by `listen_tcp` and `listen_unix`, which close them."""

    def __init__(
        self, listeners: Sequence[SocketListener], ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._listeners = listeners
        self._ssl_context = ssl_context

    @property
    def addresses(self) -> list[Any]:
        """Where it listens: (host, port) for TCP, the path for a Unix socket."""
        return [listener.extra(SocketAttribute.local_address) for listener in self._listeners]

    async def serve(self, handler: Callable[[ByteStream], Awaitable[object]]) -> None:
        """Call `handler` with each connection, in a task of its own, until cancelled.

        The connection is closed when the handler returns. What it raises is logged, and concerns no other
        connection.
        """
        async with anyio.create_task_group() as tg:
            for listener in self._listeners[1:]:
                tg.start_soon(self._accept, listener, handler)
            await self._accept(self._listeners[0], handler)

    async def _accept(
        self, listener: SocketListener, handler: Callable[[ByteStream], Awaitable[object]]
    ) -> None:
        async with anyio.create_task_group() as tg:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as exc:
                    if exc.errno not in _EXHAUSTED:
                        raise
                    _log.error("cannot accept a connection, trying again: %s", exc)
                    await anyio.sleep(RETRY_SECONDS)
                else:
                    tg.start_soon(self._handle, stream, handler)

    async def _handle(self, stream: ByteStream, handler: Callable[[ByteStream], Awaitable[object]]) -> None:
        try:
            if self._ssl_context is not None:
                with anyio.fail_after(HANDSHAKE_SECONDS):
                    stream = await TLSStream.wrap(
                        stream, ssl_context=self._ssl_context, standard_compatible=False
                    )
            await handler(stream)
        except Exception:
            _log.exception("a connection failed")
        finally:
            await anyio.aclose_forcefully(stream)


@contextlib.asynccontextmanager
async def listen_tcp(
    host: str, port: int, *, ssl_context: ssl.SSLContext | None = None
) -> AsyncGenerator[Server, None]:
    """Listen on the addresses of `host`, which has no default; port 0 takes a free one.

    Raises OSError where the address is in use.
    """
    if not host:
        raise ValueError("the host to listen on must be named; all interfaces are 0.0.0.0 or ::")
    listener = await anyio.create_tcp_listener(local_host=host, local_port=port)
    async with listener:
        sockets = [each for each in listener.listeners if isinstance(each, SocketListener)]
        yield Server(sockets, ssl_context)


@contextlib.asynccontextmanager
async def listen_unix(path: str | os.PathLike[str], *, mode: int = 0o600) -> AsyncGenerator[Server, None]:
    """Listen on a Unix socket at `path`, whose file gets `mode`, and is removed at the end.

    The file that a dead server left behind is replaced. Raises OSError where a server listens there
    (EADDRINUSE), and FileExistsError where the file is no socket.
    """
    path = os.path.abspath(path)  # noqa: ASYNC240  (asks the working directory alone)
    async with _directory_lock(os.path.dirname(path)):
        _remove_dead_socket(path)
        listener = await anyio.create_unix_listener(path, mode=mode)
        created = os.lstat(path)
    try:
        async with listener:
            yield Server([listener])
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
