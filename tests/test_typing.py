"""What mypy and pyright say of `tests/typing` and `examples/typed.py`: what the comments there expect, alone.

`# error: code, rule` marks a line that is wrong; `# error-above: code, rule` marks one whose error a
checker reports at a line shortly before it, as it does for decorators. mypy's codes have dashes or no
capitals, pyright's rules begin with "report"; each checker must find every marked line wrong, in the named
way among others, and no other line. Both run as a user's would: strict, and with no setting of ours.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "typing"
EXAMPLE = ROOT / "examples" / "typed.py"
FILES = [*sorted(FOLDER.glob("*.py")), EXAMPLE]
SECONDS = 120

Found = dict[tuple[str, int], set[str]]
"""Codes of the errors, by file and line."""

EXPECTED = re.compile(r"# error(-above)?: ([\w, -]+)$")


def expected(checker: str) -> Found:
    found: Found = {}
    for path in FILES:
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            match = EXPECTED.search(line)
            if match is None:
                assert "# error" not in line, f"{path.name}:{number} has a comment that says nothing"
                continue
            at = number
            while match[1] and not lines[at - 1].lstrip().startswith("@"):
                at -= 1
            codes = {code.strip() for code in match[2].split(",")}
            found[path.name, at] = {
                code for code in codes if code.startswith("report") == (checker == "pyright")
            }
    return found


def run_mypy(tmp_path: Path) -> Found:
    command = [
        sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", "--output=json",
        "--show-absolute-path", f"--cache-dir={tmp_path}", "--python-version=3.11", *map(str, FILES),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS)
    assert done.stderr == ""
    found: Found = defaultdict(set)
    for line in done.stdout.splitlines():
        said = json.loads(line)
        if said["severity"] == "error":
            found[Path(said["file"]).name, said["line"]].add(said["code"])
    return found


def run_pyright(tmp_path: Path) -> Found:
    command = [
        sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable,
        "--project", str(FOLDER),
    ]  # fmt: skip
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    if not done.stdout.startswith("{") and os.environ.get("KKRPC_REQUIRE_NODE") != "1":
        pytest.skip(f"pyright does not run here, it wants Node: {done.stderr[-200:]}")
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(FILES)
    found: Found = defaultdict(set)
    for said in report["generalDiagnostics"]:
        if said["severity"] != "information":
            found[Path(said["file"]).name, said["range"]["start"]["line"] + 1].add(said.get("rule", ""))
    return found


CHECKERS = {"mypy": run_mypy, "pyright": run_pyright}


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_type_checker_finds_what_is_wrong_and_nothing_else(checker: str, tmp_path: Path) -> None:
    pytest.importorskip(checker)
    found, wanted = CHECKERS[checker](tmp_path), expected(checker)
    unexpected = {place: codes for place, codes in found.items() if place not in wanted}
    missed = {
        place: codes for place, codes in wanted.items() if not codes or not codes <= found.get(place, set())
    }
    assert (unexpected, missed) == ({}, {})


def test_each_file_has_right_uses_and_wrong_ones() -> None:
    assert len(FILES) >= 4
    for path in FILES:
        if path == EXAMPLE:
            continue
        text = path.read_text(encoding="utf-8")
        assert "assert_type(" in text, path.name
        assert any(EXPECTED.search(line) for line in text.splitlines()), path.name
        assert "type: ignore" not in text, path.name
        assert "pyright: ignore" not in text, path.name
