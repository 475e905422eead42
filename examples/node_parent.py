"""A parent of a Node child that runs stock kkrpc: `npm install kkrpc@0.2.2`, then `python node_parent.py`."""

from pathlib import Path

import anyio

import kkrpc_py as kk


async def main() -> None:
    async with kk.open_process(["node", str(Path(__file__).with_name("node_child.mjs"))]) as channel:
        api = channel.remote()
        print(await api.greet("Ada"))
        print("1 + 2 =", await api.math.add(1, 2))


anyio.run(main)
