"""One call of the peer while it runs: from the handler to the wire.

This is the one place where exceptions become wire errors. A handler may raise anything,
`SystemExit` and a cancellation that nobody asked for included; the channel lives on.
"""

from __future__ import annotations

import functools
import logging
import types
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import msgspec
from msgspec import UNSET

from kkrpc_py.channel.handler import Handler, Runs
from kkrpc_py.channel.interceptors import CallContext, wrap
from kkrpc_py.channel.producer import Link, Producer
from kkrpc_py.channel.sink import SinkStream, StreamSink
from kkrpc_py.channel.stream import StreamCall
from kkrpc_py.channel.threads import ThreadedGenerator, Threads
from kkrpc_py.core.calls import IncomingCall
from kkrpc_py.errors import (
    CallCancelled,
    InternalError,
    KkrpcError,
    LimitExceeded,
    NotSerializable,
    ProtocolError,
    error_to_wire,
)

if TYPE_CHECKING:
    from kkrpc_py.channel.dispatch import Dispatcher
    from kkrpc_py.channel.validation import Validator

__all__ = [
    "READING",
    "VALUES",
    "CallTask",
    "CheckedStream",
    "Host",
    "Outcome",
    "checked",
    "is_stream",
    "settle",
]

_log = logging.getLogger("kkrpc_py")

VALUES = frozenset((bool, int, float, str, bytes, list, dict, tuple, type(None)))
"""Results that are neither a stream nor to be awaited, whatever they hold."""
_OWN = frozenset(("callback", "stream"))
"""Kinds of tasks for what this side has passed to the peer itself: no interceptor is concerned."""


class Host(Link, Protocol):
    """What the dispatcher needs of its channel."""

    @property
    def control_congested(self) -> bool:
        """More calls and answers wait to be written than `Limits.send_high_water`."""
        ...

    async def room_changed(self) -> None:
        """Wait until that may be so no more, or the channel stops."""
        ...

    async def settled(self) -> None:
        """Wait until it is known what was agreed with the peer, as long as `Limits.hello_seconds`."""
        ...

    def crash(self, exc: BaseException) -> None:
        """End the channel and raise `exc` from its `async with`: a KeyboardInterrupt."""
        ...


class Outcome(msgspec.Struct, eq=False):
    """What a handler that has run already returned or raised."""

    value: Any = None
    error: BaseException | None = None

    def unwrap(self) -> Any:
        error, self.error = self.error, None
        if error is None:
            return self.value
        try:
            raise error
        finally:
            del error  # its traceback holds this frame


class CallTask(msgspec.Struct, eq=False):
    """One call while it runs; a `workers.Job`."""

    dispatcher: Dispatcher
    host: Host
    call: IncomingCall
    handler: Handler
    args: list[Any]
    outcome: Outcome | None = None
    """Set where the handler ran before there was a task."""
    kwargs: dict[str, Any] | None = None
    meta: dict[str, Any] | None = None
    kind: str = "call"
    scope: anyio.CancelScope | None = None
    producer: Producer | None = None
    results: list[Any] = msgspec.field(default_factory=list)
    """What each layer of the onion returned, innermost first: the streams to close."""

    async def run(self) -> None:
        """Run the handler and answer. Raises nothing but the cancellation of `scope`."""
        try:
            if self.call.stopping():  # cancelled while it was queued
                if self.outcome is None:
                    self._answer_cancel()
                    return
                self.interrupt()  # what it returned is closed all the same
            try:
                if self.dispatcher.interceptors and self.kind not in _OWN:
                    result = await self._invoke_wrapped()
                else:
                    result = await self._invoke(self.args, self.kwargs)
                if self.producer is not None:  # a sink's handler has sent its stream already
                    await self._finish_stream(self.producer, result)
                elif type(result) is SinkStream:
                    if not self.call.stopping():
                        producer = self._open(checks=False)
                        await self._finish_stream(producer, await _drive(producer, result.send))
                elif type(result) not in VALUES and is_stream(result):
                    self._note_result(result)
                    if not self.call.stopping():
                        await self._stream(result)
                elif not self.call.stopping():
                    await self._respond(result)
            finally:
                if self.results:
                    await self._close_streams()
            if self.call.stopping():  # the handler finished in spite of the cancel
                self._answer_cancel()
        except BaseException as exc:
            if await self._answer_error(exc):
                raise
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Break the cycles: what is in the arguments lives as long as the handler keeps it."""
        if self.producer is not None:
            self.producer.leave()
        self.call.owner = self.producer = None

    def discard(self) -> None:
        if self.outcome is not None and isinstance(self.outcome.value, Coroutine):
            self.outcome.value.close()

    def interrupt(self) -> None:
        assert self.scope is not None
        self.scope.cancel()

    # The handler ---------------------------------------------------------------------------

    def _invoke_wrapped(self) -> Awaitable[Any]:
        ctx = CallContext(self.call.method, self.args, self.kwargs, self.meta, self.kind)
        return wrap(
            self.dispatcher.interceptors,
            ctx,
            lambda: self._invoke_checked(ctx.args, ctx.kwargs),
            self._note_result,
        )

    async def _invoke_checked(self, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """As `_invoke`; a stream is checked within, since a layer of the onion may change what it yields."""
        result = await self._invoke(args, kwargs)
        validator = self.handler.validator
        if validator is not None and validator.checks_chunks and self.producer is None and is_stream(result):
            self._note_result(result)
            return CheckedStream(result, validator, self.call.method)
        return result

    async def _invoke(self, args: list[Any], kwargs: dict[str, Any] | None) -> Any:
        handler, kwargs = self.handler, kwargs or {}
        self.args, self.kwargs = [], None  # they live as long as the handler keeps them
        if self.outcome is None:  # else they were checked before it ran
            args, kwargs = checked(handler, args, kwargs, self.call.method)
        if handler.sink is not None:
            return await self._run_sink(handler, args, kwargs)
        if self.outcome is not None:
            result = self.outcome.unwrap()
        elif handler.runs is Runs.ON_THREAD:
            threads = self.dispatcher.threads
            if self.kind == "callback":
                threads = self.dispatcher.callback_threads or threads
            result = await threads.run(handler.function, *args, **kwargs)
        else:
            result = handler.function(*args, **kwargs)
            del args, kwargs
            if type(result) is types.CoroutineType:  # what most handlers are, and what most of those return
                result = await result
                if type(result) in VALUES:
                    validator = handler.validator
                    return result if validator is None else validator.result(result, self.call.method)
        threads = self.dispatcher.generator_threads
        return await settle(handler, result, threads, self.call.method, validated=self.outcome is not None)

    async def _run_sink(self, handler: Handler, args: list[Any], kwargs: dict[str, Any]) -> Any:
        assert handler.sink is not None
        if handler.runs is Runs.ON_THREAD:
            raise TypeError(f"{handler.name}() takes a StreamSink, so it must be an `async def`")

        def send(sink: StreamSink[Any]) -> Any:
            given, named = handler.with_sink(sink, args, kwargs)
            return handler.function(*given, **named)

        result = await _drive(self._open(checks=True), send)
        if handler.validator is not None:
            result = handler.validator.stream_result(result, self.call.method)
        return result

    # The answer ----------------------------------------------------------------------------

    async def _respond(self, value: Any) -> None:
        host = self.host
        while host.control_congested and not host.stopping:
            await host.room_changed()
        if self.call.stopping():
            return
        try:
            _own(host.connection.respond, self.call, value)
        except NotSerializable as exc:
            if not (exc.needs_hello and host.connection.pending):
                raise
            await host.settled()
            if self.call.stopping():
                return
            _own(host.connection.respond, self.call, value)
        host.kick()

    def _open(self, *, checks: bool) -> Producer:
        """Begin the stream; `checks`: its values are the handler's own, and held against its annotation."""
        if self.call.id is None:
            raise ProtocolError("a call without an id cannot have a stream for its answer")
        if self.producer is not None:
            raise RuntimeError("the stream of this call is open already")
        if self.call.stopping():
            raise CallCancelled("the call was cancelled")
        if self.call.lane is None:
            self.host.connection.open_stream(self.call)
            self.host.kick()
        validator = self.handler.validator if checks else None
        check = None
        if validator is not None and validator.checks_chunks:
            check = functools.partial(validator.chunks, method=self.call.method)
        self.producer = Producer(self.host, self.call, self.interrupt, check)
        return self.producer

    async def _stream(self, iterable: Any) -> None:
        producer = self._open(checks=not self.dispatcher.interceptors)
        iterator = aiter(iterable)
        if iterator is not iterable:
            self.results.append(iterator)
        await producer.iterate(iterator)
        result = None
        source = _innermost(iterable)
        if isinstance(source, ThreadedGenerator | _InlineGenerator):
            result = source.result
            if self.handler.validator is not None:
                result = self.handler.validator.stream_result(result, self.call.method)
        elif isinstance(source, StreamCall):
            result = await source.result()
        await producer.drain()
        await self._close_streams()
        await self._finish_stream(producer, result)

    async def _finish_stream(self, producer: Producer, result: Any) -> None:
        await producer.drain()
        if producer.invalid is not None:  # and the handler did not mind
            raise producer.invalid
        if self.call.stopping() or self.host.stopping:
            return  # where the channel is being closed, nobody knows any more whether that was all
        _own(self.host.connection.end_stream, self.call, UNSET if result is None else result)
        self.host.kick()

    async def _answer_error(self, exc: BaseException) -> bool:
        """Tell the peer; True: it is this task's cancellation, and goes on."""
        call, host = self.call, self.host
        assert self.scope is not None
        if call.done():
            # What a layer of the onion raised while it was closed, after the answer.
            if isinstance(exc, KeyboardInterrupt):
                host.crash(exc)
            elif isinstance(exc, anyio.get_cancelled_exc_class()) and self.scope.cancel_called:
                return True
            else:
                _log.error("cleaning up after %r failed", call.method, exc_info=exc)
            return False
        cancelled = isinstance(exc, anyio.get_cancelled_exc_class())
        if isinstance(exc, KeyboardInterrupt):
            host.crash(exc)
            return False
        if self.host.stopping:
            return cancelled
        error: BaseException = exc
        if cancelled:
            if call.stopping():
                self._answer_cancel()
                return True
            if self.producer is not None and self.producer.error is not None:
                error = self.producer.error
            elif self.producer is not None and self.producer.invalid is not None:
                error = self.producer.invalid
                try:
                    with anyio.move_on_after(host.connection.limits.cleanup_seconds, shield=True):
                        await self.producer.drain()  # the chunks before it were fine
                except KkrpcError as unsendable:  # by their annotation, that is
                    error = unsendable
            else:
                # Nobody asked for it: raised by the handler, or aimed at a task that is ours.
                error = CallCancelled("the handler was cancelled")
        elif not call.stopping():
            try:
                if self.producer is None:
                    while host.control_congested and not host.stopping:
                        await host.room_changed()
                elif self.producer.error is None:
                    await self.producer.drain()  # values that came before the error arrive before it
                else:
                    await self.producer.clear()
            except (NotSerializable, LimitExceeded) as unsendable:
                error = unsendable
            except BaseException as interrupted:
                if await self._answer_error(interrupted):
                    raise
                return False
        if call.silent:
            self.dispatcher.report_silent(error)
        if isinstance(error, InternalError):
            _log.error("a fault of this library while it answered %r", call.method, exc_info=error.__cause__)
        host.connection.fail(call, error_to_wire(error, with_traceback=self.dispatcher.tracebacks))
        host.kick()
        if cancelled:
            requested = self.scope.cancel_called
            self.interrupt()  # a worker that was cancelled, by whomever, does not run another call
            return requested
        return False

    def _answer_cancel(self) -> None:
        self.host.connection.stopped(self.call)
        self.host.kick()

    # Cleaning up ---------------------------------------------------------------------------

    def _note_result(self, result: Any) -> None:
        if is_stream(result) and not any(result is known for known in self.results):
            self.results.append(result)

    async def _close_streams(self) -> None:
        """Close every layer's iterator, the outermost first, each within `Limits.cleanup_seconds`."""
        error: BaseException | None = None
        for stream in reversed(self.results):
            source = stream.__wrapped__ if isinstance(stream, CheckedStream) else stream
            if self.host.stopping and isinstance(source, ThreadedGenerator):
                source.stop()  # a blocked one must not hold up the closing
                continue
            aclose = getattr(stream, "aclose", None)
            if aclose is None:
                continue
            try:
                with anyio.move_on_after(self.host.connection.limits.cleanup_seconds, shield=True):
                    await aclose()
            except Exception as exc:
                error = exc
        self.results.clear()
        if error is not None:
            raise error


class CheckedStream:
    """The handler's stream, each value held against the handler's annotation."""

    def __init__(self, iterable: Any, validator: Validator, method: str) -> None:
        self.__wrapped__ = iterable  # what has the return value
        self._method = method
        self._iterator = aiter(iterable)
        self._validator = validator

    def __aiter__(self) -> CheckedStream:
        return self

    async def __anext__(self) -> Any:
        return self._validator.chunks([await anext(self._iterator)], self._method)[0]

    async def aclose(self) -> None:
        if (aclose := getattr(self._iterator, "aclose", None)) is not None:
            await aclose()


async def _drive(producer: Producer, send: Callable[[StreamSink[Any]], Any]) -> Any:
    """Run what sends a stream; returns the stream's result."""
    sink: StreamSink[Any] = StreamSink(producer)
    try:
        return await producer.drive(send(sink))
    finally:
        sink._close()


def checked(
    handler: Handler, args: list[Any], kwargs: dict[str, Any] | None, method: str
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments as the handler takes them. Raises TypeError and ValidationFailed."""
    if kwargs:
        handler.check(len(args), kwargs)
    else:
        handler.check(len(args))
        kwargs = {}
    validator = handler.validator
    return (args, kwargs) if validator is None else validator.arguments(args, kwargs, method)


READING = Handler.on_loop(aiter, "a stream", 0)
"""What stands for a handler where there is none: a stream within a value."""


class _InlineGenerator:
    """A sync generator that was marked safe to run on the loop."""

    def __init__(self, generator: Any) -> None:
        self.result: Any = None
        self._generator = generator

    def __aiter__(self) -> _InlineGenerator:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self._generator)
        except StopIteration as stop:
            self.result = stop.value
            raise StopAsyncIteration from None
        except StopAsyncIteration as exc:  # it would look like the end
            raise RuntimeError("the generator raised StopAsyncIteration") from exc

    async def aclose(self) -> None:
        self._generator.close()


def _innermost(stream: Any) -> Any:
    """What has the return value: an interceptor's wrapper names what it wraps as `functools.wraps` does."""
    while (wrapped := getattr(stream, "__wrapped__", None)) is not None:
        stream = wrapped
    return stream


async def settle(
    handler: Handler, result: Any, generator_threads: Threads, method: str, *, validated: bool = False
) -> Any:
    """What a handler returned, awaited as far as it goes and validated: a value, or an async iterable."""
    while type(result) is types.CoroutineType or isinstance(result, Coroutine):
        result = await result
        validated = False
    validator = handler.validator
    if type(result) in VALUES:
        return result if validator is None or validated else validator.result(result, method)
    if isinstance(result, types.GeneratorType):
        if handler.inline:
            return _InlineGenerator(result)
        return ThreadedGenerator(result, generator_threads)
    if is_stream(result):
        return result
    if hasattr(type(result), "__await__"):
        result = await result
    return result if validator is None else validator.result(result, method)


def is_stream(result: Any) -> bool:
    """Whether a handler's result goes out as a stream."""
    return hasattr(type(result), "__aiter__")


def _own(act: Callable[[IncomingCall, Any], None], call: IncomingCall, value: Any) -> None:
    """`act(call, value)`; what the library raises unexpectedly sends no text to the peer (ERR-5)."""
    try:
        act(call, value)
    except KkrpcError:
        raise
    except Exception as exc:
        raise InternalError("internal error") from exc
