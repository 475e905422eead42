"""What every byte stream of this library does, whatever is below it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.transports.pairs import HALF_CLOSING, PAIRS

pytestmark = pytest.mark.anyio

LIMIT = 30
BIG = os.urandom(1 << 20) * 3


def each(names: list[str] | dict[str, Any]) -> Any:
    return pytest.mark.parametrize("name", list(names))


async def receive_exactly(stream: Any, count: int, max_bytes: int = 65536) -> bytes:
    parts = []
    while count:
        parts.append(await stream.receive(min(max_bytes, count)))
        count -= len(parts[-1])
    return b"".join(parts)


async def fill(stream: Any) -> None:
    """Send until it is cancelled or fails."""
    while True:
        await stream.send(bytes(1 << 20))


@each(PAIRS)
async def test_data_arrives_both_ways(name: str, tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, other):
            for round_ in range(50):
                await one.send(b"there %d" % round_)
                assert await receive_exactly(other, len(b"there %d" % round_)) == b"there %d" % round_
                await other.send(b"back %d" % round_)
                assert await receive_exactly(one, len(b"back %d" % round_)) == b"back %d" % round_
            await one.send(b"")


@each(PAIRS)
@pytest.mark.parametrize("max_bytes", [4096, 65536, 1 << 20])
async def test_much_data_arrives_both_ways_at_once(name: str, max_bytes: int, tmp_path: Path) -> None:
    data = BIG[: 1 << 18] if name == "terminal" else BIG
    digests = {}

    async def read(stream: Any) -> None:
        digest = hashlib.sha256()
        received = 0
        while received < len(data):
            piece = await stream.receive(max_bytes)
            assert 0 < len(piece) <= max_bytes
            digest.update(piece)
            received += len(piece)
        digests[stream] = digest.hexdigest()

    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, other), anyio.create_task_group() as tg:
            for stream in (one, other):
                tg.start_soon(read, stream)
                tg.start_soon(stream.send, data)
    assert set(digests.values()) == {hashlib.sha256(data).hexdigest()}


@each(HALF_CLOSING)
async def test_end_comes_after_the_data_and_stays(name: str, tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, other):
            await one.send(b"last words")
            await one.send_eof()
            assert await receive_exactly(other, 10) == b"last words"
            for _ in range(3):
                with pytest.raises(anyio.EndOfStream):
                    await other.receive()
            await other.send(b"the other direction lives")
            assert await receive_exactly(one, 25) == b"the other direction lives"


@each(PAIRS)
async def test_closing_ends_the_peers_stream(name: str, tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, other):
            if name == "terminal":  # whose other side hears of no end, and drops what was not read
                one, other = other, one
            await one.send(b"last words")
            if name == "terminal":
                assert await receive_exactly(other, 10) == b"last words"
            await one.aclose()
            if name != "terminal":
                assert await receive_exactly(other, 10) == b"last words"
            with pytest.raises(anyio.EndOfStream):
                await other.receive()
            with pytest.raises(anyio.BrokenResourceError):
                await fill(other)


@each(PAIRS)
async def test_a_closed_stream_says_so(name: str, tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, _):
            await one.aclose()
            await one.aclose()
            with pytest.raises(anyio.ClosedResourceError):
                await one.receive()
            with pytest.raises(anyio.ClosedResourceError):
                await one.send(b"x")
            with pytest.raises(anyio.ClosedResourceError):
                one.send_nowait(b"x")  # type: ignore[attr-defined]  # ours have it


@each(HALF_CLOSING)
async def test_nothing_can_be_sent_after_the_end(name: str, tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, _):
            await one.send_eof()
            await one.send_eof()
            with pytest.raises(anyio.ClosedResourceError):
                await one.send(b"x")


@each(PAIRS)
@pytest.mark.parametrize("waiting", ["receive", "send"])
async def test_closing_ends_whoever_waits(name: str, waiting: str, tmp_path: Path) -> None:
    ended = anyio.Event()

    async def wait(stream: Any) -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await (stream.receive() if waiting == "receive" else fill(stream))
        ended.set()

    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, _), anyio.create_task_group() as tg:
            tg.start_soon(wait, one)
            # Long enough to be waiting on most runs; the outcome must be the same on the others.
            await anyio.sleep(0.05)
            await one.aclose()
            await ended.wait()


@each(PAIRS)
async def test_a_cancelled_receive_loses_nothing(name: str, tmp_path: Path) -> None:
    numbers = 300
    sent = b"".join(b"%06d" % number for number in range(numbers))
    received = b""

    async def send(stream: Any) -> None:
        for number in range(numbers):
            await stream.send(b"%06d" % number)
            if number % 7 == 0:
                await anyio.sleep(0.0005)

    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, other), anyio.create_task_group() as tg:
            tg.start_soon(send, one)
            delay = 0.0
            while len(received) < len(sent):
                delay = (delay + 0.00007) % 0.0015
                with anyio.move_on_after(delay):
                    received += await other.receive(17)
    assert received == sent


@each(PAIRS)
async def test_a_receive_in_a_cancelled_scope_takes_nothing(name: str, tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, other):
            await one.send(b"kept")
            for _ in range(3):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await other.receive()
                assert scope.cancelled_caught
            assert await receive_exactly(other, 4) == b"kept"


@each(PAIRS)
async def test_a_sender_waits_for_the_receiver(name: str, tmp_path: Path) -> None:
    """What lies between the two is bounded: no more than the system's buffers are taken."""
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, other):
            taken = 0
            with anyio.move_on_after(0.3) as scope:
                while taken < 64 << 20:
                    await one.send(bytes(65536))
                    taken += 65536
            assert scope.cancelled_caught
            assert taken < 16 << 20
            await receive_exactly(other, taken, 1 << 20)


@each(PAIRS)
async def test_one_task_at_a_time(name: str, tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, _), anyio.create_task_group() as tg:
            tg.start_soon(one.receive)
            tg.start_soon(fill, one)
            await anyio.sleep(0.1)
            with pytest.raises(anyio.BusyResourceError):
                await one.receive()
            with pytest.raises(anyio.BusyResourceError):
                await one.send(b"x")
            tg.cancel_scope.cancel()


@each(PAIRS)
async def test_a_waiting_send_is_not_overtaken(name: str, tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, other), anyio.create_task_group() as tg:
            tg.start_soon(one.send, b"a" * (4 << 20))
            await receive_exactly(other, 1)
            assert one.send_nowait(b"b") == 0  # type: ignore[attr-defined]  # ours have it
            assert set(await receive_exactly(other, (4 << 20) - 1, 1 << 20)) == set(b"a")


@each(PAIRS)
async def test_send_nowait_takes_what_goes(name: str, tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, other):
            sent = b""
            for number in range(100_000):
                data = b"%06d" % number * 20
                count = one.send_nowait(data)  # type: ignore[attr-defined]  # ours have it
                assert 0 <= count <= len(data)
                sent += data[:count]
                if count < len(data):
                    break
            else:
                pytest.fail("there is no end to what it takes")
            assert await receive_exactly(other, len(sent)) == sent


@each(PAIRS)
async def test_max_bytes_must_be_positive(name: str, tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, _):
            with pytest.raises(ValueError, match="max_bytes"):
                await one.receive(0)
