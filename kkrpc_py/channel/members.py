"""What an API's class says of each of its names: what may be asked for there, and what comes back.

This module reads classes; it sends nothing, and calls nothing of theirs. `channel.typed` makes calls
by what it finds. Hints are resolved when a name is first used: one that cannot be resolved is an
error of that name alone.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections import abc
from collections.abc import Mapping
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

import msgspec

from kkrpc_py.channel.call import Call
from kkrpc_py.channel.declarations import Property, is_declared_stream
from kkrpc_py.channel.issues import bare, is_union
from kkrpc_py.channel.listing import names_of
from kkrpc_py.channel.lookup import MISSING, by_class_statement, class_attribute
from kkrpc_py.channel.parameters import Parameters
from kkrpc_py.channel.sink import StreamSink
from kkrpc_py.channel.validation import _returned, _streams
from kkrpc_py.channel.writable import Writable

__all__ = ["Member", "Scope", "member_of"]

Scope = type | dict[str, Any]
"""Where names are looked up: a class, or a dict in the body of one."""

_STEPPED = (abc.AsyncIterator, abc.AsyncGenerator)
"""What `anext()` may be asked of."""
_AWAITABLES = (abc.Awaitable, abc.Coroutine)
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, functools.partial, functools.partialmethod)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Member(msgspec.Struct, frozen=True, eq=False):
    """One name of an API."""

    label: str
    """As errors name it: `API.add`."""
    name: str = ""
    """As the peer lists it."""
    parameters: Parameters | None = None
    """What a call takes; None: it cannot be called."""
    streams: bool | None = None
    """Whether a call opens a stream; None: the class does not say."""
    stepped: bool = False
    """The class promises that the call itself has `__anext__`."""
    value: Any = Any
    """The type of a value that comes back."""
    chunk: Any = Any
    """The type of a stream's chunks."""
    final: Any = Any
    """The type of a stream's return value."""
    readable: bool = False
    """It may be awaited for its value."""
    constructs: bool = False
    """It is a class, for `channel.construct`."""
    open: bool = False
    """It is annotated with `Any`: so is all that is below it."""
    scope: Scope | None = None
    """Where the names below it are; None: there are none."""


def member_of(scope: Scope, name: str, owner: str) -> Member:
    """What `scope` says of `name`; `owner` is how errors name the scope.

    Raises AttributeError where it says nothing, and TypeError where a hint cannot be resolved.
    """
    if type(scope) is dict:
        if name not in scope:
            raise AttributeError(f"{owner} has no {name!r}")
        return _named(_from_value(scope[name], f"{owner}[{name!r}]"), name)
    assert isinstance(scope, type)
    return _from_class(scope, name)


def _named(member: Member, name: str) -> Member:
    return msgspec.structs.replace(member, name=name)


@functools.lru_cache(maxsize=4096)
def _from_class(cls: type, name: str) -> Member:
    attribute, listed = _attribute(cls, name)
    label = f"{cls.__name__}.{attribute}"
    for base in cls.__mro__:
        if not by_class_statement(base):  # what a builtin has is nobody's API
            continue
        annotations = inspect.get_annotations(base)
        value = base.__dict__.get(attribute, MISSING)
        if value is MISSING and attribute not in annotations:
            continue
        if attribute in annotations and not isinstance(value, _FUNCTIONS):
            module = sys.modules.get(base.__module__)
            hint = _resolve(annotations[attribute], vars(module) if module else {}, vars(base), label)
            member = _from_hint(hint, label)
            if type(value) is dict:
                member = msgspec.structs.replace(member, scope=value)
            return _named(member, listed)
        return _named(_from_value(value, label, base), listed)
    raise AttributeError(
        f"{cls.__name__} has no {name!r}: what is asked for through it stands in its body, annotated at least"
    )


def _attribute(cls: type, name: str) -> tuple[str, str]:
    """The attribute that `name` means, which may be one of `@expose`, and the name that the peer lists."""
    attributes = names_of(cls).attributes
    if name in attributes:
        return attributes[name], name
    return name, next((listed for listed, attribute in attributes.items() if attribute == name), name)


# What stands in a class body -------------------------------------------------------------


def _from_value(value: Any, label: str, owner: type | None = None) -> Member:
    if isinstance(value, type):
        return _constructor(value, label)
    if isinstance(value, property | functools.cached_property):
        getter = value.fget if isinstance(value, property) else value.func
        hint = _resolve_return(getter, inspect.signature(getter), label, owner) if getter else Any
        return _from_hint(hint, label, data=True)
    if isinstance(value, Writable):
        return _from_hint(Any if value._type is None else value._type, label, data=True)
    if isinstance(value, staticmethod):
        return _method(value.__func__, label, owner, bound=True)
    if isinstance(value, classmethod):
        return _method(value.__func__, label, owner, bound=False)
    if isinstance(value, _FUNCTIONS):
        return _method(value, label, owner, bound=owner is None or not isinstance(value, types.FunctionType))
    scope: Scope = value if type(value) is dict else type(value)
    if callable(value):
        return msgspec.structs.replace(_method(value, label, owner, bound=True), scope=scope)
    return Member(label, readable=True, scope=scope)


def _method(function: Any, label: str, owner: type | None, *, bound: bool) -> Member:
    plain = function
    while isinstance(plain, functools.partial | functools.partialmethod):
        plain = plain.func
    if not isinstance(plain, types.FunctionType):
        plain = inspect.getattr_static(type(plain), "__call__", plain)
    try:
        signature = _signature(function)
    except (TypeError, ValueError):  # some builtins have none
        return Member(label, parameters=Parameters(label, None))
    parameters = list(signature.parameters.values())
    if not bound and parameters and parameters[0].kind in _POSITIONAL:
        del parameters[0]
    sink = next((parameter for parameter in parameters if _is_sink(parameter.annotation)), None)
    if sink is not None:
        parameters.remove(sink)
    hint = _resolve_return(plain, signature, label, owner)
    called = Parameters(label, signature.replace(parameters=parameters))
    if sink is not None:
        sent = _resolve(sink.annotation, _globals(plain), _locals(owner), label)
        return Member(label, parameters=called, streams=True, chunk=_first(sent), final=hint)
    makes_stream = (
        inspect.isasyncgenfunction(plain) or inspect.isgeneratorfunction(plain) or is_declared_stream(plain)
    )
    return _answer(hint, label, called, makes_stream=makes_stream)


def _signature(function: Any) -> inspect.Signature:
    if isinstance(function, functools.partialmethod):
        return inspect.signature(functools.partial(function.func, None, *function.args, **function.keywords))
    return inspect.signature(function)


def _is_sink(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return annotation.split("[")[0].rpartition(".")[2] == StreamSink.__name__
    return annotation is StreamSink or get_origin(annotation) is StreamSink


# What an annotation says -----------------------------------------------------------------


def _from_hint(hint: Any, label: str, *, data: bool = False) -> Member:
    """`data`: what it is of is a property in any case."""
    if get_origin(hint) is ClassVar:
        hint = get_args(hint)[0]
    if hint is Any:
        return Member(label, open=not data, readable=True)
    origin, arguments = _origin(hint), get_args(bare(hint))
    if origin is Property or origin is Writable:
        return Member(label, readable=True, value=_first(hint))
    if origin in _AWAITABLES:
        return Member(label, readable=True, value=_awaited(hint))
    if origin is abc.Callable and not data:
        returned = arguments[-1] if arguments else Any
        return _answer(returned, label, Parameters(label, None))
    if origin is type and arguments and isinstance(arguments[0], type):
        return _constructor(arguments[0], label)
    if not isinstance(origin, type):
        return Member(label, readable=True, value=hint)
    call = class_attribute(origin, "__call__")
    if isinstance(call, types.FunctionType) and not data:  # a class that says how it is called
        return msgspec.structs.replace(_method(call, label, origin, bound=False), scope=origin)
    return Member(label, readable=True, scope=origin, value=hint)


def _answer(hint: Any, label: str, called: Parameters, *, makes_stream: bool = False) -> Member:
    """A method that says `hint` of what it returns, before or after an `await`."""
    steps = _origin(hint) in _STEPPED
    hint = _awaited(hint)
    if makes_stream or _origin(hint) is Call or _streams(hint):
        streams: bool | None = True
        value, chunk, final = Any, _first(hint), _final(hint)
    else:
        either = is_union(hint) and any(_streams(_awaited(each)) for each in get_args(hint))
        streams = None if either or hint is Any else False
        value, chunk, final = _returned(hint)
    return Member(
        label,
        parameters=called,
        streams=streams,
        stepped=steps,
        value=value,
        chunk=chunk,
        final=final,
    )


def _final(hint: Any) -> Any:
    arguments = get_args(bare(hint))
    return arguments[2] if _origin(hint) is abc.Generator and len(arguments) == 3 else Any


def _first(hint: Any) -> Any:
    return (*get_args(bare(hint)), Any)[0]


def _awaited(hint: Any) -> Any:
    while _origin(hint) in _AWAITABLES:
        hint = get_args(bare(hint))[-1] if get_args(bare(hint)) else Any
    return hint


def _origin(hint: Any) -> Any:
    return get_origin(bare(hint)) or bare(hint)


def _constructor(cls: type, label: str) -> Member:
    # An instance crosses as the fields that it has: it can be made again where its class says what they are.
    try:
        signature = inspect.signature(cls)
    except (TypeError, ValueError):
        signature = None
    fields = hasattr(cls, "__dataclass_fields__") or issubclass(cls, msgspec.Struct)
    return Member(
        label,
        parameters=Parameters(label, signature),
        constructs=True,
        value=cls if fields else Any,
    )


# Hints -----------------------------------------------------------------------------------


def _resolve_return(function: Any, signature: inspect.Signature, label: str, owner: type | None) -> Any:
    if signature.return_annotation is inspect.Signature.empty:
        return Any
    return _resolve(signature.return_annotation, _globals(function), _locals(owner), label)


def _globals(function: Any) -> dict[str, Any]:
    found: dict[str, Any] = getattr(inspect.unwrap(function), "__globals__", {})
    return found


def _locals(owner: type | None) -> Mapping[str, Any]:
    return vars(owner) if owner is not None else {}


def _resolve(annotation: Any, names: dict[str, Any], class_names: Mapping[str, Any], label: str) -> Any:
    holder = type(label, (), {"__annotations__": {"hint": annotation}})
    try:
        return get_type_hints(holder, names, class_names, include_extras=True)["hint"]
    except Exception as exc:
        raise TypeError(
            f"what {label} is annotated with cannot be resolved ({exc}): its names must exist at run time, "
            "in its module or in its class"
        ) from exc
