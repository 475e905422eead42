"""The codec vectors of spec/conformance/vectors, played straight against this library's codec and its judges.

The kit plays the same vectors through a testee. Here each one meets `Encoder` and `Decoder` without a
process between, and what the vector says is held against readers that are none of ours: Python's json, cbor2,
and npm's superjson in a Node child.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import shutil
import struct
import subprocess
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import cbor2
import pytest

from kkrpc_py.conformance import wire
from kkrpc_py.conformance.cbor import words_of
from kkrpc_py.conformance.words import from_words, to_words
from kkrpc_py.errors import ProtocolError, RemoteError
from kkrpc_py.limits import Limits
from kkrpc_py.wire import js
from kkrpc_py.wire.arrays import Tensor
from kkrpc_py.wire.codec import Decoder, Encoder
from kkrpc_py.wire.messages import Broken, Malformed, Noise, Request, Result

ROOT = Path(__file__).resolve().parents[2]
NODE_DIR = ROOT / "tests" / "node"
CODECS = ("json", "cbor", "superjson")
ID = "vector"

Vector = dict[str, Any]


def vectors_of(codec: str) -> list[Vector]:
    text = (ROOT / "spec" / "conformance" / "vectors" / f"{codec}.json").read_text(encoding="ascii")
    found: list[Vector] = json.loads(text)["vectors"]
    return found


VECTORS = [vector for codec in CODECS for vector in vectors_of(codec)]


def those(direction: str, *codecs: str) -> Any:
    """The vectors of a direction, as the cases of a test."""
    chosen = [v for v in VECTORS if direction in v["directions"] and v["codec"] in (codecs or CODECS)]
    return pytest.mark.parametrize("vector", chosen, ids=[vector["id"] for vector in chosen])


def test_there_are_enough_of_them() -> None:
    counts = Counter(vector["codec"] for vector in VECTORS)
    assert counts["json"] >= 40
    assert counts["cbor"] >= 90
    assert counts["superjson"] >= 40
    assert len({vector["id"] for vector in VECTORS}) == len(VECTORS)


def test_no_two_of_a_codec_say_the_same() -> None:
    counts = Counter((vector["codec"], vector["hex"]) for vector in VECTORS)
    assert [key for key, count in counts.items() if count > 1] == []


# --- words --------------------------------------------------------------------------------------


def javascript_words(value: Any) -> dict[str, Any] | None:
    """The words of what superjson carries beside Python's own types."""
    match value:
        case js.Undefined():
            return {"undefined": True}
        case js.RegExp():
            return {"regexp": f"/{value.source}/{value.flags}"}
        case js.URL():
            return {"url": str(value)}
        case RemoteError():
            return {"error": {"name": value.name, "message": value.message}}
    return None


def regexp(text: str) -> js.RegExp:
    source, _, flags = text[1:].rpartition("/")
    return js.RegExp(source, flags)


def value_of(words: Any) -> Any:
    return from_words(
        words,
        undefined=lambda _: js.UNDEFINED,
        regexp=regexp,
        url=js.URL,
        error=lambda told: RemoteError(told["name"], told["message"]),
        array=array_of,
    )


def array_of(told: Any) -> Any:
    """An array, and one of numpy where there is more than one dimension: no other has a shape here."""
    flat = from_words({"array": told | {"shape": [len(told["items"])]}})
    if told["shape"] == [len(flat)]:
        return flat
    numpy = pytest.importorskip("numpy")
    return Tensor.of(numpy, numpy.array(flat, flat.typecode).reshape(told["shape"]))


def in_one_order(words: Any) -> Any:
    """Words with the members of each set in one order, so that equal values are equal."""
    if isinstance(words, list):
        return [in_one_order(item) for item in words]
    if not isinstance(words, dict):
        return words
    found = {name: in_one_order(content) for name, content in words.items()}
    if list(found) == ["set"]:
        found["set"].sort(key=json.dumps)
    return found


# --- decode -------------------------------------------------------------------------------------


def frame_of(vector: Vector) -> bytes:
    """The request `tag` with the vector's bytes as its one argument, as they are."""
    data = bytes.fromhex(vector["hex"])
    if vector["codec"] == "cbor":
        head, tail = {"id": ID, "method": "tag"}, {"type": "request", "version": "json"}
        payload = b"\xa5" + cbor2.dumps(head)[1:] + b"dargs\x81" + data + cbor2.dumps(tail)[1:]
        return wire.cbor_frame(payload)
    if vector["codec"] == "json":
        return b'{"id":"%b","method":"tag","args":[%b],"type":"request"}\n' % (ID.encode(), data)
    return superjson_line(json.loads(data)).encode() + b"\n"


def superjson_line(vector: dict[str, Any]) -> str:
    """The value with its annotations, whose paths begin at it, as the one argument of a message."""
    message = {"id": ID, "method": "tag", "args": [vector["json"]], "type": "request"}
    meta = vector.get("meta")
    if isinstance(meta, dict):
        meta = dict(meta)
        values, equal = meta.get("values"), meta.get("referentialEqualities")
        if isinstance(values, list):
            meta["values"] = {"args.0": values}
        elif isinstance(values, dict):
            meta["values"] = {f"args.0.{path}": found for path, found in values.items()}
        if isinstance(equal, dict):
            meta["referentialEqualities"] = {
                f"args.0.{path}": [f"args.0.{other}" for other in others] for path, others in equal.items()
            }
    line = {"json": message} if meta is None else {"json": message, "meta": meta}
    return json.dumps(line, separators=(",", ":"))


@those("decode")
def test_what_the_decoder_makes_of_the_bytes_is_what_the_vector_says(vector: Vector) -> None:
    decoder = Decoder(Limits())
    frame = frame_of(vector)
    [(item, _), *more] = decoder.receive(frame)
    assert more == []
    error = vector.get("error")
    if error is None:
        assert isinstance(item, Request), item
        assert in_one_order(to_words(item.args[0], other=javascript_words)) == in_one_order(vector["value"])
    elif error == "malformed":
        assert isinstance(item, Malformed), item
        assert (item.id, item.type) == (ID, "request")
    elif error == "noise":
        assert isinstance(item, Noise), item
    else:
        assert error == "frame"
        assert isinstance(item, Broken), item
        assert isinstance(item.error, ProtocolError)
    if error != "frame":
        # Whatever it was, the next message is read.
        [(after, _)] = decoder.receive(b'{"id":"after","method":"m","args":[],"type":"request"}\n')
        assert after == Request("after", "m", [])


# --- encode -------------------------------------------------------------------------------------


@those("encode")
def test_what_the_encoder_writes_carries_the_value(vector: Vector) -> None:
    codec = vector["codec"]
    encoder = Encoder("auto", Limits())
    encoder.stock = codec != "cbor"
    encoder.cbor = codec == "cbor"
    encoder.superjson = codec == "superjson"
    frame = encoder.encode(Result(ID, value_of(vector["value"])))
    [message] = wire.Splitter().feed(frame)
    assert isinstance(message, wire.Message), message
    assert message.serialization in ({"cbor", "json"} if codec == "cbor" else {codec})
    assert message.fields["id"] == ID
    found = words_of(message.fields["args"]["result"])
    wanted = vector["value"]
    if message.serialization == "superjson":
        found, wanted = as_doubles(found), as_doubles(wanted)
    assert in_one_order(found) == in_one_order(wanted)


# --- judges -------------------------------------------------------------------------------------

IN_CBOR = [vector for vector in VECTORS if vector["codec"] == "cbor"]


def stdlib(text: bytes) -> Any:
    return json.loads(text.decode(), parse_constant=refuse, parse_float=finite)


def refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else refuse(text)


def bytes_told(words: Any) -> Any:
    """Bytes as what JSON says in their place: numbers, which are there modulo 256 already."""
    if isinstance(words, list):
        return [bytes_told(item) for item in words]
    if not isinstance(words, dict):
        return words
    if "bytes" in words:
        data = [{"int": str(number)} for number in bytes.fromhex(words["bytes"])]
        return {"map": [[{"text": "type"}, {"text": "Uint8Array"}], [{"text": "data"}, {"list": data}]]}
    return {name: bytes_told(content) for name, content in words.items()}


# What the judge reads otherwise: numbers that are taken modulo 256, keys in another order.
NOT_PYTHONS_JSON = {
    "val-4/numbers-modulo-256",
    "val-4/numbers-without-their-fraction",
    "val-4/the-keys-of-bytes-in-the-other-order",
}


@those("decode", "json")
def test_pythons_json_reads_the_same(vector: Vector) -> None:
    data = bytes.fromhex(vector["hex"])
    if vector.get("error") == "noise":
        with pytest.raises(ValueError):
            strict(data)
    elif "value" in vector:
        same = to_words(stdlib(data)) == bytes_told(vector["value"])
        assert same == (vector["id"] not in NOT_PYTHONS_JSON)
    else:
        assert "limits" in vector["features"]


def strict(data: bytes) -> Any:
    # Python strips what str.isspace says around the text, never within.
    return stdlib(b"[" + data + b"]")


# RFC 9164 has text or an integer for a zone, cbor2 an integer or bytes.
NOT_CBOR2S = {"val-6/an-address-with-a-zone"}


def cbor2_reads(vector: Vector) -> bool:
    """Whether the judge knows the types; typed arrays and extended decimals it leaves as tags."""
    text = json.dumps(vector["value"])
    extended = any(f'"decimal": "{name}' in text for name in ("NaN", "Inf", "-I"))
    return vector["id"] not in NOT_CBOR2S and '"array"' not in text and not extended


@those("decode", "cbor")
def test_cbor2_reads_the_same(vector: Vector) -> None:
    data = bytes.fromhex(vector["hex"])
    if vector.get("error") == "frame":
        assert not well_formed(data)
    elif vector.get("error") == "malformed":
        # Well-formed, as another reader sees it who knows no tag and minds no text.
        assert well_formed(data)
    else:
        assert well_formed(data)
        if cbor2_reads(vector):
            assert in_one_order(to_words(cbor2.loads(data))) == in_one_order(vector["value"])


def well_formed(data: bytes) -> bool:
    """RFC 8949, appendix C, for definite lengths; with text that is UTF-8, as FRM-3 has it."""
    try:
        return item_end(data, 0) == len(data)
    except (IndexError, UnicodeDecodeError):
        return False


def item_end(data: bytes, at: int) -> int:
    left = 1
    while left:
        major, info = data[at] >> 5, data[at] & 31
        at += 1
        if info > 27:
            raise IndexError("reserved, or not definite")
        size = 0 if info < 24 else 1 << (info - 24)
        if at + size > len(data):
            raise IndexError("cut short")
        argument = info if size == 0 else int.from_bytes(data[at : at + size])
        at += size
        if major == 7 and info == 24 and argument < 32:
            raise IndexError("a simple value in too many bytes")
        if major in (2, 3):
            start, at = at, at + argument
            if at > len(data):
                raise IndexError("cut short")
            if major == 3:
                data[start:at].decode()
        left += {4: argument, 5: 2 * argument, 6: 1}.get(major, 0) - 1
        if left > len(data) - at:
            raise IndexError("cut short")
    return at


@pytest.fixture(scope="module")
def superjson_told() -> dict[str, Any]:
    """What npm's superjson makes of the vectors that it should read, described, by their ids."""
    if shutil.which("node") is None or not (NODE_DIR / "node_modules" / "superjson").is_dir():
        reason = "Node or npm's superjson is not installed: run `npm ci` in tests/node"
        if os.environ.get("KKRPC_REQUIRE_NODE") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    chosen = [vector for vector in VECTORS if vector["codec"] == "superjson" and "value" in vector]
    questions = [["read", superjson_line(json.loads(bytes.fromhex(vector["hex"])))] for vector in chosen]
    done = subprocess.run(
        [shutil.which("node") or "node", str(NODE_DIR / "superjson_judge.mjs")],
        input="".join(json.dumps(question) + "\n" for question in questions),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    answers = map(json.loads, done.stdout.splitlines())
    return {vector["id"]: answer for vector, answer in zip(chosen, answers, strict=True)}


@pytest.mark.parametrize(
    "vector", [v for v in VECTORS if v["codec"] == "superjson" and "value" in v], ids=lambda v: str(v["id"])
)
def test_npms_superjson_reads_the_same(vector: Vector, superjson_told: dict[str, Any]) -> None:
    answer = superjson_told[vector["id"]]
    assert "error" not in answer
    [found] = args_of(answer["ok"]["described"])
    same = without_order(found) == without_order(vector["value"])
    assert same == (vector["id"] not in NOT_NPMS)


# superjson itself puts the object at the place where nothing stood.
NOT_NPMS = {"sup-8/a-place-that-is-a-missing-key-is-passed-over"}


def without_order(words: Any) -> Any:
    """As JavaScript tells values apart, and the keys of objects in one order, as the judge has them."""
    if isinstance(words, dict) and "map" in words:
        pairs = [list(map(without_order, pair)) for pair in words["map"]]
        return {"map": sorted(pairs, key=json.dumps)}
    if isinstance(words, dict):
        return {name: without_order(content) for name, content in in_one_order(as_doubles(words)).items()}
    return [without_order(item) for item in words] if isinstance(words, list) else words


def args_of(description: Any) -> list[Any]:
    kind, items = description
    assert kind == "Array"
    seen: dict[int, Any] = {}
    return [described(item, seen) for item in items]


def described(found: Any, seen: dict[int, Any]) -> Any:
    """A description (superjson_judge.mjs) in words, with all numbers as doubles."""
    match found:
        case None | bool() | str():
            return to_words(found)
        case ["again", number]:
            return seen[number]
        case ["shared", number, inner]:
            seen[number] = described(inner, seen)
            return seen[number]
        case ["number", bits]:
            return {"float": bits}
        case ["undefined"]:
            return {"undefined": True}
        case ["bigint", digits]:
            return {"int": digits}
        case ["Date", milliseconds]:
            when = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
            return to_words(when + datetime.timedelta(milliseconds=milliseconds))
        case ["RegExp", source, flags]:
            return {"regexp": f"/{source}/{flags}"}
        case ["URL", href]:
            return {"url": href}
        case ["Error", name, message, *_]:
            return {"error": {"name": name, "message": message}}
        case ["Array", items]:
            return {"list": [described(item, seen) for item in items]}
        case ["Set", items]:
            return {"set": [described(item, seen) for item in items]}
        case ["Map", pairs]:
            return {"map": [[described(key, seen), described(item, seen)] for key, item in pairs]}
        case ["Object", pairs]:
            return {"map": [[{"text": key}, described(item, seen)] for key, item in pairs]}
        case ["Uint8Array", items]:
            return {"bytes": bytes(int(float_of(bits)) for bits in items).hex()}
        case [str() as name, items] if name.endswith("Array"):
            size = name.removesuffix("Array").removeprefix("Int").removeprefix("Uint").removeprefix("Float")
            kind = ("f" if name[0] == "F" else name[0].lower()) + size
            numbers = [{"float": bits} for bits in items]
            return {"array": {"type": kind, "shape": [len(items)], "items": numbers}}
    raise AssertionError(f"an unknown description: {found}")


def float_of(bits: str) -> float:
    value: float = struct.unpack(">d", bytes.fromhex(bits))[0]
    return value


def as_doubles(words: Any) -> Any:
    """Words with every number as the double that it is in JavaScript; bigints stay what they are."""
    if isinstance(words, list):
        return [as_doubles(item) for item in words]
    if not isinstance(words, dict):
        return words
    if "int" in words and abs(int(words["int"])) < 2**53:
        return to_words(float(Decimal(words["int"])))
    return {name: as_doubles(content) for name, content in words.items()}
