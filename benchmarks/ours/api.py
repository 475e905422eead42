"""What the other end serves: one handler for each thing that a workload asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio

import kkrpc_py as kk
from benchmarks import trial
from benchmarks.memory import resident


class Measured:
    def __init__(self, resident_before: int = 0) -> None:
        """`resident_before`: this process's memory when nothing was served yet."""
        self._resident_before = resident_before
        self._produced = 0

    async def add(self, a: int, b: int) -> int:
        return a + b

    @kk.inline
    def add_inline(self, a: int, b: int) -> int:
        return a + b

    async def ints(self, count: int) -> AsyncIterator[int]:
        for i in range(count):
            yield i & 0xFF

    async def dicts(self, count: int) -> AsyncIterator[dict[str, Any]]:
        for i in range(count):
            yield {"id": i, "name": "a file", "done": True}

    async def strings(self, count: int) -> AsyncIterator[str]:
        for _ in range(count):
            yield trial.STRING

    async def blocks_64k(self, count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield trial.BLOCK_64K

    async def blocks_1m(self, count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield trial.BLOCK_1M

    async def parked(self, number: int) -> AsyncIterator[int]:
        """One value, then nothing for ever: what an idle stream is."""
        yield number
        await anyio.Event().wait()

    async def offered(self, count: int, size: int) -> AsyncIterator[bytes]:
        """Chunks of `size` bytes, each an object of its own, and `produced` says how many were taken."""
        self._produced = 0
        for _ in range(count):
            self._produced += 1
            yield bytes(size)

    @kk.inline
    def produced(self) -> int:
        return self._produced

    @kk.inline
    def resident(self) -> int:
        return resident()

    @kk.inline
    def resident_before(self) -> int:
        return self._resident_before
