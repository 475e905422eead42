"""Messages to superjson's lines, as superjson 2.2.6 writes them (SUP-1 to SUP-7).

It owns the walk over a message's values: the JSON in their place, the types beside it, and which of
them are one object in several places. It does not own text: what it returns is what a JSON encoder
writes.

superjson's own reader moves a member of a Set to its end when it makes it one with another place, and
a key of a Map too; paths that it goes by later then lead to the wrong one. Where that would happen,
the message is refused.
"""

from __future__ import annotations

import array
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

from kkrpc_py.errors import LimitExceeded, NotSerializable, RemoteError, error_to_wire
from kkrpc_py.limits import Limits
from kkrpc_py.wire.js import UNDEFINED, Array, BigInt, Map, Object, Undefined
from kkrpc_py.wire.json_codec import _pairs_up
from kkrpc_py.wire.superjson import (
    ERROR,
    FORBIDDEN,
    JS_MAX,
    MAP,
    SET,
    VALUE_FIELDS,
    Leaf,
    Leaves,
    TypeName,
    Unfit,
    escaped,
)
from kkrpc_py.wire.values import _shown

__all__ = ["SuperjsonWriter"]

_VERSION = "superjson"
_CALLS = frozenset(("request", "construct"))
# What kkrpc writes with `transferSlots`, here undefined always; a response only if it is no error.
_WITH_SLOTS = _CALLS | {"response", "callback", "set", "stream-chunk"}
# The line, the message, and its arguments.
_VALUE_LEVEL = 3
# The line, `meta`, `values`, and a type's own list; what is within the value is two levels further down.
_META_LEVEL = 4

_TOO_DEEP = "nested deeper than Limits.depth"
# Up to 2**32 - 2, about.
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)

_SURE: frozenset[type] = frozenset((str, bool, type(None)))
# What is one object in several places is one for JavaScript too, but for these: those that it has no
# identity for either, and those of which Python makes one object of equal ones as it likes.
_VALUES: frozenset[type] = frozenset((float, Undefined, bytes, tuple, frozenset))
_SIZED: frozenset[type] = frozenset((bytes, bytearray, array.array))


class _Way(NamedTuple):
    """The last step to a value, after those to what it is in."""

    before: _Way | None
    key: str
    """The step in superjson's paths."""
    form: str
    """The step in the path that an error names, with a place for `shown`."""
    shown: Any
    hashed: int = 0
    """The identity of the Set or Map whose member or row this is the step to."""
    last: bool = False
    """Nothing comes after it there."""


class _Note(NamedTuple):
    """The types within a value: its own, if superjson has a name for it, and those at the ends of steps."""

    type: TypeName | None
    within: list[tuple[str, _Note]]


class _Written(NamedTuple):
    """What is written for a value."""

    json: Any
    note: _Note | None
    size: int
    """Values in it, each counted as often as it is written."""
    height: int
    """Levels of nesting that it takes."""


_Build: TypeAlias = Callable[[Any, "_Way", int], _Written]


class SuperjsonWriter:
    """Makes the mappings that are written as lines, for one channel."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._leaves = Leaves(limits)

    def carries(self, kind: type) -> bool:
        """Whether values of that type are written as what they are."""
        return self._leaves.writer(kind) is not None or issubclass(kind, Exception)

    def line(self, message: dict[str, Any], *, text: bool = False) -> dict[str, Any]:
        """What to write for a message as the dialect has it; with `text`, each text was looked at too.

        `NotSerializable` if superjson cannot carry a value of it, `LimitExceeded` if it would be too large.
        """
        walk = _Walk(self._limits, self._leaves, text=text)
        kind: str = message["type"]
        args: Any = message["args"]
        slots = kind in _WITH_SLOTS
        if kind == "response":
            if not args:
                args = {"result": UNDEFINED}
            slots = "error" not in args
            result = args.get("result")
            if isinstance(result, Object) and result.get("__stream") is True:
                raise NotSerializable("Object", "result", "its reader would take it for a stream")
        json: dict[str, Any] = {}
        notes: list[tuple[str, _Note]] = []

        def undefined(key: str) -> None:
            json[key] = None
            notes.append((key, _Note("undefined", [])))

        for key, value in message.items():
            if key == "args":
                json[key] = walk.args(args, notes)
            elif key in VALUE_FIELDS:
                json[key] = walk.top(value, _Way(None, key, key, None), key, notes)
            elif key != "version":
                json[key] = value
            if key == "type" and kind in _CALLS and not message.get("callbackIds"):
                undefined("callbackIds")
        if slots:
            undefined("transferSlots")
        json["version"] = _VERSION
        meta = walk.meta(notes)
        return {"json": json, "meta": meta} if meta else {"json": json}

    def fit(self, value: Any, root: str) -> Any:
        """`value`, a field of an error or its name, if superjson carries it; else raise `NotSerializable`."""
        if root == "error" and value in FORBIDDEN:
            raise NotSerializable("str", root, f"superjson refuses the key {value!r}")
        walk = _Walk(self._limits, self._leaves, text=True)
        notes: list[tuple[str, _Note]] = []
        walk.top(value, _Way(None, root, "{}", root), root, notes)
        walk.meta(notes)
        return value


class _Walk:
    """One message's values, each looked at once."""

    def __init__(self, limits: Limits, leaves: Leaves, *, text: bool) -> None:
        self._leaves = leaves
        self._text = text
        self._depth = limits.depth
        self._frame = limits.frame
        # A value with its comma takes two bytes at least.
        self._left = limits.frame // 2 + 1
        self._again = self._left
        self._letters = limits.frame
        """Of paths."""
        self._places: dict[int | str, _Way] = {}
        """The place of each object where it was first seen."""
        self._shared: dict[int | str, list[_Way]] = {}
        """All places of each that has several."""
        self._hashed = False
        self._done: dict[int, _Written] = {}
        self._above: set[int] = set()
        self._builders: dict[type, _Build] = {
            **dict.fromkeys((dict, Object, Map), self._dict),
            **dict.fromkeys((list, tuple, Array), self._list),
            **dict.fromkeys((set, frozenset), self._set),
        }

    # The message ----------------------------------------------------------------------------

    def args(self, args: Any, notes: list[tuple[str, _Note]]) -> Any:
        if type(args) is not dict:
            return self.top(args, _Way(None, "args", "args", None), "args", notes)
        # The fields that the dialect puts there are not the user's: errors name them as if they were on top.
        envelope = _Way(None, "args", "", None)
        within: list[tuple[str, _Note]] = []
        found = {
            key: self.top(value, _Way(envelope, escaped(key), "{}", key), escaped(key), within)
            for key, value in args.items()
        }
        if within:
            notes.append(("args", _Note(None, within)))
        return found

    def top(self, value: Any, way: _Way, key: str, notes: list[tuple[str, _Note]]) -> Any:
        level = _VALUE_LEVEL if way.before is None else _VALUE_LEVEL + 1
        written = self._value(value, way, self._depth - level + 1)
        self._left -= written.size
        self._check_size(0)
        if written.note is not None:
            notes.append((key, written.note))
        return written.json

    def meta(self, notes: list[tuple[str, _Note]]) -> dict[str, Any]:
        meta: dict[str, Any] = {}
        if notes:
            meta["values"] = self._flattened(notes, _META_LEVEL)
        if self._shared and (equal := self._equalities()):
            meta["referentialEqualities"] = equal
        if meta:
            meta["v"] = 1
        return meta

    # Values ---------------------------------------------------------------------------------

    def _value(self, value: Any, way: _Way, room: int) -> _Written:
        kind = type(value)
        if kind in _SURE:
            if self._text and kind is str and (reason := _pairs_up(value)):
                raise _refused(value, way, reason)
            return _Written(value, None, 1, 0)
        if kind is int and -JS_MAX <= value <= JS_MAX:
            return _Written(value, None, 1, 0)
        build = self._builders.get(kind)
        if build is None:
            writer = self._leaves.writer(kind)
            if writer is not None:
                return self._leaf(value, kind, writer, way, room)
            build = self._builder(value, kind, way)
        identity = id(value)
        if identity in self._above:
            raise _refused(value, way, "it contains itself")
        found = None
        if kind in _VALUES:
            # Another value each time; what is in it need not be.
            self._again -= len(value)
            self._check_size(0)
        else:
            self._note_place(identity, way)
            found = self._done.get(identity)
        if (1 if found is None else found.height) > room:
            raise _refused(value, way, _TOO_DEEP)
        if found is None:
            self._above.add(identity)
            found = build(value, way, room - 1)
            self._above.discard(identity)
            self._check_size(found.size)
            if kind not in _VALUES:
                self._done[identity] = found
        return found

    def _leaf(self, value: Any, kind: type, writer: Callable[[Any], Leaf], way: _Way, room: int) -> _Written:
        if kind in _SIZED:
            self._check_size(len(value))
        found = self._done.get(id(value))
        if found is None:
            try:
                name, json = writer(value)
            except Unfit as error:
                raise _refused(value, way, str(error)) from None
            if name is None:
                return _Written(json, None, 1, 0)
            items = type(json) is list
            found = _Written(json, _Note(name, []), len(json) + 1 if items else 1, int(items))
            if items:
                self._done[id(value)] = found
            elif self._text and json is not None and (reason := _pairs_up(json)):
                raise _refused(value, way, reason)
        if found.height > room:
            raise _refused(value, way, _TOO_DEEP)
        json = found.json
        if kind is int or kind is BigInt:
            # To superjson equal bigints are one and the same,
            self._note_place(json, way)
        elif json == "NaN":
            # and so is every NaN, which its reader of Maps and Sets is not up to.
            if not _is_member(way):
                self._note_place(json, way)
        elif kind not in _VALUES:
            self._note_place(id(value), way)
        return found

    def _builder(self, value: Any, kind: type, way: _Way) -> _Build:
        if isinstance(value, ExceptionGroup):
            raise _refused(value, way, "the exceptions in it would be lost")
        if isinstance(value, Exception):
            return self._error
        if kind is re.Pattern:
            raise _refused(value, way, "Python's syntax is not JavaScript's; write a js.RegExp")
        raise _refused(value, way, "")

    def _list(self, items: Any, way: _Way, room: int) -> _Written:
        return self._row(items, room, lambda index: _Way(way, str(index), "[{}]", index))

    def _row(self, items: Any, room: int, step: Callable[[int], _Way]) -> _Written:
        json: Any = items
        size, height = len(items) + 1, 0
        within: list[tuple[str, _Note]] = []
        if self._text or not _SURE.issuperset(map(type, items)):
            for index, item in enumerate(items):
                kind = type(item)
                # Numbers that are JSON's come in thousands.
                if kind is float:
                    if item and item - item == 0:
                        continue
                elif kind is int and -JS_MAX <= item <= JS_MAX:
                    continue
                written = self._value(item, step(index), room)
                if written.json is not item:
                    if json is items:
                        json = list(items)
                    json[index] = written.json
                if written.note is not None:
                    within.append((str(index), written.note))
                size += written.size - 1
                if written.height > height:
                    height = written.height
        return _Written(json, _Note(None, within) if within else None, size, height + 1)

    def _dict(self, value: dict[Any, Any], way: _Way, room: int) -> _Written:
        kind = type(value)
        if kind is Map or (kind is dict and not {str}.issuperset(map(type, value))):
            return self._map(value, way, room)
        if not {str}.issuperset(map(type, value)):
            raise _refused(value, way, "an Object's keys are text")
        if not FORBIDDEN.isdisjoint(value):
            [key, *_] = FORBIDDEN.intersection(value)
            raise _refused(value, way, f"superjson refuses the key {key!r}; in a js.Map it may stand")
        json = value
        size, height = len(value) + 1, 0
        within: list[tuple[str, _Note]] = []
        if self._text or not _SURE.issuperset(map(type, value.values())):
            for key, item in value.items():
                if self._text:
                    if reason := _pairs_up(key):
                        raise _refused(value, way, f"its key {_shown(key)}: {reason}")
                elif type(item) in _SURE:
                    continue
                part = escaped(key)
                written = self._value(item, _Way(way, part, "[{}]", key), room)
                if written.json is not item:
                    if json is value:
                        json = dict(value)
                    json[key] = written.json
                if written.note is not None:
                    within.append((part, written.note))
                size += written.size - 1
                if written.height > height:
                    height = written.height
        return _Written(json, _Note(None, within) if within else None, size, height + 1)

    def _map(self, value: dict[Any, Any], way: _Way, room: int) -> _Written:
        self._check_members(value, value, way)
        rows: list[Any] = []
        within: list[tuple[str, _Note]] = []
        size, height = 1, 0
        for index, pair in enumerate(value.items()):
            row = _Way(way, str(index), "", None, id(value), index == len(value) - 1)
            steps = (_Way(row, "0", ".key({})", pair[0]), _Way(row, "1", "[{}]", pair[0]))
            written = self._row(pair, room - 1, steps.__getitem__)
            rows.append(written.json)
            if written.note is not None:
                within.append((str(index), written.note))
            size += written.size
            height = max(height, written.height)
        if height > room:
            raise _refused(value, way, _TOO_DEEP)
        return _Written(rows, _Note(MAP, within), size, height + 1)

    def _set(self, value: Any, way: _Way, room: int) -> _Written:
        members = list(value)
        self._check_members(members, value, way)
        found = self._row(
            members,
            room,
            lambda index: _Way(
                way, str(index), "{{{}}}", members[index], id(value), index == len(members) - 1
            ),
        )
        return found._replace(note=_Note(SET, found.note.within if found.note else []))

    def _check_members(self, members: Iterable[Any], value: Any, way: _Way) -> None:
        self._hashed = True
        floats = [member for member in members if type(member) is float and not member > 0]
        if sum(map(math.isnan, floats)) > 1:
            raise _refused(value, way, "JavaScript makes one of several NaN as keys or members")
        if any(not member and math.copysign(1, member) < 0 for member in floats):
            raise _refused(value, way, "JavaScript makes 0 of -0.0 as a key or member")

    def _error(self, value: Exception, way: _Way, room: int) -> _Written:
        told = error_to_wire(value)
        if self._text and (reason := _pairs_up(told.name) or _pairs_up(told.message)):
            raise _refused(value, way, reason)
        json: dict[str, Any] = {"name": told.name, "message": told.message}
        cause: Any = value.cause if isinstance(value, RemoteError) else None
        if cause is None:
            cause = value.__cause__
        if cause is None:
            return _Written(json, _Note(ERROR, []), 3, 1)
        written = self._value(cause, _Way(way, "cause", ".cause", None), room)
        json["cause"] = written.json
        within = [("cause", written.note)] if written.note is not None else []
        return _Written(json, _Note(ERROR, within), 3 + written.size, 1 + written.height)

    def _check_size(self, size: int) -> None:
        if size > self._left or min(self._letters, self._again, self._left) < 0:
            raise LimitExceeded(f"the message is larger than Limits.frame ({self._frame})")

    # What stands beside the values ----------------------------------------------------------

    def _flattened(self, notes: list[tuple[str, _Note]], level: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._flatten(notes, "", found, level)
        return found

    def _flatten(
        self, notes: list[tuple[str, _Note]], prefix: str, found: dict[str, Any], level: int
    ) -> None:
        """Each type under its path; what is within a value that has a type goes by paths from there."""
        if level > self._depth:
            raise NotSerializable("a value", "", "its types are nested deeper than Limits.depth")
        for key, note in _in_order(notes):
            path = prefix + key
            if note.type is None:
                self._flatten(note.within, path + ".", found, level)
                continue
            self._letters -= len(path)
            self._check_size(0)
            entry: list[Any] = [note.type]
            found[path] = entry
            if note.within:
                entry.append(self._flattened(note.within, level + 2))

    def _note_place(self, identity: int | str, way: _Way) -> None:
        first = self._places.setdefault(identity, way)
        if first is not way:
            self._shared.setdefault(identity, [first]).append(way)

    def _equalities(self) -> dict[str, list[str]]:
        """The places of each object that has several, under the one nearest to the message's top."""
        found: dict[str, list[str]] = {}
        moved: dict[int, int] = {}
        for identity in self._places if len(self._shared) > 1 else self._shared:
            places = self._shared.get(identity)
            if places is None:
                continue
            ways = sorted(map(_steps, places), key=len)
            if self._hashed:
                for number, steps in enumerate(ways):
                    _check_moved(steps, moved)
                    # To superjson's reader equal bigints are the same already.
                    if number and type(identity) is int:
                        _note_moved(steps, moved)
            first, *others = [".".join(step.key for step in steps) for steps in ways]
            self._letters -= len(first) + sum(map(len, others))
            self._check_size(0)
            found[first] = others
        return found


def _in_order(notes: list[tuple[str, _Note]]) -> list[tuple[str, _Note]]:
    """As JavaScript keeps an object's keys: those that look like an index first, in their order."""
    indexed = [entry for entry in notes if entry[1].type is not None and _INDEX.fullmatch(entry[0])]
    if not indexed:
        return notes
    rest = [entry for entry in notes if entry[1].type is None or not _INDEX.fullmatch(entry[0])]
    indexed.sort(key=lambda entry: int(entry[0]))
    return indexed + rest


def _steps(way: _Way | None) -> list[_Way]:
    steps: list[_Way] = []
    while way is not None:
        steps.append(way)
        way = way.before
    steps.reverse()
    return steps


def _is_member(way: _Way) -> bool:
    """Whether a value stands right there as a Set's member or a Map's key."""
    if way.hashed:
        return True
    return way.before is not None and way.before.hashed != 0 and way.key == "0" and way.form == ".key({})"


def _check_moved(steps: list[_Way], moved: dict[int, int]) -> None:
    for step in steps:
        if step.hashed and moved.get(step.hashed, math.inf) <= int(step.key):
            reason = "superjson's reader would mix up the members of a Set, or the keys of a Map, shared so"
            raise NotSerializable("a shared value", _path(steps), reason)


def _note_moved(steps: list[_Way], moved: dict[int, int]) -> None:
    last = steps[-1]
    if _is_member(last):
        row = last if last.hashed else steps[-2]
        if not row.last:
            moved[row.hashed] = min(int(row.key), moved.get(row.hashed, int(row.key)))


def _refused(value: Any, way: _Way, reason: str) -> NotSerializable:
    return NotSerializable(type(value).__qualname__, _path(_steps(way)), reason)


def _path(steps: list[_Way]) -> str:
    return "".join(_step_text(step) for step in steps)


def _step_text(step: _Way) -> str:
    # A field of the message names itself, without quotes.
    if step.form == "{}":
        return str(step.shown)
    return step.form.format(_shown(step.shown))
