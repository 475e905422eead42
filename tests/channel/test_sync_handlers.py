"""`def` handlers and sync generators: on threads of their own, bounded, left behind where they block."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from tests.channel.harness import BOUND, Log, assert_quiet, handler_threads, linked, threads_gone, until

pytestmark = pytest.mark.anyio

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


class API:
    def __init__(self) -> None:
        self.log = Log()
        self.release = threading.Event()
        self.running = 0
        self.most = 0
        self.lock = threading.Lock()

    def add(self, a: int, b: int) -> int:
        return a + b

    def where(self) -> list[Any]:
        thread = threading.current_thread()
        return [thread.ident, thread.daemon, thread.name]

    @kk.inline
    def where_inline(self) -> int:
        return threading.get_ident()

    async def where_async(self) -> int:
        return threading.get_ident()

    def where_generator(self) -> Any:
        while True:
            yield threading.get_ident()

    def blocked(self, value: int) -> int:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.log(("in", value))
        self.release.wait(60)
        with self.lock:
            self.running -= 1
        self.log(("out", value))
        return value

    def numbers(self, n: int) -> Any:
        for i in range(n):
            yield i
        return n * 10

    def endless(self) -> Any:
        i = 0
        try:
            while True:
                yield i
                i += 1
        finally:
            self.log("finally")

    def blocked_generator(self) -> Any:
        try:
            yield 1
            self.log("blocked")
            self.release.wait(60)
            yield 2
        finally:
            self.log("finally")

    def failing(self) -> Any:
        yield 1
        yield 2
        raise ValueError("broken")

    def fails_at_once(self) -> Any:
        raise ValueError("at once")
        yield

    def fails_at_close(self) -> Any:
        try:
            while True:
                yield 1
        finally:
            self.log("finally")
            raise ValueError("from the cleanup")

    def ignores_close(self) -> Any:
        try:
            while True:
                yield 1
        except GeneratorExit:
            self.log("finally")
            yield 2

    def returns_generator(self) -> Any:
        return self.numbers(3)

    def returns_coroutine(self) -> Any:
        return self.coroutine()

    async def coroutine(self) -> str:
        return "awaited"


async def test_def_handlers_run_on_daemon_threads() -> None:
    async with linked(API()) as (_, client):
        api = client.remote()
        ident, daemon, name = await api.where()
        assert ident != threading.get_ident()
        assert daemon
        assert name.startswith("kkrpc_py")
        assert await api.where_inline() == threading.get_ident()
        assert await api.where_async() == threading.get_ident()
        async for value in api.where_generator():
            assert value != threading.get_ident()
            break
        assert await api.add(1, 2) == 3
        assert await api.returns_coroutine() == "awaited"
        assert [v async for v in api.returns_generator()] == [0, 1, 2]


async def test_a_thread_is_used_again() -> None:
    async with linked(API()) as (_, client):
        idents = {(await client.remote().where())[0] for _ in range(20)}
        assert len(idents) <= 2  # a thread has answered a moment before it is free


async def test_blocked_handlers_hold_up_neither_loop_nor_reader() -> None:
    api = API()
    async with linked(api) as (_, client):
        results: list[int] = []

        async def call(i: int) -> None:
            results.append(await client.remote().blocked(i))

        async with anyio.create_task_group() as tg:
            for i in range(5):
                tg.start_soon(call, i)
            await until(lambda: api.running == 5)
            for _ in range(10):
                assert await client.remote().where_async()
                assert await client.remote().add(1, 1) == 2
            api.release.set()
        assert sorted(results) == [0, 1, 2, 3, 4]


async def test_the_number_of_threads_is_bounded() -> None:
    api = API()
    threads = handler_threads()
    async with linked(api, limits=kk.Limits(threads=3)) as (_, client):
        results: list[int] = []

        async def call(i: int) -> None:
            results.append(await client.remote().blocked(i))

        async with anyio.create_task_group() as tg:
            for i in range(10):
                tg.start_soon(call, i)
            await until(lambda: api.running == 3)
            await anyio.wait_all_tasks_blocked()
            assert api.running == 3
            assert len(handler_threads()) - len(threads) == 3
            api.release.set()
        assert sorted(results) == list(range(10))
        assert api.most == 3
    await threads_gone(threads)


async def test_a_cancelled_call_leaves_its_thread_to_itself() -> None:
    """The caller and the table are free at once; the thread counts until it ends."""
    api = API()
    threads = handler_threads()
    async with linked(api) as (server, client):
        async with anyio.create_task_group() as tg:
            tg.start_soon(client.remote().blocked, 1)
            await until(lambda: api.running == 1)
            tg.cancel_scope.cancel()
        await assert_quiet(server, client)
        assert api.running == 1
        assert await client.remote().add(1, 1) == 2
        api.release.set()
        await until(lambda: api.running == 0)
    await threads_gone(threads)


async def test_a_call_cancelled_while_it_waits_for_a_thread_never_runs() -> None:
    api = API()
    async with linked(api, limits=kk.Limits(threads=1)) as (server, client):
        async with anyio.create_task_group() as tg:
            tg.start_soon(client.remote().blocked, 1)
            await until(lambda: api.running == 1)
            async with anyio.create_task_group() as inner:
                inner.start_soon(client.remote().blocked, 2)
                await until(lambda: len(server.connection.incoming) == 2)
                await anyio.wait_all_tasks_blocked()
                inner.cancel_scope.cancel()
            await until(lambda: len(server.connection.incoming) == 1)
            api.release.set()
        assert await client.remote().add(1, 1) == 2
        assert ("in", 2) not in api.log.entries


async def test_a_generator_cancelled_while_it_waits_for_a_thread_never_runs() -> None:
    api = API()
    async with linked(api, limits=kk.Limits(threads=1, cleanup_seconds=0.5)) as (server, client):
        first = await client.remote().endless()
        await anext(first)  # it has the only thread of generators, and keeps it
        second = await client.remote().endless()
        cancelled = anyio.Event()

        async def cancel() -> None:
            await second.cancel()
            cancelled.set()

        async with anyio.create_task_group() as tg:
            tg.start_soon(cancel)
            await until(lambda: any(call.stopping() for call in server.connection.incoming.values()))
            await first.cancel()
            await cancelled.wait()
        assert api.log.entries.count("finally") == 1


async def test_the_context_of_the_call_reaches_the_thread() -> None:
    class Contextual:
        def read(self) -> str:
            return VAR.get()

        def generator(self) -> Any:
            yield VAR.get()
            VAR.set("changed")
            yield VAR.get()

    async def setting(ctx: kk.CallContext, next: kk.Next) -> Any:
        VAR.set("from the interceptor")
        return await next()

    async with linked(Contextual(), interceptors=[setting]) as (_, client):
        assert await client.remote().read() == "from the interceptor"
        seen = [v async for v in client.remote().generator()]
        assert seen == ["from the interceptor", "changed"]
        assert VAR.get() == "unset"


# Sync generators -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 5000])
async def test_a_sync_generator_and_its_return_value(n: int) -> None:
    async with linked(API()) as (_, client):
        call = client.remote().numbers(n)
        assert [v async for v in call] == list(range(n))
        assert await call == n * 10


async def test_the_errors_of_a_sync_generator() -> None:
    async with linked(API()) as (_, client):
        seen = []
        with pytest.raises(ValueError, match="broken"):
            async for value in client.remote().failing():
                seen.append(value)
        assert seen == [1, 2]
        with pytest.raises(ValueError, match="at once"):
            async for _ in client.remote().fails_at_once():
                pass


async def test_a_sync_generator_is_cancelled_at_its_next_yield() -> None:
    api = API()
    async with linked(api, limits=kk.Limits(cleanup_seconds=30)) as (_, client):
        stream = await client.remote().blocked_generator()
        assert await anext(stream) == 1
        await until(lambda: "blocked" in api.log.entries)
        async with anyio.create_task_group() as tg:
            tg.start_soon(stream.cancel)
            await anyio.wait_all_tasks_blocked()
            assert "finally" not in api.log.entries
            api.release.set()
        assert api.log.entries == ["blocked", "finally"]


async def test_a_sync_generator_that_stays_blocked_is_given_up() -> None:
    """After `cleanup_seconds` the cancel is answered, and the thread left to itself."""
    api = API()
    threads = handler_threads()
    async with linked(api, limits=kk.Limits(cleanup_seconds=0.1)) as (_, client):
        stream = await client.remote().blocked_generator()
        assert await anext(stream) == 1
        await until(lambda: "blocked" in api.log.entries)
        with anyio.fail_after(5):
            await stream.cancel()
        assert "finally" not in api.log.entries
        api.release.set()
        await until(lambda: "finally" in api.log.entries)
    await threads_gone(threads)


@pytest.mark.parametrize("kind", ["fails_at_close", "ignores_close"])
async def test_a_sync_generator_whose_close_goes_wrong(kind: str) -> None:
    api = API()
    async with linked(api) as (server, client):
        stream = await client.remote()[kind]()
        assert await anext(stream) == 1
        await stream.cancel()
        assert api.log.entries == ["finally"]
        await assert_quiet(server, client)
        assert await client.remote().add(1, 1) == 2


async def test_the_queue_ahead_of_a_stream_is_bounded() -> None:
    produced = 0

    class Greedy:
        def greedy(self) -> Any:
            nonlocal produced
            while True:
                produced += 1
                yield produced

    async with linked(Greedy()) as (_, client):
        stream = await client.remote().greedy()
        before = -1
        while before != produced:
            before = produced
            await anyio.sleep(0.05)
        assert produced <= 64 + 256 + 2
        await stream.cancel()


async def test_many_sync_generators_share_the_threads_in_turn() -> None:
    """More streams than threads: those that wait for one are served when others end."""
    async with linked(API(), limits=kk.Limits(threads=2)) as (_, client):
        complete: list[int] = []

        async def consume(i: int) -> None:
            call = client.remote().numbers(i)
            assert [v async for v in call] == list(range(i))
            complete.append(i)

        async with anyio.create_task_group() as tg:
            for i in range(20):
                tg.start_soon(consume, i)
        assert sorted(complete) == list(range(20))


@pytest.mark.parametrize("streams", [1, 3])
async def test_a_full_sync_generator_gives_its_thread_back(streams: int) -> None:
    """Else `def` handlers called from the loops over such streams would wait for ever."""
    api = API()
    async with linked(api, limits=kk.Limits(threads=1)) as (_, client):
        complete: list[int] = []

        async def consume(index: int) -> None:
            async for value in client.remote().endless():
                assert await client.remote().add(value, 1) == value + 1
                if value == 1000:
                    complete.append(index)
                    break

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tg:
                for index in range(streams):
                    tg.start_soon(consume, index)
        assert sorted(complete) == list(range(streams))
    assert api.log.entries == ["finally"] * streams


async def test_a_sync_generator_whose_channel_closes_is_stopped() -> None:
    api = API()
    threads = handler_threads()
    with anyio.fail_after(BOUND):
        async with kk.memory_pair(api) as (_, client):
            streams = [await client.remote().endless() for _ in range(5)]
            for stream in streams:
                assert await anext(stream) == 0
        await until(lambda: api.log.entries.count("finally") == 5)
    await threads_gone(threads)


async def test_an_inline_sync_generator() -> None:
    log = Log()

    class Inline:
        @kk.inline
        def numbers(self, n: int) -> Any:
            try:
                for i in range(n):
                    yield i
                return "done"
            finally:
                log("finally")

        @kk.inline
        def failing(self) -> Any:
            yield 1
            raise ValueError("broken")

    async with linked(Inline()) as (_, client):
        call = client.remote().numbers(1000)
        assert [v async for v in call] == list(range(1000))
        assert await call == "done"
        async for _ in client.remote().numbers(100_000):
            break
        await until(lambda: log.entries.count("finally") == 2)
        with pytest.raises(ValueError, match="broken"):
            async for _ in client.remote().failing():
                pass


async def test_callable_objects_and_partials() -> None:
    import functools

    class Callable:
        def __call__(self, a: int) -> int:
            return a + 1

    class AsyncCallable:
        async def __call__(self, a: int) -> list[Any]:
            return [a + 1, threading.get_ident()]

    def subtract(a: int, b: int) -> int:
        return a - b

    api = {
        "callable": Callable(),
        "async_callable": AsyncCallable(),
        "partial": functools.partial(subtract, 10),
        "lambda": lambda: 5,
        "builtin": len,
    }
    async with linked(api) as (_, client):
        remote = client.remote()
        assert await remote.callable(1) == 2
        assert await remote.async_callable(1) == [2, threading.get_ident()]
        assert await remote.partial(3) == 7
        assert await remote["lambda"]() == 5
        assert await remote.builtin([1, 2]) == 2


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_thread_that_ends_after_the_loop_has_closed(backend: str) -> None:
    """It reports to a loop that is gone: nobody is told, and nothing is raised."""
    api = API()
    threads = handler_threads()
    errors: list[Any] = []
    hook, threading.excepthook = threading.excepthook, errors.append

    async def main() -> None:
        with anyio.fail_after(BOUND):
            async with kk.memory_pair(api) as (_, client):
                async with anyio.create_task_group() as tg:
                    tg.start_soon(client.remote().blocked, 1)
                    stream = await client.remote().blocked_generator()
                    assert await anext(stream) == 1
                    await until(lambda: api.running == 1 and "blocked" in api.log.entries)
                    tg.cancel_scope.cancel()

    try:
        anyio.run(main, backend=backend)
        api.release.set()
        for thread in handler_threads():
            if thread not in threads:
                thread.join(BOUND)
                assert not thread.is_alive()
    finally:
        threading.excepthook = hook
    assert not errors
