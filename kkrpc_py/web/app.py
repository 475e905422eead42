"""`asgi_app`: everything that is served over HTTP, as one application for any ASGI server.

This module owns its options and its paths.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Unpack

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route, WebSocketRoute

from kkrpc_py.actions.action import action_of
from kkrpc_py.actions.running import BoundAction
from kkrpc_py.channel.options import ServeOptions
from kkrpc_py.limits import Limits
from kkrpc_py.transports.handshake import LOCAL_HOSTS, Authenticate
from kkrpc_py.web.answers import on_http_exception, on_unexpected
from kkrpc_py.web.body import InputReader
from kkrpc_py.web.encoding import ValueWriter
from kkrpc_py.web.endpoints import ActionEndpoint, CallEndpoint
from kkrpc_py.web.guards import Authenticated, Guard
from kkrpc_py.web.streams import Streams

__all__ = ["asgi_app"]


def asgi_app(
    api: Any = None,
    *,
    actions: Mapping[str, Any] | Iterable[Any] | None = None,
    hosts: Collection[str] = LOCAL_HOSTS,
    origins: Collection[str] = (),
    authenticate: Authenticate | None = None,
    keep_alive: float | None = 15.0,
    max_streams: int = 1000,
    max_body: int = 1 << 20,
    resume_seconds: float = 30.0,
    **options: Unpack[ServeOptions],
) -> Starlette:
    """An application that serves actions, calls and channels: `/actions/{name}`, `/rpc` and `/ws`.

    ::

        app = kk.asgi_app(API(), actions=[ai_chat])  # uvicorn module:app, hypercorn -k trio module:app

    It is a Starlette application, to which further routes may be added. Its lifespan has to run, as servers
    do; inside another application, whose lifespan enters `app.router.lifespan_context(app)`.
    `app.state.kkrpc_streams.end()` ends all event streams, for a server that is stopped in a way that tells
    nobody (uvicorn in a thread, without its handling of signals).

    :param api: what `/rpc` and `/ws` expose; None: there is neither.
    :param actions: stream actions by name, or some that go by the names of their functions.
    :param hosts: names by which this server may be asked for; "*" allows all. Ports do not count.
    :param origins: origins whose pages may come, beside its own: "https://example.org"; "*" allows all.
    :param authenticate: `async (request) -> bool`, asked before each request for an action or a call and
        before each WebSocket; not for routes that are added, whose Host and Origin are checked all the same.
    :param keep_alive: seconds of silence after which an event stream has a comment; None: never.
    :param max_streams: event streams at once, those among them whose client may come back.
    :param max_body: bytes of a request.
    :param resume_seconds: how long an action with a replay window goes on for a client that is gone.
    :param options: as `RPCChannel` has them; `limits`, `encode` and `decode` hold for actions too.

    Raises TypeError and ValueError for what is none of this.
    """
    if keep_alive is not None and (isinstance(keep_alive, bool) or not keep_alive > 0):
        raise ValueError(f"keep_alive is a number of seconds, or None, not {keep_alive!r}")
    for name, number in (("max_streams", max_streams), ("max_body", max_body)):
        if type(number) is not int or number < 1:
            raise ValueError(f"{name} is a number above zero, not {number!r}")
    if isinstance(resume_seconds, bool) or not resume_seconds >= 0:
        raise ValueError(f"resume_seconds is a number of seconds, not {resume_seconds!r}")
    limits = options.get("limits") or Limits()
    streams = Streams(max_streams, resume_seconds)
    endpoint = ActionEndpoint(
        named_actions(actions),
        streams,
        InputReader(limits, options.get("decode")),
        ValueWriter(limits, options.get("encode")),
        keep_alive=keep_alive,
        max_body=max_body,
    )
    routes: list[BaseRoute] = [Route("/actions/{name}", Authenticated(endpoint, authenticate))]
    if api is not None:
        from kkrpc_py.web.rpc import RpcEndpoint
        from kkrpc_py.web.sockets import SocketEndpoint

        calls = CallEndpoint(RpcEndpoint(api, options), max_body)
        sockets = SocketEndpoint(api, options, authenticate)
        routes.append(Route("/rpc", Authenticated(calls, authenticate)))
        routes.append(WebSocketRoute("/ws", sockets))
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, hosts=hosts, origins=origins)],
        exception_handlers={HTTPException: on_http_exception, Exception: on_unexpected},
        lifespan=streams.lifespan,
    )
    Guard(
        app, hosts, origins
    )  # starlette makes its own with the first request: too late to say what is wrong
    app.router.redirect_slashes = False
    app.state.kkrpc_streams = streams
    return app


def named_actions(actions: Mapping[str, Any] | Iterable[Any] | None) -> dict[str, BoundAction]:
    """Actions by name. Raises TypeError for what is no action, ValueError for names that cannot be served."""
    given = actions.items() if isinstance(actions, Mapping) else ((None, each) for each in actions or ())
    found: dict[str, BoundAction] = {}
    for name, function in given:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"the name of an action is a text, not {name!r}")
        action = action_of(function, name)
        if action is None:
            raise TypeError(f"{function!r} is no stream action: decorate it with @kk.stream_action()")
        if not action.name or "/" in action.name:
            raise ValueError(f"{action.name!r} cannot be a part of a path")
        if action.name in found:
            raise ValueError(f"there are two actions with the name {action.name!r}")
        found[action.name] = action
    return found
