"""Types across a process boundary: the parent sees the child's API with its types, and gets dataclasses back.

The class is shared, so that mypy and pyright check every call below; try a wrong one. The decorators are
for them alone, and change nothing in the child.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import anyio

import kkrpc_py as kk


@dataclass
class Sample:
    second: int
    celsius: float


class Thermometer:
    @kk.method
    async def convert(self, celsius: float, digits: int = 1) -> float:
        return round(celsius * 9 / 5 + 32, digits)

    @kk.stream
    def samples(self, count: int) -> Iterator[Sample]:
        for second in range(count):
            yield Sample(second, 20 + second / 2)


async def main() -> None:
    async with kk.open_process([sys.executable, __file__, "child"]) as channel:
        api = channel.remote(Thermometer)
        async for sample in api.samples(3):
            print(sample, await api.convert(sample.celsius))


if sys.argv[1:] == ["child"]:
    kk.run_stdio(Thermometer())
else:
    anyio.run(main)
