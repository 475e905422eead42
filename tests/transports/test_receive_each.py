"""`receive_each` gives what a loop of `receive` gives, whoever calls back."""

from __future__ import annotations

import asyncio
import contextvars
import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from kkrpc_py.transports.descriptors import DescriptorStream, open_pipe
from tests.transports.pairs import HALF_CLOSING, PAIRS
from tests.transports.test_contract import LIMIT, receive_exactly

pytestmark = pytest.mark.anyio

NAMES = [name for name in PAIRS if name != "memory"]
each = pytest.mark.parametrize("name", NAMES)

_where: contextvars.ContextVar[str] = contextvars.ContextVar("where", default="elsewhere")


class Taker:
    """Takes until it has `count` bytes."""

    def __init__(self, count: int) -> None:
        self.data = bytearray()
        self.count = count

    def __call__(self, data: bytes) -> bool:
        assert data
        assert type(data) is bytes
        self.data += data
        return len(self.data) < self.count


@each
@pytest.mark.parametrize("max_bytes", [7, 4096, 1 << 18])
async def test_all_data_is_handed_over_in_order(name: str, max_bytes: int, tmp_path: Path) -> None:
    data = os.urandom(2000 if max_bytes < 100 else 1 << 18)
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, other):
            async with anyio.create_task_group() as tg:
                tg.start_soon(one.send, data)
                take = Taker(len(data))
                await other.receive_each(max_bytes, take)
            assert take.data == data
            # Again, now that the loop knows the descriptor; and what is not taken stays.
            await one.send(b"more")
            take = Taker(2)
            await other.receive_each(1, take)
            assert take.data == b"mo"
            assert await receive_exactly(other, 2) == b"re"


@each
async def test_an_answer_to_each(name: str, tmp_path: Path) -> None:
    """Both sides wait each time: what comes is handed over by whoever wakes them."""
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, other), anyio.create_task_group() as tg:
            take = Taker(300)

            async def answer() -> None:
                for number in range(100):
                    assert await receive_exactly(one, 3) == b"%03d" % number
                    await one.send(b"%03d" % (number + 1))

            async def ask() -> None:
                for number in range(100):
                    await other.send(b"%03d" % number)
                    while len(take.data) < 3 * (number + 1):
                        await checkpoint()

            tg.start_soon(answer)
            tg.start_soon(ask)
            await other.receive_each(65536, take)
            assert take.data == b"".join(b"%03d" % number for number in range(1, 101))


@pytest.mark.parametrize("name", [name for name in HALF_CLOSING if name != "memory"])
async def test_the_end_is_told(name: str, tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, other), anyio.create_task_group() as tg:
            take = Taker(1000)

            async def send() -> None:
                await one.send(b"last")
                await anyio.sleep(0.02)
                await one.send_eof()

            tg.start_soon(send)
            for _ in range(2):
                with pytest.raises(anyio.EndOfStream):
                    await other.receive_each(65536, take)
            assert take.data == b"last"


@each
@pytest.mark.parametrize("error", [ValueError, OSError, SystemExit])
async def test_what_take_raises_is_raised(name: str, error: type[BaseException], tmp_path: Path) -> None:
    """Also where an event loop has called it, which would only log it."""
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, other):
            raised = error("taken")

            def take(data: bytes) -> bool:
                raise raised

            for waits in (False, True):
                async with anyio.create_task_group() as tg:

                    async def send(delay: float) -> None:
                        await anyio.sleep(delay)
                        await one.send(b"x")
                        await one.send(b"kept")

                    tg.start_soon(send, 0.02 if waits else 0)
                    caught: BaseException | None = None
                    try:
                        await other.receive_each(1, take)
                    except error as exc:
                        caught = exc
                    assert caught is raised
                assert await receive_exactly(other, 4) == b"kept"


@each
async def test_a_cancelled_one_loses_nothing(name: str, tmp_path: Path) -> None:
    numbers = 300
    sent = b"".join(b"%06d" % number for number in range(numbers))

    async def send(stream: Any) -> None:
        for number in range(numbers):
            await stream.send(b"%06d" % number)
            if number % 7 == 0:
                await anyio.sleep(0.0005)

    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, other), anyio.create_task_group() as tg:
            tg.start_soon(send, one)
            take = Taker(len(sent))
            delay = 0.0
            while len(take.data) < len(sent):
                delay = (delay + 0.00007) % 0.0015
                with anyio.move_on_after(delay):
                    if int(delay * 1e5) % 3:
                        await other.receive_each(17, take)
                    else:
                        take(await other.receive(17))
    assert take.data == sent


@each
async def test_in_a_cancelled_scope_it_takes_nothing(name: str, tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, other):
            await one.send(b"kept")
            with anyio.CancelScope() as scope:
                scope.cancel()
                await other.receive_each(65536, Taker(1))
            assert scope.cancelled_caught
            assert await receive_exactly(other, 4) == b"kept"


@each
@pytest.mark.parametrize("by", ["another task", "take", "another task at the same time"])
async def test_closing_ends_it(name: str, by: str, tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, other), anyio.create_task_group() as tg:
            taken = anyio.Event()

            def take(data: bytes) -> bool:
                taken.set()
                if by == "take":
                    other.close()
                return True

            async def close() -> None:
                await anyio.sleep(0.02)
                await one.send(b"x")
                if by == "another task at the same time":
                    await taken.wait()
                if by != "take":
                    await other.aclose()

            tg.start_soon(close)
            with pytest.raises(anyio.ClosedResourceError):
                await other.receive_each(65536, take)


@each
async def test_one_task_at_a_time(name: str, tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, _), anyio.create_task_group() as tg:
            tg.start_soon(one.receive_each, 65536, Taker(1))
            await anyio.sleep(0.05)
            with pytest.raises(anyio.BusyResourceError):
                await one.receive()
            with pytest.raises(anyio.BusyResourceError):
                await one.receive_each(65536, Taker(1))
            tg.cancel_scope.cancel()
            with pytest.raises(ValueError, match="max_bytes"):
                await one.receive_each(0, Taker(1))


@each
async def test_take_runs_in_the_context_of_its_task(name: str, tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, other):
            seen = []

            def take(data: bytes) -> bool:
                seen.append(_where.get())
                return False

            for where in ("here", "there"):
                with anyio.move_on_after(0.02):  # the loop knows the descriptor, in another context
                    await other.receive()

                async def receive(where: str = where) -> None:
                    _where.set(where)
                    await other.receive_each(65536, take)

                async with anyio.create_task_group() as tg:
                    tg.start_soon(receive)
                    await anyio.sleep(0.02)
                    await one.send(b"x")
            assert seen == ["here", "there"]


@each
async def test_others_have_their_turn_while_it_never_waits(name: str, tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with PAIRS[name](tmp_path) as (one, other), anyio.create_task_group() as tg:
            turns = taken = 0

            async def fill() -> None:
                while True:
                    await one.send(bytes(65536))

            async def count() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await checkpoint()

            def take(data: bytes) -> bool:
                nonlocal taken
                taken += 1
                return taken < 200

            tg.start_soon(fill)
            tg.start_soon(count)
            await other.receive_each(4096, take)
            tg.cancel_scope.cancel()
            assert turns > 20


@pytest.mark.parametrize("later", [b"after", b""])
@pytest.mark.parametrize("waiting", [True, False])
async def test_the_end_can_come_while_others_hold_the_pipe(waiting: bool, later: bytes) -> None:
    read_fd, write_fd = open_pipe()
    null = os.open(os.devnull, os.O_WRONLY)
    with anyio.fail_after(LIMIT):
        async with DescriptorStream(read_fd, null, inherited=False) as stream:
            take = Taker(1000)

            async def read() -> None:
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive_each(65536, take)

            async with anyio.create_task_group() as tg:
                if waiting:
                    tg.start_soon(read)
                    await anyio.sleep(0.05)
                os.write(write_fd, b"before")
                stream.receiver.finish()
                os.write(write_fd, later)
                if not waiting:
                    tg.start_soon(read)
            assert take.data == b"before"
    os.close(write_fd)


def test_anyio_knows_the_loop_where_anyio_did_not_start_it() -> None:
    """Under plain `asyncio.run` too: what is taken may need events and scopes."""
    made: list[Any] = []

    def take(data: bytes) -> bool:
        made.append((asyncio.current_task(), anyio.Event(), anyio.CancelScope()))
        return len(made) < 2

    async def main() -> None:
        read_fd, write_fd = open_pipe()
        stream = DescriptorStream(read_fd, write_fd, inherited=False)
        async with stream, asyncio.timeout(LIMIT):
            reading = asyncio.create_task(stream.receive_each(100, take))
            for number in (1, 2):
                stream.send_nowait(b"x")
                while len(made) < number:
                    await asyncio.sleep(0)
            await reading

    asyncio.run(main())
    assert len(made) == 2
    assert made[1][0] is None, "the loop itself called"
