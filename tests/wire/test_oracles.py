"""What is written for speed, against a clear form of the same."""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kkrpc_py.limits import Limits
from kkrpc_py.wire.cbor_codec import CborReader, CborWriter
from kkrpc_py.wire.cbor_errors import CborError
from kkrpc_py.wire.classic import Fields, Parser
from kkrpc_py.wire.codec import Decoder
from kkrpc_py.wire.json_codec import JsonError, JsonReader
from kkrpc_py.wire.messages import Noise
from kkrpc_py.wire.values import Check, Rules, plain_bytes

LIMITS = Limits(frame=4000, noise=50, depth=6, digits=60, id_bytes=12)

# --- a message is read the same, decoded into `Fields` or into a mapping ---------------------

KEYS = ("id", "method", "args", "type", "callbackIds", "path", "value", "version")
TYPES = (
    "request construct callback get set response "
    "stream-chunk stream-end stream-error stream-cancel stream-ack"
).split()
ARGS = (
    "[] [1] {} null 5 [[[[[[[1]]]]]]] "
    '{"result":1} {"result":null} {"result":{"__stream":true}} {"result":{"__stream":1}} {"error":"e"} '
    '{"error":""} {"error":{"name":"N","message":"m","code":1}} {"value":1} {"values":[1,2]} {"values":[]} '
    '{"value":1,"values":[2]} {"cancelled":true} {"n":1,"b":2} {"n":true,"b":2} {"n":-1,"b":2} '
    '{"result":{"type":"Uint8Array","data":[1]}} {"result":"Uint8Array"} {"result":"\\ud800"}'
).split()
VALUES = (
    'null true 0 1 1.0 -5 "" "a" "1" "json" "m.n" ["a"] ["a",1] [] {} "\\ud800" "\\u00e9" "é" 1e999 NaN 01 '
    '"unclosed {"type":"request"} "xxxxxxxxxxxxx" -888888888888 "\ud800" '
).split()
VALUES.append("7" * 70)


def spelled(key: str) -> st.SearchStrategy[str]:
    """The key in JSON, once in a while with an escape that means the same."""
    return st.sampled_from([f'"{key}"'] * 9 + [f'"\\u{ord(key[0]):04x}{key[1:]}"'])


values = st.sampled_from(VALUES)
usual = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES).map('"{}"'.format)},
    optional={
        "id": st.sampled_from(['"1"', "7", '"long, for an id"', "null", "1.5"]),
        "method": st.sampled_from(['""', '"m"', "5"]),
        "args": st.sampled_from(ARGS),
        "path": st.sampled_from(['["a"]', "[]", "[1]"]),
        "callbackIds": st.sampled_from(['["c"]', "[1]", "null"]),
        "version": st.just('"json"'),
    },
).map(lambda fields: list(fields.items()))
odd = st.lists(
    st.tuples(st.sampled_from([*KEYS, "more", "Type"]), values | st.sampled_from(ARGS)), max_size=3
)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    pairs = draw(usual) + draw(st.just([]) | odd)
    if draw(st.booleans()):
        pairs = draw(st.permutations(pairs))
    blank = draw(st.sampled_from(["", "", "", " "]))
    members = [f"{draw(spelled(key))}{blank}:{value}" for key, value in pairs]
    text = ("{" + ("," + blank).join(members) + "}").encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(text) - 1))
        text = text[:at] + draw(st.binary(max_size=2)) + text[at + 1 :]
    return text


def verdict(reader: JsonReader, text: bytes) -> str:
    """The message with the types of all that is in it, or what is wrong with the text."""
    try:
        found = reader.loads(text)
    except JsonError as error:
        return f"{type(error).__name__}: {error}"
    return repr(Parser(LIMITS).parse(found))


@settings(max_examples=1500, deadline=None)
@given(texts())
@example(b'{"type":"request","type":"response","id":"1","args":{}}')
@example(b'{"type":"stream-cancel","id":"1","more":1e999}')
@example(b'{"type":"stream-cancel","id":"1","more":"\xff"}')
@example(b'{"type":"Uint8Array","data":[1]}')
def test_fields_are_read_as_the_mapping_is(text: bytes) -> None:
    assert verdict(JsonReader(LIMITS, Fields), text) == verdict(JsonReader(LIMITS), text)


@pytest.mark.parametrize("kind", TYPES)
def test_what_a_peer_of_ours_writes_needs_no_mapping(kind: str) -> None:
    text = b'{"id":"1","method":"","args":{},"type":"%b","path":[],"version":"json"}' % kind.encode()
    assert type(JsonReader(LIMITS, Fields).loads(text)) is Fields


def test_a_message_that_is_itself_in_the_form_of_bytes_is_noise() -> None:
    line = b'{"type":"Uint8Array","data":[1]}\n'
    [(item, size)] = Decoder(LIMITS).receive(line)
    assert isinstance(item, Noise)
    assert size == len(line) - 1


# --- a value is accepted level by level as it is one by one ----------------------------------


class Text(str):
    pass


class Number(int):
    pass


class Float(float):
    pass


class Name(enum.StrEnum):
    A = "a"


class Level(enum.IntEnum):
    LOW = 1


IMPOSTORS = [
    Text("a"),
    Number(1),
    Float(1.5),
    Name.A,
    Level.LOW,
    OrderedDict(a=1),
    Decimal(1),
    1j,
    range(2),
    ...,
]
leaves = (
    st.sampled_from(
        [None, True, 0, 1, -7, 100, -100, 101, -101, 1.5, math.inf, math.nan, 1e308, "", "a", "b"]
    )
    | st.sampled_from([b"x", bytearray(b"x"), memoryview(b"x")])
    | st.builds(lambda: memoryview(b"xy").cast("H"))
)
hashable = st.sampled_from(
    ["a", "b", "c", 1, None, 2.5, b"k", ("t", 1), frozenset((1,)), Text("a"), Name.A, 101]
)
trees = st.recursive(
    leaves | leaves | leaves | st.sampled_from(IMPOSTORS),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.sets(hashable, max_size=3)
        | st.lists(st.fixed_dictionaries({"id": leaves, "name": leaves}), max_size=3)
    ),
    max_leaves=12,
)


def make_rules(*, text_keys: bool, late_ints: bool, depth: int) -> Rules:
    leaves: dict[type, Check | None] = dict.fromkeys((type(None), bool, int, float, str))
    if not text_keys:
        leaves |= {bytes: None, bytearray: None, memoryview: plain_bytes}
    return Rules(
        leaves=leaves,
        containers=(dict, list, tuple) if text_keys else (dict, list, tuple, set, frozenset),
        keys="text" if text_keys else "value",
        max_int=100,
        late_ints=late_ints,
        depth=depth,
        items=1000,
        finite=text_keys,
    )


def plainly_accepts(rules: Rules, value: Any, room: int, *, late_ints: bool) -> bool:
    kind = type(value)
    if kind not in rules.known:
        return False
    if kind is int:
        return late_ints or -100 <= value <= 100
    if kind is float:
        return math.isfinite(value) or not rules.finite
    if kind is memoryview:
        return plain_bytes(value) is None
    if kind not in rules.containers:
        return True
    inner = list(value.values()) if kind is dict else list(value)
    if kind is dict and rules.keys == "text":
        if any(type(key) is not str for key in value):
            return False
    elif kind is dict:
        inner.extend(value)
    return room > 0 and all(plainly_accepts(rules, item, room - 1, late_ints=late_ints) for item in inner)


@settings(max_examples=1500, deadline=None)
@given(trees, st.booleans(), st.booleans(), st.integers(1, 4))
@example([{"a": 1}, {Name.A: 1}], True, True, 4)
@example([1.5, math.nan], True, True, 4)
@example([1e308, 1e308, 1e308], True, True, 4)
@example({"a": {Text("a"): 1}}, True, True, 4)
@example({"a": 1}, True, True, 0)
def test_the_levels_of_a_value_are_accepted_as_its_parts_are(
    value: Any, text_keys: bool, late_ints: bool, depth: int
) -> None:
    rules = make_rules(text_keys=text_keys, late_ints=late_ints, depth=depth)
    assert (rules.accepts(value) is not None) == plainly_accepts(rules, value, depth, late_ints=late_ints)


# --- a CBOR reader has no memory -------------------------------------------------------------


def outcome(reader: CborReader, payload: bytes) -> str:
    try:
        return repr(reader.loads(payload))
    except CborError as error:
        return f"{type(error).__name__}: {error}"


def written(value: Any) -> bytes:
    return CborWriter(Limits()).dumps(value)


PAYLOADS = [
    *map(written, [{"a": [1, "x" * 100, b"y"]}, {"k": {"n": 2.5}}, [], Decimal("1.5"), {1, 2}, {1: 2}]),
    written(["z"] * 3000),
    b"",
    b"\x82\x01",  # one of two
    b"\x01\x02",  # one too many
    b"\xd8\x1c\x81\x01",  # shared
    b"\xd8\x1d\x00",  # a reference to it
    b"\xd9\x01\x00\x82\x63abc\xd8\x19\x00",  # the same for text
    b"\x81\xf7",
    b"\xff",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PAYLOADS) | st.binary(max_size=30), min_size=2, max_size=6))
def test_what_was_read_before_does_not_matter(payloads: list[bytes]) -> None:
    reader = CborReader(LIMITS)
    for payload in payloads:
        assert outcome(reader, payload) == outcome(CborReader(LIMITS), payload)
