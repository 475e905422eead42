"""A WebSocket as a stream of items, on asyncio and trio alike.

Owns the connection once it is open: reading, writing, ping, closing. How it is opened is the part of
`transports.opening`. The protocol's own rules (RFC 6455: frames, masks, fragments, sizes, who closes when)
are those of the library `websockets`, which is used without its I/O; decision 0019 says why.

Whoever sends may be cancelled, and a cancelled send must not leave half a message on the wire. So what a send
cannot write at once is written by a task of the connection's own, which nobody cancels. There is one as long
as something waits to be written, and another that pings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import anyio
from anyio.abc import ByteStream, ObjectStream, TaskGroup
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled
from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, State

from kkrpc_py.errors import KkrpcError, LimitExceeded, ProtocolError
from kkrpc_py.transports.descriptors import DescriptorStream
from kkrpc_py.transports.handshake import HandshakeRequest
from kkrpc_py.transports.items import (
    FAREWELL,
    INTERNAL_ERROR,
    NORMAL,
    TOO_LARGE,
    WRONG_DATA,
    Item,
    items_of,
    line_of,
    peer_closed,
    short_reason,
    went_well,
)

__all__ = ["CLOSE_SECONDS", "WebSocketStream"]

CLOSE_SECONDS: Final = 1.5
"""What writing the rest and the closing handshake may take; then the connection is cut."""

_READ_BYTES: Final = 64 * 1024
_WRITE_BYTES: Final = 256 * 1024
"""So much is written between two looks at whether the peer takes anything."""
_PONG_HEAD: Final = 0x8A
"""The first byte of a pong frame (RFC 6455, 5.2)."""
_LOST: Final = "the WebSocket was lost without a closing handshake"


class WebSocketStream(ObjectStream[bytes]):
    """An open WebSocket. Each item is a message: bytes that begin with `{` travel as text, others as binary.

    A text that is received ends with a line feed, whether it did so on the wire or not. One task receives
    and one sends at a time. A cancelled receive loses nothing; what a cancelled send has begun leaves whole.
    """

    half_closes = False
    """A WebSocket ends both ways at once: nothing can be sent after the peer's end."""

    def __init__(
        self,
        byte_stream: ByteStream,
        protocol: Protocol,
        tasks: TaskGroup,
        *,
        headers: Mapping[str, str],
        request: HandshakeRequest | None = None,
        received: bytes = b"",
        ping_seconds: float = 20.0,
    ) -> None:
        """Made by `transports.opening`, whose task group `tasks` outlives it.

        :param received: what has come behind the handshake.
        """
        self.headers = headers
        """The header fields of the other side's handshake, names in lower case."""
        self.request = request
        """On the server's side: what the client asked for."""
        self.client = None if request is None else request.client
        """On the server's side: the client's address, where it is known."""
        self.farewell = False
        """Say `__DESTROY__` before closing, for a peer that does not notice a closed WebSocket (TRN-3)."""
        self.failure: KkrpcError | None = None
        """What the peer did wrong, where that ended the connection."""
        self._bytes = byte_stream
        self._protocol = protocol
        self._tasks = tasks
        self._ping_seconds = ping_seconds
        self._closing_code = NORMAL
        self._closing_reason = ""
        self._closed = False
        # Receiving
        self._items: deque[bytes] = deque()
        self._fragments = bytearray()
        """What has come of a message in fragments. Empty ones, however many there are, take no room."""
        self._fragments_text = False
        self._end: type[Exception] | None = None
        """What receiving ends with, once the items are taken; None: more may come."""
        self._end_text = ""
        self._receiving = False
        self._enough = False
        """Whoever receives wants no more."""
        self._reading: anyio.CancelScope | None = None
        self._left_reading: anyio.Event | None = None
        # Sending
        self._send_nowait: Callable[[bytes], int] | None = getattr(byte_stream, "send_nowait", None)
        self._sending = False
        self._unwritten: deque[bytes | memoryview] = deque()
        self._pong = b""
        """The last one that has not been written: the ones before it need no answer (RFC 6455, 5.5.3)."""
        self._draining = False
        self._drained: anyio.Event | None = None
        self._broken = False
        # Whether the peer lives
        self._heard = self._progress = False
        if received:
            self._take_in(received)
        tasks.start_soon(self._keep_alive, name="kkrpc_py WebSocket ping")

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Those of the connection below: addresses, and TLS if there is any."""
        return self._bytes.extra_attributes

    def close_with(self, code: int, reason: str = "") -> None:
        """What `aclose` is to tell the peer (TRN-4); of several calls the first one counts."""
        if self._closing_code == NORMAL:
            self._closing_code, self._closing_reason = code, short_reason(reason)

    # Receiving -----------------------------------------------------------------------------

    async def receive(self) -> bytes:
        """The next message.

        Raises `anyio.EndOfStream` (closed by the peer with 1000, 1001 or no code), `BrokenResourceError`
        (closed otherwise, lost, or against the rules), `ClosedResourceError` (also when closed while
        waiting), `BusyResourceError`.
        """
        self._begin_receiving()
        try:
            await checkpoint()
            while not self._items:
                self._check_end()
                await self._read(self._read_once)
            return self._items.popleft()
        finally:
            self._end_receiving()

    async def receive_each(self, max_bytes: int, take: Callable[[bytes], bool]) -> None:
        """Call `take` with what there is, one message or several together, until it returns False.

        `take` runs as `DescriptorReceiveStream.receive_each` says. Raises what `receive` and `take` raise.
        """
        self._begin_receiving()
        self._enough = False

        def feed(data: bytes) -> bool:
            self._take_in(data)
            self._hand_on(take)
            return not self._enough and self._end is None

        async def read_each() -> None:
            each = getattr(self._bytes, "receive_each", None)
            if each is not None:
                await each(max_bytes, feed)
            else:
                while feed(await self._bytes.receive(max_bytes)):
                    pass

        try:
            await checkpoint_if_cancelled()
            self._hand_on(take)
            while not self._enough:
                self._check_end()
                await self._read(read_each)
        finally:
            self._end_receiving()

    def _hand_on(self, take: Callable[[bytes], bool]) -> None:
        items = self._items
        if items:
            data = items[0] if len(items) == 1 else b"".join(items)
            items.clear()
            self._enough = not take(data)

    async def _read_once(self) -> None:
        self._take_in(await self._bytes.receive(_READ_BYTES))

    async def _read(self, read: Callable[[], Awaitable[None]]) -> None:
        try:
            with anyio.CancelScope() as self._reading:
                await read()
        except anyio.EndOfStream:
            self._protocol.receive_eof()
            self._ends(anyio.BrokenResourceError, _LOST)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._ends(anyio.BrokenResourceError, _LOST)
        finally:
            self._reading = None
        self._check_open()

    def _begin_receiving(self) -> None:
        if self._receiving:
            raise anyio.BusyResourceError("receiving from")
        self._check_open()
        self._receiving = True

    def _end_receiving(self) -> None:
        self._receiving = False
        if self._left_reading is not None:
            self._left_reading.set()

    def _check_open(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError

    def _check_end(self) -> None:
        if self._end is not None:
            raise self._end(self._end_text) if self._end_text else self._end

    def _ends(self, how: type[Exception], text: str = "") -> None:
        """Nothing more comes, and this is why; what was known before goes before it."""
        if self._end is None:
            self._end, self._end_text = how, text

    def _take_in(self, data: bytes) -> None:
        """Bytes that the peer has sent: items for whoever receives, and answers that need nobody."""
        protocol = self._protocol
        self._heard = True
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame) and self._end is None:
                self._take_frame(event)
        if protocol.parser_exc is not None and self._end is None:
            self._accuse(protocol.parser_exc)
        self._write_answers()

    def _take_frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is Opcode.TEXT or opcode is Opcode.BINARY:
            if frame.fin:
                self._take_item(bytes(frame.data), opcode is Opcode.TEXT)
            else:
                self._fragments += frame.data
                self._fragments_text = opcode is Opcode.TEXT
        elif opcode is Opcode.CONT:  # in its place: the protocol sees to that
            self._fragments += frame.data
            if frame.fin:
                data = bytes(self._fragments)
                self._fragments = bytearray()
                self._take_item(data, self._fragments_text)
        elif opcode is Opcode.CLOSE:
            received = self._protocol.close_rcvd
            assert received is not None
            if went_well(received.code):
                self._ends(anyio.EndOfStream)
            else:
                self._ends(anyio.BrokenResourceError, peer_closed(received.code, received.reason))

    def _take_item(self, data: bytes, text: bool) -> None:
        if not text:
            self._items.append(data)
        elif data == FAREWELL:
            self._ends(anyio.EndOfStream)
        elif data.isascii() or _is_utf8(data):
            self._items.append(line_of(data))
        else:
            self.failure = ProtocolError("a WebSocket text that is not UTF-8")
            self._fail(WRONG_DATA, "text that is not UTF-8", str(self.failure))

    def _accuse(self, wrong: Exception) -> None:
        """The protocol has failed the connection: say why."""
        sent = self._protocol.close_sent
        if sent is None:
            self._ends(anyio.BrokenResourceError, _LOST)
            return
        if sent.code == TOO_LARGE and isinstance(wrong, PayloadTooBig):
            self.failure = LimitExceeded(f"a WebSocket message that is too large: {wrong}")
        else:
            self.failure = ProtocolError(f"the peer broke the WebSocket protocol: {wrong}")
        self._ends(anyio.BrokenResourceError, str(self.failure))

    def _fail(self, code: int, reason: str, text: str) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.fail(code, reason)
        self._ends(anyio.BrokenResourceError, text)

    # Sending -------------------------------------------------------------------------------

    async def send(self, item: bytes) -> None:
        """Send one message, and wait until all of it is with the system.

        Raises `anyio.BrokenResourceError` (the peer has closed, or is gone), `ClosedResourceError` (also
        when closed while waiting), `BusyResourceError`. A cancelled send has sent nothing, or all of it
        still leaves.
        """
        await self._send([Item(item.startswith(b"{"), item)])

    async def send_frames(self, frames: Sequence[bytes]) -> None:
        """Send whole frames of a channel, in as few messages as they fit into. Otherwise as `send`."""
        await self._send(items_of(frames))

    def send_frames_nowait(self, frames: Sequence[bytes]) -> bool:
        """Take the frames, all of them, without waiting; False: none, since others are still being written.

        Raises `anyio.BrokenResourceError`, `ClosedResourceError`.
        """
        self._check_sendable()
        if self._sending or self._draining:
            return False
        self._put(items_of(frames))
        return True

    async def _send(self, items: Sequence[Item]) -> None:
        if self._sending:
            raise anyio.BusyResourceError("sending to")
        self._check_sendable()
        self._sending = True
        try:
            if self._draining:  # what a cancelled send has left
                await self._wait_drained()
                self._check_sendable()
            else:
                await checkpoint_if_cancelled()
            self._put(items)
            if self._draining:
                await self._wait_drained()
                self._check_sendable()
            else:
                await cancel_shielded_checkpoint()
        finally:
            self._sending = False

    def _check_sendable(self) -> None:
        self._check_open()
        if self._broken or self._protocol.state is not State.OPEN:
            raise anyio.BrokenResourceError(self._end_text or "the WebSocket is closed")

    def _put(self, items: Sequence[Item]) -> None:
        protocol = self._protocol
        for text, data in items:
            if text:
                protocol.send_text(data)
            else:
                protocol.send_binary(data)
        written = protocol.data_to_send()
        self._write(written[0] if len(written) == 1 else b"".join(written))

    def _write_answers(self) -> None:
        """Write what the protocol has to say by itself: pongs, and the answer to a close."""
        for data in self._protocol.data_to_send():
            if not data:
                continue  # it is time to close the connection below, which `aclose` does
            if data[0] == _PONG_HEAD:
                self._pong = data
            else:
                self._write(data)
        if self._pong and not self._draining:
            pong, self._pong = self._pong, b""
            self._write(pong)

    def _write(self, data: bytes) -> None:
        """Write as much as goes without waiting, and leave the rest to a task."""
        if self._broken:
            return
        rest: bytes | memoryview = data
        if not self._draining:
            if self._send_nowait is not None:
                try:
                    count = self._send_nowait(data)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    self._broken = True
                    return
                if count == len(data):
                    return
                rest = memoryview(data)[count:]
            self._draining = True
            self._tasks.start_soon(self._drain, name="kkrpc_py WebSocket writer")
        self._unwritten.append(rest)

    async def _drain(self) -> None:
        """Write what waits, until nothing does. A task of its own; only a broken connection stops it."""
        unwritten = self._unwritten
        try:
            with anyio.CancelScope(shield=True):
                while unwritten or self._pong:
                    if not unwritten:
                        unwritten.append(self._pong)
                        self._pong = b""
                    rest = unwritten.popleft()
                    while rest:
                        # A view is as good as bytes to every stream that is below us.
                        piece: Any = rest if len(rest) <= _WRITE_BYTES else memoryview(rest)[:_WRITE_BYTES]
                        await self._bytes.send(piece)
                        self._progress = True
                        rest = rest[len(piece) :]
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            self._broken = True
        except BaseException:  # asyncio's own cancel, which no scope holds up
            self._broken = True
            raise
        finally:
            self._draining = False
            if self._broken:
                unwritten.clear()
            if self._drained is not None:
                self._drained.set()
                self._drained = None

    async def _wait_drained(self) -> None:
        while self._draining:
            if self._drained is None:
                self._drained = anyio.Event()
            await self._drained.wait()
            if self._closed:
                return

    async def send_eof(self) -> None:
        """Close: a WebSocket cannot end one direction alone."""
        await self.aclose()

    # Whether the peer lives ------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        """Ping a peer of which nothing was heard for a while, and give it up after as long again (TRN-6)."""
        pinged = False
        while self._end is None and not self._closed:
            await anyio.sleep(self._ping_seconds)
            if self._heard or not self._receiving:  # whoever does not receive hears nothing
                self._heard = pinged = False
            elif not pinged:
                pinged, self._progress = True, False
                if self._protocol.state is State.OPEN:
                    self._protocol.send_ping(b"")
                    self._write_answers()
            elif self._draining and self._progress:
                self._progress = False  # the ping waits behind what the peer is still taking
            else:
                await self._give_up()

    async def _give_up(self) -> None:
        text = f"the peer did not answer a ping within {self._ping_seconds:g} s"
        self._fail(INTERNAL_ERROR, "ping timeout", text)
        if not self._draining:
            self._write_answers()
        await anyio.aclose_forcefully(self._bytes)

    # Closing -------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Say goodbye, and close: within `CLOSE_SECONDS`, whatever the peer does. Who waits is ended."""
        if self._closed:
            await cancel_shielded_checkpoint()
            return
        self._closed = True
        if self._drained is not None:
            self._drained.set()
        try:
            with anyio.move_on_after(CLOSE_SECONDS):
                await self._shake_hands()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # the peer was faster
        finally:
            await anyio.aclose_forcefully(self._bytes)

    async def _shake_hands(self) -> None:
        """The closing handshake (RFC 6455, 7.1.2)."""
        if self._receiving:
            self._left_reading = anyio.Event()
            if self._reading is not None:
                self._reading.cancel()
            await self._left_reading.wait()
        protocol = self._protocol
        agreed = True
        if protocol.state is State.OPEN:
            if self.farewell:
                protocol.send_text(FAREWELL)
            protocol.send_close(self._closing_code, self._closing_reason)
            self._write_answers()
        else:
            agreed = protocol.close_rcvd is not None
        self._drained = None
        while self._draining:
            self._drained = anyio.Event()
            await self._drained.wait()
        if not agreed and isinstance(self._bytes, DescriptorStream):
            # We have found fault with the peer, and do not read what it says to that. The end of our
            # direction tells it that we are through; to close at once could cost it our last words.
            await self._bytes.send_eof()
        while not self._broken and not (agreed and protocol.close_rcvd is not None):
            protocol.receive_data(await self._bytes.receive(_READ_BYTES))
            protocol.events_received()
            self._write_answers()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
