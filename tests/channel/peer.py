"""A scripted peer: the far end of a channel, spoken to in bytes, and heard in bytes.

It knows the frames of spec/protocol.md by itself (the standard library's JSON, plain cbor2) and shares
no code with what it tests. It remembers every byte that the channel wrote, and how it was handed over.
"""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio
import cbor2
from anyio.abc import ByteStream

import kkrpc_py as kk
from kkrpc_py.transports.memory import MemoryByteStream, memory_byte_streams

SECONDS = 30
"""No test waits longer for anything."""

STOCK_TYPES = {
    "request",
    "response",
    "callback",
    "get",
    "set",
    "construct",
    "stream-chunk",
    "stream-end",
    "stream-error",
    "stream-cancel",
}
FEATURES = ["credit", "batch", "result", "cancel", "cbor"]
ALL_FEATURES = [*FEATURES, "callback", "stream-arguments", "kwargs", "metadata"]
_PING = "a ping of the scripted peer"


class Recorder(ByteStream):
    """The channel's byte stream: notes each write as it was handed over."""

    def __init__(self, stream: MemoryByteStream) -> None:
        self._stream = stream
        self.writes: list[bytes] = []
        self.closed = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._stream.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        self.writes.append(bytes(item))
        await self._stream.send(item)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        self.closed = True
        await self._stream.aclose()


class EagerRecorder(Recorder):
    """The same for the way that skips the writer's task where there is room."""

    _begun = b""
    """What was taken of a write that the task is to finish: the transport's business, not another write."""

    def send_nowait(self, data: bytes) -> int:
        taken = self._stream.send_nowait(data)
        if taken == len(data):
            self.writes.append(bytes(data))
        else:
            self._begun = bytes(data[:taken])
        return taken

    async def send(self, item: bytes) -> None:
        begun, self._begun = self._begun, b""
        self.writes.append(begun + item)
        await self._stream.send(item)


class Peer:
    """The far end of `channel`."""

    def __init__(self, channel: kk.RPCChannel, stream: MemoryByteStream, recorder: Recorder) -> None:
        self.channel = channel
        self.recorder = recorder
        self.heard = bytearray()
        """Every byte that was read from the channel."""
        self.frames: list[bytes] = []
        """Every frame that was read, as it came: a line without its line feed, or a whole CBOR frame."""
        self._stream = stream
        self._unread = bytearray()
        self._inbox: deque[dict[str, Any]] = deque()
        self._pings = 0
        self._sending = anyio.Lock()

    # Speaking ------------------------------------------------------------------------------

    async def send(self, *frames: bytes | str | dict[str, Any]) -> None:
        """Write frames: bytes as they are, text as a line, a mapping as a line of JSON."""
        data = b""
        for frame in frames:
            if isinstance(frame, bytes):
                data += frame
            else:
                text = frame if isinstance(frame, str) else json.dumps(frame)
                data += text.encode("utf-8", "surrogatepass") + b"\n"
        async with self._sending:
            await self._stream.send(data)

    async def sent(self) -> None:
        """Wait until what another task sends is sent."""
        await anyio.wait_all_tasks_blocked()
        async with self._sending:
            pass

    async def eof(self) -> None:
        await self._stream.send_eof()

    async def close(self) -> None:
        await self._stream.aclose()

    # Hearing -------------------------------------------------------------------------------

    async def next(self) -> dict[str, Any]:
        """The next message. Raises EndOfStream when the channel has closed."""
        while not self._inbox:
            data = await self._stream.receive()
            self.heard += data
            self._unread += data
            self._split()
        return self._inbox.popleft()

    async def rest(self) -> list[dict[str, Any]]:
        """What comes until the channel closes."""
        messages = []
        with contextlib.suppress(anyio.EndOfStream):
            while True:
                messages.append(await self.next())
        assert not self._unread, "the channel stopped inside a frame"
        return messages

    async def exchange(self, *frames: bytes | str | dict[str, Any]) -> list[dict[str, Any]]:
        """Write `frames`; everything that the channel says until it has nothing left to do."""
        await self.send(*frames)
        said = await self._until_pong()
        await at_rest(self.channel)
        return said + await self._until_pong()

    async def _until_pong(self) -> list[dict[str, Any]]:
        # A method that nothing exposes: the reader itself answers, after all that it read before.
        self._pings += 1
        id = f"{_PING} {self._pings}"
        await self.send(request(id, "ping.of.the.peer"))
        said = []
        while (message := await self.next()).get("id") != id:
            said.append(message)
        return said

    def _split(self) -> None:
        while True:
            if self._unread.startswith(b"\xd8\x18"):
                head, length = _cbor_head(self._unread)
                if length is None or len(self._unread) < head + length:
                    return
                end = head + length
                self._inbox.append(cbor2.loads(bytes(self._unread[head:end])))
                self.frames.append(bytes(self._unread[:end]))
                del self._unread[:end]
                continue
            end = self._unread.find(b"\n")
            if end < 0:
                return
            line = bytes(self._unread[:end])
            del self._unread[: end + 1]
            self.frames.append(line)
            self._inbox.append(json.loads(line))


def _cbor_head(data: bytearray) -> tuple[int, int | None]:
    if len(data) < 3:
        return 3, None
    first = data[2]
    if first < 0x58:
        return 3, first - 0x40
    size = 1 << (first - 0x58)
    if len(data) < 3 + size:
        return 3 + size, None
    return 3 + size, int.from_bytes(data[3 : 3 + size], "big")


@contextlib.asynccontextmanager
async def scripted(
    api: Any = None, *, eager: bool = True, hello: bool = False, **options: Any
) -> AsyncGenerator[tuple[kk.RPCChannel, Peer]]:
    """A channel that exposes `api`, and its peer. After the block nothing may be left of it."""
    with anyio.fail_after(SECONDS):
        before = {task.id for task in anyio.get_running_tasks()}
        near, far = memory_byte_streams()
        recorder = (EagerRecorder if eager else Recorder)(near)
        async with kk.RPCChannel(recorder, expose=api, hello=hello, **options) as channel:
            yield channel, Peer(channel, far, recorder)
        assert channel.closed
        assert recorder.closed
        assert not channel.connection.outgoing
        left = [task.name for task in anyio.get_running_tasks() if task.id not in before]
        assert not left, f"tasks are left: {left}"


def unfinished(channel: kk.RPCChannel) -> dict[str, Any]:
    """What the channel still keeps of calls and streams, in whichever table."""
    connection, pool = channel.connection, channel._pool
    kept = {
        "incoming": dict(connection.incoming),
        "outgoing": dict(connection.outgoing),
        "without id": connection._anonymous,
        "to write": connection.outbox.size,
        "running": pool._running,
        "queued": list(pool._jobs),
    }
    return {name: value for name, value in kept.items() if value}


async def at_rest(channel: kk.RPCChannel) -> None:
    """Wait until the channel keeps nothing of any call or stream."""
    await until(lambda: not unfinished(channel), lambda: f"left over: {unfinished(channel)}")


async def until(condition: Callable[[], object], otherwise: Callable[[], str] = lambda: "") -> None:
    """Wait until `condition` holds, for what tells nobody when it comes about."""
    try:
        with anyio.fail_after(SECONDS / 3):
            while not condition():
                await anyio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(otherwise()) from None


# --- messages -------------------------------------------------------------------------------


def request(id: Any, method: str, *args: Any) -> dict[str, Any]:
    return {"id": id, "method": method, "args": list(args), "type": "request", "version": "json"}


def response(id: Any, **args: Any) -> dict[str, Any]:
    return {"id": id, "method": "", "args": args, "type": "response", "version": "json"}


def result(id: Any, value: Any) -> dict[str, Any]:
    return response(id, result=value)


def opened(id: Any) -> dict[str, Any]:
    return result(id, {"__stream": True})


def chunk(id: Any, value: Any) -> dict[str, Any]:
    return {"id": id, "method": "", "args": {"value": value}, "type": "stream-chunk", "version": "json"}


def end(id: Any, **args: Any) -> dict[str, Any]:
    return {"id": id, "method": "", "args": args, "type": "stream-end", "version": "json"}


def stream_error(id: Any, error: Any) -> dict[str, Any]:
    return {"id": id, "method": "", "args": {"error": error}, "type": "stream-error", "version": "json"}


def cancel(id: Any) -> dict[str, Any]:
    return {"id": id, "method": "", "args": {}, "type": "stream-cancel", "version": "json"}


def ack(id: Any, n: Any, b: Any) -> dict[str, Any]:
    return {"id": id, "method": "", "args": {"n": n, "b": b}, "type": "stream-ack", "version": "json"}


def hello(id: Any = "hello", features: list[str] = FEATURES) -> dict[str, Any]:
    return request(id, "kkrpc.hello", {"protocol": 1, "features": features})


def cbor_frame(payload: bytes) -> bytes:
    """A frame around any payload, written here for itself."""
    return b"\xd8\x18\x5a" + len(payload).to_bytes(4, "big") + payload


def as_cbor(message: dict[str, Any]) -> bytes:
    return cbor_frame(cbor2.dumps(message))
