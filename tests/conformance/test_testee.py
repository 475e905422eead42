"""The reference testee, called by a channel of the library itself, and how its process ends."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from kkrpc_py.conformance.testee_script import Bench, Script

pytestmark = pytest.mark.anyio

COMMAND = [sys.executable, "-m", "kkrpc_py.conformance.testee"]
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Kit:
    """What the testee calls."""

    def __init__(self) -> None:
        self.ended = 0
        self.waits = anyio.Event()

    async def double(self, n: Any) -> Any:
        return 2 * n

    async def numbers(self, n: Any):
        try:
            for number in range(n):
                yield number
            await anyio.sleep_forever()
        finally:
            self.ended += 1

    async def never(self) -> None:
        self.waits.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.ended += 1


def started(backend: str, kit: Any = None) -> Any:
    return kk.open_process([*COMMAND, "--backend", backend], expose=kit, stderr="inherit")


@BACKENDS
async def test_values_and_paths(backend: str) -> None:
    with anyio.fail_after(30):
        async with started(backend) as channel:
            api = channel.remote()
            described = await api.describe()
            assert (described["protocol"], described["name"]) == (1, "kkrpc_py")
            assert {"credit", "cbor", "superjson", "limits"} <= set(described["features"])
            assert await api.echo([1, {"a": None}]) == [1, {"a": None}]
            assert await api.args(1, self=2) == {"args": [1], "kwargs": {"self": 2}}
            assert await api.math.deep.add(2, 3) == 5
            assert await api.settings.theme == "dark"
            assert await channel.construct(api.Point, 1, 2) == {"x": 1, "y": 2}
            with pytest.raises(kk.MethodNotFound):
                await channel.construct(api.Sealed)
            for hidden in (api["_hidden"], api.math["_hidden"]):
                with pytest.raises(kk.MethodNotFound):
                    await hidden()
            assert await api.meta.with_options(metadata={"a": 1})() == {"a": 1}
            with pytest.raises(kk.RemoteError) as caught:
                await api.fail({"name": "Odd", "message": "no", "fields": {"code": 7}, "notes": ["n"]})
            assert (caught.value.name, caught.value.fields, caught.value.__notes__) == (
                "Odd",
                {"code": 7},
                ["n"],
            )
            assert await api.reset() == {"running": 0}


@BACKENDS
async def test_words_go_both_ways(backend: str) -> None:
    words = [
        {"int": str(2**70)},
        {"float": "7ff8000000000000"},
        {"map": [[{"text": "a"}, {"list": [{"bytes": "00ff"}, {"null": True}]}]]},
        {"datetime": "2026-01-31T12:00:00.5+02:00"},
        {"decimal": "1.10"},
        {"ip": "10.0.0.0/8"},
        {"set": [{"int": "1"}]},
        {"array": {"type": "i32", "shape": [2], "items": [{"int": "1"}, {"int": "-1"}]}},
    ]
    with anyio.fail_after(30):
        async with started(backend) as channel:
            api = channel.remote()
            for each in words:
                assert await api.tag(await api.make(each)) == each


@BACKENDS
async def test_a_script_is_counted_and_cancelled(backend: str) -> None:
    script = [{"cleanup": [{"wait": "tidy"}]}, {"yield": 1}, {"range": [2, 4]}, {"wait": "gate"}]
    with anyio.fail_after(30):
        async with started(backend) as channel:
            api = channel.remote()
            stream = await api.produce("p", script)
            await api.barrier()
            counts = {"started": 1, "yielded": 3, "waits": 1, "interrupted": 0, "cleaned": 0}
            assert await api.probe("p") == counts
            assert stream.received == 3

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stream.cancel)
                await api.reached("p", "interrupted", 1)
                assert (await api.probe("p"))["cleaned"] == 0
                assert not stream.ended
                await api.open("tidy")
            assert (await api.probe("p"))["cleaned"] == 1

            stream = await api.produce("r", [{"yield": 1}, {"return": 7}])
            assert [value async for value in stream] == [1]
            assert await stream == 7
            assert await api.run("s", [{"return": "done"}]) == "done"
            assert await api.reset() == {"running": 0}


@BACKENDS
async def test_the_testee_calls(backend: str) -> None:
    kit = Kit()
    with anyio.fail_after(30):
        async with started(backend, kit) as channel:
            api = channel.remote()
            assert await api.invoke("d", "double", [4]) == {"result": 8}
            missing = await api.invoke("m", "nope", [])
            assert missing["error"]["name"] == "MethodNotFound"

            assert await api.invoke("n", "numbers", [3]) == {"stream": True}
            assert await api.take("n", 2) == {"values": [0, 1], "end": None}
            await api.abort("n")
            assert kit.ended == 1  # the cancel is answered, so it has cleaned up

            async with anyio.create_task_group() as tasks:
                outcome: list[Any] = []

                async def invoke() -> None:
                    outcome.append(await api.invoke("x", "never", []))

                tasks.start_soon(invoke)
                await kit.waits.wait()
                await api.abort("x")
                assert kit.ended == 2
            assert outcome[0]["error"]["name"] == "CallCancelled"

            assert await api.call(kit.double, [5]) == {"result": 10}
            await api.keep("f", {"deep": [kit.double]})
            assert await api.kept("f", [6]) == {"result": 12}
            assert await (await api.make({"function": "g"}))(1, 2) == [1, 2]
            assert (await api.probe("g"))["started"] == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@BACKENDS
async def test_the_hub_is_steered(backend: str) -> None:
    with anyio.fail_after(30):
        async with started(backend) as channel:
            hub, streams = channel.remote().hub, kk.streams(channel)
            await hub.create("chat", {"retention": 0, "allow": ["subscribe", "upload"]})
            assert await hub.start("p", "chat", "one") == "one"
            assert await hub.ids("chat") == ["one"]
            async with streams.subscribe("chat", "one") as reader:
                await hub.write("p", [1, 2])
                assert [await reader.receive() for _ in range(2)] == [1, 2]
                assert await hub.status("p") == {"signal": False, "closed": False}
            await hub.send("p", 3)
            assert await hub.status("p") == {"signal": True, "closed": False}
            await hub.error("p", {"name": "TooFar", "message": "no further"})
            with pytest.raises(kk.StreamClosed):
                await hub.write("p", [4])

            upload = streams.upload("chat", await hub.inbound("r", "chat"))
            await upload.send("a")
            assert await hub.read("r", 1) == {"values": ["a"], "end": None}
            await hub.cancel("r")
            with pytest.raises(kk.StreamClosed):
                await upload.aclose()
            with pytest.raises(kk.UnknownStream):
                await streams.upload("chat", await hub.inbound("o", "chat", {"elsewhere": True})).aclose()

            await hub.state("s", "doc", {"l": [1]})
            patch = [{"op": "add", "path": "/l/-", "value": 2}, {"op": "remove", "path": "/l/0"}]
            assert await hub.change("s", patch) == {"result": 2}
            assert await hub.value("s") == {"version": 2, "value": {"l": [2]}}
            heard = kk.events(channel).on("news")
            assert await hub.broadcast("news", [1]) == 1
            assert (await anext(heard)).args == (1,)

            assert await channel.remote().reset() == {"running": 0}
            with pytest.raises(kk.RemoteError, match="there is no channel"):
                await hub.ids("chat")
            await hub.create("doc")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@BACKENDS
async def test_it_is_a_client_of_the_kits_hub(backend: str) -> None:
    kit = kk.StreamHub()
    chat = kit.create("chat")
    stream = chat.start("one")
    state = kit.shared_state("doc", initial={"n": 1}, writable=True)
    with anyio.fail_after(30):
        async with started(backend, {"streams": kit}) as channel:
            api, hub = channel.remote(), channel.remote().hub
            for value in range(3):
                stream.write(value)
            unknown = await hub.subscribe("q", "chat", "two")
            assert (unknown["error"]["name"], unknown["error"]["code"]) == ("UnknownStream", "DF0030")
            assert await hub.subscribe("r", "chat", "one", {"after": 1}) == {"result": None}
            assert await hub.read("r", 2) == {"values": [1, 2], "end": None}
            assert await hub.seen("r") == {"gaps": [], "dropped": 0, "last": 3}
            await hub.cancel("r")
            await stream.signal

            assert await hub.watch("w", "doc") == {"result": None}
            assert await hub.change("w", [{"op": "replace", "path": "/n", "value": 2}]) == {"result": 2}
            assert (state.value, await hub.value("w")) == ({"n": 2}, {"version": 2, "value": {"n": 2}})
            await hub.cancel("w")

            heard = kit.on("news")
            await hub.emit("news", [1])
            assert (await anext(heard)).args == (1,)
            await hub.listen("news")
            assert kit.broadcast("news", 2) == 1
            assert await hub.heard("news", 1) == [[2]]

            assert await hub.watch("w", "doc") == {"result": None}
            assert await api.reset() == {"running": 0}


@BACKENDS
async def test_how_it_ends(backend: str) -> None:
    ping = b'{"id":"1","method":"nothing","args":[],"type":"request"}\n'
    for data, code in (
        (b"", 0),
        (ping + b"noise without an end", 0),
        (ping + b'{"id":', 3),
        (ping + b"\xd8\x18\x41\xff", 3),
        (b'{"' + b"x" * 262_144, 4),
    ):
        ended = await anyio.to_thread.run_sync(_end, backend, data)
        assert ended.returncode == code, (data[-20:], ended)
        if code == 0:  # what was asked before a violation need not be answered (CLS-2)
            assert ended.stdout.count(b'"type":"response"') == data.count(b"nothing")
        assert ended.stdout[:1] in (b"", b"\n")


def _end(backend: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, "--backend", backend], input=data, capture_output=True, timeout=30)


async def test_it_says_how_it_is_called() -> None:
    ended = await anyio.to_thread.run_sync(_end, "threads", b"")
    assert ended.returncode == 1
    assert b"usage: " in ended.stderr


@BACKENDS
async def test_noise_and_violations_are_told(backend: str) -> None:
    lines = [
        b"not for you",
        b'{"id":"9","method":"","args":{},"type":"stream-end"}',
        *(
            json.dumps({"id": name, "method": name, "args": [], "type": "request"}).encode()
            for name in ("noise", "counted")
        ),
    ]
    ended = await anyio.to_thread.run_sync(_end, backend, b"\n".join(lines) + b"\n")
    answers = {
        answer["id"]: answer["args"]["result"]
        for answer in map(json.loads, ended.stdout.strip().split(b"\n"))
    }
    assert answers == {"noise": [b"not for you".hex()], "counted": 1}


async def test_settle_waits_for_the_last_of_a_chain() -> None:
    """The longest way from a byte that was read to one that is written has about a dozen hand-overs."""
    bench = Bench(lambda words: words)
    links = [anyio.Event() for _ in range(40)]

    async def hand_over(index: int) -> None:
        await links[index].wait()
        await anyio.lowlevel.checkpoint()
        links[index + 1].set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for index in range(len(links) - 1):
                tasks.start_soon(hand_over, index)
            await bench.settle()
            assert not links[-1].is_set()
            links[0].set()
            await bench.settle()
            assert links[-1].is_set()


async def test_settle_gives_up_where_something_never_waits() -> None:
    bench = Bench(lambda words: words)

    async def spin() -> None:
        while True:
            await anyio.lowlevel.checkpoint()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(spin)
            await bench.settle()
            tasks.cancel_scope.cancel()


async def test_a_reset_ends_scripts() -> None:
    bench = Bench(lambda words: words)
    ended: list[str] = []

    async def run() -> None:
        try:
            await Script(bench, "p", [{"wait": "gate"}, {"wait": "another"}]).run()
        except kk.CallCancelled:
            ended.append("cancelled")

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await bench.settle()
            assert bench.probe("p").counts["waits"] == 1
            bench.reset()
        assert ended == ["cancelled"]
        assert bench.probe("p").counts["waits"] == 0
