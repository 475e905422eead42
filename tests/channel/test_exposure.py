"""What a peer may reach of the exposed object: what is listed, and nothing else, found without running code.

The paths are sent as bytes, past the proxy, which would refuse some of them on the caller's side already.
"""

from __future__ import annotations

import collections
import collections.abc
import datetime
import enum
import functools
import logging
import os
from collections.abc import AsyncGenerator, Iterator
from typing import Any, ClassVar, Generic, TypeVar

import pytest

import kkrpc_py as kk
from kkrpc_py.channel.expose import Exposed
from tests.channel.harness import linked
from tests.channel.peer import chunk, end, opened, request, response, result, scripted

pytestmark = pytest.mark.anyio

T = TypeVar("T")
RAN: list[str] = []
"""What ran that a look-up must not run."""


@pytest.fixture(autouse=True)
def nothing_ran() -> Iterator[None]:
    RAN.clear()
    yield
    assert RAN == []


def public(*args: Any) -> list[Any]:
    return ["public", *args]


public.helper = public  # type: ignore[attr-defined]  # functions take attributes


async def secret(*args: Any) -> str:
    raise AssertionError("reached")


class Caller:
    """An instance that can be called."""

    async def __call__(self, *args: Any) -> list[Any]:
        return ["called", *args]

    def method(self) -> str:
        return "a method of a callable"


class GreedyCaller(Caller):
    def __getattr__(self, name: str) -> Any:
        RAN.append(f"GreedyCaller.__getattr__({name})")
        return secret


class Descriptor:
    def __get__(self, instance: Any, owner: Any) -> Any:
        RAN.append("Descriptor.__get__")
        return secret

    def __call__(self) -> None:
        raise AssertionError("reached")


class Leaf:
    shared: ClassVar[dict[str, Any]] = {"f": public}

    def __init__(self) -> None:
        self.hidden = Caller
        self.function = public

    def f(self) -> str:
        return "leaf"

    def _f(self) -> None:
        raise AssertionError("reached")


@kk.namespace
class Marked:
    leaf = Leaf()

    def __init__(self, depth: int = 2) -> None:
        self.plain = Leaf()
        if depth:
            self.deeper = Marked(depth - 1)

    def f(self) -> str:
        return "marked"

    @property
    def prop(self) -> Any:
        RAN.append("Marked.prop")
        return Leaf()


class MarkedChild(Marked):
    def g(self) -> str:
        return "child"


class GreedyMeta(type):
    def __getattr__(cls, name: str) -> Any:
        if not name.startswith("__kkrpc"):  # pytest asks every class of a module for names of its own
            raise AttributeError(name)
        RAN.append(f"GreedyMeta.__getattr__({name})")
        return True


class OfGreedyMeta(metaclass=GreedyMeta):
    def f(self) -> None:
        raise AssertionError("reached")


class Slotted:
    __slots__ = ("marked", "plain", "table", "unset")

    def __init__(self) -> None:
        self.marked = Marked()
        self.plain = Leaf()
        self.table = {"f": public}

    def f(self) -> str:
        return "slotted"


class GreedySlotted(Slotted):
    """Its slots are found without asking it."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("__"):
            RAN.append(f"GreedySlotted.__getattribute__({name})")
        return super().__getattribute__(name)


class Lying:
    """An object that says that it is of another class, as proxies do."""

    @property
    def __class__(self) -> Any:
        RAN.append("Lying.__class__")
        return dict

    def f(self) -> str:
        return "lying"


class Numbers(enum.IntEnum):
    ONE = 1

    def f(self) -> str:
        return "number"


class MyList(list[Any]):
    def f(self) -> str:
        return "my list"


class MyDict(dict[str, Any]):
    def f(self) -> str:
        return "my dict"

    def __missing__(self, key: str) -> Any:
        RAN.append("MyDict.__missing__")
        return secret


class MyText(str):
    __slots__ = ()

    def f(self) -> str:
        return "my text"


class Base(Generic[T]):
    def inherited(self, value: Any) -> list[Any]:
        return ["inherited", value]

    def overridden(self) -> str:
        raise AssertionError("reached")

    def taken_away(self) -> None:
        raise AssertionError("reached")

    @staticmethod
    def static(value: Any) -> list[Any]:
        return ["static", value]

    @classmethod
    def of_class(cls, value: Any) -> list[Any]:
        return [cls.__name__, value]


class API(Base[int]):
    leaf = Leaf()
    slotted = Slotted()
    greedy_slotted = GreedySlotted()
    caller = Caller()
    greedy_caller = GreedyCaller()
    lying = Lying()
    numbers = Numbers.ONE
    my_list = MyList([1])
    my_dict = MyDict(f=secret, key=secret)
    my_text = MyText("x")
    table: ClassVar[dict[Any, Any]] = {
        "f": public,
        "caller": Caller(),
        "partial": functools.partial(public, 0),
        "bound": Leaf().f,
        "builtin": len,
        "with space": public,
        "deeper": {"f": public, "leaf": Leaf(), "_f": secret, "__class__": secret, "": secret},
        "marked": Marked(),
        "Class": Leaf,
        "module": os,
        "text": "x",
        "number": 5,
        "nothing": None,
        "_f": secret,
        "_deeper": {"f": secret},
        "": secret,
        "my_dict": MyDict(f=secret),
        5: secret,
    }
    ordered = collections.OrderedDict(f=secret)
    default = collections.defaultdict(lambda: secret)

    Inner = Leaf
    Error = ValueError
    module = os
    text = "text"
    number = 5
    items = (1, 2)
    when = datetime.datetime(2026, 1, 1)
    raw = b"raw"
    descriptor = Descriptor()
    taken_away = None

    partial = staticmethod(functools.partial(public, 1))
    partial_method = functools.partialmethod(Base.inherited, 2)

    def __init__(self) -> None:
        self.logger = logging.getLogger("x")
        self.path = os.curdir
        self.plain = Leaf()
        self.marked = Marked()
        self.marked_child = MarkedChild()
        self.of_greedy_meta = OfGreedyMeta()
        self.function = public
        self.instance_caller = Caller()
        self.shadowed = 5
        self.own_dict = {"f": public, "_f": secret}
        self.own_my_dict = MyDict(f=secret)
        self.Class = Leaf
        self.module_of_instance = os
        self._private = Marked()

    def f(self) -> str:
        return "f"

    async def g(self, *args: Any) -> list[Any]:
        return list(args)

    async def stream(self) -> AsyncGenerator[int]:
        yield 1

    def overridden(self) -> str:
        return "overridden"

    def shadowed(self) -> None:  # type: ignore[no-redef]  # the second is the one that counts
        raise AssertionError("reached")

    def _hidden(self) -> None:
        raise AssertionError("reached")

    def __mangled(self) -> None:
        raise AssertionError("reached")

    class Nested:
        def f(self) -> None:
            raise AssertionError("reached")

        @staticmethod
        def g() -> None:
            raise AssertionError("reached")

    @property
    def prop(self) -> Any:
        RAN.append("prop")
        return secret

    @property
    def prop_namespace(self) -> Any:
        RAN.append("prop_namespace")
        return Marked()

    @functools.cached_property
    def cached(self) -> Any:
        RAN.append("cached")
        return Marked()

    def __getattr__(self, name: str) -> Any:
        RAN.append(f"__getattr__({name})")
        return secret


REACHED: dict[str, Any] = {
    "f": "f",
    "inherited": ["inherited", 1],
    "overridden": "overridden",
    "static": ["static", 1],
    "of_class": ["API", 1],
    "partial": ["public", 1, 1],
    "partial_method": ["inherited", 2],
    "g": [1],
    "caller": ["called", 1],
    "caller.method": "a method of a callable",
    "greedy_caller": ["called", 1],
    "lying.f": "lying",
    "leaf.f": "leaf",
    "leaf.shared.f": ["public", 1],
    "slotted.f": "slotted",
    "slotted.marked.f": "marked",
    "slotted.table.f": ["public", 1],
    "greedy_slotted.marked.f": "marked",
    "numbers.f": "number",
    "my_list.f": "my list",
    "my_dict.f": "my dict",
    "my_text.f": "my text",
    "table.f": ["public", 1],
    "table.caller": ["called", 1],
    "table.caller.method": "a method of a callable",
    "table.partial": ["public", 0, 1],
    "table.bound": "leaf",
    "table.with space": ["public", 1],
    "table.deeper.f": ["public", 1],
    "table.deeper.leaf.f": "leaf",
    "table.marked.leaf.f": "leaf",
    "marked.f": "marked",
    "marked.leaf.f": "leaf",
    "marked.deeper.deeper.f": "marked",
    "marked_child.f": "marked",
    "marked_child.g": "child",
    "own_dict.f": ["public", 1],
}
# What takes no argument.
BARE = {
    "f",
    "overridden",
    "partial_method",
    "caller.method",
    "table.caller.method",
    "table.bound",
    *(path for path, value in REACHED.items() if type(value) is str),
}


@pytest.mark.parametrize("path", REACHED)
async def test_what_is_listed_is_reached(path: str) -> None:
    async with scripted(API()) as (_, peer):
        args = () if path in BARE else (1,)
        assert await peer.exchange(request(1, path, *args)) == [result(1, REACHED[path])]


# Each with the segment that leads nowhere; None: the last one is nothing to call.
REFUSED: dict[str, str | None] = {
    # names with an underscore
    "_hidden": None,
    "__mangled": None,
    "_API__mangled": None,
    "__init__": None,
    "__class__": None,
    "__reduce__": None,
    "__dict__.f": "__dict__",
    "__class__.f": "__class__",
    "_private.f": "_private",
    "leaf._f": None,
    "leaf.__init__.__globals__.f": "__init__",
    "table._f": None,
    "table._deeper.f": "_deeper",
    "table.deeper._f": None,
    "table.deeper.__class__": None,
    "\uff3fhidden": None,
    # segments that are empty
    "": None,
    ".": "",
    ".f": "",
    "f.": "f",
    "leaf.": None,
    "leaf..f": "",
    "table.": None,
    "table.deeper.": None,
    "..f": "",
    # through functions and methods
    "f.helper": "f",
    "f.__func__": "f",
    "f.__self__.f": "f",
    "table.f.helper": "f",
    "partial.func": "partial",
    "table.partial.func": "partial",
    "table.bound.f": "bound",
    "table.builtin.f": "builtin",
    # classes, and what is in them
    "Inner": None,
    "Inner.f": "Inner",
    "Nested": None,
    "Nested.f": "Nested",
    "Nested.g": "Nested",
    "Error": None,
    "Error.mro": "Error",
    "Class": None,
    "Class.f": "Class",
    "table.Class": None,
    "table.Class.f": "Class",
    # modules
    "module.system": "module",
    "module.path.join": "module",
    "table.module.getcwd": "module",
    "module_of_instance.getcwd": "module_of_instance",
    # what a builtin type defines
    "text.upper": "text",
    "number.bit_length": "number",
    "items.count": "items",
    "when.isoformat": "when",
    "raw.hex": "raw",
    "table.text.upper": "text",
    "table.number.bit_length": "number",
    "table.nothing.f": "nothing",
    "numbers.to_bytes": None,
    "numbers.bit_length": None,
    "numbers.name": None,
    "my_list.append": None,
    "my_list.clear": None,
    "my_dict.clear": None,
    "my_dict.key": None,
    "my_dict.absent": None,
    "my_text.upper": None,
    "table.clear": None,
    "table.update": None,
    "table.get": None,
    "table.keys": None,
    "table.my_dict.clear": None,
    "table.5": None,
    "ordered.f": "ordered",
    "ordered.move_to_end": "ordered",
    "default.f": "default",
    # what is no function
    "text": None,
    "number": None,
    "taken_away": None,
    "leaf": None,
    "table": None,
    "table.text": None,
    "table.nothing": None,
    "table.deeper": None,
    # code of its own
    "prop": None,
    "prop.f": "prop",
    "prop_namespace.f": "prop_namespace",
    "cached.f": "cached",
    "descriptor": None,
    "descriptor.f": "descriptor",
    "marked.prop.f": "prop",
    "greedy_caller.f": None,
    "absent": None,
    "absent.f": "absent",
    # attributes of the instance
    "logger.info": "logger",
    "path": None,
    "path.upper": "path",
    "plain.f": "plain",
    "function": None,
    "instance_caller": None,
    "instance_caller.method": "instance_caller",
    "shadowed": None,
    "own_dict._f": None,
    "own_my_dict.f": "own_my_dict",
    "of_greedy_meta.f": "of_greedy_meta",
    "leaf.function": None,
    "leaf.hidden.f": "hidden",
    "marked.plain.f": "plain",
    "slotted.plain.f": "plain",
    "slotted.unset": None,
    "slotted.unset.f": "unset",
    "slotted.marked": None,
    "greedy_slotted.plain.f": "plain",
    # what is there, too deep
    "f.f": "f",
    "stream.asend": "stream",
    "leaf.f.f": "f",
}


def refusal(path: str, at: str | None) -> str:
    return f"Method {path} is not a function" if at is None else f"Method path {path} not found at {at}"


def construct_refusal(path: str, at: str | None) -> str:
    if at is None:
        return f"{path} is not a constructor function"
    return f"Constructor path {path} not found at {at}"


# Of these, what is no function but may be read.
READABLE: dict[str, Any] = {
    "text": "text",
    "number": 5,
    "taken_away": None,
    "table.text": "x",
    "table.nothing": None,
}


@pytest.mark.parametrize("path", REFUSED)
async def test_what_is_not_listed_is_missing(path: str) -> None:
    """The same text, the same counters, and nothing has run, whatever lies under the name."""
    at = REFUSED[path]
    segments = path.split(".")
    api = API()
    before = dict(vars(api)), dict(api.table)
    async with scripted(api) as (channel, peer):
        answers = await peer.exchange(
            request(1, path, 1),
            {"id": 2, "type": "construct", "method": path},
            {"id": 3, "type": "get", "path": segments},
            {"id": 4, "type": "set", "path": segments, "value": 1},
        )
        called, made, read, written = sorted(answers, key=lambda answer: answer["id"])
        assert called == response(1, error=refusal(path, at))
        assert made == response(2, error=construct_refusal(path, at))
        if path in READABLE:
            assert read == result(3, READABLE[path])
            assert written["args"]["error"]["name"] == "PermissionError"
        else:
            missing = f"Property path {path} not found at {segments[-1] if at is None else at}"
            assert read == response(3, error=missing)
            assert written == response(4, error=missing)
        assert channel.connection.violations == channel.connection.noise == 0
    assert (dict(vars(api)), dict(api.table)) == before


class Hollow:
    pass


class Empty:
    leaf = Hollow()
    table: ClassVar[dict[str, Any]] = {"deeper": {}}


async def test_refused_and_missing_cannot_be_told_apart() -> None:
    """Each refused path beside its twin of as many segments that is missing where the other is refused."""
    async with scripted(API()) as (_, hiding), scripted(Empty()) as (_, without):
        for path, at in REFUSED.items():
            segments = path.split(".")
            index = len(segments) - 1 if at is None else segments.index(at)
            # The way to it, by names that both APIs have, then the name itself.
            way = [] if index == 0 else ["table", "deeper"] if index == 2 else ["leaf"]
            twin = ".".join([*way[:index], *segments[index:]]) if len(way) == index else None
            (refused,) = await hiding.exchange(request(1, path))
            if twin is None:
                continue
            (missing,) = await without.exchange(request(1, twin))
            assert refused["args"]["error"].replace(path, "X") == missing["args"]["error"].replace(twin, "X")


async def test_nothing_exposed() -> None:
    async with scripted() as (channel, peer):
        for path in ("f", "_f", "a.b.c", ""):
            for message in (
                request(1, path),
                {"id": 1, "type": "construct", "method": path},
                {"id": 1, "type": "get", "path": path.split(".")},
                {"id": 1, "type": "set", "path": path.split("."), "value": 1},
            ):
                (answer,) = await peer.exchange(message)
                assert answer["args"]["error"] == "No API implementation available"
        assert channel.connection.violations == 0


@pytest.mark.parametrize("api", [API, os, int, Marked, logging], ids=lambda api: api.__name__)
async def test_a_class_or_a_module_cannot_be_exposed(api: Any) -> None:
    with pytest.raises(TypeError, match="expose an object"):
        async with scripted(api):
            pass


class Mapping(collections.abc.Mapping[str, Any]):
    """A mapping of one's own is an object: its keys are data."""

    def __getitem__(self, key: str) -> Any:
        RAN.append("Mapping.__getitem__")
        return secret

    def __iter__(self) -> Iterator[str]:
        return iter(["f"])

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    "api",
    [MyDict(f=secret), collections.OrderedDict(f=secret), collections.defaultdict(lambda: secret), Mapping()],
    ids=lambda api: type(api).__name__,
)
async def test_only_a_plain_dict_is_a_namespace_by_its_keys(api: Any) -> None:
    async with scripted(api) as (_, peer):
        (answer,) = await peer.exchange(request(1, "absent"))
        assert answer["args"]["error"] == refusal("absent", None)
        (answer,) = await peer.exchange(request(1, "clear"))
        assert answer["args"]["error"] == refusal("clear", None)


@pytest.mark.parametrize("api", [5, "text", [1], public, Caller(), object(), Leaf().f, range(3), 1j])
async def test_any_object_exposes_at_most_the_methods_of_its_own_class(api: Any) -> None:
    async with scripted(api) as (_, peer):
        names = sorted({*dir(api), "helper", ""} - {"method"})
        answers = await peer.exchange(*[request(name, name) for name in names])
        assert [answer["args"] for answer in answers] == [{"error": refusal(name, None)} for name in names]


async def test_a_dict_of_functions_and_objects() -> None:
    api = {"f": public, "leaf": Leaf(), "_f": secret, "made": functools.partial(public, 5)}
    async with scripted(api) as (_, peer):
        answers = await peer.exchange(
            request(1, "f", 1), request(2, "leaf.f"), request(3, "_f"), request(4, "made"), request(5, "keys")
        )
        assert sorted(answers, key=lambda answer: answer["id"]) == [
            result(1, ["public", 1]),
            result(2, "leaf"),
            response(3, error=refusal("_f", None)),
            result(4, ["public", 5]),
            response(5, error=refusal("keys", None)),
        ]
        # A namespace may grow while the channel runs.
        api["late"] = lambda: "late"
        assert await peer.exchange(request(6, "late")) == [result(6, "late")]
        del api["late"]
        (answer,) = await peer.exchange(request(7, "late"))
        assert answer["args"] == {"error": refusal("late", None)}


async def test_the_hello_cannot_be_taken_over() -> None:
    """HEL-1, HEL-7: its name is reserved, and no interceptor sees it."""
    seen: list[str] = []

    async def spy(ctx: kk.CallContext, next: kk.Next) -> Any:
        seen.append(ctx.method)
        return await next()

    api = {"kkrpc": {"hello": secret, "other": public}}
    async with scripted(api, interceptors=[spy]) as (_, peer):
        (answer,) = await peer.exchange(
            request("h", "kkrpc.hello", {"protocol": 1, "features": ["credit", "cancel"]})
        )
        assert answer["args"]["result"]["protocol"] == 1
        assert await peer.exchange(request(1, "kkrpc.other")) == [result(1, ["public"])]
    assert seen == ["kkrpc.other"]


async def test_an_interceptor_sees_no_call_of_what_is_not_exposed() -> None:
    seen: list[str] = []

    async def spy(ctx: kk.CallContext, next: kk.Next) -> Any:
        seen.append(ctx.method)
        return await next()

    async with scripted(API(), interceptors=[spy]) as (_, peer):
        for path, at in REFUSED.items():
            (answer,) = await peer.exchange(request(1, path))
            assert answer["args"] == {"error": refusal(path, at)}
    assert seen == []


async def test_generators_and_sinks_are_reached_by_the_same_rules() -> None:
    class Streams:
        @staticmethod
        async def static(n: int) -> AsyncGenerator[int]:
            yield n

        @classmethod
        def of_class(cls, n: int) -> Iterator[int]:
            yield n

        async def sink(self, n: int, sink: kk.StreamSink[int]) -> None:
            await sink.send(n)

        nested: ClassVar[dict[str, Any]] = {}

    async def function(n: int) -> AsyncGenerator[int]:
        yield n

    async def sink(sink: kk.StreamSink[int], n: int) -> None:
        await sink.send(n)

    Streams.nested = {
        "function": function,
        "partial": functools.partial(function, 5),
        "sink": sink,
        "bound": Streams().sink,
    }
    async with scripted(Streams()) as (_, peer):
        for path in ("static", "of_class", "sink", "nested.function", "nested.bound"):
            assert await peer.exchange(request(1, path, 5)) == [opened(1), chunk(1, 5), end(1)], path
        assert await peer.exchange(request(1, "nested.partial")) == [opened(1), chunk(1, 5), end(1)]


async def test_what_was_called_once_is_looked_up_anew() -> None:
    """The short way to a method holds only as long as the long one would lead there too."""

    class Base:
        async def moved(self) -> str:
            return "the base's"

    class API(Base):
        async def moved(self) -> str:
            return "the class's"

    class Other(Base):
        pass

    async def replaced(self: Any) -> str:
        return "replaced"

    api = API()
    async with linked(api, quiet=False) as (_, client):
        remote = client.remote()
        for _ in range(2):
            assert await remote.moved() == "the class's"
        API.moved = replaced  # type: ignore[method-assign]  # as a program may, at run time
        for _ in range(2):
            assert await remote.moved() == "replaced"
        api.__dict__["moved"] = secret  # an instance's own attribute is nobody's API
        with pytest.raises(kk.MethodNotFound):
            await remote.moved()
        del api.__dict__["moved"]
        assert await remote.moved() == "replaced"
        del API.moved
        for _ in range(2):
            assert await remote.moved() == "the base's"
        API.moved = replaced  # type: ignore[method-assign]  # as a program may, at run time
        assert await remote.moved() == "replaced"
        api.__class__ = Other
        for _ in range(2):
            assert await remote.moved() == "the base's"


# @expose ------------------------------------------------------------------------------------


class Renaming:
    @kk.expose("add")
    async def _add(self, a: int, b: int) -> int:
        return a + b

    @kk.expose("plus", "sum")
    def internal(self, a: int, b: int) -> int:
        return a + b

    @kk.expose("both", "other")
    def both(self) -> str:
        return "both"

    @kk.expose("static")
    @staticmethod
    def _static(value: Any) -> list[Any]:
        return ["static", value]

    @classmethod
    @kk.expose("of_class")
    def _of_class(cls) -> str:
        return cls.__name__

    @kk.expose("stream")
    async def _stream(self, n: int) -> AsyncGenerator[int]:
        yield n

    @kk.expose("theme")
    def _theme(self) -> str:
        return "light"

    @property
    def theme(self) -> Any:
        RAN.append("theme")
        return secret

    @kk.expose("loud")
    def quiet(self) -> str:
        return "loud"

    def plain(self) -> str:
        return "plain"


class Overriding(Renaming):
    async def _add(self, a: int, b: int) -> int:
        return 100 + await super()._add(a, b)

    def internal(self, a: int, b: int) -> int:
        return 100

    @kk.expose("softly")
    def quiet(self) -> str:
        return "soft"

    both = None  # type: ignore[assignment]  # as a subclass takes a method away


def answers_of(api: Any, path: str, *args: Any) -> Any:
    return Exposed(api).find(path).function(*args)


def missing(api: Any, path: str) -> bool:
    exposed = Exposed(api)
    for _ in range(2):  # a short way must not lead there either
        with pytest.raises(kk.MethodNotFound) as caught:
            exposed.find(path)
    return caught.value.message == refusal(path, None)


async def test_a_method_is_listed_under_the_names_it_is_given() -> None:
    async with linked({"api": Renaming()}) as (_, client):
        remote = client.remote().api
        assert await remote.add(1, 2) == 3
        assert await remote.plus(1, 2) == await remote.sum(1, 2) == 3
        assert await remote.both() == await remote.other() == "both"
        assert await remote.static(1) == ["static", 1]
        assert await remote.of_class() == "Renaming"
        assert [n async for n in remote.stream(5)] == [5]
        assert await remote.theme() == "light"
        assert await remote.plain() == "plain"
        # Errors speak of the name that was called.
        with pytest.raises(TypeError, match=r"add\(\) takes 2"):
            await remote.add()
        with pytest.raises(TypeError, match=r"sum\(\) takes 2"):
            await remote.sum(1)


@pytest.mark.parametrize(
    "path", ["_add", "internal", "quiet", "_static", "_of_class", "_theme", "expose", "__call__"]
)
def test_a_methods_own_name_is_then_not_listed(path: str) -> None:
    assert missing(Renaming(), path)


def test_an_override_keeps_the_names() -> None:
    api = Overriding()
    exposed = Exposed(api)
    assert exposed.find("plus").function(1, 2) == exposed.find("sum").function(1, 2) == 100
    assert exposed.find("add").function.__func__ is Overriding.__dict__["_add"]
    assert exposed.find("of_class").function() == "Overriding"
    assert exposed.find("softly").function() == "soft"
    for path in ("internal", "_add", "quiet", "loud", "both", "other"):
        assert missing(api, path)


def test_a_name_may_be_called_often() -> None:
    exposed = Exposed(Renaming())
    handlers = {id(exposed.find(name)) for name in ("plus", "sum") for _ in range(3)}
    assert len(handlers) == 2
    assert exposed.find("plus").name == "plus"


def test_two_objects_of_a_class_stay_apart() -> None:
    class Counter:
        def __init__(self, value: int) -> None:
            self.value = value

        @kk.expose("get")
        def _get(self) -> int:
            return self.value

    exposed = Exposed({"a": Counter(1), "b": Counter(2)})
    assert [exposed.find(path).function() for path in ("a.get", "b.get", "a.get")] == [1, 2, 1]


def test_an_attribute_of_the_instance_is_in_the_way_of_its_method() -> None:
    api = Renaming()
    api.__dict__["_add"] = secret
    assert missing(api, "add")
    api.__dict__["plus"] = secret  # nobody's API, and no method
    assert answers_of(api, "plus", 1, 2) == 3


@pytest.mark.parametrize("name", ["", "_x", "__x__", "a.b", ".", "a."])
def test_a_name_must_be_one_that_can_be_called(name: str) -> None:
    with pytest.raises(ValueError, match="no name that a peer could call"):
        kk.expose("fine", name)


def test_only_methods_have_names() -> None:
    with pytest.raises(ValueError, match="needs the names"):
        kk.expose()
    with pytest.raises(TypeError, match="takes names, as in"):
        kk.expose(public)  # type: ignore[arg-type]  # forgotten parentheses
    for thing in (property(public), Leaf, Leaf(), Leaf().f, functools.partial(public), len, 5, Descriptor()):
        with pytest.raises(TypeError, match="lists methods"):
            kk.expose("x")(thing)
    kk.expose("x")(functools.partialmethod(Base.inherited, 1))


def test_two_methods_under_one_name() -> None:
    class Alike:
        @kk.expose("x")
        def a(self) -> None: ...

        @kk.expose("x")
        def b(self) -> None: ...

    class Taken:
        @kk.expose("add")
        def _add(self) -> None: ...

        def add(self) -> None: ...

    class TakenByBase(Base[int]):
        @kk.expose("inherited")
        def _own(self) -> None: ...

    class TakenByValue:
        x = 5

        @kk.expose("x")
        def _x(self) -> None: ...

    class TakenByWritable:
        x = kk.writable(5)

        @kk.expose("x")
        def _x(self) -> None: ...

    class TakenLater(Renaming):
        def add(self) -> None: ...

    for cls in (Alike, Taken, TakenByBase, TakenByValue, TakenByWritable, TakenLater):
        with pytest.raises(TypeError, match=rf"{cls.__name__}: .* cannot both be listed as"):
            Exposed(cls())
        exposed = Exposed({"api": cls()})
        with pytest.raises(TypeError, match="cannot both be listed as"):
            exposed.find("api.x")


def test_names_may_be_swapped() -> None:
    class Swapped:
        @kk.expose("b")
        def a(self) -> str:
            return "a"

        @kk.expose("a")
        def b(self) -> str:
            return "b"

    exposed = Exposed(Swapped())
    for _ in range(2):
        assert (exposed.find("a").function(), exposed.find("b").function()) == ("b", "a")
    Swapped.a = kk.expose("b")(lambda self: "new")  # type: ignore[method-assign]  # as a program may, at run time
    assert exposed.find("b").function() == "new"


def test_a_name_that_nothing_listed_has_is_free() -> None:
    class API(Renaming):
        _add = None  # type: ignore[assignment]  # taken away
        empty = None

        def add(self) -> str:
            return "own"

        @kk.expose("empty")
        def _empty(self) -> str:
            return "empty"

    assert (answers_of(API(), "add"), answers_of(API(), "empty")) == ("own", "empty")


def test_a_dict_has_names_already() -> None:
    @kk.expose("x")
    def function() -> None: ...

    exposed = Exposed({"f": function, "bound": Renaming()._theme})
    with pytest.raises(TypeError, match="a dict names its functions itself"):
        exposed.find("f")
    assert exposed.find("bound").function() == "light"
    with pytest.raises(kk.MethodNotFound):
        exposed.find("x")


def test_a_wrapper_has_the_names_of_what_it_wraps() -> None:
    def twice(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return [function(*args)] * 2

        return wrapper

    class API:
        @twice
        @kk.expose("get")
        def _get(self) -> int:
            return 1

    assert answers_of(API(), "get") == [1, 1]


def test_names_follow_a_class_that_changes() -> None:
    class API:
        def first(self) -> str:
            return "first"

        @kk.expose("second")
        def _second(self) -> str:
            return "second"

    exposed = Exposed(API())
    assert (exposed.find("first").function(), exposed.find("second").function()) == ("first", "second")

    def later(self: Any) -> str:
        return "later"

    API.third = kk.expose("fourth")(later)  # type: ignore[attr-defined]  # as a program may, at run time
    assert exposed.find("fourth").function() == "later"
    with pytest.raises(kk.MethodNotFound):
        exposed.find("third")
    API.first = kk.expose("fifth")(lambda self: "fifth")  # type: ignore[method-assign]  # the same
    with pytest.raises(kk.MethodNotFound):
        exposed.find("first")
    del API._second
    with pytest.raises(kk.MethodNotFound):
        exposed.find("second")


def test_a_metaclass_has_no_say_in_names() -> None:
    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            RAN.append(f"Meta.{name}")
            return super().__getattribute__(name)

        def __hash__(cls) -> int:
            RAN.append("Meta.__hash__")
            return 1

        def __eq__(cls, other: object) -> bool:
            RAN.append("Meta.__eq__")
            return False

    class API(metaclass=Meta):
        text = "text"

        def f(self) -> str:
            return "f"

        @kk.expose("add")
        def _add(self) -> str:
            return "add"

    api = {"api": API()}
    RAN.clear()
    exposed = Exposed(api)
    assert exposed.find("api.f").function() == "f"
    assert exposed.find("api.add").function() == "add"
    assert exposed.read(("api", "text")) == "text"
    for path in ("api.absent", "api._add", "api.text", "api.absent.f"):
        with pytest.raises(kk.MethodNotFound):
            exposed.find(path)


def test_what_a_property_keeps_in_the_instance_is_no_namespace() -> None:
    class API:
        @functools.cached_property
        def cached(self) -> Any:
            return {"f": secret, "a": 1}

    api = API()
    assert api.cached["a"] == 1
    exposed = Exposed(api)
    with pytest.raises(kk.MethodNotFound):
        exposed.find("cached.f")
    with pytest.raises(kk.PropertyNotFound):
        exposed.read(("cached", "a"))


# Keyword arguments --------------------------------------------------------------------------


class Keywords:
    def plain(self, a: int, b: int = 0) -> None: ...
    def only(self, a: int, /, b: int, *, c: int, d: int = 0) -> None: ...
    def rest(self, a: int, *args: int, **kwargs: int) -> None: ...
    def nothing(self) -> None: ...
    async def sink(self, a: int, sink: kk.StreamSink[int], b: int = 0) -> None: ...
    async def sink_and_rest(self, sink: kk.StreamSink[int], **kwargs: int) -> None: ...
    def shadow(self, a: int, /, **kwargs: int) -> None: ...

    partial = functools.partialmethod(plain, 1)


FITS: list[tuple[str, int, set[str]]] = [
    ("plain", 1, {"b"}),
    ("plain", 0, {"a", "b"}),
    ("plain", 0, {"a"}),
    ("only", 1, {"b", "c"}),
    ("only", 2, {"c", "d"}),
    ("rest", 1, {"x", "y"}),
    ("rest", 3, {"x"}),
    ("rest", 0, {"a", "x"}),
    ("sink", 1, {"b"}),
    ("sink", 0, {"a", "b"}),
    ("sink_and_rest", 0, {"x"}),
    ("shadow", 1, {"a"}),
    ("partial", 0, {"b"}),
]
MISFITS: list[tuple[str, int, set[str], str]] = [
    ("plain", 1, {"c"}, "c"),
    ("plain", 1, {"a"}, "a"),
    ("plain", 0, {"b"}, "a"),
    ("plain", 3, {"b"}, "too many|b"),
    ("plain", 1, {"self"}, "self"),
    ("plain", 1, {""}, "''"),
    ("plain", 1, {"__class__"}, "__class__"),
    ("only", 0, {"a", "b", "c"}, "a"),
    ("only", 1, {"b"}, "c"),
    ("only", 1, {"c"}, "b"),
    ("only", 2, {"b", "c"}, "b"),
    ("rest", 0, {"x"}, "a"),
    ("rest", 1, {"a"}, "a"),
    ("nothing", 0, {"a"}, "a"),
    ("sink", 1, {"sink"}, "sink"),
    ("sink", 1, {"sink", "b"}, "sink"),
    ("sink_and_rest", 0, {"sink"}, "sink"),
    ("shadow", 0, {"a"}, "a"),
    ("partial", 1, {"b"}, "too many|b"),
]


@pytest.mark.parametrize(("path", "count", "names"), FITS)
def test_keyword_arguments_that_fit(path: str, count: int, names: set[str]) -> None:
    handler = Exposed(Keywords()).find(path)
    handler.check(count, dict.fromkeys(names, 1))
    args, kwargs = [1] * count, dict.fromkeys(names, 1)
    if handler.sink is not None:
        args, kwargs = handler.with_sink(None, args, kwargs)
    made = handler.function(*args, **kwargs)  # as Python has it too
    if made is not None:
        made.close()


@pytest.mark.parametrize(("path", "count", "names", "text"), MISFITS)
def test_keyword_arguments_that_do_not_fit(path: str, count: int, names: set[str], text: str) -> None:
    handler = Exposed(Keywords()).find(path)
    with pytest.raises(TypeError, match=rf"{handler.name}\(\):? .*({text})"):
        handler.check(count, dict.fromkeys(names, 1))
        # Python 3.13.0 has no objection to the one that is missing before `/` and found in `**kwargs`.
        assert path == "shadow"
        handler.function(**dict.fromkeys(names, 1))


async def test_keyword_arguments_cross() -> None:
    class API:
        async def greet(self, name: str, /, greeting: str = "hello", *, mark: str) -> str:
            return f"{greeting}, {name}{mark}"

        def thread(self, function: int, self_: int = 0, **kwargs: int) -> list[Any]:
            return [function, self_, kwargs]

        @kk.inline
        def now(self, **kwargs: int) -> dict[str, int]:
            return kwargs

        async def stream(self, sink: kk.StreamSink[int], *, n: int) -> None:
            await sink.send(n)

    async with linked(API()) as (_, client):
        remote = client.remote()
        assert await remote.greet("Ada", mark="!") == "hello, Ada!"
        assert await remote.greet("Ada", mark="!", greeting="hi") == "hi, Ada!"
        assert await remote.thread(function=1, self_=2, x=3) == [1, 2, {"x": 3}]
        assert await remote.now(function=1, args=2) == {"function": 1, "args": 2}
        assert [n async for n in remote.stream(n=5)] == [5]
        for call in (
            remote.greet("Ada"),
            remote.greet("Ada", mark="!", name="Bob"),
            remote.greet("Ada", mark="!", other=1),
            remote.stream(sink=1, n=5),
        ):
            with pytest.raises(TypeError):
                await call
