"""Events: what is emitted reaches who listens, in order, and nobody can make the other side hold much."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import sys
import weakref
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from kkrpc_py.errors import WouldBlock
from kkrpc_py.streaming.events import Event, EventReader, EventsFace, Listeners, broadcast, events
from tests.channel.harness import BOUND, linked, until, without_collector
from tests.channel.peer import at_rest, opened, request, result, scripted

pytestmark = pytest.mark.anyio


async def take(reader: EventReader, count: int) -> list[tuple[Any, ...]]:
    """The arguments of the next `count` events."""
    with anyio.fail_after(BOUND):
        return [(await anext(reader)).args for _ in range(count)]


def emit_message(id: Any, *args: Any) -> dict[str, Any]:
    return request(id, "streams.emit", *args)


# What arrives --------------------------------------------------------------------------------


async def test_events_go_both_ways() -> None:
    async with linked(None) as (server, client):
        at_server = events(server).on("typing")
        at_client = events(client).on("joined")
        events(client).emit("typing", "Ada", {"keys": 3})
        events(server).emit("joined", "Bob")
        assert await anext(at_server) == Event("typing", ("Ada", {"keys": 3}), server)
        assert await take(at_client, 1) == [("Bob",)]


async def test_each_reader_gets_all_of_its_name_in_order() -> None:
    async with linked(None) as (server, client):
        readers = [events(server).on("n") for _ in range(3)]
        other = events(server).on("other")
        sender = events(client)
        for n in range(200):
            sender.emit("n", n)
        sender.emit("other")
        assert await take(other, 1) == [()]
        for reader in readers:
            assert await take(reader, 200) == [(n,) for n in range(200)]


async def test_they_keep_their_order_among_the_calls() -> None:
    heard: list[Any] = []

    class API:
        @kk.inline
        def note(self, value: int) -> None:
            heard.append(value)

    class Noting(EventsFace):
        @kk.inline
        def emit(self, name: str, *args: Any) -> None:
            heard.append(args[0])

    async with linked({"api": API(), "streams": Noting()}) as (_, client):
        for n in range(0, 300, 3):
            events(client).emit("n", n)
            events(client).emit("n", n + 1)
            await client.remote().api.note(n + 2)
    assert heard == list(range(300))


async def test_a_reader_hears_from_on_to_close() -> None:
    async with linked(None) as (server, client):
        events(client).emit("n", 1)  # refused: the other side exposes nothing yet
        await at_rest(client)
        kept = events(server).on("n")
        with events(server).on("n") as reader:
            events(client).emit("n", 2)
            assert await take(reader, 1) == [(2,)]
            events(client).emit("n", 3)
            assert await take(kept, 2) == [(2,), (3,)]
        assert reader.closed
        assert [event async for event in reader] == []  # what waited was dropped
        events(client).emit("n", 4)
        assert await take(kept, 1) == [(4,)]


async def test_whoever_waits_is_told_the_end() -> None:
    async with linked(None) as (server, _):
        reader = events(server).on("n")
        seen: list[Event] = []

        async def read() -> None:
            seen.extend([event async for event in reader])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            reader.close()
        assert seen == []


async def test_a_reader_ends_with_its_channel_after_what_had_come() -> None:
    async with kk.memory_pair() as (server, client):
        reader = events(server).on("n")
        events(client).emit("n", 1)
        await at_rest(client)
        await client.aclose()
        with anyio.fail_after(BOUND):
            assert [event.args async for event in reader] == [(1,)]
            await server.wait_closed()
        late = events(server).on("n")
        assert late.closed
        assert [event async for event in late] == []


async def test_the_wait_for_an_event_can_be_cancelled() -> None:
    async with linked(None) as (server, client):
        reader = events(server).on("n")
        with anyio.move_on_after(0):
            await anext(reader)
        events(client).emit("n", 1)
        assert await take(reader, 1) == [(1,)]


async def test_a_bad_name_or_bound_is_refused() -> None:
    async with linked(None) as (server, client):
        name: Any = 7
        for wrong in (
            lambda: events(client).emit(name),
            lambda: events(client).on(name),
            lambda: broadcast((), name, ()),
        ):
            with pytest.raises(TypeError, match="name of an event"):
                wrong()
        for bound in (0, -1, True, "2"):
            with pytest.raises(ValueError, match="high_water_mark"):
                events(client).on("n", bound)  # type: ignore[arg-type]  # some of them are none
        reader = events(server).on("n")
        for args in ([], [7], [None, 1]):
            with pytest.raises((TypeError, kk.RemoteError, kk.ValidationFailed)):
                await client.remote().streams.emit(*args)
        await client.remote().streams.emit("n", "a call like any other")
        assert await take(reader, 1) == [("a call like any other",)]
        assert repr(events(server)) == "<Events at 'streams'>"
        assert repr(reader) == "<EventReader 'n' open waiting=0 dropped=0>"


# Where they are exposed ----------------------------------------------------------------------


async def test_another_path() -> None:
    async with linked({"api": {}}) as (server, client):
        reader, other = events(server, "news").on("n"), events(server).on("n")
        events(client).emit("n", 1)
        events(client, "news").emit("n", 2)
        assert await take(reader, 1) == [(2,)]
        events(client, "news").emit("n", 3)
        events(client).emit("n", 4)
        assert await take(reader, 1) == [(3,)]
        assert await take(other, 2) == [(1,), (4,)]


async def test_a_path_that_is_taken_or_no_name_is_refused() -> None:
    async with linked({"streams": {"other": print}}) as (server, _):
        for path in ("streams", "streams.other", "_private", ""):
            with pytest.raises(ValueError, match="exposed already|no name"):
                events(server, path).on("n")


async def test_beside_a_hub_both_hear_it() -> None:
    listeners = Listeners(kk.Limits())
    hub_reader = listeners.on("n")
    async with linked({"app": {"streams": EventsFace(listeners)}}) as (server, client):
        reader = events(server, "app.streams").on("n")
        events(client, "app.streams").emit("n", 1)
        assert await take(reader, 1) == [(1,)]
        assert await anext(hub_reader) == Event("n", (1,), server)
    assert not hub_reader.closed
    listeners.close()
    assert hub_reader.closed


async def test_interceptors_see_them() -> None:
    seen: list[Any] = []

    async def note(ctx: kk.CallContext, proceed: kk.Next) -> Any:
        seen.append((ctx.method, list(ctx.args)))
        return await proceed()

    async with linked(None, interceptors=[note]) as (server, client):
        reader = events(server).on("n")
        events(client).emit("n", 1)
        assert await take(reader, 1) == [(1,)]
    assert seen == [("streams.emit", ["n", 1])]


# What is bounded -----------------------------------------------------------------------------


async def test_of_too_many_the_newest_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    async with linked(None) as (server, client):
        reader = events(server).on("n", high_water_mark=3)
        for n in range(10):
            events(client).emit("n", n)
        await at_rest(client)
        assert await take(reader, 3) == [(7,), (8,), (9,)]
        assert reader.dropped == 7
        events(client).emit("n", 10)
        assert await take(reader, 1) == [(10,)]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["DF0029: events 'n' are not read in time, the oldest are dropped"]


async def test_of_too_large_ones_too() -> None:
    async with linked(None, limits=kk.Limits(stock_stream_buffer=100_000)) as (server, client):
        reader = events(server).on("n")
        values: list[Any] = [["x" * 40_000], {"y": b"y" * 40_000}, {"k" * 40_000: 1}, "z" * 200_000]
        for value in values:
            events(client).emit("n", value)
        await at_rest(client)
        assert reader.dropped == 3
        assert await take(reader, 1) == [("z" * 200_000,)]  # one is kept however large
        for value in values[:3]:
            events(client).emit("n", value)
        await at_rest(client)
        assert await take(reader, 2) == [(value,) for value in values[1:3]]
        assert reader._bytes == 0


def test_the_size_of_what_holds_itself_or_the_same_often() -> None:
    from kkrpc_py.streaming.sizes import size_of

    circle: list[Any] = ["text"]
    circle.append(circle)
    assert size_of(circle) < 1000
    laughs: Any = ["ha"]
    for _ in range(64):
        laughs = [laughs, laughs]
    assert size_of(laughs) < 100_000


async def test_what_nobody_listens_to_leaves_nothing_behind() -> None:
    async with linked(None) as (server, client):
        reader = events(server).on("wanted")
        payload = "x" * 10_000

        async def flood(count: int) -> None:
            for n in range(count):
                while True:
                    try:
                        events(client).emit(f"unwanted {n}", payload)
                        break
                    except WouldBlock:
                        await at_rest(client)
            await at_rest(client)

        await flood(100)
        gc.collect()
        before = sys.getallocatedblocks()
        await flood(2000)
        gc.collect()
        assert sys.getallocatedblocks() - before < 500
        assert reader.dropped == 0


async def test_dropped_readers_are_forgotten() -> None:
    with without_collector():
        async with linked(None) as (server, client):
            face = events(server)
            kept = face.on("n")
            for n in range(1000):
                face.on(f"n {n}")
                face.on("n")
            listeners = _listeners(server)
            last = face.on("last")
            assert sorted(listeners._readers) == ["last", "n"]
            assert len(listeners._readers["n"]) == 1
            with face.on("closed"), face.on("closed"):
                pass
            del last
            events(client).emit("last")
            events(client).emit("closed")
            events(client).emit("n")
            await take(kept, 1)
            face.on("n").close()
            await at_rest(client)
            events(client).emit("n")
            await take(kept, 1)
            face.on("any")
            assert sorted(listeners._readers) == ["any", "n"]


def _listeners(channel: kk.RPCChannel) -> Listeners:
    from kkrpc_py.streaming.events import _channels

    [place] = _channels[channel].places.values()
    return place.own


async def test_nothing_of_a_channel_is_kept_after_it() -> None:
    from kkrpc_py.streaming.events import _channels

    with without_collector():
        async with linked(None) as (server, client):
            reader = events(server).on("n")
            events(client).emit("n")
            await take(reader, 1)
            assert server in _channels
            assert client in _channels
        ends = [weakref.ref(server), weakref.ref(client)]
        del server, client, reader
        gc.collect()
        assert [end() for end in ends] == [None, None]


# What is sent --------------------------------------------------------------------------------


async def test_on_the_wire_it_is_a_call_whose_answer_nobody_waits_for() -> None:
    async with scripted() as (channel, peer):
        for n in range(4):
            events(channel).emit("n", n)
        asked = [await peer.next() for _ in range(4)]
        assert [(each["method"], each["args"]) for each in asked] == [
            ("streams.emit", ["n", n]) for n in range(4)
        ]
        ids = [each["id"] for each in asked]
        failure = {
            "id": ids[1],
            "method": "",
            "args": {"error": "Method"},
            "type": "response",
            "version": "json",
        }
        await peer.send(result(ids[0], "ignored"), failure, opened(ids[2]))
        assert await peer.next() == {
            "id": ids[2], "method": "", "args": {}, "type": "stream-cancel", "version": "json",
        }  # fmt: skip
        await peer.send(result(ids[3], {"f": "__callback__1"}))
        await at_rest(channel)
        events(channel).on("n")
        [answer] = await peer.exchange(emit_message("a", "n", 1))
        assert answer["args"] in ({}, {"result": None})


async def test_an_unanswered_peer_is_not_told_for_ever() -> None:
    async with scripted(limits=kk.Limits(calls=40)) as (channel, peer):
        for n in range(10):
            events(channel).emit("n", n)
        for _ in range(2):
            with pytest.raises(WouldBlock):
                events(channel).emit("n", 10)
        asked = [await peer.next() for _ in range(10)]
        await peer.send(result(asked[3]["id"], None))
        await until(lambda: len(channel.connection.outgoing) == 9)
        events(channel).emit("n", 11)
        assert (await peer.next())["args"] == ["n", 11]
        with pytest.raises(WouldBlock):
            events(channel).emit("n", 12)


async def test_a_peer_that_does_not_read_is_not_told_for_ever() -> None:
    async with scripted(limits=kk.Limits(send_high_water=1000)) as (channel, peer):
        payload = "x" * 10_000
        with pytest.raises(WouldBlock):
            for _ in range(1000):  # what the memory stream takes, and the writer
                events(channel).emit("n", payload)
        assert channel.connection.outbox.size < 3 * 10_100
        while channel.connection.outbox.size:
            await peer.next()
        events(channel).emit("m", 1)
        while (await peer.next())["args"] != ["m", 1]:
            pass


async def test_what_cannot_be_sent_is_refused_and_nothing_was_sent() -> None:
    async with linked(None, limits=kk.Limits(frame=10_000)) as (server, client):
        reader = events(server).on("n")
        with pytest.raises(kk.NotSerializable):
            events(client).emit("n", object())
        with pytest.raises(kk.LimitExceeded):
            events(client).emit("n", "x" * 10_001)
        events(client).emit("n", {1, 2}, b"bytes")
        assert await take(reader, 1) == [({1, 2}, b"bytes")]
        assert len(client.connection.outgoing) <= 1


async def test_a_closed_channel_says_so() -> None:
    async with kk.memory_pair() as (_, client):
        sender = events(client)
        sender.emit("n")
        await client.aclose()
        with pytest.raises(kk.ChannelClosed):
            sender.emit("n")
    channel = kk.RPCChannel(None)
    with pytest.raises(RuntimeError, match="enter the channel first"):
        events(channel).emit("n")


async def test_those_of_a_handler_on_a_thread() -> None:
    class API:
        def work(self) -> None:
            sender = events(kk.current_channel())
            sender.emit("progress", 0.5)
            sender.emit("progress", 1.0)
            with pytest.raises(kk.NotSerializable):
                sender.emit("progress", object())

    async with linked(API()) as (_, client):
        reader = events(client).on("progress")
        await client.remote().work()
        assert await take(reader, 2) == [(0.5,), (1.0,)]


async def test_functions_may_be_emitted() -> None:
    heard: list[Any] = []
    async with linked(None) as (server, client):
        reader = events(server).on("ask")
        with kk.callback(heard.append) as reply:
            events(client).emit("ask", reply)
            with anyio.fail_after(BOUND):
                event = await anext(reader)
                await event.args[0]("an answer")
            del event
    assert heard == ["an answer"]


# Over a link ---------------------------------------------------------------------------------


async def test_over_a_link_they_come_from_each_of_its_connections(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub = kk.StreamHub()
    said = hub.on("said")
    connections = 0

    @contextlib.asynccontextmanager
    async def connect() -> AsyncGenerator[kk.RPCChannel]:
        nonlocal connections
        connections += 1
        taken = {"news": print} if connections == 3 else None
        async with kk.connect_unix(tmp_path / "socket", expose=taken) as channel:
            yield channel

    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tasks:
            await tasks.start(kk.serve_unix, {"streams": hub}, tmp_path / "socket")
            link = kk.reconnecting(connect, initial_delay=0.001)
            face = events(link)
            reader = face.on("told")
            news = events(link, "news").on("told")
            with pytest.raises(kk.ChannelClosed):
                face.emit("said")
            async with link:
                for n in range(3):
                    channel = await link.connected()
                    face.emit("said", n)
                    event = await anext(said)
                    assert event.args == (n,)
                    assert hub.broadcast("told", n) == 1
                    assert await anext(reader) == Event("told", (n,), channel)
                    if n < 2:
                        await event.channel.remote().news.emit("told", n)
                        assert (await anext(news)).args == (n,)
                    late = face.on("told")
                    assert hub.broadcast("told", "late") == 1
                    assert await take(late, 1) == await take(reader, 1) == [("late",)]
                    await channel.aclose()
                    assert not reader.closed
                    with pytest.raises(kk.ChannelClosed):
                        face.emit("said")
                    await link.connected(after=channel)
            assert [event async for event in reader] == []
            assert face.on("told").closed
            tasks.cancel_scope.cancel()
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == ["the events of a new connection are not heard: 'news' is exposed already"]


async def test_over_a_link_a_path_that_is_taken_is_refused(tmp_path: Path) -> None:
    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tasks:
            await tasks.start(kk.serve_unix, {}, tmp_path / "socket")
            connect = functools.partial(
                kk.connect_unix, tmp_path / "socket", expose={"streams": {"a": print}}
            )
            async with kk.reconnecting(connect) as link:
                for _ in range(2):
                    with pytest.raises(ValueError, match="exposed already"):
                        events(link).on("told")
                assert not events(link, "news").on("told").closed
            tasks.cancel_scope.cancel()


async def test_nothing_of_a_link_is_kept_after_it(tmp_path: Path) -> None:
    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tasks:
            await tasks.start(kk.serve_unix, {"streams": kk.StreamHub()}, tmp_path / "socket")
            async with kk.reconnecting(lambda: kk.connect_unix(tmp_path / "socket")) as link:
                reader = events(link).on("told")
            end = weakref.ref(link)
            del link, reader
            gc.collect()
            assert end() is None
            tasks.cancel_scope.cancel()


# Hooks ---------------------------------------------------------------------------------------


async def test_metadata_and_the_hook_of_calls() -> None:
    log: list[Any] = []

    def on_call(info: kk.OutgoingInfo) -> Callable[[BaseException | None], None]:
        info.metadata["more"] = 2
        log.append((info.method, info.kind))

        def over(failure: BaseException | None) -> None:
            log.append(type(failure).__name__)
            raise ValueError("what watches a call changes nothing")

        return over

    async def note(ctx: kk.CallContext, proceed: kk.Next) -> Any:
        log.append(dict(ctx.meta))
        return await proceed()

    options: dict[str, Any] = {"metadata": lambda: {"trace": 1}, "on_call": on_call, "interceptors": [note]}
    async with linked(None, **options) as (server, client):
        reader = events(server).on("n")
        events(client).emit("n", 1)
        assert await take(reader, 1) == [(1,)]
        await at_rest(client)
        with pytest.raises(kk.NotSerializable):
            events(client).emit("n", object())
        events(server).emit("nobody listens")
        await at_rest(server)
    sent = ("streams.emit", "call")
    assert log == [
        sent, {"trace": 1, "more": 2}, "NoneType",
        sent, "NotSerializable",
        sent, "MethodNotFound",
    ]  # fmt: skip


async def test_a_hook_is_told_of_a_stream_and_of_the_end() -> None:
    log: list[str] = []

    def on_call(info: kk.OutgoingInfo) -> Callable[[BaseException | None], None]:
        return lambda failure: log.append(type(failure).__name__)

    async with scripted(on_call=on_call) as (channel, peer):
        events(channel).emit("n")
        await peer.send(opened((await peer.next())["id"]))
        assert (await peer.next())["type"] == "stream-cancel"
        events(channel).emit("n")
        await peer.next()
    assert log == ["NoneType", "ChannelClosed"]


async def test_a_hook_that_watches_nothing() -> None:
    async with linked(None, on_call=lambda info: None) as (server, client):
        reader = events(server).on("n")
        events(client).emit("n", 1)
        assert await take(reader, 1) == [(1,)]


# To many -------------------------------------------------------------------------------------


async def test_a_broadcast_reaches_those_that_the_filter_chooses() -> None:
    async with linked(None) as (a, b), linked(None) as (c, d), kk.memory_pair() as (gone, _):
        await gone.aclose()
        readers = [events(channel).on("n") for channel in (b, d)]
        targets = [(a, "streams"), (c, "streams"), (gone, "streams")]
        assert broadcast(targets, "n", (1,)) == 2
        assert broadcast(targets, "n", (2,), lambda channel: channel is c) == 1
        assert broadcast(targets, "n", (3,), lambda channel: False) == 0
        assert await take(readers[0], 1) == [(1,)]
        assert await take(readers[1], 2) == [(1,), (2,)]

        def fails(channel: kk.RPCChannel) -> bool:
            if channel is c:
                raise ValueError("no")
            return True

        with pytest.raises(ValueError, match="no"):
            broadcast(targets, "n", (4,), fails)
        assert broadcast(targets, "n", (5,)) == 2
        assert await take(readers[0], 1) == [(5,)]


async def test_a_broadcast_leaves_out_who_is_behind_or_cannot_take_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with linked(None) as (agreed, other), scripted(limits=kk.Limits(calls=4)) as (stock, peer):
        reader = events(other).on("n")
        targets = [(stock, "streams"), (agreed, "streams")]
        assert broadcast(targets, "n", ({1},)) == 1  # a stock peer takes no set
        with pytest.raises(kk.NotSerializable):
            broadcast(targets[:1], "n", ({1},))
        with pytest.raises(kk.NotSerializable):
            broadcast(targets, "n", (object(),))
        assert [broadcast(targets, "n", (n,)) for n in range(3)] == [2, 1, 1]
        assert await take(reader, 4) == [({1},), (0,), (1,), (2,)]
        assert (await peer.next())["args"] == ["n", 0]
    assert [record.getMessage() for record in caplog.records] == [
        "DF0029: a client is behind with its events, and does not get all of them"
    ]


async def test_the_first_reader_of_a_closed_channel_has_ended() -> None:
    async with linked({"streams": kk.StreamHub()}) as (_, client):
        pass
    with anyio.fail_after(BOUND):
        assert [event async for event in kk.events(client).on("late")] == []
