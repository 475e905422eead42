"""The three reports, of runs in which everything happened, and whose testee said what it liked."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from kkrpc_py.conformance import jsonreport, junit, report
from kkrpc_py.conformance.cases import Case
from kkrpc_py.conformance.command import parse
from kkrpc_py.conformance.results import Failure, Outcome, Run, TraceLine, Verdict
from kkrpc_py.conformance.rules import rules_of
from kkrpc_py.conformance.shown import FEATURES, frame_text, printable, shortened

ROOT = Path(__file__).resolve().parents[2]
RULES = rules_of(ROOT / "spec")
SCHEMA = json.loads((ROOT / "spec" / "conformance" / "report.schema.json").read_text("utf-8"))

# What no XML, no terminal and no UTF-8 can hold, and what looks like their markings.
HOSTILE = (
    "nul \0 bell \a escape \x1b[31m ]]> <b> & \" ' lone \ud800 \udfff next \x85 apart \u2028 "
    "\ufffe \ufdd0 \U0010ffff"
)
# A chunk of the id "1".
PAYLOAD = bytes.fromhex("a2626964613164747970656c73747265616d2d6368756e6b")
FRAME = b"\xd8\x18\x58" + bytes([len(PAYLOAD)]) + PAYLOAD
COMMAND = ("node", "my testee.mjs", "--say", "it's; $HOME")


def case(name: str, level: int = 2, **keys: Any) -> Case:
    base: dict[str, Any] = {
        "id": f"str-5/{name}",
        "title": f"Nothing follows a stream's end. {HOSTILE}",
        "rule": "STR-5",
        "force": "MUST",
        "level": level,
        "role": "callee",
        "steps": ({"send": {"id": "1"}}, {"expect": {"id": "1", "args": {"x": HOSTILE}}}),
    }
    return Case(**{**base, **keys})


FAILURE = Failure(
    step=1,
    expected=f"a stream-end {HOSTILE}",
    seen=f"two lines\nof it {HOSTILE}" + "y" * 2000,
    trace=(
        TraceLine(0.0, "note", f"a new process {HOSTILE}".encode("utf-8", "surrogatepass")),
        TraceLine(0.001, "to testee", b'{"id":"1"}'),
        TraceLine(0.25, "from testee", FRAME),
        TraceLine(0.5, "from testee", b"\xff\xfe\x00 half \xc3"),
        TraceLine(1.5, "from testee", b'{"id":"1","args":{"value":"' + b"x" * 100_000 + b'END"}}'),
    ),
    stderr_tail=f"Traceback\n  {HOSTILE}\r\nError: it broke\n",
)


def run_of(*outcomes: Outcome, **keys: Any) -> Run:
    base: dict[str, Any] = {
        "command": COMMAND,
        "dialect": "classic",
        "testee": {"name": f"mine {HOSTILE}", "version": 1.5, "features": ["cbor", f"odd {HOSTILE}", 7]},
        "outcomes": outcomes,
        "seconds": 12.345,
    }
    return Run(**{**base, **keys})


EVERYTHING = run_of(
    Outcome(case("passes", 0), Verdict.PASS, 0.5, noise=1200, first_noise=b"noise \xff\x00 ]]>"),
    Outcome(case("fails"), Verdict.FAIL, 1.5, FAILURE, before=1059),
    Outcome(case("crashes", 1), Verdict.ERROR, 0.25, dataclasses.replace(FAILURE, step=None)),
    Outcome(case("lacks", 1), Verdict.SKIP, reason="cbor, superjson"),
    Outcome(case("lacks-too", 3), Verdict.SKIP, reason="cbor, superjson"),
    Outcome(case("is-known"), Verdict.KNOWN, 0.125, FAILURE, f"issue 12 {HOSTILE}"),
    Outcome(case("is-stale"), Verdict.STALE, 0.0625, None, f"issue 13 {HOSTILE}"),
    Outcome(
        case("is-lax", force="SHOULD"), Verdict.NON_STRICT, 0.0, FAILURE, noise=1, first_noise=b"Loading"
    ),
)
GOOD = run_of(Outcome(case("passes", 0, title="It passes."), Verdict.PASS, 0.5), testee={})
FORMS = {"text": report.text, "junit": junit.xml, "json": jsonreport.document}


def counts(run: Run) -> dict[str, int]:
    return {verdict.value: run.count(verdict) for verdict in Verdict}


def strings(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for pair in value.items() for each in pair for text in strings(each)]
        case list():
            return [text for each in value for text in strings(each)]
        case _:
            return []


@pytest.mark.parametrize("form", FORMS)
def test_a_report_can_be_written_and_harms_no_terminal(form: str) -> None:
    text = FORMS[form](EVERYTHING, RULES, ())
    assert text.encode("utf-8")
    assert text.endswith("\n")
    if form != "json":  # which escapes in its own way
        assert [each for each in text if not each.isprintable() and each not in "\n\t"] == []


# Text ----------------------------------------------------------------------------------------


def blocks(text: str) -> dict[str, list[str]]:
    """The lines of each case's block, by its first line."""
    found = [block.split("\n") for block in text.split("\n\n")]
    return {block[0]: block for block in found if re.match(r"[A-Z-]+  str-5/", block[0])}


def test_the_text_has_a_block_for_each_case_that_is_not_simply_good() -> None:
    text = report.text(EVERYTHING, RULES)
    assert list(blocks(text)) == [
        "FAIL  str-5/fails",
        "ERROR  str-5/crashes",
        "KNOWN  str-5/is-known",
        "STALE  str-5/is-stale",
        "NON-STRICT  str-5/is-lax",
    ]


def test_a_block_has_all_that_one_needs_to_know() -> None:
    text = report.text(EVERYTHING, RULES)
    lines = blocks(text)["FAIL  str-5/fails"]
    content = "\n".join(lines)
    assert "  Nothing follows a stream's end." in content
    assert f"  rule      STR-5, MUST: {RULES['STR-5'].summary[:40]}" in content
    assert '  step      1 of 0 to 1: {"expect": {"id": "1"' in content
    assert "  expected  a stream-end nul \\x00 bell \\x07 escape \\x1b[31m ]]>" in content
    assert "  seen      two lines\n            of it nul \\x00" in content
    assert "      0.000 · a new process nul \\x00" in content
    assert '      0.001 > {"id":"1"}' in content
    assert f'      0.250 < CBOR, 28 bytes: {FRAME.hex()} = {{"id": "1", "type": "stream-chunk"}}' in content
    assert "      0.500 < \\xff\\xfe\\x00 half \\xc3" in content
    assert "    | Error: it broke" in content
    assert "  process   shared with 1,059 cases played before it: alone it may pass\n" in content
    assert re.search(
        r'  1\.500 < \{"id":"1","args":\{"value":"x+ … 100,033 bytes in all … x+END"\}\}\n', content
    )
    assert max(map(len, lines)) < 1000


def test_the_set_up_and_the_last_check_are_no_step() -> None:
    text = report.text(EVERYTHING, RULES)
    assert "  step      no step: " in "\n".join(blocks(text)["ERROR  str-5/crashes"])


def test_what_the_list_of_known_failures_says_is_shown() -> None:
    found = blocks(report.text(EVERYTHING, RULES))
    assert "  known     issue 12 nul" in "\n".join(found["KNOWN  str-5/is-known"])
    stale = " ".join("\n".join(found["STALE  str-5/is-stale"]).split())
    assert "stale it passes; take it off the list of known failures, which says: issue 13" in stale


@pytest.mark.parametrize("form", FORMS)
def test_the_command_to_run_a_case_again_is_one_for_a_shell(form: str) -> None:
    text = FORMS[form](EVERYTHING, RULES, ("--timeout", "20"))
    if form == "json":
        shown = json.loads(text)["outcomes"][1]["again"]
    else:
        content = "".join(ElementTree.fromstring(text).itertext()) if form == "junit" else text
        shown = re.findall(r"^  again     (.*str-5/fails.*)$", content, re.MULTILINE)[0]
    words = shlex.split(shown)
    assert words[:2] == ["kkrpc-py", "conformance"]
    options = parse(words[2:])
    assert (options.command, options.case, options.timeout) == (COMMAND, ["str-5/fails"], 20)


def test_a_long_trace_shows_its_beginning_and_its_end() -> None:
    lines = tuple(TraceLine(float(number), "note", b"line %d" % number) for number in range(100))
    failure = dataclasses.replace(FAILURE, trace=lines)
    text = report.text(run_of(Outcome(case("fails"), Verdict.FAIL, 1.0, failure)), RULES)
    shown = [int(number) for number in re.findall(r" · line (\d+)$", text, re.MULTILINE)]
    assert shown == [*range(20), *range(60, 100)]
    assert "… 40 lines left out …" in text


def test_a_case_whose_rule_is_not_in_the_text_is_shown_all_the_same() -> None:
    text = report.text(EVERYTHING, {})
    assert "  rule      STR-5, MUST: not in protocol.md" in text


def test_the_summary_counts_by_level_and_verdict() -> None:
    lines = report.summary(EVERYTHING).split("\n")
    start = next(number for number, line in enumerate(lines) if line.lstrip().startswith("cases"))
    table = [re.split(r"  +", line.strip()) for line in lines[start : start + 6]]
    assert table == [
        ["cases", "pass", "fail", "error", "stale", "non-strict", "known", "skip"],
        ["level 0", "1", "1", "0", "0", "0", "0", "0", "0"],
        ["level 1", "2", "0", "0", "1", "0", "0", "0", "1"],
        ["level 2", "4", "0", "1", "0", "1", "1", "1", "0"],
        ["level 3", "1", "0", "0", "0", "0", "0", "0", "1"],
        ["in all", "8", "1", "1", "1", "1", "1", "1", "2"],
    ]


def test_the_summary_says_what_is_bad_what_was_skipped_and_what_was_not_strict() -> None:
    summary = report.summary(EVERYTHING)
    assert summary.endswith("\n\n8 cases, 6 played, in 12.3 s: FAILED, 3 bad\n")
    for heading, name in [
        ("failed", "str-5/fails: Nothing"),
        ("crashed, or could not be talked to", "str-5/crashes: Nothing"),
        ("listed as known failures, and pass", "str-5/is-stale: Nothing"),
        ("what SHOULD or MAY hold, and did not", "str-5/is-lax: Nothing"),
        ("skipped, for lack of", "cbor, superjson: 2\n"),
    ]:
        assert f"\n{heading}:\n  {name}" in summary
    assert summary.startswith("mine nul \\x00")
    assert "features: 7, cbor, odd nul" in summary
    assert "\nfeatures that spec/testee.md does not know, misspelt perhaps:\n  7, odd nul" in summary
    assert (
        "\nnoise on the testee's stdout: 1,201 lines, in\n"
        "  str-5/passes: 1,200 lines, the first: noise \\xff\\x00 ]]>\n"
        "  str-5/is-lax: 1 line: Loading\n"
    ) in summary


def test_the_summary_names_some_of_many_noisy_cases() -> None:
    outcomes = [Outcome(case(f"noisy-{n}"), Verdict.PASS, noise=1, first_noise=b"x") for n in range(7)]
    summary = report.summary(run_of(*outcomes))
    assert "7 lines, in\n  str-5/noisy-0: 1 line: x\n" in summary
    assert "  str-5/noisy-4: 1 line: x\n  … and 2 more cases\n" in summary


def test_a_run_in_which_nothing_was_played_has_not_passed() -> None:
    run = run_of(Outcome(case("lacks"), Verdict.SKIP, reason="cbor"))
    assert not run.passed
    assert report.summary(run).endswith("\n1 cases, 0 played, in 12.3 s: NOTHING WAS TESTED\n")
    assert json.loads(jsonreport.document(run, RULES))["passed"] is False


def test_the_features_are_those_of_the_cases() -> None:
    schema = json.loads((ROOT / "spec" / "conformance" / "cases.schema.json").read_text("utf-8"))["$defs"]
    assert {*schema["agreed"]["enum"], *schema["feature"]["anyOf"][1]["enum"]} == FEATURES


def test_the_summary_of_a_good_run_is_short() -> None:
    summary = report.summary(GOOD)
    assert summary.startswith("a testee without a name, classic dialect\n")
    assert summary.endswith("\n\n1 cases, 1 played, in 12.3 s: passed\n")
    assert report.text(GOOD, RULES) == summary


# JUnit ---------------------------------------------------------------------------------------

# What Jenkins, GitLab and pytest agree on: attributes that an element has, and the children it may have.
ELEMENTS: Mapping[str, tuple[set[str], list[str]]] = {
    "testsuites": ({"name", "tests", "failures", "errors", "skipped", "time"}, ["testsuite"]),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time"},
        ["properties", "testcase", "system-out", "system-err"],
    ),
    "properties": (set(), ["property"]),
    "property": ({"name", "value"}, []),
    "testcase": (
        {"classname", "name", "time"},
        ["skipped", "error", "failure", "system-out", "system-err"],
    ),
    "skipped": ({"type", "message"}, []),
    "error": ({"type", "message"}, []),
    "failure": ({"type", "message"}, []),
    "system-out": (set(), []),
    "system-err": (set(), []),
}


def check_junit(element: ElementTree.Element) -> None:
    attributes, children = ELEMENTS[element.tag]
    assert set(element.keys()) == attributes
    tags = [child.tag for child in element]
    assert tags == sorted(tags, key=children.index)
    if element.tag == "testcase":
        assert len(set(tags)) == len(tags)
        assert len({"skipped", "error", "failure"} & set(tags)) <= 1
    for name in {"tests", "failures", "errors", "skipped"} & attributes:
        assert element.get(name) == str(len(list(element.iter(JUNIT_COUNTS[name]))))
    if "time" in attributes:
        assert float(element.get("time", "")) >= 0
    for child in element:
        check_junit(child)


JUNIT_COUNTS = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}


@pytest.mark.parametrize("run", [EVERYTHING, GOOD], ids=["everything", "good"])
def test_the_junit_report_has_the_form_that_others_read(run: Run) -> None:
    suites = ElementTree.fromstring(junit.xml(run, RULES))
    assert suites.tag == "testsuites"
    check_junit(suites)
    assert sum(1 for _ in suites.iter("testcase")) == len(run.outcomes)


def test_the_junit_report_says_what_became_of_each_case() -> None:
    suites = ElementTree.fromstring(junit.xml(EVERYTHING, RULES))
    found = {
        element.get("name", "").removeprefix("str-5/"): [child.tag for child in element]
        for element in suites.iter("testcase")
    }
    assert found == {
        "passes": ["system-out"],
        "fails": ["failure", "system-out", "system-err"],
        "crashes": ["error", "system-out", "system-err"],
        "lacks": ["skipped"],
        "lacks-too": ["skipped"],
        "is-known": ["skipped", "system-out", "system-err"],
        "is-stale": ["failure", "system-out"],
        "is-lax": ["system-out", "system-err"],
    }
    assert [suite.get("name") for suite in suites] == ["level 0", "level 1", "level 2", "level 3"]


def test_the_junit_report_carries_the_trace_and_stderr() -> None:
    suites = ElementTree.fromstring(junit.xml(EVERYTHING, RULES))
    (fails,) = (element for element in suites.iter("testcase") if element.get("name") == "str-5/fails")
    assert fails.get("classname") == "conformance.level2.STR-5"
    failure = fails.find("failure")
    assert failure is not None
    assert failure.get("type") == "fail"
    assert "expected a stream-end nul \\x00" in str(failure.text)
    assert "]]> <b> & \" ' lone \\ud800 \\udfff" in str(fails.findtext("system-out"))
    assert '0.001 > {"id":"1"}' in str(fails.findtext("system-out"))
    assert str(fails.findtext("system-err")).endswith("\\r\nError: it broke\n")


# JSON ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [EVERYTHING, GOOD], ids=["everything", "good"])
def test_the_json_report_is_of_its_schema(run: Run) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(jsonreport.document(run, RULES)))


def test_the_schema_of_the_json_report_refuses_what_is_not_one() -> None:
    document = json.loads(jsonreport.document(EVERYTHING, RULES))
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for wrong in (
        {"form": 2},
        {"counts": {}},
        {"outcomes": [{**document["outcomes"][1], "verdict": "broken"}]},
        {"outcomes": [{key: value for key, value in document["outcomes"][1].items() if key != "failure"}]},
        {"levels": {"9": document["counts"]}},
    ):
        assert not validator.is_valid({**document, **wrong})


def test_the_json_report_says_what_the_run_came_to() -> None:
    document = json.loads(jsonreport.document(EVERYTHING, RULES))
    assert document["counts"] == counts(EVERYTHING)
    assert document["passed"] is False
    assert json.loads(jsonreport.document(GOOD, RULES))["passed"] is True
    assert document["levels"]["2"]["stale"] == 1
    assert (document["played"], document["unknown_features"][0]) == (6, "7")
    assert [each["noise"] for each in document["outcomes"] if "noise" in each] == [
        {"lines": 1200, "first": "noise \\xff\\x00 ]]>"},
        {"lines": 1, "first": "Loading"},
    ]
    assert [(each["id"], each["verdict"]) for each in document["outcomes"]] == [
        (each.case.id, each.verdict.value) for each in EVERYTHING.outcomes
    ]


def test_the_json_report_carries_the_trace() -> None:
    failure = json.loads(jsonreport.document(EVERYTHING, RULES))["outcomes"][1]["failure"]
    lines = failure["trace"]
    assert lines[1] == {"seconds": 0.001, "direction": "to testee", "length": 10, "text": '{"id":"1"}'}
    assert lines[2] == {"seconds": 0.25, "direction": "from testee", "length": 28, "hex": FRAME.hex()}
    assert (lines[4]["length"], len(lines[4]["text"])) == (100_033, 16_384)
    assert failure["step_content"]["expect"]["id"] == "1"


def test_no_text_of_the_json_report_is_half_a_character() -> None:
    document = json.loads(jsonreport.document(EVERYTHING, RULES))
    texts = strings(document)
    assert any("lone \\ud800 \\udfff" in text for text in texts)
    assert [text for text in texts if not text.encode("utf-8")] == [""] * texts.count("")


def test_a_cut_within_a_character_is_no_reason_for_hex() -> None:
    line = TraceLine(0.0, "from testee", b"x" + "é".encode() * 20_000)
    failure = dataclasses.replace(FAILURE, trace=(line,))
    document = jsonreport.document(run_of(Outcome(case("fails"), Verdict.FAIL, 0.0, failure)), RULES)
    (shown,) = json.loads(document)["outcomes"][0]["failure"]["trace"]
    assert shown["length"] == 40_001
    assert shown["text"] == "x" + "é" * 8191


def test_numbers_that_json_has_not_are_written_as_text() -> None:
    run = dataclasses.replace(GOOD, testee={"name": float("nan"), "of": {1: {2}}, "size": 10**6000})
    assert json.loads(jsonreport.document(run, RULES))["testee"] == {
        "name": "nan",
        "of": {"1": "{2}"},
        "size": "an integer of 19932 bits",
    }


@pytest.mark.parametrize("form", FORMS)
def test_no_report_is_lost_by_what_describe_said(form: str) -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    testee = {
        "name": deep,
        "version": 10**6000,
        "features": ["x" * 10**6, deep, {"a": 1}, None, 1.5],
        "more": deep,
    }
    text = FORMS[form](dataclasses.replace(EVERYTHING, testee=testee), RULES, ())
    if form == "json":
        jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(text))
    else:
        assert len(text) < 30_000
        assert "(list) (int)" in text


# How things are shown ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "shown"),
    [
        (b"", ""),
        ("grün \u2028".encode(), "grün \\u2028"),
        (b"\xff{", "\\xff{"),
        (b"\xd8\x18", "CBOR, 2 bytes: d818"),
        (b"\xd8\x18\x41\xf6", "CBOR, 4 bytes: d81841f6 = null"),
        (b"\xd8\x18\x41\x41", "CBOR, 4 bytes: d8184141"),
        (b"\xd8\x18\x5f\xff", "CBOR, 4 bytes: d8185fff"),
        (b"\xd8\x18\x44\xd8\x40\x41\xff", 'CBOR, 7 bytes: d81844d84041ff = {"array": '),
        (b"\xd8\x18\x42\x61\x1b", 'CBOR, 5 bytes: d81842611b = "\\u001b"'),
    ],
)
def test_a_frame_is_shown_on_one_line(frame: bytes, shown: str) -> None:
    assert frame_text(frame).startswith(shown)
    if not shown.endswith(": "):
        assert frame_text(frame) == shown


def test_text_is_shortened_with_its_length() -> None:
    assert shortened("x" * 400) == "x" * 400
    assert shortened("x" * 999 + "y") == "x" * 320 + " … 1,000 characters in all … " + "x" * 79 + "y"


def test_only_what_is_printable_stays() -> None:
    assert printable("a\tb\nc\r\x7fé\u200b\ue000") == "a\\tb\\nc\\r\\x7fé\\u200b\\ue000"
    assert printable("a\tb\nc\r", lines=True) == "a\tb\nc\\r"
