"""The conformance kit against the JavaScript client: `testee.mjs` has it speak over stdin and stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.js_client.node import HERE, node_or_skip

SECONDS = 300

# Streams and their flow control: a few seconds, where all take a minute.
SELECTION = "str-[1-5]/* can-4/* bat-1/* crd-[1347]/*".split()

LACKED = {"cbor", "superjson", "floats"}
"""What the client has not, beside the types that CBOR and superjson alone carry."""


def report(tmp_path: Path, *chosen: str) -> dict[str, Any]:
    """The report of a run in which nothing failed."""
    output = tmp_path / "report.json"
    kit = [sys.executable, "-m", "kkrpc_py", "conformance", "--timeout", "20"]
    done = subprocess.run(
        [
            *kit,
            *chosen,
            "--report",
            "json",
            "--output",
            output,
            "--",
            node_or_skip(),
            str(HERE / "testee.mjs"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    told: dict[str, Any] = json.loads(output.read_text("utf-8"))
    for each in told["outcomes"]:
        if each["verdict"] == "skip":
            assert LACKED & set(each["reason"].split(", ")), (
                f"{each['id']} is skipped, for lack of {each['reason']}"
            )
    return told


def test_streams_and_credit(tmp_path: Path) -> None:
    told = report(tmp_path, "--level", "2", "3", "--case", *SELECTION)
    passed = {level: counts["pass"] for level, counts in told["levels"].items()}
    assert passed["2"] > 40
    assert passed["3"] > 25


@pytest.mark.slow
def test_all_levels_below_the_hub(tmp_path: Path) -> None:
    told = report(tmp_path, "--level", "0", "1", "2", "3")
    assert told["played"] > 950
    assert told["counts"]["pass"] == told["played"]
