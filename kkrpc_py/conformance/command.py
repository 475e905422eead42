"""`kkrpc-py conformance`: choosing cases, running them against a command, writing the report.

It owns the arguments and the exit codes: 0 where no case is bad, 1 where one is or none was played, 2 for a
wrong command line, a file that cannot be used, and a testee that cannot be talked to at all. What the cases
are, how they are run and what is reported stands in the modules beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from kkrpc_py.conformance import jsonreport, junit, known, report
from kkrpc_py.conformance.cases import Case, CaseError, load, spec_folder
from kkrpc_py.conformance.files import Unwritable, check_writable, is_same, write_whole
from kkrpc_py.conformance.results import Outcome, Run
from kkrpc_py.conformance.rules import rules_of
from kkrpc_py.conformance.run import TesteeUnusable, run
from kkrpc_py.conformance.shown import printable

__all__ = ["execute", "parse"]

WRONG = 2
_DIALECTS = ("classic",)
_LEVELS = range(5)
_TIMEOUT, _JOBS = 5.0, 2
_FORMS = {"text": report.text, "junit": junit.xml, "json": jsonreport.document}


# Arguments -----------------------------------------------------------------------------------


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of `kkrpc-py conformance WORDS`. A wrong command line raises SystemExit(2)."""
    parser = argparse.ArgumentParser(
        prog="kkrpc-py conformance",
        usage="%(prog)s [OPTIONS] -- COMMAND ...",
        description="Start COMMAND, a program around an implementation of the protocol (spec/testee.md), and "
        "say where it differs from spec/protocol.md. Exit codes: 0 where nothing is wrong; 1 where a case "
        "failed, or a known failure passes; 2 for a wrong command line or a COMMAND that cannot be tested.",
    )
    parser.add_argument("--dialect", choices=_DIALECTS, default=_DIALECTS[0], help="default: %(default)s")
    parser.add_argument(
        "--level",
        type=int,
        choices=_LEVELS,
        nargs="+",
        action="extend",
        metavar="N",
        help="0 codec and framing, 1 calls, 2 streams, 3 flow control and limits, 4 named streams, uploads, "
        "events and shared state; default: all",
    )
    parser.add_argument(
        "--case",
        nargs="+",
        action="extend",
        metavar="GLOB",
        help="only cases whose id matches, such as 'str-*'",
    )
    parser.add_argument("--report", choices=_FORMS, default="text", help="default: %(default)s")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the report there, and the summary to stdout"
    )
    parser.add_argument(
        "--known", type=Path, metavar="FILE", help='known failures, {"known": {"case id": "reason"}}'
    )
    parser.add_argument(
        "--write-baseline", action="store_true", help="write what fails now to the file of --known"
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=_TIMEOUT, metavar="S", help="for one message; default: 5 seconds"
    )
    parser.add_argument(
        "--jobs", type=_count, default=_JOBS, metavar="N", help="testees at a time; default: %(default)s"
    )
    # What follows the first `--` is the command's, also what looks like an option.
    end = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:end])
    options.command = tuple(words[end + 1 :])
    if not options.command:
        parser.error("say what to test: -- COMMAND ...")
    if options.write_baseline and options.known is None:
        parser.error("--write-baseline needs the file: --known FILE")
    return options


def _seconds(word: str) -> float:
    with contextlib.suppress(ValueError):
        seconds = float(word)
        if math.isfinite(seconds) and seconds > 0:
            return seconds
    raise argparse.ArgumentTypeError(f"{word.strip()!r} is no number of seconds above 0")


def _count(word: str) -> int:
    if word.isdecimal() and int(word) > 0:
        return int(word)
    raise argparse.ArgumentTypeError(f"{word!r} is no number above 0")


def _again(options: argparse.Namespace) -> list[str]:
    """The options that a command to run a case again needs, beside the case."""
    words: list[str] = []
    if options.dialect != _DIALECTS[0]:
        words += ["--dialect", options.dialect]
    if options.timeout != _TIMEOUT:
        words += ["--timeout", f"{options.timeout:g}"]
    return words


# Running -------------------------------------------------------------------------------------


class _Unusable(Exception):
    """What was asked for cannot be done: exit code 2."""


async def execute(options: argparse.Namespace) -> int:
    """Run what `parse` understood, and write the report. The exit code; errors go to stderr."""
    try:
        return await _execute(options)
    except (_Unusable, Unwritable, CaseError, known.KnownError, TesteeUnusable) as exc:
        _tell(f"kkrpc-py conformance: {printable(str(exc), lines=True)}")
        return WRONG


async def _execute(options: argparse.Namespace) -> int:
    every = load()
    chosen = _chosen(every, options)
    file: Path | None = options.known
    # A run takes minutes: whatever can be found out is found out before it.
    _check_files(options)
    listed: dict[str, known.Entry] = {}
    if file is not None:
        listed = known.read(file, may_miss=options.write_baseline)
        known.check(listed, every)

    progress = _Progress(len(chosen))
    try:
        done = await run(
            options.command,
            chosen,
            dialect=options.dialect,
            timeout=options.timeout,
            jobs=options.jobs,
            progress=progress,
        )
    finally:
        progress.clear()
    if options.write_baseline:
        listed = known.baseline(done, listed)
    done = known.apply(done, listed)
    _write(done, options)
    if options.write_baseline and file is not None:
        known.write(file, listed)
    return 0 if done.passed else 1


def _check_files(options: argparse.Namespace) -> None:
    if options.output is not None:
        check_writable(options.output)
    if options.write_baseline:
        check_writable(options.known)
    if options.output is not None and options.known is not None and is_same(options.output, options.known):
        raise _Unusable("--known and --output name one file")


def _chosen(cases: Sequence[Case], options: argparse.Namespace) -> list[Case]:
    globs: list[str] = options.case or ["*"]
    named = {glob: set(fnmatch.filter((case.id for case in cases), glob)) for glob in globs}
    for glob, ids in named.items():
        if not ids:
            raise _Unusable(f"no case has an id like {glob}")
    wanted = set[str]().union(*named.values())
    chosen = [
        case
        for case in cases
        if case.id in wanted
        and options.dialect in case.dialects
        and (options.level is None or case.level in options.level)
    ]
    if not chosen:
        raise _Unusable("no case is of that choice")
    return chosen


# Output --------------------------------------------------------------------------------------


def _write(done: Run, options: argparse.Namespace) -> None:
    """The report to its file or stdout; the summary to stdout, or to stderr beside a report for programs.

    Raises Unwritable where the file cannot be written after all; the report is on stdout then.
    """
    text = _FORMS[options.report](done, rules_of(spec_folder()), _again(options))
    try:
        _write_text(done, text, options)
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise _Unusable(f"the report cannot be written: {exc}") from exc


def _write_text(done: Run, text: str, options: argparse.Namespace) -> None:
    if options.output is None:
        _print(text, sys.stdout)
        if options.report != "text":
            _print(report.summary(done), sys.stderr)
        return
    try:
        write_whole(options.output, text)
    except Unwritable:
        _print(text, sys.stdout)
        raise
    _print(report.summary(done), sys.stdout)


def _print(text: str, file: TextIO | None) -> None:
    if file is None:  # closed when the program was started
        return
    # A terminal that is not UTF-8 shows what it has.
    encoding = file.encoding or "utf-8"
    file.write(text.encode(encoding, "backslashreplace").decode(encoding))
    file.flush()


class _Progress:
    """One line on a terminal's stderr that says how far the run is; nothing where nobody watches."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._done = 0
        self._bad = 0
        self._terminal = sys.stderr if sys.stderr is not None and sys.stderr.isatty() else None

    def __call__(self, outcome: Outcome) -> None:
        self._done += 1
        self._bad += outcome.verdict.is_bad
        bad = f", {self._bad} bad" if self._bad else ""
        self._show(f"{self._done}/{self._count}{bad}  {outcome.case.id}")

    def clear(self) -> None:
        """The line goes away."""
        self._show("")

    def _show(self, line: str) -> None:
        if self._terminal is not None:
            with contextlib.suppress(OSError):
                _print(f"\r\x1b[K{line[:78]}", self._terminal)


def _tell(text: str) -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            _print(text + "\n", sys.stderr)
