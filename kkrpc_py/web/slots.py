"""How many event streams there may be at once (SSE-9), and who holds a place among them.

A place belongs to a connection, or to a handler that goes on for a client that is away. It is handed on
between the two, so that who comes back needs no new one.
"""

from __future__ import annotations

from collections.abc import Callable

from anyio import Event, move_on_after

from kkrpc_py.errors import ActionError
from kkrpc_py.web.answers import TOO_MANY_STREAMS

__all__ = ["Slot", "Slots"]

_WAY_SECONDS = 1.0
"""What a handler that gives way gets for its cleanup, before a new client is refused."""


class Slot:
    """A place, or none: it may have been given back, or taken over."""

    __slots__ = ("_slots",)

    def __init__(self, slots: Slots | None = None) -> None:
        self._slots = slots

    @property
    def held(self) -> bool:
        return self._slots is not None

    def take_over(self, other: Slot) -> None:
        """Hold the place of `other`, which has none any more."""
        self.release()
        self._slots, other._slots = other._slots, None

    def release(self) -> None:
        """Give the place back; once more does nothing."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.give_back()


class Slots:
    """The places of one application.

    :param give_way: has somebody whom nobody waits for give up its place soon; False: there is nobody.
    """

    def __init__(self, most: int, give_way: Callable[[], bool]) -> None:
        self.taken = 0
        self._most = most
        self._give_way = give_way
        self._given_back = Event()

    async def take(self) -> Slot:
        """A place. Raises ActionError: TOO_MANY_STREAMS."""
        if self.taken >= self._most and self._give_way():
            with move_on_after(_WAY_SECONDS):
                while self.taken >= self._most:
                    self._given_back = Event()
                    await self._given_back.wait()
        if self.taken >= self._most:
            raise ActionError(TOO_MANY_STREAMS, "Too many streams at once", 503)
        self.taken += 1
        return Slot(self)

    def give_back(self) -> None:
        self.taken -= 1
        self._given_back.set()
