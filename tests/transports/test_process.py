"""A child from its start to its reaping, with real processes."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from kkrpc_py.transports import guard, process
from kkrpc_py.transports.process import Child, spawn
from tests.transports.pairs import ECHO, open_descriptors

pytestmark = pytest.mark.anyio

LIMIT = 30


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-E", "-c", code]


READY = "import os, signal, sys, time\nos.write(1, b'ready\\n')\n"
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY


async def until(condition: Callable[[], bool]) -> None:
    """What other processes do, and nobody tells."""
    while not condition():
        await anyio.sleep(0.005)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def zombies() -> list[str]:
    return [
        line
        for line in subprocess.run(
            ["ps", "-o", "pid,stat,args", "--ppid", str(os.getpid())], capture_output=True, text=True
        ).stdout.splitlines()
        if " Z" in line
    ]


@contextlib.asynccontextmanager
async def leaves_nothing() -> AsyncGenerator[None, None]:
    """No descriptor, no zombie, no guard."""
    before = open_descriptors()
    with anyio.fail_after(LIMIT):
        yield
    with anyio.fail_after(LIMIT):
        await until(lambda: open_descriptors() <= before)
    assert zombies() == []
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.fixture(scope="module", autouse=True)
async def _warm_up() -> None:
    """What an event loop opens once is no leak."""
    async with spawn(python(READY)) as child:
        await child.receive()


async def test_a_child_speaks_and_ends() -> None:
    async with leaves_nothing():
        async with spawn(python(ECHO)) as child:
            assert isinstance(child, Child)
            assert is_running(child.pid)
            assert child.exit_code is None
            await child.send(b"hello")
            assert await child.receive() == b"hello"
            await child.send_eof()
            with pytest.raises(anyio.EndOfStream):
                await child.receive()
            assert await child.wait() == 0
        assert child.exit_code == 0
        assert await child.wait() == 0
        assert await child.shutdown() == 0


async def test_its_stdin_is_closed_at_the_end_of_the_block() -> None:
    async with leaves_nothing():
        started = time.monotonic()
        async with spawn(python(ECHO)) as child:
            pass
        assert child.exit_code == 0
        assert time.monotonic() - started < 3


async def test_the_exit_code_is_the_childs() -> None:
    async with leaves_nothing():
        async with spawn(python("raise SystemExit(7)")) as child:
            assert await child.wait() == 7
        async with spawn(python("import os\nos.kill(os.getpid(), 9)")) as child:
            assert await child.wait() == -9
        assert child.exit_code == -9


async def test_what_cannot_be_run() -> None:
    async with leaves_nothing():
        for command in (["/nonexistent/program"], ["/etc/passwd"]):
            with pytest.raises(OSError):
                async with spawn(command):
                    pytest.fail("it ran")
        with pytest.raises(TypeError):
            spawn("true")
        with pytest.raises(OSError):
            async with spawn(["true"], cwd="/nonexistent"):
                pytest.fail("it ran")


async def test_environment_and_directory(tmp_path: Path) -> None:
    code = (
        "import os\nos.write(1, (os.environ['A'] + ' ' + str(len(os.environ)) + ' ' + os.getcwd()).encode())"
    )
    async with leaves_nothing():
        async with spawn(python(code), env={"A": "b", "LC_CTYPE": "C.UTF-8"}, cwd=tmp_path) as child:
            assert (await child.receive()).decode() == f"b 2 {tmp_path}"


async def test_a_child_inherits_three_descriptors() -> None:
    code = "import os\nos.write(1, ' '.join(sorted(os.listdir('/proc/self/fd'))).encode())"
    async with leaves_nothing(), spawn(python(ECHO)), spawn(python(code)) as child:
        assert (await child.receive()).decode() == "0 1 2 3"  # 3 is the listing's own


async def test_it_leads_a_session_of_its_own() -> None:
    code = "import os\nos.write(1, f'{os.getpid()} {os.getpgid(0)} {os.getsid(0)}'.encode())"
    async with leaves_nothing(), spawn(python(code)) as child:
        assert (await child.receive()).decode() == f"{child.pid} {child.pid} {child.pid}"


async def test_stderr_goes_to_the_log_and_its_tail_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kkrpc_py.child")
    code = "import os\nfor n in range(50): os.write(2, b'line %d\\r\\n' % n)\nos.write(2, b'last \\xff')"
    async with leaves_nothing(), spawn(python(code)) as child:
        assert await child.wait() == 0
        assert child.stderr_tail.splitlines() == [f"line {n}" for n in range(31, 50)] + ["last \\xff"]
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"[{child.pid}] line {n}" for n in range(50)] + [f"[{child.pid}] last \\xff"]


async def test_stderr_goes_to_a_function(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []

    def target(line: str) -> None:
        lines.append(line)
        if len(lines) == 1:
            raise RuntimeError("a mistake in the function")

    code = "import os\nfor data in (b'one\\ntw', b'o\\n' + b'x' * 100000 + b'\\n', b'end'): os.write(2, data)"
    async with leaves_nothing(), spawn(python(code), stderr=target) as child:
        assert await child.wait() == 0
    assert lines == ["one", "two", "x" * process.STDERR_LINE_BYTES, "end"]
    assert [len(line) for line in child.stderr_tail.splitlines()] == [3, 3, 1000, 3]
    assert "failed" in caplog.text


def test_stderr_is_inherited() -> None:
    code = f"""
import anyio
from kkrpc_py.transports.process import spawn
async def main():
    async with spawn({python("import os; os.write(2, b'to the terminal')")!r}, stderr="inherit") as child:
        assert await child.wait() == 0
        assert child.stderr_tail == ""
anyio.run(main)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=LIMIT)
    assert (result.returncode, result.stderr) == (0, b"to the terminal")


async def test_a_flood_of_stderr_holds_nothing_up() -> None:
    code = f"import os\nfor _ in range(100): os.write(2, b'y' * 99999 + b'\\n')\n{ECHO}"
    lines: list[str] = []
    async with leaves_nothing(), spawn(python(code), stderr=lines.append) as child:
        await child.send(b"hello")
        assert await child.receive() == b"hello"
        await child.send_eof()
        assert await child.wait() == 0
    assert len(lines) == 100


@pytest.mark.parametrize("held", [1, 2])
async def test_the_stream_ends_with_the_child_although_others_hold_its_pipes(held: int) -> None:
    """A process that the child started keeps stdout, or stderr, open, and goes on writing."""
    chatter = (
        f"import contextlib, os, time\nos.close({3 - held})\n"
        # Once nobody reads the pipe any more a write fails: it lives on all the same.
        f"while True:\n with contextlib.suppress(OSError): os.write({held}, b'g\\n')\n time.sleep(0.001)"
    )
    code = (
        f"import os, subprocess, sys\nsubprocess.Popen({python(chatter)!r})\n"
        "os.write(2, b'the child\\n'); os.write(1, b'the child\\n')\nsys.stdin.read()\n"
    )
    async with leaves_nothing(), spawn(python(code)) as child:
        received = await child.receive()
        os.kill(child.pid, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(anyio.EndOfStream):
            while True:
                received += await child.receive()
        assert await child.wait() == -9
        assert time.monotonic() - started < 2
        assert len(group_of(child.pid)) == 1
        assert b"the child\n" in received


async def test_all_that_a_dying_child_wrote_arrives() -> None:
    code = "import os\nos.write(1, b'a' * 60000)\nos.write(2, b'why\\n')\nos.kill(os.getpid(), 9)"
    async with leaves_nothing(), spawn(python(code)) as child:
        assert await child.wait() == -9
        received = b""
        with pytest.raises(anyio.EndOfStream):
            while True:
                received += await child.receive(1000)
        assert received == b"a" * 60000
        assert child.stderr_tail == "why"


async def test_the_ladder_waits_then_terminates_then_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TERMINATE_SECONDS", 0.3)
    cases = {
        "while True: time.sleep(1)": -signal.SIGTERM,
        "signal.signal(signal.SIGTERM, lambda *a: sys.exit(5))\nwhile True: time.sleep(1)": 5,
        "sys.stdin.read()\ntime.sleep(0.1)\nsys.exit(6)": 6,
    }
    for code, expected in cases.items():
        async with leaves_nothing(), spawn(python(READY + code)) as child:
            await child.receive()
            assert await child.shutdown(grace=0.3) == expected
    async with leaves_nothing(), spawn(python(DEAF + "while True: time.sleep(1)")) as child:
        await child.receive()
        started = time.monotonic()
        assert await child.shutdown(grace=0.3) == -signal.SIGKILL
        assert 0.55 < time.monotonic() - started < 3


async def test_a_stopped_child_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TERMINATE_SECONDS", 0.2)
    async with leaves_nothing(), spawn(python(READY + "sys.stdin.read()")) as child:
        await child.receive()
        os.kill(child.pid, signal.SIGSTOP)
        assert await child.shutdown(grace=0.1) == -signal.SIGKILL


@pytest.mark.parametrize("ignoring", [False, True])
async def test_what_the_child_started_ends_with_it(ignoring: bool) -> None:
    """A grandchild that holds the pipes, of a child that ends by itself."""
    inner = (DEAF if ignoring else READY) + "while True: time.sleep(1)"
    code = (
        f"import os, subprocess, sys\np = subprocess.Popen({python(inner)!r})\n"
        "os.write(1, b'%d\\n' % p.pid)\nsys.stdin.read()"
    )
    async with leaves_nothing():
        async with spawn(python(code)) as child:
            received = b""
            while received.count(b"\n") < 2:
                received += await child.receive()
            grandchild = next(int(line) for line in received.split(b"\n") if line.isdigit())
            started = time.monotonic()
        assert child.exit_code == 0
        assert time.monotonic() - started < 3
        await until(lambda: not is_running(grandchild))


async def test_a_child_that_cannot_write_is_not_held_up() -> None:
    """Nobody reads its output any more: it is dropped, so that the child can end by itself."""
    code = READY + "sys.stdin.read()\nsys.stdout.write('z' * 4_000_000)\nsys.stdout.flush()\nsys.exit(3)"
    async with leaves_nothing(), spawn(python(code)) as child:
        await child.receive()
        assert await child.shutdown() == 3


async def test_shutdown_while_another_task_receives() -> None:
    async with leaves_nothing(), spawn(python(READY + "sys.stdin.read()")) as child:
        await child.receive()
        async with anyio.create_task_group() as tg:

            async def receive() -> None:
                with pytest.raises((anyio.EndOfStream, anyio.ClosedResourceError)):
                    await child.receive()

            tg.start_soon(receive)
            tg.start_soon(child.shutdown)
            assert await child.shutdown() == 0


async def test_a_cancelled_block_still_ends_the_child() -> None:
    async with leaves_nothing():
        with anyio.move_on_after(0.2) as scope:
            async with spawn(python("import sys\nsys.stdin.read()\nsys.exit('bye')")) as child:
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert child.exit_code == 1
        assert child.stderr_tail == "bye"


async def test_the_blocks_own_exception_comes_out_bare() -> None:
    async with leaves_nothing():
        with pytest.raises(ValueError, match="mine"):
            async with spawn(python(ECHO)) as child:
                raise ValueError("mine")
        assert child.exit_code == 0
        with pytest.raises(KeyboardInterrupt):
            async with spawn(python(ECHO)):
                raise KeyboardInterrupt
        # Together with a cancellation it is not replaced by that.
        with anyio.CancelScope() as scope, pytest.raises(ValueError, match="mine"):
            async with spawn(python(ECHO)):
                scope.cancel()
                raise ValueError("mine")


async def test_a_native_cancel_during_the_ladder_kills(anyio_backend_name: str) -> None:
    """A second Ctrl+C: asyncio.run cancels the task that waits for the child."""
    if anyio_backend_name != "asyncio":
        pytest.skip("asyncio's own cancellation")
    import asyncio

    async with leaves_nothing():
        pids = []

        async def run() -> None:
            async with spawn(python(DEAF + "while True: time.sleep(1)")) as child:
                pids.append(child.pid)
                await child.receive()

        task = asyncio.ensure_future(run())
        await until(lambda: bool(pids))
        await anyio.sleep(0.5)
        task.cancel()
        started = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < 1
        assert not is_running(pids[0])


@pytest.mark.parametrize("error", [OSError, AttributeError])
async def test_without_pidfd(error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise error("not here")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    async with leaves_nothing():
        async with spawn(python("raise SystemExit(3)")) as child:
            assert await child.wait() == 3
        async with spawn(python(DEAF + "while True: time.sleep(1)")) as child:
            await child.receive()
            os.kill(child.pid, signal.SIGKILL)
            assert await child.wait() == -9
        async with spawn(python(ECHO)) as child:
            pass
        assert child.exit_code == 0
        await until(lambda: not [t for t in threading.enumerate() if t.name.startswith("kkrpc_py")])


async def test_other_code_that_reaps_the_child() -> None:
    async with leaves_nothing(), spawn(python(READY)) as child:
        await child.receive()
        while True:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, 0)
            break
        assert await child.wait() in (process.UNKNOWN_EXIT, 0)


async def test_many_children_at_once() -> None:
    async def one(number: int) -> None:
        async with spawn(python(ECHO)) as child:
            await child.send(b"%d" % number)
            assert await child.receive() == b"%d" % number

    async with leaves_nothing(), anyio.create_task_group() as tg:
        for number in range(12):
            tg.start_soon(one, number)


PARENT = """
import anyio, os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have it ignored
from kkrpc_py.transports.process import spawn
async def main():
    async with spawn({command!r}, stderr="inherit") as child:
        os.write(1, b"%d\\n" % child.pid)
        os.write(1, await child.receive())
        await anyio.sleep_forever()
anyio.run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
async def test_a_child_does_not_outlive_its_parent(number: int) -> None:
    """Neither a child that heeds nothing, nor what it started; and no guard stays."""
    inner = python(DEAF + "while True: time.sleep(1)")
    command = python(f"import subprocess\nsubprocess.Popen({inner!r})\n" + DEAF + "while True: time.sleep(1)")
    with anyio.fail_after(LIMIT):
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT.format(command=command)], stdout=subprocess.PIPE, bufsize=0
        )
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == b"ready\n"
        await until(lambda: len(group_of(child)) == 2)
        parent.send_signal(number)
        started = time.monotonic()
        parent.wait()
        await until(lambda: not group_of(child))
        assert time.monotonic() - started < 2
        parent.stdout.close()
        await until(lambda: not guards_of(child))


def group_of(group: int) -> list[int]:
    """Who runs in a process group."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            state, _, its_group = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                found.append(int(name))
    return found


def guards_of(group: int) -> list[str]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{name}/cmdline").read_bytes().endswith(b"kkrpc_py-guard\0%d\0" % group):
                found.append(name)
    return found


async def test_a_guard_goes_with_its_child() -> None:
    async with leaves_nothing():
        async with spawn(python(ECHO)) as child:
            await until(lambda: len(guards_of(child.pid)) == 1)
        assert guards_of(child.pid) == []


async def test_without_a_shell_there_is_no_guard(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guard, "_SHELL", "/nonexistent/sh")
    async with leaves_nothing(), spawn(python(ECHO)) as child:
        await child.send(b"x")
        assert await child.receive() == b"x"
    assert "has no guard" in caplog.text


@pytest.mark.parametrize("round_", range(20))
async def test_a_child_killed_at_any_moment(round_: int) -> None:
    """Whatever is under way ends at once, and nothing is left."""
    ended: list[str] = []
    async with leaves_nothing(), spawn(python(ECHO)) as child, anyio.create_task_group() as tg:

        async def send() -> None:
            with pytest.raises(anyio.BrokenResourceError):
                while True:
                    await child.send(bytes(100_000))
            ended.append("send")

        async def receive() -> None:
            with pytest.raises(anyio.EndOfStream):
                while True:
                    await child.receive(1 << 20)
            ended.append("receive")

        tg.start_soon(send)
        tg.start_soon(receive)
        await anyio.sleep(round_ * 0.002)
        os.kill(child.pid, signal.SIGKILL)
        with anyio.fail_after(1):
            assert await child.wait() == -9
            await until(lambda: len(ended) == 2)


async def test_a_child_that_cannot_be_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the kernel holds it: the ladder ends all the same, and says so."""
    for name in ("TERMINATE_SECONDS", "KILL_SECONDS"):
        monkeypatch.setattr(process, name, 0.1)
    monkeypatch.setattr(Child, "_signal_group", lambda self, number: False)
    with anyio.fail_after(LIMIT):
        async with spawn(python(READY + "while True: time.sleep(1)")) as child:
            await child.receive()
            assert await child.shutdown(grace=0.1) is None
        assert await child.wait() is None
    assert "could not be killed" in caplog.text
    child._process.kill()
    child._process.wait()


def test_a_loop_that_closes_around_a_child() -> None:
    """asyncio.run cancels every task that is left, the one that watches the child too."""
    code = f"""
import asyncio, os
from kkrpc_py.transports.process import spawn
async def forgotten():
    async with spawn({python(ECHO)!r}) as child:
        print(child.pid, flush=True)
        started.set()
        await asyncio.sleep(100)
async def main():
    global started, task
    started = asyncio.Event()
    task = asyncio.ensure_future(forgotten())
    await started.wait()
asyncio.run(main())
"""
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, timeout=LIMIT)
    assert (result.returncode, result.stderr) == (0, b"")
    assert not is_running(int(result.stdout))
