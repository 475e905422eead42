"""Cases against mutants: who catches whom, and the page about it.

    python tests/conformance/mutants/matrix.py [--renew] [--all] [--cache FOLDER] [--timeout S] [--at-once N]

`caught.json` beside this module says of each mutant which cases are to catch it, so that each case stands
there at least once. Without options these are played, and a sample of all cases against every mutant, which
is to pass most of it. `--renew` looks for a mutant for the cases that catch none, takes away what holds no
longer, and writes `caught.json` and docs/conformance-mutants.md; `--all` plays every case against every
mutant for that.

`--cache` keeps what was found out between runs, by the mutant's patch and the case's contents (not by the
source of kkrpc_py beside the patch: begin a new one where that has changed).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from pathlib import Path

import anyio

ROOT = Path(__file__).resolve().parents[3]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # as in `launch`

# ruff: noqa: E402 - only now is the way to these known
from kkrpc_py.conformance.cases import Case, load
from kkrpc_py.conformance.results import Outcome, Verdict
from kkrpc_py.conformance.run import run
from tests.conformance.mutants.mutant import Mutant
from tests.conformance.mutants.table import MUTANTS

FOLDER = Path(__file__).parent
PAGE = ROOT / "docs" / "conformance-mutants.md"
CAUGHT = FOLDER / "caught.json"
ALIVE = 0.8
"""What a mutant passes at least: one that breaks everything says nothing about a case that catches it."""
CLOSE = 0.9
"""What passes less of the sample is played against all cases, since a sample is off by some percent."""
SHOWN = 5
"""Cases that the page names of those that catch a mutant."""
START_SECONDS = 30.0
SLOW_RULES = frozenset(("CLS-2", "CLS-5", "STR-10", "CRD-2", "CRD-3", "CRD-5", "CRD-7", "CRD-8"))
"""Rules whose cases move megabytes: on a machine that has other things to do, too, they take their time."""
SLOW_SECONDS = 8.0

Caught = Mapping[str, bool]
"""By the id of each case that was played: whether it caught the mutant."""


@contextlib.asynccontextmanager
async def serving(name: str) -> AsyncGenerator[list[str]]:
    """The command that runs the mutant of that name ("-": the testee as it is), as long as the block lasts.

    Raises RuntimeError where it does not start: its patch is stale.
    """
    with tempfile.TemporaryDirectory(prefix="mutant") as folder:
        path = str(Path(folder) / "socket")
        command = [sys.executable, str(FOLDER / "launch.py"), "--serve", path, name]
        process = await anyio.open_process(command, stdin=subprocess.PIPE, stderr=None)
        async with process:
            try:
                assert process.stdout is not None
                with anyio.fail_after(START_SECONDS):
                    try:
                        await process.stdout.receive()
                    except anyio.EndOfStream:
                        raise RuntimeError(f"the mutant {name} does not start") from None
                yield [sys.executable, "-S", "-E", str(FOLDER / "client.py"), path]
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()


async def caught_by(name: str, cases: Sequence[Case], *, timeout: float, jobs: int = 1) -> dict[str, bool]:
    """Which of the cases catch the mutant. Those that the testee has not the features for are left out."""
    slow = [case for case in cases if case.rule in SLOW_RULES]
    others = [case for case in cases if case.rule not in SLOW_RULES]
    outcomes: list[Outcome] = []
    async with serving(name) as command:
        for each, seconds in ((others, timeout), (slow, max(timeout, SLOW_SECONDS))):
            outcomes += (await run(command, each, timeout=seconds, jobs=jobs)).outcomes
    return {
        outcome.case.id: outcome.verdict is not Verdict.PASS
        for outcome in outcomes
        if outcome.verdict is not Verdict.SKIP
    }


# --- what is known ------------------------------------------------------------------------------


class Cache:
    """Results of earlier runs, in a folder; without one nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._keys: dict[str, str] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def known(self, mutant: Mutant | None, cases: Iterable[Case]) -> dict[str, bool]:
        found = self._read(mutant)
        return {case.id: found[key] for case in cases if (key := self._key(case)) in found}

    def add(self, mutant: Mutant | None, cases: Iterable[Case], caught: Caught) -> None:
        if self._folder is None:
            return
        found = self._read(mutant)
        found |= {self._key(case): caught[case.id] for case in cases if case.id in caught}
        self._path(mutant).write_text(json.dumps(found))

    def _path(self, mutant: Mutant | None) -> Path:
        assert self._folder is not None
        patch = "" if mutant is None else f"{mutant.module}\0{mutant.find}\0{mutant.replace}"
        name = "-" if mutant is None else mutant.name
        return self._folder / f"{name}-{hashlib.sha256(patch.encode()).hexdigest()[:12]}.json"

    def _read(self, mutant: Mutant | None) -> dict[str, bool]:
        if self._folder is None or not self._path(mutant).exists():
            return {}
        found: dict[str, bool] = json.loads(self._path(mutant).read_text())
        return found

    def _key(self, case: Case) -> str:
        """By its contents, which are made into text once."""
        if case.id not in self._keys:
            # A set is written in another order in each process.
            text = repr(
                (dataclasses.astuple(dataclasses.replace(case, features=frozenset())), sorted(case.features))
            )
            self._keys[case.id] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._keys[case.id]


# --- running ------------------------------------------------------------------------------------


class Matrix:
    """What is known of cases and mutants, and the finding out of more."""

    def __init__(
        self,
        mutants: Sequence[Mutant],
        cases: Sequence[Case],
        cache: Cache,
        *,
        timeout: float,
        at_once: int = 2,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.mutants = mutants
        self.cases = cases
        self.found = {each.name: cache.known(each, cases) for each in mutants}
        self._cache = cache
        self._timeout = timeout
        self._at_once = at_once
        self._tell = tell

    async def play(self, wanted: Callable[[Mutant], Sequence[Case]]) -> None:
        """Play what is wanted of each mutant and not known; it is asked when the mutant's turn has come."""
        left = list(self.mutants)

        async def work() -> None:
            while left:
                mutant = left.pop(0)
                known = self.found[mutant.name]
                cases = [case for case in wanted(mutant) if case.id not in known]
                if cases:
                    new = await caught_by(mutant.name, cases, timeout=self._timeout)
                    self._cache.add(mutant, cases, new)
                    known.update(new)
                    self._tell(f"{mutant.name}: {sum(new.values())} of {len(new)} catch it")

        async with anyio.create_task_group() as tasks:
            for _ in range(self._at_once):
                tasks.start_soon(work)

    async def search(self) -> None:
        """Look for mutants of cases that catch none, and for cases of mutants that none catches."""

        def section(rule: str) -> str:
            return rule.partition("-")[0]

        def same_rule(mutant: Mutant, case: Case) -> bool:
            return mutant.rule == case.rule

        def same_section(mutant: Mutant, case: Case) -> bool:
            return section(mutant.rule) == section(case.rule)

        def any_rule(mutant: Mutant, case: Case) -> bool:
            return True

        near: Callable[[Mutant, Case], bool]
        for near in (same_rule, same_section, any_rule):

            def wanted(mutant: Mutant, near: Callable[[Mutant, Case], bool] = near) -> list[Case]:
                ids = set(self.uncaught())
                free = not self.catchers(mutant)
                return [case for case in self.cases if (free or case.id in ids) and near(mutant, case)]

            await self.play(wanted)

    def uncaught(self) -> list[str]:
        """The cases that are not known to catch anything."""
        caught = {id for each in self.found.values() for id, is_caught in each.items() if is_caught}
        return [case.id for case in self.cases if case.id not in caught]

    def catchers(self, mutant: Mutant) -> list[str]:
        """The cases that are known to catch the mutant; those that catch few come first."""
        times = Counter(id for each in self.found.values() for id, is_caught in each.items() if is_caught)
        caught = (id for id, is_caught in self.found[mutant.name].items() if is_caught)
        return sorted(caught, key=lambda id: (times[id], id))

    def passes(self, mutant: Mutant) -> float:
        """The share of the sample, or of all where all are known, that the mutant passes."""
        known = self.found[mutant.name]
        every = [known[case.id] for case in self.cases if case.id in known]
        if len(every) < len(self.cases):
            every = [known[case.id] for case in sample(self.cases) if case.id in known]
        return every.count(False) / len(every) if every else 0.0

    @property
    def is_complete(self) -> bool:
        return all(len(each) >= len(self.cases) for each in self.found.values())


def sample(cases: Sequence[Case]) -> list[Case]:
    """One in ten of the cases: by their names alone, so that a new case changes nothing for the others."""
    return [case for case in cases if hashlib.sha256(case.id.encode()).digest()[0] % 10 == 0]


def to_play(name: str, wanted: Mapping[str, Iterable[str]], cases: Sequence[Case]) -> list[Case]:
    """The sample, and the cases that are to catch the mutant of that name."""
    ids = {case.id for case in sample(cases)}.union(wanted.get(name, ()))
    return [case for case in cases if case.id in ids]


def expected() -> dict[str, list[str]]:
    """What `caught.json` says: by the name of each mutant the cases that are to catch it."""
    found: dict[str, list[str]] = json.loads(CAUGHT.read_text())
    return found


# --- the page -----------------------------------------------------------------------------------

_HEAD = """\
# Mutants of the conformance kit

A case that cannot fail says nothing. So each of the {cases} cases of
[spec/conformance](../spec/conformance/README.md) fails against at least one of the {mutants} programs below:
the reference testee with one patch in one module, which breaks one rule. Each of these is caught by at least
one case, and still passes at least {alive:.0%}: one that breaks everything would say nothing about the case
that catches it.

{told}

| mutant | rule | what it does wrong | passes | caught by |
|---|---|---|---|---|
"""
_ALL = """\
"Passes" is its share of all cases; "caught by" is how many fail, and some of them: those that catch the
fewest mutants come first."""
_SAMPLE = """\
Not every case is played against every mutant. "Passes" is its share of a sample, one case in ten, and of all
cases where that is less than {close:.0%}; "caught by" is how many of the cases that were tried fail, and some
of them: those that catch the fewest mutants come first."""
_TAIL = """
The patches stand in tests/conformance/mutants, and so does which case is to catch which (`caught.json`).
`python tests/conformance/mutants/matrix.py --renew` brings that and this page up to date. A test checks that
each case stands there, a slow one that what stands there holds.
"""


def page(matrix: Matrix) -> str:
    """docs/conformance-mutants.md."""
    told = _ALL if matrix.is_complete else _SAMPLE.format(close=CLOSE)
    head = _HEAD.format(mutants=len(matrix.mutants), alive=ALIVE, cases=len(matrix.cases), told=told)
    lines = [head]
    for mutant in matrix.mutants:
        by = matrix.catchers(mutant)
        share = int(matrix.passes(mutant) * 1000) / 10
        shown = ", ".join(by[:SHOWN]) + (", …" if len(by) > SHOWN else "")
        what = mutant.what.replace("|", "\\|")
        lines.append(f"| {mutant.name} | {mutant.rule} | {what} | {share} % | {len(by)}: {shown} |\n")
    return "".join((*lines, _TAIL))


def main() -> None:
    parser = argparse.ArgumentParser(description="Plays conformance cases against the mutants.")
    parser.add_argument("--renew", action="store_true", help=f"write caught.json and {PAGE.name}")
    parser.add_argument("--all", action="store_true", help="play every case against every mutant")
    parser.add_argument("--cache", type=Path, help="a folder outside of the repository")
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds of each wait")
    parser.add_argument("--at-once", type=int, default=2, help="mutants that are played side by side")
    options = parser.parse_args()
    cases = load()
    broken = anyio.run(functools.partial(caught_by, "-", cases, timeout=options.timeout * 2, jobs=2))
    for case in [case for case in cases if broken.get(case.id, False)]:
        print(f"fails without any patch, and is left out: {case.id}")
        cases.remove(case)
    matrix = Matrix(
        MUTANTS,
        cases,
        Cache(options.cache),
        timeout=options.timeout,
        at_once=options.at_once,
        tell=functools.partial(print, flush=True),
    )
    wanted = expected() if CAUGHT.exists() else {}

    async def play() -> None:
        def named(mutant: Mutant) -> list[Case]:
            return to_play(mutant.name, wanted, cases)

        await matrix.play((lambda mutant: cases) if options.all else named)
        if options.renew:
            await matrix.search()
            await matrix.play(lambda mutant: cases if matrix.passes(mutant) < CLOSE else ())

    anyio.run(play)
    for mutant in MUTANTS:
        for id in wanted.get(mutant.name, ()):
            if not matrix.found[mutant.name].get(id, False):
                print(f"{mutant.name} is no longer caught by {id}")
        if matrix.passes(mutant) < ALIVE:
            print(f"{mutant.name} is not alive: it passes {matrix.passes(mutant):.1%}")
        if not matrix.catchers(mutant):
            print(f"{mutant.name} is caught by nothing")
    for id in matrix.uncaught():
        print(f"caught nothing: {id}")
    if options.renew:
        caught = {mutant.name: sorted(matrix.catchers(mutant)) for mutant in MUTANTS}
        CAUGHT.write_text(json.dumps(caught, indent=1) + "\n")
        PAGE.write_text(page(matrix))


if __name__ == "__main__":
    main()
