"""Cancels from both ends, agreed and stock (section 8); what the producer sends (sections 7 and 10 to 12)."""

from __future__ import annotations

from typing import Any

import pytest

from kkrpc_py.core import events as ev
from kkrpc_py.core.tables import CallerState
from kkrpc_py.errors import ErrorValue, LimitExceeded, NotSerializable
from kkrpc_py.limits import Limits
from tests.core.peers import (
    Peer,
    ack,
    cancel,
    chunk,
    end,
    hello_answer,
    opened,
    response,
    stream_error,
)

BOTH = pytest.mark.parametrize("agreed", [False, True], ids=["stock", "agreed"])


def cancels(peer: Peer) -> list[Any]:
    messages = peer.sent()
    assert all(message["type"] == "stream-cancel" for message in messages)
    return [message["id"] for message in messages]


# The caller -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "last", [lambda id: end(id, cancelled=True), lambda id: end(id, result=3), stream_error]
)
def test_an_agreed_cancel_waits_for_its_answer_can_1_can_3_can_4(last: Any) -> None:
    peer = Peer(agreed=True)
    call = peer.call(opened_=True)
    assert peer.connection.cancel(call) is True
    assert peer.connection.cancel(call) is True
    assert cancels(peer) == [call.id]
    assert peer.send(chunk(call.id, 1), chunk(call.id, *range(1000))) == []
    assert peer.connection.taken(call, 64, 1 << 20) is False, "nobody is granted anything any more"
    assert set(peer.connection.outgoing) == {call.id}
    assert peer.send(last(call.id)) == [ev.Stopped(call, None, True)]
    assert peer.connection.violations == 0
    assert peer.connection.cancel(call) is False
    assert peer.sent() == []
    peer.is_alive()


@pytest.mark.parametrize("last", [lambda id: response(id, result=1), lambda id: response(id, error="x")])
def test_an_agreed_cancel_of_a_call_can_3_can_5(last: Any) -> None:
    peer = Peer(agreed=True)
    call = peer.call()
    assert peer.connection.cancel(call) is True
    assert cancels(peer) == [call.id]
    assert peer.send(last(call.id)) == [ev.Stopped(call, None, True)]
    peer.is_alive()


def test_an_opening_that_crosses_the_cancel_is_no_answer_to_it_can_7() -> None:
    peer = Peer(agreed=True)
    call = peer.call()
    peer.connection.cancel(call)
    assert peer.send(opened(call.id), chunk(call.id, 1)) == []
    assert cancels(peer) == [call.id], "one cancel is enough"
    assert peer.send(end(call.id, cancelled=True)) == [ev.Stopped(call, None, True)]
    peer.is_alive()


def test_a_stock_cancel_of_a_stream_is_over_at_once_can_2() -> None:
    peer = Peer()
    call = peer.call(opened_=True)
    assert peer.connection.cancel(call) is False
    assert cancels(peer) == [call.id]
    assert not peer.connection.outgoing
    assert peer.send(chunk(call.id, 1), chunk(call.id, 2), end(call.id)) == []
    assert peer.connection.violations == 0, "the stock peer could not know"
    assert [type(event) for event in peer.send(chunk(call.id, 1), end(call.id))] == [ev.Violated] * 2
    peer.is_alive()


def test_what_was_left_of_stock_streams_is_bounded() -> None:
    peer = Peer()
    calls = [peer.call(opened_=True) for _ in range(2000)]
    for call in calls:
        peer.connection.cancel(call)
    peer.sent()
    assert peer.send(chunk(calls[-1].id, 1), end(calls[-1].id)) == []
    assert [type(event) for event in peer.send(end(calls[0].id))] == [ev.Violated]


def test_a_stock_call_that_was_given_up_is_stopped_when_it_turns_out_a_stream_can_6() -> None:
    peer = Peer()
    call = peer.call()
    assert peer.connection.cancel(call) is False
    assert peer.connection.cancel(call) is False
    assert peer.sent() == [], "a stock peer knows no cancel of a call"
    assert set(peer.connection.outgoing) == {call.id}, "the id stays in use"
    assert peer.send(opened(call.id)) == [ev.Stopped(call, None, True)]
    assert cancels(peer) == [call.id]
    assert peer.send(chunk(call.id, 1), stream_error(call.id)) == []
    peer.is_alive()


@pytest.mark.parametrize("last", [lambda id: response(id, result=1), lambda id: response(id, error="x")])
def test_a_stock_call_that_was_given_up_keeps_its_id_until_the_answer_can_6(last: Any) -> None:
    peer = Peer()
    call = peer.call()
    peer.connection.cancel(call)
    assert peer.send(last(call.id)) == [ev.Stopped(call, None, True)]
    assert peer.sent() == []
    peer.is_alive()


def test_a_call_given_up_before_the_hello_s_answer_is_cancelled_by_it_can_8() -> None:
    peer = Peer(pending=True)
    call, answered, kept = peer.call(), peer.call(), peer.call()
    assert peer.connection.cancel(call) is False
    assert peer.connection.cancel(answered) is False
    peer.send(response(answered.id, result=1))
    assert peer.send(hello_answer(peer.hello_id)) == [ev.Settled()]
    assert cancels(peer) == [call.id], "not what is answered, and not what is waited for"
    assert call.state is CallerState.CANCELLING
    assert peer.send(opened(call.id), end(call.id, cancelled=True)) == [ev.Stopped(call, None, True)]
    assert peer.send(response(kept.id, result=1)) == [ev.Returned(kept, 1)]
    peer.is_alive()


def test_a_call_given_up_stays_so_where_the_hello_s_answer_knows_no_cancel_can_8() -> None:
    peer = Peer(pending=True)
    call = peer.call()
    peer.connection.cancel(call)
    peer.send(hello_answer(peer.hello_id, ["credit", "batch"]))
    assert peer.sent() == []
    assert peer.send(opened(call.id)) == [ev.Stopped(call, None, True)]
    assert cancels(peer) == [call.id]
    peer.is_alive()


def test_what_is_open_when_the_peer_is_gone_is_over() -> None:
    peer = Peer(agreed=True)
    waiting, stream, stopping = peer.call(), peer.call(opened_=True), peer.call()
    peer.connection.cancel(stopping)
    assert peer.connection.receive_eof() == []
    assert peer.connection.close() == [waiting, stream, stopping]
    for call in (waiting, stream, stopping):
        assert call.state is CallerState.DONE
        assert peer.connection.cancel(call) is False
        assert peer.connection.taken(call, 64, 1) is False
    assert cancels(peer) == [stopping.id]


def test_what_runs_for_a_peer_that_is_gone_can_be_forgotten() -> None:
    peer = Peer(agreed=True)
    running, stream = peer.asked("a"), peer.asked("b", opened_=True)
    peer.connection.send_chunks(stream, [1, 2])
    peer.connection.respond(running, 1)
    assert running.done()
    assert not stream.done()
    peer.connection.forget()
    assert not peer.connection.incoming
    assert peer.sent() == []
    # Its producer may still come to an end.
    peer.connection.end_stream(stream)
    assert stream.done()


def test_grants_reach_the_producer_crd_5() -> None:
    peer = Peer(agreed=True)
    call = peer.call(opened_=True)
    [received] = peer.send(chunk(call.id, *range(64)))
    assert isinstance(received, ev.Received)
    assert peer.connection.taken(call, 64, received.size) is True
    [message] = peer.sent()
    assert (message["type"], message["id"]) == ("stream-ack", call.id)
    assert message["args"]["n"] >= 64
    assert message["args"]["b"] >= received.size
    assert len(peer.send(chunk(call.id, *range(message["args"]["n"])))) == 1
    assert peer.connection.violations == 0


# The callee -----------------------------------------------------------------------------------


@BOTH
def test_a_cancelled_call_is_answered_once_its_cleanup_is_done_can_2_can_4_can_7(agreed: bool) -> None:
    peer = Peer(agreed=agreed)
    call = peer.asked()
    assert peer.send(cancel("q"), cancel("q")) == [ev.Cancelled(call)]
    assert call.stopping()
    assert peer.sent() == []
    assert set(peer.connection.incoming) == {"q"}
    peer.connection.stopped(call)
    [answer] = peer.sent()
    assert (answer["id"], answer["args"]["error"]["name"]) == ("q", "CallCancelled")
    assert peer.send(cancel("q")) == [], "it has crossed the answer (CAN-5)"
    peer.is_alive()


def test_a_cancelled_stream_sends_no_further_chunk_can_1_can_4() -> None:
    peer = Peer(agreed=True)
    call, other = peer.asked("q", opened_=True), peer.asked("r", opened_=True)
    for stream in (call, other):
        peer.connection.send_chunks(stream, [1])
        peer.connection.send_chunks(stream, [2])
    assert peer.send(cancel("q")) == [ev.Cancelled(call)]
    values = [3, 4]
    assert peer.connection.send_chunks(call, values) == 0
    assert values == []
    peer.connection.stopped(call)
    assert [(message["id"], message["args"]) for message in peer.sent()] == [
        ("r", {"value": 1}),
        ("q", {"cancelled": True}),
        ("r", {"value": 2}),
    ]
    peer.connection.end_stream(other)
    peer.sent()
    peer.is_alive()


@BOTH
def test_an_error_of_the_cleanup_can_2_can_4(agreed: bool) -> None:
    peer = Peer(agreed=agreed)
    call = peer.asked(opened_=True)
    peer.send(cancel("q"))
    peer.connection.fail(call, ErrorValue("ValueError", "in finally"))
    assert [message["type"] for message in peer.sent()] == (["stream-error"] if agreed else [])
    peer.is_alive()


@BOTH
def test_the_confirmation_of_a_stream_s_cancel_can_2_can_4(agreed: bool) -> None:
    peer = Peer(agreed=agreed)
    call = peer.asked(opened_=True)
    peer.send(cancel("q"))
    peer.connection.stopped(call)
    assert [message["args"] for message in peer.sent()] == ([{"cancelled": True}] if agreed else [])
    peer.is_alive()


# Sending --------------------------------------------------------------------------------------


def test_a_stream_starts_with_64_chunks_of_credit_and_takes_them_crd_1_crd_3() -> None:
    peer = Peer(agreed=True)
    call = peer.asked(opened_=True)
    assert call.window is not None
    size = peer.connection.send_chunks(call, list(range(60)))
    [frame] = peer.connection.data_to_send()
    assert (size, call.room) == (len(frame) - 1, 4)
    assert call.window.bytes == 262_144 - size
    peer.connection.send_chunks(call, [1, 2, 3, 4])
    assert call.room == 0
    assert peer.send(ack("q", 3, 0)) == [ev.Credited(call)]
    assert call.room == 3
    peer.send(ack("q", 1000, 0))
    assert call.room == 256, "as many as fit into a batch (BAT-2)"


def test_bytes_are_credit_too_crd_3() -> None:
    peer = Peer(agreed=True)
    call = peer.asked(opened_=True)
    assert call.window is not None
    peer.connection.send_chunks(call, ["x" * 300_000])
    assert call.window.bytes < 0
    assert call.room == 0
    peer.send(ack("q", 0, -call.window.bytes))
    assert call.room == 0
    peer.send(ack("q", 0, 1))
    assert call.room == 63


def test_a_batch_too_large_for_a_frame_is_sent_one_by_one_frm_6() -> None:
    peer = Peer(agreed=True, limits=Limits(frame=1000))
    call = peer.asked(opened_=True)
    values = [f"{number}" * 300 for number in range(5)]
    size = peer.connection.send_chunks(call, values)
    assert values == []
    frames = peer.connection.data_to_send(1 << 20)
    assert size == sum(len(frame) - 1 for frame in frames)
    assert len(frames) == 5
    assert call.room == 59


def test_values_stay_where_the_credit_ends_within_a_batch_crd_3() -> None:
    peer = Peer(agreed=True, limits=Limits(frame=200_000))
    call = peer.asked(opened_=True)
    values = [f"{number}" * 90_000 for number in range(5)]
    size = peer.connection.send_chunks(call, values)
    assert [value[0] for value in values] == ["3", "4"]
    assert size > 262_144
    assert call.room == 0
    peer.send(ack("q", 0, size))
    peer.connection.send_chunks(call, values)
    first, second, third, batch = (message["args"] for message in peer.sent())
    assert [args["value"][0] for args in (first, second, third)] == ["0", "1", "2"]
    assert [value[0] for value in batch["values"]] == ["3", "4"]


@pytest.mark.parametrize(("bad", "error"), [(object(), NotSerializable), ("x" * 2000, LimitExceeded)])
@pytest.mark.parametrize("at", [0, 2])
def test_values_before_one_that_cannot_be_sent_are_sent_str_11(bad: Any, error: Any, at: int) -> None:
    peer = Peer(agreed=True, limits=Limits(frame=1000))
    call = peer.asked(opened_=True)
    values: list[Any] = [0, 1, 2]
    values[at] = bad
    with pytest.raises(error):
        peer.connection.send_chunks(call, values)
    assert values[0] is bad
    peer.connection.fail(call, ErrorValue("NotSerializable", "no"))
    assert [(m["type"], m["args"].get("value")) for m in peer.sent()] == [
        *[("stream-chunk", number) for number in range(at)],
        ("stream-error", None),
    ]
    peer.is_alive()


@pytest.mark.parametrize(("bad", "error"), [(object(), NotSerializable), ("x" * 2000, LimitExceeded)])
def test_what_cannot_be_sent_changes_nothing_val_1_res_2(bad: Any, error: Any) -> None:
    peer = Peer(agreed=True, limits=Limits(frame=1000))
    connection = peer.connection
    with pytest.raises(error):
        connection.call("f", [bad])
    assert not connection.outgoing
    call = peer.asked("a")
    with pytest.raises(error):
        connection.respond(call, bad)
    connection.respond(call, 1)
    stream = peer.asked("b")
    connection.open_stream(stream)
    with pytest.raises(error):
        connection.end_stream(stream, bad)
    connection.fail(stream, ErrorValue("NotSerializable", "no"))
    assert [(m["id"], m["type"]) for m in peer.sent()] == [
        ("a", "response"),
        ("b", "response"),
        ("b", "stream-error"),
    ]
    peer.is_alive()


@pytest.mark.parametrize("opened_", [False, True])
def test_an_error_is_sent_whatever_it_holds_err_4(opened_: bool) -> None:
    peer = Peer(agreed=True, limits=Limits(frame=1000))
    errors = (
        ErrorValue("E", "x" * 2000),
        ErrorValue("E" * 2000, "m"),
        ErrorValue("Error", "x" * 2000, bare=True),
        ErrorValue("E", "m", "stack " * 1000),
        ErrorValue("E", "m", fields={"when": object(), "code": 1}),
    )
    sent: list[Any] = []
    for error in errors:
        call = peer.asked(opened_=opened_)
        peer.connection.fail(call, error)
        [message] = peer.sent()
        assert message["id"] == "q"
        assert message["type"] == ("stream-error" if opened_ else "response")
        sent.append(message["args"]["error"])
    assert all(sent)
    assert type(sent[2]) is str
    assert sent[-1] == {"name": "E", "message": "m", "code": 1}
    peer.is_alive()


def test_a_user_s_result_may_not_look_like_a_stream_cla_4() -> None:
    peer = Peer(agreed=True)
    call = peer.asked()
    with pytest.raises(NotSerializable):
        peer.connection.respond(call, {"__stream": True})
    peer.connection.respond(call, {"__stream": 1})
    assert [message["args"] for message in peer.sent()] == [{"result": {"__stream": 1}}]
