"""Functions and streams within values, on their way out and in; and the users' own types (CBK, ARG, VAL-9).

It owns which of them a message names, and takes back what a message that was never sent had registered.
It does not own the objects that the application sees: `Holder` makes them, and runs the producers.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import UNSET

from kkrpc_py.core import hello as hi
from kkrpc_py.core.callbacks import Passed, PassedFunctions
from kkrpc_py.core.calls import IncomingCall
from kkrpc_py.core.outbox import Carrying, Outbox
from kkrpc_py.errors import LimitExceeded, NotSerializable, ProtocolError
from kkrpc_py.limits import Limits
from kkrpc_py.wire import messages as m
from kkrpc_py.wire.arrays import Tensor
from kkrpc_py.wire.classic import CALLBACK_PREFIX, STREAM_PREFIX
from kkrpc_py.wire.codec import Encoder
from kkrpc_py.wire.lowering import DecodeHook, EncodeHook, Lowering, restored
from kkrpc_py.wire.shared import Shared

__all__ = ["Holder", "Passage", "Streams"]

_LOWERED_TYPES = 256
_TYPED_ARRAYS = frozenset(("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"))
_MOST_NAMED = 65_536
"""Functions, and streams, of one message that are looked at: with more, the peer is left to itself."""

_Message = TypeVar("_Message", bound=m.Message)


class Holder(Protocol):
    """What passing needs of the layer above."""

    def callback(self, id: str) -> Any:
        """The object for a function of the peer, one more time. Raises LimitExceeded."""
        ...

    def argument(self, id: str) -> Any:
        """The object for a stream that the peer has just named. Raises ProtocolError and LimitExceeded."""
        ...

    def unwrapped(self, value: Any, functions: PassedFunctions) -> Any:
        """The function that is meant by `value`, which is about to be passed. Raises CallbackReleased."""
        ...

    def producible(self, value: Any) -> Any:
        """The async iterable that `value` is or can be read as; None: it is no stream."""
        ...

    def produce(self, call: IncomingCall, iterable: Any) -> None:
        """Send the values of `iterable` as the stream `call`, which the peer has been told of."""
        ...


class Streams(Protocol):
    """Where streams within values are entered, as if the peer had called them."""

    def offer(self) -> IncomingCall: ...

    def withdraw(self, call: IncomingCall) -> None: ...


class Passage:
    """For one connection. `agreed` is kept up to date by it."""

    def __init__(
        self,
        encoder: Encoder,
        limits: Limits,
        streams: Streams,
        holder: Holder | None,
        encode: EncodeHook | None,
        decode: DecodeHook | None,
    ) -> None:
        self.functions = PassedFunctions(limits.callbacks)
        self.agreed: frozenset[str] = frozenset()
        self.decode = decode
        self.lowered_types: set[type] = set()
        """Types of whole values that had to be lowered: the next one is not tried without."""
        self.lowered_methods: set[str] = set()
        """The same for the arguments of calls."""
        self._encoder = encoder
        self._streams = streams
        self._holder = holder
        self._lowering = Lowering(encode, limits.depth)
        self._id_bytes = limits.id_bytes

    # On the way out ------------------------------------------------------------------------

    def encode(self, message: m.Message) -> bytes:
        """The frame of a message with what its values need; what a codec takes by itself is tried first."""
        try:
            return self._encoder.encode(message)
        except NotSerializable as refusal:
            return self.encode_lowered(message, refusal)

    def encode_shared(self, message: m.Chunks) -> bytes:
        """The frame of chunks of which the first, and most often all, are `Shared`."""
        frame = self._encoder.encode_shared(message)
        if frame is not None:
            return frame
        values = [value.value if type(value) is Shared else value for value in message.values]
        return self.encode(m.Chunks(message.id, values))

    def encode_lowered(self, message: m.Message, refusal: NotSerializable | None = None) -> bytes:
        """The frame of a message that a codec has refused, or would refuse.

        Raises NotSerializable and LimitExceeded, and what the user's hook raises; then nothing has changed.
        """
        sending = _Sending(self, self._streams, self._holder, type(message) in _WITH_ARGUMENTS)
        try:
            lowered = self._lowered(message, sending)
            if lowered is message and refusal is not None:
                raise refusal
            frame = self._encoder.encode(lowered)
        except BaseException:
            sending.take_back()
            raise
        finally:
            del refusal  # its traceback holds this frame
        return sending.sent(frame) if sending.names else frame

    def _lowered(self, message: _Message, sending: _Sending) -> _Message:
        changed: dict[str, Any] = {}
        for field, root in _VALUES[type(message)]:
            value = getattr(message, field)
            if value is not None and value is not UNSET:
                # What is said of a call beside its arguments is plain: functions and streams are refused.
                lowered = self._lowering.lower(value, root, None if field == "meta" else sending)
                if lowered is not value:
                    changed[field] = lowered
        if not changed:
            return message
        self._remember(message)
        if sending.names:
            for field, root in _VALUES[type(message)]:
                sending.refuse_equal(changed.get(field, getattr(message, field)), root)
            changed["callback_ids"] = tuple(passed.id for passed in sending.passed.values())
            changed["stream_ids"] = tuple(str(call.id) for call, _ in sending.offered)
        lowered_message: _Message = msgspec.structs.replace(message, **changed)
        return lowered_message

    def _remember(self, message: m.Message) -> None:
        if type(message) is m.Request:
            if len(self.lowered_methods) < _LOWERED_TYPES:
                self.lowered_methods.add(message.method)
            return
        if type(message) is m.Chunks:
            value = message.values[0]
        elif type(message) is m.Result:
            value = message.value
        else:
            return
        if not isinstance(value, (list, dict, tuple)) and len(self.lowered_types) < _LOWERED_TYPES:
            self.lowered_types.add(type(value))

    def carries(self, kind: type) -> bool:
        return self._encoder.carries(kind)

    @property
    def superjson(self) -> bool:
        return self._encoder.writes_superjson

    @property
    def binary(self) -> bool:
        return self._encoder.cbor

    @property
    def pending(self) -> bool:
        return self._encoder.pending

    # On the way in -------------------------------------------------------------------------

    def restore(self, value: Any, message: Any, *, arguments: bool = False) -> Any:
        """`value` of a message with the functions and streams that it names (CBK-1, ARG-1).

        Raises LimitExceeded, ProtocolError, and what the user's `decode` hook raises.
        """
        functions: dict[str, Any] = {}
        names: dict[str, Any] = {}
        if self._holder is not None and (message.callback_ids or message.stream_ids):
            deep = hi.CALLBACK in self.agreed
            self._take(self._holder, message, functions if deep or arguments else None, names)
            if deep:
                names |= functions
            elif functions:  # kkrpc knows them at the top level alone
                value = [functions.get(item, item) if type(item) is str else item for item in value]
        if not names and self.decode is None:
            return value
        try:
            return restored(value, names, self.decode)
        except (SystemExit, GeneratorExit) as exc:  # a hook's, about one value
            raise RuntimeError(f"the decode hook raised {type(exc).__name__}") from exc

    def drop(self, message: Any) -> None:
        """Give back what a message names that nobody reads."""
        if self._holder is not None and (message.callback_ids or message.stream_ids):
            try:
                self._take(self._holder, message, {} if hi.CALLBACK in self.agreed else None, {})
            except (LimitExceeded, ProtocolError):
                return

    def _take(
        self, holder: Holder, message: Any, functions: dict[str, Any] | None, streams: dict[str, Any]
    ) -> None:
        """Make the objects that the message names. What of them is not wanted then goes back by itself.

        Where one is refused, the others are taken all the same: the peer must get them back.
        """
        callback_ids = list(dict.fromkeys(message.callback_ids)) if functions is not None else []
        stream_ids = message.stream_ids if hi.STREAM_ARGUMENTS in self.agreed else ()
        refusal: Exception | None = None
        if len(callback_ids) > _MOST_NAMED or len(stream_ids) > _MOST_NAMED:
            refusal = LimitExceeded(f"one message names more than {_MOST_NAMED} functions or streams")
        for id in callback_ids[:_MOST_NAMED]:
            assert functions is not None
            if not self._is_id(id):
                refusal = ProtocolError("the id of a callback is none, or longer than Limits.id_bytes")
                continue
            try:
                functions[CALLBACK_PREFIX + id] = holder.callback(id)
            except LimitExceeded as exc:
                refusal = exc
        for id in stream_ids[:_MOST_NAMED]:
            if not self._is_id(id):
                refusal = ProtocolError("the id of a stream is none, or longer than Limits.id_bytes")
                continue
            if not id.startswith(STREAM_PREFIX):
                refusal = ProtocolError(
                    f"a stream within a value has an id that begins with {STREAM_PREFIX!r}"
                )
                continue
            try:
                streams[id] = holder.argument(id)
            except (LimitExceeded, ProtocolError) as exc:
                refusal = exc
        if refusal is not None:
            try:
                raise refusal
            finally:
                del refusal  # its traceback holds this frame

    def _is_id(self, id: str) -> bool:
        try:
            return len(id.encode()) <= self._id_bytes
        except UnicodeEncodeError:  # an unpaired surrogate, under which nothing could be said (MSG-2)
            return False


class _Sending:
    """What one message passes; the `Passing` of its lowering."""

    def __init__(self, passage: Passage, streams: Streams, holder: Holder | None, arguments: bool) -> None:
        self.passed: dict[str, Passed] = {}
        self.offered: list[tuple[IncomingCall, Any]] = []
        self.names: dict[str, str] = {}
        """The strings that stand for something: to each the very object that was put in."""
        self._passage = passage
        self._streams = streams
        self._holder = holder
        self._arguments = arguments
        self._known: dict[int, str] = {}

    def function(self, value: Any, path: str) -> str:
        passage = self._passage
        if hi.CALLBACK not in passage.agreed and not (self._arguments and _at_top(path)):
            raise NotSerializable(
                type(value).__qualname__,
                path,
                "a stock peer takes functions as the arguments themselves, not within them",
                needs_hello=passage.pending,
            )
        function = value if self._holder is None else self._holder.unwrapped(value, passage.functions)
        passed = passage.functions.add(function, value)
        self.passed[passed.id] = passed
        name = CALLBACK_PREFIX + passed.id
        return self.names.setdefault(name, name)

    def carries(self, kind: type) -> bool:
        return self._passage.carries(kind)

    def tensor(self, numpy: Any, value: Any, path: str) -> Any:
        """CBOR keeps what a numpy array is, and superjson a row of numbers; elsewhere it is lists."""
        if self._passage.superjson and value.ndim == 1 and value.dtype.name in _TYPED_ARRAYS:
            return value
        if self._passage.pending and not self._passage.binary:
            raise NotSerializable(
                "ndarray", path, "whether CBOR is agreed is not known yet", needs_hello=True
            )
        return Tensor.of(numpy, value) if self._passage.binary else None

    def stream(self, value: Any, path: str) -> str | None:
        holder = self._holder
        iterable = None if holder is None else holder.producible(value)
        if iterable is None:
            return None
        if hi.STREAM_ARGUMENTS not in self._passage.agreed:
            raise NotSerializable(
                type(value).__qualname__,
                path,
                "a stock peer takes no streams within values",
                needs_hello=self._passage.pending,
            )
        if id(value) in self._known:
            raise NotSerializable(type(value).__qualname__, path, "one stream stands in two places")
        call = self._streams.offer()
        self.offered.append((call, iterable))
        name = str(call.id)
        self._known[id(value)] = name
        return self.names.setdefault(name, name)

    def refuse_equal(self, value: Any, path: str) -> None:
        """Raise NotSerializable for text of the user's that reads like one of the names."""
        kind = type(value)
        if kind is str:
            if self.names.get(value, value) is not value:
                raise NotSerializable(
                    "str", path, "it would be taken for a function or stream of this message"
                )
        elif kind is dict:
            for key, item in value.items():
                self.refuse_equal(item, f"{path}[{key!r}]")
        elif kind in _LISTS:
            for index, item in enumerate(value):
                self.refuse_equal(item, f"{path}[{index}]")

    def take_back(self) -> None:
        for passed in self.passed.values():
            self._passage.functions.forget_unsent(passed)
        for call, _ in self.offered:
            self._streams.withdraw(call)

    def sent(self, frame: bytes) -> bytes:
        """The frame is as good as sent."""
        carrying = Carrying(frame)
        for passed in self.passed.values():
            passed.count += 1
        Outbox.hold(carrying, tuple(call.lane for call, _ in self.offered if call.lane is not None))
        for call, iterable in self.offered:
            assert self._holder is not None
            self._holder.produce(call, iterable)
        return carrying


def _at_top(path: str) -> bool:
    return path.startswith("args[") and path.find("]") == len(path) - 1


_LISTS: frozenset[type] = frozenset((list, tuple, set, frozenset))
_WITH_ARGUMENTS = frozenset((m.Request, m.Construct))
# The fields of each message that hold values, with their names in the error of one that cannot be sent.
_CALL_VALUES = (("args", "args"), ("kwargs", "kwargs"))
_VALUES: dict[type, tuple[tuple[str, str], ...]] = {
    m.Request: (*_CALL_VALUES, ("meta", "meta")),
    m.Construct: (*_CALL_VALUES, ("meta", "meta")),
    m.Callback: _CALL_VALUES,
    m.Set: (("value", "value"),),
    m.Result: (("value", "result"),),
    m.Chunks: (("values", "values"),),
    m.StreamEnd: (("result", "result"),),
}
