"""Values in words as the values of kkrpc_py, and back, for the reference testee.

It owns what kkrpc_py has beyond Python: the types of JavaScript, errors, functions and streams, and arrays
with a shape. All else is in `words`, which is imported with this module where a value in words comes; most
processes that a run starts never see one.
"""

from __future__ import annotations

import array
from collections.abc import Callable, Mapping
from typing import Any

import kkrpc_py as kk
from kkrpc_py.conformance import words as w

__all__ = ["from_words", "to_words"]


def to_words(value: Any) -> dict[str, Any]:
    """`value` in words. Raises TypeError for what has none."""
    return w.to_words(value, other=_own_words)


def _own_words(value: Any) -> Mapping[str, Any] | None:
    match value:
        case kk.js.Undefined():
            return {"undefined": True}
        case kk.js.RegExp():
            return {"regexp": f"/{value.source}/{value.flags}"}
        case kk.js.URL():
            return {"url": str.__str__(value)}
        case kk.js.BigInt():
            return w.to_words(int(value))
        case kk.RemoteError():
            return {"error": {"name": value.name, "message": value.message}}
        case kk.RemoteCallback():
            return {"function": True}
        case kk.StreamCall():
            return {"stream": True}
    return None


def from_words(words: Any, function: Callable[[Any], Any], stream: Callable[[Any], Any]) -> Any:
    """The value that the words say; raises BadWords. `function` and `stream` make those two."""
    return w.from_words(
        words,
        function=function,
        stream=stream,
        undefined=lambda _: kk.js.UNDEFINED,
        regexp=_regexp,
        url=kk.js.URL,
        error=lambda said: kk.RemoteError(said["name"], said["message"]),
        array=_array,
    )


def _regexp(said: str) -> Any:
    source, _, flags = said[1:].rpartition("/")
    return kk.js.RegExp(source, flags)


def _array(said: Mapping[str, Any]) -> Any:
    items = array.array(w.ARRAY_CODES[said["type"]], map(w.from_words, said["items"]))
    if said["shape"] == [len(items)]:
        return items
    import numpy  # late, and perhaps not there; the one type that kkrpc_py sends with a shape

    return numpy.frombuffer(items, dtype=items.typecode).reshape(said["shape"])
