"""Mutants of framing, messages and ids (FRM, MSG)."""

# ruff: noqa: E501 - lines of the source are quoted whole

from __future__ import annotations

from tests.conformance.mutants.mutant import Mutant

_FRAMING = "kkrpc_py.wire.framing"
_CODEC = "kkrpc_py.wire.codec"
_JSON = "kkrpc_py.wire.json_codec"
_CLASSIC = "kkrpc_py.wire.classic"
_CONNECTION = "kkrpc_py.core.connection"
_CALLEE = "kkrpc_py.core.callee"
_CALLER = "kkrpc_py.core.caller"

MUTANTS = (
    Mutant(
        "line-separators-end-lines", "FRM-2", "a line ends at U+2028, U+2029 and U+0085 too",
        _FRAMING,
        "        at, size = 0, len(data)\n",
        "        for end in ('\\u2028', '\\u2029', '\\x85'):\n"
        "            data = data.replace(end.encode(), b'\\n')\n"
        "        at, size = 0, len(data)\n",
    ),
    Mutant(
        "cr-ends-lines", "FRM-2", "a line ends at CR too",
        _FRAMING,
        "        at, size = 0, len(data)\n",
        "        data = data.replace(b'\\r', b'\\n')\n        at, size = 0, len(data)\n",
    ),
    Mutant(
        "last-part-of-a-line", "FRM-2", "of a line that comes in parts the last one alone is kept",
        _FRAMING,
        "        self._buffer += data[at:stop]\n        if end < 0:\n            return stop\n        line, size",
        "        self._buffer = bytearray(data[at:stop])\n        if end < 0:\n            return stop\n"
        "        line, size",
    ),
    Mutant(
        "reads-decoded-alone", "FRM-2", "each read is decoded as UTF-8 on its own",
        _CODEC,
        "        return self._messages(self._framer.receive(data))\n",
        "        if b'\\xd8\\x18' not in data and not self._binary:\n"
        "            data = data.decode(errors='replace').encode()\n"
        "        return self._messages(self._framer.receive(data))\n",
    ),
    Mutant(
        "bom-is-noise", "FRM-1", "a byte order mark makes a line noise",
        _FRAMING, '_BLANKS_AND_BOM = _BLANKS + b"\\xef\\xbb\\xbf"', "_BLANKS_AND_BOM = _BLANKS",
    ),
    Mutant(
        "blanks-are-noise", "FRM-1", "a line that begins with blanks is noise",
        _FRAMING, "rest = data[at:stop].lstrip(_BLANKS_AND_BOM)", "rest = data[at:stop].lstrip(b'\\xef\\xbb\\xbf')",
    ),
    Mutant(
        "noise-closes", "FRM-4", "noise closes the channel",
        _CODEC, "if self._binary and type(item) is Noise:", "if type(item) is Noise:",
    ),
    Mutant(
        "noise-dropped", "FRM-4", "noise is not handed on",
        "kkrpc_py.channel.channel", "            self._passthrough(noise.data)\n", "            pass\n",
    ),
    Mutant(
        "noise-after-cbor", "FRM-5", "noise is accepted after CBOR frames, and so are CBOR frames that hold no message",
        _CODEC,
        "                self._binary = True\n                payload = frame[1]\n",
        "                self._framer.binary = False\n                payload = frame[1]\n",
    ),
    Mutant(
        "json-after-cbor-refused", "FRM-5", "after a CBOR frame a JSON line closes the channel",
        _CODEC,
        "            if frame[0] is _JSON:\n                item = self._read_json(frame[1])\n",
        "            if frame[0] is _JSON and self._binary:\n"
        "                item = Broken(ProtocolError('JSON after CBOR'))\n"
        "            elif frame[0] is _JSON:\n                item = self._read_json(frame[1])\n",
    ),
    Mutant(
        "frame-limit-off", "FRM-6", "frames of any length are read",
        _FRAMING, "self._limit = limits.frame", "self._limit = 1 << 40",
    ),
    Mutant(
        "frame-limit-one-less", "FRM-6", "a line of exactly the limit is refused",
        _FRAMING, "elif end - at > self._limit:", "elif end - at >= self._limit:",
    ),
    Mutant(
        "own-frame-limit-off", "FRM-6", "frames of any length are sent",
        _CODEC, "self._limit = limits.frame", "self._limit = 1 << 40",
    ),
    Mutant(
        "noise-uncut", "FRM-7", "a line of noise is handed on whole",
        _FRAMING, "self._noise_limit = limits.noise", "self._noise_limit = 1 << 40",
    ),
    Mutant(
        "depth-off", "FRM-8", "JSON of any depth is read",
        _JSON, "        self._depth = limits.depth\n", "        self._depth = 900\n",
    ),
    Mutant(
        "digits-off", "FRM-8", "JSON integers of any length are read",
        _JSON,
        "        self._digits = limits.digits\n        # Neither the digits",
        "        self._digits = 4000\n        # Neither the digits",
    ),
    Mutant(
        "beyond-bounds-is-noise", "FRM-8", "JSON that passes a bound is noise, though its id can be told",
        _CODEC,
        "            return self._parser.malformed(*self._json.salvage(text), str(error)) or self._noise(",
        "            return self._noise(text, str(error)) or self._noise(",
    ),
    Mutant(
        "end-inside-a-frame", "FRM-9", "an end of input inside a frame is an end like any other",
        _FRAMING,
        '                self._broken(frames, ProtocolError("the byte stream ended inside a frame"))\n',
        "                pass\n",
    ),
    Mutant(
        "cbor-head-skipped", "FRM-9", "a CBOR frame that is no byte string of definite length is skipped",
        _FRAMING,
        '            self._broken(frames, ProtocolError("a CBOR frame that is no byte string of definite length"))\n',
        "            self._reset()\n",
    ),
    Mutant(
        "cbor-trailing-bytes", "FRM-3", "bytes after the item of a CBOR frame are ignored",
        "kkrpc_py.wire.cbor_careful", "if self._heads.at != len(self._heads.payload):", "if False:",
    ),
    Mutant(
        "cbor-refused-closes", "FRM-3", "CBOR whose content is refused closes the channel",
        _CODEC,
        "            known = self._parser.malformed(*self._cbor.salvage(payload), str(error))\n",
        "            known = None\n",
    ),
    Mutant(
        "stock-read-length", "FRM-10", "a line of 65,536 bytes is written as it is",
        _CODEC, "if self.stock and not len(text) % _STOCK_READ:", "if False:",
    ),
    Mutant(
        "not-ascii", "FRM-11", "JSON toward a stock peer is UTF-8",
        _JSON, "if self._stock and not text.isascii():", "if False:",
    ),
    Mutant(
        "no-line-feed-first", "FRM-12", "the first write does not begin with a line feed",
        "kkrpc_py.channel.channel", "self._preamble = preamble", "self._preamble = b''",
    ),
    Mutant(
        "cbor-unasked", "FRM-13", "CBOR is written before it is agreed",
        _CODEC, 'self.cbor = codec == "cbor"', 'self.cbor = codec in ("auto", "cbor")',
    ),
    Mutant(
        "unknown-type-closes", "MSG-1", "an object of an unknown type closes the channel",
        _CODEC,
        'or self._noise(text, "a JSON object of no known type")',
        "or Broken(ProtocolError('an unknown type'))",
    ),
    Mutant(
        "unknown-field-is-noise", "MSG-1", "a message with an unknown field is noise",
        _CLASSIC,
        "        elif type(found) is dict:\n            fields = _fields(found)\n",
        "        elif type(found) is dict and set(Fields.__struct_fields__).issuperset(found):\n"
        "            fields = _fields(found)\n",
    ),
    Mutant(
        "long-ids", "MSG-2", "ids of any length are taken",
        _CLASSIC, "self._id_bytes = limits.id_bytes", "self._id_bytes = 1 << 20",
    ),
    Mutant(
        "id-length-in-characters", "MSG-2", "the length of an id is counted in characters",
        _CLASSIC, "fits = len(text.encode()) <= self._id_bytes", "fits = len(text) <= self._id_bytes",
    ),
    Mutant(
        "integer-ids-as-text", "MSG-2", "an integer id is answered as text",
        _CLASSIC,
        "return number if -self._id_bound < number < self._id_bound else _WRONG_ID",
        "return str(number) if -self._id_bound < number < self._id_bound else _WRONG_ID",
    ),
    Mutant(
        "any-number-is-an-id", "MSG-2", "floats and booleans are taken for ids",
        _CLASSIC, "        if kind is int:\n            number: int = id", "        if kind in (int, float, bool):\n            number: int = id",
    ),
    Mutant(
        "duplicate-id-runs", "MSG-3", "a request under an id in use runs too",
        _CALLEE,
        "        if id in self.incoming:\n            self.passage.drop(message)\n            return self._in_use(id)\n        if method",
        "        if method",
    ),
    Mutant(
        "duplicate-id-answered", "MSG-3", "a request under an id in use is answered with an error",
        _CALLEE,
        "        self._step_callee(self.incoming[id], CalleeEvent.REQUEST)\n",
        "        self._put(m.Failure(id, error_to_wire(LimitExceeded('the id is in use'))))\n",
    ),
    Mutant(
        "malformed-unanswered", "MSG-4", "malformed questions are not answered",
        _CONNECTION,
        "            return self._refuse(message.id, message.reason) or self._violation(reason)\n",
        "            return self._violation(reason)\n",
    ),
    Mutant(
        "malformed-answer-ignored", "MSG-4", "a malformed answer leaves its call pending",
        _CONNECTION, "        if message.type in _ANSWERING:\n", "        if False:\n",
    ),
    Mutant(
        "malformed-chunk-ignored", "MSG-4", "a malformed chunk is dropped, and its stream goes on",
        _CONNECTION, 'if message.type == "stream-chunk" and call.state in', "if False and call.state in",
    ),
    Mutant(
        "malformed-closes", "MSG-7", "a malformed message that is no question closes the channel",
        _CONNECTION,
        "        event = self._violation(reason)\n",
        "        event = ev.Lost(ProtocolError(reason))\n",
    ),
    Mutant(
        "nothing-counted", "MSG-4", "violations are not counted",
        "kkrpc_py.core.half",
        "        self.violations += 1\n        return ev.Violated",
        "        return ev.Violated",
    ),
    Mutant(
        "id-demanded", "MSG-5", "a request without an id is refused",
        _CLASSIC,
        "if id is _WRONG_ID or (id is None and of_stream):",
        'if id is _WRONG_ID or (id is None and (of_stream or kind in ("request", "get", "set", "construct"))):',
    ),
    Mutant(
        "unknown-answer-closes", "MSG-6", "an answer for an unknown id closes the channel",
        _CALLER,
        '            return self._violation(f"{event.name.lower()} for the unknown id {id!r}")\n',
        "            return ev.Lost(ProtocolError('an answer for an unknown id'))\n",
    ),
    Mutant(
        "unknown-answer-ignored", "MSG-6", "an answer for an unknown id is not counted",
        _CALLER,
        '            return self._violation(f"{event.name.lower()} for the unknown id {id!r}")\n',
        "            return None\n",
    ),
    Mutant(
        "crossed-cancel-counted", "MSG-6", "a cancel for an unknown id is counted",
        _CALLEE,
        "            return None  # it crossed the end, which is its answer (CAN-5)\n",
        "            return self._violation('a cancel for an unknown id')\n",
    ),
    Mutant(
        "crossed-cancel-answered", "CAN-5", "a cancel for an unknown id is answered",
        _CALLEE,
        "            return None  # it crossed the end, which is its answer (CAN-5)\n",
        "            self._put(m.StreamEnd(message.id, cancelled=True))\n            return None\n",
    ),
    Mutant(
        "crossed-ack-counted", "CRD-6", "an acknowledgement that means nothing is counted",
        _CALLEE,
        "            return None  # it crossed the end, or means nothing here (CRD-6)\n",
        "            return self._violation('an acknowledgement that means nothing')\n",
    ),
)  # fmt: skip
