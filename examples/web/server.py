"""Streams in a page: stream actions over server-sent events, and a channel over a WebSocket.

    python server.py [--port 8000] [--paced]

With --paced nothing goes on by itself: a line "NAME" or "NAME COUNT" on standard input lets the stream of
that name make one step, or so many.
"""

import argparse
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import uvicorn
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

import kkrpc_py as kk

HERE = Path(__file__).resolve().parent
LIBRARY = Path(kk.__file__).parent
PAGE = {name: HERE / name for name in ("style.css", "page.js", "actions.js", "link.js", "icon.svg")} | {
    "": HERE / "index.html",
    "kkrpc.js": HERE.parents[1] / "clients" / "js" / "kkrpc.js",
}
HEADERS = {"Content-Security-Policy": "default-src 'self'", "Cache-Control": "no-cache"}

ANSWERS = {
    "What is a harbour?": "A harbour is where the long road ends, and where the small boats sleep.",
    "And a lighthouse?": "A lighthouse says one word all night, in every direction, so that nobody has to "
    "ask where the rocks are. By day it says nothing, and is painted.",
    "Tell me a long story.": "There was a keeper who counted ships. "
    + " ".join(f"On day {day} there were {day * 7 % 11}, and the lamp was lit." for day in range(1, 41))
    + " Then somebody asked him to stop, and he went to sleep.",
}
EVENTS = ("boat 7 has left the harbour", "the tide is rising", "the lamp is lit", "boat 3 asks for a berth")


class Pace:
    """How fast things go here: by the clock, or by lines on standard input."""

    def __init__(self) -> None:
        self._steps: defaultdict[str, anyio.Semaphore] | None = None

    async def step(self, name: str, seconds: float) -> None:
        """Wait until the stream of that name may go on."""
        if self._steps is None:
            await anyio.sleep(seconds)
        else:
            await self._steps[name].acquire()

    async def read_steps(self) -> None:
        self._steps = defaultdict(lambda: anyio.Semaphore(0))
        rest = b""
        while True:
            await anyio.wait_readable(sys.stdin)
            data = os.read(sys.stdin.fileno(), 4096)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                name, _, count = line.decode().partition(" ")
                for _ in range(int(count or 1)):
                    self._steps[name].release()


pace = Pace()


@contextmanager
def told(name: str) -> Iterator[list[Any]]:
    """Say on standard output that a stream has begun, and, whatever happens, that it has ended."""
    made: list[Any] = []
    print(f"{name} began", flush=True)
    try:
        yield made
    finally:
        print(f"{name} ended after {len(made)}", flush=True)


# ---- actions ---------------------------------------------------------------------------------------------


@dataclass
class Question:
    prompt: Annotated[str, Meta(min_length=1, max_length=200)]
    tokens: Annotated[int, Meta(ge=1, le=1000)] = 200


@kk.stream_action(input=Question)
async def ai_chat(input: Question, ctx: kk.ActionContext, stream: kk.ActionStream[str]) -> None:
    """An answer, token by token. The model is scripted."""
    answer = ANSWERS.get(input.prompt, f"I do not know much about “{input.prompt}”, I only know harbours.")
    with told("ai_chat") as made:
        for token in re.split("(?<= )", answer)[: input.tokens]:
            await pace.step("ai_chat", 0.06)
            made.append(token)
            await stream.send(token)


@dataclass
class Names:
    pattern: Annotated[str, Meta(min_length=1, max_length=50)] = "*.py"


@kk.stream_action(input=Names)
async def count_lines(input: Names, ctx: kk.ActionContext, stream: kk.ActionStream[dict[str, Any]]) -> None:
    """Read this library's modules of such names: how far it is, and how many lines it has found."""
    files = [path for path in sorted(LIBRARY.rglob("*.py")) if fnmatch(path.name, input.pattern)]
    if not files:
        raise kk.ActionError("NO_FILES", f"no module is called {input.pattern}", 404)
    lines = 0
    with told("count_lines") as made:
        for path in files:
            await pace.step("count_lines", 0.03)
            lines += (await anyio.Path(path).read_bytes()).count(b"\n")
            made.append(path)
            file = path.relative_to(LIBRARY).as_posix()
            await stream.send({"done": len(made), "total": len(files), "file": file, "lines": lines})


@dataclass
class Wrong:
    how: Literal["refused", "halfway", "unexpected"]
    chunks: Annotated[int, Meta(ge=0, le=10)] = 3


async def pay(ctx: kk.ActionContext) -> None:
    if ctx.input.how == "refused":
        raise kk.ActionError("PAYMENT_REQUIRED", "Middleware said no, before the stream began.", 402)


@kk.stream_action(input=Wrong, middleware=[pay])
async def go_wrong(input: Wrong, ctx: kk.ActionContext, stream: kk.ActionStream[int]) -> None:
    for number in range(input.chunks):
        await stream.send(number)
    if input.how == "halfway":
        raise kk.ActionError("OUT_OF_OIL", "The lamp has gone out halfway.", 503)
    raise RuntimeError("what only the server's own log tells")


# ---- what the WebSocket has beside them ------------------------------------------------------------------


class Log:
    """A log that is made for whoever follows it, and no faster than it is read."""

    async def follow(self) -> AsyncIterator[dict[str, Any]]:
        state = kk.current_channel().state
        with told("log") as made:
            while True:
                await pace.step("log", 0.08)
                made.append(None)
                state.made = number = len(made)
                level = "warn" if number % 17 == 0 else "info"
                text = "the fog is coming in" if level == "warn" else EVENTS[number % len(EVENTS)]
                yield {"number": number, "time": time.strftime("%H:%M:%S"), "level": level, "text": text}

    def made(self) -> int:
        """How many lines the generator of this connection has made."""
        return getattr(kk.current_channel().state, "made", 0)


# ---- the application -------------------------------------------------------------------------------------


class Server(uvicorn.Server):
    async def startup(self, *args: Any, **kwargs: Any) -> None:
        await super().startup(*args, **kwargs)
        host, port = self.servers[0].sockets[0].getsockname()
        print(f"listening on http://{host}:{port}", flush=True)


async def page(request: Request) -> FileResponse:
    return FileResponse(PAGE[request.url.path.removeprefix("/")], headers=HEADERS)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000, help="0: one that is free")
    parser.add_argument("--paced", action="store_true")
    args = parser.parse_args()

    app = kk.asgi_app({"ai_chat": ai_chat, "log": Log()}, actions=[ai_chat, count_lines, go_wrong])
    app.routes.extend(Route(f"/{name}", page) for name in PAGE)
    config = uvicorn.Config(
        app, port=args.port, log_level="warning", timeout_graceful_shutdown=1, ws_per_message_deflate=False
    )
    async with anyio.create_task_group() as tasks:
        if args.paced:
            tasks.start_soon(pace.read_steps)
        await Server(config).serve()
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    try:
        anyio.run(main)
    except KeyboardInterrupt:
        pass
