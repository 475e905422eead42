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
_CONNECTION = "kkrpc_py.core.connection"
_OUTBOX = "kkrpc_py.core.outbox"
_STREAM = "kkrpc_py.channel.stream"
_TASK = "kkrpc_py.channel.task"
_DISPATCH = "kkrpc_py.channel.dispatch"
_PRODUCER = "kkrpc_py.channel.producer"

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
        "stream-error-as-end", "STR-4", "a stream that failed ends as if it was complete",
        _CALLEE,
        "        frame = self._encode_error(call.id, error, call.lane is not None)\n        if call.lane is not None:\n",
        "        frame = self._encode_error(call.id, error, call.lane is not None)\n"
        "        if call.lane is not None and call.id is not None:\n"
        "            frame = self._encoder.encode(m.StreamEnd(call.id))\n"
        "        if call.lane is not None:\n",
    ),
    Mutant(
        "early-chunk-ignored", "STR-6", "a chunk before the answer is not counted",
        _TABLES,
        "(s.WAITING, e.CHUNKS): (s.WAITING, Do.VIOLATION)",
        "(s.WAITING, e.CHUNKS): (s.WAITING, Do.IGNORE)",
    ),
    Mutant(
        "early-end-counts", "STR-6", "an end before the answer answers the call",
        _TABLES,
        "(s.WAITING, e.END): (s.WAITING, Do.VIOLATION)",
        "(s.WAITING, e.END): (s.DONE, Do.CONFIRM)",
    ),
    Mutant(
        "early-error-counts", "STR-6", "a stream error before the answer answers the call",
        _TABLES,
        "(s.WAITING, e.STREAM_FAILURE): (s.WAITING, Do.VIOLATION)",
        "(s.WAITING, e.STREAM_FAILURE): (s.DONE, Do.DELIVER)",
    ),
    Mutant(
        "second-answer-ends", "CALL-5", "a response ends an open stream",
        _TABLES, "(s.OPEN, e.RESULT): (s.OPEN, Do.VIOLATION)", "(s.OPEN, e.RESULT): (s.DONE, Do.CONFIRM)",
    ),
    Mutant(
        "second-error-ends", "CALL-5", "an error response ends an open stream",
        _TABLES, "(s.OPEN, e.FAILURE): (s.OPEN, Do.VIOLATION)", "(s.OPEN, e.FAILURE): (s.DONE, Do.DELIVER)",
    ),
    Mutant(
        "unknown-chunk-closes", "STR-7", "a chunk for an unknown id closes the channel",
        _CALLER,
        '            return self._violation(f"a chunk for the unknown id {message.id!r}")\n',
        "            return ev.Lost(ProtocolError('a chunk for an unknown id'))\n",
    ),
    Mutant(
        "unknown-chunk-ignored", "STR-7", "a chunk for an unknown id is not counted",
        _CALLER,
        '            return self._violation(f"a chunk for the unknown id {message.id!r}")\n',
        "            return None\n",
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
        "unsendable-batch-lost", "STR-11", "the values before one that cannot be sent are lost",
        _CALLEE, "            if len(values) == 1:\n                raise\n", "            raise\n",
    ),
    Mutant(
        "stock-buffer-off", "STR-12", "unread chunks without credit are not bounded",
        _CALLER, "elif call.buffered + size > self.limits.stock_stream_buffer:", "elif False:",
    ),
    Mutant(
        "stock-buffer-never-emptied", "STR-12", "chunks that were read count as unread",
        _CALLER,
        "        if call.argument or call.window is None:\n            call.buffered -= size\n",
        "",
    ),
    # --- cancel ---
    Mutant(
        "cancel-unanswered", "CAN-4", "the cancel of a stream is not answered",
        _CALLEE, "        elif hi.CANCEL in call.features:\n", "        elif False:\n",
    ),
    Mutant(
        "cancelled-as-complete", "CAN-4", "the cancel of a stream is answered by a plain end",
        _CALLEE, "m.StreamEnd(call.id, cancelled=True)", "m.StreamEnd(call.id)",
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
        "call-cancel-answered-early", "CAN-4", "the cancel of a call is answered before its cleanup",
        _CALLEE,
        "        if call.lane is not None:\n            self.outbox.drop(call.lane)\n",
        "        if call.lane is not None:\n            self.outbox.drop(call.lane)\n"
        "        elif not call.silent:\n"
        '            self._put(m.Failure(call.id, error_to_wire(CallCancelled("the call was cancelled"))))\n'
        "            call.silent = True\n",
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
        "second-cancel-counted", "CAN-7", "a second cancel is counted",
        _CALLEE,
        "        if self._step_callee(call, CalleeEvent.CANCEL) is not Do.INTERRUPT:\n            return None\n",
        "        if self._step_callee(call, CalleeEvent.CANCEL) is not Do.INTERRUPT:\n"
        "            return self._violation('a second cancel')\n",
    ),
    Mutant(
        "second-cancel-answered", "CAN-7", "a second cancel is answered at once",
        _CALLEE,
        "        if self._step_callee(call, CalleeEvent.CANCEL) is not Do.INTERRUPT:\n            return None\n",
        "        if self._step_callee(call, CalleeEvent.CANCEL) is not Do.INTERRUPT:\n"
        "            self._put(m.StreamEnd(message.id, cancelled=True))\n            return None\n",
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
        "cancel-sent-twice", "CAN-1", "a cancel is sent twice",
        _CALLER,
        "            self._put(m.StreamCancel(call.id))\n            if not confirms:\n",
        "            self._put(m.StreamCancel(call.id))\n            self._put(m.StreamCancel(call.id))\n"
        "            if not confirms:\n",
    ),
    Mutant(
        "cancel-not-awaited", "CAN-3", "a cancelled stream is over at once, and what comes for it is counted",
        _TABLES, "(s.OPEN, e.CANCEL): (s.CANCELLING, Do.SEND)", "(s.OPEN, e.CANCEL): (s.DONE, Do.SEND)",
    ),
    Mutant(
        "crossing-chunks-counted", "CAN-1", "chunks that cross a cancel are counted",
        _TABLES,
        "(s.CANCELLING, e.CHUNKS): (s.CANCELLING, Do.IGNORE)",
        "(s.CANCELLING, e.CHUNKS): (s.CANCELLING, Do.VIOLATION)",
    ),
    Mutant(
        "crossing-opening-counted", "CAN-7", "a stream's opening that crosses a cancel is counted",
        _TABLES,
        "(s.CANCELLING, e.OPENED): (s.CANCELLING, Do.IGNORE)",
        "(s.CANCELLING, e.OPENED): (s.CANCELLING, Do.VIOLATION)",
    ),
    Mutant(
        "stock-leftovers-counted", "CAN-2", "what still comes of a stock stream that was cancelled is counted",
        "kkrpc_py.core.half", "        self._left[id] = None\n", "",
    ),
    Mutant(
        "given-up-stream-runs-on", "CAN-6", "a call that was given up and turns out to be a stream is not cancelled",
        _TABLES, "(s.GIVEN_UP, e.OPENED): (s.DONE, Do.SEND)", "(s.GIVEN_UP, e.OPENED): (s.DONE, Do.CONFIRM)",
    ),
    Mutant(
        "late-cancel-unsent", "CAN-8", "a call that was given up before the hello is not cancelled after it",
        _TABLES,
        "(s.GIVEN_UP, e.CANCEL_AGREED): (s.CANCELLING, Do.SEND)",
        "(s.GIVEN_UP, e.CANCEL_AGREED): (s.GIVEN_UP, Do.IGNORE)",
    ),
    Mutant(
        "error-after-stock-cancel", "CAN-2", "a producer that fails after a stock cancel says so",
        _CALLEE,
        "        if forgotten or call.silent:\n            return  # the caller",
        "        if call.silent:\n            return  # the caller",
    ),
    Mutant(
        "few-ids", "MSG-3", "the ids of the testee's calls are 1 to 3, in turn",
        "kkrpc_py.core.half", "        self._next_id += 1\n", "        self._next_id = self._next_id % 3 + 1\n",
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
        "credit-chunks-ignored", "CRD-3", "a producer counts bytes and no chunks",
        _CREDIT, "return self.chunks if self.bytes > 0 else 0", "return 1 << 20 if self.bytes > 0 else 0",
    ),
    Mutant(
        "bytes-never-below-zero", "CRD-3", "the debt of bytes is forgotten",
        _CREDIT, "        self.chunks -= chunks\n        self.bytes -= size\n\n    def grant",
        "        self.chunks -= chunks\n        self.bytes = max(0, self.bytes - size)\n\n    def grant",
    ),
    Mutant(
        "ack-ignored", "CRD-2", "acknowledgements grant nothing",
        _CALLEE, "                call.window.grant(message.chunks, message.bytes)\n", "",
    ),
    Mutant(
        "ack-bytes-ignored", "CRD-2", "acknowledgements grant chunks alone",
        _CALLEE, "call.window.grant(message.chunks, message.bytes)", "call.window.grant(message.chunks, 0)",
    ),
    Mutant(
        "ack-sets", "CRD-2", "an acknowledgement sets the credit instead of adding to it",
        _CREDIT,
        "        self.chunks += chunks\n        self.bytes += size\n\n\nclass",
        "        self.chunks = chunks\n        self.bytes = size\n\n\nclass",
    ),
    Mutant(
        "more-chunks-at-first", "CRD-1", "the first credit is 65 chunks",
        _CREDIT, "INITIAL_CHUNKS = 64\n", "INITIAL_CHUNKS = 65\n",
    ),
    Mutant(
        "fewer-bytes-at-first", "CRD-1", "the first credit is 256,000 bytes",
        _CREDIT, "INITIAL_BYTES = 256 * 1024\n", "INITIAL_BYTES = 256 * 1000\n",
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
    Mutant(
        "without-credit-accepted", "CRD-4", "chunks without credit are taken",
        _CREDIT, "        if chunks > self.chunks or self.bytes <= 0:\n            return False\n", "",
    ),
    Mutant(
        "bytes-without-credit-accepted", "CRD-4", "chunks without a credit of bytes are taken",
        _CREDIT, "        if chunks > self.chunks or self.bytes <= 0:\n", "        if chunks > self.chunks:\n",
    ),
    Mutant(
        "without-credit-uncounted", "CRD-4", "chunks without credit are not counted",
        _CALLER, "                self.violations += 1\n", "",
    ),
    Mutant(
        "ack-of-a-call-ignored", "CRD-6", "an acknowledgement for a call that is no stream is not counted",
        _TABLES, "(s.RUNNING, e.ACK): (s.RUNNING, Do.VIOLATION)", "(s.RUNNING, e.ACK): (s.RUNNING, Do.IGNORE)",
    ),
    Mutant(
        "size-with-line-feed", "CRD-7", "the size of a line includes its line feed",
        "kkrpc_py.wire.framing", "        return len(frame) - 1\n", "        return len(frame)\n",
    ),
    Mutant(
        "size-with-head", "CRD-7", "the size of a CBOR frame includes its head",
        "kkrpc_py.wire.framing",
        "    return len(frame) - 3 - _LENGTH_BYTES.get(frame[2], 0)\n",
        "    return len(frame)\n",
    ),
    # --- batches and results ---
    Mutant(
        "batch-of-one", "BAT-1", "a single value is sent as a batch",
        _CLASSIC,
        'args = {"value": fit(values[0], "value")} if len(values) == 1 else {"values": fit(values, "values")}',
        'args = {"values": fit(values, "values")}',
    ),
    Mutant(
        "batch-reversed", "BAT-1", "the values of a batch are in the wrong order",
        _CALLEE, "        message = m.Chunks(call.id, values)\n", "        message = m.Chunks(call.id, values[::-1])\n",
    ),
    Mutant(
        "batch-of-300", "BAT-2", "a batch holds up to 1,000 values",
        _CALLS, "MAX_BATCH = 256\n", "MAX_BATCH = 1000\n",
    ),
    Mutant(
        "long-batch-refused", "BAT-2", "a batch of more than 256 values is refused",
        _CLASSIC,
        "if type(values) is not list or not values:",
        "if type(values) is not list or not values or len(values) > 256:",
    ),
    Mutant(
        "batch-to-stock", "BAT-2", "batches are sent where they are not agreed",
        _CALLS, "most = MAX_BATCH if BATCH in self.features else 1", "most = MAX_BATCH",
    ),
    Mutant(
        "batch-waits", "BAT-3", "a producer that waits keeps what it has collected",
        _PRODUCER,
        "        def on_suspend() -> None:\n            self._stepping = False\n            self._flush_or_interrupt()\n",
        "        def on_suspend() -> None:\n            self._stepping = True\n",
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
    Mutant(
        "unsendable-result-dropped", "RES-2", "a return value that cannot be sent is left out",
        _CALLEE,
        "        frame = self.passage.encode(m.StreamEnd(call.id, result))\n",
        "        try:\n            frame = self.passage.encode(m.StreamEnd(call.id, result))\n"
        "        except (NotSerializable, LimitExceeded):\n"
        "            frame = self.passage.encode(m.StreamEnd(call.id))\n",
    ),
    Mutant(
        "result-takes-credit", "RES-3", "the end of a stream waits for credit",
        _TASK,
        "        await producer.drain()\n        if self.call.stopping():\n            return\n",
        "        await producer.drain()\n        while not self.call.room and not self.call.stopping():\n"
        "            await producer._change()\n        if self.call.stopping():\n            return\n",
    ),
    # --- the order of frames ---
    Mutant(
        "streams-first", "CLS-4", "stream frames go ahead of all others",
        _OUTBOX, "            if control:\n", "            if control and not turns:\n",
    ),
    Mutant(
        "no-turns", "CLS-4", "a stream sends all it has before the next one's turn",
        _OUTBOX,
        "                if lane.frames:\n                    turns.append(lane)\n",
        "                if lane.frames:\n                    turns.appendleft(lane)\n",
    ),
    Mutant(
        "last-in-first-out", "CLS-4", "answers leave in the opposite order",
        _OUTBOX, "                frame = control.popleft()\n", "                frame = control.pop()\n",
    ),
    Mutant(
        "producer-keeps-its-turn", "STR-10", "a producer that never waits keeps the loop",
        _PRODUCER,
        "        if self._since_turn >= _TURN or perf_counter() - self._turn_began > _TURN_SECONDS:\n",
        "        if False:\n",
    ),
)  # fmt: skip
