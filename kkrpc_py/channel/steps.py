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

Run: TypeAlias = Callable[[Callable[[Any], Any], Any], Any]
"""Makes one step, `send(value)` or `throw(error)`: in a context, or with something done around it."""


def _step(method: Callable[[Any], Any], argument: Any) -> Any:
    try:
        return method(argument)
    finally:
        del argument  # the traceback of what was thrown holds this frame


@types.coroutine
def finish(
    step: Any, trap: Any, on_suspend: Callable[[], None], run: Run = _step
) -> Generator[Any, Any, Any]:
    """Await the rest of `step`, a coroutine that was stepped as far as `trap`; returns its value.

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
            trap = run(step.send, sent) if thrown is None else run(step.throw, thrown)
        except StopIteration as stop:
            return stop.value
        finally:
            del thrown, sent  # the traceback holds this frame


async def run_stepped(step: Any, on_suspend: Callable[[], None], run: Run) -> Any:
    """Await the coroutine `step` from its beginning."""
    try:
        trap = run(step.send, None)
    except StopIteration as stop:
        return stop.value
    return await finish(step, trap, on_suspend, run)


def stepper(awaitable: Any) -> Any:
    """Something with `send` and `throw` that runs `awaitable`."""
    if hasattr(awaitable, "send"):
        return awaitable
    iterator = awaitable.__await__()
    return iterator if hasattr(iterator, "send") else _drain(iterator)


def _drain(iterator: Any) -> Generator[Any, Any, Any]:
    """A plain iterator, as `__await__` may return, with `send` and `throw`."""
    return (yield from iterator)
