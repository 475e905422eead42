"""The other process: `python -m benchmarks.ours.other_end LOOP TRANSPORT CODEC [SOCKET]`.

Over stdio it serves its parent. As a server it says on stdout that it listens (its port, or 0), and ends with
its stdin, so that none is left behind whatever becomes of the process that started it.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import anyio

import kkrpc_py as kk
from benchmarks.loops import LOOPS
from benchmarks.memory import resident
from benchmarks.ours.api import Measured


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


async def _serve(transport: str, codec: Any, address: str) -> None:
    api = Measured(resident())
    if transport == "stdio":
        await kk.serve_stdio(api, codec=codec)
        return
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    async with anyio.create_task_group() as tasks:
        if transport == "unix":
            serve, where = kk.serve_unix, [address]
        else:
            serve, where = kk.serve_tcp, ["127.0.0.1", 0]

        async def served(*, task_status: Any) -> None:
            await serve(api, *where, codec=codec, task_status=task_status)

        addresses = await tasks.start(served)
        print(addresses[0][1] if transport == "tcp" else 0, flush=True)


if __name__ == "__main__":
    anyio.run(_serve, sys.argv[2], sys.argv[3], "".join(sys.argv[4:]), **LOOPS[sys.argv[1]])
