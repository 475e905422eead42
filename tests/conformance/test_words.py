"""Values in words: each type both ways, and what is refused."""

from __future__ import annotations

import datetime
import math
from array import array
from decimal import Decimal
from fractions import Fraction
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any
from uuid import UUID

import pytest

from kkrpc_py.conformance.words import BadWords, from_words, to_words
from tests.naming import shown

UTC = datetime.UTC
WEST = datetime.timezone(-datetime.timedelta(hours=3, minutes=30))

PAIRS: list[tuple[Any, dict[str, Any]]] = [
    (None, {"null": True}),
    (True, {"bool": True}),
    (False, {"bool": False}),
    (-12, {"int": "-12"}),
    (10**5000, {"int": "1" + "0" * 5000}),
    (-(10**9001) - 7, {"int": "-1" + "0" * 9000 + "7"}),
    (1.5, {"float": "3ff8000000000000"}),
    (-0.0, {"float": "8000000000000000"}),
    (math.inf, {"float": "7ff0000000000000"}),
    ("a\ud800\u2028", {"text": "a\ud800\u2028"}),
    (b"\x00\xff", {"bytes": "00ff"}),
    ([1, [None]], {"list": [{"int": "1"}, {"list": [{"null": True}]}]}),
    ({"b": 1, "a": 2}, {"map": [[{"text": "b"}, {"int": "1"}], [{"text": "a"}, {"int": "2"}]]}),
    ({(1, 2): 3}, {"map": [[{"list": [{"int": "1"}, {"int": "2"}]}, {"int": "3"}]]}),
    ({1}, {"set": [{"int": "1"}]}),
    ({frozenset((1,))}, {"set": [{"set": [{"int": "1"}]}]}),
    (datetime.datetime(2026, 1, 31, 12, tzinfo=UTC), {"datetime": "2026-01-31T12:00:00+00:00"}),
    (
        datetime.datetime(2026, 1, 31, 12, 0, 0, 500000, tzinfo=UTC),
        {"datetime": "2026-01-31T12:00:00.5+00:00"},
    ),
    (datetime.datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=WEST), {"datetime": "0001-01-01T00:00:00.000001-03:30"}),
    (datetime.date(2026, 1, 31), {"date": "2026-01-31"}),
    (Decimal("1.10"), {"decimal": "1.10"}),
    (Decimal("-0"), {"decimal": "-0"}),
    (Decimal("1E+2"), {"decimal": "1E+2"}),
    (Fraction(1, -3), {"rational": ["-1", "3"]}),
    (UUID(int=5), {"uuid": "00000000-0000-0000-0000-000000000005"}),
    (ip_address("10.0.0.1"), {"ip": "10.0.0.1"}),
    (ip_interface("10.0.0.1/8"), {"ip": "10.0.0.1/8"}),
    (ip_network("fe80::/10"), {"ip": "fe80::/10"}),
    (complex(1, -2), {"complex": ["3ff0000000000000", "c000000000000000"]}),
    (array("H", [1, 2]), {"array": {"type": "u16", "shape": [2], "items": [{"int": "1"}, {"int": "2"}]}}),
    (
        array("f", [0.5]),
        {"array": {"type": "f32", "shape": [1], "items": [{"float": "3fe0000000000000"}]}},
    ),
    (
        memoryview(array("i", [1, 2, 3, 4])).cast("B").cast("i", [2, 2]),
        {"array": {"type": "i32", "shape": [2, 2], "items": [{"int": str(n)} for n in (1, 2, 3, 4)]}},
    ),
]


@pytest.mark.parametrize(
    ("value", "words"), PAIRS, ids=lambda item: str(item)[:40] if isinstance(item, dict) else ""
)
def test_a_value_and_its_words(value: Any, words: dict[str, Any]) -> None:
    assert to_words(value) == words
    made = from_words(words)
    assert type(made) is type(value)
    assert made == value
    assert to_words(made) == words  # -0.0 and the order of keys, which == does not tell


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, {"float": "7ff8000000000000"}),
        (-math.nan, {"float": "7ff8000000000000"}),
        (Decimal("sNaN"), {"decimal": "sNaN"}),
        ((1,), {"list": [{"int": "1"}]}),
        (bytearray(b"x"), {"bytes": "78"}),
        (datetime.datetime(2026, 1, 31), {"datetime": "2026-01-31T00:00:00"}),
    ],
)
def test_what_is_told_by_its_words_alone(value: Any, words: dict[str, Any]) -> None:
    assert to_words(value) == words
    assert to_words(from_words(words)) == words


def test_arrays_of_numpy() -> None:
    numpy = pytest.importorskip("numpy")
    words = {"array": {"type": "i16", "shape": [2, 1], "items": [{"int": "1"}, {"int": "-2"}]}}
    assert to_words(numpy.array([[1], [-2]], dtype="i2")) == words
    single = {"array": {"type": "f64", "shape": [], "items": [{"float": "3ff0000000000000"}]}}
    assert to_words(numpy.array(1.0)) == single


def test_hooks_come_first_at_every_depth() -> None:
    class Url(str):
        __slots__ = ()

    def other(value: Any) -> dict[str, Any] | None:
        return {"url": str(value)} if isinstance(value, Url) else None

    words = {"list": [{"url": "a:b"}, {"map": [[{"text": "k"}, {"url": "c:d"}]]}]}
    assert to_words([Url("a:b"), {"k": Url("c:d")}], other=other) == words
    assert from_words(words, url=Url) == ["a:b", {"k": "c:d"}]
    assert from_words({"function": "f"}, function=str.upper) == "F"
    assert from_words({"stream": ["s", []]}, stream=lambda content: content[0]) == "s"
    assert from_words({"array": {"type": "u8"}}, array=lambda content: content["type"]) == "u8"


@pytest.mark.parametrize(
    "words",
    [
        None,
        {},
        {"int": "1", "text": "x"},
        {"nope": 1},
        {"function": "f"},
        {"undefined": True},
        {"int": 1},
        {"int": "one"},
        {"bool": 1},
        {"text": 1},
        {"bytes": "0"},
        {"float": "3ff8"},
        {"list": {}},
        {"map": [[{"int": "1"}]]},
        {"uuid": "x"},
        {"decimal": "x"},
        {"rational": ["1", "0"]},
        {"rational": ["1"]},
        {"datetime": "yesterday"},
        {"ip": "10.0.0.1/99"},
        {"array": {"type": "u128", "shape": [0], "items": []}},
        {"array": {"type": "u8", "shape": [2], "items": [{"int": "1"}]}},
        {"array": {"type": "u8", "shape": [1], "items": [{"int": "256"}]}},
        {"array": {"type": "u8", "shape": [1], "items": [{"text": "1"}]}},
    ],
    ids=str,
)
def test_what_names_no_value(words: Any) -> None:
    with pytest.raises(BadWords):
        from_words(words)


@pytest.mark.parametrize("value", [object(), print, array("u", "x"), [object()]], ids=shown)
def test_what_has_no_words(value: Any) -> None:
    with pytest.raises(TypeError, match="no words"):
        to_words(value)
