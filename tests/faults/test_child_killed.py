"""The child dies at any moment: everything pending fails at once with one typed error; nothing is left."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from tests.faults.processes import BOUND, LINUX, Holdings, alive, command, environment

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(not LINUX, reason="looks into /proc")]

AT_ONCE = 1.0
"""Seconds within which everything that is pending fails."""


class Pending:
    """Calls and streams of all kinds, and how each of them ended."""

    def __init__(self, channel: kk.RPCChannel) -> None:
        self.api = channel.remote()
        self.ended: list[tuple[str, BaseException, float]] = []
        self.started = 0
        self.received = 0
        self.changed = anyio.Event()

    async def call(self, method: str, *args: Any, again: bool = False) -> None:
        self.started += 1
        try:
            while True:
                await self.api[method](*args)
                if not again:
                    raise AssertionError(f"{method} returned")
        except kk.KkrpcError as exc:
            self.ended.append((method, exc, time.monotonic()))

    async def stream(self, method: str, *args: Any) -> None:
        self.started += 1
        try:
            async for _ in self.api[method](*args):
                self.received += 1
                self.changed.set()
            raise AssertionError(f"{method} ended")
        except kk.KkrpcError as exc:
            self.ended.append((method, exc, time.monotonic()))

    async def unread(self, method: str) -> None:
        """A stream that lies there: what has come is read after the end, then the error."""
        self.started += 1
        try:
            stream = await self.api[method]()
            while not stream.ended:
                await anyio.sleep(0.005)
            async for _ in stream:
                pass
        except kk.KkrpcError as exc:
            self.ended.append((method, exc, time.monotonic()))

    def start(self, tg: Any, rng: random.Random) -> None:
        jobs: list[Any] = [
            lambda: self.call("park"),
            lambda: self.call("block"),
            lambda: self.call("add", 1, 2, again=True),
            lambda: self.call("echo", "x" * rng.choice([10, 100_000, 3_000_000]), again=True),
            lambda: self.stream("endless"),
            lambda: self.stream("parked"),
            lambda: self.stream("large", rng.choice([10, 5000, 1_000_000])),
            lambda: self.stream("sync_endless"),
            lambda: self.stream("sink"),
            lambda: self.unread("endless"),
        ]
        for job in rng.sample(jobs, rng.randint(3, len(jobs))):
            tg.start_soon(job)


async def kill_at(seed: int) -> None:
    """Start a child and work, kill it at a point that `seed` chooses, and look at what is left."""
    rng = random.Random(seed)
    backend = rng.choice(["asyncio", "trio"])
    holdings = Holdings()
    with anyio.fail_after(BOUND):
        async with kk.open_process(command("serve", backend), env=environment()) as channel:
            pid = channel._stream.pid
            pending = Pending(channel)
            async with anyio.create_task_group() as tg:
                match rng.randrange(3):
                    case 0:  # anywhere from its very start on, also before it has read anything
                        pending.start(tg, rng)
                        await anyio.sleep(rng.uniform(0, 0.6))
                        up = False
                    case 1:  # some time into its work
                        await channel.ready()
                        up = await channel.remote().add(1, 2) == 3
                        pending.start(tg, rng)
                        await anyio.sleep(rng.expovariate(20))
                    case _:  # after some number of chunks
                        up = await channel.remote().add(1, 2) == 3
                        pending.start(tg, rng)
                        tg.start_soon(pending.stream, "endless")
                        enough = rng.choice([1, 10, 100, 1000, 20_000])
                        while pending.received < enough:
                            pending.changed = anyio.Event()
                            await pending.changed.wait()
                killed = time.monotonic()
                os.kill(pid, rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
                await channel.wait_closed()
            assert len(pending.ended) == pending.started
            for method, error, at in pending.ended:
                assert isinstance(error, kk.ChannelClosed), (method, error)
                assert error.exit_code in (-signal.SIGKILL, -signal.SIGTERM), (method, error)
                if up:
                    assert "child is up" in error.stderr_tail, method
                    assert "child is up" in str(error)
                assert at - killed < AT_ONCE, (method, at - killed)
            assert channel.closed
            assert not channel.connection.outgoing
            with pytest.raises(kk.ChannelClosed):
                await channel.remote().add(1, 2)
        assert not alive(pid)
        await holdings.unchanged()


@pytest.mark.parametrize("seed", range(20))
async def test_killed_at_a_random_point(seed: int) -> None:
    await kill_at(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20, 200))
async def test_killed_at_many_random_points(seed: int) -> None:
    await kill_at(seed)


# Other deaths ----------------------------------------------------------------------------------------


async def test_an_exit_code_and_the_last_lines() -> None:
    holdings = Holdings()
    with anyio.fail_after(BOUND):
        async with kk.open_process(command("exits"), env=environment()) as channel:
            with pytest.raises(kk.ChannelClosed) as caught:
                await channel.remote().park()
            assert caught.value.exit_code == 7
            assert caught.value.stderr_tail == "I quit"
            assert str(caught.value) == (
                "the child process ended (exit code 7); its last lines of stderr:\nI quit"
            )
        await holdings.unchanged()


async def test_the_last_lines_are_bounded() -> None:
    with anyio.fail_after(BOUND):
        async with kk.open_process(command("last words"), env=environment()) as channel:
            pid = await channel.remote().pid()
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(kk.ChannelClosed) as caught:
                await channel.remote().park()
            lines = caught.value.stderr_tail.splitlines()
            assert lines[-1] == "word 29"
            assert 10 <= len(lines) <= 30


async def test_a_program_that_is_none_of_ours() -> None:
    holdings = Holdings()
    with anyio.fail_after(BOUND):
        for argv, code in (["true"], 0), (["false"], 1), (["sh", "-c", "echo hello; exit 3"], 3):
            async with kk.open_process(argv) as channel:
                with pytest.raises(kk.ChannelClosed) as caught:
                    await channel.remote().park()
                assert caught.value.exit_code == code
        with pytest.raises(OSError):
            async with kk.open_process(["/nonexistent/program"]):
                pass
        await holdings.unchanged()


async def test_a_child_that_closes_its_stdin_only() -> None:
    """It reads no more and keeps its stdout open: what is pending must not wait for ever."""
    holdings = Holdings()
    with anyio.fail_after(BOUND):
        async with kk.open_process(command(), env=environment()) as channel:
            await channel.ready()
            async with anyio.create_task_group() as tg:
                tg.start_soon(_until_closed, channel.remote().close_stdin())
                with pytest.raises(kk.ChannelClosed), anyio.fail_after(10):
                    while True:
                        # Before the child's end is closed this is answered, or lost in the pipe.
                        with anyio.move_on_after(0.2):
                            await channel.remote().add(1, 2)
            os.kill(channel._stream.pid, signal.SIGKILL)
        await holdings.unchanged()


async def _until_closed(call: kk.Call[Any]) -> None:
    with pytest.raises(kk.ChannelClosed):
        await call


@pytest.mark.parametrize("method", ["park", "block", "endless", "sync_blocked", "large"])
async def test_leaving_the_block_ends_the_child(method: str) -> None:
    """Within its grace, though it is blocked or in the middle of a write; nothing is left."""
    holdings = Holdings()
    start = time.monotonic()
    with anyio.fail_after(BOUND):
        async with kk.open_process(command(), env=environment()) as channel:
            pid = await channel.remote().pid()
            async with anyio.create_task_group() as tg:
                if method in ("park", "block"):
                    tg.start_soon(_until_closed, channel.remote()[method]())
                    await channel.remote().add(1, 1)
                else:
                    args = [1_000_000] if method == "large" else []
                    stream = await channel.remote()[method](*args)
                    assert await anext(stream) is not None
                await channel.aclose()
        assert not alive(pid)
        assert time.monotonic() - start < 10
        await holdings.unchanged()


async def test_the_bodys_own_exception_leaves_nothing() -> None:
    holdings = Holdings()
    with anyio.fail_after(BOUND):
        own = ZeroDivisionError()
        with pytest.raises(ZeroDivisionError) as caught:
            async with kk.open_process(command(), env=environment()) as channel:
                async for _ in channel.remote().endless():
                    raise own
        assert caught.value is own
        own.__traceback__ = None
        with anyio.move_on_after(0.5) as scope:
            async with kk.open_process(command(), env=environment()) as channel:
                await channel.remote().park()
        assert scope.cancelled_caught
        await holdings.unchanged()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
async def test_large_values_both_ways(backend: str) -> None:
    """10 MB as text and as bytes, there and back, while others go on."""
    with anyio.fail_after(BOUND):
        async with kk.open_process(command("serve", backend), env=environment()) as channel:
            await channel.ready()
            api = channel.remote()
            text = "aäß\u2028\U0001f600" * 1_000_000
            data = os.urandom(10_000_000)

            async def echo(value: Any) -> None:
                assert await api.echo(value) == value

            async with anyio.create_task_group() as tg:
                for value in (text, data, [1.5] * 500_000):
                    tg.start_soon(echo, value)
                    tg.start_soon(echo, 1)
                assert [v async for v in api.count(5000)] == list(range(5000))
            seen = 0
            async for value in api.large(10_000_000):
                assert len(value) == 10_000_000
                seen += 1
                if seen == 3:
                    break
            assert await api.add(1, 2) == 3


async def test_serve_stdio_serves_like_run_stdio() -> None:
    holdings = Holdings()
    with anyio.fail_after(BOUND):
        for backend in ("asyncio", "trio"):
            async with kk.open_process(command("serve_stdio", backend), env=environment()) as channel:
                assert await channel.remote().add(1, 2) == 3
                assert [v async for v in channel.remote().count(1000)] == list(range(1000))
                pid = await channel.remote().pid()
            assert not alive(pid)
        await holdings.unchanged()
