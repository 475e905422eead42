"""How a channel begins and ends: `ready`, `closed`, `wait_closed`, and what leaving its block raises."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from kkrpc_py.transports.memory import memory_byte_streams
from tests.channel.harness import BOUND, Log, handler_threads, linked, threads_gone, until

pytestmark = pytest.mark.anyio


class API:
    def __init__(self) -> None:
        self.log = Log()
        self.release = threading.Event()

    async def add(self, a: int, b: int) -> int:
        return a + b

    async def park(self) -> None:
        self.log("in")
        try:
            await anyio.sleep_forever()
        finally:
            self.log("out")

    async def ticks(self) -> Any:
        self.log("in")
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            self.log("out")

    async def endless(self) -> Any:
        self.log("in")
        try:
            while True:
                yield 1
        finally:
            self.log("out")

    async def shielded(self) -> None:
        self.log("in")
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.1)
            self.log("out")

    def blocked(self) -> None:
        self.log("in")
        self.release.wait(60)

    def blocked_generator(self) -> Any:
        yield 1
        self.log("in")
        self.release.wait(60)
        yield 2


# Leaving the block -------------------------------------------------------------------------------


async def _park(client: kk.RPCChannel, api: API, tg: Any) -> None:
    """Calls and streams that are open when the block is left."""

    async def call() -> None:
        with pytest.raises(kk.ChannelClosed):
            await client.remote().park()

    async def consume() -> None:
        with pytest.raises(kk.ChannelClosed):
            async for _ in client.remote().ticks():
                pass

    tg.start_soon(call)
    tg.start_soon(consume)
    await until(lambda: api.log.entries.count("in") == 2)


@pytest.mark.parametrize(
    "error", [ZeroDivisionError, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError]
)
async def test_leaving_raises_the_bodys_own_exception(
    error: type[BaseException], anyio_backend_name: str
) -> None:
    if error is asyncio.CancelledError and anyio_backend_name != "asyncio":
        pytest.skip("asyncio's own")
    api = API()
    ours, theirs = memory_byte_streams()
    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tg:
            own = error("mine")
            async with kk.RPCChannel(theirs, expose=api):
                try:
                    async with kk.RPCChannel(ours) as client:
                        await _park(client, api, tg)
                        raise own
                except BaseException as exc:
                    assert exc is own
                    assert exc.__cause__ is None
                    assert exc.__context__ is None
            assert client.closed


async def test_leaving_under_a_cancelled_outer_scope() -> None:
    api = API()
    ours, theirs = memory_byte_streams()
    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tg, kk.RPCChannel(theirs, expose=api):
            with anyio.CancelScope() as scope:
                async with kk.RPCChannel(ours) as client:
                    await _park(client, api, tg)
                    scope.cancel()
                    await anyio.sleep_forever()
            assert scope.cancelled_caught
            assert client.closed
            await until(lambda: api.log.entries.count("out") == 2)


async def test_the_bodys_exception_wins_over_an_outer_cancellation() -> None:
    ours, theirs = memory_byte_streams()
    with anyio.fail_after(BOUND):
        async with kk.RPCChannel(theirs, expose=API()):
            with pytest.raises(ZeroDivisionError):
                with anyio.CancelScope() as scope:
                    async with kk.RPCChannel(ours) as client:
                        await client.ready()
                        scope.cancel()
                        raise ZeroDivisionError


async def test_an_outer_timeout_raises_its_own_error() -> None:
    ours, theirs = memory_byte_streams()
    with anyio.fail_after(BOUND):
        async with kk.RPCChannel(theirs, expose=API()):
            with pytest.raises(TimeoutError) as caught:
                with anyio.fail_after(0.05):
                    async with kk.RPCChannel(ours) as client:
                        await client.remote().park()
            assert not isinstance(caught.value, kk.KkrpcError)


async def test_asyncios_own_timeout(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("asyncio's own")
    ours, theirs = memory_byte_streams()
    with anyio.fail_after(BOUND):
        async with kk.RPCChannel(theirs, expose=API()):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    async with kk.RPCChannel(ours) as client:
                        await client.remote().park()
            assert client.closed


async def test_a_task_cancel_while_the_channel_closes(anyio_backend_name: str) -> None:
    """Asyncio's `task.cancel()` passes anyio's shields: nothing may be left running all the same."""
    if anyio_backend_name != "asyncio":
        pytest.skip("asyncio's own")
    api = API()
    with anyio.fail_after(BOUND):
        before = asyncio.all_tasks()
        ours, theirs = memory_byte_streams()
        entered = anyio.Event()

        async def serve() -> None:
            async with kk.RPCChannel(theirs, expose=api) as server:
                entered.set()
                await until(lambda: "in" in api.log.entries)
                assert server.connection.incoming

        async with kk.RPCChannel(ours) as client:
            task = asyncio.create_task(serve())
            await entered.wait()

            async def call() -> None:
                with pytest.raises(kk.ChannelClosed):
                    await client.remote().shielded()

            async with anyio.create_task_group() as tg:
                tg.start_soon(call)
                await until(lambda: "in" in api.log.entries)
                await anyio.sleep(0.03)  # it is in its 0.1 s of shielded cleanup now
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        await until(lambda: asyncio.all_tasks() == before)
        assert api.log.entries == ["in", "out"]


async def test_a_task_cancel_while_it_drains(anyio_backend_name: str) -> None:
    """The peer does not read; nothing of the channel's stays, and the byte stream is closed."""
    if anyio_backend_name != "asyncio":
        pytest.skip("asyncio's own")
    with anyio.fail_after(BOUND):
        before = asyncio.all_tasks()
        ours, theirs = memory_byte_streams()
        leaving = anyio.Event()

        async def use() -> None:
            async with kk.RPCChannel(ours) as channel:
                with anyio.move_on_after(0.05):
                    await channel.remote().take("x" * 1_000_000)
                leaving.set()

        task = asyncio.create_task(use())
        await leaving.wait()
        await anyio.sleep(0.1)  # it drains for two seconds
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: asyncio.all_tasks() == before)
        with pytest.raises(anyio.ClosedResourceError):
            await ours.send(b"")
    await theirs.aclose()


async def test_leaving_when_the_peer_is_gone() -> None:
    for error in (None, ZeroDivisionError):
        ours, theirs = memory_byte_streams()
        with anyio.fail_after(BOUND):
            raised: BaseException | None = None
            try:
                async with kk.RPCChannel(ours) as client:
                    await theirs.aclose()
                    await client.wait_closed()
                    if error is not None:
                        raise error
            except BaseException as exc:
                raised = exc
            assert type(raised) is (error or type(None))


async def test_a_channel_error_in_the_body_is_not_wrapped() -> None:
    ours, theirs = memory_byte_streams()
    with anyio.fail_after(BOUND):
        with pytest.raises(kk.ChannelClosed, match="the peer closed the channel"):
            async with kk.RPCChannel(ours) as client:
                await theirs.aclose()
                await client.remote().add(1, 2)


async def test_a_keyboard_interrupt_in_a_handler_ends_the_block() -> None:
    class Interrupted:
        async def interrupted(self) -> None:
            raise KeyboardInterrupt

    ours, theirs = memory_byte_streams()
    with anyio.fail_after(BOUND):
        async with kk.RPCChannel(ours) as client:
            with pytest.raises(KeyboardInterrupt):
                async with kk.RPCChannel(theirs, expose=Interrupted()):
                    with pytest.raises(kk.ChannelClosed):
                        await client.remote().interrupted()
                    await anyio.sleep_forever()


# What is open when it closes -----------------------------------------------------------------------


@pytest.mark.parametrize("side", ["client", "server", "peer dies", "aclose"])
@pytest.mark.parametrize("kind", ["park", "ticks", "endless"])
async def test_what_is_open_ends(side: str, kind: str) -> None:
    """CLS-1, CLS-2: the caller has ChannelClosed, the handler its cancellation, the tables are empty."""
    api = API()
    ours, theirs = memory_byte_streams()
    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tg:
            failed: list[BaseException] = []

            async def call(client: kk.RPCChannel) -> None:
                try:
                    if kind == "park":
                        await client.remote().park()
                    else:
                        async for _ in client.remote()[kind]():
                            await anyio.lowlevel.checkpoint()
                except kk.ChannelClosed as exc:
                    failed.append(exc)

            server, client = kk.RPCChannel(theirs, expose=api), kk.RPCChannel(ours)
            first, second = (server, client) if side == "client" else (client, server)
            async with first:
                async with second:
                    for _ in range(3):
                        tg.start_soon(call, client)
                    await until(lambda: api.log.entries.count("in") == 3)
                    if side == "peer dies":
                        await ours.aclose()
                        await theirs.aclose()
                    if side == "aclose":
                        await client.aclose()
                        assert client.closed
                await until(lambda: len(failed) == 3)
                await until(lambda: api.log.entries.count("out") == 3)
            for channel in (server, client):
                assert channel.closed
                assert not channel.connection.outgoing
                assert not channel.connection.incoming
                assert not channel._pool._workers


async def test_every_waiter_has_an_exception_of_its_own() -> None:
    """One exception raised in two tasks would gather the tracebacks of both."""
    api = API()
    failed: list[kk.ChannelClosed] = []
    async with linked(api, quiet=False) as (_, client):
        async with anyio.create_task_group() as tg:

            async def call() -> None:
                try:
                    await client.remote().park()
                except kk.ChannelClosed as exc:
                    failed.append(exc)

            for _ in range(5):
                tg.start_soon(call)
            await until(lambda: api.log.entries.count("in") == 5)
            await client.aclose()
    assert len({id(exc) for exc in failed}) == 5


async def test_values_that_had_come_are_read_before_the_end() -> None:
    """STR-9 for the end of the channel."""

    class Short:
        async def some(self) -> Any:
            for i in range(5):
                yield i
            await anyio.sleep_forever()

    async with linked(Short(), quiet=False) as (_, client):
        stream = await client.remote().some()
        await until(lambda: stream.received == 5)
        await client.aclose()
        seen = []
        with pytest.raises(kk.ChannelClosed):
            async for value in stream:
                seen.append(value)
        assert seen == [0, 1, 2, 3, 4]


async def test_a_shielded_cleanup_is_waited_for() -> None:
    api = API()
    async with linked(api, quiet=False) as (_, client):
        async with anyio.create_task_group() as tg:

            async def call() -> None:
                with pytest.raises(kk.ChannelClosed):
                    await client.remote().shielded()

            tg.start_soon(call)
            await api.log.wait_for("in")
            await client.aclose()
    assert api.log.entries == ["in", "out"]


async def test_a_generators_cleanup_that_never_ends_is_given_up() -> None:
    """CLS-2: `cleanup_seconds` at most."""
    log = Log()

    class Hanging:
        async def hang(self) -> Any:
            try:
                while True:
                    yield 1
            finally:
                log("closing")
                await anyio.sleep_forever()

    start = time.monotonic()
    async with linked(Hanging(), quiet=False, limits=kk.Limits(cleanup_seconds=0.2)) as (_, client):
        stream = await client.remote().hang()
        await anyio.wait_all_tasks_blocked()
        await client.aclose()
        with pytest.raises(kk.ChannelClosed):
            await stream
    assert log.entries == ["closing"]
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("kind", ["blocked", "blocked_generator"])
async def test_blocked_threads_do_not_hold_up_the_closing(kind: str) -> None:
    api = API()
    threads = handler_threads()
    start = time.monotonic()
    try:
        async with linked(api, quiet=False) as (_, client):
            async with anyio.create_task_group() as tg:

                async def call() -> None:
                    with pytest.raises(kk.ChannelClosed):
                        if kind == "blocked":
                            await client.remote().blocked()
                        else:
                            async for _ in client.remote().blocked_generator():
                                pass

                for _ in range(3):
                    tg.start_soon(call)
                await until(lambda: api.log.entries.count("in") == 3)
                await client.aclose()
        assert time.monotonic() - start < 5
    finally:
        api.release.set()
    await threads_gone(threads)


async def test_a_stream_that_does_not_close_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = memory_byte_streams()

    class Stuck(type(ours)):  # type: ignore[misc]  # a class known at run time alone
        async def aclose(self) -> None:
            await super().aclose()
            await anyio.sleep_forever()

    ours.__class__ = Stuck
    with anyio.fail_after(BOUND), caplog.at_level(logging.WARNING, "kkrpc_py"):
        async with kk.RPCChannel(ours, limits=kk.Limits(drain_seconds=0.1)):
            pass
    assert "did not close in time" in caplog.text
    await theirs.aclose()


async def test_a_peer_that_does_not_read_holds_up_the_closing_only_so_long() -> None:
    """CLS-3."""
    ours, theirs = memory_byte_streams()
    start = time.monotonic()
    with anyio.fail_after(BOUND):
        async with kk.RPCChannel(ours, limits=kk.Limits(drain_seconds=0.2)) as client:
            async with anyio.create_task_group() as tg:

                async def call() -> None:
                    with pytest.raises(kk.ChannelClosed):
                        await client.remote().take("x" * 1_000_000)

                tg.start_soon(call)
                await anyio.wait_all_tasks_blocked()
                await client.aclose()
    assert time.monotonic() - start < 5
    await theirs.aclose()


async def test_what_was_queued_is_written_before_the_end() -> None:
    """CLS-3: also more than the stream takes at once."""
    ours, theirs = memory_byte_streams()
    received = bytearray()
    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tg:

            async def read() -> None:
                with pytest.raises(anyio.EndOfStream):
                    while True:
                        received.extend(await theirs.receive())

            async def call(client: kk.RPCChannel) -> None:
                with pytest.raises(kk.ChannelClosed):
                    await client.remote().take("x" * 500_000)

            async with kk.RPCChannel(ours) as client:
                for _ in range(3):
                    tg.start_soon(call, client)
                await anyio.wait_all_tasks_blocked()
                tg.start_soon(read)
        lines = bytes(received).split(b"\n")
        assert lines.pop() == b""
        assert [len(line) > 500_000 for line in lines] == [False, True, True, True]
    await theirs.aclose()


# Half-closed, and broken ----------------------------------------------------------------------------


async def test_a_half_closed_peer_still_gets_its_answers() -> None:
    """CLS-2: `printf … | serve`, at the level of the channel."""
    ours, theirs = memory_byte_streams()

    class Slow:
        async def slow(self) -> str:
            await anyio.sleep(0.05)
            return "answered"

    with anyio.fail_after(BOUND):
        async with kk.RPCChannel(ours, expose=Slow(), hello=False) as server:
            await theirs.send(b'{"id":"1","method":"slow","args":[],"type":"request"}\n')
            await theirs.send_eof()
            received = b""
            while b"answered" not in received:
                received += await theirs.receive()
            await server.wait_closed()
    await theirs.aclose()


async def test_a_half_closed_peer_does_not_keep_handlers_for_ever() -> None:
    api = API()
    ours, theirs = memory_byte_streams()
    limits = kk.Limits(finish_seconds=0.1)
    with anyio.fail_after(BOUND):
        async with kk.RPCChannel(ours, expose=api, hello=False, limits=limits) as server:
            await theirs.send(b'{"id":"1","method":"park","args":[],"type":"request"}\n')
            await api.log.wait_for("in")
            await theirs.send_eof()
            await server.wait_closed()
            await api.log.wait_for("out")
    await theirs.aclose()


async def test_a_write_side_that_broke_ends_what_is_pending() -> None:
    """The peer has closed its reading end and keeps the other one open: nothing will be answered."""
    ours, theirs = memory_byte_streams()
    with anyio.fail_after(BOUND):
        async with kk.RPCChannel(ours) as client:
            await anyio.wait_all_tasks_blocked()
            theirs._incoming.receiver_closed = True
            theirs._incoming.wake()
            with pytest.raises(kk.ChannelClosed), anyio.fail_after(5):
                await client.remote().add(1, 2)
            with anyio.fail_after(5):
                await client.wait_closed()
    await theirs.aclose()


# ready, closed, wait_closed ------------------------------------------------------------------------


async def test_ready_closed_and_wait_closed() -> None:
    with anyio.fail_after(BOUND):
        async with kk.memory_pair(API()) as (server, client):
            assert not client.closed
            await client.ready()
            assert client.connection.agreed
            await client.ready()
            async with anyio.create_task_group() as tg:
                tg.start_soon(client.wait_closed)
                tg.start_soon(server.wait_closed)
                await anyio.wait_all_tasks_blocked()
                assert not client.closed
                await client.aclose()
            assert client.closed
            assert server.closed
            await client.wait_closed()
            await client.aclose()
            with pytest.raises(kk.ChannelClosed):
                await client.ready()
        await client.wait_closed()
        await client.aclose()


async def test_ready_with_a_peer_that_never_answers() -> None:
    """HEL-6: it returns after `hello_seconds`; an answer that comes later still counts."""
    ours, theirs = memory_byte_streams()
    with anyio.fail_after(BOUND):
        async with kk.RPCChannel(ours, limits=kk.Limits(hello_seconds=0.05)) as client:
            await client.ready()
            assert client.connection.agreed is None
            await client.ready()
            answer = b'{"protocol":1,"features":["credit"]}'
            await theirs.send(b'{"id":"1","method":"","args":{"result":%s},"type":"response"}\n' % answer)
            await until(lambda: client.connection.agreed == frozenset({"credit"}))
    await theirs.aclose()


async def test_ready_fails_when_the_channel_closes_meanwhile() -> None:
    ours, theirs = memory_byte_streams()
    with anyio.fail_after(BOUND):
        async with kk.RPCChannel(ours) as client:
            async with anyio.create_task_group() as tg:

                async def wait() -> None:
                    with pytest.raises(kk.ChannelClosed):
                        await client.ready()

                tg.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                await theirs.aclose()


async def test_a_call_that_needs_an_extension_waits_for_the_hello() -> None:
    """HEL-6: bytes go in kkrpc's form at once; what only CBOR carries waits for the answer."""

    class Echo:
        async def echo(self, value: Any) -> Any:
            return value

    with anyio.fail_after(BOUND):
        async with kk.memory_pair(Echo()) as (_, client):
            assert await client.remote().echo({1, 2}) == {1, 2}
        async with kk.memory_pair(Echo(), hello=False) as (_, client):
            with pytest.raises(kk.NotSerializable):
                await client.remote().echo({1, 2})
        ours, theirs = memory_byte_streams()
        async with kk.RPCChannel(ours, limits=kk.Limits(hello_seconds=0.05)) as client:
            with pytest.raises(kk.NotSerializable):
                await client.remote().echo({1, 2})
        await theirs.aclose()


async def test_a_channel_is_entered_once() -> None:
    ours, theirs = memory_byte_streams()
    with anyio.fail_after(BOUND):
        channel = kk.RPCChannel(ours)
        async with channel:
            with pytest.raises(RuntimeError, match="once"):
                await channel.__aenter__()
        with pytest.raises(RuntimeError, match="once"):
            await channel.__aenter__()
    await theirs.aclose()


async def test_a_handler_closes_its_own_channel() -> None:
    channels: list[kk.RPCChannel] = []

    class Closing:
        async def close(self) -> None:
            await channels[0].aclose()

    async with linked(Closing(), quiet=False) as (server, client):
        channels.append(server)
        with pytest.raises(kk.ChannelClosed):
            await client.remote().close()
        await server.wait_closed()
        await client.wait_closed()


async def test_no_task_or_thread_outlives_the_block(anyio_backend_name: str) -> None:
    api = API()
    threads = handler_threads()
    before = asyncio.all_tasks() if anyio_backend_name == "asyncio" else set()
    async with linked(api, quiet=False) as (_, client):
        async with anyio.create_task_group() as tg:
            await _park(client, api, tg)
            streams = [await client.remote().endless() for _ in range(20)]
            await client.aclose()
    del streams
    if anyio_backend_name == "asyncio":
        assert asyncio.all_tasks() == before
    await threads_gone(threads)


class _Woken:
    """Streams that have more to say when their channel is closed."""

    def __init__(self) -> None:
        self.event = anyio.Event()

    async def generated(self) -> Any:
        yield 0
        await self.event.wait()
        yield 1
        await anyio.sleep_forever()

    async def sent(self, sink: kk.StreamSink[int]) -> None:
        await sink.send(0)
        await self.event.wait()
        await sink.send(1)
        await anyio.sleep_forever()

    async def obstinate(self) -> Any:
        yield 0
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return  # as nobody should


@pytest.mark.parametrize("method", ["generated", "sent", "obstinate"])
async def test_a_stream_that_the_closing_cut_short_does_not_look_whole(method: str) -> None:
    """The channel is closed in the turn in which the producer was woken: no stream-end may follow."""
    with anyio.fail_after(BOUND):
        for _ in range(10):
            api = _Woken()
            async with kk.memory_pair(api) as (server, client):
                await client.ready()
                values: list[int] = []
                with pytest.raises(kk.ChannelClosed):
                    async for value in getattr(client.remote(), method)():
                        values.append(value)
                        if value == 0:
                            await anyio.wait_all_tasks_blocked()
                            api.event.set()
                            await server.aclose()
                assert values in ([0], [0, 1])


# Noise ---------------------------------------------------------------------------------------------


async def test_noise_goes_to_the_hook_or_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """FRM-4: counted, handed on, and the channel lives, whatever the hook does."""
    lines: list[bytes] = []

    def failing_hook(line: bytes) -> None:
        lines.append(line)
        raise ValueError("the hook's own fault")

    with anyio.fail_after(BOUND), caplog.at_level(logging.INFO, "kkrpc_py"):
        for hook in (None, lines.append, failing_hook):
            ours, theirs = memory_byte_streams()
            async with kk.RPCChannel(ours, passthrough=hook) as client:
                await theirs.send(b"hello from printf\n")
                await until(lambda client=client: client.connection.noise == 1)  # type: ignore[misc]  # see harness
                assert not client.closed
            await theirs.aclose()
    assert lines == [b"hello from printf"] * 2
    assert "hello from printf" in caplog.text
    assert "the passthrough hook failed" in caplog.text
