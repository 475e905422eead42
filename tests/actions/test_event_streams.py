"""Published event streams and what they mean: whole, byte by byte, and cut in two everywhere (SSE-14).

The facts, which bytes give which events, are from

- WHATWG HTML, the examples of 9.2.1 and 9.2.6 (html.spec.whatwg.org/multipage/server-sent-events.html),
- web-platform-tests, `eventsource/format-*` and `event-data` (github.com/web-platform-tests/wpt),
- LaunchDarkly's contract tests for clients (github.com/launchdarkly/sse-contract-tests, `ssetests/`),
- eventsource-parser's tests (github.com/rexxars/eventsource-parser, `test/`),

written down anew. The last tests hold the bounds, and say where httpx-sse reads otherwise
(docs/decisions/0017).
"""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import httpx
import httpx_sse
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkrpc_py.actions.reading import EventStreamReader

LIMIT = 1 << 20
Event = tuple[str, str, str]
"""Type, data, last event id."""


def message(data: str, id: str = "") -> Event:
    return ("message", data, id)


class Case(NamedTuple):
    id: str
    data: bytes
    events: list[Event]
    last_id: str = ""
    retry: float | None = None


BOM = b"\xef\xbb\xbf"
LONG = b"x" * 2048

WHATWG = [
    Case(
        "whatwg-messages",
        b"data: This is the first message.\n\ndata: This is the second message, it\ndata: has two lines.\n\n"
        b"data: This is the third message.\n\n",
        [
            message("This is the first message."),
            message("This is the second message, it\nhas two lines."),
            message("This is the third message."),
        ],
    ),
    Case(
        "whatwg-types",
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [("add", "73857293", ""), ("remove", "2153", ""), ("add", "113411", "")],
    ),
    Case("whatwg-lines", b"data: YHOO\ndata: +2\ndata: 10\n\n", [message("YHOO\n+2\n10")]),
    Case(
        "whatwg-ids",
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [message("first event", "1"), message("second event"), message(" third event")],
    ),
    Case("whatwg-empty", b"data\n\ndata\ndata\n\ndata:\n", [message(""), message("\n")]),
    Case("whatwg-space", b"data:test\n\ndata: test\n\n", [message("test"), message("test")]),
]
WPT = [
    Case(
        "wpt-event-data",
        b"data:msg\ndata: msg\n\n:\nfalsefield:msg\n\nfalsefield:msg\nData:data\n\ndata\n\ndata:end\n\n",
        [message("msg\nmsg"), message(""), message("end")],
    ),
    Case("wpt-bom", BOM + b"data:1\n\n" + BOM + b"data:2\n\ndata:3\n\n", [message("1"), message("3")]),
    Case("wpt-bom-2", BOM + BOM + b"data:1\n\ndata:2\n\ndata:3\n\n", [message("2"), message("3")]),
    Case(
        "wpt-comments",
        b"data:1\r:\0\n:\r\ndata:2\n:" + LONG + b"\rdata:3\n:data:fail\r:" + LONG + b"\ndata:4\n\n",
        [message("1\n2\n3\n4")],
    ),
    Case(
        "wpt-data-before-final-empty-line",
        b"retry:1000\ndata:test1\n\nid:test\ndata:test2",
        [message("test1")],
        retry=1.0,
    ),
    Case(
        "wpt-field-data",
        b"data:\n\ndata\ndata\n\ndata:test\n\n",
        [message(""), message("\n"), message("test")],
    ),
    Case("wpt-field-event", b"event:test\ndata:x\n\ndata:x\n\n", [("test", "x", ""), message("x")]),
    Case("wpt-field-event-empty", b"event: \ndata:data\n\n", [message("data")]),
    Case(
        "wpt-field-id", "id: …\nretry: 200\ndata: hello\n\n".encode(), [message("hello", "…")], "…", retry=0.2
    ),
    Case(
        "wpt-field-id-3-persists",
        b"id: 1\ndata: 1\n\ndata: 2\n\nid: 2\ndata:3\n\ndata:4\n\n",
        [message("1", "1"), message("2", "1"), message("3", "2"), message("4", "2")],
        "2",
    ),
    Case(
        "wpt-field-id-3-resets",
        b"id: 1\ndata: 1\n\nid:\ndata:2\n\ndata:3\n\n",
        [message("1", "1"), message("2"), message("3")],
    ),
    Case(
        "wpt-field-id-3-resets-no-colon",
        b"id: 1\ndata: 1\n\nid\ndata:2\n\ndata:3\n\n",
        [message("1", "1"), message("2"), message("3")],
    ),
    *(
        Case(f"wpt-field-id-null-{number}", b"id: " + value + b"\ndata: hello\n\n", [message("hello")])
        for number, value in enumerate((b"\0\0", b"x\0", b"\0x", b"x\0x", b" \0"))
    ),
    Case(
        "wpt-field-parsing",
        b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\n"
        b"data:4\n\n",
        [message("\0\n 2\n1\n3\n\n4")],
    ),
    Case("wpt-field-retry", b"retry:03000\ndata:x\n\n", [message("x")], retry=3.0),
    Case("wpt-field-retry-bogus", b"retry:3000\nretry:1000x\ndata:x\n\n", [message("x")], retry=3.0),
    Case("wpt-field-retry-empty", b"retry\ndata:test\n\n", [message("test")]),
    Case(
        "wpt-field-unknown",
        b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n",
        [message("test\n\ntest")],
    ),
    Case("wpt-leading-space", b"data:\ttest\rdata: \ndata:test\n\n", [message("\ttest\n\ntest")]),
    Case("wpt-newlines", b"data:test\r\ndata\ndata:test\r\n\r", [message("test\n\ntest")]),
    Case("wpt-null-character", b"data:\0\n\n\n\n", [message("\0")]),
    Case("wpt-utf-8", "data:ok…\n\n".encode(), [message("ok…")]),
]
LAUNCHDARKLY = [
    Case("ld-two-events-one-chunk", b"data: Hello\n\ndata: World\n\n", [message("Hello"), message("World")]),
    Case("ld-two-line-message", b"data: Hello\ndata:World\n\n", [message("Hello\nWorld")]),
    Case(
        "ld-type-and-id",
        b"event: greeting\nid: abc\ndata: Hello\n\n",
        [("greeting", "Hello", "abc")],
        "abc",
    ),
    Case(
        "ld-reverse-order",
        b"data: Hello\nid: abc\nevent: greeting\n\n",
        [("greeting", "Hello", "abc")],
        "abc",
    ),
    Case("ld-id-with-null", b"id: a\0bc\ndata: Hello\n\n", [message("Hello")]),
    Case(
        "ld-id-overridden-by-empty",
        b"id: abc\ndata: first\n\nid: \ndata: second\n\n",
        [message("first", "abc"), message("second")],
    ),
    Case(
        "ld-unknown-field", b"event: greeting\ncolor: blue\ndata: Hello\n\n", [("greeting", "Hello", "")]
    ),
    Case("ld-extra-space", b"event:  greeting\ndata:  Hello\n\n", [(" greeting", " Hello", "")]),
    Case("ld-multi-byte", "data: €豆腐\n\n".encode(), [message("€豆腐")]),
    Case(
        "ld-many", b"".join(b"data: message %d\n\n" % n for n in range(100)),
        [message(f"message {n}") for n in range(100)],
    ),
    Case(
        "ld-bom-in-data", BOM + b"data: " + BOM + b"Hello\n\n", [message("\ufeffHello")]
    ),
    Case("ld-bom-comment", BOM + b":comment\ndata: Hello\n\n", [message("Hello")]),
    Case("ld-bom-empty-data", BOM + b"data:\n\n", [message("")]),
    Case(
        "ld-empty-line-first", b"data:\ndata: line2\ndata: line3\n\n", [message("\nline2\nline3")]
    ),
    Case(
        "ld-empty-line-middle", b"data: line1\ndata:\ndata: line3\n\n", [message("line1\n\nline3")]
    ),
    Case(
        "ld-extra-empty-lines",
        b"data: event 1\n\n\n\ndata: event 2\n\n",
        [message("event 1"), message("event 2")],
    ),
    Case(
        "ld-partial-event",
        b"id: abc\ndata: Hello\n\nid: def\ndata: Goodbye",
        [message("Hello", "abc")],
        "abc",
    ),
]  # fmt: skip
PARSER = [
    Case("esp-empty-lines-first", "\n\n\n\nid: 1\ndata: 我現在都看實況不玩遊戲\n\n".encode(),
         [message("我現在都看實況不玩遊戲", "1")], "1"),
    Case("esp-heartbeats", ": ♥\ndata: A\n\n: ♥\ndata: B\n\n".encode(), [message("A"), message("B")]),
    Case("esp-id-null-keeps-earlier", b"id: 123\nid: bad\0id\ndata: hello\n\n",
         [message("hello", "123")], "123"),
    Case("esp-id-without-data", b"id: 42\n\n", [], "42"),
    Case("esp-id-without-data-null", b"id: 42\n\nid: bad\0id\n\n", [], "42"),
    Case("esp-id-without-data-reset", b"id: 42\n\nid:\n\n", [], ""),
    Case("esp-comment-then-crlf", b"data: one\n:ignored\r\ndata: two\n\n", [message("one\ntwo")]),
    Case("esp-crlf-of-one-event", b"data: A\r\ndata: B\r\ndata: C\r\n\r\n", [message("A\nB\nC")]),
    Case("esp-retry", b"\nretry: 500\n\ndata: first\n\nretry: 50x\n\ndata: second\n\n",
         [message("first"), message("second")], retry=0.5),
    Case("esp-not-an-event-stream",
         b'{"error":"Internal Server Error"}\nWell, this is not what I expected\n\n', []),
]  # fmt: skip
OWN = [
    Case("type-without-data", b"event: a\n\ndata: x\n\n", [message("x")]),
    Case("utf-8-broken", b"data: \xff\xe2\x82\ndata: \xe2\x82\xac\xe2\n\n",
         [message("\ufffd\ufffd\n€\ufffd")]),
    Case("utf-8-surrogates-overlong", b"data: \xed\xa0\x80\xc0\xaf\n\n", [message("\ufffd" * 5)]),
    Case("utf-8-broken-field-name", b"dat\xffa: x\n\ndata\xff\n\n", []),
    Case("lines-of-other-standards", "data: a\x0bb\x0cc\x1cd\x85e\u2028f\n\n".encode(),
         [message("a\x0bb\x0cc\x1cd\x85e\u2028f")]),
    Case("id-twice", b"id: a\nid: b\ndata: x\n\n", [message("x", "b")], "b"),
    Case("id-incomplete-event", b"id: a\ndata: x\n\nid: b\n", [message("x", "a")], "a"),
    Case("id-stays-empty-lines", b"id: a\ndata: x\n\n\n: c\n\n", [message("x", "a")], "a"),
    Case("retry-not-ascii", "retry: 1_000\nretry: -5\nretry: +5\nretry: ５\nretry: 1.5\n\n".encode(), []),
    Case("retry-two-spaces", b"retry:  5\n", []),
    Case("retry-huge", b"retry: " + b"9" * 5000 + b"\n", [], retry=float("inf")),
    Case("bom-alone", BOM, []),
    Case("bom-half", b"\xef\xbbdata: x\n\n", []),
    Case("cr-lf-cr", b"data: x\r\n\rdata: y\n\r\n", [message("x"), message("y")]),
    Case("lf-cr", b"data: x\n\rdata: y\n\r", [message("x"), message("y")]),
    Case("nothing", b"", []),
]  # fmt: skip
CASES = [*WHATWG, *WPT, *LAUNCHDARKLY, *PARSER, *OWN]
by_id = pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])


def read(data: bytes, cuts: Iterable[int] = ()) -> tuple[list[Event], EventStreamReader]:
    reader = EventStreamReader(LIMIT)
    found = [
        (event.event, event.data, event.id)
        for start, end in pairwise((0, *cuts, len(data)))
        for event in reader.feed(data[start:end])
    ]
    return found, reader


@by_id
def test_published_streams(case: Case) -> None:
    size = len(case.data)
    for cuts in ((), range(1, size), *((cut,) for cut in range(1, size))):
        events, reader = read(case.data, cuts)
        assert (events, reader.last_id, reader.retry) == (case.events, case.last_id, case.retry), cuts
        assert not reader.too_long


LF_ALONE = [case for case in CASES if b"\r" not in case.data]


@pytest.mark.parametrize("end", [b"\r", b"\r\n"], ids=["cr", "crlf"])
@pytest.mark.parametrize("case", LF_ALONE, ids=[case.id for case in LF_ALONE])
def test_with_other_line_ends(case: Case, end: bytes) -> None:
    data = case.data.replace(b"\n", end)
    for step in (1, 2, 3, 7, len(data) + 1):
        events, reader = read(data, range(step, len(data), step))
        assert (events, reader.last_id, reader.retry) == (case.events, case.last_id, case.retry), step


def test_all_of_them_after_one_another() -> None:
    """Whatever came before, and whatever is left unfinished, an event is what it is."""
    reader = EventStreamReader(LIMIT)
    for case in CASES:
        if not case.data.startswith(BOM):
            reader.feed(b"\n\nid\n\n")
            events = reader.feed(case.data.removesuffix(b"\r") + b"\n")
            assert [(event.event, event.data, event.id) for event in events][
                : len(case.events)
            ] == case.events


@pytest.mark.parametrize("data", [b"data: x\n\n", b"data: x\r\r", b"data: x\r\n\r\n", b"data: x\r\n\r"])
def test_an_event_comes_with_the_byte_that_completes_it(data: bytes) -> None:
    """A CR is the end of a line by itself: nothing waits for what may follow it."""
    reader = EventStreamReader(LIMIT)
    complete = len(data) - data.endswith(b"\r\n")
    assert reader.feed(data[: complete - 1]) == []
    assert [event.data for event in reader.feed(data[complete - 1 : complete])] == ["x"]
    assert reader.feed(data[complete:]) == []


def as_the_text_says(data: bytes) -> tuple[list[Event], str]:
    """The reading of a whole stream, as 9.2.6 has it, step by step."""
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    *lines, _ = re.split("\r\n|\r|\n", text)
    events: list[Event] = []
    data_buffer = kind = id_buffer = last_id = ""
    for line in lines:
        if line == "":
            last_id = id_buffer
            if data_buffer:
                events.append((kind or "message", data_buffer.removesuffix("\n"), last_id))
            data_buffer = kind = ""
            continue
        if line[0] == ":":
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data_buffer += value + "\n"
        elif name == "id" and "\0" not in value:
            id_buffer = value
    return events, last_id


WORDS = [
    b"data", b"event", b"id", b"retry", b":", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"1", b"x", b"\0",
    BOM, b"\xe2", b"\x82", b"\xac", b"\xf0\x9f\x98\x80", b"data: a\n\n", b": c\n",
]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=40).map(b"".join), st.data())
def test_any_stream_in_any_pieces(data: bytes, draw: st.DataObject) -> None:
    cuts = sorted(draw.draw(st.sets(st.integers(1, max(len(data) - 1, 1)), max_size=8)))
    events, reader = read(data, [cut for cut in cuts if cut < len(data)])
    assert (events, reader.last_id) == as_the_text_says(data)


# Bounds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(
    ("data", "fits"),
    [
        (b"data: " + b"x" * 93 + b"\n\n", True),
        (b"data: " + b"x" * 95 + b"\n\n", False),
        (b"data: " + b"x" * 200, False),
        (b"id: " + b"x" * 200 + b"\n", False),
        (b"data: xxxxxxxxxxxxxx\n" * 6 + b"\n", True),
        (b"data: xxxxxxxxxxxxxx\n" * 7 + b"\n", False),
        (b"data\n" * 101, False),
        (b": " + b"x" * 1000 + b"\ndata: a\n\n", True),
        (b"data: a\n\n" * 100, True),
    ],
    ids=["fits", "line", "line-without-end", "id", "lines-fit", "lines", "empty-lines", "comment", "many"],
)
def test_what_is_too_long(data: bytes, fits: bool, step: int) -> None:
    reader = EventStreamReader(100)
    before = reader.feed(b"data: before\n\n")
    for start in range(0, len(data), step):
        before += reader.feed(data[start : start + step])
    assert reader.too_long is not fits
    assert (len(before) > 1) is fits
    assert fits or reader.feed(b"\n\ndata: after\n\n") == []


def test_what_is_before_it_in_the_same_bytes_is_read() -> None:
    reader = EventStreamReader(10)
    assert [event.data for event in reader.feed(b"data: a\n\ndata: b\n\ndata: cccccccccc\n\n")] == ["a", "b"]
    assert reader.too_long


def test_memory_is_bounded() -> None:
    """A comment without an end, a line without one, and data without one hold no more than the limit."""
    reader = EventStreamReader(1 << 16)
    block = b"x" * (1 << 16)
    tracemalloc.start()
    try:
        reader.feed(b":")
        for _ in range(200):
            reader.feed(block)
        assert not reader.too_long
        reader.feed(b"\ndata: ")
        for _ in range(200):
            reader.feed(block)
        assert reader.too_long
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_bytes_one_at_a_time_take_linear_time() -> None:
    """A line of many bytes, each by itself, is not copied as often."""
    reader = EventStreamReader(1 << 20)
    reader.feed(b"data: ")
    for _ in range(1 << 19):
        reader.feed(b"x")
    (event,) = reader.feed(b"\n\n")
    assert len(event.data) == 1 << 19


# httpx-sse beside it -----------------------------------------------------------------------------

HTTPX_SSE_DIFFERS = {
    # A byte order mark stays in the first line.
    "wpt-bom", "ld-bom-in-data", "ld-bom-empty-data",
    # An empty line is an event where there was a type, a retry or any id before, even without data.
    "type-without-data", "esp-retry", "retry-not-ascii", "id-stays-empty-lines",
    "esp-id-without-data", "esp-id-without-data-null", "esp-id-without-data-reset",
}  # fmt: skip
"""What httpx-sse 0.4.3 reads otherwise. Once this is empty, it can do the reading: docs/decisions/0017."""


def httpx_sse_reads(data: bytes, step: int) -> list[Event]:
    class Body(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield from (data[start : start + step] for start in range(0, len(data), step))

    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Body())
    return [(event.event, event.data, event.id) for event in httpx_sse.EventSource(response).iter_sse()]


@by_id
def test_httpx_sse(case: Case) -> None:
    agrees = all(httpx_sse_reads(case.data, step) == case.events for step in (len(case.data) + 1, 1))
    assert agrees is (case.id not in HTTPX_SSE_DIFFERS)
