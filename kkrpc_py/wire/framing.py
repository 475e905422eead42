"""Splits a byte stream into frames, however its bytes arrive (spec, section 1).

It owns where a frame begins and ends, the bounds on its size, and what is noise. It does not own
what is in a frame: JSON and CBOR are not parsed here.

The state is what the bytes seen since the last frame are:

==========  =====================================================================================
START       none yet, or blanks: the next byte tells what comes
LINE        a JSON line, its end not seen
NOISE       a line of noise, its end not seen; beyond the bound its bytes are dropped
HEAD        the first bytes of a CBOR frame, its length not known
PAYLOAD     a CBOR frame of known length
OVER        the stream cannot be read on; everything more is ignored
==========  =====================================================================================
"""

from __future__ import annotations

import enum
import re
from typing import Final, Literal, TypeAlias

from kkrpc_py.errors import LimitExceeded, ProtocolError
from kkrpc_py.limits import Limits
from kkrpc_py.wire.messages import Broken, Noise

__all__ = ["LARGE", "Frame", "Framer", "Kind", "Pieces", "byte_string_head", "cbor_frame", "frame_size"]

LARGE: Final = 4096
"""A CBOR payload of more bytes than this is handed on in pieces, uncopied."""


class Kind(enum.Enum):
    """What a frame holds."""

    JSON = enum.auto()
    """A line from its `{` on, without the line feed."""
    CBOR = enum.auto()
    """A payload, without the frame's head."""
    OTHER = enum.auto()
    """No message."""


Pieces: TypeAlias = list[memoryview]
Frame: TypeAlias = (
    tuple[Literal[Kind.JSON], bytes, int]
    | tuple[Literal[Kind.CBOR], bytes | Pieces, int]
    | tuple[Literal[Kind.OTHER], Noise | Broken, int]
)
"""Kind, content, and size in bytes: the whole line without its line feed, or the CBOR payload.

A payload of more than `LARGE` bytes comes as a list of the pieces in which it arrived."""

# Smaller pieces are put together.
_PIECE = 1024
# A piece that has to wait for the rest keeps the whole read alive: no more than so many times its own size.
_KEPT = 4
_BRACE = 0x7B
_TAG = b"\xd8\x18"
# Tag 24, and the byte string's first byte.
_SHORT_HEAD = 3
_LONGEST_HEAD = 11
_BLANKS = b" \t\r"
_BLANKS_AND_BOM = _BLANKS + b"\xef\xbb\xbf"
_PREFIX = re.compile(rb"[ \t\r]*(?:\xef\xbb\xbf)?[ \t\r]*\{")
# How many bytes of length follow the byte string's first byte; below 0x58 that byte says it all.
_LENGTH_BYTES = {0x58: 1, 0x59: 2, 0x5A: 4, 0x5B: 8}


class _State(enum.Enum):
    START = enum.auto()
    LINE = enum.auto()
    NOISE = enum.auto()
    HEAD = enum.auto()
    PAYLOAD = enum.auto()
    OVER = enum.auto()


# On the way of every small message: a member of an enum is not looked up there.
_START: Final = _State.START
_JSON: Final = Kind.JSON


class Framer:
    """Bytes in, frames out. The work is linear in the bytes, however they are split."""

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.frame
        self._noise_limit = limits.noise
        # Blanks before a `{` are part of its line, so neither bound may be passed by them.
        self._blank_limit = min(limits.frame, limits.noise)
        self._state = _State.START
        self._buffer = bytearray()
        self._pieces: Pieces = []
        """PAYLOAD: what has come of a large one. A piece below `_PIECE` bytes has none of its size beside it:
        however it is split, a payload takes about as much memory as it has bytes."""
        self._length = 0
        """LINE, NOISE: the bytes of the line so far. PAYLOAD: the bytes of the whole payload."""
        self._missing = 0
        """PAYLOAD: the bytes that have not come."""
        self.binary = False
        """A CBOR frame has come: noise is no longer tolerated (FRM-5)."""

    def receive(self, data: bytes) -> list[Frame]:
        """Take the next bytes, any number; return the frames that they complete, in order."""
        frames: list[Frame] = []
        at, size = 0, len(data)
        while at < size:
            state = self._state
            if state is _START and data[at] == _BRACE and not self._buffer:
                end = data.find(b"\n", at)
                if end < 0:
                    at = self._begin(_State.LINE, data, at, frames)
                elif end - at > self._limit:
                    self._exceeded(frames, "a line", end - at)
                else:
                    frames.append((_JSON, data[at:end], end - at))
                    at = end + 1
                continue
            match state:
                case _State.START:
                    at = self._start(data, at, frames)
                case _State.LINE:
                    at = self._line(data, at, frames)
                case _State.NOISE:
                    at = self._noise(data, at, frames)
                case _State.HEAD:
                    at = self._head(data, at, frames)
                case _State.PAYLOAD:
                    at = self._payload(data, at, frames)
                case _:
                    break
        return frames

    def receive_eof(self) -> list[Frame]:
        """The byte stream is at its end; return what that makes of the bytes so far."""
        frames: list[Frame] = []
        match self._state:
            case _State.HEAD if len(self._buffer) == 1:
                self._begin(_State.NOISE, b"", 0, frames)
            case _State.START if self._buffer.strip(_BLANKS):
                # The first bytes of what could have become a byte order mark.
                self._begin(_State.NOISE, b"", 0, frames)
            case _State.LINE | _State.HEAD | _State.PAYLOAD:
                self._broken(frames, ProtocolError("the byte stream ended inside a frame"))
            case _:
                pass
        if self._state is _State.NOISE:
            self._emit_noise(frames)
        self.stop()
        return frames

    def stop(self) -> None:
        """Ignore everything from now on: what a frame held made the stream unreadable."""
        self._state = _State.OVER
        self._buffer.clear()
        self._pieces = []

    def _begin(self, state: _State, data: bytes, at: int, frames: list[Frame]) -> int:
        """Enter LINE or NOISE with what START has buffered; consumes nothing itself."""
        self._state = state
        self._length = len(self._buffer)
        if state is _State.NOISE and self.binary:
            self._broken(frames, ProtocolError("noise in a direction that carries CBOR frames"))
        return at

    def _start(self, data: bytes, at: int, frames: list[Frame]) -> int:
        """Blanks, a CBOR frame, noise, or a `{` after blanks."""
        buffer = self._buffer
        if data[at] == _TAG[0] and not buffer:
            width = _LENGTH_BYTES.get(data[at + 2]) if at + _LONGEST_HEAD <= len(data) else None
            if width is not None and data[at + 1] == _TAG[1]:
                at += _SHORT_HEAD + width
                return self._begin_payload(int.from_bytes(data[at - width : at], "big"), data, at, frames)
            self._state = _State.HEAD
            return self._head(data, at, frames)
        end = data.find(b"\n", at)
        stop = end if end >= 0 else len(data)
        rest = data[at:stop].lstrip(_BLANKS_AND_BOM)
        if rest:
            blanks = len(buffer) + stop - at - len(rest)
            starts = rest[0] == _BRACE and blanks <= self._blank_limit
            return self._begin(_State.LINE if starts else _State.NOISE, data, at, frames)
        buffer += data[at:stop]
        if len(buffer) > self._blank_limit:
            return self._begin(_State.NOISE, data, stop, frames)
        if end >= 0:
            blank = not buffer.strip(_BLANKS)
            if not blank:
                return self._begin(_State.NOISE, data, stop, frames)
            buffer.clear()
            return end + 1
        return stop

    def _line(self, data: bytes, at: int, frames: list[Frame]) -> int:
        end = data.find(b"\n", at)
        stop = end if end >= 0 else len(data)
        self._length += stop - at
        if self._length > self._limit:
            self._exceeded(frames, "a line", self._length)
            return stop
        self._buffer += data[at:stop]
        if end < 0:
            return stop
        line, size = bytes(self._buffer), self._length
        if line[0] != _BRACE:
            prefix = _PREFIX.match(line)
            if prefix is None:
                # A byte order mark in pieces or twice: not what any writer of JSON sends.
                self._begin(_State.NOISE, data, at, frames)
                return end
            line = line[prefix.end() - 1 :]
        self._reset()
        frames.append((Kind.JSON, line, size))
        return end + 1

    def _noise(self, data: bytes, at: int, frames: list[Frame]) -> int:
        end = data.find(b"\n", at)
        stop = end if end >= 0 else len(data)
        room = self._noise_limit - len(self._buffer)
        if room > 0:
            self._buffer += data[at : min(stop, at + room)]
        self._length += stop - at
        if end < 0:
            return stop
        self._emit_noise(frames)
        return end + 1

    def _emit_noise(self, frames: list[Frame]) -> None:
        reason = "not a message"
        if self._length > self._noise_limit:
            reason += f"; cut at {self._noise_limit} of {self._length} bytes"
        noise = Noise(bytes(self._buffer[: self._noise_limit]), reason)
        frames.append((Kind.OTHER, noise, self._length))
        self._reset()

    def _head(self, data: bytes, at: int, frames: list[Frame]) -> int:
        """Tag 24 and the byte string's head: eleven bytes at most."""
        buffer = self._buffer
        while len(buffer) < (wanted := _head_size(buffer)):
            more = data[at : at + wanted - len(buffer)]
            if not more:
                return at
            at += len(more)
            buffer += more
            if len(buffer) > 1 and buffer[1] != _TAG[1]:
                # Text that begins with that byte, in no encoding that we know.
                at -= len(buffer) - 1
                del buffer[1:]
                return self._begin(_State.NOISE, data, at, frames)
        first = buffer[2]
        if wanted == _SHORT_HEAD and not 0x40 <= first < 0x58:
            self._broken(frames, ProtocolError("a CBOR frame that is no byte string of definite length"))
            return at
        length = first - 0x40 if wanted == _SHORT_HEAD else int.from_bytes(buffer[_SHORT_HEAD:], "big")
        buffer.clear()
        return self._begin_payload(length, data, at, frames)

    def _begin_payload(self, length: int, data: bytes, at: int, frames: list[Frame]) -> int:
        self.binary = True
        if length > self._limit:
            self._exceeded(frames, "a CBOR frame", length)
            return at
        self._length = self._missing = length
        self._state = _State.PAYLOAD
        # An empty payload is complete without another byte.
        return self._payload(data, at, frames)

    def _payload(self, data: bytes, at: int, frames: list[Frame]) -> int:
        stop = min(at + self._missing, len(data))
        self._missing -= stop - at
        if self._length <= LARGE:
            if self._missing or self._buffer:
                self._buffer += data[at:stop]
            if not self._missing:
                frames.append((Kind.CBOR, bytes(self._buffer) or data[at:stop], self._length))
                self._reset()
            return stop
        if stop > at:
            piece = memoryview(data)[at:stop]
            if self._missing and len(piece) * _KEPT < len(data):
                piece = memoryview(bytes(piece))
            self._add_piece(piece)
        if not self._missing:
            frames.append((Kind.CBOR, self._pieces, self._length))
            self._pieces = []
            self._reset()
        return stop

    def _add_piece(self, piece: memoryview) -> None:
        pieces = self._pieces
        if pieces and len(piece) < _PIECE and len(pieces[-1]) < _PIECE:
            piece = memoryview(b"".join((pieces.pop(), piece)))
        pieces.append(piece)

    def _reset(self) -> None:
        self._state = _State.START
        self._buffer.clear()
        self._length = 0

    def _exceeded(self, frames: list[Frame], what: str, size: int) -> None:
        self._broken(frames, LimitExceeded(f"{what} of {size} bytes or more; Limits.frame is {self._limit}"))

    def _broken(self, frames: list[Frame], error: Exception) -> None:
        frames.append((Kind.OTHER, Broken(error), 0))
        self.stop()


def _head_size(head: bytearray) -> int:
    """The bytes of a CBOR frame's head, as far as its first bytes tell."""
    return _SHORT_HEAD if len(head) < _SHORT_HEAD else _SHORT_HEAD + _LENGTH_BYTES.get(head[2], 0)


def cbor_frame(*payload: bytes) -> bytes:
    """The frame around a CBOR payload, whole or in pieces: tag 24, byte string head, payload (FRM-3)."""
    return b"".join((_TAG, byte_string_head(sum(map(len, payload))), *payload))


def byte_string_head(size: int) -> bytes:
    """What CBOR writes before a byte string of `size` bytes."""
    if size < 24:
        return bytes((0x40 + size,))
    if size < 1 << 8:
        return b"\x58%c" % size
    if size < 1 << 16:
        return b"\x59" + size.to_bytes(2, "big")
    if size < 1 << 32:
        return b"\x5a" + size.to_bytes(4, "big")
    return b"\x5b" + size.to_bytes(8, "big")


def frame_size(frame: bytes) -> int:
    """The size of one whole frame, as its reader counts it (CRD-3).

    That is the line without its line feed, or the CBOR payload.
    """
    if frame[0] == _BRACE:
        return len(frame) - 1
    return len(frame) - 3 - _LENGTH_BYTES.get(frame[2], 0)
