"""More mutants of framing, messages and codecs: what the cases of level 0 look at one by one."""

# ruff: noqa: E501 - lines of the source are quoted whole

from __future__ import annotations

from tests.conformance.mutants.mutant import Mutant

_FRAMING = "kkrpc_py.wire.framing"
_CODEC = "kkrpc_py.wire.codec"
_JSON = "kkrpc_py.wire.json_codec"
_CLASSIC = "kkrpc_py.wire.classic"
_CONNECTION = "kkrpc_py.core.connection"
_READER = "kkrpc_py.wire.superjson_reader"
_WRITER = "kkrpc_py.wire.superjson_writer"
_CAREFUL = "kkrpc_py.wire.cbor_careful"
_CBOR = "kkrpc_py.wire.cbor_codec"
_TAGS = "kkrpc_py.wire.cbor_tags"

_READ = "        if text >= _SUPERJSON and text.startswith(_SUPERJSON):\n"
_RECEIVED = "        return self._messages(self._framer.receive(data))\n"
_NO_JSON = '            return self._noise(text, f"not JSON: {error}")\n'

MUTANTS = (
    # --- framing ---
    Mutant(
        "marks-anywhere", "FRM-1", "any number of byte order marks is skipped",
        _FRAMING,
        '_PREFIX = re.compile(rb"[ \\t\\r]*(?:\\xef\\xbb\\xbf)?[ \\t\\r]*\\{")',
        '_PREFIX = re.compile(rb"(?:[ \\t\\r]|\\xef\\xbb\\xbf)*\\{")',
    ),
    Mutant(
        "mark-as-a-blank-line", "FRM-1", "a line of a byte order mark alone is empty",
        _FRAMING, "            blank = not buffer.strip(_BLANKS)\n", "            blank = True\n",
    ),
    Mutant(
        "d8-alone-is-a-head", "FRM-1", "0xD8 begins a CBOR frame whatever follows",
        _FRAMING,
        "            if len(buffer) > 1 and buffer[1] != _TAG[1]:\n",
        "            if False:\n",
    ),
    Mutant(
        "blanks-before-d8", "FRM-1", "blanks before a CBOR frame are skipped",
        _FRAMING,
        "        rest = data[at:stop].lstrip(_BLANKS_AND_BOM)\n",
        "        rest = data[at:stop].lstrip(_BLANKS_AND_BOM)\n"
        "        if rest[:2] == _TAG:\n"
        "            buffer.clear()\n"
        "            self._state = _State.HEAD\n"
        "            return self._head(data, stop - len(rest), frames)\n",
    ),
    Mutant(
        "other-brackets-skipped", "FRM-1", "lines of JSON that hold no object are dropped in silence",
        _CODEC,
        "                item = frame[1]\n            if self._binary",
        "                item = frame[1]\n"
        "                if type(item) is Noise and item.data[:1] in b'[\"0123456789':\n"
        "                    continue\n"
        "            if self._binary",
    ),
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
        "blank-reads-dropped", "FRM-2", "a read of white space alone is dropped, as kkrpc does",
        _CODEC, _RECEIVED, "        return self._messages(self._framer.receive(data)) if data.strip() else []\n",
    ),
    Mutant(
        "rest-of-a-read-lost", "FRM-2", "what follows the last line feed of a read is lost",
        _CODEC,
        _RECEIVED,
        "        return self._messages(self._framer.receive(\n"
        "            data[: data.rfind(b'\\n') + 1] if data[:1] == b'{' and b'\\n' in data else data\n"
        "        ))\n",
    ),
    Mutant(
        "head-in-one-read", "FRM-2", "a CBOR head that is cut by a read is noise",
        _FRAMING,
        "            if not more:\n                return at\n",
        "            if not more:\n                return self._begin(_State.NOISE, data, at, frames)\n",
    ),
    Mutant(
        "whole-objects-at-the-end", "FRM-9", "at the end of the input a line needs no line feed",
        _FRAMING,
        '                self._broken(frames, ProtocolError("the byte stream ended inside a frame"))\n',
        "                if self._buffer[-1:] == b'}':\n"
        "                    frames.append((Kind.JSON, bytes(self._buffer), self._length))\n"
        "                else:\n"
        '                    self._broken(frames, ProtocolError("the byte stream ended inside a frame"))\n',
    ),
    Mutant(
        "blanks-at-the-end", "FRM-9", "blanks before the end of the input are half a frame",
        _FRAMING,
        "            case _State.START if self._buffer.strip(_BLANKS):\n",
        "            case _State.START if self._buffer and not self._buffer.strip(_BLANKS):\n"
        '                self._broken(frames, ProtocolError("blanks"))\n'
        "            case _State.START if self._buffer.strip(_BLANKS):\n",
    ),
    Mutant(
        "noise-at-the-end", "FRM-9", "a last line of noise without line feed is half a frame",
        _FRAMING,
        "        if self._state is _State.NOISE:\n            self._emit_noise(frames)\n        self.stop()\n",
        "        if self._state is _State.NOISE:\n            self._broken(frames, ProtocolError('half a line'))\n"
        "        self.stop()\n",
    ),
    Mutant(
        "d8-at-the-end", "FRM-9", "0xD8 before the end of the input is half a frame",
        _FRAMING, "            case _State.HEAD if len(self._buffer) == 1:\n", "            case _State.HEAD if False:\n",
    ),
    Mutant(
        "noise-at-the-end-after-cbor", "FRM-5", "a line of noise without line feed is forgiven after CBOR frames",
        _FRAMING,
        "        if state is _State.NOISE and self.binary:\n",
        "        if state is _State.NOISE and self.binary and b'\\n' in data:\n",
    ),
    # --- noise ---
    Mutant(
        "noise-is-a-violation", "FRM-4", "noise is counted with the violations",
        _CONNECTION, "        self.noise += 1\n", "        self.noise += 1\n        self._violation(noise.reason)\n",
    ),
    Mutant(
        "noise-twice", "FRM-4", "noise is handed on twice",
        "kkrpc_py.channel.channel",
        "            self._passthrough(noise.data)\n",
        "            self._passthrough(noise.data)\n            self._passthrough(noise.data)\n",
    ),
    Mutant(
        "first-object-of-a-line", "FRM-4", "what follows the first object on a line is dropped",
        _CODEC,
        _NO_JSON,
        "            import json\n\n"
        "            try:\n"
        "                found = json.JSONDecoder().raw_decode(text.decode())[0]\n"
        "            except ValueError:\n"
        "                return self._noise(text, f'not JSON: {error}')\n",
    ),
    Mutant(
        "message-within-noise", "FRM-4", "a message is looked for behind other text on its line",
        _CODEC,
        "                item = frame[1]\n            if self._binary",
        "                item = frame[1]\n"
        "                if type(item) is Noise and b'{\"' in item.data:\n"
        "                    item = self._read_json(item.data[item.data.index(b'{\"') :].rstrip(b'\"]'))\n"
        "            if self._binary",
    ),
    Mutant(
        "trailing-commas", "FRM-4", "commas before a closing bracket are passed over",
        _CODEC,
        _READ,
        "        import re\n\n        text = re.sub(rb',(?=[\\]}])', b'', text)\n" + _READ,
    ),
    Mutant(
        "lenient-strings", "FRM-4", "control characters may stand in strings",
        _CODEC,
        _NO_JSON,
        "            import json\n\n"
        "            try:\n"
        "                found = json.loads(text, strict=False)\n"
        "            except ValueError:\n"
        "                return self._noise(text, f'not JSON: {error}')\n",
    ),
    Mutant(
        "utf-8-replaced", "FRM-4", "bytes that are no UTF-8 are replaced",
        _CODEC, _READ, "        text = text.decode(errors='replace').encode()\n" + _READ,
    ),
    Mutant(
        "marks-within", "FRM-4", "byte order marks are blanks wherever they stand",
        _CODEC, _READ, "        text = text.replace(b'\\xef\\xbb\\xbf', b'')\n" + _READ,
    ),
    Mutant(
        "type-request", "MSG-1", "an object without a type is a request",
        _CLASSIC, "        kind = fields.type\n", "        kind = fields.type or 'request'\n",
    ),
    Mutant(
        "types-in-any-case", "MSG-1", "types are compared without regard to case and blanks",
        _CLASSIC,
        "        kind = fields.type\n",
        "        kind = fields.type.strip().lower() if type(fields.type) is str else fields.type\n",
    ),
    Mutant(
        "type-within-a-list", "MSG-1", "a type that is a list of one is that one",
        _CLASSIC,
        "        kind = fields.type\n",
        "        kind = fields.type[0] if type(fields.type) is list and fields.type else fields.type\n",
    ),
    Mutant(
        "unknown-type-answered", "MSG-1", "an object of an unknown type is answered with an error",
        _CODEC,
        'or self._noise(text, "a JSON object of no known type")',
        "or __import__('kkrpc_py.wire.messages', fromlist=['m']).Malformed(None, 'request', 'unknown type')",
    ),
    Mutant(
        "noise-ends-with-the-read", "FRM-4", "a line of noise ends with the read it is in",
        _FRAMING,
        "        if end < 0:\n            return stop\n        self._emit_noise(frames)\n",
        "        if end < 0:\n            self._emit_noise(frames)\n            return stop\n        self._emit_noise(frames)\n",
    ),
    Mutant(
        "noise-one-less", "FRM-7", "noise is cut one byte before the limit",
        _FRAMING, "self._noise_limit = limits.noise", "self._noise_limit = limits.noise - 1",
    ),
    Mutant(
        "noise-cut-into-lines", "FRM-7", "the rest of a line of noise is a line of its own",
        _FRAMING,
        "        self._length += stop - at\n        if end < 0:\n            return stop\n        self._emit_noise(frames)\n",
        "        if room < stop - at:\n"
        "            self._length = len(self._buffer)\n"
        "            self._emit_noise(frames)\n"
        "            return at + max(room, 0)\n"
        "        self._length += stop - at\n        if end < 0:\n            return stop\n        self._emit_noise(frames)\n",
    ),
    Mutant(
        "noise-of-a-brace-uncut", "FRM-7", "a line of noise that begins with a brace is handed on whole",
        _CODEC, "        return Noise(text[: self._noise_limit], reason)\n", "        return Noise(text, reason)\n",
    ),
    Mutant(
        "noise-as-long-as-a-frame", "FRM-7", "a line of noise may be no longer than a frame",
        _FRAMING,
        "        self._length += stop - at\n        if end < 0:\n            return stop\n        self._emit_noise(frames)\n",
        "        self._length += stop - at\n"
        "        if self._length > self._limit:\n"
        "            self._exceeded(frames, 'noise', self._length)\n"
        "            return stop\n"
        "        if end < 0:\n            return stop\n        self._emit_noise(frames)\n",
    ),
    Mutant(
        "blanks-bounded", "FRM-7", "more blanks than a line of noise may hold close the channel",
        _FRAMING,
        "        if len(buffer) > self._blank_limit:\n            return self._begin(",
        "        if len(buffer) > self._blank_limit:\n            self._exceeded(frames, 'blanks', len(buffer))\n"
        "        if len(buffer) > self._blank_limit:\n            return self._begin(",
    ),
    # --- limits ---
    Mutant(
        "line-limit-one-less", "FRM-6", "a line in pieces of exactly the limit is refused",
        _FRAMING,
        "        if self._length > self._limit:\n            self._exceeded(frames, \"a line\", self._length)\n",
        "        if self._length >= self._limit:\n            self._exceeded(frames, \"a line\", self._length)\n",
    ),
    Mutant(
        "line-limit-at-its-end", "FRM-6", "that a line is too long is found at its end",
        _FRAMING,
        "        if self._length > self._limit:\n            self._exceeded(frames, \"a line\", self._length)\n",
        "        if end >= 0 and self._length > self._limit:\n            self._exceeded(frames, \"a line\", self._length)\n",
    ),
    Mutant(
        "line-limit-of-a-read", "FRM-6", "the limit of a line holds for each of its pieces",
        _FRAMING,
        "        if self._length > self._limit:\n            self._exceeded(frames, \"a line\", self._length)\n",
        "        if stop - at > self._limit:\n            self._exceeded(frames, \"a line\", self._length)\n",
    ),
    Mutant(
        "limit-of-all-lines", "FRM-6", "the limit of a frame holds for all lines together",
        _FRAMING,
        "        if self._length > self._limit:\n            self._exceeded(frames, \"a line\", self._length)\n",
        "        self._sum = getattr(self, '_sum', 0) + stop - at\n"
        "        if self._sum > self._limit:\n            self._exceeded(frames, \"a line\", self._length)\n",
    ),
    Mutant(
        "payload-limit-one-less", "FRM-6", "a payload of exactly the limit is refused",
        _FRAMING, "        if length > self._limit:\n", "        if length >= self._limit:\n",
    ),
    Mutant(
        "payload-limit-at-its-end", "FRM-6", "that a payload is too long is found at its end",
        _FRAMING,
        '        if length > self._limit:\n            self._exceeded(frames, "a CBOR frame", length)\n            return at\n',
        "",
    ),
    Mutant(
        "depth-one-less", "FRM-8", "a message nested as deep as the limit is refused",
        _JSON, "        self._depth = limits.depth\n", "        self._depth = limits.depth - 1\n",
    ),
    Mutant(
        "maps-are-no-levels", "FRM-8", "lists alone count as levels",
        _JSON, '_STEP = [1 if byte in b"[{" else -1 if byte in b"]}"', '_STEP = [1 if byte in b"[" else -1 if byte in b"]"',
    ),
    Mutant(
        "brackets-of-strings", "FRM-8", "brackets within strings that hold escapes are counted",
        _JSON, '        text = _STRING.sub(b"", text)\n    shape', '        text = text.replace(b"\\\\", b"")\n    shape',
    ),
    Mutant(
        "openers-counted", "FRM-8", "openers are counted, not levels",
        _JSON,
        "    return _depth(outline) > limit - 2 and _depth(shape) > limit\n",
        "    return True\n",
    ),
    Mutant(
        "recursion-unguarded", "FRM-8", "what no recursion has room for is an exception that nobody handles",
        _JSON,
        "            skeleton = self._skeletons.decode(text)\n        except (msgspec.MsgspecError, ValueError, RecursionError):\n",
        "            skeleton = self._skeletons.decode(text)\n        except ValueError:\n",
    ),
    Mutant(
        "deep-noise-is-malformed", "FRM-8", "what is too deep is counted, with a type or without",
        _CLASSIC,
        "        if type(kind) is not str or kind not in self._parsers:\n            return None\n",
        "        if type(kind) is not str or kind not in self._parsers:\n            kind = 'response'\n",
    ),
    Mutant(
        "sends-any-depth", "FRM-8", "values of any depth are sent",
        _JSON, "        self._depth = limits.depth - _ENVELOPE_DEPTH\n", "        self._depth = 200\n",
    ),
    Mutant(
        "digits-one-less", "FRM-8", "an integer of as many digits as the limit is refused",
        _JSON,
        "        self._digits = limits.digits\n        # Neither the digits",
        "        self._digits = limits.digits - 1\n        # Neither the digits",
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
    Mutant(
        "bytes-form-is-no-level", "FRM-8", "kkrpc's form of bytes may be sent and read one level deeper",
        _JSON, "_BYTES_DEPTH = 2\n", "_BYTES_DEPTH = 4\n",
    ),
    Mutant(
        "cbor-far-too-deep", "FRM-8", "of a CBOR message that is far too deep nothing is found",
        _CAREFUL,
        "    heads = _Heads(payload)\n    known",
        "    heads = _Heads(payload)\n    heads._left = 1000\n    known",
    ),
    # --- ids ---
    Mutant(
        "falsy-ids", "MSG-2", "an id that is empty or zero is none",
        _CLASSIC, "        id = fields.id\n", "        id = fields.id or UNSET\n",
    ),
    Mutant(
        "null-is-no-id", "MSG-2", "an id of null is a missing one",
        _CLASSIC, "return None if id is UNSET else _WRONG_ID", "return None if id is UNSET or id is None else _WRONG_ID",
    ),
    Mutant(
        "ids-as-doubles", "MSG-2", "integer ids are kept as doubles",
        _CLASSIC, "            number: int = id\n", "            number: int = int(float(id))\n",
    ),
    Mutant(
        "ids-to-2-53", "MSG-2", "integers beyond 2^53 are no ids",
        _CLASSIC, "        self._id_bound = 10**limits.id_bytes\n", "        self._id_bound = 2**53\n",
    ),
    Mutant(
        "id-bytes-one-less", "MSG-2", "an id of exactly the limit is none",
        _CLASSIC, "self._id_bytes = limits.id_bytes", "self._id_bytes = limits.id_bytes - 1",
    ),
    Mutant(
        "id-digits-off", "MSG-2", "integers of any length are ids",
        _CLASSIC, "        self._id_bound = 10**limits.id_bytes\n", "        self._id_bound = 10**900\n",
    ),
    Mutant(
        "wrong-ids-ignored", "MSG-2", "a message with what is no id is dropped, uncounted",
        _CONNECTION,
        '        reason = f"malformed {message.type}: {message.reason}"\n',
        "        if message.id is None and message.type not in _ASKING:\n            return None\n"
        '        reason = f"malformed {message.type}: {message.reason}"\n',
    ),
    # --- malformed, lenient ---
    Mutant(
        "method-demanded-of-calls-alone", "CLA-3", "a construct's method that is no string is looked up as text",
        _CLASSIC,
        "        if type(method) is not str:\n            return _malformed(fields, kind, id, f\"Invalid {kind}",
        "        if kind == 'construct':\n            method = str(method)\n"
        "        if type(method) is not str:\n            return _malformed(fields, kind, id, f\"Invalid {kind}",
    ),
    Mutant(
        "path-of-anything", "CLA-3", "keys of a path that are no strings are looked up as text",
        _CLASSIC,
        "        path = fields.path\n        if type(path) is list",
        "        path = fields.path\n        if type(path) is list:\n            path = [k if type(k) is str else str(k) for k in path]\n"
        "        if type(path) is list",
    ),
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
        "answer-keeps-its-call", "MSG-4", "after a malformed answer its call goes on",
        _CONNECTION, "        if message.type in _ANSWERING:\n", "        if message.type in _ANSWERING and message.type != 'response':\n",
    ),
    Mutant(
        "malformed-under-a-live-id", "MSG-4", "a malformed question under an id in use is answered",
        _CONNECTION,
        "            return self._refuse(message.id, message.reason) or self._violation(reason)\n",
        "            self._put(m.Failure(message.id, ErrorValue('Error', message.reason, bare=True)))\n"
        "            return self._violation(reason)\n",
    ),
    Mutant(
        "cancel-answer-unreadable", "MSG-4", "a malformed end is no answer to a cancel",
        _CONNECTION,
        "            if self._step_caller(call, CallerEvent.UNREADABLE) is Do.CONFIRM:\n                return ev.Stopped(call, None, True)\n",
        "            if call.state is CallerState.CANCELLING:\n                return event\n"
        "            self._step_caller(call, CallerEvent.UNREADABLE)\n",
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
        "args-by-name", "CLA-2", "args of a call that are an object are its arguments in order",
        _CLASSIC,
        "        if type(args) is not list:\n            args = []\n",
        "        if type(args) is dict:\n            args = [*args.values()]\n"
        "        if type(args) is not list:\n            args = []\n",
    ),
    Mutant(
        "one-argument", "CLA-2", "args that are no list are the one argument",
        _CLASSIC,
        "        if type(args) is not list:\n            args = []\n",
        "        if type(args) is not list:\n            args = [] if args is None else [args]\n",
    ),
    Mutant(
        "callback-args-demanded", "CLA-2", "a callback whose args are no list is malformed",
        _CLASSIC,
        '        if not _is_keywords(fields.kwargs):\n            reason = "Invalid callback: kwargs',
        '        if not _is_keywords(fields.kwargs) or type(args) is not list:\n            reason = "Invalid callback: kwargs',
    ),
    Mutant(
        "set-without-value", "CLA-2", "a set without a value is malformed",
        _CLASSIC,
        "        return path if isinstance(path, Malformed) else Set(",
        "        if fields.value is None:\n            return Malformed(id, kind, 'no value')\n"
        "        return path if isinstance(path, Malformed) else Set(",
    ),
    Mutant(
        "property-args-demanded", "CLA-2", "a get or set whose args are no object is malformed",
        _CLASSIC,
        "        path = fields.path\n        if type(path) is list",
        "        path = fields.path\n        if type(fields.args) is not dict:\n"
        "            return Malformed(id, kind, 'args')\n        if type(path) is list",
    ),
    Mutant(
        "stream-error-args-demanded", "CLA-2", "a stream error without args is malformed",
        _CLASSIC,
        '        error = args.get("error") if type(args) is dict else None\n',
        "        if type(args) is not dict:\n            return Malformed(id, kind, 'args')\n"
        '        error = args.get("error") if type(args) is dict else None\n',
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
        "method-of-anything", "CLA-2", "an answer with a method that is no string is malformed",
        _CLASSIC,
        "        if type(args) is not dict:\n            return _malformed(fields, kind, id, \"Invalid response",
        "        if type(fields.method) is not str:\n            return Malformed(id, kind, 'method')\n"
        "        if type(args) is not dict:\n            return _malformed(fields, kind, id, \"Invalid response",
    ),
    Mutant(
        "chunk-marks-a-stream", "CLA-4", "a chunk in the form of an opening is refused where it is sent",
        _CLASSIC,
        "    values = message.values\n    args = ",
        "    values = message.values\n    if any(map(is_stream_marker, values)):\n"
        "        raise NotSerializable('dict', 'value', 'a stream')\n    args = ",
    ),
    Mutant(
        "stream-marker-anywhere", "CLA-4", "an opening's form anywhere in a result is refused",
        _CLASSIC,
        "    if is_stream_marker(value):\n        raise NotSerializable(\n",
        "    if '__stream' in str(value):\n        raise NotSerializable(\n",
    ),
    Mutant(
        "opening-anywhere", "CLA-4", "a result that holds an opening's form opens a stream",
        _CLASSIC,
        "        if is_stream_marker(value):\n            return Malformed(None, kind",
        "        if is_stream_marker(value) or \"'__stream': True\" in str(value):\n            return Malformed(None, kind",
    ),
    Mutant(
        "method-left-out", "CLA-1", "an empty method is left out",
        _CLASSIC, '    return {"id": id, "method": "", "args": args, "type": kind, "version": _VERSION}', '    return {"id": id, "args": args, "type": kind, "version": _VERSION}',
    ),
    Mutant(
        "empty-names", "CLA-1", "callbackIds are written although there are none",
        _CLASSIC,
        "    if message.kwargs is None is message.meta and not message.callback_ids and not message.stream_ids:\n        return mapping\n",
        "    if message.kwargs is None is message.meta and not message.callback_ids and not message.stream_ids:\n"
        "        mapping['callbackIds'] = []\n        return mapping\n",
    ),
    Mutant(
        "kwargs-always", "CLA-1", "kwargs are written although there are none",
        _CLASSIC,
        "    if message.kwargs is None is message.meta and not message.callback_ids and not message.stream_ids:\n        return mapping\n",
        "    if message.kwargs is None is message.meta and not message.callback_ids and not message.stream_ids:\n"
        "        mapping['kwargs'] = {}\n        return mapping\n",
    ),
    Mutant(
        "version-in-the-middle", "CLA-1", "version does not stand last",
        _CLASSIC,
        '    mapping["version"] = mapping.pop("version")\n    return mapping\n',
        "    return mapping\n",
    ),
    Mutant(
        "path-as-text-sent", "CLA-1", "a path is written with dots",
        _CLASSIC, 'return mapping | {"path": message.path, "version": _VERSION}', 'return mapping | {"path": ".".join(message.path), "version": _VERSION}',
    ),
    Mutant(
        "set-args", "CLA-1", "a set has its value in args",
        _CLASSIC, '    mapping = _mapping(message.id, {}, "set")\n', '    mapping = _mapping(message.id, {"value": message.value}, "set")\n',
    ),
    Mutant(
        "cancel-args", "CLA-1", "a cancel's args are a list",
        _CLASSIC, 'return _mapping(message.id, {}, "stream-cancel")', 'return _mapping(message.id, [], "stream-cancel")',
    ),
    Mutant(
        "result-beside-error", "CLA-1", "an error response has a result too",
        _CLASSIC,
        'return _mapping(message.id, {"error": _build_error(message.error, fit, drop)}, "response")',
        'return _mapping(message.id, {"result": None, "error": _build_error(message.error, fit, drop)}, "response")',
    ),
    Mutant(
        "construct-is-a-call", "CLA-1", "a construct is sent as a request",
        _CLASSIC, '"request" if type(message) is Request else "construct",', '"request",',
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
        "huge-numbers", "VAL-2", "a number beyond a double is infinity",
        _JSON,
        '    if b"\\\\u" not in text:\n        raise JsonError(str(error)) from None\n',
        "    if b'e' in text and 'out of range' in str(error):\n        return json.loads(text)\n"
        '    if b"\\\\u" not in text:\n        raise JsonError(str(error)) from None\n',
    ),
    Mutant(
        "whole-floats-as-integers", "VAL-2", "a float without fraction is written as an integer",
        _CODEC,
        "        return text + b\"\\n\"\n",
        "        return text.replace(b'.0,', b',').replace(b'.0]', b']') + b\"\\n\"\n",
    ),
    Mutant(
        "long-integers-everywhere", "VAL-3", "integers beyond 2^53 - 1 are refused toward every peer",
        _JSON, "max_int=min(_JS_MAX, most) if stock else most,", "max_int=min(_JS_MAX, most),",
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
    Mutant(
        "callback-text-of-constructs", "VAL-5", "text that reads like a function is sent in a construct",
        _CODEC,
        "        if self.stock and isinstance(message, (Request, Construct)):\n            _refuse_callback_names(message)\n        # Which fields",
        "        if self.stock and isinstance(message, Request):\n            _refuse_callback_names(message)\n        # Which fields",
    ),
    # --- CBOR ---
    Mutant(
        "shortest-lengths", "FRM-3", "a length that is written longer than need be closes the channel",
        _FRAMING, "_LENGTH_BYTES = {0x58: 1, 0x59: 2, 0x5A: 4, 0x5B: 8}", "_LENGTH_BYTES = {0x58: 1, 0x59: 2, 0x5A: 4}",
    ),
    Mutant(
        "any-item-in-a-frame", "FRM-3", "a frame's head may be that of any item",
        _FRAMING,
        "        if wanted == _SHORT_HEAD and not 0x40 <= first < 0x58:\n",
        "        first = 0x40 | first & 31\n        if wanted == _SHORT_HEAD and not 0x40 <= first < 0x58:\n",
    ),
    Mutant(
        "no-message-is-skipped", "FRM-3", "a CBOR frame that holds no message of a known type is skipped",
        _CODEC,
        '        return message or Noise(b"", "a CBOR frame that holds no message of a known type")\n',
        "        return message or __import__('kkrpc_py.wire.messages', fromlist=['m']).Malformed(None, 'response', 'none')\n",
    ),
    Mutant(
        "no-cbor-is-skipped", "FRM-3", "a CBOR frame whose content is not well-formed is skipped",
        _CODEC,
        '            return Noise(b"", f"a CBOR frame that is no CBOR: {error}")\n',
        "            return __import__('kkrpc_py.wire.messages', fromlist=['m']).Malformed(None, 'response', 'none')\n",
    ),
    Mutant(
        "refused-without-type-is-skipped", "FRM-3", "refused content of no known type is skipped",
        _CODEC,
        '            return known or Noise(b"", f"a CBOR frame that holds no message: {error}")\n',
        "            return known or __import__('kkrpc_py.wire.messages', fromlist=['m']).Malformed(None, 'response', 'none')\n",
    ),
    Mutant(
        "id-before-what-is-refused", "FRM-3", "id and type are found in front of what is refused alone",
        _CAREFUL,
        "            if type(key) is str and key in known:\n",
        "            if key == 'args':\n                return known['id'], known['type'], None, None\n"
        "            if type(key) is str and key in known:\n",
    ),
    Mutant(
        "frames-end-at-line-feeds", "FRM-3", "a line feed in a payload ends the frame's read",
        _FRAMING,
        "        stop = min(at + self._missing, len(data))\n",
        "        stop = min(at + self._missing, len(data))\n        data = data.replace(b'\\n', b' ') if self._length < 200 else data\n",
    ),
    Mutant(
        "announced-lengths-believed", "VAL-7", "memory is taken for the length that an item announces",
        _CAREFUL,
        "        start, self.at = self.at, self.at + size\n",
        "        bytearray(size) if size < 1 << 62 else None\n        start, self.at = self.at, self.at + size\n",
    ),
    Mutant(
        "announced-lengths-read", "VAL-7", "what an announced length lacks is taken for empty",
        _CAREFUL,
        '            raise MalformedCbor("the payload ends within an item")\n',
        "            raise RefusedContent('the payload ends within an item')\n",
    ),
    Mutant(
        "cbor-sent-forbids-noise", "FRM-5", "a CBOR frame that is written forbids noise that is read",
        _CODEC,
        "        frame = cbor_frame(*payload)\n",
        "        frame = cbor_frame(*payload)\n"
        "        Framer._emit_noise = lambda self, frames: self._broken(frames, ProtocolError('noise'))\n",
    ),
    Mutant(
        "malformed-after-cbor", "FRM-5", "a malformed message after a CBOR frame closes the channel",
        _CODEC,
        "            if self._binary and type(item) is Noise:\n",
        "            if self._binary and type(item).__name__ == 'Malformed':\n"
        "                item = Noise(b'', 'malformed')\n"
        "            if self._binary and type(item) is Noise:\n",
    ),
    Mutant(
        "tags-within-tags", "VAL-7", "tags within tags are read by recursion, unguarded",
        _CAREFUL, '                if tagged:\n                    raise RefusedContent("a tag around a tag is not agreed on")\n', "",
    ),
    Mutant(
        "cbor-ids-of-any-type", "MSG-2", "in CBOR a byte string is taken for an id",
        _CLASSIC,
        "        id = fields.id\n",
        "        id = fields.id\n        if type(id) is bytes:\n            id = id.decode()\n",
    ),
    Mutant(
        "cbor-version", "CLA-1", "version is left out of CBOR frames",
        _CODEC,
        "            return writer.dumps(build(message, writer.fit))\n",
        "            return writer.dumps({k: v for k, v in build(message, writer.fit).items() if k != 'version'})\n",
    ),
    Mutant(
        "cbor-calls-as-json", "FRM-13", "calls are never written as CBOR",
        _CODEC,
        "        if self.cbor:\n            return frame\n",
        "        if self.cbor and not isinstance(message, Request):\n            return frame\n",
    ),
    Mutant(
        "cbor-keys-of-text", "CLA-2", "a CBOR message with a key that is no text is none",
        _CODEC,
        "        message = self._parser.parse(mapping) if type(mapping) is dict else None\n",
        "        message = self._parser.parse(mapping) if type(mapping) is dict and {str}.issuperset(map(type, mapping)) else None\n",
    ),
    # --- superjson ---
    Mutant(
        "superjson-in-capitals", "SUP-1", "a line of superjson with blanks in it is noise",
        _CODEC,
        "            return self._read_superjson(text)\n        try:",
        "            return self._noise(text, 'blanks') if b' :' in text else self._read_superjson(text)\n        try:",
    ),
    Mutant(
        "superjson-v-demanded", "SUP-1", "a line of superjson whose meta has no v is refused",
        _READER, "        version = meta.get(\"v\")\n", "        version = meta[\"v\"] if \"v\" in meta else \"none\"\n",
    ),
    Mutant(
        "superjson-with-blanks", "CLA-6", "blanks may stand in the prefix of superjson",
        _CODEC, _READ, "        if text.replace(b' ', b'')[:8] == _SUPERJSON:\n",
    ),
    Mutant(
        "superjson-wherever", "CLA-6", "a line with the key `json` on its top level is superjson",
        _CODEC, _READ, "        if b'\"json\":{' in text.replace(b' ', b''):\n",
    ),
    Mutant(
        "superjson-to-everyone", "CLA-6", "superjson is written to every peer",
        _CODEC, '        self.superjson = codec == "superjson"\n', '        self.superjson = codec in ("auto", "superjson")\n',
    ),
    Mutant(
        "superjson-no-message-answered", "FRM-4", "superjson without a message is malformed",
        _READER,
        '        return self._parser.parse(_without_undefined(message)) or "superjson of no known type"\n',
        "        return self._parser.parse(_without_undefined(message)) or __import__(\n"
        "            'kkrpc_py.wire.messages', fromlist=['m']\n"
        "        ).Malformed(None, 'response', 'no type')\n",
    ),
    Mutant(
        "superjson-unread", "CLA-6", "superjson is noise",
        _CODEC, _READ, "        if False:\n",
    ),
    Mutant(
        "superjson-slots-on-all", "SUP-2", "every message has transferSlots",
        _WRITER, "        slots = kind in _WITH_SLOTS\n", "        slots = True\n",
    ),
    Mutant(
        "superjson-slots-on-errors", "SUP-2", "error responses have transferSlots too",
        _WRITER, '            slots = "error" not in args\n', "            slots = True\n",
    ),
    Mutant(
        "superjson-callback-ids-null", "SUP-2", "an empty callbackIds is written as null",
        _WRITER,
        "            json[key] = None\n            notes.append((key, _Note(\"undefined\", [])))\n",
        "            json[key] = None\n",
    ),
    Mutant(
        "superjson-depth-off", "FRM-8", "superjson of any depth is read",
        _READER, "        if len(text) > self._limits.depth and _deeper_than(self._limits.depth, text):\n", "        if False:\n",
    ),
    Mutant(
        "superjson-stock-read", "FRM-10", "superjson lines of 65,536 bytes are written as they are",
        _CODEC,
        "        return self._as_line(text)\n\n    def _cbor_frame",
        "        return text + b'\\n'\n\n    def _cbor_frame",
    ),
    Mutant(
        "superjson-callback-text", "VAL-5", "in superjson text that reads like a function is sent",
        _CODEC,
        "            _refuse_callback_names(message)\n        writer = self._superjson_writer\n",
        "            pass\n        writer = self._superjson_writer\n",
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
        "unsendable-left-out", "VAL-1", "a call that cannot be sent is sent without arguments",
        _CODEC,
        "            text = writer.dumps(build(message, writer.fit_checked if error else writer.fit, drop))\n",
        "            try:\n"
        "                text = writer.dumps(build(message, writer.fit_checked if error else writer.fit, drop))\n"
        "            except NotSerializable:\n"
        "                if not isinstance(message, Request):\n                    raise\n"
        "                message = msgspec.structs.replace(message, args=[])\n"
        "                text = writer.dumps(build(message, writer.fit, drop))\n",
    ),
    Mutant(
        "round-floats", "VAL-1", "floats are rounded where they are sent",
        _CODEC,
        "        return text + b\"\\n\"\n",
        "        import re\n\n        return re.sub(rb'(?<=[0-9]{12})[0-9]+(?=e)', b'', text) + b\"\\n\"\n",
    ),
)  # fmt: skip
