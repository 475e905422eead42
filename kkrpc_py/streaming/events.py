"""Events: calls of `emit` that nobody waits for, in both directions (EVT-1 to EVT-4).

This module owns sending them, and where they arrive. What waits to be read is `streaming.listening`'s, which
channels a hub's events come from and go to is `streaming.hub`'s.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from kkrpc_py.channel.call import OutgoingInfo
from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.channel.current import current_channel
from kkrpc_py.channel.expose import inline
from kkrpc_py.channel.stream import StreamReceiver
from kkrpc_py.errors import (
    ChannelClosed,
    ErrorValue,
    KkrpcError,
    LimitExceeded,
    MethodNotFound,
    NotSerializable,
    WouldBlock,
)
from kkrpc_py.limits import Limits
from kkrpc_py.streaming import DEFAULT_PATH, HIGH_WATER_MARK
from kkrpc_py.streaming.listening import OVERFLOW, Event, EventReader, Listeners
from kkrpc_py.wire.messages import Request

__all__ = ["Event", "EventReader", "Events", "EventsFace", "Listeners", "broadcast", "events"]

_log = logging.getLogger("kkrpc_py")

_SHARE = 4
"""Events that the peer has yet to answer may be this part of `Limits.calls`; calls want their place too."""


class _Place:
    """Who listens at one place of a channel: over the channel itself, and over the link that made it."""

    __slots__ = ("of_link", "own")

    def __init__(self, limits: Limits) -> None:
        self.own = Listeners(limits)
        self.of_link: Listeners | None = None


class _OfChannel:
    """What a channel has of events: who listens on this side, and what the peer has yet to answer.

    It is the owner of the calls that were sent, too, and drops what the peer answers.
    """

    def __init__(self, limits: Limits) -> None:
        self.places: weakref.WeakKeyDictionary[EventsFace, _Place] = weakref.WeakKeyDictionary()
        self.unanswered = 0
        self.most = max(limits.calls // _SHARE, 1)
        self.skipped = 0
        """Broadcasts that this channel had no room for."""
        self._limits = limits
        self._closed = False

    def place(self, face: EventsFace) -> _Place:
        """Who listens to what arrives by `face`."""
        place = self.places.get(face)
        if place is None:
            place = self.places[face] = _Place(self._limits)
            if self._closed:
                place.own.close()
        return place

    def close(self) -> None:
        self._closed = True
        for place in self.places.values():
            place.own.close()

    def set_value(self, value: Any) -> None:
        self.unanswered -= 1

    def set_error(self, error: ErrorValue | KkrpcError) -> None:
        self.unanswered -= 1

    def set_stream(self, receiver: StreamReceiver) -> None:
        self.unanswered -= 1
        receiver.cancel()


class _Watched:
    """The owner of an event's call where the channel has a hook that watches calls."""

    def __init__(
        self, channel: RPCChannel, own: _OfChannel, over: Callable[[BaseException | None], None]
    ) -> None:
        self._channel = channel
        self._own = own
        self._over = over

    def set_value(self, value: Any) -> None:
        self._own.set_value(value)
        self.tell(None)

    def set_error(self, error: ErrorValue | KkrpcError) -> None:
        self._own.set_error(error)
        self.tell(error if isinstance(error, KkrpcError) else self._channel.error_from_wire(error))

    def set_stream(self, receiver: StreamReceiver) -> None:
        self._own.set_stream(receiver)
        self.tell(None)

    def tell(self, failure: BaseException | None) -> None:
        """What watches a call must not change what becomes of it."""
        try:
            self._over(failure)
        except (Exception, SystemExit, GeneratorExit):
            _log.exception("the hook of a call failed")


_channels: weakref.WeakKeyDictionary[RPCChannel, _OfChannel] = weakref.WeakKeyDictionary()


def _of(channel: RPCChannel) -> _OfChannel:
    own = _channels.get(channel)
    if own is None:
        own = _channels[channel] = _OfChannel(channel.limits)
        channel.when_closed(own.close)
    return own


class EventsFace:
    """What the peer sees of the side that listens: the one function that it calls (EVT-1)."""

    def __init__(self, listeners: Listeners | None = None) -> None:
        """`listeners` get the events of all channels that expose this object; a channel's own do anyway."""
        self._listeners = listeners

    @inline
    def emit(self, name: str, *args: Any) -> None:
        channel = current_channel()
        own = _channels.get(channel)
        place = own.places.get(self) if own is not None else None
        if place is not None:
            place.own.put(channel, name, args)
            if place.of_link is not None:
                place.of_link.put(channel, name, args)
        if self._listeners is not None:
            self._listeners.put(channel, name, args)


def _place_at(channel: RPCChannel, path: str) -> _Place:
    """Who listens at `path`, where the peer may call `emit` from now on, if no hub is exposed there already.

    Raises ValueError where something else is.
    """
    try:
        found = channel.exposed.find(f"{path}.emit" if path else "emit").function
    except MethodNotFound:
        found = None
    face = getattr(found, "__self__", None)
    if not isinstance(face, EventsFace):
        face = EventsFace()
        channel.attach(path, face)
    return _of(channel).place(face)


class Link(Protocol):
    """A connection that comes back, such as `kk.reconnecting` gives."""

    @property
    def channel(self) -> RPCChannel: ...

    def when_connected(self, tell: Callable[[RPCChannel], None]) -> None: ...

    def when_closed(self, tell: Callable[[], None]) -> None: ...


class _OfLink:
    """Who listens over a link, by path, whatever its channel is. The link holds it, and is not held by it."""

    def __init__(self) -> None:
        self._listeners: dict[str, Listeners] = {}
        self._closed = False

    def listeners(self, link: Link, path: str) -> Listeners:
        """Who listens at `path` of each channel, the one of the moment included. Raises ValueError."""
        found = self._listeners.get(path)
        if found is None:
            found = Listeners(Limits())
            if self._closed:
                found.close()
            with contextlib.suppress(ChannelClosed):  # there is none at the moment
                _place_at(link.channel, path).of_link = found
            self._listeners[path] = found
        return found

    def connected(self, channel: RPCChannel) -> None:
        """There is a new channel."""
        for path, listeners in self._listeners.items():
            try:
                _place_at(channel, path).of_link = listeners
            except ValueError as exc:
                _log.error("the events of a new connection are not heard: %s", exc)

    def close(self) -> None:
        self._closed = True
        for listeners in self._listeners.values():
            listeners.close()


_links: weakref.WeakKeyDictionary[Link, _OfLink] = weakref.WeakKeyDictionary()


def _of_link(link: Link) -> _OfLink:
    own = _links.get(link)
    if own is None:
        own = _links[link] = _OfLink()
        link.when_connected(own.connected)
        link.when_closed(own.close)
    return own


class Events:
    """Events to and from the other side of a channel, or of a link."""

    __kkrpc_unlisted__ = True

    def __init__(self, source: RPCChannel | Link, path: str) -> None:
        self._source = source
        self._path = path

    def emit(self, name: str, *args: Any) -> None:
        """Tell the other side, and wait for nothing: who does not listen there does not hear it.

        Raises ChannelClosed, over a link also while there is no connection; NotSerializable and LimitExceeded
        for what cannot be sent; WouldBlock where the other side is behind with what it was sent, so that this
        event is not. Called on a thread, it returns when the event loop has sent it.
        """
        source = self._source
        channel = source if isinstance(source, RPCChannel) else source.channel
        channel.check_open()
        if channel.on_loop():
            _send(channel, self._path, name, args)
        else:
            channel.portal.run(_sent, channel, self._path, name, args)

    def on(self, name: str, high_water_mark: int = HIGH_WATER_MARK) -> EventReader:
        """The events of that name from the other side, from now on; over a link from each of its connections.

        :param high_water_mark: how many may wait to be read; of more, the newest are kept.

        Raises ValueError where this side exposes something else under the path of its events. On a closed
        channel or link the reader has ended.
        """
        source = self._source
        if isinstance(source, RPCChannel):
            listeners = _place_at(source, self._path).own
        else:
            listeners = _of_link(source).listeners(source, self._path)
        return listeners.on(name, high_water_mark)

    def __repr__(self) -> str:
        return f"<Events at {self._path!r}>"


def events(source: RPCChannel | Link, path: str = DEFAULT_PATH) -> Events:
    """The events of a channel, or of a link that reconnects: `emit` tells the other side, `on` listens to it.

    `path` is where events go to and are taken on either side, the one of the hub where there is one.
    """
    if not isinstance(source, RPCChannel) and not hasattr(source, "when_connected"):
        raise TypeError(f"events() takes a channel or a link that reconnects, not a {type(source).__name__}")
    return Events(source, path)


async def _sent(channel: RPCChannel, path: str, name: str, args: tuple[Any, ...]) -> None:
    _send(channel, path, name, args)


def _send(channel: RPCChannel, path: str, name: str, args: tuple[Any, ...]) -> None:
    """Send the call and leave its answer to `_OfChannel`. Raises as `Events.emit` does."""
    if not isinstance(name, str):
        raise TypeError(f"the name of an event is a string, not {name!r}")
    channel.check_open()
    own = _of(channel)
    if channel.control_congested or own.unanswered >= own.most:
        raise WouldBlock("the peer is behind with the events and calls that it was sent")
    method = f"{path}.emit" if path else "emit"
    if channel.metadata is None and channel.on_call is None:
        channel.connection.call(method, [name, *args], own)
    else:
        _ask(channel, own, Request(None, method, [name, *args]))
    own.unanswered += 1
    channel.kick()


def _ask(channel: RPCChannel, own: _OfChannel, message: Request) -> None:
    """Send the call with metadata, and with a hook that watches it."""
    info = OutgoingInfo(
        message.method, "call", dict(channel.metadata()) if channel.metadata is not None else {}
    )
    over = channel.on_call(info) if channel.on_call is not None else None
    owner: Any = own if over is None else _Watched(channel, own, over)
    if info.metadata:  # a peer of which it is not known yet whether it takes any gets none
        message = msgspec.structs.replace(message, meta=info.metadata)
    try:
        channel.connection.ask(message, owner)
    except Exception as exc:
        if isinstance(owner, _Watched):
            owner.tell(exc)
        raise


def broadcast(
    targets: Iterable[tuple[RPCChannel, str]],
    name: str,
    args: tuple[Any, ...],
    filter: Callable[[RPCChannel], object] | None = None,
) -> int:
    """Emit to each channel, at its path, for which `filter` holds; returns to how many it was sent.

    A channel that is closed, or behind with what it was sent, is left out. So is one whose peer cannot take
    the values; if there is no other, the NotSerializable or LimitExceeded is raised. What `filter` raises is
    raised before anything is sent.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of an event is a string, not {name!r}")
    chosen = [
        (channel, path)
        for channel, path in targets
        if not channel.closed and (filter is None or filter(channel))
    ]
    sent = 0
    refusal: KkrpcError | None = None
    for channel, path in chosen:
        try:
            _send(channel, path, name, args)
        except WouldBlock:
            _note_skipped(channel)
        except (NotSerializable, LimitExceeded) as exc:
            refusal = exc
        else:
            sent += 1
    if refusal is not None and not sent:
        try:
            raise refusal
        finally:
            refusal = None
    return sent


def _note_skipped(channel: RPCChannel) -> None:
    own = _of(channel)
    own.skipped += 1
    if own.skipped == 1:
        _log.warning("%s: a client is behind with its events, and does not get all of them", OVERFLOW)
