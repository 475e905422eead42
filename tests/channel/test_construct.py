"""What a peer may construct: classes marked so; what it gets are the public fields, data by value."""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import msgspec
import pytest

import kkrpc_py as kk
from kkrpc_py.channel.expose import Exposed
from tests.channel.harness import linked
from tests.channel.peer import request, response, result, scripted

RAN: list[str] = []
"""What ran that must not run."""


@pytest.fixture(autouse=True)
def nothing_ran() -> Iterator[None]:
    RAN.clear()
    yield
    assert RAN == []


@kk.constructible
class Greeter:
    shared = "of the class"

    def __init__(self, name: str, greeting: str = "hello") -> None:
        self.name = name
        self.greeting = greeting
        self.text = f"{greeting}, {name}"
        self._private = "private"

    def greet(self) -> str:
        return self.text

    @property
    def loud(self) -> str:
        RAN.append("loud")
        return self.text.upper()

    def __getattr__(self, name: str) -> Any:
        RAN.append(name)
        return "made up"


class Unmarked:
    def __init__(self, *args: Any) -> None:
        RAN.append("Unmarked")


class Child(Greeter):
    """The mark of its base is not its own."""

    def __init__(self, *args: Any) -> None:
        RAN.append("Child")


@kk.constructible
class MarkedChild(Greeter):
    pass


@kk.constructible
@dataclasses.dataclass
class Point:
    x: int
    y: int = 0
    tags: list[str] = dataclasses.field(default_factory=list)
    _cache: Any = None


@dataclasses.dataclass(slots=True)
@kk.constructible
class Slotted:
    """The decorator of dataclasses has made another class of it."""

    a: int
    _b: int = 2


@kk.constructible
class Struct(msgspec.Struct, rename="camel"):
    first_name: str
    size: Annotated[int, msgspec.Meta(gt=0)] = 1
    _hidden: int = 1


@kk.constructible
class Rows(msgspec.Struct, array_like=True):
    a: int = 1


@kk.constructible
class Themed:
    theme = kk.writable("light")
    items: kk.Writable[list[int]] = kk.writable([1])

    def __init__(self, theme: str | None = None) -> None:
        if theme is not None:
            self.theme = theme


@kk.constructible
class Nested:
    def __init__(self) -> None:
        self.point = Point(1)
        self.points = [Point(2)]
        self.table = {"_id": 1, "a": {1, 2}}


@kk.constructible
class Empty:
    pass


@kk.constructible
class MyList(list[int]):
    def __init__(self) -> None:
        super().__init__([1, 2])
        self.name = "n"


class GreedyMeta(type):
    def __getattr__(cls, name: str) -> Any:
        if not name.startswith("__kkrpc"):
            raise AttributeError(name)
        RAN.append(name)
        return True

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        RAN.append("GreedyMeta.__call__")


class OfGreedyMeta(metaclass=GreedyMeta):
    pass


class API:
    Greeter = Greeter
    Unmarked = Unmarked
    Child = Child
    MarkedChild = MarkedChild
    OfGreedyMeta = OfGreedyMeta
    instance = Greeter("x")
    _Greeter = Greeter
    made = functools.partial(Greeter, "x")
    text = "text"
    annotated: Any
    table: ClassVar[dict[str, Any]] = {
        "Greeter": Greeter,
        "Unmarked": Unmarked,
        "f": print,
        "_Greeter": Greeter,
        "": Greeter,
        "deeper": {"Point": Point},
    }

    @kk.constructible
    class Inner:
        def __init__(self) -> None:
            self.inner = True

        Deeper = Greeter

    class Shadowed:
        pass

    Shadowed = kk.constructible(Shadowed)  # type: ignore[misc]  # marked later, as a program may

    def __init__(self) -> None:
        self.Own = Greeter
        self.annotated = Greeter
        self.own_dict = {"Greeter": Greeter}
        self.Shadowed = Greeter  # type: ignore[misc]  # what hides the class is the point

    def method(self) -> None:
        RAN.append("method")

    @property
    def prop(self) -> Any:
        RAN.append("prop")
        return Greeter


MADE: dict[str, dict[str, Any]] = {
    "Greeter": {"name": "Ada", "greeting": "hello", "text": "hello, Ada"},
    "MarkedChild": {"name": "Ada", "greeting": "hello", "text": "hello, Ada"},
    "table.Greeter": {"name": "Ada", "greeting": "hello", "text": "hello, Ada"},
    "table.deeper.Point": {"x": 3, "y": 0, "tags": []},
    "own_dict.Greeter": {"name": "Ada", "greeting": "hello", "text": "hello, Ada"},
    "Inner": {"inner": True},
}
# Each with the earlier segment that leads nowhere; None: the last one is nothing to construct.
REFUSED: dict[str, str | None] = {
    "Unmarked": None,
    "Child": None,
    "OfGreedyMeta": None,
    "instance": None,
    "_Greeter": None,
    "made": None,
    "text": None,
    "annotated": None,
    "Own": None,
    "Shadowed": None,
    "method": None,
    "prop": None,
    "absent": None,
    "": None,
    "__class__": None,
    "__init__": None,
    "table": None,
    "table.Unmarked": None,
    "table.f": None,
    "table._Greeter": None,
    "table.": None,
    "table.absent": None,
    "table.__class__": None,
    "instance.name": None,
    "instance.__class__": None,
    "instance.greet": None,
    "Greeter.": "Greeter",
    "Greeter.__init__": "Greeter",
    "Greeter.greet": "Greeter",
    "Greeter.__class__": "Greeter",
    "Inner.Deeper": "Inner",
    "method.__class__": "method",
    "prop.Greeter": "prop",
    "__class__.Greeter": "__class__",
    ".Greeter": "",
    "table..Point": "",
    "absent.Greeter": "absent",
    "text.upper": "text",
}


@pytest.mark.parametrize("path", MADE)
@pytest.mark.anyio
async def test_what_is_constructible_is_constructed(path: str) -> None:
    args = {"Inner": [], "table.deeper.Point": [3]}.get(path, ["Ada"])
    async with scripted(API()) as (_, peer):
        message = {"id": 1, "type": "construct", "method": path, "args": args}
        assert await peer.exchange(message) == [result(1, MADE[path])]


@pytest.mark.parametrize("path", REFUSED)
@pytest.mark.anyio
async def test_what_is_not_is_missing(path: str) -> None:
    at = REFUSED[path]
    text = f"{path} is not a constructor function"
    if at is not None:
        text = f"Constructor path {path} not found at {at}"
    async with scripted(API()) as (channel, peer):
        message = {"id": 1, "type": "construct", "method": path, "args": ["Ada"]}
        assert await peer.exchange(message) == [response(1, error=text)]
        assert channel.connection.violations == 0


@pytest.mark.anyio
async def test_a_class_is_not_called_and_a_function_not_constructed() -> None:
    async with scripted(API()) as (_, peer):
        (answer,) = await peer.exchange(request(1, "Greeter", "Ada"))
        assert answer["args"]["error"] == "Method Greeter is not a function"
        (answer,) = await peer.exchange({"id": 1, "type": "get", "path": ["Greeter"]})
        assert answer["args"]["error"] == "Property path Greeter not found at Greeter"
        message = {"id": 1, "type": "set", "path": ["Greeter"], "value": 1}
        (answer,) = await peer.exchange(message)
        assert answer["args"]["error"] == "Property path Greeter not found at Greeter"


@pytest.mark.parametrize("api", [Greeter("x"), {"a": 1}, 5, print, None])
def test_other_apis_have_no_classes(api: Any) -> None:
    for path in ("Greeter", "__class__", "", "a", "a.b", "name"):
        with pytest.raises(kk.MethodNotFound):
            Exposed(api).constructor(path)


def make(cls: Any, *args: Any, **kwargs: Any) -> Any:
    handler = Exposed({"C": cls}).constructor("C")
    handler.check(len(args), kwargs)
    return handler.function(*args, **kwargs)


def test_the_fields_that_come_back() -> None:
    assert make(Point, 1, tags=["t"]) == {"x": 1, "y": 0, "tags": ["t"]}
    assert make(Slotted, 1) == {"a": 1}
    assert make(Struct, "Ada") == {"firstName": "Ada", "size": 1}
    assert make(Rows) == {"a": 1}
    assert make(Themed) == {"theme": "light", "items": [1]}
    assert make(Themed, "dark") == {"theme": "dark", "items": [1]}
    assert make(Nested) == {
        "point": {"x": 1, "y": 0, "tags": []},
        "points": [{"x": 2, "y": 0, "tags": []}],
        "table": {"_id": 1, "a": {1, 2}},
    }
    assert make(Empty) == {}
    assert make(MyList) == {"name": "n"}


def test_slots_of_all_bases_come_back() -> None:
    class Base:
        __slots__ = ("_hidden", "base", "unset")

    @kk.constructible
    class Tight(Base):
        __slots__ = ("own",)

        def __init__(self) -> None:
            self.base, self.own, self._hidden = 1, 2, 3

    assert make(Tight) == {"base": 1, "own": 2}


@pytest.mark.parametrize("value", [print, logging.getLogger("x"), object(), [len], {"a": int}, iter([])])
def test_a_field_that_is_no_data_is_an_error(value: Any) -> None:
    """Nothing is left out in silence, and no function gets to the peer that nobody has listed."""

    @kk.constructible
    class Holder:
        def __init__(self) -> None:
            self.fine = 1
            self.bad = value

    with pytest.raises(kk.NotSerializable) as caught:
        make(Holder)
    assert caught.value.path.startswith("result['bad']")


def test_a_field_that_leads_back_is_an_error() -> None:
    @kk.constructible
    class Loop:
        def __init__(self) -> None:
            self.items: list[Any] = []
            self.items.append(self.items)

    with pytest.raises(kk.NotSerializable, match="contains itself"):
        make(Loop)


def test_what_the_constructor_takes_is_known_before() -> None:
    handler = Exposed(API()).constructor("Greeter")
    assert handler.name == "Greeter"
    for count, kwargs in ((1, {}), (2, {}), (1, {"greeting": "hi"}), (0, {"name": "x"})):
        handler.check(count, kwargs)
    for count, kwargs in ((0, {}), (3, {}), (1, {"name": "x"}), (1, {"self": 1}), (0, {"greeting": "x"})):
        with pytest.raises(TypeError, match=r"^Greeter\(\)"):
            handler.check(count, kwargs)


def test_what_is_known_of_a_class_is_kept() -> None:
    exposed = Exposed(API())
    assert exposed.constructor("Greeter") is exposed.constructor("table.Greeter")
    assert exposed.constructor("Greeter") is not exposed.constructor("MarkedChild")


@pytest.mark.anyio
async def test_construct_through_the_proxy() -> None:
    class Root:
        Greeter = Greeter
        Point = Point
        Struct = Struct
        classes: ClassVar[dict[str, Any]] = {"Greeter": Greeter}

    async with linked(Root()) as (_, client):
        remote = client.remote()
        assert await client.construct(remote.Greeter, "Ada") == MADE["Greeter"]
        assert (await client.construct(remote.classes.Greeter, "Bob", "hi"))["text"] == "hi, Bob"
        assert await client.construct(remote.Point, 1, tags=["t"]) == {"x": 1, "y": 0, "tags": ["t"]}
        with pytest.raises(kk.MethodNotFound, match="Nope is not a constructor function"):
            await client.construct(remote.Nope)
        with pytest.raises(TypeError, match=r"Greeter\(\) takes 1 to 2 positional arguments; given: 0"):
            await client.construct(remote.Greeter)
        with pytest.raises(TypeError, match="shout"):
            await client.construct(remote.Greeter, "Ada", shout=True)


@pytest.mark.anyio
async def test_arguments_are_checked_by_the_annotations_of_the_class() -> None:
    class Root:
        Point = Point
        Struct = Struct
        Greeter = Greeter

    async with linked(Root()) as (_, client):
        remote = client.remote()
        for target, args in (
            (remote.Point, ("one",)),
            (remote.Struct, ("Ada", 0)),
            (remote.Greeter, (5,)),
        ):
            with pytest.raises(kk.ValidationFailed) as caught:
                await client.construct(target, *args)
            assert caught.value.phase == "input"
            assert [issue.path for issue in caught.value.issues] == [(len(args) - 1,)]
        assert await client.construct(remote.Struct, "Ada", 2) == {"firstName": "Ada", "size": 2}


@pytest.mark.anyio
async def test_what_the_constructor_raises_arrives() -> None:
    @kk.constructible
    class Fails:
        def __init__(self) -> None:
            raise KeyError("no")

    @kk.constructible
    class Exits:
        def __init__(self) -> None:
            raise SystemExit(3)

    @kk.constructible
    class Holder:
        def __init__(self) -> None:
            self.log = logging.getLogger("x")

    async with linked({"Fails": Fails, "Exits": Exits, "Holder": Holder}) as (_, client):
        remote = client.remote()
        with pytest.raises(KeyError):
            await client.construct(remote.Fails)
        with pytest.raises(kk.RemoteError, match="SystemExit"):
            await client.construct(remote.Exits)
        with pytest.raises(kk.RemoteError, match=r"Logger at result\['log'\]"):
            await client.construct(remote.Holder)
        with pytest.raises(KeyError):
            await client.construct(remote.Fails)


@pytest.mark.anyio
async def test_on_a_thread_unless_marked_inline() -> None:
    class Where:
        def __init__(self) -> None:
            self.on_loop = threading.get_ident() == loop

    loop = threading.get_ident()

    @kk.constructible
    class Threaded(Where):
        pass

    @kk.inline
    @kk.constructible
    class Inline(Where):
        pass

    @kk.constructible
    class Inherits(Inline):
        """It may do more than its base."""

    async with linked({"Threaded": Threaded, "Inline": Inline, "Inherits": Inherits}) as (_, client):
        remote = client.remote()
        assert await client.construct(remote.Threaded) == {"on_loop": False}
        assert await client.construct(remote.Inline) == {"on_loop": True}
        assert await client.construct(remote.Inherits) == {"on_loop": False}


@pytest.mark.anyio
async def test_an_instance_that_iterates_is_no_stream() -> None:
    @kk.constructible
    class Iterates:
        def __init__(self) -> None:
            self.a = 1

        def __aiter__(self) -> Any:
            RAN.append("__aiter__")

        def __await__(self) -> Any:
            RAN.append("__await__")

    async with linked({"Iterates": Iterates}) as (_, client):
        assert await client.construct(client.remote().Iterates) == {"a": 1}


@pytest.mark.anyio
async def test_interceptors_stand_around_construct() -> None:
    seen: list[Any] = []

    async def spy(ctx: kk.CallContext, next: kk.Next) -> Any:
        seen.append((ctx.kind, ctx.method, list(ctx.args)))
        return await next()

    async with linked(API(), interceptors=[spy]) as (_, client):
        await client.construct(client.remote().table.Greeter, "Ada")
        for target in (client.remote().Unmarked, client.remote().absent.Greeter):
            with pytest.raises(kk.MethodNotFound):
                await client.construct(target)
    assert seen == [("construct", "table.Greeter", ["Ada"])]
