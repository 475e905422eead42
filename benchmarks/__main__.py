"""Measure: `python -m benchmarks [--rounds N] [--scale X]`. What is measured and how: README.md here."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import sys
import time
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any

import anyio

import kkrpc_py as kk
from benchmarks import rawpipe
from benchmarks.loops import LOOPS

ROOT = Path(__file__).resolve().parents[1]
IN_FLIGHT = 100

# What, and how often in one round at --scale 1.
COUNTS = {
    "small-int chunks/s": 300_000,
    "small-dict chunks/s": 100_000,
    "64 KiB binary chunks/s": 3_000,
    "sequential calls/s": 3_000,
    f"calls/s, {IN_FLIGHT} in flight": 20_000,
}
RAW_COUNTS = {"bare pipe round trips/s": 10_000, "bare pipe 64 KiB blocks/s": 10_000}

CAVEATS = """\
One machine, two Python processes, whatever else runs there. Compare figures of one run alone, and mind
the spread: lowest to highest of the rounds, which take turns. Handlers do nothing, consumers only
count; a real program is slower than its library. Bare pipe: blocking os.read and os.write, no protocol."""


async def _count(stream: AsyncIterable[Any]) -> int:
    received = 0
    async for _ in stream:
        received += 1
    return received


async def _sequential(api: Any, count: int) -> None:
    for number in range(count):
        await api.add(number, 1)


async def _in_flight(api: Any, count: int) -> None:
    async def caller() -> None:
        await _sequential(api, count // IN_FLIGHT)

    async with anyio.create_task_group() as tasks:
        for _ in range(IN_FLIGHT):
            tasks.start_soon(caller)


async def _measure(loop: str, scale: float) -> dict[str, float]:
    """One round on one event loop: what was measured, a second."""
    command = [sys.executable, "-m", "benchmarks.child", loop]
    figures = {}
    async with kk.open_process(command, cwd=ROOT) as channel:
        api = channel.remote()
        await channel.ready()
        for name, full in COUNTS.items():
            count = max(round(full * scale), IN_FLIGHT)
            await _count(api.ints(1000))  # both sides warm
            began = time.perf_counter()
            match name.split(" ")[0]:
                case "small-int":
                    assert await _count(api.ints(count)) == count
                case "small-dict":
                    assert await _count(api.dicts(count)) == count
                case "64":
                    assert await _count(api.blocks(count)) == count
                case "sequential":
                    await _sequential(api, count)
                case _:
                    await _in_flight(api, count)
            figures[name] = count / (time.perf_counter() - began)
    return figures


def _round(loops: list[str], scale: float, figures: dict[tuple[str, str], list[float]]) -> None:
    trips, blocks = (max(round(count * scale), 10) for count in RAW_COUNTS.values())
    raw = dict(zip(RAW_COUNTS, (rawpipe.round_trips(trips), rawpipe.blocks(blocks)), strict=True))
    for name, figure in raw.items():
        figures.setdefault((name, ""), []).append(figure)
    for loop in loops:
        for name, figure in anyio.run(_measure, loop, scale, **LOOPS[loop]).items():
            figures.setdefault((name, loop), []).append(figure)


def _shown(figures: dict[tuple[str, str], list[float]]) -> list[str]:
    lines = [f"{'':<26}{'':<9}{'median':>12}  lowest to highest"]
    for name in [*RAW_COUNTS, *COUNTS]:
        for (measured, loop), values in figures.items():
            if measured == name:
                spread = f"{min(values):,.0f} to {max(values):,.0f}"
                if "64 KiB" in name:
                    spread += f"   ({statistics.median(values) * rawpipe.BLOCK_BYTES / 1e6:,.0f} MB/s)"
                lines.append(f"{name:<26}{loop:<9}{statistics.median(values):>12,.0f}  {spread}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=CAVEATS)
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the usual counts; default: 1")
    options = parser.parse_args()

    print(CAVEATS)
    print(
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    )
    loops = [loop for loop in LOOPS if loop == "asyncio" or importlib.util.find_spec(loop)]
    figures: dict[tuple[str, str], list[float]] = {}
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        # Each round begins with another loop, so that none always runs on a warmed-up machine.
        turn = number % len(loops)
        _round(loops[turn:] + loops[:turn], options.scale, figures)
    print(*_shown(figures), sep="\n")


if __name__ == "__main__":
    main()
