"""Readers over a link that loses connections (NST-19): nothing doubled or hidden, nobody left waiting."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from kkrpc_py.limits import Limits
from tests.channel.harness import BOUND, until
from tests.streaming.connections import Connections
from tests.streaming.scripts import all_blocked, collected, received

pytestmark = pytest.mark.anyio


class Server(Connections):
    """A hub behind a link; what it is can be changed from one connection to the next."""

    def __init__(self, **options: Any) -> None:
        self.hub = kk.StreamHub()
        super().__init__({"streams": self.hub})
        self.options = {"closed_stream_retention": 0, **options}
        self.chat = self.hub.create("c", **self.options)
        self.stream = self.chat.start("x")

    def restart(self) -> None:
        """Forget everything: the next connection leads to another hub."""
        self.hub = kk.StreamHub()
        self.api = {"streams": self.hub}
        self.chat = self.hub.create("c", **self.options)
        self.stream = self.chat.start("x")

    def write(self, count: int) -> None:
        for _ in range(count):
            self.stream.write(self.stream.log.next)

    async def lose(self, *, lost: bool = True) -> None:
        """Lose the connection, and see to it that none comes."""
        self.allowed = False
        count = len(self.hub.channels)
        assert count == 1
        await self.cut(lost=lost)
        await until(lambda: not self.hub.channels)


@contextlib.asynccontextmanager
async def served(**options: Any) -> AsyncIterator[tuple[Server, kk.ReconnectingChannel]]:
    server = Server(**options)
    with anyio.fail_after(BOUND):
        async with server.link() as link:
            yield server, link


# --- going on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("surface", ["iterate", "receive"])
@pytest.mark.parametrize("lost", [True, False])
async def test_it_goes_on_after_the_last_that_it_had(surface: str, lost: bool) -> None:
    async with served() as (server, link):
        reader = kk.streams(link).subscribe("c", "x")
        read: Any = reader.receive if surface == "receive" else aiter(reader).__anext__
        server.write(3)
        got = [await read() for _ in range(2)]
        first = reader.channel
        server.write(2)
        await all_blocked()
        await server.lose(lost=lost)
        server.write(3)
        server.allowed = True
        got += [await read() for _ in range(6)]
        assert got == list(range(1, 9))
        assert (reader.gaps, reader.dropped, reader.last_seq) == ([], 0, 8)
        assert reader.channel is link.channel is not first
        assert reader.epoch == server.stream.epoch
        reader.cancel()
        await reader.aclose()
        assert server.stream.subscribers == 0


@pytest.mark.parametrize("lost", [True, False])
async def test_lost_at_every_place(lost: bool) -> None:
    """Whatever was read, and whatever was under way."""
    for read in range(5):
        for under_way in range(4):
            async with served() as (server, link):
                async with kk.streams(link).subscribe("c", "x") as reader:
                    server.write(read)
                    got = await received(reader, read)
                    server.write(under_way)
                    if under_way % 2:
                        await all_blocked()
                    await server.cut(lost=lost)
                    server.write(1)
                    server.stream.close()
                    # The id is free at once, and known to nobody: who was there is the last to read it.
                    server.chat._streams["x"] = server.stream
                    while True:
                        try:
                            got.append(await reader.receive())
                        except anyio.EndOfStream:
                            break
                assert got == list(range(1, read + under_way + 2))
                assert (reader.gaps, reader.dropped) == ([], 0)


async def test_many_losses_in_a_row() -> None:
    async with served(replay_window=2000) as (server, link):
        reader = kk.streams(link).subscribe("c", "x", high_water_mark=2000)
        got: list[int] = []

        async def read() -> None:
            async for value in reader:
                got.append(value)

        async with anyio.create_task_group() as tg:
            tg.start_soon(read)
            for turn in range(20):
                server.write(50)
                if turn % 3:
                    await until(lambda: server.stream.subscribers == 1)
                await server.cut(lost=bool(turn % 2))
            await until(lambda: len(got) == 1000)
            tg.cancel_scope.cancel()
        assert got == list(range(1, 1001))
        assert (reader.gaps, reader.dropped) == ([], 0)


async def test_the_wish_for_what_is_new_alone_is_not_repeated() -> None:
    """`after=None` is of the first subscription: what comes while there is no connection is wanted."""
    async with served() as (server, link):
        server.write(5)
        async with kk.streams(link).subscribe("c", "x", after=None) as reader:
            server.write(1)
            assert await reader.receive() == 6
            await server.lose()
            server.write(2)
            server.allowed = True
            assert await received(reader, 2) == [7, 8]
            assert reader.gaps == []


async def test_a_connection_that_was_lost_is_not_kept() -> None:
    async with served() as (server, link):
        async with kk.streams(link).subscribe("c", "x") as reader:
            server.write(1)
            assert await reader.receive() == 1
            kept = weakref.ref(link.channel)
            await server.cut()
            server.write(1)
            assert await reader.receive() == 2
            gc.collect()
            assert kept() is None


async def test_what_is_gone_meanwhile_is_told_as_a_gap() -> None:
    async with served(replay_window=3) as (server, link):
        async with kk.streams(link).subscribe("c", "x") as reader:
            server.write(2)
            assert await received(reader, 2) == [1, 2]
            await server.lose()
            server.write(10)
            server.allowed = True
            assert await reader.receive() == 10
            assert reader.gaps == [kk.Gap(3, 9)]
            await server.lose()
            server.write(5)
            server.allowed = True
            assert await received(reader, 5) == [11, 12, 15, 16, 17]
            assert reader.gaps == [kk.Gap(3, 9), kk.Gap(13, 14)]
            assert reader.dropped == 0


async def test_a_gap_as_an_error_each_time() -> None:
    async with served(replay_window=1) as (server, link):
        reader = kk.streams(link).subscribe("c", "x", on_gap="error")
        server.write(2)
        with pytest.raises(kk.StreamGap) as gap:
            await reader.receive()
        assert (gap.value.first, gap.value.last) == (1, 1)
        assert await reader.receive() == 2
        await server.lose()
        server.write(3)
        server.allowed = True
        with pytest.raises(kk.StreamGap) as gap:
            await reader.receive()
        assert (gap.value.first, gap.value.last) == (3, 4)
        assert await reader.receive() == 5
        await reader.aclose()


@pytest.mark.parametrize("on_gap", ["report", "error"])
async def test_another_stream_of_the_same_id(on_gap: Any) -> None:
    """The server was started again: its numbers are no continuation of those before."""
    for written in (1, 3, 7):
        async with served() as (server, link):
            reader = kk.streams(link).subscribe("c", "x", on_gap=on_gap)
            server.write(3)
            assert await received(reader, 3) == [1, 2, 3]
            epoch = reader.epoch
            await server.lose()
            server.restart()
            server.write(written)
            server.allowed = True
            if on_gap == "error":
                with pytest.raises(kk.StreamGap, match="another one"):
                    await reader.receive()
            assert await received(reader, written) == list(range(1, written + 1))
            assert reader.gaps == [kk.Gap(1, 0, restarted=True)]
            assert (reader.last_seq, reader.dropped) == (written, 0)
            assert reader.epoch == server.stream.epoch != epoch
            await reader.aclose()


@pytest.mark.parametrize("end", ["close", "error"])
async def test_an_end_while_there_was_no_connection(end: str) -> None:
    async with served(closed_stream_retention=30) as (server, link):
        reader = kk.streams(link).subscribe("c", "x")
        server.write(1)
        assert await reader.receive() == 1
        await server.lose()
        server.write(1)
        server.stream.close() if end == "close" else server.stream.error("failed")
        server.allowed = True
        assert await reader.receive() == 2
        with pytest.raises(anyio.EndOfStream if end == "close" else kk.RemoteError):
            await reader.receive()
        server.chat.close()


@pytest.mark.parametrize("surface", ["iterate", "receive"])
async def test_what_the_server_has_forgotten_is_unknown(surface: str) -> None:
    async with served() as (server, link):
        reader = kk.streams(link).subscribe("c", "x")
        read: Any = reader.receive if surface == "receive" else aiter(reader).__anext__
        server.write(1)
        assert await read() == 1
        await server.lose()
        server.stream.close()
        server.allowed = True
        for _ in range(2):
            with pytest.raises(kk.UnknownStream):
                await read()


# --- who waits --------------------------------------------------------------------------------------


async def test_subscribing_waits_for_a_connection() -> None:
    async with served() as (server, link):
        await server.lose()
        await until(lambda: link.state != "connected")
        got: list[int] = []

        async def read() -> None:
            got.extend(await collected(kk.streams(link).subscribe("c", "x"), 1))

        async with anyio.create_task_group() as tg:
            tg.start_soon(read)
            server.write(1)
            await anyio.sleep(0.01)
            assert got == []
            server.allowed = True
        assert got == [1]


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("surface", ["iterate", "receive", "enter"])
@pytest.mark.parametrize("how", ["cancel", "aclose"])
async def test_cancelled_while_there_is_no_connection(how: str, surface: str, begun: bool) -> None:
    async with served() as (server, link):
        reader = kk.streams(link).subscribe("c", "x")
        iterator = aiter(reader) if surface == "iterate" else None
        read: Any = iterator.__anext__ if iterator is not None else reader.receive
        if surface == "enter":
            read = reader.__aenter__
        if begun and surface != "enter":
            server.write(1)
            assert await read() == 1
        await server.lose()
        outcome: list[type] = []

        async def wait() -> None:
            try:
                await read()
            except (kk.CallCancelled, anyio.ClosedResourceError) as exc:
                outcome.append(type(exc))

        async with anyio.create_task_group() as tg:
            tg.start_soon(wait)
            await anyio.sleep(0.005)
            assert outcome == []
            if how == "cancel":
                reader.cancel()
            else:
                await reader.aclose()
        assert outcome == [anyio.ClosedResourceError if surface == "receive" else kk.CallCancelled]
        server.allowed = True
        await link.connected()
        await all_blocked()
        assert server.stream.subscribers == 0


async def test_a_receive_that_is_cancelled_while_there_is_no_connection() -> None:
    async with served() as (server, link):
        async with kk.streams(link).subscribe("c", "x") as reader:
            server.write(2)
            assert await reader.receive() == 1
            await server.lose()
            assert await reader.receive() == 2
            for _ in range(3):
                with anyio.move_on_after(0.002) as scope:
                    await reader.receive()
                assert scope.cancelled_caught
            server.write(1)
            server.allowed = True
            assert await reader.receive() == 3
            assert (reader.gaps, reader.dropped) == ([], 0)


async def test_a_subscription_that_failed_is_tried_again_over_the_same_connection() -> None:
    """Whatever it failed for: the connection is not lost, and nobody waits for another one."""
    asked = 0

    async def authorize(request: kk.StreamRequest) -> bool:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise PermissionError("not now")
        if asked == 3:
            await anyio.sleep_forever()
        return asked > 1

    async with served(authorize=authorize) as (server, link):
        server.write(1)
        reader = kk.streams(link).subscribe("c", "x")
        with pytest.raises(kk.UnknownStream):
            await reader.receive()
        with pytest.raises(kk.RemoteError, match="not now"):
            await reader.receive()
        with anyio.move_on_after(0.005) as scope:
            await reader.receive()
        assert scope.cancelled_caught
        assert await reader.receive() == 1
        assert len(server.lines) == 1
        await reader.aclose()


async def test_an_error_of_the_servers_that_is_called_like_a_loss() -> None:
    """It is the stream's, or the answer's: not a reason to wait for another connection."""

    def authorize(request: kk.StreamRequest) -> bool:
        if refuse:
            raise kk.ChannelClosed("the server's own other channel")
        return True

    refuse = True
    async with served(authorize=authorize, closed_stream_retention=30) as (server, link):
        with pytest.raises(kk.KkrpcError, match="own other channel"):
            await kk.streams(link).subscribe("c", "x").receive()
        refuse = False
        server.write(1)
        server.stream.error(kk.ChannelClosed("the server's own other channel"))
        reader = kk.streams(link).subscribe("c", "x")
        assert await reader.receive() == 1
        for _ in range(2):
            with pytest.raises(kk.KkrpcError, match="own other channel"):
                await reader.receive()
        assert len(server.lines) == 1
        server.chat.close()


@pytest.mark.parametrize("surface", ["iterate", "receive"])
async def test_a_link_that_is_closed_for_good(surface: str) -> None:
    async with served() as (server, link):
        reader = kk.streams(link).subscribe("c", "x")
        read: Any = reader.receive if surface == "receive" else aiter(reader).__anext__
        server.write(1)
        assert await read() == 1
        failed: list[str] = []

        async def wait() -> None:
            for _ in range(2):
                with pytest.raises(kk.ChannelClosed):
                    await read()
                failed.append("closed")

        async with anyio.create_task_group() as tg:
            tg.start_soon(wait)
            await all_blocked()
            await link.aclose()
        assert failed == ["closed", "closed"]
        with pytest.raises(kk.ChannelClosed):
            await kk.streams(link).subscribe("c", "x").receive()


async def test_a_reader_that_is_dropped_while_there_is_no_connection() -> None:
    async with served() as (server, link):
        reader: Any = kk.streams(link).subscribe("c", "x")
        server.write(1)
        assert await reader.receive() == 1
        await server.lose()
        del reader
        server.allowed = True
        await link.connected()
        await all_blocked()
        assert server.stream.subscribers == 0


# --- the producing side -----------------------------------------------------------------------------


async def test_a_client_that_comes_back_in_time_was_never_gone() -> None:
    async with served(reconnect_grace=20) as (server, link):
        async with kk.streams(link).subscribe("c", "x") as reader:
            for value in range(3):
                server.stream.write(value)
                assert await reader.receive() == value
                await server.cut()
            server.stream.write("last")
            assert await reader.receive() == "last"
            assert not server.stream.signal.cancelled
        with anyio.fail_after(BOUND):
            await server.stream.signal


async def test_a_producer_that_was_held_up_goes_on_meanwhile() -> None:
    """Who is gone holds up nobody; what it missed by that is a gap, or still there."""
    async with served(replay_window=5) as (server, link):
        async with kk.streams(link).subscribe("c", "x", overflow="block", high_water_mark=1) as reader:
            for _ in range(500):
                try:
                    server.write(1)
                except kk.WouldBlock:
                    break
                await all_blocked()
            held = server.stream.log.next
            assert held < 500
            await server.lose()
            await until(lambda: server.stream.subscribers == 0)
            server.write(20)
            server.stream.close()
            server.chat._streams["x"] = server.stream
            server.allowed = True
            got = await collected(reader)
            assert got[-5:] == list(range(held + 15, held + 20))
            [gap] = reader.gaps
            assert [*got[: gap.first - 1], *range(gap.first, gap.last + 1), *got[gap.first - 1 :]] == list(
                range(1, held + 20)
            )
            assert reader.dropped == 0


async def test_limits_of_the_new_server_are_told() -> None:
    async with served() as (server, link):
        reader = kk.streams(link).subscribe("c", "x", high_water_mark=100)
        server.write(1)
        assert await reader.receive() == 1
        await server.lose()
        server.hub.limits = Limits(high_water_mark=10)
        server.allowed = True
        with pytest.raises(kk.LimitExceeded):
            await reader.receive()
