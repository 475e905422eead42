"""A stock kkrpc peer, npm's kkrpc 0.2.2 on Node, over WebSocket and HTTP: as our client, and as our server.

`make test` installs it into tests/node; what it does is in tests/node/websocket.mjs.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from kkrpc_py.channel.websockets import connect_websocket, serve_websocket
from kkrpc_py.web.app import asgi_app
from tests.web.servers import serving

pytestmark = pytest.mark.anyio

NODE_DIR = Path(__file__).parent / "node"
NODE = shutil.which("node") or "node"
BOUND = 60.0
"""Seconds. Far above what any test here takes."""


@pytest.fixture(scope="module", autouse=True)
def _node_is_here() -> None:
    if shutil.which("node") is None:
        reason = "there is no Node on the path"
    elif not (NODE_DIR / "node_modules" / "kkrpc").is_dir():
        reason = "npm's kkrpc is not installed: run `npm ci` in tests/node"
    else:
        return
    if os.environ.get("KKRPC_REQUIRE_NODE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


class Math:
    async def add(self, a: int, b: int) -> int:
        return a + b


class API:
    """What tests/node/child.mjs has, as far as the scenarios need it."""

    math = Math()

    async def echo(self, value: Any) -> Any:
        return value

    async def nothing(self) -> None:
        pass

    async def slow(self, milliseconds: float, value: Any) -> Any:
        await anyio.sleep(milliseconds / 1000)
        return value

    async def fail(self, message: str) -> None:
        raise ValueError(message)

    async def each(self, count: int, callback: Any) -> int:
        for number in range(count):
            await callback(number)
        return count

    async def ask(self, a: int, b: int) -> int:
        return int(await kk.current_channel().remote().add(a, b)) * 2

    async def count(self, until: int) -> AsyncIterator[int]:
        for number in range(until):
            yield number


UNARY = {
    "calls": ["héllo € 😀", 3, "nothing"],
    "values": [None, True, -1.5e-7, 2**53 - 1, '\u2028 \n\t"\\', {"a": [{}, []]}],
    "bytes": ["Uint8Array", 1, 2, 255],
    # 0.2.2 shows errors that are strings; one with a name it takes for text, whatever its message.
    "fail": {"error": "[object Object]"},
    "missing": {"error": "Method nope is not a function"},
    "large": 700_000,
}
TALKING = {
    **UNARY,
    "inFlight": True,
    "together": True,
    "callback": [3, [[0], [1], [2]]],
    "askBack": 42,
    "stream": [{"__stream": True}, 2],
}


@contextlib.asynccontextmanager
async def own_server(api: Any) -> AsyncIterator[str]:
    async with anyio.create_task_group() as tasks:
        addresses = await tasks.start(functools.partial(serve_websocket, api, "127.0.0.1", 0))
        yield f"ws://127.0.0.1:{addresses[0][1]}/"
        tasks.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def application(api: Any) -> AsyncIterator[str]:
    async with serving(asgi_app(api), graceful_seconds=0.3) as url:
        yield url.replace("http", "ws") + "/ws"


def node(*arguments: str, superjson: bool) -> list[str]:
    return [NODE, str(NODE_DIR / "websocket.mjs"), *arguments, *(["--superjson"] if superjson else [])]


@pytest.mark.parametrize("superjson", [False, True], ids=["json", "superjson"])
@pytest.mark.parametrize("serve", [own_server, application], ids=["serve_websocket", "asgi_app"])
async def test_a_node_client(serve: Any, superjson: bool) -> None:
    """It takes items with several lines, and ends the connection by `signalDestroy` (TRN-1, TRN-3)."""
    with anyio.fail_after(BOUND):
        async with serve(API()) as url:
            done = await anyio.run_process(node("client", url, superjson=superjson), stderr=None)
    assert json.loads(done.stdout.splitlines()[-1]) == TALKING


@pytest.mark.parametrize("superjson", [False, True], ids=["json", "superjson"])
async def test_a_node_client_over_http(superjson: bool) -> None:
    """HTTP-8: one request in each body, in the serialization of the client."""
    with anyio.fail_after(BOUND):
        async with serving(asgi_app(API())) as url:
            done = await anyio.run_process(node("http", f"{url}/rpc", superjson=superjson), stderr=None)
    assert json.loads(done.stdout.splitlines()[-1]) == UNARY


@contextlib.asynccontextmanager
async def node_server(superjson: bool) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """Its URL, and, after the block, what it has received."""
    received: list[dict[str, Any]] = []
    async with await anyio.open_process(node("server", superjson=superjson), stderr=None) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        lines = _lines(process.stdout)
        yield f"ws://127.0.0.1:{int(await anext(lines))}/path?a=b", received
        await process.stdin.send(b"report\n")
        async for line in lines:
            with contextlib.suppress(ValueError):  # what kkrpc takes for noise it prints
                received.extend(json.loads(line))


async def _lines(stream: Any) -> AsyncIterator[str]:
    text = ""
    with contextlib.suppress(anyio.EndOfStream):
        while True:
            text += (await stream.receive()).decode()
            *lines, text = text.split("\n")
            for line in lines:
                yield line


class Client:
    async def add(self, a: int, b: int) -> int:
        return a + b


@pytest.mark.parametrize("codec", ["json", "superjson"])
async def test_a_node_server(codec: Any) -> None:
    """What it is sent are texts of whole lines, several in one where they come together, and a farewell."""
    with anyio.fail_after(BOUND):
        async with node_server(codec == "superjson") as (url, received):
            async with connect_websocket(url, expose=Client(), codec=codec) as channel:
                remote = channel.remote()
                assert await remote.math.add(1, 2) == 3
                assert await remote.echo("héllo € 😀") == "héllo € 😀"
                assert await remote.echo(b"\x01\xff") == b"\x01\xff"
                for length in (65_536 - 60, 65_536 - 55, 70_000, 3_000_000):
                    assert len(await remote.echo("x" * length)) == length
                results: list[int] = []

                async def call(number: int) -> None:
                    results.append(await remote.slow(number % 20, number))

                async with anyio.create_task_group() as tasks:
                    for number in range(200):
                        tasks.start_soon(call, number)
                assert sorted(results) == list(range(200))
                seen: list[int] = []
                assert await remote.each(3, seen.append) == 3
                assert seen == [0, 1, 2]
                assert await remote.ask(20, 1) == 42
                with pytest.raises(kk.RemoteError):
                    await remote.fail("as asked")
    assert received.pop(0) == {"path": "/path?a=b", "extensions": None}
    assert received[-2:] == [{"text": "__DESTROY__", "binary": False}, {"code": 1000}]
    texts = [each["text"] for each in received[:-2]]
    assert not any(each["binary"] for each in received[:-2])
    assert all(text.endswith("\n") and text.isascii() for text in texts)
    assert max(text.count("\n") for text in texts) > 10
    for line in "".join(texts).splitlines():
        message = json.loads(line)
        assert message.get("json", message)["version"] == codec


async def test_a_node_server_that_closes() -> None:
    """The code is told to whoever waits (TRN-4)."""
    with anyio.fail_after(BOUND):
        async with node_server(superjson=False) as (url, _):
            async with connect_websocket(url) as channel:
                with pytest.raises(kk.ChannelClosed, match="closed the WebSocket with 4001: left"):
                    await channel.remote().leave()


async def test_a_node_server_that_is_killed() -> None:
    with anyio.fail_after(BOUND):
        async with await anyio.open_process(node("server", superjson=False), stderr=None) as process:
            assert process.stdout is not None
            port = int((await process.stdout.receive()).decode())
            async with connect_websocket(f"ws://127.0.0.1:{port}/") as channel:
                remote = channel.remote()
                assert await remote.math.add(1, 2) == 3
                process.kill()
                with pytest.raises(kk.ChannelClosed, match="lost without a closing handshake"):
                    await remote.slow(60_000, 1)
    assert process.returncode == -9
