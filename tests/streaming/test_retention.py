"""What a hub forgets after a while, and how long a producer is left to believe; in virtual time."""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from kkrpc_py.streaming.later import call_later
from tests.channel.harness import until, without_collector
from tests.streaming.scripts import all_blocked, collected
from tests.streaming.virtual import backend

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return backend(request.param)


@contextlib.asynccontextmanager
async def paired(hub: kk.StreamHub) -> AsyncIterator[tuple[kk.RPCChannel, kk.RPCChannel]]:
    """A server that exposes `hub` and its client, without a bound in the time that passes here."""
    async with kk.memory_pair({"streams": hub}) as (server, client):
        await client.ready()
        yield server, client


async def known(client: kk.RPCChannel, id: str = "x") -> bool:
    """Whether there is such a stream for a subscriber."""
    try:
        async with kk.streams(client).subscribe("c", id):
            return True
    except kk.UnknownStream:
        return False


# --- later ------------------------------------------------------------------------------------------


async def test_later() -> None:
    done: list[Any] = []
    began = anyio.current_time()
    call_later(2, lambda: done.append(anyio.current_time() - began))
    call_later(1, lambda: done.append("first"))
    call_off = call_later(1.5, lambda: done.append("called off"))
    call_later(math.inf, lambda: done.append("never"))
    await anyio.sleep(1.2)
    assert done == ["first"]
    call_off()
    call_off()
    await anyio.sleep(1)
    assert done == ["first", 2]
    call_off()
    await anyio.sleep(100)
    assert done == ["first", 2]


async def test_what_is_called_off_is_not_kept() -> None:
    class Target:
        def act(self) -> None: ...

    with without_collector():
        for late in (True, False):
            target: Any = Target()
            kept = weakref.ref(target)
            call_off = call_later(5, target.act)
            del target
            if late:
                await anyio.sleep(6)
                del call_off
            else:
                call_off()
                await all_blocked()
            assert kept() is None


# --- retention --------------------------------------------------------------------------------------


@pytest.mark.parametrize("retention", [None, 0.5, 30, 3600])
async def test_a_stream_is_kept_for_a_while_after_its_end(retention: Any) -> None:
    hub = kk.StreamHub()
    options = {} if retention is None else {"closed_stream_retention": retention}
    seconds = 30 if retention is None else retention
    chat = hub.create("c", **options)
    with without_collector():
        async with paired(hub) as (_, client):
            for end in ("close", "error"):
                stream: Any = chat.start("x")
                stream.write(1)
                await anyio.sleep(10 * seconds)
                assert await known(client), "one that has not ended is kept"
                stream.close() if end == "close" else stream.error("failed")
                await anyio.sleep(0.99 * seconds)
                assert await known(client)
                assert chat.get("x") is stream
                await anyio.sleep(0.02 * seconds)
                assert not await known(client)
                assert (chat.get("x"), chat.ids()) == (None, [])
                kept = weakref.ref(stream)
                del stream
                await all_blocked()
                assert kept() is None
                assert not chat._call_off


async def test_no_retention_at_all() -> None:
    hub = kk.StreamHub()
    chat = hub.create("c", closed_stream_retention=0)
    async with paired(hub) as (_, client):
        stream = chat.start("x")
        async with kk.streams(client).subscribe("c", "x") as reader:
            stream.write(1)
            stream.close()
            assert not await known(client)
            assert await collected(reader) == [1]  # who is there gets all of it


async def test_kept_for_ever() -> None:
    hub = kk.StreamHub()
    chat = hub.create("c", closed_stream_retention=math.inf)
    chat.start("x").close()
    async with paired(hub) as (_, client):
        await anyio.sleep(10**6)
        assert await known(client)
    chat.close()


async def test_the_next_stream_of_an_id_is_not_forgotten_with_the_first() -> None:
    hub = kk.StreamHub()
    chat = hub.create("c", closed_stream_retention=10)
    chat.start("x").close()
    await anyio.sleep(5)
    second = chat.start("x")
    await anyio.sleep(100)
    assert chat.get("x") is second
    second.close()
    await anyio.sleep(9)
    third = chat.start("x")
    third.close()
    await anyio.sleep(9)
    assert chat.get("x") is third
    await anyio.sleep(2)
    assert chat.ids() == []
    assert not chat._call_off


async def test_who_still_reads_when_it_is_forgotten() -> None:
    hub = kk.StreamHub()
    chat = hub.create("c", closed_stream_retention=10)
    stream = chat.start("x")
    async with paired(hub) as (_, client):
        async with kk.streams(client).subscribe("c", "x", high_water_mark=3000) as reader:
            for number in range(3000):
                stream.write(number)
            stream.close()
            await anyio.sleep(20)
            assert not await known(client)
            assert await collected(reader) == list(range(3000))


async def test_closing_the_channel_ends_the_waiting_too() -> None:
    hub = kk.StreamHub()
    with without_collector():
        chat: Any = hub.create("c", closed_stream_retention=10)
        stream: Any = chat.start("x")
        stream.close()
        chat.close()
        kept = [weakref.ref(stream), weakref.ref(chat)]
        del stream, chat
        await all_blocked()
        assert [ref() for ref in kept] == [None, None]
    await anyio.sleep(100)


async def test_what_is_written_after_a_long_time() -> None:
    """A stream that nobody ends is kept, however long it says nothing."""
    hub = kk.StreamHub()
    stream = hub.create("c").start("x")
    async with paired(hub) as (_, client):
        stream.write(1)
        await anyio.sleep(100_000 if client.timeout is None else 1)
        stream.write(2)
        stream.close()
        assert await collected(kk.streams(client).subscribe("c", "x")) == [1, 2]


# --- grace ------------------------------------------------------------------------------------------


async def disconnected(hub: kk.StreamHub, stream: kk.OutboundStream[Any], readers: int = 1) -> None:
    """Subscribe so often by one connection, and lose it."""
    async with paired(hub) as (server, client):
        held = [kk.streams(client).subscribe("c", "x") for _ in range(readers)]
        for reader in held:
            await reader.__aenter__()
        assert stream.subscribers == readers
        await client.aclose()
        await server.wait_closed()
        await until(lambda: stream.subscribers == 0)


async def test_a_lost_connection_has_some_grace() -> None:
    hub = kk.StreamHub()
    stream = hub.create("c", reconnect_grace=10).start("x")
    await disconnected(hub, stream, 3)  # the server has waited a second for what else its handlers say
    await anyio.sleep(8.9)
    assert not stream.signal.cancelled
    await anyio.sleep(0.2)
    assert stream.signal.cancelled


async def test_one_that_is_started_again_leaves_nothing_of_the_first() -> None:
    hub = kk.StreamHub()
    chat = hub.create("c", closed_stream_retention=30)
    first = chat.start("x")
    first.close()
    gone = weakref.ref(first)
    with without_collector():
        del first
        chat.start("x")
        await all_blocked()
        assert gone() is None


async def test_who_comes_back_in_time() -> None:
    hub = kk.StreamHub()
    stream = hub.create("c", reconnect_grace=10).start("x")
    for _ in range(3):
        await disconnected(hub, stream)
        await anyio.sleep(8)
        assert not stream.signal.cancelled
    async with paired(hub) as (_, client):
        async with kk.streams(client).subscribe("c", "x"):
            await anyio.sleep(100)
            assert not stream.signal.cancelled
        assert stream.signal.cancelled, "who cancels has no grace"


async def test_who_cancels_while_another_may_come_back() -> None:
    """The one that was lost has its grace still when the last one goes for good."""
    hub = kk.StreamHub()
    stream = hub.create("c", reconnect_grace=10).start("x")
    async with paired(hub) as (_, client):
        async with kk.streams(client).subscribe("c", "x"):
            async with paired(hub) as (server, other):
                held = kk.streams(other).subscribe("c", "x")
                await held.__aenter__()
                assert stream.subscribers == 2
                await other.aclose()
                await server.wait_closed()
                await until(lambda: stream.subscribers == 1)
            await anyio.sleep(4)
        await all_blocked()
        assert stream.subscribers == 0
        await anyio.sleep(4.9)
        assert not stream.signal.cancelled
        await anyio.sleep(0.2)
        assert stream.signal.cancelled


async def test_no_grace() -> None:
    hub = kk.StreamHub()
    stream = hub.create("c").start("x")
    await disconnected(hub, stream)
    assert stream.signal.cancelled


async def test_a_stream_that_ends_within_the_grace_is_not_cancelled() -> None:
    hub = kk.StreamHub()
    chat = hub.create("c", reconnect_grace=10, closed_stream_retention=0)
    with without_collector():
        stream: Any = chat.start("x")
        await disconnected(hub, stream)
        signal = stream.signal
        stream.close()
        kept = weakref.ref(stream)
        del stream
        await all_blocked()
        assert kept() is None
    await anyio.sleep(100)
    assert not signal.cancelled


async def test_a_pipe_goes_on_for_who_comes_back() -> None:
    hub = kk.StreamHub()
    stream = hub.create("c", reconnect_grace=10).start("x")

    async def ticks() -> Any:
        for number in range(20):
            yield number
            await anyio.sleep(1)

    async with anyio.create_task_group() as tg:
        tg.start_soon(stream.pipe_from, ticks())
        await anyio.sleep(0.5)
        await disconnected(hub, stream)
        await anyio.sleep(8)
        async with paired(hub) as (_, client):
            assert await collected(kk.streams(client).subscribe("c", "x")) == list(range(20))


async def test_a_pipe_ends_when_nobody_comes_back() -> None:
    hub = kk.StreamHub()
    stream = hub.create("c", reconnect_grace=10).start("x")
    began = anyio.current_time()

    async def ticks() -> Any:
        while True:
            yield 1
            await anyio.sleep(1)

    async with anyio.create_task_group() as tg:
        tg.start_soon(stream.pipe_from, ticks())
        await anyio.sleep(0.5)
        await disconnected(hub, stream)
    assert 10 <= anyio.current_time() - began <= 12
    assert stream.closed
