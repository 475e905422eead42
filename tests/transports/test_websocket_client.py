"""Our WebSocket client against raw servers: what it asks for, and answers that it must not take."""

from __future__ import annotations

import base64

import anyio
import pytest

from kkrpc_py.errors import ProtocolError
from kkrpc_py.transports import opening
from kkrpc_py.transports.handshake import HandshakeRefused
from tests.transports.pairs import open_descriptors
from tests.transports.websocket_peers import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Frame,
    RawPeer,
    accept,
    closing,
    frame,
    raw_server,
)

pytestmark = pytest.mark.anyio

LIMIT = 30


async def test_what_a_client_asks_for() -> None:
    requests: list[str] = []

    async def talk(peer: RawPeer) -> None:
        requests.append(await peer.head())

    with anyio.fail_after(LIMIT):
        async with raw_server(talk) as url:
            port = url.rstrip("/").rpartition(":")[2]
            with pytest.raises(HandshakeRefused, match="without an answer"):
                async with opening.connect(
                    f"ws://us%65r:pass@127.0.0.1:{port}/a%20b?x=%C3%A4&y",
                    headers={"X-Token": "secret", "user-agent": "tests"},
                    origin="https://app.example",
                ):
                    pytest.fail("there was no answer")
    line, *fields = requests[0].split("\r\n")
    assert line == "GET /a%20b?x=%C3%A4&y HTTP/1.1"
    headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
    assert len(base64.b64decode(headers.pop("sec-websocket-key"))) == 16
    assert headers == {
        "host": f"127.0.0.1:{port}",
        "authorization": "Basic " + base64.b64encode(b"user:pass").decode(),
        "origin": "https://app.example",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "x-token": "secret",
        "user-agent": "tests",
    }


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        pytest.param(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403, b"no", id="a refusal"),
        pytest.param(b"HTTP/1.1 401 Who\r\n\r\nnobody", 401, b"nobody", id="a body up to the end"),
        pytest.param(
            b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            500,
            b"abc",
            id="a body in chunks",
        ),
        pytest.param(
            b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 302, b"", id="a redirect"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", id="a page"),
        pytest.param(b"HTTP/1.1 403 No\r\n\r\n" + bytes(100_000), None, b"", id="a body that is too long"),
        pytest.param(b"HTTP/1.1 101 X\r\n\r\n", None, b"", id="no agreement"),
        pytest.param(
            b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
            None,
            b"",
            id="the answer to another key",
        ),
        pytest.param(b"\x00\x01\x02", None, b"", id="no HTTP"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", None, b"", id="another protocol"),
        pytest.param(b"HTTP/1.1 101 " + b"x" * 100_000, None, b"", id="a line that is too long"),
        pytest.param(b"HTTP/1.1", None, b"", id="half an answer"),
        pytest.param(b"", None, b"", id="nothing"),
    ],
)
async def test_a_server_that_does_not_agree(answer: bytes, status: int | None, body: bytes) -> None:
    async def talk(peer: RawPeer) -> None:
        await peer.head()
        await peer.stream.send(answer)

    before = open_descriptors()
    with anyio.fail_after(LIMIT):
        async with raw_server(talk) as url:
            with pytest.raises(HandshakeRefused) as caught:
                async with opening.connect(url):
                    pytest.fail("it did not agree")
    assert isinstance(caught.value, OSError)
    assert (caught.value.status, caught.value.body) == (status, body)
    assert open_descriptors() <= before


@pytest.mark.parametrize(
    "fields",
    [{"Sec-WebSocket-Protocol": "chat"}, {"Sec-WebSocket-Extensions": "permessage-deflate"}],
)
async def test_a_server_that_agrees_to_what_nobody_asked_for(fields: dict[str, str]) -> None:
    """RFC 6455, 4.1; TRN-8."""

    async def talk(peer: RawPeer) -> None:
        await accept(peer, **fields)
        await peer.end()

    with anyio.fail_after(LIMIT):
        async with raw_server(talk) as url:
            with pytest.raises(HandshakeRefused):
                async with opening.connect(url):
                    pytest.fail("nobody did")


async def test_a_server_that_does_not_answer() -> None:
    async def talk(peer: RawPeer) -> None:
        await peer.end()

    with anyio.fail_after(LIMIT):
        async with raw_server(talk) as url:
            with pytest.raises(TimeoutError):
                async with opening.connect(url, open_seconds=0.1):
                    pytest.fail("it did")


async def test_what_comes_with_the_agreement_is_not_lost() -> None:
    async def talk(peer: RawPeer) -> None:
        send, said = peer.stream.send, []

        async def keep(data: bytes) -> None:
            said.append(data)

        peer.stream.send = keep
        await accept(peer)
        peer.stream.send = send
        await send(said[0] + frame(TEXT, b'{"a":1}', mask=None) + frame(CLOSE, closing(1001), mask=None))
        await peer.end()

    with anyio.fail_after(LIMIT):
        async with raw_server(talk) as url, opening.connect(url) as stream:
            assert await stream.receive() == b'{"a":1}\n'
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()


async def test_a_server_that_masks() -> None:
    """RFC 6455, 5.1: a client must close such a connection."""
    closed: list[Frame] = []

    async def talk(peer: RawPeer) -> None:
        await accept(peer)
        await peer.send(TEXT, b"{}", mask=b"mask")
        closed.append(await peer.until_closed())

    with anyio.fail_after(LIMIT):
        async with raw_server(talk) as url, opening.connect(url) as stream:
            with pytest.raises(anyio.BrokenResourceError, match="broke the WebSocket protocol"):
                await stream.receive()
            assert isinstance(stream.failure, ProtocolError)
    assert closed[0].code == 1002


async def test_a_client_masks_and_answers_pings() -> None:
    seen: list[Frame] = []

    async def talk(peer: RawPeer) -> None:
        await accept(peer)
        await peer.send(PING, b"1")
        first, second = await peer.exactly(2)
        assert (first, second) == (0x8A, 0x81)
        await peer.exactly(5)
        seen.append(await peer.receive())
        seen.append(await peer.receive())
        await peer.send(CLOSE, closing(1000))
        seen.append(await peer.receive())

    with anyio.fail_after(LIMIT):
        async with raw_server(talk) as url, opening.connect(url) as stream:
            with anyio.move_on_after(0.1):
                await stream.receive()
            await stream.send(b'{"text":1}\n')
            await stream.send(b"\xd8\x18\x41\xa0")
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
    assert seen == [
        Frame(TEXT, b'{"text":1}\n'),
        Frame(BINARY, b"\xd8\x18\x41\xa0"),
        Frame(CLOSE, closing(1000)),
    ]


async def test_a_server_that_falls_silent_is_given_up() -> None:
    """TRN-6."""
    seen: list[Frame] = []

    async def talk(peer: RawPeer) -> None:
        await accept(peer)
        seen.append(await peer.receive())
        seen.append(await peer.receive())

    with anyio.fail_after(LIMIT):
        async with raw_server(talk) as url, opening.connect(url, ping_seconds=0.1) as stream:
            with pytest.raises(anyio.BrokenResourceError, match="did not answer a ping within 0.1 s"):
                await stream.receive()
    assert [each.opcode for each in seen] == [PING, CLOSE]
    assert PONG not in {each.opcode for each in seen}


async def test_a_server_without_tls() -> None:
    """It is an OSError, as every failure to connect is."""

    async def talk(peer: RawPeer) -> None:
        await peer.stream.receive()

    with anyio.fail_after(LIMIT):
        async with raw_server(talk) as url:
            with pytest.raises(OSError):
                async with opening.connect(url.replace("ws:", "wss:")):
                    pytest.fail("it speaks no TLS")
