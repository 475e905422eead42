"""What both halves of a connection share: its state, and how a message leaves (see `core.connection`)."""

from __future__ import annotations

from typing import Any

from kkrpc_py.core import events as ev
from kkrpc_py.core import hello as hi
from kkrpc_py.core.calls import IncomingCall, OutgoingCall
from kkrpc_py.core.outbox import Outbox
from kkrpc_py.core.passing import Holder, Passage
from kkrpc_py.errors import ErrorValue, LimitExceeded, NotSerializable
from kkrpc_py.limits import Limits
from kkrpc_py.wire import messages as m
from kkrpc_py.wire.codec import Codec, Decoder, Encoder
from kkrpc_py.wire.lowering import DecodeHook, EncodeHook

__all__ = ["NOTHING", "Half"]

NOTHING: frozenset[str] = frozenset()
_FEATURES = frozenset(
    (hi.CREDIT, hi.BATCH, hi.RESULT, hi.CANCEL, hi.CALLBACK, hi.STREAM_ARGUMENTS, hi.KWARGS, hi.METADATA)
)
_LEFT_STREAMS = 1024
_ERROR_NAME = 100


class Half:
    """The base of `Caller` and `Callee`, which one `Connection` is both."""

    def __init__(
        self,
        *,
        codec: Codec,
        limits: Limits,
        holder: Holder | None,
        encode: EncodeHook | None,
        decode: DecodeHook | None,
    ) -> None:
        self.limits = limits
        self.outbox = Outbox()
        self.outgoing: dict[m.Id, OutgoingCall] = {}
        self.incoming: dict[m.Id, IncomingCall] = {}
        self.violations = 0
        """Rules broken by the peer that did not end the connection."""
        self.noise = 0
        """Lines that were no message."""
        self._features = _FEATURES | ({hi.CBOR} if codec in ("auto", "cbor") else NOTHING)
        self._agreed: frozenset[str] | None = None
        self._encoder = Encoder(codec, limits)
        self._decoder = Decoder(limits)
        self.passage = Passage(self._encoder, limits, self, holder, encode, decode)
        self._lowered_methods = self.passage.lowered_methods
        self._arguments = 0
        """Streams of the peer within values that are open."""
        self._argument_bytes = 0
        """Bytes of their frames that lie unread, also where the stream has ended."""
        self._offered = 0
        """Streams of this side within values that are open."""
        self._anonymous = 0
        self._incoming_bytes = 0
        self._next_id = 0
        self._left: dict[m.Id, None] = {}
        """Streams of a stock peer that were cancelled lately: what still comes is no fault of the peer."""
        self._hello_id: m.Id | None = None
        self._greeted = False

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

    @property
    def calls_back(self) -> bool:
        """The peer answers calls of its functions, and takes them back when they are not needed."""
        return self._agreed is not None and hi.CALLBACK in self._agreed

    @property
    def takes_metadata(self) -> bool:
        return self._agreed is not None and hi.METADATA in self._agreed

    def _violation(self, reason: str) -> ev.Event:
        self.violations += 1
        return ev.Violated(reason, self.violations)

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

    def _leave(self, id: m.Id) -> None:
        self._left[id] = None
        if len(self._left) > _LEFT_STREAMS:
            del self._left[next(iter(self._left))]

    # What the other half, or the whole, does ---------------------------------------------------

    def offer(self) -> IncomingCall:
        raise NotImplementedError

    def withdraw(self, call: IncomingCall) -> None:
        raise NotImplementedError

    def _on_hello(self, message: m.Request) -> ev.Event | None:
        raise NotImplementedError

    def _on_hello_answer(self, value: Any) -> ev.Event | None:
        raise NotImplementedError
