"""`RemoteState`: the client's end of a shared state, kept up to date by a task of its own.

It owns the copy of the value here, and changes that are asked of the server (STA-6, STA-10). The stream by
which the value comes, over one connection or one after the other, is a `StreamReader`'s.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
from anyio.lowlevel import checkpoint

from kkrpc_py.channel.call import Call
from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.errors import (
    ChannelClosed,
    KkrpcError,
    LimitExceeded,
    NotSerializable,
    ProtocolError,
    StateConflict,
    StreamClosed,
)
from kkrpc_py.limits import Limits
from kkrpc_py.streaming import patches
from kkrpc_py.streaming.diffs import make
from kkrpc_py.streaming.documents import DocumentRules, copied, same
from kkrpc_py.streaming.state import STATE_ID
from kkrpc_py.streaming.state_view import StateView

if TYPE_CHECKING:
    from kkrpc_py.streaming.client import RemoteStreams
    from kkrpc_py.streaming.reader import StreamReader

__all__ = ["RemoteState", "open_state"]

_log = logging.getLogger("kkrpc_py")

_MOST_RESTARTS = 3
"""Subscriptions in a row that give no value that could be taken."""


def open_state(streams: RemoteStreams, name: str) -> RemoteState:
    """The state of that name of the other side's hub; to be entered."""
    return RemoteState(streams, name)


class _Base(NamedTuple):
    """What a change starts from."""

    document: Any
    version: int
    epoch: str | None


class RemoteState(StateView):
    """A shared state of the server's, kept up to date within the block.

    ::

        async with kk.streams(channel).shared_state("my-plugin:history") as state:
            print(state.value["messages"])
            async with state.mutate() as draft:
                draft["messages"].append({"text": "hello"})

    Entering the block waits for the first value, and raises UnknownStream where the server has no such state,
    or not for this client. When the connection is lost the value stays readable; over a link that reconnects
    it goes on with the new connection, else the state is `closed`.
    """

    def __init__(self, streams: RemoteStreams, name: str) -> None:
        super().__init__(name)
        self._streams = streams
        self._method = f"{streams.path}.mutate" if streams.path else "mutate"
        self._limits = Limits()
        self._reader: StreamReader[Any] | None = None
        self._epoch: str | None = None
        """Of the stream that the value came by: versions mean something within it."""
        self._failure: KkrpcError | None = None
        self._news = anyio.Event()
        self._entered = False

    @property
    def closed(self) -> bool:
        """No more changes will come: the connection is lost for good, or the state or the block has ended."""
        return self._failure is not None

    async def wait_version(self, version: int) -> None:
        """Wait until `version` is here, or a newer one.

        Raises ChannelClosed or StreamClosed once the state is closed, and ChannelClosed where the server has
        begun anew: its versions are others then.
        """
        await checkpoint()
        await self._reached(version, self._epoch)

    async def until(self, condition: Callable[[Any], Any]) -> Any:
        """Wait until `condition(value)` holds, and return that value.

        It is asked of the value now and of each that comes, of several that come at once the newest alone.
        Raises what `condition` raises, and ChannelClosed or StreamClosed once the state is closed.
        """
        await checkpoint()
        while True:
            seen = self._document
            value = copied(seen)
            if condition(value):
                return value
            while self._document is seen:
                self._check_open()
                await self._news.wait()

    # Changes ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def mutate(self) -> AsyncGenerator[Any]:
        """Change it: the block changes a draft, a copy of the value in place; at its end the server is asked.

        Returns once the change has been made, and is in the value here. A block that changes nothing asks
        for nothing, and one that is left by an exception neither.

        Raises at the end of the block StateConflict where another change since the draft was made has touched
        the same places: nothing was changed then, and one may try again with a new draft. PermissionError
        where this client may not change it; NotSerializable for a value that JSON does not have, with its
        path; LimitExceeded where the state would be too large; ChannelClosed where there is no connection, or
        it is lost meanwhile. Then, and where the block is cancelled meanwhile, the change may have been made:
        it is never asked for twice. TypeError at its beginning where the value is no list and no mapping:
        see `set`.
        """
        self._check_open()
        base = _Base(self._document, self._version, self._epoch)
        kind = type(base.document)
        if kind is not dict and kind is not list:
            raise TypeError(f"the value is of type {kind.__name__}, which no block can change: use set()")
        draft = copied(base.document)
        yield draft
        DocumentRules(self._limits).check(draft)
        await self._ask(base, make(base.document, draft))

    async def set(self, value: Any) -> None:
        """Put another value in the place of the whole. Raises what `mutate` raises.

        StateConflict where there was any other change that this side had not seen.
        """
        self._check_open()
        DocumentRules(self._limits).check(value)
        base = _Base(self._document, self._version, self._epoch)
        patch = [] if same(value, base.document) else [{"op": "replace", "path": "", "value": value}]
        await self._ask(base, patch)

    async def _ask(self, base: _Base, patch: list[dict[str, Any]]) -> None:
        """Ask the server for a change, once, and wait for it to be here."""
        if not patch:
            await checkpoint()
            return
        channel = await self._connection()
        if self._epoch != base.epoch:
            # The version means nothing to the server that is there now.
            raise StateConflict(f"the server of {self.name!r} has begun anew", self._version)
        # Copied, since the block may have kept parts of its draft.
        answer = await Call(channel, self._method, [self.name, base.version, copied(patch)])
        if type(answer) is not int or answer < 1:
            raise ProtocolError(f"{self._method!r} was answered by no version")
        await self._reached(answer, base.epoch)

    async def _connection(self) -> RPCChannel:
        """The connection by which the value comes: no other one is asked, whose server may be another.

        Where it has been made and the value not yet come, this waits. Raises ChannelClosed without one.
        """
        while True:
            self._check_open()
            source = self._streams.source
            channel = source if isinstance(source, RPCChannel) else source.channel
            follower = self._reader.follower if self._reader is not None else None
            if follower is not None and follower.channel is channel and follower.marked:
                channel.check_open()
                if follower.epoch == self._epoch:
                    return channel
            await self._news.wait()

    async def _reached(self, version: int, epoch: str | None) -> None:
        while self._epoch == epoch and self._version < version:
            self._check_open()
            await self._news.wait()
        if self._epoch != epoch:
            raise ChannelClosed(f"the server of {self.name!r} has begun anew")

    def _check_open(self) -> None:
        """Raises a fresh error for each of those who ask, once it is closed."""
        if not self._entered:
            raise RuntimeError("enter the state first: `async with … .shared_state(name) as state:`")
        if isinstance(self._failure, ChannelClosed):
            raise ChannelClosed.because_of(self._failure)
        if self._failure is not None:
            raise StreamClosed(
                f"the shared state {self.name!r} is closed: {self._failure}"
            ) from self._failure

    def _tell_waiting(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()

    # Following -------------------------------------------------------------------------------

    async def _follow(self) -> None:
        failure: KkrpcError = StreamClosed(f"the shared state {self.name!r} was left")
        try:
            restarts = 0
            while restarts < _MOST_RESTARTS:
                before = self._version, self._epoch
                if not await self._follow_subscription():
                    failure = StreamClosed(f"the server has closed the shared state {self.name!r}")
                    return
                restarts = restarts + 1 if before == (self._version, self._epoch) else 0
            failure = ProtocolError(f"the server sends no value of the shared state {self.name!r}")
        except KkrpcError as error:
            failure = error
        finally:
            self._failure = failure
            self._tell_waiting()

    async def _follow_subscription(self) -> bool:
        """Take what comes, to its end. True: something was lost, and another subscription is wanted."""
        self._reader = reader = self._streams.subscribe(self.name, STATE_ID)
        reader.follower.when_marked = self._tell_waiting
        reader.follower.warns = False  # what was dropped, a snapshot stands for
        async with reader:
            if reader.channel is not None:
                self._limits = reader.channel.limits
            async for value in reader:
                if not self._take(reader, value):
                    _log.info("a change of the shared state %r was lost: subscribing anew", self.name)
                    return True
        return False

    def _take(self, reader: StreamReader[Any], chunk: Any) -> bool:
        """Take a snapshot or a patch (STA-10). False: it is neither, or leads from another version."""
        version = reader.last_seq
        if type(chunk) is not dict:
            return False
        rules = DocumentRules(self._limits)
        try:
            if "value" in chunk:
                rules.check(chunk["value"])
                self._take_snapshot(reader, version, chunk["value"])
                return True
            if reader.epoch != self._epoch or version != self._version + 1 or "patch" not in chunk:
                return False
            operations = patches.checked(chunk["patch"])
            rules.check([operation.value for operation in operations], "the patch")
            document = patches.apply(self._document, operations, room=self._limits.frame)
        except (ValueError, NotSerializable, LimitExceeded) as error:
            _log.warning("what came of the shared state %r is none: %s", self.name, error)
            return False
        self._become(version, document, [operation.plain() for operation in operations])
        self._tell_waiting()
        return True

    def _take_snapshot(self, reader: StreamReader[Any], version: int, document: Any) -> None:
        known = self._version == version and self._epoch == reader.epoch
        self._epoch = reader.epoch
        if not known or not same(document, self._document):
            self._become(version, document, None)
        self._tell_waiting()

    # Life ------------------------------------------------------------------------------------

    async def __aenter__(self) -> RemoteState:
        if self._entered:
            raise RuntimeError("a shared state can be entered once")
        patches.library()
        self._entered = True
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._follow, name="kkrpc_py shared state")
        try:
            while self._version == 0 and self._failure is None:
                await self._news.wait()
            if self._version == 0:
                assert self._failure is not None
                raise self._failure
        except BaseException as exc:
            await self.__aexit__(type(exc), exc, exc.__traceback__)
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        try:
            # The group is told of no exception: it would wrap it.
            await self._tasks.__aexit__(None, None, None)
        except anyio.get_cancelled_exc_class():
            if exc is None:
                raise

    def __repr__(self) -> str:
        return f"<RemoteState {self.name!r} version={self._version}>"
