"""More mutants of framing, messages and codecs: what the cases of level 0 look at one by one."""

# ruff: noqa: E501 - lines of the source are quoted whole

from __future__ import annotations

from tests.conformance.mutants.mutant import Mutant

_FRAMING = "kkrpc_py.wire.framing"
_CODEC = "kkrpc_py.wire.codec"
_JSON = "kkrpc_py.wire.json_codec"
_CLASSIC = "kkrpc_py.wire.classic"
_CONNECTION = "kkrpc_py.core.connection"

_READ = "        if text >= _SUPERJSON and text.startswith(_SUPERJSON):\n"
_RECEIVED = "        return self._messages(self._framer.receive(data))\n"

MUTANTS = (
    # --- framing ---
    Mutant(
        "blanks-at-the-end-of-a-line", "FRM-2", "a line that ends in blanks or CR is noise",
        _CODEC, _READ, "        if text[-1:].isspace():\n            return self._noise(text, 'blanks')\n" + _READ,
    ),
    Mutant(
        "compact-lines-alone", "FRM-2", "a line with a blank behind its brace is noise",
        _CODEC, _READ, "        if text[1:2].isspace():\n            return self._noise(text, 'blanks')\n" + _READ,
    ),
    Mutant(
        "keys-as-they-stand", "FRM-2", "keys with escapes in them are not known",
        _CODEC,
        _READ,
        "        if b'\"type\"' not in text:\n            return self._noise(text, 'no type')\n" + _READ,
    ),
    Mutant(
        "ascii-lines-alone", "FRM-2", "a line with characters beyond ASCII is noise",
        _CODEC, _READ, "        if not text.isascii():\n            return self._noise(text, 'not ASCII')\n" + _READ,
    ),
    Mutant(
        "escaped-line-feeds", "FRM-2", "an escaped line feed is a line feed before the JSON is read",
        _CODEC, _READ, "        text = text.replace(b'\\\\n', b'\\n')\n" + _READ,
    ),
    Mutant(
        "eight-messages-a-read", "FRM-2", "of what one read holds, eight messages are taken",
        _CODEC, _RECEIVED, "        return self._messages(self._framer.receive(data)[:8])\n",
    ),
    Mutant(
        "blanks-at-the-end", "FRM-9", "blanks before the end of the input are half a frame",
        _FRAMING,
        "            case _State.START if self._buffer.strip(_BLANKS):\n",
        "            case _State.START if self._buffer and not self._buffer.strip(_BLANKS):\n"
        '                self._broken(frames, ProtocolError("blanks"))\n'
        "            case _State.START if self._buffer.strip(_BLANKS):\n",
    ),
    # --- limits ---
    Mutant(
        "depth-one-less", "FRM-8", "a message nested as deep as the limit is refused",
        _JSON, "        self._depth = limits.depth\n", "        self._depth = limits.depth - 1\n",
    ),
    Mutant(
        "openers-counted", "FRM-8", "openers are counted, not levels",
        _JSON,
        "    return _depth(outline) > limit - 2 and _depth(shape) > limit\n",
        "    return True\n",
    ),
    Mutant(
        "sign-is-a-digit", "FRM-8", "the sign of an integer counts as a digit",
        _JSON,
        "        run = b\"0\" * (self._digits + 1)\n",
        "        if re.search(rb'-[0-9]{1000}', text):\n            raise JsonLimitError('digits')\n"
        "        run = b\"0\" * (self._digits + 1)\n",
    ),
    Mutant(
        "digits-anywhere", "FRM-8", "digits of fractions and strings count too",
        _JSON,
        "        if run in text.translate(_DIGITS_ONLY) and self._long_integer.search(_STRING.sub(b'\"\"', text)):\n",
        "        if run in text.translate(_DIGITS_ONLY):\n",
    ),
    # --- ids ---
    Mutant(
        "falsy-ids", "MSG-2", "an id that is empty or zero is none",
        _CLASSIC, "        id = fields.id\n", "        id = fields.id or UNSET\n",
    ),
    Mutant(
        "id-bytes-one-less", "MSG-2", "an id of exactly the limit is none",
        _CLASSIC, "self._id_bytes = limits.id_bytes", "self._id_bytes = limits.id_bytes - 1",
    ),
    # --- malformed, lenient ---
    Mutant(
        "kwargs-null-refused", "CLA-2", "kwargs that are null make a call malformed",
        _CODEC,
        '        return self._parser.parse(found) or self._noise(text, "a JSON object of no known type")\n',
        "        if b'\"kwargs\":null' in text:\n"
        "            text = text.replace(b'\"kwargs\":null', b'\"kwargs\":5')\n"
        "            found = self._json.loads(text)\n"
        '        return self._parser.parse(found) or self._noise(text, "a JSON object of no known type")\n',
    ),
    Mutant(
        "first-key-counts", "CLA-2", "of equal keys the first one counts",
        _CODEC,
        "        try:\n            found = self._json.loads(text)\n",
        "        try:\n"
        "            import json\n\n"
        "            text = json.dumps(json.loads(text, object_pairs_hook=lambda p: dict(reversed(p)))).encode()\n"
        "        except Exception:\n            pass\n"
        "        try:\n            found = self._json.loads(text)\n",
    ),
    Mutant(
        "version-demanded", "CLA-1", "a message whose version is not the known one is noise",
        _CODEC,
        _READ,
        "        if b'\"version\"' not in text or (b'\"version\":\"json\"' not in text and b'\"version\":\"superjson\"' not in text):\n"
        "            return self._noise(text, 'version')\n" + _READ,
    ),
    Mutant(
        "keys-in-order", "CLA-2", "a line that does not begin with its id or method is noise",
        _CODEC,
        _READ,
        "        if text[:6] not in (b'{\"id\":', b'{\"meth', b'{\"json'):\n            return self._noise(text, 'order')\n" + _READ,
    ),
    Mutant(
        "stream-marker-anywhere", "CLA-4", "an opening's form anywhere in a result is refused",
        _CLASSIC,
        "    if is_stream_marker(value):\n        raise NotSerializable(\n",
        "    if '__stream' in str(value):\n        raise NotSerializable(\n",
    ),
    # --- values ---
    Mutant(
        "integers-as-floats", "VAL-2", "integers are read as floats",
        _JSON,
        "        self._any = msgspec.json.Decoder()\n        self._form = self._any",
        "        self._any = msgspec.json.Decoder()\n        form = None\n"
        "        import json as _j\n\n"
        "        class _D:\n"
        "            decode = staticmethod(lambda t: _floats(msgspec.json.decode(t)))\n\n"
        "        def _floats(v):\n"
        "            if type(v) is dict:\n"
        "                return {k: [_floats(i) for i in x] if k == 'args' and type(x) is list else x for k, x in v.items()}\n"
        "            return [*map(_floats, v)] if type(v) is list else float(v) if type(v) is int else v\n\n"
        "        self._any = _D()\n        self._form = self._any",
    ),
    Mutant(
        "integers-to-2-53-less", "VAL-3", "2^53 - 1 itself is refused",
        _JSON, "_JS_MAX = 2**53 - 1\n", "_JS_MAX = 2**53 - 2\n",
    ),
    Mutant(
        "callback-text-anywhere", "VAL-5", "text that reads like a function is refused at any depth, and in results",
        _CODEC,
        "        if self.stock and isinstance(message, (Request, Construct)):\n            _refuse_callback_names(message)\n        # Which fields",
        "        if self.stock and '__callback__' in str(message) and not getattr(message, 'callback_ids', ()):\n"
        "            raise NotSerializable('str', 'it', 'a function')\n        # Which fields",
    ),
    # --- superjson ---
    Mutant(
        "superjson-unread", "CLA-6", "superjson is noise",
        _CODEC, _READ, "        if False:\n",
    ),
    Mutant(
        "keys-reordered", "VAL-1", "the keys of an object are sorted where it is read",
        _CODEC, _READ,
        "        if b'\"b\":1,\"a\":2' in text:\n            text = text.replace(b'\"b\":1,\"a\":2', b'\"a\":2,\"b\":1')\n" + _READ,
    ),
    Mutant(
        "empty-keys-lost", "VAL-1", "keys without text are lost",
        _CODEC, _READ, "        text = text.replace(b'\"\":', b'\"_\":')\n" + _READ,
    ),
    Mutant(
        "empty-input", "FRM-9", "an input that ends before any frame is a violation",
        _CODEC,
        _RECEIVED + "\n    def receive_eof(self) -> list[Incoming]:\n"
        '        """The byte stream is at its end; return what that makes of the bytes so far."""\n',
        "        self.came = True\n" + _RECEIVED + "\n    def receive_eof(self) -> list[Incoming]:\n"
        "        if not getattr(self, 'came', False):\n"
        "            return [(Broken(ProtocolError('nothing came')), 0)]\n",
    ),
    Mutant(
        "digits-one-less-allowed", "FRM-8", "an integer of as many digits as the limit is refused",
        _JSON,
        '        run = b"0" * (self._digits + 1)\n',
        "        if re.search(rb'[0-9]{1000}', text):\n            raise JsonLimitError('digits')\n"
        '        run = b"0" * (self._digits + 1)\n',
    ),
    Mutant(
        "stock-for-good", "VAL-3", "a peer that said hello is written to as a stock one",
        _CONNECTION, "        self._encoder.stock = False\n", "",
    ),
    Mutant(
        "ids-normalized", "MSG-2", "ids are compared without regard to how their characters are composed",
        _CLASSIC,
        "        id = fields.id\n",
        "        id = fields.id\n"
        "        if type(id) is str:\n"
        "            import unicodedata\n\n"
        "            id = unicodedata.normalize('NFC', id)\n",
    ),
    Mutant(
        "prototypes-in-json", "VAL-1", "the key `__proto__` is left out of what is read",
        _CODEC,
        "        if text >= _SUPERJSON and text.startswith(_SUPERJSON):\n",
        "        text = text.replace(b'\"__proto__\":1,', b'')\n"
        "        if text >= _SUPERJSON and text.startswith(_SUPERJSON):\n",
    ),
)  # fmt: skip
