"""The action client and what may come over HTTP: refusals, other answers, cuts, resuming, packing, sizes."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest

from kkrpc_py.actions.client import ActionClient
from kkrpc_py.actions.fetching import ActionRequest, Fetching
from kkrpc_py.errors import ActionError
from kkrpc_py.limits import Limits
from tests.actions.scripted import SECONDS, STREAM, Visit, event, scripted, served, until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def short_delays(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "delays" not in request.fixturenames:
        monkeypatch.setattr("kkrpc_py.actions.fetching._INITIAL_DELAY", 0.01)


EVENTS = "Content-Type: text/event-stream"
JSON = "Content-Type: application/json"


async def ended_in(play: Callable[[Visit], Any], **options: Any) -> ActionError:
    """What one execution against `play` ends in; awaited and iterated alike."""
    heard: list[ActionError] = []
    async with served(play) as (client, _):
        call = client.stream("a", on_error=heard.append, **options)
        await call.execute()
        assert call.status == "error"
        assert heard == [call.error]
        with pytest.raises(ActionError) as caught:
            async for _ in call.execute():
                pass
        assert caught.value.to_data() == heard[0].to_data()
    return heard[0]


# Answers that are no stream (SSE-8, ACT-10) ----------------------------------------------------

ERROR = {"code": "RATE_LIMITED", "message": "wait", "statusCode": 429}
FIELDS = {"code": "VALIDATION_ERROR", "message": "m", "statusCode": 422, "fieldErrors": {"a.0": ["x", "y"]}}
ANSWERS: dict[str, tuple[str, bytes, list[str], dict[str, Any]]] = {
    "json": ("429 Too Many Requests", json.dumps(ERROR).encode(), [JSON], ERROR),
    "json-charset": (
        "429 X", json.dumps(ERROR).encode(), ["Content-Type: application/JSON; charset=utf-8"], ERROR,
    ),
    "event": ("429 X", event(ERROR, kind="error"), [EVENTS], ERROR),
    "event-after-others": ("429 X", b": c\n\n" + event(1) + event(ERROR, kind="error"), [EVENTS], ERROR),
    "fields": ("422 X", json.dumps(FIELDS).encode(), [JSON], FIELDS),
    "its-own-status": ("400 X", json.dumps(ERROR).encode(), [JSON], ERROR),
    "no-status": (
        "409 X", b'{"code":"A"}', [JSON], {"code": "A", "message": "", "statusCode": 409},
    ),
    "message-alone": (
        "404 X", b'{"message":"not here"}', [JSON],
        {"code": "STREAM_ERROR", "message": "not here", "statusCode": 404},
    ),
    **{
        name: (
            "503 Service Unavailable", body, headers,
            {"code": "STREAM_ERROR", "message": "HTTP 503 Service Unavailable", "statusCode": 503},
        )
        for name, body, headers in (
            ("no-body", b"", []),
            ("html", b"<h1>no</h1>", ["Content-Type: text/html"]),
            ("json-else", b'{"detail":"no"}', [JSON]),
            ("json-list", b"[1]", [JSON]),
            ("json-broken", b'{"code":', [JSON]),
            ("json-no-utf-8", b'{"code":"\xff"}', [JSON]),
            ("json-deep", b"[" * 100_000, [JSON]),
            ("event-cut", b'event: error\ndata: {"code":"A"}\n', [EVENTS]),
            ("event-other", event(ERROR), [EVENTS]),
            ("event-no-json", b"event: error\ndata: x\n\n", [EVENTS]),
        )
    },
    "no-stream": (
        "200 OK", b"[]", [JSON],
        {"code": "STREAM_ERROR", "message": "the answer is no event stream: HTTP 200 OK application/json",
         "statusCode": 502},
    ),
    "no-type": (
        "200 OK", b"data: 1\n\n", [],
        {"code": "STREAM_ERROR", "message": "the answer is no event stream: HTTP 200 OK", "statusCode": 502},
    ),
    "another-type": (
        "200 OK", b"data: 1\n\n", ["Content-Type: text/event-stream-x"],
        {"code": "STREAM_ERROR", "statusCode": 502,
         "message": "the answer is no event stream: HTTP 200 OK text/event-stream-x"},
    ),
    "no-content": (
        "204 No Content", b"", [],
        {"code": "STREAM_ERROR", "message": "the answer is no event stream: HTTP 204 No Content",
         "statusCode": 502},
    ),
    "redirect": (
        "307 Temporary Redirect", b"", ["Location: /elsewhere"],
        {"code": "STREAM_ERROR", "statusCode": 502,
         "message": "HTTP 307 Temporary Redirect: redirects are followed where `http` is an "
                    "httpx.AsyncClient(follow_redirects=True)"},
    ),
    "redirect-nowhere": (
        "301 Moved Permanently", b"", [],
        {"code": "STREAM_ERROR", "message": "HTTP 301 Moved Permanently", "statusCode": 502},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
async def test_answers_that_are_no_stream(name: str) -> None:
    status, body, headers, expected = ANSWERS[name]
    error = await ended_in(lambda visit: visit.answer(status, body, *headers))
    assert error.to_data() == expected


async def test_a_refusal_without_end_is_read_in_part() -> None:
    async def play(visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 500 X\r\nContent-Type: text/html\r\n\r\n")
        await visit.send(b"x" * 100_000)
        await visit.gone()

    assert str(await ended_in(play)) == "STREAM_ERROR: HTTP 500 X"


async def test_a_refusal_that_does_not_come_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kkrpc_py.actions.fetching._BODY_SECONDS", 0.05)

    async def play(visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 500 X\r\nContent-Type: application/json\r\n\r\n{")
        await visit.gone()

    assert str(await ended_in(play)) == "STREAM_ERROR: HTTP 500 X"


async def test_redirects_are_followed_by_a_client_that_does() -> None:
    async def play(visit: Visit) -> None:
        if visit.target == "/actions/a":
            await visit.answer("307 Temporary Redirect", b"", "Location: /b")
        else:
            await visit.stream_of(event(visit.input))

    with anyio.fail_after(SECONDS):
        async with scripted(play) as server, httpx.AsyncClient(follow_redirects=True) as http:
            async with ActionClient(server.url, http=http) as client:
                call = client.stream("a")
                await call.execute("x")
                assert call.chunks == ["x"]
            assert [(visit.method, visit.target) for visit in server.visits] == [
                ("POST", "/actions/a"), ("POST", "/b"),
            ]  # fmt: skip


async def test_redirects_in_a_circle() -> None:
    with anyio.fail_after(SECONDS):
        play = lambda visit: visit.answer("308 X", b"", "Location: /actions/a")  # noqa: E731 - shorter so
        async with scripted(play) as server, httpx.AsyncClient(follow_redirects=True) as http:
            async with ActionClient(server.url, http=http) as client:
                call = client.stream("a")
                await call.execute()
                assert str(call.error).startswith("STREAM_ERROR: the connection failed: Exceeded maximum")


# Connections that fail (SSE-6, SSE-15) --------------------------------------------------------


async def test_nobody_listens() -> None:
    async with scripted(lambda visit: visit.gone()) as server:
        url = server.url
    with anyio.fail_after(SECONDS):
        async with ActionClient(url) as client:
            call = client.stream("a")
            await call.execute()
            assert call.error is not None
            assert (call.error.code, call.error.status) == ("STREAM_ERROR", 500)
            assert call.error.message.startswith("the connection failed: ")
            assert isinstance(call.error.__cause__, httpx.ConnectError)
            with pytest.raises(ActionError) as caught:
                async for _ in call:
                    pass
            assert isinstance(caught.value.__cause__, httpx.ConnectError)


CUTS: dict[str, list[bytes]] = {
    "before-the-answer": [],
    "in-the-head": [b"HTTP/1.1 200"],
    "no-http": [b"SSH-2.0-OpenSSH\r\n\r\n"],
    "at-once": [STREAM],
    "in-an-event": [STREAM, b"6\r\ndata: \r\n"],
    "in-a-chunk": [STREAM, b"100\r\ndata: 1\n\n"],
    "behind-an-event": [STREAM, b"9\r\ndata: 1\n\n\r\n"],
    "with-a-whole-body": [STREAM, b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"],
    "behind-an-unfinished-end": [STREAM, b"1c\r\ndata: 1\n\nevent: done\ndata: {}\r\n0\r\n\r\n"],
    "broken-chunks": [STREAM, b"xyz\r\n"],
    "with-content-length": [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n\r\n", b"data: 1\n\n",
    ],
    "without-any-length": [b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", b"data: 1\n\n"],
}  # fmt: skip


@pytest.mark.parametrize("name", CUTS)
async def test_streams_that_are_cut(name: str) -> None:
    async def play(visit: Visit) -> None:
        for part in CUTS[name]:
            await visit.send(part)

    error = await ended_in(play)
    assert (error.code, error.status) == ("STREAM_ERROR", 500)
    assert error.message == "the stream was cut before its end" or error.message.startswith(
        "the connection failed: "
    )


async def test_what_came_before_the_cut_was_handed_out() -> None:
    heard: list[Any] = []

    async def play(visit: Visit) -> None:
        await visit.open()
        await visit.chunk(event(1) + event(2) + b"data: 3\n")

    async with served(play) as (client, _):
        call = client.stream("a", on_chunk=heard.append)
        await call.execute()
        assert (heard, call.status) == ([1, 2], "error")


async def test_no_second_request_where_events_have_no_ids() -> None:
    async def play(visit: Visit) -> None:
        await visit.open()
        await visit.chunk(event(1))

    async with served(play) as (client, server):
        await client.stream("a").execute()
        assert len(server.visits) == 1


# What the events say (SSE-3 to SSE-5, SSE-14) -------------------------------------------------


async def test_events_of_other_types_and_comments_are_ignored() -> None:
    async def play(visit: Visit) -> None:
        await visit.stream_of(
            b": keep-alive\n\n",
            event("no", kind="progress"),
            event(1),
            b"retry: 5\n\n",
            b"event: done\n\n",
            event(2),
        )

    async with served(play) as (client, _):
        call = client.stream("a")
        await call.execute()
        assert (call.chunks, call.status) == ([1, 2], "done")


async def test_nothing_counts_after_the_end() -> None:
    for last in (event({}, kind="done"), event({"code": "X"}, kind="error")):

        async def play(visit: Visit, last: bytes = last) -> None:
            await visit.open()
            await visit.chunk(event(1) + last + event(2) + event({"code": "Y"}, kind="error"))
            await visit.gone()

        async with served(play) as (client, _):
            call = client.stream("a")
            await call.execute()
            assert call.chunks == [1]
            assert call.status == ("done" if b"done" in last else "error")
            assert str(call.error) == ("None" if b"done" in last else "X")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (event(ERROR, kind="error"), ERROR),
        (event(FIELDS, kind="error"), FIELDS),
        (event({}, kind="error"), {"code": "STREAM_ERROR", "message": "", "statusCode": 500}),
        (b"event: error\ndata: x\n\n", {"code": "STREAM_ERROR", "message": "", "statusCode": 500}),
        (
            event({"code": 7, "message": [], "statusCode": "x", "fieldErrors": 1}, kind="error"),
            {"code": "STREAM_ERROR", "message": "", "statusCode": 500},
        ),
    ],
    ids=["whole", "fields", "empty", "no-json", "wrong-types"],
)
async def test_error_events(data: bytes, expected: Any) -> None:
    async def play(visit: Visit) -> None:
        await visit.open()
        await visit.chunk(data)
        await visit.end()

    assert (await ended_in(play)).to_data() == expected


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"NaN", b"1e999", b"[" * 1000, b"1" * 2000, b"{'a':1}", b"\xff"],
    ids=["empty", "open", "nan", "infinite", "deep", "long", "quotes", "bytes"],
)
async def test_data_that_is_no_json(text: bytes) -> None:
    heard: list[Any] = []

    async def play(visit: Visit) -> None:
        await visit.open()
        await visit.chunk(event(1) + b"data: " + text + b"\n\n" + event(2))
        await visit.gone()

    async with served(play) as (client, server):
        call = client.stream("a", on_chunk=heard.append)
        await call.execute()
        assert (heard, str(call.error)) == ([1], "STREAM_ERROR: a chunk that arrived is not JSON")
        await until(lambda: server.open == 0)


async def test_text_that_is_no_utf_8_in_json() -> None:
    """Each byte that is none is replaced (WHATWG); a letter may come in two packets."""

    async def play(visit: Visit) -> None:
        await visit.open()
        text = 'data: "€'.encode()
        await visit.chunk(text[:-1])
        await visit.chunk(text[-1:] + b'\xed\xa0\x80"\n\n' + event({}, kind="done"))
        await visit.end()

    async with served(play) as (client, _):
        call = client.stream("a")
        await call.execute()
        assert call.chunks == ["€\ufffd\ufffd\ufffd"]


async def test_an_event_that_is_too_long() -> None:
    async def play(visit: Visit) -> None:
        await visit.open()
        await visit.chunk(event(1) + event("x" * 999) + b"data: ")
        await visit.chunk(b"x" * 3000)
        await visit.gone()

    async with served(play, limits=Limits(frame=2000)) as (client, _):
        call = client.stream("a")
        await call.execute()
        assert call.chunks == [1, "x" * 999]
        assert str(call.error) == "STREAM_ERROR: an event is longer than Limits.frame (2000)"


# Time -----------------------------------------------------------------------------------------


async def test_timeout_until_the_answer_begins() -> None:
    error = await ended_in(lambda visit: visit.gone(), timeout=0.05)
    assert (error.code, error.status) == ("TIMEOUT_ERROR", 408)
    assert error.message == "the stream did not begin within 0.05 s"


async def test_timeout_is_not_for_the_stream() -> None:
    async def play(visit: Visit) -> None:
        await visit.open()
        await anyio.sleep(0.6)
        await visit.chunk(event(1) + event({}, kind="done"))
        await visit.end()

    async with served(play) as (client, _):
        call = client.stream("a", timeout=0.5)
        await call.execute()
        assert (call.status, call.chunks) == ("done", [1])


async def test_the_headers_are_waited_for_within_the_timeout() -> None:
    async def never() -> dict[str, str]:
        await anyio.sleep_forever()
        return {}

    async with served(lambda visit: visit.gone(), headers=never) as (client, server):
        call = client.stream("a", timeout=0.02)
        await call.execute()
        assert call.error is not None
        assert (call.error.code, server.visits) == ("TIMEOUT_ERROR", [])


async def test_quiet() -> None:
    async def play(visit: Visit) -> None:
        await visit.open()
        for _ in range(5):
            await visit.chunk(b": keep-alive\n\n")
            await anyio.sleep(0.02)
        await visit.gone()

    error = await ended_in(play, quiet=0.1)
    assert str(error) == "STREAM_ERROR: the connection failed: nothing came for longer than `quiet`"


async def test_a_given_client_may_be_quiet_too() -> None:
    async def play(visit: Visit) -> None:
        await visit.open()
        await anyio.sleep(0.1)
        await visit.chunk(event({}, kind="done"))
        await visit.end()

    usual = httpx.Timeout(SECONDS, read=0.05)
    with anyio.fail_after(SECONDS):
        async with scripted(play) as server, httpx.AsyncClient(timeout=usual) as http:
            async with ActionClient(server.url, http=http) as client:
                call = client.stream("a")
                await call.execute()
                assert call.status == "done"


# Packed answers -------------------------------------------------------------------------------


def packed_head(coding: str) -> bytes:
    return STREAM.replace(b"\r\n\r\n", f"\r\nContent-Encoding: {coding}\r\n\r\n".encode())


@pytest.mark.parametrize("coding", ["gzip", "X-GZIP", "deflate", "identity"])
async def test_a_packed_stream_comes_as_it_is_flushed(coding: str) -> None:
    step = anyio.Event()

    async def play(visit: Visit) -> None:
        packer = zlib.compressobj(wbits=zlib.MAX_WBITS if coding == "deflate" else 31)

        def pack(data: bytes) -> bytes:
            if coding == "identity":
                return data
            return packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)

        await visit.send(packed_head(coding))
        await visit.chunk(pack(event(1)))
        await step.wait()
        await visit.chunk(pack(event(2) + event({}, kind="done")))
        await visit.end()

    async with served(play) as (client, _):
        call = client.stream("a", on_chunk=lambda _: step.set())
        await call.execute()
        assert (call.chunks, call.status) == ([1, 2], "done")


async def test_a_packed_refusal() -> None:
    body = gzip.compress(json.dumps(ERROR).encode())
    error = await ended_in(lambda visit: visit.answer("429 X", body, JSON, "Content-Encoding: gzip"))
    assert error.to_data() == ERROR


@pytest.mark.parametrize(
    ("coding", "body", "message"),
    [
        ("br", b"x", "the answer is packed in a way that was not asked for: br"),
        ("gzip, gzip", b"x", "the answer is packed in a way that was not asked for: gzip, gzip"),
        ("gzip", b"data: 1\n\n", "the answer cannot be unpacked"),
    ],
    ids=["other", "twice", "broken"],
)
async def test_what_cannot_be_unpacked(coding: str, body: bytes, message: str) -> None:
    async def play(visit: Visit) -> None:
        await visit.send(packed_head(coding))
        await visit.chunk(body)
        await visit.gone()

    error = await ended_in(play)
    assert (error.message, error.status) == (message, 502)


async def test_a_stream_that_unpacks_to_too_much_takes_no_memory() -> None:
    bomb = gzip.compress(b"data: " + b"x" * 50_000_000, 1)

    async def play(visit: Visit) -> None:
        await visit.send(packed_head("gzip"))
        await visit.chunk(bomb)
        await visit.gone()

    async with served(play, limits=Limits(frame=1_000_000)) as (client, _):
        call = client.stream("a")
        tracemalloc.start()
        try:
            await call.execute()
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert str(call.error) == "STREAM_ERROR: an event is longer than Limits.frame (1000000)"
        assert most < 8_000_000


# Resuming (SSE-11, SSE-12, SSE-15) -------------------------------------------------------------


def numbered(*numbers: int) -> bytes:
    return b"".join(event(number, id=f"run:{number}") for number in numbers)


async def test_a_stream_with_ids_is_resumed_where_it_was_cut() -> None:
    heard: list[Any] = []

    async def play(visit: Visit) -> None:
        last = visit.headers.get("last-event-id")
        if last is None:
            await visit.open()
            await visit.chunk(numbered(1, 2) + b'id: run:3\ndata: "partial"')
        elif last == "run:2":
            await visit.open()
            await visit.chunk(numbered(3))
            await visit.send(b"broken\r\n")
        else:
            assert last == "run:3"
            await visit.stream_of(numbered(4), b"id: run:5\n")

    async with served(play, headers={"X-Token": "t"}) as (client, server):
        call = client.stream("a", on_chunk=heard.append, on_done=heard.append)
        await call.execute({"prompt": "x"})
        assert (heard, call.status) == ([1, 2, 3, 4, [1, 2, 3, 4]], "done")
        assert [(visit.method, visit.input, visit.headers["x-token"]) for visit in server.visits] == [
            ("POST", {"prompt": "x"}, "t")
        ] * 3


async def test_the_answers_to_a_resumption() -> None:
    """204: all of it was there. 410 and others: the end. 429, 502, 503, 504: once more."""
    gone = {"code": "RESUME_GONE", "message": "gone", "statusCode": 410}
    plays: dict[str, tuple[list[tuple[str, bytes]], str]] = {
        "had-it-all": ([("204 No Content", b"")], "None"),
        "gone": ([("410 Gone", json.dumps(gone).encode())], "RESUME_GONE: gone"),
        "refused": ([("403 Forbidden", b"")], "STREAM_ERROR: HTTP 403 Forbidden"),
        "later": ([("503 X", b""), ("429 X", b""), ("502 X", b""), ("504 X", b""), ("204 X", b"")], "None"),
        "fault": ([("500 X", b"")], "STREAM_ERROR: HTTP 500 X"),
    }
    for name, (answers, expected) in plays.items():
        waiting = iter(answers)

        async def play(visit: Visit, waiting: Any = waiting) -> None:
            if "last-event-id" in visit.headers:
                await visit.answer(*next(waiting), JSON)
            else:
                await visit.open()
                await visit.chunk(numbered(1))

        async with served(play) as (client, server):
            call = client.stream("a")
            await call.execute()
            assert (name, str(call.error), call.chunks) == (name, expected, [1])
            assert len(server.visits) == 1 + len(answers)


async def test_it_gives_up_after_several_times() -> None:
    async def play(visit: Visit) -> None:
        if "last-event-id" not in visit.headers:
            await visit.open()
            await visit.chunk(numbered(1))

    async with served(play) as (client, server):
        call = client.stream("a", resume=2)
        await call.execute()
        assert (call.status, call.chunks, len(server.visits)) == ("error", [1], 3)
        await client.stream("a", resume=0).execute()
        assert len(server.visits) == 4


async def test_each_event_that_comes_counts_the_times_anew() -> None:
    async def play(visit: Visit) -> None:
        last = int(visit.headers.get("last-event-id", "run:0").partition(":")[2])
        await visit.open()
        if last == 5:
            await visit.chunk(event({}, kind="done"))
        else:
            await visit.chunk(numbered(last + 1))

    async with served(play) as (client, server):
        call = client.stream("a", resume=1)
        await call.execute()
        assert (call.status, call.chunks, len(server.visits)) == ("done", [1, 2, 3, 4, 5], 6)


async def test_an_event_that_comes_again_and_again_does_not() -> None:
    async def play(visit: Visit) -> None:
        await visit.open()
        await visit.chunk(numbered(1))

    async with served(play) as (client, server):
        call = client.stream("a", resume=2)
        await call.execute()
        assert (call.status, len(server.visits)) == ("error", 3)


async def test_a_server_that_is_away_for_a_while() -> None:
    """Nobody listens when the client comes back; then somebody does."""
    cut = anyio.Event()

    async def begin(visit: Visit) -> None:
        await visit.open()
        await visit.chunk(numbered(1))
        await cut.wait()

    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks:
            async with scripted(begin) as server:
                port = int(server.url.rpartition(":")[2].partition("/")[0])
                client = ActionClient(server.url)
                call = client.stream("a")
                tasks.start_soon(call.execute)
                await until(lambda: call.chunks == [1])
                cut.set()
            async with scripted(lambda visit: visit.stream_of(numbered(2)), port=port):
                await until(lambda: call.status == "done")
            assert call.chunks == [1, 2]
            await client.aclose()


async def test_a_wanted_delay_holds_for_later_connections_too(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def play(visit: Visit) -> None:
        last = int(visit.headers.get("last-event-id", "run:0").partition(":")[2])
        if last == 3:
            await visit.answer("204 No Content")
        else:
            await visit.open()
            await visit.chunk((b"retry: 4000\n" if last == 0 else b"") + numbered(last + 1))

    async with served(play) as (client, _):
        call = client.stream("a")
        monkeypatch.setattr("kkrpc_py.actions.fetching.anyio.sleep", sleep)
        try:
            await call.execute()
        finally:
            monkeypatch.undo()
        assert (call.status, len(slept)) == ("done", 3)
        assert all(2.0 <= delay <= 4.0 for delay in slept)


async def test_stop_while_it_waits_to_resume() -> None:
    async def play(visit: Visit) -> None:
        await visit.open()
        await visit.chunk(b"retry: 10000\n" + numbered(1))

    async with served(play) as (client, server), anyio.create_task_group() as tasks:
        call = client.stream("a")
        tasks.start_soon(call.execute)
        await until(lambda: call.chunks == [1] and server.open == 0)
        assert call.status == "streaming"
        call.stop()
        await until(lambda: client._host.running == set())
        assert (call.status, len(server.visits)) == ("done", 1)


async def test_an_id_that_is_reset_resumes_nothing() -> None:
    async def play(visit: Visit) -> None:
        await visit.open()
        await visit.chunk(numbered(1) + b"id:\n" + event(2))

    async with served(play) as (client, server):
        call = client.stream("a")
        await call.execute()
        assert (call.status, call.chunks, len(server.visits)) == ("error", [1, 2], 1)


async def test_an_id_that_is_not_ascii_comes_back_as_it_was() -> None:
    async def play(visit: Visit) -> None:
        if "last-event-id" in visit.headers:
            await visit.answer("204 No Content")
        else:
            await visit.open()
            await visit.chunk(event(1, id="ü…"))

    async with served(play) as (client, server):
        call = client.stream("a")
        await call.execute()
        assert call.status == "done"
        assert server.visits[1].headers["last-event-id"].encode("latin-1").decode() == "ü…"


@pytest.mark.parametrize("id", [" a", "a ", "a\x0bb"], ids=["blank-before", "blank-behind", "control"])
async def test_an_id_that_no_header_may_have(id: str) -> None:
    async def play(visit: Visit) -> None:
        await visit.open()
        await visit.chunk(event(1, id=id))

    async with served(play) as (client, server):
        call = client.stream("a")
        await call.execute()
        assert (call.status, call.chunks, len(server.visits)) == ("error", [1], 1)
        assert str(call.error).startswith("STREAM_ERROR: the connection failed")


@pytest.mark.parametrize(
    ("retry", "delays"),
    [
        (None, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0]),
        ("0", [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0]),
        ("3000", [3.0, 6.0, 10.0]),
        ("9" * 400, [10.0, 10.0]),
    ],
    ids=["usual", "none", "its-own", "too-long"],
)
async def test_delays(retry: str | None, delays: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is twice the one before, up to ten seconds, half of it left to chance; a server may want more."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def play(visit: Visit) -> None:
        if "last-event-id" not in visit.headers:
            await visit.open()
            await visit.chunk((f"retry: {retry}\n".encode() if retry else b"") + numbered(1))

    async def put(chunks: list[Any], size: int) -> None:
        pass

    with anyio.fail_after(SECONDS):
        async with scripted(play) as server, httpx.AsyncClient() as http:
            request = ActionRequest(
                "POST", httpx.URL(server.url), b"{}", None, None, None, resume=len(delays)
            )
            chances = iter([0.0, 1.0] * 10)
            fetching = Fetching(http, request, Limits(), chance=lambda: next(chances))
            with monkeypatch.context() as patch:
                patch.setattr("kkrpc_py.actions.fetching.anyio.sleep", sleep)
                with pytest.raises(ActionError):
                    await fetching.run(put)
    jittered = [delay * (1.0 if number % 2 == 0 else 0.5) for number, delay in enumerate(delays)]
    assert slept == pytest.approx(jittered)
