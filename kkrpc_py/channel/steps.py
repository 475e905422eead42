"""Stepping a coroutine by hand, so that something can be done at the moment when it suspends.

A coroutine that is driven by `send(None)` either finishes or hands out a trap, which is for the
event loop. Between the two lies the lever of the hot path: what has been collected is written
when there is nothing more to do, without a timer. At that moment nothing may be awaited: the
trap must go to the loop unchanged and next (on trio anything else ends the process).
"""

from __future__ import annotations

import types
from collections.abc import Callable, Generator
from typing import Any, TypeAlias

__all__ = ["finish", "run_stepped", "stepper"]

Send: TypeAlias = Callable[[Any], Any]
Throw: TypeAlias = Callable[[BaseException], Any]


@types.coroutine
def finish(send: Send, throw: Throw, trap: Any, on_suspend: Callable[[], None]) -> Generator[Any, Any, Any]:
    """Await the rest of something that was stepped as far as `trap`; returns its value.

    `on_suspend` is called before each trap that goes to the loop, `trap` included.
    """
    while True:
        on_suspend()
        thrown: BaseException | None = None
        sent: Any = None
        try:
            sent = yield trap
        except BaseException as exc:
            thrown = exc
        try:
            # Thrown outside of the handler above: its traceback and context are its own.
            trap = send(sent) if thrown is None else throw(thrown)
        except StopIteration as stop:
            return stop.value


async def run_stepped(send: Send, throw: Throw, on_suspend: Callable[[], None]) -> Any:
    """Await what `send` and `throw` step, from its beginning."""
    try:
        trap = send(None)
    except StopIteration as stop:
        return stop.value
    return await finish(send, throw, trap, on_suspend)


def stepper(awaitable: Any) -> Any:
    """Something with `send` and `throw` that runs `awaitable`."""
    if hasattr(awaitable, "send"):
        return awaitable
    iterator = awaitable.__await__()
    return iterator if hasattr(iterator, "send") else _drain(iterator)


def _drain(iterator: Any) -> Generator[Any, Any, Any]:
    """A plain iterator, as `__await__` may return, with `send` and `throw`."""
    return (yield from iterator)
