"""Measure and report: `python -m benchmarks`. What is measured and how: README.md here."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks import goals, machine, memory, plan, plot, report, run
from benchmarks.caveats import CAVEATS
from benchmarks.results import Results
from benchmarks.trial import Peer

SAVED = Path(__file__).with_name("results")


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """A whole run, as the document that every report is made from."""
    load = os.getloadavg()[0]
    wanted = plan.matching(options.only)
    peers, skipped = [], {}
    for peer in plan.contenders():
        if not any(wanted(peer, workload) for workload in peer.workloads):
            continue
        why = peer.needs()
        if why is None:
            peers.append(peer)
        else:
            skipped[peer.name] = why
    groups = plan.cells(peers, wanted, options.scale)
    outcomes, quiet = run.run_rounds(groups, options.rounds, options.scale, run.progress)
    run.progress("")
    return {
        "caveats": CAVEATS,
        "machine": machine.described(),
        "versions": machine.versions(),
        "run": {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "rounds": options.rounds,
            "scale": options.scale,
            "only": options.only,
            "memory": memory.MEASURE,
            "noise": round(machine.noise(quiet), 3),
            "load_before": round(load, 2),
        },
        "peers": _peer_names(peers),
        "skipped": skipped,
        "trials": _in_plan_order(peers, outcomes),
        "goals": goals.judged(Results(outcomes)),
    }


def _peer_names(peers: list[Peer]) -> list[str]:
    return [peer.name for peer in peers if not peer.name.startswith(plan.OURS)]


def _in_plan_order(peers: list[Peer], outcomes: dict[str, Any]) -> dict[str, Any]:
    return {peer.name: outcomes[peer.name] for peer in peers if peer.name in outcomes}


def written(document: dict[str, Any]) -> str:
    """The document as JSON that one can read: a line for the rounds of each workload."""
    lines = []
    for key, value in document.items():
        if key == "trials":
            contenders = [
                f"  {json.dumps(name)}: {{\n"
                + ",\n".join(
                    f"   {json.dumps(label)}: {json.dumps(each)}" for label, each in workloads.items()
                )
                + "\n  }"
                for name, workloads in value.items()
            ]
            text = "{\n" + ",\n".join(contenders) + "\n }"
        elif isinstance(value, list) and value:
            text = "[\n  " + ",\n  ".join(json.dumps(each, ensure_ascii=False) for each in value) + "\n ]"
        else:
            text = json.dumps(value, ensure_ascii=False)
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def parsed_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Those of the command line, or of a test."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="kkrpc_py beside its peers")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the usual counts; default: 1")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="GLOB",
        help="workloads, as 'calls*', or contenders too, as '*asyncio/ints'; may be given again",
    )
    parser.add_argument("--save", action="store_true", help=f"write {SAVED.parent.name}/{SAVED.name}/")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the report of a saved run instead")
    return parser.parse_args(arguments)


def main() -> int:
    options = parsed_arguments()
    document = json.loads(options.show.read_text(encoding="utf-8")) if options.show else measured(options)
    print(*report.shown(document), sep="\n")
    if options.save:
        SAVED.mkdir(exist_ok=True)
        (SAVED / "latest.json").write_text(written(document), encoding="utf-8")
        plot.draw(document, SAVED / "speed.svg")
    failures = Results(document["trials"]).failures()
    return 1 if any(name.startswith(plan.OURS) for name, *_ in failures) else 0


if __name__ == "__main__":
    sys.exit(main())
