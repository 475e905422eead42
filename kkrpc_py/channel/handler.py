"""What is known of a handler before it runs: where it runs, and which arguments it takes.

This module owns what is found out about a function once. Which functions a peer may call is said in
`channel.expose`; `channel.dispatch` calls them.
"""

from __future__ import annotations

import enum
import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_origin

from kkrpc_py.channel.lookup import FUNCTIONS, bound, class_attribute, instance_dict
from kkrpc_py.channel.sink import StreamSink

__all__ = ["INLINE_MARK", "Handler", "Runs", "inline"]

_T = TypeVar("_T")

INLINE_MARK = "__kkrpc_inline__"


def inline(function: _T) -> _T:
    """Mark a `def` handler, a sync generator or a constructible class as safe to run on the event loop.

    It must return at once: while it runs, nothing else does. It must not ask for the current task: there
    may be none. Without the mark it runs on a thread.
    """
    setattr(function, INLINE_MARK, True)
    return function


class Runs(enum.Enum):
    """Where a handler runs."""

    ON_LOOP = "on the loop"
    """Calling it is quick: a coroutine function, a generator function, or marked `inline`."""
    ON_THREAD = "on a thread"


class Handler:
    """A callable that the peer may call, and what was found out about it once."""

    __slots__ = (
        "_bound_names",
        "_signature",
        "at_once",
        "function",
        "inline",
        "least",
        "most",
        "name",
        "runs",
        "sink",
        "sink_index",
        "validator",
    )

    def __init__(self, function: Callable[..., Any], name: str = "", annotated: Any = None) -> None:
        """Look at `function`, whose annotations are those of `annotated` if that is another object.

        Errors call it `name`, where it is listed under another name than its own.
        """
        from kkrpc_py.channel.validation import Validator  # a program that only describes an API needs none

        plain: Any = function
        bound_names: set[str] = set()
        while type(plain) is functools.partial:
            bound_names.update(plain.keywords)
            plain = plain.func
        known = issubclass(type(plain), FUNCTIONS)
        # An instance with a `__call__` is as good as a method; what it says of itself is not asked.
        called = plain if known else bound(plain, "__call__")
        self.function = function
        described = called if function is plain else function
        self.name = name or (plain.__name__ if known else type(plain).__name__)
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
        self._bound_names = frozenset(bound_names)
        self._signature: inspect.Signature | None = None
        """What the peer's arguments are bound to: without the sink."""
        self.validator: Validator | None = Validator.of(
            described if annotated is None else annotated, self.name
        )
        try:
            signature = inspect.signature(described)
        except (TypeError, ValueError):  # some builtins have none: they check for themselves
            return
        self._read_signature(signature, called)

    @classmethod
    def on_loop(cls, function: Callable[..., Any], name: str, count: int) -> Handler:
        """A quick `function` of the library's own, of which all is known: it takes `count` arguments."""
        handler = cls.__new__(cls)
        handler.function, handler.name, handler.runs = function, name, Runs.ON_LOOP
        handler.inline = handler.at_once = True
        handler.least = handler.most = count
        handler.sink = handler.sink_index = handler._signature = handler.validator = None
        handler._bound_names = frozenset()
        return handler

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
        if self.sink is not None:
            others = [each for each in signature.parameters.values() if each.name != self.sink]
            signature = signature.replace(parameters=others)
        self._signature = signature

    def with_sink(
        self, sink: Any, args: list[Any], kwargs: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of the peer with the sink where the handler has its parameter."""
        assert self.sink is not None
        index = self.sink_index
        if index is None or index > len(args):
            return args, {**kwargs, self.sink: sink}
        return [*args[:index], sink, *args[index:]], kwargs

    def check(self, count: int, kwargs: Mapping[str, Any] | None = None) -> None:
        """Raises TypeError where `count` positional arguments and `kwargs` do not fit (CALL-12)."""
        if kwargs:
            self._check_names(count, kwargs)
        elif count < self.least or 0 <= self.most < count:
            wanted = f"{self.least}" if self.most == self.least else f"{self.least} to {self.most}"
            if self.most < 0:
                wanted = f"at least {self.least}"
            raise TypeError(f"{self.name}() takes {wanted} positional arguments; given: {count}")

    def check_open(self, kwargs: Mapping[str, Any]) -> None:
        """Raises TypeError for names that are not the peer's to give.

        What a partial has bound is settled, and parameters that begin with an underscore are private.
        """
        declared = self._signature.parameters if self._signature is not None else {}
        for name in kwargs:
            if name in self._bound_names or (name.startswith("_") and name in declared):
                raise TypeError(f"{self.name}(): got an unexpected keyword argument {name!r}")

    def _check_names(self, count: int, kwargs: Mapping[str, Any]) -> None:
        if self.sink is not None and self.sink in kwargs:
            raise TypeError(f"{self.name}(): got an unexpected keyword argument {self.sink!r}")
        if self._signature is None:
            return
        try:
            self._signature.bind(*(None,) * count, **kwargs)
        except TypeError as exc:
            raise TypeError(f"{self.name}(): {exc}") from None


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _marked_inline(plain: Any) -> bool:
    function = plain.__func__ if type(plain) is types.MethodType else plain
    return INLINE_MARK in instance_dict(function) or class_attribute(type(plain), INLINE_MARK) is True


def _is_sink(hint: Any) -> bool:
    if isinstance(hint, str):  # from __future__ import annotations
        return hint.split("[")[0].rpartition(".")[2] == StreamSink.__name__
    return hint is StreamSink or get_origin(hint) is StreamSink
