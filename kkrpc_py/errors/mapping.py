"""Exceptions to `ErrorValue` and back (spec, section 6).

What a peer sends is read leniently and within bounds; what is sent is what the exception says in public.
Which class a name stands for is the business of `errors.remote`.
"""

from __future__ import annotations

import traceback as _traceback
from types import MemberDescriptorType
from typing import Any, cast

import msgspec

from kkrpc_py.errors import library as lib
from kkrpc_py.errors.actions import ActionError
from kkrpc_py.errors.library import InternalError, KkrpcError, ValidationFailed, ValidationIssue
from kkrpc_py.errors.remote import (
    OS_FIELDS,
    CallbackReleased,
    ErrorRegistry,
    MethodNotFound,
    PropertyNotFound,
    RemoteError,
    make_remote,
)
from kkrpc_py.errors.streaming import STREAMING_ERRORS, StreamingError

__all__ = ["NO_API", "ErrorValue", "error_from_wire", "error_to_wire"]

NO_API = "No API implementation available"
"""What a peer that exposes nothing answers to every call (CALL-6)."""

MAX_CAUSES = 8
"""How far a chain of causes, or groups within groups, is followed, in either direction."""
MAX_RELATED = 32
"""Errors that are described with one, as its causes and its group's members."""
MAX_NOTES = 32

_VALIDATION = "RPCValidationError"
"""What kkrpc calls its own; its fields are `phase`, `method` and `issues`."""
_NOTES = "__notes__"
"""The field with the texts that `add_note` has added."""
_NO_TEXT = "the error's own text cannot be had"


class ErrorValue(msgspec.Struct, frozen=True):
    """An error as a message carries it (ERR-1)."""

    name: str
    message: str
    stack: str | None = None
    """The remote traceback as text, where the peer chose to send it."""
    cause: Any = msgspec.UNSET
    """What the error says caused it: any value, most often a mapping with name and message."""
    fields: dict[str, Any] = {}
    """The error's other fields, such as `code`."""
    bare: bool = False
    """On the wire the whole error is the message, a string (ERR-2)."""


class _TracebackNote(str):
    """The note that shows the peer's traceback. It is no part of the error, and never sent as a note."""

    __slots__ = ()
    HEAD = "\nRaised by the peer:\n\n"

    @property
    def stack(self) -> str:
        return self[len(self.HEAD) :]


# --- from the wire --------------------------------------------------------------------------


def error_from_wire(error: ErrorValue, registry: ErrorRegistry | None = None) -> KkrpcError:
    """The exception that a caller raises for an error that arrived (ERR-3).

    Its `__cause__` is the peer's, as far as that is an error; the peer's notes are its notes, and its
    traceback, where it was sent, is shown as the last of them.
    """
    return _from_wire(error, registry, MAX_CAUSES)


def _from_wire(error: ErrorValue, registry: ErrorRegistry | None, room: int) -> KkrpcError:
    if error.bare:
        return _refusal(error.message)
    fields = dict(error.fields)
    notes = fields.pop(_NOTES, None)
    cause = None if error.cause is msgspec.UNSET else error.cause
    exc = _exception(error, cause, fields, registry)
    if cause is not None and room:
        exc.__cause__ = _cause_from_wire(cause, registry, room - 1)
    # Called on the base: a registered class may have an `add_note` of its own.
    if isinstance(notes, list):
        for note in notes[:MAX_NOTES]:
            if isinstance(note, str):
                BaseException.add_note(exc, note)
    if error.stack:
        BaseException.add_note(exc, _TracebackNote(_TracebackNote.HEAD + error.stack.rstrip()))
    return exc


def _exception(
    error: ErrorValue, cause: Any, fields: dict[str, Any], registry: ErrorRegistry | None
) -> KkrpcError:
    message = error.message
    match error.name:
        case "RPCValidationError":
            return _validation_from_wire(message, fields)
        case "CallbackReleased":
            return CallbackReleased(message)
        case "LimitExceeded":
            return lib.LimitExceeded(message)
        case "CallCancelled":
            return lib.CallCancelled(message)
        case "ProtocolError":
            return lib.ProtocolError(message)
    if error.name == ActionError.__name__:
        return ActionError.from_data({**fields, "message": message})
    if error.name in STREAMING_ERRORS:
        return STREAMING_ERRORS[error.name].from_wire(message, fields)
    return make_remote(error.name, message, error.stack, cause, fields, registry)


def _cause_from_wire(cause: Any, registry: ErrorRegistry | None, room: int) -> BaseException | None:
    """The cause as an exception, where it is an error: it has a name and a message."""
    if isinstance(cause, RemoteError):  # a codec that knows errors has made it one, of no class of the user's
        value = ErrorValue(cause.name, cause.message, cause.remote_traceback, cause.cause, cause.fields)
        return _from_wire(value, registry, room)
    if not isinstance(cause, dict):
        return None
    fields = dict(cause)
    name, message, stack = (fields.pop(key, None) for key in ("name", "message", "stack"))
    if not isinstance(name, str) or not isinstance(message, str):
        return None
    inner = fields.pop("cause", msgspec.UNSET)
    fields = {key: value for key, value in fields.items() if isinstance(key, str)}
    stack = stack if isinstance(stack, str) else None
    return _from_wire(ErrorValue(name, message, stack, inner, fields), registry, room)


def _refusal(message: str) -> RemoteError:
    """The error whose whole text is `message`: one of those that CALL-6 fixes, or anything else."""
    if message == NO_API or message.endswith(" is not a constructor function"):
        return MethodNotFound(message)
    if message.startswith("Method ") and message.endswith(" is not a function"):
        return MethodNotFound(message)
    if " not found at " in message:
        if message.startswith(("Method path ", "Constructor path ")):
            return MethodNotFound(message)
        if message.startswith("Property path "):
            return PropertyNotFound(message)
    return RemoteError("Error", message)


def _validation_from_wire(message: str, fields: dict[str, Any]) -> ValidationFailed:
    """The same issues again, as far as they can be understood: a peer may use any validator."""
    method, issues = fields.get("method"), fields.get("issues")
    return ValidationFailed(
        method if isinstance(method, str) else "",
        "output" if fields.get("phase") == "output" else "input",
        [_issue_from_wire(issue) for issue in issues] if isinstance(issues, list) else [],
        message or None,
    )


def _issue_from_wire(issue: Any) -> ValidationIssue:
    if not isinstance(issue, dict):
        return ValidationIssue((), issue if isinstance(issue, str) else "")
    path, message = issue.get("path"), issue.get("message")
    parts = path if isinstance(path, list) else ()
    return ValidationIssue(tuple(map(_path_part, parts)), message if isinstance(message, str) else "")


def _path_part(part: Any) -> str | int:
    # A validator may give an object with a `key` for a part of the path.
    key = part.get("key") if isinstance(part, dict) else part
    if type(key) in (str, int):
        return cast("str | int", key)
    # Whole numbers of JavaScript's may come as floats. What is neither index nor name is no more than named.
    return int(key) if isinstance(key, float) and key.is_integer() else f"<{type(key).__name__}>"


# --- to the wire ----------------------------------------------------------------------------


def error_to_wire(exc: BaseException, *, with_traceback: bool = False) -> ErrorValue:
    """What the peer is told of an exception that a handler raised (ERR-4).

    Name, message, public attributes, notes and the chain of explicit causes; the traceback only if asked
    for, and with it alone what was being handled when it was raised. A `RemoteError` that a handler lets
    through keeps its original name and fields.
    """
    try:
        return _described(exc, with_traceback)
    except Exception:  # it is the exception's own code that runs here: `__str__`, properties
        return ErrorValue(type(exc).__name__, _NO_TEXT)


def _described(exc: BaseException, with_traceback: bool) -> ErrorValue:
    if isinstance(exc, MethodNotFound | PropertyNotFound):
        return ErrorValue(exc.name, exc.message, bare=True)
    if isinstance(exc, InternalError):
        return ErrorValue("InternalError", str(exc))
    if isinstance(exc, ActionError):  # says all that is meant for the peer
        stack = _stack(exc) if with_traceback else None
        return ErrorValue(ActionError.__name__, exc.message, stack, fields=exc.fields())
    related = _Related(exc)
    name, message, fields = related.parts(exc, MAX_CAUSES)
    return ErrorValue(
        name,
        message,
        _stack(exc) if with_traceback else None,
        related.cause(exc, MAX_CAUSES),
        fields,
    )


class _Related:
    """The errors that are described with one. Each of them once, so that a cycle ends, and not too many."""

    def __init__(self, exc: BaseException) -> None:
        self._seen = {id(exc)}

    def parts(self, exc: BaseException, room: int) -> tuple[str, str, dict[str, Any]]:
        """Name, message and other fields."""
        if isinstance(exc, RemoteError):
            name, message, fields = exc.name, exc.message, exc.fields
        elif isinstance(exc, ValidationFailed):
            issues = [{"message": issue.message, "path": list(issue.path)} for issue in exc.issues]
            fields = {"phase": exc.phase, "method": exc.method, "issues": issues}
            name, message = _VALIDATION, exc.message
        else:
            name, message, fields = type(exc).__name__, _text(exc), _public_fields(exc)
            if isinstance(exc, BaseExceptionGroup):
                members = [self._mapping(member, room - 1) for member in exc.exceptions[:MAX_RELATED]]
                fields["exceptions"] = [member for member in members if member is not None]
        notes = _notes(exc)
        return name, message, {**fields, _NOTES: notes} if notes else fields

    def cause(self, exc: BaseException, room: int) -> Any:
        """The explicit cause as a value, UNSET where there is none."""
        cause = exc.__cause__
        if cause is not None:
            found = self._mapping(cause, room - 1)
            return msgspec.UNSET if found is None else found
        # What a peer gave as a cause that is no error.
        value = exc.cause if isinstance(exc, RemoteError) else None
        return msgspec.UNSET if value is None else value

    def _mapping(self, exc: BaseException, room: int) -> dict[str, Any] | None:
        if room < 0 or id(exc) in self._seen or len(self._seen) > MAX_RELATED:
            return None
        self._seen.add(id(exc))
        try:
            return self._described(exc, room)
        except Exception:  # as in `error_to_wire`
            return {"name": type(exc).__name__, "message": _NO_TEXT}

    def _described(self, exc: BaseException, room: int) -> dict[str, Any]:
        if isinstance(exc, InternalError):
            return {"name": "InternalError", "message": str(exc)}
        if isinstance(exc, ActionError):
            return {"name": ActionError.__name__, "message": exc.message, **exc.fields()}
        name, message, fields = self.parts(exc, room)
        found: dict[str, Any] = {"name": name, "message": message}
        cause = self.cause(exc, room)
        if cause is not msgspec.UNSET and (exc.__cause__ is not None or _is_plain(cause)):
            found["cause"] = cause
        # A field that cannot be sent would take the whole chain with it.
        found.update(
            (key, value)
            for key, value in fields.items()
            if key not in _TAKEN and _is_plain(key) and _is_plain(value)
        )
        return found


_TAKEN = frozenset(("name", "message", "stack", "cause"))


def _public_fields(exc: BaseException) -> dict[str, Any]:
    """The public attributes, in slots or not. An error of this library's says all in its text."""
    kind = type(exc)
    if isinstance(exc, StreamingError):
        return {key: value for key, value in vars(exc).items() if value is not None}
    if isinstance(exc, KkrpcError) and kind.__module__ == KkrpcError.__module__:
        return {}
    try:
        fields = {key: value for key, value in vars(exc).items() if not key.startswith("_")}
        for base in kind.__mro__:
            if "__slots__" in vars(base):
                for key, slot in vars(base).items():
                    if type(slot) is MemberDescriptorType and not key.startswith("_") and hasattr(exc, key):
                        fields[key] = getattr(exc, key)
        if isinstance(exc, OSError):
            for key, expected in OS_FIELDS.items():
                if type(getattr(exc, key)) is expected:
                    fields[key] = getattr(exc, key)
    except Exception:  # the exception's own code
        return {}
    return fields


def _all_notes(exc: BaseException) -> list[Any]:
    try:
        notes = getattr(exc, _NOTES, None)
    except Exception:  # the exception's own code
        return []
    return notes if isinstance(notes, list) else []


def _notes(exc: BaseException) -> list[str]:
    notes = _all_notes(exc)
    return [note for note in notes if isinstance(note, str) and not isinstance(note, _TracebackNote)][
        :MAX_NOTES
    ]


def _text(exc: BaseException) -> str:
    if isinstance(exc, lib.ChannelClosed):  # its child's stderr is as private as a traceback
        exc = lib.ChannelClosed(exc.message, exit_code=exc.exit_code)
    try:
        # A KeyError's own text is the repr of its key.
        text = str(exc.args[0] if isinstance(exc, KeyError) and len(exc.args) == 1 else exc)
    except Exception:  # the exception's own code
        return _NO_TEXT
    return str.__str__(text)  # a subclass of str may come from `__str__`


def _stack(exc: BaseException) -> str | None:
    """The traceback as text. What the peer sent of its own comes first, and once."""
    sent = next((note for note in _all_notes(exc) if isinstance(note, _TracebackNote)), None)
    try:
        if sent is None:
            return "".join(_traceback.format_exception(exc))
        shown = _traceback.TracebackException.from_exception(exc)
        shown.__notes__ = _notes(exc)
        here = "".join(shown.format(chain=False))
    except Exception:  # the exception's own code
        return None
    return f"{sent.stack}\n\nThe above exception was let through by the handler that had called:\n\n{here}"


def _is_plain(value: Any, room: int = MAX_CAUSES * 2) -> bool:
    """Whether every codec carries the value."""
    kind = type(value)
    if kind is str:
        try:
            return bool(value.isascii() or value.encode())
        except UnicodeEncodeError:
            return False
    if kind is int:
        return bool(-(1 << 53) < value < 1 << 53)
    if kind is float:
        return bool(value - value == 0)  # neither NaN nor infinite
    if kind is dict and room:
        return all(type(key) is str and _is_plain(key) and _is_plain(v, room - 1) for key, v in value.items())
    if kind is list and room:
        return all(_is_plain(item, room - 1) for item in value)
    return value is None or kind is bool
