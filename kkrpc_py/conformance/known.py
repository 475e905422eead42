"""Known failures: a list of cases that may fail, each with the reason.

The file is `{"known": {"case id": "reason"}}`. An entry whose case passes is stale, and fails the run: so the
list shrinks as the testee gets better. It owns the file and what it does to verdicts.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from kkrpc_py.conformance.cases import Case
from kkrpc_py.conformance.files import write_whole
from kkrpc_py.conformance.results import Outcome, Run, Verdict

__all__ = ["BASELINE", "KnownError", "apply", "baseline", "check", "read", "write"]

BASELINE = "baseline"
_FAILS = {Verdict.FAIL, Verdict.ERROR}


class KnownError(Exception):
    """The file of known failures cannot be used."""


def read(path: Path, *, may_miss: bool = False) -> dict[str, str]:
    """The entries of a file, id to reason; none where it is not there and may miss. Raises KnownError."""
    if may_miss and not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise KnownError(f"{path}: {exc}") from exc
    entries = content.get("known") if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(entries, dict):
        raise KnownError(f'{path}: it is not of the form {{"known": {{"case id": "reason"}}}}')
    for name, reason in entries.items():
        if not isinstance(reason, str) or not reason.strip():
            raise KnownError(f"{path}: {name}: there is no reason")
    return entries


def check(known: Mapping[str, str], cases: Iterable[Case]) -> None:
    """Raises KnownError for an entry that is no case. `cases` are all there are, not the chosen ones."""
    unknown = sorted(set(known) - {case.id for case in cases})
    if unknown:
        raise KnownError(f"no case has the id {', '.join(unknown)}")


def apply(run: Run, known: Mapping[str, str]) -> Run:
    """The run with KNOWN for listed cases that did not hold, and STALE for listed ones that pass."""
    return dataclasses.replace(run, outcomes=tuple(_judged(outcome, known) for outcome in run.outcomes))


def _judged(outcome: Outcome, known: Mapping[str, str]) -> Outcome:
    reason = known.get(outcome.case.id)
    if reason is None:
        return outcome
    match outcome.verdict:
        case Verdict.FAIL | Verdict.ERROR | Verdict.NON_STRICT:
            return dataclasses.replace(outcome, verdict=Verdict.KNOWN, reason=reason)
        case Verdict.PASS:
            return dataclasses.replace(outcome, verdict=Verdict.STALE, reason=reason)
        case _:
            return outcome


def baseline(run: Run, known: Mapping[str, str]) -> dict[str, str]:
    """A list with which this run is good. A failure that was listed keeps its reason.

    What was not run, or was skipped, stays listed: nothing was learnt about it. `run` is one that the list
    was not applied to.
    """
    judged = {outcome.case.id: outcome.verdict for outcome in run.outcomes}
    kept = {name: reason for name, reason in known.items() if judged.get(name) is not Verdict.PASS}
    failed = (outcome.case.id for outcome in run.outcomes if outcome.verdict in _FAILS)
    return kept | {name: known.get(name, BASELINE) for name in failed}


def write(path: Path, known: Mapping[str, str]) -> None:
    """Write a file of these entries, in the order of their ids. Raises Unwritable."""
    content = json.dumps({"known": dict(sorted(known.items()))}, ensure_ascii=False, indent=2)
    write_whole(path, content + "\n")
