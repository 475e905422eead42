"""A channel to another process that serves `Measured`, over the transport that is measured."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kkrpc_py as kk

ROOT = Path(__file__).resolve().parents[2]
TRANSPORTS = ("stdio", "unix", "tcp")


@dataclass(frozen=True)
class Setting:
    """What is measured: the same event loop, transport and codec in both processes."""

    loop: str
    transport: str = "stdio"
    codec: Any = "auto"

    @property
    def other_end(self) -> list[str]:
        """The command of the other process."""
        return [sys.executable, "-m", "benchmarks.ours.other_end", self.loop, self.transport, self.codec]


@contextlib.asynccontextmanager
async def channel_to_other_end(setting: Setting) -> AsyncIterator[kk.RPCChannel]:
    """A new process, and the only channel to it, ready: both sides know what the other one speaks."""
    if setting.transport == "stdio":
        async with kk.open_process(
            setting.other_end, cwd=ROOT, stderr="inherit", codec=setting.codec
        ) as channel:
            await channel.ready()
            yield channel
        return
    with tempfile.TemporaryDirectory() as folder:
        address = str(Path(folder, "socket"))
        with subprocess.Popen(
            [*setting.other_end, address], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            try:
                port = int(server.stdout.readline())  # it listens from here on
                if setting.transport == "unix":
                    connection = kk.connect_unix(address, codec=setting.codec)
                else:
                    connection = kk.connect_tcp("127.0.0.1", port, codec=setting.codec)
                async with connection as channel:
                    await channel.ready()
                    yield channel
            finally:
                server.stdin.close()  # it ends with its stdin
