"""What the testee writes, as the kit reads it: bytes to messages and noise, and messages to bytes.

It owns frames (FRM-1 to FRM-3) and what superjson's annotations say of a line. It judges nothing: what a
message should be is the business of `patterns`, and what CBOR means is `cbor`'s. Nothing here is shared with
the implementation under test.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypeAlias

from kkrpc_py.conformance import cbor
from kkrpc_py.conformance.cbor import BadCbor, Words, words_of
from kkrpc_py.conformance.words import array_words

__all__ = ["TYPES", "Broken", "Item", "Message", "Noise", "Serialization", "Splitter", "cbor_frame", "padded"]

Serialization: TypeAlias = Literal["json", "superjson", "cbor"]

FRAME_BYTES: Final = 64 * 1024 * 1024
"""The longest line or frame that is read: the kit shall not be the one that runs out of memory."""
FIRST: Final = 1024
"""What is shown of what is not read."""
DIGITS: Final = 100_000
"""The longest integer that is read; Python takes a time for it that grows faster than it does."""
_BLANKS = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
TYPES = frozenset(
    "request response callback get set construct callback-release stream-chunk stream-end stream-error "
    "stream-cancel stream-ack".split()
)


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One message of the testee."""

    fields: dict[str, Any]
    """Values that JSON has not are `Words`, and so are bytes in whichever form."""
    data: bytes
    """The line without its line feed, or the whole CBOR frame."""
    serialization: Serialization
    line: dict[str, Any] | None = None
    """What the line says as JSON, before anything is made of it; None for CBOR."""

    @property
    def size(self) -> int:
        """As CRD-7 counts it."""
        return len(self.data) if self.serialization != "cbor" else len(self.data) - _head_size(self.data)

    @property
    def keys(self) -> list[str]:
        """The keys of the message itself, as they stand in the frame."""
        if self.line is None:
            return list(self.fields)
        return list(self.line["json"] if self.serialization == "superjson" else self.line)


@dataclasses.dataclass(frozen=True, slots=True)
class Noise:
    """A line that is no message (FRM-4)."""

    data: bytes
    fault: str = ""
    """Why nobody may write it; empty for what somebody else may have printed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Broken:
    """What nobody may write, and after which nothing is read: a frame that has no end, or that is none."""

    data: bytes
    fault: str


Item: TypeAlias = Message | Noise | Broken


class Splitter:
    """Divides what arrives into frames, however it was divided among the reads."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        """How much of the buffer is known to hold no line feed."""
        self._binary = False
        """Whether a CBOR frame has come."""
        self.is_broken = False

    def feed(self, data: bytes) -> Iterator[Item]:
        """What is complete with these bytes."""
        if self.is_broken:
            return
        self._buffer += data
        while not self.is_broken and (item := self._next()) is not None:
            if isinstance(item, Broken):
                self.is_broken = True
                self._buffer.clear()
            yield item

    def rest(self) -> bytes:
        """What arrived and belongs to no complete frame, up to `FIRST` bytes of it."""
        return bytes(self._buffer[:FIRST])

    def has_half(self) -> bool:
        """Whether a frame has begun that is not complete (FRM-9)."""
        rest = self.rest().lstrip(_BLANKS).removeprefix(_BOM)
        return rest.startswith((b"{", b"\xd8\x18"))

    def _next(self) -> Item | None:
        while True:
            if self._buffer.startswith(b"\xd8\x18"):
                return self._cbor()
            if self._buffer == b"\xd8":
                return None
            end = self._buffer.find(b"\n", self._searched)
            if end < 0:
                self._searched = len(self._buffer)
                if self._searched > FRAME_BYTES:
                    return Broken(self.rest(), f"a line of more than {FRAME_BYTES} bytes")
                return None
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._searched = 0
            if line.strip(_BLANKS):
                item = _line(line)
                if isinstance(item, Noise) and self._binary:
                    return Noise(line, "noise after a CBOR frame (FRM-5)")
                return item

    def _cbor(self) -> Item | None:
        found = _head(self._buffer)
        if found is None:
            return None
        start, size = found
        if size < 0:
            return Broken(self.rest(), "the head of a CBOR frame is no definite byte string")
        if size > FRAME_BYTES:
            return Broken(self.rest(), f"a CBOR frame of {size} bytes")
        if len(self._buffer) < start + size:
            return None
        data = bytes(self._buffer[: start + size])
        del self._buffer[: start + size]
        self._searched = 0
        self._binary = True
        try:
            fields = cbor.loads(data[start:])
        except BadCbor as error:
            return Broken(data, f"a CBOR frame with {error}")
        if not isinstance(fields, dict) or not _is_type(fields.get("type")):
            return Broken(data, "a CBOR frame that is no message of a known type")
        return Message(_with_bytes(fields), data, "cbor")


def _is_type(value: Any) -> bool:
    return isinstance(value, str) and value in TYPES


def _head(data: bytes | bytearray) -> tuple[int, int] | None:
    """Where the payload begins and its size, below zero if the head is none; None until it is there."""
    if len(data) < 3:
        return None
    major, info = data[2] >> 5, data[2] & 31
    if major != 2 or info > 27:
        return 3, -1
    if info < 24:
        return 3, info
    width = 1 << (info - 24)
    if len(data) < 3 + width:
        return None
    return 3 + width, int.from_bytes(data[3 : 3 + width])


def _head_size(data: bytes) -> int:
    found = _head(data)
    return 0 if found is None else found[0]


def _line(data: bytes) -> Item:
    text = data.strip(_BLANKS).removeprefix(_BOM)
    if not text.startswith(b"{"):
        return Noise(data)
    try:
        found = loads(text)
        if "json" in found and isinstance(found["json"], dict) and "type" not in found:
            # What is applied is a copy; `line` stays as it was written.
            message = _superjson(loads(text))
            serialization: Serialization = "superjson"
        else:
            # Most lines hold no bytes, and need no second look. An escape may hide the mark.
            marked = b"Uint8Array" in text or b"\\u" in text
            message, serialization = _with_bytes(found) if marked else found, "json"
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        return Noise(data, f"a line that begins with {{ and is no message: {error!r:.200}")
    if not _is_type(message.get("type")):
        return Noise(data, "a line that begins with { and has no type of a message")
    return Message(message, data, serialization, found)


def loads(text: bytes) -> Any:
    """JSON; `ValueError` for what is none. Integers of any length, lone surrogates as they are."""
    return json.loads(text.decode(), parse_constant=_refuse_constant, parse_int=_integer)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _integer(text: str) -> int:
    # Python reads no more than 4300 digits at once.
    if len(text) <= 4000:
        return int(text)
    if len(text) > DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    half = len(text) // 2
    sign = -1 if text.startswith("-") else 1
    return int(_integer(text[:half]) * 10 ** (len(text) - half)) + sign * _integer(text[half:])


def _with_bytes(value: Any) -> Any:
    """The value with bytes in words where JSON says them by VAL-4."""
    if isinstance(value, list):
        return [_with_bytes(item) for item in value]
    if not isinstance(value, dict):
        return value
    data = value.get("data")
    marked = len(value) == 2 and value.get("type") == "Uint8Array"
    if marked and isinstance(data, list) and all(type(item) is int and 0 <= item <= 255 for item in data):
        return Words({"bytes": bytes(data).hex()})
    return {key: _with_bytes(item) for key, item in value.items()}


# superjson ----------------------------------------------------------------------------------------

_TOKENS = re.compile(r"(\.)|\\([.\\])|([^.\\]+)|(\\)")
_LEGACY = re.compile(r"(\.)|\\(\.)|([^.\\]+)|(\\)")
_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf, "-0": -0.0}
_ARRAYS = {
    "Int8Array": "b",
    "Uint16Array": "H",
    "Int16Array": "h",
    "Uint32Array": "I",
    "Int32Array": "i",
    "Float32Array": "f",
    "Float64Array": "d",
}
# What JSON each type has in its place; a typed array has a list.
_CONTENT: dict[Any, type] = {
    "undefined": type(None),
    **dict.fromkeys(("bigint", "number", "Date", "regexp", "URL"), str),
    **dict.fromkeys(("map", "set"), list),
    "Error": dict,
}
_DATE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{3})Z", re.ASCII)
_UNDEFINED = Words({"undefined": True})


def _superjson(line: dict[str, Any]) -> dict[str, Any]:
    """The message of a line; `ValueError` if its annotations are none."""
    message, meta = line["json"], line.get("meta")
    if meta is not None:
        if not isinstance(meta, dict) or not isinstance(meta.get("values", {}), dict):
            raise ValueError("meta that is none")
        legacy = not isinstance(meta.get("v"), int) or meta["v"] < 1
        message = _annotated(message, meta.get("values", {}), legacy=legacy)
    found = {key: item for key, item in message.items() if item != _UNDEFINED and key != "transferSlots"}
    if found.get("callbackIds") == []:
        del found["callbackIds"]
    args = found.get("args")
    if isinstance(args, dict) and args.get("result") == _UNDEFINED:
        found["args"] = {key: item for key, item in args.items() if key != "result"}
    return found


def _annotated(base: Any, types: Mapping[str, Any], *, legacy: bool) -> Any:
    """The value with every place that a path names in words.

    The longest paths first, so that what is within a value is read before the value itself is.
    """
    paths = [(_path(path, legacy=legacy), found) for path, found in types.items()]
    for keys, found in sorted(paths, key=lambda entry: -len(entry[0])):
        node = base
        try:
            for key in keys[:-1]:
                node = node[_index(node, key)]
            last = _index(node, keys[-1])
            node[last] = _typed(node[last], found, legacy=legacy)
        except (LookupError, TypeError) as error:
            raise ValueError(f"no place for a type: {error}") from None
    return base


def _path(path: str, *, legacy: bool) -> list[str]:
    keys, part = [], ""
    for dot, escaped, plain, alone in (_LEGACY if legacy else _TOKENS).findall(path):
        if dot:
            keys.append(part)
            part = ""
        part += escaped or plain or alone
    return [*keys, part]


def _index(node: Any, key: str) -> Any:
    if isinstance(node, list):
        return int(key)
    if not isinstance(node, dict):
        raise ValueError("a path through what holds no values")
    return key


def _typed(value: Any, found: Any, *, legacy: bool) -> Any:
    if isinstance(found, dict):
        return _annotated(value, found, legacy=legacy)
    if not isinstance(found, list) or not 1 <= len(found) <= 2:
        raise ValueError("what is no type")
    kind = found[0]
    if len(found) == 2:
        if not isinstance(found[1], dict):
            raise ValueError("types within a value that stand under no path")
        value = _annotated(value, found[1], legacy=legacy)
    wanted = list if isinstance(kind, list) else _CONTENT.get(kind)
    if wanted is None or type(value) is not wanted:
        raise ValueError(f"what is no {kind!r:.80}")
    return _typed_value(kind, value)


def _typed_value(kind: Any, value: Any) -> Any:
    match kind:
        case "undefined":
            return _UNDEFINED
        case "bigint":
            return _integer(value)
        case "number":
            return _NUMBERS[value]
        case "Date":
            return Words({"datetime": _date_text(value)})
        case "regexp":
            return Words({"regexp": value})
        case "URL":
            return Words({"url": value})
        case "map":
            return Words({"map": [[words_of(key), words_of(item)] for key, item in value]})
        case "set":
            return Words({"set": [words_of(item) for item in value]})
        case "Error":
            return Words({"error": {name: value.get(name) for name in ("name", "message")}})
        case ["typed-array", "Uint8Array" | "Buffer" | "Uint8ClampedArray"]:
            return Words({"bytes": bytes(value).hex()})
        case ["typed-array", name]:
            code = _ARRAYS[name]
            items = list(map(float if code in "fd" else int, value))
            return Words(array_words(code, struct.calcsize(f"<{code}"), [len(items)], items))
    raise ValueError(f"the type {kind!r}")


def _date_text(text: str) -> str:
    found = _DATE.fullmatch(text)
    if found is None:
        raise ValueError("a Date as toISOString gives it was expected")
    datetime.datetime.fromisoformat(found[1])
    fraction = found[2].rstrip("0")
    return f"{found[1]}{'.' if fraction else ''}{fraction}+00:00"


# Writing ------------------------------------------------------------------------------------------


def cbor_frame(payload: bytes) -> bytes:
    """The payload with the head of FRM-3."""
    size = len(payload)
    if size < 24:
        head = bytes([0x40 | size])
    else:
        info, width = next((info, width) for info, width in _WIDTHS if size < 1 << (8 * width))
        head = bytes([0x40 | info]) + size.to_bytes(width)
    return b"\xd8\x18" + head + payload


_WIDTHS = ((24, 1), (25, 2), (26, 4), (27, 8))


def padded(line: bytes, length: int) -> bytes:
    """The JSON object with blanks before its last brace, that many bytes long."""
    if len(line) > length:
        raise ValueError(f"the line has {len(line)} bytes, more than {length}")
    return line[:-1] + b" " * (length - len(line)) + line[-1:]
