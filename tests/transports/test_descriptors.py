"""Descriptors that others share are left as they are; what is opened is closed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import pty
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tty
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from kkrpc_py.transports import descriptors
from kkrpc_py.transports.descriptors import PIPE_BYTES, DescriptorStream, enlarge_pipe, open_pipe
from tests.transports.pairs import open_descriptors

pytestmark = pytest.mark.anyio

LIMIT = 30


def flags(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETFL)


def null_writer() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def null_reader() -> int:
    return os.open(os.devnull, os.O_RDONLY)


async def settle(condition: Callable[[], bool]) -> None:
    """Wait for what threads do on their way out."""
    while not condition():
        await anyio.sleep(0.005)


def pipe_ends() -> tuple[int, int]:
    return open_pipe()


def socket_ends() -> tuple[int, int]:
    one, other = socket.socketpair()
    return one.detach(), other.detach()


def terminal_ends() -> tuple[int, int]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    return slave, master


@pytest.mark.parametrize("make", [pipe_ends, socket_ends, terminal_ends])
async def test_the_flags_of_an_inherited_reading_end_stay(make: Callable[[], tuple[int, int]]) -> None:
    """The neighbour is a descriptor of the same open file, as a shell or the parent has one."""
    fd, peer = make()
    neighbour = os.dup(fd)
    before = flags(neighbour)
    with anyio.fail_after(LIMIT):
        async with DescriptorStream(fd, null_writer()) as stream:
            with anyio.move_on_after(0.05):
                await stream.receive()
            os.write(peer, b"hello")
            assert await stream.receive() == b"hello"
            with anyio.move_on_after(0.05):
                await stream.receive()
            assert flags(neighbour) == before
        assert not before & os.O_NONBLOCK
        assert flags(neighbour) == before
    # It is still of use to the neighbour.
    os.write(peer, b"later")
    assert os.read(neighbour, 10) == b"later"
    for each in (neighbour, peer):
        os.close(each)


@pytest.mark.parametrize("make", [pipe_ends, socket_ends, terminal_ends])
async def test_the_flags_of_an_inherited_writing_end_stay(make: Callable[[], tuple[int, int]]) -> None:
    if make is pipe_ends:
        peer, fd = make()
    else:
        fd, peer = make()
    neighbour = os.dup(fd)
    before = flags(neighbour)
    with anyio.fail_after(LIMIT):
        async with DescriptorStream(null_reader(), fd) as stream:
            with anyio.move_on_after(0.1) as scope:
                while True:
                    await stream.send(bytes(65536))
            assert scope.cancelled_caught
            assert flags(neighbour) == before
        assert not before & os.O_NONBLOCK
        assert flags(neighbour) == before
    os.close(peer)
    os.close(neighbour)


async def test_a_neighbours_output_on_a_full_pipe_is_not_lost() -> None:
    """Somebody else writes, blocking, to the pipe that the stream fills."""
    read_fd, write_fd = open_pipe()
    code = "import os\nfor _ in range(200): assert os.write(1, b'n' * 10000) == 10000"
    with anyio.fail_after(LIMIT):
        async with DescriptorStream(null_reader(), os.dup(write_fd)) as stream:
            neighbour = subprocess.Popen([sys.executable, "-S", "-E", "-c", code], stdout=write_fd)
            os.close(write_fd)
            async with anyio.create_task_group() as tg, DescriptorStream(read_fd, null_writer()) as reading:
                tg.start_soon(stream.send, b"s" * 2_000_000)
                counts = {"n": 0, "s": 0}
                while sum(counts.values()) < 4_000_000:
                    data = await reading.receive(1 << 20)
                    for letter in counts:
                        counts[letter] += data.count(letter.encode())
            assert await anyio.to_thread.run_sync(neighbour.wait) == 0
    assert counts == {"n": 2_000_000, "s": 2_000_000}


async def test_a_socket_whose_neighbour_is_non_blocking() -> None:
    """Somebody else set the flag: it is not ours to clear, and does not harm."""
    one, other = socket.socketpair()
    other.setblocking(False)
    with anyio.fail_after(LIMIT):
        async with DescriptorStream(os.dup(other.fileno()), null_writer()) as stream:
            one.send(b"hello")
            assert await stream.receive() == b"hello"
        assert flags(other.fileno()) & os.O_NONBLOCK
    one.close()
    other.close()


@pytest.mark.parametrize("make", [pipe_ends, terminal_ends])
async def test_threads_bear_a_non_blocking_descriptor(
    make: Callable[[], tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "_reopen", lambda fd, access: None)
    fd, peer = make()
    os.set_blocking(fd, False)
    with anyio.fail_after(LIMIT):
        async with DescriptorStream(fd, null_writer()) as stream, anyio.create_task_group() as tg:
            received = []

            async def receive() -> None:
                received.append(await stream.receive())

            tg.start_soon(receive)
            await anyio.sleep(0.05)
            os.write(peer, b"hello")
        assert received == [b"hello"]
    os.close(peer)


async def test_sockets_are_adopted_whatever_the_default_timeout() -> None:
    fd, peer = socket_ends()
    neighbour = os.dup(fd)
    socket.setdefaulttimeout(5)
    try:
        async with DescriptorStream(fd, fd):
            assert not flags(neighbour) & os.O_NONBLOCK
        assert socket.getdefaulttimeout() == 5
    finally:
        socket.setdefaulttimeout(None)
    os.close(neighbour)
    os.close(peer)


async def test_files_and_the_null_device() -> None:
    with anyio.fail_after(LIMIT), tempfile.TemporaryFile() as file:
        file.write(b"x" * 100_000)
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        received = b""
        async with DescriptorStream(os.dup(file.fileno()), null_writer()) as stream:
            await stream.send(b"into nothing")
            with pytest.raises(anyio.EndOfStream):
                while True:
                    received += await stream.receive()
        assert received == b"x" * 100_000
        async with DescriptorStream(null_reader(), os.dup(file.fileno())) as stream:
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
            await stream.send(b"y" * 100_000)
        assert os.fstat(file.fileno()).st_size == 200_000


async def test_a_full_disk_is_a_broken_stream() -> None:
    with anyio.fail_after(LIMIT):
        async with DescriptorStream(null_reader(), os.open("/dev/full", os.O_WRONLY)) as stream:
            with pytest.raises(anyio.BrokenResourceError):
                await stream.send(b"x")


async def test_a_directory_is_a_broken_stream() -> None:
    with anyio.fail_after(LIMIT):
        async with DescriptorStream(os.open("/", os.O_RDONLY), null_writer()) as stream:
            with pytest.raises(anyio.BrokenResourceError):
                await stream.receive()


async def test_a_reset_connection_is_a_broken_stream() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as peer:
        peer.connect(server.getsockname())
        connection = server.accept()[0]
        async with DescriptorStream(connection.detach(), null_writer()) as stream:
            with anyio.fail_after(LIMIT):
                async with anyio.create_task_group() as tg:

                    async def receive() -> None:
                        with pytest.raises(anyio.BrokenResourceError):
                            await stream.receive()

                    tg.start_soon(receive)
                    await anyio.sleep(0.05)
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    peer.close()


async def test_a_write_leaves_no_line_end_alone() -> None:
    """A stock peer drops a read of white space only (FRM-10): no write may end just before one."""
    page = os.sysconf("SC_PAGE_SIZE")
    for make in (pipe_ends, socket_ends):
        for length in (page + 1, page + 2, 16 * page + 1, 64 * page + 1, 300 * page + 1, 36544 * 3 + 1):
            line = b"x" * (length - 1) + b"\n"
            with anyio.fail_after(LIMIT):
                read_fd, write_fd = make()
                async with DescriptorStream(null_reader(), write_fd) as stream:
                    for already in (0, 1, 100, page - 1):
                        count = stream.send_nowait(b"y" * already)
                        assert count == already
                        taken = stream.send_nowait(line)
                        assert taken == length or taken < length - 16
                        async with anyio.create_task_group() as tg:
                            tg.start_soon(stream.send, line[taken:])
                            missing = already + length
                            while missing:
                                await anyio.wait_readable(read_fd)
                                missing -= len(os.read(read_fd, min(missing, 65536)))
                os.close(read_fd)


async def test_a_pipe_is_enlarged_and_never_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("no other system can")
    read_fd, write_fd = open_pipe()
    async with DescriptorStream(read_fd, null_writer(), inherited=False, enlarge="read"):
        assert fcntl.fcntl(write_fd, fcntl.F_GETPIPE_SZ) == PIPE_BYTES
    os.close(write_fd)
    read_fd, write_fd = open_pipe()
    async with DescriptorStream(null_reader(), write_fd, enlarge="write"):
        assert fcntl.fcntl(read_fd, fcntl.F_GETPIPE_SZ) == PIPE_BYTES
        monkeypatch.setattr(descriptors, "PIPE_BYTES", 65536)
        enlarge_pipe(read_fd)
        assert fcntl.fcntl(read_fd, fcntl.F_GETPIPE_SZ) == PIPE_BYTES
    with tempfile.TemporaryFile() as file:
        enlarge_pipe(file.fileno())
    os.close(read_fd)


async def test_all_descriptors_and_threads_are_given_back() -> None:
    """Closed idle, closed while waiting, closed with data on the way."""
    with anyio.fail_after(LIMIT):
        async with DescriptorStream(null_reader(), null_writer()) as warm_up:
            with pytest.raises(anyio.EndOfStream):
                await warm_up.receive()
        await settle(lambda: not [t for t in threading.enumerate() if t.name.startswith("kkrpc_py")])
        before = open_descriptors()
        for make in (pipe_ends, socket_ends, terminal_ends):
            for used in (False, True):
                fd, peer = make()
                write_fd = null_writer() if make is pipe_ends else fd
                async with DescriptorStream(fd, write_fd, inherited=True) as stream:
                    if used:
                        os.write(peer, b"hello")
                        assert await stream.receive(2) == b"he"
                        with anyio.move_on_after(0.02):
                            await stream.send(bytes(1 << 20))
                        with anyio.move_on_after(0.02):
                            while True:
                                await stream.receive()
                os.close(peer)
        await settle(lambda: open_descriptors() == before)
        await settle(lambda: not [t for t in threading.enumerate() if t.name.startswith("kkrpc_py")])


async def test_nothing_stays_open_if_a_stream_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> Any:
        raise OSError("no more descriptors")

    before = open_descriptors()
    fds = open_pipe()
    monkeypatch.setattr(descriptors, "_inherited_writer", fail)
    with pytest.raises(OSError, match="no more"):
        DescriptorStream(*fds)
    monkeypatch.setattr(descriptors, "_inherited_reader", fail)
    one, other = socket.socketpair()
    with pytest.raises(OSError, match="no more"):
        DescriptorStream(one.fileno(), one.detach())
    other.close()
    assert open_descriptors() == before


@pytest.mark.parametrize("later", [b"after", b""])
@pytest.mark.parametrize("max_bytes", [2, 65536])
async def test_the_end_can_come_while_others_hold_the_pipe(max_bytes: int, later: bytes) -> None:
    for waiting in (False, True):
        read_fd, write_fd = open_pipe()
        with anyio.fail_after(LIMIT):
            async with DescriptorStream(read_fd, null_writer(), inherited=False) as stream:
                received = b""

                async def read() -> None:
                    nonlocal received
                    with pytest.raises(anyio.EndOfStream):
                        while True:
                            received += await stream.receive(max_bytes)

                async with anyio.create_task_group() as tg:
                    if waiting:
                        tg.start_soon(read)
                        await anyio.sleep(0.05)
                    os.write(write_fd, b"before")
                    stream.receiver.finish()
                    stream.receiver.finish()
                    os.write(write_fd, later)
                    if not waiting:
                        tg.start_soon(read)
                assert received == b"before"
            stream.receiver.finish()
        os.close(write_fd)


async def test_the_end_can_come_after_a_read_that_took_all_there_was() -> None:
    read_fd, write_fd = open_pipe()
    with anyio.fail_after(LIMIT):
        async with DescriptorStream(read_fd, null_writer(), inherited=False) as stream:
            async with anyio.create_task_group() as tg:
                tg.start_soon(stream.receive)  # waits, so that the loop knows the pipe from now on
                await anyio.sleep(0.05)
                os.write(write_fd, b"one")
            os.write(write_fd, b"two")
            assert await stream.receive() == b"two"
            stream.receiver.finish()
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
    os.close(write_fd)


async def test_what_nobody_receives_keeps_no_loop_busy() -> None:
    for make in (pipe_ends, socket_ends):
        fd, peer = make()
        with anyio.fail_after(LIMIT):
            async with DescriptorStream(fd, null_writer()) as stream:
                with anyio.move_on_after(0.02):
                    await stream.receive()
                os.write(peer, b"later")
                used = time.process_time()
                await anyio.sleep(0.4)
                assert time.process_time() - used < 0.2
                assert await stream.receive() == b"later"
        os.close(peer)


async def test_task_cancel_of_asyncio_loses_nothing(anyio_backend_name: str) -> None:
    """A shield of anyio holds up no `task.cancel()`, which comes where the data is already read."""
    if anyio_backend_name != "asyncio":
        pytest.skip("asyncio's own cancellation")
    numbers = 2000
    read_fd, write_fd = open_pipe()
    received = b""
    async with DescriptorStream(read_fd, write_fd, inherited=False) as stream:
        for number in range(numbers):
            await stream.send(b"%06d" % number)
        for turn in itertools.count():
            if len(received) == 6 * numbers:
                break
            task = asyncio.ensure_future(stream.receive(5))
            for _ in range(turn % 4):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                received += await task
    assert received == b"".join(b"%06d" % number for number in range(numbers))


async def test_a_cancelled_send_through_a_thread_cuts_no_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "_reopen", lambda fd, access: None)
    read_fd, write_fd = open_pipe()
    with anyio.fail_after(LIMIT):
        async with DescriptorStream(read_fd, write_fd) as stream:
            for _ in range(2):
                with anyio.move_on_after(0.02) as scope:
                    await stream.send(b"a" * 200_000)
                if scope.cancelled_caught:
                    break
            received = b""
            async with anyio.create_task_group() as tg:
                tg.start_soon(stream.send, b"b" * 10)
                while not received.endswith(b"b" * 10):
                    received += await stream.receive()
    assert received == b"a" * 200_000 + b"b" * 10


def test_an_open_pipe_is_none_of_the_standard_descriptors() -> None:
    code = (
        "import os; from kkrpc_py.transports.descriptors import open_pipe\n"
        "os.close(0); os.close(1)\n"
        "ends = open_pipe(); assert min(ends) > 2 and not any(map(os.get_inheritable, ends)), ends\n"
        "for fd in (0, 1):\n"
        "    try: os.fstat(fd)\n"
        "    except OSError: continue\n"
        "    raise SystemExit(f'{fd} is open')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LIMIT)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_thread_that_waits_does_not_hold_up_the_exit(backend: str) -> None:
    """A read of a terminal that never comes, a write that nobody takes."""
    code = f"""
import anyio, os, pty, tty
from kkrpc_py.transports.descriptors import DescriptorStream
master, slave = pty.openpty()
tty.setraw(slave)
stream = DescriptorStream(slave, slave)
async def main():
    with anyio.move_on_after(0.1):
        await stream.receive()
    with anyio.move_on_after(0.1):
        await stream.send(bytes(1 << 20))
anyio.run(main, backend={backend!r})
print("done", flush=True)
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, timeout=10, check=True
    )
    assert result.stdout == b"done\n"
    assert result.stderr == b""


def test_a_pipe_of_another_user_is_served_by_threads() -> None:
    """It cannot be reopened: the flags must stay all the same."""
    if os.geteuid() != 0:
        pytest.skip("needs to become another user")
    code = """
import anyio, fcntl, os, threading
from kkrpc_py.transports.descriptors import DescriptorStream
async def main():
    os.setgid(65534); os.setuid(65534)  # who may not be allowed to read the modules that anyio.run imports
    async with DescriptorStream(os.dup(0), os.dup(1)) as stream:
        while True:
            try:
                data = await stream.receive()
            except anyio.EndOfStream:
                return
            assert any(thread.name.startswith("kkrpc_py") for thread in threading.enumerate())
            await stream.send(data)
            assert not any(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK for fd in (0, 1))
anyio.run(main)
"""
    data = os.urandom(300_000)
    # The other user may not write the data of a measurement of coverage.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    result = subprocess.run(
        [sys.executable, "-c", code], input=data, capture_output=True, timeout=LIMIT, env=env
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == data
