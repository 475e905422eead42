"""Channels over WebSockets: `connect_websocket`, `serve_websocket`; how the end of a channel is told there.

Joins `transports.opening` and channels, and owns neither. It needs the extra `websocket`.
"""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import AsyncGenerator, Collection, Mapping
from typing import Any, Protocol, Unpack

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.channel.options import ConnectOptions, ServeOptions
from kkrpc_py.errors import ChannelClosed, KkrpcError, LimitExceeded, ProtocolError
from kkrpc_py.limits import Limits
from kkrpc_py.transports.handshake import LOCAL_HOSTS, Authenticate
from kkrpc_py.transports.items import GOING_AWAY, INTERNAL_ERROR, PROTOCOL_ERROR, TOO_LARGE

__all__ = ["ClosingStream", "connect_websocket", "run_on_websocket", "serve_websocket"]

_EVERYWHERE = ("0.0.0.0", "::")


class ClosingStream(Protocol):
    """A WebSocket that can be told why it is closed."""

    farewell: bool
    failure: KkrpcError | None

    def close_with(self, code: int, reason: str = "") -> None: ...


@contextlib.asynccontextmanager
async def connect_websocket(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    origin: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    open_seconds: float = 10.0,
    ping_seconds: float = 20.0,
    **options: Unpack[ConnectOptions],
) -> AsyncGenerator[RPCChannel]:
    """A channel to the WebSocket at `url`, such as `ws://localhost:8000/ws`; over TLS for `wss:`.

    :param headers: further header fields of the handshake, for the server's authentication.
    :param origin: the Origin to name, for a server that asks for one.
    :param ssl_context: for `wss:`; None: certificates are checked as the system has it.
    :param ping_seconds: a server of which nothing was heard for so long is pinged, and given up after as
        long again (TRN-6).

    Raises ValueError for what is no WebSocket URL; OSError where nobody answers, TimeoutError after
    `open_seconds`; HandshakeRefused, an OSError with the HTTP status, where the server does not agree.
    """
    opening = _opening()
    limits = options.get("limits") or Limits()
    async with opening.connect(
        url,
        headers=headers,
        origin=origin,
        ssl_context=ssl_context,
        open_seconds=open_seconds,
        ping_seconds=ping_seconds,
        frame_bytes=limits.frame,
    ) as stream:
        channel = RPCChannel(stream, **options)
        _join(channel, stream)
        async with channel:
            yield channel


async def serve_websocket(
    api: Any,
    host: str,
    port: int,
    *,
    ssl_context: ssl.SSLContext | None = None,
    origins: Collection[str] = (),
    hosts: Collection[str] | None = None,
    authenticate: Authenticate | None = None,
    ping_seconds: float = 20.0,
    task_status: TaskStatus[list[Any]] = TASK_STATUS_IGNORED,
    **options: Unpack[ServeOptions],
) -> None:
    """Serve `api` on WebSockets until cancelled, a channel for each connection, whatever the path.

    :param host: the address to listen on, without a default; port 0 takes a free one.
    :param origins: whose pages may connect, such as `https://example.org`, besides the same origin; "*": any.
    :param hosts: the names under which clients may reach it (a Host header's, without the port); None: those
        of this machine and `host`; "*": any.
    :param authenticate: sees path, query and headers of the handshake before anything is served; False
        refuses the client with 403. What it puts into `request.state` is the channel's `state`.
    :param ping_seconds: as for `connect_websocket`.

    Started with `TaskGroup.start`, it returns the addresses once it listens. Raises OSError where it cannot.
    """
    opening = _opening()
    limits = options.get("limits") or Limits()
    if hosts is None:
        hosts = (*LOCAL_HOSTS, *(() if host in _EVERYWHERE else (host,)))
    async with opening.listen(
        host,
        port,
        ssl_context=ssl_context,
        hosts=hosts,
        origins=origins,
        authenticate=authenticate,
        ping_seconds=ping_seconds,
        frame_bytes=limits.frame,
    ) as server:
        task_status.started(server.addresses)
        await server.serve(functools.partial(_serve, api, options))


async def _serve(api: Any, options: ServeOptions, stream: Any) -> None:
    await run_on_websocket(api, options, stream, stream.request.state)


async def run_on_websocket(api: Any, options: ServeOptions, stream: Any, state: Any) -> None:
    """Serve `api` on one WebSocket, an `ObjectStream` and a `ClosingStream`, until it is closed."""
    settings: ServeOptions = {"hello": False, **options}
    channel = RPCChannel(stream, expose=api, **settings)
    channel.state = state
    _join(channel, stream)
    async with channel:
        try:
            await channel.wait_closed()
        except anyio.get_cancelled_exc_class():
            stream.close_with(GOING_AWAY, "the server is stopped")
            raise


def _opening() -> Any:
    try:
        from kkrpc_py.transports import opening  # needs `websockets`, which is not always there
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "websockets":
            raise
        raise ModuleNotFoundError(
            "WebSockets need the package websockets: pip install 'kkrpc-py[websocket]'", name=exc.name
        ) from exc
    return opening


def _join(channel: RPCChannel, stream: ClosingStream) -> None:
    """Let the WebSocket's end say what the channel's was, and the other way round."""

    def closing() -> None:
        stream.farewell = channel.connection.stock
        code = _code(channel._error)
        if code is not None:
            stream.close_with(code, str(channel._error))

    async def describe(error: ChannelClosed) -> ChannelClosed:
        if stream.failure is None:
            return error
        return ChannelClosed.because_of(stream.failure)

    channel.when_closed(closing)
    channel.describe_loss(describe)


def _code(error: KkrpcError | None) -> int | None:
    """What the WebSocket is closed with (TRN-4); None: as a matter of course."""
    match error:
        case LimitExceeded():
            return TOO_LARGE
        case ProtocolError():
            return PROTOCOL_ERROR
        case ChannelClosed() | None:
            return None
        case _:
            return INTERNAL_ERROR
