"""Ends of descriptors that an event loop waits for: pipes of our own, and stream sockets.

Owns non-blocking reading and writing. A pipe given to these ends is made non-blocking: its open file
must belong to us alone. Sockets that are shared keep their flags.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import socket
import struct
import sys
import termios
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Final

import anyio
from anyio.lowlevel import checkpoint, current_token

from kkrpc_py.transports.ends import Reader, Writer

__all__ = ["PipeReader", "PipeWriter", "SocketReader", "SocketWriter"]

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TAIL: Final = 32
"""Bytes at the end of a large write that are written together, see `_PolledWriter`."""
_LINE_FEED: Final = 0x0A
_READ_BYTES: Final = 64 * 1024
_MAX_READ_BYTES: Final = 112 * 1024
"""Larger buffers leave the processor's cache, and from 128 KiB on malloc gives them back to the system, which
maps them anew at the next read: that cost more than all of the reading (1.6 against 2.3 GB/s)."""
_AT_ONCE: Final = int(socket.MSG_DONTWAIT)
_SENDING: Final = _AT_ONCE | int(getattr(socket, "MSG_NOSIGNAL", 0))
"""As plain numbers: putting flags together takes a microsecond, a good part of a small write."""
_VAIN: Final = 3
"""So many turns of the loop a reader stays registered while nobody waits for what is there."""


class _PolledReader(Reader):
    """Reads when the event loop says so.

    On asyncio and uvloop the descriptor stays registered from one wait to the next, and the loop's
    callback reads at once: registering, and being called again for what the task has not read yet,
    would cost more than all the rest (16 µs a wait against 4).
    """

    def __init__(self, poll_fd: int) -> None:
        super().__init__()
        self._poll_fd = poll_fd
        # A large buffer is costly where little comes, a small one where much does.
        self._size = _READ_BYTES
        self._wanted = _READ_BYTES
        self._error: OSError | None = None
        self._waiting = False
        self._loop_known = False
        self._finishing = False
        """How much is left to read is known: the event loop need not be asked, and may never say so."""
        # Of asyncio alone:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: asyncio.Future[bool] | None = None
        self._registered = False
        self._vain = 0
        self._take: Callable[[bytes], bool] | None = None
        self._raised: BaseException | None = None

    @abstractmethod
    def _read_descriptor(self, max_bytes: int) -> bytes:
        """One read that does not wait; BlockingIOError if there is nothing."""

    def _read(self, max_bytes: int) -> bytes | None:
        if self._error is not None:
            raise self._error
        self._wanted = max_bytes
        self._vain = 0
        if self.drained:
            # The loop is asked first, as it is most often anyway: a read in vain is a system call and
            # an exception.
            self.drained = False
            return None
        size = min(max_bytes, self._size)
        try:
            data = self._read_descriptor(size)
        except BlockingIOError:
            return None
        if len(data) < size:
            self.drained = not self._finishing
            if len(data) < _READ_BYTES:
                self._size = _READ_BYTES
        elif size == self._size:
            self._size = min(size * 4, _MAX_READ_BYTES)
        return data

    async def wait(self) -> None:
        await self._wait()

    async def feed(self, max_bytes: int, take: Callable[[bytes], bool]) -> bool:
        # The loop calls back in the context in which it was told to: that must be the context of this task.
        self._unregister()
        self._know_loop()
        self._wanted, self._take = max_bytes, take
        named: Any = getattr(sys.modules.get("sniffio"), "current_async_library_cvar", None)
        token: Any = None
        if named is not None and named.get() is None and self._loop is not None:
            # Where sniffio is there, anyio asks it for the loop. Under plain `asyncio.run` that looks for
            # the current task, and in the loop's callback there is none.
            token = named.set("asyncio")
        try:
            goes_on = await self._wait()
        except OSError as exc:
            raise anyio.BrokenResourceError from exc
        finally:
            if token is not None:
                with contextlib.suppress(ValueError):  # closed by the collector, in another context
                    token.var.reset(token)
            self._take = None
            raised, self._raised = self._raised, None
        if raised is not None:
            raise raised
        return goes_on

    def _know_loop(self) -> None:
        if not self._loop_known:
            loop = current_token().native_token
            self._loop = loop if isinstance(loop, asyncio.AbstractEventLoop) else None
            self._loop_known = True
            if type(loop).__module__.partition(".")[0] == "uvloop":
                self._enter_uvloop()

    def _enter_uvloop(self) -> None:
        """Before the first wait on uvloop."""

    async def _wait(self) -> bool:
        self._waiting = True
        try:
            self._know_loop()
            if self._loop is None:
                trio: Any = sys.modules["trio"]
                with contextlib.suppress(trio.ClosedResourceError):
                    await trio.lowlevel.wait_readable(self._poll_fd)
                return True
            if not self._registered:
                self._loop.add_reader(self._poll_fd, self._on_readable)
                self._registered = True
            self._ready = self._loop.create_future()
            return await self._ready
        finally:
            self._waiting = False
            self._ready = None

    def _on_readable(self) -> None:
        if self._ready is None or self._ready.done():
            self._vain += 1
            if self._vain > _VAIN:
                self._unregister()
            return
        goes_on = True
        self.drained = False
        try:
            data = self._read(self._wanted)
        except OSError as exc:
            self._error = exc
        else:
            if data is None:
                return
            if self._take is None or not data:
                self.keep(data)
            else:
                try:
                    goes_on = self._take(data)
                except BaseException as exc:
                    self._raised = exc
                else:
                    if goes_on:
                        return
        if not self._ready.done():  # the stream may have been closed meanwhile
            self._ready.set_result(goes_on)

    def _unregister(self) -> None:
        if self._registered:
            self._registered = False
            assert self._loop is not None
            self._loop.remove_reader(self._poll_fd)

    def _wake(self) -> None:
        """End a wait that is under way."""
        if self._loop is None:
            if self._waiting:
                anyio.notify_closing(self._poll_fd)
        elif self._ready is not None and not self._ready.done():
            self._ready.set_result(True)

    def close(self) -> None:
        self._wake()
        self._unregister()


class PipeReader(_PolledReader):
    """The reading end of a pipe."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._fd = fd
        self._left: int | None = None
        os.set_blocking(fd, False)

    def _read_descriptor(self, max_bytes: int) -> bytes:
        if self._left is None:
            return os.read(self._fd, max_bytes)
        data = os.read(self._fd, min(max_bytes, self._left)) if self._left else b""
        self._left -= len(data)
        return data

    def finish(self) -> None:
        """Let the end come after what is in the pipe now, whoever still holds its writing end."""
        if self._left is None and self._fd >= 0:
            (self._left,) = struct.unpack("i", fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)))
            self._finishing = True
            self.drained = False
            self._wake()

    def close(self) -> None:
        super().close()
        fd, self._fd = self._fd, -1
        os.close(fd)


class SocketReader(_PolledReader):
    """The reading end of a stream socket, whose open file is `shared` with others or not."""

    def __init__(self, fd: int, *, shared: bool) -> None:
        self._epoll = _epoll(fd, select.EPOLLIN) if shared else None
        super().__init__(fd if self._epoll is None else self._epoll.fileno())
        self._socket = _adopt(fd)

    def _read_descriptor(self, max_bytes: int) -> bytes:
        return self._socket.recv(max_bytes, _AT_ONCE)

    def _enter_uvloop(self) -> None:
        # It tells once of a connection that was reset, even where data came before that and has still to be
        # read, and never again. An epoll is no connection, and stays readable as long as there is something.
        if self._epoll is None and sys.platform == "linux":
            self._epoll = _epoll(self._poll_fd, select.EPOLLIN)
            self._poll_fd = self._epoll.fileno()

    def close(self) -> None:
        super().close()
        if self._epoll is not None:
            self._epoll.close()
        self._socket.close()


class _PolledWriter(Writer):
    """Writes what goes, and waits for room.

    A stock kkrpc reader drops a read that holds white space only (FRM-10), so no write may leave a
    line's end alone to a later one: the last bytes of a large write go together.
    """

    def __init__(self, poll_fd: int) -> None:
        self._poll_fd = poll_fd
        self._waiting = False

    async def write(self, data: bytes) -> None:
        count = self.write_now(data)
        if count == len(data):
            await checkpoint()
            return
        rest = memoryview(data)[count:]
        while rest:
            self._waiting = True
            try:
                await self._wait()
            finally:
                self._waiting = False
            rest = rest[self.write_now(rest) :]

    @abstractmethod
    async def _wait(self) -> None: ...

    def close(self) -> None:
        if self._waiting:
            anyio.notify_closing(self._poll_fd)


class PipeWriter(_PolledWriter):
    """The writing end of a pipe."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._fd = fd
        os.set_blocking(fd, False)

    def write_now(self, data: bytes | memoryview) -> int:
        try:
            # A full pipe cuts a write so that whole pages are left, or all but whole pages.
            if not 0 < len(data) % _PAGE < _TAIL or len(data) < _PAGE or data[-1] != _LINE_FEED:
                return os.write(self._fd, data)
            view = memoryview(data)
            count = os.write(self._fd, view[:-_TAIL])
            if count == len(view) - _TAIL:
                with contextlib.suppress(BlockingIOError):
                    count += os.write(self._fd, view[-_TAIL:])
            return count
        except BlockingIOError:
            return 0

    async def _wait(self) -> None:
        await anyio.wait_writable(self._fd)

    def close(self) -> None:
        super().close()
        fd, self._fd = self._fd, -1
        os.close(fd)


class SocketWriter(_PolledWriter):
    """The writing end of a stream socket, whose open file is `shared` with others or not."""

    def __init__(self, fd: int, *, shared: bool) -> None:
        self._epoll = _epoll(fd, select.EPOLLOUT) if shared else None
        super().__init__(fd if self._epoll is None else self._epoll.fileno())
        self._socket = _adopt(fd)

    def write_now(self, data: bytes | memoryview) -> int:
        try:
            if len(data) <= _PAGE or data[-1] != _LINE_FEED:
                return self._socket.send(data, _SENDING)
            view = memoryview(data)
            count = self._socket.send(view[:-_TAIL], _SENDING)
            if count == len(view) - _TAIL:
                with contextlib.suppress(BlockingIOError):
                    count += self._socket.send(view[-_TAIL:], _SENDING)
            return count
        except BlockingIOError:
            return 0

    async def _wait(self) -> None:
        if self._epoll is None:
            await anyio.wait_writable(self._poll_fd)
        else:
            await anyio.wait_readable(self._poll_fd)

    def shut_down(self) -> None:
        """End this direction for everybody who shares the socket."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        super().close()
        if self._epoll is not None:
            self._epoll.close()
        self._socket.close()


def _epoll(fd: int, events: int) -> select.epoll:
    """What an event loop may wait for in place of `fd`: uvloop makes non-blocking what it waits for."""
    epoll = select.epoll()
    epoll.register(fd, events)
    return epoll


def _adopt(fd: int) -> socket.socket:
    """A socket object for `fd` that leaves the open file's flags alone."""
    timeout = socket.getdefaulttimeout()
    if timeout is None:
        return socket.socket(fileno=fd)
    socket.setdefaulttimeout(None)  # with a default timeout the constructor sets O_NONBLOCK
    try:
        return socket.socket(fileno=fd)
    finally:
        socket.setdefaulttimeout(timeout)
