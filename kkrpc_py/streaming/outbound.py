"""`OutboundStream`: one stream of a named channel, from its producer to all who subscribe."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import current_time
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from kkrpc_py.channel.parking import Signal, current_parking
from kkrpc_py.errors import ErrorValue, StreamClosed, WouldBlock, error_from_wire, error_to_wire
from kkrpc_py.streaming.home import Home
from kkrpc_py.streaming.later import call_later
from kkrpc_py.streaming.log import Log
from kkrpc_py.streaming.producing import Producing
from kkrpc_py.streaming.subscription import Overflow, Subscription
from kkrpc_py.wire.shared import Shared, SharedWriter

if TYPE_CHECKING:
    from kkrpc_py.channel.channel import RPCChannel

__all__ = ["OutboundStream", "new_id"]

T_contra = TypeVar("T_contra", contravariant=True)

_TURN = 64
"""Values after which a producer that only sends lets the subscribers' tasks run."""
_LEAVING = 16
"""When so many of all subscribers, one in this, have left, it is looked at what the others still need."""
_SLACK_CHUNKS = 32
_SLACK_BYTES = 1 << 18
"""So much more than need be is kept at most, so that not every chunk is paid for with a look at all."""


def new_id() -> str:
    """An id that nobody guesses."""
    return secrets.token_urlsafe(16)


class OutboundStream(Producing[T_contra]):
    """Every value that is written goes to each of the subscribers, encoded once a codec.

    There may be none as yet: the replay window is kept for those who come. `signal` is set when the last one
    has cancelled or is gone; the stream goes on all the same, until its producer ends it.
    """

    def __init__(
        self,
        name: str,
        id: str,
        writer: SharedWriter,
        *,
        most_bytes: int,
        replay_window: int,
        reconnect_grace: float = 0.0,
        first: int = 1,
        ended: Callable[[OutboundStream[Any]], None] = lambda stream: None,
        home: Home | None = None,
    ) -> None:
        """`first`: the number of the first value; `ended` is called when it has ended."""
        super().__init__(id)
        self.name = name
        """The channel's."""
        self.epoch = secrets.token_urlsafe(9)
        """Another one for each stream, also of the same id: numbers mean something within it (NST-11)."""
        self.log = Log(first)
        self.writer = writer
        self.most_bytes = most_bytes
        self.snapshot: Callable[[], Shared] | None = None
        """What a subscriber gets that has missed something, where one value stands for all before it."""
        self._replay_window = replay_window
        self._reconnect_grace = reconnect_grace
        self._ended = ended
        self._check_thread = (home if home is not None else Home()).check
        self._closed = False
        self._failure: ErrorValue | None = None
        self._subscriptions: dict[Subscription, None] = {}
        self._left = 0
        """Subscribers that have left since it was looked at what is still needed."""
        self._blocking: dict[Subscription, None] = {}
        self._parked: dict[Subscription, None] = {}
        self._room: Signal | None = None
        self._room_until = 0
        """The number up to which none of those that block is full, as far as that is known."""
        self._turn = _TURN
        self._since_turn = 0
        self._look_at_chunks = 0
        self._look_at_bytes = 0
        self._call_off: Callable[[], None] | None = None
        self._missing: deque[float] = deque()
        """The times up to which subscribers whose connections were lost may come back, in order."""

    # The producer's side -------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def subscribers(self) -> int:
        """How many there are now."""
        return len(self._subscriptions)

    def write(self, value: T_contra) -> None:
        self._check_thread()
        if self._closed:
            raise StreamClosed(f"the stream {self.id!r} of {self.name!r} has ended")
        if self._blocking and not self._has_room:
            raise WouldBlock(f"a subscriber of {self.name!r} that chose to block is full")
        log = self.log
        log.append(self.writer.share_numbered(log.next, value))
        if len(log) > self._look_at_chunks or log.total > self._look_at_bytes:
            self._forget()
        self._wake_parked()

    async def send(self, item: T_contra) -> None:
        self._since_turn += 1
        if self._since_turn >= self._turn:
            self._since_turn = 0
            await checkpoint()
            await checkpoint()  # trio runs the tasks of one turn in any order: by now each has had its own
        else:
            await checkpoint_if_cancelled()
        while True:
            try:
                return self.write(item)
            except WouldBlock:
                await self.wait_room()

    async def wait_room(self) -> None:
        if self._room is None:
            self._room = Signal(current_parking())
        await checkpoint_if_cancelled()
        if not self._closed and not self._has_room:
            await self._room.wait()

    def close(self) -> None:
        self._check_thread()
        if not self._closed:
            self._closed = True
            self._call_off_signal()
            self._forget()
            self._wake_parked()
            self._wake_writers()
            self._ended(self)

    def error(self, exc: BaseException | str) -> None:
        self._check_thread()
        if not self._closed:
            # Its traceback goes to those channels alone that send tracebacks.
            self._failure = (
                ErrorValue("Error", exc)
                if isinstance(exc, str)
                else error_to_wire(exc, with_traceback=exc.__traceback__ is not None)
            )
            self.close()

    # The subscribers' side -----------------------------------------------------------------

    @property
    def replayed_from(self) -> int:
        """The number of the first chunk within the replay window, which is bounded in bytes, too (NST-8)."""
        log = self.log
        start = max(log.next - self._replay_window, log.first)
        if log.size > self.most_bytes and start < log.next:
            start = max(start, min(log.newest(self.most_bytes), log.next - 1))
        return start

    def subscribe(
        self,
        channel: RPCChannel | None,
        *,
        after: int | None = 0,
        epoch: str | None = None,
        high_water_mark: int,
        overflow: Overflow,
    ) -> Subscription:
        """A subscription, which counts from now on, and until it is closed."""
        if after is not None and (after >= self.log.next or epoch not in (None, self.epoch)):
            after = 0  # a number of another stream's
        subscription = Subscription(self, channel, after, high_water_mark, overflow)
        self._subscriptions[subscription] = None
        if subscription.overflow == "block":
            self._blocking[subscription] = None
            self._room_until = 0
        self._turn = min(self._turn, subscription.turn)
        self._call_off_signal()
        if epoch == self.epoch and self._missing:
            self._missing.popleft()  # it is back
        if channel is not None:
            channel.when_closed(subscription.gone)
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """That one is over, in whatever way."""
        if subscription not in self._subscriptions:
            return
        del self._subscriptions[subscription]
        channel = subscription.channel
        if channel is not None:
            channel.forget_closed(subscription.gone)
            if self._reconnect_grace and channel.closed:
                self._miss()
        if subscription in self._blocking:
            del self._blocking[subscription]
            self._wake_writers()
        self._parked.pop(subscription, None)
        self._left += 1
        if self._left * _LEAVING > len(self._subscriptions):  # or a crowd that leaves pays for each other
            self._forget()
        if self._subscriptions or self._closed:
            return
        patience = self._missing[-1] - current_time() if self._missing else 0
        if patience > 0:
            self._call_off = call_later(patience, self.signal.set)
        else:
            self.signal.set()

    def park(self, subscription: Subscription) -> None:
        """Wake it when something is written, or at the end."""
        self._parked[subscription] = None

    def took(self) -> None:
        """One of those that block has taken a chunk."""
        if self._room is not None and self._has_room:
            self._room.wake()

    def raise_end(self) -> None:
        """Raises what the stream has ended in, StopAsyncIteration if that was no error."""
        if self._failure is not None:
            raise error_from_wire(self._failure)
        if self._closed:
            raise StopAsyncIteration

    # Within ----------------------------------------------------------------------------------

    @property
    def _has_room(self) -> bool:
        log = self.log
        if log.next < self._room_until and log.size <= self.most_bytes:
            return True  # who takes something meanwhile makes it more
        self._room_until = min((each.room_until for each in self._blocking), default=log.next + 1)
        return log.next < self._room_until and all(each.fits(log.next) for each in self._blocking)

    def _miss(self) -> None:
        now = current_time()
        while self._missing and self._missing[0] <= now:
            self._missing.popleft()
        self._missing.append(now + self._reconnect_grace)

    def _call_off_signal(self) -> None:
        if self._call_off is not None:
            self._call_off()
            self._call_off = None

    def _wake_parked(self) -> None:
        if self._parked:
            parked, self._parked = self._parked, {}
            for subscription in parked:
                subscription.wake()

    def _wake_writers(self) -> None:
        if self._room is not None:
            self._room.wake()

    def _forget(self) -> None:
        """Keep what the replay window and the subscribers need, and no more."""
        log = self.log
        self._left = 0
        self._turn = min([_TURN, *(each.turn for each in self._subscriptions)])
        floors = [subscription.floor for subscription in self._subscriptions]
        log.forget(min(self.replayed_from, *floors, log.next))
        self._look_at_chunks = len(log) + _SLACK_CHUNKS
        self._look_at_bytes = log.total + _SLACK_BYTES
