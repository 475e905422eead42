"""The count of instructions: that its comparison can fail, and that it counts what it says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import counted, instructions
from benchmarks.instructions import Counted, check, compare, count, main, ratios, write_baseline

BUILD = "CPython 3.11 plain, x86_64"


def measured(chunk: float = 100.0, call: float = 4000.0, reference: float = 1000.0) -> list[Counted]:
    return [Counted(counted.REFERENCE, reference), Counted("chunk", chunk), Counted("call", call)]


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    path = tmp_path / "baseline.json"
    write_baseline(path, BUILD, ratios(measured()))
    return path


def test_a_figure_is_a_ratio_to_the_reference_of_its_run() -> None:
    assert ratios(measured()) == {"chunk": 0.1, "call": 4.0}


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (1.0, ""),
        (1.04, ""),
        (1.06, "REGRESSION"),
        (0.96, ""),
        (0.94, "better: RENEW the baseline"),
    ],
)
def test_more_than_the_tolerance_has_a_verdict(ratio: float, verdict: str) -> None:
    [comparison] = compare({"chunk": ratio}, {"chunk": 1.0})
    assert comparison.verdict == verdict


def test_the_same_counts_pass(baseline: Path) -> None:
    assert check(measured(), baseline, BUILD) == 0


def test_a_python_that_takes_twice_as_many_for_everything_passes(baseline: Path) -> None:
    assert check(measured(200, 8000, 2000), baseline, BUILD) == 0


def test_one_worse_figure_fails_and_is_named(baseline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(measured(chunk=106), baseline, BUILD) == 1
    assert "More than 5% above the baseline: chunk\n" in capsys.readouterr().out


def test_a_better_figure_fails_until_the_baseline_is_renewed(
    baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    better = measured(call=3000)
    assert check(better, baseline, BUILD) == 1
    output = capsys.readouterr().out
    assert "-25.0%  better: RENEW the baseline\n" in output
    assert "More than 5% below, renew the baseline (--write-baseline): call\n" in output
    write_baseline(baseline, BUILD, ratios(better))
    assert check(better, baseline, BUILD) == 0


def test_a_figure_that_is_counted_no_longer_fails(baseline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(measured()[:2], baseline, BUILD) == 1
    assert "In the baseline, and not counted: call\n" in capsys.readouterr().out


def test_a_python_without_baseline_passes_and_it_is_said(
    baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(measured(chunk=500), baseline, "CPython 3.99 plain, x86_64") == 0
    assert "No baseline for CPython 3.99 plain, x86_64: nothing was compared" in capsys.readouterr().out


def test_other_versions_than_the_baselines_are_told(
    baseline: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    then = instructions.versions()["anyio"]
    monkeypatch.setattr(instructions, "versions", lambda: {"anyio": "99.0"})
    check(measured(), baseline, BUILD)
    assert f"The baseline was made with anyio {then}; here it is 99.0.\n" in capsys.readouterr().out


def test_a_new_baseline_replaces_that_of_its_own_python_alone(baseline: Path) -> None:
    write_baseline(baseline, "CPython 3.99 plain, x86_64", ratios(measured(chunk=500)))
    write_baseline(baseline, BUILD, ratios(measured(chunk=50)))
    assert check(measured(chunk=500), baseline, "CPython 3.99 plain, x86_64") == 0
    assert check(measured(chunk=50), baseline, BUILD) == 0
    assert check(measured(chunk=100), baseline, BUILD) == 1


def test_without_valgrind_it_fails_and_says_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["instructions"])
    assert main() == 2
    assert "valgrind is not installed" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_a_small_run_counts_every_workload_on_each_loop() -> None:
    found = {piece.name: piece.instructions for piece in count(scale=0.05)}
    names = [f"{loop}: {name}" for loop in ("asyncio", "trio") for name in counted.WORKLOADS]
    assert list(found) == [counted.REFERENCE, *names]
    for loop in ("asyncio", "trio"):
        # No machine and no version of the library makes a chunk of many as costly as a call of its own.
        assert 100 < found[f"{loop}: int chunk"] < found[f"{loop}: call"] / 5
