"""superjson in Python alone: values there and back, what is refused, and what no peer may send.

What superjson itself makes of all this is in test_superjson_judge.py; what real kkrpc peers wrote, in
test_superjson_recordings.py.
"""

from __future__ import annotations

import array
import collections
import copy
import datetime as dt
import decimal
import enum
import fractions
import json
import math
import pickle
import re
import sys
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kkrpc_py.errors import ErrorValue, LimitExceeded, NotSerializable, RemoteError
from kkrpc_py.limits import Limits
from kkrpc_py.wire import js
from kkrpc_py.wire.codec import Codec, Decoder, Encoder
from kkrpc_py.wire.messages import (
    Broken,
    Callback,
    Chunks,
    Construct,
    Failure,
    Get,
    Malformed,
    Message,
    Noise,
    Request,
    Result,
    Set,
    StreamAck,
    StreamCancel,
    StreamEnd,
    StreamFailure,
    StreamOpened,
)
from kkrpc_py.wire.superjson import escaped, parse_path
from tests.naming import shown

UTC = dt.UTC
LIMITS = Limits(frame=100_000, depth=24, digits=60)


def make_encoder(*, stock: bool = True, codec: Codec = "superjson", limits: Limits = LIMITS) -> Encoder:
    encoder = Encoder(codec, limits)
    encoder.stock = stock
    return encoder


def encode(message: Message, **options: Any) -> dict[str, Any]:
    return json.loads(make_encoder(**options).encode(message))


def write(*args: Any) -> dict[str, Any]:
    return encode(Request("1", "m", list(args)))


def read(line: bytes | str | dict[str, Any], limits: Limits = LIMITS) -> Message:
    if isinstance(line, dict):
        line = json.dumps(line, separators=(",", ":"))
    data = line.encode() if isinstance(line, str) else line
    [(message, _)] = Decoder(limits).receive(data.rstrip(b"\n") + b"\n")
    assert not isinstance(message, Broken)
    return message


def request(args: Any, values: Any = None, equal: Any = None, **meta: Any) -> dict[str, Any]:
    """A request as a peer could send it."""
    found: dict[str, Any] = {"v": 1} | meta
    if values is not None:
        found["values"] = values
    if equal is not None:
        found["referentialEqualities"] = equal
    return {"json": {"id": "1", "method": "m", "args": args, "type": "request"}, "meta": found}


def arguments(*args: Any, **kwargs: Any) -> list[Any]:
    message = read(request(*args, **kwargs))
    assert isinstance(message, Request), message
    return message.args


def back(value: Any, *, stock: bool = True) -> Any:
    message = read(make_encoder(stock=stock).encode(Request("1", "m", [value])))
    assert isinstance(message, Request), message
    return message.args[0]


# --- there and back ---------------------------------------------------------------------------------

EXACT: list[Any] = [
    None,
    True,
    0,
    2**53 - 1,
    -(2**53) + 1,
    1.5,
    -0.0,
    1e300,
    2.0**60,
    math.inf,
    -math.inf,
    "é\u2028😀",
    "\ud800",
    js.UNDEFINED,
    js.BigInt(5),
    js.BigInt(-(10**50)),
    dt.datetime(2024, 1, 2, 3, 4, 5, 678_000, UTC),
    dt.datetime(1, 1, 1, tzinfo=UTC),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC),
    js.RegExp("a/\\/[\\]]+", "gimsuy"),
    js.URL("https://example.org/x?y=1#z"),
    b"",
    b"\x00\xff",
    js.Uint8ClampedArray(b"\x00\xff"),
    array.array("b", [-128, 127]),
    array.array("h", [-32768, 32767]),
    array.array("H", [0, 65535]),
    array.array("i", [-(2**31), 2**31 - 1]),
    array.array("I", [0, 2**32 - 1]),
    array.array("f", [0.5, -1.25, -0.0]),
    array.array("d", [0.1, 1e300, 2.0**80, -0.0]),
    array.array("d", []),
    [],
    [[], {}, [{}]],
    {"a.b\\c": {"": [1.5, {"__proto": 1}]}},
    js.Map(),
    js.Map({"constructor": 1, 2: js.UNDEFINED, None: 3, dt.datetime(2024, 1, 1, tzinfo=UTC): js.BigInt(2)}),
    {1, "two", None, 3.5, 2**70},
    set(),
    {"type": "Uint8Array", "data": [1, 2]},
    {"json": 1, "meta": {"values": {"x": ["Date"]}}},
]


@pytest.mark.parametrize("value", EXACT, ids=shown)
@pytest.mark.parametrize("stock", [True, False])
def test_a_value_comes_back_as_it_was(value: Any, stock: bool) -> None:
    got = back(value, stock=stock)
    assert type(got) is type(value)
    assert got == value
    assert repr(got) == repr(value) or isinstance(value, set)


def test_nan_comes_back() -> None:
    assert math.isnan(back(math.nan))
    assert math.isnan(back({math.nan: 1}).popitem()[0])


# What arrives is another type of the same meaning.
MAPPED: list[tuple[Any, Any]] = [
    (2**53, js.BigInt(2**53)),
    (-(2**53), js.BigInt(-(2**53))),
    (2**190, js.BigInt(2**190)),
    ((1, (2,)), [1, [2]]),
    (frozenset({1}), {1}),
    ({1: "a", "b": 2}, js.Map({1: "a", "b": 2})),
    (bytearray(b"x"), b"x"),
    (memoryview(b"xy"), b"xy"),
    (array.array("B", [1]), b"\x01"),
    ({frozenset({1}): 2}, js.Map({frozenset({1}): 2})),
    (js.Object({"a": 1}), {"a": 1}),
    (js.Array([1]), [1]),
    (
        dt.datetime(2024, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
        dt.datetime(2024, 1, 1, tzinfo=UTC),
    ),
]


@pytest.mark.parametrize(("value", "arrives"), MAPPED, ids=shown)
def test_a_value_arrives_as_its_counterpart(value: Any, arrives: Any) -> None:
    got = back(value)
    assert type(got) is type(arrives)
    assert repr(got) == repr(arrives)


def test_keys_and_members_that_are_objects_are_themselves_alone() -> None:
    one, other = js.Object({"a": 1}), js.Object({"a": 1})
    found = back([{one: "x", other: "y"}, {js.Array([1]), (1,)}])
    assert [(type(key), dict(key), value) for key, value in found[0].items()] == [
        (js.Object, {"a": 1}, "x"),
        (js.Object, {"a": 1}, "y"),
    ]
    assert [type(member) for member in found[1]] == [js.Array, js.Array]
    assert [list(member) for member in found[1]] == [[1], [1]]


def test_errors_come_back_as_exceptions() -> None:
    error = KeyError("missing")
    error.__cause__ = RemoteError("Odd", "inner", cause=[js.BigInt(1)], fields={"lost": 1})
    got = back([error])[0]
    assert isinstance(got, RemoteError)
    assert isinstance(got, KeyError)
    assert (got.name, got.message, got.remote_traceback, got.fields) == ("KeyError", "missing", None, {})
    assert got.cause is got.__cause__
    assert (got.cause.name, got.cause.message, got.cause.cause) == ("Odd", "inner", [js.BigInt(1)])
    assert back(ValueError("x")).cause is None


def test_an_error_with_more_than_superjson_sends_by_itself_is_read() -> None:
    sent = {"name": "E", "message": "m", "stack": "E: m\n at x", "code": "1"}
    [got] = arguments([sent], {"args.0": ["Error", {"code": ["bigint"]}]})
    assert got.remote_traceback == "E: m\n at x"
    assert got.fields == {"code": 1}


def test_integers_that_javascript_sends_as_numbers_are_the_doubles_that_they_are() -> None:
    args = '[9007199254740993,[{"a":-1152921504606847000}],1e2]'
    message = read('{"json":{"id":"1","method":"m","type":"request","args":' + args + "}}")
    assert isinstance(message, Request)
    assert repr(message.args) == "[9007199254740992.0, [{'a': -1.152921504606847e+18}], 100.0]"
    assert message.args[1][0]["a"] == -(2.0**60)


def test_an_id_is_no_value() -> None:
    message = Request(2**60, "m", [2**60])
    got = read(make_encoder().encode(message))
    assert isinstance(got, Request)
    assert got.id == 2**60
    assert type(got.id) is int


# --- one object in several places ---------------------------------------------------------------------


def places(value: Any) -> Any:
    """The value with a number for each object that is in several places."""
    seen: dict[int, int] = collections.Counter()
    numbers: dict[int, int] = {}
    plain = (type(None), bool, int, float, bytes, tuple, frozenset, js.Undefined)

    def parts(inner: Any) -> list[Any]:
        if isinstance(inner, dict):
            return [*inner, *inner.values()]
        if isinstance(inner, RemoteError):
            return [inner.cause]
        return list(inner) if isinstance(inner, list | tuple | set | frozenset) else []

    def identified(inner: Any) -> bool:
        if isinstance(inner, js.URL | js.Uint8ClampedArray):
            return True
        return not isinstance(inner, str) and not isinstance(inner, plain)

    def count(inner: Any) -> None:
        if identified(inner):
            seen[id(inner)] += 1
            if seen[id(inner)] > 1:
                return
        for part in parts(inner):
            count(part)

    def tell(inner: Any) -> Any:
        mark = None
        if seen[id(inner)] > 1:
            if id(inner) in numbers:
                return f"#{numbers[id(inner)]}"
            mark = numbers[id(inner)] = len(numbers)
        if isinstance(inner, dict):
            kind = js.Map if any(type(key) is not str for key in inner) else type(inner)
            told: Any = (kind.__name__, [(tell(key), tell(item)) for key, item in inner.items()])
        elif isinstance(inner, RemoteError):
            told = (inner.name, inner.message, tell(inner.cause))
        elif isinstance(inner, list | tuple):
            told = ["Array" if isinstance(inner, js.Array) else "", [tell(item) for item in inner]]
        elif isinstance(inner, set | frozenset):
            told = ("Set", sorted(map(str, map(tell, inner))))
        else:
            told = repr(inner)
        return told if mark is None else (f"={mark}", told)

    count(value)
    return tell(value)


leaves = st.one_of(
    st.none(),
    st.integers(-100, 100),
    st.floats(allow_nan=False),
    st.text(st.sampled_from("a.\\0é"), max_size=3),
    st.just(js.UNDEFINED),
    st.integers().map(js.BigInt),
    st.binary(max_size=3),
    st.datetimes(timezones=st.just(UTC)).map(lambda when: when.replace(microsecond=0, fold=0)),
    st.builds(js.RegExp, st.sampled_from(["a", "b+"])),
    st.lists(st.integers(0, 100), max_size=2).map(lambda items: array.array("h", items)),
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    few = st.lists(inner, max_size=2)
    names = st.text(st.sampled_from("ab.\\1"), max_size=2)
    shapes: list[Callable[[Any, list[Any]], Any]] = [
        lambda value, rest: [value, *rest, value],
        lambda value, rest: {"deep": {"er": [value, *rest]}, "rest": [rest], "value": value},
        lambda value, rest: js.Map({"a": [[value]], "b": rest, 1: value}),
        lambda value, rest: RemoteError("E", "m", cause=[value, rest, value]),
        lambda value, rest: [{"x", js.Array([value])}, value, rest],
        lambda value, rest: [rest, (value, value), {js.Object({"v": value}): value}],
    ]
    return st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(names, inner, max_size=3),
        st.dictionaries(names, inner, max_size=3).map(js.Map),
        st.builds(lambda shape, value, rest: shape(value, rest), st.sampled_from(shapes), inner, few),
    )


values: st.SearchStrategy[Any] = st.deferred(lambda: leaves | containers(values))


@settings(max_examples=600, deadline=None)
@given(values)
@example([[1]] * 2)
def test_what_is_one_object_arrives_as_one_object(value: Any) -> None:
    try:
        got = back(value)
    except NotSerializable as error:
        assert "mix up" in error.reason or "-0.0" in error.reason or "Limits.depth" in error.reason
    else:
        assert places(got) == places(value)


def test_what_a_shared_value_shares_with_others_stays_shared() -> None:
    # The inner one is named before the outer one here, by a path through what the outer one's replaces.
    date = dt.datetime(2024, 1, 1, tzinfo=UTC)
    outer = [date]
    one, [[[deep]]], other = back([date, [[[outer]]], outer])
    assert deep is other
    assert other[0] is one


def test_shared_values_are_named_as_superjson_names_them() -> None:
    shared, date = {"k": 1}, dt.datetime(1970, 1, 1, tzinfo=UTC)
    line = write([[shared], {"a.b": shared}, date], shared, date, [2**60, 2**60], math.nan, math.nan)
    assert line["meta"]["referentialEqualities"] == {
        "args.1": ["args.0.0.0", "args.0.1.a\\.b"],
        "args.2": ["args.0.2"],
        "args.3.0": ["args.3.1"],
        "args.4": ["args.5"],
    }


def test_what_python_alone_makes_one_object_of_is_not_named_so() -> None:
    assert "meta" not in encode(StreamCancel("1"))
    line = encode(Chunks("1", [[b"ab", b"ab", (1, 2), (1, 2), (), (), frozenset(), frozenset()]]))
    assert "referentialEqualities" not in line["meta"]


def test_a_shared_value_that_superjsons_reader_would_misplace_is_refused() -> None:
    # To make a member one with another place, superjson puts it at the Set's end: the next path then
    # leads to a member that it is not.
    one, other = js.Object({"a": 1}), js.Object({"b": 2})
    value = {"s": {one, other}, "m": one, "n": other}
    with pytest.raises(NotSerializable, match="mix up the members"):
        write({"deep": [value["s"]]}, one, other)
    # As the nearest to the top the members stay where they are.
    assert write([[one, other]], {one, other})["meta"]["referentialEqualities"]


def test_a_chain_of_shared_values_is_no_larger_than_it_is_written() -> None:
    value: Any = []
    for _ in range(20):
        value = [value, value]
    with pytest.raises(LimitExceeded, match="is larger than"):
        write(value)
    pair: Any = (0,)
    for _ in range(20):
        pair = (pair, pair)
    with pytest.raises(LimitExceeded, match="is larger than"):
        write(pair)


# --- what is not written ------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


class Words(str):
    pass


def inside_itself() -> list[Any]:
    found: list[Any] = []
    found.append({"x": found})
    return found


def its_own_cause() -> Exception:
    error = ValueError("x")
    error.__cause__ = RemoteError("y", "z", cause={"c": error})
    return error


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def nested_sets(depth: int) -> Any:
    value: Any = frozenset({1})
    for _ in range(depth):
        value = frozenset({value})
    return value


# The value, where the offender is, and what is said of it.
REFUSED: list[tuple[Any, str, str, str]] = [
    ({"when": dt.date(2024, 1, 1)}, "['when']", "date", ""),
    ([dt.datetime(2024, 1, 1)], "[0]", "datetime", "no time zone"),
    (dt.datetime(2024, 1, 1, 0, 0, 0, 1, UTC), "", "datetime", "microseconds"),
    (dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))), "", "datetime", "beyond 1 to 9999"),
    (dt.timedelta(1), "", "timedelta", ""),
    (decimal.Decimal(1), "", "Decimal", ""),
    (fractions.Fraction(1), "", "Fraction", ""),
    (uuid.UUID(int=0), "", "UUID", ""),
    (1j, "", "complex", ""),
    (Colour.RED, "", "Colour", ""),
    (Number.ONE, "", "Number", ""),
    (Words("x"), "", "Words", ""),
    (collections.OrderedDict(), "", "OrderedDict", ""),
    (object(), "", "object", ""),
    (len, "", "builtin_function_or_method", ""),
    (ValueError, "", "type", ""),
    (KeyboardInterrupt(), "", "KeyboardInterrupt", ""),
    (ExceptionGroup("g", [ValueError()]), "", "ExceptionGroup", "would be lost"),
    ({"r": [re.compile("x")]}, "['r'][0]", "Pattern", "js.RegExp"),
    (array.array("q", [1]), "", "array", "'q'"),
    (array.array("d", [math.nan]), "", "array", "NaN"),
    (array.array("f", [math.inf]), "", "array", "NaN"),
    (memoryview(array.array("i", [1])), "", "memoryview", "single bytes"),
    (10**60, "", "int", "Limits.digits"),
    (js.BigInt(-(10**60)), "", "BigInt", "Limits.digits"),
    ({"a": {"__proto__": 1}}, "['a']", "dict", "'__proto__'"),
    ([{"constructor": {}}], "[0]", "dict", "'constructor'"),
    (js.Object({"prototype": 1}), "", "Object", "'prototype'"),
    (js.Object({1: 2}), "", "Object", "keys are text"),  # type: ignore[dict-item]  # that is the point
    ({-0.0: 1}, "", "dict", "-0.0"),
    ({"s": {-0.0}}, "['s']", "set", "-0.0"),
    ({float("nan"), float("nan")}, "", "set", "NaN"),
    ({1: Colour.RED}, "[1]", "Colour", ""),
    ({Colour.RED: 1}, ".key(<Colour.RED: 1>)", "Colour", ""),
    ({"x": {(1, Colour.RED)}}, "['x']{(1, <Colour.RED: 1>)}[1]", "Colour", ""),
    (RemoteError("E", "m", cause={"c": 1j}), ".cause['c']", "complex", ""),
    (inside_itself(), "[0]['x']", "list", "contains itself"),
    (its_own_cause(), ".cause.cause['c']", "ValueError", "contains itself"),
    (["\ud83d\ude00"], "[0]", "str", "surrogates"),
    ({"\ud83d\ude00": 1, "x": "\ud800"}, "", "dict", "surrogates"),
    ([js.URL("a:\ud83d\ude00")], "[0]", "URL", "surrogates"),
    ([js.Map({1: ["\ud83d\ude00"]})], "[0][1][0]", "str", "surrogates"),
    ([ValueError("\ud83d\ude00")], "[0]", "ValueError", "surrogates"),
    (nested(23), "", "list", "Limits.depth"),
    (nested_sets(12), "", "a value", "Limits.depth"),
]


@pytest.mark.parametrize(("value", "path", "name", "reason"), REFUSED)
def test_what_superjson_has_no_counterpart_for_is_refused(
    value: Any, path: str, name: str, reason: str
) -> None:
    for message, root in (
        (Request("1", "m", [0, value]), "args[1]"),
        (Result("1", value), "result"),
        (Chunks("1", [value]), "value"),
        (Chunks("1", [0, value]), "values[1]"),
        (Set("1", ("p",), value), "value"),
        (Request("1", "m", [], kwargs={"k": value}), "kwargs['k']"),
    ):
        with pytest.raises(NotSerializable) as caught:
            make_encoder().encode(message)
        assert reason in caught.value.reason
        assert caught.value.type_name == name
        if "Limits" not in reason:
            assert caught.value.path == root + path
        assert not caught.value.needs_hello


def test_the_levels_that_a_value_takes() -> None:
    for lists, inner, fits in (
        (19, {1: 2}, True),
        (20, {1: 2}, False),
        (20, js.Map(), True),
        (20, b"x", True),
        (21, b"x", False),
        (21, js.Map(), False),
    ):
        value = inner
        for _ in range(lists):
            value = [value]
        if fits:
            assert places(back(value)) == places(value)
        else:
            with pytest.raises(NotSerializable, match=r"Limits\.depth"):
                write(value)


def test_nesting_up_to_the_limit_is_written_and_read() -> None:
    for value in (nested(21), js.Map({"a": nested(19)}), [js.Map({1: js.Map()})], nested_sets(9)):
        assert places(back(value)) == places(value)


def test_numpy_arrays_with_no_counterpart_are_refused() -> None:
    numpy = pytest.importorskip("numpy")
    for value in (
        numpy.zeros((2, 2)),
        numpy.zeros(2, "int64"),
        numpy.array(["x"]),
        numpy.array(1.0),
        numpy.array([math.nan]),
        numpy.float64(1),
    ):
        with pytest.raises(NotSerializable):
            write(value)
    assert back(numpy.array([1, 2], ">i2")) == array.array("h", [1, 2])


def test_an_error_is_reported_whatever_its_fields_are() -> None:
    fields = {"good": js.BigInt(1), "bad": object(), "deep": nested(40), "constructor": 1, "name": "x"}
    for message in (
        Failure("1", ErrorValue("E", "m\ud83d\ude00", cause=1j, fields=fields)),
        StreamFailure("1", ErrorValue("E", "m\ud83d\ude00", cause=1j, fields=fields)),
    ):
        line = encode(message)
        assert line["json"]["args"] == {"error": {"name": "E", "message": "m😀", "good": "1"}}
        assert line["meta"] == {"values": {"args.error.good": ["bigint"]}, "v": 1}


def test_a_result_that_its_reader_would_take_for_a_stream_is_refused() -> None:
    for value in ({"__stream": True}, js.Object({"__stream": True})):
        with pytest.raises(NotSerializable, match="for a stream"):
            make_encoder().encode(Result("1", value))
    assert back(js.Map({"__stream": True})) == {"__stream": True}


def test_a_text_that_kkrpc_takes_for_a_function_is_refused() -> None:
    for message in (Request("1", "m", ["__callback__x"]), Construct("1", "m", ["__callback__x"])):
        with pytest.raises(NotSerializable, match="for a function"):
            make_encoder().encode(message)
        assert read(make_encoder(stock=False).encode(message)) == message
    named = Request("1", "m", ["__callback__x"], ("x",))
    assert read(make_encoder().encode(named)) == named


# --- messages -----------------------------------------------------------------------------------------

UNDEFINED_SLOTS = {"transferSlots": ["undefined"]}
FORMS: list[tuple[Message, dict[str, Any], dict[str, Any] | None]] = [
    (
        Request("1", "m", [1]),
        {
            "id": "1",
            "method": "m",
            "args": [1],
            "type": "request",
            "callbackIds": None,
            "transferSlots": None,
        },
        {"callbackIds": ["undefined"], "transferSlots": ["undefined"]},
    ),
    (
        Construct("1", "m", [], ("c",)),
        {
            "id": "1",
            "method": "m",
            "args": [],
            "type": "construct",
            "callbackIds": ["c"],
            "transferSlots": None,
        },
        UNDEFINED_SLOTS,
    ),
    (
        Request("1", "m", [], (), ("s",), {"k": js.UNDEFINED}, {"trace": 1}),
        {
            "id": "1",
            "method": "m",
            "args": [],
            "type": "request",
            "callbackIds": None,
            "streamIds": ["s"],
            "kwargs": {"k": None},
            "meta": {"trace": 1},
            "transferSlots": None,
        },
        {"callbackIds": ["undefined"], "kwargs.k": ["undefined"], "transferSlots": ["undefined"]},
    ),
    (
        Callback("1", "c", [js.UNDEFINED]),
        {"id": "1", "method": "c", "args": [None], "type": "callback", "transferSlots": None},
        {"args.0": ["undefined"], "transferSlots": ["undefined"]},
    ),
    (Get("1", ("a",)), {"id": "1", "method": "", "args": {}, "type": "get", "path": ["a"]}, None),
    (
        Set("1", ("a",), js.UNDEFINED),
        {
            "id": "1",
            "method": "",
            "args": {},
            "type": "set",
            "path": ["a"],
            "value": None,
            "transferSlots": None,
        },
        {"value": ["undefined"], "transferSlots": ["undefined"]},
    ),
    (
        Result("1"),
        {"id": "1", "method": "", "args": {"result": None}, "type": "response", "transferSlots": None},
        {"args.result": ["undefined"], "transferSlots": ["undefined"]},
    ),
    (
        Result(None, None),
        {"method": "", "args": {"result": None}, "type": "response", "transferSlots": None},
        UNDEFINED_SLOTS,
    ),
    (
        Failure("1", ErrorValue("Error", "text", bare=True)),
        {"id": "1", "method": "", "args": {"error": "text"}, "type": "response"},
        None,
    ),
    (
        StreamOpened("1"),
        {
            "id": "1",
            "method": "",
            "args": {"result": {"__stream": True}},
            "type": "response",
            "transferSlots": None,
        },
        UNDEFINED_SLOTS,
    ),
    (
        Chunks("1", [1, js.UNDEFINED]),
        {
            "id": "1",
            "method": "",
            "args": {"values": [1, None]},
            "type": "stream-chunk",
            "transferSlots": None,
        },
        {"args.values.1": ["undefined"], "transferSlots": ["undefined"]},
    ),
    (StreamEnd("1"), {"id": "1", "method": "", "args": {}, "type": "stream-end"}, None),
    (
        StreamEnd("1", {1}, cancelled=True),
        {"id": "1", "method": "", "args": {"result": [1], "cancelled": True}, "type": "stream-end"},
        {"args.result": ["set"]},
    ),
    (StreamCancel("1"), {"id": "1", "method": "", "args": {}, "type": "stream-cancel"}, None),
    (StreamAck("1", 3, 4), {"id": "1", "method": "", "args": {"n": 3, "b": 4}, "type": "stream-ack"}, None),
]


@pytest.mark.parametrize(("message", "form", "types_"), FORMS)
def test_the_form_of_each_message(
    message: Message, form: dict[str, Any], types_: dict[str, Any] | None
) -> None:
    line = encode(message)
    assert list(line["json"].items()) == [*form.items(), ("version", "superjson")]
    assert list(line) == (["json", "meta"] if types_ else ["json"])
    if types_:
        assert line["meta"] == {"values": types_, "v": 1}
    assert read(line) == message


def test_a_result_that_is_undefined_is_none_at_all() -> None:
    assert encode(Result("1", js.UNDEFINED)) == encode(Result("1"))
    line = encode(StreamEnd("1", js.UNDEFINED))
    assert read(line) == StreamEnd("1")
    assert read(encode(Result("1", [js.UNDEFINED]))) == Result("1", [js.UNDEFINED])


@pytest.mark.parametrize(
    ("error", "type_"), [(None, "undefined"), ("NaN", "number"), ("-0", "number"), ("0", "bigint")]
)
def test_an_error_that_javascript_takes_for_false_is_none(error: Any, type_: str) -> None:
    line = {
        "json": {"id": "1", "args": {"result": 5, "error": error}, "type": "response"},
        "meta": {"values": {"args.error": [type_]}, "v": 1},
    }
    assert read(line) == Result("1", 5)


# --- which codec ----------------------------------------------------------------------------------------


def test_auto_answers_in_what_the_peer_wrote() -> None:
    encoder, decoder = make_encoder(codec="auto"), Decoder(LIMITS)
    date = dt.datetime(2024, 1, 1, tzinfo=UTC)
    assert encoder.encode(Result("1", 1)).startswith(b'{"id":')
    with pytest.raises(NotSerializable):
        encoder.encode(Result("1", date))
    assert not decoder.superjson
    decoder.receive(b'{"json":{"x":1}}\n{"json":[]}\n{"json":}\n{"id":"1","method":"m","type":"request"}\n')
    assert not decoder.superjson
    decoder.receive(make_encoder().encode(Get("1", ("a",))))
    assert decoder.superjson
    encoder.superjson = decoder.superjson
    assert read(encoder.encode(Result("1", date))) == Result("1", date)
    assert encoder.encode(Get("1", ("a",))).startswith(b'{"json":')
    encoder.cbor = True
    assert encoder.encode(Result("1", 1)).startswith(b'{"id":')
    assert encoder.encode(Result("1", date)).startswith(b"\xd8\x18")


def test_what_is_configured_is_written() -> None:
    for codec, first in (("json", b'{"id":'), ("cbor", b"\xd8\x18"), ("superjson", b'{"json":')):
        encoder = make_encoder(codec=codec)  # type: ignore[arg-type]  # mypy widens the literals
        for superjson in (encoder.superjson, True):
            encoder.superjson = superjson
            assert encoder.encode(Result("1", 1)).startswith(first)
            assert encoder.writes_superjson is (codec == "superjson")


def test_what_superjson_refuses_waits_for_cbor_where_that_may_come() -> None:
    encoder = make_encoder(codec="auto")
    encoder.superjson = encoder.pending = True
    assert encoder.encode(Result("1", {1})).startswith(b'{"json":')
    with pytest.raises(NotSerializable) as caught:
        encoder.encode(Result("1", [dt.date(2024, 1, 1)]))
    assert caught.value.needs_hello
    assert caught.value.path == "result[0]"
    with pytest.raises(NotSerializable) as caught:
        encoder.encode(Result("1", object()))
    assert not caught.value.needs_hello
    encoder.pending = False
    with pytest.raises(NotSerializable) as caught:
        encoder.encode(Result("1", dt.date(2024, 1, 1)))
    assert not caught.value.needs_hello


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 131_072])
def test_a_stock_line_never_has_the_length_that_kkrpc_loses(size: int) -> None:
    limits = Limits()
    empty = len(make_encoder(limits=limits).encode(Result("1", ""))) - 1
    message = Result("1", "x" * (size - empty))
    line = make_encoder(limits=limits).encode(message)
    assert len(line) - 1 == size + (size % 65_536 == 0)
    assert read(line, limits) == message
    assert len(make_encoder(limits=limits, stock=False).encode(message)) - 1 == size


def test_a_line_to_a_stock_peer_is_ascii() -> None:
    value = {"é\u2028": ["😀", "\ud800", js.URL("file:///é")]}
    for stock in (True, False):
        line = make_encoder(stock=stock).encode(Result("1", value))
        assert line.isascii() or not stock
        assert read(line) == Result("1", value)
    assert not make_encoder(stock=False).encode(Result("1", "é")).isascii()


def test_a_message_over_the_limit_is_not_written() -> None:
    with pytest.raises(LimitExceeded, match="the message takes 1001"):
        write("x" * 99_900)
    # What grows on the way is not even made.
    for value in (
        b"x" * 100_000,
        [[b"x" * 40_000] * 2],
        [0] * 60_000,
        {"k" * 2000: [{number} for number in range(60)]},
        {"k" * 2000: [[]] * 60},
    ):
        with pytest.raises(LimitExceeded, match="is larger than"):
            write(value)
    with pytest.raises(LimitExceeded, match="is larger than"):
        encode(Request("1", "m", [[0] * 30_000], kwargs={"k": [0] * 30_000}))


# --- what a peer may not send -----------------------------------------------------------------------------

DATE = "2024-01-01T00:00:00.000Z"
HOSTILE: dict[str, dict[str, Any]] = {
    # types
    "unknown type": request(["x"], {"args.0": ["Temporal"]}),
    "class": request([{}], {"args.0": [["class", "User"]]}),
    "symbol": request(["x"], {"args.0": [["symbol", "x"]]}),
    "custom": request(["x"], {"args.0": [["custom", "decimal"]]}),
    "typed array unknown": request([[1]], {"args.0": [["typed-array", "BigInt64Array"]]}),
    "typed array of three": request([[1]], {"args.0": [["typed-array", "Uint8Array", "x"]]}),
    "typed array unnamed": request([[1]], {"args.0": [["typed-array", None]]}),
    "type is a number": request([1], {"args.0": [7]}),
    "type is null": request([1], {"args.0": [None]}),
    "type is an object": request([1], {"args.0": [{}]}),
    "type is no list": request([1], {"args.0": "Date"}),
    "type is an empty list": request([1], {"args.0": []}),
    "type with three": request([[1]], {"args.0": ["set", {}, {}]}),
    "inner types are a list": request([[1]], {"args.0": ["set", ["0"]]}),
    # contents
    "Date of text": request(["yesterday"], {"args.0": ["Date"]}),
    "Date of a number": request([0], {"args.0": ["Date"]}),
    "Date without zone": request(["2024-01-01T00:00:00.000"], {"args.0": ["Date"]}),
    "Date that is none": request(["2024-02-30T00:00:00.000Z"], {"args.0": ["Date"]}),
    "Date in other digits": request(["٢024-01-01T00:00:00.000Z"], {"args.0": ["Date"]}),
    "Date before Python's": request(["0000-01-01T00:00:00.000Z"], {"args.0": ["Date"]}),
    "Date after Python's": request(["+275760-09-13T00:00:00.000Z"], {"args.0": ["Date"]}),
    "Date long before": request(["-000001-01-01T00:00:00.000Z"], {"args.0": ["Date"]}),
    "bigint of text": request(["x"], {"args.0": ["bigint"]}),
    "bigint of hexadecimal": request(["0x10"], {"args.0": ["bigint"]}),
    "bigint of nothing": request([""], {"args.0": ["bigint"]}),
    "bigint with a blank": request([" 1"], {"args.0": ["bigint"]}),
    "bigint with an underscore": request(["1_0"], {"args.0": ["bigint"]}),
    "bigint in other digits": request(["١"], {"args.0": ["bigint"]}),
    "bigint of a number": request([1], {"args.0": ["bigint"]}),
    "bigint too long": request(["9" * 61], {"args.0": ["bigint"]}),
    "number of text": request(["1"], {"args.0": ["number"]}),
    "number of a number": request([1], {"args.0": ["number"]}),
    "number of a list": request([[]], {"args.0": ["number"]}),
    "undefined of something": request([1], {"args.0": ["undefined"]}),
    "regexp without slashes": request(["abc"], {"args.0": ["regexp"]}),
    "regexp of one slash": request(["/"], {"args.0": ["regexp"]}),
    "regexp of nothing": request(["//g"], {"args.0": ["regexp"]}),
    "regexp with flags that are none": request(["/a/x"], {"args.0": ["regexp"]}),
    "regexp with a flag twice": request(["/a/gg"], {"args.0": ["regexp"]}),
    "regexp of a list": request([[]], {"args.0": ["regexp"]}),
    "URL of a number": request([1], {"args.0": ["URL"]}),
    "URL without a scheme": request(["x/y"], {"args.0": ["URL"]}),
    "bytes out of range": request([[256]], {"args.0": [["typed-array", "Uint8Array"]]}),
    "bytes below zero": request([[-1]], {"args.0": [["typed-array", "Uint8ClampedArray"]]}),
    "bytes with a fraction": request([[1.5]], {"args.0": [["typed-array", "Uint8Array"]]}),
    "bytes with true": request([[True]], {"args.0": [["typed-array", "Uint8Array"]]}),
    "bytes of text": request(["abc"], {"args.0": [["typed-array", "Uint8Array"]]}),
    "bytes of a number": request([10**9], {"args.0": [["typed-array", "Uint8Array"]]}),
    "integers out of range": request([[2**31]], {"args.0": [["typed-array", "Int32Array"]]}),
    "integers with null": request([[None]], {"args.0": [["typed-array", "Int8Array"]]}),
    "NaN lost": request([[1, None]], {"args.0": [["typed-array", "Float64Array"]]}),
    "no single float": request([[0.1]], {"args.0": [["typed-array", "Float32Array"]]}),
    "no single float at all": request([[1e300]], {"args.0": [["typed-array", "Float32Array"]]}),
    "Error of text": request(["x"], {"args.0": ["Error"]}),
    "Error of a list": request([[]], {"args.0": ["Error"]}),
    "Error without name": request([{"message": "x"}], {"args.0": ["Error"]}),
    "Error without text": request([{"name": "x", "message": 1}], {"args.0": ["Error"]}),
    "set of an object": request([{}], {"args.0": ["set"]}),
    "map of an object": request([{}], {"args.0": ["map"]}),
    "map of values": request([[1]], {"args.0": ["map"]}),
    "map of singles": request([[[1]]], {"args.0": ["map"]}),
    "map of threes": request([[[1, 2, 3]]], {"args.0": ["map"]}),
    "map of a set's rows": request([[[1, 2]]], {"args.0": ["map", {"0": ["set"]}]}),
    "map of bytes for rows": request([[[1, 2]]], {"args.0": ["map", {"0": [["typed-array", "Uint8Array"]]}]}),
    # what Python cannot hold
    "set of 1 and true": request([[1, True]], {"args.0": ["set"]}),
    "set of 1 and 1n": request([[1, "1"]], {"args.0": ["set", {"1": ["bigint"]}]}),
    "set of twice the same": request([[1, 1]], {"args.0": ["set"]}),
    "set of two equal dates": request([[DATE, DATE]], {"args.0": ["set", {"0": ["Date"], "1": ["Date"]}]}),
    "set of text and its URL": request([["a:b", "a:b"]], {"args.0": ["set", {"0": ["URL"]}]}),
    "set of NaN twice": request([["NaN", "NaN"]], {"args.0": ["set", {"0": ["number"], "1": ["number"]}]}),
    "set of a map": request([[[]]], {"args.0": ["set", {"0": ["map"]}]}),
    "set of an array": request([[[1]]], {"args.0": ["set", {"0": [["typed-array", "Int8Array"]]}]}),
    "map of 0 and false": request([[[0, 1], [False, 2]]], {"args.0": ["map"]}),
    "map with a map as key": request([[[[], 1]]], {"args.0": ["map", {"0.0": ["map"]}]}),
    # paths
    "path through __proto__": request([{"__proto__": {"x": DATE}}], {"args.0.__proto__.x": ["Date"]}),
    "path to constructor": request([{"constructor": DATE}], {"args.0.constructor": ["Date"]}),
    "path to prototype within": request(
        [[{"prototype": DATE}]], {"args.0": ["set", {"0.prototype": ["Date"]}]}
    ),
    "path out of range": request([1], {"args.1": ["undefined"]}),
    "path far out of range": request([1], {"args.99999999999999999999": ["undefined"]}),
    "path below zero": request([1], {"args.-1": ["undefined"]}),
    "path to 00": request([None], {"args.00": ["undefined"]}),
    "path to +0": request([None], {"args.+0": ["undefined"]}),
    "path to 0.0": request([None], {"args.0.0": ["undefined"]}),
    "path in other digits": request([None], {"args.٠": ["undefined"]}),
    "path to length": request([None], {"args.length": ["undefined"]}),
    "path to nothing": request([{}], {"args.0.x": ["undefined"]}),
    "path through nothing": request([{}], {"args.0.x.y": ["undefined"]}),
    "path through text": request(["abc"], {"args.0.0": ["Date"]}),
    "path through null": request([None], {"args.0.x": ["undefined"]}),
    "path within a Date": request([DATE], {"args.0": ["Date", {"0": ["undefined"]}]}),
    "path within bytes": request([[1]], {"args.0": [["typed-array", "Uint8Array"], {"0": ["undefined"]}]}),
    "path through bytes": request(
        [["1"]], {"args.0": [["typed-array", "Uint8Array"]], "args.0.0": ["bigint"]}
    ),
    "path empty": request([None], {"": ["undefined"]}),
    "path ending in a dot": request([None], {"args.": ["undefined"]}),
    "path escaping nothing": request([{"\\x": None}], {"args.0.\\x": ["undefined"]}),
    "path escaping its end": request([{"\\": None}], {"args.0.\\": ["undefined"]}),
    "path to a row": request([[[1, 2]]], {"args.0": ["map", {"0": ["undefined"]}]}),
    "twice the same place": request([DATE], {"args.0": ["Date"], "args": {"0": ["Date"]}}),
    "twice the same box": request([[]], {"args.0": ["set"], "args": {"0": ["map"]}}),
    # the message itself
    "args are a set": request([1], {"args": ["set"]}),
    "the id is a bigint": request([], {"id": ["bigint"]}),
    "the type is a Date": request([], {"type": ["Date"]}),
    "into the method": request([], {"method.0": ["Date"]}),
    "values is a list": request([], ["map"]),
    "values is text": request([], "Date"),
    "values is a number": request([], 7),
    "meta is a list": request([]) | {"meta": [1]},
    "meta is text": request([]) | {"meta": "x"},
    "v is text": request([None], {"args.0": ["undefined"]}, v="1"),
    "v is true": request([None], {"args.0": ["undefined"]}, v=True),
    # one object in several places
    "the message contains itself": request([1], equal=[["args.0"]]),
    "the message contains itself and more": request([1], equal=[["args.0"], {"args": ["args.0"]}]),
    "equalities are text": request([1], equal="args"),
    "equalities are a number": request([1], equal=1),
    "equal to text": request([1, 2], equal={"args.0": "args.1"}),
    "equal to a number": request([1, 2], equal={"args.0": [1]}),
    "equal out of range": request([1], equal={"args.0": ["args.1"]}),
    "equal to what is out of range": request([1], equal={"args.5": ["args.0"]}),
    "equal through text": request(["x", 1], equal={"args.1": ["args.0.0"]}),
    "equal through __proto__": request([{"__proto__": {}}, 1], equal={"args.1": ["args.0.__proto__.x"]}),
    "equal to the id": request([1], equal={"id": ["args.0"]}),
    "equal to the args": request([[]], equal={"args.0": ["args"]}),
    "equal into the method": request([1], equal={"args.0": ["method.0"]}),
    "a value contains itself": request([{"a": {}}], equal={"args.0": ["args.0.a"]}),
    "the args in one of them": request([[]], equal={"args": ["args.0"]}),
    "two contain each other": request([[0], [0]], equal={"args.0": ["args.1.0"], "args.1": ["args.0.0"]}),
    "a set contains itself": request([[[]]], {"args.0": ["set"]}, {"args.0": ["args.0.0"]}),
    "an error causes itself": request(
        [{"name": "E", "message": "", "cause": None}], {"args.0": ["Error"]}, {"args.0": ["args.0.cause"]}
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_superjson_does_not_write_is_not_read(name: str) -> None:
    line = HOSTILE[name]
    message = read(line)
    assert isinstance(message, Malformed), message
    assert (message.id, message.type) == ("1", "request")
    assert ("contain" in name or "causes" in name) == ("contains itself" in message.reason)


def test_a_malformed_line_says_where() -> None:
    message = read(request([{"x": [["yesterday"]]}], {"args.0.x": ["set", {"0.0": ["Date"]}]}))
    assert isinstance(message, Malformed)
    assert message.reason.startswith("superjson: at 'args.0.x': at '0.0': no Date")


def test_what_is_no_message_is_noise() -> None:
    for line in (
        '{"json":',
        '{"json":1}',
        '{"json":null,"meta":{}}',
        '{"json":{}}',
        '{"json":{"type":"nothing","id":"1"}}',
        '{"json":{"type":["request"],"id":"1"},"meta":{"values":7}}',
        '{"json":{"type":"request","id":"1"},}',
        '{"json":{"type":"request","id":NaN}}',
        '{"json":{"type":"request"}} x',
        '{"json":' + "[" * 50,
        '{"json":{"json":{"id":"1","type":"request","method":"m"}}}',
    ):
        decoder = Decoder(LIMITS)
        [(message, _)] = decoder.receive(line.encode() + b"\n")
        assert isinstance(message, Noise), line
        assert not decoder.superjson


def test_limits_hold_for_a_line() -> None:
    deep = '{"json":{"id":"1","method":"m","type":"request","args":' + "[" * 22 + "]" * 22 + "}}"
    assert isinstance(read(deep), Request)
    for line in (
        '{"json":{"id":"1","method":"m","type":"request","args":' + "[" * 23 + "]" * 23 + "}}",
        '{"json":{"id":"1","method":"m","type":"request","args":[' + "9" * 61 + "]}}",
        '{"json":{"id":"1","method":"m","type":"request","args":[]},"meta":' + "[" * 24 + "]" * 24 + "}",
    ):
        message = read(line)
        assert isinstance(message, Malformed)
        assert (message.id, message.type) == ("1", "request")
    decoder = Decoder(LIMITS)
    [(message, _)] = decoder.receive(b'{"json":' + b" " * 100_000)
    assert isinstance(message, Broken)
    assert isinstance(message.error, LimitExceeded)


def test_a_number_that_no_double_holds_is_refused() -> None:
    limits = Limits(digits=2000)
    message = read('{"json":{"id":"1","method":"m","type":"request","args":[' + "9" * 400 + "]}}", limits)
    assert isinstance(message, Malformed | Noise)


def test_nothing_grows_beyond_what_was_sent() -> None:
    # Each value holds the one before twice.
    depth = 16
    line = request([[0]] + [[0, 0]] * depth)
    equal = {f"args.{number}": [f"args.{number + 1}.0", f"args.{number + 1}.1"] for number in range(depth)}
    line["meta"]["referentialEqualities"] = equal
    message = read(line, Limits())
    assert isinstance(message, Malformed)
    assert "more places" in message.reason
    # Each holds the one before once, which nests them deeper than JSON ever could.
    line = request([[0]] * 100)
    line["meta"]["referentialEqualities"] = {
        f"args.{number}": [f"args.{number + 1}.0"] for number in range(99)
    }
    message = read(line)
    assert isinstance(message, Malformed)
    assert "Limits.depth" in message.reason


def test_members_that_share_a_hash_are_refused() -> None:
    members = [str(number * sys.hash_info.modulus) for number in range(1, 100)]
    line = request([members], {"args.0": ["set", {str(index): ["bigint"] for index in range(99)}]})
    message = read(line)
    assert isinstance(message, Malformed)
    assert "one hash" in message.reason


def test_a_place_that_a_function_left_is_no_fault() -> None:
    # `{a: f, b: f, c: [f, f]}`: JavaScript leaves functions away, or writes null; superjson names the places.
    line = request(
        [{"c": [None, None], "d": {}}],
        equal={"args.0.a": ["args.0.b", "args.0.c.0", "args.0.c.1"], "args.0.c.0": ["args.0.d.x"]},
    )
    assert read(line) == Request("1", "m", [{"c": [None, None], "d": {}}])


def test_paths_of_superjson_before_its_first_version_of_them() -> None:
    # 2.2.2 writes no `v`, and no escape for a backslash.
    sent = [{"a.b": DATE, "c\\d": "5", "e\\.f": None}]
    types_ = {"args.0.a\\.b": ["Date"], "args.0.c\\d": ["bigint"], "args.0.e\\\\.f": ["undefined"]}
    line = request(sent, types_)
    del line["meta"]["v"]
    [found] = arguments_of(line)
    assert found == {"a.b": dt.datetime(2024, 1, 1, tzinfo=UTC), "c\\d": js.BigInt(5), "e\\.f": js.UNDEFINED}
    assert isinstance(read(request(sent, types_)), Malformed)
    for version in (1, 1.0, 2):
        assert arguments([{"c\\d": "5"}], {"args.0.c\\\\d": ["bigint"]}, v=version) == [{"c\\d": 5}]


def arguments_of(line: dict[str, Any]) -> list[Any]:
    message = read(line)
    assert isinstance(message, Request), message
    return message.args


@given(st.lists(st.text(st.sampled_from("a.\\0")), min_size=1))
def test_a_path_is_its_keys(keys: list[str]) -> None:
    assert parse_path(".".join(map(escaped, keys)), legacy=False) == keys


def test_types_may_stand_in_a_tree_without_a_type_of_its_own() -> None:
    assert arguments([{"a": DATE}], {"args": {"0": {"a": ["Date"]}}}) == [
        {"a": dt.datetime(2024, 1, 1, tzinfo=UTC)}
    ]


def test_a_buffer_of_node_is_bytes() -> None:
    assert arguments([[1, 255]], {"args.0": [["typed-array", "Buffer"]]}) == [b"\x01\xff"]


def test_keys_that_only_look_dangerous_are_keys() -> None:
    sent = {"__proto__": 1, "constructor": {"prototype": 2}}
    assert arguments([sent]) == [sent]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats()
    | st.text(max_size=3)
    | st.just(DATE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)
type_names = st.sampled_from(
    [
        "Date",
        "bigint",
        "undefined",
        "set",
        "map",
        "Error",
        "number",
        "regexp",
        "URL",
        "x",
        ["typed-array", "Int8Array"],
    ]
)
paths = st.lists(st.sampled_from(["0", "1", "2", "", "a", "\\", "cause", "__proto__"]), max_size=3).map(
    lambda keys: ".".join(["args", *keys])
)
annotations = st.recursive(
    st.dictionaries(
        paths | st.sampled_from(["0", "0.0", "1"]), type_names.map(lambda name: [name]), max_size=3
    ),
    lambda inner: st.dictionaries(
        paths | st.sampled_from(["0", "0.0", "1"]), st.tuples(type_names, inner).map(list), max_size=3
    ),
    max_leaves=4,
)
equalities = st.dictionaries(paths, st.lists(paths, max_size=3), max_size=4)


@settings(max_examples=600, deadline=None)
@given(
    st.lists(json_values, max_size=3),
    annotations | json_values,
    equalities | json_values,
    st.sampled_from([1, None, 0, 2]),
)
def test_whatever_a_line_says_is_a_message_that_can_be_written_or_malformed(
    args: list[Any], types_: Any, equal: Any, version: Any
) -> None:
    line = request(args, types_, equal, v=version)
    message = read(json.dumps(line, separators=(",", ":")))
    if isinstance(message, Malformed):
        assert message.id == "1"
    elif isinstance(message, Noise):
        assert "NaN" in json.dumps(line) or "Infinity" in json.dumps(line)
    else:
        assert isinstance(message, Request)
        try:
            again = make_encoder().encode(message)
        except (NotSerializable, LimitExceeded):
            return
        assert places(arguments_of(json.loads(again))) == places(message.args)


# --- the types ----------------------------------------------------------------------------------------


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own


def test_undefined_is_one_and_false() -> None:
    assert js.UNDEFINED is js.Undefined()
    assert not js.UNDEFINED
    assert copy.deepcopy([js.UNDEFINED]) == [js.UNDEFINED]
    assert pickled(js.UNDEFINED) is js.UNDEFINED
    assert js.UNDEFINED != None  # noqa: E711 - by their equality
    assert repr(js.UNDEFINED) == "UNDEFINED"


def test_the_types_are_values() -> None:
    for value, text in (
        (js.BigInt(5), "BigInt(5)"),
        (js.Map({"a": 1}), "Map({'a': 1})"),
        (js.RegExp("a", "yg"), "RegExp('a', 'gy')"),
        (js.URL("a:b"), "URL('a:b')"),
        (js.Uint8ClampedArray(b"x"), "Uint8ClampedArray(b'x')"),
    ):
        assert repr(value) == text
        for other in (copy.deepcopy(value), pickled(value)):
            assert type(other) is type(value)
            assert other == value
    assert js.RegExp("a") != js.RegExp("a", "g")
    assert len({js.RegExp("a", "gi"), js.RegExp("a", "ig")}) == 1
    assert js.RegExp("a") != "a"


def test_objects_and_arrays_are_equal_to_themselves_alone() -> None:
    for value, other in ((js.Object({"a": 1}), js.Object({"a": 1})), (js.Array([1]), js.Array([1]))):
        assert value == value
        assert value != other
        assert len({value, other}) == 2
        value.clear()  # its hash is its own, whatever is in it
        assert value in [other, value]
        assert type(copy.copy(other)) is type(other)
    assert repr(js.Object({"a": 1})) == "Object({'a': 1})"
    assert repr(js.Array([1])) == "Array([1])"


def test_what_is_no_regexp_or_url_is_refused_where_it_is_made() -> None:
    for source, flags in (("a", "x"), ("a", "gg"), ("a\nb", ""), ("\u2028", "")):
        with pytest.raises(ValueError):
            js.RegExp(source, flags)
    with pytest.raises(ValueError):
        js.URL("x/y")


def test_json_and_cbor_refuse_what_superjson_alone_carries() -> None:
    for value in (
        js.UNDEFINED,
        js.RegExp("a"),
        js.URL("a:b"),
        js.Uint8ClampedArray(b""),
        js.Object(),
        js.Array(),
    ):
        for codec in ("json", "cbor"):
            with pytest.raises(NotSerializable):
                make_encoder(codec=codec).encode(Result("1", value))  # type: ignore[arg-type]  # as above
