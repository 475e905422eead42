"""Values as JSON for readers of any kind, and the events that carry them (SSE-3 to SSE-5, SSE-11).

It owns what may stand in an event. How events leave is `outlet`'s.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from kkrpc_py.errors import ActionError, LimitExceeded, NotSerializable
from kkrpc_py.limits import Limits
from kkrpc_py.wire.json_codec import JsonWriter
from kkrpc_py.wire.lowering import EncodeHook, Lowering

__all__ = ["KEEP_ALIVE", "ValueWriter", "chunk_event", "done_event", "error_event", "error_json"]

KEEP_ALIVE: Final = b": keep-alive\n\n"
_ROOT = "chunk"

_encode = msgspec.json.Encoder().encode


class ValueWriter:
    """Makes JSON of values, exactly or not at all.

    Nobody knows who reads: JavaScript may, so integers are bounded by 2**53 - 1, as toward a stock peer
    (VAL-3); text stays as it is, since an event stream is UTF-8. Bytes have kkrpc's form (VAL-4).
    """

    def __init__(self, limits: Limits, encode: EncodeHook | None = None) -> None:
        self._writer = JsonWriter(limits, stock=True, with_bytes=True)
        self._lowering = Lowering(encode, limits.depth)
        self._most = limits.frame

    def json(self, value: Any) -> bytes:
        """The text of `value`, in which there is no line end.

        Raises NotSerializable, and LimitExceeded for more than `Limits.frame` bytes.
        """
        try:
            text = self._exact(value)
        except NotSerializable:
            lowered = self._lowering.lower(value, _ROOT, None)
            if lowered is value:
                raise
            text = self._exact(lowered)
        if len(text) > self._most:
            raise LimitExceeded(f"the chunk takes {len(text)} bytes; Limits.frame is {self._most}")
        return text

    def _exact(self, value: Any) -> bytes:
        writer = self._writer
        try:
            text = _encode(writer.fit(value, _ROOT))
        except UnicodeEncodeError:
            return writer.dumps_unpaired(writer.fit_checked(value, _ROOT))
        if writer.needs_second_look(text):
            writer.fit_checked(value, _ROOT)
        return text


def chunk_event(json: bytes, id: str | None = None) -> bytes:
    """The event of one chunk."""
    return b"data: %b\n\n" % json if id is None else b"id: %b\ndata: %b\n\n" % (id.encode(), json)


def done_event(id: str | None = None) -> bytes:
    """The event that says that this was all."""
    return b"event: done\n" + chunk_event(b"{}", id)


def error_event(error: ActionError, id: str | None = None) -> bytes:
    """The event of an error; nothing comes after it."""
    return b"event: error\n" + chunk_event(error_json(error), id)


def error_json(error: ActionError) -> bytes:
    """The error object of ACT-4."""
    data = error.to_data()
    try:
        return _encode(data)
    except UnicodeEncodeError:  # text that is no Unicode: escapes express it
        return _ESCAPING.dumps_unpaired(data)


_ESCAPING = JsonWriter(Limits(), stock=False, with_bytes=False)
