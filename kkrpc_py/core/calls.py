"""One call, as each of its two ends keeps it.

This module owns the data of a call in flight; the steps between its states are in `core.tables`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kkrpc_py.core.credit import ReceiveWindow, SendWindow
from kkrpc_py.core.hello import BATCH, CREDIT, RESULT
from kkrpc_py.core.outbox import StreamLane
from kkrpc_py.core.tables import CalleeState, CallerState
from kkrpc_py.wire.messages import Id

__all__ = ["MAX_BATCH", "IncomingCall", "OutgoingCall"]

MAX_BATCH = 256
"""Values in one chunk message (BAT-2): more would cost the other calls their latency."""


_STOPPING = frozenset((CalleeState.STOPPING_CALL, CalleeState.STOPPING_STREAM))


class OutgoingCall(msgspec.Struct, eq=False):
    """A call that this side made."""

    id: Id
    method: str
    agreed: bool
    """The request followed this side's hello, so the extensions may hold for it (HEL-5)."""
    owner: Any
    """Whatever the layer above ties to the call; the core never looks at it."""
    state: CallerState = CallerState.WAITING
    window: ReceiveWindow | None = None
    """Set once a credited stream is open."""
    buffered: int = 0
    """Bytes of frames that lie unread, where the producer knows no credit."""
    argument: bool = False
    """It is a stream that the peer passed within a value, and its id is the peer's (ARG-1)."""


class IncomingCall(msgspec.Struct, eq=False):
    """A call that the peer made."""

    id: Id | None
    method: str
    features: frozenset[str]
    """The extensions that hold for this call (HEL-5)."""
    size: int
    """Bytes of the request's frame: what its arguments may hold of memory, roughly."""
    state: CalleeState = CalleeState.RUNNING
    owner: Any = None
    """Whatever the layer above ties to the call; the core never looks at it."""
    lane: StreamLane | None = None
    """Set once a stream is open."""
    window: SendWindow | None = None
    """Set once a credited stream is open."""
    argument: bool = False
    """It is a stream that this side has passed within a value (ARG-2)."""
    silent: bool = False
    """Nobody waits for its answer: a stock peer's call of a callback (CBK-4)."""

    def stopping(self) -> bool:
        """The peer has cancelled this call."""
        return self.state in _STOPPING

    def done(self) -> bool:
        """It is answered to the end."""
        return self.state is CalleeState.DONE

    @property
    def room(self) -> int:
        """Values that the next chunk message may hold; 0: the credit is used up."""
        most = MAX_BATCH if BATCH in self.features else 1
        return most if self.window is None else min(self.window.room, most)

    @property
    def carries_result(self) -> bool:
        return RESULT in self.features

    def open(self) -> None:
        self.lane = StreamLane()
        if CREDIT in self.features:
            self.window = SendWindow()
