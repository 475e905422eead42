"""Patches of what has changed between two documents: made by the library jsonpatch, proved by applying them.

The library compares two values item by item, at a cost that grows with all of them. So it is shown what has
changed and as little else as can be; of what would take it too long a new value is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Any, NamedTuple

from kkrpc_py.streaming.documents import encoded_size, same
from kkrpc_py.streaming.patches import (
    END,
    MOST_OPERATIONS,
    Application,
    Operation,
    Pointer,
    Refused,
    checked,
    library,
    value_at,
)

__all__ = ["make"]

_FINER = 256
"""Bytes that a patch may be larger than what it changes: a finer one conflicts with fewer."""
_MOST_ITEMS = 1000
"""Items of two lists together that the library is asked to align: some tens of milliseconds."""
_MOST_CHANGES = 1000
"""Places that have changed, each of which is shown to the library by itself: about a tenth of a second."""
_MOST_SLIDE = 64
"""Items that may have gone at the beginning of a list, to be seen at once."""


def make(old: Any, new: Any) -> list[dict[str, Any]]:
    """The operations that lead from `old` to `new`, none where they are the same.

    Proved by applying them. Where they are larger than the value that has changed, or the library is wrong,
    one `replace` of that value. What is put at the end of a list says so ("-"), so that two who append do
    not conflict.
    """
    changes = list(_changes(old, new, ()))
    if not changes:
        return []
    at = _common([change.at for change in changes])
    whole = [Operation("replace", at, (), value_at(new, at)).plain()]
    if len(changes) > _MOST_CHANGES:
        return whole
    found: list[Operation] = []
    for change in changes:
        operations = change.operations()
        if operations is None or len(found) + len(operations) > MOST_OPERATIONS:
            return whole
        found += operations
    if encoded_size([operation.plain() for operation in found]) > encoded_size(whole) + _FINER:
        return whole
    return _proved(old, new, found) or whole


def _common(pointers: list[Pointer]) -> Pointer:
    """What all of them begin with."""
    first, last = min(pointers), max(pointers)
    return tuple(
        pair[0] for pair in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    )


def _proved(old: Any, new: Any, operations: list[Operation]) -> list[dict[str, Any]] | None:
    """The patch, with "-" for the ends of lists, if it leads to `new`."""
    try:
        application = Application(old)
        patch: list[dict[str, Any]] = []
        for operation in operations:
            operation = _ending(application.document, operation)
            application.carry_out(operation)
            patch.append(operation.plain())
    except Refused:
        return None
    return patch if same(application.document, new) else None


def _ending(document: Any, operation: Operation) -> Operation:
    """`operation` with "-" as its last segment where it adds at the end of a list."""
    if operation.name not in ("add", "copy", "move") or not operation.path:
        return operation
    above, last = operation.path[:-1], operation.path[-1]
    parent = value_at(document, above)
    # A `move` within the list is not looked at: it touches the list as a whole anyway.
    if type(parent) is not list or last != str(len(parent)):
        return operation
    return operation._replace(path=(*above, END))


class _Change(NamedTuple):
    """A container that has changed, or a part of it."""

    at: Pointer
    old: Any
    new: Any
    offset: int = 0
    """Of a list: the index at which `old` is, and `new` shall be."""
    large: bool = False
    """Too large for the library."""

    def operations(self) -> list[Operation] | None:
        """As jsonpatch makes them, not yet proved; None where it makes none of use."""
        if self.large or type(self.old) is not type(self.new) or type(self.old) not in (dict, list):
            return None
        jsonpatch = library()
        try:
            found = checked(jsonpatch.make_patch(self.old, self.new).patch)
            return [
                operation._replace(path=self._inside(operation.path), source=self._inside(operation.source))
                for operation in found
            ]
        except Exception:
            # Whatever the library makes of a value, there is always `replace`.
            return None

    def _inside(self, pointer: Pointer) -> Pointer:
        if self.offset and pointer:
            pointer = (str(int(pointer[0]) + self.offset), *pointer[1:])
        return self.at + pointer


def _changes(old: Any, new: Any, at: Pointer) -> Iterator[_Change]:
    """What has changed, in an order in which it can be done."""
    if type(old) is dict and type(new) is dict:
        yield from _changes_of_mapping(old, new, at)
    elif type(old) is list and type(new) is list:
        yield from _changes_of_list(old, new, at)
    elif not same(old, new):
        yield _Change(at, old, new)


def _changes_of_mapping(old: dict[str, Any], new: dict[str, Any], at: Pointer) -> Iterator[_Change]:
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for key, value in old.items():
        if key not in new:
            before[key] = value
        elif value is not new[key]:
            if _are_containers(value, new[key]):
                yield from _changes(value, new[key], (*at, key))
            elif not same(value, new[key]):
                before[key], after[key] = value, new[key]
    after |= {key: value for key, value in new.items() if key not in old}
    if before or after:
        yield _Change(at, before, after)


def _changes_of_list(old: list[Any], new: list[Any], at: Pointer) -> Iterator[_Change]:
    begin = _alike(zip(old, new, strict=False))
    old, new = old[begin:], new[begin:]
    end = _alike(zip(reversed(old), reversed(new), strict=False))
    old, new = old[: len(old) - end], new[: len(new) - end]
    if not old and not new:
        return
    gone = _slide(old, new)
    if gone:
        yield _Change(at, old[:gone], [], begin)
        old, new, begin = [], new[len(old) - gone :], begin + len(old) - gone
    differing = [n for n in range(len(old)) if not same(old[n], new[n])] if len(old) == len(new) else []
    if differing and (len(differing) == 1 or 4 * len(differing) <= len(old)):
        for n in differing:
            if _are_containers(old[n], new[n]):
                yield from _changes(old[n], new[n], (*at, str(begin + n)))
            else:
                yield _Change(at, old[n : n + 1], new[n : n + 1], begin + n)
    else:
        # What is only put in, or only taken out, needs no aligning.
        items = len(old) + len(new)
        large = items > (_MOST_ITEMS if old and new else MOST_OPERATIONS)
        yield _Change(at, old, new, begin, large)


def _alike(pairs: Iterator[tuple[Any, Any]]) -> int:
    """How many pairs are the same before the first that is not."""
    return sum(1 for _ in takewhile(lambda pair: same(pair[0], pair[1]), pairs))


def _slide(old: list[Any], new: list[Any]) -> int:
    """How many items have gone at the beginning, where all others are still there and what is new comes last.

    0 where it is another change. A log of so many last lines changes like that.
    """
    for gone in range(1, min(len(old), _MOST_SLIDE + 1)):
        rest = len(old) - gone
        if rest <= len(new) and same(old[gone], new[0]) and same(old[gone:], new[:rest]):
            return gone
    return 0


def _are_containers(first: Any, second: Any) -> bool:
    return type(first) is type(second) and type(first) in (dict, list)
