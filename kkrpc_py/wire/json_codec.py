"""JSON text to Python values and back, exactly (VAL-2 to VAL-4, FRM-8).

It owns what JSON can carry, kkrpc's form of bytes within JSON, and the bounds on what a peer's
JSON may hold. It does not own messages (`classic`) or frames (`framing`).

msgspec does the work; where it cannot (it refuses the unpaired surrogates that JavaScript sends,
and has no ASCII-only output) the standard library does.
"""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from json.encoder import encode_basestring_ascii
from typing import Any

import msgspec

from kkrpc_py.errors import NotSerializable
from kkrpc_py.limits import Limits
from kkrpc_py.wire.values import Check, Rules, digits_bound, plain_bytes

__all__ = ["BYTES_TYPES", "JsonError", "JsonLimitError", "JsonReader", "JsonWriter", "Skeleton"]

_JS_MAX = 2**53 - 1
# The message, its args, and the mapping in them: what every value is nested in already.
_ENVELOPE_DEPTH = 2
# kkrpc's form of bytes is a list in a mapping.
_BYTES_DEPTH = 2
BYTES_TYPES: frozenset[type] = frozenset((bytes, bytearray, memoryview))
_BYTES_MARK = "Uint8Array"
_BYTES_MARK_ASCII = b"Uint8Array"
# One character is found several times faster than a word, and is most often not there.
_BYTES_MARK_FIRST = _BYTES_MARK_ASCII[0]
# A letter or digit written as an escape, as no writer does that means no harm: the mark may be so written.
_ESCAPED_LETTER = re.compile(rb"\\u00(?:[46][1-9a-fA-F]|[57][0-9aA]|38)")
# Any digit to "0", any other byte to a blank.
_DIGITS_ONLY = bytes(0x30 if byte in b"0123456789" else 0x20 for byte in range(256))
_LONG_NUMBER_SAMPLES = 20
# Two characters to Python, which JSON's escapes turn into one.
_UNJOINED_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_encode = msgspec.json.Encoder().encode
_NOT_ASCII = re.compile("[^\x00-\x7f]+")


class JsonError(ValueError):
    """The text is not JSON as RFC 8259 has it, or holds a number that no float can express."""


class JsonLimitError(JsonError):
    """The text is nested deeper than `Limits.depth`, or holds an integer over `Limits.digits`."""


def _pairs_up(text: str) -> str | None:
    return "its unpaired surrogates would arrive as pairs" if _UNJOINED_PAIR.search(text) else None


def _is_bytes_form(value: dict[Any, Any]) -> bool:
    return value.get("type") == _BYTES_MARK and isinstance(value.get("data"), (list, tuple))


def _refuse_bytes_form(value: dict[Any, Any]) -> str | None:
    return "in JSON its reader would take it for bytes" if _is_bytes_form(value) else None


class JsonWriter:
    """Checks values and writes messages for one kind of reader.

    `stock`: the reader may be kkrpc itself. It gets ASCII alone, since kkrpc corrupts a character
    that is split between two reads, and integers up to 2**53 - 1, since JavaScript changes others.
    `with_bytes`: bytes are put into kkrpc's form, not refused.
    """

    def __init__(self, limits: Limits, *, stock: bool, with_bytes: bool) -> None:
        self._stock = stock
        self._digits = limits.digits
        self._depth = limits.depth - _ENVELOPE_DEPTH
        most = digits_bound(limits.digits)
        leaves: dict[type, Check | None] = {type(None): None, bool: None, int: None, float: None}
        leaves[str] = _pairs_up
        if with_bytes:
            leaves |= {bytes: None, bytearray: None, memoryview: plain_bytes}
        self._rules = Rules(
            leaves=leaves,
            containers=(dict, list, tuple),
            keys="text",
            max_int=min(_JS_MAX, most) if stock else most,
            late_ints=not stock,
            depth=self._depth,
            items=limits.frame // 2 + 1,  # a value with its comma takes two bytes at least
            finite=True,
            refuse_dict=_refuse_bytes_form,
        )
        # What needs no look at all by itself.
        self._sure = self._rules.sure - BYTES_TYPES

    def fit(self, value: Any, root: str) -> Any:
        """`value`, with kkrpc's form for bytes, if JSON carries it exactly; else raise `NotSerializable`.

        Mappings that look like kkrpc's bytes, and integers that are too long, pass: once the message
        is written, `needs_second_look` tells of them at less cost.
        """
        kind = type(value)
        if kind in self._sure or (kind is list and self._sure.issuperset(map(type, value))):
            return value
        found = self._rules.accepts(value)
        if found is None or not found.isdisjoint(BYTES_TYPES):
            # Bytes too: once they have that form, they could not be told from what only looks like it.
            return self.fit_checked(value, root)
        return value

    def fit_checked(self, value: Any, root: str) -> Any:
        """As `fit`, with nothing left for later."""
        self._rules.demand(value, root)
        return _with_bytes_form(value, root, self._depth)

    def dumps(self, mapping: Any) -> bytes:
        """The text of a message whose values were fitted, or of one such value, without line feed.

        `UnicodeEncodeError` if there are unpaired surrogates in it: then `dumps_unpaired` is to be
        used, on values that `fit_checked` has fitted.
        """
        text = _encode(mapping)
        if self._stock and not text.isascii():
            # Only strings hold such characters, and there they may be escaped.
            text = _NOT_ASCII.sub(_escape, text.decode()).encode()
        return text

    def dumps_unpaired(self, mapping: Any) -> bytes:
        """As `dumps`, for text that is no Unicode; JavaScript allows it, and escapes express it."""
        return json.dumps(mapping, separators=(",", ":"), allow_nan=False, check_circular=False).encode()

    def needs_second_look(self, text: bytes) -> bool:
        """Whether a message could hold what `fit` let pass: then `fit_checked` decides."""
        if _BYTES_MARK_FIRST in text and _BYTES_MARK_ASCII in text:
            return True
        return len(text) > self._digits and not self._stock and _may_hold_long_number(text, self._digits)


def _may_hold_long_number(text: bytes, digits: int) -> bool:
    """Whether a run of more digits could be in the text, which is longer than that.

    A sample tells: such a run covers so many of its bytes, one after the other.
    """
    step = max(1, digits // _LONG_NUMBER_SAMPLES)
    return b"0" * ((digits + 1) // step) in text[::step].translate(_DIGITS_ONLY)


def _escape(run: re.Match[str]) -> str:
    return encode_basestring_ascii(run[0])[1:-1]


def _with_bytes_form(value: Any, root: str, depth: int) -> Any:
    kind = type(value)
    if kind in BYTES_TYPES:
        if depth < _BYTES_DEPTH:
            raise NotSerializable(kind.__name__, root, "as kkrpc's form of bytes it is nested too deep")
        return {"type": _BYTES_MARK, "data": list(value.tobytes() if kind is memoryview else value)}
    if kind is dict:
        return {key: _with_bytes_form(item, root, depth - 1) for key, item in value.items()}
    if kind is list or kind is tuple:
        return [_with_bytes_form(item, root, depth - 1) for item in value]
    return value


# Everything but brackets, braces, quotes and backslashes.
_NO_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"\\'))
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_STRIPPED_STRING = re.compile(rb'"[^"]*"')
_STEP = [1 if byte in b"[{" else -1 if byte in b"]}" else 0 for byte in range(256)]


class JsonReader:
    """Parses a peer's JSON within bounds.

    With `form`, a struct whose fields may be anything and which forbids others, a text whose keys are
    all among its fields becomes such a struct.
    """

    def __init__(self, limits: Limits, form: type[msgspec.Struct] | None = None) -> None:
        self._depth = limits.depth
        self._digits = limits.digits
        # Neither the digits before a point or an exponent, nor those after.
        self._long_integer = re.compile(rb"(?<![0-9.eE+-])-?[0-9]{%d,}(?![0-9.eE])" % (limits.digits + 1))
        self._any = msgspec.json.Decoder()
        self._form = self._any if form is None else msgspec.json.Decoder(form)
        self._skeletons = msgspec.json.Decoder(Skeleton)

    def loads(self, text: bytes) -> Any:
        """The value of a JSON text, bytes in kkrpc's form made bytes.

        `JsonError` says that it is no JSON, `JsonLimitError` that it passes a bound.
        """
        # A text needs more bytes than that to be nested deeper, or to hold an integer of more digits.
        if len(text) > self._depth and _deeper_than(self._depth, text):
            raise JsonLimitError(f"nested deeper than Limits.depth ({self._depth})")
        if len(text) > self._digits and _may_hold_long_number(text, self._digits):
            self._refuse_long_number(text)
        marked = _BYTES_MARK_FIRST in text and _BYTES_MARK_ASCII in text
        if not marked and b"\\" in text:
            marked = _ESCAPED_LETTER.search(text) is not None
        if not marked:
            try:
                return self._form.decode(text)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                # For other keys, or for what is to be said of it below.
                pass
        try:
            value = self._any.decode(text)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            value = _loads_unpaired(text, error)
        return _without_bytes_form(value, b"true" in text or b"false" in text) if marked else value

    def salvage(self, text: bytes) -> tuple[Any, Any, Any, Any]:
        """`id`, `type`, `callbackIds` and `streamIds` of a message that `loads` refused for its bounds.

        None where unknown.
        """
        try:
            skeleton = self._skeletons.decode(text)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None, None, None, None
        return skeleton.any_id(), skeleton.type, *skeleton.named()

    def _refuse_long_number(self, text: bytes) -> None:
        run = b"0" * (self._digits + 1)
        if run in text.translate(_DIGITS_ONLY) and self._long_integer.search(_STRING.sub(b'""', text)):
            raise JsonLimitError(f"an integer of more than Limits.digits ({self._digits}) digits")


class Skeleton(msgspec.Struct):
    """What concerns others of a message that cannot be read."""

    id: msgspec.Raw = msgspec.Raw()
    type: str | None = None
    callbackIds: msgspec.Raw = msgspec.Raw()  # noqa: N815 - the key on the wire
    streamIds: msgspec.Raw = msgspec.Raw()  # noqa: N815 - the key on the wire

    def any_id(self) -> Any:
        """Its id, whatever that is; None where there is none."""
        try:
            return _decode_any(self.id) if self.id else None
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None

    def named(self) -> tuple[list[str], list[str]]:
        """What it names, as far as that is lists of text."""
        return _texts(self.callbackIds), _texts(self.streamIds)


_decode_any = msgspec.json.Decoder().decode
_decode_texts = msgspec.json.Decoder(list[str]).decode


def _texts(raw: msgspec.Raw) -> list[str]:
    try:
        return _decode_texts(raw) if raw else []
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []


def _deeper_than(limit: int, text: bytes) -> bool:
    """Whether lists and mappings are nested deeper than that; linear, for text that is no JSON too."""
    # Most texts have too few openers at all. Replacing up to a number of them is the fastest way to
    # count so far: unlike bytes.count it skips to the next one, and stops.
    size, most = len(text), limit + 1
    if 2 * size - len(text.replace(b"[", b"", most)) - len(text.replace(b"{", b"", most)) <= limit:
        return False
    if b"\\" in text:
        text = _STRING.sub(b"", text)
    shape = text.translate(None, _NO_STRUCTURE)
    if b'"' in shape:
        # Two quotes side by side may go: they change nothing about what is within a string.
        shape = _STRIPPED_STRING.sub(b"", shape.replace(b'""', b""))
    # A list of small mappings, the common case, is taken down to its outline in C. That is at
    # most two levels lower.
    outline = shape.replace(b"{}", b"").replace(b"[]", b"")
    return _depth(outline) > limit - 2 and _depth(shape) > limit


def _depth(shape: bytes) -> int:
    return max(accumulate(map(_STEP.__getitem__, shape)), default=0)


def _loads_unpaired(text: bytes, error: Exception) -> Any:
    """What msgspec refused, if unpaired surrogates were the reason."""
    if b"\\u" not in text:
        raise JsonError(str(error)) from None
    try:
        return json.loads(text.decode(), parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as again:
        raise JsonError(str(again)) from None


def _no_constant(name: str) -> Any:
    raise JsonError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise JsonError("number out of range")
    return number


_CONTAINER_TYPES = frozenset((list, dict))


def _without_bytes_form(value: Any, booleans: bool) -> Any:
    """`value` with bytes for kkrpc's form of them; `booleans`: there are some in the text."""
    if type(value) is dict:
        if len(value) == 2 and _is_bytes_form(value):
            data = value["data"]
            # Booleans would pass for numbers, and a look at each item costs more than all else.
            if not booleans:
                try:
                    return bytes(data)
                except (TypeError, ValueError):
                    pass
            if set(map(type, data)) <= {int, float}:
                # As JavaScript fills a Uint8Array.
                return bytes(int(item) % 256 for item in data)
        for key, item in value.items():
            if type(item) in _CONTAINER_TYPES:
                value[key] = _without_bytes_form(item, booleans)
    elif type(value) is list and not _CONTAINER_TYPES.isdisjoint(map(type, value)):
        value[:] = [_without_bytes_form(item, booleans) for item in value]
    return value
