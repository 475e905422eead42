"""Hostile CBOR: bounded time and memory, one kind of error, and the allow-list of tags (VAL-6, VAL-7)."""

# Tables of odd input, as dense as they can be read.
# ruff: noqa: E501 - a row of a table is one line

from __future__ import annotations

import time
import tracemalloc
from decimal import Decimal
from ipaddress import IPv6Address, IPv6Interface
from typing import Any

import cbor2
import pytest

from kkrpc_py.limits import Limits
from kkrpc_py.wire.cbor_careful import CarefulReader, MalformedCbor, skeleton
from kkrpc_py.wire.cbor_codec import CborReader, CborWriter
from kkrpc_py.wire.cbor_errors import CborError, CborRefused
from kkrpc_py.wire.cbor_tags import RefusedContent, TaggedTypes, evenly_hashed

READER = CborReader(Limits())
WRITER = CborWriter(Limits())


def head(major: int, argument: int) -> bytes:
    """The shortest head of an item."""
    if argument < 24:
        return bytes([major << 5 | argument])
    size = next(size for size in (1, 2, 4, 8) if argument < 1 << 8 * size)
    return bytes([major << 5 | 24 + size.bit_length() - 1]) + argument.to_bytes(size, "big")


def tag(number: int, content: bytes) -> bytes:
    return head(6, number) + content


def text(value: str) -> bytes:
    return cbor2.dumps(value)


def careful(payload: bytes) -> Any:
    return CarefulReader(payload, TaggedTypes(1000), 128).read()


ALLOWED = {0, 2, 3, 4, 30, 37, 40, 52, 54, 64, *range(69, 73), *range(77, 80), 85, 86, 258, 268, 1004, 43000}


@pytest.mark.parametrize("number", [*range(320), 1004, 43000, 43001, 55799, 55800, 2**32, 2**64 - 1])
def test_only_listed_tags_are_read(number: int) -> None:
    contents = [
        b"\x82\x81\x01\xd8\x40\x41\x00",
        b"\x01",
        b"\x81\x01",
        b"\x82\x01\x02",
        b"\xa0",
        text("a"),
        b"\x41a",
        b"\xf9\x3c\x00",
        b"\x83\x00\x00\x02",
    ]
    contents += [
        text("2024-01-02"),
        text("2024-01-02T03:04:05Z"),
        head(2, 16) + bytes(16),
        b"\x44\x01\x02\x03\x04",
    ]
    contents += [head(2, 16) + bytes(16), b"\x82" + b"\xf9\x3c\x00" * 2]
    read = 0
    for content in contents:
        try:
            READER.loads(tag(number, content))
        except CborRefused:
            continue
        read += 1
    assert (read > 0) == (number in ALLOWED)


@pytest.mark.parametrize("number", [25, 28, 29, 35, 36, 256])
def test_references_and_programs_are_refused(number: int) -> None:
    payload = b"\x82" + tag(28, b"\x81\x01") + tag(number, b"\x00")
    with pytest.raises(CborRefused):
        READER.loads(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\x18", b"\x1c", b"\x1f", b"\xfc", b"\xfd", b"\xfe", b"\xff", b"\x3f", b"\xf8", b"\xf8\x18", b"\xd8",
        b"\x61", b"\x62\xff\xff", b"\x63\xed\xa0\x80", b"\x41", b"\x81", b"\xa1\x01", b"\xa1", b"\x01\x01", b"\x80\x00",
        b"\x5b" + b"\xff" * 8, b"\x7b" + b"\xff" * 8, b"\x9b" + b"\xff" * 8, b"\xbb" + b"\xff" * 8,
        b"\x5a\x7f\xff\xff\xff", b"\x7a\x7f\xff\xff\xff", b"\x9a\x7f\xff\xff\xff", b"\xba\x7f\xff\xff\xff",
        tag(258, b"\x9b" + b"\xff" * 8), b"\xd9\x01",
    ],
)  # fmt: skip
def test_what_is_not_well_formed(payload: bytes) -> None:
    with pytest.raises(CborError) as caught:
        READER.loads(payload)
    assert type(caught.value) is CborError
    assert skeleton(payload)[:2] == (None, None)


# Of indefinite length, each well-formed and one item.
ENDLESS = [
    b"\x9f\xff", b"\xbf\xff", b"\x5f\xff", b"\x7f\xff", b"\x5f\x41a\x40\xff", b"\x7f\x61a\x60\xff",
    b"\x9f\x01\x9f\xff\x02\xff", b"\xbf\x01\x02\xff", b"\xbf\x01\xbf\x61a\x9f\x02\xff\xff\xff",
    b"\x82\x9f\xff\x01", b"\xa1\x01\x9f\x81\x01\xff", b"\xd8\x63\x9f\x01\xff", b"\x9f\xd8\x63\x01\xf7\xff",
    b"\x9f" * 50_000 + b"\xff" * 50_000,
]  # fmt: skip
BROKEN_ENDLESS = [
    b"\x9f", b"\x9f\x01", b"\xff", b"\x81\xff", b"\xa1\x01\xff", b"\xbf\x01\xff", b"\xbf\x01\x02\x03\xff", b"\xd8\x63\xff",
    b"\x5f\x61a\xff", b"\x7f\x41a\xff", b"\x7f\x61\xff\xff", b"\x5f\x5f\xff\xff", b"\x5f\x01\xff", b"\x7f\xd8\x63\x61a\xff",
    b"\x9f\xf8\x1f\xff", b"\x9f\x1c\xff", b"\x1f", b"\xdf\xff",
]  # fmt: skip


@pytest.mark.parametrize("item", ENDLESS)
def test_what_is_beside_indefinite_lengths_can_be_told_frm_3(item: bytes) -> None:
    for message in (
        b"\xa3" + text("id") + b"\x01" + text("args") + item + text("type") + text("get"),
        b"\xbf" + text("x") + item + text("id") + b"\x01" + text("type") + text("get") + b"\xff",
    ):
        with pytest.raises(CborRefused):
            READER.loads(message)
        assert READER.salvage(message)[:2] == (1, "get")
        for end in range(1, min(len(message), 100)):
            assert READER.salvage(message[:-end])[:2] == (None, None)


@pytest.mark.parametrize("item", BROKEN_ENDLESS)
def test_what_is_not_well_formed_within_an_indefinite_length_frm_3(item: bytes) -> None:
    message = (
        b"\xa3" + text("args") + b"\x82\x9f\xff" + item + text("id") + b"\x01" + text("type") + text("get")
    )
    assert READER.salvage(message)[:2] == (None, None)


@pytest.mark.parametrize(
    ("zone", "name"), [(b"\x64eth0", "eth0"), (b"\x44eth0", "eth0"), (b"\x02", "2"), (b"\x61\x32", "2")]
)
def test_a_zone_is_text_or_a_number_and_is_written_as_text(zone: bytes, name: str) -> None:
    packed = IPv6Address("fe80::1").packed
    address = READER.loads(tag(54, b"\x83\x50" + packed + b"\xf6" + zone))
    assert address == IPv6Address(f"fe80::1%{name}")
    interface = READER.loads(tag(54, b"\x83\x50" + packed + b"\x18\x40" + zone))
    assert interface == IPv6Interface(f"fe80::1%{name}/64")
    for value, length in ((address, b"\xf6"), (interface, b"\x18\x40")):
        written = WRITER.dumps({"v": WRITER.fit(value, "v")})
        assert written.endswith(tag(54, b"\x83\x50" + packed + length + text(name)))


@pytest.mark.parametrize("key", [b"\x61a", b"\x01"])
def test_what_a_tag_holds_is_no_level_but_a_sets_array_frm_8(key: bytes) -> None:
    depth = Limits().depth
    decimal = tag(4, b"\x82\x20\x1b" + bytes(7) + b"\x01")
    numbers = tag(40, b"\x82\x82\x01\x02" + tag(64, b"\x42\x01\x02"))
    outer = b"\xa1" + key
    for deepest in (decimal, numbers):
        READER.loads(outer + b"\x81" * (depth - 1) + deepest)
        with pytest.raises(CborRefused):
            READER.loads(outer + b"\x81" * depth + deepest)
    READER.loads(outer + b"\x81" * (depth - 2) + tag(258, b"\x81" + decimal))
    with pytest.raises(CborRefused):
        READER.loads(outer + b"\x81" * (depth - 1) + tag(258, b"\x81" + decimal))


@pytest.mark.parametrize("number", [4, 40, 258, 999])
def test_tags_that_spare_a_level_each_are_no_way_to_nest_without_end_frm_8(number: int) -> None:
    with pytest.raises(CborRefused):
        READER.loads(b"\xa1\x01" + tag(number, b"\x81") * 100_000 + b"\x01")


@pytest.mark.parametrize(
    "payload",
    [
        # Indefinite lengths.
        b"\x9f\xff", b"\xbf\xff", b"\x5f\xff", b"\x7f\xff",
        # Simple values that are not agreed on, undefined among them.
        b"\xe0", b"\xf0", b"\xf7", b"\xf8\x20", b"\xf8\xff", b"\x81\xf7", b"\xa1\x61a\xf7", tag(258, b"\x81\xf7"),
        # Equal keys, equal members.
        b"\xa2\x61a\x01\x61a\x02", b"\xa2\x01\x01\x01\x02", b"\xa2\x01\x01\xf9\x3c\x00\x02", b"\xa2\x01\x01\xf5\x02",
        tag(258, b"\x82\x01\x01"), tag(258, b"\x82\x01\xf5"),
        # Keys and members that are maps.
        b"\xa1\xa0\x01", tag(258, b"\x81\xa0"), b"\xa1\x81\xa0\x01",
        # A NaN that cannot be hashed.
        tag(258, b"\x81" + tag(268, b"\x83\x00\x00\x06")), b"\xa1" + tag(268, b"\x83\x00\x00\x06") + b"\x01",
        # Tags around tags, around the wrong content, or too much of it.
        tag(2, tag(2, b"\x40")), tag(258, tag(258, b"\x80")), tag(0, b"\x01"), tag(0, text("x")), tag(0, text("2024-01-02")),
        tag(0, text("2024-01-02T03:04:05")), tag(0, text("2024-01-02t03:04:05z")), tag(0, text("2024-01-02T03:04:60Z")),
        tag(0, text("2024-01-02T03:04:05.1234567Z")), tag(0, text("2024-13-02T03:04:05Z")),
        tag(0, text("\u0662024-01-02T03:04:05Z")), tag(1, b"\x01"), tag(1004, text("2024-02-30")), tag(1004, b"\x01"),
        tag(2, text("1")), tag(2, b"\x81\x01"), tag(2, head(2, 500) + b"\x01" * 500),
        tag(3, head(2, 500) + b"\x01" * 500), tag(2, head(2, 10**6) + b"\xff" * 10**6),
        tag(4, b"\x80"), tag(4, b"\x82\x01"b"\x61a"), tag(4, b"\x82\x1a\x7f\xff\xff\xff\x01"), tag(4, b"\x83\x01\x01\x01"),
        tag(4, b"\x82\x3b" + b"\xff" * 8 + b"\x01"), tag(4, b"\x82\x00" + tag(2, head(2, 500) + b"\x01" * 500)),
        tag(4, b"\xa0"), tag(4, b"\x01"), tag(4, b"\x82\xf5\x01"),
        tag(268, b"\x83\x00\x00\x08"), tag(268, b"\x83\x00\x20\x00"), tag(268, b"\x83\x01\x00\x02"),
        tag(268, b"\x83\x00\x01\x02"), tag(268, b"\x83\x00\x00\xf5"), tag(268, b"\x82\x00\x00"),
        tag(30, b"\x82\x01\x00"), tag(30, b"\x82\x01\x20"), tag(30, b"\x82\x01\xf9\x3c\x00"), tag(30, b"\x81\x01"),
        tag(37, b"\x41a"), tag(37, text("a")), tag(43000, b"\x82\x01\x02"), tag(43000, b"\x81\xf9\x3c\x00"),
        tag(52, b"\x41a"), tag(52, b"\x82\x18\x21\x41\x01"), tag(52, b"\x82\x08\x45\x01\x02\x03\x04\x05"), tag(52, b"\x01"),
        tag(52, b"\x82\x08\x44\x01\x02\x03\x04"), tag(52, b"\x82\x44\x01\x02\x03\x04\x18\x21"), tag(52, b"\x82\x01\x02"),
        tag(54, b"\x41a"), tag(54, b"\x82\x01\x02"), tag(54, b"\x83\x50" + bytes(16) + b"\xf6\x20"),
        tag(54, b"\x83\x50" + bytes(16) + b"\xf6\xf5"), tag(54, b"\x83\x50" + bytes(16) + b"\xf6\x60"),
        tag(54, b"\x83\x50" + bytes(16) + b"\xf6\x40"), tag(54, b"\x82\x50" + bytes(16) + b"\xf6"),
        tag(54, b"\x82\x41\x01\x01"), tag(54, b"\x83\x08\x41\xfe\x41a"), tag(54, b"\x83\x50" + bytes(16) + b"\xf6\x41\xff"),
        tag(258, b"\x01"), tag(258, b"\xa0"), tag(999, b"\x01"),
    ],
)  # fmt: skip
def test_what_is_well_formed_but_refused(payload: bytes) -> None:
    with pytest.raises(CborRefused):
        READER.loads(payload)
    with pytest.raises(CborRefused):
        READER.loads(b"\xa1\x61a" + payload)


@pytest.mark.parametrize(
    "opener", [b"\x81", b"\xa1\x01", b"\xa1\x61a", tag(258, b"\x81"), tag(4, b"\x82\x01"), tag(999, b"")]
)
@pytest.mark.parametrize("levels", [129, 5000, 200_000])
def test_deep_nesting_is_refused_in_time(opener: bytes, levels: int) -> None:
    payload = opener * levels + b"\x01"
    start = time.perf_counter()
    with pytest.raises(CborError):
        READER.loads(payload)
    assert time.perf_counter() - start < 5


def test_as_deep_as_the_bound_is_read_whatever_the_tags() -> None:
    assert READER.loads(b"\x81" * 128 + b"\x01")
    with pytest.raises(CborRefused):
        READER.loads(b"\x81" * 129 + b"\x01")
    assert READER.loads(tag(258, b"\x81") * 100 + b"\x01")


@pytest.mark.parametrize("first", [b"\x5b", b"\x7b", b"\x9b", b"\xbb"])
def test_an_announced_length_allocates_nothing(first: bytes) -> None:
    payload = first + (1 << 40).to_bytes(8, "big") + b"\x00" * 100
    tracemalloc.start()
    try:
        with pytest.raises(CborError):
            READER.loads(payload)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def chosen_hashes(count: int) -> list[bytes]:
    """Integers that all have the hash 0."""
    return [b"\x1b" + (number * (2**61 - 1)).to_bytes(8, "big") for number in range(1, 9)] + [
        tag(2, head(2, 16) + (number * (2**61 - 1)).to_bytes(16, "big")) for number in range(9, count + 1)
    ]


@pytest.mark.parametrize("count", [200, 30_000])
def test_keys_whose_hashes_were_chosen_are_refused_before_they_meet(count: int) -> None:
    keys = chosen_hashes(count)
    start = time.perf_counter()
    with pytest.raises(CborRefused, match="share one hash"):
        READER.loads(head(5, count) + b"".join(key + b"\x01" for key in keys))
    with pytest.raises(CborRefused, match="share one hash"):
        READER.loads(tag(258, head(4, count) + b"".join(keys)))
    assert time.perf_counter() - start < 5


def test_ordinary_keys_are_even() -> None:
    assert evenly_hashed(range(-100_000, 100_000))
    assert evenly_hashed([Decimal(number) / 8 for number in range(1000)])
    assert evenly_hashed([])
    assert READER.loads(cbor2.dumps({number: number for number in range(-1000, 1000)}))
    assert len(READER.loads(cbor2.dumps(set(range(50_000))))) == 50_000


def test_the_careful_reader_takes_a_bounded_number_of_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kkrpc_py.wire.cbor_careful._ITEMS", 100)
    assert READER.loads(cbor2.dumps({1: list(range(90))}))
    with pytest.raises(CborRefused, match="more than 100 items"):
        READER.loads(cbor2.dumps({1: list(range(110))}))
    assert len(READER.loads(cbor2.dumps({"a": list(range(110))}))["a"]) == 110


def test_what_of_a_refused_message_can_be_told() -> None:
    good = {
        "id": "a",
        "method": "m",
        "args": [[{"deep": {"x": b"y"}}], 1.5, None, cbor2.CBORTag(999, [1])],
        "type": "request",
    }
    assert skeleton(cbor2.dumps(good))[:2] == ("a", "request")
    assert skeleton(cbor2.dumps(good | {"id": -5}))[:2] == (-5, "request")
    assert skeleton(cbor2.dumps({"type": "request"}))[:2] == (None, "request")
    assert skeleton(cbor2.dumps({"id": [1], "type": ["request"]}))[:2] == (None, None)
    assert skeleton(b"\xa2" + text("id") + b"\x81" * 50_000 + b"\x01" + text("type") + text("get"))[:2] == (
        None,
        "get",
    )
    assert skeleton(cbor2.dumps([1]))[:2] == (None, None)
    assert skeleton(cbor2.dumps(good) + b"\x00")[:2] == (None, None)
    assert skeleton(cbor2.dumps(good)[:-1])[:2] == (None, None)
    assert skeleton(cbor2.dumps(good | {"callbackIds": ["1", "2"], "streamIds": [[1]]}))[2:] == (
        ["1", "2"],
        [None],
    )
    assert skeleton(cbor2.dumps(good | {"callbackIds": {"1": 2}, "streamIds": "1"}))[2:] == (None, None)


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b"\x00", 0), (b"\x1b" + b"\xff" * 8, 2**64 - 1), (b"\x3b" + b"\xff" * 8, -(2**64)), (b"\x18\x05", 5),
        (b"\xf4", False), (b"\xf5", True), (b"\xf6", None), (b"\xf9\x3c\x00", 1.0), (b"\xfa\x3f\xc0\x00\x00", 1.5),
        (b"\xfb" + bytes(8), 0.0), (b"\x43abc", b"abc"), (b"\x63abc", "abc"), (b"\x82\x01\x80", [1, []]),
        (b"\xa1\x82\x01\x02\x03", {(1, 2): 3}), (tag(258, b"\x81" + tag(258, b"\x80")), {frozenset()}),
        (b"\xa1" + tag(258, b"\x81\x01") + b"\x02", {frozenset((1,)): 2}), (tag(2, b"\x40"), 0), (tag(3, b"\x40"), -1),
        (tag(2, head(2, 600) + bytes(599) + b"\x07"), 7),
    ],
)  # fmt: skip
def test_both_readers_read_the_same(payload: bytes, value: Any) -> None:
    for got in (READER.loads(payload), careful(payload)):
        assert got == value
        assert type(got) is type(value)


def test_the_careful_reader_tells_why() -> None:
    with pytest.raises(MalformedCbor, match="ends within"):
        careful(b"\x81")
    with pytest.raises(RefusedContent, match="tag 999"):
        careful(tag(999, b"\x01"))


def test_small_bounds_hold_for_plain_integers() -> None:
    reader = CborReader(Limits(digits=3))
    assert reader.loads(b"\x19\x03\xe7") == 999
    for payload in (b"\x19\x03\xe8", b"\x39\x03\xe7", b"\xa1\x01\x19\x03\xe8"):
        with pytest.raises(CborRefused, match=r"Limits\.digits"):
            reader.loads(payload)
