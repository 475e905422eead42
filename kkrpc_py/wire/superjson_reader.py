"""superjson's lines to messages, as far as superjson itself would have written them (SUP-1 to SUP-9).

It owns what the annotations of a line do to its JSON, and the bounds on what they may. A line whose
annotations are not superjson's own is refused as a whole: nothing of it is guessed.

Three passes, each linear in the line. The types of values that hold no others are put in their places
at once, those of Maps, Sets and Errors are noted; then the places that hold one object are made to; at
last Maps, Sets and Errors are built from within. All paths go by the JSON, where no member of a Set
has another index than it had when the path was written.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from typing import Any

import msgspec

from kkrpc_py.errors.remote import make_remote
from kkrpc_py.limits import Limits
from kkrpc_py.wire.classic import Parser
from kkrpc_py.wire.js import UNDEFINED, Array, BigInt, Map, Object
from kkrpc_py.wire.json_codec import (
    JsonError,
    JsonLimitError,
    JsonReader,
    Skeleton,
    _deeper_than,
    _loads_unpaired,
    _may_hold_long_number,
)
from kkrpc_py.wire.messages import Message
from kkrpc_py.wire.superjson import (
    ERROR,
    FORBIDDEN,
    JS_MAX,
    MAP,
    SET,
    VALUE_FIELDS,
    Leaves,
    Unfit,
    parse_path,
)

__all__ = ["SuperjsonReader"]

_LONG_NUMBER = re.compile(rb"[0-9]{16}")
_BOXES: dict[str, type] = {MAP: list, SET: list, ERROR: dict}
# Of what kkrpc writes beside the values, these may be undefined.
_OPTIONAL = frozenset(("callbackIds", "transferSlots", "streamIds", "kwargs", "meta"))
# Fewer members need no look at their hashes.
_FEW = 64
_ERROR_KEYS = frozenset(("name", "message", "stack", "cause"))


class _LineSkeleton(msgspec.Struct):
    json: Skeleton


class SuperjsonReader:
    """Reads lines within the bounds of one channel."""

    def __init__(self, limits: Limits, parser: Parser) -> None:
        self._limits = limits
        self._parser = parser
        self._leaves = Leaves(limits)
        self._json = JsonReader(limits)
        self._decode = msgspec.json.Decoder().decode
        self._skeletons = msgspec.json.Decoder(_LineSkeleton)

    def read(self, text: bytes) -> Message | str:
        """The message of a line, `Malformed` if its values cannot be had; or why it is none."""
        try:
            line = self._loads(text)
        except JsonLimitError as error:
            return self._parser.malformed(*self._salvage(text), str(error)) or str(error)
        except JsonError as error:
            return f"not JSON: {error}"
        message, meta = line.get("json"), line.get("meta")
        if type(message) is not dict:
            return "superjson of no message"
        try:
            if _LONG_NUMBER.search(text):
                for key in VALUE_FIELDS.intersection(message):
                    message[key] = _as_doubles(message[key])
            if meta is not None:
                _Values(self._leaves, message, self._limits.depth, len(text)).apply(meta)
        except (Unfit, RecursionError) as error:
            reason = f"superjson: {error}"
            id, kind, functions, streams = map(message.get, ("id", "type", "callbackIds", "streamIds"))
            return self._parser.malformed(id, kind, functions, streams, reason) or reason
        return self._parser.parse(_without_undefined(message)) or "superjson of no known type"

    def _loads(self, text: bytes) -> Any:
        if len(text) > self._limits.depth and _deeper_than(self._limits.depth, text):
            raise JsonLimitError(f"nested deeper than Limits.depth ({self._limits.depth})")
        if len(text) > self._limits.digits and _may_hold_long_number(text, self._limits.digits):
            self._json._refuse_long_number(text)
        try:
            return self._decode(text)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            return _loads_unpaired(text, error)

    def _salvage(self, text: bytes) -> tuple[Any, Any, Any, Any]:
        """What can be had of a message that passes a bound, as `JsonReader.salvage` has it."""
        try:
            found = self._skeletons.decode(text).json
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None, None, None, None
        return found.any_id(), found.type, *found.named()


def _as_doubles(value: Any) -> Any:
    """The value with floats for integers that are doubles in JavaScript: what is exact comes as bigint."""
    kind = type(value)
    if kind is int:
        try:
            return value if -JS_MAX <= value <= JS_MAX else float(value)
        except OverflowError:
            raise Unfit("a number out of range") from None
    if kind is dict:
        for key, item in value.items():
            if type(item) in _MAY_HOLD_NUMBERS:
                value[key] = _as_doubles(item)
    elif kind is list and not _MAY_HOLD_NUMBERS.isdisjoint(map(type, value)):
        value[:] = map(_as_doubles, value)
    return value


_MAY_HOLD_NUMBERS: frozenset[type] = frozenset((int, dict, list))


def _without_undefined(message: dict[str, Any]) -> dict[str, Any]:
    """The message without the fields that superjson spells out where JSON leaves them away."""
    for key in _OPTIONAL:
        if message.get(key) is UNDEFINED:
            del message[key]
    args = message.get("args")
    if type(args) is dict:
        # A result that is undefined is none. An error is one if JavaScript takes it for true.
        if args.get("result") is UNDEFINED:
            del args["result"]
        if "error" in args and _is_false(args["error"]):
            del args["error"]
    return message


def _is_false(value: Any) -> bool:
    return value is UNDEFINED or value != value or (type(value) is BigInt and not value)


class _Values:
    """One message, on its way from what its JSON says to what was meant."""

    def __init__(self, leaves: Leaves, message: dict[str, Any], depth: int, size: int) -> None:
        self._leaves = leaves
        self._message = message
        self._depth = depth
        self._size = size
        self._legacy = False
        self._boxes: dict[int, tuple[str, Any]] = {}
        """The JSON of each Map, Set and Error, by identity, with its type."""
        self._hashed: set[int] = set()
        """The identities of what stands as a key or a member."""
        self._done: dict[int, tuple[Any, int, int]] = {}
        """What was built of a container, the values in it, and its levels of nesting."""
        self._above: set[int] = set()

    def apply(self, meta: Any) -> None:
        if type(meta) is not dict:
            raise Unfit("meta is no object")
        version = meta.get("v")
        if version is not None and type(version) not in (int, float):
            raise Unfit("meta's v is no number")
        self._legacy = version is None or version < 1
        types, equal = meta.get("values"), meta.get("referentialEqualities")
        if types is not None:
            self._annotate(self._message, types)
        if equal is not None:
            self._equate(equal)
        if self._boxes or equal:
            self._note_hashed()
            written = 0
            for key in VALUE_FIELDS.intersection(self._message):
                self._message[key], size, _ = self._built(self._message[key], 2)
                written += size
            # superjson writes a shared value out at each of its places: a line holds whatever it says.
            if written > self._size:
                raise Unfit("values in more places than they are written at")

    # Types ------------------------------------------------------------------------------------

    def _annotate(self, base: Any, types: Any) -> None:
        """Read values as the types say, whose paths begin at `base`."""
        if type(types) is not dict:
            raise Unfit("types that stand under no path")
        for path, found in types.items():
            try:
                self._annotate_place(base, path, found)
            except Unfit as error:
                raise Unfit(f"at {path[:80]!r}: {error}") from None

    def _annotate_place(self, base: Any, path: str, found: Any) -> None:
        place = self._place(base, parse_path(path, legacy=self._legacy))
        if place is None:
            raise Unfit("a type where nothing is")
        parent, key = place
        into_values = key in VALUE_FIELDS and type(found) is dict
        if parent is self._message and not (key == "value" or found == ["undefined"] or into_values):
            raise Unfit("a type for a field of the message itself")
        if type(found) is dict:
            self._annotate(parent[key], found)
        elif type(found) is list and 1 <= len(found) <= 2:
            self._read(parent, key, *found)
        else:
            raise Unfit("what is no type")

    def _read(self, parent: Any, key: Any, name: Any, within: Any = None) -> None:
        json = parent[key]
        wanted = _BOXES.get(name) if isinstance(name, str) else None
        if wanted is None:
            if within is not None:
                raise Unfit(f"types within a {str(name)[:80]}, which holds no values")
            parent[key] = self._leaves.read(name, json)
            return
        if type(json) is not wanted or id(json) in self._boxes:
            raise Unfit(f"what is no {name}, or is named so twice")
        if within is not None:
            self._annotate(json, within)
        self._boxes[id(json)] = name, json

    def _place(self, base: Any, keys: list[str]) -> tuple[Any, Any] | None:
        """The container and the key that a path leads to; None if just the last key of it is not there."""
        if not FORBIDDEN.isdisjoint(keys):
            raise Unfit(f"a path through {', '.join(FORBIDDEN.intersection(keys))}")
        if base is self._message and len(keys) > 1 and keys[0] not in VALUE_FIELDS:
            raise Unfit(f"a path into the message's own {keys[0][:80]!r}")
        node = base
        last = len(keys) - 1
        for number, text in enumerate(keys):
            key: Any = text
            if type(node) is list:
                key = _index(text)
                if key >= len(node):
                    raise Unfit(f"a path to item {key} of {len(node)}")
            elif type(node) is not dict:
                raise Unfit("a path through a value that holds no others")
            elif text not in node:
                if number == last:
                    return None
                raise Unfit(f"a path through {text[:80]!r}, where nothing is")
            if number == last:
                return node, key
            node = node[key]
        raise AssertionError("a path has a last key")

    # One object in several places ---------------------------------------------------------------

    def _equate(self, equal: Any) -> None:
        if type(equal) is list:
            raise Unfit("the message contains itself")
        if type(equal) is not dict:
            raise Unfit("referentialEqualities are no object")
        pairs: list[tuple[list[str], list[str]]] = []
        for path, others in equal.items():
            if type(others) is not list or not {str}.issuperset(map(type, others)):
                raise Unfit(f"no paths of what is the same as {path[:80]!r}")
            keys = parse_path(path, legacy=self._legacy)
            pairs.extend((parse_path(other, legacy=self._legacy), keys) for other in others)
        # A path may go through what another one replaces: the outer one first, whichever was named first.
        pairs.sort(key=lambda pair: len(pair[0]))
        for other, keys in pairs:
            same, place = self._value_place(other), self._value_place(keys)
            # A function within a value is left away by JavaScript, but not its place.
            if place is not None and same is not None:
                same[0][same[1]] = place[0][place[1]]

    def _value_place(self, keys: list[str]) -> tuple[Any, Any] | None:
        place = self._place(self._message, keys)
        if place is not None and place[0] is self._message and place[1] != "value":
            raise Unfit(f"the message's own {place[1][:80]!r} in two places")
        return place

    # Maps, Sets and Errors ------------------------------------------------------------------------

    def _note_hashed(self) -> None:
        for name, json in self._boxes.values():
            if name == MAP:
                for row in json:
                    if type(row) is not list or len(row) != 2 or id(row) in self._boxes:
                        raise Unfit("a Map is written as a list of pairs")
                self._hashed.update(id(row[0]) for row in json)
            elif name == SET:
                self._hashed.update(map(id, json))

    def _built(self, json: Any, level: int) -> tuple[Any, int, int]:
        kind = type(json)
        if kind is not dict and kind is not list:
            return json, 1, 0
        identity = id(json)
        found = self._done.get(identity)
        if identity in self._above:
            raise Unfit("a value contains itself")
        if level + (1 if found is None else found[2]) > self._depth:
            raise Unfit(f"nested deeper than Limits.depth ({self._depth})")
        if found is None:
            self._above.add(identity)
            found = self._done[identity] = self._build(json, kind, level + 1)
            self._above.discard(identity)
        return found

    def _build(self, json: Any, kind: type, level: int) -> tuple[Any, int, int]:
        name, _ = self._boxes.get(id(json), ("", None))
        hashed = id(json) in self._hashed
        if name == MAP:
            if hashed:
                raise Unfit("a Map as a key or a member, which Python has not")
            keys, sizes, height = self._all((row[0] for row in json), level + 1)
            values, more, other = self._all((row[1] for row in json), level + 1)
            _check_members(keys)
            built: Any = Map(zip(keys, values, strict=True))
            _check_distinct(built, keys)
            return built, sizes + more + 1, max(height, other) + (2 if keys else 1)
        if kind is list:
            items, size, height = self._all(iter(json), level)
            if name == SET:
                _check_members(items)
                built = frozenset(items) if hashed else set(items)
                _check_distinct(built, items)
            elif hashed:
                built = Array(items)
            else:
                built = json
                built[:] = items
            return built, size + 1, height + 1
        items, size, height = self._all(iter(json.values()), level)
        built = Object() if hashed and name != ERROR else json
        built.update(zip(json, items, strict=True))
        if name == ERROR:
            built = _error(built)
        return built, size + 1, height + 1

    def _all(self, items: Iterator[Any], level: int) -> tuple[list[Any], int, int]:
        found: list[Any] = []
        size = height = 0
        for item in items:
            value, values, levels = self._built(item, level)
            found.append(value)
            size += values
            height = max(height, levels)
        return found, size, height


def _index(key: str) -> int:
    # As JavaScript writes it. A longer one is out of every range.
    if not key.isascii() or not key.isdigit() or len(key) > 10 or (key[0] == "0" and key != "0"):
        raise Unfit(f"{key[:80]!r} is no index of an array")
    return int(key)


def _check_members(members: list[Any]) -> None:
    for member in members:
        if not isinstance(member, Hashable):
            raise Unfit(f"a {type(member).__name__} as a key or a member, which Python has not")
    if len(members) > _FEW:
        # Late, for what this module takes with it; it is here already where CBOR was ever spoken.
        from kkrpc_py.wire.cbor_tags import evenly_hashed

        if not evenly_hashed(members):
            raise Unfit("too many keys or members share one hash")


def _check_distinct(built: Any, members: list[Any]) -> None:
    if len(built) != len(members):
        raise Unfit("two keys or members that Python cannot tell apart")


def _error(json: dict[str, Any]) -> Exception:
    name, message, stack = json.get("name"), json.get("message"), json.get("stack")
    if type(name) is not str or type(message) is not str:
        raise Unfit("an Error whose name or message is no text")
    fields = {key: value for key, value in json.items() if key not in _ERROR_KEYS}
    cause = json.get("cause")
    found = make_remote(name, message, stack if isinstance(stack, str) else None, cause, fields, None)
    if isinstance(cause, Exception):
        found.__cause__ = cause
    return found
