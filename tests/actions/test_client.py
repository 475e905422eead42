"""The action client: executions, callbacks, stopping, iterating; the server's bytes are scripted."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import random
import warnings
from typing import Any

import anyio
import httpx
import msgspec
import pydantic
import pytest
from anyio.lowlevel import checkpoint

from kkrpc_py.actions.client import ActionCall, ActionClient
from kkrpc_py.errors import ActionError, NotSerializable
from kkrpc_py.limits import Limits
from tests.actions.scripted import SECONDS, Visit, event, scripted, served, until

pytestmark = pytest.mark.anyio


async def counting(visit: Visit) -> None:
    """As many chunks as the input says, then the end."""
    await visit.stream_of(*(event({"n": number}) for number in range(visit.input.get("count", 3))))


async def endless(visit: Visit) -> None:
    """One chunk that is the input, and no end before the client is gone."""
    await visit.open()
    await visit.chunk(event(visit.input))
    await visit.gone()


async def silent(visit: Visit) -> None:
    """No answer at all."""
    await visit.gone()


# One execution -----------------------------------------------------------------------------------


async def test_an_execution_from_its_request_to_its_end() -> None:
    seen: list[Any] = []
    async with served(counting) as (client, server):
        call: ActionCall[Any] = client.stream(
            "ai_chat",
            on_chunk=lambda chunk: seen.append((chunk, call.data, list(call.chunks), call.status)),
            on_done=lambda chunks: seen.append((list(chunks), call.status, call.error)),
            on_error=seen.append,
        )
        assert (call.status, call.chunks, call.data, call.error) == ("idle", [], None, None)
        execution = call.execute({"count": 2})
        assert (call.status, call.chunks, call.data, call.error) == ("streaming", [], None, None)
        assert await execution is None
        one, two = {"n": 0}, {"n": 1}
        assert seen == [
            (one, one, [one], "streaming"),
            (two, two, [one, two], "streaming"),
            ([one, two], "done", None),
        ]
        assert (call.status, call.chunks, call.data, call.error) == ("done", [one, two], two, None)
        (visit,) = server.visits
        assert (visit.method, visit.target, visit.input) == ("POST", "/actions/ai_chat", {"count": 2})
        assert visit.headers["content-type"] == "application/json"
        assert visit.headers["accept"] == "text/event-stream"
        assert "last-event-id" not in visit.headers
        assert repr(call) == "<ActionCall 'ai_chat' done chunks=2>"


async def test_a_stream_without_chunks() -> None:
    done: list[Any] = []
    async with served(counting) as (client, _):
        call = client.stream("none", on_done=done.append)
        await call.execute({"count": 0})
        assert (call.status, call.chunks, call.data, done) == ("done", [], None, [[]])


async def test_callbacks_may_be_coroutine_functions_and_are_waited_for() -> None:
    log: list[str] = []

    async def slow(what: Any) -> None:
        log.append(f"begin {what}")
        await checkpoint()
        await checkpoint()
        log.append(f"end {what}")

    async with served(counting) as (client, _):
        await client.stream("a", on_chunk=slow, on_done=slow).execute({"count": 2})
    values = ["{'n': 0}", "{'n': 1}", "[{'n': 0}, {'n': 1}]"]
    assert log == [f"{what} {value}" for value in values for what in ("begin", "end")]


async def test_chunks_of_any_json() -> None:
    values = [None, False, 0, 1.5, "", "a\nb\r€\u2028", [], {}, [None, [{"a": 1}]], 2**53, b"\x00\xff"]
    plain = [value if value != b"\x00\xff" else {"type": "Uint8Array", "data": [0, 255]} for value in values]

    async def play(visit: Visit) -> None:
        await visit.stream_of(*map(event, plain))

    async with served(play) as (client, _):
        call = client.stream("any")
        await call.execute()
        assert call.chunks == values
        assert [chunk async for chunk in call.execute()] == values


@dataclasses.dataclass
class Prompt:
    text: str
    options: list[int] = dataclasses.field(default_factory=list)


class Ask(msgspec.Struct, rename="camel"):
    max_tokens: int


class Model(pydantic.BaseModel):
    name: str = "m"


async def test_inputs() -> None:
    async with served(counting) as (client, server):
        call = client.stream("a")
        for given in (
            None, {"a": [1, "€", None, b"\x01"]}, Prompt("x", [1]), Ask(7), {"nested": [Model()]},
            {"s": "\ud800"},
        ):  # fmt: skip
            await call.execute(given)
            assert call.status == "done"
        sent = [visit.input for visit in server.visits]
        assert sent == [
            {},
            {"a": [1, "€", None, {"type": "Uint8Array", "data": [1]}]},
            {"text": "x", "options": [1]},
            {"maxTokens": 7},
            {"nested": [{"name": "m"}]},
            {"s": "\ud800"},
        ]
        for refused in (object(), {"x": float("nan")}, {1: 2}):
            with pytest.raises(NotSerializable):
                call.execute(refused)
        assert (call.status, len(server.visits)) == ("done", 6)  # nothing of it happened


async def test_get_puts_the_input_into_the_query() -> None:
    async with served(lambda visit: visit.stream_of()) as (client, server):
        call = client.stream("find", method="GET")
        await call.execute({"text": "a b&c", "n": 3, "yes": True, "no": None, "list": [1, "x"], "e": ""})
        await call.execute()
        with pytest.raises(TypeError, match="is a mapping, not list"):
            call.execute([1])
        first, second = server.visits
        query = dict(httpx.URL(f"http://x{first.target}").params)
        assert query == {"text": "a b&c", "n": "3", "yes": "true", "list": '[1,"x"]', "e": ""}
        assert (first.method, first.body, second.target) == ("GET", b"", "/actions/find")
        assert "content-type" not in first.headers


async def test_where_an_action_is() -> None:
    async with served(lambda visit: visit.stream_of()) as (client, server):
        base = server.url.removesuffix("/actions")
        for url, name, target in (
            (base, "a", "/a"),
            (f"{base}/", "a", "/a"),
            (f"{base}/x/?tenant=1#f", "ai-chat", "/x/ai-chat?tenant=1"),
            (base, "a/b ?#%ü", "/a%2Fb%20%3F%23%25%C3%BC"),
        ):
            async with ActionClient(url) as other:
                await other.stream(name).execute()
            assert server.visits[-1].target == target
        assert client.stream("x").name == "x"


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host", "/actions", "http://"])
async def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ValueError, match="begins with http"):
        ActionClient(url)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("", {}), (".", {}), ("..", {}), ("a", {"method": "PUT"}), ("a", {"resume": -1}), ("a", {"keep": -1}),
        ("a", {"timeout": 0}), ("a", {"quiet": -1.0}), ("a", {"timeout": float("nan")}),
    ],
)  # fmt: skip
async def test_what_cannot_be_asked_for(name: str, options: Any) -> None:
    with pytest.raises(ValueError, match=r"cannot be called|called by|from zero|above zero"):
        ActionClient("http://localhost").stream(name, **options)


async def test_headers_of_three_kinds() -> None:
    async def later() -> dict[str, str]:
        await checkpoint()
        return {"Authorization": "Bearer 3", "accept-encoding": "gzip"}

    tokens = iter(["Bearer 1", "Bearer 2"])
    async with served(lambda visit: visit.stream_of()) as (_, server):
        for headers in ({"X-Plain": "0"}, lambda: {"Authorization": next(tokens)}, later):
            async with ActionClient(server.url, headers=headers) as client:
                call = client.stream("a")
                await call.execute()
                if headers is not later:
                    await call.execute()
        seen = [(visit.headers.get("x-plain"), visit.headers.get("authorization")) for visit in server.visits]
        assert seen == [("0", None), ("0", None), (None, "Bearer 1"), (None, "Bearer 2"), (None, "Bearer 3")]
        assert [visit.headers["accept-encoding"] for visit in server.visits] == ["identity"] * 4 + ["gzip"]


async def test_headers_that_raise() -> None:
    def broken() -> dict[str, str]:
        raise LookupError("no token")

    async with served(silent, headers=broken) as (client, server):
        call = client.stream("a")
        with pytest.raises(LookupError, match="no token"):
            await call.execute()
        assert call.status == "error"
        assert str(call.error) == "STREAM_ERROR: the program that called the action has failed"
        with pytest.raises(LookupError):
            async for _ in call.execute():
                pass
        assert server.visits == []


# One after another -------------------------------------------------------------------------------


async def test_a_new_execution_begins_anew() -> None:
    async def play(visit: Visit) -> None:
        if "fail" in visit.input:
            await visit.answer("500 Internal Server Error")
        else:
            await counting(visit)

    async with served(play) as (client, _):
        call = client.stream("a")
        await call.execute({"count": 2})
        chunks = call.chunks
        await call.execute({"fail": True})
        assert (call.status, call.chunks, call.data) == ("error", [], None)
        assert call.error is not None
        await call.execute({"count": 1})
        assert (call.status, call.chunks, call.data, call.error) == ("done", [{"n": 0}], {"n": 0}, None)
        assert chunks == [{"n": 0}, {"n": 1}]


async def test_a_new_execution_stops_the_one_before() -> None:
    heard: list[Any] = []
    async with served(endless) as (client, server), anyio.create_task_group() as tasks:
        call = client.stream("a", on_chunk=heard.append, on_done=heard.append, on_error=heard.append)
        returned: list[int] = []

        async def run(number: int) -> None:
            await call.execute(number)
            returned.append(number)

        for number in (1, 2, 3):
            tasks.start_soon(run, number)
            await until(lambda number=number: call.chunks == [number])
            assert call.status == "streaming"
        await until(lambda: returned == [1, 2] and server.open == 1)
        call.stop()
        await until(lambda: returned == [1, 2, 3] and server.open == 0)
        assert heard == [1, 2, 3]
        assert (call.status, call.chunks) == ("done", [3])


async def test_a_new_execution_within_a_callback_of_the_one_before() -> None:
    """Chunks that have arrived already are the old execution's, and are heard of no more."""
    heard: list[Any] = []

    async def play(visit: Visit) -> None:
        if visit.input == {"round": 1}:
            await visit.open()
            await visit.chunk(
                b"".join(event(["old", number]) for number in range(5)) + event({}, kind="done")
            )
            await visit.gone()
            heard.append("old gone")
        else:
            await until(lambda: "old gone" in heard)
            await visit.stream_of(event(["new", 0]), event(["new", 1]))

    async def on_chunk(chunk: list[Any]) -> None:
        heard.append(tuple(chunk))
        if chunk == ["old", 1]:
            await call.execute({"round": 2})
            assert (call.status, call.chunks) == ("done", [["new", 0], ["new", 1]])
            heard.append("back")

    async with served(play) as (client, _):
        call = client.stream("a", on_chunk=on_chunk, on_done=lambda chunks: heard.append(len(chunks)))
        await call.execute({"round": 1})
        assert heard == [("old", 0), ("old", 1), "old gone", ("new", 0), ("new", 1), 2, "back"]
        assert (call.status, call.chunks) == ("done", [["new", 0], ["new", 1]])


async def test_a_new_execution_while_a_callback_of_the_one_before_waits() -> None:
    heard: list[Any] = []
    release = anyio.Event()

    async def on_chunk(chunk: Any) -> None:
        heard.append(chunk)
        if chunk == 1:
            await release.wait()

    async def play(visit: Visit) -> None:
        await visit.open()
        await visit.chunk(event(visit.input) + event(-1) + event({}, kind="done"))
        await visit.gone()

    async with served(play) as (client, server), anyio.create_task_group() as tasks:
        call = client.stream("a", on_chunk=on_chunk, on_done=heard.append)
        tasks.start_soon(call.execute, 1)
        await until(lambda: heard == [1])
        await call.execute(2)
        await until(lambda: server.open == 0)  # the old one's connection too, though its callback still waits
        release.set()
        await until(lambda: client._host.running == set())
        assert heard == [1, 2, -1, [2, -1]]


async def test_again_from_the_callback_of_an_error() -> None:
    async def play(visit: Visit) -> None:
        if visit.input == {"try": 1}:
            await visit.answer("503 Service Unavailable")
        else:
            await counting(visit)

    async def again(error: ActionError) -> None:
        assert (call.status, error.status) == ("error", 503)
        await call.execute({"try": 2})

    async with served(play) as (client, _):
        call = client.stream("a", on_error=again)
        await call.execute({"try": 1})
        assert (call.status, call.error, len(call.chunks)) == ("done", None, 3)


# Stopping ----------------------------------------------------------------------------------------


async def test_stop_where_nothing_runs() -> None:
    async with served(counting) as (client, _):
        call = client.stream("a")
        call.stop()
        assert call.status == "idle"
        await call.execute()
        call.stop()
        assert (call.status, len(call.chunks)) == ("done", 3)


@pytest.mark.parametrize("play", [silent, endless], ids=["before-the-answer", "in-the-stream"])
async def test_stop_from_another_task(play: Any) -> None:
    heard: list[Any] = []
    async with served(play) as (client, server), anyio.create_task_group() as tasks:
        call = client.stream("a", on_done=heard.append, on_error=heard.append)
        tasks.start_soon(call.execute)
        await until(lambda: server.open == 1 and (play is silent or call.chunks != []))
        call.stop()
        assert call.status == "done"
        call.stop()
        await until(lambda: server.open == 0 and client._host.running == set())
        assert (call.status, call.error, heard) == ("done", None, [])


async def test_stop_before_the_request() -> None:
    async with served(silent) as (client, server):
        call = client.stream("a")
        execution = call.execute()
        call.stop()
        await execution
        assert (call.status, server.visits) == ("done", [])
        iterated = call.execute()
        call.stop()
        assert [chunk async for chunk in iterated] == []
        assert server.visits == []


@pytest.mark.parametrize("kind", ["def", "async"])
async def test_stop_within_a_callback(kind: str) -> None:
    heard: list[Any] = []

    def on_chunk(chunk: Any) -> None:
        heard.append(chunk)
        if len(heard) == 2:
            call.stop()
            call.stop()

    async def later(chunk: Any) -> None:
        on_chunk(chunk)
        await checkpoint()

    async def play(visit: Visit) -> None:
        await visit.open()
        await visit.chunk(b"".join(map(event, range(10))) + event({}, kind="done"))
        await visit.gone()

    async with served(play) as (client, _):
        call = client.stream("a", on_chunk=on_chunk if kind == "def" else later, on_done=heard.append)
        await call.execute()
        assert (heard, call.status, call.chunks) == ([0, 1], "done", [0, 1])


async def test_stop_closes_the_connection_while_a_callback_waits() -> None:
    release, waiting = anyio.Event(), anyio.Event()

    async def on_chunk(chunk: Any) -> None:
        waiting.set()
        await release.wait()

    async with served(endless) as (client, server), anyio.create_task_group() as tasks:
        call = client.stream("a", on_chunk=on_chunk)
        tasks.start_soon(call.execute)
        await waiting.wait()
        call.stop()
        await until(lambda: server.open == 0)
        release.set()


@pytest.mark.parametrize("play", [silent, endless], ids=["before-the-answer", "in-the-stream"])
async def test_a_cancelled_task_closes_its_stream(play: Any) -> None:
    heard: list[Any] = []
    async with served(play) as (client, server):
        call = client.stream("a", on_done=heard.append, on_error=heard.append)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def cancel() -> None:
                    await until(lambda: server.open == 1 and (play is silent or call.chunks != []))
                    scope.cancel()

                tasks.start_soon(cancel)
                await call.execute()
                pytest.fail("it was cancelled")
        assert scope.cancelled_caught
        assert (call.status, call.error, heard) == ("done", None, [])
        await until(lambda: server.open == 0)


async def test_a_task_cancelled_within_its_callback() -> None:
    async with served(endless) as (client, server):
        with anyio.CancelScope() as scope:

            async def on_chunk(chunk: Any) -> None:
                scope.cancel()
                await anyio.sleep_forever()

            call = client.stream("a", on_chunk=on_chunk)
            await call.execute()
        assert (scope.cancelled_caught, call.status) == (True, "done")
        await until(lambda: server.open == 0)


@pytest.mark.parametrize("kind", ["def", "async"])
@pytest.mark.parametrize("which", ["on_chunk", "on_done", "on_error"])
async def test_what_a_callback_raises_comes_out_of_execute(which: str, kind: str) -> None:
    gone: list[bool] = []

    def fail(_: Any) -> None:
        raise LookupError("mine")

    async def later(_: Any) -> None:
        await checkpoint()
        fail(_)

    async def play(visit: Visit) -> None:
        ends = {
            "on_chunk": b"",
            "on_done": event({}, kind="done"),
            "on_error": event({"code": "X"}, kind="error"),
        }
        await visit.open()
        await visit.chunk(event(1) + ends[which])
        await visit.gone()
        gone.append(True)

    async with served(play) as (client, _):
        call = client.stream("a", **{which: fail if kind == "def" else later})
        with pytest.raises(LookupError, match="mine"):
            await call.execute()
        await until(lambda: gone == [True])
        assert call.status == ("done" if which == "on_done" else "error")
        assert (call.error is None) == (which == "on_done")
        with pytest.raises(LookupError, match="mine"):
            async for _ in call.execute():
                pass
        await until(lambda: gone == [True, True])


async def test_in_a_task_of_the_event_loop_itself(anyio_backend_name: str) -> None:
    """Tasks, time limits and gathering of asyncio and trio take what `execute` gives as any coroutine."""
    async with served(endless) as (client, server):
        call, other = client.stream("a"), client.stream("b")
        if anyio_backend_name == "asyncio":
            import asyncio

            task = asyncio.create_task(call.execute(1))
            task.cancel()  # before its first step
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert (call.status, server.visits) == ("done", [])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(call.execute(1), 0.05)
            assert call.status == "done"
            both = asyncio.gather(call.execute(2), other.execute(3))
            await until(lambda: (call.chunks, other.chunks) == ([2], [3]))
            both.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await both
        else:
            import trio

            with trio.move_on_after(0.05):
                await call.execute(1)
            assert call.status == "done"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call.execute, 2)
                nursery.start_soon(other.execute, 3)
                await until(lambda: (call.chunks, other.chunks) == ([2], [3]))
                nursery.cancel_scope.cancel()
        assert (call.status, other.status) == ("done", "done")
        await until(lambda: server.open == 0)


# Iterating ---------------------------------------------------------------------------------------


async def test_the_chunks_of_an_execution() -> None:
    heard: list[Any] = []
    async with served(counting) as (client, _):
        call = client.stream("a", on_chunk=heard.append, on_done=heard.append)
        found = [chunk["n"] async for chunk in call.execute({"count": 4})]
        assert found == [0, 1, 2, 3]
        assert (call.status, len(heard)) == ("done", 5)


async def test_leaving_the_loop_stops_the_execution() -> None:
    async with served(endless) as (client, server):
        call = client.stream("a")
        async for chunk in call.execute(7):
            assert chunk == 7
            break
        assert call.status == "done"
        await until(lambda: server.open == 0)
        with contextlib.suppress(LookupError):
            async for _ in call.execute(8):
                raise LookupError
        assert (call.status, call.chunks) == ("done", [8])
        await until(lambda: server.open == 0)
        iterated = aiter(call.execute(9))
        assert await anext(iterated) == 9
        await iterated.aclose()
        assert call.status == "done"
        with pytest.raises(StopAsyncIteration):
            await anext(iterated)


async def test_a_loop_that_is_cancelled_stops_the_execution() -> None:
    async with served(endless) as (client, server):
        call = client.stream("a")
        with anyio.CancelScope() as scope:
            async for _ in call.execute(7):
                scope.cancel()
        assert (scope.cancelled_caught, call.status) == (True, "done")
        await until(lambda: server.open == 0)


async def test_a_loop_raises_what_the_stream_ends_in() -> None:
    async def play(visit: Visit) -> None:
        await visit.open()
        await visit.chunk(event(1) + event({"code": "X", "message": "no", "statusCode": 418}, kind="error"))
        await visit.end()

    heard: list[Any] = []
    async with served(play) as (client, _):
        call = client.stream("a", on_error=heard.append)
        found: list[Any] = []
        with pytest.raises(ActionError) as caught:
            async for chunk in call.execute():
                found.append(chunk)
        assert (found, caught.value.code, caught.value.status) == ([1], "X", 418)
        assert heard == [call.error]


async def test_a_loop_that_is_stopped_ends() -> None:
    async with served(endless) as (client, _):
        call = client.stream("a")
        found = []
        async for chunk in call.execute(1):
            found.append(chunk)
            call.stop()
        assert found == [1]
        async for chunk in call.execute(2):
            found.append(chunk)
            async for other in call.execute(3):
                found.append(other)
                break
        assert found == [1, 2, 3]


async def test_once_each() -> None:
    async with served(counting) as (client, _):
        call = client.stream("a")
        execution = call.execute()
        await execution
        with pytest.raises(RuntimeError, match="once"):
            await execution
        with pytest.raises(RuntimeError, match="once"):
            aiter(execution)
        execution = call.execute()
        assert len([chunk async for chunk in execution]) == 3
        with pytest.raises(RuntimeError, match="once"):
            aiter(execution)


async def test_a_slow_loop_holds_the_server_up() -> None:
    """No more is read ahead than `Limits.stream_buffer`, and what the sockets hold."""
    sent = 0
    line = event("x" * 65_000)

    async def play(visit: Visit) -> None:
        nonlocal sent
        await visit.open()
        for _ in range(300):
            await visit.chunk(line)
            sent += 1
        await visit.chunk(event({}, kind="done"))
        await visit.end()

    async with served(play, limits=Limits(stream_buffer=100_000)) as (client, _):
        call = client.stream("a", keep=0)
        iterated = aiter(call.execute())
        await anext(iterated)
        last = -1
        while sent != last:
            last = sent
            await anyio.sleep(0.05)
        assert sent < 280
        count = 1
        async for _ in iterated:
            count += 1
        assert (count, sent, call.status) == (300, 300, "done")


async def test_a_loop_gives_way() -> None:
    turns = 0
    over = False

    async def other() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await checkpoint()

    async with served(counting) as (client, _), anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        most = 0
        async for _ in client.stream("a").execute({"count": 4000}):
            before, turns = turns, 0
            most = max(most, before)
        over = True
        assert most > 0


# Following ---------------------------------------------------------------------------------------


async def test_others_follow_an_execution() -> None:
    found: dict[str, list[Any]] = {"first": [], "second": []}
    step = anyio.Event()

    async def play(visit: Visit) -> None:
        await visit.open()
        await visit.chunk(event(0) + event(1))
        await step.wait()
        await visit.chunk(event(2) + event({}, kind="done"))
        await visit.end()

    async with served(play) as (client, _):
        call = client.stream("a")

        async def follow(who: str) -> None:
            async for chunk in call:
                found[who].append(chunk)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, "first")  # before there is anything
            await checkpoint()
            tasks.start_soon(call.execute)
            await until(lambda: found["first"] == [0, 1])
            async for chunk in call:  # a loop that is left stops nothing
                assert chunk == 0
                break
            tasks.start_soon(follow, "second")
            await until(lambda: found["second"] == [0, 1])
            step.set()
        assert found == {"first": [0, 1, 2], "second": [0, 1, 2]}
        assert [chunk async for chunk in call] == [0, 1, 2]  # and after the end


async def test_execute_takes_effect_when_it_is_called() -> None:
    async with served(counting) as (client, _), anyio.create_task_group() as tasks:
        call = client.stream("a")
        await call.execute({"count": 1})
        tasks.start_soon(call.execute, {"count": 2})
        assert [chunk["n"] async for chunk in call] == [0, 1]


async def test_followers_and_the_end_of_what_they_follow() -> None:
    async def play(visit: Visit) -> None:
        await visit.open()
        await visit.chunk(event(visit.input))
        if visit.input == "bad":
            await visit.chunk(event({"code": "X"}, kind="error"))
            await visit.end()
        await visit.gone()

    ends: list[Any] = []
    async with served(play) as (client, _):
        call = client.stream("a")

        async def follow() -> None:
            try:
                async for chunk in call:
                    ends.append(chunk)
                ends.append("end")
            except ActionError as error:
                ends.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call.execute, 1)
            tasks.start_soon(follow)
            await until(lambda: ends == [1])
            tasks.start_soon(call.execute, "bad")  # stops the first
            await until(lambda: ends == [1, "end"])
            ends.clear()
            tasks.start_soon(follow)
            tasks.start_soon(follow)
        assert ends[:2] == ["bad", "bad"]
        first, second = ends[2:]
        assert first is not second
        assert (str(first), str(second)) == ("X", "X")


async def test_keep_bounds_the_chunks() -> None:
    got: list[int] = []
    async with served(counting) as (client, _):
        call = client.stream("a", keep=3, on_chunk=lambda chunk: got.append(chunk["n"]))
        await call.execute({"count": 600})
        assert (got, [chunk["n"] for chunk in call.chunks]) == (list(range(600)), [597, 598, 599])
        assert [chunk["n"] async for chunk in call] == [597, 598, 599]
        assert len([chunk async for chunk in call.execute({"count": 600})]) == 600
        none = client.stream("a", keep=0)
        await none.execute()
        assert (none.chunks, none.data) == ([], {"n": 2})


async def test_a_follower_gives_way_on_chunks_that_are_there() -> None:
    async with served(counting) as (client, _):
        call = client.stream("a")
        await call.execute({"count": 3000})
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            assert len([chunk async for chunk in call]) == 3000
            tasks.cancel_scope.cancel()
        assert turns > 5


# The client --------------------------------------------------------------------------------------


async def test_without_entering_the_client() -> None:
    with anyio.fail_after(SECONDS):
        async with scripted(counting) as server:
            client = ActionClient(server.url)
            call = client.stream("a")
            await call.execute()
            assert len(call.chunks) == 3
            with pytest.raises(RuntimeError, match="async with"):
                aiter(call.execute())
            await client.aclose()
            await client.aclose()
            with pytest.raises(RuntimeError, match="is closed"):
                call.execute()
            assert (call.status, len(call.chunks)) == ("done", 0)


async def test_a_closed_client_stops_what_runs() -> None:
    returned: list[str] = []
    with anyio.fail_after(SECONDS):
        async with scripted(endless) as server, anyio.create_task_group() as tasks:
            async with ActionClient(server.url) as client:
                call, other = client.stream("a"), client.stream("b")

                async def run() -> None:
                    await call.execute(1)
                    returned.append("awaited")

                async def loop() -> None:
                    async for _ in other.execute(2):
                        pass
                    returned.append("iterated")

                tasks.start_soon(run)
                tasks.start_soon(loop)
                await until(lambda: call.chunks == [1] and other.chunks == [2])
            await until(lambda: sorted(returned) == ["awaited", "iterated"] and server.open == 0)
            assert (call.status, other.status) == ("done", "done")
            with pytest.raises(RuntimeError, match="is closed"):
                other.execute()
            with pytest.raises(RuntimeError, match="entered once"):
                await client.__aenter__()


async def test_a_client_that_is_closed_before_the_execution_has_begun() -> None:
    async with served(counting) as (client, server):
        call, other = client.stream("a"), client.stream("b")
        execution, iterated = call.execute(), aiter(other.execute())
        await client.aclose()
        await execution
        with pytest.raises(StopAsyncIteration):
            await anext(iterated)
        assert (call.status, other.status, server.visits) == ("done", "done", [])


async def test_a_cancelled_client_stops_what_runs_elsewhere() -> None:
    """A loop in another task is not told that the stream was done."""
    heard: list[Any] = []
    with anyio.fail_after(SECONDS):
        async with scripted(endless) as server, anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                async with ActionClient(server.url) as client:
                    call = client.stream("a", on_done=heard.append, on_error=heard.append)

                    async def loop() -> None:
                        async for _ in call.execute(1):
                            pass
                        heard.append("end")

                    tasks.start_soon(loop)
                    await until(lambda: call.chunks == [1])
                    scope.cancel()
                    await anyio.sleep_forever()
            await until(lambda: heard == ["end"] and server.open == 0)
            assert call.status == "done"


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    with anyio.fail_after(SECONDS):
        async with scripted(endless) as server:
            with pytest.raises(LookupError):
                async with ActionClient(server.url) as client:
                    async for _ in client.stream("a").execute(1):
                        raise LookupError


async def test_an_http_client_that_is_given_is_not_closed() -> None:
    with anyio.fail_after(SECONDS):
        async with (
            scripted(counting) as server,
            httpx.AsyncClient(headers={"X-Mine": "1"}, timeout=1) as http,
        ):
            for _ in range(2):
                async with ActionClient(server.url, http=http) as client:
                    assert client.http is http
                    await client.stream("a").execute()
            assert not http.is_closed
            assert [visit.headers["x-mine"] for visit in server.visits] == ["1", "1"]


async def test_an_execution_that_nobody_awaits() -> None:
    async with served(counting) as (client, server):
        call = client.stream("a")
        with pytest.warns(RuntimeWarning, match="neither awaited nor iterated"):
            call.execute()
            gc.collect()
        assert call.status == "done"
        execution = call.execute()
        execution.close()  # on purpose
        del execution
        assert (call.status, server.visits) == ("done", [])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            gc.collect()


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_is_done_nothing_is_mixed(seed: int) -> None:
    """Executions are begun, stopped, cancelled, left and followed at random, by tasks and callbacks."""
    chance = random.Random(seed)
    latest = [0]
    faults: list[str] = []

    async def play(visit: Visit) -> None:
        with contextlib.suppress(anyio.BrokenResourceError):
            await visit.open()
            for number in range(chance.randrange(6)):
                await visit.chunk(event([visit.input, number]) + event([visit.input, number]))
                await checkpoint()
            if chance.random() < 0.5:
                await visit.chunk(event({}, kind=chance.choice(["done", "error"])))
                await visit.end()
            await visit.gone()

    async def on_chunk(chunk: list[int]) -> None:
        if chunk[0] != latest[0] or call.chunks[-1] is not chunk:
            faults.append(f"{chunk} in {latest}")
        if chance.random() < 0.2:
            await checkpoint()
        if chance.random() < 0.1:
            call.stop()
        elif chance.random() < 0.1:
            await run()

    def on_end(what: Any) -> None:
        if call.status not in ("done", "error") or any(chunk[0] != latest[0] for chunk in call.chunks):
            faults.append(f"{what} in {latest}")

    async def run() -> None:
        latest[0] += 1
        mine = latest[0]
        with anyio.move_on_after(chance.choice([0.0, 0.002, 0.01, 0.05])):
            if chance.random() < 0.5:
                await call.execute(mine)
            else:
                with contextlib.suppress(ActionError):
                    async for chunk in call.execute(mine):
                        if chunk[0] != mine:
                            faults.append(f"{chunk} for {mine}")
                        if chance.random() < 0.2:
                            break

    async def follow() -> None:
        with contextlib.suppress(ActionError):
            tag = None
            async for chunk in call:
                tag = tag or chunk[0]
                if chunk[0] != tag:
                    faults.append(f"{chunk} for who follows {tag}")

    async with served(play) as (client, _):
        call = client.stream("a", on_chunk=on_chunk, on_done=on_end, on_error=on_end)
        async with anyio.create_task_group() as tasks:
            for _ in range(60):
                tasks.start_soon(chance.choice([run, run, follow]))
                await anyio.sleep(chance.choice([0, 0, 0.001, 0.003]))
                if chance.random() < 0.1:
                    call.stop()
            await until(lambda: client._host.running == set())
            tasks.cancel_scope.cancel()  # who waits for an execution that never comes
        assert faults == []
        assert call.status in ("done", "error")


async def test_many_at_once() -> None:
    async with served(counting) as (client, server), anyio.create_task_group() as tasks:
        calls = [client.stream(f"a{number}") for number in range(150)]
        for number, call in enumerate(calls):
            tasks.start_soon(call.execute, {"count": number})
        await until(lambda: all(call.status == "done" for call in calls))
        assert [len(call.chunks) for call in calls] == list(range(150))
        assert sorted(json.loads(visit.body)["count"] for visit in server.visits) == list(range(150))
