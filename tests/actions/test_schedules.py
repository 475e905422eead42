"""Calls of actions, interrupted after every number of turns, and by chance: nothing is lost or left."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import kkrpc_py as kk
from tests.channel.harness import BOUND, assert_quiet, linked, until

pytestmark = pytest.mark.anyio

TURNS = 40
"""More than any of these calls takes on an idle loop."""


class Server:
    """Actions of every kind, and what became of each call: who began has to have ended, once."""

    def __init__(self) -> None:
        self.checked = 0
        self.calls: list[list[str]] = []
        options: dict[str, Any] = {"middleware": [self._look, self._look]}
        self.api = {
            name: kk.stream_action(**options)(self._watched(getattr(self, name)))
            for name in ("counting", "slow", "several", "fails", "breaks", "closes", "shielded", "stuck")
        }

    async def _look(self, ctx: kk.ActionContext) -> None:
        try:
            await checkpoint()
        finally:
            self.checked += 1
        if ctx.input == -1:
            raise kk.ActionError("REFUSED")

    def _watched(self, work: Any) -> Any:
        async def handler(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
            log = ["begun"]
            self.calls.append(log)
            stream.signal.on_cancel(lambda: log.append("signal"))
            try:
                await work(input, stream)
            except BaseException as exc:
                log.append(type(exc).__name__)
                raise
            finally:
                log.append("finally")

        return handler

    async def counting(self, size: int, stream: Any) -> None:
        for number in range(size):
            await stream.send(number)

    async def slow(self, size: int, stream: Any) -> None:
        for number in range(size):
            await checkpoint()
            await stream.send(number)

    async def several(self, size: int, stream: Any) -> None:
        async def part(begin: int) -> None:
            for number in range(begin, size, 3):
                await turn[number].wait()
                await stream.send(number)
                turn[number + 1].set()

        turn = [anyio.Event() for _ in range(size + 1)]
        turn[0].set()
        async with anyio.create_task_group() as tasks:
            for begin in range(3):
                tasks.start_soon(part, begin)

    async def fails(self, size: int, stream: Any) -> None:
        await self.slow(size, stream)
        raise kk.ActionError("FAILED")

    async def breaks(self, size: int, stream: Any) -> None:
        await self.slow(size, stream)
        raise ValueError("hunter2")

    async def closes(self, size: int, stream: Any) -> None:
        await self.slow(size, stream)
        await stream.close()
        await checkpoint()

    async def shielded(self, size: int, stream: Any) -> None:
        with anyio.CancelScope(shield=True):
            await self.slow(size, stream)

    async def stuck(self, size: int, stream: Any) -> None:
        await self.counting(size, stream)
        await anyio.sleep_forever()

    def check(self) -> None:
        """Each call that began has ended, told of its end once, and before it felt it."""
        cancelled = anyio.get_cancelled_exc_class().__name__
        for log in self.calls:
            assert log[0] == "begun"
            assert log.count("finally") == log.count("signal") == 1, log
            if cancelled in log:
                assert log.index("signal") < log.index(cancelled), log


ENDS = {"fails": "FAILED", "breaks": "STREAM_ERROR"}


async def consume(call: Any, name: str, size: int, *, pace: random.Random | None = None) -> None:
    """Read all of a call; what came has to be what was sent, from its beginning."""
    found: list[int] = []
    code = None
    try:
        async for chunk in call:
            found.append(chunk)
            assert chunk == len(found) - 1
            for _ in range(pace.randrange(4) if pace is not None else 0):
                await checkpoint()
    except kk.ActionError as error:
        code = error.code
        assert "hunter2" not in f"{error!r} {vars(error)}"
    assert code == ("REFUSED" if size < 0 else ENDS.get(name))
    assert found == list(range(size))


async def after(turns: int, act: Any) -> None:
    for _ in range(turns):
        await checkpoint()
    act()


NAMES = pytest.mark.parametrize("name", sorted(Server().api))
AGREED = pytest.mark.parametrize("agreed", [True, False], ids=["agreed", "stock"])


@AGREED
@NAMES
async def test_cancelled_after_every_number_of_turns(name: str, agreed: bool) -> None:
    server = Server()
    async with linked(server.api, hello=agreed) as (_, client):
        for turns in range(TURNS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(after, turns, tasks.cancel_scope.cancel)
                with contextlib.suppress(kk.ActionError):
                    await consume(getattr(client.remote(), name)(5), name, 5)
        if not agreed:  # a stock peer is not told that a call is cancelled: the stream is, once it opens
            await until(lambda: len(server.calls) == len([log for log in server.calls if "finally" in log]))
    server.check()


@NAMES
async def test_a_break_after_each_chunk(name: str) -> None:
    server = Server()
    async with linked(server.api) as (_, client):
        for stop in range(1, 6):
            seen = 0
            async for _ in getattr(client.remote(), name)(5):
                seen += 1
                if seen == stop:
                    break
            assert seen == stop
    server.check()
    assert len(server.calls) == 5


@NAMES
async def test_cancel_by_name_after_every_number_of_turns(name: str) -> None:
    server = Server()
    async with linked(server.api) as (_, client):
        for turns in range(0, TURNS, 2):
            stream = await getattr(client.remote(), name)(5)
            for _ in range(turns):
                await checkpoint()
            await stream.cancel()
            assert "finally" in server.calls[-1]
    server.check()


@pytest.mark.parametrize("end", ["server", "client", "transport", "scope"])
@NAMES
async def test_the_channel_ends_after_every_number_of_turns(name: str, end: str) -> None:
    limits = kk.Limits(finish_seconds=0.01, cleanup_seconds=0.05, drain_seconds=0.05)
    server = Server()
    for turns in range(0, TURNS, 3):
        with anyio.fail_after(BOUND), anyio.CancelScope() as scope:
            async with kk.memory_pair(server.api, None, limits=limits) as (host, client):
                await client.ready()
                async with anyio.create_task_group() as tasks:

                    async def close(host: Any = host, client: Any = client) -> None:
                        for _ in range(turns):  # noqa: B023 - it ends within the turn of the loop
                            await checkpoint()
                        match end:
                            case "server":
                                await host.aclose()
                            case "client":
                                await client.aclose()
                            case "transport":
                                await client.byte_stream.aclose()
                            case _:
                                scope.cancel()

                    tasks.start_soon(close)
                    with contextlib.suppress(kk.KkrpcError):
                        async for _ in getattr(client.remote(), name)(5):
                            pass
    server.check()


@pytest.mark.parametrize(
    "seed", [*range(6), *(pytest.param(n, marks=pytest.mark.slow) for n in range(6, 60))]
)
async def test_many_calls_by_chance(seed: int) -> None:
    chance = random.Random(seed)
    server = Server()
    limits = kk.Limits(send_high_water=chance.choice([1, 200, 1 << 20]))
    agreed = chance.random() < 0.8
    async with linked(server.api, hello=agreed, limits=limits, quiet=False) as (host, client):

        async def call() -> None:
            name, size = chance.choice(sorted(server.api)), chance.choice([-1, 0, 1, 5, 70, 300])
            turns = chance.randrange(1, 300)
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:
                    if name == "stuck" or chance.random() < 0.5:
                        tasks.start_soon(after, turns, scope.cancel)
                    await consume(getattr(client.remote(), name)(size), name, size, pace=chance)
                    tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for _ in range(25):
                tasks.start_soon(call)
                for _ in range(chance.randrange(10)):
                    await checkpoint()
        await assert_quiet(host, client)
    server.check()
