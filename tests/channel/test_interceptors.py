"""Interceptors: the onion around a handler, and around what it streams."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from tests.channel.peer import (
    Peer,
    ack,
    at_rest,
    cancel,
    chunk,
    end,
    hello,
    opened,
    request,
    response,
    result,
    scripted,
    until,
)

pytestmark = pytest.mark.anyio

WITHOUT_BATCH = ["credit", "result", "cancel"]
LOG: list[str] = []


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    LOG.clear()


class API:
    async def echo(self, *args: Any, key: Any = None) -> list[Any]:
        LOG.append("handler")
        return [*args] if key is None else [*args, key]

    async def one(self, value: Any) -> Any:
        LOG.append("handler")
        return value

    def threaded(self, *args: Any) -> list[Any]:
        LOG.append("handler")
        assert threading.current_thread() is not threading.main_thread()
        return [*args, VARIABLE.get()]

    @kk.inline
    def inlined(self, *args: Any) -> list[Any]:
        LOG.append("handler")
        return [*args, VARIABLE.get()]

    async def variable(self) -> Any:
        return [VARIABLE.get()]

    async def fail(self) -> None:
        LOG.append("handler")
        raise ValueError("the handler's")

    async def park(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            LOG.append("handler's finally")

    async def count(self, n: int) -> AsyncGenerator[int]:
        """At its end, or when it is stopped, it waits once more."""
        try:
            for number in range(n):
                yield number
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            LOG.append("handler's finally")

    async def parked_stream(self) -> AsyncGenerator[int]:
        try:
            yield 0
            await anyio.sleep_forever()
        finally:
            LOG.append("handler's finally")

    async def failing_stream(self) -> AsyncGenerator[int]:
        try:
            yield 0
            raise ValueError("the handler's")
        finally:
            LOG.append("handler's finally")

    def on_a_thread(self, n: int) -> Iterator[int]:
        try:
            yield from range(n)
        finally:
            LOG.append("handler's finally")
        return "the result"

    @kk.inline
    def on_the_loop(self, n: int) -> Iterator[int]:
        try:
            yield from range(n)
        finally:
            LOG.append("handler's finally")
        return "the result"

    async def sink(self, n: int, sink: kk.StreamSink[int]) -> str:
        try:
            for number in range(n):
                await sink.send(number)
            LOG.append("handler")
            return "the result"
        finally:
            LOG.append("handler's finally")

    async def sink_that_fails(self, sink: kk.StreamSink[int]) -> None:
        await sink.send(0)
        raise ValueError("the handler's")


VARIABLE: contextvars.ContextVar[Any] = contextvars.ContextVar("VARIABLE", default=None)


def logging(name: str) -> kk.Interceptor:
    async def intercept(ctx: kk.CallContext, next: kk.Next) -> Any:
        LOG.append(f"{name} in")
        try:
            return await next()
        finally:
            LOG.append(f"{name} out")

    return intercept


def values_of(messages: list[dict[str, Any]]) -> list[Any]:
    """A stream's values, of single chunks and of batches."""
    values: list[Any] = []
    for message in messages:
        if message["type"] == "stream-chunk":
            args = message["args"]
            values += args["values"] if "values" in args else [args["value"]]
    return values


# --- calls ------------------------------------------------------------------------------------


async def test_the_first_is_outermost() -> None:
    async with scripted(API(), interceptors=[logging("a"), logging("b"), logging("c")]) as (_, peer):
        assert await peer.exchange(request(1, "echo", 1)) == [result(1, [1])]
    assert LOG == ["a in", "b in", "c in", "handler", "c out", "b out", "a out"]


async def test_what_an_interceptor_sees() -> None:
    seen: list[Any] = []

    async def spy(ctx: kk.CallContext, next: kk.Next) -> Any:
        seen.append((ctx.method, list(ctx.args), dict(ctx.kwargs), dict(ctx.meta)))
        ctx.state["seen"] = len(seen)
        value = await next()
        seen.append(value)
        return value

    async def reader(ctx: kk.CallContext, next: kk.Next) -> Any:
        seen.append(ctx.state["seen"])
        ctx.state["inner"] = True
        return await next()

    async def checker(ctx: kk.CallContext, next: kk.Next) -> Any:
        value = await next()
        assert ctx.state["inner"]
        return value

    api = {"deep": {"api": API()}}
    async with scripted(api, interceptors=[checker, spy, reader]) as (_, peer):
        await peer.exchange(request(1, "deep.api.echo", 1, "x"))
        await peer.exchange(request(2, "deep.api.one", None))
    # The second call has a state of its own: `seen` had three entries by then.
    assert seen == [
        ("deep.api.echo", [1, "x"], {}, {}),
        1,
        [1, "x"],
        ("deep.api.one", [None], {}, {}),
        4,
        None,
    ]


@pytest.mark.parametrize("method", ["echo", "threaded", "inlined"])
async def test_arguments_and_results_may_be_changed(method: str) -> None:
    async def replace(ctx: kk.CallContext, next: kk.Next) -> Any:
        ctx.args = [10, *ctx.args]
        return {"result": await next()}

    async def mutate(ctx: kk.CallContext, next: kk.Next) -> Any:
        ctx.args.append("last")
        got = await next()
        return [*got, "inner"]

    async with scripted(API(), interceptors=[replace, mutate]) as (_, peer):
        tail = [] if method == "echo" else [None]
        expected = {"result": [10, 1, "last", *tail, "inner"]}
        assert await peer.exchange(request(1, method, 1)) == [result(1, expected)]


async def test_arguments_are_counted_after_the_interceptors() -> None:
    """They may add what the caller left out, by position and by name, and take away what is too much."""

    async def fit(ctx: kk.CallContext, next: kk.Next) -> Any:
        ctx.args = [*ctx.args, "added"][:1]
        return await next()

    async def name(ctx: kk.CallContext, next: kk.Next) -> Any:
        ctx.kwargs["key"] = "by name"
        return await next()

    async with scripted(API(), interceptors=[fit]) as (_, peer):
        assert await peer.exchange(request(1, "one")) == [result(1, "added")]
        assert await peer.exchange(request(1, "one", 1, 2, 3)) == [result(1, 1)]
    async with scripted(API(), interceptors=[name]) as (_, peer):
        assert await peer.exchange(request(1, "echo", 1)) == [result(1, [1, "by name"])]
        (answer,) = await peer.exchange(request(1, "one", 1))
        assert answer["args"]["error"]["name"] == "TypeError"


@pytest.mark.parametrize("method", ["echo", "threaded", "fail", "count", "on_a_thread", "sink", "park"])
async def test_the_handler_may_be_left_out(method: str) -> None:
    async def answer(ctx: kk.CallContext, next: kk.Next) -> Any:
        return "instead"

    async with scripted(API(), interceptors=[logging("a"), answer, logging("b")]) as (_, peer):
        assert await peer.exchange(request(1, method)) == [result(1, "instead")]
    assert LOG == ["a in", "a out"]


@pytest.mark.parametrize("method", ["echo", "sink"])
async def test_a_stream_instead_of_the_handler(method: str) -> None:
    async def stream() -> AsyncGenerator[int]:
        try:
            yield 1
            yield 2
        finally:
            LOG.append("the interceptor's finally")

    async def answer(ctx: kk.CallContext, next: kk.Next) -> Any:
        return stream()

    async with scripted(API(), interceptors=[answer]) as (_, peer):
        assert await peer.exchange(request(1, method)) == [opened(1), chunk(1, 1), chunk(1, 2), end(1)]
    assert LOG == ["the interceptor's finally"]


class Odd(Exception):
    def __init__(self) -> None:
        super().__init__("odd")
        self.code = 7


def stray_cancellation() -> BaseException:
    return asyncio.CancelledError("stray")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("make", [Odd, SystemExit, GeneratorExit, StopIteration, StopAsyncIteration])
@pytest.mark.parametrize("method", ["echo", "threaded"])
async def test_an_interceptor_that_raises(make: type[BaseException], when: str, method: str) -> None:
    """The caller gets the error, the outer ones see it, and the channel lives."""

    async def outer(ctx: kk.CallContext, next: kk.Next) -> Any:
        try:
            return await next()
        except BaseException as exc:
            LOG.append(type(exc).__name__)
            raise

    async def fail(ctx: kk.CallContext, next: kk.Next) -> Any:
        if ctx.args == ["fine"]:
            return await next()
        if when == "after":
            await next()
        raise make()

    async with scripted(API(), interceptors=[outer, fail]) as (channel, peer):
        (answer,) = await peer.exchange(request(1, method))
        # A coroutine cannot raise StopIteration: Python itself makes a RuntimeError of it.
        name = "RuntimeError" if make is StopIteration else make.__name__
        assert answer["args"]["error"]["name"] == name
        if make is Odd:
            assert answer["args"]["error"] == {"name": "Odd", "message": "odd", "code": 7}
        assert (["handler"] if when == "after" else []) + [name] == LOG
        (fine,) = await peer.exchange(request(2, method, "fine"))
        assert fine["args"]["result"][0] == "fine"
        assert channel.connection.violations == 0


async def test_a_stray_cancellation_in_an_interceptor(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("trio lets nobody make a Cancelled")

    async def fail(ctx: kk.CallContext, next: kk.Next) -> Any:
        if not ctx.args:
            raise stray_cancellation()
        return await next()

    async with scripted(API(), interceptors=[fail]) as (_, peer):
        (answer,) = await peer.exchange(request(1, "echo"))
        assert answer["args"]["error"]["name"] == "CallCancelled"
        assert await peer.exchange(request(1, "echo", 1)) == [result(1, [1])]


async def test_an_error_may_be_caught_and_changed() -> None:
    async def catch(ctx: kk.CallContext, next: kk.Next) -> Any:
        try:
            return await next()
        except ValueError as exc:
            return f"caught: {exc}"

    async def change(ctx: kk.CallContext, next: kk.Next) -> Any:
        try:
            return await next()
        except ValueError as exc:
            raise KeyError("changed") from exc

    async with scripted(API(), interceptors=[catch]) as (_, peer):
        assert await peer.exchange(request(1, "fail")) == [result(1, "caught: the handler's")]
        (answer,) = await peer.exchange(request(1, "one"))  # the arguments are counted inside
        assert answer["args"]["error"]["name"] == "TypeError"
    async with scripted(API(), interceptors=[change]) as (_, peer):
        (answer,) = await peer.exchange(request(1, "fail"))
        assert answer["args"]["error"] == {
            "name": "KeyError",
            "message": "changed",
            "cause": {"name": "ValueError", "message": "the handler's"},
        }


async def test_a_second_try() -> None:
    """`next` may be called again: the handler runs again."""
    attempts = 0

    class Flaky:
        async def call(self) -> str:
            nonlocal attempts
            attempts += 1
            if attempts < 3:
                raise ValueError(attempts)
            return "at last"

    async def again(ctx: kk.CallContext, next: kk.Next) -> Any:
        while True:
            try:
                return await next()
            except ValueError:
                LOG.append("again")

    async with scripted(Flaky(), interceptors=[again, logging("a")]) as (_, peer):
        assert await peer.exchange(request(1, "call")) == [result(1, "at last")]
    assert LOG == ["a in", "a out", "again", "a in", "a out", "again", "a in", "a out"]


async def test_a_second_try_of_a_sink_fails_as_its_stream_is_open() -> None:
    async def again(ctx: kk.CallContext, next: kk.Next) -> Any:
        try:
            return await next()
        except ValueError:
            return await next()

    async with scripted(API(), interceptors=[again]) as (_, peer):
        *before, last = await peer.exchange(request(1, "sink_that_fails"))
        assert before == [opened(1), chunk(1, 0)]
        assert last["type"] == "stream-error"
        # An error that says what is wrong, and not how the library came upon it.
        error = last["args"]["error"]
        assert error["name"] != "KeyError"
        assert "CalleeState" not in error["message"]


async def test_context_variables_reach_the_handler_and_no_other_call() -> None:
    async def set_it(ctx: kk.CallContext, next: kk.Next) -> Any:
        if ctx.args:
            VARIABLE.set(ctx.args.pop())
        return await next()

    async with scripted(API(), interceptors=[set_it]) as (_, peer):
        for method in ("variable", "threaded", "inlined"):
            assert await peer.exchange(request(1, method, method)) == [result(1, [method])]
            assert await peer.exchange(request(1, method)) == [result(1, [None])]


async def test_a_call_that_is_cancelled_inside_an_interceptor() -> None:
    async def wait(ctx: kk.CallContext, next: kk.Next) -> Any:
        try:
            LOG.append("waits")
            await anyio.sleep_forever()
        finally:
            LOG.append("inner's finally")

    async with scripted(API(), interceptors=[logging("outer"), wait]) as (_, peer):
        await peer.exchange(hello())
        await peer.send(request(1, "echo"))
        await until(lambda: "waits" in LOG)
        (answer,) = await peer.exchange(cancel(1))
        assert answer["args"]["error"]["name"] == "CallCancelled"
    assert LOG == ["outer in", "waits", "inner's finally", "outer out"]


async def test_a_cancelled_handler_is_seen_by_the_interceptors() -> None:
    async with scripted(API(), interceptors=[logging("a")]) as (_, peer):
        await peer.send(request(1, "park"))
        await until(lambda: "a in" in LOG)
        (answer,) = await peer.exchange(cancel(1))
        assert answer["args"]["error"]["name"] == "CallCancelled"
    assert LOG == ["a in", "handler's finally", "a out"]


async def test_the_channel_closing_ends_interceptors() -> None:
    async with scripted(API(), interceptors=[logging("a")]) as (_, peer):
        await peer.send(request(1, "park"))
        await until(lambda: "a in" in LOG)
    assert LOG == ["a in", "handler's finally", "a out"]


# --- streams ----------------------------------------------------------------------------------


def wrapping(name: str) -> kk.Interceptor:
    """Wraps a stream into a generator of its own."""

    async def wrapped(inner: AsyncIterator[Any]) -> AsyncGenerator[Any]:
        try:
            async for value in inner:
                yield [name, value]
            LOG.append(f"{name} saw the end")
        except ValueError:
            LOG.append(f"{name} saw the error")
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            LOG.append(f"{name}'s finally")

    async def intercept(ctx: kk.CallContext, next: kk.Next) -> Any:
        stream = await next()
        assert hasattr(type(stream), "__aiter__")
        return wrapped(stream)

    return intercept


class Wrapper:
    """Wraps a stream into an iterator of its own, and closes nothing by itself."""

    def __init__(self, name: str, inner: Any) -> None:
        self.name = name
        self.inner = inner
        self.iterator: Any = None

    def __aiter__(self) -> Wrapper:
        self.iterator = aiter(self.inner)
        return self

    async def __anext__(self) -> Any:
        return [self.name, await anext(self.iterator)]

    async def aclose(self) -> None:
        LOG.append(f"{self.name}'s finally")


def wrapping_by_class(name: str) -> kk.Interceptor:
    async def intercept(ctx: kk.CallContext, next: kk.Next) -> Any:
        return Wrapper(name, await next())

    return intercept


KINDS = {"generator": wrapping, "class": wrapping_by_class}
CLOSED = ["a's finally", "b's finally", "handler's finally"]


def both(kind: str) -> list[kk.Interceptor]:
    return [KINDS[kind]("a"), KINDS[kind]("b")]


async def test_an_interceptor_sees_the_iterable_and_not_each_chunk() -> None:
    seen: list[Any] = []

    async def spy(ctx: kk.CallContext, next: kk.Next) -> Any:
        value = await next()
        seen.append((ctx.method, hasattr(type(value), "__aiter__")))
        return value

    async with scripted(API(), interceptors=[spy]) as (_, peer):
        for method in ("count", "on_a_thread", "on_the_loop"):
            messages = await peer.exchange(request(1, method, 100))
            assert values_of(messages) == list(range(100))
            assert messages[-1] == end(1)
    assert seen == [("count", True), ("on_a_thread", True), ("on_the_loop", True)]
    assert LOG == ["handler's finally"] * 3


@pytest.mark.parametrize("agreed", [False, True], ids=["stock", "agreed"])
async def test_a_stream_that_is_passed_on_keeps_its_return_value(agreed: bool) -> None:
    async with scripted(API(), interceptors=[logging("a")]) as (_, peer):
        if agreed:
            await peer.exchange(hello(features=["result"]))
        expected = end(1, result="the result") if agreed else end(1)
        for method in ("on_a_thread", "on_the_loop", "sink"):
            assert await peer.exchange(request(1, method, 1)) == [opened(1), chunk(1, 0), expected]


@pytest.mark.parametrize("method", ["count", "on_a_thread", "on_the_loop"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrapped_stream_to_its_end(kind: str, method: str) -> None:
    async with scripted(API(), interceptors=both(kind)) as (_, peer):
        messages = await peer.exchange(request(1, method, 3))
        assert messages[0] == opened(1)
        assert values_of(messages) == [["a", ["b", n]] for n in range(3)]
        assert messages[-1] == end(1)
    if kind == "generator":
        # Each is over when the one inside of it is.
        assert LOG == ["handler's finally", "b saw the end", "b's finally", "a saw the end", "a's finally"]
    else:
        assert sorted(LOG) == sorted(CLOSED)
        assert LOG.index("a's finally") < LOG.index("b's finally")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrapped_stream_that_fails(kind: str) -> None:
    async with scripted(API(), interceptors=both(kind)) as (_, peer):
        messages = await peer.exchange(request(1, "failing_stream"))
        assert values_of(messages) == [["a", ["b", 0]]]
        assert messages[-1]["type"] == "stream-error"
        assert messages[-1]["args"]["error"] == {"name": "ValueError", "message": "the handler's"}
    assert sorted(entry for entry in LOG if "finally" in entry) == CLOSED
    if kind == "generator":
        assert LOG == [
            "handler's finally",
            "b saw the error",
            "b's finally",
            "a saw the error",
            "a's finally",
        ]


@pytest.mark.parametrize("method", ["count", "on_a_thread", "on_the_loop"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrapped_stream_that_is_cancelled_at_a_yield(kind: str, method: str) -> None:
    """It waits for credit, so that every layer stands at its yield: closed outermost first, each once."""
    async with scripted(API(), interceptors=both(kind)) as (_, peer):
        await peer.exchange(hello(features=WITHOUT_BATCH))
        await peer.send(request(1, method, 10_000))
        assert await peer.next() == opened(1)
        for number in range(64):
            assert await peer.next() == chunk(1, ["a", ["b", number]])
        (answer,) = await peer.exchange(cancel(1))
        assert answer == end(1, cancelled=True)
    assert LOG == CLOSED


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrapped_stream_that_is_cancelled_while_it_waits(kind: str) -> None:
    """The cancellation strikes where the innermost waits, and passes outwards."""
    async with scripted(API(), interceptors=both(kind)) as (_, peer):
        await peer.exchange(hello(features=WITHOUT_BATCH))
        await peer.send(request(1, "parked_stream"))
        assert await peer.next() == opened(1)
        assert await peer.next() == chunk(1, ["a", ["b", 0]])
        (answer,) = await peer.exchange(cancel(1))
        assert answer == end(1, cancelled=True)
    assert sorted(LOG) == CLOSED
    assert LOG[0] == "handler's finally"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrapped_stream_when_the_channel_closes(kind: str) -> None:
    async with scripted(API(), interceptors=both(kind)) as (_, peer):
        await peer.exchange(hello(features=WITHOUT_BATCH))
        await peer.send(request(1, "count", 10_000))
        for _ in range(65):
            await peer.next()
    assert LOG == CLOSED


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrapped_stream_of_which_a_chunk_cannot_be_sent(kind: str) -> None:
    class Bad:
        async def stream(self) -> AsyncGenerator[Any]:
            try:
                yield 0
                yield object()
                yield 1
            finally:
                LOG.append("handler's finally")

    async with scripted(Bad(), interceptors=both(kind)) as (_, peer):
        messages = await peer.exchange(request(1, "stream"))
        assert values_of(messages) == [["a", ["b", 0]]]
        assert messages[-1]["args"]["error"]["name"] == "NotSerializable"
    assert LOG == CLOSED


async def test_a_wrapper_that_ends_before_its_stream() -> None:
    def first(count: int) -> kk.Interceptor:
        async def wrapped(inner: AsyncIterator[Any]) -> AsyncGenerator[Any]:
            try:
                async for value in inner:
                    yield value
                    if value == count - 1:
                        return
            finally:
                LOG.append(f"first {count}")

        async def intercept(ctx: kk.CallContext, next: kk.Next) -> Any:
            return wrapped(await next())

        return intercept

    async with scripted(API(), interceptors=[first(2), first(5)]) as (_, peer):
        for method in ("count", "on_a_thread", "on_the_loop"):
            LOG.clear()
            messages = await peer.exchange(request(1, method, 10_000))
            assert values_of(messages) == [0, 1]
            assert messages[-1] == end(1)
            assert LOG == ["first 2", "first 5", "handler's finally"]


async def test_a_wrapper_that_raises_over_its_stream() -> None:
    async def wrapped(inner: AsyncIterator[Any]) -> AsyncGenerator[Any]:
        try:
            async for value in inner:
                yield value
                raise KeyError("the wrapper's")
        finally:
            LOG.append("wrapper's finally")

    async def intercept(ctx: kk.CallContext, next: kk.Next) -> Any:
        return wrapped(await next())

    async with scripted(API(), interceptors=[intercept]) as (_, peer):
        for method in ("count", "on_a_thread", "on_the_loop"):
            LOG.clear()
            messages = await peer.exchange(request(1, method, 10_000))
            assert values_of(messages) == [0]
            assert messages[-1]["args"]["error"]["name"] == "KeyError"
            assert LOG == ["wrapper's finally", "handler's finally"]


@pytest.mark.parametrize("method", ["count", "on_a_thread", "on_the_loop"])
async def test_an_interceptor_that_raises_after_it_got_a_stream(method: str) -> None:
    """The stream was never opened, so the error is the call's; the generator never began."""

    async def fail(ctx: kk.CallContext, next: kk.Next) -> Any:
        await next()
        raise KeyError("too late")

    async with scripted(API(), interceptors=[fail]) as (_, peer):
        (answer,) = await peer.exchange(request(1, method, 3))
        assert answer == response(1, error={"name": "KeyError", "message": "too late"})
    assert LOG == []


@pytest.mark.parametrize("method", ["count", "on_a_thread", "on_the_loop"])
async def test_a_value_in_place_of_a_stream(method: str) -> None:
    """What the interceptor read of it itself, to the end or in part."""

    async def gather(ctx: kk.CallContext, next: kk.Next) -> Any:
        return [value async for value in await next()]

    async def glance(ctx: kk.CallContext, next: kk.Next) -> Any:
        return await anext(aiter(await next()))

    async with scripted(API(), interceptors=[gather]) as (_, peer):
        assert await peer.exchange(request(1, method, 3)) == [result(1, [0, 1, 2])]
    assert LOG == ["handler's finally"]
    LOG.clear()
    async with scripted(API(), interceptors=[glance]) as (_, peer):
        assert await peer.exchange(request(1, method, 3)) == [result(1, 0)]
    assert LOG == ["handler's finally"]


async def test_a_wrapper_whose_closing_fails_keeps_no_other_from_being_closed() -> None:
    class Failing(Wrapper):
        async def aclose(self) -> None:
            await super().aclose()
            raise KeyError(self.name)

    def failing(name: str) -> kk.Interceptor:
        async def intercept(ctx: kk.CallContext, next: kk.Next) -> Any:
            return Failing(name, await next())

        return intercept

    async with scripted(API(), interceptors=[failing("a"), failing("b")]) as (channel, peer):
        messages = await peer.exchange(request(1, "count", 2))
        assert len(values_of(messages)) == 2
        assert messages[-1]["type"] == "stream-error"
        assert messages[-1]["args"]["error"]["name"] == "KeyError"
        assert sorted(LOG) == CLOSED
        LOG.clear()
        await peer.exchange(hello(features=WITHOUT_BATCH))
        await peer.send(request(2, "count", 10_000))
        for _ in range(65):
            await peer.next()
        (answer,) = await peer.exchange(cancel(2))
        assert answer["id"] == 2
        assert LOG == CLOSED
        await at_rest(channel)


async def test_a_wrapper_that_takes_for_ever_to_close() -> None:
    """`Limits.cleanup_seconds` each, and the inner ones are closed all the same."""

    class Hanging(Wrapper):
        async def aclose(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                LOG.append(f"{self.name}'s finally")

    async def hang(ctx: kk.CallContext, next: kk.Next) -> Any:
        return Hanging("a", await next())

    limits = kk.Limits(cleanup_seconds=0.1)
    async with scripted(API(), interceptors=[hang, wrapping_by_class("b")], limits=limits) as (_, peer):
        await peer.exchange(hello(features=WITHOUT_BATCH))
        await peer.send(request(1, "count", 10_000))
        for _ in range(65):
            await peer.next()
        assert await peer.exchange(cancel(1)) == [end(1, cancelled=True)]
    assert LOG == CLOSED


async def test_the_flow_of_a_wrapped_stream() -> None:
    """Credit holds the wrapped generator back as well: it is not read ahead."""
    read: list[int] = []

    class Numbers:
        async def stream(self) -> AsyncGenerator[int]:
            for number in range(1000):
                read.append(number)
                yield number

    async with scripted(Numbers(), interceptors=both("generator")) as (_, peer):
        await peer.exchange(hello(features=WITHOUT_BATCH))
        await peer.send(request(1, "stream"))
        for _ in range(65):
            await peer.next()
        await anyio.wait_all_tasks_blocked()
        assert len(read) <= 65
        await peer.send(ack(1, 10, 1 << 20))
        for _ in range(10):
            await peer.next()
        await anyio.wait_all_tasks_blocked()
        assert len(read) <= 75
        await peer.exchange(cancel(1))


# --- sinks ------------------------------------------------------------------------------------


async def test_a_sink_inside_the_onion() -> None:
    async def change(ctx: kk.CallContext, next: kk.Next) -> Any:
        ctx.args = [ctx.args[0] + 1]
        return [await next()]

    async with scripted(API(), interceptors=[logging("a"), change]) as (_, peer):
        await peer.exchange(hello(features=["result"]))
        messages = await peer.exchange(request(1, "sink", 2))
        assert values_of(messages) == [0, 1, 2]
        assert messages[-1] == end(1, result=["the result"])
    assert LOG == ["a in", "handler", "handler's finally", "a out"]


async def test_an_interceptor_that_raises_after_a_sink() -> None:
    """The stream is open by then: it ends in the error, after its values."""

    async def fail(ctx: kk.CallContext, next: kk.Next) -> Any:
        await next()
        raise KeyError("after")

    async with scripted(API(), interceptors=[fail]) as (_, peer):
        *before, last = await peer.exchange(request(1, "sink", 2))
        assert before == [opened(1), chunk(1, 0), chunk(1, 1)]
        assert last["type"] == "stream-error"
        assert last["args"]["error"]["name"] == "KeyError"


async def test_an_interceptor_that_catches_a_sinks_error() -> None:
    async def catch(ctx: kk.CallContext, next: kk.Next) -> Any:
        try:
            return await next()
        except ValueError as exc:
            return f"caught: {exc}"

    async with scripted(API(), interceptors=[catch]) as (_, peer):
        await peer.exchange(hello(features=["result"]))
        messages = await peer.exchange(request(1, "sink_that_fails"))
        assert messages == [opened(1), chunk(1, 0), end(1, result="caught: the handler's")]


async def test_a_cancelled_sink_inside_the_onion() -> None:
    async with scripted(API(), interceptors=[logging("a")]) as (_, peer):
        await peer.exchange(hello(features=WITHOUT_BATCH))
        await peer.send(request(1, "sink", 10_000))
        for _ in range(65):
            await peer.next()
        assert await peer.exchange(cancel(1)) == [end(1, cancelled=True)]
    assert LOG == ["a in", "handler's finally", "a out"]


# --- both ends --------------------------------------------------------------------------------


async def drain(peer: Peer, id: Any) -> list[Any]:
    messages = []
    while not messages or messages[-1]["type"] not in ("stream-end", "stream-error"):
        messages.append(await peer.next())
        assert messages[-1]["id"] == id
    return values_of(messages)


async def test_interceptors_may_call_the_peer() -> None:
    """Asked for leave in the middle of a call, the caller answers while it waits."""
    channels: list[kk.RPCChannel] = []

    async def ask(ctx: kk.CallContext, next: kk.Next) -> Any:
        if not await channels[0].remote().may(ctx.method):
            raise PermissionError(ctx.method)
        return await next()

    async with scripted(API(), interceptors=[ask]) as (channel, peer):
        channels.append(channel)
        for leave in (True, False):
            await peer.send(request("r", "count", 3))
            asked = await peer.next()
            assert (asked["method"], asked["args"]) == ("may", ["count"])
            await peer.send(result(asked["id"], leave))
            if leave:
                assert await drain(peer, "r") == [0, 1, 2]
            else:
                assert (await peer.next())["args"]["error"]["name"] == "PermissionError"


async def test_interceptors_run_for_many_calls_at_once() -> None:
    release = anyio.Event()

    async def hold(ctx: kk.CallContext, next: kk.Next) -> Any:
        await release.wait()
        return [ctx.state.setdefault("n", ctx.args[0]), await next()]

    async with scripted(API(), interceptors=[hold, hold]) as (channel, peer):
        await peer.send(*[request(n, "one", n) for n in range(200)])
        await until(lambda: len(channel.connection.incoming) == 200)
        release.set()
        answers = await peer.exchange()
        assert sorted(answers, key=lambda answer: answer["id"]) == [
            result(n, [n, [n, n]]) for n in range(200)
        ]
