"""`CancelSignal`: how a producer learns that nobody wants what it produces."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from typing import Any

import anyio

__all__ = ["CancelSignal"]

_log = logging.getLogger("kkrpc_py")


class CancelSignal:
    """Set once, for good. A flag, something to wait for, and an event that calls back.

    ::

        while not stream.signal.cancelled:
            stream.write(await next_token())
    """

    __slots__ = ("_callbacks", "_event")

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._callbacks: dict[Callable[[], object], None] = {}

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def is_set(self) -> bool:
        """The same as `cancelled`, as events have it."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Wait until it is set."""
        await self._event.wait()

    def __await__(self) -> Generator[Any, Any, None]:
        return self.wait().__await__()

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call `callback` when it is set: at once if it is. What it raises is logged."""
        if self.cancelled:
            _call(callback)
        else:
            self._callbacks[callback] = None

    def forget(self, callback: Callable[[], object]) -> None:
        """Do not call `callback` any more."""
        self._callbacks.pop(callback, None)

    def set(self) -> None:
        """Nobody wants any more: for those who hand the signal out."""
        if not self.cancelled:
            self._event.set()
            callbacks, self._callbacks = self._callbacks, {}
            for callback in callbacks:
                _call(callback)

    def __repr__(self) -> str:
        return f"<CancelSignal {'cancelled' if self.cancelled else 'not cancelled'}>"


def _call(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:
        _log.exception("a callback of a cancel signal failed")
