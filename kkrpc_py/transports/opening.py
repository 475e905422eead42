"""How a WebSocket is opened: the client's handshake, and the server's, which judges before it agrees.

Owns the HTTP part (RFC 6455, section 4), its bounds in bytes and seconds, and the life of a connection's
tasks. Sockets and TLS are those of `transports.sockets`; the open connection is `transports.websocket`'s.
"""

from __future__ import annotations

import contextlib
import http
import json
import logging
import re
import ssl
import urllib.parse
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from typing import Any, Final

import anyio
from anyio.abc import ByteStream, SocketAttribute
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus, InvalidURI
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.uri import WebSocketURI, parse_uri

from kkrpc_py.errors import ActionError
from kkrpc_py.transports import sockets
from kkrpc_py.transports.descriptors import DescriptorStream
from kkrpc_py.transports.handshake import (
    LOCAL_HOSTS,
    Authenticate,
    HandshakeRefused,
    HandshakeRequest,
    check_hook,
    check_names,
    headers_of,
    judge,
)
from kkrpc_py.transports.items import ITEM_BYTES
from kkrpc_py.transports.websocket import WebSocketStream

__all__ = ["HANDSHAKE_SECONDS", "WebSocketServer", "connect", "listen"]

HANDSHAKE_SECONDS: Final = 10.0
"""What a client has for its handshake, the server's authentication hook included."""
HANDSHAKE_BYTES: Final = 64 * 1024
"""Bytes of a handshake, in either direction; a longer one is refused."""
LINGER_SECONDS: Final = 0.5
"""How long a client that was refused may read why before the connection is cut."""

_READ_BYTES: Final = 64 * 1024
_END: Final = b"\r\n\r\n"
# RFC 9110, 5.1 and 5.5; nothing that could end a line.
_NAME: Final = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

_log = logging.getLogger("kkrpc_py.server")
_protocol_log = logging.getLogger("kkrpc_py.websocket")


# The client ----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def connect(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    origin: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    open_seconds: float = 10.0,
    ping_seconds: float = 20.0,
    frame_bytes: int = 16 << 20,
) -> AsyncGenerator[WebSocketStream]:
    """Connect to the WebSocket at `url`, and close it at the end of the block.

    :param headers: further header fields of the handshake.
    :param ssl_context: for `wss:`; None: certificates are checked as the system has it.
    :param frame_bytes: the largest frame to be received.

    Raises ValueError for what is no WebSocket URL, OSError where nobody answers (TimeoutError after
    `open_seconds`), HandshakeRefused, which is one, where the server does not agree.
    """
    uri = _parsed(url)
    if not uri.secure and ssl_context is not None:
        raise ValueError("ssl_context is for wss: URLs")
    if uri.secure and ssl_context is None:
        ssl_context = ssl.create_default_context()
    protocol = ClientProtocol(uri, max_size=_max_size(frame_bytes), logger=_protocol_log)
    request = protocol.connect()
    if origin is not None:
        request.headers["Origin"] = origin
    _add_headers(request.headers, headers or {})

    with anyio.fail_after(open_seconds):
        byte_stream = await sockets.connect_tcp(uri.host, uri.port, ssl_context=ssl_context)
        try:
            answer, rest = await _ask(byte_stream, protocol, request)
        except BaseException as exc:
            await anyio.aclose_forcefully(byte_stream)
            if isinstance(exc, anyio.EndOfStream | anyio.BrokenResourceError):
                raise HandshakeRefused("the server closed the connection without an answer") from exc
            raise
    async with _running(
        byte_stream, protocol, headers=_mapping(answer.headers), received=rest, ping_seconds=ping_seconds
    ) as stream:
        yield stream


def _parsed(url: str) -> WebSocketURI:
    try:
        return parse_uri(url)
    except (InvalidURI, ValueError):
        pass
    # The error would repeat the URL, whose query or user may be secret.
    raise ValueError("a WebSocket URL is such as ws://localhost:8000/ws or wss://example.org/ws")


def _add_headers(headers: Headers, more: Mapping[str, str]) -> None:
    for name, value in more.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"not a header field: {name!r}")
        if name in headers:
            del headers[name]
        headers[name] = value


async def _ask(byte_stream: ByteStream, protocol: ClientProtocol, request: Request) -> tuple[Response, bytes]:
    """The server's agreement, and what came behind it."""
    protocol.send_request(request)
    await byte_stream.send(b"".join(protocol.data_to_send()))
    head, rest = await _read_head(byte_stream)
    protocol.receive_data(head)
    answers = protocol.events_received()
    if answers and protocol.handshake_exc is None:
        answer = answers[0]
        assert isinstance(answer, Response)
        return answer, rest
    data, received = rest, len(head)
    while protocol.handshake_exc is None:  # a refusal, with a body
        received += len(data)
        if received > HANDSHAKE_BYTES:
            raise HandshakeRefused("the server's refusal is too long")
        if data:
            protocol.receive_data(data)
        if protocol.handshake_exc is None:
            try:
                data = await byte_stream.receive(_READ_BYTES)
            except anyio.EndOfStream:
                protocol.receive_eof()
    if isinstance(protocol.handshake_exc, InvalidStatus):
        refusal = protocol.handshake_exc.response
        raise HandshakeRefused(
            f"the server answered {refusal.status_code} {refusal.reason_phrase}".rstrip(),
            status=refusal.status_code,
            body=bytes(refusal.body or b""),
        )
    raise HandshakeRefused(f"the server's answer is no WebSocket handshake: {protocol.handshake_exc}")


# The server ----------------------------------------------------------------------------------


class WebSocketServer:
    """Listens for clients, and opens WebSockets with those that may come. Made by `listen`."""

    def __init__(
        self,
        server: sockets.Server,
        *,
        hosts: Collection[str],
        origins: Collection[str],
        authenticate: Authenticate | None,
        secure: bool,
        ping_seconds: float,
        frame_bytes: int,
    ) -> None:
        self._server = server
        self._hosts = hosts
        self._origins = origins
        self._authenticate = authenticate
        self._secure = secure
        self._ping_seconds = ping_seconds
        self._frame_bytes = frame_bytes

    @property
    def addresses(self) -> list[Any]:
        """Where it listens: (host, port, …)."""
        return self._server.addresses

    async def serve(self, handler: Callable[[WebSocketStream], Awaitable[object]]) -> None:
        """Call `handler` with each WebSocket, in a task of its own, until cancelled.

        It is closed when the handler returns. What it raises is logged, and concerns no other connection.
        """

        async def handle(byte_stream: ByteStream) -> None:
            opened = None
            with anyio.move_on_after(HANDSHAKE_SECONDS) as handshake:
                opened = await self._open(byte_stream)
            if handshake.cancelled_caught:
                _log.info("a client took too long for its WebSocket handshake")
            if opened is None:
                return
            protocol, request, rest = opened
            async with _running(
                byte_stream,
                protocol,
                headers=request.headers,
                request=request,
                received=rest,
                ping_seconds=self._ping_seconds,
            ) as stream:
                await handler(stream)

        await self._server.serve(handle)

    async def _open(self, byte_stream: ByteStream) -> tuple[ServerProtocol, HandshakeRequest, bytes] | None:
        """The server's handshake. None: the client was refused, or is gone."""
        protocol = ServerProtocol(max_size=_max_size(self._frame_bytes), logger=_protocol_log)
        try:
            head, rest = await _read_head(byte_stream)
            protocol.receive_data(head)
            events = protocol.events_received()
            if not events:  # no HTTP, or too much of it; the protocol has answered, if it could
                await _refuse(byte_stream, protocol)
                return None
            asked = events[0]
            assert isinstance(asked, Request)
            answer = protocol.accept(asked)
            request = self._request(byte_stream, asked)
            if answer.status_code == _SWITCHING:
                refusal = await judge(
                    request,
                    hosts=self._hosts,
                    origins=self._origins,
                    authenticate=self._authenticate,
                    secure=self._secure,
                )
                if refusal is not None:
                    answer = _rejection(refusal)
            protocol.send_response(answer)
            if answer.status_code != _SWITCHING:
                await _refuse(byte_stream, protocol)
                return None
            await byte_stream.send(b"".join(protocol.data_to_send()))
        except HandshakeRefused as refused:
            _log.info("no WebSocket handshake: %s", refused)
            return None
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return None  # gone before it was served
        return protocol, request, rest

    def _request(self, byte_stream: ByteStream, asked: Request) -> HandshakeRequest:
        path, _, query = asked.path.partition("?")
        address = byte_stream.extra(SocketAttribute.remote_address, None)
        return HandshakeRequest(
            headers=_mapping(asked.headers),
            path=urllib.parse.unquote(path),
            query=query,
            client=str(address[0]) if isinstance(address, tuple) else None,
        )


@contextlib.asynccontextmanager
async def listen(
    host: str,
    port: int,
    *,
    ssl_context: ssl.SSLContext | None = None,
    hosts: Collection[str] = LOCAL_HOSTS,
    origins: Collection[str] = (),
    authenticate: Authenticate | None = None,
    ping_seconds: float = 20.0,
    frame_bytes: int = 16 << 20,
) -> AsyncGenerator[WebSocketServer]:
    """Listen on the addresses of `host`, which has no default; port 0 takes a free one.

    :param hosts: the names under which it may be reached, as a Host header has them; "*": any (HTTP-1).
    :param origins: further origins whose pages may connect, besides the same origin; "*": any (HTTP-2).
    :param authenticate: decides by the handshake's headers, path and query, before anything is served.
    :param frame_bytes: the largest frame to be received.

    Raises OSError where the address is in use, or is not this machine's.
    """
    check_names("hosts", hosts)
    check_names("origins", origins)
    check_hook(authenticate)
    async with sockets.listen_tcp(host, port, ssl_context=ssl_context) as server:
        yield WebSocketServer(
            server,
            hosts=hosts,
            origins=origins,
            authenticate=authenticate,
            secure=ssl_context is not None,
            ping_seconds=ping_seconds,
            frame_bytes=frame_bytes,
        )


_SWITCHING: Final = 101


def _rejection(refusal: ActionError) -> Response:
    body = json.dumps(refusal.to_data()).encode()
    fields = {
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }
    try:
        phrase = http.HTTPStatus(refusal.status).phrase
    except ValueError:
        phrase = ""
    return Response(refusal.status, phrase, Headers(fields), body)


async def _refuse(byte_stream: ByteStream, protocol: ServerProtocol) -> None:
    """Send the refusal, and give the client a moment to read it."""
    await byte_stream.send(b"".join(protocol.data_to_send()))
    if isinstance(byte_stream, DescriptorStream):
        await byte_stream.send_eof()
    # What it has sent and nobody has read would make the system take the refusal back.
    with anyio.move_on_after(LINGER_SECONDS):
        while True:
            await byte_stream.receive(_READ_BYTES)


# Both ----------------------------------------------------------------------------------------


async def _read_head(byte_stream: ByteStream) -> tuple[bytes, bytes]:
    """The first line and the header fields, and what came behind them."""
    received = bytearray()
    while True:
        seen = max(0, len(received) - len(_END) + 1)
        received += await byte_stream.receive(_READ_BYTES)
        if not 0x41 <= received[0] <= 0x5A:
            raise HandshakeRefused("what came is no HTTP, which begins with a capital letter")
        end = received.find(_END, seen)
        if end >= 0:
            return bytes(received[: end + len(_END)]), bytes(received[end + len(_END) :])
        if len(received) > HANDSHAKE_BYTES:
            raise HandshakeRefused(f"more than {HANDSHAKE_BYTES} bytes without an end of the header fields")


def _mapping(headers: Headers) -> dict[str, str]:
    return headers_of(
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.raw_items()
    )


def _max_size(frame_bytes: int) -> int:
    """The largest item: one frame of that size with its head, or several of them (TRN-5)."""
    return frame_bytes + ITEM_BYTES


@contextlib.asynccontextmanager
async def _running(byte_stream: ByteStream, protocol: Any, **said: Any) -> AsyncGenerator[WebSocketStream]:
    """The WebSocket with its tasks, until the end of the block, whose own exception leaves as it is."""
    tasks = anyio.create_task_group()
    await tasks.__aenter__()
    failed = False
    try:
        stream = WebSocketStream(byte_stream, protocol, tasks, **said)
        try:
            yield stream
        finally:
            with anyio.CancelScope(shield=True):
                await stream.aclose()
    except BaseException:
        failed = True
        raise
    finally:
        tasks.cancel_scope.cancel()
        try:
            await tasks.__aexit__(None, None, None)
        except anyio.get_cancelled_exc_class():
            if not failed:
                raise
