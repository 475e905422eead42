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
    └── InternalError           a fault of this library; its text stays on this side

This module owns the exception classes and their mapping to and from `ErrorValue`, the
dialect-free form of an error on the wire. It does not own where exceptions are caught: that
is `channel.dispatch`, the one boundary between handlers and the wire.
"""

from __future__ import annotations

import builtins
import traceback as _traceback
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias, cast

import msgspec

__all__ = [
    "CallCancelled",
    "CallTimeout",
    "CallbackReleased",
    "ChannelClosed",
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
    "ValidationFailed",
    "ValidationIssue",
    "error_from_wire",
    "error_to_wire",
]


NO_API = "No API implementation available"
"""What a peer that exposes nothing answers to every call (CALL-6)."""


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


class KkrpcError(Exception):
    """The base of every error that this library raises on purpose."""


class RemoteError(KkrpcError):
    """The peer's handler raised.

    Where the remote name is that of a builtin `Exception` subclass on a fixed list, the error
    raised is an instance of that builtin as well: `except ValueError` catches it.
    """

    def __init__(
        self,
        name: str,
        message: str,
        *,
        remote_traceback: str | None = None,
        cause: Any = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        # KeyError and friends print their argument's repr; the text is ours to choose.
        super().__init__(message)
        self.name = name
        self.message = message
        self.remote_traceback = remote_traceback
        self.cause = cause
        self.fields = fields if fields is not None else {}

    def __str__(self) -> str:
        if type(self).__name__ == self.name or not self.name:
            return self.message
        return f"{self.name}: {self.message}" if self.message else self.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.message!r})"

    def __reduce__(self) -> tuple[Callable[..., RemoteError], tuple[Any, ...]]:
        return (_remote_error, (self.name, self.message, self.remote_traceback, self.cause, self.fields))


class _Refusal(RemoteError):
    """What the peer's library answers, and no handler of its: there is nothing but the text."""

    def __init__(self, message: str) -> None:
        super().__init__(type(self).__name__, message)

    def __reduce__(self) -> tuple[Callable[..., RemoteError], tuple[Any, ...]]:
        return (type(self), (self.message,))


class MethodNotFound(_Refusal):
    """Nothing callable, or nothing to construct, is exposed under the name that was called."""


class PropertyNotFound(_Refusal):
    """Nothing is exposed under the path that was read or set, or it may not be."""


class CallbackReleased(_Refusal):
    """The callback that was called has been released by its owner, or was never given."""


Phase: TypeAlias = Literal["input", "output"]
"""What was checked: the arguments of a call, or its result or one of its chunks."""


class ValidationIssue(msgspec.Struct, frozen=True):
    """One thing that is wrong with a value."""

    path: tuple[str | int, ...]
    """Leads to it from the outermost value; for arguments its first part is the position or the name."""
    message: str


class ValidationFailed(KkrpcError, ValueError):
    """The arguments of `method`, its result or one of its chunks are not of the shape that it declares.

    Raised on both sides; on the wire it is kkrpc's own validation error (ERR-7).
    """

    def __init__(
        self, method: str, phase: Phase, issues: Iterable[ValidationIssue], message: str | None = None
    ) -> None:
        self.method = method
        self.phase: Phase = phase
        self.issues = list(issues)
        if message is None:
            found = "; ".join(_issue_text(issue) for issue in self.issues) or "no reason was given"
            message = f"the {phase} of {method!r} is invalid: {found}"
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[Callable[..., ValidationFailed], tuple[Any, ...]]:
        return (type(self), (self.method, self.phase, self.issues, self.message))


def _issue_text(issue: ValidationIssue) -> str:
    parts = "".join(f"[{part!r}]" for part in issue.path)
    return f"{parts}: {issue.message}" if parts else issue.message


class CallTimeout(KkrpcError, TimeoutError):
    """A call was not answered within its time; the remote handler has been told to stop."""

    def __init__(self, method: str, seconds: float) -> None:
        super().__init__(f"call of {method!r} was not answered within {seconds:g} s")
        self.method = method
        self.seconds = seconds


class CallCancelled(KkrpcError):
    """The call or the stream was cancelled, by this side or by the peer."""


class ChannelClosed(KkrpcError, ConnectionError):
    """The channel is closed: by this side, by the peer, or by the end of the byte stream.

    `exit_code` and `stderr_tail` are set where the peer is a child process: its exit code
    (negative: the number of the signal), and its last lines of standard error.
    """

    def __init__(
        self, message: str = "the channel is closed", *, exit_code: int | None = None, stderr_tail: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail

    def __str__(self) -> str:
        text = self.message
        if self.exit_code is not None:
            text += f" (exit code {self.exit_code})"
        if self.stderr_tail:
            text += "; its last lines of stderr:\n" + self.stderr_tail
        return text


class ProtocolError(KkrpcError):
    """The peer broke a rule of the protocol."""


class LimitExceeded(KkrpcError):
    """A bound named in `Limits` was exceeded, on this side or on the peer's."""


class NotSerializable(KkrpcError, TypeError):
    """A value that cannot be sent without being changed.

    `path` leads to it from the outermost value, such as `args[0]['when']`; `type_name` names its
    type. `needs_cbor` says that CBOR, once negotiated, would carry it.
    """

    def __init__(self, type_name: str, path: str, reason: str = "", *, needs_cbor: bool = False) -> None:
        text = f"{type_name} at {path or 'the top'} cannot be sent unchanged"
        super().__init__(f"{text}: {reason}" if reason else text)
        self.type_name = type_name
        self.path = path
        self.reason = reason
        self.needs_cbor = needs_cbor


class InternalError(KkrpcError):
    """A fault of this library. The peer is told the name and nothing else; the log has the rest."""


# Names that a remote error may be caught by. Nothing that steers the interpreter or an event
# loop is on it: a peer must not be able to end a generator or a process by naming an error so.
_BUILTIN_NAMES = (
    "ArithmeticError AssertionError AttributeError BlockingIOError BrokenPipeError BufferError "
    "ChildProcessError ConnectionAbortedError ConnectionError ConnectionRefusedError "
    "ConnectionResetError EOFError FileExistsError FileNotFoundError FloatingPointError "
    "IndexError InterruptedError IsADirectoryError KeyError LookupError MemoryError NameError "
    "NotADirectoryError NotImplementedError OSError OverflowError PermissionError "
    "ProcessLookupError RecursionError ReferenceError RuntimeError TimeoutError TypeError "
    "UnboundLocalError ValueError ZeroDivisionError"
).split()

_remote_classes: dict[str, type[RemoteError]] = {
    name: type(
        name, (RemoteError, getattr(builtins, name)), {"__module__": __name__, "__doc__": RemoteError.__doc__}
    )
    for name in _BUILTIN_NAMES
}


def _remote_error(
    name: str, message: str, remote_traceback: str | None, cause: Any, fields: dict[str, Any]
) -> RemoteError:
    cls = _remote_classes.get(name, RemoteError)
    return cls(name, message, remote_traceback=remote_traceback, cause=cause, fields=fields)


def error_from_wire(error: ErrorValue) -> KkrpcError:
    """The exception that a caller raises for an error that arrived (ERR-3)."""
    name, message = error.name, error.message
    if error.bare:
        return _refusal(message)
    match name:
        case "RPCValidationError":
            return _validation_from_wire(error)
        case "CallbackReleased":
            return CallbackReleased(message)
        case "LimitExceeded":
            return LimitExceeded(message)
        case "CallCancelled":
            return CallCancelled(message)
        case "ProtocolError":
            return ProtocolError(message)
    cause = None if error.cause is msgspec.UNSET else error.cause
    return _remote_error(name, message, error.stack, cause, dict(error.fields))


def _refusal(message: str) -> RemoteError:
    """The error whose whole text is `message`: one of those that CALL-6 fixes, or anything else."""
    if message == NO_API or message.endswith(" is not a constructor function"):
        return MethodNotFound(message)
    if message.startswith("Method ") and (
        message.endswith(" is not a function") or " not found at " in message
    ):
        return MethodNotFound(message)
    if message.startswith("Property path ") and " not found at " in message:
        return PropertyNotFound(message)
    return RemoteError("Error", message)


_VALIDATION = "RPCValidationError"
"""What kkrpc calls its own; its fields are `phase`, `method` and `issues`."""


def _validation_from_wire(error: ErrorValue) -> ValidationFailed:
    """The same issues again, as far as they can be understood: a peer may use any validator."""
    method, issues = error.fields.get("method"), error.fields.get("issues")
    return ValidationFailed(
        method if isinstance(method, str) else "",
        "output" if error.fields.get("phase") == "output" else "input",
        [_issue_from_wire(issue) for issue in issues] if isinstance(issues, list) else [],
        error.message or None,
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


def error_to_wire(exc: BaseException, *, with_traceback: bool = False) -> ErrorValue:
    """What the peer is told of an exception that a handler raised (ERR-4).

    Name, message, public attributes and explicit cause; the traceback only if asked for. A
    `RemoteError` that a handler lets through keeps its original name and fields.
    """
    try:
        return _described(exc, with_traceback)
    except Exception:  # it is the exception's own code that runs here: `__str__`, properties
        return ErrorValue(type(exc).__name__, "the error's own text cannot be had")


def _described(exc: BaseException, with_traceback: bool) -> ErrorValue:
    if isinstance(exc, MethodNotFound | PropertyNotFound):
        return ErrorValue(exc.name, exc.message, bare=True)
    if isinstance(exc, InternalError):
        return ErrorValue("InternalError", str(exc))
    stack = "".join(_traceback.format_exception(exc)) if with_traceback else None
    cause: Any = msgspec.UNSET
    if exc.__cause__ is not None:
        cause = {"name": type(exc.__cause__).__name__, "message": _text(exc.__cause__)}
    if isinstance(exc, RemoteError):
        if cause is msgspec.UNSET and exc.cause is not None:
            cause = exc.cause
        return ErrorValue(exc.name, exc.message, stack, cause, exc.fields)
    name = type(exc).__name__
    if isinstance(exc, ValidationFailed):
        issues = [{"message": issue.message, "path": list(issue.path)} for issue in exc.issues]
        fields = {"phase": exc.phase, "method": exc.method, "issues": issues}
        return ErrorValue(_VALIDATION, exc.message, stack, cause, fields)
    if isinstance(exc, KkrpcError):
        return ErrorValue(name, str(exc), stack, cause)
    fields = {key: value for key, value in vars(exc).items() if not key.startswith("_")}
    return ErrorValue(name, _text(exc), stack, cause, fields)


def _text(exc: BaseException) -> str:
    # A KeyError's own text is the repr of its key.
    return str(exc.args[0] if isinstance(exc, KeyError) and len(exc.args) == 1 else exc)
