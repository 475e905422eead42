"""What a reader has got of one stream, over however many connections: its place, its gaps, what was dropped.

It owns reading what a `subscribe` call sends (NST-5 to NST-9, NST-18 to NST-20) and subscribing again. What
the application holds is `streaming.reader`'s, so that dropping that is noticed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias

import anyio
import msgspec

from kkrpc_py.channel.call import invoke
from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.channel.stream import StreamReceiver, cancel_and_wait
from kkrpc_py.errors import CallCancelled, ChannelClosed, KkrpcError, ProtocolError, StreamGap
from kkrpc_py.streaming.subscription import Overflow

__all__ = ["Follower", "Gap", "Link", "OnGap", "Source"]

_log = logging.getLogger("kkrpc_py")

OnGap: TypeAlias = Literal["report", "error"]


class Gap(msgspec.Struct, frozen=True):
    """Chunks that the server no longer had when this side subscribed, or came back."""

    first: int
    last: int
    """The number of the last of them; less than `first` where none is known to be missing."""
    restarted: bool = False
    """It is another stream of the same id than before: the numbers began again, and how much of the first
    one is missing is not known."""


class Link(Protocol):
    """A connection that comes back, such as `kk.reconnecting` gives."""

    @property
    def channel(self) -> RPCChannel: ...

    async def connected(self, after: RPCChannel | None = None) -> RPCChannel: ...


Source: TypeAlias = RPCChannel | Link
"""Where a stream is read from."""


class Follower:
    """Follows one stream."""

    def __init__(
        self,
        source: Source,
        method: str,
        name: str,
        id: str,
        *,
        high_water_mark: int,
        overflow: Overflow,
        after: int | None,
        on_gap: OnGap,
    ) -> None:
        self.name = name
        self.id = id
        self.gaps: list[Gap] = []
        self.dropped = 0
        self.last = after or 0
        """The number of the last chunk that was handed out."""
        self.cancelled = False
        self._source = source
        self._method = method
        self._options: dict[str, Any] = {"highWaterMark": high_water_mark, "overflow": overflow}
        self._latest = overflow == "latest"
        self._on_gap: OnGap = on_gap
        self.epoch: str | None = None
        """The stream's, of the last mark."""
        self._received = after
        """The number of the last chunk that has arrived; None: only what comes from now on is wanted."""
        self._before = 0
        """The number before the first one that the present subscription could give."""
        self.channel: RPCChannel | None = None
        """The connection of the present subscription."""
        self._receiver: StreamReceiver | None = None
        self.marked = False
        """The mark of the present subscription is here."""
        self.warns = not self._latest
        """Says in the log that chunks were dropped: where that is no matter of course."""
        self.when_marked: Callable[[], None] | None = None
        """Called when it comes, also where nothing follows it."""
        self.ready: deque[Any] = deque()
        """Chunks that have arrived and are read next, without waiting."""
        self._due: KkrpcError | None = None
        """To be raised before what is ready: a gap."""
        self._wrong = ""
        """What the other side did wrong: to be raised after what is ready."""
        self._opening: anyio.CancelScope | None = None
        self._lost: RPCChannel | None = None
        """The last connection that was found to be lost."""

    async def open(self) -> None:
        """Subscribe, if that has not been done. Raises UnknownStream and what else the server says."""
        while self._receiver is None:
            if self.cancelled:
                raise self._cancellation()
            self.marked = False
            try:
                with anyio.CancelScope() as self._opening:
                    await self._subscribe()
            finally:
                self._opening = None

    async def _subscribe(self) -> None:
        """Subscribe once; in vain where the connection is lost meanwhile, and another one may come."""
        if isinstance(self._source, RPCChannel):
            channel = self._source
        else:
            channel = await self._source.connected(after=self._lost)
            self._lost = None
        self.channel = channel
        options = dict(self._options)
        if self._received != 0:
            options["after"] = self._received
        if self.epoch is not None:
            options["epoch"] = self.epoch
        try:
            found = await invoke(channel, self._method, [self.name, self.id, options], lambda got: got)
        except ChannelClosed:
            if not self._may_come_back():
                raise
            return
        if not isinstance(found, StreamReceiver):
            raise ProtocolError(f"{self._method!r} was answered by something else than a stream")
        self._receiver = found
        if self.cancelled:
            found.cancel()

    def _may_come_back(self) -> bool:
        """Whether ChannelClosed says that the connection is lost, and another one may come."""
        if isinstance(self._source, RPCChannel) or self.channel is None or not self.channel.closed:
            return False  # what the other side has raised may be called so as well
        self._lost = self.channel
        return True

    async def next(self) -> Any:
        """The next value. Raises StopAsyncIteration at the end, and what the stream ended in."""
        while True:
            if self.cancelled:
                raise self._cancellation()
            if self._due is not None:
                due, self._due = self._due, None
                try:
                    raise due
                finally:
                    del due  # its traceback holds this frame, and with it the pass that is being left
            if self.ready:
                return self.hand_out()
            if self._wrong:
                raise ProtocolError(self._wrong)
            await self.open()
            receiver = self._receiver
            assert receiver is not None
            try:
                arrived = [await receiver.next_value()]
            except ChannelClosed:
                if not self._may_come_back():
                    raise
                self._receiver = None
                continue
            except StopAsyncIteration:
                if self.marked:
                    raise
                self._refuse("it ended before its mark")
                continue
            arrived += receiver.take()
            self._take(arrived)

    def cancel(self) -> None:
        """Want no more."""
        self.cancelled = True
        self.ready.clear()
        if self._receiver is not None:
            self._receiver.cancel()
        if self._opening is not None:
            self._opening.cancel()

    def abandon(self) -> None:
        """The same, from any thread and at any point of it."""
        if self._receiver is not None:
            self._receiver.abandon()

    async def aclose(self) -> None:
        """The same; returns when the producing side has let go."""
        self.cancel()
        if self._receiver is not None:
            await cancel_and_wait(self._receiver)

    def _take(self, arrived: list[Any]) -> None:
        chunks = iter(arrived)
        if not self.marked:
            reason = self._take_mark(next(chunks))
            if reason:
                self._refuse(reason)
                return
        assert self._received is not None
        received, append = self._received, self.ready.append
        for chunk in chunks:
            if type(chunk) is not list or len(chunk) != 2 or type(chunk[0]) is not int:
                self._refuse("a chunk is no list of a number and a value")
                break
            if chunk[0] <= received:
                self._refuse(f"the number {chunk[0]} of a chunk does not rise")
                break
            received = chunk[0]
            append(chunk)
        self._received = received
        if self._latest and len(self.ready) > 1:
            newest = self.ready.pop()
            self.ready.clear()
            append(newest)

    def _take_mark(self, mark: Any) -> str:
        """Take what a subscription begins with; returns what is wrong with it."""
        if type(mark) is not dict:
            return "it does not begin with a mark"
        next, epoch = mark.get("next"), mark.get("epoch")
        if type(next) is not int or next < 1 or type(epoch) is not str:
            return "its mark has no number or no epoch"
        restarted = self.epoch is not None and epoch != self.epoch
        expected = 1 if restarted else next if self._received is None else self._received + 1
        if next < expected:  # it has not got so far: another stream, for all that is known
            restarted, expected = True, 1
        if restarted or next > expected:
            gap = Gap(expected, next - 1, restarted)
            self.gaps.append(gap)
            if self._on_gap == "error":
                self._due = StreamGap(_told(self.name, gap), gap.first, gap.last)
        self.epoch = epoch
        self._received = next - 1
        if restarted:
            self.last = 0
        self._before = next - 1
        self.marked = True
        if self.when_marked is not None:
            self.when_marked()
        return ""

    def hand_out(self) -> Any:
        """The next value that is ready."""
        number, value = self.ready.popleft()
        if number != self.last + 1:
            self._count_dropped(number)
        self.last = number
        return value

    def _count_dropped(self, number: int) -> None:
        dropped = number - max(self.last, self._before) - 1
        if dropped and not self.dropped and self.warns:
            _log.warning("DF0029: a reader of %r is slow, and chunks of it were dropped", self.name)
        self.dropped += dropped

    def _refuse(self, reason: str) -> None:
        self._wrong = f"the stream {self.id!r} of {self.name!r}: {reason}"
        if self._receiver is not None:
            self._receiver.cancel()

    def _cancellation(self) -> CallCancelled:
        return CallCancelled(f"the reader of {self.name!r} was cancelled")


def _told(name: str, gap: Gap) -> str:
    if gap.restarted:
        return f"the stream of {name!r} is another one than before, which may not have been read to its end"
    return f"the chunks {gap.first} to {gap.last} of {name!r} are gone"
