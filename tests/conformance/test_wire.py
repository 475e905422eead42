"""What the testee writes, as the kit reads it: whole, byte by byte, and what is no message."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kkrpc_py.conformance import wire
from kkrpc_py.conformance.cbor import BadCbor, Words, words_of
from kkrpc_py.conformance.cbor import loads as cbor_loads
from kkrpc_py.conformance.wire import Broken, Item, Message, Noise, Splitter, cbor_frame, padded
from kkrpc_py.conformance.words import to_words
from tests.naming import shown

LINE = b'{"id":"a","method":"","args":{"result":1},"type":"response","version":"json"}'
CBOR = cbor2.dumps({"id": "b", "method": "", "args": {"value": b"\n\xd8\x18"}, "type": "stream-chunk"})
STREAM = b"".join(
    [
        b"\nnoise \xff\n",
        b"\xd8 is noise, too\n",
        LINE + b"\r\n",
        b" \t" + LINE + b"\n\n",
        b"\xef\xbb\xbf" + LINE + b"\n",
        b'{"type":"unknown"}\n{"type":"get"\n[]\n',
        cbor_frame(CBOR),
        cbor_frame(CBOR),
        LINE + b"\n",
        LINE.replace(b'"a"', '"\u2028\x85"'.encode()) + b"\n",
        LINE[:20],
    ]
)
KINDS = [Noise, Noise, Message, Message, Message, Noise, Noise, Noise, Message, Message, Message, Message]


def read(*parts: bytes) -> tuple[list[Item], bytes]:
    splitter = Splitter()
    return [item for part in parts for item in splitter.feed(part)], splitter.rest()


def one(data: bytes) -> Any:
    (item,), rest = read(data)
    assert rest == b""
    return item


def test_a_stream_is_divided_into_frames() -> None:
    items, rest = read(STREAM)
    assert [type(item) for item in items] == KINDS
    assert rest == LINE[:20]
    messages = [item for item in items if isinstance(item, Message)]
    assert [message.fields["id"] for message in messages] == ["a", "a", "a", "b", "b", "a", "\u2028\x85"]
    assert [message.serialization for message in messages] == ["json"] * 3 + ["cbor"] * 2 + ["json"] * 2
    assert messages[0].data == LINE + b"\r"
    assert messages[3].data == cbor_frame(CBOR)
    assert messages[3].size == len(CBOR)
    assert messages[3].fields["args"] == {"value": Words({"bytes": "0ad818"})}
    assert messages[0].keys == ["id", "method", "args", "type", "version"]


def test_it_is_the_same_byte_by_byte() -> None:
    assert read(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == read(STREAM)


@settings(deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_it_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    parts = [STREAM[start:end] for start, end in itertools.pairwise(places)]
    assert read(*parts) == read(STREAM)


@pytest.mark.parametrize("size", [0, 23, 24, 255, 256, 65535, 65536])
def test_the_head_of_a_cbor_frame(size: int) -> None:
    text = "x" * size
    payload = cbor2.dumps({"type": "get", "pad": text})
    # By the library: a tag around a byte string.
    assert cbor_frame(payload) == cbor2.dumps(cbor2.CBORTag(24, payload))
    message = one(cbor_frame(payload))
    assert message.fields["pad"] == text
    assert message.size == len(payload)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xd8\x18\x5f\x40\xff", "no definite byte string"),
        (b"\xd8\x18\x01", "no definite byte string"),
        (b"\xd8\x18\x60", "no definite byte string"),
        (b"\xd8\x18\x5b\x00\x00\x01" + bytes(5), "a CBOR frame of 1099511627776 bytes"),
        (cbor_frame(b"\xa1\x64type\x81\x00"), "no message"),
        (cbor_frame(b"\xc2\x5a\x00\x01\x00\x00" + bytes(65536)), "an integer of 65536 bytes"),
        (cbor_frame(b""), "ends within"),
        (cbor_frame(b"\xa1\x61a"), "ends within"),
        (cbor_frame(CBOR + b"\0"), "1 bytes after"),
        (cbor_frame(b"\x9f\xff"), "not definite"),
        (cbor_frame(b"\x01"), "no message"),
        (cbor_frame(cbor2.dumps({"type": "nope"})), "no message"),
        (cbor_frame(b"\x81" * 100_000), "too deep"),
        (cbor_frame(b"\x5b" + b"\xff" * 8), "ends within"),
        (cbor_frame(b"\x9b" + b"\xff" * 8), "ends within"),
    ],
)
def test_a_frame_that_nobody_may_write_ends_the_reading(data: bytes, reason: str) -> None:
    items, _ = read(LINE + b"\n" + data + LINE + b"\n")
    assert [type(item) for item in items] == [Message, Broken]
    assert isinstance(items[1], Broken)
    assert reason in items[1].fault


def test_a_line_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "FRAME_BYTES", 5000)
    splitter = Splitter()
    items = [item for _ in range(100) for item in splitter.feed(b"x" * 999)]
    assert items == [Broken(b"x" * 1024, "a line of more than 5000 bytes")]
    assert splitter.rest() == b""
    assert list(splitter.feed(LINE)) == []


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"{}",
        b'{"type":1}',
        b'{"type":"get","args":NaN}',
        b'{"type":"get","x":\xff}',
        b'{"json":{"type":"nope"}}',
        b'{"json":{"type":"get"},"meta":1}',
        b'{"json":{"type":"get"},"meta":{"values":{"args.0":["Date"]}}}',
        b'{"json":{"type":"get","args":[1]},"meta":{"values":{"args.0":["Date"]}}}',
        b'{"json":{"type":"get","args":["x"]},"meta":{"values":{"args.0":["nope"]}}}',
        b'{"json":{"type":"get","args":["x"]},"meta":{"values":{"args.1":["URL"]}}}',
        b'{"json":{"type":"get","args":["x"]},"meta":{"values":{"args.0.y":["URL"]}}}',
        b'{"json":{"type":"get","args":["x"]},"meta":{"values":{"args.0":[]}}}',
        b'{"json":{"type":"get","args":["1"]},"meta":{"values":{"args.0":["bigint",5]}}}',
        b'{"json":{"type":"get","args":["1"]},"meta":{"values":{"args.0":["map"]}}}',
        b'{"json":{"type":"get","args":[1]},"meta":{"values":{"args.0":["set"]}}}',
        b'{"json":{"type":"get","args":[[1]]},"meta":{"values":{"args.0":["map"]}}}',
        b'{"json":{"type":"get","args":[1]},"meta":{"values":{"args.0":["Error"]}}}',
        b'{"json":{"type":"get","args":[2000000000]},"meta":{"values":{"args.0":[["typed-array","Uint8Array"]]}}}',
        b'{"json":{"type":"get","args":[[1e400]]},"meta":{"values":{"args.0":[["typed-array","Int8Array"]]}}}',
        b'{"json":{"type":"get","args":[[1]]},"meta":{"values":{"args.0":[[]]}}}',
        b'{"json":{"type":"get","args":[{}]},"meta":{"values":{"args.0":["undefined",{"a":["undefined"]}]}}}',
        b'{"type":"get","args":' + b"[" * 100_000,
        b'{"type":"get","args":' + b"9" * 100_001 + b"}",
    ],
    ids=lambda line: line[:110].decode("latin-1"),
)
def test_a_line_that_nobody_may_write(line: bytes) -> None:
    noise = one(line + b"\n")
    assert isinstance(noise, Noise)
    assert noise.data == line
    assert noise.fault.startswith("a line that begins with {")
    assert len(noise.fault) < 300


def test_noise_after_a_cbor_frame_is_a_fault() -> None:
    items, _ = read(b"noise\n" + cbor_frame(CBOR) + b" \r\n" + LINE + b"\nnoise\n")
    assert [type(item) for item in items] == [Noise, Message, Message, Noise]
    assert items[0] == Noise(b"noise")
    assert items[3] == Noise(b"noise", "noise after a CBOR frame (FRM-5)")


@pytest.mark.parametrize(
    "rest", [b"{", b" \t{", b"\xef\xbb\xbf{", b"\n{", b"\xd8\x18", cbor_frame(CBOR)[:-1]], ids=shown
)
def test_half_a_frame(rest: bytes) -> None:
    splitter = Splitter()
    assert not splitter.has_half()
    assert list(splitter.feed(rest)) == []
    assert splitter.has_half()


@pytest.mark.parametrize("rest", [b"", b"noise {", b"\xd8", b" ", cbor_frame(CBOR), LINE + b"\n"], ids=shown)
def test_no_half_of_a_frame(rest: bytes) -> None:
    splitter = Splitter()
    list(splitter.feed(rest))
    assert not splitter.has_half()


def test_json_keeps_what_it_says() -> None:
    message = one(
        b'{"type":"get","a":"\\ud800","b":' + b"9" * 9000 + b',"c":1.0,"d":-0.0,"e":1e400,"f":-7}\n'
    )
    assert message.fields["a"] == "\ud800"
    assert message.fields["b"] == 10**9000 - 1
    assert [type(message.fields[key]) for key in "cde"] == [float] * 3
    assert math.copysign(1, message.fields["d"]) == -1
    assert message.fields["f"] == -7


def test_bytes_of_json_are_words_but_for_the_line() -> None:
    form = {"type": "Uint8Array", "data": [0, 255]}
    others = [
        {**form, "more": 1},
        {"type": "Uint8Array", "data": [256]},
        {"type": "Uint8Array", "data": [True]},
    ]
    fields = {"type": "response", "args": {"result": [form, {"a": form}, *others]}}
    message = one(json.dumps(fields).encode() + b"\n")
    bytes_ = Words({"bytes": "00ff"})
    assert message.fields["args"]["result"] == [bytes_, {"a": bytes_}, *others]
    assert message.line == fields
    escaped = json.dumps(fields).replace("Uint8A", "\\u0055int8A")
    assert one(escaped.encode() + b"\n").fields == message.fields


# superjson ------------------------------------------------------------------------------------------


def superjson(args: Any, values: Any, **meta: Any) -> Any:
    line = {
        "json": {"id": 1, "type": "response", "args": args},
        "meta": {"values": values, **({"v": 1} | meta)},
    }
    return one(json.dumps(line).encode() + b"\n")


@pytest.mark.parametrize(
    ("value", "annotation", "words"),
    [
        (None, ["undefined"], {"undefined": True}),
        ("-12", ["bigint"], {"int": "-12"}),
        ("NaN", ["number"], {"float": "7ff8000000000000"}),
        ("-0", ["number"], {"float": "8000000000000000"}),
        ("-Infinity", ["number"], {"float": "fff0000000000000"}),
        ("2026-01-31T12:00:00.500Z", ["Date"], {"datetime": "2026-01-31T12:00:00.5+00:00"}),
        ("2026-01-31T12:00:00.000Z", ["Date"], {"datetime": "2026-01-31T12:00:00+00:00"}),
        ("/a/g", ["regexp"], {"regexp": "/a/g"}),
        ("https://x/", ["URL"], {"url": "https://x/"}),
        ([1, "a"], ["set"], {"set": [{"int": "1"}, {"text": "a"}]}),
        ([["k", "1"]], ["map", {"0.1": ["bigint"]}], {"map": [[{"text": "k"}, {"int": "1"}]]}),
        (
            [["k", {"a.b": "x:"}]],
            ["map", {"0.1.a\\.b": ["URL"]}],
            {"map": [[{"text": "k"}, {"map": [[{"text": "a.b"}, {"url": "x:"}]]}]]},
        ),
        ({"name": "E", "message": "m"}, ["Error"], {"error": {"name": "E", "message": "m"}}),
        ([0, 255], [["typed-array", "Uint8Array"]], {"bytes": "00ff"}),
        (
            [-1],
            [["typed-array", "Int16Array"]],
            {"array": {"type": "i16", "shape": [1], "items": [{"int": "-1"}]}},
        ),
        (
            [1],
            [["typed-array", "Float32Array"]],
            {"array": {"type": "f32", "shape": [1], "items": [{"float": "3ff0000000000000"}]}},
        ),
    ],
    ids=str,
)
def test_a_value_of_superjson(value: Any, annotation: Any, words: dict[str, Any]) -> None:
    message = superjson({"value": {"at.it": [value]}}, {"args.value.at\\.it.0": annotation})
    assert message.serialization == "superjson"
    assert words_of(message.fields["args"]["value"]["at.it"][0]) == words


def test_what_superjson_spells_out_is_left_out() -> None:
    line = {
        "json": {
            "id": 1,
            "type": "response",
            "args": {"result": None},
            "callbackIds": [],
            "transferSlots": None,
        },
        "meta": {"values": {"args.result": ["undefined"], "transferSlots": ["undefined"]}, "v": 1},
    }
    message = one(json.dumps(line).encode() + b"\n")
    assert message.fields == {"id": 1, "type": "response", "args": {}}
    assert message.keys == ["id", "type", "args", "callbackIds", "transferSlots"]
    assert message.line == line


def test_paths_of_an_older_superjson() -> None:
    message = superjson({"a\\b": "1"}, {"args.a\\b": ["bigint"]}, v=0)
    assert message.fields["args"] == {"a\\b": 1}


# CBOR -----------------------------------------------------------------------------------------------


def test_cbor_is_read_as_its_words_say() -> None:
    from datetime import UTC, date, datetime
    from decimal import Decimal
    from fractions import Fraction
    from ipaddress import ip_address, ip_interface, ip_network
    from uuid import UUID

    values: list[Any] = [
        [0, 23, 24, 2**64 - 1, 2**64, -1, -(2**64), -(2**64) - 1, 10**30],
        [1.5, math.inf, 1e300, True, None, "ä", b"\0"],
        {1: "a", "b": [2], None: {}},
        datetime(2026, 1, 31, 12, 0, 0, 120000, UTC),
        Decimal("-1.10"),
        Decimal("1E+3"),
        Fraction(-1, 3),
        UUID(int=7),
        {1, "a"},
        [ip_address("10.0.0.1"), ip_address("fe80::1"), ip_network("10.0.0.0/8"), ip_interface("fe80::1/64")],
    ]
    for value in values:
        assert words_of(cbor_loads(cbor2.dumps(value))) == to_words(value)
    assert words_of(cbor_loads(cbor2.dumps(cbor2.CBORTag(1004, "2026-01-31")))) == to_words(date(2026, 1, 31))


@pytest.mark.parametrize(
    ("tag", "content", "words"),
    [
        (268, [0, 5, 1], {"decimal": "-5"}),
        (268, [-2, 0, 1], {"decimal": "-0.00"}),
        (268, [0, 0, 3], {"decimal": "-Infinity"}),
        (268, [0, 0, 4], {"decimal": "NaN"}),
        (268, [0, 7, 7], {"decimal": "-sNaN7"}),
        (43000, [1.0, -2.0], {"complex": ["3ff0000000000000", "c000000000000000"]}),
        (64, b"\0\xff", {"array": {"type": "u8", "shape": [2], "items": [{"int": "0"}, {"int": "255"}]}}),
        (78, b"\xff\xff\xff\xff", {"array": {"type": "i32", "shape": [1], "items": [{"int": "-1"}]}}),
        (
            40,
            [[1, 1], cbor2.CBORTag(85, b"\0\0\x80\x3f")],
            {"array": {"type": "f32", "shape": [1, 1], "items": [{"float": "3ff0000000000000"}]}},
        ),
        (52, [8, b"\x0a"], {"ip": "10.0.0.0/8"}),
        (54, [bytes(15) + b"\1", None, "eth0"], {"ip": "::1%eth0"}),
        (54, [bytes(15) + b"\1", 64, 3], {"ip": "::1%3/64"}),
        (0, "2026-01-31T12:00:00.50Z", {"datetime": "2026-01-31T12:00:00.5+00:00"}),
    ],
    ids=str,
)
def test_a_tag(tag: int, content: Any, words: dict[str, Any]) -> None:
    assert words_of(cbor_loads(cbor2.dumps(cbor2.CBORTag(tag, content)))) == words


@pytest.mark.parametrize(
    "item",
    [
        cbor2.CBORTag(1, 0),
        cbor2.CBORTag(28, []),
        cbor2.CBORTag(0, "yesterday"),
        cbor2.CBORTag(0, 5),
        cbor2.CBORTag(2, "x"),
        cbor2.CBORTag(4, [1]),
        cbor2.CBORTag(4, [1, 1.5]),
        cbor2.CBORTag(30, [1, 0]),
        cbor2.CBORTag(37, b"short"),
        cbor2.CBORTag(40, [[2], cbor2.CBORTag(64, b"\0")]),
        cbor2.CBORTag(40, [[1], b"\0"]),
        cbor2.CBORTag(52, b"\0"),
        cbor2.CBORTag(52, [8, b"\x0a\0"]),
        cbor2.CBORTag(69, b"\0"),
        cbor2.CBORTag(258, [1, 1]),
        cbor2.CBORTag(258, 1),
        cbor2.CBORTag(268, [0, 1, 8]),
        cbor2.CBORTag(268, [1, 0, 2]),
        cbor2.CBORTag(1004, "2026-02-30"),
        cbor2.CBORTag(43000, [1, 2]),
        cbor2.CBORSimpleValue(5),
    ],
    ids=str,
)
def test_what_a_sender_may_not_write(item: Any) -> None:
    with pytest.raises(BadCbor):
        cbor_loads(cbor2.dumps(item))


@pytest.mark.parametrize(
    "data", [b"\xa2\x61a\x01\x61a\x02", b"\x61\xff", b"\xf8\x20", b"\x1c"], ids=bytes.hex
)
def test_bytes_that_a_sender_may_not_write(data: bytes) -> None:
    with pytest.raises(BadCbor):
        cbor_loads(data)


def test_padding() -> None:
    assert padded(b'{"a":1}', 10) == b'{"a":1   }'
    with pytest.raises(ValueError, match="more than 3"):
        padded(b'{"a":1}', 3)
