"""What two peers agree on, from when it holds, and what odd answers mean (HEL-1 to HEL-7)."""

from __future__ import annotations

from typing import Any

import pytest

from kkrpc_py.core import events as ev
from kkrpc_py.core.connection import Connection
from kkrpc_py.errors import NotSerializable
from tests.core.peers import (
    ALL_FEATURES,
    Peer,
    ack,
    cancel,
    chunk,
    end,
    hello,
    hello_answer,
    line,
    opened,
    read_frame,
    request,
    response,
)
from tests.naming import shown

ALL = frozenset(ALL_FEATURES)


def test_the_hello_is_the_first_message_hel_1_hel_2() -> None:
    connection = Connection(hello=True)
    connection.call("f", [])
    first, second = map(read_frame, connection.data_to_send())
    assert first["method"] == "kkrpc.hello"
    assert first["args"] == [{"protocol": 1, "features": sorted(ALL)}]
    assert second["method"] == "f"


@pytest.mark.parametrize(("codec", "features"), [("auto", ALL), ("cbor", ALL), ("json", ALL - {"cbor"})])
def test_a_side_names_what_it_speaks_hel_3(codec: Any, features: frozenset[str]) -> None:
    peer = Peer(codec=codec)
    assert peer.send(hello()) == [ev.Settled()]
    assert [message["args"]["result"] for message in peer.sent()] == [
        {"protocol": 1, "features": sorted(features)}
    ]
    assert peer.connection.agreed == features


def test_in_force_is_what_both_named_and_unknown_names_are_ignored_hel_3_hel_4() -> None:
    peer = Peer(pending=True)
    answer = {"protocol": 1, "features": ["batch", "teleport", 5, "result"], "motto": "hi"}
    assert peer.send(response(peer.hello_id, result=answer)) == [ev.Settled()]
    assert peer.connection.agreed == frozenset({"batch", "result"})
    assert not peer.connection.pending


NO_HELLO: list[Any] = [
    None,
    True,
    1,
    "hello",
    [],
    {},
    {"protocol": 1},
    {"protocol": 2, "features": ["credit"]},
    {"protocol": 1.0, "features": ["credit"]},
    {"protocol": True, "features": ["credit"]},
    {"protocol": "1", "features": ["credit"]},
    {"protocol": 1, "features": "credit"},
    {"protocol": 1, "features": {"credit": True}},
]


def speaks_stock(peer: Peer) -> None:
    """Everything that the connection writes is what kkrpc 0.7 knows."""
    connection = peer.connection
    assert connection.agreed is None
    assert not connection.pending
    call = peer.call(opened_=True)
    assert call.window is None
    connection.taken(call, 1, 1 << 20)
    assert peer.sent() == []
    assert connection.cancel(call) is False
    assert [message["type"] for message in peer.sent()] == ["stream-cancel"]
    asked = peer.asked("é", opened_=True)
    assert asked.room == 1
    connection.send_chunks(asked, ["é"])
    connection.end_stream(asked, "a return value")
    frames = connection.data_to_send()
    assert all(frame.isascii() for frame in frames)
    assert [read_frame(frame)["args"] for frame in frames] == [{"value": "é"}, {}]
    with pytest.raises(NotSerializable) as caught:
        connection.call("f", [{1, 2}])
    assert not caught.value.needs_hello
    assert not connection.outgoing


@pytest.mark.parametrize("value", NO_HELLO, ids=shown)
def test_another_value_for_an_answer_means_stock_hel_4(value: Any) -> None:
    peer = Peer(pending=True)
    assert peer.send(response(peer.hello_id, result=value)) == [ev.Settled()]
    assert peer.connection.violations == 0
    speaks_stock(peer)


@pytest.mark.parametrize("error", ["Method path kkrpc.hello not found at kkrpc", {"name": "E"}, 5])
def test_an_error_for_an_answer_means_stock_hel_4(error: Any) -> None:
    peer = Peer(pending=True)
    assert peer.send(response(peer.hello_id, error=error)) == [ev.Settled()]
    assert peer.connection.violations == 0
    speaks_stock(peer)


def test_a_stream_for_an_answer_means_stock_and_is_stopped_hel_4_can_6() -> None:
    peer = Peer(pending=True)
    assert peer.send(opened(peer.hello_id)) == [ev.Settled()]
    assert [(message["type"], message["id"]) for message in peer.sent()] == [("stream-cancel", peer.hello_id)]
    speaks_stock(peer)


def test_an_unreadable_answer_means_stock_hel_4() -> None:
    peer = Peer(pending=True)
    assert peer.send(line(id=peer.hello_id, type="response", args=[])) == [ev.Settled()]
    assert peer.connection.violations == 1
    speaks_stock(peer)


@pytest.mark.parametrize("what", [chunk, end])
def test_other_messages_under_the_hello_s_id_settle_nothing(what: Any) -> None:
    peer = Peer(pending=True)
    [event] = peer.send(what(peer.hello_id))
    assert isinstance(event, ev.Violated)
    assert peer.connection.pending
    assert peer.send(hello_answer(peer.hello_id)) == [ev.Settled()]


def test_a_peer_that_never_answers_gets_stock_messages_hel_6() -> None:
    peer = Peer(pending=True)
    peer.connection.give_up_hello()
    speaks_stock(peer)


def test_a_late_answer_counts_hel_6() -> None:
    peer = Peer(pending=True)
    peer.connection.give_up_hello()
    assert peer.send(hello_answer(peer.hello_id)) == [ev.Settled()]
    assert peer.connection.agreed == ALL
    assert peer.call(opened_=True).window is not None


def test_a_second_answer_is_counted() -> None:
    peer = Peer(pending=True)
    peer.send(hello_answer(peer.hello_id, ["batch"]))
    [event] = peer.send(hello_answer(peer.hello_id))
    assert isinstance(event, ev.Violated)
    assert peer.connection.agreed == frozenset({"batch"})


def test_a_second_hello_is_answered_and_changes_nothing_hel_7() -> None:
    peer = Peer()
    peer.send(hello("a", ["batch"]))
    peer.send(hello("b"))
    answers = peer.sent()
    assert [message["id"] for message in answers] == ["a", "b"]
    assert answers[0]["args"] == answers[1]["args"]
    assert peer.connection.agreed == frozenset({"batch"})
    assert peer.connection.violations == 0


@pytest.mark.parametrize("args", [[], [{}, {}], *[[value] for value in NO_HELLO]], ids=shown)
def test_a_malformed_hello_is_an_error_and_agrees_on_nothing_hel_4(args: Any) -> None:
    peer = Peer()
    [event] = peer.send(request("h", "kkrpc.hello", args))
    assert isinstance(event, ev.Violated)
    assert peer.connection.violations == 1
    [answer] = peer.sent()
    assert answer["id"] == "h"
    assert answer["args"]["error"]["name"] == "ProtocolError"
    speaks_stock(peer)


def test_hellos_may_cross_hel_1() -> None:
    peer = Peer(pending=True)
    assert peer.send(hello(features=["batch"])) == [ev.Settled()]
    assert peer.connection.agreed == frozenset({"batch"})
    assert peer.send(hello_answer(peer.hello_id, ["batch"])) == [ev.Settled()]
    assert peer.connection.agreed == frozenset({"batch"})
    assert peer.connection.violations == 0


def test_a_hello_takes_effect_before_what_follows_it_hel_7() -> None:
    peer = Peer()
    settled, asked = peer.send(hello(), request("q"))
    assert isinstance(settled, ev.Settled)
    assert isinstance(asked, ev.CallRequested)
    assert asked.call.features == ALL
    peer.connection.respond(asked.call, {1})
    assert [message["id"] for message in peer.sent()] == ["h", "q"], "the answer goes ahead"


def test_nothing_is_in_force_for_a_request_that_came_before_the_hello_hel_5() -> None:
    peer = Peer()
    call = peer.asked()
    peer.send(hello())
    peer.connection.open_stream(call)
    peer.sent()
    assert call.window is None
    assert call.room == 1
    assert peer.send(ack(call.id)) == []
    peer.connection.send_chunks(call, [1])
    peer.connection.end_stream(call, "result")
    assert [message["args"] for message in peer.sent()] == [{"value": 1}, {}]
    cancelled = peer.asked("late", opened_=True)
    assert cancelled.window is not None


def test_nothing_is_in_force_for_a_request_that_was_sent_before_our_hello_hel_5() -> None:
    peer = Peer()
    call, dropped = peer.call(), peer.call()
    assert peer.connection.cancel(dropped) is False
    peer.send(hello())
    assert [message["id"] for message in peer.sent()] == ["h"], "no cancel for what was asked before (CAN-8)"
    peer.send(opened(call.id))
    assert call.window is None
    assert peer.connection.cancel(call) is False
    assert [message["type"] for message in peer.sent()] == ["stream-cancel"]
    assert set(peer.connection.outgoing) == {dropped.id}


def test_all_is_in_force_for_a_request_after_our_hello_hel_5() -> None:
    peer = Peer(pending=True)
    call = peer.call()
    peer.send(hello_answer(peer.hello_id), opened(call.id))
    assert call.window is not None
    assert peer.connection.cancel(call) is True


def test_nothing_is_in_force_for_a_call_answered_before_the_hello_hel_5() -> None:
    peer = Peer(pending=True)
    call = peer.call(opened_=True)
    peer.send(hello_answer(peer.hello_id))
    assert call.window is None
    peer.connection.taken(call, 1, 1 << 20)
    assert peer.sent() == []
    assert peer.connection.cancel(call) is False
    assert [message["type"] for message in peer.sent()] == ["stream-cancel"]
    assert not peer.connection.outgoing


def test_credit_alone_may_be_agreed() -> None:
    peer = Peer(agreed=True, features=["credit"])
    call = peer.asked(opened_=True)
    assert call.room == 1
    for number in range(64):
        peer.connection.send_chunks(call, [number])
    assert call.room == 0
    assert peer.send(cancel(call.id)) == [ev.Cancelled(call)]
    peer.connection.stopped(call)
    assert peer.sent() == [], "the chunks are dropped, and a cancel that is not agreed gets no answer"


def test_what_needs_cbor_may_be_tried_again_after_the_answer() -> None:
    peer = Peer(pending=True)
    with pytest.raises(NotSerializable) as caught:
        peer.connection.call("f", [{1, 2}])
    assert caught.value.needs_hello
    assert peer.sent() == []
    assert not peer.connection.outgoing
    peer.send(hello_answer(peer.hello_id))
    call = peer.connection.call("f", [{1, 2}])
    assert [(message["id"], message["args"]) for message in peer.sent()] == [(call.id, [{1, 2}])]


def test_a_hello_without_id_agrees_on_nothing_hel_4() -> None:
    """Its sender could not tell the answer from another."""
    peer = Peer()
    bare = line(method="kkrpc.hello", args=[{"protocol": 1, "features": ["cancel"]}], type="request")
    [event] = peer.send(bare)
    assert isinstance(event, ev.Violated)
    [answer] = peer.sent()
    assert "id" not in answer
    assert answer["args"]["error"]["name"] == "ProtocolError"
    assert peer.connection.agreed is None


@pytest.mark.parametrize("said_by", ["peer", "us"])
def test_what_is_held_back_from_a_stock_peer_alone_frm_11_val_3_val_5(said_by: str) -> None:
    peer = Peer(codec="json", pending=said_by == "us")
    awkward: list[Any] = [2**60, "__callback__x"]
    for value in awkward:
        with pytest.raises(NotSerializable):
            peer.connection.call("f", [value])
    settled = peer.send(hello() if said_by == "peer" else hello_answer(peer.hello_id))
    assert settled == [ev.Settled()]
    peer.sent()
    assert not peer.connection.stock
    peer.connection.call("f", [*awkward, "é"])
    [frame] = peer.connection.data_to_send()
    assert read_frame(frame)["args"] == [*awkward, "é"]
    assert "é".encode() in frame
