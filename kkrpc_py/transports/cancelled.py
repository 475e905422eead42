"""`is_cancelled`: whose cancellation it is that came out of an await."""

from __future__ import annotations

import asyncio

import anyio

__all__ = ["is_cancelled"]


def is_cancelled(exc: BaseException) -> bool:
    """Whether this is the cancellation of the current task, and none that it met elsewhere.

    On asyncio whoever awaits a task that somebody else has cancelled gets its CancelledError. Let through, it
    would end what belongs to others.
    """
    if not isinstance(exc, anyio.get_cancelled_exc_class()):
        return False
    if not isinstance(exc, asyncio.CancelledError):
        return True
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
