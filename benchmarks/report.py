"""The tables that a run ends in, from its document alone: caveats, figures, ratios, goals."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks import plan, trial
from benchmarks.results import Results, Values, median, ratios, spread

_MAIN = [name for name in trial.WORKLOADS if name not in ("latency", "first-chunk", "spawn")]
_BYTES = trial.VALUE_BYTES


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as they need: the first to the left, figures to the right."""
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    for row in [heads, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        yield "  " + "  ".join(cells).rstrip()


def _spread_cells(values: Values) -> list[str]:
    found = spread(values)
    if found is None:
        return ["failed" if values else "-", ""]
    return [_number(found.median), f"{_number(found.lowest)} to {_number(found.highest)}"]


def speed(results: Results) -> Iterator[str]:
    """Every rate of every contender, and how ours on asyncio compares with it."""
    reference = plan.our_name("asyncio")
    for workload in _MAIN:
        names = results.contenders(workload)
        if not names:
            continue
        unit = "calls/s" if workload.startswith("calls") else "chunks/s"
        size = _BYTES.get(workload)
        heads = ["", unit, "lowest to highest", *(["MB/s"] if size else []), "ours/this"]
        rows = []
        for name in names:
            rate = results.rate(name, workload)
            middle = median(rate)
            rows.append(
                [
                    name,
                    *_spread_cells(rate),
                    *([_number(None if middle is None else middle * size / 1e6)] if size else []),
                    _number(median(ratios(results.rate(reference, workload), rate))),
                ]
            )
        yield f"\n{workload}: {trial.WORKLOADS[workload]}"
        yield from table(heads, rows)


def ratio_overview(results: Results, peers: Sequence[str]) -> Iterator[str]:
    """How many times as fast as each peer ours is, a line for each workload."""
    reference = plan.our_name("asyncio")
    rows = []
    for workload in _MAIN:
        cells = [
            _number(median(ratios(results.rate(reference, workload), results.rate(peer, workload))))
            for peer in peers
        ]
        if any(cell != "-" for cell in cells):
            rows.append([workload, *cells])
    if rows:
        yield f"\n{reference}, times as fast as (median of the rounds' ratios)"
        yield from table(["", *peers], rows)


def _loaded_megabytes(outcome: dict[str, Any]) -> float:
    """What the stream moved a second beside the calls: quick answers are easy where it stands still."""
    return outcome["loaded_blocks"] * len(trial.BLOCK_64K) / outcome["loaded_seconds"] / 1e6


def waiting(results: Results) -> Iterator[str]:
    """Microseconds and milliseconds."""
    names = results.contenders("latency")
    if names:
        yield f"\nlatency: {trial.WORKLOADS['latency']} (us)"
        rows = [
            [
                name,
                *(
                    _number(median(results.extra(name, "latency", half, percentile)))
                    for half in ("idle_us", "loaded_us")
                    for percentile in ("p50", "p99")
                ),
                _number(median(results.figure(name, "latency", _loaded_megabytes))),
            ]
            for name in names
        ]
        yield from table(
            ["", "idle p50", "idle p99", "loaded p50", "loaded p99", "the stream's MB/s meanwhile"], rows
        )
    for workload, key in (("first-chunk", "first_us"), ("spawn", "spawn_us")):
        names = results.contenders(workload)
        if names:
            yield f"\n{workload}: {trial.WORKLOADS[workload]} (us)"
            rows = [[name, *_spread_cells(results.extra(name, workload, key, "p50"))] for name in names]
            yield from table(["", "p50", "lowest to highest"], rows)


def own_costs(results: Results) -> Iterator[str]:
    """Ours alone: import, memory, and cost with size."""
    reference = plan.our_name("asyncio")
    if results.contenders("import"):
        yield f"\nimport: {trial.OUR_WORKLOADS['import']} (ms)"
        rows = [
            [kind, *_spread_cells(results.extra(reference, "import", "import_ms", kind))]
            for kind in ("median", "best")
        ]
        yield from table(["", "median", "lowest to highest"], rows)
    rows = []
    for workload in (name for name in trial.OUR_WORKLOADS if name.startswith("memory-")):
        for name in results.contenders(workload):
            here, there = (
                median(results.extra(name, workload, key)) for key in ("here_bytes", "there_bytes")
            )
            rows.append(
                [
                    f"{workload}, {name}",
                    *(_number(None if value is None else value / 1024) for value in (here, there)),
                ]
            )
    if rows:
        yield "\nmemory: growth in KiB; of one of many for idle channels and streams, of all else"
        for workload in (name for name in trial.OUR_WORKLOADS if name.startswith("memory-")):
            yield f"  {workload}: {trial.OUR_WORKLOADS[workload]}"
        yield from table(["", "consumer", "producer"], rows)
    rows = [
        [name, *(_number(median(results.rate(name, f"scaling@{n}"))) for n in _sizes(results, "scaling"))]
        for name in _takers(results, "scaling")
    ]
    if rows:
        yield f"\nscaling: {trial.OUR_WORKLOADS['scaling']} (chunks/s)"
        yield from table(["COUNT", *(f"{n:,}" for n in _sizes(results, "scaling"))], rows)
    sizes = _sizes(results, "decode")
    if sizes:
        yield f"\ndecode: {trial.OUR_WORKLOADS['decode']}"
        rows = [
            [
                kind,
                *(
                    _number(median(results.extra(reference, f"decode@{n}", "ns_per_byte", kind)))
                    for n in sizes
                ),
            ]
            for kind in ("text", "rows")
        ]
        yield from table(["bytes", *(f"{n:,}" for n in sizes)], rows)


def _sizes(results: Results, sweep: str) -> list[int]:
    labels = {label for workloads in results.outcomes.values() for label in workloads}
    return sorted(int(label.partition("@")[2]) for label in labels if label.startswith(f"{sweep}@"))


def _takers(results: Results, sweep: str) -> list[str]:
    """Who took part in a sweep."""
    return [
        name
        for name, workloads in results.outcomes.items()
        if any(label.startswith(f"{sweep}@") for label in workloads)
    ]


def goals(judged: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A line for each goal: its figure on every event loop that it is asked of."""
    loops = ("asyncio", "uvloop", "trio")
    rows = []
    for goal in judged:
        cells = []
        for loop in loops:
            if loop not in goal["bounds"]:
                cells.append("")
                continue
            value = goal["values"][loop]
            failed = goal["failed"][loop]
            text = _number(value) if value is not None else "" if failed else "not measured"
            text += f" ({failed} failed)" if failed else ""
            cells.append(f"{text} {'+' if goal['reached_on'][loop] else '-'}".lstrip())
        bounds = list(dict.fromkeys(goal["bounds"].values()))
        asked = f"{goal['sign']} {' / '.join(_number(bound) for bound in bounds)} {goal['unit']}".rstrip()
        rows.append([goal["what"], asked, *cells, "reached" if goal["reached"] else "NOT reached"])
    yield "\nGoals (+ reached, - not; a figure that names no event loop has to be reached on all;"
    yield "one of which a round of ours failed is not)"
    yield from table(["", "asked", *loops, ""], rows)
    yield f"\n{sum(goal['reached'] for goal in judged)} of {len(judged)} reached"


def _missing(document: dict[str, Any], results: Results) -> Iterator[str]:
    if document["skipped"]:
        yield "\nNot run here:"
        yield from (f"  {name}: {why}" for name, why in document["skipped"].items())
    failures = results.failures()
    if failures:
        yield "\nFAILED trials:"
        for name, workload, times, ran, why in failures:
            yield f"  {name}, {workload}: {times} of {ran}: {why}"


def heading(document: dict[str, Any]) -> Iterator[str]:
    """What to know before any figure."""
    machine, run = document["machine"], document["run"]
    yield "READ FIRST"
    for caveat in document["caveats"]:
        yield textwrap.fill(caveat, 110, initial_indent="- ", subsequent_indent="  ")
    yield f"\n{machine['cpu']}, {machine['cores']} cores; {machine['python']}; {machine['system']}"
    yield ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    yield f"rounds: {run['rounds']}, scale {run['scale']:g}; memory is the {run['memory']}"
    yield (
        f"While this ran, the same work took up to {run['noise']:.0%} longer than usual; "
        f"{run['load_before']:.1f} processes wanted a core before it began."
    )
    if run["noise"] > 0.25 or run["load_before"] > machine["cores"] / 2:
        yield "THE MACHINE WAS NOT QUIET: the ratios say something, single figures little."
    if run["scale"] != 1 or run["only"]:
        yield "A part of the whole, or smaller counts: to look at, not to quote."


def shown(document: dict[str, Any]) -> Iterator[str]:
    """The whole report, line by line."""
    results = Results(document["trials"])
    yield from heading(document)
    yield from speed(results)
    yield from ratio_overview(results, document["peers"])
    yield from waiting(results)
    yield from own_costs(results)
    yield from _missing(document, results)
    judged = document["goals"]
    if document["run"]["only"]:
        judged = [
            goal
            for goal in judged
            if any(value is not None for value in goal["values"].values()) or any(goal["failed"].values())
        ]
    yield from goals(judged)
