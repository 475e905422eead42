"""What an HTTP request says before it becomes a WebSocket, and whether it may come from where it does.

Owns what an authentication hook sees, and the judgement of Host, Origin and hook, which is the same for HTTP
and for WebSocket (HTTP-1, HTTP-2, HTTP-4). It reads no socket and sends no answer.

Why both are judged: a page of a foreign origin may open a WebSocket to this machine and read what comes
(RFC 6455, 10.2), and a foreign name that resolves to this machine's address makes such a page one of the
same origin (DNS rebinding); then the Host header has the foreign name.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from types import SimpleNamespace
from typing import Final, NamedTuple, TypeAlias

import anyio

from kkrpc_py.errors import ActionError
from kkrpc_py.transports.cancelled import is_cancelled

__all__ = [
    "HOOK_SECONDS",
    "LOCAL_HOSTS",
    "Authenticate",
    "HandshakeRefused",
    "HandshakeRequest",
    "ask_hook",
    "check_hook",
    "check_names",
    "headers_of",
    "host_allowed",
    "judge",
    "note_refused",
    "origin_allowed",
    "same_origin",
]

LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")
"""The names under which this machine reaches itself: the default of whoever asks for allowed hosts."""

HOOK_SECONDS: Final = 8.0
"""What an authentication hook may take. A client that waits for longer is gone most often."""

ANY: Final = "*"

_SHOWN: Final = 100
_MOST_NOTED: Final = 50

_log = logging.getLogger("kkrpc_py.server")
_noted: set[tuple[str, str]] = set()
"""What the log was told of already."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
# A name or address and a port (RFC 9110, 7.2). Neither holds what would end it elsewhere in a URL.
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^][:/?#@\\\s,]+)(?::(?P<port>[0-9]{0,5}))?", re.IGNORECASE)
_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>.+)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeRequest:
    """What is known of a client before anything of it is served."""

    headers: Mapping[str, str]
    """The header fields: names in lower case; several values of one name with ", " between."""
    path: str
    """The path that was asked for, percent-decoded, without the query."""
    query: str = ""
    """The query as it came, without its question mark."""
    client: str | None = None
    """The client's address without its port, where it is known: a proxy's, if there is one."""
    state: SimpleNamespace = dataclasses.field(default_factory=SimpleNamespace)
    """For the hook to fill: becomes `state` of the channel that serves the client."""


class HandshakeRefused(ConnectionError):
    """The server did not open a WebSocket.

    `status` is its HTTP status and `body` what it said with it; None and empty where it spoke no HTTP.
    """

    def __init__(self, message: str, *, status: int | None = None, body: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.body = body


Authenticate: TypeAlias = Callable[[HandshakeRequest], Awaitable[bool]]
"""Decides whether to serve a client: False refuses it before any call, with 403. An `ActionError` that it
raises refuses it as it says; anything else is logged, and refuses it with 500."""


async def judge(
    request: HandshakeRequest,
    *,
    hosts: Collection[str],
    origins: Collection[str],
    authenticate: Authenticate | None,
    secure: bool,
) -> ActionError | None:
    """Why this client is not served; None where it is. The hook is asked last.

    :param secure: as for `origin_allowed`.
    """
    if not host_allowed(request.headers, hosts):
        note_refused("hosts", request.headers.get("host"))
        return ActionError("FORBIDDEN_HOST", "This host is not served here", 400)
    if not origin_allowed(request.headers, origins, secure=secure):
        note_refused("origins", request.headers.get("origin"))
        return ActionError("FORBIDDEN_ORIGIN", "This origin is not allowed here", 403)
    return None if authenticate is None else await ask_hook(authenticate, request)


async def ask_hook(authenticate: Authenticate, request: HandshakeRequest) -> ActionError | None:
    """Why the hook does not want this client; None where it does. It has `HOOK_SECONDS`."""
    try:
        with anyio.move_on_after(HOOK_SECONDS):
            allowed = await authenticate(request)
            return None if allowed else ActionError("FORBIDDEN", "Not allowed", 403)
    except ActionError as refusal:
        return refusal
    except (Exception, asyncio.CancelledError) as exc:
        if is_cancelled(exc):
            raise
        _log.exception("the authentication hook failed")
        return ActionError("INTERNAL_ERROR", "Authentication failed unexpectedly", 500)
    _log.error("the authentication hook took more than %g s", HOOK_SECONDS)
    return ActionError("INTERNAL_ERROR", "Authentication took too long", 503)


class _Place(NamedTuple):
    """A host and its port, as two of them are compared."""

    name: str
    port: int | None


def headers_of(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Header fields as a mapping from lower-case names (RFC 9110, 5.2).

    Over HTTP/2 each cookie may have a field of its own, and what joins them is a semicolon (RFC 9113, 8.2.3).
    """
    headers: dict[str, str] = {}
    for name, value in fields:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        if key in headers:
            text = f"{headers[key]}{'; ' if key == 'cookie' else ', '}{text}"
        headers[key] = text
    return headers


def check_names(what: str, names: Collection[str]) -> None:
    """Raise TypeError for one string where several names are meant, ValueError for no name at all.

    `what` is "hosts" or "origins".
    """
    if isinstance(names, str):
        raise TypeError(f"{what} are several, such as [{names!r}]")
    for name in names:
        if name == ANY or (what == "origins" and name == "null"):
            continue
        if (_origin(name) if what == "origins" else _place(_bracketed(name))) is None:
            example = "https://example.org" if what == "origins" else "example.org"
            raise ValueError(f"{what} are such as {example!r}, not {name!r}")


def note_refused(what: str, name: str | None) -> None:
    """Tell the log of a host or origin that is not served, once each: whoever deploys may have forgotten it.

    `what` is "hosts" or "origins". Of what clients send no more than so many names, and so much of each.
    """
    shown = repr(name)[:_SHOWN]
    if (what, shown) not in _noted and len(_noted) < _MOST_NOTED:
        _noted.add((what, shown))
        _log.warning("refused: %s is not among `%s`", shown, what)


def check_hook(authenticate: Authenticate | None) -> None:
    """Raise TypeError for what cannot be asked."""
    if authenticate is not None and not callable(authenticate):
        raise TypeError(f"authenticate is an async function of a HandshakeRequest, not {authenticate!r}")


def host_allowed(headers: Mapping[str, str], hosts: Collection[str]) -> bool:
    """Whether the Host header names one of `hosts`; ports do not count, nor does case. "*" allows all.

    A request without one, or with several, names none (RFC 9112, 3.2).
    """
    if ANY in hosts:
        return True
    asked = _place(headers.get("host", ""))
    return asked is not None and any(_name(_bracketed(host)) == asked.name for host in hosts)


def origin_allowed(headers: Mapping[str, str], origins: Collection[str], *, secure: bool) -> bool:
    """Whether a page of this Origin may come: one of the same origin, or of one of `origins`. "*" allows all.

    :param secure: the request came over TLS. Behind a proxy that ends TLS it has to say so
        (`X-Forwarded-Proto`), or the origin has to be among `origins`.

    Without the header it is no page of a browser, and allowed. "null" has to be among `origins`.
    """
    origin = headers.get("origin")
    if origin is None or ANY in origins or same_origin(headers, secure=secure):
        return True
    if origin in origins:
        return True
    asked = _origin(origin)
    return asked is not None and any(_origin(each) == asked for each in origins)


def same_origin(headers: Mapping[str, str], *, secure: bool) -> bool:
    """Whether the Origin is the one that this request was sent to: scheme, host and port (RFC 6454, 5)."""
    scheme = "https" if secure else "http"
    asked = _origin(headers.get("origin", ""))
    here = _place(headers.get("host", ""), scheme)
    return asked is not None and here is not None and asked == (scheme, here)


def _origin(text: str) -> tuple[str, _Place] | None:
    """An origin's scheme, and its host and port; None where it has none, as "null" and what is broken."""
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme = match["scheme"].lower()
    place = _place(match["host"], scheme)
    return None if place is None else (scheme, place)


def _place(text: str, scheme: str = "") -> _Place | None:
    match = _HOST.fullmatch(text)
    if match is None:
        return None
    port = int(match["port"]) if match["port"] else _DEFAULT_PORTS.get(scheme)
    return _Place(match["name"].lower(), port)


def _name(text: str) -> str | None:
    place = _place(text)
    return None if place is None else place.name


def _bracketed(host: str) -> str:
    """An IPv6 address as it stands in a Host header."""
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host
