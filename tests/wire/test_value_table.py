"""Every Python type against both codecs: exact, mapped as documented, or refused (VAL-1)."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import pathlib
import re
import sys
import types
import uuid
import zoneinfo
from typing import Any, NamedTuple

import msgspec
import pytest

from kkrpc_py.errors import NotSerializable
from kkrpc_py.limits import Limits
from kkrpc_py.wire.codec import Codec, Decoder, Encoder
from kkrpc_py.wire.messages import Result

UTC = dt.UTC
NEPAL = dt.timezone(dt.timedelta(hours=5, minutes=45))


class Colour(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


class Word(enum.StrEnum):
    A = "a"


class Flags(enum.IntFlag):
    X = 1


class Point(NamedTuple):
    x: int


@dataclasses.dataclass
class Data:
    x: int


class Struct(msgspec.Struct):
    x: int


class MyInt(int):
    pass


class MyStr(str):
    __slots__ = ()


class MyFloat(float):
    pass


class MyBytes(bytes):
    pass


class MyList(list[int]):
    pass


class MyDict(dict[str, int]):
    pass


class MyDate(dt.date):
    pass


class MyDatetime(dt.datetime):
    pass


class MyDecimal(decimal.Decimal):
    pass


class OwnZone(dt.tzinfo):
    def utcoffset(self, when: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(0)


def generator() -> Any:
    yield 1


CYCLE: list[Any] = []
CYCLE.append(CYCLE)
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


class Refused:
    def __repr__(self) -> str:
        return "refused"


REFUSED = Refused()
EXACT = object()
"""Arrives equal, and of the same type."""

NAN = float("nan")
INF = float("inf")
ADDRESS = ipaddress.ip_address("1.2.3.4")
BERLIN = dt.datetime(2024, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))

# What is sent; what arrives by JSON from kkrpc_py to kkrpc_py; what arrives by CBOR.
TABLE: list[tuple[Any, Any, Any]] = [
    (None, EXACT, EXACT),
    (True, EXACT, EXACT),
    (False, EXACT, EXACT),
    (0, EXACT, EXACT),
    (-1, EXACT, EXACT),
    (2**53, EXACT, EXACT),
    (2**63, EXACT, EXACT),
    (-(2**63) - 1, EXACT, EXACT),
    (2**64, EXACT, EXACT),
    (10**1000 - 1, EXACT, EXACT),
    (1 - 10**1000, EXACT, EXACT),
    (10**1000, REFUSED, REFUSED),
    (-(10**1000), REFUSED, REFUSED),
    (10**5000, REFUSED, REFUSED),
    (0.0, EXACT, EXACT),
    (-0.0, EXACT, EXACT),
    (1.0, EXACT, EXACT),
    (1e22, EXACT, EXACT),
    (5e-324, EXACT, EXACT),
    (1.7976931348623157e308, EXACT, EXACT),
    (NAN, REFUSED, EXACT),
    (INF, REFUSED, EXACT),
    (-INF, REFUSED, EXACT),
    ("", EXACT, EXACT),
    ("h\u00e9llo \u20ac \U0001f600 \u2028 \x00\x7f\n\"\\/", EXACT, EXACT),
    ("\ud800", EXACT, REFUSED),
    ("\udc00\ud800", EXACT, REFUSED),
    ("\ud83d\ude00", REFUSED, REFUSED),
    ("__callback__x", EXACT, EXACT),
    ([], EXACT, EXACT),
    ([1, [2, [3.5, None, "x"]]], EXACT, EXACT),
    ((1, (2,)), [1, [2]], [1, [2]]),
    ({}, EXACT, EXACT),
    ({"": {"a": [{"b": 1}]}}, EXACT, EXACT),
    ({"\ud800": 1}, EXACT, REFUSED),
    ({1: 2}, REFUSED, EXACT),
    ({None: 1, True: 2, 2.5: 3, b"k": 4, "s": 5}, REFUSED, EXACT),
    ({(1, ("a", frozenset((2,)))): 3}, REFUSED, EXACT),
    ({uuid.UUID(int=5): decimal.Decimal("1.50")}, REFUSED, EXACT),
    ({decimal.Decimal("Infinity"): decimal.Decimal("-0.00")}, REFUSED, EXACT),
    (b"", EXACT, EXACT),
    (bytes(range(256)), EXACT, EXACT),
    ([{"deep": (b"\x00",)}], [{"deep": [b"\x00"]}], [{"deep": [b"\x00"]}]),
    (bytearray(b"ab"), b"ab", b"ab"),
    (memoryview(b"ab"), b"ab", b"ab"),
    (memoryview(b"abcd")[::2], b"ac", b"ac"),
    (memoryview(b"ab").cast("c"), b"ab", b"ab"),
    (memoryview(array.array("i", [1])), REFUSED, REFUSED),
    (array.array("i", [1, -2]), REFUSED, EXACT),
    (array.array("w" if sys.version_info >= (3, 13) else "u", "a"), REFUSED, REFUSED),
    (memoryview(bytes(4)).cast("B", (2, 2)), REFUSED, REFUSED),
    ({"type": "Uint8Array", "data": [1]}, REFUSED, EXACT),
    ({"type": "Uint8Array", "data": (1,)}, REFUSED, {"type": "Uint8Array", "data": [1]}),
    ([{"type": "Uint8Array", "data": [], "more": 1}], REFUSED, EXACT),
    ({"type": "Uint8Array", "data": "x"}, EXACT, EXACT),
    ({"type": "Uint8Array"}, EXACT, EXACT),
    ({"__stream": True}, REFUSED, REFUSED),
    ({"__stream": True, "more": 1}, REFUSED, REFUSED),
    ({"__stream": 1}, EXACT, EXACT),
    ([{"__stream": True}], EXACT, EXACT),
    (set(), REFUSED, EXACT),
    ({1, "a", b"b", (1, 2), frozenset((3,))}, REFUSED, EXACT),
    (frozenset((1,)), REFUSED, {1}),
    (dt.datetime(2024, 1, 2, 3, 4, 5, 678901, UTC), REFUSED, EXACT),
    (dt.datetime(1, 1, 1, tzinfo=UTC), REFUSED, EXACT),
    (dt.datetime(2024, 1, 2, tzinfo=NEPAL), REFUSED, EXACT),
    (dt.datetime(2024, 1, 2, tzinfo=dt.timezone(-dt.timedelta(hours=23, minutes=59))), REFUSED, EXACT),
    (BERLIN, REFUSED, BERLIN.astimezone(dt.timezone(dt.timedelta(hours=2)))),
    (dt.datetime(2024, 1, 2), REFUSED, REFUSED),
    (dt.datetime(2024, 1, 2, tzinfo=dt.timezone(dt.timedelta(seconds=1))), REFUSED, REFUSED),
    (dt.datetime(2024, 1, 2, tzinfo=OwnZone()), REFUSED, dt.datetime(2024, 1, 2, tzinfo=UTC)),
    (dt.date(2024, 2, 29), REFUSED, EXACT),
    (dt.date(1, 1, 1), REFUSED, EXACT),
    (dt.time(1), REFUSED, REFUSED),
    (dt.timedelta(1), REFUSED, REFUSED),
    (UTC, REFUSED, REFUSED),
    (decimal.Decimal("1.50"), REFUSED, EXACT),
    (decimal.Decimal("-1E+999"), REFUSED, EXACT),
    (decimal.Decimal("0E-5"), REFUSED, EXACT),
    (decimal.Decimal("-0.00"), REFUSED, EXACT),
    (decimal.Decimal("9" * 1000), REFUSED, EXACT),
    (decimal.Decimal("1E+1000"), REFUSED, REFUSED),
    (decimal.Decimal("1E-1001"), REFUSED, REFUSED),
    (decimal.Decimal("9" * 1001), REFUSED, REFUSED),
    (decimal.Decimal("NaN"), REFUSED, EXACT),
    (decimal.Decimal("-NaN123"), REFUSED, EXACT),
    (decimal.Decimal("sNaN"), REFUSED, EXACT),
    (decimal.Decimal("Infinity"), REFUSED, EXACT),
    (decimal.Decimal("-Infinity"), REFUSED, EXACT),
    (fractions.Fraction(-1, 3), REFUSED, EXACT),
    (fractions.Fraction(10**1000, 3), REFUSED, REFUSED),
    (uuid.UUID(int=1), REFUSED, EXACT),
    (1 + 2j, REFUSED, EXACT),
    (complex(INF, -0.0), REFUSED, EXACT),
    (ADDRESS, REFUSED, EXACT),
    (ipaddress.ip_address("fe80::1"), REFUSED, EXACT),
    (ipaddress.ip_address("fe80::1%eth0"), REFUSED, EXACT),
    (ipaddress.ip_network("1.2.0.0/16"), REFUSED, EXACT),
    (ipaddress.ip_network("0.0.0.0/0"), REFUSED, EXACT),
    (ipaddress.ip_network("fe80::/10"), REFUSED, EXACT),
    (ipaddress.ip_interface("1.2.3.4/24"), REFUSED, EXACT),
    (ipaddress.ip_interface("fe80::1/64"), REFUSED, EXACT),
    (ipaddress.ip_interface("fe80::1%3/64"), REFUSED, EXACT),
    # Subclasses and everything else: another type, so never sent as its base.
    *[
        (value, REFUSED, REFUSED)
        for value in (
            Colour.RED, Number.ONE, Word.A, Flags.X, Point(1), Data(1), Struct(1), MyInt(1), MyStr("a"),
            MyFloat(1.0), MyBytes(b"a"), MyList(), MyDict(), MyDate(2024, 1, 1),
            MyDatetime(2024, 1, 1, tzinfo=UTC), MyDecimal(1), collections.OrderedDict(),
            collections.Counter(), collections.defaultdict(int), collections.deque(),
            collections.ChainMap(), types.MappingProxyType({}), types.SimpleNamespace(), range(3),
            slice(1), {}.keys(), {}.values(), iter([]), map(str, []), generator(), generator, len,
            object(), object, int, Ellipsis, NotImplemented, re.compile("a"), re,
            pathlib.PurePath("a"), Exception("x"), [msgspec.UNSET],
            msgspec.Raw(b"1"), msgspec.msgpack.Ext(1, b""), {"k": MyInt(1)}, {MyStr("k"): 1},
            [[Colour.RED]], (Point(1),), {Word.A}, {"a": {"b": CYCLE}}, CYCLE, DEEP,
        )
    ],
]  # fmt: skip


def arrives(value: Any, codec: Codec) -> Any:
    encoder = Encoder(codec, Limits())
    encoder.stock = False
    try:
        frame = encoder.encode(Result("1", value))
    except NotSerializable:
        return REFUSED
    [(message, _)] = Decoder(Limits()).receive(frame)
    assert isinstance(message, Result)
    return message.value


def names() -> list[str]:
    return [f"{number}-{type(value).__name__}" for number, (value, _, _) in enumerate(TABLE)]


def same(got: Any, wanted: Any) -> bool:
    """Equal with the same types throughout; NaN is itself, 0.0 is not -0.0."""
    if type(got) is not type(wanted):
        return False
    if isinstance(wanted, dict):
        return len(got) == len(wanted) and all(
            same(a, b) and same(got[a], wanted[b]) for a, b in zip(got, wanted, strict=True)
        )
    if isinstance(wanted, list):
        return len(got) == len(wanted) and all(map(same, got, wanted))
    if isinstance(wanted, decimal.Decimal):
        return bool(got.as_tuple() == wanted.as_tuple())
    if isinstance(wanted, float | complex):
        return repr(got) == repr(wanted)
    if isinstance(wanted, dt.datetime):
        return bool(got == wanted and got.utcoffset() == wanted.utcoffset())
    return bool(got == wanted)


@pytest.mark.parametrize("codec", ["json", "cbor"])
@pytest.mark.parametrize("row", range(len(TABLE)), ids=names())
def test_a_value_arrives_as_the_table_says(row: int, codec: Codec) -> None:
    value, by_json, by_cbor = TABLE[row]
    wanted = by_json if codec == "json" else by_cbor
    got = arrives(value, codec)
    if wanted is EXACT:
        wanted = value
    assert got is REFUSED if wanted is REFUSED else same(got, wanted)


@pytest.mark.parametrize("row", range(len(TABLE)), ids=names())
def test_auto_carries_what_either_carries(row: int) -> None:
    value, by_json, by_cbor = TABLE[row]
    encoder = Encoder("auto", Limits())
    encoder.stock, encoder.cbor = False, True
    try:
        frame = encoder.encode(Result("1", value))
    except NotSerializable:
        assert by_json is REFUSED
        assert by_cbor is REFUSED
        return
    [(message, _)] = Decoder(Limits()).receive(frame)
    assert isinstance(message, Result)
    wanted = by_cbor if by_json is REFUSED else by_json
    assert same(message.value, value if wanted is EXACT else wanted)


@pytest.mark.parametrize("row", range(len(TABLE)), ids=names())
def test_toward_a_stock_peer_the_table_holds_for_json_and_its_lines_are_ascii(row: int) -> None:
    value, by_json, _ = TABLE[row]
    encoder = Encoder("auto", Limits())
    try:
        frame = encoder.encode(Result("1", value))
    except NotSerializable:
        assert by_json is REFUSED or (type(value) is int and abs(value) > 2**53 - 1)
        return
    assert frame.isascii()
    [(message, _)] = Decoder(Limits()).receive(frame)
    assert isinstance(message, Result)
    assert same(message.value, value if by_json is EXACT else by_json)


@pytest.mark.parametrize(
    ("value", "codec", "path", "type_name"),
    [
        ([1, {"when": dt.time(1)}], "json", "result[1]['when']", "time"),
        ([1, {"when": dt.time(1)}], "cbor", "result[1]['when']", "time"),
        ({"a": {1: 2}}, "json", "result['a']", "dict"),
        ({"a": [{Colour.RED: 2}]}, "cbor", "result['a'][0].key(<Colour.RED: 1>)", "Colour"),
        ((1, float("nan")), "json", "result[1]", "float"),
        ([{"x": "\ud800"}], "cbor", "result[0]['x']", "str"),
        ([2**53], "stock", "result[0]", "int"),
        ({"k": [b"", {"type": "Uint8Array", "data": []}]}, "json", "result['k'][1]", "dict"),
        ([dt.datetime(2024, 1, 1)], "cbor", "result[0]", "datetime"),
    ],
)
def test_a_refusal_names_type_and_path(value: Any, codec: str, path: str, type_name: str) -> None:
    encoder = Encoder("cbor" if codec == "cbor" else "json", Limits())
    encoder.stock = codec == "stock"
    with pytest.raises(NotSerializable) as caught:
        encoder.encode(Result("1", value))
    assert (caught.value.path, caught.value.type_name) == (path, type_name)
    assert path in str(caught.value)
