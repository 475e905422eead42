"""Messages to frames and frames to messages, in the codec that each value needs (VAL-8).

It owns the choice between JSON, superjson and CBOR, and what is written with a stock kkrpc peer in
mind. It does not own the negotiation: `core` sets the switches of `Encoder` as it learns about the
peer.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

import msgspec

from kkrpc_py.errors import LimitExceeded, NotSerializable, ProtocolError
from kkrpc_py.limits import Limits
from kkrpc_py.wire.cbor_errors import CborError, CborRefused
from kkrpc_py.wire.classic import CALLBACK_PREFIX, Fields, Parser, build
from kkrpc_py.wire.framing import Frame, Framer, Kind, Pieces, cbor_frame, frame_size
from kkrpc_py.wire.json_codec import JsonError, JsonLimitError, JsonReader, JsonWriter
from kkrpc_py.wire.large import large_mapping, large_pieces
from kkrpc_py.wire.messages import (
    Broken,
    Chunks,
    Construct,
    Failure,
    Message,
    Noise,
    Request,
    StreamFailure,
)
from kkrpc_py.wire.shared import (
    CBOR,
    JSON,
    STOCK,
    STOCK_BYTES,
    STOCK_SUPERJSON,
    SUPERJSON,
    WITH_BYTES,
    Shared,
    all_within,
    cbor_chunks,
    json_chunks,
    superjson_chunks,
)

if TYPE_CHECKING:
    from kkrpc_py.wire.cbor_codec import CborReader, CborWriter
    from kkrpc_py.wire.superjson_reader import SuperjsonReader
    from kkrpc_py.wire.superjson_writer import SuperjsonWriter

__all__ = ["Codec", "Decoder", "Encoder", "Incoming", "frame_size"]

Codec: TypeAlias = Literal["auto", "json", "superjson", "cbor"]
Incoming: TypeAlias = tuple[Message | Noise | Broken, int]
"""What arrived, and the size of its frame in bytes, as `frame_size` has it."""

# What every line of superjson begins with, and no line of JSON that is a message (SUP-1).
_SUPERJSON = b'{"json":'
# A line of exactly this size, or a multiple, is lost by kkrpc (see Encoder._json).
_STOCK_READ = 65_536
# Python 3.11 takes ten times as long to find a member in its enumeration.
_JSON: Final = Kind.JSON
_CBOR: Final = Kind.CBOR
_ERRORS: frozenset[type] = frozenset((Failure, StreamFailure))
_SHARED: frozenset[type] = frozenset((Shared,))


class Encoder:
    """Turns messages into frames.

    `core` sets, as the negotiation goes:

    - `stock`: the peer is not known to be kkrpc_py. JSON is then ASCII alone, integers are bounded
      by 2**53 - 1, and no argument may begin with `__callback__` but a function's.
    - `cbor`: CBOR frames may be sent.
    - `superjson`: the peer writes superjson, so with "auto" it is answered so, unless CBOR may be sent.
    - `pending`: a hello was sent and is not answered. What only CBOR carries then raises
      `NotSerializable` with `needs_hello`, and may be tried again after the answer.
    """

    def __init__(self, codec: Codec, limits: Limits) -> None:
        self.stock = True
        self.cbor = codec == "cbor"
        self.superjson = codec == "superjson"
        self.pending = False
        self._codec = codec
        self._limits = limits
        self._limit = limits.frame
        self._to_stock = JsonWriter(limits, stock=True, with_bytes=False)
        self._to_stock_bytes = JsonWriter(limits, stock=True, with_bytes=True)
        self._to_peer = JsonWriter(limits, stock=False, with_bytes=False)
        self._to_peer_bytes = JsonWriter(limits, stock=False, with_bytes=True)

    @functools.cached_property
    def _cbor_writer(self) -> CborWriter:
        # With the types that its tags stand for, CBOR is a tenth of what `import kkrpc_py` would take, and
        # a channel may never need it.
        from kkrpc_py.wire.cbor_codec import CborWriter

        return CborWriter(self._limits)

    @functools.cached_property
    def _superjson_writer(self) -> SuperjsonWriter:
        from kkrpc_py.wire.superjson_writer import SuperjsonWriter  # late, as CBOR is

        return SuperjsonWriter(self._limits)

    @property
    def writes_superjson(self) -> bool:
        """The next message goes as superjson, which carries the types of `js` as they are."""
        return self.superjson and not self.cbor and self._codec != "json"

    def carries(self, kind: type) -> bool:
        """Whether what may be written now carries values of that type, beyond what JSON does."""
        if self.writes_superjson:
            return self._superjson_writer.carries(kind)
        return self.cbor and kind in self._cbor_writer.types

    def encode(self, message: Message) -> bytes:
        """One whole frame.

        `NotSerializable` if a value cannot be sent unchanged, `LimitExceeded` if the frame would
        be larger than `Limits.frame`; nothing else. What the peer reads is what was given, but for
        the mappings that section 4 of spec/protocol.md names.
        """
        try:
            return self._encode(message)
        except (NotSerializable, LimitExceeded):
            raise
        except (RuntimeError, ValueError, ArithmeticError, TypeError) as error:
            # A value that another thread changes meanwhile, or one nested deeper than the
            # interpreter's stack has room for.
            raise NotSerializable("a value", "", f"{type(error).__name__}: {error}") from error

    def encode_shared(self, message: Chunks) -> bytes | None:
        """The frame of chunks that are all `Shared`, spliced; None: write it as any other.

        Raises LimitExceeded as `encode` does.
        """
        values: list[Shared] = message.values
        if self.pending or not _SHARED.issuperset(map(type, values)) or not all_within(values, self._limits):
            return None
        writer = self._to_stock if self.stock else self._to_peer
        if self.writes_superjson:
            forms = _forms(values, STOCK_SUPERJSON if self.stock else SUPERJSON)
            return None if forms is None else self._as_line(superjson_chunks(writer.dumps(message.id), forms))
        forms = None
        if self._codec != "cbor":
            forms = _forms(values, STOCK if self.stock else JSON)
            if forms is None and not self.cbor:
                forms = _forms(values, STOCK_BYTES if self.stock else WITH_BYTES)
        if forms is not None:
            return self._as_line(json_chunks(writer.dumps(message.id), forms))
        forms = _forms(values, CBOR) if self.cbor else None
        return None if forms is None else self._framed(*cbor_chunks(message.id, forms))

    def _encode(self, message: Message) -> bytes:
        if self.cbor and (pieces := large_pieces(message)) is not None:
            return self._framed(*pieces)
        if self._codec == "cbor":
            return self._cbor_frame(message)
        if self.superjson and self.writes_superjson:
            return self._superjson(message)
        if self._codec == "json" or not (self.cbor or self.pending):
            return self._json_alone(message)
        if not self.cbor and type(message) in _ERRORS:
            # An error is reported at once, without the fields that would have to wait.
            return self._json_alone(message)
        try:
            return self._json(message, self._to_stock if self.stock else self._to_peer, drop=False)
        except NotSerializable as refusal:
            return self._beyond_json(message, refusal)

    def _beyond_json(self, message: Message, by_json: NotSerializable) -> bytes:
        """The value is not JSON's, or holds bytes, which CBOR carries at a fraction of the size."""
        try:
            frame = self._cbor_frame(message)
        except NotSerializable as by_cbor:
            # Bytes beside text that is no Unicode: kkrpc's form of bytes is the only one left.
            try:
                return self._json_alone(message)
            except NotSerializable:
                if self.pending and self._fits_superjson(message):
                    raise NotSerializable(
                        by_json.type_name, by_json.path, by_json.reason, needs_hello=True
                    ) from None
                raise by_cbor from None
        if self.cbor:
            return frame
        raise NotSerializable(by_json.type_name, by_json.path, by_json.reason, needs_hello=True) from None

    def _fits_superjson(self, message: Message) -> bool:
        """Whether a peer that turns out to write superjson could be told."""
        if self._codec != "auto":
            return False
        try:
            self._superjson_line(message)
        except (NotSerializable, LimitExceeded):
            return False
        return True

    def _superjson(self, message: Message) -> bytes:
        try:
            return self._superjson_line(message)
        except NotSerializable as refusal:
            if not self.pending or type(message) in _ERRORS:
                raise
            try:
                self._cbor_frame(message)
            except (NotSerializable, LimitExceeded):
                raise refusal from None
            raise NotSerializable(refusal.type_name, refusal.path, refusal.reason, needs_hello=True) from None

    def _superjson_line(self, message: Message) -> bytes:
        if self.stock and isinstance(message, (Request, Construct)):
            _refuse_callback_names(message)
        writer = self._superjson_writer
        error = type(message) in _ERRORS
        mapping = build(message, writer.fit if error else _as_it_is)
        encoder = self._to_stock if self.stock else self._to_peer
        try:
            text = encoder.dumps(writer.line(mapping))
        except UnicodeEncodeError:
            text = encoder.dumps_unpaired(writer.line(mapping, text=not error))
        return self._as_line(text)

    def _cbor_frame(self, message: Message) -> bytes:
        return self._framed(self._cbor_payload(message))

    def _framed(self, *payload: bytes) -> bytes:
        frame = cbor_frame(*payload)
        if frame_size(frame) > self._limit:
            raise self._too_large(frame_size(frame))
        return frame

    def _cbor_payload(self, message: Message) -> bytes:
        writer = self._cbor_writer
        if isinstance(message, (Failure, StreamFailure)):
            return writer.dumps(build(_in_unicode(message), writer.fit_checked))
        try:
            return writer.dumps(build(message, writer.fit))
        except UnicodeEncodeError:
            build(message, writer.fit_checked)
            reason = "it holds an unpaired surrogate"
            raise NotSerializable("str", "the message's id, method or path", reason) from None

    def _json_alone(self, message: Message) -> bytes:
        return self._json(message, self._to_stock_bytes if self.stock else self._to_peer_bytes, drop=True)

    def _json(self, message: Message, writer: JsonWriter, *, drop: bool) -> bytes:
        if self.stock and isinstance(message, (Request, Construct)):
            _refuse_callback_names(message)
        # Which fields of an error are dropped is decided one by one, so each is checked to the end.
        error = type(message) in _ERRORS
        try:
            text = writer.dumps(build(message, writer.fit_checked if error else writer.fit, drop))
        except UnicodeEncodeError:
            text = writer.dumps_unpaired(build(message, writer.fit_checked, drop))
        except ValueError:
            # An integer that Python will not write: now it is looked for.
            build(message, writer.fit_checked, drop)
            raise
        else:
            if not error and writer.needs_second_look(text):
                build(message, writer.fit_checked)
        return self._as_line(text)

    def _as_line(self, text: bytes) -> bytes:
        # kkrpc drops a read of white space alone. Its pipe hands out 65,536 bytes at a time, so the
        # line feed of a line of that size comes alone and is lost; so would a blank before it. A blank
        # before the closing brace leaves the brace to keep it company.
        if self.stock and not len(text) % _STOCK_READ:
            text = text[:-1] + b" }"
        if len(text) > self._limit:
            raise self._too_large(len(text))
        return text + b"\n"

    def _too_large(self, size: int) -> LimitExceeded:
        return LimitExceeded(f"the message takes {size} bytes; Limits.frame is {self._limit}")


def _forms(values: list[Shared], form: int) -> list[bytes] | None:
    """All of them in that form; None where one cannot be."""
    forms = [value.form(form) for value in values]
    return None if None in forms else cast("list[bytes]", forms)


def _as_it_is(value: Any, _root: str) -> Any:
    return value


def _in_unicode(message: Failure | StreamFailure) -> Failure | StreamFailure:
    """An error is reported whatever its text; tracebacks quote file names that are no Unicode."""
    error = message.error
    stack = None if error.stack is None else _escaped(error.stack)
    return msgspec.structs.replace(
        message,
        error=msgspec.structs.replace(
            error, name=_escaped(error.name), message=_escaped(error.message), stack=stack
        ),
    )


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _refuse_callback_names(message: Request | Construct) -> None:
    for index, argument in enumerate(message.args):
        if (
            type(argument) is str
            and argument.startswith(CALLBACK_PREFIX)
            and argument[len(CALLBACK_PREFIX) :] not in message.callback_ids
        ):
            raise NotSerializable("str", f"args[{index}]", f"kkrpc takes {CALLBACK_PREFIX!r} for a function")


class Decoder:
    """Turns the bytes of one direction into messages."""

    def __init__(self, limits: Limits) -> None:
        self._framer = Framer(limits)
        self._json = JsonReader(limits, Fields)
        self._limits = limits
        self._parser = Parser(limits)
        self._noise_limit = limits.noise
        self._binary = False
        """A CBOR frame has come: from now on what is no message ends the stream (FRM-5)."""
        self.superjson = False
        """A message in superjson has come."""

    @functools.cached_property
    def _cbor(self) -> CborReader:
        from kkrpc_py.wire.cbor_codec import CborReader  # late, as in `Encoder`

        return CborReader(self._limits)

    @functools.cached_property
    def _superjson(self) -> SuperjsonReader:
        from kkrpc_py.wire.superjson_reader import SuperjsonReader  # late, as CBOR is

        return SuperjsonReader(self._limits, self._parser)

    def receive(self, data: bytes) -> list[Incoming]:
        """Take the next bytes, any number; return the messages that they complete, in order.

        Never raises. `Broken` is always the last item; everything after it is ignored.
        """
        return self._messages(self._framer.receive(data))

    def receive_eof(self) -> list[Incoming]:
        """The byte stream is at its end; return what that makes of the bytes so far."""
        return self._messages(self._framer.receive_eof())

    def _messages(self, frames: list[Frame]) -> list[Incoming]:
        found: list[Incoming] = []
        for frame in frames:
            item: Message | Noise | Broken
            if frame[0] is _JSON:
                item = self._read_json(frame[1])
            elif frame[0] is _CBOR:
                self._binary = True
                payload = frame[1]
                item = self._read_large(payload) if isinstance(payload, list) else self._read_cbor(payload)
            else:
                item = frame[1]
            if self._binary and type(item) is Noise:
                item = Broken(ProtocolError(f"{item.reason}, in a direction that carries CBOR frames"))
            found.append((item, frame[2]))
            if type(item) is Broken:
                self._framer.stop()
                break
        return found

    def _read_json(self, text: bytes) -> Message | Noise:
        # What begins with an id is less, and is told by that in a third of the time.
        if text >= _SUPERJSON and text.startswith(_SUPERJSON):
            return self._read_superjson(text)
        try:
            found = self._json.loads(text)
        except JsonLimitError as error:
            return self._parser.malformed(*self._json.salvage(text), str(error)) or self._noise(
                text, str(error)
            )
        except JsonError as error:
            return self._noise(text, f"not JSON: {error}")
        return self._parser.parse(found) or self._noise(text, "a JSON object of no known type")

    def _read_superjson(self, text: bytes) -> Message | Noise:
        found = self._superjson.read(text)
        if isinstance(found, str):
            return self._noise(text, found)
        self.superjson = True
        return found

    def _read_large(self, pieces: Pieces) -> Message | Noise:
        mapping = large_mapping(pieces)
        message = None if mapping is None else self._parser.parse(mapping)
        return message or self._read_cbor(b"".join(pieces))

    def _read_cbor(self, payload: bytes) -> Message | Noise:
        try:
            mapping = self._cbor.loads(payload)
        except CborRefused as error:
            known = self._parser.malformed(*self._cbor.salvage(payload), str(error))
            return known or Noise(b"", f"a CBOR frame that holds no message: {error}")
        except CborError as error:
            return Noise(b"", f"a CBOR frame that is no CBOR: {error}")
        message = self._parser.parse(mapping) if type(mapping) is dict else None
        return message or Noise(b"", "a CBOR frame that holds no message of a known type")

    def _noise(self, text: bytes, reason: str) -> Noise:
        return Noise(text[: self._noise_limit], reason)
