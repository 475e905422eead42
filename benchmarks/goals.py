"""The figures to reach, as data: what each is computed from, and how far it has to come.

A figure that names no event loop has to be reached on all of them.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import plan, trial
from benchmarks.results import Outcome, Results, Values, median, ratios, total, worst

GRPC = "grpc.aio"
PIPE = "multiprocessing.Pipe"
_KIB, _MIB = 1024, 1024 * 1024

Figure = Callable[[Results, str], Values]
"""A figure of every round, from the results and the name of an event loop."""

AT_LEAST, AT_MOST, BELOW = "≥", "≤", "<"
_COMPARE = {AT_LEAST: operator.ge, AT_MOST: operator.le, BELOW: operator.lt}


def grpc(loop: str) -> str:
    """The one on the same loop; there is none on trio, and ours there is set beside that on asyncio."""
    return f"{GRPC} uvloop" if loop == "uvloop" else GRPC


def ping_pong(loop: str) -> str:
    """The floor of a sequential call on that loop."""
    return f"anyio pipe {loop}"


@dataclass(frozen=True)
class Goal:
    """One figure to reach."""

    what: str
    figure: Figure
    sign: str
    bounds: dict[str, float]
    """The bound for each event loop that it is asked of."""
    unit: str = ""


def everywhere(bound: float) -> dict[str, float]:
    return dict.fromkeys(("asyncio", "uvloop", "trio"), bound)


def _rate(workload: str, times: float = 1, **setting: str) -> Figure:
    return lambda results, loop: [
        None if value is None else value * times
        for value in results.rate(plan.our_name(loop, **setting), workload)
    ]


def _against(workload: str, peer: Callable[[str], str]) -> Figure:
    return lambda results, loop: ratios(
        results.rate(plan.our_name(loop), workload), results.rate(peer(loop), workload)
    )


def _against_each_other(workload: str, other: str) -> Figure:
    return lambda results, loop: ratios(
        results.rate(plan.our_name(loop), workload), results.rate(plan.our_name(loop), other)
    )


def _extra_ratio(workload: str, above: tuple[str, ...], below: tuple[str, ...]) -> Figure:
    return lambda results, loop: ratios(
        results.extra(plan.our_name(loop), workload, *above),
        results.extra(plan.our_name(loop), workload, *below),
    )


def _larger_growth(workload: str) -> Figure:
    """In MiB, of the process that grew more."""
    return lambda results, loop: [
        None if value is None else value / _MIB
        for value in worst(
            results.extra(plan.our_name(loop), workload, "here_bytes"),
            results.extra(plan.our_name(loop), workload, "there_bytes"),
        )
    ]


def _both_growths(workload: str) -> Figure:
    """In KiB, of both processes together."""
    return lambda results, loop: [
        None if value is None else value / _KIB
        for value in total(
            results.extra(plan.our_name(loop), workload, "here_bytes"),
            results.extra(plan.our_name(loop), workload, "there_bytes"),
        )
    ]


def _unevenness(results: Results, loop: str) -> Values:
    """How far a stream's rate lies from that of the shortest, at most, in percent of it.

    One figure of all rounds: the most of each round would be the noise's as much as the length's.
    """
    name = plan.our_name(loop)
    labels = sorted(
        (label for label in results.outcomes.get(name, {}) if label.startswith("scaling@")),
        key=lambda label: int(label.partition("@")[2]),
    )
    if len(labels) < 2:
        return []
    first = results.rate(name, labels[0])
    away = [median(ratios(results.rate(name, label), first)) for label in labels[1:]]
    return [None if None in away else max(abs(ratio - 1) * 100 for ratio in away if ratio is not None)]


def _decode_growth(results: Results, loop: str) -> Values:
    """Nanoseconds a byte in the longest frame over those in one of 1 MiB, of text and rows the worse."""
    small, large = (f"decode@{count}" for count in plan.SWEEPS["decode"][-2:])
    name = plan.our_name(loop)
    return worst(
        *(
            ratios(
                results.extra(name, large, "ns_per_byte", kind),
                results.extra(name, small, "ns_per_byte", kind),
            )
            for kind in ("text", "rows")
        )
    )


GOALS = [
    Goal("small-int chunks a second", _rate("ints"), AT_LEAST, everywhere(2_000_000)),
    Goal(f"small-int chunks, times {GRPC}", _against("ints", grpc), AT_LEAST, everywhere(80)),
    Goal(f"small-int chunks, times {PIPE}", _against("ints", lambda _: PIPE), AT_LEAST, everywhere(4)),
    Goal("small dicts a second, JSON", _rate("dicts"), AT_LEAST, everywhere(800_000)),
    Goal("small dicts a second, CBOR", _rate("dicts", codec="cbor"), AT_LEAST, everywhere(400_000)),
    Goal(
        "64 KiB binary chunks (CBOR)",
        _rate("blocks-64k", times=len(trial.BLOCK_64K) / 1e9),
        AT_LEAST,
        everywhere(2),
        "GB/s",
    ),
    Goal(
        f"64 KiB binary chunks, times {PIPE}",
        _against("blocks-64k", lambda _: PIPE),
        AT_LEAST,
        everywhere(0.6),
    ),
    Goal(
        "sequential calls, times raw anyio ping-pong", _against("calls", ping_pong), AT_LEAST, everywhere(0.7)
    ),
    Goal(f"sequential calls, times {GRPC}", _against("calls", grpc), AT_LEAST, everywhere(4)),
    Goal(
        "100 calls in flight, `async def`, a second",
        _rate("calls-100"),
        AT_LEAST,
        {"asyncio": 70_000, "trio": 45_000},
    ),
    Goal(f"100 calls in flight, times {GRPC}", _against("calls-100", grpc), AT_LEAST, everywhere(9)),
    Goal("100 calls in flight, inline, a second", _rate("calls-inline-100"), AT_LEAST, everywhere(120_000)),
    Goal(
        "1000 streams: chunks a second, times one stream's",
        _against_each_other("streams-1000", "streams-1"),
        AT_LEAST,
        everywhere(0.5),
    ),
    Goal(
        "1000 streams: the slowest's time over the fastest's",
        _extra_ratio("streams-1000", ("slowest",), ("fastest",)),
        AT_MOST,
        everywhere(2),
    ),
    Goal(
        "a call's p99 under a saturating stream over its idle p99",
        _extra_ratio("latency", ("loaded_us", "p99"), ("idle_us", "p99")),
        AT_MOST,
        everywhere(5),
    ),
    Goal("stalled consumer, 100 B chunks", _larger_growth("memory-stalled-100"), BELOW, everywhere(2), "MiB"),
    # 2 MiB and four chunks of 1 MiB.
    Goal("stalled consumer, 1 MiB chunks", _larger_growth("memory-stalled-1m"), BELOW, everywhere(6), "MiB"),
    Goal(
        "an idle stream of 10,000, both ends", _both_growths("memory-streams"), AT_MOST, everywhere(10), "KiB"
    ),
    Goal(
        "import kkrpc_py, over bare Python",
        lambda results, loop: results.extra(plan.our_name(loop), "import", "import_ms", "median"),
        BELOW,
        {"asyncio": 60},
        "ms",
    ),
    Goal("chunks a second, 10^4 to 10^7: off by at most", _unevenness, AT_MOST, everywhere(20), "%"),
    # 1 is linear and 16 quadratic; the rest is room for a frame that no cache holds.
    Goal("decode a frame of 16 MiB, cost a byte over 1 MiB's", _decode_growth, AT_MOST, {"asyncio": 2}),
]


class _Watched(Results):
    """Results that remember which trials of ours a figure was made from."""

    def __init__(self, results: Results) -> None:
        super().__init__(results.outcomes)
        self._asked: set[tuple[str, str]] = set()

    def figure(self, contender: str, workload: str, of: Callable[[Outcome], float]) -> Values:
        if contender.startswith(plan.OURS):
            self._asked.add((contender, workload))
        return super().figure(contender, workload, of)

    def failed_rounds(self) -> str:
        """How many of how many, as "2 of 5"; nothing where none failed."""
        asked = [self.outcomes.get(contender, {}).get(workload, []) for contender, workload in self._asked]
        rounds = [outcomes for outcomes in itertools.zip_longest(*asked) if any(outcomes)]
        failed = sum(any(o is not None and "failed" in o for o in outcomes) for outcomes in rounds)
        return f"{failed} of {len(rounds)}" if failed else ""


def judged(results: Results) -> list[dict[str, Any]]:
    """Every goal with its figures. What was not measured, or failed in any round of ours, is not reached."""
    found = []
    for goal in GOALS:
        values, failed, reached = {}, {}, {}
        for loop, bound in goal.bounds.items():
            watched = _Watched(results)
            value = median(goal.figure(watched, loop))
            values[loop] = value
            failed[loop] = watched.failed_rounds()
            reached[loop] = value is not None and not failed[loop] and _COMPARE[goal.sign](value, bound)
        found.append(
            {
                "what": goal.what,
                "sign": goal.sign,
                "bounds": goal.bounds,
                "unit": goal.unit,
                "values": values,
                "failed": failed,
                "reached_on": reached,
                "reached": all(reached.values()),
            }
        )
    return found
