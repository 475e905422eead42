"""What a WebSocket carries: items of whole frames, texts for JSON and binary ones for CBOR (TRN-1, TRN-2).

Owns how frames become items and items become bytes again, and the numbers with which a WebSocket is closed.
It knows no library of WebSockets: the servers of others (ASGI) use it, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = [
    "FAREWELL",
    "GOING_AWAY",
    "INTERNAL_ERROR",
    "ITEM_BYTES",
    "NORMAL",
    "NO_CODE",
    "PROTOCOL_ERROR",
    "TOO_LARGE",
    "WRONG_DATA",
    "Item",
    "items_of",
    "line_of",
    "peer_closed",
    "short_reason",
    "went_well",
]

ITEM_BYTES: Final = 64 * 1024
"""Frames that are written together share an item up to this size. A larger frame has one to itself."""
FAREWELL: Final = b"__DESTROY__"
"""A text that ends the input of whoever receives it: kkrpc's `signalDestroy` (TRN-3)."""

# Why a WebSocket is closed (RFC 6455, 7.4.1; TRN-4).
NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
NO_CODE: Final = 1005
WRONG_DATA: Final = 1007
TOO_LARGE: Final = 1009
INTERNAL_ERROR: Final = 1011

_BRACE: Final = 0x7B
_REASON_BYTES: Final = 123
"""What a close frame has room for, besides its code (RFC 6455, 5.5)."""


class Item(NamedTuple):
    """A message of a WebSocket."""

    text: bool
    data: bytes
    """The text's UTF-8, or the block of bytes."""


def items_of(frames: Sequence[bytes]) -> list[Item]:
    """The frames, in their order, in as few items as they fit into."""
    if len(frames) == 1:
        return [Item(frames[0][0] == _BRACE, frames[0])]
    items: list[Item] = []
    together: list[bytes] = []
    size, text = 0, True
    for frame in frames:
        is_text = frame[0] == _BRACE
        if together and (is_text is not text or size + len(frame) > ITEM_BYTES):
            items.append(Item(text, b"".join(together)))
            together, size = [], 0
        text = is_text
        together.append(frame)
        size += len(frame)
    if together:
        items.append(Item(text, b"".join(together)))
    return items


def line_of(text: bytes) -> bytes:
    """The bytes of a text item: its end is the end of a line, whether it says so or not (FRM-14)."""
    return text if text.endswith(b"\n") else text + b"\n"


def went_well(code: int) -> bool:
    """Whether who closed with this code had nothing to complain about (TRN-4)."""
    return code in (NORMAL, GOING_AWAY, NO_CODE)


def peer_closed(code: int, reason: str) -> str:
    """What is said of a peer that closed with another code."""
    return f"the peer closed the WebSocket with {code}" + (f": {reason}" if reason else "")


def short_reason(reason: str) -> str:
    """As much of it as a close frame has room for."""
    return reason.encode()[:_REASON_BYTES].decode(errors="ignore")
