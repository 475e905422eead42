"""The standard descriptors of real processes, of every kind, while the protocol runs beside them."""

from __future__ import annotations

import contextlib
import os
import pty
import socket
import subprocess
import sys
import tty
from pathlib import Path
from typing import Any

import pytest

LIMIT = 30
PIPE = subprocess.PIPE

HEAD = """
import anyio, fcntl, os, stat, subprocess, sys
from kkrpc_py.transports.stdio import open_stdio
"""
# Echoes frames (here: lines) until the end of its stdin.
ECHO = (
    HEAD
    + """
async def main():
    async with open_stdio() as stream:
        while True:
            try:
                data = await stream.receive()
            except anyio.EndOfStream:
                return
            await stream.send(data)
"""
)


def run(code: str, backend: str = "asyncio", **options: Any) -> subprocess.CompletedProcess[bytes]:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    options = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE, "env": buffered, **options}
    data = options.pop("input", None)
    process = subprocess.Popen(python(code, backend), **options)
    try:
        out, err = process.communicate(data, timeout=LIMIT)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def python(code: str, backend: str = "asyncio") -> list[str]:
    return [
        sys.executable,
        "-W",
        "error",
        "-c",
        f"{code}\nimport anyio\nanyio.run(main, backend={backend!r})",
    ]


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_an_echo_over_pipes(backend: str) -> None:
    data = os.urandom(1_000_000)
    result = run(ECHO, backend, input=data)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == data


PRINTING = (
    HEAD
    + """
print("before, buffered")
async def main():
    async with open_stdio() as stream:
        print("python print")
        os.write(1, b"C code\\n")
        os.system("echo a grandchild")
        subprocess.run([sys.executable, "-c", "import sys; print('bytes left:', len(sys.stdin.read()))"])
        assert input.__doc__ and sys.stdin.read() == ""
        assert stat.S_ISCHR(os.fstat(0).st_mode)
        await stream.send(await stream.receive())
        print("after")
"""
)


def test_what_is_printed_goes_to_stderr(backend: str) -> None:
    result = run(PRINTING, backend, input=b"frame\n")
    assert result.returncode == 0
    assert result.stdout == b"frame\n"
    assert sorted(result.stderr.splitlines()) == [
        b"C code",
        b"a grandchild",
        b"after",
        b"before, buffered",
        b"bytes left: 0",
        b"python print",
    ]


def test_the_protocols_descriptors_are_not_inherited(backend: str) -> None:
    code = (
        HEAD
        + """
async def main():
    async with open_stdio() as stream:
        code = "import os; print(sorted(os.listdir('/proc/self/fd')))"
        out = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, close_fds=False).stdout
        await stream.send(out)
"""
    )
    assert run(code, backend).stdout == b"['0', '1', '2', '3']\n"  # 3 is the listing's own


def test_the_neighbours_of_its_descriptors_stay_blocking(backend: str) -> None:
    """The shell's view of the same open files, while the protocol waits and after it has ended."""
    ends = [os.pipe(), os.pipe()]
    one, other = socket.socketpair()
    for stdin, stdout in ((ends[0][0], ends[1][1]), (one.fileno(), one.fileno())):
        process = subprocess.Popen(python(ECHO, backend), stdin=stdin, stdout=stdout)
        if stdin == one.fileno():
            other.send(b"x")
            assert other.recv(1) == b"x"
        else:
            os.write(ends[0][1], b"x")
            assert os.read(ends[1][0], 1) == b"x"
        assert os.get_blocking(stdin)
        assert os.get_blocking(stdout)
        if stdin == one.fileno():
            other.shutdown(socket.SHUT_WR)
        else:
            os.close(ends[0][1])
        assert process.wait(LIMIT) == 0
        assert os.get_blocking(stdin)
        assert os.get_blocking(stdout)
    for fd in (ends[0][0], *ends[1]):
        os.close(fd)
    one.close()
    other.close()


def test_a_file_as_stdin_and_as_stdout(backend: str, tmp_path: Path) -> None:
    data = os.urandom(200_000)
    (tmp_path / "in").write_bytes(data)
    with (tmp_path / "in").open("rb") as stdin, (tmp_path / "out").open("wb") as stdout:
        result = run(ECHO, backend, stdin=stdin, stdout=stdout)
    assert (result.returncode, result.stderr) == (0, b"")
    assert (tmp_path / "out").read_bytes() == data


def test_the_null_device_as_stdin_and_as_stdout(backend: str) -> None:
    result = run(ECHO, backend, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    assert (result.returncode, result.stderr) == (0, b"")


CLOSED = (
    HEAD
    + """
async def main():
    async with open_stdio() as stream:
        for fd in (0, 1, 2):
            os.fstat(fd)
        try:
            await stream.receive()
            raise SystemExit(10)
        except anyio.EndOfStream:
            pass
        try:
            await stream.send(b"x")
            raise SystemExit(11)
        except anyio.BrokenResourceError:
            pass
        if sys.stdout is None:
            print("no harm")
        os.system("echo no harm")
        await anyio.sleep(0.01)
"""
)


@pytest.mark.parametrize("closing", ["<&- >&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(backend: str, closing: str) -> None:
    """Their numbers may by now be the event loop's own."""
    process = subprocess.run(
        ["sh", "-c", f'exec "$@" {closing}', "sh", *python(CLOSED, backend)], stderr=PIPE, timeout=LIMIT
    )
    assert process.returncode == 0, process.stderr


def test_a_stdin_that_python_closed(backend: str) -> None:
    code = HEAD + "sys.stdin.close(); sys.stdout.close()\n" + CLOSED.removeprefix(HEAD)
    assert run(code, backend).returncode == 0


@pytest.mark.parametrize("same", [True, False])
def test_socket_pairs(backend: str, same: bool) -> None:
    """Two, as Node gives its children, or one in both directions."""
    data = os.urandom(500_000)
    stdin, ours_in = socket.socketpair()
    stdout, ours_out = (stdin, ours_in) if same else socket.socketpair()
    process = subprocess.Popen(python(ECHO, backend), stdin=stdin, stdout=stdout, stderr=PIPE)
    stdin.close()
    stdout.close()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            ours_in.sendall(data)
            ours_in.shutdown(socket.SHUT_WR)
        os._exit(0)
    received = b""
    while piece := ours_out.recv(1 << 20):
        received += piece
    os.waitpid(pid, 0)
    assert process.communicate(timeout=LIMIT)[1] == b""
    assert process.returncode == 0
    assert received == data
    ours_in.close()
    ours_out.close()


def test_a_terminal(backend: str) -> None:
    """One open file for input, output and errors, as in a shell."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    code = ECHO.replace("await stream.send(data)", "print('printed', flush=True); await stream.send(data)")
    process = subprocess.Popen(python(code, backend), stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    os.write(master, b"a frame\n")
    received = b""
    while received.count(b"\n") < 2:
        received += os.read(master, 1000)
    assert received.split(b"\n")[-2:] == [b"a frame", b""]
    assert b"printed" in received
    os.close(master)
    process.wait(LIMIT)


# Frames of every size, and at the same time lines from everybody who can print.
TOGETHER = (
    HEAD
    + """
import threading
stop = threading.Event()
def chatter(name, write):
    for number in range(300):
        write(f"{name} {number} {'.' * (number * 7)}\\n".encode())
def print_it(data):
    print(data.decode(), end="", flush=True)
async def main():
    stream = open_stdio()
    assert stream.shares_output
    code = "import os; [os.write(1, b'grandchild %d' % n + bytes([10])) for n in range(300)]"
    grandchild = subprocess.Popen([sys.executable, "-c", code])
    threads = [
        threading.Thread(target=chatter, args=("print", print_it)),
        threading.Thread(target=chatter, args=("stderr", lambda data: os.write(2, data))),
    ]
    for thread in threads: thread.start()
    for number in range(60):
        await stream.send(b"{%d %s}\\n" % (number, b"f" * (number * 4001)))
    await anyio.to_thread.run_sync(grandchild.wait)
    for thread in threads: thread.join()
    print("half a line", end="")
    await stream.aclose()
    sys.stdout.flush()
    print("and its end")
    os.write(2, b"last, without end")
"""
)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_stdout_and_stderr_together(backend: str, kind: str) -> None:
    """``2>&1``: every frame whole, every printed line too."""
    if kind == "pipe":
        read_fd, write_fd = os.pipe()
    else:
        one, other = socket.socketpair()
        read_fd, write_fd = one.detach(), other.detach()
    process = subprocess.Popen(python(TOGETHER, backend), stdin=PIPE, stdout=write_fd, stderr=write_fd)
    os.close(write_fd)
    received = b""
    while piece := os.read(read_fd, 1 << 16):
        received += piece
    os.close(read_fd)
    process.communicate(timeout=LIMIT)
    assert process.returncode == 0, received[-2000:]
    lines = received.splitlines()
    frames = [line for line in lines if line.startswith(b"{")]
    assert frames == [b"{%d %s}" % (number, b"f" * (number * 4001)) for number in range(60)]
    for name in ("print", "stderr"):
        printed = [line for line in lines if line.startswith(name.encode())]
        assert printed == [f"{name} {number} {'.' * (number * 7)}".encode() for number in range(300)]
    assert len([line for line in lines if line.startswith(b"grandchild")]) == 300
    rest = [line for line in lines if not line.startswith((b"{", b"print ", b"stderr ", b"grandchild "))]
    assert rest == [b"half a lineand its end", b"last, without end"]


def test_together_and_nobody_reads(backend: str) -> None:
    """At exit it is not waited for long."""
    code = (
        HEAD
        + """
async def main():
    stream = open_stdio()
    os.write(1, b"x" * 60000 + b"\\n")
    os.write(1, b"x" * 60000 + b"\\n")
    with anyio.move_on_after(0.1):
        await stream.send(b"y" * 1_000_000)
"""
    )
    read_fd, write_fd = os.pipe()
    process = subprocess.Popen(python(code, backend), stdin=PIPE, stdout=write_fd, stderr=write_fd)
    os.close(write_fd)
    assert process.wait(LIMIT) == 0
    os.close(read_fd)
    assert process.stdin is not None
    process.stdin.close()


def test_together_and_the_reader_is_gone(backend: str) -> None:
    """Who prints is not held up."""
    code = (
        HEAD
        + """
async def main():
    stream = open_stdio()
    await stream.receive()
    for _ in range(100):
        print("x" * 10000)
    try:
        while True:
            await stream.send(b"y" * 1000)
    except anyio.BrokenResourceError:
        os._exit(5)
"""
    )
    read_fd, write_fd = os.pipe()
    process = subprocess.Popen(python(code, backend), stdin=PIPE, stdout=write_fd, stderr=write_fd)
    os.close(write_fd)
    os.close(read_fd)
    process.communicate(b"go", timeout=LIMIT)
    assert process.returncode == 5


def test_a_traceback_at_the_end_arrives(backend: str) -> None:
    code = HEAD + "async def main():\n    stream = open_stdio()\n    raise ZeroDivisionError('at the end')\n"
    result = run(code, backend, stderr=subprocess.STDOUT)
    assert result.returncode == 1
    assert b"ZeroDivisionError: at the end\n" in result.stdout
