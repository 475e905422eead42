"""The fan-out benchmark measures what it says: real trials with tiny counts."""

from __future__ import annotations

import sys

import pytest

from benchmarks.fanout.__main__ import shown
from benchmarks.fanout.stalled import STALLED
from benchmarks.fanout.ways import TURN, WAYS
from benchmarks.fanout.workloads import WORKLOADS
from benchmarks.results import Results
from benchmarks.run import Outcome, run_trial
from kkrpc_py.streaming import outbound

SUBSCRIBERS, COUNT = 4, 300


def trial(way: str, workload: str, loop: str = "asyncio") -> Outcome:
    options = ["--loop", loop, "--subscribers", str(SUBSCRIBERS), "--processes", "1"]
    return run_trial([sys.executable, "-m", "benchmarks.fanout.trial", *options, way], workload, COUNT)


def check(outcome: Outcome, encodings: int) -> None:
    assert outcome.get("failed") is None
    assert outcome["count"] == COUNT * SUBSCRIBERS
    assert outcome["encodings"] == encodings


def test_the_hub_encodes_each_value_once() -> None:
    check(trial("hub", "dicts"), COUNT)


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "trio", "uvloop"])
@pytest.mark.parametrize("workload", list(WORKLOADS))
def test_each_way_delivers_every_value(workload: str, loop: str) -> None:
    check(trial("hub", workload, loop), COUNT)
    check(trial("naive", workload, loop), COUNT * SUBSCRIBERS)


@pytest.mark.slow
def test_one_that_stalls() -> None:
    outcome = run_trial([sys.executable, "-m", "benchmarks.fanout.stalled"], STALLED, 3000)
    assert outcome.get("failed") is None
    assert outcome["dropped"] > 0


def test_both_producers_let_the_others_run_as_often() -> None:
    assert outbound._TURN == TURN


def test_the_report_stands_ratios_within_rounds() -> None:
    def outcomes(rates: list[int], cpu: float) -> list[Outcome | None]:
        return [
            {"seconds": 1.0, "count": rate, "server_cpu": cpu, "reader_cpu": 1.0, "encodings": rate}
            for rate in rates
        ]

    made = {
        way: {workload: outcomes(rates, cpu) for workload in WORKLOADS}
        for way, rates, cpu in zip(WAYS, [[300, 30, 90], [100, 20, 10]], [1.0, 1.0], strict=True)
    }
    text = "\n".join(shown(Results(made)))
    assert "the hub delivers 3.00 times as many" in text
    assert "spends 3.00 times less" in text
    made["naive"]["dicts"] = [{"failed": "why"}]
    assert "FAILED: naive, dicts: 1 of 1: why" in "\n".join(shown(Results(made)))
