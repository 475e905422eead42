"""The two ways in which an upload arrives: as a stream argument, and by calls with their own credit (UPL).

Both are a `Arrivals` of `streaming.inbound`. This module owns what waits there to be read, and the credit of
the calls; a stream argument has the credit of every stream.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from kkrpc_py.channel.parking import Signal
from kkrpc_py.channel.stream import StreamCall
from kkrpc_py.errors import (
    CallCancelled,
    ChannelClosed,
    KkrpcError,
    LimitExceeded,
    ProtocolError,
    StreamClosed,
)
from kkrpc_py.streaming.inbound import Inbound, ended_upload, unknown_upload
from kkrpc_py.streaming.sizes import size_of

__all__ = ["Streamed", "Written"]


class Streamed:
    """A stream argument."""

    def __init__(self, chunks: StreamCall[Any]) -> None:
        self._chunks = chunks  # if it were dropped, it would be cancelled
        self._receiver = chunks._receiver
        self.values = self._receiver.values
        self.release = self._receiver.release
        self.next_value = self._receiver.next_value

    def cancel(self) -> None:
        self._receiver.cancel()

    def lost(self) -> bool:
        receiver = self._receiver
        return receiver.ended and not (receiver.failed and isinstance(receiver.error(), ChannelClosed))

    def give_up(self) -> None:
        """The call that brought it was cancelled: what came is read, then the reader is told."""
        receiver = self._receiver
        if not receiver.ended and not receiver.cancelled:
            receiver.host.connection.cancel(receiver.call)
            receiver.fail(CallCancelled("the upload was cancelled by the side that uploads"))
            receiver.host.kick()


class Written:
    """An upload by calls, each with the number of its chunk; one attempt at it, as far as that is allowed.

    A call is answered with the highest number that may be sent now, once that is above its own: once there
    is room. So who sends one call after the other waits for the reader, and who sends ahead knows how far.
    """

    def __init__(self, inbound: Inbound) -> None:
        self.values: list[Any] = []  # none is taken without `next_value`, which knows what was read
        self.allowed = False
        self.credit = 0
        """The highest number that may be sent now, as the answers tell it."""
        self._inbound = inbound
        self._refused = False
        self._ended = False
        self._cancelled = False
        self._lost = False
        self._failure: KkrpcError | None = None
        self._written = 0
        self._read = 0
        self._waiting: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._most_bytes = inbound.session.channel.limits.stream_buffer
        self._changed = Signal(inbound.session.channel.parking)
        self._asking = anyio.Lock()

    # From the uploader ---------------------------------------------------------------------

    def put(self, number: Any, value: Any) -> None:
        """Take chunk `number`, unless it was taken before.

        Raises StreamClosed after the end, ProtocolError for what is no number or leaves one out,
        LimitExceeded for one that is beyond the credit, and where too much lies unread.
        """
        self.check_open()
        if type(number) is not int or number < 1:
            raise ProtocolError("the number of a chunk is an integer from 1 on")
        if number > max(self.credit, self._inbound.high_water_mark):
            raise LimitExceeded("the chunk is beyond what may be sent now")
        if number > self._written + 1:
            raise ProtocolError("a chunk was left out")
        if number <= self._written:
            return
        session = self._inbound.session
        size = size_of(value)
        if session.unread + size > session.channel.limits.call_bytes:
            raise LimitExceeded("too much of uploads lies unread (call_bytes)")
        self._written = number
        self._waiting.append((value, size))
        self._bytes += size
        session.unread += size
        self._grant(size)
        self._changed.wake()

    def check_open(self) -> None:
        if self._ended or self._cancelled:
            raise ended_upload()

    async def room_beyond(self, number: int) -> int:
        """The credit, once it is above `number`. Raises StreamClosed, and UnknownStream where not allowed."""
        await self.permitted()
        while not self._cancelled and not self._lost:
            if self.credit > number:
                return self.credit
            await self._changed.wait()
        raise StreamClosed("the other side reads no more of the upload")

    async def permitted(self) -> None:
        """Ask once whether the session may upload; until then nobody reads. Raises UnknownStream."""
        if self.allowed:
            return
        async with self._asking:
            if not self._decided:
                await self._decide()
        if self._refused:
            raise unknown_upload()

    @property
    def _decided(self) -> bool:
        return self.allowed or self._refused or self._cancelled

    async def _decide(self) -> None:
        self.allowed = await self._inbound.allowed()
        if self._cancelled:  # meanwhile
            return
        if self.allowed:
            self._inbound.begin(self)
        else:
            self._refused = True
            self._inbound.uploader = None
            self.cancel()

    def close(self) -> None:
        """All has been written."""
        self.check_open()
        self._ended = True
        self._changed.wake()

    def fail(self, error: KkrpcError) -> None:
        """What has been written is read, then `error` is raised."""
        self.close()
        self._failure = error

    def _grant(self, size: int) -> None:
        """Raise the credit as far as there is room, for chunks of about `size` bytes."""
        room = (self._most_bytes - self._bytes) // max(size, 1)
        if not self._waiting:
            room = max(room, 1)
        self.credit = max(
            self.credit, min(self._read + self._inbound.high_water_mark, self._written + max(room, 0))
        )

    # From the reader -----------------------------------------------------------------------

    def release(self) -> None: ...

    async def next_value(self) -> Any:
        while not self._waiting:
            if self._cancelled:
                raise CallCancelled("the upload was cancelled by its reader")
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            if self._ended:
                raise StopAsyncIteration
            await checkpoint_if_cancelled()
            await self._changed.wait()
        value, size = self._waiting.popleft()
        self._bytes -= size
        self._inbound.session.unread -= size
        self._read += 1
        self._grant(size)
        self._changed.wake()
        return value

    def cancel(self) -> None:
        self._cancelled = True
        self._waiting.clear()
        self._inbound.session.unread -= self._bytes
        self._bytes = 0
        self._changed.wake()

    def lost(self) -> bool:
        if self._ended or self._cancelled:
            return True
        self.fail(ChannelClosed())
        self._lost = True
        return False
