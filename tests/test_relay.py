"""`kk.relay`: whole frames pass, however they arrive; and what becomes of each side when the other ends."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import socket
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream, ObjectStream
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

import kkrpc_py as kk
from kkrpc_py.tools.cutting import Cutter
from kkrpc_py.transports.memory import memory_byte_streams
from kkrpc_py.transports.process import spawn
from kkrpc_py.transports.sockets import SocketByteStream
from kkrpc_py.wire.framing import cbor_frame
from tests.channel.harness import BOUND, until

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
LIMIT = 1 << 16

# Where frames end -------------------------------------------------------------------------------

NOISE = st.binary(max_size=20).map(lambda text: b"#" + text.replace(b"\n", b"") + b"\n")
LINES = st.binary(max_size=40).map(lambda text: b"{" + text.replace(b"\n", b"") + b"\n")
PAYLOADS = st.binary(max_size=30) | st.sampled_from([b"\n" * 23, b"{" * 24, b"\xd8\x18" * 200, b"x" * 300])
BLANKS = st.sampled_from([b" ", b"\r", b"\n", b"\t\n", b"\xef\xbb\xbf"])
WHOLE = LINES | PAYLOADS.map(cbor_frame)
PARTS = st.lists(
    st.one_of(WHOLE.map(lambda frame: (frame, True)), (NOISE | BLANKS).map(lambda part: (part, False))),
    max_size=12,
)


@settings(deadline=None, max_examples=150)
@given(PARTS, st.lists(st.integers(0, 400), max_size=12), st.booleans())
def test_all_that_is_whole_passes_and_no_beginning_of_a_frame(
    parts: list[tuple[bytes, bool]], cuts: list[int], singly: bool
) -> None:
    data = b"".join(part for part, _ in parts)
    inside = bytearray(len(data) + 1)
    frame_ends: list[int] = []
    at = 0
    for part, is_frame in parts:
        if is_frame:
            inside[at + 1 : at + len(part)] = b"\1" * (len(part) - 1)
            frame_ends.append(at + len(part))
        at += len(part)
    cutter = Cutter(LIMIT)
    passed = bytearray()
    edges = range(len(data) + 1) if singly else sorted({0, len(data), *(min(c, len(data)) for c in cuts)})
    for start, stop in itertools.pairwise(edges):
        passed += b"".join(cutter.feed(data[start:stop]))
        assert cutter.error is None
        assert not inside[len(passed)]
        while frame_ends and frame_ends[0] <= stop:  # all frames that have come are on their way
            assert len(passed) >= frame_ends.pop(0)
        assert len(passed) + cutter.held == stop
    assert passed == data


@pytest.mark.parametrize(
    ("data", "passed", "error"),
    [
        (b"{}\n{" + b"x" * LIMIT + b"\n{}\n", b"{}\n", kk.LimitExceeded),
        (b"{}\n{" + b"x" * LIMIT, b"{}\n", kk.LimitExceeded),
        (cbor_frame(b"a") + cbor_frame(bytes(LIMIT + 1))[:8], cbor_frame(b"a"), kk.LimitExceeded),
        (b"{}\n\xd8\x18\x5f\x41a\xff", b"{}\n", kk.ProtocolError),
        (cbor_frame(b"a") + b"\xd8\x18\x9b", cbor_frame(b"a"), kk.ProtocolError),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_what_cannot_be_passed_on_ends_the_direction(
    data: bytes, passed: bytes, error: type[Exception], step: int
) -> None:
    cutter = Cutter(LIMIT)
    found = b""
    for at in range(0, len(data), step):
        found += b"".join(cutter.feed(data[at : at + step]))
        if cutter.error is not None:
            break
    assert (found, type(cutter.error)) == (passed, error)


def test_a_frame_in_single_bytes_takes_about_as_much_memory_as_it_has_bytes() -> None:
    size = 1 << 16
    frame = cbor_frame(bytes(size))
    cutter = Cutter(size)
    tracemalloc.start()
    try:
        for at in range(len(frame) - 1):
            assert cutter.feed(frame[at : at + 1]) == []
        assert tracemalloc.get_traced_memory()[1] < 2 * size
    finally:
        tracemalloc.stop()
    assert b"".join(cutter.feed(frame[-1:])) == frame


# The relay --------------------------------------------------------------------------------------


class Relayed:
    """`left` and `right` are the ends that the applications have; the relay runs between them."""

    def __init__(self, wrap: Any = lambda stream: stream, **options: Any) -> None:
        self.left, self.a = memory_byte_streams()
        self.right, self.b = memory_byte_streams()
        self.options = options
        self.wrap = wrap
        self.done = anyio.Event()

    async def run(self) -> None:
        await kk.relay(self.wrap(self.a), self.wrap(self.b), **self.options)
        self.done.set()


class Wrapped(ByteStream):
    """A stream of somebody else's: no more than the interface. Reads at most `most` bytes at a time."""

    def __init__(self, stream: ByteStream, most: int = 1 << 20, *, half_closes: bool = True) -> None:
        self.stream = stream
        self.most = most
        self.half_closes = half_closes

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self.stream.receive(min(max_bytes, self.most))

    async def send(self, item: bytes) -> None:
        await self.stream.send(item)

    async def send_eof(self) -> None:
        if not self.half_closes:
            raise NotImplementedError
        await self.stream.send_eof()

    async def aclose(self) -> None:
        await self.stream.aclose()


async def received_all(stream: ByteStream) -> bytes:
    data = b""
    try:
        while True:
            data += await stream.receive()
    except anyio.EndOfStream:
        return data


class Api:
    async def add(self, a: int, b: int) -> int:
        return a + b

    async def count(self, n: int) -> Any:
        for i in range(n):
            yield i

    async def echo(self, value: Any) -> Any:
        return value

    async def ask(self) -> Any:
        return await kk.current_channel().remote().add(20, 22)


@pytest.mark.parametrize("most", [1, 3, 1 << 20])
async def test_channels_talk_through_it(most: int) -> None:
    big = {"text": "ä\n" * (2000 if most < 9 else 200_000), "bytes": bytes(range(256)) * 20}
    with anyio.fail_after(BOUND):
        pair = Relayed(lambda stream: Wrapped(stream, most))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.run)
            async with (
                kk.RPCChannel(pair.right, expose=Api(), hello=False),
                kk.RPCChannel(pair.left, expose=Api()) as channel,
            ):
                api = channel.remote()
                assert await api.add(1, 2) == 3
                assert await api.ask() == 42
                assert await api.echo(big) == big
                n = 500 if most < 9 else 20_000
                assert [i async for i in api.count(n)] == list(range(n))
            await pair.done.wait()


async def test_a_hundred_thousand_messages_each_way_arrive_as_they_were() -> None:
    def messages(name: str) -> list[bytes]:
        found = [b'{"from":"%s","n":%d}\n' % (name.encode(), i) for i in range(100_000)]
        found[::1000] = [cbor_frame(b"\n%d" % i * (1 + i % 40)) for i in range(100)]
        return found

    async def talk(stream: ByteStream, name: str) -> None:
        data = messages(name)
        for at in range(0, len(data), 777):
            await stream.send(b"".join(data[at : at + 777]))
        await stream.send_eof()

    got: dict[str, bytes] = {}

    async def listen(stream: ByteStream, name: str) -> None:
        got[name] = await received_all_at_once(stream)

    with anyio.fail_after(BOUND):
        ends = [sockets() for _ in range(2)]
        (left, a), (right, b) = ends
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kk.relay, a, b)
            for stream, name, other in ((left, "left", "right"), (right, "right", "left")):
                tasks.start_soon(talk, stream, name)
                tasks.start_soon(listen, stream, other)
        await left.aclose()
        await right.aclose()
    assert {name: data == b"".join(messages(name)) for name, data in got.items()} == {
        "left": True,
        "right": True,
    }


async def received_all_at_once(stream: ByteStream) -> bytes:
    parts: list[bytes] = []
    try:
        while True:
            parts.append(await stream.receive(1 << 17))
    except anyio.EndOfStream:
        return b"".join(parts)


def sockets() -> tuple[SocketByteStream, SocketByteStream]:
    one, other = socket.socketpair()
    return SocketByteStream(one), SocketByteStream(other)


@pytest.mark.parametrize("begun", [b'{"id":', b"\xd8\x18\x59\x01\x00abc", b"\xd8", b"\xd8\x18\x5a\x00"])
async def test_a_message_whose_end_never_comes_is_not_passed_on(begun: bytes) -> None:
    with anyio.fail_after(BOUND):
        pair = Relayed()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.run)
            await pair.left.send(b'{"id":1}\nnoise\n' + begun)
            await pair.left.send_eof()
            assert await received_all(pair.right) == b'{"id":1}\nnoise\n'
            # The other direction goes on.
            await pair.right.send(b'{"id":2}\n')
            assert await pair.left.receive() == b'{"id":2}\n'
            await pair.right.aclose()
            await pair.done.wait()
            assert await received_all(pair.left) == b""


async def test_half_a_line_of_noise_is_passed_on_as_it_comes() -> None:
    with anyio.fail_after(BOUND):
        pair = Relayed()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.run)
            await pair.left.send(b"Password: ")
            assert await pair.right.receive() == b"Password: "
            await pair.left.send(b"thanks\n{")
            assert await pair.right.receive() == b"thanks\n"
            tasks.cancel_scope.cancel()


async def test_without_half_close_the_other_side_has_little_time() -> None:
    with anyio.fail_after(BOUND):
        pair = Relayed(
            lambda stream: Wrapped(stream, half_closes=False), limits=kk.Limits(finish_seconds=0.2)
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.run)
            await pair.left.send(b"{}\n")
            await pair.left.send_eof()
            assert await pair.right.receive() == b"{}\n"
            await pair.right.send(b'{"answer":1}\n')
            assert await pair.left.receive() == b'{"answer":1}\n'
            await pair.done.wait()
        with pytest.raises(anyio.EndOfStream):
            await pair.right.receive()


async def test_what_a_side_that_reads_no_more_had_sent_arrives() -> None:
    with anyio.fail_after(BOUND):
        (left, a), (right, b) = sockets(), sockets()
        finished = anyio.Event()

        async def run() -> None:
            await kk.relay(a, b, limits=kk.Limits(finish_seconds=0.3))
            finished.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await right.send(b'{"last":"words"}\n')
            await right.aclose()
            assert await left.receive() == b'{"last":"words"}\n'
            # The left side goes on writing, is not blocked, and is told by the end.
            with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
                while True:
                    await left.send(b'{"much":"%s"}\n' % (b"x" * 50_000))
            await finished.wait()
            await left.aclose()


async def test_a_side_that_only_reads_no_more_has_little_time() -> None:
    class Unread(Wrapped):
        async def send(self, item: bytes) -> None:
            raise anyio.BrokenResourceError

    with anyio.fail_after(BOUND):
        left, a = memory_byte_streams()
        right, b = memory_byte_streams()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(functools.partial(kk.relay, a, Unread(b), limits=kk.Limits(finish_seconds=0.2)))
            with pytest.raises(anyio.BrokenResourceError):  # by the end of the relay
                while True:
                    await left.send(b"{}\n" * 1000)
                    with contextlib.suppress(anyio.BrokenResourceError):
                        await right.send(b'{"still":"talking"}\n')
        assert (await received_all(left)).startswith(b'{"still":"talking"}\n')


@pytest.mark.parametrize("half_closes", [True, False])
async def test_a_broken_side_ends_both(half_closes: bool) -> None:
    with anyio.fail_after(BOUND):
        pair = Relayed(
            lambda stream: Wrapped(stream, half_closes=half_closes), limits=kk.Limits(finish_seconds=0.1)
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.run)
            await pair.right.aclose()
            with pytest.raises(anyio.BrokenResourceError):
                while True:
                    await pair.left.send(b"{}\n")
                    await checkpoint()
            await pair.done.wait()


async def test_a_slow_reader_sets_the_pace() -> None:
    sent = 0
    line = b'{"x":"%s"}\n' % (b"y" * 10_000)
    with anyio.fail_after(BOUND):
        pair = Relayed()

        async def flood() -> None:
            nonlocal sent
            while True:
                await pair.left.send(line)
                sent += len(line)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.run)
            tasks.start_soon(flood)
            await until(lambda: sent > 60_000)
            before = -1
            while before != sent:
                before = sent
                for _ in range(50):
                    await checkpoint()
            assert sent < 300_000  # the buffers of the two streams, and what the relay has read once
            assert await pair.right.receive() != b""
            await until(lambda: sent > before)
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"{}\n{" + b"x" * 2000 + b"}\n", kk.LimitExceeded), (b"{}\n\xd8\x18\x00", kk.ProtocolError)],
)
async def test_what_cannot_be_passed_on_is_an_error(data: bytes, error: type[Exception]) -> None:
    with anyio.fail_after(BOUND):
        pair = Relayed(limits=kk.Limits(frame=1000))
        await pair.left.send(data)
        with pytest.raises(error):
            await pair.run()
        assert await received_all(pair.right) == b"{}\n"
        assert await received_all(pair.left) == b""


async def test_cancelled_it_closes_both_streams() -> None:
    with anyio.fail_after(BOUND):
        pair = Relayed()
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pair.run)
                await pair.left.send(b'{"a":1}\n{"b":')
                assert await pair.right.receive() == b'{"a":1}\n'
                scope.cancel()
        assert await received_all(pair.left) == b""
        assert await received_all(pair.right) == b""


@pytest.mark.parametrize("size", [65_536, 65_537, 65_538, 131_073])
async def test_no_write_leaves_a_line_feed_alone_to_a_stock_reader(size: int) -> None:
    line = b'{"x":"%s"}\n' % (b"y" * (size - 9))
    assert len(line) == size
    writes: list[bytes] = []

    class Recorded(Wrapped):
        async def send(self, item: bytes) -> None:
            writes.append(item)

    with anyio.fail_after(BOUND):
        left, a = memory_byte_streams()
        _, b = memory_byte_streams()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kk.relay, Wrapped(a), Recorded(b))
            await left.send(line)
            await until(lambda: b"".join(writes).endswith(b"\n"))
            tasks.cancel_scope.cancel()
    data = b"".join(writes)
    assert data == (b" " + line if size % 65_536 == 1 else line)
    assert data[len(data) // 65_536 * 65_536 :] != b"\n"
    assert len(writes[-1]) > 1


class Items(ObjectStream[Any]):
    """A stream of whole frames, as a WebSocket is."""

    def __init__(self, incoming: list[Any]) -> None:
        self.incoming = incoming
        self.sent: list[Any] = []
        self.ended = anyio.Event()

    async def receive(self) -> Any:
        await checkpoint()
        if self.incoming:
            return self.incoming.pop(0)
        await self.ended.wait()
        raise anyio.EndOfStream

    async def send(self, item: Any) -> None:
        self.sent.append(item)

    async def send_eof(self) -> None:
        self.ended.set()

    async def aclose(self) -> None:
        self.ended.set()


async def test_a_stream_of_whole_frames_is_as_good_as_one_of_bytes() -> None:
    with anyio.fail_after(BOUND):
        right, b = memory_byte_streams()
        items = Items(['{"text":1}', b'{"bytes":2}\n{"bytes":3}', cbor_frame(b"four")])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kk.relay, items, b)
            expected = b'{"text":1}\n{"bytes":2}\n{"bytes":3}\n' + cbor_frame(b"four")
            data = b""
            while len(data.replace(b"\n\n", b"\n")) < len(expected):
                data += await right.receive()
            assert [part for part in data.split(b"\n") if part] == expected.split(b"\n")
            long = b'{"long":"%s"}\n' % (b"z" * 300_000)
            await right.send(long)
            await right.send_eof()
        assert items.sent == [long]  # one item, although it came in pieces


# Processes --------------------------------------------------------------------------------------

CHILD = """
import os, kkrpc_py as kk
class Api:
    async def add(self, a, b): return a + b
    async def pid(self): return os.getpid()
    async def count(self, n):
        for i in range(n): yield i
    async def ask(self): return await kk.current_channel().remote().add(20, 22)
    async def forever(self):
        import anyio
        i = 0
        while True:
            yield i
            i += 1
            await anyio.sleep(0.001)
kk.run_stdio(Api())
"""
RELAY = """
import sys, anyio, kkrpc_py as kk
from kkrpc_py.transports.process import spawn
from kkrpc_py.transports.stdio import open_stdio
async def main():
    stdio = open_stdio()
    async with spawn([sys.executable, sys.argv[1]]) as child:
        await kk.relay(stdio, child)
anyio.run(main, backend=sys.argv[2])
"""


@pytest.fixture
def command(tmp_path: Path, anyio_backend_name: str) -> list[str]:
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "relay.py").write_text(RELAY)
    return [sys.executable, str(tmp_path / "relay.py"), str(tmp_path / "child.py"), anyio_backend_name]


async def test_a_parent_a_relay_and_a_child(command: list[str]) -> None:
    with anyio.fail_after(BOUND):
        async with kk.open_process(command, env=ENVIRONMENT, expose=Api()) as channel:
            api = channel.remote()
            assert await api.add(1, 2) == 3
            assert await api.ask() == 42
            assert [i async for i in api.count(100_000)] == list(range(100_000))
            assert (await api.pid()) not in {os.getpid(), channel.byte_stream.pid}
            child = channel.byte_stream
        assert child.exit_code == 0


async def test_a_killed_child_ends_the_relay_and_the_parents_channel(command: list[str]) -> None:
    with anyio.fail_after(BOUND):
        async with kk.open_process(command, env=ENVIRONMENT) as channel:
            api = channel.remote()
            pid = await api.pid()
            with pytest.raises(kk.ChannelClosed) as caught:
                async for i in api.forever():
                    if i == 10:
                        os.kill(pid, signal.SIGKILL)
            assert caught.value.exit_code in {0, None}  # the relay's: it ended in order
            await channel.wait_closed()


async def test_a_killed_relay_ends_both_sides(command: list[str]) -> None:
    with anyio.fail_after(BOUND):
        async with kk.open_process(command, env=ENVIRONMENT) as channel:
            api = channel.remote()
            pid = await api.pid()
            os.kill(channel.byte_stream.pid, signal.SIGKILL)
            await channel.wait_closed()
            with pytest.raises(kk.ChannelClosed) as caught:
                await api.add(1, 2)
            assert caught.value.exit_code == -signal.SIGKILL
            await until(lambda: is_gone(pid))


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


async def test_a_socket_in_front_of_a_child(command: list[str]) -> None:
    (left, a) = sockets()
    with anyio.fail_after(BOUND):
        async with (
            spawn([sys.executable, command[2]], env=ENVIRONMENT) as child,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(kk.relay, a, child)
            async with kk.RPCChannel(left) as channel:
                assert [i async for i in channel.remote().count(1000)] == list(range(1000))
        assert child.exit_code == 0
