"""Values written once for many: the frames are the ordinary encoder's, and no peer gets another value."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import functools
import math
from array import array
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kkrpc_py.core.passing import Passage
from kkrpc_py.errors import KkrpcError, LimitExceeded, NotSerializable
from kkrpc_py.limits import Limits
from kkrpc_py.wire import js, shared
from kkrpc_py.wire.cbor_codec import CborWriter
from kkrpc_py.wire.codec import Codec, Decoder, Encoder, frame_size
from kkrpc_py.wire.json_codec import JsonWriter
from kkrpc_py.wire.messages import Chunks
from kkrpc_py.wire.shared import Shared, SharedWriter
from kkrpc_py.wire.superjson_writer import SuperjsonWriter
from tests.wire.test_properties import canonical, cbor_values, json_values, unicode_text

pytestmark = pytest.mark.filterwarnings("error")
LIMITS = Limits()
WRITER = SharedWriter(LIMITS)

PEERS: dict[str, tuple[Codec, dict[str, bool]]] = {
    "a stock one": ("auto", {}),
    "a stock one that writes superjson": ("auto", {"superjson": True}),
    "one of our own": ("auto", {"stock": False, "cbor": True}),
    "one of our own that wrote superjson": ("auto", {"stock": False, "cbor": True, "superjson": True}),
    "one of our own without cbor": ("auto", {"stock": False}),
    "json, stock": ("json", {}),
    "json, our own": ("json", {"stock": False}),
    "superjson, stock": ("superjson", {}),
    "superjson, our own": ("superjson", {"stock": False}),
    "cbor, stock": ("cbor", {}),
    "cbor, our own": ("cbor", {"stock": False}),
}
"""Every state that a connection's encoder is in once it is settled: codec and switches."""


@functools.cache
def passage(peer: str, limits: Limits = LIMITS, hook: Any = None) -> Passage:
    codec, switches = PEERS[peer]
    encoder = Encoder(codec, limits)
    for name, switch in switches.items():
        setattr(encoder, name, switch)
    nothing: Any = None
    return Passage(encoder, limits, nothing, nothing, hook, None)


def outcome(encode: Callable[[], bytes]) -> bytes | str:
    """The frame, or the name of the error."""
    try:
        return encode()
    except KkrpcError as refusal:
        return type(refusal).__name__


def ordinary(peer: str, values: list[Any], id: Any = "1", **options: Any) -> bytes | str:
    return outcome(lambda: passage(peer, **options).encode(Chunks(id, values)))


def spliced(peer: str, chunks: list[Shared], id: Any = "1", **options: Any) -> bytes | str:
    return outcome(lambda: passage(peer, **options).encode_shared(Chunks(id, list(chunks))))


def arrived(frame: bytes) -> Any:
    [(message, _)] = Decoder(LIMITS).receive(frame)
    assert isinstance(message, Chunks)
    return message.values


# --- byte for byte ----------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


@dataclasses.dataclass
class Point:
    x: int
    y: Any


class Row(msgspec.Struct):
    name: str
    data: bytes = b""


VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "zero": 0,
    "the largest integer of javascript": 2**53 - 1,
    "one more": 2**53,
    "sixteen digits": 1_234_567_890_123_456,
    "seventeen": -12_345_678_901_234_567,
    "seventeen digits of text": "12345678901234567",
    "64 bits": 2**64 - 1,
    "65 bits": -(2**64) - 1,
    "70 digits": 10**70,
    "a float": 1.5,
    "minus zero": -0.0,
    "an integer as float": 1e16,
    "1e22": 1e22,
    "the largest float": 1.7976931348623157e308,
    "the smallest float": 5e-324,
    "nan": math.nan,
    "infinity": -math.inf,
    "no text": "",
    "two bytes": "é",
    "three bytes": "€",
    "four bytes": "😀",
    "line separators": "\u2028\u2029\x7f\x00\n",
    "half of a pair": "\ud800",
    "the other half beside text": "é\udc00é",
    "no bytes": b"",
    "bytes": b"\x00\xff",
    "many bytes": bytes(70_000),
    "a bytearray": bytearray(b"q"),
    "a memoryview": memoryview(b"zz"),
    "lists": [1, [2, [3, []]]],
    "a tuple": (1, ("a",)),
    "mappings": {"a": {"b": {}}},
    "keys of javascript": {"__proto__": 1, "constructor": 2, "a.b": 3, "a\\b": 4},
    "a number as key": {1: 2},
    "a tuple as key": {(1, "a"): 2},
    "what looks like bytes": {"type": "Uint8Array", "data": [1, 2]},
    "what hardly looks like bytes": {"type": "Uint8Array", "data": "no list"},
    "bytes beside half a pair": {"b": b"a", "s": "\ud800"},
    "what looks like a stream": {"__stream": True},
    "what looks like a callback": ["__callback__1", "__stream__1"],
    "a set": {1, 2},
    "a frozenset": frozenset("a"),
    "a moment": dt.datetime(2024, 1, 2, 3, tzinfo=dt.UTC),
    "a day": dt.date(2024, 1, 2),
    "a decimal": Decimal("1.10"),
    "a complex number": 1 + 2j,
    "a typed array": array("d", [1.5]),
    "a dataclass": Point(1, [Colour.RED]),
    "bytes in a dataclass": Point(1, b"x"),
    "an enum": Colour.BLUE,
    "an enum as key": {Colour.BLUE: 1},
    "a struct": Row("a"),
    "structs": [Row("a", b"b"), Point(2, dt.date(2024, 1, 2))],
}
UNSENDABLE: dict[str, Any] = {
    "a pair in two": "\ud83d\ude00",
    "a function": print,
    "a class": int,
    "an object": object(),
    "a generator": (number for number in ()),
    "an asynchronous iterable": type("Stream", (), {"__aiter__": lambda self: self})(),
    "a function within": {"deep": [lambda: None]},
    "undefined": js.UNDEFINED,
    "an error": ValueError("no"),
    "itself": (itself := []),
    "the second of two": [1, {2: object()}],
}
itself.append(itself)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_chunk_is_what_the_encoder_writes(value: Any) -> None:
    chunk, numbered = WRITER.share(value), WRITER.share_numbered(3, value)
    for peer in PEERS:
        assert spliced(peer, [chunk]) == ordinary(peer, [value]), peer
        assert spliced(peer, [numbered]) == ordinary(peer, [[3, value]]), peer


@pytest.mark.parametrize("value", ["text", b"bytes", "\ud800"])
def test_any_number(value: Any) -> None:
    for number in (1, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**53 - 1):
        chunk = WRITER.share_numbered(number, value)
        for peer in PEERS:
            assert spliced(peer, [chunk]) == ordinary(peer, [[number, value]]), peer


def as_given(peer: str, chunks: list[Shared], values: list[Any]) -> list[Any]:
    """What the encoder gets for the same chunks.

    superjson says what is one object in several places, which chunks never are.
    """
    if "superjson" in peer:
        return [chunk.value for chunk in chunks]
    return [[number, value] for number, value in enumerate(values)]


@pytest.mark.parametrize("peer", PEERS)
def test_a_batch_is_what_the_encoder_writes(peer: str) -> None:
    sendable = [
        value
        for name, value in VALUES.items()
        if type(ordinary(peer, [value])) is bytes and "half" not in name
    ]
    for values in (sendable, sendable[::-1], sendable * 6):
        chunks = [WRITER.share_numbered(number, value) for number, value in enumerate(values)]
        assert spliced(peer, chunks) == ordinary(peer, as_given(peer, chunks, values))


@pytest.mark.parametrize("peer", PEERS)
def test_any_number_of_chunks(peer: str) -> None:
    for count in (1, 2, 23, 24, 25, 255, 256, 257, 1024):
        values = [[number, {"n": number}] for number in range(count)]
        chunks = [WRITER.share_numbered(number, value) for number, value in values]
        frame = spliced(peer, chunks, "an id")
        assert frame == ordinary(peer, values, "an id")
        assert type(frame) is bytes
        assert arrived(frame) == values


@pytest.mark.parametrize("id", [0, 23, 24, -1, 2**40, "", "é€😀", 'quo"te\\', "x" * 23, "x" * 24, "x" * 256])
def test_any_id(id: Any) -> None:
    chunks = [WRITER.share(1), WRITER.share("é")]
    for peer in PEERS:
        assert spliced(peer, chunks[:1], id) == ordinary(peer, [1], id), peer
        assert spliced(peer, chunks, id) == ordinary(peer, [1, "é"], id), peer


@pytest.mark.parametrize("value", UNSENDABLE.values(), ids=UNSENDABLE)
def test_what_nobody_could_be_sent_is_refused_at_once(value: Any) -> None:
    for share in (WRITER.share, lambda value: WRITER.share_numbered(1, value)):
        with pytest.raises(NotSerializable) as refused:
            share(value)
        assert str(refused.value)


@pytest.mark.parametrize("peer", PEERS)
def test_a_value_for_some_peers_alone_is_refused_by_the_others(peer: str) -> None:
    """Whoever takes no CBOR is told in the ordinary way, and what could be sent beside it still can be."""
    fine, special = WRITER.share_numbered(1, "fine"), WRITER.share_numbered(2, {"a moment": Decimal("1.1")})
    refused = "cbor" not in PEERS[peer][1] and PEERS[peer][0] != "cbor"
    frame = spliced(peer, [fine, special])
    assert frame == ordinary(peer, [[1, "fine"], [2, {"a moment": Decimal("1.1")}]])
    assert (frame == "NotSerializable") is refused
    assert type(spliced(peer, [fine])) is bytes


def test_what_is_no_unicode_escapes_its_own_chunk() -> None:
    """The one difference: the encoder escapes the text of all the batch then."""
    values = [[1, "é"], [2, "\ud800"], [3, 1e16]]
    chunks = [WRITER.share_numbered(number, value) for number, value in values]
    frame = spliced("one of our own without cbor", chunks)
    assert type(frame) is bytes
    assert frame != ordinary("one of our own without cbor", values)
    assert arrived(frame) == values
    assert "é".encode() in frame


def test_a_line_that_kkrpc_would_lose_is_stretched() -> None:
    for size in range(65_536 - 120, 65_536 - 80):
        text = "x" * size
        assert spliced("json, stock", [WRITER.share(text)]) == ordinary("json, stock", [text])


values_of_all_kinds = json_values | cbor_values
ids = st.integers(-(2**53), 2**53) | unicode_text.filter(lambda text: len(text.encode()) <= 256)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(values_of_all_kinds, min_size=1, max_size=6),
    ids,
    st.sampled_from(sorted(PEERS)),
)
@example([{"type": "Uint8Array", "data": []}], "1", "one of our own")
@example(["\ud800", b""], 1, "one of our own")
@example([{frozenset({"000", None}): None}], 0, "one of our own that wrote superjson")
def test_random_chunks(values: list[Any], id: Any, peer: str) -> None:
    try:
        chunks = [WRITER.share_numbered(number, value) for number, value in enumerate(values)]
    except NotSerializable:
        # One of them is for nobody.
        assert any(
            all(ordinary(each, [value]) == "NotSerializable" for each in PEERS if "superjson" not in each)
            for value in values
        )
        return
    wanted = ordinary(peer, as_given(peer, chunks, values), id)
    found = spliced(peer, chunks, id)
    if found != wanted:
        assert type(found) is type(wanted) is bytes
        assert canonical(arrived(found)) == canonical(arrived(wanted))
        # Text that is no Unicode is escaped less, and a set that was read again has an order of its own.
        assert any(mark in wanted for mark in (b"\\ud", b"\xd9\x01\x02", b'"set"'))


@settings(max_examples=30, deadline=None)
@given(values_of_all_kinds)
def test_the_value_again(value: Any) -> None:
    try:
        chunk = WRITER.share(value)
    except NotSerializable:
        return
    again, once_more = chunk.value, chunk.value
    assert canonical(again) == canonical(once_more)
    codec = {shared.CBOR: "cbor, our own"}.get(next(iter(chunk.forms)), "json, our own")
    frame = ordinary(codec, [value])
    assert type(frame) is bytes
    assert canonical([again]) == canonical(arrived(frame))
    if isinstance(again, list | dict):
        assert again is not once_more


def test_it_is_a_snapshot() -> None:
    inner: list[Any] = [1]
    value, chars = {"a": inner}, bytearray(b"ab")
    chunks = [WRITER.share_numbered(1, value), WRITER.share_numbered(2, chars)]
    inner.append(2)
    value["b"] = []
    chars[:] = b"changed"
    frame = spliced("one of our own", chunks)
    assert type(frame) is bytes
    assert arrived(frame) == [[1, {"a": [1]}], [2, b"ab"]]
    again = chunks[0].value
    again[1]["a"].clear()
    assert chunks[0].value == [1, {"a": [1]}]


def test_chunks_beside_values_that_are_none() -> None:
    """A generator of the application's may yield what it likes between them."""
    for peer in PEERS:
        for values in ([WRITER.share("a"), "b"], [WRITER.share("a"), b"b"], [WRITER.share("a"), Point(1, 2)]):
            plain = [value.value if isinstance(value, Shared) else value for value in values]
            assert spliced(peer, values) == ordinary(peer, plain)  # type: ignore[arg-type]  # more ids than it says


def test_before_the_hello_is_answered() -> None:
    """What only CBOR carries then waits for the answer; all else is written as the encoder does."""
    for value, waits in (("text", False), (b"bytes", True), ("\ud800", False)):
        results = []
        for encode in ("encode", "encode_shared"):
            waiting = passage.__wrapped__("one of our own without cbor")
            waiting._encoder.pending = waiting._encoder.stock = True
            given = value if encode == "encode" else WRITER.share(value)
            try:
                results.append(getattr(waiting, encode)(Chunks("1", [given])))
            except NotSerializable as refusal:
                results.append(refusal.needs_hello)
        assert results[0] == results[1]
        assert (results[0] is True) is waits


# --- limits -----------------------------------------------------------------------------------------


def nested(depth: int) -> Any:
    value: Any = "the bottom"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("peer", PEERS)
def test_depth(peer: str) -> None:
    """What was taken is sent, alone and in a batch; the bound is at most two levels below the encoder's."""
    limits = Limits(depth=12)
    writer = SharedWriter(limits)
    deepest = 0
    for depth in range(20):
        value = nested(depth)
        try:
            chunk = writer.share_numbered(1, value)
        except NotSerializable:
            continue
        assert deepest in (0, depth - 1)
        deepest = depth
        for count in (1, 2):
            frame = spliced(peer, [chunk] * count, limits=limits)
            assert frame == ordinary(peer, [[1, nested(depth)] for _ in range(count)], limits=limits)
            if type(frame) is bytes:
                [(message, _)] = Decoder(limits).receive(frame)
                assert isinstance(message, Chunks)
            else:  # a line of superjson has levels of its own
                assert "superjson" in peer
    assert deepest >= 12 - 6


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("narrow", [Limits(depth=8), Limits(digits=5)])
def test_a_channel_with_narrower_limits_than_the_writers(peer: str, narrow: Limits) -> None:
    for value in (1, "text", nested(2), nested(20), 12_345, 123_456, {"n": [10**9]}):
        chunk = WRITER.share_numbered(1, value)
        for _ in range(2):
            assert spliced(peer, [chunk], limits=narrow) == ordinary(peer, [[1, value]], limits=narrow)


def test_a_channel_with_narrower_limits_shares_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = counted(monkeypatch)
    chunk = WRITER.share_numbered(1, MARKED)
    for _ in range(100):
        assert type(spliced("one of our own", [chunk], limits=Limits(depth=20))) is bytes
    assert sum(counts.values()) <= 2, counts


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize(
    "value", ["x" * 500, "é" * 250, b"x" * 500, ["x"] * 125], ids=["text", "é", "bytes", "list"]
)
def test_the_limit_of_a_frame(peer: str, value: Any) -> None:
    """Whatever the frame's bound is, it is met to the byte where it is for the encoder."""
    chunk = WRITER.share_numbered(1, value)
    whole = ordinary(peer, [[1, value]])
    assert type(whole) is bytes
    size = frame_size(whole)
    for most in range(size - 3, size + 3):
        limits = Limits(frame=most)
        found = spliced(peer, [chunk], limits=limits)
        assert found == ordinary(peer, [[1, value]], limits=limits)
        assert (found == "LimitExceeded") is (most < size)


def test_a_value_that_no_frame_has_room_for() -> None:
    writer = SharedWriter(Limits(frame=1000))
    assert writer.share("x" * 800).size == 802
    for value in ("x" * 1000, b"x" * 1000, ["x" * 10] * 100, list(range(100_000))):
        with pytest.raises(LimitExceeded, match=r"Limits\.frame"):
            writer.share(value)


def test_the_limit_of_digits() -> None:
    writer = SharedWriter(Limits(digits=30))
    assert writer.share(10**29).value == 10**29
    for value in (10**30, [10**5000], {"n": -(10**30)}):
        with pytest.raises(NotSerializable):
            writer.share(value)
    # Python writes no integer of more than 4300 digits as text; CBOR has no such bound.
    wide = SharedWriter(Limits(digits=10_000))
    for value in (10**4200, 10**4299):
        assert wide.share(value).value == value


# --- the hook ---------------------------------------------------------------------------------------


class Own:
    def __init__(self, name: Any) -> None:
        self.name = name


def test_the_hook_is_asked_once_for_a_value() -> None:
    asked: list[Any] = []

    def hook(value: Any) -> Any:
        asked.append(value)
        return {"own": value.name} if isinstance(value, Own) else NotImplemented

    writer = SharedWriter(LIMITS, hook)
    own = Own(b"bytes")
    chunk = writer.share_numbered(3, [own])
    assert asked == [own]
    for peer in PEERS:
        assert spliced(peer, [chunk]) == ordinary(peer, [[3, [{"own": b"bytes"}]]])
    assert asked == [own]


def test_a_hook_that_raises_or_knows_nothing() -> None:
    def hook(value: Any) -> Any:
        if isinstance(value, Own):
            raise RuntimeError("not this one")
        return NotImplemented

    writer = SharedWriter(LIMITS, hook)
    with pytest.raises(NotSerializable, match="not this one"):
        writer.share(Own(1))
    with pytest.raises(NotSerializable):
        writer.share(object())
    assert writer.share(Point(1, 2)).value == {"x": 1, "y": 2}


def test_the_hook_helps_a_peer_that_takes_less() -> None:
    """CBOR knows a moment, JSON does not: then the hook is asked, as it is by a channel."""

    def hook(value: Any) -> Any:
        return value.isoformat() if isinstance(value, dt.date) else NotImplemented

    writer = SharedWriter(LIMITS, hook)
    day = dt.date(2024, 1, 2)
    chunk = writer.share_numbered(1, {"day": day})
    for peer in ("a stock one", "json, our own", "one of our own", "cbor, our own"):
        assert spliced(peer, [chunk]) == ordinary(peer, [[1, {"day": day}]], hook=hook)


def test_arrays_of_numpy() -> None:
    """A peer with CBOR gets an array, one without it lists: as of a channel itself."""
    numpy = pytest.importorskip("numpy")
    for value in (
        numpy.arange(6.0).reshape(2, 3),
        {"a": numpy.arange(3)},
        numpy.float32(0.5),
        numpy.array(["a"]),
    ):
        chunk = WRITER.share_numbered(1, value)
        for peer in PEERS:
            if "superjson" not in peer or "wrote" in peer:
                assert spliced(peer, [chunk]) == ordinary(peer, [[1, value]])
    flat = numpy.arange(4, dtype="float32")
    for peer in PEERS:
        assert spliced(peer, [WRITER.share(flat)]) == ordinary(peer, [flat])


# --- how often --------------------------------------------------------------------------------------

MARKED = {"n": [1, 2, {"marked": "é"}]}


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often values with the mark are written."""
    counts: Counter[str] = Counter()

    def watch(cls: type, name: str, label: str) -> None:
        write = getattr(cls, name)

        def watched(self: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
            counts[label] += "marked" in repr(value)
            return write(self, value, *args, **kwargs)

        monkeypatch.setattr(cls, name, watched)

    watch(JsonWriter, "dumps", "json")
    watch(CborWriter, "dumps", "cbor")
    watch(SuperjsonWriter, "line", "superjson")
    return counts


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return counted(monkeypatch)


@pytest.mark.parametrize("peer", PEERS)
def test_a_value_is_written_once_for_a_hundred_peers(peer: str, counts: Counter[str]) -> None:
    chunk = SharedWriter(LIMITS).share_numbered(1, MARKED)
    frames = {spliced(peer, [chunk], "1") for _ in range(100)}
    assert len(frames) == 1
    first = dict(counts)
    assert all(count <= 2 for count in first.values()), first
    assert sum(first.values()) <= 3, first
    assert frames == {ordinary(peer, [[1, MARKED]])}


def test_a_value_is_written_once_for_each_kind_of_peer(counts: Counter[str]) -> None:
    chunk = SharedWriter(LIMITS).share_numbered(1, MARKED)
    for _ in range(100):
        for peer in PEERS:
            assert type(spliced(peer, [chunk])) is bytes
    # JSON as it is and in ASCII, CBOR, and the two of superjson.
    assert counts["json"] <= 4, counts
    assert counts["cbor"] <= 1, counts
    assert counts["superjson"] <= 2, counts


def test_ascii_is_one_form_for_all_of_json(counts: Counter[str]) -> None:
    chunk = SharedWriter(LIMITS).share_numbered(1, {"marked": "ascii"})
    for peer in (
        "a stock one",
        "json, stock",
        "json, our own",
        "one of our own",
        "one of our own without cbor",
    ):
        assert type(spliced(peer, [chunk])) is bytes
    assert counts == {"json": 1, "cbor": 0, "superjson": 0} or counts["json"] == sum(counts.values()) == 1


def test_a_value_that_a_form_does_not_fit_is_tried_once(counts: Counter[str]) -> None:
    chunk = SharedWriter(LIMITS).share_numbered(1, {"marked": b"bytes"})
    for _ in range(10):
        assert type(spliced("one of our own", [chunk])) is bytes
    assert counts["cbor"] == 1, counts
