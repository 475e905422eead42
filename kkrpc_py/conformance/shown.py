"""How a report shows what a testee said: any bytes and any text, harmless to a terminal and to a file.

It owns escaping and shortening. Which case is shown, and where, is a matter of the reports.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from kkrpc_py.conformance.cases import Case
from kkrpc_py.conformance.cbor import BadCbor, Words, loads
from kkrpc_py.conformance.results import Failure, Outcome, Run

__all__ = [
    "FEATURES",
    "again",
    "features_of",
    "frame_text",
    "noise_text",
    "printable",
    "shortened",
    "step_text",
    "testee_name",
    "unknown_features",
]

FEATURES = frozenset(
    """
    credit batch result cancel cbor callback stream-arguments kwargs metadata
    superjson bigint floats validation properties construct noise counted limits
    decimal rational uuid ip complex arrays date datetime set
    named-streams uploads events shared-state streams-client actions
    """.split()
)
"""What `describe` may name (spec/testee.md, Features)."""

_CBOR = b"\xd8\x18"
_HEAD, _TAIL = 320, 80
_MOST_DECODED = 4096
_LONGEST_NAME = 100


def printable(text: str, *, lines: bool = False) -> str:
    """`text` with whatever is not printable escaped; with `lines`, line feeds and tabs are kept."""
    kept = "\n\t" if lines else ""
    return "".join(each if each.isprintable() or each in kept else ascii(each)[1:-1] for each in text)


def shortened(text: str) -> str:
    """`text`, or where it is long its beginning and end, with its length between them."""
    if len(text) <= _HEAD + _TAIL + 40:
        return text
    return f"{text[:_HEAD]} … {len(text):,} characters in all … {text[-_TAIL:]}"


def frame_text(frame: bytes) -> str:
    """One frame or line, on one line: text where it is UTF-8, hex with what it says where it is CBOR."""
    if frame.startswith(_CBOR):
        decoded = _decoded(frame)
        # In hex two characters are one byte.
        text = f"CBOR, {len(frame):,} bytes: {shortened(frame.hex())}"
        return f"{text} = {shortened(printable(decoded))}" if decoded else text
    if len(frame) > _HEAD + _TAIL + 40:
        head, tail = frame[:_HEAD], frame[-_TAIL:]
        return f"{_escaped(head)} … {len(frame):,} bytes in all … {_escaped(tail)}"
    return _escaped(frame)


def _escaped(data: bytes) -> str:
    return printable(data.decode("utf-8", "backslashreplace"))


def _decoded(frame: bytes) -> str:
    """What a CBOR frame says, as a JSON-like text; empty where it cannot be read, or is long."""
    if len(frame) > _MOST_DECODED or len(frame) < 3:
        return ""
    length = frame[2] & 31
    start = 3 if length < 24 else 3 + (1 << (length - 24)) if length < 28 else len(frame)
    try:
        return _json(loads(frame[start:]))
    except (BadCbor, ValueError, RecursionError, OverflowError):
        return ""


def _json(value: Any) -> str:
    def words(other: object) -> Any:
        if isinstance(other, Words):
            return other.words
        raise ValueError

    return json.dumps(value, ensure_ascii=False, default=words)


def step_text(case: Case, failure: Failure) -> str:
    """Where it failed: the step's number and the step itself, as it stands in the case."""
    if failure.step is None or not 0 <= failure.step < len(case.steps):
        return "no step: the set-up before the first, or the check after the last"
    step = json.dumps(dict(case.steps[failure.step]), ensure_ascii=False)
    return f"{failure.step} of 0 to {len(case.steps) - 1}: {shortened(printable(step))}"


def testee_name(testee: Mapping[str, Any]) -> str:
    """Name and version, as `describe` gave them."""
    words = [_said(testee[key]) for key in ("name", "version") if testee.get(key) not in (None, "")]
    return printable(" ".join(words)) or "a testee without a name"


def _said(value: Any) -> str:
    """A name that a testee gave, however long and of whatever type."""
    match value:
        case str():
            return value if len(value) <= _LONGEST_NAME else f"{value[:_LONGEST_NAME]} …"
        case bool() | float():
            return str(value)
        case int() if abs(value) < 10**18:
            return str(value)
        case _:
            return f"({type(value).__name__})"


def features_of(testee: Mapping[str, Any]) -> list[str]:
    """The features that it named."""
    named = testee.get("features")
    return sorted({_said(each) for each in named}) if isinstance(named, list) else []


def unknown_features(testee: Mapping[str, Any]) -> list[str]:
    """What the testee calls a feature and nobody else does: perhaps one of FEATURES, misspelt."""
    return [name for name in features_of(testee) if name not in FEATURES]


def noise_text(outcome: Outcome) -> str:
    """How many lines of noise there were, and the first of them; empty without any."""
    if outcome.noise == 0:
        return ""
    lines = "1 line" if outcome.noise == 1 else f"{outcome.noise:,} lines, the first"
    return f"{lines}: {frame_text(outcome.first_noise)}"


def again(run: Run, case: Case, options: Sequence[str] = ()) -> str:
    """The command that runs this case alone, for a shell."""
    words = ["kkrpc-py", "conformance", *options, "--case", case.id, "--", *run.command]
    # The shell needs a line feed in an argument as it is.
    return printable(shlex.join(words), lines=True)
