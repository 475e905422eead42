"""JSON Patch (RFC 6902) as a shared state uses it: made, applied, and compared by the places that it touches.

The library jsonpatch makes and carries out the operations. What is around them is here: a patch that was made
is proved by applying it, one that a peer sent is looked at and bounded first, and the document that it is
applied to stays as it was. It owns no version and no window.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

from kkrpc_py.limits import Limits
from kkrpc_py.streaming.documents import encoded_size, same

__all__ = [
    "MOST_OPERATIONS",
    "Operation",
    "Place",
    "apply",
    "checked",
    "library",
    "make",
    "overlap",
    "touched",
]

MOST_OPERATIONS = 10_000
"""Of one patch; a change of more becomes a new value of the whole."""
MOST_SEGMENTS = 128
"""Of one pointer. A document is nested less deep."""
MOST_TOUCHED = 256
"""Places that are told apart of one patch; of more the places around them are taken."""
_MOST_SHIFTS = 10**9
"""Items of lists that one patch may move by inserting and removing: about a second's work."""
_ROOM = Limits().frame
_FINER = 256
"""Bytes that a patch may be larger than what it changes: a finer one conflicts with fewer."""
_MOST_CHARACTERS = 80

_Pointer: TypeAlias = tuple[str, ...]
Place: TypeAlias = tuple[object, ...]
"""The segments of a pointer. The end of a list is a segment that equals no other."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,11}", re.ASCII)
_WRONG_ESCAPE = re.compile(r"~(?![01])")
_WITH_VALUE = frozenset(("add", "replace", "test"))
_WITH_SOURCE = frozenset(("move", "copy"))
_NAMES = _WITH_VALUE | _WITH_SOURCE | {"remove"}
_END = "-"


def library() -> ModuleType:
    """The module jsonpatch. Raises ModuleNotFoundError, which says how to get it, where it is missing."""
    try:
        import jsonpatch
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            "shared state needs the library jsonpatch: pip install 'kkrpc-py[state]'", name=missing.name
        ) from None
    return jsonpatch


class Operation(NamedTuple):
    """One operation that is well-formed by itself."""

    name: str
    path: _Pointer
    source: _Pointer
    """The pointer `from`, of `move` and `copy`."""
    value: Any
    """Of `add`, `replace` and `test`."""

    def plain(self) -> dict[str, Any]:
        """As it is sent, with no members but its own."""
        mapping: dict[str, Any] = {"op": self.name, "path": _text(self.path)}
        if self.name in _WITH_SOURCE:
            mapping["from"] = _text(self.source)
        elif self.name in _WITH_VALUE:
            mapping["value"] = self.value
        return mapping


# --- looking at a patch -------------------------------------------------------------------------


def checked(patch: Any) -> list[Operation]:
    """The operations of a patch, which may be anything at all. Raises ValueError if it is ill-formed."""
    if not isinstance(patch, (list, tuple)):
        raise ValueError("a patch is a list of operations")
    if len(patch) > MOST_OPERATIONS:
        raise ValueError(f"a patch of {len(patch)} operations; {MOST_OPERATIONS} are the most")
    return [_operation(index, item) for index, item in enumerate(patch)]


def _operation(index: int, item: Any) -> Operation:
    if not isinstance(item, dict):
        raise ValueError(f"operation {index} is no mapping")
    name = item.get("op")
    if not isinstance(name, str) or name not in _NAMES:
        raise ValueError(f"operation {index}: `op` is none of RFC 6902")
    path = _pointer(index, item, "path")
    source: _Pointer = ()
    if name in _WITH_SOURCE:
        source = _pointer(index, item, "from")
    elif name in _WITH_VALUE and "value" not in item:
        raise ValueError(f"operation {index} ({name}) has no `value`")
    return Operation(name, path, source, item.get("value") if name in _WITH_VALUE else None)


def _pointer(index: int, item: dict[Any, Any], member: str) -> _Pointer:
    text = item.get(member)
    if not isinstance(text, str):
        raise ValueError(f"operation {index}: `{member}` is no text")
    if text.count("/") > MOST_SEGMENTS:
        raise ValueError(f"operation {index}: `{member}` has more than {MOST_SEGMENTS} segments")
    if (text and text[0] != "/") or _WRONG_ESCAPE.search(text):
        raise ValueError(f"operation {index}: `{member}` is no JSON Pointer")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:])


def _text(pointer: _Pointer) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in pointer)


# --- applying -----------------------------------------------------------------------------------


def apply(document: Any, operations: Iterable[Operation], *, room: int = _ROOM) -> Any:
    """What `operations` make of `document`, which stays as it was; the two share what is not touched.

    Raises ValueError for what does not fit the document, a `test` that fails, and operations that copy and
    move more than `room` bytes (as JSON).
    """
    application = _Application(document, room)
    for index, operation in enumerate(operations):
        try:
            application.carry_out(operation)
        except _Refused as refused:
            raise ValueError(f"operation {index} ({operation.name}): {refused}") from None
        except RecursionError:
            raise ValueError(f"operation {index} ({operation.name}): nested too deep") from None
    return application.document


class _Refused(Exception):
    """Why an operation cannot be carried out."""


class _Application:
    """A document on its way through a patch.

    The library changes containers in place, so each that an operation changes is a copy made here first. What
    the library's versions take differently (indexes such as "01", equality) is decided here.
    """

    def __init__(self, document: Any, room: int) -> None:
        self.document = document
        self._room = room
        self._own: dict[int, Any] = {}
        """The containers made here, by identity; kept, so that no other gets the same one."""
        self._shifts = 0
        self._apply = library().JsonPatch

    def carry_out(self, operation: Operation) -> None:
        name, path = operation.name, operation.path
        if name == "add":
            self._add(path, operation.value)
        elif name == "remove":
            self._remove(path)
        elif name == "replace":
            self._replace(path, operation.value)
        elif name == "test":
            if not same(_at(self.document, path), operation.value, exactly=False):
                raise _Refused(f"the value at {_shown(path)} is another one")
        elif name == "copy":
            self._add(path, self._affordable(operation.source))
        else:
            self._move(operation.source, path)

    def _move(self, source: _Pointer, path: _Pointer) -> None:
        value = self._affordable(source)
        if source == path:
            return
        if path[: len(source)] == source:
            raise _Refused(f"{_shown(source)} cannot be moved into itself")
        # What is inserted is looked up in the document without it.
        self._remove(source)
        self._add(path, value)

    def _affordable(self, source: _Pointer) -> Any:
        """What `source` points to, whose size is taken from the room: the library copies what it inserts."""
        value = _at(self.document, source)
        try:
            self._room -= encoded_size(value)
        except (ValueError, TypeError, OverflowError) as exc:
            raise _Refused(f"the value at {_shown(source)} is none of JSON") from exc
        if self._room < 0:
            raise _Refused("the patch copies or moves too much")
        return value

    def _add(self, path: _Pointer, value: Any) -> None:
        parent = self._writable_parent(path)
        if type(parent) is list:
            self._shift(parent)
            if path[-1] != _END and _index(path[-1], len(parent) + 1) is None:
                raise _Refused(f"{_shown(path)} is no place in a list of {len(parent)}")
        self._by_library({"op": "add", "path": _text(path), "value": value})

    def _remove(self, path: _Pointer) -> None:
        if not path:
            raise _Refused("the whole document cannot be removed")
        parent = self._writable_parent(path)
        _child(parent, path, len(path) - 1)
        if type(parent) is list:
            self._shift(parent)
        self._by_library({"op": "remove", "path": _text(path)})

    def _replace(self, path: _Pointer, value: Any) -> None:
        if path:
            _child(self._writable_parent(path), path, len(path) - 1)
        self._by_library({"op": "replace", "path": _text(path), "value": value})

    def _by_library(self, operation: dict[str, Any]) -> None:
        try:
            self.document = self._apply([operation]).apply(self.document, in_place=True)
        except RecursionError:
            raise
        except Exception as exc:
            # What is checked before leaves nothing to refuse; a version may see it otherwise.
            raise _Refused(f"{_shown_text(operation['path'])}: {type(exc).__name__}") from exc

    def _shift(self, items: list[Any]) -> None:
        self._shifts += len(items)
        if self._shifts > _MOST_SHIFTS:
            raise _Refused("the patch moves too many items of lists")

    def _writable_parent(self, path: _Pointer) -> Any:
        """The container that holds what `path` points to, which is there or not; the way to it made anew."""
        if not path:
            return None
        self.document = parent = self._writable(self.document)
        for depth in range(len(path) - 1):
            child = _child(parent, path, depth)
            own = self._writable(child)
            if own is not child:
                parent[path[depth] if type(parent) is dict else int(path[depth])] = own
            parent = own
        if type(parent) is not dict and type(parent) is not list:
            raise _Refused(f"{_shown(path[:-1])} holds no others")
        return parent

    def _writable(self, value: Any) -> Any:
        if id(value) in self._own or (type(value) is not dict and type(value) is not list):
            return value
        copy = value.copy()
        self._own[id(copy)] = copy
        return copy


def _child(parent: Any, path: _Pointer, depth: int) -> Any:
    """What the segment `depth` of `path` leads to in `parent`."""
    segment = path[depth]
    if type(parent) is dict:
        if segment in parent:
            return parent[segment]
    elif type(parent) is list:
        index = _index(segment, len(parent))
        if index is not None:
            return parent[index]
    raise _Refused(f"there is nothing at {_shown(path[: depth + 1])}")


def _at(document: Any, path: _Pointer) -> Any:
    for depth in range(len(path)):
        document = _child(document, path, depth)
    return document


def _index(segment: str, size: int) -> int | None:
    """The index below `size` that a segment says; None where it says none."""
    if _INDEX.fullmatch(segment) is None:
        return None
    index = int(segment)
    return index if index < size else None


def _shown(pointer: _Pointer) -> str:
    return _shown_text(_text(pointer))


def _shown_text(pointer: str) -> str:
    text = repr(pointer)
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"


# --- making -------------------------------------------------------------------------------------


def make(old: Any, new: Any) -> list[dict[str, Any]]:
    """The operations that lead from `old` to `new`, none where they are the same.

    Proved by applying them. Where they are larger than the value that has changed, or the library is wrong,
    one `replace` of that value. What is put at the end of a list says so ("-"), so that two who append do not
    conflict.
    """
    changed = _changed(old, new)
    if changed is None:
        return []
    whole = [Operation("replace", changed.at, (), _at(new, changed.at)).plain()]
    found = changed.by_library()
    if found is None or encoded_size(found) > encoded_size(whole) + _FINER:
        return whole
    return _proved(old, new, found) or whole


def _proved(old: Any, new: Any, patch: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The patch, with "-" for the ends of lists, if it leads to `new`."""
    try:
        application = _Application(old, _ROOM)
        proved: list[dict[str, Any]] = []
        for operation in checked(patch):
            operation = _ending(application.document, operation)
            application.carry_out(operation)
            proved.append(operation.plain())
    except (_Refused, ValueError, RecursionError):
        return None
    return proved if same(application.document, new) else None


def _ending(document: Any, operation: Operation) -> Operation:
    """`operation` with "-" as its last segment where it adds at the end of a list."""
    if operation.name not in ("add", "copy", "move") or not operation.path:
        return operation
    *above, last = operation.path
    try:
        parent = _at(document, tuple(above))
    except _Refused:
        return operation
    if type(parent) is not list:
        return operation
    # A `move` within the list takes away first.
    size = len(parent) - (operation.name == "move" and operation.source[:-1] == operation.path[:-1])
    return operation._replace(path=(*above, _END)) if last == str(size) else operation


class _Changed(NamedTuple):
    """The smallest container that holds every change, and of it no more than what has changed."""

    at: _Pointer
    old: Any
    new: Any
    offset: int = 0
    """For lists: the index at which `old` and `new` begin."""

    def by_library(self) -> list[dict[str, Any]] | None:
        """The operations as jsonpatch makes them, unproved; None where it makes none of use."""
        if type(self.old) is not type(self.new) or type(self.old) not in (dict, list):
            return None
        jsonpatch = library()
        try:
            found = jsonpatch.make_patch(self.old, self.new).patch
            if len(found) > MOST_OPERATIONS:
                return None
            return [self._moved(operation).plain() for operation in checked(found)]
        except Exception:
            # Proved or not, a patch is needed: whatever the library makes of a value, there is `replace`.
            return None

    def _moved(self, operation: Operation) -> Operation:
        path, source = map(self._inside, (operation.path, operation.source))
        return operation._replace(path=path, source=source)

    def _inside(self, pointer: _Pointer) -> _Pointer:
        if self.offset and pointer:
            pointer = (str(int(pointer[0]) + self.offset), *pointer[1:])
        return self.at + pointer


def _changed(old: Any, new: Any) -> _Changed | None:
    """What has changed between two documents; None where they are the same.

    The library looks at every item of two lists at much more cost than `same` does; of a long list with an
    item more it is shown that item alone.
    """
    at: _Pointer = ()
    while True:
        offset, step = 0, None
        if type(old) is dict and type(new) is dict:
            keys = [key for key in old if key not in new or not same(old[key], new[key])]
            keys += [key for key in new if key not in old]
            if not keys:
                return None
            old = {key: old[key] for key in keys if key in old}
            new = {key: new[key] for key in keys if key in new}
            if len(keys) == len(old) == len(new) == 1:
                step, old, new = keys[0], old[keys[0]], new[keys[0]]
        elif type(old) is list and type(new) is list:
            offset = _common(old, new)
            old, new = old[offset:], new[offset:]
            end = _common(old[::-1], new[::-1])
            old, new = old[: len(old) - end], new[: len(new) - end]
            if not old and not new:
                return None
            if len(old) == len(new) == 1:
                step, old, new = str(offset), old[0], new[0]
        elif same(old, new):
            return None
        if step is None:
            return _Changed(at, old, new, offset)
        at = (*at, step)


def _common(first: list[Any], second: list[Any]) -> int:
    """How many items two lists begin with alike."""
    pairs = zip(first, second, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if not same(a, b)), min(len(first), len(second)))


# --- the places of a patch ----------------------------------------------------------------------


def touched(operations: Iterable[Operation], document: Any) -> frozenset[Place]:
    """The places that a patch reads or writes, told apart by the document that it is applied to (STA-8).

    What shifts a list's items touches the whole list, what adds at its end the end alone.
    """
    places: set[Place] = set()
    for name, path, source, _ in operations:
        # Where an operation before it has changed the document, that one's place is around this one's.
        places.add(_place(path, document, shifts=name not in ("replace", "test")))
        if name in _WITH_SOURCE:
            places.add(_place(source, document, shifts=name == "move"))
    return _fewer(places)


def _place(path: _Pointer, document: Any, *, shifts: bool) -> Place:
    parent = document
    for depth, segment in enumerate(path):
        last = depth == len(path) - 1
        if type(parent) is list:
            if last and segment == _END:
                return (*path[:-1], object())
            # An index beyond the list may be that of another one's item by the time.
            if (last and shifts) or _index(segment, len(parent)) is None:
                return path[:depth]
        elif type(parent) is not dict or segment not in parent:
            return path
        if not last:
            parent = _child(parent, path, depth)
    return path


def _fewer(places: set[Place]) -> frozenset[Place]:
    """So few places that a window of patches is cheap to keep and to look through."""
    while len(places) > MOST_TOUCHED:
        longest = max(map(len, places))
        places = {place[: longest - 1] for place in places}
    return frozenset(places)


def overlap(places: frozenset[Place], others: Iterable[frozenset[Place]]) -> bool:
    """Whether two patches touch the same place: one pointer is a beginning of the other, or is the other."""
    above = {place[:depth] for place in places for depth in range(len(place) + 1)}
    return any(
        place in above or any(place[:depth] in places for depth in range(len(place)))
        for other in others
        for place in other
    )
