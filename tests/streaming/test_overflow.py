"""What becomes of a subscriber that is too slow, to the chunk; and that the others do not notice.

The clients here speak in bytes: the credit of a stream is what they say it is, and so is what waits.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import kkrpc_py as kk
from kkrpc_py.limits import Limits
from kkrpc_py.transports.memory import memory_byte_streams
from kkrpc_py.wire.shared import Shared
from tests.channel.harness import BOUND, linked, until
from tests.streaming.scripts import (
    CREDIT,
    EVERYTHING,
    Subscriber,
    all_blocked,
    collected,
    received,
    scripted_client,
)

pytestmark = pytest.mark.anyio

FIRST = CREDIT - 1
"""Chunks that a new subscription gets before it grants anything: the mark takes credit, too."""
DROPPING = ["drop_oldest", "latest"]


def hub_of(**limits: Any) -> tuple[kk.StreamHub, kk.OutboundStream[Any]]:
    hub = kk.StreamHub(limits=Limits(**limits))
    return hub, hub.create("c", closed_stream_retention=0).start("x")


def numbers(chunks: list[Any]) -> list[int]:
    """Those of the chunks, whose values are the same here."""
    assert all(number == value for number, value in chunks), chunks
    return [number for number, _ in chunks]


def write(stream: kk.OutboundStream[Any], count: int) -> None:
    """So many chunks, each with its number as value."""
    for _ in range(count):
        stream.write(stream.log.next)


async def exhaust(subscriber: Subscriber, stream: kk.OutboundStream[Any]) -> int:
    """Write until there is no credit left; the number of the last chunk that came."""
    for _ in range(FIRST):
        write(stream, 1)
        await all_blocked()
    await subscriber.client.hear()
    assert len(numbers(subscriber.take())) == FIRST
    return stream.log.next - 1


# --- drop_oldest and latest -------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["drop_oldest", "latest", "block", "error"])
async def test_what_has_credit_leaves_at_once(overflow: Any) -> None:
    hub, stream = hub_of()
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", overflow=overflow, highWaterMark=1)
        assert subscriber.mark == {"next": 1, "epoch": stream.epoch}
        for number in range(1, FIRST + 1):
            write(stream, 1)
            await client.hear()
            assert subscriber.take() == [[number, number]]


@pytest.mark.parametrize("high_water_mark", [1, 5, 32, 50])
async def test_the_oldest_are_dropped_and_no_more(high_water_mark: int) -> None:
    hub, stream = hub_of()
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", highWaterMark=high_water_mark)
        last = await exhaust(subscriber, stream)
        for waiting in (1, 2, 5, 31, 32, 33, 100):
            write(stream, waiting)
            await client.hear()
            assert subscriber.take() == []
            arriving = min(waiting, high_water_mark)
            expected = list(range(last + waiting - arriving + 1, last + waiting + 1))
            assert numbers(await subscriber.grant(arriving)) == expected
            last += waiting
        assert subscriber.end is None


@pytest.mark.parametrize("waiting", [1, 2, 100])
async def test_only_the_newest(waiting: int) -> None:
    hub, stream = hub_of()
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", overflow="latest", highWaterMark=50)
        last = await exhaust(subscriber, stream)
        write(stream, waiting)
        assert numbers(await subscriber.grant(waiting)) == [last + waiting]
        write(stream, 1)
        await client.hear()
        if waiting > 1:  # there is credit left
            assert numbers(subscriber.take()) == [last + waiting + 1]
        else:
            assert numbers(await subscriber.grant(1)) == [last + waiting + 1]


async def test_who_gives_a_little_credit_goes_on_from_there() -> None:
    """What is taken makes room: what waits is bounded each time a chunk is written."""
    hub, stream = hub_of()
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", highWaterMark=4)
        last = await exhaust(subscriber, stream)
        write(stream, 6)  # 3 4 5 6 wait
        assert numbers(await subscriber.grant(2)) == [last + 3, last + 4]
        write(stream, 2)  # 5 6 7 8
        assert numbers(await subscriber.grant(1)) == [last + 5]
        write(stream, 1)  # 6 7 8 9
        write(stream, 1)  # 7 8 9 10
        assert numbers(await subscriber.grant(100)) == [last + 7, last + 8, last + 9, last + 10]


@pytest.mark.parametrize("overflow", DROPPING)
async def test_the_end_comes_after_the_newest(overflow: Any) -> None:
    hub, stream = hub_of()
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", overflow=overflow, highWaterMark=2)
        last = await exhaust(subscriber, stream)
        write(stream, 10)
        stream.close()
        await client.hear()
        assert (subscriber.take(), subscriber.end) == ([], None)
        expected = [last + 9, last + 10] if overflow == "drop_oldest" else [last + 10]
        assert numbers(await subscriber.grant(len(expected) + 1)) == expected
        assert subscriber.end is not None
        assert subscriber.end["type"] == "stream-end"


async def test_one_burst_is_bounded_like_any_other() -> None:
    """Chunks that are written before the connection has had its turn wait too."""
    hub, stream = hub_of()
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", highWaterMark=10)
        write(stream, 30)
        await client.hear()
        assert numbers(subscriber.take()) == list(range(21, 31))


@pytest.mark.parametrize("overflow", DROPPING)
async def test_a_reader_counts_what_was_dropped(overflow: Any, caplog: pytest.LogCaptureFixture) -> None:
    hub, stream = hub_of()
    with caplog.at_level(logging.WARNING, "kkrpc_py"):
        async with linked({"streams": hub}) as (_, client):
            reader = kk.streams(client).subscribe("c", "x", overflow=overflow, high_water_mark=3)
            async with reader:
                write(stream, 1)
                assert await reader.receive() == 1
                assert reader.dropped == 0
                for _ in range(2):
                    before = reader.dropped
                    write(stream, 10)
                    last = stream.log.next - 1
                    expected = [last - 2, last - 1, last] if overflow == "drop_oldest" else [last]
                    assert await received(reader, len(expected)) == expected
                    assert reader.last_seq == last
                    assert reader.dropped - before == 10 - len(expected)
                assert reader.gaps == []
    # Once, however often it happens; and not for who asked for the newest alone.
    assert [record.message[:6] for record in caplog.records] == (
        ["DF0029"] if overflow == "drop_oldest" else []
    )


async def test_the_default_is_256() -> None:
    hub, stream = hub_of()
    async with scripted_client(hub) as client:
        for options in ([], [None], [{}], [{"overflow": "drop_oldest"}]):
            subscriber = await client.subscribe("c", "x", *options)
            await subscriber.grant(10_000)
            subscriber.take()
            last = stream.log.next - 1
            write(stream, 300)
            await client.hear()
            assert numbers(subscriber.take()) == list(range(last + 45, last + 301))
            await subscriber.cancel()


# --- replay -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["drop_oldest", "block", "error"])
async def test_what_is_replayed_does_not_count(overflow: Any) -> None:
    hub, stream = hub_of()
    write(stream, 200)
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", overflow=overflow, highWaterMark=2)
        assert numbers(subscriber.take()) == list(range(1, FIRST + 1))
        write(stream, 2)
        if overflow == "block":
            with pytest.raises(kk.WouldBlock):
                stream.write(203)
        assert numbers(await subscriber.grant(1000)) == list(range(FIRST + 1, 203))


async def test_nor_do_its_bytes() -> None:
    _, stream = hub_of(subscription_bytes=1000)
    for _ in range(9):
        stream.write("x" * 100)
    subscription = stream.subscribe(None, high_water_mark=100, overflow="error")
    for _ in range(9):
        stream.write("x" * 100)
    stream.close()
    assert len([chunk async for chunk in subscription]) == 1 + 18


async def test_passing_the_mark_drops_what_is_replayed_first() -> None:
    hub, stream = hub_of()
    write(stream, 200)
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", highWaterMark=2)
        assert numbers(subscriber.take()) == list(range(1, FIRST + 1))
        write(stream, 3)
        assert numbers(await subscriber.grant(1000)) == [202, 203]


async def test_latest_wants_nothing_of_the_past_but_the_newest() -> None:
    hub, stream = hub_of()
    write(stream, 200)
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", overflow="latest")
        assert subscriber.mark == {"next": 1, "epoch": stream.epoch}
        assert numbers(subscriber.take()) == [200]


# --- block ------------------------------------------------------------------------------------------


async def test_block_loses_nothing_and_holds_up_the_producer() -> None:
    hub, stream = hub_of()
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", overflow="block", highWaterMark=3)
        last = await exhaust(subscriber, stream)
        write(stream, 3)
        for _ in range(2):
            with pytest.raises(kk.WouldBlock, match="full"):
                stream.write("no room")
        assert stream.log.next == last + 4, "what there was no room for has no number"
        assert numbers(await subscriber.grant(1)) == [last + 1]
        write(stream, 1)
        with pytest.raises(kk.WouldBlock):
            stream.write("no room")
        assert numbers(await subscriber.grant(100)) == [last + 2, last + 3, last + 4]
        write(stream, 3)
        await client.hear()
        assert numbers(subscriber.take()) == [last + 5, last + 6, last + 7]


async def test_send_waits_for_room() -> None:
    hub, stream = hub_of()
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", overflow="block", highWaterMark=2)
        last = await exhaust(subscriber, stream)
        sent: list[int] = []

        async def send() -> None:
            for _ in range(10):
                await stream.send(stream.log.next)
                sent.append(stream.log.next - 1)

        async with anyio.create_task_group() as tg:
            tg.start_soon(send)
            await client.hear()
            assert sent == [last + 1, last + 2]
            assert numbers(await subscriber.grant(1)) == [last + 1]
            assert sent == [last + 1, last + 2, last + 3]
            assert numbers(await subscriber.grant(4)) == [last + 2, last + 3, last + 4, last + 5]
            assert len(sent) == 7
            assert numbers(await subscriber.grant(100)) == [last + 6, last + 7, last + 8, last + 9, last + 10]
        assert len(sent) == 10


async def test_many_who_send() -> None:
    """Each value goes out once, whoever has waited."""
    hub, stream = hub_of()
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", overflow="block", highWaterMark=1)
        last = await exhaust(subscriber, stream)

        async def send(value: int) -> None:
            await stream.send(value)

        async with anyio.create_task_group() as tg:
            for value in range(10):
                tg.start_soon(send, value)
            chunks = []
            for _ in range(10):
                chunks += await subscriber.grant(1)
        assert [number for number, _ in chunks] == list(range(last + 1, last + 11))
        assert sorted(value for _, value in chunks) == list(range(10))


@pytest.mark.parametrize("how", ["cancel", "disconnect", "the end", "an error"])
async def test_a_producer_is_freed(how: str) -> None:
    hub, stream = hub_of()
    happened: list[str] = []

    async def send() -> None:
        try:
            await stream.send("waits")
            happened.append("sent")
        except kk.StreamClosed:
            happened.append("closed")

    async with anyio.create_task_group() as tg:
        async with scripted_client(hub) as client:
            subscriber = await client.subscribe("c", "x", overflow="block", highWaterMark=1)
            await exhaust(subscriber, stream)
            write(stream, 1)
            tg.start_soon(send)
            tg.start_soon(send)
            await client.hear()
            assert happened == []
            if how == "cancel":
                await subscriber.cancel()
                assert happened == ["sent", "sent"]
            elif how == "disconnect":
                await client.peer.close()
                with anyio.fail_after(BOUND):
                    await until(lambda: len(happened) == 2)
                assert happened == ["sent", "sent"]
            else:
                stream.close() if how == "the end" else stream.error("failed")
                await client.hear()
                assert happened == ["closed", "closed"]
                assert len(await subscriber.grant(100)) == 1
                assert subscriber.end is not None


async def test_after_the_end_nobody_waits_for_room() -> None:
    hub, stream = hub_of()
    async with scripted_client(hub) as client:
        await exhaust(await client.subscribe("c", "x", overflow="block", highWaterMark=1), stream)
        write(stream, 1)
        with pytest.raises(kk.WouldBlock):
            stream.write(None)
        stream.close()
        with anyio.fail_after(BOUND):
            await stream.wait_room()


async def test_a_send_that_is_cancelled_while_it_waits() -> None:
    hub, stream = hub_of()
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", overflow="block", highWaterMark=1)
        last = await exhaust(subscriber, stream)
        write(stream, 1)
        with anyio.move_on_after(0.01) as scope:
            await stream.send("cancelled")
        assert scope.cancelled_caught
        assert numbers(await subscriber.grant(10)) == [last + 1]
        write(stream, 1)
        await client.hear()
        assert numbers(subscriber.take()) == [last + 2]


async def test_of_several_that_block_the_slowest_counts() -> None:
    hub, stream = hub_of()
    async with scripted_client(hub) as client:
        slow = await client.subscribe("c", "x", overflow="block", highWaterMark=2)
        slower = await client.subscribe("c", "x", overflow="block", highWaterMark=1)
        other = await client.subscribe("c", "x", overflow="drop_oldest", highWaterMark=1)
        await other.grant(1000)
        last = await exhaust(slow, stream)
        slower.take()
        other.take()
        write(stream, 1)
        with pytest.raises(kk.WouldBlock):
            stream.write("no room")
        assert numbers(await slow.grant(10)) == [last + 1]
        with pytest.raises(kk.WouldBlock):
            stream.write("no room")
        await slower.cancel()
        write(stream, 1)
        await client.hear()
        assert numbers(slow.take()) == [last + 2]
        assert numbers(other.take()) == [last + 1, last + 2]


async def test_a_lossless_stream_to_a_slow_reader() -> None:
    hub, stream = hub_of()
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x", overflow="block", high_water_mark=8)
        async with reader:
            got: list[int] = []

            async def read() -> None:
                async for value in reader:
                    got.append(value)
                    if len(got) % 100 == 0:
                        await checkpoint()

            async with anyio.create_task_group() as tg:
                tg.start_soon(read)
                for number in range(3000):
                    await stream.send(number)
                stream.close()
            assert got == list(range(3000))
            assert (reader.dropped, reader.gaps) == (0, [])


# --- error ------------------------------------------------------------------------------------------


async def test_error_ends_the_subscription_and_no_other() -> None:
    hub, stream = hub_of()
    async with scripted_client(hub) as client:
        slow = await client.subscribe("c", "x", overflow="error", highWaterMark=3)
        other = await client.subscribe("c", "x")
        await other.grant(10_000)
        last = await exhaust(slow, stream)
        write(stream, 3)
        assert numbers(await slow.grant(1)) == [last + 1]
        write(stream, 1)
        assert slow.end is None
        write(stream, 1)  # the fourth that waits
        await slow.grant(100)
        assert slow.take() == [], "what waits is thrown away"
        assert (slow.error["name"], slow.error["code"]) == ("StreamOverflow", "DF0029")
        assert "too slow" in slow.error["message"]
        assert stream.subscribers == 1
        assert not stream.signal.cancelled
        write(stream, 1)
        await client.hear()
        assert numbers(other.take())[-6:] == list(range(last + 1, last + 7))
        assert not stream.closed


async def test_the_mark_comes_before_the_error() -> None:
    """Also where the subscriber was too slow before anything could be sent (NST-5)."""
    hub, stream = hub_of()

    class API:
        async def burst(self) -> None:
            write(stream, 10)

    async with scripted_client(hub, api={"streams": hub, "api": API()}) as client:
        subscriber = Subscriber(client, "s")
        client.subscribers["s"] = subscriber
        options = {"overflow": "error", "highWaterMark": 2}
        await client.send(
            {
                "id": "s",
                "method": "streams.subscribe",
                "args": ["c", "x", options],
                "type": "request",
                "version": "json",
            },
            {"id": "b", "method": "api.burst", "args": [], "type": "request", "version": "json"},
        )
        assert subscriber.mark == {"next": 1, "epoch": stream.epoch}
        assert subscriber.chunks in ([], [[1, 1]], [[1, 1], [2, 2]])
        assert subscriber.error["name"] == "StreamOverflow"


async def test_a_reader_is_told_of_it() -> None:
    hub, stream = hub_of()
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x", overflow="error", high_water_mark=2)
        async with reader:
            write(stream, 2)
            assert await received(reader, 2) == [1, 2]
            write(stream, 3)
            for _ in range(2):
                with pytest.raises(kk.StreamOverflow) as overflow:
                    await reader.receive()
                assert overflow.value.code == "DF0029"
    assert stream.signal.cancelled


# --- bytes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["drop_oldest", "block", "error"])
async def test_what_waits_is_bounded_in_bytes(overflow: Any) -> None:
    hub, stream = hub_of(subscription_bytes=1000)
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", overflow=overflow, highWaterMark=1000)
        last = await exhaust(subscriber, stream)
        size = len(f'[{last + 1},"{"x" * 190}"]')
        fitting = 1000 // size
        count = fitting
        for _ in range(count):
            stream.write("x" * 190)
        if overflow == "block":
            stream.write("x" * 190)  # it looks at what waits, not at what would
            with pytest.raises(kk.WouldBlock):
                stream.write("x" * 190)
            assert [number for number, _ in await subscriber.grant(100)] == list(
                range(last + 1, last + count + 2)
            )
        elif overflow == "error":
            await subscriber.grant(1)
            assert subscriber.end is None
            stream.write("x" * 190)
            stream.write("x" * 190)
            await subscriber.grant(100)
            assert subscriber.error["name"] == "StreamOverflow"
        else:
            for _ in range(10):
                stream.write("x" * 190)
            kept = [number for number, _ in await subscriber.grant(100)]
            assert kept == list(range(last + count + 10 - fitting + 1, last + count + 11))


@pytest.mark.parametrize("overflow", ["drop_oldest", "latest", "block", "error"])
async def test_one_chunk_may_be_larger_than_that(overflow: Any) -> None:
    hub, stream = hub_of(subscription_bytes=1000)
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", overflow=overflow, highWaterMark=10)
        last = await exhaust(subscriber, stream)
        stream.write("x" * 5000)
        assert [number for number, _ in await subscriber.grant(1)] == [last + 1]
        stream.write("small")
        if overflow != "block":
            stream.write("x" * 5000)
            expected = [] if overflow == "error" else [last + 3]
            assert [number for number, _ in await subscriber.grant(5)] == expected
            assert (subscriber.end is not None) is (overflow == "error")
        else:
            assert [number for number, _ in await subscriber.grant(5)] == [last + 2]


async def test_credit_in_bytes_is_kept() -> None:
    """However small the chunks before them, large ones do not leave by the hundred."""
    hub, stream = hub_of()
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", highWaterMark=1000)
        await subscriber.grant(10_000, 0)
        for _ in range(20):
            write(stream, 50)
            await client.hear()
        subscriber.take()
        for _ in range(500):
            stream.write("x" * 10_000)
        await client.hear()
        sent = len(subscriber.take())
        assert 1 <= sent * 10_000 <= 256 * 1024 + 64 * 1024 + 20_000
        # And no more waits than may: the rest comes for bytes.
        assert len(await subscriber.grant(0, EVERYTHING)) == 500 - sent


# --- several ----------------------------------------------------------------------------------------


async def test_one_that_stalls_does_not_hold_up_the_others() -> None:
    hub, stream = hub_of()
    async with scripted_client(hub) as stalled, linked({"streams": hub}) as (_, client):
        for overflow in ("drop_oldest", "latest", "error"):
            await stalled.subscribe("c", "x", overflow=overflow, highWaterMark=4)
        reader = kk.streams(client).subscribe("c", "x", overflow="error", high_water_mark=64)
        async with reader:
            got: list[int] = []

            async def read() -> None:
                async for value in reader:
                    got.append(value)

            async with anyio.create_task_group() as tg:
                tg.start_soon(read)
                for _ in range(40):
                    write(stream, 50)
                    await all_blocked()
                stream.close()
            assert got == list(range(1, 2001))
            assert reader.dropped == 0


async def test_each_has_its_own_place_and_policy() -> None:
    hub, stream = hub_of()
    write(stream, 3)
    async with scripted_client(hub) as client:
        fast = await client.subscribe("c", "x", highWaterMark=100)
        assert numbers(await fast.grant(1000)) == [1, 2, 3]
        late = await client.subscribe("c", "x", after=2)
        new = await client.subscribe("c", "x", after=None)
        newest = await client.subscribe("c", "x", overflow="latest")
        marks = [each.mark["next"] for each in (fast, late, new, newest) if each.mark]
        assert marks == [1, 3, 4, 1]
        write(stream, 1)
        await client.hear()
        assert numbers(fast.take()) == [4]
        assert numbers(late.take()) == [3, 4]
        assert numbers(new.take()) == [4]
        assert numbers(newest.take()) == [3, 4]
        for _ in range(100):
            write(stream, 1)
            await all_blocked()
        await client.hear()
        assert numbers(fast.take()) == list(range(5, 105))
        assert numbers(late.take()) == list(range(5, 5 + CREDIT - 3))
        assert numbers(newest.take()) == list(range(5, 5 + CREDIT - 3))


# --- memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["drop_oldest", "latest", "error"])
async def test_memory_is_flat_against_one_that_stalls(overflow: Any) -> None:
    hub = kk.StreamHub()
    stream = hub.create("c", replay_window=10).start("x")
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", overflow=overflow, highWaterMark=100)
        await exhaust(subscriber, stream)
        kept: list[int] = []
        for _ in range(3):
            write(stream, 1000)
            await all_blocked()
            kept.append(sum(type(each) is Shared and each.writer is hub.writer for each in gc.get_objects()))
            assert len(stream.log) <= 100 + 32 + 1
        assert max(kept) <= 100 + 32 + 10, kept
        assert client.channel.connection.outbox.size == 0
        await subscriber.grant(10_000)


async def test_large_chunks_are_flat_too() -> None:
    hub = kk.StreamHub(limits=Limits(subscription_bytes=1 << 20))
    stream = hub.create("c", replay_window=0).start("x")
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", highWaterMark=10_000)
        await exhaust(subscriber, stream)
        for _ in range(200):
            stream.write("x" * 50_000)
            assert stream.log.size <= (1 << 20) + (1 << 18) + 50_100
        assert len(await subscriber.grant(1000)) == (1 << 20) // 50_005


async def test_a_stock_client_that_stops_reading() -> None:
    """No credit is agreed: what the connection takes is sent, and the rest waits here, up to its mark."""
    hub = kk.StreamHub()
    stream = hub.create("c", replay_window=0).start("x")
    async with scripted_client(hub, credit=False) as client:
        subscriber = await client.subscribe("c", "x", highWaterMark=50)
        for _ in range(3000):
            stream.write([stream.log.next, "x" * 1000])
            await checkpoint()
        await all_blocked()
        sent_at_most = 2 * client.channel.limits.send_high_water
        assert client.channel.connection.outbox.size <= sent_at_most
        assert len(stream.log) <= 50 + 32 + 1
        with anyio.fail_after(BOUND):
            while not subscriber.chunks or subscriber.chunks[-1][0] != 3000:
                await client.hear()
        found = [number for number, _ in subscriber.take()]
        assert found == sorted(set(found))
        assert found[-50:] == list(range(2951, 3001))


async def test_a_client_that_is_gone_costs_nothing() -> None:
    hub = kk.StreamHub()
    stream = hub.create("c", replay_window=0).start("x")
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", highWaterMark=1000)
        await exhaust(subscriber, stream)
        write(stream, 1000)
        assert len(stream.log) == 1000
        await client.peer.close()
        with anyio.fail_after(BOUND):
            await until(lambda: stream.subscribers == 0)
        assert (len(stream.log), stream.log.size) == (0, 0)


async def test_collected_by_name() -> None:
    """Dropping is told to whoever reads by iteration, as to who receives."""
    hub, stream = hub_of()
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x", high_water_mark=2)
        async with reader:
            write(stream, 10)
            stream.close()
            assert await collected(reader) == [9, 10]
            assert (reader.dropped, reader.last_seq) == (8, 10)


# --- who is gone ------------------------------------------------------------------------------------


async def test_who_is_gone_holds_up_nobody_any_more() -> None:
    """Not even for the moment in which its side of the connection is still served (CLS-2)."""
    hub = kk.StreamHub()
    stream = hub.create("c").start("x")
    limits = kk.Limits(finish_seconds=1000)
    ours, theirs = memory_byte_streams()
    async with kk.RPCChannel(ours, expose={"streams": hub}, hello=False, limits=limits):
        async with kk.RPCChannel(theirs) as client:
            reader = kk.streams(client).subscribe("c", "x", overflow="block", high_water_mark=2)
            await reader.__aenter__()
            with pytest.raises(kk.WouldBlock):
                for number in range(1000):
                    stream.write(number)
            await client.aclose()
        with anyio.fail_after(BOUND):
            await stream.signal
            assert stream.subscribers == 0
            await stream.send("there is room")


@pytest.mark.parametrize("overflow", ["drop_oldest", "latest", "block", "error"])
async def test_who_sends_no_more_and_reads_on_gets_nothing_wrong(overflow: str) -> None:
    """A peer that has closed its sending side is served for a moment: each number comes with its value."""
    hub = kk.StreamHub()
    stream = hub.create("c", replay_window=0).start("x")
    ours, theirs = memory_byte_streams()
    limits = kk.Limits(finish_seconds=0.2)
    sent: list[bytes] = []

    async def read() -> None:
        with contextlib.suppress(anyio.EndOfStream):
            while True:
                sent.append(await theirs.receive())

    with anyio.fail_after(BOUND):
        async with (
            anyio.create_task_group() as tasks,
            kk.RPCChannel(ours, expose={"streams": hub}, hello=False, limits=limits) as server,
        ):
            tasks.start_soon(read)
            call = {"id": "1", "method": "streams.subscribe", "type": "request"}
            options = {"overflow": overflow, "highWaterMark": 2}
            await theirs.send(json.dumps(call | {"args": ["c", "x", options]}).encode() + b"\n")
            await until(lambda: stream.subscribers == 1)
            stream.write(1)
            await theirs.send_eof()
            await until(lambda: stream.subscribers == 0)
            for number in range(2, 200):
                stream.write(number)
                if number % 3 == 0:
                    await checkpoint()
            await server.wait_closed()
    messages = [json.loads(line) for line in b"".join(sent).splitlines() if line]
    assert all(message["type"] != "stream-end" for message in messages)
    chunks = [m["args"]["value"] for m in messages if m["type"] == "stream-chunk"][1:]
    numbers = [number for number, value in chunks if number == value]
    assert len(numbers) == len(chunks)
    assert numbers or overflow == "error"
    assert numbers == sorted(set(numbers))
    await theirs.aclose()
