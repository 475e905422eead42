"""Blocking calls on daemon threads that neither the event loop nor the interpreter's exit waits for.

Owns the hand-over between such a thread and an event loop, and the two ends of a descriptor stream
that work so: for files, the null device, terminals, and pipes that cannot be reopened. It does not
decide which descriptor is which (`descriptors` does), and runs no handlers.

Why not `anyio.to_thread`: its threads are joined at exit, so one that waits for a terminal would
keep the process alive; and what a cancelled call had read would be lost.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import select
import stat
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Generic, TypeAlias, TypeVar

import anyio
from anyio.lowlevel import current_token

from kkrpc_py.transports.ends import Reader, Writer

__all__ = ["BlockingDescriptor", "ThreadReader", "ThreadWriter", "Worker"]

T = TypeVar("T")
_Caller: TypeAlias = Callable[[Callable[[], object]], object]

_READ_BYTES: Final = 64 * 1024


class Worker(Generic[T]):
    """One daemon thread that makes one call at a time, and keeps the outcome until it is fetched.

    Used from one event loop. A call whose waiter was cancelled is not interrupted; the next
    `result()` gets what came of it.
    """

    def __init__(self, name: str) -> None:
        self.busy = False
        """A call was started and its outcome not fetched yet."""
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], T] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # held for moments only: guards _outcome and _wake
        self._outcome: Callable[[], T] | None = None
        self._wake: Callable[[], object] | None = None
        self._waiting: anyio.Event | None = None
        self._at_end: Callable[[], object] | None = None

    def start(self, call: Callable[[], T]) -> None:
        """Hand `call` to the thread, which must not be busy."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self.busy = True
        self._calls.put(call)

    async def result(self) -> T:
        """What the started call returns or raises. A cancelled wait leaves the outcome in place.

        Raises `anyio.ClosedResourceError` if `stop` comes first.
        """
        done = anyio.Event()
        wake = partial(_loop_caller(), done.set)
        with self._lock:
            if self._outcome is None:
                self._wake = wake
            else:
                done.set()
        self._waiting = done
        try:
            await done.wait()
        finally:
            self._waiting = None
            with self._lock:
                self._wake = None
        if self._at_end is not None:
            raise anyio.ClosedResourceError
        with self._lock:
            outcome, self._outcome = self._outcome, None
        self.busy = False
        assert outcome is not None
        return outcome()

    def stop(self, at_end: Callable[[], object]) -> None:
        """End the thread once its present call returns; `at_end` is then called on it. Never waits."""
        self._at_end = at_end
        if self._waiting is not None:
            self._waiting.set()
        if self._thread is None:
            at_end()
        else:
            self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            outcome = _outcome_of(call)
            with self._lock:
                self._outcome = outcome
                wake = self._wake
            if wake is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    wake()
        assert self._at_end is not None
        self._at_end()


def _loop_caller() -> _Caller:
    """What has the current event loop call a function soon: from any thread, and without waiting."""
    loop: Any = current_token().native_token
    caller: _Caller = loop.run_sync_soon if hasattr(loop, "run_sync_soon") else loop.call_soon_threadsafe
    return caller


def _outcome_of(call: Callable[[], T]) -> Callable[[], T]:
    try:
        value = call()
    except Exception as exc:
        return partial(_raise, exc)
    return lambda: value


def _raise(exc: Exception) -> Any:
    raise exc


class BlockingDescriptor:
    """A descriptor that a thread blocks on, and the pipe that ends its waiting."""

    def __init__(self, fd: int, event: int) -> None:
        self.fd = fd
        # What polls as writable takes this much without blocking, if it is a pipe, so that closing gets
        # through. Anything else gets all in one write, which nobody can write into.
        self._piece = select.PIPE_BUF if stat.S_ISFIFO(os.fstat(fd).st_mode) else None
        self._stop_read, self._stop_write = os.pipe()
        self._poll = select.poll()
        self._poll.register(self._stop_read, select.POLLIN)
        self._poll.register(fd, event)

    def _is_ready(self) -> bool:
        """Block until the descriptor is ready, or is known not to be pollable. False: it is to be closed."""
        return all(fd != self._stop_read for fd, _ in self._poll.poll())

    def read(self, max_bytes: int) -> bytes:
        """What is there, b"" at the end."""
        while self._is_ready():
            try:
                return os.read(self.fd, max_bytes)
            except BlockingIOError:  # somebody else made the open file non-blocking
                continue
            except OSError as exc:
                if exc.errno == errno.EIO:  # a terminal whose other end is gone
                    return b""
                raise
        return b""

    def write(self, data: bytes) -> None:
        """Write all of it, unless interrupted."""
        rest = memoryview(data)
        while rest and self._is_ready():
            with contextlib.suppress(BlockingIOError):  # as in `read`
                rest = rest[os.write(self.fd, rest[: self._piece]) :]

    def interrupt(self) -> None:
        """End the waiting of a read or write, now or to come. Once, from any thread."""
        os.close(self._stop_write)

    def close(self) -> None:
        """Let go of everything, once nobody waits."""
        os.close(self._stop_read)
        os.close(self.fd)


class ThreadReader(Reader):
    """The reading end of a descriptor that is read by a thread, on demand: one read for one receive.

    Reading ahead would take from a terminal or a shared file what others should get.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._descriptor = BlockingDescriptor(fd, select.POLLIN)
        self._worker: Worker[bytes] = Worker("kkrpc_py reader")
        self._wanted = _READ_BYTES

    def _read(self, max_bytes: int) -> bytes | None:
        self._wanted = min(max_bytes, _READ_BYTES)
        return None

    async def wait(self) -> None:
        if not self._worker.busy:
            self._worker.start(partial(self._descriptor.read, self._wanted))
        with contextlib.suppress(anyio.ClosedResourceError):
            self.keep(await self._worker.result())

    def close(self) -> None:
        self._descriptor.interrupt()
        self._worker.stop(self._descriptor.close)


class ThreadWriter(Writer):
    """The writing end of a descriptor that is written by a thread, which holds `turn` for each write.

    A cancelled write is not undone: its bytes are still written, so that no frame is cut, unless the
    end is closed first.
    """

    def __init__(self, fd: int, turn: threading.Lock | None = None) -> None:
        self._descriptor = BlockingDescriptor(fd, select.POLLOUT)
        self._worker: Worker[None] = Worker("kkrpc_py writer")
        self._turn = turn or threading.Lock()

    def write_now(self, data: bytes | memoryview) -> int:
        return 0

    async def write(self, data: bytes) -> None:
        if self._worker.busy:
            await self._worker.result()
        self._worker.start(partial(self._write, bytes(data)))
        await self._worker.result()

    def _write(self, data: bytes) -> None:
        with self._turn:
            self._descriptor.write(data)

    def close(self) -> None:
        self._descriptor.interrupt()
        self._worker.stop(self._descriptor.close)
