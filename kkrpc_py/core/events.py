"""What a `Connection` tells the layer above, in the order in which it happened.

One frozen struct an event. An event names the call it belongs to by the object that the
connection keeps for it, so that nothing has to be looked up twice.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET

from kkrpc_py.core.callbacks import Passed
from kkrpc_py.core.calls import IncomingCall, OutgoingCall
from kkrpc_py.errors import ErrorValue, KkrpcError

__all__ = [
    "CallRequested",
    "CallbackRequested",
    "Cancelled",
    "ConstructRequested",
    "Credited",
    "Event",
    "Failed",
    "Lost",
    "Noticed",
    "Opened",
    "PropertyRequested",
    "Received",
    "Returned",
    "Settled",
    "Stopped",
    "Violated",
]


class CallRequested(msgspec.Struct, frozen=True):
    """The peer calls `call.method` with `args`."""

    call: IncomingCall
    args: list[Any]
    kwargs: dict[str, Any] | None = None
    meta: dict[str, Any] | None = None


class ConstructRequested(msgspec.Struct, frozen=True):
    """The peer wants an instance of the class at `call.method`."""

    call: IncomingCall
    args: list[Any]
    kwargs: dict[str, Any] | None = None
    meta: dict[str, Any] | None = None


class PropertyRequested(msgspec.Struct, frozen=True):
    """The peer reads the property at `path`, or writes it where there is a `value`."""

    call: IncomingCall
    path: tuple[str, ...]
    value: Any = UNSET


class CallbackRequested(msgspec.Struct, frozen=True):
    """The peer calls a function that this side has passed to it."""

    call: IncomingCall
    passed: Passed
    args: list[Any]
    kwargs: dict[str, Any] | None = None


class Cancelled(msgspec.Struct, frozen=True):
    """The peer wants no more of `call`: stop its handler or producer, then say `stopped`."""

    call: IncomingCall


class Credited(msgspec.Struct, frozen=True):
    """The producer of `call` may send more."""

    call: IncomingCall


class Returned(msgspec.Struct, frozen=True):
    """The call's value (None where the peer named none)."""

    call: OutgoingCall
    value: Any


class Failed(msgspec.Struct, frozen=True):
    """The call, or its stream, ended in an error. What arrived before comes first."""

    call: OutgoingCall
    error: ErrorValue | KkrpcError


class Opened(msgspec.Struct, frozen=True):
    """The call's answer is a stream."""

    call: OutgoingCall


class Received(msgspec.Struct, frozen=True):
    """Values of the call's stream, from one frame of `size` bytes."""

    call: OutgoingCall
    values: list[Any]
    size: int


class Stopped(msgspec.Struct, frozen=True):
    """The call's stream is complete, or the peer has confirmed a cancel (`cancelled`)."""

    call: OutgoingCall
    result: Any
    cancelled: bool


class Settled(msgspec.Struct, frozen=True):
    """The hello was answered, or the peer said hello: what is agreed is known."""


class Noticed(msgspec.Struct, frozen=True):
    """A line that is no message, for the application's own output."""

    data: bytes
    reason: str


class Violated(msgspec.Struct, frozen=True):
    """The peer broke a rule that costs no more than a count and a line in the log."""

    reason: str
    number: int = 0
    """How many it has broken so far, this one included."""


class Lost(msgspec.Struct, frozen=True):
    """The byte stream cannot be read on. Always the last event."""

    error: KkrpcError


Event: TypeAlias = (
    CallRequested
    | ConstructRequested
    | PropertyRequested
    | CallbackRequested
    | Cancelled
    | Credited
    | Returned
    | Failed
    | Opened
    | Received
    | Stopped
    | Settled
    | Noticed
    | Violated
    | Lost
)
