"""The other process of a measurement: `python -m benchmarks.child asyncio|uvloop|trio`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio

import kkrpc_py as kk
from benchmarks.loops import LOOPS


class Measured:
    async def add(self, a: int, b: int) -> int:
        return a + b

    async def ints(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number & 0xFF

    async def dicts(self, count: int) -> AsyncIterator[dict[str, Any]]:
        for number in range(count):
            yield {"id": number, "name": "a file", "done": True}

    async def blocks(self, count: int) -> AsyncIterator[bytes]:
        block = bytes(range(256)) * 256
        for _ in range(count):
            yield block


if __name__ == "__main__":
    anyio.run(kk.serve_stdio, Measured(), **LOOPS[sys.argv[1]])
