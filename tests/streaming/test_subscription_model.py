"""One stream and its subscriptions, stepped by hand, against a model that holds a queue for each subscriber.

The subscriptions share a log and decide lazily what is dropped; the model decides at each write. What each
subscriber gets, who is too slow, whether there is room, what the log keeps and when the signal is set must be
the same.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Generator
from typing import Any

import pytest

from kkrpc_py.errors import KkrpcError, StreamClosed, StreamOverflow, WouldBlock
from kkrpc_py.limits import Limits
from kkrpc_py.streaming import outbound, subscription
from kkrpc_py.streaming.outbound import OutboundStream
from kkrpc_py.streaming.subscription import Overflow, Subscription
from kkrpc_py.wire.shared import SharedWriter
from tests.streaming.schedules import Action, follow_all

LIMITS = Limits()


class Place:
    """Where one coroutine waits, without an event loop."""

    woken = False

    def __await__(self) -> Generator[Any, Any, None]:
        while not self.woken:
            yield


class Parking:
    def new(self) -> Awaitable[None]:
        return Place()

    def wake(self, place: Any) -> None:
        place.woken = True


class Subscriber:
    """What the model knows of one, beside the real subscription."""

    def __init__(self, real: Subscription, overflow: Overflow, high_water: int) -> None:
        self.real = real
        self.overflow = overflow
        self.high_water = 1 if overflow == "latest" else high_water
        self.mark: int | None = None
        self.queue: list[int] = []
        self.replayed = 0
        """The numbers up to this one were there before it, and do not count as waiting."""
        self.too_slow = False
        self.step: Any = None
        """Its coroutine, where it waits."""
        self.over = False

    @property
    def waiting(self) -> list[int]:
        return [number for number in self.queue if number > self.replayed]


class Model:
    def __init__(self, window: int, most_bytes: int) -> None:
        self.window = window
        self.most_bytes = most_bytes
        self.stream: OutboundStream[str] = OutboundStream(
            "name",
            "id",
            SharedWriter(LIMITS),
            most_bytes=most_bytes,
            replay_window=window,
        )
        self.sizes: dict[int, int] = {}
        self.newest = 0
        self.subscribers: list[Subscriber] = []
        self.end: str | None = None
        self.signalled = False
        self.needed = 0
        """The most chunks that had to be kept since the log was looked at."""

    # What happens ----------------------------------------------------------------------------

    def write(self, sizes: list[int]) -> None:
        for size in sizes:
            full = any(
                each.overflow == "block" and (len(each.waiting) >= each.high_water or self.too_large(each))
                for each in self.present
            )
            expected = StreamClosed if self.end else WouldBlock if full else None
            if expected is not None:
                with pytest.raises(expected):
                    self.stream.write("x" * size)
                continue
            self.stream.write("x" * size)
            self.newest += 1
            self.sizes[self.newest] = len(f'[{self.newest},"{"x" * size}"]')
            for each in self.present:
                each.queue.append(self.newest)
                self.drop(each)
            self.check_log()

    def subscribe(self, overflow: Overflow, high_water: int, after: int | None) -> None:
        real = self.stream.subscribe(None, after=after, high_water_mark=high_water, overflow=overflow)
        each = Subscriber(real, overflow, high_water)
        if after is None:
            after = self.newest
        elif after > self.newest:
            after = 0
        each.mark = max(after + 1, self.replayed_from)
        each.queue = list(range(each.mark, self.newest + 1))
        if overflow != "latest":
            each.replayed = self.newest
        self.drop(each)
        self.subscribers.append(each)

    def read(self, number: int, most: int, by_list: bool) -> None:
        if not self.present:
            return
        each = self.present[number % len(self.present)]
        if by_list and each.step is None and each.mark is None and not each.too_slow:
            numbers = [self.number_of(chunk) for chunk in each.real.__kkrpc_ready__(most)]
            assert numbers == each.queue[:most]
            del each.queue[:most]
            return
        for _ in range(most):
            self.read_one(each)
            if each.over or each.step is not None:
                return

    def read_one(self, each: Subscriber) -> None:
        if each.step is None:
            each.step = each.real.__anext__()
        try:
            each.step.send(None)
        except StopIteration as stop:
            each.step = None
            value = stop.value
        except StopAsyncIteration:
            assert (self.end, each.queue, each.mark, each.too_slow) == ("close", [], None, False)
            self.leave(each)
            return
        except StreamOverflow:
            assert each.too_slow
            self.leave(each)
            return
        except KkrpcError as error:
            assert (self.end, each.queue, each.mark, each.too_slow) == ("error", [], None, False)
            assert "boom" in str(error)
            self.leave(each)
            return
        else:
            assert not each.queue
            assert (self.end, each.mark, each.too_slow) == (None, None, False)
            return
        assert not each.too_slow or each.mark is not None
        if each.mark is not None:
            assert value.value == {"next": each.mark, "epoch": self.stream.epoch}
            each.mark = None
        else:
            assert self.number_of(value) == each.queue.pop(0)

    def cancel(self, number: int) -> None:
        if self.present:
            self.leave(self.present[number % len(self.present)])

    def finish(self, how: str) -> None:
        if how == "error":
            self.stream.error(ValueError("boom"))
        else:
            self.stream.close()
        self.end = self.end or how

    # What the model makes of it --------------------------------------------------------------

    @property
    def present(self) -> list[Subscriber]:
        return [each for each in self.subscribers if not each.over]

    @property
    def replayed_from(self) -> int:
        kept = list(range(max(self.newest - self.window, 0) + 1, self.newest + 1))
        self.fit(kept)
        return kept[0] if kept else self.newest + 1

    def fit(self, kept: list[int]) -> None:
        """Drop the oldest ones until they are small enough, or one is left."""
        while len(kept) > 1 and sum(self.sizes[number] for number in kept) > self.most_bytes:
            del kept[0]

    def too_large(self, each: Subscriber) -> bool:
        return sum(self.sizes[number] for number in each.waiting) > self.most_bytes

    def drop(self, each: Subscriber) -> None:
        if each.overflow == "block" or not (len(each.waiting) > each.high_water or self.too_large(each)):
            return
        kept = each.queue[-each.high_water :]
        self.fit(kept)
        if each.overflow == "error":
            each.too_slow |= kept != each.queue
        else:
            each.queue = kept

    def leave(self, each: Subscriber) -> None:
        if each.step is not None:
            each.step.close()
        try:
            each.real.aclose().send(None)
        except StopIteration:
            pass
        each.over = True
        self.signalled |= not self.present and not self.end
        self.check_log(exact=not self.present)

    def number_of(self, chunk: Any) -> int:
        number, text = chunk.value
        assert len(f'[{number},"{text}"]') == self.sizes[number]
        return int(number)

    def check_log(self, *, exact: bool = False) -> None:
        log = self.stream.log
        assert (log.next, log.next - log.first) == (self.newest + 1, len(log))
        assert log.size == sum(self.sizes[number] for number in range(log.first, log.next))
        firsts = [each.queue[0] for each in self.present if each.queue and not each.too_slow]
        first = min([*firsts, self.replayed_from])
        assert log.first <= first
        # Who is too slow is gone only when that is looked at.
        slow = [each.high_water for each in self.present if each.too_slow]
        needed = max([self.newest + 1 - first, *slow])
        self.needed = needed if exact else max(self.needed, needed)
        assert len(log) <= self.needed + (0 if exact else outbound._SLACK_CHUNKS + 1)

    def check(self) -> None:
        assert self.stream.subscribers == len(self.present)
        assert self.stream.signal.cancelled == self.signalled
        parked = {
            each.real for each in self.present if each.step is not None and not each.queue and not self.end
        }
        assert set(self.stream._parked) == parked

    def check_end(self) -> None:
        """Everybody reads to the end."""
        self.finish("close")
        for each in self.present:
            for _ in range(len(each.queue) + 2):
                if not each.over:
                    self.read_one(each)
            assert each.over
        self.check()
        assert not self.stream._parked
        assert not self.stream._blocking
        assert self.stream.log.first == self.replayed_from


def make(chance: random.Random) -> tuple[dict[str, Any], list[Action]]:
    settings = {
        "window": chance.choice([0, 1, 5, 256]),
        "most_bytes": chance.choice([1 << 24, 1 << 24, 60, 300]),
        "slack": chance.choice([0, 3, 32]),
    }
    names = ["write"] * 8 + ["subscribe"] * 4 + ["read"] * 8 + ["cancel"]
    if chance.random() < 0.3:
        names.append("finish")
    actions: list[Action] = []
    for name in chance.choices(names, k=chance.randrange(5, 50)):
        match name:
            case "write":
                sizes = chance.choices([0, 1, 10, 30, 200], k=chance.choice([1, 1, 2, 3, 8]))
                actions.append((name, sizes))
            case "subscribe":
                overflow = chance.choice(["drop_oldest", "drop_oldest", "latest", "block", "block", "error"])
                after = chance.choice([None, 0, chance.randrange(20)])
                actions.append((name, overflow, chance.choice([1, 2, 3, 8]), after))
            case "read":
                actions.append((name, chance.randrange(6), chance.randrange(1, 9), chance.random() < 0.5))
            case "cancel":
                actions.append((name, chance.randrange(6)))
            case _:
                actions.append((name, chance.choice(["close", "error"])))
    return settings, actions


def follow(settings: dict[str, Any], actions: list[Action]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subscription, "current_parking", Parking)
        patch.setattr(outbound, "_SLACK_CHUNKS", settings["slack"])
        model = Model(settings["window"], settings["most_bytes"])
        for name, *arguments in actions:
            getattr(model, name)(*arguments)
            model.check()
        model.check_end()


def test_it_gives_what_a_queue_for_each_subscriber_would() -> None:
    follow_all(range(500), make, follow)


@pytest.mark.slow
def test_it_gives_what_a_queue_for_each_subscriber_would_in_the_long_run() -> None:
    follow_all(range(500, 30_000), make, follow)
