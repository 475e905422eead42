"""A stock kkrpc peer, npm's kkrpc 0.2.2 on Node, as child of a Python parent and as parent of a Python child.

`make test` installs it into tests/node. The peer records every byte that the Python side sends, and the tests
hold the record against what such a peer may be sent.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest

import kkrpc_py as kk
from tests.naming import shown

pytestmark = pytest.mark.anyio

NODE_DIR = Path(__file__).parent / "node"
NODE = shutil.which("node") or "node"

BOUND = 30.0
"""Seconds. Far above what any test here takes."""

Version = Literal["json", "superjson"]


@pytest.fixture(scope="module", autouse=True)
def _node_is_here() -> None:
    if shutil.which("node") is None:
        reason = "there is no Node on the path"
    elif not (NODE_DIR / "node_modules" / "kkrpc").is_dir():
        reason = "npm's kkrpc is not installed: run `npm ci` in tests/node"
    else:
        return
    if os.environ.get("KKRPC_REQUIRE_NODE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


class Host:
    """What the Python parent exposes to its Node child."""

    def __init__(self) -> None:
        self.reported: list[Any] = []
        self.kept: Any = None
        self._arrived = anyio.Event()

    async def each(self, count: int, callback: Any) -> int:
        self.kept = callback
        for i in range(count):
            assert await callback(i, "of", count) is None
        return count

    async def add(self, a: int, b: int) -> int:
        return a + b

    async def report(self, value: Any) -> None:
        self.reported.append(value)
        self._arrived.set()

    async def arrived(self) -> None:
        await self._arrived.wait()


def node_child(record: Path, *options: str) -> list[str]:
    return [NODE, str(NODE_DIR / "child.mjs"), "--record", str(record), *options]


def read_stock(record: Path, version: str = "json") -> list[dict[str, Any]]:
    """The messages in `record`, after the proof that a stock peer can read every one of them.

    One JSON object a line, ASCII alone, with kkrpc's keys in kkrpc's order, and no line of a multiple of
    65,536 bytes.
    """
    data = record.read_bytes()
    assert data.isascii()
    assert data.endswith(b"\n")
    messages = []
    for line in data.splitlines():
        if not line:
            continue
        assert len(line) % 65_536 != 0
        message = json.loads(line)
        keys = ["id", "method", "args", "type", "version"]
        if version == "superjson":
            assert line.lstrip(b" ").startswith(b'{"json":')
            assert list(message) in (["json"], ["json", "meta"])
            message = message["json"]
            keys[4:4] = [key for key in ("callbackIds", "transferSlots") if key in message]
        elif "callbackIds" in message:
            keys.insert(4, "callbackIds")
        assert list(message) == keys
        assert message["version"] == version
        messages.append(message)
    return messages


async def test_calls_reach_a_node_child(tmp_path: Path) -> None:
    with anyio.fail_after(BOUND):
        async with kk.open_process(node_child(tmp_path / "sent")) as channel:
            api = channel.remote()
            assert await api.echo("hello") == "hello"
            assert await api.math.add(1, 2) == 3
            assert await api.math.grade2.multiply(6, 7) == 42
            assert await api.count() == 0
            assert await api.count(None, [], {}) == 3
            assert await api.nothing() is None
    sent = read_stock(tmp_path / "sent")
    assert [message["method"] for message in sent] == [
        "kkrpc.hello",
        "echo",
        "math.add",
        "math.grade2.multiply",
        "count",
        "count",
        "nothing",
    ]
    assert {message["type"] for message in sent} == {"request"}


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1.5e-7,
        2**53 - 1,
        "",
        'héllo € 😀 \u2028 \x00 \x7f \n\t"\\',
        "lone \ud800 surrogate",
        '{"json":1}',
        [[], {}, [None]],
        {"a": [1, {"b": None}], "": ""},
        b"",
        bytes(range(256)),
        {"nested": [b"\x01\xfa"]},
    ],
    ids=shown,
)
async def test_values_come_back_unchanged(tmp_path: Path, value: Any) -> None:
    with anyio.fail_after(BOUND):
        async with kk.open_process(node_child(tmp_path / "sent")) as channel:
            assert await channel.remote().echo(value) == value
    read_stock(tmp_path / "sent")


async def test_bytes_are_a_uint8array_on_the_other_side(tmp_path: Path) -> None:
    with anyio.fail_after(BOUND):
        async with kk.open_process(node_child(tmp_path / "sent")) as channel:
            api = channel.remote()
            assert await api.total(b"\x01\x02\xfa") == ["Uint8Array", 3, 253]
            assert await api.bytes(300) == bytes(i % 256 for i in range(300))
    read_stock(tmp_path / "sent")


async def test_errors_of_a_node_child(tmp_path: Path) -> None:
    with anyio.fail_after(BOUND):
        async with kk.open_process(node_child(tmp_path / "sent")) as channel:
            api = channel.remote()
            with pytest.raises(kk.RemoteError) as raised:
                await api.fail("as asked")
            assert raised.value.message == "as asked"
            with pytest.raises(kk.RemoteError, match="later"):
                await api.reject("later")
            for missing in (api.nope, api.math.nope, api.no.such.path):
                with pytest.raises(kk.MethodNotFound):
                    await missing()
            assert await api.echo("alive") == "alive"


async def test_a_hundred_calls_in_flight(tmp_path: Path) -> None:
    answers: dict[int, Any] = {}
    with anyio.fail_after(BOUND):
        async with kk.open_process(node_child(tmp_path / "sent")) as channel:
            api = channel.remote()

            async def call(i: int) -> None:
                answers[i] = await api.slow(i * 7 % 50, i)

            async with anyio.create_task_group() as tasks:
                for i in range(100):
                    tasks.start_soon(call, i)
    assert answers == {i: i for i in range(100)}
    assert len(read_stock(tmp_path / "sent")) == 101


async def test_a_hello_answered_by_an_error_means_stock(tmp_path: Path) -> None:
    with anyio.fail_after(BOUND):
        async with kk.open_process(node_child(tmp_path / "sent")) as channel:
            await channel.ready()
            api = channel.remote()
            for only_cbor in ({1, 2}, 2**53, float("nan"), {1: 2}):
                with pytest.raises(kk.NotSerializable):
                    await api.echo(only_cbor)
            assert await api.echo("alive") == "alive"
    sent = read_stock(tmp_path / "sent")
    assert [message["method"] for message in sent] == ["kkrpc.hello", "echo"]


async def test_a_hello_answered_by_silence_means_stock(tmp_path: Path) -> None:
    host = Host()
    with anyio.fail_after(BOUND):
        async with kk.open_process(
            node_child(tmp_path / "sent", "--no-api"), expose=host, limits=kk.Limits(hello_seconds=0.2)
        ) as channel:
            await host.arrived()
            await channel.ready()
            with pytest.raises(kk.NotSerializable):
                await channel.remote().echo({1, 2})
    assert host.reported == [42]
    sent = read_stock(tmp_path / "sent")
    assert sent[0]["method"] == "kkrpc.hello"
    assert [message["args"] for message in sent[1:]] == [{"result": 42}, {"result": None}]


async def test_a_node_child_calls_its_parent_while_it_is_called(tmp_path: Path) -> None:
    with anyio.fail_after(BOUND):
        async with kk.open_process(node_child(tmp_path / "sent"), expose=Host()) as channel:
            assert await channel.remote().ask(20, 1) == 42
    assert [message["type"] for message in read_stock(tmp_path / "sent")] == [
        "request",
        "request",
        "response",
    ]


@pytest.mark.parametrize("version", ["json", "superjson"])
async def test_a_node_child_calls_python_functions(tmp_path: Path, version: Version) -> None:
    seen: list[Any] = []
    late: list[Any] = []
    both = anyio.Event()

    async def second(*args: Any) -> None:
        late.append(args)
        both.set()

    def lambda_that_fails(*args: Any) -> None:
        raise ValueError("nobody is told")

    with anyio.fail_after(BOUND):
        options = ["--superjson"] if version == "superjson" else []
        async with kk.open_process(node_child(tmp_path / "sent", *options), codec=version) as channel:
            api = channel.remote()
            note = seen.append
            assert await api.each(3, note) == 3
            assert seen == [0, 1, 2]  # all before the answer
            assert await api.each(1, note) == 1
            assert await api.types("__callback", note, {"callback": 1}) == ["string", "function", "object"]
            assert await api.each(2, lambda_that_fails) == 2
            assert await api.later(1, lambda *args: late.append(args), second) == "scheduled"
            await both.wait()
            assert late == [("late", 0), ("late", 1)]
            with kk.callback(seen.append) as only_now:
                assert await api.each(1, only_now) == 1
            for refused in ([note], {"f": note}, "__callback__1"):
                with pytest.raises(kk.NotSerializable):
                    await api.types(refused)
    assert seen == [0, 1, 2, 0, 0]
    sent = read_stock(tmp_path / "sent", version)
    given = [message["callbackIds"] for message in sent if message.get("callbackIds")]
    assert given[0] == given[1] == given[2] != given[3], "the same function has the same id"
    assert [message["args"][1] for message in sent[1:3]] == [f"__callback__{given[0][0]}"] * 2
    assert len(sent) == 7


@pytest.mark.parametrize("version", ["json", "superjson"])
async def test_python_calls_functions_of_a_node_child(tmp_path: Path, version: Version) -> None:
    host = Host()
    with anyio.fail_after(BOUND):
        options = ["--superjson"] if version == "superjson" else []
        async with kk.open_process(
            node_child(tmp_path / "sent", *options), expose=host, codec=version
        ) as channel:
            seen = [[i, "of", 3] for i in range(3)]
            assert await channel.remote().lend(3) == [3, 3, seen + seen]
            for refused in (channel.remote, [print], {"f": print}):
                with pytest.raises(kk.NotSerializable):  # a stock peer's callbacks take no functions
                    await host.kept(refused)
            host.kept.notify("after the answer")
            host.kept.release()
            with pytest.raises(kk.CallbackReleased):
                await host.kept(1)
            assert await channel.remote().echo("alive") == "alive"
    sent = read_stock(tmp_path / "sent", version)
    assert [message["type"] for message in sent[1:]] == [
        "request",
        *["callback"] * 3,
        "response",
        *["callback"] * 3,
        "response",
        "callback",
        "request",
    ]
    assert len({message["method"] for message in sent if message["type"] == "callback"}) == 1
    assert sent[-2]["args"] == ["after the answer"]


async def test_lines_around_64_kib_reach_a_node_child(tmp_path: Path) -> None:
    """One of these lines would have 65,536 bytes: the reader would lose it and the one after it."""
    with anyio.fail_after(BOUND):
        async with kk.open_process(node_child(tmp_path / "sent")) as channel:
            api = channel.remote()
            for length in range(65_536 - 100, 65_536 - 50):
                assert await api.count("x" * length) == 1
            assert len(await api.text(1_000_000)) == 1_000_000
    lengths = {len(line) for line in (tmp_path / "sent").read_bytes().splitlines()}
    assert {65_535, 65_537} < lengths
    read_stock(tmp_path / "sent")


async def test_what_a_node_child_prints_is_no_message(tmp_path: Path) -> None:
    with anyio.fail_after(BOUND):
        async with kk.open_process(node_child(tmp_path / "sent")) as channel:
            api = channel.remote()
            await api.print("a line of its own\n[1, 2]\n{}\n")
            assert await api.math.add(1, 1) == 2


async def test_a_node_child_that_exits_ends_its_calls(tmp_path: Path) -> None:
    with anyio.fail_after(BOUND):
        async with kk.open_process(node_child(tmp_path / "sent")) as channel:
            with pytest.raises(kk.ChannelClosed, match="last words") as raised:
                await channel.remote().exit(3, "last words\n")
    assert raised.value.exit_code == 3


EXPECTED = {
    "calls": ["hello", 3, 42],
    "values": [None, True, -1.5e-7, 2**53 - 1, 'héllo € 😀 \u2028 \n\t"\\', {"a": [{}, []]}],
    "nothing": "nothing",
    "errors": [
        # 0.2.2 shows errors that are strings; one with a name it takes for text, whatever its message.
        {"error": "[object Object]"},
        {"error": "[object Object]"},
        {"error": "Method nope is not a function"},
        {"error": "Method math.nope is not a function"},
        {"error": "Method path no.such.path not found at no"},
    ],
    "inFlight": True,
    "bytes": ["Uint8Array", 300, 43, ["bytes", 3, 253]],
    "ask": 42,
    "callback": [2, 1, True, [[0], [1], [0], ["from a thread", 1]]],
    "lateCallback": [["late", "late"], "x"],
    "throwingCallback": 1,
    "lend": [3, 3, [0, 1, 2, 0, 1, 2]],
    "looksLikeACallback": ["__callback__", {"f": "__callback__1"}],
    "nearly64KiB": True,
    "large": 1_000_000,
    "noise": 2,
    "stream": [{"__stream": True}, 2],
}
EXPECTED_OF_SUPERJSON = {
    **EXPECTED,
    "superjson": [],  # the values that did not come back as they were
    "error": [True, "TypeError", "as a value"],
    "shared": [{"n": 1}, True],
    "functionsWithin": {"n": 1, "g": [None]},
}


@pytest.mark.parametrize("version", ["json", "superjson"])
async def test_a_python_child_of_a_node_parent(tmp_path: Path, anyio_backend_name: str, version: str) -> None:
    """The Python child answers as tests/node/child.mjs does, and better where that one loses lines."""
    command = [sys.executable, str(NODE_DIR / "python_child.py"), anyio_backend_name, version]
    record = tmp_path / "sent"
    options = ["--superjson"] if version == "superjson" else []
    with anyio.fail_after(2 * BOUND):
        done = await anyio.run_process(
            [NODE, str(NODE_DIR / "parent.mjs"), "--record", str(record), *options, "--", *command],
            stderr=None,
        )
    # What kkrpc takes for noise it prints; the report is the last line.
    report = json.loads(done.stdout.splitlines()[-1])
    assert report == {"exit": 0, "results": EXPECTED_OF_SUPERJSON if version == "superjson" else EXPECTED}
    read_stock(record, version)
