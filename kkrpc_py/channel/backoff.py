"""`Backoff`: how long a link waits before it tries again.

It owns the arithmetic and what counts as a failure. It knows no clock and no task; chance is given to it.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    """Delays that grow from one failure in a row to the next, up to a bound.

    A connection that was up for less than the delay before it is a failure as well: a server that accepts and
    dies at once is asked ever more seldom.
    """

    def __init__(
        self,
        initial_delay: float,
        max_delay: float,
        factor: float,
        jitter: float,
        random: Callable[[], float],
    ) -> None:
        """`random` gives numbers from 0 to 1; `jitter` is the part of a delay that is left to it."""
        if not 0 < initial_delay <= max_delay < float("inf"):
            raise ValueError(
                "initial_delay and max_delay are seconds above zero, the second one no less than the first, "
                f"not {initial_delay!r} and {max_delay!r}"
            )
        if not 1 <= factor < float("inf"):
            raise ValueError(f"factor is one or more, not {factor!r}")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter is between 0 and 1, not {jitter!r}")
        self._initial = initial_delay
        self._max = max_delay
        self._factor = factor
        self._jitter = jitter
        self._random = random
        self._base = initial_delay
        self.failures = 0
        """In a row: attempts that led to no connection that lasted."""

    def failed(self) -> None:
        """An attempt failed."""
        self.failures += 1
        if self.failures > 1:
            self._base = min(self._base * self._factor, self._max)

    def lost(self, uptime: float) -> None:
        """A connection is lost that was up for `uptime` seconds."""
        if uptime < self._base:
            self.failed()
        else:
            self.failures = 0
            self._base = self._initial

    def delay(self) -> float:
        """Seconds to wait before the next attempt."""
        return self._base * (1 - self._jitter * self._random())
