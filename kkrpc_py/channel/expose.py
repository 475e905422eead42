"""What of an object the peer may call, and how each handler is to be run.

This module owns the rules of exposure and what is known of a handler before it runs; it calls
nothing. The rules (they are the channel's lock, so they are few):

- Listed are the public methods of the object, and its namespaces: dicts, objects named in the
  class body, and objects of classes marked `@namespace`. No other attribute of an instance is.
- A name that begins with `_` is refused, and nothing leads through a function, a class, a module,
  or to what a builtin type defines.
- Looking a name up runs no code: no property, no `__getattr__`.
- What is refused looks like what is missing.
"""

from __future__ import annotations

import enum
import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_origin

from kkrpc_py.channel.sink import StreamSink
from kkrpc_py.errors import NO_API, MethodNotFound

__all__ = ["Exposed", "Handler", "Runs", "inline", "namespace"]

_T = TypeVar("_T")
_C = TypeVar("_C", bound=type)

_INLINE_MARK = "__kkrpc_inline__"
_NAMESPACE_MARK = "__kkrpc_namespace__"
# Py_TPFLAGS_HEAPTYPE, which each class made by a class statement has, and Py_TPFLAGS_IMMUTABLETYPE, which
# those builtin types have that are made on the heap as well (from 3.13 on defaultdict, for one).
_HEAP_TYPE, _IMMUTABLE_TYPE = 1 << 9, 1 << 8
_MISSING = object()
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType)
_NEVER_A_NAMESPACE = (type, types.ModuleType, functools.partial, *_FUNCTIONS)
# As the interpreter finds them: a metaclass may have its own idea of a class's attributes.
_mro: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_class_dict: Callable[[type], Mapping[str, Any]] = type.__dict__["__dict__"].__get__


def inline(function: _T) -> _T:
    """Mark a `def` handler, or a sync generator, as safe to run on the event loop.

    It must return at once: while it runs, nothing else does. It must not ask for the current task: there
    may be none. Without the mark it runs on a thread.
    """
    setattr(function, _INLINE_MARK, True)
    return function


def namespace(cls: _C) -> _C:
    """Mark a class whose instances may be reached through an attribute of an exposed object."""
    setattr(cls, _NAMESPACE_MARK, True)
    return cls


class Runs(enum.Enum):
    """Where a handler runs."""

    ON_LOOP = "on the loop"
    """Calling it is quick: a coroutine function, a generator function, or marked `inline`."""
    ON_THREAD = "on a thread"


class Handler:
    """A callable that the peer may call, and what was found out about it once."""

    __slots__ = ("at_once", "function", "inline", "least", "most", "name", "runs", "sink", "sink_index")

    def __init__(self, function: Callable[..., Any]) -> None:
        plain: Any = function
        while type(plain) is functools.partial:
            plain = plain.func
        known = issubclass(type(plain), _FUNCTIONS)
        # An instance with a `__call__` is as good as a method; what it says of itself is not asked.
        called = plain if known else _bound(plain, "__call__")
        self.function = function
        self.name = plain.__name__ if known else type(plain).__name__
        self.inline = _marked_inline(plain)
        steps = (
            inspect.iscoroutinefunction(called)
            or inspect.isasyncgenfunction(called)
            or inspect.isgeneratorfunction(called)
        )
        self.runs = Runs.ON_LOOP if steps or self.inline else Runs.ON_THREAD
        self.at_once = self.inline and not steps
        """Most likely it has done all it does when it returns."""
        self.sink: str | None = None
        self.sink_index: int | None = None
        """Where the sink stands among the positional parameters; None: it is keyword-only."""
        self.least, self.most = 0, -1
        try:
            signature = inspect.signature(called if function is plain else function)
        except (TypeError, ValueError):  # some builtins have none: they check for themselves
            return
        self._read_signature(signature, called)

    def _read_signature(self, signature: inspect.Signature, called: Any) -> None:
        hints = getattr(called, "__annotations__", {})
        self.most = 0
        for index, parameter in enumerate(signature.parameters.values()):
            if _is_sink(hints.get(parameter.name)):
                self.sink = parameter.name
                self.sink_index = index if parameter.kind in _POSITIONAL else None
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                self.most = -1
            elif parameter.kind in _POSITIONAL:
                if self.most >= 0:
                    self.most += 1
                if parameter.default is inspect.Parameter.empty:
                    self.least += 1

    def with_sink(
        self, sink: Any, args: list[Any], kwargs: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of the peer with the sink where the handler has its parameter."""
        assert self.sink is not None
        index = self.sink_index
        if index is None or index > len(args):
            return args, {**kwargs, self.sink: sink}
        return [*args[:index], sink, *args[index:]], kwargs

    def check(self, count: int) -> None:
        """Raises TypeError where `count` arguments are too few or too many."""
        if count < self.least or 0 <= self.most < count:
            wanted = f"{self.least}" if self.most == self.least else f"{self.least} to {self.most}"
            if self.most < 0:
                wanted = f"at least {self.least}"
            raise TypeError(f"{self.name}() takes {wanted} positional arguments; given: {count}")


def _is_sink(hint: Any) -> bool:
    if isinstance(hint, str):  # from __future__ import annotations
        return hint.split("[")[0].rpartition(".")[2] == StreamSink.__name__
    return hint is StreamSink or get_origin(hint) is StreamSink


class Exposed:
    """The object that a channel exposes."""

    def __init__(self, api: Any) -> None:
        if isinstance(api, type | types.ModuleType):
            raise TypeError(f"expose an object or a dict, not the {type(api).__name__} {api.__name__!r}")
        self._api = api
        self._handlers: dict[tuple[int, int], Handler] = {}
        self._methods: dict[str, tuple[type, Mapping[str, Any], Any, Handler]] = {}
        """Methods of the object itself that were called: its class, that class's attributes, what stood there
        under the name, and the handler; a short way to the same answer as long as all of it holds."""

    def find(self, method: str) -> Handler:
        """The handler at the dotted path `method`.

        Raises MethodNotFound, with the texts of CALL-6.
        """
        owner = self._api
        known = self._methods.get(method)
        if known is not None:
            cls, attributes, function, handler = known
            if (
                type(owner) is cls
                and attributes.get(method) is function
                and method not in _instance_dict(owner)
            ):
                return handler
            del self._methods[method]
        if owner is None:
            raise MethodNotFound(NO_API)
        parents, dot, last = method.rpartition(".")
        if dot:
            for segment in parents.split("."):
                owner = _namespace_at(owner, segment)
                if owner is _MISSING:
                    raise MethodNotFound(f"Method path {method} not found at {segment}")
        function = _callable_at(owner, last)
        if function is _MISSING:
            raise MethodNotFound(f"Method {method} is not a function")
        handler = self._handler(function)
        cls = type(owner)
        attributes = _class_dict(cls)
        if not dot and _mro(cls)[0] is cls and type(attributes.get(method)) is types.FunctionType:
            self._methods[method] = cls, attributes, attributes[method], handler
        return handler

    def _handler(self, function: Any) -> Handler:
        # Bound methods are made anew at each look-up; what is known belongs to function and object.
        # The handler holds both, so that the ids stay theirs; nobody's `__hash__` is asked.
        key = (
            (id(function.__func__), id(function.__self__))
            if type(function) is types.MethodType
            else (id(function), 0)
        )
        handler = self._handlers.get(key)
        if handler is None:
            if len(self._handlers) >= _CACHED_HANDLERS:
                self._handlers.clear()
            handler = self._handlers[key] = Handler(function)
        return handler


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_CACHED_HANDLERS = 4096


def _by_class_statement(cls: type) -> bool:
    return cls.__flags__ & (_HEAP_TYPE | _IMMUTABLE_TYPE) == _HEAP_TYPE


def _public(segment: str) -> bool:
    return bool(segment) and not segment.startswith("_")


def _class_attribute(cls: type, segment: str) -> Any:
    """What the body of `cls`, or of a base that is no builtin, says under that name; no code runs."""
    for each in _mro(cls):
        found = _class_dict(each).get(segment, _MISSING)
        if found is not _MISSING:
            return found if _by_class_statement(each) else _MISSING
    return _MISSING


def _instance_dict(owner: Any) -> Mapping[str, Any]:
    try:
        attributes = object.__getattribute__(owner, "__dict__")
    except AttributeError:
        return {}
    return attributes if type(attributes) is dict else {}


def _instance_attribute(owner: Any, segment: str) -> Any:
    attributes = _instance_dict(owner)
    if segment in attributes:
        return attributes[segment]
    slot = _class_attribute(type(owner), segment)
    if type(slot) is types.MemberDescriptorType:
        try:
            return slot.__get__(owner, type(owner))
        except AttributeError:
            return _MISSING
    return _MISSING


def _is_descriptor(found: Any) -> bool:
    """Getting it through an instance would run code: a property, a cached property, an ORM's field."""
    return any("__get__" in _class_dict(each) for each in _mro(type(found)))


def _bound(owner: Any, segment: str) -> Any:
    found = _class_attribute(type(owner), segment)
    return found.__get__(owner, type(owner)) if type(found) is types.FunctionType else owner


def _marked_inline(plain: Any) -> bool:
    function = plain.__func__ if type(plain) is types.MethodType else plain
    return _INLINE_MARK in _instance_dict(function) or _class_attribute(type(plain), _INLINE_MARK) is True


def _namespace_at(owner: Any, segment: str) -> Any:
    if not _public(segment):
        return _MISSING
    if type(owner) is dict:
        found = owner.get(segment, _MISSING)
        return found if _may_hold_handlers(found) else _MISSING
    found = _instance_attribute(owner, segment)
    if found is not _MISSING:
        marked = _class_attribute(type(found), _NAMESPACE_MARK) is True
        return found if type(found) is dict or marked else _MISSING
    found = _class_attribute(type(owner), segment)
    return found if _may_hold_handlers(found) else _MISSING


def _may_hold_handlers(found: Any) -> bool:
    if found is _MISSING or issubclass(type(found), _NEVER_A_NAMESPACE) or _is_descriptor(found):
        return False
    # A string or a list in a class body is a value.
    return type(found) is dict or _by_class_statement(type(found))


def _callable_at(owner: Any, segment: str) -> Any:
    if not _public(segment):
        return _MISSING
    if type(owner) is dict:
        found = owner.get(segment, _MISSING)
    else:
        if segment in _instance_dict(owner):
            return _MISSING
        found = _class_attribute(type(owner), segment)
        if type(found) is types.FunctionType:  # what most handlers are
            return found.__get__(owner, type(owner))
        if issubclass(type(found), (staticmethod, classmethod, functools.partialmethod)):
            found = found.__get__(owner, type(owner))
        elif _is_descriptor(found) and not issubclass(type(found), (functools.partial, *_FUNCTIONS)):
            return _MISSING
    if issubclass(type(found), (type, types.ModuleType)):
        return _MISSING
    return found if callable(found) else _MISSING
