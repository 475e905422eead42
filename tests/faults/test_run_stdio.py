"""What a program does after `run_stdio` has returned is its own affair."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.faults.processes import BOUND, environment

PROGRAM = """
import sys, threading, time
import kkrpc_py as kk

class API:
    def block(self):
        time.sleep(3600)

limits = kk.Limits(cleanup_seconds=0.1, drain_seconds=0.1, finish_seconds=0.1)
kk.run_stdio(API(), backend=sys.argv[1], limits=limits)
for thread in threading.enumerate():
    if isinstance(thread, threading.Timer):
        thread.join()
print("saved", file=sys.stderr)
sys.exit(5)
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("blocked", [False, True], ids=["idle", "a blocked def"])
def test_the_program_goes_on_after_run_stdio(backend: str, blocked: bool) -> None:
    """The timer that ends a stuck process is gone by then, and no blocked thread holds up the exit."""
    request = {"id": "1", "method": "block", "args": [], "type": "request", "version": "json"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, backend],
        input=json.dumps(request) + "\n" if blocked else "",
        capture_output=True,
        text=True,
        env=environment(),
        timeout=BOUND,
        check=False,
    )
    assert done.stderr.splitlines()[-1:] == ["saved"], done.stderr
    assert done.returncode == 5
