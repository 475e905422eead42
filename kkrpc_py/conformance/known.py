"""Known failures: a list of cases that may fail, each with the reason.

The file is `{"known": {"case id": "reason"}}`. In the place of a reason, `{"verdict": "error", "reason": …}`
says that the testee may even crash there: a crash is other news than a failure. An entry whose case passes
is stale, and fails the run: so the list shrinks as the testee gets better. It owns the file and what it
does to verdicts.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kkrpc_py.conformance.cases import Case
from kkrpc_py.conformance.files import write_whole
from kkrpc_py.conformance.results import Outcome, Run, Verdict

__all__ = ["BASELINE", "Entry", "KnownError", "apply", "baseline", "check", "read", "write"]

BASELINE = "baseline"
_FAILS = {Verdict.FAIL, Verdict.ERROR}


class KnownError(Exception):
    """The file of known failures cannot be used."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One known failure."""

    reason: str
    may_crash: bool = False
    """Whether it is known as an `error`."""


def read(path: Path, *, may_miss: bool = False) -> dict[str, Entry]:
    """The entries of a file by case id; none where it is not there and may miss. Raises KnownError."""
    if may_miss and not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise KnownError(f"{path}: {exc}") from exc
    entries = content.get("known") if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(entries, dict):
        raise KnownError(f'{path}: it is not of the form {{"known": {{"case id": "reason"}}}}')
    return {name: _entry(f"{path}: {name}", entry) for name, entry in entries.items()}


def _entry(where: str, entry: Any) -> Entry:
    match entry:
        case str(reason):
            may_crash = False
        case {"verdict": "fail" | "error" as verdict, "reason": str(reason), **others} if not others:
            may_crash = verdict == "error"
        case _:
            raise KnownError(
                f'{where}: it is no reason, and no {{"verdict": "fail" or "error", "reason": "…"}}'
            )
    if not reason.strip():
        raise KnownError(f"{where}: there is no reason")
    return Entry(reason, may_crash)


def check(known: Mapping[str, Entry], cases: Iterable[Case]) -> None:
    """Raises KnownError for an entry that is no case. `cases` are all there are, not the chosen ones."""
    unknown = sorted(set(known) - {case.id for case in cases})
    if unknown:
        raise KnownError(f"no case has the id {', '.join(unknown)}")


def apply(run: Run, known: Mapping[str, Entry]) -> Run:
    """The run with KNOWN for listed cases that did not hold, and STALE for listed ones that pass.

    One that crashed and is not listed as an error stays one.
    """
    return dataclasses.replace(run, outcomes=tuple(_judged(outcome, known) for outcome in run.outcomes))


def _judged(outcome: Outcome, known: Mapping[str, Entry]) -> Outcome:
    entry = known.get(outcome.case.id)
    if entry is None:
        return outcome
    match outcome.verdict:
        case Verdict.ERROR if not entry.may_crash:
            return dataclasses.replace(outcome, reason=f"known to fail ({entry.reason}), not to crash")
        case Verdict.FAIL | Verdict.ERROR | Verdict.NON_STRICT:
            return dataclasses.replace(outcome, verdict=Verdict.KNOWN, reason=entry.reason)
        case Verdict.PASS:
            return dataclasses.replace(outcome, verdict=Verdict.STALE, reason=entry.reason)
        case _:
            return outcome


def baseline(run: Run, known: Mapping[str, Entry]) -> dict[str, Entry]:
    """A list with which this run is good. A failure that was listed keeps its reason.

    What was not run, or was skipped, stays listed: nothing was learnt about it. `run` is one that the list
    was not applied to.
    """
    judged = {outcome.case.id: outcome.verdict for outcome in run.outcomes}
    kept = {name: entry for name, entry in known.items() if judged.get(name) is not Verdict.PASS}
    failed = {name: verdict for name, verdict in judged.items() if verdict in _FAILS}
    return kept | {
        name: Entry(known[name].reason if name in known else BASELINE, verdict is Verdict.ERROR)
        for name, verdict in failed.items()
    }


def write(path: Path, known: Mapping[str, Entry]) -> None:
    """Write a file of these entries, in the order of their ids. Raises Unwritable."""
    entries = {
        name: {"verdict": "error", "reason": entry.reason} if entry.may_crash else entry.reason
        for name, entry in sorted(known.items())
    }
    write_whole(path, json.dumps({"known": entries}, ensure_ascii=False, indent=2) + "\n")
