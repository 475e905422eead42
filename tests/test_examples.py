"""Every example runs, and says what it should."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
SECONDS = 30
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

OUTPUTS = {
    "parent.py": "1 + 2 = 3\n3\n2\n1\n0\n",
    "tokens.py": "The harbour is where the long road ends and the small boats sleep \n"
    "{'tokens': 13, 'stopped': 'end'}\n",
    "cancel.py": "sample 0\nsample 1\nsample 2\nsample 3\nclosed: 1\nclosed: 2\n",
    "many_streams.py": "21 streams, 4200 items, {200} each\n",
}
TESTED_BELOW = {"child.py", "unix_server.py", "unix_client.py", "node_parent.py"}
NODE_MODULES = ROOT / "tests" / "node" / "node_modules"


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS)


@pytest.mark.parametrize("name", OUTPUTS)
def test_example(name: str, tmp_path: Path) -> None:
    done = run(sys.executable, EXAMPLES / name, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, OUTPUTS[name], "")


def test_unix_server_and_client(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, EXAMPLES / "unix_server.py", "socket"],
        cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "listening on socket\n"
            done = run(sys.executable, EXAMPLES / "unix_client.py", "socket", cwd=tmp_path)
            assert (done.returncode, done.stdout) == (0, "tick 0\ntick 1\ntick 2\n")
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=SECONDS)
        finally:
            server.kill()


@pytest.mark.skipif(
    shutil.which("node") is None or not (NODE_MODULES / "kkrpc").exists(),
    reason="no Node, or no kkrpc for it",
)
def test_node_child(tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    for name in ("node_parent.py", "node_child.mjs"):
        shutil.copy(EXAMPLES / name, tmp_path)
    done = run(sys.executable, tmp_path / "node_parent.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    greeting, total = done.stdout.splitlines()
    assert greeting.startswith("Hello Ada, this is Node ")
    assert total == "1 + 2 = 3"


def test_each_example_is_tested_and_explained() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == OUTPUTS.keys() | TESTED_BELOW
    readme = (EXAMPLES / "README.md").read_text()
    assert [name for name in names if f"`{name}`" not in readme] == []
