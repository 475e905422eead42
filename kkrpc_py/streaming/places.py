"""The places that a patch touches, and whether those of two patches meet (STA-8). It applies nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from kkrpc_py.streaming.patches import END, Operation, Pointer, index_of

__all__ = ["Place", "overlap", "touched"]

Place: TypeAlias = tuple[object, ...]
"""The segments of a pointer. The end of a list is a segment that equals no other."""

MOST_SEGMENTS = 2048
"""In all places of one patch; of more, the places around them are taken: a window of patches costs little."""


def touched(operations: Iterable[Operation], document: Any) -> frozenset[Place]:
    """The places that a patch reads or writes, told apart by the document that it is applied to.

    What moves a list's items touches the whole list, what adds at its end the end alone.
    """
    places: set[Place] = set()
    for operation in operations:
        name = operation.name
        # Where an operation before it has changed the document, that one's place is around this one's.
        places.add(_place(operation.path, document, moves=name not in ("replace", "test")))
        if operation.has_source:
            places.add(_place(operation.source, document, moves=name == "move"))
    return _fewer(places)


def _place(path: Pointer, document: Any, *, moves: bool) -> Place:
    parent, last = document, len(path) - 1
    for depth, segment in enumerate(path):
        if type(parent) is list:
            if depth == last and segment == END:
                return (*path[:-1], object())
            index = index_of(segment, len(parent))
            # An index beyond the list may be that of another one's item by the time.
            if index is None or (depth == last and moves):
                return path[:depth]
            parent = parent[index]
        elif type(parent) is dict and segment in parent:
            parent = parent[segment]
        else:
            break
    return path


def _fewer(places: set[Place]) -> frozenset[Place]:
    if sum(map(len, places)) <= MOST_SEGMENTS:
        return frozenset(places)
    # The greatest depth at which they are few enough; at 0 there is one of no segments.
    least, most = 0, max(map(len, places))
    while least < most:
        depth = (least + most + 1) // 2
        if sum(map(len, {place[:depth] for place in places})) <= MOST_SEGMENTS:
            least = depth
        else:
            most = depth - 1
    return frozenset(place[:least] for place in places)


_HERE = object()
"""The key at which a tree of places says that one ends."""


def overlap(places: frozenset[Place], others: Iterable[frozenset[Place]]) -> bool:
    """Whether two patches touch the same place: one pointer is a beginning of the other, or is the other."""
    if not places:
        return False
    tree: dict[object, Any] = {}
    for place in places:
        node = tree
        for segment in place:
            node = node.setdefault(segment, {})
        node[_HERE] = True
    return any(_meets(place, tree) for other in others for place in other)


def _meets(place: Place, tree: dict[object, Any]) -> bool:
    for segment in place:
        if _HERE in tree:
            return True
        if segment not in tree:
            return False
        tree = tree[segment]
    return True
