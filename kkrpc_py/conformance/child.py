"""The testee as a child process: its pipes, its exit, and the end of its whole process group.

It owns bytes and the process. It knows frames only to note them and to hand them out in order; what they
should be is the business of `play`.

The pipes are as small as the system makes them, and nothing is read ahead: where a case stops reading, the
testee meets the full pipe as it would with a peer that hangs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final

import anyio

from kkrpc_py.conformance.inbox import Inbox
from kkrpc_py.conformance.results import Direction, TraceLine
from kkrpc_py.conformance.wire import Item, Message, Noise, Splitter

__all__ = ["Child", "StartError", "start"]

READ_BYTES: Final = 65536
STDERR_BYTES: Final = 8192
"""What is kept of the end of stderr."""
FIRST_BYTES: Final = 256
"""What is kept of the beginning of stdout."""
TRACE_LINES: Final = 300
"""Lines of the trace that are kept at its beginning, and as many at its end."""
TRACE_BYTES: Final = 4096
"""What is kept of one of them."""
POLL_SECONDS: Final = 0.002
"""How often that is looked at for which the kernel wakes nobody."""
ERRORS_SECONDS: Final = 0.2
"""What stderr of a process that has ended may take to end; somebody else may hold it."""
NOISE_BYTES: Final = 200
"""What is kept of the first line of noise."""
INBOX_BYTES: Final = 128 * 1024 * 1024
"""How much may lie unexpected; then the kit stops reading, before it runs out of memory."""
KILL_SECONDS: Final = 2.0
"""How long the end of a killed process is waited for; only one that the kernel holds takes so long."""


class StartError(Exception):
    """The command could not be started."""


@contextlib.asynccontextmanager
async def start(command: Sequence[str]) -> AsyncGenerator[Child, None]:
    """Run the command during the block; at the end its process group is killed and it is reaped."""
    child = Child(_spawn(command))
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child._read_output)
            tasks.start_soon(child._read_errors)
            tasks.start_soon(child._watch)
            try:
                yield child
            finally:
                tasks.cancel_scope.cancel()
    finally:
        await child._end()


def _spawn(command: Sequence[str]) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    try:
        # A session of its own: Ctrl+C in the terminal reaches the kit alone, and the group can be killed.
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
        )
    except (OSError, ValueError) as error:
        raise StartError(f"{' '.join(command)}: {error}") from None
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream is not None
        os.set_blocking(stream.fileno(), False)
    return process


class Child:
    """A running testee. Made by `start`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._stderr = process.stderr
        self._splitter = Splitter()
        self._changed = anyio.Event()
        self._may_read = anyio.Event()
        self._may_read.set()
        self._errors = bytearray()
        self._errors_closed = anyio.Event()
        self._trace = _Trace()
        self._exited = anyio.Event()
        self._is_gone = False
        self._code: int | None = None
        self.inbox = Inbox()
        self.fault = ""
        """What it wrote that nobody may write, whatever the case is about; empty if nothing."""
        self.noise = 0
        """Lines of noise since the case began."""
        self.first_noise = b""
        self.first_bytes = b""
        self.output_closed = False
        self.input_closed = False
        """By the kit, or because the testee closed its end."""

    @property
    def pid(self) -> int:
        """The process, which leads its group."""
        return self._process.pid

    # What the kit notes --------------------------------------------------------------------------

    def begin_case(self) -> None:
        """Forget what belonged to the case before."""
        self._trace = _Trace()
        self.inbox.clear()
        self._errors.clear()
        self.noise, self.first_noise = 0, b""
        # A fault stays: one that came behind the last answer of the case before would be seen by nobody.

    def note(self, text: str) -> None:
        """Put a line of the kit's own into the trace."""
        self._trace.add("note", text.encode("utf-8", "backslashreplace"))

    def has_half(self) -> bool:
        """Whether the output has begun a frame that is not complete."""
        return self._splitter.has_half()

    def trace(self) -> tuple[TraceLine, ...]:
        """What went over the wire since the case began."""
        rest = self._splitter.rest()
        return self._trace.lines(rest)

    def stderr_tail(self) -> str:
        """The last of what it wrote to stderr since the case began."""
        return self._errors.decode("utf-8", "backslashreplace").strip("\n")

    # Reading -------------------------------------------------------------------------------------

    @property
    def reading(self) -> bool:
        """Whether the kit reads what the testee writes."""
        return self._may_read.is_set()

    def set_reading(self, reading: bool) -> None:
        """Stop reading the output, or go on."""
        if reading:
            self._may_read.set()
        elif self.reading:
            self._may_read = anyio.Event()

    async def changed(self) -> None:
        """Wait until something arrived, or the output was closed."""
        await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _read_output(self) -> None:
        while True:
            await anyio.wait_readable(self._stdout)
            while not self.reading:
                await self._may_read.wait()
            data = _read(self._stdout.fileno())
            if data is None:
                continue
            if not data:
                self.output_closed = True
                self._tell()
                return
            if len(self.first_bytes) < FIRST_BYTES:
                self.first_bytes = (self.first_bytes + data)[:FIRST_BYTES]
            try:
                for item in self._splitter.feed(data):
                    self._take(item)
            except Exception as error:  # a fault of the kit shall end this case alone
                self.fault = f"the kit itself failed to read this: {error!r}"
            if self.inbox.size > INBOX_BYTES:
                self.fault = self.fault or f"more than {INBOX_BYTES} bytes that no step has expected"
                self._tell()
                return  # from here on the testee meets a full pipe
            self._tell()

    def _take(self, item: Item) -> None:
        self._trace.add("from testee", item.data)
        if isinstance(item, Message):
            self.inbox.add(item)
            return
        if isinstance(item, Noise):
            self.noise += 1
            self.first_noise = self.first_noise or item.data[:NOISE_BYTES]
        reason = item.fault
        if reason:
            self.note(reason)
            self.fault = self.fault or reason

    async def _read_errors(self) -> None:
        while True:
            await anyio.wait_readable(self._stderr)
            data = _read(self._stderr.fileno())
            if data:
                self._errors += data
                del self._errors[:-STDERR_BYTES]
            elif data is not None:
                self._errors_closed.set()
                return

    # Writing -------------------------------------------------------------------------------------

    async def write(self, data: bytes, *, shown: Sequence[bytes] | None = None) -> None:
        """Write all of it, unless the testee closes its input: that is told by its exit, not here.

        `shown` is what the trace says of it, if not the data itself.
        """
        for line in shown if shown is not None else [data]:
            self._trace.add("to testee", line)
        view = memoryview(data)
        while view and not self.input_closed:
            try:
                view = view[os.write(self._stdin.fileno(), view) :]
            except BlockingIOError:
                # A pipe whose other end was closed is writable, too: the next write tells.
                await anyio.wait_writable(self._stdin)
            except (BrokenPipeError, ConnectionResetError):
                self.note("the testee has closed its input")
                self.close_input()

    async def was_read(self) -> None:
        """Wait until the testee has read all that was written, where the system can tell."""
        seconds = POLL_SECONDS / 20
        while not self.input_closed and _unread(self._stdin.fileno()) and not self.has_exited():
            await anyio.sleep(seconds)
            seconds = min(2 * seconds, POLL_SECONDS)

    def close_input(self) -> None:
        """End the testee's input."""
        if not self.input_closed:
            self.input_closed = True
            self._stdin.close()

    # Its end -------------------------------------------------------------------------------------

    def has_exited(self) -> bool:
        """Whether the process has ended. What it left behind in its group has been killed then."""
        if not self._is_gone:
            if sys.platform == "darwin":  # its Python has no waitid before 3.13
                self._is_gone = self._process.poll() is not None
            else:
                # Not reaped by this, so that the number of its group cannot be another's yet.
                found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                self._is_gone = found is not None
            if self._is_gone:
                self._kill_group()
        return self._is_gone

    async def _watch(self) -> None:
        """Tell of the exit, also where something that it started still holds the output."""
        with contextlib.suppress(OSError, AttributeError):  # macOS and old kernels have no such descriptor
            descriptor = os.pidfd_open(self.pid)
            try:
                await anyio.wait_readable(descriptor)
            finally:
                os.close(descriptor)
        while not self.has_exited():  # noqa: ASYNC110  (nobody sets an event for it)
            await anyio.sleep(POLL_SECONDS)
        self._exited.set()

    async def exit_code(self, seconds: float) -> int | None:
        """Its exit code, as `subprocess` has it; None if it has not ended within that time.

        What it wrote to stderr has been read then, but for what others of its group still may write.
        """
        if self._code is None:
            with anyio.move_on_after(seconds):
                await self._exited.wait()
            if not self.has_exited():
                return None
            with anyio.move_on_after(ERRORS_SECONDS):
                await self._errors_closed.wait()
            self._code = self._process.wait()
        return self._code

    async def closed(self, seconds: float) -> bool:
        """Whether its output ends within that time."""
        with anyio.move_on_after(seconds):
            while not self.output_closed:
                await self.changed()
        return self.output_closed

    async def end(self, seconds: float) -> None:
        """End its input, and give it that time to exit by itself."""
        self.close_input()
        self.set_reading(True)
        await self.exit_code(seconds)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def _end(self) -> None:
        if not self._is_gone:
            self._kill_group()
        try:
            with anyio.move_on_after(KILL_SECONDS, shield=True):
                while not self.has_exited():  # noqa: ASYNC110  (`_watch` is over)
                    await anyio.sleep(POLL_SECONDS / 4)
        finally:
            # Also where a native cancel of asyncio broke in: SIGKILL has been sent, this takes no time.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(KILL_SECONDS)
            for stream in (self._stdin, self._stdout, self._stderr):
                stream.close()


def _read(descriptor: int) -> bytes | None:
    """What is there; None if nothing is, empty at the end."""
    try:
        return os.read(descriptor, READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _unread(descriptor: int) -> int:
    """How many bytes lie in a pipe; 0 where the system does not say."""
    ioctl = _pipe_ioctl()
    if ioctl is None:
        return 0
    call, request = ioctl
    try:
        return int.from_bytes(call(descriptor, request, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def _pipe_ioctl() -> tuple[Callable[..., Any], int] | None:
    try:
        import fcntl
        import termios
    except ImportError:
        return None
    return fcntl.ioctl, termios.FIONREAD


class _Trace:
    """The beginning and the end of what happened in a case."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first: list[TraceLine] = []
        self._last: deque[TraceLine] = deque(maxlen=TRACE_LINES)
        self._dropped = 0

    def add(self, direction: Direction, data: bytes) -> None:
        data = data.removesuffix(b"\n")
        if len(data) > TRACE_BYTES:
            data = data[:TRACE_BYTES] + f" … ({len(data)} bytes)".encode()
        line = TraceLine(time.monotonic() - self._began, direction, data)
        if len(self._first) < TRACE_LINES:
            self._first.append(line)
        else:
            self._dropped += len(self._last) == TRACE_LINES
            self._last.append(line)

    def lines(self, rest: bytes) -> tuple[TraceLine, ...]:
        found = list(self._first)
        if self._dropped:
            found.append(TraceLine(self._last[0].seconds, "note", f"{self._dropped} lines left out".encode()))
        found += self._last
        if rest:
            seconds = time.monotonic() - self._began
            found.append(TraceLine(seconds, "from testee", rest[:TRACE_BYTES]))
            found.append(TraceLine(seconds, "note", b"the last line is not complete"))
        return tuple(found)
