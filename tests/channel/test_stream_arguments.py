"""Streams as values: the caller is the producer, with credit, batches and cancellation the other way round.

The garbage collector is off, as in test_callbacks: a stream that is dropped ends at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import random
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import kkrpc_py as kk
from tests.channel.harness import (
    BOUND,
    Log,
    assert_quiet,
    handler_threads,
    linked,
    threads_gone,
    until,
    without_collector,
)
from tests.channel.peer import (
    ALL_FEATURES,
    Peer,
    ack,
    cancel,
    chunk,
    end,
    hello,
    request,
    response,
    result,
    scripted,
    stream_error,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    with without_collector():
        yield


@dataclasses.dataclass
class Upload:
    name: str
    parts: Any


class API:
    """Handlers that take streams; `kept` is what they keep of them."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.log = Log()

    async def read(self, stream: Any) -> list[Any]:
        return [value async for value in stream]

    async def read_at(self, value: Any, *path: Any) -> list[Any]:
        for step in path:
            value = value[step]
        return [value async for value in value]

    async def read_named(self, *, source: Any) -> list[Any]:
        return [value async for value in source]

    async def first(self, stream: Any, n: int) -> list[Any]:
        seen: list[Any] = []
        async for value in stream:
            seen.append(value)
            if len(seen) == n:
                break
        return seen

    async def total(self, stream: Any) -> Any:
        return await stream.result()

    async def zipped(self, *streams: Any) -> list[Any]:
        rows = []
        while True:
            try:
                rows.append([await anext(stream) for stream in streams])
            except StopAsyncIteration:
                return rows

    async def doubled(self, stream: Any) -> Any:
        async for value in stream:
            yield value * 2

    async def ignore(self, *values: Any) -> None: ...

    async def fail(self, *values: Any) -> None:
        raise ValueError("on purpose")

    async def fail_in_the_loop(self, stream: Any) -> None:
        async for _ in stream:
            raise ValueError("on purpose")

    async def park(self, *values: Any) -> None:
        self.log("parked")
        await anyio.sleep_forever()

    async def read_and_park(self, stream: Any) -> None:
        async for _ in stream:
            self.log("parked")
            await anyio.sleep_forever()

    async def keep(self, *values: Any) -> None:
        self.kept += values

    async def drop(self) -> None:
        self.kept.clear()

    async def echo(self, value: Any) -> Any:
        return value

    async def cancel(self, stream: Any) -> int:
        await anext(stream)
        await stream.cancel()
        return len(self.log.entries)

    def on_a_thread(self, *values: Any) -> None: ...

    @kk.inline
    def at_once(self, *values: Any) -> None: ...


class Source:
    """Producers of each kind that note how they end."""

    def __init__(self) -> None:
        self.log = Log()
        self.made = 0
        self.began = False

    async def numbers(self, n: int, pause: int = 0) -> Any:
        self.began = True
        try:
            for value in range(n):
                if pause and value % pause == 0:
                    await checkpoint()
                self.made += 1
                yield value
        finally:
            self.log("closed")

    def on_a_thread(self, n: int) -> Any:
        self.began = True
        try:
            for value in range(n):
                self.made += 1
                yield value
            return sum(range(n))
        finally:
            self.log("closed")

    async def parked(self) -> Any:
        try:
            yield 1
            self.log("parked")
            await anyio.sleep_forever()
        finally:
            self.log("closed")

    async def failing(self, n: int) -> Any:
        try:
            for value in range(n):
                yield value
            raise LookupError("at the source")
        finally:
            self.log("closed")


class Iterable:
    """Not an iterator itself: each pass is its own."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __aiter__(self) -> Any:
        return self.source.numbers(3)


# --- what is a stream, and where it may stand ------------------------------------------------------


async def test_each_kind_of_stream_is_read_on_the_other_side() -> None:
    source = Source()
    async with linked(API()) as (_, client):
        api = client.remote()
        assert await api.read(source.numbers(1000)) == list(range(1000))
        assert await api.read(source.numbers(1000, 7)) == list(range(1000))
        assert await api.read(source.on_a_thread(1000)) == list(range(1000))
        assert await api.read(Iterable(source)) == [0, 1, 2]
        assert await api.read(value for value in "abc") == ["a", "b", "c"]
        assert await api.read(iter([1, 2])) == [1, 2]
        assert await api.read(map(str, range(3))) == ["0", "1", "2"]
        assert await api.read(source.numbers(0)) == []
        assert await api.total(source.on_a_thread(5)) == 10
        assert await api.total(source.numbers(500)) is None
    assert source.log.entries == ["closed"] * 7


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (lambda s: [1, s], (1,)),
        (lambda s: (s,), (0,)),
        (lambda s: {"a": [{"b": s}]}, ("a", 0, "b")),
        (lambda s: Upload("x", s), ("parts",)),
        (lambda s: {"raw": b"\0" * 9000, "s": s}, ("s",)),
    ],
    ids=["list", "tuple", "deep", "dataclass", "beside bytes"],
)
async def test_a_stream_at_any_depth(value: Callable[[Any], Any], path: tuple[Any, ...]) -> None:
    async with linked(API()) as (_, client):
        assert await client.remote().read_at(value(Source().numbers(3)), *path) == [0, 1, 2]


async def test_a_stream_as_a_keyword_argument() -> None:
    async with linked(API()) as (_, client):
        assert await client.remote().read_named(source=Source().numbers(2)) == [0, 1]


async def test_streams_in_results_chunks_return_values_and_callbacks() -> None:
    source = Source()

    class Giving(API):
        async def inside(self) -> Any:
            return {"n": 3, "values": source.numbers(3)}

        async def nested(self, n: int) -> Any:
            for index in range(n):
                yield [index, source.numbers(index)]

        def returned(self) -> Any:
            yield 1
            return {"rest": source.numbers(2)}

        async def through(self, function: Any) -> Any:
            return [value async for value in (await function(source.numbers(2)))["again"]]

    async with linked(Giving()) as (_, client):
        api = client.remote()
        assert [value async for value in (await api.inside())["values"]] == [0, 1, 2]
        seen = []
        async for index, values in api.nested(20):
            seen.append((index, [value async for value in values]))
            del values
        assert seen == [(n, list(range(n))) for n in range(20)]
        call = api.returned()
        assert [value async for value in call] == [1]
        assert [value async for value in (await call)["rest"]] == [0, 1]
        del call

        async def again(stream: Any) -> Any:
            return {"again": stream}

        assert await api.through(again) == [0, 1]


async def test_values_of_every_size_come_whole_and_in_order() -> None:
    values = [b"x" * size for size in (0, 1, 4095, 4096, 70_000, 300_000, 1)] + ["y" * 100_000, {"k": [1]}]

    async def source() -> Any:
        for value in values:
            yield value

    async with linked(API()) as (_, client):
        assert await client.remote().read(source()) == values


async def test_a_stream_never_overtakes_the_message_that_names_it() -> None:
    """A chunk that names a stream waits its turn behind large ones; its stream waits for it."""

    async def inner(n: int) -> Any:
        for value in range(3):
            yield [n, value]

    class Backlog(API):
        async def backlog(self, n: int) -> Any:
            for index in range(n):
                yield "x" * 200_000
                yield {"inner": inner(index)}

        def last(self) -> Any:
            for _ in range(8):
                yield "x" * 200_000
            return inner(9)

    async with linked(Backlog()) as (_, client):
        api = client.remote()
        streams = []
        async for value in api.backlog(10):
            if isinstance(value, dict):
                streams.append(value["inner"])
        for n, stream in enumerate(streams):
            assert [value async for value in stream] == [[n, 0], [n, 1], [n, 2]]
        streams.clear()
        del stream, value
        call = api.last()
        async for _ in call:
            pass
        assert [value async for value in await call] == [[9, 0], [9, 1], [9, 2]]
        del call


async def test_one_stream_in_two_places_is_refused() -> None:
    source = Source()
    stream, iterable = source.numbers(3), Iterable(source)
    async with linked(API()) as (server, client):
        api = client.remote()
        for twice in (stream, iterable):
            with pytest.raises(kk.NotSerializable, match="two places"):
                await api.ignore(twice, [twice])
        assert not client.connection.incoming
        assert await api.read(stream) == [0, 1, 2]
        with pytest.raises(kk.KkrpcError):  # it is at its end, or runs already
            await api.zipped(*[stream] * 2)
        await assert_quiet(server, client)


async def test_a_generator_that_runs_already_fails_for_its_second_reader() -> None:
    source = Source()
    stream = source.parked()
    async with linked(API()) as (server, client):
        api = client.remote()
        await api.keep(stream)
        server_api: Any = server.exposed._api
        assert await anext(server_api.kept[0]) == 1
        await source.log.wait_for("parked")
        with pytest.raises(RuntimeError, match="already running"):
            await api.read(stream)
        await api.drop()
        await source.log.wait_for("closed")


async def test_many_streams_in_one_message_are_read_side_by_side() -> None:
    source = Source()
    async with linked(API()) as (_, client):
        rows = await client.remote().zipped(*[source.numbers(20, pause=3) for _ in range(30)])
        assert rows == [[n] * 30 for n in range(20)]


async def test_a_thousand_at_once() -> None:
    source = Source()
    async with linked(API()) as (server, client):
        api = client.remote()
        await api.keep(*[source.numbers(100) for _ in range(500)])
        await api.keep({str(n): source.numbers(100) for n in range(500)})
        assert len(client.connection.incoming) == 1000
        assert await api.read(source.numbers(3)) == [0, 1, 2]  # they do not count as the peer's calls
        server_api: Any = server.exposed._api
        for stream in server_api.kept[:250]:
            assert [value async for value in stream] == list(range(100))
        del stream
        await api.drop()


# --- how it ends -----------------------------------------------------------------------------------


async def test_an_error_of_the_producer_reaches_the_loop_that_reads() -> None:
    source = Source()

    class Catching(API):
        async def catch(self, stream: Any) -> Any:
            seen = []
            try:
                async for value in stream:
                    seen.append(value)
            except LookupError as exc:
                return [len(seen), type(exc).__name__, str(exc)]
            return seen

    def on_a_thread() -> Any:
        yield 1
        raise LookupError("on a thread")

    async def unsendable() -> Any:
        yield 1
        yield object()

    async with linked(Catching()) as (_, client):
        api = client.remote()
        assert (await api.catch(source.failing(700)))[0] == 700
        assert (await api.catch(on_a_thread()))[0] == 1
        with pytest.raises(LookupError, match="at the source"):
            await api.read(source.failing(0))
        with pytest.raises(kk.RemoteError, match="cannot be sent"):
            await api.read(unsendable())


PRODUCERS = {
    "ready": lambda source: source.numbers(10**9),
    "pausing": lambda source: source.numbers(10**9, 1),
    "parked": lambda source: source.parked(),
    "on a thread": lambda source: source.on_a_thread(10**9),
}
ENDS: dict[str, Callable[[Any, Any], Any]] = {
    "break": lambda api, stream: api.first(stream, 1),
    "handler end": lambda api, stream: api.ignore([stream]),
    "thread handler": lambda api, stream: api.on_a_thread(stream),
    "inline handler": lambda api, stream: api.at_once({"s": stream}),
    "handler error": lambda api, stream: api.fail(stream),
    "error in the loop": lambda api, stream: api.fail_in_the_loop(stream),
    "unknown method": lambda api, stream: api.nowhere(stream),
    "too many arguments": lambda api, stream: api.drop(stream),
    "cancel": lambda api, stream: api.cancel(stream),
    "timeout": lambda api, stream: api.read_and_park.with_options(timeout=0.02)(stream),
    "timeout unread": lambda api, stream: api.park.with_options(timeout=0.02)(stream),
    "kept and dropped": lambda api, stream: dropped(api, stream),
}


async def dropped(api: Any, stream: Any) -> None:
    await api.keep(stream)
    await api.drop()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("producer", PRODUCERS)
async def test_the_producer_is_closed(producer: str, end: str) -> None:
    source, before = Source(), handler_threads()
    async with linked(API()) as (server, client):
        with contextlib.suppress(kk.KkrpcError, ValueError, TypeError):
            await ENDS[end](client.remote(), PRODUCERS[producer](source))
        await assert_quiet(server, client)
        # One that was never begun has nothing to close.
        await until(lambda: source.log.entries.count("closed") == source.began or producer == "parked")
        if producer == "parked":
            await until(lambda: source.log.entries in ([], ["closed"], ["parked", "closed"]))
    await threads_gone(before)


@pytest.mark.parametrize("method", ["park", "read_and_park"])
@pytest.mark.parametrize("producer", PRODUCERS)
async def test_a_cancelled_call_closes_the_producer(producer: str, method: str) -> None:
    source, before = Source(), handler_threads()
    api = API()
    async with linked(api) as (server, client):
        async with anyio.create_task_group() as tg:
            tg.start_soon(client.remote()[method], PRODUCERS[producer](source))
            await api.log.wait_for("parked")
            tg.cancel_scope.cancel()
        await assert_quiet(server, client)
        await until(lambda: source.log.entries in ([], ["closed"], ["parked", "closed"]))
    await threads_gone(before)


async def test_a_cancel_says_when_the_producer_has_cleaned_up() -> None:
    api = API()

    async def slow() -> Any:
        try:
            while True:
                yield 1
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(10):
                    await checkpoint()
                api.log("cleaned up")

    async with linked(api) as (_, client):
        assert await client.remote().cancel(slow()) == 1


@pytest.mark.parametrize("closer", ["producer", "consumer"])
@pytest.mark.parametrize("reading", [False, True])
@pytest.mark.parametrize("producer", PRODUCERS)
async def test_a_channel_that_closes_closes_the_producer(producer: str, reading: bool, closer: str) -> None:
    source, before = Source(), handler_threads()
    api = API()
    errors: list[Exception] = []
    async with linked(api, quiet=False) as (server, client):

        async def call() -> None:
            try:
                method = client.remote().read_and_park if reading else client.remote().park
                await method(PRODUCERS[producer](source))
            except kk.KkrpcError as exc:
                errors.append(exc)

        async with anyio.create_task_group() as tg:
            tg.start_soon(call)
            await api.log.wait_for("parked")
            await (client if closer == "producer" else server).aclose()
        await (client if closer == "consumer" else server).wait_closed()
    assert [type(error) for error in errors] == [kk.ChannelClosed]
    assert not client.connection.incoming
    assert not server.connection.outgoing
    await until(lambda: source.log.entries in (["closed"], ["parked", "closed"]) or not source.made)
    await threads_gone(before)


async def test_a_stream_that_was_kept_outlives_its_call_but_not_the_channel() -> None:
    api = API()
    source = Source()
    async with linked(api, quiet=False) as (server, client):
        await client.remote().keep(source.numbers(300))
        [stream] = api.kept
        assert await anext(stream) == 0
        await client.aclose()
        await server.wait_closed()
        with pytest.raises(kk.ChannelClosed):
            while True:
                await anext(stream)
        api.kept.clear()
        del stream
    assert source.log.entries == ["closed"]


async def test_what_was_not_sent_is_left_as_it_was() -> None:
    source = Source()
    stream, on_a_thread = source.numbers(3), source.on_a_thread(3)
    async with linked(API(), limits=kk.Limits(frame=100_000)) as (_, client):
        api = client.remote()
        for attempt in (
            api.ignore(stream, on_a_thread, object()),
            api.ignore(stream, on_a_thread, "x" * 100_000),
            api.ignore([stream], {"again": stream}, on_a_thread),
        ):
            with pytest.raises(kk.KkrpcError):
                await attempt
            assert not client.connection.incoming
        del attempt
        assert source.made == 0
        assert await api.read(stream) == [0, 1, 2]
        assert await api.read(on_a_thread) == [0, 1, 2]


async def test_a_call_that_is_lent_and_not_read() -> None:
    """A `Call` is iterable: it is made when the other side reads it, and not at all where it does not."""

    class Endless(API):
        async def endless(self) -> Any:
            self.log("began")
            try:
                while True:
                    yield 1
            finally:
                self.log("closed")

    server_api = Endless()
    async with linked(server_api) as (server, client):
        api = client.remote()
        assert await api.first(api.endless(), 2) == [1, 1]
        await server_api.log.wait_for("closed")
        await api.ignore(api.endless())
        await assert_quiet(server, client)


# --- credit ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["numbers", "on_a_thread"])
async def test_a_reader_that_reads_nothing_bounds_the_producer(kind: str) -> None:
    source = Source()
    async with linked(API()) as (_, client):
        api = client.remote()
        await api.keep(getattr(source, kind)(10**9))
        await until(lambda: source.made >= 64)
        await anyio.wait_all_tasks_blocked()
        for _ in range(20):
            await api.ignore()
        # The credit, what a batch may hold, and for a thread what it may be ahead.
        assert source.made <= 64 + 256 + 256
        assert len(client.connection.incoming) == 1
        await api.drop()
        await source.log.wait_for("closed")


async def test_a_slow_reader_of_large_values_bounds_the_bytes() -> None:
    made = 0

    async def large() -> Any:
        nonlocal made
        while True:
            made += 1
            yield b"x" * 200_000

    api = API()
    async with linked(api) as (_, client):
        await client.remote().keep(large())
        for index in range(10):
            await anext(api.kept[0])
            await anyio.wait_all_tasks_blocked()
            assert made <= index + 8
        await client.remote().drop()


async def test_a_slow_stream_holds_up_nobody() -> None:
    source = Source()
    async with linked(API()) as (_, client):
        api = client.remote()
        await api.keep(source.numbers(10**9), source.on_a_thread(10**9))
        assert await api.read(source.numbers(5000)) == list(range(5000))
        await api.drop()


# --- handing on ------------------------------------------------------------------------------------


async def test_a_stream_of_one_channel_is_handed_on_to_another() -> None:
    source = Source()

    class Origin:
        async def numbers(self, n: int) -> Any:
            return source.numbers(n)

        def summed(self, n: int) -> Any:
            return source.on_a_thread(n)

    async with linked(Origin()) as (_, origin), linked(API()) as (server, client):
        api = client.remote()
        assert await api.read(await origin.remote().numbers(1000)) == list(range(1000))
        assert await api.read(origin.remote().numbers(10)) == list(range(10))
        assert await api.total(await origin.remote().summed(10)) == 45
        assert await api.first(await origin.remote().numbers(10**9), 3) == [0, 1, 2]
        await until(lambda: source.log.entries == ["closed"] * 4)
        await api.ignore(await origin.remote().numbers(10**9))
        await assert_quiet(server, client)
        await assert_quiet(origin)


async def test_a_stream_is_handed_back_to_where_it_came_from() -> None:
    source = Source()
    async with linked(API()) as (server, client):
        api = client.remote()
        back = await api.echo({"s": source.numbers(300)})
        assert [value async for value in back["s"]] == list(range(300))
        del back
        assert [value async for value in await api.echo(source.numbers(5))] == [0, 1, 2, 3, 4]
        assert [value async for value in api.doubled(source.numbers(500))] == list(range(0, 1000, 2))
        async for value in api.doubled(source.numbers(10**9)):
            if value > 100:
                break
        await assert_quiet(server, client)
        assert source.log.entries == ["closed"] * 4


async def test_a_stream_through_a_chain_of_calls() -> None:
    source = Source()
    async with linked(API()) as (_, client):
        api = client.remote()
        stream: Any = source.numbers(200)
        for _ in range(5):
            stream = api.doubled(stream)
        assert [value async for value in stream] == [value * 32 for value in range(200)]
        del stream


async def test_a_handed_on_stream_whose_channel_closes() -> None:
    class Origin:
        async def endless(self) -> Any:
            while True:
                await checkpoint()
                yield 1

    api = API()
    async with linked(api) as (_, client):
        async with linked(Origin(), quiet=False) as (_, origin):
            await client.remote().keep(await origin.remote().endless())
            assert await anext(api.kept[0]) == 1
        with pytest.raises(kk.RemoteError) as raised:
            while True:
                await anext(api.kept[0])
        assert raised.value.name == "ChannelClosed"
        del raised
        await client.remote().drop()


# --- a stock peer, and the hello -------------------------------------------------------------------


async def test_a_stock_peer_takes_no_streams() -> None:
    source = Source()

    class Giving(API):
        async def inside(self) -> Any:
            return [source.numbers(3)]

        async def nested(self) -> Any:
            yield 1
            yield [source.numbers(3)]

    async with linked(Giving(), hello=False) as (server, client):
        api = client.remote()
        for value in (source.numbers(3), [source.numbers(3)], source.on_a_thread(3), iter("abc")):
            with pytest.raises(kk.NotSerializable, match="stock peer"):
                await api.read(value)
        with pytest.raises(kk.RemoteError, match="stock peer"):
            await api.inside()
        seen = []
        with pytest.raises(kk.RemoteError, match="stock peer"):
            async for value in api.nested():
                seen.append(value)
        assert seen == [1]
        assert not server.connection.incoming
        assert not client.connection.incoming
    assert source.made == 0


async def values_of(peer: Peer, id: str, ending: Any = None) -> list[Any]:
    """The values of a stream that the channel sends, to its end, which says `ending`."""
    values: list[Any] = []
    while (message := await peer.next())["type"] == "stream-chunk":
        assert message["id"] == id
        values += message["args"].get("values", [message["args"].get("value")])
    assert (message["type"], message["id"]) == ("stream-end", id)
    assert message["args"] == ({} if ending is None else ending)
    return values


async def test_a_stream_waits_for_the_answer_to_the_hello() -> None:
    source = Source()
    async with scripted(hello=True) as (channel, peer):
        greeting = await peer.next()
        async with anyio.create_task_group() as tg:
            tg.start_soon(channel.remote().take, {"s": source.numbers(2)})
            await anyio.wait_all_tasks_blocked()
            assert not channel.connection.incoming
            await peer.send(response(greeting["id"], result={"protocol": 1, "features": ALL_FEATURES}))
            asked = await peer.next()
            [id] = asked["streamIds"]
            assert asked["args"] == [{"s": id}]
            assert id.startswith("__stream__")
            assert await values_of(peer, id) == [0, 1]
            await peer.send(result(asked["id"], None))
    assert source.log.entries == ["closed"]


@pytest.mark.parametrize("answered", [True, False], ids=["stock", "silent"])
async def test_a_stream_toward_a_peer_that_turns_out_stock(answered: bool) -> None:
    source = Source()
    async with scripted(hello=True, limits=kk.Limits(hello_seconds=0.05)) as (channel, peer):
        greeting = await peer.next()
        refused: list[Exception] = []

        async def call() -> None:
            try:
                await channel.remote().take(print, source.numbers(2))
            except kk.NotSerializable as exc:
                refused.append(exc)

        async with anyio.create_task_group() as tg:
            tg.start_soon(call)
            await anyio.wait_all_tasks_blocked()
            if answered:
                await peer.send(response(greeting["id"], error="no such method"))
        assert ["stock peer" in str(error) for error in refused] == [True]
        assert not channel.connection.incoming
        assert len(channel.connection.passage.functions) == 0
    assert source.made == 0


async def test_a_call_that_waits_for_the_hello_is_cancelled() -> None:
    source = Source()
    async with scripted(hello=True) as (channel, peer):
        greeting = await peer.next()
        async with anyio.create_task_group() as tg:
            tg.start_soon(channel.remote().take, source.numbers(2), print)
            await anyio.wait_all_tasks_blocked()
            tg.cancel_scope.cancel()
        await peer.send(response(greeting["id"], result={"protocol": 1, "features": ALL_FEATURES}))
        assert await peer.exchange() == []
        assert not channel.connection.incoming
        assert len(channel.connection.passage.functions) == 0


@pytest.mark.parametrize("missing", ["credit", "batch", "cancel", "result", "callback"])
async def test_a_peer_that_lacks_a_feature_still_reads(missing: str) -> None:
    source = Source()
    async with scripted(API()) as (channel, peer):
        await peer.exchange(hello(features=[feature for feature in ALL_FEATURES if feature != missing]))
        async with anyio.create_task_group() as tg:
            tg.start_soon(channel.remote().take, source.on_a_thread(3))
            asked = await peer.next()
            [id] = asked["streamIds"]
            expected = {} if missing == "result" else {"result": 3}
            assert await values_of(peer, id, expected) == [0, 1, 2]
            await peer.send(result(asked["id"], None))
        # And the other way round.
        message = request("q", "read", "__stream__x") | {"streamIds": ["__stream__x"]}
        said = await peer.exchange(message, chunk("__stream__x", 1), end("__stream__x"))
        assert result("q", [1]) in said
        assert channel.connection.violations == 0


# --- what a peer may send by mistake or in malice --------------------------------------------------


@contextlib.asynccontextmanager
async def greeted(api: Any = None, **options: Any) -> Any:
    async with scripted(API() if api is None else api, **options) as (channel, peer):
        await peer.exchange(hello(features=ALL_FEATURES))
        yield channel, peer
        assert await peer.exchange(request("alive", "echo", 1)) == [result("alive", 1)]
        assert channel.connection._arguments == channel.connection._offered == 0
        assert not channel.connection.outgoing
        assert not channel.connection.incoming


def lending(id: str, method: str, ids: Any, *args: Any) -> dict[str, Any]:
    return request(id, method, *args) | {"streamIds": ids}


async def confirmed(peer: Peer, *messages: Any) -> list[dict[str, Any]]:
    """What is said to these messages; each cancel of a stream is confirmed."""
    said: list[dict[str, Any]] = []
    await peer.send(*messages)
    for number in range(5):
        await peer.send(request(f"ping {number}", "echo", number))
        while (message := await peer.next()) != result(f"ping {number}", number):
            said.append(message)
            if message["type"] == "stream-cancel":
                await peer.send(end(message["id"], cancelled=True))
    return said


async def test_a_stream_that_is_read() -> None:
    async with greeted() as (channel, peer):
        said = await peer.exchange(
            lending("q", "read_at", ["__stream__a"], {"s": "__stream__a"}, "s"),
            chunk("__stream__a", 1), chunk("__stream__a", 2), end("__stream__a", result=9),
        )  # fmt: skip
        assert [message for message in said if message["type"] != "stream-ack"] == [result("q", [1, 2])]
        said = await peer.exchange(
            lending("q", "read", ["__stream__a"], "__stream__a"), stream_error("__stream__a", "broken")
        )
        assert said[-1]["args"]["error"]["message"] == "broken"
        assert channel.connection.violations == 0


async def test_names_without_placeholders_are_cancelled() -> None:
    async with greeted() as (channel, peer):
        said = await confirmed(peer, lending("q", "ignore", ["__stream__a", "__stream__b"], "__stream__b"))
        assert result("q", None) in said
        cancelled = sorted(message["id"] for message in said if message["type"] == "stream-cancel")
        assert cancelled == ["__stream__a", "__stream__b"]
        assert channel.connection.violations == 0


async def test_placeholders_without_names_are_text() -> None:
    async with greeted() as (channel, peer):
        said = await peer.exchange(request("q", "echo", ["__stream__a"]))
        assert said == [result("q", ["__stream__a"])]
        for ids in (None, 1, "a", {}, [1], [None], [["__stream__a"]]):
            assert await peer.exchange(lending("q", "echo", ids, "__stream__a")) == [
                result("q", "__stream__a")
            ]
        assert channel.connection.violations == 0


async def test_a_name_twice_is_refused() -> None:
    async with greeted() as (_, peer):
        said = await confirmed(peer, lending("q", "read", ["__stream__a"] * 2, "__stream__a"))
        [refused] = [message for message in said if message["type"] == "response"]
        assert refused["args"]["error"]["name"] == "ProtocolError"


async def test_a_name_in_use_is_refused_and_its_stream_lives() -> None:
    async with greeted() as (channel, peer):
        await peer.send(lending("q", "read", ["__stream__a"], "__stream__a"))
        await until(lambda: "__stream__a" in channel.connection.outgoing)
        said = await confirmed(peer, lending("r", "read", ["__stream__a"], "__stream__a"))
        assert said[0]["args"]["error"]["name"] == "ProtocolError"
        assert [message for message in said if message["type"] == "stream-cancel"] == []
        said = await peer.exchange(chunk("__stream__a", 1), end("__stream__a"))
        assert result("q", [1]) in said


@pytest.mark.parametrize("id", ["1", "", "stream", "_stream__1", "__callback__1"])
async def test_a_name_without_the_prefix_is_refused(id: str) -> None:
    """It might be that of a call of this side."""
    async with greeted() as (channel, peer):
        async with anyio.create_task_group() as tg:
            tg.start_soon(channel.remote().ask)
            asked = await peer.next()
            for name in (id, asked["id"]):
                said = await confirmed(
                    peer, lending("q", "ignore", ["__stream__ok", name], name, "__stream__ok")
                )
                [refused] = [message for message in said if message["type"] == "response"]
                assert refused["args"]["error"]["name"] == "ProtocolError"
                assert [m["id"] for m in said if m["type"] == "stream-cancel"] == ["__stream__ok"]
            await peer.send(result(asked["id"], None))


async def test_a_name_that_is_too_long_is_refused() -> None:
    async with greeted() as (_, peer):
        id = "__stream__" + "x" * 300
        [refused] = await peer.exchange(lending("q", "read", [id], id))
        assert "id_bytes" in refused["args"]["error"]["message"]


async def test_more_streams_than_the_limit_are_refused_and_cancelled() -> None:
    async with greeted(limits=kk.Limits(calls=10)) as (_, peer):
        ids = [f"__stream__{n}" for n in range(15)]
        said = await confirmed(peer, lending("q", "ignore", ids, *ids))
        [refused] = [message for message in said if message["type"] == "response"]
        assert "calls" in refused["args"]["error"]["message"]
        assert sorted(m["id"] for m in said if m["type"] == "stream-cancel") == sorted(ids)


async def test_messages_of_streams_that_nobody_named() -> None:
    async with greeted() as (channel, peer):
        before = channel.connection.violations
        assert await peer.exchange(
            chunk("__stream__a", 1), end("__stream__a"), stream_error("__stream__a", "x"),
            result("__stream__a", 1),
        ) == []  # fmt: skip
        assert channel.connection.violations == before + 4
        # What may have crossed an end is no fault.
        assert await peer.exchange(ack("__stream__a", 1, 1), cancel("__stream__a")) == []
        assert channel.connection.violations == before + 4


async def test_what_a_stream_argument_must_not_send() -> None:
    async with greeted() as (channel, peer):
        await peer.send(lending("q", "read", ["__stream__a"], "__stream__a"))
        before = channel.connection.violations
        await peer.send(
            result("__stream__a", 1), response("__stream__a", error="x"),
            response("__stream__a", result={"__stream": True}),
            ack("__stream__a", 1, 1), cancel("__stream__a"),
        )  # fmt: skip
        await until(lambda: channel.connection.violations == before + 3)
        said = await peer.exchange(chunk("__stream__a", 1), end("__stream__a"), end("__stream__a"))
        assert result("q", [1]) in said
        assert channel.connection.violations == before + 4


async def test_more_than_the_credit_costs_the_stream_alone() -> None:
    async with greeted() as (channel, peer):
        await peer.send(lending("q", "keep", ["__stream__a"], "__stream__a"))
        assert await peer.next() == result("q", None)
        await peer.send(*[chunk("__stream__a", n) for n in range(65)])
        assert await peer.next() == cancel("__stream__a")
        await peer.send(chunk("__stream__a", 1), end("__stream__a", cancelled=True))
        [stream] = channel.exposed._api.kept
        seen = []
        with pytest.raises(kk.ProtocolError, match="credit"):
            while True:
                seen.append(await anext(stream))
        assert seen == list(range(64))
        del stream
        channel.exposed._api.kept.clear()


async def test_ids_of_requests_that_look_like_streams() -> None:
    """Calls and streams share one space: this side gives no stream an id that is taken."""
    source = Source()
    api = API()
    async with greeted(api) as (channel, peer):
        taken = [f"__stream__{n}" for n in range(1, 6)]
        await peer.send(*[request(id, "park") for id in taken])
        await until(lambda: api.log.entries == ["parked"] * 5)
        async with anyio.create_task_group() as tg:
            tg.start_soon(channel.remote().take, source.parked())
            asked = await peer.next()
            [id] = asked["streamIds"]
            assert id not in taken
            assert (await peer.next())["args"] == {"value": 1}
            before = channel.connection.violations
            # And a request under the id of a stream that runs is no request.
            await peer.send(request(id, "echo", 1))
            await until(lambda: channel.connection.violations == before + 1)
            await peer.send(*[cancel(each) for each in (*taken, id)])
            answers = [await peer.next() for _ in range(6)]
            assert sorted(message["id"] for message in answers) == sorted([*taken, id])
            await peer.send(result(asked["id"], None))
    assert source.log.entries == ["parked", "closed"]


async def test_a_cancel_of_a_stream_before_it_is_named() -> None:
    """A peer that guesses ids harms itself alone."""
    source = Source()
    async with greeted() as (channel, peer):
        async with anyio.create_task_group() as tg:
            for guess in range(1, 20):
                await peer.send(cancel(f"__stream__{guess}"), ack(f"__stream__{guess}", 5, 5))
            tg.start_soon(channel.remote().take, source.numbers(10))
            asked = await peer.next()
            assert await values_of(peer, asked["streamIds"][0]) == list(range(10))
            await peer.send(result(asked["id"], None))


# --- storms ----------------------------------------------------------------------------------------


async def storm(seed: int) -> None:
    """Streams go to and fro, within each other too, and end in every way at once."""
    rng = random.Random(seed)
    begun: list[int] = []
    closed: list[int] = []
    keys = iter(range(1_000_000))

    def make(depth: int) -> Any:
        key = next(keys)
        n, pause, fails = rng.choice([0, 1, 3, 70, 2000]), rng.randrange(4), rng.random() < 0.1

        async def later() -> Any:
            begun.append(key)
            try:
                for value in range(n):
                    if pause and value % pause == 0:
                        await checkpoint()
                    yield {"deep": make(depth - 1)} if depth and value % 50 == 49 else value
                if fails:
                    raise ZeroDivisionError
            finally:
                closed.append(key)

        def on_a_thread() -> Any:
            begun.append(key)
            try:
                yield from range(n)
                if fails:
                    raise ZeroDivisionError
            finally:
                closed.append(key)

        return on_a_thread() if rng.random() < 0.1 else later()

    class Side(API):
        async def take(self, value: Any) -> Any:
            streams = value["streams"]
            back: list[Any] = []
            for _ in range(len(streams)):
                stream = streams.pop()
                way = rng.randrange(7)
                if way == 0:
                    back.append(stream)
                elif way == 1:
                    await stream.cancel()
                elif way == 2:
                    raise ValueError("storm")
                elif way == 3:
                    await stream.result()
                elif way != 4:
                    await consume(stream, rng.choice([0, 1, 60, 3000]))
                del stream
            return back

        async def flow(self, n: int) -> Any:
            for index in range(n):
                yield [index, make(1)]

    async def consume(stream: Any, most: int) -> None:
        seen = 0
        async for value in stream:
            if isinstance(value, dict):
                await consume(value["deep"], rng.choice([1, 100]))
            seen += 1
            if seen > most:
                break
            del value

    async with linked(Side(), Side(), limits=kk.Limits(threads=64)) as (server, client):

        async def act(remote: Any) -> None:
            try:
                with anyio.move_on_after(0.05 if rng.random() < 0.3 else BOUND):
                    if rng.random() < 0.25:
                        leave = rng.randrange(20)
                        async for index, stream in remote.flow(15):
                            if index == leave:
                                break
                            if index % 3 == 0:
                                await consume(stream, 40)
                            del stream
                    else:
                        value: Any = {"streams": [make(1) for _ in range(rng.randrange(4))]}
                        if rng.random() < 0.1:
                            value["bad"] = object()
                        for stream in await remote.take(value):
                            await consume(stream, rng.choice([0, 10, 3000]))
            except (kk.KkrpcError, ValueError, ZeroDivisionError):
                pass

        async with anyio.create_task_group() as tg:
            for _ in range(80):
                tg.start_soon(act, rng.choice([client, server]).remote())
                if rng.random() < 0.3:
                    await checkpoint()
        gc.collect()  # anyio's task groups keep a cancellation in a cycle on asyncio
        await assert_quiet(server, client)
        with anyio.fail_after(BOUND):
            await until(lambda: sorted(begun) == sorted(closed))
        assert server.connection._offered == server.connection._arguments == 0
        assert client.connection._offered == client.connection._arguments == 0
    assert len(set(closed)) == len(closed) > 50


@pytest.mark.parametrize("seed", range(5))
async def test_a_storm_of_streams_leaves_nothing(seed: int) -> None:
    await storm(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5, 40))
async def test_many_storms_of_streams_leave_nothing(seed: int) -> None:
    await storm(seed)


async def test_unread_streams_of_a_peer_are_bounded_in_bytes_together() -> None:
    """ARG-5: many small streams may not hold here what one large call could not."""
    kept: list[Any] = []
    release = anyio.Event()

    class Keeper:
        async def keep(self, streams: list[Any]) -> list[int]:
            kept.extend(streams)
            await release.wait()
            total, refused = 0, 0
            for stream in streams:
                try:
                    async for block in stream:
                        total += len(block)
                except kk.LimitExceeded:
                    refused += 1
            kept.clear()
            return [total, refused]

        async def add(self, a: int, b: int) -> int:
            return a + b

    async def blocks() -> Any:
        for _ in range(100):
            yield b"x" * 10_000

    limits = kk.Limits(call_bytes=1 << 20)
    async with linked(Keeper(), limits=limits, codec="cbor") as (server, client):
        answers: list[Any] = []
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                answers.append(await client.remote().keep([blocks() for _ in range(40)]))

            tasks.start_soon(call)
            await until(lambda: sum(stream.ended for stream in kept) > 30)
            assert server.connection._argument_bytes <= 1 << 20
            assert await client.remote().add(1, 2) == 3
            release.set()
        [[total, refused]] = answers
        assert refused > 30
        assert total > 500_000
        assert server.connection._argument_bytes == 0


async def test_no_interceptor_is_concerned_with_a_stream_that_is_passed() -> None:
    seen: list[str] = []

    async def note(ctx: kk.CallContext, next: kk.Next) -> Any:
        seen.append(ctx.method)
        return await next()

    source = Source()
    async with linked(API(), interceptors=[note]) as (_, client):
        assert await client.remote().read(source.numbers(3)) == [0, 1, 2]
    assert seen == ["read"]
