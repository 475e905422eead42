"""Every line that real kkrpc 0.7 peers wrote is read, and written again byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kkrpc_py.limits import Limits
from kkrpc_py.wire.codec import Decoder, Encoder, frame_size
from kkrpc_py.wire.messages import Broken, Malformed, Noise

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings"


def lines(name: str) -> list[bytes]:
    path = RECORDINGS / name
    return [json.loads(row)["line"].encode() for row in path.read_text(encoding="utf-8").splitlines()]


SCENARIOS = sorted(
    path.relative_to(RECORDINGS).as_posix() for path in RECORDINGS.glob("classic-json/*.jsonl")
)


def test_there_are_recordings() -> None:
    assert len(SCENARIOS) >= 20


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_recorded_line_is_read_and_written_again(name: str) -> None:
    encoder = Encoder("json", Limits())
    encoder.stock = False  # kkrpc writes UTF-8, as we do only to our own kind
    for line in lines(name):
        [(message, size)] = Decoder(Limits()).receive(line + b"\n")
        assert not isinstance(message, (Noise, Broken, Malformed))
        assert size == len(line)
        written = encoder.encode(message)
        assert written == line + b"\n"
        assert frame_size(written) == size


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_is_written_to_a_stock_peer_reads_the_same_and_is_ascii(name: str) -> None:
    encoder = Encoder("json", Limits())
    for line in lines(name):
        [(message, _)] = Decoder(Limits()).receive(line + b"\n")
        written = encoder.encode(message)
        assert written.isascii()
        assert Decoder(Limits()).receive(written)[0][0] == message


def test_lines_of_both_serializations_are_read_in_turn() -> None:
    decoder = Decoder(Limits())
    for path in sorted(RECORDINGS.glob("classic-superjson/*.jsonl")):
        name = path.relative_to(RECORDINGS).as_posix()
        for one, other in zip(lines(name), lines(name.replace("superjson", "json")), strict=False):
            (first, _), (second, _) = decoder.receive(one + b"\n" + other + b"\n")
            for item in (first, second):
                assert not isinstance(item, (Noise, Broken, Malformed))


def probes(name: str) -> list[dict[str, object]]:
    return [json.loads(row) for row in (RECORDINGS / name).read_text(encoding="utf-8").splitlines()]


def test_every_odd_line_that_was_tried_on_the_real_reader_is_read_without_breaking_the_stream() -> None:
    decoder = Decoder(Limits())
    for probe in probes("quirks07.jsonl"):
        fed = probe.get("in")
        for part in fed if isinstance(fed, list) else []:
            if not isinstance(part, str):
                continue
            data = bytes.fromhex(part[4:]) if part.startswith("hex:") else part.rstrip("\x01").encode()
            for item, _ in decoder.receive(data):
                assert not isinstance(item, Broken)
    assert decoder.receive(b"\n") is not None


def test_a_stock_line_never_has_a_length_that_the_real_reader_loses() -> None:
    """FRM-10, by what newline07 recorded: 65,536 and 131,072 are lost, one more is not."""
    lost = [probe["probe"] for probe in probes("newline07.jsonl") if probe["answered"] == []]
    assert [text for text in lost if "65536" in str(text)]
    assert [text for text in lost if "131072" in str(text)]
