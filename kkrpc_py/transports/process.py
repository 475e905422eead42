"""A child process whose stdin and stdout are a byte stream.

Owns the child from its start to its reaping: its pipes, its stderr, its exit, and the shutdown
ladder on its process group. Does not own the channel that speaks over the stream.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Literal, TypeAlias

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from kkrpc_py.transports.descriptors import (
    DescriptorReceiveStream,
    DescriptorStream,
    open_pipe,
)
from kkrpc_py.transports.guard import Guard
from kkrpc_py.transports.polled import PipeReader

__all__ = ["Child", "StderrTarget", "spawn"]

EXIT_SECONDS: Final = 5.0
"""What a child has to end by itself once its stdin is closed."""
TERMINATE_SECONDS: Final = 2.0
"""What it then has after SIGTERM."""
KILL_SECONDS: Final = 2.0
"""How long the end of a killed child is waited for; only a process stuck in the kernel takes longer."""
GROUP_SECONDS: Final = 0.5
"""What processes that an ended child left behind in its group have after SIGTERM."""

STDERR_LINE_BYTES: Final = 8 * 1024
"""Of a longer line of stderr the rest is dropped."""
TAIL_LINES: Final = 20
"""Lines of stderr that are kept for the error that reports the child's end."""

StderrTarget: TypeAlias = Literal["log", "inherit"] | Callable[[str], object]

_log = logging.getLogger("kkrpc_py.child")


class Child(DescriptorStream):
    """A running child: a byte stream over its stdout and stdin. Made by `spawn`.

    The stream ends when the child closes its stdout, and also when it has exited, even if a process
    that it started still holds the pipe: what the child itself wrote has been received by then.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str] | None, cwd: str | os.PathLike[str] | None, stderr: StderrTarget
    ) -> None:
        with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as childs:
            stdin_read, stdin_write = open_pipe()
            childs.callback(os.close, stdin_read)
            on_failure.callback(os.close, stdin_write)
            stdout_read, stdout_write = open_pipe()
            childs.callback(os.close, stdout_write)
            on_failure.callback(os.close, stdout_read)
            stderr_read = stderr_write = None
            if stderr != "inherit":
                stderr_read, stderr_write = open_pipe()
                childs.callback(os.close, stderr_write)
                on_failure.callback(os.close, stderr_read)
            self._process = subprocess.Popen(
                list(command),
                stdin=stdin_read,
                stdout=stdout_write,
                stderr=stderr_write,
                env=env,
                cwd=cwd,
                bufsize=0,
                start_new_session=True,
            )
            on_failure.pop_all()
        super().__init__(stdout_read, stdin_write, inherited=False, enlarge="read")
        self.pid: Final = self._process.pid
        self.exit_code: int | None = None
        """None while the child runs; negative: the number of the signal that ended it."""
        self._guard = Guard(self.pid)
        self._exited = anyio.Event()
        self._done = anyio.Event()
        self._shutdown_lock = anyio.Lock()
        self._reaped = False
        self._lines = _Lines(stderr if callable(stderr) else self._log_line)
        self._stderr = None if stderr_read is None else DescriptorReceiveStream(PipeReader(stderr_read))

    @property
    def stderr_tail(self) -> str:
        """The last lines of the child's stderr; empty where it was inherited."""
        return "\n".join(self._lines.tail)

    async def wait(self) -> int:
        """Wait for the child's exit; its exit code. By then its stderr has been read."""
        await self._done.wait()
        assert self.exit_code is not None
        return self.exit_code

    async def shutdown(self, grace: float = EXIT_SECONDS) -> int | None:
        """End the child and its process group, and reap it; its exit code.

        Closes its stdin, waits `grace` seconds, then SIGTERM, then SIGKILL to the group: bounded, and
        not to be cancelled. Output that still comes is dropped. None only if the kernel does not let
        go of a killed child.
        """
        with anyio.CancelScope(shield=True):
            async with self._shutdown_lock:
                if not self._reaped:
                    try:
                        await self._descend(grace)
                    except BaseException:  # a second Ctrl+C: at once, then
                        self._signal_group(signal.SIGKILL)
                        raise
                    finally:
                        self._reap()
        return self.exit_code

    async def _descend(self, grace: float) -> None:
        await self.sender.aclose()
        async with anyio.create_task_group() as tg:
            tg.start_soon(self._discard_output)
            if not await self._exits_within(grace):
                self._signal_group(signal.SIGTERM)
                if not await self._exits_within(TERMINATE_SECONDS):
                    self._signal_group(signal.SIGKILL)
                    await self._exits_within(KILL_SECONDS)
            tg.cancel_scope.cancel()
        await self.aclose()

    async def _exits_within(self, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self._done.wait()
        return self._exited.is_set()

    async def _discard_output(self) -> None:
        """Read what the child still writes, so that it is not held up on its way out."""
        with contextlib.suppress(
            anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.BusyResourceError
        ):
            while True:
                await self.receive(64 * 1024)

    def _signal_group(self, number: signal.Signals) -> None:
        if not self._reaped:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _reap(self) -> None:
        self._signal_group(signal.SIGKILL)
        self._process.poll()
        self._reaped = True
        self._guard.dismiss()

    async def run(self) -> None:
        """Watch the child: read its stderr, note its exit. Runs until both have ended."""
        async with anyio.create_task_group() as tg:
            tg.start_soon(self._watch_exit)
            tg.start_soon(self._read_stderr)
        self._done.set()

    async def _watch_exit(self) -> None:
        pidfd = os.pidfd_open(self.pid)
        try:
            await anyio.wait_readable(pidfd)
        finally:
            os.close(pidfd)
        status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        assert status is not None
        self.exit_code = status.si_status if status.si_code == os.CLD_EXITED else -status.si_status
        self._exited.set()
        self.receiver.finish()
        if self._stderr is not None:
            self._stderr.finish()

    async def _read_stderr(self) -> None:
        if self._stderr is None:
            return
        try:
            while True:
                self._lines.feed(await self._stderr.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            self._lines.end()
        finally:
            await self._stderr.aclose()

    def _log_line(self, line: str) -> None:
        _log.info("[%d] %s", self.pid, line)


class _Lines:
    """Bytes of stderr into lines, each cut at `STDERR_LINE_BYTES`."""

    def __init__(self, target: Callable[[str], object]) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._target = target
        self._part = b""

    def feed(self, data: bytes) -> None:
        first, *more = data.split(b"\n")
        self._part = (self._part + first)[:STDERR_LINE_BYTES]
        for piece in more:
            self._emit()
            self._part = piece[:STDERR_LINE_BYTES]

    def end(self) -> None:
        if self._part:
            self._emit()

    def _emit(self) -> None:
        line = self._part.removesuffix(b"\r").decode("utf-8", "backslashreplace")
        self._part = b""
        self.tail.append(line)
        try:
            self._target(line)
        except Exception:
            _log.exception("the callback for a child's stderr failed")


class spawn:
    """`async with spawn([...]) as child:` runs a command, and shuts it down at the end of the block.

    `env` is the whole environment of the child (None: this process's), `cwd` its directory.
    `stderr`: "log" (to the logger `kkrpc_py.child`, level INFO), "inherit", or a function called
    with each line, on the event loop. Raises OSError where the command cannot be run.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        stderr: StderrTarget = "log",
    ) -> None:
        if isinstance(command, (str, bytes)):
            raise TypeError("the command is a sequence of strings: the program, then its arguments")
        self._command = command
        self._env = env
        self._cwd = cwd
        self._stderr = stderr

    async def __aenter__(self) -> Child:
        await checkpoint()
        self._tasks: TaskGroup = anyio.create_task_group()
        await self._tasks.__aenter__()
        try:
            self._child = Child(self._command, self._env, self._cwd, self._stderr)
        except BaseException:
            await self._tasks.__aexit__(None, None, None)
            raise
        self._tasks.start_soon(self._child.run)
        return self._child

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The task group is not told of the body's exception, or it would wrap it in a group.
        try:
            await self._child.shutdown()
        finally:
            self._tasks.cancel_scope.cancel()
            try:
                await self._tasks.__aexit__(None, None, None)
            except BaseException:
                if exc is None:
                    raise
