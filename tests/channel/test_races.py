"""Two things at once: a cancel and an answer, room and a loss, an interruption and the channel's end.

Where two tasks of a channel must act in one turn of the loop, the test does by hand what they would do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from kkrpc_py.transports.memory import memory_byte_streams
from tests.channel.harness import BOUND, linked
from tests.channel.peer import cancel, hello, request, result, scripted, until

pytestmark = pytest.mark.anyio


class API:
    def __init__(self) -> None:
        self.gate = anyio.Event()
        self.waiting = 0

    async def add(self, a: int, b: int) -> int:
        return a + b

    async def text(self, size: int) -> str:
        return "x" * size

    async def park(self) -> None:
        await anyio.sleep_forever()

    async def large(self, size: int) -> Any:
        while True:
            yield "x" * size

    async def send(self, sink: kk.StreamSink[int]) -> None:
        await sink.send(1)


# A cancel ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["missing", "park", "large"])
@pytest.mark.parametrize("agreed", [False, True], ids=["stock", "agreed"])
async def test_a_request_and_its_cancel_in_one_read(method: str, agreed: bool) -> None:
    """The call is answered once, and the channel lives on."""
    async with scripted(API()) as (channel, peer):
        if agreed:
            await peer.exchange(hello())
        args = [1] if method == "large" else []
        said = await peer.exchange(request("1", method, *args), cancel("1"))
        assert [message["type"] for message in said] == ["response"]
        assert "error" in said[0]["args"]
        assert await peer.exchange(request("2", "add", 1, 2)) == [result("2", 3)]
        assert not channel.closed
        assert channel.connection.violations == 0


async def test_a_cancel_in_the_turn_in_which_room_came() -> None:
    """The handler waited for room with its result: the cancel answers the call, not a fault of ours."""
    async with scripted(API(), limits=kk.Limits(send_high_water=1000)) as (channel, peer):
        await peer.exchange(hello())
        await peer.send(
            *(request(id, "text", 200_000) for id in ("first", "full")), request("late", "text", 1)
        )
        await until(lambda: channel.congested)
        await anyio.wait_all_tasks_blocked()  # "late" waits for room
        channel._writer._high_water = 1_000_000
        channel._writer.relieve()
        channel._apply(channel.connection.receive_data(_line(cancel("late"))))
        said = [await peer.next() for _ in range(3)]
        names = {message["id"]: message["args"].get("error", {}).get("name") for message in said}
        assert names == {"first": None, "full": None, "late": "CallCancelled"}


async def test_a_cancel_in_the_turn_in_which_an_interceptor_went_on() -> None:
    """A sink's handler would open its stream next."""
    gate = anyio.Event()

    async def wait(context: kk.CallContext, proceed: Any) -> Any:
        if context.method == "send":
            await gate.wait()
        return await proceed()

    async with scripted(API(), interceptors=[wait]) as (channel, peer):
        await peer.exchange(hello())
        await peer.send(request("1", "send"))
        await anyio.wait_all_tasks_blocked()
        gate.set()
        channel._apply(channel.connection.receive_data(_line(cancel("1"))))
        (answer,) = await peer.exchange()
        assert answer["args"]["error"]["name"] == "CallCancelled"


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


# Room ----------------------------------------------------------------------------------------------


async def test_a_call_that_waits_for_room_goes_on_when_a_cancelled_stream_leaves_it() -> None:
    """The peer cancels the stream that fills the queue while the writer waits for the peer."""
    async with scripted(API()) as (channel, peer), anyio.create_task_group() as tg:
        await peer.send(request("1", "large", 300_000))
        await until(lambda: channel.congested)
        answers = []

        async def call() -> None:
            answers.append(await channel.remote().ping())

        tg.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        await peer.send(cancel("1"))
        await anyio.wait_all_tasks_blocked()
        while (message := await peer.next())["method"] != "ping":
            pass
        await peer.send(result(message["id"], "pong"))
        await until(lambda: answers)
        assert answers == ["pong"]


@pytest.mark.parametrize("how", ["eof", "violation", "aclose"])
async def test_calls_that_wait_for_room_fail_when_the_channel_is_lost(how: str) -> None:
    """They fail at once, although the peer reads nothing."""
    errors = []
    async with scripted(limits=kk.Limits(drain_seconds=15)) as (channel, peer):

        async def call() -> None:
            with pytest.raises(kk.ChannelClosed) as caught:
                await channel.remote().take("x" * 500_000)
            errors.append(caught.value)

        async with anyio.create_task_group() as tg:
            for _ in range(8):
                tg.start_soon(call)
            await anyio.wait_all_tasks_blocked()
            assert len(channel.connection.outgoing) < 8  # the others wait for room
            match how:
                case "eof":
                    await peer.eof()
                case "violation":
                    await peer.send(b"\xd8\x18\x5b" + b"\x7f" * 8)
                case _:
                    tg.start_soon(channel.aclose)
            await until(lambda: len(errors) == 8)
            await peer.close()


async def test_a_stream_stops_when_the_peer_stops_reading_for_good() -> None:
    """The writing side is broken, the reading side is not yet: nothing more is produced or queued."""
    produced = 0

    class Endless:
        async def endless(self) -> Any:
            nonlocal produced
            while True:
                produced += 1
                yield "x" * 300_000

    async with scripted(Endless()) as (channel, peer):
        await peer.send(request("1", "endless"))
        await until(lambda: channel.congested)
        await anyio.wait_all_tasks_blocked()
        before = produced
        peer._stream._incoming.receiver_closed = True
        peer._stream._incoming.wake()
        await channel.wait_closed()
        assert produced <= before + 1
        assert channel.connection.outbox.size == 0


async def test_the_credit_of_what_was_taken_comes_back_at_once() -> None:
    """CRD-8: a consumer that has taken everything waits for something that the producer does next."""

    class Large:
        def __init__(self) -> None:
            self.went_on = anyio.Event()

        async def values(self) -> Any:
            yield "x" * 300_000  # more than the first window
            yield "next"
            self.went_on.set()

        async def wait(self) -> None:
            await self.went_on.wait()

    async with linked(Large()) as (_, client):
        sizes = []
        async for value in client.remote().values():
            sizes.append(len(value))
            if len(sizes) == 1:
                await client.remote().wait()
        assert sizes == [300_000, 4]


async def test_errors_of_many_handlers_at_once_wait_for_room() -> None:
    """ERR-6: they are not what the reader owes, and close no channel whose peer reads."""
    gate = anyio.Event()
    waiting = 0

    class Failing(API):
        async def bad(self) -> None:
            nonlocal waiting
            waiting += 1
            await gate.wait()
            raise ValueError("x" * 100_000)

    limits = kk.Limits(send_high_water=100_000, send_max=500_000)
    async with scripted(Failing(), limits=limits) as (channel, peer):
        await peer.send(*(request(i, "bad") for i in range(40)))
        await until(lambda: waiting == 40)
        gate.set()
        await anyio.wait_all_tasks_blocked()
        await peer.send(request("last", "add", 1, 2))
        said = [await peer.next() for _ in range(41)]
        assert {message["id"] for message in said} == {*range(40), "last"}
        assert channel.connection.violations == 0


# Values that cannot be sent ------------------------------------------------------------------------


class Incomplete:
    """The library interrupts the generator at the lost value; these do not notice."""

    async def shielded(self) -> Any:
        yield 0
        yield object()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.001)
        yield 1

    async def swallowing(self) -> Any:
        yield 0
        yield object()
        with contextlib.suppress(BaseException):
            await anyio.sleep_forever()

    async def sink(self, sink: kk.StreamSink[Any]) -> str:
        await sink.send(0)
        await sink.send(object())
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.001)
        with contextlib.suppress(kk.NotSerializable):
            await sink.send(1)
        return "complete"


@pytest.mark.parametrize("method", ["shielded", "swallowing", "sink"])
async def test_a_value_that_could_not_be_sent_ends_the_stream_whatever_the_author_does(method: str) -> None:
    """STR-11: the stream never goes on without it, and never looks complete."""
    async with linked(Incomplete()) as (_, client):
        stream = await client.remote()[method]()
        got = []
        with pytest.raises(kk.RemoteError) as caught:
            async for value in stream:
                got.append(value)
        assert caught.value.name == "NotSerializable"
        assert got == [0]
        with pytest.raises(kk.RemoteError):
            await stream.result()


# Interruptions -------------------------------------------------------------------------------------


async def test_a_system_exit_after_the_answer_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """ERR-6: an interceptor has answered with a value of a stream, whose cleanup then exits."""

    class Exiting(API):
        async def values(self) -> Any:
            try:
                yield 1
                yield 2
            finally:
                raise SystemExit(3)

    async def first(context: kk.CallContext, proceed: Any) -> Any:
        answer = await proceed()
        return await answer.__anext__() if context.method == "values" else answer

    async with scripted(Exiting(), interceptors=[first]) as (_, peer):
        assert await peer.exchange(request("1", "values")) == [result("1", 1)]
        assert await peer.exchange(request("2", "add", 1, 2)) == [result("2", 3)]
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "cleaning up" in record.getMessage()


async def test_every_task_is_cancelled(anyio_backend_name: str) -> None:
    """The usual way to stop an asyncio program: `for task in all_tasks(): task.cancel()`."""
    if anyio_backend_name != "asyncio":
        pytest.skip("asyncio's own")
    with anyio.fail_after(BOUND):
        before = asyncio.all_tasks()

        async def use() -> None:
            async with kk.memory_pair(None, API()) as (client, _):
                await client.remote().park()

        task = asyncio.create_task(use())
        await anyio.wait_all_tasks_blocked()
        for started in asyncio.all_tasks() - before:
            started.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await until(lambda: asyncio.all_tasks() == before)


@pytest.mark.parametrize("name", ["reader", "writer"])
async def test_the_cancellation_of_one_of_our_tasks_closes_the_channel(
    name: str, anyio_backend_name: str
) -> None:
    """The block is not cancelled with it: what it calls raises ChannelClosed."""
    if anyio_backend_name != "asyncio":
        pytest.skip("asyncio's own")
    with anyio.fail_after(BOUND):
        ours, theirs = memory_byte_streams()
        before = asyncio.all_tasks()
        async with kk.RPCChannel(ours, hello=False) as channel:
            await anyio.wait_all_tasks_blocked()
            (task,) = [t for t in asyncio.all_tasks() - before if t.get_name() == f"kkrpc_py {name}"]
            task.cancel()
            await channel.wait_closed()
            with pytest.raises(kk.ChannelClosed):
                await channel.remote().add(1, 2)
        await theirs.aclose()
