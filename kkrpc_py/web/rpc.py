"""Calls over HTTP: one message in a request's body, one in its answer (HTTP-8 to HTTP-12).

Owns what may be in the body, and the channel that lives for one call: so that exposure, validation,
interceptors and limits are those of every channel. What HTTP itself has to say is the part of `endpoints`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import anyio
from anyio.abc import ObjectStream

from kkrpc_py.channel.channel import RPCChannel
from kkrpc_py.channel.options import ServeOptions
from kkrpc_py.core.hello import METHOD, hello_payload, read_hello
from kkrpc_py.errors import ActionError, ChannelClosed, KkrpcError, ProtocolError, error_to_wire
from kkrpc_py.limits import Limits
from kkrpc_py.transports.handshake import HandshakeRequest
from kkrpc_py.web.encoding import error_json
from kkrpc_py.wire import messages as m
from kkrpc_py.wire.codec import Codec, Decoder, Encoder
from kkrpc_py.wire.json_codec import JsonError, JsonLimitError, JsonReader

__all__ = ["RpcEndpoint"]

_NO_WAY_BACK: Final = "one HTTP request has one answer: use the WebSocket"
_MARKER = b'"__stream":true'
"""What an answer that opens a stream has in it, besides less than `_SMALL` bytes."""
_SMALL: Final = 1024
_BLANKS = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")

_Question: TypeAlias = m.Request | m.Construct | m.Get | m.Set | m.Malformed

_log = logging.getLogger("kkrpc_py.web")


class RpcEndpoint:
    """Answers the bodies of `POST /rpc`."""

    def __init__(self, api: Any, options: ServeOptions) -> None:
        self._api = api
        # The answer is JSON, and superjson where the question was, unless JSON alone is to be written.
        self._codec: Codec = "json" if options.get("codec") == "json" else "auto"
        self._options: ServeOptions = {**options, "hello": False, "codec": self._codec}
        self._limits: Limits = options.get("limits") or Limits()
        self._json = JsonReader(self._limits)

    async def answer(self, body: bytes, request: HandshakeRequest) -> tuple[int, bytes]:
        """The status, and the JSON to answer with. Raises cancellation alone, which ends the handler."""
        try:
            return 200, await self._answer(body, request)
        except ActionError as refusal:
            return refusal.status, error_json(refusal)
        except Exception:
            _log.exception("a call over HTTP failed")
            return 500, error_json(ActionError.unexpected())

    async def _answer(self, body: bytes, request: HandshakeRequest) -> bytes:
        line = self._line(body)
        decoder = Decoder(self._limits)
        question = _question(decoder.receive(line))
        if isinstance(question, m.Request) and question.method == METHOD:
            return self._written(_hello_answer(question), decoder.superjson)
        if getattr(question, "callback_ids", ()) or getattr(question, "stream_ids", ()):
            refused = _refused(question.id, "functions and streams cannot be passed")
            return self._written(refused, decoder.superjson)
        answer = await self._called(line, request)
        if len(answer) < _SMALL and _MARKER in answer and _opens_stream(answer, self._limits):
            return self._written(_refused(question.id, "the answer is a stream"), decoder.superjson)
        return answer

    def _written(self, answer: m.Message, superjson: bool) -> bytes:
        encoder = Encoder(self._codec, self._limits)
        encoder.superjson = superjson
        return encoder.encode(answer)

    def _line(self, body: bytes) -> bytes:
        """The one JSON object of the body, on one line. Raises ActionError for what cannot be one."""
        text = body.strip(_BLANKS).removeprefix(_BOM).lstrip(_BLANKS)
        if not text.startswith(b"{"):
            raise _not_one_message()
        if b"\n" in text or b"\r" in text:
            try:
                self._json.loads(text)
            except JsonLimitError:
                pass  # which is told by who reads the line
            except JsonError:
                raise _not_one_message() from None
            # It is JSON, so these stand between values alone.
            text = text.translate(_ONE_LINE)
        return text + b"\n"

    async def _called(self, line: bytes, request: HandshakeRequest) -> bytes:
        stream = _OneCall(line, request)
        channel = _OneCallChannel(stream, expose=self._api, **self._options)
        channel.state = request.state
        async with channel:
            await stream.over.wait()
        if stream.answer is None:
            raise ChannelClosed("a call over HTTP was not answered")
        return stream.answer


class _OneCallChannel(RPCChannel):
    """Nothing can be called over it: who has asked waits for an answer, and for nothing else."""

    def check_open(self) -> None:
        super().check_open()
        raise ChannelClosed(f"the peer cannot be called: {_NO_WAY_BACK}")


class _OneCall(ObjectStream[bytes]):
    """The bytes of one question, and of the answer to it, which ends the connection."""

    half_closes = False

    def __init__(self, line: bytes, request: HandshakeRequest) -> None:
        self.headers: Mapping[str, str] = request.headers
        self.client = request.client
        self.answer: bytes | None = None
        self.over = anyio.Event()
        self._line: bytes | None = line

    async def receive(self) -> bytes:
        line, self._line = self._line, None
        if line is None:
            await anyio.sleep_forever()
        assert line is not None
        return line

    async def receive_each(self, max_bytes: int, take: Callable[[bytes], bool]) -> None:
        if take(await self.receive()):
            await anyio.sleep_forever()

    def send_frames_nowait(self, frames: Sequence[bytes]) -> bool:
        if self.answer is None and frames:
            self.answer = frames[0]
            self.over.set()
        return True

    async def send_frames(self, frames: Sequence[bytes]) -> None:
        self.send_frames_nowait(frames)

    async def send(self, item: bytes) -> None:
        self.send_frames_nowait([item])

    async def send_eof(self) -> None:
        self.over.set()

    async def aclose(self) -> None:
        self.over.set()


def _question(found: Sequence[tuple[Any, int]]) -> _Question:
    """What is asked. Raises ActionError where it is nothing that has an answer (HTTP-11)."""
    message = found[0][0] if len(found) == 1 else None
    if isinstance(message, m.Broken):
        raise ActionError("PAYLOAD_TOO_LARGE", "The message is too large", 413)
    if isinstance(message, m.Request | m.Construct | m.Get | m.Set):
        return message
    if isinstance(message, m.Malformed) and message.id is not None and message.type in _ASKING:
        return message
    raise _not_one_message()


_ASKING = frozenset({"request", "construct", "get", "set"})


def _not_one_message() -> ActionError:
    return ActionError("INVALID_JSON", "The body is not one message that asks for something", 400)


def _hello_answer(question: m.Request) -> m.Message:
    """There is nothing to agree on for one call (HTTP-9)."""
    if question.id is None or len(question.args) != 1 or read_hello(question.args[0]) is None:
        return m.Failure(question.id, error_to_wire(ProtocolError("malformed hello")))
    return m.Result(question.id, hello_payload(frozenset()))


def _refused(id: m.Id | None, what: str) -> m.Failure:
    return m.Failure(id, error_to_wire(KkrpcError(f"{what}: {_NO_WAY_BACK}")))


def _opens_stream(answer: bytes, limits: Limits) -> bool:
    return isinstance(Decoder(limits).receive(answer)[0][0], m.StreamOpened)
