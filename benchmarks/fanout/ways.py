"""The two ways from one producer to many subscribers: the hub's, and the obvious one without it.

Both are lossless, hold as many values for a subscriber at the most, and let the other tasks run as often.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol
from unittest import mock

import anyio
from anyio.lowlevel import checkpoint

import kkrpc_py as kk
from kkrpc_py.core.passing import Passage
from kkrpc_py.wire.messages import Chunks
from kkrpc_py.wire.shared import SharedWriter

NAME = "fanout"
WAITING = 256
"""Values that may wait for one subscriber before the producer waits for it: the hub's default."""
TURN = 64
"""Values after which the producer lets the others run; `OutboundStream.send` does so by itself, as often."""


class Feed(Protocol):
    """One stream, as its producer has it."""

    @property
    def subscribers(self) -> int:
        """How many there are now."""
        ...

    async def send(self, value: Any) -> None: ...

    def close(self) -> None: ...


class Hub:
    """`kk.StreamHub`; its readers choose `overflow="block"`."""

    def __init__(self) -> None:
        hub = kk.StreamHub()
        self.exposed: dict[str, Any] = {"streams": hub}
        self._channel = hub.create(NAME)

    def start(self, id: str) -> Feed:
        return self._channel.start(id)

    @staticmethod
    def read(channel: kk.RPCChannel, id: str) -> AsyncIterator[Any]:
        """The values of that stream, as a subscriber has them."""
        return aiter(kk.streams(channel).subscribe(NAME, id, overflow="block", high_water_mark=WAITING))


class Naive:
    """A handler that is an async generator, and a queue of plain values for each subscriber."""

    def __init__(self) -> None:
        self.exposed: dict[str, Any] = {"feed": self._feed}
        self._feeds: dict[str, _Queues] = {}

    def start(self, id: str) -> Feed:
        found = self._feeds[id] = _Queues()
        return found

    def _feed(self, id: str) -> AsyncIterator[Any]:
        return self._feeds[id].values()

    @staticmethod
    def read(channel: kk.RPCChannel, id: str) -> AsyncIterator[Any]:
        return aiter(channel.remote().feed(id))


class _Queues:
    """As quick as a few lines get: queues are deques, and somebody is woken only where he waits."""

    def __init__(self) -> None:
        self._queues: dict[_Queue, None] = {}
        self._sent = 0
        self._closed = False
        self._room = anyio.Event()

    @property
    def subscribers(self) -> int:
        return len(self._queues)

    async def values(self) -> AsyncIterator[Any]:
        """What one subscriber gets."""
        queue = _Queue()
        values = queue.values
        self._queues[queue] = None
        try:
            while True:
                while values:
                    yield values.popleft()
                self._room.set()
                if self._closed:
                    return
                queue.filled = anyio.Event()
                await queue.filled.wait()
        finally:
            del self._queues[queue]

    async def send(self, value: Any) -> None:
        self._sent += 1
        if self._sent % TURN == 0:
            await checkpoint()
        for queue in self._queues:
            while len(queue.values) >= WAITING:
                self._room = anyio.Event()
                await self._room.wait()
            if not queue.values:
                queue.filled.set()
            queue.values.append(value)

    def close(self) -> None:
        self._closed = True
        for queue in self._queues:
            queue.filled.set()


class _Queue:
    """What waits for one subscriber."""

    def __init__(self) -> None:
        self.values: deque[Any] = deque()
        self.filled = anyio.Event()


WAYS: dict[str, type[Hub] | type[Naive]] = {"hub": Hub, "naive": Naive}


@contextlib.contextmanager
def counted_encodings() -> Iterator[list[int]]:
    """Counts, in the one item of the list, how often a value of a stream is written as JSON or CBOR."""
    count = [0]
    encode, as_json, as_cbor = Passage.encode, SharedWriter._as_json, SharedWriter._as_cbor

    def encode_counted(self: Passage, message: Any) -> bytes:
        frame = encode(self, message)
        if type(message) is Chunks:
            count[0] += len(message.values)
        return frame

    def as_json_counted(self: SharedWriter, value: Any, form: int) -> bytes:
        text = as_json(self, value, form)
        count[0] += 1
        return text

    def as_cbor_counted(self: SharedWriter, value: Any) -> bytes:
        payload = as_cbor(self, value)
        count[0] += 1
        return payload

    with (
        mock.patch.object(Passage, "encode", encode_counted),
        mock.patch.object(SharedWriter, "_as_json", as_json_counted),
        mock.patch.object(SharedWriter, "_as_cbor", as_cbor_counted),
    ):
        yield count
