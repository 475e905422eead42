"""What a peer, or a handler, may take up: memory, threads, the log, the turns of the loop."""

from __future__ import annotations

import logging
import threading
from typing import Any

import anyio
import cbor2
import pytest

import kkrpc_py as kk
from tests.channel.harness import BOUND, linked, threads_gone
from tests.channel.peer import ack, cancel, cbor_frame, chunk, hello, opened, request, result, scripted, until

pytestmark = pytest.mark.anyio


class API:
    async def add(self, a: int, b: int) -> int:
        return a + b

    async def park(self, *args: Any) -> None:
        await anyio.sleep_forever()

    async def large(self) -> Any:
        while True:
            yield "x" * 200_000


async def test_the_arguments_of_running_calls_are_bounded_in_bytes() -> None:
    """CALL-7: one call more is refused; those that end make room."""
    async with scripted(API(), limits=kk.Limits(call_bytes=300_000)) as (channel, peer):
        await peer.exchange(hello())
        await peer.send(*(request(i, "park", "x" * 100_000) for i in range(3)))
        refused = await peer.next()
        assert refused["id"] == 2
        assert refused["args"]["error"]["name"] == "LimitExceeded"
        assert set(channel.connection.incoming) == {0, 1}
        await peer.exchange(cancel(0), cancel(1))
        assert await peer.exchange(request(3, "add", 1, 2)) == [result(3, 3)]
        assert channel.connection._incoming_bytes == 0


async def test_a_cancelled_def_that_had_not_begun_is_forgotten() -> None:
    """A peer that blocks the threads, then calls and cancels, leaves nothing in their queue."""
    gate = threading.Event()
    ran = 0

    class Threaded(API):
        def block(self) -> None:
            gate.wait(BOUND)

        def work(self, text: str) -> None:
            nonlocal ran
            ran += 1

    before = threading.enumerate()
    try:
        async with scripted(Threaded(), limits=kk.Limits(threads=1)) as (channel, peer):
            await peer.exchange(hello())
            await peer.send(request("block", "block"))
            await until(lambda: channel._threads._count == 1 and not channel._threads._jobs)
            await peer.send(*(request(i, "work", "text") for i in range(20)))
            await until(lambda: len(channel._threads._jobs) == 20)
            await peer.send(*(cancel(i) for i in range(20)))
            for _ in range(20):
                await peer.next()
            assert not channel._threads._jobs
            gate.set()
            await peer.next()
            assert ran == 0
    finally:
        gate.set()
    await threads_gone(before)


async def test_open_sync_streams_leave_threads_for_plain_calls() -> None:
    """Each keeps a thread for its life, but not one of those that run calls."""

    class Sync:
        def endless(self) -> Any:
            while True:
                yield 1

        def plain(self) -> int:
            return 1

    async with linked(Sync(), limits=kk.Limits(threads=2)) as (_, client):
        streams = [await client.remote().endless() for _ in range(2)]
        for stream in streams:
            assert await anext(stream) == 1
        assert await client.remote().plain() == 1
        for stream in streams:
            await stream.cancel()


async def test_acknowledgements_toward_a_congested_stream_pile_up_nothing() -> None:
    async with scripted(API()) as (channel, peer):
        await peer.exchange(hello())
        await peer.send(request(1, "large"))
        assert await peer.next() == opened(1)
        await peer.send(ack(1, 100, 100_000_000))
        await until(lambda: channel.congested)
        await peer.send(*(ack(1, 0, 0) for _ in range(500)))
        await anyio.wait_all_tasks_blocked()
        assert len(channel._writer._wakes) <= 1
        assert not channel._writer._queue
        await peer.close()


async def test_a_producer_that_is_cancelled_while_it_waits_for_room_is_forgotten() -> None:
    async with scripted(API()) as (channel, peer):
        await peer.send(request("first", "large"))
        await until(lambda: channel.congested)
        await peer.send(*(request(number, "large") for number in range(50)))
        await until(lambda: len(channel._writer._wakes) > 40)
        await peer.send(*(cancel(number) for number in range(50)))
        await until(lambda: len(channel.connection.incoming) == 1)
        assert len(channel._writer._wakes) <= 1
        await peer.close()


async def test_a_consumer_of_values_that_lie_there_can_be_cancelled() -> None:
    """And lets the other tasks run, though it never waits for anything."""
    async with scripted() as (channel, peer), anyio.create_task_group() as tg:
        streams: list[kk.StreamCall[int]] = []

        async def call() -> None:
            streams.append(await channel.remote().values())

        tg.start_soon(call)
        id = (await peer.next())["id"]
        await peer.send(opened(id))
        await until(lambda: streams)
        await peer.send(*(chunk(id, 1) for _ in range(8000)))
        await until(lambda: streams[0].received == 8000)
        read = 0
        with anyio.CancelScope() as scope:
            scope.cancel()
            async for _ in streams[0]:
                read += 1
        assert scope.cancelled_caught
        assert read < 3000


@pytest.mark.parametrize("protocol", ["__hash__", "__eq__"])
async def test_an_exposed_object_with_methods_of_its_own_that_fail(protocol: str) -> None:
    """Looking it up neither hashes nor compares it; whatever fails, the channel lives on."""

    class Odd:
        async def __call__(self) -> int:
            return 1

    def fail(*args: Any) -> Any:
        raise RuntimeError("no")

    setattr(Odd, protocol, fail)
    async with scripted({"odd": Odd(), "add": API().add}) as (channel, peer):
        assert await peer.exchange(request(1, "odd")) == [result(1, 1)]
        assert await peer.exchange(request(2, "add", 1, 2)) == [result(2, 3)]
        assert not channel.closed


async def test_the_log_of_violations_grows_by_powers_of_ten(caplog: pytest.LogCaptureFixture) -> None:
    """Also where many come in one read: the first, the tenth, the hundredth."""
    async with scripted(API()) as (channel, peer):
        await peer.send(*(chunk("unknown", 1) for _ in range(150)))
        await until(lambda: channel.connection.violations == 150)
        warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert [text.partition("(")[2].partition(" ")[0] for text in warnings] == ["1", "10", "100"]


async def test_closing_with_a_stream_open_accuses_the_peer_of_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What the peer sends before it knows is for an id that is forgotten here, and no violation."""
    async with scripted() as (channel, peer), anyio.create_task_group() as tg:

        async def call(*args: Any) -> None:
            with pytest.raises(kk.ChannelClosed):
                await (await channel.remote().values(*args))

        tg.start_soon(call)
        id = (await peer.next())["id"]
        await peer.send(opened(id))
        tg.start_soon(call, "x" * 500_000)  # closing waits until it is written
        await anyio.wait_all_tasks_blocked()
        tg.start_soon(channel.aclose)
        await until(lambda: channel.closed)
        await peer.send(chunk(id, 1))
        await until(lambda: channel.connection.violations == 1)
        await peer.close()
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_an_internal_error_tells_the_peer_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """ERR-5: no text, no cause and no stack of it."""
    async with scripted(API(), tracebacks=True) as (channel, peer):

        def respond(*args: Any) -> None:
            raise KeyError("a secret")

        monkeypatch.setattr(channel.connection, "respond", respond)
        (answer,) = await peer.exchange(request(1, "add", 1, 2))
        assert answer["args"]["error"] == {"name": "InternalError", "message": "internal error"}
    assert "a secret" in caplog.text


async def test_an_item_that_ends_without_a_line_feed_behind_a_cbor_frame() -> None:
    """On an object stream an item is whole, whatever its last frame is."""

    class Items:
        def __init__(self) -> None:
            self.to_channel, self._incoming = anyio.create_memory_object_stream[bytes](10)
            self.answers: list[bytes] = []

        async def receive(self) -> bytes:
            return await self._incoming.receive()

        async def send(self, item: bytes) -> None:
            self.answers.append(bytes(item))

        async def aclose(self) -> None:
            self._incoming.close()
            self.to_channel.close()

    items = Items()
    with anyio.fail_after(BOUND):
        async with kk.RPCChannel(items, expose=API(), hello=False):
            line = b'{"id":"2","method":"add","args":[3,4],"type":"request"}'
            await items.to_channel.send(cbor_frame(cbor2.dumps(request("1", "add", 1, 2))) + line)
            await until(lambda: b"".join(items.answers).count(b"result") == 2)


async def test_those_who_wait_for_room_are_woken_a_few_at_a_time() -> None:
    """Who finds no room any more goes back: those are some tens a message, not all that wait."""
    woken = 0
    async with scripted(limits=kk.Limits(send_high_water=1000)) as (channel, peer):
        changed = channel._writer.room_changed

        async def room_changed() -> None:
            nonlocal woken
            await changed()
            woken += 1

        channel._writer.room_changed = room_changed  # type: ignore[method-assign]  # to see each wait

        async def call() -> None:
            await channel.remote().take("x" * 5000)

        async with anyio.create_task_group() as tg:
            for _ in range(300):
                tg.start_soon(call)
            for _ in range(300):
                await peer.send(result((await peer.next())["id"], None))
        assert woken < 300 * 100


async def test_a_batch_of_any_length_is_read() -> None:
    """BAT-2: more than the consumer reads in one turn."""
    async with scripted() as (channel, peer):
        values: list[int] = []

        async def consume() -> None:
            async for value in channel.remote().numbers():
                values.append(value)

        async with anyio.create_task_group() as tg:
            tg.start_soon(consume)
            asked = await peer.next()
            await peer.send(opened(asked["id"]))
            for _ in range(2):
                args = {"values": list(range(3000))}
                await peer.send({"id": asked["id"], "method": "", "args": args, "type": "stream-chunk"})
            await peer.send({"id": asked["id"], "method": "", "args": {}, "type": "stream-end"})
        assert values == [*range(3000), *range(3000)]
