"""Arguments are made what the handler's annotations say, or the call is refused with every reason.

python examples/validation.py
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

import anyio
from msgspec import Meta

import kkrpc_py as kk


@dataclass
class Booking:
    guest: str
    arrival: datetime.date
    nights: Annotated[int, Meta(ge=1, le=30)] = 1


class Hotel:
    async def book(self, booking: Booking) -> str:
        leaves = booking.arrival + datetime.timedelta(days=booking.nights)
        return f"{booking.guest} leaves on {leaves:%d %B}"

    async def free_rooms(self) -> AsyncIterator[int]:
        for room in (101, 102, "the attic"):
            yield room  # type: ignore[misc]  # a mistake, for the caller to see


async def main() -> None:
    async with kk.memory_pair(Hotel(), None) as (_, client):
        hotel = client.remote()
        print(await hotel.book({"guest": "Ada", "arrival": "2024-02-28", "nights": 2}))
        try:
            await hotel.book({"arrival": "soon", "nights": 90})
        except kk.ValidationFailed as error:
            for issue in error.issues:
                print(f"{error.method} {error.phase} {list(issue.path)}: {issue.message}")
        try:
            async for room in hotel.free_rooms():
                print("room", room)
        except kk.ValidationFailed as error:
            print(error)


if __name__ == "__main__":
    anyio.run(main)
