"""What an API's author says of its classes and methods: `@namespace`, `@constructible`, `@expose`.

This module owns the marks, and which names a class lists its methods under. Whether a peer gets there is
decided in `channel.expose`.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from kkrpc_py.channel.lookup import (
    METHOD_OBJECTS,
    MISSING,
    NAMESPACE_MARK,
    by_class_statement,
    class_attribute,
    class_dict,
    instance_dict,
    is_descriptor,
    mro,
    public,
)
from kkrpc_py.channel.writable import Writable

__all__ = [
    "ClassNames",
    "constructible",
    "expose",
    "is_constructible",
    "listed_names",
    "names_of",
    "namespace",
    "size_of",
]

_T = TypeVar("_T")
_C = TypeVar("_C", bound=type)

_NAMES_MARK = "__kkrpc_names__"
_CONSTRUCTIBLE_MARK = "__kkrpc_constructible__"


def namespace(cls: _C) -> _C:
    """Mark a class whose instances may be reached through an attribute of an exposed object."""
    setattr(cls, NAMESPACE_MARK, True)
    return cls


def constructible(cls: _C) -> _C:
    """Mark a class whose instances the peer may make, where it is a dict's entry or named in a class body.

    The mark is the class's own: a subclass needs one too. The peer gets the public fields of the instance,
    by value. The class is called on a thread, unless it is marked `inline` as well.
    """
    setattr(cls, _CONSTRUCTIBLE_MARK, True)
    return cls


def is_constructible(found: Any) -> bool:
    """Whether it is a class with that mark of its own."""
    return issubclass(type(found), type) and class_dict(found).get(_CONSTRUCTIBLE_MARK) is True


def expose(*names: str) -> Callable[[_T], _T]:
    """List a method under `names` instead of its own: ``@kk.expose("add") async def _add(self, a, b): …``.

    An override in a subclass is listed under the same names, unless it has the decorator itself. Raises
    ValueError where a name could not be reached, TypeError for what is no method.
    """
    if not names:
        raise ValueError("expose() needs the names that the method is listed under")
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"expose() takes names, as in @expose('name'), not {type(name).__name__}")
        if not public(name) or "." in name:
            raise ValueError(f"{name!r} is no name that a peer could call")

    def mark(method: _T) -> _T:
        if not isinstance(method, (types.FunctionType, *METHOD_OBJECTS)):
            raise TypeError(f"expose() lists methods, not objects of type {type(method).__name__}")
        setattr(method, _NAMES_MARK, names)
        return method

    return mark


def listed_names(method: Any) -> tuple[str, ...] | None:
    """The names that `@expose` gives to what stands in a class for a method; None: its own only."""
    if type(method) is types.FunctionType:  # what most methods are
        return method.__dict__.get(_NAMES_MARK)
    names: tuple[str, ...] | None = instance_dict(method).get(_NAMES_MARK)
    if names is None and type(method) in (staticmethod, classmethod):
        names = instance_dict(method.__func__).get(_NAMES_MARK)
    return names


class ClassNames(NamedTuple):
    """The names of one class that `@expose` changes."""

    cls: type
    size: int
    """How many attributes its bodies had when they were looked at."""
    hidden: frozenset[str]
    """Attributes that are not listed under their own names."""
    attributes: dict[str, str]
    """A name to the attribute that is listed under it."""


def size_of(cls: type) -> int:
    """A class that was given an attribute later has another one."""
    return sum(len(class_dict(each)) for each in mro(cls))


def names_of(cls: type) -> ClassNames:
    """Raises TypeError where two things are listed under one name."""
    given: dict[str, tuple[str, ...]] = {}
    for each in mro(cls):
        if by_class_statement(each):
            for attribute, found in class_dict(each).items():
                names = listed_names(found) if _is_method(found) else None
                # An override keeps the names of what it overrides.
                if names is not None and _is_method(class_attribute(cls, attribute)):
                    given.setdefault(attribute, names)
    attributes: dict[str, str] = {}
    for attribute, names in given.items():
        for name in names:
            if name != attribute and name not in given and _is_listed(class_attribute(cls, name)):
                raise _both(cls, attribute, name, name)
            if attributes.setdefault(name, attribute) != attribute:
                raise _both(cls, attribute, attributes[name], name)
    hidden = frozenset(attribute for attribute, names in given.items() if attribute not in names)
    return ClassNames(cls, size_of(cls), hidden, attributes)


def _is_method(found: Any) -> bool:
    return type(found) is types.FunctionType or issubclass(type(found), METHOD_OBJECTS)


def _is_listed(found: Any) -> bool:
    if found is MISSING or found is None:
        return False
    return _is_method(found) or type(found) is Writable or not is_descriptor(found)


def _both(cls: type, one: str, other: str, name: str) -> TypeError:
    return TypeError(f"{cls.__qualname__}: {one} and {other} cannot both be listed as {name!r}")
