"""What the figures were measured on, as far as it matters to them, and how quiet that machine was."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

PACKAGES = ["kkrpc-py", "anyio", "msgspec", "cbor2", "trio", "uvloop", "grpcio", "rpyc"]
_LOOP_STEPS = 1_000_000


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def system() -> str:
    """The kernel's name and the number of its release; what its builder added says who that was."""
    number = re.match(r"[\d.]*\d", platform.release())
    return f"{platform.system()} {number[0] if number else ''}".rstrip()


def described() -> dict[str, Any]:
    """CPU, cores, Python and kernel; no name and no path of the machine."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": system(),
    }


def versions() -> dict[str, str]:
    """What is installed of those that are measured."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if node := shutil.which("node"):
        found["node"] = subprocess.run([node, "--version"], capture_output=True, text=True).stdout.strip()
    return found


def fixed_work_seconds() -> float:
    """The time of a loop that is always the same: what varies in it is the machine."""
    began = time.perf_counter()
    total = 0
    for i in range(_LOOP_STEPS):
        total += i & 0xFF
    return time.perf_counter() - began


def noise(samples: list[float]) -> float:
    """How far the slowest of the same work lay above the median: 0.1 is 10 %."""
    return max(samples) / statistics.median(samples) - 1
