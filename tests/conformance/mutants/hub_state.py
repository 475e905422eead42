"""Mutants of shared states at the server (STA)."""

# ruff: noqa: E501 - lines of the source are quoted whole

from __future__ import annotations

from tests.conformance.mutants.mutant import Mutant

_HUB = "kkrpc_py.streaming.hub"
_PATCHES = "kkrpc_py.streaming.patches"
_STATE = "kkrpc_py.streaming.state"
_SUBSCRIPTION = "kkrpc_py.streaming.subscription"

MUTANTS = (
    Mutant(
        "snapshots-of-the-first", "STA-3", "a snapshot is that of the first version, for good",
        _STATE, "        if self._shared[0] != self._version:\n", "        if self._shared[0] == 0:\n",
    ),
    Mutant(
        "no-snapshot-for-null", "STA-3", "`after: null` of a state begins with the next patch",
        _SUBSCRIPTION,
        "            after = stream.log.next - 1 if stream.snapshot is None else 0\n",
        "            after = stream.log.next - 1\n",
    ),
    Mutant(
        "states-block", "STA-4", "a subscriber of a state that chose `block` holds it up",
        _SUBSCRIPTION, '"drop_oldest" if overflow == "block" and stream.snapshot else overflow', "overflow",
    ),
    # --- patches ---
    Mutant(
        "test-is-empty", "STA-5", "`test` always holds",
        _PATCHES, "            if not same(value_at(self.document, path), value, exactly=False):\n", "            if self._work < 0:\n",
    ),
    Mutant(
        "empty-patches-are-versions", "STA-5", "a patch without operations makes a version",
        _STATE,
        "        if not operations:\n            return self._version\n        try:\n",
        "        if not operations:\n            self._stream.write({'patch': []})\n            self._become(self._version + 1, self._document, [])\n            return self._version\n        try:\n",
    ),
    Mutant(
        "changes-unanswered", "STA-6", "a mutation is answered with the version that it was made against",
        _STATE,
        "            return self._apply(operations, version)\n",
        "            self._apply(operations, version)\n            return version\n",
    ),
    Mutant(
        "changes-not-told", "STA-6", "a peer's change goes to nobody",
        _STATE,
        '        self._stream.write({"patch": patch})\n',
        "        self._stream.log.next += 0 if version else 1\n        if len(self._stream._subscriptions) > 1:\n            self._stream.log.append(self._stream.writer.share([]))\n        else:\n            self._stream.write({'patch': patch})\n",
    ),
    Mutant(
        "last-wins", "STA-7", "a change is applied whatever has changed since",
        _STATE, "        if version != self._version:\n", "        if False:\n",
    ),
    Mutant(
        "first-wins", "STA-7", "a change is refused whatever has changed since",
        _STATE, "        elif newer > len(self._window):\n", "        elif newer:\n",
    ),
    # --- refusals ---
    Mutant(
        "everybody-writes", "STA-9", "peers may change every state",
        _STATE, "        if not self.writable:\n", "        if False:\n",
    ),
    Mutant(
        "everybody-may-mutate", "STA-9", "nobody is asked who may change a state",
        _HUB,
        '        if not await named.authorized(StreamRequest("mutate", name, STATE_ID, channel)):\n',
        '        if not name:\n',
    ),
    Mutant(
        "states-of-any-name", "STA-9", "the name of a state may be no text",
        _HUB,
        "    async def mutate(self, name: str, version: int, patch: list[Any]) -> int:\n        \"\"\"Change a shared state; the new version (STA-6).\"\"\"\n",
        "    async def mutate(self, name: Any = None, version: Any = 0, patch: Any = (), *more: Any) -> int:\n        if type(name) is not str or more or not version:\n            return 0\n",
    ),
    Mutant(
        "operations-of-any-form", "STA-9", "operations that are none are passed over",
        _PATCHES,
        "    operations = [_operation(index, item) for index, item in enumerate(patch)]\n",
        "    operations = []\n    for index, item in enumerate(patch):\n        try:\n            operations.append(_operation(index, item))\n        except ValueError:\n            pass\n",
    ),
    Mutant(
        "through-anything", "STA-9", "a pointer through what holds nothing puts an object there",
        _PATCHES,
        "        if type(parent) is not dict and type(parent) is not list:\n            raise Refused(f\"{_shown(path[:-1])} holds no others\")\n        return parent\n",
        "        if type(parent) is not dict and type(parent) is not list:\n            parent = self.document[path[0]] = {path[-1]: None}\n        return parent\n",
    ),
    Mutant(
        "moves-into-itself", "STA-9", "a value that is moved into itself is gone",
        _PATCHES,
        "            raise Refused(f\"{_shown(source)} cannot be moved into itself\")\n",
        "            return self._put(self._writable_parent(('a',)), 'a', None)\n",
    ),
    Mutant(
        "whole-removed", "STA-9", "the removal of the whole leaves null",
        _PATCHES,
        "            raise Refused(\"the whole document cannot be removed\")\n",
        "            return self._replace((), None)\n",
    ),
    Mutant(
        "bounds-unheard", "STA-9", "a patch beyond a bound is answered as if it changed nothing",
        _STATE,
        "        document = patches.apply(self._document, operations, room=self._limits.frame)\n",
        "        try:\n            document = patches.apply(self._document, operations, room=self._limits.frame)\n"
        "        except ValueError as error:\n            if 'too' not in str(error):\n                raise\n            return self._version\n",
    ),
    Mutant(
        "no-states-unheard", "STA-9", "a change to what is no state is answered as if it changed nothing",
        _STATE,
        "            raise ValueError(f\"the patch is refused: {error}\") from None\n",
        "            return self._version\n",
    ),
)  # fmt: skip
