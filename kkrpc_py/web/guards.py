"""Where a request may come from: Host, Origin, CORS, and the application's own hook (HTTP-1 to HTTP-4).

Who judges is `transports.handshake`; this has the ASGI side of it. Host and Origin are judged for whatever an
application serves, the hook is asked for what stands behind `Authenticated`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kkrpc_py.errors import ActionError
from kkrpc_py.transports.handshake import (
    Authenticate,
    HandshakeRequest,
    ask_hook,
    check_hook,
    check_names,
    headers_of,
    judge,
    same_origin,
)
from kkrpc_py.web.answers import refusal, refuse, refuse_socket

__all__ = ["Authenticated", "Guard", "request_of"]

_REQUEST: Final = "kkrpc_py.request"
_METHODS = ("GET", "HEAD", "POST")


class Guard:
    """Middleware for a whole application. Raises TypeError and ValueError for names that are none."""

    def __init__(self, app: ASGIApp, hosts: Collection[str], origins: Collection[str]) -> None:
        check_names("hosts", hosts)
        check_names("origins", origins)
        self._app = app
        self._hosts = tuple(hosts)
        self._origins = tuple(origins)
        self._cross_origin = _CrossOrigin(app, allow_methods=_METHODS, allow_headers=("*",))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        request = scope[_REQUEST] = HandshakeRequest(
            headers=headers_of(scope["headers"]),
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            client=client[0] if client else None,
        )
        secure = scope["scheme"] in ("https", "wss")
        refused = await judge(
            request, hosts=self._hosts, origins=self._origins, authenticate=None, secure=secure
        )
        if scope["type"] == "websocket":
            if refused is None:
                await self._app(scope, receive, send)
            else:
                await receive()  # that somebody wants to connect
                await refuse_socket(refused, scope, send)
        elif refused is not None:
            await refuse(refused, scope, receive, send)
        elif "origin" in request.headers and not same_origin(request.headers, secure=secure):
            await self._cross_origin(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class _CrossOrigin(CORSMiddleware):
    """For origins that were found to be allowed: each is named, and so is what it may read (HTTP-3)."""

    def __init__(self, app: ASGIApp, **options: Any) -> None:
        super().__init__(app, expose_headers=("Retry-After",), allow_private_network=True, **options)

    def is_allowed_origin(self, origin: str) -> bool:
        return True

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        error = ActionError("METHOD_NOT_ALLOWED", "This method is not for here", 405)
        named = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return refusal(error, request_headers, {**named, "Allow": ", ".join(_METHODS)})


class Authenticated:
    """What stands before an endpoint: the application's hook."""

    def __init__(self, app: ASGIApp, authenticate: Authenticate | None) -> None:
        check_hook(authenticate)
        self._app = app
        self._authenticate = authenticate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = None
        if self._authenticate is not None:
            refused = await ask_hook(self._authenticate, request_of(scope))
        if refused is None:
            await self._app(scope, receive, send)
        else:
            await refuse(refused, scope, receive, send)


def request_of(scope: Scope) -> HandshakeRequest:
    """What the `Guard` has made known."""
    request: HandshakeRequest = scope[_REQUEST]
    return request
