"""superjson's names for types and its paths: what its writer and its reader share (SUP-3, SUP-5).

It owns the values that hold no others: what superjson writes for each, and which of what it wrote
is read. It does not own containers, nor where in a message a value stands: that is `superjson_writer`
and `superjson_reader`.
"""

from __future__ import annotations

import array
import datetime
import functools
import math
import re
import sys
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from kkrpc_py.limits import Limits
from kkrpc_py.wire.js import UNDEFINED, URL, BigInt, RegExp, Uint8ClampedArray, Undefined
from kkrpc_py.wire.values import digits_bound, plain_bytes

__all__ = [
    "ERROR",
    "FORBIDDEN",
    "JS_MAX",
    "MAP",
    "SET",
    "VALUE_FIELDS",
    "Leaf",
    "Leaves",
    "TypeName",
    "Unfit",
    "escaped",
    "parse_path",
]

MAP, SET, ERROR = "map", "set", "Error"
"""The types whose values hold others."""
TypeName: TypeAlias = str | list[str]
"""What superjson calls a type: a name, or for a typed array "typed-array" and its name."""
FORBIDDEN: Final = frozenset(("__proto__", "constructor", "prototype"))
"""The keys of an object that superjson neither writes nor goes through."""
VALUE_FIELDS: Final = frozenset(("args", "value", "kwargs", "meta"))
"""The fields of a message that hold users' values. The others are no more than JSON."""
JS_MAX: Final = 2**53 - 1

_UTC = datetime.UTC
_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_ISO_FAR = re.compile(r"[+-]\d{6}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_BIGINT = re.compile(r"0|-?[1-9][0-9]*", re.ASCII)
_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf, "-0": -0.0}

# JavaScript's name, and the size of an item, for each kind of item of an array.
_ARRAY_TYPES = {
    "b": ("Int8Array", 1),
    "B": ("Uint8Array", 1),
    "h": ("Int16Array", 2),
    "H": ("Uint16Array", 2),
    "i": ("Int32Array", 4),
    "I": ("Uint32Array", 4),
    "f": ("Float32Array", 4),
    "d": ("Float64Array", 8),
}
_ARRAY_NAMES = {
    code: name for code, (name, size) in _ARRAY_TYPES.items() if array.array(code).itemsize == size
}
_NUMPY_NAMES = {
    "int8": "Int8Array",
    "uint8": "Uint8Array",
    "int16": "Int16Array",
    "uint16": "Uint16Array",
    "int32": "Int32Array",
    "uint32": "Uint32Array",
    "float32": "Float32Array",
    "float64": "Float64Array",
}


class Unfit(ValueError):
    """The value has no counterpart on the other side; the text says why."""


Leaf: TypeAlias = tuple["TypeName | None", Any]
"""superjson's name for the type of a value, and the JSON in its place."""


class Leaves:
    """The values that hold no others, within the bounds of one channel."""

    def __init__(self, limits: Limits) -> None:
        self._digits = limits.digits
        self._max_int = digits_bound(limits.digits)
        self.writers: dict[type, Callable[[Any], Leaf]] = {
            int: self._write_bigint,  # beyond JS_MAX, that is
            float: _write_float,
            BigInt: self._write_bigint,
            Undefined: lambda _: ("undefined", None),
            datetime.datetime: _write_date,
            RegExp: _write_regexp,
            URL: lambda value: ("URL", str(value)),
            bytes: lambda value: (_typed("Uint8Array"), list(value)),
            bytearray: lambda value: (_typed("Uint8Array"), list(value)),
            memoryview: _write_memoryview,
            Uint8ClampedArray: lambda value: (_typed("Uint8ClampedArray"), list(value)),
            array.array: _write_array,
        }
        self._readers: dict[str, Callable[[Any], Any]] = {
            "undefined": _read_undefined,
            "bigint": self._read_bigint,
            "Date": _read_date,
            "regexp": _read_regexp,
            "URL": _read_url,
            "number": _read_number,
        }

    def writer(self, kind: type) -> Callable[[Any], Leaf] | None:
        """What writes values of that type, if any does; it may raise `Unfit`."""
        found = self.writers.get(kind)
        if found is None and (numpy := sys.modules.get("numpy")) is not None and kind is numpy.ndarray:
            return _write_numpy
        return found

    def read(self, name: Any, json: Any) -> Any:
        """The value of JSON under a type's name; `Unfit` if there is none."""
        if type(name) is str:
            reader = self._readers.get(name)
            if reader is not None:
                return reader(json)
        elif type(name) is list and len(name) == 2 and name[0] == "typed-array" and type(name[1]) is str:
            return _read_typed(name[1], json)
        raise Unfit(f"{str(name)[:80]} is no type that is known here")

    def _write_bigint(self, value: int) -> Leaf:
        if abs(value) > self._max_int:
            raise Unfit("it has more digits than Limits.digits allows")
        return "bigint", int.__repr__(value)

    def _read_bigint(self, json: Any) -> BigInt:
        most = min(self._digits, 4300)  # beyond that Python reads none
        if type(json) is not str or not _BIGINT.fullmatch(json) or len(json.lstrip("-")) > most:
            raise Unfit(f"no bigint of up to Limits.digits ({self._digits}) digits")
        return BigInt(json)


def _typed(name: str) -> TypeName:
    return ["typed-array", name]


def _write_float(value: float) -> Leaf:
    if value and math.isfinite(value):
        return None, value
    if value != value:
        return "number", "NaN"
    if not value:
        return (None, value) if math.copysign(1, value) > 0 else ("number", "-0")
    return "number", "Infinity" if value > 0 else "-Infinity"


def _write_date(value: datetime.datetime) -> Leaf:
    if value.utcoffset() is None:
        raise Unfit("it has no time zone; give it one, such as with .astimezone()")
    try:
        in_utc = value.astimezone(_UTC)
    except OverflowError:
        raise Unfit("in UTC its year is beyond 1 to 9999") from None
    if in_utc.microsecond % 1000:
        raise Unfit("a Date has milliseconds, and it has microseconds; round it to what is meant")
    return "Date", in_utc.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _read_date(json: Any) -> datetime.datetime:
    if type(json) is str and _ISO_DATE.fullmatch(json):
        try:
            return datetime.datetime.fromisoformat(json[:-1]).replace(tzinfo=_UTC)
        except ValueError:
            # 24:00, the 30th of February, or the year 0.
            pass
    elif type(json) is str and _ISO_FAR.fullmatch(json):
        raise Unfit("a Date beyond the years that Python has, 1 to 9999")
    raise Unfit("no Date as toISOString gives it, in a year from 1 to 9999")


def _write_regexp(value: RegExp) -> Leaf:
    return "regexp", f"/{value.source}/{value.flags}"


def _read_regexp(json: Any) -> RegExp:
    if type(json) is str and json.startswith("/") and (end := json.rfind("/")) > 1:
        try:
            return RegExp(json[1:end], json[end + 1 :])
        except ValueError as error:
            raise Unfit(str(error)) from None
    raise Unfit("no RegExp")


def _read_url(json: Any) -> URL:
    try:
        if type(json) is str:
            return URL(json)
    except ValueError:
        pass
    raise Unfit("no URL")


def _read_undefined(json: Any) -> Undefined:
    if json is not None:
        raise Unfit("undefined is written as null")
    return UNDEFINED


def _read_number(json: Any) -> float:
    if type(json) is str and json in _NUMBERS:
        return _NUMBERS[json]
    raise Unfit("a number of its own type is NaN, an infinity or -0")


def _write_memoryview(value: memoryview) -> Leaf:
    if (reason := plain_bytes(value)) is not None:
        raise Unfit(reason)
    return _typed("Uint8Array"), list(value.tobytes())


def _write_array(value: array.array[Any]) -> Leaf:
    name = _ARRAY_NAMES.get(value.typecode)
    if name is None:
        raise Unfit(f"superjson has no typed array for items of the type {value.typecode!r}")
    return _items(name, value.tolist())


def _write_numpy(value: Any) -> Leaf:
    name = _NUMPY_NAMES.get(value.dtype.name)
    if name is None or value.ndim != 1:
        raise Unfit(f"superjson has no typed array for {value.ndim} dimensions of {value.dtype.name}")
    return _items(name, value.tolist())


def _items(name: str, items: list[Any]) -> Leaf:
    if name.startswith("F") and not all(map(math.isfinite, items)):
        raise Unfit("superjson loses NaN and the infinities in a typed array; send a list")
    return _typed(name), items


def _read_typed(name: str, json: Any) -> Any:
    make = _MAKERS.get(name)
    if make is None:
        raise Unfit(f"no typed array called {name[:80]} is known here")
    numbers = {int, float} if name.startswith("Float") else {int}
    if type(json) is list and numbers.issuperset(map(type, json)):
        try:
            found = make(json)
        except (ValueError, OverflowError):
            pass
        else:
            # What a Float32Array cannot hold was never in one.
            if name != "Float32Array" or found.tolist() == json:
                return found
    raise Unfit(f"what no {name} holds; NaN and the infinities within one come as null")


_MAKERS: dict[str, Callable[[list[Any]], Any]] = {
    **{name: functools.partial(array.array, code) for code, name in _ARRAY_NAMES.items()},
    "Uint8Array": bytes,
    # Node's, a Uint8Array that superjson calls by its own name.
    "Buffer": bytes,
    "Uint8ClampedArray": Uint8ClampedArray,
}


# --- paths ----------------------------------------------------------------------------------

# A dot, what is escaped, a run of plain characters, and a backslash that escapes nothing.
_TOKENS = re.compile(r"(\.)|\\([.\\])|([^.\\]+)|(\\)")
_LEGACY_TOKENS = re.compile(r"(\.)|\\(\.)|([^.\\]+)|(\\)")


def escaped(key: str) -> str:
    """A key as a part of a path."""
    if "\\" in key:
        key = key.replace("\\", "\\\\")
    return key.replace(".", "\\.") if "." in key else key


def parse_path(path: str, *, legacy: bool) -> list[str]:
    """The keys of a path; `legacy` is how superjson wrote them before its version 1 of paths (SUP-5).

    `Unfit` if it is none.
    """
    if "\\" not in path:
        return path.split(".")
    keys: list[str] = []
    parts: list[str] = []
    for found in (_LEGACY_TOKENS if legacy else _TOKENS).finditer(path):
        dot, escape, plain, alone = found.groups()
        if dot:
            keys.append("".join(parts))
            parts = []
        elif alone and not legacy:
            raise Unfit("a path with a backslash that escapes nothing")
        else:
            parts.append(escape or plain or alone)
    keys.append("".join(parts))
    return keys
