"""The WebSocket of the ASGI application, under real servers: who may come, items, closing."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from starlette.types import Receive, Scope, Send

import kkrpc_py as kk
from kkrpc_py.channel.websockets import connect_websocket
from kkrpc_py.transports import handshake
from kkrpc_py.transports.handshake import HandshakeRefused, HandshakeRequest
from kkrpc_py.transports.sockets import connect_tcp
from kkrpc_py.web.app import asgi_app
from tests.channel.harness import Log, assert_quiet
from tests.transports.websocket_peers import BINARY, CLOSE, TEXT, Frame, RawPeer, closing
from tests.web.backends import anyio_backend, server, under
from tests.web.servers import serving

__all__ = ["anyio_backend", "server", "under"]

pytestmark = pytest.mark.anyio

LIMIT = 30


class API:
    def __init__(self) -> None:
        self.log = Log()

    async def add(self, a: int, b: int) -> int:
        return a + b

    async def echo(self, value: Any) -> Any:
        return value

    async def count(self, until: int, every: float = 0.0) -> AsyncIterator[int]:
        self.log("began")
        try:
            for number in range(until):
                yield number
                if every:
                    await anyio.sleep(every)
        finally:
            self.log("ended")

    async def each(self, count: int, callback: Any) -> int:
        return sum([await callback(number) for number in range(count)])

    async def total(self, numbers: Any) -> int:
        return sum([number async for number in numbers])

    async def wait(self) -> None:
        self.log("began")
        try:
            await anyio.sleep_forever()
        finally:
            self.log("ended")

    async def who(self) -> Any:
        channel = kk.current_channel()
        return [channel.state.user, channel.byte_stream.client, channel.byte_stream.headers["x-user"]]


@contextlib.asynccontextmanager
async def served(server: str, api: Any, **options: Any) -> AsyncIterator[str]:
    """The application under a server; gives the URL of its WebSocket."""
    with anyio.fail_after(LIMIT):
        async with serving(asgi_app(api, **options), server=server, graceful_seconds=0.3) as url:
            yield url.replace("http", "ws") + "/ws"


@contextlib.asynccontextmanager
async def raw(url: str, **fields: Any) -> AsyncIterator[RawPeer]:
    async with await connect_tcp("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0])) as stream:
        peer = RawPeer(stream, client=True)
        answer = await peer.ask("/ws", **fields)
        assert answer.status == 101
        yield peer


async def test_calls_and_streams(server: str) -> None:
    api = API()
    async with served(server, api) as url, connect_websocket(url) as channel:
        remote = channel.remote()
        assert await remote.add(1, 2) == 3
        assert [number async for number in remote.count(3000)] == list(range(3000))
        assert await remote.each(5, lambda number: number * 2) == 20
        data = os.urandom(1_000_000)
        assert await remote.echo(data) == data

        async def numbers() -> AsyncIterator[int]:
            for number in range(100):
                yield number

        assert await remote.total(numbers()) == 4950
        api.log.entries.clear()
        async for number in remote.count(1 << 30):
            if number == 100:
                break
        await api.log.wait_for("ended")
        await assert_quiet(channel)


async def test_several_clients(server: str) -> None:
    results: list[int] = []

    async def client(url: str, number: int) -> None:
        async with connect_websocket(url) as channel:
            async for value in channel.remote().count(50, 0.001):
                results.append(value)
            assert await channel.remote().add(number, 1) == number + 1

    async with served(server, API()) as url, anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(client, url, number)
    assert sorted(results) == sorted(list(range(50)) * 20)


async def test_who_may_come(server: str) -> None:
    """TRN-7: what is refused is refused before it becomes a WebSocket."""

    async def authenticate(request: HandshakeRequest) -> bool:
        if request.headers.get("x-user") == "broken":
            raise ZeroDivisionError("secret")
        assert request.path == "/ws"
        request.state.user = request.headers.get("x-user", "") + request.query
        return "x-user" in request.headers

    options = {"authenticate": authenticate, "origins": ["https://friend.example"]}
    async with served(server, API(), **options) as url:
        async with connect_websocket(url + "?q=1", headers={"X-User": "me"}) as channel:
            assert await channel.remote().who() == ["meq=1", "127.0.0.1", "me"]
        for origin in ("https://friend.example", url.replace("ws://", "http://")[:-3]):
            async with connect_websocket(url, headers={"X-User": "me"}, origin=origin) as channel:
                assert await channel.remote().add(1, 2) == 3
        for headers, status, code in (
            ({}, 403, "FORBIDDEN"),
            ({"X-User": "broken"}, 500, "INTERNAL_ERROR"),
            ({"X-User": "me", "Origin": "https://foe.example"}, 403, "FORBIDDEN_ORIGIN"),
            ({"X-User": "me", "Host": "foe.example"}, 400, "FORBIDDEN_HOST"),
        ):
            with pytest.raises(HandshakeRefused) as caught:
                async with connect_websocket(url, headers=headers):
                    pytest.fail("it may not come")
            refused = caught.value
            assert refused.status == status
            assert json.loads(refused.body)["code"] == code
            assert b"secret" not in refused.body


@pytest.mark.parametrize("secure", [True, False])
async def test_the_same_origin_behind_tls(server: str, secure: bool) -> None:
    """HTTP-2: where a proxy has ended TLS, and what speaks for it has said so."""
    inner = asgi_app(API())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if secure and scope["type"] == "websocket":
            scope["scheme"] = "wss"
        await inner(scope, receive, send)

    with anyio.fail_after(LIMIT):
        async with serving(app, server=server, graceful_seconds=0.3) as url:
            place = url.removeprefix("http://")
            good, wrong = (f"{'https' if each else 'http'}://{place}" for each in (secure, not secure))
            async with connect_websocket(f"ws://{place}/ws", origin=good) as channel:
                assert await channel.remote().add(1, 2) == 3
            with pytest.raises(HandshakeRefused) as caught:
                async with connect_websocket(f"ws://{place}/ws", origin=wrong):
                    pytest.fail("it may not come")
            assert caught.value.status == 403


async def test_a_hook_that_hangs(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended with its client, and after a while in any case; the server can be stopped meanwhile."""
    log = Log()

    async def authenticate(request: HandshakeRequest) -> bool:
        log("began")
        try:
            await anyio.sleep_forever()
        finally:
            log("ended")
        return True

    async with served(server, API(), authenticate=authenticate) as url:
        with anyio.move_on_after(0.3):
            async with connect_websocket(url):
                pytest.fail("nobody has allowed it")
        with anyio.fail_after(2):
            await log.wait_for("ended")
        monkeypatch.setattr(handshake, "HOOK_SECONDS", 0.1)
        with pytest.raises(HandshakeRefused) as caught:
            async with connect_websocket(url):
                pytest.fail("nobody has allowed it")
    assert caught.value.status == 503
    assert log.entries == ["began", "ended"] * 2


async def test_without_an_api(server: str) -> None:
    async with served(server, None) as url:
        with pytest.raises(HandshakeRefused) as caught:
            async with connect_websocket(url):
                pytest.fail("there is nothing")
    assert caught.value.status in (403, 404)


@pytest.mark.parametrize("how", ["closes", "breaks off", "says farewell"])
async def test_who_leaves_ends_its_handlers(server: str, how: str) -> None:
    """Within a second, and not only once something can be sent no more."""
    api = API()
    ask = b'{"id":"%d","method":"%s","args":[%s],"type":"request","version":"json"}'
    async with served(server, api, limits=kk.Limits(finish_seconds=20.0)) as url:
        async with raw(url) as peer:
            await peer.send(TEXT, ask % (1, b"wait", b""))
            await peer.send(TEXT, ask % (2, b"count", b"1000,60"))
            await peer.receive()
            if how == "closes":
                await peer.send(CLOSE, closing(1000))
            elif how == "says farewell":
                await peer.send(TEXT, b"__DESTROY__")
            else:
                await peer.stream.aclose()
            with anyio.fail_after(1):
                while api.log.entries.count("ended") < 2:
                    await anyio.sleep(0.01)


async def test_items_of_a_raw_client(server: str) -> None:
    """TRN-1, TRN-2, TRN-3."""
    ask = b'{"id":"%d","method":"add","args":[%d,1],"type":"request","version":"json"}'
    async with served(server, API()) as url, raw(url) as peer:
        await peer.send(TEXT, ask % (1, 1))
        await peer.send(TEXT, ask % (2, 2) + b"\n" + ask % (3, 3) + b"\n")
        await peer.send(BINARY, ask % (4, 4) + b"\n")
        answers = b""
        while answers.count(b"\n") < 4:
            received = await peer.receive()
            assert received.opcode == TEXT
            assert received.payload.endswith(b"\n")
            answers += received.payload
        assert [f'"result":{number}' in answers.decode() for number in (2, 3, 4, 5)] == [True] * 4
        await peer.send(TEXT, b"__DESTROY__")
        assert await peer.receive() == Frame(TEXT, b"__DESTROY__")
        assert await peer.receive() == Frame(CLOSE, closing(1000))


@pytest.mark.parametrize(
    ("opcode", "said", "code"),
    [
        pytest.param(TEXT, b'{"id":"' + b"x" * 2000 + b'"}\n', 1009, id="a large line"),
        pytest.param(BINARY, b"\xd8\x18\x41\xa0not a message\n", 1002, id="noise among CBOR"),
        pytest.param(BINARY, bytes(100_000), 1009, id="a large item"),
    ],
)
async def test_what_ends_a_channel(server: str, opcode: int, said: bytes, code: int) -> None:
    """TRN-4, TRN-5."""
    async with served(server, API(), limits=kk.Limits(frame=1000)) as url, raw(url) as peer:
        await peer.send(opcode, said)
        assert (await peer.until_closed()).code == code


async def test_a_client_that_never_reads(server: str) -> None:
    """The generator waits at the socket, as far as the server tells of it."""
    made = 0
    ended = anyio.Event()

    class Endless:
        async def chunks(self) -> AsyncIterator[str]:
            nonlocal made
            try:
                while True:
                    made += 1
                    yield "x" * 10_000
            finally:
                ended.set()

    ask = b'{"id":"1","method":"chunks","args":[],"type":"request","version":"json"}'
    async with served(server, Endless()) as url:
        async with raw(url) as peer:
            await peer.send(TEXT, ask)
            before = -1
            while before != made:
                before = made
                await anyio.sleep(0.2)
            assert made * 10_000 < 64 << 20
        await ended.wait()


async def test_a_server_that_is_stopped(server: str) -> None:
    """The channel ends on both sides, and its handlers with it."""
    api = API()

    async def client(url: str) -> None:
        async with connect_websocket(url) as channel:
            with pytest.raises(kk.ChannelClosed):
                await channel.remote().wait()

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            async with served(server, api) as url:
                tasks.start_soon(client, url)
                await api.log.wait_for("began")
            assert api.log.entries == ["began", "ended"]
