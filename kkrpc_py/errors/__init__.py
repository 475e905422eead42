"""The exceptions of kkrpc_py, and what each one means to its catcher.

::

    KkrpcError
    ├── RemoteError             the peer's handler raised; also the builtin of the same name
    │   ├── MethodNotFound      nothing callable is exposed under that name
    │   ├── PropertyNotFound    nothing that can be read or set is exposed under that path
    │   └── CallbackReleased    the callback's owner has released it, or never gave it
    ├── ValidationFailed        arguments, a result or a chunk of the wrong shape; also ValueError
    ├── CallTimeout             also TimeoutError
    ├── CallCancelled           the call or stream was cancelled by this side or the peer
    ├── ChannelClosed           the connection is gone; also ConnectionError
    ├── ProtocolError           the peer broke a rule of spec/protocol.md
    ├── LimitExceeded           a bound of `Limits` was hit, here or at the peer
    ├── NotSerializable         a value that no agreed codec carries exactly; also TypeError
    ├── InternalError           a fault of this library; its text stays on this side
    ├── ActionError             a stream action refused, or failed as its caller shall know; `code`, `status`
    └── StreamingError          of the named streams; `code` is DevTools Kit's
        ├── UnknownStream       no such channel or stream for this side; also LookupError
        ├── StreamClosed        it has ended, and takes no more
        ├── StreamChannelExists a hub's channel of that name exists
        ├── StreamOverflow      a subscriber was too slow, and had chosen to be told
        ├── StreamGap           chunks were missed, and the reader had chosen to be told
        ├── WouldBlock          `write` finds no room
        ├── UploadDisconnected  the uploading session is gone; also ConnectionError
        └── StateConflict       a change of a shared state lost against another

`library` has what this library raises by itself, `streaming` what the named streams raise, `actions` what
stream actions do, `remote` what the peer's handlers raise and the users' own classes among it, `mapping` the
way between exceptions and `ErrorValue`, the dialect-free form of an error on the wire. None of them owns
where exceptions are caught: that is `channel.dispatch`, the one boundary between handlers and the wire.
"""

from __future__ import annotations

from kkrpc_py.errors.actions import ActionError
from kkrpc_py.errors.library import (
    CallCancelled,
    CallTimeout,
    ChannelClosed,
    InternalError,
    KkrpcError,
    LimitExceeded,
    NotSerializable,
    Phase,
    ProtocolError,
    ValidationFailed,
    ValidationIssue,
)
from kkrpc_py.errors.mapping import NO_API, ErrorValue, error_from_wire, error_to_wire
from kkrpc_py.errors.remote import (
    CallbackReleased,
    ErrorRegistry,
    MethodNotFound,
    PropertyNotFound,
    RemoteError,
)
from kkrpc_py.errors.streaming import (
    StateConflict,
    StreamChannelExists,
    StreamClosed,
    StreamGap,
    StreamingError,
    StreamOverflow,
    UnknownStream,
    UploadDisconnected,
    WouldBlock,
)

__all__ = [
    "NO_API",
    "ActionError",
    "CallCancelled",
    "CallTimeout",
    "CallbackReleased",
    "ChannelClosed",
    "ErrorRegistry",
    "ErrorValue",
    "InternalError",
    "KkrpcError",
    "LimitExceeded",
    "MethodNotFound",
    "NotSerializable",
    "Phase",
    "PropertyNotFound",
    "ProtocolError",
    "RemoteError",
    "StateConflict",
    "StreamChannelExists",
    "StreamClosed",
    "StreamGap",
    "StreamOverflow",
    "StreamingError",
    "UnknownStream",
    "UploadDisconnected",
    "ValidationFailed",
    "ValidationIssue",
    "WouldBlock",
    "error_from_wire",
    "error_to_wire",
]

# Tracebacks and pickles name the public place.
for _name in __all__:
    _value = globals()[_name]
    if isinstance(_value, type) and issubclass(_value, BaseException):
        _value.__module__ = __name__
