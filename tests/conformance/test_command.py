"""`kkrpc-py conformance` as its users run it: real processes, their output, their exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from kkrpc_py.conformance.cases import load
from kkrpc_py.conformance.command import parse
from kkrpc_py.conformance.files import Unwritable, check_writable, is_same

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "spec" / "conformance" / "report.schema.json").read_text("utf-8"))
SECONDS = 90
KIT = [sys.executable, "-m", "kkrpc_py", "conformance"]
REFERENCE = [sys.executable, "-m", "kkrpc_py.conformance.testee"]
BROKEN = [sys.executable, str(Path(__file__).with_name("broken_testee.py"))]

# Some of each level that share their processes: seconds, where all take a minute or two.
SELECTION = (
    "cla-2/* frm-1[0-2]/* call-[1-4]/* err-4/* str-[1-5]/* can-4/* bat-1/* crd-[3467]/* "
    "nst-5/* nst-18/* evt-2/*"
).split()
# What the broken testee makes of these.
VERDICTS = {
    "frm-12/first-byte": "non-strict",
    "call-3/falsy-values-are-results": "pass",
    "call-1/positional-arguments-in-order": "fail",
    "call-3/null-is-a-result": "pass",
    "call-3/nothing": "error",
    "call-6/a-missing-function": "fail",
    "call-6/construct-missing": "skip",
}


def run(*words: str | Path, command: list[str] | None = BROKEN) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KIT, *map(str, words), *(["--", *command] if command else [])],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def run_broken(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return run("--case", *VERDICTS, "--timeout", "20", *words)


# The testees of the repository ---------------------------------------------------------------


def report_of_selection(command: list[str], folder: Path) -> dict[str, Any]:
    """The JSON report of a run that is good and says so."""
    output = folder / "report.json"
    chosen = ["--case", *SELECTION, "--report", "json", "--output", output, "--timeout", "20"]
    done = run(*chosen, command=command)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    report: dict[str, Any] = json.loads(output.read_text("utf-8"))
    assert report["passed"]
    assert f"{len(report['outcomes'])} cases, {report['played']} played, in " in done.stdout
    return report


def passed(report: dict[str, Any]) -> set[str]:
    """Levels of which more than a few cases passed."""
    return {level for level, counts in report["levels"].items() if counts["pass"] > 10}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_reference_testee_passes_a_selection(backend: str, tmp_path: Path) -> None:
    report = report_of_selection([*REFERENCE, "--backend", backend], tmp_path)
    assert passed(report) == {"0", "1", "2", "3", "4"}
    assert report["counts"]["skip"] == report["counts"]["non-strict"] == 0


def test_the_testee_in_javascript_passes_a_selection(tmp_path: Path) -> None:
    if shutil.which("node") is None:
        if os.environ.get("KKRPC_REQUIRE_NODE"):
            pytest.fail("no Node here, and KKRPC_REQUIRE_NODE is set")
        pytest.skip("no Node here")
    report = report_of_selection(["node", str(ROOT / "spec" / "testees" / "node" / "testee.mjs")], tmp_path)
    reasons = [each["reason"] for each in report["outcomes"] if each["verdict"] == "skip"]
    lacked = {name for reason in reasons for name in reason.split(", ")}
    hub = {"named-streams", "uploads", "events", "shared-state", "streams-client", "actions"}
    assert passed(report) >= {"0", "1", "2"}
    assert lacked <= {"cbor", "superjson", "credit"} | hub, lacked


# A broken testee -----------------------------------------------------------------------------


def test_the_text_report_of_a_broken_testee() -> None:
    done = run_broken()
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.split("\n")
    found = {line.partition("  ")[2]: line.partition("  ")[0].lower() for line in lines if "  " in line[1:12]}
    assert VERDICTS.items() >= {name: verdict for name, verdict in found.items() if name in VERDICTS}.items()
    for name, verdict in VERDICTS.items():
        assert (name in found) == (verdict not in {"pass", "skip"})
    assert [each for each in done.stdout if not each.isprintable() and each != "\n"] == []
    assert "    | this is the end" in lines
    assert "  rule      CALL-1, MUST: " in done.stdout
    assert lines[-2].startswith("7 cases, 6 played, in ")
    assert lines[-2].endswith(": FAILED, 3 bad")
    assert "skipped, for lack of:\n  construct: 1\n" in done.stdout


def test_the_command_of_a_report_runs_the_case_again() -> None:
    report = json.loads(run_broken("--report", "json").stdout)
    (again,) = (each["again"] for each in report["outcomes"] if each["id"] == "call-3/nothing")
    words = shlex.split(again)
    assert words[:2] == ["kkrpc-py", "conformance"]
    done = subprocess.run(
        [*KIT, *words[2:]],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 1
    assert "ERROR  call-3/nothing\n" in done.stdout
    assert "1 cases, 1 played, in " in done.stdout


def test_the_junit_report_of_a_broken_testee(tmp_path: Path) -> None:
    output = tmp_path / "junit.xml"
    done = run_broken("--report", "junit", "--output", output)
    assert (done.returncode, done.stderr) == (1, "")
    suites = ElementTree.parse(output).getroot()
    elements = {"fail": "failure", "error": "error", "skip": "skipped"}
    found = {
        each.get("name"): next((tag for tag in elements.values() if each.find(tag) is not None), None)
        for each in suites.iter("testcase")
    }
    assert found == {name: elements.get(verdict) for name, verdict in VERDICTS.items()}
    (crashed,) = suites.iter("system-err")
    assert "this is the end" in str(crashed.text)
    assert [path.name for path in tmp_path.iterdir()] == ["junit.xml"]


def test_the_json_report_of_a_broken_testee() -> None:
    done = run_broken("--report", "json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    jsonschema.Draft202012Validator(SCHEMA).validate(report)
    assert {each["id"]: each["verdict"] for each in report["outcomes"]} == VERDICTS
    noisy = {each["id"]: each["noise"] for each in report["outcomes"] if "noise" in each}
    assert noisy == {
        "call-1/positional-arguments-in-order": {"lines": 1, "first": "noise \\xff\\x00 ]]>"},
    }
    # The summary does not get into what a program reads.
    assert done.stderr.endswith(": FAILED, 3 bad\n")


def test_a_failure_in_a_shared_process_says_so() -> None:
    cases = ["call-3/falsy-values-are-results", "call-3/null-is-a-result", "call-3/nothing"]
    done = run("--case", *cases, "--jobs", "1", "--report", "json")
    before = {each["id"]: each.get("before", 0) for each in json.loads(done.stdout)["outcomes"]}
    # In the order of the file: what failed is the last of its process.
    assert sorted(before.values()) == [0, 1, 2]
    assert before["call-3/nothing"] == list(before).index("call-3/nothing")


def test_an_old_report_is_replaced(tmp_path: Path) -> None:
    output = tmp_path / "report.txt"
    output.write_text("old\n" * 100_000)
    done = run("--case", "call-3/falsy-values-are-results", "--output", output)
    assert (done.returncode, output.read_text("utf-8")) == (0, done.stdout)


def test_a_report_can_go_to_what_is_no_file() -> None:
    done = run("--case", "call-3/falsy-values-are-results", "--report", "json", "--output", "/dev/stderr")
    assert done.returncode == 0
    assert json.loads(done.stderr)["passed"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that takes nothing")
def test_a_report_that_cannot_be_written_is_not_lost() -> None:
    done = run("--case", "call-3/null-*", "--report", "json", "--output", "/dev/full")
    assert done.returncode == 2
    assert json.loads(done.stdout)["passed"]
    assert done.stderr.startswith("kkrpc-py conformance: /dev/full: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that takes nothing")
def test_a_stdout_that_takes_nothing_is_no_failed_case() -> None:
    words = [*KIT, "--case", "call-3/null-*", "--", *BROKEN]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            words, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=SECONDS
        )
    assert done.returncode == 2
    assert done.stderr.startswith("kkrpc-py conformance: the report cannot be written: ")


def test_a_reader_that_goes_away_is_told_of_as_ever() -> None:
    words = [*KIT, "--case", "call-3/null-*", "--", *BROKEN]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as kit:
        assert kit.stdout is not None
        kit.stdout.close()
        assert kit.stderr is not None
        assert kit.stderr.read() == b""
        assert kit.wait(SECONDS) == 128 + signal.SIGPIPE


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    link = tmp_path / "latest"
    link.symlink_to(tmp_path / "report.txt")
    done = run("--case", "call-3/null-*", "--output", link)
    assert done.returncode == 0
    assert link.is_symlink()
    assert (tmp_path / "report.txt").read_text("utf-8") == done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"latest", "report.txt"}


def test_a_file_that_may_not_be_written_is_found_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As root, who runs some tests, everything may be written.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(Unwritable, match="may not be written to"):
        check_writable(tmp_path / "report.txt")
    monkeypatch.undo()
    check_writable(tmp_path / "report.txt")


def test_links_and_detours_name_one_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert is_same(tmp_path / "a", tmp_path / "link")
    assert is_same(tmp_path / "a", tmp_path / "b" / ".." / "a")
    assert not is_same(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a").touch()
    (tmp_path / "hard").hardlink_to(tmp_path / "a")
    assert is_same(tmp_path / "hard", tmp_path / "a")


def test_a_testee_that_can_do_nothing_of_it_has_not_passed() -> None:
    done = run("--case", "sup-*")
    assert done.returncode == 1
    assert done.stdout.endswith(": NOTHING WAS TESTED\n")


def test_the_exit_code_needs_no_stdout() -> None:
    words = [*KIT, "--case", "call-3/n*", "--", *BROKEN]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *words], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


# Known failures ------------------------------------------------------------------------------


def test_a_baseline_makes_the_next_run_good_until_an_entry_is_stale(tmp_path: Path) -> None:
    known = tmp_path / "known.json"
    first = run_broken("--known", known, "--write-baseline")
    assert first.returncode == 0, first.stdout
    bad = [name for name, verdict in VERDICTS.items() if verdict in {"fail", "error"}]
    crash = {"verdict": "error", "reason": "baseline"}
    listed = {name: crash if VERDICTS[name] == "error" else "baseline" for name in sorted(bad)}
    assert json.loads(known.read_text("utf-8")) == {"known": listed}

    second = run_broken("--known", known)
    assert second.returncode == 0, second.stdout
    assert "KNOWN  call-3/nothing" in second.stdout

    known.write_text(json.dumps({"known": {"call-3/null-is-a-result": "issue 7: null is lost", **listed}}))
    third = run_broken("--known", known)
    assert third.returncode == 1
    assert "STALE  call-3/null-is-a-result" in third.stdout
    assert "which says: issue 7" in third.stdout

    fourth = run_broken("--known", known, "--write-baseline")
    assert fourth.returncode == 0
    assert set(json.loads(known.read_text("utf-8"))["known"]) == set(bad)


# The documents -------------------------------------------------------------------------------


def without_times(text: str) -> str:
    return re.sub(r"\d+\.\d+", "T", text)


def test_the_report_in_the_documents_is_a_real_one(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "conformance.md").read_text("utf-8")
    (testee,) = re.findall(r"^```python file=testee\.py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (command, report) = re.findall(
        r"^```text\n(kkrpc-py conformance --case [^\n]*)\n```\n\n^```text report\n(.*?)^```$",
        text,
        re.MULTILINE | re.DOTALL,
    )[0]
    (tmp_path / "testee.py").write_text(testee, encoding="utf-8")
    words = shlex.split(command)
    # The command of the documents is `python`, which may be another one on the path, or none.
    (tmp_path / "python").symlink_to(sys.executable)
    done = subprocess.run(
        [*KIT, *words[2:]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert without_times(done.stdout) == without_times(report)


# What cannot be done -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "command", "complaint"),
    [
        ([], None, "say what to test: -- COMMAND ..."),
        (["--"], None, "say what to test: -- COMMAND ..."),
        (["--level", "5"], BROKEN, "argument --level: invalid choice: 5"),
        (["--dialect", "compact"], BROKEN, "argument --dialect: invalid choice"),
        (["--report", "html"], BROKEN, "argument --report: invalid choice"),
        (["--timeout", "0"], BROKEN, "argument --timeout: '0' is no number of seconds above 0"),
        (["--jobs", "0"], BROKEN, "argument --jobs: '0' is no number above 0"),
        (["--write-baseline"], BROKEN, "--write-baseline needs the file: --known FILE"),
        (["--wat"], BROKEN, "unrecognized arguments: --wat"),
        (["--case", "call-3/nothing", "nope/*"], BROKEN, "no case has an id like nope/*"),
        (["--case", "call-3/*", "--level", "3"], BROKEN, "no case is of that choice"),
        (["--known", "same.json", "--output", "./same.json"], BROKEN, "--known and --output name one file"),
        (["--known", "/nowhere/k.json", "--write-baseline"], BROKEN, "there is no folder /nowhere"),
        (["--known", "/nowhere/known.json"], BROKEN, "/nowhere/known.json: "),
        (["--output", "/nowhere/report.txt"], BROKEN, "there is no folder /nowhere"),
        (["--output", "/"], BROKEN, "/ is a folder"),
        ([], ["/nowhere/testee"], "/nowhere/testee"),
        ([], [*BROKEN, "wrong"], "describe"),
        (["--timeout", "0.2"], [*BROKEN, "deaf"], "describe"),
        ([], [sys.executable, "-c", "import sys; sys.exit('I cannot start')"], "I cannot start"),
    ],
)
def test_what_cannot_be_done_exits_with_2(
    words: list[str], command: list[str] | None, complaint: str
) -> None:
    done = run(*words, command=command)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_known_failure_that_is_no_case_is_found_before_the_run(tmp_path: Path) -> None:
    known = tmp_path / "known.json"
    known.write_text('{"known": {"call-1/nothing-like-it": "why"}}')
    done = run("--known", known, command=["/nowhere/testee"])
    assert done.returncode == 2
    assert "no case has the id call-1/nothing-like-it" in done.stderr


def test_help_says_what_the_command_wants() -> None:
    done = run("--help", command=None)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: kkrpc-py conformance [OPTIONS] -- COMMAND ...")
    overview = subprocess.run(
        [*KIT[:-1], "--help"], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS
    )
    assert "conformance" in overview.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-- a", {"level": None, "case": None, "report": "text", "timeout": 5.0, "jobs": 2}),
        ("--level 0 2 --level 3 -- a", {"level": [0, 2, 3]}),
        ("--case x/* y --case z -- a", {"case": ["x/*", "y", "z"]}),
        ("--jobs 4 --timeout 1.5 -- a", {"jobs": 4, "timeout": 1.5}),
    ],
)
def test_the_options_are_understood(words: str, expected: dict[str, Any]) -> None:
    options = vars(parse(words.split()))
    assert options.items() >= expected.items()
    assert options["command"] == ("a",)


def test_what_follows_the_dashes_is_the_commands() -> None:
    assert parse(["--", "a", "--level", "9", "--", "-x"]).command == ("a", "--level", "9", "--", "-x")


def test_a_choice_keeps_the_order_of_the_cases() -> None:
    done = run("--case", *reversed(VERDICTS), "--report", "json")
    ids = [case.id for case in load()]
    chosen = [outcome["id"] for outcome in json.loads(done.stdout)["outcomes"]]
    assert chosen == sorted(VERDICTS, key=ids.index)


@pytest.mark.slow
def test_a_wheel_brings_the_cases_along(tmp_path: Path) -> None:
    def python(*words: str, folder: Path) -> str:
        env = {**os.environ, "PYTHONPATH": str(tmp_path / "unpacked")}
        return subprocess.run(
            [sys.executable, *words],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
            check=True,
        ).stdout

    python("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT), folder=ROOT)
    (wheel,) = tmp_path.glob("kkrpc_py-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    code = "from kkrpc_py.conformance import cases; print(cases.spec_folder()); print(len(cases.load()))"
    spec, count = python("-c", code, folder=tmp_path).splitlines()
    assert (spec, int(count)) == (str(tmp_path / "unpacked" / "kkrpc_py" / "spec"), len(load()))
    shown = python("-m", "kkrpc_py", *KIT[3:], "--case", "call-1/*", "--", *REFERENCE, folder=tmp_path)
    assert shown.endswith("passed\n")


# Signals and terminals -----------------------------------------------------------------------


def wait_for(path: Path) -> int:
    deadline = time.monotonic() + SECONDS
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(path.read_text())


def is_alive(number: int) -> bool:
    """Whether the process runs; one that is dead and not reaped does not."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[tuple[list[str], Path]]:
    """A testee that says its number and never answers."""
    path = tmp_path / "number"
    code = (
        f"import os, time\nopen({str(path)!r}, 'w').write(f'{{os.getpid()}}\\n')\nwhile True: time.sleep(60)"
    )
    yield [sys.executable, "-c", code], path
    if path.exists() and is_alive(int(path.read_text())):
        os.kill(int(path.read_text()), signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_child(sleeper: tuple[list[str], Path], number: signal.Signals) -> None:
    command, path = sleeper
    kit = subprocess.Popen(
        [*KIT, "--timeout", "600", "--", *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        child = wait_for(path)
        kit.send_signal(number)
        printed, complaint = kit.communicate(timeout=SECONDS)
    finally:
        kit.kill()
        kit.wait()
    assert (kit.returncode, printed, complaint) == (128 + number, b"", b"")
    assert not is_alive(child)


def test_nohup_is_heeded(sleeper: tuple[list[str], Path]) -> None:
    command, path = sleeper
    words = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *KIT, "--timeout", "600", "--", *command]
    kit = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_for(path)
        kit.send_signal(signal.SIGHUP)
        # The kit gets both, in this order: had the first one ended it, the code would be another.
        kit.send_signal(signal.SIGTERM)
        kit.communicate(timeout=SECONDS)
    finally:
        kit.kill()
        kit.wait()
    assert kit.returncode == 128 + signal.SIGTERM


def test_a_terminal_sees_how_far_it_is() -> None:
    ours, theirs = pty.openpty()
    words = [*KIT, "--case", "call-3/falsy-values-are-results", "call-3/nothing", "--", *BROKEN]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs) as kit:
        os.close(theirs)
        seen = b""
        # The end of a terminal is an error on Linux and an end of file elsewhere.
        with contextlib.suppress(OSError):
            while select.select([ours], [], [], SECONDS)[0] and (more := os.read(ours, 4096)):
                seen += more
        kit.communicate(timeout=SECONDS)
    os.close(ours)
    shown = seen.decode().split("\r\x1b[K")
    assert shown[0] == shown[-1] == ""
    assert [line.partition("  ")[0] for line in shown[1:-1]] == ["1/2", "2/2, 1 bad"]
