"""Where the frames of a byte stream end, without a look into them (spec, section 1).

It owns what may be passed on of the bytes that have come: whole frames at any time, noise at once, the
beginning of a frame never. `wire.framing` knows the same rules; it takes frames apart besides.

The state is what the last byte seen is in:

==========  =====================================================================================
START       no frame, or blanks before one
LINE        a JSON line: held until its line feed
PAYLOAD     a CBOR frame of known length: held until its last byte
HEAD        what may become the head of a CBOR frame, or a byte order mark: held until that is known
NOISE       a line of noise: passed on as it comes
==========  =====================================================================================
"""

from __future__ import annotations

import enum
from typing import Final

from kkrpc_py.errors import KkrpcError, LimitExceeded, ProtocolError

__all__ = ["Cutter"]

_PIECE: Final = 16 * 1024
"""Smaller pieces of a frame that is held are put together: it takes about as much memory as it has bytes."""
_TAIL: Final = 32
"""A smaller last piece goes with the one before: a stock reader drops a read of blanks alone (FRM-10)."""
_BRACE: Final = 0x7B
_TAG: Final = b"\xd8\x18"
_BOM: Final = b"\xef\xbb\xbf"
_BLANKS: Final = frozenset(b" \t\r\n")
_SHORT_HEAD: Final = 3
_SHORT: Final = 0xFFFF
# How many bytes of length follow the byte string's first byte; below 0x58 that byte says it all.
_LENGTH_BYTES: Final = {0x58: 1, 0x59: 2, 0x5A: 4, 0x5B: 8}


class _State(enum.Enum):
    START = enum.auto()
    LINE = enum.auto()
    PAYLOAD = enum.auto()
    HEAD = enum.auto()
    NOISE = enum.auto()


class Cutter:
    """Bytes in, whole frames out, as they were. The work is linear in the bytes, however they are split."""

    def __init__(self, limit: int) -> None:
        """`limit` bounds a frame, and so what is held (FRM-6)."""
        self.error: KkrpcError | None = None
        """Why the direction cannot be read on: a frame over the limit, or that is none (FRM-3)."""
        self._limit = limit
        self._state = _State.START
        self._pieces: list[bytes] = []
        self._last = bytearray()
        """The pieces of the frame that is held, and the smaller ones behind them."""
        self._size = 0
        """LINE: the bytes of the line so far."""
        self._missing = 0
        """PAYLOAD: the bytes that have not come."""

    @property
    def between_frames(self) -> bool:
        """All that was passed on ends at the end of a frame."""
        return self._state is not _State.NOISE

    @property
    def held(self) -> int:
        """Bytes of a frame that has begun."""
        return sum(map(len, self._pieces)) + len(self._last)

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return, in pieces, those that can be passed on, all frames whole.

        Where `error` is set afterwards, they are the last.
        """
        at = 0
        match self._state:
            case _State.HEAD:
                data = bytes(self._last) + data
                self._last.clear()
            case _State.PAYLOAD:
                if len(data) < self._missing:
                    self._missing -= len(data)
                    self._hold(data)
                    return []
                at = self._missing
            case _State.LINE:
                end = data.find(b"\n")
                self._size += end if end >= 0 else len(data)
                if self._size > self._limit:
                    self._exceeded("a line", self._size)
                    return []
                if end < 0:
                    self._hold(data)
                    return []
                at = end + 1
            case _State.NOISE:
                at = data.find(b"\n") + 1
                if not at:
                    return [data]
            case _:
                pass
        at = self._walk(data, at)
        if at == len(data):
            return self._released(data)
        ready = self._released(data[:at]) if at else []
        if self.error is None:
            self._hold(data[at:])
        return ready

    def finish(self) -> int:
        """The byte stream is at its end: how many bytes of an unfinished frame are dropped."""
        dropped = self.held
        self._pieces.clear()
        self._last.clear()
        return dropped

    def _walk(self, data: bytes, at: int) -> int:
        """From the beginning of a frame at `at` to the last point up to which `data` can be passed on."""
        size = len(data)
        self._state = _State.START
        # No control character stands in JSON, and no head without this one: these are lines alone.
        if size - at <= self._limit and data.find(b"\x18", at) < 0:
            at = data.rfind(b"\n", at) + 1 or at
        while at < size:
            first = data[at]
            if first == _BRACE:
                end = data.find(b"\n", at)
                self._size = (end if end >= 0 else size) - at
                if self._size > self._limit:
                    self._exceeded("a line", self._size)
                    return at
                if end < 0:
                    self._state = _State.LINE
                    return at
                at = end + 1
            elif first == _TAG[0] and data.startswith(_TAG[: size - at], at):
                at = self._skip_small(data, at)
                end = self._payload_end(data, at)
                if end > size:
                    self._state = _State.PAYLOAD
                    self._missing = end - size
                if end < 0 or end > size:
                    return at
                at = end
            elif first in _BLANKS:
                at += 1
            elif first == _BOM[0] and data.startswith(_BOM[: size - at], at):
                if size - at < len(_BOM):
                    self._state = _State.HEAD
                    return at
                at += len(_BOM)
            else:
                at = data.find(b"\n", at) + 1
                if not at:
                    self._state = _State.NOISE
                    return size
        return at

    def _skip_small(self, data: bytes, at: int) -> int:
        """The beginning of the last of the short CBOR frames that follow one another from `at` on.

        Nothing that the loop in `_walk` does not do as well, in half its time.
        """
        last = len(data) - _SHORT_HEAD
        if self._limit < _SHORT:
            return at
        while True:
            following = at
            kind = data[at + 2] if at < last else 0
            if 0x40 <= kind < 0x58:
                following += kind - 0x3D
            elif kind == 0x58:
                following += 4 + data[at + 3]
            elif kind == 0x59 and at + 1 < last:
                following += 5 + (data[at + 3] << 8) + data[at + 4]
            else:
                return at
            if following >= last or data[following] != 0xD8 or data[following + 1] != 0x18:
                return at
            at = following

    def _payload_end(self, data: bytes, at: int) -> int:
        """Where the CBOR frame at `at` ends, maybe behind `data`; -1: not known yet, or there is none."""
        start = at + _SHORT_HEAD
        if len(data) < start:
            self._state = _State.HEAD
            return -1
        first = data[at + 2]
        width = _LENGTH_BYTES.get(first, 0)
        if not width and not 0x40 <= first < 0x58:
            self.error = ProtocolError("a CBOR frame that is no byte string of definite length")
            return -1
        if len(data) < start + width:
            self._state = _State.HEAD
            return -1
        start += width
        length = int.from_bytes(data[start - width : start], "big") if width else first - 0x40
        if length > self._limit:
            self._exceeded("a CBOR frame", length)
            return -1
        return start + length

    def _exceeded(self, what: str, size: int) -> None:
        self.error = LimitExceeded(f"{what} of {size} bytes or more; Limits.frame is {self._limit}")

    def _hold(self, data: bytes) -> None:
        last = self._last
        if len(data) < _PIECE:
            last += data
            if len(last) < _PIECE:
                return
            data = b""
        if last:
            self._pieces.append(bytes(last))
            last.clear()
        if data:
            self._pieces.append(data)

    def _released(self, data: bytes) -> list[bytes]:
        """What was held, and `data`, which ends it. The last piece holds more than the end of a line."""
        last = self._last
        if not self._pieces and not last:
            return [data]
        pieces, self._pieces = self._pieces, []
        if len(data) < _PIECE:
            data = bytes(last) + data
        elif last:
            pieces.append(bytes(last))
        last.clear()
        if len(data) < _TAIL and pieces:
            data = pieces.pop() + data
        pieces.append(data)
        return pieces
