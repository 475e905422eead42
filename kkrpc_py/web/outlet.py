"""The way of events from a handler to the connection of its client.

`Outbox` is what waits for one connection: who appends never waits; whoever may be made to wait keeps a
`Pace`. Neither knows HTTP: `sse` takes batches out and writes them. `PlainOutlet` is the outlet of an action
whose run ends with its connection; `replay` has the other one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from anyio import current_time
from anyio.lowlevel import checkpoint, current_token

from kkrpc_py.channel.parking import Parking, Signal, current_parking
from kkrpc_py.errors import ActionError
from kkrpc_py.web.encoding import KEEP_ALIVE, ValueWriter, chunk_event, done_event, error_event

__all__ = ["HIGH_WATER", "Outbox", "Pace", "PlainOutlet"]

HIGH_WATER: Final = 64 * 1024
"""Bytes of events that wait for a connection above which its handler waits (ACT-9)."""
_TURN = 256
"""Chunks that a handler sends in one go before others have a turn."""


class Outbox:
    """The events that wait for one connection. One task takes them; any task of the same loop appends."""

    __slots__ = (
        "_clock",
        "_closed",
        "_comment",
        "_events",
        "_flight",
        "_parking",
        "_place",
        "_waiting",
        "finishing",
        "room",
        "since",
        "taken",
    )

    def __init__(self, parking: Parking, room: Signal) -> None:
        self.room = room
        """Woken when less waits."""
        self.taken = 0
        """Number of the events that the server has taken."""
        self.finishing = False
        """The last ones are with the server, or on their way."""
        # Asked twice a batch: anyio's own looks for the event loop each time.
        self._clock: Callable[[], float] = getattr(current_token().native_token, "time", current_time)
        self.since = self._clock()
        """When the writer began to hand a batch to the server, or had done so."""
        self._parking = parking
        self._place: Any = None
        self._events: list[bytes] = []
        self._waiting = 0
        self._flight: tuple[int, int] | None = None
        self._closed = False
        self._comment = False

    def append(self, event: bytes) -> None:
        """Put an event at the end. After `close` it is dropped."""
        if not self._closed:
            self._events.append(event)
            self._waiting += len(event)
            if self._place is not None:
                self._wake()

    def keep_alive(self) -> None:
        """Let a comment go out if there is nothing else."""
        self._comment = True
        self._wake()

    def close(self) -> None:
        """Nothing comes any more; what waits still goes."""
        self._closed = True
        self._wake()

    def cut(self) -> None:
        """As `close`, and what waits is dropped."""
        self._events.clear()
        self.close()

    @property
    def full(self) -> bool:
        """Whether more than `HIGH_WATER` bytes wait, with those that the server is taking."""
        return self._waiting > HIGH_WATER

    @property
    def in_flight(self) -> bool:
        """Whether the server has been given something, and has not said that it has it."""
        return self._flight is not None

    async def take(self) -> tuple[bytes, bool]:
        """Wait for events; gives those that are ready, or a comment, and whether they are the last ones.

        Ready ones leave together, in one batch as far as they fit into `HIGH_WATER` bytes.
        """
        while not (self._events or self._closed or self._comment):
            self._place = place = self._parking.new()
            try:
                await place
            finally:
                self._place = None
        self._comment = False
        batch = self._batch()
        self.finishing = self._closed and not self._events
        self.since = self._clock()
        if not batch:
            self._flight = (0, 0)
            return (b"" if self._closed else KEEP_ALIVE), self._closed
        joined = batch[0] if len(batch) == 1 else b"".join(batch)
        self._flight = (len(batch), len(joined))
        return joined, self.finishing

    def _batch(self) -> list[bytes]:
        """What may leave together: whatever servers keep for a client that does not read, it is not much."""
        if not self.full:
            batch, self._events = self._events, []
            return batch
        size = count = 0
        for event in self._events:
            size += len(event)
            count += 1
            if size >= HIGH_WATER:
                break
        batch = self._events[:count]
        del self._events[:count]
        return batch

    def landed(self) -> None:
        """The server has what was taken last."""
        count, size = self._flight or (0, 0)
        self._flight = None
        self.taken += count
        self._waiting -= size
        self.since = self._clock()
        self.room.wake()

    def _wake(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            self._parking.wake(place)


class Pace:
    """Makes a handler wait while there is no room, and gives others their turn.

    `has_room` is asked again whenever `room` was woken.
    """

    __slots__ = ("_has_room", "_room", "_turn")

    def __init__(self, room: Signal, has_room: Callable[[], bool]) -> None:
        self._room = room
        self._has_room = has_room
        self._turn = 0

    def due(self) -> bool:
        """To be asked after each chunk: whether `keep` is to be awaited."""
        self._turn += 1
        return self._turn >= _TURN or not self._has_room()

    async def keep(self) -> None:
        self._turn = 0
        if self._has_room():
            await checkpoint()
        while not self._has_room():
            await self._room.wait()


class PlainOutlet:
    """The outlet of an action without a replay window."""

    def __init__(self, writer: ValueWriter) -> None:
        parking = current_parking()
        self.outbox = Outbox(parking, Signal(parking))
        self.ended = False
        """`done` or `error` is on its way."""
        self._left = False
        self._writer = writer
        self._pace = Pace(self.outbox.room, self._has_room)

    async def send(self, value: Any) -> None:
        """Send one chunk. Raises NotSerializable, and LimitExceeded for one that is too large."""
        self.outbox.append(chunk_event(self._writer.json(value)))
        if self._pace.due():
            await self._pace.keep()

    async def close(self) -> None:
        """No more chunks come."""
        self._end(done_event())

    def fail(self, error: ActionError) -> None:
        """Tell the client of an error, unless it was told of the end before (ACT-7)."""
        if not self.ended:
            self._end(error_event(error))

    def leave(self) -> None:
        """The handler has come to its end."""
        self._left = True
        self.outbox.room.wake()

    async def handled(self) -> None:
        """Wait until it has."""
        while not self._left:
            await self.outbox.room.wait()

    def _end(self, event: bytes) -> None:
        self.ended = True
        self.outbox.append(event)
        self.outbox.close()

    def _has_room(self) -> bool:
        return not self.outbox.full
