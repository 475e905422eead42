"""What the caller of a stream holds: `StreamCall`, and the iterator that `async for` takes from it.

`StreamReceiver` is where the reader puts what arrives; it belongs to the channel and refers to
neither of the two, so that dropping them is noticed: an abandoned stream cancels its producer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from kkrpc_py.channel.parking import Parking, Signal
from kkrpc_py.channel.threads import Post
from kkrpc_py.core.calls import OutgoingCall
from kkrpc_py.core.connection import Connection
from kkrpc_py.errors import CallCancelled, ErrorValue, KkrpcError

__all__ = ["ConvertingIterator", "StreamCall", "StreamHost", "StreamIterator", "StreamReceiver"]

T = TypeVar("T")

_TURN = 1024
"""Values that are read without a wait before the other tasks get their turn."""


class StreamHost(Protocol):
    """What a stream needs of its channel."""

    connection: Connection
    parking: Parking
    post: Post

    def kick(self) -> None:
        """There is something to write."""
        ...

    def error_from_wire(self, error: ErrorValue) -> KkrpcError:
        """The exception for an error that arrived."""
        ...


class StreamReceiver:
    """The consumer's half of one stream, on the channel's side."""

    __slots__ = (
        "_changed",
        "_discarding",
        "_error",
        "_frames",
        "_held",
        "_since_wait",
        "_when_over",
        "abandoned",
        "call",
        "cancelled",
        "convert",
        "convert_result",
        "ended",
        "exhausted",
        "host",
        "received",
        "result",
        "values",
    )

    def __init__(self, host: StreamHost, call: OutgoingCall) -> None:
        self.host = host
        self.call = call
        self.values: list[Any] = []
        """The values of the frame that is being read, the next one last."""
        self.received = 0
        self.ended = False
        """The producer has stopped, or the channel has."""
        self.cancelled = False
        """This side wants no more."""
        self.abandoned = False
        """The iterator was dropped; the cancel follows as soon as the loop runs."""
        self.exhausted = False
        """The consumer has read all there was."""
        self.result: Any = None
        self._error: ErrorValue | KkrpcError | None = None
        self._frames: deque[tuple[list[Any], int]] | None = None
        """Frames that wait behind the one that is being read; made when there are some."""
        self._held: tuple[int, int] | None = None
        self._changed = Signal(host.parking)
        self._discarding = False
        self._since_wait = 0
        self._when_over: Callable[[BaseException | None], None] | None = None
        self.convert: Callable[[Any], Any] | None = None
        """What each value is turned into before it is read; it may raise ValidationFailed."""
        self.convert_result: Callable[[Any], Any] | None = None

    def when_over(self, tell: Callable[[BaseException | None], None]) -> None:
        """Call `tell` once when the stream has ended, with what it ended in: maybe at once."""
        if self.ended:
            tell(self.error() if self.failed else None)
        else:
            self._when_over = tell

    def _over(self, failure: BaseException | None = None) -> None:
        if self._when_over is not None:
            tell, self._when_over = self._when_over, None
            tell(failure)

    # The reader's side ---------------------------------------------------------------------

    def put(self, values: list[Any], size: int) -> None:
        self.received += len(values)
        if self._discarding:
            self._give_back(len(values), size)
            return
        if self._held is None and self._frames is None:
            self._hold(values, size)
        elif self._frames is None:
            self._frames = deque(((values, size),))
        else:
            self._frames.append((values, size))
        self._changed.wake()

    def _hold(self, values: list[Any], size: int) -> None:
        """These values are read next."""
        values.reverse()
        self.values += values
        self._held = (len(values), size)

    def end(self, result: Any) -> None:
        self.result = result
        self.ended = True
        self._over()
        self._changed.wake()

    def fail(self, error: ErrorValue | KkrpcError) -> None:
        """The stream ended in `error`; what came before it is still read first."""
        if not self.ended:
            self._error = error
            self.ended = True
            self._over(self.error())
        self._changed.wake()

    # The consumer's side -------------------------------------------------------------------

    async def next_value(self) -> Any:
        """The next value, when `values` is empty. Raises StopAsyncIteration at the end."""
        while True:
            if self.cancelled:
                raise self.cancellation()
            if self._held is None and self._frames is not None:
                values, size = self._frames.popleft()
                if not self._frames:
                    self._frames = None
                self._hold(values, size)
            if self._held is not None:
                if self._since_wait > _TURN:
                    self._since_wait = 0
                    await checkpoint()
                    continue
                self._since_wait += len(self.values)
                value = self.values.pop()
                if not self.values:
                    self.release()
                return value
            elif self.ended:
                self.exhausted = True
                if self._error is not None:
                    raise self.error()
                raise StopAsyncIteration
            else:
                await self.change()

    def release(self) -> None:
        """The last value of a frame has been taken: its credit goes back at once (CRD-8)."""
        if self._held is not None:
            held, self._held = self._held, None
            self._give_back(*held)

    def take(self) -> list[Any]:
        """All the values that are there, in order, maybe none; their credit goes back."""
        taken = self.values[::-1]
        self.values.clear()
        self.release()
        frames, self._frames = self._frames or (), None
        for values, size in frames:
            taken += values
            self._give_back(len(values), size)
        return taken

    async def change(self) -> None:
        """Wait until something has arrived."""
        # On asyncio a task that is woken in each turn of the loop is never found waiting to be cancelled.
        await checkpoint_if_cancelled()
        self._since_wait = 0
        await self._changed.wait()

    def discard(self) -> None:
        """Read no more values, but let the producer finish."""
        self._discarding = True
        self.values.clear()
        self.release()
        frames, self._frames = self._frames or (), None
        for values, size in frames:
            self._give_back(len(values), size)

    def cancel(self) -> bool:
        """Stop the producer; True where the peer will confirm it, by `end`."""
        if self.cancelled:
            return not self.ended
        self.cancelled = not self.exhausted
        self.values.clear()
        self._frames = None
        self._held = None
        self.host.connection.unread(self.call)
        if self.ended:
            return False
        self._over(self.cancellation())
        confirms = self.host.connection.cancel(self.call)
        if not confirms:
            self.ended = True
        self._changed.wake()
        self.host.kick()
        return confirms

    def abandon(self) -> None:
        """Cancel from a finalizer, which may run at any point of any thread."""
        if not self.exhausted and not self.cancelled:
            self.abandoned = True
            self.host.post(self.cancel)

    def cancellation(self) -> CallCancelled:
        return CallCancelled(f"the stream of {self.call.method!r} was cancelled")

    def error(self) -> KkrpcError:
        error = self._error
        assert error is not None
        return error if isinstance(error, KkrpcError) else self.host.error_from_wire(error)

    @property
    def failed(self) -> bool:
        return self._error is not None

    def _give_back(self, chunks: int, size: int) -> None:
        if chunks and self.host.connection.taken(self.call, chunks, size):
            self.host.kick()


class StreamIterator(Generic[T]):
    """One pass over a stream. When it is dropped before the end, the producer is cancelled.

    `async for` holds it, so that leaving the loop by `break` drops it at once.
    """

    __slots__ = ("__weakref__", "_begin", "_receiver", "_values")

    def __init__(self, begin: Callable[[], Any] | StreamReceiver) -> None:
        self._receiver = begin if isinstance(begin, StreamReceiver) else None
        self._begin = None if isinstance(begin, StreamReceiver) else begin
        self._values: list[Any] = self._receiver.values if self._receiver is not None else []

    def __aiter__(self) -> StreamIterator[T]:
        return self

    async def __anext__(self) -> T:
        """The next value. Raises what the stream ended in, once its values are read."""
        values, receiver = self._values, self._receiver
        if values:
            value: T = values.pop()
            if not values and receiver is not None:
                receiver.release()
            return value
        if receiver is None:
            begin, self._begin = self._begin, None
            if begin is None:
                raise StopAsyncIteration
            receiver = self._receiver = await begin()
            self._values = receiver.values
        try:
            value = await receiver.next_value()
        except (StopAsyncIteration, KkrpcError):
            raise
        except BaseException:
            receiver.cancel()  # this task was cancelled while it waited: nobody will ask again
            raise
        return value

    async def next_batch(self) -> list[T]:
        """The next value and all that have arrived behind it. Raises what `__anext__` raises."""
        values = [await self.__anext__()]
        if self._receiver is not None:
            values += self._receiver.take()
        return values

    async def aclose(self) -> None:
        """Stop the stream; returns when the producer has cleaned up, where the peer confirms that."""
        self._begin = None
        if self._receiver is not None:
            await cancel_and_wait(self._receiver)

    def abandon(self) -> None:
        """Stop the stream without waiting, from any thread and at any point of it."""
        self._begin = None
        if self._receiver is not None:
            self._receiver.abandon()

    def __del__(self) -> None:
        self.abandon()


async def cancel_and_wait(receiver: StreamReceiver) -> None:
    receiver.cancel()
    while not receiver.ended:
        await receiver.change()


class ConvertingIterator(StreamIterator[T]):
    """The same where each value is turned into what an annotation says, as it is read."""

    __slots__ = ("_convert",)

    def __init__(self, begin: Callable[[], Any] | StreamReceiver, convert: Callable[[Any], Any]) -> None:
        super().__init__(begin)
        self._convert = convert

    async def __anext__(self) -> T:
        value = await super().__anext__()
        try:
            converted: T = self._convert(value)
        except BaseException:
            if self._receiver is not None:
                self._receiver.cancel()
            raise
        return converted

    async def next_batch(self) -> list[T]:
        return [await self.__anext__()]


def iterate(receiver: StreamReceiver) -> StreamIterator[Any]:
    """A pass over the values of `receiver`."""
    return (
        StreamIterator(receiver)
        if receiver.convert is None
        else ConvertingIterator(receiver, receiver.convert)
    )


class StreamCall(Generic[T]):
    """A stream that a call returned: iterate it once, await it for the generator's return value.

    A `StreamCall` that is dropped before its end cancels the producer.
    """

    __slots__ = ("__weakref__", "_iterator", "_receiver")
    __kkrpc_unlisted__ = True

    def __init__(self, receiver: StreamReceiver) -> None:
        self._receiver = receiver
        self._iterator: StreamIterator[T] | bool = False

    @property
    def id(self) -> str | int:
        """The call's id on the wire."""
        return self._receiver.call.id

    @property
    def method(self) -> str:
        """The dotted path that was called."""
        return self._receiver.call.method

    @property
    def received(self) -> int:
        """Values that have arrived, read or not."""
        return self._receiver.received

    @property
    def ended(self) -> bool:
        """Nothing more will arrive; some of it may still be unread."""
        return self._receiver.ended

    def __aiter__(self) -> StreamIterator[T]:
        """The one pass over the values; a second one raises RuntimeError."""
        if self._iterator is not False:
            raise RuntimeError("a stream can be iterated once")
        self._iterator = True  # not kept: the loop must be the only one that holds it
        return iterate(self._receiver)

    async def __anext__(self) -> T:
        """The next value, for reading a stream by hand."""
        if self._iterator is False:
            self._iterator = iterate(self._receiver)
        elif self._iterator is True:
            raise RuntimeError("a stream can be iterated once")
        assert isinstance(self._iterator, StreamIterator)
        return await self._iterator.__anext__()

    async def result(self) -> Any:
        """The generator's return value, once the stream is complete.

        Chunks that nobody has read by then are discarded. Raises what the stream ended in, and
        CallCancelled after a cancel.
        """
        receiver = self._receiver
        if receiver.cancelled or receiver.abandoned:
            raise receiver.cancellation()
        if not receiver.exhausted:
            receiver.discard()
        try:
            while not receiver.ended and not receiver.cancelled:
                await receiver.change()
        except BaseException:
            receiver.cancel()
            raise
        if receiver.cancelled:
            raise receiver.cancellation()
        receiver.exhausted = True
        if receiver.failed:
            raise receiver.error()
        return (
            receiver.result if receiver.convert_result is None else receiver.convert_result(receiver.result)
        )

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.result().__await__()

    async def cancel(self) -> None:
        """Stop the producer; returns when its cleanup has run, where the peer confirms that (CAN-4)."""
        await cancel_and_wait(self._receiver)

    async def aclose(self) -> None:
        """The same as `cancel`."""
        await self.cancel()

    async def __aenter__(self) -> StreamCall[T]:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is None:
            await self.aclose()
        else:
            self._receiver.cancel()

    def __repr__(self) -> str:
        state = "cancelled" if self._receiver.cancelled else "ended" if self._receiver.ended else "open"
        return f"<StreamCall {self.method!r} id={self.id!r} {state} received={self.received}>"

    def __del__(self) -> None:
        if self._iterator is False:
            self._receiver.abandon()
