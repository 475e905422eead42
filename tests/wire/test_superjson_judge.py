"""superjson with npm's own 2.2.6 as the judge, in a Node child: values both ways, and the very bytes.

`make test` installs it into tests/node.
"""

from __future__ import annotations

import array
import datetime as dt
import json
import math
import os
import queue
import random
import shutil
import struct
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st

from kkrpc_py.errors import NotSerializable, RemoteError
from kkrpc_py.limits import Limits
from kkrpc_py.wire import js
from kkrpc_py.wire.codec import Decoder, Encoder
from kkrpc_py.wire.messages import Request

NODE_DIR = Path(__file__).resolve().parents[1] / "node"
BOUND = 30.0
"""Seconds for one answer. Far above what any takes."""
UTC = dt.UTC
EPOCH = dt.datetime(1970, 1, 1, tzinfo=UTC)


class Judge:
    """The Node child, one question after the other."""

    def __init__(self) -> None:
        command = [shutil.which("node") or "node", str(NODE_DIR / "superjson_judge.mjs")]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        try:
            for line in self._child.stdout:
                self._answers.put(line)
        finally:
            self._answers.put('{"error": "the judge is gone"}')

    def ask(self, service: str, argument: Any) -> Any:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps([service, argument]) + "\n")
        self._child.stdin.flush()
        answer = json.loads(self._answers.get(timeout=BOUND))
        assert "error" not in answer, answer["error"]
        return answer["ok"]

    def close(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(BOUND)
        self._reader.join(BOUND)
        assert self._child.stdout is not None
        self._child.stdout.close()


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    if shutil.which("node") is None:
        reason = "there is no Node on the path"
    elif not (NODE_DIR / "node_modules" / "superjson").is_dir():
        reason = "npm's superjson is not installed: run `npm ci` in tests/node"
    else:
        found = Judge()
        yield found
        found.close()
        return
    if os.environ.get("KKRPC_REQUIRE_NODE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def encoder(*, stock: bool) -> Encoder:
    found = Encoder("superjson", Limits())
    found.stock = stock
    return found


def written(*args: Any, stock: bool = True) -> str:
    return encoder(stock=stock).encode(Request("1", "m", list(args))).decode()[:-1]


def read(line: str) -> list[Any]:
    [(message, _)] = Decoder(Limits()).receive(line.encode() + b"\n")
    assert isinstance(message, Request), message
    return message.args


# --- what the judge should see ------------------------------------------------------------------

# Of these JavaScript has no identity, or Python's says nothing.
WITHOUT_IDENTITY = (type(None), bool, int, float, bytes, tuple, frozenset, js.Undefined)


def without_identity(value: Any) -> bool:
    if isinstance(value, js.Uint8ClampedArray | js.URL):
        return False
    return type(value) is str or isinstance(value, WITHOUT_IDENTITY)


def parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()] if is_map(value) else list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    return [cause_of(value)] if isinstance(value, Exception) else []


def is_map(value: dict[Any, Any]) -> bool:
    return type(value) is js.Map or any(type(key) is not str for key in value)


def cause_of(error: Exception) -> Any:
    cause = error.cause if isinstance(error, RemoteError) else error.__cause__
    return None if cause is js.UNDEFINED else cause


def bits(number: float) -> str:
    return "7ff8000000000000" if math.isnan(number) else struct.pack(">d", number).hex()


class Description:
    """A value as the judge describes it; `marked`: with what stands in several places."""

    def __init__(self, value: Any, *, marked: bool) -> None:
        self._seen: Counter[int] = Counter()
        self._numbers: dict[int, int] = {}
        if marked:
            self._count(value)
        self.json = self._tell(value)

    def _count(self, value: Any) -> None:
        if not without_identity(value):
            self._seen[id(value)] += 1
            if self._seen[id(value)] > 1:
                return
        for part in parts(value):
            self._count(part)

    def _tell(self, value: Any) -> Any:
        if self._seen[id(value)] > 1 and not without_identity(value):
            number = self._numbers.get(id(value))
            if number is not None:
                return ["again", number]
            # As JavaScript has it, the number is the place's where it is met first.
            number = self._numbers[id(value)] = len(self._numbers)
            return ["shared", number, self._plain(value)]
        return self._plain(value)

    def _plain(self, value: Any) -> Any:
        tell = self._tell
        match value:
            case None | bool():
                return value
            case js.URL():
                return ["URL", str(value)]
            case str():
                return value
            case js.BigInt():
                return ["bigint", str(int(value))]
            case int():
                return ["bigint", str(value)] if abs(value) > 2**53 - 1 else ["number", bits(value)]
            case float():
                return ["number", bits(value)]
            case js.Undefined():
                return ["undefined"]
            case dt.datetime():
                return ["Date", (value - EPOCH) // dt.timedelta(milliseconds=1)]
            case js.RegExp():
                return ["RegExp", value.source, value.flags]
            case js.Uint8ClampedArray():
                return ["Uint8ClampedArray", list(map(bits, value))]
            case bytes() | bytearray() | memoryview():
                return ["Uint8Array", list(map(bits, bytes(value)))]
            case array.array():
                return [ARRAYS[value.typecode], list(map(bits, value))]
            case Exception():
                cause = cause_of(value)
                named = (value.name, value.message) if isinstance(value, RemoteError) else None
                name, message = named or (type(value).__name__, str(value))
                return ["Error", name, message, *([] if cause is None else [tell(cause)])]
            case set() | frozenset():
                return ["Set", [tell(member) for member in value]]
            case list() | tuple():
                return ["Array", [tell(item) for item in value]]
            case dict() if is_map(value):
                return ["Map", [[tell(key), tell(item)] for key, item in value.items()]]
            case dict():
                return ["Object", [[key, tell(item)] for key, item in value.items()]]
        raise AssertionError(f"no description of a {type(value).__name__}")


def alike(description: Any, numbers: dict[int, Any] | None = None) -> Any:
    """A description without marks and without an order of what has none."""
    numbers = {} if numbers is None else numbers

    def again(inner: Any) -> Any:
        return alike(inner, numbers)

    match description:
        case ["again", number]:
            return numbers[number]
        case ["shared", number, inner]:
            numbers[number] = again(inner)
            return numbers[number]
        case ["Array", items]:
            return ["Array", list(map(again, items))]
        case ["Set", items]:
            return ["Set", sorted(map(again, items), key=json.dumps)]
        case ["Map", pairs]:
            return ["Map", [[again(key), again(item)] for key, item in pairs]]
        case ["Object", pairs]:
            return ["Object", sorted(([key, again(item)] for key, item in pairs), key=json.dumps)]
        case ["Error", name, message, cause]:
            return ["Error", name, message, again(cause)]
    return description


ARRAYS = {
    "b": "Int8Array",
    "B": "Uint8Array",
    "h": "Int16Array",
    "H": "Uint16Array",
    "i": "Int32Array",
    "I": "Uint32Array",
    "f": "Float32Array",
    "d": "Float64Array",
}

# --- values ---------------------------------------------------------------------------------------

text = st.text(st.characters(), max_size=6) | st.sampled_from(
    ["a.b", "c\\d", "\\.", "", "\ud800", "😀", "\u2028"]
)
keys = text.filter(lambda key: key not in ("__proto__", "constructor", "prototype"))
dates = st.datetimes(timezones=st.just(UTC)).map(
    lambda when: when.replace(microsecond=when.microsecond // 1000 * 1000)
)
small = st.integers(-(2**31), 2**31 - 1)
# superjson itself loses a -0 in a typed array.
plain_floats = {"allow_nan": False, "allow_infinity": False}
arrays = st.one_of(
    st.lists(st.integers(-128, 127)).map(lambda items: array.array("b", items)),
    st.lists(st.integers(0, 2**16 - 1)).map(lambda items: array.array("H", items)),
    st.lists(small).map(lambda items: array.array("i", items)),
    st.lists(st.floats(width=32, **plain_floats).filter(bool)).map(lambda items: array.array("f", items)),
    st.lists(st.floats(**plain_floats).filter(bool)).map(lambda items: array.array("d", items)),
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers().map(js.BigInt),
    st.integers(-(10**40), 10**40),
    st.floats(),
    text,
    st.just(js.UNDEFINED),
    dates,
    st.binary(max_size=5),
    st.binary(max_size=5).map(bytearray),
    st.binary(max_size=5).map(js.Uint8ClampedArray),
    st.sampled_from([js.RegExp("a+b", "gi"), js.RegExp(""), js.RegExp(r"\/[\n]", "u")]),
    st.sampled_from([js.URL("https://example.org/x?y=1"), js.URL("mailto:a@b.c")]),
    arrays,
    st.builds(ValueError, text),
    st.builds(RemoteError, text, text, cause=text | st.none()),
)
# Members that JavaScript tells apart as Python does.
members = text | st.integers(2, 2**70) | dates | st.tuples(text, small) | st.builds(js.Object) | st.none()


def hashed(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3).map(js.Array) | st.dictionaries(keys, inner, max_size=3).map(js.Object)


def shared(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """One value in several places, some of them deeper."""
    few = st.lists(inner, max_size=2)
    shapes: list[Callable[[Any, list[Any]], Any]] = [
        lambda value, rest: [value, *rest, value],
        lambda value, rest: {"deep": {"er": [value, *rest]}, "rest": [rest], "value": value},
        lambda value, rest: js.Map({"a": [[value]], "b": rest, "c": value}),
    ]
    return st.builds(lambda shape, value, rest: shape(value, rest), st.sampled_from(shapes), inner, few)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(members | hashed(inner), inner, max_size=3),
        st.dictionaries(members, inner, max_size=3).map(js.Map),
        st.sets(members | hashed(inner), max_size=3),
        st.frozensets(members, max_size=3),
        shared(inner),
    )


values: st.SearchStrategy[Any] = st.deferred(lambda: leaves | containers(values))

# Text that both sides write in one way, no numbers with fractions, and no keys that JavaScript sorts.
exact_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(["a.b", "c\\d"])
exact_leaves = st.one_of(
    st.none(), st.integers(), st.integers().map(js.BigInt), exact_text, dates, st.binary()
)
exact_keys = exact_text.filter(lambda key: not key.isdecimal())


def exact_containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(exact_keys, inner, max_size=4),
        st.dictionaries(exact_keys, inner, max_size=3).map(js.Map),
        shared(inner),
    )


exact_values: st.SearchStrategy[Any] = st.deferred(lambda: exact_leaves | exact_containers(exact_values))


def carried(judge: Judge, value: Any, *, stock: bool) -> str:
    try:
        return written(value, stock=stock)
    except NotSerializable as error:
        # What superjson's own reader would mix up is the one refusal that such values meet.
        assert "mix up" in str(error)
        reject()


def parsed(line: str) -> Any:
    # A number is a number, however its digits are written.
    return json.loads(line, parse_int=float)


@settings(max_examples=600, deadline=None)
@given(values, st.booleans())
def test_a_line_says_what_superjson_writes_of_the_same_value(judge: Judge, value: Any, stock: bool) -> None:
    line = carried(judge, value, stock=stock)
    assert parsed(line) == parsed(judge.ask("write", Description([value], marked=True).json))


@settings(max_examples=400, deadline=None)
@given(exact_values)
def test_a_line_is_to_the_byte_what_superjson_writes(judge: Judge, value: Any) -> None:
    line = written(value, stock=False)
    assert line == judge.ask("write", Description([value], marked=True).json)


@settings(max_examples=600, deadline=None)
@given(values, st.booleans())
@example([js.UNDEFINED, math.nan, -0.0, 0.0], True)
@example({"a.b\\c": [js.BigInt(1)], "": dt.datetime(1, 1, 1, tzinfo=UTC)}, True)
@example([dt.datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC)], False)
def test_javascript_sees_the_value_and_python_gets_it_back(judge: Judge, value: Any, stock: bool) -> None:
    answer = judge.ask("read", carried(judge, value, stock=stock))
    expected = alike(Description([value], marked=False).json)
    assert alike(answer["described"]) == expected
    assert alike(Description(read(answer["again"]), marked=False).json) == expected


@pytest.mark.parametrize("start", range(0, 1000, 100))
def test_values_of_javascript_come_back_the_same(judge: Judge, start: int) -> None:
    for seed in range(start, start + 100):
        line = judge.ask("make", seed)
        assert judge.ask("same", written(*read(line), stock=bool(seed % 2)))


def test_the_judge_tells_what_differs(judge: Judge) -> None:
    judge.ask("make", 3)
    with pytest.raises(AssertionError, match="ERR_ASSERTION"):
        judge.ask("same", written("something else"))


TYPES: list[tuple[Any, Any]] = [
    (None, None),
    (js.UNDEFINED, ["undefined"]),
    (1, ["number", bits(1)]),
    (1.0, ["number", bits(1)]),
    (2**53 - 1, ["number", bits(2**53 - 1)]),
    (2**53, ["bigint", "9007199254740992"]),
    (js.BigInt(1), ["bigint", "1"]),
    (math.nan, ["number", bits(math.nan)]),
    (-math.inf, ["number", bits(-math.inf)]),
    (-0.0, ["number", bits(-0.0)]),
    (dt.datetime(2024, 5, 6, 7, 8, 9, 10_000, dt.timezone(dt.timedelta(hours=2))), ["Date", 1714972089010]),
    ({"a": 1}, ["Object", [["a", ["number", bits(1)]]]]),
    (js.Map({"a": 1}), ["Map", [["a", ["number", bits(1)]]]]),
    ({1: "a"}, ["Map", [[["number", bits(1)], "a"]]]),
    ({"a"}, ["Set", ["a"]]),
    (frozenset({None}), ["Set", [None]]),
    ((1, 2), ["Array", [["number", bits(1)], ["number", bits(2)]]]),
    ({(1,): 2}, ["Map", [[["Array", [["number", bits(1)]]], ["number", bits(2)]]]]),
    (js.RegExp("a/b", "ig"), ["RegExp", "a\\/b", "gi"]),
    (js.RegExp(""), ["RegExp", "(?:)", ""]),
    (js.URL("https://example.org/"), ["URL", "https://example.org/"]),
    (KeyError("k"), ["Error", "KeyError", "k"]),
    (b"\x01", ["Uint8Array", [bits(1)]]),
    (bytearray(b"\x01"), ["Uint8Array", [bits(1)]]),
    (memoryview(b"\x01"), ["Uint8Array", [bits(1)]]),
    (js.Uint8ClampedArray(b"\x01"), ["Uint8ClampedArray", [bits(1)]]),
    *((array.array(code, [1]), [name, [bits(1)]]) for code, name in ARRAYS.items()),
    (array.array("d", [-0.0]), ["Float64Array", [bits(-0.0)]]),
    # kkrpc's form of bytes in JSON, which means nothing here.
    (
        {"type": "Uint8Array", "data": [1]},
        ["Object", [["data", ["Array", [["number", bits(1)]]]], ["type", "Uint8Array"]]],
    ),
]


@pytest.mark.parametrize(("value", "description"), TYPES)
def test_what_each_type_is_in_javascript(judge: Judge, value: Any, description: Any) -> None:
    assert judge.ask("read", written(value))["described"] == ["Array", [description]]


def test_numpy_arrays_are_typed_arrays(judge: Judge) -> None:
    numpy = pytest.importorskip("numpy")
    for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"):
        [described] = judge.ask("read", written(numpy.array([0, 1], name)))["described"][1]
        kind = "Float" if name[0] == "f" else "Int" if name[0] == "i" else "Uint"
        assert described == [f"{kind}{name.lstrip('floatuin')}Array", [bits(0), bits(1)]]


def test_an_error_in_the_place_of_a_cause_is_one(judge: Judge) -> None:
    error = ValueError("outer")
    error.__cause__ = RemoteError("TypeError", "inner", cause={"code": 7})
    [described] = judge.ask("read", written(error))["described"][1]
    cause = ["Error", "TypeError", "inner", ["Object", [["code", ["number", bits(7)]]]]]
    assert described == ["Error", "ValueError", "outer", cause]


def test_a_key_or_member_that_is_shared_is_the_same_object_there(judge: Judge) -> None:
    shared = js.Object({"k": 1})
    value = {"set": {shared, "other"}, "deep": {"er": [shared]}, "map": {shared: [shared]}}
    described = judge.ask("read", written(value))["described"]
    text = json.dumps(described)
    assert text.count('"shared"') == 1
    assert text.count('"again"') == 3
    assert alike(described) == alike(Description([value], marked=False).json)


@pytest.mark.parametrize("start", range(0, 600, 100))
def test_shared_keys_and_members_are_never_mixed_up(judge: Judge, start: int) -> None:
    # superjson's reader moves what it makes one with another place; what is sent it reads right all the same.
    refused = 0
    for seed in range(start, start + 100):
        value = Tangle(seed).value
        try:
            line = written(value)
        except NotSerializable as error:
            assert "mix up" in error.reason
            refused += 1
        else:
            described = judge.ask("read", line)["described"]
            assert in_any_order(described) == in_any_order(Description([value], marked=False).json)
    assert 0 < refused < 50


class Tangle:
    """A few objects in lists, as members of Sets and as keys of Maps."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._objects: list[Any] = [js.Object({"n": number, "in": [number]}) for number in range(4)]
        self._objects += [js.Array([number]) for number in range(2)]
        self.value = [self._value(3), self._value(2)]

    def _value(self, depth: int) -> Any:
        choice = self._random.randrange(10) if depth else 0
        count = self._random.randrange(4)
        if choice < 4:
            return self._random.choice(self._objects)
        if choice < 6:
            return [self._value(depth - 1) for _ in range(count)]
        if choice < 8:
            return {*self._random.sample(self._objects, count), "a", 1.5}
        keys = self._random.sample([*self._objects, "x", "y"], count)
        return js.Map({key: self._value(depth - 1) for key in keys})


def in_any_order(description: Any) -> Any:
    """Without the order of rows too: a key that superjson makes one with another place goes to the end."""
    found = alike(description)

    def sort(inner: Any) -> Any:
        if not isinstance(inner, list):
            return inner
        inner = list(map(sort, inner))
        if inner[:1] in (["Map"], ["Set"]):
            inner[1] = sorted(inner[1], key=json.dumps)
        return inner

    return sort(found)
