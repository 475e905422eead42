"""Mutants of calls, errors, keyword arguments, metadata and closing (CALL, ERR, KWA, META, CLS)."""

# ruff: noqa: E501 - lines of the source are quoted whole

from __future__ import annotations

from tests.conformance.mutants.mutant import Mutant

_CLASSIC = "kkrpc_py.wire.classic"
_EXPOSE = "kkrpc_py.channel.expose"
_MAPPING = "kkrpc_py.errors.mapping"
_TASK = "kkrpc_py.channel.task"
_CALLEE = "kkrpc_py.core.callee"
_CONNECTION = "kkrpc_py.core.connection"
_CHANNEL = "kkrpc_py.channel.channel"

MUTANTS = (
    Mutant(
        "private-names", "CALL-6", "names that begin with `_` are found",
        "kkrpc_py.channel.lookup", 'segment != "" and segment[0] != "_"', 'segment != ""',
    ),
    Mutant(
        "falsy-results-lost", "CALL-3", "0, false and the empty string are answered as no result",
        _CLASSIC,
        "    value = message.value\n    if value is UNSET:\n",
        "    value = message.value\n    if value is UNSET or (type(value) in (bool, int, str) and not value):\n",
    ),
    Mutant(
        "calls-limit-off", "CALL-7", "any number of calls may run",
        _CALLEE,
        "        if len(self.incoming) - self._offered + self._anonymous >= self.limits.calls:\n",
        "        if False:\n",
    ),
    Mutant(
        "set-unanswered", "CALL-10", "a set is answered with nothing",
        _EXPOSE, "            put(value)\n            return True\n", "            put(value)\n            return None  # type: ignore[return-value]  # the fault\n",
    ),
    Mutant(
        "arguments-dropped", "CALL-12", "surplus arguments are dropped",
        _TASK,
        "    if kwargs:\n        handler.check(len(args), kwargs)\n    else:\n",
        "    if handler.most >= 0:\n        args = args[: handler.most]\n"
        "    if kwargs:\n        handler.check(len(args), kwargs)\n    else:\n",
    ),
    # --- errors ---
    Mutant(
        "error-name-lost", "ERR-4", "every error has the name Error",
        _MAPPING,
        "name, message, fields = type(exc).__name__, _text(exc), _public_fields(exc)",
        'name, message, fields = "Error", _text(exc), _public_fields(exc)',
    ),
    Mutant(
        "bare-as-object", "ERR-2", "the fixed texts are sent as objects",
        _CLASSIC, "    if error.bare and error.message:\n", "    if False:\n",
    ),
    Mutant(
        "exit-request-closes", "ERR-6", "an exit request of a handler ends the channel",
        _TASK,
        "        if isinstance(exc, KeyboardInterrupt):\n            host.crash(exc)\n            return False\n"
        "        if self.host.stopping:",
        "        if isinstance(exc, (KeyboardInterrupt, SystemExit)):\n            host.crash(exc)\n"
        "            return False\n        if self.host.stopping:",
    ),
    Mutant(
        "error-fields-unread", "ERR-3", "an error that is read has its name and message alone",
        _CLASSIC,
        '        error.get("cause", UNSET),\n'
        "        {key: value for key, value in error.items() if type(key) is str and key not in _ERROR_KEYS},\n",
        "        UNSET,\n        {},\n",
    ),
    Mutant(
        "error-name-demanded", "ERR-1", "an error without a name has none",
        _CLASSIC,
        'name if type(name) is str and name else "Error"',
        'name if type(name) is str and name else ""',
    ),
    Mutant(
        "not-found-unread", "ERR-3", "the texts of what is missing are errors like any other",
        _MAPPING,
        '    if message == NO_API or message.endswith(" is not a constructor function"):\n',
        '    if message:\n        return RemoteError("Error", message)\n'
        '    if message == NO_API or message.endswith(" is not a constructor function"):\n',
    ),
    Mutant(
        "arguments-unvalidated", "ERR-7", "arguments are not held against their types",
        _TASK,
        "return (args, kwargs) if validator is None else validator.arguments(args, kwargs, method)",
        "return (args, kwargs)",
    ),
    # --- beside the arguments ---
    Mutant(
        "kwargs-dropped", "KWA-1", "keyword arguments are not read",
        _CLASSIC, "return cls(id, method, args, *_passed(fields), kwargs, meta)", "return cls(id, method, args, *_passed(fields), None, meta)",
    ),
    Mutant(
        "kwargs-unsent", "KWA-1", "keyword arguments are sent as positional ones",
        _CLASSIC,
        "    if message.kwargs is not None:\n        mapping[\"kwargs\"] = fit(message.kwargs, \"kwargs\")\n    if message.meta",
        "    if message.kwargs is not None:\n        mapping[\"args\"] = [*mapping['args'], *message.kwargs.values()]\n"
        "    if message.meta",
    ),
    Mutant(
        "meta-dropped", "META-1", "metadata is not read",
        _CLASSIC, "return cls(id, method, args, *_passed(fields), kwargs, meta)", "return cls(id, method, args, *_passed(fields), kwargs)",
    ),
    # --- closing ---
    Mutant(
        "nothing-finished", "CLS-2", "at the end of its input the handlers are cancelled at once",
        _CHANNEL, "                if self._ended_cleanly:\n", "                if False:\n",
    ),
    Mutant(
        "send-max-off", "CLS-5", "the answers that are owed are not bounded",
        _CONNECTION, "if self.outbox.control_size > self.limits.send_max and not lost:", "if False:",
    ),
    Mutant(
        "waiting-on-close", "CLS-1", "what waits for the peer goes on waiting after the channel is closed",
        _CHANNEL,
        "        for call in self.connection.close():\n            self._fail(call, self._closed_error())\n",
        "        self.connection.close()\n",
    ),
    Mutant(
        "exit-as-a-clean-end", "CLS-1", "a violation ends the process as if the input had ended",
        _CHANNEL, "        self._lost_error = lost.error\n", "        self._lost_error = ChannelClosed('closed')\n",
    ),
)  # fmt: skip
