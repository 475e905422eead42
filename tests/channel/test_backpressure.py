"""What bounds memory: credit, the writer's high-water mark, the buffer that stands in for credit."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from kkrpc_py.channel.stream import StreamReceiver
from kkrpc_py.core.credit import MAX_CHUNKS
from kkrpc_py.transports.memory import memory_byte_streams
from tests.channel.harness import BOUND, Log, linked, until
from tests.channel.peer import hello, opened, request, result, scripted

pytestmark = pytest.mark.anyio

KIB = 1024


class Counting:
    """Producers that never wait by themselves and count how far they got."""

    def __init__(self, value: Any = 0) -> None:
        self.value = value
        self.produced = 0
        self.closed = 0

    async def endless(self) -> Any:
        try:
            while True:
                self.produced += 1
                yield self.value
        finally:
            self.closed += 1

    def sync(self) -> Any:
        try:
            while True:
                self.produced += 1
                yield self.value
        finally:
            self.closed += 1

    async def sink(self, sink: kk.StreamSink[Any]) -> None:
        try:
            while True:
                self.produced += 1
                await sink.send(self.value)
        finally:
            self.closed += 1

    async def finite(self, n: int) -> Any:
        for i in range(n):
            self.produced += 1
            yield i

    async def add(self, a: int, b: int) -> int:
        return a + b


def unread(stream: kk.StreamCall[Any]) -> int:
    """Bytes of frames that lie here and that nobody has read."""
    receiver: StreamReceiver = stream._receiver
    held = receiver._held[1] if receiver._held is not None else 0
    return held + sum(size for _, size in receiver._frames or ())


async def stalled(api: Counting) -> int:
    """What was produced by the time nothing moves any more."""
    before = -1
    while before != api.produced:
        before = api.produced
        await anyio.wait_all_tasks_blocked()
        await anyio.sleep(0.02)  # a producing thread is no task
    return before


@pytest.mark.parametrize("kind", ["endless", "sync", "sink"])
@pytest.mark.parametrize("size", [1, 1000, 100 * KIB], ids=["small", "middle", "large"])
async def test_a_consumer_that_does_not_read_stops_the_producer(kind: str, size: int) -> None:
    """CRD-1, CRD-3: at most 64 chunks and 256 KiB, one frame over, and what a thread is ahead."""
    api = Counting("x" * size)
    async with linked(api) as (_, client):
        stream = await client.remote()[kind]()
        produced = await stalled(api)
        ahead = 300 if kind == "sync" else 2
        assert produced <= 64 + ahead
        assert stream.received <= 64
        assert unread(stream) <= 256 * KIB + 64 * KIB + size
        assert await client.remote().add(1, 1) == 2
        await stream.cancel()
        await until(lambda: api.closed == 1)


@pytest.mark.parametrize("kind", ["endless", "sync", "sink"])
@pytest.mark.parametrize("size", [1, 1000, 100 * KIB], ids=["small", "middle", "large"])
async def test_a_consumer_that_stops_later(kind: str, size: int) -> None:
    """CRD-5: windows have grown by then; what lies unread stays below the budget and one frame."""
    budget = 512 * KIB
    api = Counting("x" * size)
    async with linked(api, limits=kk.Limits(stream_buffer=budget)) as (_, client):
        stream = await client.remote()[kind]()
        most = 0
        for _ in range(300 if size > KIB else 20_000):
            await anext(stream)
            most = max(most, unread(stream))
        taken = 300 if size > KIB else 20_000
        await stalled(api)
        most = max(most, unread(stream))
        assert most <= budget + 64 * KIB + size
        assert stream.received - taken <= MAX_CHUNKS
        await stream.cancel()


async def test_a_slow_consumer_holds_up_nobody_else() -> None:
    api = Counting("x" * 10_000)
    async with linked(api) as (_, client):
        slow = [await client.remote().endless() for _ in range(50)]
        await stalled(api)
        assert sum(map(unread, slow)) <= 50 * (256 * KIB + 64 * KIB + 10_000)
        assert [v async for v in client.remote().finite(10_000)] == list(range(10_000))
        assert await client.remote().add(1, 1) == 2
        for stream in slow:
            await stream.cancel()


async def test_a_slow_consumer_gets_everything() -> None:
    api = Counting()
    async with linked(api) as (_, client):
        seen = []
        async for value in client.remote().finite(3000):
            seen.append(value)
            if value % 100 == 0:
                await anyio.wait_all_tasks_blocked()
        assert seen == list(range(3000))


async def test_values_larger_than_the_whole_window() -> None:
    """CRD-8: one frame may overdraw; then it is granted enough again."""

    class Large:
        async def large(self) -> Any:
            for i in range(10):
                yield str(i) * 700_000

    async with linked(Large(), limits=kk.Limits(stream_buffer=300 * KIB)) as (_, client):
        seen = []
        async for value in client.remote().large():
            seen.append((value[0], len(value)))
            await anyio.wait_all_tasks_blocked()
        assert seen == [(str(i), 700_000) for i in range(10)]


async def test_a_generator_that_never_awaits_does_not_starve_the_loop() -> None:
    """STR-10: others' turns come while it runs, with a consumer that keeps up."""
    api = Counting()
    async with linked(api) as (_, client):
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        async with anyio.create_task_group() as tg:
            tg.start_soon(count_turns)
            seen = 0
            async for _ in client.remote().endless():
                seen += 1
                if seen == 50_000:
                    break
            tg.cancel_scope.cancel()
        assert turns >= 50_000 // 2048
        await until(lambda: api.closed == 1)


async def test_a_generator_that_never_awaits_toward_a_peer_without_credit() -> None:
    """Nothing grants, nothing waits: the writer's high-water mark bounds memory, and the loop turns."""
    with anyio.fail_after(BOUND):
        ours, theirs = memory_byte_streams()
        api = Counting("x" * 100)
        limits = kk.Limits(send_high_water=50_000, drain_seconds=0.1)
        async with kk.RPCChannel(ours, expose=api, hello=False, limits=limits) as server:
            await theirs.send(b'{"id":"1","method":"endless","args":[],"type":"request"}\n')
            await stalled(api)
            assert server.connection.outbox.size <= 2 * 50_000
            assert api.produced <= (2 * 50_000 + 2 * 256 * KIB + 64 * KIB) // 100
            received = 0
            while received < 2_000_000:
                received += len(await theirs.receive())
            await stalled(api)
            assert server.connection.outbox.size <= 2 * 50_000
            await theirs.send(b'{"id":"1","args":{},"type":"stream-cancel"}\n')
            with anyio.move_on_after(5):
                while not api.closed:
                    await theirs.receive()
            assert api.closed == 1
        await theirs.aclose()


async def test_results_wait_above_the_high_water_mark() -> None:
    """Handlers that return large values do not fill memory where the peer does not read."""
    with anyio.fail_after(BOUND):
        ours, theirs = memory_byte_streams()
        log = Log()

        class Big:
            async def big(self) -> str:
                log("made")
                return "x" * 100_000

        limits = kk.Limits(send_high_water=300_000, drain_seconds=0.1)
        async with kk.RPCChannel(ours, expose=Big(), hello=False, limits=limits) as server:
            for i in range(100):
                await theirs.send(b'{"id":"%d","method":"big","args":[],"type":"request"}\n' % i)
            await anyio.wait_all_tasks_blocked()
            assert server.connection.outbox.size <= 300_000 + 100_100
            received = 0
            while received < 100 * 100_000:
                received += len(await theirs.receive())
            await until(lambda: not server.connection.incoming)
        await theirs.aclose()


async def test_calls_wait_above_the_high_water_mark() -> None:
    with anyio.fail_after(BOUND):
        ours, theirs = memory_byte_streams()
        limits = kk.Limits(send_high_water=300_000, drain_seconds=0.1)
        async with kk.RPCChannel(ours, limits=limits) as channel:

            async def call() -> None:
                with pytest.raises(kk.ChannelClosed):
                    await channel.remote().take("x" * 100_000)

            async with anyio.create_task_group() as tg:
                for _ in range(100):
                    tg.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                assert channel.connection.outbox.size <= 300_000 + 100_100
                assert len(channel.connection.outgoing) < 20
                await channel.aclose()
        await theirs.aclose()


async def test_answers_that_the_reader_owes_are_bounded() -> None:
    """CLS-5: a peer that asks and does not read is closed out with LimitExceeded."""
    with anyio.fail_after(BOUND):
        ours, theirs = memory_byte_streams()
        limits = kk.Limits(send_max=200_000, drain_seconds=0.1)
        async with kk.RPCChannel(ours, expose={}, hello=False, limits=limits) as server:
            request = b'{"id":"1","method":"%s","args":[],"type":"request"}\n' % (b"m" * 1000)
            async with anyio.create_task_group() as tg:

                async def ask() -> None:
                    while True:
                        await theirs.send(request)

                tg.start_soon(ask)
                await server.wait_closed()
                tg.cancel_scope.cancel()
            with pytest.raises(kk.ChannelClosed, match="send_max") as caught:
                await server.remote().any()
            assert isinstance(caught.value.__cause__, kk.LimitExceeded)
        await theirs.aclose()


# A stock producer ----------------------------------------------------------------------------------


async def _stock_stream(send: Any, count: int, value: bytes = b"1") -> None:
    for _ in range(count):
        await send(b'{"id":"1","method":"","args":{"value":%s},"type":"stream-chunk"}\n' % value)


async def test_the_buffer_that_stands_in_for_credit() -> None:
    """STR-12: beyond it the stream is cancelled; what had come is handed out, then LimitExceeded."""
    with anyio.fail_after(BOUND):
        ours, theirs = memory_byte_streams()
        async with kk.RPCChannel(ours, hello=False, limits=kk.Limits(stock_stream_buffer=10_000)) as client:
            streams: list[kk.StreamCall[int]] = []

            async def open_stream() -> None:
                streams.append(await client.remote().endless())

            async with anyio.create_task_group() as tg:
                tg.start_soon(open_stream)
                assert b'"endless"' in await theirs.receive()
                opened = b'{"id":"1","method":"","args":{"result":{"__stream":true}},"type":"response"}\n'
                await theirs.send(opened)
            line = len(b'{"id":"1","method":"","args":{"value":1},"type":"stream-chunk"}')
            await _stock_stream(theirs.send, 10_000 // line)
            await until(lambda: streams[0].received == 10_000 // line)
            assert not streams[0].ended
            await _stock_stream(theirs.send, 20)
            assert b"stream-cancel" in await theirs.receive()
            seen = 0
            with pytest.raises(kk.LimitExceeded, match="stock_stream_buffer"):
                async for value in streams[0]:
                    assert value == 1
                    seen += 1
            assert seen == 10_000 // line
            assert not client.connection.outgoing
            assert not client.closed
            with pytest.raises(kk.LimitExceeded):
                await streams[0]
        await theirs.aclose()


async def test_a_stock_producer_whose_consumer_keeps_up_is_not_bounded() -> None:
    api = Counting()
    options: dict[str, Any] = {"hello": False, "limits": kk.Limits(stock_stream_buffer=400_000)}
    async with linked(api, **options) as (_, client):
        seen = 0
        async for _ in client.remote().finite(20_000):
            seen += 1
        assert seen == 20_000


async def test_an_unread_stock_stream_harms_no_other() -> None:
    api = Counting("x" * 100)
    options: dict[str, Any] = {"hello": False, "limits": kk.Limits(stock_stream_buffer=100_000)}
    async with linked(api, **options) as (_, client):
        stream = await client.remote().endless()
        await until(lambda: stream.ended)
        assert await client.remote().add(1, 1) == 2
        seen = 0
        with pytest.raises(kk.LimitExceeded):
            async for _ in stream:
                seen += 1
        assert seen == stream.received > 0
        await until(lambda: api.closed == 1)


async def test_a_discarded_stock_stream_is_not_bounded() -> None:
    """`await stream` takes the values itself, so nothing lies unread."""
    api = Counting()
    options: dict[str, Any] = {"hello": False, "limits": kk.Limits(stock_stream_buffer=400_000)}
    async with linked(api, **options) as (_, client):
        stream = await client.remote().finite(20_000)
        assert await stream is None
        assert stream.received == 20_000


async def test_a_peer_that_ignores_its_credit() -> None:
    """CRD-4: that stream is cancelled, what came before is handed out, then ProtocolError."""
    with anyio.fail_after(BOUND):
        ours, theirs = memory_byte_streams()
        async with kk.RPCChannel(ours, expose=Counting()) as client:
            features = b'{"protocol":1,"features":["credit","batch","result","cancel"]}'
            assert b"kkrpc.hello" in await theirs.receive()
            await theirs.send(b'{"id":"1","method":"","args":{"result":%s},"type":"response"}\n' % features)
            await client.ready()
            streams: list[kk.StreamCall[int]] = []

            async def open_stream() -> None:
                streams.append(await client.remote().endless())

            async with anyio.create_task_group() as tg:
                tg.start_soon(open_stream)
                assert b'"id":"2"' in await theirs.receive()
                await theirs.send(b'{"id":"2","args":{"result":{"__stream":true}},"type":"response"}\n')
            for _ in range(65):
                await theirs.send(b'{"id":"2","args":{"value":1},"type":"stream-chunk"}\n')
            assert b"stream-cancel" in await theirs.receive()
            seen = 0
            with pytest.raises(kk.ProtocolError, match="credit"):
                async for _ in streams[0]:
                    seen += 1
            assert seen == 64
            await theirs.send(b'{"id":"2","args":{"cancelled":true},"type":"stream-end"}\n')
            await until(lambda: not client.connection.outgoing)
            assert not client.closed
        await theirs.aclose()


async def test_answers_pass_a_producer_that_never_waits_toward_a_peer_that_reads_slowly() -> None:
    """The peer reads one frame at a time, so that the producer fills each gap at once (STR-10, CLS-4)."""
    limits = kk.Limits(send_high_water=500_000)
    async with scripted(Counting("x" * 50_000), limits=limits) as (channel, peer):
        await peer.send(request("s", "endless"))
        assert await peer.next() == opened("s")
        await until(lambda: channel.congested)
        for number in range(3):
            await peer.send(request(number, "add", number, 1))
            chunks = 0
            while (message := await peer.next())["type"] == "stream-chunk":
                chunks += 1
                await anyio.wait_all_tasks_blocked()
            assert message == result(number, number + 1)
            # What had been handed to the byte stream and taken for the next write, and no more.
            assert chunks <= 10
        await peer.close()


@pytest.mark.parametrize("kind", ["error", "result"])
async def test_what_ends_streams_waits_for_room_as_their_values_do(kind: str) -> None:
    """Hundreds of streams that end at once toward a peer that does not read: what they say is bounded."""
    text, go = "x" * 20_000, anyio.Event()

    class Ending:
        async def error(self) -> AsyncGenerator[int]:
            await go.wait()
            raise ValueError(text)
            yield 0

        async def result(self, sink: kk.StreamSink[int]) -> str:
            await go.wait()
            return text

    limits = kk.Limits(send_high_water=100_000)
    async with scripted(Ending(), limits=limits) as (channel, peer):
        await peer.exchange(hello())
        await peer.send(*(request(number, kind) for number in range(200)))
        for _ in range(200):
            await peer.next()
        go.set()
        await anyio.wait_all_tasks_blocked()
        outbox = channel.connection.outbox
        assert 100_000 < outbox.size < 200_000
        ends = [await peer.next() for _ in range(200)]
        assert sorted(message["id"] for message in ends) == list(range(200))
        assert not outbox.size
