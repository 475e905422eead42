"""How much memory this process holds now; where the system does not say so, the most it ever held."""

from __future__ import annotations

import gc
import os
import resource
import sys
from pathlib import Path

_STATM = Path("/proc/self/statm")
MEASURE = "resident set (/proc/self/statm)" if _STATM.exists() else "highest resident set (getrusage)"
"""What `resident` returns here, in words."""


def resident() -> int:
    """Bytes, after a collection, so that garbage of the measurement itself does not count."""
    gc.collect()
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024
