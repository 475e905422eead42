"""Requests that are refused before anything runs, and the shape of the answer (HTTP-5 to HTTP-7, SSE-8)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import kkrpc_py as kk
from kkrpc_py.web.app import asgi_app
from tests.web.backends import anyio_backend, server, under
from tests.web.raw import Raw, connected, post
from tests.web.servers import serving
from tests.web.site import BOUND, Site

__all__ = ["anyio_backend", "server", "under"]

pytestmark = pytest.mark.anyio

JSON = "application/json"


class Math:
    def add(self, a: int, b: int) -> int:
        return a + b


async def refuses(ctx: kk.ActionContext) -> None:
    if "x-user" not in ctx.headers:
        raise kk.ActionError("NO_USER", "Who are you?", 401)
    if ctx.headers["x-user"] == "broken":
        raise ValueError("the password is swordfish")


class More:
    ran = 0

    @kk.stream_action(middleware=[refuses])
    async def private(self, input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        self.ran += 1
        await stream.send(ctx.client)

    @kk.stream_action(replay=3)
    async def kept(self, input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        self.ran += 1


@pytest.fixture(scope="module")
def more() -> More:
    return More()


@pytest.fixture(scope="module")
async def url(anyio_backend: Any, server: str, more: More) -> AsyncIterator[str]:
    options: dict[str, Any] = {"actions": {"private": more.private}, "max_body": 2000}
    async with Site().served(server, bound=None, api=Math(), **options) as url:
        yield url


async def refused(url: str, request: bytes, status: int, code: str) -> Raw:
    """Send a request, and be refused; the connection of the answer."""
    with anyio.fail_after(BOUND):
        async with connected(url) as http:
            await http.send(request)
            assert await http.begun() == status
            await http.whole()
            assert json.loads(http.body)["code"] == code
            assert json.loads(http.body)["statusCode"] == status
            assert http.headers["content-type"] == JSON
            return http


BROKEN: dict[str, tuple[bytes, int, str]] = {
    "no such action": (post("/actions/nothing", {}), 404, "NOT_FOUND"),
    "no such path": (post("/nothing", {}), 404, "NOT_FOUND"),
    "slash at the end": (post("/actions/echo/", {}), 404, "NOT_FOUND"),
    "no name": (post("/actions/", {}), 404, "NOT_FOUND"),
    "slash in the name": (post("/actions/echo%2Fecho", {}), 404, "NOT_FOUND"),
    "private name": (post("/actions/__class__", {}), 404, "NOT_FOUND"),
    "unsafe GET": (b"GET /actions/fail HTTP/1.1\r\nhost: localhost\r\n\r\n", 405, "METHOD_NOT_ALLOWED"),
    "PUT": (post("/actions/echo", {}).replace(b"POST", b"PUT", 1), 405, "METHOD_NOT_ALLOWED"),
    "GET of calls": (b"GET /rpc HTTP/1.1\r\nhost: localhost\r\n\r\n", 405, "METHOD_NOT_ALLOWED"),
    "no type": (post("/actions/echo", {}, content_type=""), 415, "UNSUPPORTED_MEDIA_TYPE"),
    "form": (
        post("/actions/echo", b"a=1", content_type="application/x-www-form-urlencoded"),
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    ),
    "text": (post("/actions/echo", {}, content_type="text/plain"), 415, "UNSUPPORTED_MEDIA_TYPE"),
    "text that says JSON": (
        post("/actions/echo", {}, content_type="text/plain; application/json"),
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    ),
    "like JSON": (post("/actions/echo", {}, content_type="application/jsonp"), 415, "UNSUPPORTED_MEDIA_TYPE"),
    "two types": (
        post("/actions/echo", {}, content_type="application/json, text/plain"),
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    ),
    "latin-1": (
        post("/actions/echo", {}, content_type="application/json; charset=latin-1"),
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    ),
    "two charsets": (
        post("/actions/echo", {}, content_type="application/json; charset=utf-8; charset=utf-16"),
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    ),
    "broken parameter": (
        post("/actions/echo", {}, content_type='application/json; charset="utf-8'),
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    ),
    "text of a call": (post("/rpc", {}, content_type="text/plain"), 415, "UNSUPPORTED_MEDIA_TYPE"),
    "too large": (post("/actions/echo", {"a": "x" * 2000}), 413, "PAYLOAD_TOO_LARGE"),
    "a call too large": (post("/rpc", {"a": "x" * 2000}), 413, "PAYLOAD_TOO_LARGE"),
    "no JSON": (post("/actions/echo", b"{'a': 1}"), 400, "INVALID_JSON"),
    "half of JSON": (post("/actions/echo", b'{"a": '), 400, "INVALID_JSON"),
    "JSON and more": (post("/actions/echo", b"{} {}"), 400, "INVALID_JSON"),
    "NaN": (post("/actions/echo", b"NaN"), 400, "INVALID_JSON"),
    "a number too large": (post("/actions/echo", b"1e400"), 400, "INVALID_JSON"),
    "digits": (post("/actions/echo", b"9" * 1500), 400, "INVALID_JSON"),
    "depth": (post("/actions/echo", b"[" * 500 + b"]" * 500), 400, "INVALID_JSON"),
    "no UTF-8": (post("/actions/echo", b'"\xff"'), 400, "INVALID_JSON"),
    "half of a character": (post("/actions/echo", '"猫"'.encode()[:-2] + b'"'), 400, "INVALID_JSON"),
    "byte order mark": (post("/actions/echo", b"\xef\xbb\xbf{}"), 400, "INVALID_JSON"),
    "only blanks": (post("/actions/echo", b" \n"), 400, "INVALID_JSON"),
    "invalid": (post("/actions/ask", {"text": 7}), 422, "VALIDATION_ERROR"),
    "invalid query": (
        b"GET /actions/ask?times=x HTTP/1.1\r\nhost: localhost\r\n\r\n",
        422,
        "VALIDATION_ERROR",
    ),
    "query without UTF-8": (
        b"GET /actions/ask?text=%FF HTTP/1.1\r\nhost: localhost\r\n\r\n",
        422,
        "VALIDATION_ERROR",
    ),
    "too many fields": (
        b"GET /actions/ask?" + b"&a=1" * 2000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
        422,
        "VALIDATION_ERROR",
    ),
    "middleware": (post("/actions/private", {}), 401, "NO_USER"),
    "middleware that breaks": (post("/actions/private", {}, x_user="broken"), 500, "STREAM_ERROR"),
}


@pytest.mark.parametrize(("request_", "status", "code"), BROKEN.values(), ids=list(BROKEN))
async def test_a_request_is_refused(url: str, request_: bytes, status: int, code: str) -> None:
    """HTTP-5, HTTP-6, HTTP-7, ACT-3, ACT-11: the status, and the error object as JSON."""
    http = await refused(url, request_, status, code)
    assert ("allow" in http.headers) == (status == 405)
    assert b"swordfish" not in http.body


async def test_every_field_that_is_wrong_is_named(url: str) -> None:
    """ACT-5."""
    request = post("/actions/ask", {"text": 7, "times": "x"})
    found = json.loads((await refused(url, request, 422, "VALIDATION_ERROR")).body)
    assert found["message"] == "Input validation failed"
    assert sorted(found["fieldErrors"]) == ["text", "times"]


async def test_nothing_runs_after_a_refusal(url: str, more: More) -> None:
    """ACT-2, ACT-3."""
    before = more.ran
    await refused(url, post("/actions/private", {}), 401, "NO_USER")
    assert more.ran == before


@pytest.mark.parametrize(
    ("accept", "as_event"),
    [
        ("text/event-stream", True),
        ("application/json, Text/Event-Stream;q=0.5", True),
        ("text/event-stream;charset=utf-8", True),
        ("text/event-stream;q=0", False),
        ("text/event-stream;q=0.000, */*", False),
        ("*/*", False),
        ("text/*", False),
        ("text/event-streams", False),
        ("", False),
    ],
)
async def test_who_accepts_event_streams_gets_an_event(url: str, accept: str, as_event: bool) -> None:
    """SSE-8: with the same status."""
    with anyio.fail_after(BOUND):
        async with connected(url) as http:
            await http.send(post("/actions/nothing", {}, accept=accept))
            assert await http.begun() == 404
            body = await http.whole()
            error = b'{"code":"NOT_FOUND","message":"There is no action of that name","statusCode":404}'
            assert body == (b"event: error\ndata: " + error + b"\n\n" if as_event else error)
            kind = "text/event-stream; charset=utf-8" if as_event else JSON
            assert http.headers["content-type"] == kind


@pytest.mark.parametrize(
    "kind",
    [
        "application/json;charset=UTF-8",
        'Application/JSON ; charset="utf-8"',
        "application/json; q=1; charset=utf8",
        "application/json;",
        'application/json; profile="a;\\"b"',
    ],
)
async def test_parameters_of_the_type_are_fine(url: str, kind: str) -> None:
    """HTTP-5."""
    with anyio.fail_after(BOUND):
        async with connected(url) as http:
            await http.send(post("/actions/echo", {}, content_type=kind))
            assert await http.begun() == 200


async def test_what_comes_is_counted_where_nothing_was_announced(url: str) -> None:
    """HTTP-6: in chunks of HTTP, whose number nobody knows before."""
    head = post("/actions/echo", b"", content_length="", transfer_encoding="chunked")
    with anyio.fail_after(BOUND):
        async with connected(url) as http:
            await http.send(head + b'2\r\n"x\r\n' + b"64\r\n" + b"x" * 100 + b'\r\n1\r\n"\r\n0\r\n\r\n')
            assert await http.begun() == 200
            assert await http.whole() == b'data: "' + b"x" * 101 + b'"\n\nevent: done\ndata: {}\n\n'
    chunk = b"3e8\r\n" + b"x" * 1000 + b"\r\n"
    await refused(url, head + chunk * 3 + b"0\r\n\r\n", 413, "PAYLOAD_TOO_LARGE")


async def test_an_endless_body_does_not_keep_the_answer_from_coming(url: str) -> None:
    """HTTP-6: some of it is read and dropped, then the connection is closed."""
    head = post("/actions/echo", b"", content_length="", transfer_encoding="chunked")
    with anyio.fail_after(BOUND):
        async with connected(url) as http, anyio.create_task_group() as tasks:

            async def pour() -> None:
                try:
                    await http.send(head)
                    while True:
                        await http.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                except anyio.BrokenResourceError:
                    pass

            tasks.start_soon(pour)
            assert await http.begun() == 413
            assert http.headers["connection"] == "close"
            assert json.loads(await http.whole())["code"] == "PAYLOAD_TOO_LARGE"
            tasks.cancel_scope.cancel()


async def test_who_waits_for_leave_to_send_is_refused_first(url: str) -> None:
    """RFC 9110, 10.1.1: a body that nobody wants need not be sent."""
    with anyio.fail_after(BOUND):
        async with connected(url) as http:
            await http.send(post("/actions/nothing", b"", content_length="1000", expect="100-continue"))
            if await http.begun() == 100:  # hypercorn says so by itself
                assert await http.begun() == 404
            else:
                assert http.head.startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("path", ["/actions/echo", "/rpc"])
async def test_a_body_that_is_announced_too_large_is_not_waited_for(url: str, path: str) -> None:
    """HTTP-6: whoever says how much it will be is refused before any of it has come."""
    with anyio.fail_after(BOUND):
        async with connected(url) as http:
            await http.send(post(path, b"", content_length="2001", expect="100-continue"))
            status = await http.begun()
            if status == 100:  # hypercorn says so by itself
                status = await http.begun()
            assert status == 413


async def test_a_body_on_the_way_does_not_hold_up_a_refusal_for_ever(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP-6: half a body, and then nothing more."""
    monkeypatch.setattr("kkrpc_py.web.answers._LINGER_SECONDS", 0.05)
    monkeypatch.setattr("kkrpc_py.web.body.BODY_SECONDS", 0.05)
    async with Site().served(server) as url:
        for request, status in (
            (post("/actions/nothing", b'{"a', content_length="100"), 404),
            (post("/actions/echo", b'{"a', content_length="100"), 408),
        ):
            async with connected(url) as http:
                await http.send(request)
                assert await http.begun() == status
                assert http.headers["connection"] == "close"
                await http.whole()
                assert await http.closed()


async def test_a_call_is_answered(url: str) -> None:
    """HTTP-8."""
    async with httpx.AsyncClient() as client:
        message = {"id": "1", "method": "add", "args": [2, 3], "type": "request", "version": "json"}
        answer = await client.post(f"{url}/rpc", json=message)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == JSON
        assert answer.json()["args"] == {"result": 5}
        assert (await client.options(f"{url}/rpc")).headers["allow"] == "POST, OPTIONS"


async def test_streams_at_once_are_bounded(server: str) -> None:
    """SSE-9: 503 and when to try again; a place that was left is free again."""
    site = Site()
    async with site.served(server, max_streams=2) as url:
        async with connected(url) as one, connected(url) as two:
            for http in (one, two):
                await http.send(post("/actions/forever", {"key": "x"}))
                assert await http.begun() == 200
            http = await refused(url, post("/actions/echo", {}), 503, "TOO_MANY_STREAMS")
            assert http.headers["retry-after"] == "1"
        await site.watch.until(lambda: not site.watch.running)
        async with connected(url) as http:
            while True:
                await http.send(post("/actions/echo", {}))
                if await http.begun() == 200:
                    break
                await http.whole()
                http.body, http.ended = b"", False


async def test_a_replay_window_needs_the_lifespan(server: str, caplog: pytest.LogCaptureFixture) -> None:
    """A fault of the program that serves: its log says what is missing, and nothing has run."""
    more = More()
    inner = asgi_app(actions=[more.kept], hosts=["*"])
    with anyio.fail_after(BOUND):
        async with serving(Starlette(routes=[Mount("/in", inner)]), server=server) as url:
            http = await refused(url, post("/in/actions/kept", {}), 500, "STREAM_ERROR")
            assert b"lifespan" not in http.body
        assert "needs the lifespan of its application" in caplog.text
        assert more.ran == 0


async def test_mounted_in_another_application_it_works_with_its_lifespan(server: str) -> None:
    more = More()
    inner = asgi_app(actions=[more.kept])
    outer = Starlette(routes=[Mount("/in", inner)], lifespan=lambda app: inner.router.lifespan_context(inner))
    with anyio.fail_after(BOUND):
        async with serving(outer, server=server) as url, httpx.AsyncClient() as client:
            answer = await client.post(f"{url}/in/actions/kept", json={})
            assert answer.status_code == 200
            assert more.ran == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"actions": [len]}, TypeError),
        ({"actions": {1: len}}, TypeError),
        ({"actions": {"a/b": More().kept}}, ValueError),
        ({"actions": {"": More().kept}}, ValueError),
        ({"actions": [More().kept, More().kept]}, ValueError),
        ({"actions": [More.kept]}, TypeError),
        ({"hosts": "localhost"}, TypeError),
        ({"hosts": ["http://localhost"]}, ValueError),
        ({"origins": ["example.org"]}, ValueError),
        ({"keep_alive": 0}, ValueError),
        ({"max_streams": 0}, ValueError),
        ({"max_body": 1.5}, ValueError),
        ({"resume_seconds": -1}, ValueError),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value.__name__,
)
def test_wrong_options_are_refused_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        asgi_app(**options)
