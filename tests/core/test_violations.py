"""What each broken rule is answered by (the *Answer* paragraphs of the specification), with hostile bytes.

After each of them the connection serves on, and no other call was harmed (MSG-7).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kkrpc_py.core import events as ev
from kkrpc_py.core.tables import CallerState
from kkrpc_py.errors import ErrorValue, LimitExceeded, ProtocolError
from kkrpc_py.limits import Limits
from tests.core.peers import (
    Peer,
    ack,
    cancel,
    chunk,
    end,
    hello,
    line,
    opened,
    request,
    response,
    stream_error,
)
from tests.naming import shown

BOTH = pytest.mark.parametrize("agreed", [False, True], ids=["stock", "agreed"])
WRONG_IDS: list[Any] = [1.0, True, None, [], {}, "x" * 257, "é" * 129, 10**256]


def counted(peer: Peer, *lines: bytes) -> None:
    """Each of the lines is counted, and has no other effect."""
    for text in lines:
        before = peer.connection.violations
        [event] = peer.send(text)
        assert isinstance(event, ev.Violated), text
        assert peer.connection.violations == before + 1
        assert peer.sent() == []


def ignored(peer: Peer, *lines: bytes) -> None:
    before = peer.connection.violations
    for text in lines:
        assert peer.send(text) == [], text
        assert peer.sent() == []
    assert peer.connection.violations == before


# Unknown ids, and what comes at the wrong time ------------------------------------------------


@BOTH
@pytest.mark.parametrize("id", ["nobody", 1, "1", "h"])
def test_answers_for_nobody_are_counted_msg_6_str_7(agreed: bool, id: Any) -> None:
    peer = Peer(agreed=agreed)
    counted(peer, chunk(id, 1), chunk(id, 1, 2), end(id), stream_error(id), opened(id))
    counted(peer, response(id, result=1), response(id, error="boom"), line(type="response", args={}))
    peer.is_alive()


@BOTH
def test_cancel_and_ack_for_nobody_are_ignored_msg_6(agreed: bool) -> None:
    peer = Peer(agreed=agreed)
    ignored(peer, cancel("nobody"), ack("nobody"))
    asked = peer.asked(opened_=True)
    peer.connection.end_stream(asked)
    peer.sent()
    ignored(peer, cancel(asked.id), ack(asked.id))
    peer.is_alive()


@BOTH
def test_stream_messages_before_the_answer_are_counted_and_dropped_str_6(agreed: bool) -> None:
    peer = Peer(agreed=agreed)
    call = peer.call()
    counted(peer, chunk(call.id, 1), end(call.id), stream_error(call.id))
    assert peer.send(response(call.id, result=1)) == [ev.Returned(call, 1)]
    peer.is_alive()


@BOTH
def test_nothing_is_heard_after_the_end_str_7(agreed: bool) -> None:
    for last in (end, stream_error):
        peer = Peer(agreed=agreed)
        call = peer.call(opened_=True)
        assert len(peer.send(chunk(call.id, 1), last(call.id))) == 2
        counted(peer, end(call.id), chunk(call.id, 2), stream_error(call.id), response(call.id, result=1))
        peer.is_alive()


@BOTH
def test_a_second_answer_is_counted_call_5(agreed: bool) -> None:
    peer = Peer(agreed=agreed)
    call = peer.call()
    assert len(peer.send(response(call.id, result=1))) == 1
    counted(peer, response(call.id, result=2), opened(call.id))
    stream = peer.call(opened_=True)
    counted(peer, response(stream.id, result=2), response(stream.id, error="no"), opened(stream.id))
    [received, stopped] = peer.send(chunk(stream.id, 1), end(stream.id))
    assert (type(received), type(stopped)) == (ev.Received, ev.Stopped)
    peer.is_alive()


# Credit ---------------------------------------------------------------------------------------


def refused(peer: Peer, events: list[ev.Event], error: type[Exception]) -> None:
    """The stream's consumer hears `error` last, and the producer is told to stop."""
    *before, last = events
    assert all(isinstance(event, ev.Received) for event in before)
    assert isinstance(last, ev.Failed)
    assert type(last.error) is error
    assert last.call.state is CallerState.CANCELLING
    assert [(message["type"], message["id"]) for message in peer.sent()] == [("stream-cancel", last.call.id)]
    # What crosses the cancel is dropped, uncounted; then the producer confirms.
    ignored(peer, chunk(last.call.id, 1), chunk(last.call.id, *range(500)))
    assert peer.send(end(last.call.id, cancelled=True)) == [ev.Stopped(last.call, None, True)]


def test_more_chunks_than_granted_crd_4() -> None:
    peer = Peer(agreed=True)
    other, call = peer.call(opened_=True), peer.call(opened_=True)
    events = peer.send(*[chunk(call.id, number) for number in range(65)])
    assert [event.values for event in events if isinstance(event, ev.Received)] == [[n] for n in range(64)]
    refused(peer, events, ProtocolError)
    assert peer.connection.violations == 1
    assert len(peer.send(chunk(other.id, 1), end(other.id))) == 2
    peer.is_alive()


def test_a_batch_larger_than_the_rest_of_the_credit_crd_4() -> None:
    peer = Peer(agreed=True)
    call = peer.call(opened_=True)
    refused(peer, peer.send(chunk(call.id, *range(60)), chunk(call.id, *range(5))), ProtocolError)
    assert peer.connection.violations == 1
    peer.is_alive()


def test_bytes_may_be_overdrawn_once_crd_3_crd_4() -> None:
    peer = Peer(agreed=True)
    call = peer.call(opened_=True)
    large = "x" * 300_000
    [received] = peer.send(chunk(call.id, large))
    assert isinstance(received, ev.Received)
    refused(peer, peer.send(chunk(call.id, "")), ProtocolError)
    peer.is_alive()


def test_the_size_of_a_chunk_is_its_line_crd_7() -> None:
    peer = Peer(agreed=True)
    call = peer.call(opened_=True)
    assert call.window is not None
    padded = chunk(call.id, 1)[:-1] + b"   \n"
    [received] = peer.send(padded)
    assert isinstance(received, ev.Received)
    assert received.size == len(padded) - 1
    assert call.window.bytes == 262_144 - received.size


def test_a_second_opening_renews_no_credit() -> None:
    peer = Peer(agreed=True)
    call = peer.call(opened_=True)
    assert len(peer.send(chunk(call.id, *range(64)))) == 1
    counted(peer, opened(call.id))
    refused(peer, peer.send(chunk(call.id, 1)), ProtocolError)


def test_a_stock_producer_is_bounded_by_a_buffer_str_12() -> None:
    peer = Peer(limits=Limits(stock_stream_buffer=1000))
    call = peer.call(opened_=True)
    one = chunk(call.id, "x" * 200)
    fitting = 1000 // (len(one) - 1)
    events = peer.send(*[one] * fitting)
    assert len(events) == fitting
    # What is read makes room.
    peer.connection.taken(call, 1, len(one) - 1)
    assert isinstance(peer.send(one)[0], ev.Received)
    [failed] = peer.send(one)
    assert isinstance(failed, ev.Failed)
    assert isinstance(failed.error, LimitExceeded)
    assert [message["type"] for message in peer.sent()] == ["stream-cancel"]
    assert peer.connection.violations == 0, "a peer that knows no credit has broken no rule"
    peer.is_alive()


def test_acknowledgements_that_grant_nothing_crd_6() -> None:
    peer = Peer(agreed=True)
    running = peer.asked("a")
    counted(peer, ack("a"))
    assert peer.send(cancel("a")) == [ev.Cancelled(running)]
    counted(peer, ack("a"))
    peer.connection.stopped(running)
    assert len(peer.sent()) == 1
    stream = peer.asked("b", opened_=True)
    assert stream.window is not None
    assert peer.send(ack("b", 0, 0), ack("b", 10**900, 10**900)) == [ev.Credited(stream)] * 2
    assert stream.room == 64 * 4 == 256
    peer.connection.end_stream(stream)
    peer.sent()
    peer.is_alive()


@pytest.mark.parametrize("opened_", [False, True])
def test_an_acknowledgement_is_ignored_where_credit_is_not_in_force_crd_6(opened_: bool) -> None:
    peer = Peer(agreed=True, features=["batch", "cancel"])
    call = peer.asked(opened_=opened_)
    assert call.window is None
    ignored(peer, ack(call.id))
    peer.connection.fail(call, ErrorValue("Error", "done"))
    peer.sent()
    peer.is_alive()


# Ids ------------------------------------------------------------------------------------------

ASKING: dict[str, Any] = {
    "request": request,
    "construct": lambda id: line(id=id, method="C", args=[], type="construct"),
    "get": lambda id: line(id=id, path=["a"], type="get"),
    "set": lambda id: line(id=id, path=["a"], value=1, type="set"),
    "malformed request": lambda id: line(id=id, args=[], type="request"),
    "malformed get": lambda id: line(id=id, type="get"),
    "hello": hello,
    "malformed hello": lambda id: request(id, "kkrpc.hello", []),
}


@BOTH
@pytest.mark.parametrize("what", ASKING)
@pytest.mark.parametrize("opened_", [False, True])
def test_a_question_under_a_live_id_gets_no_answer_msg_3(agreed: bool, what: str, opened_: bool) -> None:
    peer = Peer(agreed=agreed)
    call = peer.asked("q", opened_=opened_)
    counted(peer, ASKING[what]("q"))
    if opened_:
        peer.connection.end_stream(call)
    else:
        peer.connection.respond(call, 1)
    assert [message["id"] for message in peer.sent()] == ["q"]
    assert len(peer.send(request("q"))) == 1, "the id is free again"


def test_ids_are_compared_with_their_type_msg_2() -> None:
    peer = Peer()
    text, number = peer.asked("1"), peer.asked(1)
    peer.connection.respond(number, "number")
    peer.connection.respond(text, "text")
    assert [(m["id"], m["args"]["result"]) for m in peer.sent()] == [(1, "number"), ("1", "text")]
    call = peer.call()
    assert isinstance(call.id, str)
    counted(peer, response(int(call.id), result=1))
    assert len(peer.send(response(call.id, result=1))) == 1


def test_both_directions_may_use_one_id_msg_3() -> None:
    peer = Peer(agreed=True)
    call = peer.call(opened_=True)
    asked = peer.asked(call.id, opened_=True)
    assert peer.send(cancel(call.id)) == [ev.Cancelled(asked)]
    assert isinstance(peer.send(chunk(call.id, 1))[0], ev.Received)


@pytest.mark.parametrize("id", WRONG_IDS)
@pytest.mark.parametrize("what", ["request", "construct", "get", "set"])
def test_a_question_with_a_wrong_id_is_refused_without_one_msg_2(what: str, id: Any) -> None:
    peer = Peer()
    [event] = peer.send(ASKING[what](id))
    assert isinstance(event, ev.Violated)
    [answer] = peer.sent()
    assert "id" not in answer
    assert type(answer["args"]["error"]) is str
    peer.is_alive()


def test_an_id_that_is_no_utf_8_msg_2() -> None:
    peer = Peer(codec="cbor")
    for what in ("get", "request", "construct"):
        [event] = peer.send(ASKING[what]("\ud800"))
        assert isinstance(event, ev.Violated)
        assert ["id" in answer for answer in peer.sent()] == [False]
    peer.is_alive()


@pytest.mark.parametrize("id", WRONG_IDS)
def test_other_messages_with_a_wrong_id_are_counted_msg_2(id: Any) -> None:
    peer = Peer(agreed=True)
    call = peer.call(opened_=True)
    messages: list[Any] = [chunk, end, stream_error, opened, cancel, ack]
    counted(peer, *[make(id) for make in messages], response(id, result=1))
    assert len(peer.send(end(call.id))) == 1
    peer.is_alive()


# Malformed messages ---------------------------------------------------------------------------

MALFORMED_QUESTIONS: list[dict[str, Any]] = [
    {"type": "request"},
    {"type": "request", "method": 5},
    {"type": "request", "method": None, "args": []},
    {"type": "construct", "method": ["a"]},
    {"type": "get"},
    {"type": "get", "path": "a"},
    {"type": "get", "path": [1]},
    {"type": "set", "value": 1},
    {"type": "set", "path": {}},
]


@pytest.mark.parametrize("fields", MALFORMED_QUESTIONS, ids=json.dumps)
@pytest.mark.parametrize("id", [{"id": "q"}, {}], ids=["id", "no-id"])
def test_a_malformed_question_is_answered_msg_4(fields: dict[str, Any], id: dict[str, Any]) -> None:
    peer = Peer()
    [event] = peer.send(line(**id, **fields))
    assert isinstance(event, ev.Violated)
    assert peer.connection.violations == 1
    [answer] = peer.sent()
    assert answer["type"] == "response"
    assert answer.get("id") == id.get("id")
    assert type(answer["args"]["error"]) is str
    assert answer["args"]["error"]
    peer.is_alive()


LAST_WORDS: list[dict[str, Any]] = [
    {"type": "response"},
    {"type": "response", "args": []},
    {"type": "response", "args": "x"},
    {"type": "response", "args": {"result": 10**1001}},
    {"type": "stream-end", "args": {"result": 10**1001}},
    {"type": "stream-error", "args": {"error": {"name": "E", "code": 10**1001}}},
]


@BOTH
@pytest.mark.parametrize("opened_", [False, True])
@pytest.mark.parametrize("fields", LAST_WORDS, ids=lambda fields: json.dumps(fields)[:40])
def test_an_unreadable_answer_fails_the_call_and_frees_its_id_msg_4(
    fields: dict[str, Any], opened_: bool, agreed: bool
) -> None:
    peer = Peer(agreed=agreed)
    other, call = peer.call(), peer.call(opened_=opened_)
    [failed] = peer.send(line(id=call.id, **fields))
    assert isinstance(failed, ev.Failed)
    assert failed.call is call
    assert isinstance(failed.error, ProtocolError)
    assert peer.connection.violations == 1
    assert [(m["type"], m["id"]) for m in peer.sent()] == [("stream-cancel", call.id)]
    assert set(peer.connection.outgoing) == {other.id}
    assert peer.connection.cancel(call) is False
    assert peer.sent() == []
    assert len(peer.send(response(other.id, result=1))) == 1
    peer.is_alive()


@pytest.mark.parametrize("fields", LAST_WORDS, ids=lambda fields: json.dumps(fields)[:40])
def test_an_unreadable_answer_answers_a_cancel_too_can_4(fields: dict[str, Any]) -> None:
    peer = Peer(agreed=True)
    call = peer.call()
    assert peer.connection.cancel(call)
    assert len(peer.sent()) == 1
    assert peer.send(line(id=call.id, **fields)) == [ev.Stopped(call, None, True)]
    assert peer.connection.violations == 1
    assert peer.sent() == []
    peer.is_alive()


@BOTH
@pytest.mark.parametrize("values", [[], {}, 5, None], ids=shown)
def test_an_unreadable_chunk_fails_its_stream_after_what_came_msg_4(agreed: bool, values: Any) -> None:
    peer = Peer(agreed=agreed)
    call = peer.call(opened_=True)
    bad = line(id=call.id, type="stream-chunk", args={"values": values})
    [received, failed] = peer.send(chunk(call.id, 1), bad)
    assert isinstance(received, ev.Received)
    assert isinstance(failed, ev.Failed)
    assert isinstance(failed.error, ProtocolError)
    assert [m["type"] for m in peer.sent()] == ["stream-cancel"]
    counted(peer, bad)
    if agreed:
        assert peer.send(end(call.id, cancelled=True)) == [ev.Stopped(call, None, True)]
    peer.is_alive()


def test_malformed_for_nobody_is_counted_msg_4() -> None:
    peer = Peer(agreed=True)
    stream = peer.asked("q", opened_=True)
    counted(peer, *[line(id="nobody", **fields) for fields in LAST_WORDS])
    counted(peer, line(id="nobody", type="stream-chunk", args={"values": 1}))
    counted(peer, line(type="callback", args=[]), line(type="stream-cancel"), line(type="stream-ack"))
    for n, b in [(-1, 1), (1, -1), (1.5, 1), (True, 1), ("1", 1), (None, None)]:
        counted(peer, ack("q", n, b))
    counted(peer, line(id="q", type="stream-ack"), line(id="q", type="stream-ack", args=[]))
    assert stream.window is not None
    assert (stream.window.chunks, stream.window.bytes) == (64, 262_144)
    peer.connection.end_stream(stream)
    peer.sent()
    peer.is_alive()


def test_a_callback_nobody_passed_is_counted_call_11() -> None:
    peer = Peer()
    counted(peer, line(id="x", method="cb", args=[], type="callback"), line(method="", type="callback"))
    peer.is_alive()


# Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["x", "é", "\ud800"])
def test_a_refusal_that_would_be_too_long_is_cut_frm_6(letter: str) -> None:
    peer = Peer(limits=Limits(frame=2000))
    name = letter * 300 if letter != "x" else letter * 1900
    [event] = peer.send(line(id="q", method=name, args=[], type="construct"))
    assert isinstance(event, ev.ConstructRequested)
    peer.connection.fail(event.call, ErrorValue("Error", f"{name} is not a constructor function", bare=True))
    assert [type(message["args"]["error"]) for message in peer.sent()] == [str]
    peer.is_alive()


@BOTH
def test_one_call_too_many_is_refused_call_7(agreed: bool) -> None:
    peer = Peer(agreed=agreed, limits=Limits(calls=3))
    calls = [peer.asked(0), peer.asked(1, opened_=True)]
    [nameless] = peer.send(line(method="f", args=[], type="request"))
    assert isinstance(nameless, ev.CallRequested)
    for id in (3, 4):
        [event] = peer.send(request(id))
        assert isinstance(event, ev.Violated)
        [answer] = peer.sent()
        assert answer["id"] == id
        assert answer["args"]["error"]["name"] == "LimitExceeded"
    assert peer.connection.violations == 2
    # A call that is being stopped counts as running (CAN-3).
    assert peer.send(cancel(0)) == [ev.Cancelled(calls[0])]
    assert isinstance(peer.send(request(5))[0], ev.Violated)
    peer.sent()
    peer.connection.stopped(calls[0])
    assert isinstance(peer.send(request(6))[0], ev.CallRequested)
    peer.connection.respond(nameless.call, None)
    assert isinstance(peer.send(request(7))[0], ev.CallRequested)
    assert isinstance(peer.send(request(8))[0], ev.Violated)


@BOTH
@pytest.mark.parametrize("type", ["get", "set", "construct"])
def test_one_question_of_another_kind_too_many_is_counted_too_call_7(agreed: bool, type: str) -> None:
    peer = Peer(agreed=agreed, limits=Limits(calls=1))
    peer.asked(0)
    [event] = peer.send(line(id=1, method="C", args=[], path=["a"], value=1, type=type))
    assert isinstance(event, ev.Violated)
    [answer] = peer.sent()
    assert answer["args"]["error"]["name"] == "LimitExceeded"
    assert peer.connection.violations == 1


def test_a_request_without_id_is_answered_without_id_msg_5() -> None:
    peer = Peer()
    for _ in range(2):
        [event] = peer.send(line(method="f", args=[1], type="request"))
        assert isinstance(event, ev.CallRequested)
        assert event.call.id is None
        peer.connection.respond(event.call, 7)
    assert [("id" in m, m["args"]) for m in peer.sent()] == [(False, {"result": 7})] * 2
    [event] = peer.send(line(method="f", type="request"))
    assert isinstance(event, ev.CallRequested)
    peer.connection.fail(event.call, ErrorValue("E", "m"))
    assert [("id" in m, m["args"]["error"]["name"]) for m in peer.sent()] == [(False, "E")]
    peer.is_alive()


def test_answers_that_nobody_reads_end_the_connection_once_cls_5() -> None:
    peer = Peer(limits=Limits(send_max=1000))
    bad = line(id="q", type="get")
    events: list[ev.Event] = []
    sent = 0
    while not any(isinstance(event, ev.Lost) for event in events):
        events = peer.send(bad)
        sent += 1
        assert sent < 100
    *_, lost = events
    assert isinstance(lost, ev.Lost)
    assert isinstance(lost.error, LimitExceeded)
    assert peer.connection.outbox.control_size > 1000
    # Also where the same bytes break the framing: it is lost once.
    events = peer.send(bad, b'{"type":"get"}'.ljust(17 << 20))
    assert [type(event) for event in events] == [ev.Violated, ev.Lost]


def test_a_broken_frame_is_the_last_that_is_heard() -> None:
    peer = Peer()
    call = peer.call()
    [noticed] = peer.send(b"hello from a print\n")
    assert noticed == ev.Noticed(b"hello from a print", noticed.reason)  # type: ignore[union-attr]  # it fails if there is none
    assert peer.connection.noise == 1
    assert peer.connection.violations == 0
    [lost] = peer.send(b"\xd8\x18\x00", response(call.id, result=1))
    assert isinstance(lost, ev.Lost)
    assert isinstance(lost.error, ProtocolError)
    assert peer.send(response(call.id, result=1)) == []
    assert peer.connection.close() == [call]
    assert call.state is CallerState.DONE
    assert peer.connection.close() == []


# All of it at random --------------------------------------------------------------------------

ids = st.sampled_from(["2", "3", "4", 2, "q", "r", "h", 1.0, True, None, "nobody"])
junk = st.recursive(
    st.sampled_from([None, True, 0, -1, 3, 1.5, "", "x", "kkrpc.hello", 10**1001]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(
            st.sampled_from(
                [
                    "result",
                    "error",
                    "value",
                    "values",
                    "n",
                    "b",
                    "__stream",
                    "cancelled",
                    "protocol",
                    "features",
                ]
            ),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=4,
)
TYPES = [
    "request",
    "response",
    "callback",
    "get",
    "set",
    "construct",
    "stream-chunk",
    "stream-end",
    "stream-error",
    "stream-cancel",
    "stream-ack",
]
messages = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES)},
    optional={
        "id": ids,
        "method": st.one_of(st.sampled_from(["f", "kkrpc.hello"]), junk),
        "args": junk,
        "path": junk,
        "value": junk,
    },
)
well_formed = st.one_of(
    st.builds(opened, ids),
    st.builds(chunk, ids, junk),
    st.builds(end, ids),
    st.builds(cancel, ids),
    st.builds(request, ids),
    st.builds(hello, ids),
    st.builds(ack, ids),
)


@settings(max_examples=300, deadline=None)
@given(
    lines=st.lists(st.one_of(well_formed, messages.map(lambda fields: line(**fields))), max_size=25),
    agreed=st.booleans(),
    pieces=st.integers(1, 200),
)
def test_whatever_comes_is_answered_and_harms_nobody_else_msg_7(
    lines: list[bytes], agreed: bool, pieces: int
) -> None:
    peer = Peer(agreed=agreed)
    connection = peer.connection
    victim = connection.call("victim", [])
    for _ in range(3):
        connection.call("bait", [])
    served = peer.asked("victim's", opened_=False)
    peer.sent()
    data = b"".join(text for text in lines if b'"id": "%s"' % str(victim.id).encode() not in text)
    for at in range(0, len(data), pieces):
        for event in connection.receive_data(data[at : at + pieces]):
            assert not isinstance(event, ev.Lost)
            assert getattr(event, "call", None) not in (victim, served)
    for message in peer.sent():
        assert message.get("id") not in (victim.id, "victim's")
    assert peer.send(response(victim.id, result="fine")) == [ev.Returned(victim, "fine")]
    connection.respond(served, "fine")
    assert [message["id"] for message in peer.sent()] == ["victim's"]
