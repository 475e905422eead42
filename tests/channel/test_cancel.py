"""Cancellation from every side: at once, acknowledged, the cleanup run exactly once, nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import kkrpc_py as kk
from kkrpc_py.transports.memory import memory_byte_streams
from tests.channel.harness import BOUND, Log, assert_quiet, linked, until

pytestmark = pytest.mark.anyio

AGREED = pytest.mark.parametrize("hello", [True, False], ids=["agreed", "stock"])


class Producers:
    """Each notes how its cleanup came about, and how often."""

    def __init__(self) -> None:
        self.log = Log()
        self.opened = anyio.Event()

    async def parked(self) -> Any:
        """Gives one value, then waits for ever."""
        try:
            yield "first"
            self.log("parked")
            await anyio.sleep_forever()
        except BaseException as exc:
            self.log(type(exc).__name__)
            raise
        finally:
            self.log("finally")

    async def silent(self) -> Any:
        """Waits for ever before its first value."""
        try:
            self.log("parked")
            await anyio.sleep_forever()
            yield "never"
        except BaseException as exc:
            self.log(type(exc).__name__)
            raise
        finally:
            self.log("finally")

    async def at_a_yield(self) -> Any:
        """Has a value whenever it is asked: without credit it is suspended at a yield."""
        try:
            while True:
                yield "first"
        except BaseException as exc:
            self.log(type(exc).__name__)
            raise
        finally:
            self.log("finally")

    async def shielded(self) -> Any:
        """Its cleanup waits, under a shield of its own."""
        try:
            yield "first"
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(5):
                    await checkpoint()
            self.log("finally")

    async def sink(self, sink: kk.StreamSink[str]) -> None:
        try:
            await sink.send("first")
            await anyio.sleep_forever()
        finally:
            self.log("finally")

    async def greedy_sink(self, sink: kk.StreamSink[str]) -> None:
        try:
            while True:
                await sink.send("first")
        finally:
            self.log("finally")

    def sync(self) -> Any:
        try:
            while True:
                yield "first"
        finally:
            self.log("finally")

    @kk.inline
    def inlined(self) -> Any:
        try:
            while True:
                yield "first"
        finally:
            self.log("finally")

    async def add(self, a: int, b: int) -> int:
        return a + b


KINDS = ["parked", "at_a_yield", "shielded", "sink", "greedy_sink", "sync", "inlined"]


# The consumer's ways out -------------------------------------------------------------------------


@AGREED
@pytest.mark.parametrize("kind", KINDS)
async def test_break(kind: str, hello: bool) -> None:
    api = Producers()
    async with linked(api, hello=hello) as (_, client):
        call = client.remote()[kind]()
        async for value in call:
            assert value == "first"
            break
        await api.log.wait_for("finally")
        with pytest.raises(kk.CallCancelled):
            await call
        assert api.log.entries.count("finally") == 1
        assert await client.remote().add(1, 2) == 3


@AGREED
@pytest.mark.parametrize("kind", KINDS)
async def test_break_of_a_stream_call(kind: str, hello: bool) -> None:
    api = Producers()
    async with linked(api, hello=hello) as (_, client):
        stream = await client.remote()[kind]()
        async for value in stream:
            assert value == "first"
            break
        await api.log.wait_for("finally")
        with pytest.raises(kk.CallCancelled):
            await stream
        with pytest.raises(kk.CallCancelled):
            await stream.result()
        assert api.log.entries.count("finally") == 1


@AGREED
@pytest.mark.parametrize("kind", KINDS)
async def test_an_exception_in_the_loop_body(kind: str, hello: bool) -> None:
    api = Producers()
    async with linked(api, hello=hello) as (_, client):
        try:
            async for _ in client.remote()[kind]():
                raise ZeroDivisionError
        except ZeroDivisionError as exc:
            # The traceback holds the frame and by it the iterator, as in any Python.
            exc.__traceback__ = None
        await api.log.wait_for("finally")
        assert api.log.entries.count("finally") == 1


@AGREED
@pytest.mark.parametrize("kind", [*KINDS, "silent"])
async def test_a_cancelled_consumer_task(kind: str, hello: bool) -> None:
    api = Producers()
    async with linked(api, hello=hello) as (_, client):
        reached = anyio.Event()

        async def consume() -> None:
            if kind == "silent":
                reached.set()
            async for _ in client.remote()[kind]():
                reached.set()
                if kind != "parked":
                    await anyio.sleep_forever()

        async with anyio.create_task_group() as tg:
            tg.start_soon(consume)
            await reached.wait()
            if kind == "silent":
                await api.log.wait_for("parked")
            tg.cancel_scope.cancel()
        await api.log.wait_for("finally")
        assert api.log.entries.count("finally") == 1


@AGREED
@pytest.mark.parametrize("kind", [*KINDS, "silent"])
async def test_cancel(kind: str, hello: bool) -> None:
    """CAN-4: toward an agreed peer `cancel` returns when the cleanup has run."""
    api = Producers()
    async with linked(api, hello=hello) as (_, client):
        stream = await client.remote()[kind]()
        if kind != "silent":
            assert await anext(stream) == "first"
        await stream.cancel()
        if hello:
            assert api.log.entries.count("finally") == 1
            assert not client.connection.outgoing
        else:
            await api.log.wait_for("finally")
        assert "cancelled" in repr(stream)
        await stream.cancel()
        await stream.aclose()
        with pytest.raises(kk.CallCancelled):
            await anext(stream)
        with pytest.raises(kk.CallCancelled):
            await stream
        await assert_quiet(client)
        assert api.log.entries.count("finally") == 1


async def test_cancel_before_the_first_value_was_asked_for() -> None:
    api = Producers()
    async with linked(api) as (_, client):
        stream = await client.remote().parked()
        await stream.cancel()
        with pytest.raises(kk.CallCancelled):
            async for _ in stream:
                pass


async def test_cancel_during_the_loop_ends_it() -> None:
    api = Producers()
    async with linked(api) as (_, client):
        stream = await client.remote().at_a_yield()
        seen = 0
        with pytest.raises(kk.CallCancelled):
            async for _ in stream:
                seen += 1
                if seen == 3:
                    await stream.cancel()
        assert seen == 3


async def test_cancel_by_another_task_wakes_who_waits() -> None:
    api = Producers()
    async with linked(api) as (_, client):
        stream = await client.remote().silent()
        result = await client.remote().silent()

        async def wait_for_value() -> None:
            with pytest.raises(kk.CallCancelled):
                await anext(stream)

        async def wait_for_result() -> None:
            with pytest.raises(kk.CallCancelled):
                await result.result()

        async with anyio.create_task_group() as tg:
            tg.start_soon(wait_for_value)
            tg.start_soon(wait_for_result)
            await anyio.wait_all_tasks_blocked()
            await stream.cancel()
            await result.cancel()


async def test_cancel_after_the_end_has_come_unread() -> None:
    """After `cancel()` nothing is handed out, although it had all arrived."""

    class Short:
        async def short(self) -> Any:
            for i in range(5):
                yield i

    async with linked(Short()) as (_, client):
        stream = await client.remote().short()
        await until(lambda: stream.ended)
        await stream.cancel()
        with pytest.raises(kk.CallCancelled):
            await anext(stream)
        with pytest.raises(kk.CallCancelled):
            await stream

        stream = await client.remote().short()
        await until(lambda: stream.ended)
        # The second value came in one frame with the third.
        assert [await anext(stream), await anext(stream)] == [0, 1]
        await stream.cancel()
        with pytest.raises(kk.CallCancelled):
            await anext(stream)


async def test_cancel_of_a_complete_stream_changes_nothing() -> None:
    class Short:
        def short(self) -> Any:
            yield 1
            return 2

    async with linked(Short()) as (_, client):
        stream = await client.remote().short()
        assert [v async for v in stream] == [1]
        await stream.cancel()
        assert await stream == 2


async def test_a_cancel_that_crosses_the_end() -> None:
    """CAN-5: the end was on its way already, and is the answer."""

    class Short:
        async def short(self) -> Any:
            yield 1

    async with linked(Short()) as (server, client):
        for _ in range(20):
            stream = await client.remote().short()
            await stream.cancel()
            async for _ in client.remote().short():
                break
        await assert_quiet(server, client)


async def test_a_waiting_result_that_is_cancelled_cancels_the_stream() -> None:
    api = Producers()
    async with linked(api) as (_, client):
        stream = await client.remote().silent()
        await api.log.wait_for("parked")
        with anyio.move_on_after(0.01) as scope:
            await stream
        assert scope.cancelled_caught
        await api.log.wait_for("finally")


# A dropped iterator ------------------------------------------------------------------------------


@AGREED
async def test_a_dropped_stream_call(hello: bool) -> None:
    api = Producers()
    async with linked(api, hello=hello) as (_, client):
        stream = await client.remote().parked()
        await api.log.wait_for("parked")
        del stream
        gc.collect()
        await api.log.wait_for("finally")


@AGREED
async def test_a_dropped_iterator(hello: bool) -> None:
    api = Producers()
    async with linked(api, hello=hello) as (_, client):
        for make in (lambda call: aiter(call), lambda call: call.__aiter__()):
            iterator = make(client.remote().parked())
            assert await anext(iterator) == "first"
            del iterator
            gc.collect()
            await api.log.wait_for("finally")
            api.log.entries.clear()


async def test_an_iterator_dropped_by_another_thread() -> None:
    api = Producers()
    async with linked(api) as (_, client):
        held = [aiter(client.remote().parked())]
        assert await anext(held[0]) == "first"

        def drop() -> None:
            held.clear()
            gc.collect()

        thread = threading.Thread(target=drop)
        thread.start()
        thread.join(BOUND)
        await api.log.wait_for("finally")
        assert api.log.entries.count("finally") == 1


async def test_an_iterator_in_a_cycle() -> None:
    """The collector drops it, on whatever thread it runs."""
    api = Producers()
    async with linked(api) as (_, client):
        cycle: dict[str, Any] = {"iterator": aiter(client.remote().parked())}
        cycle["cycle"] = cycle
        assert await anext(cycle["iterator"]) == "first"
        del cycle
        thread = threading.Thread(target=gc.collect)
        thread.start()
        thread.join(BOUND)
        await api.log.wait_for("finally")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_iterator_dropped_after_the_loop_has_closed(backend: str) -> None:
    held: list[Any] = []

    async def main() -> None:
        async with linked(Producers(), quiet=False) as (_, client):
            held.append(aiter(client.remote().parked()))
            assert await anext(held[0]) == "first"
            held.append(await client.remote().parked())
            held.append(client.remote().parked())
            await anext(aiter(held[2]))

    anyio.run(main, backend=backend)
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join(BOUND)
    gc.collect()


async def test_an_iterator_dropped_after_the_channel_has_closed() -> None:
    async with linked(Producers(), quiet=False) as (_, client):
        iterator = aiter(client.remote().parked())
        assert await anext(iterator) == "first"
    del iterator
    gc.collect()
    await checkpoint()


async def test_aclose_of_an_iterator() -> None:
    api = Producers()
    async with linked(api) as (_, client):
        iterator = aiter(client.remote().parked())
        assert await anext(iterator) == "first"
        await iterator.aclose()
        assert api.log.entries.count("finally") == 1
        unsent = aiter(client.remote().parked())
        await unsent.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(unsent)


# Calls -------------------------------------------------------------------------------------------


class Parking:
    def __init__(self) -> None:
        self.log = Log()
        self.gate = anyio.Event()

    async def park(self) -> None:
        self.log("in")
        try:
            await anyio.sleep_forever()
        finally:
            self.log("out")

    async def late_stream(self) -> Any:
        """Returns its generator only when the gate opens, whatever is cancelled meanwhile."""
        self.log("in")
        with anyio.CancelScope(shield=True):
            await self.gate.wait()
        return self.generator()

    async def generator(self) -> Any:
        self.log("generator runs")
        try:
            while True:
                yield 1
        finally:
            self.log("generator closed")

    async def late_value(self) -> int:
        self.log("in")
        with anyio.CancelScope(shield=True):
            await self.gate.wait()
        return 7

    async def add(self, a: int, b: int) -> int:
        return a + b


async def test_a_cancelled_call_cancels_its_handler() -> None:
    """CAN-3: and the id is taken until the handler has cleaned up."""
    api = Parking()
    async with linked(api) as (server, client):
        async with anyio.create_task_group() as tg:
            tg.start_soon(client.remote().park)
            await api.log.wait_for("in")
            tg.cancel_scope.cancel()
        assert len(client.connection.outgoing) == 1
        await api.log.wait_for("out")
        await assert_quiet(server, client)


async def test_a_call_cancelled_toward_a_stock_peer() -> None:
    """CAN-6: nothing can be said before it turns out to be a stream; closing still ends it."""
    api = Parking()
    async with linked(api, hello=False, quiet=False) as (server, client):
        async with anyio.create_task_group() as tg:
            tg.start_soon(client.remote().park)
            await api.log.wait_for("in")
            tg.cancel_scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert api.log.entries == ["in"]
        assert len(server.connection.incoming) == 1
        assert await client.remote().add(1, 1) == 2
    assert api.log.entries == ["in", "out"]


@AGREED
@pytest.mark.parametrize("kind", ["late_stream", "late_value"])
async def test_a_call_given_up_before_its_answer(kind: str, hello: bool) -> None:
    """CAN-6, CAN-7: the stream that comes afterwards is cancelled; a value is dropped."""
    api = Parking()
    async with linked(api, hello=hello) as (server, client):
        async with anyio.create_task_group() as tg:
            tg.start_soon(client.remote()[kind])
            await api.log.wait_for("in")
            tg.cancel_scope.cancel()
        assert len(client.connection.outgoing) == 1
        api.gate.set()
        await assert_quiet(server, client)
        if "generator runs" in api.log.entries:
            assert api.log.entries.count("generator closed") == 1
        assert await client.remote().add(1, 1) == 2


@AGREED
async def test_a_call_that_timed_out_and_then_becomes_a_stream(hello: bool) -> None:
    api = Parking()
    async with linked(api, hello=hello, timeout=0.05) as (server, client):
        with pytest.raises(kk.CallTimeout):
            async for _ in client.remote().late_stream():
                pass
        api.gate.set()
        await assert_quiet(server, client)
        if "generator runs" in api.log.entries:
            assert api.log.entries.count("generator closed") == 1


async def test_a_call_given_up_before_the_hello_was_answered() -> None:
    """CAN-8: the cancel follows when it is known that the peer answers cancels."""
    with anyio.fail_after(BOUND):
        ours, theirs = memory_byte_streams()
        between_ours, between_theirs = memory_byte_streams()
        api = Parking()
        open_gate = anyio.Event()

        async def carry(source: Any, target: Any, gate: anyio.Event | None) -> None:
            try:
                while True:
                    data = await source.receive()
                    if gate is not None:
                        await gate.wait()
                    await target.send(data)
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                await target.aclose()

        async with anyio.create_task_group() as tg:
            # The client's bytes reach the server; the answers wait for the gate.
            tg.start_soon(carry, theirs, between_ours, None)
            tg.start_soon(carry, between_ours, theirs, open_gate)
            async with (
                kk.RPCChannel(between_theirs, expose=api, hello=False) as server,
                kk.RPCChannel(ours) as client,
            ):
                async with anyio.create_task_group() as callers:
                    callers.start_soon(client.remote().park)
                    await api.log.wait_for("in")
                    callers.cancel_scope.cancel()
                await anyio.wait_all_tasks_blocked()
                assert api.log.entries == ["in"]
                open_gate.set()
                await api.log.wait_for("out")
                await assert_quiet(server, client)


async def test_cancel_before_the_handler_began() -> None:
    """CAN-7: a request and its cancel in one read: the handler need not run, the call is answered."""
    api = Parking()
    async with linked(api) as (server, client):
        for _ in range(5):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await client.remote().park()
        await assert_quiet(server, client)
        assert api.log.entries.count("in") == api.log.entries.count("out")


async def test_many_calls_are_cancelled_at_once() -> None:
    api = Parking()
    async with linked(api) as (server, client):
        async with anyio.create_task_group() as tg:
            for _ in range(300):
                tg.start_soon(client.remote().park)
            await until(lambda: api.log.entries.count("in") == 300)
            tg.cancel_scope.cancel()
        await until(lambda: api.log.entries.count("out") == 300)
        await assert_quiet(server, client)
        assert await client.remote().add(1, 1) == 2


async def test_a_cancel_harms_no_other_call() -> None:
    """Calls share workers one after another; a cancel reaches the one it is for."""
    api = Parking()
    async with linked(api) as (_, client):
        for _ in range(50):
            async with anyio.create_task_group() as tg:
                tg.start_soon(client.remote().park)
                tg.start_soon(client.remote().add, 1, 1)
                await api.log.wait_for("in")
                tg.cancel_scope.cancel()
            api.log.entries.clear()
            assert await client.remote().add(2, 2) == 4


# Seen from the producer --------------------------------------------------------------------------


async def test_parked_in_an_await_it_sees_cancellation(anyio_backend_name: str) -> None:
    api = Producers()
    async with linked(api) as (_, client):
        stream = await client.remote().parked()
        await api.log.wait_for("parked")
        await stream.cancel()
        name = "CancelledError" if anyio_backend_name == "asyncio" else "Cancelled"
        assert api.log.entries == ["parked", name, "finally"]


async def test_suspended_at_a_yield_it_is_closed() -> None:
    api = Producers()
    async with linked(api) as (server, client):
        stream = await client.remote().at_a_yield()
        await anyio.wait_all_tasks_blocked()  # out of credit
        await stream.cancel()
        assert api.log.entries == ["GeneratorExit", "finally"]
        await assert_quiet(server, client)


async def test_awaits_in_the_cleanup() -> None:
    """At a yield they may await, within `cleanup_seconds`; at an await they need a shield."""
    log = Log()

    class Cleaning:
        async def at_a_yield(self) -> Any:
            try:
                while True:
                    yield 1
            finally:
                await checkpoint()
                log("cleaned")

        async def at_an_await(self) -> Any:
            try:
                yield 1
                await anyio.sleep_forever()
            finally:
                try:
                    await checkpoint()
                except BaseException:
                    log("cancelled again")
                    raise

        async def for_ever(self) -> Any:
            try:
                while True:
                    yield 1
            finally:
                await anyio.sleep_forever()

    async with linked(Cleaning(), limits=kk.Limits(cleanup_seconds=0.1)) as (_, client):
        stream = await client.remote().at_a_yield()
        await anyio.wait_all_tasks_blocked()
        await stream.cancel()
        assert log.entries == ["cleaned"]
        stream = await client.remote().at_an_await()
        await anyio.wait_all_tasks_blocked()
        await stream.cancel()
        assert log.entries == ["cleaned", "cancelled again"]
        stream = await client.remote().for_ever()
        await anyio.wait_all_tasks_blocked()
        await stream.cancel()


async def test_a_generator_that_ignores_its_cancellation() -> None:
    """It yields once more, or goes on: it is closed all the same, and the consumer is told."""
    log = Log()

    class Stubborn:
        async def once_more(self) -> Any:
            try:
                yield 1
                await anyio.sleep_forever()
            except BaseException:
                yield "never seen"
            finally:
                log("finally")

        async def swallows(self) -> Any:
            yield 1
            try:
                await anyio.sleep_forever()
            except BaseException:
                log("finally")
            yield "never seen"

        async def yields_at_close(self) -> Any:
            try:
                while True:
                    yield 1
            finally:
                log("finally")
                yield "never seen"  # RuntimeError: async generator ignored GeneratorExit

        async def raises(self) -> Any:
            try:
                while True:
                    yield 1
            finally:
                log("finally")
                raise ValueError("from the cleanup")

        async def add(self, a: int, b: int) -> int:
            return a + b

    async with linked(Stubborn()) as (server, client):
        for name in ("once_more", "swallows", "yields_at_close", "raises"):
            stream = await client.remote()[name]()
            assert await anext(stream) == 1
            await anyio.wait_all_tasks_blocked()
            await stream.cancel()
            assert log.entries == ["finally"], name
            log.entries.clear()
            assert await client.remote().add(1, 1) == 2
        await assert_quiet(server, client)


async def test_a_handler_that_ignores_its_cancellation_is_answered() -> None:
    log = Log()

    class Stubborn:
        async def swallows(self) -> int:
            log("in")
            try:
                await anyio.sleep_forever()
            except BaseException:
                log("swallowed")
            return 1

        async def raises(self) -> int:
            log("in")
            try:
                await anyio.sleep_forever()
            except BaseException:
                log("swallowed")
                raise ValueError("instead") from None

        async def awaits_more(self) -> int:
            log("in")
            for _ in range(3):
                try:
                    await anyio.sleep_forever()
                except BaseException:
                    log("swallowed")
            return 1

    async with linked(Stubborn()) as (server, client):
        for name in ("swallows", "raises", "awaits_more"):
            async with anyio.create_task_group() as tg:
                tg.start_soon(client.remote()[name])
                await log.wait_for("in")
                tg.cancel_scope.cancel()
            await log.wait_for("swallowed")
            await assert_quiet(server, client)
            log.entries.clear()


async def test_an_interceptors_wrapper_and_the_generator_are_closed_outermost_first() -> None:
    log = Log()

    class Inner:
        async def endless(self) -> Any:
            try:
                while True:
                    yield 1
            finally:
                log("inner")

    def wrapping(name: str) -> kk.Interceptor:
        async def intercept(ctx: kk.CallContext, next: kk.Next) -> Any:
            inner = await next()

            async def wrapper() -> Any:
                try:
                    async for value in inner:
                        yield value + 1
                finally:
                    log(name)

            return wrapper()

        return intercept

    async with linked(Inner(), interceptors=[wrapping("outer"), wrapping("middle")]) as (_, client):
        stream = await client.remote().endless()
        assert await anext(stream) == 3
        await anyio.wait_all_tasks_blocked()
        await stream.cancel()
        assert log.entries == ["outer", "middle", "inner"]


async def test_no_chunk_follows_a_cancel() -> None:
    """CAN-1: what the producer had queued is dropped, and it sends nothing more."""
    api = Producers()
    async with linked(api) as (server, client):
        stream = await client.remote().at_a_yield()
        assert await anext(stream) == "first"
        await stream.cancel()
        received = stream.received
        assert await client.remote().add(1, 1) == 2
        assert stream.received == received
        assert not server.connection.outbox.size


async def test_the_client_cancels_while_the_server_is_cancelling() -> None:
    """A handler's own nested call is cancelled with it, through both directions."""
    channels: list[kk.RPCChannel] = []
    parking = Parking()

    class Relay:
        async def relay(self) -> None:
            await channels[0].remote().park()

    async with linked(Relay(), parking) as (server, client):
        channels.append(server)
        async with anyio.create_task_group() as tg:
            tg.start_soon(client.remote().relay)
            await parking.log.wait_for("in")
            tg.cancel_scope.cancel()
        await parking.log.wait_for("out")
        await assert_quiet(server, client)


async def test_asyncio_task_cancel_of_a_consumer(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("asyncio's own")
    api = Producers()
    async with linked(api) as (_, client):

        async def consume() -> None:
            async for _ in client.remote().parked():
                pass

        task = asyncio.create_task(consume())
        await api.log.wait_for("parked")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await api.log.wait_for("finally")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(consume(), 0.05)
        await until(lambda: api.log.entries.count("finally") == 2)


async def storm(seed: int, hello: bool) -> None:
    """Two hundred calls and streams that end in every way at once; the tables must be empty afterwards."""
    rng = random.Random(seed)
    opened: list[int] = []
    closed: list[int] = []

    class Stormy:
        async def generator(self, key: int, pauses: int, n: int) -> Any:
            opened.append(key)
            try:
                for i in range(n):
                    if pauses and i % pauses == 0:
                        await checkpoint()
                    yield i
                if pauses == 1:
                    await anyio.sleep_forever()
                if pauses == 2:
                    raise ValueError("storm")
            finally:
                closed.append(key)

        async def sink(self, key: int, pauses: int, n: int, sink: kk.StreamSink[int]) -> Any:
            opened.append(key)
            try:
                for i in range(n):
                    if pauses and i % pauses == 0:
                        await checkpoint()
                    await sink.send(i)
                if pauses == 2:
                    raise ValueError("storm")
            finally:
                closed.append(key)

        def sync(self, key: int, pauses: int, n: int) -> Any:
            opened.append(key)
            try:
                yield from range(n)
                if pauses == 2:
                    raise ValueError("storm")
            finally:
                closed.append(key)

        async def call(self, key: int, pauses: int, n: int) -> int:
            opened.append(key)
            try:
                for _ in range(pauses * 5):
                    await checkpoint()
                if pauses == 2:
                    raise ValueError("storm")
                return n
            finally:
                closed.append(key)

        async def late(self, key: int, pauses: int, n: int) -> Any:
            for _ in range(pauses * 3):
                await checkpoint()
            return self.generator(key, pauses, n)

    async with linked(Stormy(), hello=hello) as (server, client):
        api = client.remote()

        async def consume(key: int) -> None:
            kind = rng.choice(["generator", "sink", "sync", "call", "late"])
            args = (key, rng.randrange(4), rng.choice([0, 1, 5, 64, 300, 3000]))
            leave_at, way = rng.choice([0, 1, 3, 70, 500]), rng.randrange(6)
            rounds = rng.randrange(40)
            with anyio.move_on_after(0.3) as scope:  # some of them park
                try:
                    if kind == "call" or way == 0:
                        async with anyio.create_task_group() as tg:
                            tg.start_soon(api[kind], *args)
                            for _ in range(rounds):
                                await checkpoint()
                            tg.cancel_scope.cancel()
                    elif way == 1:
                        stream = await api[kind](*args)
                        for _ in range(rounds):
                            await checkpoint()
                        await stream.cancel()
                    elif way == 2:
                        stream = await api[kind](*args)
                        del stream
                    else:
                        seen = 0
                        async for value in api[kind](*args):
                            assert value == seen
                            seen += 1
                            if seen >= leave_at:
                                if way == 3:
                                    break
                                if way == 4:
                                    scope.cancel()
                                else:
                                    raise ZeroDivisionError
                except* (kk.KkrpcError, ValueError, ZeroDivisionError):
                    pass

        async with anyio.create_task_group() as tg:
            for key in range(200):
                tg.start_soon(consume, key)
                if rng.random() < 0.2:
                    await checkpoint()
        gc.collect()
        await assert_quiet(server, client)
        await until(lambda: sorted(opened) == sorted(closed))
        assert len(set(closed)) == len(closed)
        assert await api.call(-1, 0, 7) == 7


@AGREED
@pytest.mark.parametrize("seed", range(5))
async def test_a_storm_of_cancels_leaves_nothing(seed: int, hello: bool) -> None:
    await storm(seed, hello)


@AGREED
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5, 30))
async def test_many_storms_of_cancels_leave_nothing(seed: int, hello: bool) -> None:
    await storm(seed, hello)
