"""Frames come out the same however the bytes are split; bounds hold before anything is buffered."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest

from kkrpc_py.errors import LimitExceeded, ProtocolError
from kkrpc_py.limits import Limits
from kkrpc_py.wire.framing import Frame, Framer, Kind, cbor_frame, frame_size
from kkrpc_py.wire.messages import Broken, Noise

LINE = b'{"id":"1","type":"request"}'
PAYLOAD = b"\xa1\x61a\x0a"  # a line feed within a payload ends nothing


def read(
    data: bytes, cuts: tuple[int, ...] = (), *, limits: Limits | None = None, eof: bool = False
) -> list[Frame]:
    framer = Framer(limits or Limits())
    found: list[Frame] = []
    for start, end in pairwise((0, *cuts, len(data))):
        found += framer.receive(data[start:end])
    return found + framer.receive_eof() if eof else found


def plain(frames: list[Frame]) -> list[object]:
    """Frames in a form that compares: how a broken stream is worded may depend on the split."""
    return [
        type(content.error).__name__
        if isinstance(content, Broken)
        else (kind, b"".join(content) if isinstance(content, list) else content, size)
        for kind, content, size in frames
    ]


def every_way(data: bytes, *, limits: Limits | None = None, eof: bool = False) -> list[object]:
    """What `data` gives: whole, byte by byte, and in every split in two. All must agree."""
    whole = plain(read(data, limits=limits, eof=eof))
    assert plain(read(data, tuple(range(1, len(data))), limits=limits, eof=eof)) == whole
    for cut in range(1, len(data)):
        assert plain(read(data, (cut,), limits=limits, eof=eof)) == whole, cut
    return whole


def json(text: bytes = LINE, size: int | None = None) -> tuple[Kind, bytes, int]:
    return (Kind.JSON, text, len(text) if size is None else size)


def cbor(payload: bytes = PAYLOAD) -> tuple[Kind, bytes, int]:
    return (Kind.CBOR, payload, len(payload))


def noise(data: bytes, reason: str = "not a message", size: int | None = None) -> tuple[Kind, Noise, int]:
    return (Kind.OTHER, Noise(data, reason), len(data) if size is None else size)


@pytest.mark.parametrize(
    ("data", "frames"),
    [
        (b"", []),
        (LINE, []),
        (LINE + b"\n", [json()]),
        (LINE + b"\n" + LINE, [json()]),
        (LINE + b"\n" + LINE + b"\n", [json(), json()]),
        (b"\n\n \t\r\n" + LINE + b"\n\n", [json()]),
        (LINE + b"\r\n", [json(LINE + b"\r")]),
        (b" \t\r" + LINE + b" \n", [json(LINE + b" ", len(LINE) + 4)]),
        (b"\xef\xbb\xbf" + LINE + b"\n", [json(LINE, len(LINE) + 3)]),
        (b" \xef\xbb\xbf\t" + LINE + b"\n", [json(LINE, len(LINE) + 5)]),
        (
            b'{"a":"\xe2\x80\xa8\xc2\x85\r\x0b\x0c\x1e"}\n',
            [json(b'{"a":"\xe2\x80\xa8\xc2\x85\r\x0b\x0c\x1e"}')],
        ),
        (b"hello\n" + LINE + b"\n", [noise(b"hello"), json()]),
        (b"  hello {\n" + LINE + b"\n", [noise(b"  hello {"), json()]),
        (b"[1,2]\n", [noise(b"[1,2]")]),
        # A byte order mark in pieces, twice, or alone is noise.
        (b"\xef{}\n", [noise(b"\xef{}")]),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}\n", [noise(b"\xef\xbb\xbf\xef\xbb\xbf{}")]),
        (b"\xef\xbb\xbf\n", [noise(b"\xef\xbb\xbf")]),
        # 0xD8 without 0x18 begins no CBOR frame.
        (b"\xd8\n" + LINE + b"\n", [noise(b"\xd8"), json()]),
        (b"\xd8x\xd8\x18\n", [noise(b"\xd8x\xd8\x18")]),
        # Long enough for a whole head, whose second byte it has not.
        (b"\xd8aZhello world\n", [noise(b"\xd8aZhello world")]),
        (b"\xd8{}\n", [noise(b"\xd8{}")]),
        (cbor_frame(PAYLOAD), [cbor()]),
        (cbor_frame(b""), [cbor(b"")]),
        (cbor_frame(PAYLOAD) + cbor_frame(b"") + cbor_frame(PAYLOAD), [cbor(), cbor(b""), cbor()]),
        (b"\n" + cbor_frame(PAYLOAD) + LINE + b"\n\n" + cbor_frame(PAYLOAD), [cbor(), json(), cbor()]),
        (b"noise\n" + cbor_frame(PAYLOAD), [noise(b"noise"), cbor()]),
        # Lengths longer than needed are lengths.
        (b"\xd8\x18\x5b" + (4).to_bytes(8, "big") + PAYLOAD, [cbor()]),
        (b"\xd8\x18\x5a" + (4).to_bytes(4, "big") + PAYLOAD, [cbor()]),
        (b"\xd8\x18\x59" + (4).to_bytes(2, "big") + PAYLOAD, [cbor()]),
        (b"\xd8\x18\x58\x04" + PAYLOAD, [cbor()]),
        # FRM-3: only a byte string of definite length.
        (b"\xd8\x18\x5f" + PAYLOAD, ["ProtocolError"]),
        (b"\xd8\x18\x61a", ["ProtocolError"]),
        (b"\xd8\x18\x5c", ["ProtocolError"]),
        (b"\xd8\x18\xa0", ["ProtocolError"]),
        # FRM-5: noise after the first CBOR frame; everything behind it is ignored.
        (cbor_frame(PAYLOAD) + b"oops\n" + LINE + b"\n", [cbor(), "ProtocolError"]),
        (cbor_frame(PAYLOAD) + b"  \xd8y" + LINE + b"\n", [cbor(), "ProtocolError"]),
        (cbor_frame(PAYLOAD) + b" \n\r\n" + LINE + b"\n", [cbor(), json()]),
    ],
)
def test_frames(data: bytes, frames: list[object]) -> None:
    assert every_way(data) == frames


@pytest.mark.parametrize(
    ("data", "frames"),
    [
        (b"", []),
        (LINE + b"\n", [json()]),
        (LINE + b"\n  \r", [json()]),
        (LINE, ["ProtocolError"]),
        (b"  " + LINE, ["ProtocolError"]),
        (b"half a line", [noise(b"half a line")]),
        (b"\xd8", [noise(b"\xd8")]),
        (b"\xef\xbb", [noise(b"\xef\xbb")]),
        (b"\xd8\x18", ["ProtocolError"]),
        (b"\xd8\x18\x58", ["ProtocolError"]),
        (cbor_frame(PAYLOAD)[:-1], ["ProtocolError"]),
        (cbor_frame(PAYLOAD), [cbor()]),
        (cbor_frame(PAYLOAD) + b"\xd8", [cbor(), "ProtocolError"]),
        (cbor_frame(PAYLOAD) + b" ", [cbor()]),
    ],
)
def test_frames_at_the_end_of_the_stream(data: bytes, frames: list[object]) -> None:
    assert every_way(data, eof=True) == frames


def test_after_a_break_everything_is_ignored() -> None:
    framer = Framer(Limits())
    assert plain(framer.receive(b"\xd8\x18\xff")) == ["ProtocolError"]
    assert framer.receive(LINE + b"\n") == []
    assert framer.receive_eof() == []


def test_the_errors_say_what_happened() -> None:
    [(_, broken, _)] = read(LINE, eof=True)
    assert isinstance(broken, Broken)
    assert isinstance(broken.error, ProtocolError)
    assert "ended inside a frame" in str(broken.error)
    [(_, broken, _)] = read(LINE, limits=Limits(frame=5))
    assert isinstance(broken, Broken)
    assert isinstance(broken.error, LimitExceeded)
    assert "Limits.frame" in str(broken.error)


SMALL = Limits(frame=32, noise=8)


@pytest.mark.parametrize(
    ("data", "frames"),
    [
        (b"{" + b" " * 30 + b"}\n", [json(b"{" + b" " * 30 + b"}")]),
        (b"{" + b" " * 31 + b"}\n", ["LimitExceeded"]),
        (b" {" + b" " * 30 + b"}\n", ["LimitExceeded"]),
        (b"{" + b" " * 100, ["LimitExceeded"]),
        (cbor_frame(bytes(32)), [cbor(bytes(32))]),
        (b"\xd8\x18\x58\x21", ["LimitExceeded"]),
        (b"\xd8\x18\x5b\xff\xff\xff\xff\xff\xff\xff\xff", ["LimitExceeded"]),
        (b"12345678\n", [noise(b"12345678")]),
        (b"123456789\n", [noise(b"12345678", "not a message; cut at 8 of 9 bytes", 9)]),
        (
            b"x" * 100 + b"\n" + LINE + b"\n",
            [noise(b"x" * 8, "not a message; cut at 8 of 100 bytes", 100), json()],
        ),
        (b"  " * 4 + b"{}\n", [json(b"{}", 10)]),
        (b" " * 9 + b"{}\n", [noise(b" " * 8, "not a message; cut at 8 of 11 bytes", 11)]),
        (b" " * 9 + b"\n" + LINE + b"\n", [noise(b" " * 8, "not a message; cut at 8 of 9 bytes", 9), json()]),
    ],
)
def test_bounds(data: bytes, frames: list[object]) -> None:
    assert every_way(data, limits=SMALL) == frames


def test_a_line_over_the_limit_is_found_before_it_is_buffered() -> None:
    framer = Framer(Limits(frame=1000))
    assert framer.receive(b"{" + b"x" * 998) == []
    assert plain(framer.receive(b"xx")) == ["LimitExceeded"]


def test_noise_without_end_is_not_buffered() -> None:
    framer = Framer(Limits(noise=1000))
    for _ in range(1000):
        assert framer.receive(b"x" * 1000) == []
    assert len(framer._buffer) == 1000
    [(_, found, size)] = framer.receive(b"\n")
    assert isinstance(found, Noise)
    assert found.data == b"x" * 1000
    assert size == 1_000_000


@pytest.mark.parametrize("size", [0, 1, 23, 24, 255, 256, 65_535, 65_536, 70_000])
def test_a_cbor_frame_is_a_tagged_byte_string_and_counts_its_payload(size: int) -> None:
    frame = cbor_frame(bytes(size))
    assert frame.startswith(b"\xd8\x18")
    assert frame_size(frame) == size
    assert plain(read(frame)) == [cbor(bytes(size))]
    assert cbor_frame(bytes(size // 2), b"", bytes(size - size // 2)) == frame


def test_a_line_counts_without_its_line_feed() -> None:
    assert frame_size(LINE + b"\n") == len(LINE)
    assert frame_size(LINE + b" \n") == len(LINE) + 1


def test_a_frame_that_has_just_begun_does_not_keep_the_read_that_it_began_in() -> None:
    begun = cbor_frame(bytes(5000))[:8]
    framers = [Framer(Limits()) for _ in range(20)]
    tracemalloc.start()
    try:
        for framer in framers:
            framer.receive((LINE + b"\n") * (100_000 // len(LINE)) + begun)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < len(framers) * 10_000
