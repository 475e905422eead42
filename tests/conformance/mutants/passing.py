"""Mutants of functions and streams within values (CBK, ARG)."""

# ruff: noqa: E501 - lines of the source are quoted whole

from __future__ import annotations

from tests.conformance.mutants.mutant import Mutant

_CLASSIC = "kkrpc_py.wire.classic"
_CALLEE = "kkrpc_py.core.callee"
_CALLER = "kkrpc_py.core.caller"
_PASSING = "kkrpc_py.core.passing"
_PASSED = "kkrpc_py.core.callbacks"
_HELD = "kkrpc_py.channel.callbacks"

MUTANTS = (
    Mutant(
        "any-callback-text", "CBK-1", "any argument that begins with `__callback__` is a function",
        _CLASSIC,
        "        cls = Request if kind == \"request\" else Construct\n",
        "        named = [text[12:] for text in args if type(text) is str and text.startswith(CALLBACK_PREFIX)]\n"
        "        fields.callbackIds = named or None\n"
        "        cls = Request if kind == \"request\" else Construct\n",
    ),
    Mutant(
        "callback-ids-unsent", "CBK-1", "the ids of functions are not listed in callbackIds",
        _CLASSIC,
        '    if message.callback_ids:\n        mapping["callbackIds"] = message.callback_ids\n',
        "",
    ),
    Mutant(
        "new-id-each-time", "CBK-2", "a function gets a new id each time that it is passed",
        _PASSED, "        passed = self._by_key.get(key)\n        if passed is None:\n            if len",
        "        passed = None\n        if passed is None:\n            if len",
    ),
    Mutant(
        "one-id-for-all", "CBK-2", "all functions have one id",
        _PASSED, "            self._last += 1\n", "            self._last = 1\n",
    ),
    Mutant(
        "callbacks-unanswered", "CBK-4", "callbacks are not answered where that is agreed",
        _CALLEE, "        answered = self.calls_back and message.id is not None\n", "        answered = False\n",
    ),
    Mutant(
        "callback-waits-for-stock", "CBK-4", "the call of a stock peer's function waits for an answer",
        "kkrpc_py.channel.call",
        "    if type(message) is Callback and not connection.calls_back:\n",
        "    if False:\n",
    ),
    Mutant(
        "release-unsent", "CBK-6", "nothing is said of functions that are held no more",
        _CALLER, "        if not counts or not self.calls_back:\n", "        if True:\n",
    ),
    Mutant(
        "held-functions-unbounded", "CBK-7", "any number of the peer's functions is held",
        _HELD, "        self._most = most\n", "        self._most = 1 << 30\n",
    ),
    # --- streams within values ---
    Mutant(
        "stream-arguments-unread", "ARG-1", "streams within values are read as text",
        _PASSING,
        "stream_ids = message.stream_ids if hi.STREAM_ARGUMENTS in self.agreed else ()",
        "stream_ids: tuple[str, ...] = ()",
    ),
)  # fmt: skip
