"""Timeouts, metadata and keyword arguments of calls; who watches them; calls without the wire."""

from __future__ import annotations

import datetime
import functools
import gc
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from kkrpc_py.transports.memory import memory_byte_streams
from tests.channel.harness import BOUND, Log, handler_threads, linked, threads_gone, until
from tests.naming import shown

pytestmark = pytest.mark.anyio


class API:
    def __init__(self) -> None:
        self.log = Log()

    async def add(self, a: int, b: int = 10, *, scale: int = 1) -> int:
        return (a + b) * scale

    async def positional(self, a: int, /, b: int) -> list[int]:
        return [a, b]

    @staticmethod
    async def named(**others: Any) -> dict[str, Any]:
        return others

    async def slow(self) -> None:
        try:
            self.log("began")
            await anyio.sleep_forever()
        finally:
            self.log("stopped")

    async def count(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    async def broken(self) -> AsyncIterator[int]:
        yield 1
        raise ValueError("broken")

    async def fail(self) -> None:
        raise KeyError("gone")

    async def whose(self) -> Any:
        return kk.current_channel().state.user

    @kk.inline
    def quick(self, a: int, *, b: int = 0) -> int:
        return a - b

    def on_a_thread(self, a: int, *, function: int = 0) -> int:
        return a * function


# Timeouts -------------------------------------------------------------------------------------


async def test_a_timeout_of_one_call_names_it_and_cancels_the_handler() -> None:
    api = API()
    async with linked(api) as (_, client):
        slow = client.remote().slow.with_options(timeout=0.05)
        with pytest.raises(kk.CallTimeout) as caught:
            await slow()
        assert (caught.value.method, caught.value.seconds) == ("slow", 0.05)
        await api.log.wait_for("stopped")


async def test_one_call_may_have_longer_than_its_channel() -> None:
    class Late:
        async def late(self) -> str:
            await release.wait()
            return "late"

    release = anyio.Event()
    async with linked(Late(), timeout=0.05) as (_, client):
        api = client.remote()
        with pytest.raises(kk.CallTimeout):
            await api.late()
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                assert await api.late.with_options(timeout=None)() == "late"

            tasks.start_soon(call)
            with pytest.raises(kk.CallTimeout):
                await api.late()
            release.set()


async def test_a_timeout_that_races_its_answer_gives_one_of_both_and_leaves_nothing() -> None:
    async with linked(API()) as (_, client):
        add = client.remote().add.with_options(timeout=0.0005)
        seen = set()
        for _ in range(200):
            try:
                assert await add(1, 2) == 3
                seen.add("answer")
            except kk.CallTimeout:
                seen.add("timeout")
        assert seen


async def test_options_hold_below_and_add_up() -> None:
    metas: list[Any] = []

    async def note(ctx: kk.CallContext, next: kk.Next) -> Any:
        metas.append(ctx.meta)
        return await next()

    async with linked({"ns": API()}, interceptors=[note]) as (_, client):
        api = client.remote().with_options(metadata={"a": 1, "b": 1}, timeout=BOUND)
        assert await api.ns.add.with_options(metadata={"b": 2})(1, 2) == 3
        assert await api.ns.add(1) == 11
        assert await client.remote()["ns"].add(1) == 11
    assert metas == [{"a": 1, "b": 2}, {"a": 1, "b": 1}, {}]


# Keyword arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["json", "cbor"])
async def test_keyword_arguments(codec: Any) -> None:
    async with linked(API(), codec=codec) as (_, client):
        api = client.remote()
        assert await api.add(1, b=2, scale=3) == 9
        assert await api.add(a=1) == 11
        assert await api.quick(5, b=3) == 2
        assert await api.on_a_thread(5, function=3) == 15
        assert await api.named(self=1, function=2, args=3, kwargs={}) == {
            "self": 1, "function": 2, "args": 3, "kwargs": {},
        }  # fmt: skip
        assert [value async for value in api.count(n=3)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1,), {"c": 1}), ((1,), {"a": 2}), ((), {"b": 2}), ((1, 2, 3), {"scale": 1}), ((1,), {"self": 1})],
)
async def test_keyword_arguments_that_do_not_fit_are_a_type_error(args: Any, kwargs: Any) -> None:
    async with linked(API()) as (_, client):
        with pytest.raises(TypeError) as caught:
            await client.remote().add(*args, **kwargs)
        assert isinstance(caught.value, kk.RemoteError)
        with pytest.raises(TypeError):
            await client.remote().positional(a=1, b=2)


async def test_a_stock_peer_gets_no_keyword_arguments() -> None:
    async with linked(API(), hello=False) as (server, client):
        with pytest.raises(kk.NotSerializable, match="positional arguments alone"):
            await client.remote().add(1, b=2)
        assert await client.remote().add(1, 2) == 3
        assert server.connection.violations == 0


async def test_keyword_arguments_wait_for_the_hellos_answer() -> None:
    with anyio.fail_after(BOUND):
        async with kk.memory_pair(API()) as (_, client):
            assert client.connection.pending
            assert await client.remote().add(1, b=2) == 3


# Metadata ---------------------------------------------------------------------------------------


async def test_metadata_of_the_provider_reaches_the_interceptors_of_the_peer() -> None:
    seen: list[Any] = []

    async def note(ctx: kk.CallContext, next: kk.Next) -> Any:
        seen.append((ctx.kind, ctx.method, ctx.meta))
        return await next()

    numbers = iter(range(100))
    with anyio.fail_after(BOUND):
        async with kk.memory_pair(
            API(), interceptors=[note], metadata=lambda: {"requestId": next(numbers)}
        ) as (_, client):
            api = client.remote()
            # The very first call too: it waits until it is known whether the peer takes metadata.
            await api.add(1)
            assert [value async for value in api.count(2)] == [0, 1]
            await api.add.with_options(metadata={"requestId": "mine", "deep": {"a": [1]}})(1, b=2)
    assert seen == [
        ("call", "add", {"requestId": 0}),
        ("call", "count", {"requestId": 1}),
        ("call", "add", {"requestId": "mine", "deep": {"a": [1]}}),
    ]


async def test_a_stock_peer_gets_no_metadata_and_the_call_goes_through() -> None:
    async with linked(API(), hello=False, metadata=lambda: {"a": 1}) as (_, client):
        assert await client.remote().add(1, 2) == 3


async def test_metadata_that_cannot_be_sent_is_refused_before_anything_is() -> None:
    async with linked(API()) as (_, client):
        with pytest.raises(kk.NotSerializable) as caught:
            await client.remote().add.with_options(metadata={"x": object()})(1)
        assert caught.value.path == "meta['x']"


# The caller's hook ------------------------------------------------------------------------------


class Watch:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.ends: list[tuple[str, Any]] = []

    def __call__(self, info: kk.OutgoingInfo) -> Any:
        self.calls.append((info.kind, info.method))
        return lambda failure: self.ends.append((info.method, type(failure).__name__))


async def test_the_hook_sees_each_call_and_how_it_ended() -> None:
    watch = Watch()
    api = API()
    async with linked(api, on_call=watch) as (_, client):
        remote = client.remote()
        await remote.add(1)
        with pytest.raises(KeyError):
            await remote.fail()
        with pytest.raises(kk.MethodNotFound):
            await remote.nope()
        with pytest.raises(kk.PropertyNotFound):
            await remote.secret
        with pytest.raises(kk.CallTimeout):
            await remote.slow.with_options(timeout=0.02)()
    assert [kind for kind, _ in watch.calls] == ["call", "call", "call", "get", "call"]
    assert [method for _, method in watch.calls] == [method for method, _ in watch.ends]
    assert watch.ends == [
        ("add", "NoneType"), ("fail", "KeyError"), ("nope", "MethodNotFound"), ("secret", "PropertyNotFound"),
        ("slow", "CallTimeout"),
    ]  # fmt: skip


async def test_the_hook_is_told_when_a_stream_is_over() -> None:
    watch = Watch()
    async with linked(API(), on_call=watch) as (_, client):
        remote = client.remote()
        stream = await remote.count(3)
        assert [value async for value in stream] == [0, 1, 2]
        await until(lambda: len(watch.ends) == 1)
        with pytest.raises(ValueError, match="broken"):
            async for _ in remote.broken():
                pass
        async for _ in remote.count(100_000):
            break
        await until(lambda: len(watch.ends) == 3)
        opened = await remote.count(100_000)
        await opened.cancel()
    assert watch.ends == [
        ("count", "NoneType"),
        ("broken", "ValueError"),
        ("count", "CallCancelled"),
        ("count", "CallCancelled"),
    ]


async def test_a_stream_that_ends_with_its_channel_is_over_too() -> None:
    watch = Watch()
    with anyio.fail_after(BOUND):
        async with kk.memory_pair(API(), on_call=watch) as (server, client):
            stream = await client.remote().count(1_000_000)
            await server.aclose()
            with pytest.raises(kk.ChannelClosed):
                async for _ in stream:
                    pass
    assert watch.ends == [("count", "ChannelClosed")]


async def test_a_hook_that_fails_at_the_end_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def hook(info: kk.OutgoingInfo) -> Any:
        def over(failure: BaseException | None) -> None:
            raise RuntimeError("the hook is broken")

        return over

    async with linked(API(), on_call=hook) as (_, client):
        assert await client.remote().add(1, 2) == 3
        assert [value async for value in client.remote().count(2)] == [0, 1]
    assert [record.getMessage() for record in caplog.records] == ["the hook of a call failed"] * 2


# Calls of this side's own API, and what belongs to a connection -----------------------------------


async def test_a_local_call_takes_the_way_of_a_remote_one() -> None:
    seen: list[Any] = []

    async def note(ctx: kk.CallContext, next: kk.Next) -> Any:
        seen.append(ctx.method)
        ctx.args = [arg for arg in ctx.args if arg != "drop"]
        return await next()

    async with linked({"math": API()}, interceptors=[note]) as (server, _):
        assert await server.invoke_local("math.add", 1, "drop", b=2) == 3
        assert await server.invoke_local("math.on_a_thread", 2, function=4) == 8
        assert [value async for value in await server.invoke_local("math.count", 3)] == [0, 1, 2]
        with pytest.raises(KeyError):
            await server.invoke_local("math.fail")
        with pytest.raises(kk.ValidationFailed):
            await server.invoke_local("math.add", "no number")
        with pytest.raises(TypeError):
            await server.invoke_local("math.add", nothing=1)
        for hidden in ("math._secret", "math.log", "nope"):
            with pytest.raises(kk.MethodNotFound):
                await server.invoke_local(hidden)
    assert seen[:3] == ["math.add", "math.on_a_thread", "math.count"]


async def test_a_local_stream_is_closed_with_all_its_layers() -> None:
    closed: list[str] = []

    class Streams:
        async def numbers(self) -> AsyncIterator[int]:
            try:
                for i in range(1000):
                    yield i
            finally:
                closed.append("inner")

    async def wrapped(ctx: kk.CallContext, next: kk.Next) -> Any:
        inner = await next()

        async def outer() -> AsyncIterator[int]:
            try:
                async for value in inner:
                    yield value + 1
            finally:
                closed.append("outer")

        return outer()

    async with linked(Streams(), interceptors=[wrapped]) as (server, _):
        stream = await server.invoke_local("numbers")
        assert await anext(stream) == 1
        await stream.aclose()
    assert closed == ["outer", "inner"]


async def test_a_local_call_of_a_sink_says_why_not() -> None:
    class Sinks:
        async def send(self, sink: kk.StreamSink[int]) -> None:
            await sink.send(1)

    async with linked(Sinks()) as (server, _):
        with pytest.raises(TypeError, match="StreamSink"):
            await server.invoke_local("send")


async def test_each_connection_has_a_state_of_its_own() -> None:
    api = API()
    async with linked(api) as (one, client_of_one), linked(api) as (two, client_of_two):
        one.state.user, two.state.user = "ada", "bob"
        assert await client_of_one.remote().whose() == "ada"
        assert await client_of_two.remote().whose() == "bob"


async def test_a_local_call_knows_its_channel() -> None:
    class Whose:
        async def value(self) -> Any:
            return kk.current_channel().state.user

        async def values(self) -> AsyncIterator[Any]:
            yield kk.current_channel().state.user

    async with linked(Whose()) as (server, _):
        server.state.user = "ada"
        assert await server.invoke_local("value") == "ada"
        assert [value async for value in await server.invoke_local("values")] == ["ada"]
        with pytest.raises(LookupError):
            kk.current_channel()


# Hooks for values ----------------------------------------------------------------------------------


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


def encode(value: Any) -> Any:
    return {"$money": value.cents} if isinstance(value, Money) else NotImplemented


def decode(mapping: dict[Any, Any]) -> Any:
    return Money(mapping["$money"]) if "$money" in mapping else mapping


@pytest.mark.parametrize("codec", ["json", "cbor", "superjson"])
async def test_hooks_reach_arguments_results_chunks_and_return_values(codec: Any) -> None:
    class Till:
        async def double(self, deep: Any, *, extra: Any = None) -> Any:
            return {"is": [Money(deep["total"].cents * 2)], "extra": extra}

        def parts(self, total: Any, n: int) -> Any:
            for _ in range(n):
                yield Money(total.cents // n)
            return Money(total.cents % n)

    async with linked(Till(), codec=codec, encode=encode, decode=decode) as (_, client):
        api = client.remote()
        answer = await api.double({"total": Money(5)}, extra=[Money(1)])
        assert (answer["is"][0].cents, answer["extra"][0].cents) == (10, 1)
        stream = await api.parts(Money(1003), 10)
        assert [part.cents async for part in stream] == [100] * 10
        assert (await stream).cents == 3


async def test_the_hook_is_asked_only_for_what_the_codec_has_not() -> None:
    asked: list[Any] = []

    def ask(value: Any) -> Any:
        asked.append(type(value))
        return encode(value)

    class Echo:
        async def echo(self, value: Any) -> Any:
            return len(value)

    when = datetime.datetime.now(datetime.UTC)
    async with linked(Echo(), encode=ask) as (_, client):
        assert await client.remote().echo([when, Money(1), {2: 3}]) == 3
    assert asked == [Money]
    asked.clear()
    async with linked(Echo(), encode=ask, codec="json") as (_, client):
        with pytest.raises(kk.NotSerializable):
            await client.remote().echo([when])
    assert asked == [datetime.datetime]


async def test_a_hook_that_raises_costs_its_call_alone() -> None:
    def broken_encode(value: Any) -> Any:
        raise RuntimeError("no idea")

    def broken_decode(mapping: dict[Any, Any]) -> Any:
        if "bad" in mapping:
            raise ValueError("a bad mapping")
        return mapping

    class Bad:
        async def give(self) -> Any:
            return {"bad": 1}

        async def object(self) -> Any:
            return Money(1)

        async def stream(self) -> AsyncIterator[Any]:
            yield {"good": 1}
            yield {"bad": 1}

        async def add(self, a: int, b: int) -> int:
            return a + b

    async with linked(Bad(), encode=broken_encode, decode=broken_decode) as (_, client):
        api = client.remote()
        with pytest.raises(kk.NotSerializable, match="RuntimeError: no idea"):
            await api.add(Money(1), 2)
        with pytest.raises(kk.RemoteError, match="RuntimeError: no idea"):
            await api.object()
        with pytest.raises(ValueError, match="a bad mapping"):
            await api.add({"bad": 1}, 2)
        with pytest.raises(kk.ProtocolError, match="a bad mapping"):
            await api.give()
        seen = []
        with pytest.raises(kk.ProtocolError, match="a bad mapping"):
            async for value in api.stream():
                seen.append(value)
        assert seen in ([], [{"good": 1}])  # both may have come in one frame
        assert await api.add(1, 2) == 3


# What a review has found ----------------------------------------------------------------------------


async def test_a_timeout_covers_the_wait_for_the_hello() -> None:
    with anyio.fail_after(BOUND):
        one, other = memory_byte_streams()
        async with kk.RPCChannel(one) as channel, other:  # nobody answers
            began = anyio.current_time()
            with pytest.raises(kk.CallTimeout):
                await channel.remote().f.with_options(timeout=0.05, metadata={"a": 1})()
            assert anyio.current_time() - began < channel.limits.hello_seconds / 2


async def test_a_call_that_is_cancelled_before_it_begins_leaves_no_coroutine() -> None:
    async with linked(API(), timeout=5) as (_, client):
        for call in (client.remote().add(1), client.remote().add.with_options(timeout=1)(1)):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await call
        gc.collect()


async def test_a_local_sync_generator_that_is_dropped_gives_its_thread_back() -> None:
    class Threads:
        def numbers(self) -> Any:
            yield from range(1_000_000)

    before = handler_threads()
    async with linked(Threads(), limits=kk.Limits(threads=2)) as (server, client):
        for _ in range(5):
            async for _ in await server.invoke_local("numbers"):
                break
        assert [n async for n in StopAfter(client.remote().numbers(), 3)] == [0, 1, 2]
    await threads_gone(before)


class StopAfter:
    """The first values of a stream, which is then dropped."""

    def __init__(self, stream: Any, count: int) -> None:
        self._stream = aiter(stream)
        self._left = count

    def __aiter__(self) -> StopAfter:
        return self

    async def __anext__(self) -> Any:
        self._left -= 1
        if self._left < 0:
            await self._stream.aclose()
            raise StopAsyncIteration
        return await anext(self._stream)


async def test_a_local_call_that_waits_for_a_thread_ends_with_the_channel() -> None:
    release = threading.Event()

    class Blocked:
        def block(self) -> None:
            release.wait(BOUND)

    raised: list[BaseException] = []
    try:
        with anyio.fail_after(BOUND):
            async with kk.memory_pair(Blocked(), limits=kk.Limits(threads=1)) as (server, client):
                async with anyio.create_task_group() as tasks:

                    async def remote() -> None:
                        with pytest.raises(kk.ChannelClosed):
                            await client.remote().block()

                    async def local() -> None:
                        try:
                            await server.invoke_local("block")
                        except kk.ChannelClosed as error:
                            raised.append(error)

                    tasks.start_soon(remote)
                    await until(lambda: bool(server._threads._count))
                    tasks.start_soon(local)
                    await until(lambda: bool(server._threads._jobs))
                    await server.aclose()
    finally:
        release.set()
    assert len(raised) == 1


async def test_the_peer_cannot_name_what_is_settled_or_private() -> None:
    def read(name: str, root: str = "/", _internal: int = 0) -> str:
        return root + name

    async with linked({"read": functools.partial(read, root="/jail/"), "plain": read}) as (_, client):
        api = client.remote()
        assert await api.read("x") == "/jail/x"
        assert await api.plain("x", root="/a/") == "/a/x"
        with pytest.raises(TypeError, match="root"):
            await api.read("x", root="/")
        with pytest.raises(TypeError, match="_internal"):
            await api.plain("x", _internal=1)


async def test_one_holder_of_a_function_does_not_release_it_for_another() -> None:
    kept: list[Any] = []

    class Keeper:
        async def keep(self, function: Any) -> None:
            kept.append(function)

        async def release_first(self) -> Any:
            first, second = kept
            assert first == second
            assert hash(first) == hash(second)
            first.release()
            with pytest.raises(kk.CallbackReleased):
                await first(1)
            return await second(2)

    def double(n: int) -> int:
        return 2 * n

    async with linked(Keeper()) as (_, client):
        await client.remote().keep(double)
        await client.remote().keep(double)
        assert await client.remote().release_first() == 4
        assert len(client.connection.passage.functions) == 1
        kept.clear()
        await until(lambda: len(client.connection.passage.functions) == 0)


async def test_a_handler_that_drops_a_function_early_gives_it_back_early() -> None:
    go = anyio.Event()

    class Early:
        async def take(self, function: Any) -> None:
            del function
            await go.wait()

    async with linked(Early()) as (_, client):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.remote().take, lambda: None)
            await until(lambda: len(client.connection.passage.functions) == 1)
            await until(lambda: len(client.connection.passage.functions) == 0)
            go.set()


async def test_notices_that_nobody_reads_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    class Teller:
        async def tell(self, function: Any) -> int:
            for _ in range(200):
                function.notify("x" * 10_000)
            return kk.current_channel().connection.outbox.size

    limits = kk.Limits(send_max=1_000_000)
    async with linked(Teller(), limits=limits) as (_, client):
        assert await client.remote().tell(lambda text: None) < 600_000
    assert any("send_max" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "options",
    [{"codec": "CBOR"}, {"codec": None}, {"timeout": "2"}, {"timeout": -1}, {"timeout": float("nan")},
     {"metadata": 5}, {"encode": {}}, {"decode": "x"}, {"on_call": 1}, {"errors": [5]}],
    ids=shown,
)  # fmt: skip
async def test_options_that_are_none_are_refused_at_once(options: dict[str, Any]) -> None:
    near, far = memory_byte_streams()
    async with near, far:
        with pytest.raises((TypeError, ValueError)):
            kk.RPCChannel(near, **options)


async def test_call_options_that_are_none_are_refused_at_once() -> None:
    async with linked(API()) as (_, client):
        for wrong in ({"timeout": "2"}, {"timeout": -1}, {"metadata": 5}):
            with pytest.raises((TypeError, ValueError)):
                client.remote().add.with_options(**wrong)


async def test_outside_of_handlers_there_is_no_current_channel() -> None:
    with pytest.raises(LookupError, match="no current channel"):
        kk.current_channel()


async def test_interceptors_may_give_private_arguments_and_peers_may_not() -> None:
    async def who(name: str, *, _user: str = "nobody") -> str:
        return f"{_user}: {name}"

    async def note(ctx: kk.CallContext, next: kk.Next) -> Any:
        ctx.kwargs["_user"] = "ada"
        return await next()

    async with linked({"who": who}, interceptors=[note]) as (_, client):
        assert await client.remote().who("x") == "ada: x"
        with pytest.raises(TypeError, match="_user"):
            await client.remote().who("x", _user="eve")


async def test_what_belongs_to_a_channel_is_nobodys_namespace() -> None:
    class Hub:
        def __init__(self) -> None:
            self.listeners: dict[str, Any] = {}

        async def listen(self, name: str, function: Any) -> None:
            self.listeners[name] = function
            self.listeners[name + "_channel"] = kk.current_channel()

    hub = Hub()
    heard: list[str] = []
    async with linked(hub) as (_, ada), linked(hub) as (_, eve):
        await ada.remote().listen("ada", heard.append)
        for path in ("listeners.ada", "listeners.ada.notify", "listeners.ada_channel.aclose"):
            with pytest.raises(kk.MethodNotFound):
                await eve.remote()[path]("evil")
        assert heard == []
        hub.listeners.clear()


async def test_keywords_change_nothing_of_what_an_inline_handler_promises() -> None:
    class Wrong:
        @kk.inline
        def number(self, a: int, *, b: int = 0) -> int:
            return "no number"  # type: ignore[return-value]  # which is what is to be found

    async with linked(Wrong()) as (_, client):
        for call in (client.remote().number(1), client.remote().number(1, b=2)):
            with pytest.raises(kk.ValidationFailed, match="output"):
                await call


async def test_what_a_function_that_is_passed_has_settled_the_peer_cannot_name() -> None:
    def write(text: str, path: str = "/tmp") -> str:
        return path + text

    class Caller:
        async def call(self, function: Any) -> list[str]:
            said = [await function("x")]
            with pytest.raises(TypeError, match="path"):
                await function("x", path="/etc")
            return said

    async with linked(Caller()) as (_, client):
        assert await client.remote().call(functools.partial(write, path="/jail/")) == ["/jail/x"]
