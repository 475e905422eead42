"""What an answer looks like on the wire, to the byte (SSE-1 to SSE-7, ACT-6, ACT-7, ACT-9)."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

import kkrpc_py as kk
from kkrpc_py.web.encoding import error_event
from tests.web.backends import anyio_backend, server, under
from tests.web.raw import connected, post
from tests.web.site import BOUND, Site

__all__ = ["anyio_backend", "server", "under"]

pytestmark = pytest.mark.anyio

DONE = b"event: done\ndata: {}\n\n"


class Values:
    """Handlers that send what a test wants, and say what `send` raised."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.raised: list[BaseException] = []

    @kk.stream_action()
    async def values_of(self, input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        for value in self.values:
            try:
                await stream.send(value)
            except (kk.NotSerializable, kk.LimitExceeded) as exc:
                self.raised.append(exc)
                if input.get("careless"):
                    raise

    @kk.stream_action()
    async def closes(self, input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        await stream.send(1)
        await stream.close()
        await stream.close()
        with pytest.raises(kk.StreamClosed):
            await stream.send(2)
        raise ValueError("for nobody")


@pytest.fixture(scope="module")
def values() -> Values:
    return Values()


@pytest.fixture(scope="module")
async def url(anyio_backend: Any, server: str, values: Values) -> AsyncIterator[str]:
    site = Site()
    actions = {"values": values.values_of, "closes": values.closes}
    options: dict[str, Any] = {"keep_alive": 0.05, "limits": kk.Limits(frame=100_000)}
    async with site.served(server, bound=None, actions=actions, **options) as url:
        yield url


async def body_of(url: str, request: bytes) -> bytes:
    with anyio.fail_after(BOUND):
        async with connected(url) as http:
            await http.send(request)
            assert await http.begun() == 200
            body = await http.whole()
            assert http.ended
            return body


async def test_a_stream_to_the_byte(url: str) -> None:
    """SSE-2, SSE-3, SSE-4: the headers that matter; an event a chunk; `done`; lines end with 0x0A."""
    with anyio.fail_after(BOUND):
        async with connected(url) as http:
            await http.send(post("/actions/ask", {"text": "hi", "times": 2}))
            assert await http.begun() == 200
            assert await http.whole() == b'data: "hi"\n\ndata: "hi"\n\n' + DONE
            assert http.headers["content-type"].startswith("text/event-stream")
            assert http.headers["cache-control"] == "no-store"
            assert http.headers["x-accel-buffering"] == "no"


async def test_the_connection_serves_the_next_request(url: str) -> None:
    with anyio.fail_after(BOUND):
        async with connected(url) as http:
            for _ in range(3):
                await http.send(post("/actions/echo", {"a": 1}))
                assert await http.begun() == 200
                http.body, http.ended = b"", False
                assert await http.whole() == b'data: {"a":1}\n\n' + DONE


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("\u2028 é 猫\r\n", '"\u2028 é 猫\\r\\n"'),
        ("\ud800", '"\\ud800"'),
        (2**53 - 1, "9007199254740991"),
        (1.0, "1.0"),
        ([None, True, {"a": []}], '[null,true,{"a":[]}]'),
        (b"\x00\xff", '{"type":"Uint8Array","data":[0,255]}'),
        (kk.ValidationIssue(("a",), "b"), '{"path":["a"],"message":"b"}'),
    ],
    ids=["text", "surrogate", "integer", "float", "nested", "bytes", "struct"],
)
async def test_values_go_out_exactly(url: str, values: Values, value: Any, text: str) -> None:
    """SSE-3: JSON in UTF-8, without a line end in it."""
    values.values = [value]
    assert await body_of(url, post("/actions/values")) == f"data: {text}\n\n".encode() + DONE


@pytest.mark.parametrize(
    "value",
    [2**53, math.nan, {1: 2}, {"when": {3}}, object(), {"type": "Uint8Array", "data": [1]}, "x" * 100_000],
    ids=["integer", "nan", "key", "set", "object", "form of bytes", "too large"],
)
async def test_nothing_is_sent_changed(url: str, values: Values, value: Any) -> None:
    """VAL-1, ACT-6: what JSON has not is refused where it is sent; the stream may go on."""
    values.values = ["before", value, "after"]
    values.raised.clear()
    body = await body_of(url, post("/actions/values"))
    assert body == b'data: "before"\n\ndata: "after"\n\n' + DONE
    assert len(values.raised) == 1


async def test_a_chunk_that_cannot_be_sent_ends_a_careless_handler(url: str, values: Values) -> None:
    """ACT-6: as an unexpected error, without its text."""
    values.values = ["before", math.inf, "after"]
    body = await body_of(url, post("/actions/values", {"careless": True}))
    error = {"code": "STREAM_ERROR", "message": "Stream handler error", "statusCode": 500}
    text = json.dumps(error, separators=(",", ":"))
    assert body == b'data: "before"\n\n' + f"event: error\ndata: {text}\n\n".encode()


async def test_an_error_that_is_meant_for_the_client(url: str) -> None:
    """SSE-5: the error object, and nothing after it (SSE-6)."""
    body = await body_of(url, post("/actions/fail", {}))
    assert body == (
        b'data: "first"\n\nevent: error\ndata: {"code":"OUT_OF_PAPER","message":"No paper left",'
        b'"statusCode":409,"fieldErrors":{"tray":["is empty"]}}\n\n'
    )


async def test_an_error_that_is_not_loses_its_text(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """ACT-6."""
    body = await body_of(url, post("/actions/fail", {"unexpected": True}))
    assert body.endswith(b'"message":"Stream handler error","statusCode":500}\n\n')
    assert b"swordfish" not in body
    assert "swordfish" in caplog.text


async def test_a_handler_that_closes_has_ended_for_its_client(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """ACT-7: what it sends or raises afterwards is told to nobody."""
    assert await body_of(url, post("/actions/closes")) == b"data: 1\n\n" + DONE


async def test_no_body_is_an_empty_object(url: str) -> None:
    """SSE-1."""
    assert await body_of(url, post("/actions/echo")) == b"data: {}\n\n" + DONE


async def test_a_safe_action_takes_its_input_from_the_query(url: str) -> None:
    """SSE-1: texts, and a list of those of one name; GET where the action is safe."""
    request = "GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n"
    body = await body_of(url, request.format("/actions/echo?a=1&b=x%20y&a=%E7%8C%AB&c=&a=3").encode())
    assert json.loads(body.partition(b"\n")[0][6:]) == {"a": ["1", "猫", "3"], "b": "x y", "c": ""}
    body = await body_of(url, request.format("/actions/ask?text=hi&times=2").encode())
    assert body == b'data: "hi"\n\ndata: "hi"\n\n' + DONE
    assert await body_of(url, request.format("/actions/echo").encode()) == b"data: {}\n\n" + DONE


async def test_head_is_answered_without_running_anything(url: str) -> None:
    with anyio.fail_after(BOUND):
        async with connected(url) as http:
            await http.send(b"HEAD /actions/ask?text=hi HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert await http.begun() == 200
            assert http.headers["content-type"].startswith("text/event-stream")
            await http.send(b"HEAD /actions/ask HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert await http.begun() == 422
            await http.send(post("/actions/echo", 7))
            assert await http.begun() == 200


async def test_head_runs_nothing(server: str) -> None:
    """SSE-1: whatever the action would do."""
    ran: list[Any] = []

    @kk.stream_action(safe=True)
    async def noting(input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        ran.append(input)

    async with Site().served(server, actions={"noting": noting}) as url, connected(url) as http:
        for number in range(2):
            await http.send(f"HEAD /actions/noting?a={number} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
            assert await http.begun() == 200
        await http.send(b"GET /actions/noting?a=2 HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert await http.begun() == 200
        await http.whole()
    assert ran == [{"a": "2"}]


async def test_options_says_which_methods_there_are(url: str) -> None:
    with anyio.fail_after(BOUND):
        async with connected(url) as http:
            for name, allowed in (("ask", "POST, GET, HEAD, OPTIONS"), ("fail", "POST, OPTIONS")):
                await http.send(f"OPTIONS /actions/{name} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
                assert await http.begun() == 204
                assert http.headers["allow"] == allowed


async def test_the_answer_begins_before_the_first_chunk(url: str) -> None:
    """SSE-2; SSE-7: a comment when it is quiet, and one again."""
    with anyio.fail_after(BOUND):
        async with connected(url) as http:
            await http.send(post("/actions/forever", {"silent": True}))
            assert await http.begun() == 200
            assert await http.until(b": keep-alive\n\n" * 2) == b": keep-alive\n\n" * 2


async def test_no_comment_stands_between_chunks_that_come_often(url: str) -> None:
    """SSE-7: only where nothing was sent for a while."""
    with anyio.fail_after(BOUND):
        async with connected(url) as http:
            await http.send(post("/actions/forever", {"every": 0.01}))
            assert await http.begun() == 200
            body = await http.until(b"data: 20\n\n")
            assert b"keep-alive" not in body


async def test_chunks_that_are_ready_together_leave_together(url: str) -> None:
    """ACT-9: of a thousand chunks that nobody waits between, few writes are made."""
    with anyio.fail_after(BOUND):
        async with connected(url) as http:
            await http.send(post("/actions/burst", {"count": 1000}))
            assert await http.begun() == 200
            body = await http.whole()
            assert body == b"".join(b"data: %d\n\n" % number for number in range(1000)) + DONE
            assert len(http.writes) <= 8


async def test_a_chunk_waits_for_no_other_one(server: str) -> None:
    """ACT-9: it is there while the handler has nothing more."""
    site = Site()
    async with site.served(server) as url, connected(url) as http:
        await http.send(post("/actions/gated", {}))
        assert await http.begun() == 200
        assert await http.until(b"\n\n") == b'data: "before"\n\n'
        site.gate.set()
        assert await http.whole() == b'data: "before"\n\ndata: "after"\n\n' + DONE


async def test_two_requests_of_one_handler_do_not_mix(url: str) -> None:
    with anyio.fail_after(BOUND):
        async with connected(url) as one, connected(url) as two:
            await one.send(post("/actions/ask", {"text": "1", "times": 500}))
            await two.send(post("/actions/ask", {"text": "2", "times": 500}))
            assert await two.begun() == await one.begun() == 200
            assert await one.whole() == b'data: "1"\n\n' * 500 + DONE
            assert await two.whole() == b'data: "2"\n\n' * 500 + DONE


async def test_over_http_2(anyio_backend: Any) -> None:
    """RFC 9113, 8.2.2: without the header that HTTP/2 has not."""
    async with Site().served("hypercorn") as url, httpx.AsyncClient(http1=False, http2=True) as client:
        answer = await client.post(f"{url}/actions/ask", json={"text": "x"})
        assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
        assert answer.content == b'data: "x"\n\n' + DONE
        assert "connection" not in answer.headers
        assert (await client.post(f"{url}/actions/ask", json={"text": 5})).status_code == 422
        assert (await client.post(f"{url}/actions/nothing", content=b"x" * (1 << 20))).status_code == 404


async def test_hooks_of_the_application(server: str, caplog: pytest.LogCaptureFixture) -> None:
    """`encode` and `decode` hold for chunks and inputs as for a channel's values."""

    def decode(value: dict[Any, Any]) -> Any:
        if "broken" in value:
            raise ValueError("the password is swordfish")
        return complex(*value["complex"]) if "complex" in value else value

    def encode(value: Any) -> Any:
        return {"complex": [value.real, value.imag]} if isinstance(value, complex) else NotImplemented

    async with Site().served(server, encode=encode, decode=decode) as url:
        body = await body_of(url, post("/actions/echo", {"a": [{"complex": [1, 2]}]}))
        assert body == b'data: {"a":[{"complex":[1.0,2.0]}]}\n\n' + DONE
        async with connected(url) as http:
            await http.send(post("/actions/echo", {"broken": 1}))
            assert await http.begun() == 500
            assert b"swordfish" not in await http.whole()
        assert "swordfish" in caplog.text


async def test_a_server_that_says_so_of_a_client_that_is_gone() -> None:
    """ASGI 2.4: `send` raises OSError. The handler is told and cancelled; nothing is logged."""
    site = Site()
    app = site.app(hosts=["*"])
    body = b'{"key":"a"}'
    requests = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        while not requests:
            await anyio.sleep_forever()
        return requests.pop()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise BrokenPipeError

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/actions/forever",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    with anyio.fail_after(BOUND):
        await app(scope, receive, send)
    assert site.watch.seen["a"] == ["began", "signal", "cancelled", "ended"]


@pytest.mark.parametrize("message", ["plain", "\ud800"], ids=["plain", "surrogate"])
def test_an_error_of_any_text(message: str) -> None:
    """SSE-5."""
    event = error_event(kk.ActionError("A", message))
    assert event.startswith(b"event: error\ndata: {")
    assert json.loads(event.splitlines()[1][6:])["message"] == message
