"""CBOR as the kit reads it: each value as JSON where JSON has it, in words where it has not.

It owns the reading of one payload, and is no library: it shares no line with what the reference testee writes
with, so that both cannot be wrong in the same way. It accepts what VAL-6 and VAL-7 let a sender write.
"""

from __future__ import annotations

import datetime
import ipaddress
import math
import re
import struct
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any, Final
from uuid import UUID

from kkrpc_py.conformance.words import ARRAY_CODES, array_words, float_hex, to_words

__all__ = ["BadCbor", "Words", "loads", "words_of"]


BIG_BYTES: Final = 40_000
"""The longest integer that is read: about 100,000 digits, which take long enough to write out."""


class BadCbor(ValueError):
    """Bytes that are no CBOR, or none that a sender may write."""


class Words:
    """A value that JSON has not, in words."""

    __slots__ = ("words",)

    def __init__(self, words: dict[str, Any]) -> None:
        self.words = words

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Words) and other.words == self.words

    __hash__ = None  # type: ignore[assignment]  # what it holds has none either

    def __repr__(self) -> str:
        return f"Words({self.words!r})"


def words_of(value: Any) -> dict[str, Any]:
    """What was read, in words: JSON's values too."""
    return to_words(value, other=lambda item: item.words if isinstance(item, Words) else None)


def loads(payload: bytes) -> Any:
    """The one value of a payload; `BadCbor` if it is not exactly one."""
    reader = _Reader(payload)
    try:
        value = reader.value()
    except (IndexError, struct.error):
        raise BadCbor("the payload ends within a value") from None
    except RecursionError:
        raise BadCbor("nested too deep") from None
    if reader.position != len(payload):
        raise BadCbor(f"{len(payload) - reader.position} bytes after the value")
    return value


class _Reader:
    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self.position = 0

    def value(self) -> Any:
        first = self._payload[self.position]
        self.position += 1
        major, info = first >> 5, first & 31
        if major == 7:
            return self._simple(info)
        number = self._argument(info)
        match major:
            case 0:
                return number
            case 1:
                return -1 - number
            case 2:
                return Words({"bytes": self._take(number).hex()})
            case 3:
                try:
                    return self._take(number).decode()
                except UnicodeDecodeError:
                    raise BadCbor("text that is no UTF-8") from None
            case 4:
                return [self.value() for _ in range(self._count(number))]
            case 5:
                return self._map(self._count(number))
        return _tagged(number, self.value())

    def _argument(self, info: int) -> int:
        if info < 24:
            return info
        if info > 27:
            raise BadCbor("a length that is not definite")
        return int.from_bytes(self._take(1 << (info - 24)))

    def _take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self._payload):
            raise IndexError
        found = self._payload[self.position : end]
        self.position = end
        return found

    def _count(self, number: int) -> int:
        if number > len(self._payload):
            raise IndexError
        return number

    def _map(self, count: int) -> Any:
        pairs = [(self.value(), self.value()) for _ in range(count)]
        names = [key for key, _ in pairs if isinstance(key, str)]
        if len(set(names)) != len(names):
            raise BadCbor("a map with two equal keys")
        if len(names) == count:
            return dict(pairs)
        return Words({"map": [[words_of(key), words_of(item)] for key, item in pairs]})

    def _simple(self, info: int) -> Any:
        match info:
            case 20 | 21:
                return info == 21
            case 22:
                return None
            case 23:
                return Words({"undefined": True})
            case 25 | 26 | 27:
                size, code = {25: (2, ">e"), 26: (4, ">f"), 27: (8, ">d")}[info]
                return struct.unpack(code, self._take(size))[0]
        raise BadCbor(f"the simple value {info}")


# Tags (VAL-6) ---------------------------------------------------------------------------------------

_CODES = {
    64: "u8",
    69: "u16",
    70: "u32",
    71: "u64",
    72: "i8",
    77: "i16",
    78: "i32",
    79: "i64",
    85: "f32",
    86: "f64",
}
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?(Z|[+-]\d\d:\d\d)",
    re.ASCII,
)


def _tagged(tag: int, content: Any) -> Any:
    read = _TAGS.get(tag)
    if read is None and tag not in _CODES:
        raise BadCbor(f"the tag {tag}")
    try:
        found = _typed(tag, content) if read is None else read(content)
    except BadCbor:
        raise
    except (ValueError, TypeError, ArithmeticError, KeyError) as error:
        raise BadCbor(f"the tag {tag} around what it cannot hold: {error}") from None
    return found if isinstance(found, int) else Words(found)


def _bytes(content: Any) -> bytes:
    if not isinstance(content, Words) or "bytes" not in content.words:
        raise BadCbor("a byte string was expected")
    return bytes.fromhex(content.words["bytes"])


def _big(content: Any) -> int:
    data = _bytes(content)
    if len(data) > BIG_BYTES:
        raise BadCbor(f"an integer of {len(data)} bytes")
    return int.from_bytes(data)


def _int(content: Any) -> int:
    if type(content) is not int:
        raise BadCbor("an integer was expected")
    return content


def _list(content: Any, *sizes: int) -> list[Any]:
    if not isinstance(content, list) or (sizes and len(content) not in sizes):
        raise BadCbor("an array of another size was expected")
    return content


def _datetime(content: Any) -> dict[str, Any]:
    found = _RFC3339.fullmatch(content)
    if found is None:
        raise BadCbor("a date and time of RFC 3339 was expected")
    base, fraction, offset = found.groups()
    datetime.datetime.fromisoformat(base)
    fraction = (fraction or "").rstrip("0").rstrip(".")
    return {"datetime": f"{base}{fraction}{'+00:00' if offset == 'Z' else offset}"}


def _date(content: Any) -> dict[str, Any]:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", content, re.ASCII):
        raise BadCbor("a full-date of RFC 3339 was expected")
    datetime.date.fromisoformat(content)
    return {"date": content}


def _decimal(content: Any) -> dict[str, Any]:
    exponent, mantissa = map(_int, _list(content, 2))
    return {"decimal": _decimal_text(mantissa < 0, abs(mantissa), exponent)}


def _decimal_text(negative: bool, mantissa: int, exponent: int) -> str:
    digits = tuple(map(int, to_words(mantissa)["int"]))
    with localcontext() as context:
        context.Emax, context.Emin = 10**17, -(10**17)
        return str(Decimal((int(negative), digits, exponent)))


def _extended_decimal(content: Any) -> dict[str, Any]:
    exponent, mantissa, kind = map(_int, _list(content, 3))
    if mantissa < 0 or not 0 <= kind <= 7:
        raise BadCbor("an extended decimal fraction of no known kind")
    if kind < 2:
        return {"decimal": _decimal_text(kind == 1, mantissa, exponent)}
    if exponent or (kind < 4 and mantissa):
        raise BadCbor("an infinity or a NaN with an exponent")
    name = ("Infinity", "NaN", "sNaN")[kind // 2 - 1]
    return {"decimal": f"{'-' * (kind % 2)}{name}{mantissa or ''}"}


def _rational(content: Any) -> dict[str, Any]:
    numerator, denominator = map(_int, _list(content, 2))
    if denominator <= 0:
        raise BadCbor("a denominator that is not above zero")
    common = math.gcd(numerator, denominator)
    return {"rational": [to_words(numerator // common)["int"], to_words(denominator // common)["int"]]}


def _uuid(content: Any) -> dict[str, Any]:
    return {"uuid": str(UUID(bytes=_bytes(content)))}


def _ip(size: int) -> Callable[[Any], dict[str, Any]]:
    """RFC 9164: an address is a byte string, an interface [address, length], a network [length, prefix]."""
    make: Any = ipaddress.IPv4Address if size == 4 else ipaddress.IPv6Address

    def read(content: Any) -> dict[str, Any]:
        if isinstance(content, Words):
            return {"ip": _address(_bytes(content))}
        parts = _list(content, 2, 3)
        zone = "" if len(parts) < 3 else _zone(parts[2])
        first, second = parts[:2]
        if isinstance(first, int):
            prefix = _bytes(second)
            if prefix.endswith(b"\0"):
                raise BadCbor("a prefix with zeros at its end")
            return {"ip": f"{_address(prefix.ljust(size, bytes(1)))}/{first}"}
        address = _address(_bytes(first)) + zone
        return {"ip": address if second is None else f"{address}/{_int(second)}"}

    def _address(content: bytes) -> str:
        if len(content) != size:
            raise BadCbor("an address of another length was expected")
        return str(make(content))

    return read


def _zone(content: Any) -> str:
    text = _bytes(content).decode() if isinstance(content, Words) else str(content)
    if isinstance(content, bool) or not isinstance(content, str | int | Words) or not text:
        raise BadCbor("a zone is text or an integer")
    return f"%{text}"


def _set(content: Any) -> dict[str, Any]:
    members = [words_of(member) for member in _list(content)]
    if any(member in members[:index] for index, member in enumerate(members)):
        raise BadCbor("a set with two equal members")
    return {"set": members}


def _complex(content: Any) -> dict[str, Any]:
    real, imaginary = _list(content, 2)
    if type(real) is not float or type(imaginary) is not float:
        raise BadCbor("the parts of a complex number are floats")
    return {"complex": [float_hex(real), float_hex(imaginary)]}


def _typed(tag: int, content: Any) -> dict[str, Any]:
    data, code = _bytes(content), ARRAY_CODES[_CODES[tag]]
    size = struct.calcsize(f"<{code}")
    if len(data) % size:
        raise BadCbor("a typed array with a part of an item")
    items = [item for (item,) in struct.iter_unpack(f"<{code}", data)]
    return array_words(code, size, [len(items)], items)


def _shaped(content: Any) -> dict[str, Any]:
    shape, numbers = _list(content, 2)
    if not isinstance(numbers, Words) or "array" not in numbers.words:
        raise BadCbor("a typed array was expected")
    found = numbers.words["array"]
    if math.prod(map(_int, _list(shape))) != len(found["items"]):
        raise BadCbor("a shape that does not fit its items")
    return {"array": {"type": found["type"], "shape": shape, "items": found["items"]}}


_TAGS: dict[int, Callable[[Any], Any]] = {
    0: _datetime,
    2: lambda content: _big(content),
    3: lambda content: -1 - _big(content),
    4: _decimal,
    30: _rational,
    37: _uuid,
    40: _shaped,
    52: _ip(4),
    54: _ip(16),
    258: _set,
    268: _extended_decimal,
    1004: _date,
    43000: _complex,
}
