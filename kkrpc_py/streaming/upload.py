"""`Upload`: what a client holds that uploads (UPL).

`_Sending` is the upload on the channel's side: what waits to be sent, the call that takes it, and what became
of it. It does not know the `Upload`, so that one that is dropped is noticed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable
from types import TracebackType
from typing import Any, TypeVar

import anyio
from anyio.lowlevel import checkpoint
from msgspec import UNSET

from kkrpc_py.channel.call import Call, CallOptions
from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.channel.parking import Signal
from kkrpc_py.channel.signals import CancelSignal
from kkrpc_py.core.hello import STREAM_ARGUMENTS
from kkrpc_py.errors import (
    CallCancelled,
    ChannelClosed,
    ErrorValue,
    LimitExceeded,
    NotSerializable,
    StreamClosed,
    WouldBlock,
    error_from_wire,
    error_to_wire,
)
from kkrpc_py.streaming.producing import Producing
from kkrpc_py.wire.shared import Shared, SharedWriter

__all__ = ["Upload"]

T_contra = TypeVar("T_contra", contravariant=True)

_TURN = 64
"""Chunks that are sent without a wait before the other tasks get their turn."""


class Upload(Producing[T_contra]):
    """Sends chunks to the reader of an id that the other side has given; made by `streams(…).upload`.

    It begins at once, and goes on by itself: what `write` has taken is sent as the reader takes it, without
    loss, as long as the channel lives. `signal` is set when the reader wants no more, the other side refuses,
    or the channel is closed. An upload that is dropped before its end fails, for the reader too.
    """

    def __init__(
        self, channel: RPCChannel, path: str, name: str, id: str, high_water_mark: int = 256
    ) -> None:
        """`path` is where the hub is exposed. Raises ChannelClosed, and ValueError for a mark below one."""
        if type(high_water_mark) is not int or high_water_mark < 1:
            raise ValueError(f"high_water_mark is one or more chunks, not {high_water_mark!r}")
        channel.check_open()
        super().__init__(id)
        self.name = name
        """The channel's, as the id is."""
        self._sending = _Sending(channel, path, name, id, self.signal)
        self._most = high_water_mark
        self._most_bytes = channel.limits.stream_buffer
        self._since_turn = 0
        self._sending.begin()

    @property
    def closed(self) -> bool:
        return self._sending.closed

    def write(self, value: T_contra) -> None:
        """Take a copy of `value` and send it as soon as the reader has room.

        Raises WouldBlock where `high_water_mark` chunks wait, NotSerializable and LimitExceeded for what
        cannot be sent, StreamClosed after the end, and what the other side refused the upload with.
        """
        sending = self._sending
        if sending.closed:
            sending.check_open()
        if len(sending.waiting) >= self._most:
            raise WouldBlock(f"{self._most} chunks wait to be sent (high_water_mark)")
        sending.put(sending.share(value))

    async def send(self, item: T_contra) -> None:
        """As `write`, but waits for room: while `Limits.stream_buffer` bytes wait, too.

        A `send` that is cancelled has sent nothing. Where there is room, not each one is a checkpoint.
        """
        sending = self._sending
        self._since_turn += 1
        if self._since_turn >= _TURN:
            self._since_turn = 0
            await checkpoint()
        if sending.closed:
            await sending.check_open_soon()
        chunk = sending.share(item)
        while len(sending.waiting) >= self._most or (sending.waiting and sending.bytes >= self._most_bytes):
            self._since_turn = 0
            await sending.changed.wait()
            if sending.closed:
                await sending.check_open_soon()
        sending.put(chunk)

    async def wait_room(self) -> None:
        """Wait until `write` may find room, or the end."""
        sending = self._sending
        while len(sending.waiting) >= self._most and not sending.closed:
            await sending.changed.wait()

    def error(self, exc: BaseException | str) -> None:
        """End it: after what was written, the reader's loop raises that error. Nothing after the end."""
        if isinstance(exc, str):
            self._sending.fail(ErrorValue("Error", exc))
        elif isinstance(exc, anyio.get_cancelled_exc_class()):
            self._sending.fail(
                error_to_wire(CallCancelled("the upload was cancelled by the side that uploads"))
            )
        else:
            self._sending.fail(error_to_wire(exc))

    def close(self) -> None:
        """End it: the reader's loop ends after what was written. Does not wait for it; `aclose` does."""
        self._sending.close()

    async def aclose(self) -> None:
        """End it, and wait until the reader has met the end.

        Raises StreamClosed where the reader has cancelled, what the other side has refused or met, and
        ChannelClosed. Cancelled, it gives the upload up: the reader's loop fails, unless it has all. After
        `error` it waits and raises nothing of it.
        """
        sending = self._sending
        sending.close()
        try:
            while not sending.over:
                await sending.changed.wait()
            await checkpoint()
        except BaseException:
            sending.give_up()
            raise
        sending.check_outcome()

    async def pipe_from(self, source: AsyncIterable[T_contra]) -> None:
        """Send what `source` yields, and close; `aclose` waits until the reader has it all.

        Where the reader wants no more, `source` is cancelled and closed, and this returns. What `source`
        raises becomes the upload's error and is raised here too; so is what the other side refuses it with.
        """
        await super().pipe_from(source)
        await self._sending.answer()
        self._sending.check_refusal()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is None:
            await self.aclose()
        else:
            self.error(exc)

    def __repr__(self) -> str:
        return f"<Upload to {self.name!r} {'closed' if self.closed else 'open'}>"

    def __del__(self) -> None:
        sending = getattr(self, "_sending", None)
        if sending is not None and not sending.closed:
            sending.channel.post(sending.dropped)


class _Sending:
    """One upload, from its beginning until the other side has answered."""

    def __init__(self, channel: RPCChannel, path: str, name: str, id: str, signal: CancelSignal) -> None:
        self.channel = channel
        self.waiting: deque[Shared] = deque()
        self.bytes = 0
        """Those of the chunks that wait."""
        self.changed = Signal(channel.parking)
        self.closed = False
        """Nothing can be sent any more: this side has ended it, or the other one."""
        self.over = False
        """The other side has answered, or never will."""
        self.failure: ErrorValue | None = None
        """What this side ended it in."""
        self._path = path
        self._name = name
        self._id = id
        self._signal = signal
        self._writer = SharedWriter(channel.limits, channel.encode)
        self._ended = False
        """This side has nothing more to send."""
        self._end_sent = False
        self._unwanted = False
        """The stream was stopped before its end."""
        self._outcome: Exception | None = None

    # From the application ------------------------------------------------------------------

    def begin(self) -> None:
        self.channel.when_closed(self._lost)
        self.channel.portal.start(self._run)

    def check_open(self) -> None:
        """Raises why nothing can be sent any more."""
        if self._ended:
            raise StreamClosed("the upload was closed")
        self.check_refusal()
        if self._unwanted or self.over:
            raise StreamClosed("the other side reads no more of the upload")

    async def check_open_soon(self) -> None:
        """The same, once it is known why."""
        await self.answer()
        self.check_open()

    async def answer(self) -> None:
        """Where nobody takes more chunks, wait until the other side has said why."""
        while self._unwanted and not self.over:
            await self.changed.wait()

    def check_outcome(self) -> None:
        """Raises what the other side has made of it, unless that is this side's own error."""
        if self._outcome is not None and self.failure is None:
            raise self._outcome.with_traceback(None)

    def check_refusal(self) -> None:
        """The same, but for a reader that wants no more."""
        if not isinstance(self._outcome, StreamClosed):
            self.check_outcome()

    def share(self, value: Any) -> Shared:
        return self._writer.share(value)

    def put(self, chunk: Shared) -> None:
        self.waiting.append(chunk)
        self.bytes += chunk.size
        self.changed.wake()

    def close(self) -> None:
        self.closed = self._ended = True
        self.changed.wake()

    def fail(self, error: ErrorValue) -> None:
        if not self.closed:
            self.failure = error
            self.close()

    def give_up(self) -> None:
        """The end is not waited for: what has not been sent is not, and the reader is told, if it can be."""
        if not self._end_sent and not self.over and self.failure is None:
            self._clear()
            self.failure = error_to_wire(CallCancelled("the upload was cancelled by the side that uploads"))
            self.close()

    def dropped(self) -> None:
        """Nobody can end it any more."""
        self.fail(error_to_wire(CallCancelled("the upload was dropped before its end")))

    # To the other side ---------------------------------------------------------------------

    async def next_chunk(self) -> Shared:
        """Raises StopAsyncIteration at the end, and what this side ended it in."""
        while not self.waiting:
            if self._ended:
                self._end_sent = True
                if self.failure is not None:
                    raise error_from_wire(self.failure)
                raise StopAsyncIteration
            await self.changed.wait()
        chunk = self.waiting.popleft()
        self.bytes -= chunk.size
        self.changed.wake()
        return chunk

    def stop(self) -> None:
        """Nobody takes more chunks."""
        if not self._end_sent and not self._unwanted:
            self.closed = self._unwanted = True
            self._clear()
            self._signal.set()
            self.changed.wake()

    async def _run(self) -> None:
        """A task of the channel's: it ends with the upload."""
        try:
            await self._upload()
        except Exception as exc:
            self._finish(exc)
        except BaseException:
            self._lost()
            raise
        else:
            self._finish(None)

    async def _upload(self) -> None:
        channel = self.channel
        if channel.connection.pending:
            await channel.settled()
        if STREAM_ARGUMENTS in (channel.connection.agreed or ()):
            await self._call("stream", self._name, self._id, _Chunks(self))
        else:
            await self._by_calls()

    async def _by_calls(self) -> None:
        """For a peer that takes no stream arguments: one call after the other, each waits for room."""
        number = 0
        try:
            async for chunk in _Chunks(self):
                number += 1
                await self._call("write", self._id, number, chunk.value)
        except (NotSerializable, LimitExceeded) as exc:  # a chunk that this peer cannot be sent
            await self._tell(error_to_wire(exc))
            raise
        except Exception:
            if not self._end_sent or self.failure is None:
                raise
            await self._tell(self.failure)
        else:
            await self._call("close", self._id)

    async def _tell(self, error: ErrorValue) -> None:
        text = {"name": error.name, "message": error.message}
        cause = {} if error.cause is UNSET else {"cause": error.cause}
        try:
            await self._call("error", self._id, {**error.fields, **cause, **text})
        except NotSerializable:
            await self._call("error", self._id, text)

    def _call(self, method: str, *args: Any) -> Call[Any]:
        options = CallOptions(timeout=None)  # it takes as long as the reader does
        path = f"{self._path}.upload.{method}" if self._path else f"upload.{method}"
        return Call(self.channel, path, list(args), options)

    def _lost(self) -> None:
        """The channel is closed, or its tasks are cancelled."""
        try:
            self.channel.check_open()
        except ChannelClosed as closed:
            self._finish(closed)
        else:
            self._finish(CallCancelled("the upload was cancelled"))

    def _finish(self, outcome: Exception | None) -> None:
        if self.over:
            return
        self.closed = self.over = True
        if outcome is None and not self._end_sent:
            outcome = StreamClosed("the other side has ended the upload")
        self._outcome = None if outcome is None else outcome.with_traceback(None)
        self.channel.forget_closed(self._lost)
        if outcome is not None and (not self._end_sent or self.failure is None):
            self._clear()
            self._signal.set()
        self.changed.wake()

    def _clear(self) -> None:
        self.waiting.clear()
        self.bytes = 0


class _Chunks:
    """What the channel reads. It is closed when nobody wants more of it, as each producer's iterator is."""

    __slots__ = ("_sending",)

    def __init__(self, sending: _Sending) -> None:
        self._sending = sending

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> Shared:
        return await self._sending.next_chunk()

    async def aclose(self) -> None:
        self._sending.stop()
