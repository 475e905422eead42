"""Why a value is not of its declared type: every issue, with the path to it.

msgspec checks in one pass and stops at the first thing that is wrong. What is here looks further, and runs
only once something is known to be wrong. It is bounded in what it says and in the time it takes: the value
is a peer's. Messages name types, never values.

This module owns the search. How a hint is checked in the first place is `channel.checks`'s.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import types
import typing
from collections import abc
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from time import perf_counter
from typing import Any, TypeAlias, Union, get_args, get_origin

import msgspec

from kkrpc_py.errors import ValidationIssue

__all__ = [
    "MOST_ISSUES",
    "REFUSALS",
    "Convert",
    "Fields",
    "Path",
    "Report",
    "bare",
    "careful",
    "explain",
    "explain_failed",
    "fields_of",
    "is_union",
]

MOST_ISSUES = 100
"""Issues that one error lists; the last of them says how many more there are."""
_SECONDS = 0.1
"""How long a call's values are looked at: once it is over, the first issue found must do."""
_DEPTH = 64
_SLICE = 256
_TEXT = 200
"""Characters of a message, and of a key in a path."""

Path: TypeAlias = tuple[str | int, ...]
Convert: TypeAlias = Callable[[Any, Any], Any]
"""`convert(value, hint)`; raises msgspec.ValidationError, or RecursionError."""

_ARRAYS = (list, tuple, set, frozenset)
_PLACE = re.compile(r" - at (`key` in )?`\$(.*)`$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
# What msgspec says of a wrong enum member, literal or tag repeats it.
_QUOTES = re.compile(r"(Invalid (?:enum )?value) (?:'.*'|-?\d+)", re.DOTALL)


class Report:
    """The issues found so far."""

    __slots__ = ("_began", "_complete", "_count", "_fields", "_issues")

    def __init__(self) -> None:
        self._issues: list[ValidationIssue] = []
        self._count = 0
        self._complete = True
        self._began = perf_counter()
        self._fields: dict[int, tuple[Any, Fields | None]] = {}

    def __bool__(self) -> bool:
        return self._count > 0

    @property
    def count(self) -> int:
        return self._count

    def add(self, path: Path, message: str, times: int = 1) -> None:
        """Note an issue; with `times`, as many of them of which this is the one to show."""
        self._count += times
        if len(self._issues) < MOST_ISSUES:
            self._issues.append(ValidationIssue(tuple(map(_part, path)), _short(message)))

    def spent(self) -> bool:
        """Whether to look no further: what was found must do."""
        if perf_counter() - self._began < _SECONDS:
            return False
        self._complete = False
        return True

    def issues(self) -> list[ValidationIssue]:
        """What to tell: at most `MOST_ISSUES`, and one more for what is left out."""
        more = self._count - len(self._issues)
        if self._complete and not more:
            return self._issues
        number = f"{more}" if self._complete else f"at least {more}" if more else "perhaps"
        return [*self._issues, ValidationIssue((), f"and {number} more")]

    def fields(self, hint: Any) -> Fields | None:
        """`fields_of(hint)`, remembered: lists of objects ask for it again and again."""
        known = self._fields.get(id(hint))
        if known is None:
            known = self._fields[id(hint)] = hint, fields_of(hint)
        return known[1]


def _short(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"


def _part(part: str | int) -> str | int:
    if isinstance(part, str):
        return _short(part)
    return part if -(2**53) < part < 2**53 else f"<{type(part).__name__}>"


def careful(convert: Convert) -> Convert:
    """`convert` as the functions below want it.

    msgspec raises other errors for a few values: it compares text as UTF-8, so for unpaired surrogates
    wherever text alone will not do, and in the keys of an object; it makes a float of a signaling NaN; it
    takes an array of numbers for a mapping.
    """

    def converted(value: Any, hint: Any) -> Any:
        try:
            return convert(value, hint)
        except msgspec.ValidationError:
            raise
        except REFUSALS as exc:
            if exc.__traceback__ is None or exc.__traceback__.tb_next is not None:
                raise  # from code in Python: a mistake of a class's own
            text = "Invalid text: it has an unpaired surrogate"
            text = text if isinstance(exc, UnicodeEncodeError) else "Invalid value"
        raise msgspec.ValidationError(text)

    return converted


REFUSALS = (ValueError, TypeError, AttributeError)
"""What else msgspec raises for a value."""


def explain(value: Any, hint: Any, convert: Convert, report: Report, path: Path = ()) -> None:
    """Note everything that keeps `value` from being a `hint`; nothing if it is one."""
    try:
        convert(value, hint)
    except RecursionError:
        report.add(path, "Nested too deeply")
    except msgspec.ValidationError as exc:
        explain_failed(str(exc), value, hint, convert, report, path)


def explain_failed(text: str, value: Any, hint: Any, convert: Convert, report: Report, path: Path) -> None:
    """The same where it is known already what msgspec says."""
    before = report.count
    if len(path) < _DEPTH and not report.spent():
        for step, child, wanted in _children(value, hint, convert, report, path):
            explain(child, wanted, convert, report, path if step is None else (*path, step))
            if report.spent():
                break
    if report.count == before:  # it is the value itself, or nothing that can be told apart
        message, rest = _read(text, bare(hint))
        report.add(path + rest, message)


def _read(text: str, hint: Any) -> tuple[str, Path]:
    """Msgspec's message, without a value, and the path that it ends with as far as it says one."""
    path: list[str | int] = []
    place = _PLACE.search(text)
    if place is not None:
        text = text[: place.start()]
        for name, index in _STEP.findall(place[2].partition("[...]")[0]):
            path.append(name or int(index))
    quoting = _QUOTES.fullmatch(text)
    if quoting is not None:
        allowed = [] if path else _allowed(hint)
        text = f"Expected one of {', '.join(allowed)}" if allowed else quoting[1]
    return f"{text} as a key" if place is not None and place[1] else text, tuple(path)


def _allowed(hint: Any) -> list[str]:
    """What the annotation lists, as its author wrote it."""
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        values: Iterable[Any] = [each.value for each in hint]
    elif get_origin(hint) is typing.Literal:
        values = get_args(hint)
    else:
        return []
    shown = [repr(value) for value in islice(values, 11)]
    return shown if len(shown) <= 10 else [*shown[:10], "…"]


# What a value is made of -------------------------------------------------------------------

_Child: TypeAlias = tuple[str | int | None, Any, Any]
"""The step that leads to it (None: no step can be named), the value, and its hint."""


def _children(value: Any, hint: Any, convert: Convert, report: Report, path: Path) -> Iterator[_Child]:
    hint = bare(hint)
    if is_union(hint):
        member = _member(value, get_args(hint), report)
        if member is not None:
            yield from _children(value, member, convert, report, path)
        return
    origin, args = get_origin(hint) or hint, get_args(hint)
    if type(value) is dict:
        if _is_class_of(origin, abc.Mapping) and not typing.is_typeddict(origin):
            if len(args) == 2:
                yield from _entries(value, args[0], args[1], convert, report, path)
        else:
            yield from _of_object(value, report.fields(hint), report, path)
    elif type(value) in _ARRAYS:
        fields = report.fields(hint)
        if fields is not None:
            if fields.array_like:
                for index, (child, field) in enumerate(zip(value, fields.all, strict=False)):
                    yield index, child, field.hint
        elif _is_class_of(origin, tuple) and not (len(args) == 2 and args[1] is Ellipsis):
            if len(args) == len(value):
                for index, (child, wanted) in enumerate(zip(value, args, strict=True)):
                    yield index, child, wanted
        elif args and _is_class_of(origin, abc.Collection) and not _is_class_of(origin, abc.Mapping):
            yield from _items(value, args[0], convert, report)


def _items(values: Any, item: Any, convert: Convert, report: Report) -> Iterator[_Child]:
    """The items that are wrong, or near one that is: whole slices are passed over in one step each."""
    numbered, index = type(values) in (list, tuple), 0
    items, whole = iter(values), types.GenericAlias(list, (item,))
    while not report.spent() and (part := list(islice(items, _SLICE))):
        if not _fits(part, whole, convert):
            for offset, value in enumerate(part):
                yield (index + offset if numbered else None), value, item
        index += len(part)


def _entries(
    values: dict[Any, Any], key: Any, item: Any, convert: Convert, report: Report, path: Path
) -> Iterator[_Child]:
    entries = iter(values.items())
    whole, only_key = types.GenericAlias(dict, (key, item)), types.GenericAlias(dict, (key, Any))
    while not report.spent() and (part := list(islice(entries, _SLICE))):
        if _fits(dict(part), whole, convert):
            continue
        for name, value in part:
            step = name if type(name) in (str, int) else f"<{type(name).__name__}>"
            try:
                convert({name: None}, only_key)
            except msgspec.ValidationError as exc:
                report.add((*path, step), _read(str(exc), bare(key))[0])
            yield step, value, item


def _fits(value: Any, hint: Any, convert: Convert) -> bool:
    try:
        convert(value, hint)
    except (msgspec.ValidationError, RecursionError):
        return False
    return True


def _of_object(value: dict[Any, Any], fields: Fields | None, report: Report, path: Path) -> Iterator[_Child]:
    if fields is None:
        return
    for field in fields.all:
        if field.wire in value:
            yield field.wire, value[field.wire], field.hint
        elif field.required:
            report.add((*path, field.wire), "Missing")


def _member(value: Any, members: Sequence[Any], report: Report) -> Any:
    """The one member of a union that the value was meant for; None where that cannot be said."""
    found = []
    for member in members:
        fields = report.fields(bare(member))
        origin = get_origin(bare(member)) or bare(member)
        if fields is not None:
            if type(value) is dict and not fields.array_like:
                if fields.tag_field is not None and value.get(fields.tag_field) != fields.tag:
                    continue
                found.append(member)
            elif type(value) in _ARRAYS and fields.array_like:
                found.append(member)
        elif type(value) is dict:
            if _is_class_of(origin, abc.Mapping):
                found.append(member)
        elif type(value) in _ARRAYS and get_args(bare(member)) and not _is_class_of(origin, abc.Mapping):
            found.append(member)
    return found[0] if len(found) == 1 else None


def _is_class_of(found: Any, wanted: Any) -> bool:
    return isinstance(found, type) and issubclass(found, wanted)


# Hints -------------------------------------------------------------------------------------


class Field(msgspec.Struct, frozen=True):
    """A field of a class, as an annotation declares it."""

    name: str
    wire: str
    """Its name in a message."""
    hint: Any
    required: bool


class Fields(msgspec.Struct, frozen=True):
    """A dataclass, attrs class, Struct, TypedDict or NamedTuple."""

    cls: type
    all: tuple[Field, ...]
    array_like: bool
    """It is written as an array."""
    tag_field: str | None
    tag: Any
    instances: bool
    """Values are objects with attributes; a TypedDict is a dict, a NamedTuple a tuple."""


def fields_of(hint: Any) -> Fields | None:
    """What `hint` declares if it is a class with fields, or such a class with its parameters."""
    cls = get_origin(hint) or hint
    if not (isinstance(cls, type) and _has_fields(cls)):
        return None
    info: Any = msgspec.inspect.type_info(hint)
    hints = typing.get_type_hints(cls, include_extras=True)
    # The fields of a TypedDict come by name, all others as they are declared.
    order = {name: index for index, name in enumerate(hints)} if typing.is_typeddict(cls) else {}
    parameters = dict(zip(getattr(cls, "__parameters__", ()), get_args(hint), strict=False))
    return Fields(
        cls=cls,
        all=tuple(
            Field(
                field.name,
                getattr(field, "encode_name", field.name),
                _filled(_unqualified(hints.get(field.name, Any)), parameters),
                getattr(field, "required", True),
            )
            for field in sorted(info.fields, key=lambda field: order.get(field.name, len(order)))
        ),
        array_like=getattr(info, "array_like", isinstance(info, msgspec.inspect.NamedTupleType)),
        tag_field=getattr(info, "tag_field", None),
        tag=getattr(info, "tag", None),
        instances=isinstance(info, msgspec.inspect.StructType | msgspec.inspect.DataclassType),
    )


def _has_fields(cls: type) -> bool:
    return (
        issubclass(cls, msgspec.Struct)
        or dataclasses.is_dataclass(cls)
        or typing.is_typeddict(cls)
        or hasattr(cls, "__attrs_attrs__")
        or (issubclass(cls, tuple) and hasattr(cls, "_fields"))
    )


_QUALIFIERS = (typing.Required, typing.NotRequired, typing.Final, getattr(typing, "ReadOnly", typing.Final))


def _unqualified(hint: Any) -> Any:
    """`hint` without what only a field may have around it."""
    while get_origin(hint) in _QUALIFIERS:
        hint = get_args(hint)[0]
    return hint


def _filled(hint: Any, parameters: dict[Any, Any]) -> Any:
    """`hint` with the type variables of a generic class replaced."""
    if not parameters:
        return hint
    if hint in parameters:
        return parameters[hint]
    free = getattr(hint, "__parameters__", ())
    return hint[tuple(parameters.get(each, each) for each in free)] if free else hint


def is_union(hint: Any) -> bool:
    """`X | Y`, in either spelling."""
    return isinstance(hint, types.UnionType) or get_origin(hint) is Union


_WRAPPERS = (typing.Annotated, typing.Required, typing.NotRequired, typing.Final)


def bare(hint: Any) -> Any:
    """`hint` without what stands around it: constraints, `Required`, a new name for it."""
    while True:
        if get_origin(hint) in _WRAPPERS:
            hint = get_args(hint)[0]
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif isinstance(hint, _ALIASES) and hasattr(hint, "__value__"):
            hint = hint.__value__
        else:
            return hint


_ALIASES: Any = getattr(typing, "TypeAliasType", ())
