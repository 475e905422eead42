"""What a writer owes a stock kkrpc peer: its reader's three weak spots, and nothing but its own messages.

The reader is modelled by `StockReader`, after the recordings and the real library: it takes what the pipe
has, 65,536 bytes at the most, throws a read of white space away, and decodes each read on its own.
"""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from tests.channel.peer import (
    FEATURES,
    STOCK_TYPES,
    Peer,
    ack,
    at_rest,
    cancel,
    chunk,
    end,
    opened,
    request,
    response,
    result,
    scripted,
    stream_error,
    until,
)

pytestmark = pytest.mark.anyio

READ = 65_536


class StockReader:
    """How kkrpc 0.7 splits what comes over a pipe."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.lost: list[str] = []
        self._text = ""

    def write(self, data: bytes) -> None:
        """One write into an idle pipe."""
        for at in range(0, len(data), READ):
            self._read(data[at : at + READ].decode("utf-8", "replace"))

    def _read(self, text: str) -> None:
        if not text.strip():
            return
        self._text += text
        *lines, self._text = self._text.split("\n")
        for line in filter(None, map(str.strip, lines)):
            try:
                self.messages.append(json.loads(line))
            except ValueError:
                self.lost.append(line[:100])


def test_the_model_of_the_stock_reader_loses_what_the_real_one_lost() -> None:
    """`newline07`: lines of these lengths, each in one write with its line feed, then two small ones."""
    small = [b'{"id":"b"}\n', b'{"id":"c"}\n']
    for length, answered in [
        (65_535, ["a", "b", "c"]),
        (65_536, ["c"]),
        (65_537, ["a", "b", "c"]),
        (131_072, ["c"]),
    ]:
        reader = StockReader()
        line = json.dumps({"id": "a", "x": ""}, separators=(",", ":"))
        line = line[:-2] + "y" * (length - len(line)) + line[-2:]
        for write in [line.encode() + b"\n", *small]:
            reader.write(write)
        assert [message["id"] for message in reader.messages] == answered


class API:
    async def echo(self, value: Any) -> Any:
        return value

    async def text(self, size: int) -> str:
        return "x" * size

    async def texts(self, sizes: list[int]) -> AsyncGenerator[str]:
        for size in sizes:
            yield "x" * size

    async def values(self, *values: Any) -> AsyncGenerator[Any]:
        for value in values:
            yield value

    async def fail(self, text: str) -> None:
        error = type(f"Fehlér{len(text)}", (Exception,), {})(text)
        error.field = text
        raise error from ValueError(text)

    async def fail_later(self, text: str) -> AsyncGenerator[Any]:
        yield text
        raise KeyError(text)

    async def endless(self) -> AsyncGenerator[int]:
        number = 0
        while True:
            yield number
            number += 1
            await anyio.lowlevel.checkpoint()

    async def forever(self) -> None:
        await anyio.sleep_forever()

    async def sink(self, count: int, sink: kk.StreamSink[int]) -> str:
        for number in range(count):
            await sink.send(number)
        return "a result that nobody may hear of"

    def returning(self, count: int) -> Any:
        yield from range(count)
        return "a result that nobody may hear of"


# --- one write a line -------------------------------------------------------------------------


def assert_whole_lines(writes: Iterable[bytes]) -> None:
    for write in writes:
        assert write.lstrip(b" ").startswith(b"{"), write[:80]
        assert write.endswith(b"\n"), write[-80:]
        for line in write[:-1].split(b"\n"):
            json.loads(line)


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "writer"])
async def test_a_line_and_its_line_feed_are_one_write(eager: bool) -> None:
    """FRM-10, for every kind of message, small ones in crowds too."""
    async with scripted(API(), eager=eager) as (channel, peer):
        await traffic(channel, peer)
    await peer.rest()
    assert_whole_lines(peer.recorder.writes)
    assert b"".join(peer.recorder.writes) == bytes(peer.heard)


@pytest.mark.parametrize("size", [70_000, 200_000, 1_000_000])
async def test_a_long_line_and_its_line_feed_are_one_write(size: int) -> None:
    async with scripted(API(), eager=False) as (channel, peer):
        await peer.send(request(1, "text", size), request(2, "texts", [size, 1, size]))
        for _ in range(6):
            await peer.next()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.remote().echo, "y" * size)
            asked = await peer.next()
            await peer.send(result(asked["id"], None))
    assert_whole_lines(peer.recorder.writes)
    assert sum(len(write) > size for write in peer.recorder.writes) == 4


# --- 65,536 -----------------------------------------------------------------------------------

LENGTHS = [k * READ + d for k in (1, 2, 3) for d in (-2, -1, 0, 1, 2)]


def text_for(length: int, message: dict[str, Any], text: str) -> int:
    """How long `text` must become for the line of `message` to have `length` bytes."""
    return length - len(json.dumps(message, separators=(",", ":"))) + len(text)


async def test_no_line_ends_where_a_read_does() -> None:
    """FRM-10: requests, results, errors and chunks of every length around the multiples of 65,536."""
    async with scripted(API(), eager=False) as (channel, peer):
        for length in LENGTHS:
            await peer.send(request("r", "text", text_for(length, result("r", ""), "")))
            assert len((await peer.next())["args"]["result"]) > READ - 200
            await peer.send(request("c", "texts", [text_for(length, chunk("c", ""), "")]))
            types = [(await peer.next())["type"] for _ in range(3)]
            assert types == ["response", "stream-chunk", "stream-end"]
            refusal = response("m", error="Method  is not a function")
            await peer.send(request("m", "x" * text_for(length, refusal, "")))
            assert (await peer.next())["id"] == "m"
        for id, length in enumerate(LENGTHS, 1):
            size = text_for(length, request(str(id), "echo", ""), "")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(channel.remote().echo, "x" * size)
                asked = await peer.next()
                assert asked["id"] == str(id), "this side's ids are counted in decimals"
                await peer.send(result(asked["id"], None))
    lengths = {len(line) for line in peer.frames}
    assert not [length for length in lengths if length % READ == 0]
    assert {READ - 1, READ + 1, 2 * READ - 1, 3 * READ + 1} <= lengths, "the test has missed the boundary"
    reader = StockReader()
    for frame in peer.frames:
        reader.write(frame + b"\n")
    assert not reader.lost
    assert len(reader.messages) == len(peer.frames) == len(LENGTHS) * 6


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("more", [-1, 0, 1, 2])
async def test_no_write_of_many_lines_leaves_its_last_line_feed_to_the_next_read(
    factor: int, more: int
) -> None:
    """Small messages that wait together leave in one write, and that has its length too."""
    length, small = factor * READ + more, factor * 1000
    answers = [result(n, "x" * small) for n in range(60)]
    last = result("last", "")
    size = length - sum(len(json.dumps(answer, separators=(",", ":"))) + 1 for answer in [*answers, last])
    async with scripted(API(), eager=False) as (_, peer):
        await peer.send(*[request(n, "text", small) for n in range(60)], request("last", "text", size))
        for _ in range(61):
            await peer.next()
    written = max(map(len, peer.recorder.writes))
    assert length <= written <= length + 2, "they did not leave together"
    reader = StockReader()
    for write in peer.recorder.writes:
        reader.write(write)
    assert not reader.lost
    assert len(reader.messages) == 61


# --- ASCII ------------------------------------------------------------------------------------

TEXTS = [
    "h\u00e9llo",
    "\u20ac",
    "\U0001f600",
    "\u2028\u2029\u0085\ufeff",
    "\ud800",
    "\x7f\x00\x1f",
    "\ud83d",
    '"\\',
]


async def test_every_line_is_ascii() -> None:
    """FRM-11: in arguments, names, results, chunks, errors and their fields, keys, ids and refusals."""
    async with scripted(API()) as (channel, peer):
        for text in TEXTS:
            nested = {text: [text, {"k": text}]}
            answers = await peer.exchange(
                request(1, "echo", nested),
                request(f"id {text}" if text.isprintable() else "id", "echo", text),
                request(2, "values", text, nested),
                request(3, "fail", text),
                request(4, "fail_later", text),
                request(5, f"missing{text}.deeper"),
                {"id": 6, "type": "get", "path": [text]},
                {"id": 7, "type": "construct", "method": text},
            )
            by_id = {answer["id"]: answer["args"] for answer in answers if answer["type"] == "response"}
            assert by_id[1] == {"result": nested}
            assert by_id[f"id {text}" if text.isprintable() else "id"] == {"result": text}
            error = by_id[3]["error"]
            assert error["message"] == error["field"] == error["cause"]["message"] == text
            assert text in by_id[5]["error"]
            assert text in by_id[6]["error"]
            assert text in by_id[7]["error"]
            chunks = [answer["args"]["value"] for answer in answers if answer["type"] == "stream-chunk"]
            assert sorted(chunks, key=str) == sorted([text, nested, text], key=str)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(channel.remote()[f"method{text}"], nested, text)
                asked = await peer.next()
                assert asked["method"] == f"method{text}"
                assert asked["args"] == [nested, text]
                await peer.send(result(asked["id"], text))
    assert bytes(peer.heard).isascii()


# --- what a stock peer does not understand ----------------------------------------------------


@pytest.mark.parametrize("value", [2**53, -(2**53), 2**64, [1, {"n": 2**53}]])
async def test_integers_that_javascript_would_change_are_refused(value: Any) -> None:
    """VAL-3: as an argument nothing is sent, as a result and as a chunk the peer is told."""
    async with scripted(API()) as (channel, peer):
        with pytest.raises(kk.NotSerializable, match="2\\*\\*53"):
            await channel.remote().echo(value)
        text = json.dumps(value)
        answers = await peer.exchange(
            f'{{"id":1,"method":"echo","args":[{text}],"type":"request"}}',
            f'{{"id":2,"method":"values","args":[7,{text}],"type":"request"}}',
        )
        assert [answer["type"] for answer in answers if answer["id"] == 2] == [
            "response",
            "stream-chunk",
            "stream-error",
        ]
        errors = [answer["args"]["error"] for answer in answers if "error" in answer["args"]]
        assert [error["name"] for error in errors] == ["NotSerializable", "NotSerializable"]
        assert await peer.exchange(request(3, "echo", 2**53 - 1)) == [result(3, 2**53 - 1)]
        assert await peer.exchange(request(3, "echo", 1 - 2**53)) == [result(3, 1 - 2**53)]


async def test_a_text_that_kkrpc_takes_for_a_function_is_refused() -> None:
    """VAL-5: at the top of the arguments, and nowhere else."""
    async with scripted(API()) as (channel, peer):
        with pytest.raises(kk.NotSerializable, match="__callback__"):
            await channel.remote().echo("__callback__1")
        assert await peer.exchange() == []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.remote().echo, ["__callback__1"], "a __callback__")
            asked = await peer.next()
            assert asked["args"] == [["__callback__1"], "a __callback__"]
            assert "callbackIds" not in asked
            await peer.send(result(asked["id"], "__callback__1"))
        (answer,) = await peer.exchange(request(1, "echo", ["__callback__1"]))
        assert answer["args"]["result"] == ["__callback__1"]


# --- nothing but stock messages, for ever -----------------------------------------------------


async def traffic(channel: kk.RPCChannel, peer: Peer, many: int = 300) -> None:
    """All that a channel does, against a peer that answers what it is asked: both ways, `many` at a time."""
    api = channel.remote()
    answering = anyio.CancelScope()
    heard: list[dict[str, Any]] = []
    changed = anyio.Event()

    async def answer() -> None:
        nonlocal changed
        with answering:
            while True:
                message = await peer.next()
                heard.append(message)
                changed.set()
                changed = anyio.Event()
                id = message["id"]
                if message["type"] != "request":
                    continue
                match message["method"]:
                    case "kkrpc.hello":
                        raise AssertionError("a second hello")
                    case "stream":
                        await peer.send(opened(id), *[chunk(id, n) for n in range(many)], end(id))
                    case "endless":
                        await peer.send(opened(id), *[chunk(id, n) for n in range(many)])
                    case "failing":
                        await peer.send(opened(id), chunk(id, 1), stream_error(id, "no more"))
                    case "silent":
                        pass
                    case "error":
                        await peer.send(response(id, error={"name": "TypeError", "message": "no"}))
                    case _:
                        await peer.send(result(id, message["args"]))

    async def heard_that(type: str, id: Any, count: int = 1) -> None:
        while sum(m["type"] == type and m["id"] == id for m in heard) < count:
            await changed.wait()

    async def asks() -> None:
        assert await api.echo(1, "x", None) == [1, "x", None]
        assert [n async for n in api.stream()] == list(range(many))
        stream = await api.stream()
        assert await stream is None
        with pytest.raises(kk.RemoteError, match="no more"):
            async for _ in api.failing():
                pass
        with pytest.raises(TypeError):
            await api.error()

    async def leaves() -> None:
        async for _ in api.endless():  # broken off
            break
        stream = await api.endless()
        await stream.cancel()
        async with await api.endless() as stream:
            async for n in stream:
                if n == many // 2:
                    break
        dropped = await api.endless()
        del dropped
        gc.collect()
        with anyio.move_on_after(0.01):  # cancelled while it waits for chunks
            async for _ in api.endless():
                pass
        with anyio.move_on_after(0.01):  # cancelled while it waits for the answer
            await api.silent()

    async def is_asked() -> None:
        await peer.send(
            request("u", "echo", "é"),
            request("many", "values", *range(2 * many)),
            request("generator", "returning", many),
            request("sink", "sink", many),
            request("bytes", "text", 10),
            request("none", "nothing.there"),
            request("error", "fail", "x"),
            request("late", "fail_later", "x"),
            request("arguments", "echo"),
            *[request(f"crowd {n}", "echo", n) for n in range(many)],
        )
        for id in ("many", "generator", "sink"):
            await heard_that("stream-end", id)
        await heard_that("stream-error", "late")
        for id in ("u", "bytes", "none", "error", "arguments", f"crowd {many - 1}"):
            await heard_that("response", id)

    async def is_left() -> None:
        await peer.send(request("endless", "endless"), request("forever", "forever"))
        await heard_that("stream-chunk", "endless", 100)
        # What a stock peer has no business to send either.
        await peer.send(ack("endless", 1000, 1 << 20), ack("forever", 1, 1), ack("?", 1, 1), cancel("?"))
        await heard_that("stream-chunk", "endless", 200)
        await peer.send(cancel("endless"), cancel("forever"), cancel("endless"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        async with anyio.create_task_group() as both:
            for part in (asks, leaves, is_asked, is_left, asks, leaves):
                both.start_soon(part)
            for _ in range(many // 3):
                both.start_soon(api.echo, "crowd")
        # The silent calls stay reserved for ever: toward a stock peer there is no cancel of a call.
        connection = channel.connection
        await until(lambda: {call.method for call in connection.outgoing.values()} == {"silent"})
        await until(lambda: not connection.incoming and not connection.outbox.size)
        await heard_that("response", "forever")
        answering.cancel()


KEYS = ["id", "method", "args", "type", "version"]


def assert_stock(frames: Iterable[bytes]) -> None:
    """Only what kkrpc 0.7 knows: its types, its keys in its order, its forms of each message."""
    for frame in frames:
        assert frame.startswith(b"{"), "not a line of JSON"
        assert frame.isascii()
        message = json.loads(frame)
        assert list(message) == KEYS, message
        assert message["version"] == "json"
        kind, args = message["type"], message["args"]
        assert kind in STOCK_TYPES, message
        if kind == "stream-chunk":
            assert list(args) == ["value"], message
        elif kind in ("stream-end", "stream-cancel"):
            assert args == {}, message
        elif kind in ("response", "stream-error"):
            assert list(args) in (["result"], ["error"]), message
        else:
            assert type(args) is list, message


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "writer"])
async def test_a_peer_that_says_nothing_of_extensions_gets_stock_messages_alone(eager: bool) -> None:
    async with scripted(API(), eager=eager) as (channel, peer):
        await traffic(channel, peer)
        assert channel.connection.agreed is None
    await peer.rest()
    assert_stock(peer.frames)
    assert b"nobody may hear" not in peer.heard
    assert b"kkrpc.hello" not in peer.heard
    assert_one_cancel_each(peer)


def assert_one_cancel_each(peer: Peer) -> None:
    """CAN-1: once for a stream, and only for what was a stream."""
    messages = [json.loads(frame) for frame in peer.frames]
    asked = {m["id"]: m["method"] for m in messages if m["type"] == "request"}
    cancels = [m["id"] for m in messages if m["type"] == "stream-cancel"]
    assert len(cancels) == len(set(cancels))
    assert {asked[id] for id in cancels} == {"endless"}
    endless = [id for id, method in asked.items() if method == "endless"]
    assert sorted(cancels) == sorted(endless)


REFUSALS = {
    "bare error": response(0, error="Method path kkrpc.hello not found at kkrpc"),
    "error object": response(0, error={"name": "Error", "message": "no", "stack": "s"}),
    "no API": response(0, error="No API implementation available"),
    "nothing": response(0),
    "null": result(0, None),
    "true": result(0, True),
    "text": result(0, "kkrpc"),
    "list": result(0, FEATURES),
    "features alone": result(0, {"features": FEATURES}),
    "protocol as text": result(0, {"protocol": "1", "features": FEATURES}),
    "protocol true": result(0, {"protocol": True, "features": FEATURES}),
    "features as text": result(0, {"protocol": 1, "features": "credit"}),
}


@pytest.mark.parametrize("refusal", [None, *REFUSALS], ids=lambda name: name or "silence")
async def test_a_hello_that_is_not_taken_up_means_stock_for_ever(refusal: str | None) -> None:
    """HEL-4, HEL-6: the hello goes first and once, and nothing of an extension ever follows it."""
    limits = kk.Limits(hello_seconds=0.05)
    async with scripted(API(), hello=True, limits=limits) as (channel, peer):
        greeting = await peer.next()
        assert greeting["method"] == "kkrpc.hello"
        assert list(greeting) == KEYS
        if refusal is not None:
            await peer.send({**REFUSALS[refusal], "id": greeting["id"]})
        await channel.ready()
        assert not channel.connection.pending
        await traffic(channel, peer, 20)
        # What would need CBOR is refused or takes kkrpc's own form, at once.
        with pytest.raises(kk.NotSerializable):
            await channel.remote().echo({1, 2})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.remote().echo, b"\x01\xff")
            asked = await peer.next()
            assert asked["args"] == [{"type": "Uint8Array", "data": [1, 255]}]
            await peer.send(result(asked["id"], None))
        assert channel.connection.agreed is None
        assert channel.connection.noise == 0
    await peer.rest()
    assert_stock(peer.frames)
    hellos = [frame for frame in peer.frames if b"kkrpc.hello" in frame]
    assert hellos == peer.frames[:1]


async def test_before_the_answer_to_the_hello_only_stock_messages_go() -> None:
    """HEL-3: a call that goes before the answer is a stock one, its stream is not credited."""
    async with scripted(API(), hello=True) as (channel, peer):
        greeting = await peer.next()
        await traffic(channel, peer)
        assert channel.connection.pending
    await peer.rest()
    assert_stock(peer.frames[1:])
    assert greeting["method"] == "kkrpc.hello"


async def test_a_value_that_needs_cbor_waits_for_the_answer_and_no_longer() -> None:
    limits = kk.Limits(hello_seconds=0.1)
    async with scripted(hello=True, limits=limits) as (channel, peer):
        await peer.next()
        started = anyio.current_time()
        with pytest.raises(kk.NotSerializable):
            await channel.remote().echo({1, 2})
        assert anyio.current_time() - started >= 0.1
        await at_rest(channel)
    assert await peer.rest() == []


async def test_a_late_answer_to_the_hello_still_counts() -> None:
    limits = kk.Limits(hello_seconds=0.01)
    async with scripted(hello=True, limits=limits) as (channel, peer):
        greeting = await peer.next()
        await channel.ready()
        assert channel.connection.agreed is None
        await peer.send(result(greeting["id"], {"protocol": 1, "features": FEATURES}))
        await peer.exchange()
        assert channel.connection.agreed == frozenset(FEATURES)
