"""`EventStreamResponse`: the answer that is an event stream (SSE-2, SSE-6, SSE-7).

It owns the headers, what goes into one ASGI message, comments, and the client that does not read. Which
events there are is the `Outbox`'s business; whether the client is still there is found by who calls this.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from anyio import current_time, sleep
from anyio.abc import TaskGroup
from sse_starlette.sse import EventSourceResponse
from starlette.types import Receive, Scope, Send

from kkrpc_py.web.outlet import Outbox

__all__ = ["SEND_SECONDS", "EventStreamResponse"]

SEND_SECONDS: Final = 60.0
"""How long the server may take for a batch before the client counts as gone: it does not read."""
# RFC 9113, 8.2.2: there is no such header any more.
_WITH_CONNECTION_HEADER = ("1.0", "1.1")


class EventStreamResponse(EventSourceResponse):
    """sse-starlette's response, with its headers and its answer to HEAD, and a life of its own.

    sse-starlette's writes each event by itself, pings whether or not it is quiet, and starts a task that
    nobody waits for, to find out whether uvicorn is about to stop. Here events that are ready together leave
    together, and `streams` knows when the server stops.

    :param tasks: where it looks after its client, until its owner cancels them.
    :param keep_alive: seconds of silence after which a comment is sent; None sends none.
    :param on_stuck: called when the client has not read for `send_seconds`.
    """

    def __init__(
        self,
        outbox: Outbox,
        tasks: TaskGroup,
        *,
        keep_alive: float | None,
        send_seconds: float,
        on_stuck: Callable[[], None],
    ) -> None:
        super().__init__(iter(()), sep="\n", ping=keep_alive or 0, send_timeout=send_seconds)
        self._outbox = outbox
        self._tasks = tasks
        self._on_stuck = on_stuck
        self._quiet_seconds = keep_alive or math.inf
        self._send_seconds = send_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write events until the last one; `receive` is left alone.

        Raises OSError where that is the server's way to say that the client is gone.
        """
        if scope["http_version"] not in _WITH_CONNECTION_HEADER:
            self.raw_headers = [each for each in self.raw_headers if each[0] != b"connection"]
        if scope["method"] == "HEAD":
            await super().__call__(scope, receive, send)
            return
        self._tasks.start_soon(self._mind)
        outbox = self._outbox
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        last = False
        while not last:
            batch, last = await outbox.take()
            await send({"type": "http.response.body", "body": batch, "more_body": not last})
            outbox.landed()

    async def _mind(self) -> None:
        """Look after silence, and after a client that does not read; on time for both."""
        outbox = self._outbox
        while True:
            waited = current_time() - outbox.since
            if outbox.in_flight:
                if waited >= self._send_seconds:
                    self._on_stuck()
                    return
                pause = min(self._quiet_seconds, self._send_seconds - waited)
            elif waited >= self._quiet_seconds:
                outbox.keep_alive()
                pause = self._quiet_seconds
            else:
                pause = self._quiet_seconds - waited
            await sleep(min(pause, self._send_seconds))
