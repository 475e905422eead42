"""The WebSocket of an ASGI application: a channel for each connection.

Owns the ASGI side: who is accepted (TRN-7), items, and codes of closing (TRN-4). Frames, pings and sizes of
messages are the server's, uvicorn's or hypercorn's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import anyio
from anyio.abc import ObjectStream
from anyio.lowlevel import cancel_shielded_checkpoint
from starlette.types import Receive, Scope, Send

from kkrpc_py.channel.options import ServeOptions
from kkrpc_py.channel.websockets import run_on_websocket
from kkrpc_py.errors import ActionError, KkrpcError, LimitExceeded
from kkrpc_py.limits import Limits
from kkrpc_py.transports.handshake import Authenticate, HandshakeRequest, ask_hook, check_hook
from kkrpc_py.transports.items import (
    FAREWELL,
    ITEM_BYTES,
    NO_CODE,
    NORMAL,
    TOO_LARGE,
    items_of,
    line_of,
    peer_closed,
    short_reason,
    went_well,
)
from kkrpc_py.web.answers import refuse_socket
from kkrpc_py.web.guards import request_of

__all__ = ["SocketEndpoint"]

_CLOSE_SECONDS = 1.5
"""What the server may take to say goodbye."""


class SocketEndpoint:
    """An ASGI application for the scope "websocket", behind the `Guard`, who has judged Host and Origin."""

    def __init__(
        self,
        api: Any,
        options: ServeOptions,
        authenticate: Authenticate | None,
    ) -> None:
        check_hook(authenticate)
        self._api = api
        self._options = options
        self._authenticate = authenticate
        limits: Limits = options.get("limits") or Limits()
        self._most = limits.frame + ITEM_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # that somebody wants to connect
        request = request_of(scope)
        if self._authenticate is not None:
            judged = await self._judged(self._authenticate, request, receive)
            if judged is None:
                return
            if judged.refusal is not None:
                await refuse_socket(judged.refusal, scope, send)
                return
        await send({"type": "websocket.accept"})
        stream = _AsgiStream(receive, send, request, self._most)
        await run_on_websocket(self._api, self._options, stream, request.state)

    async def _judged(
        self, authenticate: Authenticate, request: HandshakeRequest, receive: Receive
    ) -> _Judgement | None:
        """What is to be said to the client; None where it has gone before that."""
        judgement: _Judgement | None = None
        async with anyio.create_task_group() as tasks:

            async def gone() -> None:
                await receive()  # before it is accepted a client has nothing else to say
                tasks.cancel_scope.cancel()

            tasks.start_soon(gone)
            judgement = _Judgement(await ask_hook(authenticate, request))
            tasks.cancel_scope.cancel()
        return judgement


class _Judgement(NamedTuple):
    """What has become of a handshake."""

    refusal: ActionError | None


class _AsgiStream(ObjectStream[bytes]):
    """An accepted WebSocket. Each item is a message; as `transports.websocket.WebSocketStream` is."""

    half_closes = False

    def __init__(self, receive: Receive, send: Send, request: HandshakeRequest, most: int) -> None:
        self.headers = request.headers
        self.request = request
        self.client = request.client
        self.farewell = False
        self.failure: KkrpcError | None = None
        self._receive = receive
        self._send = send
        self._most = most
        self._code, self._reason = NORMAL, ""
        self._end: tuple[type[Exception], str] | None = None
        self._gone = False
        """The server takes nothing more: the client has gone, or a message was cut."""
        self._closed = False

    def close_with(self, code: int, reason: str = "") -> None:
        """What `aclose` is to tell the peer; of several calls the first one counts."""
        if self._code == NORMAL:
            self._code, self._reason = code, short_reason(reason)

    async def receive(self) -> bytes:
        """The next message. Raises as `WebSocketStream.receive` does."""
        if self._closed:
            raise anyio.ClosedResourceError
        if self._end is None:
            item = self._taken(await self._receive())
            if item is not None:
                return item
        assert self._end is not None
        kind, text = self._end
        raise kind(text) if text else kind

    def _taken(self, event: Any) -> bytes | None:
        """The item that an event of the server brings; None: it is the end."""
        if event["type"] != "websocket.receive":
            self._gone = True
            code = event.get("code", NO_CODE)
            if went_well(code):
                self._end = anyio.EndOfStream, ""
            else:
                self._end = anyio.BrokenResourceError, peer_closed(code, event.get("reason") or "")
            return None
        text = event.get("text")
        data: bytes = event["bytes"] if text is None else text.encode()
        if len(data) > self._most:
            self.failure = LimitExceeded(
                f"a WebSocket message of {len(data)} bytes; {self._most} are allowed"
            )
            self.close_with(TOO_LARGE, "the message is too large")
            self._end = anyio.BrokenResourceError, str(self.failure)
            return None
        if text is None:
            return data
        if data == FAREWELL:
            self._end = anyio.EndOfStream, ""
            return None
        return line_of(data)

    async def send(self, item: bytes) -> None:
        """Send one message. Raises `anyio.BrokenResourceError`, `ClosedResourceError`."""
        await self.send_frames([item])

    async def send_frames(self, frames: Sequence[bytes]) -> None:
        """Send whole frames, in as few messages as they fit into. A cancelled send is the last one."""
        if self._closed:
            raise anyio.ClosedResourceError
        if self._gone:
            raise anyio.BrokenResourceError
        try:
            for text, data in items_of(frames):
                if text:
                    await self._send({"type": "websocket.send", "text": data.decode()})
                else:
                    await self._send({"type": "websocket.send", "bytes": data})
        except OSError as exc:
            self._gone = True
            raise anyio.BrokenResourceError from exc
        except BaseException:
            self._gone = True
            raise

    async def send_eof(self) -> None:
        """Close: a WebSocket cannot end one direction alone."""
        await self.aclose()

    async def aclose(self) -> None:
        """Have the server close the WebSocket."""
        if self._closed or self._gone:
            self._closed = True
            await cancel_shielded_checkpoint()
            return
        self._closed = True
        with anyio.move_on_after(_CLOSE_SECONDS):
            try:
                if self.farewell:
                    await self._send({"type": "websocket.send", "text": FAREWELL.decode()})
                await self._send({"type": "websocket.close", "code": self._code, "reason": self._reason})
            except (OSError, RuntimeError):  # the client was faster; servers say so in one of these ways
                self._gone = True
