"""`TypedRemote`: the other side's API as a class describes it. `channel.remote(API)` makes one.

This module owns what a typed proxy adds to `Remote`: names that the class does not have are refused,
arguments are put where its signatures have them, and what comes back is made what it says. Reading
the class is `channel.members`'; to type checkers the proxy is an instance of the class
(`channel.declarations`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, get_origin

import msgspec
from msgspec import UNSET, UnsetType

from kkrpc_py.channel.call import Call, CallOptions, ProxyHost, Question, invoke
from kkrpc_py.channel.members import Member, member_of
from kkrpc_py.channel.proxy import Remote, get
from kkrpc_py.channel.stream import StreamCall, StreamIterator
from kkrpc_py.channel.validation import converter
from kkrpc_py.wire.messages import Request

__all__ = ["TypedRemote", "typed_remote"]

T = TypeVar("T")
Convert: TypeAlias = Callable[[Any], Any]


def typed_remote(host: ProxyHost, api: Any) -> Any:
    """The other side's API, as the class `api` describes it.

    Raises TypeError for what is no class.
    """
    cls = get_origin(api) or api
    if not isinstance(cls, type):
        raise TypeError(f"remote() takes the class of an API, most often a Protocol, not {api!r}")
    return TypedRemote(host, "", None, Member(cls.__name__, scope=cls))


class TypedRemote(Remote):
    """A path on the other side of which a class says what it is."""

    _kk_member: Member
    _kk_value: Convert | None
    _kk_stream_options: CallOptions | None

    def __init__(self, host: ProxyHost, path: str, options: CallOptions | None, member: Member) -> None:
        value = _converter(member.value, path)
        # What `construct` makes of a class comes with the options; below it there is nothing to inherit them.
        super().__init__(host, path, _with(options, result=value) if member.constructs else options)
        streamed = _with(options, _converter(member.final, path), _converter(member.chunk, path))
        self.__dict__.update(_kk_member=member, _kk_value=value, _kk_stream_options=streamed)

    def __getitem__(self, name: str) -> Remote:
        """The same as an attribute, for names that are no Python identifiers, and for dicts."""
        if not isinstance(name, str):
            raise TypeError("a remote name is a string")
        member = self._kk_member
        if member.scope is None:
            raise AttributeError(f"{member.label} has no names below it, such as {name!r}")
        found = member_of(member.scope, name, member.label)
        path = f"{self._kk_path}.{found.name}" if self._kk_path else found.name
        if found.open:
            return Remote(self._kk_host, path, self._kk_options)
        return TypedRemote(self._kk_host, path, self._kk_options, found)

    def __call__(self, *args: Any, **kwargs: Any) -> Call[Any]:
        """Raises TypeError where the arguments do not bind; nothing is sent then."""
        member = self._kk_member
        parameters = member.parameters
        if parameters is None or member.constructs:
            what = "a class: make an instance with channel.construct()" if parameters else "not a method"
            raise TypeError(f"{member.label} is {what}")
        placed, named = parameters.bind(args, kwargs)
        path = self._kk_path
        question = Question(Request(None, path, placed, kwargs=named), path, "call") if named else None
        make: type[TypedCall[Any]] = SteppedCall if member.stepped else TypedCall
        return make(
            self._kk_host, path, placed, self._kk_stream_options, question, member.streams, self._kk_value
        )

    def _kk_bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a construction, where the class has them."""
        member = self._kk_member
        if member.parameters is None:
            raise TypeError(f"{member.label} is not a class")
        return member.parameters.bind(args, kwargs)

    def with_options(
        self,
        *,
        timeout: float | UnsetType | None = UNSET,
        metadata: Mapping[str, Any] | None = None,
    ) -> TypedRemote:
        """The same path, and all below it, for calls with a timeout or metadata of their own."""
        options = super().with_options(timeout=timeout, metadata=metadata)._kk_options
        return TypedRemote(self._kk_host, self._kk_path, options, self._kk_member)

    def __await__(self) -> Generator[Any, Any, Any]:
        """The value of the property at this path. Raises TypeError where the class says that it is none."""
        member = self._kk_member
        if not member.readable:
            raise TypeError(
                f"{member.label} is not a property" + ": call it" * (member.parameters is not None)
            )
        return get(
            Remote(self._kk_host, self._kk_path, _with(self._kk_options, result=self._kk_value))
        ).__await__()

    def __repr__(self) -> str:
        return f"<TypedRemote {self._kk_path or self._kk_member.label!r}>"


def _converter(hint: Any, path: str) -> Convert | None:
    if hint is Any:
        return None
    try:
        return _known_converter(hint, path)
    except TypeError:  # not hashable: something in an `Annotated` or a `Literal`
        return converter(hint, path)


_known_converter = functools.lru_cache(maxsize=4096)(converter)


def _with(
    options: CallOptions | None, result: Convert | None = None, chunk: Convert | None = None
) -> CallOptions | None:
    if result is None and chunk is None:
        return options  # none at all, most often: the shortest way
    return msgspec.structs.replace(options or CallOptions(), result=result, chunk=chunk)


class TypedCall(Call[T]):
    """A call of which a class says what comes back: another kind of answer is a TypeError."""

    __slots__ = ("_streams", "_value")

    def __init__(
        self,
        host: ProxyHost,
        method: str,
        args: list[Any],
        options: CallOptions | None,
        question: Question | None,
        streams: bool | None,
        value: Convert | None,
    ) -> None:
        super().__init__(host, method, args, options, question)
        self._streams = streams
        self._value = value

    def _start(self) -> Coroutine[Any, Any, Any]:
        if self._coroutine is not None or self._iterated:
            return super()._start()
        invoked = functools.partial(
            invoke, self._host, self._method, self._args, StreamCall, self._options, self._question
        )
        self._coroutine = _checked(invoked, self._method, self._streams, self._value)
        return self._coroutine


async def _checked(
    invoked: Callable[[], Coroutine[Any, Any, Any]], method: str, streams: bool | None, value: Convert | None
) -> Any:
    answer = await invoked()
    if isinstance(answer, StreamCall):
        if streams is False:
            await answer.cancel()
            raise TypeError(f"{method!r} returned a stream; the class of the API does not say so")
        return answer
    if streams:
        raise TypeError(f"{method!r} returned {type(answer).__name__}, not a stream")
    return answer if value is None else value(answer)


class SteppedCall(TypedCall[T]):
    """The call of a stream that is annotated as an iterator: it can be stepped by itself, as one can."""

    __slots__ = ("_steps",)

    _steps: StreamIterator[T]

    def __aiter__(self) -> StreamIterator[T]:
        """The values of the stream; those that are left, once `anext()` was used."""
        steps: StreamIterator[T] | None = getattr(self, "_steps", None)
        return super().__aiter__() if steps is None else steps

    async def __anext__(self) -> T:
        """The next value, for reading the stream by hand."""
        self._steps = aiter(self)
        return await self._steps.__anext__()

    async def aclose(self) -> None:
        """Stop the stream; returns when the producer has cleaned up, where the peer confirms that."""
        receiver = self._receiver()
        if receiver is None:
            self.close()
        else:
            await StreamCall(receiver).cancel()
