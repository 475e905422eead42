"""A child process whose stdin and stdout are a byte stream.

Owns the child from its start to its reaping: its pipes, its stderr, its exit, and the shutdown
ladder on its process group (decision 0102). Does not own the channel that speaks over the stream.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Literal, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from kkrpc_py.transports.descriptors import DescriptorReceiveStream, DescriptorStream, open_pipe
from kkrpc_py.transports.guard import Guard
from kkrpc_py.transports.polled import PipeReader
from kkrpc_py.transports.threads import Worker

__all__ = ["Child", "StderrTarget", "spawn"]

EXIT_SECONDS: Final = 5.0
"""What a child has to end by itself once its stdin is closed."""
TERMINATE_SECONDS: Final = 2.0
"""What it then has after SIGTERM."""
KILL_SECONDS: Final = 2.0
"""How long the end of a killed child is waited for; only one that the kernel holds takes so long."""
GROUP_SECONDS: Final = 0.5
"""What the processes that an ended child left behind in its group have after SIGTERM."""
POLL_SECONDS: Final = 0.01
"""How often that is looked at for which the kernel wakes nobody."""

STDERR_LINE_BYTES: Final = 8 * 1024
"""The rest of a longer line of stderr is dropped."""
TAIL_LINES: Final = 20
"""Lines of stderr that are kept for the error that reports the child's end."""
TAIL_LINE_CHARACTERS: Final = 1000
"""What is kept of each."""

UNKNOWN_EXIT: Final = 255
"""The exit code that stands for one which other code in this process took from the kernel."""

StderrTarget: TypeAlias = Literal["log", "inherit"] | Callable[[str], object]

_log = logging.getLogger("kkrpc_py.child")


def spawn(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stderr: StderrTarget = "log",
) -> AbstractAsyncContextManager[Child, None]:
    """Run a command during an `async with` block that gets the child, and shut it down at the end.

    `env` is the child's whole environment (None: this process's), `cwd` its directory. `stderr` is
    "log" (logger `kkrpc_py.child`, level INFO), "inherit", or a function that is called with each
    line on the event loop. Raises OSError where the command cannot be run.

    The child leads a session of its own: Ctrl+C in the terminal reaches this process alone, which then
    ends the child. It ends within two seconds of this process, whatever ends that.
    """
    if isinstance(command, str | bytes):
        raise TypeError("a command is a sequence of strings: the program, then its arguments")
    return _Spawned(command, env, cwd, stderr)


class Child(DescriptorStream):
    """A child process: a byte stream over its stdout and stdin. Made by `spawn`.

    The stream ends when the child closes its stdout, and also once it has exited although a process
    that it started still holds the pipe: what the child itself wrote has been received by then.
    """

    def __init__(self, process: subprocess.Popen[bytes], stdout: int, stdin: int, stderr: int | None) -> None:
        super().__init__(stdout, stdin, inherited=False, enlarge="read")
        self.pid: Final = process.pid
        self.exit_code: int | None = None
        """None while the child runs; negative: the number of the signal that ended it."""
        self._process = process
        self._guard = Guard(process.pid)
        self._errors = None if stderr is None else DescriptorReceiveStream(PipeReader(stderr))
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._settled = anyio.Event()
        self._shutting_down = anyio.Lock()
        self._reaped = False

    @property
    def stderr_tail(self) -> str:
        """The last lines of the child's stderr so far; empty where that is inherited."""
        return "\n".join(self._tail)

    async def wait(self) -> int | None:
        """Wait for the child's exit; its exit code. Its stderr has been read by then.

        None only where `shutdown` gave up on a child that the kernel does not let go.
        """
        await self._settled.wait()
        return self.exit_code

    async def shutdown(self, grace: float = EXIT_SECONDS) -> int | None:
        """End the child and its process group, and reap it; its exit code.

        Closes its stdin, waits `grace` seconds, then comes SIGTERM, then SIGKILL, to the whole group.
        Output that still comes is dropped. Bounded, whatever the child does; no cancel scope reaches
        it, and a `task.cancel()` of asyncio during it kills the group at once. None only for a child
        that the kernel does not let go.
        """
        with anyio.CancelScope(shield=True):
            async with self._shutting_down:
                if not self._reaped:
                    try:
                        await self._descend(grace)
                    except BaseException:
                        self._kill()
                        raise
                    finally:
                        self._let_go()
        return self.exit_code

    def kill(self) -> None:
        """End the child and its process group at once. On the event loop; `shutdown` still reaps it."""
        if self.exit_code is None:
            self._signal_group(signal.SIGKILL)

    async def _descend(self, grace: float) -> None:
        self.sender.close()
        async with anyio.create_task_group() as tg:
            tg.start_soon(self._discard_output)
            if not await self._exits_within(grace):
                self._signal_group(signal.SIGTERM)
                if not await self._exits_within(TERMINATE_SECONDS):
                    self._signal_group(signal.SIGKILL)
                    await self._exits_within(KILL_SECONDS)
            tg.cancel_scope.cancel()
        if self.exit_code is None:
            _log.error("child %d could not be killed", self.pid)
            return
        # Until it is reaped nobody else can get its number, and so its group's.
        self._signal_group(signal.SIGTERM)
        self._process.poll()
        with anyio.move_on_after(GROUP_SECONDS):
            while self._signal_group(0):  # noqa: ASYNC110  (nobody tells when a group becomes empty)
                await anyio.sleep(POLL_SECONDS)
            return
        self._signal_group(signal.SIGKILL)

    async def _exits_within(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self._settled.wait()
            while self.exit_code is None:  # an asyncio loop that is closing cancelled who watched
                self._note_exit()
                await anyio.sleep(POLL_SECONDS)
        return self.exit_code is not None

    async def _discard_output(self) -> None:
        """Read what the child still writes, or a full pipe would keep it from ending."""
        ends = (
            anyio.EndOfStream,
            anyio.BrokenResourceError,
            anyio.ClosedResourceError,
            anyio.BusyResourceError,
        )
        with contextlib.suppress(*ends):
            while True:
                await self.receive()

    def _signal_group(self, number: int) -> bool:
        """Whether there is such a group, and we may signal it."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _kill(self) -> None:
        self._signal_group(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=KILL_SECONDS)
        self._note_exit()

    def _let_go(self) -> None:
        self._reaped = True
        self.close()
        self._guard.dismiss()

    async def watch(self, target: StderrTarget) -> None:
        """Read the child's stderr and note its exit; the part of a task that `spawn` starts."""
        try:
            async with anyio.create_task_group() as tg:
                tg.start_soon(self._watch_exit)
                if self._errors is not None:
                    tg.start_soon(self._read_errors, self._errors, target)
        finally:
            self._settled.set()

    async def _watch_exit(self) -> None:
        try:
            pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # not Linux, an old one, or a sandbox
            worker: Worker[int] = Worker("kkrpc_py child watcher")
            worker.start(self._process.wait)
            try:
                await worker.result()
            finally:
                worker.stop(lambda: None)
        else:
            try:
                await anyio.wait_readable(pidfd)
            finally:
                os.close(pidfd)
        self._note_exit()
        self.receiver.finish()
        if self._errors is not None:
            self._errors.finish()

    def _note_exit(self) -> None:
        """Take over the exit code if there is one. Leaves the child to be reaped, where that is possible."""
        if self._process.returncode is not None or not hasattr(os, "waitid"):  # macOS before Python 3.13
            self.exit_code = self._process.poll()
            return
        try:
            status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            _log.warning("child %d was reaped by other code; its exit code is not known", self.pid)
            self.exit_code = UNKNOWN_EXIT
        else:
            if status is not None:
                exited = status.si_code == os.CLD_EXITED
                self.exit_code = status.si_status if exited else -status.si_status

    async def _read_errors(self, stream: DescriptorReceiveStream, target: StderrTarget) -> None:
        lines = _Lines()
        try:
            while True:
                for line in lines.feed(await stream.receive()):
                    self._note_line(line, target)
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            for line in lines.feed(b"\n" if lines.pending else b""):
                self._note_line(line, target)
        finally:
            stream.close()

    def _note_line(self, line: str, target: StderrTarget) -> None:
        self._tail.append(line[:TAIL_LINE_CHARACTERS])
        if callable(target):
            try:
                target(line)
            except Exception:
                _log.exception("the function that gets the child's stderr failed")
        else:
            _log.info("[%d] %s", self.pid, line)


class _Lines:
    """Bytes to lines, each cut at `STDERR_LINE_BYTES`."""

    def __init__(self) -> None:
        self.pending = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        pieces = data.split(b"\n")
        pieces[0] = self.pending + pieces[0]
        self.pending = pieces.pop()[:STDERR_LINE_BYTES]
        return [
            piece[:STDERR_LINE_BYTES].removesuffix(b"\r").decode("utf-8", "backslashreplace")
            for piece in pieces
        ]


class _Spawned(AbstractAsyncContextManager[Child, None]):
    """The block of `spawn`: the child, and the task that watches it."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None,
        cwd: str | os.PathLike[str] | None,
        stderr: StderrTarget,
    ) -> None:
        self._command = command
        self._env = env
        self._cwd = cwd
        self._stderr: StderrTarget = stderr

    async def __aenter__(self) -> Child:
        await checkpoint()
        self._child = _start(self._command, self._env, self._cwd, piped_stderr=self._stderr != "inherit")
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        # The child is watched to its end, also while the block around us is being cancelled.
        self._watching = anyio.CancelScope(shield=True)
        self._tasks.start_soon(self._watch)
        return self._child

    async def _watch(self) -> None:
        with self._watching:
            await self._child.watch(self._stderr)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._child.shutdown()
        finally:
            self._watching.cancel()
            try:
                # The task group is not told of the block's exception: it would put it into a group.
                await self._tasks.__aexit__(None, None, None)
            except BaseException:
                if exc is None:
                    raise


def _start(
    command: Sequence[str],
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    *,
    piped_stderr: bool,
) -> Child:
    with contextlib.ExitStack() as childs_ends, contextlib.ExitStack() as on_failure:

        def pipe(childs: int) -> tuple[int, int]:
            ends = open_pipe()
            childs_ends.callback(os.close, ends[childs])
            on_failure.callback(os.close, ends[1 - childs])
            return ends

        stdin = pipe(0)
        stdout = pipe(1)
        stderr = pipe(1) if piped_stderr else (None, None)
        process = subprocess.Popen(
            list(command),
            stdin=stdin[0],
            stdout=stdout[1],
            stderr=stderr[1],
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
        on_failure.pop_all()
    return Child(process, stdout[0], stdin[1], stderr[0])
