"""Calls: awaited, concurrent, nested, in both directions; and what a handler's error becomes."""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import warnings
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from tests.channel.harness import BOUND, Log, linked, until

pytestmark = pytest.mark.anyio


class Math:
    async def add(self, a: int, b: int) -> int:
        return a + b


class Deep:
    math = Math()
    table = {"sub": lambda a, b: a - b, "inner": {"math": Math()}}


class API:
    math = Math()
    deep = Deep()

    async def echo(self, value: Any) -> Any:
        return value

    async def nothing(self) -> None:
        return None

    def threaded(self, value: int) -> int:
        return value + 1

    @kk.inline
    def inlined(self, value: int) -> int:
        return value + 2

    async def optional(self, a: int, b: int = 10) -> int:
        return a + b

    async def many(self, *values: int) -> int:
        return sum(values)

    async def count(self, n: int) -> Any:
        for i in range(n):
            yield i


# What a call gives ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [None, True, 0, -5, 2**53 - 1, 2**70, 1.5, "", "käse \u2028\n", [1, [2]], {"a": {"b": None}}]
)
async def test_a_value_comes_back_unchanged(value: Any) -> None:
    async with linked(API()) as (_, client):
        result = await client.remote().echo(value)
        assert result == value
        assert type(result) is type(value)


async def test_handlers_of_each_kind() -> None:
    async with linked(API()) as (_, client):
        api = client.remote()
        assert await api.nothing() is None
        assert await api.threaded(1) == 2
        assert await api.inlined(1) == 3
        assert await api.optional(1) == 11
        assert await api.optional(1, 2) == 3
        assert await api.many() == 0
        assert await api.many(1, 2, 3) == 6


async def test_nested_namespaces() -> None:
    async with linked(API()) as (_, client):
        api = client.remote()
        assert await api.math.add(1, 2) == 3
        assert await api.deep.math.add(1, 2) == 3
        assert await api.deep.table.sub(5, 2) == 3
        assert await api["deep"]["table"].inner.math.add(1, 1) == 2


async def test_a_dict_is_an_api() -> None:
    async def hello() -> str:
        return "hi"

    async with linked({"hello": hello, "a.b": hello}) as (_, client):
        assert await client.remote().hello() == "hi"


async def test_a_stock_peer_is_called_the_same() -> None:
    async with linked(API(), hello=False) as (server, client):
        assert await client.remote().math.add(1, 2) == 3
        assert client.connection.agreed is None
        assert server.connection.agreed is None


async def test_calls_in_both_directions() -> None:
    async with linked(API(), API()) as (a, b):
        results: list[int] = []

        async def call(channel: kk.RPCChannel) -> None:
            for i in range(50):
                results.append(await channel.remote().math.add(i, i))

        async with anyio.create_task_group() as tg:
            tg.start_soon(call, a)
            tg.start_soon(call, b)
        assert sorted(results) == sorted([2 * i for i in range(50)] * 2)


# A Call ----------------------------------------------------------------------------------------


async def test_a_call_is_sent_when_it_is_awaited() -> None:
    async with linked(API()) as (_, client):
        call = client.remote().echo(1)
        assert not client.connection.outgoing
        assert not client.connection.outbox.size
        assert await call == 1


async def test_a_call_is_a_coroutine() -> None:
    async with linked(API()) as (_, client):
        call = client.remote().echo(1)
        assert isinstance(call, collections.abc.Coroutine)
        assert isinstance(call, kk.Call)
        assert repr(call) == "<Call 'echo'>"
        assert await call == 1


async def test_start_soon_takes_a_remote_method() -> None:
    log = Log()

    class Noting:
        async def note(self, value: int) -> None:
            log(value)

    async with linked(Noting()) as (_, client):
        async with anyio.create_task_group() as tg:
            for i in range(5):
                tg.start_soon(client.remote().note, i)
        assert sorted(log.entries) == [0, 1, 2, 3, 4]


async def test_asyncio_takes_a_call_as_a_coroutine(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("create_task is asyncio's")
    async with linked(API()) as (_, client):
        api = client.remote()
        task = asyncio.create_task(api.echo(1))
        assert "Call" in repr(task)
        assert await task == 1
        assert await asyncio.gather(api.echo(1), api.echo(2)) == [1, 2]
        assert await asyncio.wait_for(api.echo(3), BOUND) == 3
        assert await asyncio.ensure_future(api.echo(4)) == 4
        with pytest.raises(ValueError, match="boom"):
            raise await asyncio.create_task(_returning(ValueError("boom")))


async def _returning(value: Any) -> Any:
    return value


async def test_trio_takes_a_remote_method(anyio_backend_name: str) -> None:
    if anyio_backend_name != "trio":
        pytest.skip("a nursery is trio's")
    import trio

    log = Log()

    class Noting:
        async def note(self, value: int) -> None:
            log(value)

    async with linked(Noting()) as (_, client):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.remote().note, 1)
        assert log.entries == [1]


async def test_a_task_of_a_call_can_be_cancelled(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("create_task is asyncio's")
    log = Log()

    class Parking:
        async def park(self) -> None:
            log("in")
            try:
                await anyio.sleep_forever()
            finally:
                log("out")

    async with linked(Parking()) as (_, client):
        task = asyncio.create_task(client.remote().park())
        await log.wait_for("in")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await log.wait_for("out")


async def test_a_task_of_a_call_that_never_ran(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("create_task is asyncio's")
    async with linked(API()) as (_, client):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # asyncio cancels it before its first step
            task = asyncio.create_task(client.remote().echo(1))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gc.collect()
        assert not client.connection.outgoing


async def test_a_call_is_awaited_or_iterated_once() -> None:
    async with linked(API()) as (_, client):
        call = client.remote().echo(1)
        await call
        with pytest.raises(RuntimeError, match="once"):
            await call
        with pytest.raises(RuntimeError, match="once"):
            aiter(call)
        call = client.remote().count(1)
        assert [value async for value in call] == [0]
        with pytest.raises(RuntimeError, match="once"):
            aiter(call)


async def test_a_call_that_was_never_awaited_warns() -> None:
    async with linked(API()) as (_, client):
        with pytest.warns(RuntimeWarning, match=r"call of 'math\.add' was never awaited"):
            client.remote().math.add(1, 2)
            gc.collect()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            client.remote().echo(1).close()
            gc.collect()


async def test_a_call_awaited_after_its_loop_never_began() -> None:
    async with linked(API()) as (_, client):
        call = client.remote().count(2)
        aiter(call)
        with pytest.raises(RuntimeError, match="after its loop"):
            await call


async def test_a_value_cannot_be_iterated() -> None:
    async with linked(API()) as (_, client):
        with pytest.raises(TypeError, match="not a stream"):
            async for _ in client.remote().echo(5):
                pass


def test_a_remote_is_no_sequence_and_has_no_private_names() -> None:
    async def main() -> None:
        async with kk.memory_pair() as (_, client):
            api = client.remote()
            with pytest.raises(TypeError):
                iter(api)
            with pytest.raises(AttributeError, match="underscore"):
                api._private  # noqa: B018 - the look-up is what fails
            with pytest.raises(TypeError):
                api()
            with pytest.raises(TypeError):
                api[1]
            with pytest.raises(AttributeError, match="other side"):
                api.a = 1
            with pytest.raises(AttributeError, match="other side"):
                del api.a
            assert repr(api.a.b) == "<Remote 'a.b'>"
            assert api.a.b is api.a.b, "a path that was named is kept"

    anyio.run(main)


# Concurrency -----------------------------------------------------------------------------------


async def test_the_reader_never_waits_for_a_handler() -> None:
    """CALL-2: a hundred calls in flight, answered in the opposite order."""
    gates = {i: anyio.Event() for i in range(100)}
    log = Log()

    class Gated:
        async def wait(self, i: int) -> int:
            log(("in", i))
            await gates[i].wait()
            return i

    async with linked(Gated()) as (_, client):

        async def call(i: int) -> None:
            assert await client.remote().wait(i) == i
            log(("out", i))

        async with anyio.create_task_group() as tg:
            for i in range(100):
                tg.start_soon(call, i)
            for i in range(100):
                await log.wait_for(("in", i))
            for i in reversed(range(100)):
                gates[i].set()
                await log.wait_for(("out", i))


async def test_a_handler_calls_back_into_the_channel() -> None:
    channels: list[kk.RPCChannel] = []

    class Side:
        def __init__(self, index: int) -> None:
            self.index = index

        async def down(self, n: int) -> int:
            return 0 if n == 0 else 1 + await channels[self.index].remote().down(n - 1)

    async with linked(Side(0), Side(1)) as (server, client):
        channels.extend((server, client))
        assert await client.remote().down(60) == 60
        async with anyio.create_task_group() as tg:
            for _ in range(20):
                tg.start_soon(client.remote().down, 10)


async def test_each_call_has_a_context_of_its_own() -> None:
    import contextvars

    var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=0)

    class Setting:
        async def set(self, value: int) -> int:
            before = var.get()
            var.set(value)
            await anyio.lowlevel.checkpoint()
            assert var.get() == value
            return before

    async with linked(Setting()) as (_, client):
        assert [await client.remote().set(i) for i in range(1, 5)] == [0, 0, 0, 0]


async def test_a_timeout_of_the_channel() -> None:
    """CALL-8: the caller raises CallTimeout, and the handler is cancelled."""
    log = Log()

    class Slow:
        async def park(self) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                log("cancelled")

        async def quick(self) -> int:
            return 1

    async with linked(Slow(), timeout=0.05) as (_, client):
        with pytest.raises(kk.CallTimeout, match="'park' was not answered within 0.05 s") as caught:
            await client.remote().park()
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.seconds == 0.05
        assert caught.value.method == "park"
        await log.wait_for("cancelled")
        assert await client.remote().quick() == 1


async def test_a_timeout_ends_with_the_answer() -> None:
    """A stream may take longer than the call that opened it."""
    gate = anyio.Event()

    class Slow:
        async def gated(self) -> Any:
            yield 1
            await gate.wait()
            yield 2

    async with linked(Slow(), timeout=0.2) as (_, client):
        seen = []
        async for value in client.remote().gated():
            seen.append(value)
            if value == 1:
                await anyio.sleep(0.4)  # longer than the timeout, on purpose
                gate.set()
        assert seen == [1, 2]


async def test_a_timeout_counts_while_the_writer_is_stuck() -> None:
    """A peer that does not read must not hold up a call beyond its timeout."""
    with anyio.fail_after(BOUND):
        from kkrpc_py.transports.memory import memory_byte_streams

        ours, theirs = memory_byte_streams()
        limits = kk.Limits(send_high_water=1000, drain_seconds=0.1)
        async with kk.RPCChannel(ours, timeout=0.1, limits=limits) as channel:
            api = channel.remote()
            for _ in range(4):  # the first ones fill the stream, then the outbox
                with pytest.raises(kk.CallTimeout):
                    await api.echo("x" * 200_000)
            with pytest.raises(kk.CallTimeout):
                await api.echo("y")
            assert len(channel.connection.outgoing) <= 5
        await theirs.aclose()


async def test_a_large_call_does_not_hold_up_the_next_ones() -> None:
    async with linked(API()) as (_, client):
        api = client.remote()
        big = "ä" * 3_000_000
        done: list[int] = []

        async def send_big() -> None:
            assert await api.echo(big) == big
            done.append(0)

        async def send_small(i: int) -> None:
            assert await api.echo(i) == i
            done.append(i)

        async with anyio.create_task_group() as tg:
            tg.start_soon(send_big)
            for i in range(1, 20):
                tg.start_soon(send_small, i)
        assert sorted(done) == list(range(20))


# Before and after ------------------------------------------------------------------------------


async def test_a_channel_must_be_entered() -> None:
    from kkrpc_py.transports.memory import memory_byte_streams

    ours, theirs = memory_byte_streams()
    channel = kk.RPCChannel(ours)
    assert not channel.closed
    with pytest.raises(RuntimeError, match="enter the channel first"):
        await channel.remote().echo(1)
    with pytest.raises(RuntimeError, match="enter the channel first"):
        await channel.ready()
    with pytest.raises(RuntimeError, match="enter the channel first"):
        await channel.wait_closed()
    await ours.aclose()
    await theirs.aclose()


async def test_a_call_on_a_closed_channel() -> None:
    async with linked(API(), quiet=False) as (_, client):
        pass
    with pytest.raises(kk.ChannelClosed):
        await client.remote().echo(1)
    with pytest.raises(ConnectionError):
        async for _ in client.remote().count(1):
            pass


# Errors ------------------------------------------------------------------------------------------


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class Slotted(Exception):
    """Its instances have public attributes that cannot be sent, and one that can."""

    def __init__(self) -> None:
        super().__init__("slotted")
        self.code = 42
        self.lock = object()
        self._private = 1
        self.cyclic: list[Any] = []
        self.cyclic.append(self.cyclic)


class Custom(BaseException):
    pass


class Raising:
    def __init__(self, make: Any) -> None:
        self.make = make

    async def coroutine(self) -> None:
        raise self.make()

    async def after_a_wait(self) -> None:
        await anyio.lowlevel.checkpoint()
        raise self.make()

    def threaded(self) -> None:
        raise self.make()

    @kk.inline
    def inlined(self) -> None:
        raise self.make()

    async def generator(self) -> Any:
        yield 1
        raise self.make()

    async def parked_generator(self) -> Any:
        yield 1
        await anyio.lowlevel.checkpoint()
        raise self.make()

    def sync_generator(self) -> Any:
        yield 1
        raise self.make()

    @kk.inline
    def inlined_generator(self) -> Any:
        yield 1
        raise self.make()

    async def sink(self, sink: kk.StreamSink[int]) -> None:
        await sink.send(1)
        raise self.make()

    async def fine(self) -> int:
        return 1


def _stray_cancellation() -> BaseException:
    return anyio.get_cancelled_exc_class()() if _backend() == "asyncio" else asyncio.CancelledError()


def _backend() -> str:
    import sniffio

    try:
        return sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        return "thread"


ODD = {
    "SystemExit": lambda: SystemExit(3),
    "GeneratorExit": GeneratorExit,
    "StopIteration": lambda: StopIteration(1),
    "StopAsyncIteration": StopAsyncIteration,
    "CancelledError": lambda: asyncio.CancelledError("stray"),
    "BaseException": lambda: Custom("custom"),
    "group": lambda: ExceptionGroup("some", [ValueError("one")]),
    "base group": lambda: BaseExceptionGroup("some", [SystemExit(1)]),
    "unprintable": Unprintable,
    "recursion": RecursionError,
    "memory": MemoryError,
    "fields": Slotted,
    "surrogate": lambda: ValueError("\ud800"),
    "KeyError": lambda: KeyError(object()),
}
CALLS = ["coroutine", "after_a_wait", "threaded", "inlined"]
STREAMS = ["generator", "parked_generator", "sync_generator", "inlined_generator", "sink"]


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("hello", [True, False], ids=["agreed", "stock"])
async def test_whatever_a_handler_raises_is_an_answer(kind: str, hello: bool) -> None:
    """ERR-6: an error response, and the channel lives, with nothing left in its tables."""
    async with linked(Raising(ODD[kind]), hello=hello) as (_, client):
        api = client.remote()
        for name in CALLS:
            with pytest.raises(kk.KkrpcError) as caught:
                await api[name]()
            assert not isinstance(caught.value, kk.ChannelClosed), name
        assert await api.fine() == 1


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("hello", [True, False], ids=["agreed", "stock"])
async def test_whatever_a_producer_raises_ends_its_stream(kind: str, hello: bool) -> None:
    """ERR-6, STR-9: a stream error after the values that came before, and the channel lives."""
    async with linked(Raising(ODD[kind]), hello=hello) as (_, client):
        api = client.remote()
        for name in STREAMS:
            seen = []
            with pytest.raises(kk.KkrpcError) as caught:
                async for value in api[name]():
                    seen.append(value)
            assert not isinstance(caught.value, kk.ChannelClosed), name
            assert seen == [1], name
        assert await api.fine() == 1


async def test_the_names_of_odd_errors_reach_the_caller() -> None:
    async with linked(Raising(lambda: SystemExit(3))) as (_, client):
        with pytest.raises(kk.RemoteError) as caught:
            await client.remote().coroutine()
        assert caught.value.name == "SystemExit"
        assert caught.value.message == "3"
        assert not isinstance(caught.value, SystemExit)


async def test_a_task_that_cancels_itself_answers(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("task.cancel() is asyncio's")

    class Suicidal:
        async def call(self) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await anyio.sleep_forever()

        async def at_the_return(self) -> int:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return 7

        async def stream(self) -> Any:
            yield 1
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await anyio.sleep_forever()

        async def fine(self) -> int:
            await anyio.lowlevel.checkpoint()
            return 1

    async with linked(Suicidal()) as (_, client):
        api = client.remote()
        for _ in range(3):
            with pytest.raises(kk.CallCancelled):
                await api.call()
            assert await api.fine() == 1
            assert await api.at_the_return() == 7
            assert await api.fine() == 1
            seen = []
            with pytest.raises(kk.CallCancelled):
                async for value in api.stream():
                    seen.append(value)
            assert seen == [1]
            assert await api.fine() == 1


async def test_a_stray_cancellation_of_trio_answers(anyio_backend_name: str) -> None:
    """A `Cancelled` that escapes the scope it belongs to cannot be made by hand on trio; one kept can."""
    if anyio_backend_name != "trio":
        pytest.skip("trio's own")
    import trio

    class Keeping:
        async def reraise(self) -> None:
            kept: list[BaseException] = []
            with trio.CancelScope() as scope:
                scope.cancel()
                try:
                    await trio.lowlevel.checkpoint()
                except trio.Cancelled as exc:
                    kept.append(exc)
            raise kept[0]

        async def fine(self) -> int:
            await anyio.lowlevel.checkpoint()
            return 1

    async with linked(Keeping()) as (_, client):
        for _ in range(3):
            with pytest.raises(kk.CallCancelled):
                await client.remote().reraise()
            assert await client.remote().fine() == 1


async def test_an_error_carries_fields_and_cause() -> None:
    class Coded(Exception):
        def __init__(self) -> None:
            super().__init__("coded")
            self.code = 42
            self.details = {"a": [1]}
            self.unsendable = object()
            self._private = "secret"

    class Failing:
        async def coded(self) -> None:
            try:
                raise ValueError("the reason")
            except ValueError as exc:
                raise Coded from exc

        async def value(self) -> None:
            raise ValueError("no such user")

        async def key(self) -> None:
            raise KeyError("name")

    async with linked(Failing()) as (_, client):
        api = client.remote()
        with pytest.raises(kk.RemoteError) as caught:
            await api.coded()
        assert (caught.value.name, caught.value.message) == ("Coded", "coded")
        assert caught.value.fields == {"code": 42, "details": {"a": [1]}}
        assert caught.value.cause == {"name": "ValueError", "message": "the reason"}
        assert caught.value.remote_traceback is None
        with pytest.raises(ValueError, match="no such user") as value:
            await api.value()
        assert isinstance(value.value, kk.RemoteError)
        with pytest.raises(KeyError) as key:
            await api.key()
        assert str(key.value) == "name"


async def test_tracebacks_are_sent_where_the_server_allows_it() -> None:
    class Failing:
        async def value(self) -> None:
            raise ValueError("no such user")

    async with linked(Failing(), tracebacks=True) as (_, client):
        with pytest.raises(ValueError) as caught:
            await client.remote().value()
        assert isinstance(caught.value, kk.RemoteError)
        assert "in value" in (caught.value.remote_traceback or "")


async def test_an_error_passes_through_two_channels() -> None:
    class Failing:
        async def value(self) -> None:
            error = ValueError("far away")
            error.code = 7  # type: ignore[attr-defined]  # a field of its own
            raise error

    async with linked(Failing()) as (_, far):

        class Relay:
            async def value(self) -> None:
                await far.remote().value()

        async with linked(Relay()) as (_, near):
            with pytest.raises(ValueError, match="far away") as caught:
                await near.remote().value()
            assert isinstance(caught.value, kk.RemoteError)
            assert caught.value.fields == {"code": 7}


@pytest.mark.parametrize(
    "path",
    [
        "nope",
        "math.nope",
        "nope.add",
        "_private",
        "math._add",
        "__class__",
        "math.__init__",
        "echo.add",
        "",
        ".",
    ],
)
async def test_what_is_not_there(path: str) -> None:
    async with linked(API()) as (_, client):
        with pytest.raises(kk.MethodNotFound):
            await kk.Call(client, path, [])


@pytest.mark.parametrize("args", [(), (1,), (1, 2, 3)])
async def test_wrong_numbers_of_arguments(args: tuple[int, ...]) -> None:
    async with linked(API()) as (_, client):
        with pytest.raises(TypeError, match="takes 2 positional arguments"):
            await client.remote().math.add(*args)


async def test_unserialisable_arguments_are_refused_before_anything_is_sent() -> None:
    async with linked(API()) as (_, client):
        api = client.remote()
        with pytest.raises(kk.NotSerializable) as caught:
            await api.echo({"when": object()})
        assert caught.value.path == "args[0]['when']"
        assert isinstance(caught.value, TypeError)
        assert not client.connection.outgoing
        assert await api.echo(1) == 1


async def test_unserialisable_results_are_errors_and_the_channel_lives() -> None:
    class Odd:
        async def value(self) -> Any:
            return [object()]

        async def stream(self) -> Any:
            yield 1
            yield object()
            yield 3

        def returning(self) -> Any:
            yield 1
            return object()

        async def fine(self) -> int:
            return 1

    async with linked(Odd()) as (_, client):
        api = client.remote()
        with pytest.raises(kk.KkrpcError, match="object at result"):
            await api.value()
        for name in ("stream", "returning"):
            seen = []
            with pytest.raises(kk.KkrpcError, match="object"):
                async for value in api[name]():
                    seen.append(value)
            assert seen == [1]
        assert await api.fine() == 1


async def test_too_many_calls_are_refused() -> None:
    """CALL-7."""
    gate = anyio.Event()

    class Gated:
        async def wait(self) -> int:
            await gate.wait()
            return 1

    async with linked(Gated(), limits=kk.Limits(calls=3), quiet=False) as (server, client):
        results: list[int] = []

        async def call() -> None:
            results.append(await client.remote().wait())

        async with anyio.create_task_group() as tg:
            for _ in range(3):
                tg.start_soon(call)
            await until(lambda: len(server.connection.incoming) == 3)
            with pytest.raises(kk.LimitExceeded):
                await client.remote().wait()
            gate.set()
        assert results == [1, 1, 1]
        assert await client.remote().wait() == 1


async def test_a_frame_over_the_limit_is_refused_by_its_sender() -> None:
    """FRM-6: the call fails, the channel lives."""

    class Big:
        async def big(self) -> str:
            return "x" * 100_000

        async def echo(self, value: Any) -> Any:
            return value

    async with linked(Big(), limits=kk.Limits(frame=50_000)) as (_, client):
        api = client.remote()
        with pytest.raises(kk.LimitExceeded):
            await api.echo("x" * 100_000)
        with pytest.raises(kk.LimitExceeded):
            await api.big()
        assert await api.echo(1) == 1
