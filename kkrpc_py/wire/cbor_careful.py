"""Reads CBOR in Python, item by item: the second pass over what the CBOR library refused.

The library decodes at C speed, with maps whose keys are text or bytes. Keys of other types could be
chosen so that their hashes are all equal, and a map of them then takes quadratic time before any code
of ours sees it; so those are read here, where the keys are looked at first. This pass also says why a
payload was refused, and finds out whom it concerns. It is some fifty times slower, and bounded for it.

It owns the syntax of CBOR. What tags mean is in `cbor_tags`.
"""

from __future__ import annotations

import struct
from typing import Any

from kkrpc_py.wire.cbor_tags import RefusedContent, TaggedTypes, evenly_hashed, frozen

__all__ = ["CarefulReader", "MalformedCbor", "skeleton"]

_ITEMS = 1_000_000
"""Items that one payload may hold here: about a second."""
_FLOATS = {25: (">e", 2), 26: (">f", 4), 27: (">d", 8)}
_LONG_SIMPLE = "a simple value in two bytes that fits in one"
_SIMPLE = {20: False, 21: True, 22: None}
_BYTES, _TEXT, _ARRAY, _MAP, _TAG, _OTHER = 2, 3, 4, 5, 6, 7
_ENDLESS = 31
"""Beside a major type: the length is indefinite, and a break ends it. Beside `_OTHER`: that break."""
_ID_BYTES = 1024
_AWAITS_VALUE = -100
"""A level of `_pass_over`: a map of indefinite length after a key, which no break may follow."""
_SET, _SHAPED = 258, 40


class MalformedCbor(ValueError):
    """The bytes are not one well-formed CBOR item."""


class _Heads:
    """The heads of a payload's items, one after the other."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.at = 0
        self._left = _ITEMS

    def take(self, size: int) -> bytes:
        start, self.at = self.at, self.at + size
        if self.at > len(self.payload):
            raise MalformedCbor("the payload ends within an item")
        return self.payload[start : self.at]

    def next(self, *, endless: bool = False) -> tuple[int, int, int]:
        """Major type, the five bits beside it, and the argument that they announce.

        With `endless` it may be an indefinite length, or the break after one, with -1 as its argument.
        """
        self._left -= 1
        if self._left < 0:
            raise RefusedContent(f"more than {_ITEMS} items in a message with keys that are no text")
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if info < 24:
            return major, info, info
        if info < 28:
            return major, info, int.from_bytes(self.take(1 << (info - 24)), "big")
        if info == _ENDLESS and _BYTES <= major <= _MAP:
            if not endless:
                raise RefusedContent("indefinite lengths are not agreed on")
            return major, info, -1
        if info == _ENDLESS and major == _OTHER and endless:
            return major, info, -1
        raise MalformedCbor("a head that CBOR reserves")

    def at_break(self) -> bool:
        """Whether a break comes next; then it is passed over."""
        found = self.payload[self.at : self.at + 1] == b"\xff"
        self.at += found
        return found


class CarefulReader:
    """Decodes one payload."""

    def __init__(self, payload: bytes, tags: TaggedTypes, depth: int) -> None:
        self._heads = _Heads(payload)
        self._tags = tags
        self._depth = depth

    def read(self) -> Any:
        """The value; `MalformedCbor` or `RefusedContent` if there is none."""
        value = self._item(self._depth)
        if self._heads.at != len(self._heads.payload):
            raise MalformedCbor("more bytes follow the item")
        return value

    def _item(self, room: int, *, tagged: bool = False, within_tag: bool = False) -> Any:
        """The next item; `room` is how deep it may be nested, `tagged` whether a tag stands before it.

        What a tag holds is no level (FRM-8), but a set's array; within it no other tag is spared again.
        """
        major, info, argument = self._heads.next()
        match major:
            case 0:
                return self._tags.integer(argument)
            case 1:
                return self._tags.integer(-1 - argument)
            case 2:
                return self._heads.take(argument)
            case 3:
                return _text(self._heads.take(argument))
            case 6:
                if tagged:
                    raise RefusedContent("a tag around a tag is not agreed on")
                if argument != _SET and not within_tag:
                    room += 2 if argument == _SHAPED else 1
                    within_tag = True
                return self._tags.read(argument, self._item(room, tagged=True, within_tag=within_tag))
            case 7:
                return _simple(info, argument)
            case _:
                if room <= 0:
                    raise RefusedContent(f"nested deeper than Limits.depth ({self._depth})")
                if major == _MAP:
                    return self._map(argument, room - 1, within_tag)
                return [self._item(room - 1, within_tag=within_tag) for _ in range(argument)]

    def _map(self, size: int, room: int, within_tag: bool) -> dict[Any, Any]:
        keys: list[Any] = []
        values: list[Any] = []
        for _ in range(size):
            keys.append(frozen(self._item(room, within_tag=within_tag)))
            values.append(self._item(room, within_tag=within_tag))
        try:
            if not evenly_hashed(keys):
                raise RefusedContent("too many keys of a map share one hash")
            found = dict(zip(keys, values, strict=True))
        except TypeError as error:
            raise RefusedContent(f"what cannot be a key: {error}") from None
        if len(found) != size:
            raise RefusedContent("two keys of a map are equal")
        return found


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise MalformedCbor("text that is not UTF-8") from None


def _simple(info: int, argument: int) -> Any:
    if info in _FLOATS:
        code, size = _FLOATS[info]
        return struct.unpack(code, argument.to_bytes(size, "big"))[0]
    if info in _SIMPLE:
        return _SIMPLE[info]
    if info == 24 and argument < 32:
        raise MalformedCbor(_LONG_SIMPLE)
    raise RefusedContent(f"CBOR's simple value {argument} is not agreed on")


def skeleton(payload: bytes) -> tuple[Any, Any, Any, Any]:
    """`id`, `type`, `callbackIds` and `streamIds` of a message whose content was refused; None where unknown.

    Nothing is built but these, and nothing recursive done, so the content may be anything well-formed.
    """
    heads = _Heads(payload)
    known: dict[str, Any] = dict.fromkeys(("id", "type", "callbackIds", "streamIds"))
    try:
        major, _, size = heads.next(endless=True)
        if major != _MAP:
            return None, None, None, None
        while size and not (size < 0 and heads.at_break()):
            size -= 1
            key = _scalar(heads)
            value = _scalars(heads) if key in ("callbackIds", "streamIds") else _scalar(heads)
            if type(key) is str and key in known:
                known[key] = value
        if heads.at != len(payload):
            return None, None, None, None
    except MalformedCbor:
        return None, None, None, None
    except RefusedContent:  # too many items; what was told before them holds
        pass
    return known["id"], known["type"], known["callbackIds"], known["streamIds"]


def _scalars(heads: _Heads) -> list[Any] | None:
    """The next item if it is an array of such; anything else is passed over."""
    at = heads.at
    major, _, size = heads.next(endless=True)
    if major == _ARRAY and size >= 0:
        return [_scalar(heads) for _ in range(size)]
    heads.at = at
    _scalar(heads)
    return None


def _scalar(heads: _Heads) -> Any:
    """The next item if it is text or a plain integer; anything else is passed over."""
    major, info, argument = heads.next(endless=True)
    if major < _BYTES:
        return argument if major == 0 else -1 - argument
    if major == _TEXT and info != _ENDLESS:
        return _text(heads.take(argument))
    if major == _TAG and argument in (2, 3):
        return _big_integer(heads, negative=argument == 3)
    _pass_over(heads, major, info, argument)
    return None


def _big_integer(heads: _Heads, *, negative: bool) -> int | None:
    """What follows the tag of a big integer; None for another item, and for more digits than an id has."""
    major, info, argument = heads.next(endless=True)
    if major != _BYTES or info == _ENDLESS:
        _pass_over(heads, major, info, argument)
        return None
    content = heads.take(argument)
    if len(content) > _ID_BYTES:
        return None
    number = int.from_bytes(content, "big")
    return -1 - number if negative else number


def _pass_over(heads: _Heads, major: int, info: int, argument: int) -> None:
    """The rest of an item whose head was read; `MalformedCbor` for what is not well-formed."""
    # How many items are left at each level. Below zero: they end with a break, and it says of what type.
    levels: list[int] = []
    while True:
        if argument < 0:
            if major == _OTHER:
                raise MalformedCbor("a break where nothing is to be ended")
            levels.append(-major)
        elif major == _BYTES:
            heads.take(argument)
        elif major == _TEXT:
            _text(heads.take(argument))
        elif major == _ARRAY:
            levels.append(argument)
        elif major == _MAP:
            levels.append(2 * argument)
        elif major == _TAG:
            levels.append(1)
        elif major == _OTHER and info == 24 and argument < 32:
            raise MalformedCbor(_LONG_SIMPLE)
        while levels and (levels[-1] == 0 or (_AWAITS_VALUE != levels[-1] < 0 and heads.at_break())):
            levels.pop()
        if not levels:
            return
        within = levels[-1]
        if within > 0:
            levels[-1] -= 1
        elif within in (-_MAP, _AWAITS_VALUE):
            levels[-1] = -_MAP + _AWAITS_VALUE - within
        major, info, argument = heads.next(endless=True)
        if within in (-_BYTES, -_TEXT) and (major != -within or argument < 0):
            raise MalformedCbor("a string of indefinite length holds what is no part of it")
