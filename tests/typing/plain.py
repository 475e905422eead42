"""A plain class, the server's own: typed as far as `async def` and direct iteration go."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator
from typing import Generic, TypeVar, assert_type

import kkrpc_py as kk

T = TypeVar("T")


class Trigonometry:
    async def double(self, angle: float) -> float:
        return angle * 2


class API:
    angles = Trigonometry()

    def __init__(self, path: str) -> None:
        self.path = path

    async def add(self, a: int, b: int) -> int:
        return a + b

    async def countdown(self, n: int) -> AsyncIterator[int]:
        yield n

    def factors(self, number: int) -> list[int]:
        return [number]


class Base(abc.ABC):
    @abc.abstractmethod
    async def add(self, a: int, b: int) -> int: ...


class Store(Generic[T]):
    async def get(self, key: str) -> T:
        raise KeyError(key)


async def right(channel: kk.RPCChannel) -> None:
    api = channel.remote(API)
    assert_type(api, API)
    assert_type(await api.add(1, 2), int)
    assert_type(await api.angles.double(1.5), float)
    async for n in api.countdown(3):
        assert_type(n, int)
    assert_type(await channel.remote(Base).add(1, 2), int)
    assert_type(await channel.remote(Store[bytes]).get("a"), bytes)


async def wrong(channel: kk.RPCChannel) -> None:
    api = channel.remote(API)
    await api.add("1", 2)  # error: arg-type, reportArgumentType
    await api.angles.halve(1.5)  # error: attr-defined, reportAttributeAccessIssue
    # What no plain class can say: a `def` of the server is awaited by its client.
    await api.factors(12)  # error: misc, reportGeneralTypeIssues
    # Nor that the call of a generator may be awaited for its `StreamCall`.
    await api.countdown(3)  # error: misc, reportGeneralTypeIssues
    channel.remote(API("there is no need of an instance"))  # error: call-overload, reportArgumentType
