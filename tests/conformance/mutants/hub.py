"""Mutants of named streams at the server (NST)."""

# ruff: noqa: E501 - lines of the source are quoted whole

from __future__ import annotations

from tests.conformance.mutants.mutant import Mutant

_ERRORS = "kkrpc_py.errors.streaming"
_HUB = "kkrpc_py.streaming.hub"
_NAMED = "kkrpc_py.streaming.named"
_OUTBOUND = "kkrpc_py.streaming.outbound"
_SUBSCRIPTION = "kkrpc_py.streaming.subscription"

MUTANTS = (
    # --- subscribing ---
    Mutant(
        "short-ids", "NST-2", "ids are short numbers, one after the other",
        _OUTBOUND,
        "    return secrets.token_urlsafe(16)\n",
        "    global _count\n    _count += 1\n    return str(_count)\n\n\n_count = 0\n",
    ),
    Mutant(
        "one-id-for-streams", "NST-2", "all ids that the server makes are the same",
        _OUTBOUND, "    return secrets.token_urlsafe(16)\n", "    return 'an id that everybody has'\n",
    ),
    Mutant(
        "ids-without-names", "NST-2", "a stream is known by its id alone",
        _NAMED,
        "        self._streams: dict[str, OutboundStream[Any]] = {}\n",
        "        self._streams: dict[str, OutboundStream[Any]] = vars(hub).setdefault('of_all', {})\n",
    ),
    Mutant(
        "names-of-letters", "NST-2", "names and ids are of letters, digits and a few signs",
        _NAMED,
        "        if self._closed:\n            raise StreamClosed(f\"the stream channel {self.name!r} was closed\")\n        if id is None:\n",
        "        if id is not None and not id.replace(':', '').replace('-', '').isidentifier():\n"
        "            raise ValueError('no id')\n        if id is None:\n",
    ),
    Mutant(
        "running-id-again", "NST-2", "an id is given to a second stream while the first one runs",
        _NAMED, "            if not known.closed:\n", "            if False:\n",
    ),
    Mutant(
        "options-lax", "NST-3", "options of another type are taken for what they could mean",
        _HUB,
        "        return msgspec.convert(options, SubscribeOptions)\n",
        "        return msgspec.convert(options, SubscribeOptions, strict=False)\n",
    ),
    Mutant(
        "options-of-any-form", "NST-3", "options that are no object are none",
        _HUB,
        "    if type(options) is dict:\n",
        "    if type(options) is not dict:\n        return {}\n    if type(options) is dict:\n",
    ),
    Mutant(
        "after-below-zero", "NST-3", "an `after` below 0 is taken",
        _HUB, "Annotated[int, msgspec.Meta(ge=0)]", "Annotated[int, msgspec.Meta(ge=-9)]",
    ),
    Mutant(
        "high-water-mark-unbounded", "NST-3", "a highWaterMark may be as high as one likes",
        _HUB, "        if high_water_mark > most:\n", "        if False:\n",
    ),
    Mutant(
        "overflow-unlooked-at", "NST-3", "an `overflow` that is unknown is the default",
        _HUB, "    overflow: Overflow\n", "    overflow: Any\n",
    ),
    Mutant(
        "epoch-unlooked-at", "NST-3", "an epoch may be anything",
        _HUB, "    epoch: str | None\n", "    epoch: Any\n",
    ),
    Mutant(
        "epoch-demanded", "NST-3", "an epoch that is null is refused",
        _HUB, "    epoch: str | None\n", "    epoch: str\n",
    ),
    Mutant(
        "arguments-as-many-as-come", "NST-3", "arguments that are missing are empty, and those too many are ignored",
        _HUB,
        "    async def subscribe(self, name: str, id: str, options: Any = None) -> Any:\n"
        '        """The stream of a mark and its chunks (NST-3)."""\n',
        "    async def subscribe(self, name: str = 'chat', id: str = 'one', options: Any = None, *more: Any) -> Any:\n",
    ),
    Mutant(
        "anybody-subscribes", "NST-4", "nobody is asked who may subscribe",
        _NAMED,
        "        if id in self._streams and await self.authorized(\n"
        '            StreamRequest("subscribe", self.name, id, channel, overflow)\n        ):\n',
        "        if id in self._streams:\n",
    ),
    # --- marks, numbers, replay ---
    Mutant(
        "no-mark", "NST-5", "a subscription begins with its first chunk",
        _SUBSCRIPTION,
        '        self._mark: Shared | None = stream.writer.share({"next": next, "epoch": stream.epoch})\n',
        "        self._mark: Shared | None = None\n",
    ),
    Mutant(
        "no-mark-after-the-end", "NST-5", "a stream that has ended has no mark any more",
        _SUBSCRIPTION,
        '        self._mark: Shared | None = stream.writer.share({"next": next, "epoch": stream.epoch})\n',
        "        self._mark: Shared | None = None\n        if not stream.closed:\n"
        '            self._mark = stream.writer.share({"next": next, "epoch": stream.epoch})\n',
    ),
    Mutant(
        "empty-values-left-out", "NST-6", "values that are empty are not written",
        _OUTBOUND,
        "        if self._closed:\n            raise StreamClosed(f\"the stream {self.id!r} of {self.name!r} has ended\")\n        if self._blocking",
        "        if self._closed:\n            raise StreamClosed(f\"the stream {self.id!r} of {self.name!r} has ended\")\n"
        "        if not value and value is not False:\n            return\n        if self._blocking",
    ),
    Mutant(
        "bytes-as-lists", "NST-6", "bytes are sent as a list of numbers",
        _OUTBOUND,
        "        log.append(self.writer.share_numbered(log.next, value))\n",
        "        value = list(value) if type(value) is bytes else value\n"
        "        log.append(self.writer.share_numbered(log.next, value))\n",
    ),
    Mutant(
        "markers-refused", "NST-6", "a value of the form of an opening is refused",
        _OUTBOUND,
        "        log.append(self.writer.share_numbered(log.next, value))\n",
        "        if type(value) is dict and '__stream' in value:\n            raise ValueError('an opening')\n"
        "        log.append(self.writer.share_numbered(log.next, value))\n",
    ),
    Mutant(
        "large-values-cut", "NST-6", "text of more than 65,536 characters is cut",
        _OUTBOUND,
        "        log.append(self.writer.share_numbered(log.next, value))\n",
        "        value = value[:65536] if type(value) is str else value\n"
        "        log.append(self.writer.share_numbered(log.next, value))\n",
    ),
    Mutant(
        "after-again", "NST-7", "the chunk that a subscriber has is sent again",
        _SUBSCRIPTION,
        "        start = max(after + 1, stream.replayed_from)\n",
        "        start = max(after, stream.replayed_from)\n",
    ),
    Mutant(
        "after-beyond-waits", "NST-7", "an `after` beyond the last number waits for it",
        _OUTBOUND, "after >= self.log.next or epoch", "epoch",
    ),
    Mutant(
        "gap-hidden", "NST-7", "the mark says `after` + 1 also where that is gone",
        _SUBSCRIPTION,
        "        next = log.next - 1 if self._snapshot_due else start\n",
        "        next = log.next - 1 if self._snapshot_due else after + 1\n",
    ),
    Mutant(
        "window-for-all", "NST-8", "the window is 256 chunks, whatever the application says",
        _NAMED, "        self._replay_window = replay_window\n", "        self._replay_window = 256\n",
    ),
    Mutant(
        "replay-counts", "NST-8", "what is replayed counts toward highWaterMark",
        _SUBSCRIPTION,
        '        self._replay_end = 0 if overflow == "latest" else log.next\n',
        "        self._replay_end = 0\n",
    ),
    # --- the end ---
    Mutant(
        "error-hidden", "NST-9", "a stream that ended in an error ends",
        _OUTBOUND,
        "        if self._failure is not None:\n            raise error_from_wire(self._failure)\n",
        "",
    ),
    Mutant(
        "end-to-the-first", "NST-9", "one subscriber is told of the end, the others wait",
        _OUTBOUND,
        "            self._forget()\n            self._wake_parked()\n            self._wake_writers()\n            self._ended(self)\n",
        "            self._forget()\n            self._parked = dict(list(self._parked.items())[:1])\n            self._wake_parked()\n            self._wake_writers()\n            self._ended(self)\n",
    ),
    Mutant(
        "ended-streams-kept", "NST-10", "a stream is kept also where there is no retention",
        _NAMED, "        self._retention = closed_stream_retention\n", "        self._retention = closed_stream_retention or 30.0\n",
    ),
    Mutant(
        "epoch-for-all", "NST-11", "all streams have one epoch",
        _OUTBOUND, "        self.epoch = secrets.token_urlsafe(9)\n", '        self.epoch = "epoch"\n',
    ),
    # --- waiting ---
    Mutant(
        "unbounded", "NST-12", "as many chunks wait as are written",
        _SUBSCRIPTION,
        "        if next > self.room_until or self._next < log.first:",
        "        if self._next < log.first:",
    ),
    Mutant(
        "one-less-waits", "NST-12", "one chunk less may wait",
        _SUBSCRIPTION,
        "        return max(self._next, self._replay_end) + self._high_water\n",
        "        return max(self._next, self._replay_end) + max(self._high_water - 1, 1)\n",
    ),
    Mutant(
        "default-of-64", "NST-12", "64 chunks wait where nothing is said",
        _HUB, 'options.get("highWaterMark", HIGH_WATER_MARK)', 'options.get("highWaterMark", 64)',
    ),
    Mutant(
        "replay-survives", "NST-13", "what is replayed is never dropped, newer chunks are",
        _SUBSCRIPTION,
        "        kept = max(log.next - self._high_water,",
        "        if self._next < self._replay_end:\n            return self._next\n        kept = max(log.next - self._high_water,",
    ),
    Mutant(
        "written-and-refused", "NST-14", "a chunk for which one subscriber has no room is written all the same",
        _OUTBOUND,
        "        if self._blocking and not self._has_room:\n            raise WouldBlock(f\"a subscriber of {self.name!r} that chose to block is full\")\n"
        "        log = self.log\n",
        "        log = self.log\n        if self._blocking and not self._has_room:\n"
        "            log.append(self.writer.share_numbered(log.next, value))\n            self._wake_parked()\n"
        "            raise WouldBlock(f\"a subscriber of {self.name!r} that chose to block is full\")\n",
    ),
    Mutant(
        "blocked-by-the-dead", "NST-14", "a producer waits for a subscriber that is gone",
        _OUTBOUND,
        "            del self._blocking[subscription]\n            self._wake_writers()\n",
        "            pass\n",
    ),
    Mutant(
        "one-subscription-each", "NST-16", "a peer's second subscription ends its first one",
        _OUTBOUND,
        "        subscription = Subscription(self, channel, after, high_water_mark, overflow)\n",
        "        for each in tuple(self._subscriptions):\n            each._log = type(self.log)(1)\n            each._next = each._seen = 1\n"
        "        subscription = Subscription(self, channel, after, high_water_mark, overflow)\n",
    ),
    Mutant(
        "all-wait-for-the-slowest", "NST-16", "every subscriber that is slow holds up the producer",
        _OUTBOUND, '        if subscription.overflow == "block":\n', "        if True:\n",
    ),
    Mutant(
        "told-after-the-first", "NST-17", "the producer is told when the first subscriber has gone",
        _OUTBOUND, "        if self._subscriptions or self._closed:\n            return\n", "        if self._closed:\n            return\n",
    ),
    Mutant(
        "told-and-closed", "NST-17", "a stream ends when its last subscriber has gone",
        _OUTBOUND,
        "        else:\n            self.signal.set()\n",
        "        else:\n            self.signal.set()\n            self.close()\n",
    ),
    Mutant(
        "told-before-anybody-came", "NST-17", "a producer without subscribers is told so at once",
        _OUTBOUND,
        "        self._call_off: Callable[[], None] | None = None\n",
        "        self._call_off: Callable[[], None] | None = None\n        self.signal.set()\n",
    ),
    # --- errors ---
    Mutant(
        "code-of-unknown-missing", "NST-21", "UnknownStream has no code",
        _ERRORS, '    _code = "DF0030"\n', "",
    ),
    Mutant(
        "code-of-overflow-missing", "NST-21", "StreamOverflow has no code",
        _ERRORS, '    _code = "DF0029"\n', "",
    ),
    Mutant(
        "code-of-closed-missing", "NST-21", "StreamClosed has no code",
        _ERRORS, '    _code = "DF0031"\n', "",
    ),
    Mutant(
        "names-twice", "NST-21", "a name that is taken is given again",
        _HUB,
        "        if name in self._names:\n",
        "        if False:\n",
    ),
)  # fmt: skip
