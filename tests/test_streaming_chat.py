"""examples/streaming_chat with real processes: a connection is cut, a client killed, no token lost."""

from __future__ import annotations

import contextlib
import os
import re
import runpy
import shutil
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from subprocess import PIPE
from typing import TypeAlias

import anyio
import pytest
from anyio.abc import ByteStream, Process

import kkrpc_py as kk

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "streaming_chat"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
ANSWERS: dict[str, str] = runpy.run_path(str(EXAMPLE / "server.py"))["ANSWERS"]
TOKENS = [re.split("(?<= )", answer) for answer in ANSWERS.values()]
TRANSCRIPT = "".join(f"> {question}\n{answer}\n" for question, answer in ANSWERS.items())

SECONDS = 60
"""No test waits longer for anything."""


class Program:
    """A process of the example, and what it has printed."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.printed = ""
        self.ended = False
        self._more = anyio.Event()

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for data in self.process.stdout:
            self.printed += data.decode()
            self._wake()
        self.ended = True
        self._wake()

    async def until(self, holds: Callable[[str], bool]) -> None:
        while not holds(self.printed):
            assert not self.ended, f"it ended: {self.printed!r}"
            await self._more.wait()

    async def exit_code(self) -> int:
        while not self.ended:
            await self._more.wait()
        return await self.process.wait()

    def _wake(self) -> None:
        self._more.set()
        self._more = anyio.Event()


Start: TypeAlias = Callable[..., Awaitable[Program]]


@contextlib.asynccontextmanager
async def programs(folder: Path) -> AsyncGenerator[Start]:
    """Starts programs of the example in `folder`; what still runs at the end is killed."""
    async with contextlib.AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        errors = stack.enter_context((folder / "errors").open("wb"))
        started: list[Process] = []

        async def start(*command: str) -> Program:
            process = await anyio.open_process(
                command, cwd=folder, env=ENVIRONMENT, stdin=None, stdout=PIPE, stderr=errors
            )
            stack.push_async_exit(process)
            started.append(process)
            program = Program(process)
            tasks.start_soon(program.read)
            return program

        try:
            yield start
        finally:
            for process in started:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
    assert (folder / "errors").read_text() == ""


class Cutter:
    """A Unix socket in front of another one, whose connections can be cut."""

    def __init__(self, folder: Path, front: str, back: str) -> None:
        self._front, self._back = str(folder / front), str(folder / back)
        self._open: set[ByteStream] = set()
        self.connections = 0

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncGenerator[None]:
        async with (
            await anyio.create_unix_listener(self._front) as listener,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(listener.serve, self._join)
            yield
            tasks.cancel_scope.cancel()

    async def _join(self, client: ByteStream) -> None:
        self.connections += 1
        async with client, await anyio.connect_unix(self._back) as server, anyio.create_task_group() as tasks:
            self._open |= {client, server}
            tasks.start_soon(self._carry, client, server)
            tasks.start_soon(self._carry, server, client)

    async def _carry(self, source: ByteStream, target: ByteStream) -> None:
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for data in source:
                await target.send(data)
        await self.cut(source, target)

    async def cut(self, *streams: ByteStream) -> None:
        for stream in streams or tuple(self._open):
            self._open.discard(stream)
            await anyio.aclose_forcefully(stream)


def shown(messages: int, tokens: int) -> str:
    """What a client has printed after so many whole messages, and so many tokens of the next one."""
    whole = [f"> {question}\n{answer}\n" for question, answer in list(ANSWERS.items())[:messages]]
    return "".join(whole) + f"> {list(ANSWERS)[messages]}\n" + "".join(TOKENS[messages][:tokens])


async def play(folder: Path, client: list[str], client_that_asks: list[str]) -> None:
    """Two clients, of which one is killed and one loses its connection, both in the middle of an answer."""
    cutter = Cutter(folder, "cut", "server")
    async with programs(folder) as start, cutter.serve():
        server = await start(sys.executable, str(EXAMPLE / "server.py"), "server", "--paced")
        await server.until(lambda text: text == "listening on server\n")
        async with kk.connect_unix(folder / "server") as channel:

            async def go_on(count: int) -> None:
                for _ in range(count):
                    await channel.remote().streams.emit("next")

            ada = await start(
                *client_that_asks, "cut", "--messages", "3", *(f"--ask={each}" for each in ANSWERS)
            )
            bob = await start(*client, "server", "--messages", "3")
            await go_on(len(TOKENS[0]) + 6)
            for each in (ada, bob):
                await each.until(lambda text: text == shown(1, 6))

            bob.process.kill()
            assert await bob.exit_code() == -signal.SIGKILL
            await cutter.cut()
            await go_on(6)
            bob_again = await start(*client, "server", "--messages", "3")
            for each in (ada, bob_again):
                await each.until(lambda text: text == shown(1, 12))
            assert cutter.connections == 2

            await go_on(len(TOKENS[1]) - 12 + len(TOKENS[2]))
            for each in (ada, bob_again):
                assert await each.exit_code() == 0
                assert each.printed == TRANSCRIPT
            assert bob.printed == shown(1, 6)

            async with kk.streams(channel).shared_state("chat-log") as log:
                logged = [(message["question"], message["answer"]) for message in log.value["messages"]]
            assert logged == list(ANSWERS.items())

        server.process.send_signal(signal.SIGINT)
        assert await server.exit_code() == 0


async def test_two_clients_see_it_all_whatever_happens_to_them(tmp_path: Path) -> None:
    client = [sys.executable, str(EXAMPLE / "client.py")]
    with anyio.fail_after(SECONDS):
        await play(tmp_path, client, client)


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node on the path")
async def test_the_same_in_javascript(tmp_path: Path) -> None:
    client = ["node", str(EXAMPLE / "client.mjs")]
    with anyio.fail_after(SECONDS):
        await play(tmp_path, client, client)
