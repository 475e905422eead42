"""A server in a process of its own, to be stopped by SIGTERM: `python -m tests.web.stopped_server uvicorn`.

It prints its port, then what becomes of its handlers, a word a line. Warnings are errors in it.
"""

from __future__ import annotations

import signal
import socket
import sys
from typing import Any

import anyio

import kkrpc_py as kk
from kkrpc_py.web.app import asgi_app
from tests.web.servers import serving


def say(word: Any) -> None:
    print(word, flush=True)


async def live(name: str, stream: kk.ActionStream[str]) -> None:
    stream.signal.on_cancel(lambda: say(f"{name} signal"))
    try:
        await stream.send("here")
        await anyio.sleep_forever()
    finally:
        say(f"{name} cleaned")


@kk.stream_action(replay=10)
async def kept(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[str]) -> None:
    await live(f"kept-{input}", stream)


@kk.stream_action()
async def plain(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[str]) -> None:
    await live("plain", stream)


@kk.stream_action()
async def flood(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[str]) -> None:
    say("flood began")
    try:
        while True:
            await stream.send("x" * 10_000)
    finally:
        say("flood cleaned")


def under_uvicorn(app: Any) -> None:
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    say(listener.getsockname()[1])
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
    uvicorn.Server(config).run(sockets=[listener])


async def under_hypercorn(app: Any) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async with serving(app, server="hypercorn", graceful_seconds=0.3) as url:
            say(url.rpartition(":")[2])
            async for _ in signals:
                return


if __name__ == "__main__":
    application = asgi_app(actions=[kept, plain, flood])
    if sys.argv[1] == "uvicorn":
        under_uvicorn(application)
    else:
        anyio.run(under_hypercorn, application, backend=sys.argv[1].removeprefix("hypercorn-"))
