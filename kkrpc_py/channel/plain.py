"""Data: the walk that tells it from all else, and copies it.

This module owns what may be read of an object by value: a property, and the fields of what was constructed.
Which names lead there is said in `channel.properties`; what becomes of it on the wire is the codecs'
business. No code of an object runs in the walk.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import sys
import types
from array import array
from typing import Any, cast

import msgspec

from kkrpc_py.channel.lookup import (
    MISSING,
    class_attribute,
    class_dict,
    instance_attribute,
    instance_dict,
    is_descriptor,
    mro,
    public,
    slot_value,
)
from kkrpc_py.channel.writable import Writable
from kkrpc_py.errors import NotSerializable
from kkrpc_py.wire import js

__all__ = ["fields_of", "plain"]

_DEPTH = 128
"""Nesting of what is read; as `Limits.depth` has it unless told otherwise."""
# By identity: a class's `__hash__` and `__eq__` are its metaclass's.
_LEAVES = frozenset(
    map(
        id,
        (
            type(None), bool, int, float, complex, str, bytes,
            datetime.datetime, datetime.date, datetime.time, datetime.timedelta,
        ),
    )
)  # fmt: skip
# Whoever has such a value has imported its module.
_LATE_LEAVES = (
    ("decimal", "Decimal"),
    ("fractions", "Fraction"),
    ("uuid", "UUID"),
    ("kkrpc_py.wire.js", "Undefined BigInt RegExp URL Uint8ClampedArray"),
    ("ipaddress", "IPv4Address IPv6Address IPv4Network IPv6Network IPv4Interface IPv6Interface"),
)


def plain(value: Any, path: str = "result", *, names: bool = False) -> Any:
    """A copy of `value`, which must be data. Raises NotSerializable, with the path to what is none.

    Dataclasses and Structs become dicts of their public fields, members of enums their values, as the peer
    would see them: what the walk has not seen is not in the copy. With `names`, `value` is one that a path
    leads to: entries of its dicts that no path leads to are left out, and those that are `writable` stand for
    their values.
    """
    return _Copy({}).of(value, path, _DEPTH, names)


def fields_of(instance: Any) -> dict[str, Any]:
    """The public fields of an instance that was constructed for the peer.

    Raises NotSerializable where one of them is no data: a function or another object.
    """
    found: Any = _struct_fields(instance) if issubclass(type(instance), msgspec.Struct) else None
    if type(found) is not dict:
        found = {}
        for each in reversed(mro(type(instance))):
            for name, attribute in class_dict(each).items():
                if type(attribute) is Writable:
                    found[name] = attribute.of(instance)
                elif type(attribute) is types.MemberDescriptorType:
                    found[name] = slot_value(attribute, instance)
        found.update(instance_dict(instance))
    copy_of = _Copy({}).of
    return {
        name: copy_of(value, f"result[{name!r}]", _DEPTH - 1, names=False)
        for name, value in found.items()
        if public(name) and value is not MISSING
    }


class _Copy:
    """One walk. What occurs twice is copied once, or a small object could become a large one."""

    def __init__(self, done: dict[int, Any]) -> None:
        self._done = done
        """By identity of a container and of how its dicts are seen: its copy; None while it is being made."""

    def of(self, value: Any, path: str, room: int, names: bool) -> Any:
        kind = type(value)
        if id(kind) in _LEAVES:
            return value
        key = id(value) * 2 + names
        if key in self._done:
            if self._done[key] is None:
                raise _no_data(kind, path, "it contains itself")
            return self._done[key][0]
        if room <= 0:
            raise _no_data(kind, path, "nested too deep")
        self._done[key] = None
        made = self._container(value, kind, path, room, names)
        # With the original, so that no other object gets its identity meanwhile.
        self._done[key] = made, value
        return made

    def _container(self, value: Any, kind: type, path: str, room: int, names: bool) -> Any:
        if kind is dict:
            return self._dict(value.copy(), path, room, names)
        if kind is list or kind is tuple:
            items = list(value)
            for index, item in enumerate(items):
                if id(type(item)) not in _LEAVES:
                    items[index] = self.of(item, f"{path}[{index}]", room - 1, names=False)
            return items if kind is list else tuple(items)
        if kind is set or kind is frozenset:
            members = value.copy()
            if not all(map(_is_key, members)):
                raise _no_data(kind, path, "a member is no plain value")
            return members
        if kind is bytearray or kind is array:
            return value[:]
        if kind is js.Map or kind is js.Object:
            return kind(self._dict(dict.copy(value), path, room, names=False))
        if kind is js.Array:
            return kind(self._container(list(value), list, path, room, names=False))
        if _is_late_leaf(kind):
            return value
        if issubclass(kind, enum.Enum):
            return self.of(instance_dict(value).get("_value_", MISSING), path, room, names=False)
        fields = _fields(value, kind)
        if fields is None:
            raise _no_data(kind, path)
        return self.of(fields, path, room, names)

    def _dict(self, entries: dict[Any, Any], path: str, room: int, names: bool) -> dict[Any, Any]:
        if not all(map(_is_key, entries)):
            raise _no_data(dict, path, "a key is no plain value")
        if names:
            entries = {key: item for key, item in entries.items() if type(key) is not str or public(key)}
        for key, item in entries.items():
            if id(type(item)) not in _LEAVES:
                box = names and type(item) is Writable
                entries[key] = self.of(
                    item.value if box else item, f"{path}[{key!r}]", room - 1, names=names and not box
                )
        return entries


def _no_data(kind: type, path: str, reason: str = "only data is read, and fields of data") -> NotSerializable:
    return NotSerializable(kind.__qualname__, path, reason)


def _is_late_leaf(kind: type) -> bool:
    for module_name, names in _LATE_LEAVES:
        module = sys.modules.get(module_name)
        if module is not None and any(kind is getattr(module, name, None) for name in names.split()):
            return True
    return False


def _is_key(key: Any) -> bool:
    """Plain and hashable, so that no code of its own runs when it is hashed or compared."""
    kind = type(key)
    if kind is tuple or kind is frozenset:
        return all(map(_is_key, key))
    return id(kind) in _LEAVES or _is_late_leaf(kind)


def _fields(value: Any, kind: type) -> Any:
    """The public fields of a dataclass or a Struct, in the form they have on the wire; None for all else."""
    if issubclass(kind, msgspec.Struct):
        return _struct_fields(value)
    declared = class_attribute(kind, "__dataclass_fields__")
    if type(declared) is not dict:
        return None
    # Of what stands in for the class, which its metaclass could make to say anything.
    fields = dataclasses.fields(cast("Any", types.SimpleNamespace(__dataclass_fields__=declared)))
    pairs = ((each.name, _field(value, kind, each.name)) for each in fields if public(each.name))
    return {name: item for name, item in pairs if item is not MISSING}


def _field(value: Any, kind: type, name: str) -> Any:
    default = class_attribute(kind, name)
    if type(default) is Writable:
        return default.of(value)
    own = instance_attribute(value, name)
    # Who made it without its `__init__` may have left the defaults to the class.
    return default if own is MISSING and not is_descriptor(default) else own


def _struct_fields(value: msgspec.Struct) -> Any:
    kind = type(value)
    config = kind.__struct_config__
    shown = zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True)
    pairs = [(sent, instance_attribute(value, name)) for name, sent in shown if public(name)]
    if config.array_like:
        if len(pairs) < len(kind.__struct_fields__):
            return None  # the place of each says what it is
        items = [item for _, item in pairs]
        return items if config.tag is None else [config.tag, *items]
    fields = {} if config.tag is None else {config.tag_field or "type": config.tag}
    fields.update((sent, item) for sent, item in pairs if item is not MISSING and item is not msgspec.UNSET)
    return fields
