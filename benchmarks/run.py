"""Run trials: each a program of its own, watched, in rounds that take turns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, plan, trial
from benchmarks.plan import Cell

ROOT = Path(__file__).resolve().parents[1]
TRIAL_SECONDS = 0.4
"""What a trial should take between its two looks at the clock."""
TIMEOUT_SECONDS = 60
_PROBES = 5
_FEWEST = 10
"""Chunks of a stream, or calls of a caller, when there are many: fewer would measure their opening."""
_GROWTH = 30
"""A probe's count is multiplied by so much at most: what a few took says little of many."""
_ERROR_CHARS = 200

Outcome = dict[str, Any]
"""A trial's own line, or `{"failed": why}`."""


def failed(why: str) -> Outcome:
    lines = why.strip().splitlines() or ["no reason given"]
    return {"failed": lines[-1].replace(str(ROOT), ".")[:_ERROR_CHARS]}


def run_trial(command: Sequence[str], workload: str, count: int) -> Outcome:
    """One trial, to its end: a process group of its own, so that nothing of it outlives a timeout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    try:
        process = subprocess.Popen(
            [*command, workload, str(count)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        return failed(f"cannot be started: {error.strerror}")
    try:
        output, errors = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return failed(f"took longer than {TIMEOUT_SECONDS} s")
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode:
        return failed(errors or f"exit code {process.returncode}")
    return parsed(output)


def parsed(output: str) -> Outcome:
    """The one line of a trial that went well."""
    try:
        (line,) = output.splitlines()
        outcome = json.loads(line)
        if outcome["seconds"] < 0 or outcome["count"] < 1:
            return failed("figures that cannot be")
    except (ValueError, KeyError, TypeError):
        return failed("did not print the one line of a result")
    return outcome


def in_multiples(workload: str, count: int) -> int:
    """As many for each of those that run at once, and a few at least."""
    many = trial.CONCURRENCY.get(workload, 1)
    return max(_FEWEST, round(count / many)) * many if many > 1 else count


def calibrated(
    command: Sequence[str], workload: str, seconds: float, run: Callable[..., Outcome] = run_trial
) -> int:
    """How many make a trial of about `seconds`. A trial that fails will do so again, with this count."""
    count = plan.FIRST_PROBE.get(workload, 1000)
    for _ in range(_PROBES):
        outcome = run(command, workload, in_multiples(workload, count))
        if "failed" in outcome:
            break
        factor = min(seconds / max(outcome["seconds"], 1e-9), _GROWTH)
        count = max(1, round(count * factor))
        if factor < 10:
            break
    return count


def run_rounds(
    groups: Sequence[Sequence[Cell]], rounds: int, scale: float, say: Callable[[str], None]
) -> tuple[dict[str, dict[str, list[Outcome | None]]], list[float]]:
    """Contender -> workload -> each round's outcome (None: not in that round); and the machine's own pace."""
    outcomes: dict[str, dict[str, list[Outcome | None]]] = {}
    counts: dict[tuple[str, str], int] = {}
    quiet = [machine.fixed_work_seconds()]
    for number in range(rounds):
        cells = plan.order(groups, number)
        for index, cell in enumerate(cells):
            say(
                f"round {number + 1}/{rounds}, trial {index + 1}/{len(cells)}: {cell.peer.name}, {cell.label}"
            )
            count = cell.count
            if count is None:
                if cell.alike not in counts:
                    probed = cell.alike[1]
                    seconds = TRIAL_SECONDS * scale * plan.LONGER.get(probed, 1)
                    counts[cell.alike] = calibrated(cell.peer.command, probed, seconds)
                count = in_multiples(cell.workload, counts[cell.alike])
            per_round = outcomes.setdefault(cell.peer.name, {}).setdefault(cell.label, [None] * rounds)
            per_round[number] = run_trial(cell.peer.command, cell.workload, count)
            if index % 20 == 0:
                quiet.append(machine.fixed_work_seconds())
    return outcomes, quiet


def progress(line: str) -> None:
    """On a terminal one line that changes; elsewhere nothing, but what is asked for stays readable."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
