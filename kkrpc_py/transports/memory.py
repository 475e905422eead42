"""Two linked byte streams in memory.

Owns the buffer between them. It is no transport between threads or event loops: both ends
belong to the same loop.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

__all__ = ["BUFFER_BYTES", "MemoryByteStream", "memory_byte_streams"]

BUFFER_BYTES: Final = 64 * 1024
"""Unread bytes that one direction holds before its sender waits; a pipe's usual size."""


class _Pipe:
    """One direction: chunks that were sent and not yet received, and who waits for a change."""

    __slots__ = ("changed", "chunks", "receiver_closed", "sender_closed", "size")

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self.size = 0
        self.sender_closed = False
        self.receiver_closed = False
        # Whoever waits here, the receiver on an empty pipe or the sender on a full one: never both.
        self.changed: anyio.Event | None = None

    def wake(self) -> None:
        if self.changed is not None:
            self.changed.set()
            self.changed = None

    async def wait(self) -> None:
        if self.changed is None:
            self.changed = anyio.Event()
        await self.changed.wait()

    def put(self, data: bytes | memoryview) -> int:
        """Take what there is room for; the number of bytes taken."""
        room = BUFFER_BYTES - self.size
        if room <= 0 or not data:
            return 0
        chunk = bytes(data) if len(data) <= room else bytes(data[:room])
        self.chunks.append(chunk)
        self.size += len(chunk)
        self.wake()
        return len(chunk)

    def take(self, max_bytes: int) -> bytes:
        """Everything that is there, up to `max_bytes`."""
        chunks = self.chunks
        if self.size <= max_bytes:
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
        else:
            parts, missing = [], max_bytes
            while missing:
                chunk = chunks.popleft()
                if len(chunk) > missing:
                    chunks.appendleft(chunk[missing:])
                    chunk = chunk[:missing]
                parts.append(chunk)
                missing -= len(chunk)
            data = b"".join(parts)
        self.size -= len(data)
        self.wake()
        return data


class MemoryByteStream(ByteStream):
    """One end of a pair made by `memory_byte_streams`. One receiving and one sending task at a time."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._receiving = False
        self._sending = False
        self._closed = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Between 1 and `max_bytes` bytes. A cancelled receive has taken nothing.

        Raises `anyio.EndOfStream`, `anyio.ClosedResourceError` (also when closed while waiting),
        `anyio.BusyResourceError`.
        """
        if max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._closed:
            raise anyio.ClosedResourceError
        if self._receiving:
            raise anyio.BusyResourceError("receiving from")
        await checkpoint_if_cancelled()
        pipe = self._incoming
        self._receiving = True
        try:
            if pipe.size or pipe.sender_closed:
                await cancel_shielded_checkpoint()
            while not pipe.size:
                if self._closed:
                    raise anyio.ClosedResourceError
                if pipe.sender_closed:
                    raise anyio.EndOfStream
                await pipe.wait()
            if self._closed:
                raise anyio.ClosedResourceError
            return pipe.take(max_bytes)
        finally:
            self._receiving = False

    def send_nowait(self, data: bytes) -> int:
        """Send what fits into the buffer; the number of bytes taken, 0 while another send waits."""
        if self._sending:
            return 0
        self._check_sendable()
        return self._outgoing.put(data)

    async def send(self, item: bytes) -> None:
        """Send all of `item`, waiting while the peer has `BUFFER_BYTES` unread.

        Raises `anyio.BrokenResourceError` (the peer closed its end), `anyio.ClosedResourceError`
        (also when closed while waiting), `anyio.BusyResourceError`. A cancelled send may have sent
        a part.
        """
        if self._sending:
            raise anyio.BusyResourceError("sending to")
        await checkpoint_if_cancelled()
        self._check_sendable()
        pipe = self._outgoing
        self._sending = True
        try:
            sent = pipe.put(item)
            if sent == len(item):
                await cancel_shielded_checkpoint()
                return
            rest = memoryview(item)[sent:]
            while rest:
                await pipe.wait()
                self._check_sendable()
                rest = rest[pipe.put(rest) :]
        finally:
            self._sending = False

    def _check_sendable(self) -> None:
        if self._closed or self._outgoing.sender_closed:
            raise anyio.ClosedResourceError
        if self._outgoing.receiver_closed:
            raise anyio.BrokenResourceError

    async def send_eof(self) -> None:
        """End the sending direction; the peer receives what was sent, then `EndOfStream`."""
        if self._sending:
            raise anyio.BusyResourceError("sending to")
        self._outgoing.sender_closed = True
        self._outgoing.wake()
        await cancel_shielded_checkpoint()

    async def aclose(self) -> None:
        """Close both directions. The peer still receives what was sent before."""
        if not self._closed:
            self._closed = True
            self._outgoing.sender_closed = True
            self._incoming.receiver_closed = True
            self._incoming.chunks.clear()
            self._incoming.size = 0
            self._outgoing.wake()
            self._incoming.wake()
        await cancel_shielded_checkpoint()


def memory_byte_streams() -> tuple[MemoryByteStream, MemoryByteStream]:
    """A linked pair: what one end sends, the other receives."""
    one, two = _Pipe(), _Pipe()
    return MemoryByteStream(one, two), MemoryByteStream(two, one)
