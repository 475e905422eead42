"""A server on a Unix socket, a channel for each connection: `python unix_server.py PATH`.

Ask it with unix_client.py, or without any code: `kkrpc-py call clock 3 --unix PATH`.
"""

import sys

import anyio

import kkrpc_py as kk


class Clock:
    async def clock(self, ticks: int):
        for tick in range(ticks):
            yield {"tick": tick, "seconds": anyio.current_time()}
            await anyio.sleep(0.1)


async def main(path: str) -> None:
    async with anyio.create_task_group() as tasks:
        await tasks.start(kk.serve_unix, Clock(), path)  # returns once it listens
        print("listening on", path, flush=True)


anyio.run(main, sys.argv[1])
