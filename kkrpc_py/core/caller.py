"""The half of a connection that asks: calls, their answers, and the streams that it reads.

It owns what becomes of each call of this side; see `core.connection` for the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET

from kkrpc_py.core import events as ev
from kkrpc_py.core import hello as hi
from kkrpc_py.core.calls import OutgoingCall
from kkrpc_py.core.credit import ReceiveWindow
from kkrpc_py.core.half import NOTHING, Half
from kkrpc_py.core.tables import CALLER, CallerEvent, CallerState, Do
from kkrpc_py.errors import KkrpcError, LimitExceeded, NotSerializable, ProtocolError
from kkrpc_py.wire import messages as m

__all__ = ["Caller"]

# On the way of every call; looking up a member of an enum costs more than the step itself.
_RESULT, _DELIVER, _CALLER_DONE = CallerEvent.RESULT, Do.DELIVER, CallerState.DONE


class Caller(Half):
    """What this side asks of the peer."""

    def call(self, method: str, args: list[Any], owner: Any = None) -> OutgoingCall:
        """Send a request (CALL-1).

        Raises NotSerializable and LimitExceeded, and what the `encode` hook raises; then nothing was sent.
        """
        message = m.Request(id := self._new_id(), method, args)
        if self._lowered_methods and method in self._lowered_methods:
            frame = self.passage.encode_lowered(message)
        else:
            try:
                frame = self._encoder.encode(message)
            except NotSerializable as refusal:
                frame = self.passage.encode_lowered(message, refusal)
        call = self.outgoing[id] = OutgoingCall(id, method, self._greeted, owner)
        self.outbox.put(frame)
        return call

    def ask(self, question: m.Request | m.Construct | m.Get | m.Set | m.Callback, owner: Any) -> OutgoingCall:
        """Send a question of any kind, under an id of its own; raises as `call` does.

        Keyword arguments go to a peer that takes them, and are refused toward others; metadata goes to one
        that takes it, and is left out toward others (KWA-2, META-2).
        """
        agreed = self._agreed if self._agreed is not None else NOTHING
        changed: dict[str, Any] = {"id": (id := self._new_id())}
        if not isinstance(question, m.Get | m.Set):
            if question.kwargs and hi.KWARGS not in agreed:
                raise NotSerializable(
                    "dict",
                    "kwargs",
                    "a stock peer takes positional arguments alone",
                    needs_hello=self.pending,
                )
            name = question.callback_id if isinstance(question, m.Callback) else question.method
            if not isinstance(question, m.Callback) and hi.METADATA not in agreed:
                changed["meta"] = None
        else:
            name = ".".join(question.path)
        frame = self.passage.encode(msgspec.structs.replace(question, **changed))
        call = self.outgoing[id] = OutgoingCall(id, name, self._greeted, owner)
        self.outbox.put(frame)
        return call

    def notify(self, callback_id: str, args: list[Any], kwargs: dict[str, Any] | None = None) -> None:
        """Call a function of the peer and wait for nothing (CBK-4); raises as `call` does."""
        if kwargs and not self.calls_back:
            raise NotSerializable("dict", "kwargs", "a stock peer takes positional arguments alone")
        if self.outbox.size > self.limits.send_max // 2:  # beyond the whole of it the channel closes (CLS-5)
            raise LimitExceeded("the peer does not read what it is told (send_max)")
        # A peer that answers callbacks answers those alone that have an id; a stock one looks at none.
        id = None if self.calls_back or self.pending else self._new_id()
        self.outbox.put(self.passage.encode(m.Callback(id, callback_id, args, kwargs=kwargs or None)))

    def give_back(self, counts: dict[str, int]) -> None:
        """Say that this side holds these functions no more, in as many messages as it takes (CBK-6)."""
        if not counts or not self.calls_back:
            return
        try:
            self._put(m.CallbackRelease(counts))
        except LimitExceeded:
            if len(counts) == 1:  # not even its id fits into a frame: it stays the peer's
                return
            ids = list(counts)
            for part in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
                self.give_back({id: counts[id] for id in part})

    def cancel(self, call: OutgoingCall) -> bool:
        """Stop `call`: this side wants no more of it (CAN-1).

        Returns True where the peer will confirm, by `Stopped` with `cancelled`. Otherwise nobody
        need wait; one `Stopped` may still come, when a call that was given up is answered (CAN-6).
        """
        if call.state is CallerState.DONE:
            return False
        confirms = self._agreed is not None and hi.CANCEL in self._agreed and call.agreed
        if call.state is CallerState.CANCELLING:
            return True
        if self._step_caller(call, CallerEvent.CANCEL if confirms else CallerEvent.STOCK_CANCEL) is Do.SEND:
            self._put(m.StreamCancel(call.id))
            if not confirms:
                self._leave(call.id)
        return confirms

    def unread(self, call: OutgoingCall) -> None:
        """What has arrived of `call` and was not taken is dropped."""
        if call.argument:
            self._argument_bytes -= call.buffered
            call.buffered = 0

    def taken(self, call: OutgoingCall, chunks: int, size: int) -> bool:
        """The application took `chunks` values of `call`, one or more, from frames of `size` bytes (CRD-5).

        Returns True where a grant was put out for the peer.
        """
        if call.argument:
            self._argument_bytes -= size
        if call.argument or call.window is None:
            call.buffered -= size
        if call.window is None:
            return False
        grant = call.window.taken(chunks, size)
        if grant is None or call.state is not CallerState.OPEN:
            return False
        self._put(m.StreamAck(call.id, *grant))
        return True

    def accept(self, id: str) -> OutgoingCall:
        """A stream of the peer that a message has named (ARG-3). Raises ProtocolError and LimitExceeded."""
        if id in self.outgoing:
            raise ProtocolError(f"a second stream under the id {id!r}")
        if self._arguments >= self.limits.calls:
            self._put(m.StreamCancel(id))
            self._leave(id)
            raise LimitExceeded("too many streams as arguments at once (calls)")
        call = OutgoingCall(id, "a stream argument", True, None, CallerState.OPEN, argument=True)
        if self._agreed is not None and hi.CREDIT in self._agreed:
            call.window = ReceiveWindow(self.limits.stream_buffer)
        self._arguments += 1
        self.outgoing[id] = call
        return call

    def _step_caller(self, call: OutgoingCall, event: CallerEvent) -> Do:
        call.state, do = CALLER[call.state, event]
        if call.state is _CALLER_DONE:
            self.outgoing.pop(call.id, None)
            if call.argument:
                self._arguments -= 1
        return do

    def _on_result(self, message: m.Result, size: int) -> ev.Event | None:
        if message.id == self._hello_id and message.id is not None:
            return self._on_hello_answer(message.value)
        value = message.value
        if self.passage.decode is not None or message.callback_ids or message.stream_ids:
            return self._restored_answer(message, value, _RESULT, ev.Returned)
        return self._answered(message.id, _RESULT, ev.Returned, None if value is UNSET else value)

    def _on_failure(self, message: m.Failure, size: int) -> ev.Event | None:
        if message.id == self._hello_id and message.id is not None:
            return self._on_hello_answer(None)
        return self._answered(message.id, CallerEvent.FAILURE, ev.Failed, message.error)

    def _on_opened(self, message: m.StreamOpened, size: int) -> ev.Event | None:
        if message.id == self._hello_id:
            self._put(m.StreamCancel(message.id))
            self._leave(message.id)
            return self._on_hello_answer(None)
        return self._answered(message.id, CallerEvent.OPENED, self._opened)

    def _opened(self, call: OutgoingCall) -> ev.Event:
        # What is in force for the stream is decided here, once, for both ends alike (HEL-5).
        features = self._agreed if call.agreed and self._agreed is not None else None
        call.agreed = features is not None
        if features is not None and hi.CREDIT in features:
            call.window = ReceiveWindow(self.limits.stream_buffer)
        return ev.Opened(call)

    def _on_chunks(self, message: m.Chunks, size: int) -> ev.Event | None:
        call = self.outgoing.get(message.id)
        if call is None:
            self.passage.drop(message)
            if message.id in self._left:
                return None
            return self._violation(f"a chunk for the unknown id {message.id!r}")
        do = self._step_caller(call, CallerEvent.CHUNKS)
        if do is not _DELIVER:
            self.passage.drop(message)
            if do is Do.VIOLATION:
                return self._violation(f"a chunk for {call.method!r} before its answer")
            return None
        values = message.values
        if self.passage.decode is not None or message.callback_ids or message.stream_ids:
            try:
                values = self.passage.restore(values, message)
            except Exception as exc:
                return self._refuse_stream(call, _as_ours(exc))
        if call.argument and self._argument_bytes + size > self.limits.call_bytes:
            return self._refuse_stream(
                call, LimitExceeded("too much of streams within values lies unread (call_bytes)")
            )
        if call.window is not None:
            if not call.window.arrived(len(values), size):
                self.violations += 1
                return self._refuse_stream(
                    call, ProtocolError("the peer sent more chunks than it had credit for")
                )
        elif call.buffered + size > self.limits.stock_stream_buffer:
            return self._refuse_stream(
                call, LimitExceeded("the stream's values were not read in time (stock_stream_buffer)")
            )
        if call.argument:
            self._argument_bytes += size
        if call.argument or call.window is None:
            call.buffered += size
        return ev.Received(call, values, size)

    def _refuse_stream(self, call: OutgoingCall, error: KkrpcError) -> ev.Event:
        self.cancel(call)
        return ev.Failed(call, error)

    def _on_end(self, message: m.StreamEnd, size: int) -> ev.Event | None:
        result = None if message.result is UNSET else message.result
        if self.passage.decode is not None or message.callback_ids or message.stream_ids:
            return self._restored_answer(message, result, CallerEvent.END, ev.Stopped, message.cancelled)
        return self._answered(message.id, CallerEvent.END, ev.Stopped, result, message.cancelled)

    def _restored_answer(
        self,
        message: m.Result | m.StreamEnd,
        value: Any,
        event: CallerEvent,
        deliver: Callable[..., ev.Event],
        *what: Any,
    ) -> ev.Event | None:
        try:
            value = self.passage.restore(None if value is UNSET else value, message)
        except Exception as exc:
            return self._answered(message.id, event, ev.Failed, _as_ours(exc))
        return self._answered(message.id, event, deliver, value, *what)

    def _on_stream_failure(self, message: m.StreamFailure, size: int) -> ev.Event | None:
        return self._answered(message.id, CallerEvent.STREAM_FAILURE, ev.Failed, message.error)

    def _answered(
        self, id: m.Id | None, event: CallerEvent, deliver: Callable[..., ev.Event], *what: Any
    ) -> ev.Event | None:
        """The peer's answer to a call: `deliver(call, *what)` where somebody waits for it."""
        call = self.outgoing.get(id) if id is not None else None
        if call is None:
            if id in self._left:
                del self._left[id]
                return None
            return self._violation(f"{event.name.lower()} for the unknown id {id!r}")
        do = self._step_caller(call, event)
        if do is _DELIVER:
            return deliver(call, *what)
        match do:
            case Do.CONFIRM:
                return ev.Stopped(call, None, True)
            case Do.SEND:  # given up before the peer said that it is a stream
                self._put(m.StreamCancel(call.id))
                self._leave(call.id)
                return ev.Stopped(call, None, True)
            case Do.VIOLATION:
                return self._violation(f"{event.name.lower()} for {call.method!r} in state {call.state.name}")
        return None


def _as_ours(exc: Exception) -> KkrpcError:
    """What kept a message from being read, for whoever waits for it."""
    if isinstance(exc, KkrpcError):
        return exc.with_traceback(None)  # its frames hold all that came in the same read
    error = ProtocolError(f"the value that came could not be read: {type(exc).__name__}: {exc}")
    error.__cause__ = exc.with_traceback(None)
    return error
