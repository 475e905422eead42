"""The specification agrees with itself, and what cites it names rules that exist."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from kkrpc_py.core.tables import CALLER, CallerEvent, CallerState, Do
from kkrpc_py.limits import Limits
from kkrpc_py.wire.codec import Codec, Decoder, Encoder
from kkrpc_py.wire.messages import Broken, Malformed, Noise
from tests import state_diagrams

ROOT = Path(__file__).resolve().parents[1]
SPEC = (ROOT / "spec" / "protocol.md").read_text(encoding="utf-8")
GROUPS = re.findall(r"^\| \d+ [\w ]+ \| ([A-Z]+) \|$", SPEC, re.MULTILINE)
RULES = re.findall(r"^\*\*([A-Z]+)-(\d+)\.\*\*", SPEC, re.MULTILINE)
# Each with its text, up to the next rule or heading.
_PARTS = re.split(r"^\*\*([A-Z]+-\d+)\.\*\*|^#.*$", SPEC, flags=re.MULTILINE)
TEXTS = {name: text for name, text in zip(_PARTS[1::2], _PARTS[2::2], strict=True) if name is not None}
# Any group, known or not, but for what looks like one: UTF-8, SHA-256, RFC-822, SSH-2.
CITATION = re.compile(r"\b(?!UTF|SHA|RFC|ISO|SSH)[A-Z]{3,4}-\d+\b")


def cited_in(path: Path) -> set[str]:
    return set(CITATION.findall(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("group", GROUPS)
def test_the_rules_of_a_group_are_numbered_without_gap(group: str) -> None:
    numbers = [int(number) for name, number in RULES if name == group]
    assert numbers
    assert numbers == list(range(1, len(numbers) + 1))


def test_every_rule_belongs_to_a_group_of_the_table() -> None:
    assert {name for name, _ in RULES} == set(GROUPS)


def test_every_citation_names_a_rule() -> None:
    rules = {f"{name}-{number}" for name, number in RULES}
    citing = [*ROOT.glob("kkrpc_py/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("*.md")]
    citing += [*ROOT.glob("docs/**/*.md"), *ROOT.glob("spec/*.md")]
    unknown = {
        f"{path.relative_to(ROOT)}: {rule}"
        for path in citing
        if "node_modules" not in path.parts
        for rule in cited_in(path) - rules
    }
    assert unknown == set()


EXAMPLES = re.findall(r"^[<>] (\{.*\})$", SPEC, re.MULTILINE)


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_is_what_this_library_reads_and_writes(line: str) -> None:
    decoder = Decoder(Limits())
    ((message, size),) = decoder.receive(line.encode() + b"\n")
    assert not isinstance(message, Noise | Broken | Malformed)
    assert size == len(line)
    codec: Codec = "superjson" if decoder.superjson else "json"
    assert Encoder(codec, Limits()).encode(message) == line.encode() + b"\n"


# Rules -----------------------------------------------------------------------------------------

DEFINITIONS = {
    "CALL-8": "a timeout is not on the wire",
    "CALL-11": "points to section 13",
    "LIM-2": "numbers of other rules",
    "VAL-9": "what this library does with types of its language",
}
"""Rules that demand nothing, and why."""

WITHOUT_ANSWER = {
    "it demands nothing": set(DEFINITIONS) - {"CALL-11"},
    "it says itself what is made of what the peer sends": set(
        "FRM-1 FRM-2 FRM-4 FRM-5 FRM-6 FRM-7 FRM-8 FRM-9 MSG-7 CLA-2 CLA-3 CLA-4 CLA-5 CLA-6 VAL-2 VAL-4 "
        "ERR-1 ERR-2 ERR-3 CAN-5 HEL-3 HEL-5 HEL-7 CRD-2 BAT-2 SUP-2 SUP-4 SUP-5 SUP-6 SUP-9 "
        "CLS-1 CLS-5 NST-4 NST-7 NST-11 NST-13 NST-14 NST-15 NST-17 UPL-4 UPL-5 EVT-2 STA-3 STA-4 "
        "TRN-3 TRN-4 TRN-7 TRN-8 HTTP-1 HTTP-2 HTTP-3 HTTP-12 ACT-10 SSE-10 SSE-13".split()
    ),
    "what comes of it would be another value or program, which the peer cannot tell from a right one": set(
        "MSG-5 VAL-1 CALL-1 CALL-3 CALL-4 CALL-6 CALL-9 CALL-12 ERR-4 ERR-5 ERR-7 STR-1 STR-2 STR-3 STR-4 "
        "STR-8 STR-11 RES-2 SUP-1 SUP-3 SUP-7 NST-2 NST-8 NST-9 NST-21 STA-1 STA-2 STA-6 STA-8 "
        "HTTP-7 HTTP-8 ACT-2 ACT-6 ACT-7 ACT-11 SSE-2 SSE-4 SSE-5 SSE-8 SSE-11".split()
    ),
    "the peer would wait, and cannot tell for what": set(
        "CALL-2 ERR-6 STR-10 CAN-3 CAN-4 CAN-6 CAN-8 CRD-1 CRD-5 CRD-7 CRD-8 BAT-3 RES-3 CBK-4 CLS-2 CLS-3 "
        "CLS-4 CLS-6 HEL-6 NST-10 NST-12 NST-16 UPL-2 ACT-8 ACT-9 SSE-7".split()
    ),
    "it is between a side and its application": set("STR-9 NST-18 NST-19 UPL-10 EVT-3 EVT-4".split()),
    "a stock peer alone would be hurt, and says nothing": set(
        "FRM-10 FRM-11 FRM-12 VAL-3 VAL-5 CAN-2".split()
    ),
    "it allows something": set("FRM-14 VAL-8 CBK-3 ARG-4 META-1 LIM-1".split()),
}
"""Rules without an *Answer*, by the reason why there is none."""


def test_each_rule_that_a_peer_can_break_says_what_is_answered() -> None:
    listed = [name for names in WITHOUT_ANSWER.values() for name in names]
    assert len(listed) == len(set(listed))
    assert set(listed) == {name for name, text in TEXTS.items() if "*Answer*" not in text}


def test_an_answer_that_points_elsewhere_points_to_an_answer_or_a_demand() -> None:
    for name, text in TEXTS.items():
        for target in re.findall(r"\*Answer\*[^:.]*: ([A-Z]+-\d+)", text):
            assert target != name
            assert re.search(r"\*Answer\*|MUST", TEXTS[target]), f"{name} points to {target}"


def test_each_rule_says_how_strong_it_is_or_is_a_definition() -> None:
    weak = {name for name, text in TEXTS.items() if not re.search(r"\b(MUST|SHOULD|MAY)\b", text)}
    assert weak == set(DEFINITIONS)


def test_the_texts_are_those_of_all_rules() -> None:
    assert list(TEXTS) == [f"{name}-{number}" for name, number in RULES]


OTHER_TRANSPORTS = {"TRN", "HTTP", "SSE"}
"""Groups whose rules the conformance kit cannot see: it speaks over stdin and stdout."""


def test_what_the_kit_cannot_see_is_named_by_a_test() -> None:
    unseen = set(
        json.loads((ROOT / "spec" / "conformance" / "unobservable.json").read_text(encoding="utf-8"))
    )
    unseen |= {name for name in TEXTS if name.partition("-")[0] in OTHER_TRANSPORTS}
    tests = [path for kind in ("py", "mjs", "ts") for path in (ROOT / "tests").rglob(f"*.{kind}")]
    own = {ROOT / "tests" / "test_spec.py"}
    named = {rule for path in set(tests) - own if "node_modules" not in path.parts for rule in cited_in(path)}
    assert unseen - named == set()


# Limits ----------------------------------------------------------------------------------------

# What no peer can see: they bound what this library does with its own threads and memory.
OWN_LIMITS = {"threads", "send_high_water"}
UNITS = {"": 1, " KiB": 1024, " MiB": 1024**2, " s": 1}


def test_the_table_of_limits_has_every_bound_with_its_default() -> None:
    section = SPEC[SPEC.index("## 19. Limits") : SPEC.index("**LIM-2.**")]
    rows = re.findall(r"^\| `(\w+)` \| (\d+)( \w+)? \| [^|]+ \| ([^|]+) \|", section, re.MULTILINE)
    defaults = {name: int(number) * UNITS[unit] for name, number, unit, _ in rows}
    fields = dataclasses.asdict(Limits())
    assert defaults == {name: value for name, value in fields.items() if name not in OWN_LIMITS}


def test_each_limit_of_the_text_stands_in_the_table() -> None:
    assert set(re.findall(r"`Limits\.(\w+)`", SPEC)) <= set(dataclasses.asdict(Limits())) - OWN_LIMITS | {"x"}


# State diagrams --------------------------------------------------------------------------------


def test_the_diagrams_are_what_the_tables_say() -> None:
    assert state_diagrams.with_blocks(SPEC) == SPEC, "python -m tests.state_diagrams --write"


@pytest.mark.parametrize("name", ["caller", "callee"])
def test_every_row_of_a_table_is_drawn_or_listed(name: str) -> None:
    half = state_diagrams.HALVES[name]
    for key, (after, _) in half.table.items():
        without = {other: row for other, row in half.table.items() if other != key}
        changed = dataclasses.replace(half, table=without)
        # A decision of this side's own that changes and sends nothing is nobody else's affair.
        silent = after is key[0] and half.table[key][1] is Do.IGNORE and key[1] in half.decisions
        assert (state_diagrams.blocks({name: changed}) == state_diagrams.blocks({name: half})) == silent


def test_another_table_is_another_diagram() -> None:
    half = state_diagrams.HALVES["caller"]
    wrong = {
        **CALLER,
        (CallerState.OPEN, CallerEvent.STOCK_CANCEL): (CallerState.GIVEN_UP, Do.SEND),
    }
    changed = state_diagrams.blocks({"caller": dataclasses.replace(half, table=wrong)})["caller"]
    assert "OPEN --> GIVEN_UP : given up, cancel not agreed / sends stream-cancel" in changed
    assert changed != state_diagrams.blocks()["caller"]
