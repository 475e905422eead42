"""Tokens as they are made: a worker process that writes, and a parent that shows every word at once.

The worker stands for a language model in a virtual environment of its own. Its generator is a plain
`def`, so that it runs on a thread and may block; what it returns is the result of the stream.
"""

import sys
import time

import anyio

import kkrpc_py as kk


class Model:
    def complete(self, prompt: str):
        words = f"{prompt} is where the long road ends and the small boats sleep".split()
        for word in words:
            time.sleep(0.02)  # the model thinks
            yield word + " "
        return {"tokens": len(words), "stopped": "end"}


async def main() -> None:
    async with kk.open_process([sys.executable, __file__, "worker"]) as channel:
        call = channel.remote().complete("The harbour")
        async for token in call:
            print(token, end="", flush=True)
        print()
        print(await call)  # after the loop: what the generator returned


if sys.argv[1:] == ["worker"]:
    kk.run_stdio(Model())
else:
    anyio.run(main)
