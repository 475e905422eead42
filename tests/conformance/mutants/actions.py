"""Mutants of stream actions (ACT)."""

# ruff: noqa: E501 - lines of the source are quoted whole

from __future__ import annotations

from tests.conformance.mutants.mutant import Mutant

_ACTION = "kkrpc_py.actions.action"
_RUNNING = "kkrpc_py.actions.running"
_STREAM = "kkrpc_py.actions.stream"
_INPUTS = "kkrpc_py.actions.inputs"
_ERRORS = "kkrpc_py.errors.actions"

_MIDDLEWARE = """\
        for middleware in self.action.middleware:
            await self.guarded(middleware(ctx))
"""
_READ = "        ctx.input = self.action.read(raw, text)\n"
_PREPARED = """\
        prepared = await bound.prepare(raw, ActionContext.of_channel(bound.name))
        return SinkStream(functools.partial(_send, prepared))
"""
_RUN = "        await prepared.run(_SinkOutlet(sink))\n"
_SEND = "        await self._outlet.send(chunk)\n"
_CLOSE = "            await self._outlet.close()\n"
_MADE = "        stream: ActionStream[Any] = ActionStream(outlet, self.signal)\n"


def _wrong(send: str, close: str) -> str:
    """Another class of stream, whose methods begin with these lines."""
    return f"""\
        class Wrong(ActionStream):
            sent = ()

            async def send(self, chunk):
                {send}

            async def close(self):
                {close}
                await super().close()

        stream = Wrong(outlet, self.signal)
"""


MUTANTS = (
    Mutant(
        "null-chunks-of-actions-lost", "ACT-1", "an action cannot send null",
        _STREAM, _SEND, "        if chunk is not None:\n            await self._outlet.send(chunk)\n",
    ),
    Mutant(
        "empty-actions-fail", "ACT-1", "an action that sends nothing is an error",
        _RUNNING, _MADE,
        _wrong(
            "self.sent = True; await super().send(chunk)",
            "if not self.sent: raise ValueError('nothing was sent')",
        ),
    ),
    Mutant(
        "actions-return", "ACT-1", "the stream of an action ends with a value",
        _ACTION, _RUN, f"{_RUN}        return 'done'\n",
    ),
    Mutant(
        "no-input-is-null", "ACT-1", "an action that is called without arguments gets null",
        _ACTION, "default=UNDEFINED)]", "default=None)]",
    ),
    Mutant(
        "last-argument-of-actions", "ACT-1", "an action takes the last of its arguments",
        _ACTION, "default=UNDEFINED)]", "default=UNDEFINED), inspect.Parameter('rest', inspect.Parameter.VAR_POSITIONAL)]",
    ),
    Mutant(
        "one-call-of-an-action", "ACT-1", "the calls of an action wait for each other",
        _ACTION, _RUN,
        "        global _turn\n        _turn = globals().get('_turn') or anyio.Lock()\n"
        "        async with _turn:\n            await prepared.run(_SinkOutlet(sink))\n",
    ),
    Mutant(
        "checks-backwards", "ACT-2", "the last check runs first",
        _RUNNING, "in self.action.middleware:", "in reversed(self.action.middleware):",
    ),
    Mutant(
        "first-check-alone", "ACT-2", "only the first check is asked",
        _RUNNING, "in self.action.middleware:", "in self.action.middleware[:1]:",
    ),
    Mutant(
        "checks-twice", "ACT-2", "each check is asked twice",
        _RUNNING, "in self.action.middleware:", "in self.action.middleware * 2:",
    ),
    Mutant(
        "checks-before-the-input", "ACT-2", "the checks run before the input is looked at",
        _RUNNING, _READ + _MIDDLEWARE,
        "        import types\n        ctx.input = types.SimpleNamespace(**{'refuse': [], **raw}) if isinstance(raw, dict) and 'name' in raw else self.action.read(raw, text)\n"
        + _MIDDLEWARE + _READ,
    ),
    Mutant(
        "refused-within-the-stream", "ACT-3", "the stream is opened, and then refused",
        _ACTION, _PREPARED,
        "        ctx = ActionContext.of_channel(bound.name)\n\n"
        "        async def late(sink: StreamSink[Any]) -> None:\n            await _send(await bound.prepare(raw, ctx), sink)\n\n"
        "        return SinkStream(late)\n",
    ),
    Mutant(
        "action-errors-untold", "ACT-4", "every error of an action is an unexpected one",
        _RUNNING, "return exc if isinstance(exc, ActionError) else None", "return None",
    ),
    Mutant(
        "statuses-as-text", "ACT-4", "the status of an error is a text",
        _ERRORS, '"statusCode": self.status}', '"statusCode": str(self.status)}',
    ),
    Mutant(
        "field-errors-always", "ACT-4", "an error without fields has an empty object of them",
        _ERRORS, "        if self.field_errors:\n", "        if self.field_errors is not None:\n",
    ),
    Mutant(
        "field-errors-never", "ACT-4", "an error does not say which fields are wrong",
        _ERRORS, "        if self.field_errors:\n", "        if False:\n",
    ),
    Mutant(
        "one-field-alone", "ACT-5", "of several fields that are wrong one is named",
        _INPUTS, "        fields.setdefault(path, []).append(_sendable(issue.message))\n",
        "        fields.setdefault(path, []).append(_sendable(issue.message))\n        break\n",
    ),
    Mutant(
        "fields-without-their-way", "ACT-5", "a field is named by the first key of the way to it",
        _INPUTS, '".".join(map(str, issue.path))', '".".join(map(str, issue.path[:1]))',
    ),
    Mutant(
        "field-errors-as-text", "ACT-5", "what is wrong with a field is one text",
        _ERRORS, '            found["fieldErrors"] = self.field_errors\n',
        '            found["fieldErrors"] = {path: "; ".join(texts) for path, texts in self.field_errors.items()}\n',
    ),
    Mutant(
        "the-input-has-no-name", "ACT-5", "the input as a whole is named by an empty path",
        _INPUTS, '_ROOT = "_root"', '_ROOT = ""',
    ),
    Mutant(
        "unexpected-errors-told", "ACT-6", "an action's unexpected error says what it was",
        _RUNNING, "            raise ActionError.unexpected() from None\n",
        "            raise ActionError('STREAM_ERROR', str(exc), 500) from None\n",
    ),
    Mutant(
        "unexpected-errors-as-they-are", "ACT-6", "an action's unexpected error crosses as any handler's",
        _RUNNING, "            raise ActionError.unexpected() from None\n", "            raise\n",
    ),
    Mutant(
        "sent-after-close", "ACT-7", "an action may send after it has closed its stream",
        _STREAM, "        if self.closed:\n            raise", "        if False:\n            raise",
    ),
    Mutant(
        "closed-for-ever", "ACT-7", "an action that closes its stream waits until its consumer is gone",
        _STREAM, _CLOSE, f"{_CLOSE}            await self.signal.wait()\n",
    ),
    Mutant(
        "actions-not-interrupted", "ACT-8", "an action runs on when its consumer is gone",
        _ACTION, _RUN, f"        with anyio.CancelScope(shield=True):\n    {_RUN}",
    ),
    Mutant(
        "actions-send-ahead", "ACT-9", "an action makes all its chunks before the first is sent",
        _RUNNING, _MADE,
        _wrong(
            "self.sent = (*self.sent, chunk)",
            "for each in self.sent if not self.closed else (): await super().send(each)",
        ),
    ),
    Mutant(
        "chunks-in-pairs", "ACT-9", "a chunk waits for the next one",
        _RUNNING, _MADE,
        _wrong(
            "for each in self.sent: await super().send(each)\n                self.sent = (chunk,)",
            "for each in self.sent if not self.closed else (): await super().send(each)",
        ),
    ),
    Mutant(
        "validation-is-400", "ACT-11", "an input that is wrong has the status 400",
        _INPUTS, "_STATUS = 422\n", "_STATUS = 400\n",
    ),
    Mutant(
        "unexpected-is-400", "ACT-11", "an unexpected error has the status 400",
        _ERRORS, 'return cls(STREAM_ERROR, "Stream handler error", 500)', 'return cls(STREAM_ERROR, "Stream handler error", 400)',
    ),
)  # fmt: skip
