"""OpenTelemetry: one span a call, on either side, streams included (extra `otel`).

``RPCChannel(stream, interceptors=[otel.interceptor()], on_call=otel.on_call())``. This module owns what the
spans say and which span is the current one while a handler or its generator runs. It does not own how
metadata crosses, which is the channel's, nor exporting, which is the SDK's.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

try:
    from opentelemetry import context as otel_context
    from opentelemetry.context import Context
    from opentelemetry.propagators.textmap import Getter, TextMapPropagator
    from opentelemetry.trace import (
        Span,
        SpanKind,
        Status,
        StatusCode,
        Tracer,
        TracerProvider,
        get_tracer,
        set_span_in_context,
    )
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError(
        "kkrpc_py.otel needs OpenTelemetry: pip install kkrpc-py[otel]", name=_missing.name
    ) from _missing

from kkrpc_py.channel.call import CallHook, OutgoingInfo
from kkrpc_py.channel.interceptors import CallContext, Interceptor, Next
from kkrpc_py.channel.sink import SinkStream, StreamSink
from kkrpc_py.channel.steps import run_stepped, stepper
from kkrpc_py.channel.threads import ThreadedGenerator
from kkrpc_py.errors import CallCancelled, RemoteError

__all__ = ["interceptor", "on_call"]

CANCELLED = "kkrpc.cancelled"
"""True on the span of a call or stream that was cancelled, by whichever side; it is no error."""
CHUNKS = "kkrpc.stream.chunks"
"""Values of the stream: on the caller's span those that arrived, on the callee's those that were made."""
KIND = "kkrpc.kind"
""""get", "set", "construct" or "callback"; not there for a call."""


def on_call(
    tracer_provider: TracerProvider | None = None, *, propagator: TextMapPropagator | None = None
) -> CallHook:
    """The `on_call` of a channel whose calls are to have a span each, of kind CLIENT.

    The span is a child of the caller's current one and ends with the call, or with the stream that it
    returned. Its context goes along as metadata, by default as W3C `traceparent` and `tracestate`.
    """
    tracer = get_tracer("kkrpc_py", tracer_provider=tracer_provider)
    writer = propagator if propagator is not None else TraceContextTextMapPropagator()

    def begin(info: OutgoingInfo) -> Callable[[BaseException | None], None]:
        span = _start(tracer, info.method, info.kind, SpanKind.CLIENT, None)
        writer.inject(info.metadata, set_span_in_context(span))

        def end(failure: BaseException | None) -> None:
            if info.chunks is not None:
                span.set_attribute(CHUNKS, info.chunks)
            _end(span, failure)

        return end

    return begin


def interceptor(
    tracer_provider: TracerProvider | None = None, *, propagator: TextMapPropagator | None = None
) -> Interceptor:
    """An interceptor that gives each call of the peer's a span, of kind SERVER.

    The span is a child of the caller's, where its metadata name one, and a root otherwise. It is the current
    one while the handler runs, and while its generator does: it ends with the stream. As the outermost
    interceptor it covers the others.
    """
    tracer = get_tracer("kkrpc_py", tracer_provider=tracer_provider)
    reader = propagator if propagator is not None else TraceContextTextMapPropagator()

    async def trace(ctx: CallContext, next: Next) -> Any:
        # Without a caller's span: what is current here is that of whoever opened the channel.
        above = otel_context.get_current() if ctx.local else Context()
        parent = reader.extract(ctx.meta, above, _METADATA)
        span = _start(tracer, ctx.method, ctx.kind, SpanKind.SERVER, parent)
        token = otel_context.attach(set_span_in_context(span, parent))
        try:
            result = await next()
            within = contextvars.copy_context()
        except BaseException as failure:
            _end(span, failure)
            raise
        finally:
            otel_context.detach(token)
        if hasattr(type(result), "__aiter__"):
            return _TracedStream(result, span, within)
        if isinstance(result, SinkStream):
            return SinkStream(functools.partial(_send_traced, result, span, within.run))
        _end(span, None)
        return result

    return trace


_HEADER = 8192
"""Characters of the longest header that any propagator reads."""


class _Metadata(Getter[Mapping[str, Any]]):
    """Metadata are any JSON; only text can be a header."""

    def get(self, carrier: Mapping[str, Any], key: str) -> list[str] | None:
        value = carrier.get(key)
        return [value] if isinstance(value, str) and len(value) <= _HEADER else None

    def keys(self, carrier: Mapping[str, Any]) -> list[str]:
        return list(carrier)


_METADATA = _Metadata()


class _TracedStream:
    """A handler's stream whose steps run in a context of their own, in which the call's span is current.

    Nothing is attached to the context of whoever steps it, so nothing leaks from there, wherever the
    generator suspends and whoever closes it.
    """

    def __init__(self, stream: Any, span: Span, within: contextvars.Context) -> None:
        self.__wrapped__ = stream
        """Where the dispatcher finds a generator's return value."""
        self._iterator: Any = None
        self._span = span
        self._run: Any = within.run
        self._chunks = 0
        self._ended = False

    def __aiter__(self) -> AsyncIterator[Any]:
        self._iterator = self._run(aiter, self.__wrapped__)
        return self

    async def __anext__(self) -> Any:
        try:
            value = await self._within(self._iterator.__anext__)
        except StopAsyncIteration:
            self._end(None)
            raise
        except BaseException as failure:
            self._end(failure)
            raise
        self._chunks += 1
        return value

    async def aclose(self) -> None:
        """Close the generator within its span; one on a thread is closed by the dispatcher alone."""
        source = self._iterator if self._iterator is not None else self.__wrapped__
        try:
            if hasattr(source, "aclose") and not _runs_on_thread(self.__wrapped__):
                await self._within(source.aclose)
        except BaseException as failure:
            self._end(failure)
            raise
        self._end(CallCancelled())

    def _within(self, call: Callable[[], Any]) -> Awaitable[Any]:
        return run_stepped(stepper(self._run(call)), _nothing, self._run)

    def _end(self, failure: BaseException | None) -> None:
        if not self._ended:
            self._ended = True
            self._span.set_attribute(CHUNKS, self._chunks)
            _end(self._span, failure)


async def _send_traced(stream: SinkStream, span: Span, run: Any, sink: StreamSink[Any]) -> Any:
    """Send a stream, such as an action's, with its span the current one; the span ends with it."""
    try:
        result = await run_stepped(run(stream.send, sink), _nothing, run)
    except BaseException as failure:
        _end(span, failure)
        raise
    _end(span, None)
    return result


def _runs_on_thread(stream: Any) -> bool:
    while (wrapped := getattr(stream, "__wrapped__", None)) is not None:
        stream = wrapped
    return isinstance(stream, ThreadedGenerator)


def _nothing() -> None:
    pass


def _start(tracer: Tracer, method: str, kind: str, side: SpanKind, parent: Context | None) -> Span:
    """By the RPC conventions: named like the method, which an id of a callback's would make endless."""
    attributes = {"rpc.system.name": "kkrpc"}
    if kind != "call":
        attributes[KIND] = kind
    if kind != "callback":
        attributes["rpc.method"] = method
    name = method if kind == "call" else kind if kind == "callback" else f"{kind} {method}"
    return tracer.start_span(name, parent, side, attributes)


def _end(span: Span, failure: BaseException | None) -> None:
    if failure is not None:
        _record(span, failure)
    span.end()


def _record(span: Span, failure: BaseException) -> None:
    # A cancellation is no `Exception` on either event loop, and neither is the closing of a generator.
    asked_for = isinstance(failure, CallCancelled) or not isinstance(
        failure, Exception | KeyboardInterrupt | SystemExit
    )
    if asked_for:
        span.set_attribute(CANCELLED, True)
        return
    kind = failure.name if isinstance(failure, RemoteError) else type(failure).__qualname__
    span.set_attribute("error.type", kind)
    try:
        text = str(failure)
    except Exception:  # the error's own code
        span.set_status(Status(StatusCode.ERROR))
        return
    span.set_status(Status(StatusCode.ERROR, text))
    span.record_exception(failure)
