"""What a peer may read and set: listed names, data alone, by value, found without running code."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import ipaddress
import logging
import os
import threading
import uuid
from array import array
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, ClassVar

import anyio.lowlevel
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kkrpc_py as kk
from kkrpc_py.channel.expose import Exposed
from tests.channel.harness import linked
from tests.channel.peer import request, response, result, scripted


def sets_one(exposed: Exposed) -> Callable[[tuple[str, ...]], Any]:
    """Sets what is at a path to 1, as a peer would."""
    return lambda path: exposed.setter(path).function(1)


RAN: list[str] = []
"""What ran that a look-up must not run."""


@pytest.fixture(autouse=True)
def nothing_ran() -> Iterator[None]:
    RAN.clear()
    yield
    assert RAN == []


def ran(name: str) -> Any:
    RAN.append(name)
    raise AssertionError(name)


class GreedyMeta(type):
    """A metaclass that notes whatever it is asked."""

    def __getattribute__(cls, name: str) -> Any:
        if name not in {"__mro__", "__name__", "__qualname__", "__module__", "__dict__"}:  # pytest's own
            RAN.append(f"GreedyMeta.{name}")
        return super().__getattribute__(name)

    def __hash__(cls) -> int:
        return ran("GreedyMeta.__hash__")

    def __eq__(cls, other: object) -> bool:
        return ran("GreedyMeta.__eq__")

    def __instancecheck__(cls, instance: object) -> bool:
        return ran("GreedyMeta.__instancecheck__")

    def __subclasscheck__(cls, other: type) -> bool:
        return ran("GreedyMeta.__subclasscheck__")


class Greedy(metaclass=GreedyMeta):
    """An object that notes whatever it is asked."""

    listed = "listed"

    def __getattribute__(self, name: str) -> Any:
        return ran(f"Greedy.{name}")

    def __getattr__(self, name: str) -> Any:
        return ran(f"Greedy.{name}")

    def __hash__(self) -> int:
        return ran("Greedy.__hash__")

    def __eq__(self, other: object) -> bool:
        return ran("Greedy.__eq__")

    def __repr__(self) -> str:
        return ran("Greedy.__repr__")

    def __bool__(self) -> bool:
        return ran("Greedy.__bool__")

    def __len__(self) -> int:
        return ran("Greedy.__len__")

    def __iter__(self) -> Any:
        return ran("Greedy.__iter__")

    def __copy__(self) -> Any:
        return ran("Greedy.__copy__")

    def __deepcopy__(self, memo: Any) -> Any:
        return ran("Greedy.__deepcopy__")

    def __reduce_ex__(self, protocol: Any) -> Any:
        return ran("Greedy.__reduce_ex__")

    def __index__(self) -> int:
        return ran("Greedy.__index__")

    def __str__(self) -> str:
        return ran("Greedy.__str__")


class Text(str):
    """Text that has an opinion of what it equals."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        RAN.append("Text.__eq__")
        return True

    def __hash__(self) -> int:
        RAN.append("Text.__hash__")
        return hash("text")

    def startswith(self, *args: Any) -> bool:
        RAN.append("Text.startswith")
        return False


class MyList(list[Any]):
    def __iter__(self) -> Any:
        return ran("MyList.__iter__")


class MyDict(dict[str, Any]):
    def __iter__(self) -> Any:
        return ran("MyDict.__iter__")

    def __getitem__(self, key: str) -> Any:
        return ran("MyDict.__getitem__")


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Odd(enum.Enum):
    FUNCTION = (print,)


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0
    tags: list[str] = dataclasses.field(default_factory=list)
    _cache: Any = None
    shared: ClassVar[int] = 5

    def length(self) -> float:
        return ran("Point.length")

    @property
    def area(self) -> int:
        return ran("Point.area")


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    _secret: str = "s"


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str
    _hidden: int = 1
    unset: int | msgspec.UnsetType = msgspec.UNSET


class Tagged(msgspec.Struct, tag="t"):
    a: int


class Row(msgspec.Struct, array_like=True):
    a: int
    b: str


class PrivateRow(msgspec.Struct, array_like=True):
    a: int
    _b: str


@dataclasses.dataclass
class Worker:
    """Data, but for one field."""

    name: str
    log: Any = dataclasses.field(default_factory=lambda: logging.getLogger("x"))


class Settings:
    """A namespace whose names are listed by its body."""

    theme = "light"
    size: int
    table: ClassVar[dict[str, Any]] = {"f": print}

    def __init__(self) -> None:
        self.size = 5
        self.own = "own"
        self._private = "private"


@kk.namespace
class Marked(Settings):
    more = "more"


class Slotted:
    __slots__ = ("_hidden", "a", "unset")

    def __init__(self) -> None:
        self.a = 1
        self._hidden = 2


class Base:
    inherited = "inherited"
    overridden = "base"
    taken = "taken"


class API(Base):
    overridden = "own"
    taken = None  # type: ignore[assignment]  # a subclass may
    text = "text"
    number = 5
    flag = True
    real = 1.5
    nothing = None
    raw = b"raw"
    buffer = bytearray(b"b")
    complex_ = 1j
    when = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    day = datetime.date(2026, 1, 2)
    time = datetime.time(1)
    span = datetime.timedelta(1)
    money = decimal.Decimal("1.10")
    ratio = fractions.Fraction(1, 3)
    id = uuid.UUID(int=5)
    address = ipaddress.ip_address("::1")
    color = Color.RED
    level = Level.HIGH
    items = [1, [2, (3, "x")], {"a": None}]
    pair = (1, [2])
    members = {1, ("a", 2)}
    frozen_members = frozenset({1})
    by_number = {1: "one", (1, 2): "pair", None: "none"}
    point = Point(1, tags=["t"])
    frozen = Frozen("n")
    renamed = Renamed("A")
    tagged = Tagged(1)
    row = Row(1, "b")
    points = [Point(1), {"p": Point(2)}]
    table: ClassVar[dict[Any, Any]] = {
        "text": "in a dict",
        "deeper": {"text": "deeper", "_text": "private", "empty": {}},
        "_text": "private",
        "": "empty",
        5: "number",
    }
    mixed: ClassVar[dict[str, Any]] = {"f": print, "text": "beside a function", "settings": Settings()}
    documents = [{"_id": 1, "a": 2}]
    twice: ClassVar[dict[str, Any]] = {"named": documents[0], "listed": documents}
    boxes: ClassVar[dict[str, Any]] = {"box": kk.writable({"_id": 1})}
    settings = Settings()
    slotted = Slotted()
    annotated: int
    annotated_elsewhere: int
    never_set: int
    set_in_both: str = "class"
    own_dict: dict[str, Any]
    replaced = {"a": "class"}
    late: Any = "class"

    def __init__(self) -> None:
        self.annotated = 7
        self.set_in_both = "instance"
        self.marked = Marked()
        self.own_dict = {"a": 1, "f": print}
        self.replaced = {"a": "instance"}
        self.unlisted = "unlisted"
        self.unlisted_dict: Any = {"a": 1, "deeper": {"a": 1}, "settings": Settings()}
        self.unlisted_settings = Settings()
        self._private = 1


TAKEN: dict[str, Any] = {
    "point": {"x": 1, "y": 0, "tags": ["t"]},
    "frozen": {"name": "n"},
    "renamed": {"firstName": "A"},
    "tagged": {"type": "t", "a": 1},
    "row": [1, "b"],
    "color": "red",
    "level": 3,
    "points": [{"x": 1, "y": 0, "tags": []}, {"p": {"x": 2, "y": 0, "tags": []}}],
    "inherited": "inherited",
    "overridden": "own",
    "taken": None,
    "annotated": 7,
    "set_in_both": "instance",
    "table.text": "in a dict",
    "table.deeper": {"text": "deeper", "empty": {}},
    "table.deeper.text": "deeper",
    "table.deeper.empty": {},
    "table": {"text": "in a dict", "deeper": {"text": "deeper", "empty": {}}, 5: "number"},
    "mixed.text": "beside a function",
    "mixed.settings.theme": "light",
    "documents": [{"_id": 1, "a": 2}],
    "twice": {"named": {"a": 2}, "listed": [{"_id": 1, "a": 2}]},
    "twice.listed": [{"_id": 1, "a": 2}],
    "boxes": {"box": {"_id": 1}},
    "settings.theme": "light",
    "settings.size": 5,
    "slotted.a": 1,
    "point.x": 1,
    "point.tags": ["t"],
    "point.shared": 5,
    "frozen.name": "n",
    "renamed.first_name": "A",
    "own_dict.a": 1,
    "replaced.a": "instance",
    "marked.more": "more",
    "marked.size": 5,
    "unlisted_dict.settings.theme": "light",
    **{
        name: getattr(API, name)
        for name in (
            "text number flag real nothing raw buffer complex_ when day time span money ratio id address "
            "items pair members frozen_members by_number"
        ).split()
    },
}


@pytest.mark.parametrize("path", TAKEN)
def test_what_is_listed_is_read(path: str) -> None:
    value = Exposed(API()).read(tuple(path.split(".")))
    assert value == TAKEN[path]
    assert type(value) is type(TAKEN[path])


class Hostile:
    """Nothing here is to be had, and none of it may run."""

    greedy = Greedy()
    greedy_class = Greedy
    in_list = [1, Greedy()]
    in_dict: ClassVar[dict[str, Any]] = {"deep": [{"x": Greedy()}], "fine": 1}
    as_key: ClassVar[Any] = None
    my_list = MyList([1])
    my_dict = MyDict(a=1)
    my_text = Text("x")
    texts = [Text("x")]
    function_in_list = [print]
    class_in_list = [int]
    module = os
    modules = (os,)
    exception = ValueError("x")
    logger = logging.getLogger("x")
    lock = threading.Lock()
    bound = [].append
    partial = functools.partial(print)
    lambda_ = staticmethod(lambda: 1)
    odd = Odd.FUNCTION
    worker = Worker("w")
    private_row = PrivateRow(1, "b")
    unset = msgspec.UNSET
    ellipsis_ = ...
    iterator = iter([1])
    generic = list[int]
    view = memoryview(b"x")
    slot_of_another = Slotted.__dict__["a"]
    box_in_list = [kk.writable(1)]
    box_in_value = [{"box": kk.writable(1)}]

    not_data: list[Any]
    only_annotated: int

    def __init__(self) -> None:
        self.not_data = [self]
        self.plain = "plain"
        self.__dict__["prop"] = "behind the property"
        self.__dict__["cached"] = "kept"
        self.__dict__["method"] = "in the way"

    @property
    def prop(self) -> str:
        return ran("prop")

    @functools.cached_property
    def cached(self) -> str:
        return ran("cached")

    @property
    def space(self) -> Any:
        return ran("space")

    @functools.cached_property
    def kept_space(self) -> Any:
        return ran("kept_space")

    def method(self) -> str:
        return ran("method")

    @classmethod
    def of_class(cls) -> str:
        return ran("of_class")

    class Nested:
        text = "nested"

    def __getattr__(self, name: str) -> Any:
        return ran(f"__getattr__({name})")


Hostile.as_key = {1: "fine", Point: 2}

# Each with the segment that leads nowhere.
REFUSED: dict[str, str] = {
    **{
        name: name
        for name in [*vars(Hostile), "plain", "absent", "not_data", "only_annotated", "upper", "", " ", "5"]
        if name != "_" and "." not in name
    },
    "in_dict.deep": "deep",
    "in_dict.fine.real": "fine",
    "in_dict._x": "_x",
    "in_dict.absent": "absent",
    "in_dict.absent.x": "absent",
    "in_dict.__class__": "__class__",
    "in_dict.keys": "keys",
    "in_list.0": "in_list",
    "greedy.x": "x",
    "greedy.__class__": "__class__",
    "greedy_class.listed": "greedy_class",
    "my_list.append": "append",
    "my_dict.a": "a",
    "my_text.upper": "upper",
    "module.sep": "module",
    "method.__name__": "method",
    "method.__self__": "method",
    "Nested.text": "Nested",
    "odd.name": "name",
    "odd.value": "value",
    "odd._value_": "_value_",
    "worker.log": "log",
    "worker.log.name": "log",
    "prop.x": "prop",
    "space.x": "space",
    "kept_space.x": "kept_space",
    "exception.args": "exception",
    "logger.name": "name",
    "logger.manager.disable": "manager",
    "plain.x": "plain",
    "unset.x": "unset",
    "box_in_list.value": "box_in_list",
    ".": "",
    ".x": "",
    "in_dict.": "",
    "in_dict..deep": "",
}


@pytest.mark.parametrize("path", REFUSED)
@pytest.mark.parametrize("how", ["read", "write"])
def test_what_is_not_listed_or_no_data_is_missing(path: str, how: str) -> None:
    api = Hostile()
    before = [dict(vars(api)), dict(vars(Hostile)), list(Hostile.in_dict)]
    exposed = Exposed(api)
    with pytest.raises(kk.PropertyNotFound) as caught:
        exposed.read(tuple(path.split("."))) if how == "read" else exposed.setter(
            tuple(path.split("."))
        ).function(1)
    assert caught.value.message == not_found(path, REFUSED[path])
    after = [dict(vars(api)), dict(vars(Hostile)), list(Hostile.in_dict)]
    assert all(list(map(id, old)) == list(map(id, new)) for old, new in zip(before, after, strict=True))


def not_found(path: str, at: str) -> str:
    return f"Property path {path} not found at {at}"


# The same for an API of which much may be read.
HIDDEN: dict[str, str] = {
    "_private": "_private",
    "__class__": "__class__",
    "__dict__": "__dict__",
    "__dict__.text": "__dict__",
    "__init__": "__init__",
    "__init__.__globals__": "__init__",
    "__module__": "__module__",
    "__doc__": "__doc__",
    "__annotations__": "__annotations__",
    "__slots__": "__slots__",
    "never_set": "never_set",
    "unlisted": "unlisted",
    "unlisted_dict": "unlisted_dict",
    "unlisted_dict.a": "a",
    "unlisted_dict.deeper": "deeper",
    "unlisted_dict.deeper.a": "a",
    "unlisted_settings": "unlisted_settings",
    "unlisted_settings.theme": "unlisted_settings",
    "own_dict": "own_dict",
    "own_dict.f": "f",
    "settings": "settings",
    "settings.own": "own",
    "settings._private": "_private",
    "settings.table": "table",
    "settings.table.f": "f",
    "slotted": "slotted",
    "slotted._hidden": "_hidden",
    "slotted.unset": "unset",
    "marked": "marked",
    "marked.own": "own",
    "mixed": "mixed",
    "mixed.f": "f",
    "mixed.settings": "settings",
    "table._text": "_text",
    "table.deeper._text": "_text",
    "table.": "",
    "table.5": "5",
    "table.text.x": "text",
    "text.upper": "text",
    "number.real": "number",
    "when.year": "when",
    "color.name": "name",
    "color.value": "value",
    "point._cache": "_cache",
    "point.area": "area",
    "point.length": "length",
    "point.__dataclass_fields__": "__dataclass_fields__",
    "renamed.firstName": "firstName",
    "renamed._hidden": "_hidden",
    "items.0": "items",
    "documents.0._id": "documents",
}


@pytest.mark.parametrize("path", HIDDEN)
@pytest.mark.parametrize("how", ["read", "write"])
def test_what_is_hidden_is_missing(path: str, how: str) -> None:
    exposed = Exposed(API())
    with pytest.raises(kk.PropertyNotFound) as caught:
        exposed.read(tuple(path.split("."))) if how == "read" else exposed.setter(
            tuple(path.split("."))
        ).function(1)
    assert caught.value.message == not_found(path, HIDDEN[path])


@pytest.mark.parametrize("path", TAKEN)
def test_what_may_be_read_is_not_writable_by_that(path: str) -> None:
    api = API()
    before = copy.deepcopy(vars(api)["own_dict"]["a"]), dict(API.table), api.annotated
    with pytest.raises(PermissionError) as caught:
        Exposed(api).setter(tuple(path.split("."))).function("changed")
    assert str(caught.value) == f"Property path {path} is not writable"
    assert (vars(api)["own_dict"]["a"], dict(API.table), api.annotated) == before
    assert Exposed(api).read(tuple(path.split("."))) == TAKEN[path]


@pytest.mark.parametrize(
    "path", [(), ("",), ("_",), ("a" * 1_000_000,), ("table",) * 10_000, ("deeper.text",)]
)
def test_odd_paths(path: tuple[str, ...]) -> None:
    exposed = Exposed(API())
    at = next((segment for segment in path if segment != "table"), "table" if path else "")
    for act in (exposed.read, sets_one(exposed)):
        with pytest.raises(kk.PropertyNotFound) as caught:
            act(path)
        assert caught.value.message == not_found(".".join(path), at)


def test_a_dict_may_lead_to_itself() -> None:
    table: dict[str, Any] = {"text": "x"}
    table["self"] = table
    exposed = Exposed(table)
    assert exposed.read((*["self"] * 10_000, "text")) == "x"
    with pytest.raises(kk.PropertyNotFound):
        exposed.read(("self",))


def test_a_segment_with_a_dot_is_one_name() -> None:
    exposed = Exposed({"example.com": 5, "example": {"com": 6}})
    assert exposed.read(("example.com",)) == 5
    assert exposed.read(("example", "com")) == 6


@pytest.mark.parametrize("segment", [Text("text"), Text("_x"), 5, None, b"text", ("text",)])
def test_a_segment_is_text_and_no_subclass_of_it(segment: Any) -> None:
    for api in ({"text": "x"}, API()):
        for path in ((segment,), ("table", segment), (segment, "x")):
            with pytest.raises(Exception, match=r"not found at|sequence item") as caught:
                Exposed(api).read(path)
            assert isinstance(caught.value, kk.PropertyNotFound | TypeError)
    RAN[:] = [each for each in RAN if each == "Text.startswith"]


def test_nothing_exposed_has_no_properties() -> None:
    exposed = Exposed(None)
    for act in (exposed.read, sets_one(exposed)):
        with pytest.raises(kk.MethodNotFound, match="No API implementation available"):
            act(("a",))


def test_names_of_builtin_types_are_not_listed() -> None:
    class Mine(list[int]):
        append: Any
        own = 1

        def __init__(self) -> None:
            super().__init__()
            self.append = 5

    class Failure(Exception):
        code = 7
        args: Any

    assert Exposed(Mine()).read(("own",)) == 1
    assert Exposed(Failure("x")).read(("code",)) == 7
    for api, name in ((Mine(), "clear"), (Failure("x"), "with_traceback"), (5, "real"), ("x", "upper")):
        with pytest.raises(kk.PropertyNotFound):
            Exposed(api).read((name,))


# Data --------------------------------------------------------------------------------------


def test_what_is_read_is_a_copy() -> None:
    class Store:
        items: ClassVar[Any] = [[1], {"a": [2]}, ({3}, bytearray(b"4")), Point(5, tags=["t"])]

    taken = Exposed(Store()).read(("items",))
    before = copy.deepcopy(taken)
    Store.items[0].append(print)
    Store.items[1]["a"].append(print)
    Store.items[2][0].add(9)
    Store.items[2][1].extend(b"9")
    Store.items[3].tags.append(print)
    Store.items.append(print)
    assert taken == before == [[1], {"a": [2]}, ({3}, b"4"), {"x": 5, "y": 0, "tags": ["t"]}]


def test_what_changes_while_it_is_read_is_read_or_missing() -> None:
    """A thread that puts a function there for a moment gets it to nobody."""

    class Store:
        items: ClassVar[Any] = {"a": [1, 2, 3], "b": {"c": 1}}

    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            Store.items["a"][1] = print
            Store.items["b"]["f"] = print
            Store.items["g"] = print
            Store.items["a"][1] = 2
            del Store.items["b"]["f"], Store.items["g"]

    thread = threading.Thread(target=change)
    thread.start()
    exposed, good = Exposed(Store()), 0
    try:
        for _ in range(3000):
            try:
                value = exposed.read(("items",))
            except kk.PropertyNotFound:
                continue
            good += 1
            assert value == {"a": [1, 2, 3], "b": {"c": 1}}
    finally:
        stop.set()
        thread.join()
    assert good > 0


def test_what_contains_itself_is_refused() -> None:
    items: list[Any] = [1]
    items.append({"again": (items,)})
    point = Point(1)
    point.tags.append(point)  # type: ignore[arg-type]  # nobody checks
    for value in (items, point):
        with pytest.raises(kk.PropertyNotFound):
            Exposed({"value": value}).read(("value",))


def test_what_is_there_twice_is_copied_once() -> None:
    """Else thirty lists would become a thousand million."""
    value: list[Any] = [1]
    for _ in range(100):
        value = [value, value]
    taken = Exposed({"value": value}).read(("value",))
    assert taken[0] is taken[1]
    assert taken[0][0] is not value[0][0]


def test_depth_is_bounded() -> None:
    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        return value

    assert Exposed({"value": nested(128)}).read(("value",)) == nested(128)
    for depth in (129, 100_000):
        value = nested(depth)
        with pytest.raises(kk.PropertyNotFound):
            Exposed({"value": value}).read(("value",))
        while value != 1:  # or the interpreter would nest as deep to free it
            (value,) = value


# Made within the test: pytest asks much of what it is given.
BAD = {
    "function": lambda: print,
    "object": object,
    "greedy object": Greedy,
    "greedy class": lambda: Greedy,
    "class": lambda: Color,
    "list of one's own": MyList,
    "text of one's own": lambda: Text("x"),
    "enum of a function": lambda: Odd.FUNCTION,
}


@pytest.mark.parametrize("kind", BAD)
def test_data_is_data_at_any_depth(kind: str) -> None:
    bad: Any = BAD[kind]()
    for value in ([bad], (1, bad), {"a": bad}, {"a": [{"b": (bad,)}]}, Point(bad), Tagged(bad), Row(1, bad)):
        exposed = Exposed({"value": value})
        RAN.clear()
        with pytest.raises(kk.PropertyNotFound):
            exposed.read(("value",))
        assert RAN == []


def test_keys_and_members_are_plain() -> None:
    @dataclasses.dataclass(frozen=True)
    class Key:
        a: int = 1

    for value in ({Key(): 1}, {(1, Key()): 1}, {Key()}, {frozenset({Key()})}, {Color.RED: 1}):
        with pytest.raises(kk.PropertyNotFound):
            Exposed({"value": value}).read(("value",))
    value = {frozenset({(1, None)}), ("a", decimal.Decimal(1))}
    assert Exposed({"value": value}).read(("value",)) == value


# writable ----------------------------------------------------------------------------------


class Writables:
    theme = kk.writable("light")
    size = kk.writable(10, type=Annotated[int, msgspec.Meta(gt=0)])
    items: kk.Writable[list[Any]] = kk.writable([1])
    table: ClassVar[dict[str, Any]] = {
        "theme": kk.writable("light"),
        "point": kk.writable(None, type=Point),
        "fixed": 1,
        "_hidden": kk.writable(1),
    }
    _private = kk.writable("private")


class Child(Writables):
    def grow(self) -> None:
        self.size += 1


def test_a_writable_is_an_attribute_of_each_instance() -> None:
    one, other = Writables(), Writables()
    assert (one.theme, one.size) == ("light", 10)
    one.theme = "dark"
    assert (one.theme, other.theme) == ("dark", "light")
    one.items.append(2)
    assert (one.items, other.items, Writables.items.value) == ([1, 2], [1], [1])
    assert isinstance(Writables.theme, kk.Writable)
    child = Child()
    child.grow()
    assert (child.size, vars(child)) == (11, {"size": 11})


def test_the_peer_sets_what_is_writable() -> None:
    api, other = Child(), Child()
    exposed = Exposed(api)
    exposed.setter(("theme",)).function("dark")
    assert exposed.read(("theme",)) == api.theme == "dark"
    assert other.theme == "light"
    api.theme = "own"
    assert exposed.read(("theme",)) == "own"
    exposed.setter(("items",)).function([3])
    assert (api.items, other.items) == ([3], [1])
    taken = exposed.read(("items",))
    taken.append(4)
    assert api.items == [3]


def test_reading_a_default_changes_nothing() -> None:
    api = Writables()
    assert Exposed(api).read(("items",)) == [1]
    assert vars(api) == {}


def test_a_writable_in_a_dict_is_a_box() -> None:
    box = kk.writable("light")
    api = {"settings": {"theme": box, "notifications": {"enabled": True}}, "_hidden": kk.writable(1)}
    exposed = Exposed(api)
    assert exposed.read(("settings", "theme")) == "light"
    exposed.setter(("settings", "theme")).function("dark")
    assert box.value == "dark"
    box.value = "blue"
    assert exposed.read(("settings",)) == {"theme": "blue", "notifications": {"enabled": True}}
    for path in (("_hidden",), ("settings", "theme", "value"), ("settings", "absent")):
        with pytest.raises(kk.PropertyNotFound):
            exposed.setter(path).function(1)
    for path in (("settings",), ("settings", "notifications", "enabled")):
        with pytest.raises(PermissionError):
            exposed.setter(path).function(1)
    assert list(api["settings"]) == ["theme", "notifications"]  # type: ignore[arg-type, call-overload]  # a dict


def test_a_box_is_listed_in_a_dict_that_only_an_instance_names() -> None:
    class API:
        def __init__(self) -> None:
            self.settings = {"theme": kk.writable("light"), "secret": "s"}

    exposed = Exposed(API())
    exposed.setter(("settings", "theme")).function("dark")
    assert exposed.read(("settings", "theme")) == "dark"
    for act in (exposed.read, sets_one(exposed)):
        with pytest.raises(kk.PropertyNotFound):
            act(("settings", "secret"))


def test_a_writable_that_only_an_instance_names_is_nobodys() -> None:
    class API:
        def __init__(self) -> None:
            self.theme = kk.writable("light")

    for act in (Exposed(API()).read, sets_one(Exposed(API()))):
        with pytest.raises(kk.PropertyNotFound):
            act(("theme",))


def test_a_subclass_says_what_its_name_is() -> None:
    class Fixed(Writables):
        theme = "fixed"  # type: ignore[assignment]  # a checker minds

    class Computed(Writables):
        @property
        def theme(self) -> str:  # type: ignore[override]  # the same
            return ran("theme")

    with pytest.raises(PermissionError):
        Exposed(Fixed()).setter(("theme",)).function("dark")
    for act in (Exposed(Computed()).read, sets_one(Exposed(Computed()))):
        with pytest.raises(kk.PropertyNotFound):
            act(("theme",))


@pytest.mark.parametrize(
    "path", ["_private", "__class__", "__dict__", "theme.__class__", "theme.value", "absent"]
)
def test_a_set_elsewhere_changes_nothing(path: str) -> None:
    api = Writables()
    before = dict(vars(Writables))
    with pytest.raises(kk.PropertyNotFound):
        Exposed(api).setter(tuple(path.split("."))).function("x")
    assert vars(api) == {}
    assert dict(vars(Writables)) == before


def test_no_path_leads_into_the_value_of_a_writable() -> None:
    """What the peer has put there is data of its own, and no namespace: nothing in it can be called."""

    class API:
        settings: kk.Writable[dict[str, Any]] = kk.writable({"a": 1})

    api = API()
    exposed = Exposed(api)
    exposed.setter(("settings",)).function({"f": print, "a": 2})
    assert api.settings["a"] == 2
    with pytest.raises(kk.MethodNotFound):
        exposed.find("settings.f")
    for act in (exposed.read, sets_one(exposed)):
        with pytest.raises(kk.PropertyNotFound):
            act(("settings", "a"))


def test_what_is_set_is_checked_and_converted() -> None:
    api = Writables()
    exposed = Exposed(api)
    exposed.setter(("size",)).function(3)
    with pytest.raises(kk.ValidationFailed) as caught:
        exposed.setter(("size",)).function(-1)
    assert (caught.value.method, caught.value.phase) == ("size", "input")
    assert len(caught.value.issues) == 1
    with pytest.raises(kk.ValidationFailed):
        exposed.setter(("size",)).function("three")
    assert api.size == 3
    exposed.setter(("table", "point")).function({"x": 1})
    assert Writables.table["point"].value == Point(1)
    with pytest.raises(kk.ValidationFailed) as caught:
        exposed.setter(("table", "point")).function({"x": 1, "tags": [5]})
    assert caught.value.method == "table.point"
    assert caught.value.issues[0].path == ("tags", 0)
    assert exposed.read(("table", "point")) == {"x": 1, "y": 0, "tags": []}
    Writables.table["point"].value = None


def test_a_dataclass_may_have_writable_fields() -> None:
    @dataclasses.dataclass
    class Config:
        name: str
        theme: kk.Writable[str] = kk.writable("light")  # noqa: RUF009 - a descriptor, not shared

    assert Exposed({"config": Config("a")}).read(("config",)) == {"name": "a", "theme": "light"}
    one, other = Config("a"), Config("b", "dark")  # type: ignore[arg-type]  # a checker wants the descriptor
    assert (one.theme, other.theme) == ("light", "dark")
    exposed = Exposed(one)
    exposed.setter(("theme",)).function("blue")
    assert (one.theme, other.theme) == ("blue", "dark")
    assert Exposed({"config": one}).read(("config",)) == {"name": "a", "theme": "blue"}
    with pytest.raises(PermissionError):
        exposed.setter(("name",)).function("x")


def test_frozen_is_for_ones_own_code() -> None:
    @dataclasses.dataclass(frozen=True)
    class Config:
        theme = kk.writable("light")

    api = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        api.theme = "dark"
    Exposed(api).setter(("theme",)).function("dark")
    assert api.theme == "dark"


def test_no_code_of_the_object_runs_when_it_is_set() -> None:
    class API:
        theme = kk.writable("light")

        def __setattr__(self, name: str, value: Any) -> None:
            ran("__setattr__")

        def __getattribute__(self, name: str) -> Any:
            return ran(name)

    exposed = Exposed(API())
    exposed.setter(("theme",)).function("dark")
    assert exposed.read(("theme",)) == "dark"


def test_a_writable_needs_a_place() -> None:
    class Roomy:
        __slots__ = ("__dict__", "a")
        theme = kk.writable("light")

    class Struct(msgspec.Struct, dict=True):
        a: int = 1
        theme = kk.writable("light")

    for api in (Roomy(), Struct()):
        Exposed(api).setter(("theme",)).function("dark")
        assert api.theme == "dark"

    # Before 3.12 what is raised there comes wrapped.
    with pytest.raises((TypeError, RuntimeError)) as caught:

        class Tight:
            __slots__ = ("a",)
            theme = kk.writable("light")

    assert "__slots__" in str(caught.value.__cause__ or caught.value)

    class Late:
        pass

    Late.theme = kk.writable("light")  # type: ignore[attr-defined]  # too late for a name
    for act in (Exposed(Late()).read, sets_one(Exposed(Late()))):
        with pytest.raises(TypeError, match="gets its name from a class body"):
            act(("theme",))

    with pytest.raises((TypeError, RuntimeError)):

        class Two:
            one = other = kk.writable(1)


# Through channels --------------------------------------------------------------------------


@pytest.mark.anyio
async def test_get_and_set_through_the_proxy() -> None:
    class Root:
        counter = kk.writable(7, type=int)
        settings: ClassVar[dict[str, Any]] = {
            "theme": kk.writable("light"),
            "notifications": {"enabled": True},
        }
        fixed = "fixed"
        func = [print]

    api = Root()
    async with linked(api) as (_, client):
        remote = client.remote()
        assert await remote.counter == 7
        await client.set(remote.counter, 8)
        assert await remote.counter == api.counter == 8
        await client.set(remote.settings.theme, "dark")
        assert await remote.settings == {"theme": "dark", "notifications": {"enabled": True}}
        with pytest.raises(PermissionError, match="Property path fixed is not writable"):
            await client.set(remote.fixed, 1)
        with pytest.raises(kk.PropertyNotFound, match="Property path a.b not found at a"):
            await remote.a.b
        with pytest.raises(kk.PropertyNotFound, match="Property path a.b not found at a"):
            await client.set(remote.a.b, 1)
        with pytest.raises(kk.PropertyNotFound, match="Property path func not found at func"):
            await remote.func
        with pytest.raises(kk.ValidationFailed) as caught:
            await client.set(remote.counter, "x")
        assert (caught.value.method, caught.value.phase) == ("counter", "input")
        assert api.counter == 8


@pytest.mark.anyio
async def test_values_of_every_kind_arrive() -> None:
    async with linked(API()) as (_, client):
        for path, value in TAKEN.items():
            if isinstance(value, datetime.time | datetime.timedelta):  # no codec carries it
                continue
            target: Any = client.remote()
            for segment in path.split("."):
                target = target[segment]
            arrived = await target
            match value:
                case _:
                    assert normal(arrived) == normal(value)


def normal(value: Any) -> Any:
    """As it arrives: lists for tuples, bytes for bytearrays."""
    if isinstance(value, list | tuple):
        return [normal(item) for item in value]
    return bytes(value) if isinstance(value, bytearray) else value


@pytest.mark.anyio
async def test_interceptors_stand_around_what_is_exposed() -> None:
    seen: list[Any] = []

    async def spy(ctx: kk.CallContext, next: kk.Next) -> Any:
        seen.append((ctx.kind, ctx.method, list(ctx.args)))
        return await next()

    async with linked({"theme": kk.writable("light"), "fixed": 1}, interceptors=[spy]) as (_, client):
        remote = client.remote()
        assert await remote.theme == "light"
        await client.set(remote.theme, "dark")
        assert await remote.theme == "dark"
        assert seen == [("get", "theme", []), ("set", "theme", ["dark"]), ("get", "theme", [])]
        for path in (remote.absent, remote.fixed.x):
            with pytest.raises(kk.PropertyNotFound):
                await path
            with pytest.raises(kk.PropertyNotFound):
                await client.set(path, 1)
        with pytest.raises(PermissionError):
            await client.set(remote.fixed, 1)
        assert len(seen) == 3


@pytest.mark.anyio
async def test_an_interceptor_may_refuse_or_change_what_is_set() -> None:
    async def guard(ctx: kk.CallContext, next: kk.Next) -> Any:
        if ctx.kind == "set":
            if ctx.args[0] == "bad":
                raise ValueError("bad")
            ctx.args[0] = ctx.args[0].upper()
        return await next()

    box = kk.writable("light")
    async with linked({"theme": box}, interceptors=[guard]) as (_, client):
        await client.set(client.remote().theme, "dark")
        assert box.value == "DARK"
        with pytest.raises(ValueError, match="bad"):
            await client.set(client.remote().theme, "bad")
        assert box.value == "DARK"


@pytest.mark.anyio
async def test_sets_and_gets_keep_their_order() -> None:
    box = kk.writable(0)
    async with scripted({"n": box}) as (_, peer):
        messages: list[Any] = []
        for n in range(200):
            messages.append({"id": 2 * n, "type": "set", "path": ["n"], "value": n})
            messages.append({"id": 2 * n + 1, "type": "get", "path": ["n"]})
        answers = {answer["id"]: answer for answer in await peer.exchange(*messages)}
        for n in range(200):
            assert answers[2 * n] == result(2 * n, True)
            assert answers[2 * n + 1] == result(2 * n + 1, n)


@pytest.mark.anyio
async def test_bad_gets_and_sets_from_the_wire() -> None:
    async with scripted(Hostile()) as (channel, peer):
        for n, (path, at) in enumerate(REFUSED.items()):
            for message in (
                {"id": n, "type": "get", "path": path.split(".")},
                {"id": n, "type": "set", "path": path.split("."), "value": 1},
            ):
                assert await peer.exchange(message) == [response(n, error=not_found(path, at))]
        assert channel.connection.violations == 0
        (answer,) = await peer.exchange(request("after", "absent"))
        assert answer["args"]["error"] == "Method absent is not a function"


@pytest.mark.anyio
async def test_what_was_set_to_a_function_is_not_read() -> None:
    """A writable may take a callback, if its author lets it; reading it gives nobody a function."""
    box: kk.Writable[Any] = kk.writable(None)
    heard: list[int] = []

    async def listener(value: int) -> None:
        heard.append(value)

    async with linked({"on_change": box}, quiet=False) as (_, client):
        await client.set(client.remote().on_change, listener)
        await box.value(5)
        assert heard == [5]
        with pytest.raises(kk.PropertyNotFound):
            await client.remote().on_change


async def forever() -> AsyncIterator[int]:
    while True:
        yield 1
        await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
async def test_a_stream_is_no_property() -> None:
    async with linked({"stream": forever(), "streams": [forever]}) as (_, client):
        for path in (client.remote().stream, client.remote().streams):
            with pytest.raises(kk.PropertyNotFound):
                await path


# Any value at all ---------------------------------------------------------------------------

HASHABLE = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.binary(max_size=3))
LEAVES = st.one_of(HASHABLE, st.floats(allow_nan=False), st.decimals(allow_nan=False), st.uuids())
NO_DATA = st.sampled_from([print, int, os, logging.getLogger("x"), object(), MyDict()])


def containers(inner: Any) -> Any:
    return st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(HASHABLE, inner, max_size=3),
        st.sets(HASHABLE, max_size=3),
        st.builds(Point, inner),
        st.builds(Tagged, inner),
    )


def shown(value: Any) -> tuple[Any, bool]:
    """The plain form of a value, and whether all of it is data; written once more, as simply as can be."""
    match value:
        case Point():
            return shown({"x": value.x, "y": value.y, "tags": value.tags})
        case Tagged():
            return shown({"type": "t", "a": value.a})
        case list() | tuple():
            parts = [shown(item) for item in value]
            return type(value)(part for part, _ in parts), all(fine for _, fine in parts)
        case dict() if type(value) is dict:
            pairs = {key: shown(item) for key, item in value.items()}
            return {key: part for key, (part, _) in pairs.items()}, all(fine for _, fine in pairs.values())
        case _:
            known = (type(None), bool, int, float, str, bytes, set, decimal.Decimal, uuid.UUID)
            return value, type(value) in known


def mutable_parts(value: Any) -> set[int]:
    match value:
        case dict():
            return {id(value)}.union(*map(mutable_parts, value.values()))
        case list() | tuple():
            return ({id(value)} if isinstance(value, list) else set()).union(*map(mutable_parts, value))
        case set():
            return {id(value)}
        case Point() | Tagged():
            return mutable_parts([value.x, value.tags] if isinstance(value, Point) else [value.a])
        case _:
            return set()


@given(st.recursive(st.one_of(LEAVES, LEAVES, LEAVES, NO_DATA), containers, max_leaves=8))
def test_any_value_is_copied_whole_or_missing(value: Any) -> None:
    expected, fine = shown(value)
    exposed = Exposed({"api": [value]})
    if not fine:
        with pytest.raises(kk.PropertyNotFound):
            exposed.read(("api",))
        return
    (taken,) = exposed.read(("api",))
    assert taken == expected
    assert type(taken) is type(expected)
    assert not mutable_parts(taken) & mutable_parts(value)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "value",
    [
        {1: "a", 2: [{"b": None}]},
        kk.js.Map({"a": 1}),
        kk.js.BigInt(5),
        {"deep": kk.js.Map({"m": {1, 2}})},
        array("d", [0.5]),
    ],
    ids=repr,
)
async def test_what_a_superjson_peer_set_can_be_read_again(value: Any) -> None:
    class Store:
        anything: kk.Writable[Any] = kk.writable(None)

    async with linked(Store(), codec="superjson") as (_, client):
        api = client.remote()
        await client.set(api.anything, value)
        assert await api.anything == value
