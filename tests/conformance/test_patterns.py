"""What each pattern matches, what it does not, and how a mismatch reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kkrpc_py.conformance.cbor import Words
from kkrpc_py.conformance.patterns import (
    Context,
    PatternError,
    brief,
    dumps,
    match,
    match_message,
    plain_id,
    resolve,
    types,
)
from tests.naming import shown

BYTES = Words({"bytes": "00ff"})
ONE = {"float": "3ff0000000000000"}


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (1, 1),
        (1, 1.0),
        (1.0, 1),
        (10**30, 10**30),
        (True, True),
        (None, None),
        ("a\ud800", "a\ud800"),
        ([1, [2]], [1, [2]]),
        ({"a": 1, "b": {"$absent": True}}, {"a": 1}),
        ({"$any": True}, None),
        ({"$type": "string"}, ""),
        ({"$type": "integer"}, 1),
        ({"$type": "integer"}, 1.0),
        ({"$type": "number"}, 1.5),
        ({"$type": "boolean"}, False),
        ({"$type": "null"}, None),
        ({"$type": "list"}, []),
        ({"$type": "object"}, {}),
        ({"$regex": "a+|b"}, "aaa"),
        ({"$oneof": [1, {"$type": "list"}]}, []),
        ({"$between": [1, 2]}, 2),
        ({"$between": [1, {"$ref": "n"}]}, 5),
        ({"$has": {"a": {"$has": {}}, "c": {"$absent": True}}}, {"a": {"x": 1}, "b": 2}),
        ({"$error": {"name": "E"}}, {"name": "E", "message": "", "code": 1}),
        ({"$error": {"message": {"$regex": "no .*"}}}, "no such"),
        ({"$error": {"message": "x"}}, {"name": "E", "message": "x"}),
        ({"$plus": ["n", 2]}, 7),
        ({"$ref": "n"}, 5),
        ({"$ref": "o"}, {"a": [1, {"$any": 2.0}]}),
        ({"$repeat": ["ab", 2]}, "abab"),
        ({"$range": [1, 4]}, [1, 2, 3]),
        ({"$nested": [90, {"$any": True}]}, resolve({"$nested": [90, 1]}, {})),
        ([{"$any": True}, 2], [1, 2]),
        ({"$ref:key": 1}, {"k": 1}),
        ({"type": "Uint8Array", "data": [0, 255]}, BYTES),
        ({"$words": {"bytes": "00ff"}}, BYTES),
        ({"$words": {"list": [{"int": "1"}, {"bytes": "00ff"}]}}, [1, BYTES]),
        ({"$words": {"map": [[{"text": "a"}, {"null": True}], [{"text": "b"}, ONE]]}}, {"b": 1, "a": None}),
        ({"$words": {"set": [{"int": "1"}, {"int": "2"}]}}, Words({"set": [{"int": "2"}, {"int": "1"}]})),
        ({"$words": {"float": "7ff8000000000000"}}, float("nan")),
        ({"$words": {"text": {"$repeat": ["x", 3]}}}, "xxx"),
        ({"$tagged": {"list": [ONE]}}, {"list": [ONE]}),
        ({"$tagged": {"set": [{"int": "1"}, {"text": "a"}]}}, {"set": [{"text": "a"}, {"int": "1"}]}),
    ],
    ids=str,
)
def test_a_match(pattern: Any, value: Any) -> None:
    assert match(pattern, value, Context({"n": 5, "key": "k", "o": {"a": [1, {"$any": 2}]}})) is None


@pytest.mark.parametrize(
    ("pattern", "value", "path"),
    [
        (1, True, ""),
        (True, 1, ""),
        (0, False, ""),
        (1, "1", ""),
        (1, 2, ""),
        (None, False, ""),
        ("a", "b", ""),
        ([1, 2], [1], ""),
        ([1], [1, 2], ""),
        ([1, [2, 3]], [1, [2, 4]], "[1][1]"),
        ([], {}, ""),
        ({}, [], ""),
        ({"a": 1}, {}, ".a"),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, ".a.b"),
        ({}, {"a": 1}, ".a"),
        ({"a": {"$absent": True}}, {"a": None}, ".a"),
        ({"a": {"$any": True}}, {}, ".a"),
        ({"a": {"$capture": "x"}}, {}, ".a"),
        ({"$type": "string"}, 1, ""),
        ({"$type": "integer"}, True, ""),
        ({"$type": "integer"}, 1.5, ""),
        ({"$type": "number"}, "1", ""),
        ({"$type": "null"}, False, ""),
        ({"$type": "object"}, BYTES, ""),
        ({"$regex": "a"}, "ab", ""),
        ({"$regex": "1"}, 1, ""),
        ({"$oneof": [1, 2]}, 3, ""),
        ({"$between": [1, 2]}, 3, ""),
        ({"$between": [0, 1]}, True, ""),
        ({"$has": {"a": 1}}, {"a": 2, "b": 1}, ".a"),
        ({"$has": {"a": 1}}, [], ""),
        ({"$error": {"name": "E"}}, "E", ""),
        ({"$error": {"name": "E"}}, {"name": "E"}, ".message"),
        ({"$error": {"message": "x"}}, {"message": "x"}, ".name"),
        ({"$error": {"message": "x"}}, "y", " (a bare error)"),
        ({"$plus": ["n", 2]}, 8, ""),
        ({"$ref": "n"}, 6, ""),
        ({"$plus": ["o", 1]}, 5, ""),
        ({"$plus": ["t", 1]}, 2, ""),
        ({"$between": [0, {"$ref": "o"}]}, 5, ""),
        ({"$words": {"list": {"$ref": "n"}}}, [], ""),
        ({"$ref": "o"}, {"a": [1, {"b": 3}]}, ".a[1].b"),
        ({"$words": {"int": "1"}}, object(), ""),
        ({"a": {"$words": {"int": "1"}}}, {}, ".a"),
        ({"$tagged": ONE}, {"int": "one"}, ""),
        ({"$tagged": {"set": [{"int": "1"}]}}, {"set": 1}, ""),
        ({"$repeat": ["ab", 2]}, "ab", ""),
        ({"$range": [1, 3]}, [1, 3], "[1]"),
        ({"$nested": [3, 1]}, [[1]], "[0][0]"),
        ({"$nested": [1, 1]}, [1, 1], ""),
        ({"type": "Uint8Array", "data": [0]}, BYTES, ""),
        ({"$words": {"bytes": "00"}}, BYTES, ""),
        ({"$words": {"int": "1"}}, True, ""),
        ({"$words": {"int": "1"}}, 1.0, ""),
        ({"$words": ONE}, 2, ""),
        ({"$words": {"text": "1"}}, 1, ""),
        ({"$words": {"set": [{"int": "1"}, {"int": "1"}]}}, Words({"set": [{"int": "1"}, {"int": "2"}]}), ""),
        ({"$words": {"set": [{"int": "1"}]}}, [1], ""),
        ({"$words": {"list": [{"int": "1"}, {"int": "2"}]}}, [2, 1], ""),
        ({"$words": {"list": [{"int": "1"}, {"int": "2"}]}}, [1], ""),
        ({"$words": {"list": [{"int": "1"}, {"int": "2"}]}}, [1, 2, 3], ""),
        ({"$words": {"map": [[{"text": "a"}, {"int": "1"}]]}}, {"a": 1, "b": 2}, ""),
        ({"$words": {"map": [[{"text": "a"}, {"int": "1"}]]}}, {"a": 2}, ""),
        ({"$words": {"bytes": "00ff"}}, {"bytes": "00ff"}, ""),
        ({"$tagged": {"bytes": "00ff"}}, BYTES, ""),
        ({"$tagged": {"int": "1"}}, {"int": 1}, ""),
        ({"$tagged": {"int": "1"}}, {"int": "1", "text": "x"}, ""),
        ({"$tagged": {"map": [[{"int": "1"}, {"int": "2"}]]}}, {"map": [[{"int": "1"}]]}, ""),
    ],
    ids=shown,
)
def test_a_mismatch_and_its_path(pattern: Any, value: Any, path: str) -> None:
    found = match(pattern, value, Context({"n": 5, "t": True, "o": {"a": [1, {"b": 2}]}}))
    assert found is not None
    assert found.path == path
    assert found.expected != found.seen
    assert "\n" not in found.expected + found.seen


@pytest.mark.parametrize(
    ("context", "words", "tagged"),
    [
        (Context(floats=True, json=True), True, False),
        (Context(floats=True, json=False), False, False),
        (Context(floats=False, json=False), True, True),
    ],
    ids=["json", "cbor", "cbor of who has no floats"],
)
def test_a_float_may_come_as_an_integer_where_it_cannot_be_told(
    context: Context, words: bool, tagged: bool
) -> None:
    assert (match({"$words": ONE}, 1, context) is None) is words
    assert (match({"$tagged": ONE}, {"int": "1"}, context) is None) is tagged
    assert match({"$words": ONE}, 1.0, context) is None
    assert match({"$words": {"int": "1"}}, 1.0, context) is not None
    items = [
        {"array": {"type": "f64", "shape": [1], "items": [ONE]}},
        {"array": {"type": "f64", "shape": [1], "items": [{"int": "1"}]}},
    ]
    assert match({"$tagged": items[0]}, items[1], context) is None


def test_what_was_captured_can_be_used_and_what_was_tried_in_vain_is_forgotten() -> None:
    context = Context()
    pattern = {"a": {"$capture": "x"}, "b": {"$oneof": [[{"$capture": "y"}, 0], [{"$capture": "z"}, 1]]}}
    assert match(pattern, {"a": "v", "b": [5, 1]}, context) is None
    assert context.captured == {"x": "v", "z": 5}
    assert match({"$ref": "x"}, "v", context) is None


@pytest.mark.parametrize(
    ("pattern", "fields", "path"),
    [
        (
            {"id": 1, "type": "response"},
            {"id": 1, "type": "response", "method": "", "version": "x", "more": 1},
            None,
        ),
        ({"id": 1}, {"id": 1, "type": "get", "method": ""}, None),
        ({"id": 1}, {"id": True, "method": ""}, "id"),
        ({"id": 1}, {"id": 1}, "method"),
        ({"id": 1}, {"id": 1, "method": "x"}, "method"),
        ({"id": 1, "method": "x"}, {"id": 1, "method": "x"}, None),
        ({"type": "callback-release"}, {"id": 1, "type": "callback-release", "method": ""}, "id"),
        ({"id": 1}, {"id": 1, "method": "", "args": {}}, "args"),
        ({"id": 1}, {"id": 1, "method": "", "meta": None}, "meta"),
        ({"id": 1, "version": "json"}, {"id": 1, "method": "", "version": "superjson"}, "version"),
        ({"id": 1, "meta": {"$oneof": [{"$absent": True}, {}]}}, {"id": 1, "method": ""}, None),
        ({"id": 1, "args": {"a": [1]}}, {"id": 1, "method": "", "args": {"a": [2]}}, "args.a[0]"),
    ],
    ids=str,
)
def test_the_keys_of_a_message(pattern: dict[str, Any], fields: dict[str, Any], path: str | None) -> None:
    found = match_message(pattern, fields, Context())
    assert (found and found.path) == path


@pytest.mark.parametrize("key", "id args callbackIds streamIds kwargs meta path value".split())
def test_a_key_that_the_protocol_names_is_there_only_where_a_pattern_gives_it(key: str) -> None:
    message = {"method": "", "type": "get", key: None}
    found = match_message({"type": "get"}, message, Context())
    assert found is not None
    assert (found.path, found.expected) == (key, "nothing there")
    assert match_message({"type": "get", key: None}, message, Context()) is None


def test_which_message_a_pattern_is_for() -> None:
    assert plain_id({"id": "a"}, {}) == ["a"]
    assert plain_id({"id": {"$ref": "x"}}, {"x": 7}) == [7]
    assert plain_id({"id": {"$capture": "x"}}, {}) == []
    assert plain_id({"type": "get"}, {}) == []
    assert types("get", {}) == ["get"]
    assert types({"$oneof": ["set", "get"]}, {}) == ["get", "set"]
    assert len(types({"$any": True}, {})) == 12


def test_what_is_nested_deep_is_matched_without_recursion() -> None:
    deep = resolve({"$nested": [50_000, 1]}, {})
    assert match({"$nested": [50_000, 1]}, deep, Context()) is None
    assert match({"$nested": [50_001, 1]}, deep, Context()) is not None


def test_templates() -> None:
    captured = {"x": 1, "k": "key"}
    template = {
        "a": [{"$repeat": ["x", 3]}, {"$range": [0, 2]}],
        "$ref:k": {"$ref": "x"},
        "n": {"$nested": [2, "d"]},
    }
    assert resolve(template, captured) == {"a": ["xxx", [0, 1]], "key": 1, "n": [["d"]]}
    assert dumps(template, captured) == b'{"a":["xxx",[0,1]],"key":1,"n":[["d"]]}'
    assert dumps({"b": "ä\ud800", "a": [1.5, True, None, 10**20]}, {}) == (
        b'{"b":"\\u00e4\\ud800","a":[1.5,true,null,100000000000000000000]}'
    )
    assert dumps({"$nested": [100_000, 0]}, {}) == b"[" * 100_000 + b"0" + b"]" * 100_000
    assert json.loads(dumps({"$ref": "b"}, {"b": BYTES})) == {"type": "Uint8Array", "data": [0, 255]}


@pytest.mark.parametrize(
    "pattern",
    [
        {"$type": "text"},
        {"$ref": "x"},
        {"$plus": ["x", 1]},
        {"$repeat": 1},
        {"$range": ["a", 1]},
        {"$ref:x": 1},
    ],
    ids=str,
)
def test_a_fault_of_the_case_is_told_as_one(pattern: Any) -> None:
    with pytest.raises(PatternError):
        match(pattern, {"x": 1}, Context())
    for template in ({"$ref": "x"}, {"$ref:x": 1}, {"$repeat": 1}, {"a": float("nan")}, {"a": object()}):
        with pytest.raises(PatternError):
            dumps(template, {})


def test_what_is_shown_is_one_short_line() -> None:
    assert brief({"a": "\n\ud800ä", "b": BYTES}) == '{"a": "\\n\\ud800ä", "b": {"$words": {"bytes": "00ff"}}}'
    assert len(brief("x" * 10_000)) < 400
    assert "10002 characters" in brief("x" * 10_000)
    assert brief(resolve({"$nested": [5000, 1]}, {})) == "a list, nested too deep to show"
    assert brief(10**6000) == "a int, too long to show"
    assert brief([10**6000, BYTES, object()]) == "a list, too long to show"
