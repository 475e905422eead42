"""The parent is killed with no chance to clean up: its child is gone within two seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import anyio
import pytest

from tests.faults.processes import BOUND, HERE, LINUX, alive, command, environment, gone

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(not LINUX, reason="looks into /proc")]

GONE = 2.0
"""Seconds after the parent's death."""

BUSY = [
    "idle", "park", "block", "endless", "parked", "sync_endless", "sync_blocked", "sink", "unread endless",
    "unread large", "shielded", "stopped",
]  # fmt: skip


async def kill_parent(how: str, method: str, backend: str) -> None:
    with anyio.fail_after(BOUND):
        parent = subprocess.Popen(
            [sys.executable, str(HERE / "parent.py"), how, method, backend],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert parent.stdout is not None
            line = await anyio.to_thread.run_sync(parent.stdout.readline)
            child = int(line)
            assert alive(child)
            if method == "stopped":
                os.kill(parent.pid, signal.SIGSTOP)
                await anyio.sleep(0.2)  # the child fills the pipe meanwhile
        finally:
            parent.kill()
            killed = time.monotonic()
            parent.wait()
            assert parent.stdout is not None
            parent.stdout.close()
        try:
            assert await gone(child, GONE), f"alive {time.monotonic() - killed:.1f} s after its parent"
        finally:
            if alive(child):
                os.kill(child, signal.SIGKILL)


async def kill_parents(how: str, methods: list[str], backend: str) -> None:
    """Several at a time: most of it is waiting."""
    async with anyio.create_task_group() as tg:
        for method in methods:
            tg.start_soon(kill_parent, how, method, backend)


CHILD_LOOPS = pytest.mark.parametrize("backend", ["asyncio", pytest.param("trio", marks=pytest.mark.slow)])
BATCHES = pytest.mark.parametrize("batch", range(4))


@CHILD_LOOPS
@BATCHES
async def test_the_child_goes_with_its_parent(batch: int, backend: str, anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("the loop under test is the child's")
    await kill_parents("open_process", BUSY[batch::4], backend)


@CHILD_LOOPS
@BATCHES
async def test_a_child_ends_by_itself_without_a_guard(
    batch: int, backend: str, anyio_backend_name: str
) -> None:
    """Whoever started it: the end of its stdin is enough."""
    if anyio_backend_name != "asyncio":
        pytest.skip("the loop under test is the child's")
    await kill_parents("bare", [method for method in BUSY[batch::4] if method != "shielded"], backend)


@CHILD_LOOPS
async def test_a_handler_that_never_ends_does_not_keep_the_process(
    backend: str, anyio_backend_name: str
) -> None:
    """A shield of its own without an end: `run_stdio` ends the process after its grace."""
    if anyio_backend_name != "asyncio":
        pytest.skip("the loop under test is the child's")
    with anyio.fail_after(BOUND):
        child = subprocess.Popen(
            command("serve", backend), env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b'{"id":"1","method":"shielded","args":[],"type":"request"}\n')
        child.stdin.flush()
        received = b""
        while b"stream-chunk" not in received:
            received += await anyio.to_thread.run_sync(child.stdout.readline)
        child.stdin.close()
        code = await anyio.to_thread.run_sync(lambda: child.wait(10))
        assert code in (0, 1)
        child.stdout.close()
