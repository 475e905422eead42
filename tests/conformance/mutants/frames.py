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
        "own-frame-limit-off", "FRM-6", "frames of any length are sent",
        _CODEC, "self._limit = limits.frame", "self._limit = 1 << 40",
    ),
    Mutant(
        "depth-off", "FRM-8", "JSON of any depth is read",
        _JSON, "        self._depth = limits.depth\n", "        self._depth = 900\n",
    ),
    Mutant(
        "cbor-refused-closes", "FRM-3", "CBOR whose content is refused closes the channel",
        _CODEC,
        "            known = self._parser.malformed(*self._cbor.salvage(payload), str(error))\n",
        "            known = None\n",
    ),
    Mutant(
        "stock-forgotten", "FRM-10", "the peer is never taken for a stock one: nothing is padded, escaped or refused for it",
        _CODEC, "        self.stock = True\n", "        self.stock = False\n",
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
        "integer-ids-as-text", "MSG-2", "an integer id is answered as text",
        _CLASSIC,
        "return number if -self._id_bound < number < self._id_bound else _WRONG_ID",
        "return str(number) if -self._id_bound < number < self._id_bound else _WRONG_ID",
    ),
    Mutant(
        "duplicate-id-runs", "MSG-3", "a request under an id in use runs too",
        _CALLEE,
        "        if id in self.incoming:\n            self.passage.drop(message)\n            return self._in_use(id)\n        if method",
        "        if method",
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
        "crossed-cancel-counted", "MSG-6", "a cancel for an unknown id is counted",
        _CALLEE,
        "            return None  # it crossed the end, which is its answer (CAN-5)\n",
        "            return self._violation('a cancel for an unknown id')\n",
    ),
)  # fmt: skip
