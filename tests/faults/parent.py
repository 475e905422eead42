"""A parent that is to be killed: `python parent.py HOW METHOD BACKEND`. Prints its child's pid, works on.

HOW is `open_process`, or `bare`: a child started without the guard that `open_process` gives it.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import anyio

import kkrpc_py as kk
from kkrpc_py.transports.descriptors import DescriptorStream
from tests.faults.processes import command, environment


async def work(channel: kk.RPCChannel, method: str) -> None:
    api = channel.remote()
    pid = await api.pid()
    async with anyio.create_task_group() as tg:
        match method:
            case "idle":
                pass
            case "park" | "block":
                tg.start_soon(api[method])
            case "unread endless" | "unread large":
                args = [1_000_000] if method == "unread large" else []
                stream = await api[method.split()[1]](*args)
                await anext(stream)
            case "stopped":  # reads nothing any more: the child is stuck in the middle of a write
                stream = await api.large(1_000_000)
                await anext(stream)
                tg.start_soon(api.echo, "x" * 10_000_000)
            case _:
                tg.start_soon(consume, api[method]())
        await api.add(1, 2)
        print(pid, flush=True)
        await anyio.sleep_forever()


async def consume(call: Any) -> None:
    async for _ in call:
        pass


async def main(how: str, method: str, backend: str) -> None:
    if how == "open_process":
        async with kk.open_process(command("serve", backend), env=environment()) as channel:
            await work(channel, method)
    else:
        child = subprocess.Popen(
            command("serve", backend), env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdin is not None
        assert child.stdout is not None
        stream = DescriptorStream(child.stdout.fileno(), child.stdin.fileno())
        async with kk.RPCChannel(stream) as channel:
            await work(channel, method)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
