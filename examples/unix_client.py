"""A client of unix_server.py: `python unix_client.py PATH`."""

import sys

import anyio

import kkrpc_py as kk


async def main(path: str) -> None:
    async with kk.connect_unix(path) as channel:
        async for tick in channel.remote().clock(3):
            print("tick", tick["tick"])


anyio.run(main, sys.argv[1])
