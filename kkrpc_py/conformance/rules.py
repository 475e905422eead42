"""The rules of `spec/protocol.md`: their texts, as the linter counts them and as a report quotes them.

It owns the reading of that one document. What a rule means is nobody's business here.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Rule", "rules_of"]

_HEAD = re.compile(r"^\*\*([A-Z]+-\d+)\.\*\*\s*", re.MULTILINE)
_END = re.compile(r"^#+ |^```|^\|", re.MULTILINE)
_MUST = re.compile(r"\bMUST\b")


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """One numbered rule."""

    name: str
    """Such as `STR-5`."""
    text: str
    """Its paragraphs and tables up to the next rule or heading, without its number and quotes (`>`)."""

    @property
    def musts(self) -> int:
        """How often it says MUST, or MUST NOT."""
        return len(_MUST.findall(self.text))

    @property
    def summary(self) -> str:
        """Its first paragraph, on one line and without markings."""
        paragraph = self.text.split("\n\n", 1)[0]
        table = _END.search(paragraph)
        words = (paragraph[: table.start()] if table else paragraph).split()
        return " ".join(words).replace("**", "").replace("`", "")


def rules_of(spec: Path) -> Mapping[str, Rule]:
    """The rules of `spec/protocol.md` by name, in its order. Raises OSError where it cannot be read."""
    text = (spec / "protocol.md").read_text(encoding="utf-8")
    heads = list(_HEAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    rules: dict[str, Rule] = {}
    for head, end in zip(heads, ends, strict=True):
        body = re.split(r"^#+ ", text[head.end() : end], maxsplit=1, flags=re.MULTILINE)[0]
        lines = [line for line in body.splitlines() if not line.startswith(">")]
        rules[head[1]] = Rule(head[1], "\n".join(lines).strip())
    return rules
