"""The specification agrees with itself, and what cites it names rules that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kkrpc_py.limits import Limits
from kkrpc_py.wire.codec import Decoder, Encoder
from kkrpc_py.wire.messages import Broken, Malformed, Noise

ROOT = Path(__file__).resolve().parents[1]
SPEC = (ROOT / "spec" / "protocol.md").read_text(encoding="utf-8")
GROUPS = re.findall(r"^\| \d+ [\w ]+ \| ([A-Z]+) \|$", SPEC, re.MULTILINE)
RULES = re.findall(r"^\*\*([A-Z]+)-(\d+)\.\*\*", SPEC, re.MULTILINE)
# Any group, known or not, but for what looks like one: UTF-8, SHA-256, RFC-822.
CITATION = re.compile(r"\b(?!UTF|SHA|RFC|ISO)[A-Z]{3,4}-\d+\b")


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
    assert Encoder("json", Limits()).encode(message) == line.encode() + b"\n"
