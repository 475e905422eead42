"""Every state that a call can be in, and every step between them, as data.

The rules on top:

1. A call has two halves that never share a table: the caller's (`CALLER`) and the callee's
   (`CALLEE`). What one half does, the other learns from a message and from nothing else.
2. `table[state, event]` is the whole decision: the next state and what to do. A pair that is not
   in the table cannot happen: reaching it is a bug of this library, not of the peer.
3. Whatever the peer may send is an event, and every state has a row for each of them. What a
   peer must not send in a state has the action `VIOLATION`: counted, reported, no state changed.
4. `DONE` has no rows: a call that is done has left the table of calls, and its id is unknown.

This module owns no behaviour: `core.connection` carries the actions out.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

__all__ = ["CALLEE", "CALLER", "CalleeEvent", "CalleeState", "CallerEvent", "CallerState", "Do"]


class CallerState(enum.IntEnum):
    """The half that asked."""

    WAITING = enum.auto()
    """The request is sent, nothing has come back."""
    OPEN = enum.auto()
    """The answer was a stream; chunks arrive."""
    CANCELLING = enum.auto()
    """A cancel is sent that the callee will answer (CAN-3); until then the id is taken."""
    GIVEN_UP = enum.auto()
    """Nobody waits for the answer any more, and the callee cannot be told yet or at all."""
    DONE = enum.auto()


class CallerEvent(enum.IntEnum):
    """What happens to the caller's half: the peer's messages, then this side's decisions."""

    RESULT = enum.auto()
    FAILURE = enum.auto()
    OPENED = enum.auto()
    CHUNKS = enum.auto()
    END = enum.auto()
    STREAM_FAILURE = enum.auto()
    UNREADABLE = enum.auto()
    """A malformed answer, end or stream error: the peer is done with the call (MSG-4)."""
    CANCEL = enum.auto()
    """This side wants no more, and the peer answers cancels (the feature `cancel`)."""
    STOCK_CANCEL = enum.auto()
    """This side wants no more, and the peer answers none, or it is not known yet."""
    CANCEL_AGREED = enum.auto()
    """The hello was answered: from now on the peer answers cancels."""


class CalleeState(enum.IntEnum):
    """The half that was asked."""

    RUNNING = enum.auto()
    """The handler runs."""
    STREAMING = enum.auto()
    """The stream is announced; its producer runs."""
    STOPPING_CALL = enum.auto()
    """Cancelled before it answered; the handler cleans up."""
    STOPPING_STREAM = enum.auto()
    """Cancelled after the stream was announced; the producer cleans up."""
    DONE = enum.auto()


class CalleeEvent(enum.IntEnum):
    """What happens to the callee's half: the peer's messages, then this side's decisions."""

    CANCEL = enum.auto()
    ACK = enum.auto()
    REQUEST = enum.auto()
    """A second request under an id that is still in use."""
    RETURN = enum.auto()
    """The handler returned a value."""
    RAISE = enum.auto()
    """The handler, or the producer, raised."""
    OPEN = enum.auto()
    """The handler returned something to stream."""
    YIELD = enum.auto()
    """The producer has values."""
    FINISH = enum.auto()
    """The producer is exhausted."""
    STOPPED = enum.auto()
    """The cleanup after a cancel is done."""


class Do(enum.IntEnum):
    """What a transition does."""

    DELIVER = enum.auto()
    """Hand the message to whoever made the call."""
    SEND = enum.auto()
    """Write the message that says so to the peer."""
    INTERRUPT = enum.auto()
    """Cancel the running handler or producer."""
    GRANT = enum.auto()
    """Add the credit to the producer's window."""
    CONFIRM = enum.auto()
    """Tell whoever cancelled that the peer has stopped."""
    IGNORE = enum.auto()
    """Nothing: the message crossed this side's cancel."""
    VIOLATION = enum.auto()
    """Count it, report it, change nothing."""


CallerRow: TypeAlias = tuple[CallerState, Do]
CalleeRow: TypeAlias = tuple[CalleeState, Do]


def _caller() -> dict[tuple[CallerState, CallerEvent], CallerRow]:
    s, e = CallerState, CallerEvent
    return {
        (s.WAITING, e.RESULT): (s.DONE, Do.DELIVER),
        (s.WAITING, e.FAILURE): (s.DONE, Do.DELIVER),
        (s.WAITING, e.OPENED): (s.OPEN, Do.DELIVER),
        (s.WAITING, e.CHUNKS): (s.WAITING, Do.VIOLATION),
        (s.WAITING, e.END): (s.WAITING, Do.VIOLATION),
        (s.WAITING, e.STREAM_FAILURE): (s.WAITING, Do.VIOLATION),
        (s.WAITING, e.UNREADABLE): (s.DONE, Do.SEND),
        (s.WAITING, e.CANCEL): (s.CANCELLING, Do.SEND),
        (s.WAITING, e.STOCK_CANCEL): (s.GIVEN_UP, Do.IGNORE),
        (s.WAITING, e.CANCEL_AGREED): (s.WAITING, Do.IGNORE),
        (s.OPEN, e.RESULT): (s.OPEN, Do.VIOLATION),
        (s.OPEN, e.FAILURE): (s.OPEN, Do.VIOLATION),
        (s.OPEN, e.OPENED): (s.OPEN, Do.VIOLATION),
        (s.OPEN, e.CHUNKS): (s.OPEN, Do.DELIVER),
        (s.OPEN, e.END): (s.DONE, Do.DELIVER),
        (s.OPEN, e.STREAM_FAILURE): (s.DONE, Do.DELIVER),
        (s.OPEN, e.UNREADABLE): (s.DONE, Do.SEND),
        (s.OPEN, e.CANCEL): (s.CANCELLING, Do.SEND),
        (s.OPEN, e.STOCK_CANCEL): (s.DONE, Do.SEND),
        (s.CANCELLING, e.RESULT): (s.DONE, Do.CONFIRM),
        (s.CANCELLING, e.FAILURE): (s.DONE, Do.CONFIRM),
        (s.CANCELLING, e.OPENED): (s.CANCELLING, Do.IGNORE),
        (s.CANCELLING, e.CHUNKS): (s.CANCELLING, Do.IGNORE),
        (s.CANCELLING, e.END): (s.DONE, Do.CONFIRM),
        (s.CANCELLING, e.STREAM_FAILURE): (s.DONE, Do.CONFIRM),
        (s.CANCELLING, e.UNREADABLE): (s.DONE, Do.CONFIRM),
        (s.GIVEN_UP, e.RESULT): (s.DONE, Do.CONFIRM),
        (s.GIVEN_UP, e.FAILURE): (s.DONE, Do.CONFIRM),
        # Only now is there something that a stock peer can be told to stop.
        (s.GIVEN_UP, e.OPENED): (s.DONE, Do.SEND),
        (s.GIVEN_UP, e.CHUNKS): (s.GIVEN_UP, Do.VIOLATION),
        (s.GIVEN_UP, e.END): (s.GIVEN_UP, Do.VIOLATION),
        (s.GIVEN_UP, e.STREAM_FAILURE): (s.GIVEN_UP, Do.VIOLATION),
        (s.GIVEN_UP, e.UNREADABLE): (s.DONE, Do.CONFIRM),
        (s.GIVEN_UP, e.STOCK_CANCEL): (s.GIVEN_UP, Do.IGNORE),
        (s.GIVEN_UP, e.CANCEL_AGREED): (s.CANCELLING, Do.SEND),
    }


def _callee() -> dict[tuple[CalleeState, CalleeEvent], CalleeRow]:
    s, e = CalleeState, CalleeEvent
    return {
        (s.RUNNING, e.CANCEL): (s.STOPPING_CALL, Do.INTERRUPT),
        (s.RUNNING, e.ACK): (s.RUNNING, Do.VIOLATION),
        (s.RUNNING, e.REQUEST): (s.RUNNING, Do.VIOLATION),
        (s.RUNNING, e.RETURN): (s.DONE, Do.SEND),
        (s.RUNNING, e.RAISE): (s.DONE, Do.SEND),
        (s.RUNNING, e.OPEN): (s.STREAMING, Do.SEND),
        (s.STREAMING, e.CANCEL): (s.STOPPING_STREAM, Do.INTERRUPT),
        (s.STREAMING, e.ACK): (s.STREAMING, Do.GRANT),
        (s.STREAMING, e.REQUEST): (s.STREAMING, Do.VIOLATION),
        (s.STREAMING, e.YIELD): (s.STREAMING, Do.SEND),
        (s.STREAMING, e.FINISH): (s.DONE, Do.SEND),
        (s.STREAMING, e.RAISE): (s.DONE, Do.SEND),
        (s.STOPPING_CALL, e.CANCEL): (s.STOPPING_CALL, Do.IGNORE),
        (s.STOPPING_CALL, e.ACK): (s.STOPPING_CALL, Do.VIOLATION),
        (s.STOPPING_CALL, e.REQUEST): (s.STOPPING_CALL, Do.VIOLATION),
        (s.STOPPING_CALL, e.RAISE): (s.DONE, Do.SEND),
        (s.STOPPING_CALL, e.STOPPED): (s.DONE, Do.SEND),
        (s.STOPPING_STREAM, e.CANCEL): (s.STOPPING_STREAM, Do.IGNORE),
        (s.STOPPING_STREAM, e.ACK): (s.STOPPING_STREAM, Do.IGNORE),
        (s.STOPPING_STREAM, e.REQUEST): (s.STOPPING_STREAM, Do.VIOLATION),
        (s.STOPPING_STREAM, e.YIELD): (s.STOPPING_STREAM, Do.IGNORE),
        (s.STOPPING_STREAM, e.RAISE): (s.DONE, Do.SEND),
        (s.STOPPING_STREAM, e.STOPPED): (s.DONE, Do.SEND),
    }


CALLER = _caller()
CALLEE = _callee()
