"""Daemon threads for `def` handlers and sync generators.

A blocked handler must hold up neither the loop nor the end of the process, so these are daemon
threads that are simply left behind. anyio's own worker threads are joined at the loop's end.
"""

from __future__ import annotations

import contextvars
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any

import anyio
from anyio.lowlevel import checkpoint_if_cancelled, current_token

from kkrpc_py.errors import CallCancelled, ChannelClosed

__all__ = ["Post", "ThreadScope", "ThreadedGenerator", "Threads", "current_post", "thread_scope"]

Post = Callable[[Callable[[], object]], None]
"""Runs a function on the event loop soon; callable from any thread and from a finalizer."""

_AHEAD = 256
"""Values that a sync generator may be ahead of its stream."""


def current_post() -> Post:
    """The `Post` of the running event loop: the one call that anyio has no name for."""
    native: Any = current_token().native_token
    call: Callable[[Callable[[], object]], object] = (
        getattr(native, "run_sync_soon", None) or native.call_soon_threadsafe
    )

    def post(function: Callable[[], object]) -> None:
        try:
            call(function)
        except RuntimeError:  # the loop has ended, and all that could be told about it with it
            pass

    return post


Job = Callable[[bool], None]
"""Called with True on a thread of its own; with False, wherever that is, where there will be none."""


class ThreadScope:
    """What a handler's thread waits for: when the handler is cancelled, it waits no more."""

    def __init__(self, lend: Callable[[int], object] | None = None) -> None:
        """`lend` is told when its thread begins (1) and ends (-1) to wait."""
        self._lend = lend
        self._lock = threading.RLock()  # held for moments only, and a finalizer may come in one
        self._aborts: list[Callable[[], object]] = []
        self._cancelled = False

    def add(self, abort: Callable[[], object]) -> None:
        """Have `abort` called by `cancel`. Raises CallCancelled if that has come already."""
        with self._lock:
            if self._cancelled:
                raise CallCancelled("the handler was cancelled")
            self._aborts.append(abort)
        if self._lend is not None:
            self._lend(1)

    def discard(self, abort: Callable[[], object]) -> None:
        """The wait is over."""
        with self._lock:
            if abort in self._aborts:
                self._aborts.remove(abort)
        if self._lend is not None:
            self._lend(-1)

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            aborts, self._aborts = self._aborts, []
        for abort in aborts:
            abort()


thread_scope: ContextVar[ThreadScope | None] = ContextVar("kkrpc_py thread scope", default=None)
"""That of the handler which runs in this context, where it runs on a thread."""


class Threads:
    """At most `most` threads, started as they are needed. `close` lets the idle ones go.

    While some wait for the event loop, others may run in their place, `spare` at most.
    """

    def __init__(self, most: int, post: Post, *, spare: int = 0) -> None:
        self._most = most
        self._spare = spare
        self._waiting = 0
        self.post = post
        self._lock = threading.Condition()
        self._jobs: OrderedDict[Job, None] = OrderedDict()
        self._count = 0
        self._idle = 0
        self._closed = False

    def submit(self, job: Job) -> None:
        """Run `job`, which must not raise, on a thread as soon as one is free."""
        with self._lock:
            if self._closed:
                job(False)
                return
            self._jobs[job] = None
            if self._idle >= len(self._jobs):
                self._lock.notify()
            elif self._count < self._allowed():
                self._start()

    def _start(self) -> None:
        self._count += 1
        threading.Thread(target=self._work, name="kkrpc_py handler", daemon=True).start()

    def _allowed(self) -> int:
        return self._most + min(self._waiting, self._spare)

    def _lend(self, change: int) -> None:
        with self._lock:
            self._waiting += change
            if len(self._jobs) > self._idle and self._count < self._allowed():
                self._start()

    def _withdraw(self, job: Job) -> None:
        """Forget a job that no thread has taken: nobody waits for it any more."""
        with self._lock:
            self._jobs.pop(job, None)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            dropped = list(self._jobs)
            self._jobs.clear()
            self._lock.notify_all()
        for job in dropped:
            job(False)

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._jobs or self._count > self._allowed():
                    if self._closed or self._count > self._allowed():
                        self._count -= 1
                        self._lock.notify()  # what this thread was woken for is another's
                        return
                    self._idle += 1
                    self._lock.wait()
                    self._idle -= 1
                job, _ = self._jobs.popitem(last=False)
            job(True)
            del job  # and what it holds, before the wait for the next

    async def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """What `function` returns or raises. A cancelled wait leaves the thread to itself."""
        done = anyio.Event()
        outcome: list[Any] = []
        context = contextvars.copy_context()
        scope = ThreadScope(self._lend if self._spare else None)
        context.run(thread_scope.set, scope)

        def job(runs: bool) -> None:
            try:
                if not runs:
                    raise ChannelClosed
                outcome.extend((True, context.run(function, *args, **kwargs)))
            except BaseException as exc:
                outcome.extend((False, exc))
            self.post(done.set)

        self.submit(job)
        try:
            await done.wait()
        except BaseException:
            self._withdraw(job)
            scope.cancel()
            raise
        returned, value = outcome
        outcome.clear()
        if returned:
            return value
        try:
            raise value
        finally:
            del value


class ThreadedGenerator:
    """A sync generator as an async iterator; it runs on a thread of its own, a little ahead.

    `result` is the generator's return value, once the iteration has ended.
    """

    def __init__(self, generator: Generator[Any, Any, Any], threads: Threads) -> None:
        self.result: Any = None
        self._generator = generator
        self._threads = threads
        self._lock = threading.Condition()
        self._values: deque[Any] = deque()
        self._error: BaseException | None = None
        self._started = False
        self._ended = False
        self._stop = False
        self._context = contextvars.copy_context()
        self._scope = ThreadScope()
        self._context.run(thread_scope.set, self._scope)
        self._changed: anyio.Event | None = None

    def __aiter__(self) -> ThreadedGenerator:
        return self

    async def __anext__(self) -> Any:
        if not self._started:
            self._started = True
            self._threads.submit(self._run)
        while True:
            with self._lock:
                if self._values:
                    value = self._values.popleft()
                    if len(self._values) == _AHEAD // 2:
                        self._lock.notify()
                    return value
                if self._ended:
                    if self._error is not None:
                        error, self._error = self._error, None
                        raise error
                    raise StopAsyncIteration
                changed = self._changed = anyio.Event()
            await checkpoint_if_cancelled()
            await changed.wait()

    def stop(self) -> None:
        """Stop the generator at its next `yield`, on its own thread."""
        with self._lock:
            self._stop = True
            self._values.clear()
            self._lock.notify()
        self._scope.cancel()

    async def aclose(self) -> None:
        """Stop the generator at its next `yield`, and wait until its cleanup has run."""
        self.stop()
        if not self._started:
            self._generator.close()
            return
        while True:
            with self._lock:
                if self._ended:
                    break
                changed = self._changed = anyio.Event()
            await changed.wait()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self, runs: bool) -> None:
        error: BaseException | None = None
        try:
            if not runs:
                raise ChannelClosed
            self._context.run(self._iterate)
        except BaseException as exc:
            error = exc
        with self._lock:
            self._error = error
            self._ended = True
        self._wake()

    def _iterate(self) -> None:
        while True:
            with self._lock:
                while len(self._values) >= _AHEAD and not self._stop:
                    self._lock.wait()
                if self._stop:
                    break
            try:
                value = next(self._generator)
            except StopIteration as stop:
                self.result = stop.value
                return
            except StopAsyncIteration as exc:  # it would look like the end
                raise RuntimeError("the generator raised StopAsyncIteration") from exc
            with self._lock:
                self._values.append(value)
            if self._changed is not None:
                self._wake()
        self._generator.close()

    def _wake(self) -> None:
        with self._lock:
            changed, self._changed = self._changed, None
        if changed is not None:
            self._threads.post(changed.set)
