"""What an action takes: the value that a peer sent, as the action declares it, or every field that is wrong.

It owns the refusal, and how the strings of a query are read. How a hint is checked, and the search for every
issue, are those of `channel.checks` and `channel.issues`: what an annotated handler takes, an action takes.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import re
import typing
from collections import abc
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args, get_origin

import msgspec

from kkrpc_py.channel.issues import bare, fields_of, is_union
from kkrpc_py.channel.validation import converter
from kkrpc_py.errors import ActionError, ValidationFailed, ValidationIssue
from kkrpc_py.limits import Limits
from kkrpc_py.wire.js import Undefined
from kkrpc_py.wire.json_codec import JsonError, JsonReader

__all__ = ["invalid", "reader"]

_CODE = "VALIDATION_ERROR"
_MESSAGE = "Input validation failed"
_STATUS = 422
"""Unprocessable Content (RFC 9110, section 15.5.21)."""
_ROOT = "_root"
"""Stands for the path to the input itself."""
_PATH = 500
"""Characters of a path."""

_log = logging.getLogger("kkrpc_py.actions")


def reader(hint: Any) -> Callable[[Any, bool], Any]:
    """What makes of a raw input the value that an action with `input=hint` takes: `read(raw, text)`.

    With `text` the raw input is a dict of what a query had: a string for each name, a list of them for one
    that was repeated. Then strings are read as the numbers, booleans and None that are declared, and as JSON
    if they begin with `[` or `{`; not where a `str` is. A single string is a list of one where a list is.

    An input that was not given (`UNDEFINED`) counts as an empty mapping where a mapping is taken, else as
    None. `None` as the hint takes anything.

    `read` raises ActionError alone: `VALIDATION_ERROR`, 422, with every field that is wrong, as many as
    `channel.issues` lists; `STREAM_ERROR` where code of the hint's own failed. This function raises TypeError
    for a hint that cannot be checked; a name in it that is not known yet may be so until the first input.
    """
    if hint is None or _takes_anything(hint):
        return _raw
    found = _Reader(hint)
    with contextlib.suppress(NameError):
        found.prepare()
    return found


def _takes_anything(hint: Any) -> bool:
    return bare(hint) in (Any, object) or isinstance(bare(hint), typing.TypeVar)


def _raw(raw: Any, text: bool) -> Any:
    return {} if type(raw) is Undefined else raw


class _Reader:
    """One hint, made ready when it is known whole."""

    __slots__ = ("_convert", "_hint", "_query")

    def __init__(self, hint: Any) -> None:
        self._hint = hint
        self._convert: Callable[[Any], Any] | None = None
        self._query: _Query | None = None

    def prepare(self) -> Callable[[Any], Any]:
        """Find out how to check. Raises NameError if a name is not known yet, TypeError if it cannot be."""
        hint = self._hint
        self._convert = converter(hint)
        if self._convert is None:
            try:
                msgspec.inspect.type_info(hint)
            except NameError:
                raise
            except Exception as exc:  # msgspec's, and that of the user's own classes
                raise TypeError(f"no input can be checked against {hint!r}: {exc}") from exc
            raise TypeError(f"no input can be checked against {hint!r}: use Any for what has no type")
        return self._convert

    def __call__(self, raw: Any, text: bool) -> Any:
        try:
            convert = self._convert or self.prepare()
            if type(raw) is Undefined:
                raw = {} if _Place.of(self._hint).object else None
            elif text and type(raw) is dict:
                if self._query is None:
                    self._query = _Query(self._hint)
                raw = self._query.values(raw)
            return convert(raw)
        except ValidationFailed as failed:
            issues = failed.issues
        except Exception:  # what the hint's own classes raise by mistake
            _log.exception("the input of an action could not be checked against %r", self._hint)
            issues = None
        # Out here, so that the error has no context that carries values.
        raise ActionError.unexpected() if issues is None else invalid(issues)


def invalid(issues: Iterable[ValidationIssue]) -> ActionError:
    """The refusal of an input in which these are wrong; of the input itself where a path is empty."""
    fields: dict[str, list[str]] = {}
    for issue in issues:
        path = _sendable(".".join(map(str, issue.path))) or _ROOT
        path = path if len(path) <= _PATH else path[: _PATH - 1] + "…"
        fields.setdefault(path, []).append(_sendable(issue.message))
    return ActionError(_CODE, _MESSAGE, _STATUS, field_errors=fields)


def _sendable(text: str) -> str:
    """`text` as any peer can read it: it may hold what the peer sent, unpaired surrogates too."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


# Queries -----------------------------------------------------------------------------------

_WHOLE = re.compile(r"-?[0-9]{1,1000}")  # as many as Limits.digits
_REAL = re.compile(r"-?[0-9]{1,1000}(\.[0-9]{1,1000})?([eE][+-]?[0-9]{1,3})?")
_TRUTHS = {"true": True, "false": False}
_BITS = {"1": True, "0": False}
_json = JsonReader(Limits())


class _Query:
    """How to read the strings of a query as the values of one hint."""

    __slots__ = ("_fields", "_others")

    def __init__(self, hint: Any) -> None:
        hints: dict[str, list[Any]] = {}
        others: list[Any] = []
        for member in _members(hint):
            fields = _fields_of(member)
            for name, wanted in fields:
                hints.setdefault(name, []).append(wanted)
            args = get_args(member)
            if not fields and len(args) == 2 and _is_class_of(get_origin(member), abc.Mapping):
                others.append(args[1])
        self._fields = {name: _Place.of(*wanted) for name, wanted in hints.items()}
        self._others = _Place.of(*others) if others else _AS_IT_IS

    def values(self, raw: dict[Any, Any]) -> dict[Any, Any]:
        return {name: self._fields.get(name, self._others).read(value) for name, value in raw.items()}


class _Place(msgspec.Struct, frozen=True):
    """What may stand where there is a string."""

    text: bool = False
    texts: frozenset[str] = frozenset()
    """These alone, as text."""
    whole: bool = False
    real: bool = False
    truth: bool = False
    none: bool = False
    object: bool = False
    """What JSON has braces for."""
    items: tuple[_Place, ...] | None = None
    """A list: what its items are, the last of them also all that follow."""

    @classmethod
    def of(cls, *hints: Any, inner: bool = False) -> _Place:
        """What any of `hints` allows; `inner`: within a list, where there is only text, or else JSON."""
        found: dict[str, Any] = {}
        for member in (member for hint in hints for member in _members(hint)):
            found.update(_kind(member, found, inner))
        return cls(**found)

    def read(self, value: Any) -> Any:
        if type(value) is str:
            return self._of_text(value)
        if type(value) is list and self.items is not None:
            return [self._item(index).read(each) for index, each in enumerate(value)]
        return value

    def _item(self, index: int) -> _Place:
        items = self.items
        return items[min(index, len(items) - 1)] if items else _AS_IT_IS

    def _of_text(self, text: str) -> Any:
        if self.text or text in self.texts:
            return text
        if text[:1] in ("[", "{") and (self.object or self.items is not None):
            try:
                value = _json.loads(text.encode())
            except (JsonError, UnicodeEncodeError):
                pass
            else:
                return value if self.object or type(value) is list else [value]
        value = self._scalar(text)
        return [self._item(0).read(text)] if value is text and self.items is not None else value

    def _scalar(self, text: str) -> Any:
        """The value that `text` stands for; itself if it stands for none that is wanted."""
        if (self.whole or self.real) and _WHOLE.fullmatch(text):
            return int(text)
        if self.real and _REAL.fullmatch(text):
            number = float(text)
            return number if number - number == 0 else text  # beyond what a float holds
        if self.truth:
            truth = _TRUTHS.get(text.lower(), _BITS.get(text))
            if truth is not None:
                return truth
        return None if self.none and text in ("", "null") else text


_AS_IT_IS = _Place(text=True)


def _kind(hint: Any, known: dict[str, Any], inner: bool) -> dict[str, Any]:
    """What one member of a union allows, added to what is `known` of the others."""
    cls: Any = get_origin(hint) or hint
    args = get_args(hint)
    if cls is typing.Literal:
        return _one_of(args, known)
    if _is_class_of(cls, enum.Enum):
        return _one_of([each.value for each in cls], known)
    if _takes_anything(hint) or _is_class_of(cls, str):
        return {"text": True}
    if cls is None or (isinstance(cls, type) and cls in _SCALARS):
        return {_SCALARS[cls or type(None)]: True}
    if _is_class_of(cls, abc.Mapping) or _is_model(cls) or _fields_of(hint):
        return {"object": True}
    if _is_class_of(cls, abc.Collection) and not _is_class_of(cls, (bytes, bytearray, memoryview)):
        items = () if inner else tuple(_Place.of(arg, inner=True) for arg in args if arg is not Ellipsis)
        return {"items": known.get("items") or items}
    return {}


_SCALARS = {int: "whole", float: "real", bool: "truth", type(None): "none"}


def _one_of(values: Iterable[Any], known: dict[str, Any]) -> dict[str, Any]:
    kinds = {type(value) for value in values}
    texts = frozenset(value for value in values if isinstance(value, str))
    found: dict[str, Any] = {name: True for cls, name in _SCALARS.items() if cls in kinds}
    return {**found, "texts": texts | known.get("texts", frozenset())}


def _members(hint: Any, known: frozenset[int] = frozenset()) -> Iterator[Any]:
    """The members of a union, or `hint` itself; of a root model, what its root is."""
    hint = bare(hint)
    if is_union(hint):
        for member in get_args(hint):
            yield from _members(member, known)
    elif getattr(hint, "__pydantic_root_model__", False) is True:
        if id(hint) not in known:
            yield from _members(hint.model_fields["root"].annotation, known | {id(hint)})
    else:
        yield hint


def _is_model(cls: Any) -> bool:
    return hasattr(cls, "__pydantic_core_schema__") and isinstance(getattr(cls, "model_fields", None), dict)


def _fields_of(hint: Any) -> list[tuple[str, Any]]:
    """Each name that an object of this class may have in a message, with its hint; none for another class."""
    if _is_model(hint):
        return [
            (key, field.annotation)
            for name, field in hint.model_fields.items()
            for key in _names(name, field)
        ]
    try:
        fields = fields_of(hint)
    except Exception:  # the user's own class is asked
        return []
    if fields is None or fields.array_like:
        return []
    tag = [] if fields.tag_field is None else [(fields.tag_field, type(fields.tag))]
    return [*tag, *((field.wire, field.hint) for field in fields.all)]


def _names(name: str, field: Any) -> Iterator[str]:
    """The names that a model takes for a field."""
    yield name
    for alias in (field.alias, field.validation_alias):
        for each in getattr(alias, "choices", (alias,)):
            if isinstance(each, str):
                yield each


def _is_class_of(found: Any, wanted: Any) -> bool:
    return isinstance(found, type) and issubclass(found, wanted)
