"""Channels over WebSockets: what works over TCP works here, and what only a WebSocket has to say."""

from __future__ import annotations

import contextlib
import functools
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from kkrpc_py.channel.websockets import connect_websocket, serve_websocket
from kkrpc_py.transports import websocket
from kkrpc_py.transports.handshake import HandshakeRefused, HandshakeRequest
from tests.channel.harness import Log, assert_quiet
from tests.transports.pairs import open_descriptors
from tests.transports.websocket_peers import (
    BINARY,
    CLOSE,
    TEXT,
    Frame,
    RawPeer,
    accept,
    closing,
    make_certificate,
    raw_client,
    raw_server,
)

pytestmark = pytest.mark.anyio

LIMIT = 30


class API:
    def __init__(self) -> None:
        self.log = Log()

    async def add(self, a: int, b: int) -> int:
        return a + b

    async def echo(self, value: Any) -> Any:
        return value

    async def count(self, until: int) -> AsyncIterator[int]:
        try:
            for number in range(until):
                yield number
        finally:
            self.log("counted")

    async def large(self, count: int, size: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield bytes(size)

    async def each(self, count: int, callback: Any) -> int:
        return sum([await callback(number) for number in range(count)])

    async def total(self, numbers: Any) -> int:
        return sum([number async for number in numbers])

    async def wait(self) -> None:
        self.log("waits")
        try:
            await anyio.sleep_forever()
        finally:
            self.log("stopped")

    async def who(self) -> Any:
        return getattr(kk.current_channel().state, "user", None)


@contextlib.asynccontextmanager
async def serving(api: Any, **options: Any) -> AsyncIterator[str]:
    """A server of ours; gives its URL."""
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            serve = functools.partial(serve_websocket, api, "127.0.0.1", 0, **options)
            addresses = await tasks.start(serve)
            scheme = "wss" if "ssl_context" in options else "ws"
            yield f"{scheme}://localhost:{addresses[0][1]}/path"
            tasks.cancel_scope.cancel()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


async def test_calls_and_streams() -> None:
    before = open_descriptors()
    api = API()
    async with serving(api) as url, connect_websocket(url) as channel:
        remote = channel.remote()
        assert await remote.add(1, 2) == 3
        assert [number async for number in remote.count(1000)] == list(range(1000))
        assert await remote.each(5, lambda number: number * 2) == 20
        async for number in remote.count(1 << 30):
            if number == 100:
                break
        await api.log.wait_for("counted")
        assert [len(chunk) async for chunk in remote.large(20, 300_000)] == [300_000] * 20

        async def numbers() -> AsyncIterator[int]:
            for number in range(100):
                yield number

        assert await remote.total(numbers()) == 4950
        with pytest.raises(kk.MethodNotFound):
            await remote.none()
        await assert_quiet(channel)
    assert open_descriptors() <= before


@pytest.mark.parametrize("codec", ["auto", "json", "superjson", "cbor"])
async def test_every_codec(codec: Any) -> None:
    """TRN-2: whatever travels as text or as bytes arrives as it was."""
    value = {
        "text": "ä😀\ud800" if codec == "json" else "ä😀",
        "data": os.urandom(1000),
        "list": [1, None, 2.5],
    }
    async with serving(API(), codec=codec) as url, connect_websocket(url, codec=codec) as channel:
        await channel.ready()
        assert await channel.remote().echo(value) == value


async def test_many_calls_at_once() -> None:
    async with serving(API()) as url, connect_websocket(url) as channel:
        remote = channel.remote()
        results: dict[int, int] = {}

        async def call(number: int) -> None:
            results[number] = await remote.add(number, number)

        async with anyio.create_task_group() as tasks:
            for number in range(500):
                tasks.start_soon(call, number)
        assert results == {number: number * 2 for number in range(500)}


async def test_both_sides_expose() -> None:
    called: list[int] = []

    class Client:
        async def tell(self, number: int) -> None:
            called.append(number)

    class Server:
        async def ask(self) -> None:
            await kk.current_channel().remote().tell(7)

    async with serving(Server()) as url, connect_websocket(url, expose=Client()) as channel:
        await channel.remote().ask()
    assert called == [7]


async def test_over_tls(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "both.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with serving(API(), ssl_context=context) as url:
        async with connect_websocket(
            url, ssl_context=trusting, origin=url.replace("wss", "https")[:-5]
        ) as channel:
            remote = channel.remote()
            assert await remote.add(1, 2) == 3
            assert [number async for number in remote.count(3000)] == list(range(3000))
            data = os.urandom(3_000_000)
            assert await remote.echo(data) == data


# Who may come --------------------------------------------------------------------------------


async def test_who_is_authenticated() -> None:
    """TRN-7: before any call; what the hook has found out is the channel's state."""

    async def authenticate(request: HandshakeRequest) -> bool:
        assert request.path == "/path"
        request.state.user = request.headers.get("x-user")
        return request.state.user is not None

    async with serving(API(), authenticate=authenticate) as url:
        async with connect_websocket(url, headers={"X-User": "somebody"}) as channel:
            assert await channel.remote().who() == "somebody"
        with pytest.raises(HandshakeRefused) as caught:
            async with connect_websocket(url):
                pytest.fail("nobody may come")
    assert caught.value.status == 403


async def test_whose_pages_may_come() -> None:
    async with serving(API(), origins=["https://app.example"]) as url:
        async with connect_websocket(url, origin="https://app.example") as channel:
            assert await channel.remote().add(1, 2) == 3
        with pytest.raises(HandshakeRefused) as caught:
            async with connect_websocket(url, origin="https://other.example"):
                pytest.fail("it may not come")
    assert caught.value.status == 403


@pytest.mark.parametrize(("hosts", "served"), [(None, True), (["example.org"], False), (["*"], True)])
async def test_the_names_of_a_server(hosts: list[str] | None, served: bool) -> None:
    async with serving(API(), hosts=hosts) as url:
        with contextlib.nullcontext() if served else pytest.raises(HandshakeRefused):
            async with connect_websocket(url.replace("localhost", "127.0.0.1")) as channel:
                assert await channel.remote().add(1, 2) == 3


async def test_names_that_are_none() -> None:
    with pytest.raises(TypeError, match="hosts are several"):
        await serve_websocket(API(), "127.0.0.1", 0, hosts="localhost")
    with pytest.raises(ValueError, match="origins are such as"):
        await serve_websocket(API(), "127.0.0.1", 0, origins=["app.example"])


# The end -------------------------------------------------------------------------------------


async def test_a_client_that_leaves_ends_its_handlers_at_once() -> None:
    """TRN-4: nothing can be answered any more, so nobody waits for an answer."""
    api = API()
    async with serving(api, limits=kk.Limits(finish_seconds=20.0)) as url:
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                async with connect_websocket(url) as channel:
                    tasks.start_soon(suppressed, channel.remote().wait())
                    await api.log.wait_for("waits")

            tasks.start_soon(call)
            with anyio.fail_after(5):
                await api.log.wait_for("stopped")


async def suppressed(call: Any) -> None:
    with contextlib.suppress(kk.ChannelClosed):
        await call


async def test_a_server_that_is_stopped_goes_away() -> None:
    """TRN-4: 1001, which is no complaint."""
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(anyio.fail_after(LIMIT))
        tasks = await stack.enter_async_context(anyio.create_task_group())
        scope = anyio.CancelScope()

        async def serve(*, task_status: Any) -> None:
            with scope:
                await serve_websocket(API(), "127.0.0.1", 0, task_status=task_status)

        addresses = await tasks.start(serve)
        async with raw_client(addresses[0][1]) as peer:
            await peer.send(TEXT, b'{"id":"1","method":"add","args":[1,2],"type":"request"}')
            assert (await peer.receive()).opcode == TEXT  # the channel is there
            scope.cancel()
            closed = await peer.until_closed()
            await peer.send(CLOSE, closed.payload)
    assert closed == Frame(CLOSE, closing(1001, "the server is stopped"))


@pytest.mark.parametrize(
    ("opcode", "said", "code"),
    [
        pytest.param(TEXT, b'{"id":"' + b"x" * 2000 + b'"}\n', 1009, id="a large line"),
        pytest.param(BINARY, b"\xd8\x18\x59\x08\x00", 1009, id="a large frame"),
        pytest.param(BINARY, b"\xd8\x18\x41\xa0not a message\n", 1002, id="noise among CBOR"),
        pytest.param(BINARY, b"\xd8\x18\x9f", 1002, id="a broken head"),
        pytest.param(TEXT, b'{"\xff"}', 1007, id="no text"),
        pytest.param(BINARY, bytes(100_000), 1009, id="a large item"),
    ],
)
async def test_what_ends_a_channel(opcode: int, said: bytes, code: int) -> None:
    """TRN-4, TRN-5."""
    async with serving(API(), limits=kk.Limits(frame=1000)) as url, raw_client(port_of(url)) as peer:
        await peer.send(opcode, said)
        assert (await peer.until_closed()).code == code


async def test_noise_and_items_without_a_line_feed() -> None:
    """TRN-1, FRM-14: an item's end is a line's end; several lines in one item are several messages."""
    ask = b'{"id":"%d","method":"add","args":[%d,1],"type":"request","version":"json"}'
    noise: list[bytes] = []
    async with serving(API(), passthrough=noise.append) as url, raw_client(port_of(url)) as peer:
        await peer.send(TEXT, b"hello")
        await peer.send(TEXT, b"")
        await peer.send(TEXT, ask % (1, 1))
        await peer.send(TEXT, ask % (2, 2) + b"\n" + ask % (3, 3))
        await peer.send(BINARY, ask % (4, 4) + b"\n")
        answers = b""
        while answers.count(b"\n") < 4:
            received = await peer.receive()
            assert received.opcode == TEXT
            assert received.payload.endswith(b"\n")
            answers += received.payload
        assert [f'"result":{number}' in answers.decode() for number in (2, 3, 4, 5)] == [True] * 4
        # TRN-3: the end, and whoever follows stock kkrpc's example does not close by itself.
        await peer.send(TEXT, b"__DESTROY__")
        assert await peer.receive() == Frame(TEXT, b"__DESTROY__")
        assert await peer.receive() == Frame(CLOSE, closing(1000))
    assert noise == [b"hello"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1000, "the peer closed the channel"),
        (1001, "the peer closed the channel"),
        (1011, "the byte stream broke: the peer closed the WebSocket with 1011: reason"),
        (4000, "the byte stream broke: the peer closed the WebSocket with 4000: reason"),
        (None, "the byte stream broke: the WebSocket was lost without a closing handshake"),
    ],
)
async def test_what_is_said_of_a_server_that_closed(code: int | None, said: str) -> None:
    async def talk(peer: RawPeer) -> None:
        await accept(peer)
        await peer.receive()
        if code is not None:
            await peer.send(CLOSE, closing(code, "reason"))
            await peer.until_closed()

    with anyio.fail_after(LIMIT):
        async with raw_server(talk) as url, connect_websocket(url) as channel:
            with pytest.raises(kk.ChannelClosed) as caught:
                await channel.remote().add(1, 2)
    assert str(caught.value) == said


async def test_what_a_peer_did_wrong_is_the_cause() -> None:
    async def talk(peer: RawPeer) -> None:
        await accept(peer)
        await peer.receive()
        await peer.send(BINARY, bytes(200_000))
        await peer.end()

    with anyio.fail_after(LIMIT):
        async with raw_server(talk) as url:
            async with connect_websocket(url, limits=kk.Limits(frame=100_000)) as channel:
                with pytest.raises(kk.ChannelClosed, match="too large") as caught:
                    await channel.remote().add(1, 2)
    assert isinstance(caught.value.__cause__, kk.LimitExceeded)


async def test_a_silent_server_is_given_up() -> None:
    """TRN-6."""

    async def talk(peer: RawPeer) -> None:
        await accept(peer)
        await peer.end()

    with anyio.fail_after(LIMIT):
        async with raw_server(talk) as url, connect_websocket(url, ping_seconds=0.1) as channel:
            with pytest.raises(kk.ChannelClosed, match="did not answer a ping within 0.1 s"):
                await channel.remote().add(1, 2)


async def test_a_client_that_never_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator waits for it, and is ended when it is given up."""
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 0.2)
    api = API()
    made = 0

    class Endless:
        async def chunks(self) -> AsyncIterator[str]:
            nonlocal made
            try:
                while True:
                    made += 1
                    yield "x" * 10_000
            finally:
                api.log("ended")

    ask = b'{"id":"1","method":"chunks","args":[],"type":"request","version":"json"}'
    async with serving(Endless(), ping_seconds=0.2) as url, raw_client(port_of(url)) as peer:
        await peer.send(TEXT, ask)
        await api.log.wait_for("ended")
    assert made * 10_000 < 32 << 20


async def test_closing_while_much_is_sent() -> None:
    """Leaving the block is bounded, and the server's generators end."""
    api = API()
    async with serving(api) as url:
        for _ in range(3):
            async with connect_websocket(url) as channel:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(suppressed, channel.remote().echo(bytes(8_000_000)))
                    async for number in channel.remote().count(1 << 30):
                        if number > 2000:
                            break
                    await channel.aclose()
            await api.log.wait_for("counted")
            api.log.entries.clear()


async def test_cancelling_at_any_moment() -> None:
    """Whatever moment a client is cancelled at, the server goes on serving, and nothing is left."""
    before = open_descriptors()
    async with serving(API()) as url:
        for step in range(30):
            with anyio.move_on_after(step * 0.002):
                async with connect_websocket(url) as channel:
                    await channel.remote().echo(os.urandom(200_000))
                    await channel.remote().wait()
        async with connect_websocket(url) as channel:
            assert await channel.remote().add(1, 2) == 3
    assert open_descriptors() <= before


# With what is above channels -----------------------------------------------------------------


async def test_named_streams_and_links() -> None:
    """A named stream goes on over a new WebSocket where the old one was cut: nothing lost, nothing twice."""
    hub = kk.StreamHub()
    ticks = hub.create("ticks")
    stream = ticks.start()
    received: list[int] = []
    async with serving({"streams": hub}) as url:
        async with kk.reconnecting(lambda: connect_websocket(url), initial_delay=0.01) as link:
            stream.write(0)
            async for number in kk.streams(link).subscribe("ticks", stream.id):
                received.append(number)
                if number == 200:
                    break
                if number % 50 == 0:
                    await anyio.aclose_forcefully(link.channel.byte_stream._bytes)
                stream.write(number + 1)
    assert received == list(range(201))


def test_without_the_package() -> None:
    """What is missing is said, with the extra that brings it."""
    program = (
        "import sys, anyio, kkrpc_py as kk\n"
        "sys.modules['websockets'] = None\n"
        "async def main():\n"
        "    async with kk.connect_websocket('ws://localhost/'): pass\n"
        "try: anyio.run(main)\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "WebSockets need the package websockets: pip install 'kkrpc-py[websocket]'\n"
