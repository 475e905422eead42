"""What an API's class says for `channel.remote(API)`: `Property`, `@method`, `@stream`, and their types.

This module owns what users write and what type checkers see. At run time it does next to nothing:
`channel.typed` reads the declarations, and a server takes no notice of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Protocol

    from msgspec import UnsetType

    from kkrpc_py.channel.sink import StreamSink
    from kkrpc_py.channel.stream import StreamCall, StreamIterator

__all__ = ["Property", "is_declared_stream", "method", "stream"]

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

_STREAM_MARK = "__kkrpc_stream__"


class Property(Generic[T]):
    """A property of the other side, in a client's Protocol: ``counter: kk.Property[int]``.

    ``await api.counter`` is its value, and ``await channel.set(api.counter, 3)`` gives it another.
    """

    # Invariant, and no Protocol: else `set(api.counter, "x")` would find a type that fits both.

    if TYPE_CHECKING:

        def __await__(self) -> Generator[Any, Any, T]:
            """Ask for the value."""
            ...

        def with_options(
            self, *, timeout: float | UnsetType | None = ..., metadata: Mapping[str, Any] | None = ...
        ) -> Property[T]:
            """The same property, asked for with a timeout or metadata of its own."""
            ...


if TYPE_CHECKING:
    # What `api.name` is to a type checker. At run time it is a `channel.typed.TypedRemote`, its call
    # a `Call`, and what that gives a `StreamCall`.
    R_co = TypeVar("R_co", covariant=True)
    T_co = TypeVar("T_co", covariant=True)
    S_co = TypeVar("S_co", covariant=True)

    class StreamResult(StreamCall[T], Generic[T, R]):
        """A `StreamCall` of which the type of the return value is known."""

        async def result(self) -> R: ...
        def __await__(self) -> Generator[Any, Any, R]: ...

    class StreamOpening(Coroutine[Any, Any, S_co], Generic[T, S_co]):
        """The call of a stream: iterated it gives the values, awaited the `StreamCall`."""

        def __aiter__(self) -> StreamIterator[T]: ...

    class RemoteMethod(Protocol[P, R_co]):
        """A method as its caller sees it."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]: ...
        def with_options(
            self, *, timeout: float | UnsetType | None = ..., metadata: Mapping[str, Any] | None = ...
        ) -> RemoteMethod[P, R_co]: ...

    class RemoteStream(Protocol[P, T, S_co]):
        """A stream as its caller sees it."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> StreamOpening[T, S_co]: ...
        def with_options(
            self, *, timeout: float | UnsetType | None = ..., metadata: Mapping[str, Any] | None = ...
        ) -> RemoteStream[P, T, S_co]: ...

    class Declared(Protocol[T_co]):
        """What a decorator leaves in the class: through an instance it is a `T`."""

        @overload
        def __get__(self, instance: None, owner: type) -> Declared[T_co]: ...
        @overload
        def __get__(self, instance: object, owner: type | None = None) -> T_co: ...


@overload
def method(
    function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /
) -> Declared[RemoteMethod[P, R]]: ...
@overload
def method(function: Callable[Concatenate[Any, P], R], /) -> Declared[RemoteMethod[P, R]]: ...
def method(function: Any, /) -> Any:
    """Declare a method of an API, `async def` or `def`: for the caller it is awaitable either way.

    ``channel.remote(API)`` is typed by it. The function is left as it is, and a server needs no
    such mark.
    """
    return function


@overload
def stream(
    function: Callable[Concatenate[Any, StreamSink[T], P], Awaitable[R]], /
) -> Declared[RemoteStream[P, T, StreamResult[T, R]]]: ...
@overload
def stream(
    function: Callable[Concatenate[Any, P], Generator[T, Any, R]], /
) -> Declared[RemoteStream[P, T, StreamResult[T, R]]]: ...
@overload
def stream(
    function: Callable[Concatenate[Any, P], AsyncIterable[T]], /
) -> Declared[RemoteStream[P, T, StreamCall[T]]]: ...
@overload
def stream(
    function: Callable[Concatenate[Any, P], Iterator[T]], /
) -> Declared[RemoteStream[P, T, StreamCall[T]]]: ...
@overload
def stream(
    function: Callable[Concatenate[Any, P], Coroutine[Any, Any, AsyncIterable[T]]], /
) -> Declared[RemoteStream[P, T, StreamCall[T]]]: ...
def stream(function: Any, /) -> Any:
    """Declare a stream of an API: for the caller it can be iterated, and awaited for its `StreamCall`.

    It may be a generator, async or not, an `async def` that returns an async iterable, or one whose
    first parameter is a `StreamSink`. A `Generator[T, None, R]` says the return value's type too.
    The function is left as it is, and a server needs no such mark.
    """
    setattr(function, _STREAM_MARK, True)
    return function


def is_declared_stream(function: Any) -> bool:
    """Whether `function` was declared with `@stream`."""
    return getattr(function, _STREAM_MARK, False) is True
