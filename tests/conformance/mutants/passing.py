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
_STREAM = "kkrpc_py.channel.stream"

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
        "functions-at-the-top-alone", "CBK-1", "functions within arguments are text, where callback is agreed too",
        _PASSING,
        "            deep = hi.CALLBACK in self.agreed\n            self._take",
        "            deep = not arguments and hi.CALLBACK in self.agreed\n            self._take",
    ),
    Mutant(
        "functions-unread", "CBK-1", "functions in results and chunks are text",
        _PASSING,
        "        if not names and self.decode is None:\n            return value\n",
        "        if (not names and self.decode is None) or type(message) in (m.Result, m.Chunks, m.StreamEnd):\n"
        "            return value\n",
    ),
    Mutant(
        "function-within-to-stock", "CBK-1", "a function within an argument is sent to a stock peer",
        _PASSING,
        "        if hi.CALLBACK not in passage.agreed and not (self._arguments and _at_top(path)):\n",
        "        if False:\n",
    ),
    Mutant(
        "callback-text-beside", "CBK-1", "text that equals a function of its message is sent",
        _PASSING, "            if self.names.get(value, value) is not value:\n", "            if False:\n",
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
        "stock-callbacks-answered", "CBK-4", "callbacks are answered where that is not agreed",
        _CALLEE,
        "        answered = self.calls_back and message.id is not None\n",
        "        answered = message.id is not None\n",
    ),
    Mutant(
        "notify-with-id", "CBK-4", "a callback that wants no answer has an id all the same",
        _CALLER,
        "        id = None if self.calls_back or self.pending else self._new_id()\n",
        "        id = self._new_id()\n",
    ),
    Mutant(
        "callback-waits-for-stock", "CBK-4", "the call of a stock peer's function waits for an answer",
        "kkrpc_py.channel.call",
        "    if type(message) is Callback and not connection.calls_back:\n",
        "    if False:\n",
    ),
    Mutant(
        "released-runs", "CBK-5", "a function that was released can still be called",
        _PASSED,
        "        passed = self._by_key.get(_key(named_by))\n        if passed is not None:\n            self._forget(passed)\n",
        "",
    ),
    Mutant(
        "released-name", "CBK-5", "the call of a released function fails with another name",
        _CALLEE,
        "            self._put(m.Failure(message.id, error_to_wire(error)))\n            return None\n        try:\n"
        "            args, kwargs = self._restored_args(message)\n        except Exception as exc:\n"
        "            if not answered:",
        "            self._put(m.Failure(message.id, ErrorValue('ReferenceError', str(error))))\n            return None\n"
        "        try:\n"
        "            args, kwargs = self._restored_args(message)\n        except Exception as exc:\n"
        "            if not answered:",
    ),
    Mutant(
        "stock-released-counted", "CBK-5", "a stock peer's call of a released function is counted",
        _CALLEE,
        "                if self.passage.functions.was_known(message.callback_id):\n",
        "                if False:\n",
    ),
    Mutant(
        "never-passed-uncounted", "CALL-11", "a call of what was never passed is not counted",
        _CALLEE,
        '                return self._violation(f"a call of the unknown callback {message.callback_id!r}")\n',
        "                return None\n",
    ),
    Mutant(
        "release-unsent", "CBK-6", "nothing is said of functions that are held no more",
        _CALLER, "        if counts and self.calls_back:\n", "        if False:\n",
    ),
    Mutant(
        "release-to-stock", "CBK-6", "a stock peer is told too of functions that are held no more",
        _CALLER, "        if counts and self.calls_back:\n", "        if counts:\n",
    ),
    Mutant(
        "release-of-one", "CBK-6", "a release says one, however often the function was named",
        _CALLER,
        "            self._put(m.CallbackRelease(counts))\n",
        "            self._put(m.CallbackRelease(dict.fromkeys(counts, 1)))\n",
    ),
    Mutant(
        "refused-functions-kept", "CBK-6", "functions in messages that are refused or dropped are not given back",
        _PASSING,
        "        if self._holder is not None and (message.callback_ids or message.stream_ids):\n            try:\n",
        "        if False:\n            try:\n",
    ),
    Mutant(
        "released-at-once", "CBK-6", "one release forgets a function that was passed twice",
        _PASSED, "        if passed.count <= 0:\n", "        if True:\n",
    ),
    Mutant(
        "never-forgotten", "CBK-6", "a function that was given back can still be called",
        _PASSED, "        if passed.count <= 0:\n", "        if False:\n",
    ),
    Mutant(
        "over-release-uncounted", "CBK-6", "a release of more than was sent is not counted",
        _PASSED, "        return passed.count >= 0\n", "        return True\n",
    ),
    Mutant(
        "carrying-frames-dropped", "CBK-6", "frames that name functions are dropped with their cancelled stream",
        "kkrpc_py.core.outbox",
        "(frame for frame in lane.frames if type(frame) is Carrying)",
        "(frame for frame in lane.frames if False)",
    ),
    Mutant(
        "held-functions-unbounded", "CBK-7", "any number of the peer's functions is held",
        _HELD, "        self._most = most\n", "        self._most = 1 << 30\n",
    ),
    Mutant(
        "passed-functions-unbounded", "CBK-7", "any number of functions is passed",
        _PASSED, "        self._most = most\n", "        self._most = 1 << 30\n",
    ),
    Mutant(
        "one-function-too-many-dropped", "CBK-7", "one function too many makes its message vanish",
        _CALLEE,
        "        except Exception as exc:\n            self._put(m.Failure(id, error_to_wire(exc)))\n            return None\n"
        "        call = self._begin(id, method, size)\n",
        "        except Exception:\n            return None\n        call = self._begin(id, method, size)\n",
    ),
    # --- streams within values ---
    Mutant(
        "stream-ids-unsent", "ARG-1", "the ids of streams are not listed in streamIds",
        _CLASSIC,
        '    if message.stream_ids:\n        mapping["streamIds"] = message.stream_ids\n',
        "",
    ),
    Mutant(
        "stream-arguments-unread", "ARG-1", "streams within values are read as text",
        _PASSING,
        "stream_ids = message.stream_ids if hi.STREAM_ARGUMENTS in self.agreed else ()",
        "stream_ids: tuple[str, ...] = ()",
    ),
    Mutant(
        "stream-arguments-from-stock", "ARG-1", "streams within values are read where they are not agreed",
        _PASSING,
        "stream_ids = message.stream_ids if hi.STREAM_ARGUMENTS in self.agreed else ()",
        "stream_ids = message.stream_ids",
    ),
    Mutant(
        "any-stream-id", "ARG-1", "a stream's id may begin as it likes",
        _PASSING, "            if not id.startswith(STREAM_PREFIX):\n", "            if False:\n",
    ),
    Mutant(
        "stream-id-in-use", "ARG-1", "a stream under an id that is in use takes its place",
        _CALLER,
        "        if id in self.outgoing:\n            raise ProtocolError(f\"a second stream under the id {id!r}\")\n",
        "",
    ),
    Mutant(
        "stream-argument-ungranted", "ARG-3", "streams within values are not acknowledged",
        _CALLER,
        "            call.window = ReceiveWindow(self.limits.stream_buffer)\n        self._arguments += 1\n",
        "            pass\n        self._arguments += 1\n",
    ),
    Mutant(
        "stream-argument-uncredited", "ARG-2", "streams within values are sent without credit",
        _CALLEE,
        "        call.open()\n        self.incoming[id] = call\n",
        "        call.open()\n        call.window = None\n        self.incoming[id] = call\n",
    ),
    Mutant(
        "unread-stream-kept", "ARG-3", "a stream that nobody will read is not cancelled",
        _STREAM,
        "            self.abandoned = True\n            self.host.post(self.cancel)\n",
        "            self.abandoned = True\n",
    ),
    Mutant(
        "streams-unbounded", "ARG-5", "any number of streams within values may be open",
        _CALLER, "        if self._arguments >= self.limits.calls:\n", "        if False:\n",
    ),
    Mutant(
        "stream-too-many-kept", "ARG-5", "one stream too many is not cancelled",
        _CALLER,
        "            self._put(m.StreamCancel(id))\n            self._leave(id)\n            raise LimitExceeded",
        "            raise LimitExceeded",
    ),
    Mutant(
        "stream-bytes-unbounded", "ARG-5", "unread bytes of streams within values are not bounded",
        _CALLER,
        "        if call.argument and self._argument_bytes + size > self.limits.call_bytes:\n",
        "        if False:\n",
    ),
    Mutant(
        "streams-end-with-their-call", "ARG-4", "a stream within a value ends with the call that named it",
        "kkrpc_py.channel.task",
        "        self.call.owner = self.producer = None\n",
        "        self.call.owner = self.producer = None\n"
        "        if self.kind == 'call':\n"
        "            for other in [*self.host.connection.outgoing.values()]:\n"
        "                if other.argument and other.owner is not None:\n"
        "                    other.owner.cancel()\n",
    ),
)  # fmt: skip
