"""Hubs and their names: what is created, who may subscribe, where a hub is exposed and what of it is seen."""

from __future__ import annotations

import logging
import re
from collections import Counter
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.channel.listing import names_of
from kkrpc_py.limits import Limits
from kkrpc_py.streaming.hub import HubFace
from kkrpc_py.streaming.upload_face import UploadFace
from kkrpc_py.transports.memory import memory_byte_streams
from kkrpc_py.wire import js
from kkrpc_py.wire.cbor_codec import CborWriter
from kkrpc_py.wire.json_codec import JsonWriter
from tests.channel.harness import BOUND, linked, until
from tests.channel.peer import request
from tests.streaming.scripts import collected, scripted_client

pytestmark = pytest.mark.anyio


def closed_stream(
    hub: kk.StreamHub, values: list[Any], name: str = "c", id: str = "x"
) -> kk.OutboundStream[Any]:
    """A stream with these values that has ended."""
    channel = hub.get(name) or hub.create(name)
    stream = channel.start(id)
    for value in values:
        stream.write(value)
    stream.close()
    return stream


# --- names and ids ----------------------------------------------------------------------------------


async def test_a_name_is_unique_until_it_is_given_up() -> None:
    hub = kk.StreamHub()
    first = hub.create("my-plugin:chat")
    assert first.name == "my-plugin:chat"
    assert (hub.get("my-plugin:chat"), hub.get("other"), hub.names()) == (first, None, ["my-plugin:chat"])
    with pytest.raises(kk.StreamChannelExists, match="my-plugin:chat") as exists:
        hub.create("my-plugin:chat", replay_window=3)
    assert exists.value.code == "DF0032"
    with pytest.raises(kk.StreamChannelExists):
        hub.shared_state("my-plugin:chat", initial=1)
    other = hub.create("")
    assert hub.names() == ["my-plugin:chat", ""]
    first.close()
    first.close()
    assert hub.names() == [""]
    again = hub.create("my-plugin:chat")
    first.close()
    assert hub.get("my-plugin:chat") is again is not first
    other.close()


@pytest.mark.parametrize("wrong", [None, 1, b"name", ["name"]])
async def test_a_name_is_text(wrong: Any) -> None:
    hub = kk.StreamHub()
    with pytest.raises(TypeError, match="string"):
        hub.create(wrong)
    if wrong is not None:
        with pytest.raises(TypeError, match="string"):
            hub.create("c").start(wrong)
    assert hub.names() in ([], ["c"])


@pytest.mark.parametrize(
    "options",
    [
        {"replay_window": -1},
        {"replay_window": 1.0},
        {"replay_window": True},
        {"closed_stream_retention": -1},
        {"closed_stream_retention": float("nan")},
        {"reconnect_grace": -0.1},
        {"reconnect_grace": float("nan")},
    ],
)
async def test_options_out_of_bounds(options: Any) -> None:
    hub = kk.StreamHub()
    with pytest.raises(ValueError):
        hub.create("c", **options)
    assert hub.names() == []


async def test_ids_are_given_or_unguessable() -> None:
    chat = kk.StreamHub().create("c")
    streams = [chat.start() for _ in range(200)]
    ids = [stream.id for stream in streams]
    assert len(set(ids)) == 200
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22,}", id) for id in ids)  # 128 bits and more
    assert chat.ids() == ids
    given = chat.start("given")
    assert (given.id, given.name, given.closed) == ("given", "c", False)
    assert chat.get("given") is given
    assert chat.get("other") is None
    assert chat.start("").id == ""
    assert chat.ids() == [*ids, "given", ""]


async def test_an_id_is_one_stream_at_a_time() -> None:
    chat = kk.StreamHub().create("c")
    first = chat.start("x")
    with pytest.raises(ValueError, match="has not ended"):
        chat.start("x")
    first.close()
    second = chat.start("x")
    assert chat.get("x") is second is not first
    assert first.epoch != second.epoch
    assert chat.ids() == ["x"]
    other = kk.StreamHub().create("c").start("x")
    assert other.epoch not in (first.epoch, second.epoch)


async def test_a_channel_that_was_given_up_starts_nothing() -> None:
    hub = kk.StreamHub()
    chat = hub.create("c")
    stream = chat.start("x")
    chat.close()
    assert stream.closed
    assert (chat.ids(), chat.get("x")) == ([], None)
    for start in (chat.start, chat.open_inbound):
        with pytest.raises(kk.StreamClosed) as closed:
            start()
        assert closed.value.code == "DF0031"
    with pytest.raises(kk.StreamClosed):
        await chat.pipe_from(numbers(3))
    with pytest.raises(kk.StreamClosed):
        stream.write(1)


async def numbers(count: int) -> Any:
    for number in range(count):
        yield number


def test_a_hub_is_made_before_there_is_a_loop() -> None:
    hub = kk.StreamHub()
    chat = hub.create("c")
    assert hub.channels == []

    async def main() -> list[Any]:
        stream = chat.start("x")
        stream.write(1)
        stream.close()
        async with kk.memory_pair({"streams": hub}) as (_, client):
            return await collected(kk.streams(client).subscribe("c", "x"))

    assert anyio.run(main) == [1]


async def test_what_they_say_of_themselves() -> None:
    hub = kk.StreamHub()
    chat = hub.create("c")
    stream = chat.start("x")
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x")
        for shown, parts in (
            (hub, ["StreamHub", "c", "channels=1"]),
            (chat, ["StreamChannel", "'c'", "streams=1"]),
            (stream.signal, ["CancelSignal", "not cancelled"]),
            (reader, ["StreamReader", "'c'", "'x'"]),
        ):
            assert all(part in repr(shown) for part in parts), repr(shown)


# --- unknown ----------------------------------------------------------------------------------------


async def test_what_is_unknown_is_told_at_once() -> None:
    hub = kk.StreamHub()
    hub.create("c").start("x")
    hub.create("gone").close()
    async with linked({"streams": hub}) as (_, client):
        streams = kk.streams(client)
        messages = []
        for name, id in (("c", "y"), ("d", "x"), ("gone", "x"), ("", "other"), ("c", "X")):
            for surface in ("iterate", "receive", "enter"):
                reader = streams.subscribe(name, id)
                with anyio.fail_after(BOUND), pytest.raises(kk.UnknownStream) as unknown:
                    if surface == "iterate":
                        await collected(reader)
                    elif surface == "receive":
                        await reader.receive()
                    else:
                        async with reader:
                            pytest.fail("entered")
                assert unknown.value.code == "DF0030"
                assert isinstance(unknown.value, kk.StreamingError | LookupError)
                messages.append(str(unknown.value).replace(repr(name), "NAME").replace(repr(id), "ID"))
        assert set(messages) == {"there is no stream ID of NAME"}


async def test_a_refusal_is_a_plain_answer_without_a_stream() -> None:
    hub = kk.StreamHub()
    hub.create("c").start("x")
    refused = hub.create("no", authorize=lambda request: False)
    refused.start("x")
    for credit in (True, False):
        async with scripted_client(hub, credit=credit) as client:
            answers = []
            for name, id in (("c", "unknown"), ("unknown", "x"), ("no", "x"), ("no", "unknown")):
                subscriber = await client.subscribe(name, id)
                assert (subscriber.mark, subscriber.chunks, subscriber.end) == (None, [], None)
                assert subscriber.refusal is not None
                message = subscriber.refusal.pop("message")
                answers.append(message.replace(f"'{id}'", "ID").replace(f"'{name}'", "NAME"))
                assert subscriber.refusal == {"name": "UnknownStream", "code": "DF0030"}
            assert len(set(answers)) == 1


async def test_what_is_told_again_of_a_name_is_bounded() -> None:
    async with scripted_client(kk.StreamHub()) as client:
        subscriber = await client.subscribe("n" * 100_000, "i" * 100_000)
        assert subscriber.refusal is not None
        assert len(subscriber.refusal["message"]) < 300


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["c"],
        [1, "x"],
        ["c", None],
        ["c", ["x"]],
        ["c", "x", []],
        ["c", "x", "drop_oldest"],
        ["c", "x", {"after": -1}],
        ["c", "x", {"after": True}],
        ["c", "x", {"after": "1"}],
        ["c", "x", {"after": 1.5}],
        ["c", "x", {"after": []}],
        ["c", "x", {"epoch": 1}],
        ["c", "x", {"highWaterMark": 0}],
        ["c", "x", {"highWaterMark": -(2**70)}],
        ["c", "x", {"highWaterMark": 1.5}],
        ["c", "x", {"highWaterMark": True}],
        ["c", "x", {"highWaterMark": None}],
        ["c", "x", {"highWaterMark": "256"}],
        ["c", "x", {"overflow": "drop"}],
        ["c", "x", {"overflow": None}],
        ["c", "x", {"overflow": ["latest"]}],
        ["c", "x", {}, {}],
    ],
    ids=str,
)
async def test_what_is_wrong_is_an_error_and_no_subscription(args: Any) -> None:
    hub = kk.StreamHub()
    stream = hub.create("c").start("x")
    async with scripted_client(hub) as client:
        answer = await client.call("streams.subscribe", *args)
        assert answer["error"]["name"] not in ("UnknownStream", "InternalError")
        assert stream.subscribers == 0
        # The channel, and the stream, are none the worse for it.
        assert (await client.subscribe("c", "x")).mark is not None
    assert stream.subscribers == 0


@pytest.mark.parametrize(
    "options",
    [
        None,
        {},
        {"after": None, "epoch": None},
        {"after": 2**53 - 1},
        {"after": 10**30},
        {"epoch": ""},
        {"overflow": "latest", "highWaterMark": 65_536},
        {"unknown": 1, "high_water_mark": 0, "": [], "after ": -1},
    ],
    ids=str,
)
async def test_what_is_no_fault(options: Any) -> None:
    hub = kk.StreamHub()
    stream = hub.create("c").start("x")
    async with scripted_client(hub) as client:
        subscriber = await client.subscribe("c", "x", options)
        assert subscriber.mark == {"next": 1, "epoch": stream.epoch}
        assert stream.subscribers == 1


async def test_undefined_is_missing() -> None:
    """What JavaScript says where it says nothing, in the codec that has a word for it."""
    hub = kk.StreamHub()
    stream = hub.create("c").start("x")
    async with linked({"streams": hub}, codec="superjson") as (_, client):
        subscribe = client.remote().streams.subscribe
        nothing = js.UNDEFINED
        for options in (nothing, dict.fromkeys(("after", "epoch", "highWaterMark", "overflow"), nothing)):
            async with await subscribe("c", "x", options) as call:
                assert await anext(call) == {"next": 1, "epoch": stream.epoch}


async def test_more_than_may_wait_is_refused() -> None:
    hub = kk.StreamHub(limits=Limits(high_water_mark=10))
    stream = hub.create("c").start("x")
    async with scripted_client(hub) as client:
        for mark, refused in ((10, False), (11, True), (2**53, True), (10**30, True)):
            subscriber = await client.subscribe("c", "x", highWaterMark=mark)
            assert (subscriber.refusal is not None) is refused
            if subscriber.refusal is not None:
                assert subscriber.refusal["name"] == "LimitExceeded"
                assert "high_water_mark" in subscriber.refusal["message"]
        assert stream.subscribers == 1
        # The default is what is said by who says nothing; here it is more than the hub allows.
        assert (await client.subscribe("c", "x")).refusal is not None


# --- authorize --------------------------------------------------------------------------------------


async def test_who_may_subscribe_is_asked_each_time() -> None:
    asked: list[kk.StreamRequest] = []
    answer: Any = True

    def authorize(request: kk.StreamRequest) -> bool:
        asked.append(request)
        return bool(answer)

    hub = kk.StreamHub()
    chat = hub.create("c", authorize=authorize)
    stream = chat.start("x")
    stream.write(1)
    async with linked({"streams": hub}) as (server, client):
        streams = kk.streams(client)
        for answer in (True, False, True):
            reader = streams.subscribe("c", "x", overflow="block")
            if answer:
                assert await reader.receive() == 1
            else:
                with pytest.raises(kk.UnknownStream):
                    await reader.receive()
            await reader.aclose()
        assert asked == [kk.StreamRequest("subscribe", "c", "x", server, "block")] * 3
        with pytest.raises(kk.UnknownStream):
            await streams.subscribe("c", "unknown").receive()
        assert len(asked) == 3, "nobody is asked about what there is not"


async def test_it_may_take_its_time() -> None:
    go, asked = anyio.Event(), anyio.Event()

    async def authorize(request: kk.StreamRequest) -> bool:
        asked.set()
        await go.wait()
        return request.overflow != "block"

    hub = kk.StreamHub()
    stream = hub.create("c", authorize=authorize).start("x")
    async with linked({"streams": hub}) as (_, client):
        streams = kk.streams(client)
        outcomes: list[Any] = []

        async def subscribe(overflow: Any) -> None:
            try:
                outcomes.append(await streams.subscribe("c", "x", overflow=overflow).receive())
            except kk.UnknownStream:
                outcomes.append("unknown")

        async with anyio.create_task_group() as tg:
            tg.start_soon(subscribe, "latest")
            tg.start_soon(subscribe, "block")
            await asked.wait()
            stream.write("before")
            assert stream.subscribers == 0
            go.set()
        assert sorted(outcomes) == ["before", "unknown"]


@pytest.mark.parametrize(
    "what", ["the stream is forgotten", "the channel is closed", "another one is started"]
)
async def test_what_changes_while_it_is_decided(what: str) -> None:
    hub = kk.StreamHub()

    async def authorize(request: kk.StreamRequest) -> bool:
        if what == "the channel is closed":
            chat.close()
        else:
            stream.close()
            if what == "another one is started":
                chat.start("x").write("another")
        return True

    chat = hub.create("c", closed_stream_retention=0, authorize=authorize)
    stream = chat.start("x")
    stream.write("first")
    async with linked({"streams": hub}) as (_, client):
        reader = kk.streams(client).subscribe("c", "x")
        if what == "another one is started":
            assert await reader.receive() == "another"
            await reader.aclose()
        else:
            with pytest.raises(kk.UnknownStream):
                await reader.receive()


class Denied(Exception):
    pass


@pytest.mark.parametrize("late", [False, True])
async def test_what_it_raises_is_told(late: bool) -> None:
    async def later(request: kk.StreamRequest) -> bool:
        raise PermissionError("not you")

    def at_once(request: kk.StreamRequest) -> bool:
        raise PermissionError("not you")

    hub = kk.StreamHub()
    stream = hub.create("c", authorize=later if late else at_once).start("x")
    async with linked({"streams": hub}) as (_, client):
        with pytest.raises(kk.RemoteError, match="not you") as denied:
            await kk.streams(client).subscribe("c", "x").receive()
        assert denied.value.name == "PermissionError"
        assert stream.subscribers == 0
        assert not stream.signal.cancelled


async def test_who_gives_up_while_it_is_decided_is_no_subscriber() -> None:
    over = anyio.Event()

    async def authorize(request: kk.StreamRequest) -> bool:
        try:
            await anyio.sleep_forever()
        finally:
            over.set()
        return True

    hub = kk.StreamHub()
    stream = hub.create("c", authorize=authorize).start("x")
    async with linked({"streams": hub}) as (_, client):
        with anyio.move_on_after(0.01):
            await kk.streams(client).subscribe("c", "x").receive()
        with anyio.fail_after(BOUND):
            await over.wait()
        assert stream.subscribers == 0
        assert not stream.signal.cancelled


# --- where a hub is exposed -------------------------------------------------------------------------


class API:
    def __init__(self, hub: kk.StreamHub) -> None:
        self.streams = hub
        self.other = 1

    async def add(self, a: int, b: int) -> int:
        return a + b


def class_body(hub: kk.StreamHub) -> Any:
    class Body:
        streams = hub

        async def add(self, a: int, b: int) -> int:
            return a + b

    return Body()


PLACES: dict[str, Any] = {
    "a dict": lambda hub: {"streams": hub, "add": lambda a, b: a + b},
    "a class body": class_body,
    "an instance attribute": API,
    "attached": lambda hub: {"add": lambda a, b: a + b},
    "the api itself": lambda hub: hub,
}


@pytest.mark.parametrize("place", PLACES)
async def test_where_a_hub_is_exposed(place: str) -> None:
    hub = kk.StreamHub()
    closed_stream(hub, [1, 2])
    path = "" if place == "the api itself" else "streams"
    async with linked(PLACES[place](hub)) as (server, client):
        if place == "attached":
            assert hub.channels == []
            hub.attach(server)
        assert hub.channels == [server]
        assert await collected(kk.streams(client, path).subscribe("c", "x")) == [1, 2]
        if path:
            assert await client.remote().add(1, 2) == 3
            with pytest.raises(kk.MethodNotFound):
                await collected(kk.streams(client, "").subscribe("c", "x"))
        heard = kk.events(client, path or "streams").on("told")
        if path:
            assert hub.broadcast("told", 1) == 1
            assert (await anext(heard)).args == (1,)
    assert hub.channels == []


async def test_another_path() -> None:
    hub = kk.StreamHub()
    closed_stream(hub, [1])
    async with linked({"my": {"deep": hub}}) as (server, client):
        assert await collected(kk.streams(client, "my.deep").subscribe("c", "x")) == [1]
        assert hub.channels == [server]
        with pytest.raises(ValueError, match="at 'my.deep'"):
            hub.attach(server, "beside")
        other = kk.StreamHub()
        closed_stream(other, [2])
        with pytest.raises(ValueError, match="exposed already"):
            other.attach(server, "my")
        other.attach(server, "my.other")
        assert await collected(kk.streams(client, "my.other").subscribe("c", "x")) == [2]
        heard, other_heard = (kk.events(client, path).on("e") for path in ("my.deep", "my.other"))
        assert hub.broadcast("e", 1) == other.broadcast("e", 2) == 1
        assert (await anext(heard)).args == (1,)
        assert (await anext(other_heard)).args == (2,)
        for path in ("streams", "beside"):
            with pytest.raises(kk.MethodNotFound):
                await collected(kk.streams(client, path).subscribe("c", "x"))


async def test_a_hub_of_many_channels() -> None:
    hub = kk.StreamHub()
    stream = hub.create("c").start("x")
    limits = Limits(finish_seconds=0.01)
    async with (
        linked({"streams": hub}, quiet=False, limits=limits) as (first, one),
        linked(None) as (second, two),
    ):
        hub.attach(second)
        assert hub.channels == [first, second]
        readers = [kk.streams(client).subscribe("c", "x") for client in (one, two)]
        for reader in readers:
            await reader.__aenter__()
        assert stream.subscribers == 2
        stream.write("to both")
        assert [await reader.receive() for reader in readers] == ["to both", "to both"]
        await one.aclose()
        await first.wait_closed()
        assert hub.channels == [second]
        with anyio.fail_after(BOUND):
            await until(lambda: stream.subscribers == 1)
        assert not stream.signal.cancelled
        await readers[1].aclose()
        assert stream.signal.cancelled


async def test_attached_before_the_channel_begins() -> None:
    hub = kk.StreamHub()
    closed_stream(hub, [1])
    near, far = memory_byte_streams()
    channel = RPCChannel(near)
    hub.attach(channel)
    assert hub.channels == []
    assert hub.broadcast("told") == 0
    with anyio.fail_after(BOUND):
        async with channel, RPCChannel(far) as client:
            assert hub.channels == [channel]
            assert await collected(kk.streams(client).subscribe("c", "x")) == [1]


async def test_attached_by_the_channel() -> None:
    hub = kk.StreamHub()
    async with linked(None) as (server, _):
        server.attach("here", hub)
        assert hub.channels == [server]


async def test_two_hubs_of_one_channel() -> None:
    hubs = {name: kk.StreamHub() for name in ("one", "two")}
    for name, hub in hubs.items():
        closed_stream(hub, [name])
    async with linked(dict(hubs)) as (server, client):
        for name, hub in hubs.items():
            assert hub.channels == [server]
            assert await collected(kk.streams(client, name).subscribe("c", "x")) == [name]


# --- what of a hub is seen --------------------------------------------------------------------------

SEEN = {
    "subscribe", "mutate", "emit", "upload.stream", "upload.write", "upload.close", "upload.error",
}  # fmt: skip


def test_the_methods_of_the_protocol_and_no_other() -> None:
    """The list of a class's methods, as the channel makes it."""
    seen = set()
    for cls, prefix in ((HubFace, ""), (UploadFace, "upload.")):
        for name in dir(cls):
            if not name.startswith("_") and callable(getattr(cls, name)):
                seen.add(prefix + name)
        assert not names_of(cls).attributes, "it gives other names to something"
    assert seen == SEEN


@pytest.mark.parametrize("place", PLACES)
async def test_what_the_application_calls_is_nobodys(place: str) -> None:
    hub = kk.StreamHub()
    hub.create("c").start("x")
    hub.shared_state("s", initial=1)
    secret = {name for name in dir(hub) if not name.startswith("__")}
    secret |= {name for name in dir(hub._face) if not name.startswith("__")}
    paths = secret - SEEN - {"upload"}
    paths |= {f"_face.{name}" for name in SEEN} | {f"upload.{name}" for name in dir(hub.inbounds)} - SEEN
    paths |= {f"{name}.__call__" for name in SEEN} | {"__init__", "__class__", "subscribe.__globals__"}
    paths |= {
        "_hub.create",
        "upload._inbounds.open",
        "writer.share",
        "limits.frame",
        "inbounds.open",
        "upload",
    }
    assert {"create", "attach", "broadcast", "on", "shared_state", "get", "names", "remove", "_hub"} <= paths
    prefix = "" if place == "the api itself" else "streams."
    async with linked(PLACES[place](hub)) as (server, client):
        if place == "attached":
            hub.attach(server)
        for path in sorted(paths):
            with pytest.raises(kk.MethodNotFound):
                await kk.Call(client, prefix + path, [])
        property = client.remote()
        if prefix:
            with pytest.raises(kk.PropertyNotFound):
                await property.streams
            property = property.streams
        for name in ("limits", "writer", "inbounds", "channels", "upload", "subscribe"):
            with pytest.raises(kk.PropertyNotFound):
                await getattr(property, name)
            with pytest.raises(kk.PropertyNotFound):
                await client.set(getattr(property, name), 1)
        assert hub.names() == ["c", "s"]


async def test_streams_and_channels_are_nobodys_api() -> None:
    """What a handler returns by mistake, or an API holds, leads a peer nowhere."""
    hub = kk.StreamHub()
    chat = hub.create("c")
    stream = chat.start("x")

    class Holds:
        async def given(self) -> Any:
            return chat

    holds: Any = {"chat": chat, "stream": stream, "deep": {"signal": stream.signal}, "api": Holds()}
    async with linked(holds) as (_, client):
        for path in ("chat.start", "chat.close", "stream.write", "stream.close", "stream.signal.set", "chat"):
            with pytest.raises(kk.MethodNotFound):
                await kk.Call(client, path, [])
        with pytest.raises(kk.KkrpcError):
            await client.remote().api.given()
    assert not stream.closed


# --- once a codec -----------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["auto", "json", "superjson", "cbor"])
async def test_a_hundred_subscribers_and_one_encoding(codec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Counter[str] = Counter()
    for cls in (JsonWriter, CborWriter):

        def dumps(self: Any, value: Any, write: Any = cls.dumps, name: str = cls.__name__) -> bytes:
            counts[name] += "marked" in repr(value)
            written: bytes = write(self, value)
            return written

        monkeypatch.setattr(cls, "dumps", dumps)
    hub = kk.StreamHub()
    stream = hub.create("c").start("x")
    async with linked({"streams": hub}, codec=codec) as (_, client):
        streams = kk.streams(client)
        readers = [streams.subscribe("c", "x") for _ in range(100)]
        for reader in readers:
            await reader.__aenter__()
        values = [{"marked": number, "text": "é"} for number in range(5)]
        for value in values:
            stream.write(value)
        stream.close()
        for reader in readers:
            assert await collected(reader) == values
    assert 5 <= sum(counts.values()) <= 10, counts
    assert max(counts.values()) <= 10


async def test_peers_of_every_kind_get_the_same() -> None:
    hub = kk.StreamHub()
    stream = hub.create("c").start("x")
    values = [{"é": [1, 2.5, None, True]}, "text", 2**53 - 1, b"bytes"]
    for value in values:
        stream.write(value)
    stream.close()
    for codec in ("auto", "json", "superjson", "cbor"):
        for hello in (True, False):
            async with linked({"streams": hub}, codec=codec, hello=hello) as (_, client):
                assert await collected(kk.streams(client).subscribe("c", "x")) == values


async def test_a_value_for_some_ends_the_subscriptions_of_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = kk.StreamHub()
    stream = hub.create("c").start("x")
    stream.write("fine")
    stream.write({1, 2})
    stream.write("fine again")
    stream.close()
    with caplog.at_level(logging.ERROR, "kkrpc_py"):
        async with linked({"streams": hub}) as (_, cbor):
            assert await collected(kk.streams(cbor).subscribe("c", "x")) == ["fine", {1, 2}, "fine again"]
        async with linked({"streams": hub}, codec="json") as (_, json):
            reader = kk.streams(json).subscribe("c", "x")
            assert await reader.receive() == "fine"
            with pytest.raises(kk.RemoteError) as refused:
                await reader.receive()
            assert refused.value.name == "NotSerializable"
    assert not caplog.records


async def test_the_hook_of_the_hub() -> None:
    class Own:
        def __init__(self, n: int) -> None:
            self.n = n

    hub = kk.StreamHub(encode=lambda value: {"own": value.n} if isinstance(value, Own) else NotImplemented)
    stream = hub.create("c").start("x")
    stream.write([Own(1), Own(2)])
    with pytest.raises(kk.NotSerializable):
        stream.write(object())
    stream.close()
    async with linked({"streams": hub}) as (_, client):
        assert await collected(kk.streams(client).subscribe("c", "x")) == [[{"own": 1}, {"own": 2}]]


async def test_interceptors_see_the_calls() -> None:
    seen: list[tuple[str, list[Any]]] = []

    async def watch(context: kk.CallContext, call_next: kk.Next) -> Any:
        seen.append((context.method, list(context.args)))
        return await call_next()

    hub = kk.StreamHub()
    closed_stream(hub, [1, 2])
    async with linked({"streams": hub}, interceptors=[watch]) as (_, client):
        assert await collected(kk.streams(client).subscribe("c", "x", high_water_mark=7)) == [1, 2]
    assert seen == [("streams.subscribe", ["c", "x", {"highWaterMark": 7, "overflow": "drop_oldest"}])]


@pytest.mark.parametrize("how", ["raises", "is cancelled", "answers something else"])
async def test_an_interceptor_that_lets_a_subscription_fall(how: str) -> None:
    """It was made, and nobody reads it: that is no subscriber that holds up a producer."""
    parked = anyio.Event()

    async def fall(context: kk.CallContext, call_next: kk.Next) -> Any:
        result = await call_next()
        if how == "raises":
            raise RuntimeError("no")
        if how == "is cancelled":
            parked.set()
            await anyio.sleep_forever()
        del result
        return "something else"

    hub = kk.StreamHub()
    stream = hub.create("c").start("x")
    async with linked({"streams": hub}, interceptors=[fall]) as (_, client):
        with anyio.move_on_after(BOUND) as scope:
            async with anyio.create_task_group() as tg:

                async def subscribe() -> None:
                    with pytest.raises(kk.KkrpcError):
                        await kk.streams(client).subscribe("c", "x", overflow="block").receive()

                tg.start_soon(subscribe)
                if how == "is cancelled":
                    await parked.wait()
                    tg.cancel_scope.cancel()
        assert not scope.cancelled_caught
        await until(lambda: stream.subscribers == 0)


async def test_far_too_many_subscriptions() -> None:
    """Their number is bounded as that of all streams is, and one that is refused is none (CALL-7)."""
    hub = kk.StreamHub()
    stream = hub.create("c").start("x")
    async with scripted_client(hub, limits=Limits(calls=5)) as client:
        subscribers = [await client.subscribe("c", "x") for _ in range(4)]
        assert stream.subscribers == 4
        await client.peer.send(*(request(f"more {n}", "streams.subscribe", "c", "x") for n in range(5)))
        await client.peer.send(request("last", "ping"))
        with anyio.fail_after(BOUND):
            await until(lambda: stream.subscribers == 5)
        for subscriber in subscribers:
            await subscriber.client.peer.send(
                {"id": subscriber.id, "method": "", "args": {}, "type": "stream-cancel"}
            )
        with anyio.fail_after(BOUND):
            await until(lambda: stream.subscribers == 1)
