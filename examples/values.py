"""Types of your own on the wire: what crosses by itself, and a pair of hooks for what does not."""

import dataclasses
import fractions
from typing import Any

import anyio

import kkrpc_py as kk


@dataclasses.dataclass
class Reading:
    sensor: str
    value: float


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


def encode(value: Any) -> Any:
    """Asked about what nothing else knows how to send, at any depth."""
    return {"$money": value.cents} if isinstance(value, Money) else NotImplemented


def decode(mapping: dict[str, Any]) -> Any:
    """Asked about each mapping that arrives, the inner ones first."""
    return Money(mapping["$money"]) if "$money" in mapping else mapping


class Till:
    async def average(self, readings: list[Reading]) -> float:
        return sum(reading.value for reading in readings) / len(readings)

    async def split(self, total: Money, among: int) -> list[Money]:
        return [Money(total.cents // among) for _ in range(among)]

    async def half(self, number: fractions.Fraction) -> fractions.Fraction:
        return number / 2


async def main() -> None:
    async with kk.memory_pair(Till(), encode=encode, decode=decode) as (_, channel):
        api = channel.remote()
        print(await api.average([Reading("a", 1.5), Reading("b", 2.5)]))
        print([part.cents for part in await api.split(Money(1000), 4)])
        print(await api.half(fractions.Fraction(1, 3)))  # as it is, in CBOR
        try:
            await api.average([object()])
        except kk.NotSerializable as error:
            print(f"{error.type_name} at {error.path}")


anyio.run(main)
