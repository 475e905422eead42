"""One stream on its way out: values are collected, batched, and sent within their credit.

The loop in `_collect` is the hot path of the product. It steps the generator by hand for as long
as values are ready; the batch leaves when it is full or when the generator is about to suspend,
whichever comes first, so that batching costs no latency and needs no timer. Waiting, for credit
or for the writer, comes before the next step and never at the moment of suspension.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, Protocol

from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from kkrpc_py.channel.parking import Parking, Signal
from kkrpc_py.channel.steps import finish, run_stepped, stepper
from kkrpc_py.core.calls import MAX_BATCH, IncomingCall
from kkrpc_py.core.connection import Connection
from kkrpc_py.errors import InternalError, KkrpcError, ValidationFailed

__all__ = ["READY", "Link", "Producer"]

_FRAME_BYTES = 64 * 1024
"""A batch is kept to about this size: larger frames gain nothing and cost the other calls latency."""
_LARGE = 4096
"""A string or bytes value of this length ends its batch."""
_SIZED: frozenset[type[Any]] = frozenset({bytes, str, bytearray, memoryview})
READY = "__kkrpc_ready__"
"""A method of an iterator that has values by the list: gives up to so many of them that need no waiting."""
_TURN = 1024
"""Values after which a generator that never suspends lets the other tasks run."""

_TURN_SECONDS = 0.005
"""The same for a generator that computes for long between its values."""
_BATCH_SECONDS = 0.002
"""Of values that take long to make a batch holds fewer: they are wanted as they come."""

_ENDED, _SUSPENDED, _FULL = range(3)


class Link(Protocol):
    """What a producer needs of its channel."""

    connection: Connection
    parking: Parking

    @property
    def congested(self) -> bool:
        """More waits to be written than `Limits.send_high_water`, frames of streams and all others."""
        ...

    @property
    def stopping(self) -> bool:
        """The channel ends: nothing more is sent."""
        ...

    def kick(self) -> None:
        """There is something to write."""
        ...

    def when_clear(self, wake: Callable[[], None], place: int | None) -> int:
        """Call `wake` once when the channel is congested no more.

        Returns the place in the queue; who finds the channel congested again before it has sent anything
        gives it back, and is not overtaken for ever.
        """
        ...

    def forget(self, wake: Callable[[], None]) -> None:
        """Do not call `wake` any more."""
        ...


class Producer:
    """Sends the values of one stream. `interrupt` cancels the task that produces them."""

    __slots__ = (
        "_alone",
        "_batch",
        "_call",
        "_changed",
        "_check",
        "_checked",
        "_fitting",
        "_interrupt",
        "_link",
        "_place",
        "_since_turn",
        "_step",
        "_stepping",
        "_trap",
        "_turn_began",
        "error",
        "gone",
        "invalid",
    )

    def __init__(
        self,
        link: Link,
        call: IncomingCall,
        interrupt: Callable[[], None],
        check: Callable[[list[Any]], list[Any]] | None = None,
    ) -> None:
        self.error: Exception | None = None
        """Why the producer was interrupted: a value that cannot be sent."""
        self.invalid: ValidationFailed | None = None
        """Why it was interrupted: a value that is not what the handler promises. Those before it are sent."""
        self.gone: Callable[[], None] | None = None
        """Called when nobody wants any more of the stream, before its cancellation is felt."""
        self._check = check
        self._checked = 0
        """Values of the batch that `check` has seen."""
        self._alone = False
        """What is flushed is the value that is being pushed, and nothing else."""
        self._link = link
        self._call = call
        self._interrupt = interrupt
        self._batch: list[Any] = []
        self._fitting = 1
        self._since_turn = 0
        self._place: int | None = None
        self._turn_began = perf_counter()
        self._changed = Signal(link.parking)
        self._step: Any = None
        self._trap: Any = None
        self._stepping = False

    # An iterator's values ------------------------------------------------------------------

    async def iterate(self, iterator: Any) -> None:
        """Collect all values of the async iterator; raises what it raises. `drain` sends the last of them."""
        advance = iterator.__anext__
        ready = getattr(iterator, READY, None)
        while True:
            await self._make_room()
            if self.over:  # the iterator took the cancellation for something else
                return
            began = perf_counter()
            if ready is not None:
                self._batch += ready(min(self._call.room, self._fitting) - len(self._batch))
            # What comes by the list is as much as is there, or as fits: it leaves as it is.
            outcome = _FULL if ready is not None and self._batch else self._collect(advance)
            if outcome is _SUSPENDED:
                step, self._step = self._step, None
                try:
                    value = await finish(step, self._trap, self._flush_or_interrupt)
                except StopAsyncIteration:
                    return
                finally:
                    self._turn_began = perf_counter()
                self._batch.append(value)
            elif outcome is _FULL:
                self._flush_full(began)
            else:
                return

    def _collect(self, advance: Callable[[], Any]) -> int:
        """Step the iterator until its batch is full, it suspends, or it ends."""
        batch = self._batch
        append = batch.append
        for _ in range(min(self._call.room, self._fitting) - len(batch)):
            try:
                step = advance()
            except StopAsyncIteration:
                return _ENDED
            try:
                trap = step.send(None)
            except StopIteration as stop:
                value = stop.value
                append(value)
                if value.__class__ in _SIZED and len(value) > _LARGE:
                    return _FULL
            except StopAsyncIteration:
                return _ENDED
            except AttributeError:
                if hasattr(step, "send"):
                    raise
                return self._collect_slowly(step)
            else:
                self._step, self._trap = step, trap
                return _SUSPENDED
        return _FULL

    def _collect_slowly(self, awaitable: Any) -> int:
        """One step of an iterator whose `__anext__` returns an awaitable without `send`."""
        step = stepper(awaitable)
        try:
            trap = step.send(None)
        except StopIteration as stop:
            self._batch.append(stop.value)
            return _FULL
        except StopAsyncIteration:
            return _ENDED
        self._step, self._trap = step, trap
        return _SUSPENDED

    # A sink's values -----------------------------------------------------------------------

    async def drive(self, coroutine: Any) -> Any:
        """Run a handler that sends into a sink; what it sent leaves whenever it suspends."""

        def run(method: Callable[[Any], Any], argument: Any) -> Any:
            self._stepping = True
            self._turn_began = perf_counter()
            return method(argument)

        def on_suspend() -> None:
            self._stepping = False
            self._flush_or_interrupt()

        try:
            return await run_stepped(coroutine, on_suspend, run)
        finally:
            self._stepping = False

    async def push(self, value: Any) -> None:
        """Send `value` once there is room for it. Once the consumer has gone, it goes nowhere.

        Where a batch cannot be sent the stream has ended, even if the handler goes on: values that seemed to
        be sent are gone, and nothing may follow what is missing. If `value` is all of it, it is just refused.
        """
        if self.invalid is not None:
            raise self.invalid
        self._alone = False
        try:
            await self._push(value)
        except ValidationFailed as failed:
            self.invalid = None if self._alone else failed
            raise
        except Exception as exc:
            self.error = None if self._alone else exc
            raise

    async def _push(self, value: Any) -> None:
        if self._full:
            await self._make_room()
        if self.over:
            await checkpoint()  # where the handler's cancellation finds it, unless it shields itself
            return
        self._batch.append(value)
        # Another task of the handler's may send while the handler itself is parked: nothing
        # would flush for it.
        if not self._stepping:
            self._alone = len(self._batch) == 1
            self.flush()
        elif self._full:
            self._alone = len(self._batch) == 1
            self._flush_full(self._turn_began)
        else:
            return
        self._alone = False
        await self._make_room()

    # What both share -----------------------------------------------------------------------

    @property
    def _full(self) -> bool:
        large = bool(self._batch) and self._batch[-1].__class__ in _SIZED and len(self._batch[-1]) > _LARGE
        return large or len(self._batch) >= min(self._call.room, self._fitting)

    @property
    def over(self) -> bool:
        """The consumer wants no more, or the channel ends. Raises why a value could not be sent."""
        if self.error is not None:
            raise self.error
        return self._call.stopping() or self._link.stopping

    def flush(self) -> None:
        """Send what is collected, as far as the credit goes. Raises NotSerializable and LimitExceeded."""
        if self.error is not None:
            raise self.error
        batch = self._batch
        if self._check is not None and self._checked < len(batch):
            self._validate(batch, self._check)
        if not batch or not self._call.room:
            return
        count = len(batch)
        try:
            size = self._link.connection.send_chunks(self._call, batch)
        except KkrpcError:
            batch.clear()
            raise
        except Exception as exc:
            batch.clear()
            raise InternalError("internal error") from exc
        finally:
            self._link.kick()
        count -= len(batch)
        self._checked = len(batch)
        self._since_turn += count
        self._place = None
        fitting = _FRAME_BYTES * count // size if size else 1
        self._fitting = max(1, min(self._fitting * 4, fitting, MAX_BATCH))

    def _validate(self, batch: list[Any], check: Callable[[list[Any]], list[Any]]) -> None:
        """Check what has not been checked; at the first value that is wrong the batch ends, and it raises."""
        try:
            batch[self._checked :] = check(batch[self._checked :])
        except ValidationFailed as failed:
            batch[self._checked :] = getattr(failed, "valid", ())
            raise
        finally:
            self._checked = len(batch)

    def _flush_full(self, began: float) -> None:
        """Flush a batch that was collected without a pause since `began`."""
        count, seconds = len(self._batch), perf_counter() - began
        self.flush()
        if seconds > _BATCH_SECONDS:
            self._fitting = max(1, min(self._fitting, int(count * _BATCH_SECONDS / seconds)))

    def _flush_or_interrupt(self) -> None:
        """Flush at the moment of suspension, where nothing may be raised."""
        try:
            self.flush()
        except ValidationFailed as failed:
            self.invalid = failed
            self._give_up()
        except Exception as exc:
            if self.error is None:
                self.error = exc  # nothing may follow what is missing
                self._give_up()

    def _give_up(self) -> None:
        self._interrupt()
        if self.gone is not None:
            self.gone()

    def credited(self) -> None:
        """The consumer has granted more."""
        self._flush_or_interrupt()
        self.wake()

    def leave(self) -> None:
        """The producer has ended, in whatever way: nothing of the channel's knows it any more."""
        self._link.forget(self.wake)

    def wake(self) -> None:
        """Something has changed for whoever waits here."""
        self._changed.wake()
        if self.gone is not None and (self._call.stopping() or self._link.stopping):
            self.gone()

    async def _make_room(self) -> None:
        """Wait until a value may be added: for credit, for the writer, for the other tasks' turn."""
        if self._since_turn >= _TURN or perf_counter() - self._turn_began > _TURN_SECONDS:
            self._since_turn = 0
            await checkpoint()
            self._turn_began = perf_counter()
        while not self.over:
            if len(self._batch) >= min(self._call.room, self._fitting):
                self.flush()
            if self._link.congested:
                self._place = self._link.when_clear(self.wake, self._place)
            elif len(self._batch) < self._call.room:
                return
            await self._change()

    async def drain(self) -> None:
        """Wait until all that was collected is sent, and there is room for what ends the stream."""
        self.flush()
        while self._batch and not self.over:
            await self._change()
        if self._link.congested:
            await self.clear()

    async def clear(self) -> None:
        """Wait for the writer as for a value: the stream's last word waits to be written with its values."""
        while self._link.congested and not self._call.stopping() and not self._link.stopping:
            self._place = self._link.when_clear(self.wake, self._place)
            await self._change()

    async def _change(self) -> None:
        """Wait until credit comes or the writer has caught up."""
        # On asyncio a task that is woken in each turn of the loop is never found waiting to be cancelled.
        await checkpoint_if_cancelled()
        await self._changed.wait()
