"""The mutants: patches that fit, cases that catch them, and the page that says so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from kkrpc_py.conformance.cases import load
from tests.conformance.mutants.matrix import (
    ALIVE,
    FOLDER,
    PAGE,
    ROOT,
    caught_by,
    expected,
    sample,
    to_play,
)
from tests.conformance.mutants.mutant import STALE, Mutant, Patching
from tests.conformance.mutants.table import MUTANTS

BY_NAME = {mutant.name: mutant for mutant in MUTANTS}
SAMPLE_ERROR = 0.05
"""What a sample may be off; those near the edge are played against all cases for the page."""
ROW = re.compile(r"\| ([a-z0-9-]+) \| ([A-Z]+-\d+) \| .+ \| ([\d.]+) % \| (\d+): (.+) \|")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_patch_fits(mutant: Mutant) -> None:
    source = (ROOT / f"{mutant.module.replace('.', '/')}.py").read_text()
    compile(mutant.patched(source), mutant.module, "exec")
    assert f"**{mutant.rule}.**" in (ROOT / "spec" / "protocol.md").read_text()


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(MUTANTS)


def test_a_stale_mutant_is_an_error(tmp_path: Path) -> None:
    module = tmp_path / "module_of_a_mutant.py"
    for text, said in (("", b"holds 0 times"), ("find find", b"holds 2 times")):
        module.write_text(f"# {text}\n")
        program = (
            f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(tmp_path)!r}]\n"
            f"from {Mutant.__module__} import Mutant, Patching\n"
            f"mutant = Mutant('m', 'FRM-1', 'none', 'module_of_a_mutant', 'find', 'replace')\n"
            f"sys.meta_path.insert(0, Patching(mutant))\n"
            f"import module_of_a_mutant\n"
        )
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
        assert (ended.returncode, said in ended.stderr) == (STALE, True), ended
    assert Patching.__name__ in program


def test_the_patch_is_what_runs() -> None:
    """The launcher itself, without the server that forks."""
    ask = b'{"id":1,"method":"add","args":[1,2],"type":"request"}\n'

    def answered(name: str) -> bytes:
        command = [sys.executable, str(FOLDER / "launch.py"), name]
        ended = subprocess.run(command, input=ask, capture_output=True, timeout=60)
        assert ended.returncode == 0, ended
        return ended.stdout

    assert answered("-") == b'\n{"id":1,"method":"","args":{"result":3},"type":"response","version":"json"}\n'
    assert b'{"id":"1",' in answered("integer-ids-as-text")
    assert answered("no-line-feed-first")[:1] == b"{"


@pytest.mark.anyio
async def test_some_mutants_are_caught() -> None:
    """A few mutants, each with some of the cases that are to catch it, and with those of the others."""
    wanted, shared = expected(), {case.id: case for case in load() if not case.fresh}
    few = {
        name: [id for id in wanted[name] if id in shared and shared[id].rule == BY_NAME[name].rule][:3]
        for name in ("integer-ids-as-text", "falsy-results-lost", "release-unsent")
    }
    cases = [shared[id] for id in {id for each in few.values() for id in each}]
    with anyio.fail_after(60):
        for name, ids in few.items():
            caught = await caught_by(name, cases, timeout=0.7)
            assert [id for id in ids if not caught[id]] == []
            assert not all(caught.values())
        caught = await caught_by("-", cases, timeout=5.0)
        assert [id for id, is_caught in caught.items() if is_caught] == []


@pytest.mark.anyio
async def test_a_mutant_that_is_unknown_does_not_start() -> None:
    with anyio.fail_after(60):
        with pytest.raises(RuntimeError, match="does not start"):
            await caught_by("no-such-mutant", [], timeout=1.0)


def test_each_case_is_to_catch_something() -> None:
    """A new case needs a mutant that it catches: `matrix.py --renew` looks for one."""
    wanted = expected()
    ids = {case.id for case in load()}
    assert list(wanted) == [mutant.name for mutant in MUTANTS]
    assert all(wanted.values())
    named = {id for each in wanted.values() for id in each}
    assert sorted(ids - named) == []
    assert sorted(named - ids) == []


def test_the_page_is_what_is_expected() -> None:
    wanted = expected()
    rows = [row.groups() for row in map(ROW.fullmatch, PAGE.read_text().splitlines()) if row is not None]
    assert [(name, rule) for name, rule, *_ in rows] == [(each.name, each.rule) for each in MUTANTS]
    for name, _, share, count, shown in rows:
        assert float(share) >= 100 * ALIVE
        assert int(count) == len(wanted[name])
        assert set(shown.split(", ")) - {"…"} <= set(wanted[name])


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
async def test_the_mutant_is_caught_and_alive(mutant: Mutant) -> None:
    """What `caught.json` says of it, and that it passes most of a sample of all cases."""
    cases, wanted = load(), expected()
    with anyio.fail_after(170):
        caught = await caught_by(mutant.name, to_play(mutant.name, wanted, cases), timeout=2.0, jobs=3)
    assert [id for id in wanted[mutant.name] if not caught[id]] == []
    tried = [caught[case.id] for case in sample(cases)]
    assert tried.count(False) / len(tried) >= ALIVE - SAMPLE_ERROR
