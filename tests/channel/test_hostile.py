"""What a peer may send by mistake or in malice: who is told, what is counted, what is left of it.

After each of these the channel either answers the next call and keeps nothing of what was, or is closed
with an error that says why.
"""

from __future__ import annotations

import json
import logging
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import anyio
import cbor2
import pytest

import kkrpc_py as kk
from tests.channel.peer import (
    FEATURES,
    Peer,
    ack,
    as_cbor,
    at_rest,
    cancel,
    cbor_frame,
    chunk,
    end,
    hello,
    opened,
    request,
    response,
    result,
    scripted,
    stream_error,
    until,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def no_fault_of_our_own(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that a peer sends may be an unexpected exception in the reader, the writer or a task."""
    caplog.set_level(logging.INFO, "kkrpc_py")
    yield
    faults = [r.getMessage() for r in caplog.get_records("call") if r.levelno >= logging.ERROR]
    assert not faults


def cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def generator() -> Iterator[int]:
    yield 1


# What neither codec carries, and what JSON alone does not.
UNSENDABLE: dict[str, Callable[[], Any]] = {
    "object": object,
    "function inside": lambda: [len],
    "class": lambda: int,
    "exception": lambda: ValueError("x"),
    "subclass": lambda: OrderedDict(a=1),
    "generator inside": lambda: {"deep": [generator()]},
    "range": lambda: range(3),
    "cyclic": cyclic,
    "too deep": lambda: deep(1000),
    "taken for bytes": lambda: {"k": {"type": "Uint8Array", "data": [1]}},
}
BEYOND_JSON: dict[str, Callable[[], Any]] = {
    "nan": lambda: math.nan,
    "infinity": lambda: -math.inf,
    "set": lambda: {1, 2},
    "frozenset": lambda: [frozenset()],
    "decimal": lambda: Decimal("1.5"),
    "datetime": lambda: datetime(2026, 1, 1, tzinfo=UTC),
    "uuid": lambda: UUID(int=1),
    "keys": lambda: {"a": {1: 2}},
    "big": lambda: 2**53,
}
VALUES = UNSENDABLE | BEYOND_JSON


class API:
    def __init__(self) -> None:
        self.parked = 0
        self.cleanups = 0

    async def echo(self, value: Any) -> Any:
        return value

    async def two(self, a: Any, b: Any) -> Any:
        return [a, b]

    async def some(self, a: Any, b: Any = None) -> Any:
        return [a, b]

    async def many(self, a: Any, *rest: Any) -> Any:
        return [a, *rest]

    async def none(self) -> None:
        pass

    async def named(self, a: Any, *, b: Any = None) -> Any:
        return [a, b]

    def threaded(self, a: Any) -> Any:
        return a

    async def park(self) -> None:
        self.parked += 1
        try:
            await anyio.sleep_forever()
        finally:
            self.parked -= 1
            self.cleanups += 1

    async def park_stream(self) -> AsyncGenerator[int]:
        self.parked += 1
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            self.parked -= 1
            self.cleanups += 1

    async def give(self, kind: str) -> Any:
        return VALUES[kind]()

    async def stream(self, kind: str) -> AsyncGenerator[Any]:
        try:
            yield 1
            yield [2]
            yield 3
            yield VALUES[kind]()
            yield 4
        finally:
            self.cleanups += 1

    async def stream_that_waits(self, kind: str) -> AsyncGenerator[Any]:
        """What it yielded last is sent at the moment when it begins to wait."""
        try:
            yield 1
            yield [2]
            yield 3
            yield VALUES[kind]()
            await anyio.sleep_forever()
        finally:
            self.cleanups += 1

    def stream_on_a_thread(self, kind: str) -> Iterator[Any]:
        try:
            yield 1
            yield [2]
            yield 3
            yield VALUES[kind]()
            yield 4
        finally:
            self.cleanups += 1

    async def sink(self, kind: str, sink: kk.StreamSink[Any]) -> None:
        try:
            await sink.send(1)
            await sink.send([2])
            await sink.send(3)
            await sink.send(VALUES[kind]())
            await anyio.sleep_forever()
        finally:
            self.cleanups += 1

    def returning(self, kind: str) -> Any:
        yield 1
        return VALUES[kind]()

    async def fail_with(self, kind: str) -> None:
        error = ValueError("the message")
        error.fine = {"a": [1]}
        error.bad = VALUES[kind]()
        raise error

    async def text(self, size: int) -> str:
        return "x" * size

    async def texts(self, *sizes: int) -> AsyncGenerator[str]:
        for size in sizes:
            yield "x" * size


async def assert_alive(channel: kk.RPCChannel, peer: Peer) -> None:
    """The channel answers, calls, and keeps nothing."""
    assert not channel.closed
    assert await peer.exchange(request("alive", "echo", [1])) == [result("alive", [1])]
    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            assert await channel.remote().still.there("?") == "!"

        tasks.start_soon(ask)
        asked = await peer.next()
        assert asked["method"] == "still.there"
        await peer.send(result(asked["id"], "!"))
    await at_rest(channel)


# --- lines that are no messages ---------------------------------------------------------------

NOISE: dict[str, str | bytes] = {
    "an opening brace": "{",
    "half a message": '{"id":"1","method":"echo","args":[1',
    "no JSON": "{hello}",
    "two messages on a line": '{"id":"1","method":"echo","args":[1],"type":"request"}{"type":"request"}',
    "text after a message": '{"id":"1","method":"echo","args":[1],"type":"request"} hello',
    "single quotes": "{'id': '1', 'method': 'echo', 'args': [], 'type': 'request'}",
    "a trailing comma": '{"id":"1","method":"echo","args":[1,],"type":"request"}',
    "a number beyond a float": '{"id":"1","method":"echo","args":[1e400],"type":"request"}',
    "NaN": '{"id":"1","method":"echo","args":[NaN],"type":"request"}',
    "Infinity": '{"id":"1","method":"echo","args":[-Infinity],"type":"request"}',
    "a raw control character": '{"id":"1","method":"ec\x01ho","args":[],"type":"request"}',
    "broken UTF-8": b'{"id":"1","method":"ec\xffho","args":[],"type":"request"}\n',
    "a BOM inside": b'{"id":\xef\xbb\xbf"1","method":"echo","args":[],"type":"request"}\n',
    "no type": {"id": "1", "method": "echo", "args": [1]},
    "an unknown type": {"id": "1", "method": "echo", "args": [1], "type": "bogus"},
    "a type in capitals": {"id": "1", "method": "echo", "args": [1], "type": "Request"},
    "a type that is null": {"id": "1", "method": "echo", "args": [1], "type": None},
    "a type that is a list": {"id": "1", "method": "echo", "args": [1], "type": ["request"]},
    "a type that is a map": {"id": "1", "method": "echo", "args": [1], "type": {"a": 1}},
    "superjson that is no message": '{"json":{"id":"1","method":"echo","args":[1]}}',
    "an empty object": "{}",
    "a list": '[{"id":"1","method":"echo","args":[1],"type":"request"}]',
    "a number": "42",
    "a print": "Listening on port 8080",
    "a traceback's line": '  File "x.py", line 1, in <module> {',
    "bytes": b"\x00\x01\x02\xfe\xff\n",
    "half a CBOR head": b"\xd8\n",
    "deep without a type": "{" * 10 + '"a":' + "[" * 100_000 + "\n",
    # Its type cannot be told without reading what is too deep to be read.
    "far too deep": '{"id":"1","args":[' + "[" * 50_000 + "]" * 50_000 + '],"type":"request"}',
    "all braces": "{" * 200_000,
    "all brackets in a brace": '{"a":' + "[" * 200_000,
}


@pytest.mark.parametrize("name", NOISE)
async def test_noise_is_counted_handed_on_and_harmless(name: str) -> None:
    """FRM-4, MSG-1."""
    handed_on: list[bytes] = []
    frame = NOISE[name]
    async with scripted(API(), passthrough=handed_on.append) as (channel, peer):
        before, after = request("before", "echo", 1), request("after", "echo", 2)
        answers = await peer.exchange(before, frame, after)
        assert answers == [result("before", 1), result("after", 2)]
        lines = frame if isinstance(frame, bytes) else frame if isinstance(frame, str) else json.dumps(frame)
        line = lines if isinstance(lines, bytes) else lines.encode()
        assert channel.connection.noise == 1
        assert channel.connection.violations == 0
        assert handed_on == [line.rstrip(b"\n")[: channel.limits.noise]]
        await assert_alive(channel, peer)


async def test_noise_is_logged_and_a_failing_hook_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with scripted(API()) as (channel, peer):
        await peer.exchange("Listening on port 8080")
        assert any("Listening on port 8080" in r.getMessage() for r in caplog.records)
        await assert_alive(channel, peer)

    def fail(line: bytes) -> None:
        raise ValueError(line)

    async with scripted(API(), passthrough=fail) as (channel, peer):
        await peer.exchange("one", "two")
        assert channel.connection.noise == 2
        await assert_alive(channel, peer)
    assert sum("the passthrough hook failed" in r.getMessage() for r in caplog.records) == 2
    caplog.clear()


async def test_noise_between_all_kinds_of_messages() -> None:
    """Before, between and after, in pieces of any size."""
    handed_on: list[bytes] = []
    async with scripted(API(), passthrough=handed_on.append) as (channel, peer):
        frames = [
            "noise 1",
            json.dumps(request(1, "stream", "nan")),
            "noise 2",
            "",
            "   ",
            json.dumps(request(2, "two", 1, 2)),
            "{noise 3",
            json.dumps(request(3, "nope")),
            "noise 4",
        ]
        data = "".join(frame + "\n" for frame in frames).encode()
        for size in (1, 3, 17, len(data)):
            for at in range(0, len(data), size):
                await peer.send(data[at : at + size])
            answers = await peer.exchange()
            types = [a["type"] for a in answers if a["id"] == 1]
            assert types == ["response", *["stream-chunk"] * 3, "stream-error"]
            assert [a["args"] for a in answers if a["id"] == 2] == [{"result": [1, 2]}]
            assert len([a for a in answers if a["id"] == 3]) == 1
        assert handed_on == [b"noise 1", b"noise 2", b"{noise 3", b"noise 4"] * 4
        assert channel.connection.noise == 16
        assert channel.connection.violations == 0
        await assert_alive(channel, peer)


async def test_a_long_line_of_noise_is_cut() -> None:
    """FRM-7: longer than any frame may be, and nobody minds."""
    handed_on: list[bytes] = []
    limits = kk.Limits(frame=100_000, noise=1000)
    async with scripted(API(), passthrough=handed_on.append, limits=limits) as (channel, peer):
        await peer.send(b"x" * 1_000_000 + b"\n")
        await peer.exchange()
        assert handed_on == [b"x" * 1000]
        await assert_alive(channel, peer)


# --- questions that are malformed -------------------------------------------------------------

LONG_ID = "x" * 257
ASKS: dict[str, tuple[dict[str, Any] | str, Any]] = {
    "no method": ({"id": "1", "args": [1], "type": "request"}, "1"),
    "method null": ({"id": "1", "method": None, "args": [1], "type": "request"}, "1"),
    "method a number": ({"id": 7, "method": 5, "args": [1], "type": "request"}, 7),
    "method a list": ({"id": "1", "method": ["echo"], "args": [1], "type": "request"}, "1"),
    "method a map": ({"id": "1", "method": {"echo": 1}, "args": [1], "type": "request"}, "1"),
    "construct without method": ({"id": "1", "args": [1], "type": "construct"}, "1"),
    "get without path": ({"id": "1", "type": "get"}, "1"),
    "get with a text": ({"id": "1", "type": "get", "path": "counter"}, "1"),
    "get with numbers": ({"id": "1", "type": "get", "path": [1, 2]}, "1"),
    "set without path": ({"id": "1", "type": "set", "value": 1}, "1"),
    "set with null": ({"id": "1", "type": "set", "path": [None], "value": 1}, "1"),
    "too deep": (json.dumps(request("1", "echo", deep(200))), "1"),
    "too many digits": ('{"id":"1","method":"echo","args":[1' + "0" * 1001 + '],"type":"request"}', "1"),
    "far too many digits": (
        '{"id":"1","method":"echo","args":[' + "9" * 100_000 + '],"type":"request"}',
        "1",
    ),
    # An id that is none is not repeated.
    "id null": ({"id": None, "method": "echo", "args": [1], "type": "request"}, None),
    "id true": ({"id": True, "method": "echo", "args": [1], "type": "request"}, None),
    "id a fraction": ({"id": 1.5, "method": "echo", "args": [1], "type": "request"}, None),
    "id a float": ('{"id":1.0,"method":"echo","args":[1],"type":"request"}', None),
    "id a list": ({"id": ["1"], "method": "echo", "args": [1], "type": "request"}, None),
    "id a map": ({"id": {}, "method": "echo", "args": [1], "type": "request"}, None),
    "id too long": ({"id": LONG_ID, "method": "echo", "args": [1], "type": "request"}, None),
    "id too long in UTF-8": ({"id": "é" * 129, "method": "echo", "args": [1], "type": "request"}, None),
    "id of too many digits": ('{"id":1' + "0" * 256 + ',"method":"echo","args":[1],"type":"request"}', None),
    "get with a wrong id": ({"id": [], "type": "get", "path": ["a"]}, None),
}


@pytest.mark.parametrize("name", ASKS)
async def test_a_malformed_question_is_answered_and_counted(name: str) -> None:
    """MSG-2, MSG-4: an error response, a bare string, under the id if there is one."""
    frame, id = ASKS[name]
    async with scripted(API()) as (channel, peer):
        (answer,) = await peer.exchange(frame)
        assert answer.get("id") == id
        assert ("id" in answer) == (id is not None)
        assert answer["type"] == "response"
        assert list(answer["args"]) == ["error"]
        text = answer["args"]["error"]
        assert type(text) is str
        assert 0 < len(text) < 300
        assert channel.connection.violations == 1
        assert channel.connection.noise == 0
        await assert_alive(channel, peer)


async def test_the_texts_that_kkrpc_has_for_malformed_questions() -> None:
    async with scripted(API()) as (_, peer):
        for kind in ("get", "set"):
            (answer,) = await peer.exchange({"id": 1, "type": kind})
            assert answer["args"]["error"] == f"Invalid {kind} request: missing path"


LENIENT: dict[str, tuple[dict[str, Any], Any]] = {
    "args missing": ({"id": "1", "method": "many", "type": "request"}, TypeError),
    "args null": ({"id": "1", "method": "none", "args": None, "type": "request"}, None),
    "args a map": ({"id": "1", "method": "none", "args": {"a": 1}, "type": "request"}, None),
    "args a text": ({"id": "1", "method": "none", "args": "abc", "type": "request"}, None),
    "version of another world": ({**request("1", "echo", 1), "version": {"a": 1}}, 1),
    "callbackIds a number": ({**request("1", "echo", 1), "callbackIds": 5}, 1),
    "callbackIds of numbers": ({**request("1", "echo", 1), "callbackIds": [5, None]}, 1),
    "unknown fields": ({**request("1", "echo", 1), "x": [1], "__proto__": {}, "": None}, 1),
}


@pytest.mark.parametrize("name", LENIENT)
async def test_what_a_reader_accepts(name: str) -> None:
    """CLA-2, MSG-1."""
    frame, expected = LENIENT[name]
    async with scripted(API()) as (channel, peer):
        (answer,) = await peer.exchange(frame)
        if expected is TypeError:
            assert answer["args"]["error"]["name"] == "TypeError"
        else:
            assert answer == result("1", expected)
        assert channel.connection.violations == channel.connection.noise == 0


async def test_ids_of_all_kinds_are_answered_as_they_are() -> None:
    async with scripted(API()) as (channel, peer):
        for id in ("", "x" * 256, "é" * 128, 0, -1, 2**53, 10**255, "1", 1, "kkrpc"):
            assert await peer.exchange(request(id, "echo", "x")) == [result(id, "x")]
        (answer,) = await peer.exchange({"method": "echo", "args": [1], "type": "request"})
        assert "id" not in answer
        assert answer["args"] == {"result": 1}
        # 1 and "1" are two.
        await peer.send(request(1, "park"), request("1", "park"))
        await until(lambda: len(channel.connection.incoming) == 2)
        assert channel.connection.violations == 0
        answers = await peer.exchange(cancel(1), cancel("1"))
        assert sorted(str(type(a["id"])) for a in answers) == ["<class 'int'>", "<class 'str'>"]
        await assert_alive(channel, peer)


async def test_a_question_without_id_cannot_have_a_stream_for_its_answer() -> None:
    """MSG-5; the generator is closed all the same."""
    api = API()
    async with scripted(api) as (channel, peer):
        for method in ("park_stream", "stream_on_a_thread", "sink"):
            args = [] if method == "park_stream" else ["nan"]
            (answer,) = await peer.exchange({"method": method, "args": args, "type": "request"})
            assert "id" not in answer
            assert answer["args"]["error"]["name"] == "ProtocolError"
        assert api.parked == 0
        await assert_alive(channel, peer)


# --- what concerns nobody ---------------------------------------------------------------------

COUNTED: dict[str, dict[str, Any] | str] = {
    "response, unknown id": result("nobody", 1),
    "response without id": {"args": {"result": 1}, "type": "response"},
    "response, id true": {"id": True, "args": {"result": 1}, "type": "response"},
    "response without args, unknown id": {"id": "nobody", "type": "response"},
    "error, unknown id": response("nobody", error="x"),
    "opening, unknown id": opened("nobody"),
    "opening without id": {"args": {"result": {"__stream": True}}, "type": "response"},
    "chunk, unknown id": chunk("nobody", 1),
    "chunk without id": {"args": {"value": 1}, "type": "stream-chunk"},
    "chunk with empty values": {"id": "nobody", "args": {"values": []}, "type": "stream-chunk"},
    "chunk with a map of values": {"id": "nobody", "args": {"values": {}}, "type": "stream-chunk"},
    "end, unknown id": end("nobody"),
    "end without id": {"args": {}, "type": "stream-end"},
    "stream error, unknown id": stream_error("nobody", "x"),
    "stream error without id": {"args": {"error": "x"}, "type": "stream-error"},
    "callback, unknown": {"id": "1", "method": "nobody", "args": [1], "type": "callback"},
    "callback without method": {"id": "1", "args": [1], "type": "callback"},
    "callback with a wrong id": {"id": [], "method": "nobody", "args": [1], "type": "callback"},
    "cancel without id": {"type": "stream-cancel"},
    "cancel, id a list": {"id": [1], "args": {}, "type": "stream-cancel"},
    "ack without id": {"args": {"n": 1, "b": 1}, "type": "stream-ack"},
    "ack without args": {"id": "nobody", "type": "stream-ack"},
    "ack of a fraction": ack("nobody", 1.5, 1),
    "ack of true": ack("nobody", True, 1),
    "ack below zero": ack("nobody", 1, -1),
    "ack of a text": ack("nobody", "1", 1),
    "ack, too many digits": '{"id":"nobody","args":{"n":1' + "0" * 2000 + ',"b":1},"type":"stream-ack"}',
    "deep response": json.dumps(result("nobody", deep(200))),
}


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("agreed", [False, True], ids=["stock", "agreed"])
async def test_what_concerns_nobody_is_counted(
    name: str, agreed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """MSG-4, MSG-6, CALL-11: no answer, one count, one line in the log."""
    async with scripted(API()) as (channel, peer):
        if agreed:
            await peer.exchange(hello())
        assert await peer.exchange(COUNTED[name]) == []
        assert channel.connection.violations == 1
        assert channel.connection.noise == 0
        assert sum("the peer broke a rule" in r.getMessage() for r in caplog.records) == 1
        if not agreed:
            await assert_alive(channel, peer)


async def test_what_may_have_crossed_is_ignored() -> None:
    """MSG-6, CAN-5, CRD-6."""
    async with scripted(API()) as (channel, peer):
        assert await peer.exchange(cancel("nobody"), ack("nobody", 1, 1), ack("nobody", 10**20, 0)) == []
        answers = await peer.exchange(request(1, "echo", 1), cancel(1), ack(1, 1, 1))
        assert [answer["id"] for answer in answers] == [1]
        assert channel.connection.violations == channel.connection.noise == 0
        await assert_alive(channel, peer)


async def test_a_second_request_under_an_id_in_use_harms_the_first_in_nothing() -> None:
    """MSG-3."""
    api = API()
    async with scripted(api) as (channel, peer):
        await peer.send(request(1, "park"), request(2, "park_stream"))
        assert await peer.next() == opened(2)
        assert await peer.next() == chunk(2, 1)
        await peer.send(
            request(1, "echo", "x"), request(2, "echo", "x"), request(1, "nope"), request("1", "none")
        )
        assert (await peer.next())["id"] == "1"
        await until(lambda: channel.connection.violations == 3)
        assert api.parked == 2
        answers = await peer.exchange(cancel(1), cancel(2))
        assert [(a["id"], a["type"], a["args"]["error"]["name"]) for a in answers] == [
            (1, "response", "CallCancelled")
        ]
        assert api.cleanups == 2
        await assert_alive(channel, peer)


async def test_an_acknowledgement_for_what_is_no_stream_is_counted() -> None:
    """CRD-6."""
    async with scripted(API()) as (channel, peer):
        await peer.exchange(hello())
        await peer.send(request(1, "park"), ack(1, 5, 5))
        await until(lambda: channel.connection.violations == 1)
        assert (await peer.exchange(cancel(1)))[0]["args"]["error"]["name"] == "CallCancelled"
        assert channel.connection.violations == 1


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        {},
        "credit",
        {"protocol": 1},
        {"features": []},
        {"protocol": "1", "features": []},
        {"protocol": True, "features": []},
        {"protocol": 1, "features": "credit"},
        {"protocol": 1.0, "features": None},
    ],
)
async def test_a_malformed_hello_agrees_on_nothing(payload: Any) -> None:
    """HEL-4."""
    async with scripted(API()) as (channel, peer):
        (answer,) = await peer.exchange(request("h", "kkrpc.hello", payload))
        assert answer["args"]["error"]["name"] == "ProtocolError"
        assert channel.connection.agreed is None
        assert channel.connection.violations == 1
        for args in ([], [{"protocol": 1, "features": []}] * 2):
            (answer,) = await peer.exchange(request("h", "kkrpc.hello", *args))
            assert answer["args"]["error"]["name"] == "ProtocolError"
        await assert_alive(channel, peer)
        odd = {"protocol": 1, "features": [1, None, ["credit"], "credit", "nope", "credit"], "more": 1}
        (answer,) = await peer.exchange(request("h", "kkrpc.hello", odd))
        assert channel.connection.agreed == {"credit"}


# --- what is not there, and how many arguments ------------------------------------------------


async def test_unknown_methods() -> None:
    async with scripted(API()) as (channel, peer):
        for method, text in [
            ("nope", "Method nope is not a function"),
            ("", "Method  is not a function"),
            (".", "Method path . not found at "),
            ("a.b.c", "Method path a.b.c not found at a"),
            ("echo.echo", "Method path echo.echo not found at echo"),
            ("." * 10_000, "Method path " + "." * 10_000 + " not found at "),
            ("kkrpc.hell", "Method path kkrpc.hell not found at kkrpc"),
        ]:
            assert await peer.exchange(request(1, method, 1)) == [response(1, error=text)]
        assert channel.connection.violations == channel.connection.noise == 0
        await assert_alive(channel, peer)


ARGUMENTS = [
    ("none", 1),
    ("echo", 0),
    ("echo", 2),
    ("two", 1),
    ("two", 3),
    ("some", 0),
    ("some", 3),
    ("many", 0),
    ("named", 0),
    ("named", 2),
    ("threaded", 0),
    ("threaded", 2),
    ("sink", 0),
    ("sink", 2),
    ("stream", 0),
    ("stream", 2),
    ("stream_on_a_thread", 0),
    ("echo", 10_000),
]


@pytest.mark.parametrize(("method", "count"), ARGUMENTS)
async def test_wrong_argument_counts(method: str, count: int) -> None:
    """CALL-12: an answer of the matter of types, never a stream's opening."""
    async with scripted(API()) as (channel, peer):
        (answer,) = await peer.exchange(request(1, method, *range(count)))
        error = answer["args"]["error"]
        assert error["name"] == "TypeError"
        assert method in error["message"]
        assert str(count) in error["message"]
        assert channel.connection.violations == 0
        await assert_alive(channel, peer)


# --- values that cannot be sent ---------------------------------------------------------------


@pytest.mark.parametrize("kind", VALUES)
async def test_a_result_that_cannot_be_sent_is_an_error(kind: str) -> None:
    async with scripted(API()) as (channel, peer):
        (answer,) = await peer.exchange(request(1, "give", kind))
        assert answer["args"]["error"]["name"] == "NotSerializable"
        assert "result" in answer["args"]["error"]["message"]
        assert channel.connection.violations == 0
        await assert_alive(channel, peer)


@pytest.mark.parametrize("agreed", [False, True], ids=["stock", "agreed"])
@pytest.mark.parametrize("method", ["stream", "stream_that_waits", "stream_on_a_thread", "sink"])
@pytest.mark.parametrize("kind", VALUES)
async def test_the_values_before_one_that_cannot_be_sent_arrive(kind: str, method: str, agreed: bool) -> None:
    """STR-11."""
    api = API()
    async with scripted(api) as (channel, peer):
        if agreed:
            await peer.exchange(hello(features=["credit", "batch", "result", "cancel"]))
        if agreed and kind == "big":
            return  # exact toward a peer that is not JavaScript
        first, *chunks, last = await peer.exchange(request(1, method, kind))
        assert first == opened(1)
        values: list[Any] = []
        for message in chunks:
            assert message["type"] == "stream-chunk"
            args = message["args"]
            values += args["values"] if "values" in args else [args["value"]]
        assert values == [1, [2], 3]
        assert last["type"] == "stream-error"
        assert last["args"]["error"]["name"] == "NotSerializable"
        assert api.cleanups == 1
        assert channel.connection.violations == 0
        if not agreed:
            await assert_alive(channel, peer)


@pytest.mark.parametrize("kind", UNSENDABLE)
async def test_a_return_value_that_cannot_be_sent_ends_the_stream_in_an_error(kind: str) -> None:
    """RES-2."""
    async with scripted(API()) as (channel, peer):
        await peer.exchange(hello(features=["credit", "batch", "result", "cancel"]))
        messages = await peer.exchange(request(1, "returning", kind))
        assert [m["type"] for m in messages] == ["response", "stream-chunk", "stream-error"]
        assert messages[-1]["args"]["error"]["name"] == "NotSerializable"
        assert not channel.closed


@pytest.mark.parametrize("kind", VALUES)
async def test_an_errors_field_that_cannot_be_sent_is_left_out(kind: str) -> None:
    """ERR-4."""
    async with scripted(API()) as (channel, peer):
        (answer,) = await peer.exchange(request(1, "fail_with", kind))
        assert answer["args"]["error"] == {
            "name": "ValueError",
            "message": "the message",
            "fine": {"a": [1]},
        }
        await assert_alive(channel, peer)


@pytest.mark.parametrize("kind", VALUES)
async def test_an_argument_that_cannot_be_sent_is_refused_before_anything_is(kind: str) -> None:
    async with scripted(API()) as (channel, peer):
        api = channel.remote()
        with pytest.raises(kk.NotSerializable, match=r"args\[1\]") as caught:
            await api.f(1, VALUES[kind]())
        assert isinstance(caught.value, TypeError)
        with pytest.raises(kk.NotSerializable):
            async for _ in api.f(VALUES[kind]()):
                pass
        assert await peer.exchange() == []
        await assert_alive(channel, peer)


# --- sizes ------------------------------------------------------------------------------------


async def test_a_line_of_ten_megabytes() -> None:
    async with scripted(API()) as (channel, peer):
        text = "é" + "x" * 10_000_000
        line = json.dumps(request(1, "echo", text), ensure_ascii=False)
        started = anyio.current_time()
        (answer,) = await peer.exchange(line)
        assert anyio.current_time() - started < 10
        assert answer["args"]["result"] == text
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                assert await channel.remote().echo(text) == text

            tasks.start_soon(ask)
            asked = await peer.next()
            await peer.send(result(asked["id"], asked["args"][0]))
        await assert_alive(channel, peer)


async def test_what_this_side_sends_keeps_to_its_limit_too() -> None:
    """FRM-6: the call or the stream fails with LimitExceeded, the channel lives."""
    limits = kk.Limits(frame=10_000)
    async with scripted(API(), limits=limits) as (channel, peer):
        (answer,) = await peer.exchange(request(1, "text", 10_000))
        assert answer["args"]["error"]["name"] == "LimitExceeded"
        messages = await peer.exchange(request(1, "texts", 5, 9_000, 10_000, 5))
        assert [m["type"] for m in messages] == ["response", "stream-chunk", "stream-chunk", "stream-error"]
        assert messages[-1]["args"]["error"]["name"] == "LimitExceeded"
        assert [len(m["args"]["value"]) for m in messages[1:3]] == [5, 9_000]
        with pytest.raises(kk.LimitExceeded):
            await channel.remote().echo("x" * 10_000)
        assert await peer.exchange() == []
        # A message that is told back to the peer may be longer than it was.
        (answer,) = await peer.exchange(request(1, "\x01" * 1_500))
        assert answer["args"]["error"]
        await assert_alive(channel, peer)


async def test_more_calls_than_may_run_are_refused() -> None:
    """CALL-7: also those without id and those that are being cancelled."""
    api = API()
    async with scripted(api, limits=kk.Limits(calls=3)) as (channel, peer):
        await peer.send(request(1, "park"), request(2, "park_stream"), {"method": "park", "type": "request"})
        assert [(await peer.next())["type"] for _ in range(2)] == ["response", "stream-chunk"]
        for id in (3, 4):
            await peer.send(request(id, "echo", 1))
            answer = await peer.next()
            assert answer["id"] == id
            assert answer["args"]["error"]["name"] == "LimitExceeded"
        assert channel.connection.violations == 2
        await peer.send(cancel(1), cancel(2))
        assert (await peer.next())["args"]["error"]["name"] == "CallCancelled"
        await until(lambda: not channel.connection.incoming)
        await peer.send(request(5, "echo", 1))
        assert await peer.next() == result(5, 1)
        assert api.parked == 1
    assert api.parked == 0


async def test_a_peer_that_asks_and_does_not_read_is_cut_off() -> None:
    """CLS-5."""
    limits = kk.Limits(send_max=200_000, drain_seconds=0.1)
    async with scripted(API(), limits=limits) as (channel, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.send, *[request(n, "x" * 1000) for n in range(1000)])
            await channel.wait_closed()
            tasks.cancel_scope.cancel()
        with pytest.raises(kk.ChannelClosed) as caught:
            await channel.remote().echo(1)
        assert isinstance(caught.value.__cause__, kk.LimitExceeded)
        assert channel.connection.outbox.size < 1_000_000


# --- CBOR -------------------------------------------------------------------------------------


def cbor_request(args: bytes) -> bytes:
    """A request of `echo` whose arguments are these bytes of CBOR."""
    parts = [b"\xa4"]
    parts += [cbor2.dumps(text) for text in ("id", "1", "type", "request", "method", "echo", "args")]
    return cbor_frame(b"".join(parts) + args)


REFUSED_CBOR = {
    "deep": b"\x81" * 200 + b"\x00",
    "deeper than any stack": b"\x81" * 200_000 + b"\x00",
    "deep maps": b"\x81" + b"\xa1\x00" * 200 + b"\x00",
    "deep tags": b"\x81" + b"\xc2" * 100_000 + b"\x40",
    "shared value": b"\x81" + cbor2.dumps(cbor2.CBORTag(28, [1])),
    "shared reference": b"\x81" + b"\xd8\x1d\x00",
    "string reference": b"\x81" + b"\xd8\x19\x00",
    "string namespace": b"\x81" + b"\xd9\x01\x00\x80",
    "regular expression": b"\x81" + b"\xd8\x23" + cbor2.dumps("(a+)+$"),
    "MIME": b"\x81" + b"\xd8\x24" + cbor2.dumps("Content-Type: text/plain\n\nx"),
    "epoch time": b"\x81" + b"\xc1\x00",
    "unknown tag": b"\x81" + b"\xda\x00\x01\x86\xa0\x00",
    "big integer of too many digits": b"\x81" + b"\xc2" + cbor2.dumps(b"\xff" * 1000),
    "decimal whose exponent explodes": b"\x81" + b"\xc4\x82\x1b\x00\x00\x00\x17\x48\x76\xe8\x00\x01",
    "fraction over zero": b"\x81" + b"\xd8\x1e\x82\x01\x00",
    "equal keys": b"\x81" + b"\xa2\x61a\x01\x61a\x02",
    "date that is none": b"\x81" + b"\xc0" + cbor2.dumps("2026-13-45T99:99:99Z"),
    "UUID of 15 bytes": b"\x81" + b"\xd8\x25" + cbor2.dumps(b"x" * 15),
    "set with equal members": b"\x81" + b"\xd9\x01\x02\x82\x01\x01",
    "map as a key": b"\x81" + b"\xa1\xa0\x01",
    "reserved simple value": b"\x81\xf0",
}


@pytest.mark.parametrize("name", REFUSED_CBOR)
async def test_cbor_that_is_not_allowed_is_malformed(name: str) -> None:
    """FRM-3, VAL-6, VAL-7: told to whom it concerns, under the id; the channel lives."""
    async with scripted(API()) as (channel, peer):
        (answer,) = await peer.exchange(cbor_request(REFUSED_CBOR[name]))
        assert answer["id"] == "1"
        assert type(answer["args"]["error"]) is str
        assert channel.connection.violations == 1
        assert channel.connection.noise == 0
        await assert_alive(channel, peer)


async def test_cbor_is_read_before_anything_is_agreed() -> None:
    async with scripted(API()) as (channel, peer):
        assert await peer.exchange(as_cbor(request(1, "echo", [1]))) == [result(1, [1])]
        assert await peer.exchange(b"\n \n", as_cbor(request(1, "none")), request(2, "none")) == [
            result(1, None),
            result(2, None),
        ]
        await assert_alive(channel, peer)


ONE = as_cbor(request("one", "echo", 1))
CLOSING: dict[str, tuple[bytes, type[kk.KkrpcError]]] = {
    "a line over the limit": (b'{"id":"1","method":"' + b"x" * 100_001 + b'"}\n', kk.LimitExceeded),
    "a line over the limit without end": (b'{"id":"1","method":"' + b"x" * 500_000, kk.LimitExceeded),
    "a CBOR frame over the limit": (b"\xd8\x18\x5a\x00\x01\x86\xa1", kk.LimitExceeded),
    "2**63 bytes of CBOR": (b"\xd8\x18\x5b\x7f" + b"\xff" * 7, kk.LimitExceeded),
    "2**64 - 1 bytes of CBOR": (b"\xd8\x18\x5b" + b"\xff" * 8, kk.LimitExceeded),
    "no byte string": (b"\xd8\x18\x65hello", kk.ProtocolError),
    "an indefinite byte string": (b"\xd8\x18\x5f\x41a\xff", kk.ProtocolError),
    "reserved length": (b"\xd8\x18\x5c", kk.ProtocolError),
    "a map where the bytes should be": (b"\xd8\x18\xa0", kk.ProtocolError),
    "nothing inside": (cbor_frame(b""), kk.ProtocolError),
    "half a map inside": (cbor_frame(b"\xa2\x61a\x01"), kk.ProtocolError),
    "two items inside": (cbor_frame(cbor2.dumps(request(1, "none")) * 2), kk.ProtocolError),
    "a list of 2**32 inside": (cbor_frame(b"\x9a\xff\xff\xff\xff"), kk.ProtocolError),
    "a list of 2**64 inside": (cbor_frame(b"\x9b" + b"\xff" * 8), kk.ProtocolError),
    "a map of 2**64 inside": (cbor_frame(b"\xbb" + b"\xff" * 8), kk.ProtocolError),
    "bytes of 2**40 inside": (cbor_frame(b"\x5b\x00\x00\x01\x00\x00\x00\x00\x00"), kk.ProtocolError),
    "a text of 2**40 inside": (cbor_frame(b"\xa1\x7b\x00\x00\x01\x00\x00\x00\x00\x00"), kk.ProtocolError),
    "reserved additional information": (cbor_frame(b"\x1c"), kk.ProtocolError),
    "a break alone": (cbor_frame(b"\xff"), kk.ProtocolError),
    "broken UTF-8": (cbor_frame(b"\xa1\x61\xff\x00"), kk.ProtocolError),
    "deep without a type": (cbor_frame(b"\x81" * 50_000 + b"\x00"), kk.ProtocolError),
    "a list": (cbor_frame(cbor2.dumps([1])), kk.ProtocolError),
    "a number": (cbor_frame(b"\x01"), kk.ProtocolError),
    "an empty map": (cbor_frame(b"\xa0"), kk.ProtocolError),
    "an unknown type": (as_cbor({"id": "1", "type": "bogus"}), kk.ProtocolError),
    "a tag alone": (cbor_frame(b"\xd8\x1c\xa0"), kk.ProtocolError),
    "noise after CBOR": (ONE + b"hello\n", kk.ProtocolError),
    "noise without end after CBOR": (ONE + b"h", kk.ProtocolError),
    "broken JSON after CBOR": (ONE + b"{hello}\n", kk.ProtocolError),
    "JSON of no known type after CBOR": (ONE + b'{"type":"bogus"}\n', kk.ProtocolError),
    "NUL after CBOR": (ONE + b"\x00\n", kk.ProtocolError),
}
EOF_CLOSING: dict[str, tuple[bytes, type[kk.KkrpcError]]] = {
    "end inside a line": (b'{"id":"1","method":"echo","args":[1],"type":"request"}', kk.ProtocolError),
    "end after a brace": (b"{", kk.ProtocolError),
    "end inside a CBOR head": (b"\xd8\x18", kk.ProtocolError),
    "end inside a CBOR length": (b"\xd8\x18\x59\x01", kk.ProtocolError),
    "end inside a CBOR payload": (ONE[:-1], kk.ProtocolError),
    "end inside a second frame": (ONE + ONE[:7], kk.ProtocolError),
}


@pytest.mark.parametrize("name", [*CLOSING, *EOF_CLOSING])
async def test_what_cannot_be_read_on_closes_the_channel(name: str) -> None:
    """FRM-3, FRM-5, FRM-6, FRM-9: with one typed error for all that waits; handlers are cancelled."""
    data, cause = (CLOSING | EOF_CLOSING)[name]
    api = API()
    errors: list[kk.ChannelClosed] = []
    async with scripted(api, limits=kk.Limits(frame=100_000)) as (channel, peer):
        remote = channel.remote()

        async def ask(what: Awaitable[Any]) -> None:
            with pytest.raises(kk.ChannelClosed) as caught:
                await what
            errors.append(caught.value)

        async def read(values: list[Any]) -> None:
            with pytest.raises(kk.ChannelClosed) as caught:
                async for value in remote.stream():
                    values.append(value)
            errors.append(caught.value)

        values: list[Any] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, remote.call())
            tasks.start_soon(read, values)
            asked = {message["method"]: message["id"] for message in [await peer.next(), await peer.next()]}
            await peer.send(request("parked", "park"), request("stream", "park_stream"))
            await peer.send(opened(asked["stream"]), chunk(asked["stream"], 1))
            await until(lambda: api.parked == 2 and values == [1])
            if name not in EOF_CLOSING:  # what still comes is not looked at
                data += json.dumps(request("late", "park")).encode() + b"\n"
            async with anyio.create_task_group() as sending:
                sending.start_soon(peer.send, data)
                if name in EOF_CLOSING:
                    await peer.sent()
                    await peer.eof()
                await channel.wait_closed()
                sending.cancel_scope.cancel()
        assert channel.closed
        assert len(errors) == 2
        await ask(remote.later())
        for error in errors:
            assert type(error) is kk.ChannelClosed
            assert type(error.__cause__) is cause
        assert errors[0] is not errors[1]
        await until(lambda: api.cleanups == 2)
        assert api.parked == 0
    assert api.cleanups == 2
    assert not [m for m in await peer.rest() if m.get("id") == "late"]


@pytest.mark.parametrize("data", [b"", b"noise without end", b"\xd8", b"  ", b"\xef\xbb", b"\n"])
async def test_an_end_between_two_frames_is_no_violation(data: bytes) -> None:
    """FRM-9, CLS-2: a last line of noise is noise, and what was asked before is answered."""
    handed_on: list[bytes] = []
    async with scripted(API(), passthrough=handed_on.append) as (channel, peer):
        await peer.send(request(1, "threaded", 1), data)
        await peer.eof()
        await channel.wait_closed()
        with pytest.raises(kk.ChannelClosed) as caught:
            await channel.remote().echo(1)
        assert caught.value.__cause__ is None
        assert channel.connection.noise == len(handed_on) == bool(data.strip())
        assert channel.connection.violations == 0
    assert await peer.rest() == [result(1, 1)]


# --- a callee that breaks the rules -----------------------------------------------------------


class Asked:
    """One call of the channel's, and how it ended."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.outcome: Any = None
        self.id: Any = None

    async def stream(self, channel: kk.RPCChannel) -> None:
        try:
            call = channel.remote().stream()
            async for value in call:
                self.values.append(value)
            self.outcome = await call
        except kk.KkrpcError as exc:
            self.outcome = exc

    async def call(self, channel: kk.RPCChannel) -> None:
        try:
            self.outcome = await channel.remote().call()
        except kk.KkrpcError as exc:
            self.outcome = exc


MALFORMED_ANSWERS: dict[str, Callable[[Any], dict[str, Any] | str | bytes]] = {
    "no args": lambda id: {"id": id, "type": "response"},
    "args null": lambda id: {"id": id, "args": None, "type": "response"},
    "args a list": lambda id: {"id": id, "args": [1], "type": "response"},
    "too deep": lambda id: json.dumps(result(id, deep(200))),
    "too many digits": lambda id: json.dumps(result(id, 7)).replace("7}", "7" * 2000 + "}"),
    "deep CBOR": lambda id: as_cbor(result(id, deep(200))),
    "tagged CBOR": lambda id: as_cbor(result(id, cbor2.CBORTag(35, "a"))),
}


@pytest.mark.parametrize("agreed", [False, True], ids=["stock", "agreed"])
@pytest.mark.parametrize("name", MALFORMED_ANSWERS)
async def test_a_malformed_answer_fails_its_call_alone(name: str, agreed: bool) -> None:
    """MSG-4, MSG-7. The answer has come, so the call is over, and its id is free."""
    async with scripted(API()) as (channel, peer):
        if agreed:
            await peer.exchange(hello(features=["credit", "batch", "result", "cancel"]))
        bad, good = Asked(), Asked()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bad.call, channel)
            bad.id = (await peer.next())["id"]
            tasks.start_soon(good.call, channel)
            good.id = (await peer.next())["id"]
            await peer.send(MALFORMED_ANSWERS[name](bad.id))
            await until(lambda: bad.outcome is not None)
            assert type(bad.outcome) is kk.ProtocolError
            assert good.outcome is None
            await peer.send(result(good.id, "fine"))
        assert good.outcome == "fine"
        assert channel.connection.violations == 1
        await at_rest(channel)
        assert not channel.closed


MALFORMED_CHUNKS: dict[str, Callable[[Any], dict[str, Any] | str | bytes]] = {
    "values empty": lambda id: {"id": id, "args": {"values": []}, "type": "stream-chunk"},
    "values a map": lambda id: {"id": id, "args": {"values": {}}, "type": "stream-chunk"},
    "too deep": lambda id: json.dumps(chunk(id, deep(200))),
    "deep CBOR": lambda id: as_cbor(chunk(id, deep(200))),
}


@pytest.mark.parametrize("agreed", [False, True], ids=["stock", "agreed"])
@pytest.mark.parametrize("name", MALFORMED_CHUNKS)
async def test_a_malformed_chunk_ends_its_stream_after_the_values_before_it(name: str, agreed: bool) -> None:
    """MSG-4, STR-9: the stream is cancelled, and the other stream goes on."""
    async with scripted(API()) as (channel, peer):
        if agreed:
            await peer.exchange(hello(features=["credit", "batch", "result", "cancel"]))
        bad, good = Asked(), Asked()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bad.stream, channel)
            bad.id = (await peer.next())["id"]
            tasks.start_soon(good.stream, channel)
            good.id = (await peer.next())["id"]
            before = [
                opened(bad.id),
                opened(good.id),
                chunk(bad.id, 1),
                chunk(good.id, 1),
                chunk(bad.id, None),
            ]
            await peer.send(*before, MALFORMED_CHUNKS[name](bad.id), chunk(bad.id, "late"), chunk(good.id, 2))
            assert await peer.next() == cancel(bad.id)
            await until(lambda: bad.outcome is not None)
            assert type(bad.outcome) is kk.ProtocolError
            assert bad.values == [1, None]
            if agreed:
                await peer.send(end(bad.id, cancelled=True))
            await peer.send(end(good.id))
        assert good.values == [1, 2]
        assert good.outcome is None
        # The chunk that crossed the cancel is no fault of the peer's.
        assert channel.connection.violations == 1
        await at_rest(channel)
        assert not channel.closed


@pytest.mark.parametrize("agreed", [False, True], ids=["stock", "agreed"])
async def test_a_malformed_end_ends_its_stream(agreed: bool) -> None:
    """MSG-4: a return value that is too deep for this side; the producer has ended, so no answer comes."""
    async with scripted(API()) as (channel, peer):
        if agreed:
            await peer.exchange(hello(features=["credit", "batch", "result", "cancel"]))
        bad = Asked()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bad.stream, channel)
            bad.id = (await peer.next())["id"]
            await peer.send(opened(bad.id), chunk(bad.id, 1), json.dumps(end(bad.id, result=deep(200))))
            await until(lambda: bad.outcome is not None)
            assert type(bad.outcome) is kk.ProtocolError
        assert bad.values == [1]
        assert channel.connection.violations == 1
        await at_rest(channel)


async def test_answers_out_of_turn_are_counted_and_change_nothing() -> None:
    """STR-6, STR-7, CALL-5."""
    async with scripted(API()) as (channel, peer):
        stream, call = Asked(), Asked()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.stream, channel)
            stream.id = (await peer.next())["id"]
            tasks.start_soon(call.call, channel)
            call.id = (await peer.next())["id"]
            # Before the answer:
            await peer.send(chunk(stream.id, 0), end(stream.id), stream_error(stream.id, "x"), end(call.id))
            await peer.send(opened(stream.id), chunk(stream.id, 1))
            # A second opening, and answers to what is a stream:
            await peer.send(opened(stream.id), result(stream.id, 1), response(stream.id, error="x"))
            # An id of another type:
            await peer.send(result(int(call.id), 1), result(float(call.id), 1))
            await peer.send(chunk(stream.id, 2), end(stream.id), result(call.id, "one"))
            # After the end:
            await peer.send(chunk(stream.id, 3), end(stream.id), stream_error(stream.id, "x"))
            await peer.send(result(call.id, "two"), response(call.id, error="three"), opened(call.id))
        assert (stream.values, stream.outcome) == ([1, 2], None)
        assert call.outcome == "one"
        await peer.exchange()
        assert channel.connection.violations == 4 + 3 + 2 + 6
        await assert_alive(channel, peer)


ERRORS: list[tuple[Any, str, str]] = [
    ("text", "Error", "text"),
    (5, "Error", "5"),
    ([], "Error", "[]"),
    ({}, "Error", ""),
    ({"name": 5, "message": None}, "Error", ""),
    ({"name": "", "message": "m"}, "Error", "m"),
    ({"message": "m", "stack": 5, "cause": None}, "Error", "m"),
    ({"name": "StopIteration", "message": "m"}, "StopIteration", "m"),
    ({"name": "StopAsyncIteration", "message": "m"}, "StopAsyncIteration", "m"),
    ({"name": "GeneratorExit", "message": "m"}, "GeneratorExit", "m"),
    ({"name": "KeyboardInterrupt", "message": "m"}, "KeyboardInterrupt", "m"),
    ({"name": "SystemExit", "message": "m"}, "SystemExit", "m"),
    ({"name": "CancelledError", "message": "m"}, "CancelledError", "m"),
    ({"name": "Cancelled", "message": "m"}, "Cancelled", "m"),
    ({"name": "ExceptionGroup", "message": "m"}, "ExceptionGroup", "m"),
    ({"name": "UserWarning", "message": "m"}, "UserWarning", "m"),
    ({"name": "ChannelClosed", "message": "m"}, "ChannelClosed", "m"),
    ({"name": "__class__", "message": "m", "args": [1], "with_traceback": 1}, "__class__", "m"),
]


@pytest.mark.parametrize(("error", "name", "message"), ERRORS)
async def test_no_error_can_steer_the_interpreter(error: Any, name: str, message: str) -> None:
    """ERR-1, ERR-2, ERR-3: in a call and in a stream alike."""
    async with scripted(API()) as (channel, peer):
        for kind in ("call", "stream"):
            asked = Asked()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(getattr(asked, kind), channel)
                asked.id = (await peer.next())["id"]
                if kind == "call":
                    await peer.send(response(asked.id, error=error))
                else:
                    await peer.send(opened(asked.id), chunk(asked.id, 1), stream_error(asked.id, error))
            raised = asked.outcome
            assert type(raised) is kk.RemoteError
            assert (raised.name, raised.message) == (name, message)
            assert raised.remote_traceback is None
        await assert_alive(channel, peer)


async def test_a_producer_without_credit_is_cancelled() -> None:
    """CRD-4: the values that it had credit for arrive."""
    async with scripted(API()) as (channel, peer):
        await peer.exchange(hello(features=FEATURES))
        stream: list[Any] = []

        async def open_it() -> None:
            stream.append(await channel.remote().stream())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(open_it)
            id = (await peer.next())["id"]
            await peer.send(opened(id))
        values = {"values": list(range(64))}
        await peer.send({**chunk(id, 0), "args": values}, chunk(id, 64), chunk(id, 65))
        assert await peer.next() == cancel(id)
        await peer.send(end(id, cancelled=True))
        got: list[Any] = []
        with pytest.raises(kk.ProtocolError, match="credit"):
            async for value in stream[0]:
                got.append(value)
        assert got == list(range(64))
        assert channel.connection.violations == 1
        await at_rest(channel)


async def test_a_stock_producer_that_is_not_read_is_cancelled() -> None:
    """STR-12."""
    limits = kk.Limits(stock_stream_buffer=10_000)
    async with scripted(API(), limits=limits) as (channel, peer):
        stream: list[Any] = []

        async def open_it() -> None:
            stream.append(await channel.remote().stream())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(open_it)
            id = (await peer.next())["id"]
            await peer.send(opened(id))
        text = "x" * 1000
        await peer.send(*[chunk(id, text) for _ in range(20)])
        assert await peer.next() == cancel(id)
        got: list[Any] = []
        with pytest.raises(kk.LimitExceeded):
            async for value in stream[0]:
                got.append(value)
        assert 5 < len(got) < 10
        assert set(got) == {text}
        await assert_alive(channel, peer)


async def test_acknowledgements_of_any_size_do_no_harm() -> None:
    """A peer may grant as much as it likes: the producer still waits for the writer."""
    async with scripted(API()) as (channel, peer):
        await peer.exchange(hello(features=["credit", "cancel"]))
        await peer.send(request(1, "texts", *[1000] * 100))
        for n in (0, 10**30, 2**64):
            await peer.send(ack(1, n, n))
        messages = await peer.exchange()
        assert sum(m["type"] == "stream-chunk" for m in messages) == 100
        assert messages[-1] == end(1)
        assert channel.connection.violations == 0
