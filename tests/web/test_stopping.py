"""A server that is stopped by a signal while streams are open: they end, and so does it (SSE-6, ACT-8)."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import Process
from anyio.lowlevel import checkpoint
from anyio.streams.text import TextReceiveStream

from kkrpc_py.web.app import asgi_app
from kkrpc_py.web.streams import Streams, Visit
from tests.web import backends
from tests.web.raw import connected, post, unread
from tests.web.servers import serving
from tests.web.site import BOUND, Site, streams_of

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="no signals that a process could catch"),
]
ROOT = Path(__file__).resolve().parents[2]
server, under, anyio_backend = backends.server, backends.under, backends.anyio_backend


class Child:
    def __init__(self, process: Process, url: str, lines: AsyncIterator[str]) -> None:
        self.process = process
        self.url = url
        self.lines = lines
        self.errors = ""


@contextlib.asynccontextmanager
async def child(under: str) -> AsyncIterator[Child]:
    command = [sys.executable, "-W", "error", "-m", "tests.web.stopped_server", under]
    with anyio.fail_after(BOUND):
        async with await anyio.open_process(command, cwd=ROOT) as process, anyio.create_task_group() as tasks:
            assert process.stdout is not None
            assert process.stderr is not None
            lines = lines_of(TextReceiveStream(process.stdout))
            found = Child(process, f"http://127.0.0.1:{await anext(lines)}", lines)

            async def collect() -> None:
                assert process.stderr is not None
                async for text in TextReceiveStream(process.stderr):
                    found.errors += text

            tasks.start_soon(collect)
            try:
                yield found
            finally:
                if process.returncode is None:
                    process.kill()
                await lines.aclose()


async def lines_of(stream: TextReceiveStream) -> Any:
    text = ""
    async for part in stream:
        *whole, text = (text + part).split("\n")
        for line in whole:
            yield line


@pytest.mark.parametrize(
    "under_", ["uvicorn", "hypercorn-trio", pytest.param("hypercorn-asyncio", marks=pytest.mark.slow)]
)
async def test_streams_end_with_the_server(under_: str, server: str) -> None:
    """What was sent has come, without `done`; each handler was told, then cancelled; nothing warns."""
    if server != "uvicorn":
        pytest.skip("once is enough: the server runs in another process")
    async with child(under_) as found:
        async with connected(found.url) as plain, connected(found.url) as kept:
            async with connected(found.url) as away:
                await away.send(post("/actions/kept", 1))
                assert await away.begun() == 200
                await away.until(b"here")
            for http, path in ((plain, "/actions/plain"), (kept, "/actions/kept")):
                await http.send(post(path, 2))
                assert await http.begun() == 200
                await http.until(b"here")
            with anyio.fail_after(5):
                found.process.send_signal(signal.SIGTERM)
                for http in (plain, kept):
                    body = await http.whole()
                    assert body.endswith(b'data: "here"\n\n')
                    assert http.ended == (under_ == "uvicorn")  # hypercorn cancels what runs, and closes
                said = [line async for line in found.lines]
                code = await found.process.wait()
        assert code in (0, -signal.SIGTERM)
        for name in ("plain", "kept-1", "kept-2"):
            words = [line.split()[1] for line in said if line.startswith(f"{name} ")]
            assert words == ["signal", "cleaned"]
        if under_ != "hypercorn-asyncio":  # Python 3.11 says something itself when it cancels connections
            assert found.errors == ""


async def test_a_client_that_does_not_read_does_not_hold_up_its_handler(server: str) -> None:
    """Uvicorn itself waits for its connection, for `timeout_graceful_shutdown` seconds."""
    if server != "uvicorn":
        pytest.skip("once is enough: the server runs in another process")
    async with child("uvicorn") as found:
        with unread(found.url, post("/actions/flood")):
            assert await anext(found.lines) == "flood began"
            await anyio.sleep(0.3)
            found.process.send_signal(signal.SIGTERM)
            with anyio.fail_after(3):
                assert await anext(found.lines) == "flood cleaned"


async def test_streams_can_be_ended_by_hand(server: str) -> None:
    """For a server that tells nobody that it stops: those that are open, and those that come later."""
    site = Site()
    async with site.served(server) as url:
        assert site.streams is not None
        async with connected(url) as http:
            await http.send(post("/actions/forever", {"key": "a"}))
            assert await http.begun() == 200
            await http.until(b"data: 2\n\n")
            site.streams.end()
            body = await http.whole()
            assert http.ended
            assert b"done" not in body
        assert site.watch.seen["a"] == ["began", "signal", "cancelled", "ended"]
        async with connected(url) as http:
            await http.send(post("/actions/forever", {"key": "b"}))
            assert await http.begun() == 200
            assert b"done" not in await http.whole()
            assert http.ended


async def test_an_application_may_be_served_again(server: str) -> None:
    site = Site()
    app = site.app()
    with anyio.fail_after(BOUND):
        for _ in range(2):
            async with serving(app, server=server) as url, connected(url) as http:
                await http.send(post("/actions/ask", {"text": "x"}))
                assert await http.begun() == 200
                assert (await http.whole()).endswith(b"event: done\ndata: {}\n\n")
    assert len(streams_of(app)) == 0


def test_nothing_of_sse_starlette_watches_the_server() -> None:
    """Its own task, which nobody would wait for, is never begun."""
    from sse_starlette.sse import _get_shutdown_state

    asgi_app(actions=[])
    assert not _get_shutdown_state().watcher_started


async def test_who_does_not_read_is_cut_when_uvicorn_stops(
    monkeypatch: pytest.MonkeyPatch, anyio_backend: Any
) -> None:
    """What was sent has its time to go out; then the request is over, whether or not its client takes it."""

    class Uvicorn:
        should_exit = False

        def handle_exit(self, number: int, frame: Any) -> None: ...

    monkeypatch.setattr("kkrpc_py.web.streams._END_SECONDS", 0.05)
    uvicorn, told = Uvicorn(), []
    before = signal.signal(signal.SIGTERM, uvicorn.handle_exit)
    try:
        streams, visit, cut = Streams(1, 1.0), Visit(), anyio.Event()
        visit.stop = cut.set
        with anyio.fail_after(5):
            async with streams.lifespan(None):
                await checkpoint()
                streams.opens(visit, lambda: told.append(cut.is_set()))
                uvicorn.should_exit = True
                await cut.wait()
        assert told[0] is False
    finally:
        signal.signal(signal.SIGTERM, before)
