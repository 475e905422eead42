"""Named streams, uploads, events and shared states: section 20 to 23 of the specification, on plain calls."""

from typing import Final

__all__ = ["DEFAULT_PATH", "HIGH_WATER_MARK"]

DEFAULT_PATH: Final = "streams"
"""Where a hub is found if nothing else is said (NST-1)."""
HIGH_WATER_MARK: Final = 256
"""Chunks that may wait for somebody slow, if nothing else is said."""
