"""The types that CBOR carries by a tag: the allow-list, and what each tag's content must be (VAL-6).

It owns both directions: which values of such a type may be sent, and the value that a tag's content
stands for. Everything that the content can make large is bounded here. It knows no bytes: content is
what a CBOR reader has decoded, a list or a tuple where CBOR has an array.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import cbor2

from kkrpc_py.wire.arrays import SHAPED, TYPED, read_shaped, read_typed
from kkrpc_py.wire.values import Check, digits_bound

__all__ = ["RefusedContent", "TaggedTypes", "evenly_hashed", "frozen", "tagged_form"]

_IPV6 = 54
_EXTENDED_DECIMAL = 268
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_FULL_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
# Equal hashes in one set or map beyond which somebody chose them: their number squared is what the
# hash table then costs. Ordinary values share a hash by pairs (-1 and -2).
_EQUAL_HASHES = 64
_ZONES = frozenset((datetime.timezone, ZoneInfo))


class RefusedContent(ValueError):
    """Well-formed CBOR whose content is not agreed on, or passes a bound."""


class TaggedTypes:
    """The tags and types within the bounds of one channel."""

    def __init__(self, digits: int) -> None:
        self._digits = digits
        self._max_int = digits_bound(digits)
        # The largest integer has this many bits, and so many bytes hold it.
        self._int_bytes = self._max_int.bit_length() // 8 + 1
        self.leaves: dict[type, Check | None] = {
            datetime.datetime: _datetime_refusal,
            datetime.date: None,
            Decimal: self._decimal_refusal,
            Fraction: self._fraction_refusal,
            UUID: None,
            complex: None,
            IPv4Address: None,
            IPv6Address: None,
            IPv4Network: None,
            IPv6Network: None,
            IPv4Interface: None,
            IPv6Interface: None,
        }
        self.readers: dict[int, Callable[[Any], Any]] = {
            0: _read_datetime,
            2: self._read_int,
            3: self._read_negative_int,
            4: self._read_decimal,
            30: self._read_fraction,
            37: _read_uuid,
            SHAPED: read_shaped,
            52: _read_ipv4,
            _IPV6: _read_ipv6,
            258: _read_set,
            _EXTENDED_DECIMAL: self._read_extended_decimal,
            1004: _read_date,
            43000: _read_complex,
        } | {tag: functools.partial(read_typed, tag) for tag in TYPED}

    def read(self, tag: int, content: Any) -> Any:
        """The value of a tag around decoded content; `RefusedContent` if there is none."""
        reader = self.readers.get(tag)
        if reader is None:
            raise RefusedContent(f"CBOR tag {tag} is not one of those agreed on")
        try:
            return reader(content)
        except RefusedContent:
            raise
        except (ValueError, TypeError, ArithmeticError) as error:
            raise RefusedContent(f"CBOR tag {tag} around what it cannot hold: {error}") from None

    def _decimal_refusal(self, value: Decimal) -> str | None:
        _, digits, exponent = value.as_tuple()
        if not isinstance(exponent, int):
            exponent = 0
        if self._decimal_fits(len(digits), exponent):
            return None
        return "written out, it has more digits than Limits.digits allows"

    def _decimal_fits(self, digits: int, exponent: int) -> bool:
        return digits <= self._digits and -self._digits <= exponent <= self._digits - digits

    def _fraction_refusal(self, value: Fraction) -> str | None:
        if abs(value.numerator) <= self._max_int and value.denominator <= self._max_int:
            return None
        return "it has more digits than Limits.digits allows"

    def integer(self, value: Any) -> int:
        """`value` if it is an integer within the bound, else `RefusedContent`."""
        if type(value) is not int:
            raise RefusedContent(f"an integer was expected, not {type(value).__name__}")
        if not -self._max_int <= value <= self._max_int:
            raise RefusedContent(f"an integer of more than Limits.digits ({self._digits}) digits")
        return value

    def _read_int(self, content: Any) -> int:
        if type(content) is not bytes:
            raise RefusedContent("a big integer must be a byte string")
        if len(content) > self._int_bytes and content.lstrip(b"\0")[self._int_bytes :]:
            raise RefusedContent(f"an integer of more than Limits.digits ({self._digits}) digits")
        return self.integer(int.from_bytes(content, "big"))

    def _read_negative_int(self, content: Any) -> int:
        return self.integer(-1 - self._read_int(content))

    def _read_decimal(self, content: Any) -> Decimal:
        exponent, mantissa = content
        return self._decimal(self.integer(exponent), self.integer(mantissa))

    def _decimal(self, exponent: int, mantissa: int, *, negative: bool = False) -> Decimal:
        digits = str(abs(mantissa))
        if not self._decimal_fits(len(digits), exponent):
            raise RefusedContent(f"a decimal of more than Limits.digits ({self._digits}) digits")
        sign = int(negative or mantissa < 0)
        # Built from its parts it is exact, whatever the context's precision.
        return Decimal((sign, tuple(map(int, digits)), exponent))

    def _read_extended_decimal(self, content: Any) -> Decimal:
        exponent, mantissa, option = content
        if self.integer(mantissa) < 0 or type(option) is not int or not 0 <= option <= 7:
            raise RefusedContent("an extended decimal fraction of no known kind")
        if option < 2:
            return self._decimal(self.integer(exponent), mantissa, negative=option == 1)
        if self.integer(exponent) != 0 or (option < 4 and mantissa != 0):
            raise RefusedContent("an infinity or a NaN with an exponent")
        kind = ("F", "n", "N")[option // 2 - 1]
        digits = tuple(map(int, str(mantissa))) if mantissa else ()
        return Decimal((option % 2, digits, kind))  # type: ignore[arg-type]  # typeshed has no letters there

    def _read_fraction(self, content: Any) -> Fraction:
        numerator, denominator = content
        if self.integer(denominator) <= 0:
            raise RefusedContent("a rational number's denominator must be above zero")
        return Fraction(self.integer(numerator), denominator)


def tagged_form(value: Decimal | IPv6Address | IPv6Interface) -> Any:
    """What is written for a value: itself, but for those that the CBOR library would change.

    Those are the decimals -0, the infinities and the NaNs, which become tag 268, extended decimal fraction,
    and IPv6 with a zone, which the library writes as bytes where RFC 9164 has text.
    """
    if not isinstance(value, Decimal):
        if value.scope_id is None:
            return value
        length = value.network.prefixlen if isinstance(value, IPv6Interface) else None
        return cbor2.CBORTag(_IPV6, (value.packed, length, value.scope_id))
    sign, digits, exponent = value.as_tuple()
    if isinstance(exponent, int) and (value or not sign):
        return value
    if isinstance(exponent, int):
        return cbor2.CBORTag(_EXTENDED_DECIMAL, (exponent, 0, 1))
    mantissa = int("".join(map(str, digits)) or "0")
    return cbor2.CBORTag(_EXTENDED_DECIMAL, (0, mantissa, 2 * ("F", "n", "N").index(exponent) + 2 + sign))


def _datetime_refusal(value: datetime.datetime) -> str | None:
    zone = value.tzinfo
    if zone is None:
        return "it has no time zone; give it one, such as with .astimezone()"
    if type(zone) not in _ZONES and type(zone.utcoffset(None)) is not datetime.timedelta:
        return f"its time zone is a {type(zone).__qualname__}, neither a fixed offset nor a ZoneInfo"
    offset = value.utcoffset()
    if offset is None or offset % datetime.timedelta(minutes=1):
        return "its offset from UTC is not one of whole minutes, as RFC 3339 demands"
    return None


def _read_datetime(content: Any) -> datetime.datetime:
    if type(content) is not str or not _RFC3339.fullmatch(content):
        raise RefusedContent("a date and time must be RFC 3339 text, to the microsecond at most")
    return datetime.datetime.fromisoformat(content)


def _read_date(content: Any) -> datetime.date:
    if type(content) is not str or not _FULL_DATE.fullmatch(content):
        raise RefusedContent("a date must be RFC 3339 text")
    return datetime.date.fromisoformat(content)


def _read_uuid(content: Any) -> UUID:
    if type(content) is not bytes:
        raise RefusedContent("a UUID must be a byte string")
    return UUID(bytes=content)


def _read_complex(content: Any) -> complex:
    real, imaginary = content
    if type(real) is not float or type(imaginary) is not float:
        raise RefusedContent("a complex number must be of two floats")
    return complex(real, imaginary)


def _read_ipv4(content: Any) -> IPv4Address | IPv4Network | IPv4Interface:
    """RFC 9164: an address; [address, length, …]: an interface; [length, prefix]: a network."""
    if type(content) is bytes:
        return IPv4Address(content)
    first, second = content
    if type(first) is bytes and type(second) is int:
        return IPv4Interface((first, second))
    if type(first) is int and type(second) is bytes and len(second) <= 4:
        return IPv4Network((second.ljust(4, b"\0"), first))
    raise RefusedContent("no form of RFC 9164")


def _read_ipv6(content: Any) -> IPv6Address | IPv6Network | IPv6Interface:
    """As for IPv4; an address with a zone is [address, length or null, zone]."""
    if type(content) is bytes:
        return IPv6Address(content)
    zone = ""
    if len(content) == 3:
        *content, scope = content
        if type(scope) is bytes:  # as some libraries write it
            scope = scope.decode()
        if not (type(scope) is int and scope >= 0) and not (type(scope) is str and scope):
            raise RefusedContent("an IPv6 zone must be text or an integer, zero or more")
        zone = f"%{scope}"
    first, second = content
    if type(first) is bytes and len(first) == 16 and type(second) is int:
        return IPv6Interface((f"{IPv6Address(first)}{zone}", second))
    if type(first) is bytes and len(first) == 16 and second is None and zone:
        return IPv6Address(f"{IPv6Address(first)}{zone}")
    if type(first) is int and type(second) is bytes and len(second) <= 16 and not zone:
        return IPv6Network((second.ljust(16, b"\0"), first))
    raise RefusedContent("no form of RFC 9164")


def _read_set(content: Any) -> set[Any]:
    if type(content) is not list and type(content) is not tuple:
        raise RefusedContent("a set must be an array")
    members = list(map(frozen, content))
    if not evenly_hashed(members):
        raise RefusedContent("too many members of a set share one hash")
    found = set(members)
    if len(found) != len(members):
        raise RefusedContent("two members of a set are equal")
    return found


def frozen(value: Any) -> Any:
    """A decoded value as it can stand in a set or as a map's key."""
    kind = type(value)
    if kind is list or kind is tuple:
        return tuple(map(frozen, value))
    if kind is set:
        return frozenset(value)
    if kind is dict:
        raise RefusedContent("a map cannot be a member of a set or a key")
    return value


def evenly_hashed(values: Iterable[Any]) -> bool:
    """Whether a hash table of these takes a time in proportion to their number.

    Numbers, and what is made of them, have hashes that anybody can compute and make equal; those
    of text and bytes are seeded. Sorting does not mind equal hashes.
    """
    hashes = sorted(map(hash, values))
    return all(map(int.__ne__, hashes[_EQUAL_HASHES:], hashes))
