"""`channel.remote(API)` at run time: names, arguments and results are what the class says."""

from __future__ import annotations

import enum
import functools
import gc
import warnings
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
)
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Generic, Protocol, TypeVar, overload

import anyio
import msgspec
import pytest

import kkrpc_py as kk
from tests.channel.harness import linked, until

pytestmark = pytest.mark.anyio

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int = 0


class Summary(msgspec.Struct):
    files: int


class Settings(Protocol):
    theme: kk.Property[str]
    accent: kk.Property[str]
    colour: kk.Property[Colour]

    async def reset(self, *names: str, deep: bool = False) -> list[Any]: ...


class Client(Protocol):
    """What a client may say of `Server`."""

    settings: Settings
    origin: kk.Property[Point]
    missing: kk.Property[int]

    async def point(self, x: int, y: int = 5) -> Point: ...
    async def wrong(self) -> Point: ...
    def later(self) -> Awaitable[Point]: ...
    async def gap(self, a: int, b: int = ..., c: int = 3) -> list[int]: ...
    async def filled(self, a: int, b: int = 20, c: int = 3) -> list[int]: ...
    async def only(self, *, key: int) -> int: ...
    async def anything(self, *args: int, **kwargs: int) -> Any: ...
    def points(self, n: int) -> AsyncIterator[Point]: ...
    async def opened(self, n: int) -> AsyncIterator[Point]: ...
    def called(self, n: int) -> kk.Call[Point]: ...
    @kk.stream
    def unhinted(self): ...  # type: ignore[no-untyped-def]  # what is tested
    def wrong_points(self) -> AsyncIterable[Point]: ...
    @kk.stream
    def hash(self, n: int) -> Generator[Point, None, Summary]: ...
    @kk.method
    async def slow(self) -> int: ...
    async def either(self, stream: bool) -> Point | AsyncIterator[Point]: ...
    async def is_stream(self) -> int: ...
    def is_no_stream(self) -> AsyncIterator[int]: ...
    @kk.stream
    def is_no_stream_either(self) -> AsyncIterator[int]: ...
    async def unknown_hint(self) -> NotThere: ...  # type: ignore[name-defined]  # noqa: F821  what is tested


class Theme:
    theme = "light"
    accent = kk.writable("blue", type=str)
    place = kk.writable(Point(1), type=Point)
    colour = "red"

    async def reset(self, *names: str, deep: bool = False) -> list[Any]:
        return [*names, deep]


class Theirs:
    """The server's own class: what is writable there has its type."""

    settings = Theme()


class Server:
    settings = Theme()
    origin: ClassVar[dict[str, int]] = {"x": 1, "y": 2}

    def __init__(self) -> None:
        self.closed = False

    async def point(self, x: int, y: int = 7) -> Any:
        return {"x": x, "y": y}

    async def wrong(self) -> Any:
        return {"x": "one"}

    async def later(self) -> Any:
        return {"x": 1}

    async def gap(self, a: int, b: int = 2, c: int = 3) -> Any:
        return [a, b, c]

    async def filled(self, a: int, b: int = 2, c: int = 3) -> Any:
        return [a, b, c]

    async def only(self, *, key: int) -> Any:
        return key

    async def anything(self, *args: int, **kwargs: int) -> Any:
        return [list(args), kwargs]

    async def points(self, n: int) -> AsyncIterator[Any]:
        try:
            for x in range(n):
                yield {"x": x}
        finally:
            self.closed = True

    async def opened(self, n: int) -> AsyncIterator[Any]:
        return self.points(n)

    async def called(self, n: int) -> AsyncIterator[Any]:
        return self.points(n)

    async def unhinted(self) -> int:
        return 1

    async def wrong_points(self) -> AsyncIterator[Any]:
        try:
            yield {"x": 1}
            yield {"x": "two"}
            await anyio.sleep_forever()
        finally:
            self.closed = True

    def hash(self, n: int) -> Generator[Any, None, Any]:
        for x in range(n):
            yield {"x": x}
        return {"files": n}

    async def slow(self) -> int:
        await anyio.sleep_forever()
        return 1

    async def either(self, stream: bool) -> Any:
        return self.points(1) if stream else {"x": 5}

    async def is_stream(self) -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            self.closed = True

    async def is_no_stream(self) -> int:
        return 1

    async def is_no_stream_either(self) -> int:
        return 1

    async def unlisted(self) -> int:
        return 1

    async def unknown_hint(self) -> int:
        return 1


# Results ---------------------------------------------------------------------------------


async def test_results_are_what_the_class_says() -> None:
    async with linked(Server()) as (_, channel):
        api = channel.remote(Client)
        assert await api.point(1, 2) == Point(1, 2)
        assert await api.later() == Point(1)
        assert await api.origin == Point(1, 2)
        assert await api.settings.theme == "light"
        assert await api.settings.colour is Colour.RED


async def test_a_result_of_another_type_is_an_error() -> None:
    async with linked(Server()) as (_, channel):
        with pytest.raises(kk.ValidationFailed) as caught:
            await channel.remote(Client).wrong()
        assert (caught.value.method, caught.value.phase) == ("wrong", "output")
        assert caught.value.issues[0].path == ("x",)
        assert await channel.remote().wrong() == {"x": "one"}


async def test_chunks_and_return_values_are_what_the_class_says() -> None:
    async with linked(Server()) as (_, channel):
        api = channel.remote(Client)
        assert [point async for point in api.points(2)] == [Point(0), Point(1)]
        assert [point async for point in await api.opened(2)] == [Point(0), Point(1)]
        assert [point async for point in api.called(2)] == [Point(0), Point(1)]
        stream = await api.hash(2)
        assert [point async for point in stream] == [Point(0), Point(1)]
        assert await stream == Summary(2)
        call = api.hash(3)
        assert [point async for point in call] == [Point(0), Point(1), Point(2)]
        assert await call == Summary(3)  # type: ignore[comparison-overlap]  # what a call gives after its loop


async def test_a_method_may_return_a_value_or_a_stream() -> None:
    async with linked(Server()) as (_, channel):
        api: Any = channel.remote(Client)
        assert await api.either(False) == Point(5)
        assert [point async for point in await api.either(True)] == [Point(0)]
        assert [point async for point in api.either(True)] == [Point(0)]


async def test_a_chunk_of_another_type_ends_the_stream_after_what_was_right() -> None:
    server = Server()
    async with linked(server) as (_, channel):
        points: list[Point] = []
        with pytest.raises(kk.ValidationFailed):
            async for point in channel.remote(Client).wrong_points():
                points.append(point)
        assert points == [Point(1)]
        await until(lambda: server.closed)


async def test_a_property_is_set_and_its_answer_left_as_it_is() -> None:
    server = Server()
    async with linked(server) as (_, channel):
        api = channel.remote(Client)
        await channel.set(api.settings.accent, "green")
        assert await api.settings.accent == "green"
        theirs: Any = channel.remote(Theirs)
        assert await theirs.settings.accent == "green"
        assert await theirs.settings.place == Point(1)


async def test_a_stream_where_the_class_says_a_value_and_a_value_where_it_says_a_stream() -> None:
    server = Server()
    async with linked(server) as (_, channel):
        api = channel.remote(Client)
        with pytest.raises(TypeError, match="'is_stream' returned a stream"):
            await api.is_stream()
        await until(lambda: server.closed)
        with pytest.raises(TypeError, match="'is_no_stream' returned int, not a stream"):
            async for _number in api.is_no_stream():
                pass
        with pytest.raises(TypeError, match="'is_no_stream_either' returned int, not a stream"):
            await api.is_no_stream_either()
        with pytest.raises(TypeError, match="'unhinted' returned int, not a stream"):
            await api.unhinted()


# Names -----------------------------------------------------------------------------------


async def test_names_that_the_class_does_not_have_are_refused_at_once() -> None:
    async with linked(Server()) as (_, channel):
        api: Any = channel.remote(Client)
        assert await channel.remote().unlisted() == 1
        with pytest.raises(AttributeError, match="Client has no 'unlisted'"):
            api.unlisted  # noqa: B018  the look-up is what is tested
        with pytest.raises(AttributeError, match="Settings has no 'size'"):
            api.settings.size  # noqa: B018  the look-up is what is tested
        with pytest.raises(AttributeError, match=r"Settings\.theme has no names below it"):
            api.settings.theme.upper  # noqa: B018  the look-up is what is tested
        with pytest.raises(AttributeError, match="underscore"):
            api._private  # noqa: B018  the look-up is what is tested
        with pytest.raises(TypeError, match=r"Client\.slow is not a property: call it"):
            await api.slow
        with pytest.raises(TypeError, match=r"Client\.origin is not a method"):
            api.origin()
        with pytest.raises(TypeError, match="Client is not a method"):
            api()
        with pytest.raises(kk.PropertyNotFound):
            await api.missing


async def test_a_hint_that_cannot_be_resolved_is_an_error_of_that_name_alone() -> None:
    async with linked(Server()) as (_, channel):
        api = channel.remote(Client)
        assert await api.point(1) == Point(1, 7)  # what is left out is the server's to fill in
        with pytest.raises(TypeError, match=r"Client\.unknown_hint .*NotThere"):
            api.unknown_hint  # noqa: B018  the look-up is what is tested


@pytest.mark.parametrize("api", [3, "API", Server(), len, lambda: None])
async def test_what_is_no_class_is_refused(api: Any) -> None:
    async with linked(Server()) as (_, channel):
        with pytest.raises(TypeError, match="takes the class of an API"):
            channel.remote(api)


# Arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize("stock", [False, True], ids=["kkrpc_py", "stock"])
async def test_keyword_arguments_are_put_where_the_signature_has_them(stock: bool) -> None:
    async with linked(Server(), hello=not stock) as (_, channel):
        api = channel.remote(Client)
        assert await api.point(y=2, x=1) == Point(1, 2)
        assert await api.point(1, y=2) == Point(1, 2)
        assert await api.filled(1, c=30) == [1, 20, 30]
        assert await api.anything(1, 2) == [[1, 2], {}]
        assert await api.settings.reset("a") == ["a", False]


async def test_what_has_no_position_crosses_by_name() -> None:
    async with linked(Server()) as (_, channel):
        api = channel.remote(Client)
        assert await api.only(key=3) == 3
        assert await api.gap(1, c=30) == [1, 2, 30]
        assert await api.anything(1, b=2) == [[1], {"b": 2}]
        assert await api.settings.reset("a", deep=True) == ["a", True]


async def test_a_stock_peer_is_sent_no_names() -> None:
    async with linked(Server(), hello=False) as (_, channel):
        api = channel.remote(Client)
        for call in (api.only(key=3), api.gap(1, c=30)):
            with pytest.raises(TypeError):
                await call


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, "missing a required argument: 'x'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"z": 2}, "got an unexpected keyword argument 'z'"),
        ((1,), {"x": 2}, "multiple values for argument 'x'"),
    ],
)
async def test_arguments_that_do_not_bind_are_an_error_before_anything_is_sent(
    args: tuple[Any, ...], kwargs: dict[str, Any], said: str
) -> None:
    async with linked(Server()) as (_, channel):
        api: Any = channel.remote(Client)
        with pytest.raises(TypeError, match=rf"Client\.point\(\): {said}"):
            api.point(*args, **kwargs)
        with pytest.raises(TypeError, match=r"Client\.only\(\): "):
            api.only(3)
        assert not channel.connection.outgoing


async def test_options_of_a_call_keep_its_types() -> None:
    async with linked(Server()) as (_, channel):
        api = channel.remote(Client)
        with pytest.raises(kk.CallTimeout):
            await api.slow.with_options(timeout=0.01)()
        assert await api.origin.with_options(timeout=5) == Point(1, 2)
        loose: Any = api
        with pytest.raises(kk.CallTimeout):  # it goes for what is below it too
            await loose.with_options(timeout=0.01).slow()
        with pytest.raises(AttributeError):
            loose.with_options(timeout=5).unlisted  # noqa: B018  the look-up is what is tested


# An iterator promises more than a call ---------------------------------------------------


async def test_a_call_annotated_as_an_iterator_is_one() -> None:
    server = Server()
    async with linked(server) as (_, channel):
        points = channel.remote(Client).points(4)
        assert isinstance(points, AsyncIterator)
        assert await anext(points) == Point(0)
        assert await anext(points) == Point(1)
        assert [point async for point in points] == [Point(2), Point(3)]
        with pytest.raises(StopAsyncIteration):
            await anext(points)


async def test_such_an_iterator_can_be_closed() -> None:
    server = Server()
    async with linked(server) as (_, channel):
        points: Any = channel.remote(Client).points(1_000_000)
        await anext(points)
        await points.aclose()
        assert server.closed
        unused: Any = channel.remote(Client).points(1)
        await unused.aclose()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del unused
            gc.collect()


async def test_such_an_iterator_that_is_dropped_cancels_its_stream() -> None:
    server = Server()
    async with linked(server) as (_, channel):
        points = channel.remote(Client).points(1_000_000)
        await anext(points)
        del points
        gc.collect()
        await until(lambda: server.closed)


# The server's own class ------------------------------------------------------------------


class Base:
    @kk.method
    async def inherited(self) -> Point:
        return Point(9)


def traced(function: Any) -> Any:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapper


class Adder:
    def __call__(self, a: int, b: int) -> int:
        return a + b


class Angles(Generic[T]):
    @kk.method
    async def double(self, angle: float, *, turns: int = 0) -> float:
        return angle * 2 + turns


async def free(a: int, b: int = 2) -> Point:
    return Point(a, b)


class Shared(Base, dict[str, Any]):
    class Inner(msgspec.Struct):
        x: int

    async def inner(self) -> Inner:
        return self.Inner(1)

    angles = Angles[int]()
    table: ClassVar[dict[str, Any]] = {"free": free, "deeper": {"angles": Angles()}}
    adder = Adder()
    theme: kk.Property[str]

    @kk.method
    def factors(self, number: int) -> tuple[int, ...]:
        return tuple(divisor for divisor in range(1, number + 1) if number % divisor == 0)

    @kk.method
    @kk.inline
    def now(self) -> float:
        return 0.5

    @traced
    async def traced(self, a: int) -> Point:
        return Point(a)

    @staticmethod
    async def static(a: int) -> Point:
        return Point(a)

    @classmethod
    async def made(cls, a: int) -> Point:
        return Point(a)

    async def untyped(self, a):  # type: ignore[no-untyped-def]  # what is tested
        return {"x": a}

    @kk.method
    async def each(self, n: int, callback: Callable[[int], Awaitable[str]]) -> list[str]:
        return [await callback(i) for i in range(n)]

    @kk.stream
    async def countdown(self, n: int) -> AsyncGenerator[Point, None]:
        for x in range(n, 0, -1):
            yield Point(x)

    def iterated(self, n: int) -> Iterable[Point]:
        for x in range(n):
            yield Point(x)

    @kk.stream
    def hash(self, n: int) -> Generator[Point, None, Summary]:
        for x in range(n):
            yield Point(x)
        return Summary(n)

    @kk.stream
    async def convert(self, sink: kk.StreamSink[Point], n: int, *, last: bool = False) -> Summary:
        for x in range(n):
            await sink.send(Point(x))
        return Summary(n)


async def test_the_server_runs_a_decorated_class_as_any_other() -> None:
    async with linked(Shared()) as (_, channel):
        api = channel.remote()
        assert await api.factors(6) == [1, 2, 3, 6]
        assert [point async for point in api.countdown(2)] == [{"x": 2, "y": 0}, {"x": 1, "y": 0}]
    shared: Any = Shared()
    assert shared.factors(4) == (1, 2, 4)
    assert await shared.inherited() == Point(9)


async def test_a_client_has_the_types_of_the_servers_class() -> None:
    async with linked(Shared()) as (_, channel):
        api = channel.remote(Shared)
        assert await api.factors(6) == (1, 2, 3, 6)
        assert await api.inherited() == Point(9)
        assert await api.now() == 0.5
        assert await api.static(1) == await api.made(1) == await api.traced(1) == Point(1)
        loose: Any = api
        assert await loose.untyped(1) == {"x": 1}
        assert await api.inner() == Shared.Inner(1)
        assert await api.angles.double(1.5, turns=2) == 5.0
        with pytest.raises(AttributeError, match="Shared has no 'keys'"):
            api.keys()
        table: Any = api.table
        assert await table["free"](1) == Point(1, 2)
        assert await table["deeper"]["angles"].double(1.5) == 3.0
        with pytest.raises(AttributeError, match=r"Shared\.table has no 'other'"):
            table["other"]
        adder: Any = api.adder
        assert await adder(1, b=2) == 3
        assert [point async for point in api.countdown(2)] == [Point(2), Point(1)]
        assert [point async for point in await api.countdown(2)] == [Point(2), Point(1)]
        iterated: Any = api.iterated(2)
        assert [point async for point in iterated] == [Point(0), Point(1)]
        for stream in (await api.hash(2), await api.convert(2), await api.convert(n=2)):
            assert [point async for point in stream] == [Point(0), Point(1)]
            assert await stream == Summary(2)


async def test_callbacks_and_streams_go_as_arguments() -> None:
    async with linked(Shared()) as (_, channel):

        async def say(n: int) -> str:
            return f"no. {n}"

        assert await channel.remote(Shared).each(2, say) == ["no. 0", "no. 1"]


class Renamed(Protocol):
    @kk.expose("readFile")
    async def read_file(self, path: str) -> Point: ...

    @kk.expose("first", "second")
    @kk.method
    async def both(self) -> Point: ...


class Listing:
    async def readFile(self, path: str) -> Any:  # noqa: N802  as a peer in JavaScript would call it
        return {"x": len(path)}

    async def first(self) -> Any:
        return {"x": 1}

    async def second(self) -> Any:
        return {"x": 2}


async def test_a_method_may_have_another_name_than_its_peer_lists() -> None:
    async with linked(Listing()) as (_, channel):
        api: Any = channel.remote(Renamed)
        assert await api.read_file("abc") == Point(3)
        assert await api.readFile(path="abc") == Point(3)
        assert await api.both() == await api.first() == Point(1)
        assert await api.second() == Point(2)


@kk.constructible
@dataclass
class Box:
    width: int
    height: int = 1


@kk.constructible
class Plain:
    def __init__(self, name: str) -> None:
        self.name = name


class Makes(Protocol):
    """What a client may say of `Making`."""

    Box: type[Box]


class Making:
    Box = Box
    Plain = Plain
    limit = 3


async def test_what_is_constructed_is_an_instance_where_the_class_says_its_fields() -> None:
    async with linked(Making()) as (_, channel):
        api: Any = channel.remote(Making)
        assert await channel.construct(api.Box, 2) == Box(2)
        assert await channel.construct(api.Box, height=3, width=2) == Box(2, 3)
        with pytest.raises(TypeError, match=r"Making\.Box\(\): missing"):
            await channel.construct(api.Box)
        with pytest.raises(TypeError, match="channel.construct"):
            api.Box(2)
        with pytest.raises(TypeError, match=r"Making\.limit is not a class"):
            await channel.construct(api.limit)
        assert await channel.construct(api.Plain, "a") == {"name": "a"}
        client = channel.remote(Makes)
        assert await channel.construct(client.Box, 2) == Box(2)


class Declared(Protocol):
    """Names that are only annotated, in every way there is."""

    add: Callable[[int, int], Awaitable[Point]]
    adder: Adder
    limit: ClassVar[int]
    noted: Annotated[int, ["what cannot be hashed"]]
    colour: Colour
    generic: ClassVar[Adder]
    other: Angles[int]
    anything: Any
    points: Callable[[int], AsyncIterator[Point]]
    counted: Annotated[kk.Property[Annotated[int, msgspec.Meta(lt=4)]], "documented"]

    @property
    def counter(self) -> Awaitable[Point]: ...

    @overload
    async def same(self, value: int) -> int: ...
    @overload
    async def same(self, value: str) -> str: ...


class Fixed:
    most: Final[int] = 4
    bare: Final = 5


class Values(Fixed):
    adder = Adder()
    limit = 3
    noted = 6
    counted = 4
    colour = "red"
    counter: ClassVar[dict[str, int]] = {"x": 4}
    generic = Adder()
    other = Angles[int]()
    anything = Angles[int]()
    half = functools.partialmethod(Adder.__call__, 1)

    async def add(self, a: int, b: int) -> Any:
        return {"x": a + b}

    async def same(self, value: Any) -> Any:
        return value

    async def points(self, n: int) -> AsyncIterator[Any]:
        for x in range(n):
            yield {"x": x}


async def test_each_kind_of_annotation() -> None:
    async with linked(Values()) as (_, channel):
        api: Any = channel.remote(Declared)
        assert await api.add(1, 2) == Point(3)
        assert await api.adder(1, b=2) == 3
        assert [await api.limit, await api.noted] == [3, 6]
        fixed: Any = channel.remote(Fixed)
        assert [await fixed.most, await fixed.bare] == [4, 5]
        assert await api.colour is Colour.RED
        assert await api.counter == Point(4)
        assert await api.generic(1, b=2) == 3
        assert await api.other.double(2) == 4
        assert await api.anything.double(2) == 4
        assert await api.same("a") == "a"
        assert [point async for point in api.points(2)] == [Point(0), Point(1)]
        with pytest.raises(kk.ValidationFailed):
            await api.counted
        with pytest.raises(kk.MethodNotFound):
            await api.anything.not_there()
        values: Any = channel.remote(Values)
        assert await values.half(b=3) == 4
        with pytest.raises(TypeError, match="too many positional"):
            values.half(1, 2)
