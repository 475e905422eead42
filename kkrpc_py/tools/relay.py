"""`relay`: whole messages between two byte streams, by somebody who knows neither side's API.

It owns the two directions, and what becomes of one side when the other ends. Where frames end is
`tools.cutting`'s; nothing is decoded, and nothing is kept but the beginning of one frame a direction.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any, Final

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream

from kkrpc_py.errors import KkrpcError
from kkrpc_py.limits import Limits
from kkrpc_py.tools.cutting import Cutter

__all__ = ["relay"]

_log = logging.getLogger("kkrpc_py.relay")

_READ_BYTES: Final = 1 << 18
_BRACE: Final = 0x7B
_STOCK_READ: Final = 1 << 16
_GONE: Final = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


async def relay(stream_a: Any, stream_b: Any, *, limits: Limits | None = None) -> None:
    """Pass on all that `stream_a` sends to `stream_b`, and the other way, until both have ended.

    The streams are what `RPCChannel` takes, and are closed at the end, also when this is cancelled.
    Frames are passed on whole and unchanged, and lines of noise too; a frame whose end never comes is
    dropped. A direction reads on when what it has read is written, so that the slower side sets the
    pace, and holds one read and the beginning of one frame, `limits.frame` bytes at most.

    A side that ends ends the other side's input; where the stream cannot say that, the other side has
    `limits.finish_seconds` for what it still sends. Of a side that reads no more, what it had sent is
    passed on for as long. Both are no error. Raises LimitExceeded and ProtocolError for a frame that
    cannot be passed on (FRM-6, FRM-3), after those before it were.
    """
    limits = limits if limits is not None else Limits()
    there = _Direction(stream_a, stream_b, limits)
    back = _Direction(stream_b, stream_a, limits)
    there.opposite, back.opposite = back, there
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(there.run, name="kkrpc_py relay")
            tasks.start_soon(back.run, name="kkrpc_py relay")
        with anyio.move_on_after(limits.drain_seconds):
            for stream in (stream_a, stream_b):
                with contextlib.suppress(*_GONE):
                    await stream.aclose()
    finally:
        with anyio.CancelScope(shield=True):
            for stream in (stream_a, stream_b):
                with contextlib.suppress(*_GONE):
                    await anyio.aclose_forcefully(stream)
    error = there.error or back.error
    if error is not None:
        raise error


class _Direction:
    """From one stream to the other."""

    opposite: _Direction

    def __init__(self, source: Any, target: Any, limits: Limits) -> None:
        self.error: KkrpcError | None = None
        """What was read that cannot be passed on."""
        self.scope = anyio.CancelScope()
        self.over = False
        self.unread = False
        """The target reads no more."""
        self._source = source
        self._target = target
        self._limits = limits
        self._cutter = Cutter(limits.frame)
        self._unsent: list[bytes] = []
        self._receive = self._receive_bytes if isinstance(source, ByteReceiveStream) else self._receive_item
        self._read_each: Any = getattr(source, "receive_each", None)
        takes_bytes = isinstance(target, ByteSendStream)
        self._send_nowait: Any = getattr(target, "send_nowait", None) if takes_bytes else None
        # Else a send is a message of its own, or others may write between two sends.
        self._in_pieces = takes_bytes and not getattr(target, "shares_output", False)

    async def run(self) -> None:
        with self.scope:
            try:
                await self._forward()
            except KkrpcError as exc:
                self.error = exc
        self.over = True
        if self.error is not None or self.opposite.unread:
            self.opposite.scope.cancel()

    def hurry(self) -> None:
        """Give this direction little time to end."""
        self.scope.deadline = anyio.current_time() + self._limits.finish_seconds

    async def _forward(self) -> None:
        try:
            while not self.unread:
                await self._read()
                await self._write()
                if self._cutter.error is not None:
                    raise self._cutter.error
        except (anyio.EndOfStream, *_GONE):
            dropped = self._cutter.finish()
            if dropped:
                _log.info("a side ended inside a message, of which %d bytes had come", dropped)
            await self._end_target()
            return
        if not self.opposite.over:
            # What the target has sent may still be on its way, and the source must not wait for ever.
            self.opposite.hurry()
            with contextlib.suppress(anyio.EndOfStream, *_GONE):
                while True:
                    await self._receive()

    async def _read(self) -> None:
        """Read until there is something to write that has to wait. Raises at the source's end."""
        if self._read_each is not None and self._send_nowait is not None:
            await self._read_each(_READ_BYTES, self._take)
        else:
            self._take(await self._receive())

    async def _receive_bytes(self) -> bytes:
        data: bytes = await self._source.receive(_READ_BYTES)
        return data

    async def _receive_item(self) -> bytes:
        item = await self._source.receive()
        data: bytes = item.encode() if isinstance(item, str) else item
        return data + b"\n"  # the last line of an item may lack it

    def _take(self, data: bytes) -> bool:
        """Pass on what goes without waiting. False: the rest has to wait, or nothing more can be."""
        cutter = self._cutter
        at_start = cutter.between_frames
        pieces = cutter.feed(data)
        if pieces:
            if at_start and pieces[0][0] == _BRACE and sum(map(len, pieces)) % _STOCK_READ == 1:
                # A stock reader reads so many bytes at a time; a line feed alone would be lost (FRM-10).
                pieces[0] = b" " + pieces[0]
            self._unsent = pieces if self._in_pieces else [b"".join(pieces)]
            self._write_now()
        return not self._unsent and cutter.error is None

    def _write_now(self) -> None:
        unsent, send = self._unsent, self._send_nowait
        while unsent and send is not None:
            try:
                sent = send(unsent[0])
            except _GONE:  # `_write` meets the same, and says so
                return
            if sent < len(unsent[0]):
                unsent[0] = unsent[0][sent:]
                return
            del unsent[0]

    async def _write(self) -> None:
        unsent, self._unsent = self._unsent, []
        try:
            for data in unsent:
                await self._target.send(data)
        except _GONE:
            self.unread = True

    async def _end_target(self) -> None:
        try:
            await self._target.send_eof()
        except (NotImplementedError, AttributeError):  # TLS, or an object stream that has none
            self.opposite.hurry()
        except _GONE:
            pass
