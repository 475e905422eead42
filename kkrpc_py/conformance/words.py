"""Values in words: JSON that names the type of each value (spec/testee.md, Values in words).

The runner and the reference testee share it. It owns both directions for the types that Python has, and
nothing of how a value comes over the wire. What Python has not (functions, streams, superjson's
`undefined`, RegExp, URL and Error) is made and recognized by hooks, so that nothing of the library that is
under test is needed here.
"""

from __future__ import annotations

import array
import datetime
import ipaddress
import math
import struct
from collections.abc import Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, TypeAlias
from uuid import UUID

__all__ = [
    "ARRAY_CODES",
    "NAN",
    "BadWords",
    "array_words",
    "float_hex",
    "from_words",
    "hex_float",
    "to_words",
]

Hook: TypeAlias = Callable[[Any], Any]

NAN = "7ff8000000000000"
"""What every NaN is in words."""
ARRAY_CODES = {
    "u8": "B",
    "u16": "H",
    "u32": "I",
    "u64": "Q",
    "i8": "b",
    "i16": "h",
    "i32": "i",
    "i64": "q",
    "f32": "f",
    "f64": "d",
}
"""The type codes of `array` for the types of typed arrays."""
_KINDS = {**dict.fromkeys("BHILQ", "u"), **dict.fromkeys("bhilq", "i"), **dict.fromkeys("fd", "f")}


class BadWords(ValueError):
    """JSON that names no value."""


# To words -----------------------------------------------------------------------------------------


def to_words(value: Any, *, other: Callable[[Any], Mapping[str, Any] | None] | None = None) -> dict[str, Any]:
    """The value in words. `TypeError` if there are none for its type.

    `other` is asked first, for each value within too: it returns the words of a type that it knows, else
    None. So it can tell subclasses of Python's types apart (a URL that is a `str`).
    """
    if other is not None and (found := other(value)) is not None:
        return dict(found)
    match value:
        case None:
            return {"null": True}
        case bool():
            return {"bool": value}
        case int():
            return {"int": _decimal(value)}
        case float():
            return {"float": float_hex(value)}
        case str():
            return {"text": str(value)}
        case bytes() | bytearray():
            return {"bytes": value.hex()}
        case list() | tuple():
            return {"list": [to_words(item, other=other) for item in value]}
        case Mapping():
            pairs = value.items()
            return {"map": [[to_words(key, other=other), to_words(item, other=other)] for key, item in pairs]}
        case set() | frozenset():
            return {"set": [to_words(item, other=other) for item in value]}
    return _leaf_words(value)


def _leaf_words(value: Any) -> dict[str, Any]:
    match value:
        case datetime.datetime():
            return {"datetime": _datetime_text(value)}
        case datetime.date():
            return {"date": value.isoformat()}
        case Decimal():
            return {"decimal": str(value)}
        case Fraction():
            return {"rational": [_decimal(value.numerator), _decimal(value.denominator)]}
        case UUID():
            return {"uuid": str(value)}
        case complex():
            return {"complex": [float_hex(value.real), float_hex(value.imag)]}
        case array.array():
            return array_words(value.typecode, value.itemsize, [len(value)], value.tolist())
        case memoryview():
            shape = list(value.shape or ())
            return array_words(value.format or "B", value.itemsize, shape, _flat(value.tolist(), len(shape)))
    if isinstance(value, _ADDRESSES):
        return {"ip": str(value)}
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # numpy's, which need not be installed
        view = memoryview(value)
        shape = list(view.shape or ())
        return array_words(view.format or "B", view.itemsize, shape, _flat(value.tolist(), len(shape)))
    raise TypeError(f"no words for a {type(value).__name__}")


_ADDRESSES = (
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
)


def array_words(code: str, size: int, shape: list[int], items: list[Any]) -> dict[str, Any]:
    """The words of a typed array whose items have `size` bytes; `code` is that of `array` or `struct`."""
    kind = _KINDS.get(code.lstrip("<>=@|"))
    if kind is None:
        raise TypeError(f"no words for an array of {code!r}")
    return {
        "array": {"type": f"{kind}{8 * size}", "shape": shape, "items": [to_words(item) for item in items]}
    }


def _flat(items: Any, dimensions: int) -> list[Any]:
    if dimensions == 0:
        return [items]
    for _ in range(dimensions - 1):
        items = [item for part in items for item in part]
    return list(items)


def float_hex(value: float) -> str:
    """The double in hex, big-endian; one text for all NaN."""
    return NAN if math.isnan(value) else struct.pack(">d", value).hex()


def _datetime_text(value: datetime.datetime) -> str:
    base = value.replace(microsecond=0, tzinfo=None).isoformat()
    fraction = f".{value.microsecond:06}".rstrip("0").rstrip(".")
    found = value.utcoffset()
    if found is None:
        return f"{base}{fraction}"
    minutes = int(found.total_seconds()) // 60
    sign = "-" if minutes < 0 else "+"
    offset = f"{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    return f"{base}{fraction}{offset}"


def _decimal(number: int) -> str:
    # Python refuses to write more than 4300 digits at once, for the time it takes; these are few.
    if abs(number) < 10**4000:
        return int.__repr__(number)
    sign, number = ("-", -number) if number < 0 else ("", number)
    parts: list[str] = []
    while number >= 10**4000:
        number, rest = divmod(number, 10**4000)
        parts.append(f"{rest:04000}")
    return sign + int.__repr__(number) + "".join(reversed(parts))


# From words ---------------------------------------------------------------------------------------


def from_words(
    words: Any,
    *,
    function: Hook | None = None,
    stream: Hook | None = None,
    undefined: Hook | None = None,
    regexp: Hook | None = None,
    url: Hook | None = None,
    error: Hook | None = None,
    array: Hook | None = None,
) -> Any:
    """The value that the words name. `BadWords` if they name none, or one that no hook makes.

    Each hook gets what stands under the key of its name: `function` a name, `stream` a list of a name and a
    script, `undefined` true, `regexp` and `url` text, `error` a mapping. `array` gets the mapping of an array
    (`type`, `shape`, `items` in words); without it an array of one dimension is an `array.array`, any
    other a memoryview.
    """
    hooks = {
        "function": function,
        "stream": stream,
        "undefined": undefined,
        "regexp": regexp,
        "url": url,
        "error": error,
        "array": array,
    }
    return _Reader({name: hook for name, hook in hooks.items() if hook is not None}).read(words)


def hex_float(text: str) -> float:
    """The double that its hex names."""
    try:
        (value,) = struct.unpack(">d", bytes.fromhex(text))
    except (struct.error, ValueError, TypeError):
        raise BadWords(f"{text!r} is no double in hex") from None
    return float(value)


class _Reader:
    def __init__(self, hooks: Mapping[str, Hook]) -> None:
        self._hooks = hooks

    def read(self, words: Any) -> Any:
        if not isinstance(words, Mapping) or len(words) != 1:
            raise BadWords(f"words are an object with one key, not {str(words)[:80]}")
        ((name, content),) = words.items()
        hook = self._hooks.get(name)
        if hook is not None:
            return hook(content)
        match name:
            case "list":
                return [self.read(item) for item in _list(content)]
            case "map":
                return {_key(self.read(key)): self.read(item) for key, item in map(_pair, _list(content))}
            case "set":
                return {_key(self.read(item)) for item in _list(content)}
            case "array":
                return _array(content, self.read)
        make = _MAKERS.get(name)
        if make is None:
            raise BadWords(f"no value is made of the words {name!r} here")
        try:
            return make(content)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise BadWords(f"{name}: {error}") from None


def _list(content: Any) -> list[Any]:
    if not isinstance(content, list):
        raise BadWords(f"a list was expected, not {str(content)[:80]}")
    return content


def _pair(content: Any) -> tuple[Any, Any]:
    if not isinstance(content, list) or len(content) != 2:
        raise BadWords(f"a pair was expected, not {str(content)[:80]}")
    return content[0], content[1]


def _key(value: Any) -> Any:
    """The value as it can stand as a key or a member."""
    if isinstance(value, list):
        return tuple(map(_key, value))
    return frozenset(value) if isinstance(value, set) else value


def _array(content: Any, read: Hook) -> Any:
    if not isinstance(content, Mapping) or content.get("type") not in ARRAY_CODES:
        raise BadWords("an array has a type, a shape and items")
    shape = _list(content.get("shape"))
    try:
        numbers = array.array(ARRAY_CODES[content["type"]], map(read, _list(content.get("items"))))
    except (TypeError, OverflowError) as error:
        raise BadWords(f"array: {error}") from None
    if math.prod(shape) != len(numbers):
        raise BadWords("the shape of an array must fit its items")
    if len(shape) == 1:
        return numbers
    view: Any = memoryview(numbers)
    return view.cast("B").cast(numbers.typecode, shape) if numbers else view  # it has no empty dimensions


def _int(text: Any) -> int:
    if type(text) is not str:
        raise TypeError("a text of decimal digits")
    if len(text) <= 4000:
        return int(text)
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    number = 0
    for start in range(0, len(digits), 4000):
        part = digits[start : start + 4000]
        number = number * 10 ** len(part) + int(part)
    return sign * number


def _exactly(kind: type) -> Hook:
    def make(content: Any) -> Any:
        if type(content) is not kind:
            raise TypeError(f"a {kind.__name__} was expected")
        return content

    return make


def _address(text: str) -> Any:
    if "/" not in text:
        return ipaddress.ip_address(text)
    interface = ipaddress.ip_interface(text)
    # Where no host bit is set the words cannot say which of both: it is the network.
    return interface.network if interface.ip == interface.network.network_address else interface


_MAKERS: dict[str, Hook] = {
    "null": lambda _: None,
    "bool": _exactly(bool),
    "int": _int,
    "float": hex_float,
    "text": _exactly(str),
    "bytes": bytes.fromhex,
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "decimal": Decimal,
    "rational": lambda content: Fraction(*map(_int, _pair(content))),
    "uuid": UUID,
    "ip": _address,
    "complex": lambda content: complex(*map(hex_float, _pair(content))),
}
