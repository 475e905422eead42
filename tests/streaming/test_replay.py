"""Who comes late, or comes back: what is replayed, what is told to be gone, and what an end leaves behind."""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from kkrpc_py.limits import Limits
from kkrpc_py.streaming.subscription import Subscription
from kkrpc_py.wire.shared import Shared
from tests.channel.harness import BOUND, linked, until, without_collector
from tests.streaming.scripts import all_blocked, collected, received, scripted_client

pytestmark = pytest.mark.anyio


def write(stream: kk.OutboundStream[Any], count: int) -> None:
    """So many chunks, each with its number as value."""
    for _ in range(count):
        stream.write(stream.log.next)


# --- the window -------------------------------------------------------------------------------------


async def test_the_newest_is_kept_however_large_it_is() -> None:
    hub = kk.StreamHub(limits=Limits(subscription_bytes=100))
    stream = hub.create("c").start("x")
    for letter in "ab":
        stream.write(letter * 200)
    stream.close()
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x")
        assert await collected(reader) == ["b" * 200]
        assert [(gap.first, gap.last) for gap in reader.gaps] == [(1, 1)]


async def test_every_window_and_every_place() -> None:
    hub = kk.StreamHub()
    async with linked({"streams": hub}) as (_, client):
        streams = kk.streams(client)
        for window, written in itertools.product((0, 1, 2, 5), range(7)):
            chat = hub.create("c", replay_window=window, closed_stream_retention=0)
            stream = chat.start("x")
            write(stream, written)
            kept = list(range(written + 1))[1:][-window:] if window else []
            for after in (None, *range(written + 3)):
                reader = streams.subscribe("c", "x", after=after)
                async with reader:
                    stream_next = stream.log.next
                    wanted = 0 if after is not None and after > written else after
                    expected = [] if wanted is None else [number for number in kept if number > wanted]
                    assert await received(reader, len(expected)) == expected
                    write(stream, 1)
                    assert await reader.receive() == stream_next
                    first = expected[0] if expected else stream_next
                    gaps = [] if after is None else [(wanted + 1, first - 1)] if first > wanted + 1 else []
                    if after is not None and after > written:  # it has not got so far: it began anew
                        gaps = [(1, first - 1)]
                        assert reader.gaps[0].restarted
                    assert [(gap.first, gap.last) for gap in reader.gaps] == gaps, (window, written, after)
                    assert (reader.dropped, reader.last_seq) == (0, stream_next)
                written += 1
                kept = list(range(written + 1))[1:][-window:] if window else []
            chat.close()


async def test_what_is_kept_for_somebody_slow_is_not_replayed() -> None:
    hub = kk.StreamHub()
    stream = hub.create("c", replay_window=2).start("x")
    async with scripted_client(hub) as client:
        slow = await client.subscribe("c", "x", highWaterMark=1000)
        write(stream, 200)
        await client.hear()
        assert len(stream.log) > 100
        late = await client.subscribe("c", "x")
        assert late.mark == {"next": 199, "epoch": stream.epoch}
        assert late.take() == [[199, 199], [200, 200]]
        assert len(await slow.grant(1000)) == 200


async def test_the_window_is_kept_whoever_reads() -> None:
    """And no more than that, whether there are subscribers or not."""
    hub = kk.StreamHub()
    stream = hub.create("c", replay_window=10).start("x")
    async with linked({"streams": hub}) as (_, client):
        write(stream, 1000)
        assert 10 <= len(stream.log) <= 10 + 32 + 1
        reader = kk.streams(client).subscribe("c", "x", after=None)
        async with reader:
            for _ in range(100):
                write(stream, 5)
                assert len(await received(reader, 5)) == 5
                assert 10 <= len(stream.log) <= 10 + 32 + 5 + 1
        assert len(stream.log) == 10
        stream.close()
        assert len(stream.log) == 10
        assert len(await collected(kk.streams(client).subscribe("c", "x"))) == 10


async def test_the_default_window_is_256() -> None:
    hub = kk.StreamHub()
    stream = hub.create("c").start("x")
    write(stream, 300)
    stream.close()
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x")
        assert await collected(reader) == list(range(45, 301))
        assert reader.gaps == [kk.Gap(1, 44)]


# --- the epoch --------------------------------------------------------------------------------------


async def test_a_number_means_something_within_its_epoch() -> None:
    hub = kk.StreamHub()
    chat = hub.create("c")
    stream = chat.start("x")
    write(stream, 5)
    async with scripted_client(hub) as client:
        for options, expected in (
            ({"after": 3}, [4, 5]),
            ({"after": 3, "epoch": stream.epoch}, [4, 5]),
            ({"after": 3, "epoch": None}, [4, 5]),
            ({"after": 3, "epoch": "another"}, [1, 2, 3, 4, 5]),
            ({"after": 3, "epoch": ""}, [1, 2, 3, 4, 5]),
            ({"after": 5, "epoch": stream.epoch}, []),
            ({"after": 6, "epoch": stream.epoch}, [1, 2, 3, 4, 5]),
            ({"after": None, "epoch": "another"}, []),
            ({"epoch": "another"}, [1, 2, 3, 4, 5]),
        ):
            subscriber = await client.subscribe("c", "x", options)
            assert subscriber.mark == {"next": expected[0] if expected else 6, "epoch": stream.epoch}, options
            assert [number for number, _ in subscriber.take()] == expected


async def test_an_id_that_is_started_again_is_another_stream() -> None:
    hub = kk.StreamHub()
    chat = hub.create("c")
    epochs = set()
    async with linked({"streams": hub}) as (_, client):
        for run in range(3):
            stream = chat.start("x")
            stream.write(run)
            stream.close()
            reader = kk.streams(client).subscribe("c", "x")
            assert await collected(reader) == [run]
            assert (reader.last_seq, reader.epoch) == (1, stream.epoch)
            epochs.add(stream.epoch)
    assert len(epochs) == 3


async def test_who_reads_the_ended_one_reads_it_to_its_end() -> None:
    hub = kk.StreamHub()
    chat = hub.create("c", closed_stream_retention=0)
    first = chat.start("x")
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x", high_water_mark=2000)
        async with reader:
            write(first, 1000)
            first.close()
            assert chat.ids() == []
            second = chat.start("x")
            second.write("of the second")
            assert await collected(reader) == list(range(1, 1001))
        async with kk.streams(client).subscribe("c", "x") as other:
            assert await other.receive() == "of the second"
        assert (first.subscribers, second.subscribers) == (0, 0)


# --- gaps -------------------------------------------------------------------------------------------


async def test_a_gap_is_told_before_what_follows_it() -> None:
    hub = kk.StreamHub()
    stream = hub.create("c", replay_window=2).start("x")
    write(stream, 10)
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x", after=3)
        assert reader.gaps == []
        async with reader:
            assert await reader.receive() == 9
            assert reader.gaps == [kk.Gap(4, 8)]
            assert not reader.gaps[0].restarted
            assert await reader.receive() == 10
            assert (reader.gaps, reader.dropped) == ([kk.Gap(4, 8)], 0)


@pytest.mark.parametrize("surface", ["receive", "iterate"])
async def test_a_gap_as_an_error(surface: str) -> None:
    hub = kk.StreamHub()
    stream = hub.create("c", replay_window=2).start("x")
    write(stream, 10)
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x", on_gap="error")
        if surface == "iterate":
            with pytest.raises(kk.StreamGap) as gap:
                await collected(reader)
            assert (gap.value.first, gap.value.last, gap.value.code) == (1, 8, None)
            await until(lambda: stream.subscribers == 0)
            assert reader.gaps == [kk.Gap(1, 8)]
        else:
            with pytest.raises(kk.StreamGap, match="1 to 8"):
                await reader.receive()
            # It is told once, and what follows can still be read.
            assert await received(reader, 2) == [9, 10]
            await reader.aclose()


async def test_no_gap_is_no_error() -> None:
    hub = kk.StreamHub()
    stream = hub.create("c", replay_window=2).start("x")
    write(stream, 10)
    stream.close()
    async with linked({"streams": hub}) as (_, client):
        for after, expected in ((8, [9, 10]), (9, [10]), (10, []), (None, [])):
            reader = kk.streams(client).subscribe("c", "x", after=after, on_gap="error")
            assert await collected(reader) == expected
            assert reader.gaps == []


async def test_only_what_comes_from_now_on() -> None:
    hub = kk.StreamHub()
    stream = hub.create("c").start("x")
    write(stream, 10)
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x", after=None, on_gap="error")
        async with reader:
            write(stream, 2)
            assert await received(reader, 2) == [11, 12]
            assert (reader.gaps, reader.dropped, reader.last_seq) == ([], 0, 12)


# --- the end ----------------------------------------------------------------------------------------


async def test_who_comes_after_the_end_gets_the_same_end() -> None:
    for end in ("close", "error"):
        hub = kk.StreamHub()
        stream = hub.create("c", replay_window=3).start("x")
        write(stream, 5)
        stream.close() if end == "close" else stream.error(LookupError("gone wrong"))
        async with scripted_client(hub) as client:
            for after, expected in ((0, [3, 4, 5]), (4, [5]), (5, []), (None, [])):
                subscriber = await client.subscribe("c", "x", after=after)
                assert subscriber.mark is not None
                assert subscriber.mark["next"] == (expected[0] if expected else 6)
                assert [number for number, _ in subscriber.take()] == expected
                assert subscriber.end is not None
                if end == "close":
                    assert (subscriber.end["type"], subscriber.end["args"]) == ("stream-end", {})
                else:
                    assert subscriber.end["type"] == "stream-error"
                    assert (subscriber.error["name"], subscriber.error["message"]) == (
                        "LookupError",
                        "gone wrong",
                    )
            assert stream.subscribers == 0
            hub.create("d").close()
            hub.get("c").close()  # type: ignore[union-attr]  # it is there
            assert (await client.subscribe("c", "x")).refusal is not None


async def test_a_stream_that_is_only_an_end() -> None:
    hub = kk.StreamHub()
    hub.create("c").start("x").close()
    async with linked({"streams": hub}) as (_, client):
        assert await collected(kk.streams(client).subscribe("c", "x")) == []
        with pytest.raises(anyio.EndOfStream):
            await kk.streams(client).subscribe("c", "x", overflow="latest").receive()


async def test_closing_the_channel_ends_its_streams() -> None:
    hub = kk.StreamHub()
    chat = hub.create("c")
    streams = {id: chat.start(id) for id in ("a", "b", "ended")}
    streams["ended"].error("earlier")
    async with linked({"streams": hub}) as (_, client):
        readers = {id: kk.streams(client).subscribe("c", id) for id in streams}
        for reader in readers.values():
            await reader.__aenter__()
        streams["a"].write("last")
        chat.close()
        assert await collected(readers["a"]) == ["last"]
        assert await collected(readers["b"]) == []
        with pytest.raises(kk.RemoteError, match="earlier"):
            await collected(readers["ended"])
        with pytest.raises(kk.UnknownStream):
            await collected(kk.streams(client).subscribe("c", "a"))
        assert hub.names() == []
        # The name is free, and what is made under it is something else.
        assert hub.create("c").ids() == []


# --- what is left -----------------------------------------------------------------------------------


def alive() -> tuple[int, int]:
    """Subscriptions and chunks that there are."""
    # By identity: classes of other tests have ideas of their own of what they equal.
    kinds = [type(each) for each in gc.get_objects()]
    return sum(kind is Subscription for kind in kinds), sum(kind is Shared for kind in kinds)


@pytest.mark.parametrize("how", ["read to the end", "cancelled", "dropped", "disconnected", "failed"])
async def test_nothing_is_left_of_a_subscription(how: str) -> None:
    hub = kk.StreamHub()
    chat = hub.create("c", replay_window=0)
    stream = chat.start("x")
    with without_collector():
        before = alive()
        async with linked({"streams": hub}, quiet=False, limits=Limits(finish_seconds=0.01)) as (_, client):
            reader: Any = kk.streams(client).subscribe("c", "x")
            await reader.__aenter__()
            kept = weakref.ref(reader)
            write(stream, 10)
            assert await received(reader, 3) == [1, 2, 3]
            if how == "read to the end":
                stream.close()
                assert await received(reader, 7) == [4, 5, 6, 7, 8, 9, 10]
                with pytest.raises(anyio.EndOfStream):
                    await reader.receive()
            elif how == "failed":
                stream.error("failed")
                await received(reader, 7)
                with pytest.raises(kk.RemoteError):
                    await reader.receive()
            elif how == "cancelled":
                await reader.aclose()
            elif how == "disconnected":
                await client.aclose()
            del reader
            assert kept() is None
            with anyio.fail_after(BOUND):
                await until(lambda: stream.subscribers == 0)
            await all_blocked()
            assert (len(stream.log), stream._parked, stream._blocking) == (
                0,
                type(stream._parked)(),
                type(stream._blocking)(),
            )
        await all_blocked()
        assert alive() == before


async def test_nothing_is_left_of_a_stream() -> None:
    hub = kk.StreamHub()
    with without_collector():
        chat = hub.create("c", closed_stream_retention=0)
        kept = []
        async with linked({"streams": hub}) as (_, client):
            for end in ("close", "error", "pipe"):
                stream: Any = chat.start("x")
                kept.append(weakref.ref(stream))
                async with kk.streams(client).subscribe("c", "x") as reader:
                    write(stream, 3)
                    assert await received(reader, 3) == [1, 2, 3]
                    if end == "close":
                        stream.close()
                    elif end == "error":
                        try:
                            raise ValueError("its traceback holds a frame that holds the stream")
                        except ValueError as exc:
                            stream.error(exc)
                    else:
                        await stream.aclose()
                del stream, reader
                await until(lambda: kept[-1]() is None)
        assert chat.ids() == []
        assert not chat._call_off


async def test_nothing_is_left_of_hubs_and_channels() -> None:
    with without_collector():
        hub: Any = kk.StreamHub()
        chat: Any = hub.create("c", closed_stream_retention=0)
        stream: Any = chat.start("x")
        kept = [weakref.ref(hub), weakref.ref(chat), weakref.ref(stream)]
        async with linked({"streams": hub}) as (server, client):
            async with kk.streams(client).subscribe("c", "x") as reader:
                stream.write(1)
                assert await reader.receive() == 1
            assert hub.channels == [server]
        assert hub.channels == []
        del reader, server, client
        stream.close()
        chat.close()
        del stream
        assert kept[2]() is None
        del chat
        assert kept[1]() is None
        del hub
    gc.collect()  # a hub and what its peers see of it know each other
    assert kept[0]() is None


async def test_channels_that_have_gone_are_not_kept() -> None:
    hub = kk.StreamHub()
    for _ in range(3):
        async with linked({"streams": hub}) as (server, _):
            assert hub.channels == [server]
            kept = weakref.ref(server)
        del server, _
        gc.collect()
        assert kept() is None
    assert len(hub._paths) == 0
