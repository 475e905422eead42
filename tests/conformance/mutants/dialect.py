"""Mutants of the classic dialect, the hello, and values in JSON (CLA, HEL, VAL)."""

# ruff: noqa: E501 - lines of the source are quoted whole

from __future__ import annotations

from tests.conformance.mutants.mutant import Mutant

_CODEC = "kkrpc_py.wire.codec"
_JSON = "kkrpc_py.wire.json_codec"
_CLASSIC = "kkrpc_py.wire.classic"
_CONNECTION = "kkrpc_py.core.connection"
_HELLO = "kkrpc_py.core.hello"

MUTANTS = (
    Mutant(
        "keys-sorted", "CLA-1", "the keys of a message are in alphabetical order",
        _CLASSIC,
        '        del mapping["id"]\n    return mapping\n',
        '        del mapping["id"]\n    return dict(sorted(mapping.items()))\n',
    ),
    Mutant(
        "version-is-a-number", "CLA-1", "`version` is 1",
        _CLASSIC, '_VERSION = "json"', "_VERSION = 1",
    ),
    Mutant(
        "args-demanded", "CLA-2", "a call whose args are no list is malformed",
        _CLASSIC,
        "        if type(args) is not list:\n            args = []\n",
        "        if type(args) is not list:\n            return Malformed(id, kind, 'args must be a list')\n",
    ),
    Mutant(
        "chunk-args-demanded", "CLA-2", "a chunk without args is malformed",
        _CLASSIC,
        "            return Chunks(id, [None])\n",
        "            return Malformed(id, kind, 'args must be a mapping')\n",
    ),
    Mutant(
        "end-args-demanded", "CLA-2", "an end without args is malformed",
        _CLASSIC,
        "        if type(args) is not dict or not args:\n            return StreamEnd(id)\n",
        "        if type(args) is not dict:\n            return Malformed(id, kind, 'args must be a mapping')\n",
    ),
    Mutant(
        "chunk-value-demanded", "CLA-2", "a chunk without value and values is malformed",
        _CLASSIC,
        '            values = [args.get("value")]\n',
        '            if "value" not in args:\n                return Malformed(id, kind, "no value")\n'
        '            values = [args["value"]]\n',
    ),
    Mutant(
        "unusable-callback-ids", "CLA-2", "callbackIds that are no list of strings make a message noise",
        _CLASSIC,
        "        parser = self._parsers.get(kind) if type(kind) is str else None\n",
        "        parser = self._parsers.get(kind) if type(kind) is str else None\n"
        "        for named in (fields.callbackIds, fields.streamIds):\n"
        "            if named is not None and _texts(named) != tuple(named if type(named) is list else '?'):\n"
        "                parser = None\n",
    ),
    Mutant(
        "meta-demanded", "CLA-2", "meta that is no object makes a call malformed",
        _CLASSIC,
        "        if type(meta) is not dict:\n            meta = None\n",
        "        if type(meta) is not dict and meta is not None:\n"
        "            return Malformed(id, kind, 'meta must be a mapping')\n",
    ),
    Mutant(
        "any-method", "CLA-3", "a method that is no string is looked up as text",
        _CLASSIC,
        '            return _malformed(fields, kind, id, f"Invalid {kind}: method must be a string")\n',
        "            method = str(method)\n",
    ),
    Mutant(
        "path-reason", "CLA-3", "a missing path is refused with another text",
        _CLASSIC, 'f"Invalid {kind} request: missing path"', 'f"Invalid {kind} request: no path"',
    ),
    Mutant(
        "path-as-text", "CLA-3", "a path that is a string is taken for its segments",
        _CLASSIC,
        "        path = fields.path\n        if type(path) is list",
        "        path = fields.path\n        if type(path) is str:\n            path = path.split('.')\n"
        "        if type(path) is list",
    ),
    Mutant(
        "response-without-args", "CLA-3", "a response without args is a result",
        _CLASSIC,
        '            return _malformed(fields, kind, id, "Invalid response: args must be a mapping")\n',
        "            return Result(id, None)\n",
    ),
    Mutant(
        "any-kwargs", "CLA-3", "kwargs that are no object are ignored",
        _CLASSIC,
        "        kwargs, meta = fields.kwargs, fields.meta\n",
        "        kwargs, meta = fields.kwargs if type(fields.kwargs) is dict else None, fields.meta\n",
    ),
    Mutant(
        "empty-batch", "CLA-3", "an empty list of values is a batch of none",
        _CLASSIC, "if type(values) is not list or not values:", "if type(values) is not list:",
    ),
    Mutant(
        "batch-of-anything", "CLA-3", "values that are no list are one value",
        _CLASSIC,
        '            values = args["values"]\n',
        '            values = args["values"] if type(args["values"]) is list else [args["values"]]\n',
    ),
    Mutant(
        "values-before-value", "CLA-3", "`values` wins over `value`",
        _CLASSIC, 'if "values" not in args or "value" in args:', 'if "values" not in args:',
    ),
    Mutant(
        "any-ack", "CLA-3", "acknowledgements of any numbers are taken",
        _CLASSIC,
        "if type(chunks) is not int or type(size) is not int or chunks < 0 or size < 0:",
        "chunks, size = (int(n) if type(n) in (int, float, bool) else 0 for n in (chunks, size))\n"
        "        if False:",
    ),
    Mutant(
        "any-release", "CLA-3", "releases of zero and less are taken",
        _CLASSIC, "            or not all(count > 0 for count in counts.values())\n", "",
    ),
    Mutant(
        "stream-marker-truthy", "CLA-4", "any truthy `__stream` marks a stream",
        _CLASSIC, "value.get(_STREAM_KEY) is True", "bool(value.get(_STREAM_KEY))",
    ),
    Mutant(
        "stream-marker-alone", "CLA-4", "a stream's opening has no other key beside `__stream`",
        _CLASSIC, "value.get(_STREAM_KEY) is True", "value == {_STREAM_KEY: True}",
    ),
    Mutant(
        "stream-marker-sent", "CLA-4", "a result that reads like a stream's opening is sent",
        _CLASSIC,
        "    if is_stream_marker(value):\n        raise NotSerializable(\n",
        "    if False:\n        raise NotSerializable(\n",
    ),
    Mutant(
        "falsy-error-is-one", "CLA-5", "a response with a falsy error is an error",
        _CLASSIC, 'if "error" in args and not _is_falsy(args["error"]):', 'if "error" in args:',
    ),
    Mutant(
        "result-before-error", "CLA-5", "a response with result and error is a result",
        _CLASSIC,
        'if "error" in args and not _is_falsy(args["error"]):',
        'if "error" in args and "result" not in args and not _is_falsy(args["error"]):',
    ),
    Mutant(
        "python-falsy", "CLA-5", "an error that is an empty list or object is none",
        _CLASSIC,
        "return error is None or error is False or (type(error) in (str, int, float) and not error)",
        "return not error",
    ),
    Mutant(
        "superjson-answered-in-json", "CLA-6", "a peer that writes superjson is answered in JSON",
        _CONNECTION, "self._encoder.superjson = True", "self._encoder.superjson = False",
    ),
    Mutant(
        "superjson-by-its-keys", "CLA-6", "a line with the key `json` anywhere is superjson",
        _CODEC,
        "        if text >= _SUPERJSON and text.startswith(_SUPERJSON):\n",
        "        if b'\"json\" :' in text or b'\"json\":' in text:\n",
    ),
    Mutant(
        "superjson-once-and-for-all", "CLA-6", "after a line of superjson a JSON line is noise",
        _CODEC,
        "        try:\n            found = self._json.loads(text)\n",
        "        if self.superjson:\n            return self._noise(text, 'JSON after superjson')\n"
        "        try:\n            found = self._json.loads(text)\n",
    ),
    # --- values ---
    Mutant(
        "result-path-unnamed", "VAL-1", "what is refused is refused without its type and path",
        "kkrpc_py.errors.library",
        '        text = f"{type_name} at {path or \'the top\'} cannot be sent unchanged"\n',
        '        text = "it cannot be sent"\n',
    ),
    Mutant(
        "nan-as-null", "VAL-2", "NaN and the infinities are sent as null",
        _JSON, "            finite=True,\n", "            finite=False,\n",
    ),
    Mutant(
        "nan-tokens", "VAL-2", "NaN and the infinities are read as tokens",
        _JSON,
        '    if b"\\\\u" not in text:\n        raise JsonError(str(error)) from None\n',
        "    if any(token in text for token in (b'NaN', b'Infinity')):\n        return json.loads(text)\n"
        '    if b"\\\\u" not in text:\n        raise JsonError(str(error)) from None\n',
    ),
    Mutant(
        "surrogates-refused", "VAL-2", "a line with a lone surrogate is noise",
        _JSON, '    if b"\\\\u" not in text:\n', "    if True:\n",
    ),
    Mutant(
        "long-integers-sent", "VAL-3", "integers beyond 2^53 - 1 are sent to a stock peer",
        _JSON, "max_int=min(_JS_MAX, most) if stock else most,", "max_int=most,",
    ),
    Mutant(
        "bytes-form-unread", "VAL-4", "the form of bytes in JSON is read as an object",
        _JSON, "        if len(value) == 2 and _is_bytes_form(value):\n", "        if False:\n",
    ),
    Mutant(
        "bytes-form-with-more", "VAL-4", "the form of bytes with a third key is read as bytes",
        _JSON, "        if len(value) == 2 and _is_bytes_form(value):\n", "        if _is_bytes_form(value):\n",
    ),
    Mutant(
        "bytes-clamped", "VAL-4", "the numbers of bytes are clamped, not taken modulo 256",
        _JSON,
        "return bytes(int(item) % 256 for item in data)",
        "return bytes(max(0, min(255, int(item))) for item in data)",
    ),
    Mutant(
        "bytes-form-sent", "VAL-4", "an object that reads like bytes is sent",
        _JSON,
        'return "in JSON its reader would take it for bytes" if _is_bytes_form(value) else None',
        "return None",
    ),
    Mutant(
        "bytes-as-buffer", "VAL-4", "bytes are sent as `Buffer`",
        _JSON, 'return {"type": _BYTES_MARK, "data":', 'return {"type": "Buffer", "data":',
    ),
    Mutant(
        "callback-text-sent", "VAL-5", "text that reads like a function is sent to a stock peer",
        _CODEC,
        '            raise NotSerializable("str", f"args[{index}]", f"kkrpc takes {CALLBACK_PREFIX!r} for a function")\n',
        "            continue\n",
    ),
    # --- hello ---
    Mutant(
        "unknown-features-refused", "HEL-4", "a hello with an unknown feature is malformed",
        _HELLO,
        "    if not isinstance(features, list):\n",
        "    if not isinstance(features, list) or any(\n"
        "        len(str(name)) > 16 or not str(name).replace('-', '').isalpha() for name in features\n"
        "    ):\n",
    ),
    Mutant(
        "any-hello", "HEL-4", "a hello of another form is answered, and names no features",
        _HELLO,
        "    if not isinstance(payload, dict):\n        return None\n",
        "    if not isinstance(payload, dict) or payload.get('protocol') != 1:\n        return frozenset()\n"
        "    payload = {'features': [], **payload}\n",
    ),
    Mutant(
        "second-hello-counts", "HEL-7", "a second hello changes what is in force",
        _CONNECTION,
        "        if self._agreed is not None:\n            return\n",
        "",
    ),
    Mutant(
        "hello-of-all", "HEL-3", "what this side knows is in force, whatever the peer named",
        _CONNECTION,
        "self._agreed = self.passage.agreed = self._features & theirs",
        "self._agreed = self.passage.agreed = self._features",
    ),
    Mutant(
        "earlier-calls-too", "HEL-5", "a call that the testee made before the hello has the extensions too",
        "kkrpc_py.core.caller",
        "features = self._agreed if call.agreed and self._agreed is not None else None",
        "features = self._agreed if self._agreed is not None else None",
    ),
    Mutant(
        "hello-looked-up", "HEL-7", "the hello is a method like any other",
        "kkrpc_py.core.callee",
        "if method == hi.METHOD and type(message) is m.Request:",
        "if method == hi.METHOD and type(message) is m.Request and not self.incoming and not self._greeted:",
    ),
)  # fmt: skip
