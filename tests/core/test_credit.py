"""The two halves of a window: nothing is lost between them, nobody waits for ever, memory is bounded."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kkrpc_py.core.credit import INITIAL_BYTES, INITIAL_CHUNKS, MAX_CHUNKS, ReceiveWindow, SendWindow

KIB = 1024
BUDGET = 1024 * KIB
FRAME = 16 * 1024 * KIB
"""The largest frame that a property sends."""


class Link:
    """A producer and a consumer of one stream, and what lies between them.

    It checks after every step what must hold: each chunk and byte of the window is in one place.
    """

    def __init__(self, budget: int = BUDGET) -> None:
        self.budget = max(budget, INITIAL_BYTES)
        self.send = SendWindow()
        self.receive = ReceiveWindow(budget)
        self.unread: deque[tuple[int, int]] = deque()
        self.taken_chunks = self.taken_bytes = 0
        """Taken, and not granted again."""
        self.grants: deque[tuple[int, int]] = deque()
        self.largest = 0

    def produce(self, chunks: int, size: int) -> bool:
        """Send a frame; False: there is no credit for one."""
        room = self.send.room
        assert room >= 0
        if not room:
            return False
        chunks = min(chunks, room)
        self.send.spend(chunks, size)
        assert self.receive.arrived(chunks, size), "what the producer had credit for is refused"
        self.unread.append((chunks, size))
        self.largest = max(self.largest, size)
        self.check()
        return True

    def take(self) -> None:
        chunks, size = self.unread.popleft()
        self.taken_chunks += chunks
        self.taken_bytes += size
        before = self.receive.chunks, self.receive.bytes
        grant = self.receive.taken(chunks, size)
        if grant is not None:
            assert grant >= (0, 0)
            assert min(grant) >= 0
            assert (self.receive.chunks, self.receive.bytes) == (before[0] + grant[0], before[1] + grant[1])
            self.grants.append(grant)
            self.taken_chunks = self.taken_bytes = 0
        self.check()

    def deliver_grant(self) -> None:
        self.send.grant(*self.grants.popleft())
        self.check()

    def check(self) -> None:
        receive = self.receive
        unread_chunks = sum(chunks for chunks, _ in self.unread)
        unread_bytes = sum(size for _, size in self.unread)
        assert receive.chunks + unread_chunks + self.taken_chunks == receive.window_chunks
        assert receive.bytes + unread_bytes + self.taken_bytes == receive.window_bytes
        assert self.send.chunks + sum(chunks for chunks, _ in self.grants) == receive.chunks
        assert self.send.bytes + sum(size for _, size in self.grants) == receive.bytes
        assert self.send.chunks >= 0
        assert self.send.bytes > -self.largest or not self.largest
        assert 1 <= receive.window_chunks <= max(MAX_CHUNKS, INITIAL_CHUNKS)
        assert INITIAL_BYTES <= receive.window_bytes <= self.budget
        assert unread_bytes < self.budget + self.largest or not self.unread

    def settle(self) -> None:
        """The application takes everything, and every grant arrives."""
        while self.unread:
            self.take()
        while self.grants:
            self.deliver_grant()
        assert self.send.room > 0, "both sides wait"


frames = st.tuples(
    st.integers(1, 256), st.one_of(st.integers(1, 300), st.integers(1, 64 * KIB), st.integers(1, FRAME))
)
steps = st.lists(st.one_of(frames, st.sampled_from(["take", "grant", "settle"])), max_size=60)


@settings(deadline=None)
@given(steps, st.sampled_from([1, 100 * KIB, 300 * KIB, BUDGET, 64 * BUDGET]))
def test_nothing_is_lost_and_nobody_waits_for_ever(steps: list[tuple[int, int] | str], budget: int) -> None:
    link = Link(budget)
    for step in steps:
        if isinstance(step, tuple):
            link.produce(*step)
        elif step == "take" and link.unread:
            link.take()
        elif step == "grant" and link.grants:
            link.deliver_grant()
        elif step == "settle":
            link.settle()
    link.settle()
    assert link.produce(1, 1)


@settings(deadline=None)
@given(st.lists(frames, min_size=1, max_size=40), st.sampled_from([1, 300 * KIB, BUDGET]))
def test_what_lies_unread_is_bounded_whatever_came_before(
    history: list[tuple[int, int]], budget: int
) -> None:
    link = Link(budget)
    for chunks, size in history:
        link.produce(chunks, size)
        link.settle()
    # The consumer stops reading; the producer does what it may.
    largest = 5000
    total = 0
    while link.produce(256, largest):
        total += largest
    assert total < link.budget + largest


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, FRAME)), max_size=30))
def test_whatever_exceeds_the_credit_is_refused_and_changes_nothing(attempts: list[tuple[int, int]]) -> None:
    window = ReceiveWindow(BUDGET)
    for chunks, size in attempts:
        before = window.chunks, window.bytes
        allowed = chunks <= window.chunks and window.bytes > 0
        assert window.arrived(chunks, size) is allowed
        after = (before[0] - chunks, before[1] - size) if allowed else before
        assert (window.chunks, window.bytes) == after


def test_the_first_credit() -> None:
    window = SendWindow()
    assert (window.chunks, window.bytes, window.room) == (64, 262_144, 64)
    window = SendWindow()
    window.spend(64, 1)
    assert window.room == 0


def test_one_frame_may_overdraw_the_bytes() -> None:
    window = SendWindow()
    window.spend(1, INITIAL_BYTES - 1)
    window.spend(1, FRAME)
    assert (window.chunks, window.bytes, window.room) == (62, 1 - FRAME, 0)
    window.grant(0, FRAME - 1)
    assert window.room == 0
    window.grant(0, 1)
    assert window.room == 62


@pytest.mark.parametrize(("chunks", "size"), [(65, 1), (0, 1)])
def test_more_than_the_room_cannot_be_spent(chunks: int, size: int) -> None:
    with pytest.raises(AssertionError):
        SendWindow().spend(chunks, size)


def test_small_chunks_grow_the_window_to_its_largest_in_steps() -> None:
    link = Link()
    sizes = []
    while link.receive.window_chunks < MAX_CHUNKS:
        before = link.receive.window_chunks
        while link.produce(1, 20):
            pass
        link.settle()
        assert link.receive.window_chunks <= before * 4  # one grant a round
        sizes.append(link.receive.window_chunks)
        assert len(sizes) < 10
    assert sizes == sorted(sizes)


def test_large_chunks_shrink_the_window_so_that_the_budget_holds() -> None:
    link = Link()
    for _ in range(10):
        while link.produce(256, 256 * 20):
            pass
        link.settle()
    assert link.receive.window_chunks == MAX_CHUNKS
    assert link.receive.window_bytes == BUDGET
    size = 100 * KIB
    for _ in range(5 * MAX_CHUNKS):
        assert link.produce(1, size)
        link.settle()
    # A tenth of the budget each: the window holds about ten of them, and never fewer than one.
    assert link.receive.window_chunks <= BUDGET // size + 1


def test_a_frame_as_large_as_the_budget_still_flows_one_at_a_time() -> None:
    link = Link()
    for _ in range(200):
        assert link.produce(1, FRAME)
        assert not link.produce(1, FRAME)
        link.settle()
    assert link.receive.window_chunks == 1


def test_grants_are_gathered() -> None:
    link = Link()
    for _ in range(31):
        link.produce(1, 10)
        link.take()
    assert not link.grants
    link.produce(1, 10)
    link.take()
    assert len(link.grants) == 1
