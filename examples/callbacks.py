"""Functions as arguments: the worker reports its progress, asks a question, and is told when to stop.

Between kkrpc_py peers a call of a function gives its result. `kk.callback` says how long it may be called.
"""

import sys

import anyio

import kkrpc_py as kk


class Worker:
    def __init__(self) -> None:
        self._listeners = []

    async def convert(self, names, on_progress, confirm) -> list[str]:
        done = []
        for number, name in enumerate(names, 1):
            if await confirm(f"convert {name}?"):
                done.append(name.upper())
            on_progress.notify(number, len(names))  # waits for nothing
        return done

    async def subscribe(self, listener) -> None:
        self._listeners.append(listener)

    async def announce(self, text: str) -> int:
        for listener in list(self._listeners):
            try:
                await listener(text)
            except kk.CallbackReleased:
                self._listeners.remove(listener)
        return len(self._listeners)


async def main() -> None:
    async def confirm(question: str) -> bool:
        print(question)
        return "secret" not in question

    async with kk.open_process([sys.executable, __file__, "child"]) as channel:
        api = channel.remote()
        names = ["a.png", "secret.png", "b.png"]
        print(await api.convert(names, lambda done, total: print(f"{done}/{total}"), confirm))

        with kk.callback(lambda text: print("heard:", text)) as listener:
            await api.subscribe(listener)
            print("listeners:", await api.announce("hello"))
        print("listeners:", await api.announce("anybody there?"))


if sys.argv[1:] == ["child"]:
    kk.run_stdio(Worker())
else:
    anyio.run(main)
