"""The report for people: the cases that are not as they should be, then a summary.

It owns the layout of text. What a run came to stands in `results`, how bytes are shown in `shown`; `junit`
and `jsonreport` say the same to programs.
"""

from __future__ import annotations

import collections
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from kkrpc_py.conformance.results import Outcome, Run, TraceLine, Verdict
from kkrpc_py.conformance.rules import Rule
from kkrpc_py.conformance.shown import (
    again,
    features_of,
    frame_text,
    noise_text,
    printable,
    shortened,
    step_text,
    testee_name,
    unknown_features,
)

__all__ = ["outcome_lines", "summary", "text"]

WIDTH = 110
MOST_TRACED = 60
_MOST_NOISY = 5
_ARROWS = {"to testee": ">", "from testee": "<", "note": "·"}
_COLUMNS = (
    Verdict.PASS,
    Verdict.FAIL,
    Verdict.ERROR,
    Verdict.STALE,
    Verdict.NON_STRICT,
    Verdict.KNOWN,
    Verdict.SKIP,
)


def text(run: Run, rules: Mapping[str, Rule], options: Sequence[str] = ()) -> str:
    """The whole report. `options` are those that each command to run a case again needs beside the case."""
    shown = [outcome for outcome in run.outcomes if outcome.verdict in {*_COLUMNS[1:6]}]
    blocks = ["\n".join(outcome_lines(run, outcome, rules, options)) for outcome in shown]
    return "\n\n".join([*blocks, summary(run)])


# One case ------------------------------------------------------------------------------------


def outcome_lines(
    run: Run, outcome: Outcome, rules: Mapping[str, Rule], options: Sequence[str] = ()
) -> Iterator[str]:
    """Everything about one case that did not simply pass."""
    case, failure = outcome.case, outcome.failure
    yield f"{outcome.verdict.upper()}  {case.id}"
    yield from _wrapped(case.title)
    rule = rules.get(case.rule)
    yield from _wrapped(
        f"{case.rule}, {case.force}: {rule.summary if rule else 'not in protocol.md'}", "rule"
    )
    if outcome.reason:
        yield from _wrapped(
            f"{_REASONS.get(outcome.verdict, '')}{outcome.reason}",
            "known" if outcome.verdict is Verdict.ERROR else outcome.verdict.value,
        )
    if failure is not None:
        yield f"  step      {step_text(case, failure)}"
        yield from _labelled("expected", failure.expected)
        yield from _labelled("seen", failure.seen)
        if failure.trace:
            yield "  wire      > to the testee, < from it; seconds since the case began"
            yield from _trace(failure.trace)
        if failure.stderr_tail.strip():
            yield "  stderr    its last lines"
            for line in failure.stderr_tail.strip("\n").split("\n"):
                yield f"    | {shortened(printable(line.rstrip()))}"
    if outcome.before and failure is not None:
        yield f"  process   shared with {outcome.before:,} cases played before it: alone it may pass"
    if noise := noise_text(outcome):
        yield f"  noise     {noise}"
    yield f"  again     {again(run, case, options)}"


_REASONS = {Verdict.STALE: "it passes; take it off the list of known failures, which says: "}


def _wrapped(words: str, label: str = "") -> list[str]:
    first, others = (f"  {label:<9} ", " " * 12) if label else ("  ", "  ")
    return textwrap.wrap(
        printable(words), WIDTH, initial_indent=first, subsequent_indent=others, break_on_hyphens=False
    )


def _labelled(label: str, content: str) -> Iterator[str]:
    lines = printable(content, lines=True).split("\n")
    for number, line in enumerate(lines):
        yield f"  {label if number == 0 else '':<9} {shortened(line)}".rstrip()


def _trace(trace: Sequence[TraceLine]) -> Iterator[str]:
    # Where it failed is at the end; how it began says in which state.
    first, last = MOST_TRACED // 3, MOST_TRACED - MOST_TRACED // 3
    for number, line in enumerate(trace):
        if first <= number < len(trace) - last:
            if number == first:
                yield f"             … {len(trace) - MOST_TRACED:,} lines left out …"
            continue
        yield f"    {line.seconds:7.3f} {_ARROWS[line.direction]} {frame_text(line.data)}"


# Summary -------------------------------------------------------------------------------------


def summary(run: Run) -> str:
    """What the run came to: the testee, counts by level and verdict, what was left out, and the verdict."""
    return "\n".join([*_heading(run), "", *_table(run), *_lists(run), "", _last_line(run)]) + "\n"


def _heading(run: Run) -> Iterator[str]:
    yield f"{testee_name(run.testee)}, {run.dialect} dialect"
    yield from _wrapped(f"features: {', '.join(features_of(run.testee)) or 'none'}")


def _table(run: Run) -> Iterator[str]:
    yield f"{'':9}{'cases':>7}" + "".join(f"{verdict.value:>12}" for verdict in _COLUMNS)
    rows: dict[str, list[Verdict]] = {}
    for outcome in sorted(run.outcomes, key=lambda outcome: outcome.case.level):
        rows.setdefault(f"level {outcome.case.level}", []).append(outcome.verdict)
    rows["in all"] = [outcome.verdict for outcome in run.outcomes]
    for name, verdicts in rows.items():
        counts = collections.Counter(verdicts)
        yield f"{name:9}{len(verdicts):>7}" + "".join(f"{counts[column]:>12}" for column in _COLUMNS)


def _lists(run: Run) -> Iterator[str]:
    for verdict, heading in (
        (Verdict.FAIL, "failed"),
        (Verdict.ERROR, "crashed, or could not be talked to"),
        (Verdict.STALE, "listed as known failures, and pass"),
        (Verdict.NON_STRICT, "what SHOULD or MAY hold, and did not"),
    ):
        found = [outcome for outcome in run.outcomes if outcome.verdict is verdict]
        if found:
            yield f"\n{heading}:"
            yield from (_cut(f"  {outcome.case.id}: {printable(outcome.case.title)}") for outcome in found)
    unknown = unknown_features(run.testee)
    if unknown:
        yield "\nfeatures that spec/testee.md does not know, misspelt perhaps:"
        yield from _wrapped(", ".join(unknown))
    noisy = [outcome for outcome in run.outcomes if outcome.noise]
    if noisy:
        yield f"\nnoise on the testee's stdout: {sum(outcome.noise for outcome in noisy):,} lines, in"
        yield from (_cut(f"  {outcome.case.id}: {noise_text(outcome)}") for outcome in noisy[:_MOST_NOISY])
        if len(noisy) > _MOST_NOISY:
            yield f"  … and {len(noisy) - _MOST_NOISY:,} more cases"
    missing = collections.Counter(
        outcome.reason for outcome in run.outcomes if outcome.verdict is Verdict.SKIP
    )
    if missing:
        yield "\nskipped, for lack of:"
        yield from (f"  {printable(reason)}: {count}" for reason, count in sorted(missing.items()))


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 2]} …"


def _last_line(run: Run) -> str:
    bad = sum(outcome.verdict.is_bad for outcome in run.outcomes)
    verdict = "passed" if run.passed else f"FAILED, {bad} bad" if bad else "NOTHING WAS TESTED"
    return f"{len(run.outcomes)} cases, {run.played} played, in {run.seconds:.1f} s: {verdict}"
