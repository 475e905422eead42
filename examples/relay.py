"""A Unix socket in front of children that know only stdio: each connection is relayed to one of its own."""

import subprocess
import sys
import tempfile
from pathlib import Path

import anyio
from anyio.abc import ByteStream
from anyio.streams.stapled import StapledByteStream

import kkrpc_py as kk

CHILD = [sys.executable, str(Path(__file__).with_name("child.py"))]


async def serve(client: ByteStream) -> None:
    async with await anyio.open_process(CHILD, stderr=subprocess.DEVNULL) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        await kk.relay(client, StapledByteStream(child.stdin, child.stdout))


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/socket"
        async with await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, serve)
            async with kk.connect_unix(path) as channel:
                api = channel.remote()
                print("1 + 2 =", await api.add(1, 2))
                print(*[number async for number in api.countdown(3)])
            tasks.cancel_scope.cancel()


anyio.run(main)
