"""Users' own types on their way to plain values and back (VAL-9)."""

from __future__ import annotations

import collections
import dataclasses
import enum
import sys
import typing
from typing import Any

import msgspec
import numpy as np
import pydantic
import pytest

from kkrpc_py.errors import NotSerializable
from kkrpc_py.wire import js
from kkrpc_py.wire.lowering import Lowering, restored
from tests.naming import shown


class Colour(enum.Enum):
    RED = "red"
    BLUE = (0, 0, 255)


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None


class Circle(msgspec.Struct, tag="circle", rename="camel"):
    center_point: Point
    radius: float = 1.0
    label: str | msgspec.UnsetType = msgspec.UNSET


class Row(msgspec.Struct, array_like=True, tag=7):
    a: int
    b: Any


class Pair(typing.NamedTuple):
    left: int
    right: Any


class Model(pydantic.BaseModel):
    n: int
    inner: list[Point] = []


class Opaque:
    pass


def lowered(value: Any, encode: Any = None, depth: int = 128) -> Any:
    return Lowering(encode, depth).lower(value, "v", None)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.RED, "red"),
        (Level.LOW, 1),
        (Point(1, Colour.BLUE), {"x": 1, "y": (0, 0, 255)}),
        (Circle(Point(1, 2)), {"type": "circle", "centerPoint": {"x": 1, "y": 2}, "radius": 1.0}),
        (Row(1, Row(2, None)), [7, 1, [7, 2, None]]),
        (Pair(1, Point(2)), [1, {"x": 2, "y": None}]),
        (Model(n=1, inner=[Point(1)]), {"n": 1, "inner": [{"x": 1, "y": None}]}),
        ({Colour.RED: 1, "b": (Level.LOW, [Point(1)])}, {"red": 1, "b": (1, [{"x": 1, "y": None}])}),
        ({Level.LOW}, {1}),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(["a", "b"]), ["a", "b"]),
    ],
    ids=shown,
)
def test_what_is_known_becomes_plain(value: Any, plain: Any) -> None:
    got = lowered(value)
    assert got == plain
    assert type(got) is type(plain)


@pytest.mark.parametrize(
    "value", [[1, {"a": (2, b"x")}], {1: 2}, {1, 2}, Opaque(), [Opaque()], Opaque, object, js.BigInt(5)]
)
def test_what_needs_nothing_or_is_unknown_stays_the_very_same(value: Any) -> None:
    assert lowered(value) is value


def test_the_hook_goes_first_and_what_it_returns_is_looked_at_again() -> None:
    def encode(value: Any) -> Any:
        if isinstance(value, Opaque):
            return {"$opaque": Point(1)}
        return "a point" if isinstance(value, Point) else NotImplemented

    assert lowered([Opaque(), Level.LOW], encode) == [{"$opaque": "a point"}, 1]


def test_the_hook_is_not_asked_for_what_is_plain() -> None:
    asked: list[Any] = []

    def encode(value: Any) -> Any:
        asked.append(value)
        return NotImplemented

    lowered([1, "a", {"b": [None]}, (2.5,)], encode)
    assert asked == []


def test_a_hook_that_never_ends_is_stopped() -> None:
    with pytest.raises(NotSerializable, match=r"Limits\.depth"):
        lowered(Opaque(), lambda value: Opaque())
    with pytest.raises(NotSerializable, match="contains itself"):
        lowered(Opaque(), lambda value: [value])


def test_what_contains_itself_or_is_too_deep_is_named() -> None:
    point = Point(1)
    point.y = [point]
    with pytest.raises(NotSerializable) as caught:
        lowered({"p": point})
    assert caught.value.path == "v['p']['y'][0]"
    nested: Any = Point(1)
    for _ in range(200):
        nested = [nested]
    with pytest.raises(NotSerializable, match=r"Limits\.depth"):
        lowered(nested)


def test_what_would_collide_is_refused() -> None:
    with pytest.raises(NotSerializable, match="same value"):
        lowered({Colour.RED: 1, "red": 2})
    with pytest.raises(NotSerializable, match="same value"):
        lowered({Colour.RED, "red"})
    with pytest.raises(NotSerializable, match="cannot be in a set"):
        lowered({dataclasses.make_dataclass("F", ["a"], frozen=True)(1)})


def test_the_value_itself_is_not_changed() -> None:
    value = {"a": [Point(1)], "b": collections.deque()}
    lowered(value)
    assert value == {"a": [Point(1)], "b": collections.deque()}


def test_no_library_is_imported_for_it() -> None:
    assert "torch" not in sys.modules
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "numpy")
        patch.delitem(sys.modules, "pydantic")
        assert lowered(Opaque.__init__) is Opaque.__init__
        assert "numpy" not in sys.modules
        assert "pydantic" not in sys.modules


def test_decode_sees_each_mapping_the_inner_ones_first() -> None:
    seen: list[Any] = []

    def decode(mapping: dict[Any, Any]) -> Any:
        seen.append(dict(mapping))
        return Point(**mapping) if mapping.keys() == {"x", "y"} else mapping

    got = restored([{"p": {"x": 1, "y": {"x": 2, "y": 3}}}, 4, "s"], {}, decode)
    assert got == [{"p": Point(1, Point(2, 3))}, 4, "s"]
    assert [sorted(mapping) for mapping in seen] == [["x", "y"], ["x", "y"], ["p"]]


def test_names_are_replaced_wherever_they_stand_as_values() -> None:
    one, two = object(), object()
    got = restored(["a", {"k": "b", "a": ["a"]}, "ab"], {"a": one, "b": two}, None)
    assert got == [one, {"k": two, "a": [one]}, "ab"]


@pytest.mark.parametrize(
    "value",
    [
        np.datetime64("2024-01-01", "ns"), np.timedelta64(5, "ns"), np.datetime64("NaT"), np.longdouble(1),
        np.ma.masked_array([1, 2], mask=[0, 1]), np.array([np.datetime64("2024")]), np.array([object()]),
    ],
    ids=shown,
)  # fmt: skip
def test_numpy_values_that_would_become_others_stay_what_they_are(value: Any) -> None:
    assert lowered(value) is value


def test_attrs_classes_and_aliases_of_models() -> None:
    attrs = pytest.importorskip("attrs")
    point = attrs.make_class("Point", ["x", "y"])
    assert lowered(point(1, Level.LOW)) == {"x": 1, "y": 1}

    class Aliased(pydantic.BaseModel):
        a: int = pydantic.Field(alias="theA")

    assert lowered(Aliased(theA=1)) == {"theA": 1}
