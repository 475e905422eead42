"""Spans of calls and streams, with the SDK's own exporter, through linked channels."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import kkrpc_py as kk
from kkrpc_py import otel
from tests.channel.harness import BOUND, handler_threads, linked, threads_gone, until

pytestmark = pytest.mark.anyio

PLAIN = {"rpc.system.name": "kkrpc"}


class Traced:
    """A provider, what it has exported, and the options of channels that use it."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")
        self.options: dict[str, Any] = {
            "interceptors": [otel.interceptor(self.provider)],
            "on_call": otel.on_call(self.provider),
        }

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def of(self, kind: SpanKind, name: str | None = None) -> list[ReadableSpan]:
        return [span for span in self.spans if span.kind is kind and name in (None, span.name)]

    def pair(self, name: str) -> tuple[ReadableSpan, ReadableSpan]:
        """The one client span and the one server span of that name; the second is the first one's child."""
        (client,), (server,) = self.of(SpanKind.CLIENT, name), self.of(SpanKind.SERVER, name)
        assert parent_of(server) == id_of(client)
        assert server.context.trace_id == client.context.trace_id
        return client, server


def id_of(span: ReadableSpan) -> int:
    return span.context.span_id


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent is not None else None


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def current() -> int:
    return trace.get_current_span().get_span_context().span_id


@pytest.fixture
def traced(caplog: pytest.LogCaptureFixture) -> Iterator[Traced]:
    """Nothing may be logged: OpenTelemetry reports a context that is detached in the wrong place so."""
    made = Traced()
    with caplog.at_level(logging.WARNING):
        yield made
    assert caplog.get_records("call") == []
    assert current() == 0


async def test_a_call_has_a_span_on_either_side(traced: Traced) -> None:
    seen: list[int] = []

    class Math:
        async def add(self, a: int, b: int) -> int:
            seen.append(current())
            await checkpoint()
            seen.append(current())
            with traced.tracer.start_as_current_span("inner"):
                await checkpoint()
            return a + b

    async with linked({"math": Math()}, **traced.options) as (_, client):
        with traced.tracer.start_as_current_span("outer") as outer:
            assert await client.remote().math.add(1, 2) == 3
            assert current() == outer.get_span_context().span_id
    (inner,) = [span for span in traced.spans if span.name == "inner"]
    caller, callee = traced.pair("math.add")
    assert parent_of(caller) == outer.get_span_context().span_id
    assert parent_of(inner) == id_of(callee)
    assert set(seen) == {id_of(callee)}
    assert attributes(caller) == attributes(callee) == PLAIN | {"rpc.method": "math.add"}
    assert caller.status.status_code is callee.status.status_code is StatusCode.UNSET
    assert caller.events == callee.events == ()


async def test_the_span_is_current_wherever_the_handler_runs(traced: Traced) -> None:
    class Api:
        def on_thread(self) -> int:
            return current()

        async def in_child_task(self) -> int:
            found: list[int] = []

            async def child() -> None:
                await checkpoint()
                found.append(current())

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(child)
            return found[0]

        @kk.inline
        def inline(self) -> int:
            return current()

    async with linked(Api(), **traced.options) as (_, client):
        for name in ("on_thread", "in_child_task", "inline"):
            found = await client.remote()[name]()
            assert found == id_of(traced.pair(name)[1])


async def test_a_call_back_goes_on_in_the_same_trace(traced: Traced) -> None:
    class Server:
        async def outer(self) -> int:
            return await kk.current_channel().remote().inner() + 1

    class Client:
        async def inner(self) -> int:
            return 1

    async with linked(Server(), Client(), **traced.options) as (_, client):
        assert await client.remote().outer() == 2
    _, outer = traced.pair("outer")
    inner, _ = traced.pair("inner")
    assert parent_of(inner) == id_of(outer)
    assert len({span.context.trace_id for span in traced.spans}) == 1


async def test_a_hundred_calls_at_once_keep_to_their_own(traced: Traced) -> None:
    class Api:
        async def one(self, number: int, turns: int) -> int:
            for _ in range(turns):
                trace.get_current_span().set_attribute("number", number)
                await checkpoint()
            return current()

        async def several(self, number: int, turns: int) -> AsyncIterator[int]:
            for _ in range(turns):
                trace.get_current_span().set_attribute("number", number)
                await checkpoint()
                yield current()

    async with linked(Api(), **traced.options) as (_, client):
        api = client.remote()
        found: dict[int, set[int]] = {}

        async def call(number: int) -> None:
            with traced.tracer.start_as_current_span(f"caller {number}") as span:
                mine = span.get_span_context().span_id
                if number % 2:
                    found[number] = {await api.one(number, number % 7 + 1)}
                else:
                    found[number] = set()
                    async for value in api.several(number, number % 7 + 1):
                        assert current() == mine
                        found[number].add(value)
                assert current() == mine

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(call, number)

    callers = {int(span.name.split()[1]): span for span in traced.of(SpanKind.INTERNAL)}
    clients = {id_of(span): span for span in traced.of(SpanKind.CLIENT)}
    servers = traced.of(SpanKind.SERVER)
    assert len(callers) == len(clients) == len(servers) == 100
    for server in servers:
        number = attributes(server)["number"]
        assert found[number] == {id_of(server)}
        assert parent_of(clients[parent_of(server) or 0]) == id_of(callers[number])
        assert attributes(server).get(otel.CHUNKS) == (None if number % 2 else number % 7 + 1)


# --- streams --------------------------------------------------------------------------------


async def test_the_span_of_a_stream_ends_with_it(traced: Traced) -> None:
    seen: list[int] = []

    class Api:
        async def count(self, limit: int) -> AsyncIterator[int]:
            try:
                for number in range(limit):
                    seen.append(current())
                    yield number
                    seen.append(current())
                    await checkpoint()
            finally:
                seen.append(current())

    async with linked(Api(), **traced.options) as (_, client):
        with traced.tracer.start_as_current_span("outer") as outer:
            stream = await client.remote().count(600)
            assert [span.name for span in traced.spans] == []
            assert [value async for value in stream] == list(range(600))
            assert current() == outer.get_span_context().span_id
    caller, callee = traced.pair("count")
    assert attributes(caller) == attributes(callee) == PLAIN | {"rpc.method": "count", otel.CHUNKS: 600}
    assert caller.events == callee.events == ()
    assert set(seen) == {id_of(callee)}


async def test_the_span_of_an_action_ends_with_its_stream(traced: Traced) -> None:
    seen: list[int] = []
    unended: list[int] = []

    @kk.stream_action()
    async def act(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[int]) -> None:
        for number in range(3):
            seen.append(current())
            await stream.send(number)
            await checkpoint()
        unended.append(len(traced.of(SpanKind.SERVER)))
        if input.get("fail"):
            raise kk.ActionError("BROKEN", "as was asked")

    async with linked({"act": act}, **traced.options) as (_, channel):
        assert [chunk async for chunk in channel.remote().act({})] == [0, 1, 2]
        await until(lambda: len(traced.spans) == 2)
        _, server = traced.pair("act")
        assert (seen, unended) == ([id_of(server)] * 3, [0])
        assert server.status.status_code is StatusCode.UNSET
        traced.exporter.clear()
        with pytest.raises(kk.ActionError):
            async for _ in channel.remote().act({"fail": True}):
                pass
        await until(lambda: len(traced.spans) == 2)
        assert traced.pair("act")[1].status.status_code is StatusCode.ERROR


async def test_a_span_around_a_yield_stays_the_current_one(traced: Traced) -> None:
    class Api:
        async def spans(self) -> AsyncIterator[int]:
            with traced.tracer.start_as_current_span("around"):
                yield current()
                await checkpoint()
                yield current()
            yield current()

    async with linked(Api(), **traced.options) as (_, client):
        first, second, third = [value async for value in client.remote().spans()]
    (around,) = [span for span in traced.spans if span.name == "around"]
    _, callee = traced.pair("spans")
    assert first == second == id_of(around)
    assert third == id_of(callee) == parent_of(around)


class Numbers:
    """An iterable whose iterator is another object, with an `__anext__` that is no coroutine function."""

    def __init__(self) -> None:
        self.closed = 0

    def __aiter__(self) -> Any:
        outer = self

        class Values:
            left = 3

            def __anext__(self) -> Any:
                return self

            def __await__(self) -> Any:
                yield from checkpoint().__await__()
                if not self.left:
                    raise StopAsyncIteration
                self.left -= 1
                return current()

            async def aclose(self) -> None:
                outer.closed += 1

        return Values()


async def test_any_iterable_can_be_the_stream(traced: Traced) -> None:
    numbers = Numbers()

    class Api:
        def synchronous(self) -> Iterator[int]:
            yield current()
            yield current()
            return "done"

        async def iterable(self) -> Numbers:
            return numbers

        async def sink(self, sink: kk.StreamSink[int]) -> str:
            await sink.send(current())
            await sink.send(current())
            return "sent"

    async with linked(Api(), **traced.options) as (_, client):
        api = client.remote()
        for name, count, result in (("synchronous", 2, "done"), ("iterable", 3, None), ("sink", 2, "sent")):
            stream = await api[name]()
            values = [value async for value in stream]
            assert await stream == result
            caller, callee = traced.pair(name)
            assert values == [id_of(callee)] * count
            assert attributes(caller)[otel.CHUNKS] == count
    assert numbers.closed


async def test_a_stream_that_the_consumer_leaves_is_no_error(traced: Traced) -> None:
    finished: list[int] = []

    class Api:
        async def endless(self) -> AsyncIterator[int]:
            try:
                while True:
                    yield 1
                    await checkpoint()
            finally:
                finished.append(current())

        async def asleep(self) -> AsyncIterator[int]:
            yield 1
            try:
                await anyio.sleep_forever()
            finally:
                finished.append(current())

    async with linked(Api(), **traced.options) as (_, client):
        for name in ("endless", "asleep"):
            async for _ in client.remote()[name]():
                break
            await until(lambda: len(traced.spans) == 2)
            caller, callee = traced.pair(name)
            for span in (caller, callee):
                assert attributes(span)[otel.CANCELLED] is True
                assert attributes(span)[otel.CHUNKS] >= 1
                assert span.status.status_code is StatusCode.UNSET
                assert span.events == ()
            assert finished == [id_of(callee)]
            finished.clear()
            traced.exporter.clear()


async def test_a_stream_that_nobody_reads_is_cancelled_too(traced: Traced) -> None:
    class Api:
        async def count(self) -> AsyncIterator[int]:
            try:
                for number in range(100_000):
                    yield number
            finally:
                finished.append(current())

    finished: list[int] = []
    async with linked(Api(), **traced.options) as (server, client):
        stream = await client.remote().count()
        await until(lambda: stream.received > 0)
        await until(lambda: not server._writer.congested)
        await stream.cancel()
        await until(lambda: len(traced.spans) == 2)
    caller, callee = traced.pair("count")
    assert attributes(caller)[otel.CANCELLED] is attributes(callee)[otel.CANCELLED] is True
    assert finished == [id_of(callee)]


async def test_a_thread_that_is_blocked_does_not_hold_up_the_closing(traced: Traced) -> None:
    release = threading.Event()

    class Api:
        def blocked(self) -> Iterator[int]:
            yield 1
            release.wait(BOUND)
            yield 2

    before = handler_threads()
    limits = kk.Limits(cleanup_seconds=10 * BOUND)
    try:
        async with linked(Api(), quiet=False, limits=limits, **traced.options) as (server, client):
            stream = await client.remote().blocked()
            assert await anext(stream) == 1
            await server.aclose()
        assert len(traced.of(SpanKind.SERVER)) == 1
    finally:
        release.set()
    await threads_gone(before)


# --- errors ---------------------------------------------------------------------------------


def check_error(span: ReadableSpan, kind: str, message: str) -> None:
    assert attributes(span)["error.type"] == kind
    assert otel.CANCELLED not in attributes(span)
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, message)
    (event,) = span.events
    assert event.name == "exception"
    assert message in str((event.attributes or {})["exception.message"])


async def test_errors_are_recorded_on_both_sides(traced: Traced) -> None:
    class OutOfStock(Exception):
        pass

    class Api:
        async def fail(self) -> None:
            raise OutOfStock("no more of it")

        async def fail_late(self) -> AsyncIterator[int]:
            yield 1
            yield 2
            raise LookupError("gone")

    async with linked(Api(), **traced.options) as (_, client):
        api = client.remote()
        with pytest.raises(kk.RemoteError):
            await api.fail()
        values = []
        with pytest.raises(LookupError):
            async for value in api.fail_late():
                values.append(value)
    caller, callee = traced.pair("fail")
    check_error(caller, "OutOfStock", "OutOfStock: no more of it")
    check_error(callee, attributes(callee)["error.type"], "no more of it")
    assert attributes(callee)["error.type"].endswith(".OutOfStock")
    for span in traced.pair("fail_late"):
        check_error(span, "LookupError", "gone")
        assert attributes(span)[otel.CHUNKS] == len(values) == 2


async def test_what_never_reaches_a_handler_is_recorded_by_the_caller(traced: Traced) -> None:
    class Api:
        async def slow(self) -> None:
            await anyio.sleep_forever()

    async with linked(Api(), **traced.options) as (_, client):
        api = client.remote()
        with pytest.raises(kk.MethodNotFound):
            await api.nothing()
        with pytest.raises(kk.CallTimeout):
            await api.slow.with_options(timeout=0.01)()
        await until(lambda: len(traced.spans) == 3)
        with pytest.raises(TypeError):
            await api.slow(object())
    (nothing,) = traced.of(SpanKind.CLIENT, "nothing")
    check_error(nothing, "MethodNotFound", "Method nothing is not a function")
    timed_out, unsendable = traced.of(SpanKind.CLIENT, "slow")
    check_error(timed_out, "CallTimeout", "call of 'slow' was not answered within 0.01 s")
    assert attributes(unsendable)["error.type"] == "NotSerializable"
    (callee,) = traced.of(SpanKind.SERVER)
    assert attributes(callee)[otel.CANCELLED] is True
    assert callee.status.status_code is StatusCode.UNSET


async def test_a_cancelled_call_is_no_error(traced: Traced) -> None:
    class Api:
        def __init__(self) -> None:
            self.began = anyio.Event()

        async def slow(self) -> None:
            self.began.set()
            await anyio.sleep_forever()

    api = Api()
    async with linked(api, **traced.options) as (_, client):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.remote().slow)
            await api.began.wait()
            tasks.cancel_scope.cancel()
        await until(lambda: len(traced.spans) == 2)
    for span in traced.pair("slow"):
        assert attributes(span) == PLAIN | {"rpc.method": "slow", otel.CANCELLED: True}
        assert span.status.status_code is StatusCode.UNSET
        assert span.events == ()


async def test_an_error_whose_own_code_fails_is_recorded_all_the_same(traced: Traced) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class Api:
        async def fail(self) -> None:
            raise Mute

    async with linked(Api(), **traced.options) as (_, client):
        with pytest.raises(kk.RemoteError, match="Mute"):
            await client.remote().fail()
    _, callee = traced.pair("fail")
    assert attributes(callee)["error.type"].endswith("Mute")
    assert callee.status.status_code is StatusCode.ERROR


# --- where a span belongs -------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"traceparent": 5},
        {"traceparent": ["00-" + "1" * 32 + "-" + "2" * 16 + "-01"]},
        {"traceparent": "00-zz-zz-01"},
        {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"},
        {"traceparent": "x" * 100_000, "tracestate": {"a": 1}},
    ],
    ids=lambda metadata: repr(metadata)[:50],
)
async def test_without_a_callers_span_it_is_a_root(traced: Traced, metadata: dict[str, Any]) -> None:
    """The tasks of a channel run in the context of whoever opened it, whose span is not the caller's."""

    class Api:
        async def add(self, a: int, b: int) -> int:
            return a + b

        async def count(self) -> AsyncIterator[int]:
            yield 1

    with traced.tracer.start_as_current_span("opening the channel"):
        async with linked(Api(), interceptors=traced.options["interceptors"]) as (_, client):
            api = client.remote()
            assert await api.add.with_options(metadata=metadata)(1, 2) == 3
            assert [n async for n in api.count.with_options(metadata=metadata)()] == [1]
    for span in traced.of(SpanKind.SERVER):
        assert span.parent is None
    assert len(traced.of(SpanKind.SERVER)) == 2


async def test_the_callers_trace_state_comes_along(traced: Traced) -> None:
    found: list[Any] = []

    class Api:
        async def state(self) -> None:
            found.append(dict(trace.get_current_span().get_span_context().trace_state))

    metadata = {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01", "tracestate": "vendor=value"}
    async with linked(Api(), interceptors=traced.options["interceptors"]) as (_, client):
        await client.remote().state.with_options(metadata=metadata)()
    assert found == [{"vendor": "value"}]
    (span,) = traced.spans
    assert (span.context.trace_id, parent_of(span)) == (int("1" * 32, 16), int("2" * 16, 16))


async def test_metadata_of_the_callers_own_are_kept(traced: Traced) -> None:
    seen: list[dict[str, Any]] = []

    async def note(ctx: kk.CallContext, next: kk.Next) -> Any:
        seen.append(dict(ctx.meta))
        return await next()

    class Api:
        async def nothing(self) -> None: ...

    options = traced.options | {"interceptors": [note], "metadata": lambda: {"requestId": 7}}
    async with linked(Api(), **options) as (_, client):
        await client.remote().nothing()
    (span,) = traced.spans
    ((request, parent),) = [(meta.pop("requestId"), meta.pop("traceparent")) for meta in seen]
    assert request == 7
    assert parent.startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-")
    assert seen == [{}]


async def test_a_local_call_belongs_to_its_callers_span(traced: Traced) -> None:
    class Api:
        async def add(self, a: int, b: int) -> int:
            return a + b

        async def count(self) -> AsyncIterator[int]:
            yield current()
            yield current()

    async with linked(Api(), **traced.options) as (server, _):
        with traced.tracer.start_as_current_span("outer") as outer:
            mine = outer.get_span_context().span_id
            assert await server.invoke_local("add", 1, 2) == 3
            values = []
            async for value in await server.invoke_local("count"):
                assert current() == mine
                values.append(value)
            async with contextlib.aclosing(await server.invoke_local("count")) as left:
                async for _ in left:
                    break
            assert current() == mine
    spans = traced.of(SpanKind.SERVER)
    assert [span.name for span in spans] == ["add", "count", "count"]
    assert {parent_of(span) for span in spans} == {mine}
    assert values == [id_of(spans[1])] * 2
    assert otel.CANCELLED not in attributes(spans[1])
    assert attributes(spans[2])[otel.CANCELLED] is True


async def test_properties_and_construction_are_called_what_they_are(traced: Traced) -> None:
    class Greeter:
        def __init__(self, text: str) -> None:
            self.text = text

    class Api:
        counter = kk.writable(3)

    Api.Greeter = kk.constructible(Greeter)  # type: ignore[attr-defined] # a class made in a test

    async with linked(Api(), **traced.options) as (_, client):
        api = client.remote()
        assert await api.counter == 3
        await client.set(api.counter, 4)
        await client.construct(api.Greeter, "hi")
    for side in (SpanKind.CLIENT, SpanKind.SERVER):
        spans = traced.of(side)
        assert [span.name for span in spans] == ["get counter", "set counter", "construct Greeter"]
        assert [attributes(span)[otel.KIND] for span in spans] == ["get", "set", "construct"]
        assert [attributes(span)["rpc.method"] for span in spans] == ["counter", "counter", "Greeter"]


async def test_a_propagator_of_ones_own(traced: Traced) -> None:
    from opentelemetry.baggage import get_baggage, set_baggage
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.context import attach, detach

    class Api:
        async def tenant(self) -> Any:
            return get_baggage("tenant")

    both = W3CBaggagePropagator()
    options = {
        "interceptors": [otel.interceptor(traced.provider, propagator=both)],
        "on_call": otel.on_call(traced.provider, propagator=both),
    }
    async with linked(Api(), **options) as (_, client):
        token = attach(set_baggage("tenant", "acme"))
        try:
            assert await client.remote().tenant() == "acme"
        finally:
            detach(token)


def test_nothing_of_it_is_imported_unasked() -> None:
    code = "import sys, kkrpc_py, kkrpc_py.channel.channel; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
    code = """
import sys
sys.modules["opentelemetry"] = None
try:
    import kkrpc_py.otel
except ModuleNotFoundError as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True)
    assert done.stdout == "kkrpc_py.otel needs OpenTelemetry: pip install kkrpc-py[otel]\n"
