"""RPC whose results can be streams, over any byte stream, compatible with kkrpc's wire."""

from typing import TYPE_CHECKING

from kkrpc_py.channel.call import Call, OutgoingInfo
from kkrpc_py.channel.callbacks import LocalCallback, RemoteCallback, callback
from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.channel.current import current_channel
from kkrpc_py.channel.declarations import Property, method, stream
from kkrpc_py.channel.expose import constructible, expose, inline, namespace
from kkrpc_py.channel.interceptors import CallContext, Interceptor, Next
from kkrpc_py.channel.sink import StreamSink
from kkrpc_py.channel.stream import StreamCall
from kkrpc_py.channel.writable import Writable, writable
from kkrpc_py.errors import (
    ActionError,
    CallbackReleased,
    CallCancelled,
    CallTimeout,
    ChannelClosed,
    KkrpcError,
    LimitExceeded,
    MethodNotFound,
    NotSerializable,
    PropertyNotFound,
    ProtocolError,
    RemoteError,
    StateConflict,
    StreamChannelExists,
    StreamClosed,
    StreamGap,
    StreamingError,
    StreamOverflow,
    UnknownStream,
    UploadDisconnected,
    ValidationFailed,
    ValidationIssue,
    WouldBlock,
)
from kkrpc_py.limits import Limits
from kkrpc_py.wire import js

if TYPE_CHECKING:
    from kkrpc_py import sync
    from kkrpc_py.actions.action import stream_action
    from kkrpc_py.actions.client import ActionCall, ActionClient
    from kkrpc_py.actions.context import ActionContext
    from kkrpc_py.actions.stream import ActionStream
    from kkrpc_py.channel.endpoints import (
        connect_tcp,
        connect_unix,
        memory_pair,
        open_process,
        run_stdio,
        serve_stdio,
        serve_tcp,
        serve_unix,
    )
    from kkrpc_py.channel.signals import CancelSignal
    from kkrpc_py.channel.websockets import connect_websocket, serve_websocket
    from kkrpc_py.streaming.client import RemoteStreams, streams
    from kkrpc_py.streaming.events import Event, EventReader, Events, events
    from kkrpc_py.streaming.follower import Gap
    from kkrpc_py.streaming.hub import StreamHub
    from kkrpc_py.streaming.inbound import InboundReader
    from kkrpc_py.streaming.named import StreamChannel, StreamRequest
    from kkrpc_py.streaming.outbound import OutboundStream
    from kkrpc_py.streaming.reader import StreamReader
    from kkrpc_py.streaming.reconnect import ReconnectingChannel, reconnecting
    from kkrpc_py.streaming.remote_state import RemoteState
    from kkrpc_py.streaming.state import SharedState
    from kkrpc_py.streaming.state_view import StateChange
    from kkrpc_py.streaming.upload import Upload
    from kkrpc_py.tools.relay import relay
    from kkrpc_py.transports.handshake import HandshakeRefused, HandshakeRequest
    from kkrpc_py.web.app import asgi_app

__all__ = [
    "ActionContext",
    "ActionError",
    "ActionStream",
    "Call",
    "CallCancelled",
    "CallContext",
    "CallTimeout",
    "CallbackReleased",
    "CancelSignal",
    "ChannelClosed",
    "Event",
    "EventReader",
    "Events",
    "Gap",
    "HandshakeRefused",
    "HandshakeRequest",
    "InboundReader",
    "Interceptor",
    "KkrpcError",
    "LimitExceeded",
    "Limits",
    "LocalCallback",
    "MethodNotFound",
    "Next",
    "NotSerializable",
    "OutboundStream",
    "OutgoingInfo",
    "Property",
    "PropertyNotFound",
    "ProtocolError",
    "RPCChannel",
    "ReconnectingChannel",
    "RemoteCallback",
    "RemoteError",
    "RemoteState",
    "RemoteStreams",
    "SharedState",
    "StateChange",
    "StateConflict",
    "StreamCall",
    "StreamChannel",
    "StreamChannelExists",
    "StreamClosed",
    "StreamGap",
    "StreamHub",
    "StreamOverflow",
    "StreamReader",
    "StreamRequest",
    "StreamSink",
    "StreamingError",
    "UnknownStream",
    "Upload",
    "UploadDisconnected",
    "ValidationFailed",
    "ValidationIssue",
    "WouldBlock",
    "Writable",
    "callback",
    "connect_tcp",
    "connect_unix",
    "connect_websocket",
    "constructible",
    "current_channel",
    "events",
    "expose",
    "inline",
    "js",
    "memory_pair",
    "method",
    "namespace",
    "open_process",
    "reconnecting",
    "relay",
    "run_stdio",
    "serve_stdio",
    "serve_tcp",
    "serve_unix",
    "serve_websocket",
    "stream",
    "stream_action",
    "streams",
    "sync",
    "writable",
]

if TYPE_CHECKING:  # those that need an extra: a star import is not to fail without it
    __all__ += ["ActionCall", "ActionClient", "asgi_app"]

if not TYPE_CHECKING:  # a checker that saw it would take every misspelt name for one of these
    # The ways to a channel bring asyncio, TLS, sockets and subprocesses with them: half of what the import
    # would take. So they come when the first one is asked for (PEP 562).
    _STREAMING = {
        "client": ("RemoteStreams", "streams"),
        "events": ("Event", "EventReader", "Events", "events"),
        "follower": ("Gap",),
        "hub": ("StreamHub",),
        "inbound": ("InboundReader",),
        "named": ("StreamChannel", "StreamRequest"),
        "outbound": ("OutboundStream",),
        "reader": ("StreamReader",),
        "reconnect": ("ReconnectingChannel", "reconnecting"),
        "remote_state": ("RemoteState",),
        "state": ("SharedState",),
        "state_view": ("StateChange",),
        "upload": ("Upload",),
    }
    _ACTIONS = {
        "action": ("stream_action",),
        "client": ("ActionCall", "ActionClient"),
        "context": ("ActionContext",),
        "stream": ("ActionStream",),
    }
    _MODULES = {
        "sync": "kkrpc_py.sync",
        "relay": "kkrpc_py.tools.relay",
        "CancelSignal": "kkrpc_py.channel.signals",
        "connect_websocket": "kkrpc_py.channel.websockets",
        "serve_websocket": "kkrpc_py.channel.websockets",
        "asgi_app": "kkrpc_py.web.app",
        "HandshakeRefused": "kkrpc_py.transports.handshake",
        "HandshakeRequest": "kkrpc_py.transports.handshake",
        **{name: f"kkrpc_py.streaming.{module}" for module, names in _STREAMING.items() for name in names},
        **{name: f"kkrpc_py.actions.{module}" for module, names in _ACTIONS.items() for name in names},
    }
    _EXTRAS = {"ActionCall": "http", "ActionClient": "http", "asgi_app": "http"}
    _LATE = (frozenset(__all__) | _EXTRAS.keys()) - globals().keys()

    def __getattr__(name):
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        try:
            module = import_module(_MODULES.get(name, "kkrpc_py.channel.endpoints"))
        except ModuleNotFoundError as exc:
            package = str(exc.name).partition(".")[0]
            if name not in _EXTRAS or package == "kkrpc_py":
                raise
            needs = f"kkrpc_py.{name} needs the package {package}: pip install 'kkrpc-py[{_EXTRAS[name]}]'"
            raise ModuleNotFoundError(needs, name=exc.name) from exc
        together = [name] if name in _MODULES else _LATE - _MODULES.keys()
        globals().update({late: module if late == "sync" else getattr(module, late) for late in together})
        return globals()[name]

    def __dir__():
        return sorted({*globals(), *_LATE})
