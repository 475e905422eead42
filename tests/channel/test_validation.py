"""What annotations make of arguments, results and chunks; with no channel."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import typing
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from ipaddress import ip_network
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NotRequired,
    Protocol,
    TypedDict,
    TypeVar,
)

import msgspec
import pytest

import kkrpc_py as kk
from kkrpc_py.channel import issues
from kkrpc_py.channel.validation import InvalidChunk, Validator, converter
from kkrpc_py.errors import ValidationFailed
from kkrpc_py.wire.js import UNDEFINED

if TYPE_CHECKING:
    from elsewhere import OnlyForCheckers  # type: ignore[import-not-found]  # it is nowhere: that is the test

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    # However slow the machine is.
    monkeypatch.setattr(issues, "_SECONDS", 20.0)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Item:
    name: str
    price: float = 0.0
    parts: list[Item] = dataclasses.field(default_factory=list)
    since: datetime.date | None = None

    def __post_init__(self) -> None:
        if self.name == "forbidden":
            raise ValueError("there is no such name")
        if self.name == "broken":
            raise KeyError("a bug")


class Point(msgspec.Struct, rename="camel"):
    x_axis: int
    y_axis: int = 0


class Circle(msgspec.Struct, tag="circle"):
    radius: Annotated[int, msgspec.Meta(gt=0)]


class Path(msgspec.Struct, tag="path"):
    points: list[Point]


class Row(msgspec.Struct, array_like=True):
    name: str
    size: int


class Options(TypedDict, total=False):
    depth: typing.Required[int]
    color: Color


class Pair(NamedTuple):
    left: int
    right: str = ""


@dataclasses.dataclass
class Box(Generic[T]):
    content: T
    others: list[T]


class Tree(TypedDict):
    value: int
    children: list[Tree]


class OnProgress(Protocol):
    def __call__(self, done: int) -> None: ...


class NoSuchCheck(Protocol):
    def method(self) -> int: ...


class Plain:
    pass


def validator_of(function: Any) -> Validator:
    found = Validator.of(function, "it")
    assert found is not None
    return found


def taking(hint: Any) -> Validator:
    def handler(value): ...  # type: ignore[no-untyped-def]  # its annotation is put there next

    handler.__annotations__ = {"value": hint}
    return validator_of(handler)


def returning(hint: Any) -> Validator:
    def handler(): ...  # type: ignore[no-untyped-def]  # its annotation is put there next

    handler.__annotations__ = {"return": hint}
    return validator_of(handler)


def taken(hint: Any, value: Any) -> Any:
    args, kwargs = taking(hint).arguments([value], {})
    assert kwargs == {}
    return args[0]


def problems(function: Callable[..., Any], *args: Any) -> list[tuple[tuple[str | int, ...], str]]:
    with pytest.raises(ValidationFailed) as caught:
        function(*args)
    return [(issue.path, issue.message) for issue in caught.value.issues]


def wrong(hint: Any, value: Any) -> list[tuple[tuple[str | int, ...], str]]:
    found = problems(taking(hint).arguments, [value], {})
    assert all(path[:1] in ((0,), ()) for path, _ in found)
    return [(path[1:], message) for path, message in found]


ZONED = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, 5, 5),
        (float, 5, 5.0),
        (float, 1.5, 1.5),
        (str, "text", "text"),
        (bytes, b"raw", b"raw"),
        (bytearray, b"raw", bytearray(b"raw")),
        (None, None, None),
        (int | None, None, None),
        (typing.Optional[str], "x", "x"),  # noqa: UP045 - the older spelling is the test
        (list[int], [1, 2], [1, 2]),
        (Sequence[int], [1, 2], [1, 2]),
        (tuple[int, str], [1, "x"], (1, "x")),
        (set[str], ["a", "b"], {"a", "b"}),
        (set[int], {1}, {1}),
        (dict[int, str], {"1": "x"}, {1: "x"}),
        (dict[int, str], {1: "x"}, {1: "x"}),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (Literal[1, 2], 1, 1),
        (Color, "red", Color.RED),
        (Color, Color.RED, Color.RED),
        (datetime.datetime, "2024-02-29T12:00:00Z", ZONED),
        (datetime.datetime, ZONED, ZONED),
        (datetime.date, "2024-02-29", datetime.date(2024, 2, 29)),
        (datetime.timedelta, "PT5S", datetime.timedelta(seconds=5)),
        (uuid.UUID, str(ID), ID),
        (uuid.UUID, ID, ID),
        (decimal.Decimal, "1.10", decimal.Decimal("1.10")),
        (Item, {"name": "a", "parts": [{"name": "b"}]}, Item("a", 0.0, [Item("b")])),
        (Item, Item("a"), Item("a")),
        (Point, {"xAxis": 1}, Point(1)),
        (Circle | Path, {"type": "circle", "radius": 2}, Circle(2)),
        (Row, ["a", 1], Row("a", 1)),
        (Options, {"depth": 1, "color": "blue"}, {"depth": 1, "color": Color.BLUE}),
        (Pair, [1, "x"], Pair(1, "x")),
        (Box[int], {"content": 1, "others": [2]}, Box(1, [2])),
        (list[Any], [1, "x", None], [1, "x", None]),
        (Annotated[int, msgspec.Meta(ge=1)], 1, 1),
        # Unions that msgspec does not take: the very type first, then the first that fits.
        (datetime.datetime | str, "2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z"),
        (bytes | str, "text", "text"),
        (bytes | str, b"raw", b"raw"),
        (Item | Point, {"xAxis": 1}, Point(1)),
        (Item | Options | None, None, None),
    ],
)
def test_an_argument_is_made_what_its_annotation_says(hint: Any, value: Any, expected: Any) -> None:
    found = taken(hint, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (int, "5", "Expected `int`, got `str`"),
        (int, 5.0, "Expected `int`, got `float`"),
        (int, True, "Expected `int`, got `bool`"),
        (str, 5, "Expected `str`, got `int`"),
        (str, b"raw", "Expected `str`, got `bytes`"),
        (bytes, "cmF3", "Expected `bytes`, got `str`"),
        (bytes | None, "cmF3", "Expected `bytes | null`, got `str`"),
        (bytearray, "cmF3", "Expected `bytes`, got `str`"),
        (None, 5, "Expected `null`, got `int`"),
        (int, None, "Expected `int`, got `null`"),
        (datetime.datetime, "yesterday", "Invalid RFC3339 encoded datetime"),
        (Color, "secret", "Expected one of 'red', 'blue'"),
        (Literal["a", "b"], "secret", "Expected one of 'a', 'b'"),
        (Annotated[int, msgspec.Meta(ge=1)], 0, "Expected `int` >= 1"),
        (Annotated[list[int], msgspec.Meta(max_length=1)], [1, 2], "Expected `array` of length <= 1"),
        (tuple[int, int], [1], "Expected `array` of length 2, got 1"),
        (Item, "x", "Expected `object`, got `str`"),
        (Item, {"name": "forbidden"}, "there is no such name"),
        (bytes | str, 5, "Expected `bytes | str`, got `int`"),
        (Item | Point, [], "Expected `Item | Point`, got `array`"),
        (Plain, {}, "Expected `Plain`, got `dict`"),
        (Callable[[int], int], 5, "Expected a function, got `int`"),
        (Callable[..., Any] | None, "f", "Expected a function, got `str`"),
        (OnProgress, {}, "Expected a function, got `object`"),
        (kk.RemoteCallback[[int], int], [], "Expected a function, got `array`"),
        (AsyncIterator[int], [1, 2], "Expected a stream, got `array`"),
        (AsyncGenerator[int, None] | None, 5, "Expected a stream, got `int`"),
        (kk.StreamCall[int], None, "Expected a stream, got `null`"),
    ],
)
def test_what_is_wrong_is_said_without_the_value(hint: Any, value: Any, message: str) -> None:
    assert wrong(hint, value) == [((), message)]


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (list[int], [1, "x", 2, None], [((1,), "str"), ((3,), "null")]),
        (dict[str, list[int]], {"a": [1], "b": ["x"], "c": 5}, [(("b", 0), "str"), (("c",), "int")]),
        (tuple[int, ...], ["x", 1, "y"], [((0,), "str"), ((2,), "str")]),
        (tuple[int, str], ["x", 1], [((0,), "str"), ((1,), "int")]),
        (set[int], ["x"], [((0,), "str")]),
        (
            Item,
            {"name": 1, "price": "x", "parts": [{"name": "a"}, {"name": 2, "parts": 3}, {}]},
            [
                (("name",), "int"),
                (("price",), "str"),
                (("parts", 1, "name"), "int"),
                (("parts", 1, "parts"), "int"),
                (("parts", 2, "name"), "Missing"),
            ],
        ),
        (Point, {"yAxis": "x"}, [(("xAxis",), "Missing"), (("yAxis",), "str")]),
        (Options, {"color": "green"}, [(("depth",), "Missing"), (("color",), "Expected one of")]),
        (Pair, ["x", 1], [((0,), "str"), ((1,), "int")]),
        (Row, [1, "x"], [((0,), "int"), ((1,), "str")]),
        (Box[int], {"content": "x", "others": [1, "y"]}, [(("content",), "str"), (("others", 1), "str")]),
        (
            Circle | Path,
            {"type": "path", "points": [{"xAxis": "x"}, {}]},
            [(("points", 0, "xAxis"), "str"), (("points", 1, "xAxis"), "Missing")],
        ),
        (Circle | Path, {"type": "secret"}, [(("type",), "Invalid value")]),
        (int | list[int] | None, [1, "x", "y"], [((1,), "str"), ((2,), "str")]),
        (Tree, {"value": 1, "children": [{"value": "x", "children": [{}]}]}, [
            (("children", 0, "value"), "str"),
            (("children", 0, "children", 0, "value"), "Missing"),
            (("children", 0, "children", 0, "children"), "Missing"),
        ]),
        (dict[int, int], {"a": 1, "2": "x"}, [(("a",), "as a key"), (("2",), "str")]),
        (dict[str, int], {1.5: 1}, [(("<float>",), "as a key")]),
        (list[Callable[..., Any]], [print, 5], [((1,), "int")]),
    ],
)  # fmt: skip
def test_every_issue_has_its_path(hint: Any, value: Any, expected: list[Any]) -> None:
    found = wrong(hint, value)
    assert [path for path, _ in found] == [path for path, _ in expected]
    for (_, message), (_, said) in zip(found, expected, strict=True):
        assert said in message


def test_all_arguments_are_looked_at() -> None:
    def handler(a: int, b: str = "", /, c: list[int] = [], *rest: float, d: Color, **others: bytes) -> None:  # noqa: B006 - unused
        ...

    check = validator_of(handler)
    good = check.arguments([1, "x", [2], 3, 4.5], {"d": "red", "more": b"raw"})
    assert good == ([1, "x", [2], 3.0, 4.5], {"d": Color.RED, "more": b"raw"})
    assert type(good[0][3]) is float
    found = problems(check.arguments, ["1", 2, ["x"], 3, "y"], {"d": "green", "more": "text"})
    assert [path for path, _ in found] == [(0,), (1,), (2, 0), (4,), ("d",), ("more",)]
    assert check.arguments([1], {"d": "red", "c": [1]}) == ([1], {"d": Color.RED, "c": [1]})
    assert problems(check.arguments, [1], {"d": "red", "c": 5})[0][0] == ("c",)
    # A name that is positional only is one of the others.
    assert problems(check.arguments, [1], {"d": "red", "b": "text"})[0][0] == ("b",)


def test_the_error_says_what_it_is_about() -> None:
    with pytest.raises(ValidationFailed) as caught:
        taking(int).arguments(["hunter2"], {})
    error = caught.value
    assert (error.method, error.phase) == ("it", "input")
    assert str(error) == "the input of 'it' is invalid: [0]: Expected `int`, got `str`"
    with pytest.raises(ValidationFailed) as caught:
        returning(int).result("hunter2", "math.add")
    assert (caught.value.method, caught.value.phase) == ("math.add", "output")
    assert isinstance(error, ValueError)


def test_more_arguments_than_parameters_are_not_passed_over() -> None:
    def handler(a: int, *rest: int) -> None: ...
    def free(a: int, *rest: Any) -> None: ...

    assert problems(validator_of(handler).arguments, [1, 2, "x"], {})[0][0] == (2,)
    assert validator_of(free).arguments([1, 2, "x"], {}) == ([1, 2, "x"], {})


# What a function is ------------------------------------------------------------------------


class Owner:
    def method(self, a: int) -> int: ...  # type: ignore[empty-body]  # it is never run

    @classmethod
    def of_class(cls, a: int) -> int: ...  # type: ignore[empty-body]  # it is never run

    @staticmethod
    def alone(a: int) -> int: ...  # type: ignore[empty-body]  # it is never run

    def __call__(self, a: int) -> int: ...  # type: ignore[empty-body]  # it is never run


def add(before: str, a: int) -> int: ...  # type: ignore[empty-body]  # it is never run


@functools.wraps(add)
def wrapped(*args: Any) -> Any: ...


def test_callables_of_all_kinds_are_read() -> None:
    owner = Owner()
    for function in (owner.method, Owner.of_class, Owner.alone, owner, functools.partial(add, "x")):
        check = validator_of(function)
        assert [path for path, _ in problems(check.arguments, ["x"], {})] == [(0,)]
        assert problems(check.result, "x") == [((), "Expected `int`, got `str`")]
    assert [path for path, _ in problems(validator_of(wrapped).arguments, ["x", "y"], {})] == [(1,)]
    keyword = validator_of(functools.partial(add, a=1))
    assert keyword.arguments(["x"], {"a": 2}) == (["x"], {"a": 2})
    assert problems(keyword.arguments, ["x"], {"a": "y"})[0][0] == ("a",)


def test_a_bound_method_and_its_function_are_told_apart() -> None:
    assert problems(validator_of(Owner().method).arguments, ["x"], {})[0][0] == (0,)
    assert problems(validator_of(Owner.method).arguments, [Owner(), "x"], {})[0][0] == (1,)
    assert problems(validator_of(Owner().method).arguments, ["x"], {})[0][0] == (0,)


def test_a_wrapper_made_later_has_annotations_of_its_own() -> None:
    def inner(a: int) -> int: ...  # type: ignore[empty-body]  # it is never run

    validator_of(inner)

    @functools.wraps(inner, assigned=())
    def outer(a: str) -> str: ...  # type: ignore[empty-body]  # it is never run

    assert validator_of(outer).arguments(["x"], {}) == (["x"], {})
    assert validator_of(outer).result("x") == "x"


class Made:
    def __init__(self, size: int, *, name: str = "") -> None: ...


@pytest.mark.parametrize(
    ("cls", "args", "path"),
    [(Made, ["x"], (0,)), (Item, ["a", "x"], (1,)), (Point, [1, "x"], (1,)), (Pair, ["x"], (0,))],
)
def test_a_class_is_what_it_takes_to_make_an_instance(cls: Any, args: list[Any], path: tuple[int]) -> None:
    check = validator_of(cls)
    assert [where for where, _ in problems(check.arguments, args, {})] == [path]
    assert check.result("anything") == "anything"


def test_what_cannot_be_checked_is_left_alone() -> None:
    def unannotated(a, b=1): ...  # type: ignore[no-untyped-def]  # that is the test
    def unresolvable(a: OnlyForCheckers) -> OnlyForCheckers: ...
    def nothing_to_check(a: Any, b: object, c: T) -> Any: ...

    for function in (unannotated, unresolvable, nothing_to_check, print, int, 5, None):
        assert Validator.of(function, "it") is None

    def partly(
        a: OnlyForCheckers, b: int, c: NoSuchCheck, d: list[datetime.date | str]
    ) -> list[NoSuchCheck]: ...

    check = validator_of(partly)
    anything = object()
    assert check.arguments([anything, 1, anything, anything], {})[0] == [anything, 1, anything, anything]
    assert [path for path, _ in problems(check.arguments, [anything, "x", anything, anything], {})] == [(1,)]
    assert check.result(anything) is anything


def test_hostile_annotations_do_no_harm() -> None:
    class Meta(type):
        def __instancecheck__(cls, instance: object) -> bool:
            raise RuntimeError("no")

        def __hash__(cls) -> int:
            raise RuntimeError("no")

    class Hostile(metaclass=Meta):
        pass

    def handler(a): ...  # type: ignore[no-untyped-def]  # its annotations are put there next

    for hint in (Hostile, "1 / 0", 5, [Hostile]):
        handler.__dict__.clear()
        handler.__annotations__ = {"a": hint}
        assert Validator.of(handler, "it") is None


# Values of the channel's ----------------------------------------------------------------------


async def numbers() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    "hint", [AsyncIterator[int], AsyncGenerator[int, None], kk.StreamCall[int], AsyncIterator[int] | None]
)
def test_streams_pass_as_they_are(hint: Any) -> None:
    stream = numbers()
    assert taken(hint, stream) is stream
    assert taken(list[AsyncIterator[int]], [stream]) == [stream]


@pytest.mark.parametrize(
    "hint", [Callable[[int], int], Callable[..., Any] | None, OnProgress, kk.RemoteCallback[[int], int], Any]
)
def test_functions_pass_as_they_are(hint: Any) -> None:
    check = Validator.of(lambda: None, "it") if hint is Any else taking(hint)
    if check is not None:
        assert check.arguments([print], {})[0][0] is print
    assert taken(dict[str, Callable[..., Any]], {"a": print}) == {"a": print}
    # A function of this side's own is as good, and a stream need not be a generator.
    for inside in (kk.RemoteCallback[[int], int], kk.LocalCallback[[int], int], AsyncGenerator[int, None]):

        def handler(a: int, b): ...  # type: ignore[no-untyped-def]  # its annotation is put there next

        handler.__annotations__["b"] = list[inside]  # type: ignore[valid-type]  # not to a type checker
        assert validator_of(handler).arguments([1, [print]], {}) == ([1, [print]], {})


def test_undefined_is_an_argument_left_out() -> None:
    def handler(a: int = 7, b: int | None = 8, c: str | None = None) -> None: ...
    def without(a: int | None, b: int) -> None: ...

    check = validator_of(handler)
    assert check.arguments([UNDEFINED, UNDEFINED, UNDEFINED], {}) == ([7, 8, None], {})
    assert check.arguments([], {"b": UNDEFINED}) == ([], {"b": 8})
    found = problems(validator_of(without).arguments, [UNDEFINED, UNDEFINED], {})
    assert [path for path, _ in found] == [(1,)]
    assert validator_of(without).arguments([UNDEFINED, 1], {}) == ([None, 1], {})


def test_undefined_within_a_value_is_a_field_left_out() -> None:
    assert taken(Item, {"name": "a", "price": UNDEFINED, "since": UNDEFINED}) == Item("a")
    assert taken(list[int | None], [1, UNDEFINED]) == [1, None]
    assert wrong(Item, {"name": UNDEFINED}) == [(("name",), "Missing")]


# Results ------------------------------------------------------------------------------------


def test_a_result_is_converted_and_checked() -> None:
    assert returning(float).result(1) == 1.0
    assert returning(None).result(None) is None
    assert returning("Item").result({"name": "a"}) == Item("a")
    assert returning(Awaitable[int]).result(5) == 5
    assert problems(returning(None).result, 5) == [((), "Expected `null`, got `int`")]
    assert problems(returning(dict[str, int]).result, {"a": "x"}) == [(("a",), "Expected `int`, got `str`")]


def test_the_fields_of_instances_are_checked() -> None:
    good = Item("a", 1.5, [Item("b")], datetime.date(2024, 2, 29))
    check = returning(dict[str, list[Item | None]])
    assert check.result({"x": [good, None]})["x"][0] is good
    bad = Item("a", 1.5, [Item("b"), Item(5), Item("c", since="2024-02-29")])  # type: ignore[arg-type]  # wrong on purpose
    assert problems(check.result, {"x": [good, bad]}) == [
        (("x", 1, "parts", 1, "name"), "Expected `str`, got `int`"),
        (("x", 1, "parts", 2, "since"), "Expected `date | null`, got `str`"),
    ]
    point = Point(1)
    point.x_axis = "x"  # type: ignore[assignment]  # wrong on purpose
    assert problems(returning(tuple[int, Point]).result, (1, point))[0][0] == (1, "xAxis")
    assert problems(returning(Path | Circle).result, Path([Point(1), point]))[0][0] == ("points", 1, "xAxis")
    del good.parts
    assert problems(returning(Item).result, good) == [(("parts",), "Missing")]


def test_values_that_contain_themselves_end() -> None:
    item = Item("a")
    item.parts = [item]
    assert returning(Item).result(item) is item  # no codec takes it: that is said there
    tree: Any = {"value": 1, "children": []}
    tree["children"].append(tree)
    assert problems(returning(Tree).result, tree) == [((), "Nested too deeply")]
    deep: Any = Item("a")
    for _ in range(20_000):
        deep = Item("a", parts=[deep])
    assert problems(returning(Item).result, deep) == [((), "Nested too deeply")]
    while deep.parts:  # or its end would be one recursion
        deep = deep.parts.pop()


def test_a_result_may_be_a_value_or_a_stream() -> None:
    check = returning(list[int] | AsyncIterator[str])
    assert check.result([1]) == [1]
    assert problems(check.result, ["x"])[0][0] == (0,)
    assert check.chunks(["x"]) == ["x"]
    assert problems(check.chunks, [1])


# Streams ------------------------------------------------------------------------------------


def test_the_annotation_says_what_the_chunks_are() -> None:
    hints: list[Any] = [
        Iterator[int],
        AsyncIterator[int],
        AsyncGenerator[int, None],
        Generator[int, None, str],
        Awaitable[AsyncIterator[int]],
        kk.StreamCall[int],
    ]
    for hint in hints:
        check = returning(hint)
        assert check.checks_chunks
        assert check.chunks([1, 2]) == [1, 2]
        assert problems(check.chunks, ["x"]) == [((), "Expected `int`, got `str`")]
    assert problems(returning(AsyncIterator[int]).result, 5) == [((), "Expected a stream, got `int`")]
    assert returning(Iterator[int]).result([1]) == [1]  # it has no such promise to keep
    assert not returning(int).checks_chunks
    assert validator_of(numbers).checks_chunks


def test_what_a_stream_ends_with_is_checked() -> None:
    check = returning(Generator[int, None, str])
    assert check.stream_result("done") == "done"
    assert problems(check.stream_result, 5) == [((), "Expected `str`, got `int`")]
    assert returning(AsyncIterator[int]).stream_result(None) is None
    either = returning(Generator[int, None, datetime.datetime | str])
    assert either.stream_result("2024-02-29T12:00:00Z") == "2024-02-29T12:00:00Z"


def test_a_sink_says_what_its_chunks_are() -> None:
    async def handler(a: int, sink: kk.StreamSink[Point], b: str = "") -> Color: ...  # type: ignore[empty-body]  # it is never run

    check = validator_of(handler)
    assert check.arguments([1, "x"], {}) == ([1, "x"], {})
    assert [path for path, _ in problems(check.arguments, ["x", 1], {})] == [(0,), (1,)]
    assert check.chunks([{"xAxis": 1}]) == [Point(1)]
    assert check.stream_result("red") is Color.RED
    assert check.result("anything") == "anything"


@pytest.mark.parametrize("before", [0, 1, 3, 200])
def test_an_invalid_chunk_leaves_those_before_it(before: int) -> None:
    check = returning(AsyncIterator[Item])
    good = [{"name": str(index)} for index in range(before)]
    bad = Item("x", parts=[Item(5)])  # type: ignore[arg-type]  # wrong on purpose
    for wrong_one, path in (({"name": "x", "price": "y"}, ("price",)), (bad, ("parts", 0, "name"))):
        with pytest.raises(InvalidChunk) as caught:
            check.chunks([*good, wrong_one, {"name": "after"}])
        assert caught.value.valid == [Item(str(index)) for index in range(before)]
        assert [issue.path for issue in caught.value.issues] == [path]
        assert caught.value.phase == "output"


@pytest.mark.parametrize("count", [1, 5, 256])
@pytest.mark.parametrize(
    ("hint", "value"), [(int, 1), (str, "x"), (float, 1.5), (dict, {"a": 1}), (bytes, b"x")]
)
def test_plain_chunks_pass_as_they_are(hint: Any, value: Any, count: int) -> None:
    values = [value] * count
    check = returning(AsyncIterator[hint])
    assert check.chunks(values) == values
    assert check.chunks(values)[-1] is value
    with pytest.raises(InvalidChunk) as caught:
        check.chunks([*values, None])
    assert caught.value.valid == values


# Converters ---------------------------------------------------------------------------------


def test_a_converter_makes_what_a_caller_expects() -> None:
    to_item = converter(list[Item], "items")
    assert to_item is not None
    assert to_item([{"name": "a"}]) == [Item("a")]
    with pytest.raises(ValidationFailed) as caught:
        to_item([{"name": 5}])
    assert (caught.value.method, caught.value.phase) == ("items", "output")
    assert [issue.path for issue in caught.value.issues] == [(0, "name")]
    to_int = converter(int)
    assert to_int is not None
    assert to_int(5) == 5
    assert converter(Any) is None
    assert converter(T) is None


# Bounds -------------------------------------------------------------------------------------


def test_the_list_of_issues_is_bounded() -> None:
    found = wrong(list[int], ["x"] * 1000)
    assert found[:100] == [((index,), "Expected `int`, got `str`") for index in range(100)]
    assert found[100:] == [((), "and 900 more")]


def test_the_search_is_bounded_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issues, "_SECONDS", 0.05)
    clock = iter(range(1_000_000))
    monkeypatch.setattr(issues, "perf_counter", lambda: next(clock) * 0.001)
    found = wrong(list[list[int]], [["x"]] * 1000)
    assert 2 < len(found) <= 30
    assert found[-1] == ((), "and perhaps more")
    assert wrong(Item, {"name": 5}) == [(("name",), "Expected `str`, got `int`")]
    monkeypatch.setattr(issues, "_SECONDS", 0.8)
    found = wrong(list[list[int]], [["x"]] * 1000)
    assert len(found) == 101
    assert found[-1][1].startswith("and at least ")
    # With no time at all there is still the first issue, with the path that msgspec says.
    monkeypatch.setattr(issues, "_SECONDS", 0.0)
    assert wrong(Item, {"name": "a", "parts": [{"name": 5}]}) == [
        (("parts", 0, "name"), "Expected `str`, got `int`"),
        ((), "and perhaps more"),
    ]


def test_a_few_wrong_among_many_are_found() -> None:
    values: list[Any] = list(range(100_000))
    values[7] = values[50_000] = values[-1] = "x"
    assert [path for path, _ in wrong(list[int], values)] == [(7,), (50_000,), (99_999,)]
    table: dict[str, Any] = dict.fromkeys(map(str, values), 1)
    table["50001"] = "x"
    assert [path for path, _ in wrong(dict[str, int], table)] == [("50001",)]


def test_deep_values_of_recursive_types_end() -> None:
    tree: Any = {"value": "x", "children": []}
    for _ in range(300):
        tree = {"value": 1, "children": [tree]}
    found = wrong(Tree, tree)
    assert len(found) == 1
    assert found[0][1] == "Expected `int`, got `str`"
    for _ in range(20_000):
        tree = {"value": 1, "children": [tree]}
    assert wrong(Tree, tree) == [((), "Nested too deeply")]
    while tree["children"]:
        tree = tree["children"].pop()


def test_long_texts_are_cut_and_values_not_repeated() -> None:
    key = "k" * 10_000
    [(path, message)] = wrong(dict[str, Color], {key: "hunter2" * 1000})
    assert isinstance(path[0], str)
    assert len(path[0]) <= 200
    assert "hunter2" not in message

    found = wrong(dict[str, Literal["a"]], {"b": "hunter2", "c": 'x" - at `$`'})
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("hint", "value", "path"),
    [
        (int, "\ud800", ()),
        (Color | None, "\ud800", ()),
        (Literal["a", "b"], "\ud800", ()),
        (list[datetime.date], ["2024-01-01", "\ud800"], (1,)),
        (dict[int, str], {"\ud800": "x"}, ("\ud800",)),
        (Item, {"name": "\ud800", "price": "\ud800"}, ("price",)),
        (Item, {"name": "x", "\ud800": 1}, ()),
        (Circle | Path, {"type": "\ud800"}, ()),
    ],
    ids=["int", "enum", "literal", "items", "keys", "field", "name", "tag"],
)
def test_text_that_is_no_unicode_is_refused_where_text_alone_will_not_do(
    hint: Any, value: Any, path: tuple[str | int, ...]
) -> None:
    """JSON carries unpaired surrogates. As plain text they pass (the name above)."""
    with pytest.raises(ValidationFailed) as caught:
        taken(hint, value)
    assert [issue.path for issue in caught.value.issues] == [(0, *path)]
    assert taken(str, "\ud800") == "\ud800"


@pytest.mark.parametrize(
    ("hint", "value", "path"),
    [
        (float, decimal.Decimal("sNaN"), ()),
        (list[float | None], [1, decimal.Decimal("sNaN")], (1,)),
        (dict[str, int], ip_network("10.0.0.0/8"), ()),
        (list[int] | None, ip_network("::/0"), ()),
    ],
    ids=["number", "items", "mapping", "list"],
)
def test_values_that_msgspec_stumbles_over_are_refused(
    hint: Any, value: Any, path: tuple[str | int, ...]
) -> None:
    """CBOR carries them all."""
    with pytest.raises(ValidationFailed) as caught:
        taken(hint, value)
    assert [issue.path for issue in caught.value.issues] == [(0, *path)]


def test_a_list_for_a_mapping_is_one_issue() -> None:
    assert problems(lambda value: taken(dict[str, int], value), [1, 2]) == [
        ((0,), "Expected `object`, got `array`")
    ]


def test_text_that_is_no_unicode_in_results_and_chunks() -> None:
    with pytest.raises(ValidationFailed):
        returning(int).result("\ud800")
    with pytest.raises(ValidationFailed) as caught:
        returning(Item).result(Item("x", "\ud800"))  # type: ignore[arg-type]  # that is the test
    assert [issue.path for issue in caught.value.issues] == [("price",)]
    with pytest.raises(InvalidChunk) as invalid:
        returning(AsyncIterator[int]).chunks([1, 2, "\ud800"])
    assert invalid.value.valid == [1, 2]


def test_what_a_class_raises_by_mistake_is_its_own_error() -> None:
    with pytest.raises(KeyError):
        taken(Item, {"name": "broken"})


@pytest.mark.skipif(
    tuple(map(int, msgspec.__version__.split(".")[:2])) < (0, 22), reason="msgspec itself keeps them"
)
def test_a_function_that_goes_takes_what_was_learnt_with_it() -> None:
    import gc
    import weakref

    class Local:
        def method(self, other) -> None: ...  # type: ignore[no-untyped-def]  # its annotation is put there next

    Local.method.__annotations__["other"] = Local
    validator_of(Local().method)
    gone = weakref.ref(Local)
    del Local
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("few", [1, 300])
def test_mappings_of_anything_by_text_are_looked_at_and_not_copied(few: int) -> None:
    async def rows() -> AsyncIterator[dict[str, Any]]:
        yield {}

    validator = Validator.of(rows, "rows")
    assert validator is not None
    good: list[Any] = [{"a": object(), "b": {1: 2}} for _ in range(few)]
    assert all(given is sent for given, sent in zip(good, validator.chunks(good), strict=True))
    for wrong in ({1: 2}, {b"a": 1}, [("a", 1)], None, OrderedDict[Any, Any]({2: 1})):
        with pytest.raises(InvalidChunk) as caught:
            validator.chunks([*good, wrong])
        assert len(caught.value.valid) == few


class PartlyThere(TypedDict):
    name: str
    x: NotRequired[int]


class MayBeThere(msgspec.Struct):
    name: str
    x: int | None = None


def test_what_is_undefined_within_a_result_is_left_out() -> None:
    convert = converter(MayBeThere)
    assert convert is not None
    assert convert({"name": "a", "x": UNDEFINED}) == MayBeThere("a")


def test_a_field_that_need_not_be_there_is_checked_where_it_is() -> None:
    convert = converter(PartlyThere)
    assert convert is not None
    assert convert({"name": "a"}) == {"name": "a"}
    with pytest.raises(ValidationFailed) as caught:
        convert({"name": "a", "x": "bad"})
    assert [issue.path for issue in caught.value.issues] == [("x",)]
