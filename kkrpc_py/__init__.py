"""RPC whose results can be streams, over any byte stream, compatible with kkrpc's wire."""

from kkrpc_py.channel.call import Call
from kkrpc_py.channel.channel import RPCChannel, current_channel
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
from kkrpc_py.channel.expose import inline, namespace
from kkrpc_py.channel.interceptors import CallContext, Interceptor, Next
from kkrpc_py.channel.sink import StreamSink
from kkrpc_py.channel.stream import StreamCall
from kkrpc_py.errors import (
    CallCancelled,
    CallTimeout,
    ChannelClosed,
    KkrpcError,
    LimitExceeded,
    MethodNotFound,
    NotSerializable,
    ProtocolError,
    RemoteError,
)
from kkrpc_py.limits import Limits

__all__ = [
    "Call",
    "CallCancelled",
    "CallContext",
    "CallTimeout",
    "ChannelClosed",
    "Interceptor",
    "KkrpcError",
    "LimitExceeded",
    "Limits",
    "MethodNotFound",
    "Next",
    "NotSerializable",
    "ProtocolError",
    "RPCChannel",
    "RemoteError",
    "StreamCall",
    "StreamSink",
    "connect_tcp",
    "connect_unix",
    "current_channel",
    "inline",
    "memory_pair",
    "namespace",
    "open_process",
    "run_stdio",
    "serve_stdio",
    "serve_tcp",
    "serve_unix",
]
