"""`kk.reconnecting` over real sockets and processes, and what its proxies can do.

Delays, states, errors and cancellation are in `test_reconnect_clock`, in virtual time.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import anyio
import pytest
from anyio.abc import TaskStatus

import kkrpc_py as kk
from kkrpc_py.streaming.reconnect import ReconnectingChannel, reconnecting
from tests.channel.harness import BOUND, Log, until

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[2]
SERVER = """
import os, sys, anyio, kkrpc_py as kk

class Api:
    def pid(self):
        return os.getpid()
    async def count(self):
        for n in range(10**9):
            yield n
    async def never(self):
        await anyio.sleep_forever()

if len(sys.argv) > 1:
    async def main():
        async with anyio.create_task_group() as tasks:
            await tasks.start(kk.serve_unix, Api(), sys.argv[1])
            print("listening", flush=True)
    anyio.run(main)
else:
    kk.run_stdio(Api())
"""


@dataclass
class Point:
    x: int
    y: int


class Api:
    theme = kk.writable("light")

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def add(self, a: int, b: int) -> int:
        self.asked.append((a, b))
        return a + b

    async def count(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    async def move(self, point: Point, by: int) -> Point:
        return Point(point.x + by, point.y + by)

    async def tell(self, callback: Callable[[str], Any]) -> Any:
        return await callback("hello")

    async def never(self) -> None:
        self.asked.append("never")
        await anyio.sleep_forever()

    @kk.constructible
    class Greeter:
        def __init__(self, greeting: str) -> None:
            self.greeting = greeting


class TypedApi(Protocol):
    async def move(self, point: Point, by: int) -> Point: ...

    def count(self, n: int) -> AsyncIterator[int]: ...


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "socket")


@contextlib.asynccontextmanager
async def serving(api: Any, path: str) -> AsyncIterator[anyio.CancelScope]:
    """A server in this process; when the scope is cancelled, and at the end, its connections are closed."""
    scope = anyio.CancelScope()

    async def serve(*, task_status: TaskStatus[Any]) -> None:
        with scope:
            await kk.serve_unix(api, path, task_status=task_status)

    async with anyio.create_task_group() as tasks:
        await tasks.start(serve)
        yield scope
        tasks.cancel_scope.cancel()


@contextlib.contextmanager
def child(path: str) -> Iterator[subprocess.Popen[str]]:
    """A server in a process of its own, which listens."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, path],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "listening\n"
            yield server
        finally:
            server.kill()


def link_to(path: str) -> ReconnectingChannel:
    return reconnecting(lambda: kk.connect_unix(path), initial_delay=0.001, max_delay=0.05)


# Proxies -----------------------------------------------------------------------------------------


async def test_one_proxy_of_any_kind_serves_for_all_channels(path: str) -> None:
    api = Api()
    with anyio.fail_after(BOUND):
        async with serving(api, path), link_to(path) as link:
            remote, typed = link.remote(), link.remote(TypedApi)
            named, quick = remote.theme, remote.add.with_options(timeout=BOUND)
            heard: list[str] = []
            channels = []
            for turn in range(3):
                channels.append(link.channel)
                assert await remote.add(turn, 1) == turn + 1
                assert await remote["add"](turn, 2) == turn + 2
                assert await quick(turn, 3) == turn + 3
                assert [n async for n in remote.count(3)] == [0, 1, 2]
                assert [n async for n in typed.count(3)] == [0, 1, 2]
                assert await typed.move(Point(1, 2), by=turn) == Point(1 + turn, 2 + turn)
                await link.set(named, f"theme {turn}")
                assert await named == f"theme {turn}"
                assert await link.construct(remote.Greeter, "hi") == {"greeting": "hi"}
                await remote.tell(heard.append)
                await link.channel.aclose()
                for call in (remote.add(1, 2), quick(1, 2), typed.move(Point(1, 2), 3)):
                    with pytest.raises(kk.ChannelClosed):
                        await call
                with pytest.raises(kk.ChannelClosed):
                    await named
                with pytest.raises(kk.ChannelClosed):
                    await link.set(named, "lost")
                await link.connected()
    assert heard == ["hello"] * 3
    assert len({id(channel) for channel in channels}) == 3
    assert api.asked == [(turn, n) for turn in range(3) for n in (1, 2, 3)]


async def test_a_typed_proxy_refuses_before_anything_is_sent(path: str) -> None:
    async with link_to_nothing() as link:
        typed = link.remote(TypedApi)
        with pytest.raises(AttributeError):
            typed.nothing  # type: ignore[attr-defined]  # noqa: B018  # what the class does not have
        with pytest.raises(TypeError):
            typed.count()  # type: ignore[call-arg]  # what does not bind
        with pytest.raises(TypeError):
            link.remote("no class")  # type: ignore[call-overload]  # the mistake


@contextlib.asynccontextmanager
async def link_to_nothing() -> AsyncIterator[ReconnectingChannel]:
    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[kk.RPCChannel]:
        async with kk.memory_pair() as (_, client):
            yield client

    with anyio.fail_after(BOUND):
        async with reconnecting(connect) as link:
            yield link


async def test_what_connect_does_first_belongs_to_every_attempt(path: str) -> None:
    """A login: refused for as long as the server says so, and repeated on each connection."""
    refusals = 2

    class Door:
        async def login(self, token: str) -> None:
            nonlocal refusals
            refusals -= 1
            if refusals >= 0:
                raise PermissionError("not yet")
            kk.current_channel().state.name = token

        async def who(self) -> str:
            name: str = kk.current_channel().state.name
            return name

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[kk.RPCChannel]:
        async with kk.connect_unix(path) as channel:
            await channel.remote().login("Ada")
            yield channel

    with anyio.fail_after(BOUND):
        async with serving(Door(), path), reconnecting(connect, initial_delay=0.001) as link:
            assert isinstance(link.last_error, PermissionError)
            assert link.attempts == 2
            assert await link.remote().who() == "Ada"
            await link.channel.aclose()
            await link.connected()
            assert await link.remote().who() == "Ada"
        refusals = 100
        async with serving(Door(), path):
            with pytest.raises(PermissionError, match="not yet"):
                async with reconnecting(connect, initial_delay=0.001, max_delay=0.01, attempts=3):
                    pytest.fail("there is no connection")


# Sockets -----------------------------------------------------------------------------------------


async def test_a_link_waits_for_a_server_and_for_its_successor(path: str) -> None:
    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tasks:
            log = Log()

            async def use() -> None:
                async with link_to(path) as link:
                    log("entered")
                    assert await link.remote().add(1, 2) == 3
                    log("first")
                    with pytest.raises(kk.ChannelClosed):
                        await link.remote().never()
                    log("lost")
                    await link.connected()
                    assert await link.remote().add(2, 3) == 5

            tasks.start_soon(use)
            await anyio.wait_all_tasks_blocked()
            assert log.entries == []
            first, second = Api(), Api()
            async with serving(first, path):
                await until(lambda: "never" in first.asked)
            await log.wait_for("lost")
            assert log.entries == ["entered", "first", "lost"]
            async with serving(second, path):
                await until(lambda: second.asked == [(2, 3)])
    assert first.asked == [(1, 2), "never"]


async def test_a_link_whose_attempts_are_used_up_is_closed(path: str) -> None:
    with anyio.fail_after(BOUND):
        with pytest.raises(FileNotFoundError):
            async with reconnecting(lambda: kk.connect_unix(path), initial_delay=0.001, attempts=3):
                pytest.fail("there is no connection")
        async with serving(Api(), path) as server:
            link = reconnecting(lambda: kk.connect_unix(path), initial_delay=0.001, attempts=3)
            async with link:
                server.cancel()
                assert [state async for state in link.states()][-1] == "closed"
                with pytest.raises(kk.ChannelClosed, match="gave up after 3 attempts"):
                    await link.connected()


# Processes ---------------------------------------------------------------------------------------


async def test_a_server_process_that_is_killed_and_its_successor(path: str) -> None:
    with anyio.fail_after(BOUND):
        async with contextlib.AsyncExitStack() as stack:
            with child(path) as first:
                link = await stack.enter_async_context(link_to(path))
                api = link.remote()
                lost = link.channel
                assert await api.pid() == first.pid
                ended: list[str] = []

                async def never() -> None:
                    with pytest.raises(kk.ChannelClosed):
                        await api.never()
                    ended.append("call")

                async def count() -> None:
                    received = -1
                    with pytest.raises(kk.ChannelClosed):
                        async for number in api.count():
                            assert number == received + 1
                            received = number
                            if number == 10_000:
                                first.send_signal(signal.SIGKILL)
                    assert received >= 10_000
                    ended.append("stream")

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(never)
                    tasks.start_soon(count)
                assert sorted(ended) == ["call", "stream"]
                assert first.wait() == -signal.SIGKILL
            assert link.state != "connected"
            with pytest.raises(kk.ChannelClosed):
                await api.pid()
            with child(path) as second:  # over the socket that the first one left behind
                assert await link.connected(after=lost) is link.channel
                assert await api.pid() == second.pid != first.pid
                await link.aclose()


async def test_a_child_process_that_dies_and_the_next_one() -> None:
    command = [sys.executable, "-c", SERVER]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with anyio.fail_after(BOUND):
        async with reconnecting(
            lambda: kk.open_process(command, env=environment), initial_delay=0.001
        ) as link:
            api = link.remote()
            first = await api.pid()
            assert first == link.channel.byte_stream.pid
            lost = link.channel
            os.kill(first, signal.SIGKILL)
            with pytest.raises(kk.ChannelClosed) as told:
                await api.never()
            assert told.value.exit_code == -signal.SIGKILL
            assert isinstance(link.last_error, kk.ChannelClosed)
            assert link.last_error.exit_code == -signal.SIGKILL
            channel = await link.connected(after=lost)
            second = await api.pid()
            assert second == channel.byte_stream.pid != first
        assert channel.byte_stream.exit_code == 0  # its stdin was closed, and it ended by itself


# What is left ------------------------------------------------------------------------------------


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no list of descriptors here")
async def test_200_reconnections_leave_nothing_behind(path: str) -> None:
    api = Api()
    with anyio.fail_after(BOUND):
        async with serving(api, path):
            outside = (descriptors(), len(anyio.get_running_tasks()))
            async with reconnecting(
                lambda: kk.connect_unix(path), initial_delay=0.0001, max_delay=0.0005
            ) as link:
                states, channels = link.states(), weakref.WeakSet[kk.RPCChannel]()
                assert await link.remote().add(0, 1) == 1
                inside = (descriptors(), len(anyio.get_running_tasks()))
                for turn in range(200):
                    channels.add(channel := link.channel)
                    assert await link.remote().add(turn, 1) == turn + 1
                    if turn % 2:
                        await channel.aclose()
                    else:
                        channel.byte_stream.close()  # broken, from one turn of the loop to the next
                    channel = await link.connected(after=channel)
                del channel
                assert await link.remote().add(0, 1) == 1
                await until(lambda: (descriptors(), len(anyio.get_running_tasks())) == inside)
                gc.collect()
                assert len(channels) == 0
                assert len(api.asked) == 202
                read = [await anext(states) for _ in range(200)]
                assert set(read) == {"waiting", "connecting", "connected"}
            await until(lambda: (descriptors(), len(anyio.get_running_tasks())) == outside)
