"""What the streams of one application belong to: their number, their runs, and the end of the server.

`Streams` lives as long as the application; what outlives a request runs in a task group of its lifespan. It
finds out when uvicorn stops, which tells its application only when every answer has ended: an event stream
would hold it up for ever.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from anyio import CancelScope, Event, create_task_group, move_on_after, sleep
from anyio.abc import TaskGroup
from starlette.types import Receive

from kkrpc_py.errors import ActionError
from kkrpc_py.web.answers import TOO_MANY_STREAMS
from kkrpc_py.web.outlet import Outbox
from kkrpc_py.web.replay import Runs

__all__ = ["Slot", "Streams", "Visit"]

_log = logging.getLogger("kkrpc_py.web")

_POLL_SECONDS = 0.1
_END_SECONDS = 1.0
"""What connections get to take what was sent to them when the server stops."""
_WAY_SECONDS = 1.0


def _nothing() -> None:
    pass


class Slot:
    """One of the streams that may run at once, or none."""

    __slots__ = ("_release",)

    def __init__(self, release: Callable[[], None] = _nothing) -> None:
        self._release = release

    def release(self) -> None:
        """Give it back; once more does nothing, nor after `pass_on`."""
        self.pass_on()()

    def pass_on(self) -> Callable[[], None]:
        """What gives it back, for who keeps it longer."""
        release, self._release = self._release, _nothing
        return release


class Visit:
    """One request for a stream: what is to happen when its client goes."""

    def __init__(self) -> None:
        self.stop: Callable[[], None] | None = None
        """Tells and cancels the handler, where it runs for this client alone."""
        self.outbox: Outbox | None = None
        """What its connection gets."""
        self._scope: CancelScope | None = None
        self._listening = CancelScope()

    def begin(self, tasks: TaskGroup, receive: Receive) -> None:
        """Listen for the end of the connection in a task of `tasks`, all of which end with it."""
        self._scope = tasks.cancel_scope
        tasks.start_soon(self._listen, receive)

    async def _listen(self, receive: Receive) -> None:
        with self._listening:
            while (await receive())["type"] != "http.disconnect":
                pass
            # To servers an answer that has gone out is the end of it as well.
            if self.outbox is None or not self.outbox.finishing:
                self.gone()

    def gone(self) -> None:
        """The client is gone: tell the handler, then stop everything."""
        if self.stop is not None:
            self.stop()
        if self._scope is not None:
            self._scope.cancel()

    def complete(self) -> None:
        """The answer has gone out; the handler may still be tidying up."""
        self._listening.cancel()


class Streams:
    """The streams of one application.

    :param most: streams that run at once, those among them whose client is away.
    :param resume_seconds: how long a run with a replay window waits for its client.
    """

    def __init__(self, most: int, resume_seconds: float) -> None:
        self.runs = Runs(resume_seconds, most)
        self._most = most
        self._taken = 0
        self._released = Event()
        self._visits: dict[Visit, Callable[[], None]] = {}
        self._tasks: TaskGroup | None = None
        self._ending = False

    def __len__(self) -> int:
        """Number of the streams that run, are about to, or are tidying up."""
        return self._taken

    @property
    def tasks(self) -> TaskGroup:
        """For what outlives a request. Raises RuntimeError where nobody runs the application's lifespan."""
        if self._tasks is None:
            raise RuntimeError(
                "an action with a replay window needs the lifespan of its application, and nobody runs it. "
                "An application that is mounted in another one has to be entered by the outer lifespan: "
                "`async with inner.router.lifespan_context(inner): …`"
            )
        return self._tasks

    @asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncGenerator[None]:
        """The application's lifespan: nothing of its runs is left behind."""
        async with create_task_group() as tasks:
            self._ending = False
            tasks.start_soon(self.runs.expire)
            tasks.start_soon(self._end_with_the_server)
            self._tasks = tasks
            try:
                yield
            finally:
                self._tasks = None
                self.end()
                tasks.cancel_scope.cancel()

    def end(self) -> None:
        """End every stream, those to come among them, so that the server can stop.

        Found out by itself where uvicorn handles signals, and where a server cancels what runs.
        """
        self._ending = True
        self.runs.stop()
        for end in list(self._visits.values()):
            end()

    # Slots -----------------------------------------------------------------------------------

    async def slot(self) -> Slot:
        """One of the streams that may run at once. Raises ActionError: TOO_MANY_STREAMS."""
        if self._taken >= self._most and self.runs.give_way():
            with move_on_after(_WAY_SECONDS):
                while self._taken >= self._most:
                    self._released = Event()
                    await self._released.wait()
        if self._taken >= self._most:
            raise ActionError(TOO_MANY_STREAMS, "Too many streams at once", 503)
        self._taken += 1
        return Slot(self._release)

    def _release(self) -> None:
        self._taken -= 1
        self._released.set()

    # Visits ----------------------------------------------------------------------------------

    def opens(self, visit: Visit, end: Callable[[], None]) -> None:
        """A stream opens, which `end` ends in a way that what was sent still goes out."""
        self._visits[visit] = end
        if self._ending:
            end()

    def leave(self, visit: Visit) -> None:
        """It is over, and so is what its handler did afterwards."""
        self._visits.pop(visit, None)

    # The end of the server -------------------------------------------------------------------

    async def _end_with_the_server(self) -> None:
        server = _uvicorn()
        if server is None:
            return
        while not server.should_exit:  # noqa: ASYNC110  (uvicorn has no event for it)
            await sleep(_POLL_SECONDS)
        self.end()
        await sleep(_END_SECONDS)
        for visit in list(self._visits):
            visit.gone()


def _uvicorn() -> Any:
    """The uvicorn server that starts this application; None under another one, or if it handles no signals.

    It tells nobody that it stops before all answers have ended. But it is the one who handles signals, and
    while it starts an application its handlers are in place.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        server = getattr(signal.getsignal(number), "__self__", None)
        if type(getattr(server, "should_exit", None)) is bool:
            return server
    return None
