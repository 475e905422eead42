"""The list of known failures: what it does to verdicts, and how it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kkrpc_py.conformance import known
from kkrpc_py.conformance.cases import Case
from kkrpc_py.conformance.files import Unwritable
from kkrpc_py.conformance.known import Entry, KnownError
from kkrpc_py.conformance.results import Failure, Outcome, Run, Verdict

FAILURE = Failure(step=0, expected="this", seen="that")
LISTED = {"str-5/a": Entry("x"), "str-5/b": Entry("why")}
FAILS = (Verdict.FAIL, Verdict.ERROR, Verdict.NON_STRICT)


def run_of(**verdicts: Verdict) -> Run:
    """One case for each name."""
    outcomes = tuple(
        Outcome(
            Case(f"str-5/{name}", "It holds.", "STR-5", "MUST", 2, "callee", ({"quiet": True},)),
            verdict,
            1.0,
            FAILURE if verdict in FAILS else None,
            "cbor" if verdict is Verdict.SKIP else "",
        )
        for name, verdict in verdicts.items()
    )
    return Run(("testee",), "classic", {}, outcomes, 1.0)


EVERYTHING = {
    "a": Verdict.PASS,
    "b": Verdict.FAIL,
    "c": Verdict.ERROR,
    "d": Verdict.SKIP,
    "e": Verdict.NON_STRICT,
}


def judged(run: Run) -> list[tuple[str, str, str]]:
    return [(each.case.id.partition("/")[2], each.verdict.value, each.reason) for each in run.outcomes]


def test_what_is_listed_is_known_or_stale() -> None:
    entries = {f"str-5/{name}": Entry(f"why {name}", may_crash=True) for name in EVERYTHING}
    run = known.apply(run_of(**EVERYTHING), entries)
    assert judged(run) == [
        ("a", "stale", "why a"),
        ("b", "known", "why b"),
        ("c", "known", "why c"),
        ("d", "skip", "cbor"),
        ("e", "known", "why e"),
    ]
    assert [each.failure for each in run.outcomes] == [None, FAILURE, FAILURE, None, FAILURE]


def test_a_crash_of_what_is_known_to_fail_is_news() -> None:
    entries = {"str-5/a": Entry("why a"), "str-5/b": Entry("why b"), "str-5/c": Entry("why c")}
    run = known.apply(run_of(b=Verdict.FAIL, c=Verdict.ERROR), entries)
    assert judged(run) == [("b", "known", "why b"), ("c", "error", "known to fail (why c), not to crash")]
    assert not run.passed


def test_what_is_not_listed_stays_as_it_is() -> None:
    run = run_of(**EVERYTHING)
    assert known.apply(run, {"str-5/z": Entry("why")}) == run


def test_a_run_of_known_failures_is_good_and_a_stale_one_is_not() -> None:
    assert known.apply(run_of(a=Verdict.PASS, b=Verdict.FAIL), {"str-5/b": Entry("why")}).passed
    assert not known.apply(run_of(a=Verdict.PASS, b=Verdict.FAIL), LISTED).passed


def test_a_baseline_makes_the_run_good_and_forgets_nothing() -> None:
    run = run_of(**EVERYTHING, f=Verdict.FAIL)
    before = {
        "str-5/a": Entry("passes now"),
        "str-5/c": Entry("issue 3"),
        "str-5/d": Entry("skipped"),
        "str-5/z": Entry("not run"),
    }
    after = known.baseline(run, before)
    assert after == {
        "str-5/b": Entry("baseline"),
        "str-5/c": Entry("issue 3", may_crash=True),
        "str-5/d": Entry("skipped"),
        "str-5/f": Entry("baseline"),
        "str-5/z": Entry("not run"),
    }
    assert known.apply(run, after).passed


def test_what_is_not_strict_needs_no_entry_and_keeps_one() -> None:
    run = run_of(a=Verdict.NON_STRICT)
    assert known.baseline(run, {}) == {}
    assert known.baseline(run, {"str-5/a": Entry("issue 4")}) == {"str-5/a": Entry("issue 4")}


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    entries = {"str-5/b": Entry("issue 2, größer", may_crash=True), "str-5/a": Entry("baseline")}
    known.write(path, entries)
    assert known.read(path) == entries
    assert path.read_text("utf-8").startswith('{\n  "known": {\n    "str-5/a": "baseline",\n')


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "Expecting"),
        ("[]", "is not of the form"),
        ("{}", "is not of the form"),
        ('{"known": []}', "is not of the form"),
        ('{"known": {}, "unknown": {}}', "is not of the form"),
        ('{"known": {"str-5/a": ""}}', "str-5/a: there is no reason"),
        ('{"known": {"str-5/a": 1}}', "str-5/a: it is no reason"),
        ('{"known": {"str-5/a": {"reason": "why"}}}', "str-5/a: it is no reason"),
        ('{"known": {"str-5/a": {"verdict": "pass", "reason": "why"}}}', "str-5/a: it is no reason"),
        ('{"known": {"str-5/a": {"verdict": "fail", "reason": "why", "x": 1}}}', "str-5/a: it is no reason"),
        ('{"known": {"str-5/a": {"verdict": "error", "reason": " "}}}', "str-5/a: there is no reason"),
        ("[" * 100_000, "recursion"),
        (b"\xff", "utf-8"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: Any, complaint: str) -> None:
    path = tmp_path / "known.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(KnownError, match=complaint):
        known.read(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KnownError, match=r"known\.json"):
        known.read(tmp_path / "known.json")
    assert known.read(tmp_path / "known.json", may_miss=True) == {}
    with pytest.raises(Unwritable, match="nowhere"):
        known.write(tmp_path / "nowhere" / "known.json", {})


def test_an_entry_that_is_no_case_is_refused() -> None:
    cases = [outcome.case for outcome in run_of(**EVERYTHING).outcomes]
    known.check({"str-5/a": Entry("why")}, cases)
    with pytest.raises(KnownError, match="no case has the id str-5/x, str-5/z"):
        known.check({"str-5/z": Entry("why"), "str-5/a": Entry("why"), "str-5/x": Entry("why")}, cases)


def test_a_baseline_is_json_that_others_read(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    known.write(path, known.baseline(run_of(b=Verdict.FAIL, c=Verdict.ERROR), {}))
    assert json.loads(path.read_text("utf-8")) == {
        "known": {"str-5/b": "baseline", "str-5/c": {"verdict": "error", "reason": "baseline"}}
    }


def test_a_failure_may_say_that_it_is_one(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    path.write_text('{"known": {"str-5/a": {"verdict": "fail", "reason": "why"}}}')
    assert known.read(path) == {"str-5/a": Entry("why")}
