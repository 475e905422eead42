"""Validation on its way: arguments, results and chunks of real calls, on every codec."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Annotated, Any

import anyio
import msgspec
import pytest
from anyio.lowlevel import checkpoint

import kkrpc_py as kk
from kkrpc_py.channel import issues
from tests.channel.harness import linked

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    # However slow the machine is.
    monkeypatch.setattr(issues, "_SECONDS", 20.0)


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclasses.dataclass
class Line:
    item: str
    count: Annotated[int, msgspec.Meta(ge=1)]


class Order(msgspec.Struct):
    lines: list[Line]
    size: Size = Size.SMALL
    day: datetime.date | None = None


class API:
    def __init__(self) -> None:
        self.ran: list[str] = []

    class Shop:
        async def total(self, order: Order, rates: dict[int, float] | None = None) -> int:
            assert type(order) is Order
            assert all(type(line) is Line for line in order.lines)
            return sum(line.count for line in order.lines) * (2 if order.size is Size.LARGE else 1)

    shop = Shop()

    async def add(self, a: int, b: int = 1, *, c: int = 0) -> int:
        self.ran.append("add")
        return a + b + c

    @kk.inline
    def inline(self, a: int) -> str:
        self.ran.append("inline")
        return str(a) if a else 0  # type: ignore[return-value]  # wrong on purpose

    def on_thread(self, a: float) -> float:
        assert type(a) is float
        return a or "x"  # type: ignore[return-value]  # wrong on purpose

    async def raw(self, data: bytes) -> int:
        return len(data)

    async def notify(self, times: int, report: Callable[[int], Any]) -> int:
        for number in range(times):
            await report(number)
        return times

    async def count(self, upto: int) -> AsyncIterator[int]:
        for number in range(upto):
            yield number
        yield "hunter2"  # type: ignore[misc]  # wrong on purpose
        yield upto

    def steps(self, upto: int) -> Generator[int, None, str]:
        yield from range(upto)
        return "done" if upto else 5  # type: ignore[return-value]  # wrong on purpose

    @kk.inline
    def quick(self, upto: int) -> Iterator[float]:
        yield from range(upto)

    async def sunk(self, upto: int, sink: kk.StreamSink[int]) -> str:
        for number in range(upto):
            await sink.send(number)
        await sink.send("hunter2")  # type: ignore[arg-type]  # wrong on purpose
        return "done"


CODECS = pytest.mark.parametrize("codec", ["auto", "json", "cbor"])


async def refused(call: Any) -> kk.ValidationFailed:
    with pytest.raises(kk.ValidationFailed) as caught:
        await call
    assert "hunter2" not in str(caught.value)
    return caught.value


def paths(error: kk.ValidationFailed) -> list[tuple[str | int, ...]]:
    return [issue.path for issue in error.issues]


@CODECS
@pytest.mark.parametrize("hello", [True, False])
async def test_arguments_are_converted_and_checked(codec: Any, hello: bool) -> None:
    async with linked(API(), codec=codec, hello=hello) as (_, client):
        api = client.remote()
        order = {"lines": [{"item": "a", "count": 2}, {"item": "b", "count": 1}], "size": "large"}
        assert await api.shop.total(order, {"1": 0.5}) == 6
        assert await api.raw(b"\x00\x01") == 2
        bad = {"lines": [{"item": 1, "count": 0}, {"item": "b"}, 5], "size": "hunter2", "day": "hunter2"}
        error = await refused(api.shop.total(bad, {"x": 1}))
        assert error.phase == "input"
        assert error.method == "shop.total"
        assert paths(error) == [
            (0, "lines", 0, "item"),
            (0, "lines", 0, "count"),
            (0, "lines", 1, "count"),
            (0, "lines", 2),
            (0, "size"),
            (0, "day"),
            (1, "x"),
        ]
        assert (await refused(api.raw("hunter2"))).issues[0].message == "Expected `bytes`, got `str`"


async def test_a_refused_handler_has_not_run() -> None:
    api = API()
    async with linked(api) as (_, client):
        remote = client.remote()
        await refused(remote.add("1"))
        await refused(remote.add(1, c="x"))
        await refused(remote.inline("1"))
        await refused(remote.on_thread([]))
        assert api.ran == []
        assert await remote.add(1, c=2) == 4
        assert api.ran == ["add"]
        # Too few and too many are counted first.
        with pytest.raises(TypeError):
            await remote.add()
        with pytest.raises(TypeError):
            await remote.add("1", 2, 3)


@CODECS
async def test_results_are_checked(codec: Any) -> None:
    async with linked(API(), codec=codec) as (_, client):
        api = client.remote()
        assert await api.inline(1) == "1"
        assert await api.on_thread(1) == 1.0
        for function in (api.inline, api.on_thread):
            error = await refused(function(0))
            assert (error.phase, paths(error)) == ("output", [()])


@CODECS
@pytest.mark.parametrize("upto", [0, 1, 5, 1000])
async def test_chunks_before_an_invalid_one_arrive(codec: Any, upto: int) -> None:
    async with linked(API(), codec=codec) as (_, client):
        api = client.remote()
        for stream in (api.count, api.sunk):
            seen: list[int] = []
            with pytest.raises(kk.ValidationFailed) as caught:
                async for number in stream(upto):
                    seen.append(number)
            assert seen == list(range(upto))
            assert (caught.value.phase, paths(caught.value)) == ("output", [()])
            assert caught.value.issues[0].message == "Expected `int`, got `str`"


async def test_what_a_stream_ends_with_is_checked() -> None:
    async with linked(API()) as (_, client):
        api = client.remote()
        stream = await api.steps(3)
        assert [number async for number in stream] == [0, 1, 2]
        assert await stream == "done"
        stream = await api.steps(0)
        assert (await refused(stream.result())).issues[0].message == "Expected `str`, got `int`"
        halves = [number async for number in api.quick(300)]
        assert halves == list(range(300))
        assert {type(number) for number in halves} == {float}


async def test_functions_are_arguments_that_can_be_called() -> None:
    seen: list[int] = []

    async def report(number: int) -> None:
        seen.append(number)

    async with linked(API()) as (_, client):
        api = client.remote()
        assert await api.notify(3, report) == 3
        assert seen == [0, 1, 2]
        assert paths(await refused(api.notify("x", 5))) == [(0,), (1,)]


async def test_interceptors_see_what_came_and_their_changes_are_checked() -> None:
    seen: list[Any] = []

    async def interceptor(ctx: kk.CallContext, next: Any) -> Any:
        seen.append(list(ctx.args))
        if ctx.args == ["two"]:
            ctx.args = [2]
        return await next()

    async with linked(API(), interceptors=[interceptor]) as (_, client):
        api = client.remote()
        assert await api.add("two") == 3
        assert paths(await refused(api.add("three"))) == [(0,)]
        assert seen == [["two"], ["three"]]


async def test_local_calls_are_checked_alike() -> None:
    async with linked(API()) as (server, _):
        assert await server.invoke_local("shop.total", {"lines": [{"item": "a", "count": 2}]}) == 2
        assert paths(await refused(server.invoke_local("add", "x", c="y"))) == [(0,), ("c",)]
        assert paths(await refused(server.invoke_local("inline", 0))) == [()]
        seen = []
        with pytest.raises(kk.ValidationFailed):
            async for number in await server.invoke_local("count", 2):
                seen.append(number)
        assert seen == [0, 1]


async def test_a_slow_reader_gets_all_before_the_invalid_chunk() -> None:
    async with linked(API(), limits=kk.Limits(stream_buffer=256)) as (_, client):
        seen: list[int] = []
        with pytest.raises(kk.ValidationFailed):
            async for number in await client.remote().count(50):
                await client.remote().add(1)
                seen.append(number)
        assert seen == list(range(50))


class Relay:
    def __init__(self, other: Any) -> None:
        self._other = other

    async def steps(self, upto: int) -> AsyncIterator[int]:
        stream: AsyncIterator[int] = await self._other.steps(upto)
        return stream


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_stream_of_another_peer_passes_its_result_on(wrapped: bool) -> None:
    async def interceptor(ctx: kk.CallContext, next: Any) -> Any:
        return await next()

    interceptors = [interceptor] if wrapped else []
    async with linked(API()) as (_, inner):
        async with linked(Relay(inner.remote()), interceptors=interceptors) as (_, client):
            stream = await client.remote().steps(3)
            assert [number async for number in stream] == [0, 1, 2]
            assert await stream == "done"


async def test_a_chunk_that_cannot_be_sent_before_one_that_is_wrong_ends_that_stream_alone() -> None:
    class Mixed:
        async def rows(self) -> AsyncIterator[dict[str, Any]]:
            for n in range(100):
                yield {"n": n}
            await checkpoint()
            yield {"n": object()}  # a mapping by text, which nothing carries
            yield "wrong"  # type: ignore[misc]  # which is what is to be found
            await anyio.sleep_forever()

        async def add(self, a: int, b: int) -> int:
            return a + b

    async with linked(Mixed()) as (_, client):
        seen = []
        with pytest.raises(kk.RemoteError, match="object"):
            async for row in client.remote().rows():
                seen.append(row["n"])
        assert seen == list(range(100))
        assert await client.remote().add(1, 2) == 3
