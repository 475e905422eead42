"""The report as JSON, in the form of `spec/conformance/report.schema.json`.

It owns that form. Text in it is Unicode that every reader accepts: what cannot be is escaped with a
backslash, as in the other reports.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kkrpc_py.conformance.results import Failure, Outcome, Run, TraceLine, Verdict
from kkrpc_py.conformance.rules import Rule
from kkrpc_py.conformance.shown import again, frame_text, unknown_features

__all__ = ["FORM", "document"]

FORM = 1
_MOST_BYTES = 16_384
_MOST_BITS = 4096
_DEEPEST = 200


def document(run: Run, rules: Mapping[str, Rule], options: Sequence[str] = ()) -> str:
    """The whole report, one JSON document. `options` as in `report.text`."""
    levels: dict[str, list[Outcome]] = {}
    for outcome in run.outcomes:
        levels.setdefault(str(outcome.case.level), []).append(outcome)
    content = {
        "form": FORM,
        "command": list(run.command),
        "dialect": run.dialect,
        "testee": dict(run.testee),
        "seconds": round(run.seconds, 3),
        "passed": run.passed,
        "played": run.played,
        "unknown_features": unknown_features(run.testee),
        "counts": _counts(run.outcomes),
        "levels": {level: _counts(levels[level]) for level in sorted(levels)},
        "outcomes": [_outcome(run, outcome, rules, options) for outcome in run.outcomes],
    }
    return json.dumps(_readable(content), ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def _readable(value: Any, depth: int = 0) -> Any:
    """`value` for any reader of JSON: no lone surrogates, finite numbers of a bearable length, not deep.

    A testee's `describe` may hold anything, and a run must not lose its report by it.
    """
    if depth > _DEEPEST:
        return "…"
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_readable(str(key)): _readable(each, depth + 1) for key, each in value.items()}
        case list() | tuple():
            return [_readable(each, depth + 1) for each in value]
        case int() if value.bit_length() > _MOST_BITS:
            return f"an integer of {value.bit_length()} bits"
        case None | bool() | int():
            return value
        case float() if abs(value) < float("inf"):
            return value
        case _:
            return _readable(str(value))


def _counts(outcomes: Iterable[Outcome]) -> dict[str, int]:
    counted = collections.Counter(outcome.verdict for outcome in outcomes)
    return {verdict.value: counted[verdict] for verdict in Verdict}


def _outcome(run: Run, outcome: Outcome, rules: Mapping[str, Rule], options: Sequence[str]) -> dict[str, Any]:
    case = outcome.case
    shown: dict[str, Any] = {
        "id": case.id,
        "title": case.title,
        "rule": case.rule,
        "force": case.force,
        "level": case.level,
        "role": case.role,
        "features": sorted(case.features),
        "verdict": outcome.verdict.value,
        "seconds": round(outcome.seconds, 3),
    }
    if outcome.before:
        shown["before"] = outcome.before
    if outcome.noise:
        shown["noise"] = {"lines": outcome.noise, "first": frame_text(outcome.first_noise)}
    if outcome.reason:
        shown["reason"] = outcome.reason
    if outcome.failure is not None:
        rule = rules.get(case.rule)
        shown["rule_text"] = rule.summary if rule else ""
        shown["failure"] = _failure(case.steps, outcome.failure)
        shown["again"] = again(run, case, options)
    return shown


def _failure(steps: Sequence[Mapping[str, Any]], failure: Failure) -> dict[str, Any]:
    number = failure.step
    return {
        "step": number,
        "step_content": steps[number] if number is not None and 0 <= number < len(steps) else None,
        "expected": failure.expected,
        "seen": failure.seen,
        "stderr": failure.stderr_tail,
        "trace": [_line(line) for line in failure.trace],
    }


def _line(line: TraceLine) -> dict[str, Any]:
    start = line.data[:_MOST_BYTES]
    shown: dict[str, Any] = {
        "seconds": round(line.seconds, 6),
        "direction": line.direction,
        "length": len(line.data),
    }
    try:
        line.data.decode("utf-8")
    except UnicodeDecodeError:
        shown["hex"] = start.hex()
    else:
        # The cut may be within a character.
        shown["text"] = start.decode("utf-8", "ignore")
    return shown
