"""Peers for the tests of WebSockets: linked pairs of our own, and raw ones that may break every rule.

It owns no test.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ssl
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest

from kkrpc_py.transports import opening
from kkrpc_py.transports.sockets import connect_tcp, listen_tcp
from kkrpc_py.transports.websocket import WebSocketStream

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = base64.b64encode(b"sixteen bytes...").decode()


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Frame(NamedTuple):
    opcode: int
    payload: bytes
    fin: bool = True

    @property
    def code(self) -> int:
        """Of a close frame."""
        return int.from_bytes(self.payload[:2], "big")


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"mask"
) -> bytes:
    """One frame on the wire (RFC 6455, 5.2); `mask` None: unmasked, as a server writes it."""
    head = bytes([fin << 7 | rsv << 4 | opcode])
    marked = 0 if mask is None else 0x80
    if len(payload) < 126:
        head += bytes([marked | len(payload)])
    elif len(payload) < 1 << 16:
        head += bytes([marked | 126]) + len(payload).to_bytes(2, "big")
    else:
        head += bytes([marked | 127]) + len(payload).to_bytes(8, "big")
    if mask is None:
        return head + payload
    keys = mask * (len(payload) // 4 + 1)
    return head + mask + bytes(byte ^ key for byte, key in zip(payload, keys, strict=False))


def closing(code: int, reason: str = "") -> bytes:
    """What a close frame holds."""
    return code.to_bytes(2, "big") + reason.encode()


class RawPeer:
    """One end of a TCP connection that speaks as it is told to."""

    def __init__(self, stream: Any, *, client: bool) -> None:
        self.stream = stream
        self.mask = b"mask" if client else None
        self._buffer = b""

    async def send(self, opcode: int, payload: bytes = b"", **options: Any) -> None:
        await self.stream.send(frame(opcode, payload, **{"mask": self.mask, **options}))

    async def exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._buffer += await self.stream.receive()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    async def head(self) -> str:
        """First line and header fields."""
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += await self.stream.receive()
        text, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return text.decode("latin-1")

    async def receive(self) -> Frame:
        first, second = await self.exactly(2)
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(await self.exactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await self.exactly(8), "big")
        mask = await self.exactly(4) if second & 0x80 else bytes(4)
        payload = await self.exactly(size)
        keys = mask * (size // 4 + 1)
        plain = bytes(byte ^ key for byte, key in zip(payload, keys, strict=False)) if any(mask) else payload
        return Frame(first & 0x0F, plain, bool(first & 0x80))

    async def until_closed(self) -> Frame:
        """The close frame that comes, whatever came before it."""
        while (received := await self.receive()).opcode != CLOSE:
            pass
        return received

    async def end(self) -> bytes:
        """What else comes until the connection is at its end."""
        rest = self._buffer
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                rest += await self.stream.receive()
        return rest

    async def ask(self, path: str = "/", *, start: str | None = None, **fields: str | None) -> Answer:
        """Send a handshake, with `fields` changed or (None) left out; read the answer."""
        headers: dict[str, str | None] = {
            "Host": "localhost",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec_WebSocket_Key": KEY,
            "Sec_WebSocket_Version": "13",
            **fields,
        }
        lines = [start or f"GET {path} HTTP/1.1"]
        lines += [
            f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value is not None
        ]
        await self.stream.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        return await self.answer()

    async def answer(self) -> Answer:
        line, *lines = (await self.head()).split("\r\n")
        headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
        body = await self.exactly(int(headers.get("content-length", "0")))
        return Answer(int(line.split(" ")[1]), headers, body)


def accept_key(key: str) -> str:
    """What a server answers to a client's key (RFC 6455, 4.2.2)."""
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    return base64.b64encode(digest).decode()


async def accept(peer: RawPeer, **fields: str) -> None:
    """Answer a client's handshake as a server that agrees."""
    request = await peer.head()
    [key] = [line[19:] for line in request.split("\r\n") if line.lower().startswith("sec-websocket-key: ")]
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": accept_key(key),
        **fields,
    }
    lines = ["HTTP/1.1 101 Switching Protocols", *(f"{name}: {value}" for name, value in headers.items())]
    await peer.stream.send("\r\n".join([*lines, "", ""]).encode())


@contextlib.asynccontextmanager
async def serving(
    handler: Callable[[WebSocketStream], Awaitable[object]], **options: Any
) -> AsyncIterator[int]:
    """Our server; gives its port."""
    async with (
        opening.listen("127.0.0.1", 0, **options) as server,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(server.serve, handler)
        yield server.addresses[0][1]
        tasks.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def raw_client(port: int, **fields: Any) -> AsyncIterator[RawPeer]:
    """A raw client whose handshake the server has agreed to."""
    async with await connect_tcp("127.0.0.1", port) as stream:
        peer = RawPeer(stream, client=True)
        answer = await peer.ask(**fields)
        assert answer.status == 101, answer
        yield peer


@contextlib.asynccontextmanager
async def raw_server(talk: Callable[[RawPeer], Awaitable[object]]) -> AsyncIterator[str]:
    """A raw server, which talks to each of its clients by itself; gives its URL."""

    async def handler(stream: Any) -> None:
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            await talk(RawPeer(stream, client=False))

    async with listen_tcp("127.0.0.1", 0) as server, anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, handler)
        yield f"ws://127.0.0.1:{server.addresses[0][1]}/"
        tasks.cancel_scope.cancel()


Linked = tuple[WebSocketStream, WebSocketStream]


@contextlib.asynccontextmanager
async def linked(
    *, secured: Path | None = None, first: str = "client", **options: Any
) -> AsyncGenerator[Linked]:
    """Two ends of one WebSocket, `first` of which comes first."""
    arrived: list[WebSocketStream] = []
    there, over = anyio.Event(), anyio.Event()

    async def handler(stream: WebSocketStream) -> None:
        arrived.append(stream)
        there.set()
        await over.wait()

    serving_tls = trusting = None
    if secured is not None:
        serving_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        serving_tls.load_cert_chain(secured)
        trusting = ssl.create_default_context(cafile=str(secured))
    async with serving(handler, ssl_context=serving_tls, **options) as port:
        url = f"{'ws' if secured is None else 'wss'}://localhost:{port}/"
        async with opening.connect(url, ssl_context=trusting, **options) as client:
            await there.wait()
            try:
                yield (client, arrived[0]) if first == "client" else (arrived[0], client)
            finally:
                over.set()  # the server closes, too: else the client would wait for an answer


def make_certificate(path: Path) -> Path:
    """A certificate for localhost that vouches for itself, with its key."""
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout - -out -"
    )
    try:
        made = subprocess.run(command.split(), capture_output=True, check=True)
    except OSError:
        pytest.skip("no openssl to make a certificate with")
    path.write_bytes(made.stdout)
    return path
