"""`StreamSink`: what a handler takes that sends its stream instead of yielding it.

This module owns the handler's view, also that of one which decides first whether there is a stream at all.
How values leave is `channel.producer`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from kkrpc_py.channel.producer import Producer

__all__ = ["SinkStream", "StreamSink"]

T = TypeVar("T")


class StreamSink(Generic[T]):
    """The way out of a handler that has a parameter annotated with this class.

    The handler sends the stream's values into it and returns the stream's result::

        async def convert(self, paths: list[str], sink: kk.StreamSink[float]) -> Summary:
            for path in paths:
                await sink.send(self.convert_one(path))
            return Summary(len(paths))

    The caller gives the other arguments alone. Several tasks may send; their values keep the
    order in which `send` was entered only as far as the tasks themselves do.
    """

    __slots__ = ("_producer",)

    def __init__(self, producer: Producer) -> None:
        self._producer: Producer | None = producer

    async def send(self, value: T) -> None:
        """Send `value`; waits for credit and for the writer where need be.

        Raises NotSerializable or LimitExceeded for a value that cannot be sent, and RuntimeError
        once the handler has returned.
        """
        producer: Any = self._producer
        if producer is None:
            raise RuntimeError("the handler of this stream has returned")
        await producer.push(value)

    async def drain(self) -> None:
        """Wait until what was sent has left, as far as the consumer takes it.

        Raises NotSerializable or LimitExceeded for a value that cannot be sent.
        """
        if self._producer is not None:
            await self._producer.drain()

    @property
    def error(self) -> Exception | None:
        """Why the handler was cancelled: a value that cannot be sent."""
        return None if self._producer is None else self._producer.error

    def when_gone(self, tell: Callable[[], None]) -> None:
        """Call `tell` when the consumer is gone, before the handler feels its cancellation."""
        if self._producer is not None:
            self._producer.gone = tell

    def _close(self) -> None:
        self._producer = None


class SinkStream:
    """A stream that will be sent: what a handler returns that may still refuse before it is opened.

    The channel opens the stream and runs `send(sink)`, which returns the stream's result.
    """

    __slots__ = ("send",)

    def __init__(self, send: Callable[[StreamSink[Any]], Coroutine[Any, Any, Any]]) -> None:
        self.send = send
