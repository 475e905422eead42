"""A link: its proxies have the types that a channel's have, and what makes its connections is checked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, Protocol, assert_type

import kkrpc_py as kk


class Clock(Protocol):
    zone: kk.Property[str]

    async def add(self, a: int, b: int) -> int: ...

    def ticks(self, n: int) -> AsyncIterator[float]: ...


@asynccontextmanager
async def with_login(path: str) -> AsyncGenerator[kk.RPCChannel, None]:
    async with kk.connect_unix(path) as channel:
        await channel.remote().login("Ada")
        yield channel


async def use(path: str) -> None:
    async with kk.reconnecting(lambda: kk.connect_unix(path), attempts=3) as link:
        assert_type(link, kk.ReconnectingChannel)
        clock = link.remote(Clock)
        assert_type(await clock.add(1, 2), int)
        async for tick in clock.ticks(3):
            assert_type(tick, float)
        assert_type(await clock.zone, str)
        await link.set(clock.zone, "UTC")
        assert_type(link.channel, kk.RPCChannel)
        assert_type(await link.connected(after=link.channel), kk.RPCChannel)
        async for state in link.states():
            assert_type(state, Literal["connecting", "connected", "waiting", "closed"])
        await clock.add("one", 2)  # error: arg-type, reportArgumentType
        await clock.sub(1, 2)  # error: attr-defined, reportAttributeAccessIssue

    kk.reconnecting(lambda: kk.open_process(["worker"]))
    kk.reconnecting(lambda: kk.connect_tcp("host", 1), max_delay=3)
    kk.reconnecting(lambda: with_login(path))
    kk.reconnecting(kk.connect_unix(path))  # error: arg-type, reportArgumentType
    kk.reconnecting(lambda: path)  # error: arg-type, return-value, reportArgumentType
    kk.reconnecting(lambda: kk.memory_pair())  # error: arg-type, return-value, reportArgumentType
