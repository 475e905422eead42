"""`Runs` by itself, in virtual time: when a run is forgotten, and what bounds them (SSE-9, SSE-13)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from kkrpc_py.actions.action import action_of
from kkrpc_py.actions.context import ActionContext
from kkrpc_py.channel.parking import Signal, current_parking
from kkrpc_py.limits import Limits
from kkrpc_py.web import replay
from kkrpc_py.web.encoding import ValueWriter
from kkrpc_py.web.outlet import HIGH_WATER, Outbox
from kkrpc_py.web.replay import Run, Runs
from kkrpc_py.web.slots import Slot, Slots
from tests.streaming import virtual

pytestmark = pytest.mark.anyio

SECONDS = 30.0
Handler = Callable[[Any, kk.ActionContext, kk.ActionStream[Any]], Awaitable[None]]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual.backend(request.param)


class World:
    """Some runs, and what became of their handlers."""

    def __init__(self, most: int) -> None:
        self.runs = Runs(SECONDS, most)
        self.ended: list[str] = []
        self.told: list[str] = []
        self._tasks: Any = None

    async def left(self, name: str, handler: Handler, window: int = 10) -> Run:
        """A run whose client has come and gone."""
        run = await self.start(name, handler, window)
        run.detach(run.attach(0, Slot(), nothing))
        return run

    async def start(self, name: str, handler: Handler, window: int = 10) -> Run:

        async def noted(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
            try:
                await handler(input, ctx, stream)
            finally:
                self.ended.append(name)

        bound = action_of(kk.stream_action(replay=window)(noted), name)
        assert bound is not None
        prepared = await bound.prepare({}, ActionContext(name, transport="sse"))
        prepared.signal.on_cancel(lambda: self.told.append(name))
        return self.runs.start(self._tasks, name, window, prepared, ValueWriter(Limits()))


def nothing() -> None:
    pass


@contextlib.asynccontextmanager
async def world(most: int = 100) -> AsyncIterator[World]:
    here = World(most)
    with anyio.fail_after(1000):
        async with anyio.create_task_group() as tasks:
            here._tasks = tasks
            tasks.start_soon(here.runs.expire)
            try:
                yield here
            finally:
                here.runs.stop()  # what they shield would hold up a test that fails
            await anyio.wait_all_tasks_blocked()
            assert len(here.runs) == here.runs.size == 0
            tasks.cancel_scope.cancel()


async def endless(input: Any, ctx: Any, stream: kk.ActionStream[Any]) -> None:
    await stream.send("x")
    await anyio.sleep_forever()


async def short(input: Any, ctx: Any, stream: kk.ActionStream[Any]) -> None:
    await stream.send("x")


async def read(outbox: Outbox) -> bytes:
    """What is there for a connection, as a server takes it."""
    await anyio.wait_all_tasks_blocked()
    batch, _ = await outbox.take()
    outbox.landed()
    return batch


async def test_a_run_is_forgotten_when_its_time_is_over() -> None:
    async with world() as here:
        run = await here.left("a", endless)
        await anyio.sleep(SECONDS - 0.1)
        assert (len(here.runs), here.told, here.ended) == (1, [], [])
        await anyio.sleep(0.2)
        assert (len(here.runs), here.told, here.ended) == (0, ["a"], ["a"])
        with pytest.raises(kk.ActionError):
            here.runs.find(f"{run.id}:1", "a", None)


async def test_one_that_is_attended_is_not() -> None:
    async with world() as here:
        run = await here.left("a", endless)
        await anyio.sleep(SECONDS - 1)
        outbox = run.attach(0, Slot(), nothing)
        await anyio.sleep(10 * SECONDS)
        assert len(here.runs) == 1
        run.detach(outbox)
        await anyio.sleep(SECONDS - 1)
        assert len(here.runs) == 1
        await anyio.sleep(2)
        assert len(here.runs) == 0


async def test_each_has_its_own_time() -> None:
    async with world() as here:
        for name in "abc":
            await here.left(name, endless)
            await anyio.sleep(10)
        await anyio.sleep(1)
        assert here.ended == ["a"]
        await anyio.sleep(10)
        assert here.ended == ["a", "b"]
        await anyio.sleep(10)
        assert here.ended == ["a", "b", "c"]


async def test_one_that_has_ended_is_kept_as_long() -> None:
    async with world() as here:
        run = await here.left("a", short)
        await anyio.sleep(SECONDS - 1)
        assert here.ended == ["a"]
        assert here.runs.find(f"{run.id}:2", "a", None) == (run, 2)
        assert run.had_whole(2)
        assert not run.had_whole(1)
        await anyio.sleep(2)
        assert len(here.runs) == 0


async def test_so_many_are_kept() -> None:
    async with world(most=3) as here:
        for name in "abcde":
            await here.left(name, endless)
        await anyio.sleep(1)
        assert sorted(here.ended) == ["a", "b"]
        assert len(here.runs) == 3


async def test_who_gives_way() -> None:
    """Not one that has a client, nor one that has ended."""
    async with world() as here:
        await here.left("ended", short)
        attended = await here.left("attended", endless)
        outbox = attended.attach(0, Slot(), nothing)
        await here.left("old", endless)
        await here.left("new", endless)
        await anyio.wait_all_tasks_blocked()
        for name in ("old", "new"):
            assert here.runs.give_way()
            assert here.told[-1] == name
        assert not here.runs.give_way()
        await anyio.sleep(1)
        assert sorted(here.ended) == ["ended", "new", "old"]
        attended.detach(outbox)


async def test_a_window_keeps_the_last_chunks_and_the_end() -> None:
    async def counting(input: Any, ctx: Any, stream: kk.ActionStream[Any]) -> None:
        for number in range(1, 8):
            await stream.send(number)

    async with world() as here:
        run = await here.left("a", counting, window=3)
        outbox = run.attach(0, Slot(), nothing)
        assert (await read(outbox)).count(b"\n\n") == 8
        assert [run.keeps(number) for number in range(10)] == [
            number in (4, 5, 6, 7, 8) for number in range(10)
        ]
        again = run.attach(5, Slot(), nothing)
        assert (await read(again)).decode() == (
            f"id: {run.id}:6\ndata: 6\n\nid: {run.id}:7\ndata: 7\n\n"
            f"event: done\nid: {run.id}:8\ndata: {{}}\n\n"
        )
        run.detach(again)


async def test_a_slow_client_makes_the_handler_wait() -> None:
    sent = 0

    async def flooding(input: Any, ctx: Any, stream: kk.ActionStream[Any]) -> None:
        nonlocal sent
        for _ in range(1000):  # many times what there is room for
            await stream.send("x" * 1000)
            sent += 1

    async with world() as here:
        run = await here.left("a", flooding, window=2)
        outbox = run.attach(0, Slot(), nothing)
        await anyio.wait_all_tasks_blocked()
        assert HIGH_WATER < sent * 1100 < HIGH_WATER + 10_000
        before = sent
        await read(outbox)
        await anyio.wait_all_tasks_blocked()
        assert sent > before + 50
        run.detach(outbox)


async def test_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one run, beside its newest chunk; of all of them: the largest loses the older half of its own."""
    monkeypatch.setattr(replay, "RUN_BYTES", 50_000)
    monkeypatch.setattr(replay, "KEPT_BYTES", 100_000)
    huge = 200_000

    def sending(count: int, size: int) -> Handler:
        async def handler(input: Any, ctx: Any, stream: kk.ActionStream[Any]) -> None:
            for _ in range(count):
                await stream.send("x" * size)
            await anyio.sleep_forever()

        return handler

    async def drained(outbox: Outbox) -> None:
        while True:
            await outbox.take()
            outbox.landed()

    async with world() as here, anyio.create_task_group() as readers:

        async def begin(name: str, count: int, size: int) -> Run:
            run = await here.left(name, sending(count, size), window=1000)
            readers.start_soon(drained, run.attach(0, Slot(), nothing))
            await anyio.wait_all_tasks_blocked()
            assert here.runs.size <= 100_000
            return run

        small = await begin("small", 5, 1000)
        large = [await begin(f"{number}", 40, 2000) for number in range(3)]
        assert [run.size > 20_000 for run in large] == [True] * 3
        assert sum(run.size for run in [small, *large]) == here.runs.size
        assert small.keeps(0)
        assert all(run.keeps(40) and run.keeps(30) and not run.keeps(0) for run in large)
        one = await begin("huge", 1, huge)
        assert one.size == 0
        assert one.keeps(1)
        assert not one.keeps(0)
        assert small.keeps(0)
        assert here.told == []
        readers.cancel_scope.cancel()


async def test_a_slot_goes_with_whoever_needs_it() -> None:
    """SSE-9: the connection has it, then the handler that goes on without one, then who comes back."""
    slots = Slots(5, lambda: False)
    async with world() as here:
        run = await here.start("a", endless)
        first = await slots.take()
        run.detach(run.attach(0, first, nothing))
        assert (first.held, run.has_slot, slots.taken) == (False, True, 1)
        first.release()
        second = Slot()
        outbox = run.attach(0, second, nothing)
        assert (second.held, run.has_slot, slots.taken) == (True, True, 1)
        third = Slot()
        run.attach(0, third, nothing)  # while the second one was there
        assert (second.held, third.held, slots.taken) == (False, True, 1)
        run.detach(outbox)  # is not its any more
        second.release()
        assert slots.taken == 1
        fourth = await slots.take()
        outbox = run.attach(0, fourth, nothing)
        assert (third.held, fourth.held, slots.taken) == (True, True, 2)
        third.release()
        run.detach(outbox)
        assert (fourth.held, slots.taken) == (False, 1)
        run.forget()
        await anyio.sleep(1)
        assert (slots.taken, here.ended) == (0, ["a"])


async def test_who_comes_back_to_the_end_needs_a_slot_of_its_own() -> None:
    slots = Slots(5, lambda: False)
    async with world() as here:
        run = await here.start("a", short)
        first = await slots.take()
        outbox = run.attach(0, first, nothing)
        await read(outbox)
        run.detach(outbox)
        assert (first.held, run.has_slot) == (True, True)
        first.release()
        assert (run.has_slot, slots.taken) == (False, 0)


async def test_who_takes_over_cuts_off_one_that_does_not_read() -> None:
    """SSE-13: one that reads has its answer ended; what one does not read is not kept for it."""
    gone: list[str] = []
    async with world() as here:
        run = await here.left("a", endless)
        first = run.attach(0, Slot(), lambda: gone.append("first"))
        await anyio.wait_all_tasks_blocked()
        batch, last = await first.take()
        assert (batch, last) == (f'id: {run.id}:1\ndata: "x"\n\n'.encode(), False)
        second = run.attach(0, Slot(), lambda: gone.append("second"))
        assert gone == ["first"]
        await read(second)
        third = run.attach(0, Slot(), lambda: gone.append("third"))
        assert gone == ["first"]
        assert await second.take() == (b"", True)
        run.detach(first)
        assert len(here.runs) == 1
        run.detach(third)


async def test_a_batch_is_not_much_however_much_waits() -> None:
    """ACT-9: what a server takes at once it may keep for a client that does not read."""
    parking = current_parking()
    outbox = Outbox(parking, Signal(parking))
    events = [b"%06d" % number + b"x" * 994 for number in range(1000)]
    for event in events:
        outbox.append(event)
    outbox.close()
    found: list[bytes] = []
    last = False
    while not last:
        batch, last = await outbox.take()
        assert len(batch) <= HIGH_WATER + 1000
        assert outbox.in_flight
        outbox.landed()
        found.append(batch)
    assert b"".join(found) == b"".join(events)
    assert outbox.taken == 1000
    assert not outbox.full
