"""Streams as arguments: an upload, and a filter through which a stream goes to the worker and back.

The worker reads at its own rate, and the sender waits for it. Where the worker stops reading, the sender's
generator is closed.
"""

import sys

import anyio

import kkrpc_py as kk


class Worker:
    async def store(self, name: str, parts) -> str:
        size = 0
        async for part in parts:
            size += len(part)
        return f"{name}: {size} bytes"

    async def until(self, numbers, limit: int) -> int:
        total = 0
        async for number in numbers:
            total += number
            if total > limit:
                break  # the sender's generator is closed
        return total

    async def squares(self, numbers):
        async for number in numbers:
            yield number * number


async def count():
    number = 0
    try:
        while True:
            yield number
            number += 1
    finally:
        print("the count was closed")


async def main() -> None:
    async with kk.open_process([sys.executable, __file__, "child"]) as channel:
        api = channel.remote()
        parts = (b"x" * 100_000 for _ in range(30))  # any iterator will do
        print(await api.store("upload", parts))
        print(await api.until(count(), 100))

        async for square in api.squares(iter([1, 2, 3])):
            print(square)


if sys.argv[1:] == ["child"]:
    kk.run_stdio(Worker())
else:
    anyio.run(main)
