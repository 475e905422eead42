"""Actions over a channel: chunks, backpressure, ends of every kind, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from kkrpc_py.actions.action import action_of
from kkrpc_py.core.credit import INITIAL_CHUNKS
from tests.channel.harness import Log, linked, until
from tests.channel.peer import ack, cancel, hello, request, scripted

pytestmark = pytest.mark.anyio

SECRET = "hunter2"
UNEXPECTED = {
    "name": "ActionError",
    "message": "Stream handler error",
    "code": "STREAM_ERROR",
    "statusCode": 500,
}
AGREED = pytest.mark.parametrize("agreed", [True, False], ids=["agreed", "stock"])
Handler = Callable[[Any, kk.ActionContext, "kk.ActionStream[Any]"], Any]


def action(handler: Handler, **options: Any) -> Any:
    return kk.stream_action(**options)(handler)


class Watched:
    """A handler that notes what becomes of it; what it does in between is `work`."""

    def __init__(self, work: Handler, **options: Any) -> None:
        self.log = Log()
        self.streams: list[kk.ActionStream[Any]] = []

        async def watched(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
            self.streams.append(stream)
            stream.signal.on_cancel(lambda: self.log("signal"))
            self.log("begun")
            try:
                await work(input, ctx, stream)
                self.log("done")
            except BaseException as exc:
                self.log(type(exc).__name__)
                raise
            finally:
                self.log("finally")

        self.action = kk.stream_action(**options)(watched)

    @property
    def cancelled(self) -> list[str]:
        return ["begun", "signal", anyio.get_cancelled_exc_class().__name__, "finally"]


async def counting(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
    for number in range(input):
        await stream.send(number)


async def endless(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
    while True:
        await stream.send(input)


async def parked(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
    for number in range(input):
        await stream.send(number)
    await anyio.sleep_forever()


async def chunks(call: Any) -> list[Any]:
    return [chunk async for chunk in call]


async def failing(call: Any) -> tuple[list[Any], kk.ActionError]:
    """The chunks before the error, and the error, of which nothing private is known."""
    found: list[Any] = []
    with pytest.raises(kk.ActionError) as caught:
        async for chunk in call:
            found.append(chunk)
    error = caught.value
    assert error.__cause__ is None
    assert SECRET not in f"{error!r} {vars(error)}" + "".join(getattr(error, "__notes__", []))
    return found, error


# Chunks --------------------------------------------------------------------------------------------


@AGREED
@pytest.mark.parametrize("codec", ["json", "superjson", "cbor"])
async def test_chunks_come_in_order_and_then_the_end(agreed: bool, codec: Any) -> None:
    watched = Watched(counting)
    async with linked({"count": watched.action}, hello=agreed, codec=codec) as (_, client):
        if codec == "cbor" and not agreed:
            return
        assert await chunks(client.remote().count(1000)) == list(range(1000))
        stream = await client.remote().count(3)
        assert await chunks(stream) == [0, 1, 2]
        assert await stream is None
        assert await chunks(client.remote().count(0)) == []
    assert watched.log.entries == ["begun", "done", "finally", "signal"] * 3


async def test_each_chunk_leaves_when_the_handler_waits() -> None:
    gates = [anyio.Event() for _ in range(3)]

    async def gated(input: Any, ctx: Any, stream: Any) -> None:
        for number, gate in enumerate(gates):
            await stream.send(number)
            await gate.wait()

    async with linked({"gated": action(gated)}) as (_, client):
        stream = await client.remote().gated()
        for number, gate in enumerate(gates):
            assert await anext(stream) == number
            gate.set()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_several_tasks_of_the_handler_send() -> None:
    async def several(input: Any, ctx: Any, stream: Any) -> None:
        async def child(name: str) -> None:
            for number in range(200):
                await stream.send([name, number])
                if number % 7 == 0:
                    await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(child, name)
            await stream.send(["main", 0])

    async with linked({"several": action(several)}) as (_, client):
        found = await chunks(client.remote().several())
    assert len(found) == 601
    for name in "abc":
        assert [number for who, number in found if who == name] == list(range(200))


async def test_many_calls_at_once() -> None:
    async with linked({"count": action(counting)}) as (_, client), anyio.create_task_group() as tasks:

        async def one(size: int) -> None:
            assert await chunks(client.remote().count(size)) == list(range(size))

        for size in range(0, 400, 7):
            tasks.start_soon(one, size)


# Backpressure --------------------------------------------------------------------------------------


async def test_send_waits_for_credit() -> None:
    sent = 0

    async def fast(input: Any, ctx: Any, stream: Any) -> None:
        nonlocal sent
        while True:
            await stream.send("x")
            sent += 1

    async with linked({"fast": action(fast)}) as (_, client):
        stream = await client.remote().fast()
        await anyio.wait_all_tasks_blocked()
        assert sent <= INITIAL_CHUNKS
        before = sent
        for _ in range(200):
            await anext(stream)
        await anyio.wait_all_tasks_blocked()
        assert before < sent <= 200 + 5 * INITIAL_CHUNKS
        await stream.cancel()


async def test_large_chunks_wait_for_bytes() -> None:
    sent = 0

    async def large(input: Any, ctx: Any, stream: Any) -> None:
        nonlocal sent
        while True:
            await stream.send("x" * 100_000)
            sent += 1

    async with linked({"large": action(large)}) as (_, client):
        stream = await client.remote().large()
        await anyio.wait_all_tasks_blocked()
        assert sent <= 12
        await stream.cancel()


async def test_one_who_does_not_read_holds_up_nobody_else() -> None:
    async with linked({"endless": action(endless), "count": action(counting)}) as (_, client):
        stalled = await client.remote().endless("x" * 1000)
        assert await chunks(client.remote().count(500)) == list(range(500))
        await stalled.cancel()


# The consumer goes ---------------------------------------------------------------------------------


@AGREED
@pytest.mark.parametrize("work", [parked, endless], ids=["parked", "sending"])
async def test_a_break_sets_the_signal_and_then_cancels(work: Handler, agreed: bool) -> None:
    watched = Watched(work)
    async with linked({"do": watched.action}, hello=agreed) as (_, client):
        async for _ in client.remote().do(1):
            break
        await watched.log.wait_for("finally")
        assert watched.log.entries == watched.cancelled
        [stream] = watched.streams
        assert stream.closed
        assert stream.signal.cancelled
        with pytest.raises(kk.StreamClosed):
            await stream.send("more")
        await stream.close()


async def test_cancel_returns_when_the_finally_has_run() -> None:
    watched = Watched(parked)
    async with linked({"do": watched.action}) as (_, client):
        stream = await client.remote().do(2)
        assert await anext(stream) == 0
        await stream.cancel()
        assert watched.log.entries == watched.cancelled


@AGREED
async def test_a_consumer_that_is_cancelled(agreed: bool) -> None:
    watched = Watched(parked)
    async with linked({"do": watched.action}, hello=agreed) as (_, client):
        with anyio.CancelScope() as scope:
            async for _ in client.remote().do(1):
                scope.cancel()
        await watched.log.wait_for("finally")
        assert watched.log.entries == watched.cancelled


@pytest.mark.parametrize("end", ["client", "server", "eof"])
async def test_a_channel_that_ends(end: str) -> None:
    watched = Watched(parked)
    async with linked({"do": watched.action}, quiet=False, limits=kk.Limits(finish_seconds=0.05)) as (
        server,
        client,
    ):
        stream = await client.remote().do(1)
        assert await anext(stream) == 0
        if end == "client":
            await client.aclose()
        elif end == "server":
            await server.aclose()
        else:
            await client.byte_stream.aclose()
        await watched.log.wait_for("finally")
        with pytest.raises(kk.KkrpcError):
            await anext(stream)
    assert watched.log.entries == watched.cancelled


async def test_the_signal_is_something_to_wait_for() -> None:
    log = Log()

    async def polite(input: Any, ctx: Any, stream: kk.ActionStream[Any]) -> None:
        with anyio.CancelScope(shield=True):
            await stream.send("first")
            await stream.signal.wait()
            log("told")
            await stream.send("into the void")  # nobody is there: it goes nowhere, and does not wait
            for _ in range(1000):
                await stream.send("x" * 1000)
            log("over")

    async with linked({"polite": action(polite)}) as (_, client):
        stream = await client.remote().polite()
        assert await anext(stream) == "first"
        await stream.cancel()
        assert log.entries == ["told", "over"]


async def test_a_callback_of_the_signal_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise ValueError(SECRET)

    async def work(input: Any, ctx: Any, stream: kk.ActionStream[Any]) -> None:
        stream.signal.on_cancel(fails)
        await stream.send(1)

    async with linked({"work": action(work)}) as (_, client):
        assert await chunks(client.remote().work()) == [1]
    assert SECRET in caplog.text


@AGREED
async def test_what_a_cancelled_handler_raises_in_its_cleanup_is_not_told(agreed: bool) -> None:
    async def plain(input: Any, ctx: Any, stream: Any) -> None:
        try:
            await parked(input, ctx, stream)
        finally:
            raise ValueError(SECRET)

    async def in_a_group(input: Any, ctx: Any, stream: Any) -> None:
        async def child() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                raise ValueError(SECRET)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child)
            tasks.start_soon(parked, input, ctx, stream)

    api = {"plain": action(plain), "group": action(in_a_group)}
    async with scripted(api) as (_, peer):
        if agreed:
            await peer.exchange(hello())
        for name in api:
            await peer.send(request(name, name, 1))
            assert (await peer.next())["type"] == "response"
            assert (await peer.next())["type"] == "stream-chunk"
            said = await peer.exchange(cancel(name))
            assert [message["id"] for message in said] in ([name], [])
            if agreed and name == "group" and anyio.get_cancelled_exc_class() is not asyncio.CancelledError:
                # On trio the cancellation is among what leaves the task group.
                assert said[0]["args"] == {"cancelled": True}
        assert SECRET.encode() not in peer.heard


# Errors --------------------------------------------------------------------------------------------


@AGREED
@pytest.mark.parametrize("before", [0, 1, 50, 1000])
async def test_an_action_error_comes_after_the_chunks_before_it(agreed: bool, before: int) -> None:
    async def fails(input: Any, ctx: Any, stream: Any) -> None:
        await counting(input, ctx, stream)
        error = kk.ActionError(
            "OUT_OF_TOKENS", "buy some", 402, field_errors={"a.b": ["1", "2"], "_root": ["3"]}
        )
        error.add_note(SECRET)
        error.private = SECRET  # type: ignore[attr-defined]  # as users do
        raise error from ValueError(SECRET)

    watched = Watched(fails)
    async with linked({"fails": watched.action}, hello=agreed) as (_, client):
        found, error = await failing(client.remote().fails(before))
        assert found == list(range(before))
        assert (error.code, error.message, error.status) == ("OUT_OF_TOKENS", "buy some", 402)
        assert error.field_errors == {"a.b": ["1", "2"], "_root": ["3"]}
    assert watched.log.entries == ["begun", "ActionError", "finally", "signal"]


class Custom(Exception):
    def __init__(self) -> None:
        super().__init__(SECRET)
        self.field = SECRET
        self.add_note(SECRET)


class Base(BaseException):
    pass


def _raises(error: Callable[[], BaseException], *, suspend: bool) -> Handler:
    async def fails(input: Any, ctx: Any, stream: Any) -> None:
        await stream.send(1)
        if suspend:
            await anyio.lowlevel.checkpoint()
        raise error() from ValueError(SECRET)

    return fails


@pytest.mark.parametrize("suspend", [True, False], ids=["later", "at once"])
@pytest.mark.parametrize(
    "error",
    [
        Custom,
        lambda: Base(SECRET),
        lambda: asyncio.CancelledError(SECRET),
        lambda: SystemExit(SECRET),
        lambda: BaseExceptionGroup(SECRET, [Base(SECRET), kk.ActionError("A")]),
        lambda: ExceptionGroup(SECRET, [Custom(), kk.ActionError("A"), kk.ActionError("B")]),
        lambda: kk.ValidationFailed(SECRET, "output", []),
        lambda: kk.RemoteError(SECRET, SECRET, fields={"a": SECRET}),
        lambda: kk.MethodNotFound(SECRET),
        lambda: kk.NotSerializable(SECRET, SECRET, SECRET),
        lambda: kk.CallCancelled(SECRET),
        lambda: kk.StreamClosed(SECRET),
        lambda: StopAsyncIteration(SECRET),
        lambda: TimeoutError(SECRET),
    ],
    ids=lambda error: type(error()).__name__,
)
async def test_an_unexpected_error_is_logged_and_not_told(
    error: Any, suspend: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with scripted({"fails": action(_raises(error, suspend=suspend))}) as (_, peer):
        for agreed in (False, True):
            if agreed:
                await peer.exchange(hello())
            said = await peer.exchange(request(f"{agreed}", "fails", 1))
            assert [message["type"] for message in said] == ["response", "stream-chunk", "stream-error"]
            assert said[-1]["args"]["error"] == UNEXPECTED
        assert SECRET.encode() not in peer.heard
    assert SECRET in caplog.text


async def test_a_cancellation_of_another_task_is_an_unexpected_error() -> None:
    """On asyncio it looks like one's own."""

    async def awaits(input: Any, ctx: Any, stream: Any) -> None:
        await stream.send(1)
        task = asyncio.ensure_future(asyncio.sleep(10))
        await asyncio.sleep(0)
        task.cancel()
        await task

    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        async with scripted({"awaits": action(awaits)}) as (_, peer):
            said = await peer.exchange(request("1", "awaits", 1))
            assert said[-1]["args"]["error"] == UNEXPECTED
            assert await peer.exchange(request("2", "none"))


async def test_tracebacks_only_where_the_server_sends_them() -> None:
    async with linked({"fails": action(_raises(Custom, suspend=False))}, tracebacks=True) as (_, client):
        with pytest.raises(kk.ActionError) as caught:
            await chunks(client.remote().fails())
        assert caught.value.to_data() == {
            "code": "STREAM_ERROR",
            "message": "Stream handler error",
            "statusCode": 500,
        }


async def test_an_error_of_a_task_of_the_handlers() -> None:
    async def meant() -> None:
        raise kk.ActionError("MEANT")

    async def not_meant() -> None:
        raise Custom

    async def grouped(input: Any, ctx: Any, stream: Any) -> None:
        await stream.send(1)
        async with anyio.create_task_group() as outer, anyio.create_task_group() as inner:
            outer.start_soon(anyio.sleep_forever)
            inner.start_soon({"meant": meant, "not": not_meant}[input])

    async with linked({"grouped": action(grouped)}) as (_, client):
        found, error = await failing(client.remote().grouped("meant"))
        assert (found, error.code) == ([1], "MEANT")
        found, error = await failing(client.remote().grouped("not"))
        assert (found, error.code) == ([1], "STREAM_ERROR")


class Unsendable:
    def __repr__(self) -> str:
        return SECRET


async def _unsendable_at_the_end(input: Any, ctx: Any, stream: Any) -> None:
    await counting(input, ctx, stream)
    await stream.send(Unsendable())


async def _unsendable_then_parked(input: Any, ctx: Any, stream: Any) -> None:
    await _unsendable_at_the_end(input, ctx, stream)
    await anyio.sleep_forever()


async def _unsendable_then_on(input: Any, ctx: Any, stream: Any) -> None:
    await _unsendable_at_the_end(input, ctx, stream)
    await endless(input, ctx, stream)


async def _unsendable_then_closed(input: Any, ctx: Any, stream: Any) -> None:
    await _unsendable_at_the_end(input, ctx, stream)
    await stream.close()
    await anyio.sleep_forever()


async def _unsendable_of_a_task(input: Any, ctx: Any, stream: Any) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_unsendable_then_parked, input, ctx, stream)
        tasks.start_soon(anyio.sleep_forever)


async def _unsendable_kept(input: Any, ctx: Any, stream: Any) -> None:
    await counting(input, ctx, stream)
    await anyio.lowlevel.checkpoint()
    try:
        await stream.send(Unsendable())
        await anyio.lowlevel.checkpoint()
        await stream.send(1)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()


@AGREED
@pytest.mark.parametrize(
    "work",
    [
        _unsendable_at_the_end,
        _unsendable_then_parked,
        _unsendable_then_on,
        _unsendable_then_closed,
        _unsendable_of_a_task,
        _unsendable_kept,
    ],
    ids=lambda work: work.__name__.removeprefix("_"),
)
async def test_a_chunk_that_cannot_be_sent(work: Any, agreed: bool, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(work)
    async with scripted({"do": watched.action}, hello=False) as (_, peer):
        if agreed:
            await peer.exchange(hello())
        said = await peer.exchange(request("1", "do", 2))
        assert said[-1]["type"] == "stream-error"
        assert said[-1]["args"]["error"] == UNEXPECTED
        assert SECRET.encode() not in peer.heard
        assert b"Unsendable" not in peer.heard
    assert watched.log.entries[-1] == "signal" or "signal" in watched.log.entries
    assert "finally" in watched.log.entries
    assert "Unsendable" in caplog.text


async def test_a_handler_may_catch_what_cannot_be_sent() -> None:
    async def careful(input: Any, ctx: Any, stream: Any) -> None:
        await anyio.lowlevel.checkpoint()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.lowlevel.checkpoint)
        try:
            await stream.send(Unsendable())
            await stream.close()
        except kk.NotSerializable:
            raise kk.ActionError("NOT_SENT") from None

    async with linked({"careful": action(careful)}) as (_, client):
        found, error = await failing(client.remote().careful())
        assert (found, error.code) == ([], "NOT_SENT")


@pytest.mark.parametrize("gap", [False, True], ids=["at once", "with pauses"])
async def test_a_handler_that_goes_on_after_what_cannot_be_sent_loses_nothing_in_silence(gap: bool) -> None:
    async def stubborn(input: Any, ctx: Any, stream: Any) -> None:
        for chunk in (1, 2, Unsendable(), 3, Unsendable(), 4):
            with contextlib.suppress(kk.NotSerializable):
                await stream.send(chunk)
            if gap:
                await anyio.lowlevel.checkpoint()

    async with linked({"stubborn": action(stubborn)}) as (_, client):
        found, error = await failing(client.remote().stubborn())
        assert (found, error.code) == ([1, 2], "STREAM_ERROR")


# Closing -------------------------------------------------------------------------------------------


@AGREED
async def test_nothing_can_be_sent_after_close(agreed: bool) -> None:
    log = Log()

    async def closes(input: Any, ctx: Any, stream: kk.ActionStream[Any]) -> None:
        assert not stream.closed
        await stream.send(1)
        await stream.close()
        await stream.close()
        assert stream.closed
        for _ in range(2):
            with pytest.raises(kk.StreamClosed):
                await stream.send(2)
        log("checked")

    async with linked({"closes": action(closes)}, hello=agreed) as (_, client):
        assert await chunks(client.remote().closes()) == [1]
        assert log.entries == ["checked"]


async def test_a_stream_closed_error_that_leaves_the_handler_is_unexpected() -> None:
    async def closes(input: Any, ctx: Any, stream: kk.ActionStream[Any]) -> None:
        await stream.send(1)
        await stream.close()
        await stream.send(2)

    async with linked({"closes": action(closes)}) as (_, client):
        found, error = await failing(client.remote().closes())
        assert (found, error.code) == ([1], "STREAM_ERROR")


class Outlet:
    """Where chunks go, as a server has one."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    async def send(self, value: Any) -> None:
        self.log.append(value)

    async def close(self) -> None:
        self.log.append("closed")


@pytest.mark.parametrize(
    ("closes", "expected"),
    [(0, [0, 1, "closed"]), (1, [0, 1, "closed"]), (2, [0, 1, "closed"]), (-1, [0, 1])],
    ids=["returns", "closes", "twice", "fails"],
)
async def test_an_outlet_is_closed_once_and_not_after_an_error(closes: int, expected: Any) -> None:
    async def handler(input: Any, ctx: Any, stream: kk.ActionStream[Any]) -> None:
        await counting(2, ctx, stream)
        for _ in range(closes):
            await stream.close()
        if closes < 0:
            raise kk.ActionError("NO")

    bound = action_of(action(handler))
    assert bound is not None
    prepared = await bound.prepare({}, kk.ActionContext("handler", transport="sse"))
    assert not prepared.signal.cancelled
    outlet = Outlet()
    with contextlib.suppress(kk.ActionError):
        await prepared.run(outlet)
    assert outlet.log == expected
    assert prepared.signal.cancelled


async def test_close_waits_until_the_chunks_have_left() -> None:
    log = Log()

    async def closes(input: Any, ctx: Any, stream: kk.ActionStream[Any]) -> None:
        for number in range(INITIAL_CHUNKS):
            await stream.send(number)
        log("sent")
        await stream.close()
        log("closed")

    async with linked({"closes": action(closes)}) as (_, client):
        assert len(await chunks(client.remote().closes())) == INITIAL_CHUNKS
        assert log.entries == ["sent", "closed"]


async def test_a_task_that_outlives_the_handler_sends_nothing() -> None:
    log = Log()
    gate = anyio.Event()

    async with anyio.create_task_group() as outer:

        async def late(stream: kk.ActionStream[Any]) -> None:
            await gate.wait()
            assert stream.closed
            assert stream.signal.cancelled
            with pytest.raises(kk.StreamClosed):
                await stream.send(2)
            log("refused")

        async def leaves(input: Any, ctx: Any, stream: kk.ActionStream[Any]) -> None:
            outer.start_soon(late, stream)
            await stream.send(1)

        async with linked({"leaves": action(leaves)}) as (_, client):
            assert await chunks(client.remote().leaves()) == [1]
            gate.set()
            await log.wait_for("refused")


async def test_one_task_closes_while_another_one_waits_in_send() -> None:
    log = Log()
    gate = anyio.Event()

    async def work(input: Any, ctx: Any, stream: kk.ActionStream[Any]) -> None:
        async def sends() -> None:
            try:
                while True:
                    await stream.send("x" * 1000)
            except kk.StreamClosed:
                log("closed")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sends)
            await gate.wait()
            await stream.close()

    async with linked({"work": action(work)}) as (_, client):
        stream = await client.remote().work()
        await anyio.wait_all_tasks_blocked()  # there is no credit any more
        gate.set()
        await anyio.wait_all_tasks_blocked()
        assert set(await chunks(stream)) == {"x" * 1000}
        assert log.entries == ["closed"]


# What surrounds it ---------------------------------------------------------------------------------


async def test_interceptors_see_the_call_and_its_refusal() -> None:
    log = Log()

    async def outer(ctx: kk.CallContext, next: Any) -> Any:
        log((ctx.method, list(ctx.args)))
        if ctx.args == ["change"]:
            ctx.args = [2]
        try:
            result = await next()
        except kk.ActionError as error:
            log(error.code)
            raise
        log("opened")
        return result

    async def inner(ctx: kk.CallContext, next: Any) -> Any:
        return await next()

    async def refuse(ctx: kk.ActionContext) -> None:
        if ctx.input == "no":
            raise kk.ActionError("NO")

    api = {"count": action(counting, middleware=[refuse])}
    async with linked(api, interceptors=[outer, inner]) as (_, client):
        assert await chunks(client.remote().count(3)) == [0, 1, 2]
        assert await chunks(client.remote().count("change")) == [0, 1]
        with pytest.raises(kk.ActionError):
            await client.remote().count("no")
    assert log.entries == [("count", [3]), "opened", ("count", ["change"]), "opened", ("count", ["no"]), "NO"]


async def test_an_interceptor_that_answers_in_its_place() -> None:
    async def instead(ctx: kk.CallContext, next: Any) -> Any:
        await next()
        return "something else"

    watched = Watched(counting)
    async with linked({"count": watched.action}, interceptors=[instead]) as (_, client):
        assert await client.remote().count(3) == "something else"
    assert watched.log.entries == []


async def test_an_interceptor_that_fails_after_the_handler_was_prepared() -> None:
    async def fails(ctx: kk.CallContext, next: Any) -> Any:
        await next()
        raise ValueError("the interceptor's")

    watched = Watched(counting)
    async with linked({"count": watched.action}, interceptors=[fails]) as (_, client):
        with pytest.raises(ValueError, match="the interceptor's"):
            await client.remote().count(3)
    assert watched.log.entries == []


async def test_a_handler_calls_its_caller() -> None:
    class Client:
        async def ask(self, what: str) -> str:
            return what.upper()

    async def asks(input: Any, ctx: kk.ActionContext, stream: Any) -> None:
        assert ctx.channel is kk.current_channel()
        for word in input:
            await stream.send(await ctx.channel.remote().ask(word))

    async with linked({"asks": action(asks)}, Client()) as (_, client):
        assert await chunks(client.remote().asks(["a", "b"])) == ["A", "B"]


async def test_a_notification_has_nowhere_to_stream_to() -> None:
    watched = Watched(counting)
    async with scripted({"count": watched.action}) as (_, peer):
        message = request("1", "count", 3)
        del message["id"]
        await peer.exchange(message)
    assert watched.log.entries == []


async def test_a_call_is_told_of_before_the_first_chunk() -> None:
    """`await` returns as soon as nothing refuses: a stream that is silent for long is a stream."""
    watched = Watched(parked)
    async with linked({"do": watched.action}) as (_, client):
        stream = await client.remote().do(0)
        await watched.log.wait_for("begun")
        await stream.cancel()
        assert watched.log.entries == watched.cancelled


# A stock peer --------------------------------------------------------------------------------------


async def test_on_the_wire_of_a_stock_peer() -> None:
    watched = Watched(parked)
    async with scripted({"do": watched.action}) as (channel, peer):
        await peer.send(request("1", "do", 2))
        said = [await peer.next() for _ in range(3)]
        assert said[0]["args"] == {"result": {"__stream": True}}
        assert [message["args"] for message in said[1:]] == [{"value": 0}, {"value": 1}]
        assert await peer.exchange(cancel("1")) == []
        assert not channel.connection.violations
    assert watched.log.entries == watched.cancelled


async def test_a_cancel_in_the_same_read_as_the_request() -> None:
    for agreed in (False, True):
        watched = Watched(parked)
        async with scripted({"do": watched.action}) as (_, peer):
            if agreed:
                await peer.exchange(hello())
            said = await peer.exchange(request("1", "do", 2), cancel("1"))
            assert {message["id"] for message in said} <= {"1"}
        assert watched.log.entries in ([], watched.cancelled)


async def test_credit_by_hand() -> None:
    """A peer that grants one chunk at a time gets one at a time."""
    async with scripted({"count": action(counting)}) as (_, peer):
        await peer.exchange(hello(features=["credit", "result", "cancel"]))
        await peer.send(request("1", "count", 100))
        opening = [await peer.next() for _ in range(65)]
        assert [message["type"] for message in opening] == ["response", *["stream-chunk"] * 64]
        for number in range(64, 100):
            await peer.send(ack("1", 1, 1000))
            assert (await peer.next())["args"] == {"value": number}
        await peer.send(ack("1", 1, 1000))  # `send` has waited for room for another one
        assert (await peer.next())["type"] == "stream-end"


# The error by itself -------------------------------------------------------------------------------


async def test_an_action_error_of_any_method_is_one_to_the_caller() -> None:
    class API:
        async def refuse(self, fields: Any) -> None:
            raise kk.ActionError("NO", "no", 403, field_errors=fields)

        async def relay(self) -> None:
            await kk.current_channel().remote().refuse()

    class Client:
        async def refuse(self) -> None:
            raise kk.ActionError("DEEP", status=404)

    async with linked(API(), Client()) as (_, client):
        for fields in ({}, {"a": ["b"]}, {"": [], "_root": ["ü", "\ud800"]}):
            with pytest.raises(kk.ActionError) as caught:
                await client.remote().refuse(fields)
            assert caught.value.to_data() == kk.ActionError("NO", "no", 403, field_errors=fields).to_data()
        with pytest.raises(kk.ActionError) as caught:
            await client.remote().relay()
        assert caught.value.to_data() == {"code": "DEEP", "message": "", "statusCode": 404}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("STREAM_ERROR", 500, {})),
        ({"code": 5, "statusCode": "404", "fieldErrors": []}, ("STREAM_ERROR", 500, {})),
        ({"code": "", "statusCode": 200}, ("STREAM_ERROR", 500, {})),
        ({"code": "A", "statusCode": 404.0}, ("A", 404, {})),
        ({"code": "A", "statusCode": 1e300}, ("A", 500, {})),
        (
            {"code": "A", "statusCode": 404, "fieldErrors": {"a": "b", "c": ["d", 5]}},
            ("A", 404, {"c": ["d"]}),
        ),
        ({"code": "A", "statusCode": True, "fieldErrors": {"a": [[]]}, "more": 1}, ("A", 500, {"a": []})),
    ],
    ids=["nothing", "types", "empty", "float", "huge", "some", "more"],
)
async def test_what_any_peer_calls_an_action_error(fields: Any, expected: Any) -> None:
    async with scripted() as (channel, peer), anyio.create_task_group() as tasks:

        async def answer() -> None:
            call = await peer.next()
            error = {"name": "ActionError", "message": "m", **fields}
            await peer.send({"id": call["id"], "method": "", "type": "response", "args": {"error": error}})

        tasks.start_soon(answer)
        with pytest.raises(kk.KkrpcError) as caught:
            await channel.remote().do()
        error = caught.value
        if isinstance(error, kk.ActionError):
            assert (error.code, error.message) == (expected[0], "m")
            assert (error.status, error.field_errors) == expected[1:]


async def test_every_handlers_end_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with linked({"fails": action(_raises(Custom, suspend=True))}) as (_, client):
            await failing(client.remote().fails())
    assert [record.name for record in caplog.records if record.levelno >= logging.WARNING] == [
        "kkrpc_py.actions"
    ]


async def test_the_consumer_counts_nothing_twice_when_it_is_slow() -> None:
    async def bursts(input: Any, ctx: Any, stream: Any) -> None:
        for burst in range(10):
            for number in range(30):
                await stream.send([burst, number])
            await anyio.lowlevel.checkpoint()

    async with linked({"bursts": action(bursts)}) as (_, client):
        found = []
        async for chunk in client.remote().bursts():
            found.append(chunk)
            if len(found) % 50 == 0:
                await anyio.wait_all_tasks_blocked()
        assert found == [[burst, number] for burst in range(10) for number in range(30)]


async def test_nothing_is_kept_of_calls_that_are_over() -> None:
    kept: list[weakref.ref[Any]] = []

    class Heavy:
        pass

    async def holds(input: Any, ctx: kk.ActionContext, stream: Any) -> None:
        heavy = ctx.heavy = Heavy()
        kept.append(weakref.ref(heavy))
        await stream.send(1)
        if input == "fails":
            raise kk.ActionError("NO")
        if input == "parked":
            await anyio.sleep_forever()

    async with linked({"holds": action(holds)}) as (_, client):
        await chunks(client.remote().holds())
        await failing(client.remote().holds("fails"))
        async for _ in client.remote().holds("parked"):
            break
        await until(lambda: len(kept) == 3)
    gc.collect()
    assert [ref() for ref in kept] == [None, None, None]


async def test_the_signal_is_set_before_a_handler_is_cancelled_for_what_it_sent() -> None:
    signalled: list[bool] = []

    @kk.stream_action()
    async def act(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        await stream.send(1)
        await stream.send(object())  # found out when the handler waits
        try:
            await anyio.sleep_forever()
        finally:
            signalled.append(stream.signal.cancelled)

    async with linked({"act": act}) as (_, client):
        with pytest.raises(kk.ActionError, match="STREAM_ERROR"):
            async for _ in client.remote().act():
                pass
    assert signalled == [True]
