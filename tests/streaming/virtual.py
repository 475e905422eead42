"""Time that passes only when everybody waits for it: for asyncio a loop, for trio its own mock clock.

This module owns no test. Nothing but timers may wake a test that runs so: no thread, no descriptor.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop that skips what it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        select = self._selector.select

        def skip(timeout: float | None = None) -> Any:
            events = select(0)
            if not events and timeout != 0:
                assert timeout is not None, "nobody will ever wake: every task waits for another one"
                self._now += timeout
            return events

        self._selector.select = skip

    def time(self) -> float:
        return self._now


def backend(name: str) -> tuple[str, dict[str, Any]]:
    """An `anyio_backend` of virtual time."""
    if name == "asyncio":
        return (name, {"loop_factory": VirtualClockLoop})
    testing = pytest.importorskip("trio.testing")
    return (name, {"clock": testing.MockClock(autojump_threshold=0)})
