"""`ActionError`: what a stream action raises for its caller to see.

It crosses as it is, over server-sent events and over a channel: code, message, status, and what is wrong with
which field (spec, section 26). Its cause, notes and traceback stay where it was raised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kkrpc_py.errors.library import KkrpcError

__all__ = ["STREAM_ERROR", "ActionError"]

STREAM_ERROR = "STREAM_ERROR"
"""The code of everything that an action did not mean to tell."""
_LEAST_STATUS, _MOST_STATUS = 400, 599


class ActionError(KkrpcError):
    """An action has refused its caller, or failed in a way that the caller is told of.

    :param code: for programs, such as `"RATE_LIMITED"`.
    :param message: for people.
    :param status: the HTTP status, 400 to 599, of a refusal before the stream has begun (RFC 9110).
    :param field_errors: for each field of the input that is wrong, by its dotted path, what is wrong with it.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        status: int = 400,
        *,
        field_errors: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        if not (_is_text(code) and _is_text(message)):
            raise TypeError(f"code and message are texts, not {code!r} and {message!r}")
        if not code:
            raise ValueError("code names the error: it is not empty")
        if type(status) is not int or not _LEAST_STATUS <= status <= _MOST_STATUS:
            raise ValueError(f"status is an HTTP status of an error, 400 to 599, not {status!r}")
        super().__init__(code, message, status)
        self.code = code
        self.message = message
        self.status: int = status
        self.field_errors: dict[str, list[str]] = {
            path: list(messages) for path, messages in (field_errors or {}).items()
        }
        for path, messages in (field_errors or {}).items():
            if not _is_text(path) or _is_text(messages) or not all(map(_is_text, messages)):
                raise TypeError(f"field_errors has a list of texts for each path, not {field_errors!r}")

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code

    @classmethod
    def unexpected(cls) -> ActionError:
        """What the caller is told of an error that was not meant for it."""
        return cls(STREAM_ERROR, "Stream handler error", 500)

    def fields(self) -> dict[str, Any]:
        """What crosses beside the message: `code`, `statusCode`, and `fieldErrors` if there are any."""
        found: dict[str, Any] = {"code": self.code, "statusCode": self.status}
        if self.field_errors:
            found["fieldErrors"] = self.field_errors
        return found

    def to_data(self) -> dict[str, Any]:
        """The error as the data of an `error` event, or the body of an answer."""
        return {"code": self.code, "message": self.message, **self.fields()}

    @classmethod
    def from_data(cls, data: Any) -> ActionError:
        """The error that a peer described, read leniently: what is missing or of a wrong type is left out."""
        known = data if isinstance(data, Mapping) else {}
        message, fields = known.get("message"), known.get("fieldErrors")
        return cls(
            code if isinstance(code := known.get("code"), str) and code else STREAM_ERROR,
            message if isinstance(message, str) else "",
            _status(known.get("statusCode")),
            field_errors={
                path: [text for text in messages if isinstance(text, str)]
                for path, messages in (fields if isinstance(fields, Mapping) else {}).items()
                if isinstance(path, str) and isinstance(messages, list)
            },
        )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _status(value: Any) -> int:
    # Whole numbers of JavaScript's may come as floats.
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    return number if type(number) is int and _LEAST_STATUS <= number <= _MOST_STATUS else 500
