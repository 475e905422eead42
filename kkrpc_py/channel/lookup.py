"""Names on objects and in dicts, found without running code.

This module owns how a name is looked up: no property, no `__getattr__`, no metaclass has a say. Which of the
names a peer may use is not decided here, but in `channel.expose` (methods, classes) and `channel.properties`.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "ATTACHED_HOOK",
    "FUNCTIONS",
    "METHOD_OBJECTS",
    "MISSING",
    "NAMESPACE_MARK",
    "UNLISTED_MARK",
    "bound",
    "by_class_statement",
    "class_attribute",
    "class_dict",
    "face_of",
    "instance_attribute",
    "instance_dict",
    "is_annotated",
    "is_descriptor",
    "mro",
    "namespace_at",
    "public",
]

MISSING: Any = object()
NAMESPACE_MARK = "__kkrpc_namespace__"
UNLISTED_MARK = "__kkrpc_unlisted__"
"""In a class whose objects no path leads to or through: what belongs to a channel is for its own holder."""
FACE_MARK = "__kkrpc_face__"
"""In a class whose objects show the peer another object in their place: the name of the attribute that holds
it. What the application calls of them is nobody's API."""
ATTACHED_HOOK = "__kkrpc_attached__"
"""A method that is told of each channel which starts to expose the object."""
FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)
METHOD_OBJECTS = (staticmethod, classmethod, functools.partialmethod)
"""What stands in a class for a method and is no function."""
# Py_TPFLAGS_HEAPTYPE, which each class made by a class statement has, and Py_TPFLAGS_IMMUTABLETYPE, which
# those builtin types have that are made on the heap as well (from 3.13 on defaultdict, for one).
_HEAP_TYPE, _IMMUTABLE_TYPE = 1 << 9, 1 << 8
_NEVER_A_NAMESPACE = (type, types.ModuleType, functools.partial, *FUNCTIONS)
# As the interpreter finds them: a metaclass may have its own idea of a class's attributes.
mro: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
class_dict: Callable[[type], Mapping[str, Any]] = type.__dict__["__dict__"].__get__
_flags: Callable[[type], int] = type.__dict__["__flags__"].__get__


def public(segment: str) -> bool:
    """Whether a path may have that segment. A subclass of `str` has ideas of its own of what it equals."""
    return type(segment) is str and segment != "" and segment[0] != "_"


def by_class_statement(cls: type) -> bool:
    """Whether `cls` is no builtin type."""
    return _flags(cls) & (_HEAP_TYPE | _IMMUTABLE_TYPE) == _HEAP_TYPE


def class_attribute(cls: type, segment: str) -> Any:
    """What the body of `cls`, or of a base that is no builtin, says under that name."""
    for each in mro(cls):
        found = class_dict(each).get(segment, MISSING)
        if found is not MISSING:
            return found if by_class_statement(each) else MISSING
    return MISSING


def is_annotated(cls: type, segment: str) -> bool:
    """Whether a class body says `segment: …`."""
    return any(by_class_statement(each) and segment in _annotations(each) for each in mro(cls))


if sys.version_info >= (3, 14):

    def _annotations(cls: type) -> Mapping[str, Any]:
        # They are made when they are asked for; in this form without evaluating what they say.
        import annotationlib

        made = class_dict(cls).get("__annotate_func__")
        if made is None:
            return {}
        return annotationlib.call_annotate_function(made, annotationlib.Format.STRING, owner=cls)
else:

    def _annotations(cls: type) -> Mapping[str, Any]:
        found = class_dict(cls).get("__annotations__")
        return found if type(found) is dict else {}


def instance_dict(owner: Any) -> dict[str, Any]:
    """The attributes that the instance itself has; an empty dict where it has no place for any."""
    try:
        attributes = object.__getattribute__(owner, "__dict__")
    except AttributeError:
        return {}
    return attributes if type(attributes) is dict else {}


def instance_attribute(owner: Any, segment: str) -> Any:
    """What the instance itself has under that name, in its dict or in a slot."""
    attributes = instance_dict(owner)
    if segment in attributes:
        return attributes[segment]
    slot = class_attribute(type(owner), segment)
    return slot_value(slot, owner) if type(slot) is types.MemberDescriptorType else MISSING


def slot_value(slot: types.MemberDescriptorType, owner: Any) -> Any:
    """What `owner` has in that slot."""
    try:
        return slot.__get__(owner, type(owner))
    except (AttributeError, TypeError):  # nothing as yet; another class's slot under a name of this one
        return MISSING


def is_descriptor(found: Any) -> bool:
    """Getting it through an instance would run code: a property, a cached property, an ORM's field."""
    return any("__get__" in class_dict(each) for each in mro(type(found)))


def bound(owner: Any, segment: str) -> Any:
    """The method of that name if the class has one, else `owner`."""
    found = class_attribute(type(owner), segment)
    return found.__get__(owner, type(owner)) if type(found) is types.FunctionType else owner


def face_of(found: Any) -> Any:
    """What the peer sees of an object: most often the object."""
    name = class_attribute(type(found), FACE_MARK)
    return found if name is MISSING else instance_dict(found).get(name, MISSING)


def namespace_at(owner: Any, segment: str) -> Any:
    """The namespace under that name: what else a path leads through there is nothing."""
    return face_of(_namespace_at(owner, segment)) if public(segment) else MISSING


def _namespace_at(owner: Any, segment: str) -> Any:
    if type(owner) is dict:
        found = owner.get(segment, MISSING)
        return found if _may_hold_names(found) else MISSING
    found = class_attribute(type(owner), segment)
    own = instance_attribute(owner, segment)
    if own is MISSING:
        return found if _may_hold_names(found) else MISSING
    if found is not MISSING and type(found) is not types.MemberDescriptorType and is_descriptor(found):
        return MISSING  # what a property has kept in the instance, or the value of a `writable`
    marked = class_attribute(type(own), NAMESPACE_MARK) is True
    return own if type(own) is dict or marked else MISSING


def _may_hold_names(found: Any) -> bool:
    if found is MISSING or issubclass(type(found), _NEVER_A_NAMESPACE) or is_descriptor(found):
        return False
    # A string or a list in a class body is a value.
    if type(found) is dict:
        return True
    return by_class_statement(type(found)) and class_attribute(type(found), UNLISTED_MARK) is not True
