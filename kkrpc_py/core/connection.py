"""The protocol's state, without I/O: bytes in, events out; decisions in, bytes out.

A `Connection` owns the calls and streams of both directions by id, the credit, and what is
agreed with the peer. It takes no time and makes no task; whoever runs it carries the bytes.
Reading (`receive_data`) and deciding (`call`, `respond`, …) may alternate in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import UNSET

from kkrpc_py.core import events as ev
from kkrpc_py.core import hello as hi
from kkrpc_py.core.calls import IncomingCall, OutgoingCall
from kkrpc_py.core.credit import ReceiveWindow
from kkrpc_py.core.outbox import Outbox
from kkrpc_py.core.passing import Holder, Passage
from kkrpc_py.core.tables import CALLEE, CALLER, CalleeEvent, CalleeState, CallerEvent, CallerState, Do
from kkrpc_py.errors import (
    CallbackReleased,
    CallCancelled,
    ErrorValue,
    KkrpcError,
    LimitExceeded,
    NotSerializable,
    ProtocolError,
    error_to_wire,
)
from kkrpc_py.limits import Limits
from kkrpc_py.wire import messages as m
from kkrpc_py.wire.classic import STREAM_PREFIX
from kkrpc_py.wire.codec import Codec, Decoder, Encoder, frame_size
from kkrpc_py.wire.lowering import DecodeHook, EncodeHook

__all__ = ["Codec", "Connection"]

# On the way of every call; looking up a member of an enum costs more than the step itself.
_RESULT, _RETURN, _DELIVER = CallerEvent.RESULT, CalleeEvent.RETURN, Do.DELIVER
_CALLER_DONE, _CALLEE_DONE = CallerState.DONE, CalleeState.DONE

_NOTHING: frozenset[str] = frozenset()
_FEATURES = frozenset(
    (hi.CREDIT, hi.BATCH, hi.RESULT, hi.CANCEL, hi.CALLBACK, hi.STREAM_ARGUMENTS, hi.KWARGS, hi.METADATA)
)
_LEFT_STREAMS = 1024
_ASKING = frozenset({"request", "construct", "get", "set"})
_ANSWERING = frozenset({"response", "stream-end", "stream-error"})
_ERROR_NAME = 100


class Connection:
    """Both halves of every call on one byte stream.

    Any exception but `NotSerializable` and `LimitExceeded`, from the methods that say so, is a
    bug of this library.
    """

    def __init__(
        self,
        *,
        codec: Codec = "auto",
        hello: bool = True,
        limits: Limits | None = None,
        holder: Holder | None = None,
        encode: EncodeHook | None = None,
        decode: DecodeHook | None = None,
    ) -> None:
        self.limits = limits if limits is not None else Limits()
        self.outbox = Outbox()
        self.outgoing: dict[m.Id, OutgoingCall] = {}
        self.incoming: dict[m.Id, IncomingCall] = {}
        self.violations = 0
        """Rules broken by the peer that did not end the connection."""
        self.noise = 0
        """Lines that were no message."""
        self._features = _FEATURES | ({hi.CBOR} if codec in ("auto", "cbor") else _NOTHING)
        self._agreed: frozenset[str] | None = None
        self._encoder = Encoder(codec, self.limits)
        self._decoder = Decoder(self.limits)
        self.passage = Passage(self._encoder, self.limits, self, holder, encode, decode)
        self._arguments = 0
        self._anonymous = 0
        self._incoming_bytes = 0
        self._next_id = 0
        self._left: dict[m.Id, None] = {}
        """Streams of a stock peer that were cancelled lately: what still comes is no fault of the peer."""
        self._hello_id: m.Id | None = None
        self._greeted = False
        self._handlers: dict[type[Any], Callable[[Any, int], ev.Event | None]] = {
            m.Request: self._on_request,
            m.Construct: self._on_construct,
            m.Get: self._on_get,
            m.Set: self._on_set,
            m.Callback: self._on_callback,
            m.CallbackRelease: self._on_release,
            m.Result: self._on_result,
            m.Failure: self._on_failure,
            m.StreamOpened: self._on_opened,
            m.Chunks: self._on_chunks,
            m.StreamEnd: self._on_end,
            m.StreamFailure: self._on_stream_failure,
            m.StreamCancel: self._on_cancel,
            m.StreamAck: self._on_ack,
            m.Malformed: self._on_malformed,
            m.Noise: self._on_noise,
            m.Broken: self._on_broken,
        }
        if hello:
            self._send_hello()

    # What is agreed ------------------------------------------------------------------------

    @property
    def agreed(self) -> frozenset[str] | None:
        """The features that both named; None: not known (yet), treat the peer as stock."""
        return self._agreed

    @property
    def stock(self) -> bool:
        """The peer is not known to be kkrpc_py."""
        return self._encoder.stock

    @property
    def pending(self) -> bool:
        """The hello is sent and not answered."""
        return self._encoder.pending

    def give_up_hello(self) -> None:
        """The answer to the hello is overdue: speak stock. One that still comes is taken (HEL-6)."""
        self._encoder.pending = False

    def _send_hello(self) -> None:
        self._hello_id = self._new_id()
        self._greeted = True
        self._encoder.pending = True
        self._put(m.Request(self._hello_id, hi.METHOD, [hi.hello_payload(self._features)]))

    def _agree(self, theirs: frozenset[str]) -> None:
        """The peer has named its features, by its hello or its answer to ours (HEL-3)."""
        self._encoder.pending = False
        if self._agreed is not None:
            return
        self._agreed = self.passage.agreed = self._features & theirs
        self._encoder.stock = False
        if hi.CBOR in self._agreed:
            self._encoder.cbor = True
        if hi.CANCEL in self._agreed:
            for call in [call for call in self.outgoing.values() if call.agreed]:
                if self._step_caller(call, CallerEvent.CANCEL_AGREED) is Do.SEND:
                    self._put(m.StreamCancel(call.id))

    # Bytes -----------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[ev.Event]:
        """What the bytes that came next mean."""
        return self._handle(self._decoder.receive(data))

    def receive_eof(self) -> list[ev.Event]:
        """The peer sends no more. `Lost` comes only where it stopped inside a frame."""
        return self._handle(self._decoder.receive_eof())

    def data_to_send(self, most: int = 1 << 18) -> list[bytes]:
        """The next whole frames to write, about `most` bytes together."""
        return self.outbox.take(most)

    def _handle(self, received: Iterable[tuple[m.Message | m.Noise | m.Broken, int]]) -> list[ev.Event]:
        happened: list[ev.Event] = []
        handlers = self._handlers
        for message, size in received:
            event = handlers[type(message)](message, size)
            if event is not None:
                happened.append(event)
        lost = happened and type(happened[-1]) is ev.Lost
        if self.outbox.control_size > self.limits.send_max and not lost:
            happened.append(
                ev.Lost(LimitExceeded("the peer does not read the answers to what it sends (send_max)"))
            )
        return happened

    # The caller's half ---------------------------------------------------------------------

    def call(self, method: str, args: list[Any], owner: Any = None) -> OutgoingCall:
        """Send a request (CALL-1).

        Raises NotSerializable and LimitExceeded, and what the `encode` hook raises; then nothing was sent.
        """
        message = m.Request(id := self._new_id(), method, args)
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
        agreed = self._agreed if self._agreed is not None else _NOTHING
        changed: dict[str, Any] = {"id": (id := self._new_id())}
        if not isinstance(question, m.Get | m.Set):
            if question.kwargs and hi.KWARGS not in agreed:
                raise NotSerializable(
                    "dict", "kwargs", "a stock peer takes positional arguments alone", needs_cbor=self.pending
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

    @property
    def calls_back(self) -> bool:
        """The peer answers calls of its functions, and takes them back when they are not needed."""
        return self._agreed is not None and hi.CALLBACK in self._agreed

    @property
    def takes_metadata(self) -> bool:
        return self._agreed is not None and hi.METADATA in self._agreed

    def notify(self, callback_id: str, args: list[Any], kwargs: dict[str, Any] | None = None) -> None:
        """Call a function of the peer and wait for nothing (CBK-4); raises as `call` does."""
        if kwargs and not self.calls_back:
            raise NotSerializable("dict", "kwargs", "a stock peer takes positional arguments alone")
        # An id that nobody waits for: the answer of a peer that gives one is not missed.
        id = self._new_id()
        self.outbox.put(self.passage.encode(m.Callback(id, callback_id, args, kwargs=kwargs or None)))
        if self.calls_back:
            self._leave(id)

    def give_back(self, counts: dict[str, int]) -> None:
        """Say that this side holds these functions of the peer no more (CBK-6)."""
        if counts and self.calls_back:
            self._put(m.CallbackRelease(counts))

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

    def _leave(self, id: m.Id) -> None:
        self._left[id] = None
        if len(self._left) > _LEFT_STREAMS:
            del self._left[next(iter(self._left))]

    def taken(self, call: OutgoingCall, chunks: int, size: int) -> bool:
        """The application took `chunks` values of `call`, one or more, from frames of `size` bytes (CRD-5).

        Returns True where a grant was put out for the peer.
        """
        if call.window is None:
            call.buffered -= size
            return False
        grant = call.window.taken(chunks, size)
        if grant is None or call.state is not CallerState.OPEN:
            return False
        self._put(m.StreamAck(call.id, *grant))
        return True

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

    def _on_hello_answer(self, value: Any) -> ev.Event | None:
        self._hello_id = None
        theirs = hi.read_hello(value)
        if theirs is not None:
            self._agree(theirs)
        self._encoder.pending = False
        return ev.Settled()

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
            self._drop(message, message.values)
            if message.id in self._left:
                return None
            return self._violation(f"a chunk for the unknown id {message.id!r}")
        do = self._step_caller(call, CallerEvent.CHUNKS)
        values = message.values
        if self.passage.decode is not None or message.callback_ids or message.stream_ids:
            try:
                values = self.passage.restore(values, message)
            except Exception as exc:
                return self._refuse_stream(call, _as_ours(exc))
        if do is _DELIVER:
            if call.window is not None:
                if not call.window.arrived(len(values), size):
                    self.violations += 1
                    return self._refuse_stream(
                        call, ProtocolError("the peer sent more chunks than it had credit for")
                    )
            else:
                call.buffered += size
                if call.buffered > self.limits.stock_stream_buffer:
                    return self._refuse_stream(
                        call, LimitExceeded("the stream's values were not read in time (stock_stream_buffer)")
                    )
            return ev.Received(call, values, size)
        return (
            self._violation(f"a chunk for {call.method!r} before its answer") if do is Do.VIOLATION else None
        )

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

    def _drop(self, message: m.Chunks, value: Any) -> None:
        """What a message names that nobody waits for goes back to the peer."""
        if message.callback_ids or message.stream_ids:
            try:
                self.passage.restore(value, message)
            except Exception:  # it would have been refused
                return

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

    # The callee's half ---------------------------------------------------------------------

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
        except (NotSerializable, LimitExceeded):
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
        if self.passage.lowered_types and type(values[0]) in self.passage.lowered_types:
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

    def _step_callee(self, call: IncomingCall, event: CalleeEvent) -> Do:
        call.state, do = CALLEE[call.state, event]
        if call.state is _CALLEE_DONE:
            self._incoming_bytes -= call.size
            if call.id is None:
                self._anonymous -= 1
            else:
                self.incoming.pop(call.id, None)
        return do

    def _on_request(self, message: m.Request | m.Construct, size: int) -> ev.Event | None:
        id, method = message.id, message.method
        if id in self.incoming:
            return self._in_use(id)
        if method == hi.METHOD and type(message) is m.Request:
            return self._on_hello(message)
        try:
            args, kwargs = self._restored_args(message)
        except Exception as exc:
            self._put(m.Failure(id, error_to_wire(exc)))
            return None
        call = self._begin(id, method, size)
        if call is None:
            return self._violation("more calls at once than Limits.calls or Limits.call_bytes")
        if type(message) is m.Request:
            return ev.CallRequested(call, args, kwargs, message.meta)
        return ev.ConstructRequested(call, args, kwargs, message.meta)

    _on_construct = _on_request

    def _restored_args(self, message: m.Request | m.Construct | m.Callback) -> tuple[list[Any], Any]:
        if self.passage.decode is None and not message.callback_ids and not message.stream_ids:
            return message.args, message.kwargs
        if self.calls_back:
            args, kwargs = self.passage.restore([message.args, message.kwargs], message)
            return args, kwargs
        arguments = type(message) is not m.Callback
        return self.passage.restore(message.args, message, arguments=arguments), message.kwargs

    def _begin(self, id: m.Id | None, method: str, size: int) -> IncomingCall | None:
        """Enter a call of the peer; None: it is one too many, and has been told so (CALL-7)."""
        if self._incoming_bytes + size > self.limits.call_bytes:
            self._put(m.Failure(id, error_to_wire(LimitExceeded("too large calls at once (call_bytes)"))))
            return None
        if len(self.incoming) + self._anonymous >= self.limits.calls:
            self._put(m.Failure(id, error_to_wire(LimitExceeded("too many calls at once (calls)"))))
            return None
        call = IncomingCall(id, method, self._agreed if self._agreed is not None else _NOTHING, size)
        self._incoming_bytes += size
        if id is None:
            self._anonymous += 1
        else:
            self.incoming[id] = call
        return call

    def _on_get(self, message: m.Get, size: int) -> ev.Event | None:
        if message.id in self.incoming:
            return self._in_use(message.id)
        call = self._begin(message.id, ".".join(message.path), size)
        return None if call is None else ev.PropertyRequested(call, message.path)

    def _on_set(self, message: m.Set, size: int) -> ev.Event | None:
        if message.id in self.incoming:
            return self._in_use(message.id)
        try:
            value = self.passage.restore(message.value, message)
        except Exception as exc:
            self._put(m.Failure(message.id, error_to_wire(exc)))
            return None
        call = self._begin(message.id, ".".join(message.path), size)
        return None if call is None else ev.PropertyRequested(call, message.path, value)

    def _on_callback(self, message: m.Callback, size: int) -> ev.Event | None:
        """From a peer that knows `callback` it is a question like any other; a stock one waits for nothing."""
        answered = self.calls_back and message.id is not None
        if answered and message.id in self.incoming:
            return self._in_use(message.id)
        passed = self.passage.functions.get(message.callback_id)
        if passed is None:
            if not answered:
                return self._violation(f"a call of the unknown callback {message.callback_id!r}")
            error = CallbackReleased(f"the callback {message.callback_id!r} is not known, or not any more")
            self._put(m.Failure(message.id, error_to_wire(error)))
            return None
        try:
            args, kwargs = self._restored_args(message)
        except Exception as exc:
            if not answered:
                return self._violation(f"a call of a callback that cannot be read: {exc}")
            self._put(m.Failure(message.id, error_to_wire(exc)))
            return None
        call = self._begin(message.id if answered else None, f"callback {passed.id}", size)
        if call is None:
            return self._violation("more calls at once than Limits.calls or Limits.call_bytes")
        call.silent = not answered
        return ev.CallbackRequested(call, passed, args, kwargs)

    def _on_release(self, message: m.CallbackRelease, size: int) -> ev.Event | None:
        functions = self.passage.functions
        given = [functions.give_back(id, count) for id, count in message.counts.items()]
        return (
            None if all(given) else self._violation("a function was given back more often than it was passed")
        )

    # Streams within values -----------------------------------------------------------------

    def offer(self) -> IncomingCall:
        """A stream of this side for the peer to read (ARG-2): open, as if the peer had called for it."""
        id = f"{STREAM_PREFIX}{self._new_id()}"
        call = IncomingCall(id, "a stream argument", self._agreed or _NOTHING, 0, CalleeState.STREAMING)
        call.open()
        self.incoming[id] = call
        return call

    def withdraw(self, call: IncomingCall) -> None:
        """The peer was not told of it after all."""
        if call.id is not None:
            self.incoming.pop(call.id, None)

    def accept(self, id: str) -> OutgoingCall:
        """A stream of the peer that a message has named (ARG-3). Raises ProtocolError and LimitExceeded."""
        if id in self.outgoing:
            raise ProtocolError(f"a second stream under the id {id!r}")
        if self._arguments >= self.limits.calls:
            raise LimitExceeded("too many streams as arguments at once (calls)")
        call = OutgoingCall(id, "a stream argument", True, None, CallerState.OPEN, argument=True)
        if self._agreed is not None and hi.CREDIT in self._agreed:
            call.window = ReceiveWindow(self.limits.stream_buffer)
        self._arguments += 1
        self.outgoing[id] = call
        return call

    def _on_hello(self, message: m.Request) -> ev.Event | None:
        theirs = hi.read_hello(message.args[0]) if len(message.args) == 1 else None
        if theirs is None:
            self._put(m.Failure(message.id, error_to_wire(ProtocolError("malformed hello"))))
            return self._violation("malformed hello")
        # The answer goes first: whatever follows it may already use what was agreed.
        self._put(m.Result(message.id, hi.hello_payload(self._features)))
        self._greeted = True
        self._agree(theirs)
        return ev.Settled()

    def _in_use(self, id: m.Id | None) -> ev.Event:
        """A question under the id of a running call: any answer would be taken for that call's (MSG-3)."""
        assert id is not None
        self._step_callee(self.incoming[id], CalleeEvent.REQUEST)
        return self._violation(f"a request under the id {id!r}, which is in use")

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

    # What cannot be read -------------------------------------------------------------------

    def _on_malformed(self, message: m.Malformed, size: int) -> ev.Event | None:
        """What becomes of a message whose fields are not what its type demands (MSG-4)."""
        reason = f"malformed {message.type}: {message.reason}"
        if message.type in _ASKING:
            return self._refuse(message.id, message.reason) or self._violation(reason)
        event = self._violation(reason)
        if message.id is None:
            return event
        if message.type == "response" and message.id == self._hello_id:
            return self._on_hello_answer(None)
        call = self.outgoing.get(message.id)
        if call is None:
            return event
        if message.type in _ANSWERING:
            # The peer has said its last word on the call, whatever the word was.
            if self._step_caller(call, CallerEvent.UNREADABLE) is Do.CONFIRM:
                return ev.Stopped(call, None, True)
            self._put(m.StreamCancel(call.id))
            return ev.Failed(call, ProtocolError(reason))
        if message.type == "stream-chunk" and call.state in (CallerState.WAITING, CallerState.OPEN):
            return self._refuse_stream(call, ProtocolError(reason))
        return event

    # What both share -----------------------------------------------------------------------

    def close(self) -> list[OutgoingCall]:
        """The peer answers nothing any more: the calls that were open, each of which is over."""
        outgoing = list(self.outgoing.values())
        self.outgoing.clear()
        for call in outgoing:
            call.state = CallerState.DONE
        return outgoing

    def forget(self) -> None:
        """Nobody answers the peer any more either: its calls, and what was still to be written."""
        self.incoming.clear()
        self.outbox.clear()
        self.passage.functions.clear()

    def _on_noise(self, noise: m.Noise, size: int) -> ev.Event | None:
        self.noise += 1
        return ev.Noticed(noise.data, noise.reason)

    def _on_broken(self, broken: m.Broken, size: int) -> ev.Event | None:
        error = broken.error
        return ev.Lost(error if isinstance(error, KkrpcError) else ProtocolError(str(error)))

    def _violation(self, reason: str) -> ev.Event:
        self.violations += 1
        return ev.Violated(reason, self.violations)

    def _refuse(self, id: m.Id | None, text: str) -> ev.Event | None:
        if id in self.incoming:
            return self._in_use(id)
        self.outbox.put(self._encode_error(id, ErrorValue("Error", text, bare=True), False))
        return None

    def _new_id(self) -> m.Id:
        self._next_id += 1
        return str(self._next_id)

    def _put(self, message: m.Message) -> None:
        self.outbox.put(self._encoder.encode(message))

    def _encode_error(self, id: m.Id | None, error: ErrorValue, streaming: bool) -> bytes:
        def message(error: ErrorValue) -> m.Message:
            return m.StreamFailure(id, error) if streaming and id is not None else m.Failure(id, error)

        try:
            return self._encoder.encode(message(error))
        except (NotSerializable, LimitExceeded):
            name = error.name[:_ERROR_NAME]
            return self._encoder.encode(
                message(ErrorValue(name, "the error's details cannot be sent", bare=error.bare))
            )


def _as_ours(exc: Exception) -> KkrpcError:
    """What kept a message from being read, for whoever waits for it."""
    if isinstance(exc, KkrpcError):
        return exc
    error = ProtocolError(f"the value that came could not be read: {type(exc).__name__}: {exc}")
    error.__cause__ = exc
    return error
