"""A WebSocket as a stream of items, between two ends of ours: the contract of other transports, as it fits.

What hostile peers do is in `test_websocket_hostile`; channels are in `tests/channel/test_websockets`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute

from kkrpc_py.transports import opening, websocket
from kkrpc_py.transports.handshake import HandshakeRefused
from kkrpc_py.transports.items import ITEM_BYTES, items_of, line_of, short_reason
from tests.transports.pairs import open_descriptors
from tests.transports.websocket_peers import Linked, linked, make_certificate, serving

pytestmark = pytest.mark.anyio

LIMIT = 30
BIG = os.urandom(1 << 20) * 3
PAIRS = ["client", "server", "client over TLS"]

Pair = Callable[..., AbstractAsyncContextManager[Linked]]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls") / "both.pem")


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> Pair:
    """Makes two linked ends, the one named by the parameter first."""
    first, _, over = request.param.partition(" over ")
    secured = request.getfixturevalue("certificate") if over else None
    return partial(linked, first=first, secured=secured)


async def fill(stream: Any) -> None:
    """Send until it is cancelled or fails."""
    while True:
        await stream.send(bytes(1 << 20))


async def receive_bytes(stream: Any, count: int) -> None:
    while count > 0:
        count -= len(await stream.receive())
    assert count == 0


async def test_items_arrive_both_ways(pair: Pair) -> None:
    with anyio.fail_after(LIMIT):
        async with pair() as (one, other):
            for round_ in range(20):
                await one.send(b'{"there":%d}\n' % round_)
                assert await other.receive() == b'{"there":%d}\n' % round_
                await other.send(b"\xd8\x18back %d" % round_)
                assert await one.receive() == b"\xd8\x18back %d" % round_
            await one.send(b"")
            assert await other.receive() == b""


async def test_much_data_arrives_both_ways_at_once(pair: Pair) -> None:
    digests = {}

    async def read(stream: Any) -> None:
        digests[stream] = hashlib.sha256(await stream.receive()).hexdigest()

    with anyio.fail_after(LIMIT):
        async with pair() as (one, other), anyio.create_task_group() as tasks:
            for stream in (one, other):
                tasks.start_soon(read, stream)
                tasks.start_soon(stream.send, BIG)
    assert set(digests.values()) == {hashlib.sha256(BIG).hexdigest()}


async def test_frames_share_items(pair: Pair) -> None:
    """TRN-1, TRN-2: JSON lines in texts, CBOR in binary items; what is larger goes alone."""
    line, cbor, large = b'{"id":"1"}\n', b"\xd8\x18\x41\xa0", b'{"large":"' + bytes(ITEM_BYTES) + b'"}\n'
    frames = [line, line, cbor, cbor, line, large, line]
    with anyio.fail_after(LIMIT):
        async with pair() as (one, other):
            await one.send_frames(frames)
            arrived = [await other.receive() for _ in range(5)]
    assert arrived == [line * 2, cbor * 2, line, large, line]


@pytest.mark.parametrize("count", [1, 2, 1000, 20_000])
def test_items_are_few_and_bounded(count: int) -> None:
    frames = [b'{"n":"%05d"}\n' % number for number in range(count)]
    items = items_of(frames)
    assert b"".join(item.data for item in items) == b"".join(frames)
    assert all(item.text and len(item.data) <= ITEM_BYTES for item in items)
    assert len(items) == -(-count // (ITEM_BYTES // len(frames[0])))


def test_pieces_of_items() -> None:
    assert items_of([]) == []
    assert line_of(b'{"a":1}') == line_of(b'{"a":1}\n') == b'{"a":1}\n'
    assert short_reason("ä" * 100) == "ä" * 61  # 123 bytes is all that a close frame has room for


async def test_send_frames_nowait_takes_all_or_nothing(pair: Pair) -> None:
    frame = b'{"data":"' + b"x" * 60_000 + b'"}\n'
    with anyio.fail_after(LIMIT):
        async with pair() as (one, other):
            taken = 0
            while one.send_frames_nowait([frame, frame]):
                taken += 2
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one.send_frames, [frame])
                await receive_bytes(other, len(frame) * (taken + 1))


async def test_closing_ends_the_peers_stream(pair: Pair) -> None:
    """TRN-4: 1000 is the end of the input, after what was sent before."""
    with anyio.fail_after(LIMIT):
        async with pair() as (one, other):
            await one.send(b"last words")

            async def read() -> None:
                assert await other.receive() == b"last words"
                for _ in range(3):
                    with pytest.raises(anyio.EndOfStream):
                        await other.receive()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await one.aclose()
            with pytest.raises(anyio.BrokenResourceError):
                await fill(other)


@pytest.mark.parametrize("code", [1001, 1002, 1009, 1011, 3000])
async def test_the_code_of_closing_arrives(pair: Pair, code: int) -> None:
    """TRN-4."""
    with anyio.fail_after(LIMIT):
        async with pair() as (one, other), anyio.create_task_group() as tasks:
            one.close_with(code, "because " * 30)
            one.close_with(4000, "the first one counts")
            tasks.start_soon(one.aclose)
            if code == 1001:
                with pytest.raises(anyio.EndOfStream):
                    await other.receive()
            else:
                with pytest.raises(
                    anyio.BrokenResourceError, match=f"closed the WebSocket with {code}: because"
                ):
                    await other.receive()


async def test_a_farewell_ends_the_input(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRN-3: nothing behind it is looked at, not even why the connection is closed."""
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 0.2)
    with anyio.fail_after(LIMIT):
        async with pair() as (one, other), anyio.create_task_group() as tasks:
            await one.send(b'{"before":1}\n')
            one.farewell = True
            one.close_with(1011)
            tasks.start_soon(one.aclose)
            assert await other.receive() == b'{"before":1}\n'
            for _ in range(2):
                with pytest.raises(anyio.EndOfStream):
                    await other.receive()


async def test_a_closed_stream_says_so(pair: Pair) -> None:
    with anyio.fail_after(LIMIT):
        async with pair() as (one, other), anyio.create_task_group() as tasks:
            tasks.start_soon(suppressed, other.receive)
            await one.aclose()
            await one.aclose()
            await one.send_eof()
            with pytest.raises(anyio.ClosedResourceError):
                await one.receive()
            with pytest.raises(anyio.ClosedResourceError):
                await one.receive_each(1, lambda data: True)
            with pytest.raises(anyio.ClosedResourceError):
                await one.send(b"x")
            with pytest.raises(anyio.ClosedResourceError):
                one.send_frames_nowait([b"x"])


async def suppressed(function: Callable[[], Any]) -> None:
    with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        await function()


@pytest.mark.parametrize("waiting", ["receive", "receive_each", "send"])
async def test_closing_ends_whoever_waits(pair: Pair, waiting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 0.2)
    ended = anyio.Event()

    async def wait(stream: Any) -> None:
        with pytest.raises(anyio.ClosedResourceError):
            if waiting == "send":
                await fill(stream)
            elif waiting == "receive":
                await stream.receive()
            else:
                await stream.receive_each(1, lambda data: True)
        ended.set()

    with anyio.fail_after(LIMIT):
        async with pair() as (one, other), anyio.create_task_group() as tasks:
            tasks.start_soon(wait, one)
            if waiting != "send":
                tasks.start_soon(suppressed, other.receive)
            # Long enough to be waiting on most runs; the outcome must be the same on the others.
            await anyio.sleep(0.05)
            await one.aclose()
            await ended.wait()


async def test_closing_is_bounded_where_nobody_reads(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 0.2)
    with anyio.fail_after(LIMIT):
        async with pair() as (one, _), anyio.create_task_group() as tasks:
            tasks.start_soon(suppressed, partial(fill, one))
            await anyio.sleep(0.05)
            began = anyio.current_time()
            await one.aclose()
            assert anyio.current_time() - began < 1.5


async def test_a_cancelled_receive_loses_nothing(pair: Pair) -> None:
    numbers = 300
    received = []

    async def send(stream: Any) -> None:
        for number in range(numbers):
            await stream.send(b"%06d" % number)
            if number % 7 == 0:
                await anyio.sleep(0.0005)

    with anyio.fail_after(LIMIT):
        async with pair() as (one, other), anyio.create_task_group() as tasks:
            tasks.start_soon(send, one)
            delay = 0.0
            while len(received) < numbers:
                delay = (delay + 0.00007) % 0.0015
                with anyio.move_on_after(delay):
                    received.append(await other.receive())
    assert received == [b"%06d" % number for number in range(numbers)]


async def test_a_receive_in_a_cancelled_scope_takes_nothing(pair: Pair) -> None:
    with anyio.fail_after(LIMIT):
        async with pair() as (one, other):
            await one.send(b"first")
            await one.send(b"kept")
            assert await other.receive() == b"first"
            for _ in range(3):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await other.receive()
                assert scope.cancelled_caught
            assert await other.receive() == b"kept"


async def test_receive_each_is_handed_what_comes(pair: Pair) -> None:
    async def send(stream: Any) -> None:
        for number in range(1000):
            await stream.send(b'{"n":%d}\n' % number)
        await stream.aclose()

    taken: list[bytes] = []

    def first(data: bytes) -> bool:
        taken.append(data)
        return len(b"".join(taken)) < 2000

    def rest(data: bytes) -> bool:
        taken.append(data)
        return True

    with anyio.fail_after(LIMIT):
        async with pair() as (one, other), anyio.create_task_group() as tasks:
            tasks.start_soon(send, one)
            await other.receive_each(1 << 16, first)
            with pytest.raises(anyio.EndOfStream):
                await other.receive_each(1 << 16, rest)
    assert b"".join(taken) == b"".join(b'{"n":%d}\n' % number for number in range(1000))


async def test_receive_each_raises_what_take_raises(pair: Pair) -> None:
    def take(data: bytes) -> bool:
        raise ZeroDivisionError

    with anyio.fail_after(LIMIT):
        async with pair() as (one, other):
            for _ in range(2):
                await one.send(b"x")
                with pytest.raises(ZeroDivisionError):
                    await other.receive_each(1 << 16, take)
            await one.send(b"y")
            assert await other.receive() == b"y"


async def test_a_sender_waits_for_the_receiver(pair: Pair) -> None:
    """What lies between the two is bounded: no more than the system's buffers are taken."""
    with anyio.fail_after(LIMIT):
        async with pair() as (one, other):
            taken = 0
            with anyio.move_on_after(0.3) as scope:
                while taken < 64 << 20:
                    await one.send(bytes(65536))
                    taken += 65536
            assert scope.cancelled_caught
            assert taken < 16 << 20
            await receive_bytes(other, taken + 65536)  # the cancelled one arrives, too, and whole


@pytest.mark.parametrize("size", [200, 70_000, 3_000_000])
async def test_a_cancelled_send_leaves_no_half_item(pair: Pair, size: int) -> None:
    """Each item arrives whole or not at all, in order; those whose send returned arrive in any case."""
    sent: list[int] = []
    arrived: list[int] = []
    rounds = 60 if size < 1 << 20 else 8

    async def read(stream: Any) -> None:
        with contextlib.suppress(anyio.EndOfStream):
            while True:
                item = await stream.receive()
                assert len(item) == size
                assert set(item[8:]) == {0}
                arrived.append(int(item[:8]))
                if len(arrived) % 3 == 0:
                    await anyio.sleep(0.001)

    with anyio.fail_after(LIMIT):
        async with pair() as (one, other), anyio.create_task_group() as tasks:
            tasks.start_soon(read, other)
            delay = 0.0
            for number in range(rounds):
                delay = (delay + 0.00013) % 0.002
                with anyio.move_on_after(delay):
                    await one.send(b"%08d" % number + bytes(size - 8))
                    sent.append(number)
            await one.send(b"%08d" % rounds + bytes(size - 8))
            await one.aclose()
    assert set(sent) < set(arrived)
    assert arrived == sorted(set(arrived))
    assert arrived[-1] == rounds


async def test_one_task_at_a_time(pair: Pair) -> None:
    with anyio.fail_after(LIMIT):
        async with pair() as (one, _), anyio.create_task_group() as tasks:
            tasks.start_soon(one.receive)
            tasks.start_soon(fill, one)
            await anyio.sleep(0.1)
            with pytest.raises(anyio.BusyResourceError):
                await one.receive()
            with pytest.raises(anyio.BusyResourceError):
                await one.receive_each(1, lambda data: True)
            with pytest.raises(anyio.BusyResourceError):
                await one.send(b"x")
            assert not one.send_frames_nowait([b"x"])
            tasks.cancel_scope.cancel()


async def test_what_is_known_of_the_other_side(pair: Pair) -> None:
    with anyio.fail_after(LIMIT):
        async with pair() as (one, other):
            for stream in (one, other):
                assert stream.extra(SocketAttribute.remote_address)[0] == "127.0.0.1"
                assert not stream.half_closes
                assert stream.headers["upgrade"] == "websocket"
                if stream.request is not None:
                    assert (stream.request.path, stream.client) == ("/", "127.0.0.1")


async def test_nothing_is_left(certificate: Path) -> None:
    before = open_descriptors()
    with anyio.fail_after(LIMIT):
        for secured in (None, certificate):
            async with linked(secured=secured) as (one, other):
                await one.send(b"x")
                assert await other.receive() == b"x"
    assert open_descriptors() <= before


async def test_the_blocks_own_exception_leaves_as_it_is() -> None:
    async def handler(stream: Any) -> None:
        await suppressed(stream.receive)

    with anyio.fail_after(LIMIT):
        async with serving(handler) as port:
            with pytest.raises(ZeroDivisionError):
                async with opening.connect(f"ws://localhost:{port}/"):
                    raise ZeroDivisionError


async def test_a_quiet_connection_is_kept_by_pings() -> None:
    """TRN-6: both sides answer, so nobody is given up."""
    with anyio.fail_after(LIMIT):
        async with linked(ping_seconds=0.05) as (one, other), anyio.create_task_group() as tasks:
            for stream in (one, other):
                tasks.start_soon(suppressed, stream.receive)
            await anyio.sleep(0.5)
            assert one._end is other._end is None
            tasks.cancel_scope.cancel()


# Opening, on the client's side --------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/",
        "localhost:80",
        "ws://",
        "ws:///path",
        "ws://secret@host/",
        "ws://host:port/",
        "ws://h/#x",
    ],
)
async def test_what_is_no_websocket_url(url: str) -> None:
    with pytest.raises(ValueError, match="a WebSocket URL is such as") as caught:
        async with opening.connect(url):
            pytest.fail("it is none")
    assert "secret" not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


async def test_tls_is_for_wss() -> None:
    with pytest.raises(ValueError, match="ssl_context is for wss"):
        async with opening.connect("ws://localhost/", ssl_context=ssl.create_default_context()):
            pytest.fail("it is not")


@pytest.mark.parametrize(
    "headers", [{"X": "a\r\nY: b"}, {"X\r\nY": "a"}, {"": "x"}, {"X": "\u20ac"}, {"a b": "c"}]
)
async def test_what_is_no_header(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not a header field"):
        async with opening.connect("ws://localhost:1/", headers=headers):
            pytest.fail("it is none")


async def test_nobody_listens() -> None:
    with anyio.fail_after(LIMIT):
        with pytest.raises(OSError):
            async with opening.connect("ws://127.0.0.1:1/"):
                pytest.fail("somebody does")


async def test_a_certificate_is_checked(certificate: Path) -> None:
    with anyio.fail_after(LIMIT):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        async with serving(suppressed, ssl_context=context) as port:
            with pytest.raises(OSError) as caught:
                async with opening.connect(f"wss://localhost:{port}/"):
                    pytest.fail("nobody vouches for it")
    assert not isinstance(caught.value, HandshakeRefused)
