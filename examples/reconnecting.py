"""A worker that dies is followed by the next one, and is asked again what the other was at: harmless here."""

import os
import sys

import anyio

import kkrpc_py as kk


class Worker:
    """Dies of every third job."""

    def __init__(self) -> None:
        self.jobs = 0

    async def square(self, number: int) -> int:
        self.jobs += 1
        if self.jobs == 3:
            os._exit(3)
        return number * number


async def square_surely(link: kk.ReconnectingChannel, number: int) -> int:
    while True:
        worker = await link.connected()
        try:
            return await worker.remote().square(number)
        except kk.ChannelClosed as closed:
            print(f"the worker that had {number} is gone, exit code {closed.exit_code}")
            await link.connected(after=worker)


async def main() -> None:
    async with kk.reconnecting(lambda: kk.open_process([sys.executable, __file__, "worker"])) as link:
        watching = link.states()
        for number in range(1, 6):
            print(number, "squared is", await square_surely(link, number))
    print(*[state async for state in watching])


if sys.argv[1:] == ["worker"]:
    kk.run_stdio(Worker())
else:
    anyio.run(main)
