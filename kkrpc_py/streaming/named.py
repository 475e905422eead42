"""`StreamChannel`: one name of a hub, and the streams that were started under it."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, Awaitable, Callable
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import anyio
import msgspec

from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.errors import StreamClosed, UnknownStream
from kkrpc_py.streaming import HIGH_WATER_MARK
from kkrpc_py.streaming.inbound import InboundReader
from kkrpc_py.streaming.later import call_later
from kkrpc_py.streaming.outbound import OutboundStream, new_id
from kkrpc_py.streaming.subscription import Overflow

if TYPE_CHECKING:
    from kkrpc_py.streaming.hub import StreamHub

__all__ = ["Authorize", "StreamChannel", "StreamRequest", "unknown"]

_SHOWN = 100
"""Characters of a name that a peer has sent which are told again."""


class StreamRequest(msgspec.Struct, frozen=True):
    """What somebody wants, for `authorize` to decide."""

    action: Literal["subscribe", "upload", "mutate"]
    name: str
    """The channel's."""
    id: str
    """The stream's, or the upload's; "state" for a shared state."""
    channel: RPCChannel
    """Who asks."""
    overflow: Overflow | None = None
    """What a subscriber chose: with "block" it may hold up the producer."""


Authorize: TypeAlias = Callable[[StreamRequest], "bool | Awaitable[bool]"]
"""Says whether the request is granted; what it raises, the one who asks gets to see."""


class StreamChannel:
    """The streams of one name: started here, subscribed to by any number of clients.

    ::

        chat = hub.create("my-plugin:chat")
        stream = chat.start()
        stream.write({"token": "hello"})
        stream.close()
    """

    __kkrpc_unlisted__ = True

    def __init__(
        self,
        hub: StreamHub,
        name: str,
        replay_window: int,
        closed_stream_retention: float,
        reconnect_grace: float,
        authorize: Authorize | None,
    ) -> None:
        self.name = name
        self._hub = hub
        self._replay_window = replay_window
        self._retention = closed_stream_retention
        self._grace = reconnect_grace
        self._authorize = authorize
        self._streams: dict[str, OutboundStream[Any]] = {}
        self._call_off: dict[OutboundStream[Any], Callable[[], None]] = {}
        self._unscheduled: list[OutboundStream[Any]] = []
        self._closed = False

    def start(self, id: str | None = None) -> OutboundStream[Any]:
        """A new stream; its id is one that nobody guesses, unless it is given.

        Raises ValueError where the id is that of a stream which has not ended, StreamClosed after `close`.
        """
        return self.add(id, first=1)

    def add(self, id: str | None, *, first: int) -> OutboundStream[Any]:
        """The same for a stream whose numbers begin at `first`."""
        self._hub.home.check()
        if self._closed:
            raise StreamClosed(f"the stream channel {self.name!r} was closed")
        if id is None:
            id = new_id()
        elif not isinstance(id, str):
            raise TypeError(f"the id of a stream is a string, not {id!r}")
        known = self._streams.get(id)
        if known is not None:
            if not known.closed:
                raise ValueError(f"the stream {id!r} of {self.name!r} has not ended")
            self._forget(known)
        stream: OutboundStream[Any] = OutboundStream(
            self.name,
            id,
            self._hub.writer,
            most_bytes=self._hub.limits.subscription_bytes,
            replay_window=self._replay_window,
            reconnect_grace=self._grace,
            first=first,
            ended=self._ended,
            home=self._hub.home,
        )
        self._streams[id] = stream
        return stream

    def get(self, id: str) -> OutboundStream[Any] | None:
        """The stream of that id, also for a while after its end; None if there is none."""
        return self._streams.get(id)

    def ids(self) -> list[str]:
        """The ids that can be subscribed to, the oldest stream first."""
        return list(self._streams)

    async def pipe_from(self, source: AsyncIterable[Any], id: str | None = None) -> None:
        """Start a stream, send what `source` yields, and close it; see `OutboundStream.pipe_from`."""
        await self.start(id).pipe_from(source)

    def open_inbound(self, high_water_mark: int = HIGH_WATER_MARK) -> InboundReader[Any]:
        """In a handler: take an upload of the client that called it. Tell it the `id` of what this returns.

        :param high_water_mark: chunks that may wait here unread.

        Raises LookupError outside of a handler, LimitExceeded where the client has too many open.
        """
        if self._closed:
            raise StreamClosed(f"the stream channel {self.name!r} was closed")
        return self._hub.inbounds.open(self.name, self._may_upload, high_water_mark)

    def close(self) -> None:
        """Give the name up: streams are closed, uploads cancelled, and nothing can be started any more."""
        self._hub.home.check()
        if self._closed:
            return
        self._closed = True
        for stream in tuple(self._streams.values()):
            stream.close()
            self._forget(stream)
        self._hub.inbounds.close_name(self.name)
        self._hub.remove(self)

    # For the hub -----------------------------------------------------------------------------

    def loop_runs(self) -> None:
        """There is an event loop now: what had ended before is kept for its while, too."""
        unscheduled, self._unscheduled = self._unscheduled, []
        for stream in unscheduled:
            self._ended(stream)

    async def authorized(self, request: StreamRequest) -> bool:
        """Whether the request is granted."""
        if self._authorize is None:
            return True
        answer = self._authorize(request)
        return bool(await answer if isawaitable(answer) else answer)

    async def granted(self, channel: RPCChannel, id: str, overflow: Overflow) -> OutboundStream[Any]:
        """The stream that `channel` wants to subscribe to. Raises UnknownStream."""
        if id in self._streams and await self.authorized(
            StreamRequest("subscribe", self.name, id, channel, overflow)
        ):
            stream = self._streams.get(id)
            if stream is not None:
                return stream
        raise unknown(self.name, id)

    async def _may_upload(self, channel: RPCChannel, id: str) -> bool:
        return await self.authorized(StreamRequest("upload", self.name, id, channel))

    def _ended(self, stream: OutboundStream[Any]) -> None:
        if self._retention <= 0 or self._closed:
            self._forget(stream)
            return
        try:
            self._call_off[stream] = call_later(self._retention, functools.partial(self._forget, stream))
        except anyio.NoEventLoopError:
            self._unscheduled.append(stream)

    def _forget(self, stream: OutboundStream[Any]) -> None:
        call_off = self._call_off.pop(stream, None)
        if call_off is not None:
            call_off()
        if self._streams.get(stream.id) is stream:
            del self._streams[stream.id]

    def __repr__(self) -> str:
        return f"<StreamChannel {self.name!r} streams={len(self._streams)}>"


def unknown(name: str, id: str) -> UnknownStream:
    """What is refused looks like what is missing."""
    return UnknownStream(f"there is no stream {id[:_SHOWN]!r} of {name[:_SHOWN]!r}")
