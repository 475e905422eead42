"""How a thread has an event loop do something for it, and waits until that is done.

It owns the hand-over and both of its ends: the waiting thread may be interrupted, its handler may be
cancelled, the loop may end, and nobody waits for what never comes. It starts no loop and no thread.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, Generic, TypeVar

import anyio

from kkrpc_py.channel.threads import Post, thread_scope
from kkrpc_py.channel.workers import WorkerPool
from kkrpc_py.errors import CallCancelled

__all__ = ["Portal", "loop_threads"]

T = TypeVar("T")

loop_threads: set[int] = set()
"""Threads that run an event loop for channels alone: nothing may block them."""


class Portal:
    """The way from other threads to one event loop, on which it is made. `close` shuts it for good."""

    def __init__(
        self, pool: WorkerPool, post: Post, closed_error: Callable[[], Exception], context: Context
    ) -> None:
        """Errands run in tasks of `pool`, in copies of `context` with the variables of the waiting thread."""
        self.post = post
        self._pool = pool
        self._closed_error = closed_error
        self._context = context
        self._loop_thread = threading.get_ident()
        self._lock = threading.RLock()  # held for moments only: guards _errands and _closed
        self._errands: set[_Errand] = set()
        self._closed = False

    def run(self, function: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any) -> T:
        """What `await function(*args, **kwargs)` gives on the loop; blocks this thread until then.

        Raises what it raises; the error that the portal was made with, once that is closed; CallCancelled
        where this thread runs a handler that is cancelled meanwhile. What this thread stops waiting for,
        by Ctrl+C, is cancelled.
        """
        errand = _Errand(self, function, args, kwargs)
        scope = thread_scope.get()
        entered = False
        try:
            try:
                self._check_thread()
                if scope is not None:
                    scope.add(errand.abort)
                    entered = True
                self._admit(errand)
            except Exception:
                errand.refuse()
                raise
            errand.done.acquire()
        except BaseException:
            errand.abort()
            raise
        finally:
            if scope is not None and entered:
                scope.discard(errand.abort)
        return errand.outcome()  # type: ignore[no-any-return]  # what `function` gave, unchanged

    def wait(self, awaitable: Awaitable[T]) -> T:
        """The same for an awaitable, which is closed where it will not be awaited."""
        return self.run(_Awaited(awaitable))

    def start(self, function: Callable[[], Awaitable[object]]) -> None:
        """Have `await function()` run on the loop, if that still can be; nobody hears what came of it."""
        with contextlib.suppress(Exception):
            self._admit(_Errand(self, function, (), {}))

    def close(self) -> None:
        """Nothing more is begun; who waits for what has begun waits on. On the loop, before the pool's."""
        with self._lock:
            self._closed = True
            waiting = [errand for errand in self._errands if not errand.begun]
        for errand in waiting:
            errand.discard()

    def _check_thread(self) -> None:
        thread = threading.get_ident()
        if thread == self._loop_thread or thread in loop_threads:
            raise RuntimeError("a blocking call on an event loop: await it, or make the handler a `def`")

    def _admit(self, errand: _Errand) -> None:
        with self._lock:
            if self._closed:
                raise self._closed_error()
            self._errands.add(errand)
        self.post(errand.begin)

    def _begin(self, errand: _Errand) -> None:
        # A worker that is started for it must not inherit what that thread's context holds.
        self._context.run(self._pool.submit, errand)

    def _forget(self, errand: _Errand) -> None:
        with self._lock:
            self._errands.discard(errand)

    def _adopt(self, context: Context) -> None:
        """Take over the variables of the thread; those that the loop has set are its own."""
        for variable, value in context.items():
            if variable not in self._context:
                variable.set(value)


class _Errand:
    """What one thread waits for; a `workers.Job`. All but `abort` and `outcome` happens on the loop."""

    __slots__ = (
        "_args", "_cancelled", "_context", "_error", "_function", "_kwargs", "_over", "_portal", "_value",
        "begun", "done", "scope",
    )  # fmt: skip

    def __init__(
        self, portal: Portal, function: Callable[..., Awaitable[Any]], args: Any, kwargs: dict[str, Any]
    ) -> None:
        self.scope: anyio.CancelScope | None = None
        self.begun = False
        self.done = threading.Lock()
        self.done.acquire()
        self._portal = portal
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._context = contextvars.copy_context()
        self._value: Any = None
        self._error: BaseException | None = None
        self._cancelled = False
        self._over = False

    # In the thread ---------------------------------------------------------------------------

    def abort(self) -> None:
        """Cancel it, from whichever thread."""
        self._portal.post(self._cancel)

    def refuse(self) -> None:
        """It was not admitted."""
        if isinstance(self._function, _Awaited):
            self._function.close()

    def outcome(self) -> Any:
        error, self._error = self._error, None
        if error is None:
            return self._value
        try:
            raise error
        finally:
            del error  # its traceback holds this frame

    # On the loop -----------------------------------------------------------------------------

    def begin(self) -> None:
        if not self._over:
            self.begun = True
            self._portal._begin(self)

    async def run(self) -> None:
        if self._over:
            return
        self._portal._adopt(self._context)
        try:
            self._value = await self._function(*self._args, **self._kwargs)
        except BaseException as exc:
            if not isinstance(exc, anyio.get_cancelled_exc_class()):
                self._error = exc
                return
            self._error = self._interruption()
            if self.scope is not None and self.scope.cancel_called:
                raise
        finally:
            self._finish()

    def discard(self) -> None:
        if not self._over:
            self._error = self._interruption()
            self.refuse()
            self._finish()

    def _interruption(self) -> Exception:
        if self._cancelled:
            return CallCancelled("the handler that waited for it was cancelled")
        if self._portal._closed:
            return self._portal._closed_error()
        return CallCancelled("it was cancelled on the event loop")

    def _cancel(self) -> None:
        if self._over:
            self._value = None  # nobody takes it: a stream, perhaps
            return
        self._cancelled = True
        if self.scope is not None:
            self.scope.cancel()
        else:
            self.discard()

    def _finish(self) -> None:
        self._over = True
        self._portal._forget(self)
        del self._function, self._args, self._kwargs
        self.done.release()


class _Awaited(Generic[T]):
    """An awaitable as the function that an errand calls."""

    def __init__(self, awaitable: Awaitable[T]) -> None:
        self._awaitable = awaitable

    async def __call__(self) -> T:
        return await self._awaitable

    def close(self) -> None:
        close = getattr(self._awaitable, "close", None)
        if close is not None:
            close()
