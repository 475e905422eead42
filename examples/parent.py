"""The smallest parent: it starts child.py, calls it, and reads a stream."""

import sys
from pathlib import Path

import anyio

import kkrpc_py as kk

CHILD = [sys.executable, str(Path(__file__).with_name("child.py"))]


async def main() -> None:
    async with kk.open_process(CHILD) as channel:
        api = channel.remote()
        print("1 + 2 =", await api.add(1, 2))
        async for number in api.countdown(3):
            print(number)


anyio.run(main)
