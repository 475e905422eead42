"""The kit's books of credit (CRD-1 to CRD-7): of the streams that it produces, and of those that it consumes.

It owns the sums alone: `play` waits for credit, and judges.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["Consumed", "Produced", "chunks_in"]

CREDIT: Final = (64, 262_144)
"""What a producer begins with, in chunks and in bytes (CRD-1)."""


@dataclasses.dataclass(slots=True)
class Produced:
    """A stream whose producer is the kit: what it sent, and what was acknowledged."""

    chunks: int = 0
    size: int = 0
    n: int = 0
    b: int = 0

    @property
    def has_credit(self) -> bool:
        """Whether one more chunk may be sent (CRD-3)."""
        return CREDIT[0] + self.n > self.chunks and CREDIT[1] + self.b > self.size


@dataclasses.dataclass(slots=True)
class Consumed:
    """A stream whose consumer is the kit: what credit its producer has left."""

    chunks: int = CREDIT[0]
    size: int = CREDIT[1]
    """May fall below zero by one message."""
    messages: int = 0
    overdrawn: str = ""
    """The first message that came without credit."""

    def grant(self, n: int, b: int) -> None:
        """The kit has sent an acknowledgement."""
        self.chunks += n
        self.size += b

    def take(self, chunks: int, size: int) -> None:
        """A chunk message has come, of that many chunks and bytes."""
        self.messages += 1
        if not self.overdrawn and (self.size <= 0 or chunks > self.chunks):
            self.overdrawn = (
                f"chunk message {self.messages}, of {chunks} chunks, "
                f"with a credit of {self.chunks} chunks and {self.size} bytes"
            )
        self.chunks -= chunks
        self.size -= size

    @property
    def left(self) -> str:
        """What may still be sent; empty where nothing may."""
        return f"{self.chunks} chunks and {self.size} bytes" if self.chunks > 0 and self.size > 0 else ""


def chunks_in(args: Mapping[str, Any]) -> int:
    """How many chunks a chunk message holds: one, or those of its batch."""
    values = args.get("values")
    return len(values) if isinstance(values, list) and "value" not in args else 1
