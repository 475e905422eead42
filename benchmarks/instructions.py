"""Count instructions, and compare: `python -m benchmarks.instructions [--write-baseline]`.

Wall-clock figures of a busy machine cannot tell a change of a few per cent; instruction counts can. What is
counted, and against what, is in `counted`; here it is run under valgrind, and set beside the committed
baseline.

A figure is the instructions of one item (a chunk, a call; both ends together) as a ratio to those of a fixed
reference in the same run. Ratios still differ by up to 10 % from one Python version to the next, and by 20 %
from one way of compiling it to another, so each has a baseline of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.counted import REFERENCE

ROOT = Path(__file__).resolve().parents[1]
BASELINES = Path(__file__).with_name("instructions.json")

TOLERANCE = 0.05
"""Runs differ by 0.2 % at most, on a loaded machine too; the rest is for patch releases of Python and of what
the library depends on."""
SECONDS = 300
"""What the run may take; it takes 25 on a machine that has nothing else to do."""

# The same everywhere. The hashes of str decide how often a dict probes; and where the C library copies by one
# repeated instruction, valgrind counts each byte as one.
_LARGE = 1 << 30
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LC_ALL": "C.UTF-8",
    "GLIBC_TUNABLES": ":".join(f"glibc.cpu.x86_rep_{name}_threshold={_LARGE}" for name in ("movsb", "stosb")),
}


class CountingError(Exception):
    """There is no count: valgrind is missing, the program failed, or its marks were not seen."""


@dataclass(frozen=True)
class Counted:
    """Instructions of one item."""

    name: str
    instructions: float


@dataclass(frozen=True)
class Comparison:
    """One figure beside its baseline."""

    name: str
    ratio: float
    baseline: float | None

    @property
    def change(self) -> float | None:
        """Above zero: more instructions than the baseline has."""
        return None if self.baseline is None else self.ratio / self.baseline - 1

    @property
    def verdict(self) -> str:
        if self.change is None:
            return "not in the baseline"
        if self.change > TOLERANCE:
            return "REGRESSION"
        return "better: RENEW the baseline" if self.change < -TOLERANCE else ""


def count(scale: float = 1.0) -> list[Counted]:
    """Run `counted` under valgrind; `scale`: part of the usual numbers."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise CountingError("valgrind is not installed (on Debian: apt-get install valgrind)")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        callgrind = [
            valgrind,
            "-q",
            "--tool=callgrind",
            "--dump-before=getppid",
            f"--callgrind-out-file={out}",
        ]
        try:
            run = subprocess.run(
                [*callgrind, sys.executable, "-m", "benchmarks.counted", str(scale)],
                cwd=ROOT,
                env=ENVIRONMENT | {"PATH": os.environ.get("PATH", os.defpath)},
                stdout=subprocess.PIPE,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise CountingError(f"not done after {SECONDS} seconds") from None
        if run.returncode:
            raise CountingError(f"the counted program ended with status {run.returncode}")
        done = json.loads(run.stdout)
        # Dump 1 ends at the first mark, and every even one between the two marks of one piece of work.
        dumps = len(list(Path(folder).glob("out.*")))
        if dumps != 2 * len(done):
            raise CountingError(f"valgrind saw {dumps} marks, not {2 * len(done)}")
        return [
            Counted(name, _total(out.with_suffix(f".{2 * number}")) / items)
            for number, (name, items) in enumerate(done, start=1)
        ]


def _total(dump: Path) -> int:
    for line in dump.read_text().splitlines():
        if line.startswith("totals:"):
            return int(line.split()[1])
    raise CountingError("a dump of valgrind's without its total")


def ratios(counted: list[Counted]) -> dict[str, float]:
    """Each figure as a ratio to the reference of the same run."""
    [reference] = [piece.instructions for piece in counted if piece.name == REFERENCE]
    return {piece.name: piece.instructions / reference for piece in counted if piece.name != REFERENCE}


def compare(measured: dict[str, float], baseline: dict[str, float]) -> list[Comparison]:
    """Each figure of this run beside the baseline's; what the baseline alone has is no longer counted."""
    return [Comparison(name, ratio, baseline.get(name)) for name, ratio in measured.items()]


def build() -> str:
    """What a baseline holds for: this Python's minor version, how it was compiled, and for what."""
    if "deb_system" in sysconfig.get_scheme_names():
        kind = "of Debian"  # optimized as well, by a recipe that does not show in the options
    elif "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""):
        kind = "optimized"
    else:
        kind = "plain"
    minor = ".".join(platform.python_version_tuple()[:2])
    return f"{platform.python_implementation()} {minor} {kind}, {platform.machine()}"


def versions() -> dict[str, str]:
    """What else moves the figures, to be told where it is not the baseline's."""
    packages = {name: version(name) for name in ("anyio", "cbor2", "msgspec", "trio")}
    return {"python": platform.python_version()} | packages


def shown(counted: list[Counted], comparisons: list[Comparison]) -> list[str]:
    """The table."""
    instructions = {piece.name: piece.instructions for piece in counted}
    lines = [f"{'':<30}{'instructions':>14}{'ratio':>10}{'baseline':>10}{'change':>9}"]
    lines.append(f"{REFERENCE:<30}{instructions[REFERENCE]:>14,.0f}{1:>10.5f}")
    for c in comparisons:
        line = f"{c.name:<30}{instructions[c.name]:>14,.0f}{c.ratio:>10.5f}"
        if c.baseline is not None and c.change is not None:
            line += f"{c.baseline:>10.5f}{c.change:>+9.1%}"
        lines.append(f"{line}  {c.verdict}".rstrip())
    return lines


def write_baseline(path: Path, name: str, measured: dict[str, float]) -> None:
    """Put this run's figures in place of what `path` has for this build."""
    baselines = _read(path)
    figures = {figure: round(ratio, 5) for figure, ratio in measured.items()}
    baselines[name] = {"versions": versions(), "ratios": figures}
    path.write_text(json.dumps(dict(sorted(baselines.items())), indent=2) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def check(counted: list[Counted], path: Path, name: str) -> int:
    """Print the table; the program's exit code: 1 where a figure is not the baseline's.

    A better one fails as well: against an old baseline, the next change could give all of it away unseen.
    """
    measured = ratios(counted)
    entry = _read(path).get(name)
    comparisons = compare(measured, entry["ratios"] if entry else {})
    print(*shown(counted, comparisons), sep="\n")
    if entry is None:
        print(f"No baseline for {name}: nothing was compared (--write-baseline makes one).")
        return 0
    for package, now in versions().items():
        if (then := entry["versions"].get(package)) != now:
            print(f"The baseline was made with {package} {then}; here it is {now}.")
    missing = sorted(entry["ratios"].keys() - measured.keys())
    if missing:
        print(f"In the baseline, and not counted: {', '.join(missing)}")
    worse = [c.name for c in comparisons if c.change is not None and c.change > TOLERANCE]
    if worse:
        print(f"More than {TOLERANCE:.0%} above the baseline: {', '.join(worse)}")
    better = [c.name for c in comparisons if c.change is not None and c.change < -TOLERANCE]
    if better:
        print(f"More than {TOLERANCE:.0%} below, renew the baseline (--write-baseline): {', '.join(better)}")
    return 1 if worse or better or missing else 0


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--write-baseline", action="store_true", help="renew the figures of this Python")
    options = parser.parse_args()
    try:
        counted = count()
    except CountingError as error:
        print(f"instructions: {error}", file=sys.stderr)
        return 2
    if options.write_baseline:
        write_baseline(BASELINES, build(), ratios(counted))
    return check(counted, BASELINES, build())


if __name__ == "__main__":
    sys.exit(main())
