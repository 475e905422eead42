"""Stopping a stream, from the consumer's side, and cleaning up, on the producer's.

`break` cancels the producer at once, also while it waits. `await stream.cancel()` says when its
cleanup is done. Cleanup that awaits needs a shield, as everywhere in structured concurrency.
"""

import sys

import anyio

import kkrpc_py as kk


class Sensor:
    def __init__(self) -> None:
        self._closed = 0

    async def samples(self):
        try:
            sample = 0
            while True:
                yield sample
                sample += 1
                await anyio.sleep(0.01)
        finally:
            with anyio.move_on_after(1, shield=True):
                await anyio.sleep(0.01)  # stands for: say goodbye to the device
                self._closed += 1

    async def closed(self) -> int:
        return self._closed


async def main() -> None:
    async with kk.open_process([sys.executable, __file__, "child"]) as channel:
        api = channel.remote()

        stream = await api.samples()
        async for sample in stream:
            print("sample", sample)
            if sample == 3:
                break  # the producer is told to stop
        await stream.cancel()  # returns when its `finally` has run
        print("closed:", await api.closed())

        stream = await api.samples()
        with anyio.move_on_after(0.2):  # a task that is cancelled takes its streams with it
            async for _ in stream:
                pass
        await stream.cancel()
        print("closed:", await api.closed())


if sys.argv[1:] == ["child"]:
    kk.run_stdio(Sensor())
else:
    anyio.run(main)
