"""The classic dialect, that of kkrpc up to 0.7: messages to mappings and back (spec, section 3).

It owns the keys, their order, and how what a peer sent is read: leniently where the real kkrpc is
lenient, as `Malformed` where a field is not what its type demands. It does not own text or bytes:
`build` gives what a codec encodes, `parse` takes what one decoded, whatever the codec: a mapping, or
`Fields` from a codec that can go without the mapping.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET

from kkrpc_py.errors import ErrorValue, LimitExceeded, NotSerializable
from kkrpc_py.limits import Limits
from kkrpc_py.wire.messages import (
    Callback,
    CallbackRelease,
    Chunks,
    Construct,
    Failure,
    Get,
    Id,
    Malformed,
    Message,
    Request,
    Result,
    Set,
    StreamAck,
    StreamCancel,
    StreamEnd,
    StreamFailure,
    StreamOpened,
)

__all__ = ["CALLBACK_PREFIX", "STREAM_PREFIX", "Fields", "Fit", "Parser", "build", "is_stream_marker"]

CALLBACK_PREFIX = "__callback__"
"""What a string that stands for a function begins with; its callback id follows."""
STREAM_PREFIX = "__stream__"
"""What a string that stands for a stream begins with: the whole of it is the stream's id (ARG-1)."""

_VERSION = "json"
_STREAM_KEY = "__stream"
# What an error's other fields may not be called: these are taken.
_ERROR_KEYS = frozenset(("name", "message", "stack", "cause"))

Fit = Callable[[Any, str], Any]
"""Takes a value that a user made and the name of its place in the message; returns what the codec
is to encode, most often the same object, or raises `NotSerializable`."""


def is_stream_marker(value: Any) -> bool:
    """Whether a result says that a stream follows (CLA-4), whatever else it holds."""
    return type(value) is dict and value.get(_STREAM_KEY) is True


# --- building -------------------------------------------------------------------------------


def build(message: Message, fit: Fit, drop: bool = True) -> dict[str, Any]:
    """The mapping of a message, its keys in kkrpc's order.

    What cannot be sent raises `NotSerializable`; only the extra fields of an error are dropped
    one by one instead, so that no error goes unreported, unless `drop` is false.
    """
    try:
        builder = _BUILDERS[type(message)]
    except KeyError:
        raise TypeError(f"a {type(message).__name__} is never sent") from None
    mapping = builder(message, fit, drop)
    if mapping["id"] is None:
        del mapping["id"]
    return mapping


def _mapping(id: Id | None, args: Any, kind: str) -> dict[str, Any]:
    return {"id": id, "method": "", "args": args, "type": kind, "version": _VERSION}


def _build_call(message: Request | Construct, fit: Fit, drop: bool) -> dict[str, Any]:
    mapping = {
        "id": message.id,
        "method": message.method,
        "args": fit(message.args, "args"),
        "type": "request" if type(message) is Request else "construct",
        "version": _VERSION,
    }
    if message.kwargs is None is message.meta and not message.callback_ids and not message.stream_ids:
        return mapping
    _name_passed(mapping, message)
    if message.kwargs is not None:
        mapping["kwargs"] = fit(message.kwargs, "kwargs")
    if message.meta is not None:
        mapping["meta"] = fit(message.meta, "meta")
    return _version_last(mapping)


def _build_callback(message: Callback, fit: Fit, drop: bool) -> dict[str, Any]:
    mapping = _mapping(message.id, fit(message.args, "args"), "callback")
    mapping["method"] = message.callback_id
    _name_passed(mapping, message)
    if message.kwargs is not None:
        mapping["kwargs"] = fit(message.kwargs, "kwargs")
    return _version_last(mapping)


def _build_release(message: CallbackRelease, fit: Fit, drop: bool) -> dict[str, Any]:
    return _mapping(None, message.counts, "callback-release")


def _name_passed(
    mapping: dict[str, Any], message: Request | Construct | Callback | Set | Result | Chunks | StreamEnd
) -> None:
    if message.callback_ids:
        mapping["callbackIds"] = message.callback_ids
    if message.stream_ids:
        mapping["streamIds"] = message.stream_ids


def _version_last(mapping: dict[str, Any]) -> dict[str, Any]:
    mapping["version"] = mapping.pop("version")
    return mapping


def _passing(mapping: dict[str, Any], message: Result | Chunks | StreamEnd) -> dict[str, Any]:
    """The mapping with the names of what passes in the message's value, seldom any."""
    if message.callback_ids or message.stream_ids:
        _name_passed(mapping, message)
        _version_last(mapping)
    return mapping


def _build_get(message: Get, fit: Fit, drop: bool) -> dict[str, Any]:
    mapping = _mapping(message.id, {}, "get")
    del mapping["version"]
    return mapping | {"path": message.path, "version": _VERSION}


def _build_set(message: Set, fit: Fit, drop: bool) -> dict[str, Any]:
    mapping = _mapping(message.id, {}, "set")
    _name_passed(mapping, message)
    mapping |= {"path": message.path, "value": fit(message.value, "value")}
    return _version_last(mapping)


def _build_result(message: Result, fit: Fit, drop: bool) -> dict[str, Any]:
    value = message.value
    if value is UNSET:
        return _mapping(message.id, {}, "response")
    if is_stream_marker(value):
        raise NotSerializable(
            "dict", "result", "its reader would take a mapping with __stream: True for a stream"
        )
    return _passing(_mapping(message.id, {"result": fit(value, "result")}, "response"), message)


def _build_failure(message: Failure, fit: Fit, drop: bool) -> dict[str, Any]:
    return _mapping(message.id, {"error": _build_error(message.error, fit, drop)}, "response")


def _build_stream_opened(message: StreamOpened, fit: Fit, drop: bool) -> dict[str, Any]:
    return _mapping(message.id, {"result": {_STREAM_KEY: True}}, "response")


def _build_chunks(message: Chunks, fit: Fit, drop: bool) -> dict[str, Any]:
    values = message.values
    args = {"value": fit(values[0], "value")} if len(values) == 1 else {"values": fit(values, "values")}
    return _passing(_mapping(message.id, args, "stream-chunk"), message)


def _build_stream_end(message: StreamEnd, fit: Fit, drop: bool) -> dict[str, Any]:
    args: dict[str, Any] = {}
    if message.result is not UNSET:
        args["result"] = fit(message.result, "result")
    if message.cancelled:
        args["cancelled"] = True
    return _passing(_mapping(message.id, args, "stream-end"), message)


def _build_stream_failure(message: StreamFailure, fit: Fit, drop: bool) -> dict[str, Any]:
    return _mapping(message.id, {"error": _build_error(message.error, fit, drop)}, "stream-error")


def _build_stream_cancel(message: StreamCancel, fit: Fit, drop: bool) -> dict[str, Any]:
    return _mapping(message.id, {}, "stream-cancel")


def _build_stream_ack(message: StreamAck, fit: Fit, drop: bool) -> dict[str, Any]:
    return _mapping(message.id, {"n": message.chunks, "b": message.bytes}, "stream-ack")


def _build_error(error: ErrorValue, fit: Fit, drop: bool) -> Any:
    # kkrpc takes an empty string for success.
    if error.bare and error.message:
        return error.message
    mapping: dict[str, Any] = {"name": error.name, "message": error.message}
    if error.stack is not None:
        mapping["stack"] = error.stack
    extra = {} if error.cause is UNSET else {"cause": error.cause}
    extra.update((key, value) for key, value in error.fields.items() if key not in _ERROR_KEYS)
    for key, value in extra.items():
        try:
            mapping[fit(key, "error")] = fit(value, f"error[{key!r}]")
        except (NotSerializable, LimitExceeded):
            if not drop:
                raise
    return mapping


_BUILDERS: dict[type, Callable[[Any, Fit, bool], dict[str, Any]]] = {
    Request: _build_call,
    Construct: _build_call,
    Callback: _build_callback,
    CallbackRelease: _build_release,
    Get: _build_get,
    Set: _build_set,
    Result: _build_result,
    Failure: _build_failure,
    StreamOpened: _build_stream_opened,
    Chunks: _build_chunks,
    StreamEnd: _build_stream_end,
    StreamFailure: _build_stream_failure,
    StreamCancel: _build_stream_cancel,
    StreamAck: _build_stream_ack,
}


# --- parsing --------------------------------------------------------------------------------


class Fields(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The fields of a message as they came, whatever they are.

    To decode a message into this takes less time than into a mapping, and to read it from this too.
    Fields that mean nothing are forbidden because a decoder would pass over them without a look.
    """

    id: Any = UNSET
    method: Any = None
    args: Any = None
    type: Any = None
    callbackIds: Any = None  # noqa: N815 - the key on the wire
    streamIds: Any = None  # noqa: N815 - the key on the wire
    kwargs: Any = None
    meta: Any = None
    path: Any = None
    value: Any = None
    version: Any = None


def _fields(mapping: dict[Any, Any]) -> Fields:
    get = mapping.get
    return Fields(
        get("id", UNSET),
        get("method"),
        get("args"),
        get("type"),
        get("callbackIds"),
        get("streamIds"),
        get("kwargs"),
        get("meta"),
        get("path"),
        get("value"),
    )


class _Wrong(enum.Enum):
    """An id that is neither text nor an integer, or that is too long."""

    ID = enum.auto()


# Python 3.11 takes ten times as long to find a member in its enumeration.
_WRONG_ID: Final = _Wrong.ID
# What every message of a stream but its opening has in its type: it must have an id.
_STREAM = "stream-"
_REASON_ID = "the id must be a string or an integer within Limits.id_bytes"
_REASON_NO_ID = "the id is missing or not a string or an integer within Limits.id_bytes"


class Parser:
    """Reads messages from the mappings that a codec decoded."""

    def __init__(self, limits: Limits) -> None:
        self._id_bytes = limits.id_bytes
        # A character takes four bytes of UTF-8 at most.
        self._id_surely = limits.id_bytes // 4
        self._id_bound = 10**limits.id_bytes
        self._parsers: dict[str, Callable[[Fields, str, Any], Message]] = {
            "request": self._parse_call,
            "construct": self._parse_call,
            "callback": self._parse_callback,
            "callback-release": self._parse_release,
            "get": self._parse_get,
            "set": self._parse_set,
            "response": self._parse_response,
            "stream-chunk": self._parse_chunk,
            "stream-end": self._parse_end,
            "stream-error": self._parse_stream_error,
            "stream-cancel": self._parse_cancel,
            "stream-ack": self._parse_ack,
        }

    def parse(self, found: Any) -> Message | None:
        """The message; None if it is none of a known type, which makes it noise (FRM-4)."""
        if type(found) is Fields:
            fields: Fields = found
        elif type(found) is dict:
            fields = _fields(found)
        else:
            return None
        kind = fields.type
        parser = self._parsers.get(kind) if type(kind) is str else None
        if parser is None:
            return None
        id = fields.id
        # Most ids are short and ASCII.
        if type(id) is not str or len(id) > self._id_surely or not id.isascii():
            id = self._id(id)
            of_stream = kind.startswith(_STREAM)
            if id is _WRONG_ID or (id is None and of_stream):
                return _malformed(fields, kind, None, _REASON_NO_ID if of_stream else _REASON_ID)
        return parser(fields, kind, id)

    def malformed(
        self, id: Any, kind: Any, callback_ids: Any, stream_ids: Any, reason: str
    ) -> Malformed | None:
        """What to make of a message of which no more than this could be read."""
        if type(kind) is not str or kind not in self._parsers:
            return None
        checked = None if id is None else self._id(id)
        checked = None if checked is _WRONG_ID else checked
        return Malformed(checked, kind, reason, _texts(callback_ids), _texts(stream_ids))

    def _id(self, id: Any) -> Id | Literal[_Wrong.ID] | None:
        """The id; None if there is none at all."""
        kind = type(id)
        if kind is str:
            text: str = id
            try:
                fits = len(text.encode()) <= self._id_bytes
            except UnicodeEncodeError:  # an unpaired surrogate, which CBOR could not answer under
                fits = False
            return text if fits else _WRONG_ID
        if kind is int:
            number: int = id
            return number if -self._id_bound < number < self._id_bound else _WRONG_ID
        return None if id is UNSET else _WRONG_ID

    def _parse_call(self, fields: Fields, kind: str, id: Id | None) -> Message:
        method, args = fields.method, fields.args
        if type(method) is not str:
            return _malformed(fields, kind, id, f"Invalid {kind}: method must be a string")
        if type(args) is not list:
            args = []
        cls = Request if kind == "request" else Construct
        if fields.callbackIds is fields.streamIds is fields.kwargs is fields.meta is None:
            return cls(id, method, args)
        kwargs, meta = fields.kwargs, fields.meta
        if not _is_keywords(kwargs):
            reason = f"Invalid {kind}: kwargs must be a mapping whose keys are strings"
            return _malformed(fields, kind, id, reason)
        if type(meta) is not dict:
            meta = None
        return cls(id, method, args, *_passed(fields), kwargs, meta)

    def _parse_callback(self, fields: Fields, kind: str, id: Id | None) -> Message:
        callback_id, args = fields.method, fields.args
        if type(callback_id) is not str:
            return _malformed(fields, kind, id, "Invalid callback: method must be a string")
        if not _is_keywords(fields.kwargs):
            reason = "Invalid callback: kwargs must be a mapping whose keys are strings"
            return _malformed(fields, kind, id, reason)
        return Callback(id, callback_id, args if type(args) is list else [], *_passed(fields), fields.kwargs)

    def _parse_release(self, fields: Fields, kind: str, id: Id | None) -> Message:
        counts = fields.args
        if (
            type(counts) is not dict
            or not {str}.issuperset(map(type, counts))
            or not {int}.issuperset(map(type, counts.values()))
            or not all(count > 0 for count in counts.values())
        ):
            return Malformed(id, kind, "Invalid callback-release: args must map ids to numbers above zero")
        return CallbackRelease(counts)

    def _path(self, fields: Fields, kind: str, id: Id | None) -> tuple[str, ...] | Malformed:
        path = fields.path
        if type(path) is list and set(map(type, path)) <= {str}:
            return tuple(path)
        if not path:
            return _malformed(fields, kind, id, f"Invalid {kind} request: missing path")
        return _malformed(fields, kind, id, f"Invalid {kind} request: path must be a list of strings")

    def _parse_get(self, fields: Fields, kind: str, id: Id | None) -> Message:
        path = self._path(fields, kind, id)
        return path if isinstance(path, Malformed) else Get(id, path)

    def _parse_set(self, fields: Fields, kind: str, id: Id | None) -> Message:
        path = self._path(fields, kind, id)
        return path if isinstance(path, Malformed) else Set(id, path, fields.value, *_passed(fields))

    def _parse_response(self, fields: Fields, kind: str, id: Id | None) -> Message:
        args = fields.args
        if type(args) is not dict:
            return _malformed(fields, kind, id, "Invalid response: args must be a mapping")
        if "error" in args and not _is_falsy(args["error"]):
            return Failure(id, _parse_error(args["error"]))
        value = args.get("result", UNSET)
        if is_stream_marker(value):
            return Malformed(None, kind, _REASON_NO_ID) if id is None else StreamOpened(id)
        if fields.callbackIds is fields.streamIds is None:
            return Result(id, value)
        return Result(id, value, *_passed(fields))

    def _parse_chunk(self, fields: Fields, kind: str, id: Id) -> Message:
        args = fields.args
        if type(args) is not dict:
            return Chunks(id, [None])
        if "values" not in args or "value" in args:
            values = [args.get("value")]
        else:
            values = args["values"]
            if type(values) is not list or not values:
                reason = "Invalid stream-chunk: values must be a list of one or more"
                return _malformed(fields, kind, id, reason)
        if fields.callbackIds is fields.streamIds is None:
            return Chunks(id, values)
        return Chunks(id, values, *_passed(fields))

    def _parse_end(self, fields: Fields, kind: str, id: Id) -> Message:
        args = fields.args
        if type(args) is not dict or not args:
            return StreamEnd(id)
        return StreamEnd(id, args.get("result", UNSET), args.get("cancelled") is True, *_passed(fields))

    def _parse_stream_error(self, fields: Fields, kind: str, id: Id) -> Message:
        args = fields.args
        error = args.get("error") if type(args) is dict else None
        if _is_falsy(error):
            return StreamFailure(id, ErrorValue("Error", "Stream error", bare=True))
        return StreamFailure(id, _parse_error(error))

    def _parse_cancel(self, fields: Fields, kind: str, id: Id) -> Message:
        return StreamCancel(id)

    def _parse_ack(self, fields: Fields, kind: str, id: Id) -> Message:
        args = fields.args
        if type(args) is not dict:
            return Malformed(id, kind, "Invalid stream-ack: args must be a mapping")
        chunks, size = args.get("n"), args.get("b")
        if type(chunks) is not int or type(size) is not int or chunks < 0 or size < 0:
            return Malformed(id, kind, "Invalid stream-ack: n and b must be integers, zero or more")
        return StreamAck(id, chunks, size)


def _malformed(fields: Fields, kind: str, id: Id | None, reason: str) -> Malformed:
    """With what the message names, which is given back although nobody reads it (CBK-6)."""
    return Malformed(id, kind, reason, *_passed(fields))


def _passed(fields: Fields) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The ids of callbacks and streams; what is no list of strings names none (CLA-2)."""
    return _texts(fields.callbackIds), _texts(fields.streamIds)


def _texts(found: Any) -> tuple[str, ...]:
    return tuple(found) if type(found) is list and {str}.issuperset(map(type, found)) else ()


def _is_keywords(kwargs: Any) -> bool:
    return kwargs is None or (type(kwargs) is dict and {str}.issuperset(map(type, kwargs)))


def _is_falsy(error: Any) -> bool:
    """What kkrpc takes for no error, as JavaScript does: an empty list or mapping is one."""
    return error is None or error is False or (type(error) in (str, int, float) and not error)


def _parse_error(error: Any) -> ErrorValue:
    if type(error) is str:
        return ErrorValue("Error", error, bare=True)
    if type(error) is not dict:
        return ErrorValue("Error", str(error))
    name, message, stack = error.get("name"), error.get("message"), error.get("stack")
    return ErrorValue(
        name if type(name) is str and name else "Error",
        message if type(message) is str else "",
        stack if type(stack) is str else None,
        error.get("cause", UNSET),
        {key: value for key, value in error.items() if type(key) is str and key not in _ERROR_KEYS},
    )
