"""Measure and report: `python -m benchmarks.fanout`. What is measured and how: benchmarks/README.md."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

from benchmarks import machine, memory, report
from benchmarks.fanout.stalled import STALLED
from benchmarks.fanout.trial import PROCESSES
from benchmarks.fanout.ways import WAYS
from benchmarks.fanout.workloads import WORKLOADS
from benchmarks.loops import LOOPS
from benchmarks.results import Results, Values, ratios, spread
from benchmarks.run import Outcome, calibrated, progress, run_trial

TRIAL_SECONDS = 1.5
"""What a trial should take between its two looks at the clock; its other processes take as long to start."""
_MIB = 1 << 20
Outcomes = dict[str, dict[str, list[Outcome | None]]]


def command(loop: str, subscribers: int, way: str) -> list[str]:
    arguments = ["--loop", loop, "--subscribers", str(subscribers), way]
    return [sys.executable, "-m", "benchmarks.fanout.trial", *arguments]


def measured(options: argparse.Namespace) -> Outcomes:
    """Way -> workload -> each round's outcome; the ways take turns within a round."""
    outcomes: Outcomes = {way: {workload: [] for workload in WORKLOADS} for way in WAYS}
    seconds = TRIAL_SECONDS * options.scale
    counts: dict[str, int] = {}
    for number in range(options.rounds):
        for workload in WORKLOADS:
            ways = list(WAYS)[:: -1 if number % 2 else 1]
            for way in ways:
                progress(f"round {number + 1}/{options.rounds}: {way}, {workload}")
                trial = command(options.loop, options.subscribers, way)
                if workload not in counts:  # of either way as many
                    counts[workload] = calibrated(trial, workload, seconds)
                outcomes[way][workload].append(run_trial(trial, workload, counts[workload]))
    if options.stalled:
        progress("a stalled subscriber")
        trial = [sys.executable, "-m", "benchmarks.fanout.stalled", "--loop", options.loop]
        outcomes["hub"][STALLED] = [run_trial(trial, STALLED, options.stalled)]
    progress("")
    return outcomes


def _cells(values: Values, form: str, times: float = 1) -> list[str]:
    found = spread(values)
    if found is None:
        return ["-", ""]
    return [
        format(found.median * times, form),
        f"{found.lowest * times:{form}} to {found.highest * times:{form}}",
    ]


def shown(results: Results) -> Iterator[str]:
    """The report, line by line."""
    for workload, what in WORKLOADS.items():
        rows = []
        for way in WAYS:
            rates = results.rate(way, workload)
            cpu, counts = (results.extra(way, workload, key) for key in ("server_cpu", "count"))
            read = results.extra(way, workload, "reader_cpu")
            encodings = ratios(results.extra(way, workload, "encodings"), counts)
            rows.append(
                [
                    way,
                    *_cells(rates, ",.0f"),
                    *_cells(ratios(cpu, counts), ".2f", 1e6),
                    _cells(ratios(read, counts), ".2f", 1e6)[0],
                    _cells(encodings, ".2f")[0],
                ]
            )
        yield f"\n{workload}: {what.what}"
        heads = ["", "delivered/s", "lowest to highest", "server us", "lowest to highest", "readers us"]
        yield from report.table([*heads, "encodings"], rows)
        delivered = ratios(results.rate("hub", workload), results.rate("naive", workload))
        costs = ratios(_server_cost(results, "naive", workload), _server_cost(results, "hub", workload))
        yield (
            f"the hub delivers {_cells(delivered, '.2f')[0]} times as many a second; "
            f"its server spends {_cells(costs, '.2f')[0]} times less on each"
        )
    stalled = results.outcomes.get("hub", {}).get(STALLED, [])
    for outcome in stalled:
        if outcome is not None and "failed" not in outcome:
            yield f"\n{STALLED}: {outcome['count']:,} dicts, {outcome['reading']} readers and one that stalls"
            yield (
                f"the server grew by {outcome['growth'] / _MIB:.2f} MiB ({memory.MEASURE}) after the first "
                f"tenth; at most {outcome['log']} chunks kept; {outcome['dropped']:,} dropped, and told"
            )
    for name, workload, times, ran, why in results.failures():
        yield f"FAILED: {name}, {workload}: {times} of {ran}: {why}"


def _server_cost(results: Results, way: str, workload: str) -> Values:
    """Seconds of the server's processor for each value that was delivered."""
    return ratios(results.extra(way, workload, "server_cpu"), results.extra(way, workload, "count"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fanout", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the usual counts; default: 1")
    parser.add_argument("--loop", choices=list(LOOPS), default="asyncio")
    parser.add_argument("--subscribers", type=int, default=100, help="default: 100")
    parser.add_argument("--stalled", type=int, default=100_000, help="chunks beside a stalled subscriber")
    options = parser.parse_args()
    load, quiet = os.getloadavg()[0], [machine.fixed_work_seconds()]
    results = Results(measured(options))
    quiet += [machine.fixed_work_seconds() for _ in range(5)]
    described = machine.described()
    print(f"{described['cpu']}, {described['cores']} cores; {described['python']}; {described['system']}")
    print(
        f"{options.subscribers} subscribers in {PROCESSES} processes; {options.loop}; "
        f"{options.rounds} rounds; load {load:.1f} before; "
        f"the same work took up to {machine.noise(quiet):.0%} longer than usual"
    )
    print(*shown(results), sep="\n")
    return 1 if results.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
