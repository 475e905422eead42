"""The code in README.md and docs/ runs, and prints what the text says (CONTRIBUTING.md has the markings)."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
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


def run_console(block: Block, folder: Path) -> None:
    """Each `$ python …` and `$ kkrpc-py …` line is run; what a terminal shows must be what follows it."""
    programs = {"python": [sys.executable], "kkrpc-py": [sys.executable, "-m", "kkrpc_py"]}
    for line, expected in re.findall(r"^\$ (.*)\n((?:[^$].*\n|\n)*)", block.text, re.MULTILINE):
        words = shlex.split(line)
        if words[0] not in programs:
            continue
        done = subprocess.run(
            [part for word in words for part in programs.get(word, [word])],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        assert (done.stdout, done.returncode) == (expected, 0)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_code_in_the_documents_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "document"}
    for block in blocks_of(path):
        if block.language == "console":
            run_console(block, tmp_path)
        elif block.language == "python" and block.info.startswith("file="):
            (tmp_path / block.info.removeprefix("file=")).write_text(block.text, encoding="utf-8")
        elif block.language == "python" and block.info:
            assert re.fullmatch(r"no-run: \S.*", block.info), f"{path.name}:{block.line}: {block.info}"
        elif block.language == "python":
            run_python(block, path, names, anyio_backend)


LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)[^)]*\)")


@pytest.mark.parametrize(
    "path", [*DOCS, *ROOT.glob("*.md"), *ROOT.glob("spec/*.md")], ids=lambda path: path.name
)
def test_links_inside_the_repository_lead_somewhere(path: Path) -> None:
    broken = [
        target for target in LINK.findall(path.read_text("utf-8")) if not (path.parent / target).exists()
    ]
    assert broken == []
