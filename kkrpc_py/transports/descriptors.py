"""A byte stream over file descriptors: pipes, sockets, terminals, files.

Owns how each kind of descriptor is read and written without harming whoever shares it (design
decision 0101). Does not know where the descriptors come from: `stdio` and `process` do.

Pipes made here, or reopened, belong to us and are non-blocking. Inherited sockets keep their flags.
Everything else goes through `threads`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import stat
import struct
import sys
import termios
from collections.abc import Coroutine
from typing import Any, Final, Literal, Protocol

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, ByteStream
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from kkrpc_py.transports.threads import ThreadReader, ThreadWriter

__all__ = [
    "PIPE_BYTES",
    "DescriptorReceiveStream",
    "DescriptorSendStream",
    "DescriptorStream",
    "enlarge_pipe",
    "open_pipe",
]

PIPE_BYTES: Final = 1024 * 1024
"""What a pipe of the bulk direction is enlarged to: the most that Linux gives an ordinary user."""

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TAIL: Final = 32
"""Bytes that a large write keeps together at its end, see `_head`."""


class Reader(Protocol):
    """The reading end of one descriptor. OSError from any of these means that it is broken."""

    def read_now(self, max_bytes: int) -> bytes | None:
        """What is there; b"" at the end; None if nothing is there yet."""

    async def wait(self) -> None:
        """Wait until `read_now` is worth calling. `ClosedResourceError` if closed meanwhile."""

    def close(self) -> None: ...


class Writer(Protocol):
    """The writing end of one descriptor. OSError from any of these means that it is broken."""

    def write_now(self, data: bytes) -> int:
        """Write what can be written without waiting; the number of bytes."""

    async def send(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class PipeReader:
    """The reading end of a pipe whose open file belongs to us."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._left: int | None = None
        os.set_blocking(fd, False)

    def read_now(self, max_bytes: int) -> bytes | None:
        if self._left is not None:
            max_bytes = min(max_bytes, self._left)
        try:
            data = os.read(self._fd, max_bytes)
        except BlockingIOError:
            return None if self._left is None else b""
        if self._left is not None:
            self._left -= len(data)
        return data

    async def wait(self) -> None:
        try:
            await anyio.wait_readable(self._fd)
        except anyio.ClosedResourceError:
            if self._fd < 0:
                raise

    def finish(self) -> None:
        """Let the stream end after what is in the pipe now, whoever else holds the writing end."""
        if self._fd >= 0 and self._left is None:
            count = fcntl.ioctl(self._fd, termios.FIONREAD, b"\0\0\0\0")
            (self._left,) = struct.unpack("i", count)
            anyio.notify_closing(self._fd)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        anyio.notify_closing(fd)
        os.close(fd)


class _PolledWriter:
    """What both polled writers do: write what goes, wait, go on."""

    def write_now(self, data: bytes | memoryview) -> int:
        raise NotImplementedError

    async def _wait(self) -> None:
        raise NotImplementedError

    async def send(self, data: bytes) -> None:
        count = self.write_now(data)
        if count == len(data):
            await cancel_shielded_checkpoint()
            return
        rest = memoryview(data)[count:]
        while rest:
            await self._wait()
            rest = rest[self.write_now(rest) :]


class PipeWriter(_PolledWriter):
    """The writing end of a pipe whose open file belongs to us."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_blocking(fd, False)

    def write_now(self, data: bytes | memoryview) -> int:
        size = len(data)
        try:
            if size % _PAGE < _TAIL and size > _PAGE:
                head = memoryview(data)[:-_TAIL]
                count = os.write(self._fd, head)
                if count < len(head):
                    return count
                with contextlib.suppress(BlockingIOError):
                    count += os.write(self._fd, memoryview(data)[-_TAIL:])
                return count
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0

    async def _wait(self) -> None:
        await anyio.wait_writable(self._fd)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        anyio.notify_closing(fd)
        os.close(fd)


class _Epoll:
    """A poll object of our own around a descriptor whose open file others share.

    Event loops are given this to wait on, never the descriptor: uvloop makes non-blocking whatever
    it waits on.
    """

    def __init__(self, fd: int, events: int) -> None:
        self._epoll = select.epoll()
        self._epoll.register(fd, events)

    async def wait(self) -> None:
        await anyio.wait_readable(self._epoll.fileno())

    def close(self) -> None:
        anyio.notify_closing(self._epoll.fileno())
        self._epoll.close()


class SocketReader:
    """The reading end of an inherited stream socket."""

    def __init__(self, fd: int) -> None:
        self._socket = _adopt_socket(fd)
        self._epoll = _Epoll(fd, select.EPOLLIN)

    def read_now(self, max_bytes: int) -> bytes | None:
        try:
            return self._socket.recv(max_bytes, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    async def wait(self) -> None:
        await self._epoll.wait()

    def close(self) -> None:
        self._epoll.close()
        self._socket.close()


class SocketWriter(_PolledWriter):
    """The writing end of an inherited stream socket."""

    def __init__(self, fd: int) -> None:
        self._socket = _adopt_socket(fd)
        self._epoll = _Epoll(fd, select.EPOLLOUT)

    def write_now(self, data: bytes | memoryview) -> int:
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        try:
            if len(data) <= _PAGE:
                return self._socket.send(data, flags)
            head = memoryview(data)[:-_TAIL]
            count = self._socket.send(head, flags)
            if count == len(head):
                with contextlib.suppress(BlockingIOError):
                    count += self._socket.send(memoryview(data)[-_TAIL:], flags)
            return count
        except BlockingIOError:
            return 0

    async def _wait(self) -> None:
        await self._epoll.wait()

    def shut_down(self) -> None:
        """End this direction for everybody who shares the socket."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._epoll.close()
        self._socket.close()


class DescriptorReceiveStream(ByteReceiveStream):
    """The receiving half of a `DescriptorStream`."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._kept = b""  # read, and then the task was cancelled before it could return it
        self._at_end = False
        self._busy = False
        self._closed = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Between 1 and `max_bytes` bytes, as many as are there. A cancelled receive loses nothing.

        Raises `anyio.EndOfStream`, `anyio.BrokenResourceError`, `anyio.ClosedResourceError` (also
        when closed while waiting), `anyio.BusyResourceError`.
        """
        if max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._busy:
            raise anyio.BusyResourceError("receiving from")
        if self._closed:
            raise anyio.ClosedResourceError
        await checkpoint_if_cancelled()
        self._busy = True
        try:
            return await self._receive(max_bytes)
        except OSError as exc:
            raise anyio.BrokenResourceError from exc
        finally:
            self._busy = False

    async def _receive(self, max_bytes: int) -> bytes:
        if self._closed:
            raise anyio.ClosedResourceError
        if self._kept:
            data: bytes | None = self._kept[:max_bytes]
            self._kept = self._kept[max_bytes:]
        elif self._at_end:
            data = b""
        else:
            data = self.reader.read_now(max_bytes)
        if data is None:
            while data is None:
                await self.reader.wait()
                if self._closed:
                    raise anyio.ClosedResourceError
                data = self.reader.read_now(max_bytes)
        else:
            try:
                await cancel_shielded_checkpoint()
            except BaseException:  # a shield holds up no task.cancel() of asyncio
                self._kept = data + self._kept
                raise
        if not data:
            self._at_end = True
            raise anyio.EndOfStream
        return data

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self.reader.close()
        await cancel_shielded_checkpoint()


class DescriptorSendStream(ByteSendStream):
    """The sending half of a `DescriptorStream`."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self._busy = False
        self._closed = False

    def send_nowait(self, data: bytes) -> int:
        """Write what goes without waiting; the number of bytes. 0 also while a `send` is under way.

        The caller sends the rest before anything else. Raises `anyio.BrokenResourceError`,
        `anyio.ClosedResourceError`.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        if self._busy:
            return 0
        try:
            return self.writer.write_now(data)
        except OSError as exc:
            raise anyio.BrokenResourceError from exc

    async def send(self, item: bytes) -> None:
        """Write all of `item`. A cancelled send may have written a part.

        Raises `anyio.BrokenResourceError` (nobody reads any more), `anyio.ClosedResourceError` (also
        when closed while waiting), `anyio.BusyResourceError`.
        """
        if self._busy:
            raise anyio.BusyResourceError("sending to")
        if self._closed:
            raise anyio.ClosedResourceError
        await checkpoint_if_cancelled()
        self._busy = True
        try:
            await self.writer.send(item)
        except OSError as exc:
            raise (anyio.ClosedResourceError if self._closed else anyio.BrokenResourceError) from exc
        finally:
            self._busy = False

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self.writer.close()
        await cancel_shielded_checkpoint()


class DescriptorStream(ByteStream):
    """Reads one descriptor and writes another, or the same one. Owns and closes both.

    One task receives and one sends at a time. `inherited` says that others may share the open files
    (design decision 0101). `enlarge` names the direction whose pipe is to hold `PIPE_BYTES`.
    """

    def __init__(
        self,
        read_fd: int,
        write_fd: int,
        *,
        inherited: bool = True,
        enlarge: Literal["read", "write"] | None = None,
    ) -> None:
        self._one_socket = _same_socket(read_fd, write_fd)
        if read_fd == write_fd:
            write_fd = os.dup(read_fd)
        if enlarge is not None:
            enlarge_pipe(read_fd if enlarge == "read" else write_fd)
        if inherited:
            reader, writer = _inherited_reader(read_fd), _inherited_writer(write_fd)
        else:
            reader, writer = PipeReader(read_fd), PipeWriter(write_fd)
        self.receiver = DescriptorReceiveStream(reader)
        self.sender = DescriptorSendStream(writer)

    def receive(self, max_bytes: int = 65536) -> Coroutine[Any, Any, bytes]:
        """See `DescriptorReceiveStream.receive`."""
        return self.receiver.receive(max_bytes)

    def send_nowait(self, data: bytes) -> int:
        """See `DescriptorSendStream.send_nowait`."""
        return self.sender.send_nowait(data)

    def send(self, item: bytes) -> Coroutine[Any, Any, None]:
        """See `DescriptorSendStream.send`."""
        return self.sender.send(item)

    async def send_eof(self) -> None:
        """Close the writing end; the peer reads what was sent, then the end.

        Where one socket serves both directions, its sending direction is shut down.
        """
        if self._one_socket and isinstance(self.sender.writer, SocketWriter):
            self.sender.writer.shut_down()
        await self.sender.aclose()

    async def aclose(self) -> None:
        """Close both ends. What was sent is not lost; a waiting receive or send is ended."""
        try:
            await self.sender.aclose()
        finally:
            await self.receiver.aclose()


def open_pipe() -> tuple[int, int]:
    """A pipe: read end, write end. Neither is inherited, nor one of the descriptors 0 to 2.

    A process that was started with standard streams closed would otherwise get them for its pipes,
    and print into them.
    """
    ends = os.pipe()
    if min(ends) > 2:
        return ends
    try:
        read_fd = fcntl.fcntl(ends[0], fcntl.F_DUPFD_CLOEXEC, 3)
        try:
            return read_fd, fcntl.fcntl(ends[1], fcntl.F_DUPFD_CLOEXEC, 3)
        except OSError:
            os.close(read_fd)
            raise
    finally:
        os.close(ends[0])
        os.close(ends[1])


def enlarge_pipe(fd: int) -> None:
    """Make a pipe hold `PIPE_BYTES`, if it is one and the kernel agrees; never make it smaller."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < PIPE_BYTES:
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _inherited_reader(fd: int) -> Reader:
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode):
        own = _reopen(fd, os.O_RDONLY)
        return ThreadReader(fd) if own is None else PipeReader(own)
    if stat.S_ISSOCK(mode) and sys.platform == "linux":
        return SocketReader(fd)
    return ThreadReader(fd)


def _inherited_writer(fd: int) -> Writer:
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode):
        own = _reopen(fd, os.O_WRONLY)
        return ThreadWriter(fd) if own is None else PipeWriter(own)
    if stat.S_ISSOCK(mode) and sys.platform == "linux":
        return SocketWriter(fd)
    return ThreadWriter(fd)


def _reopen(fd: int, access: int) -> int | None:
    """The pipe behind `fd` as an open file of our own, in place of `fd`; None if that cannot be.

    It cannot without /proc, for a pipe made by another user, or when a pipe's reader is gone.
    """
    if sys.platform != "linux":
        return None
    try:
        own = os.open(f"/proc/self/fd/{fd}", access | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    os.close(fd)
    return own


def _same_socket(one: int, other: int) -> bool:
    first, second = os.fstat(one), os.fstat(other)
    return stat.S_ISSOCK(first.st_mode) and os.path.samestat(first, second)


def _adopt_socket(fd: int) -> socket.socket:
    """A socket object for `fd` that leaves the open file's flags alone."""
    timeout = socket.getdefaulttimeout()
    if timeout is None:
        return socket.socket(fileno=fd)
    socket.setdefaulttimeout(None)  # with a default timeout the constructor sets O_NONBLOCK
    try:
        return socket.socket(fileno=fd)
    finally:
        socket.setdefaulttimeout(timeout)
