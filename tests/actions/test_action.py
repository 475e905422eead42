"""`stream_action`: what it takes, what it makes of functions and methods, and where they may stand."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any

import msgspec
import pytest

import kkrpc_py as kk
from kkrpc_py.actions.action import action_of
from kkrpc_py.actions.context import ActionContext
from tests.channel.harness import linked
from tests.channel.peer import request, scripted

pytestmark = pytest.mark.anyio


@dataclasses.dataclass
class Count:
    to: int = 3
    by: int = 1


@kk.stream_action(input=Count)
async def counting(input: Count, ctx: kk.ActionContext, stream: kk.ActionStream[int]) -> None:
    """Counts."""
    for number in range(0, input.to, input.by):
        await stream.send(number)


@kk.stream_action()
async def echo(what: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
    await stream.send(what)


class Base:
    def __init__(self, name: str) -> None:
        self.name = name

    @kk.stream_action()
    async def named(self, input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        await stream.send([self.name, input])

    @kk.stream_action(input=Count)
    async def over(self, input: Count, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        await stream.send("base")

    counting = staticmethod(counting)

    async def plain(self) -> str:
        return self.name

    @kk.stream_action()
    async def _hidden(self, input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        await stream.send("never")

    @classmethod
    @kk.stream_action()
    async def of_class(cls, input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        await stream.send(cls.__name__)

    other_name = named


@kk.stream_action()
async def _attached(self: Any, input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
    await stream.send(["attached", self.name])


def _wrapped(function: Any) -> Any:
    @functools.wraps(function)
    async def wrapper(self: Any, input: Any) -> Any:
        return await function(self, [input])

    return wrapper


class Derived(Base):
    @kk.stream_action(input=Count)
    async def over(self, input: Count, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        await stream.send(["derived", input.to])


Derived.attached = _attached  # type: ignore[attr-defined]  # as some do
Derived.wrapped = _wrapped(Base.named)  # type: ignore[attr-defined]  # as some do


async def chunks(call: Any) -> list[Any]:
    return [chunk async for chunk in call]


# Misuse --------------------------------------------------------------------------------------------


async def good(input: Any, ctx: Any, stream: Any) -> None: ...


async def _yields(input: Any, ctx: Any, stream: Any) -> Any:
    yield 1


def _returns(input: Any, ctx: Any, stream: Any) -> None: ...


async def _too_few(ctx: Any, stream: Any) -> None: ...


async def _too_many(self: Any, input: Any, ctx: Any, stream: Any, more: Any) -> None: ...


async def _keyword(input: Any, ctx: Any, *, stream: Any) -> None: ...


async def _any_number(*args: Any) -> None: ...


class _Callable:
    async def __call__(self, input: Any, ctx: Any, stream: Any) -> None: ...


@pytest.mark.parametrize(
    "handler",
    [
        *(_yields, _returns, _too_few, _too_many, _keyword, _any_number, _Callable(), _Callable),
        *(None, 5, staticmethod(good), functools.partial(good, None)),
    ],
    ids=["yields", "def", "2", "5", "keyword", "args", "object", "class", "None", "5", "static", "partial"],
)
def test_what_is_no_handler(handler: Any) -> None:
    with pytest.raises(TypeError, match=r"a stream action (is an `async def`|takes)"):
        kk.stream_action()(handler)


def test_the_decorator_without_its_parentheses() -> None:
    with pytest.raises(TypeError, match=r"@kk\.stream_action\(\)"):
        kk.stream_action(good)  # type: ignore[arg-type]  # that is the test


def _no_middleware(ctx: Any) -> None: ...


async def _takes_two(ctx: Any, more: Any) -> None: ...


async def _takes_none() -> None: ...


async def _takes_a_default(ctx: Any, more: Any = None) -> None: ...


class _Checker:
    async def __call__(self, ctx: Any) -> None: ...

    async def method(self, ctx: Any) -> None: ...


@pytest.mark.parametrize(
    "middleware",
    [_no_middleware, None, 5, _yields, _takes_two, _takes_none, _Checker, good],
    ids=["def", "None", "5", "yields", "two", "none", "class", "handler"],
)
def test_what_is_no_middleware(middleware: Any) -> None:
    with pytest.raises(TypeError, match="middleware is"):
        kk.stream_action(middleware=[middleware])


@pytest.mark.parametrize("middleware", [_takes_a_default, None, 5], ids=["function", "None", "5"])
def test_middleware_is_a_list(middleware: Any) -> None:
    with pytest.raises(TypeError, match="middleware is a list"):
        kk.stream_action(middleware=middleware)


def test_what_is_middleware() -> None:
    partial = functools.partial(_takes_two, more=5)
    kk.stream_action(middleware=[_takes_a_default, _Checker(), _Checker().method, partial])(good)


def test_a_hint_that_cannot_be_checked() -> None:
    with pytest.raises(TypeError, match="no input can be checked against"):
        kk.stream_action(input="Count")(good)


@pytest.mark.parametrize("replay", [-1, 1.5, True, "5", 1 << 30, None], ids=repr)
def test_a_window_that_is_none(replay: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="replay"):
        kk.stream_action(replay=replay)


# What it makes -------------------------------------------------------------------------------------


def test_it_is_a_function_that_takes_its_input() -> None:
    assert inspect.isfunction(counting)
    assert inspect.iscoroutinefunction(counting)
    assert (counting.__name__, counting.__doc__, counting.__module__) == ("counting", "Counts.", __name__)
    assert list(inspect.signature(counting).parameters) == ["input"]
    assert list(inspect.signature(echo).parameters) == ["what"]
    assert list(inspect.signature(Base.named).parameters) == ["self", "input"]
    assert list(inspect.signature(Base("x").named).parameters) == ["input"]


def test_actions_are_found() -> None:
    api = Derived("x")
    for function, name in ((counting, "counting"), (api.named, "named"), (api.counting, "counting")):
        found = action_of(function)
        assert found is not None
        assert found.name == name
    renamed = action_of(echo, "other")
    assert renamed is not None
    assert renamed.name == "other"
    for other in (good, api.plain, None, 5, "echo", Base, api, len, Count, functools.partial(good)):
        assert action_of(other) is None


def test_a_method_without_its_object_is_none() -> None:
    for function in (Base.named, Derived.over):
        with pytest.raises(TypeError, match="give it with its object"):
            action_of(function)


async def test_called_by_itself_it_says_where_it_belongs() -> None:
    with pytest.raises(TypeError, match=r"counting is a stream action.*kk\.memory_pair"):
        await counting(Count())  # type: ignore[misc]  # to a type checker it is what a caller sees


# On a channel --------------------------------------------------------------------------------------


async def test_in_a_dict_in_an_object_and_deeper() -> None:
    api = {
        "count": counting,
        "deep": {"er": {"echo": echo}},
        "object": Derived("d"),
        "bound": Base("b").named,
    }
    async with linked(api) as (_, client):
        remote = client.remote()
        assert await chunks(remote.count({"to": 3})) == [0, 1, 2]
        assert await chunks(remote.deep.er.echo([1])) == [[1]]
        assert await chunks(remote.bound("x")) == [["b", "x"]]


async def test_as_methods_of_the_exposed_object() -> None:
    async with linked(Derived("d")) as (_, client):
        remote = client.remote()
        assert await chunks(remote.named(5)) == [["d", 5]]
        assert await chunks(remote.over({"to": 7})) == [["derived", 7]]
        assert await chunks(remote.counting()) == [0, 1, 2]
        assert await chunks(await remote.counting({"to": 1})) == [0]
        assert await chunks(remote.other_name(5)) == [["d", 5]]
        assert await chunks(remote.attached(5)) == [["attached", "d"]]
        assert await chunks(remote.wrapped(5)) == [["d", [5]]]
        assert await remote.plain() == "d"


async def test_a_private_action_is_not_exposed() -> None:
    async with scripted(Derived("d")) as (_, peer):
        [refusal] = await peer.exchange(request("1", "_hidden", 1))
        assert "is not a function" in refusal["args"]["error"]


async def test_two_objects_of_one_class() -> None:
    async with linked({"a": Base("a").named, "b": Base("b").named, "c": Derived.of_class}) as (_, client):
        remote = client.remote()
        assert await chunks(remote.c(1)) == ["Derived"]
        assert [await chunks(remote.a(1)), await chunks(remote.b(2))] == [[["a", 1]], [["b", 2]]]


async def test_a_method_without_its_object_never_takes_the_peers_value_for_it() -> None:
    async with linked({"named": Base.named}) as (_, client):
        for args in ((), ({"name": "peer"},), ({"name": "peer"}, 5)):
            with pytest.raises(kk.RemoteError) as caught:
                await client.remote().named(*args)
            assert caught.value.name == "TypeError"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1, 2), {}),
        ((), {"other": 1}),
        ((1,), {"what": 1}),
        ((), {"self": 1}),
        ((), {"ctx": 1}),
        ((1, 2, 3), {}),
    ],
    ids=str,
)
async def test_other_arguments_are_refused(args: Any, kwargs: Any) -> None:
    async with linked({"echo": echo, "named": Base("x").named}) as (_, client):
        for name in ("echo", "named"):
            with pytest.raises(kk.RemoteError) as caught:
                await getattr(client.remote(), name)(*args, **kwargs)
            assert caught.value.name == "TypeError"


async def test_the_input_by_its_name() -> None:
    async with linked({"echo": echo, "count": counting}) as (_, client):
        assert await chunks(client.remote().echo(what=5)) == [5]
        assert await chunks(client.remote().count(input={"to": 1})) == [0]


async def test_an_input_that_was_not_given_and_null() -> None:
    async with linked({"echo": echo, "count": counting}) as (_, client):
        assert await chunks(client.remote().echo()) == [{}]
        assert await chunks(client.remote().echo(None)) == [None]
        assert await chunks(client.remote().count()) == [0, 1, 2]
        with pytest.raises(kk.ActionError) as caught:
            await client.remote().count(None)
        assert caught.value.field_errors == {"_root": ["Expected `object`, got `null`"]}


async def test_an_instance_as_the_input() -> None:
    """As the wire has it: an object of its fields."""
    async with linked({"count": counting}) as (_, client):
        assert await chunks(client.remote().count(Count(to=2))) == [0, 1]


class Context(msgspec.Struct):
    what: str


async def test_what_the_context_says() -> None:
    seen: list[ActionContext] = []

    @kk.stream_action(input=Context, metadata={"tier": "free"})
    async def look(input: Context, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        seen.append(ctx)

    async with linked({"some": {"look": look}}) as (server, client):
        server.state.user = "ada"
        assert await chunks(client.remote().some.look({"what": "x"})) == []
    [ctx] = seen
    assert (ctx.transport, ctx.channel, ctx.input, dict(ctx.headers)) == ("rpc", server, Context("x"), {})
    assert ctx.metadata["tier"] == "free"
    assert ctx.state.user == "ada"
    assert ctx.client is None
    with pytest.raises(TypeError):
        ctx.metadata["tier"] = "paid"  # type: ignore[index]  # it is every caller's
    with pytest.raises(AttributeError, match="no middleware has set 'user'"):
        ctx.user  # noqa: B018  (asked for, to see what is raised)


async def test_a_typed_proxy() -> None:
    async with linked(Derived("d")) as (_, client):
        remote = client.remote(Derived)
        assert await chunks(remote.named(5)) == [["d", 5]]
        assert await chunks(remote.over(Count(7))) == [["derived", 7]]


async def test_actions_are_not_called_locally() -> None:
    async with linked({"echo": echo}) as (server, _):
        with pytest.raises(TypeError, match="without a peer"):
            await server.invoke_local("echo", 5)


async def test_on_the_wire_it_is_a_stream_as_any_other() -> None:
    async with scripted({"count": counting}) as (_, peer):
        said = await peer.exchange(request("1", "count", {"to": 2}))
        assert [message["type"] for message in said] == ["response", *["stream-chunk"] * 2, "stream-end"]
        assert said[0]["args"]["result"] == {"__stream": True}
        [refusal] = await peer.exchange(request("2", "count", {"to": "x"}))
        assert refusal["type"] == "response"
        assert refusal["args"] == {
            "error": {
                "name": "ActionError",
                "message": "Input validation failed",
                "code": "VALIDATION_ERROR",
                "statusCode": 422,
                "fieldErrors": {"to": ["Expected `int`, got `str`"]},
            }
        }
