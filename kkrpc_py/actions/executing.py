"""One execution of an action by its client: what has come, who is told, how it is stopped.

Two sides meet here. A task of its own fetches, and puts what comes; whoever runs the execution takes that,
shows it and calls the callbacks. So an execution that is stopped closes its connection at once, wherever its
callbacks are, and a callback is never cancelled by it. This module owns that meeting; it knows no HTTP.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from inspect import isawaitable
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import anyio
import msgspec
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from kkrpc_py.actions.fetching import Put
from kkrpc_py.channel.deferred import Deferred
from kkrpc_py.channel.parking import Signal, current_parking
from kkrpc_py.channel.threads import Post, current_post
from kkrpc_py.errors import ActionError
from kkrpc_py.errors.actions import STREAM_ERROR

__all__ = ["Callbacks", "Executing", "Execution", "Follower", "Host", "Status"]

T = TypeVar("T")

Status: TypeAlias = Literal["idle", "streaming", "done", "error"]

_TURN = 256
"""Chunks that are taken without a wait before the other tasks get their turn."""


class Callbacks(msgspec.Struct, frozen=True):
    """Whom to tell. They may be coroutine functions; the next chunk waits for them."""

    on_chunk: Callable[[Any], Any] | None = None
    on_done: Callable[[list[Any]], Any] | None = None
    on_error: Callable[[ActionError], Any] | None = None


class Host:
    """Where the executions of one client run."""

    def __init__(self) -> None:
        self.running: set[Execution[Any]] = set()
        """Those that fetch."""
        self.tasks: TaskGroup | None = None
        """For executions that are iterated; None: there is no place for such."""
        self.closed = False

    def close(self) -> None:
        """Stop those that run; there will be no others."""
        self.closed = True
        self.tasks = None
        for execution in tuple(self.running):
            execution.stop()


class Execution(Generic[T]):
    """What one execution has given so far, and its end.

    :param fetch: gives the chunks to the function that it gets; returns at the end, raises what it ended in.
    :param room: bytes of chunks that may wait here to be taken.
    :param keep: the number of newest chunks that stay in `chunks`; None: all.
    """

    def __init__(
        self,
        host: Host,
        fetch: Callable[[Put], Awaitable[None]],
        callbacks: Callbacks,
        room: int,
        keep: int | None,
    ) -> None:
        self.chunks: list[T] = []
        self.dropped = 0
        """Chunks that are no longer in `chunks`."""
        self.data: T | None = None
        self.status: Status = "streaming"
        self.error: ActionError | None = None
        parking = current_parking()
        self.changed = Signal(parking)
        self._emptied = Signal(parking)
        self.host = host
        self._fetch = fetch
        self._callbacks = callbacks
        self._room = room
        self._keep = keep
        self._scope: anyio.CancelScope | None = None
        self._waiting: deque[Any] = deque()
        self._waiting_size = 0
        self._fetched = False
        self._failure: BaseException | None = None
        self._since_wait = 0

    # The side that fetches -------------------------------------------------------------------

    async def fetch(self) -> None:
        """Fetch to the end. Raises nothing but a cancellation from outside."""
        if self.host.closed:
            self.stop()  # the client has been closed before this task began
        if self.status != "streaming":
            return
        with anyio.CancelScope() as self._scope:
            self.host.running.add(self)
            try:
                await self._fetch(self._put)
            except anyio.get_cancelled_exc_class():
                self.stop()  # by whoever cancelled the task, if not by that already
                raise
            except BaseException as exc:
                self._failure = exc
            finally:
                self.host.running.discard(self)
                self._fetched = True
                self.changed.wake()

    async def _put(self, chunks: list[Any], size: int) -> None:
        self._waiting.extend(chunks)
        self._waiting_size += size
        self.changed.wake()
        if self._waiting_size > self._room:
            await self._emptied.wait()

    # The side that takes ---------------------------------------------------------------------

    async def run(self) -> None:
        """Take all there is. Raises what a callback raised, and what is no error of the stream."""
        failure: BaseException | None = None
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.fetch)
                try:
                    while await self.take():
                        pass
                except anyio.get_cancelled_exc_class():
                    raise
                except BaseException as exc:
                    failure = exc  # through the task group it would come out in a group of its own
                if self._scope is not None:
                    self._scope.cancel()
            if failure is not None:
                raise failure
        finally:
            self.stop()
            del failure

    async def take(self) -> bool:
        """Show the next chunk, as `data`; False: there is none, it is over, in whatever way.

        Raises what a callback raised: then the status is "error". A cancelled one has stopped the execution.
        """
        try:
            while self.status == "streaming":
                if self._since_wait >= _TURN:
                    self._since_wait = 0
                    await checkpoint()
                elif self._waiting:
                    self._since_wait += 1
                    await self._show(self._waiting.popleft())
                    return True
                elif self._fetched:
                    await self._finish()
                else:
                    self._since_wait = self._waiting_size = 0
                    self._emptied.wake()
                    await _wait(self.changed)
        except anyio.get_cancelled_exc_class():
            self.stop()
            raise
        except BaseException:
            self.fail()
            raise
        return False

    async def _show(self, chunk: T) -> None:
        self.chunks.append(chunk)
        self.data = chunk
        if self._keep is not None and len(self.chunks) > self._keep:
            del self.chunks[0]
            self.dropped += 1
        self.changed.wake()
        await _call(self._callbacks.on_chunk, chunk)

    async def _finish(self) -> None:
        """The stream has ended by itself, and all of it was taken."""
        failure, self._failure = self._failure, None
        try:
            if failure is None:
                self.status = "done"
                self.changed.wake()
                await _call(self._callbacks.on_done, self.chunks)
            elif isinstance(failure, ActionError):
                self._end_in(failure)
                await _call(self._callbacks.on_error, failure)
            else:
                raise failure
        finally:
            del failure

    @property
    def shown(self) -> T:
        """The chunk that `take` has shown."""
        chunk: Any = self.data  # None may be a chunk
        shown: T = chunk
        return shown

    # Its end ---------------------------------------------------------------------------------

    def stop(self) -> None:
        """Nothing more is taken, no callback called, and the connection closed. Where it is over: nothing."""
        if self.status == "streaming":
            self.status = "done"
            self._close()

    def abandon(self, post: Post) -> None:
        """The same from a finalizer, in whichever thread: the loop closes the connection as it runs on."""
        if self.status == "streaming":
            self.status = "done"
            post(self._close)

    def fail(self) -> None:
        """As `stop`, where the program itself has failed."""
        if self.status == "streaming":
            self._end_in(ActionError(STREAM_ERROR, "the program that called the action has failed", 500))

    def _end_in(self, error: ActionError) -> None:
        self.error = error
        self.status = "error"
        self._close()

    def _close(self) -> None:
        self._waiting.clear()
        if self._scope is not None:
            self._scope.cancel()
        self.changed.wake()


async def _wait(signal: Signal) -> None:
    # On asyncio a task that is woken in each turn of the loop is never found waiting to be cancelled.
    await checkpoint_if_cancelled()
    await signal.wait()


async def _call(callback: Callable[[Any], Any] | None, value: Any) -> None:
    if callback is not None:
        answer = callback(value)
        if isawaitable(answer):
            await answer


def raised(error: ActionError) -> ActionError:
    """The same error to be raised: by more than one, so that none adds to the traceback of another."""
    copy = ActionError(error.code, error.message, error.status, field_errors=error.field_errors)
    copy.__cause__ = error.__cause__
    return copy


class Executing(Deferred, Generic[T]):
    """What `execute` gives: to be awaited or iterated, one of them, once.

    Awaited it runs to the end, in this task, and raises no error of the stream. Iterated with `async for` it
    gives the chunks, and raises ActionError; leaving the loop stops the execution.
    """

    __slots__ = ("__weakref__", "_coroutine", "_execution", "_post", "_used")

    _code = Execution.run.__code__

    def __init__(self, execution: Execution[T]) -> None:
        self._execution = execution
        self._post = current_post()
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._used = False

    def _start(self) -> Coroutine[Any, Any, None]:
        if self._used:
            raise RuntimeError("an execution can be awaited or iterated once")
        self._used = True
        self._coroutine = self._execution.run()
        return self._coroutine

    def __aiter__(self) -> _Pass[T]:
        """The chunks of this execution, which a task of the client fetches meanwhile.

        Raises RuntimeError outside of the client's `async with`.
        """
        if self._used:
            raise RuntimeError("an execution can be awaited or iterated once")
        self._used = True
        execution = self._execution
        tasks = execution.host.tasks
        if tasks is None:
            execution.stop()
            raise RuntimeError("iterate over an execution within `async with ActionClient(…) as client`")
        tasks.start_soon(execution.fetch)
        return _Pass(execution, self._post)

    def throw(self, *exc: Any) -> Any:
        if self._coroutine is None:
            self._execution.stop()  # a task that is cancelled before its first step
        return super().throw(*exc)

    def close(self) -> None:
        self._used = True  # given up on purpose: no warning
        if self._coroutine is not None:
            self._coroutine.close()
        self._execution.stop()

    def __del__(self) -> None:
        if not self._used:
            warnings.warn(
                "an execution of an action was neither awaited nor iterated",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )
            self._execution.abandon(self._post)


class _Pass(Generic[T]):
    """The one pass over the chunks of an execution that it runs. Dropped before the end, it stops it."""

    __slots__ = ("_execution", "_post")

    def __init__(self, execution: Execution[T], post: Post) -> None:
        self._execution = execution
        self._post = post

    def __aiter__(self) -> _Pass[T]:
        return self

    async def __anext__(self) -> T:
        execution = self._execution
        if await execution.take():
            return execution.shown
        if execution.error is not None:
            raise raised(execution.error)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop the execution."""
        self._execution.stop()

    def __del__(self) -> None:
        self._execution.abandon(self._post)


class Follower(Generic[T]):
    """A pass over the chunks of an execution that somebody else runs, from its first one."""

    __slots__ = ("_execution", "_find", "_gave_way", "_next")

    def __init__(self, find: Callable[[], Awaitable[Execution[T]]]) -> None:
        """`find` waits for the execution."""
        self._find = find
        self._execution: Execution[T] | None = None
        self._next = 0
        self._gave_way = False

    def __aiter__(self) -> Follower[T]:
        return self

    async def __anext__(self) -> T:
        execution = self._execution
        if execution is None:
            execution = self._execution = await self._find()
        while True:
            self._next = max(self._next, execution.dropped)
            if self._next < execution.dropped + len(execution.chunks):
                if self._next % _TURN == _TURN - 1 and not self._gave_way:
                    self._gave_way = True
                    await checkpoint()
                    continue
                self._gave_way = False
                self._next += 1
                return execution.chunks[self._next - 1 - execution.dropped]
            if execution.error is not None:
                raise raised(execution.error)
            if execution.status != "streaming":
                raise StopAsyncIteration
            await _wait(execution.changed)
