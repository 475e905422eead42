"""Middleware: in order, after the check and before the stream; it sets, refuses, fails and is cancelled."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from tests.channel.harness import Log, linked
from tests.channel.peer import cancel, hello, request, scripted

pytestmark = pytest.mark.anyio
SECRET = "hunter2"


@dataclasses.dataclass
class Question:
    text: str


def action_with(*middleware: Any, log: Log | None = None, **options: Any) -> Any:
    @kk.stream_action(input=Question, middleware=middleware, **options)
    async def ask(input: Question, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        if log is not None:
            log("handler")
        await stream.send([input.text, {key: value for key, value in vars(ctx).items() if key[:2] == "my"}])

    return ask


async def refusal_of(call: Any) -> kk.ActionError:
    with pytest.raises(kk.ActionError) as caught:
        await call
    return caught.value


async def test_it_runs_in_order_after_the_check_and_before_the_stream() -> None:
    log = Log()

    async def first(ctx: kk.ActionContext) -> None:
        log(("first", ctx.input, ctx.action, dict(ctx.metadata)))
        await anyio.lowlevel.checkpoint()
        ctx.my_user = "ada"

    async def second(ctx: kk.ActionContext) -> None:
        log(("second", ctx.my_user))
        ctx.my_limit = 5

    ask = action_with(first, second, log=log, metadata={"a": 1})
    async with linked({"ask": ask}) as (_, client):
        stream = await client.remote().ask({"text": "hi"})
        assert [chunk async for chunk in stream] == [["hi", {"my_user": "ada", "my_limit": 5}]]
        assert log.entries == [
            ("first", Question("hi"), "ask", {"a": 1}),
            ("second", "ada"),
            "handler",
        ]
        log.entries.clear()
        await refusal_of(client.remote().ask({}))
        assert log.entries == []


async def test_each_call_has_a_context_of_its_own() -> None:
    seen: list[Any] = []

    async def note(ctx: kk.ActionContext) -> None:
        assert not hasattr(ctx, "my_mark")
        ctx.my_mark = len(seen)
        seen.append(ctx)

    async with linked({"ask": action_with(note)}) as (_, client), anyio.create_task_group() as tasks:

        async def call(text: str) -> None:
            async for chunk in client.remote().ask({"text": text}):
                assert chunk[0] == text

        for number in range(20):
            tasks.start_soon(call, str(number))
    assert len({id(ctx) for ctx in seen}) == 20


async def test_it_may_change_the_input() -> None:
    async def loud(ctx: kk.ActionContext) -> None:
        ctx.input.text = ctx.input.text.upper()

    async def other(ctx: kk.ActionContext) -> None:
        ctx.input = Question(ctx.input.text + "!")

    async with linked({"ask": action_with(loud, other)}) as (_, client):
        assert [chunk async for chunk in client.remote().ask({"text": "hi"})] == [["HI!", {}]]


async def test_a_refusal_is_the_answer_and_nothing_after_it_runs() -> None:
    log = Log()

    async def refuse(ctx: kk.ActionContext) -> None:
        log("refuse")
        error = kk.ActionError("RATE_LIMITED", "later", 429, field_errors={"text": ["again"]})
        error.add_note(SECRET)
        raise error from ValueError(SECRET)

    async def after(ctx: kk.ActionContext) -> None:
        log("after")

    async with linked({"ask": action_with(refuse, after, log=log)}) as (_, client):
        error = await refusal_of(client.remote().ask({"text": "hi"}))
        assert (error.code, error.message, error.status) == ("RATE_LIMITED", "later", 429)
        assert error.field_errors == {"text": ["again"]}
        assert error.__cause__ is None
        assert SECRET not in repr(vars(error)) + "".join(getattr(error, "__notes__", []))
        # Iterated as well as awaited.
        with pytest.raises(kk.ActionError):
            async for _ in client.remote().ask({"text": "hi"}):
                raise AssertionError("nothing was sent")
        assert log.entries == ["refuse", "refuse"]


async def test_a_refusal_on_the_wire_is_no_stream() -> None:
    async def refuse(ctx: kk.ActionContext) -> None:
        raise kk.ActionError("NO", status=403)

    async with scripted({"ask": action_with(refuse)}) as (_, peer):
        for agreed in (False, True):
            if agreed:
                await peer.exchange(hello())
            [said] = await peer.exchange(request(f"{agreed}", "ask", {"text": "hi"}))
            assert said["type"] == "response"
            assert said["args"]["error"] == {
                "name": "ActionError",
                "message": "",
                "code": "NO",
                "statusCode": 403,
            }


class Refusal(kk.ActionError):
    """Of the user's own: the peer knows the base."""

    def __init__(self) -> None:
        super().__init__("OWN", "mine", 402)
        self.secret = SECRET


async def _own(ctx: kk.ActionContext) -> None:
    raise Refusal


async def _in_a_group(ctx: kk.ActionContext) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_own, ctx)


@pytest.mark.parametrize("middleware", [_own, _in_a_group], ids=["alone", "in a task group"])
async def test_a_refusal_of_a_class_of_the_users(middleware: Any) -> None:
    async with linked({"ask": action_with(middleware)}) as (_, client):
        error = await refusal_of(client.remote().ask({"text": "hi"}))
        assert error.to_data() == {"code": "OWN", "message": "mine", "statusCode": 402}
        assert not hasattr(error, "secret")


class Custom(Exception):
    def __init__(self) -> None:
        super().__init__(SECRET)
        self.field = SECRET
        self.add_note(SECRET)


async def _raises(ctx: kk.ActionContext) -> None:
    raise Custom from ValueError(SECRET)


async def _exits(ctx: kk.ActionContext) -> None:
    raise SystemExit(SECRET)


async def _group(ctx: kk.ActionContext) -> None:
    raise ExceptionGroup(SECRET, [Custom(), kk.ActionError("A"), kk.ActionError("B")])


async def _validation(ctx: kk.ActionContext) -> None:
    raise kk.ValidationFailed(SECRET, "input", [])


async def _remote(ctx: kk.ActionContext) -> None:
    raise kk.RemoteError(SECRET, SECRET)


async def _missing(ctx: kk.ActionContext) -> None:
    raise kk.MethodNotFound(SECRET)


async def _closed(ctx: kk.ActionContext) -> None:
    raise kk.ChannelClosed(SECRET)


async def _cancelled(ctx: kk.ActionContext) -> None:
    raise kk.CallCancelled(SECRET)


async def _unset(ctx: kk.ActionContext) -> None:
    ctx.hunter2  # noqa: B018  (asked for, to see what is raised)


async def _others_cancellation(ctx: kk.ActionContext) -> None:
    future = asyncio.Future[None](loop=asyncio.new_event_loop())
    future.get_loop().close()
    future.cancel(SECRET)
    future.result()


class _Object:
    async def __call__(self, ctx: kk.ActionContext) -> None:
        raise Custom


@pytest.mark.parametrize(
    "middleware",
    [
        *(_raises, _exits, _group, _validation, _remote, _missing, _closed, _cancelled, _unset),
        *(_Object(), _others_cancellation),
    ],
    ids=lambda value: getattr(value, "__name__", "object"),
)
async def test_what_it_raises_by_mistake_is_logged_and_not_told(
    middleware: Any, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log()
    async with scripted({"ask": action_with(middleware, log=log)}) as (_, peer):
        with caplog.at_level(logging.ERROR, "kkrpc_py.actions"):
            [said] = await peer.exchange(request("1", "ask", {"text": "hi"}))
        assert said["args"]["error"] == {
            "name": "ActionError",
            "message": "Stream handler error",
            "code": "STREAM_ERROR",
            "statusCode": 500,
        }
        assert SECRET.encode() not in peer.heard
    assert SECRET in caplog.text
    assert log.entries == []


@pytest.mark.parametrize("agreed", [True, False], ids=["agreed", "stock"])
async def test_cancelled_while_in_middleware(agreed: bool) -> None:
    log = Log()

    async def slow(ctx: kk.ActionContext) -> None:
        log("begun")
        try:
            await anyio.sleep_forever()
        finally:
            log("finally")

    async with linked({"ask": action_with(slow, log=log)}, hello=agreed) as (server, client):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(log.wait_for, "begun")
                tasks.start_soon(_cancel_after, log, "begun", scope)
                await client.remote().ask({"text": "hi"})
        assert scope.cancelled_caught
        if agreed:  # a stock server cannot be told of a call
            await log.wait_for("finally")
            assert log.entries == ["begun", "finally"]
        else:
            server_scope = next(iter(server.connection.incoming.values())).owner.scope
            server_scope.cancel()
            await log.wait_for("finally")


async def _cancel_after(log: Log, entry: str, scope: anyio.CancelScope) -> None:
    await log.wait_for(entry)
    scope.cancel()


async def test_a_cancel_is_answered_once_the_middleware_has_cleaned_up() -> None:
    log = Log()
    gate = anyio.Event()

    async def slow(ctx: kk.ActionContext) -> None:
        log("begun")
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                log("cleaning")
                await gate.wait()
                log("clean")

    async with scripted({"ask": action_with(slow, log=log)}) as (_, peer):
        await peer.exchange(hello())
        await peer.send(request("1", "ask", {"text": "hi"}))
        await log.wait_for("begun")
        await peer.send(cancel("1"))
        await log.wait_for("cleaning")
        gate.set()
        answer = await peer.next()
        assert (answer["id"], answer["type"]) == ("1", "response")
        assert "error" in answer["args"]
        assert log.entries == ["begun", "cleaning", "clean"]


async def test_middleware_that_answers_a_cancel_with_an_error_of_its_own() -> None:
    async def stubborn(ctx: kk.ActionContext) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError(SECRET)

    async with scripted({"ask": action_with(stubborn)}) as (_, peer):
        await peer.exchange(hello())
        said = await peer.exchange(request("1", "ask", {"text": "hi"}), cancel("1"))
        assert [message["id"] for message in said] == ["1"]
        assert SECRET.encode() not in peer.heard


async def test_the_channel_lost_while_in_middleware() -> None:
    log = Log()

    async def slow(ctx: kk.ActionContext) -> None:
        log("begun")
        try:
            await anyio.sleep_forever()
        finally:
            log("finally")

    async with linked(
        {"ask": action_with(slow, log=log)}, quiet=False, limits=kk.Limits(finish_seconds=0.05)
    ) as (server, client):
        call = client.remote().ask({"text": "hi"})
        async with anyio.create_task_group() as tasks:

            async def close() -> None:
                await log.wait_for("begun")
                await client.aclose()

            tasks.start_soon(close)
            with pytest.raises(kk.ChannelClosed):
                await call
        await server.wait_closed()
    assert log.entries == ["begun", "finally"]
