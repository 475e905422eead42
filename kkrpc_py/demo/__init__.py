"""`kkrpc-py demo`: a parent and its child at work, on the files of a folder.

The parent starts a child process, lets it hash every file below a folder, and shows its stream of
progress and then its summary. A second run is cancelled half-way, and the child is asked whether
its cleanup ran. This module owns the parent; the child is `demo.hashing`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import kkrpc_py as kk
from kkrpc_py.demo.hashing import work
from kkrpc_py.demo.screen import Screen, count, size

__all__ = ["run"]

SLOWED_SECONDS = 2.0
"""What the second run takes its time for, so that there is a half-way to see."""

# -P and the path at the end: nothing in the user's folder is taken for a module of ours.
_CHILD = (
    "import sys; sys.path.append(sys.argv[1]); from kkrpc_py.demo import hashing; hashing.main(sys.argv[2])"
)


def _command(backend: str) -> list[str]:
    root = Path(kk.__file__).resolve().parents[1]
    return [sys.executable, "-P", "-c", _CHILD, str(root), backend]


async def run(folder: str, *, seconds: float, backend: str) -> int:
    """Show the demo on `folder`; `seconds` bounds what each run reads. Returns the exit code."""
    screen = Screen(sys.stdout)
    async with kk.open_process(_command(backend)) as channel:
        api = channel.remote()
        child = await api.hello()
        screen.line(
            f"This is process {os.getpid()}. Its child is process {child['pid']}, over stdin and stdout."
        )
        path = os.path.abspath(folder)
        try:
            summary = await _whole(api, screen, path, seconds)
        except OSError as error:
            if not isinstance(error, kk.RemoteError):
                raise
            screen.end_bar()
            screen.line(f"The child cannot read it: {error.name}: {error.message}")
            return 1
        if summary["files"] == 0:
            screen.line("No files were read, so there is no half-way at which to cancel a second run.")
            return 0
        return await _cancelled(api, screen, path, seconds, work(summary["files"], summary["bytes"]))


async def _whole(api: Any, screen: Screen, path: str, seconds: float) -> dict[str, Any]:
    """The first run: all of the stream, then its result."""
    screen.title(f"1. The child hashes the files below {path}")
    call = api.hash_folder(path, seconds)
    began = time.perf_counter()
    chunks, total, found = 0, 1, 0
    async for chunk in call:
        chunks += 1
        if chunk["state"] == "found":
            total = max(work(chunk["files"], chunk["bytes"]), 1)
            found, began, chunks = chunk["files"], time.perf_counter(), 0
        _show(screen, chunk, total)
    summary: dict[str, Any] = await call
    took = max(time.perf_counter() - began, 1e-6)

    screen.end_bar()
    screen.line(f"  {count(summary['files'], 'file')}, {size(summary['bytes'])} in {_duration(took)}")
    if summary["files"]:
        screen.line(
            f"  {summary['files'] / took:,.0f} files/s, {size(summary['bytes'] / took)}/s, "
            f"{chunks / took:,.0f} chunks/s"
        )
        screen.line(f"  SHA-256 of the list of checksums: {summary['fingerprint']}")
    for reason, number in sorted(summary["skipped"].items()):
        screen.line(f"  left out: {number:,} {reason}")
    if not summary["complete"]:
        screen.line(
            f"  not all of the folder: the demo stops after {seconds:g} s (--seconds N); "
            f"found by then: {count(found, 'file')}"
        )
    return summary


async def _cancelled(api: Any, screen: Screen, path: str, seconds: float, done: int) -> int:
    """The second run: cancelled at half of what the first one did."""
    screen.title("2. The same again, slowed down, and cancelled half-way")
    stream = await api.hash_folder(path, 2 * seconds + SLOWED_SECONDS, SLOWED_SECONDS)
    checksums, there_before = "", False
    async with stream:
        async for chunk in stream:
            if chunk["state"] == "found":
                checksums = chunk["list"]
            _show(screen, chunk, done)
            if chunk["state"] == "hashing" and work(chunk["files"], chunk["bytes"]) * 2 >= done:
                there_before = os.path.exists(checksums)
                break
        began = time.perf_counter()
        await stream.cancel()
        took = time.perf_counter() - began
    there_after = os.path.exists(checksums)
    ended = (await api.runs())[-1]

    screen.end_bar()
    screen.line(
        f"  cancelled at {count(ended['files'], 'file')}, {size(ended['bytes'])}; "
        f"the child confirmed it after {_duration(took)}"
    )
    times = "once" if ended["cleanups"] == 1 else f"{ended['cleanups']} times"
    screen.line(f"  the child, asked afterwards: the run was {ended['ended']}, its cleanup ran {times}")
    screen.line(
        f"  its list of checksums in {os.path.dirname(checksums) or '?'}: "
        f"{'there' if there_before else 'not there'} before the cancel, "
        f"{'still there' if there_after else 'removed'} after it"
    )
    proved = ended["ended"] == "cancelled" and ended["cleanups"] == 1 and there_before and not there_after
    if not proved:
        screen.line("  that is not as it should be")
    return 0 if proved else 1


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _show(screen: Screen, chunk: dict[str, Any], total: int) -> None:
    figures = f"{count(chunk['files'], 'file')}  {size(chunk['bytes'])}"
    if chunk["state"] == "hashing":
        screen.bar(work(chunk["files"], chunk["bytes"]) / total, figures, chunk["name"])
    else:
        screen.bar(0, f"looking: {figures}")
