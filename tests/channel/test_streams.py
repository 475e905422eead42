"""Streams: every kind of producer, every way to consume, many at once."""

from __future__ import annotations

import contextvars
import gc
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from tests.channel.harness import Log, linked

pytestmark = pytest.mark.anyio


class Iterable:
    """An async iterable that is no generator: its iterator is another object."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __aiter__(self) -> AsyncIterator[int]:
        return Iterator(self.n)


class Iterator:
    def __init__(self, n: int) -> None:
        self.left = n

    def __aiter__(self) -> Iterator:
        return self

    async def __anext__(self) -> int:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return self.left


class Plain(Iterator):
    """`__anext__` is a plain function, and says at the call that there is no more."""

    def __anext__(self) -> Any:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return self._value()

    async def _value(self) -> int:
        return self.left


class Awaiting(Iterator):
    """`__anext__` returns an awaitable that is no coroutine."""

    def __anext__(self) -> Any:
        return Awaitable(super().__anext__)


class Awaitable:
    def __init__(self, function: Any) -> None:
        self.function = function

    def __await__(self) -> Any:
        return self.wait().__await__()

    async def wait(self) -> Any:
        await anyio.lowlevel.checkpoint()
        return await self.function()


class ByHand(Iterator):
    """An awaitable whose `__await__` returns a plain iterator."""

    def __anext__(self) -> Any:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return HandMade(self.left)


class HandMade:
    def __init__(self, value: int) -> None:
        self.value = value

    def __await__(self) -> HandMade:
        return self

    def __iter__(self) -> HandMade:
        return self

    def __next__(self) -> Any:
        raise StopIteration(self.value)


class API:
    async def generator(self, n: int) -> Any:
        for i in reversed(range(n)):
            yield i

    async def parking(self, n: int) -> Any:
        for i in reversed(range(n)):
            await anyio.lowlevel.checkpoint()
            yield i

    def sync(self, n: int) -> Any:
        for i in reversed(range(n)):
            yield i
        return {"sum": n * (n - 1) // 2}

    @kk.inline
    def inlined(self, n: int) -> Any:
        for i in reversed(range(n)):
            yield i
        return {"sum": n * (n - 1) // 2}

    async def iterable(self, n: int) -> Iterable:
        return Iterable(n)

    def iterable_from_a_thread(self, n: int) -> Iterable:
        return Iterable(n)

    @kk.inline
    def iterator(self, n: int) -> Iterator:
        return Iterator(n)

    async def plain(self, n: int) -> Plain:
        return Plain(n)

    async def awaiting(self, n: int) -> Awaiting:
        return Awaiting(n)

    async def by_hand(self, n: int) -> ByHand:
        return ByHand(n)

    async def returned_generator(self, n: int) -> Any:
        return self.generator(n)

    async def returned_sync_generator(self, n: int) -> Any:
        return self.sync(n)

    async def sink(self, n: int, sink: kk.StreamSink[int]) -> Any:
        for i in reversed(range(n)):
            await sink.send(i)
        return {"sum": n * (n - 1) // 2}

    async def failing(self, n: int) -> Any:
        for i in range(n):
            yield i
        raise ValueError("broken")

    async def value(self) -> int:
        return 1


class Nested:
    inner = API()
    table = {"deep": {"api": API()}}


KINDS = [
    "generator", "parking", "sync", "inlined", "iterable", "iterable_from_a_thread", "iterator", "plain",
    "awaiting", "by_hand", "returned_generator", "returned_sync_generator", "sink",
]  # fmt: skip
WITH_RESULT = {"sync", "inlined", "returned_sync_generator", "sink"}


@pytest.mark.parametrize("hello", [True, False], ids=["agreed", "stock"])
@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_of_producer(kind: str, hello: bool) -> None:
    """STR-1 to STR-3, whole and in order, whether small or above any window."""
    async with linked(API(), hello=hello) as (_, client):
        api = client.remote()
        for n in (0, 1, 2, 63, 64, 65, 256, 257, 1500):
            assert [value async for value in api[kind](n)] == list(reversed(range(n)))


@pytest.mark.parametrize("kind", KINDS)
async def test_the_return_value(kind: str) -> None:
    """RES-1: where the producer has one, and the peer knows of it."""
    expected = {"sum": 45} if kind in WITH_RESULT else None
    async with linked(API()) as (_, client):
        call = client.remote()[kind](10)
        assert [value async for value in call] == list(reversed(range(10)))
        assert await call == expected
        stream = await client.remote()[kind](10)
        assert await stream == expected
        stream = await client.remote()[kind](10)
        assert [value async for value in stream] == list(reversed(range(10)))
        assert await stream.result() == expected
        assert await stream.result() == expected
        assert await stream == expected


async def test_a_stock_peer_gets_no_return_value() -> None:
    async with linked(API(), hello=False) as (_, client):
        call = client.remote().sync(3)
        assert [value async for value in call] == [2, 1, 0]
        assert await call is None


async def test_both_ways_to_iterate() -> None:
    async with linked(API()) as (_, client):
        api = client.remote()
        assert [v async for v in api.generator(3)] == [2, 1, 0]
        assert [v async for v in await api.generator(3)] == [2, 1, 0]


async def test_nested_namespaces() -> None:
    async with linked(Nested()) as (_, client):
        api = client.remote()
        assert [v async for v in api.inner.generator(3)] == [2, 1, 0]
        assert [v async for v in api.table.deep.api.sync(3)] == [2, 1, 0]


# StreamCall --------------------------------------------------------------------------------------


async def test_what_a_stream_call_tells() -> None:
    gate = anyio.Event()

    class Gated:
        async def gated(self) -> Any:
            yield 1
            yield 2
            await gate.wait()
            yield 3

    async with linked(Gated()) as (_, client):
        stream = await client.remote().gated()
        assert isinstance(stream, kk.StreamCall)
        assert stream.method == "gated"
        assert stream.id in client.connection.outgoing
        assert not stream.ended
        assert await anext(stream) == 1
        assert stream.received == 2
        assert "open" in repr(stream)
        assert str(stream.id) in repr(stream)
        gate.set()
        assert await anext(stream) == 2
        assert await anext(stream) == 3
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert stream.received == 3
        assert stream.ended
        assert "ended" in repr(stream)


async def test_a_stream_is_iterated_once() -> None:
    async with linked(API()) as (_, client):
        stream = await client.remote().generator(2)
        assert [v async for v in stream] == [1, 0]
        with pytest.raises(RuntimeError, match="once"):
            aiter(stream)
        with pytest.raises(RuntimeError, match="once"):
            await anext(stream)

        stream = await client.remote().generator(2)
        assert await anext(stream) == 1
        with pytest.raises(RuntimeError, match="once"):
            aiter(stream)
        assert await anext(stream) == 0


async def test_chunks_that_nobody_read_are_discarded_by_the_result() -> None:
    """Also where there are more than any window."""
    async with linked(API()) as (_, client):
        stream = await client.remote().sync(20_000)
        assert await stream == {"sum": 20_000 * 19_999 // 2}
        with pytest.raises(StopAsyncIteration):
            await anext(aiter(stream))
        stream = await client.remote().sync(20_000)
        assert await anext(stream) == 19_999
        assert await stream == {"sum": 20_000 * 19_999 // 2}
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_async_with_closes() -> None:
    log = Log()

    class Endless:
        async def count(self) -> Any:
            try:
                i = 0
                while True:
                    yield i
                    i += 1
            finally:
                log("closed")

    async with linked(Endless()) as (_, client):
        async with await client.remote().count() as stream:
            assert await anext(stream) == 0
        assert log.entries == ["closed"]
        assert stream.ended
        with pytest.raises(ZeroDivisionError):
            async with await client.remote().count() as stream:
                raise ZeroDivisionError
        await log.wait_for("closed")


async def test_async_with_around_a_complete_stream() -> None:
    async with linked(API()) as (_, client):
        async with await client.remote().sync(2) as stream:
            assert [v async for v in stream] == [1, 0]
        assert await stream == {"sum": 1}


# Errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hello", [True, False], ids=["agreed", "stock"])
@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 300, 5000])
async def test_values_before_an_error_arrive_before_it(n: int, hello: bool) -> None:
    """STR-9."""
    async with linked(API(), hello=hello) as (_, client):
        seen = []
        with pytest.raises(ValueError, match="broken"):
            async for value in client.remote().failing(n):
                seen.append(value)
                await anyio.lowlevel.checkpoint()
        assert seen == list(range(n))


async def test_an_error_is_raised_by_the_result_too() -> None:
    async with linked(API()) as (_, client):
        stream = await client.remote().failing(3)
        with pytest.raises(ValueError, match="broken"):
            await stream
        with pytest.raises(ValueError, match="broken"):
            await stream.result()
        call = client.remote().failing(3)
        with pytest.raises(ValueError, match="broken"):
            async for _ in call:
                pass
        with pytest.raises(ValueError, match="broken"):
            await call


async def test_a_stream_whose_handler_fails_before_it_opens() -> None:
    class Failing:
        async def stream(self) -> Any:
            raise ValueError("early")

    async with linked(Failing()) as (_, client):
        with pytest.raises(ValueError, match="early"):
            async for _ in client.remote().stream():
                pass


async def test_an_iterable_whose_aiter_fails() -> None:
    class Broken:
        def __aiter__(self) -> Any:
            raise ValueError("no iterator")

    class NoIterator:
        def __aiter__(self) -> Any:
            return object()

    async def broken() -> Broken:
        return Broken()

    async def none() -> NoIterator:
        return NoIterator()

    async with linked({"broken": broken, "none": none}) as (_, client):
        with pytest.raises(ValueError, match="no iterator"):
            async for _ in client.remote().broken():
                pass
        with pytest.raises(TypeError):
            async for _ in client.remote().none():
                pass


async def test_a_stream_inside_a_value_is_refused_toward_a_stock_peer() -> None:
    """STR-8, ARG-1."""

    async def inside() -> Any:
        return {"stream": Iterator(1)}

    async with linked({"inside": inside}, hello=False) as (_, client):
        with pytest.raises(kk.RemoteError, match="Iterator"):
            await client.remote().inside()


# Many at once ------------------------------------------------------------------------------------


async def test_a_thousand_streams() -> None:
    async with linked(API()) as (_, client):
        complete: list[int] = []

        async def consume(n: int) -> None:
            assert [v async for v in client.remote().parking(n % 7)] == list(reversed(range(n % 7)))
            complete.append(n)

        async with anyio.create_task_group() as tg:
            for n in range(1000):
                tg.start_soon(consume, n)
        assert sorted(complete) == list(range(1000))


async def test_a_thousand_open_streams_end_with_the_channel() -> None:
    log = Log()

    class Endless:
        async def park(self, i: int) -> Any:
            try:
                yield i
                await anyio.sleep_forever()
            finally:
                log(i)

    async with linked(Endless(), quiet=False) as (server, client):
        streams = [await client.remote().park(i) for i in range(1000)]
        for i, stream in enumerate(streams):
            assert await anext(stream) == i
        assert len(server.connection.incoming) == 1000
        assert len(client.connection.outgoing) == 1000
    assert sorted(log.entries) == list(range(1000))
    for stream in streams:
        with pytest.raises(kk.ChannelClosed):
            await anext(stream)


async def test_streams_take_turns() -> None:
    """STR-10, CLS-4: no stream is far ahead of another, though none of the producers ever waits."""

    class Greedy:
        async def count(self, n: int) -> Any:
            for i in range(n):
                yield i

    async with linked(Greedy()) as (_, client):
        progress = [0] * 8
        apart = 0

        async def consume(index: int) -> None:
            nonlocal apart
            async for _ in client.remote().count(20_000):
                progress[index] += 1
                if progress[index] % 100 == 0:
                    apart = max(apart, progress[index] - min(progress))

        async with anyio.create_task_group() as tg:
            for index in range(8):
                tg.start_soon(consume, index)
        assert progress == [20_000] * 8
        # A window is 4096 chunks at the most: one at the producer, one on the way, one at the consumer.
        assert apart <= 3 * 4096


async def test_calls_go_ahead_of_streams() -> None:
    """CLS-4: a call is answered while greedy streams run in both directions."""

    class Greedy:
        async def forever(self) -> Any:
            i = 0
            while True:
                yield i
                i += 1

        async def add(self, a: int, b: int) -> int:
            return a + b

    async with linked(Greedy(), Greedy()) as (server, client):
        async with anyio.create_task_group() as tg:

            async def consume(channel: kk.RPCChannel) -> None:
                async for _ in channel.remote().forever():
                    pass

            for _ in range(4):
                tg.start_soon(consume, client)
                tg.start_soon(consume, server)
            for i in range(50):
                assert await client.remote().add(i, 1) == i + 1
                assert await server.remote().add(i, 1) == i + 1
            tg.cancel_scope.cancel()


async def test_streams_in_both_directions() -> None:
    async with linked(API(), API()) as (a, b):

        async def consume(channel: kk.RPCChannel) -> None:
            for kind in ("generator", "parking", "sync", "sink"):
                assert [v async for v in channel.remote()[kind](3000)] == list(reversed(range(3000)))

        async with anyio.create_task_group() as tg:
            for channel in (a, b, a, b):
                tg.start_soon(consume, channel)


async def test_a_producer_that_consumes_the_caller() -> None:
    """A generator that iterates a stream of its caller's: squares of what the caller counts."""
    channels: list[kk.RPCChannel] = []

    class Squares:
        async def squares(self, n: int) -> Any:
            async for value in channels[0].remote().generator(n):
                yield value * value

        async def relay(self, n: int) -> Any:
            return await channels[0].remote().sync(n)

    async with linked(Squares(), API()) as (server, client):
        channels.append(server)
        expected = [i * i for i in reversed(range(500))]
        assert [v async for v in client.remote().squares(500)] == expected
        call = client.remote().relay(500)
        assert [v async for v in call] == list(reversed(range(500)))
        assert await call == {"sum": 500 * 499 // 2}


async def test_a_relayed_stream_is_cancelled_to_its_source() -> None:
    log = Log()

    class Source:
        async def endless(self) -> Any:
            try:
                yield 1
                await anyio.sleep_forever()
            finally:
                log("source closed")

    async with linked(Source()) as (_, far):

        class Relay:
            async def endless(self) -> Any:
                return await far.remote().endless()

            async def wrapped(self) -> Any:
                async for value in far.remote().endless():
                    yield value

        async with linked(Relay()) as (_, near):
            for name in ("endless", "wrapped"):
                stream = await near.remote()[name]()
                assert await anext(stream) == 1
                await stream.cancel()
                await log.wait_for("source closed")
                log.entries.clear()


# Contexts ------------------------------------------------------------------------------------------


VAR: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


class Contextual:
    def __init__(self) -> None:
        self.log = Log()

    async def generator(self) -> Any:
        token = VAR.set("mine")
        try:
            yield VAR.get()
            await anyio.lowlevel.checkpoint()
            yield VAR.get()
            yield VAR.get()
            await anyio.sleep_forever()
        finally:
            self.log(VAR.get())
            VAR.reset(token)  # raises ValueError in any other context

    async def endless(self) -> Any:
        token = VAR.set("mine")
        try:
            while True:
                yield VAR.get()
        finally:
            self.log(VAR.get())
            VAR.reset(token)

    def sync(self) -> Any:
        token = VAR.set("mine")
        try:
            while True:
                yield VAR.get()
        finally:
            self.log(VAR.get())
            VAR.reset(token)

    @kk.inline
    def inlined(self) -> Any:
        token = VAR.set("mine")
        try:
            while True:
                yield VAR.get()
        finally:
            self.log(VAR.get())
            VAR.reset(token)

    async def sink(self, sink: kk.StreamSink[str]) -> None:
        token = VAR.set("mine")
        try:
            for _ in range(3):
                await sink.send(VAR.get())
                await anyio.lowlevel.checkpoint()
            await anyio.sleep_forever()
        finally:
            self.log(VAR.get())
            VAR.reset(token)


@pytest.mark.parametrize("kind", ["generator", "endless", "sync", "inlined", "sink"])
async def test_a_generator_has_one_context_for_its_steps_and_its_cleanup(kind: str) -> None:
    api = Contextual()
    async with linked(api) as (_, client):
        for _ in range(2):
            stream = await client.remote()[kind]()
            assert [await anext(stream) for _ in range(3)] == ["mine"] * 3
            await stream.cancel()
            assert api.log.entries == ["mine"]
            api.log.entries.clear()
        assert VAR.get() == "unset"


async def test_scopes_of_the_generators_own() -> None:
    """A scope that is left before the next yield works as everywhere, stepped by hand or not."""

    class Scoped:
        async def ticks(self) -> Any:
            for i in range(3):
                with anyio.move_on_after(0.01) as scope:
                    await anyio.sleep_forever()
                assert scope.cancelled_caught
                async with anyio.create_task_group() as tg:
                    tg.start_soon(anyio.lowlevel.checkpoint)
                yield i

    async with linked(Scoped()) as (_, client):
        assert [v async for v in client.remote().ticks()] == [0, 1, 2]


async def test_batches_cost_no_latency() -> None:
    """BAT-3: what is ready leaves when the generator is about to wait, and not later."""
    gates = [anyio.Event() for _ in range(10)]

    class Gated:
        async def values(self) -> Any:
            for i, gate in enumerate(gates):
                yield i
                yield -i
                await gate.wait()

    async with linked(Gated()) as (_, client):
        stream = await client.remote().values()
        for i, gate in enumerate(gates):
            assert await anext(stream) == i
            assert await anext(stream) == -i
            gate.set()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_large_and_small_values_mixed() -> None:
    values = [("x" * size, size) for size in (1, 100_000, 0, 70_000, 3, 300_000, 5)] * 5

    class Mixed:
        async def mixed(self) -> Any:
            for text, size in values:
                yield text
                yield size

    async with linked(Mixed()) as (_, client):
        seen = [v async for v in client.remote().mixed()]
        assert seen == [item for pair in values for item in pair]


async def test_nothing_of_a_stream_is_kept() -> None:
    """No reference cycle holds a stream that has ended: it goes without the collector."""
    import weakref

    async with linked(API()) as (_, client):
        gc.collect()
        gc.disable()
        try:
            stream = await client.remote().generator(5)
            dead = weakref.ref(stream)
            assert [v async for v in stream] == [4, 3, 2, 1, 0]
            del stream
            assert dead() is None
            call = client.remote().generator(5)
            dead_call = weakref.ref(call)
            assert [v async for v in call] == [4, 3, 2, 1, 0]
            del call
            assert dead_call() is None
        finally:
            gc.enable()
