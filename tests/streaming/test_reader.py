"""What the consumer of a named stream holds: two surfaces, every way to leave, and servers that lie."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.abc import ObjectReceiveStream
from anyio.lowlevel import checkpoint

import kkrpc_py as kk
from kkrpc_py.limits import Limits
from tests.channel import peer as p
from tests.channel.harness import BOUND, linked, until, without_collector
from tests.streaming.scripts import all_blocked, collected, received, scripted_client

pytestmark = pytest.mark.anyio


def hub_of(*values: Any, end: bool = False, **options: Any) -> tuple[kk.StreamHub, kk.OutboundStream[Any]]:
    hub = kk.StreamHub()
    stream = hub.create("c", closed_stream_retention=0 if not end else 30, **options).start("x")
    for value in values:
        stream.write(value)
    if end:
        stream.close()
    return hub, stream


# --- surfaces ---------------------------------------------------------------------------------------


async def test_it_is_an_async_iterable_and_a_receive_stream() -> None:
    hub, _ = hub_of(1, 2, 3, end=True)
    async with linked({"streams": hub}) as (_, client):
        streams = kk.streams(client)
        reader = streams.subscribe("c", "x")
        assert isinstance(reader, ObjectReceiveStream)
        assert (reader.name, reader.id, reader.last_seq, reader.epoch) == ("c", "x", 0, None)
        assert [value async for value in reader] == [1, 2, 3]
        assert reader.last_seq == 3
        reader = streams.subscribe("c", "x")
        assert await received(reader, 3) == [1, 2, 3]
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await reader.receive()
        async with streams.subscribe("c", "x") as entered:
            assert await entered.receive() == 1
        async with streams.subscribe("c", "x") as entered:
            assert [value async for value in entered] == [1, 2, 3]


async def test_it_has_one_pass() -> None:
    hub, _ = hub_of(1, 2, end=True)
    async with linked({"streams": hub}) as (_, client):
        streams = kk.streams(client)
        reader = streams.subscribe("c", "x")
        assert await collected(reader, 1) == [1]
        with pytest.raises(RuntimeError, match="read once"):
            await collected(reader)
        with pytest.raises(RuntimeError, match="read once"):
            await reader.receive()
        other = streams.subscribe("c", "x")
        assert await other.receive() == 1
        with pytest.raises(RuntimeError, match="read once"):
            await collected(other)
        assert await other.receive() == 2
        await other.aclose()


async def test_a_pass_is_its_own_iterator() -> None:
    hub, stream = hub_of(1, 2)
    async with linked({"streams": hub}) as (_, client):
        iterator = aiter(kk.streams(client).subscribe("c", "x"))
        assert aiter(iterator) is iterator
        assert [await anext(iterator), await anext(iterator)] == [1, 2]
        await iterator.aclose()  # type: ignore[attr-defined]  # as generators have it
        assert stream.subscribers == 0
        with pytest.raises(kk.CallCancelled):
            await anext(iterator)


async def test_it_subscribes_when_it_is_read() -> None:
    hub, stream = hub_of()
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x")
        await p.at_rest(client)
        assert stream.subscribers == 0
        async with reader as entered:
            assert entered is reader
            assert stream.subscribers == 1
            stream.write(1)
            assert await reader.receive() == 1
            assert stream.subscribers == 1
        assert stream.subscribers == 0
        unread = kk.streams(client).subscribe("c", "x")
        unread.cancel()
        await unread.aclose()
        del unread


@pytest.mark.parametrize(
    "options",
    [
        {"overflow": "drop"},
        {"overflow": None},
        {"on_gap": "raise"},
        {"high_water_mark": 0},
        {"high_water_mark": 1.0},
        {"high_water_mark": True},
        {"after": -1},
        {"after": 1.5},
        {"after": True},
        {"after": "1"},
    ],
    ids=str,
)
async def test_what_nobody_could_mean_is_refused_here(options: Any) -> None:
    async with linked(None) as (_, client):
        with pytest.raises(ValueError):
            kk.streams(client).subscribe("c", "x", **options)


async def test_only_one_task_receives_at_a_time() -> None:
    hub, stream = hub_of()
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x")
        async with reader, anyio.create_task_group() as tg:
            got: list[Any] = []

            async def receive() -> None:
                got.append(await reader.receive())

            tg.start_soon(receive)
            await all_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await reader.receive()
            stream.write(1)
            await until(lambda: got == [1])
            stream.write(2)
            assert await reader.receive() == 2


async def test_what_it_was_given_is_what_the_server_hears() -> None:
    async with p.scripted() as (channel, peer):
        for options, wire in (
            ({}, {"highWaterMark": 256, "overflow": "drop_oldest"}),
            ({"high_water_mark": 3, "overflow": "latest"}, {"highWaterMark": 3, "overflow": "latest"}),
            ({"after": 7}, {"highWaterMark": 256, "overflow": "drop_oldest", "after": 7}),
            ({"after": None}, {"highWaterMark": 256, "overflow": "drop_oldest", "after": None}),
        ):
            for path, method in (
                ("streams", "streams.subscribe"),
                ("a.b", "a.b.subscribe"),
                ("", "subscribe"),
            ):
                reader = kk.streams(channel, path).subscribe("the name", "the id", **options)
                async with anyio.create_task_group() as tg:
                    tg.start_soon(collected, reader)
                    question = await peer.next()
                    assert (question["method"], question["args"]) == (method, ["the name", "the id", wire])
                    await peer.send(
                        p.opened(question["id"]), p.chunk(question["id"], {"next": 1, "epoch": "e"})
                    )
                    await peer.send(p.end(question["id"]))


# --- leaving ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["break", "return", "raise", "block", "error in the block", "drop", "cancel"])
async def test_leaving_ends_the_subscription_at_once(how: str) -> None:
    hub, stream = hub_of(1, 2, 3)
    over: list[bool] = []
    stream.signal.on_cancel(lambda: over.append(True))
    with without_collector():
        async with linked({"streams": hub}) as (_, client):

            async def read() -> Any:
                reader: Any = kk.streams(client).subscribe("c", "x")
                if how == "block":
                    async with reader:
                        return await reader.receive()
                if how == "error in the block":
                    async with reader:
                        raise ValueError(await reader.receive())
                if how in ("drop", "cancel"):
                    value = await reader.receive()
                    if how == "cancel":
                        reader.cancel()
                    del reader
                    return value
                async for value in reader:
                    if how == "return":
                        return value
                    if how == "raise":
                        raise ValueError(value)
                    break
                return value

            kept: list[BaseException] = []
            try:
                assert await read() == 1
            except ValueError as exc:
                assert exc.args == (1,)
                kept.append(exc)  # with all that its traceback holds
            with anyio.fail_after(BOUND):
                await until(lambda: over == [True])
            assert stream.subscribers == 0
            kept.clear()


@pytest.mark.parametrize("how", ["scope", "group", "timeout"])
async def test_a_loop_that_is_cancelled_ends_its_subscription(how: str) -> None:
    hub, stream = hub_of(1)
    with without_collector():
        async with linked({"streams": hub}) as (_, client):
            reading = anyio.Event()

            async def read() -> None:
                async for _ in kk.streams(client).subscribe("c", "x"):
                    reading.set()

            if how == "scope":
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as tg:
                        tg.start_soon(read)
                        await reading.wait()
                        scope.cancel()
            elif how == "group":
                async with anyio.create_task_group() as tg:
                    tg.start_soon(read)
                    await reading.wait()
                    tg.cancel_scope.cancel()
            else:
                with anyio.move_on_after(0.02):
                    await read()
            with anyio.fail_after(BOUND):
                await until(lambda: stream.subscribers == 0)
            assert stream.signal.cancelled


async def test_a_receive_that_is_cancelled_loses_nothing() -> None:
    hub, stream = hub_of()
    async with linked({"streams": hub}) as (_, client):
        got: list[int] = []
        async with kk.streams(client).subscribe("c", "x", high_water_mark=1000) as reader:
            turns = 0
            async with anyio.create_task_group() as tg:

                async def write() -> None:
                    for number in range(300):
                        stream.write(number)
                        for _ in range(number % 7):
                            await checkpoint()

                tg.start_soon(write)
                while len(got) < 300:
                    turns += 1
                    with anyio.CancelScope() as scope:
                        if turns % 3:
                            scope.deadline = anyio.current_time() + (turns % 5) * 0.0001
                        else:
                            scope.cancel()
                        got.append(await reader.receive())
            assert got == list(range(300))
            assert (reader.dropped, reader.last_seq, reader.gaps) == (0, 300, [])


async def test_a_receive_that_is_cancelled_while_it_subscribes() -> None:
    """The next one subscribes again, and the first subscription is over."""
    asked = 0

    async def authorize(request: kk.StreamRequest) -> bool:
        nonlocal asked
        asked += 1
        if asked < 4:
            await anyio.sleep_forever()
        return True

    hub, stream = hub_of(1, 2, authorize=authorize)
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x")
        for turn in (1, 2, 3):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tg:
                    tg.start_soon(reader.receive)
                    await until(lambda turn=turn: asked == turn)  # type: ignore[misc]  # no lambda's default
                    scope.cancel()
        assert await received(reader, 2) == [1, 2]
        assert stream.subscribers == 1
        await reader.aclose()


@pytest.mark.parametrize("surface", ["iterate", "receive", "enter"])
async def test_another_task_cancels(surface: str) -> None:
    hub, stream = hub_of()
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x")
        outcome: list[type] = []

        async def read() -> None:
            try:
                if surface == "iterate":
                    await collected(reader)
                else:
                    await reader.receive()
            except (kk.CallCancelled, anyio.ClosedResourceError) as exc:
                outcome.append(type(exc))

        async with anyio.create_task_group() as tg:
            if surface == "enter":
                await reader.__aenter__()
            tg.start_soon(read)
            await until(lambda: stream.subscribers == 1)
            await all_blocked()
            reader.cancel()
            reader.cancel()
        assert outcome == [kk.CallCancelled if surface == "iterate" else anyio.ClosedResourceError]
        await reader.aclose()
        assert stream.subscribers == 0
        if surface != "iterate":
            with pytest.raises(anyio.ClosedResourceError):
                await reader.receive()


@pytest.mark.parametrize("surface", ["iterate", "receive", "enter"])
@pytest.mark.parametrize("how", ["cancel", "aclose"])
async def test_another_task_cancels_what_is_not_answered_yet(surface: str, how: str) -> None:
    """Whoever waits for the server's answer is told too, however long that takes."""
    asked, gone = anyio.Event(), anyio.Event()

    async def authorize(request: kk.StreamRequest) -> bool:
        asked.set()
        try:
            await anyio.sleep_forever()
        finally:
            gone.set()
        return True

    hub, stream = hub_of(authorize=authorize)
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x")
        outcome: list[type] = []

        async def read() -> None:
            try:
                if surface == "iterate":
                    await collected(reader)
                elif surface == "receive":
                    await reader.receive()
                else:
                    await reader.__aenter__()
            except (kk.CallCancelled, anyio.ClosedResourceError) as exc:
                outcome.append(type(exc))

        with anyio.fail_after(BOUND):
            async with anyio.create_task_group() as tg:
                tg.start_soon(read)
                await asked.wait()
                if how == "cancel":
                    reader.cancel()
                else:
                    await reader.aclose()
            await gone.wait()
        assert outcome == [anyio.ClosedResourceError if surface == "receive" else kk.CallCancelled]
        assert stream.subscribers == 0


async def test_what_was_there_is_not_read_after_a_cancel() -> None:
    hub, stream = hub_of(1, 2, 3, end=True)
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x")
        assert await reader.receive() == 1
        reader.cancel()
        with pytest.raises(anyio.ClosedResourceError):
            await reader.receive()
        other = kk.streams(client).subscribe("c", "x")
        other.cancel()
        for _ in range(2):
            with pytest.raises(anyio.ClosedResourceError):
                await other.receive()
        third = kk.streams(client).subscribe("c", "x")
        third.cancel()
        with pytest.raises(kk.CallCancelled):
            await collected(third)
        assert stream.subscribers == 0


async def test_cancel_after_the_end_changes_nothing() -> None:
    hub, stream = hub_of(1, end=True)
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x")
        assert await collected(reader) == [1]
        reader.cancel()
        await reader.aclose()
        async with kk.streams(client).subscribe("c", "x") as other:
            assert await other.receive() == 1
            with pytest.raises(anyio.EndOfStream):
                await other.receive()
        assert not stream.signal.cancelled


async def test_closing_waits_for_the_producing_side() -> None:
    """As far as that confirms it (CAN-4): here it takes its time."""
    async with p.scripted() as (channel, peer):
        await peer.exchange(p.hello(features=[*p.FEATURES]))
        reader = kk.streams(channel).subscribe("c", "x")
        closed: list[bool] = []

        async def read() -> None:
            async with reader:
                assert await reader.receive() == "value"
            closed.append(True)

        async with anyio.create_task_group() as tg:
            tg.start_soon(read)
            question = await peer.next()
            id = question["id"]
            await peer.send(p.opened(id), p.chunk(id, {"next": 1, "epoch": "e"}), p.chunk(id, [1, "value"]))
            while (message := await peer.next())["type"] != "stream-cancel":
                pass
            assert message["id"] == id
            await all_blocked()
            assert closed == []
            await peer.send(p.chunk(id, [2, "crossed"]), p.end(id, cancelled=True))
        assert closed == [True]


async def test_a_block_that_is_cancelled_does_not_wait() -> None:
    async with p.scripted() as (channel, peer):
        await peer.exchange(p.hello())
        async with anyio.create_task_group() as tg:

            async def read() -> None:
                with anyio.CancelScope() as scope:
                    async with kk.streams(channel).subscribe("c", "x") as reader:
                        assert await reader.receive() == "value"
                        scope.cancel()
                        await checkpoint()

            tg.start_soon(read)
            id = (await peer.next())["id"]
            await peer.send(p.opened(id), p.chunk(id, {"next": 1, "epoch": "e"}), p.chunk(id, [1, "value"]))
            while (message := await peer.next())["type"] != "stream-cancel":
                pass
        await peer.send(p.end(message["id"], cancelled=True))


async def test_a_reader_that_was_never_read_is_nothing() -> None:
    hub, stream = hub_of()
    with without_collector():
        async with linked({"streams": hub}) as (_, client):
            for _ in range(3):
                kk.streams(client).subscribe("c", "x")
                aiter(kk.streams(client).subscribe("c", "x"))
            await all_blocked()
            assert stream.subscribers == 0
            assert not stream.signal.cancelled


# --- the connection ---------------------------------------------------------------------------------


@pytest.mark.parametrize("surface", ["iterate", "receive"])
async def test_a_connection_that_is_lost_is_told(surface: str) -> None:
    hub, stream = hub_of(1)
    async with linked({"streams": hub}, quiet=False, limits=Limits(finish_seconds=0.01)) as (server, client):
        reader = kk.streams(client).subscribe("c", "x")
        if surface == "iterate":
            iterator = aiter(reader)
            assert await anext(iterator) == 1
            read: Callable[[], Any] = iterator.__anext__
        else:
            assert await reader.receive() == 1
            read = reader.receive
        stream.write(2)
        await all_blocked()
        await server.aclose()
        assert await read() == 2, "what has arrived is read first"
        for _ in range(2):
            with pytest.raises(kk.ChannelClosed):
                await read()
        with pytest.raises(kk.ChannelClosed):
            await kk.streams(client).subscribe("c", "x").receive()
        await reader.aclose()


async def test_a_server_without_a_hub() -> None:
    async with linked({"other": {}}) as (_, client):
        with pytest.raises(kk.MethodNotFound):
            await kk.streams(client).subscribe("c", "x").receive()
        with pytest.raises(kk.MethodNotFound):
            async with kk.streams(client).subscribe("c", "x"):
                pytest.fail("entered")


# --- servers that lie -------------------------------------------------------------------------------

MARK = {"next": 1, "epoch": "e"}
LIES: dict[str, tuple[list[Any], list[Any]]] = {
    "no mark": ([[1, "a"]], []),
    "a mark without a number": ([{"epoch": "e"}, [1, "a"]], []),
    "a mark without an epoch": ([{"next": 1}], []),
    "a mark of zero": ([{"next": 0, "epoch": "e"}], []),
    "a mark below zero": ([{"next": -5, "epoch": "e"}], []),
    "a mark that is text": ([{"next": "1", "epoch": "e"}], []),
    "a mark that is true": ([{"next": True, "epoch": "e"}], []),
    "a mark of one and a half": ([{"next": 1.5, "epoch": "e"}], []),
    "an epoch that is a number": ([{"next": 1, "epoch": 1}], []),
    "an epoch that is null": ([{"next": 1, "epoch": None}], []),
    "null": ([None], []),
    "text": (["mark"], []),
    "a list of a mark": ([[MARK]], []),
    "a second mark": ([MARK, [1, "a"], MARK, [2, "b"]], ["a"]),
    "a chunk that is no list": ([MARK, [1, "a"], "b"], ["a"]),
    "an empty chunk": ([MARK, [1, "a"], []], ["a"]),
    "a chunk without a value": ([MARK, [1]], []),
    "a number that is text": ([MARK, [1, "a"], ["2", "b"]], ["a"]),
    "a number that is true": ([MARK, [True, "b"]], []),
    "a number that is no integer": ([MARK, [1.5, "b"]], []),
    "a number twice": ([MARK, [1, "a"], [2, "b"], [2, "b"]], ["a", "b"]),
    "a number that falls": ([MARK, [1, "a"], [5, "b"], [4, "c"]], ["a", "b"]),
    "a number below the mark": ([{"next": 5, "epoch": "e"}, [4, "a"]], []),
    "zero": ([MARK, [0, "a"]], []),
    "below zero": ([MARK, [-1, "a"]], []),
}


@pytest.mark.parametrize(("surface", "together"), [("iterate", True), ("receive", False)])
@pytest.mark.parametrize("lie", LIES)
async def test_what_is_no_named_stream(lie: str, together: bool, surface: str) -> None:
    """What came before it is read, the stream is cancelled, and the channel lives (NST-20)."""
    chunks, expected = LIES[lie]
    async with p.scripted() as (channel, peer):
        reader = kk.streams(channel).subscribe("c", "x")
        got: list[Any] = []
        failed: list[str] = []

        async def read() -> None:
            try:
                if surface == "iterate":
                    async for value in reader:
                        got.append(value)
                else:
                    while True:
                        got.append(await reader.receive())
            except kk.ProtocolError as error:
                failed.append(str(error))

        async with anyio.create_task_group() as tg:
            tg.start_soon(read)
            id = (await peer.next())["id"]
            frames = [p.opened(id), *(p.chunk(id, chunk) for chunk in chunks)]
            if together:
                await peer.send(*frames)
            else:
                for frame in frames:
                    await peer.send(frame)
                    await all_blocked()
            assert (await peer.next()) == p.cancel(id)
        assert got == expected
        [message] = failed
        assert "'c'" in message
        if surface == "receive":
            with pytest.raises(kk.ProtocolError):
                await reader.receive()
        await peer.send(p.chunk(id, [9, "crossed"]), p.end(id))
        assert await call(channel, peer) == "it lives"
        assert not channel.closed


async def test_a_server_that_lied_leaves_no_reader_behind() -> None:
    with without_collector():
        async with p.scripted() as (channel, peer):
            reader: Any = kk.streams(channel).subscribe("c", "x")
            kept = weakref.ref(reader)
            async with anyio.create_task_group() as tg:

                async def read(reader: Any) -> None:
                    for _ in range(2):
                        with contextlib.suppress(kk.ProtocolError):
                            await reader.receive()

                tg.start_soon(read, reader)
                id = (await peer.next())["id"]
                await peer.send(p.opened(id), p.chunk(id, "no mark"))
                assert (await peer.next()) == p.cancel(id)
                await peer.send(p.end(id))
            del reader
            await all_blocked()
            assert kept() is None


async def call(channel: kk.RPCChannel, peer: p.Peer) -> Any:
    """A call that shows that the channel still works."""
    got: list[Any] = []

    async def ask() -> None:
        got.append(await channel.remote().ask())

    async with anyio.create_task_group() as tg:
        tg.start_soon(ask)
        question = await peer.next()
        await peer.send(p.result(question["id"], "it lives"))
    return got[0]


@pytest.mark.parametrize("answer", [None, 1, "text", [], {"next": 1, "epoch": "e"}, {"__stream": False}])
async def test_an_answer_that_is_no_stream(answer: Any) -> None:
    async with p.scripted() as (channel, peer):
        reader = kk.streams(channel).subscribe("c", "x")
        async with anyio.create_task_group() as tg:

            async def read() -> None:
                with pytest.raises(kk.ProtocolError, match="something else"):
                    await reader.receive()

            tg.start_soon(read)
            await peer.send(p.result((await peer.next())["id"], answer))
        assert await call(channel, peer) == "it lives"


@pytest.mark.parametrize("how", ["end", "error"])
async def test_an_end_before_the_mark(how: str) -> None:
    async with p.scripted() as (channel, peer):
        reader = kk.streams(channel).subscribe("c", "x")
        async with anyio.create_task_group() as tg:

            async def read() -> None:
                for _ in range(2):
                    with pytest.raises(kk.ProtocolError if how == "end" else kk.RemoteError) as failed:
                        await reader.receive()
                    assert ("mark" in str(failed.value)) is (how == "end")

            tg.start_soon(read)
            id = (await peer.next())["id"]
            await peer.send(p.opened(id), p.end(id) if how == "end" else p.stream_error(id, "failed"))


async def test_what_a_client_need_not_know_is_ignored() -> None:
    async with p.scripted() as (channel, peer):
        reader = kk.streams(channel).subscribe("c", "x")
        async with anyio.create_task_group() as tg:
            got: list[Any] = []

            async def read() -> None:
                got.extend(await collected(reader))

            tg.start_soon(read)
            id = (await peer.next())["id"]
            mark = {"next": 3, "epoch": "", "more": [1], "chunks": None}
            await peer.send(
                p.opened(id), p.chunk(id, mark), p.chunk(id, [3, None]), p.chunk(id, [2**53 - 1, [4, 5]])
            )
            await peer.send(p.end(id))
        assert got == [None, [4, 5]]
        assert (reader.gaps, reader.last_seq, reader.epoch) == ([kk.Gap(1, 2)], 2**53 - 1, "")
        assert reader.dropped == 2**53 - 1 - 4


async def test_a_first_chunk_above_the_mark_was_dropped_and_is_no_gap() -> None:
    async with p.scripted() as (channel, peer):
        reader = kk.streams(channel).subscribe("c", "x", after=10)
        async with anyio.create_task_group() as tg:
            got: list[Any] = []

            async def read() -> None:
                got.extend(await collected(reader))

            tg.start_soon(read)
            id = (await peer.next())["id"]
            await peer.send(
                p.opened(id), p.chunk(id, {"next": 13, "epoch": "e"}), p.chunk(id, [15, "a"]), p.end(id)
            )
        assert got == ["a"]
        assert (reader.gaps, reader.dropped) == ([kk.Gap(11, 12)], 2)


async def test_a_mark_below_what_was_asked_for_is_another_stream() -> None:
    async with p.scripted() as (channel, peer):
        reader = kk.streams(channel).subscribe("c", "x", after=10)
        async with anyio.create_task_group() as tg:
            got: list[Any] = []

            async def read() -> None:
                got.extend(await collected(reader))

            tg.start_soon(read)
            id = (await peer.next())["id"]
            await peer.send(
                p.opened(id), p.chunk(id, {"next": 3, "epoch": "e"}), p.chunk(id, [3, "a"]), p.end(id)
            )
        assert got == ["a"]
        assert reader.gaps == [kk.Gap(1, 2, restarted=True)]
        assert (reader.dropped, reader.last_seq) == (0, 3)


async def test_a_server_that_sends_without_end_is_held_up() -> None:
    """A reader that reads nothing gives no credit: what lies here is bounded by it (CRD-5)."""
    hub, stream = hub_of()
    async with scripted_client(kk.StreamHub()) as unrelated:
        assert unrelated.subscribers == {}
    async with linked({"streams": hub}) as (_, client):
        async with kk.streams(client).subscribe("c", "x", high_water_mark=10) as reader:
            for number in range(2000):
                stream.write(number)
                await checkpoint()
            await all_blocked()
            [call] = client.connection.outgoing.values()
            assert call.owner.received <= 64
            assert await reader.receive() == 0
            assert len(reader.follower.ready) <= 64


async def test_a_cancellation_that_is_the_producers_is_told_as_such() -> None:
    hub = kk.StreamHub()
    stream = hub.create("c").start("x")
    stream.error(kk.CallCancelled("by the producer"))
    async with linked({"streams": hub}) as (_, client):
        with pytest.raises(kk.CallCancelled, match="by the producer"):
            await kk.streams(client).subscribe("c", "x").receive()
