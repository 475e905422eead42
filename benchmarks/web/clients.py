"""The clients: each is a connection, by which one stream is read after the other.

`values` is what a program of that client iterates over. Those that count look at bytes alone: the same reader
for every server, which shows what the servers can do.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import httpx
import msgspec
from anyio.abc import ByteStream
from httpx_sse import aconnect_sse
from websockets.asyncio.client import ClientConnection, connect

import kkrpc_py as kk
from benchmarks.trial import WrongResultError
from benchmarks.web.servers import END, LAST_EVENT
from benchmarks.web.workloads import Asked

_RECEIVE_BYTES = 1 << 16
_KEPT_BYTES = 4096
"""Of what a counting reader has seen: more than a chunk and the end of its stream."""
_CHUNK = re.compile(rb"data: (.*)\n\n")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Reader:
    """Who reads: `read` for how many, `arrivals` for when."""

    def values(self, workload: str, count: int) -> AsyncIterator[Any]:
        raise NotImplementedError

    async def read(self, workload: str, count: int) -> tuple[int, Any]:
        """How many chunks have come, and the last one."""
        received, last = 0, None
        async for last in self.values(workload, count):  # noqa: B007 - the last one is looked at
            received += 1
        return received, last

    async def arrivals(self, workload: str, count: int) -> list[tuple[float, Any]]:
        """Of each chunk when it was at hand, and the chunk."""
        clock = time.perf_counter
        return [(clock(), value) async for value in self.values(workload, count)]


# kkrpc_py ----------------------------------------------------------------------------------


class Channel(Reader):
    def __init__(self, channel: kk.RPCChannel) -> None:
        self._api = channel.remote()

    def values(self, workload: str, count: int) -> AsyncIterator[Any]:
        return aiter(self._api.stream(workload, count))


@contextlib.asynccontextmanager
async def kkrpc_websocket(port: int, path: str) -> AsyncGenerator[Reader]:
    async with kk.connect_websocket(f"ws://127.0.0.1:{port}{path}") as channel:
        await channel.ready()
        yield Channel(channel)


@contextlib.asynccontextmanager
async def kkrpc_tcp(port: int, path: str) -> AsyncGenerator[Reader]:
    async with kk.connect_tcp("127.0.0.1", port) as channel:
        await channel.ready()
        yield Channel(channel)


def _http() -> httpx.AsyncClient:
    """The same for both that use it: as many connections as there are streams, kept for the next ones."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(timeout=None, limits=limits, trust_env=False)


class Action(Reader):
    def __init__(self, client: kk.ActionClient, name: str) -> None:
        self._client = client
        self._name = name

    def values(self, workload: str, count: int) -> AsyncIterator[Any]:
        return aiter(self._client.stream(self._name, keep=1).execute(Asked(workload, count)))


@contextlib.asynccontextmanager
async def action_client(port: int, path: str) -> AsyncGenerator[Reader]:
    folder, _, name = path.rpartition("/")
    async with _http() as http, kk.ActionClient(f"http://127.0.0.1:{port}{folder}", http=http) as client:
        yield Action(client, name)


# httpx-sse ---------------------------------------------------------------------------------


class HttpxSse(Reader):
    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url

    async def values(self, workload: str, count: int) -> AsyncIterator[Any]:
        headers = {"Content-Type": "application/json"}
        body = _encode(Asked(workload, count))
        async with aconnect_sse(self._http, "POST", self._url, content=body, headers=headers) as source:
            source.response.raise_for_status()
            done = False
            async for event in source.aiter_sse():
                if event.event == "message":
                    yield _decode(event.data)
                else:
                    done = event.event == "done"
        if not done:
            raise WrongResultError("the stream did not end as it should")


@contextlib.asynccontextmanager
async def httpx_sse(port: int, path: str) -> AsyncGenerator[Reader]:
    async with _http() as http:
        yield HttpxSse(http, f"http://127.0.0.1:{port}{path}")


# Bytes of event streams --------------------------------------------------------------------


class RawEvents(Reader):
    """Counts empty lines in what a socket gives, and decodes the last chunk alone."""

    def __init__(self, stream: ByteStream, path: str) -> None:
        self._stream = stream
        self._path = path

    async def _blocks(self, workload: str, count: int) -> AsyncIterator[tuple[bytes, bytes]]:
        """The end of what came before, and what has come, until the stream has ended."""
        body = _encode(Asked(workload, count))
        await self._stream.send(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (self._path.encode(), len(body), body)
        )
        head, receive = b"", self._stream.receive
        while b"\r\n\r\n" not in head:
            head += await receive(_RECEIVE_BYTES)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise WrongResultError(f"the server answered {head[:100]!r}")
        kept, data = b"", head.partition(b"\r\n\r\n")[2]
        while True:
            if data:
                yield kept, data
            kept = (kept + data)[-_KEPT_BYTES:]
            if kept.endswith(b"\r\n0\r\n\r\n"):  # the last piece of a chunked body
                return
            data = await receive(_RECEIVE_BYTES)

    async def read(self, workload: str, count: int) -> tuple[int, Any]:
        events, tail = 0, b""
        async for kept, data in self._blocks(workload, count):
            events += data.count(b"\n\n") + (kept[-1:] == b"\n" == data[:1])
            tail = (kept + data)[-_KEPT_BYTES:]
        before, end, _ = tail.rpartition(LAST_EVENT)
        if not end:
            raise WrongResultError("the stream did not end as it should")
        return events - 1, _last_chunk(before)

    async def arrivals(self, workload: str, count: int) -> list[tuple[float, Any]]:
        found: list[tuple[float, Any]] = []
        clock = time.perf_counter
        whole = b""
        async for _, data in self._blocks(workload, count):
            now = clock()
            whole += data
            chunks = _CHUNK.findall(whole.partition(LAST_EVENT)[0])
            found += [(now, _decode(chunk)) for chunk in chunks[len(found) :]]
        return found


def _last_chunk(events: bytes) -> Any:
    return _decode(events.rpartition(b"data: ")[2].partition(b"\n")[0])


@contextlib.asynccontextmanager
async def raw_events(port: int, path: str) -> AsyncGenerator[Reader]:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        yield RawEvents(stream, path)


# Bare websockets ---------------------------------------------------------------------------


class Decoding(Reader):
    """The client of a plain endpoint: a message is a chunk."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def values(self, workload: str, count: int) -> AsyncIterator[Any]:
        receive = self._connection.recv
        await self._connection.send(_encode(Asked(workload, count)), text=True)
        while (message := await receive(decode=False)) != END.encode():
            yield _decode(message)


class Counting(Reader):
    """The same, which decodes the last chunk alone."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def read(self, workload: str, count: int) -> tuple[int, Any]:
        receive, end = self._connection.recv, END.encode()
        await self._connection.send(_encode(Asked(workload, count)), text=True)
        received, last = 0, b"null"
        while (message := await receive(decode=False)) != end:
            received += 1
            last = message
        return received, _decode(last)


class CountingFrames(Counting):
    """Counts the frames of a kkrpc_py server, to which it is a stock peer: each is a chunk, or an answer."""

    async def read(self, workload: str, count: int) -> tuple[int, Any]:
        receive = self._connection.recv
        call = {"id": "1", "method": "stream", "args": [workload, count], "type": "request"}
        await self._connection.send(_encode(call) + b"\n", text=True)
        frames, kept = 0, b""
        while b'"stream-end"' not in kept:
            message = await receive(decode=False)
            frames += message.count(b"\n")
            kept = kept[-_KEPT_BYTES:] + message[-_KEPT_BYTES:]
        chunk = _decode(kept.splitlines()[-2])
        return frames - 2, chunk["args"]["value"]


Opener = Callable[[int, str], AbstractAsyncContextManager[Reader]]
"""Connects to a port and a path."""


def _bare(reader: Callable[[ClientConnection], Reader]) -> Opener:
    @contextlib.asynccontextmanager
    async def opened(port: int, path: str) -> AsyncGenerator[Reader]:
        # Compression would cost most of the time; nobody else here has it.
        async with connect(f"ws://127.0.0.1:{port}{path}", compression=None, proxy=None) as connection:
            yield reader(connection)

    return opened


decoding, counting, counting_frames = _bare(Decoding), _bare(Counting), _bare(CountingFrames)
