"""JSON read and written exactly; bounds on nesting and digits that take no more than linear time."""

# Tables of odd input, as dense as they can be read.
# ruff: noqa: E501 - a row of a table is one line

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest

from kkrpc_py.limits import Limits
from kkrpc_py.wire.json_codec import JsonError, JsonLimitError, JsonReader, JsonWriter

READER = JsonReader(Limits())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'"\\ud800"', "\ud800"),
        (b'"\\uDC00\\uD800x"', "\udc00\ud800x"),
        (b'{"\\ud800":["\\ud83d\\ude00",1.5,-0.0,12345678901234567890123]}',
         {"\ud800": ["\U0001f600", 1.5, -0.0, 12345678901234567890123]}),
        (b'"\\u00e9\xc3\xa9\\/\\b\\f\\n\\r\\t"', "\u00e9\u00e9/\b\f\n\r\t"),
        (b"-0", 0), (b"-0.0", -0.0), (b"1E5", 1e5), (b"1e-400", 0.0), (b"18446744073709551616", 2**64),
        (b" [ 1 , 2 ] \r", [1, 2]), (b'{"a":1,"a":2}', {"a": 2}), (b'"\x7f"', "\x7f"),
        (b"9" * 1000, 10**1000 - 1), (b"-" + b"9" * 1000, 1 - 10**1000),
    ],
)  # fmt: skip
def test_texts(text: bytes, value: Any) -> None:
    got = READER.loads(text)
    assert got == value
    assert type(got) is type(value)
    if isinstance(value, float):
        assert math.copysign(1, got) == math.copysign(1, value)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[1,]", b"{'a':1}", b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400", b"01", b"1.", b".5", b"+1",
        b"\xff", b'"\xed\xa0\x80"', b'"\x01"', b'"a', b"[1] x", b"\x00", b"nul", b"\xef\xbb\xbf1", b"1" * 400 + b".5",
        # The same beside an unpaired surrogate, where the other parser is asked.
        b'["\\ud800",NaN]', b'["\\ud800",-Infinity]', b'["\\ud800",1e400]', b'["\\ud800",01]', b'["\\ud800"] x',
        b'["\\ud800",\xff]', b'["\\ud800","\x01"]', b'["\\ud80"]', b'"\\u12"', b'["\\ud800","\xed\xa0\x80"]', b'["\\ud800",',
        b"[" * 128, b'{"a":' * 100,
    ],
)  # fmt: skip
def test_what_is_no_json(text: bytes) -> None:
    with pytest.raises(JsonError) as caught:
        READER.loads(text)
    assert type(caught.value) is JsonError


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 129 + b"]" * 129, b"[" * 129, b"[" * 5_000_000, b'{"a":' * 129 + b"1" + b"}" * 129, b'[{"a":' * 65 + b"1",
        b'["\\"[",' * 129 + b"1" + b"]" * 129, b'["]",' * 129 + b"1" + b"]" * 129,
        b"[{},[]," * 129 + b"1" + b"]" * 129, b"1" * 1001, b"-" + b"1" * 1001, b"[1," + b"1" * 5000 + b"]",
        b'["\\ud800",' + b"1" * 1001 + b"]", b'["1111",{"a":' + b"1" * 10_000 + b"}]",
    ],
)  # fmt: skip
def test_what_passes_a_bound(text: bytes) -> None:
    start = time.perf_counter()
    with pytest.raises(JsonLimitError, match=r"Limits\."):
        READER.loads(text)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "value",
    [
        [[]] * 5000, [{}] * 5000, [{"a": [1]}] * 5000, "[" * 5000, ["[{" * 500, '"' * 500, "\\" * 500, '\\"[' * 500],
        {"[" * 200: "{" * 200}, "1" * 5000, ["1" * 5000, 1], {"9" * 1001: 1}, ["\ud800", "1" * 5000, "[" * 5000],
        ['"', "[" * 200, '"'], list(range(5000)), [0.1234567890123456] * 500,
    ],
)  # fmt: skip
def test_what_only_looks_like_it(value: Any) -> None:
    assert READER.loads(json.dumps(value).encode()) == value
    assert READER.loads(json.dumps(value, indent=1).encode()) == value


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("shape", ["[", "{", "[{", "{["])
def test_the_bound_on_depth_is_exact(depth: int, shape: str) -> None:
    reader = JsonReader(Limits(depth=depth))
    for levels in range(1, depth + 3):
        value: Any = 1
        for level in range(levels):
            kind = shape[level % len(shape)]
            # Something flat beside the deep part must not hide or deepen it.
            value = [value, {}, [], "[{"] if kind == "[" else {"a": value, "b": [], "[": "]"}
        text = json.dumps(value).encode()
        # What stands beside the innermost value is one level deeper than it.
        if levels + 1 <= depth:
            assert reader.loads(text) == value
        else:
            with pytest.raises(JsonLimitError):
                reader.loads(text)


@pytest.mark.parametrize("digits", [1, 5, 19, 20, 21, 100, 1000, 3000])
def test_the_bound_on_digits_is_exact(digits: int) -> None:
    reader = JsonReader(Limits(digits=digits))
    for pad in (b"", b" " * 7, b'"' + b"x" * 50 + b'",'):
        assert reader.loads(b"[" + pad + b"9" * digits + b"]")[-1] == 10**digits - 1
        with pytest.raises(JsonLimitError):
            reader.loads(b"[" + pad + b"9" * (digits + 1) + b"]")


@pytest.mark.parametrize(
    "text",
    [
        "[0.1234567890123456]",
        "[123456789.5]",
        "[1e0000000012]",
        "[-123456789E-01]",
        "[1e+0000000012]",
        '["1",1.1234567]',
    ],
)
def test_only_integers_are_bounded_by_their_digits(text: str) -> None:
    assert JsonReader(Limits(digits=5)).loads(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"type":"Uint8Array","data":[]}', b""),
        ('{"data":[0,255],"type":"Uint8Array"}', b"\x00\xff"),
        (r'{"type":"\u0055int8Array","data":[7]}', b"\x07"),
        (r'{"type":"Uint\u0038Arra\u0079","data":[7]}', b"\x07"),
        ('{"type":"Uint8Array","data":[1,300,-1]}', b"\x01\x2c\xff"),
        ('{"type":"Uint8Array","data":[1.9,-1.9]}', b"\x01\xff"),
        ('{"type":"Uint8Array","data":[1e300]}', bytes([int(1e300) % 256])),
        ('[{"a":[{"type":"Uint8Array","data":[1]}]},{"type":"Uint8Array","data":[2]}]', [{"a": [b"\x01"]}, b"\x02"]),
        ('[1,"Uint8Array",[{"x":{"type":"Uint8Array","data":[1]}},5]]', [1, "Uint8Array", [{"x": b"\x01"}, 5]]),
        ('{"type":"Uint8Array","data":["a"]}', {"type": "Uint8Array", "data": ["a"]}),
        ('{"type":"Uint8Array","data":"a"}', {"type": "Uint8Array", "data": "a"}),
        ('{"type":"Uint8Array","data":[true]}', {"type": "Uint8Array", "data": [True]}),
        ('{"type":"Uint8Array","data":[1],"x":{"type":"Uint8Array","data":[2]}}',
         {"type": "Uint8Array", "data": [1], "x": b"\x02"}),
        ('{"type":"Buffer","data":[1]}', {"type": "Buffer", "data": [1]}),
        ('[true,{"type":"Uint8Array","data":[1,300,0.5]},{"type":"Uint8Array","data":[0,false]}]',
         [True, b"\x01\x2c\x00", {"type": "Uint8Array", "data": [0, False]}]),
    ],
)  # fmt: skip
def test_kkrpcs_form_of_bytes(text: str, value: Any) -> None:
    assert READER.loads(text.encode()) == value


def test_ascii_and_utf8() -> None:
    mapping = {"k\u00e9": ["\u20ac\U0001f600", "\x7f\u2028"]}
    ascii_only = JsonWriter(Limits(), stock=True, with_bytes=False).dumps(mapping)
    assert ascii_only == b'{"k\\u00e9":["\\u20ac\\ud83d\\ude00","\x7f\\u2028"]}'
    assert (
        JsonWriter(Limits(), stock=False, with_bytes=False).dumps(mapping).decode()
        == '{"k\u00e9":["\u20ac\U0001f600","\x7f\u2028"]}'
    )


def test_what_a_refused_message_still_tells() -> None:
    nothing = (None, None, None, None)
    assert READER.salvage(b'{"id":"a","args":[[[1]]],"type":"get"}') == ("a", "get", [], [])
    assert READER.salvage(b'{"id":5,"type":"get"}') == (5, "get", [], [])
    assert READER.salvage(b'{"id":5,"callbackIds":["1"],"streamIds":[1]}') == (5, None, ["1"], [])
    assert READER.salvage(b'{"id":5,"callbackIds":' + b"[" * 900 + b"]" * 900 + b"}") == (5, None, [], [])
    assert READER.salvage(b'{"id":1.5,"type":"get"}') == (1.5, "get", [], [])
    assert READER.salvage(b'{"id":{},"type":"get"}') == ({}, "get", [], [])
    assert READER.salvage(b'{"id":' + b"[" * 2000 + b"]" * 2000 + b',"type":"get"}') == nothing
    assert READER.salvage(b'{"id":5,"type":[]}') == nothing
    assert READER.salvage(b'{"args":' + b"[" * 1_000_000) == nothing
    assert READER.salvage(b"[1]") == nothing
