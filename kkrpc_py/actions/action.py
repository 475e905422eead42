"""`stream_action`: what makes an action of a function, and the form in which a channel calls it.

It owns what the decorator accepts. How an action runs is `running`'s.
"""

from __future__ import annotations

import functools
import inspect
import logging
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Never, Protocol, TypeVar, overload

import anyio

from kkrpc_py.actions.context import ActionContext, Middleware
from kkrpc_py.actions.inputs import reader
from kkrpc_py.actions.running import BoundAction, PreparedAction, Reader
from kkrpc_py.actions.stream import ActionStream
from kkrpc_py.channel.current import current
from kkrpc_py.channel.sink import SinkStream, StreamSink
from kkrpc_py.errors import ActionError
from kkrpc_py.wire.js import UNDEFINED

__all__ = ["Action", "action_of", "stream_action"]

_log = logging.getLogger("kkrpc_py.actions")

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741  (the input's type)
T = TypeVar("T")

_MARK = "__kkrpc_action__"
_MOST_REPLAY = 1 << 20
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Action:
    """What a decorated function is, without an object that it may be a method of."""

    def __init__(
        self,
        handler: Callable[..., Awaitable[Any]],
        *,
        input: Any,
        middleware: tuple[Middleware, ...],
        metadata: Mapping[str, Any],
        safe: bool,
        replay: int,
    ) -> None:
        self.handler = handler
        self.middleware = middleware
        self.metadata = metadata
        self.safe = safe
        self.replay = replay
        self.is_method, self.input_name = _shape_of(handler)
        self.read: Reader = reader(input)


class _Decorator(Protocol):
    @overload
    def __call__(
        self, handler: Callable[[I, ActionContext, ActionStream[T]], Awaitable[None]], /
    ) -> Callable[[I], AsyncGenerator[T]]: ...
    @overload
    def __call__(
        self, handler: Callable[[S, I, ActionContext, ActionStream[T]], Awaitable[None]], /
    ) -> Callable[[S, I], AsyncGenerator[T]]: ...


def stream_action(
    *misplaced: Never,
    input: Any = None,
    middleware: Iterable[Middleware] = (),
    metadata: Mapping[str, Any] | None = None,
    safe: bool = False,
    replay: int = 0,
) -> _Decorator:
    """Make a stream action of `async def handler(input, ctx, stream)`, a function or a method.

    ::

        @kk.stream_action(input=Prompt, middleware=[auth])
        async def chat(input: Prompt, ctx: kk.ActionContext, stream: kk.ActionStream[dict]) -> None:
            async for token in model.generate(input.text):
                await stream.send({"text": token})

    :param input: what the input has to be: a dataclass, a msgspec Struct, a pydantic model or any other
        annotation. What does not fit is refused with every field that is wrong (`VALIDATION_ERROR`, 422).
        None: the handler gets what was sent; in both cases a missing input is an empty dict.
    :param middleware: `async def f(ctx)`, run in order after the check and before the stream opens. It may
        set attributes of `ctx`, and refuse by raising ActionError.
    :param metadata: whatever middleware and tools want to know of the action.
    :param safe: it changes nothing (RFC 9110, section 9.2.1), so GET may call it as POST does.
    :param replay: the number of last chunks that are kept for a client whose connection broke: it resumes
        with `Last-Event-ID`, and the handler goes on meanwhile. Over server-sent events alone.

    Exposed on a channel the action is a method of one argument, whose stream has the chunks. Raises TypeError
    and ValueError for what is none of this.
    """
    if misplaced:
        raise TypeError("stream_action takes its options by name; without any it is @kk.stream_action()")
    try:
        checked = tuple(middleware)
    except TypeError:
        raise TypeError(f"middleware is a list of `async def f(ctx)`, not {middleware!r}") from None
    for each in checked:
        if not _is_middleware(each):
            raise TypeError(f"middleware is `async def f(ctx)`, not {each!r}")
    if type(replay) is not int or not 0 <= replay <= _MOST_REPLAY:
        raise ValueError(f"replay is a number of chunks, 0 to {_MOST_REPLAY}, not {replay!r}")
    known = types.MappingProxyType(dict(metadata or {}))

    def decorate(handler: Any) -> Any:
        return _callable_form(
            Action(handler, input=input, middleware=checked, metadata=known, safe=safe, replay=replay)
        )

    return decorate


def _is_middleware(found: Any) -> bool:
    call = getattr(found, "__call__", None)  # noqa: B004  (asked what it is, not whether it is there)
    if not inspect.iscoroutinefunction(found) and not inspect.iscoroutinefunction(call):
        return False
    try:
        inspect.signature(found).bind(None)
    except TypeError:
        return False
    return True


def _shape_of(handler: Any) -> tuple[bool, str]:
    """Whether it is a method, and what it calls its input."""
    if not inspect.isfunction(handler) or not inspect.iscoroutinefunction(handler):
        raise TypeError(
            f"a stream action is an `async def` that sends its chunks into `stream`, not {handler!r}"
        )
    parameters = list(inspect.signature(handler).parameters.values())
    if len(parameters) not in (3, 4) or any(each.kind not in _POSITIONAL for each in parameters):
        raise TypeError(
            f"{handler.__qualname__} takes ({', '.join(each.name for each in parameters)}); "
            "a stream action takes (input, ctx, stream), and as a method (self, input, ctx, stream)"
        )
    return len(parameters) == 4, parameters[-3].name


def _callable_form(action: Action) -> Any:
    """The function that a channel calls: with the input alone, for a stream or a refusal."""
    handler: Any = action.handler
    missing = inspect.Parameter.empty
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(action.input_name, kind, default=UNDEFINED)]
    if action.is_method:
        parameters.insert(0, inspect.Parameter("self", kind, default=missing))
    signature = inspect.Signature(parameters)

    async def call(*args: Any, **kwargs: Any) -> SinkStream:
        if current.get(None) is None:
            raise TypeError(
                f"{handler.__qualname__} is a stream action: it streams to a caller at the other end "
                "of a channel, such as one of kk.memory_pair, or of HTTP"
            )
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        *owner, raw = given.args
        if owner and not _is_method_of(call, owner[0]):  # it would be a value of the peer's
            raise TypeError(f"{handler.__qualname__} is a method: expose it with its object")
        bound = BoundAction(action, tuple(owner), handler.__name__)
        prepared = await bound.prepare(raw, ActionContext.of_channel(bound.name))
        return SinkStream(functools.partial(_send, prepared))

    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(call, name, getattr(handler, name))
    call.__signature__ = signature  # type: ignore[attr-defined]  # what inspect.signature looks for first
    call.__annotations__ = {}  # the action checks its input itself, so that its caller gets an ActionError
    setattr(call, _MARK, action)
    return call


def _is_method_of(call: Any, owner: Any) -> bool:
    """Whether the class of `owner` has it, as it was defined or under another name."""
    cls = owner if isinstance(owner, type) else type(owner)
    place = call.__module__, call.__qualname__.rpartition(".")[0]
    return any(
        (each.__module__, each.__qualname__) == place or any(found is call for found in vars(each).values())
        for each in cls.__mro__
    )


async def _send(prepared: PreparedAction, sink: StreamSink[Any]) -> None:
    sink.when_gone(prepared.signal.set)
    try:
        await prepared.run(_SinkOutlet(sink))
    except anyio.get_cancelled_exc_class():
        if sink.error is None:
            raise
        _log.error("an action sent what cannot be sent", exc_info=sink.error)
        raise ActionError.unexpected() from None


class _SinkOutlet:
    """The way to the caller at a channel's other end: it sees the end when the handler has returned."""

    def __init__(self, sink: StreamSink[Any]) -> None:
        self.send = sink.send
        self.close = sink.drain


def action_of(function: Any, name: str | None = None) -> BoundAction | None:
    """The action that `function` is, a bound method with its object; None: it is none.

    Raises TypeError for a method without its object.
    """
    owner: tuple[Any, ...] = ()
    if isinstance(function, types.MethodType):
        owner, function = (function.__self__,), function.__func__
    action = getattr(function, _MARK, None)
    if not isinstance(action, Action):
        return None
    if action.is_method != bool(owner):
        raise TypeError(
            f"{function.__qualname__} is a method: give it with its object, as in `api.{function.__name__}`"
        )
    return BoundAction(action, owner, function.__name__ if name is None else name)
