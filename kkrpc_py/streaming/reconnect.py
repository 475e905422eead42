"""`reconnecting`: a link that makes a new channel whenever the last one is lost.

It owns one task, which makes a connection, holds it and waits before the next attempt, and what others see of
that: the state, the current channel, a proxy that calls through it. How long it waits is `channel.backoff`.
Nothing is sent twice: what was under way when a channel was lost has failed, and stays so.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, TypeAlias, TypeVar, overload

import anyio
from anyio.lowlevel import checkpoint

from kkrpc_py.channel.backoff import Backoff
from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.channel.declarations import Property
from kkrpc_py.channel.proxy import Remote, construct, set_
from kkrpc_py.errors import ChannelClosed, KkrpcError, NotSerializable, ValidationFailed

__all__ = ["Connect", "LinkState", "ReconnectingChannel", "reconnecting"]

T = TypeVar("T")
P = ParamSpec("P")

Connect: TypeAlias = Callable[[], AbstractAsyncContextManager[RPCChannel, bool | None]]
"""Gives a new connection at each call."""
LinkState: TypeAlias = Literal["connecting", "connected", "waiting", "closed"]
"""An attempt is made; there is a channel; it is lost, or the attempt has failed, and the next is yet to come;
nothing more will come."""

UNREAD_STATES: Final = 256
"""Changes that are kept for those who watch the state; whoever is further behind misses the oldest."""

_PASSING = (OSError, KkrpcError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)
_FAULTS = (NotSerializable, ValidationFailed)

_log = logging.getLogger("kkrpc_py")


def reconnecting(
    connect: Connect,
    *,
    initial_delay: float = 0.1,
    max_delay: float = 10.0,
    factor: float = 2.0,
    jitter: float = 0.5,
    attempts: int | None = None,
    random: Callable[[], float] = random.random,
) -> ReconnectingChannel:
    """A link that connects again by itself.

    ::

        async with kk.reconnecting(lambda: kk.connect_unix(path)) as link:
            await link.remote().add(1, 2)

    :param connect: called for each attempt, with nothing; gives an async context manager of a new channel.
        What it does before it yields, such as a login, belongs to the attempt.
    :param initial_delay: seconds before the first new attempt.
    :param max_delay: seconds, the most that is waited.
    :param factor: by which the delay grows from one failure in a row to the next.
    :param jitter: the part of each delay, 0 to 1, of which a random share is left out.
    :param attempts: the most in a row that lead to no connection that lasts; None: no end.
    :param random: gives numbers from 0 to 1.

    Entering the block waits for the first connection, and raises the last error where `attempts` have failed;
    later on the link is closed then. An attempt that fails with OSError, KkrpcError or one of anyio's errors
    of a stream is followed by another one, as is a lost connection. Anything else, and NotSerializable and
    ValidationFailed, is a fault of the program: it cancels the block, and is raised out of it as it is.
    """
    return ReconnectingChannel(
        connect, Backoff(initial_delay, max_delay, factor, jitter, random), _checked_attempts(attempts)
    )


def _checked_attempts(attempts: int | None) -> int | None:
    if attempts is not None:
        if type(attempts) is not int:
            raise TypeError(f"attempts is a number or None, not {attempts!r}")
        if attempts < 1:
            raise ValueError(f"attempts is one or more, not {attempts}")
    return attempts


class ReconnectingChannel:
    """A link to a peer, over one channel after the other. Made by `reconnecting`.

    Leaving the block ends the current connection as its own block would: in order, and cancelled where the
    block is cancelled.
    """

    __kkrpc_unlisted__ = True

    def __init__(self, connect: Connect, backoff: Backoff, attempts: int | None = None) -> None:
        given: Any = connect
        if isinstance(given, AbstractAsyncContextManager) or not callable(given):
            raise TypeError(
                "connect is a function that gives a new connection at each call, such as "
                f"lambda: kk.connect_unix(path), not {given!r}"
            )
        self._connect = connect
        self._backoff = backoff
        self._most = attempts
        self.last_error: Exception | None = None
        """Why the last connection was lost, or the last attempt failed; None before that."""
        self._channel: RPCChannel | None = None
        """The current one, or the last that there was."""
        self._states: deque[LinkState] = deque(["connecting"], UNREAD_STATES)
        self._states_seen = 1
        self._changed = anyio.Event()
        self._when_connected: dict[Callable[[RPCChannel], None], None] = {}
        self._when_closed: dict[Callable[[], None], None] = {}
        self._reason: ChannelClosed | None = None
        self._last_failure: Exception | None = None
        """The last of the attempts that are allowed."""
        self._crash: BaseException | None = None
        self._entered = False

    # What there is ---------------------------------------------------------------------------

    @property
    def state(self) -> LinkState:
        """It is "connected" exactly as long as `channel` can be called."""
        return self._states[-1]

    @property
    def attempts(self) -> int:
        """Attempts in a row that have failed, or led to a connection that did not last."""
        return self._backoff.failures

    @property
    def channel(self) -> RPCChannel:
        """The current channel. Raises ChannelClosed while there is none."""
        if self.state != "connected":
            raise self._closed_error()
        assert self._channel is not None
        return self._channel

    def states(self) -> AsyncIterator[LinkState]:
        """The state at this call, then each change in order; it ends after "closed".

        Of more than 256 changes that were not read the oldest are left out.
        """
        return _States(self)

    async def connected(self, after: RPCChannel | None = None) -> RPCChannel:
        """Wait until there is a channel, and another one than `after`, which was found to be lost.

        Raises ChannelClosed once the link is closed.
        """
        self._check_entered()
        await checkpoint()
        while self.state != "connected" or self._channel is after:
            if self.state == "closed":
                raise self._closed_error()
            await self._changed.wait()
        return self.channel

    def when_connected(self, tell: Callable[[RPCChannel], None]) -> None:
        """Call `tell`, which raises nothing, with the channel, and each new one before others have it."""
        self._when_connected[tell] = None
        if self.state == "connected":
            tell(self.channel)

    def forget_connected(self, tell: Callable[[RPCChannel], None]) -> None:
        """Do not call `tell` any more."""
        self._when_connected.pop(tell, None)

    def when_closed(self, tell: Callable[[], None]) -> None:
        """Call `tell`, which raises nothing, once there will be no more channels; maybe at once."""
        if self.state == "closed":
            tell()
        else:
            self._when_closed[tell] = None

    def forget_closed(self, tell: Callable[[], None]) -> None:
        """Do not call `tell` any more."""
        self._when_closed.pop(tell, None)

    # Calls -----------------------------------------------------------------------------------

    @overload
    def remote(self) -> Any: ...

    @overload
    def remote(self, api: Callable[..., T], /) -> T: ...

    def remote(self, api: Any = None) -> Any:
        """The other side's API, as `RPCChannel.remote` has it: each call takes the channel of its moment.

        A call while there is none raises ChannelClosed at once, and so does one whose channel is lost before
        the answer is here. Neither is repeated.
        """
        if api is None:
            return Remote(self, "")
        from kkrpc_py.channel.typed import typed_remote  # with the machinery of annotations

        return typed_remote(self, api)

    async def set(self, target: Property[T], value: T) -> None:
        """Write a property of the other side; see `RPCChannel.set`."""
        await set_(target, value)

    async def construct(self, cls: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Make an instance on the other side; see `RPCChannel.construct`."""
        return await construct(cls, list(args), kwargs)

    @property
    def calling(self) -> RPCChannel:
        """What sends a call now. One that is lost refuses it, and knows why."""
        if self._channel is None:
            raise RuntimeError("enter the link first: `async with link:`")
        return self._channel

    # Life ------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close the link from inside its block, for good; returns when the connection has ended.

        Calls that are pending, and whoever waits for a channel, get ChannelClosed.
        """
        self._check_entered()
        self._close(ChannelClosed("the link was closed by this side"))
        if anyio.get_current_task().id != self._task_id:  # `connect` may close the link that it works for
            await self._ended.wait()

    async def __aenter__(self) -> ReconnectingChannel:
        if self._entered:
            raise RuntimeError("a link can be entered once")
        self._entered = True
        self._ended = anyio.Event()
        self._task_id = 0
        # The current block's end comes before the connection's, also where all of it is being cancelled.
        self._scope = anyio.CancelScope(shield=True)
        self._interrupt: Callable[[], object] = self._scope.cancel
        self._task_group = anyio.create_task_group()
        await self._task_group.__aenter__()
        self._task_group.start_soon(self._supervise, name="kkrpc_py reconnecting")
        try:
            while self._channel is None and self.state != "closed":
                await self._changed.wait()
            if self._channel is None:
                raise self._crash or self._last_failure or self._closed_error()
        except BaseException as exc:
            await self.__aexit__(type(exc), exc, exc.__traceback__)
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        cancelled = anyio.get_cancelled_exc_class()
        if isinstance(exc, cancelled):
            self._interrupt = self._scope.cancel
        self._close(ChannelClosed("the link was closed by this side"))
        self._scope.shield = False
        # The group is told of no exception but the cancellation that is its own: it would wrap it.
        own = exc if self._crash is not None and isinstance(exc, cancelled) else None
        try:
            await self._task_group.__aexit__(type(own) if own is not None else None, own, None)
        except cancelled:
            if exc is None and self._crash is None:
                raise
        if self._crash is not None:
            raise self._crash

    def _check_entered(self) -> None:
        if not self._entered:
            raise RuntimeError("enter the link first: `async with link:`")

    def _set(self, state: LinkState) -> None:
        if self.state not in (state, "closed"):
            self._states.append(state)
            self._states_seen += 1
            changed, self._changed = self._changed, anyio.Event()
            changed.set()

    def _close(self, reason: ChannelClosed) -> None:
        if self._reason is None:
            self._reason = reason
            self._set("closed")
            for tell in tuple(self._when_closed):
                tell()
            self._when_closed.clear()
            self._when_connected.clear()
            self._interrupt()

    def _closed_error(self) -> ChannelClosed:
        """A fresh one for each of those who want a channel and get none."""
        if self._reason is not None:
            return ChannelClosed.because_of(self._reason)
        if self.last_error is None:
            return ChannelClosed("not connected yet")
        return _because("not connected", self.last_error)

    # The task --------------------------------------------------------------------------------

    async def _supervise(self) -> None:
        self._task_id = anyio.get_current_task().id
        try:
            with self._scope:
                await self._connect_again_and_again()
        except BaseException as exc:
            fault = _without_cancellation(exc)
            if fault is not None:
                self._crash = fault
                self._close(_because("connecting failed", fault))
                self._task_group.cancel_scope.cancel()
            elif not self._scope.shield:
                raise
            # else: on asyncio it was aimed at this task alone, and the link ends, in order
        finally:
            self._close(ChannelClosed("the task that connects was cancelled"))
            self._ended.set()

    async def _connect_again_and_again(self) -> None:
        backoff = self._backoff
        while True:
            self._set("connecting")
            await self._make_connection()
            if self.state == "closed":
                return
            assert self.last_error is not None
            if self._most is not None and backoff.failures >= self._most:
                self._last_failure = self.last_error
                self._close(_because(f"gave up after {backoff.failures} attempts in a row", self.last_error))
                return
            self._set("waiting")
            delay = backoff.delay()
            _log.info("connecting again in %.3g s: %s", delay, _said(self.last_error))
            await anyio.sleep(delay)

    async def _make_connection(self) -> None:
        """Make a connection and hold it to its end; `last_error` is why it was lost, or not made."""
        held = False
        try:
            async with self._connect() as channel:
                if not isinstance(channel, RPCChannel):
                    raise TypeError(f"connect gave {channel!r}, not a channel")
                channel.check_open()
                held = True
                await self._hold(channel)
        except Exception as exc:
            if not _is_passing(exc):
                raise
            if held:
                _log.info("the connection did not end well: %s", _said(exc))
            else:
                self._failed(exc)
        else:
            if not held:
                self._failed(ChannelClosed("the connection was given up as it was made"))
        finally:
            self._interrupt = self._scope.cancel

    async def _hold(self, channel: RPCChannel) -> None:
        """Let everybody have `channel`, until it is lost or the link is closed."""
        since = anyio.current_time()
        over = anyio.Event()

        def lost() -> None:
            self._backoff.lost(anyio.current_time() - since)
            try:
                channel.check_open()
            except ChannelClosed as exc:
                self.last_error = exc.with_traceback(None)
            self._set("waiting")
            over.set()

        self._interrupt = over.set  # its end is in order, and not to be cancelled
        self._channel = channel
        self._set("connected")
        for tell in tuple(self._when_connected):
            tell(channel)
        channel.when_closed(lost)
        try:
            await over.wait()
        finally:
            channel.forget_closed(lost)

    def _failed(self, error: Exception) -> None:
        self._backoff.failed()
        self.last_error = error


class _States(AsyncIterator[LinkState]):
    """One observer of a link, who has a place in what the link keeps."""

    def __init__(self, link: ReconnectingChannel) -> None:
        self._link = link
        self._next = link._states_seen - 1

    async def __anext__(self) -> LinkState:
        link = self._link
        await checkpoint()
        while self._next == link._states_seen:
            if link.state == "closed":
                raise StopAsyncIteration
            await link._changed.wait()
        oldest = link._states_seen - len(link._states)
        place = max(self._next, oldest)
        self._next = place + 1
        return link._states[place - oldest]


def _is_passing(error: Exception) -> bool:
    """Whether another attempt may do better; of a group: whether that holds for all that is in it."""
    if isinstance(error, ExceptionGroup):
        return all(_is_passing(each) for each in error.exceptions)
    return isinstance(error, _PASSING) and not isinstance(error, _FAULTS)


def _without_cancellation(error: BaseException) -> BaseException | None:
    """`error` without what a cancellation put into it; None: it was nothing else."""
    cancelled = anyio.get_cancelled_exc_class()
    if isinstance(error, BaseExceptionGroup):
        found, rest = error.split(cancelled)
        return error if found is None else rest
    return None if isinstance(error, cancelled) else error


def _said(error: BaseException) -> str:
    """An error in one line."""
    text = error.message if isinstance(error, ChannelClosed) else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _because(what: str, error: BaseException) -> ChannelClosed:
    """`what` happened because of `error`; a child's end is told of too."""
    if isinstance(error, ChannelClosed):
        closed = ChannelClosed(
            f"{what}: {error.message}", exit_code=error.exit_code, stderr_tail=error.stderr_tail
        )
    else:
        closed = ChannelClosed(f"{what}: {_said(error)}")
    closed.__cause__ = error
    return closed
