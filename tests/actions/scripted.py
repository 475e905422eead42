"""An HTTP server whose every byte a test decides, on a real socket.

::

    async with scripted(play) as server:
        ...  # server.url; `await play(visit)` runs once for each connection

It knows as much of HTTP as it takes to read a request.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketStream

from kkrpc_py.actions.client import ActionClient

__all__ = ["SECONDS", "STREAM", "Scripted", "Visit", "event", "scripted", "served", "until"]

SECONDS = 20.0
"""What a test may wait for anything; far above what any takes."""

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(data: Any, *, kind: str = "", id: str = "") -> bytes:
    """One event, as a server writes it."""
    head = (f"event: {kind}\n" if kind else "") + (f"id: {id}\n" if id else "")
    return f"{head}data: {json.dumps(data)}\n\n".encode()


class Visit:
    """One request, on a connection of its own."""

    def __init__(self, stream: SocketStream, head: bytes) -> None:
        self.stream = stream
        line, *headers = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = line.split(" ")
        self.headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (each.partition(":") for each in headers)
        }
        self.body = b""

    @property
    def input(self) -> Any:
        return json.loads(self.body)

    async def send(self, data: bytes) -> None:
        """These bytes, as they are."""
        await self.stream.send(data)

    async def chunk(self, data: bytes) -> None:
        """These bytes as one chunk of a chunked body."""
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def open(self) -> None:
        """The head of an answer that is a stream."""
        await self.send(STREAM)

    async def end(self) -> None:
        """The last chunk of the body."""
        await self.send(b"0\r\n\r\n")

    async def answer(self, status: str, body: bytes = b"", *headers: str) -> None:
        """A whole answer; `status` is such as "404 Not Found"."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def stream_of(self, *events: bytes) -> None:
        """A whole stream, and the event at its end."""
        await self.open()
        await self.chunk(b"".join(events) + event({}, kind="done"))
        await self.end()

    async def gone(self) -> None:
        """Wait until the client has closed the connection."""
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                await self.stream.receive()


class Scripted:
    """The server, as the test sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.visits: list[Visit] = []
        self.open = 0
        """Connections that the client has not closed."""


async def _request(stream: SocketStream) -> Visit | None:
    """The request, read whole; None: the client has left before its end."""
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            data += await stream.receive()
        head, _, body = data.partition(b"\r\n\r\n")
        visit = Visit(stream, head)
        while len(body) < int(visit.headers.get("content-length", "0")):
            body += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return None
    visit.body = body
    return visit


@contextlib.asynccontextmanager
async def scripted(play: Callable[[Visit], Awaitable[None]], port: int = 0) -> AsyncIterator[Scripted]:
    """Run the server. A connection is closed when `play` has returned; what it raises fails the test."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    port = listener.extra(SocketAttribute.local_port)
    server = Scripted(f"http://127.0.0.1:{port}/actions")

    async def serve(stream: SocketStream) -> None:
        async with stream:
            visit = await _request(stream)
            if visit is None:
                return
            server.visits.append(visit)
            server.open += 1
            try:
                await play(visit)
            finally:
                server.open -= 1

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        try:
            yield server
        finally:
            tasks.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def served(
    play: Callable[[Visit], Any], **options: Any
) -> AsyncIterator[tuple[ActionClient, Scripted]]:
    """A client and its server; nothing of an execution is left in the end."""
    with anyio.fail_after(SECONDS):
        async with scripted(play) as server:
            async with ActionClient(server.url, **options) as client:
                yield client, server
            assert client._host.running == set()
            await until(lambda: server.open == 0)


async def until(there: Callable[[], bool]) -> None:
    with anyio.fail_after(SECONDS):
        while not there():
            await anyio.sleep(0.001)
