"""Python objects to values that a codec carries, and what a peer sent to what it stands for (VAL-9).

It owns two walks. `Lowering.lower` runs only over a message that a codec has refused: dataclasses, msgspec
Structs, enums, pydantic models, numpy arrays and whatever the user's `encode` hook knows become plain values,
functions and streams the strings that stand for them. `restored` is the way back, for a message that names
such strings or for a user's `decode` hook. What functions and streams are is the business of `Passing`.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from kkrpc_py.errors import NotSerializable
from kkrpc_py.wire import js
from kkrpc_py.wire.arrays import Tensor

__all__ = ["DecodeHook", "EncodeHook", "Lowering", "Passing", "restored"]

EncodeHook = Callable[[Any], Any]
"""Gets a value that nothing else knows how to send; returns what to send in its place, which is looked at in
turn, or NotImplemented."""
DecodeHook = Callable[[dict[Any, Any]], Any]
"""Gets each mapping that arrived, the inner ones first; returns what the application sees in its place."""

_LEAVES: frozenset[type] = frozenset(
    (type(None), bool, int, float, str, bytes, bytearray, memoryview, Tensor)
)
_JAVASCRIPT: frozenset[type] = frozenset(
    (js.Undefined, js.BigInt, js.Map, js.RegExp, js.URL, js.Uint8ClampedArray, js.Object, js.Array)
)
_LISTS: frozenset[type] = frozenset((list, tuple, set, frozenset))


_NUMPY_KINDS = frozenset("biufcSU")


class Passing(Protocol):
    """Where functions and streams get the strings that stand for them."""

    def function(self, value: Any, path: str) -> str:
        """Raises NotSerializable where the peer takes none here."""
        ...

    def carries(self, kind: type) -> bool:
        """Whether the codec carries values of that type as they are."""
        ...

    def tensor(self, numpy: Any, value: Any, path: str) -> Any:
        """What to send for a numpy array of numbers. Raises NotSerializable."""
        ...

    def stream(self, value: Any, path: str) -> str | None:
        """None: it is no stream. Raises NotSerializable where the peer takes none here."""
        ...


class Lowering:
    """The walk for one channel. `depth` bounds it."""

    def __init__(self, encode: EncodeHook | None, depth: int) -> None:
        self._encode = encode
        self._depth = depth

    def lower(self, value: Any, path: str, passing: Passing | None) -> Any:
        """`value` itself where nothing in it had to be replaced; else a copy as far as need be.

        What is not known here stays as it is, for the codec to refuse. Raises NotSerializable, and what
        the user's hook raises.
        """
        return self._lower(value, path, passing, self._depth, set())

    def _lower(self, value: Any, path: str, passing: Passing | None, room: int, above: set[int]) -> Any:
        kind = type(value)
        if kind in _LEAVES:
            return value
        if room < 0:
            raise NotSerializable(kind.__qualname__, path, "nested deeper than Limits.depth")
        identity = id(value)
        if identity in above:
            raise NotSerializable(kind.__qualname__, path, "it contains itself")
        above.add(identity)
        try:
            if kind is dict:
                return self._lower_dict(value, path, passing, room, above)
            if kind in _LISTS:
                return self._lower_list(value, path, passing, room, above)
            found = self._replacement(value, kind, path, passing)
            if found is value:
                return value
            return self._lower(found, path, passing, room - 1, above)
        finally:
            above.discard(identity)

    def _lower_dict(
        self, value: dict[Any, Any], path: str, passing: Passing | None, room: int, above: set[int]
    ) -> Any:
        lowered: dict[Any, Any] | None = None
        for key, item in value.items():
            if type(item) not in _LEAVES:
                new = self._lower(item, f"{path}[{key!r}]", passing, room - 1, above)
                if new is not item:
                    if lowered is None:
                        lowered = dict(value)
                    lowered[key] = new
        found = value if lowered is None else lowered
        if any(isinstance(key, enum.Enum) for key in found):
            plain = {key.value if isinstance(key, enum.Enum) else key: item for key, item in found.items()}
            if len(plain) != len(found):
                raise NotSerializable("dict", path, "two of its keys have the same value")
            return plain
        return found

    def _lower_list(self, value: Any, path: str, passing: Passing | None, room: int, above: set[int]) -> Any:
        lowered: list[Any] | None = None
        for index, item in enumerate(value):
            if type(item) not in _LEAVES:
                new = self._lower(item, f"{path}[{index}]", passing, room - 1, above)
                if new is not item and lowered is None:
                    lowered = list(value)[:index]
                item = new
            if lowered is not None:
                lowered.append(item)
        if lowered is None:
            return value
        kind = type(value)
        try:
            found = kind(lowered)
        except TypeError:  # a member of a set that is a mapping now
            raise NotSerializable(kind.__name__, path, "what its members become cannot be in a set") from None
        if len(found) != len(lowered):
            raise NotSerializable(kind.__name__, path, "two of its members become the same value")
        return found

    def _replacement(self, value: Any, kind: type, path: str, passing: Passing | None) -> Any:
        """What to send for one object; the object itself where nobody knows."""
        if self._encode is not None and not (passing is not None and passing.carries(kind)):
            try:
                found = self._encode(value)
            except Exception as exc:
                reason = f"the encode hook raised {type(exc).__name__}: {exc}"
                raise NotSerializable(kind.__qualname__, path, reason) from exc
            if found is not NotImplemented:
                return found
        if kind in _JAVASCRIPT:
            return value  # superjson carries it, and nothing else does
        if issubclass(kind, enum.Enum):
            return value.value
        if issubclass(kind, msgspec.Struct):
            return _struct_fields(value)
        if dataclasses.is_dataclass(kind):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
        if hasattr(kind, "__attrs_attrs__"):
            return {field.name: getattr(value, field.name) for field in kind.__attrs_attrs__}
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return list(value)
        # Whoever has such a value has imported its library.
        pydantic: Any = sys.modules.get("pydantic")
        numpy: Any = sys.modules.get("numpy")
        if hasattr(pydantic, "BaseModel") and isinstance(value, pydantic.BaseModel):
            return value.model_dump(by_alias=True)  # as it is read again
        if hasattr(numpy, "ndarray"):
            if isinstance(value, numpy.generic) and value.dtype.kind in _NUMPY_KINDS:
                found = value.item()
                return value if type(found) is kind else found  # a long double is not Python's
            # A masked array, or another with ideas of its own, is not what its numbers say.
            if kind is numpy.ndarray and value.dtype.kind in _NUMPY_KINDS and value.dtype.char not in "gG":
                found = None if passing is None else passing.tensor(numpy, value, path)
                return value.tolist() if found is None else found
        if passing is None or isinstance(value, type):
            return value
        name = passing.stream(value, path)
        if name is None and callable(value):
            name = passing.function(value, path)
        return value if name is None else name


def _struct_fields(value: msgspec.Struct) -> Any:
    kind = type(value)
    config = kind.__struct_config__
    values = [getattr(value, name) for name in kind.__struct_fields__]
    if config.array_like:
        return values if config.tag is None else [config.tag, *values]
    fields: dict[str, Any] = {}
    if config.tag is not None:
        fields[config.tag_field or "type"] = config.tag
    named = zip(kind.__struct_encode_fields__, values, strict=True)
    return fields | {name: item for name, item in named if item is not msgspec.UNSET}


def restored(value: Any, names: Mapping[str, Any], decode: DecodeHook | None) -> Any:
    """`value` with the objects that its strings stand for, and with what `decode` makes of its mappings.

    Lists and mappings are changed in place: nobody else has seen them. Raises what `decode` raises.
    """
    kind = type(value)
    if kind is str:
        return names.get(value, value)
    if kind is list or kind is js.Array:
        value[:] = [item if type(item) in _PLAIN else restored(item, names, decode) for item in value]
    elif kind is set or kind is frozenset:
        if names and any(type(item) is str and item in names for item in value):
            return kind(names.get(item, item) if type(item) is str else item for item in value)
    elif kind is dict or kind is js.Map or kind is js.Object:
        for key, item in value.items():
            if type(item) not in _PLAIN:
                value[key] = restored(item, names, decode)
        if decode is not None:
            return decode(value)
    return value


_PLAIN = _LEAVES - {str}
