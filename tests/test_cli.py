"""The command line as its users run it: real processes, their output, their exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from kkrpc_py import cli

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 30
KKRPC = [sys.executable, "-m", "kkrpc_py"]
INTERRUPTED = 128 + signal.SIGINT

API = """
import datetime
import decimal
import os
import subprocess
import sys

import anyio

import kkrpc_py as kk

print("printed at import")
sys.stdout.flush()
subprocess.run(["echo", "a grandchild at import"])
os.write(1, b"C code at import\\n")


class Math:
    async def multiply(self, a, b):
        return a * b


class Api:
    math = Math()

    def __init__(self):
        self.mark = "from __init__"

    async def add(self, a, b):
        return a + b

    async def echo(self, *values):
        return list(values)

    async def nothing(self):
        pass

    async def count(self, n):
        for number in range(n):
            yield number

    @kk.inline
    def total(self, n):
        for number in range(n):
            yield number
        return {"total": n}

    async def ticks(self, path):
        try:
            number = 0
            while True:
                yield number
                number += 1
                await anyio.sleep(0.01)
        finally:
            with open(path, "w") as file:
                file.write("cleaned up")

    async def forever(self, path):
        try:
            print("begun", file=sys.stderr, flush=True)
            await anyio.sleep_forever()
        finally:
            with open(path, "w") as file:
                file.write("cleaned up")

    async def odd(self):
        return [b"hi", datetime.date(2026, 1, 31), {1: decimal.Decimal("1.10")}, float("-inf"), {3}]

    async def fail(self):
        yield 1
        raise ValueError("no \\x1b[31mgood")

    async def hostile(self):
        return "\\x9b31m\\u2028\\ud800"

    async def large(self):
        return "x" * 300_000

    async def exit(self, code):
        print("last words", file=sys.stderr, flush=True)
        os._exit(code)


class Failing:
    def __init__(self):
        raise RuntimeError("not today")


class Holder:
    api = Api()


def function():
    pass


nothing = None
instance = Api()
"""


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "served.py").write_text(API)
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDEVMODE": "", **more}


def run(*words: str, cwd: Path, stdin: Any = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KKRPC, *words],
        cwd=cwd,
        env=environment(),
        stdin=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
    )


def start(*words: str, cwd: Path, **pipes: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*KKRPC, *words],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes},
    )


def served(name: str = "served:Api", *more: str) -> list[str]:
    return ["--", *KKRPC, "serve", name, *more]


def read_until(stream: IO[str] | None, text: str) -> str:
    """The first line of `stream` that holds `text`. The test's own limit of time bounds it."""
    assert stream is not None
    for line in stream:
        if text in line:
            return line
    raise AssertionError(f"{text!r} never came")


@contextlib.contextmanager
def server(cwd: Path, backend: str, *address: str) -> Iterator[str]:
    """A server until the end of the block, when Ctrl+C ends it; the address that it says it listens on."""
    with start("serve", "served:Api", *address, "--backend", backend, cwd=cwd) as process:
        try:
            yield read_until(process.stderr, "listening on ").rpartition(" ")[2].strip()
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == INTERRUPTED
        finally:
            process.kill()


# Call: what is printed -------------------------------------------------------------------------


def test_a_value_is_one_line_of_json(folder: Path, backend: str) -> None:
    done = run(
        "call", "--backend", backend, "add", "1", "2", *served("served:Api", "--backend", backend), cwd=folder
    )
    assert (done.returncode, done.stdout) == (0, "3\n")


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["math.multiply", "3", "4"], "12"),
        (["nothing"], "null"),
        (["echo", "-1", "-1.5e3", '{"a": [true, null]}', '"é"'], '[-1, -1500.0, {"a": [true, null]}, "é"]'),
        (["hostile"], '"\\u009b31m\\u2028\\ud800"'),
        (["large"], json.dumps("x" * 300_000)),
        (
            ["odd"],
            '[{"$bytes": "aGk="}, {"$date": "2026-01-31"}, {"$dict": [[1, {"$Decimal": "1.10"}]]}, '
            '{"$float": "-inf"}, {"$set": [3]}]',
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_values_look_like(folder: Path, words: list[str], printed: str) -> None:
    done = run("call", *words, *served(), cwd=folder)
    assert (done.returncode, done.stdout) == (0, printed + "\n")


@pytest.mark.parametrize("value", [0, 1.5, True, "x", None, [1, "a"], {"a": {"b": [None]}}])
def test_what_json_carries_is_shown_as_it_is(value: Any) -> None:
    assert cli.readable(value) == value


def test_a_streams_lines_go_to_stdout_and_its_return_value_last_to_stderr(folder: Path, backend: str) -> None:
    done = run("call", "total", "3", "--backend", backend, *served(), cwd=folder)
    assert (done.returncode, done.stdout) == (0, "0\n1\n2\n")
    assert done.stderr.splitlines()[-1] == '{"total": 3}'


def test_a_streams_lines_come_as_they_are_made(folder: Path, backend: str) -> None:
    with start("call", "--backend", backend, "ticks", '"cleanup"', *served(), cwd=folder) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == ["0\n", "1\n", "2\n"]
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == INTERRUPTED


def test_a_stream_to_a_file(folder: Path) -> None:
    with (folder / "out").open("w+") as out:
        with start("call", "count", "2000", *served(), cwd=folder, stdout=out) as process:
            assert process.wait(SECONDS) == 0
        out.seek(0)
        assert out.read().split() == [str(number) for number in range(2000)]


def test_values_before_an_error_are_printed_and_the_error_is_harmless(folder: Path, backend: str) -> None:
    done = run("call", "fail", "--backend", backend, *served(), cwd=folder)
    assert (done.returncode, done.stdout) == (1, "1\n")
    assert done.stderr.splitlines()[-1] == r"kkrpc-py: ValueError: no \x1b[31mgood"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["missing"], "MethodNotFound: Method missing is not a function"),
        (["_private"], "MethodNotFound: Method _private is not a function"),
        (["add", "1"], "TypeError: add() takes 2 "),
        (["exit", "3"], "ChannelClosed: the child process ended (exit code 3)"),
    ],
    ids=["missing", "private", "too few", "exit"],
)
def test_errors_give_name_and_message(folder: Path, words: list[str], error: str) -> None:
    done = run("call", *words, *served(), cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(f"kkrpc-py: {error}")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--", "no-such-command"], "No such file or directory: 'no-such-command'"),
        (["--unix", "no-such-socket"], "no-such-socket: "),
        (["--tcp", "[::1]:1"], "[::1]:1: "),
    ],
    ids=["command", "unix", "tcp"],
)
def test_nobody_to_call(folder: Path, words: list[str], error: str) -> None:
    done = run("call", "add", "1", "2", *words, cwd=folder)
    assert done.returncode == 1
    assert error in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["call"],
        ["call", "add", "1"],
        ["call", "add", "1", "--"],
        ["call", "", "--unix", "x"],
        ["call", "add", "--unix", "x", "--tcp", "h:1"],
        ["call", "add", "--unix", "x", "--", "command"],
        ["call", "add", "word", "--unix", "x"],
        ["call", "add", "NaN", "--unix", "x"],
        ["call", "add", "[" * 100_000, "--unix", "x"],
        ["call", "add", "--tcp", "1234"],
        ["call", "add", "--tcp", "h:99999"],
        ["call", "add", "--unix", "x", "--backend", "gevent"],
        ["serve"],
        ["serve", "module_alone"],
        ["serve", "module:Api", "--tcp", ":1"],
        ["demo", "--seconds", "0"],
        ["demo", "--seconds", "nan"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_exits_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main([word[:20_000] for word in words])
    assert raised.value.code == 2
    assert "usage: kkrpc-py" in capsys.readouterr().err


def test_a_loop_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as raised:
        cli.main(["demo", "--backend", "trio"])
    assert raised.value.code == 2
    assert "pip install 'kkrpc-py[trio]'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["serve", "--help"], ["call", "--help"], ["demo", "--help"]])
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(words)
    assert raised.value.code == 0
    assert "usage: kkrpc-py" in capsys.readouterr().out


# Call: how it ends ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_a_stream_and_the_child_cleans_up(
    folder: Path, backend: str, number: signal.Signals
) -> None:
    with start("call", "--backend", backend, "ticks", '"cleanup"', *served(), cwd=folder) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + number
    assert (folder / "cleanup").read_text() == "cleaned up"
    assert "Traceback" not in errors


def test_ctrl_c_cancels_a_call_and_the_child_cleans_up(folder: Path, backend: str) -> None:
    with start("call", "--backend", backend, "forever", '"cleanup"', *served(), cwd=folder) as process:
        read_until(process.stderr, "begun")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == INTERRUPTED
    assert (folder / "cleanup").read_text() == "cleaned up"
    assert "Traceback" not in errors


def test_ctrl_c_while_nobody_reads_the_output(folder: Path, backend: str) -> None:
    with start("call", "--backend", backend, "count", "10000000", *served(), cwd=folder) as process:
        assert process.stdout is not None
        process.stdout.readline()  # and the pipe fills
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == INTERRUPTED


def test_a_second_ctrl_c_ends_it_where_the_child_does_not_end(folder: Path, backend: str) -> None:
    deaf = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('deaf', file=sys.stderr, flush=True); time.sleep(60)"
    )
    with start("call", "--backend", backend, "add", "--", sys.executable, "-c", deaf, cwd=folder) as process:
        read_until(process.stderr, "deaf")
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == INTERRUPTED


def test_a_broken_pipe_ends_it_quietly(folder: Path, backend: str) -> None:
    read_end, write_end = os.pipe()
    with start(
        "call", "--backend", backend, "ticks", '"cleanup"', *served(), cwd=folder, stdout=write_end
    ) as it:
        os.close(write_end)
        assert os.read(read_end, 2) == b"0\n"
        os.close(read_end)
        _, errors = it.communicate(timeout=SECONDS)
    assert it.returncode == 128 + signal.SIGPIPE
    assert (folder / "cleanup").read_text() == "cleaned up"
    assert "Broken" not in errors
    assert "Traceback" not in errors


def test_a_closed_stdout_is_told(folder: Path) -> None:
    command = " ".join([*KKRPC, "call", "add", "1", "2", *served(), ">&-"])
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment(), stderr=subprocess.PIPE, timeout=SECONDS
    )
    assert (done.returncode, done.stderr) == (1, b"kkrpc-py: stdout is closed\n")


def test_a_closed_stderr_puts_nothing_on_stdout(folder: Path) -> None:
    command = " ".join([*KKRPC, "call", "total", "2", *served(), "2>&-"])
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment(), stdout=subprocess.PIPE, timeout=SECONDS
    )
    assert (done.returncode, done.stdout) == (0, b"0\n1\n")


# Serve ------------------------------------------------------------------------------------------


def test_what_is_printed_at_import_goes_to_stderr(folder: Path) -> None:
    done = run("call", "add", "1", "2", *served(), cwd=folder)
    assert done.stdout == "3\n"
    for printed in ("printed at import", "a grandchild at import", "C code at import"):
        assert printed in done.stderr


@pytest.mark.parametrize("name", ["served:instance", "served:Holder.api", "served:Api"])
def test_what_can_be_served(folder: Path, name: str) -> None:
    assert run("call", "add", "1", "2", *served(name), cwd=folder).stdout == "3\n"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("nowhere:Api", "there is no module 'nowhere'"),
        ("served.inner:Api", "there is no module 'served.inner'"),
        ("served:Nobody", "served:Nobody: nothing is named 'Nobody'"),
        ("served:Holder.nobody", "served:Holder.nobody: nothing is named 'nobody'"),
        ("served:function", "which has no methods to serve"),
        ("served:nothing", "which has no methods to serve"),
        ("served:os.path", "expose an object or a dict"),
        ("served:Failing", "RuntimeError: not today"),
        ("broken:Api", "No module named 'nowhere_to_be_found'"),
    ],
)
def test_what_cannot_be_served_is_said(folder: Path, name: str, error: str) -> None:
    done = run("serve", name, cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert error in done.stderr.splitlines()[-1]


def test_a_socket_is_not_made_for_what_cannot_be_served(folder: Path) -> None:
    assert run("serve", "served:function", "--unix", "socket", cwd=folder).returncode == 1
    assert not (folder / "socket").exists()


def test_stdio_that_is_closed_at_once_is_a_clean_end(folder: Path, backend: str) -> None:
    assert run("serve", "served:Api", "--backend", backend, cwd=folder).returncode == 0


def test_tcp(folder: Path, backend: str) -> None:
    with server(folder, backend, "--tcp", "127.0.0.1:0") as address:
        done = run("call", "add", "--tcp", address, "1", "2", "--backend", backend, cwd=folder)
        assert (done.returncode, done.stdout) == (0, "3\n")
        assert run("call", "fail", "--tcp", address, cwd=folder).returncode == 1
        assert run("call", "count", "2", "--tcp", address, cwd=folder).stdout == "0\n1\n"


def test_unix(folder: Path, backend: str) -> None:
    with server(folder, backend, "--unix", "socket") as address:
        assert address.endswith("socket")
        done = run("call", "add", "1", "2", "--unix", "socket", "--backend", backend, cwd=folder)
        assert (done.returncode, done.stdout) == (0, "3\n")
        with start("call", "ticks", '"cleanup"', "--unix", "socket", cwd=folder) as process:
            read_until(process.stdout, "1")
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == INTERRUPTED
    assert (folder / "cleanup").read_text() == "cleaned up"
    assert not (folder / "socket").exists()


def test_a_place_that_is_taken_is_said(folder: Path, backend: str) -> None:
    with server(folder, backend, "--tcp", "127.0.0.1:0") as address:
        done = run("serve", "served:Api", "--tcp", address, "--backend", backend, cwd=folder)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"kkrpc-py: {address}: ")
