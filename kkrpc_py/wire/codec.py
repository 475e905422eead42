"""Messages to frames and frames to messages, in the codec that each value needs (VAL-8).

It owns the choice between JSON and CBOR, and what is written with a stock kkrpc peer in mind. It
does not own the negotiation: `core` sets the three switches of `Encoder` as it learns about the
peer.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from kkrpc_py.errors import LimitExceeded, NotSerializable, ProtocolError
from kkrpc_py.limits import Limits
from kkrpc_py.wire.cbor_errors import CborError, CborRefused
from kkrpc_py.wire.classic import CALLBACK_PREFIX, Parser, build
from kkrpc_py.wire.framing import Frame, Framer, Kind, Pieces, cbor_frame, frame_size
from kkrpc_py.wire.json_codec import JsonError, JsonLimitError, JsonReader, JsonWriter
from kkrpc_py.wire.large import large_mapping, large_pieces
from kkrpc_py.wire.messages import Broken, Construct, Failure, Message, Noise, Request, StreamFailure

if TYPE_CHECKING:
    from kkrpc_py.wire.cbor_codec import CborReader, CborWriter

__all__ = ["Codec", "Decoder", "Encoder", "Incoming", "frame_size"]

Codec: TypeAlias = Literal["auto", "json", "cbor"]
Incoming: TypeAlias = tuple[Message | Noise | Broken, int]
"""What arrived, and the size of its frame in bytes, as `frame_size` has it."""

# A line of exactly this size, or a multiple, is lost by kkrpc (see Encoder._line).
_STOCK_READ = 65_536


class Encoder:
    """Turns messages into frames.

    `core` sets, as the negotiation goes:

    - `stock`: the peer is not known to be kkrpc_py. JSON is then ASCII alone, integers are bounded
      by 2**53 - 1, and no argument may begin with `__callback__` but a function's.
    - `cbor`: CBOR frames may be sent.
    - `pending`: a hello was sent and is not answered. What only CBOR carries then raises
      `NotSerializable` with `needs_cbor`, and may be tried again after the answer.
    """

    def __init__(self, codec: Codec, limits: Limits) -> None:
        self.stock = True
        self.cbor = codec == "cbor"
        self.pending = False
        self._codec = codec
        self._limits = limits
        self._limit = limits.frame
        self._to_stock = JsonWriter(limits, stock=True)
        self._to_peer = JsonWriter(limits, stock=False)

    @functools.cached_property
    def _cbor_writer(self) -> CborWriter:
        # With the types that its tags stand for, CBOR is a tenth of what `import kkrpc_py` would take, and
        # a channel may never need it.
        from kkrpc_py.wire.cbor_codec import CborWriter

        return CborWriter(self._limits)

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

    def _encode(self, message: Message) -> bytes:
        if self.cbor and (pieces := large_pieces(message)) is not None:
            return self._framed(*pieces)
        if self._codec == "cbor":
            return self._cbor_frame(message)
        if self._codec == "json" or not (self.cbor or self.pending):
            return self._json(message, with_bytes=True)
        if not self.cbor and isinstance(message, (Failure, StreamFailure)):
            # An error is reported at once, without the fields that would have to wait.
            return self._json(message, with_bytes=True)
        try:
            return self._json(message, with_bytes=False, drop=False)
        except NotSerializable as refusal:
            return self._beyond_json(message, refusal)

    def _beyond_json(self, message: Message, by_json: NotSerializable) -> bytes:
        """The value is not JSON's, or holds bytes, which CBOR carries at a fraction of the size."""
        try:
            frame = self._cbor_frame(message)
        except NotSerializable as by_cbor:
            # Bytes beside text that is no Unicode: kkrpc's form of bytes is the only one left.
            try:
                return self._json(message, with_bytes=True)
            except NotSerializable:
                raise by_cbor from None
        if self.cbor:
            return frame
        raise NotSerializable(by_json.type_name, by_json.path, by_json.reason, needs_cbor=True) from None

    def _cbor_frame(self, message: Message) -> bytes:
        return self._framed(self._cbor_payload(message))

    def _framed(self, *payload: bytes) -> bytes:
        size = sum(map(len, payload))
        if size > self._limit:
            raise self._too_large(size)
        return cbor_frame(*payload)

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

    def _json(self, message: Message, *, with_bytes: bool, drop: bool = True) -> bytes:
        writer = self._to_stock if self.stock else self._to_peer
        if self.stock and isinstance(message, (Request, Construct)):
            _refuse_callback_names(message)
        checked = writer.fit_checked if with_bytes else writer.fit_plain_checked
        # Which fields of an error are dropped is decided one by one, so each is checked to the end.
        error = isinstance(message, (Failure, StreamFailure))
        fit = checked if error else writer.fit_with_bytes if with_bytes else writer.fit
        try:
            text = writer.dumps(build(message, fit, drop=drop))
        except UnicodeEncodeError:
            return self._line(writer.dumps_unpaired(build(message, checked, drop=drop)))
        except ValueError:
            # An integer that Python will not write: now it is looked for.
            build(message, checked, drop=drop)
            raise
        if not error and writer.needs_second_look(text):
            build(message, checked)
        return self._line(text)

    def _line(self, text: bytes) -> bytes:
        """The line of a JSON text.

        kkrpc drops a read of white space alone. Its pipe hands out 65,536 bytes at a time, so the
        line feed of a line of that size comes alone and is lost; so would a blank before it. A blank
        before the closing brace leaves the brace to keep it company.
        """
        if self.stock and not len(text) % _STOCK_READ:
            text = text[:-1] + b" }"
        if len(text) > self._limit:
            raise self._too_large(len(text))
        return text + b"\n"

    def _too_large(self, size: int) -> LimitExceeded:
        return LimitExceeded(f"the message takes {size} bytes; Limits.frame is {self._limit}")


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
        self._json = JsonReader(limits)
        self._limits = limits
        self._parser = Parser(limits)
        self._noise_limit = limits.noise
        self._binary = False
        """A CBOR frame has come: from now on what is no message ends the stream (FRM-5)."""

    @functools.cached_property
    def _cbor(self) -> CborReader:
        from kkrpc_py.wire.cbor_codec import CborReader  # late, as in `Encoder`

        return CborReader(self._limits)

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
            if frame[0] is Kind.JSON:
                item = self._read_json(frame[1])
            elif frame[0] is Kind.CBOR:
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
        try:
            mapping = self._json.loads(text)
        except JsonLimitError as error:
            return self._parser.malformed(*self._json.salvage(text), str(error)) or self._noise(
                text, str(error)
            )
        except JsonError as error:
            return self._noise(text, f"not JSON: {error}")
        return self._parser.parse(mapping) or self._noise(text, "a JSON object of no known type")

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
