"""The linter finds what is wrong with the files of spec/conformance, and nothing is."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kkrpc_py.conformance.lint import LinterUnavailable, lint
from kkrpc_py.conformance.rules import rules_of

ROOT = Path(__file__).resolve().parents[2]
SPEC = ROOT / "spec"
LEAST = {0: 270, 1: 160, 2: 110, 3: 60, 4: 250}

PROTOCOL = """# The protocol

**STR-1.** A stream MUST open, and MUST NOT open twice.

> *Stock:* it MUST be said that this is no rule.

**STR-2.** Each value is one chunk.

## 2. Values

**VAL-1.** A value **MUST** arrive:

| value | MUST |
|---|---|

## 3. Closing

This MUST count for nobody.

## 20. Named streams

**NST-1.** The mark comes first.

**ACT-1.** An action takes an input.

**UPL-1.** The id comes first.
"""
CASE: dict[str, Any] = {
    "id": "str-1/opens",
    "title": "A stream opens.",
    "rule": "STR-1",
    "force": "MUST",
    "level": 2,
    "role": "callee",
    "dialects": ["classic"],
    "since": 1,
    "steps": [
        {"send": {"id": "1", "method": "count", "args": [2], "type": "request"}},
        {"expect": {"id": "1", "type": "response", "args": {"result": {"$capture": "x"}}}},
        {"chunks": {"id": "1", "values": {"$range": [0, 2]}}},
        {"expect": [{"id": "1", "type": "stream-end"}], "why": "and once"},
        {"call": "tag", "args": [{"$ref": "x"}], "result": {"$oneof": [{"$any": True}, {"$plus": ["x", 1]}]}},
        {"write": [{"text": "noise\n"}, {"frame": "80"}, {"repeat": [{"hex": "7b7d0a"}], "times": 2}]},
        {"send": {"id": "2", "args": {"$ref:x": 1}, "type": "callback"}, "times": 2, "length": 300},
        {"feed": {"id": "2", "values": [1, {"$repeat": ["x", 9]}], "end": True}},
        {"acks": {"id": "2", "n": {"$between": [0, 2]}}},
        {"drop": "2"},
        {"spent": "2"},
        {"send": {"id": "3", "method": {"$ref": "x"}, "args": [], "type": "callback"}},
        {"expect": {"id": "2"}, "json": {"json": {"$any": True}}, "length_not": 65536},
        {"call": "tag", "result": {"$tagged": {"bytes": {"$repeat": ["00", 9]}}}},
        {"reading": False},
        {"reading": True},
        {"barrier": True},
        {"quiet": True},
    ],
}
VECTOR: dict[str, Any] = {
    "id": "val-1/one-third",
    "rule": "VAL-1",
    "force": "MUST",
    "features": ["cbor", "rational"],
    "codec": "cbor",
    "hex": "d81e820103",
    "value": {"rational": ["1", "3"]},
    "directions": ["decode", "encode"],
}


class Folder:
    """A small specification without a fault, to be written with one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cases = [copy.deepcopy(CASE), {**copy.deepcopy(CASE), "id": "str-1/opens-once"}]
        self.vectors = [copy.deepcopy(VECTOR)]
        self.unobservable: dict[str, Any] = {}
        self.texts: dict[str, str] = {}

    @property
    def case(self) -> dict[str, Any]:
        return self.cases[0]

    @property
    def vector(self) -> dict[str, Any]:
        return self.vectors[0]

    def problems(self) -> list[str]:
        conformance = self.path / "conformance"
        for name in ("l2", "l4", "vectors"):
            (conformance / name).mkdir(parents=True)
        (self.path / "protocol.md").write_text(PROTOCOL, encoding="utf-8")
        for name in ("cases", "vectors"):
            shutil.copy(SPEC / "conformance" / f"{name}.schema.json", conformance)
        contents: dict[str, Any] = {
            "l2/streams.json": {"cases": self.cases},
            "vectors/all.json": {"vectors": self.vectors},
            "unobservable.json": self.unobservable,
        }
        for name, content in contents.items():
            (conformance / name).write_text(json.dumps(content), encoding="utf-8")
        for name, text in self.texts.items():
            (conformance / name).write_text(text, encoding="utf-8")
        return lint(self.path)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "spec")


def test_the_files_of_the_repository_have_no_problems() -> None:
    assert lint(SPEC) == []


def test_there_are_as_many_cases_as_the_kit_promises() -> None:
    counts = dict.fromkeys(LEAST, 0)
    for path in SPEC.glob("conformance/l?/*.json"):
        counts[int(path.parent.name[1])] += len(json.loads(path.read_text("utf-8"))["cases"])
    for path in SPEC.glob("conformance/vectors/*.json"):
        counts[0] += len(json.loads(path.read_text("utf-8"))["vectors"])
    assert {level: count for level, count in counts.items() if count < LEAST[level]} == {}
    assert sum(counts.values()) >= 600


def test_a_folder_without_a_fault_has_no_problems(folder: Folder) -> None:
    assert folder.problems() == []


def test_every_feature_of_the_schema_is_described(folder: Folder) -> None:
    schema = json.loads((SPEC / "conformance" / "cases.schema.json").read_text("utf-8"))
    agreed, others = schema["$defs"]["agreed"]["enum"], schema["$defs"]["feature"]["anyOf"][1]["enum"]
    section = (SPEC / "testee.md").read_text("utf-8").partition("## Features")[2]
    described = set(re.findall(r"`([a-z-]+)`", section)) - {"describe"}
    assert {*agreed, *others} == described


def steps(*planted: dict[str, Any]) -> Callable[[Folder], None]:
    """The fault is in these steps, the only ones of the case."""
    return lambda folder: folder.case.update(steps=list(planted))


def key(name: str, value: Any) -> Callable[[Folder], None]:
    return lambda folder: folder.case.update({name: value})


def vector_key(name: str, value: Any) -> Callable[[Folder], None]:
    return lambda folder: folder.vector.update({name: value})


def vectors(**keys: Any) -> Callable[[Folder], None]:
    """One more vector, with these keys."""
    base = {name: value for name, value in VECTOR.items() if name != "value" or "error" not in keys}
    return lambda folder: folder.vectors.append(
        {**base, "id": "val-1/more", "directions": ["decode"], **keys}
    )


def sends(**keys: Any) -> dict[str, Any]:
    return {"send": {"id": "1", "method": "echo", "args": [], "type": "request", **keys}}


def expects(args: Any) -> dict[str, Any]:
    return {"expect": {"id": "1", "type": "response", "args": args}}


def at_level_4(rule: str, role: str, *features: str) -> Callable[[Folder], None]:
    case = {
        **CASE,
        "id": f"{rule.lower()}/x",
        "rule": rule,
        "level": 4,
        "role": role,
        "features": [*features],
    }
    return lambda folder: folder.texts.update({"l4/hub.json": json.dumps({"cases": [case]})})


def shared_callback(folder: Folder) -> None:
    for case in folder.cases:
        case["steps"] = [sends(callbackIds=["f"])]


FAULTS: dict[str, tuple[Callable[[Folder], Any], str]] = {
    "no JSON": (lambda f: f.texts.update({"l2/streams.json": '{"cases": ['}), "l2/streams.json: no JSON"),
    "a key twice": (
        lambda f: f.texts.update({"l2/streams.json": '{"cases": [], "cases": []}'}),
        "the key 'cases' stands 2 times",
    ),
    "no cases": (lambda f: f.cases.clear(), "cases: "),
    "a key is missing": (lambda f: f.case.pop("title"), "str-1/opens: cases[0]: 'title' is a required"),
    "an unknown key": (key("titel", "x"), "'titel' was unexpected"),
    "an unknown force": (key("force", "must"), "cases[0].force: 'must' is not one of"),
    "an unknown feature": (key("features", ["wings"]), "cases[0].features[0]: 'wings' has none of"),
    "an unknown dialect": (key("dialects", ["compact"]), "'compact' is not one of"),
    "an unknown session": (key("session", "some"), "cases[0].session: 'some' has none of the forms"),
    "a session with what is no hello's": (
        key("session", ["noise"]),
        "cases[0].session[0]: 'noise'",
    ),
    "an id without form": (key("id", "STR-1/Opens"), "cases[0].id: 'STR-1/Opens' does not match"),
    "no steps": (key("steps", []), "cases[0].steps: "),
    "a step of two forms": (
        steps({"barrier": True, "quiet": True}),
        "cases[0].steps[0]: {'barrier': True, 'quiet': True} has none of the forms",
    ),
    "a step of no form": (steps({"wait": 1}), "cases[0].steps[0]: {'wait': 1} has none of the forms"),
    "a step with a key too many": (steps({"call": "x", "arg": []}), "'arg' was unexpected"),
    "a step with a wrong value": (steps({"barrier": False}), "cases[0].steps[0].barrier: True was expected"),
    "a part of no form": (steps({"write": [{"txt": "x"}]}), "steps[0].write[0]: {'txt': 'x'} has none of"),
    "a part that is no hex": (steps({"write": [{"hex": "0"}]}), "steps[0].write[0].hex: '0'"),
    "an exit code of a crash": ({"exit": 1}, ".exit"),
    "a vector without value and error": (
        lambda f: f.vector.pop("value"),
        "vectors[0]: {'id': 'val-1/",
    ),
    "a vector of an error to encode": (vectors(error="malformed", directions=["encode"]), "directions: "),
    "a vector of bad words": (vector_key("value", {"rational": ["1", "0"]}), "vectors[0].value.rational[1]"),
    "an id twice": (lambda f: f.cases[1].update(id="str-1/opens"), "str-1/opens: the id is used 2 times"),
    "an unknown rule": (
        lambda f: f.cases.append({**CASE, "id": "str-9/x", "rule": "STR-9"}),
        "str-9/x: protocol.md has no rule STR-9",
    ),
    "an id of another rule": (
        lambda f: f.cases.append({**CASE, "id": "str-2/x"}),
        "str-2/x: its id does not begin with its rule",
    ),
    "a level of another folder": (key("level", 1), "level 1 does not belong into this folder"),
    "an end of input": (steps({"end_input": True}), "step 0: a case with end_input is fresh"),
    "an exit": (steps({"exit": 0}), "step 0: a case with exit is fresh"),
    "the first bytes": (steps({"first_bytes": "0a"}), "step 0: a case with first_bytes is fresh"),
    "a hello": (steps(sends(method="kkrpc.hello")), "step 0: a case whose steps are about the hello"),
    "half a line": (
        steps({"write": [{"text": '{"id'}]}),
        "the last bytes are no whole line or frame",
    ),
    "half a frame": (
        steps({"write": [{"hex": "d81843"}]}),
        "the last bytes are no whole line or frame",
    ),
    "a message within a line": (
        steps({"write": [{"text": "Load"}]}, sends()),
        "step 1: it is sent in the middle of a line: a case",
    ),
    "a broken line": (
        steps({"write": [{"text": "{]\n"}]}),
        "step 0: a line that begins with {",
    ),
    "a broken frame": (steps({"write": [{"frame": "ff"}]}), "step 0: a CBOR frame that is not well-formed"),
    "a frame and more": (
        steps({"write": [{"frame": "8080"}]}),
        "step 0: a CBOR frame that is not well-formed",
    ),
    "a frame of an odd head": (
        steps({"write": [{"hex": "d81860"}]}),
        "step 0: a CBOR frame whose head is no byte string",
    ),
    "a frame without length": (
        steps({"write": [{"hex": "d8185f"}]}),
        "step 0: a CBOR head that is not well-formed",
    ),
    "superjson unsaid": (key("session", "superjson"), "it needs the feature superjson"),
    "CBOR unsaid": (steps({"expect": {"id": "1"}, "serialization": "cbor"}), "it needs the feature cbor"),
    "noise unsaid": (steps({"call": "noise"}), "it needs the feature noise"),
    "validation unsaid": (steps(sends(method="typed.input")), "it needs the feature validation"),
    "a rule of the hub at another level": (
        lambda f: f.cases.append({**CASE, "id": "nst-1/x", "rule": "NST-1"}),
        "nst-1/x: level 4 is that of the rules NST, UPL, EVT, STA, ACT",
    ),
    "a rule at the level of the hub": (
        at_level_4("STR-1", "callee"),
        "str-1/x: level 4 is that of the rules",
    ),
    "the hub unsaid": (at_level_4("NST-1", "callee"), "it needs the feature named-streams"),
    "a part of the hub unsaid": (
        at_level_4("UPL-1", "callee", "named-streams"),
        "it needs the feature uploads",
    ),
    "an action unsaid": (at_level_4("ACT-1", "callee", "named-streams"), "it needs the feature actions"),
    "a client of the hub unsaid": (at_level_4("UPL-1", "caller"), "it needs the feature streams-client"),
    "the kit's id": (steps(sends(id="kit:1")), "step 0: ids that begin with kit:"),
    "a type of CBOR unsaid": (vector_key("features", ["cbor"]), "it needs the feature rational"),
    "a codec unsaid": (vector_key("features", ["rational"]), "val-1/one-third: it needs the feature cbor"),
    "a big integer unsaid": (
        vectors(value={"map": [[{"text": "x"}, {"list": [{"int": "-9007199254740992"}]}]]}),
        "val-1/more: it needs the feature bigint",
    ),
    "an unusable frame of JSON": (
        vectors(codec="json", error="frame"),
        "the error of bytes in json",
    ),
    "noise of CBOR": (vectors(error="noise"), "the error of bytes in cbor cannot be noise"),
    "a callback's id that two cases use": (
        shared_callback,
        "str-1/opens-once: str-1/opens passes",
    ),
    "a reference before its capture": (
        steps(sends(id={"$ref": "x"}), expects({"$capture": "x"})),
        "step 0: $ref: 'x' was not captured before",
    ),
    "a reference in a key before its capture": (
        steps(sends(args={"$ref:x": 1})),
        "step 0: $ref:x: 'x' was not captured before",
    ),
    "a reference in a feed before its capture": (
        steps({"feed": {"id": {"$ref": "x"}, "values": []}}),
        "step 0: $ref: 'x' was not captured before",
    ),
    "a pattern in the JSON of a line": (
        steps({"expect": {}, "json": {"json": {"$some": 1}}}),
        "step 0: $some: 1 is no pattern",
    ),
    "a feed with a key too many": (
        steps({"feed": {"id": "1", "values": [], "close": True}}),
        "steps[0].feed: Additional properties",
    ),
    "bad words that are tagged": (steps(expects({"$tagged": {"int": 1}})), "$tagged: int: 1 is not"),
    "a sum before its capture": (steps(expects({"n": {"$plus": ["x", 1]}})), "$plus: 'x' was not captured"),
    "a pattern in what is sent": (steps(sends(id={"$any": True})), "$any has no meaning in what is sent"),
    "a pattern beside other keys": (steps(expects({"$any": True, "x": 1})), "$any stands beside other keys"),
    "an unknown pattern": (steps(expects({"$some": True})), "$some: true is no pattern"),
    "an unknown type": (steps(expects({"$type": "array"})), '$type: "array" is no pattern'),
    "an empty choice": (steps(expects({"$oneof": []})), "$oneof: [] is no pattern"),
    "a range upside down": (steps(expects({"$between": [2, 1]})), "$between: [2, 1] is no pattern"),
    "a wrong expression": (steps(expects({"$regex": "("})), "$regex: '(': "),
    "an expression beyond RE2": (steps(expects({"$regex": "(?!x).*"})), "is more than RE2 knows"),
    "a pattern within a pattern": (
        steps(
            {"call": "echo", "result": {"$has": {"x": [{"$error": {"y": {"$nested": [1, {"$any": 1}]}}}]}}}
        ),
        "$any: 1 is no pattern",
    ),
    "bad words in a pattern": (steps(expects({"$words": {"float": "1.0"}})), "$words: float: '1.0' does not"),
    "an unknown rule that is unobservable": (
        lambda f: f.unobservable.update({"STR-9": "because"}),
        "unobservable.json: protocol.md has no rule STR-9",
    ),
    "no reason": (lambda f: f.unobservable.update({"STR-1": " "}), "unobservable.json: STR-1: there is no"),
    "unobservable, and observed": (
        lambda f: f.unobservable.update({"STR-1": "because"}),
        "unobservable.json: STR-1: it has 2 cases",
    ),
    "the unobservable is no object": (
        lambda f: f.texts.update({"unobservable.json": "[]"}),
        "unobservable.json: it is no object",
    ),
    "a rule with too few cases": (
        lambda f: f.cases.pop(),
        "STR-1 says MUST 2 times and has 1 cases of force MUST",
    ),
    "a case that need not hold covers nothing": (
        key("force", "MAY"),
        "STR-1 says MUST 2 times and has 1 cases",
    ),
    "a vector in one direction is one case": (
        vector_key("directions", ["decode"]),
        "VAL-1 says MUST 2 times and has 1 cases",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(folder: Folder, fault: str) -> None:
    plant, problem = FAULTS[fault]
    if isinstance(plant, dict):
        plant = steps(plant)
    plant(folder)
    problems = folder.problems()
    assert any(problem in found for found in problems), problems
    # What follows from it may be found as well: a file that cannot be read covers no rule.
    others = [found for found in problems if problem not in found]
    assert all(" says MUST " in found for found in others), problems


def test_a_rule_that_bytes_cannot_show_needs_no_cases(folder: Folder) -> None:
    folder.cases.pop()
    folder.unobservable["STR-1"] = "nobody sees it"
    assert folder.problems() == []


@pytest.mark.parametrize(
    "written",
    [
        [{"frame": "80"}, {"text": " \r\n{}\n"}],
        [{"text": '{"x":'}, {"text": "1}\n"}],
        # Well-formed, and refused: what is malformed there is a message.
        [{"frame": "d81d00"}, {"frame": "81" * 2000 + "a201010101"}],
        [{"frame": "c482181ec24201" + "00"}, {"frame": "5818" + "00" * 24}],
        [{"text": '{"x":' + "[" * 9000 + "]" * 9000 + "}\n"}, {"text": '{"x":' + "1" * 9000 + "}\n"}],
    ],
)
def test_whole_frames_need_no_process_of_their_own(folder: Folder, written: list[Any]) -> None:
    folder.case["steps"] = [{"write": written[:1]}, {"write": written[1:]}]
    assert folder.problems() == []


def test_what_a_rule_says_ends_with_the_rule(folder: Folder) -> None:
    folder.problems()
    rules = rules_of(folder.path)
    assert [(rule.name, rule.musts) for rule in rules.values()] == [
        ("STR-1", 2),
        ("STR-2", 0),
        ("VAL-1", 2),
        ("NST-1", 0),
        ("ACT-1", 0),
        ("UPL-1", 0),
    ]
    assert rules["VAL-1"].summary == "A value MUST arrive:"


def run(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "kkrpc_py.conformance.lint", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_prints_the_problems(folder: Folder) -> None:
    folder.case["title"] = ""
    (problem, uncovered) = folder.problems()
    assert run(str(folder.path)) == (1, f"{problem}\n{uncovered}\n2 problems\n", "")


def test_the_command_says_that_there_are_none(folder: Folder) -> None:
    folder.problems()
    assert run(str(folder.path)) == (0, "no problems\n", "")


def test_the_command_says_that_it_cannot_look(tmp_path: Path) -> None:
    code, printed, complaint = run(str(tmp_path))
    assert (code, printed) == (2, "")
    assert "protocol.md" in complaint


def test_without_jsonschema_it_says_what_to_install(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.problems()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LinterUnavailable, match=r"pip install 'kkrpc-py\[dev\]'"):
        lint(folder.path)
