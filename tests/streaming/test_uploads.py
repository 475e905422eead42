"""Uploads between kkrpc_py peers: both ends, how each of them ends it, and that nothing is lost or left."""

from __future__ import annotations

import contextlib
import functools
import random
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio
import anyio.abc
import pytest
from anyio.lowlevel import checkpoint

import kkrpc_py as kk
from kkrpc_py.channel.current import current
from kkrpc_py.streaming import inbound as inbound_module
from kkrpc_py.transports.memory import memory_byte_streams
from tests.channel.harness import BOUND, Log, assert_quiet, linked, until, without_collector
from tests.channel.peer import ALL_FEATURES, chunk, end, hello, request, scripted

pytestmark = pytest.mark.anyio

CREDIT = 64
"""Chunks that a stream may be ahead at first (CRD-1)."""


@pytest.fixture(scope="module", autouse=True)
def no_collector() -> Iterator[None]:
    """What is dropped ends at once."""
    with without_collector():
        yield


class API:
    """A server: `open` gives an id, whose reader the test takes from `readers`."""

    def __init__(self, **options: Any) -> None:
        self.hub = kk.StreamHub()
        self.files = self.hub.create("files", **options)
        self.others = self.hub.create("others")
        self.readers: dict[str, kk.InboundReader[Any]] = {}

    async def open(self, high_water_mark: int = 256) -> str:
        reader = self.files.open_inbound(high_water_mark)
        self.readers[reader.id] = reader
        return reader.id

    def open_on_a_thread(self) -> None:
        self.files.open_inbound()

    async def park(self) -> None:
        await anyio.sleep_forever()


class Setting:
    """A server and a client, linked."""

    def __init__(self, api: API, server: kk.RPCChannel, client: kk.RPCChannel) -> None:
        self.api, self.server, self.client = api, server, client
        self.streams = kk.streams(client)

    async def opened(self, **options: Any) -> tuple[kk.InboundReader[Any], kk.Upload[Any]]:
        """A reader, and the upload to it."""
        id = await self.client.remote().app.open()
        return self.api.readers.pop(id), self.streams.upload("files", id, **options)


@contextlib.asynccontextmanager
async def setting(api: API | None = None, **options: Any) -> AsyncIterator[Setting]:
    api = api or API()
    async with linked({"app": api, "streams": api.hub}, **options) as (server, client):
        yield Setting(api, server, client)
        for session in api.hub.inbounds._sessions.values():
            await until(lambda session=session: not session.open)  # type: ignore[misc]  # a lambda's default
            assert not session.unread
    assert not api.hub.inbounds._sessions


async def read(reader: kk.InboundReader[Any]) -> list[Any]:
    return [chunk async for chunk in reader]


async def received(reader: kk.InboundReader[Any]) -> list[Any]:
    chunks = []
    with contextlib.suppress(anyio.EndOfStream):
        while True:
            chunks.append(await reader.receive())
    return chunks


class Reading:
    """Reads in a task of its own: what came, and what it ended in."""

    def __init__(self, tasks: anyio.abc.TaskGroup, reader: kk.InboundReader[Any]) -> None:
        self.chunks: list[Any] = []
        self.error: BaseException | None = None
        self.over = anyio.Event()
        tasks.start_soon(self._read, reader)

    async def _read(self, reader: kk.InboundReader[Any]) -> None:
        try:
            async for chunk in reader:
                self.chunks.append(chunk)
        except kk.KkrpcError as error:
            self.error = error
        finally:
            self.over.set()


# --- from one end to the other ---------------------------------------------------------------------


@pytest.mark.parametrize("reads", [read, received])
async def test_what_is_written_is_read_in_order_and_the_end_is_waited_for(
    reads: Callable[[kk.InboundReader[Any]], Awaitable[list[Any]]],
) -> None:
    log = Log()
    chunks = [0, "text", b"\x00\xff", {"a": [1, None]}, 2.5]
    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        assert (reader.name, upload.name, upload.id) == ("files", "files", reader.id)
        assert len(reader.id) >= 20

        async def consume() -> None:
            log(await reads(reader))

        for chunk in chunks[:3]:
            upload.write(chunk)
        await upload.send(chunks[3])
        upload.write(chunks[4])
        upload.close()
        assert upload.closed
        tasks.start_soon(consume)
        await upload.aclose()
        log("closed")
        assert log.entries == [chunks, "closed"]
        assert not upload.signal.cancelled
        assert reader.ended


async def test_a_block_closes_it_and_waits() -> None:
    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        reading = Reading(tasks, reader)
        async with upload as same:
            assert same is upload
            for number in range(1000):
                await upload.send(number)
        assert reading.chunks == list(range(1000))
        assert repr(reader) == "<InboundReader of 'files' ended>"
        assert repr(upload) == "<Upload to 'files' closed>"
        with pytest.raises(kk.StreamClosed):
            upload.write(1)
        with pytest.raises(kk.StreamClosed) as closed:
            await upload.send(1)
        assert closed.value.code == "DF0031"
        await upload.aclose()  # once more
        upload.error("too late")


async def test_an_upload_without_a_chunk() -> None:
    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        reading = Reading(tasks, reader)
        await upload.aclose()
        assert (reading.chunks, reading.error) == ([], None)


async def test_what_an_iterable_yields_is_piped() -> None:
    async def source() -> AsyncIterator[int]:
        for number in range(300):
            yield number
            await checkpoint()

    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        reading = Reading(tasks, reader)
        await upload.pipe_from(source())
        assert upload.closed
        await upload.aclose()
        assert reading.chunks == list(range(300))


async def test_it_is_an_object_send_stream_and_an_object_receive_stream() -> None:
    async with setting() as it:
        reader, upload = await it.opened()
        assert isinstance(upload, anyio.abc.ObjectSendStream)
        assert isinstance(reader, anyio.abc.ObjectReceiveStream)
        upload.write(1)
        upload.write(2)
        upload.close()
        assert await reader.receive() == 1
        assert await reader.receive() == 2
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await reader.receive()
        await upload.aclose()


async def test_a_reader_has_one_surface_and_one_pass() -> None:
    async with setting() as it:
        reader, upload = await it.opened()
        upload.write(1)
        upload.close()
        assert await reader.receive() == 1
        with pytest.raises(RuntimeError, match="received"):
            aiter(reader)
        with pytest.raises(anyio.EndOfStream):
            await reader.receive()
        reader, upload = await it.opened()
        upload.close()
        assert await read(reader) == []
        with pytest.raises(RuntimeError, match="iterated"):
            await reader.receive()
        with pytest.raises(RuntimeError, match="iterated"):
            aiter(reader)


async def test_uploads_side_by_side_do_not_mix_and_do_not_wait_for_each_other() -> None:
    async with setting() as it, anyio.create_task_group() as tasks:
        stalled, stalled_upload = await it.opened()
        tasks.start_soon(stalled_upload.pipe_from, _numbers(5000))
        pairs = [await it.opened() for _ in range(8)]
        readings = [Reading(tasks, reader) for reader, _ in pairs]
        for place, (_, upload) in enumerate(pairs):
            tasks.start_soon(upload.pipe_from, _numbers(500, place))
        for place, reading in enumerate(readings):
            await reading.over.wait()
            assert reading.chunks == [(place << 16) + number for number in range(500)]
        assert await read(stalled) == list(range(5000))


async def _numbers(count: int, place: int = 0) -> AsyncIterator[int]:
    for number in range(count):
        yield (place << 16) + number


async def test_two_tasks_may_send() -> None:
    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened(high_water_mark=3)

        async def send(place: int) -> None:
            for number in range(300):
                await upload.send((place, number))

        async with anyio.create_task_group() as senders:
            for place in range(4):
                senders.start_soon(send, place)
            reading = Reading(tasks, reader)
        await upload.aclose()
        for place in range(4):
            own = [number for each, number in reading.chunks if each == place]
            assert own == list(range(300))


async def test_a_chunk_is_what_it_was_when_it_was_written() -> None:
    async with setting() as it:
        reader, upload = await it.opened()
        rows, buffer = [1], bytearray(b"one")
        upload.write(rows)
        upload.write(buffer)
        rows.append(2)
        buffer[:] = b"two"
        upload.close()
        assert await read(reader) == [[1], b"one"]


async def test_what_cannot_be_sent_is_refused_where_it_is_written_and_the_upload_goes_on() -> None:
    async with setting(limits=kk.Limits(frame=100_000)) as it:
        reader, upload = await it.opened()
        upload.write(1)
        with pytest.raises(kk.NotSerializable):
            upload.write(object())
        with pytest.raises(kk.NotSerializable):
            await upload.send(lambda: None)
        with pytest.raises(kk.LimitExceeded):
            await upload.send("x" * 100_000)
        upload.write("x" * 99_000)
        upload.write(2)
        upload.close()
        assert await read(reader) == [1, "x" * 99_000, 2]


async def test_the_channels_encode_hook_is_in_force() -> None:
    class Point:
        pass

    def encode(value: Any) -> Any:
        return [1, 2] if isinstance(value, Point) else NotImplemented

    async with setting(encode=encode) as it:
        reader, upload = await it.opened()
        upload.write({"at": Point()})
        upload.close()
        assert await read(reader) == [{"at": [1, 2]}]


# --- room ------------------------------------------------------------------------------------------


async def test_write_finds_room_for_the_mark_and_then_says_so() -> None:
    async with setting() as it:
        reader, upload = await it.opened(high_water_mark=5)
        for number in range(5):
            upload.write(number)
        with pytest.raises(kk.WouldBlock):
            upload.write(5)
        with anyio.fail_after(BOUND):
            await upload.wait_room()
        upload.write(5)
        upload.close()
        await upload.wait_room()  # there will be none: it returns
        assert await read(reader) == list(range(6))


async def test_a_stalled_reader_holds_up_the_sender_and_loses_nothing() -> None:
    sent = 0

    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened(high_water_mark=10)

        async def send() -> None:
            nonlocal sent
            for number in range(2000):
                await upload.send(number)
                sent += 1
            await upload.aclose()

        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        assert sent == CREDIT + 10
        assert [await reader.receive() for _ in range(40)] == list(range(40))
        await anyio.wait_all_tasks_blocked()
        assert CREDIT + 10 < sent <= 40 + 4 * CREDIT + 10
        assert await received(reader) == list(range(40, 2000))


async def test_send_waits_for_bytes_too_and_one_chunk_always_fits() -> None:
    limits = kk.Limits(stream_buffer=1 << 18, send_high_water=1 << 16)
    async with setting(limits=limits) as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        sent = 0

        async def send() -> None:
            nonlocal sent
            for number in range(64):
                await upload.send(bytes([number]) * (1 << 17))
                sent += 1
            await upload.aclose()

        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        assert sent < 16
        size = 0
        async for chunk in reader:
            assert chunk == bytes([size]) * (1 << 17)
            size += 1
        assert size == 64


@pytest.mark.parametrize("mark", [0, -1, True, 1.5, "1", None])
async def test_a_mark_is_a_number_of_chunks(mark: Any) -> None:
    async with setting() as it:
        with pytest.raises(ValueError, match="high_water_mark"):
            it.streams.upload("files", "id", high_water_mark=mark)
    with pytest.raises(ValueError, match="high_water_mark"):
        API().files.open_inbound(mark)


# --- the reader ends it ----------------------------------------------------------------------------


async def test_a_reader_that_cancels_reaches_the_signal() -> None:
    log = Log()
    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened(high_water_mark=4)
        upload.signal.on_cancel(lambda: log("callback"))

        async def wait() -> None:
            await upload.signal
            log("awaited")

        async def send() -> None:
            with pytest.raises(kk.StreamClosed):
                while True:
                    await upload.send(b"chunk")
            log("send")

        async def room() -> None:
            await upload.wait_room()
            log("room")

        tasks.start_soon(wait)
        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(room)
        await anyio.wait_all_tasks_blocked()
        assert log.entries == []
        assert not upload.signal.cancelled
        assert await reader.receive() == b"chunk"
        reader.cancel()
        for entry in ("callback", "awaited", "send", "room"):
            await log.wait_for(entry)
        assert upload.signal.cancelled
        assert upload.closed
        for _ in range(2):
            with pytest.raises(kk.StreamClosed):
                upload.write(1)
            with pytest.raises(kk.StreamClosed):
                await upload.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await reader.receive()
        reader.cancel()  # once more


async def arrived(channel: kk.RPCChannel, count: int) -> None:
    """Wait until so many chunks have come, read or not."""
    calls = channel.connection.outgoing
    await until(lambda: sum(call.owner.received for call in calls.values() if call.argument) == count)


async def _break(reader: kk.InboundReader[Any]) -> None:
    async for _ in reader:
        break


async def _raise(reader: kk.InboundReader[Any]) -> None:
    with pytest.raises(ValueError, match="on purpose"):
        async for _ in reader:
            raise ValueError("on purpose")


async def _cancelled_while_it_waits(reader: kk.InboundReader[Any]) -> None:
    with anyio.CancelScope() as scope:
        async for _ in reader:
            if not reader.ended:
                scope.cancel()


async def _aclose(reader: kk.InboundReader[Any]) -> None:
    await reader.aclose()


async def _block(reader: kk.InboundReader[Any]) -> None:
    async with reader:
        assert await reader.receive() == 0


async def _anext(reader: kk.InboundReader[Any]) -> None:
    iterator = aiter(reader)
    assert await anext(iterator) == 0
    await iterator.aclose()  # type: ignore[attr-defined]  # as generators have it


@pytest.mark.parametrize("leave", [_break, _raise, _cancelled_while_it_waits, _aclose, _block, _anext])
@pytest.mark.parametrize("begun", [True, False], ids=["begun", "not begun"])
async def test_leaving_the_loop_cancels(
    leave: Callable[[kk.InboundReader[Any]], Awaitable[None]], begun: bool
) -> None:
    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        for number in range(200):
            upload.write(number)
        if begun:
            await arrived(it.server, CREDIT)
        tasks.start_soon(leave, reader)
        del reader
        await upload.signal
        with pytest.raises(kk.StreamClosed):
            await upload.aclose()


async def test_a_reader_that_is_dropped_before_anybody_uploads_is_forgotten() -> None:
    async with setting() as it:
        id = await it.client.remote().app.open()
        gone = weakref.ref(it.api.readers[id]._inbound)
        del it.api.readers[id]
        upload = it.streams.upload("files", id)
        await upload.signal
        with pytest.raises(kk.StreamClosed):
            upload.write(1)
        with pytest.raises(kk.StreamClosed):
            await upload.aclose()
        await until(lambda: gone() is None)


@pytest.mark.parametrize("surface", ["iterated", "received", "untouched"])
async def test_a_reader_that_is_dropped_cancels(surface: str) -> None:
    async with setting() as it:
        reader, upload = await it.opened()
        for number in range(200):
            upload.write(number)
        await arrived(it.server, CREDIT)
        held: Any = reader
        if surface == "iterated":
            held = aiter(reader)
            assert await anext(held) == 0
        elif surface == "received":
            assert await reader.receive() == 0
        del reader
        for _ in range(5):
            await checkpoint()
        if surface == "iterated":
            assert not upload.signal.cancelled
        del held
        await upload.signal
        with pytest.raises(kk.StreamClosed):
            await upload.aclose()


async def test_a_cancel_that_another_task_waits_beside() -> None:
    async with setting() as it, anyio.create_task_group() as tasks:
        for _ in range(2):  # before somebody uploads, and after
            reader, upload = await it.opened()
            reading = Reading(tasks, reader)
            await anyio.wait_all_tasks_blocked()
            reader.cancel()
            await reading.over.wait()
            assert isinstance(reading.error, kk.CallCancelled)
            await upload.signal
            id = await it.client.remote().app.open()
            reader = it.api.readers.pop(id)
            reading = Reading(tasks, reader)
            await anyio.wait_all_tasks_blocked()
            reader.cancel()
            await reading.over.wait()
            assert isinstance(reading.error, kk.CallCancelled)


async def test_the_source_that_is_piped_is_closed_when_the_reader_cancels() -> None:
    closed = anyio.Event()

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            closed.set()

    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        tasks.start_soon(upload.pipe_from, source())
        assert await reader.receive() == 1
        reader.cancel()
        await closed.wait()
        with pytest.raises(kk.StreamClosed):
            await upload.aclose()


async def test_what_was_read_before_the_last_chunk_is_no_end() -> None:
    """Who leaves the loop at the last chunk has not met the end: the uploader is told so."""
    async with setting() as it:
        reader, upload = await it.opened()
        upload.write(1)
        upload.close()
        await until(lambda: upload._sending._end_sent)
        async for chunk in reader:
            assert chunk == 1
            break
        with pytest.raises(kk.StreamClosed):
            await upload.aclose()


async def test_a_channel_that_is_closed_ends_its_uploads_on_both_sides() -> None:
    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        waiting, _ = await it.opened()
        readings = [Reading(tasks, each) for each in (reader, waiting)]
        upload.write(1)
        await until(lambda: readings[0].chunks == [1])
        it.api.files.close()
        for reading in readings:
            await reading.over.wait()
            assert isinstance(reading.error, kk.StreamClosed)
        assert readings[0].chunks == [1]
        with pytest.raises(kk.StreamClosed):
            await upload.aclose()
        with pytest.raises(kk.StreamClosed):
            it.api.files.open_inbound()


# --- the uploader ends it --------------------------------------------------------------------------


class Damaged(Exception):
    def __init__(self, text: str, row: int) -> None:
        super().__init__(text)
        self.row = row


@pytest.mark.parametrize(
    ("error", "name", "text", "fields"),
    [
        (Damaged("row 3", 3), "Damaged", "row 3", {"row": 3}),
        (ValueError("no"), "ValueError", "no", {}),
        ("in words", "Error", "in words", {}),
        (StopAsyncIteration("x"), "StopAsyncIteration", "x", {}),
        (StopIteration(), "StopIteration", "", {}),
        (KeyboardInterrupt("stop"), "KeyboardInterrupt", "stop", {}),
        (
            kk.RemoteError("TheirError", "from afar", fields={"code": 7}),
            "TheirError",
            "from afar",
            {"code": 7},
        ),
    ],
)
async def test_the_uploaders_error_is_raised_after_the_chunks_that_came_before_it(
    error: Any, name: str, text: str, fields: dict[str, Any]
) -> None:
    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        for number in range(200):
            upload.write(number)
        upload.error(error)
        upload.error("another")  # the first counts
        upload.close()
        reading = Reading(tasks, reader)
        await upload.aclose()  # its own error is not told to it
        await reading.over.wait()
        assert reading.chunks == list(range(200))
        assert isinstance(reading.error, kk.RemoteError)
        assert (reading.error.name, reading.error.message) == (name, text)
        assert {key: reading.error.fields[key] for key in fields} == fields
        assert not upload.signal.cancelled


async def test_an_exception_that_leaves_the_block_is_the_uploads_error() -> None:
    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        reading = Reading(tasks, reader)
        with pytest.raises(ValueError, match="on purpose"):
            async with upload:
                await upload.send(1)
                raise ValueError("on purpose")
        await reading.over.wait()
        assert reading.chunks == [1]
        assert isinstance(reading.error, ValueError)


async def test_a_block_that_is_cancelled_is_no_end() -> None:
    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        reading = Reading(tasks, reader)
        with anyio.CancelScope() as scope:
            async with upload:
                await upload.send(1)
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        await reading.over.wait()
        assert reading.chunks == [1]
        assert isinstance(reading.error, kk.CallCancelled)


async def test_what_the_source_raises_is_the_uploads_error() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise ValueError("at the source")

    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        reading = Reading(tasks, reader)
        with pytest.raises(ValueError, match="at the source"):
            await upload.pipe_from(source())
        await reading.over.wait()
        assert reading.chunks == [1]
        assert isinstance(reading.error, ValueError)


async def test_a_pipe_that_is_cancelled_is_no_end() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep_forever()

    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        reading = Reading(tasks, reader)
        async with anyio.create_task_group() as piping:
            piping.start_soon(upload.pipe_from, source())
            await until(lambda: reading.chunks == [1])
            piping.cancel_scope.cancel()
        await reading.over.wait()
        assert isinstance(reading.error, kk.CallCancelled)


async def test_an_upload_that_is_dropped_fails_after_what_it_had_written() -> None:
    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        for number in range(200):
            upload.write(number)
        del upload
        reading = Reading(tasks, reader)
        await reading.over.wait()
        assert reading.chunks == list(range(200))
        assert isinstance(reading.error, kk.CallCancelled)
        assert "dropped" in str(reading.error)


async def test_an_upload_that_was_closed_may_be_dropped() -> None:
    async with setting() as it:
        reader, upload = await it.opened()
        for number in range(200):
            upload.write(number)
        upload.close()
        del upload
        assert await read(reader) == list(range(200))


async def test_a_cancelled_aclose_gives_the_upload_up() -> None:
    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        for number in range(200):
            upload.write(number)
        with anyio.CancelScope() as scope:
            tasks.start_soon(_cancel_when_blocked, scope)
            await upload.aclose()
        assert scope.cancelled_caught
        reading = Reading(tasks, reader)
        await reading.over.wait()
        assert reading.chunks == list(range(len(reading.chunks)))
        assert isinstance(reading.error, kk.CallCancelled)
        await upload.aclose()


async def _cancel_when_blocked(scope: anyio.CancelScope) -> None:
    await anyio.wait_all_tasks_blocked()
    scope.cancel()


async def test_a_cancelled_aclose_changes_nothing_where_all_was_sent() -> None:
    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        upload.write(1)
        with anyio.CancelScope() as scope:
            tasks.start_soon(_cancel_when_blocked, scope)
            await upload.aclose()
        assert scope.cancelled_caught
        assert await read(reader) == [1]
        await upload.aclose()


async def test_a_send_that_is_cancelled_sends_nothing() -> None:
    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened(high_water_mark=1)
        sent = 0
        with anyio.CancelScope() as scope:
            tasks.start_soon(_cancel_when_blocked, scope)
            while True:
                await upload.send(sent)
                sent += 1
        upload.close()
        assert await read(reader) == list(range(sent))


async def test_a_receive_that_is_cancelled_loses_nothing() -> None:
    async with setting() as it:
        reader, upload = await it.opened()
        for _ in range(3):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await reader.receive()
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(reader.receive)
            await anyio.wait_all_tasks_blocked()
            waiting.cancel_scope.cancel()
        assert not upload.signal.cancelled
        upload.write(1)
        upload.close()
        assert await received(reader) == [1]
        await upload.aclose()


async def test_a_call_of_the_wire_that_is_cancelled_ends_the_upload() -> None:
    """UPL-3: what came is read, then the reader is told."""
    closed = anyio.Event()

    async def chunks() -> AsyncIterator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            closed.set()

    async with setting() as it, anyio.create_task_group() as tasks:
        id = await it.client.remote().app.open()
        reader = it.api.readers.pop(id)
        with anyio.CancelScope() as scope:
            tasks.start_soon(_cancel_when_blocked, scope)
            await it.client.remote().streams.upload.stream("files", id, chunks())
        await closed.wait()
        reading = Reading(tasks, reader)
        await reading.over.wait()
        assert reading.chunks == [1]
        assert isinstance(reading.error, kk.CallCancelled)


# --- who may upload --------------------------------------------------------------------------------


async def _refusal(upload: kk.Upload[Any]) -> kk.UnknownStream:
    await upload.signal
    await until(lambda: upload._sending.over)
    errors: list[kk.UnknownStream] = []
    for attempt in (functools.partial(_write, upload), lambda: upload.send(1), upload.aclose):
        with pytest.raises(kk.UnknownStream) as refused:
            await attempt()
        errors.append(refused.value)
    assert errors[0].code == "DF0030"
    assert isinstance(errors[0], LookupError)
    assert {str(error) for error in errors} == {str(errors[0])}
    return errors[0]


async def _write(upload: kk.Upload[Any]) -> None:
    upload.write(1)


async def test_an_id_belongs_to_its_session_and_others_cannot_tell() -> None:
    api = API()
    async with setting(api) as it, anyio.create_task_group() as tasks:
        id = await it.client.remote().app.open()
        async with linked({"app": api, "streams": api.hub}) as (_, other):
            theirs = await _refusal(kk.streams(other).upload("files", id))
            unknown = await _refusal(kk.streams(other).upload("files", "x" * len(id)))
            nowhere = await _refusal(kk.streams(other).upload("nowhere", id))
        assert str(theirs) == str(unknown) == str(nowhere)
        misnamed = await _refusal(it.streams.upload("others", id))
        assert str(misnamed) == str(unknown)
        upload = it.streams.upload("files", id)
        reading = Reading(tasks, api.readers.pop(id))
        upload.write("mine")
        await upload.aclose()
        assert reading.chunks == ["mine"]
        # And once it is over, for the others still the same.
        async with linked({"app": api, "streams": api.hub}) as (_, other):
            assert str(await _refusal(kk.streams(other).upload("files", id))) == str(unknown)
        assert str(await _refusal(it.streams.upload("others", id))) == str(unknown)


async def test_what_a_refused_pipe_raises() -> None:
    closed = anyio.Event()

    async def source() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await checkpoint()
        finally:
            closed.set()

    async with setting() as it:
        with pytest.raises(kk.UnknownStream):
            await it.streams.upload("files", "unknown").pipe_from(source())
        await closed.wait()


@pytest.mark.parametrize("name", [None, 1, ["files"], {}])
async def test_names_and_ids_of_other_types_name_nothing(name: Any) -> None:
    async with setting() as it:
        id = await it.client.remote().app.open()
        stream = it.client.remote().streams.upload.stream
        for arguments in ((name, id), ("files", name)):
            with pytest.raises(kk.UnknownStream):
                await stream(*arguments, _numbers(1))
        it.api.readers.clear()


async def test_chunks_that_are_no_stream_are_an_error_of_the_call() -> None:
    async with setting() as it:
        id = await it.client.remote().app.open()
        for chunks in (None, [1], "x"):
            with pytest.raises(TypeError):
                await it.client.remote().streams.upload.stream("files", id, chunks)
        it.api.readers.clear()


async def test_one_id_takes_one_upload() -> None:
    async with setting() as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        upload.write(1)
        await arrived(it.server, 1)
        second = it.streams.upload("files", reader.id)
        second.write("not mine")
        await second.signal
        with pytest.raises(kk.StreamClosed):
            await second.aclose()
        for call in ("write", "close", "error"):
            arguments = {"write": (1, "x"), "close": (), "error": ("x",)}[call]
            with pytest.raises(kk.StreamClosed):
                await it.client.remote().streams.upload[call](reader.id, *arguments)
        upload.write(2)
        reading = Reading(tasks, reader)
        await upload.aclose()
        assert (reading.chunks, reading.error) == ([1, 2], None)
        third = it.streams.upload("files", reader.id)
        await third.signal
        with pytest.raises(kk.StreamClosed):
            await third.aclose()


async def test_ids_are_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound_module, "_ENDED_KEPT", 2)
    async with setting() as it:
        ids = []
        for _ in range(4):
            reader, upload = await it.opened()
            upload.close()
            assert await read(reader) == []
            await upload.aclose()
            ids.append(reader.id)
        (session,) = it.api.hub.inbounds._sessions.values()
        assert list(session.ended) == ids[2:]
        await _refusal(it.streams.upload("files", ids[0]))
        upload = it.streams.upload("files", ids[3])
        with pytest.raises(kk.StreamClosed):
            await upload.aclose()


async def test_authorize_decides() -> None:
    asked: list[kk.StreamRequest] = []
    answers: list[Any] = [False, True]

    def authorize(request: kk.StreamRequest) -> bool:
        asked.append(request)
        return answers.pop(0)

    async with setting(API(authorize=authorize)) as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        reading = Reading(tasks, reader)
        refused = await _refusal(upload)
        assert str(refused) == str(await _refusal(it.streams.upload("files", "unknown")))
        assert [(each.action, each.name, each.id, each.channel) for each in asked] == [
            ("upload", "files", reader.id, it.server)
        ]
        upload = it.streams.upload("files", reader.id)  # another try
        upload.write(1)
        await upload.aclose()
        assert (reading.chunks, reading.error) == ([1], None)
        assert len(asked) == 2


async def test_authorize_may_take_its_time_and_meanwhile_the_id_is_taken() -> None:
    gate = anyio.Event()

    async def authorize(request: kk.StreamRequest) -> bool:
        await gate.wait()
        return True

    async with setting(API(authorize=authorize)) as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        reading = Reading(tasks, reader)
        upload.write(1)
        await anyio.wait_all_tasks_blocked()
        second = it.streams.upload("files", reader.id)
        with pytest.raises(kk.StreamClosed):
            await second.aclose()
        assert reading.chunks == []
        cancelled, other = await it.opened()
        await anyio.wait_all_tasks_blocked()
        cancelled.cancel()
        gate.set()
        await other.signal
        with pytest.raises(kk.StreamClosed):
            await other.aclose()
        await upload.aclose()
        assert reading.chunks == [1]


async def test_an_authorize_that_raises_is_heard_and_leaves_the_id_free() -> None:
    answers: list[Any] = [PermissionError("not today"), True]

    async def authorize(request: kk.StreamRequest) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    async with setting(API(authorize=authorize)) as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        with pytest.raises(PermissionError, match="not today"):
            await upload.aclose()
        upload = it.streams.upload("files", reader.id)
        reading = Reading(tasks, reader)
        await upload.aclose()
        assert reading.error is None


async def test_open_inbound_is_for_handlers_on_the_loop() -> None:
    async with setting() as it:
        with pytest.raises(LookupError, match="handler"):
            it.api.files.open_inbound()
        with pytest.raises(RuntimeError, match="async def"):
            await it.client.remote().app.open_on_a_thread()


async def test_open_ids_of_a_session_are_bounded() -> None:
    async with setting(limits=kk.Limits(calls=3)) as it:
        ids = [await it.client.remote().app.open() for _ in range(3)]
        assert len(set(ids)) == 3
        with pytest.raises(kk.LimitExceeded):
            await it.client.remote().app.open()
        it.api.readers.pop(ids[0]).cancel()
        await it.client.remote().app.open()
        it.api.readers.clear()


async def test_a_peer_without_a_hub_is_an_error_that_is_told() -> None:
    async with linked({}) as (_, client):
        upload = kk.streams(client).upload("files", "id")
        await upload.signal
        with pytest.raises(kk.MethodNotFound):
            await upload.aclose()


async def test_an_upload_that_begins_before_the_hello_is_answered() -> None:
    api = API()
    with anyio.fail_after(BOUND):
        async with kk.memory_pair({"app": api, "streams": api.hub}, None) as (_, client):
            upload = kk.streams(client).upload("files", "unknown")
            with pytest.raises(kk.UnknownStream):
                await upload.aclose()


@pytest.mark.parametrize("path", ["hub", "a.b", ""])
async def test_a_hub_may_be_anywhere(path: str) -> None:
    api = API()
    exposed: Any = api.hub
    for name in reversed(path.split(".") if path else []):
        exposed = {name: exposed}
    async with linked(exposed) as (server, client), anyio.create_task_group() as tasks:
        with as_in_a_handler(server):
            reader = api.files.open_inbound()
        reading = Reading(tasks, reader)
        async with kk.streams(client, path).upload("files", reader.id) as upload:
            await upload.send(1)
        assert reading.chunks == [1]


@contextlib.contextmanager
def as_in_a_handler(channel: kk.RPCChannel) -> Iterator[None]:
    token = current.set(channel)
    try:
        yield
    finally:
        current.reset(token)


# --- the channel ends ------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def apart(
    api: API,
) -> AsyncIterator[tuple[kk.RPCChannel, Callable[[], Awaitable[None]], kk.RPCChannel]]:
    """A server, a function that ends its client, and that client."""
    with anyio.fail_after(BOUND):
        one, other = memory_byte_streams()
        async with kk.RPCChannel(one, expose={"app": api, "streams": api.hub}, hello=False) as server:
            async with kk.RPCChannel(other) as client:
                await client.ready()
                yield server, client.aclose, client


async def test_a_disconnect_is_raised_after_what_came_before_it() -> None:
    """UPL-10."""
    api = API()
    async with apart(api) as (server, disconnect, client):
        id = await client.remote().app.open()
        reader = api.readers.pop(id)
        upload = kk.streams(client).upload("files", id)
        for number in range(30):
            upload.write(number)
        await arrived(server, 30)
        await disconnect()
        await server.wait_closed()
        seen = []
        with pytest.raises(kk.UploadDisconnected) as gone:
            async for chunk in reader:
                seen.append(chunk)
        assert seen == list(range(30))
        assert isinstance(gone.value, ConnectionError)
        assert isinstance(gone.value.__cause__, kk.ChannelClosed)
        assert upload.signal.cancelled
        for _ in range(2):
            with pytest.raises(kk.ChannelClosed):
                upload.write(1)
        for _ in range(2):
            with pytest.raises(kk.ChannelClosed):
                await upload.aclose()
        with pytest.raises(kk.ChannelClosed):
            kk.streams(client).upload("files", id)
        assert not api.hub.inbounds._sessions


@pytest.mark.parametrize("reads", [read, received])
async def test_a_disconnect_before_the_upload_began(
    reads: Callable[[kk.InboundReader[Any]], Awaitable[list[Any]]],
) -> None:
    api = API()
    errors: list[BaseException] = []

    async def consume(reader: kk.InboundReader[Any]) -> None:
        try:
            await reads(reader)
        except kk.UploadDisconnected as error:
            errors.append(error)

    async with apart(api) as (server, disconnect, client), anyio.create_task_group() as tasks:
        waiting = api.readers.pop(await client.remote().app.open())
        later = api.readers.pop(await client.remote().app.open())
        tasks.start_soon(consume, waiting)
        await anyio.wait_all_tasks_blocked()
        await disconnect()
        await server.wait_closed()
        tasks.start_soon(consume, later)
        await until(lambda: len(errors) == 2)
        with pytest.raises(kk.UploadDisconnected):
            await (reads(later) if reads is received else later._inbound.next_value())


async def test_an_inbound_of_a_session_that_is_gone() -> None:
    api = API()
    async with apart(api) as (server, disconnect, _):
        await disconnect()
        await server.wait_closed()
        with as_in_a_handler(server):
            reader = api.files.open_inbound()
        with pytest.raises(kk.UploadDisconnected):
            await reader.receive()
        assert not api.hub.inbounds._sessions


async def test_the_server_closes_the_channel_while_its_reader_waits() -> None:
    api = API()
    async with apart(api) as (server, _, client), anyio.create_task_group() as tasks:
        id = await client.remote().app.open()
        reading = Reading(tasks, api.readers.pop(id))
        upload = kk.streams(client).upload("files", id)
        upload.write(1)
        await until(lambda: reading.chunks == [1])
        await server.aclose()
        await reading.over.wait()
        assert isinstance(reading.error, kk.UploadDisconnected)
        await upload.signal
        with pytest.raises(kk.ChannelClosed):
            await upload.aclose()


async def test_a_peer_that_has_sent_all_and_its_eof_gets_its_answer() -> None:
    api = API()
    async with (
        scripted({"app": api, "streams": api.hub}) as (channel, peer),
        anyio.create_task_group() as tasks,
    ):
        await peer.exchange(hello(features=ALL_FEATURES))
        (opened,) = await peer.exchange(request("open", "app.open"))
        id = opened["args"]["result"]
        stream = request("up", "streams.upload.stream", "files", id, "__stream__1")
        await peer.send({**stream, "streamIds": ["__stream__1"]}, chunk("__stream__1", 1), end("__stream__1"))
        await until(lambda: api.readers[id]._inbound.source is not None)
        await peer.eof()
        await until(lambda: channel.closed)
        reading = Reading(tasks, api.readers.pop(id))
        assert (await peer.next())["id"] == "up"
        assert (reading.chunks, reading.error) == ([1], None)


async def test_an_upload_that_never_began_knows_of_the_end() -> None:
    api = API()
    async with apart(api) as (_, disconnect, client):
        id = await client.remote().app.open()
        upload = kk.streams(client).upload("files", id)
        upload.write(1)
        await disconnect()
        assert upload.signal.cancelled
        with pytest.raises(kk.ChannelClosed):
            await upload.aclose()


async def test_a_timeout_of_the_channel_is_none_of_an_upload() -> None:
    async with setting(timeout=0.02) as it, anyio.create_task_group() as tasks:
        reader, upload = await it.opened()
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(kk.CallTimeout):
            await it.client.remote().app.park()  # began later
        upload.write(1)
        reading = Reading(tasks, reader)
        await upload.aclose()
        assert reading.chunks == [1]


# --- nothing is left -------------------------------------------------------------------------------


async def test_what_has_ended_is_freed_without_the_collector() -> None:
    async with setting() as it:
        reader, upload = await it.opened()
        upload.write(1)
        upload.close()
        assert await read(reader) == [1]
        await upload.aclose()
        refs = [weakref.ref(each) for each in (reader, upload, reader._inbound, upload._sending)]
        del reader, upload
        await until(lambda: all(ref() is None for ref in refs))
        reader, upload = await it.opened()
        upload.write(1)
        refs = [weakref.ref(each) for each in (reader, upload, reader._inbound, upload._sending)]
        del reader, upload
        await until(lambda: all(ref() is None for ref in refs))


async def test_many_uploads_leave_nothing() -> None:
    async with setting() as it, anyio.create_task_group() as tasks:
        for _ in range(50):
            reader, upload = await it.opened()
            reading = Reading(tasks, reader)
            for number in range(5):
                upload.write(number)
            await upload.aclose()
            assert reading.chunks == [0, 1, 2, 3, 4]
        await assert_quiet(it.client, it.server)
        assert not it.client._when_closed
        assert len(it.server._when_closed) == 1


# --- against a model -------------------------------------------------------------------------------


async def _one_random_upload(it: Setting, seed: int) -> None:
    """Random writes, sends, pauses, reads, cancels and ends; what is read is a beginning of what was sent."""
    rng = random.Random(seed)
    id = await it.client.remote().app.open(rng.choice([1, 3, 256]))
    reader = it.api.readers.pop(id)
    upload = it.streams.upload("files", id, high_water_mark=rng.choice([1, 2, 7, 256]))
    count = rng.choice([0, 1, 50, 400])
    end = rng.choice(["close", "close", "error", "drop", "give up"])
    reader_ends = rng.choice([None, None, None, rng.randrange(max(count, 1))])
    surface = rng.choice(["loop", "receive"])
    sent: list[Any] = []
    seen: list[Any] = []
    outcome: list[Any] = []
    ended: list[BaseException | None] = []

    def value_of(number: int) -> Any:
        return bytes([number % 256]) * rng.choice([1, 100, 5000]) if number % 5 == 0 else number

    async def produce(upload: kk.Upload[Any]) -> None:
        try:
            while len(sent) < count:
                value = value_of(len(sent))
                way = rng.random()
                if way < 0.4:
                    try:
                        upload.write(value)
                    except kk.WouldBlock:
                        await upload.wait_room()
                        continue
                elif way < 0.5:
                    with anyio.move_on_after(0) as scope:
                        await upload.send(value)
                    if scope.cancelled_caught:
                        continue
                else:
                    await upload.send(value)
                sent.append(value)
                if rng.random() < 0.1:
                    await checkpoint()
            match end:
                case "close":
                    await upload.aclose()
                case "error":
                    upload.error(ValueError("the end"))
                    await upload.aclose()
                case "give up":
                    with anyio.move_on_after(0):
                        await upload.aclose()
            ended.append(None)
        except kk.StreamClosed as error:
            assert upload.signal.cancelled
            ended.append(error)

    async def consume(reader: kk.InboundReader[Any]) -> None:
        try:
            if surface == "loop":
                async for value in reader:
                    seen.append(value)
                    if len(seen) - 1 == reader_ends:
                        break
                    if rng.random() < 0.05:
                        await checkpoint()
            else:
                while True:
                    with anyio.move_on_after(0 if rng.random() < 0.1 else BOUND):
                        seen.append(await reader.receive())
                    if seen and len(seen) - 1 == reader_ends:
                        reader.cancel()
                        break
            outcome.append("left" if len(seen) - 1 == reader_ends else "end")
        except anyio.EndOfStream:
            outcome.append("end")
        except Exception as error:
            outcome.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(produce, upload)
        tasks.start_soon(consume, reader)
        del upload, reader
    assert seen == sent[: len(seen)]
    match outcome[0]:
        case "left":
            pass
        case "end":
            assert end in ("close", "give up")
            assert seen == sent
            assert ended == [None]
        case ValueError():
            assert (end, seen, ended) == ("error", sent, [None])
        case kk.CallCancelled():
            assert end in ("drop", "give up")
            assert end == "give up" or seen == sent
        case other:
            raise AssertionError(f"seed {seed}: {other!r}")
    if isinstance(ended[0], kk.StreamClosed):
        assert outcome == ["left"]


@pytest.mark.parametrize("hello", [True, False], ids=["stream arguments", "calls"])
async def test_random_uploads_lose_nothing_and_double_nothing(hello: bool) -> None:
    async with setting(hello=hello) as it:
        for seed in range(60 if hello else 25):
            await _one_random_upload(it, seed)


@pytest.mark.slow
@pytest.mark.parametrize("hello", [True, False], ids=["stream arguments", "calls"])
async def test_many_random_uploads(hello: bool) -> None:
    async with setting(hello=hello) as it:
        for seed in range(1000, 1600 if hello else 1200):
            with anyio.fail_after(BOUND):
                await _one_random_upload(it, seed)
