"""What a JavaScript peer means: dates, sets, maps and big integers, in kkrpc's superjson.

Both sides are Python here; a kkrpc peer on Node, which writes superjson by default, sends and gets the same.
"""

import datetime
from typing import Any

import anyio

import kkrpc_py as kk
from kkrpc_py import js


class Shop:
    async def order(self, order: dict[str, Any]) -> dict[str, Any]:
        for name, value in order.items():
            print(f"{name}: {value!r}")
        return {"due": order["placed"] + datetime.timedelta(days=2), "total": js.BigInt(order["total"] * 2)}


async def main() -> None:
    async with kk.memory_pair(Shop(), codec="superjson") as (_, channel):
        api = channel.remote()
        answer = await api.order(
            {
                "placed": datetime.datetime(2024, 2, 28, 12, tzinfo=datetime.UTC),
                "tags": {"gift"},
                "stock": {1: "apple", 2: "pear"},
                "total": js.BigInt(10),
                "pattern": js.RegExp("^[a-z]+$", "i"),
                "note": js.UNDEFINED,
            }
        )
        print(answer)
        try:
            await api.order({"placed": datetime.date(2024, 2, 28)})
        except kk.NotSerializable as error:
            print(error)


anyio.run(main)
