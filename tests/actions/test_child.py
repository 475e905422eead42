"""Actions of a real child process, over its stdin and stdout."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from tests.channel.harness import BOUND, until

pytestmark = pytest.mark.anyio

CHILD = """
import dataclasses, json, sys
from pathlib import Path
import anyio
import kkrpc_py as kk

LOG = Path(sys.argv[1])

def note(entry):
    with LOG.open("a") as file:
        file.write(json.dumps(entry) + "\\n")

@dataclasses.dataclass
class Job:
    size: int
    name: str = "job"

async def admit(ctx):
    print("on stdout", ctx.input.name)
    if ctx.input.name == "refused":
        raise kk.ActionError("NOT_ADMITTED", "not you", 403)

class API:
    made = 0

    @kk.stream_action(input=Job, middleware=[admit])
    async def work(self, input, ctx, stream):
        stream.signal.on_cancel(lambda: note("signal"))
        try:
            for number in range(input.size):
                await stream.send({"number": number, "text": "ü€😀" * 3})
                self.made += 1
            if input.name == "fails":
                raise kk.ActionError("BROKEN", "half way", 503, field_errors={"a.b": ["c"]})
            if input.name == "breaks":
                raise ValueError("hunter2")
            if input.name == "parks":
                await anyio.sleep_forever()
        finally:
            note("finally")

    async def count(self):
        return self.made

kk.run_stdio(API(), backend=sys.argv[2])
"""


class Child:
    def __init__(self, path: Path, backend: str) -> None:
        self.program = path / "child.py"
        self.program.write_text(CHILD)
        self.log = path / "log.jsonl"
        self.log.touch()
        self.backend = backend

    def open(self, **options: Any) -> Any:
        command = [sys.executable, str(self.program), str(self.log), self.backend]
        return kk.open_process(command, stderr=options.pop("stderr", "log"), **options)

    def noted(self) -> list[Any]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def child(tmp_path: Path, anyio_backend: Any) -> Child:
    return Child(tmp_path, anyio_backend[0])


def told(numbers: Any) -> list[Any]:
    return [{"number": number, "text": "ü€😀" * 3} for number in numbers]


async def test_everything_that_an_action_does(child: Child) -> None:
    said: list[str] = []
    with anyio.fail_after(BOUND * 2):
        async with child.open(stderr=said.append) as channel:
            work = channel.remote().work
            assert [chunk async for chunk in work({"size": 2000})] == told(range(2000))

            with pytest.raises(kk.ActionError) as caught:
                await work({"size": "x", "name": 5})
            assert caught.value.field_errors == {
                "size": ["Expected `int`, got `str`"],
                "name": ["Expected `str`, got `int`"],
            }
            with pytest.raises(kk.ActionError) as caught:
                await work({"size": 1, "name": "refused"})
            assert caught.value.to_data() == {
                "code": "NOT_ADMITTED",
                "message": "not you",
                "statusCode": 403,
            }
            for name, data in (
                (
                    "fails",
                    {
                        "code": "BROKEN",
                        "message": "half way",
                        "statusCode": 503,
                        "fieldErrors": {"a.b": ["c"]},
                    },
                ),
                ("breaks", {"code": "STREAM_ERROR", "message": "Stream handler error", "statusCode": 500}),
            ):
                found = []
                with pytest.raises(kk.ActionError) as caught:
                    async for chunk in work({"size": 100, "name": name}):
                        found.append(chunk)
                assert found == told(range(100))
                assert caught.value.to_data() == data
                assert caught.value.__cause__ is None
            assert child.noted() == ["finally", "signal"] * 3

            child.log.write_text("")
            async for _ in work({"size": 3, "name": "parks"}):
                break
            await until(lambda: len(child.noted()) == 2)
            assert child.noted() == ["signal", "finally"]

            # Who does not read holds the child up, and nobody else.
            child.log.write_text("")
            before = await channel.remote().count()
            stream = await work({"size": 10_000_000})
            assert await anext(stream) == told([0])[0]
            assert [chunk async for chunk in work({"size": 10})] == told(range(10))
            made = await channel.remote().count() - before
            assert made < 2000
            await stream.cancel()
            assert child.noted().count("finally") == 2
        assert any("hunter2" in line for line in said)
        assert any("on stdout" in line for line in said)


@pytest.mark.parametrize("agreed", [True, False], ids=["agreed", "stock"])
async def test_the_parent_goes(child: Child, agreed: bool) -> None:
    with anyio.fail_after(BOUND * 2):
        async with child.open(hello=agreed) as channel:
            stream = await channel.remote().work({"size": 3, "name": "parks"})
            assert await anext(stream) == told([0])[0]
        assert child.noted() == ["signal", "finally"]
        with pytest.raises(kk.KkrpcError):
            for _ in range(3):
                await anext(stream)


async def test_the_child_dies(child: Child) -> None:
    with anyio.fail_after(BOUND * 2):
        async with child.open() as channel:
            found = []
            with pytest.raises(kk.ChannelClosed):
                async for chunk in channel.remote().work({"size": 3, "name": "parks"}):
                    found.append(chunk)
                    if len(found) == 3:
                        os.kill(channel.byte_stream.pid, signal.SIGKILL)
            assert found == told(range(3))
