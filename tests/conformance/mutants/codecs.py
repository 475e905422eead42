"""Mutants of CBOR and superjson (VAL-6 to VAL-8, SUP)."""

# ruff: noqa: E501 - lines of the source are quoted whole

from __future__ import annotations

from tests.conformance.mutants.mutant import Mutant

_CODEC = "kkrpc_py.wire.codec"
_CONNECTION = "kkrpc_py.core.connection"
_TAGS = "kkrpc_py.wire.cbor_tags"
_CAREFUL = "kkrpc_py.wire.cbor_careful"
_CBOR = "kkrpc_py.wire.cbor_codec"
_SUPERJSON = "kkrpc_py.wire.superjson"
_READER = "kkrpc_py.wire.superjson_reader"
_WRITER = "kkrpc_py.wire.superjson_writer"

MUTANTS = (
    Mutant(
        "cbor-never-written", "VAL-8", "CBOR is read and never written",
        _CONNECTION,
        "        if hi.CBOR in self._agreed:\n            self._encoder.cbor = True\n",
        "",
    ),
    Mutant(
        "cbor-for-everything", "VAL-8", "where CBOR is agreed nothing is sent as JSON",
        _CODEC, '        if self._codec == "cbor":\n', "        if self.cbor:\n",
    ),
    Mutant(
        "tags-refused", "VAL-6", "every tag is refused",
        _TAGS, "reader = self.readers.get(tag)", "reader = None",
    ),
    Mutant(
        "any-tag", "VAL-6", "a tag that is not known is passed over",
        _TAGS,
        '            raise RefusedContent(f"CBOR tag {tag} is not one of those agreed on")\n',
        "            return content\n",
    ),
    Mutant(
        "tagged-types-unsent", "VAL-6", "what CBOR needs a tag for is refused",
        _CBOR,
        "        leaves |= TaggedTypes(limits.digits).leaves | {array: array_refusal, Tensor: None}\n",
        "",
    ),
    Mutant(
        "content-unchecked", "VAL-6", "a tag around what it cannot hold is null",
        _TAGS,
        '            raise RefusedContent(f"CBOR tag {tag} around what it cannot hold: {error}") from None\n',
        "            return None\n",
    ),
    Mutant(
        "lenient-dates", "VAL-6", "whatever Python reads as a date and time is one",
        _TAGS,
        "if type(content) is not str or not _RFC3339.fullmatch(content):",
        "if type(content) is not str:",
    ),
    Mutant(
        "offset-lost", "VAL-6", "dates and times are turned into UTC",
        _TAGS,
        "    return datetime.datetime.fromisoformat(content)\n",
        "    return datetime.datetime.fromisoformat(content).astimezone(datetime.timezone.utc)\n",
    ),
    Mutant(
        "decimal-normalized", "VAL-6", "decimals lose their trailing zeros",
        _TAGS,
        "        return Decimal((sign, tuple(map(int, digits)), exponent))\n",
        "        return Decimal((sign, tuple(map(int, digits)), exponent)).normalize()\n",
    ),
    Mutant(
        "any-denominator", "VAL-6", "a denominator may be negative",
        _TAGS, "if self.integer(denominator) <= 0:", "if self.integer(denominator) == 0:",
    ),
    Mutant(
        "equal-members", "VAL-6", "a set with two equal members is read",
        _TAGS, "    if len(found) != len(members):\n", "    if False:\n",
    ),
    Mutant(
        "equal-keys", "VAL-7", "a map with two equal keys is read",
        _CAREFUL, "        if len(found) != size:\n", "        if False:\n",
    ),
    Mutant(
        "cbor-digits-off", "VAL-7", "numbers of any length are read in CBOR",
        _TAGS, "        self._digits = digits\n", "        self._digits = digits = 4000\n",
    ),
    Mutant(
        "cbor-depth-off", "VAL-7", "CBOR of any depth is read",
        _CBOR, "    return min(limits.depth, _MAX_DEPTH)\n", "    return _MAX_DEPTH\n",
    ),
    Mutant(
        "cbor-surrogates-escaped", "VAL-6", "a lone surrogate is sent in CBOR as a question mark",
        _CBOR,
        "        return cbor2.dumps(mapping)\n",
        "        try:\n            return cbor2.dumps(mapping)\n        except UnicodeEncodeError:\n"
        "            import json\n\n            text = json.dumps(mapping, ensure_ascii=False)\n"
        "            return cbor2.dumps(json.loads(text.encode(errors='replace')))\n",
    ),
    Mutant(
        "any-simple-value", "VAL-6", "a simple value that is not known is null",
        _CAREFUL,
        '    raise RefusedContent(f"CBOR\'s simple value {argument} is not agreed on")\n',
        "    return None\n",
    ),
    Mutant(
        "cbor-floats-as-integers", "VAL-6", "floats without a fraction are read as integers in CBOR",
        _CBOR,
        "            if source.tell() == len(payload) and self._rules.accepts(value) is not None:\n",
        "            if type(value) is dict and type(value.get('args')) is list:\n"
        "                value['args'] = [\n"
        "                    int(arg) if type(arg) is float and arg.is_integer() else arg for arg in value['args']\n"
        "                ]\n"
        "            if source.tell() == len(payload) and self._rules.accepts(value) is not None:\n",
    ),
    # --- superjson ---
    Mutant(
        "superjson-without-slots", "SUP-2", "no `transferSlots` are written",
        _WRITER,
        '        if slots:\n            undefined("transferSlots")\n',
        "",
    ),
    Mutant(
        "superjson-without-callback-ids", "SUP-2", "an empty `callbackIds` is not written",
        _WRITER,
        'if key == "type" and kind in _CALLS and not message.get("callbackIds"):',
        "if False:",
    ),
    Mutant(
        "superjson-null-result", "SUP-2", "nothing is answered with null",
        _WRITER, 'args = {"result": UNDEFINED}', 'args = {"result": None}',
    ),
    Mutant(
        "superjson-version", "SUP-1", "`version` is `json` in superjson too",
        _WRITER, '_VERSION = "superjson"', '_VERSION = "json"',
    ),
    Mutant(
        "superjson-undefined-fields", "SUP-2", "fields that are undefined are not taken for missing",
        _READER, "        if message.get(key) is UNDEFINED:\n", "        if False:\n",
    ),
    Mutant(
        "superjson-undefined-result", "SUP-2", "a result that is undefined is no missing one",
        _READER, 'if args.get("result") is UNDEFINED:', "if False:",
    ),
    Mutant(
        "superjson-types-unread", "SUP-3", "the types of values are not read",
        _READER, "        if types is not None:\n", "        if False:\n",
    ),
    Mutant(
        "superjson-types-unsent", "SUP-3", "the types of values are not written",
        _WRITER, '            meta["values"] = self._flattened(notes, _META_LEVEL)\n', "            pass\n",
    ),
    Mutant(
        "superjson-bigint-as-number", "SUP-4", "integers beyond 2^53 - 1 are written as numbers",
        _SUPERJSON, 'return "bigint", int.__repr__(value)', "return None, value",
    ),
    Mutant(
        "superjson-exact-doubles", "SUP-4", "a number beyond 2^53 - 1 is read as an exact integer",
        _READER, "return value if -JS_MAX <= value <= JS_MAX else float(value)", "return value",
    ),
    Mutant(
        "superjson-paths-unescaped", "SUP-5", "paths are written without escapes",
        _SUPERJSON,
        '    return key.replace(".", "\\\\.") if "." in key else key\n',
        "    return key\n",
    ),
    Mutant(
        "superjson-paths-split", "SUP-5", "paths are split at every dot",
        _SUPERJSON, '    if "\\\\" not in path:\n', "    if True:\n",
    ),
    Mutant(
        "superjson-legacy-paths", "SUP-5", "paths are always read as those of version 1",
        _READER, "self._legacy = version is None or version < 1", "self._legacy = False",
    ),
    Mutant(
        "superjson-prototypes", "SUP-5", "paths and keys of prototypes are like any others",
        _SUPERJSON, 'frozenset(("__proto__", "constructor", "prototype"))', "frozenset[str]()",
    ),
    Mutant(
        "superjson-places-forgiven", "SUP-5", "a type where nothing is, is passed over",
        _READER, '            raise Unfit("a type where nothing is")\n', "            return\n",
    ),
    Mutant(
        "superjson-bad-types-forgiven", "SUP-8", "types that do not fit their JSON are passed over",
        _READER,
        "            except Unfit as error:\n                raise Unfit(f\"at {path[:80]!r}: {error}\") from None\n",
        "            except Unfit:\n                continue\n",
    ),
    Mutant(
        "superjson-refused-is-noise", "SUP-8", "a line whose values are refused is noise",
        _READER,
        "            return self._parser.malformed(id, kind, functions, streams, reason) or reason\n",
        "            return reason\n",
    ),
    Mutant(
        "superjson-equalities-unread", "SUP-6", "what is one object in several places is read as several",
        _READER, "        if equal is not None:\n", "        if False:\n",
    ),
    Mutant(
        "superjson-equalities-unsent", "SUP-6", "one object in several places is written as several",
        _WRITER, "if self._shared and (equal := self._equalities()):", "if self._shared and not (equal := {}):",
    ),
    Mutant(
        "superjson-order-of-places", "SUP-6", "the first place met is the one that the others are named under",
        _WRITER, "ways = sorted(map(_steps, places), key=len)", "ways = [*map(_steps, places)]",
    ),
    Mutant(
        "superjson-cycles", "SUP-6", "an equality that makes a value contain itself is passed over",
        _READER, '            raise Unfit("a value contains itself")\n', "            return None, 1, 0\n",
    ),
    Mutant(
        "superjson-growth", "SUP-6", "equalities may make more values than the line has bytes",
        _READER, "            if written > self._size:\n", "            if False:\n",
    ),
    Mutant(
        "superjson-members-merged", "SUP-8", "keys and members that are equal here are merged",
        _READER, "    if len(built) != len(members):\n", "    if False:\n",
    ),
    Mutant(
        "superjson-array-nan", "SUP-7", "NaN in typed arrays is sent",
        _SUPERJSON, 'if name.startswith("F") and not all(map(math.isfinite, items)):', "if False:",
    ),
    Mutant(
        "superjson-minus-zero", "SUP-7", "-0 and several NaN are sent as members",
        _WRITER,
        "        floats = [member for member in members if type(member) is float and not member > 0]\n",
        "        floats: list[float] = []\n",
    ),
    Mutant(
        "superjson-moved-members", "SUP-7", "a member that its reader moves is sent",
        _WRITER,
        '            raise NotSerializable("a shared value", _path(steps), reason)\n',
        "            return\n",
    ),
)  # fmt: skip
