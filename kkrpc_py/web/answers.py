"""Refusals: the answer to a request that is not served (HTTP-7, SSE-8).

It owns their shape and the way to send one while the request's body is still coming.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from anyio import create_task_group, move_on_after
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kkrpc_py.errors import ActionError
from kkrpc_py.transports.handshake import headers_of
from kkrpc_py.web.encoding import error_event, error_json

__all__ = ["TOO_MANY_STREAMS", "on_http_exception", "on_unexpected", "refusal", "refuse", "refuse_socket"]

TOO_MANY_STREAMS: Final = "TOO_MANY_STREAMS"
_EVENT_STREAM = "text/event-stream"
_REFUSING = "websocket.http.response"
"""The extension of ASGI by which a WebSocket is refused with a status and a body."""
_LINGER_BYTES = 4 << 20
_LINGER_SECONDS = 2.0
_RETRY_SECONDS = 1
_PHRASES = {
    404: ActionError("NOT_FOUND", "There is nothing here", 404),
    405: ActionError("METHOD_NOT_ALLOWED", "This method is not for here", 405),
}


def refusal(
    error: ActionError, request_headers: Mapping[str, str], headers: Mapping[str, str] | None = None
) -> Response:
    """The answer: an event where the request's Accept names event streams, else the error object."""
    extra = {"Cache-Control": "no-store", **(headers or {})}
    if error.code == TOO_MANY_STREAMS:
        extra["Retry-After"] = str(_RETRY_SECONDS)
    if _names_event_stream(request_headers.get("accept", "")):
        return Response(error_event(error), error.status, extra, _EVENT_STREAM)
    return Response(error_json(error), error.status, extra, "application/json")


async def refuse(
    error: ActionError,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    headers: Mapping[str, str] | None = None,
    read: bool = False,
) -> None:
    """Answer with an error; `read` says that the body was read to its end.

    Of a body that is still coming some is read and dropped: who closes a connection with bytes unread resets
    it, and its client may never see the answer. hypercorn would wait for ever for somebody to read.
    """
    request_headers = headers_of(scope["headers"])
    response = refusal(error, request_headers, headers)
    if read or request_headers.get("expect", "").lower() == "100-continue" or await _discarded(receive):
        await response(scope, receive, send)
        return
    if scope["http_version"] in ("1.0", "1.1"):
        response.headers["Connection"] = "close"
    async with create_task_group() as tasks:
        tasks.start_soon(_discard, receive)
        await response(scope, receive, send)
        tasks.cancel_scope.cancel()


async def refuse_socket(refusal: ActionError, scope: Scope, send: Send) -> None:
    """Refuse a WebSocket that has not been accepted, with a status and a body where the server can."""
    if _REFUSING not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close"})  # which the server makes a 403 of
        return
    body = error_json(refusal)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": f"{_REFUSING}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{_REFUSING}.body", "body": body})


async def _discarded(receive: Receive) -> bool:
    """Whether the rest of the body has come, or the client has gone, within bounds of time and size."""
    room = _LINGER_BYTES
    with move_on_after(_LINGER_SECONDS):
        while room > 0:
            message = await receive()
            if not message.get("more_body", False):
                return True
            room -= len(message.get("body", b""))
    return False


async def _discard(receive: Receive) -> None:
    while (await receive()).get("more_body", False):
        pass


def _names_event_stream(accept: str) -> bool:
    """Whether an Accept header has that type itself, with a weight above zero (RFC 9110, 12.5.1)."""
    for part in accept.split(","):
        name, *parameters = (each.strip().lower() for each in part.split(";"))
        if name == _EVENT_STREAM:
            return not any(each.startswith("q=") and not each[2:].strip("0.") for each in parameters)
    return False


async def on_http_exception(request: Request, exc: Exception) -> Response:
    """What starlette refuses by itself, in the same shape; to be given to it as a handler of exceptions."""
    assert isinstance(exc, HTTPException)
    error = _PHRASES.get(exc.status_code)
    if error is None:
        status = exc.status_code if 400 <= exc.status_code <= 599 else 500
        error = ActionError(f"HTTP_{status}", exc.detail, status)
    return refusal(error, headers_of(request.scope["headers"]), exc.headers)


async def on_unexpected(request: Request, exc: Exception) -> Response:
    """The answer to a fault; the server's log has the rest."""
    return refusal(ActionError.unexpected(), headers_of(request.scope["headers"]))
