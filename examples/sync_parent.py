"""Blocking code: a call, a stream in a plain loop, a function that the child calls, a generator for it."""

import sys

import kkrpc_py as kk


class Api:
    def average(self, numbers) -> float:
        values = list(kk.sync.iterate(numbers))
        return sum(values) / len(values)

    def bake(self, cakes: int, progress):
        for number in range(1, cakes + 1):
            kk.sync.wait(progress(number / cakes))
            yield f"cake {number}"
        return "oven off"


def main() -> None:
    with kk.sync.open_process([sys.executable, __file__, "child"]) as channel:
        api = channel.remote()
        print("average:", api.average(number**2 for number in range(5)))

        done: list[float] = []
        cakes = api.bake(4, done.append)
        for cake in cakes:
            print(cake)
        print(cakes.result(), "after", done)


if __name__ == "__main__":
    if sys.argv[1:] == ["child"]:
        kk.run_stdio(Api())
    else:
        main()
