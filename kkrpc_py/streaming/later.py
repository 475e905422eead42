"""Something to be done after a while, if nobody changes his mind; owned by the event loop itself.

What a hub forgets after a while it must forget though nothing else happens, and a hub has no task group.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from anyio.lowlevel import current_token

__all__ = ["call_later"]


def call_later(seconds: float, function: Callable[[], None]) -> Callable[[], None]:
    """Call `function`, which raises nothing, on the running loop; returns what calls it off."""
    native: Any = current_token().native_token
    if hasattr(native, "call_later"):
        cancel: Callable[[], None] = native.call_later(seconds, function).cancel
        return cancel
    import trio

    # A system task ends with the loop, and crashes it if it fails.
    scope = trio.CancelScope()
    trio.lowlevel.spawn_system_task(functools.partial(_wait, scope, seconds, function))
    return scope.cancel


async def _wait(scope: Any, seconds: float, function: Callable[[], None]) -> None:
    import trio

    with scope:
        await trio.sleep(seconds)
        function()
