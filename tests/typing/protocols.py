"""A client-side Protocol: what is right, and what is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, assert_type

import kkrpc_py as kk


class Settings(Protocol):
    theme: kk.Property[str]
    limits: kk.Property[dict[str, int]]

    @kk.expose("resetAll")
    async def reset_all(self) -> int: ...
    async def reset(self, *names: str, deep: bool = False) -> bool: ...


class API(Protocol):
    counter: kk.Property[int]
    settings: Settings

    class Greeter:
        def __init__(self, name: str, loud: bool = False) -> None: ...

    async def add(self, a: int, b: int = 0) -> int: ...
    def later(self, seconds: float) -> Awaitable[str]: ...
    def countdown(self, n: int) -> AsyncIterator[int]: ...
    async def opened(self, n: int) -> AsyncIterator[bytes]: ...
    async def each(self, n: int, callback: Callable[[int], Awaitable[None]]) -> None: ...
    async def heard(self, callback: Callable[[str], object]) -> None: ...
    async def total(self, numbers: AsyncIterator[int]) -> int: ...
    @kk.method
    async def slow(self, n: int) -> float: ...
    @kk.stream
    def process(self, paths: list[str]) -> AsyncIterator[float]: ...


async def numbers() -> AsyncIterator[int]:
    yield 1


async def words() -> AsyncIterator[str]:
    yield "one"


async def on_number(n: int) -> None: ...
async def on_word(word: str) -> None: ...
def on_number_at_once(n: int) -> None: ...
def on_word_at_once(word: str) -> None: ...


async def right(channel: kk.RPCChannel) -> None:
    assert_type(channel.remote(), Any)
    api = channel.remote(API)
    assert_type(api, API)
    assert_type(await api.add(1, 2), int)
    assert_type(await api.add(1), int)
    assert_type(await api.add(b=1, a=2), int)
    assert_type(await api.later(0.5), str)
    assert_type(await api.settings.reset("theme", deep=True), bool)

    assert_type(await api.settings.reset_all(), int)

    assert_type(await api.counter, int)
    assert_type(await api.settings.theme, str)
    assert_type(await api.counter.with_options(timeout=2), int)
    await channel.set(api.counter, 3)
    await channel.set(api.settings.theme, "dark")
    await channel.set(api.settings.limits, {"depth": 3})
    await channel.set(channel.remote().anything, object())

    async for n in api.countdown(3):
        assert_type(n, int)
    async for data in await api.opened(3):
        assert_type(data, bytes)
    async for share in api.process(["a"]):
        assert_type(share, float)
    assert_type(await api.process(["a"]), kk.StreamCall[float])

    await api.each(3, on_number)
    await api.each(3, kk.callback(on_number_at_once))
    with kk.callback(on_number) as callback:
        await api.each(3, callback)
    await api.heard(on_word)
    await api.heard(on_word_at_once)
    await api.heard(lambda word: print(word.upper()))
    assert_type(await api.total(numbers()), int)

    await channel.construct(api.Greeter, "hi", loud=True)
    await channel.construct(channel.remote().Anything, 1, 2)

    assert_type(await api.slow.with_options(timeout=2, metadata={"traceparent": "00-1"})(1), float)


async def wrong(channel: kk.RPCChannel) -> None:
    api = channel.remote(API)
    await api.add("1", 2)  # error: arg-type, reportArgumentType
    await api.add()  # error: call-arg, reportCallIssue
    await api.add(1, 2, 3)  # error: call-arg, reportCallIssue
    await api.add(1, c=2)  # error: call-arg, reportCallIssue
    await api.subtract(1, 2)  # error: attr-defined, reportAttributeAccessIssue
    await api.settings.colour  # error: attr-defined, reportAttributeAccessIssue
    await api.settings.reset(1)  # error: arg-type, reportArgumentType
    word: str = await api.add(1, 2)  # error: assignment, reportAssignmentType
    theme: int = await api.settings.theme  # error: assignment, reportAssignmentType
    print(word, theme)

    await channel.set(api.counter, "three")  # error: misc, reportArgumentType
    await channel.set(api.settings.theme, 3)  # error: misc, reportArgumentType
    await channel.set(api.settings.limits, {"depth": "3"})  # error: misc, reportArgumentType
    await channel.set(api.add, 3)  # error: arg-type, reportArgumentType
    print(api.counter + 1)  # error: operator, reportOperatorIssue
    api.counter(1)  # error: operator, reportCallIssue
    await api.add  # error: misc, reportGeneralTypeIssues

    for _n in api.countdown(3):  # error: attr-defined, reportGeneralTypeIssues
        pass
    async for _n in api.add(1, 2):  # error: attr-defined, reportGeneralTypeIssues
        pass
    await api.countdown(3)  # error: misc, reportGeneralTypeIssues
    await api.process([1])  # error: list-item, reportArgumentType

    await api.each(3, on_number_at_once)  # error: arg-type, reportArgumentType
    await api.each(3, kk.callback(on_word))  # error: arg-type, reportArgumentType
    await api.each(3, on_word)  # error: arg-type, reportArgumentType
    await api.each(3, lambda n: print(n))  # error: arg-type, reportArgumentType
    await api.total(words())  # error: arg-type, reportArgumentType
    await api.slow.with_options(timeout="2")(1)  # error: arg-type, reportArgumentType
    await api.slow.with_options(retries=2)(1)  # error: call-arg, reportCallIssue
    await api.slow.with_options(timeout=2)("1")  # error: arg-type, reportArgumentType
    await channel.construct(api.Greeter)  # error: call-arg, reportCallIssue
    await channel.construct(api.Greeter, 3)  # error: arg-type, reportArgumentType
    await channel.construct(api.counter)  # error: arg-type, reportArgumentType
    channel.remote(3)  # error: call-overload, reportArgumentType
