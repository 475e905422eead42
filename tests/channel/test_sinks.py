"""`StreamSink`: handlers that send their stream instead of yielding it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from kkrpc_py import StreamSink
from tests.channel.harness import Log, linked, until

pytestmark = pytest.mark.anyio


class API:
    def __init__(self) -> None:
        self.log = Log()
        self.kept: list[kk.StreamSink[Any]] = []
        self.gates = [anyio.Event() for _ in range(10)]

    async def numbers(self, n: int, sink: kk.StreamSink[int]) -> str:
        for i in range(n):
            await sink.send(i)
        return f"sent {n}"

    async def sink_first(self, sink: StreamSink[int], n: int = 3) -> None:
        for i in range(n):
            await sink.send(i)

    async def bare_annotation(self, n: int, out: StreamSink) -> None:  # type: ignore[type-arg]  # as many write it
        await out.send(n)

    async def keyword_only(self, n: int, *, sink: kk.StreamSink[int]) -> None:
        await sink.send(n)

    async def gated(self, sink: kk.StreamSink[int]) -> None:
        for i, gate in enumerate(self.gates):
            await sink.send(i)
            await sink.send(-i)
            await gate.wait()

    async def nothing(self, sink: kk.StreamSink[int]) -> int:
        return 7

    async def failing(self, sink: kk.StreamSink[int]) -> None:
        await sink.send(1)
        await sink.send(2)
        raise ValueError("broken")

    async def fails_at_once(self, sink: kk.StreamSink[int]) -> None:
        raise ValueError("at once")

    async def unsendable(self, sink: kk.StreamSink[Any]) -> None:
        await sink.send(1)
        await sink.send(object())
        await anyio.lowlevel.checkpoint()
        await sink.send(3)

    async def unsendable_then_parked(self, sink: kk.StreamSink[Any]) -> None:
        try:
            await sink.send(object())
            await anyio.sleep_forever()
        finally:
            self.log("finally")

    async def unsendable_result(self, sink: kk.StreamSink[Any]) -> Any:
        await sink.send(1)
        return object()

    async def children(self, tasks: int, each: int, sink: kk.StreamSink[Any]) -> str:
        async def child(index: int) -> None:
            for i in range(each):
                await sink.send([index, i])
                if i % 10 == 0:
                    await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tg:
            for index in range(tasks):
                tg.start_soon(child, index)
        return "all sent"

    async def child_of_a_parked_handler(self, sink: kk.StreamSink[int]) -> None:
        async def child() -> None:
            for i, gate in enumerate(self.gates):
                await sink.send(i)
                await gate.wait()

        async with anyio.create_task_group() as tg:
            tg.start_soon(child)
            await self.gates[-1].wait()

    async def failing_child(self, sink: kk.StreamSink[Any]) -> None:
        async def child() -> None:
            with pytest.raises(kk.NotSerializable):
                await sink.send(object())
            self.log("child saw it")

        await sink.send(1)
        async with anyio.create_task_group() as tg:
            tg.start_soon(child)
        await sink.send(2)

    async def endless(self, sink: kk.StreamSink[int]) -> None:
        try:
            i = 0
            while True:
                await sink.send(i)
                i += 1
        finally:
            self.log("finally")

    async def endless_children(self, sink: kk.StreamSink[int]) -> None:
        async def child() -> None:
            try:
                while True:
                    await sink.send(1)
            finally:
                self.log("child's finally")

        try:
            async with anyio.create_task_group() as tg:
                for _ in range(3):
                    tg.start_soon(child)
        finally:
            self.log("finally")

    async def keeps(self, sink: kk.StreamSink[int]) -> None:
        self.kept.append(sink)
        await sink.send(1)

    def threaded(self, sink: kk.StreamSink[int]) -> None:
        pass

    async def sends_in_its_cleanup(self, sink: kk.StreamSink[str]) -> None:
        try:
            await sink.send("first")
            await anyio.sleep_forever()
        finally:
            with anyio.move_on_after(3, shield=True):
                await sink.send("too late")
                self.log("finally")

    async def add(self, a: int, b: int) -> int:
        return a + b


@pytest.mark.parametrize("hello", [True, False], ids=["agreed", "stock"])
@pytest.mark.parametrize("n", [0, 1, 64, 65, 256, 257, 5000])
async def test_values_and_result(n: int, hello: bool) -> None:
    async with linked(API(), hello=hello) as (_, client):
        call = client.remote().numbers(n)
        assert [v async for v in call] == list(range(n))
        assert await call == (f"sent {n}" if hello else None)


async def test_where_the_parameter_may_stand() -> None:
    async with linked(API()) as (_, client):
        api = client.remote()
        assert [v async for v in api.sink_first(2)] == [0, 1]
        assert [v async for v in api.sink_first()] == [0, 1, 2]
        assert [v async for v in api.bare_annotation(5)] == [5]
        assert [v async for v in api.keyword_only(5)] == [5]
        with pytest.raises(TypeError, match="takes 1 positional arguments; given: 2"):
            await api.numbers(1, 2)
        with pytest.raises(TypeError, match="takes 1 positional arguments; given: 0"):
            await api.numbers()


async def test_a_handler_that_sends_nothing() -> None:
    async with linked(API()) as (_, client):
        call = client.remote().nothing()
        assert [v async for v in call] == []
        assert await call == 7
        assert await (await client.remote().nothing()) == 7


async def test_what_was_sent_leaves_when_the_handler_waits() -> None:
    api = API()
    async with linked(api) as (_, client):
        stream = await client.remote().gated()
        for i, gate in enumerate(api.gates):
            assert await anext(stream) == i
            assert await anext(stream) == -i
            gate.set()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


@pytest.mark.parametrize("hello", [True, False], ids=["agreed", "stock"])
async def test_errors(hello: bool) -> None:
    async with linked(API(), hello=hello) as (_, client):
        api = client.remote()
        seen = []
        with pytest.raises(ValueError, match="broken"):
            async for value in api.failing():
                seen.append(value)
        assert seen == [1, 2]
        with pytest.raises(ValueError, match="at once"):
            async for value in api.fails_at_once():
                seen.append(value)
        seen = []
        with pytest.raises(kk.KkrpcError, match="object"):
            async for value in api.unsendable():
                seen.append(value)
        assert seen == [1]
        assert await api.add(1, 1) == 2


async def test_a_result_that_cannot_be_sent_is_no_matter_where_it_is_not_sent() -> None:
    """RES-2 holds where `result` is in force; a stock peer never learns of it."""
    async with linked(API()) as (_, client):
        seen = []
        with pytest.raises(kk.KkrpcError, match="object"):
            async for value in client.remote().unsendable_result():
                seen.append(value)
        assert seen == [1]
    async with linked(API(), hello=False) as (_, client):
        assert [v async for v in client.remote().unsendable_result()] == [1]


async def test_a_value_that_cannot_be_sent_ends_a_handler_that_waits() -> None:
    api = API()
    async with linked(api) as (_, client):
        with pytest.raises(kk.KkrpcError, match="object"):
            async for _ in client.remote().unsendable_then_parked():
                pass
        assert api.log.entries == ["finally"]


@pytest.mark.parametrize("hello", [True, False], ids=["agreed", "stock"])
async def test_sends_from_child_tasks(hello: bool) -> None:
    """Whole, and in order for each task."""
    async with linked(API(), hello=hello) as (_, client):
        call = client.remote().children(10, 300)
        of: dict[int, list[int]] = {}
        async for index, i in call:
            of.setdefault(index, []).append(i)
        assert of == {index: list(range(300)) for index in range(10)}
        assert await call == ("all sent" if hello else None)


async def test_a_child_sends_while_the_handler_is_parked() -> None:
    api = API()
    async with linked(api) as (_, client):
        stream = await client.remote().child_of_a_parked_handler()
        for i, gate in enumerate(api.gates):
            assert await anext(stream) == i
            gate.set()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_a_childs_unsendable_value_is_the_childs_error() -> None:
    api = API()
    async with linked(api) as (_, client):
        assert [v async for v in client.remote().failing_child()] == [1, 2]
        assert api.log.entries == ["child saw it"]


async def test_cancelled_children() -> None:
    api = API()
    async with linked(api) as (_, client):
        stream = await client.remote().endless_children()
        for _ in range(200):
            assert await anext(stream) == 1
        await anyio.wait_all_tasks_blocked()
        await stream.cancel()
        assert api.log.entries == ["child's finally"] * 3 + ["finally"]


async def test_a_full_sink_waits() -> None:
    """CRD-3: the handler is held at `send`."""
    api = API()
    async with linked(api) as (_, client):
        stream = await client.remote().endless()
        await anyio.wait_all_tasks_blocked()
        assert stream.received == 64
        for i in range(10_000):
            assert await anext(stream) == i
        await stream.cancel()
        assert api.log.entries == ["finally"]


async def test_a_send_after_the_cancel_goes_nowhere() -> None:
    api = API()
    async with linked(api) as (_, client):
        stream = await client.remote().sends_in_its_cleanup()
        assert await anext(stream) == "first"
        with anyio.fail_after(5):
            await stream.cancel()
        assert api.log.entries == ["finally"]


@pytest.mark.parametrize("by", ["cancel", "close"])
async def test_sends_in_a_cleanup_without_credit_do_not_hang(by: str) -> None:
    """The consumer reads no more, so no credit ever comes: `send` must not wait for it."""
    log = Log()

    class Chatty:
        async def chatty(self, sink: kk.StreamSink[int]) -> None:
            try:
                while True:
                    await sink.send(1)
            finally:
                with anyio.move_on_after(3, shield=True):
                    for _ in range(200):
                        await sink.send(2)
                    log("finally")

    async with linked(Chatty(), quiet=by == "cancel") as (_, client):
        stream = await client.remote().chatty()
        await anyio.wait_all_tasks_blocked()
        if by == "cancel":
            await stream.cancel()
        else:
            await client.aclose()
            await until(lambda: log.entries)
        assert log.entries == ["finally"]


async def test_a_sink_that_was_kept() -> None:
    api = API()
    async with linked(api) as (_, client):
        assert [v async for v in client.remote().keeps()] == [1]
        with pytest.raises(RuntimeError, match="has returned"):
            await api.kept[0].send(2)


async def test_a_def_handler_cannot_take_a_sink() -> None:
    async with linked(API()) as (_, client):
        with pytest.raises(TypeError, match="must be an `async def`"):
            await client.remote().threaded()
        assert await client.remote().add(1, 1) == 2


async def test_a_sink_handler_that_is_a_generator_is_an_error() -> None:
    class Both:
        async def both(self, sink: kk.StreamSink[int]) -> Any:
            yield 1

        async def fine(self) -> int:
            return 1

    async with linked(Both()) as (_, client):
        with pytest.raises(kk.KkrpcError):
            async for _ in client.remote().both():
                pass
        assert await client.remote().fine() == 1


async def test_many_sinks_at_once() -> None:
    async with linked(API()) as (_, client):
        complete: list[int] = []

        async def consume(n: int) -> None:
            assert [v async for v in client.remote().numbers(n)] == list(range(n))
            complete.append(n)

        async with anyio.create_task_group() as tg:
            for n in range(200):
                tg.start_soon(consume, n)
        await until(lambda: len(complete) == 200)


@pytest.mark.parametrize("before", [0, 1, 5])
@pytest.mark.parametrize("method", ["checked", "unchecked"])
async def test_nothing_follows_values_that_are_gone(before: int, method: str) -> None:
    """A handler that goes on after a batch could not be sent does not end as if all of it were there."""

    class Careless:
        async def checked(self, sink: kk.StreamSink[int]) -> None:
            for value in (*range(before), "wrong", *range(100, 1000)):
                try:
                    await sink.send(value)  # type: ignore[arg-type]  # wrong on purpose
                except kk.ValidationFailed:
                    pass

        async def unchecked(self, sink: kk.StreamSink[Any]) -> None:
            for value in (*range(before), object(), *range(100, 1000)):
                try:
                    await sink.send(value)
                except kk.NotSerializable:
                    pass

    async with linked(Careless()) as (_, channel):
        received: list[Any] = []
        stream = getattr(channel.remote(), method)()
        if not before:  # it is a batch of its own: refused, and that was all
            assert [value async for value in stream] == list(range(100, 1000))
            return
        with pytest.raises((kk.RemoteError, kk.ValidationFailed)) as caught:
            async for value in stream:
                received.append(value)
        assert received == list(range(before))
        assert isinstance(caught.value, kk.ValidationFailed) or caught.value.name == "NotSerializable"
