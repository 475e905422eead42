"""Many streams at once on one channel, fast and slow: each has its own window, and they take turns."""

import sys
from collections import Counter

import anyio

import kkrpc_py as kk


class Feeds:
    async def feed(self, name: str, items: int):
        for item in range(items):
            yield f"{name}{item}"


async def main() -> None:
    received: Counter[str] = Counter()

    async def read(name: str, *, pause: float) -> None:
        async for _ in api.feed(name, 200):
            received[name] += 1
            await anyio.sleep(pause)

    async with kk.open_process([sys.executable, __file__, "child"]) as channel:
        api = channel.remote()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: read("slow", pause=0.002))
            for number in range(20):
                tasks.start_soon(lambda name=f"feed {number}": read(name, pause=0))
    print(f"{len(received)} streams, {sum(received.values())} items, {set(received.values())} each")


if sys.argv[1:] == ["child"]:
    kk.run_stdio(Feeds())
else:
    anyio.run(main)
