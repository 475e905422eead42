"""The classic dialect: what is read, what is malformed, what is noise, and the order of keys."""

# A line on the wire is a line here.
# ruff: noqa: E501 - a row of a table is one line

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import UNSET

from kkrpc_py.errors import ErrorValue, NotSerializable
from kkrpc_py.limits import Limits
from kkrpc_py.wire.classic import Parser, build
from kkrpc_py.wire.messages import (
    Callback,
    Chunks,
    Construct,
    Failure,
    Get,
    Malformed,
    Message,
    Request,
    Result,
    Set,
    StreamAck,
    StreamCancel,
    StreamEnd,
    StreamFailure,
    StreamOpened,
)


def parse(mapping: dict[Any, Any], limits: Limits | None = None) -> Message | None:
    return Parser(limits or Limits()).parse(mapping)


def keep(value: Any, root: str) -> Any:
    return value


BAD_ID = "the id must be a string or an integer within Limits.id_bytes"
NO_ID = "the id is missing or not a string or an integer within Limits.id_bytes"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id":"a","method":"m","args":[1],"type":"request"}', Request("a", "m", [1])),
        ('{"id":5,"method":"m","args":[],"type":"request"}', Request(5, "m", [])),
        ('{"method":"m","args":[1],"type":"request"}', Request(None, "m", [1])),
        ('{"id":"a","method":"","args":[],"type":"request"}', Request("a", "", [])),
        ('{"id":"a","method":"m","type":"request","version":"xml","more":1}', Request("a", "m", [])),
        ('{"id":"a","method":"m","args":{"a":1},"type":"request"}', Request("a", "m", [])),
        ('{"id":"a","method":"m","args":null,"type":"request"}', Request("a", "m", [])),
        (
            '{"id":"a","method":"m","args":["__callback__c"],"type":"request","callbackIds":["c"]}',
            Request("a", "m", ["__callback__c"], ("c",)),
        ),
        ('{"id":"a","method":"m","type":"request","callbackIds":[1]}', Request("a", "m", [])),
        ('{"id":"a","method":"m","type":"request","callbackIds":"c"}', Request("a", "m", [])),
        ('{"id":"a","method":"m","type":"request","callbackIds":null}', Request("a", "m", [])),
        ('{"id":"a","args":[1],"type":"request"}', "Invalid request: method must be a string"),
        ('{"id":"a","method":5,"type":"request"}', "Invalid request: method must be a string"),
        ('{"id":"a","method":"G","args":["x"],"type":"construct"}', Construct("a", "G", ["x"])),
        ('{"id":"a","type":"construct"}', "Invalid construct: method must be a string"),
        ('{"id":"a","method":"c","args":[1],"type":"callback"}', Callback("a", "c", [1])),
        ('{"method":"c","args":{},"type":"callback"}', Callback(None, "c", [])),
        ('{"id":"a","type":"callback"}', "Invalid callback: method must be a string"),
        ('{"id":"a","type":"get","path":["a","b"]}', Get("a", ("a", "b"))),
        ('{"id":"a","type":"get","path":[]}', Get("a", ())),
        ('{"type":"get","path":["a"]}', Get(None, ("a",))),
        ('{"id":"a","type":"get"}', "Invalid get request: missing path"),
        ('{"id":"a","type":"get","path":null}', "Invalid get request: missing path"),
        ('{"id":"a","type":"get","path":"ab"}', "Invalid get request: path must be a list of strings"),
        ('{"id":"a","type":"get","path":["a",0]}', "Invalid get request: path must be a list of strings"),
        ('{"id":"a","type":"set","path":["a"],"value":5}', Set("a", ("a",), 5)),
        ('{"id":"a","type":"set","path":["a"]}', Set("a", ("a",), None)),
        ('{"id":"a","type":"set"}', "Invalid set request: missing path"),
        ('{"id":"a","args":{"result":1},"type":"response"}', Result("a", 1)),
        ('{"id":"a","args":{"result":null},"type":"response"}', Result("a", None)),
        ('{"id":"a","args":{},"type":"response"}', Result("a", UNSET)),
        ('{"args":{"result":1},"type":"response"}', Result(None, 1)),
        ('{"id":"a","type":"response"}', "Invalid response: args must be a mapping"),
        ('{"id":"a","args":[],"type":"response"}', "Invalid response: args must be a mapping"),
        ('{"id":"a","args":{"error":"plain"},"type":"response"}', Failure("a", ErrorValue("Error", "plain", bare=True))),
        ('{"id":"a","args":{"error":""},"type":"response"}', Result("a", UNSET)),
        ('{"id":"a","args":{"error":0},"type":"response"}', Result("a", UNSET)),
        ('{"id":"a","args":{"error":-0.0},"type":"response"}', Result("a", UNSET)),
        ('{"id":"a","args":{"error":false,"result":2},"type":"response"}', Result("a", 2)),
        ('{"id":"a","args":{"error":null},"type":"response"}', Result("a", UNSET)),
        ('{"id":"a","args":{"error":5},"type":"response"}', Failure("a", ErrorValue("Error", "5"))),
        ('{"id":"a","args":{"error":[]},"type":"response"}', Failure("a", ErrorValue("Error", "[]"))),
        ('{"id":"a","args":{"error":{}},"type":"response"}', Failure("a", ErrorValue("Error", ""))),
        (
            '{"id":"a","args":{"error":{"name":"E","message":"m"},"result":1},"type":"response"}',
            Failure("a", ErrorValue("E", "m")),
        ),
        (
            '{"id":"a","args":{"error":{"name":5,"message":6,"stack":7,"cause":null,"code":8}},"type":"response"}',
            Failure("a", ErrorValue("Error", "", None, None, {"code": 8})),
        ),
        (
            '{"id":"a","args":{"error":{"name":"E","message":"m","stack":"s","cause":{"a":1},"d":[1]}},"type":"response"}',
            Failure("a", ErrorValue("E", "m", "s", {"a": 1}, {"d": [1]})),
        ),
        ('{"id":"a","args":{"result":{"__stream":true}},"type":"response"}', StreamOpened("a")),
        ('{"id":"a","args":{"result":{"__stream":true,"x":1}},"type":"response"}', StreamOpened("a")),
        ('{"id":"a","args":{"result":{"__stream":1}},"type":"response"}', Result("a", {"__stream": 1})),
        ('{"args":{"result":{"__stream":true}},"type":"response"}', NO_ID),
        ('{"id":"a","args":{"value":1},"type":"stream-chunk"}', Chunks("a", [1])),
        ('{"id":"a","args":{},"type":"stream-chunk"}', Chunks("a", [None])),
        ('{"id":"a","type":"stream-chunk"}', Chunks("a", [None])),
        ('{"id":"a","args":{"values":[1,2]},"type":"stream-chunk"}', Chunks("a", [1, 2])),
        ('{"id":"a","args":{"values":[1],"value":2},"type":"stream-chunk"}', Chunks("a", [2])),
        ('{"id":"a","args":{"values":[]},"type":"stream-chunk"}', "Invalid stream-chunk: values must be a list of one or more"),
        ('{"id":"a","args":{"values":1},"type":"stream-chunk"}', "Invalid stream-chunk: values must be a list of one or more"),
        ('{"type":"stream-chunk"}', NO_ID),
        ('{"id":"a","args":{},"type":"stream-end"}', StreamEnd("a")),
        ('{"id":"a","type":"stream-end"}', StreamEnd("a")),
        ('{"id":"a","args":{"result":null},"type":"stream-end"}', StreamEnd("a", None)),
        ('{"id":"a","args":{"cancelled":true},"type":"stream-end"}', StreamEnd("a", UNSET, True)),
        ('{"id":"a","args":{"cancelled":1},"type":"stream-end"}', StreamEnd("a")),
        ('{"type":"stream-end"}', NO_ID),
        ('{"id":"a","args":{"error":{"name":"E","message":"m"}},"type":"stream-error"}', StreamFailure("a", ErrorValue("E", "m"))),
        ('{"id":"a","args":{"error":"s"},"type":"stream-error"}', StreamFailure("a", ErrorValue("Error", "s", bare=True))),
        ('{"id":"a","args":{},"type":"stream-error"}', StreamFailure("a", ErrorValue("Error", "Stream error", bare=True))),
        ('{"id":"a","type":"stream-error"}', StreamFailure("a", ErrorValue("Error", "Stream error", bare=True))),
        ('{"type":"stream-error"}', NO_ID),
        ('{"id":"a","args":{},"type":"stream-cancel"}', StreamCancel("a")),
        ('{"id":7,"type":"stream-cancel"}', StreamCancel(7)),
        ('{"type":"stream-cancel"}', NO_ID),
        ('{"id":"a","args":{"n":3,"b":0},"type":"stream-ack"}', StreamAck("a", 3, 0)),
        ('{"id":"a","args":[3,4],"type":"stream-ack"}', "Invalid stream-ack: args must be a mapping"),
        *[
            (f'{{"id":"a","args":{{"n":{n},"b":{b}}},"type":"stream-ack"}}', "Invalid stream-ack: n and b must be integers, zero or more")
            for n, b in [("-1", "0"), ("1", "-1"), ("1.0", "1"), ("true", "1"), ("1", "null"), ('"1"', "1")]
        ],
        ('{"args":{"n":1,"b":1},"type":"stream-ack"}', NO_ID),
        ('{"id":"a","type":"bogus"}', None),
        ('{"id":"a"}', None),
        ('{"id":"a","type":null}', None),
        ('{"id":"a","type":["request"]}', None),
        ('{"json":{"id":"a","type":"request"}}', None),
    ],
)  # fmt: skip
def test_what_a_line_is_read_as(line: str, message: Message | str | None) -> None:
    mapping = json.loads(line)
    wanted = message
    if isinstance(message, str):
        id = None if message == NO_ID else mapping.get("id")
        wanted = Malformed(id, mapping["type"], message)
    assert parse(mapping) == wanted


KINDS = [
    "request", "construct", "callback", "get", "set", "response", "stream-chunk", "stream-end", "stream-error",
    "stream-cancel", "stream-ack",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("id", [None, True, 1.0, [], {}, "x" * 257, "\u20ac" * 86, 10**256, -(10**256)])
def test_a_wrong_id_makes_a_message_malformed(kind: str, id: Any) -> None:
    mapping = {"id": id, "method": "m", "args": {"n": 1, "b": 1}, "path": ["a"], "type": kind}
    message = parse(mapping)
    assert isinstance(message, Malformed)
    assert (message.id, message.type) == (None, kind)
    assert message.reason in (BAD_ID, NO_ID)


@pytest.mark.parametrize("id", ["", "x" * 256, "\u20ac" * 85, 0, -1, 10**256 - 1])
def test_an_id_keeps_its_type_and_value(id: str | int) -> None:
    message = parse({"id": id, "type": "stream-cancel"})
    assert isinstance(message, StreamCancel)
    assert message.id == id
    assert type(message.id) is type(id)


def test_one_and_true_are_two_ids() -> None:
    assert parse({"id": 1, "type": "stream-cancel"}) == StreamCancel(1)
    assert isinstance(parse({"id": True, "type": "stream-cancel"}), Malformed)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (Request("a", "m", [1]), '{"id":"a","method":"m","args":[1],"type":"request","version":"json"}'),
        (Request(None, "m", []), '{"method":"m","args":[],"type":"request","version":"json"}'),
        (Request("a", "m", [], ("c",)), '{"id":"a","method":"m","args":[],"type":"request","callbackIds":["c"],"version":"json"}'),
        (Construct(1, "G", []), '{"id":1,"method":"G","args":[],"type":"construct","version":"json"}'),
        (Callback("a", "c", [1]), '{"id":"a","method":"c","args":[1],"type":"callback","version":"json"}'),
        (Get("a", ("x", "y")), '{"id":"a","method":"","args":{},"type":"get","path":["x","y"],"version":"json"}'),
        (Set("a", ("x",), None), '{"id":"a","method":"","args":{},"type":"set","path":["x"],"value":null,"version":"json"}'),
        (Result("a", None), '{"id":"a","method":"","args":{"result":null},"type":"response","version":"json"}'),
        (Result("a"), '{"id":"a","method":"","args":{},"type":"response","version":"json"}'),
        (Result(None, 1), '{"method":"","args":{"result":1},"type":"response","version":"json"}'),
        (Failure("a", ErrorValue("E", "m")), '{"id":"a","method":"","args":{"error":{"name":"E","message":"m"}},"type":"response","version":"json"}'),
        (Failure("a", ErrorValue("E", "m", bare=True)), '{"id":"a","method":"","args":{"error":"m"},"type":"response","version":"json"}'),
        # An empty string would count as success.
        (Failure("a", ErrorValue("E", "", bare=True)), '{"id":"a","method":"","args":{"error":{"name":"E","message":""}},"type":"response","version":"json"}'),
        (
            Failure("a", ErrorValue("E", "m", "s", None, {"code": 1, "message": "taken"})),
            '{"id":"a","method":"","args":{"error":{"name":"E","message":"m","stack":"s","cause":null,"code":1}},"type":"response","version":"json"}',
        ),
        (StreamOpened("a"), '{"id":"a","method":"","args":{"result":{"__stream":true}},"type":"response","version":"json"}'),
        (Chunks("a", [5]), '{"id":"a","method":"","args":{"value":5},"type":"stream-chunk","version":"json"}'),
        (Chunks("a", [5, 6]), '{"id":"a","method":"","args":{"values":[5,6]},"type":"stream-chunk","version":"json"}'),
        (StreamEnd("a"), '{"id":"a","method":"","args":{},"type":"stream-end","version":"json"}'),
        (StreamEnd("a", None), '{"id":"a","method":"","args":{"result":null},"type":"stream-end","version":"json"}'),
        (StreamEnd("a", UNSET, True), '{"id":"a","method":"","args":{"cancelled":true},"type":"stream-end","version":"json"}'),
        (StreamFailure("a", ErrorValue("E", "m")), '{"id":"a","method":"","args":{"error":{"name":"E","message":"m"}},"type":"stream-error","version":"json"}'),
        (StreamCancel("a"), '{"id":"a","method":"","args":{},"type":"stream-cancel","version":"json"}'),
        (StreamAck("a", 3, 4), '{"id":"a","method":"","args":{"n":3,"b":4},"type":"stream-ack","version":"json"}'),
    ],
)  # fmt: skip
def test_what_a_message_is_written_as_and_read_back(message: Message, line: str) -> None:
    mapping = build(message, keep)
    assert json.dumps(mapping, separators=(",", ":")) == line
    if not (isinstance(message, Failure) and (message.error.fields or not message.error.message)):
        back = parse(json.loads(line))
        if isinstance(message, Failure) and message.error.bare:
            assert back == Failure("a", ErrorValue("Error", "m", bare=True))
        else:
            assert back == message


def test_a_value_that_would_be_read_as_a_stream_is_no_result() -> None:
    with pytest.raises(NotSerializable):
        build(Result("a", {"__stream": True}), keep)
    assert build(Chunks("a", [{"__stream": True}]), keep)["args"] == {"value": {"__stream": True}}


def test_what_of_an_error_cannot_be_sent_is_left_out() -> None:
    def fit(value: Any, root: str) -> Any:
        if value is Ellipsis or value == "bad key":
            raise NotSerializable("ellipsis", root)
        return value

    error = ErrorValue("E", "m", None, Ellipsis, {"good": 1, "bad": Ellipsis, "bad key": 2})
    assert build(Failure("a", error), fit)["args"] == {"error": {"name": "E", "message": "m", "good": 1}}
    with pytest.raises(NotSerializable) as caught:
        build(Failure("a", error), fit, drop=False)
    assert caught.value.path == "error['cause']"


def test_malformed_is_what_the_peer_does() -> None:
    with pytest.raises(TypeError):
        build(Malformed("a", "request", "x"), keep)


def test_keys_that_are_no_text_are_none_of_ours() -> None:
    assert parse({1: 2, None: 3, "id": "a", "type": "stream-cancel"}) == StreamCancel("a")
    error = {"name": "E", "message": "m", 5: 6}
    assert parse({"id": "a", "type": "response", "args": {"error": error}}) == Failure(
        "a", ErrorValue("E", "m")
    )
