"""`Call`: what `api.method(…)` gives. It is sent when it is first awaited or iterated.

This module owns the caller's wait for an answer. What arrives is put into `PendingCall` by the
channel; a stream's values are `channel.stream`'s.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import anyio
import msgspec

from kkrpc_py.channel.stream import StreamCall, StreamHost, StreamIterator, StreamReceiver
from kkrpc_py.core.calls import OutgoingCall
from kkrpc_py.errors import CallTimeout, ErrorValue, KkrpcError, NotSerializable, error_from_wire

__all__ = ["Call", "CallHost", "PendingCall"]

T = TypeVar("T")


class CallHost(StreamHost, Protocol):
    """What a call needs of its channel."""

    timeout: float | None

    @property
    def congested(self) -> bool:
        """More waits to be written than `Limits.send_high_water`."""
        ...

    async def room_changed(self) -> None:
        """Wait until the channel may be congested no more, or is closed."""
        ...

    def check_open(self) -> None:
        """Raises ChannelClosed."""
        ...

    async def settled(self) -> None:
        """Wait until it is known what was agreed with the peer, as long as `Limits.hello_seconds`."""
        ...


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


def invoke(host: CallHost, method: str, args: list[Any], on_stream: OnStream) -> Coroutine[Any, Any, Any]:
    """Send one call and wait for its answer: a value, or for a stream what `on_stream` makes of it.

    Raises what the handler raised, ChannelClosed, CallTimeout, NotSerializable, LimitExceeded. A
    caller that stops waiting cancels the call.
    """
    if host.timeout is None:
        return _exchange(host, method, args, on_stream)
    return _exchange_within(host.timeout, host, method, args, on_stream)


async def _exchange_within(
    timeout: float, host: CallHost, method: str, args: list[Any], on_stream: OnStream
) -> Any:
    with anyio.move_on_after(timeout):
        return await _exchange(host, method, args, on_stream)
    raise CallTimeout(method, timeout)


async def _exchange(host: CallHost, method: str, args: list[Any], on_stream: OnStream) -> Any:
    host.check_open()
    while host.congested:
        await host.room_changed()
        host.check_open()
    parking = host.parking
    pending = PendingCall(parking.wake, parking.new())
    connection = host.connection
    try:
        call = connection.call(method, args, pending)
    except NotSerializable as exc:
        if not (exc.needs_cbor and connection.pending):
            raise
        await host.settled()
        host.check_open()
        call = connection.call(method, args, pending)
    host.kick()
    try:
        await pending.place
    except BaseException:
        _abandon(host, call, pending)
        raise
    error = pending.error
    if error is not None:
        raise error if isinstance(error, KkrpcError) else error_from_wire(error)
    return pending.value if pending.receiver is None else on_stream(pending.receiver)


def _abandon(host: CallHost, call: OutgoingCall, pending: PendingCall) -> None:
    if pending.receiver is not None:
        pending.receiver.cancel()
    else:
        host.connection.cancel(call)
        host.kick()


class Call(Coroutine[Any, Any, Any], Generic[T]):
    """One call, not sent yet.

    Awaited, it gives the value, or a `StreamCall` where the answer is a stream. Iterated with
    `async for`, it gives the stream's values; awaited after that, the generator's return value.
    """

    __slots__ = ("__weakref__", "_args", "_coroutine", "_host", "_iterated", "_method", "_receiver")

    def __init__(self, host: CallHost, method: str, args: list[Any]) -> None:
        self._host = host
        self._method = method
        self._args = args
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
            self._result() if self._iterated else invoke(self._host, self._method, self._args, StreamCall)
        )
        return self._coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._start().__await__()

    def __aiter__(self) -> StreamIterator[T]:
        """The values of the stream that the call returns. Raises TypeError where it returns none."""
        if self._coroutine is not None or self._iterated:
            raise RuntimeError("a call can be awaited or iterated once")
        self._iterated = True
        opened: list[StreamReceiver] = []
        self._receiver = lambda: opened[0] if opened else None
        host, method, args = self._host, self._method, self._args

        async def begin() -> StreamReceiver:
            answer = await invoke(host, method, args, opened.append)
            if not opened:
                raise TypeError(f"{method!r} returned {type(answer).__name__}, not a stream")
            return opened[0]

        return StreamIterator(begin)

    # The coroutine protocol: `create_task(call)` and the event loops step it as one.

    def send(self, value: Any) -> Any:
        return (self._coroutine or self._start()).send(value)

    def throw(self, *exc: Any) -> Any:
        return (self._coroutine or self._start()).throw(*exc)

    def close(self) -> None:
        if self._coroutine is not None:
            self._coroutine.close()
        else:
            self._iterated = True  # given up on purpose: no warning

    @property
    def cr_running(self) -> bool:
        return bool(getattr(self._coroutine, "cr_running", False))

    @property
    def cr_suspended(self) -> bool:
        return bool(getattr(self._coroutine, "cr_suspended", False))

    @property
    def cr_frame(self) -> Any:
        return getattr(self._coroutine, "cr_frame", None)

    @property
    def cr_await(self) -> Any:
        return getattr(self._coroutine, "cr_await", None)

    @property
    def cr_code(self) -> Any:
        return _exchange.__code__

    def __repr__(self) -> str:
        return f"<Call {self._method!r}>"

    def __del__(self) -> None:
        if self._coroutine is None and not self._iterated:
            warnings.warn(
                f"the call of {self._method!r} was never awaited", RuntimeWarning, stacklevel=2, source=self
            )


def _no_receiver() -> StreamReceiver | None:
    return None
