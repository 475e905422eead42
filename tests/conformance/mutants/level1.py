"""Mutants of calls as the cases of level 1 see them (CALL, ERR, HEL, CBK, MSG, CAN, CLS, VAL), beside those of `calls`."""

# ruff: noqa: E501 - lines of the source are quoted whole

from __future__ import annotations

from tests.conformance.mutants.mutant import Mutant

_CLASSIC = "kkrpc_py.wire.classic"
_EXPOSE = "kkrpc_py.channel.expose"
_PROPERTIES = "kkrpc_py.channel.properties"
_TASK = "kkrpc_py.channel.task"
_CALLEE = "kkrpc_py.core.callee"
_CALLER = "kkrpc_py.core.caller"
_CONNECTION = "kkrpc_py.core.connection"
_HELLO = "kkrpc_py.core.hello"

MUTANTS = (
    Mutant(
        "null-arguments-lost", "CALL-1", "arguments that are null are left out",
        _CLASSIC,
        "        if type(args) is not list:\n            args = []\n",
        "        if type(args) is not list:\n            args = []\n        args = [arg for arg in args if arg is not None]\n",
    ),
    Mutant(
        "one-argument-bare", "CALL-1", "a single argument is sent without its list",
        _CALLER,
        "        message = m.Request(id := self._new_id(), method, args)\n",
        "        message = m.Request(id := self._new_id(), method, args if len(args) != 1 else args[0])\n",
    ),
    Mutant(
        "one-namespace", "CALL-1", "a path has two segments at most",
        _EXPOSE,
        '            owner = namespace_at(owner, segment)\n            if owner is MISSING:\n                raise MethodNotFound(f"{what}',
        '            owner = namespace_at(owner, segment) if owner is self._api else MISSING\n            if owner is MISSING:\n                raise MethodNotFound(f"{what}',
    ),
    Mutant(
        "answers-in-order", "CALL-2", "an answer waits for those of earlier calls (but for the kit's own)",
        _CALLEE,
        "        self._step_callee(call, _RETURN)\n        self.outbox.put(frame)\n",
        "        waiting = self.__dict__.setdefault('_waiting', {})\n"
        "        older = []\n"
        "        for each in () if str(call.id).startswith('kit:') else self.incoming.values():\n"
        "            if each is call:\n                break\n"
        "            if not str(each.id).startswith('kit:'):\n                older.append(each)\n"
        "        self._step_callee(call, _RETURN)\n"
        "        frames = [frame, *waiting.pop(id(call), ())]\n"
        "        if older:\n            waiting.setdefault(id(older[-1]), []).extend(frames)\n            return\n"
        "        for frame in frames:\n            self.outbox.put(frame)\n",
    ),
    Mutant(
        "few-handlers", "CALL-2", "three handlers run at once, and the others wait",
        "kkrpc_py.channel.workers",
        "                    while self._jobs and not scope.cancel_called:\n",
        "                    while self._jobs and not scope.cancel_called and self._running < 3:\n",
    ),
    Mutant(
        "three-frames-a-read", "CALL-2", "of one read three messages are heard",
        _CONNECTION, "self._handle(self._decoder.receive(data))", "self._handle(list(self._decoder.receive(data))[:3])",
    ),
    Mutant(
        "null-as-false", "CALL-3", "null is answered as false",
        _CALLEE, "        message = m.Result(call.id, value)\n", "        message = m.Result(call.id, False if value is None else value)\n",
    ),
    Mutant(
        "results-looked-into", "CALL-3", "a result with an error in it is sent as that error",
        _CALLEE,
        "        message = m.Result(call.id, value)\n",
        "        inner = value.get('args', value) if type(value) is dict else None\n"
        "        if type(inner) is dict and type(inner.get('error')) is str:\n"
        "            self.fail(call, ErrorValue('Error', inner['error']))\n            return\n"
        "        message = m.Result(call.id, value)\n",
    ),
    Mutant(
        "odd-fields-left-out", "CALL-9", "fields of an instance that are no data are left out",
        _EXPOSE,
        "return fields_of(cls(*args, **kwargs))",
        "return {key: each for key, each in vars(cls(*args, **kwargs)).items() if not callable(each) and key[0] != '_'}",
    ),
    Mutant(
        "construct-as-request", "CALL-9", "the testee's constructs are sent as requests",
        _CLASSIC, '"type": "request" if type(message) is Request else "construct"', '"type": "request"',
    ),
    Mutant(
        "get-unanswered", "CALL-10", "a get is answered with null",
        _EXPOSE,
        "        return Handler.on_loop(lambda: self.read(path), ",
        "        return Handler.on_loop(lambda: self.read(path) and None, ",
    ),
    Mutant(
        "set-overwrites-functions", "CALL-10", "a set of a function's path puts the value there",
        _PROPERTIES,
        "    if box is None:\n        _read(path, owner, listed)\n",
        "    if box is None and type(owner) is not dict and callable(getattr(owner, path[-1], None)):\n"
        "        return lambda value: setattr(owner, path[-1], value)\n"
        "    if box is None:\n        _read(path, owner, listed)\n",
    ),
    Mutant(
        "own-set-as-text", "CALL-10", "the path of a set is sent as text",
        _CLASSIC, 'mapping |= {"path": message.path, ', 'mapping |= {"path": ".".join(message.path), ',
    ),
    # --- errors ---
    Mutant(
        "stray-cancellation-unanswered", "ERR-6", "a handler that raises a cancellation is not answered",
        _TASK,
        '                error = CallCancelled("the handler was cancelled")\n',
        "                return True\n",
    ),
    # --- hello ---
    Mutant(
        "protocol-as-text", "HEL-2", "the protocol in the answer to a hello is text",
        _HELLO, '    return {"protocol": _PROTOCOL, ', '    return {"protocol": str(_PROTOCOL), ',
    ),
    Mutant(
        "unknown-names-dropped", "KWA-1", "keyword arguments that the function does not know are dropped",
        _TASK,
        "    if kwargs:\n        handler.check(len(args), kwargs)\n",
        "    if kwargs and handler._signature is not None and handler.most >= 0:\n"
        "        kwargs = {key: each for key, each in kwargs.items() if key in handler._signature.parameters}\n"
        "    if kwargs:\n        handler.check(len(args), kwargs)\n",
    ),
    # --- functions ---
    Mutant(
        "keys-are-functions", "CBK-1", "the key of an object is taken for a function",
        "kkrpc_py.wire.lowering",
        "        for key, item in value.items():\n            if type(item) not in _PLAIN:\n                value[key] = restored(item, names, decode)\n",
        "        for key, item in list(value.items()):\n            if key in names:\n                del value[key]\n                key = 'function'\n                value[key] = item\n            if type(item) not in _PLAIN:\n                value[key] = restored(item, names, decode)\n",
    ),
    # --- cancels, closing ---
    Mutant(
        "finished-for-ever", "CLS-2", "at the end of its input a side waits ten seconds for its handlers",
        "kkrpc_py.limits", "    finish_seconds: float = 1.0\n", "    finish_seconds: float = 10.0\n",
    ),
)  # fmt: skip
