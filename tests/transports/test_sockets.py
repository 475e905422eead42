"""Connecting and listening: addresses, the socket file, TLS, and clients that misbehave."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import resource
import socket
import ssl
import stat
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute

from kkrpc_py.transports import sockets
from kkrpc_py.transports.sockets import connect_tcp, connect_unix, listen_tcp, listen_unix
from tests.transports.pairs import open_descriptors

pytestmark = pytest.mark.anyio

LIMIT = 30


async def echo(stream: ByteStream) -> None:
    try:
        while True:
            await stream.send(await stream.receive())
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        pass


async def ask(stream: Any) -> None:
    async with stream:
        await stream.send(b"hello")
        assert await stream.receive() == b"hello"


async def test_a_tcp_server() -> None:
    before = open_descriptors()
    with anyio.fail_after(LIMIT):
        async with listen_tcp("127.0.0.1", 0) as server, anyio.create_task_group() as tg:
            tg.start_soon(server.serve, echo)
            [address] = server.addresses
            for _ in range(3):
                await ask(await connect_tcp(*address))
            tg.cancel_scope.cancel()
        with pytest.raises(OSError):
            await connect_tcp(*address)
    assert open_descriptors() <= before


async def test_small_frames_are_not_held_back() -> None:
    """TCP_NODELAY on both sides."""
    delays = []

    async def handler(stream: ByteStream) -> None:
        delays.append(nodelay(stream))
        await stream.send(b"x")

    def nodelay(stream: Any) -> int:
        with socket.socket(fileno=os.dup(stream.receiver._reader._socket.fileno())) as same:
            return same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    with anyio.fail_after(LIMIT):
        async with listen_tcp("localhost", 0) as server, anyio.create_task_group() as tg:
            tg.start_soon(server.serve, handler)
            stream = await connect_tcp(*server.addresses[0][:2])
            assert await stream.receive() == b"x"
            delays.append(nodelay(stream))
            assert stream.extra(SocketAttribute.remote_address) == server.addresses[0]
            await stream.aclose()
            tg.cancel_scope.cancel()
    assert all(delays)
    assert len(delays) == 2


async def test_one_port_for_every_address_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(host: str, port: int, flags: int = 0) -> list[Any]:
        return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET, ("127.0.0.2", port))]

    monkeypatch.setattr(sockets, "_resolve", resolve)
    with anyio.fail_after(LIMIT):
        async with listen_tcp("both", 0) as server, anyio.create_task_group() as tg:
            tg.start_soon(server.serve, echo)
            (host_a, port_a), (host_b, port_b) = server.addresses
            assert (host_a, host_b) == ("127.0.0.1", "127.0.0.2")
            assert port_a == port_b
            monkeypatch.undo()
            for host in (host_a, host_b):
                await ask(await connect_tcp(host, port_a))
            tg.cancel_scope.cancel()


async def test_the_address_that_answers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused at the first, no answer from the second."""
    monkeypatch.setattr(sockets, "NEXT_ADDRESS_SECONDS", 0.05)
    with anyio.fail_after(LIMIT), socket.socket() as refusing, socket.socket() as silent:
        refusing.bind(("127.0.0.1", 0))
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        queue = [socket.socket() for _ in range(3)]  # fills the silent one's
        for each in queue:
            each.setblocking(False)
            each.connect_ex(silent.getsockname())
        async with listen_tcp("127.0.0.1", 0) as server, anyio.create_task_group() as tg:
            tg.start_soon(server.serve, echo)
            addresses = [refusing.getsockname(), silent.getsockname(), *server.addresses]

            async def resolve(host: str, port: int, flags: int = 0) -> list[Any]:
                return [(socket.AF_INET, address) for address in addresses]

            monkeypatch.setattr(sockets, "_resolve", resolve)
            before = open_descriptors()
            await ask(await connect_tcp("host", 1))
            while not open_descriptors() <= before:  # the server's side closes too
                await anyio.sleep(0.005)
            addresses[1:] = []
            with pytest.raises(ConnectionRefusedError):
                await connect_tcp("host", 1)
            tg.cancel_scope.cancel()
        for each in queue:
            each.close()


async def test_there_is_no_default_host() -> None:
    with pytest.raises(ValueError, match="named"):
        async with listen_tcp("", 0):
            pytest.fail("it listened")


async def test_an_address_in_use() -> None:
    with anyio.fail_after(LIMIT):
        async with listen_tcp("127.0.0.1", 0) as server:
            with pytest.raises(OSError) as caught:
                async with listen_tcp(*server.addresses[0]):
                    pytest.fail("it listened")
            assert caught.value.errno == errno.EADDRINUSE


async def test_a_unix_server_and_its_file(tmp_path: Path) -> None:
    before = open_descriptors()
    path = tmp_path / "socket"
    with anyio.fail_after(LIMIT):
        for mode in (0o600, 0o660):
            async with listen_unix(path, mode=mode) as server, anyio.create_task_group() as tg:
                assert server.addresses == [str(path)]
                assert stat.S_IMODE(path.stat().st_mode) == mode
                tg.start_soon(server.serve, echo)
                await ask(await connect_unix(path))
                tg.cancel_scope.cancel()
            assert not path.exists()
        with pytest.raises(FileNotFoundError):
            await connect_unix(path)
    assert open_descriptors() <= before


async def test_a_unix_socket_holds_more_than_usual(tmp_path: Path) -> None:
    """With the usual size both sides wait for each other at each large frame."""

    def held(send: Any) -> int:
        count = 0
        while taken := send(bytes(16_384)):
            count += taken
        return count

    def send_raw(data: bytes) -> int:
        try:
            return one.send(data)
        except BlockingIOError:
            return 0

    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        usual = held(send_raw)
    with anyio.fail_after(LIMIT):
        async with listen_unix(tmp_path / "socket") as server, anyio.create_task_group() as tg:
            finished = anyio.Event()

            async def hold(stream: Any) -> None:
                async with stream:
                    assert held(stream.send_nowait) > 1.5 * usual
                    await finished.wait()

            tg.start_soon(server.serve, hold)
            stream: Any = await connect_unix(tmp_path / "socket")
            async with stream:
                assert held(stream.send_nowait) > 1.5 * usual
                finished.set()
            tg.cancel_scope.cancel()


async def test_a_dead_servers_file_is_replaced_and_a_live_ones_not(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with anyio.fail_after(LIMIT):
        with pytest.raises(ConnectionRefusedError):
            await connect_unix(path)
        async with listen_unix(path) as server, anyio.create_task_group() as tg:
            tg.start_soon(server.serve, echo)
            with pytest.raises(OSError) as caught:
                async with listen_unix(path):
                    pytest.fail("it took a live server's place")
            assert caught.value.errno == errno.EADDRINUSE
            await ask(await connect_unix(path))
            tg.cancel_scope.cancel()


async def test_a_live_server_with_a_full_queue_is_alive(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with anyio.fail_after(LIMIT), socket.socket(socket.AF_UNIX) as full:
        full.bind(str(path))
        full.listen(0)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(str(path))
        with pytest.raises(OSError) as caught:
            async with listen_unix(path):
                pytest.fail("it took a live server's place")
        assert caught.value.errno == errno.EADDRINUSE
        with pytest.raises(BlockingIOError):
            await connect_unix(path)
        for client in clients:
            client.close()


async def test_other_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    (tmp_path / "link").symlink_to(path)
    for each in (path, tmp_path / "link"):
        with pytest.raises(FileExistsError):
            async with listen_unix(each):
                pytest.fail("it listened")
    assert path.read_text() == "data"
    with pytest.raises(FileNotFoundError):
        async with listen_unix(tmp_path / "missing" / "socket"):
            pytest.fail("it listened")


async def test_a_successors_file_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with anyio.fail_after(LIMIT):
        async with listen_unix(path):
            path.unlink()
            with socket.socket(socket.AF_UNIX) as successor:
                successor.bind(str(path))
        assert path.exists()
        async with listen_unix(path):
            path.unlink()


async def test_of_servers_that_start_at_once_one_gets_the_place(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    outcomes: list[str] = []

    async def start(tried: anyio.Event) -> None:
        try:
            async with listen_unix(path) as server:
                outcomes.append("listening")
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as tg:
                        tg.start_soon(server.serve, echo)
                        while len(outcomes) < 5:
                            await anyio.sleep(0.005)
                        await ask(await connect_unix(path))
                        scope.cancel()
        except OSError as exc:
            assert exc.errno == errno.EADDRINUSE
            outcomes.append("in use")

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tg:
            for _ in range(5):
                tg.start_soon(start, anyio.Event())
    assert sorted(outcomes) == ["in use"] * 4 + ["listening"]


async def test_another_servers_start_is_waited_for(tmp_path: Path) -> None:
    """It may be between finding a dead socket and putting its own in place."""
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    done = anyio.Event()

    async def start() -> None:
        async with listen_unix(tmp_path / "socket"):
            await done.wait()

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tg:
            tg.start_soon(start)
            await anyio.sleep(0.1)
            assert not (tmp_path / "socket").exists()
            os.close(other)
            while not (tmp_path / "socket").exists():
                await anyio.sleep(0.005)
            done.set()


async def test_a_failing_connection_concerns_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(stream: ByteStream) -> None:
        if await stream.receive() == b"fail":
            raise RuntimeError("a mistake in the handler")
        await stream.send(b"hello")

    path = tmp_path / "socket"
    with anyio.fail_after(LIMIT):
        async with listen_unix(path) as server, anyio.create_task_group() as tg:
            tg.start_soon(server.serve, handler)
            failing = await connect_unix(path)
            await failing.send(b"fail")
            with pytest.raises(anyio.EndOfStream):
                await failing.receive()
            await failing.aclose()
            await ask(await connect_unix(path))
            tg.cancel_scope.cancel()
    assert "a mistake in the handler" in caplog.text


async def test_out_of_descriptors_the_server_waits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "RETRY_SECONDS", 0.02)
    path = tmp_path / "socket"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with anyio.fail_after(LIMIT):
        async with listen_unix(path) as server, anyio.create_task_group() as tg:
            with socket.socket(socket.AF_UNIX) as client:
                lowest = os.open(os.devnull, os.O_RDONLY)
                os.close(lowest)
                client.connect(str(path))
                resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
                try:
                    tg.start_soon(server.serve, echo)
                    while "cannot accept" not in caplog.text:
                        await anyio.sleep(0.005)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                client.send(b"hello")
                client.settimeout(0.005)
                received = b""
                while not received:
                    await anyio.sleep(0.01)
                    try:
                        received = client.recv(10)
                    except TimeoutError:
                        continue
                assert received == b"hello"
            tg.cancel_scope.cancel()


async def test_a_client_that_is_gone_before_it_is_accepted() -> None:
    with anyio.fail_after(LIMIT):
        async with listen_tcp("127.0.0.1", 0) as server, anyio.create_task_group() as tg:
            for _ in range(20):
                with socket.create_connection(server.addresses[0]) as client:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            tg.start_soon(server.serve, echo)
            await ask(await connect_tcp(*server.addresses[0]))
            tg.cancel_scope.cancel()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout - -out -"
    )
    try:
        made = subprocess.run(command.split(), capture_output=True, check=True)
    except OSError:
        pytest.skip("no openssl to make a certificate with")
    path.write_bytes(made.stdout)
    return path


async def test_tls(certificate: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = open_descriptors()
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=str(certificate))
    with anyio.fail_after(LIMIT):
        async with listen_tcp("127.0.0.1", 0, ssl_context=serving) as server, anyio.create_task_group() as tg:
            tg.start_soon(server.serve, echo)
            port = server.addresses[0][1]
            await ask(await connect_tcp("localhost", port, ssl_context=trusting))
            with pytest.raises(OSError):
                await connect_tcp("127.0.0.1", port, ssl_context=ssl.create_default_context())
            plain = await connect_tcp("127.0.0.1", port)
            await plain.send(b"this is no handshake")
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                while True:
                    await plain.receive()
            await plain.aclose()
            await ask(await connect_tcp("127.0.0.1", port, ssl_context=trusting))
            tg.cancel_scope.cancel()
    assert "a connection failed" in caplog.text
    assert open_descriptors() <= before


async def test_a_cancellation_that_nobody_asked_for(
    anyio_backend_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that awaits what somebody else has cancelled ends its connection, not the server."""
    if anyio_backend_name != "asyncio":
        pytest.skip("trio has no such thing")
    calls = 0

    async def handler(stream: ByteStream) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            cancelled = asyncio.get_running_loop().create_future()
            cancelled.cancel()
            await cancelled
        await echo(stream)

    with anyio.fail_after(LIMIT):
        async with listen_tcp("127.0.0.1", 0) as server, anyio.create_task_group() as tg:
            tg.start_soon(server.serve, handler)
            async with await connect_tcp(*server.addresses[0]) as stream:
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()
            await ask(await connect_tcp(*server.addresses[0]))
            tg.cancel_scope.cancel()
    assert "a connection failed" in caplog.text


@pytest.mark.parametrize("data", [b"", b"last words"])
@pytest.mark.parametrize("waiting", [False, True])
async def test_a_reset_is_noticed_whenever_it_comes(data: bytes, waiting: bool) -> None:
    """Also between two receives, and together with data that is read first."""
    received: list[bytes] = []
    ready, go, over = anyio.Event(), anyio.Event(), anyio.Event()

    async def handler(stream: ByteStream) -> None:
        received.append(await stream.receive())
        ready.set()
        if not waiting:
            await go.wait()
        with pytest.raises(anyio.BrokenResourceError):
            while True:
                received.append(await stream.receive())
        over.set()

    with anyio.fail_after(LIMIT):
        async with listen_tcp("127.0.0.1", 0) as server, anyio.create_task_group() as tg:
            tg.start_soon(server.serve, handler)
            with socket.create_connection(server.addresses[0][:2]) as client:
                await anyio.sleep(0.05)
                client.send(b"first words")
                await ready.wait()
                await anyio.sleep(0.05)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.send(data)
            await anyio.sleep(0.05)
            go.set()
            await over.wait()
            tg.cancel_scope.cancel()
    assert b"".join(received) == b"first words" + data
