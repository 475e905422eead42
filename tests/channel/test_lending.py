"""What is lent to a peer that does as it likes: its own calls are not counted, gibberish harms nobody."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import kkrpc_py as kk
from tests.channel.harness import BOUND, linked, until, without_collector
from tests.channel.peer import ALL_FEATURES, hello, request, result, scripted

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    with without_collector():
        yield


class API:
    def __init__(self) -> None:
        self.kept: list[Any] = []

    async def read(self, stream: Any) -> list[Any]:
        return [value async for value in stream]

    async def first(self, stream: Any, n: int = 1) -> Any:
        return await anext(stream)

    async def total(self, stream: Any) -> Any:
        return await stream.result()

    async def doubled(self, stream: Any) -> Any:
        async for value in stream:
            yield value

    async def ignore(self, *values: Any) -> None: ...

    async def keep(self, *values: Any) -> None:
        self.kept += values

    async def drop(self) -> None:
        self.kept.clear()

    async def echo(self, value: Any) -> Any:
        return value

    async def through(self, function: Any) -> Any:
        return await function()


async def numbers(n: int) -> Any:
    for value in range(n):
        yield value


async def test_streams_that_are_lent_are_not_the_peers_calls() -> None:
    async with linked(API(), API(), limits=kk.Limits(calls=4)) as (server, client):
        api = client.remote()
        await api.keep(*[numbers(1000) for _ in range(4)])
        assert len(client.connection.incoming) == 4
        assert await api.through(lambda: "the peer still calls") == "the peer still calls"
        assert await server.remote().echo(1) == 1
        with pytest.raises(kk.LimitExceeded, match="calls"):
            await api.keep(numbers(1))
        await api.drop()
        await until(lambda: not client.connection.incoming and not server.connection.outgoing)
        assert await api.read(numbers(3)) == [0, 1, 2]


async def gibberish(seed: int) -> None:
    """Messages of every type under a few ids, which name whatever they like: the channel lives."""
    rng = random.Random(seed)
    ids = ["1", "2", "3", "a", "__stream__1", "__stream__2", "__stream__4", "__stream__a", "__stream__b", ""]
    names = ["1", "2", "a", "b", "", *ids[4:9]]
    methods = ["read", "first", "ignore", "keep", "drop", "doubled", "echo", "total", "nowhere", *ids]
    faults: list[str] = []

    def value(depth: int = 2) -> Any:
        way = rng.randrange(6)
        if depth and way == 0:
            return [value(depth - 1) for _ in range(rng.randrange(3))]
        if depth and way == 1:
            return {rng.choice(["s", "f"]): value(depth - 1)}
        if way == 2:
            return rng.choice([None, 1, "text", {"__stream": True}])
        return rng.choice(["__callback__" + rng.choice(names), rng.choice(ids)])

    def message() -> dict[str, Any]:
        kind = rng.choice(
            "request request construct get set callback callback callback-release response response "
            "stream-chunk stream-chunk stream-end stream-error stream-cancel stream-ack".split()
        )
        found: dict[str, Any] = {"id": rng.choice(ids), "method": rng.choice(methods), "type": kind}
        if kind in ("request", "construct", "callback"):
            found["args"] = [value() for _ in range(rng.randrange(3))]
        elif kind == "callback-release":
            found["args"] = {rng.choice(names): rng.choice([1, 1, 2, 100])}
        elif kind == "stream-ack":
            found["args"] = {"n": rng.randrange(100), "b": rng.randrange(100_000)}
        else:
            key = rng.choice(["result", "value", "values", "error", "cancelled"])
            found["args"] = {key: [value()] if key == "values" else value()}
        if kind in ("get", "set"):
            found |= {"path": rng.choice([["a"], ["kept"], []]), "value": value()}
        for key in ("callbackIds", "streamIds"):
            if rng.random() < 0.5:
                found[key] = rng.choices(names, k=rng.randrange(4))
        if rng.random() < 0.1:
            found["kwargs"] = {"k": value()}
        return found

    async def function(*args: Any) -> Any:
        await checkpoint()
        return args

    class Fault(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if record.levelno >= logging.ERROR:
                faults.append(record.getMessage())
            return False

    api = API()
    fault, logger = Fault(), logging.getLogger("kkrpc_py")
    logger.addFilter(fault)
    try:
        async with scripted(api, limits=kk.Limits(cleanup_seconds=0.1, callbacks=50)) as (channel, peer):
            await peer.exchange(hello(features=ALL_FEATURES))
            remote = channel.remote()

            async def act() -> None:
                with anyio.move_on_after(rng.random() * 0.05), contextlib.suppress(kk.KkrpcError, TypeError):
                    lent: Any = [function, {"s": numbers(rng.randrange(200))}]
                    if rng.random() < 0.5:
                        await remote.take(*lent)
                    else:
                        async for _ in remote.take(lent, function):
                            pass

            async with anyio.create_task_group() as tg:
                for number in range(60):
                    if rng.random() < 0.2:
                        tg.start_soon(act)
                    await peer.send(*[message() for _ in range(rng.randrange(12))])
                    if rng.random() < 0.1:
                        alive = request(f"alive {number}", "echo", number)
                        await peer.send(alive)
                        while await peer.next() != result(alive["id"], number):
                            pass
            assert not channel.closed
            api.kept.clear()
            await channel.aclose()
        assert len(channel.connection.passage.functions) == 0
        assert not channel.connection.incoming
        with anyio.fail_after(BOUND):
            await until(lambda: len(channel.callbacks) == 0)
    finally:
        logger.removeFilter(fault)
    assert faults == []


@pytest.mark.parametrize("seed", range(10))
async def test_gibberish_breaks_nothing(seed: int) -> None:
    await gibberish(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 200))
async def test_much_gibberish_breaks_nothing(seed: int) -> None:
    await gibberish(seed)
