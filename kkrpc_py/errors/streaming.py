"""What the named streams raise: on this side, and through the wire on the other one.

The codes are those of Vite DevTools Kit's streaming API, where it has one for the case; they cross as the
field `code` (NST-21).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kkrpc_py.errors.library import KkrpcError

__all__ = [
    "STREAMING_ERRORS",
    "StateConflict",
    "StreamChannelExists",
    "StreamClosed",
    "StreamGap",
    "StreamOverflow",
    "StreamingError",
    "UnknownStream",
    "UploadDisconnected",
    "WouldBlock",
]


class StreamingError(KkrpcError):
    """The base of what named streams raise. `code` is DevTools Kit's, or None where that has none."""

    _code: str | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = self._code

    @classmethod
    def from_wire(cls, message: str, fields: Mapping[str, Any]) -> StreamingError:
        """The error that the other side raised, with what it says beside its text."""
        return cls(message)


class UnknownStream(StreamingError, LookupError):
    """There is no such channel or stream, or this side may not have it: the two look alike."""

    _code = "DF0030"


class StreamClosed(StreamingError):
    """The stream has ended: nothing can be written to it any more."""

    _code = "DF0031"


class StreamChannelExists(StreamingError):
    """The hub has a channel of that name already."""

    _code = "DF0032"


class StreamOverflow(StreamingError):
    """A subscriber that chose `overflow="error"` was too slow: its subscription has ended."""

    _code = "DF0029"


class WouldBlock(StreamingError):
    """There is no room now, and `write` does not wait; `await send(…)` does."""


class StreamGap(StreamingError):
    """Chunks between two connections, or before the subscription, are gone; `first` to `last` of them."""

    def __init__(self, message: str, first: int = 0, last: int = 0) -> None:
        super().__init__(message)
        self.first = first
        self.last = last


class UploadDisconnected(StreamingError, ConnectionError):
    """The session that uploaded is gone before the upload's end."""


class StateConflict(StreamingError):
    """A change of a shared state lost against another one. `version` is what the server has now."""

    def __init__(self, message: str, version: int = 0) -> None:
        super().__init__(message)
        self.version = version

    @classmethod
    def from_wire(cls, message: str, fields: Mapping[str, Any]) -> StateConflict:
        version = fields.get("version")
        return cls(message, version if type(version) is int else 0)


STREAMING_ERRORS: dict[str, type[StreamingError]] = {
    cls.__name__: cls
    for cls in (
        UnknownStream,
        StreamClosed,
        StreamChannelExists,
        StreamOverflow,
        WouldBlock,
        UploadDisconnected,
        StateConflict,
    )
}
"""Those that cross the wire, by name."""
