"""Real HTTP servers on a port of their own, within the running event loop: uvicorn and hypercorn.

::

    async with serving(app) as url:
        ...  # http://127.0.0.1:port

On asyncio that is uvicorn, on trio hypercorn; `server="hypercorn"` is hypercorn on either. It owns no test.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator
from typing import Any

import anyio
import hypercorn.asyncio
import hypercorn.config
import hypercorn.trio
import sniffio
import uvicorn

__all__ = ["serving"]

_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02


@contextlib.asynccontextmanager
async def serving(
    app: Any, *, server: str | None = None, host: str = "127.0.0.1", graceful_seconds: float = 3.0
) -> AsyncIterator[str]:
    """Serve an ASGI application; gives its base URL, without a slash at the end.

    When the block is left the server is told to stop, as by a signal, and waited for.

    :param server: "uvicorn" or "hypercorn".
    :param graceful_seconds: what hypercorn then gives the requests that run. uvicorn waits for them.
    """
    loop = sniffio.current_async_library()
    name = server or ("uvicorn" if loop == "asyncio" else "hypercorn")
    if name == "uvicorn":
        assert loop == "asyncio", "uvicorn knows asyncio alone"
        run = _run_uvicorn
    else:
        run = functools.partial(_run_hypercorn, loop, graceful_seconds)
    listener = _listener(host)
    address = f"[{host}]" if ":" in host else host
    url = f"http://{address}:{listener.getsockname()[1]}"
    stop, stopped = anyio.Event(), anyio.Event()

    async def task() -> None:
        try:
            await run(app, listener, stop)
        finally:
            stopped.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(task)
        try:
            yield url
        finally:
            stop.set()
            with anyio.fail_after(_STOP_SECONDS):
                await stopped.wait()


def _listener(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Only of a socket that says so does asyncio know that it is TCP, and turn Nagle's algorithm off.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind((host, 0))
    listener.listen(1024)  # who connects before the server runs waits here
    listener.setblocking(False)
    return listener


class _Uvicorn(uvicorn.Server):
    """As uvicorn runs in a program of its own, but that it looks more often whether it is to stop."""

    async def main_loop(self) -> None:
        await self.on_tick(0)
        while not self.should_exit:
            await asyncio.sleep(_POLL_SECONDS)


async def _run_uvicorn(app: Any, listener: socket.socket, stop: anyio.Event) -> None:
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on")
    server = _Uvicorn(config)

    async def stopper() -> None:
        await stop.wait()
        server.should_exit = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stopper)
        await server.serve(sockets=[listener])
        tasks.cancel_scope.cancel()


async def _run_hypercorn(
    loop: str, graceful_seconds: float, app: Any, listener: socket.socket, stop: anyio.Event
) -> None:
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.graceful_timeout = graceful_seconds
    config.accesslog = None
    config.loglevel = "WARNING"
    serve: Any = hypercorn.trio.serve if loop == "trio" else hypercorn.asyncio.serve
    await serve(app, config, shutdown_trigger=stop.wait)
