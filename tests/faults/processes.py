"""What the fault tests share: how a child is started, what this process still holds. It owns no test."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio
import sniffio

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CHILD = HERE / "child.py"
BOUND = 30.0

LINUX = sys.platform == "linux"


def environment() -> dict[str, str]:
    """The environment of this process, in which `kkrpc_py` can be imported."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def command(role: str = "serve", backend: str = "asyncio") -> list[str]:
    return [sys.executable, str(CHILD), role, backend]


def descriptors() -> set[str]:
    """Open descriptors of this process, and where they lead."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:  # the one that listed the directory
            continue
    return found


def children() -> set[int]:
    """Processes whose parent is this one, zombies among them."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit() and _stat(int(name))[1] == os.getpid():
            found.add(int(name))
    return found


def _stat(pid: int) -> tuple[str, int]:
    """State and parent of a process; ("", 0) for none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", 0
    state, parent = text.rpartition(")")[2].split()[:2]
    return state, int(parent)


def alive(pid: int) -> bool:
    """Runs still. One that is dead and waits for whoever inherited it to reap it does not."""
    return _stat(pid)[0] not in ("", "Z", "X")


async def gone(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        await anyio.sleep(0.01)
    return True


class Holdings:
    """What this process holds now; `unchanged` waits until it holds no more than that."""

    def __init__(self) -> None:
        self.before = self._now()

    @staticmethod
    def _now() -> dict[str, Iterable[Any]]:
        # Those of trio are its test runner's own.
        threads = {thread for thread in threading.enumerate() if not thread.name.startswith("Trio")}
        now: dict[str, Iterable[Any]] = {"threads": threads}
        if LINUX:
            now |= {"descriptors": descriptors(), "children": children()}
        if sniffio.current_async_library() == "asyncio":
            now["tasks"] = asyncio.all_tasks()
        return now

    async def unchanged(self) -> None:
        left: dict[str, Any] = {}
        for _ in range(200):
            left = {key: set(now) - set(self.before[key]) for key, now in self._now().items()}
            if not any(left.values()):
                return
            await anyio.sleep(0.01)
        raise AssertionError(f"left behind: { {key: value for key, value in left.items() if value} }")
