"""The application that the tests of the web layer serve, and what its handlers say of themselves.

It owns no test.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import msgspec
from starlette.applications import Starlette

import kkrpc_py as kk
from kkrpc_py.web.app import asgi_app
from kkrpc_py.web.streams import Streams
from tests.web.servers import serving

__all__ = ["BOUND", "Site", "Watch", "streams_of"]

BOUND = 20.0
"""Seconds that a test may wait altogether. Far above what any test takes."""


class Watch:
    """What has happened, in order, by the name of whom it happened to."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Any]] = {}
        self.running = 0
        self._changed = anyio.Event()

    def note(self, name: str, what: Any) -> None:
        self.seen.setdefault(name, []).append(what)
        self.wake()

    def wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds; it is asked whenever something has happened."""
        while not condition():
            await self._changed.wait()

    async def seen_of(self, name: str, what: Any) -> list[Any]:
        await self.until(lambda: what in self.seen.get(name, ()))
        return self.seen[name]

    @contextlib.contextmanager
    def handler(self, input: Any, stream: kk.ActionStream[Any]) -> Iterator[str]:
        """A handler's life: "began", "signal", "cancelled", "ended"."""
        name = input.get("key", "")
        self.running += 1
        self.note(name, "began")
        stream.signal.on_cancel(lambda: self.note(name, "signal"))
        try:
            yield name
        except anyio.get_cancelled_exc_class():
            self.note(name, "cancelled")
            raise
        finally:
            self.running -= 1
            self.note(name, "ended")


class Question(msgspec.Struct):
    text: str
    times: int = 1


class Site:
    """Actions for the tests; `key` in an input names the run in `watch`."""

    def __init__(self) -> None:
        self.watch = Watch()
        self.gate = anyio.Event()
        self.streams: Streams | None = None
        """Of the application that is served."""

    @kk.stream_action(safe=True)
    async def echo(self, input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        """The input, as it came."""
        await stream.send(input)

    @kk.stream_action()
    async def burst(self, input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[int]) -> None:
        """Numbers, as fast as may be."""
        with self.watch.handler(input, stream):
            for number in range(input["count"]):
                await stream.send(number)

    @kk.stream_action(input=Question, safe=True)
    async def ask(self, input: Question, ctx: kk.ActionContext, stream: kk.ActionStream[str]) -> None:
        for _ in range(input.times):
            await stream.send(input.text)

    @kk.stream_action()
    async def forever(self, input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[int]) -> None:
        """A first chunk, unless it is to be silent, and then more as time goes by."""
        with self.watch.handler(input, stream):
            number = 0
            while True:
                if not input.get("silent"):
                    await stream.send(number)
                    number += 1
                await anyio.sleep(input.get("every", 0.01))

    @kk.stream_action()
    async def flood(self, input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[str]) -> None:
        """More and more of large chunks; each that was taken is noted."""
        with self.watch.handler(input, stream) as name:
            for number in range(input.get("most", 1 << 30)):
                await stream.send("x" * 8000)
                self.watch.note(f"{name} sent", number)

    @kk.stream_action()
    async def gated(self, input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        """A chunk, and another one when the gate is opened."""
        with self.watch.handler(input, stream):
            await stream.send("before")
            await self.gate.wait()
            await stream.send("after")

    @kk.stream_action()
    async def fail(self, input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        await stream.send("first")
        if input.get("unexpected"):
            raise ValueError("the password is swordfish")
        raise kk.ActionError("OUT_OF_PAPER", "No paper left", 409, field_errors={"tray": ["is empty"]})

    def app(self, **options: Any) -> Starlette:
        actions = [self.echo, self.burst, self.ask, self.forever, self.flood, self.gated, self.fail]
        named = {each.__name__: each for each in actions}
        return asgi_app(actions={**named, **options.pop("actions", {})}, **options)

    @contextlib.asynccontextmanager
    async def served(self, server: str, *, bound: float | None = BOUND, **options: Any) -> AsyncIterator[str]:
        """Serve it, for `bound` seconds at most; at the end nothing may be left."""
        with anyio.fail_after(bound):
            app = self.app(**options)
            self.streams = streams_of(app)
            async with serving(app, server=server) as url:
                yield url
                await idle(app)


async def idle(app: Starlette) -> None:
    """Wait until no stream is left of an application."""
    streams = streams_of(app)
    while len(streams) or streams._visits:
        await anyio.sleep(0.01)


def streams_of(app: Starlette) -> Streams:
    streams: Streams = app.state.kkrpc_streams
    return streams
