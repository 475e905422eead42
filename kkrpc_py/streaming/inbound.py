"""Uploads, seen from the side that reads them: the ids that are open, and their readers.

`Inbounds` is a hub's book of open ids, each of which belongs to one session, a channel. `Inbound` is one of
them as the book keeps it; it does not know its `InboundReader`, so that a reader that is dropped is noticed.
Where what is uploaded waits to be read is `streaming.uploaded`'s; what a peer may call is
`streaming.upload_face`'s.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import anyio
from anyio.abc import ObjectReceiveStream
from anyio.lowlevel import checkpoint

from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.channel.current import current_channel
from kkrpc_py.channel.parking import Signal
from kkrpc_py.errors import (
    CallCancelled,
    ChannelClosed,
    KkrpcError,
    LimitExceeded,
    StreamClosed,
    UnknownStream,
    UploadDisconnected,
)

__all__ = ["Arrivals", "Inbound", "InboundReader", "Inbounds", "Permission", "Session"]

T_co = TypeVar("T_co", covariant=True)

Permission = Callable[[RPCChannel, str], Awaitable[bool]]
"""Whether that session may upload to that id."""

_ENDED_KEPT = 1024
"""Ids of one session that are remembered after their end: who still writes to one is told so."""


class Arrivals(Protocol):
    """What has been uploaded and not read."""

    @property
    def values(self) -> list[Any]:
        """Values that can be taken without more ado, the next one last; after the last one: `release`."""
        ...

    def release(self) -> None: ...

    async def next_value(self) -> Any:
        """The next value. Raises StopAsyncIteration, what the upload ended in, ChannelClosed after `lost`."""
        ...

    def cancel(self) -> None:
        """Nothing more of it is wanted, and what waits is dropped; whoever waits in `next_value` is woken."""
        ...

    def lost(self) -> bool:
        """The session is gone; what waits is read first. Returns whether the end had come."""
        ...


class Inbounds:
    """The open ids of a hub, by the session that each belongs to."""

    def __init__(self) -> None:
        self._sessions: dict[RPCChannel, Session] = {}

    def open(self, name: str, authorize: Permission, high_water_mark: int = 256) -> InboundReader[Any]:
        """A new id for the session whose handler runs; its reader.

        Raises LookupError outside of handlers, RuntimeError on a handler's thread, ValueError for a mark
        below one, LimitExceeded where the session has `Limits.calls` of them.
        """
        if type(high_water_mark) is not int or high_water_mark < 1:
            raise ValueError(f"high_water_mark is one or more chunks, not {high_water_mark!r}")
        try:
            channel = current_channel()
        except LookupError:
            raise LookupError(
                "open_inbound() is for a handler: what it gives belongs to the session that called"
            ) from None
        if not channel.on_loop():
            raise RuntimeError("open_inbound() is for handlers on the event loop: make it an `async def`")
        session = self._sessions.get(channel)
        if session is None:
            session = Session(channel, self._forget)
            if not channel.closed:
                self._sessions[channel] = session
                channel.when_closed(session.lost)
        if len(session.open) >= channel.limits.calls:
            raise LimitExceeded("the session has too many uploads open (calls)")
        inbound = Inbound(session, name, secrets.token_urlsafe(16), authorize, high_water_mark)
        session.open[inbound.id] = inbound
        return InboundReader(inbound)

    def find(self, id: Any) -> Inbound:
        """The upload that the session whose handler runs has under that id.

        Raises UnknownStream, for an id of another session as for one that never was, and StreamClosed for one
        of its own that has ended.
        """
        session = self._sessions.get(current_channel())
        if session is not None and type(id) is str:
            found = session.open.get(id)
            if found is not None:
                return found
            if id in session.ended:
                raise ended_upload()
        raise unknown_upload()

    def find_named(self, name: Any, id: Any) -> Inbound:
        """The same where the channel is named, too: it has to be the right one."""
        session = self._sessions.get(current_channel())
        if session is not None and type(id) is str:
            known = session.open.get(id)
            if name != (known.name if known is not None else session.ended.get(id)):
                raise unknown_upload()
        return self.find(id)

    def close_name(self, name: str) -> None:
        """The named channel is closed: its uploads end, on both sides."""
        for session in self._sessions.values():
            for inbound in [each for each in session.open.values() if each.name == name]:
                inbound.shut(StreamClosed(f"the channel {name!r} was closed"))

    def _forget(self, channel: RPCChannel) -> None:
        self._sessions.pop(channel, None)


def unknown_upload() -> UnknownStream:
    """The same words whatever the reason is."""
    return UnknownStream("there is no such upload for this session")


def ended_upload() -> StreamClosed:
    """Nothing more can be uploaded there."""
    return StreamClosed("the upload has ended, or is another one's")


class Session:
    """The uploads of one channel."""

    def __init__(self, channel: RPCChannel, forget: Callable[[RPCChannel], None]) -> None:
        self.channel = channel
        self.open: dict[str, Inbound] = {}
        self.ended: dict[str, str] = {}
        """The ids that have ended, oldest first, with their names."""
        self.unread = 0
        """Bytes, about, that calls have written and nobody has read; below `Limits.call_bytes`."""
        self._forget = forget

    def end(self, inbound: Inbound) -> None:
        if self.open.pop(inbound.id, None) is not None:
            self.ended[inbound.id] = inbound.name
            if len(self.ended) > _ENDED_KEPT:
                del self.ended[next(iter(self.ended))]

    def lost(self) -> None:
        """The channel is closed."""
        self._forget(self.channel)
        for inbound in list(self.open.values()):
            inbound.lost()


class Inbound:
    """One id, from `open_inbound` until its reader is done."""

    def __init__(
        self, session: Session, name: str, id: str, authorize: Permission, high_water_mark: int
    ) -> None:
        self.session = session
        self.name = name
        self.id = id
        self.high_water_mark = high_water_mark
        self.source: Arrivals | None = None
        """Where what is uploaded waits; None: nobody has begun, or may."""
        self.uploader: Arrivals | None = None
        """The same as soon as somebody is about to begin: nobody else may, then."""
        self.over = anyio.Event()
        """The reader is done, or the session gone; then `outcome` is what the uploader is told."""
        self.outcome: KkrpcError | None = None
        self.done = False
        """The reader has met the end, or wants no more."""
        self.cancelled: KkrpcError | None = None
        """What a reader raises that wants no more, or may not have it."""
        self._authorize = authorize
        self._changed = Signal(session.channel.parking)

    async def allowed(self) -> bool:
        """What the author of the channel says of this upload."""
        return await self._authorize(self.session.channel, self.id)

    # From the uploader ---------------------------------------------------------------------

    def begin(self, source: Arrivals) -> None:
        """What `source` has is what is read."""
        self.source = source
        self._changed.wake()

    def lost(self) -> None:
        """The session is gone."""
        # A peer that has sent all it had to say may still wait for its answer.
        if self.uploader is None or not self.uploader.lost():
            self.outcome = UploadDisconnected("the session ended before the upload did")
            self.over.set()
        self._changed.wake()

    def shut(self, error: KkrpcError) -> None:
        """End it on both sides, with `error`."""
        self._stop(error, error)

    # From the reader -----------------------------------------------------------------------

    async def next_value(self) -> Any:
        """The next value. Raises StopAsyncIteration at the end, and what the upload ended in."""
        while self.source is None:
            self._check()
            if self.session.channel.closed:
                self._finish(None)
                raise UploadDisconnected("the session ended before it began to upload")
            await self._changed.wait()
        try:
            return await self.source.next_value()
        except StopAsyncIteration:
            self._finish(None)
            raise
        except ChannelClosed as closed:
            self._finish(None)
            raise UploadDisconnected("the session ended before the upload did") from closed
        except KkrpcError as error:
            self._check()
            self._finish(error)
            raise

    def cancel(self) -> None:
        """The reader wants no more."""
        self._stop(
            CallCancelled("the upload was cancelled by its reader"),
            StreamClosed("the other side reads no more of the upload"),
        )

    def _stop(self, here: KkrpcError, there: KkrpcError) -> None:
        if not self.done:
            self.cancelled = here
            if self.uploader is not None:
                self.uploader.cancel()
            self._finish(there)
            self._changed.wake()

    def _check(self) -> None:
        if self.cancelled is not None:
            raise self.cancelled.with_traceback(None) from None

    def _finish(self, outcome: KkrpcError | None) -> None:
        if not self.done:
            self.done = True
            self.session.end(self)
            if not self.over.is_set():
                self.outcome = outcome
                self.over.set()


class InboundReader(ObjectReceiveStream[T_co]):
    """What is uploaded under one id: iterate it once, or `receive`, but not both.

    Leaving the loop cancels the upload, and so does dropping the reader. After the chunks that came before
    it, the loop raises what the uploader's `error` says, or UploadDisconnected where its session has ended.
    """

    __kkrpc_unlisted__ = True

    def __init__(self, inbound: Inbound) -> None:
        self._inbound = inbound
        self._surface = ""

    @property
    def id(self) -> str:
        """What the client uploads to; of use to the session alone that opened it."""
        return self._inbound.id

    @property
    def name(self) -> str:
        """The channel's."""
        return self._inbound.name

    @property
    def ended(self) -> bool:
        """All is read, or nothing more is wanted."""
        return self._inbound.done

    def cancel(self) -> None:
        """Read no more: the uploader's `signal` is set, and what it has sent is dropped."""
        self._inbound.cancel()

    async def aclose(self) -> None:
        """As `cancel`."""
        self.cancel()
        await checkpoint()

    def __aiter__(self) -> _Pass[T_co]:  # type: ignore[override]  # leaving the loop must be noticed
        """The one pass over the chunks. Raises RuntimeError for a second one."""
        self._use("iterated")
        return _Pass(self._inbound)

    async def receive(self) -> T_co:
        """The next chunk; a `receive` that is cancelled loses none.

        Raises EndOfStream at the end, ClosedResourceError after `cancel`, else what the loop raises.
        """
        if self._surface != "received":
            self._use("received")
        inbound = self._inbound
        source = inbound.source
        if source is not None and source.values:
            value: T_co = _take(source)
            return value
        try:
            value = await inbound.next_value()
        except StopAsyncIteration:
            raise anyio.EndOfStream from None
        except CallCancelled as error:
            if error is inbound.cancelled:
                raise anyio.ClosedResourceError from None
            raise
        return value

    def _use(self, surface: str) -> None:
        if self._surface:
            raise RuntimeError(f"an upload can be read once, and this one is {self._surface}")
        self._surface = surface

    def __repr__(self) -> str:
        state = "ended" if self.ended else "open"
        return f"<InboundReader of {self.name!r} {state}>"

    def __del__(self) -> None:
        if self._surface != "iterated":
            _drop(self._inbound)


class _Pass(AsyncIterator[T_co]):
    """The loop's own iterator: when it is dropped before the end, the upload is cancelled."""

    __slots__ = ("__weakref__", "_inbound", "_source")

    def __init__(self, inbound: Inbound) -> None:
        self._inbound = inbound
        self._source = inbound.source

    def __aiter__(self) -> _Pass[T_co]:
        return self

    async def __anext__(self) -> T_co:
        source = self._source
        if source is not None and source.values:
            value: T_co = _take(source)
            return value
        inbound = self._inbound
        try:
            value = await inbound.next_value()
        except (StopAsyncIteration, KkrpcError):
            raise
        except BaseException:
            inbound.cancel()  # the task was cancelled while it waited: nobody will ask again
            raise
        self._source = inbound.source
        return value

    async def aclose(self) -> None:
        """Read no more."""
        self._inbound.cancel()
        await checkpoint()

    def __del__(self) -> None:
        _drop(self._inbound)


def _take(source: Arrivals) -> Any:
    value = source.values.pop()
    if not source.values:
        source.release()
    return value


def _drop(inbound: Inbound) -> None:
    """Cancel it from a finalizer, which may run at any point of any thread."""
    if not inbound.done:
        inbound.session.channel.post(inbound.cancel)
