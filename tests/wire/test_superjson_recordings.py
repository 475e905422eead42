"""Every line that real kkrpc 0.7 peers wrote in superjson is read, and written again byte for byte."""

from __future__ import annotations

import datetime as dt
import json
import math
from pathlib import Path
from typing import Any

import pytest

from kkrpc_py.errors import RemoteError
from kkrpc_py.limits import Limits
from kkrpc_py.wire import js
from kkrpc_py.wire.codec import Decoder, Encoder, frame_size
from kkrpc_py.wire.messages import Broken, Failure, Malformed, Message, Noise, Request, Result

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings" / "classic-superjson"
SCENARIOS = sorted(path.name for path in RECORDINGS.glob("*.jsonl"))


def lines(name: str) -> list[bytes]:
    rows = (RECORDINGS / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(row)["line"].encode() for row in rows]


def read(line: bytes) -> Message:
    decoder = Decoder(Limits())
    [(message, size)] = decoder.receive(line + b"\n")
    assert not isinstance(message, (Noise, Broken, Malformed))
    assert size == len(line)
    assert decoder.superjson
    return message


def recorded(name: str) -> list[Message]:
    return [read(line) for line in lines(name)]


def test_there_are_recordings() -> None:
    assert len(SCENARIOS) >= 20


def canonical(line: bytes) -> Any:
    """The line's content with the members of a Set, whose order Python does not keep, in one order."""
    found = json.loads(line)
    if "set" in json.dumps(found.get("meta", {})):
        result = found["json"]["args"]
        members = result["result"]["set"] if isinstance(result, dict) and "set" in result["result"] else []
        members.sort(key=str)
    return found


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_recorded_line_is_read_and_written_again(name: str) -> None:
    encoder = Encoder("superjson", Limits())
    encoder.stock = False  # kkrpc writes UTF-8, as we do only to our own kind
    for line in lines(name):
        written = encoder.encode(read(line))
        assert frame_size(written) == len(line)
        if b'["set"]' in line:
            assert canonical(written) == canonical(line)
        else:
            assert written == line + b"\n"


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_is_written_to_a_stock_peer_reads_the_same_and_is_ascii(name: str) -> None:
    encoder = Encoder("auto", Limits())
    encoder.superjson = True
    for line in lines(name):
        written = encoder.encode(read(line))
        assert written.isascii()
        assert written.startswith(b'{"json":')
        assert json.loads(written).keys() == json.loads(line).keys()


def test_the_types_of_a_recorded_result() -> None:
    _, answer = recorded("dates.jsonl")
    assert isinstance(answer, Result)
    value = answer.value
    assert value["date"] == dt.datetime(2024, 1, 2, 3, 4, 5, 678_000, dt.UTC)
    assert type(value["map"]) is js.Map
    assert value["map"] == {"a": 1, "b": {"nested": True}}
    assert value["set"] == {1, "two", 3}
    assert type(value["big"]) is js.BigInt
    assert value["big"] == 12345678901234567890
    assert value["undef"] is js.UNDEFINED
    assert math.isnan(value["nan"])
    assert value["inf"] == -math.inf
    assert math.copysign(1, value["negzero"]) == -1
    assert value["regexp"] == js.RegExp("a+b", "gi")
    assert type(value["url"]) is js.URL
    assert value["url"] == "https://example.org/x?y=1"
    assert value["bytes"] == b"\0\1\xfe\xff"
    assert isinstance(value["err"], RemoteError)
    assert isinstance(value["err"], TypeError)
    assert (value["err"].name, value["err"].message) == ("TypeError", "as a value")


def test_a_recorded_error_has_its_cause_as_an_error() -> None:
    _, answer, _, plain = recorded("customError.jsonl")
    assert isinstance(answer, Failure)
    assert isinstance(answer.error.cause, RemoteError)
    assert answer.error.cause.message == "root cause"
    assert answer.error.fields["code"] == "E_VALID"
    assert isinstance(plain, Failure)
    assert plain.error.cause == {"reason": "disk full", "errno": 28}


def test_recorded_keys_with_dots_and_backslashes() -> None:
    values = [message.value for message in recorded("datesArguments.jsonl") if isinstance(message, Result)]
    assert {"a.b": dt.datetime(1970, 1, 1, tzinfo=dt.UTC), "c\\d": 1} in values
    assert {"a.b": dt.datetime(1970, 1, 1, 0, 0, 0, 1000, dt.UTC), "c\\.d": {"e.f": 3}} in values


def test_recorded_values_in_two_places_are_one_object() -> None:
    [one, other] = next(
        message.args[0]
        for message in recorded("echo.jsonl")
        if isinstance(message, Request) and message.args == [[{"k": 1}, {"k": 1}]]
    )
    assert one is other


def test_a_recorded_map_with_an_object_as_key() -> None:
    [found] = [
        message.value
        for message in recorded("datesArguments.jsonl")
        if isinstance(message, Result) and type(message.value) is js.Map
    ]
    [(key, value)] = found.items()
    assert type(key) is js.Object
    assert dict(key) == {"a": 1}
    assert found[key] == value == {2}
    assert {type(member) for member in value} == {js.BigInt}


def test_a_result_that_is_undefined_is_none_and_null_is_null() -> None:
    answers = [message for message in recorded("undefined.jsonl") if isinstance(message, Result)]
    assert answers[0] == Result(answers[0].id)
    assert answers[1] == Result(answers[1].id, None)
    requests = [message for message in recorded("undefined.jsonl") if isinstance(message, Request)]
    assert requests[-1].args == [1, js.UNDEFINED, None]


def test_bytes_in_the_form_that_kkrpc_has_for_json_mean_nothing_here() -> None:
    form = {"type": "Uint8Array", "data": [1, 2]}
    written = Encoder("superjson", Limits()).encode(Result("1", form))
    assert read(written[:-1]) == Result("1", form)
    assert b"typed-array" not in written
