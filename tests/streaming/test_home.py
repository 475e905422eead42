"""The one event loop of a hub: other threads are refused, and it may be filled before the loop runs."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from tests.channel.harness import BOUND, linked, until, without_collector

pytestmark = pytest.mark.anyio


async def test_a_handler_on_a_thread_changes_nothing() -> None:
    """A `def` handler runs on a thread: what it does to a hub is refused, and nothing is half done."""
    hub = kk.StreamHub()
    chat = hub.create("c")
    stream = chat.start("s")
    state = hub.shared_state("state", initial={"n": 0})

    def mutate() -> None:
        with state.mutate() as draft:
            draft["n"] += 1

    acts: dict[str, Callable[[], object]] = {
        "write": lambda: stream.write(1),
        "close": stream.close,
        "error": lambda: stream.error("no"),
        "start": chat.start,
        "close the name": chat.close,
        "broadcast": lambda: hub.broadcast("e"),
        "mutate": mutate,
        "set": lambda: state.set(1),
    }

    class API:
        def act(self, name: str) -> None:
            acts[name]()

    with anyio.fail_after(BOUND):
        async with linked({"app": API(), "streams": hub}) as (_, client):
            for name in acts:
                with pytest.raises(RuntimeError, match="another thread"):
                    await client.remote().app.act(name)
            assert not stream.closed
            assert chat.ids() == ["s"]
            assert (state.value, state.version) == ({"n": 0}, 1)
            stream.write("here")
            reader = kk.streams(client).subscribe("c", "s")
            async with reader:
                assert await reader.receive() == "here"


async def test_two_loops_at_once_are_refused() -> None:
    hub = kk.StreamHub()
    raised: list[BaseException] = []

    async def elsewhere() -> None:
        async with kk.memory_pair({"streams": hub}):
            pass

    def run() -> None:
        try:
            anyio.run(elsewhere)
        except BaseException as exc:
            raised.append(exc)

    with anyio.fail_after(BOUND):
        async with linked({"streams": hub}):
            thread = threading.Thread(target=run)
            thread.start()
            await until(lambda: not thread.is_alive())
            assert hub.broadcast("e") == 1
        assert isinstance(raised.pop(), RuntimeError)
        # Once nobody is connected here, it may move.
        thread = threading.Thread(target=run)
        thread.start()
        await until(lambda: not thread.is_alive())
    assert raised == []


def test_a_hub_is_filled_before_the_loop_runs(anyio_backend_name: str) -> None:
    hub = kk.StreamHub()
    chat = hub.create("c", closed_stream_retention=0.001)
    kept = chat.start("open")
    kept.write(1)
    ended = chat.start("ended")
    ended.write(2)
    ended.close()
    state = hub.shared_state("s", initial=[])
    with state.mutate() as draft:
        draft.append(1)

    async def main() -> None:
        with anyio.fail_after(BOUND):
            assert chat.ids() == ["open", "ended"]
            async with linked({"streams": hub}) as (_, client):
                async with kk.streams(client).subscribe("c", "open") as reader:
                    assert await reader.receive() == 1
                async with kk.streams(client).shared_state("s") as seen:
                    assert seen.value == [1]
                await until(lambda: chat.ids() == ["open"])  # its retention began with the first connection

    anyio.run(main, backend=anyio_backend_name)


async def test_a_reader_whose_task_was_cancelled_leaves_at_once() -> None:
    """On asyncio the frames of a cancellation hold what was read from, until the collector runs."""
    hub = kk.StreamHub()
    stream = hub.create("c").start("s")
    with without_collector(), anyio.fail_after(BOUND):
        async with linked({"streams": hub}) as (_, client):

            async def read() -> None:
                async for _ in kk.streams(client).subscribe("c", "s", overflow="block"):
                    pass

            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(read)
                await until(lambda: stream.subscribers == 5)
                tasks.cancel_scope.cancel()
            await until(lambda: stream.subscribers == 0)
            assert stream.signal.cancelled


async def test_a_crowd_that_leaves_frees_what_it_held() -> None:
    hub = kk.StreamHub()
    stream = hub.create("c", replay_window=0).start("s")
    with anyio.fail_after(BOUND):
        async with linked({"streams": hub}, quiet=False) as (_, client):
            readers = [kk.streams(client).subscribe("c", "s", overflow="block") for _ in range(40)]
            for reader in readers:
                await reader.__aenter__()
            for n in range(200):
                stream.write(n)
            assert len(stream.log) > 0
            for reader in readers:
                await reader.aclose()
            assert stream.subscribers == 0
            assert len(stream.log) == 0


async def test_the_replay_window_is_bounded_in_bytes_too() -> None:
    """Limits.subscription_bytes bounds it; what is missing for that is a gap as any other."""
    hub = kk.StreamHub(limits=kk.Limits(subscription_bytes=10_000))
    stream = hub.create("c", replay_window=256).start("s")
    for n in range(100):
        stream.write([n, "x" * 1_000])
    stream.close()
    with anyio.fail_after(BOUND):
        async with linked({"streams": hub}) as (_, client):
            reader = kk.streams(client).subscribe("c", "s")
            numbers = [value[0] async for value in reader]
            assert numbers == list(range(91, 100))
            assert [(gap.first, gap.last) for gap in reader.gaps] == [(1, 91)]
    assert stream.log.size <= 10_000
    one = hub.create("large").start()
    one.write("y" * 50_000)
    one.close()
    async with linked({"streams": hub}) as (_, client):
        async for value in kk.streams(client).subscribe("large", one.id):
            assert len(value) == 50_000  # the newest is always kept


@pytest.mark.parametrize("wrong", [None, {}, "streams", object()])
async def test_what_is_neither_channel_nor_link(wrong: Any) -> None:
    with pytest.raises(TypeError, match="takes a channel or a link"):
        kk.streams(wrong)
    with pytest.raises(TypeError, match="takes a channel or a link"):
        kk.events(wrong)


async def test_a_link_that_was_not_entered_is_not_waited_for() -> None:
    link = kk.reconnecting(lambda: kk.connect_unix("nowhere"))
    with anyio.fail_after(BOUND):
        with pytest.raises(RuntimeError, match="enter the link first"):
            await link.connected()
        reader = kk.streams(link).subscribe("c", "s")
        with pytest.raises(RuntimeError, match="enter the link first"):
            await reader.receive()
    del link, reader
    gc.collect()
