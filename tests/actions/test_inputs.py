"""What an action makes of an input, and how it refuses one; with no channel and no server."""

from __future__ import annotations

import array
import copy
import dataclasses
import datetime
import decimal
import enum
import json
import logging
import math
import random
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from ipaddress import ip_address, ip_interface, ip_network
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, Protocol, TypedDict, TypeVar

import msgspec
import numpy
import pytest

from kkrpc_py.actions.inputs import reader
from kkrpc_py.channel import issues
from kkrpc_py.channel.checks import check_of
from kkrpc_py.errors import ActionError
from kkrpc_py.wire import js
from kkrpc_py.wire.js import UNDEFINED
from tests.naming import shown

attrs = pytest.importorskip("attrs")
pydantic = pytest.importorskip("pydantic")

T = TypeVar("T")
SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    # However slow the machine is.
    monkeypatch.setattr(issues, "_SECONDS", 20.0)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Message:
    role: Literal["user", "system"]
    text: str


@dataclasses.dataclass
class Chat:
    prompt: str
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10
    warmth: float = 1.0
    stream: bool = True
    color: Color = Color.RED
    level: Level | None = None
    tags: list[str] = dataclasses.field(default_factory=list)
    numbers: list[int] = dataclasses.field(default_factory=list)
    pair: tuple[int, str] | None = None
    messages: list[Message] = dataclasses.field(default_factory=list)
    extra: dict[str, int] = dataclasses.field(default_factory=dict)
    since: datetime.date | None = None
    id: uuid.UUID | None = None
    size: Literal["auto", 1, 2] = "auto"
    anything: Any = None

    def __post_init__(self) -> None:
        if self.prompt == "refused":
            raise ValueError("this prompt is not answered")
        if self.prompt == "broken":
            raise KeyError(SECRET)


class Point(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    x_axis: int
    y_axis: int = 0


class Circle(msgspec.Struct, tag="circle"):
    radius: int


class Line(msgspec.Struct, tag="line"):
    ends: list[Point]


class First(msgspec.Struct, tag=1):
    value: int


class Second(msgspec.Struct, tag=2):
    value: str


class Options(TypedDict):
    depth: int
    color: NotRequired[Color]


class Pair(NamedTuple):
    left: int
    right: str = ""


@dataclasses.dataclass
class Box(Generic[T]):
    content: T
    others: list[T] = dataclasses.field(default_factory=list)


@attrs.define
class Address:
    street: str
    number: int = attrs.field(default=1)


@dataclasses.dataclass
class Tree:
    value: int
    children: list[Tree] = dataclasses.field(default_factory=list)


class Child(pydantic.BaseModel):
    name: str = pydantic.Field(min_length=2)
    age: int


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]


class Parent(pydantic.BaseModel):
    the_name: str = pydantic.Field(alias="theName", default="nobody")
    age: int = 30
    ratio: float = 0.5
    tags: list[str] = []
    numbers: list[int] = []
    children: list[Child] = []
    first: Child | None = None
    born: datetime.date | None = None
    pet: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")] | None = None
    either: int = pydantic.Field(default=0, validation_alias=pydantic.AliasChoices("either", "other"))

    @pydantic.field_validator("age")
    @classmethod
    def _old_enough(cls, age: int) -> int:
        if age == 13:
            raise ValueError("no thirteen")
        if age == 14:
            raise KeyError(SECRET)
        return age


class Strict(pydantic.BaseModel, strict=True, extra="forbid"):
    age: int
    ratio: float = 0.5


class Numbers(pydantic.RootModel[dict[str, int]]):
    pass


class Unasked(Protocol):
    def method(self) -> int: ...


def short(value: Any) -> str:
    return shown(value).removeprefix("<class 'tests.actions.test_inputs.")[:40]


def read(hint: Any, value: Any, *, text: bool = False) -> Any:
    return reader(hint)(value, text)


def refused(hint: Any, value: Any, *, text: bool = False) -> dict[str, list[str]]:
    """The field errors of a refusal, which is as it has to be."""
    with pytest.raises(ActionError) as caught:
        reader(hint)(value, text)
    error = caught.value
    assert (error.code, error.message, error.status) == ("VALIDATION_ERROR", "Input validation failed", 422)
    assert error.__cause__ is error.__context__ is None
    assert not getattr(error, "__notes__", None)
    assert error.field_errors
    said = json.dumps(error.to_data(), ensure_ascii=False)
    assert SECRET not in said
    said.encode()  # whoever reads it
    return error.field_errors


# What is taken -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (Chat, {"prompt": "hi"}, Chat("hi")),
        (Chat, {"prompt": "hi", "unknown": 5}, Chat("hi")),
        (
            Chat,
            {"prompt": "", "level": 2, "messages": [{"role": "user", "text": "t"}], "since": "2024-02-29"},
            Chat("", level=Level.HIGH, messages=[Message("user", "t")], since=datetime.date(2024, 2, 29)),
        ),
        (Chat, {"prompt": "hi", "level": UNDEFINED, "tags": UNDEFINED}, Chat("hi")),
        (Point, {"xAxis": 1}, Point(1)),
        (Circle | Line, {"type": "line", "ends": [{"xAxis": 1}]}, Line([Point(1)])),
        (Options, {"depth": 1, "more": 2}, {"depth": 1}),
        (Pair, [1], Pair(1)),
        (Box[int], {"content": 1, "others": [2]}, Box(1, [2])),
        (Address, {"street": "s"}, Address("s")),
        (Parent, {"theName": "n", "age": "7"}, Parent(theName="n", age=7)),
        (list[Child], [{"name": "ab", "age": 1}], [Child(name="ab", age=1)]),
        (int | None, None, None),
        (list[int], [1, 2], [1, 2]),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (str, "text", "text"),
        (None, {"raw": [1]}, {"raw": [1]}),
        (Any, 5, 5),
        (object, None, None),
    ],
    ids=short,
)
def test_an_input_is_made_what_the_action_declares(hint: Any, value: Any, expected: Any) -> None:
    found = read(hint, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (None, {}),
        (Any, {}),
        (Options | None, {}),
        (dict[str, int], {}),
        (dict, {}),
        (int | None, None),
        (list[int] | None, None),
        (Parent, Parent()),
    ],
    ids=short,
)
def test_an_input_that_was_not_given(hint: Any, expected: Any) -> None:
    if hint == Options | None:
        assert refused(hint, UNDEFINED) == {"depth": ["Missing"]}
    else:
        assert read(hint, UNDEFINED) == expected


def test_an_input_that_was_not_given_and_is_needed() -> None:
    assert refused(Chat, UNDEFINED) == {"prompt": ["Missing"]}
    assert refused(int, UNDEFINED) == {"_root": ["Expected `int`, got `null`"]}
    assert refused(Child, UNDEFINED) == {"name": ["Field required"], "age": ["Field required"]}


def test_null_is_an_input() -> None:
    assert read(None, None) is None
    assert refused(Chat, None) == {"_root": ["Expected `object`, got `null`"]}


# What is refused -----------------------------------------------------------------------------------


def test_every_field_that_is_wrong_is_named() -> None:
    wrong = {
        "limit": 1000,
        "warmth": SECRET,
        "stream": 1,
        "color": SECRET,
        "level": 7,
        "tags": [SECRET, 5, None],
        "pair": [1],
        "messages": [{"role": SECRET, "text": "t"}, {"role": "user"}, SECRET],
        "extra": {"a": 1, "b": SECRET},
        "since": SECRET,
        "id": SECRET,
        "size": 3,
    }
    assert refused(Chat, wrong) == {
        "prompt": ["Missing"],
        "limit": ["Expected `int` <= 100"],
        "warmth": ["Expected `float`, got `str`"],
        "stream": ["Expected `bool`, got `int`"],
        "color": ["Expected one of 'red', 'blue'"],
        "level": ["Invalid enum value"],
        "tags.1": ["Expected `str`, got `int`"],
        "tags.2": ["Expected `str`, got `null`"],
        "pair": ["Expected `array` of length 2, got 1"],
        "messages.0.role": ["Expected one of 'user', 'system'"],
        "messages.1.text": ["Missing"],
        "messages.2": ["Expected `object`, got `str`"],
        "extra.b": ["Expected `int`, got `str`"],
        "since": ["Invalid RFC3339 encoded date"],
        "id": ["Invalid UUID"],
        "size": ["Expected one of 'auto', 1, 2"],
    }


def test_every_field_of_a_model_that_is_wrong_is_named() -> None:
    wrong = {
        "theName": 5,
        "age": 13,
        "ratio": SECRET,
        "numbers": [1, SECRET],
        "children": [{"name": "x", "age": SECRET}, {}],
        "born": SECRET,
        "pet": {"kind": SECRET},
    }
    found = refused(Parent, wrong)
    assert list(found) == [
        "theName",
        "age",
        "ratio",
        "numbers.1",
        "children.0.name",
        "children.0.age",
        "children.1.name",
        "children.1.age",
        "born",
        "pet",
    ]
    assert found["age"] == ["Value error, no thirteen"]


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (Point, {"xAxis": 1, "z": SECRET}, {"_root": ["Object contains unknown field `z`"]}),
        (Strict, {"age": "5", "z": SECRET}, {"age": 1, "z": 1}),
        (Circle | Line, {"type": SECRET}, {"type": ["Invalid value"]}),
        (Circle | Line, {}, {"_root": ["Object missing required field `type`"]}),
        (Options, {"color": "red"}, {"depth": ["Missing"]}),
        (Pair, [SECRET], {"0": ["Expected `int`, got `str`"]}),
        (Box[int], {"content": SECRET, "others": [1, SECRET]}, {"content": 1, "others.1": 1}),
        (Address, {"number": SECRET}, {"street": ["Missing"], "number": ["Expected `int`, got `str`"]}),
        (int, SECRET, {"_root": ["Expected `int`, got `str`"]}),
        (int | str, [SECRET], {"_root": 1}),
        (dict[int, int], {"1": 1, SECRET[:4]: 2}, {"hunt": 1}),
        (Chat, {"prompt": "refused"}, {"_root": ["this prompt is not answered"]}),
        (list[Chat], [{"prompt": "refused"}], {"0": ["this prompt is not answered"]}),
        (Callable[[int], None], 5, {"_root": ["Expected a function, got `int`"]}),
    ],
    ids=short,
)
def test_what_is_refused_and_how(hint: Any, value: Any, expected: dict[str, Any]) -> None:
    """A number stands for so many messages, whatever they are."""
    found = refused(hint, value)
    counted = {
        path: len(messages) if type(expected.get(path)) is int else messages
        for path, messages in found.items()
    }
    assert counted == expected


def test_a_path_with_several_messages() -> None:
    found = refused(dict[int, int], {"x": "y"})
    assert list(found) == ["x"]
    assert len(found["x"]) == 2


def test_the_list_is_bounded() -> None:
    found = refused(list[int], ["x"] * 5000)
    assert len(found) == 101
    assert found["_root"] == ["and 4900 more"]
    found = refused(list[Child], [{}] * 500)
    assert found["_root"] == ["and 900 more"]


def test_long_paths_and_unpaired_surrogates_can_be_told() -> None:
    found = refused(dict[str, dict[str, dict[str, int]]], {"é" * 400: {"ü" * 400: {"a\ud800b": SECRET}}})
    [path] = found
    assert len(path) <= 500
    found = refused(dict[str, int], {"a\ud800b": SECRET})
    assert list(found) == ["a?b"]


class Custom(Exception):
    pass


@dataclasses.dataclass
class Fails:
    how: str

    def __post_init__(self) -> None:
        raise {"key": KeyError, "custom": Custom, "memory": MemoryError, "zero": ZeroDivisionError}[self.how](
            SECRET
        )


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Chat, {"prompt": "broken"}),
        (Parent, {"age": 14}),
        *((Fails, {"how": how}) for how in ("key", "custom", "memory", "zero")),
    ],
    ids=short,
)
def test_what_a_class_raises_by_mistake_is_logged_and_not_told(
    hint: Any, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ActionError) as caught, caplog.at_level(logging.ERROR, "kkrpc_py.actions"):
        read(hint, value)
    error = caught.value
    assert error.to_data() == ActionError.unexpected().to_data()
    assert error.__cause__ is error.__context__ is None
    assert SECRET in caplog.text


# What cannot be declared ---------------------------------------------------------------------------


class Elsewhere:
    pass


@dataclasses.dataclass
class Unchecked:
    stranger: Unasked


@pytest.mark.parametrize("hint", [Unasked, Unchecked, list[Unasked], 5, "Chat", [int]], ids=short)
def test_a_hint_that_cannot_be_checked_is_refused_at_once(hint: Any) -> None:
    with pytest.raises(TypeError, match="no input can be checked against"):
        reader(hint)


def test_a_name_that_is_not_known_yet(caplog: pytest.LogCaptureFixture) -> None:
    read_late = reader(Early)
    with pytest.raises(ActionError) as caught:
        read_late({"late": {"value": 1}}, False)
    assert caught.value.code == "STREAM_ERROR"
    assert "Later" in caplog.text
    scope: dict[str, Any] = globals()
    scope["Later"] = Tree
    try:
        assert read_late({"late": {"value": 1}}, False) == Early(Tree(1))
        with pytest.raises(ActionError) as caught:
            read_late({"late": {}}, False)
        assert caught.value.field_errors == {"late.value": ["Missing"]}
    finally:
        del scope["Later"]


@dataclasses.dataclass
class Early:
    late: Later  # type: ignore[name-defined]  # noqa: F821 - that is the test


def test_pydantic_is_imported_by_nobody_who_has_no_model() -> None:
    program = """
import sys, dataclasses
from kkrpc_py.actions.inputs import reader
@dataclasses.dataclass
class Input:
    a: int
assert reader(Input)({"a": "1"}, True) == Input(1)
print("pydantic" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "False\n"


# Queries -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hint", "query", "expected"),
    [
        (Chat, {"prompt": "5"}, Chat("5")),
        (Chat, {"prompt": "[1]"}, Chat("[1]")),
        (Chat, {"prompt": "{}", "limit": "5", "warmth": "0.5"}, Chat("{}", limit=5, warmth=0.5)),
        (Chat, {"prompt": "", "warmth": "-1e2", "stream": "false"}, Chat("", warmth=-100.0, stream=False)),
        (Chat, {"prompt": "", "warmth": "7", "stream": "0"}, Chat("", warmth=7.0, stream=False)),
        (Chat, {"prompt": "", "stream": "TRUE", "level": "2"}, Chat("", level=Level.HIGH)),
        (Chat, {"prompt": "", "level": "", "pair": "null"}, Chat("")),
        (Chat, {"prompt": "", "color": "blue"}, Chat("", color=Color.BLUE)),
        (Chat, {"prompt": "", "tags": "a"}, Chat("", tags=["a"])),
        (Chat, {"prompt": "", "tags": "[a"}, Chat("", tags=["[a"])),
        (Chat, {"prompt": "", "tags": ["[a]", "5"]}, Chat("", tags=["[a]", "5"])),
        (Chat, {"prompt": "", "tags": '["a", "b"]'}, Chat("", tags=["a", "b"])),
        (Chat, {"prompt": "", "numbers": "5"}, Chat("", numbers=[5])),
        (Chat, {"prompt": "", "numbers": ["5", "-6"]}, Chat("", numbers=[5, -6])),
        (Chat, {"prompt": "", "numbers": "[5,6]"}, Chat("", numbers=[5, 6])),
        (Chat, {"prompt": "", "pair": ["5", "6"]}, Chat("", pair=(5, "6"))),
        (
            Chat,
            {"prompt": "", "messages": '{"role":"user","text":"5"}'},
            Chat("", messages=[Message("user", "5")]),
        ),
        (
            Chat,
            {"prompt": "", "messages": ['{"role":"user","text":"5"}'] * 2},
            Chat("", messages=[Message("user", "5")] * 2),
        ),
        (Chat, {"prompt": "", "extra": '{"a": 1}'}, Chat("", extra={"a": 1})),
        (Chat, {"prompt": "", "since": "2024-02-29"}, Chat("", since=datetime.date(2024, 2, 29))),
        (Chat, {"prompt": "", "size": "2"}, Chat("", size=2)),
        (Chat, {"prompt": "", "size": "auto"}, Chat("", size="auto")),
        (Chat, {"prompt": "", "anything": "[1]"}, Chat("", anything="[1]")),
        (Chat, {"prompt": "", "unknown": ["1"]}, Chat("")),
        (Point, {"xAxis": "5"}, Point(5)),
        (Circle | Line, {"type": "circle", "radius": "2"}, Circle(2)),
        (Circle | Line, {"type": "line", "ends": '[{"xAxis": 1}]'}, Line([Point(1)])),
        (First | Second, {"type": "1", "value": "5"}, None),
        (Options, {"depth": "5"}, {"depth": 5}),
        (Address, {"street": "5", "number": "5"}, Address("5", 5)),
        (Box[int], {"content": "5", "others": "6"}, Box(5, [6])),
        (dict[str, int], {"a": "5", "b": "6"}, {"a": 5, "b": 6}),
        (dict[str, list[float]], {"a": "5", "b": ["6", "7.5"]}, {"a": [5.0], "b": [6.0, 7.5]}),
        (Mapping[str, bool], {"a": "1"}, {"a": True}),
        (dict[str, Any], {"a": "5"}, {"a": "5"}),
        (dict[str, list[list[str]]], {"a": ['["x"]', "y"]}, {"a": [["x"], ["y"]]}),
        (dict[str, int | str], {"a": "5"}, {"a": "5"}),
        (dict[str, int | bool | None], {"a": "5", "b": "true", "c": "null"}, {"a": 5, "b": True, "c": None}),
        (dict[str, decimal.Decimal], {"a": "5.50"}, {"a": decimal.Decimal("5.50")}),
        (dict[str, Sequence[int]], {"a": ["5"]}, {"a": [5]}),
        (dict[str, set[int]], {"a": ["5", "5"]}, {"a": {5}}),
        (Parent, {"theName": "5", "age": "5", "ratio": "1"}, Parent(theName="5", age=5, ratio=1.0)),
        (Parent, {"tags": "a", "numbers": ["1", "2"]}, Parent(tags=["a"], numbers=[1, 2])),
        (Parent, {"children": '{"name":"ab","age":5}'}, Parent(children=[Child(name="ab", age=5)])),
        (Parent, {"first": '{"name":"ab","age":5}'}, Parent(first=Child(name="ab", age=5))),
        (Parent, {"first": "null", "born": "2024-02-29"}, Parent(born=datetime.date(2024, 2, 29))),
        (Parent, {"pet": '{"kind":"dog"}', "other": "4"}, Parent(pet=Dog(kind="dog"), other=4)),
        (Strict, {"age": "5", "ratio": "2"}, Strict(age=5, ratio=2.0)),
        (Numbers, {"a": "5"}, Numbers({"a": 5})),
        (None, {"a": "5", "b": ["1"]}, {"a": "5", "b": ["1"]}),
        (Any, {"a": "5"}, {"a": "5"}),
    ],
    ids=short,
)
def test_the_strings_of_a_query(hint: Any, query: Any, expected: Any) -> None:
    before = copy.deepcopy(query)
    if expected is None:
        assert refused(hint, query, text=True) == {"value": ["Expected `int`, got `str`"]}
        # `str` is among what the field may be: so it is not made a number.
        assert read(hint, {"type": "2", "value": "5"}, text=True) == Second("5")
        return
    found = read(hint, query, text=True)
    assert found == expected
    assert repr(found) == repr(expected)  # of the same types
    assert query == before


@pytest.mark.parametrize(
    ("hint", "query", "expected"),
    [
        (Chat, {}, {"prompt": ["Missing"]}),
        (Chat, {"prompt": ["a", "b"]}, {"prompt": ["Expected `str`, got `array`"]}),
        (Chat, {"prompt": "", "limit": "101"}, {"limit": ["Expected `int` <= 100"]}),
        (Chat, {"prompt": "", "limit": SECRET}, {"limit": ["Expected `int`, got `str`"]}),
        (Chat, {"prompt": "", "limit": "5.0"}, {"limit": ["Expected `int`, got `str`"]}),
        (Chat, {"prompt": "", "limit": " 5"}, {"limit": ["Expected `int`, got `str`"]}),
        (Chat, {"prompt": "", "limit": "٥"}, {"limit": ["Expected `int`, got `str`"]}),
        (Chat, {"prompt": "", "limit": "5\n"}, {"limit": ["Expected `int`, got `str`"]}),
        (Chat, {"prompt": "", "limit": "9" * 5000}, {"limit": ["Expected `int`, got `str`"]}),
        (Chat, {"prompt": "", "limit": "null"}, {"limit": ["Expected `int`, got `str`"]}),
        (Chat, {"prompt": "", "limit": ["1", "2"]}, {"limit": ["Expected `int`, got `array`"]}),
        (Chat, {"prompt": "", "warmth": "nan"}, {"warmth": ["Expected `float`, got `str`"]}),
        (Chat, {"prompt": "", "warmth": "1e999"}, {"warmth": ["Expected `float`, got `str`"]}),
        (Chat, {"prompt": "", "stream": "yes"}, {"stream": ["Expected `bool`, got `str`"]}),
        (Chat, {"prompt": "", "messages": "[{"}, {"messages.0": ["Expected `object`, got `str`"]}),
        (
            Chat,
            {"prompt": "", "messages": '[{"role":"user","text":5}]'},
            {"messages.0.text": ["Expected `str`, got `int`"]},
        ),
        (Chat, {"prompt": "", "extra": "[1]"}, {"extra": ["Expected `object`, got `array`"]}),
        (Chat, {"prompt": "", "extra": '{"a":"5"}'}, {"extra.a": ["Expected `int`, got `str`"]}),
        (Chat, {"prompt": "", "extra": "[" * 100_000}, {"extra": ["Expected `object`, got `str`"]}),
        (Chat, {"prompt": "", "extra": "{\ud800"}, {"extra": ["Invalid text: it has an unpaired surrogate"]}),
        (Strict, {"age": "x"}, {"age": ["Input should be a valid integer"]}),
        (int, {"a": "5"}, {"_root": ["Expected `int`, got `object`"]}),
    ],
    ids=short,
)
def test_the_strings_of_a_query_that_are_refused(hint: Any, query: Any, expected: Any) -> None:
    assert refused(hint, query, text=True) == expected


def test_strings_are_no_numbers_elsewhere() -> None:
    assert refused(Chat, {"prompt": "", "limit": "5"}) == {"limit": ["Expected `int`, got `str`"]}


# Whatever a peer may send --------------------------------------------------------------------------


class Everything(msgspec.Struct):
    number: int = 0
    real: float = 0.0
    text: str = ""
    limited: Annotated[str, msgspec.Meta(max_length=3, pattern="a")] = "a"
    truth: bool = False
    at: datetime.datetime | None = None
    day: datetime.date | None = None
    time: datetime.time | None = None
    span: datetime.timedelta | None = None
    amount: decimal.Decimal | None = None
    id: uuid.UUID | None = None
    data: bytes | None = None
    color: Color | None = None
    level: Level | None = None
    one_of: Literal[1, "two"] | None = None
    items: list[int] | None = None
    names: set[str] | None = None
    pair: tuple[int, str] | None = None
    table: dict[int, float] | None = None
    tree: Tree | None = None
    either: int | list[str] | Options | None = None
    shape: Circle | Line | None = None
    rest: Any = None


class EveryModel(pydantic.BaseModel):
    number: int = 0
    real: float = 0.0
    text: str = ""
    at: datetime.datetime | None = None
    span: datetime.timedelta | None = None
    amount: decimal.Decimal | None = None
    id: uuid.UUID | None = None
    data: bytes | None = None
    color: Color | None = None
    level: Level | None = None
    items: list[int] | None = None
    names: set[str] | None = None
    table: dict[int, float] | None = None
    either: int | list[str] | Child | None = None
    pet: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")] | None = None
    rest: Any = None


def _deep(levels: int, kind: str) -> Any:
    value: Any = SECRET
    for _ in range(levels):
        value = {"list": [value], "children": {"value": 1, "children": [value]}, "tree": {"tree": value}}[
            kind
        ]
    return value


class Stranger:
    """What no codec makes; a hook of the user's may."""

    def __repr__(self) -> str:
        return SECRET


UNHASHABLE = decimal.Decimal("sNaN")
HOSTILE: list[Any] = [
    *(None, True, 0, -1, 2**53, 2**63, -(2**64), 10**400, 0.5, math.nan, math.inf, -math.inf, 1e308),
    *("", SECRET, "5", "\ud800", "a\ud800", "\x00", "9" * 6000, "1e999999999", "P99999999999999999D", "P1Y"),
    *("9999999-01-01", "2024-02-30T25:61:61Z", "0" * 10_000, "null", "true", "[" * 10_000),
    *(b"", b"\xff", bytearray(b"x"), memoryview(b"x"), js.Uint8ClampedArray(b"x")),
    *(UNDEFINED, js.BigInt(5), js.URL("http://x/"), js.RegExp(SECRET), js.Map({1: 2}), js.Map({(1, 2): 3})),
    *(
        js.Object({"a": SECRET}),
        js.Array([SECRET]),
        {1: SECRET},
        {None: 1},
        {(1,): 1},
        {math.nan: 1},
        {"": 1},
    ),
    *({"\ud800": SECRET}, {b"x": 1}, {UNDEFINED: 1}, {"a": UNDEFINED}, [UNDEFINED], {"type": SECRET}),
    *({"type": ["circle"]}, {"kind": SECRET}, {"kind": None}, {"__proto__": 1}, {"": ""}),
    *([], [[]], [1, SECRET], (1, 2), {1, 2}, frozenset((SECRET,)), {SECRET}),
    *(decimal.Decimal("NaN"), UNHASHABLE, decimal.Decimal("1e999999"), uuid.UUID(int=1)),
    *(datetime.datetime.max, datetime.date.min, datetime.time.max, datetime.timedelta.max),
    *(complex(1, 2), Fraction(1, 3), ip_address("::1"), ip_network("10.0.0.0/8"), ip_interface("10.0.0.1/8")),
    *(
        array.array("i", [1, 2]),
        numpy.array([1.0]),
        numpy.zeros((2, 2)),
        numpy.array([]),
        numpy.array(SECRET),
    ),
    *(ValueError(SECRET), len, object, Stranger(), Color.RED),
    *(_deep(50, "list"), _deep(5000, "list"), _deep(5000, "children"), _deep(5000, "tree")),
    *([SECRET] * 1000, {str(index): SECRET for index in range(1000)}),
]


@pytest.mark.parametrize("text", [False, True], ids=["value", "query"])
@pytest.mark.parametrize(
    "hint",
    [
        None,
        Everything,
        EveryModel,
        Tree,
        Point,
        Options,
        list[int],
        dict[str, Tree],
        dict[int, Color],
        Circle | Line,
        int | None,
        Numbers,
        list[Child],
    ],
    ids=short,
)
def test_whatever_a_peer_sends_is_taken_or_refused(hint: Any, text: bool) -> None:
    check = reader(hint)
    names: tuple[str, ...] = ("x",)
    if hint in (Everything, EveryModel):
        names = tuple(getattr(hint, "model_fields", None) or hint.__struct_fields__)
    elif hint is Tree:
        names = ("value", "children")
    refusals = 0
    for value in HOSTILE:
        for whole in (value, *({name: value} for name in names)):
            try:
                check(whole, text)
            except ActionError as error:
                refusals += 1
                if (
                    value is UNHASHABLE and hint is EveryModel
                ):  # pydantic looks for it among an Enum's members
                    continue
                assert error.code == "VALIDATION_ERROR", (type(value), error.code)
                said = json.dumps(error.to_data(), ensure_ascii=False).encode()
                # A key is no value: it is the path.
                assert SECRET.encode() not in said or SECRET in str(list(error.field_errors))
                assert len(said) < 100_000
    assert refusals or hint is None


def test_random_values_of_every_shape() -> None:
    chance = random.Random(7)
    check, model = reader(Everything), reader(EveryModel)
    names = [*Everything.__struct_fields__, *EveryModel.model_fields, "type", "kind", "value", "children"]
    leaves = [value for value in HOSTILE if value is not UNHASHABLE and not isinstance(value, list | dict)]
    leaves += [{}, [], {"": UNDEFINED}, {1: 2}]

    def value(depth: int) -> Any:
        match chance.randrange(4 if depth else 1):
            case 1:
                return [value(depth - 1) for _ in range(chance.randrange(4))]
            case 2 | 3:
                return {chance.choice(names): value(depth - 1) for _ in range(chance.randrange(5))}
            case _:
                return chance.choice(leaves)

    codes: dict[str, int] = {}
    for number in range(250):
        for read_it in (check, model):
            try:
                read_it({chance.choice(names): value(3) for _ in range(4)}, number % 2 == 0)
                codes["taken"] = codes.get("taken", 0) + 1
            except ActionError as error:
                codes[error.code] = codes.get(error.code, 0) + 1
    assert set(codes) == {"taken", "VALIDATION_ERROR"}, codes


def test_values_that_contain_themselves() -> None:
    around: list[Any] = []
    around.append(around)
    circle: dict[str, Any] = {"value": 1}
    circle["children"] = [circle]
    assert refused(Tree, circle)
    assert refused(list[int], around)
    assert refused(EveryModel, {"items": around})


def test_an_input_keeps_nothing_of_a_refusal() -> None:
    """A refused value is not kept by the error: it may be large."""

    class Large(list[Any]):
        pass

    value = Large(["x"] * 10)
    with pytest.raises(ActionError) as caught:
        read(list[int], value)
    frames = []
    trace = caught.value.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert frames[-1] == "__call__"


def test_the_check_is_the_one_of_annotated_handlers() -> None:
    assert check_of(Unasked) is None
    assert check_of(Chat) is not None
