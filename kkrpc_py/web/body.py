"""What a request brings: its JSON body, bounded, or its query (SSE-1, HTTP-5, HTTP-6).

It owns content type, size, time and syntax. Whether the value fits an action is said by `actions.inputs`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from anyio import fail_after
from starlette.types import Receive

from kkrpc_py.actions.inputs import invalid
from kkrpc_py.errors import ActionError, ValidationIssue
from kkrpc_py.limits import Limits
from kkrpc_py.wire.js import UNDEFINED
from kkrpc_py.wire.json_codec import JsonError, JsonReader
from kkrpc_py.wire.lowering import DecodeHook, restored

__all__ = ["BODY_SECONDS", "ClientGone", "InputReader", "demand_json", "read_body"]

_log = logging.getLogger("kkrpc_py.web")

BODY_SECONDS: Final = 30.0
"""How long a body may take to come: a client that sends half of one would keep its place for ever."""
_JSON = "application/json"
_PARAMETER = re.compile(r';\s*([^\s=;"]+)=("(?:[^"\\]|\\.)*"|[^\s;"]*)\s*')
_UTF_8 = frozenset(("utf-8", "utf8"))
_MOST_FIELDS = 1000


class ClientGone(Exception):
    """The client went away before its request was there."""


def demand_json(headers: Mapping[str, str]) -> None:
    """Raise ActionError unless the body is said to be JSON in UTF-8 (RFC 8259, 8.1)."""
    kind = headers.get("content-type", "")
    if kind == _JSON:
        return
    name, parameters = _content_type(kind)
    if name != _JSON:
        raise _unsupported(f"The body has to be {_JSON}")
    if parameters.get("charset", "utf-8") not in _UTF_8:
        raise _unsupported("JSON is in UTF-8")


def _content_type(text: str) -> tuple[str, dict[str, str]]:
    """The type and its parameters in lower case; ("", {}) for what is none (RFC 9110, 8.3.1)."""
    name = text.partition(";")[0]
    place = len(name)
    parameters: dict[str, str] = {}
    while place < len(text):
        match = _PARAMETER.match(text, place)
        if match is None:
            return ("", {}) if text[place:].strip("; \t") else (name.strip().lower(), parameters)
        key, value = match[1].lower(), match[2]
        if key in parameters:
            return "", {}
        parameters[key] = re.sub(r"\\(.)", r"\1", value[1:-1] if value[:1] == '"' else value).lower()
        place = match.end()
    return name.strip().lower(), parameters


def _unsupported(message: str) -> ActionError:
    return ActionError("UNSUPPORTED_MEDIA_TYPE", message, 415)


async def read_body(receive: Receive, headers: Mapping[str, str], most: int) -> bytes:
    """The body, of `most` bytes at most, by what is announced and by what comes.

    Raises ActionError, and ClientGone.
    """
    announced = headers.get("content-length", "")
    # What is no number, or two of them, is the server's to refuse: here what comes is counted.
    if announced.isascii() and announced.isdigit() and len(announced) < 20 and int(announced) > most:
        raise _too_large(most)
    parts: list[bytes] = []
    size, more = 0, True
    try:
        with fail_after(BODY_SECONDS):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                part: bytes = message.get("body", b"")
                size += len(part)
                if size > most:
                    raise _too_large(most)
                parts.append(part)
                more = message.get("more_body", False)
    except TimeoutError:
        raise ActionError("TIMEOUT_ERROR", "The body took too long", 408) from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(most: int) -> ActionError:
    return ActionError("PAYLOAD_TOO_LARGE", f"The body may have {most} bytes", 413)


class InputReader:
    """Makes the input of an action of what came."""

    def __init__(self, limits: Limits, decode: DecodeHook | None = None) -> None:
        self._reader = JsonReader(limits)
        self._decode = decode

    def of_body(self, body: bytes) -> Any:
        """The value of a JSON text; `UNDEFINED` for no text at all. Raises ActionError."""
        if not body:
            return UNDEFINED
        try:
            value = self._reader.loads(body)
        except JsonError as exc:
            raise ActionError("INVALID_JSON", f"The body is no JSON: {exc}", 400) from None
        if self._decode is None:
            return value
        try:
            return restored(value, {}, self._decode)
        except Exception:
            _log.exception("the decode hook failed")
            raise ActionError.unexpected() from None

    def of_query(self, query: str) -> dict[str, Any]:
        """The fields of a query: texts, and lists of texts for names that stand there several times."""
        fields: dict[str, Any] = {}
        try:
            pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
        except ValueError:  # broken UTF-8, or too many
            raise invalid([ValidationIssue((), "The query cannot be read")]) from None
        for name, value in pairs:
            if name not in fields:
                fields[name] = value
            elif isinstance(fields[name], list):
                fields[name].append(value)
            else:
                fields[name] = [fields[name], value]
        return fields
