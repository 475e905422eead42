"""Interceptors: an onion around every handler.

This module owns the shape of the onion. What the innermost call does, and what becomes of the
result, is `channel.dispatch`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

__all__ = ["CallContext", "Interceptor", "Next", "wrap"]


class CallContext:
    """One incoming call, as the interceptors see it."""

    __slots__ = ("args", "kind", "kwargs", "local", "meta", "method", "state")

    def __init__(
        self,
        method: str,
        args: list[Any],
        kwargs: dict[str, Any] | None = None,
        meta: dict[str, Any] | None = None,
        kind: str = "call",
        local: bool = False,
    ) -> None:
        self.method = method
        """The dotted path that was called, or of the property."""
        self.kind = kind
        """"call", "get", "set" (whose one argument is the value) or "construct"."""
        self.args = args
        """Positional arguments; an interceptor may change or replace the list."""
        self.kwargs: dict[str, Any] = kwargs if kwargs is not None else {}
        """Keyword arguments; an interceptor may add some."""
        self.state: dict[str, Any] = {}
        """For the interceptors to leave things in for each other."""
        self.meta: dict[str, Any] = meta if meta is not None else {}
        """What the caller sent along. It is as trustworthy as the caller."""
        self.local = local
        """Called by this side itself, in the caller's own context (`RPCChannel.invoke_local`)."""


Next: TypeAlias = Callable[[], Awaitable[Any]]
"""Runs the rest of the onion and returns the handler's result: for a stream, the iterable."""
Interceptor: TypeAlias = Callable[[CallContext, Next], Awaitable[Any]]


def wrap(
    interceptors: Sequence[Interceptor], ctx: CallContext, innermost: Next, seen: Callable[[Any], None]
) -> Awaitable[Any]:
    """Run `innermost` inside all of `interceptors`, the first of them outermost.

    `seen` is told each layer's result, innermost first: whoever wrapped a stream may have kept
    the inner one to itself, and it must be closed all the same.
    """

    async def layer(index: int) -> Any:
        if index == len(interceptors):
            result = await innermost()
        else:
            result = await interceptors[index](ctx, lambda: layer(index + 1))
        seen(result)
        return result

    return layer(0)
