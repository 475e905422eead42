"""Uploads by calls, as a stock client makes them: the credit to the number, hostile clients, memory.

The client is a scripted peer, which speaks bytes. Where it says hello, that changes nothing here.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.abc
import pytest
from anyio.lowlevel import checkpoint

import kkrpc_py as kk
from tests.channel.harness import BOUND, linked, until, without_collector
from tests.channel.peer import Peer, cancel, hello, request, result, scripted
from tests.naming import shown
from tests.streaming.test_uploads import API, Reading

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", autouse=True)
def no_collector() -> Iterator[None]:
    with without_collector():
        yield


class Client:
    """A stock client: requests by number, and their answers."""

    def __init__(self, api: API, channel: kk.RPCChannel, peer: Peer) -> None:
        self.api, self.channel, self.peer = api, channel, peer
        self._ids = itertools.count(1)
        self._heard: dict[str, dict[str, Any]] = {}

    async def opened(self, high_water_mark: int = 256) -> kk.InboundReader[Any]:
        call = await self.send("app.open", high_water_mark)
        return self.api.readers.pop((await self.answer(call))["result"])

    async def send(self, method: str, *args: Any) -> str:
        """Send a call; its id."""
        id = f"call {next(self._ids)}"
        await self.peer.send(request(id, method, *args))
        return id

    async def write(self, reader: kk.InboundReader[Any] | str, seq: Any, chunk: Any = "x") -> str:
        return await self.send("streams.upload.write", _id(reader), seq, chunk)

    async def answer(self, id: str) -> dict[str, Any]:
        """What the call is answered with: `{"result": …}` or `{"error": …}`."""
        while id not in self._heard:
            message = await self.peer.next()
            assert message["type"] == "response"
            assert message["id"] not in self._heard, "answered twice"
            self._heard[message["id"]] = message["args"]
        return self._heard[id]

    async def result(self, id: str) -> Any:
        args = await self.answer(id)
        assert "error" not in args, args
        return args.get("result")

    async def error(self, id: str) -> str:
        args = await self.answer(id)
        assert list(args) == ["error"], args
        name: str = args["error"]["name"]
        return name

    async def credit(self, reader: kk.InboundReader[Any] | str, seq: int, chunk: Any = "x") -> int:
        credit: int = await self.result(await self.write(reader, seq, chunk))
        return credit

    async def waits(self, *calls: str) -> None:
        """None of the calls is answered, though everything that came has been looked at."""
        for call in calls:
            assert call not in self._heard
        for message in await self._so_far():
            self._heard[message["id"]] = message["args"]
        for call in calls:
            assert call not in self._heard, self._heard[call]

    async def _so_far(self) -> list[dict[str, Any]]:
        said = await self.peer._until_pong()
        for _ in range(10):
            await checkpoint()
        return said + await self.peer._until_pong()


def _id(reader: kk.InboundReader[Any] | str) -> Any:
    return reader.id if isinstance(reader, kk.InboundReader) else reader


@contextlib.asynccontextmanager
async def stock(api: API | None = None, *, greets: bool = False, **options: Any) -> AsyncIterator[Client]:
    api = api or API()
    async with scripted({"app": api, "streams": api.hub}, **options) as (channel, peer):
        client = Client(api, channel, peer)
        if greets:
            await peer.exchange(hello())
        yield client
        for session in api.hub.inbounds._sessions.values():
            await until(lambda session=session: not session.open)  # type: ignore[misc]  # a lambda's default
            assert not session.unread
    assert not api.hub.inbounds._sessions


# --- the credit ------------------------------------------------------------------------------------


@pytest.mark.parametrize("greets", [False, True])
async def test_an_upload_in_three_lines(greets: bool) -> None:
    async with stock(greets=greets) as it, anyio.create_task_group() as tasks:
        reader = await it.opened(2)
        reading = Reading(tasks, reader)
        for number in range(1, 51):
            assert await it.credit(reader, number, {"number": number}) > number
        assert await it.result(await it.send("streams.upload.close", reader.id)) is None
        assert reading.chunks == [{"number": number} for number in range(1, 51)]
        await reading.over.wait()
        assert reading.error is None


async def test_the_credit_is_what_was_taken_and_the_mark_together() -> None:
    async with stock() as it:
        reader = await it.opened(3)
        assert [await it.credit(reader, seq) for seq in (1, 2)] == [3, 3]
        third = await it.write(reader, 3)
        await it.waits(third)
        assert await reader.receive() == "x"
        assert await it.result(third) == 4
        fourth = await it.write(reader, 4)
        await it.waits(fourth)
        assert [await reader.receive() for _ in range(3)] == ["x"] * 3
        assert await it.result(fourth) == 7  # two are taken beside the one that it waited for
        assert await it.credit(reader, 5) == 7
        reader.cancel()


async def test_a_mark_of_one_is_one_chunk_after_the_other() -> None:
    async with stock() as it:
        reader = await it.opened(1)
        for number in range(1, 20):
            call = await it.write(reader, number, number)
            if number < 3:
                await it.waits(call)
            assert await reader.receive() == number
            assert await it.result(call) == number + 1
        reader.cancel()


async def test_writes_may_go_ahead_of_their_answers() -> None:
    async with stock() as it:
        reader = await it.opened(4)
        calls = [await it.write(reader, seq, seq) for seq in (1, 2, 3, 4)]
        beyond = await it.write(reader, 5, 5)
        assert await it.error(beyond) == "LimitExceeded"
        assert [await it.result(call) for call in calls[:3]] == [4, 4, 4]
        await it.waits(calls[3])
        assert [await reader.receive() for _ in range(4)] == [1, 2, 3, 4]
        assert await it.result(calls[3]) > 4
        assert await it.credit(reader, 5, "again") > 5
        assert await reader.receive() == "again"
        reader.cancel()


@pytest.mark.parametrize(
    ("seq", "name"),
    [
        (0, "ProtocolError"),
        (-1, "ProtocolError"),
        (True, "ProtocolError"),
        (1.0, "ProtocolError"),
        (2.5, "ProtocolError"),
        ("2", "ProtocolError"),
        (None, "ProtocolError"),
        ([2], "ProtocolError"),
        ({}, "ProtocolError"),
        (3, "ProtocolError"),
        (4, "ProtocolError"),
        (5, "LimitExceeded"),
        (1 << 53, "LimitExceeded"),
        (10**300, "LimitExceeded"),
    ],
)
async def test_a_number_that_may_not_be_is_refused_and_the_upload_goes_on(seq: Any, name: str) -> None:
    async with stock() as it, anyio.create_task_group() as tasks:
        reader = await it.opened(4)
        assert await it.credit(reader, 1, "one") == 4
        assert await it.error(await it.write(reader, seq, "no")) == name
        assert await it.credit(reader, 2, "two") == 4
        reading = Reading(tasks, reader)
        await it.result(await it.send("streams.upload.close", reader.id))
        assert reading.chunks == ["one", "two"]


async def test_a_number_that_was_taken_is_answered_again_and_not_taken_again() -> None:
    async with stock() as it, anyio.create_task_group() as tasks:
        reader = await it.opened(2)
        assert await it.credit(reader, 1, "one") == 2
        assert await it.credit(reader, 1, "not one") == 2
        calls = [await it.write(reader, 2, text) for text in ("two", "not two", "nor that")]
        await it.waits(*calls)
        assert await it.credit(reader, 1) == 2
        assert await reader.receive() == "one"
        assert [await it.result(call) for call in calls] == [3, 3, 3]
        assert await it.credit(reader, 1) == 3
        close = await it.send("streams.upload.close", reader.id)
        assert await reader.receive() == "two"
        with pytest.raises(anyio.EndOfStream):
            await reader.receive()
        await it.result(close)
        del tasks


async def test_a_write_that_is_cancelled_while_it_waits_was_taken() -> None:
    async with stock() as it:
        reader = await it.opened(1)
        call = await it.write(reader, 1, "one")
        await it.waits(call)
        await it.peer.send(cancel(call))
        again = await it.write(reader, 1, "not one")
        await it.waits(again)
        assert await reader.receive() == "one"
        assert await it.result(again) == 2
        reader.cancel()


# --- how it ends -----------------------------------------------------------------------------------


async def _all_closed(it: Client, reader: kk.InboundReader[Any]) -> None:
    for method, args in (
        ("write", (1, "x")),
        ("write", (2, "x")),
        ("write", (10**30, "x")),
        ("write", (None, "x")),
        ("close", ()),
        ("error", ("x",)),
    ):
        assert await it.error(await it.send(f"streams.upload.{method}", reader.id, *args)) == "StreamClosed"
    call = await it.send("streams.upload.write", reader.id, 1, "x")
    assert (await it.answer(call))["error"]["code"] == "DF0031"


async def test_close_is_answered_when_all_is_read_and_closed_it_stays() -> None:
    async with stock() as it:
        reader = await it.opened()
        await it.credit(reader, 1, "one")
        close = await it.send("streams.upload.close", reader.id)
        await it.waits(close)
        await _all_closed(it, reader)
        assert await reader.receive() == "one"
        await it.waits(close)
        with pytest.raises(anyio.EndOfStream):
            await reader.receive()
        assert await it.result(close) is None
        await _all_closed(it, reader)


async def test_close_may_be_all_there_is() -> None:
    async with stock() as it:
        reader = await it.opened()
        close = await it.send("streams.upload.close", reader.id)
        with pytest.raises(anyio.EndOfStream):
            await reader.receive()
        assert await it.result(close) is None


async def test_a_write_that_waits_at_the_close_gets_its_answer() -> None:
    async with stock() as it:
        reader = await it.opened(1)
        call = await it.write(reader, 1, "one")
        close = await it.send("streams.upload.close", reader.id)
        await it.waits(call, close)
        assert await reader.receive() == "one"
        assert await it.result(call) == 2
        with pytest.raises(anyio.EndOfStream):
            await reader.receive()
        assert await it.result(close) is None


@pytest.mark.parametrize(
    ("error", "name", "message", "fields"),
    [
        ("in words", "Error", "in words", {}),
        ("Method x is not a function", "Error", "Method x is not a function", {}),
        ({"name": "TypeError", "message": "no"}, "TypeError", "no", {}),
        ({"name": "Own", "message": "m", "stack": "s", "row": 3}, "Own", "m", {"row": 3}),
        ({"message": "nameless"}, "Error", "nameless", {}),
        ({"name": 7, "message": ["x"], "code": None}, "Error", "", {"code": None}),
        ({}, "Error", "", {}),
        (None, "Error", "None", {}),
        (17, "Error", "17", {}),
        ([1, "x"], "Error", "[1, 'x']", {}),
        ({"name": "ChannelClosed", "message": "forged"}, "ChannelClosed", "forged", {}),
        ({"name": "StopAsyncIteration", "message": "forged"}, "StopAsyncIteration", "forged", {}),
    ],
)
async def test_an_error_is_raised_after_what_came_before_it(
    error: Any, name: str, message: str, fields: dict[str, Any]
) -> None:
    async with stock() as it, anyio.create_task_group() as tasks:
        reader = await it.opened()
        await it.credit(reader, 1, "one")
        assert await it.result(await it.send("streams.upload.error", reader.id, error)) is None
        await _all_closed(it, reader)
        reading = Reading(tasks, reader)
        await reading.over.wait()
        assert reading.chunks == ["one"]
        assert isinstance(reading.error, kk.RemoteError)
        assert (reading.error.name, reading.error.message) == (name, message)
        assert reading.error.fields == fields
        await _all_closed(it, reader)


async def test_an_error_of_superjson_is_one() -> None:
    async with stock() as it, anyio.create_task_group() as tasks:
        reader = await it.opened()
        line = (
            '{"json":{"id":"e","method":"streams.upload.error","args":["%s",{"name":"RangeError","message":"far"}],'
            '"type":"request","version":"superjson"},"meta":{"values":{"args.1":["Error"]}}}'
        )
        await it.peer.send(line % reader.id)
        reading = Reading(tasks, reader)
        await reading.over.wait()
        assert isinstance(reading.error, kk.RemoteError)
        assert (reading.error.name, reading.error.message) == ("RangeError", "far")
        await it.peer.next()


async def test_a_reader_that_cancels_answers_all_that_wait() -> None:
    async with stock() as it:
        reader = await it.opened(2)
        await it.credit(reader, 1)
        calls = [await it.write(reader, 2), await it.write(reader, 2)]
        await it.waits(*calls)
        reader.cancel()
        for call in calls:
            assert await it.error(call) == "StreamClosed"
        await _all_closed(it, reader)
        reader = await it.opened()
        await it.credit(reader, 1)
        close = await it.send("streams.upload.close", reader.id)
        await it.waits(close)
        reader.cancel()
        assert await it.error(close) == "StreamClosed"
        await _all_closed(it, reader)


async def test_a_reader_that_cancels_before_anybody_writes() -> None:
    async with stock() as it:
        reader = await it.opened()
        reader.cancel()
        await _all_closed(it, reader)


async def test_a_reader_that_is_dropped_answers_all_that_wait() -> None:
    async with stock() as it:
        reader = await it.opened(1)
        call = await it.write(reader, 1)
        await it.waits(call)
        id = reader.id
        del reader
        assert await it.error(call) == "StreamClosed"
        assert await it.error(await it.write(id, 2)) == "StreamClosed"


async def test_a_task_that_waits_for_a_chunk_is_told_of_the_cancel() -> None:
    async with stock() as it, anyio.create_task_group() as tasks:
        reader = await it.opened()
        reading = Reading(tasks, reader)
        await it.credit(reader, 1, "one")
        await until(lambda: reading.chunks == ["one"])
        reader.cancel()
        await reading.over.wait()
        assert isinstance(reading.error, kk.CallCancelled)
        await _all_closed(it, reader)


@pytest.mark.parametrize("ends", ["eof", "close"])
async def test_a_client_that_goes_is_told_to_the_reader_after_what_came(ends: str) -> None:
    async with stock() as it, anyio.create_task_group() as tasks:
        reader, later, closed = [await it.opened(2) for _ in range(3)]
        reading = Reading(tasks, reader)
        for each in (reader, later, closed):
            assert await it.credit(each, 1, "one") >= 2
        close = await it.send("streams.upload.close", closed.id)
        waits = await it.write(later, 2, "two")
        await it.waits(close, waits)
        await getattr(it.peer, ends)()
        await reading.over.wait()
        assert reading.chunks == ["one"]
        assert isinstance(reading.error, kk.UploadDisconnected)
        seen = []
        with pytest.raises(kk.UploadDisconnected):
            async for chunk in later:
                seen.append(chunk)
        assert seen == ["one", "two"]
        assert [chunk async for chunk in closed] == ["one"]  # all of it had come
        if ends == "eof":  # it has said all that it had to say, and may hear
            assert await it.error(waits) == "StreamClosed"
            assert await it.result(close) is None


# --- who may ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["write", "close", "error"])
@pytest.mark.parametrize("id", ["", "nobody's", None, 1, True, 1.5, ["x"], {"x": 1}], ids=shown)
async def test_ids_that_are_none_look_alike(method: str, id: Any) -> None:
    args = {"write": (1, "x"), "close": (), "error": ("x",)}[method]
    async with stock() as it:
        first = await it.answer(await it.send(f"streams.upload.{method}", id, *args))  # no session yet
        reader = await it.opened()
        assert await it.answer(await it.send(f"streams.upload.{method}", id, *args)) == first
        reader.cancel()
        assert await it.answer(await it.send(f"streams.upload.{method}", id, *args)) == first
        assert first["error"]["name"] == "UnknownStream"
        assert first["error"]["code"] == "DF0030"
        assert set(first["error"]) == {"name", "message", "code"}


async def test_another_sessions_id_looks_like_none() -> None:
    api = API()
    async with stock(api) as it:
        reader = await it.opened()
        await it.credit(reader, 1, "one")
        async with linked({"app": api, "streams": api.hub}) as (_, other):
            for method, args in (("write", (2, "theirs")), ("close", ()), ("error", ("x",))):
                errors = []
                for id in (reader.id, "none"):
                    with pytest.raises(kk.UnknownStream) as refused:
                        await other.remote().streams.upload[method](id, *args)
                    errors.append((str(refused.value), refused.value.code))
                assert errors[0] == errors[1]
        assert await it.credit(reader, 2, "two") == 256
        assert [await reader.receive() for _ in range(2)] == ["one", "two"]
        reader.cancel()


class Gate:
    """An `authorize` that the test answers."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers: list[bool] = []
        self.opened = anyio.Event()

    async def __call__(self, request: kk.StreamRequest) -> bool:
        self.asked += 1
        answer = self.answers[min(self.asked, len(self.answers)) - 1]
        await self.opened.wait()
        return answer


async def test_writes_wait_for_authorize_in_their_order() -> None:
    gate = Gate()
    gate.answers = [True]
    async with stock(API(authorize=gate)) as it, anyio.create_task_group() as tasks:
        reader = await it.opened(8)
        reading = Reading(tasks, reader)
        calls = [await it.write(reader, seq, seq) for seq in range(1, 6)]
        await it.waits(*calls)
        assert reading.chunks == []
        gate.opened.set()
        assert [await it.result(call) > 5 for call in calls] == [True] * 5
        calls = [await it.write(reader, seq, seq) for seq in range(6, 9)]
        await it.result(await it.send("streams.upload.close", reader.id))
        assert reading.chunks == list(range(1, 9))
        assert gate.asked == 1


async def test_a_refusal_is_told_to_all_and_the_next_try_begins_anew() -> None:
    gate = Gate()
    gate.answers = [False, True]
    async with stock(API(authorize=gate)) as it, anyio.create_task_group() as tasks:
        reader = await it.opened(8)
        reading = Reading(tasks, reader)
        calls = [await it.write(reader, seq, "refused") for seq in (1, 2, 3)]
        calls.append(await it.send("streams.upload.close", reader.id))
        await it.waits(*calls)
        gate.opened.set()
        none = await it.answer(await it.send("streams.upload.write", "none", 1, "x"))
        for call in calls:
            assert await it.answer(call) == none
        assert reading.chunks == []
        assert await it.credit(reader, 1, "granted") >= 8
        await it.result(await it.send("streams.upload.close", reader.id))
        assert reading.chunks == ["granted"]


async def test_a_call_that_is_cancelled_while_it_asks_leaves_the_question_to_the_next() -> None:
    gate = Gate()
    gate.answers = [True]
    async with stock(API(authorize=gate), greets=True) as it:
        reader = await it.opened(8)
        first = await it.write(reader, 1, "one")
        await until(lambda: gate.asked == 1)
        second = await it.write(reader, 2, "two")
        await it.waits(first, second)
        await it.peer.send(cancel(first))
        await until(lambda: gate.asked == 2)
        gate.opened.set()
        assert await it.result(second) == 8
        assert [await reader.receive() for _ in range(2)] == ["one", "two"]
        await it.error(first)
        reader.cancel()


async def test_an_error_before_authorize_has_answered() -> None:
    gate = Gate()
    gate.answers = [True, False]
    async with stock(API(authorize=gate)) as it, anyio.create_task_group() as tasks:
        reader, refused = await it.opened(), await it.opened()
        reading = Reading(tasks, reader)
        call = await it.send("streams.upload.error", reader.id, "on purpose")
        await until(lambda: gate.asked == 1)
        other = await it.send("streams.upload.error", refused.id, "on purpose")
        await it.waits(call, other)
        assert not reading.over.is_set()
        gate.opened.set()
        assert await it.result(call) is None
        await reading.over.wait()
        assert isinstance(reading.error, kk.RemoteError)
        assert await it.error(other) == "UnknownStream"
        refused.cancel()


async def test_a_reader_that_cancels_while_authorize_is_asked() -> None:
    gate = Gate()
    gate.answers = [True, True]
    async with stock(API(authorize=gate)) as it:
        reader = await it.opened()
        calls = [await it.write(reader, 1), await it.send("streams.upload.close", reader.id)]
        await it.waits(*calls)
        reader.cancel()
        gate.opened.set()
        for call in calls:
            assert await it.error(call) == "StreamClosed"


# --- what it holds ---------------------------------------------------------------------------------


def unread(it: Client) -> int:
    return sum(session.unread for session in it.api.hub.inbounds._sessions.values())


async def test_large_chunks_wait_for_the_reader_however_many_may_wait() -> None:
    """UPL-8: the credit is less where the chunks that lie there are large."""
    async with stock(limits=kk.Limits(stream_buffer=1 << 20)) as it:
        reader = await it.opened()
        large = "x" * 300_000
        assert await it.credit(reader, 1, large) == 3
        assert await it.credit(reader, 2, large) == 3
        third = await it.write(reader, 3, large)
        await it.waits(third)
        assert 900_000 < unread(it) < 1_000_000
        assert await reader.receive() == large
        assert await it.result(third) == 4
        assert await reader.receive() == large
        assert await reader.receive() == large
        assert await it.credit(reader, 4, "small") == 3 + 256
        assert await reader.receive() == "small"
        reader.cancel()


async def test_a_chunk_above_the_bound_goes_alone() -> None:
    async with stock(limits=kk.Limits(stream_buffer=1 << 16)) as it:
        reader = await it.opened()
        for number in range(1, 4):
            call = await it.write(reader, number, "x" * 100_000)
            await it.waits(call)
            assert await reader.receive() == "x" * 100_000
            assert await it.result(call) == number + 1
        reader.cancel()


async def test_what_a_session_has_not_read_is_bounded_in_bytes() -> None:
    """A client that does not wait for its answers: what is refused is not taken, and may come again."""
    limits = kk.Limits(stream_buffer=1 << 16, call_bytes=1_000_000)
    async with stock(limits=limits) as it:
        readers = [await it.opened() for _ in range(3)]
        # The first of each is answered, and so its frame counts no more; its chunk does.
        for reader in readers:
            assert await it.credit(reader, 1, "x" * 20_000) > 1
        flood = [await it.write(readers[0], seq, "x" * 100_000) for seq in range(2, 30)]
        await it.error(flood[-1])
        assert unread(it) <= 1_000_000
        answers = [it._heard[call] for call in flood if call in it._heard]
        refused = [args["error"]["name"] for args in answers if "error" in args]
        assert refused[0] == "LimitExceeded"
        assert set(refused[1:]) <= {"LimitExceeded", "ProtocolError"}  # those behind it leave it out
        taken = len(flood) - len(refused)
        assert 5 <= taken <= 10
        for _ in range(1 + taken):
            await readers[0].receive()
        assert await it.credit(readers[0], 2 + taken, "x") > 2 + taken
        assert await readers[0].receive() == "x"
        for reader in readers:
            reader.cancel()
        assert unread(it) == 0


async def test_too_much_for_the_session_is_refused_where_it_is_put() -> None:
    async with stock(limits=kk.Limits(stream_buffer=1 << 20, call_bytes=600_000)) as it:
        one, other = await it.opened(), await it.opened()
        assert await it.credit(one, 1, "x" * 300_000) > 1
        assert await it.credit(other, 1, "x" * 200_000) > 1
        assert await it.error(await it.write(other, 2, "x" * 200_000)) == "LimitExceeded"
        assert await one.receive() == "x" * 300_000
        assert await it.credit(other, 2, "y") > 2
        assert [await other.receive() for _ in range(2)] == ["x" * 200_000, "y"]
        one.cancel()
        other.cancel()


async def test_many_uploads_leave_nothing() -> None:
    async with stock() as it:
        for round in range(30):
            reader = await it.opened()
            for number in range(1, 4):
                await it.credit(reader, number)
            match round % 3:
                case 0:
                    close = await it.send("streams.upload.close", reader.id)
                    assert len([chunk async for chunk in reader]) == 3
                    await it.result(close)
                case 1:
                    await it.result(await it.send("streams.upload.error", reader.id, "x"))
                    with pytest.raises(kk.RemoteError):
                        [chunk async for chunk in reader]
                case 2:
                    reader.cancel()
        (session,) = it.api.hub.inbounds._sessions.values()
        assert len(session.ended) == 30
        assert not session.open
        assert unread(it) == 0


async def test_with_interceptors_the_order_is_kept() -> None:
    async def through(ctx: kk.CallContext, next: kk.Next) -> Any:
        return await next()

    async with stock(interceptors=[through]) as it, anyio.create_task_group() as tasks:
        reader = await it.opened(50)
        reading = Reading(tasks, reader)
        calls = [await it.write(reader, seq, seq) for seq in range(1, 40)]
        calls.append(await it.send("streams.upload.close", reader.id))
        for call in calls:
            await it.result(call)
        assert reading.chunks == list(range(1, 40))


async def test_functions_that_come_with_a_chunk_can_be_called() -> None:
    async with stock() as it:
        reader = await it.opened()
        message = request("w", "streams.upload.write", reader.id, 1, "__callback__f")
        await it.peer.send({**message, "callbackIds": ["f"]})
        chunk = await reader.receive()
        assert isinstance(chunk, kk.RemoteCallback)
        chunk.notify(1)
        while (heard := await it.peer.next())["type"] != "callback":
            assert heard == result("w", 256)
        reader.cancel()


class Unsendable(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.handle = object()


# --- a client of ours toward a peer that takes no stream arguments ---------------------------------------


async def test_a_client_of_ours_uploads_by_calls_where_it_must() -> None:
    api = API()
    async with linked({"app": api, "streams": api.hub}, hello=False) as (_, client):
        async with anyio.create_task_group() as tasks:
            streams = kk.streams(client)
            id = await client.remote().app.open(2)
            reading = Reading(tasks, api.readers.pop(id))
            async with streams.upload("files", id) as upload:
                for number in range(20):
                    await upload.send(number)
            assert reading.chunks == list(range(20))

            id = await client.remote().app.open(2)
            reading = Reading(tasks, api.readers.pop(id))
            with pytest.raises(ValueError, match="here"):
                async with streams.upload("files", id) as upload:
                    await upload.send(1)
                    raise ValueError("here")
            await reading.over.wait()
            assert reading.chunks == [1]
            assert isinstance(reading.error, ValueError)

            id = await client.remote().app.open(2)
            reader = api.readers.pop(id)
            upload = streams.upload("files", id, high_water_mark=1)
            with anyio.fail_after(BOUND), pytest.raises(kk.StreamClosed):
                while True:
                    await upload.send(1)
                    if reader._inbound.source is not None:
                        reader.cancel()
            assert upload.signal.cancelled
            with pytest.raises(kk.StreamClosed):
                await upload.aclose()

            id = await client.remote().app.open(2)
            reading = Reading(tasks, api.readers.pop(id))
            upload = streams.upload("files", id)
            upload.write(1)
            upload.error(Unsendable("told all the same"))
            await upload.aclose()
            await reading.over.wait()
            assert (reading.chunks, str(reading.error)) == ([1], "Unsendable: told all the same")

            id = await client.remote().app.open(2)
            reading = Reading(tasks, api.readers.pop(id))
            upload = streams.upload("files", id)
            upload.write(1)
            upload.write({1, 2})  # CBOR has sets; whether the peer takes it is known when it is sent
            with pytest.raises(kk.NotSerializable):
                await upload.aclose()
            await reading.over.wait()
            assert reading.chunks == [1]
            assert isinstance(reading.error, kk.RemoteError)
            assert reading.error.name == "NotSerializable"

            upload = streams.upload("files", "unknown")
            upload.write(1)
            await upload.signal
            with pytest.raises(kk.UnknownStream):
                await upload.aclose()
