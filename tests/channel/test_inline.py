"""Inline handlers run where their requests are read: when they do, when not, and what that leaves behind."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import kkrpc_py as kk
from tests.channel.harness import BOUND, linked
from tests.channel.peer import (
    EagerRecorder,
    cancel,
    memory_byte_streams,
    request,
    result,
    scripted,
    until,
)

pytestmark = pytest.mark.anyio


class Refused(Exception):
    pass


class API:
    def __init__(self) -> None:
        self.ran: list[Any] = []
        self.gate = anyio.Event()
        self.errors: list[weakref.ref[BaseException]] = []

    @kk.inline
    def mark(self, value: Any = None) -> Any:
        self.ran.append(value)
        return value

    @kk.inline
    def later(self) -> Any:
        return self.wait()

    @kk.inline
    def count(self, to: int) -> Any:
        yield from range(to)

    @kk.inline
    async def wait(self) -> str:
        await self.gate.wait()
        return "waited"

    @kk.inline
    def refuse(self) -> None:
        error = Refused("no")
        self.errors.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    @kk.inline
    def interrupt(self) -> None:
        raise KeyboardInterrupt

    async def begin(self, value: Any) -> None:
        self.ran.append(value)
        await self.gate.wait()


async def test_what_an_inline_handler_may_return_or_raise() -> None:
    api = API()
    async with linked(api) as (_, client):
        remote = client.remote()
        assert await remote.mark([1, {"a": None}]) == [1, {"a": None}]
        assert [n async for n in remote.count(3)] == [0, 1, 2]
        api.gate.set()
        assert await remote.later() == "waited"
        assert await remote.wait() == "waited"
        with pytest.raises(kk.RemoteError, match="no"):
            await remote.refuse()
        with pytest.raises(kk.RemoteError, match="argument"):
            await remote.mark(1, 2, 3)


async def test_handlers_begin_in_the_order_of_their_calls() -> None:
    """An inline one does not overtake what came before it in the same read."""
    api = API()
    async with scripted(api) as (_, peer):
        await peer.send(request(1, "begin", "first"), request(2, "mark", "second"))
        assert await peer.next() == result(2, "second")
        assert api.ran == ["first", "second"]
        api.gate.set()
        await peer.next()


async def test_a_read_full_of_inline_calls_leaves_the_others_their_turns() -> None:
    api = API()
    most = 0

    async def watch() -> None:
        nonlocal most
        before = 0
        while True:
            await checkpoint()
            most = max(most, len(api.ran) - before)
            before = len(api.ran)

    async with scripted(api) as (_, peer):
        async with anyio.create_task_group() as tg:
            tg.start_soon(watch)
            await peer.send(*(request(n, "mark", n) for n in range(1000)))
            for _ in range(1000):
                await peer.next()
            tg.cancel_scope.cancel()
        assert api.ran == list(range(1000))
    assert most <= 200, "a few of the workers' turns, not a whole read"


async def test_none_runs_once_the_channel_is_closed() -> None:
    """While it drains, the peer may go on asking."""
    api = API()
    near, far = memory_byte_streams()
    limits = kk.Limits(drain_seconds=0.2)
    with anyio.fail_after(BOUND):
        async with kk.RPCChannel(EagerRecorder(near), expose=api, hello=False, limits=limits) as channel:

            async def fill() -> None:
                with pytest.raises(kk.ChannelClosed):
                    await channel.remote().big("x" * 200_000)  # the far end does not read

            async with anyio.create_task_group() as tg:
                tg.start_soon(fill)
                await until(lambda: bool(channel.connection.outgoing))
                tg.start_soon(channel.aclose)
                await channel.wait_closed()
                await far.send(b'{"id":1,"method":"mark","args":[1],"type":"request"}\n')
    assert api.ran == []


async def test_what_a_cancelled_call_returned_is_not_left_alone() -> None:
    """The cancel comes before a worker takes over: a coroutine that it returned is closed, not forgotten."""
    async with scripted(API()) as (channel, peer):
        # As the event loop may hand over two reads without a turn for the workers in between.
        for message in (request(1, "later"), cancel(1)):
            channel._take(json.dumps(message).encode() + b"\n")
        answer = await peer.next()
        assert answer["id"] == 1
        assert answer["args"]["error"]["name"] == "CallCancelled"
    gc.collect()  # a coroutine that was never awaited says so now


async def test_what_nobody_takes_before_the_end_is_closed() -> None:
    async with scripted(API()) as (channel, _):
        channel._take(json.dumps(request(1, "later")).encode() + b"\n")
    gc.collect()  # a coroutine that was never awaited says so now


async def test_an_error_leaves_no_cycle() -> None:
    api = API()
    async with linked(api) as (_, client):
        gc.collect()
        gc.disable()
        try:
            for _ in range(10):
                with pytest.raises(kk.RemoteError):
                    await client.remote().refuse()
            assert await client.remote().mark(1) == 1
            assert not [ref for ref in api.errors if ref() is not None]
        finally:
            gc.enable()


async def test_an_interrupt_ends_the_channel() -> None:
    with pytest.raises(KeyboardInterrupt):
        async with scripted(API()) as (channel, peer):
            await peer.send(request(1, "interrupt"))
            await channel.wait_closed()
