"""Mutants that many cases catch: what a program gets wrong that was written in a hurry."""

# ruff: noqa: E501 - lines of the source are quoted whole

from __future__ import annotations

from tests.conformance.mutants.mutant import Mutant

_CLASSIC = "kkrpc_py.wire.classic"

MUTANTS = (
    Mutant(
        "null-results-lost", "CALL-3", "a result that is null is answered as none",
        _CLASSIC,
        "    value = message.value\n    if value is UNSET:\n",
        "    value = message.value\n    if value is UNSET or value is None:\n",
    ),
    Mutant(
        "calls-with-null-ids", "CLA-1", "calls have an empty callbackIds",
        _CLASSIC,
        "    if message.kwargs is None is message.meta and not message.callback_ids and not message.stream_ids:\n"
        "        return mapping\n",
        "    if message.kwargs is None is message.meta and not message.callback_ids and not message.stream_ids:\n"
        "        mapping['callbackIds'] = []\n        return _version_last(mapping)\n",
    ),
    Mutant(
        "method-in-ends", "CLA-1", "the end of a stream has the method null",
        _CLASSIC,
        '    return {"id": id, "method": "", "args": args, "type": kind, "version": _VERSION}\n',
        '    return {"id": id, "method": None if kind == "stream-end" else "", "args": args, "type": kind,'
        ' "version": _VERSION}\n',
    ),
    Mutant(
        "callback-by-name", "CLA-1", "callbacks have their id with the prefix",
        _CLASSIC,
        '    mapping["method"] = message.callback_id\n',
        '    mapping["method"] = CALLBACK_PREFIX + message.callback_id\n',
    ),
    Mutant(
        "paths-as-text", "CLA-1", "the path of a get or set is sent as text with dots",
        _CLASSIC,
        '    return mapping | {"path": message.path, "version": _VERSION}\n',
        '    return mapping | {"path": ".".join(message.path), "version": _VERSION}\n',
    ),
    Mutant(
        "stream-without-id-gets-one", "MSG-5", "a stream that nobody gave an id gets one",
        "kkrpc_py.channel.task",
        '            raise ProtocolError("a call without an id cannot have a stream for its answer")\n',
        '            self.call.id = "a stream"\n',
    ),
    Mutant(
        "crowds-looked-at-late", "CLS-2", "many messages that come at once wait a while, and are lost at the end of the input",
        "kkrpc_py.channel.channel",
        '        """What the peer has sent; False: nothing more is to be read."""\n',
        '        """What the peer has sent; False: nothing more is to be read."""\n'
        "        import asyncio\n\n"
        "        def look() -> None:\n"
        "            if self._error is None:\n"
        "                self._apply(self.connection.receive_data(data))\n\n"
        "        if data.count(b'\\n') > 2:\n"
        "            asyncio.get_running_loop().call_later(0.1, look)\n            return True\n",
    ),
)  # fmt: skip
