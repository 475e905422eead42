"""The protocol's state, without I/O: bytes in, events out; decisions in, bytes out.

A `Connection` owns the calls and streams of both directions by id, the credit, and what is
agreed with the peer. It takes no time and makes no task; whoever runs it carries the bytes.
Reading (`receive_data`) and deciding (`call`, `respond`, …) may alternate in any order.

This module owns the whole: bytes, the hello, and what cannot be read. The halves are `core.caller` and
`core.callee`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from kkrpc_py.core import events as ev
from kkrpc_py.core import hello as hi
from kkrpc_py.core.callee import Callee
from kkrpc_py.core.caller import Caller
from kkrpc_py.core.calls import OutgoingCall
from kkrpc_py.core.passing import Holder
from kkrpc_py.core.tables import CallerEvent, CallerState, Do
from kkrpc_py.errors import KkrpcError, LimitExceeded, ProtocolError, error_to_wire
from kkrpc_py.limits import Limits
from kkrpc_py.wire import messages as m
from kkrpc_py.wire.codec import Codec
from kkrpc_py.wire.lowering import DecodeHook, EncodeHook

__all__ = ["Connection"]

_ASKING = frozenset({"request", "construct", "get", "set"})
_ANSWERING = frozenset({"response", "stream-end", "stream-error"})


class Connection(Caller, Callee):
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
        super().__init__(
            codec=codec,
            limits=limits if limits is not None else Limits(),
            holder=holder,
            encode=encode,
            decode=decode,
        )
        self._handlers: dict[type[Any], Callable[[Any, int], ev.Event | None]] = {
            m.Request: self._on_request,
            m.Construct: self._on_request,
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
        if self._decoder.superjson:
            self._encoder.superjson = True  # answer in what the peer writes (CLA-6)
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

    # What is agreed ------------------------------------------------------------------------

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

    def _on_hello_answer(self, value: Any) -> ev.Event | None:
        self._hello_id = None
        theirs = hi.read_hello(value)
        if theirs is not None:
            self._agree(theirs)
        self._encoder.pending = False
        return ev.Settled()

    def _on_hello(self, message: m.Request) -> ev.Event | None:
        theirs = hi.read_hello(message.args[0]) if len(message.args) == 1 else None
        if theirs is None or message.id is None:  # an answer without id would tell the peer nothing
            self.passage.drop(message)
            self._put(m.Failure(message.id, error_to_wire(ProtocolError("malformed hello"))))
            return self._violation("malformed hello")
        # The answer goes first: whatever follows it may already use what was agreed.
        self._put(m.Result(message.id, hi.hello_payload(self._features)))
        self._greeted = True
        self._agree(theirs)
        return ev.Settled()

    # What cannot be read -------------------------------------------------------------------

    def _on_malformed(self, message: m.Malformed, size: int) -> ev.Event | None:
        """What becomes of a message whose fields are not what its type demands (MSG-4)."""
        reason = f"malformed {message.type}: {message.reason}"
        self.passage.drop(message)
        asking = message.type in _ASKING or (message.type == "callback" and self.calls_back)
        if asking and (message.type != "callback" or message.id is not None):
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

    def _on_noise(self, noise: m.Noise, size: int) -> ev.Event | None:
        self.noise += 1
        return ev.Noticed(noise.data, noise.reason)

    def _on_broken(self, broken: m.Broken, size: int) -> ev.Event | None:
        error = broken.error
        return ev.Lost(error if isinstance(error, KkrpcError) else ProtocolError(str(error)))

    # The end -------------------------------------------------------------------------------

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
