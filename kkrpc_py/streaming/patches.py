"""JSON Patch (RFC 6902) as a shared state uses it: what a peer may send, and how it is applied.

The library jsonpatch carries out the operations. What is around it is here: a patch is looked at and bounded
first, and the document that it is applied to stays as it was. How patches are made is the business of
`streaming.diffs`, who conflicts with whom that of `streaming.places`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

from kkrpc_py.limits import Limits
from kkrpc_py.streaming.documents import DEEPEST, depth_of, encoded_size, same

__all__ = ["END", "MOST_OPERATIONS", "Application", "Operation", "Pointer", "Refused", "apply", "checked"]
__all__ += ["child", "index_of", "library", "text_of", "value_at"]

MOST_OPERATIONS = 10_000
"""Of one patch; a change of more becomes a new value of the whole."""
_MOST_SEGMENTS_IN_ALL = 200_000
_MOST_WORK = 2_000_000
"""What one patch may cost to apply, in steps of about 50 ns: a client's call must not hold up the server."""
_OPERATION_WORK = 100
_MOST_CHARACTERS = 80
_ROOM = Limits().frame

Pointer: TypeAlias = tuple[str, ...]
END = "-"
"""The last segment of a pointer to the end of a list."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,11}", re.ASCII)
_WRONG_ESCAPE = re.compile(r"~(?![01])")
_WITH_VALUE = frozenset(("add", "replace", "test"))
_WITH_SOURCE = frozenset(("move", "copy"))
_NAMES = _WITH_VALUE | _WITH_SOURCE | {"remove"}


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
    path: Pointer
    source: Pointer = ()
    """The pointer `from`, of `move` and `copy`."""
    value: Any = None
    """Of `add`, `replace` and `test`."""

    @property
    def has_source(self) -> bool:
        return self.name in _WITH_SOURCE

    def plain(self) -> dict[str, Any]:
        """As it is sent, with no members but its own."""
        mapping: dict[str, Any] = {"op": self.name, "path": text_of(self.path)}
        if self.name in _WITH_SOURCE:
            mapping["from"] = text_of(self.source)
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
    operations = [_operation(index, item) for index, item in enumerate(patch)]
    if sum(len(operation.path) + len(operation.source) for operation in operations) > _MOST_SEGMENTS_IN_ALL:
        raise ValueError("the paths of a patch are too long altogether")
    return operations


def _operation(index: int, item: Any) -> Operation:
    if not isinstance(item, dict):
        raise ValueError(f"operation {index} is no mapping")
    name = item.get("op")
    if not isinstance(name, str) or name not in _NAMES:
        raise ValueError(f"operation {index}: `op` is none of RFC 6902")
    path = _pointer(index, item, "path")
    if name in _WITH_SOURCE:
        return Operation(name, path, _pointer(index, item, "from"))
    if name not in _WITH_VALUE:
        return Operation(name, path)
    if "value" not in item:
        raise ValueError(f"operation {index} ({name}) has no `value`")
    return Operation(name, path, (), item["value"])


def _pointer(index: int, item: dict[Any, Any], member: str) -> Pointer:
    text = item.get(member)
    if not isinstance(text, str):
        raise ValueError(f"operation {index}: `{member}` is no text")
    if text.count("/") > DEEPEST:
        raise ValueError(f"operation {index}: `{member}` has more than {DEEPEST} segments")
    if (text and text[0] != "/") or _WRONG_ESCAPE.search(text):
        raise ValueError(f"operation {index}: `{member}` is no JSON Pointer")
    segments = text.split("/")[1:]
    if "~" in text:
        return tuple(segment.replace("~1", "/").replace("~0", "~") for segment in segments)
    return tuple(segments)


def text_of(pointer: Pointer) -> str:
    """The pointer as it is sent."""
    return "".join("/" + segment.replace("~", "~0").replace("/", "~1") for segment in pointer)


# --- applying -----------------------------------------------------------------------------------


def apply(document: Any, operations: Iterable[Operation], *, room: int = _ROOM) -> Any:
    """What `operations` make of `document`, which stays as it was; the two share what is not touched.

    Raises ValueError for what does not fit the document, a `test` that fails, and operations that copy more
    than `room` bytes (as JSON), or are too much work.
    """
    application = Application(document, room)
    for index, operation in enumerate(operations):
        try:
            application.carry_out(operation)
        except Refused as refused:
            raise ValueError(f"operation {index} ({operation.name}): {refused}") from None
    return application.document


class Refused(Exception):
    """Why an operation cannot be carried out."""


class Application:
    """A document on its way through a patch.

    Nothing is changed that was not made here: each container that an operation changes is a copy, all others
    are shared, with the document as it was and, after a `copy`, within this one. What the library's versions
    see differently (indexes such as "01", equality, the places of a `move`) is decided here.
    """

    def __init__(self, document: Any, room: int = _ROOM) -> None:
        self.document = document
        self._room = room
        self._work = _MOST_WORK
        self._own: dict[int, Any] = {}
        """The containers made here, by identity; kept, so that no other gets the same one."""
        self._patch = library().JsonPatch

    def carry_out(self, operation: Operation) -> None:
        """Raises Refused; the document is of no use then."""
        name, path, source, value = operation
        self._spend(_OPERATION_WORK + 4 * (len(path) + len(source)))
        if name == "add":
            self._add(path, value)
        elif name == "remove":
            self._remove(path)
        elif name == "replace":
            self._replace(path, value)
        elif name == "test":
            if type(value) is dict or type(value) is list:
                self._spend(_size(value))
            if not same(value_at(self.document, path), value, exactly=False):
                raise Refused(f"the value at {_shown(path)} is another one")
        elif name == "copy":
            self._copy(source, path)
        else:
            self._move(source, path)

    def _copy(self, source: Pointer, path: Pointer) -> None:
        value = value_at(self.document, source)
        size = _size(value)
        self._spend(size // 8)
        self._room -= size
        if self._room < 0:
            raise Refused("the patch copies too much")
        if id(value) in self._own:
            self._own.clear()  # it stands in two places from now on
        self._add(path, value)

    def _move(self, source: Pointer, path: Pointer) -> None:
        value = value_at(self.document, source)
        if source == path:
            return
        if path[: len(source)] == source:
            raise Refused(f"{_shown(source)} cannot be moved into itself")
        # Where it goes is looked up in the document without it.
        self._remove(source)
        self._add(path, value)

    def _add(self, path: Pointer, value: Any) -> None:
        self._look_at_depth(path, value)
        if not path:
            self.document = value
            return
        parent, last = self._writable_parent(path), path[-1]
        if type(parent) is list and last != END:
            index = index_of(last, len(parent) + 1)
            if index is None:
                raise Refused(f"{_shown(path)} is no place in a list of {len(parent)}")
            self._spend((len(parent) - index) // 64)
        self._by_library("add", parent, last)
        self._put(parent, last, value)

    def _remove(self, path: Pointer) -> None:
        if not path:
            raise Refused("the whole document cannot be removed")
        parent, last = self._writable_parent(path), path[-1]
        child(parent, path, len(path) - 1)
        if type(parent) is list:
            self._spend((len(parent) - int(last)) // 64)
        self._by_library("remove", parent, last)

    def _replace(self, path: Pointer, value: Any) -> None:
        self._look_at_depth(path, value)
        if not path:
            self.document = value
            return
        parent, last = self._writable_parent(path), path[-1]
        child(parent, path, len(path) - 1)
        self._by_library("replace", parent, last)
        self._put(parent, last, value)

    def _look_at_depth(self, path: Pointer, value: Any) -> None:
        if type(value) is dict or type(value) is list:
            depth, looked = depth_of(value)
            self._spend(looked)
            if len(path) + depth > DEEPEST:
                raise Refused(f"what comes to {_shown(path)} would be nested too deep")

    def _by_library(self, name: str, parent: Any, last: str) -> None:
        """Let it carry that out in `parent`, with nothing for the value: it would copy that, item by item."""
        try:
            self._patch([{"op": name, "path": text_of((last,)), "value": None}]).apply(parent, in_place=True)
        except Exception as exc:
            # What is looked at before leaves nothing to refuse; some version may see it otherwise.
            raise Refused(f"{_shown((last,))}: {type(exc).__name__}") from exc

    @staticmethod
    def _put(parent: Any, last: str, value: Any) -> None:
        if type(parent) is dict:
            parent[last] = value
        else:
            parent[-1 if last == END else int(last)] = value

    def _writable_parent(self, path: Pointer) -> Any:
        """The container of what `path` points to, which is there or not; the way to it made anew."""
        self.document = parent = self._writable(self.document)
        for depth in range(len(path) - 1):
            inner = child(parent, path, depth)
            own = self._writable(inner)
            if own is not inner:
                self._put(parent, path[depth], own)
            parent = own
        if type(parent) is not dict and type(parent) is not list:
            raise Refused(f"{_shown(path[:-1])} holds no others")
        return parent

    def _writable(self, value: Any) -> Any:
        if id(value) in self._own or (type(value) is not dict and type(value) is not list):
            return value
        self._spend(len(value) // 4)
        copy = value.copy()
        self._own[id(copy)] = copy
        return copy

    def _spend(self, steps: int) -> None:
        self._work -= steps
        if self._work < 0:
            raise Refused("the patch is too much work")


def value_at(document: Any, path: Pointer) -> Any:
    """What `path` points to. Raises Refused where there is nothing."""
    for depth in range(len(path)):
        document = child(document, path, depth)
    return document


def child(parent: Any, path: Pointer, depth: int) -> Any:
    """What the segment `depth` of `path` leads to in `parent`. Raises Refused where that is nothing."""
    segment = path[depth]
    if type(parent) is dict:
        if segment in parent:
            return parent[segment]
    elif type(parent) is list:
        index = index_of(segment, len(parent))
        if index is not None:
            return parent[index]
    raise Refused(f"there is nothing at {_shown(path[: depth + 1])}")


def index_of(segment: str, size: int) -> int | None:
    """The index below `size` that a segment says; None where it says none."""
    if _INDEX.fullmatch(segment) is None:
        return None
    index = int(segment)
    return index if index < size else None


def _size(value: Any) -> int:
    try:
        return encoded_size(value)
    except (ValueError, TypeError, OverflowError, RecursionError) as exc:
        raise Refused("it holds what JSON has not") from exc


def _shown(pointer: Pointer) -> str:
    text = repr(text_of(pointer))
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"
