"""`Shared`: a value that goes to many peers, written once for each codec.

It owns the value's forms, and the frame of a chunk that is spliced from them: byte for byte what the encoder
would write. What no form fits (superjson, a peer for whom the value has to be refused) goes the ordinary way.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from kkrpc_py.errors import NotSerializable
from kkrpc_py.limits import Limits
from kkrpc_py.wire.json_codec import JsonReader, JsonWriter
from kkrpc_py.wire.lowering import EncodeHook, Lowering

if TYPE_CHECKING:
    from kkrpc_py.wire.cbor_codec import CborReader, CborWriter

__all__ = [
    "CBOR",
    "JSON",
    "STOCK",
    "STOCK_BYTES",
    "WITH_BYTES",
    "Shared",
    "SharedWriter",
    "cbor_chunks",
    "json_chunks",
]

JSON, STOCK, WITH_BYTES, STOCK_BYTES, CBOR = range(5)
"""The forms: JSON for a peer of our own and for a stock one, both with kkrpc's form of bytes, and CBOR."""

_WITHIN = 2
"""A batch is a list, and a chunk with its number another: the value lies deeper than in most messages."""
# JavaScript changes integers from 2**53 on: 16 digits.
_LONG_DIGITS = re.compile(rb"[0-9]{16}")


class Shared:
    """A snapshot of a value: what happens to the value later changes nothing."""

    __slots__ = ("_writer", "forms", "size")

    def __init__(self, writer: SharedWriter, form: int, data: bytes) -> None:
        self._writer = writer
        self.forms: dict[int, bytes | None] = {form: data}
        """Those that were needed as yet."""
        self.size = len(data)
        """Bytes of its first form."""

    @property
    def value(self) -> Any:
        """The value again, a new one each time."""
        return self._writer.value_of(self.forms)

    def form(self, form: int) -> bytes | None:
        """The value in that form; None where that cannot be."""
        try:
            return self.forms[form]
        except KeyError:
            found = self.forms[form] = self._writer.convert(self.forms, form)
            return found


class SharedWriter:
    """Makes `Shared` values within `limits`; `encode` is the user's hook, as a channel has it."""

    def __init__(self, limits: Limits, encode: EncodeHook | None = None) -> None:
        self._limits = dataclasses.replace(limits, depth=max(limits.depth - _WITHIN, 1))
        self._json = {
            form: JsonWriter(self._limits, stock=stock, with_bytes=with_bytes)
            for form, stock, with_bytes in (
                (JSON, False, False),
                (STOCK, True, False),
                (WITH_BYTES, False, True),
                (STOCK_BYTES, True, True),
            )
        }
        self._reader = JsonReader(limits)
        self._read_limits = limits
        self._lowering = Lowering(encode, self._limits.depth)
        self._cbor: tuple[CborWriter, CborReader] | None = None

    def share(self, value: Any) -> Shared:
        """Raises NotSerializable for what neither JSON nor CBOR carries: functions and streams too."""
        return Shared(self, *self._written(value))

    def share_numbered(self, number: int, value: Any) -> Shared:
        """The list of both: what a subscriber gets for a chunk (NST-6). Raises as `share` does."""
        form, data = self._written(value)
        if form == JSON:
            return Shared(self, form, b"[%d,%b]" % (number, data))
        return Shared(self, form, b"\x82\x1b%b%b" % (number.to_bytes(8, "big"), data))

    def _written(self, value: Any) -> tuple[int, bytes]:
        try:
            return self._written_as_it_is(value)
        except NotSerializable:
            lowered = self._lowering.lower(value, "value", None)
            if lowered is value:
                raise
        return self._written_as_it_is(lowered)

    def _written_as_it_is(self, value: Any) -> tuple[int, bytes]:
        try:
            return JSON, self._as_json(value, JSON)
        except NotSerializable:
            return CBOR, self._as_cbor(value)

    def value_of(self, forms: dict[int, bytes | None]) -> Any:
        text = forms.get(JSON)
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
        try:
            return self._as_cbor(value) if form == CBOR else self._as_json(value, form)
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

    @property
    def _cbor_pair(self) -> tuple[CborWriter, CborReader]:
        if self._cbor is None:
            from kkrpc_py.wire.cbor_codec import CborReader, CborWriter  # late, as in `codec`

            self._cbor = CborWriter(self._limits), CborReader(self._read_limits)
        return self._cbor


_CBOR_HEAD = b"\xa5bid%bfmethod\x60dargs\xa1"
_CBOR_TAIL = b"dtypelstream-chunkgversiondjson"


def json_chunks(id: bytes, values: list[bytes]) -> bytes:
    """The text of a stream-chunk, of the JSON of its id and of its values."""
    args = b'{"value":%b}' % values[0] if len(values) == 1 else b'{"values":[%b]}' % b",".join(values)
    return b'{"id":%b,"method":"","args":%b,"type":"stream-chunk","version":"json"}' % (id, args)


def cbor_chunks(id: str | int, values: list[bytes]) -> list[bytes]:
    """The payload of a stream-chunk in pieces, of the CBOR of its values."""
    import cbor2  # late, as in `codec`

    head = _CBOR_HEAD % cbor2.dumps(id)
    if len(values) == 1:
        return [head + b"evalue", values[0], _CBOR_TAIL]
    return [head + b"fvalues" + _array_head(len(values)), *values, _CBOR_TAIL]


def _array_head(count: int) -> bytes:
    if count < 24:
        return bytes((0x80 + count,))
    if count < 1 << 8:
        return bytes((0x98, count))
    return b"\x99" + count.to_bytes(2, "big")
