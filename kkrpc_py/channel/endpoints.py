"""The ways to a channel: a child process, this process's own stdio, sockets, memory.

This module joins transports and channels and owns neither. The keyword options are those of
`RPCChannel`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

import anyio

from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.errors import ChannelClosed
from kkrpc_py.limits import Limits
from kkrpc_py.transports.memory import memory_byte_streams
from kkrpc_py.transports.process import Child, StderrTarget, spawn
from kkrpc_py.transports.stdio import open_stdio

__all__ = ["memory_pair", "open_process", "run_stdio", "serve_stdio"]

_log = logging.getLogger("kkrpc_py")

_EXIT_SECONDS = 0.5
"""How long the end of a child's stdout may come before its exit code does."""
_PREAMBLE = b"\n"
"""Ends half a line that was printed before, which would swallow the first message (FRM-5)."""


@contextlib.asynccontextmanager
async def open_process(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stderr: StderrTarget = "log",
    **options: Any,
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
    return ChannelClosed(message, exit_code=child.exit_code, stderr_tail=child.stderr_tail)


async def serve_stdio(api: Any, **options: Any) -> None:
    """Serve `api` to the parent process over this process's stdin and stdout, until it closes them.

    Moves the protocol off the descriptors 0 and 1 first: what is printed goes to stderr.
    """
    await _serve(open_stdio(), api, preamble=_PREAMBLE, **options)


def run_stdio(api: Any, *, backend: str = "asyncio", **options: Any) -> None:
    """Serve `api` to the parent process, and return when it has closed the connection.

    The entry point of a child. A handler that does not end with the connection, such as a blocked
    `def`, is left behind: the process ends once the bounds of `Limits` for its cleanup are over.
    """
    stream = open_stdio()
    limits: Limits = options.get("limits") or Limits()

    async def serve() -> None:
        ended = functools.partial(_exit_after, limits.cleanup_seconds + limits.drain_seconds)
        await _serve(stream, api, preamble=_PREAMBLE, ended=ended, **options)

    anyio.run(serve, backend=backend)


def _exit_after(seconds: float) -> None:
    """End the process in `seconds` whatever still runs in it; ending by itself before is as good."""

    def end() -> None:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


async def _serve(
    stream: Any, api: Any, *, preamble: bytes = b"", ended: Callable[[], None] | None = None, **options: Any
) -> None:
    options.setdefault("hello", False)
    channel = RPCChannel(stream, expose=api, **options)
    channel.begin_with(preamble)
    async with channel:
        await channel.wait_closed()
        if ended is not None:
            ended()


@contextlib.asynccontextmanager
async def memory_pair(
    api_a: Any = None, api_b: Any = None, **options: Any
) -> AsyncGenerator[tuple[RPCChannel, RPCChannel]]:
    """Two linked channels in one event loop: `a` exposes `api_a` and calls `api_b`, `b` the other way."""
    stream_a, stream_b = memory_byte_streams()
    async with (
        RPCChannel(stream_a, expose=api_a, **options) as a,
        RPCChannel(stream_b, expose=api_b, **options) as b,
    ):
        yield a, b
