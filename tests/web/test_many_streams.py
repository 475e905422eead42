"""Many event streams at once, whose clients leave at random: nothing is left of them (ACT-8, SSE-10)."""

from __future__ import annotations

import gc
import os
import random
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from kkrpc_py.web.app import asgi_app
from kkrpc_py.web.outlet import Outbox
from kkrpc_py.web.replay import Run
from kkrpc_py.web.streams import Visit
from tests.web.backends import anyio_backend, server, under
from tests.web.raw import Raw, connected, post
from tests.web.servers import serving
from tests.web.site import idle, streams_of

__all__ = ["anyio_backend", "server", "under"]

pytestmark = pytest.mark.anyio

WAYS = ("whole", "early", "middle", "reset", "silent", "unread", "back")


class Counted:
    """Handlers that count how often they began and how often their `finally` ran.

    None of them ends, and no client leaves, before `wanted` of them run at once.
    """

    def __init__(self) -> None:
        self.expect(1)

    def expect(self, wanted: int) -> None:
        self.wanted = wanted
        self.all_run = anyio.Event()
        self.began = 0
        self.cleaned = 0
        self.signalled = 0

    async def handle(self, input: Any, stream: kk.ActionStream[Any]) -> None:
        self.began += 1
        stream.signal.on_cancel(self._signal)
        try:
            if self.began - self.cleaned == self.wanted:
                self.all_run.set()
            await self.all_run.wait()
            for number in range(input["chunks"]):
                await stream.send({"number": number, "text": "x" * input.get("size", 10)})
                if number % 3 == 0:
                    await anyio.sleep(0.002)
            if input.get("stays"):
                await anyio.sleep_forever()
        finally:
            self.cleaned += 1

    def _signal(self) -> None:
        self.signalled += 1

    @kk.stream_action()
    async def plain(self, input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        await self.handle(input, stream)

    @kk.stream_action(replay=1000)
    async def kept(self, input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        await self.handle(input, stream)


async def visit(url: str, way: str, chance: random.Random, counted: Counted) -> None:
    """One client; it raises if what it got is wrong."""
    action = "kept" if way == "back" or chance.random() < 0.3 else "plain"
    input: dict[str, Any] = {"chunks": chance.randrange(5, 60), "stays": way not in ("whole", "back")}
    if way == "unread":
        input |= {"chunks": 1000, "size": 20_000}
    async with connected(url) as http:
        await http.send(post(f"/actions/{action}", input))
        await counted.all_run.wait()
        await anyio.sleep(chance.random() * 0.3)
        if way == "early":
            return
        assert await http.begun() == 200
        if way == "unread":
            await anyio.sleep(chance.random() * 0.3)
        elif way == "whole":
            await http.whole()
            assert http.body.count(b"data: ") == input["chunks"] + 1
            assert http.body.endswith(b"data: {}\n\n")
        elif way != "silent":
            await http.until(b'{"number":%d,' % chance.randrange(input["chunks"]))
            if way == "reset":
                http.reset()
    if way == "back":
        await come_back(url, http, input)


async def come_back(url: str, before: Raw, input: dict[str, Any]) -> None:
    lines = [line for line in before.body.split(b"\n\n")[:-1] if line.startswith(b"id: ")]
    last = lines[-1].split(b"\n")[0][4:].decode()
    async with connected(url) as http:
        await http.send(post("/actions/kept", input, last_event_id=last))
        assert await http.begun() == 200
        await http.whole()
        assert len(lines) + http.body.count(b"\n\n") == input["chunks"] + 1


def descriptors() -> int:
    """Number of the open ones of this process."""
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0


def left_behind() -> list[str]:
    """What there is of streams that somebody holds on to."""
    gc.collect()
    # By identity: other tests' classes, which the collector knows as well, say what they like of themselves.
    kinds = {id(kind) for kind in (Outbox, Run, Visit)}
    return [type(each).__name__ for each in gc.get_objects() if id(type(each)) in kinds]


async def leave_nothing(server: str, count: int, *, seed: int, resume_seconds: float) -> None:
    chance = random.Random(seed)
    counted = Counted()
    app = asgi_app(actions=[counted.plain, counted.kept], resume_seconds=resume_seconds, keep_alive=0.2)
    async with serving(app, server=server) as url:  # what event loops open once
        await visit(url, "whole", chance, counted)
    before = descriptors()
    counted.expect(count)
    async with serving(app, server=server) as url:
        async with anyio.create_task_group() as clients:
            for number in range(count):
                clients.start_soon(visit, url, WAYS[number % len(WAYS)], chance, counted)
        with anyio.fail_after(30):
            await idle(app)
            while len(streams_of(app).runs):
                await anyio.sleep(0.05)
        assert streams_of(app).runs.size == 0
        assert counted.cleaned == counted.signalled == counted.began == count
    assert left_behind() == []
    assert descriptors() <= before


async def test_fifty_streams_leave_nothing(server: str) -> None:
    with anyio.fail_after(60):
        await leave_nothing(server, 49, seed=1, resume_seconds=1.5)


@pytest.mark.slow
async def test_five_hundred_streams_leave_nothing(server: str) -> None:
    """The proof that the issue asks for."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = min(4096, hard) if hard != resource.RLIM_INFINITY else 4096
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    with anyio.fail_after(150):
        await leave_nothing(server, 500, seed=2, resume_seconds=8.0)
