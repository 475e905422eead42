"""Everybody prints: the stream holds, and nobody else's output is lost, whatever stdin and stdout are."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from tests.faults.processes import BOUND, LINUX, command, environment

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(not LINUX, reason="looks into /proc")]

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
REQUEST = b'{"id":"%d","method":"%s","args":%s,"type":"request","version":"json"}\n'


def request(id: int, method: str, *args: Any) -> bytes:
    return REQUEST % (id, method.encode(), json.dumps(args).encode())


def is_message(line: bytes) -> bool:
    return line.startswith(b"{")


# In a child of `open_process` ----------------------------------------------------------------------


@BACKENDS
async def test_whoever_prints_is_heard_on_stderr(backend: str) -> None:
    lines: list[str] = []
    noise: list[bytes] = []
    expected: list[str] = []
    with anyio.fail_after(BOUND):
        async with kk.open_process(
            command("serve", backend), env=environment(), stderr=lines.append, passthrough=noise.append
        ) as channel:
            api = channel.remote()
            for i in range(20):
                for method, times in [("prints", 1), ("writes_to_1", 1), ("c_puts", 2), ("grandchild", 1)]:
                    await api[method](f"{method} {i}")
                    expected += [f"{method} {i}"] * times
                assert await api.add(i, 1) == i + 1
            await api.prints_unflushed("unflushed at the end")
            expected.append("unflushed at the end")
        assert sorted(lines) == sorted(["child is up", *expected])
        assert [line for line in noise if line] == []


@BACKENDS
async def test_a_stream_between_prints(backend: str) -> None:
    """From the loop, from a thread, and more than a pipe holds."""
    lines: list[str] = []
    with anyio.fail_after(BOUND):
        async with kk.open_process(
            command("serve", backend), env=environment(), stderr=lines.append
        ) as channel:
            await channel.remote().noisy_thread(20_000)
            assert [v async for v in channel.remote().printing(3000)] == list(range(3000))
        for text, n in (("print", 3000), ("os.write", 3000), ("thread", 20_000)):
            assert [line for line in lines if line.startswith(f"{text} ")] == [
                f"{text} {i}" for i in range(n)
            ]


async def test_half_a_line_before_the_first_message() -> None:
    """FRM-12: it is noise, and swallows nothing."""
    noise: list[bytes] = []
    with anyio.fail_after(BOUND):
        async with kk.open_process(command("half"), env=environment(), passthrough=noise.append) as channel:
            assert await channel.remote().add(1, 2) == 3
            assert channel.connection.agreed
        assert [line for line in noise if line] == [b"half a line"]


async def test_what_was_printed_and_not_flushed_before() -> None:
    lines: list[str] = []
    noise: list[bytes] = []
    with anyio.fail_after(BOUND):
        async with kk.open_process(
            command("unflushed"), env=environment(), stderr=lines.append, passthrough=noise.append
        ) as channel:
            assert await channel.remote().add(1, 2) == 3
        assert "unflushed" in "".join(lines) + b"".join(noise).decode()


@BACKENDS
async def test_nobody_else_reaches_the_protocol(backend: str) -> None:
    """Fd 0 is the null device; what a handler starts inherits nothing of the protocol's."""
    with anyio.fail_after(BOUND):
        async with kk.open_process(command("serve", backend), env=environment()) as channel:
            api = channel.remote()
            assert await api.reads_stdin() == ""
            assert await api.grandchild_reads() == ["", 0]
            inherited = await api.grandchild_descriptors()
            pipes = [line for line in inherited if "pipe:" in line]
            # Its own stdout, which the handler captures, and the stderr that it shares with the child.
            assert {int(line.split()[8]) for line in pipes} <= {1, 2}, inherited
            assert await api.add(1, 2) == 3


@BACKENDS
async def test_stderr_joined_to_stdout(backend: str) -> None:
    """`2>&1`: prints come between the messages as noise, whole lines of both."""
    noise: list[bytes] = []
    with anyio.fail_after(BOUND):
        shell = ["sh", "-c", 'exec "$@" 2>&1', "sh", *command("serve", backend)]
        async with kk.open_process(
            shell, env=environment(), passthrough=noise.append, codec="json"
        ) as channel:
            api = channel.remote()
            for i in range(50):
                await api.prints(f"print {i}")
                await api.c_puts(f"puts {i}")
                await api.grandchild(f"echo {i}")
            assert [v async for v in api.printing(300)] == list(range(300))
            # Prints go between the frames, and may come after the last one that they were made before.
            while len([line for line in noise if line.startswith(b"print ")]) < 350:
                await api.add(1, 1)
        texts = [line.decode() for line in noise]
        assert [t for t in texts if t.startswith("puts")] == [f"puts {i}" for i in range(50) for _ in "12"]
        assert [t for t in texts if t.startswith("echo")] == [f"echo {i}" for i in range(50)]
        printed = [*range(50), *range(300)]
        assert [t for t in texts if t.startswith("print ")] == [f"print {i}" for i in printed]
        assert channel.connection.violations == 0


async def test_a_neighbour_on_the_same_stdout() -> None:
    """Another process of the same shell writes whole lines between the child's frames."""
    noise: list[bytes] = []
    with anyio.fail_after(BOUND):
        script = 'i=0; while [ $i -lt 3000 ]; do echo "neighbour $i"; i=$((i+1)); done & exec "$@"'
        async with kk.open_process(
            ["sh", "-c", script, "sh", *command()], env=environment(), passthrough=noise.append, codec="json"
        ) as channel:
            api = channel.remote()
            for i in range(200):
                assert await api.add(i, 1) == i + 1
            expected = [b"neighbour %d" % i for i in range(3000)]
            while len([line for line in noise if line]) < 3000:
                await api.add(1, 1)
        assert [line for line in noise if line] == expected


# By hand: files, the null device, terminals ----------------------------------------------------------


def run_child(
    role: str = "serve", backend: str = "asyncio", *, stdin: Any, stdout: Any, stderr: Any = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(role, backend), env=environment(), stdin=stdin, stdout=stdout, stderr=stderr
    )


def results(data: bytes) -> dict[str, Any]:
    """The results among the messages in `data`, by id."""
    messages = [json.loads(line) for line in data.splitlines() if is_message(line)]
    return {m["id"]: m["args"]["result"] for m in messages if "result" in m["args"]}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_file_as_stdin_and_a_file_as_stdout(backend: str, tmp_path: Path) -> None:
    """Every request of the file is answered, though its end is there from the start."""
    requests, answers = tmp_path / "requests", tmp_path / "answers"
    requests.write_bytes(b"".join(request(i, "add", i, i) for i in range(500)) + request(500, "prints", "hi"))
    with requests.open("rb") as stdin, answers.open("wb") as stdout:
        child = run_child("serve", backend, stdin=stdin, stdout=stdout)
        _, errors = child.communicate(timeout=BOUND)
    assert child.returncode == 0
    data = answers.read_bytes()
    found = results(data)
    assert {id: found[id] for id in map(str, range(500))} == {str(i): 2 * i for i in range(500)}
    assert b"hi" not in data.splitlines()
    assert b"hi\n" in errors


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_null_device_as_stdin(backend: str) -> None:
    """It ends at once, and cleanly."""
    child = run_child("serve", backend, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    output, errors = child.communicate(timeout=BOUND)
    assert child.returncode == 0
    assert output.strip() == b""
    assert errors.splitlines() == [b"child is up"]


def test_closed_standard_descriptors() -> None:
    """`<&- >&-`, as some daemons start: it ends, and breaks nothing."""
    shell = ["sh", "-c", 'exec "$@" <&- >&-', "sh", *command()]
    child = subprocess.Popen(shell, env=environment(), stderr=subprocess.PIPE)
    _, errors = child.communicate(timeout=BOUND)
    assert child.returncode == 0, errors


def test_the_null_device_as_stdout() -> None:
    child = run_child(stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    _, errors = child.communicate(request(1, "prints", "still here"), timeout=BOUND)
    assert child.returncode == 0
    assert b"still here\n" in errors


def test_requests_from_a_pipe_that_ends() -> None:
    """`printf … | child`."""
    child = run_child(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    output, _ = child.communicate(
        b"".join(request(i, "echo", "x" * 10_000) for i in range(200)), timeout=BOUND
    )
    assert child.returncode == 0
    assert results(output) == {str(i): "x" * 10_000 for i in range(200)}


class Terminal:
    """A pseudo-terminal: the test sits at it, the child's standard descriptors are its other end."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.seen = b""

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def read_until(self, wanted: bytes) -> None:
        deadline = time.monotonic() + BOUND
        while wanted not in self.seen:
            assert time.monotonic() < deadline, self.seen[-2000:]
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536)

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("all_three", [True, False], ids=["stderr too", "stderr apart"])
def test_a_terminal(terminal: Terminal, all_three: bool, backend: str) -> None:
    """Someone types requests: the terminal echoes them, and turns line feeds into CR LF."""
    slave = terminal.slave
    child = run_child(
        "serve", backend, stdin=slave, stdout=slave, stderr=slave if all_three else subprocess.PIPE
    )
    try:
        for i in range(20):
            terminal.type(request(i, "add", i, 1000))
            terminal.read_until(b'"result":%d}' % (i + 1000))
        terminal.type(request(20, "prints", "printed text"))
        terminal.read_until(b'{"id":"20","method":"","args":{')
        if all_three:
            terminal.read_until(b"\r\nprinted text\r\n")
        assert os.get_blocking(slave)
        terminal.type(b"\x04")  # Ctrl+D
        assert child.wait(BOUND) == 0
        assert os.get_blocking(slave)
        if child.stderr is not None:
            assert b"printed text\n" in child.stderr.read()
    finally:
        child.kill()
        child.wait()
        if child.stderr is not None:
            child.stderr.close()


NEIGHBOUR = """
import os, sys
sys.stdin.readline()
for i in range(40_000):
    data = b"neighbour %06d %s\\n" % (i, b"x" * 80)
    assert os.write(1, data) == len(data)
print("all written", file=sys.stderr)
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_neighbour_that_fills_the_pipe_loses_nothing(backend: str) -> None:
    """O_NONBLOCK belongs to the open file, which others share: set by the child, it would cost them lines."""
    read_end, write_end = os.pipe()
    try:
        child = run_child("serve", backend, stdin=subprocess.PIPE, stdout=write_end)
        neighbour = subprocess.Popen(
            [sys.executable, "-c", NEIGHBOUR], stdin=subprocess.PIPE, stdout=write_end, stderr=subprocess.PIPE
        )
    finally:
        os.close(write_end)
    assert child.stdin is not None
    assert neighbour.stdin is not None
    received = bytearray()
    try:
        child.stdin.write(request(0, "add", 0, 0))
        child.stdin.flush()
        while b'"result":0' not in received:
            received += os.read(read_end, 65536)
        neighbour.stdin.write(b"\n")
        neighbour.stdin.flush()
        time.sleep(0.5)  # let the pipe, enlarged or not, become full
        for i in range(1, 50):
            child.stdin.write(request(i, "add", i, 0))
        child.stdin.close()
        while data := os.read(read_end, 65536):
            received += data
        _, errors = neighbour.communicate(timeout=BOUND)
        assert neighbour.returncode == 0, errors
        assert child.wait(BOUND) == 0
    finally:
        for process in (child, neighbour):
            process.kill()
            process.wait()
        if child.stderr is not None:
            child.stderr.close()
        os.close(read_end)
    lines = bytes(received).splitlines()
    assert sum(line.startswith(b"neighbour ") and len(line) == 97 for line in lines) == 40_000
    assert results(bytes(received)) == {str(i): i for i in range(50)}
