"""What the trials' lines come to: rates, medians, spreads, and ratios within each round."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Values = list[float | None]
"""One figure a round; None where the trial failed or was not part of the round."""
Outcome = dict[str, Any]


class Spread(NamedTuple):
    median: float
    lowest: float
    highest: float


def spread(values: Values) -> Spread | None:
    """None where there is no value at all."""
    known = [value for value in values if value is not None]
    return Spread(statistics.median(known), min(known), max(known)) if known else None


def median(values: Values) -> float | None:
    found = spread(values)
    return None if found is None else found.median


def ratios(ours: Values, theirs: Values) -> Values:
    """Round by round, since both saw the same machine then; a round that lacks one of them has none."""
    return [None if a is None or b is None or b == 0 else a / b for a, b in zip(ours, theirs, strict=False)]


class Results:
    """The outcomes of a run, by contender and workload."""

    def __init__(self, outcomes: dict[str, dict[str, list[Outcome | None]]]) -> None:
        self.outcomes = outcomes

    def figure(self, contender: str, workload: str, of: Callable[[Outcome], float]) -> Values:
        """`of` each round's outcome; an empty list where it was never run."""
        return [
            None if outcome is None or "failed" in outcome else of(outcome)
            for outcome in self.outcomes.get(contender, {}).get(workload, [])
        ]

    def rate(self, contender: str, workload: str) -> Values:
        """How many a second."""
        return self.figure(contender, workload, lambda outcome: outcome["count"] / outcome["seconds"])

    def extra(self, contender: str, workload: str, *path: str) -> Values:
        """One of the further figures of a trial's line."""

        def of(outcome: Outcome) -> float:
            found: Any = outcome
            for name in path:
                found = found[name]
            return float(found)

        return self.figure(contender, workload, of)

    def contenders(self, workload: str) -> list[str]:
        return [name for name, workloads in self.outcomes.items() if workload in workloads]

    def failures(self) -> list[tuple[str, str, int, int, str]]:
        """Contender, workload, how many of how many rounds failed, and the last reason."""
        found = []
        for contender, workloads in self.outcomes.items():
            for workload, outcomes in workloads.items():
                ran = [outcome for outcome in outcomes if outcome is not None]
                why = [outcome["failed"] for outcome in ran if "failed" in outcome]
                if why:
                    found.append((contender, workload, len(why), len(ran), why[-1]))
        return found


def worst(*figures: Values) -> Values:
    """The highest of several figures, round by round; None where one of them is missing."""
    return [
        None if any(value is None for value in values) else max(v for v in values if v is not None)
        for values in _rounds(figures)
    ]


def total(*figures: Values) -> Values:
    """The sum, likewise."""
    return [
        None if any(value is None for value in values) else math.fsum(v for v in values if v is not None)
        for values in _rounds(figures)
    ]


def _rounds(figures: Sequence[Values]) -> list[tuple[float | None, ...]]:
    return list(zip(*figures, strict=True)) if all(figures) else []
