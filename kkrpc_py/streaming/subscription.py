"""One subscriber of a stream, on the producing side: what it gets next, and what it has missed.

It is the async iterator that a `subscribe` call returns. It holds a place in the stream's log and no chunk of
its own: a subscriber that stalls costs what the log keeps anyway, up to its high water mark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from kkrpc_py.channel.parking import current_parking
from kkrpc_py.errors import StreamOverflow
from kkrpc_py.wire.shared import Shared

if TYPE_CHECKING:
    from kkrpc_py.channel.channel import RPCChannel
    from kkrpc_py.streaming.outbound import OutboundStream

__all__ = ["Overflow", "Subscription"]

Overflow: TypeAlias = Literal["drop_oldest", "latest", "block", "error"]
"""What becomes of a subscriber for which more waits than its high water mark (NST-12)."""

_FRAME_BYTES = 64 * 1024
"""No more is handed over at once, beyond one chunk: the credit goes by frames, and what was sent is sent."""


class Subscription:
    """Yields a mark, then the chunks (NST-5, NST-6), as `Shared` values. One task reads it."""

    __slots__ = (
        "_high_water",
        "_log",
        "_mark",
        "_next",
        "_parking",
        "_place",
        "_replay_end",
        "_seen",
        "_snapshot_due",
        "_stream",
        "channel",
        "overflow",
        "turn",
    )

    def __init__(
        self,
        stream: OutboundStream[Any],
        channel: RPCChannel | None,
        after: int | None,
        high_water_mark: int,
        overflow: Overflow,
    ) -> None:
        """`after`: the number of the last chunk that the subscriber has; None: all there are until now.

        Where one value stands for all before it nobody is held up, and None is 0.
        """
        if after is None:
            after = stream.log.next - 1 if stream.snapshot is None else 0
        self.channel = channel
        """Whose subscriber it is."""
        self.overflow: Overflow = "drop_oldest" if overflow == "block" and stream.snapshot else overflow
        self._stream = stream
        self._log = log = stream.log
        self._high_water = 1 if overflow == "latest" else high_water_mark
        self.turn = high_water_mark
        """After so many values a producer that never waits by itself lets it be read."""
        start = max(after + 1, stream.replayed_from)
        self._next = start
        self._seen = 0
        """What the log's next number was when the place was last looked at."""
        self._replay_end = 0 if overflow == "latest" else log.next
        """Chunks before this were written before the subscription: they do not count as waiting."""
        self._snapshot_due = stream.snapshot is not None and start > after + 1
        next = log.next - 1 if self._snapshot_due else start
        self._mark: Shared | None = stream.writer.share({"next": next, "epoch": stream.epoch})
        self._parking = current_parking()
        self._place: Any = None

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Shared:
        log = self._log
        while True:
            if self._mark is not None:  # whatever has become of the subscription, it begins so (NST-5)
                mark, self._mark = self._mark, None
                return mark
            number = self._next
            if log.next != self._seen:
                number = self._look()
            if self._snapshot_due:
                return self._snapshot()
            if number < log.next:
                self._next = number + 1
                if self.overflow == "block":
                    self._stream.took()
                return log.at(number)
            self._stream.raise_end()
            self._place = self._parking.new()
            self._stream.park(self)
            await self._place

    def __kkrpc_ready__(self, most: int) -> list[Shared]:
        """Up to so many chunks, without waiting and without what comes before them."""
        if self._mark is not None:
            return []
        log = self._log
        number = self._next if log.next == self._seen else self._look()
        if self._snapshot_due or number == log.next:
            return []
        self._next = log.part(number, min(number + most, log.next), _FRAME_BYTES)
        if self.overflow == "block":
            self._stream.took()
        return log.between(number, self._next)

    def wake(self) -> None:
        """There is something new."""
        if self._place is not None:
            place, self._place = self._place, None
            self._parking.wake(place)

    def _look(self) -> int:
        """Something was written since the last look: the number that comes next, if it is there."""
        self._seen = self._log.next
        floor = self.floor
        if floor > self._next:
            if self._stream.snapshot is not None:
                self._snapshot_due = True
            elif self.overflow == "error":
                raise StreamOverflow(
                    f"the subscriber of {self._stream.name!r} is too slow: more than {self._high_water} "
                    "chunks, or Limits.subscription_bytes, waited for it"
                )
            self._next = floor
        return self._next

    def _snapshot(self) -> Shared:
        assert self._stream.snapshot is not None
        self._snapshot_due = False
        self._next = self._log.next
        return self._stream.snapshot()

    @property
    def floor(self) -> int:
        """The number of the first chunk that is still kept for it."""
        log = self._log
        if self.overflow == "block" or self.fits(log.next):
            return self._next
        kept = max(log.next - self._high_water, log.newest(self._stream.most_bytes))
        return max(min(kept, log.next - 1), self._next, log.first)

    @property
    def room_until(self) -> int:
        """The number that cannot be written any more without passing its high water mark."""
        return max(self._next, self._replay_end) + self._high_water

    def fits(self, next: int) -> bool:
        """Whether no more waits for it than it chose, when `next` is the number to be written next."""
        log, most = self._log, self._stream.most_bytes
        if next > self.room_until or self._next < log.first:  # some of it is forgotten: it did not fit
            return False
        return log.size <= most or log.bytes_from(max(self._next, self._replay_end)) <= most

    def gone(self) -> None:
        """Its channel is closed: it does not count any more, though it may yet be read for a moment.

        That is where the peer has sent its last byte and reads on (CLS-2). Nothing is kept for it.
        """
        self._stream.leave(self)
        self._seen = 0
        if self.overflow == "block":
            self.overflow = "drop_oldest"

    async def aclose(self) -> None:
        self._stream.leave(self)
