"""The WebSocket of the application before a scripted ASGI server: what real ones do rarely, or otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from kkrpc_py.transports.handshake import HandshakeRequest
from kkrpc_py.web.app import asgi_app
from kkrpc_py.web.sockets import _AsgiStream

pytestmark = pytest.mark.anyio

LIMIT = 10


class Server:
    """Gives the events that it was made with, then nothing; keeps what it is sent."""

    def __init__(
        self, *events: dict[str, Any], on_send: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self.events = list(events)
        self.sent: list[Any] = []
        self.on_send = on_send

    async def receive(self) -> Any:
        if not self.events:
            await anyio.sleep_forever()
        return self.events.pop(0)

    async def send(self, message: Any) -> None:
        if self.on_send is not None:
            self.on_send(message)
        self.sent.append(message)


def stream_of(server: Server, most: int = 1000) -> _AsgiStream:
    return _AsgiStream(server.receive, server.send, HandshakeRequest(headers={}, path="/ws"), most)


SCOPE = {"type": "websocket", "path": "/ws", "query_string": b"", "scheme": "ws", "client": None}


@pytest.mark.parametrize("extensions", [None, {}, {"other": {}}])
async def test_a_server_that_cannot_send_a_refusal(extensions: Any) -> None:
    """It makes a 403 of a WebSocket that is closed before it is accepted."""
    server = Server({"type": "websocket.connect"})
    endpoint = asgi_app({}, hosts=["example.org"])
    with anyio.fail_after(LIMIT):
        scope = {**SCOPE, "headers": [(b"host", b"localhost")], "extensions": extensions}
        await endpoint(scope, server.receive, server.send)
    assert server.sent == [{"type": "websocket.close"}]


async def test_a_client_that_goes_while_it_is_judged() -> None:
    server = Server({"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1006})

    async def authenticate(request: HandshakeRequest) -> bool:
        await anyio.sleep_forever()
        return True

    endpoint = asgi_app({}, hosts=["*"], authenticate=authenticate)
    with anyio.fail_after(LIMIT):
        await endpoint({**SCOPE, "headers": []}, server.receive, server.send)
    assert server.sent == []


@pytest.mark.parametrize(
    ("event", "error", "text"),
    [
        ({"code": 1000}, anyio.EndOfStream, ""),
        ({"code": 1001}, anyio.EndOfStream, ""),
        ({}, anyio.EndOfStream, ""),
        ({"code": 1006}, anyio.BrokenResourceError, "the peer closed the WebSocket with 1006"),
        ({"code": 1012, "reason": "restart"}, anyio.BrokenResourceError, "with 1012: restart"),
    ],
)
async def test_how_a_client_goes(event: dict[str, Any], error: type[Exception], text: str) -> None:
    """TRN-4. Nothing is sent to who has gone."""
    server = Server({"type": "websocket.disconnect", **event})
    stream = stream_of(server)
    with anyio.fail_after(LIMIT):
        for _ in range(2):
            with pytest.raises(error, match=text or None):
                await stream.receive()
        with pytest.raises(anyio.BrokenResourceError):
            await stream.send(b"{}\n")
        await stream.aclose()
    assert server.sent == []


async def test_a_server_that_says_so_when_nobody_is_there() -> None:
    """By OSError, as ASGI 2.4 has it."""

    def fail(message: Any) -> None:
        raise OSError("gone")

    server = Server(on_send=fail)
    stream = stream_of(server)
    with anyio.fail_after(LIMIT):
        for _ in range(2):
            with pytest.raises(anyio.BrokenResourceError):
                await stream.send(b"{}\n")
        await stream.aclose()


@pytest.mark.parametrize("error", [OSError, RuntimeError])
async def test_a_client_that_goes_while_it_is_closed(error: type[Exception]) -> None:
    def fail(message: Any) -> None:
        raise error("gone")

    with anyio.fail_after(LIMIT):
        await stream_of(Server(on_send=fail)).aclose()


async def test_a_cancelled_send_is_the_last_one() -> None:
    """The server may have written half of it, so that nothing can follow, not even a goodbye."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        await anyio.sleep_forever()

    stream = _AsgiStream(Server().receive, send, HandshakeRequest(headers={}, path="/ws"), 1000)
    with anyio.fail_after(LIMIT):
        with anyio.move_on_after(0.01):
            await stream.send(b"{}\n")
        with pytest.raises(anyio.BrokenResourceError):
            await stream.send(b"{}\n")
        await stream.aclose()
    assert sent == [{"type": "websocket.send", "text": "{}\n"}]


async def test_a_closed_one_says_so() -> None:
    server = Server()
    stream = stream_of(server)
    stream.close_with(1009, "too large")
    stream.close_with(1000, "the first one counts")
    stream.farewell = True
    with anyio.fail_after(LIMIT):
        await stream.send_eof()
        await stream.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.send(b"{}\n")
    assert server.sent == [
        {"type": "websocket.send", "text": "__DESTROY__"},
        {"type": "websocket.close", "code": 1009, "reason": "too large"},
    ]


async def test_items_that_come() -> None:
    """Servers give the one that is not there as None, or leave it out."""
    server = Server(
        {"type": "websocket.receive", "text": '{"ä":1}', "bytes": None},
        {"type": "websocket.receive", "text": None, "bytes": b"\xd8\x18"},
        {"type": "websocket.receive", "bytes": b""},
        {"type": "websocket.receive", "text": "__DESTROY__"},
    )
    stream = stream_of(server)
    with anyio.fail_after(LIMIT):
        assert await stream.receive() == '{"ä":1}\n'.encode()
        assert await stream.receive() == b"\xd8\x18"
        assert await stream.receive() == b""
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
