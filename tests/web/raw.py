"""HTTP/1.1 by hand over a socket, for what an HTTP library would not do or would hide.

It owns no test.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import anyio
from anyio.abc import SocketAttribute, SocketStream

__all__ = ["Raw", "connected", "post", "read_after_all", "unread"]


def post(path: str, body: Any = None, **headers: str) -> bytes:
    """A POST request of JSON; `bytes` go as they are. Names of headers have `_` for `-`; "" omits one."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    fields = {
        "host": "localhost",
        "content-type": "application/json",
        "content-length": str(len(content)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + content


class Raw:
    """One connection."""

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream
        self.head = b""
        """Status line and headers of the answer, once `begun`."""
        self.body = b""
        """What has come of the body, without the framing of chunks."""
        self.writes: list[bytes] = []
        """The chunks of HTTP that it came in."""
        self.ended = False
        """The body has come to its end, as HTTP has it."""
        self._bytes = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send(data)

    async def begun(self) -> int:
        """Wait for the head of the answer; its status."""
        while b"\r\n\r\n" not in self._bytes:
            self._bytes += await self.stream.receive()
        self.head, _, self._bytes = self._bytes.partition(b"\r\n\r\n")
        status = int(self.head.split(b" ", 2)[1])
        if status >= 200:
            self._unchunk()
        return status

    @property
    def headers(self) -> dict[str, str]:
        pairs = (line.split(": ", 1) for line in self.head.decode().split("\r\n")[1:])
        return {name.lower(): value for name, value in pairs}

    async def until(self, part: bytes) -> bytes:
        """Read until the body has `part` in it."""
        while part not in self.body:
            await self._more()
        return self.body

    async def whole(self) -> bytes:
        """Read to the end of the body, or of the connection."""
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while not self.ended:
                await self._more()
        return self.body

    async def closed(self) -> bool:
        """Wait for the end of the connection."""
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                await self.stream.receive()
        return True

    def reset(self) -> None:
        """Make the end of this connection a reset, as if the client's machine were gone."""
        raw = self.stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async def _more(self) -> None:
        self._bytes += await self.stream.receive()
        self._unchunk()

    def _unchunk(self) -> None:
        if "transfer-encoding" not in self.headers:
            self.body += self._bytes
            self._bytes = b""
            self.ended = len(self.body) >= int(self.headers.get("content-length", "0"))
            return
        while b"\r\n" in self._bytes:
            size, _, rest = self._bytes.partition(b"\r\n")
            length = int(size, 16)
            if len(rest) < length + 2:
                return
            self.ended = length == 0
            if length:
                self.writes.append(rest[:length])
                self.body += rest[:length]
            self._bytes = rest[length + 2 :]


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Raw]:
    """Connect to a server."""
    async with await anyio.connect_tcp(*_address(url)) as stream:
        yield Raw(stream)


@contextlib.contextmanager
def unread(url: str, request: bytes) -> Iterator[socket.socket]:
    """Send a request and read nothing: neither this process nor, but for a few kilobytes, its kernel."""
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.connect(_address(url))  # to a listener of this process: the kernel answers
        plain.sendall(request)
        plain.setblocking(False)
        yield plain


@contextlib.asynccontextmanager
async def read_after_all(plain: socket.socket) -> AsyncIterator[Raw]:
    """Begin to read."""
    async with await SocketStream.from_socket(plain.dup()) as stream:
        yield Raw(stream)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port
