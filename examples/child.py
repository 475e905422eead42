"""The smallest child: an object's public methods, served over stdin and stdout. parent.py starts it."""

import kkrpc_py as kk


class Api:
    async def add(self, a: int, b: int) -> int:
        return a + b

    async def countdown(self, start: int):
        for number in range(start, -1, -1):
            yield number


kk.run_stdio(Api())
