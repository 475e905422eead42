"""The servers: `python -m benchmarks.web.servers KIND LOOP`, each in a process of its own.

It says on stdout which port it listens on, answers each line of its stdin with the seconds of processor time
that it has used, and ends with its stdin.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import msgspec
import uvicorn
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.server import ServerConnection, serve

import kkrpc_py as kk
from benchmarks.loops import LOOPS
from benchmarks.web.workloads import WORKLOADS, Asked

END = "end"
"""The text behind the last chunk of a plain WebSocket, which goes on to the next request."""
LAST_EVENT = b"event: done\ndata: {}\n\n"
_read_asked = msgspec.json.Decoder(Asked).decode
_encode = msgspec.json.Encoder().encode

# kkrpc_py ----------------------------------------------------------------------------------


async def stream(workload: str, count: int) -> AsyncIterator[Any]:
    value, pause = WORKLOADS[workload].value, WORKLOADS[workload].pause
    for i in range(count):
        if pause is not None:
            await pause()
        yield value(i)


@kk.stream_action(input=Asked)
async def action(input: Asked, ctx: kk.ActionContext, out: kk.ActionStream[Any]) -> None:
    value, pause = WORKLOADS[input.workload].value, WORKLOADS[input.workload].pause
    for i in range(input.count):
        if pause is not None:
            await pause()
        await out.send(value(i))


API = {"stream": stream}

# Plain Starlette ---------------------------------------------------------------------------


async def plain_msgspec(request: Request) -> Response:
    asked = _read_asked(await request.body())

    async def events() -> AsyncIterator[bytes]:
        value, pause = WORKLOADS[asked.workload].value, WORKLOADS[asked.workload].pause
        for i in range(asked.count):
            if pause is not None:
                await pause()
            yield b"data: %b\n\n" % _encode(value(i))
        yield LAST_EVENT

    return StreamingResponse(events(), media_type="text/event-stream")


async def plain_json(request: Request) -> Response:
    asked = _read_asked(await request.body())

    async def events() -> AsyncIterator[str]:
        value, pause = WORKLOADS[asked.workload].value, WORKLOADS[asked.workload].pause
        for i in range(asked.count):
            if pause is not None:
                await pause()
            yield f"data: {json.dumps(value(i))}\n\n"
        yield LAST_EVENT.decode()

    return StreamingResponse(events(), media_type="text/event-stream")


async def sse_starlette(request: Request) -> Response:
    asked = _read_asked(await request.body())

    async def events() -> AsyncIterator[dict[str, str]]:
        value, pause = WORKLOADS[asked.workload].value, WORKLOADS[asked.workload].pause
        for i in range(asked.count):
            if pause is not None:
                await pause()
            yield {"data": _encode(value(i)).decode()}
        yield {"event": "done", "data": "{}"}

    return EventSourceResponse(events(), sep="\n")


async def plain_websocket(websocket: WebSocket) -> None:
    await websocket.accept()
    send = websocket.send_text
    async for text in websocket.iter_text():
        asked = _read_asked(text)
        value, pause = WORKLOADS[asked.workload].value, WORKLOADS[asked.workload].pause
        for i in range(asked.count):
            if pause is not None:
                await pause()
            await send(_encode(value(i)).decode())
        await send(END)


# Bare websockets ---------------------------------------------------------------------------


async def bare_websocket(connection: ServerConnection) -> None:
    send = connection.send
    async for text in connection:
        asked = _read_asked(text)
        value, pause = WORKLOADS[asked.workload].value, WORKLOADS[asked.workload].pause
        for i in range(asked.count):
            if pause is not None:
                await pause()
            await send(_encode(value(i)), text=True)
        await send(END)


# Running them ------------------------------------------------------------------------------


def _listener() -> socket.socket:
    # With its protocol named, or asyncio would not set TCP_NODELAY on the connections, as it does for a
    # server that is told a port: each small answer would take 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    listener.setblocking(False)
    return listener


def _listening(port: int) -> None:
    print(port, flush=True)


async def _uvicorn(app: Any) -> None:
    listener = _listener()
    # Without compression, which those who stream chunks of this size would not want either.
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="on", ws_per_message_deflate=False
    )
    _listening(listener.getsockname()[1])  # who connects before it runs waits in the backlog
    await uvicorn.Server(config).serve(sockets=[listener])


async def _kkrpc_asgi() -> None:
    await _uvicorn(kk.asgi_app(API, actions={"stream": action}))


async def _starlette() -> None:
    routes = [
        Route("/msgspec", plain_msgspec, methods=["POST"]),
        Route("/json", plain_json, methods=["POST"]),
        Route("/sse-starlette", sse_starlette, methods=["POST"]),
        WebSocketRoute("/ws", plain_websocket),
    ]
    await _uvicorn(Starlette(routes=routes))


async def _kkrpc(serve: Callable[..., Awaitable[None]]) -> None:
    async def served(*, task_status: Any) -> None:
        await serve(API, "127.0.0.1", 0, task_status=task_status)

    async with anyio.create_task_group() as tasks:
        addresses = await tasks.start(served)
        _listening(addresses[0][1])


async def _websockets() -> None:
    async with serve(bare_websocket, "127.0.0.1", 0, compression=None) as server:
        _listening(next(iter(server.sockets)).getsockname()[1])
        await server.serve_forever()


SERVERS: dict[str, Callable[[], Awaitable[None]]] = {
    "kkrpc-asgi": _kkrpc_asgi,
    "starlette": _starlette,
    "kkrpc-websocket": lambda: _kkrpc(kk.serve_websocket),
    "kkrpc-tcp": lambda: _kkrpc(kk.serve_tcp),
    "websockets": _websockets,
}


def _answer_stdin() -> None:
    # Not by `sys.stdin`, whose lock a thread would hold at the end.
    while os.read(0, 4096):
        print(time.process_time(), flush=True)
    os._exit(0)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    threading.Thread(target=_answer_stdin, daemon=True).start()
    kind, loop = sys.argv[1:]
    anyio.run(SERVERS[kind], **LOOPS[loop])
