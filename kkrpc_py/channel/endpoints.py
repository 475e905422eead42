"""The ways to a channel: a child process, this process's own stdio, sockets, memory.

This module joins transports and channels and owns neither. The keyword options are those of
`RPCChannel`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import ssl
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias, Unpack

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import ByteStream, TaskStatus

from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.channel.options import ConnectOptions, ServeOptions
from kkrpc_py.errors import ChannelClosed
from kkrpc_py.limits import Limits
from kkrpc_py.transports import sockets
from kkrpc_py.transports.memory import memory_byte_streams
from kkrpc_py.transports.process import Child, StderrTarget, spawn
from kkrpc_py.transports.stdio import open_stdio

__all__ = [
    "connect_tcp",
    "connect_unix",
    "memory_pair",
    "open_process",
    "run_stdio",
    "serve_stdio",
    "serve_tcp",
    "serve_unix",
]

Accept: TypeAlias = Callable[[ByteStream], Awaitable[bool]]
"""Decides whether to serve a connection: False closes it. Addresses are among its extra attributes."""

_log = logging.getLogger("kkrpc_py")

_EXIT_SECONDS = 0.5
"""How long the end of a child's stdout may come before its exit code does."""
_PREAMBLE = b"\n"
"""Ends half a line that was printed before, which would swallow the first message (FRM-12)."""


@contextlib.asynccontextmanager
async def open_process(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stderr: StderrTarget = "log",
    **options: Unpack[ConnectOptions],
) -> AsyncGenerator[RPCChannel]:
    """Start a child process, and talk with it over its stdin and stdout.

    :param env: the child's whole environment; None: this process's.
    :param stderr: "log" (logger `kkrpc_py.child`), "inherit", or a function called with each line.

    At the end of the block the child's stdin is closed, and it has some seconds to exit; then its
    process group is terminated, then killed. Raises OSError where the command cannot be run. What
    is pending when the child ends raises ChannelClosed with its exit code and last lines of stderr.
    """
    async with spawn(command, env=env, cwd=cwd, stderr=stderr) as child:
        channel = RPCChannel(child, **options)
        channel.describe_loss(functools.partial(_describe_exit, child))
        async with channel:
            yield channel


async def _describe_exit(child: Child, error: ChannelClosed) -> ChannelClosed:
    with anyio.move_on_after(_EXIT_SECONDS):
        await child.wait()
    message = "the child process ended" if child.exit_code is not None else error.message
    described = ChannelClosed(message, exit_code=child.exit_code, stderr_tail=child.stderr_tail)
    described.__cause__ = error.__cause__
    return described


async def serve_stdio(api: Any, **options: Unpack[ServeOptions]) -> None:
    """Serve `api` to the parent process over this process's stdin and stdout, until it closes them.

    Moves the protocol off the descriptors 0 and 1 first: what is printed goes to stderr.
    """
    await _serve(open_stdio(), api, preamble=_PREAMBLE, **options)


def run_stdio(api: Any, *, backend: str = "asyncio", **options: Unpack[ServeOptions]) -> None:
    """Serve `api` to the parent process, and return when it has closed the connection.

    The entry point of a child. A handler that does not end with the connection, such as a blocked
    `def`, is left behind: the process ends once the bounds of `Limits` for its cleanup are over.
    """
    run_stream(open_stdio(), api, backend=backend, **options)


def run_stream(
    stream: ByteStream, api: Any, *, backend: str = "asyncio", **options: Unpack[ServeOptions]
) -> None:
    """The same over stdio that `open_stdio` has opened, before the code that makes `api` was imported."""
    limits: Limits = options.get("limits") or Limits()

    timer = threading.Timer(limits.cleanup_seconds + limits.drain_seconds, _exit)
    timer.daemon = True

    async def serve() -> None:
        await _serve(stream, api, preamble=_PREAMBLE, ended=timer.start, **options)

    try:
        anyio.run(serve, backend=backend)
    finally:
        timer.cancel()


def _exit() -> None:
    """End the process: something in it does not end with the connection."""
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    os._exit(1)


async def _serve(
    stream: Any,
    api: Any,
    *,
    preamble: bytes = b"",
    ended: Callable[[], None] | None = None,
    **options: Unpack[ServeOptions],
) -> None:
    settings: ServeOptions = {"hello": False, **options}
    if getattr(stream, "shares_output", False):
        # Stdout and stderr are one: prints come between the frames, which CBOR does not bear (FRM-5).
        settings.setdefault("codec", "json")
    channel = RPCChannel(stream, expose=api, **settings)
    channel.begin_with(preamble)
    async with channel:
        await channel.wait_closed()
        if ended is not None:
            ended()


@contextlib.asynccontextmanager
async def connect_tcp(
    host: str, port: int, *, ssl_context: ssl.SSLContext | None = None, **options: Unpack[ConnectOptions]
) -> AsyncGenerator[RPCChannel]:
    """A channel to a TCP server; with `ssl_context` over TLS. Raises OSError where nobody answers."""
    async with RPCChannel(
        await sockets.connect_tcp(host, port, ssl_context=ssl_context), **options
    ) as channel:
        yield channel


@contextlib.asynccontextmanager
async def connect_unix(
    path: str | os.PathLike[str], **options: Unpack[ConnectOptions]
) -> AsyncGenerator[RPCChannel]:
    """A channel to the server at the Unix socket `path`. Raises OSError where nobody listens."""
    async with RPCChannel(await sockets.connect_unix(path), **options) as channel:
        yield channel


async def serve_tcp(
    api: Any,
    host: str,
    port: int,
    *,
    ssl_context: ssl.SSLContext | None = None,
    accept: Accept | None = None,
    task_status: TaskStatus[list[Any]] = TASK_STATUS_IGNORED,
    **options: Unpack[ServeOptions],
) -> None:
    """Serve `api` on TCP until cancelled, a channel for each connection.

    `host` is the address to listen on and has no default; port 0 takes a free one. Started with
    `TaskGroup.start`, it returns the addresses once it listens. Raises OSError where it cannot.
    """
    async with sockets.listen_tcp(host, port, ssl_context=ssl_context) as server:
        task_status.started(server.addresses)
        await server.serve(functools.partial(_serve_connection, api, accept, options))


async def serve_unix(
    api: Any,
    path: str | os.PathLike[str],
    *,
    accept: Accept | None = None,
    task_status: TaskStatus[list[Any]] = TASK_STATUS_IGNORED,
    **options: Unpack[ServeOptions],
) -> None:
    """Serve `api` on a Unix socket until cancelled, a channel for each connection.

    The socket's file can be opened by this user alone, and is removed at the end. Raises OSError
    where it cannot be made.
    """
    async with sockets.listen_unix(path) as server:
        task_status.started(server.addresses)
        await server.serve(functools.partial(_serve_connection, api, accept, options))


async def _serve_connection(
    api: Any, accept: Accept | None, options: ServeOptions, stream: ByteStream
) -> None:
    if accept is None or await accept(stream):
        await _serve(stream, api, **options)


@contextlib.asynccontextmanager
async def memory_pair(
    api_a: Any = None, api_b: Any = None, **options: Unpack[ServeOptions]
) -> AsyncGenerator[tuple[RPCChannel, RPCChannel]]:
    """Two linked channels in one event loop: `a` exposes `api_a` and calls `api_b`, `b` the other way."""
    stream_a, stream_b = memory_byte_streams()
    async with (
        RPCChannel(stream_a, expose=api_a, **options) as a,
        RPCChannel(stream_b, expose=api_b, **options) as b,
    ):
        yield a, b
