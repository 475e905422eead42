"""Namespaces beside the API, objects that show another one in their place, and who hears of the end."""

from __future__ import annotations

import gc
import types
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.errors import NO_API
from kkrpc_py.transports.memory import memory_byte_streams
from tests.channel.harness import BOUND, linked, until, without_collector

pytestmark = pytest.mark.anyio


class API:
    async def add(self, a: int, b: int) -> int:
        return a + b

    @kk.expose("alias")
    async def named(self) -> str:
        return "named"

    names: Any = {"inner": {"add": lambda a, b: a - b}}

    @kk.constructible
    class Thing:
        def __init__(self) -> None:
            self.field = 1


class Extra:
    field = 1

    async def hello(self, name: str) -> str:
        return f"hello {name}"

    async def count(self, n: int) -> Any:
        for number in range(n):
            yield number

    async def _hidden(self) -> str:
        raise AssertionError("reached")


async def refused(call: Any) -> str:
    """What the peer is told of something that is not exposed."""
    with pytest.raises(kk.KkrpcError) as told:
        await call
    assert type(told.value) in (kk.MethodNotFound, kk.PropertyNotFound)
    return told.value.message if isinstance(told.value, kk.MethodNotFound) else str(told.value)


# --- attach -----------------------------------------------------------------------------------------


async def test_what_is_attached_is_called_beside_the_api() -> None:
    async with linked(API()) as (server, client):
        api = client.remote()
        await refused(api.extra.hello("you"))
        server.attach("extra", Extra())
        assert await api.extra.hello("you") == "hello you"
        assert [n async for n in api.extra.count(3)] == [0, 1, 2]
        assert await api.add(1, 2) == 3
        assert await api.names.inner.add(1, 2) == -1
        server.attach("dict", {"double": lambda n: 2 * n, "inner": {"triple": lambda n: 3 * n}})
        assert await api.dict.double(4) == 8
        assert await api.dict.inner.triple(4) == 12


async def test_before_the_channel_starts() -> None:
    near, far = memory_byte_streams()
    channel = RPCChannel(near, expose=API())
    channel.attach("extra", Extra())
    with anyio.fail_after(BOUND):
        async with channel, RPCChannel(far) as client:
            assert await client.remote().extra.hello("you") == "hello you"
            assert await client.remote().add(1, 2) == 3


@pytest.mark.parametrize("api", [None, {}], ids=["no api", "an empty one"])
async def test_without_an_api(api: Any) -> None:
    async with linked(api) as (server, client):
        server.attach("extra", Extra())
        assert await client.remote().extra.hello("you") == "hello you"
        message = await refused(client.remote().other())
        assert (NO_API in message) is (api is None)
        await refused(client.remote().extras.hello("you"))


async def test_each_side_attaches_to_its_own() -> None:
    async with linked(None) as (server, client):
        server.attach("here", {"who": lambda: "server"})
        client.attach("here", {"who": lambda: "client"})
        assert await client.remote().here.who() == "server"
        assert await server.remote().here.who() == "client"


async def test_no_more_than_a_namespace_is_attached() -> None:
    """Its private names, its fields and the object itself are out of reach, and so is what leads round it."""
    async with linked(API()) as (server, client):
        server.attach("extra", Extra())
        api = client.remote()
        for method in (
            "extra", "extra._hidden", "extra.field", "extra.hello.__call__", "extra.__class__", "extra.",
            ".extra.hello", "names.extra.hello", "extra.extra.hello", "extra..hello", "extra.__init__",
        ):  # fmt: skip
            await refused(kk.Call(client, method, []))
        await refused(client.set(api.extra.field, 2))
        await refused(api.extra.field)
        assert Extra.field == 1


async def test_a_name_of_the_apis_is_taken() -> None:
    for api in (API(), {"add": print, "alias": print, "names": {}}):
        async with linked(api) as (server, client):
            for name in ("add", "alias", "names"):
                with pytest.raises(ValueError, match="exposed already"):
                    server.attach(name, Extra())
            server.attach("named", Extra())  # the method has another name
            assert await client.remote().named.hello("you") == "hello you"


async def test_a_name_is_attached_once() -> None:
    async with linked(None) as (server, client):
        server.attach("extra", {"n": lambda: 1})
        with pytest.raises(ValueError, match="exposed already"):
            server.attach("extra", {"n": lambda: 2})
        assert await client.remote().extra.n() == 1


@pytest.mark.parametrize("order", [1, -1])
async def test_below_what_is_attached(order: int) -> None:
    """In whichever order: the longer path is the one that is meant."""
    async with linked({"api": {"inner": {"n": lambda: 0}}}) as (server, client):
        found = {"a": {"n": lambda: 1, "taken": {}}, "a.b": {"n": lambda: 2}, "api.b.c": {"n": lambda: 3}}
        for path in list(found)[::order]:
            server.attach(path, found[path])
        api = client.remote()
        assert [await each.n() for each in (api.api.inner, api.a, api.a.b, api.api.b.c)] == [0, 1, 2, 3]
        for path in ("a.b", "a.taken", "a.n", "api.inner", "api.inner.n", "api.b.c.n", "a"):
            with pytest.raises(ValueError, match="exposed already"):
                server.attach(path, Extra())
        await refused(api.api.b.n())
        await refused(api.a.c.n())


class Sly(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


@pytest.mark.parametrize(
    "name", ["", "_private", "__init__", "a._b", ".", "a.", None, 1, b"extra", Sly("extra")]
)
async def test_names_that_no_peer_could_call(name: Any) -> None:
    async with linked(API()) as (server, _):
        with pytest.raises(ValueError, match="no name"):
            server.attach(name, Extra())


async def test_looking_runs_no_code() -> None:
    class Tempting:
        @property
        def taken(self) -> Any:
            raise AssertionError("reached")

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"reached by {name}")

    async with linked(Tempting()) as (server, client):
        server.attach("taken", Extra())
        assert await client.remote().taken.hello("you") == "hello you"


# --- faces ------------------------------------------------------------------------------------------


class Face:
    def __init__(self) -> None:
        self._secret = "no"
        self.nested = Nested()

    async def ask(self) -> str:
        return "the face"


@kk.namespace
class Nested:
    async def deep(self) -> str:
        return "deep"


@kk.namespace
class Faced:
    """The application's methods, and another object for the peer."""

    __kkrpc_face__ = "_face"
    value = 1

    def __init__(self) -> None:
        self._face = Face()
        self.own = Nested()

    async def ask(self) -> str:
        raise AssertionError("reached")

    async def administer(self) -> str:
        raise AssertionError("reached")

    @kk.constructible
    class Thing:
        pass


def in_a_class_body() -> Any:
    class Body:
        at = Faced()

    return Body()


def in_an_instance() -> Any:
    class Instance:
        def __init__(self) -> None:
            self.at = Faced()

    return Instance()


def in_a_slot() -> Any:
    class Slot:
        __slots__ = ("at",)

        def __init__(self) -> None:
            self.at = Faced()

    return Slot()


PLACES: dict[str, Callable[[], Any]] = {
    "a dict": lambda: {"at": Faced()},
    "a class body": in_a_class_body,
    "an instance": in_an_instance,
    "a slot": in_a_slot,
}
BEHIND = [
    "administer", "_face.ask", "_face", "own.deep", "value", "__kkrpc_face__", "Thing", "ask.__call__",
    "_secret", "nested", "nested._x", "__init__", "ask.ask",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
async def test_a_face_is_all_that_is_seen(place: str) -> None:
    async with linked(PLACES[place]()) as (_, client):
        api = client.remote()
        assert await api.at.ask() == "the face"
        assert await api.at.nested.deep() == "deep"
        for name in BEHIND:
            await refused(kk.Call(client, f"at.{name}", []))
        with pytest.raises(kk.KkrpcError):
            await client.construct(api.at.Thing)
        for property in (api.at.value, api.at.own, api.at.nested):
            await refused(property)
            await refused(client.set(property, 2))


async def test_an_api_with_a_face() -> None:
    async with linked(Faced()) as (server, client):
        api = client.remote()
        assert await api.ask() == "the face"
        assert await api.nested.deep() == "deep"
        for name in BEHIND:
            if name != "nested":
                await refused(kk.Call(client, name, []))
        with pytest.raises(kk.KkrpcError):
            await client.construct(api.Thing)
        with pytest.raises(ValueError, match="exposed already"):
            server.attach("nested", Extra())
        with pytest.raises(ValueError, match="exposed already"):
            server.attach("ask", Extra())
        server.attach("administer", Extra())  # what nobody sees takes no name


async def test_a_face_that_is_attached() -> None:
    async with linked(API()) as (server, client):
        server.attach("at", Faced())
        assert await client.remote().at.ask() == "the face"
        for name in BEHIND:
            await refused(kk.Call(client, f"at.{name}", []))


async def test_a_face_that_is_not_there_shows_nothing() -> None:
    faced = Faced()
    del faced._face
    async with linked({"at": faced, "add": lambda a, b: a + b}) as (_, client):
        for name in ("ask", "administer", "own.deep"):
            await refused(kk.Call(client, f"at.{name}", []))
        assert await client.remote().add(1, 2) == 3


async def test_only_the_class_says_that_there_is_a_face() -> None:
    class Plain:
        async def ask(self) -> str:
            return "itself"

    plain = Plain()
    plain.__dict__["__kkrpc_face__"] = "_face"
    plain.__dict__["_face"] = Face()
    async with linked({"at": plain}) as (_, client):
        assert await client.remote().at.ask() == "itself"


# --- who is told ------------------------------------------------------------------------------------


@kk.namespace
class Told:
    def __init__(self) -> None:
        self.of: list[tuple[Any, str]] = []

    def __kkrpc_attached__(self, channel: Any, path: str) -> None:
        self.of.append((channel, path))

    async def ask(self) -> str:
        return "told"


async def test_what_is_exposed_is_told_of_each_channel() -> None:
    whole, in_dict, in_body, in_instance, attached, early = (Told() for _ in range(6))

    class Body:
        at = in_body

        def __init__(self) -> None:
            self.here = in_instance
            self._there = Told()

    body = Body()
    for api, told, path in (
        (whole, whole, ""),
        ({"a": in_dict}, in_dict, "a"),
        (body, in_body, "at"),
        (body, in_instance, "here"),
    ):
        told.of.clear()
        for _ in range(2):
            async with linked(api) as (server, _client):
                assert told.of[-1] == (server, path)
        assert len(told.of) == 2
    assert body._there.of == []

    async with linked(None) as (server, client):
        server.attach("later", attached)
        assert attached.of == [(server, "later")]
        assert await client.remote().later.ask() == "told"

    near, far = memory_byte_streams()
    channel = RPCChannel(near)
    channel.attach("early", early)
    assert early.of == []
    with anyio.fail_after(BOUND):
        async with channel, RPCChannel(far):
            assert early.of == [(channel, "early")]
    assert early.of == [(channel, "early")]


async def test_what_is_not_exposed_is_not_told() -> None:
    hidden = [Told() for _ in range(6)]

    class Unmarked:
        of: list[Any] = []

        def __kkrpc_attached__(self, channel: Any, path: str) -> None:
            self.of.append(path)

    class Body:
        _private = hidden[0]
        nested: Any = {"deep": hidden[1]}
        listed: Any = [hidden[2]]

        def __init__(self) -> None:
            self.unmarked = Unmarked()
            self._own = hidden[3]

        @property
        def computed(self) -> Told:
            raise AssertionError("reached")

    for api in (Body(), {"_private": hidden[4], "list": [hidden[5]]}):
        async with linked(api) as (server, client):
            for name in ("_x", "a._b"):
                with pytest.raises(ValueError):
                    server.attach(name, hidden[0])
            await refused(client.remote().unmarked.ask())
    assert Unmarked.of == []
    assert [len(told.of) for told in hidden] == [0, 1, 0, 0, 0, 0]  # a dict below is looked into


async def test_only_a_method_of_the_class_is_told() -> None:
    class Sneaky:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError("reached")

    sneaky = types.SimpleNamespace(__kkrpc_attached__=lambda *args: pytest.fail("reached"))
    async with linked({"a": Sneaky(), "b": sneaky}):
        pass


# --- when it is over --------------------------------------------------------------------------------


async def test_who_wants_to_know_is_told_once_that_it_is_over() -> None:
    told: list[str] = []
    async with linked(API()) as (server, client):
        for name in ("first", "second", "third"):
            client.when_closed(lambda name=name: told.append(f"{name} {client.closed}"))  # type: ignore[misc]  # a lambda with a default
        server.when_closed(lambda: told.append("server"))
        assert await client.remote().add(1, 2) == 3
        assert told == []
        await client.aclose()
        assert told[:3] == ["first True", "second True", "third True"]
        await server.wait_closed()
        assert told == ["first True", "second True", "third True", "server"]
        client.when_closed(lambda: told.append("at once"))
        assert told[-1] == "at once"
    assert len(told) == 5


async def test_calls_that_wait_fail_before_or_after_but_no_new_one_is_sent() -> None:
    class Slow:
        async def park(self) -> None:
            await anyio.sleep_forever()

    happened: list[Any] = []
    async with linked(Slow(), quiet=False) as (server, client):

        def tell() -> None:
            call = client.remote().park()
            try:
                call.send(None)
            except kk.ChannelClosed:
                happened.append("refused")
            finally:
                call.close()

        client.when_closed(tell)

        async def wait() -> None:
            with pytest.raises(kk.ChannelClosed):
                await client.remote().park()
            happened.append("failed")

        async with anyio.create_task_group() as tg:
            tg.start_soon(wait)
            await until(lambda: bool(server.connection.incoming))
            await server.aclose()
    assert happened == ["refused", "failed"]


async def test_who_is_forgotten_is_not_told() -> None:
    told: list[str] = []

    def one() -> None:
        told.append("one")
        client.forget_closed(two)
        client.when_closed(three)

    def two() -> None:
        told.append("two")

    def three() -> None:
        told.append("three")

    def four() -> None:
        raise AssertionError("told")

    async with linked(API()) as (_, client):
        for tell in (one, two, four, four):
            client.when_closed(tell)
        client.forget_closed(four)
        client.forget_closed(four)
        client.forget_closed(lambda: None)
    assert told == ["one", "three"]


@pytest.mark.parametrize(
    "how", ["end of the block", "aclose", "the peer", "cancelled", "an error", "the stream"]
)
async def test_however_it_ends(how: str) -> None:
    told: list[str] = []
    near, far = memory_byte_streams()
    with anyio.move_on_after(BOUND) as scope:
        try:
            async with RPCChannel(near) as channel, RPCChannel(far) as peer:
                channel.when_closed(lambda: told.append(how))
                if how == "aclose":
                    await channel.aclose()
                elif how == "the peer":
                    await peer.aclose()
                    await channel.wait_closed()
                elif how == "the stream":
                    await near.aclose()
                    await channel.wait_closed()
                elif how == "cancelled":
                    scope.cancel()
                    await anyio.sleep_forever()
                elif how == "an error":
                    raise LookupError("the block's own")
        except LookupError:
            assert how == "an error"
    assert told == [how]


async def test_a_channel_that_never_began() -> None:
    near, _far = memory_byte_streams()
    channel = RPCChannel(near)
    channel.when_closed(lambda: pytest.fail("told"))
    await near.aclose()


async def test_nothing_is_kept_of_a_channel_that_is_over() -> None:
    class Listener:
        def tell(self) -> None: ...

    with without_collector():
        listener, extra = Listener(), Extra()
        kept = [weakref.ref(listener), weakref.ref(extra)]
        async with linked(API()) as (server, client):
            server.attach("extra", extra)
            client.when_closed(listener.tell)
            assert await client.remote().extra.hello("you") == "hello you"
        del listener, extra, server
        assert kept[0]() is None
        del client
    gc.collect()
    assert [ref() for ref in kept] == [None, None]
