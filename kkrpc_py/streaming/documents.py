"""The value of a shared state: which values it may be, a copy of it, and whether two are the same.

It owns no version and no patch. A document is what JSON carries exactly to every reader, JavaScript's too:
None, booleans, integers up to 2**53 - 1, finite floats, Unicode text, lists, and mappings with keys of text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import chain
from typing import Any

import msgspec

from kkrpc_py.errors import LimitExceeded
from kkrpc_py.limits import Limits
from kkrpc_py.wire.values import Rules, holds_unpaired_surrogate

__all__ = ["DEEPEST", "DocumentRules", "copied", "depth_of", "encoded_size", "same"]

DEEPEST = 128
"""Lists and mappings within each other, at most, whatever the limits: documents are walked by recursion."""

_JS_MAX = 2**53 - 1
# What a chunk is nested in (the message, its args, the batch, the chunk itself), and a value within a patch.
_NESTED_IN = 8
# What a chunk is surrounded by in its frame, at most.
_FRAME_REST = 1024
_BYTES_MARK = "Uint8Array"
_BYTES_MARK_ASCII = b"Uint8Array"
_CONTAINERS = frozenset((dict, list, tuple))
_encode = msgspec.json.Encoder().encode


def _refuse_bytes_form(value: dict[Any, Any]) -> str | None:
    if value.get("type") == _BYTES_MARK and isinstance(value.get("data"), (list, tuple)):
        return "in JSON its reader would take it for bytes"
    return None


class DocumentRules:
    """Which documents can be sent, under the bounds of a channel."""

    def __init__(self, limits: Limits) -> None:
        self._most = max(1, limits.frame - _FRAME_REST)
        self._quick = self._rules(limits, thorough=False)
        self._thorough = self._rules(limits, thorough=True)

    def _rules(self, limits: Limits, *, thorough: bool) -> Rules:
        return Rules(
            leaves={
                type(None): None,
                bool: None,
                int: None,
                float: None,
                str: holds_unpaired_surrogate if thorough else None,
            },
            containers=_CONTAINERS,
            keys="text",
            max_int=_JS_MAX,
            depth=max(1, min(limits.depth - _NESTED_IN, DEEPEST)),
            items=limits.frame // 2 + 1,
            finite=True,
            refuse_dict=_refuse_bytes_form if thorough else None,
        )

    def check(self, document: Any, root: str = "value") -> int:
        """The bytes of its JSON text.

        Raises NotSerializable, which names the path from `root`, for what a document cannot hold, and
        LimitExceeded for one that no frame could carry.
        """
        size = self._quick_size(document)
        if size is None:
            self._thorough.demand(document, root)
            size = encoded_size(document)
        if size > self._most:
            raise LimitExceeded(f"{root} has {size} bytes as JSON, more than Limits.frame lets through")
        return size

    def _quick_size(self, document: Any) -> int | None:
        """Its size where a look in C is enough to see that it is fine."""
        if self._quick.accepts(document) is None:
            return None
        try:
            text = _encode(document)
        except UnicodeEncodeError:
            return None
        return None if _BYTES_MARK_ASCII in text else len(text)


def encoded_size(document: Any) -> int:
    """The bytes of the JSON text of what `DocumentRules` let pass."""
    return len(_encode(document))


def depth_of(document: Any) -> tuple[int, int]:
    """How deep lists and mappings are within each other, and how many values were looked at.

    0 for what holds no others; it looks no deeper than one more than `DEEPEST`.
    """
    level, depth, looked = [document], 0, 1
    while depth <= DEEPEST:
        inner = [item.values() if type(item) is dict else item for item in level if type(item) in _CONTAINERS]
        if not inner:
            break
        depth += 1
        level = list(chain.from_iterable(inner))
        looked += len(level)
    return depth, looked


def copied(document: Any) -> Any:
    """A copy that shares no list and no mapping with `document`, nor holds one twice; tuples become lists."""
    kind = type(document)
    if kind is dict:
        return {key: copied(item) if type(item) in _CONTAINERS else item for key, item in document.items()}
    if kind is list or kind is tuple:
        return [copied(item) if type(item) in _CONTAINERS else item for item in document]
    return document


def same(first: Any, second: Any, *, exactly: bool = True) -> bool:
    """Whether two documents are equal: 1, 1.0 and True are three values; the order of keys does not matter.

    Not `exactly`: numbers are equal by their size, as RFC 6902 has it.
    """
    if first is second:
        return True
    kind = type(first)
    if kind is not type(second):
        return not exactly and {kind, type(second)} == {int, float} and bool(first == second)
    if kind is dict:
        return first.keys() == second.keys() and _all_same(
            first.values(), map(second.__getitem__, first), exactly
        )
    if kind is list:
        return len(first) == len(second) and _all_same(first, second, exactly)
    if kind is float and exactly and first == 0.0 == second:
        return math.copysign(1.0, first) == math.copysign(1.0, second)
    return bool(first == second)


def _all_same(firsts: Iterable[Any], seconds: Iterable[Any], exactly: bool) -> bool:
    for first, second in zip(firsts, seconds, strict=True):
        if first is not second and not same(first, second, exactly=exactly):
            return False
    return True
