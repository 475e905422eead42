"""From an input to the end of an action's handler: check, middleware, handler.

This module owns what of an action's errors its caller sees, and when the handler's signal is set. It knows no
transport: chunks go to an outlet.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from kkrpc_py.actions.context import ActionContext
from kkrpc_py.actions.stream import ActionStream, Outlet
from kkrpc_py.channel.signals import CancelSignal
from kkrpc_py.errors import ActionError
from kkrpc_py.transports.cancelled import is_cancelled

if TYPE_CHECKING:
    from kkrpc_py.actions.action import Action

__all__ = ["BoundAction", "PreparedAction"]

_log = logging.getLogger("kkrpc_py.actions")


class BoundAction:
    """An action under the name it is served by, with the object that its handler may be a method of."""

    def __init__(self, action: Action, owner: tuple[Any, ...], name: str) -> None:
        self.action = action
        self.name = name
        self._owner = owner

    async def prepare(self, raw: Any, ctx: ActionContext, *, text: bool = False) -> PreparedAction:
        """Check `raw` and run the middleware; nothing has been sent by then.

        :param text: the values are strings of a query, whose types are lost.

        Raises ActionError, whatever went wrong.
        """
        ctx.metadata = self.action.metadata
        ctx.input = self.action.read(raw, text)
        for middleware in self.action.middleware:
            await self.guarded(middleware(ctx))
        return PreparedAction(self, ctx)

    def handle(self, ctx: ActionContext, stream: ActionStream[Any]) -> Awaitable[Any]:
        """Begin the handler."""
        return self.action.handler(*self._owner, ctx.input, ctx, stream)

    async def guarded(self, running: Awaitable[Any]) -> None:
        """Wait for the application's code. What it did not mean for the caller is logged, and kept."""
        try:
            await running
        except BaseException as exc:
            passing = _passing(exc)
            if passing is exc:
                raise
            if passing is None and (meant := _meant(exc)) is not None:
                raise meant from None
            _log.exception("the action %r failed", self.name)
            if passing is not None:
                raise passing from None
            raise ActionError.unexpected() from None


def _passing(exc: BaseException) -> BaseException | None:
    """What goes on through this code: the cancellation, alone where a task group has put errors beside it."""
    if isinstance(exc, BaseExceptionGroup):
        return next((part for part in map(_passing, exc.exceptions) if part is not None), None)
    passes = isinstance(exc, KeyboardInterrupt | GeneratorExit) or is_cancelled(exc)
    return exc if passes else None


def _meant(exc: BaseException) -> ActionError | None:
    """The error that is for the caller: a task group of the handler's wraps the one that it was left by."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc if isinstance(exc, ActionError) else None


class PreparedAction:
    """An action that nobody has refused: its handler may run."""

    def __init__(self, bound: BoundAction, ctx: ActionContext) -> None:
        self.ctx = ctx
        self.signal = CancelSignal()
        """To be set, before the handler is cancelled, by whoever finds the consumer gone."""
        self._bound = bound

    async def run(self, outlet: Outlet) -> None:
        """Run the handler to its end; its chunks go to `outlet`. Raises ActionError, whatever went wrong."""
        stream: ActionStream[Any] = ActionStream(outlet, self.signal)
        try:
            await self._bound.guarded(self._run(stream))
        finally:
            stream.closed = True
            self.signal.set()

    async def _run(self, stream: ActionStream[Any]) -> None:
        await self._bound.handle(self.ctx, stream)
        await stream.close()


Reader = Callable[[Any, bool], Any]
"""`read(raw, text)`: the input as the handler takes it. Raises ActionError."""
