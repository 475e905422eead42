"""Measure and report: `python -m benchmarks.web`. What is measured and how: benchmarks/README.md."""

from __future__ import annotations

import argparse
import fnmatch
import importlib.metadata
import json
import os
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Sequence

from benchmarks import machine, report
from benchmarks.results import Results, Values, ratios, spread
from benchmarks.run import ROOT, TIMEOUT_SECONDS, Outcome, calibrated, failed, parsed, progress
from benchmarks.web.ways import GROUPS, WAYS, Group
from benchmarks.web.workloads import LATENCY, MANY, WORKLOADS

TRIAL_SECONDS = 0.3
"""What a trial that counts chunks should take between its two looks at the clock."""
FIXED = {"streams-100": 400 * MANY, "first-chunk": 150, "lone": 80}
"""How many where that means something: long streams, of which the flow is compared and not the opening."""
PACKAGES = ["uvicorn", "h11", "httptools", "starlette", "sse-starlette", "websockets", "httpx", "uvloop"]
Outcomes = dict[str, dict[str, list[Outcome | None]]]


class Trials:
    """The process of the clients, started anew if a trial has stopped it."""

    def __init__(self, loop: str) -> None:
        self._command = [sys.executable, "-m", "benchmarks.web.trial", "--loop", loop]
        self._process: subprocess.Popen[str] | None = None

    def run(self, way: str, workload: str, count: int) -> Outcome:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        # Its end is that of its servers too.
        timer = threading.Timer(TIMEOUT_SECONDS, process.kill)
        timer.start()
        try:
            process.stdin.write(json.dumps([way, workload, count]) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError as error:
            return failed(f"the clients are gone: {error.strerror}")
        finally:
            timer.cancel()
        if not line:
            process.wait()
            return failed(f"the clients have ended, or took longer than {TIMEOUT_SECONDS} s")
        found = json.loads(line)
        return found if "failed" in found else parsed(line)

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()


def measured(options: argparse.Namespace) -> Outcomes:
    """Way -> workload -> each round's outcome; in a workload all ways take turns, from another one on."""
    outcomes: Outcomes = {way: {} for way in WAYS}
    counts: dict[tuple[str, str], int] = {}
    trials = Trials(options.loop)

    def probe(way: Sequence[str], workload: str, count: int) -> Outcome:
        return trials.run(way[0], workload, count)

    def chosen(way: str, workload: str) -> int:
        if workload not in FIXED:
            return calibrated([way], workload, TRIAL_SECONDS * options.scale, probe)
        streams = WORKLOADS[workload].streams
        return max(1, round(FIXED[workload] * options.scale / streams)) * streams

    try:
        for number in range(options.rounds):
            for workload in options.workloads:
                names = [name for name, way in WAYS.items() if workload in way.workloads]
                start = number * 5 % len(names)
                for name in names[start:] + names[:start]:
                    progress(f"round {number + 1}/{options.rounds}: {workload}, {name}")
                    if (name, workload) not in counts:
                        counts[name, workload] = chosen(name, workload)
                    outcome = trials.run(name, workload, counts[name, workload])
                    outcomes[name].setdefault(workload, []).append(outcome)
    finally:
        trials.close()
    progress("")
    return outcomes


def _cells(values: Values, form: str, times: float = 1) -> list[str]:
    found = spread(values)
    if found is None:
        return ["failed" if values else "-", ""]
    return [
        format(found.median * times, form),
        f"{found.lowest * times:{form}} to {found.highest * times:{form}}",
    ]


def _figure(results: Results, way: str, workload: str) -> Values:
    """Chunks a second, or the microseconds that one took."""
    return results.extra(way, workload, "us", "p50") if workload in LATENCY else results.rate(way, workload)


def compared(results: Results, group: Group, workload: str) -> Iterator[str]:
    """A table: each way of the group, and how many times better it is than the plain one."""
    alone = _figure(results, group.plain, workload)
    rows = []
    for name in group.ways:
        figures = _figure(results, name, workload)
        if not figures:
            continue
        better = ratios(alone, figures) if workload in LATENCY else ratios(figures, alone)
        count = results.extra(name, workload, "count")
        rows.append(
            [
                name,
                *_cells(figures, ",.0f"),
                *_cells(better, ".2f"),
                *(
                    _cells(ratios(results.extra(name, workload, key), count), ".2f", 1e6)[0]
                    for key in ("server_cpu", "reader_cpu")
                ),
            ]
        )
    if rows:
        unit = "us" if workload in LATENCY else "chunks/s"
        heads = [group.what, unit, "lowest to highest", "x plain", "lowest to highest"]
        yield from report.table([*heads, "server us", "client us"], rows)


def shown(results: Results, workloads: Collection[str] = WORKLOADS) -> Iterator[str]:
    """The report, line by line."""
    for workload in workloads:
        yield f"\n{workload}: {WORKLOADS[workload].what}"
        for group in GROUPS:
            yield from compared(results, group, workload)
    for name, workload, times, ran, why in results.failures():
        yield f"FAILED: {name}, {workload}: {times} of {ran}: {why}"


def _versions() -> str:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {package}")
    return ", ".join(found)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.web", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the usual counts; default: 1")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio", help="of all processes")
    parser.add_argument("--only", action="append", metavar="WORKLOAD", help="may be a pattern, and repeated")
    options = parser.parse_args()
    options.workloads = [
        name for name in WORKLOADS if any(fnmatch.fnmatch(name, each) for each in options.only or ["*"])
    ]
    load, quiet = os.getloadavg()[0], [machine.fixed_work_seconds()]
    results = Results(measured(options))
    quiet += [machine.fixed_work_seconds() for _ in range(5)]
    described = machine.described()
    print(f"{described['cpu']}, {described['cores']} cores; {described['python']}; {described['system']}")
    print(_versions())
    print(
        f"{options.loop}; {options.rounds} rounds; load {load:.1f} before; "
        f"the same work took up to {machine.noise(quiet):.0%} longer than usual"
    )
    print(*shown(results, options.workloads), sep="\n")
    return 1 if results.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
