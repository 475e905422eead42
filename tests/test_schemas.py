"""The schemas of messages in spec/schemas: they hold what a writer sends, and refuse what is malformed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from kkrpc_py.errors import ActionError, ErrorValue, NotSerializable
from kkrpc_py.limits import Limits
from kkrpc_py.wire import messages as m
from kkrpc_py.wire.codec import Decoder, Encoder
from kkrpc_py.wire.messages import Broken, Malformed, Noise

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "spec" / "schemas"
RECORDINGS = ROOT / "tests" / "recordings"
SPEC = (ROOT / "spec" / "protocol.md").read_text(encoding="utf-8")
SCHEMAS = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.json")}
REGISTRY: Registry[Any] = Registry().with_resources(
    (name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)
SHARED = {"action.schema.json", "common.schema.json", "hub.schema.json", "message.schema.json"}
MESSAGE = Draft202012Validator({"$ref": "message.schema.json"}, registry=REGISTRY)


def problems(message: Any) -> list[str]:
    """What is wrong with a message by the schema of its type; by the index where it has none."""
    kind = message.get("type")
    own = f"{kind}.schema.json"
    found = [error.message for error in MESSAGE.iter_errors(message)]
    if own in SCHEMAS:  # it says more than "is not valid under any of the given schemas"
        validator = Draft202012Validator({"$ref": own}, registry=REGISTRY)
        of_own = [error.message for error in validator.iter_errors(message)]
        assert bool(of_own) == bool(found), "the index and the schema of the type differ"
        return of_own
    return found


# The files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_it_is_a_schema(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])


def test_there_is_a_schema_for_each_type_of_message_and_the_index_names_them() -> None:
    rule = SPEC[SPEC.index("**MSG-1.**") : SPEC.index("**MSG-2.**")]
    types = set(re.findall(r"`([a-z]+(?:-[a-z]+)?)`", rule)) - {"type"}
    named = {entry["$ref"] for entry in SCHEMAS["message.schema.json"]["oneOf"]}
    assert named == {f"{kind}.schema.json" for kind in types} == set(SCHEMAS) - SHARED
    for name in named:
        assert SCHEMAS[name]["properties"]["type"] == {"const": name.removesuffix(".schema.json")}


# What real peers write ---------------------------------------------------------------------------


def unwrapped(line: str) -> Any:
    """The message in a line of superjson, as it would be in the serialization `json` (SUP-2)."""
    message = json.loads(line)["json"]
    assert message.pop("version") == "superjson"
    message.pop("transferSlots", None)
    if not message.get("callbackIds"):
        message.pop("callbackIds", None)
    return message | {"version": "json"}


def recorded(folder: str) -> Iterator[str]:
    for path in sorted((RECORDINGS / folder).glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)["line"]


def test_what_stock_kkrpc_writes_is_valid() -> None:
    lines = list(recorded("classic-json"))
    assert len(lines) > 300
    assert [(line, found) for line in lines if (found := problems(json.loads(line)))] == []


def test_what_stock_kkrpc_writes_in_superjson_is_valid_once_it_is_unwrapped() -> None:
    lines = list(recorded("classic-superjson"))
    assert len(lines) > 300
    for line in lines:
        assert problems(unwrapped(line)) == [], line


def test_what_stock_kkrpc_answered_to_odd_inputs_is_valid() -> None:
    answers = [
        json.loads(line)
        for row in (RECORDINGS / "quirks07.jsonl").read_text(encoding="utf-8").splitlines()
        if json.loads(row)["probe"].startswith("server")
        for line in json.loads(row)["out"]
        if isinstance(line, str) and line.startswith('{"id"')
    ]
    assert len(answers) > 20
    assert [(answer, found) for answer in answers if (found := problems(answer))] == []


EXAMPLES = re.findall(r"^[<>] (\{.*\})$", SPEC, re.MULTILINE)


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_of_the_specification_is_valid(line: str) -> None:
    assert problems(unwrapped(line) if line.startswith('{"json":') else json.loads(line)) == []


# What this library writes ------------------------------------------------------------------------

NAMED: dict[str, Any] = {"callback_ids": ("1",), "stream_ids": ("__stream__2",)}
PASSED = ["__callback__1", "__stream__2"]
ERROR = ErrorValue("ValueError", "no", "a stack", {"name": "KeyError", "message": "k"}, {"code": 42})
MESSAGES: list[m.Message] = [
    m.Request("1", "math.add", [1, 2]),
    m.Request(None, "math.add", []),
    m.Request(7, "f", PASSED, **NAMED, kwargs={"a": 1}, meta={"traceparent": "00"}),
    m.Construct("1", "Point", PASSED, **NAMED, kwargs={"x": 1}, meta={"requestId": "r"}),
    m.Get("1", ("settings", "theme")),
    m.Set("1", ("settings", "theme"), "dark"),
    m.Set("1", ("settings", "hook"), PASSED, **NAMED),
    m.Callback("1", "1", [0.5]),
    m.Callback(None, "1", PASSED, **NAMED, kwargs={"a": None}),
    m.CallbackRelease({"1": 1, "2": 30}),
    m.Result("1"),
    m.Result(None, None),
    m.Result("1", PASSED, **NAMED),
    m.Failure("1", ERROR),
    m.Failure(None, ErrorValue("Error", "Method f is not a function", bare=True)),
    m.Failure("1", ErrorValue("Error", "", bare=True)),
    m.Failure("1", ErrorValue("E", "m", fields={"__notes__": ["a note"]})),
    m.StreamOpened("1"),
    m.Chunks("1", [None]),
    m.Chunks("1", [PASSED], **NAMED),
    m.Chunks("1", list(range(256))),
    m.StreamEnd("1"),
    m.StreamEnd("1", 3),
    m.StreamEnd("1", PASSED, **NAMED),
    m.StreamEnd("1", cancelled=True),
    m.StreamFailure("1", ERROR),
    m.StreamCancel("1"),
    m.StreamAck("1", 0, 262_144),
]


def test_the_list_has_each_kind_of_message() -> None:
    assert {type(message) for message in MESSAGES} == set(m.Message.__args__) - {Malformed}


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("stock", [True, False])
def test_what_this_library_writes_is_valid(message: m.Message, stock: bool) -> None:
    encoder = Encoder("json", Limits())
    encoder.stock = stock
    assert problems(json.loads(encoder.encode(message))) == []


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_cbor_frame_holds_the_same_map(message: m.Message) -> None:
    frame = Encoder("cbor", Limits()).encode(message)
    # The content of tag 24 is bytes, and they are the message (FRM-3).
    content = cbor2.loads(frame)
    payload = content if isinstance(content, bytes) else content.value
    held = cbor2.loads(payload)
    assert problems(json.loads(json.dumps(held))) == []


LEAVES = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text() | st.binary()
KEYS = st.text() | st.sampled_from(["type", "data", "__stream", "name"])
LEAVES |= st.sampled_from(["Uint8Array", True, [1, 300]])
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=8)


@given(VALUES, st.sampled_from([m.Request, m.Result, m.Chunks, m.StreamEnd, m.Set, m.Failure]))
def test_whatever_value_is_sent_the_message_is_valid(value: Any, kind: Any) -> None:
    message: m.Message
    if kind is m.Request:
        message = m.Request("1", "f", [value], kwargs={"a": value})
    elif kind is m.Chunks:
        message = m.Chunks("1", [value])
    elif kind is m.Set:
        message = m.Set("1", ("a",), value)
    elif kind is m.Failure:
        message = m.Failure("1", ErrorValue("E", "m", cause=value))
    else:
        message = kind("1", value)
    try:
        line = Encoder("json", Limits()).encode(message)
    except NotSerializable:
        return
    assert problems(json.loads(line)) == []


# What no writer may send -------------------------------------------------------------------------

MALFORMED = [
    '{"id":"1","args":[],"type":"request","version":"json"}',
    '{"id":"1","method":5,"args":[],"type":"request","version":"json"}',
    '{"id":"1","method":null,"args":[],"type":"construct","version":"json"}',
    '{"id":"1","method":"f","args":[],"type":"request","kwargs":[1],"version":"json"}',
    '{"id":true,"method":"f","args":[],"type":"request","version":"json"}',
    '{"id":1.5,"method":"f","args":[],"type":"request","version":"json"}',
    '{"id":null,"method":"f","args":[],"type":"request","version":"json"}',
    '{"id":{},"method":"f","args":[],"type":"request","version":"json"}',
    f'{{"id":"{"x" * 257}","method":"f","args":[],"type":"request","version":"json"}}',
    '{"id":"1","method":7,"args":[],"type":"callback","version":"json"}',
    '{"id":"1","method":"1","args":[],"type":"callback","kwargs":"a","version":"json"}',
    '{"id":"1","method":"","args":{},"type":"get","version":"json"}',
    '{"id":"1","method":"","args":{},"type":"get","path":"a.b","version":"json"}',
    '{"id":"1","method":"","args":{},"type":"get","path":["a",1],"version":"json"}',
    '{"id":"1","method":"","args":{},"type":"set","value":1,"version":"json"}',
    '{"id":"1","method":"","args":{},"type":"set","path":{"a":1},"value":1,"version":"json"}',
    '{"id":"1","method":"","type":"response","version":"json"}',
    '{"id":"1","method":"","args":[1],"type":"response","version":"json"}',
    '{"method":"","args":{"result":{"__stream":true}},"type":"response","version":"json"}',
    '{"method":"","args":[],"type":"callback-release","version":"json"}',
    '{"method":"","args":{"1":0},"type":"callback-release","version":"json"}',
    '{"method":"","args":{"1":"1"},"type":"callback-release","version":"json"}',
    '{"method":"","args":{"1":1.5},"type":"callback-release","version":"json"}',
    '{"id":"1","method":"","args":{"values":[]},"type":"stream-chunk","version":"json"}',
    '{"id":"1","method":"","args":{"values":{"a":1}},"type":"stream-chunk","version":"json"}',
    '{"method":"","args":{"value":1},"type":"stream-chunk","version":"json"}',
    '{"method":"","args":{},"type":"stream-end","version":"json"}',
    '{"method":"","args":{"error":"e"},"type":"stream-error","version":"json"}',
    '{"method":"","args":{},"type":"stream-cancel","version":"json"}',
    '{"id":"1","method":"","args":[],"type":"stream-ack","version":"json"}',
    '{"id":"1","method":"","args":{"n":1},"type":"stream-ack","version":"json"}',
    '{"id":"1","method":"","args":{"n":-1,"b":0},"type":"stream-ack","version":"json"}',
    '{"id":"1","method":"","args":{"n":"1","b":0},"type":"stream-ack","version":"json"}',
    '{"id":"1","method":"","args":{"n":1,"b":0.5},"type":"stream-ack","version":"json"}',
    '{"method":"","args":{"n":1,"b":1},"type":"stream-ack","version":"json"}',
]


def read(line: str) -> m.Message | Noise | Broken:
    ((message, _),) = Decoder(Limits()).receive(line.encode() + b"\n")
    return message


@pytest.mark.parametrize("line", MALFORMED)
def test_what_is_malformed_is_refused_by_the_schema_as_by_the_reader(line: str) -> None:
    assert isinstance(read(line), Malformed)
    assert problems(json.loads(line)) != []


LENIENT = [
    '{"id":"1","method":"f","type":"request","version":"json"}',
    '{"id":"1","method":"f","args":{},"type":"request","version":"json"}',
    '{"id":"1","method":"f","args":[],"type":"request","callbackIds":7,"version":"json"}',
    '{"id":"1","method":"f","args":[],"type":"request","streamIds":[],"version":"json"}',
    '{"id":"1","method":"f","args":[],"type":"request","meta":[],"version":"json"}',
    '{"id":"1","method":"f","args":[],"type":"request","kwargs":null,"version":"json"}',
    '{"id":"1","method":"f","args":[],"type":"request"}',
    '{"id":"1","method":"f","args":[],"type":"request","other":1,"version":"json"}',
    '{"id":"1","method":"f","args":[{"type":"Uint8Array","data":[256]}],"type":"request","version":"json"}',
    '{"id":"1","method":"f","args":[[{"type":"Uint8Array","data":["a"]}]],"type":"request","version":"json"}',
    '{"id":"1","method":"f","args":[{"type":"Uint8Array","data":[],"x":1}],"type":"request","version":"json"}',
    '{"id":"1","method":"","args":{},"type":"set","path":["a"],"version":"json"}',
    '{"id":"1","method":"","type":"stream-chunk","version":"json"}',
    '{"id":"1","method":"","args":{"value":1,"values":[2]},"type":"stream-chunk","version":"json"}',
    '{"id":"1","method":"","args":{"values":[1]},"type":"stream-chunk","version":"json"}',
    '{"id":"1","method":"","type":"stream-end","version":"json"}',
    '{"id":"1","method":"","args":{"error":""},"type":"stream-error","version":"json"}',
    '{"id":"1","method":"","args":{"error":{"name":7}},"type":"response","version":"json"}',
    '{"id":"1","method":"","args":{"error":"e"},"type":"response","callbackIds":["1"],"version":"json"}',
    '{"id":"1","method":"","args":{},"type":"stream-end","streamIds":["__stream__1"],"version":"json"}',
    '{"id":"1","method":"","args":{"cancelled":true},"type":"stream-end","callbackIds":["1"],"version":"json"}',
    '{"id":"1","method":"","args":{"error":0,"result":1},"type":"response","version":"json"}',
    '{"id":"1","method":"","args":{"result":{"__stream":true,"x":1}},"type":"response","version":"json"}',
]


@pytest.mark.parametrize("line", LENIENT)
def test_a_reader_takes_more_than_a_writer_may_send(line: str) -> None:
    assert not isinstance(read(line), Malformed | Noise | Broken)
    assert problems(json.loads(line)) != []


@pytest.mark.parametrize("line", ['{"id":"1","type":"bogus"}', '{"id":"1"}', "{}"])
def test_what_is_no_message_has_no_schema(line: str) -> None:
    assert isinstance(read(line), Noise)
    assert problems(json.loads(line)) != []


# What the methods of a hub take and give ---------------------------------------------------------

HUB_METHODS = {
    "subscribe": "subscribe",
    "mutate": "mutate",
    "emit": "emit",
    "upload.stream": "uploadStream",
    "upload.write": "uploadWrite",
    "upload.close": "uploadClose",
    "upload.error": "uploadError",
}


def fits(kind: str, value: Any, file: str = "hub") -> bool:
    valid: bool = Draft202012Validator(
        {"$ref": f"{file}.schema.json#/$defs/{kind}"}, registry=REGISTRY
    ).is_valid(value)
    return valid


def hub_examples(number: int) -> list[dict[str, Any]]:
    start = SPEC.index(f"\n## {number}. ")
    section = SPEC[start : SPEC.index("\n## ", start + 1)]
    return [json.loads(line) for line in re.findall(r"^[<>] (\{.*\})$", section, re.MULTILINE)]


def test_the_examples_of_a_hub_are_valid() -> None:
    asked = [message for number in range(20, 24) for message in hub_examples(number) if message["method"]]
    for message in asked:
        assert fits(HUB_METHODS[message["method"].removeprefix("streams.")], message["args"]), message
    assert {message["method"] for message in asked} > {"streams.subscribe", "streams.mutate", "streams.emit"}


@pytest.mark.parametrize(("number", "kind"), [(20, "chunk"), (23, "stateChunk")])
def test_a_subscription_is_a_mark_and_then_chunks(number: int, kind: str) -> None:
    came = [each["args"] for each in hub_examples(number) if each["type"] == "stream-chunk"]
    values = [value for args in came for value in args.get("values", [args.get("value")])]
    assert fits("mark", values[0])
    assert len(values) > 2
    assert all(fits(kind, value) for value in values[1:])


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("subscribe", ["chat"]),
        ("subscribe", ["chat", 7]),
        ("options", {"after": -1}),
        ("options", {"after": "3"}),
        ("options", {"epoch": 3}),
        ("options", {"highWaterMark": 0}),
        ("options", {"overflow": "drop"}),
        ("mark", {"next": 0, "epoch": "e"}),
        ("mark", {"next": 1}),
        ("chunk", [0, "x"]),
        ("chunk", [1]),
        ("chunk", [1, "x", "y"]),
        ("chunk", {"next": 1, "epoch": "e"}),
        ("stateChunk", [1, {}]),
        ("stateChunk", [1, {"value": 1, "patch": []}]),
        ("stateChunk", [1, {"patch": {"op": "add"}}]),
        ("state", {"type": "Uint8Array", "data": [1]}),
        ("patch", [{"op": "add", "path": "/a"}]),
        ("patch", [{"op": "move", "path": "/a"}]),
        ("patch", [{"op": "remove", "path": "a"}]),
        ("patch", [{"op": "remove", "path": "/~2"}]),
        ("mutate", ["todo", 0, []]),
        ("uploadStream", ["files", "x", "stream"]),
        ("uploadWrite", ["x", 0, 1]),
        ("uploadError", ["x", 5]),
        ("emit", [7]),
        ("failure", "gone"),
        ("failure", {"name": "UnknownStream", "message": "gone"}),
        ("failure", {"name": "StreamClosed", "message": "gone", "code": "DF0030"}),
    ],
)
def test_what_no_hub_or_client_may_send(kind: str, value: Any) -> None:
    assert not fits(kind, value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("options", None),
        ("options", {"after": None, "epoch": None, "highWaterMark": 1, "overflow": "latest"}),
        ("state", {"type": "Uint8Array", "data": "x", "n": -(2**53) + 1, "f": 1e300, "l": [None, True]}),
        ("patch", [{"op": "copy", "from": "", "path": "/a~1b/-"}, {"op": "test", "path": "", "value": None}]),
        ("failure", {"name": "StateConflict", "message": "", "version": 9}),
        ("failure", {"name": "StreamOverflow", "message": "too slow", "code": "DF0029"}),
        ("uploadError", ["x", "no more"]),
        ("emit", ["moved"]),
    ],
)
def test_what_a_hub_or_client_may_send(kind: str, value: Any) -> None:
    assert fits(kind, value)


# What stream actions send ------------------------------------------------------------------------


def test_the_examples_of_actions_are_valid() -> None:
    messages = hub_examples(26)
    asked = [message["args"] for message in messages if message["method"]]
    failed = [message["args"]["error"] for message in messages if "error" in message["args"]]
    assert len(asked) == len(failed) == 2
    assert all(fits("call", args, "action") for args in asked)
    assert all(fits("failure", error, "action") for error in failed)


def test_the_events_of_the_example_are_valid() -> None:
    start = SPEC.index("\n## 27. ")
    section = SPEC[start : SPEC.index("**SSE-1.**")]
    events = re.findall(r"^(?:event: (\w+)\n)?data: (\{.*\})\n$", section, re.MULTILINE)
    assert [kind for kind, _ in events] == ["", "", "done"]
    assert all(fits(kind or "chunk", json.loads(data), "action") for kind, data in events)


ACTION_ERRORS = [
    ActionError("RATE_LIMITED", "Too many requests", 429),
    ActionError("NO_MESSAGE"),
    ActionError.unexpected(),
    ActionError(
        "VALIDATION_ERROR", "Input validation failed", 422, field_errors={"a.0.b": ["x"], "_root": ["y"]}
    ),
]


@pytest.mark.parametrize("error", ACTION_ERRORS, ids=lambda error: error.code)
def test_an_action_error_of_this_library_is_valid_and_comes_back(error: ActionError) -> None:
    """ACT-4, on both ways."""
    data = json.loads(json.dumps(error.to_data()))
    assert fits("error", data, "action")
    assert fits("failure", {"name": "ActionError", "message": error.message, **error.fields()}, "action")
    assert ActionError.from_data(data).to_data() == data


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("call", [{}, {}]),
        ("error", {"message": "m", "statusCode": 400}),
        ("error", {"code": "", "message": "m", "statusCode": 400}),
        ("error", {"code": "A", "statusCode": 400}),
        ("error", {"code": "A", "message": "m", "statusCode": 200}),
        ("error", {"code": "A", "message": "m", "statusCode": "400"}),
        ("error", {"code": "A", "message": "m", "statusCode": 400, "fieldErrors": {}}),
        ("error", {"code": "A", "message": "m", "statusCode": 400, "fieldErrors": {"a": "x"}}),
        ("error", {"code": "A", "message": "m", "statusCode": 400, "stack": "at …"}),
        ("failure", {"code": "A", "message": "m", "statusCode": 400}),
        ("failure", {"name": "Error", "code": "A", "message": "m", "statusCode": 400}),
        ("failure", {"name": "ActionError", "code": "A", "message": "m", "statusCode": 400, "cause": {}}),
        ("done", {"result": 1}),
        ("done", None),
        ("eventId", "short:1"),
        ("eventId", "AAAAAAAAAAAAAAAAAAAAAA:0"),
        ("eventId", "AAAAAAAAAAAAAAAAAAAAAA"),
    ],
)
def test_what_no_action_may_send(kind: str, value: Any) -> None:
    assert not fits(kind, value, "action")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("call", []),
        ("call", [7]),
        ("done", {}),
        ("eventId", "Zk2_-AAAAAAAAAAAAAAAAA:17"),
    ],
)
def test_what_an_action_or_its_caller_may_send(kind: str, value: Any) -> None:
    assert fits(kind, value, "action")
