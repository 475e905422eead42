"""The sending side of a channel: one task owns it, and whoever has something to say leaves it here.

This module owns writes, and the waiting of those who would send more than the peer reads. What is
written in which order is decided by `core.outbox`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from kkrpc_py.channel.parking import Parking
from kkrpc_py.core.connection import Connection

__all__ = ["Writer"]

_log = logging.getLogger("kkrpc_py")

_WRITE_BYTES = 1 << 18
_JOINED_BYTES = 1 << 16
"""Frames up to this size are joined into one write; larger ones are not worth the copy."""
_FEW_CALLS = 2
"""Up to so many calls in flight a frame is written at once, if that needs no waiting."""
_WORTH_A_WRITE = 4096
"""So many bytes are written at once too, while more come: the peer begins with them in the meantime."""
_STOCK_READ = 1 << 16
_WOKEN = 16
"""Of those who wait for room so many are woken at once: each may use up what there is."""


class Writer:
    """Writes what the connection's outbox holds. `run` is its task."""

    def __init__(self, stream: Any, connection: Connection, parking: Parking, preamble: bytes) -> None:
        self.finished = anyio.Event()
        """Nothing more is written: it was stopped, or the byte stream broke."""
        self.scope = anyio.CancelScope(shield=True)
        self._stream = stream
        self._connection = connection
        self._parking = parking
        self._preamble = preamble
        self._high_water = connection.limits.send_high_water
        self._send_nowait: Callable[[bytes], int] | None = getattr(stream, "send_nowait", None)
        # Of messages, which hold whole frames; the first one takes all of them or none.
        self._send_frames_nowait: Callable[[list[bytes]], bool] | None = getattr(
            stream, "send_frames_nowait", None
        )
        self._send_frames: Callable[[list[bytes]], Awaitable[None]] | None = getattr(
            stream, "send_frames", None
        )
        self._writes_at_once = bool(self._send_nowait or self._send_frames_nowait)
        self._untaken: list[bytes] = []
        self._unsent = b""
        self._stopping = False
        self._broken = False
        self._idle: Any = None
        """Where the task waits for something to write; None once it was woken."""
        self._sending = False
        """The task is at it, and looks for more when it is done; or it has ended."""
        self._wakes: dict[Callable[[], None], int] = {}
        """The producers that wait, each with its place: who was woken in vain comes before who was not."""
        self._places = 0
        self._queue: deque[Any] = deque()

    async def run(self) -> str:
        """Write until `stop`; returns why it could not go on, or an empty string."""
        reason = "the writer was cancelled"
        try:
            with self.scope:
                await self._write()
            reason = ""
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            reason = "the peer does not read any more"
        except Exception:
            _log.exception("the writer failed")
            reason = "the writer failed"
        finally:
            self._broken = bool(reason)
            self._sending = True
            self._connection.outbox.clear()
            self.finished.set()
        return reason

    def stop(self) -> None:
        """Write what is left, and end."""
        self._stopping = True
        self.wake_waiting()
        self.kick()

    def kick(self) -> None:
        """There is something to write."""
        connection = self._connection
        waiting = connection.outbox.size
        if self._sending or self._unsent or self._untaken or not (waiting or self._stopping):
            if self._broken:
                connection.outbox.clear()
            return
        # With little going on, a write of its own costs less than waking the task; with much going on,
        # one write for many frames does.
        if (
            waiting
            and self._writes_at_once
            and (
                waiting >= _WORTH_A_WRITE or len(connection.outgoing) + len(connection.incoming) <= _FEW_CALLS
            )
            and self._write_at_once()
            and not connection.outbox.size
            and not self._stopping
        ):
            self.relieve()
            return
        if self._idle is not None:
            idle, self._idle = self._idle, None
            self._parking.wake(idle)

    def _write_at_once(self) -> bool:
        """Write what can be written without waiting; the rest is the task's. True: that was all."""
        frames = self._connection.data_to_send(_WRITE_BYTES)
        try:
            if self._send_frames_nowait is not None:
                self._untaken = frames
                if self._send_frames_nowait(frames):
                    self._untaken = []
                return not self._untaken
            assert self._send_nowait is not None
            self._unsent = self._prepared(b"".join(frames))
            self._unsent = self._unsent[self._send_nowait(self._unsent) :]
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return False  # the task meets the same, and says so
        return not self._unsent

    async def _write(self) -> None:
        connection, stream = self._connection, self._stream
        while True:
            self._sending = True
            self.relieve()
            if self._unsent:
                unsent, self._unsent = self._unsent, b""
                await stream.send(unsent)
            frames, self._untaken = self._untaken or connection.data_to_send(_WRITE_BYTES), []
            self.relieve()  # there is room as soon as they are taken, however long the write lasts
            if frames:
                if self._send_frames is not None:
                    await self._send_frames(frames)
                    continue
                for data in _joined(frames):
                    await stream.send(self._prepared(data))
            elif self._stopping:
                return
            else:
                self._sending = False
                self._idle = self._parking.new()
                await self._idle

    def _prepared(self, data: bytes) -> bytes:
        """`data` as one write, which a stock reader bears too (FRM-10)."""
        if self._preamble:
            data, self._preamble = self._preamble + data, b""
        if len(data) % _STOCK_READ == 1 and self._connection.stock:
            # It reads so many bytes at a time, and drops a read that holds the last line feed alone.
            data = b" " + data
        return data

    # Those who wait for room ---------------------------------------------------------------

    @property
    def congested(self) -> bool:
        """Who produces a stream waits."""
        return self._broken or self._connection.outbox.size > self._high_water

    @property
    def control_congested(self) -> bool:
        """Who calls or answers waits.

        Streams are not counted: calls and answers leave ahead of them, and a producer that never waits would
        have filled what a slow peer took before anybody else looks.
        """
        return self._broken or self._connection.outbox.control_size > self._high_water

    def when_clear(self, wake: Callable[[], None], place: int | None) -> int:
        """Call `wake` once there is room for streams; returns its place, which it keeps until it has sent."""
        if place is None:
            place = self._places = self._places + 1
        self._wakes[wake] = place
        return place

    def forget(self, wake: Callable[[], None]) -> None:
        """Whoever waited with it has ended."""
        self._wakes.pop(wake, None)

    async def room_changed(self) -> None:
        """Wait until there may be room again; ask `control_congested` before and after."""
        await checkpoint_if_cancelled()
        place = self._parking.new()
        self._queue.append(place)
        try:
            await place
        except BaseException:
            if place in self._queue:
                self._queue.remove(place)
            raise
        finally:
            # Whoever was woken and sends nothing must not keep the next from being woken.
            self.relieve()

    def relieve(self) -> None:
        """Wake those who wait for room, if there is some: of a queue the first few, not all of it."""
        if self._queue and not self.control_congested:
            self._wake_queue(_WOKEN)
        if self._wakes and not self.congested:
            self._wake_producers()

    def wake_waiting(self) -> None:
        """Wake all of them: the channel ends."""
        self._wake_queue(len(self._queue))
        self._wake_producers()

    def _wake_queue(self, most: int) -> None:
        for _ in range(min(most, len(self._queue))):
            self._parking.wake(self._queue.popleft())

    def _wake_producers(self) -> None:
        wakes, self._wakes = self._wakes, {}
        for wake in sorted(wakes, key=wakes.__getitem__):
            wake()


def _joined(frames: list[bytes]) -> list[bytes]:
    """The frames as few writes; a large one goes by itself, uncopied."""
    if len(frames) == 1:
        return frames
    writes: list[bytes] = []
    small: list[bytes] = []
    for frame in frames:
        if len(frame) <= _JOINED_BYTES:
            small.append(frame)
            continue
        if small:
            writes.append(b"".join(small))
            small = []
        writes.append(frame)
    if small:
        writes.append(b"".join(small))
    return writes
