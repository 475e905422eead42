"""The code in README.md and docs/ runs, and prints what the text says (CONTRIBUTING.md has the markings)."""

from __future__ import annotations

import ast
import contextlib
import inspect
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(r"^```(\w+)(?: ([^\n]*))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = 60


WS = ROOT / "tests" / "node" / "node_modules" / "ws" / "wrapper.mjs"
# Node has a WebSocket of its own from version 22 on.
WITH_WEBSOCKET = f"""\
globalThis.WebSocket ??= (await import({WS.as_uri()!r})).default
"""


class Block(NamedTuple):
    language: str
    info: str
    text: str
    line: int


def blocks_of(path: Path) -> Iterator[Block]:
    source = path.read_text(encoding="utf-8")
    for match in FENCE.finditer(source):
        line = source.count("\n", 0, match.start(3))
        yield Block(match[1], match[2] or "", match[3], line)


def run_python(block: Block, path: Path, names: dict[str, Any], backend: tuple[str, dict[str, Any]]) -> None:
    """Run a block in `names`; inside an event loop where it awaits at top level."""
    # Blank lines before it make a traceback point into the document.
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile("\n" * block.line + block.text, str(path), "exec", flags=flags, dont_inherit=True)
    if not code.co_flags & inspect.CO_COROUTINE:
        exec(code, names)
        return

    async def main() -> None:
        with anyio.fail_after(SECONDS):
            await eval(code, names)

    anyio.run(main, backend=backend[0], backend_options=backend[1])


class Shell:
    """The terminal of one document: its commands, and the server that they talk to.

    `localhost:8000` is a free port here; `$ uvicorn MODULE:NAME` serves there until the next one.
    """

    ADDRESS = "localhost:8000"

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._servers = stack.enter_context(contextlib.ExitStack())
        self.address = f"localhost:{self._listener.getsockname()[1]}"
        self._programs = {"python": [sys.executable], "kkrpc-py": [sys.executable, "-m", "kkrpc_py"]}
        if (curl := shutil.which("curl")) is not None:
            self._programs["curl"] = [curl, "--silent"]
        if (node := shutil.which("node")) is not None and WS.exists():
            (folder / "with_websocket.mjs").write_text(WITH_WEBSOCKET, encoding="utf-8")
            self._programs["node"] = [node, "--import", "./with_websocket.mjs"]

    def here(self, text: str) -> str:
        """`text` of the document, for the address here."""
        return text.replace(self.ADDRESS, self.address)

    def run(self, block: Block) -> None:
        """Run each `$` line of a known program; what a terminal shows must be what follows it."""
        for line, expected in re.findall(r"^\$ (.*)\n((?:[^$].*\n|\n)*)", block.text, re.MULTILINE):
            words = shlex.split(self.here(line))
            if words[0] == "uvicorn":
                self._serve(words[1])
            elif words[0] == "cp":
                shutil.copy(ROOT / words[1], self._folder / words[2])
            elif words[0] in self._programs:
                command = [part for word in words for part in self._programs.get(word, [word])]
                done = subprocess.run(
                    command,
                    cwd=self._folder,
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=SECONDS,
                )
                # A terminal begins its prompt on a line of its own.
                shown = done.stdout if done.stdout[-1:] in ("", "\n") else f"{done.stdout}\n"
                assert (shown, done.returncode) == (self.here(expected), 0)

    def _serve(self, name: str) -> None:
        self._servers.close()
        fd = self._listener.fileno()
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", name, "--fd", str(fd), "--log-level", "critical"],
            cwd=self._folder,
            env=self._environment(),
            pass_fds=[fd],
        )
        self._servers.callback(_stop, server)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{self._folder}"}


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(SECONDS / 4)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        raise


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_code_in_the_documents_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "document"}
    with contextlib.ExitStack() as stack:
        shell = Shell(tmp_path, stack)
        for block in blocks_of(path):
            if block.language == "console":
                shell.run(block)
            elif block.language in ("python", "js") and block.info.startswith("file="):
                file = tmp_path / block.info.removeprefix("file=")
                file.write_text(shell.here(block.text), encoding="utf-8")
            elif block.language == "python" and block.info:
                assert re.fullmatch(r"no-run: \S.*", block.info), f"{path.name}:{block.line}: {block.info}"
            elif block.language == "python":
                run_python(block._replace(text=shell.here(block.text)), path, names, anyio_backend)


LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)[^)]*\)")


@pytest.mark.parametrize(
    "path", [*DOCS, *ROOT.glob("*.md"), *ROOT.glob("spec/*.md")], ids=lambda path: path.name
)
def test_links_inside_the_repository_lead_somewhere(path: Path) -> None:
    broken = [
        target for target in LINK.findall(path.read_text("utf-8")) if not (path.parent / target).exists()
    ]
    assert broken == []
