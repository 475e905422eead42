"""Names of parametrized tests, the same in each process that collects them."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["shown"]

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def shown(value: Any) -> str:
    """Its `repr`, a string as it is: without where in memory something lies, and with sets in order."""
    if isinstance(value, str):
        return value
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__}({', '.join(sorted(map(shown, value)))})"
    return _ADDRESS.sub("", repr(value))
