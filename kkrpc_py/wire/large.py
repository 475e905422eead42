"""CBOR messages around one large byte string: a chunk, or a result.

It owns a short cut, and nothing that is not also right without it: such a message is written and read
with one copy of the bytes, where an encoder and a decoder for any value need three each. What is written
is byte for byte what the ordinary path writes; what is read that is not exactly of that form goes the
ordinary path.
"""

from __future__ import annotations

import re
from typing import Any

from kkrpc_py.wire.framing import LARGE, Pieces, byte_string_head
from kkrpc_py.wire.messages import Chunks, Message, Result

__all__ = ["large_mapping", "large_pieces"]

# {"id": text, "method": "", "args": {key: bytes}, "type": text, "version": "json"}: the byte string's key
# says what the type is. A text of up to 23 bytes has its length in its first byte.
_HEAD = re.compile(
    rb"\xa5bid([\x61-\x77])([\x00-\x7f]{1,23}?)fmethod\x60dargs\xa1(?:e(value)|f(result))"
    rb"(?:Y(..)|Z(....))",
    re.DOTALL,
)
_HEAD_BYTES = 80
_LONGEST_ID = 23
_CHUNK_TAIL = b"dtypelstream-chunkgversiondjson"
_RESULT_TAIL = b"dtypehresponsegversiondjson"


def large_pieces(message: Message) -> tuple[bytes, bytes, bytes] | None:
    """The message as the payload of a CBOR frame, if it is all about one large byte string.

    The byte string is the second piece, as it is.
    """
    if type(message) is Chunks:
        values = message.values
        value = values[0] if len(values) == 1 else None
        key, tail = b"evalue", _CHUNK_TAIL
    elif type(message) is Result:
        value = message.value
        key, tail = b"fresult", _RESULT_TAIL
    else:
        return None
    if type(value) is not bytes or len(value) <= LARGE:
        return None
    id, size = message.id, len(value)
    if type(id) is not str or not 0 < len(id) <= _LONGEST_ID or not id.isascii() or size >= 1 << 32:
        return None
    head = b"\xa5bid%c%bfmethod\x60dargs\xa1%b%b" % (0x60 + len(id), id.encode(), key, byte_string_head(size))
    return head, value, tail


def large_mapping(pieces: Pieces) -> dict[Any, Any] | None:
    """The mapping that a payload holds, if it is one of those and the pieces leave its ends whole."""
    first, last = pieces[0], pieces[-1]
    found = _HEAD.match(first[:_HEAD_BYTES])
    if found is None:
        return None
    id_head, id, value_key, _, short, long = found.groups()
    tail = _CHUNK_TAIL if value_key else _RESULT_TAIL
    size = int.from_bytes(short or long, "big")
    if (
        id_head[0] != 0x60 + len(id)
        or sum(map(len, pieces)) != found.end() + size + len(tail)
        or last[-len(tail) :] != tail
    ):
        return None
    if len(pieces) == 1:
        value = bytes(first[found.end() : -len(tail)])
    else:
        value = b"".join((first[found.end() :], *pieces[1:-1], last[: -len(tail)]))
    key, kind = ("value", "stream-chunk") if value_key else ("result", "response")
    return {"id": id.decode(), "method": "", "args": {key: value}, "type": kind, "version": "json"}
