"""The Node process that runs the JavaScript client's scenarios: `driver.mjs`."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

HERE = Path(__file__).parent
NODE_DIR = HERE.parent / "node"

BOUND = 60.0
"""Seconds. Far above what any scenario takes; Node is killed then."""


def node_or_skip(package: str | None = None) -> str:
    """The path of Node. Skips the test where it, or the package in tests/node, is missing; or fails it."""
    node = shutil.which("node")
    if node is None:
        reason = "there is no Node on the path"
    elif package is not None and not (NODE_DIR / "node_modules" / package).is_dir():
        reason = f"npm's {package} is not installed: run `npm ci` in tests/node"
    else:
        return node
    if os.environ.get("KKRPC_REQUIRE_NODE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


class Node:
    """One process for many scenarios, one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, scenario: str, **given: Any) -> Any:
        """What the scenario returned; AssertionError with its stack where it threw."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        bound = threading.Timer(BOUND, self._process.kill)
        bound.start()
        try:
            self._process.stdin.write(json.dumps({"scenario": scenario, **given}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        finally:
            bound.cancel()
        assert line, f"Node ended, or hung and was killed, during {scenario!r}: {self._process.wait(5)}"
        told = json.loads(line)
        assert "error" not in told, told["error"]
        return told["result"]

    async def run(self, scenario: str, **given: Any) -> Any:
        """The same beside the tasks of this loop."""
        return await anyio.to_thread.run_sync(functools.partial(self.ask, scenario, **given))


def started(*options: str) -> Iterator[Node]:
    """For a fixture: the process, until it is over."""
    node = node_or_skip("ws")
    command = [node, *options, str(HERE / "driver.mjs")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        try:
            yield Node(process)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(BOUND) == 0, "Node did not end by itself"
        finally:
            process.kill()
