"""`writable`: what an API allows its peer to set.

This module owns the attribute and the box. Who may reach it on which path is said in `channel.properties`.
"""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar, cast, overload

from kkrpc_py.channel.lookup import instance_dict
from kkrpc_py.errors import ValidationFailed

__all__ = ["Writable", "writable"]

_T = TypeVar("_T")

_UNKNOWN = object()
_SHARED = (type(None), bool, int, float, complex, str, bytes)
"""Values of these types cannot change, so that instances may have one in common."""


class Writable(Generic[_T]):
    """What `writable` gives: a value that the peer may set. See there."""

    __slots__ = ("_convert", "_name", "_type", "value")

    def __init__(self, value: _T, type: Any = None) -> None:
        self.value = value
        """In a dict: the value. In a class body: what an instance begins with."""
        self._type = type
        self._convert: Any = _UNKNOWN if type is not None else None
        self._name: str | None = None

    def __repr__(self) -> str:
        return f"writable({self.value!r})"

    def __set_name__(self, owner: type, name: str) -> None:
        if self._name not in (None, name):
            raise TypeError(f"one writable cannot be both {self._name!r} and {name!r}")
        if owner.__dictoffset__ == 0:
            raise TypeError(
                f"{owner.__name__}.{name} has no place in its instances: add '__dict__' to __slots__"
            )
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Writable[_T]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> _T: ...
    def __get__(self, instance: object, owner: type | None = None) -> Writable[_T] | _T:
        if instance is None:
            return self
        value = self.of(instance)
        if value is self.value and type(value) not in _SHARED:
            # Each instance has its own, or what one appends would be in all of them.
            attributes = object.__getattribute__(instance, "__dict__")
            own: _T = attributes.setdefault(self._known_name(), copy.deepcopy(value))
            return own
        return value

    def __set__(self, instance: object, value: _T) -> None:
        attributes, name = object.__getattribute__(instance, "__dict__"), self._known_name()
        if cast("Any", value) is self:  # a dataclass passes on what stands in its body as the default
            attributes.pop(name, None)
        else:
            attributes[name] = value

    def of(self, instance: object) -> _T:
        """The value of `instance`, which may be the common one that it begins with."""
        value: _T = instance_dict(instance).get(self._known_name(), self.value)
        return value

    def _known_name(self) -> str:
        if self._name is None:
            raise TypeError("a writable that is an attribute gets its name from a class body")
        return self._name

    def checked(self, value: Any, path: str) -> Any:
        """`value` as the declared type has it. Raises ValidationFailed, in the name of `path`."""
        if self._convert is _UNKNOWN:
            from kkrpc_py.channel.validation import converter

            self._convert = converter(self._type)
        if self._convert is None:
            return value
        try:
            return self._convert(value)
        except ValidationFailed as exc:
            raise ValidationFailed(path, "input", exc.issues) from None


def writable(default: _T, *, type: Any = None) -> Writable[_T]:
    """Allow the peer to set a property: ``theme = kk.writable("light", type=str)``.

    In a class body it is an attribute that each instance has for itself: ``self.theme`` reads and
    ``self.theme = "dark"`` sets it. As an entry of a dict it is a box with the attribute ``value``. The peer
    reads it with ``await api.theme`` and sets it with ``await channel.set(api.theme, "dark")``.

    `type`, any annotation, checks and converts what the peer sets; without it anything goes that a message
    carries.
    """
    return Writable(default, type)
