"""What the streams of one application belong to: their number, their runs, and the end of the server.

`Streams` lives as long as the application; what outlives a request runs in a task group of its lifespan. It
finds out when uvicorn stops, which tells its application only when every answer has ended: an event stream
would hold it up for ever.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from anyio import CancelScope, create_task_group, sleep
from anyio.abc import TaskGroup
from starlette.types import Receive

from kkrpc_py.web.outlet import Outbox
from kkrpc_py.web.replay import Runs
from kkrpc_py.web.slots import Slots

__all__ = ["Streams", "Visit"]

_POLL_SECONDS = 0.1
_END_SECONDS = 1.0
"""What connections get to take what was sent to them when the server stops."""


class Visit:
    """One request for a stream: what is to happen when its client goes."""

    def __init__(self) -> None:
        self.stop: Callable[[], None] | None = None
        """Tells and cancels the handler, where it runs for this client alone."""
        self.outbox: Outbox | None = None
        """What its connection gets."""
        self._scope: CancelScope | None = None

    def begin(self, tasks: TaskGroup, receive: Receive) -> None:
        """Listen for the end of the connection in a task of `tasks`, all of which end with it."""
        self._scope = tasks.cancel_scope
        tasks.start_soon(self._listen, receive)

    async def _listen(self, receive: Receive) -> None:
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


class Streams:
    """The streams of one application.

    :param most: streams that run at once, those among them whose client is away.
    :param resume_seconds: how long a run with a replay window waits for its client.
    """

    def __init__(self, most: int, resume_seconds: float) -> None:
        self.runs = Runs(resume_seconds, most)
        self.slots = Slots(most, self.runs.give_way)
        self._visits: dict[Visit, Callable[[], None]] = {}
        self._tasks: TaskGroup | None = None
        self._ending = False

    def __len__(self) -> int:
        """Number of the streams: connections, and handlers that go on for a client that is away."""
        return self.slots.taken

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
