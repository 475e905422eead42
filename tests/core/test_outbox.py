"""The order in which frames leave (CLS-4), and the sizes that the limits are held against."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kkrpc_py.core.outbox import Outbox, StreamLane


def test_what_is_not_of_a_stream_goes_ahead_in_order() -> None:
    outbox, lane = Outbox(), StreamLane()
    outbox.put_in(lane, b"s1")
    outbox.put(b"c1")
    outbox.put_in(lane, b"s2")
    outbox.put(b"c2")
    assert outbox.take(100) == [b"c1", b"c2", b"s1", b"s2"]


def test_streams_take_turns_frame_by_frame() -> None:
    outbox, lanes = Outbox(), [StreamLane(), StreamLane(), StreamLane()]
    for number, lane in enumerate(lanes):
        for frame in range(3 - number):
            outbox.put_in(lane, b"%d%d" % (number, frame))
    assert outbox.take(100) == [b"00", b"10", b"20", b"01", b"11", b"02"]


def test_a_stream_that_has_had_its_turn_waits_for_the_others() -> None:
    outbox, fast, slow = Outbox(), StreamLane(), StreamLane()
    outbox.put_in(fast, b"f1")
    outbox.put_in(slow, b"s1")
    assert outbox.take(1) == [b"f1"]
    outbox.put_in(fast, b"f2")
    assert outbox.take(100) == [b"s1", b"f2"]


@pytest.mark.parametrize(("most", "expected"), [(0, 0), (1, 1), (10, 1), (11, 2), (20, 2), (21, 3), (99, 3)])
def test_most_is_passed_by_one_frame_at_the_most(most: int, expected: int) -> None:
    outbox = Outbox()
    for _ in range(3):
        outbox.put(b"x" * 10)
    assert len(outbox.take(most)) == expected
    assert outbox.size == outbox.control_size == 30 - 10 * expected


def test_clear_forgets_everything_and_serves_on() -> None:
    outbox, lane = Outbox(), StreamLane()
    outbox.put(b"c")
    outbox.put_in(lane, b"s")
    outbox.clear()
    assert (outbox.size, outbox.control_size, outbox.take(100)) == (0, 0, [])
    outbox.put_in(lane, b"s")
    assert outbox.take(100) == [b"s"]


LANES = 4
actions = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 20)),
        st.tuples(st.integers(0, LANES - 1), st.integers(1, 20)),
        st.tuples(st.just("drop"), st.integers(0, LANES - 1)),
        st.tuples(st.just("take"), st.integers(0, 60)),
        st.just(("clear", 0)),
    )
)


@settings(deadline=None)
@given(actions)
def test_order_fairness_and_sizes(actions: list[tuple[Any, int]]) -> None:
    """Against a model that keeps every frame in a plain list."""
    outbox, lanes = Outbox(), [StreamLane() for _ in range(LANES)]
    control: list[bytes] = []
    streams: list[list[bytes]] = [[] for _ in range(LANES)]
    left: list[tuple[Any, bytes]] = []
    """What was taken since a lane gained or lost frames otherwise, and of which lane."""
    serial = 0
    for what, number in [*actions, ("take", 1 << 16)]:
        frame = b"%d:" % serial + b"x" * number
        serial += 1
        match what:
            case "put":
                outbox.put(frame)
                control.append(frame)
            case "drop":
                outbox.drop(lanes[number])
                streams[number].clear()
            case "clear":
                outbox.clear()
                control.clear()
                for stream in streams:
                    stream.clear()
            case "take":
                waiting = sum(map(bool, streams))
                left = []
                budget = number
                for frame in outbox.take(number):
                    assert budget > 0
                    budget -= len(frame)
                    if control:
                        assert frame == control.pop(0), "the first lane goes first, in order"
                        continue
                    [owner] = [at for at, stream in enumerate(streams) if stream and stream[0] == frame]
                    streams[owner].pop(0)
                    left.append((owner, frame))
                assert budget <= 0 or not (control or any(streams)), "less than there was room for"
                turns = [owner for owner, _ in left]
                assert len(set(turns[:waiting])) == min(waiting, len(turns)), "a stream went twice in a round"
                assert all(
                    len(list(run)) == 1 or not any(streams[:owner] + streams[owner + 1 :])
                    for owner, run in groupby(turns)
                )
            case _:
                outbox.put_in(lanes[what], frame)
                streams[what].append(frame)
        assert outbox.control_size == sum(map(len, control))
        assert outbox.size == outbox.control_size + sum(len(frame) for stream in streams for frame in stream)
