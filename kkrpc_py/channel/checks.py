"""One type hint, made ready to convert and check values with.

msgspec does the work, pydantic where a hint contains one of its models; what the channel itself makes,
functions and streams, is known by what it can do. A hint that cannot be checked is not.

This module owns hints. Which hint belongs to which argument is `channel.validation`'s, and the search for
every issue is `channel.issues`'.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import functools
import ipaddress
import sys
import types
import typing
import uuid
from collections import abc
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, get_args, get_origin

import msgspec

from kkrpc_py.channel.callbacks import LocalCallback, RemoteCallback
from kkrpc_py.channel.instances import Instances
from kkrpc_py.channel.issues import (
    REFUSALS,
    Path,
    Report,
    bare,
    careful,
    explain,
    explain_failed,
    is_union,
)
from kkrpc_py.channel.stream import StreamCall

__all__ = ["STREAMS", "Check", "check_of"]

STREAMS: tuple[Any, ...] = (abc.AsyncIterator, abc.AsyncIterable, abc.AsyncGenerator, StreamCall)
"""Hints of what is iterated with `async for`; the first parameter is the type of the chunks."""
_BYTES = (bytes, bytearray, memoryview)
_NOTHING: frozenset[type] = frozenset()

Tree: TypeAlias = Any
"""What `msgspec.inspect.type_info` says of a hint."""


class Check:
    """Converts values to one hint."""

    __slots__ = ("exact", "none")

    exact: frozenset[type]
    """Values of exactly these types are right as they are."""
    none: bool
    """None is allowed."""

    def __init__(self, exact: frozenset[type] = _NOTHING, *, none: bool = False) -> None:
        self.exact = exact
        self.none = none

    def __call__(self, value: Any, report: Report, path: Path = ()) -> Any:
        """The value converted; what is wrong with it goes into `report`."""
        raise NotImplementedError

    def all(self, values: list[Any]) -> list[Any] | None:
        """All of them converted; None where that does not work: then they are to be looked at one by one."""
        report = Report()
        converted = [value if type(value) in self.exact else self(value, report) for value in values]
        return None if report else converted


def check_of(hint: Any, *, instances: bool = False) -> Check | None:
    """The check for `hint`; None where there is nothing that could be checked.

    With `instances` the fields of dataclasses, attrs classes and Structs are looked at too: what is made of a
    peer's value has checked fields, what a handler made need not.
    """
    try:
        return _check_of(hint, instances)
    except Exception:  # msgspec, pydantic and the user's own classes are asked what they are
        return None


def _check_of(hint: Any, instances: bool) -> Check | None:
    plain = bare(hint)
    if plain in (Any, object) or isinstance(plain, typing.TypeVar):
        return None
    if _is_stream(plain):
        return _Stream()
    if _is_function(plain):
        return _Function()
    members = get_args(plain) if is_union(plain) else ()
    if not any(_is_stream(bare(member)) or _is_function(bare(member)) for member in members):
        adapter = _adapter(hint)
        if adapter is not None:
            return _Pydantic(adapter, none=type(None) in members, incoming=not instances)
        try:
            tree = msgspec.inspect.type_info(hint)
        except Exception:
            if not members:
                raise
        else:
            return _plain_check(hint, tree, instances)
    checks = [check_of(member, instances=instances) for member in members]
    return _Either(plain, [check for check in checks if check is not None]) if all(checks) else None


# msgspec -----------------------------------------------------------------------------------


def _plain_check(hint: Any, tree: Tree, instances: bool) -> Check | None:
    kinds = list(_walk(tree))
    if type(tree) is msgspec.inspect.AnyType:
        return None
    options: dict[str, Any] = {}
    for kind in kinds:
        match kind:
            case msgspec.inspect.CustomType(cls=cls) if not _can_be_asked(cls):
                return None
            case (
                msgspec.inspect.BytesType()
                | msgspec.inspect.ByteArrayType()
                | msgspec.inspect.MemoryViewType()
            ):
                options["builtin_types"] = _BYTES  # or text would be taken for base64
            case msgspec.inspect.DictType(key_type=key) if type(key) not in _TEXT_KEYS:
                options["str_keys"] = True  # JSON and JavaScript have no others
            case _:
                pass
    deep = Instances.of(hint) if instances else None
    exact = _exact(tree, instances)
    check = _Plain(hint, options, exact, none=_allows_none(tree), instances=deep)
    check.text_keyed = _is_text_keyed(tree)
    return check


_TEXT_KEYS = (msgspec.inspect.StrType, msgspec.inspect.AnyType)


class _Plain(Check):
    """A hint that msgspec understands."""

    __slots__ = ("_box", "_boxes", "_convert", "_hint", "_instances", "_scalar", "text_keyed")

    def __init__(
        self,
        hint: Any,
        options: dict[str, Any],
        exact: frozenset[type],
        *,
        none: bool,
        instances: Instances | None,
    ) -> None:
        super().__init__(exact, none=none)
        self._hint = hint
        self._instances = instances
        self._scalar = exact <= _SCALARS
        self.text_keyed = False
        """Any dict is right whose keys are text."""
        # msgspec reads a hint anew at every conversion, but what a Struct's fields are only once.
        self._box: Any = msgspec.defstruct("_Box", [("value", hint)], array_like=True, gc=False)
        self._boxes: Any = None
        self._convert: Callable[[Any, Any], Any] = functools.partial(msgspec.convert, **options)

    def __call__(self, value: Any, report: Report, path: Path = ()) -> Any:
        try:
            converted = self._convert((value,), self._box).value
        except RecursionError:
            report.add(path, "Nested too deeply")
            return value
        except msgspec.ValidationError as failed:
            before, box, after = str(failed).rpartition("`$[0]")
            text = f"{before}`${after}" if box else after
            explain_failed(text, value, self._hint, careful(self._convert), report, path)
            return value
        except REFUSALS:
            explain(value, self._hint, careful(self._convert), report, path)
            return value
        if self._instances is not None:
            self._instances.check(converted, report, path)
        return converted

    def all(self, values: list[Any]) -> list[Any] | None:
        exact = self.exact
        # msgspec is quicker than a look at each type, except for what it would copy.
        if exact and (len(values) < _FEW or not self._scalar) and exact.issuperset(map(type, values)):
            return values
        if self.text_keyed and _all_text_keyed(values):
            return values
        if self._boxes is None:
            hint = types.GenericAlias(list, (self._hint,))
            self._boxes = msgspec.defstruct("_Boxes", [("values", hint)], array_like=True, gc=False)
        try:
            converted: list[Any] = self._convert((values,), self._boxes).values
        except (msgspec.ValidationError, RecursionError, *REFUSALS):
            return None
        if self._instances is not None:
            report = Report()
            for value in converted:
                self._instances.check(value, report)
            if report:
                return None
        return converted


_FEW = 6
_SCALARS = frozenset((bool, int, float, str, bytes, type(None)))


def _walk(tree: Tree) -> Iterator[Tree]:
    """Every type within `tree`, each once; types may contain themselves."""
    seen: set[int] = set()
    waiting = [tree]
    while waiting:
        kind = waiting.pop()
        if id(kind) in seen:
            continue
        seen.add(id(kind))
        yield kind
        for name in kind.__struct_fields__:
            value = getattr(kind, name)
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, msgspec.inspect.Type):
                    waiting.append(part)
                elif isinstance(part, msgspec.inspect.Field):
                    waiting.append(part.type)


def _can_be_asked(cls: type) -> bool:
    """Whether `isinstance` answers for it, and answers right for what the channel makes."""
    try:
        isinstance(None, cls)
    except TypeError:  # a Protocol that is no runtime_checkable one
        return False
    return cls not in (abc.AsyncGenerator, LocalCallback, RemoteCallback)


def _allows_none(tree: Tree) -> bool:
    kinds = tree.types if type(tree) is msgspec.inspect.UnionType else (tree,)
    return any(type(kind) in (msgspec.inspect.NoneType, msgspec.inspect.AnyType) for kind in kinds)


_EXACT: dict[type, type] = {
    msgspec.inspect.NoneType: type(None),
    msgspec.inspect.BoolType: bool,
    msgspec.inspect.IntType: int,
    msgspec.inspect.FloatType: float,
    msgspec.inspect.StrType: str,
    msgspec.inspect.BytesType: bytes,
    msgspec.inspect.ByteArrayType: bytearray,
    msgspec.inspect.DateTimeType: datetime.datetime,
    msgspec.inspect.DateType: datetime.date,
    msgspec.inspect.TimeType: datetime.time,
    msgspec.inspect.TimeDeltaType: datetime.timedelta,
    msgspec.inspect.DecimalType: decimal.Decimal,
    msgspec.inspect.UUIDType: uuid.UUID,
    msgspec.inspect.ListType: list,
    msgspec.inspect.DictType: dict,
    msgspec.inspect.SetType: set,
    msgspec.inspect.FrozenSetType: frozenset,
    msgspec.inspect.VarTupleType: tuple,
}


def _is_text_keyed(tree: Tree) -> bool:
    if type(tree) is not msgspec.inspect.DictType or type(tree.value_type) is not msgspec.inspect.AnyType:
        return False
    key = tree.key_type
    return type(key) is msgspec.inspect.StrType and key == msgspec.inspect.StrType()


def _all_text_keyed(values: list[Any]) -> bool:
    # One set of all keys takes a third of a look at each. A key that only equals one of text is the codec's
    # to refuse.
    return {dict}.issuperset(map(type, values)) and {str}.issuperset(map(type, set().union(*values)))


def _exact(tree: Tree, instances: bool) -> frozenset[type]:
    """The types of which any value at all is right."""
    if type(tree) is msgspec.inspect.UnionType:
        return frozenset().union(*(_exact(kind, instances) for kind in tree.types))
    if type(tree) is msgspec.inspect.EnumType:
        return frozenset((tree.cls,))
    if type(tree) in (msgspec.inspect.StructType, msgspec.inspect.DataclassType) and not instances:
        return frozenset((get_origin(tree.cls) or tree.cls,))
    cls = _EXACT.get(type(tree))
    values = (getattr(tree, name) for name in tree.__struct_fields__)
    if cls is None or any(
        value is not None and type(value) is not msgspec.inspect.AnyType for value in values
    ):
        return _NOTHING
    return frozenset((cls,))


# What the channel makes --------------------------------------------------------------------


def _is_stream(hint: Any) -> bool:
    return (get_origin(hint) or hint) in STREAMS


def _is_function(hint: Any) -> bool:
    cls = get_origin(hint) or hint
    if cls in (abc.Callable, RemoteCallback, LocalCallback, types.FunctionType):
        return True
    # A Protocol for a function says what it is called with and nothing else.
    return getattr(cls, "_is_protocol", False) is True and "__call__" in vars(cls)


class _Function(Check):
    __slots__ = ()

    def __call__(self, value: Any, report: Report, path: Path = ()) -> Any:
        if not callable(value):
            report.add(path, f"Expected a function, got `{_kind(value)}`")
        return value


class _Stream(Check):
    __slots__ = ()

    def __call__(self, value: Any, report: Report, path: Path = ()) -> Any:
        if not hasattr(type(value), "__aiter__"):
            report.add(path, f"Expected a stream, got `{_kind(value)}`")
        return value


def _kind(value: Any) -> str:
    """The name of its type, as msgspec has it."""
    return {"NoneType": "null", "dict": "object", "list": "array", "tuple": "array"}.get(
        type(value).__name__, type(value).__name__
    )


# The rest ----------------------------------------------------------------------------------


class _Either(Check):
    """A union that msgspec does not take: its first member that fits, or the one of the very type."""

    __slots__ = ("_checks", "_hint")

    def __init__(self, hint: Any, checks: list[Check]) -> None:
        exact: frozenset[type] = frozenset().union(*(check.exact for check in checks))
        super().__init__(exact, none=any(check.none for check in checks))
        self._hint = hint
        self._checks = checks

    def __call__(self, value: Any, report: Report, path: Path = ()) -> Any:
        if type(value) in self.exact:
            return value
        for check in self._checks:
            found = Report()
            converted = check(value, found)
            if not found:
                return converted
        names = " | ".join(_name(member) for member in get_args(self._hint))
        real = [check for check in self._checks if check.exact != _ONLY_NONE]
        if len(real) == 1:
            real[0](value, report, path)
        else:
            report.add(path, f"Expected `{names}`, got `{_kind(value)}`")
        return value


_ONLY_NONE = frozenset((type(None),))


def _name(hint: Any) -> str:
    return "null" if hint is type(None) else getattr(hint, "__name__", None) or str(hint)


class _Pydantic(Check):
    """A hint with a pydantic model in it: pydantic checks all of it."""

    __slots__ = ("_adapter", "_incoming")

    def __init__(self, adapter: Any, *, none: bool, incoming: bool) -> None:
        super().__init__(none=none)
        self._adapter = adapter
        self._incoming = incoming

    def __call__(self, value: Any, report: Report, path: Path = ()) -> Any:
        from pydantic import ValidationError

        try:
            return self._adapter.validate_python(_without_endless(value) if self._incoming else value)
        except ValidationError as exc:
            # Neither the input nor what a validator raised: the message is what may be told.
            details = exc.errors(include_url=False, include_context=False, include_input=False)
            for detail in details:
                message = _NO_SUCH_TAG if detail["type"] == "union_tag_invalid" else detail["msg"]
                report.add((*path, *detail["loc"]), message)
        except RecursionError:
            report.add(path, "Nested too deeply")
        return value


class _Network4(ipaddress.IPv4Network):
    __iter__: Any = None


class _Network6(ipaddress.IPv6Network):
    __iter__: Any = None


_NETWORKS: dict[type, type] = {ipaddress.IPv4Network: _Network4, ipaddress.IPv6Network: _Network6}
_WITHIN = (dict, list, tuple, set, frozenset)
_SURE = _SCALARS | {datetime.datetime, datetime.date, decimal.Decimal, uuid.UUID}


def _without_endless(value: Any) -> Any:
    """`value` with networks that cannot be iterated over.

    Where pydantic wants a list it takes whatever gives values, and a network of a few bytes has up to 2**128.
    """
    return _tamed(value) if _has_network(value) else value


def _has_network(value: Any) -> bool:
    seen: set[int] = set()
    waiting: list[Any] = [(value,)]
    while waiting:
        part = waiting.pop()
        for items in (part, part.values()) if isinstance(part, dict) else (part,):
            kinds = set(map(type, items))
            if kinds <= _SURE:
                continue
            if not kinds.isdisjoint(_NETWORKS):
                return True
            within = [item for item in items if isinstance(item, _WITHIN) and id(item) not in seen]
            seen.update(map(id, within))
            waiting += within
    return False


def _tamed(value: Any) -> Any:
    if type(value) in _NETWORKS:
        return _NETWORKS[type(value)](value)
    if isinstance(value, dict):
        return {_tamed(key): _tamed(item) for key, item in value.items()}
    if isinstance(value, _WITHIN):
        return type(value)(map(_tamed, value))
    return value


_NO_SUCH_TAG = "Input tag does not match any of the expected tags"
"""For the one message of pydantic's that repeats the input."""


def _adapter(hint: Any) -> Any:
    """The adapter of pydantic's for a hint that contains one of its models."""
    if "pydantic" not in sys.modules or not _contains_model(hint):
        return None
    from pydantic import TypeAdapter

    return TypeAdapter(hint)


def _contains_model(hint: Any) -> bool:
    hint = bare(hint)
    args = get_args(hint)
    if args:
        return any(_contains_model(arg) for arg in args if not isinstance(arg, list))
    if _is_model(hint):
        return True
    if not isinstance(hint, type) or issubclass(hint, (enum.Enum, str, int, bytes)):
        return False
    try:
        kinds = list(_walk(msgspec.inspect.type_info(hint)))
    except Exception:
        return False
    return any(type(kind) is msgspec.inspect.CustomType and _is_model(kind.cls) for kind in kinds)


def _is_model(cls: Any) -> bool:
    return isinstance(cls, type) and (
        hasattr(cls, "__pydantic_core_schema__") or hasattr(cls, "__get_pydantic_core_schema__")
    )
