"""Every case against every mutant: who catches whom, and the page about it.

    python tests/conformance/mutants/matrix.py [--cache FOLDER] [--mutant NAME]... [--uncaught] [--write]

`--cache` keeps what is known between runs, by the mutant's patch and the case's contents (not by the source
of kkrpc_py beside the patch: begin a new one where that has changed). `--uncaught` plays only the cases that
nothing has caught so far. `--write` renews docs/conformance-mutants.md, from a run over everything.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from pathlib import Path

import anyio

ROOT = Path(__file__).resolve().parents[3]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # as in `launch`

# ruff: noqa: E402 - only now is the way to these known
from kkrpc_py.conformance.cases import Case, load
from kkrpc_py.conformance.results import Verdict
from kkrpc_py.conformance.run import run
from tests.conformance.mutants.mutant import Mutant
from tests.conformance.mutants.table import MUTANTS

FOLDER = Path(__file__).parent
PAGE = ROOT / "docs" / "conformance-mutants.md"
ALIVE = 0.8
"""What a mutant passes at least: one that breaks everything says nothing about a case that catches it."""
SHOWN = 5
"""Cases that the page names of those that catch a mutant."""
START_SECONDS = 30.0

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
                process.kill()


async def caught_by(name: str, cases: Sequence[Case], *, timeout: float, jobs: int) -> dict[str, bool]:
    """Which of the cases catch the mutant. Those that the testee has not the features for are left out."""
    async with serving(name) as command:
        done = await run(command, cases, timeout=timeout, jobs=jobs)
    return {
        outcome.case.id: outcome.verdict is not Verdict.PASS
        for outcome in done.outcomes
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
            text = repr(dataclasses.astuple(case))
            self._keys[case.id] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._keys[case.id]


# --- running ------------------------------------------------------------------------------------


async def play(
    mutants: Sequence[Mutant],
    cases: Sequence[Case],
    cache: Cache,
    *,
    timeout: float,
    at_once: int = 2,
    jobs: int = 1,
    only_uncaught: bool = False,
    tell: bool = False,
) -> dict[str, dict[str, bool]]:
    """By the name of each mutant, which cases catch it. What the cache knows is not played again."""
    found: dict[str, dict[str, bool]] = {each.name: cache.known(each, cases) for each in mutants}
    caught = {id for each in found.values() for id, is_caught in each.items() if is_caught}
    left = list(mutants)

    async def work() -> None:
        while left:
            mutant = left.pop(0)
            known = found[mutant.name]
            wanted = [
                case for case in cases if case.id not in known and not (only_uncaught and case.id in caught)
            ]
            if wanted:
                new = await caught_by(mutant.name, wanted, timeout=timeout, jobs=jobs)
                cache.add(mutant, wanted, new)
                known.update(new)
                news = {id for id, is_caught in new.items() if is_caught}
                if tell:
                    print(
                        f"{mutant.name}: {len(news)} of {len(new)} catch it, {len(news - caught)} of them"
                        f" had caught nothing; {len(cases) - len(caught | news)} left",
                        flush=True,
                    )
                caught.update(news)

    async with anyio.create_task_group() as tasks:
        for _ in range(at_once):
            tasks.start_soon(work)
    return found


def passes(caught: Caught) -> float:
    """The share of the cases that the mutant passes."""
    return sum(not each for each in caught.values()) / len(caught)


def uncaught(found: Mapping[str, Caught], cases: Sequence[Case]) -> list[str]:
    """The cases that fail against no mutant that is alive."""
    alive = [caught for caught in found.values() if caught and passes(caught) >= ALIVE]
    return [case.id for case in cases if not any(caught.get(case.id, False) for caught in alive)]


# --- the page -----------------------------------------------------------------------------------

_HEAD = """\
# Mutants of the conformance kit

A case that cannot fail says nothing. So each case of [spec/conformance](../spec/conformance/README.md) fails
against at least one of the {mutants} programs below: the reference testee with one patch in one module, which
breaks one rule. Each of them still passes at least {alive:.0%} of the {cases} cases, and is caught by at least one.

"Passes" is its share of all cases. "Caught by" is how many fail, and some of them: those that catch the fewest
mutants come first.

| mutant | rule | what it does wrong | passes | caught by |
|---|---|---|---|---|
"""
_TAIL = """
The patches stand in tests/conformance/mutants. `python tests/conformance/mutants/matrix.py --write` plays all
cases against all of them and renews this page, which takes a while; a slow test checks what it claims.
"""


def page(mutants: Sequence[Mutant], found: Mapping[str, Caught], cases: Sequence[Case]) -> str:
    """docs/conformance-mutants.md."""
    times = {case.id: sum(caught.get(case.id, False) for caught in found.values()) for case in cases}
    lines = [_HEAD.format(mutants=len(mutants), alive=ALIVE, cases=len(cases))]
    for mutant in mutants:
        caught = found[mutant.name]
        by = sorted((id for id, is_caught in caught.items() if is_caught), key=lambda id: (times[id], id))
        share = int(passes(caught) * 1000) / 10
        shown = ", ".join(by[:SHOWN]) + (", …" if len(by) > SHOWN else "")
        lines.append(
            f"| {mutant.name} | {mutant.rule} | {mutant.what.replace('|', chr(92) + '|')} | {share} % "
            f"| {len(by)}: {shown} |\n"
        )
    return "".join((*lines, _TAIL))


def main() -> None:
    parser = argparse.ArgumentParser(description="Plays the conformance cases against the mutants.")
    parser.add_argument("--cache", type=Path, help="a folder outside of the repository")
    parser.add_argument("--mutant", action="append", default=[], help="only this one; more than once")
    parser.add_argument("--uncaught", action="store_true", help="only cases that nothing has caught so far")
    parser.add_argument("--known", action="store_true", help="play nothing: say what the cache knows")
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds of each wait")
    parser.add_argument("--at-once", type=int, default=2, help="mutants that are played side by side")
    parser.add_argument("--jobs", type=int, default=1, help="processes of each")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    cases = load()
    mutants = [each for each in MUTANTS if not options.mutant or each.name in options.mutant]
    cache = Cache(options.cache)

    async def play_all() -> dict[str, dict[str, bool]]:
        return await play(
            [] if options.known else mutants, cases, cache, timeout=options.timeout,
            at_once=options.at_once, jobs=options.jobs, only_uncaught=options.uncaught, tell=True,
        )  # fmt: skip

    found = anyio.run(play_all)
    if options.known:
        found = {each.name: cache.known(each, cases) for each in mutants}
    for mutant in mutants:
        caught = found[mutant.name]
        if caught and passes(caught) < ALIVE:
            print(f"{mutant.name} is not alive: it passes {passes(caught):.1%} of {len(caught)}")
        elif caught and not any(caught.values()):
            print(f"{mutant.name} is caught by none of {len(caught)}")
    for id in uncaught(found, cases):
        print(f"caught nothing: {id}")
    if options.write:
        PAGE.write_text(page(mutants, found, cases))


if __name__ == "__main__":
    main()
