"""A Python child of tests/node/parent.mjs: the API of child.mjs, served over stdio.

Usage: python_child.py asyncio|trio json|superjson
"""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio

import kkrpc_py as kk


class Grade2:
    async def multiply(self, a: int, b: int) -> int:
        return a * b


class Math:
    grade2 = Grade2()

    def add(self, a: int, b: int) -> int:
        return a + b


class Api:
    math = Math()

    async def echo(self, value: Any) -> Any:
        return value

    async def slow(self, ms: float, value: Any) -> Any:
        await anyio.sleep(ms / 1000)
        return value

    async def nothing(self) -> None:
        pass

    def fail(self, message: str) -> None:
        raise ValueError(message)

    async def reject(self, message: str) -> None:
        await anyio.sleep(0.001)
        raise TypeError(message)

    async def bytes(self, length: int) -> bytes:
        return bytes(i % 256 for i in range(length))

    async def total(self, data: bytes) -> list[Any]:
        return [type(data).__name__, len(data), sum(data)]

    async def ask(self, a: int, b: int) -> int:
        """Calls the parent's API before it answers."""
        total: int = await kk.current_channel().remote().add(a, b)
        return total * 2

    async def each(self, count: int, callback: Any) -> int:
        for i in range(count):
            await callback(i)
        return count

    def apply(self, first: Any, second: Any) -> bool:
        first.notify("from a thread", 1)
        return first is second

    def later(self, ms: float, *callbacks: Any) -> str:
        """Calls them in this order, after it has answered."""

        def call() -> None:
            for callback in callbacks:
                callback.notify("late")

        threading.Timer(ms / 1000, call).start()
        return "scheduled"

    async def lend(self, count: int) -> list[Any]:
        """Gives the parent a function of its own, the same one twice; reports what it was called with."""
        seen: list[Any] = []
        parent = kk.current_channel().remote()
        return [await parent.each(count, seen.append), await parent.each(count, seen.append), seen]

    async def text(self, length: int) -> str:
        return "x" * length

    async def three(self) -> AsyncIterator[int]:
        for i in range(3):
            yield i

    def print(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


if __name__ == "__main__":
    codec: Any = sys.argv[2]
    kk.run_stdio(Api(), backend=sys.argv[1], codec=codec)
