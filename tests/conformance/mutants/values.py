"""Mutants of values: what a reader makes of one, and what a writer makes of one (VAL, FRM-8, SUP-3).

Most of them change every value in a message's `args` on its way in or out.
"""

from __future__ import annotations

from tests.conformance.mutants.mutant import Mutant

_JSON = "kkrpc_py.wire.json_codec"
_CBOR = "kkrpc_py.wire.cbor_codec"

_LOADS = '    def loads(self, text: bytes) -> Any:\n        """The value of a JSON text'
_DUMPS = "    def dumps(self, mapping: Any) -> bytes:\n"
_CBOR_DUMPS = _DUMPS + '        """The payload of a message'

# Inner values first, and keys like any others.
_CHANGED = """\
        def changed(value: Any) -> Any:
            if type(value) in (list, tuple, set, frozenset):
                value = type(value)(changed(item) for item in value)
            elif type(value) is dict:
                value = {{changed(key): changed(item) for key, item in value.items()}}
            return {} if {} else value

"""


def _read(name: str, rule: str, what: str, test: str, made: str) -> Mutant:
    """Each value that JSON holds and for which `test` is true is read as `made`."""
    replace = (
        "    def loads(self, text: bytes) -> Any:\n"
        + _CHANGED.format(made, test)
        + "        found = self._loads(text)\n"
        "        if isinstance(found, msgspec.Struct):\n"
        "            if type(found.args) is list:\n"
        "                found.args = [changed(item) for item in found.args]\n"
        "            elif type(found.args) is dict:\n"
        "                found.args = {key: changed(item) for key, item in found.args.items()}\n"
        "        elif type(found) is dict and type(found.get('args')) is list:\n"
        "            found['args'] = [changed(item) for item in found['args']]\n"
        "        return found\n\n" + _LOADS.replace("def loads", "def _loads")
    )
    return Mutant(name, rule, what, _JSON, _LOADS, replace)


def _text(name: str, rule: str, what: str, *lines: str) -> Mutant:
    """The lines come before a JSON text is read."""
    before = "".join(f"        {line}\n" for line in lines)
    replace = (
        f"    def loads(self, text: bytes) -> Any:\n{before}        return self._loads(text)\n\n"
        + _LOADS.replace("def loads", "def _loads")
    )
    return Mutant(name, rule, what, _JSON, _LOADS, replace)


def _written(name: str, rule: str, what: str, test: str, made: str) -> Mutant:
    """Each value for which `test` is true is written in JSON as `made`."""
    replace = (
        _DUMPS + _CHANGED.format(made, test) + "        args = mapping.get('args')\n"
        "        if type(args) is dict:\n"
        "            mapping = mapping | {'args': {key: changed(item) for key, item in args.items()}}\n"
        "        elif type(args) is list:\n"
        "            mapping = mapping | {'args': [changed(item) for item in args]}\n"
        "        return self._dumps(mapping)\n\n" + _DUMPS.replace("def dumps", "def _dumps")
    )
    return Mutant(name, rule, what, _JSON, _DUMPS, replace)


def _written_in_cbor(name: str, rule: str, what: str, test: str, made: str) -> Mutant:
    """The same for CBOR."""
    replace = (
        _DUMPS
        + _CHANGED.format(made, test)
        + "        return self._dumps(changed(mapping))\n\n"
        + _CBOR_DUMPS.replace("def dumps", "def _dumps")
    )
    return Mutant(name, rule, what, _CBOR, _CBOR_DUMPS, replace)


_NO_FRACTION = "type(value) is float and value.is_integer()"
_LATIN = "value.encode('latin-1', 'replace').decode('latin-1')"
_LIKE_BYTES = "type(value) is dict and value.keys() == {'type', 'data'}"
_PROTO = "{key: item for key, item in value.items() if key != '__proto__'}"

MUTANTS = (
    # --- what is read of JSON ---
    _read("whole-floats-read-as-integers", "VAL-2", "a float without a fraction is read as an integer",
          _NO_FRACTION, "int(value)"),
    _read("floats-read-as-text", "VAL-2", "floats are read as text",
          "type(value) is float", "str(value)"),
    _read("booleans-read-as-numbers", "VAL-2", "true and false are read as 1 and 0",
          "type(value) is bool", "int(value)"),
    _read("controls-read-as-nothing", "VAL-2", "control characters in text are dropped",
          "type(value) is str", "''.join(letter for letter in value if letter >= ' ')"),
    _read("text-read-as-latin", "VAL-2", "characters beyond U+00FF are read as question marks",
          "type(value) is str", _LATIN),
    _read("empty-read-as-null", "VAL-2", "an empty list or object is read as null",
          "type(value) is list and len(value) > 1",
          "[None if item in ([], {}) else item for item in value]"),
    _read("anything-with-data-is-bytes", "VAL-4", "any object of `type` and `data` is read as bytes",
          _LIKE_BYTES, "b''"),
    # --- what is written in JSON ---
    _written("floats-written-as-text", "VAL-2", "floats are written as text",
             "type(value) is float", "str(value)"),
    _written("long-integers-written-as-text", "VAL-3", "integers beyond 2^53 are written as text",
             "type(value) is int and abs(value) >= 2**53", "str(value)"),
    _written("empty-written-as-null", "VAL-2", "an empty list or object is written as null",
             "value in ([], {})", "None"),
    _written("names-of-javascript-unwritten", "VAL-2", "a key `__proto__` is not written",
             "type(value) is dict", _PROTO),
    _written("objects-with-data-unwritten", "VAL-4", "an object of `type` and `data` is written as its data",
             f"{_LIKE_BYTES} and (value['type'], type(value['data'])) != ('Uint8Array', list)",
             "value['data']"),
    # --- what is written in CBOR, and beyond 2^53 in JSON ---
    Mutant(
        "exact-integers-rounded", "VAL-6", "integers beyond 2^53 are rounded when written",
        _JSON,
        "        if self._stock and not text.isascii():\n",
        "        text = re.sub(rb'(?<![0-9.])[0-9]{17,}', lambda found: b'%d' % int(float(found[0])), text)\n"
        "        if self._stock and not text.isascii():\n",
    ),
    _written_in_cbor("cbor-bytes-written-as-text", "VAL-6", "byte strings are written as text in CBOR",
                     "type(value) is bytes", "value.hex()"),
)  # fmt: skip
