"""Frames waiting to be written, and the order in which they leave.

Two lanes (CLS-4): everything but stream frames is one first-in-first-out lane that goes ahead;
stream frames keep their order within a stream, and the streams take turns, one frame each.
"""

from __future__ import annotations

from collections import deque

__all__ = ["Carrying", "Outbox", "StreamLane"]


class Carrying(bytes):
    """A frame that names functions or streams: the peer must get it, to give them back (CBK-6)."""

    held: tuple[StreamLane, ...] = ()
    """The lanes of the streams that it names: nothing of theirs may come before it."""


class StreamLane:
    """The frames of one stream; None while there are none, since an empty deque is no small thing."""

    __slots__ = ("frames", "held")

    def __init__(self) -> None:
        self.frames: deque[bytes] | None = None
        self.held = False
        """The frame that names the stream has not left."""


class Outbox:
    """`size` is the bytes of all frames that have not been taken, `control_size` those of the first lane."""

    __slots__ = ("_control", "_turns", "control_size", "size")

    def __init__(self) -> None:
        self._control: deque[bytes] = deque()
        self._turns: deque[StreamLane] = deque()
        self.size = 0
        self.control_size = 0

    @staticmethod
    def hold(frame: Carrying, lanes: tuple[StreamLane, ...]) -> None:
        """Keep what is put in `lanes` until `frame`, which is yet to be put somewhere, has been taken."""
        frame.held = lanes
        for lane in lanes:
            lane.held = True

    def put(self, frame: bytes) -> None:
        self._control.append(frame)
        self.size += len(frame)
        self.control_size += len(frame)

    def put_in(self, lane: StreamLane, frame: bytes) -> None:
        if lane.frames is None:
            lane.frames = deque((frame,))
            if not lane.held:
                self._turns.append(lane)
        else:
            lane.frames.append(frame)
        self.size += len(frame)

    def drop(self, lane: StreamLane) -> None:
        """Forget what `lane` still holds: its consumer has said that it reads no more."""
        if lane.frames is None:
            return
        carrying: deque[bytes] = deque(frame for frame in lane.frames if type(frame) is Carrying)
        self.size -= sum(map(len, lane.frames)) - sum(map(len, carrying))
        if carrying:
            lane.frames = carrying
        else:
            if not lane.held:
                self._turns.remove(lane)
            lane.frames = None

    def clear(self) -> None:
        self._control.clear()
        for lane in self._turns:
            lane.frames = None
        self._turns.clear()
        self.size = self.control_size = 0

    def take(self, most: int) -> list[bytes]:
        """Frames to write next, whole ones, `most` bytes and one frame at the most."""
        taken: list[bytes] = []
        size = 0
        control, turns = self._control, self._turns
        while size < most:
            if control:
                frame = control.popleft()
                self.control_size -= len(frame)
            elif turns:
                lane = turns.popleft()
                assert lane.frames is not None
                frame = lane.frames.popleft()
                if lane.frames:
                    turns.append(lane)
                else:
                    lane.frames = None
            else:
                break
            if type(frame) is Carrying:
                for lane in frame.held:
                    lane.held = False
                    if lane.frames is not None:
                        turns.append(lane)
            taken.append(frame)
            size += len(frame)
        self.size -= size
        return taken
