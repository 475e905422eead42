"""The JavaScript client in Node against a Python server: calls, callbacks, streams and their credit, the end.

`server_scenarios.mjs` has what the client does, this file the server and what only that can see.
"""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import msgspec
import pytest

import kkrpc_py as kk
from kkrpc_py.channel.proxy import Remote
from tests.js_client.node import Node, started

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    yield from started()


class Question(msgspec.Struct):
    prompt: str


@kk.stream_action(input=Question)
async def ask(input: Question, ctx: kk.ActionContext, stream: kk.ActionStream[str]) -> None:
    for word in input.prompt.split():
        await stream.send(word)
    raise kk.ActionError("RATE_LIMITED", "too much", 429)


@kk.constructible
class Point:
    def __init__(self, x: int, y: int) -> None:
        self.x = x
        self.y = y


class Deep:
    def multiply(self, a: int, b: int) -> int:
        return a * b


class Math:
    deep = Deep()


class Api:
    """What a scenario's server exposes."""

    Point = Point
    ask = staticmethod(ask)
    math = Math()
    settings: dict[str, Any]

    def __init__(self) -> None:
        self.settings = {"theme": kk.writable("light"), "language": "en", "_secret": "secret"}
        self._made: dict[str, int] = {}
        self._clean: dict[str, anyio.Event] = {}
        self._kept: Any = None
        self._doubled = 0
        self._lent: weakref.ref[Any] | None = None
        self._metadata: Any = None
        self._is_waiting = anyio.Event()

    async def note(self, call: kk.CallContext, proceed: kk.Next) -> Any:
        """An interceptor: what goes beside the arguments."""
        self._metadata = dict(call.meta)
        return await proceed()

    def add(self, a: int, b: int) -> int:
        return a + b

    async def echo(self, value: Any) -> Any:
        return value

    async def nothing(self) -> None:
        return None

    async def metadata(self) -> Any:
        return self._metadata

    async def fail(self, name: str, message: str) -> None:
        error = {"ValueError": ValueError}[name](message)
        error.code = 42  # type: ignore[attr-defined]  # a public field, as an application's errors have
        raise error

    # Callbacks

    async def each(self, count: int, f: Callable[[int], Any]) -> list[Any]:
        return [await f(i) for i in range(count)]

    async def nested(self, value: dict[str, list[Any]]) -> str:
        return f"called with {await value['deep'][0](7)}"

    async def keep(self, f: Any) -> None:
        self._kept = f

    async def kept(self, value: int) -> Any:
        return await self._kept(value)

    async def forget(self) -> None:
        self._kept.release()

    async def lend(self) -> Callable[[int], int]:
        def double(value: int) -> int:
            self._doubled += 1
            return value * 2

        self._lent = weakref.ref(double)
        return double

    async def doubled(self) -> int:
        return self._doubled

    async def lent(self) -> int:
        assert self._lent is not None
        gc.collect()
        return int(self._lent() is not None)

    # The client's own API

    async def explore(self) -> dict[str, Any]:
        api = kk.current_channel().remote()
        found: dict[str, Any] = {
            "greet": await api.greet("you"),
            "add": await api.math.add(2, 3),
            "version": await api.math.version,
        }
        for name in ("math._hidden", "api.inherited", "greet.call", "toString", "__proto__.x", "constructor"):
            with pytest.raises(kk.MethodNotFound):
                await Remote(kk.current_channel(), name)()
        for name in ("greet", "math._hidden", "__proto__", "greet.length", "api"):
            with pytest.raises(kk.PropertyNotFound):
                await Remote(kk.current_channel(), name)
        with pytest.raises(PermissionError):
            await kk.current_channel().set(api.math.version, 4)
        with pytest.raises(kk.PropertyNotFound):
            await kk.current_channel().set(Remote(kk.current_channel(), "__proto__.polluted"), True)
        with pytest.raises(TypeError, match="no") as raised:
            await api.fail()
        assert isinstance(raised.value, kk.RemoteError)
        found["error"] = [raised.value.name, raised.value.message, raised.value.fields]
        return found

    async def explore_stream(self) -> None:
        api = kk.current_channel().remote()
        stream = api.count(500)
        assert [value async for value in stream] == list(range(500))
        assert await stream == "counted"
        async for value in api.count(1_000_000):
            if value == 10:
                break

    # Streams

    def count(self, n: int) -> Iterator[int]:
        yield from range(n)
        return f"counted {n}"

    async def break_after(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i
        raise ValueError("broken")

    async def large(self, n: int, size: int) -> AsyncIterator[str]:
        for _ in range(n):
            yield "x" * size

    async def watched(self, name: str, n: int, size: int) -> AsyncIterator[str]:
        """Texts that are counted as they are made."""
        try:
            for _ in range(int(n)):
                self._made[name] = self._made.get(name, 0) + 1
                yield "x" * size
        finally:
            self._cleanup(name).set()

    async def silent(self, name: str) -> AsyncIterator[int]:
        try:
            await anyio.sleep_forever()
            yield 1
        finally:
            self._cleanup(name).set()

    async def sleep(self, name: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self._cleanup(name).set()

    async def made(self, name: str) -> int:
        return self._made.get(name, 0)

    async def cleaned(self, name: str) -> None:
        await self._cleanup(name).wait()

    async def is_clean(self, name: str) -> bool:
        return self._cleanup(name).is_set()

    def _cleanup(self, name: str) -> anyio.Event:
        return self._clean.setdefault(name, anyio.Event())

    async def waiting(self) -> None:
        self._is_waiting.set()

    # Streams within values

    async def total(self, chunks: AsyncIterator[int]) -> int:
        return sum([chunk async for chunk in chunks])

    async def first(self, chunks: AsyncIterator[int]) -> int:
        async for chunk in chunks:
            return chunk
        return -1

    async def ask_total(self, n: int) -> Any:
        async def numbers() -> AsyncIterator[int]:
            for i in range(n):
                yield i

        return await kk.current_channel().remote().total(numbers())

    async def take_slowly(self, size: int, count: int) -> int:
        taken = 0
        async for text in kk.current_channel().remote().produce(size):
            assert len(text) == size
            taken += 1
            if taken == count:
                break
        return taken


@contextlib.asynccontextmanager
async def serving(api: Api) -> AsyncGenerator[tuple[str, anyio.CancelScope]]:
    """The URL of a server of its own, and the scope that stops it."""
    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()

        async def serve(*, task_status: Any) -> None:
            with scope:
                await kk.serve_websocket(
                    api, "127.0.0.1", 0, task_status=task_status, interceptors=[api.note]
                )

        addresses = await tasks.start(serve)
        yield f"ws://127.0.0.1:{addresses[0][1]}/", scope
        scope.cancel()


SCENARIOS = "values properties errors callbacks streams leaving signals uploads".split()


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_scenario(node: Node, scenario: str) -> None:
    async with serving(Api()) as (url, _):
        await node.run(scenario, url=url)


async def test_calls_and_what_is_agreed(node: Node) -> None:
    async with serving(Api()) as (url, _):
        features = await node.run("calls", url=url)
    assert features == sorted(
        ["credit", "batch", "result", "cancel", "callback", "stream-arguments", "kwargs", "metadata"]
    )


async def test_what_the_client_exposes(node: Node) -> None:
    async with serving(Api()) as (url, _):
        told = await node.run("exposed", url=url)
    assert told["found"] == {
        "greet": "hello, you",
        "add": 5,
        "version": 3,
        "error": ["TypeError", "no", {"code": "E_NO"}],
    }
    assert told["cancelled"] == 1_000_000


async def test_a_page_that_does_not_read_stops_the_generator(node: Node) -> None:
    async with serving(Api()) as (url, _):
        made = await node.run("credit", url=url)
    assert 64 <= made["unread"] <= 66
    assert 200 < made["later"] < 3000
    assert made["unreadLarge"] <= 4, "262,144 bytes"


async def test_the_window_has_a_bound_in_chunks(node: Node) -> None:
    async with serving(Api()) as (url, _):
        made = await node.run("credit", url=url, limits={"streamChunks": 64})
    assert made["later"] <= 200 + 64 + 2


async def test_a_server_without_credit_is_bounded_by_the_client(node: Node) -> None:
    async with serving(Api()) as (url, _):
        told = await node.run("unbounded", url=url)
    assert told["error"] == "LimitExceeded"
    assert 25 <= told["count"] <= 50


@pytest.mark.parametrize("features", [["credit", "batch", "cancel"], ["cancel"]], ids=["credit", "stock"])
async def test_what_the_page_produces_waits_for_the_server(node: Node, features: list[str]) -> None:
    async with serving(Api()) as (url, _):
        told = await node.run("producing", url=url, features=features)
    assert told["taken"] == 50
    if "credit" in features:
        assert told["made"] < 2000


async def test_the_end_of_the_server_ends_what_waits(node: Node) -> None:
    api = Api()
    async with serving(api) as (url, scope), anyio.create_task_group() as tasks:
        told: dict[str, Any] = {}

        async def client() -> None:
            told.update(await node.run("waits_for_the_end", url=url))

        tasks.start_soon(client)
        await api._is_waiting.wait()
        scope.cancel()
    assert told == {"code": 1001, "message": "the peer has closed the connection"}


async def test_nobody_there(node: Node) -> None:
    async with serving(Api()) as (url, _):
        pass
    assert "1006" in await node.run("nobody_there", url=url)
