"""What must hold for all bytes and all values, tried by Hypothesis."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import math
from decimal import Decimal
from itertools import pairwise
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kkrpc_py.errors import KkrpcError, LimitExceeded, NotSerializable
from kkrpc_py.limits import Limits
from kkrpc_py.wire.cbor_careful import CarefulReader, MalformedCbor, skeleton
from kkrpc_py.wire.cbor_codec import CborReader, CborWriter
from kkrpc_py.wire.cbor_errors import CborError
from kkrpc_py.wire.cbor_tags import RefusedContent, TaggedTypes
from kkrpc_py.wire.codec import Decoder, Encoder, Incoming, frame_size
from kkrpc_py.wire.framing import cbor_frame
from kkrpc_py.wire.json_codec import JsonError, JsonReader
from kkrpc_py.wire.messages import Broken, Chunks, Noise, Request, Result

pytestmark = pytest.mark.filterwarnings("error")
LIMITS = Limits(frame=4000, noise=50, depth=12, digits=60)

any_text = st.text(st.characters())  # surrogates too
unicode_text = st.text(st.characters(exclude_categories=["Cs"]))
ints = st.integers() | st.integers(-(10**70), 10**70) | st.sampled_from([2**53, 2**63, 2**64, -(2**63) - 1])
json_leaves = (
    st.none()
    | st.booleans()
    | ints
    | st.floats(allow_nan=False, allow_infinity=False)
    | any_text
    | st.binary()
)
json_values = st.recursive(
    json_leaves, lambda inner: st.lists(inner) | st.dictionaries(any_text, inner), max_leaves=30
)
zones = st.integers(-1439, 1439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
cbor_scalars = (
    st.none()
    | st.booleans()
    | ints
    | st.floats()
    | unicode_text
    | st.binary()
    | st.datetimes(timezones=zones)
    | st.dates()
    | st.decimals()
    | st.fractions()
    | st.uuids()
    | st.complex_numbers()
    | st.ip_addresses()
    | st.ip_addresses(v=4).map(lambda address: ipaddress.ip_network((address, 20), strict=False))
    | st.ip_addresses(v=6).map(lambda address: ipaddress.ip_interface((address, 64)))
)
hashable = cbor_scalars.filter(lambda value: not (isinstance(value, Decimal) and value.is_snan()))
keys = st.recursive(
    hashable, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4
)
cbor_values = st.recursive(
    cbor_scalars,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5) | st.sets(keys, max_size=5)
    ),
    max_leaves=20,
)


def canonical(value: Any) -> Any:
    """A form in which two values are equal if they and their types are, at every place."""
    kind = type(value).__name__
    if isinstance(value, list | tuple):
        return kind, [canonical(item) for item in value]
    if isinstance(value, dict):
        return kind, [(canonical(key), canonical(item)) for key, item in value.items()]
    if isinstance(value, set | frozenset):
        return kind, sorted(repr(canonical(item)) for item in value)
    if isinstance(value, float | complex):
        return kind, "nan" if value != value else repr(value)
    if isinstance(value, Decimal):
        return kind, value.as_tuple()
    if isinstance(value, dt.datetime):
        return kind, value.isoformat()
    return kind, value


def make_encoder(codec: Any, *, stock: bool = False, cbor: bool = False) -> Encoder:
    encoder = Encoder(codec, LIMITS)
    encoder.stock, encoder.cbor = stock, cbor or encoder.cbor
    return encoder


def carried(value: Any, codec: Any, **switches: bool) -> Any:
    """What arrives, or None (no value that Hypothesis gives is a bare None here) if it is refused."""
    try:
        frame = make_encoder(codec, **switches).encode(Result("1", [value]))
    except (NotSerializable, LimitExceeded):
        return None
    [(message, size)] = Decoder(LIMITS).receive(frame)
    assert size == frame_size(frame)
    assert isinstance(message, Result)
    [got] = message.value
    return [got]


def holds(value: Any, wanted: Any) -> bool:
    """Whether `wanted` says yes to anything within the value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return bool(wanted(value)) or any(holds(item, wanted) for item in inner)


@settings(max_examples=200, deadline=None)
@given(json_values, st.booleans())
def test_a_json_value_arrives_unchanged_or_is_refused(value: Any, stock: bool) -> None:
    got = carried(value, "json", stock=stock)
    if got is not None:
        assert canonical(got[0]) == canonical(value)


@settings(max_examples=200, deadline=None)
@given(cbor_values)
def test_a_cbor_value_arrives_unchanged_or_is_refused(value: Any) -> None:
    for codec in ("cbor", "auto"):
        got = carried(value, codec, cbor=True)
        if got is not None:
            assert canonical(got[0]) == canonical(value)


@settings(max_examples=200, deadline=None)
@given(cbor_values)
def test_both_cbor_readers_read_the_same(value: Any) -> None:
    writer = CborWriter(LIMITS)
    try:
        payload = writer.dumps({"args": writer.fit(value, "args")})
    except NotSerializable:
        return
    read = CborReader(LIMITS).loads(payload)
    careful = CarefulReader(payload, TaggedTypes(LIMITS.digits), LIMITS.depth).read()
    assert canonical(read) == canonical(careful) == canonical({"args": value})


frames = st.one_of(
    st.builds(lambda text: make_encoder("json").encode(Chunks("a", [text[:50]])), unicode_text),
    st.builds(lambda data: make_encoder("cbor").encode(Chunks("a", [data[:50]])), st.binary()),
    st.binary(max_size=80),
    st.sampled_from(
        [b"\n", b"noise\n", b" {}\r\n", b"\xef\xbb\xbf{}\n", b"\xd8", b"{", b"\xd8\x18\x58", b" " * 60]
    ),
)


def read_in(data: bytes, cuts: list[int]) -> list[Incoming]:
    decoder = Decoder(LIMITS)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [
        item for start, end in pairwise(edges) for item in decoder.receive(data[start:end])
    ] + decoder.receive_eof()


def comparable(items: list[Incoming]) -> list[object]:
    return [type(item.error) if isinstance(item, Broken) else (item, size) for item, size in items]


@settings(max_examples=400, deadline=None)
@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 2000), max_size=12))
@example([b"\xd8", b"\x18\x58\x03abc"], [1, 2, 3, 4])
@example([b" " * 60, b"{}\n"], [55])
def test_any_split_gives_the_same_messages(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    whole = comparable(read_in(data, []))
    assert comparable(read_in(data, cuts)) == whole
    assert comparable(read_in(data, list(range(len(data))))) == whole


@settings(max_examples=400, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"{", b'{"id":"a","type":"request","args":[', b"\xd8\x18\x43"]),
)
def test_garbage_never_raises_and_a_break_comes_last(data: bytes, start: bytes) -> None:
    items = read_in(start + data, [])
    assert not any(isinstance(item, Broken) for item, _ in items[:-1])
    for item, size in items:
        assert size >= 0
        if isinstance(item, Noise):
            assert len(item.data) <= LIMITS.noise


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200))
def test_a_payload_of_garbage_gives_a_value_or_one_kind_of_error(payload: bytes) -> None:
    try:
        value = CborReader(LIMITS).loads(payload)
    except CborError:
        skeleton(payload)
        return
    # What the fast reader takes, the careful one takes too, and reads the same.
    careful = CarefulReader(payload, TaggedTypes(LIMITS.digits), LIMITS.depth).read()
    assert canonical(value) == canonical(careful)


@settings(max_examples=300, deadline=None)
@given(cbor_values, st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
def test_a_damaged_payload_gives_a_value_or_one_kind_of_error(value: Any, at: int, damage: bytes) -> None:
    payload = bytearray(cbor2.dumps({"id": "a", "type": "request", "args": []}))
    writer = CborWriter(LIMITS)
    try:
        payload = bytearray(writer.dumps({"id": "a", "args": [writer.fit(value, "args")], "type": "request"}))
    except NotSerializable:
        pass
    at %= len(payload)
    payload[at : at + len(damage)] = damage
    try:
        CarefulReader(bytes(payload), TaggedTypes(LIMITS.digits), LIMITS.depth).read()
    except (MalformedCbor, RefusedContent):
        with pytest.raises(CborError):
            CborReader(LIMITS).loads(bytes(payload))
    else:
        CborReader(LIMITS).loads(bytes(payload))
    items = read_in(cbor_frame(bytes(payload)), [])
    assert len(items) >= 1


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet='[]{}",:\\u0123456789aeE.-+ \n', max_size=60) | any_text)
def test_json_is_read_as_the_standard_library_reads_it_or_refused(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    try:
        wanted = json.loads(data.decode())
    except (ValueError, RecursionError):
        with pytest.raises(JsonError):
            JsonReader(Limits()).loads(data)
        return
    odd = holds(wanted, lambda value: isinstance(value, float) and not math.isfinite(value))
    if odd or data.startswith(b"\xef\xbb\xbf"):
        with pytest.raises(JsonError):
            JsonReader(Limits()).loads(data)
    else:
        assert canonical(JsonReader(Limits()).loads(data)) == canonical(wanted)


class Odd:
    """A type that nobody knows."""


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        cbor_scalars | any_text | st.builds(Odd) | st.builds(set) | st.builds(range, st.integers(0, 3)),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4) | st.tuples(inner)
        ),
        max_leaves=10,
    ),
    st.sampled_from(["auto", "json", "cbor"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_encode_raises_nothing_but_its_two_errors(
    value: Any, codec: Any, stock: bool, cbor: bool, pending: bool
) -> None:
    encoder = make_encoder(codec, stock=stock, cbor=cbor)
    encoder.pending = pending
    for message in (Result("a", value), Request("a", "m", [value]), Chunks("a", [value, value])):
        try:
            frame = encoder.encode(message)
        except KkrpcError as error:
            assert isinstance(error, (NotSerializable, LimitExceeded))
            continue
        assert frame_size(frame) <= LIMITS.frame
        [(item, size)] = Decoder(LIMITS).receive(frame)
        assert type(item) is type(message)
        assert size == frame_size(frame)
