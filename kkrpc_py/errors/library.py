"""What this library raises by itself, on either side.

What the peer's handlers raise is in `errors.remote`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias

import msgspec

__all__ = [
    "CallCancelled",
    "CallTimeout",
    "ChannelClosed",
    "InternalError",
    "KkrpcError",
    "LimitExceeded",
    "NotSerializable",
    "Phase",
    "ProtocolError",
    "ValidationFailed",
    "ValidationIssue",
]


class KkrpcError(Exception):
    """The base of every error that this library raises on purpose."""


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

    @classmethod
    def because_of(cls, error: KkrpcError) -> ChannelClosed:
        """A fresh one for each of those who wait, since they raise it in different tasks."""
        if not isinstance(error, ChannelClosed):
            closed = cls(f"the channel was closed: {error}")
            closed.__cause__ = error
            return closed
        closed = cls(error.message, exit_code=error.exit_code, stderr_tail=error.stderr_tail)
        closed.__cause__ = error.__cause__
        return closed

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
    type. `needs_hello`: a peer that has yet to say what it knows may take it then.
    """

    def __init__(self, type_name: str, path: str, reason: str = "", *, needs_hello: bool = False) -> None:
        text = f"{type_name} at {path or 'the top'} cannot be sent unchanged"
        super().__init__(f"{text}: {reason}" if reason else text)
        self.type_name = type_name
        self.path = path
        self.reason = reason
        self.needs_hello = needs_hello


class InternalError(KkrpcError):
    """A fault of this library. The peer is told the name and nothing else; the log has the rest."""
