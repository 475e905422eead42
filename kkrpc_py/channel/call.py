"""`Call`: what `api.method(…)` gives. It is sent when it is first awaited or iterated.

This module owns the caller's wait for an answer. What arrives is put into `PendingCall` by the
channel; a stream's values are `channel.stream`'s.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import anyio
import msgspec
from msgspec import UNSET, UnsetType

from kkrpc_py.channel.deferred import Deferred
from kkrpc_py.channel.stream import (
    ConvertingIterator,
    StreamCall,
    StreamHost,
    StreamIterator,
    StreamReceiver,
)
from kkrpc_py.core.calls import OutgoingCall
from kkrpc_py.errors import (
    CallTimeout,
    ChannelClosed,
    ErrorValue,
    KkrpcError,
    LimitExceeded,
    NotSerializable,
)
from kkrpc_py.wire.messages import Callback, Construct, Get, Request, Set

__all__ = [
    "Call",
    "CallHook",
    "CallHost",
    "CallOptions",
    "MetadataProvider",
    "OutgoingInfo",
    "PendingCall",
    "ProxyHost",
    "Question",
    "checked_timeout",
    "send_notice",
]

_log = logging.getLogger("kkrpc_py")

T = TypeVar("T")


class OutgoingInfo(msgspec.Struct):
    """One call of this side, as the caller's hook sees it before it is sent."""

    method: str
    """The dotted path, or the path of a property."""
    kind: str
    """"call", "get", "set", "construct" or "callback"."""
    metadata: dict[str, Any]
    """What is sent along; the hook may add to it. A stock peer gets none of it."""
    chunks: int | None = None
    """Values that had arrived when the stream was over; None: the answer was no stream."""


MetadataProvider: TypeAlias = Callable[[], Mapping[str, Any]]
"""Gives the metadata of a call, in the caller's own context, when it is sent."""
CallHook: TypeAlias = Callable[[OutgoingInfo], "Callable[[BaseException | None], None] | None"]
"""Is told of each call before it is sent. What it returns is called once when the call, or the stream that it
returned, is over: with None, or with what it raised."""


class CallOptions(msgspec.Struct, frozen=True):
    """What one call does otherwise than its channel."""

    timeout: float | UnsetType | None = UNSET
    """Seconds, or None for no end; UNSET: the channel's."""
    metadata: Mapping[str, Any] | None = None
    """Goes on top of the provider's."""
    result: Callable[[Any], Any] | None = None
    """Converts the result; it may raise ValidationFailed."""
    chunk: Callable[[Any], Any] | None = None
    """The same for each value of the stream."""


_NO_OPTIONS = CallOptions()


class Question(msgspec.Struct, frozen=True):
    """What is asked of the peer, where it is more than a plain call."""

    message: Request | Construct | Get | Set | Callback
    name: str
    kind: str = "callback"


class ProxyHost(Protocol):
    """What a proxy needs: a channel, or what has one channel after the other."""

    @property
    def calling(self) -> CallHost:
        """What sends a call that is made now, and keeps it to its end; a channel is that itself."""
        ...


class CallHost(StreamHost, ProxyHost, Protocol):
    """What a call needs of its channel."""

    timeout: float | None
    metadata: MetadataProvider | None
    on_call: CallHook | None

    def error_from_wire(self, error: ErrorValue) -> KkrpcError:
        """The exception for an error that arrived."""
        ...

    @property
    def control_congested(self) -> bool:
        """More calls and answers wait to be written than `Limits.send_high_water`."""
        ...

    async def room_changed(self) -> None:
        """Wait until that may be so no more, or the channel is closed."""
        ...

    def check_open(self) -> None:
        """Raises ChannelClosed."""
        ...

    async def settled(self) -> None:
        """Wait until it is known what was agreed with the peer, as long as `Limits.hello_seconds`."""
        ...


def checked_timeout(timeout: Any) -> float | None:
    """`timeout`; TypeError and ValueError if it is no time."""
    if timeout is None:
        return None
    if type(timeout) not in (int, float):
        raise TypeError(f"a timeout is a number of seconds, not {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"a timeout is zero or more seconds, not {timeout!r}")
    return float(timeout)


class PendingCall(msgspec.Struct, eq=False):
    """Where the answer to one call arrives: a value, an error, or a stream."""

    wake: Callable[[Any], None]
    place: Awaitable[None]
    """Where the caller waits for it."""
    value: Any = None
    error: ErrorValue | KkrpcError | None = None
    receiver: StreamReceiver | None = None

    def set_value(self, value: Any) -> None:
        self.value = value
        self.wake(self.place)

    def set_error(self, error: ErrorValue | KkrpcError) -> None:
        self.error = error
        self.wake(self.place)

    def set_stream(self, receiver: StreamReceiver) -> None:
        self.receiver = receiver
        self.wake(self.place)


OnStream: TypeAlias = Callable[[StreamReceiver], Any]
"""What becomes of an answer that is a stream."""


def invoke(
    host: ProxyHost,
    method: str,
    args: list[Any],
    on_stream: OnStream,
    options: CallOptions | None = None,
    question: Question | None = None,
) -> Coroutine[Any, Any, Any]:
    """Send one call and wait for its answer: a value, or for a stream what `on_stream` makes of it.

    Raises what the handler raised, ChannelClosed, CallTimeout, NotSerializable, LimitExceeded. A
    caller that stops waiting cancels the call.
    """
    host = host.calling
    if options is None and host.metadata is None and host.on_call is None:
        if host.timeout is None:
            return _exchange(host, method, args, on_stream, question)
        exchange = functools.partial(_exchange, host, method, args, on_stream, question)
        return _within(host.timeout, method, exchange)
    return _exchange_with(host, method, args, on_stream, options or _NO_OPTIONS, question)


async def _exchange_with(
    host: CallHost,
    method: str,
    args: list[Any],
    on_stream: OnStream,
    options: CallOptions,
    question: Question | None,
) -> Any:
    """The way of a call that has options, metadata, or somebody who watches it."""
    if question is None:
        question = Question(Request(None, method, args), method, "call")
    info = OutgoingInfo(method, question.kind, dict(host.metadata()) if host.metadata is not None else {})
    if options.metadata is not None:
        info.metadata.update(options.metadata)
    over = host.on_call(info) if host.on_call is not None else None
    answer: Any = None
    failure: BaseException | None = None
    streamed = False

    def opened(receiver: StreamReceiver) -> Any:
        nonlocal over, streamed
        streamed = True
        if over is not None:  # the call goes on for as long as its stream does
            receiver.when_over(functools.partial(_tell_of_stream, over, info, receiver))
            over = None
        receiver.convert = options.chunk
        receiver.convert_result = options.result
        return on_stream(receiver)

    async def exchange() -> Any:
        return await _exchange(
            host, method, args, opened, await _with_metadata(host, question, info.metadata)
        )

    try:
        timeout = host.timeout if options.timeout is UNSET else options.timeout
        answer = await (exchange() if timeout is None else _within(timeout, method, exchange))
        if options.result is not None and not streamed:
            answer = options.result(answer)
    except BaseException as exc:
        failure = exc
        raise
    finally:
        if over is not None:
            _tell(over, failure)
        del failure
    return answer


def _tell(over: Callable[[BaseException | None], None], failure: BaseException | None) -> None:
    """What watches a call must not change what becomes of it."""
    try:
        over(failure)
    except (Exception, SystemExit, GeneratorExit):
        _log.exception("the hook of a call failed")


def _tell_of_stream(
    over: Callable[[BaseException | None], None],
    info: OutgoingInfo,
    receiver: StreamReceiver,
    failure: BaseException | None,
) -> None:
    info.chunks = receiver.received
    _tell(over, failure)


async def _with_metadata(host: CallHost, question: Question, metadata: dict[str, Any]) -> Question:
    """The question with what goes along, where the peer takes it; whether it does is waited for."""
    if not metadata or not isinstance(question.message, Request | Construct):
        return question
    if host.connection.pending:
        await host.settled()
    if not host.connection.takes_metadata:
        return question
    message = msgspec.structs.replace(question.message, meta=metadata)
    return Question(message, question.name, question.kind)


async def _within(timeout: float, method: str, exchange: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    with anyio.move_on_after(timeout):
        return await exchange()
    raise CallTimeout(method, timeout)


async def _exchange(
    host: CallHost, method: str, args: list[Any], on_stream: OnStream, question: Question | None
) -> Any:
    host.check_open()
    while host.control_congested:
        await host.room_changed()
        host.check_open()
    parking = host.parking
    pending = PendingCall(parking.wake, parking.new())
    connection = host.connection
    try:
        call = connection.call(method, args, pending) if question is None else _ask(host, question, pending)
    except NotSerializable as exc:
        if not (exc.needs_hello and connection.pending):
            raise
        await host.settled()
        host.check_open()
        call = connection.call(method, args, pending) if question is None else _ask(host, question, pending)
    if call is None:
        return None
    host.kick()
    try:
        await pending.place
    except BaseException:
        _abandon(host, call, pending)
        raise
    error = pending.error
    if error is not None:
        pending.error = None
        try:
            raise error if isinstance(error, KkrpcError) else host.error_from_wire(error)
        finally:
            del error  # its traceback holds this frame
    return pending.value if pending.receiver is None else on_stream(pending.receiver)


def send_notice(host: CallHost, callback_id: str, args: list[Any], kwargs: dict[str, Any] | None) -> None:
    """Call a function of the peer, and leave it at that."""
    try:
        host.check_open()
        host.connection.notify(callback_id, args, kwargs)
        host.kick()
    except ChannelClosed:
        return
    except (NotSerializable, LimitExceeded) as exc:
        _log.error("a callback was not called: %s", str(exc))  # a record must not hold what exc went through


def _ask(host: CallHost, question: Question, pending: PendingCall) -> OutgoingCall | None:
    """Send the question; None: nobody answers it."""
    message, connection = question.message, host.connection
    if type(message) is Callback and not connection.calls_back:
        connection.notify(message.callback_id, message.args, message.kwargs)
        host.kick()
        return None
    return connection.ask(message, pending)


def _abandon(host: CallHost, call: OutgoingCall, pending: PendingCall) -> None:
    if pending.receiver is not None:
        pending.receiver.cancel()
    else:
        host.connection.cancel(call)
        host.kick()


class Call(Deferred, Generic[T]):
    """One call, not sent yet.

    Awaited, it gives the value, or a `StreamCall` where the answer is a stream. Iterated with
    `async for`, it gives the stream's values; awaited after that, the generator's return value.
    """

    __slots__ = (
        "__weakref__",
        "_args",
        "_coroutine",
        "_host",
        "_iterated",
        "_method",
        "_options",
        "_question",
        "_receiver",
    )

    _code = _exchange.__code__

    def __init__(
        self,
        host: ProxyHost,
        method: str,
        args: list[Any],
        options: CallOptions | None = None,
        question: Question | None = None,
    ) -> None:
        self._host = host
        self._method = method
        self._args = args
        self._options = options
        self._question = question
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._iterated = False
        self._receiver: Callable[[], StreamReceiver | None] = _no_receiver

    async def _result(self) -> Any:
        receiver = self._receiver()
        if receiver is None:
            raise RuntimeError("await this call after its loop, for the generator's return value")
        stream: StreamCall[T] = StreamCall(receiver)
        return await stream.result()

    def _start(self) -> Coroutine[Any, Any, Any]:
        if self._coroutine is not None:
            raise RuntimeError("a call can be awaited once")
        self._coroutine = (
            self._result()
            if self._iterated
            else invoke(self._host, self._method, self._args, StreamCall, self._options, self._question)
        )
        return self._coroutine

    def __aiter__(self) -> StreamIterator[T]:
        """The values of the stream that the call returns. Raises TypeError where it returns none."""
        if self._coroutine is not None or self._iterated:
            raise RuntimeError("a call can be awaited or iterated once")
        self._iterated = True
        opened: list[StreamReceiver] = []
        self._receiver = lambda: opened[0] if opened else None
        host, method, args, options, question = (
            self._host, self._method, self._args, self._options, self._question
        )  # fmt: skip

        async def begin() -> StreamReceiver:
            answer = await invoke(host, method, args, opened.append, options, question)
            if not opened:
                raise TypeError(f"{method!r} returned {type(answer).__name__}, not a stream")
            return opened[0]

        if options is not None and options.chunk is not None:
            return ConvertingIterator(begin, options.chunk)
        return StreamIterator(begin)

    def close(self) -> None:
        if self._coroutine is not None:
            self._coroutine.close()
        else:
            self._iterated = True  # given up on purpose: no warning

    def __repr__(self) -> str:
        return f"<Call {self._method!r}>"

    def __del__(self) -> None:
        if self._coroutine is None and not self._iterated:
            warnings.warn(
                f"the call of {self._method!r} was never awaited", RuntimeWarning, stacklevel=2, source=self
            )


def _no_receiver() -> StreamReceiver | None:
    return None
