"""Our WebSocket server against raw clients: handshakes that are refused, broken rules, silence, floods."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from kkrpc_py.errors import ActionError, LimitExceeded, ProtocolError
from kkrpc_py.transports import opening, websocket
from kkrpc_py.transports.handshake import HandshakeRequest
from kkrpc_py.transports.items import ITEM_BYTES
from kkrpc_py.transports.sockets import connect_tcp
from kkrpc_py.transports.websocket import WebSocketStream
from tests.transports.pairs import open_descriptors
from tests.transports.websocket_peers import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    RawPeer,
    accept_key,
    closing,
    frame,
    raw_client,
    serving,
)

pytestmark = pytest.mark.anyio

LIMIT = 30
FRAME_BYTES = 1000
MOST = FRAME_BYTES + ITEM_BYTES
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def echo(stream: WebSocketStream) -> None:
    with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        while True:
            await stream.send(await stream.receive())


class Watcher:
    """A handler that receives until the end, and keeps what it was."""

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.stream: WebSocketStream | None = None
        self.end: Exception | None = None
        self.ended = anyio.Event()

    async def __call__(self, stream: WebSocketStream) -> None:
        self.stream = stream
        try:
            while True:
                self.items.append(await stream.receive())
        except Exception as exc:
            self.end = exc
        await stream.aclose()
        self.ended.set()


@contextlib.asynccontextmanager
async def watched(**options: Any) -> AsyncIterator[tuple[Watcher, RawPeer]]:
    """A raw client, and what our server sees of it."""
    watcher = Watcher()
    with anyio.fail_after(LIMIT):
        async with serving(watcher, **{"frame_bytes": FRAME_BYTES, **options}) as port:
            async with raw_client(port) as peer:
                yield watcher, peer


# The handshake -------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def asking(**options: Any) -> AsyncIterator[RawPeer]:
    with anyio.fail_after(LIMIT):
        async with serving(echo, **options) as port, await connect_tcp("127.0.0.1", port) as stream:
            yield RawPeer(stream, client=True)


async def test_the_handshake_of_the_rfc() -> None:
    """RFC 6455, 1.3: the key of its example."""
    async with asking(hosts=["server.example.com"], origins=["http://example.com"]) as peer:
        answer = await peer.ask(
            "/chat",
            Host="server.example.com",
            Origin="http://example.com",
            Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
            Sec_WebSocket_Protocol="chat, superchat",
            Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits",
        )
    assert answer.status == 101
    assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    # TRN-7, TRN-8: no subprotocol is demanded or chosen, and nothing is compressed.
    assert not {"sec-websocket-protocol", "sec-websocket-extensions"} & set(answer.headers)


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        pytest.param(405, {"start": "POST / HTTP/1.1"}, id="a method"),
        pytest.param(505, {"start": "GET / HTTP/1.0"}, id="HTTP/1.0"),
        pytest.param(426, {"Upgrade": None}, id="no upgrade"),
        pytest.param(426, {"Connection": "close"}, id="no connection upgrade"),
        pytest.param(400, {"Sec_WebSocket_Key": None}, id="no key"),
        pytest.param(400, {"Sec_WebSocket_Key": "short"}, id="no good key"),
        pytest.param(400, {"Sec_WebSocket_Version": "8"}, id="an old version"),
        pytest.param(400, {"Host": None}, id="no host"),
        pytest.param(400, {"Host": "attacker.example"}, id="a foreign host"),
        pytest.param(400, {"Host": "localhost.attacker.example:80"}, id="a host that looks like ours"),
        pytest.param(400, {"Host": "localhost", "host": "attacker.example"}, id="two hosts"),
        pytest.param(403, {"Origin": "http://attacker.example"}, id="a foreign origin"),
        pytest.param(403, {"Origin": "null"}, id="a page without an origin"),
        pytest.param(403, {"Origin": "https://localhost"}, id="another scheme"),
        pytest.param(403, {"Origin": "http://localhost:8080"}, id="another port"),
        pytest.param(400, {"Origin": "http://localhost", "origin": "http://x"}, id="two origins"),
    ],
)
async def test_who_is_refused(status: int, fields: dict[str, str]) -> None:
    """TRN-7, HTTP-1, HTTP-2: before it becomes a WebSocket, and told so."""
    async with asking() as peer:
        answer = await peer.ask(**fields)
        assert answer.status == status
        assert await peer.end() == b""


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"Host": "LOCALHOST:1234"},
        {"Host": "127.0.0.1"},
        {"Host": "[::1]:80"},
        {"Origin": "http://localhost"},
        {"Origin": "http://localhost:80"},
        {"Origin": "HTTP://LocalHost"},
        {"Host": "localhost:8080", "Origin": "http://localhost:8080"},
        {"Origin": "https://app.example"},
        {"Origin": "app://bundle"},
        {"Connection": "keep-alive, Upgrade"},
    ],
)
async def test_who_is_served(fields: dict[str, str]) -> None:
    async with asking(origins=["https://app.example:443", "app://bundle"]) as peer:
        assert (await peer.ask(**fields)).status == 101
        await peer.send(TEXT, b"{}\n")
        assert await peer.receive() == Frame(TEXT, b"{}\n")


async def test_who_says_no_is_heard() -> None:
    """TRN-7, HTTP-4, HTTP-7: before any call, by 403 and an error object."""
    asked: list[HandshakeRequest] = []

    async def authenticate(request: HandshakeRequest) -> bool:
        asked.append(request)
        request.state.user = "somebody"
        return request.headers.get("authorization") == "Bearer right"

    seen: list[Any] = []

    async def handler(stream: WebSocketStream) -> None:
        seen.append(stream.request)

    with anyio.fail_after(LIMIT):
        async with serving(handler, authenticate=authenticate) as port:
            for token, status in (("wrong", 403), ("right", 101)):
                async with await connect_tcp("127.0.0.1", port) as stream:
                    answer = await RawPeer(stream, client=True).ask(
                        "/a%20path/x?token=%201&b", Authorization=f"Bearer {token}", X="1", x="2"
                    )
                assert answer.status == status
                if status == 403:
                    assert answer.headers["content-type"] == "application/json"
                    assert (
                        answer.body == b'{"code": "FORBIDDEN", "message": "Not allowed", "statusCode": 403}'
                    )
    assert seen == asked[1:]
    request = asked[1]
    assert (request.path, request.query, request.client) == ("/a path/x", "token=%201&b", "127.0.0.1")
    assert request.headers["x"] == "1, 2"
    assert request.state.user == "somebody"


async def test_a_foreign_origin_is_not_authenticated() -> None:
    async def authenticate(request: HandshakeRequest) -> bool:
        pytest.fail("it was asked about a page that may not come")

    async with asking(authenticate=authenticate) as peer:
        assert (await peer.ask(Origin="http://attacker.example")).status == 403


async def test_what_the_hook_raises(caplog: pytest.LogCaptureFixture) -> None:
    async def authenticate(request: HandshakeRequest) -> bool:
        if request.query == "limit":
            raise ActionError("RATE_LIMITED", "Later", 429)
        if request.query == "odd":
            raise ActionError("ODD", "Odd", 499)
        raise ZeroDivisionError("the password is secret")

    with anyio.fail_after(LIMIT):
        async with serving(echo, authenticate=authenticate) as port:
            statuses = []
            for path in ("/?limit", "/?odd", "/"):
                async with await connect_tcp("127.0.0.1", port) as stream:
                    answer = await RawPeer(stream, client=True).ask(path)
                assert b"secret" not in answer.body
                statuses.append(answer.status)
    assert statuses == [429, 499, 500]
    assert "the password is secret" in caplog.text


async def test_a_hook_that_meets_the_cancellation_of_another(anyio_backend_name: str) -> None:
    if anyio_backend_name != "asyncio":
        pytest.skip("trio has no such thing")

    async def authenticate(request: HandshakeRequest) -> bool:
        if request.query == "cancelled":
            elsewhere = asyncio.get_running_loop().create_future()
            elsewhere.cancel()
            await elsewhere
        return True

    with anyio.fail_after(LIMIT):
        async with serving(echo, authenticate=authenticate) as port:
            for path, status in (("/?cancelled", 500), ("/", 101)):
                async with await connect_tcp("127.0.0.1", port) as stream:
                    assert (await RawPeer(stream, client=True).ask(path)).status == status


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), id="a TLS hello"),
        pytest.param(b"hello?\r\n\r\n", id="a line"),
        pytest.param(b"GET / HTTP/1.1\r\nno field\r\n\r\n", id="no field"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", id="a body"),
        pytest.param(b"GET / HTTP/1.1\n\nHost: a\n\n" + b"\r\n\r\n", id="bare line feeds"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n", id="a long field"),
        pytest.param(b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", id="a long path"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 200 + b"\r\n", id="many fields"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 20_000, id="fields without an end"),
        pytest.param(bytes(200_000), id="zeros"),
    ],
)
async def test_what_is_no_handshake(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered with a status, or not at all, and the connection is closed before its time is over."""
    monkeypatch.setattr(opening, "HANDSHAKE_SECONDS", 2 * LIMIT)
    async with asking() as peer:
        with contextlib.suppress(anyio.BrokenResourceError):
            await peer.stream.send(said)
        answer = await peer.end()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


async def test_a_handshake_in_pieces() -> None:
    async with asking() as peer:
        for byte in REQUEST:
            await peer.stream.send(bytes([byte]))
        assert (await peer.answer()).status == 101


async def test_what_comes_with_the_handshake_is_not_lost() -> None:
    async with asking() as peer:
        together = frame(TEXT, b'{"a":1}') + frame(PING, b"?") + frame(TEXT, b'{"b":2}\n')
        await peer.stream.send(REQUEST + together)
        assert (await peer.answer()).status == 101
        received = [await peer.receive() for _ in range(3)]
        assert sorted(received) == [
            Frame(TEXT, b'{"a":1}\n'),
            Frame(TEXT, b'{"b":2}\n'),
            Frame(PONG, b"?"),
        ]


async def test_a_slow_handshake_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "HANDSHAKE_SECONDS", 0.2)
    async with asking() as peer:
        await peer.stream.send(b"GET / HTTP/1.1\r\n")
        assert await peer.end() == b""


async def test_a_slow_hook_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "HANDSHAKE_SECONDS", 0.2)
    async with asking(authenticate=lambda request: anyio.sleep_forever()) as peer:
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await peer.ask()


async def test_a_flood_of_handshakes() -> None:
    """Half of them are garbage, half of them never end; whoever comes after them is served."""
    before = open_descriptors()
    with anyio.fail_after(LIMIT):
        async with serving(echo) as port, contextlib.AsyncExitStack() as open_ones:
            for number in range(200):
                stream = await open_ones.enter_async_context(await connect_tcp("127.0.0.1", port))
                await stream.send(os.urandom(100) + b"\r\n\r\n" if number % 2 else b"GET / HTTP/1.1\r\n")
            async with raw_client(port) as peer:
                await peer.send(TEXT, b"{}\n")
                assert await peer.receive() == Frame(TEXT, b"{}\n")
    assert open_descriptors() <= before


# Rules that are broken -----------------------------------------------------------------------

FIRST = frame(TEXT, b"{", fin=False)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        pytest.param(frame(TEXT, b"{}", mask=None), 1002, id="a frame without a mask"),
        *(pytest.param(frame(TEXT, b"{}", rsv=rsv), 1002, id=f"reserved bits {rsv}") for rsv in (1, 2, 4)),
        *(pytest.param(frame(opcode), 1002, id=f"opcode {opcode}") for opcode in (3, 7, 11, 15)),
        pytest.param(frame(CONTINUATION, b"x"), 1002, id="a continuation of nothing"),
        pytest.param(FIRST + frame(TEXT, b"}"), 1002, id="a message within another"),
        pytest.param(FIRST + frame(CLOSE, closing(1000)), 1002, id="a close within a message"),
        pytest.param(frame(PING, b"x", fin=False), 1002, id="a ping in fragments"),
        pytest.param(frame(PING, bytes(126)), 1002, id="a large ping"),
        pytest.param(frame(CLOSE, b"\x03"), 1002, id="half a code"),
        *(
            pytest.param(frame(CLOSE, closing(code)), 1002, id=f"code {code}")
            for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)
        ),
        pytest.param(frame(CLOSE, closing(1000) + b"\xff"), 1007, id="a reason that is no text"),
        pytest.param(frame(TEXT, b'{"\xff"}'), 1007, id="a text that is no text"),
        pytest.param(frame(TEXT, b'{"\xed\xa0\x80"}'), 1007, id="a text with half a pair"),
        pytest.param(FIRST + frame(CONTINUATION, b'"\xc3'), 1007, id="a text that ends in a character"),
        pytest.param(frame(BINARY, bytes(MOST + 1)), 1009, id="too large"),
        pytest.param(
            frame(BINARY, bytes(MOST), fin=False) + frame(CONTINUATION, b"x"), 1009, id="too large together"
        ),
        pytest.param(b"\x82\xff" + (1 << 62).to_bytes(8, "big"), 1009, id="announced too large"),
    ],
)
async def test_a_rule_that_is_broken(said: bytes, code: int) -> None:
    """TRN-4, TRN-5: the code says which; what came before it is delivered, and nothing after it."""
    async with watched() as (watcher, peer):
        await peer.stream.send(frame(TEXT, b'{"before":1}') + said + frame(TEXT, b'{"after":1}'))
        closed = await peer.until_closed()
        assert closed.code == code
        await peer.stream.aclose()
        await watcher.ended.wait()
        assert watcher.items == [b'{"before":1}\n']
        assert isinstance(watcher.end, anyio.BrokenResourceError)
        assert watcher.stream is not None
        assert isinstance(watcher.stream.failure, LimitExceeded if code == 1009 else ProtocolError)
        assert str(watcher.end) == str(watcher.stream.failure)


async def test_fragments_are_put_together() -> None:
    """RFC 6455, 5.4; a character may be split between two (5.6)."""
    async with watched() as (watcher, peer):
        text = '{"ä€😀":1}'.encode()
        for number, byte in enumerate(text):
            opcode = CONTINUATION if number else TEXT
            await peer.send(opcode, bytes([byte]), fin=number == len(text) - 1)
            await peer.send(PING, b"%d" % number)
        await peer.send(BINARY, b"\xd8", fin=False)
        await peer.send(CONTINUATION, b"", fin=False)
        await peer.send(CONTINUATION, b"\x18")
        await peer.send(CLOSE, closing(1000))
        await watcher.ended.wait()
        assert watcher.items == [text + b"\n", b"\xd8\x18"]
        assert isinstance(watcher.end, anyio.EndOfStream)


async def test_fragments_of_nothing_take_nothing() -> None:
    async with watched() as (watcher, peer):
        await peer.send(TEXT, b"{", fin=False)
        nothing = frame(CONTINUATION, b"", fin=False)
        for _ in range(50):
            await peer.stream.send(nothing * 1000)
        await peer.send(CONTINUATION, b"}")
        await peer.send(CLOSE, closing(1000))
        await watcher.ended.wait()
        assert watcher.items == [b"{}\n"]


@pytest.mark.parametrize("cut", range(1, 14))
async def test_frames_come_in_any_pieces(cut: int) -> None:
    data = (
        frame(TEXT, b'{"a":1}') + frame(PING, b"p") + frame(BINARY, bytes(300)) + frame(CLOSE, closing(1000))
    )
    async with watched() as (watcher, peer):
        for start in range(0, len(data), cut):
            await peer.stream.send(data[start : start + cut])
        await watcher.ended.wait()
        assert watcher.items == [b'{"a":1}\n', bytes(300)]
        assert await peer.receive() == Frame(PONG, b"p")
        assert await peer.receive() == Frame(CLOSE, closing(1000))


# Closing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [closing(1000), closing(1001, "bye"), b""])
async def test_a_peer_that_closes_well(payload: bytes) -> None:
    """TRN-4; a close without a code, as kkrpc's `ws.close()` sends it, is none that complains."""
    async with watched() as (watcher, peer):
        await peer.send(CLOSE, payload)
        assert await peer.receive() == Frame(CLOSE, payload)
        await watcher.ended.wait()
        assert isinstance(watcher.end, anyio.EndOfStream)
        assert await peer.end() == b""


@pytest.mark.parametrize("code", [1002, 1011, 3000, 4999])
async def test_a_peer_that_complains(code: int) -> None:
    async with watched() as (watcher, peer):
        await peer.send(CLOSE, closing(code, "whatever it was"))
        await watcher.ended.wait()
        assert isinstance(watcher.end, anyio.BrokenResourceError)
        assert str(watcher.end) == f"the peer closed the WebSocket with {code}: whatever it was"


@pytest.mark.parametrize("reset", [False, True])
async def test_a_peer_that_goes_without_a_word(reset: bool) -> None:
    async with watched() as (watcher, peer):
        await peer.send(TEXT, b"{}")
        if reset:
            descriptor = peer.stream.sender._writer._socket
            descriptor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await peer.stream.aclose()
        await watcher.ended.wait()
        assert isinstance(watcher.end, anyio.BrokenResourceError)
        assert str(watcher.end) == "the WebSocket was lost without a closing handshake"


async def test_a_peer_that_does_not_answer_a_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 0.2)

    async def handler(stream: WebSocketStream) -> None:
        await stream.aclose()

    with anyio.fail_after(LIMIT):
        async with serving(handler) as port, raw_client(port) as peer:
            assert await peer.receive() == Frame(CLOSE, closing(1000))
            assert await peer.end() == b""


async def test_what_a_peer_says_while_it_is_closed() -> None:
    """Its messages are dropped, its pings need no answer, its answer ends the handshake."""
    began = anyio.Event()

    async def handler(stream: WebSocketStream) -> None:
        await stream.aclose()
        began.set()

    with anyio.fail_after(LIMIT):
        async with serving(handler) as port, raw_client(port) as peer:
            assert await peer.receive() == Frame(CLOSE, closing(1000))
            for _ in range(100):
                await peer.send(TEXT, b"{}")
            await peer.send(CLOSE, closing(1000))
            await began.wait()
            assert set(await peer.end()) <= {0x8A, 0}


# Silence -------------------------------------------------------------------------------------


async def test_a_peer_that_falls_silent_is_given_up() -> None:
    """TRN-6: pinged after a while, and closed with 1011 after as long again."""
    async with watched(ping_seconds=0.1) as (watcher, peer):
        assert (await peer.receive()).opcode == PING
        assert await peer.receive() == Frame(CLOSE, closing(1011, "ping timeout"))
        await watcher.ended.wait()
        assert isinstance(watcher.end, anyio.BrokenResourceError)
        assert str(watcher.end) == "the peer did not answer a ping within 0.1 s"


@pytest.mark.parametrize("opcode", [PONG, TEXT, PING])
async def test_a_peer_that_says_anything_is_kept(opcode: int) -> None:
    async with watched(ping_seconds=0.1) as (watcher, peer):
        for _ in range(12):
            await anyio.sleep(0.04)
            await peer.send(opcode)
        assert not watcher.ended.is_set()
        await peer.stream.aclose()
        await watcher.ended.wait()


async def test_a_peer_that_never_reads() -> None:
    """What it is sent waits; as it answers no ping either, it is given up. Nothing grows meanwhile."""
    failed = anyio.Event()
    sent = 0

    async def handler(stream: WebSocketStream) -> None:
        async def fill() -> None:
            nonlocal sent
            with pytest.raises(anyio.BrokenResourceError):
                while True:
                    await stream.send(bytes(1 << 16))
                    sent += 1 << 16
            failed.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fill)
            with pytest.raises(anyio.BrokenResourceError, match="did not answer a ping"):
                await stream.receive()

    with anyio.fail_after(LIMIT):
        async with serving(handler, ping_seconds=0.2) as port, raw_client(port):
            await failed.wait()
    assert sent < 16 << 20


async def test_a_flood_of_pings_while_nothing_goes_out() -> None:
    """RFC 6455, 5.5.3: of the pongs that could not be sent yet one is enough."""
    blocked, flooded = anyio.Event(), anyio.Event()
    waiting: list[int] = []

    async def handler(stream: WebSocketStream) -> None:
        async def fill() -> None:
            with contextlib.suppress(anyio.ClosedResourceError):
                await stream.send(bytes(32 << 20))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fill)
            while not stream._draining:
                await anyio.sleep(0.001)
            blocked.set()
            with pytest.raises(anyio.EndOfStream):
                await stream.receive_each(1 << 16, lambda data: True)
            waiting.extend((len(stream._unwritten), len(stream._pong)))
            flooded.set()
            tasks.cancel_scope.cancel()

    with anyio.fail_after(LIMIT):
        async with serving(handler) as port, raw_client(port) as peer:
            await blocked.wait()
            for _ in range(20):
                await peer.stream.send(frame(PING, bytes(125)) * 200)
            await peer.send(PING, b"the last one")
            await peer.send(TEXT, b"__DESTROY__")
            await flooded.wait()
    assert waiting == [0, len(frame(PONG, b"the last one", mask=None))]


async def test_a_pong_waits_for_the_end_of_an_item() -> None:
    size = 3_000_000

    async def handler(stream: WebSocketStream) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.receive)
            for _ in range(3):
                await stream.send(bytes(size))
            tasks.cancel_scope.cancel()
        with contextlib.suppress(anyio.EndOfStream):
            await stream.receive()

    with anyio.fail_after(LIMIT):
        async with serving(handler) as port, raw_client(port) as peer:
            received: list[Frame] = []
            for number in range(20):
                await peer.send(PING, b"%d" % number)
            while len([each for each in received if each.opcode == BINARY]) < 3:
                received.append(await peer.receive())
            await peer.send(CLOSE, closing(1000))
            await peer.until_closed()
    assert all(each.opcode == PONG or len(each.payload) == size for each in received)
