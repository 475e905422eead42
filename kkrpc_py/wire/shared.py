"""`Shared`: a value that goes to many peers, written once for each codec.

It owns the value's forms, and the frame of a chunk that is spliced from them: byte for byte what the encoder
would write, but that text which is no Unicode makes it escape the text of a whole batch. What no form fits
(what superjson has types for, a peer for whom the value has to be refused) goes the ordinary way.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from kkrpc_py.errors import LimitExceeded, NotSerializable
from kkrpc_py.limits import Limits
from kkrpc_py.wire.arrays import Tensor
from kkrpc_py.wire.json_codec import JsonReader, JsonWriter
from kkrpc_py.wire.lowering import EncodeHook, Lowering

if TYPE_CHECKING:
    from kkrpc_py.wire.cbor_codec import CborReader, CborWriter
    from kkrpc_py.wire.superjson_writer import SuperjsonWriter

__all__ = [
    "CBOR",
    "JSON",
    "STOCK",
    "STOCK_BYTES",
    "STOCK_SUPERJSON",
    "SUPERJSON",
    "WITH_BYTES",
    "Shared",
    "SharedWriter",
    "all_within",
    "cbor_chunks",
    "json_chunks",
    "superjson_chunks",
]

JSON, STOCK, WITH_BYTES, STOCK_BYTES, CBOR, SUPERJSON, STOCK_SUPERJSON = range(7)
"""The forms: JSON for a peer of our own and for a stock one, both with kkrpc's form of bytes, CBOR, and the
JSON that superjson has no types for."""

_WITHIN = 2
"""A batch is a list, and a chunk with its number another: the value lies deeper than in most messages."""
_ENVELOPE = 128
"""Bytes of a stream-chunk beside its value, about."""
# JavaScript changes integers from 2**53 on: 16 digits.
_LONG_DIGITS = re.compile(rb"[0-9]{16}")


class Shared:
    """A snapshot of a value: what happens to the value later changes nothing."""

    __slots__ = ("_within", "forms", "size", "writer")

    def __init__(self, writer: SharedWriter, form: int, data: bytes) -> None:
        self.writer = writer
        self.forms: dict[int, bytes | None] = {form: data}
        """Those that were needed as yet."""
        self.size = len(data)
        """Bytes of its first form."""
        self._within: dict[tuple[int, int], bool] | None = None

    def within(self, limits: Limits) -> bool:
        """Whether it keeps to the depth and digits of `limits` too, where those of its writer are wider."""
        key = limits.depth, limits.digits
        if self._within is None:
            self._within = {}
        if key not in self._within:
            self._within[key] = self.writer.keeps_to(limits, self.value)
        return self._within[key]

    @property
    def value(self) -> Any:
        """The value again, a new one each time."""
        return self.writer.value_of(self.forms)

    def form(self, form: int) -> bytes | None:
        """The value in that form; None where that cannot be."""
        try:
            return self.forms[form]
        except KeyError:
            found = self.forms[form] = self.writer.convert(self.forms, form)
            return found


def all_within(values: list[Shared], limits: Limits) -> bool:
    """Whether values of one writer keep to the depth and digits of `limits`, for all that is known."""
    own = values[0].writer.limits
    if own is limits or (own.depth <= limits.depth and own.digits <= limits.digits):
        return True
    return all(value.within(limits) for value in values)


class SharedWriter:
    """Makes `Shared` values within `limits`; `encode` is the user's hook, as a channel has it."""

    def __init__(self, limits: Limits, encode: EncodeHook | None = None) -> None:
        self.limits = limits
        self._narrowed = dataclasses.replace(limits, depth=max(limits.depth - _WITHIN, 1))
        self._json = {
            form: JsonWriter(self._narrowed, stock=stock, with_bytes=with_bytes)
            for form, stock, with_bytes in (
                (JSON, False, False),
                (STOCK, True, False),
                (WITH_BYTES, False, True),
                (STOCK_BYTES, True, True),
            )
        }
        self._reader = JsonReader(limits)
        self._lowering = Lowering(encode, self._narrowed.depth)
        self._cbor: tuple[CborWriter, CborReader] | None = None
        self._superjson: SuperjsonWriter | None = None
        self._narrower: dict[tuple[int, int], SharedWriter] = {}

    def share(self, value: Any) -> Shared:
        """Raises NotSerializable for what neither JSON nor CBOR carries: functions and streams too.

        Raises LimitExceeded for what no frame of `Limits.frame` bytes has room for.
        """
        return Shared(self, *self._written(value))

    def share_numbered(self, number: int, value: Any) -> Shared:
        """The list of both: what a subscriber gets for a chunk (NST-6). Raises as `share` does."""
        form, data = self._written(value)
        if form == CBOR:
            return Shared(self, form, b"\x82%b%b" % (_cbor_head(0x00, number), data))
        return Shared(self, form, b"[%d,%b]" % (number, data))

    def _written(self, value: Any) -> tuple[int, bytes]:
        try:
            written = self._written_as_it_is(value)
        except NotSerializable:
            lowered = self._lowering.lower(value, "value", self)
            if lowered is value:
                raise
            written = self._written_as_it_is(lowered)
        size = len(written[1])
        if size > self.limits.frame - _ENVELOPE:
            raise LimitExceeded(f"the value takes {size} bytes; Limits.frame is {self.limits.frame}")
        return written

    def _written_as_it_is(self, value: Any) -> tuple[int, bytes]:
        try:
            return JSON, self._as_json(value, JSON)
        except NotSerializable:
            pass
        try:
            return CBOR, self._as_cbor(value)
        except NotSerializable as refusal:
            # Bytes beside text that is no Unicode: kkrpc's form of bytes is the only one left.
            try:
                return WITH_BYTES, self._as_json(value, WITH_BYTES)
            except NotSerializable:
                raise refusal from None

    def keeps_to(self, limits: Limits, value: Any) -> bool:
        """Whether another writer, of narrower limits, would take the value."""
        key = limits.depth, limits.digits
        if key not in self._narrower:
            self._narrower[key] = SharedWriter(limits)
        try:
            self._narrower[key].share(value)
        except (NotSerializable, LimitExceeded):
            return False
        return True

    # What stands in values, as `lowering.Passing` has it --------------------------------------

    def function(self, value: Any, path: str) -> str:
        raise NotSerializable(type(value).__qualname__, path, "a value for many peers holds no function")

    def stream(self, value: Any, path: str) -> None:
        return None

    def carries(self, kind: type) -> bool:
        return kind in self._cbor_pair[0].types

    def tensor(self, numpy: Any, value: Any, path: str) -> Tensor | None:
        return Tensor.of(numpy, value)

    # One form and the others ------------------------------------------------------------------

    def value_of(self, forms: dict[int, bytes | None]) -> Any:
        text = forms.get(JSON) or forms.get(WITH_BYTES)
        if text is not None:
            return self._reader.loads(text)
        payload = forms[CBOR]
        assert payload is not None
        return self._cbor_pair[1].loads(payload)

    def convert(self, forms: dict[int, bytes | None], form: int) -> bytes | None:
        text = forms.get(JSON)
        if text is not None:
            if form == WITH_BYTES:  # there are none in it
                return text
            if form in (STOCK, STOCK_BYTES) and text.isascii() and _LONG_DIGITS.search(text) is None:
                return text
        value = self.value_of(forms)
        if form in (SUPERJSON, STOCK_SUPERJSON):
            return self._as_superjson(value, JSON if form == SUPERJSON else STOCK)
        try:
            return self._as_cbor(value) if form == CBOR else self._as_json(value, form)
        except NotSerializable:
            return self._lowered_json(value, form) if form in (WITH_BYTES, STOCK_BYTES) else None

    def _lowered_json(self, value: Any, form: int) -> bytes | None:
        """The JSON for a peer without CBOR, of a value that CBOR alone carries as it is: arrays, say."""
        try:
            lowered = self._lowering.lower(value, "value", None)
            return None if lowered is value else self._as_json(lowered, form)
        except NotSerializable:
            return None

    def _as_json(self, value: Any, form: int) -> bytes:
        writer = self._json[form]
        try:
            text = writer.dumps(writer.fit(value, "value"))
        except UnicodeEncodeError:
            return writer.dumps_unpaired(writer.fit_checked(value, "value"))
        except ValueError:
            writer.fit_checked(value, "value")  # an integer that Python will not write
            raise
        if writer.needs_second_look(text):
            writer.fit_checked(value, "value")
        return text

    def _as_cbor(self, value: Any) -> bytes:
        writer = self._cbor_pair[0]
        try:
            return writer.dumps(writer.fit(value, "value"))
        except UnicodeEncodeError:
            return writer.dumps(writer.fit_checked(value, "value"))

    def _as_superjson(self, value: Any, form: int) -> bytes | None:
        """The JSON in a line of superjson; None where types would have to stand beside it."""
        if self._superjson is None:
            from kkrpc_py.wire.superjson_writer import SuperjsonWriter  # late, as CBOR is

            self._superjson = SuperjsonWriter(self._narrowed)
        try:
            line = self._superjson.line({"type": "stream-chunk", "args": {"value": value}})
            text = self._json[form].dumps(line["json"]["args"]["value"])
        except (NotSerializable, LimitExceeded, UnicodeEncodeError):
            return None
        return text if line["meta"] == _SUPERJSON_META else None

    @property
    def _cbor_pair(self) -> tuple[CborWriter, CborReader]:
        if self._cbor is None:
            from kkrpc_py.wire.cbor_codec import CborReader, CborWriter  # late, as in `codec`

            self._cbor = CborWriter(self._narrowed), CborReader(self.limits)
        return self._cbor


_CBOR_HEAD = b"\xa5bid%bfmethod\x60dargs\xa1"
_CBOR_TAIL = b"dtypelstream-chunkgversiondjson"


def json_chunks(id: bytes, values: list[bytes]) -> bytes:
    """The text of a stream-chunk, of the JSON of its id and of its values."""
    args = b'{"value":%b}' % values[0] if len(values) == 1 else b'{"values":[%b]}' % b",".join(values)
    return b'{"id":%b,"method":"","args":%b,"type":"stream-chunk","version":"json"}' % (id, args)


_SUPERJSON_META = {"values": {"transferSlots": ["undefined"]}, "v": 1}


def superjson_chunks(id: bytes, values: list[bytes]) -> bytes:
    """The line of a stream-chunk in superjson, of the JSON of its id and of values that have no types."""
    args = b'{"value":%b}' % values[0] if len(values) == 1 else b'{"values":[%b]}' % b",".join(values)
    return (
        b'{"json":{"id":%b,"method":"","args":%b,"type":"stream-chunk","transferSlots":null,"version":"superjson"},'
        b'"meta":{"values":{"transferSlots":["undefined"]},"v":1}}' % (id, args)
    )


def cbor_chunks(id: str | int, values: list[bytes]) -> list[bytes]:
    """The payload of a stream-chunk in pieces, of the CBOR of its values."""
    import cbor2  # late, as in `codec`

    head = _CBOR_HEAD % cbor2.dumps(id)
    if len(values) == 1:
        return [head + b"evalue", values[0], _CBOR_TAIL]
    return [head + b"fvalues" + _cbor_head(0x80, len(values)), *values, _CBOR_TAIL]


def _cbor_head(kind: int, count: int) -> bytes:
    """The first bytes of a CBOR item: its kind, and a count in as few bytes as it takes."""
    if count < 24:
        return bytes((kind + count,))
    size = 1 if count < 1 << 8 else 2 if count < 1 << 16 else 4 if count < 1 << 32 else 8
    return bytes((kind + 23 + size.bit_length(),)) + count.to_bytes(size, "big")
