"""Clients and servers of named streams that are nothing but bytes. This module owns no test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any

import anyio
import sniffio

import kkrpc_py as kk
from kkrpc_py.limits import Limits
from tests.channel import peer as p
from tests.channel.harness import BOUND

CREDIT = 64
"""Chunks that a stream may send before the first acknowledgement; its mark takes one of them."""
EVERYTHING = 1 << 30


async def all_blocked() -> None:
    """Let the other tasks run until each of them waits: as anyio's own, which sleeps on asyncio."""
    if sniffio.current_async_library() == "trio":
        await anyio.wait_all_tasks_blocked()
        return
    current: Any = asyncio.current_task()
    while any(
        task is not current and (task._fut_waiter is None or task._fut_waiter.done())  # type: ignore[attr-defined]  # of asyncio alone
        for task in asyncio.all_tasks()
    ):
        await asyncio.sleep(0)


class Subscriber:
    """One subscription of a client that speaks in bytes: nothing is acknowledged but by `grant`."""

    def __init__(self, client: Client, id: str) -> None:
        self.client = client
        self.id = id
        self.mark: dict[str, Any] | None = None
        self.chunks: list[Any] = []
        """All that came since it was looked at, without the mark."""
        self.refusal: dict[str, Any] | None = None
        self.end: dict[str, Any] | None = None
        """The message that ended it."""

    @property
    def error(self) -> dict[str, Any]:
        """What it ended in."""
        assert self.end is not None
        found: dict[str, Any] = self.end["args"]["error"]
        return found

    def hear(self, message: dict[str, Any]) -> None:
        args = message["args"]
        assert self.end is None, "it goes on after its end"
        if message["type"] == "response":
            if "error" in args:
                self.refusal = args["error"]
            else:
                assert args == {"result": {"__stream": True}}
        elif message["type"] == "stream-chunk":
            values = args["values"] if "values" in args else [args["value"]]
            if self.mark is None:
                self.mark, *values = values
            self.chunks += values
        else:
            self.end = message

    def take(self) -> list[Any]:
        """The chunks that came since the last look."""
        taken, self.chunks = self.chunks, []
        return taken

    async def grant(self, chunks: int, size: int = EVERYTHING) -> list[Any]:
        """Give credit; what comes for it."""
        await self.client.send(p.ack(self.id, chunks, size))
        return self.take()

    async def cancel(self) -> None:
        await self.client.send(p.cancel(self.id))


class Client:
    """The far end of a channel that exposes a hub."""

    def __init__(self, channel: kk.RPCChannel, peer: p.Peer) -> None:
        self.channel = channel
        self.peer = peer
        self.subscribers: dict[str, Subscriber] = {}
        self.others: list[dict[str, Any]] = []
        """Messages that belong to no subscription."""
        self._pings = 0

    async def send(self, *messages: dict[str, Any]) -> None:
        """Send them, and hear all that follows of it."""
        await self.peer.send(*messages)
        await self.hear()

    async def hear(self) -> None:
        """Everything that the channel says until it has nothing left to do."""
        heard = True
        while heard:  # it makes room for what waits to be written
            heard = False
            self._pings += 1
            ping = f"ping {self._pings}"
            await all_blocked()
            await self.peer.send(p.request(ping, "ping.of.the.client"))
            while (message := await self.peer.next()).get("id") != ping:
                heard = True
                subscriber = self.subscribers.get(message["id"])
                if subscriber is None:
                    self.others.append(message)
                else:
                    subscriber.hear(message)

    async def call(self, method: str, *args: Any) -> dict[str, Any]:
        """The `args` of the answer."""
        self._pings += 1
        id = f"call {self._pings}"
        await self.send(p.request(id, method, *args))
        [answer] = [message for message in self.others if message["id"] == id]
        self.others.remove(answer)
        found: dict[str, Any] = answer["args"]
        return found

    async def subscribe(self, name: Any, id: Any, *options: Any, **named: Any) -> Subscriber:
        self._pings += 1
        subscriber = Subscriber(self, f"subscription {self._pings}")
        self.subscribers[subscriber.id] = subscriber
        args = [name, id, *options, *([named] if named else [])]
        await self.send(p.request(subscriber.id, "streams.subscribe", *args))
        return subscriber


@contextlib.asynccontextmanager
async def scripted_client(
    hub: kk.StreamHub, *, credit: bool = True, api: Any = None, **options: Any
) -> AsyncGenerator[Client]:
    """A client of `hub` in bytes, with credit or as a stock one; once it is gone nobody waits for it."""
    options.setdefault("limits", Limits(finish_seconds=0.01))
    async with p.scripted(api if api is not None else {"streams": hub}, **options) as (channel, peer):
        client = Client(channel, peer)
        if credit:
            await client.send(p.hello())
            client.others.clear()
        yield client


async def collected(source: AsyncIterable[Any], count: int | None = None) -> list[Any]:
    """What comes, up to so many values."""
    found: list[Any] = []
    with anyio.fail_after(BOUND):
        async for value in source:
            found.append(value)
            if len(found) == count:
                break
    return found


async def received(reader: Any, count: int) -> list[Any]:
    """So many values by `receive`."""
    with anyio.fail_after(BOUND):
        return [await reader.receive() for _ in range(count)]
