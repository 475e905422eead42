"""The report as JUnit XML, which most CI systems read.

A suite for each level, a test case for each case. `fail` and `stale` are failures, `error` is an error,
`skip` and `known` are skipped, `non-strict` passes and says so in its output. It owns the form of the XML;
`report` has the words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from kkrpc_py.conformance.report import outcome_lines
from kkrpc_py.conformance.results import Outcome, Run, Verdict
from kkrpc_py.conformance.rules import Rule
from kkrpc_py.conformance.shown import noise_text, printable, shortened, testee_name

__all__ = ["xml"]

_ELEMENTS = {
    Verdict.FAIL: "failure",
    Verdict.STALE: "failure",
    Verdict.ERROR: "error",
    Verdict.SKIP: "skipped",
    Verdict.KNOWN: "skipped",
}
_COUNTS = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def xml(run: Run, rules: Mapping[str, Rule], options: Sequence[str] = ()) -> str:
    """The whole report, an XML document in UTF-8. `options` as in `report.text`."""
    levels: dict[int, list[Outcome]] = {}
    for outcome in run.outcomes:
        levels.setdefault(outcome.case.level, []).append(outcome)
    suites = ElementTree.Element("testsuites", name="kkrpc conformance")
    _count(suites, run.outcomes, run.seconds)
    for level in sorted(levels):
        outcomes = levels[level]
        suite = ElementTree.SubElement(suites, "testsuite", name=f"level {level}")
        _count(suite, outcomes, sum(outcome.seconds for outcome in outcomes))
        properties = ElementTree.SubElement(suite, "properties")
        for name, value in (
            ("testee", testee_name(run.testee)),
            ("command", printable(" ".join(run.command))),
            ("dialect", run.dialect),
        ):
            ElementTree.SubElement(properties, "property", name=name, value=value)
        for outcome in outcomes:
            suite.append(_case(run, outcome, rules, options))
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suites, "unicode") + "\n"


def _count(element: ElementTree.Element, outcomes: Sequence[Outcome], seconds: float) -> None:
    kinds = [_ELEMENTS.get(outcome.verdict) for outcome in outcomes]
    element.set("tests", str(len(outcomes)))
    for attribute, kind in _COUNTS.items():
        element.set(attribute, str(kinds.count(kind)))
    element.set("time", f"{seconds:.3f}")


def _case(
    run: Run, outcome: Outcome, rules: Mapping[str, Rule], options: Sequence[str]
) -> ElementTree.Element:
    case, failure = outcome.case, outcome.failure
    element = ElementTree.Element(
        "testcase",
        classname=f"conformance.level{case.level}.{case.rule}",
        name=case.id,
        time=f"{outcome.seconds:.3f}",
    )
    kind = _ELEMENTS.get(outcome.verdict)
    if kind is not None:
        said = outcome.reason if kind == "skipped" or failure is None else f"expected {failure.expected}"
        found = ElementTree.SubElement(
            element, kind, type=outcome.verdict.value, message=printable(shortened(f"{case.title} {said}"))
        )
        if kind != "skipped" and failure is not None:
            found.text = printable(
                f"expected {shortened(failure.expected)}\nseen {shortened(failure.seen)}", lines=True
            )
    if outcome.verdict not in {Verdict.PASS, Verdict.SKIP}:
        # `report` has escaped what XML cannot hold: none of it is printable.
        output = ElementTree.SubElement(element, "system-out")
        output.text = "\n".join(outcome_lines(run, outcome, rules, options))
    elif noise := noise_text(outcome):
        ElementTree.SubElement(element, "system-out").text = f"noise on stdout, {noise}"
    if failure is not None and failure.stderr_tail:
        ElementTree.SubElement(element, "system-err").text = printable(failure.stderr_tail, lines=True)
    return element
