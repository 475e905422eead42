"""Mutants of uploads at the server, and of events (UPL, EVT)."""

# ruff: noqa: E501 - lines of the source are quoted whole

from __future__ import annotations

from tests.conformance.mutants.mutant import Mutant

_INBOUND = "kkrpc_py.streaming.inbound"
_FACE = "kkrpc_py.streaming.upload_face"
_UPLOADED = "kkrpc_py.streaming.uploaded"
_EVENTS = "kkrpc_py.streaming.events"

_FIND = """\
        session = self._sessions.get(current_channel())
        if session is not None and type(id) is str:
            found = session.open.get(id)
"""

MUTANTS = (
    Mutant(
        "uploads-of-anybody", "UPL-1", "any session may upload to an id",
        _INBOUND,
        _FIND,
        "        session = next((each for each in self._sessions.values() if id in each.open), self._sessions.get(current_channel()))\n"
        "        if session is not None and type(id) is str:\n            found = session.open.get(id)\n",
    ),
    Mutant(
        "upload-ids-short", "UPL-1", "ids of uploads are short numbers",
        _INBOUND, "secrets.token_urlsafe(16)", "str(len(session.open) + len(session.ended))",
    ),
    Mutant(
        "upload-answered-by-a-value", "UPL-2", "an upload by a stream is answered by true",
        _FACE,
        "                source.give_up()\n            raise\n        _tell(inbound)\n",
        "                source.give_up()\n            raise\n        _tell(inbound)\n        return True\n",
    ),
    Mutant(
        "unknown-uploads-swallowed", "UPL-3", "a stream for an id that is unknown is read and thrown away",
        _FACE,
        "        except BaseException:\n            source.cancel()\n            raise\n        inbound.begin(source)\n",
        "        except BaseException:\n            self._swallowed = [*getattr(self, '_swallowed', ()), source]\n            raise\n        inbound.begin(source)\n",
    ),
    Mutant(
        "anybody-uploads", "UPL-3", "nobody is asked who may upload by a stream",
        _FACE, "                allowed = await inbound.allowed()\n", "                allowed = True\n",
    ),
    Mutant(
        "cancelled-uploads-go-on", "UPL-4", "an upload whose reader has enough is not cancelled",
        _INBOUND,
        "            if self.uploader is not None:\n                self.uploader.cancel()\n",
        "            self._unread = self.uploader\n",
    ),
    Mutant(
        "failed-uploads-end", "UPL-5", "an uploader's error is the end for who reads",
        _INBOUND,
        "        except KkrpcError as error:\n            self._check()\n            self._finish(error)\n            raise\n",
        "        except KkrpcError as error:\n            self._check()\n            self._finish(error)\n            raise StopAsyncIteration from None\n",
    ),
    # --- by calls ---
    Mutant(
        "written-twice", "UPL-8", "a chunk whose number was taken is taken again",
        _UPLOADED, "        if number <= self._written:\n            return\n", "",
    ),
    Mutant(
        "close-answered-at-once", "UPL-9", "a close is answered before all has been read",
        _FACE,
        "            await source.permitted()\n            await inbound.over.wait()\n            _tell(inbound)\n",
        "            await source.permitted()\n",
    ),
    Mutant(
        "close-unheard", "UPL-9", "a close is answered and does not end the upload",
        _UPLOADED,
        "        self.check_open()\n        self._ended = True\n        self._changed.wake()\n",
        "        self.check_open()\n        self._inbound.over.set()\n",
    ),
    Mutant(
        "unknown-uploads-answered", "UPL-9", "calls under ids that are unknown are answered as if they were taken",
        _FACE,
        "        inbound = self._inbounds.find(id)\n        if inbound.uploader is None:\n            inbound.uploader = Written(inbound)\n",
        "        inbound = self._inbounds.find(id)\n        if inbound.uploader is None:\n            inbound.uploader = Written(inbound)\n            inbound.uploader.credit = 1 << 40\n",
    ),
    # --- events ---
    Mutant(
        "events-answered", "EVT-1", "an event is answered by how many listen",
        _EVENTS,
        "        if self._listeners is not None:\n            self._listeners.put(channel, name, args)\n",
        "        if self._listeners is not None:\n            self._listeners.put(channel, name, args)\n        return 1  # type: ignore[return-value]\n",
    ),
    Mutant(
        "events-with-names-in-a-list", "EVT-2", "the arguments of an event are sent as one list",
        _EVENTS, "        channel.connection.call(method, [name, *args], own)\n", "        channel.connection.call(method, [name, list(args)], own)\n",
    ),
)  # fmt: skip
