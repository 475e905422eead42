"""Whether the objects in a handler's result hold what their classes declare.

msgspec takes an instance of a dataclass, attrs class or Struct as it is, and Python lets its fields be
anything. Before an instance leaves, its fields are checked here. They are sent as they are, so they must be
of their types and not only convertible: text is no date here.

This module owns the walk to the instances in a value. What is wrong with a field says `channel.issues`.
"""

from __future__ import annotations

import datetime
import decimal
import functools
import operator
import uuid
from collections import abc
from collections.abc import Callable, Iterable
from typing import Any, get_args, get_origin

import msgspec

from kkrpc_py.channel.issues import (
    REFUSALS,
    Fields,
    Path,
    Report,
    bare,
    careful,
    explain,
    fields_of,
    is_union,
)

__all__ = ["Instances"]

_AS_THEY_ARE = (
    bytes,
    bytearray,
    memoryview,
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    decimal.Decimal,
    uuid.UUID,
)
_convert: Callable[[Any, Any], Any] = functools.partial(msgspec.convert, builtin_types=_AS_THEY_ARE)
_careful = careful(_convert)


class Instances:
    """The way to the instances in values of one hint."""

    __slots__ = ("_root",)

    def __init__(self, root: _Way) -> None:
        self._root = root

    @classmethod
    def of(cls, hint: Any) -> Instances | None:
        """The way for `hint`; None where its values hold no instances."""
        root = _way(hint, {})
        return cls(root) if root is not None else None

    def check(self, value: Any, report: Report, path: Path = ()) -> None:
        """Note what is wrong in the instances in `value`, which has been converted to the hint."""
        try:
            self._root.follow(value, report, list(path), set())
        except RecursionError:
            report.add(path, "Nested too deeply")


class _Way:
    """The way on from a value of some kind."""

    __slots__ = ()

    def follow(self, value: Any, report: Report, trail: list[str | int], seen: set[int]) -> None:
        raise NotImplementedError


class _ThroughItems(_Way):
    """A list, tuple, set, or a dict's values."""

    __slots__ = ("item",)

    def __init__(self, item: _Way) -> None:
        self.item = item

    def follow(self, value: Any, report: Report, trail: list[str | int], seen: set[int]) -> None:
        entries: Iterable[tuple[Any, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
        follow = self.item.follow
        for step, item in entries:
            trail.append(step if type(step) in (str, int) else f"<{type(step).__name__}>")
            follow(item, report, trail, seen)
            trail.pop()


class _ThroughPlaces(_Way):
    """A tuple or dict of known parts: where each stands, its name in a path, and the way on."""

    __slots__ = ("places",)

    def __init__(self) -> None:
        self.places: list[tuple[str | int, _Way]] = []

    def follow(self, value: Any, report: Report, trail: list[str | int], seen: set[int]) -> None:
        for place, way in self.places:
            if type(value) is not dict or place in value:
                trail.append(place)
                way.follow(value[place], report, trail, seen)
                trail.pop()


class _ToObject(_Way):
    """An instance: its fields are checked, and the instances in them."""

    __slots__ = ("_box", "_fields", "_get", "ways")

    def __init__(self, fields: Fields) -> None:
        self.ways: list[tuple[str, str, _Way]] = []
        self._fields = fields
        hints = [(f"f{index}", field.hint) for index, field in enumerate(fields.all)]
        self._box = msgspec.defstruct("_Fields", hints, array_like=True, gc=False)
        self._get = [operator.attrgetter(field.name) for field in fields.all]

    def follow(self, value: Any, report: Report, trail: list[str | int], seen: set[int]) -> None:
        if id(value) in seen or not isinstance(value, self._fields.cls):
            return  # known, or within itself, or to become an instance: then it was checked
        seen.add(id(value))
        wrong: set[str] = set()
        try:
            _convert([get(value) for get in self._get], self._box)
        except (msgspec.ValidationError, RecursionError, AttributeError, *REFUSALS):
            wrong = self._explain(value, report, trail)
        for name, wire, way in self.ways:
            if name not in wrong:
                trail.append(wire)
                way.follow(getattr(value, name), report, trail, seen)
                trail.pop()

    def _explain(self, value: Any, report: Report, trail: list[str | int]) -> set[str]:
        """Note what is wrong with its fields, and return which."""
        wrong: set[str] = set()
        for field in self._fields.all:
            path, before = (*trail, field.wire), report.count
            try:
                explain(getattr(value, field.name), field.hint, _careful, report, path)
            except AttributeError:
                report.add(path, "Missing")
            if report.count > before:
                wrong.add(field.name)
        return wrong


class _Union(_Way):
    """Whichever member the value is of."""

    __slots__ = ("choices",)

    def __init__(self, choices: list[tuple[tuple[type, ...], _Way]]) -> None:
        self.choices = choices

    def follow(self, value: Any, report: Report, trail: list[str | int], seen: set[int]) -> None:
        for types, way in self.choices:
            if isinstance(value, types):
                way.follow(value, report, trail, seen)
                return


_ARRAYS = (list, tuple, set, frozenset)


def _way(hint: Any, known: dict[Any, _Way]) -> _Way | None:
    way = _way_with_types(hint, known)
    return way[1] if way is not None else None


def _way_with_types(hint: Any, known: dict[Any, _Way]) -> tuple[tuple[type, ...], _Way] | None:
    """The way on from values of `hint`, and the types of such values; None where there is nothing to see."""
    hint = bare(hint)
    if is_union(hint):
        choices = [_way_with_types(member, known) for member in get_args(hint)]
        found = [choice for choice in choices if choice is not None]
        # A union is not a member of a union: nobody asks for its types.
        return ((object,), _Union(found)) if found else None
    fields = fields_of(hint)
    if fields is not None:
        return _of_class(hint, fields, known)
    origin, args = get_origin(hint) or hint, get_args(hint)
    if not (isinstance(origin, type) and args):
        return None
    if issubclass(origin, abc.Mapping):
        way = _way(args[1], known)
        return None if way is None else ((dict,), _ThroughItems(way))
    if issubclass(origin, tuple) and not (len(args) == 2 and args[1] is Ellipsis):
        places = _ThroughPlaces()
        for index, arg in enumerate(args):
            way = _way(arg, known)
            if way is not None:
                places.places.append((index, way))
        return ((tuple,), places) if places.places else None
    if issubclass(origin, abc.Collection):
        way = _way(args[0], known)
        return None if way is None else (_ARRAYS, _ThroughItems(way))
    return None


def _of_class(hint: Any, fields: Fields, known: dict[Any, _Way]) -> tuple[tuple[type, ...], _Way] | None:
    types: tuple[type, ...] = (fields.cls,)
    if not fields.instances:
        types = (tuple,) if fields.array_like else (dict,)
    if hint in known:  # it is within itself
        return types, known[hint]
    if fields.instances:
        known[hint] = instance = _ToObject(fields)
        for field in fields.all:
            way = _way(field.hint, known)
            if way is not None:
                instance.ways.append((field.name, field.wire, way))
        return types, instance
    known[hint] = places = _ThroughPlaces()
    for index, field in enumerate(fields.all):
        way = _way(field.hint, known)
        if way is not None:
            places.places.append((index if fields.array_like else field.wire, way))
    return types, places
