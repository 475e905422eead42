"""`StreamHub`: the named channels of one application, for all the connections that expose it.

It owns the names, what a peer sees of them (`streams.subscribe` and the others), and which connections there
are. Streams, uploads, events and states are modules of their own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import msgspec

from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.channel.current import current_channel
from kkrpc_py.channel.expose import namespace
from kkrpc_py.errors import LimitExceeded, StreamChannelExists, ValidationFailed, ValidationIssue
from kkrpc_py.limits import Limits
from kkrpc_py.streaming import DEFAULT_PATH, HIGH_WATER_MARK
from kkrpc_py.streaming.events import EventReader, EventsFace, Listeners, broadcast
from kkrpc_py.streaming.home import Home
from kkrpc_py.streaming.inbound import Inbounds
from kkrpc_py.streaming.named import Authorize, StreamChannel, StreamRequest, unknown
from kkrpc_py.streaming.state import STATE_ID, SharedState
from kkrpc_py.streaming.subscription import Overflow, Subscription
from kkrpc_py.streaming.upload_face import UploadFace
from kkrpc_py.wire.js import UNDEFINED
from kkrpc_py.wire.lowering import EncodeHook
from kkrpc_py.wire.shared import SharedWriter

__all__ = ["StreamHub"]


class SubscribeOptions(TypedDict, total=False):
    """What a subscriber may choose (NST-3)."""

    after: Annotated[int, msgspec.Meta(ge=0)] | None
    epoch: str | None
    highWaterMark: Annotated[int, msgspec.Meta(ge=1)]
    overflow: Overflow


_SHOWN = 200
"""Characters of what is wrong with the options, which may quote them."""


def _checked(options: Any) -> SubscribeOptions:
    """The options; what is undefined is missing. Raises ValidationFailed."""
    if options is None or options is UNDEFINED:
        return {}
    if type(options) is dict:
        options = {key: value for key, value in options.items() if value is not UNDEFINED}
    try:
        return msgspec.convert(options, SubscribeOptions)
    except msgspec.ValidationError as exc:
        raise ValidationFailed(
            "subscribe", "input", [ValidationIssue(("options",), str(exc)[:_SHOWN])]
        ) from None


@namespace
class HubFace(EventsFace):
    """What a peer may call of a hub."""

    def __init__(self, hub: StreamHub, listeners: Listeners) -> None:
        super().__init__(listeners)
        self.upload = UploadFace(hub.inbounds)
        self._hub = hub

    async def subscribe(self, name: str, id: str, options: Any = None) -> Any:
        """The stream of a mark and its chunks (NST-3)."""
        return await self._hub.subscribe(current_channel(), name, id, _checked(options))

    async def mutate(self, name: str, version: int, patch: list[Any]) -> int:
        """Change a shared state; the new version (STA-6)."""
        return await self._hub.mutate(current_channel(), name, version, patch)


@namespace
class StreamHub:
    """Named streams, uploads, events and shared states, exposed to any number of channels.

    ::

        hub = kk.StreamHub()
        chat = hub.create("my-plugin:chat")
        await kk.serve_unix({"app": API(chat), "streams": hub}, path)

    A hub belongs to one event loop: call it there alone. What of it a peer may call is the protocol's
    (spec, sections 20 to 23), not its Python methods.

    :param encode: gets each value that nothing else knows how to send, as the hook of a channel does.
    :param limits: bounds what subscribers may ask for, and the depth and digits of values.
    """

    __kkrpc_face__ = "_face"

    def __init__(self, *, encode: EncodeHook | None = None, limits: Limits | None = None) -> None:
        self.limits = limits if limits is not None else Limits()
        self.writer = SharedWriter(self.limits, encode)
        self.inbounds = Inbounds()
        self.home = Home()
        self._names: dict[str, StreamChannel] = {}
        self._states: dict[str, SharedState] = {}
        self._listeners = Listeners(self.limits)
        self._paths: weakref.WeakKeyDictionary[RPCChannel, str] = weakref.WeakKeyDictionary()
        self._face = HubFace(self, self._listeners)

    # Names -----------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        *,
        replay_window: int = 256,
        closed_stream_retention: float = 30.0,
        reconnect_grace: float = 0.0,
        authorize: Authorize | None = None,
    ) -> StreamChannel:
        """A channel of that name. Raises StreamChannelExists where there is one.

        :param replay_window: chunks of each stream that are kept for those who subscribe later.
        :param closed_stream_retention: seconds for which a stream is kept after its end.
        :param reconnect_grace: seconds for which a subscriber may be gone, its connection lost, before a
            stream without any other sets its signal; who cancels has no grace.
        :param authorize: decides who may subscribe or upload: a function of a `StreamRequest`, maybe async.
        """
        if not isinstance(name, str):
            raise TypeError(f"the name of a stream channel is a string, not {name!r}")
        if type(replay_window) is not int or replay_window < 0:
            raise ValueError(f"replay_window is a number of chunks, zero or more, not {replay_window!r}")
        if not closed_stream_retention >= 0 or not reconnect_grace >= 0:
            raise ValueError("closed_stream_retention and reconnect_grace are seconds, zero or more")
        if name in self._names:
            raise StreamChannelExists(f"there is a stream channel {name!r} already")
        found = self._names[name] = StreamChannel(
            self, name, replay_window, closed_stream_retention, reconnect_grace, authorize
        )
        return found

    def get(self, name: str) -> StreamChannel | None:
        """The channel of that name; None if there is none."""
        return self._names.get(name)

    def names(self) -> list[str]:
        """The names that there are, the oldest first."""
        return list(self._names)

    def shared_state(
        self,
        name: str,
        *,
        initial: Any,
        writable: bool = False,
        authorize: Authorize | None = None,
        replay_window: int = 256,
    ) -> SharedState:
        """A state that clients follow under that name. Raises StreamChannelExists, NotSerializable.

        :param initial: its first value, of what JSON has.
        :param writable: clients may change it, too.
        :param authorize: decides who may follow ("subscribe") and change ("mutate") it.
        :param replay_window: changes that are kept, for clients that come back and changes that cross.
        """
        channel = self.create(
            name, replay_window=replay_window, closed_stream_retention=0, authorize=authorize
        )
        try:
            state = SharedState(
                channel.add(STATE_ID, first=2),
                initial=initial,
                writable=writable,
                limits=self.limits,
                replay_window=replay_window,
                close=channel.close,
            )
        except BaseException:
            channel.close()
            raise
        self._states[name] = state
        return state

    def remove(self, channel: StreamChannel) -> None:
        """A channel was closed."""
        if self._names.get(channel.name) is channel:
            del self._names[channel.name]
            self._states.pop(channel.name, None)

    # Connections -----------------------------------------------------------------------------

    def attach(self, channel: RPCChannel, path: str = DEFAULT_PATH) -> None:
        """Expose the hub to `channel` at `path`, beside its API. Raises ValueError where that is taken."""
        channel.attach(path, self)

    @property
    def channels(self) -> list[RPCChannel]:
        """The open channels that expose it, the oldest first."""
        return [channel for channel in self._paths if not channel.closed]

    def __kkrpc_attached__(self, channel: RPCChannel, path: str) -> None:
        if self.home.elsewhere and self.channels:
            self.home.check()
        if not self.home.known:
            for named in self._names.values():
                named.loop_runs()
        self.home.settle()
        known = self._paths.setdefault(channel, path)
        if known != path:
            raise ValueError(f"the hub is exposed to that channel at {known!r}, and so not at {path!r}")

    # Events ----------------------------------------------------------------------------------

    def on(self, name: str, high_water_mark: int = HIGH_WATER_MARK) -> EventReader:
        """The events of that name that clients emit, from now on."""
        return self._listeners.on(name, high_water_mark)

    def broadcast(self, name: str, *args: Any, filter: Callable[[RPCChannel], bool] | None = None) -> int:
        """Emit an event to each open channel, or to those that `filter` lets pass; returns to how many.

        One that is closed, or that reads too slowly to take it, is passed over. Raises NotSerializable.
        """
        self.home.check()
        targets = [(channel, self._paths[channel]) for channel in self.channels]
        return broadcast(targets, name, args, filter)

    # For the face ------------------------------------------------------------------------------

    async def subscribe(
        self, channel: RPCChannel, name: str, id: str, options: SubscribeOptions
    ) -> Subscription:
        """A subscription of `channel`. Raises UnknownStream, LimitExceeded."""
        overflow: Overflow = options.get("overflow", "drop_oldest")
        high_water_mark = options.get("highWaterMark", HIGH_WATER_MARK)
        most = self.limits.high_water_mark
        if high_water_mark > most:
            raise LimitExceeded(f"highWaterMark is {high_water_mark}; Limits.high_water_mark is {most}")
        found = self._names.get(name)
        if found is None:
            raise unknown(name, id)
        stream = await found.granted(channel, id, overflow)
        return stream.subscribe(
            channel,
            after=options.get("after", 0),
            epoch=options.get("epoch"),
            high_water_mark=high_water_mark,
            overflow=overflow,
        )

    async def mutate(self, channel: RPCChannel, name: str, version: int, patch: list[Any]) -> int:
        """Change a shared state for `channel`; the new version."""
        state = self._states.get(name)
        if state is None:
            raise unknown(name, STATE_ID)
        named = self._names[name]
        await named.granted(channel, STATE_ID, "drop_oldest")
        if not await named.authorized(StreamRequest("mutate", name, STATE_ID, channel)):
            raise PermissionError(f"the shared state {name!r} may not be changed by this client")
        if self._states.get(name) is not state:
            raise unknown(name, STATE_ID)
        return state.mutate_for_peer(version, patch)

    def __repr__(self) -> str:
        return f"<StreamHub names={self.names()!r} channels={len(self.channels)}>"
