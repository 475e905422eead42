"""What lies in the inbox is found under its id, compared with its type, in the order of its arrival."""

from __future__ import annotations

from typing import Any

from kkrpc_py.conformance.inbox import Inbox
from kkrpc_py.conformance.wire import Message

IDS: list[Any] = [1, "1", 1.0, True, "true"]


def response(id: Any, value: Any) -> Message:
    args = {"result": value}
    return Message({"id": id, "method": "", "args": args, "type": "response"}, b"", "json")


def test_ids_are_compared_with_their_type() -> None:
    inbox = Inbox()
    for value, id in enumerate(IDS):
        inbox.add(response(id, value))
    for value, id in reversed(list(enumerate(IDS))):
        found = inbox.take(id=id, type="response")
        assert found is not None
        assert found[1].fields["args"] == {"result": value}
        assert inbox.take(id=id) is None
    assert not inbox


def test_credit_is_counted_under_the_id_with_its_type() -> None:
    inbox = Inbox()
    inbox.consumed(1).grant(1, 0)
    before = inbox.consumed("new").chunks
    assert [inbox.consumed(id).chunks - before for id in IDS] == [1, 0, 0, 0, 0]
