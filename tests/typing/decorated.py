"""An API that the server and its clients share: `@kk.method` and `@kk.stream`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar, assert_type

import kkrpc_py as kk

T = TypeVar("T")


@dataclass
class Summary:
    files: int


class Trigonometry:
    @kk.method
    def double(self, angle: float, *, turns: int = 0) -> float:
        return angle * 2 + turns


class API:
    angles = Trigonometry()

    @kk.method
    async def add(self, a: int, b: int = 0) -> int:
        return a + b

    @kk.method
    def factors(self, number: int) -> list[int]:
        return [divisor for divisor in range(1, number + 1) if number % divisor == 0]

    @kk.method
    async def first(self, values: list[T]) -> T:
        return values[0]

    @kk.method
    @kk.inline
    def now(self) -> float:
        return 0.0

    @kk.expose("numberOf")
    @kk.method
    async def number_of(self, word: str) -> int:
        return len(word)

    @kk.method
    async def each(self, n: int, callback: Callable[[int], Awaitable[str]]) -> list[str]:
        return [await callback(i) for i in range(n)]

    @kk.stream
    async def countdown(self, n: int) -> AsyncIterator[int]:
        for i in range(n, -1, -1):
            yield i

    @kk.stream
    async def words(self) -> AsyncGenerator[str, None]:
        yield "one"

    @kk.stream
    def lines(self, path: str) -> Iterator[bytes]:
        yield path.encode()

    @kk.stream
    def hash(self, paths: list[str]) -> Generator[float, None, Summary]:
        yield 1.0
        return Summary(len(paths))

    @kk.stream
    async def convert(self, sink: kk.StreamSink[float], paths: list[str]) -> Summary:
        await sink.send(1.0)
        return Summary(len(paths))

    @kk.stream
    async def chosen(self, n: int) -> AsyncIterator[int]:
        async def numbers() -> AsyncIterator[int]:
            yield n

        return numbers()

    @kk.stream
    async def unordered(
        self, paths: list[str], sink: kk.StreamSink[float]
    ) -> int:  # error-above: arg-type, reportCallIssue
        return 0

    @kk.stream
    async def listed(self) -> list[int]:  # error-above: arg-type, reportCallIssue
        return []


async def say(n: int) -> str:
    return str(n)


async def right(channel: kk.RPCChannel) -> None:
    api = channel.remote(API)
    assert_type(api, API)
    assert_type(await api.add(1, b=2), int)
    assert_type(await api.factors(12), list[int])
    assert_type(await api.first(["a"]), str)
    assert_type(await api.now(), float)
    assert_type(await api.angles.double(1.5, turns=2), float)
    assert_type(await api.add.with_options(timeout=2, metadata={"id": 1})(1, 2), int)
    assert_type(await asyncio.create_task(api.add(1, 2)), int)
    assert_type(await api.each(3, say), list[str])
    assert_type(await api.each(3, kk.callback(str)), list[str])
    assert_type(await api.number_of("one"), int)

    async for n in api.countdown(3):
        assert_type(n, int)
    async for n in await api.countdown(3):
        assert_type(n, int)
    async for word in api.words():
        assert_type(word, str)
    async for line in api.lines("a"):
        assert_type(line, bytes)
    async for share in api.convert(["a"]):
        assert_type(share, float)
    async for n in api.chosen(3):
        assert_type(n, int)
    assert_type(await api.countdown(3), kk.StreamCall[int])
    assert_type(await api.countdown.with_options(timeout=2)(3), kk.StreamCall[int])
    async with await api.lines("a") as lines:
        assert_type(await anext(lines), bytes)
    hashing = await api.hash(["a"])
    async for share in hashing:
        assert_type(share, float)
    assert_type(await hashing, Summary)
    assert_type(await hashing.result(), Summary)
    assert_type(await (await api.convert(["a"])), Summary)


async def wrong(channel: kk.RPCChannel) -> None:
    api = channel.remote(API)
    await api.add("1")  # error: arg-type, reportArgumentType
    await api.add()  # error: call-arg, reportCallIssue
    await api.add(1, 2, 3)  # error: call-arg, reportCallIssue
    await api.angles.double(1.5, 2)  # error: call-arg, reportCallIssue
    await api.subtract(1, 2)  # error: attr-defined, reportAttributeAccessIssue
    word: str = await api.add(1, 2)  # error: assignment, reportAssignmentType
    print(word, api.factors(12)[0])  # error: index, reportIndexIssue
    await api.add.with_options(timeout="2")(1)  # error: arg-type, reportArgumentType
    await api.add.with_options(timeout=2)("1")  # error: arg-type, reportArgumentType
    await api.each(3, len)  # error: arg-type, reportArgumentType

    for _n in api.countdown(3):  # error: attr-defined, reportGeneralTypeIssues
        pass
    async for _n in api.add(1, 2):  # error: attr-defined, reportGeneralTypeIssues
        pass
    async for _line in api.lines(3):  # error: arg-type, reportArgumentType
        pass
    await api.convert(3)  # error: arg-type, reportArgumentType
    await anext(api.countdown(3))  # error: call-overload, reportArgumentType
    summary: int = await (await api.hash([]))  # error: assignment, reportAssignmentType
    print(summary)
