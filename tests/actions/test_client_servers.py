"""The action client against this library's own server, as uvicorn and hypercorn run it.

Between the two stands a wire that counts connections, and cuts them where a test wants.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from anyio.lowlevel import checkpoint

import kkrpc_py as kk
from kkrpc_py.errors import ActionError
from tests.actions.scripted import until
from tests.web.backends import anyio_backend, server, under
from tests.web.site import Site

__all__ = ["anyio_backend", "server", "under"]

pytestmark = pytest.mark.anyio

GONE = ["began", "signal", "cancelled", "ended"]


class Wire:
    """What stands between a client and its server."""

    def __init__(self, url: str, cuts: Iterator[int]) -> None:
        self.url = url
        self.connections = 0
        self._cuts = cuts

    def cut(self) -> int | None:
        """The bytes from the server after which the next connection is cut."""
        self.connections += 1
        return next(self._cuts, None)


@contextlib.asynccontextmanager
async def wired(url: str, cuts: Iterable[int] = ()) -> AsyncIterator[Wire]:
    """A wire to `url`."""
    port = int(url.rpartition(":")[2])
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    wire = Wire(f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}/actions", iter(cuts))

    async def carry(client: SocketStream) -> None:
        left = wire.cut()
        async with client, await anyio.connect_tcp("127.0.0.1", port) as server:
            async with anyio.create_task_group() as tasks:

                async def back() -> None:
                    nonlocal left
                    with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                        while left != 0:
                            data = await server.receive()
                            if left is not None:
                                data = data[:left]
                                left -= len(data)
                            await client.send(data)
                    tasks.cancel_scope.cancel()

                tasks.start_soon(back)
                with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    while True:
                        await server.send(await client.receive())
                tasks.cancel_scope.cancel()

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, carry)
        yield wire
        tasks.cancel_scope.cancel()


@kk.stream_action(replay=1000)
async def count(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[int]) -> None:
    for number in range(input["to"]):
        await stream.send(number)
        if number % 7 == 0:
            await checkpoint()


async def deny(ctx: kk.ActionContext) -> None:
    raise kk.ActionError("DENIED", "Not you", 403)


@kk.stream_action(middleware=[deny])
async def denied(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[int]) -> None: ...


@dataclasses.dataclass
class Ask:
    text: str
    times: int = 1


async def test_chunks_errors_and_refusals(server: str) -> None:
    site = Site()
    async with site.served(server, actions={"denied": denied}) as url:
        async with kk.ActionClient(f"{url}/actions") as client:
            ask = client.stream("ask")
            await ask.execute(Ask("ü€😀\n", 2))
            assert (ask.status, ask.chunks) == ("done", ["ü€😀\n"] * 2)
            get = client.stream("ask", method="GET")
            assert [chunk async for chunk in get.execute({"text": "a&b", "times": 2})] == ["a&b", "a&b"]
            echo = client.stream("echo")
            values: list[Any] = [None, {}, [1, [2.5, {"a": b"\x00"}]], "", 2**53 - 1]
            for value in values[1:]:
                await echo.execute(value)
                assert echo.chunks == [value]
            await echo.execute(None)
            assert echo.chunks == [{}]
            expected: dict[str, tuple[Any, dict[str, Any]]] = {
                "denied": ({}, {"code": "DENIED", "message": "Not you", "statusCode": 403}),
                "nothing": ({}, {"code": "NOT_FOUND", "statusCode": 404}),
                "ask": (
                    {"times": "x"},
                    {
                        "code": "VALIDATION_ERROR",
                        "message": "Input validation failed",
                        "statusCode": 422,
                        "fieldErrors": {"text": ["Missing"], "times": ["Expected `int`, got `str`"]},
                    },
                ),
                "fail": (
                    {},
                    {
                        "code": "OUT_OF_PAPER",
                        "message": "No paper left",
                        "statusCode": 409,
                        "fieldErrors": {"tray": ["is empty"]},
                    },
                ),
            }
            for name, (input, data) in expected.items():
                call = client.stream(name)
                await call.execute(input)
                assert call.error is not None
                assert call.error.to_data() | data == call.error.to_data()
                assert call.chunks == (["first"] if name == "fail" else [])
            with pytest.raises(ActionError, match="STREAM_ERROR: Stream handler error"):
                async for chunk in client.stream("fail").execute({"unexpected": True}):
                    assert chunk == "first"
            get = client.stream("burst", method="GET")
            await get.execute({"count": 1})
            assert get.error is not None
            assert (get.error.code, get.error.status) == ("METHOD_NOT_ALLOWED", 405)


@pytest.mark.parametrize("how", ["stop", "cancel", "break", "again", "client"])
async def test_the_handler_learns_at_once_that_nobody_listens(server: str, how: str) -> None:
    site = Site()
    async with site.served(server) as url:
        async with kk.ActionClient(f"{url}/actions") as client, anyio.create_task_group() as tasks:
            call = client.stream("forever")
            if how == "break":
                async for _ in call.execute({"key": "a"}):
                    break
            else:
                tasks.start_soon(call.execute, {"key": "a"})
                await until(lambda: call.chunks != [])
                if how == "stop":
                    call.stop()
                elif how == "cancel":
                    tasks.cancel_scope.cancel()
                elif how == "again":
                    tasks.start_soon(call.execute, {"key": "b"})
                else:
                    await client.aclose()
            with anyio.CancelScope(shield=True), anyio.fail_after(1):
                assert await site.watch.seen_of("a", "ended") == GONE
            call.stop()


async def test_connections_are_used_again(server: str) -> None:
    site = Site()
    async with site.served(server) as url, wired(url) as wire:
        async with kk.ActionClient(wire.url) as client:
            for number in range(5):
                call = client.stream("burst")
                await call.execute({"count": number})
                assert (call.status, len(call.chunks)) == ("done", number)
                refused = client.stream("nothing")
                await refused.execute()
                assert refused.status == "error"
            assert wire.connections == 1


async def test_a_slow_reader_makes_the_handler_wait(server: str) -> None:
    site = Site()
    async with site.served(server) as url:
        async with kk.ActionClient(f"{url}/actions", limits=kk.Limits(stream_buffer=100_000)) as client:
            chunks = aiter(client.stream("flood", keep=0).execute({"key": "a", "most": 4000}))
            assert len(await anext(chunks)) == 8000
            sent: list[Any] = []
            while sent != (now := list(site.watch.seen.get("a sent", ()))):
                sent = now
                await anyio.sleep(0.1)
            assert len(sent) < 2500  # 32 MB in all; the sockets hold some
            rest = 1
            async for _ in chunks:
                rest += 1
            assert rest == 4000


@pytest.mark.parametrize("seed", range(3))
async def test_a_wire_that_is_cut_anywhere_loses_and_doubles_nothing(
    server: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSE-15, SSE-12: each cut is somewhere else, in the head, in an event, between two."""
    monkeypatch.setattr("kkrpc_py.actions.fetching._INITIAL_DELAY", 0.005)
    chance = random.Random(seed)
    site = Site()
    cuts = [chance.randrange(400, 2000)]  # by then there is an id
    cuts += [chance.choice([0, 30, 250, 400, 700, chance.randrange(200, 3000)]) for _ in range(12)]
    async with site.served(server, actions={"count": count}) as url:
        async with wired(url, cuts) as wire:
            async with kk.ActionClient(wire.url) as client:
                heard: list[int] = []
                call = client.stream("count", on_chunk=heard.append, resume=20)
                await call.execute({"to": 400})
                assert (call.status, str(call.error)) == ("done", "None")
                assert heard == call.chunks == list(range(400))
                assert wire.connections > 3


async def test_a_wire_that_is_cut_where_nothing_is_kept(server: str) -> None:
    site = Site()
    async with site.served(server) as url, wired(url, [600]) as wire:
        async with kk.ActionClient(wire.url) as client:
            call = client.stream("forever")
            await call.execute({"key": "a"})
            assert call.error is not None
            assert (call.error.code, wire.connections) == ("STREAM_ERROR", 1)
            assert call.chunks == list(range(len(call.chunks)))
            assert await site.watch.seen_of("a", "ended") == GONE
