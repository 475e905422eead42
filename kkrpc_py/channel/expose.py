"""What of an object the peer may call, construct, read and set.

This module owns the rules of exposure; it calls nothing. The rules (they are the channel's lock, so they are
few):

- Listed are the public methods of the object, under their own names or those that `@expose` gives them; its
  namespaces: dicts, objects named in the class body, and objects of classes marked `@namespace`; the classes
  in them that are marked `@constructible`; the data of `channel.properties`. No other attribute of an
  instance is.
- A name that begins with `_` is refused, and nothing leads through a function, a class, a module,
  or to what a builtin type defines.
- Looking a name up runs no code: no property, no `__getattr__`.
- What is refused looks like what is missing.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Mapping
from typing import Any

from kkrpc_py.channel import properties
from kkrpc_py.channel.handler import INLINE_MARK, Handler, Runs, inline
from kkrpc_py.channel.listing import (
    ClassNames,
    constructible,
    expose,
    is_constructible,
    listed_names,
    names_of,
    namespace,
    size_of,
)
from kkrpc_py.channel.lookup import (
    ATTACHED_HOOK,
    FUNCTIONS,
    METHOD_OBJECTS,
    MISSING,
    UNLISTED_MARK,
    class_attribute,
    class_dict,
    face_of,
    instance_dict,
    is_descriptor,
    mro,
    namespace_at,
    public,
)
from kkrpc_py.channel.plain import fields_of
from kkrpc_py.errors import NO_API, MethodNotFound

__all__ = ["Exposed", "Handler", "Runs", "constructible", "expose", "inline", "listed_names", "namespace"]

_MOST_TOLD = 1024
_DEEPEST_TOLD = 4
"""In larger dicts, and in deeper ones, nobody looks for who wants to be told: they are data."""
_CACHED = 4096
"""Handlers and classes that a channel knows at once."""


class Exposed:
    """The object that a channel exposes. Raises TypeError where two of its methods are listed as one."""

    def __init__(self, api: Any) -> None:
        if issubclass(type(api), (type, types.ModuleType)):
            raise TypeError(f"expose an object or a dict, not the {type(api).__name__} {api.__name__!r}")
        self._given = api
        self._api = face_of(api)
        self._attached: dict[str, Any] = {}
        """Namespaces beside the API."""
        self._untold: dict[str, Any] = {}
        """Of them, what is to be told when the channel starts."""
        self._handlers: dict[tuple[int, int, str], Handler] = {}
        self._names: dict[int, ClassNames] = {}
        self._methods: dict[str, tuple[type, Mapping[str, Any], Any, Handler]] = {}
        """Methods of the object itself that were called: its class, that class's attributes, what stood there
        under the name, and the handler; a short way to the same answer as long as all of it holds."""
        self._names_of(type(self._api))

    def attach(self, path: str, namespace: Any, channel: Any) -> None:
        """Expose `namespace` at `path` beside the API. Raises ValueError where something is there already.

        `channel`: it is told of that one; None: of the one that starts later.
        """
        if type(path) is not str or not all(map(public, path.split("."))):
            raise ValueError(f"{path!r} is no name that a peer could call")
        if path in self._attached or self._has(path):
            raise ValueError(f"{path!r} is exposed already")
        if channel is None:
            self._untold[path] = namespace
        else:
            _tell_attached(namespace, channel, path)
        self._attached[path] = face_of(namespace)
        # The longest path first: what is attached below another one is found before that is looked into.
        self._attached = dict(sorted(self._attached.items(), key=lambda entry: -len(entry[0])))

    def tell_attached(self, channel: Any) -> None:
        """Tell whoever wants to know it that `channel` exposes it, and at which path.

        Told are the API, the namespaces right below it, and those in dicts below those.
        """
        attached, self._untold = self._untold, {}
        _tell_attached(self._given, channel, "")
        _tell_below(self._api, channel, "")
        for path, found in attached.items():
            _tell_attached(found, channel, path)

    def _has(self, path: str) -> bool:
        """Whether there is a namespace or a method at that path."""
        parents, dot, last = path.rpartition(".")
        owner, segments = self._attached_at(parents) if dot else (None, [])
        if owner is None:
            owner = self._api
        for segment in segments:
            owner = MISSING if owner is None else namespace_at(owner, segment)
            if owner is MISSING:
                return False
        if owner is None:
            return False
        if type(owner) is dict:
            return last in owner
        return namespace_at(owner, last) is not MISSING or self._method_at(owner, last)[0] is not MISSING

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
                and method not in instance_dict(owner)
            ):
                return handler
            del self._methods[method]
        parents, dot, last = method.rpartition(".")
        owner = self._through(method, parents) if dot else self._root()
        alias = ""
        if type(owner) is dict:
            function = _function_in(owner, last)
        else:
            function, alias = self._method_at(owner, last)
        if function is MISSING:
            raise MethodNotFound(f"Method {method} is not a function")
        handler = self._handler(function, alias)
        cls = type(owner)
        attributes = class_dict(cls)
        if (
            not dot
            and not alias
            and mro(cls)[0] is cls
            and type(attributes.get(method)) is types.FunctionType
        ):
            self._methods[method] = cls, attributes, attributes[method], handler
        return handler

    def constructor(self, method: str) -> Handler:
        """What makes an instance of the class at the dotted path `method`, and returns its public fields.

        Raises MethodNotFound, with the texts of CALL-6.
        """
        parents, dot, last = method.rpartition(".")
        owner = self._through(method, parents, "Constructor") if dot else self._root()
        cls = _class_at(owner, last)
        if cls is MISSING:
            raise MethodNotFound(f"{method} is not a constructor function")
        key = (id(cls), -1, "")
        return self._handlers.get(key) or self._keep(key, _constructor(cls))

    def read(self, path: tuple[str, ...]) -> Any:
        """A copy of the value at `path`. Raises PropertyNotFound, with the texts of CALL-6."""
        return properties.read(self._root(), path)

    def getter(self, path: tuple[str, ...]) -> Handler:
        """What reads the property at `path`: `read` as a handler without arguments."""
        return Handler.on_loop(lambda: self.read(path), ".".join(path), 0)

    def setter(self, path: tuple[str, ...]) -> Handler:
        """What sets the property at `path` to its one argument, and returns True.

        Raises PropertyNotFound as `read` does, and PermissionError where a value may be read only. The
        handler raises what the validation of a `writable` with a type raises.
        """
        put = properties.setter(self._root(), path)

        def write(value: Any) -> bool:
            put(value)
            return True

        return Handler.on_loop(write, ".".join(path), 1)

    def _root(self) -> Any:
        if self._api is None:
            raise MethodNotFound(NO_API)
        return self._api

    def _through(self, method: str, parents: str, what: str = "Method") -> Any:
        """What the last name of the path is to be looked up in."""
        owner, segments = self._attached_at(parents)
        if owner is None:
            owner = self._root()
        for segment in segments:
            owner = namespace_at(owner, segment)
            if owner is MISSING:
                raise MethodNotFound(f"{what} path {method} not found at {segment}")
        return owner

    def _attached_at(self, parents: str) -> tuple[Any, list[str]]:
        """What was attached on the way of that path, and the rest of the way; None: nothing was."""
        for path, found in self._attached.items():
            if parents == path:
                return found, []
            if parents.startswith(f"{path}."):
                return found, parents[len(path) + 1 :].split(".")
        return None, parents.split(".")

    def _method_at(self, owner: Any, segment: str) -> tuple[Any, str]:
        """The method that is listed under that name, and the name if it is one that `@expose` gave."""
        if not public(segment):
            return MISSING, ""
        cls = type(owner)
        names = self._names.get(id(cls))
        if names is None or names.cls is not cls:
            names = self._names_of(cls)
        if segment not in names.hidden:
            found = class_attribute(cls, segment)
            function = _method_of(owner, segment, found)
            if function is not MISSING:
                own = listed_names(found)
                if own is None or segment in own:
                    return function, ""
        if names.size != size_of(cls):  # it was given more since it was looked at
            names = self._names_of(cls)
        attribute = names.attributes.get(segment)
        if attribute is None:
            return MISSING, ""
        return _method_of(owner, attribute, class_attribute(cls, attribute)), segment

    def _names_of(self, cls: type) -> ClassNames:
        if len(self._names) >= _CACHED:
            self._names.clear()
        known = self._names[id(cls)] = names_of(cls)
        return known

    def _handler(self, function: Any, alias: str) -> Handler:
        # Bound methods are made anew at each look-up; what is known belongs to function and object.
        # The handler holds both, so that the ids stay theirs; nobody's `__hash__` is asked.
        key = (
            (id(function.__func__), id(function.__self__), alias)
            if type(function) is types.MethodType
            else (id(function), 0, alias)
        )
        return self._handlers.get(key) or self._keep(key, Handler(function, alias))

    def _keep(self, key: tuple[int, int, str], handler: Handler) -> Handler:
        if len(self._handlers) >= _CACHED:
            self._handlers.clear()
        self._handlers[key] = handler
        return handler


def _tell_attached(found: Any, channel: Any, path: str) -> None:
    hook = class_attribute(type(found), ATTACHED_HOOK)
    if type(hook) is types.FunctionType:
        hook(found, channel, path)


def _tell_below(owner: Any, channel: Any, path: str) -> None:
    names = owner if type(owner) is dict else {**_class_values(type(owner)), **instance_dict(owner)}
    if len(names) > _MOST_TOLD or path.count(".") > _DEEPEST_TOLD:
        return
    for name, found in names.items():
        if public(name) and (face := namespace_at(owner, name)) is not MISSING and face is face_of(found):
            below = f"{path}.{name}" if path else name
            _tell_attached(found, channel, below)
            if type(found) is dict:
                _tell_below(found, channel, below)


def _class_values(cls: type) -> dict[str, Any]:
    return {name: found for each in reversed(mro(cls)) for name, found in class_dict(each).items()}


def _function_in(names: dict[Any, Any], segment: str) -> Any:
    found = names.get(segment, MISSING) if public(segment) else MISSING
    if type(found) is types.FunctionType:
        if listed_names(found) is not None:
            raise TypeError(f"{segment!r}: a dict names its functions itself, @expose is for methods")
        return found
    return _unless_class(found)


def _method_of(owner: Any, attribute: str, found: Any) -> Any:
    """The method that `found`, which stands in the class of `owner` under that name, is through `owner`."""
    if found is MISSING or attribute in instance_dict(owner):
        return MISSING
    if type(found) is types.FunctionType:  # what most handlers are
        return found.__get__(owner, type(owner))
    if issubclass(type(found), METHOD_OBJECTS):
        found = found.__get__(owner, type(owner))
    elif is_descriptor(found) and not issubclass(type(found), (functools.partial, *FUNCTIONS)):
        return MISSING
    return _unless_class(found)


def _unless_class(found: Any) -> Any:
    if issubclass(type(found), (type, types.ModuleType)):
        return MISSING
    if class_attribute(type(found), UNLISTED_MARK) is True:
        return MISSING
    return found if callable(found) else MISSING


def _class_at(owner: Any, segment: str) -> Any:
    if not public(segment):
        return MISSING
    if type(owner) is dict:
        found = owner.get(segment, MISSING)
    elif segment in instance_dict(owner):
        return MISSING
    else:
        found = class_attribute(type(owner), segment)
    return found if is_constructible(found) else MISSING


def _constructor(cls: type) -> Handler:
    def construct(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return fields_of(cls(*args, **kwargs))

    if class_dict(cls).get(INLINE_MARK) is True:
        inline(construct)
    try:
        signature: Any = inspect.signature(cls)
    except (TypeError, ValueError):
        signature = None
    if signature is not None:
        setattr(construct, "__signature__", signature)  # noqa: B010 - no attribute that checkers know
    return Handler(construct, cls.__name__, cls)
