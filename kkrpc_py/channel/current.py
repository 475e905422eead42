"""Which channel a handler runs for. It owns the context variable and nothing else."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kkrpc_py.channel.channel import RPCChannel

__all__ = ["current", "current_channel"]

current: ContextVar[RPCChannel] = ContextVar("kkrpc_py channel")


def current_channel() -> RPCChannel:
    """The channel whose peer called the running handler. Raises LookupError outside of handlers."""
    try:
        return current.get()
    except LookupError:
        raise LookupError("there is no current channel: only a handler that a peer called has one") from None
