"""What the two ends of a descriptor stream are: one that reads, one that writes.

Owns the contract that `polled` and `threads` fulfil and `descriptors` builds on. An end owns its
descriptor and is used from one event loop. Neither end knows of end-of-stream, closing and
concurrent use: that is the streams' part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

__all__ = ["Reader", "Writer"]


class Reader(ABC):
    """The reading end of a descriptor. OSError from any call means that it is broken."""

    def __init__(self) -> None:
        self.drained = False
        """Nothing more is there, as far as is known: the next `read_now` returns None, once."""
        self._kept: bytes | None = None

    def read_now(self, max_bytes: int) -> bytes | None:
        """What is there, without waiting; b"" at the end; None if nothing is there yet."""
        data = self._kept
        if data is None:
            return self._read(max_bytes)
        if len(data) <= max_bytes:
            self._kept = None
            return data
        self._kept = data[max_bytes:]
        return data[:max_bytes]

    def keep(self, data: bytes) -> None:
        """Have the next `read_now` return `data`, which was read before anything else is."""
        self._kept = data if self._kept is None else data + self._kept

    @abstractmethod
    def _read(self, max_bytes: int) -> bytes | None:
        """`read_now`, but for what was kept."""

    @abstractmethod
    async def wait(self) -> None:
        """Return once `read_now` is worth calling, or the end is closed. A cancelled wait loses nothing."""

    async def feed(self, max_bytes: int, take: Callable[[bytes], bool]) -> bool:
        """`wait`, but data that comes may be handed to `take` right away. False: `take` wants no more.

        Raises what `take` raises.
        """
        await self.wait()
        return True

    @abstractmethod
    def close(self) -> None:
        """Let go of the descriptor; ends a wait. Needs no event loop where nobody waits."""


class Writer(ABC):
    """The writing end of a descriptor. OSError from any call means that it is broken."""

    @abstractmethod
    def write_now(self, data: bytes | memoryview) -> int:
        """Write what can be written without waiting; the number of bytes."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Write all of it; always yields to the event loop. Undefined once the end is closed."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the descriptor; ends a write. Needs no event loop where nobody writes."""
