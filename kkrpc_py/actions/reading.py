"""`EventStreamReader`: bytes of an event stream to events (WHATWG HTML, 9.2.5 and 9.2.6; SSE-14).

It owns lines, fields, ids and their bounds. It knows no connection, and not what the events mean. Why
httpx-sse does not do this: docs/decisions/0017.
"""

from __future__ import annotations

import re

import msgspec

__all__ = ["EventStreamReader", "ServerSentEvent"]

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\r|\n")
_COLON = b":"
_CR, _LF, _SPACE = b"\r", b"\n", b" "


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    """One event, complete."""

    event: str
    """Its type; "message" where it has none."""
    data: str
    id: str
    """The id of the last event that has one, up to this one."""


class EventStreamReader:
    """Reads one event stream. Whatever is fed gives the same events however it is divided.

    :param limit: bytes of one line and of one event's data; what is more ends the reading, see `too_long`.
        The bytes of a comment are not kept, however many there are.
    :param last_id: of the last event that came by an earlier connection, which the next one goes on from.
    """

    def __init__(self, limit: int, last_id: str = "") -> None:
        self.last_id = last_id
        """Of the last event that is complete, with data or without; it stays until another one comes."""
        self.retry: float | None = None
        """Seconds that the server wants a client to wait before it connects again; None: it has not said."""
        self.too_long = False
        """Something was longer than the limit: what came before it was read, and nothing after it will be."""
        self._limit = limit
        self._id = last_id
        self._type = b""
        self._data = bytearray()  # with a line feed behind each line
        # The line that has no end yet.
        self._parts: list[bytes] = []
        self._parts_size = 0
        self._first = True
        self._after_cr = False

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """The events that these bytes complete, in order.

        The end of the bytes is the end of nothing: an event without its empty line has not come.
        """
        events: list[ServerSentEvent] = []
        if self._after_cr and data:
            # The line has ended with the CR; a LF behind it is its second half.
            self._after_cr = False
            data = data.removeprefix(_LF)
        if not data or self.too_long:
            return events
        if _CR in data:
            self._after_cr = data.endswith(_CR)
            *lines, rest = _LINE_END.split(data)
        else:  # as most streams are, and many times faster
            *lines, rest = data.split(_LF)
        if lines and self._parts:
            lines[0] = b"".join((*self._parts, lines[0]))
            self._parts.clear()
            self._parts_size = 0
        for line in lines:
            if self._first:
                self._first = False
                line = line.removeprefix(_BOM)
            if not line:
                self._dispatch(events)
            elif not self._take(line):
                self.too_long = True
                return events
        if rest:
            self._keep(rest)
        return events

    def _keep(self, rest: bytes) -> None:
        if not self._parts and rest.startswith(_COLON):
            rest = _COLON  # enough to know it again
        elif self._parts and self._parts[0] is _COLON:
            return
        self._parts.append(rest)
        self._parts_size += len(rest)
        self.too_long = self._parts_size > self._limit

    def _take(self, line: bytes) -> bool:
        """One line that is not empty; False: too much of it, or with it."""
        name, _, value = line.partition(_COLON)
        if not name:
            return True
        if len(line) > self._limit:
            return False
        if value.startswith(_SPACE):
            value = value[1:]
        if name == b"data":
            self._data += value
            self._data += _LF
            return len(self._data) <= self._limit
        if name == b"event":
            self._type = value
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit():  # of bytes: ASCII digits alone
            self.retry = float(value) / 1000
        return True

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        self.last_id = self._id
        kind = "message"
        if self._type:
            kind = self._type.decode(errors="replace")
            self._type = b""
        if self._data:
            del self._data[-1]
            # A line feed ends whatever sequence of UTF-8 is open, so the lines may be decoded together.
            events.append(ServerSentEvent(kind, self._data.decode(errors="replace"), self._id))
            self._data.clear()
