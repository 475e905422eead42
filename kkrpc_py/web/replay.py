"""Runs of actions that outlive the connection of their client (SSE-11 to SSE-13).

`Run` is one: its handler in a task of the application's, its last events, and the connection that it has at
the moment, or none. `Runs` knows all of them, forgets those that nobody has come back for in time, and bounds
what they take. Neither knows HTTP.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from anyio import CancelScope, Event, current_time, move_on_after, sleep_forever
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from kkrpc_py.actions.running import PreparedAction
from kkrpc_py.channel.parking import Signal, current_parking
from kkrpc_py.errors import ActionError
from kkrpc_py.web.encoding import ValueWriter, chunk_event, done_event, error_event
from kkrpc_py.web.outlet import Outbox, Pace
from kkrpc_py.web.slots import Slot

__all__ = ["KEPT_BYTES", "RUN_BYTES", "Run", "Runs"]

RUN_BYTES: Final = 16 << 20
"""Bytes of the events that one run keeps, beside its last one."""
KEPT_BYTES: Final = 64 << 20
"""Bytes of the events that all of them keep: beyond it the largest one loses the older half of its own."""
_RUN_ID_BYTES = 16
# A number that no run reaches.
_MOST_DIGITS = 18
# What an event takes beside its bytes, about.
_EVENT_COST = 64
_GONE = "What was to be resumed is not kept any more"


def _nothing() -> None:
    pass


class Run:
    """One run of an action with a replay window; the outlet of its handler."""

    def __init__(
        self, name: str, window: int, prepared: PreparedAction, writer: ValueWriter, runs: Runs
    ) -> None:
        self.id = secrets.token_urlsafe(_RUN_ID_BYTES)
        self.owner = prepared.ctx.owner
        """Who may come back; None: everybody who knows the id."""
        self.name = name
        """Of the action."""
        self.size = 0
        """Bytes that its events take."""
        self.ended = False
        """`done` or `error` was its last event."""
        self.running = True
        """Its handler has not ended, or its cleanup has not."""
        self._window = window
        self._prepared = prepared
        self._writer = writer
        self._runs = runs
        self._scope = CancelScope(shield=True)  # whoever cancels its task: the handler is told first
        self._events: deque[bytes] = deque()
        self._next = 1
        self._outbox: Outbox | None = None
        self._taken_over = _nothing
        self._slot = Slot()
        """Of the connection, or its own, while its client is `_away`."""
        self._away = False
        self._sent = 0
        """Number of the last event that was given to a server, as far as that is known."""
        self._begun_at = 0
        self._forgotten = False
        self._parking = current_parking()
        self._room = Signal(self._parking)
        self._pace = Pace(self._room, self._has_room)

    async def drive(self) -> None:
        """Run the handler to its end; to be run in a task of the application's."""
        try:
            with self._scope:
                try:
                    await self._prepared.run(self)
                except ActionError as exc:
                    if not self.ended:
                        self._end(error_event(exc, self._id))
        finally:
            self.running = False
            if not self.ended:
                self.forget()
            self._runs.driven(self)
            if self._away:
                self._slot.release()

    # The handler's side ----------------------------------------------------------------------

    async def send(self, value: Any) -> None:
        """Send one chunk. Raises NotSerializable, and LimitExceeded for one that is too large."""
        self._append(chunk_event(self._writer.json(value), self._id))
        if self._pace.due():
            await self._pace.keep()

    async def close(self) -> None:
        """No more chunks come."""
        self._end(done_event(self._id))

    # The connections' side -------------------------------------------------------------------

    def attach(self, after: int, slot: Slot, taken_over: Callable[[], None]) -> Outbox:
        """The events after that number, and those to come, for a new connection.

        An older one is cut off: by `taken_over` of its own where its client has not read.

        :param slot: of the connection; where it has none, it gets the one that is held for this run.
        """
        kept_before = self._next - len(self._events)
        outbox = Outbox(self._parking, self._room)
        for event in list(self._events)[after + 1 - kept_before :]:
            outbox.append(event)
        if self.ended:
            outbox.close()
        if self._outbox is not None:
            self._outbox.cut()
            if self._outbox.in_flight:
                self._taken_over()
        self._outbox, self._taken_over = outbox, taken_over
        self._begun_at = after
        if not slot.held:
            slot.take_over(self._slot)
        elif self._away:
            self._slot.release()
        self._slot, self._away = slot, False
        self._runs.attended(self)
        self._room.wake()
        return outbox

    def detach(self, outbox: Outbox) -> None:
        """That connection is gone, or has had everything. A handler that goes on has its slot now."""
        if self._outbox is outbox:
            self._sent = self._begun_at + outbox.taken
            self._outbox, self._taken_over = None, _nothing
            if self.running:
                slot, self._slot, self._away = self._slot, Slot(), True
                self._slot.take_over(slot)
            self._runs.left(self)
            self._room.wake()

    @property
    def has_slot(self) -> bool:
        """Whether who comes back gets one from it."""
        return self._slot.held

    def keeps(self, number: int) -> bool:
        """Whether everything after the event of that number is still there, as far as it was sent."""
        return self._next - len(self._events) <= number + 1 <= self._next

    def had_whole(self, number: int) -> bool:
        """Whether the event of that number was the last one of all."""
        return self.ended and number == self._next - 1

    def stop(self) -> None:
        """Keep nothing, and cancel the handler, whatever it is about."""
        self.forget()
        self._scope.cancel()

    def forget(self) -> None:
        """Keep nothing; a handler that still sends is told, and cancelled."""
        if not self._forgotten:
            self._forgotten = True
            self._runs.forgot(self)
            self._events.clear()
            self.size = 0
            if self._outbox is not None:
                self._outbox.close()
            self._prepared.signal.set()
            if not self.ended:
                self._scope.cancel()

    # Within ----------------------------------------------------------------------------------

    @property
    def _id(self) -> str:
        return f"{self.id}:{self._next}"

    def _append(self, event: bytes) -> None:
        if self._forgotten:
            return
        self._next += 1
        self._events.append(event)
        grown = len(event) + _EVENT_COST
        if self._outbox is not None:
            self._outbox.append(event)
        # The event at the end is kept beside the chunks.
        while len(self._events) > self._window + self.ended:
            grown -= self._drop()
        while self.size + grown > RUN_BYTES and len(self._events) > 1:
            grown -= self._drop()
        self.size += grown
        self._runs.grew(grown)

    def _drop(self) -> int:
        return len(self._events.popleft()) + _EVENT_COST

    def halve(self) -> int:
        """Drop the oldest events, half of the bytes; how many that was."""
        before = self.size
        while self.size > before // 2:
            self.size -= self._drop()
        return before - self.size

    def _end(self, event: bytes) -> None:
        self.ended = True
        self._append(event)
        if self._outbox is not None:
            self._outbox.close()

    def _has_room(self) -> bool:
        if self._outbox is not None:
            return not self._outbox.full
        # Nobody reads: half of the window is for what nobody has had, half for what was lost on the way.
        return self._forgotten or self._next - 1 - self._sent < (self._window + 1) // 2


def _size_of(run: Run) -> int:
    return run.size


class Runs:
    """All runs of one application with a replay window.

    :param resume_seconds: how long a run is kept when its connection is gone, or has had everything.
    :param most: how many of those are kept.
    """

    def __init__(self, resume_seconds: float, most: int) -> None:
        self._seconds = resume_seconds
        self._most = most
        self._runs: dict[str, Run] = {}
        self._left: dict[Run, float] = {}
        """Those without a connection, the first one left first, and when they are forgotten."""
        self._size = 0
        self._driven: set[Run] = set()
        """Those whose handlers have not come to their end, forgotten ones among them."""
        self._changed = Event()

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def size(self) -> int:
        """Bytes that the events of all of them take."""
        return self._size

    def start(
        self,
        tasks: TaskGroup,
        name: str,
        window: int,
        prepared: PreparedAction,
        writer: ValueWriter,
    ) -> Run:
        """Begin a run in a task of `tasks`."""
        run = Run(name, window, prepared, writer, self)
        self._runs[run.id] = run
        self._driven.add(run)
        tasks.start_soon(run.drive)
        return run

    def find(self, event_id: str, name: str, owner: Any) -> tuple[Run, int]:
        """The run and the number that a Last-Event-ID names. Raises ActionError: RESUME_GONE.

        :param name: of the action.
        :param owner: as whom the middleware knows the client.
        """
        run_id, _, digits = event_id.partition(":")
        run = self._runs.get(run_id)
        if (
            run is not None
            and (run.name, run.owner) == (name, owner)
            and digits.isascii()
            and digits.isdigit()
        ):
            number = int(digits) if len(digits) <= _MOST_DIGITS else -1
            if number >= 0 and run.keeps(number):
                return run, number
        raise ActionError("RESUME_GONE", _GONE, 410)

    def give_way(self) -> bool:
        """Forget the run whose handler goes on for nobody for the longest time; whether there was one."""
        for run in self._left:
            if run.running and not run.ended:
                run.forget()
                return True
        return False

    def stop(self) -> None:
        """Forget all of them, and cancel whatever their handlers are about."""
        for run in {*self._runs.values(), *self._driven}:
            run.stop()

    async def expire(self) -> None:
        """Forget runs when their time has come; to be run in a task of the application's."""
        while True:
            self._changed = Event()
            first = next(iter(self._left), None)
            if first is None:
                await self._changed.wait()
                continue
            pause = self._left[first] - current_time()
            if pause <= 0:
                first.forget()
                await checkpoint()
            else:
                with move_on_after(pause):
                    await sleep_forever()

    # What a run tells -------------------------------------------------------------------------

    def driven(self, run: Run) -> None:
        self._driven.discard(run)

    def attended(self, run: Run) -> None:
        self._left.pop(run, None)

    def left(self, run: Run) -> None:
        if run.id in self._runs:
            self._left[run] = current_time() + self._seconds
            if len(self._left) > self._most:
                next(iter(self._left)).forget()
            self._changed.set()

    def grew(self, size: int) -> None:
        self._size += size
        while self._size > KEPT_BYTES:
            self._size -= max(self._runs.values(), key=_size_of).halve()

    def forgot(self, run: Run) -> None:
        if self._runs.pop(run.id, None) is not None:
            self._left.pop(run, None)
            self._size -= run.size
