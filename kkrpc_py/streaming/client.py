"""`streams`: the named streams, uploads and states of the other side's hub."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, get_args

from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.streaming import DEFAULT_PATH, HIGH_WATER_MARK
from kkrpc_py.streaming.follower import Follower, OnGap, Source
from kkrpc_py.streaming.reader import StreamReader
from kkrpc_py.streaming.remote_state import RemoteState, open_state
from kkrpc_py.streaming.subscription import Overflow
from kkrpc_py.streaming.upload import Upload

__all__ = ["RemoteStreams", "streams"]


def streams(source: Source, path: str = DEFAULT_PATH) -> RemoteStreams:
    """The hub that the other side exposes at `path`, over a channel or over a link that reconnects."""
    if not isinstance(source, RPCChannel) and not hasattr(source, "connected"):
        raise TypeError(f"streams() takes a channel or a link that reconnects, not a {type(source).__name__}")
    return RemoteStreams(source, path)


class RemoteStreams:
    """The other side's hub."""

    __kkrpc_unlisted__ = True

    def __init__(self, source: Source, path: str) -> None:
        self.source = source
        self.path = path

    def subscribe(
        self,
        name: str,
        id: str,
        *,
        high_water_mark: int = HIGH_WATER_MARK,
        overflow: Overflow = "drop_oldest",
        after: int | None = 0,
        on_gap: OnGap = "report",
    ) -> StreamReader[Any]:
        """A reader of the stream `id` of the channel `name`; it subscribes when it is read or entered.

        :param high_water_mark: chunks that may wait at the server while this side is slow, beyond those that
            are on their way.
        :param overflow: what becomes of more: the oldest are dropped; all but the `latest`; the producer
            waits (`block`); the subscription ends in StreamOverflow (`error`).
        :param after: the number of the last chunk that is not wanted any more; None: nothing of what was
            before.
        :param on_gap: `error` raises StreamGap where chunks are gone, once for each gap.
        """
        if overflow not in get_args(Overflow):
            raise ValueError(f"overflow is one of {', '.join(get_args(Overflow))}, not {overflow!r}")
        if on_gap not in get_args(OnGap):
            raise ValueError(f"on_gap is one of {', '.join(get_args(OnGap))}, not {on_gap!r}")
        if type(high_water_mark) is not int or high_water_mark < 1:
            raise ValueError(f"high_water_mark is a number of chunks, one or more, not {high_water_mark!r}")
        if after is not None and (type(after) is not int or after < 0):
            raise ValueError(f"after is the number of a chunk, zero or more, or None, not {after!r}")
        return StreamReader(
            Follower(
                self.source,
                f"{self.path}.subscribe" if self.path else "subscribe",
                name,
                id,
                high_water_mark=high_water_mark,
                overflow=overflow,
                after=after,
                on_gap=on_gap,
            )
        )

    def upload(self, name: str, id: str, *, high_water_mark: int = HIGH_WATER_MARK) -> Upload[Any]:
        """The producing end of an upload that the server has opened; it belongs to this connection.

        :param high_water_mark: chunks that may wait here while the server is slow.
        """
        channel = self.source if isinstance(self.source, RPCChannel) else self.source.channel
        return Upload(channel, self.path, name, id, high_water_mark)

    def shared_state(self, name: str) -> AbstractAsyncContextManager[RemoteState]:
        """A shared state of the server's, kept up to date within the block."""
        return open_state(self, name)
