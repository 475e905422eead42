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
        "falsy-error-is-one", "CLA-5", "a response with a falsy error is an error",
        _CLASSIC, 'if "error" in args and not _is_falsy(args["error"]):', 'if "error" in args:',
    ),
    Mutant(
        "superjson-by-its-keys", "CLA-6", "a line with the key `json` anywhere is superjson",
        _CODEC,
        "        if text >= _SUPERJSON and text.startswith(_SUPERJSON):\n",
        "        if b'\"json\" :' in text or b'\"json\":' in text:\n",
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
        "hello-looked-up", "HEL-7", "the hello is a method like any other",
        "kkrpc_py.core.callee",
        "if method == hi.METHOD and type(message) is m.Request:",
        "if method == hi.METHOD and type(message) is m.Request and not self.incoming and not self._greeted:",
    ),
)  # fmt: skip
