"""Functions that cross the channel: the peer's as `RemoteCallback`, this side's, if need be, as `callback`.

It owns what the application holds, and what this side holds of the peer. Who may call what is
`core.callbacks`'; running a function that the peer calls is `channel.dispatch`'s.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from kkrpc_py.channel.call import Call, CallHost, CallOptions, Question, send_notice
from kkrpc_py.core.callbacks import PassedFunctions
from kkrpc_py.errors import CallbackReleased, LimitExceeded
from kkrpc_py.wire.messages import Callback

__all__ = ["HeldCallbacks", "LocalCallback", "RemoteCallback", "callback"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class _Calling(Question, frozen=True):
    """The question that a callback asks."""

    callback: RemoteCallback[..., Any] | None = None
    """It lives until the peer has answered: its release must not come before its call."""


class CallbackHost(CallHost, Protocol):
    """What a callback needs of its channel."""

    callbacks: HeldCallbacks

    @property
    def closed(self) -> bool:
        """Nothing is sent any more."""
        ...

    def on_loop(self) -> bool:
        """Whether this is the thread of the channel's event loop."""
        ...


class RemoteCallback(Generic[P, R_co]):
    """A function of the peer: `await cb(1)` calls it there.

    Between kkrpc_py peers the call gives the function's result, or raises what it raised; toward a stock peer
    it gives None as soon as it is sent. `notify` never waits. When the last reference to it goes, the peer is
    told that it may forget the function. Two that stand for the same function are equal.
    """

    __slots__ = ("__weakref__", "_host", "_id", "_released")
    __kkrpc_unlisted__ = True

    def __init__(self, host: CallbackHost, id: str) -> None:
        self._host = host
        self._id = id
        self._released = False

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Call[R_co]:
        """The call, sent when it is awaited. Raises CallbackReleased where it was released here."""
        return self._call(list(args), kwargs, None)

    def _call(self, args: list[Any], kwargs: dict[str, Any], options: CallOptions | None) -> Call[R_co]:
        self._check()
        message = Callback(None, self._id, args, kwargs=kwargs or None)
        question = _Calling(message, f"callback {self._id}", callback=self)
        return Call(self._host, question.name, args, options, question)

    def notify(self, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Call it and wait for nothing; from any thread. What becomes of it is not told."""
        self._check()
        if self._host.on_loop():  # it goes ahead of the answer that follows it
            self._notify(list(args), kwargs)
        else:
            self._host.post(lambda: self._notify(list(args), kwargs))

    def _notify(self, args: list[Any], kwargs: dict[str, Any]) -> None:
        send_notice(self._host, self._id, args, kwargs or None)

    def release(self) -> None:
        """Call it no more, as the end of the last reference does by itself; others that were given it may.

        Once none of them is left, the peer is told.
        """
        if not self._released:
            self._released = True
            self._host.callbacks.gone(self._id)

    def _check(self) -> None:
        if self._released:
            raise CallbackReleased("this side has released the callback")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RemoteCallback):
            return NotImplemented
        return self._host is other._host and self._id == other._id

    def __hash__(self) -> int:
        return hash((id(self._host), self._id))

    def __repr__(self) -> str:
        return f"<RemoteCallback {self._id}{' released' if self._released else ''}>"

    def __del__(self) -> None:
        self.release()


class HeldCallbacks:
    """The functions of the peer that this side holds."""

    def __init__(self, host: CallbackHost, most: int) -> None:
        self._host = host
        self._most = most
        self._held: dict[str, int] = {}
        """How many objects stand for each function."""
        self._gone: deque[str] = deque()
        self._refused: dict[str, int] = {}
        self._posted = False

    def __len__(self) -> int:
        return len(self._held)

    def get(self, id: str) -> RemoteCallback[..., Any]:
        """An object of its own for the function that a message names. Raises LimitExceeded."""
        if id not in self._held:
            if len(self._held) >= self._most and self._gone:
                self._give_back()
            if len(self._held) >= self._most:
                self._refused[id] = self._refused.get(id, 0) + 1
                self._post()
                raise LimitExceeded(f"this side holds {self._most} callbacks (Limits.callbacks)")
        self._held[id] = self._held.get(id, 0) + 1
        return RemoteCallback(self._host, id)

    def gone(self, id: str) -> None:
        """One object for `id` calls it no more. It may be said by a finalizer, at any point of any thread."""
        self._gone.append(id)
        self._post()

    def _post(self) -> None:
        if not self._posted:
            self._posted = True
            self._host.post(self._give_back)

    def _give_back(self) -> None:
        self._posted = False
        counts, self._refused = self._refused, {}
        while self._gone:
            id = self._gone.popleft()
            counts[id] = counts.get(id, 0) + 1
            self._held[id] -= 1
            if not self._held[id]:
                del self._held[id]
        if counts and not self._host.closed:
            self._host.connection.give_back(counts)
            self._host.kick()


class LocalCallback(Generic[P, R]):
    """A function with the time for which peers may call it; made by `callback`."""

    __slots__ = ("__weakref__", "_passed_to", "_released", "function")
    __kkrpc_unlisted__ = True

    def __init__(self, function: Callable[P, Awaitable[R] | R]) -> None:
        self.function = function
        self._passed_to: weakref.WeakSet[PassedFunctions] = weakref.WeakSet()
        self._released = False

    async def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it here as a peer would; whoever is given it may be on either side."""
        result: Any = self.function(*args, **kwargs)
        if isinstance(result, Awaitable):
            result = await result
        value: R = result
        return value

    def pass_to(self, functions: PassedFunctions) -> None:
        """It is about to be passed to a peer."""
        if self._released:
            raise CallbackReleased("the callback was released and cannot be passed again")
        self._passed_to.add(functions)

    def release(self) -> None:
        """No peer may call it any more; one that does gets CallbackReleased."""
        self._released = True
        for functions in list(self._passed_to):
            functions.release(self)
        self._passed_to.clear()

    def __enter__(self) -> LocalCallback[P, R]:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<callback {self.function!r}{' released' if self._released else ''}>"


@overload
def callback(function: Callable[P, Awaitable[R]]) -> LocalCallback[P, R]: ...


@overload
def callback(function: Callable[P, R]) -> LocalCallback[P, R]: ...


def callback(function: Callable[P, Any]) -> LocalCallback[P, Any]:
    """`function` as an argument whose life is in your hands.

    ::

        with kk.callback(on_progress) as progress:
            await api.process(paths, progress)

    After the block, or `release()`, the peer can call it no more. A function that is passed as it is stays
    callable until the peer has dropped it; a stock peer never says so, and its functions stay until released.
    """
    return LocalCallback(function)
