"""Byte streams that a test can stall, let through in pieces, and cut, at either end and at any byte.

This module owns no test and no task: what a line does, it does within the calls of its two ends.
"""

from __future__ import annotations

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint


class _Way:
    """One direction."""

    def __init__(self, capacity: int, piece: int) -> None:
        self.capacity = capacity
        self.piece = piece
        self.data = bytearray()
        self.closed = False
        """Who sends has ended."""
        self.changed = anyio.Event()

    def change(self) -> None:
        changed, self.changed = self.changed, anyio.Event()
        changed.set()


class Line:
    """Two linked ends. `capacity`: bytes under way in each direction; `piece`: bytes that a read gets."""

    def __init__(self, capacity: int = 65536, piece: int = 65536) -> None:
        there, back = _Way(capacity, piece), _Way(capacity, piece)
        self.ends = (End(there, back), End(back, there))

    @property
    def broken(self) -> bool:
        """It has been cut, whoever has seen that."""
        return any(end.broken for end in self.ends)

    def stall(self, stalled: bool) -> None:
        """Whether nothing arrives for now, in either direction."""
        for end in self.ends:
            end.stalled = stalled
            end.incoming.change()

    def cut(self, *ends: int, lost: bool) -> None:
        """Let the given ends see that the connection is gone; what is under way to them may be `lost`."""
        for number in ends:
            end = self.ends[number]
            if not end.broken:
                end.broken = True
                end.left = 0 if lost else len(end.incoming.data)
            end.incoming.change()
            end.outgoing.change()


class End(ByteStream):
    """One end of a line."""

    def __init__(self, incoming: _Way, outgoing: _Way) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.stalled = False
        self.broken = False
        self.left = 0
        """Of a broken one: the bytes that were under way and are to be read. What comes later is not."""
        self.closed = False

    @property
    def _there(self) -> int:
        """Bytes that can be read."""
        return self.left if self.broken else len(self.incoming.data)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await checkpoint()
        way = self.incoming
        while self.stalled or not self._there:
            if self.closed:
                raise anyio.ClosedResourceError
            if self.broken and not self.left:
                raise anyio.BrokenResourceError
            if way.closed and not way.data:
                raise anyio.EndOfStream
            await way.changed.wait()
        size = min(max_bytes, way.piece, self._there)
        data = bytes(way.data[:size])
        if self.broken:
            self.left -= size
        del way.data[:size]
        way.change()
        return data

    async def send(self, item: bytes) -> None:
        await checkpoint()
        way, rest = self.outgoing, memoryview(item)
        while rest:
            self._check()
            room = way.capacity - len(way.data)
            if room > 0:
                way.data += rest[:room]
                rest = rest[room:]
                way.change()
            else:
                await way.changed.wait()

    def _check(self) -> None:
        if self.closed:
            raise anyio.ClosedResourceError
        if self.broken:
            raise anyio.BrokenResourceError

    async def send_eof(self) -> None:
        self.outgoing.closed = True
        self.outgoing.change()
        await checkpoint()

    async def aclose(self) -> None:
        self.closed = True
        self.outgoing.closed = True
        self.incoming.capacity = 1 << 40  # nobody waits for who reads no more
        self.outgoing.change()
        self.incoming.change()
        await checkpoint()
