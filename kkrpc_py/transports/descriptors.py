"""A byte stream over file descriptors: pipes, sockets, terminals, files.

Owns the choice of how a descriptor is read and written without harm to those who share it (decision
0101), and the streams. The reading and writing itself is in `polled` and `threads`; where
descriptors come from is the part of `stdio` and `process`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
import threading
from collections.abc import Callable
from typing import Final, Literal

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, ByteStream
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from kkrpc_py.transports.ends import Reader, Writer
from kkrpc_py.transports.polled import PipeReader, PipeWriter, SocketReader, SocketWriter
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


class DescriptorReceiveStream(ByteReceiveStream):
    """The receiving half of a `DescriptorStream`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._at_end = False
        self._busy = False
        self._closed = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Between 1 and `max_bytes` bytes, what is there. A cancelled receive loses nothing.

        256 KiB is a good `max_bytes` for speed. Raises `anyio.EndOfStream`, `BrokenResourceError`,
        `ClosedResourceError` (also when closed while waiting), `BusyResourceError`.
        """
        self._check_free(max_bytes)
        self._busy = True
        try:
            data = b"" if self._at_end else self._reader.read_now(max_bytes)
            if data is not None:
                try:
                    await checkpoint()
                except BaseException:
                    self._reader.keep(data)
                    raise
            while data is None:
                await self._reader.wait()
                self._check_open()
                data = self._reader.read_now(max_bytes)
        except OSError as exc:
            raise anyio.BrokenResourceError from exc
        finally:
            self._busy = False
        if not data:
            self._at_end = True
            raise anyio.EndOfStream
        return data

    async def receive_each(self, max_bytes: int, take: Callable[[bytes], bool]) -> None:
        """Call `take` with what there is, 1 to `max_bytes` bytes, again and again until it returns False.

        `take` runs in this task's context, but on asyncio not in this task: the event loop calls it,
        which saves a change of tasks for each message. What it was not called with is not lost.
        Raises what `receive` and `take` raise; a cancellation in the same turn goes before the latter.
        """
        self._check_free(max_bytes)
        self._busy = True
        try:
            await checkpoint_if_cancelled()
            reader = self._reader
            while True:
                try:
                    data = b"" if self._at_end else reader.read_now(max_bytes)
                except OSError as exc:
                    raise anyio.BrokenResourceError from exc
                if data is None:
                    if not await reader.feed(max_bytes, take):
                        return
                elif not data:
                    self._at_end = True
                    raise anyio.EndOfStream
                elif not take(data):
                    return
                elif not reader.drained:
                    await checkpoint()
                self._check_open()
        finally:
            self._busy = False

    def _check_free(self, max_bytes: int) -> None:
        if max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._busy:
            raise anyio.BusyResourceError("receiving from")
        self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError

    def finish(self) -> None:
        """Let the stream end after what is in the pipe now, whoever still holds its writing end."""
        if not self._closed and isinstance(self._reader, PipeReader):
            self._reader.finish()

    async def aclose(self) -> None:
        """Close the descriptor. A waiting receive is ended."""
        self.close()
        await cancel_shielded_checkpoint()

    def close(self) -> None:
        """`aclose` without yielding to the event loop."""
        if not self._closed:
            self._closed = True
            self._reader.close()


class DescriptorSendStream(ByteSendStream):
    """The sending half of a `DescriptorStream`."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._busy = False
        self._closed = False

    def send_nowait(self, data: bytes) -> int:
        """Write what goes without waiting; the number of bytes. 0 also while a `send` is under way.

        The caller sends the rest before anything else. Raises `anyio.BrokenResourceError`,
        `ClosedResourceError`.
        """
        self._check_open()
        if self._busy:
            return 0
        try:
            return self._writer.write_now(data)
        except OSError as exc:
            raise anyio.BrokenResourceError from exc

    async def send(self, item: bytes) -> None:
        """Write all of `item`. A cancelled send may have written a part, or all.

        Raises `anyio.BrokenResourceError` (nobody reads any more), `ClosedResourceError` (also when
        closed while waiting), `BusyResourceError`.
        """
        if self._busy:
            raise anyio.BusyResourceError("sending to")
        self._check_open()
        self._busy = True
        try:
            await checkpoint_if_cancelled()
            await self._writer.write(item)
        except OSError as exc:
            self._check_open()
            raise anyio.BrokenResourceError from exc
        finally:
            self._busy = False

    def _check_open(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError

    async def aclose(self) -> None:
        """Close the descriptor. What was sent is not lost; a waiting send is ended."""
        self.close()
        await cancel_shielded_checkpoint()

    def close(self) -> None:
        """`aclose` without yielding to the event loop."""
        if not self._closed:
            self._closed = True
            self._writer.close()

    def shut_down(self) -> None:
        """End a socket's sending direction for everybody who shares it."""
        if not self._closed and isinstance(self._writer, SocketWriter):
            self._writer.shut_down()


class DescriptorStream(ByteStream):
    """Reads one descriptor and writes another, or the same one. Owns and closes both.

    One task receives and one sends at a time; all of it in one event loop, which the constructor does
    not need yet. `inherited` says that others may share the open files (decision 0101); those that are
    not are pipes or sockets. `enlarge` names
    the direction whose pipe is to hold `PIPE_BYTES`. `turn` is held during each send, so that others
    who write to the same place take it in between. Both descriptors are closed if this raises.
    """

    def __init__(
        self,
        read_fd: int,
        write_fd: int,
        *,
        inherited: bool = True,
        enlarge: Literal["read", "write"] | None = None,
        turn: threading.Lock | None = None,
    ) -> None:
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(os.close, read_fd)
            if read_fd == write_fd:
                write_fd = fcntl.fcntl(read_fd, fcntl.F_DUPFD_CLOEXEC, 3)
            on_failure.callback(os.close, write_fd)
            self._one_socket = _same_socket(read_fd, write_fd)
            if enlarge is not None:
                enlarge_pipe(read_fd if enlarge == "read" else write_fd)
            reader = _inherited_reader(read_fd) if inherited else _own_reader(read_fd)
            on_failure.pop_all()
            on_failure.callback(os.close, write_fd)
            on_failure.callback(reader.close)
            writer = _inherited_writer(write_fd, turn) if inherited else _own_writer(write_fd)
            on_failure.pop_all()
        self.receiver = DescriptorReceiveStream(reader)
        self.sender = DescriptorSendStream(writer)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """See `DescriptorReceiveStream.receive`."""
        return await self.receiver.receive(max_bytes)

    async def receive_each(self, max_bytes: int, take: Callable[[bytes], bool]) -> None:
        """See `DescriptorReceiveStream.receive_each`."""
        await self.receiver.receive_each(max_bytes, take)

    def send_nowait(self, data: bytes) -> int:
        """See `DescriptorSendStream.send_nowait`."""
        return self.sender.send_nowait(data)

    async def send(self, item: bytes) -> None:
        """See `DescriptorSendStream.send`."""
        await self.sender.send(item)

    async def send_eof(self) -> None:
        """End the sending direction; the peer reads what was sent, then the end.

        Closes the descriptor; a socket that also receives is shut down in this direction.
        """
        if self._one_socket:
            self.sender.shut_down()
        await self.sender.aclose()

    async def aclose(self) -> None:
        """Close both descriptors. What was sent is not lost; a waiting receive or send is ended."""
        self.close()
        await cancel_shielded_checkpoint()

    def close(self) -> None:
        """`aclose` without yielding to the event loop."""
        self.sender.close()
        self.receiver.close()


def open_pipe() -> tuple[int, int]:
    """A pipe: reading end, writing end. Neither is inherited, nor one of the descriptors 0 to 2.

    A process that was started with closed standard streams would otherwise get those for its pipe,
    and print into it.
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


def _own_reader(fd: int) -> Reader:
    is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    return SocketReader(fd, shared=False) if is_socket else PipeReader(fd)


def _own_writer(fd: int) -> Writer:
    is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    return SocketWriter(fd, shared=False) if is_socket else PipeWriter(fd)


def _inherited_reader(fd: int) -> Reader:
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode) and (own := _reopen(fd, os.O_RDONLY)) is not None:
        return PipeReader(own)
    return SocketReader(fd, shared=True) if _is_pollable_socket(mode) else ThreadReader(fd)


def _inherited_writer(fd: int, turn: threading.Lock | None) -> Writer:
    if turn is not None:
        return ThreadWriter(fd, turn)  # a lock that is waited for has no place on an event loop
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode) and (own := _reopen(fd, os.O_WRONLY)) is not None:
        return PipeWriter(own)
    return SocketWriter(fd, shared=True) if _is_pollable_socket(mode) else ThreadWriter(fd)


def _is_pollable_socket(mode: int) -> bool:
    return stat.S_ISSOCK(mode) and sys.platform == "linux"  # elsewhere there is no epoll


def _reopen(fd: int, access: int) -> int | None:
    """The pipe behind `fd` as an open file of our own, `fd` being closed; None if that cannot be.

    It cannot without /proc, for a pipe that another user made, and once a pipe's reader is gone.
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
    first = os.fstat(one)
    return stat.S_ISSOCK(first.st_mode) and os.path.samestat(first, os.fstat(other))
