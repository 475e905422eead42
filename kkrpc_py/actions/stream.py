"""`ActionStream`: what the handler of an action sends into, wherever the chunks go.

It owns the states of a stream on the handler's side. Where chunks go, and how many wait, is the outlet's.
"""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from kkrpc_py.channel.signals import CancelSignal
from kkrpc_py.errors import StreamClosed

__all__ = ["ActionStream", "Outlet"]

T = TypeVar("T")


class Outlet(Protocol):
    """The way to one consumer."""

    async def send(self, value: Any) -> None:
        """Send one chunk; waits while too many wait. Raises NotSerializable for what cannot be sent."""
        ...

    async def close(self) -> None:
        """No more chunks come: called once, where the handler did not fail before."""
        ...


class ActionStream(Generic[T]):
    """The stream of one call of an action.

    Several tasks of the handler may send. When the consumer is gone, `signal` is set and then the handler is
    cancelled.
    """

    __slots__ = ("_outlet", "closed", "signal")

    def __init__(self, outlet: Outlet, signal: CancelSignal) -> None:
        self.signal = signal
        """Set when nobody wants the chunks any more: the consumer is gone, or the handler has ended."""
        self.closed = False
        """No more can be sent."""
        self._outlet = outlet

    async def send(self, chunk: T) -> None:
        """Send `chunk`; waits as long as the consumer is behind.

        Raises StreamClosed once the stream is closed, and NotSerializable for what cannot be sent.
        """
        if self.closed:
            raise StreamClosed("the stream of this action is closed")
        await self._outlet.send(chunk)

    async def close(self) -> None:
        """End the stream: the consumer is told that this was all. Once more does nothing.

        A handler that returns without it is closed then. What the handler does afterwards may be cancelled at
        any time: to the consumer it is over.
        """
        if not self.closed:
            self.closed = True
            await self._outlet.close()
