"""Whoever produces: three surfaces, how they end, and what is told of nobody wanting it any more."""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio.abc import ObjectSendStream
from anyio.lowlevel import checkpoint

import kkrpc_py as kk
from kkrpc_py.channel.signals import CancelSignal
from kkrpc_py.limits import Limits
from tests.channel.harness import BOUND, Log, linked, until, without_collector
from tests.channel.peer import request
from tests.streaming.scripts import all_blocked, collected, received, scripted_client

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def streaming(
    *, options: Any = None, **channel_options: Any
) -> AsyncIterator[tuple[kk.OutboundStream[Any], kk.RemoteStreams]]:
    """A stream `x` of the channel `c`, and a client of its hub."""
    hub = kk.StreamHub()
    stream = hub.create("c", **(options or {})).start("x")
    async with linked({"streams": hub}, **channel_options) as (_, client):
        yield stream, kk.streams(client)


# --- write, error, close ----------------------------------------------------------------------------


async def test_what_is_written_arrives_in_order() -> None:
    async with streaming() as (stream, streams):
        stream.write(1)
        reader = streams.subscribe("c", "x")
        assert await reader.receive() == 1
        stream.write(2)
        stream.write(None)
        assert await received(reader, 2) == [2, None]
        stream.write([3])
        assert not stream.closed
        stream.close()
        assert stream.closed
        assert await reader.receive() == [3]
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await reader.receive()
        assert not stream.signal.cancelled


async def test_after_the_end_nothing_is_written() -> None:
    async with streaming() as (stream, streams):
        stream.write(1)
        for end in (
            stream.close,
            lambda: stream.error("late"),
            stream.close,
            lambda: stream.error(ValueError()),
        ):
            end()
            for write in (stream.write, stream.send):
                with pytest.raises(kk.StreamClosed, match="has ended") as closed:
                    result = write(2)
                    if result is not None:
                        await result
                assert closed.value.code == "DF0031"
        await stream.aclose()
        # The first end is the one that counts.
        assert await collected(streams.subscribe("c", "x")) == [1]


async def test_the_first_end_counts_where_it_is_an_error() -> None:
    async with streaming() as (stream, streams):
        stream.error(ValueError("first"))
        stream.error(KeyError("second"))
        stream.close()
        with pytest.raises(kk.RemoteError, match="first"):
            await collected(streams.subscribe("c", "x"))


class Custom(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.detail = {"a": [1]}


ERRORS: dict[str, Any] = {
    "an exception": (ValueError("what it says"), "ValueError", "what it says"),
    "its fields": (Custom("what it says"), "Custom", "what it says"),
    "text": ("what it says", "Error", "what it says"),
    "no text": ("", "Error", ""),
    "an error from the wire": (kk.RemoteError("TheirError", "what it says"), "TheirError", "what it says"),
    "one without a message": (RuntimeError(), "RuntimeError", ""),
}


@pytest.mark.parametrize("case", ERRORS)
async def test_an_error_comes_after_what_was_written(case: str) -> None:
    error, name, message = ERRORS[case]
    async with streaming() as (stream, streams):
        early = streams.subscribe("c", "x")
        await early.__aenter__()
        stream.write(1)
        stream.error(error)
        assert stream.closed
        late = streams.subscribe("c", "x")
        for reader in (early, late):
            assert await reader.receive() == 1
            for _ in range(2):
                with pytest.raises(kk.RemoteError) as raised:
                    await reader.receive()
                assert (raised.value.name, raised.value.message) == (name, message)
                if case == "its fields":
                    assert raised.value.fields["detail"] == {"a": [1]}


@pytest.mark.parametrize("tracebacks", [False, True])
async def test_an_error_is_what_a_generator_would_have_raised(tracebacks: bool) -> None:
    """Byte for byte: a stream's error crosses as every other, and its traceback only where those do."""
    errors = [
        ValueError("a"),
        Custom("b"),
        kk.UnknownStream("c"),
        kk.StateConflict("d", 7),
        kk.CallCancelled("e"),
        kk.ChannelClosed("f"),
        kk.LimitExceeded("g"),
        kk.NotSerializable("set", "value", "h"),
        kk.RemoteError("Theirs", "i"),
    ]
    for error in errors:

        async def generate(error: Exception = error) -> Any:
            raise error
            yield

        hub = kk.StreamHub()
        stream = hub.create("c", closed_stream_retention=0).start("x")
        api = {"streams": hub, "generate": generate}
        async with scripted_client(hub, api=api, tracebacks=tracebacks) as client:
            subscriber = await client.subscribe("c", "x")
            try:
                await anext(generate())
            except Exception as raised:
                stream.error(raised)
            await client.hear()
            client.subscribers["g"] = other = type(subscriber)(client, "g")
            other.mark = {}
            await client.send(request("g", "generate"))
            stacks = [found.error.pop("stack", "") for found in (subscriber, other)]
            assert subscriber.error == other.error, error
            assert [__file__ in stack for stack in stacks] == [tracebacks, tracebacks], error


async def test_an_error_that_is_no_error() -> None:
    """What says nothing of itself ends the stream all the same."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("nothing to say")

    class Unsendable(Exception):
        def __init__(self) -> None:
            super().__init__("text")
            self.field = object()
            self.fine = 1

    for error in (
        Mute(),
        Unsendable(),
        SystemExit(3),
        KeyboardInterrupt(),
        BaseExceptionGroup("g", [ValueError()]),
    ):
        async with streaming() as (stream, streams):
            stream.error(error)
            assert stream.closed
            with pytest.raises(kk.KkrpcError):
                await collected(streams.subscribe("c", "x"))


async def test_known_errors_are_what_they_were() -> None:
    for error in (kk.UnknownStream("no"), kk.StateConflict("late", 7), kk.StreamClosed("over")):
        async with streaming() as (stream, streams):
            stream.error(error)
            with pytest.raises(type(error)) as raised:
                await collected(streams.subscribe("c", "x"))
            assert str(raised.value) == str(error)
            assert raised.value.code == error.code
            assert getattr(raised.value, "version", 7) == 7


async def test_what_cannot_be_sent_is_told_to_the_producer() -> None:
    hub = kk.StreamHub(limits=Limits(frame=2000, depth=10, digits=20))
    stream = hub.create("c").start("x")
    deep: Any = 1
    for _ in range(12):
        deep = [deep]
    for value, error in (
        (object(), kk.NotSerializable),
        (print, kk.NotSerializable),
        (deep, kk.NotSerializable),
        (10**20, kk.NotSerializable),
        ("x" * 2000, kk.LimitExceeded),
    ):
        with pytest.raises(error):
            stream.write(value)
        with pytest.raises(error):
            await stream.send(value)
    stream.write("fine")
    stream.close()
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x")
        assert await collected(reader) == ["fine"]
        assert (reader.last_seq, reader.dropped) == (1, 0)


async def test_values_are_those_of_the_moment() -> None:
    async with streaming() as (stream, streams):
        value: dict[str, Any] = {"n": [1]}
        stream.write(value)
        value["n"].append(2)
        stream.write(value)
        value.clear()
        reader = streams.subscribe("c", "x")
        assert await received(reader, 2) == [{"n": [1]}, {"n": [1, 2]}]
        await reader.aclose()


# --- an anyio stream --------------------------------------------------------------------------------


async def test_it_is_a_send_stream() -> None:
    async with streaming() as (stream, streams):
        assert isinstance(stream, ObjectSendStream)
        async with stream as entered:
            assert entered is stream
            for number in range(3):
                await entered.send(number)
        assert stream.closed
        assert await collected(streams.subscribe("c", "x")) == [0, 1, 2]


async def test_an_exception_in_the_block_is_the_streams() -> None:
    async with streaming() as (stream, streams):
        with pytest.raises(ValueError, match="half of it"):
            async with stream:
                await stream.send(1)
                raise ValueError("half of it")
        reader = streams.subscribe("c", "x")
        assert await reader.receive() == 1
        with pytest.raises(kk.RemoteError, match="half of it"):
            await reader.receive()


async def test_a_cancelled_block_is_no_whole_stream() -> None:
    async with streaming() as (stream, streams):
        with anyio.CancelScope() as scope:
            async with stream:
                stream.write(1)
                scope.cancel()
                await stream.send(2)
        reader = streams.subscribe("c", "x")
        assert await reader.receive() == 1
        with pytest.raises(kk.CallCancelled, match="producer"):
            await reader.receive()


async def test_a_block_that_ended_the_stream_itself() -> None:
    async with streaming() as (stream, streams):
        async with stream:
            stream.close()
        with pytest.raises(ValueError):
            async with stream:
                raise ValueError("too late")
        assert await collected(streams.subscribe("c", "x")) == []


async def test_send_gives_the_readers_their_turn() -> None:
    """A producer that never waits by itself loses a reader nothing that keeps up."""
    async with streaming() as (stream, streams):
        reader = streams.subscribe("c", "x", high_water_mark=4, overflow="error")
        await reader.__aenter__()
        got: list[int] = []

        async def read() -> None:
            async for value in reader:
                got.append(value)

        async with anyio.create_task_group() as tg:
            tg.start_soon(read)
            for number in range(30):
                await stream.send(number)
            stream.close()
        assert got == list(range(30))


async def test_the_smallest_mark_says_how_often_that_is() -> None:
    async with streaming() as (stream, streams):
        stream.subscribe(None, high_water_mark=1, overflow="latest")
        reader = streams.subscribe("c", "x", high_water_mark=12, overflow="error")
        async with reader, anyio.create_task_group() as tg:

            async def send() -> None:
                for number in range(40):
                    await stream.send(number)
                stream.close()

            tg.start_soon(send)
            assert await collected(reader) == list(range(40))


async def test_a_small_mark_that_is_gone_costs_nothing_any_more() -> None:
    """How often `send` gives way hangs on those who are there, not on whoever has been."""
    async with streaming() as (stream, streams):
        turns = 0
        async with streams.subscribe("c", "x", high_water_mark=1000), anyio.create_task_group() as tg:
            small = stream.subscribe(None, high_water_mark=1, overflow="error")
            stream.leave(small)

            async def count() -> None:
                nonlocal turns
                while True:
                    await checkpoint()
                    turns += 1

            tg.start_soon(count)
            for number in range(300):
                await stream.send(number)
            tg.cancel_scope.cancel()
        assert turns < 50


async def test_send_is_found_waiting_by_a_cancellation() -> None:
    async with streaming() as (stream, _):
        with anyio.move_on_after(0) as scope:
            await stream.send(1)
        assert scope.cancelled_caught
        assert stream.log.next == 1, "what was cancelled was not sent"
        with anyio.fail_after(BOUND), anyio.CancelScope() as scope:
            scope.cancel()
            while True:
                await stream.send(1)


# --- pipe_from --------------------------------------------------------------------------------------


class Source:
    """A generator that says what becomes of it."""

    def __init__(self, *values: Any, then: Any = None) -> None:
        self.values = values
        self.then = then
        self.log = Log()

    async def __aiter__(self) -> Any:
        self.log("begun")
        try:
            for value in self.values:
                yield value
            if self.then == "wait":
                self.log("waiting")
                await anyio.sleep_forever()
            if isinstance(self.then, BaseException):
                raise self.then
        except BaseException as exc:
            self.log(type(exc).__name__ if isinstance(exc, Exception) else "interrupted")
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await checkpoint()
            self.log("closed")


async def test_pipe_from_sends_all_and_closes() -> None:
    async with streaming() as (stream, streams):
        source = Source(1, 2, 3)
        await stream.pipe_from(source)
        assert source.log.entries == ["begun", "closed"]
        assert stream.closed
        assert await collected(streams.subscribe("c", "x")) == [1, 2, 3]


async def test_pipe_from_of_a_channel_starts_a_stream() -> None:
    hub = kk.StreamHub()
    chat = hub.create("c")
    await chat.pipe_from(Source(1, 2), "given")
    await chat.pipe_from(Source())
    assert chat.ids()[0] == "given"
    assert len(chat.ids()) == 2
    async with linked({"streams": hub}) as (_, client):
        for id, values in zip(chat.ids(), ([1, 2], []), strict=True):
            assert await collected(kk.streams(client).subscribe("c", id)) == values


async def test_what_the_source_raises_is_the_streams() -> None:
    async with streaming() as (stream, streams):
        source = Source(1, then=ValueError("broken"))
        with pytest.raises(ValueError, match="broken"):
            await stream.pipe_from(source)
        assert source.log.entries == ["begun", "ValueError", "closed"]
        reader = streams.subscribe("c", "x")
        assert await reader.receive() == 1
        with pytest.raises(kk.RemoteError, match="broken"):
            await reader.receive()


async def test_what_cannot_be_sent_ends_the_pipe() -> None:
    async with streaming() as (stream, streams):
        source = Source(1, object(), 2)
        with pytest.raises(kk.NotSerializable):
            await stream.pipe_from(source)
        assert source.log.entries[-1] == "closed"
        reader = streams.subscribe("c", "x")
        assert await reader.receive() == 1
        with pytest.raises(kk.RemoteError) as raised:
            await reader.receive()
        assert raised.value.name == "NotSerializable"


async def test_a_source_that_has_no_generator() -> None:
    class Plain:
        def __init__(self) -> None:
            self.left = 3

        def __aiter__(self) -> Plain:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    async with streaming() as (stream, streams):
        await stream.pipe_from(Plain())
        assert await collected(streams.subscribe("c", "x")) == [2, 1, 0]


async def test_what_is_no_source() -> None:
    async with streaming() as (stream, _):
        with pytest.raises(TypeError):
            await stream.pipe_from([1, 2])  # type: ignore[arg-type]  # the mistake
        assert not stream.closed or stream.log.next == 1


async def test_a_pipe_that_is_cancelled_closes_its_source() -> None:
    async with streaming() as (stream, streams):
        source = Source(1, then="wait")
        async with anyio.create_task_group() as tg:
            tg.start_soon(stream.pipe_from, source)
            await source.log.wait_for("waiting")
            tg.cancel_scope.cancel()
        assert source.log.entries[-2:] == ["interrupted", "closed"]
        reader = streams.subscribe("c", "x")
        assert await reader.receive() == 1
        with pytest.raises(kk.CallCancelled):
            await reader.receive()


@pytest.mark.parametrize("how", ["cancel", "leave", "drop", "disconnect"])
async def test_nobody_wants_it_any_more(how: str) -> None:
    """The source is cancelled and closed, and the pipe returns."""
    hub = kk.StreamHub()
    stream = hub.create("c").start("x")
    source = Source(1, then="wait")
    async with linked({"streams": hub}, quiet=False, limits=Limits(finish_seconds=0.01)) as (_, client):
        async with anyio.create_task_group() as tg:
            tg.start_soon(stream.pipe_from, source)
            await source.log.wait_for("waiting")
            reader: Any = kk.streams(client).subscribe("c", "x")
            if how == "leave":
                async for value in reader:
                    assert value == 1
                    break
            else:
                assert await reader.receive() == 1
            if how == "cancel":
                reader.cancel()
            elif how == "drop":
                del reader
            elif how == "disconnect":
                await client.aclose()
        assert source.log.entries[-2:] == ["interrupted", "closed"]
        assert stream.signal.cancelled
        assert stream.closed


async def test_a_pipe_that_nobody_wants_does_not_begin() -> None:
    async with streaming() as (stream, streams):
        await (reader := streams.subscribe("c", "x")).__aenter__()
        await reader.aclose()
        assert stream.signal.cancelled
        source = Source(1, 2)
        with anyio.fail_after(BOUND):
            await stream.pipe_from(source)
        assert stream.closed
        assert source.log.entries in (
            [],
            ["begun", "interrupted", "closed"],
            ["begun", "GeneratorExit", "closed"],
        )


async def test_a_stream_that_is_closed_while_it_is_piped() -> None:
    async with streaming() as (stream, streams):
        go = anyio.Event()

        async def source() -> Any:
            yield 1
            await go.wait()
            yield 2

        async with anyio.create_task_group() as tg:

            async def pipe() -> None:
                with pytest.raises(kk.StreamClosed):
                    await stream.pipe_from(source())

            tg.start_soon(pipe)
            reader = streams.subscribe("c", "x")
            assert await reader.receive() == 1
            stream.close()
            go.set()
        assert await collected(streams.subscribe("c", "x")) == [1]
        with pytest.raises(anyio.EndOfStream):
            await reader.receive()


async def test_a_source_that_does_not_close_is_left_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """A cleanup that hangs holds nobody up for ever; here it waits for less than its bound."""
    async with streaming() as (stream, _):
        closed = anyio.Event()

        async def source() -> Any:
            try:
                yield 1
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await closed.wait()

        async with anyio.create_task_group() as tg:
            tg.start_soon(stream.pipe_from, source())
            await until(lambda: stream.log.next == 2)
            tg.cancel_scope.cancel()
            closed.set()
        assert stream.closed


# --- the signal -------------------------------------------------------------------------------------


async def test_the_signal_is_set_when_the_last_one_has_gone() -> None:
    async with streaming() as (stream, streams):
        seen: list[str] = []
        stream.signal.on_cancel(lambda: seen.append("called"))
        readers = [streams.subscribe("c", "x") for _ in range(3)]
        for reader in readers:
            await reader.__aenter__()
        assert stream.subscribers == 3
        for reader in readers[:2]:
            await reader.aclose()
        assert (stream.subscribers, stream.signal.cancelled, stream.signal.is_set()) == (1, False, False)
        async with anyio.create_task_group() as tg:

            async def wait(how: str) -> None:
                if how == "wait":
                    await stream.signal.wait()
                else:
                    await stream.signal
                seen.append(how)

            tg.start_soon(wait, "wait")
            tg.start_soon(wait, "await")
            await all_blocked()
            assert seen == []
            await readers[2].aclose()
        assert sorted(seen) == ["await", "called", "wait"]
        assert (stream.subscribers, stream.signal.cancelled, stream.signal.is_set()) == (0, True, True)
        await stream.signal
        await stream.signal.wait()
        # It says something of what was, and ends nothing.
        assert not stream.closed
        stream.write("for those who come later")
        again = streams.subscribe("c", "x")
        assert await again.receive() == "for those who come later"
        assert stream.signal.cancelled
        await again.aclose()
        assert seen.count("called") == 1


async def test_no_subscriber_as_yet_is_no_reason() -> None:
    async with streaming() as (stream, streams):
        stream.write(1)
        with pytest.raises(kk.UnknownStream):
            await streams.subscribe("c", "unknown").receive()
        assert not stream.signal.cancelled


async def test_who_has_read_to_the_end_did_not_cancel() -> None:
    for end in ("close", "error"):
        async with streaming() as (stream, streams):
            reader = streams.subscribe("c", "x")
            await reader.__aenter__()
            getattr(stream, end)(*(["failed"] if end == "error" else []))
            with contextlib.suppress(kk.RemoteError):
                await collected(reader)
            await until(lambda: stream.subscribers == 0)
            assert not stream.signal.cancelled


async def test_one_who_was_too_slow_has_gone_too() -> None:
    hub = kk.StreamHub()
    stream = hub.create("c").start("x")
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", highWaterMark=1, overflow="error")
        for number in range(100):
            stream.write(number)
        await subscriber.grant(1)
        assert subscriber.error["name"] == "StreamOverflow"
        assert stream.signal.cancelled
        assert stream.subscribers == 0


async def test_a_signal_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    signal = CancelSignal()
    seen: list[str] = []

    def failing() -> None:
        seen.append("failing")
        raise ValueError("a callback's own")

    def again() -> None:
        seen.append("again")
        signal.on_cancel(lambda: seen.append("at once"))
        signal.set()

    never = lambda: seen.append("never")  # noqa: E731 - the same object twice
    for callback in (failing, again, never, never):
        signal.on_cancel(callback)
    signal.forget(never)
    signal.forget(never)
    with caplog.at_level(logging.ERROR, "kkrpc_py"):
        signal.set()
        signal.set()
    assert seen == ["failing", "again", "at once"]
    assert [record.message for record in caplog.records] == ["a callback of a cancel signal failed"]
    assert "not" not in repr(signal)
    with pytest.raises(ValueError, match="a callback's own"):
        raise caplog.records[0].exc_info[1]  # type: ignore[misc,index]  # it is there, and whole


async def test_a_signal_keeps_nothing_once_it_is_set() -> None:
    class Listener:
        def tell(self) -> None: ...

    with without_collector():
        signal, listener = CancelSignal(), Listener()
        kept = weakref.ref(listener)
        signal.on_cancel(listener.tell)
        del listener
        assert kept() is not None
        signal.set()
        assert kept() is None


async def test_a_pipe_leaves_nothing_at_the_signal() -> None:
    async with streaming() as (stream, _):
        await stream.pipe_from(Source(1))
        assert not stream.signal._callbacks
