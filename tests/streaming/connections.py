"""Links over memory whose connections a test cuts. This module owns no test."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import kkrpc_py as kk
from tests.streaming.lines import Line


class Connections:
    """Makes the connections of one link; `api` is what the next one's server exposes."""

    def __init__(self, api: Any, *, capacity: int = 65536) -> None:
        self.api = api
        self.capacity = capacity
        self.lines: list[Line] = []
        self.allowed = True

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[kk.RPCChannel]:
        if not self.allowed:
            raise ConnectionRefusedError
        line = Line(self.capacity)
        self.lines.append(line)
        async with kk.RPCChannel(line.ends[0], expose=self.api), kk.RPCChannel(line.ends[1]) as client:
            yield client

    def link(self) -> kk.ReconnectingChannel:
        return kk.reconnecting(self.connect, initial_delay=0.001, max_delay=0.001)

    async def cut(self, *, lost: bool = True) -> None:
        """End the current connection; what is under way is `lost`, or arrives before the end."""
        if self.lines:
            self.lines[-1].cut(0, 1, lost=lost)


class Sockets(Connections):
    """The same over a Unix socket, at which `hub` is served; the server ends the connections."""

    def __init__(self, hub: kk.StreamHub, path: Path) -> None:
        super().__init__({"streams": hub})
        self.hub = hub
        self.path = path

    def link(self) -> kk.ReconnectingChannel:
        return kk.reconnecting(lambda: kk.connect_unix(self.path), initial_delay=0.001, max_delay=0.001)

    async def cut(self, *, lost: bool = True) -> None:
        for channel in self.hub.channels[:1]:
            await channel.aclose()
