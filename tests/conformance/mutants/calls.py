"""Mutants of calls, errors, keyword arguments, metadata and closing (CALL, ERR, KWA, META, CLS)."""

# ruff: noqa: E501 - lines of the source are quoted whole

from __future__ import annotations

from tests.conformance.mutants.mutant import Mutant

_CLASSIC = "kkrpc_py.wire.classic"
_EXPOSE = "kkrpc_py.channel.expose"
_PROPERTIES = "kkrpc_py.channel.properties"
_MAPPING = "kkrpc_py.errors.mapping"
_TASK = "kkrpc_py.channel.task"
_CALLEE = "kkrpc_py.core.callee"
_CALLER = "kkrpc_py.core.caller"
_CONNECTION = "kkrpc_py.core.connection"
_CHANNEL = "kkrpc_py.channel.channel"

MUTANTS = (
    Mutant(
        "private-names", "CALL-6", "names that begin with `_` are found",
        "kkrpc_py.channel.lookup", 'segment != "" and segment[0] != "_"', 'segment != ""',
    ),
    Mutant(
        "private-told-apart", "CALL-6", "what is private is refused in another way than what is missing",
        _EXPOSE,
        '        if not public(segment):\n            return MISSING, ""\n',
        "        if not public(segment):\n            raise PermissionError(segment)\n",
    ),
    Mutant(
        "method-not-found-text", "CALL-6", "the text for a missing method is another",
        _EXPOSE, 'f"Method {method} is not a function"', 'f"No method {method}"',
    ),
    Mutant(
        "path-not-found-text", "CALL-6", "a path that leads nowhere is reported at its end",
        _EXPOSE,
        'f"{what} path {method} not found at {segment}"',
        'f"{what} path {method} not found at {method.split(\'.\')[-1]}"',
    ),
    Mutant(
        "constructor-not-found-text", "CALL-6", "what is no class is no function",
        _EXPOSE, 'f"{method} is not a constructor function"', 'f"Method {method} is not a function"',
    ),
    Mutant(
        "property-not-found-text", "CALL-6", "a property that is not found is reported as undefined",
        _PROPERTIES,
        "f\"Property path {'.'.join(path)} not found at {segment}\"",
        "f\"Property {'.'.join(path)} is undefined\"",
    ),
    Mutant(
        "falsy-results-lost", "CALL-3", "0, false and the empty string are answered as no result",
        _CLASSIC,
        "    value = message.value\n    if value is UNSET:\n",
        "    value = message.value\n    if value is UNSET or (type(value) in (bool, int, str) and not value):\n",
    ),
    Mutant(
        "no-result-no-answer", "CALL-3", "a response without result leaves its call pending",
        _CALLER,
        "        value = message.value\n        if self.passage.decode is not None",
        "        value = message.value\n        if value is UNSET:\n            return None\n"
        "        if self.passage.decode is not None",
    ),
    Mutant(
        "calls-limit-off", "CALL-7", "any number of calls may run",
        _CALLEE,
        "        if len(self.incoming) - self._offered + self._anonymous >= self.limits.calls:\n",
        "        if False:\n",
    ),
    Mutant(
        "call-bytes-off", "CALL-7", "the bytes of running requests are not bounded",
        _CALLEE, "        if self._incoming_bytes + size > self.limits.call_bytes:\n", "        if False:\n",
    ),
    Mutant(
        "one-call-too-many-unanswered", "CALL-7", "one call too many is not answered",
        _CALLEE,
        '                self._put(m.Failure(id, error_to_wire(LimitExceeded("too many calls at once (calls)"))))\n',
        "                pass\n",
    ),
    Mutant(
        "construct-any-class", "CALL-9", "any class may be constructed",
        _EXPOSE, "return found if is_constructible(found) else MISSING", "return found if isinstance(found, type) else MISSING",
    ),
    Mutant(
        "construct-all-fields", "CALL-9", "the private fields of an instance are sent too",
        _EXPOSE, "return fields_of(cls(*args, **kwargs))", "return dict(vars(cls(*args, **kwargs)))",
    ),
    Mutant(
        "set-everything", "CALL-10", "what may only be read can be set",
        _PROPERTIES,
        "        raise PermissionError(f\"Property path {'.'.join(path)} is not writable\")\n",
        "        return lambda value: owner.__setitem__(path[-1], value)\n",
    ),
    Mutant(
        "set-makes-names", "CALL-10", "a set makes what was not there",
        _PROPERTIES,
        "    if box is None:\n        _read(path, owner, listed)\n",
        "    if box is None and type(owner) is dict and path[-1] not in owner:\n"
        "        return lambda value: owner.__setitem__(path[-1], value)\n"
        "    if box is None:\n        _read(path, owner, listed)\n",
    ),
    Mutant(
        "set-unanswered", "CALL-10", "a set is answered with nothing",
        _EXPOSE, "            put(value)\n            return True\n", "            put(value)\n            return None  # type: ignore[return-value]  # the fault\n",
    ),
    Mutant(
        "functions-are-data", "CALL-10", "a get of a function is answered with nothing",
        _PROPERTIES,
        "    except NotSerializable:\n        raise _not_found(path, path[-1]) from None\n",
        "    except NotSerializable:\n        return None\n",
    ),
    Mutant(
        "arguments-dropped", "CALL-12", "surplus arguments are dropped",
        _TASK,
        "    if kwargs:\n        handler.check(len(args), kwargs)\n    else:\n",
        "    if handler.most >= 0:\n        args = args[: handler.most]\n"
        "    if kwargs:\n        handler.check(len(args), kwargs)\n    else:\n",
    ),
    Mutant(
        "arguments-filled", "CALL-12", "missing arguments are null",
        _TASK,
        "    if kwargs:\n        handler.check(len(args), kwargs)\n    else:\n",
        "    args = args + [None] * (handler.least - len(args)) if not kwargs else args\n"
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
        "error-fields-lost", "ERR-4", "an error's own fields are not sent",
        _MAPPING,
        "name, message, fields = type(exc).__name__, _text(exc), _public_fields(exc)",
        "name, message, fields = type(exc).__name__, _text(exc), dict[str, Any]()",
    ),
    Mutant(
        "private-error-fields", "ERR-4", "an error's private fields are sent",
        _MAPPING,
        'fields = {key: value for key, value in vars(exc).items() if not key.startswith("_")}',
        "fields = dict(vars(exc))",
    ),
    Mutant(
        "notes-lost", "ERR-4", "an error's notes are not sent",
        _MAPPING, "return name, message, {**fields, _NOTES: notes} if notes else fields", "return name, message, fields",
    ),
    Mutant(
        "cause-lost", "ERR-4", "an error's cause is not sent",
        _MAPPING,
        "        cause = exc.__cause__\n        if cause is not None:\n            found = self._mapping",
        "        cause = None\n        if cause is not None:\n            found = self._mapping",
    ),
    Mutant(
        "context-as-cause", "ERR-4", "what was being handled is sent as the cause",
        _MAPPING,
        "        cause = exc.__cause__\n        if cause is not None:\n            found = self._mapping",
        "        cause = exc.__cause__ or exc.__context__\n        if cause is not None:\n"
        "            found = self._mapping",
    ),
    Mutant(
        "causes-uncut", "ERR-1", "a chain of causes is sent whole",
        _MAPPING, "MAX_CAUSES = 8\n", "MAX_CAUSES = 30\n",
    ),
    Mutant(
        "stack-sent", "ERR-4", "errors are sent with their stack",
        _MAPPING, "        _stack(exc) if with_traceback else None,\n", "        _stack(exc),\n",
    ),
    Mutant(
        "bare-as-object", "ERR-2", "the fixed texts are sent as objects",
        _CLASSIC, "    if error.bare and error.message:\n", "    if False:\n",
    ),
    Mutant(
        "empty-bare-error", "ERR-2", "a bare error without text is sent as the empty string",
        _CLASSIC, "    if error.bare and error.message:\n", "    if error.bare:\n",
    ),
    Mutant(
        "error-with-unsendable-field", "ERR-4", "a field that cannot be sent takes the others with it",
        _CLASSIC,
        "        except (NotSerializable, LimitExceeded):\n            if not drop:\n                raise\n",
        "        except (NotSerializable, LimitExceeded):\n            raise\n",
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
        "exit-request-unanswered", "ERR-6", "an exit request of a handler is not answered",
        _TASK,
        "        if self.host.stopping:\n            return cancelled\n        error: BaseException",
        "        if self.host.stopping or isinstance(exc, (SystemExit, GeneratorExit)):\n            return cancelled\n"
        "        error: BaseException",
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
        "error-message-demanded", "ERR-1", "an error without a message has the text undefined",
        _CLASSIC, 'message if type(message) is str else ""', 'message if type(message) is str else "undefined"',
    ),
    Mutant(
        "odd-errors-unread", "ERR-2", "an error that is neither string nor object has no text",
        _CLASSIC, '        return ErrorValue("Error", str(error))\n', '        return ErrorValue("Error", "")\n',
    ),
    Mutant(
        "stream-error-text", "ERR-2", "a stream error that is falsy has another text",
        _CLASSIC, '"Stream error"', '"unknown"',
    ),
    Mutant(
        "not-found-unread", "ERR-3", "the texts of what is missing are errors like any other",
        _MAPPING,
        '    if message == NO_API or message.endswith(" is not a constructor function"):\n',
        '    if message:\n        return RemoteError("Error", message)\n'
        '    if message == NO_API or message.endswith(" is not a constructor function"):\n',
    ),
    Mutant(
        "own-errors-unread", "ERR-3", "the protocol's own names are names like any other",
        _MAPPING,
        '    match error.name:\n        case "RPCValidationError":\n',
        '    match f"Remote{error.name}":\n        case "RPCValidationError":\n',
    ),
    Mutant(
        "arguments-unvalidated", "ERR-7", "arguments are not held against their types",
        _TASK,
        "return (args, kwargs) if validator is None else validator.arguments(args, kwargs, method)",
        "return (args, kwargs)",
    ),
    Mutant(
        "results-unvalidated", "ERR-7", "results are not held against their types",
        "kkrpc_py.channel.validation",
        "        return self._outgoing(self._result, value, method)\n",
        "        return value\n",
    ),
    Mutant(
        "chunks-unvalidated", "ERR-7", "chunks are not held against their types",
        "kkrpc_py.channel.validation", "        check = self._chunk\n", "        check = None\n",
    ),
    Mutant(
        "validation-phase", "ERR-7", "every validation error is of the input",
        _MAPPING, 'fields = {"phase": exc.phase,', 'fields = {"phase": "input",',
    ),
    Mutant(
        "validation-method", "ERR-7", "a validation error names the last part of the path alone",
        _MAPPING, '"method": exc.method, "issues": issues}', '"method": exc.method.split(".")[-1], "issues": issues}',
    ),
    Mutant(
        "validation-path", "ERR-7", "the issues of a validation error have no path",
        _MAPPING, '"path": list(issue.path)}', '"path": []}',
    ),
    Mutant(
        "validation-as-type-error", "ERR-7", "a validation error has the name ValidationError",
        _MAPPING, "            name, message = _VALIDATION, exc.message\n", '            name, message = "ValidationError", exc.message\n',
    ),
    # --- beside the arguments ---
    Mutant(
        "kwargs-dropped", "KWA-1", "keyword arguments are not read",
        _CLASSIC, "return cls(id, method, args, *_passed(fields), kwargs, meta)", "return cls(id, method, args, *_passed(fields), None, meta)",
    ),
    Mutant(
        "callback-kwargs-dropped", "KWA-1", "keyword arguments of a callback are not read",
        _CLASSIC,
        "return Callback(id, callback_id, args if type(args) is list else [], *_passed(fields), fields.kwargs)",
        "return Callback(id, callback_id, args if type(args) is list else [], *_passed(fields))",
    ),
    Mutant(
        "kwargs-unsent", "KWA-1", "keyword arguments are sent as positional ones",
        _CLASSIC,
        "    if message.kwargs is not None:\n        mapping[\"kwargs\"] = fit(message.kwargs, \"kwargs\")\n    if message.meta",
        "    if message.kwargs is not None:\n        mapping[\"args\"] = [*mapping['args'], *message.kwargs.values()]\n"
        "    if message.meta",
    ),
    Mutant(
        "kwargs-to-stock", "KWA-2", "keyword arguments are sent to a stock peer",
        _CALLER, "            if question.kwargs and hi.KWARGS not in agreed:\n", "            if False:\n",
    ),
    Mutant(
        "meta-dropped", "META-1", "metadata is not read",
        _CLASSIC, "return cls(id, method, args, *_passed(fields), kwargs, meta)", "return cls(id, method, args, *_passed(fields), kwargs)",
    ),
    Mutant(
        "meta-unsent", "META-1", "metadata is not sent",
        _CLASSIC,
        '    if message.meta is not None:\n        mapping["meta"] = fit(message.meta, "meta")\n',
        "",
    ),
    Mutant(
        "meta-to-stock", "META-2", "metadata is sent to a stock peer, as an argument",
        "kkrpc_py.channel.call",
        "    if not host.connection.takes_metadata:\n        return question\n",
        "    if not host.connection.takes_metadata:\n"
        "        args = [*question.message.args, metadata]\n"
        "        return Question(\n"
        "            msgspec.structs.replace(question.message, args=args), question.name, question.kind\n"
        "        )\n",
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
