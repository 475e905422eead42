"""`ActionContext`: what is known of the one who calls an action. Middleware adds to it."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypeAlias

from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.channel.current import current

__all__ = ["ActionContext", "Middleware", "Transport"]

Transport: TypeAlias = Literal["sse", "rpc"]

_NO_HEADERS: Mapping[str, str] = types.MappingProxyType({})


class ActionContext(types.SimpleNamespace):
    """One call of an action. Middleware sets further attributes on it, such as `ctx.user`."""

    action: str
    """The name under which it is served over HTTP; over a channel, where it may stand anywhere, its own."""
    metadata: Mapping[str, Any]
    """What the action says of itself."""
    input: Any
    """The input, checked and converted."""
    transport: Transport
    """Whether the chunks go out as server-sent events or over a channel."""
    headers: Mapping[str, str]
    """Of the HTTP request, or of the one that the WebSocket began with, in lower case; empty elsewhere."""
    client: str | None
    """The caller's address, where it is known."""
    channel: RPCChannel | None
    """The channel of the call; None over HTTP."""
    owner: Any
    """Who it is, where middleware says so: nobody else may then resume a run of his, though he has its id. It
    is compared by `==`."""
    state: types.SimpleNamespace
    """What `authenticate` left for the handlers; over a channel it is `channel.state`."""

    def __init__(
        self,
        action: str,
        *,
        transport: Transport,
        headers: Mapping[str, str] = _NO_HEADERS,
        client: str | None = None,
        channel: RPCChannel | None = None,
        state: types.SimpleNamespace | None = None,
    ) -> None:
        super().__init__(
            action=action,
            metadata=_NO_HEADERS,
            input=None,
            transport=transport,
            headers=headers,
            client=client,
            channel=channel,
            owner=None,
            state=types.SimpleNamespace() if state is None else state,
        )

    # For the type checkers: what middleware sets is not declared.
    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no middleware has set {name!r} on the context of {self.action!r}")

    @classmethod
    def of_channel(cls, action: str) -> ActionContext:
        """The context of a call that came over the current channel."""
        channel = current.get()
        stream = channel.byte_stream
        return cls(
            action,
            transport="rpc",
            headers=getattr(stream, "headers", _NO_HEADERS),
            client=getattr(stream, "client", None),
            channel=channel,
            state=channel.state,
        )


Middleware: TypeAlias = Callable[[ActionContext], Awaitable[None]]
"""Runs before the stream opens. Refuses by raising ActionError."""
