"""`kk.sync`: channels for code without an event loop, from any thread, and clean after Ctrl+C."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import anyio
import pytest
from anyio.lowlevel import checkpoint

import kkrpc_py as kk
from kkrpc_py.channel.parking import current_parking
from kkrpc_py.channel.portal import Portal
from kkrpc_py.channel.threads import current_post
from kkrpc_py.channel.workers import WorkerPool
from kkrpc_py.transports.sockets import SocketByteStream

BOUND = 20.0
ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    gc.collect()
    until(lambda: not library_threads())


def library_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("kkrpc_py")]


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)  # another thread, or process, has yet to report


@contextlib.contextmanager
def linked(
    api: Any, client_api: Any = None, *, backend: str = "asyncio", **options: Any
) -> Iterator[tuple[Any, Any]]:
    """A blocking channel on each side of a socket pair; at the end nothing may be pending."""
    one, other = socket.socketpair()
    with (
        kk.sync.RPCChannel(one, expose=api, hello=False, backend=backend) as server,
        kk.sync.RPCChannel(other, expose=client_api, backend=backend, **options) as client,
    ):
        client.ready()
        yield server, client
        for channel in (server, client):
            connection = channel._channel.connection
            until(lambda c=channel, t=connection: c.closed or not (t.outgoing or t.incoming))
            until(lambda p=channel._portal: not p._errands)


class Mathematics:
    async def add(self, a: int, b: int = 10) -> int:
        return a + b


class Api:
    math = Mathematics()
    counter = 5
    theme = kk.writable("light")

    def __init__(self) -> None:
        self.log: list[Any] = []

    async def add(self, a: int, b: int) -> int:
        return a + b

    async def echo(self, value: Any, **more: Any) -> Any:
        return [value, more] if more else value

    async def fail(self) -> None:
        raise KeyError("moon")

    async def countdown(self, start: int) -> Any:
        for number in range(start, -1, -1):
            yield number

    def numbers(self, n: int) -> Any:
        yield from range(n)
        return n * 10

    async def broken(self) -> Any:
        yield 1
        yield 2
        raise ValueError("no three")

    async def forever(self) -> Any:
        try:
            i = 0
            while True:
                yield i
                i += 1
                await anyio.sleep(0.001)
        finally:
            self.log.append("closed")

    async def never(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.log.append("cancelled")

    def closed(self) -> list[Any]:
        return self.log

    async def call(self, function: Any, *args: Any) -> Any:
        return await function(*args)

    async def report(self, function: Any, n: int) -> None:
        for i in range(n):
            function.notify(i)

    async def total(self, numbers: Any) -> int:
        return sum([number async for number in numbers])

    async def first(self, numbers: Any) -> Any:
        return await anext(aiter(numbers))

    def total_blocking(self, numbers: Any) -> int:
        return sum(kk.sync.iterate(numbers))

    def run(self, steps: int, progress: Any) -> str:
        for step in range(steps):
            kk.sync.wait(progress(step))
        return "done"

    def ask(self, question: str) -> str:
        answer = kk.sync.current_channel().remote().answer(question)
        return f"{question} {answer}"

    def wait_for(self, function: Any) -> Any:
        try:
            return kk.sync.wait(function())
        except kk.KkrpcError as exc:
            self.log.append(type(exc))
            raise

    async def block(self) -> None:
        kk.sync.current_channel().remote().answer("?")

    @kk.inline
    def block_inline(self) -> None:
        kk.sync.wait(_value())


# Calls ------------------------------------------------------------------------------------------


def test_calls_block_until_they_are_answered(backend: str) -> None:
    with linked(Api(), backend=backend) as (_, client):
        api = client.remote()
        assert api.add(1, 2) == 3
        assert api.math.add(1) == 11
        assert api["math"]["add"](a=1, b=2) == 3
        assert api.echo(1, function=2) == [1, {"function": 2}]
        assert repr(api.math.add) == "<Remote 'math.add'>"
        with pytest.raises(kk.MethodNotFound):
            api.missing()
        with pytest.raises(AttributeError, match=r"channel\.set"):
            api.theme = "dark"
        with pytest.raises(AttributeError):
            del api.theme
        with pytest.raises(TypeError):
            iter(api)
        with pytest.raises(kk.NotSerializable):
            api.add(object(), 2)


def test_an_error_arrives_as_itself_with_the_line_that_called() -> None:
    with linked(Api()) as (_, client):
        with pytest.raises(KeyError) as caught:
            client.remote().fail()
    assert isinstance(caught.value, kk.RemoteError)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert (frames[0].filename, frames[0].line) == (__file__, "client.remote().fail()")


def test_properties_and_construction() -> None:
    class Shop:
        theme = kk.writable("light")
        counter = 5

    with linked(Api()) as (_, client):
        api = client.remote()
        assert (client.get(api.counter), client.get(api.theme)) == (5, "light")
        client.set(api.theme, "dark")
        assert client.get(api.theme) == "dark"
        with pytest.raises(kk.RemoteError):
            client.set(api.counter, 6)
        with pytest.raises(kk.RemoteError):
            client.construct(api.math)
        with pytest.raises(TypeError, match="path"):
            client.get("counter")


def test_a_timeout_of_the_call_and_of_the_channel(backend: str) -> None:
    api = Api()
    with linked(api, backend=backend, timeout=0.05) as (_, client):
        with pytest.raises(kk.CallTimeout):
            client.remote().never()
        until(lambda: api.log == ["cancelled"])
        with pytest.raises(TimeoutError, match=r"0\.01"):
            client.remote().never.with_options(timeout=0.01)()
        assert list(client.remote().with_options(timeout=None).countdown(2)) == [2, 1, 0]


def test_a_class_gives_types_and_conversions() -> None:
    class Typed(Protocol):
        def add(self, a: int, b: int) -> float: ...
        def countdown(self, start: int) -> Iterator[int]: ...

    with linked(Api()) as (_, client):
        api = client.remote(Typed)
        found = api.add(1, b=2)
        assert (found, type(found)) == (3.0, float)
        assert list(api.countdown(2)) == [2, 1, 0]
        with pytest.raises(AttributeError):
            api.ad(1, 2)


def test_a_local_call_takes_the_same_way() -> None:
    with linked(Api()) as (server, _):
        assert server.invoke_local("math.add", 1) == 11
        assert list(server.invoke_local("countdown", 2)) == [2, 1, 0]
        server.state.user = "ada"
        assert server._channel.state.user == "ada"


def test_many_threads_use_one_channel(backend: str) -> None:
    with linked(Api(), backend=backend) as (_, client):
        api = client.remote()

        def work(number: int) -> list[int]:
            sums = [api.add(number, i) for i in range(100)]
            return sums + list(api.countdown(50))

        with ThreadPoolExecutor(8) as threads:
            for number, found in enumerate(threads.map(work, range(8))):
                assert found == [number + i for i in range(100)] + list(range(50, -1, -1))


# Streams ----------------------------------------------------------------------------------------


def test_a_plain_loop_reads_a_stream(backend: str) -> None:
    with linked(Api(), backend=backend) as (_, client):
        api = client.remote()
        assert list(api.countdown(3)) == [3, 2, 1, 0]
        assert list(api.numbers(50_000)) == list(range(50_000))
        stream = api.numbers(5)
        assert isinstance(stream, kk.sync.Stream)
        assert (list(stream), stream.result()) == ([0, 1, 2, 3, 4], 50)
        assert (stream.method, stream.received, stream.ended) == ("numbers", 5, True)
        with pytest.raises(RuntimeError, match="once"):
            iter(stream)
        assert api.numbers(7).result() == 70


def test_stepped_by_hand_the_rest_is_for_a_loop() -> None:
    with linked(Api()) as (_, client):
        stream = client.remote().numbers(5)
        assert (next(stream), next(stream), list(stream), next(stream, None)) == (0, 1, [2, 3, 4], None)


def test_values_come_before_the_error() -> None:
    got = []
    with linked(Api()) as (_, client):
        with pytest.raises(ValueError, match="no three"):
            for value in client.remote().broken():
                got.append(value)
    assert got == [1, 2]


def test_leaving_the_loop_stops_the_producer(backend: str) -> None:
    api = Api()
    with linked(api, backend=backend) as (_, client):
        remote = client.remote()
        for value in remote.forever():
            if value == 3:
                break
        until(lambda: api.log == ["closed"])
        kept = remote.forever()
        with pytest.raises(ZeroDivisionError) as caught:
            for value in kept:
                value / 0
        until(lambda: api.log == ["closed"] * 2)
        with pytest.raises(kk.CallCancelled):
            kept.result()
        del caught
        remote.forever()  # dropped
        gc.collect()
        until(lambda: api.log == ["closed"] * 3)


def test_what_interrupts_the_wait_for_a_value_stops_the_producer_at_once() -> None:
    api = Api()
    with linked(api) as (_, client):
        values = iter(client.remote().forever())
        next(values)
        with pytest.raises(KeyboardInterrupt) as caught:
            values.throw(KeyboardInterrupt())
        until(lambda: api.log == ["closed"])  # although the traceback still holds the iterator
        assert caught.tb is not None


def test_a_stream_as_a_block_and_its_cancel(backend: str) -> None:
    api = Api()
    with linked(api, backend=backend) as (_, client):
        with client.remote().forever() as stream:
            assert next(iter(stream)) == 0
        assert api.log == ["closed"]  # the end of the block waited for it
        stream = client.remote().forever()
        stream.cancel()
        assert api.log == ["closed"] * 2
        with pytest.raises(kk.CallCancelled):
            list(stream)
    stream.cancel()  # of a closed channel: nothing to do


# Functions and streams as arguments ---------------------------------------------------------------


def test_functions_are_called_on_a_thread_in_order(backend: str) -> None:
    seen: list[Any] = []
    with linked(Api(), backend=backend) as (_, client):
        api = client.remote()
        loop_thread = client._loop._thread.ident

        def progress(value: int) -> int:
            seen.append(value)
            assert threading.get_ident() not in {loop_thread, threading.main_thread().ident}
            return api.add(value, 100)  # a function may call, as other code may

        assert api.call(progress, 1) == 101
        seen.clear()
        api.report(progress, 300)
        until(lambda: len(seen) == 300)
        assert seen == list(range(300))


def test_functions_that_call_one_another_over_the_channel_do_not_block_it() -> None:
    with linked(Api()) as (_, client):
        api = client.remote()

        def descend(depth: int) -> int:
            return 0 if depth == 0 else 1 + api.call(descend, depth - 1)

        assert api.call(descend, 5) == 5


def test_what_a_function_raises_reaches_its_caller() -> None:
    def refuse() -> None:
        raise PermissionError("not now")

    with linked(Api()) as (_, client):
        with pytest.raises(PermissionError, match="not now"):
            client.remote().call(refuse)


def test_generators_and_iterators_are_streams(backend: str) -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            i = 7
            while True:
                yield i
        finally:
            closed.set()

    async def asynchronous() -> Any:
        for i in range(4):
            yield i

    with linked(Api(), backend=backend) as (_, client):
        api = client.remote()
        assert api.total(i for i in range(1000)) == 499_500
        assert api.total(iter([1, 2, 3])) == 6
        assert api.total(asynchronous()) == 6
        assert api.total(api.countdown(4)) == 10
        assert api.total_blocking(i for i in range(1000)) == 499_500
        assert api.first(endless()) == 7
        assert closed.wait(BOUND)


# Handlers -----------------------------------------------------------------------------------------


class Client:
    def answer(self, question: str) -> str:
        return "yes" if question.endswith("?") else "what?"


def test_a_def_handler_waits_for_what_is_awaitable(backend: str) -> None:
    steps: list[int] = []
    with linked(Api(), Client(), backend=backend) as (_, client):
        api = client.remote()
        assert api.run(3, steps.append) == "done"
        assert steps == [0, 1, 2]
        assert api.ask("may I?") == "may I? yes"


async def _value() -> int:
    return 3


def test_blocking_an_event_loop_is_refused(backend: str) -> None:
    with linked(Api(), Client(), backend=backend) as (_, client):
        api = client.remote()
        for method in (api.block, api.block_inline):
            with pytest.raises(RuntimeError, match="blocking call on an event loop"):
                method()
        assert client.wait(_value()) == 3
        with pytest.raises(RuntimeError, match="on an event loop"):
            client.wait(_block(lambda: client.remote().add(1, 2)))
        with pytest.raises(RuntimeError, match="use the asynchronous one"):
            client.wait(_block(lambda: kk.sync.RPCChannel(("a", "b")).__enter__()))
    with pytest.raises(LookupError):
        kk.sync.wait(anyio.Event())  # type: ignore[arg-type]  # outside of handlers all is refused
    with pytest.raises(LookupError):
        kk.sync.current_channel()


async def _block(function: Callable[[], Any]) -> Any:
    return function()


def test_a_cancelled_handler_waits_no_more(backend: str) -> None:
    api = Api()
    with linked(api, backend=backend) as (_, client):
        with pytest.raises(kk.CallTimeout):
            client.remote().wait_for.with_options(timeout=0.05)(anyio.sleep_forever)
        until(lambda: api.log == [kk.CallCancelled])


def test_the_end_of_the_channel_ends_the_wait_of_a_handler(backend: str) -> None:
    api = Api()
    entered = threading.Event()

    async def never() -> None:
        entered.set()
        await anyio.sleep_forever()

    one, other = socket.socketpair()
    with kk.sync.RPCChannel(one, expose=api, hello=False, backend=backend):
        with kk.sync.RPCChannel(other, backend=backend) as client, ThreadPoolExecutor(1) as threads:
            pending = threads.submit(client.remote().wait_for, never)
            assert entered.wait(BOUND)
            client.close()
            with pytest.raises(kk.ChannelClosed):
                pending.result(BOUND)
        until(lambda: api.log)
    assert api.log[0] in {kk.ChannelClosed, kk.CallCancelled}


def test_the_callers_context_is_seen_by_what_runs_for_the_call() -> None:
    user = contextvars.ContextVar("user", default="nobody")
    seen: list[Any] = []

    def provider() -> dict[str, Any]:
        return {"user": user.get()}

    async def note(ctx: kk.CallContext, next: Any) -> Any:
        seen.append(ctx.meta["user"])
        return await next()

    one, other = socket.socketpair()
    with (
        kk.sync.RPCChannel(one, expose=Api(), hello=False, interceptors=[note]),
        kk.sync.RPCChannel(other, metadata=provider) as client,
    ):
        api = client.remote()

        def call(name: str) -> None:
            user.set(name)
            api.add(1, 2)

        for name in ("ada", "bob"):
            contextvars.copy_context().run(call, name)
        api.add(1, 2)
    assert seen == ["ada", "bob", "nobody"]


@pytest.mark.parametrize("around", ["asyncio", "trio"])
def test_within_somebody_elses_event_loop_it_works_as_in_a_notebook(around: str, backend: str) -> None:
    with linked(Api(), backend=backend) as (_, client):

        async def cell() -> Any:
            # With a timeout, for which it matters which event loop is taken for the running one.
            api = client.remote().with_options(timeout=BOUND)
            return api.add(1, 2), list(api.countdown(2))

        assert anyio.run(cell, backend=around) == (3, [2, 1, 0])


def test_what_the_loop_has_not_begun_when_it_ends_is_not_waited_for(backend: str) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            pool = WorkerPool(tasks, current_parking())
            closed = kk.ChannelClosed("over")
            portal = Portal(pool, current_post(), lambda: closed, contextvars.copy_context())
            with ThreadPoolExecutor(1) as threads:
                begun = threads.submit(portal.run, _value)
                while not begun.done():
                    await checkpoint()
                late = threads.submit(portal.wait, _value())
                until(lambda: portal._errands)  # the loop does not run meanwhile
                portal.close()
                pool.close()
                assert late.exception(BOUND) is closed
                assert threads.submit(portal.wait, _value()).exception(BOUND) is closed
            assert begun.result() == 3

    anyio.run(main, backend=backend)


# The life of a channel ------------------------------------------------------------------------------


def test_before_and_after_its_block_a_channel_says_so(backend: str) -> None:
    one, other = socket.socketpair()
    channel = kk.sync.RPCChannel(one, backend=backend)
    with pytest.raises(RuntimeError, match="enter the channel first"):
        channel.remote()
    assert not channel.closed
    with channel:
        api = channel.remote()
        with pytest.raises(RuntimeError, match="once"):
            channel.__enter__()
    assert channel.closed
    for use in (lambda: api.add(1, 2), channel.ready, lambda: channel.wait(_value())):
        with pytest.raises(kk.ChannelClosed, match="by this side"):
            use()
    channel.wait_closed()
    channel.close()
    other.close()


def test_the_end_of_the_block_ends_what_waits_in_other_threads(backend: str) -> None:
    api = Api()
    with linked(api, backend=backend) as (_, client), ThreadPoolExecutor(3) as threads:
        remote = client.remote()
        stream = remote.forever()
        waiting = [
            threads.submit(remote.never),
            threads.submit(lambda: list(stream)),
            threads.submit(client.wait_closed),
        ]
        until(lambda: stream.received > 3)
        client.close()
        for pending in waiting[:2]:
            with pytest.raises(kk.ChannelClosed):
                pending.result(BOUND)
        assert waiting[2].result(BOUND) is None


def test_what_cannot_be_opened_raises_and_leaves_nothing(backend: str, tmp_path: Path) -> None:
    with pytest.raises(OSError), kk.sync.connect_unix(tmp_path / "nobody", backend=backend):
        pass
    with pytest.raises(FileNotFoundError), kk.sync.open_process([str(tmp_path / "nothing")], backend=backend):
        pass
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(OSError), kk.sync.connect_tcp("127.0.0.1", port, backend=backend):
        pass
    with pytest.raises(LookupError), kk.sync.RPCChannel(lambda: None, backend="twisted"):
        pass
    with ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(socket.socket(), server_hostname="x") as secured:
        with pytest.raises(TypeError, match="ssl_context"), kk.sync.RPCChannel(secured):
            pass
    assert not library_threads()


def test_a_channel_that_was_forgotten_ends() -> None:
    one, other = socket.socketpair()
    channel = kk.sync.RPCChannel(one)
    channel.__enter__()
    assert library_threads()
    del channel
    gc.collect()
    until(lambda: not library_threads())
    assert other.recv(1 << 16).startswith(b"{")
    assert other.recv(1) == b""
    other.close()


@pytest.mark.parametrize("how", ["socket", "function", "async function", "stream"])
def test_what_a_byte_stream_may_be(how: str) -> None:
    one, other = socket.socketpair()

    async def connect() -> Any:
        return SocketByteStream(one)

    made: Any = {
        "socket": lambda: one,
        "function": lambda: lambda: SocketByteStream(one),
        "async function": lambda: connect,
        "stream": lambda: SocketByteStream(one),
    }[how]()
    with kk.sync.RPCChannel(made, expose=Api(), hello=False), kk.sync.RPCChannel(other) as client:
        assert client.remote().add(1, 2) == 3


CHILD = """
import os, signal, sys, time, threading
import anyio
import kkrpc_py as kk

class Api:
    cancelled = 0
    async def add(self, a, b): return a + b
    async def pid(self): return os.getpid()
    async def count(self): return Api.cancelled
    async def die(self):
        print("last words", file=sys.stderr, flush=True)
        os._exit(3)
    async def never(self, started):
        try:
            await started()
            await anyio.sleep_forever()
        finally:
            Api.cancelled += 1
    async def forever(self):
        try:
            for i in range(10**9):
                yield i
                await anyio.sleep(0.001)
        finally:
            Api.cancelled += 1

kk.run_stdio(Api())
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)
"""


@pytest.fixture
def child(tmp_path: Path) -> list[str]:
    (tmp_path / "child.py").write_text(CHILD)
    return [sys.executable, str(tmp_path / "child.py")]


def test_the_files_of_a_process_are_a_byte_stream(child: list[str]) -> None:
    with subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT) as process:
        with kk.sync.RPCChannel((process.stdout, process.stdin)) as channel:
            assert channel.remote().pid() == process.pid
        assert process.wait(BOUND) == 0


def test_a_child_that_dies_is_told_of(backend: str, child: list[str]) -> None:
    with kk.sync.open_process(child, env=ENVIRONMENT, backend=backend) as channel:
        api = channel.remote()
        assert api.add(1, 2) == 3
        pid = api.pid()
        with pytest.raises(kk.ChannelClosed, match="last words") as caught:
            api.die()
        assert caught.value.exit_code == 3
        channel.wait_closed()
        assert channel.closed
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# Ctrl+C ---------------------------------------------------------------------------------------------

PARENT = """
import os, signal, sys, threading, time
import kkrpc_py as kk

signal.signal(signal.SIGINT, signal.default_int_handler)
mode, backend, *command = sys.argv[1:]

def say(*words):
    print(*words, flush=True)

def say_when_closed(channel):
    while not channel.closed:
        time.sleep(0.001)
    say("closing")

if mode == "opening":
    import anyio
    async def never():
        say("waiting")
        await anyio.sleep_forever()
    try:
        with kk.sync.RPCChannel(never, backend=backend):
            pass
    except KeyboardInterrupt:
        say("interrupted", threading.active_count())
    sys.exit()

with kk.sync.open_process(command, backend=backend) as channel:
    api = channel.remote()
    say(api.pid())
    try:
        if mode in {"call", "uncaught"}:
            api.never(lambda: say("waiting"))
        elif mode == "stream":
            for number in api.forever():
                if number == 5:
                    say("waiting")
        elif mode == "closing":
            threading.Thread(target=say_when_closed, args=(channel,), daemon=True).start()
    except KeyboardInterrupt:
        if mode == "uncaught":
            raise
        say("interrupted")
        while api.count() != 1:
            time.sleep(0.001)
        say("cancelled", api.add(1, 2))
say("threads", threading.active_count())
"""


class Parent:
    """A program of its own that is interrupted at a point that it names."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)


@contextlib.contextmanager
def parent(tmp_path: Path, *arguments: str) -> Iterator[Parent]:
    (tmp_path / "parent.py").write_text(PARENT)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py"), *arguments],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    watchdog = threading.Timer(BOUND, process.kill)
    watchdog.start()
    try:
        with process:
            yield Parent(process)
            process.kill()
    finally:
        watchdog.cancel()
        watchdog.join()


@pytest.mark.parametrize("mode", ["call", "stream"])
def test_an_interrupted_wait_cancels_its_call_alone(
    mode: str, backend: str, tmp_path: Path, child: list[str]
) -> None:
    with parent(tmp_path, mode, backend, *child) as program:
        pid = int(program.line())
        assert program.line() == "waiting"
        program.interrupt()
        assert program.line() == "interrupted"
        assert program.line() == "cancelled 3"  # and the channel goes on
        assert program.line() == "threads 1"
        assert program.process.wait() == 0
    assert_gone(pid)


def test_an_interrupt_that_leaves_the_block_ends_the_child(
    backend: str, tmp_path: Path, child: list[str]
) -> None:
    with parent(tmp_path, "uncaught", backend, *child) as program:
        pid = int(program.line())
        assert program.line() == "waiting"
        program.interrupt()
        stderr = program.process.stderr.read() if program.process.stderr is not None else ""
        assert stderr.rstrip().endswith("KeyboardInterrupt")
        assert program.process.wait() == -signal.SIGINT
    assert_gone(pid)


def test_an_interrupt_while_closing_kills_a_child_that_takes_its_time(
    backend: str, tmp_path: Path, child: list[str]
) -> None:
    with parent(tmp_path, "closing", backend, *child, "stubborn") as program:
        pid = int(program.line())
        assert program.line() == "closing"
        begun = time.monotonic()
        program.interrupt()
        assert program.process.wait() == -signal.SIGINT
        assert time.monotonic() - begun < 4  # it would have taken seven seconds
    assert_gone(pid)


def test_an_interrupt_while_opening(backend: str, tmp_path: Path) -> None:
    with parent(tmp_path, "opening", backend) as program:
        assert program.line() == "waiting"
        program.interrupt()
        assert program.line() == "interrupted 1"
        assert program.process.wait() == 0


def assert_gone(pid: int) -> None:
    def gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    until(gone)
