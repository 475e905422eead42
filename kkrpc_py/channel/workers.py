"""The tasks that run the peer's calls.

A task costs ten times what a small handler does, so a worker takes one job after another, each
in a context of its own. It looks for the next job as long as its jobs finish without
suspending; when one is about to suspend, other workers take over the queue. A job is cancelled
by the worker's scope, and the worker ends with it: scopes too are paid for once.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from kkrpc_py.channel.parking import Parking, Signal
from kkrpc_py.channel.steps import finish

__all__ = ["Job", "WorkerPool"]

_MAX_IDLE = 64
"""Workers kept waiting for the next job."""
_SUCCESSORS = 8
"""Workers that take over from one that suspends: a thousand streams have begun after a few turns of the
loop, and the first of them is not far ahead; a few are woken in vain where the next jobs are quick."""
_TURN = 64
"""Jobs after which a worker lets the other tasks of the loop run."""


class Job(Protocol):
    """What a worker runs."""

    scope: anyio.CancelScope | None
    """Set by the worker before `run`: cancels this job."""

    def run(self) -> Coroutine[Any, Any, None]:
        """Raises only the cancellation that came through `scope`."""
        ...

    def discard(self) -> None:
        """It will not run: the pool is closed."""
        ...


class _Worker:
    __slots__ = ("looking", "place", "pool", "scope")

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self.scope = anyio.CancelScope(shield=True)
        self.looking = True
        """It takes the next job as soon as it runs."""
        self.place: Any = None
        """Where it waits while it has nothing to do."""

    def on_suspend(self) -> None:
        if self.looking:
            self.pool.hand_over(self)


class WorkerPool:
    """Runs jobs in tasks of `task_group`, which begin in the order in which they were submitted.

    The tasks end by `close` alone and not by an outer cancellation: how a channel ends is decided
    in one place.
    """

    def __init__(self, task_group: TaskGroup, parking: Parking) -> None:
        self._task_group = task_group
        self._parking = parking
        self._jobs: deque[Job] = deque()
        self._idle: list[_Worker] = []
        self._looking = 0
        self._workers: set[_Worker] = set()
        self._closed = False
        self._running = 0
        self._changed = Signal(parking)

    def submit(self, job: Job) -> None:
        if self._closed:
            return
        self._jobs.append(job)
        if not self._looking:
            self._look()

    @property
    def all_begun(self) -> bool:
        """No job waits for a worker."""
        return not self._jobs

    def close(self) -> None:
        """Cancel every job that runs, and forget those that have not begun."""
        self._closed = True
        for job in self._jobs:
            job.discard()
        self._jobs.clear()
        for worker in self._workers:
            worker.scope.cancel()

    async def finished(self) -> None:
        """Wait until no job runs and none waits."""
        while self._running or self._jobs:
            await self._changed.wait()

    async def ended(self) -> None:
        """Wait until every worker has ended; after `close`."""
        while self._workers:
            await self._changed.wait()

    def _look(self) -> None:
        """Make one more worker look at the queue."""
        self._looking += 1
        if self._idle:
            worker = self._idle.pop()
            worker.looking = True
            self._parking.wake(worker.place)
        else:
            worker = _Worker(self)
            self._workers.add(worker)
            self._task_group.start_soon(self._work, worker, name="kkrpc_py worker")

    def hand_over(self, worker: _Worker) -> None:
        """`worker` is about to suspend, or to end: others look at what is queued."""
        worker.looking = False
        self._looking -= 1
        for _ in range(min(_SUCCESSORS, len(self._jobs) - self._looking)):
            self._look()

    async def _work(self, worker: _Worker) -> None:
        scope = worker.scope
        try:
            with scope:
                turns = 0
                while not self._closed:
                    while self._jobs and not scope.cancel_called:
                        job = self._jobs.popleft()
                        job.scope = scope
                        run: Any = contextvars.copy_context().run
                        step = job.run()
                        self._running += 1
                        try:
                            trap: Any = run(step.send, None)
                        except StopIteration:
                            pass
                        else:
                            await finish(step, trap, worker.on_suspend, run)
                        finally:
                            self._running -= 1
                            self._changed.wake()
                        del job, run, step  # and what they hold, before the wait for the next
                        trap = None
                        turns += 1
                        if turns % _TURN == 0:
                            await checkpoint()
                    if scope.cancel_called or len(self._idle) >= _MAX_IDLE:
                        return
                    if worker.looking:
                        worker.looking = False
                        self._looking -= 1
                    worker.place = self._parking.new()
                    self._idle.append(worker)
                    await worker.place
        except anyio.get_cancelled_exc_class():
            # Aimed at this task by a handler that has answered since (`task.cancel()` on asyncio):
            # the worker ends, and nobody else is concerned.
            if scope.cancel_called:
                raise
        finally:
            self._workers.discard(worker)
            self._changed.wake()
            if worker in self._idle:
                self._idle.remove(worker)
            if worker.looking and not self._closed:
                self.hand_over(worker)
