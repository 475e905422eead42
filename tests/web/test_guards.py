"""Host, Origin, CORS and the application's hook, over HTTP (HTTP-1 to HTTP-4)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

import kkrpc_py as kk
from kkrpc_py.transports.handshake import HandshakeRequest
from tests.web.backends import anyio_backend, server, under
from tests.web.raw import Raw, connected, post
from tests.web.servers import serving
from tests.web.site import BOUND, Site

__all__ = ["anyio_backend", "server", "under"]

pytestmark = pytest.mark.anyio

FRIEND = "https://friend.example"


class Hooked:
    """An action that says what the hook has left, and the hook."""

    asked = 0

    async def authenticate(self, request: HandshakeRequest) -> bool:
        self.asked += 1
        token = request.headers.get("authorization")
        if token == "broken":
            raise ValueError("the password is swordfish")
        if token == "choosy":
            raise kk.ActionError("EXPIRED", "Log in again", 401)
        request.state.user = token
        return token != "stranger"

    @kk.stream_action(safe=True)
    async def who(self, input: Any, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        await stream.send(getattr(ctx.state, "user", None))


@pytest.fixture(scope="module")
def hooked() -> Hooked:
    return Hooked()


@pytest.fixture(scope="module")
async def url(anyio_backend: Any, server: str, hooked: Hooked) -> AsyncIterator[str]:
    options: dict[str, Any] = {
        "hosts": ["localhost", "127.0.0.1", "::1", "app.example"],
        "origins": [FRIEND, "http://dev.example:3000"],
        "authenticate": hooked.authenticate,
        "actions": {"who": hooked.who},
    }
    async with Site().served(server, bound=None, **options) as url:
        yield url


async def answered(url: str, request: bytes) -> Raw:
    with anyio.fail_after(BOUND):
        async with connected(url) as http:
            await http.send(request)
            await http.begun()
            await http.whole()
            return http


def status(http: Raw) -> int:
    return int(http.head.split(b" ")[1])


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("LocalHost:8000", True),
        ("127.0.0.1:1", True),
        ("[::1]:8000", True),
        ("app.example", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("evil.example:80@localhost", False),
        ("localhost, evil.example", False),
        ("notlocalhost", False),
        ("127.0.0.2", False),
        ("app.example.", False),
    ],
)
async def test_host(url: str, host: str, allowed: bool) -> None:
    """HTTP-1."""
    http = await answered(url, post("/actions/who", host=host))
    assert status(http) == (200 if allowed else 400)
    assert allowed or json.loads(http.body)["code"] == "FORBIDDEN_HOST"


async def test_no_host_and_two_of_them(url: str) -> None:
    """HTTP-1: the servers may refuse these by themselves (RFC 9112, 3.2)."""
    for lines in ("", "host: localhost\r\nhost: evil.example\r\n", "host: \r\n"):
        http = await answered(url, f"GET /actions/who HTTP/1.1\r\n{lines}\r\n".encode())
        assert status(http) == 400
    http = await answered(url, b"GET /actions/who HTTP/1.0\r\n\r\n")
    assert status(http) == 400


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("http://localhost:8000", "localhost:8000", True),
        ("http://localhost", "localhost:80", True),
        (FRIEND, "localhost", True),
        ("HTTPS://Friend.example:443", "localhost", True),
        ("http://dev.example:3000", "localhost", True),
        ("https://localhost:8000", "localhost:8000", False),
        ("http://localhost:8001", "localhost:8000", False),
        ("http://app.example", "localhost", False),
        ("http://friend.example", "localhost", False),
        ("https://friend.example.evil.example", "localhost", False),
        ("http://dev.example", "localhost", False),
        ("null", "localhost", False),
        ("evil", "localhost", False),
        (f"{FRIEND}, {FRIEND}", "localhost", False),
    ],
)
async def test_origin(url: str, origin: str, host: str, allowed: bool) -> None:
    """HTTP-2, and HTTP-3: an origin that is not allowed is not named."""
    http = await answered(url, post("/actions/who", host=host, origin=origin))
    assert status(http) == (200 if allowed else 403)
    assert allowed or json.loads(http.body)["code"] == "FORBIDDEN_ORIGIN"
    same = origin.removesuffix(":80") == f"http://{host.removesuffix(':80')}"
    named = origin if allowed and not same else None
    assert http.headers.get("access-control-allow-origin") == named
    assert "access-control-allow-credentials" not in http.headers


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [("https://localhost", True), ("https://localhost:443", True), ("http://localhost", False)],
)
async def test_the_same_origin_behind_tls(server: str, origin: str, allowed: bool) -> None:
    """HTTP-2: where a proxy has ended TLS, and what speaks for it has said so."""
    inner = Site().app()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["scheme"] = "https"
        await inner(scope, receive, send)

    async with serving(app, server=server) as secure:
        http = await answered(secure, post("/actions/echo", {}, origin=origin))
    assert status(http) == (200 if allowed else 403)


async def test_what_a_friend_may_read_of_a_refusal(url: str) -> None:
    """HTTP-3."""
    http = await answered(url, post("/actions/nothing", origin=FRIEND))
    assert status(http) == 404
    assert http.headers["access-control-allow-origin"] == FRIEND
    assert "origin" in http.headers["vary"].lower()


def preflight(origin: str, method: str = "POST", headers: str = "") -> bytes:
    lines = f"host: localhost\r\norigin: {origin}\r\naccess-control-request-method: {method}\r\n"
    if headers:
        lines += f"access-control-request-headers: {headers}\r\n"
    return f"OPTIONS /actions/who HTTP/1.1\r\n{lines}\r\n".encode()


async def test_preflight(url: str, hooked: Hooked) -> None:
    """HTTP-3: of an allowed origin; it comes without what a hook would ask for (Fetch, 4.8)."""
    before = hooked.asked
    http = await answered(url, preflight(FRIEND, headers="content-type,last-event-id,authorization"))
    assert status(http) == 200
    assert http.headers["access-control-allow-origin"] == FRIEND
    assert "POST" in http.headers["access-control-allow-methods"]
    assert "last-event-id" in http.headers["access-control-allow-headers"]
    assert hooked.asked == before
    http = await answered(url, preflight(FRIEND, method="DELETE"))
    assert (status(http), json.loads(http.body)["code"]) == (405, "METHOD_NOT_ALLOWED")
    http = await answered(url, preflight("https://evil.example"))
    assert (status(http), json.loads(http.body)["code"]) == (403, "FORBIDDEN_ORIGIN")
    assert "access-control-allow-origin" not in http.headers


async def test_the_hook(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """HTTP-4: it says no; it fails; it refuses in its own words; it leaves something for the handlers."""
    http = await answered(url, post("/actions/who", authorization="stranger"))
    assert (status(http), json.loads(http.body)["code"]) == (403, "FORBIDDEN")
    http = await answered(url, post("/actions/who", authorization="broken"))
    assert status(http) == 500
    assert b"swordfish" not in http.body
    assert "swordfish" in caplog.text
    http = await answered(url, post("/actions/who", authorization="choosy"))
    assert (status(http), json.loads(http.body)["code"]) == (401, "EXPIRED")
    http = await answered(url, post("/actions/who", authorization="ann"))
    assert http.body == b'data: "ann"\n\nevent: done\ndata: {}\n\n'


async def test_the_order_of_the_questions(url: str, hooked: Hooked) -> None:
    """HTTP-1 to HTTP-4: Host, Origin, the hook, and only then what is asked for."""
    request: dict[str, str] = {"host": "evil.example", "origin": "null", "authorization": "stranger"}
    codes: list[str] = []
    asked = hooked.asked
    for fixed in ("host", "origin", "authorization", None):
        http = await answered(url, post("/actions/nothing", **request))
        codes.append(json.loads(http.body)["code"])
        if fixed == "host":
            request["host"] = "localhost"
        elif fixed is not None:
            del request[fixed]
    assert codes == ["FORBIDDEN_HOST", "FORBIDDEN_ORIGIN", "FORBIDDEN", "NOT_FOUND"]
    assert hooked.asked == asked + 2


async def test_any_host_and_any_origin(server: str) -> None:
    async with Site().served(server, hosts=["*"], origins=["*"]) as url:
        http = await answered(url, post("/actions/echo", host="anything", origin="null"))
        assert status(http) == 200
        assert http.headers["access-control-allow-origin"] == "null"


async def test_a_hook_that_takes_too_long(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP-4."""
    monkeypatch.setattr("kkrpc_py.transports.handshake.HOOK_SECONDS", 0.02)

    async def slow(request: HandshakeRequest) -> bool:
        await anyio.sleep_forever()
        return True

    async with Site().served(server, authenticate=slow) as url:
        assert status(await answered(url, post("/actions/echo"))) == 503


async def test_a_websocket_that_is_added_is_guarded_too(server: str) -> None:
    """HTTP-1, HTTP-2, TRN-7."""

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    app = Site().app()
    app.routes.append(WebSocketRoute("/extra", socket))
    upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    upgrade += "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    with anyio.fail_after(BOUND):
        async with serving(app, server=server) as url:
            for host, origin, expected in (
                ("evil.example", "http://evil.example", 400),
                ("localhost", "http://evil.example", 403),
                ("localhost", "http://localhost", 101),
            ):
                async with connected(url) as http:
                    fields = f"host: {host}\r\norigin: {origin}\r\n"
                    await http.send(f"GET /extra HTTP/1.1\r\n{fields}{upgrade}\r\n".encode())
                    assert await http.begun() == expected


async def test_routes_that_are_added_are_guarded_too_but_not_by_the_hook(server: str) -> None:
    async def page(request: object) -> PlainTextResponse:
        return PlainTextResponse("a page")

    async def nobody(request: HandshakeRequest) -> bool:
        return False

    async def teapot(request: object) -> PlainTextResponse:
        raise HTTPException(418, "I am one", {"x-kind": "tea"})

    async def broken(request: object) -> PlainTextResponse:
        raise HTTPException(299, "no error")

    app = Site().app(authenticate=nobody)
    app.routes.extend([Route("/", page), Route("/teapot", teapot), Route("/broken", broken)])
    with anyio.fail_after(BOUND):
        async with serving(app, server=server) as url:
            request = "GET / HTTP/1.1\r\nhost: {}\r\n\r\n"
            assert (await answered(url, request.format("localhost").encode())).body == b"a page"
            assert status(await answered(url, request.format("evil.example").encode())) == 400
            assert status(await answered(url, post("/actions/echo"))) == 403
            http = await answered(url, b"GET /teapot HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert json.loads(http.body) == {"code": "HTTP_418", "message": "I am one", "statusCode": 418}
            assert http.headers["x-kind"] == "tea"
            assert status(await answered(url, b"GET /broken HTTP/1.1\r\nhost: localhost\r\n\r\n")) == 500
            assert status(await answered(url, post("/teapot"))) == 405
