"""Actions with a replay window over HTTP: who comes back goes on where it was (SSE-11 to SSE-13)."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from tests.web.backends import anyio_backend, server, under
from tests.web.raw import Raw, connected, post
from tests.web.site import Site

__all__ = ["anyio_backend", "server", "under"]

pytestmark = pytest.mark.anyio

SOON = 5.0


class Kept:
    """Actions with a window, whose chunks come when the test says so."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.steps, self.next_step = anyio.create_memory_object_stream[Any](1000)
        self.asked = 0

        async def counted(ctx: kk.ActionContext) -> None:
            self.asked += 1
            if ctx.headers.get("x-user") == "stranger":
                raise kk.ActionError("NO_USER", "Who are you?", 401)
            ctx.owner = ctx.headers.get("x-user")

        @kk.stream_action(replay=3, safe=True, middleware=[counted])
        async def stepped(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
            with site.watch.handler(input, stream) as name:
                async for step in self.next_step:
                    if step == "end":
                        return
                    if step == "fail":
                        raise kk.ActionError("FAILED", "It has failed", 418)
                    await stream.send(step)
                    site.watch.note(f"{name} sent", step)

        @kk.stream_action(input=int, replay=3)
        async def other(input: int, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
            for number in range(input):
                await stream.send(number)

        @kk.stream_action(replay=3)
        async def waiting(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
            with site.watch.handler({"key": "w"}, stream):
                await stream.send(1)
                await anyio.sleep_forever()

        self.actions = {"stepped": stepped, "other": other, "waiting": waiting}

    async def step(self, *steps: Any) -> None:
        for step in steps:
            await self.steps.send(step)


@contextlib.asynccontextmanager
async def kept(server: str, **options: Any) -> AsyncIterator[tuple[str, Kept, Site]]:
    site = Site()
    actions = Kept(site)
    with actions.steps, actions.next_step:
        async with site.served(server, actions=actions.actions, **options) as url:
            yield url, actions, site
            actions.steps.close()


async def begun(http: Raw, after: str = "", path: str = "/actions/stepped", **headers: str) -> int:
    await http.send(post(path, {"key": "a"}, last_event_id=after, **headers))
    return await http.begun()


async def refused(url: str, after: str, path: str = "/actions/stepped", body: Any = None) -> str:
    async with connected(url) as http:
        await http.send(post(path, body, last_event_id=after))
        status = await http.begun()
        found = json.loads(await http.whole())
        assert found["statusCode"] == status
        code: str = found["code"]
        return code


async def away(site: Site) -> None:
    """Wait until the server has noticed that a client is gone."""
    assert site.streams is not None
    while not site.streams.runs._left:
        await anyio.sleep(0.001)


def run_of(http: Raw) -> str:
    match = re.match(rb"id: ([A-Za-z0-9_-]{22}):1\n", http.body)
    assert match is not None, http.body
    return match[1].decode()


async def test_every_event_has_an_id(server: str) -> None:
    """SSE-11: the run, which nobody can guess, and the number of the event; the end has one too."""
    async with kept(server) as (url, actions, _):
        async with connected(url) as http:
            assert await begun(http) == 200
            await actions.step("a", "b", "end")
            await http.whole()
            run = run_of(http)
            assert http.body.decode() == (
                f'id: {run}:1\ndata: "a"\n\nid: {run}:2\ndata: "b"\n\n'
                f"event: done\nid: {run}:3\ndata: {{}}\n\n"
            )
        async with connected(url) as http:
            assert await begun(http) == 200
            await actions.step("a", "fail")
            await http.whole()
            assert run_of(http) != run
            error = '{"code":"FAILED","message":"It has failed","statusCode":418}'
            assert http.body.decode().endswith(f"event: error\nid: {run_of(http)}:2\ndata: {error}\n\n")


async def test_a_client_that_comes_back_gets_what_it_has_not(server: str) -> None:
    """SSE-12, SSE-13: the handler has gone on meanwhile, and goes on; under the same ids, none twice."""
    async with kept(server) as (url, actions, site):
        async with connected(url) as http:
            assert await begun(http) == 200
            await actions.step(1, 2)
            await http.until(b"data: 2\n\n")
            run = run_of(http)
        await actions.step(3)
        await site.watch.seen_of("a sent", 3)
        async with connected(url) as http:
            assert await begun(http, f"{run}:1") == 200
            await http.until(b"data: 3\n\n")
            await actions.step(4, "end")
            assert (await http.whole()).decode() == (
                f"id: {run}:2\ndata: 2\n\nid: {run}:3\ndata: 3\n\nid: {run}:4\ndata: 4\n\n"
                f"event: done\nid: {run}:5\ndata: {{}}\n\n"
            )
        assert site.watch.seen["a"] == ["began", "ended", "signal"]
        assert actions.asked == 2


async def test_one_that_had_everything_is_told_so(server: str) -> None:
    """SSE-12: 204; before that, what it had not."""
    async with kept(server) as (url, actions, _):
        async with connected(url) as http:
            assert await begun(http) == 200
            await actions.step(1, 2, 3, 4, "end")
            await http.whole()
            run = run_of(http)
        async with connected(url) as http:
            assert await begun(http, f"{run}:4") == 200
            assert (await http.whole()).decode() == f"event: done\nid: {run}:5\ndata: {{}}\n\n"
        async with connected(url) as http:
            assert await begun(http, f"{run}:5") == 204
            http.body, http.ended = b"", False
            await http.send(post("/actions/echo", 7))
            assert await http.begun() == 200


async def test_what_cannot_be_resumed(server: str) -> None:
    """SSE-12: 410 for all of it alike."""
    async with kept(server) as (url, actions, _):
        async with connected(url) as http:
            assert await begun(http) == 200
            await actions.step(1, 2, 3, 4, 5)
            await http.until(b"data: 5\n\n")
            run = run_of(http)
            for gone in (
                f"{run}:1",  # the window has passed
                f"{run}:6",  # has not been sent
                f"{run}:-1",
                f"{run}:",
                f"{run}:{'9' * 5000}",
                f"{run}:٣",
                f"{run}:4.0",
                run,
                "nobody:1",
                ":1",
                "x",
            ):
                assert await refused(url, gone.encode().decode("latin-1")) == "RESUME_GONE", gone
            assert await refused(url, f"{run}:5", "/actions/other", 1) == "RESUME_GONE"
            await actions.step("end")
            await http.whole()
            assert http.body.endswith(f"event: done\nid: {run}:6\ndata: {{}}\n\n".encode())


async def test_who_comes_back_is_asked_again(server: str) -> None:
    """SSE-12: input and middleware hold as before; an action without a window does not look at the header."""
    async with kept(server) as (url, actions, _):
        async with connected(url) as http:
            assert await begun(http) == 200
            await actions.step(1)
            await http.until(b"data: 1\n\n")
            run = run_of(http)
            async with connected(url) as stranger:
                assert await begun(stranger, f"{run}:1", x_user="stranger") == 401
            assert await refused(url, f"{run}:1", "/actions/other", "x") == "VALIDATION_ERROR"
            async with connected(url) as plain:
                await plain.send(post("/actions/echo", 1, last_event_id=f"{run}:1"))
                assert await plain.begun() == 200
                assert await plain.whole() == b"data: 1\n\nevent: done\ndata: {}\n\n"
            await actions.step("end")
            assert (await http.whole()).endswith(f"event: done\nid: {run}:2\ndata: {{}}\n\n".encode())


async def test_a_run_has_one_client(server: str) -> None:
    """SSE-13: who resumes it takes it over, and the answer that was before ends without `done` (SSE-6)."""
    async with kept(server) as (url, actions, site):
        async with connected(url) as old, connected(url) as new:
            assert await begun(old) == 200
            await actions.step(1)
            await old.until(b"data: 1\n\n")
            run = run_of(old)
            assert await begun(new, f"{run}:1") == 200
            assert b"done" not in await old.whole()
            await actions.step(2, "end")
            assert (await new.whole()).decode() == (
                f"id: {run}:2\ndata: 2\n\nevent: done\nid: {run}:3\ndata: {{}}\n\n"
            )
        assert site.watch.seen["a"] == ["began", "ended", "signal"]


async def test_a_run_has_one_owner(server: str) -> None:
    """SSE-12: where the middleware says whose it is, another one who knows the id gets nothing of it."""
    async with kept(server) as (url, actions, _):
        async with connected(url) as http:
            assert await begun(http, x_user="ann") == 200
            await actions.step(1, 2)
            await http.until(b"data: 2\n\n")
            run = run_of(http)
        for headers, status in (({"x_user": "bob"}, 410), ({}, 410), ({"x_user": "ann"}, 200)):
            async with connected(url) as http:
                assert await begun(http, f"{run}:1", **headers) == status


async def test_who_comes_back_has_a_place(server: str) -> None:
    """SSE-9, SSE-12: as many streams as there may be, and all resume, noticed by the server or not."""
    path = "/actions/waiting"
    async with kept(server, max_streams=2) as (url, _actions, site):
        runs: list[str] = []
        async with connected(url) as one, connected(url) as two:
            for http in (one, two):
                assert await begun(http, path=path) == 200
                await http.until(b"data: 1\n\n")
                runs.append(run_of(http))
            async with connected(url) as again:  # while the first connection is still there
                assert await begun(again, f"{runs[0]}:1", path) == 200
                assert await refused(url, "") == "TOO_MANY_STREAMS"
                await one.whole()
        await site.watch.until(lambda: site.streams is not None and len(site.streams) == 2)
        async with connected(url) as one, connected(url) as two:
            for http, run in ((one, runs[0]), (two, runs[1])):
                assert await begun(http, f"{run}:0", path) == 200
                await http.until(b"data: 1\n\n")
        assert site.watch.seen["w"] == ["began", "began"]
        assert site.streams is not None
        site.streams.runs.stop()


async def test_by_get_as_a_browser_does(server: str) -> None:
    """SSE-12: an EventSource sends the header by itself."""
    async with kept(server) as (url, actions, _):
        async with connected(url) as http:
            request = (
                "GET /actions/stepped?key=a HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n"
            )
            await http.send(f"{request}\r\n".encode())
            assert await http.begun() == 200
            await actions.step(1)
            await http.until(b"data: 1\n\n")
            run = run_of(http)
        async with connected(url) as http:
            await http.send(f"{request}last-event-id: {run}:1\r\n\r\n".encode())
            assert await http.begun() == 200
            await actions.step(2)
            await http.until(f"id: {run}:2\ndata: 2\n\n".encode())


async def test_nobody_comes_back(server: str) -> None:
    """SSE-13, ACT-8: the handler is told and cancelled; afterwards nobody knows the run."""
    async with kept(server, resume_seconds=0.05) as (url, actions, site):
        async with connected(url) as http:
            assert await begun(http) == 200
            await actions.step(1)
            await http.until(b"data: 1\n\n")
            run = run_of(http)
        with anyio.fail_after(SOON):
            seen = await site.watch.seen_of("a", "ended")
        assert seen == ["began", "signal", "cancelled", "ended"]
        assert await refused(url, f"{run}:1") == "RESUME_GONE"


async def test_while_nobody_reads_the_handler_waits_before_anything_is_lost(server: str) -> None:
    """SSE-13: it goes on until half of its window is what nobody has had."""
    async with kept(server) as (url, actions, site):
        async with connected(url) as http:
            assert await begun(http) == 200
            await actions.step(1, 2)
            await http.until(b"data: 2\n\n")
            run = run_of(http)
        await away(site)
        await actions.step(3, 4, 5, 6, 7, "end")
        await site.watch.seen_of("a sent", 3)
        async with connected(url) as http:
            assert await begun(http, f"{run}:2") == 200
            body = (await http.whole()).decode()
        assert re.findall(r"data: (.*)", body) == ["3", "4", "5", "6", "7", "{}"]


async def test_one_that_comes_anew_each_time_does_not_fill_the_server(server: str) -> None:
    """SSE-9: runs without a client give way to new ones, the oldest first."""
    async with kept(server, max_streams=3) as (url, _actions, site):
        for _ in range(10):
            async with connected(url) as http:
                assert await begun(http) == 200
        await site.watch.until(lambda: site.watch.running <= 3)
        assert site.watch.seen["a"].count("cancelled") >= 7


async def test_runs_end_with_the_application(server: str) -> None:
    site = Site()
    actions = Kept(site)
    with actions.steps, actions.next_step, anyio.fail_after(20):
        app = site.app(actions=actions.actions)
        from tests.web.servers import serving

        async with serving(app, server=server) as url:
            async with connected(url) as http:
                assert await begun(http) == 200
                await actions.step(1)
                await http.until(b"data: 1\n\n")
            assert site.watch.running == 1
    assert site.watch.seen["a"] == ["began", "signal", "cancelled", "ended"]
    assert len(app.state.kkrpc_streams) == len(app.state.kkrpc_streams.runs) == 0
