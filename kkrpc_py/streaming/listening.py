"""Those who listen to events, and what waits for them to be read.

It owns neither where events come from nor how they are sent: that is `streaming.events`'.
"""

from __future__ import annotations

import logging
import weakref
from collections import deque
from types import TracebackType
from typing import Any

import anyio
import msgspec

from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.limits import Limits
from kkrpc_py.streaming import HIGH_WATER_MARK
from kkrpc_py.streaming.sizes import size_of

__all__ = ["OVERFLOW", "Event", "EventReader", "Listeners"]

_log = logging.getLogger("kkrpc_py")

OVERFLOW = "DF0029"
"""What DevTools Kit calls an overflow in its log."""


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
                    "%s: events %r are not read in time, the oldest are dropped", OVERFLOW, self.name
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
        self._closed = False
        self._gone: list[str] = []
        """The names of readers that were dropped since somebody looked; finalizers add to it."""

    def on(self, name: str, high_water_mark: int = HIGH_WATER_MARK) -> EventReader:
        """A reader of the events of that name, from now on. Raises ValueError for a bound below one."""
        if not isinstance(name, str):
            raise TypeError(f"the name of an event is a string, not {name!r}")
        if type(high_water_mark) is not int or high_water_mark < 1:
            raise ValueError(f"high_water_mark is one or more events, not {high_water_mark!r}")
        self._forget_gone()
        reader = EventReader(name, high_water_mark, self._limits)
        if self._closed:
            reader.close()
            return reader
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
        event, size = Event(name, args, channel), size_of(args)
        for ref in known:
            reader = ref()
            if reader is None or reader.closed:
                self._gone.append(name)
            else:
                reader._put(event, size)

    def close(self) -> None:
        """Nothing more arrives: the readers end, and those that are still asked for have ended."""
        self._closed = True
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
