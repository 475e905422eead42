"""Every row of the tables, reached by real bytes and the public calls, does what the row says.

The tests are made from the tables, and the connection's tables record what is looked up: a row that
cannot be reached fails its test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kkrpc_py.core import callee as callee_module
from kkrpc_py.core import caller as caller_module
from kkrpc_py.core import events as ev
from kkrpc_py.core.calls import IncomingCall, OutgoingCall
from kkrpc_py.core.tables import CALLEE, CALLER, CalleeEvent, CalleeState, CallerEvent, CallerState, Do
from kkrpc_py.errors import ErrorValue, ProtocolError
from tests.core.peers import (
    Peer,
    ack,
    cancel,
    chunk,
    end,
    hello_answer,
    line,
    opened,
    request,
    response,
    stream_error,
)

BOOM = ErrorValue("Error", "boom", bare=True)
FROM_PEER: dict[CallerEvent, Callable[[Any], bytes]] = {
    CallerEvent.RESULT: lambda id: response(id, result=1),
    CallerEvent.FAILURE: lambda id: response(id, error="boom"),
    CallerEvent.OPENED: opened,
    CallerEvent.CHUNKS: lambda id: chunk(id, 1, 2),
    CallerEvent.END: lambda id: end(id, result=3),
    CallerEvent.STREAM_FAILURE: stream_error,
    CallerEvent.UNREADABLE: lambda id: line(id=id, type="response", args=7),
}
DELIVERED: dict[CallerEvent, Callable[[OutgoingCall], ev.Event]] = {
    CallerEvent.RESULT: lambda call: ev.Returned(call, 1),
    CallerEvent.FAILURE: lambda call: ev.Failed(call, BOOM),
    CallerEvent.OPENED: ev.Opened,
    CallerEvent.CHUNKS: lambda call: ev.Received(call, [1, 2], len(chunk(call.id, 1, 2)) - 1),
    CallerEvent.END: lambda call: ev.Stopped(call, 3, False),
    CallerEvent.STREAM_FAILURE: lambda call: ev.Failed(call, BOOM),
}
TO_CALLEE: dict[CalleeEvent, Callable[[Any], bytes]] = {
    CalleeEvent.CANCEL: cancel,
    CalleeEvent.ACK: ack,
    CalleeEvent.REQUEST: request,
}


class Recorder(dict[Any, Any]):
    """A table that remembers which of its rows were taken."""

    def __init__(self, table: dict[Any, Any]) -> None:
        super().__init__(table)
        self.taken: list[Any] = []

    def __getitem__(self, key: Any) -> Any:
        self.taken.append(key)
        return super().__getitem__(key)


@pytest.fixture(scope="module")
def tables() -> Iterator[tuple[Recorder, Recorder]]:
    """Both tables, recording. There is a test for each row, which asserts that it took that row alone."""
    caller, callee = Recorder(CALLER), Recorder(CALLEE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caller_module, "CALLER", caller)
        patch.setattr(callee_module, "CALLEE", callee)
        yield caller, callee


def _caller_in(state: CallerState, event: CallerEvent) -> tuple[Peer, OutgoingCall]:
    """A call of ours in `state`, with a peer about which as much is known as `event` needs."""
    agreed = state is CallerState.CANCELLING or event is CallerEvent.CANCEL
    pending = event is CallerEvent.CANCEL_AGREED
    peer = Peer(agreed=agreed, pending=pending)
    call = peer.call(opened_=state is CallerState.OPEN)
    if state in (CallerState.CANCELLING, CallerState.GIVEN_UP):
        assert peer.connection.cancel(call) is agreed
        assert [message["type"] for message in peer.sent()] == (["stream-cancel"] if agreed else [])
    assert call.state is state
    return peer, call


@pytest.mark.parametrize(("state", "event"), CALLER, ids=lambda key: key.name)
def test_a_row_of_the_caller(
    tables: tuple[Recorder, Recorder], state: CallerState, event: CallerEvent
) -> None:
    peer, call = _caller_in(state, event)
    connection = peer.connection
    following, do = CALLER[state, event]
    tables[0].taken.clear()
    happened: list[ev.Event] = []
    if event in FROM_PEER:
        happened = peer.send(FROM_PEER[event](call.id))
    elif event is CallerEvent.CANCEL_AGREED:
        assert peer.send(hello_answer(peer.hello_id)) == [ev.Settled()]
    else:
        connection.cancel(call)
    assert tables[0].taken == [(state, event)]

    assert call.state is following
    assert (call.id in connection.outgoing) is (following is not CallerState.DONE)
    broken = do is Do.VIOLATION or event is CallerEvent.UNREADABLE
    assert connection.violations == broken
    messages = [(message["type"], message["id"]) for message in peer.sent()]
    assert messages == ([("stream-cancel", call.id)] if do is Do.SEND else [])
    match do:
        case Do.DELIVER:
            assert happened == [DELIVERED[event](call)]
        case Do.CONFIRM:
            assert happened == [ev.Stopped(call, None, True)]
        case Do.VIOLATION:
            assert [type(event) for event in happened] == [ev.Violated]
        case Do.SEND if event is CallerEvent.OPENED:
            assert happened == [ev.Stopped(call, None, True)]
        case Do.SEND if event is CallerEvent.UNREADABLE:
            [failed] = happened
            assert isinstance(failed, ev.Failed)
            assert failed.call is call
            assert isinstance(failed.error, ProtocolError)
        case _:
            assert happened == []


def _callee_in(state: CalleeState) -> tuple[Peer, IncomingCall]:
    peer = Peer(agreed=True)
    call = peer.asked(opened_=state in (CalleeState.STREAMING, CalleeState.STOPPING_STREAM))
    if state in (CalleeState.STOPPING_CALL, CalleeState.STOPPING_STREAM):
        assert peer.send(cancel(call.id)) == [ev.Cancelled(call)]
    assert call.state is state
    return peer, call


WRITTEN: dict[CalleeEvent, dict[str, Any]] = {
    CalleeEvent.RETURN: {"result": 5},
    CalleeEvent.RAISE: {"error": "boom"},
    CalleeEvent.OPEN: {"result": {"__stream": True}},
    CalleeEvent.YIELD: {"values": [1, 2]},
    CalleeEvent.FINISH: {"result": 6},
}


@pytest.mark.parametrize(("state", "event"), CALLEE, ids=lambda key: key.name)
def test_a_row_of_the_callee(
    tables: tuple[Recorder, Recorder], state: CalleeState, event: CalleeEvent
) -> None:
    peer, call = _callee_in(state)
    connection = peer.connection
    following, do = CALLEE[state, event]
    tables[1].taken.clear()
    happened: list[ev.Event] = []
    match event:
        case CalleeEvent.RETURN:
            connection.respond(call, 5)
        case CalleeEvent.RAISE:
            connection.fail(call, BOOM)
        case CalleeEvent.OPEN:
            connection.open_stream(call)
        case CalleeEvent.YIELD:
            values = [1, 2]
            connection.send_chunks(call, values)
            assert values == []
        case CalleeEvent.FINISH:
            connection.end_stream(call, 6)
        case CalleeEvent.STOPPED:
            connection.stopped(call)
        case _:
            happened = peer.send(TO_CALLEE[event](call.id))
    assert tables[1].taken == [(state, event)]

    assert call.state is following
    assert (call.id in connection.incoming) is (following is not CalleeState.DONE)
    assert connection.violations == (do is Do.VIOLATION)
    written = [message["args"] for message in peer.sent()]
    match do:
        case Do.SEND if event is CalleeEvent.STOPPED:
            expected = {"error": {"name": "CallCancelled", "message": "the call was cancelled"}}
            assert written == [expected if state is CalleeState.STOPPING_CALL else {"cancelled": True}]
        case Do.SEND:
            assert written == [WRITTEN[event]]
        case _:
            assert written == []
    match do:
        case Do.INTERRUPT:
            assert happened == [ev.Cancelled(call)]
        case Do.GRANT:
            assert happened == [ev.Credited(call)]
        case Do.VIOLATION:
            assert [type(event) for event in happened] == [ev.Violated]
        case _:
            assert happened == []


@pytest.mark.parametrize("state", [state for state in CallerState if state is not CallerState.DONE])
def test_whatever_the_peer_sends_has_a_row_in_every_state_of_the_caller(state: CallerState) -> None:
    assert {event for at, event in CALLER if at is state} >= set(FROM_PEER)


@pytest.mark.parametrize("state", [state for state in CalleeState if state is not CalleeState.DONE])
def test_whatever_the_peer_sends_has_a_row_in_every_state_of_the_callee(state: CalleeState) -> None:
    assert {event for at, event in CALLEE if at is state} >= set(TO_CALLEE)


def test_a_call_that_is_done_has_no_rows() -> None:
    assert CallerState.DONE not in {state for state, _ in CALLER}
    assert CalleeState.DONE not in {state for state, _ in CALLEE}


def test_a_violation_changes_no_state() -> None:
    for table in (CALLER, CALLEE):
        assert all(state is following for (state, _), (following, do) in table.items() if do is Do.VIOLATION)
