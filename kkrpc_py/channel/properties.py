"""What a peer may read and set: data, by value, found without running code.

This module owns the rules of `get` and `set`. Readable are the entries of dicts, and the names that a class
body mentions: a value, an annotation, a slot, a field, a `writable`. What lies there must be data through
and through (`channel.plain`), or it is missing. A copy is given out: the object may change, and another
thread may change it, before the value is written.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from kkrpc_py.channel.lookup import (
    MISSING,
    class_attribute,
    instance_attribute,
    instance_dict,
    is_annotated,
    is_descriptor,
    namespace_at,
    public,
    slot_value,
)
from kkrpc_py.channel.plain import plain
from kkrpc_py.channel.writable import Writable
from kkrpc_py.errors import NotSerializable, PropertyNotFound

__all__ = ["read", "setter"]


def read(api: Any, path: tuple[str, ...]) -> Any:
    """A copy of the value at `path`. Raises PropertyNotFound, with the texts of CALL-6."""
    return _read(path, *_at(api, path))


def setter(api: Any, path: tuple[str, ...]) -> Callable[[Any], None]:
    """What puts a value at `path`, where there is a `writable`; it raises what validation raises.

    Raises PropertyNotFound as `read` does, and PermissionError where a value may be read only.
    """
    owner, listed = _at(api, path)
    box = _box_at(owner, path[-1])
    if box is None:
        _read(path, owner, listed)
        raise PermissionError(f"Property path {'.'.join(path)} is not writable")

    def put(value: Any) -> None:
        value = box.checked(value, ".".join(path))
        if type(owner) is dict:
            box.value = value
        else:
            box.__set__(owner, value)

    return put


def _at(api: Any, path: tuple[str, ...]) -> tuple[Any, bool]:
    """What the last segment of `path` is a name in, and whether all the entries of such a dict are listed.

    They are not where nothing but code of an instance has put the dict there, and no class body names it: a
    path to functions, but its values are as private as any attribute's.
    """
    if not path:
        raise _not_found(path, "")
    owner, listed = api, True
    for segment in path[:-1]:
        found = namespace_at(owner, segment)
        if found is MISSING:
            raise _not_found(path, segment)
        if type(owner) is not dict:
            listed = _is_named(type(owner), segment)
        owner = found
    return owner, listed


def _is_named(cls: type, segment: str) -> bool:
    return class_attribute(cls, segment) is not MISSING or is_annotated(cls, segment)


def _not_found(path: tuple[str, ...], segment: str) -> PropertyNotFound:
    return PropertyNotFound(f"Property path {'.'.join(path)} not found at {segment}")


def _read(path: tuple[str, ...], owner: Any, listed: bool) -> Any:
    box = _box_at(owner, path[-1])
    try:
        if box is not None:
            return plain(box.value if type(owner) is dict else box.of(owner))
        return plain(_value_at(owner, path[-1], listed), names=True)
    except NotSerializable:
        raise _not_found(path, path[-1]) from None


def _box_at(owner: Any, segment: str) -> Writable[Any] | None:
    if not public(segment):
        return None
    found = owner.get(segment) if type(owner) is dict else class_attribute(type(owner), segment)
    return found if type(found) is Writable else None


def _value_at(owner: Any, segment: str, listed: bool) -> Any:
    if not public(segment):
        return MISSING
    if type(owner) is dict:
        return owner.get(segment, MISSING) if listed else MISSING
    found = class_attribute(type(owner), segment)
    if found is MISSING:
        return instance_attribute(owner, segment) if is_annotated(type(owner), segment) else MISSING
    if type(found) is types.MemberDescriptorType:
        return slot_value(found, owner)
    return MISSING if is_descriptor(found) else instance_dict(owner).get(segment, found)
