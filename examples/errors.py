"""Errors that are themselves on the other side: a class of your own, its fields, its cause, a note.

Both programs share the classes; `errors=` says which of them a remote error may be.
"""

import sys

import anyio

import kkrpc_py as kk


class OutOfStock(Exception):
    def __init__(self, sku: str, left: int) -> None:
        super().__init__(f"{left} of {sku} left")
        self.sku = sku
        self.left = left


class Shop:
    async def order(self, sku: str, count: int) -> None:
        try:
            {"nut": 40}[sku]  # stands for: ask the ledger
        except KeyError as error:
            error.add_note("the ledger is of yesterday")
            raise OutOfStock(sku, 0) from error
        raise PermissionError(f"{count} are too many")


async def main() -> None:
    async with kk.open_process([sys.executable, __file__, "child"], errors=[OutOfStock]) as channel:
        shop = channel.remote()
        try:
            await shop.order("bolt", 3)
        except OutOfStock as error:
            print(f"{error.sku}: {error.left} left")
            print(f"because of {error.__cause__!r}, {error.__cause__.__notes__}")
        try:
            await shop.order("nut", 1000)
        except PermissionError as error:  # also without being listed: it is a builtin
            print(f"{error.name}: {error}")


if sys.argv[1:] == ["child"]:
    kk.run_stdio(Shop())
else:
    anyio.run(main)
