"""How much memory a value takes that a peer has sent; what waits to be read is bounded by it."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["size_of"]

_CONTAINERS = (dict, list, tuple, set, frozenset)


def size_of(value: Any) -> int:
    """Bytes, about, in time that is linear in the value."""
    total, rest = 0, [value]
    seen: set[int] = set()  # superjson can make one list out of two, and a value that holds itself
    while rest:
        item = rest.pop()
        total += sys.getsizeof(item, 64)
        if isinstance(item, _CONTAINERS) and id(item) not in seen:
            seen.add(id(item))
            rest += item
            if isinstance(item, dict):
                rest += item.values()
    return total
