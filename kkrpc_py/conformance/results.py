"""What a run of the conformance kit came to: the frozen data that reports are made of.

It owns no behaviour but counting; `run` makes these, `report`, `junit` and `known` read them.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, Literal

from kkrpc_py.conformance.cases import Case

__all__ = ["Direction", "Failure", "Outcome", "Run", "TraceLine", "Verdict"]

Direction = Literal["to testee", "from testee", "note"]


class Verdict(enum.StrEnum):
    """How one case ended (spec/conformance/README.md, Verdicts)."""

    PASS = "pass"
    FAIL = "fail"
    ERROR = "error"
    """The testee crashed, or could not be talked to."""
    SKIP = "skip"
    KNOWN = "known"
    STALE = "stale"
    NON_STRICT = "non-strict"

    @property
    def is_bad(self) -> bool:
        """Whether a run with this verdict in it has failed."""
        return self in {Verdict.FAIL, Verdict.ERROR, Verdict.STALE}


@dataclasses.dataclass(frozen=True, slots=True)
class TraceLine:
    """One thing that went over the wire, or that the kit did."""

    seconds: float
    """Since the case began."""
    direction: Direction
    data: bytes
    """Whole frames or lines, without a JSON line's line feed; for a note its text in UTF-8.

    Of more than 4 KB the beginning, and how many bytes it was."""


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Where a case did not go as it says."""

    step: int | None
    """Index in `Case.steps`; None: the check at the end, or the session before the first step."""
    expected: str
    seen: str
    trace: tuple[TraceLine, ...] = ()
    stderr_tail: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """One case and its verdict."""

    case: Case
    verdict: Verdict
    seconds: float = 0.0
    failure: Failure | None = None
    """For FAIL, ERROR, KNOWN and NON_STRICT."""
    reason: str = ""
    """For SKIP: the features that are missing. For KNOWN and STALE: what the list of known failures says."""
    before: int = 0
    """How many cases were played in the same process before it."""
    noise: int = 0
    """Lines of noise (FRM-4) that the testee wrote meanwhile."""
    first_noise: bytes = b""
    """The first of them, perhaps cut."""


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """All outcomes, in the order of the cases."""

    command: tuple[str, ...]
    dialect: str
    testee: Mapping[str, Any]
    """What `describe` answered: the four keys of testee.md, long texts cut."""
    outcomes: tuple[Outcome, ...]
    seconds: float

    def count(self, verdict: Verdict) -> int:
        """How many cases have it."""
        return sum(outcome.verdict is verdict for outcome in self.outcomes)

    @property
    def played(self) -> int:
        """How many cases were not skipped."""
        return len(self.outcomes) - self.count(Verdict.SKIP)

    @property
    def passed(self) -> bool:
        """Whether a case was played, and none is bad."""
        return self.played > 0 and not any(outcome.verdict.is_bad for outcome in self.outcomes)
