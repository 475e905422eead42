"""Mutants of CBOR and superjson (VAL-6 to VAL-8, SUP)."""

from __future__ import annotations

from tests.conformance.mutants.mutant import Mutant

_CODEC = "kkrpc_py.wire.codec"
_CONNECTION = "kkrpc_py.core.connection"
_TAGS = "kkrpc_py.wire.cbor_tags"
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
        "tagged-types-unsent", "VAL-6", "what CBOR needs a tag for is refused",
        _CBOR,
        "        leaves |= TaggedTypes(limits.digits).leaves | {array: array_refusal, Tensor: None}\n",
        "",
    ),
    # --- superjson ---
    Mutant(
        "superjson-types-unread", "SUP-3", "the types of values are not read",
        _READER, "        if types is not None:\n", "        if False:\n",
    ),
    Mutant(
        "superjson-types-unsent", "SUP-3", "the types of values are not written",
        _WRITER, '            meta["values"] = self._flattened(notes, _META_LEVEL)\n', "            pass\n",
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
)  # fmt: skip
