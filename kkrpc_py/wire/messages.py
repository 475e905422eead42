"""The messages of the protocol, free of any dialect and codec.

One frozen struct a message. A dialect translates between these and the mappings that a codec
writes; nothing outside `wire` knows a dialect's keys. The numbers are those of spec/protocol.md.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from kkrpc_py.errors import ErrorValue

Id: TypeAlias = str | int
"""What ties an answer to its question. Compared with its type (MSG-2): 1 and "1" are two ids."""


class Request(msgspec.Struct, frozen=True):
    """Call `method`, a dotted path, with positional `args` (CALL-1). Without id: answered without one.

    Here and in what follows, `callback_ids` and `stream_ids` name the functions (CBK-1) and streams
    (ARG-1) that strings within the message's values stand for.
    """

    id: Id | None
    method: str
    args: list[Any]
    callback_ids: tuple[str, ...] = ()
    stream_ids: tuple[str, ...] = ()
    kwargs: dict[str, Any] | None = None
    """Keyword arguments (KWA-1)."""
    meta: dict[str, Any] | None = None
    """What the caller says of the call beside its arguments (META-1)."""


class Construct(msgspec.Struct, frozen=True):
    """Make an instance of the class at `method` (CALL-9)."""

    id: Id | None
    method: str
    args: list[Any]
    callback_ids: tuple[str, ...] = ()
    stream_ids: tuple[str, ...] = ()
    kwargs: dict[str, Any] | None = None
    meta: dict[str, Any] | None = None


class Get(msgspec.Struct, frozen=True):
    """Read the property at `path` (CALL-10)."""

    id: Id | None
    path: tuple[str, ...]


class Set(msgspec.Struct, frozen=True):
    """Write `value` to the property at `path` (CALL-10)."""

    id: Id | None
    path: tuple[str, ...]
    value: Any = None
    callback_ids: tuple[str, ...] = ()
    stream_ids: tuple[str, ...] = ()


class Callback(msgspec.Struct, frozen=True):
    """Call the function that was passed under `callback_id` (CBK-3)."""

    id: Id | None
    callback_id: str
    args: list[Any]
    callback_ids: tuple[str, ...] = ()
    stream_ids: tuple[str, ...] = ()
    kwargs: dict[str, Any] | None = None


class CallbackRelease(msgspec.Struct, frozen=True):
    """Functions of the receiver that the sender holds no more: by id, how often it had got each (CBK-6)."""

    counts: dict[str, int]


class Result(msgspec.Struct, frozen=True):
    """A call's value; UNSET where the answer names none (CALL-3)."""

    id: Id | None
    value: Any = UNSET
    callback_ids: tuple[str, ...] = ()
    stream_ids: tuple[str, ...] = ()


class Failure(msgspec.Struct, frozen=True):
    """A call's error (CALL-4)."""

    id: Id | None
    error: ErrorValue


class StreamOpened(msgspec.Struct, frozen=True):
    """The call's answer is a stream, whose chunks follow under the same id (STR-1)."""

    id: Id


class Chunks(msgspec.Struct, frozen=True):
    """Values of a stream, in order: one (STR-2), or several where batches are agreed (BAT-1)."""

    id: Id
    values: list[Any]
    callback_ids: tuple[str, ...] = ()
    stream_ids: tuple[str, ...] = ()


class StreamEnd(msgspec.Struct, frozen=True):
    """The stream is complete (STR-3); with the generator's return value (RES-1), or cancelled (CAN-4)."""

    id: Id
    result: Any | UnsetType = UNSET
    cancelled: bool = False
    callback_ids: tuple[str, ...] = ()
    stream_ids: tuple[str, ...] = ()


class StreamFailure(msgspec.Struct, frozen=True):
    """The stream ended in an error (STR-4)."""

    id: Id
    error: ErrorValue


class StreamCancel(msgspec.Struct, frozen=True):
    """The consumer wants no more (CAN-1); where agreed it also cancels a running call (CAN-3)."""

    id: Id


class StreamAck(msgspec.Struct, frozen=True):
    """The consumer grants `chunks` more chunks and `bytes` more bytes of frames (CRD-2)."""

    id: Id
    chunks: int
    bytes: int


class Malformed(msgspec.Struct, frozen=True):
    """A message of a known type whose fields are not what its type demands (MSG-4)."""

    id: Id | None
    type: str
    reason: str
    callback_ids: tuple[str, ...] = ()
    stream_ids: tuple[str, ...] = ()


Message: TypeAlias = (
    Request
    | Construct
    | Get
    | Set
    | Callback
    | CallbackRelease
    | Result
    | Failure
    | StreamOpened
    | Chunks
    | StreamEnd
    | StreamFailure
    | StreamCancel
    | StreamAck
    | Malformed
)


class Noise(msgspec.Struct, frozen=True):
    """Bytes between messages that are no message: a print on a shared stdout (FRM-4)."""

    data: bytes
    """The line without its line feed, cut at `Limits.noise`."""
    reason: str


class Broken(msgspec.Struct, frozen=True):
    """The byte stream cannot be read on; always the last item (FRM-6, FRM-9)."""

    error: Exception
