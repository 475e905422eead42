"""How a task waits until another task of the same loop has something for it.

`anyio.Event` does this as well and is used wherever it is seldom; it costs several times what
the rest of a small call does. This module owns the two ways of the event loops to park one task and
nothing more: no order, no fairness, no threads.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Generator
from typing import Any, Protocol

from anyio.lowlevel import current_token

__all__ = ["Parking", "Signal", "current_parking"]


class Parking(Protocol):
    """One event loop's way to park a task."""

    def new(self) -> Awaitable[None]:
        """A place, where one task waits once by awaiting it; not at all where `wake` came first."""
        ...

    def wake(self, place: Any) -> None:
        """Let the task at `place` go on. More than once, or after its cancellation, it does nothing."""
        ...


class _AsyncioParking:
    __slots__ = ("_future",)

    def __init__(self, loop: Any) -> None:
        import asyncio

        self._future = functools.partial(asyncio.Future, loop=loop)

    def new(self) -> Awaitable[None]:
        return self._future()

    def wake(self, place: Any) -> None:
        if not place.done():
            place.set_result(None)


class _TrioPlace:
    __slots__ = ("_lowlevel", "_task", "_woken")

    def __init__(self, lowlevel: Any) -> None:
        self._lowlevel = lowlevel
        self._task: Any = None
        self._woken = False

    def __await__(self) -> Generator[Any, Any, None]:
        if not self._woken:
            self._task = self._lowlevel.current_task()
            yield from self._lowlevel.wait_task_rescheduled(self._abort).__await__()

    def _abort(self, raise_cancel: Any) -> Any:
        self._task = None
        return self._lowlevel.Abort.SUCCEEDED

    def wake(self) -> None:
        self._woken = True
        task, self._task = self._task, None
        if task is not None:
            self._lowlevel.reschedule(task)


class _TrioParking:
    __slots__ = ("_lowlevel",)

    def __init__(self) -> None:
        from trio import lowlevel

        self._lowlevel = lowlevel

    def new(self) -> Awaitable[None]:
        return _TrioPlace(self._lowlevel)

    def wake(self, place: Any) -> None:
        place.wake()


def current_parking() -> Parking:
    """The `Parking` of the running event loop."""
    native: Any = current_token().native_token
    return _AsyncioParking(native) if hasattr(native, "call_soon_threadsafe") else _TrioParking()


class Signal:
    """Tells those who wait, any number of tasks, that something has changed: they look what it is."""

    __slots__ = ("_parking", "_waiting")

    def __init__(self, parking: Parking) -> None:
        self._parking = parking
        self._waiting: tuple[Any, ...] = ()

    async def wait(self) -> None:
        """Wait for the next `wake`."""
        place = self._parking.new()
        self._waiting += (place,)
        try:
            await place
        except BaseException:
            self._waiting = tuple(other for other in self._waiting if other is not place)
            raise

    def wake(self) -> None:
        """Let all those who wait now go on."""
        if self._waiting:
            waiting, self._waiting = self._waiting, ()
            for place in waiting:
                self._parking.wake(place)
