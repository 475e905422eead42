"""The short cut of large byte strings does what the ordinary path does, byte for byte."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import cbor2
import pytest

from kkrpc_py.errors import LimitExceeded
from kkrpc_py.limits import Limits
from kkrpc_py.wire.cbor_codec import CborReader
from kkrpc_py.wire.cbor_errors import CborError
from kkrpc_py.wire.classic import Parser, build
from kkrpc_py.wire.codec import Decoder, Encoder
from kkrpc_py.wire.framing import LARGE, cbor_frame
from kkrpc_py.wire.large import large_mapping, large_pieces
from kkrpc_py.wire.messages import Chunks, Message, Noise, Result
from tests.naming import shown

SIZES = [LARGE + 1, 65_535, 65_536, 300_000]


def filling(size: int) -> bytes:
    return bytes(range(256)) * (size // 256) + b"\n{" * (size % 256 // 2) + b"Z" * (size % 2)


def ordinary(message: Message) -> bytes:
    """The payload as cbor2 writes it."""
    return cbor2.dumps(build(message, lambda value, _: value))


def ordinarily_read(payload: bytes) -> Message | None:
    try:
        mapping = CborReader(Limits()).loads(payload)
    except CborError:
        return None
    return Parser(Limits()).parse(mapping) if type(mapping) is dict else None


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("id", ["1", "some-longer-identifier!", "fmethod", "\x00Z\x00", "0" * 23])
@pytest.mark.parametrize("make", [lambda id, value: Chunks(id, [value]), Result])
def test_a_large_byte_string_is_written_and_read_as_ever(make: Any, id: str, size: int) -> None:
    message = make(id, filling(size))
    assert large_pieces(message) is not None
    encoder = Encoder("auto", Limits())
    encoder.cbor = True
    frame = encoder.encode(message)
    payload = ordinary(message)
    assert frame == cbor_frame(payload)
    assert large_mapping([memoryview(payload)]) is not None
    length = len(frame)
    for cuts in (
        (),
        (1,),
        (40,),
        (length // 2,),
        (length - 5,),
        (length // 3, length // 2),
        range(0, length, 999),
    ):
        decoder = Decoder(Limits())
        found = []
        for start, end in pairwise((0, *cuts, length)):
            found += decoder.receive(frame[start:end])
        assert found == [(message, len(payload))]
        value = found[0][0].values[0] if isinstance(message, Chunks) else found[0][0].value
        assert type(value) is bytes


@pytest.mark.parametrize(
    "message",
    [
        Chunks("1", [bytes(LARGE)]),
        Chunks("1", [bytearray(2 * LARGE)]),
        Chunks("1", [bytes(2 * LARGE), b""]),
        Chunks("1", []),
        Chunks("1", ["x" * 2 * LARGE]),
        Chunks(1, [bytes(2 * LARGE)]),
        Chunks("", [bytes(2 * LARGE)]),
        Chunks("0" * 24, [bytes(2 * LARGE)]),
        Chunks("\xe4", [bytes(2 * LARGE)]),
        Result(None, bytes(2 * LARGE)),
        Result("1", [bytes(2 * LARGE)]),
        Result("1"),
    ],
    ids=shown,
)
def test_anything_else_goes_the_ordinary_way(message: Message) -> None:
    assert large_pieces(message) is None


@pytest.mark.parametrize("make", [lambda value: Chunks("12", [value]), lambda value: Result("12", value)])
def test_what_is_not_exactly_so_is_read_the_ordinary_way(make: Any) -> None:
    """Every byte around the byte string is changed in turn."""
    payload = ordinary(make(bytes(LARGE + 1)))
    head = payload.index(bytes(LARGE))
    for at in (*range(head), *range(head + LARGE, len(payload))):
        for changed in {0, 0x40, 0x5A, 0x61, 0x7F, 0x80, payload[at] ^ 1, payload[at] ^ 2} - {payload[at]}:
            odd = payload[:at] + bytes((changed,)) + payload[at + 1 :]
            [(found, _)] = Decoder(Limits()).receive(cbor_frame(odd))
            wanted = ordinarily_read(odd)
            if wanted is not None:
                assert found == wanted, (at, changed)
            else:
                assert type(found).__name__ in ("Broken", "Malformed"), (at, changed)
                assert not isinstance(found, Noise)


def test_the_limit_holds() -> None:
    encoder = Encoder("auto", Limits(frame=2 * LARGE))
    encoder.cbor = True
    with pytest.raises(LimitExceeded):
        encoder.encode(Chunks("1", [bytes(2 * LARGE)]))


def test_a_payload_in_tiny_pieces_takes_little_memory() -> None:
    decoder = Decoder(Limits())
    frame = cbor_frame(ordinary(Chunks("1", [bytes(50_000)])))
    for byte in frame[:-1]:
        assert decoder.receive(bytes((byte,))) == []
    pieces = decoder._framer._pieces
    assert len(pieces) < 100
    assert sum(len(piece.obj) for piece in pieces) < 60_000
    assert len(decoder.receive(frame[-1:])) == 1
