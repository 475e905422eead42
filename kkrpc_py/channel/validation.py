"""What a handler's annotations say, held against the calls of peers and against what it returns.

This module owns which annotation belongs to which value. How one hint is checked is `channel.checks`'; when
a handler's arguments, result and chunks are checked is up to `channel.dispatch` and `channel.producer`.
What is not annotated, or annotated with what cannot be resolved or checked, is left alone.
"""

from __future__ import annotations

import functools
import inspect
import logging
import operator
import types
import typing
from collections import abc
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, get_args, get_origin

import msgspec

from kkrpc_py.channel.checks import STREAMS, Check, check_of
from kkrpc_py.channel.issues import Path, Report, bare, is_union
from kkrpc_py.channel.sink import StreamSink
from kkrpc_py.errors import ValidationFailed
from kkrpc_py.wire.js import Undefined

__all__ = ["InvalidChunk", "Validator", "converter"]

_log = logging.getLogger("kkrpc_py")

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_AWAITABLES: tuple[Any, ...] = (abc.Coroutine, abc.Awaitable)
_GENERATORS: tuple[Any, ...] = (abc.Generator, abc.Iterator)
_CALLABLES = (
    type,
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    functools.partial,
    functools.partialmethod,
)
_KNOWN = "__kkrpc_hints__"
_MISSING = inspect.Parameter.empty


class InvalidChunk(ValidationFailed):
    """A chunk is not what the handler's annotation says; `valid` are the ones before it, converted."""

    valid: list[Any]


class Validator:
    """Converts and checks what goes into a handler and what comes out of it."""

    __slots__ = ("_chunk", "_hints", "_result", "_result_exact", "is_plain", "method")

    def __init__(self, method: str, hints: _Hints) -> None:
        self.method = method
        self._hints = hints
        self.is_plain = hints.is_plain
        """`is_plain(args)`: a quick look, whether arguments without keywords are right as they are."""
        self._result = hints.result
        self._result_exact: frozenset[type] = hints.result.exact if hints.result else frozenset()
        self._chunk = hints.chunk

    @classmethod
    def of(cls, function: Any, method: str) -> Validator | None:
        """The validator of a handler, or of a class for its construction; None where nothing can be checked.

        It never raises: what cannot be made sense of is not checked.
        """
        try:
            hints = _hints_of(function)
        except Exception:  # the annotations are code of the user's
            _log.debug("the annotations of %r cannot be read", method, exc_info=True)
            return None
        return cls(method, hints) if hints.any else None

    @property
    def checks_chunks(self) -> bool:
        """Whether `chunks` has anything to do."""
        return self._chunk is not None

    def arguments(
        self, args: list[Any], kwargs: dict[str, Any], method: str = ""
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments as the handler wants them. Raises ValidationFailed with all that is wrong.

        They are as many as the handler takes, a sink not among them. Here and below `method` is the path that
        was called, for the error, where it is not the handler's own name.
        """
        if not kwargs and self.is_plain(args):
            return args, kwargs
        report = Report()
        converted = self._hints.taken(args, kwargs, report)
        if report:
            defined = _with_no_undefined_within(args, kwargs)
            if defined is not None:
                report = Report()
                converted = self._hints.taken(*defined, report)
        if report:
            raise ValidationFailed(method or self.method, "input", report.issues())
        return converted

    def result(self, value: Any, method: str = "") -> Any:
        """What to send for a result that is no stream. Raises ValidationFailed."""
        if type(value) in self._result_exact:
            return value
        return self._outgoing(self._result, value, method)

    def stream_result(self, value: Any, method: str = "") -> Any:
        """What to send for the value that a stream ended with. Raises ValidationFailed."""
        return self._outgoing(self._hints.final, value, method)

    def _outgoing(self, check: Check | None, value: Any, method: str) -> Any:
        if check is None:
            return value
        report = Report()
        value = check(value, report)
        if report:
            raise ValidationFailed(method or self.method, "output", report.issues())
        return value

    def chunks(self, values: list[Any], method: str = "") -> list[Any]:
        """What to send for these chunks of a stream, the same list or another. Raises InvalidChunk."""
        check = self._chunk
        if check is None:
            return values
        converted = check.all(values)
        if converted is not None:
            return converted
        valid: list[Any] = []
        for value in values:
            report = Report()
            converted_value = check(value, report)
            if report:
                error = InvalidChunk(method or self.method, "output", report.issues())
                error.valid = valid
                raise error
            valid.append(converted_value)
        return valid


def converter(hint: Any, method: str = "") -> Callable[[Any], Any] | None:
    """What makes a `hint` of a received value, or raises ValidationFailed; None: nothing to check."""
    check = check_of(hint)
    if check is None:
        return None
    exact = check.exact

    def convert(value: Any) -> Any:
        if type(value) in exact:
            return value
        report = Report()
        converted = check(value, report)
        if report:
            defined = _with_no_undefined_within([value], {})
            if defined is not None:
                report = Report()
                converted = check(defined[0][0], report)
        if report:
            raise ValidationFailed(method, "output", report.issues())
        return converted

    return convert


class _Parameter(msgspec.Struct, frozen=True, eq=False):
    """What is known of a parameter."""

    check: Check | None = None
    default: Any = _MISSING

    def take(self, value: Any, report: Report, path: Path) -> Any:
        check = self.check
        if check is None or type(value) in check.exact:
            return value
        if type(value) is Undefined:
            if self.default is not _MISSING:
                return self.default
            if check.none:
                return None
        return check(value, report, path)


_UNCHECKED = _Parameter()


def _with_no_undefined_within(
    args: list[Any], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]] | None:
    """The arguments with what is undefined within them left out; None if there is no such thing."""
    found = False

    def defined(value: Any) -> Any:
        nonlocal found
        if type(value) is dict:
            kept = {key: defined(item) for key, item in value.items() if type(item) is not Undefined}
            found = found or len(kept) < len(value)
            return kept
        if type(value) is list:
            return [defined(item) for item in value]
        if type(value) is Undefined:
            found = True
            return None
        return value

    def inside(value: Any) -> Any:
        return value if type(value) is Undefined else defined(value)

    try:
        changed = [*map(inside, args)], {name: inside(value) for name, value in kwargs.items()}
    except RecursionError:  # no type is as deep
        return None
    return changed if found else None


class _Hints(msgspec.Struct, frozen=True, eq=False):
    """The annotations of a function, ready to be used."""

    positional: list[_Parameter]
    named: dict[str, _Parameter]
    rest: _Parameter
    """Of `*args`."""
    others: _Parameter
    """Of `**kwargs`."""
    result: Check | None
    final: Check | None
    """Of what a stream ends with."""
    chunk: Check | None
    is_plain: Callable[[list[Any]], bool]

    def taken(
        self, args: list[Any], kwargs: dict[str, Any], report: Report
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments converted; what is wrong with them goes into `report`."""
        fixed = len(self.positional)
        converted = [
            (self.positional[index] if index < fixed else self.rest).take(value, report, (index,))
            for index, value in enumerate(args)
        ]
        named = {
            name: self.named.get(name, self.others).take(value, report, (name,))
            for name, value in kwargs.items()
        }
        return converted, named

    @property
    def any(self) -> bool:
        parameters: Iterable[_Parameter] = (
            *self.positional,
            *self.named.values(),
            self.rest,
            self.others,
        )
        checks = (self.result, self.final, self.chunk, *(each.check for each in parameters))
        return any(check is not None for check in checks)


# Reading a function ------------------------------------------------------------------------


def _hints_of(function: Any) -> _Hints:
    """The hints of a callable; those of a plain function are read once, for all channels and objects."""
    if not issubclass(type(function), _CALLABLES):
        # An object with a `__call__` is as good as a method; what it says of itself is not asked.
        function = types.MethodType(type(function).__call__, function)
    plain = function.__func__ if type(function) is types.MethodType else function
    if type(plain) is not types.FunctionType:
        return _read(function)
    bound = plain is not function
    known = plain.__dict__.get(_KNOWN)
    # A wrapper made by `functools.wraps` has what its function had.
    if known is None or known[0] is not plain or known[1] is not bound:
        known = plain.__dict__[_KNOWN] = plain, bound, _read(function)
    hints: _Hints = known[2]
    return hints


def _read(function: Any) -> _Hints:
    annotated, constructs = _annotated(function)
    hints = _resolved(annotated)
    positional: list[_Parameter] = []
    named: dict[str, _Parameter] = {}
    rest = others = _UNCHECKED
    chunk = _MISSING
    for parameter in inspect.signature(function).parameters.values():
        hint = hints.get(parameter.name, Any)
        if (get_origin(hint) or hint) is StreamSink:
            chunk = (*get_args(hint), Any)[0]
            continue
        known = _Parameter(check_of(hint), _default(parameter, function))
        match parameter.kind:
            case inspect.Parameter.VAR_POSITIONAL:
                rest = known
            case inspect.Parameter.VAR_KEYWORD:
                others = known
            case kind:
                if kind in _POSITIONAL:
                    positional.append(known)
                if kind is not inspect.Parameter.POSITIONAL_ONLY:
                    named[parameter.name] = known
    value, each, final = (Any, Any, Any) if constructs else _returned(hints.get("return", Any))
    if chunk is not _MISSING:
        value, each, final = Any, chunk, value
    return _Hints(
        positional=positional,
        named=named,
        rest=rest,
        others=others,
        result=check_of(value, instances=True),
        final=check_of(final, instances=True),
        chunk=check_of(each, instances=True),
        is_plain=_plain_test(positional, rest),
    )


def _annotated(function: Any) -> tuple[Any, bool]:
    """The object that carries the annotations of a callable, and whether it makes an instance."""
    while isinstance(function, functools.partial | functools.partialmethod):
        function = function.func
    if isinstance(function, type):
        # A generated `__init__` knows no more than the class.
        fields = any(
            hasattr(function, name) for name in ("__dataclass_fields__", "__struct_fields__", "_fields")
        )
        return function if fields else inspect.getattr_static(function, "__init__"), True
    return function, False


def _resolved(annotated: Any) -> dict[str, Any]:
    """Its annotations as types. One that cannot be resolved is left out, the others hold."""
    try:
        return typing.get_type_hints(annotated, include_extras=True)
    except Exception:  # a name known to type checkers alone, most often
        if isinstance(annotated, type):
            raise
    found: dict[str, Any] = {}
    scope = getattr(inspect.unwrap(annotated), "__globals__", {})
    for name, annotation in annotated.__annotations__.items():
        one = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            found.update(typing.get_type_hints(one, globalns=scope, include_extras=True))
        except Exception:
            _log.debug("the annotation of %r in %r cannot be resolved: not checked", name, annotated)
    return found


def _default(parameter: inspect.Parameter, function: Any) -> Any:
    default = parameter.default
    # A Struct says of a default that is made anew only that there is one.
    if default is not _MISSING and isinstance(function, type) and issubclass(function, msgspec.Struct):
        return _MISSING if repr(default) == "<factory>" else default
    return default


def _returned(hint: Any) -> tuple[Any, Any, Any]:
    """The hints of a result that is no stream, of a stream's chunks, and of what a stream ends with."""
    hint = bare_stream = _awaited(hint)
    if is_union(bare(hint)):
        # Either a value or a stream, as the handler likes.
        members = [_awaited(member) for member in get_args(bare(hint))]
        values = [member for member in members if not _streams(member)]
        streams = [member for member in members if _streams(member)]
        if len(streams) != 1 or not values:
            return hint, Any, Any
        hint, bare_stream = functools.reduce(operator.or_, values), streams[0]
    if not _streams(bare_stream):
        return hint, Any, Any
    args = get_args(bare(bare_stream))
    origin = get_origin(bare(bare_stream)) or bare(bare_stream)
    chunk = args[0] if args and not isinstance(args[0], TypeVar) else Any
    final = args[2] if origin is abc.Generator and len(args) == 3 else Any
    if hint is bare_stream and origin in _GENERATORS:
        hint = Any  # another iterator is no stream, and cannot be sent
    return hint, chunk, final


def _streams(hint: Any) -> bool:
    return (get_origin(bare(hint)) or bare(hint)) in (*STREAMS, *_GENERATORS)


def _awaited(hint: Any) -> Any:
    while (get_origin(bare(hint)) or bare(hint)) in _AWAITABLES:
        args = get_args(bare(hint))
        hint = args[-1] if args else Any
    return hint


def _plain_test(positional: list[_Parameter], rest: _Parameter) -> Callable[[list[Any]], bool]:
    """A quick look: whether arguments need no conversion, as most do not."""
    wanted = [each.check.exact if each.check is not None else None for each in positional]
    count = len(wanted)
    single = [next(iter(types)) for types in wanted if types is not None and len(types) == 1]
    if rest is _UNCHECKED and len(single) == count:
        match single:
            case []:
                return lambda args: True
            case [first]:
                return lambda args: len(args) == 1 and type(args[0]) is first
            case [first, second]:
                return lambda args: len(args) == 2 and type(args[0]) is first and type(args[1]) is second
            case [first, second, third]:
                return lambda args: (
                    len(args) == 3
                    and type(args[0]) is first
                    and type(args[1]) is second
                    and type(args[2]) is third
                )
            case _:
                pass
    if any(types is not None and not types for types in wanted):
        return lambda args: False

    def are_plain(args: list[Any]) -> bool:
        for value, exact in zip(args, wanted, strict=False):
            if exact is not None and type(value) not in exact:
                return False
        return len(args) <= count or rest.check is None

    return are_plain
