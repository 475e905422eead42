"""`StreamReader`: what the consumer of a named stream holds."""

from __future__ import annotations

from types import TracebackType
from typing import Generic, TypeVar

import anyio
from anyio.abc import ObjectReceiveStream

from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.errors import CallCancelled
from kkrpc_py.streaming.follower import Follower, Gap

__all__ = ["StreamReader"]

T_co = TypeVar("T_co", covariant=True)


class StreamReader(ObjectReceiveStream[T_co]):
    """The values of one named stream, in order: by `async for`, or by `receive`, but not both.

    ::

        async for token in kk.streams(channel).subscribe("my-plugin:chat", id):
            print(token)

    It subscribes when it is first read, or at the beginning of its `async with`. Leaving the loop or the
    block, or dropping the reader, ends the subscription. Over a link that reconnects it goes on after the
    last value that it had; what is missing then is in `gaps`.
    """

    __kkrpc_unlisted__ = True

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self._passed = False
        self._receiving = False

    @property
    def name(self) -> str:
        """The channel's name."""
        return self.follower.name

    @property
    def id(self) -> str:
        """The stream's id."""
        return self.follower.id

    @property
    def gaps(self) -> list[Gap]:
        """What was gone when this reader subscribed or came back, in order; before what follows is read."""
        return self.follower.gaps

    @property
    def dropped(self) -> int:
        """Values that this reader was too slow for, before the one that was read last."""
        return self.follower.dropped

    @property
    def last_seq(self) -> int:
        """The number of the value that was read last; 0 before the first."""
        return self.follower.last

    @property
    def epoch(self) -> str | None:
        """What tells this stream from another one of the same id; None before it is known."""
        return self.follower.epoch

    @property
    def channel(self) -> RPCChannel | None:
        """The connection that the present subscription came by; None before the first."""
        return self.follower.channel

    def __aiter__(self) -> _Pass[T_co]:  # type: ignore[override]  # anyio's own iterates by `receive`
        """The one pass over the values; a second one raises RuntimeError."""
        if self._passed or self._receiving:
            raise RuntimeError("a reader is read once, by iteration or by receive()")
        self._passed = True  # the loop must be the only one that holds the pass
        return _Pass(self.follower)

    async def receive(self) -> T_co:
        """The next value.

        Raises anyio's EndOfStream at the end, ClosedResourceError after `cancel`, BusyResourceError where
        another task waits in it; what the stream has ended in; UnknownStream, ChannelClosed.
        """
        if self._passed:
            raise RuntimeError("a reader is read once, by iteration or by receive()")
        if self._receiving and self._busy:
            raise anyio.BusyResourceError("reading from")
        self._receiving = self._busy = True
        try:
            value: T_co = await self.follower.next()
        except StopAsyncIteration:
            raise anyio.EndOfStream from None
        except CallCancelled:
            if self.follower.cancelled:
                raise anyio.ClosedResourceError from None
            raise
        finally:
            self._busy = False
        return value

    _busy = False

    def cancel(self) -> None:
        """End the subscription, from whichever task; who reads is told by an error."""
        self.follower.cancel()

    async def aclose(self) -> None:
        """The same; returns when the producing side has let go of this subscriber."""
        await self.follower.aclose()

    async def __aenter__(self) -> StreamReader[T_co]:
        """Subscribe. Raises UnknownStream and what else the server says."""
        await self.follower.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is None:
            await self.aclose()
        else:
            self.cancel()

    def __repr__(self) -> str:
        return f"<StreamReader {self.name!r} id={self.id!r} last_seq={self.last_seq}>"

    def __del__(self) -> None:
        if not self._passed:
            self.follower.abandon()


class _Pass(Generic[T_co]):
    """One pass over the values. When it is dropped before the end, the subscription ends."""

    __slots__ = ("_follower",)

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    def __aiter__(self) -> _Pass[T_co]:
        return self

    async def __anext__(self) -> T_co:
        follower = self._follower
        if follower.ready:
            ready: T_co = follower.hand_out()
            return ready
        try:
            value: T_co = await follower.next()
        except StopAsyncIteration:
            raise
        except BaseException:
            follower.abandon()  # the loop is being left, and who keeps the exception keeps this pass
            raise
        return value

    async def aclose(self) -> None:
        await self._follower.aclose()

    def __del__(self) -> None:
        self._follower.abandon()
