"""Windows: how much a producer may send, and how much a consumer has granted.

Both halves count chunks and bytes of frames (CRD-1): chunks alone bound no memory, bytes alone
would let a million empty values through. This module owns the arithmetic; it knows no message.
"""

from __future__ import annotations

__all__ = ["INITIAL_BYTES", "INITIAL_CHUNKS", "MAX_CHUNKS", "ReceiveWindow", "SendWindow"]

INITIAL_CHUNKS = 64
"""Chunks that a producer may send before the first acknowledgement (CRD-1)."""
INITIAL_BYTES = 256 * 1024
"""Bytes of frames that it may send before the first acknowledgement (CRD-1)."""
MAX_CHUNKS = 4096
"""The largest window in chunks: a small value costs far more as an object than on the wire."""
_GROWTH = 4
"""A step of a window that grows: slower, and a stream of a few thousand chunks waits more than it flows."""


class SendWindow:
    """The producer's side: what it may still send."""

    __slots__ = ("bytes", "chunks")

    def __init__(self) -> None:
        self.chunks = INITIAL_CHUNKS
        self.bytes = INITIAL_BYTES

    @property
    def room(self) -> int:
        """Chunks that the next frame may hold; 0: wait for an acknowledgement (CRD-3)."""
        return self.chunks if self.bytes > 0 else 0

    def spend(self, chunks: int, size: int) -> None:
        """A frame of `size` bytes with `chunks` chunks was sent; the bytes may go below zero once."""
        assert 0 < chunks <= self.room, "a frame was sent without credit"
        self.chunks -= chunks
        self.bytes -= size

    def grant(self, chunks: int, size: int) -> None:
        """The consumer acknowledged."""
        self.chunks += chunks
        self.bytes += size


class ReceiveWindow:
    """The consumer's side: what it has granted, what has come, what was taken.

    It keeps `granted + unread + taken == window` in both units. The window grows while the
    consumer keeps up, fourfold at most a step, and is sized by the chunks it sees: small ones get
    a window of many, large ones of few, so that `budget` bytes bound what lies here unread.
    """

    __slots__ = (
        "_budget",
        "_taken_bytes",
        "_taken_chunks",
        "bytes",
        "chunks",
        "window_bytes",
        "window_chunks",
    )

    def __init__(self, budget: int) -> None:
        self.chunks = self.window_chunks = INITIAL_CHUNKS
        self.bytes = self.window_bytes = INITIAL_BYTES
        self._budget = max(budget, INITIAL_BYTES)
        self._taken_chunks = 0
        self._taken_bytes = 0

    def arrived(self, chunks: int, size: int) -> bool:
        """A frame came. False: it exceeds what was granted (CRD-4)."""
        if chunks > self.chunks or self.bytes <= 0:
            return False
        self.chunks -= chunks
        self.bytes -= size
        return True

    def taken(self, chunks: int, size: int) -> tuple[int, int] | None:
        """The application took `chunks` chunks whose frames had `size` bytes.

        Returns the chunks and bytes to grant now, or None while it is not worth a message (CRD-5).
        """
        self._taken_chunks += chunks
        self._taken_bytes += size
        if self._taken_chunks * 2 < self.window_chunks and self._taken_bytes * 2 < self.window_bytes:
            return None
        per_chunk = self._taken_bytes // self._taken_chunks + 1
        fitting = min(max(self._budget // per_chunk, 1), MAX_CHUNKS)
        # Shrinking never takes back what was granted, only what would be granted again.
        new_chunks = max(min(self.window_chunks * _GROWTH, fitting), self.window_chunks - self._taken_chunks)
        new_bytes = min(self.window_bytes * _GROWTH, self._budget)
        grant_chunks = self._taken_chunks + new_chunks - self.window_chunks
        grant_bytes = self._taken_bytes + new_bytes - self.window_bytes
        self.window_chunks, self.window_bytes = new_chunks, new_bytes
        self.chunks += grant_chunks
        self.bytes += grant_bytes
        self._taken_chunks = self._taken_bytes = 0
        return grant_chunks, grant_bytes
