"""Every bound that keeps a peer from growing this process, in one place.

This module owns the names and the defaults. The code that enforces a bound names the field.
"""

from __future__ import annotations

import dataclasses

__all__ = ["Limits"]

_KIB = 1024
_MIB = 1024 * _KIB


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one channel. Sizes are bytes, times are seconds."""

    frame: int = 16 * _MIB
    """One frame, read or written. A longer one that arrives closes the channel (FRM-6)."""
    noise: int = 64 * _KIB
    """One line of noise that is handed on; the rest of the line is dropped (FRM-7)."""
    depth: int = 128
    """Nesting of lists and mappings in one message (FRM-8)."""
    digits: int = 1000
    """Decimal digits of one integer (FRM-8)."""
    id_bytes: int = 256
    """UTF-8 bytes, or digits, of a message id (MSG-2)."""
    calls: int = 16_384
    """Calls and streams of the peer that run here at once; one more is refused (CALL-7)."""
    call_bytes: int = 256 * _MIB
    """Frames of the calls of the peer that run here at once; one more is refused (CALL-7). And as much again
    for frames of the peer's streams within values that lie here unread (ARG-5)."""
    callbacks: int = 65_536
    """Functions of this side that the peer holds, and of the peer that this side does; more are refused
    (CBK-7)."""
    threads: int = 16
    """Threads that run `def` handlers for one channel, and as many again for sync generators, each of which
    keeps its thread as long as its stream lives."""
    stream_buffer: int = 1 * _MIB
    """Frames of one credited stream that lie here unread; grants stay below it (CRD-5)."""
    stock_stream_buffer: int = 64 * _MIB
    """The same for a producer that knows no credit; beyond it the stream is cancelled (STR-12)."""
    high_water_mark: int = 65_536
    """Chunks that a subscriber may ask to have kept for it while it is slow (NST-12)."""
    subscription_bytes: int = 16 * _MIB
    """Bytes of them; what is more counts as if that mark were passed (NST-12)."""
    send_high_water: int = 1 * _MIB
    """Frames waiting to be written above which whoever sends more waits: a stream for all of them, a call or
    an answer for those of its kind alone."""
    send_max: int = 64 * _MIB
    """Answers of the reader itself waiting to be written; more closes the channel (CLS-5)."""
    cleanup_seconds: float = 2.0
    """What a handler's or generator's cleanup may take when it is cancelled or the channel closes."""
    hello_seconds: float = 2.0
    """How long a call that needs an extension waits for the peer's answer to the hello (HEL-6)."""
    finish_seconds: float = 1.0
    """How long handlers may go on after the peer's last byte, to answer what it asked before (CLS-2)."""
    drain_seconds: float = 2.0
    """How long a closing channel goes on writing what was queued before."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"Limits.{field.name} must be above zero")
