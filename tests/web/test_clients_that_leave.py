"""Clients that go away, at any time, and those that do not read (ACT-8, ACT-9, SSE-6, SSE-10)."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from kkrpc_py.web.outlet import HIGH_WATER
from tests.web.backends import anyio_backend, server, under
from tests.web.raw import connected, post, read_after_all, unread
from tests.web.site import Site

__all__ = ["anyio_backend", "server", "under"]

pytestmark = pytest.mark.anyio

SOON = 5.0
"""Seconds for what takes a few milliseconds where nothing else runs."""
GONE = ["began", "signal", "cancelled", "ended"]


@pytest.mark.parametrize("how", ["closes", "resets"])
async def test_the_handler_is_told_and_then_cancelled(server: str, how: str) -> None:
    """ACT-8, SSE-10: within a second its `finally` has run."""
    site = Site()
    async with site.served(server) as url:
        async with connected(url) as http:
            await http.send(post("/actions/forever", {"key": "a"}))
            assert await http.begun() == 200
            await http.until(b"data: 2\n\n")
            if how == "resets":
                http.reset()
        with anyio.fail_after(1):
            assert await site.watch.seen_of("a", "ended") == GONE


async def test_gone_before_the_first_chunk(server: str) -> None:
    """ACT-8: nothing has been sent that could fail."""
    site = Site()
    async with site.served(server) as url:
        async with connected(url) as http:
            await http.send(post("/actions/forever", {"key": "a", "silent": True, "every": 100}))
            assert await http.begun() == 200
            await site.watch.seen_of("a", "began")
        with anyio.fail_after(SOON):
            assert await site.watch.seen_of("a", "ended") == GONE


async def test_gone_before_the_answer_was_read(server: str) -> None:
    site = Site()
    async with site.served(server) as url:
        async with connected(url) as http:
            await http.send(post("/actions/forever", {"key": "a"}))
            await site.watch.seen_of("a", "began")
        with anyio.fail_after(SOON):
            assert await site.watch.seen_of("a", "ended") == GONE


class Slow:
    """Middleware that takes its time."""

    def __init__(self, site: Site) -> None:
        self.site = site

        async def slow(ctx: kk.ActionContext) -> None:
            site.watch.note("middleware", "began")
            try:
                await anyio.sleep_forever()
            finally:
                site.watch.note("middleware", "ended")

        @kk.stream_action(middleware=[slow])
        async def action(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
            site.watch.note("handler", "began")

        self.action = action


async def test_gone_while_middleware_runs(server: str) -> None:
    site = Site()
    async with site.served(server, actions={"slow": Slow(site).action}) as url:
        async with connected(url) as http:
            await http.send(post("/actions/slow"))
            await site.watch.seen_of("middleware", "began")
        with anyio.fail_after(SOON):
            await site.watch.seen_of("middleware", "ended")
    assert "handler" not in site.watch.seen


async def test_gone_with_half_of_the_body(server: str, caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    async with site.served(server) as url:
        async with connected(url) as http:
            await http.send(post("/actions/forever", b'{"key"', content_length="100"))
        async with connected(url) as http:
            await http.send(post("/actions/forever", {})[:40])
        async with connected(url) as http:
            await http.send(post("/actions/echo", {}))
            assert await http.begun() == 200
    assert site.watch.seen == {}
    assert caplog.records == []


class Tidy:
    """Handlers whose cleanup awaits something."""

    def __init__(self, site: Site) -> None:
        @kk.stream_action()
        async def shielded(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
            try:
                await stream.send(1)
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await site.gate.wait()
                    await stream.send(2)  # to nobody
                site.watch.note("shielded", "ended")

        @kk.stream_action()
        async def later(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
            await stream.send(1)
            await stream.close()
            await site.gate.wait()
            site.watch.note("later", stream.signal.is_set())

        self.actions = {"shielded": shielded, "later": later}


async def test_cleanup_may_take_its_time(server: str) -> None:
    """CAN-4: it runs to its end, and its place is taken until then."""
    site = Site()
    async with site.served(server, actions=Tidy(site).actions, max_streams=1) as url:
        async with connected(url) as http:
            await http.send(post("/actions/shielded"))
            assert await http.begun() == 200
            await http.until(b"data: 1\n\n")
        async with connected(url) as http:
            await http.send(post("/actions/echo"))
            assert await http.begun() == 503
        site.gate.set()
        await site.watch.seen_of("shielded", "ended")


async def test_a_handler_that_has_closed_may_go_on(server: str) -> None:
    """ACT-7: its client has everything, and its connection is free for the next request."""
    site = Site()
    async with site.served(server, actions=Tidy(site).actions) as url, connected(url) as http:
        await http.send(post("/actions/later"))
        assert await http.begun() == 200
        assert await http.whole() == b"data: 1\n\nevent: done\ndata: {}\n\n"
        http.body, http.ended = b"", False
        await http.send(post("/actions/echo", 5))
        assert await http.begun() == 200
        await http.until(b"data: 5\n\n")
        site.gate.set()
        await site.watch.seen_of("later", True)


async def test_a_client_that_does_not_read_makes_the_handler_wait(server: str) -> None:
    """ACT-9: what the kernel takes on the way, and `HIGH_WATER` in this process, a batch of it on the way."""
    site = Site()
    async with site.served(server) as url:
        with unread(url, post("/actions/flood", {"key": "a"})) as plain:
            sent = await site.watch.seen_of("a sent", 0)
            waits = False
            while not waits:  # the kernel's own buffers take some, on the server's side
                with anyio.move_on_after(0.3) as scope:
                    await site.watch.seen_of("a sent", len(sent))
                waits = scope.cancelled_caught
                assert len(sent) * 8000 < 64 << 20  # or it waits for nobody
            before = len(sent)
            assert "ended" not in site.watch.seen["a"]
            async with read_after_all(plain) as http:
                assert await http.begun() == 200
                while len(sent) < before + 3 * HIGH_WATER // 8000:
                    await http.until(b"\n\n")
                    http.body = b""
        with anyio.fail_after(SOON):
            assert await site.watch.seen_of("a", "ended") == GONE


async def test_a_client_that_never_reads_is_gone_after_a_while(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ACT-9: its handler is told and cancelled, though the connection is still there."""
    monkeypatch.setattr("kkrpc_py.web.endpoints.SEND_SECONDS", 0.3)
    site = Site()
    async with site.served(server, keep_alive=0.1) as url:
        with unread(url, post("/actions/flood", {"key": "a"})):
            assert await site.watch.seen_of("a", "ended") == GONE


async def test_one_that_reads_slowly_is_not(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kkrpc_py.web.endpoints.SEND_SECONDS", 0.3)
    site = Site()
    async with site.served(server, keep_alive=0.1) as url:
        async with connected(url) as http:
            await http.send(post("/actions/forever", {"key": "a", "every": 0.5}))
            assert await http.begun() == 200
            await http.until(b"data: 1\n\n")
            assert site.watch.seen["a"] == ["began"]


async def test_one_that_reconnects_in_a_loop_leaves_nothing_behind(server: str) -> None:
    """SSE-10: fifty times, and no handler is left, no place, no task of theirs."""
    site = Site()
    async with site.served(server) as url:
        for number in range(50):
            async with connected(url) as http:
                await http.send(post("/actions/forever", {"key": f"{number}"}))
                if number % 3:
                    assert await http.begun() == 200
    assert len(site.watch.seen) >= 33  # the others may have been gone before their handlers began
    assert {seen[-1] for seen in site.watch.seen.values()} == {"ended"}


async def test_a_handler_that_never_suspends_leaves_room_for_others(server: str, anyio_backend: Any) -> None:
    """ACT-9: others have their turn while it sends, and its client's leaving is noticed."""
    if anyio_backend[1].get("use_uvloop"):
        pytest.skip("this client, always with something to read, would starve uvloop, its own loop, too")
    site = Site()
    async with site.served(server) as url:
        async with connected(url) as busy:
            await busy.send(post("/actions/burst", {"key": "a", "count": 1 << 40}))
            assert await busy.begun() == 200
            async with anyio.create_task_group() as tasks:

                async def read() -> None:
                    while True:
                        await busy.stream.receive()

                tasks.start_soon(read)
                async with connected(url) as http:
                    with anyio.fail_after(SOON):
                        await http.send(post("/actions/echo"))
                        assert await http.begun() == 200
                        await http.whole()
                tasks.cancel_scope.cancel()
        with anyio.fail_after(SOON):
            assert await site.watch.seen_of("a", "ended") == GONE
