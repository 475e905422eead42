"""Mutants of the client of a hub: reading, uploading, following a state (NST, UPL, STA)."""

# ruff: noqa: E501 - lines of the source are quoted whole

from __future__ import annotations

from tests.conformance.mutants.mutant import Mutant

_FOLLOWER = "kkrpc_py.streaming.follower"
_UPLOAD = "kkrpc_py.streaming.upload"
_REMOTE_STATE = "kkrpc_py.streaming.remote_state"

MUTANTS = (
    # --- reading ---
    Mutant(
        "client-options-unsent", "NST-3", "a client does not send what the application chose",
        _FOLLOWER,
        '        self._options: dict[str, Any] = {"highWaterMark": high_water_mark, "overflow": overflow}\n',
        "        self._options: dict[str, Any] = {}\n",
    ),
    Mutant(
        "client-unknown-later", "NST-4", "a client takes an error as the answer to its subscription for a stream that ended",
        _FOLLOWER,
        "        except ChannelClosed:\n            if not self._may_come_back():\n                raise\n            return\n",
        "        except ChannelClosed:\n            if not self._may_come_back():\n                raise\n            return\n"
        "        except KkrpcError as exc:\n            raise ChannelClosed('gone') from exc\n",
    ),
    Mutant(
        "client-hands-out-marks", "NST-18", "a client hands out the mark, too",
        _FOLLOWER, "        self.marked = True\n", "        self.marked = True\n        self.ready.append((next - 1, mark))\n",
    ),
    Mutant(
        "client-drops-null", "NST-6", "a client does not hand out null",
        _FOLLOWER,
        "            append(chunk)\n",
        "            if chunk[1] is not None:\n                append(chunk)\n",
    ),
    Mutant(
        "client-error-is-an-end", "NST-9", "a client takes a stream's error for its end",
        _FOLLOWER,
        "                arrived = [await receiver.next_value()]\n",
        "                try:\n                    arrived = [await receiver.next_value()]\n"
        "                except ChannelClosed:\n                    raise\n"
        "                except KkrpcError:\n                    raise StopAsyncIteration from None\n",
    ),
    Mutant(
        "client-cancel-unsent", "NST-17", "a client that has enough does not say so",
        _FOLLOWER,
        "        self.cancel()\n        if self._receiver is not None:\n            await cancel_and_wait(self._receiver)\n",
        "        self.cancelled = True\n",
    ),
    Mutant(
        "client-hides-gaps", "NST-18", "a client does not tell of gaps",
        _FOLLOWER, "            self.gaps.append(gap)\n", "",
    ),
    Mutant(
        "client-hides-drops", "NST-18", "a client does not count what was dropped",
        _FOLLOWER, "        self.dropped += dropped\n", "",
    ),
    Mutant(
        "client-counts-from-the-first", "NST-18", "a client does not count what was dropped before the first chunk",
        _FOLLOWER, "        self._before = next - 1\n", "        self._before = 1 << 60\n",
    ),
    Mutant(
        "client-does-not-cancel-nonsense", "NST-20", "a client that cannot read a stream lets it go on",
        _FOLLOWER,
        "{reason}\"\n        if self._receiver is not None:\n            self._receiver.cancel()\n",
        "{reason}\"\n",
    ),
    Mutant(
        "client-end-without-a-mark", "NST-20", "a client takes an end before the mark",
        _FOLLOWER, "                if self.marked:\n                    raise\n", "                raise\n",
    ),
    Mutant(
        "client-answer-is-a-stream", "NST-20", "a client takes an answer that is no stream for an empty one",
        _FOLLOWER,
        "        if not isinstance(found, StreamReceiver):\n            raise ProtocolError(",
        "        if not isinstance(found, StreamReceiver):\n            self._receiver = found  # type: ignore[assignment]\n            return\n            raise ProtocolError(",
    ),
    Mutant(
        "client-subscribes-once", "NST-16", "a client's second subscription reads the first one's stream",
        _FOLLOWER,
        "        self._receiver = found\n        if self.cancelled:\n",
        "        self._receiver = found\n"
        "        if (first := vars(Follower).get('first')) is not None and not first.ended and not first.cancelled:\n"
        "            self._receiver = first\n        else:\n            Follower.first = found  # type: ignore[attr-defined]\n"
        "        if self.cancelled:\n",
    ),
    # --- uploading ---
    Mutant(
        "upload-without-an-end", "UPL-2", "a client does not end its uploads",
        _UPLOAD,
        "                raise StopAsyncIteration\n            await self.changed.wait()\n        chunk = ",
        "                pass\n            await self.changed.wait()\n        chunk = ",
    ),
    Mutant(
        "upload-error-is-an-end", "UPL-5", "a client's error is the end of its upload",
        _UPLOAD,
        "                if self.failure is not None:\n                    raise error_from_wire(self.failure)\n                raise StopAsyncIteration\n",
        "                raise StopAsyncIteration\n",
    ),
    Mutant(
        "upload-refusal-unheard", "UPL-3", "a client's application may write to an upload that was refused",
        _UPLOAD,
        "        self.check_refusal()\n        if self._unwanted or self.over:\n            raise StreamClosed(\"the other side reads no more of the upload\")\n\n    async def check_open_soon",
        "        if False:\n            raise StreamClosed(\"the other side reads no more of the upload\")\n\n    async def check_open_soon",
    ),
    # --- following a state ---
    Mutant(
        "state-follows-snapshots-alone", "STA-10", "a client does not apply patches",
        _REMOTE_STATE,
        '            operations = patches.checked(chunk["patch"])\n',
        "            operations = patches.checked([])\n",
    ),
    Mutant(
        "state-jumps-unseen", "STA-10", "a client applies a patch after a jump",
        _REMOTE_STATE, " or version != self._version + 1 or", " or",
    ),
    Mutant(
        "state-never-again", "STA-10", "a client that has lost a patch does not subscribe anew",
        _REMOTE_STATE, "_MOST_RESTARTS = 3\n", "_MOST_RESTARTS = 1\n",
    ),
    Mutant(
        "state-refusals-unheard", "STA-9", "a client's application is not told that it may not change a state",
        _REMOTE_STATE,
        "        answer = await Call(channel, self._method, [self.name, base.version, copied(patch)])\n",
        "        try:\n            answer = await Call(channel, self._method, [self.name, base.version, patch])\n"
        "        except PermissionError:\n            return\n",
    ),
)  # fmt: skip
