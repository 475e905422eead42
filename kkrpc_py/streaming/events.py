"""Events: calls of `emit` that nobody waits for, in both directions, and those who listen to them.

This module owns sending them, finding who listens, and what waits to be read. Which channels a hub's events
come from and go to is `streaming.hub`'s.
"""

from __future__ import annotations

import logging
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import anyio
import msgspec

from kkrpc_py.channel.call import OutgoingInfo
from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.channel.current import current_channel
from kkrpc_py.channel.expose import inline
from kkrpc_py.channel.stream import StreamReceiver
from kkrpc_py.errors import (
    ErrorValue,
    KkrpcError,
    LimitExceeded,
    MethodNotFound,
    NotSerializable,
    WouldBlock,
)
from kkrpc_py.limits import Limits
from kkrpc_py.wire.messages import Request

__all__ = ["Event", "EventReader", "Events", "EventsFace", "Listeners", "broadcast", "events"]

_log = logging.getLogger("kkrpc_py")

_SHARE = 4
"""Events that the peer has yet to answer may be this part of `Limits.calls`; calls want their place too."""
_OVERFLOW = "DF0029"
"""What DevTools Kit calls an overflow in its log."""
_CONTAINERS = (dict, list, tuple, set, frozenset)


class Event(msgspec.Struct, frozen=True):
    """One event that arrived."""

    name: str
    args: tuple[Any, ...]
    """What was emitted with it."""
    channel: RPCChannel
    """The channel that it came over."""


class EventReader:
    """The events of one name, from now on, as they arrive: an async iterator.

    What is not read in time waits; of more than `high_water_mark` events, or of more than
    `Limits.stock_stream_buffer` bytes, the newest are kept. It ends with its channel, once what waits is
    read. A reader that nobody holds any more is forgotten; `close`, or leaving its `with`, does that at once.
    """

    __kkrpc_unlisted__ = True

    def __init__(self, name: str, high_water_mark: int, limits: Limits) -> None:
        self.name = name
        self.dropped = 0
        """Events that were not read in time."""
        self._most = high_water_mark
        self._most_bytes = limits.stock_stream_buffer
        self._waiting: deque[tuple[Event, int]] = deque()
        self._bytes = 0
        self._ended = False
        self._changed: anyio.Event | None = None

    def __aiter__(self) -> EventReader:
        return self

    async def __anext__(self) -> Event:
        """The next event; of several tasks that wait, one gets it."""
        while not self._waiting:
            if self._ended:
                raise StopAsyncIteration
            self._changed = changed = self._changed or anyio.Event()
            await changed.wait()
        event, size = self._waiting.popleft()
        self._bytes -= size
        return event

    def close(self) -> None:
        """Listen no more; what waits to be read is dropped, and whoever waits for more is told the end."""
        self._waiting.clear()
        self._bytes = 0
        self._end()

    @property
    def closed(self) -> bool:
        """Nothing more arrives."""
        return self._ended

    def __enter__(self) -> EventReader:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._ended else "open"
        return f"<EventReader {self.name!r} {state} waiting={len(self._waiting)} dropped={self.dropped}>"

    def _put(self, event: Event, size: int) -> None:
        self._waiting.append((event, size))
        self._bytes += size
        while len(self._waiting) > self._most or (self._bytes > self._most_bytes and len(self._waiting) > 1):
            self._bytes -= self._waiting.popleft()[1]
            self.dropped += 1
            if self.dropped == 1:
                _log.warning(
                    "%s: events %r are not read in time, the oldest are dropped", _OVERFLOW, self.name
                )
        self._wake()

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


class Listeners:
    """Who listens, by name. It holds no reader: who drops one has no more to do."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._readers: dict[str, tuple[weakref.ref[EventReader], ...]] = {}
        self._gone: list[str] = []
        """The names of readers that were dropped since somebody looked; finalizers add to it."""

    def on(self, name: str, high_water_mark: int = 256) -> EventReader:
        """A reader of the events of that name, from now on. Raises ValueError for a bound below one."""
        if not isinstance(name, str):
            raise TypeError(f"the name of an event is a string, not {name!r}")
        if type(high_water_mark) is not int or high_water_mark < 1:
            raise ValueError(f"high_water_mark is one or more events, not {high_water_mark!r}")
        self._forget_gone()
        reader = EventReader(name, high_water_mark, self._limits)
        gone = self._gone.append
        self._readers[name] = (
            *self._readers.get(name, ()),
            weakref.ref(reader, lambda _: gone(name)),
        )
        return reader

    def put(self, channel: RPCChannel, name: str, args: tuple[Any, ...]) -> None:
        """Hand an event to those who listen to it. Where nobody does, nothing of it is kept."""
        if self._gone:
            self._forget_gone()
        known = self._readers.get(name)
        if known is None:
            return
        event, size = Event(name, args, channel), _size_of(args)
        for ref in known:
            reader = ref()
            if reader is None or reader.closed:
                self._gone.append(name)
            else:
                reader._put(event, size)

    def close(self) -> None:
        """Nothing more arrives: the readers end."""
        readers = [ref() for refs in self._readers.values() for ref in refs]
        self._readers.clear()
        for reader in readers:
            if reader is not None:
                reader._end()

    def _forget_gone(self) -> None:
        while self._gone:
            name = self._gone.pop()
            left = tuple(
                ref for ref in self._readers.get(name, ()) if (reader := ref()) and not reader.closed
            )
            if left:
                self._readers[name] = left
            else:
                self._readers.pop(name, None)


def _size_of(value: Any) -> int:
    """Bytes that a value which arrived takes, about."""
    total, rest = 0, [value]
    seen: set[int] = set()  # superjson can make one list out of two, and a value that holds itself
    while rest:
        item = rest.pop()
        total += sys.getsizeof(item, 64)
        if isinstance(item, _CONTAINERS) and id(item) not in seen:
            seen.add(id(item))
            rest += item
            if isinstance(item, dict):
                rest += item.values()
    return total


class _OfChannel:
    """What a channel has of events: who listens on this side, and what the peer has yet to answer.

    It is the owner of the calls that were sent, too, and drops what the peer answers.
    """

    def __init__(self, limits: Limits) -> None:
        self.listeners = Listeners(limits)
        self.unanswered = 0
        self.most = max(limits.calls // _SHARE, 1)
        self.skipped = 0
        """Broadcasts that this channel had no room for."""

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
        channel.when_closed(own.listeners.close)
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
        if own is not None:
            own.listeners.put(channel, name, args)
        if self._listeners is not None:
            self._listeners.put(channel, name, args)


class Events:
    """Events to and from the other side of a channel."""

    __kkrpc_unlisted__ = True

    def __init__(self, channel: RPCChannel, path: str) -> None:
        self._channel = channel
        self._path = path

    def emit(self, name: str, *args: Any) -> None:
        """Tell the other side, and wait for nothing: who does not listen there does not hear it.

        Raises ChannelClosed; NotSerializable and LimitExceeded for what cannot be sent; WouldBlock where the
        other side is behind with what it was sent, so that this event is not. Called on a thread, it returns
        when the event loop has sent it.
        """
        channel = self._channel
        channel.check_open()
        if channel.on_loop():
            _send(channel, self._path, name, args)
        else:
            channel.portal.run(_sent, channel, self._path, name, args)

    def on(self, name: str, high_water_mark: int = 256) -> EventReader:
        """The events of that name from the other side, from now on.

        :param high_water_mark: how many may wait to be read; of more, the newest are kept.

        Raises ValueError where this side exposes something else under the path of its events. On a closed
        channel the reader has ended.
        """
        self._expose()
        reader = _of(self._channel).listeners.on(name, high_water_mark)
        if self._channel.closed:
            reader.close()
        return reader

    def _expose(self) -> None:
        """Let the other side call `emit` here; a hub that is exposed does so already."""
        try:
            found = self._channel.exposed.find(f"{self._path}.emit").function
        except MethodNotFound:
            found = None
        if not isinstance(getattr(found, "__self__", None), EventsFace):
            self._channel.attach(self._path, EventsFace())

    def __repr__(self) -> str:
        return f"<Events at {self._path!r}>"


def events(channel: RPCChannel, path: str = "streams") -> Events:
    """The events of a channel: `emit` tells the other side, `on` listens to it.

    `path` is where events go to and are taken on either side, the one of the hub where there is one.
    """
    return Events(channel, path)


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
    method = f"{path}.emit"
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
        _log.warning("%s: a client is behind with its events, and does not get all of them", _OVERFLOW)
