"""Mutants of streams, their cancel, and flow control (STR, CAN, CRD, BAT, RES, CLS-4)."""

# ruff: noqa: E501 - lines of the source are quoted whole

from __future__ import annotations

from tests.conformance.mutants.mutant import Mutant

_CLASSIC = "kkrpc_py.wire.classic"
_TABLES = "kkrpc_py.core.tables"
_CREDIT = "kkrpc_py.core.credit"
_CALLS = "kkrpc_py.core.calls"
_CALLEE = "kkrpc_py.core.callee"
_CALLER = "kkrpc_py.core.caller"
_OUTBOX = "kkrpc_py.core.outbox"
_STREAM = "kkrpc_py.channel.stream"
_DISPATCH = "kkrpc_py.channel.dispatch"

MUTANTS = (
    Mutant(
        "two-ends", "STR-5", "a stream that is complete is ended twice",
        _CALLEE,
        "        self._step_callee(call, CalleeEvent.FINISH)\n        self.outbox.put_in(call.lane, frame)\n",
        "        self._step_callee(call, CalleeEvent.FINISH)\n        self.outbox.put_in(call.lane, frame)\n"
        "        self.outbox.put_in(call.lane, frame)\n",
    ),
    Mutant(
        "opened-twice", "STR-5", "a stream that is passed within a value is opened",
        _CALLEE,
        "        self._offered += 1\n        return call\n",
        "        self._offered += 1\n        self._put(m.StreamOpened(id))\n        return call\n",
    ),
    Mutant(
        "stream-error-as-response", "STR-4", "a stream that failed ends in an error response",
        _CALLEE,
        "        frame = self._encode_error(call.id, error, call.lane is not None)\n",
        "        frame = self._encode_error(call.id, error, False)\n",
    ),
    Mutant(
        "stream-in-a-value-to-stock", "STR-8", "a stream within a value is sent to a stock peer",
        "kkrpc_py.core.passing", "        if hi.STREAM_ARGUMENTS not in self._passage.agreed:\n", "        if False:\n",
    ),
    Mutant(
        "error-before-values", "STR-9", "an error takes the place of values that came before it",
        _STREAM,
        "            self._error = error\n            self.ended = True\n",
        "            self._error = error\n            self.ended = True\n"
        "            self.values.clear()\n            self._frames = self._held = None\n",
    ),
    Mutant(
        "unsendable-chunk-skipped", "STR-11", "a chunk that cannot be sent is left out",
        _CALLEE,
        "            if len(values) == 1:\n                raise\n",
        "            if len(values) == 1:\n                values.clear()\n                return 0\n",
    ),
    Mutant(
        "stock-buffer-off", "STR-12", "unread chunks without credit are not bounded",
        _CALLER, "elif call.buffered + size > self.limits.stock_stream_buffer:", "elif False:",
    ),
    # --- cancel ---
    Mutant(
        "cancel-unanswered", "CAN-4", "the cancel of a stream is not answered",
        _CALLEE, "        elif hi.CANCEL in call.features:\n", "        elif False:\n",
    ),
    Mutant(
        "cancelled-call-name", "CAN-4", "a cancelled call is answered with another name",
        _CALLEE,
        'self._put(m.Failure(call.id, error_to_wire(CallCancelled("the call was cancelled"))))',
        'self._put(m.Failure(call.id, ErrorValue("AbortError", "the call was cancelled")))',
    ),
    Mutant(
        "cancel-answered-early", "CAN-4", "the cancel of a stream is answered before its cleanup",
        _CALLEE,
        "        if call.lane is not None:\n            self.outbox.drop(call.lane)\n",
        "        if call.lane is not None:\n            self.outbox.drop(call.lane)\n"
        "            if hi.CANCEL in call.features and call.id is not None:\n"
        "                self.outbox.put_in(\n"
        "                    call.lane, self._encoder.encode(m.StreamEnd(call.id, cancelled=True))\n"
        "                )\n"
        "                call.features -= {hi.CANCEL}\n",
    ),
    Mutant(
        "chunk-after-cancel", "CAN-1", "a cancelled stream sends one more chunk before its end",
        _CALLEE,
        "            assert call.id is not None\n            assert call.lane is not None\n"
        "            self.outbox.put_in(call.lane, self._encoder",
        "            assert call.id is not None\n            assert call.lane is not None\n"
        "            self.outbox.put_in(call.lane, self._encoder.encode(m.Chunks(call.id, [0])))\n"
        "            self.outbox.put_in(call.lane, self._encoder",
    ),
    Mutant(
        "cancel-at-next-yield", "CAN-1", "a producer that waits is not interrupted by a cancel",
        _DISPATCH,
        "        if task.scope is not None:\n            task.scope.cancel()\n",
        "        if task.scope is not None and task.producer is None:\n            task.scope.cancel()\n",
    ),
    Mutant(
        "producer-left-running", "CAN-7", "a cancel is answered, and the handler goes on",
        _DISPATCH,
        "        if task.scope is not None:\n            task.scope.cancel()\n",
        "        self.host.connection.stopped(call)\n        self.host.kick()\n"
        "        if False:\n            task.scope.cancel()\n",
    ),
    Mutant(
        "stock-cancel-answered", "CAN-2", "the cancel of a stream is answered where that is not agreed",
        _CALLEE, "        elif hi.CANCEL in call.features:\n", "        else:\n",
    ),
    Mutant(
        "calls-cannot-be-cancelled", "CAN-3", "the cancel of a call is ignored",
        _TABLES,
        "(s.RUNNING, e.CANCEL): (s.STOPPING_CALL, Do.INTERRUPT)",
        "(s.RUNNING, e.CANCEL): (s.RUNNING, Do.IGNORE)",
    ),
    Mutant(
        "cancel-unsent", "CAN-1", "a stream that is given up is not cancelled where cancel is agreed",
        _TABLES, "(s.OPEN, e.CANCEL): (s.CANCELLING, Do.SEND)", "(s.OPEN, e.CANCEL): (s.CANCELLING, Do.IGNORE)",
    ),
    Mutant(
        "stock-cancel-unsent", "CAN-1", "a stream that is given up is not cancelled toward a stock peer",
        _TABLES, "(s.OPEN, e.STOCK_CANCEL): (s.DONE, Do.SEND)", "(s.OPEN, e.STOCK_CANCEL): (s.DONE, Do.IGNORE)",
    ),
    Mutant(
        "call-cancel-unsent", "CAN-3", "a call that is given up is not cancelled where cancel is agreed",
        _TABLES,
        "(s.WAITING, e.CANCEL): (s.CANCELLING, Do.SEND)",
        "(s.WAITING, e.CANCEL): (s.CANCELLING, Do.IGNORE)",
    ),
    Mutant(
        "given-up-stream-runs-on", "CAN-6", "a call that was given up and turns out to be a stream is not cancelled",
        _TABLES, "(s.GIVEN_UP, e.OPENED): (s.DONE, Do.SEND)", "(s.GIVEN_UP, e.OPENED): (s.DONE, Do.CONFIRM)",
    ),
    # --- credit ---
    Mutant(
        "credit-ignored", "CRD-3", "a producer sends without credit",
        _CALLS, "        if CREDIT in self.features:\n            self.window = SendWindow()\n", "",
    ),
    Mutant(
        "credit-bytes-ignored", "CRD-3", "a producer counts chunks and no bytes",
        _CREDIT, "return self.chunks if self.bytes > 0 else 0", "return self.chunks",
    ),
    Mutant(
        "ack-ignored", "CRD-2", "acknowledgements grant nothing",
        _CALLEE, "                call.window.grant(message.chunks, message.bytes)\n", "",
    ),
    Mutant(
        "nothing-granted", "CRD-8", "a consumer grants nothing",
        _CREDIT, "        return grant_chunks, grant_bytes\n", "        return None\n",
    ),
    Mutant(
        "granted-on-arrival", "CRD-5", "a consumer grants what arrives, not what is taken",
        _STREAM,
        "        self.received += len(values)\n        if self._discarding:\n",
        "        self.received += len(values)\n        if not self._discarding:\n"
        "            self._give_back(len(values), size)\n            size = 0\n        if self._discarding:\n",
    ),
    # --- batches and results ---
    Mutant(
        "batch-of-one", "BAT-1", "a single value is sent as a batch",
        _CLASSIC,
        'args = {"value": fit(values[0], "value")} if len(values) == 1 else {"values": fit(values, "values")}',
        'args = {"values": fit(values, "values")}',
    ),
    Mutant(
        "batch-of-300", "BAT-2", "a batch holds up to 1,000 values",
        _CALLS, "MAX_BATCH = 256\n", "MAX_BATCH = 1000\n",
    ),
    Mutant(
        "result-dropped", "RES-1", "the return value of a producer is not sent",
        _CALLEE, "        if not call.carries_result:\n", "        if True:\n",
    ),
    Mutant(
        "result-to-stock", "RES-1", "a return value is sent where that is not agreed",
        _CALLS, "        return RESULT in self.features\n", "        return True\n",
    ),
    Mutant(
        "result-unread", "RES-1", "the return value of a stream is not read",
        _CALLER, "result = None if message.result is UNSET else message.result", "result = None",
    ),
    # --- the order of frames ---
    Mutant(
        "streams-first", "CLS-4", "stream frames go ahead of all others",
        _OUTBOX, "            if control:\n", "            if control and not turns:\n",
    ),
)  # fmt: skip
