"""The half of a connection that is asked: the peer's calls, their answers, and the streams that it sends.

It owns what becomes of each call of the peer; see `core.connection` for the whole.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from kkrpc_py.core import events as ev
from kkrpc_py.core import hello as hi
from kkrpc_py.core.calls import IncomingCall
from kkrpc_py.core.half import NOTHING, Half
from kkrpc_py.core.tables import CALLEE, CalleeEvent, CalleeState, Do
from kkrpc_py.errors import (
    CallbackReleased,
    CallCancelled,
    ErrorValue,
    KkrpcError,
    LimitExceeded,
    NotSerializable,
    error_to_wire,
)
from kkrpc_py.wire import messages as m
from kkrpc_py.wire.classic import STREAM_PREFIX
from kkrpc_py.wire.codec import frame_size
from kkrpc_py.wire.shared import Shared

__all__ = ["Callee"]

# On the way of every call; looking up a member of an enum costs more than the step itself.
_RETURN, _CALLEE_DONE = CalleeEvent.RETURN, CalleeState.DONE

_SHOWN = 100
"""Characters of a callback's id, which a peer can make as long as a frame, that are told."""


class Callee(Half):
    """What the peer asks of this side."""

    def respond(self, call: IncomingCall, value: Any) -> None:
        """The handler returned `value` (CALL-3).

        Raises NotSerializable and LimitExceeded: say `fail` then.
        """
        if call.silent:
            self._step_callee(call, _RETURN)
            return
        message = m.Result(call.id, value)
        try:
            frame = self._encoder.encode(message)
        except NotSerializable as refusal:
            frame = self.passage.encode_lowered(message, refusal)
        self._step_callee(call, _RETURN)
        self.outbox.put(frame)

    def fail(self, call: IncomingCall, error: ErrorValue) -> None:
        """The handler, or the producer, raised (CALL-4, STR-4)."""
        forgotten = call.state is CalleeState.STOPPING_STREAM and hi.CANCEL not in call.features
        self._step_callee(call, CalleeEvent.RAISE)
        if forgotten or call.silent:
            return  # the caller has forgotten the id (CAN-2)
        frame = self._encode_error(call.id, error, call.lane is not None)
        if call.lane is not None:
            self.outbox.put_in(call.lane, frame)
        else:
            self.outbox.put(frame)

    def open_stream(self, call: IncomingCall) -> None:
        """The handler returned something to stream (STR-1)."""
        assert call.id is not None, "a stream needs an id to be told by"
        self._step_callee(call, CalleeEvent.OPEN)
        call.open()
        self._put(m.StreamOpened(call.id))

    def send_chunks(self, call: IncomingCall, values: list[Any]) -> int:
        """The producer has values: `call.room` at the most, one at the least (STR-2, BAT-1, CRD-3).

        Removes from `values` those that were sent, and returns the bytes of their frames. Some
        stay where the batch was too large for one frame and the credit ended with a part of it.
        Raises NotSerializable and LimitExceeded for the first value that cannot be sent; those
        before it are sent.
        """
        if self._step_callee(call, CalleeEvent.YIELD) is not Do.SEND:
            values.clear()
            return 0
        try:
            size = self._put_chunks(call, values)
        except KkrpcError:
            if len(values) == 1:
                raise
        else:
            values.clear()
            return size
        size = 0
        while values and call.room:
            size += self._put_chunks(call, values[:1])
            del values[0]
        return size

    def _put_chunks(self, call: IncomingCall, values: list[Any]) -> int:
        assert call.id is not None
        assert call.lane is not None
        message = m.Chunks(call.id, values)
        kind = type(values[0])
        if kind is Shared:
            frame = self.passage.encode_shared(message)
        elif self.passage.lowered_types and kind in self.passage.lowered_types:
            frame = self.passage.encode_lowered(message)
        else:
            frame = self.passage.encode(message)
        size = frame_size(frame)
        if call.window is not None:
            call.window.spend(len(values), size)
        self.outbox.put_in(call.lane, frame)
        return size

    def end_stream(self, call: IncomingCall, result: Any = UNSET) -> None:
        """The producer is exhausted (STR-3); `result` goes where it was agreed (RES-1).

        Raises NotSerializable and LimitExceeded for the result: say `fail` then.
        """
        assert call.id is not None
        assert call.lane is not None
        if not call.carries_result:
            result = UNSET
        frame = self.passage.encode(m.StreamEnd(call.id, result))
        self._step_callee(call, CalleeEvent.FINISH)
        self.outbox.put_in(call.lane, frame)

    def stopped(self, call: IncomingCall) -> None:
        """The cancelled handler or producer has cleaned up (CAN-4)."""
        streaming = call.state is CalleeState.STOPPING_STREAM
        self._step_callee(call, CalleeEvent.STOPPED)
        if call.silent:
            return
        if not streaming:
            self._put(m.Failure(call.id, error_to_wire(CallCancelled("the call was cancelled"))))
        elif hi.CANCEL in call.features:
            assert call.id is not None
            assert call.lane is not None
            self.outbox.put_in(call.lane, self._encoder.encode(m.StreamEnd(call.id, cancelled=True)))

    def offer(self) -> IncomingCall:
        """A stream of this side for the peer to read (ARG-2): open, as if the peer had called for it."""
        while (id := f"{STREAM_PREFIX}{self._new_id()}") in self.incoming:
            pass
        call = IncomingCall(
            id, "a stream argument", self._agreed or NOTHING, 0, CalleeState.STREAMING, argument=True
        )
        call.open()
        self.incoming[id] = call
        self._offered += 1
        return call

    def withdraw(self, call: IncomingCall) -> None:
        """The peer was not told of it after all."""
        self._step_callee(call, CalleeEvent.FINISH)

    def _step_callee(self, call: IncomingCall, event: CalleeEvent) -> Do:
        call.state, do = CALLEE[call.state, event]
        if call.state is _CALLEE_DONE:
            self._incoming_bytes -= call.size
            if call.argument:
                self._offered -= 1
            if call.id is None:
                self._anonymous -= 1
            else:
                self.incoming.pop(call.id, None)
        return do

    def _on_request(self, message: m.Request | m.Construct, size: int) -> ev.Event | None:
        id, method = message.id, message.method
        if id in self.incoming:
            self.passage.drop(message)
            return self._in_use(id)
        if method == hi.METHOD and type(message) is m.Request:
            return self._on_hello(message)
        try:
            args, kwargs = self._restored_args(message)
        except Exception as exc:
            self._refuse_value(id, exc)
            return None
        call = self._begin(id, method, size)
        if call is None:
            return self._too_many()
        if type(message) is m.Request:
            return ev.CallRequested(call, args, kwargs, message.meta)
        return ev.ConstructRequested(call, args, kwargs, message.meta)

    def _restored_args(self, message: m.Request | m.Construct | m.Callback) -> tuple[list[Any], Any]:
        if self.passage.decode is None and not message.callback_ids and not message.stream_ids:
            return message.args, message.kwargs
        if self.calls_back:
            args, kwargs = self.passage.restore([message.args, message.kwargs], message)
            return args, kwargs
        arguments = type(message) is not m.Callback
        return self.passage.restore(message.args, message, arguments=arguments), message.kwargs

    def _begin(
        self, id: m.Id | None, method: str, size: int, *, answered: bool = True
    ) -> IncomingCall | None:
        """Enter a call of the peer; None: it is one too many, and has been told so (CALL-7)."""
        if self._incoming_bytes + size > self.limits.call_bytes:
            if answered:
                self._put(m.Failure(id, error_to_wire(LimitExceeded("too large calls at once (call_bytes)"))))
            return None
        if len(self.incoming) - self._offered + self._anonymous >= self.limits.calls:
            if answered:
                self._put(m.Failure(id, error_to_wire(LimitExceeded("too many calls at once (calls)"))))
            return None
        call = IncomingCall(id, method, self._agreed if self._agreed is not None else NOTHING, size)
        self._incoming_bytes += size
        if id is None:
            self._anonymous += 1
        else:
            self.incoming[id] = call
        return call

    def _too_many(self) -> ev.Event:
        return self._violation("more calls at once than Limits.calls or Limits.call_bytes")

    def _on_get(self, message: m.Get, size: int) -> ev.Event | None:
        if message.id in self.incoming:
            return self._in_use(message.id)
        call = self._begin(message.id, ".".join(message.path), size)
        return self._too_many() if call is None else ev.PropertyRequested(call, message.path)

    def _on_set(self, message: m.Set, size: int) -> ev.Event | None:
        if message.id in self.incoming:
            self.passage.drop(message)
            return self._in_use(message.id)
        try:
            value = self.passage.restore(message.value, message)
        except Exception as exc:
            self._refuse_value(message.id, exc)
            return None
        call = self._begin(message.id, ".".join(message.path), size)
        return self._too_many() if call is None else ev.PropertyRequested(call, message.path, value)

    def _on_callback(self, message: m.Callback, size: int) -> ev.Event | None:
        """From a peer that knows `callback` it is a question as any other; a stock one waits for nothing."""
        answered = self.calls_back and message.id is not None
        if answered and message.id in self.incoming:
            self.passage.drop(message)
            return self._in_use(message.id)
        passed = self.passage.functions.get(message.callback_id)
        if passed is None:
            self.passage.drop(message)
            if not answered:
                if self.passage.functions.was_known(message.callback_id):
                    return None  # a stock peer is not told of a release
                return self._violation(f"a call of the unknown callback {_shown(message)}")
            error = CallbackReleased(f"the callback {_shown(message)} is not known, or not any more")
            self._refuse_value(message.id, error)
            return None
        try:
            args, kwargs = self._restored_args(message)
        except Exception as exc:
            if not answered:
                return self._violation(f"a call of a callback that cannot be read: {exc}")
            self._refuse_value(message.id, exc)
            return None
        name = f"callback {passed.id}"
        call = self._begin(message.id if answered else None, name, size, answered=answered)
        if call is None:
            return self._too_many()
        call.silent = not answered
        return ev.CallbackRequested(call, passed, args, kwargs)

    def _on_release(self, message: m.CallbackRelease, size: int) -> ev.Event | None:
        functions = self.passage.functions
        given = [functions.give_back(id, count) for id, count in message.counts.items()]
        return (
            None if all(given) else self._violation("a function was given back more often than it was passed")
        )

    def _refuse_value(self, id: m.Id | None, exc: Exception) -> None:
        """Answer what cannot be read, or called, with the error; it may quote what the peer sent."""
        self.outbox.put(self._encode_error(id, error_to_wire(exc), False))

    def _in_use(self, id: m.Id | None) -> ev.Event:
        """A question under the id of a running call: any answer would be taken for that call's (MSG-3)."""
        assert id is not None
        self._step_callee(self.incoming[id], CalleeEvent.REQUEST)
        return self._violation(f"a request under the id {id!r}, which is in use")

    def _refuse(self, id: m.Id | None, text: str) -> ev.Event | None:
        if id in self.incoming:
            return self._in_use(id)
        self.outbox.put(self._encode_error(id, ErrorValue("Error", text, bare=True), False))
        return None

    def _on_cancel(self, message: m.StreamCancel, size: int) -> ev.Event | None:
        call = self.incoming.get(message.id)
        if call is None:
            return None  # it crossed the end, which is its answer (CAN-5)
        if self._step_callee(call, CalleeEvent.CANCEL) is not Do.INTERRUPT:
            return None
        if call.lane is not None:
            self.outbox.drop(call.lane)
        return ev.Cancelled(call)

    def _on_ack(self, message: m.StreamAck, size: int) -> ev.Event | None:
        call = self.incoming.get(message.id)
        if call is None or hi.CREDIT not in call.features:
            return None  # it crossed the end, or means nothing here (CRD-6)
        match self._step_callee(call, CalleeEvent.ACK):
            case Do.GRANT:
                assert call.window is not None
                call.window.grant(message.chunks, message.bytes)
                return ev.Credited(call)
            case Do.VIOLATION:
                return self._violation(f"an acknowledgement for {call.method!r}, which is no stream")
        return None


def _shown(message: m.Callback) -> str:
    return repr(message.callback_id[:_SHOWN])
