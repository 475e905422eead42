"""The choice of the codec, what a stock peer is spared, and what the reader makes of anything."""

from __future__ import annotations

import datetime as dt
import json
import threading
from typing import Any

import cbor2
import pytest

from kkrpc_py.errors import ErrorValue, LimitExceeded, NotSerializable, ProtocolError
from kkrpc_py.limits import Limits
from kkrpc_py.wire.codec import Codec, Decoder, Encoder, Incoming, frame_size
from kkrpc_py.wire.framing import cbor_frame
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

NOW = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)

EVERY_MESSAGE: list[Message] = [
    Request("a", "m.n", [1, "x"], ("c",)),
    Request(None, "m", []),
    Construct(1, "G", [None]),
    Callback("a", "c", [1]),
    Get("a", ("x", "y")),
    Set("a", ("x",), {"k": [1]}),
    Result("a", 5),
    Result(None),
    Failure("a", ErrorValue("E", "m", "s", {"c": 1}, {"code": 2})),
    Failure("a", ErrorValue("Error", "m", bare=True)),
    StreamOpened("a"),
    Chunks("a", [1]),
    Chunks("a", [1, "2", None]),
    StreamEnd("a"),
    StreamEnd("a", [1]),
    StreamEnd("a", cancelled=True),
    StreamFailure("a", ErrorValue("E", "m")),
    StreamCancel("a"),
    StreamAck("a", 64, 262_144),
]


def encoder(
    codec: Codec = "auto",
    *,
    stock: bool = False,
    cbor: bool = False,
    pending: bool = False,
    limits: Limits | None = None,
) -> Encoder:
    made = Encoder(codec, limits or Limits())
    made.stock = stock
    made.cbor = cbor or made.cbor
    made.pending = pending
    return made


def read(data: bytes, limits: Limits | None = None) -> list[Incoming]:
    return Decoder(limits or Limits()).receive(data)


def is_cbor(frame: bytes) -> bool:
    return frame.startswith(b"\xd8\x18")


@pytest.mark.parametrize("message", EVERY_MESSAGE, ids=lambda message: type(message).__name__)
@pytest.mark.parametrize("codec", ["auto", "json", "cbor"])
@pytest.mark.parametrize("stock", [True, False])
def test_every_message_arrives_and_is_counted_alike(message: Message, codec: Codec, stock: bool) -> None:
    frame = encoder(codec, stock=stock).encode(message)
    assert is_cbor(frame) == (codec == "cbor")
    assert read(frame) == [(message, frame_size(frame))]


def test_an_encoder_begins_with_a_stock_peer_in_mind() -> None:
    fresh = Encoder("auto", Limits())
    assert (fresh.stock, fresh.cbor, fresh.pending) == (True, False, False)
    assert Encoder("cbor", Limits()).cbor


BYTES = b"\x00\x01"


@pytest.mark.parametrize(
    ("codec", "switches", "value", "wanted"),
    [
        ("auto", {}, [1, "x"], "json"),
        ("auto", {"cbor": True}, [1, "x"], "json"),
        ("auto", {"cbor": True}, [BYTES], "cbor"),
        ("auto", {"cbor": True}, {1: 2}, "cbor"),
        ("auto", {"cbor": True}, NOW, "cbor"),
        ("auto", {"cbor": True}, 2**70, "json"),
        ("auto", {"cbor": True}, ["\ud800"], "json"),
        ("auto", {"cbor": True}, {"type": "Uint8Array", "data": [1]}, "cbor"),
        # Neither codec carries both but JSON with kkrpc's form of bytes.
        ("auto", {"cbor": True}, [BYTES, "\ud800"], "json"),
        ("auto", {"cbor": True}, [NOW, "\ud800"], "refused"),
        ("auto", {}, [BYTES], "json"),
        ("auto", {}, NOW, "refused"),
        ("auto", {"stock": True}, [BYTES], "json"),
        ("auto", {"stock": True}, 2**53, "refused"),
        ("auto", {"stock": True, "pending": True}, [1], "json"),
        ("auto", {"stock": True, "pending": True}, [BYTES], "later"),
        ("auto", {"stock": True, "pending": True}, NOW, "later"),
        ("auto", {"stock": True, "pending": True}, 2**53, "later"),
        ("auto", {"stock": True, "pending": True}, object(), "refused"),
        ("auto", {"stock": True, "pending": True}, [BYTES, "\ud800"], "json"),
        ("json", {"cbor": True, "pending": True}, [BYTES], "json"),
        ("json", {"cbor": True, "pending": True}, NOW, "refused"),
        ("cbor", {}, [1], "cbor"),
        ("cbor", {}, "\ud800", "refused"),
    ],
)
def test_the_codec_that_a_value_goes_by(
    codec: Codec, switches: dict[str, bool], value: Any, wanted: str
) -> None:
    one = encoder(codec, **switches)
    if wanted in ("refused", "later"):
        with pytest.raises(NotSerializable) as caught:
            one.encode(Result("a", value))
        assert caught.value.needs_hello == (wanted == "later")
    else:
        frame = one.encode(Result("a", value))
        assert is_cbor(frame) == (wanted == "cbor")
        assert read(frame)[0][0] == Result("a", value)


def test_what_has_to_wait_names_what_waits() -> None:
    with pytest.raises(NotSerializable) as caught:
        encoder(stock=True, pending=True).encode(Request("a", "m", [1, {"at": NOW}]))
    assert (caught.value.path, caught.value.type_name, caught.value.needs_hello) == (
        "args[1]['at']",
        "datetime",
        True,
    )


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (Request("a", "m", [object()]), "args[0]"),
        (Construct("a", "m", [object()]), "args[0]"),
        (Callback("a", "c", [object()]), "args[0]"),
        (Set("a", ("x",), object()), "value"),
        (Result("a", object()), "result"),
        (Chunks("a", [object()]), "value"),
        (Chunks("a", [1, object()]), "values[1]"),
        (StreamEnd("a", [object()]), "result[0]"),
    ],
)
@pytest.mark.parametrize("codec", ["auto", "json", "cbor"])
def test_the_path_begins_with_the_place_in_the_message(message: Message, path: str, codec: Codec) -> None:
    with pytest.raises(NotSerializable) as caught:
        encoder(codec).encode(message)
    assert (caught.value.path, caught.value.type_name) == (path, "object")


# --- errors ---------------------------------------------------------------------------------

ODD_ERROR = ErrorValue("E", "m", None, {1, 2}, {"at": NOW, "raw": b"\x01", "no": object(), "code": 5})


def test_an_errors_fields_go_by_cbor_where_they_can() -> None:
    frame = encoder(cbor=True).encode(Failure("a", ODD_ERROR))
    assert is_cbor(frame)
    [(message, _)] = read(frame)
    assert isinstance(message, Failure)
    assert message.error == ErrorValue("E", "m", None, {1, 2}, {"at": NOW, "raw": b"\x01", "code": 5})


@pytest.mark.parametrize("switches", [{}, {"stock": True}, {"stock": True, "pending": True}])
def test_an_error_never_waits_and_is_sent_without_what_json_cannot_carry(switches: dict[str, bool]) -> None:
    for message in (Failure("a", ODD_ERROR), StreamFailure("a", ODD_ERROR)):
        frame = encoder(**switches).encode(message)
        assert not is_cbor(frame)
        [(found, _)] = read(frame)
        assert isinstance(found, type(message))
        assert found.error == ErrorValue("E", "m", fields={"raw": b"\x01", "code": 5})


@pytest.mark.parametrize("codec", ["json", "cbor", "auto"])
def test_an_errors_text_may_be_no_unicode(codec: Codec) -> None:
    error = ErrorValue(
        "E", "no file \udcff", "trace \udcff", fields={"\udcff": 1, "path": "\udcff", "code": 2}
    )
    [(message, _)] = read(encoder(codec, cbor=True).encode(Failure("a", error)))
    assert isinstance(message, Failure)
    if codec == "cbor":
        assert message.error == ErrorValue("E", "no file \\udcff", "trace \\udcff", fields={"code": 2})
    else:
        assert message.error == error


def test_an_error_field_that_looks_like_bytes_is_left_out_of_json() -> None:
    fields = {"data": {"type": "Uint8Array", "data": [1]}, "code": 1}
    [(message, _)] = read(encoder("json").encode(Failure("a", ErrorValue("E", "m", fields=fields))))
    assert isinstance(message, Failure)
    assert message.error.fields == {"code": 1}


# --- a stock peer ---------------------------------------------------------------------------


def test_toward_a_stock_peer_lines_are_ascii_in_utf_16_escapes() -> None:
    """FRM-11, the README's second rule for writers."""
    text = "h\u00e9 \u20ac \U0001f600 \u2028 \x7f"
    line = encoder("json", stock=True).encode(Request("i\u00e9", "m\u00e9", [text, {text: text}]))
    assert line.isascii()
    assert b"\\ud83d\\ude00" in line
    assert json.loads(line)["args"] == [text, {text: text}]
    assert read(line)[0][0] == Request("i\u00e9", "m\u00e9", [text, {text: text}])
    assert "\u20ac".encode() in encoder("json").encode(Request("a", "m", [text]))


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 131_071, 131_072, 196_608])
def test_toward_a_stock_peer_no_line_has_a_length_of_a_multiple_of_65536(size: int) -> None:
    """FRM-10: a line and its line feed in one piece; padded where the padding does not end the line.

    The line feed of such a line comes alone in a read, and kkrpc drops a read of white space alone.
    """
    empty = len(encoder("json", stock=True).encode(Result("a", ""))) - 1
    message = Result("a", "x" * (size - empty))
    line = encoder("json", stock=True).encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    length = len(line) - 1
    assert length == size + (size % 65_536 == 0)
    assert all(line[at : at + 65_536].strip() for at in range(0, len(line), 65_536))
    assert frame_size(line) == length
    assert read(line) == [(message, length)]
    assert len(encoder("json").encode(message)) == size + 1


@pytest.mark.parametrize(
    "message", [Request("a", "m", [1, "__callback__x"]), Construct("a", "m", [1, "__callback__x"])]
)
def test_toward_a_stock_peer_no_text_looks_like_a_function(message: Request | Construct) -> None:
    with pytest.raises(NotSerializable) as caught:
        encoder("json", stock=True).encode(message)
    assert caught.value.path == "args[1]"
    with pytest.raises(NotSerializable) as caught:
        encoder("auto", stock=True, pending=True).encode(message)
    assert caught.value.needs_hello
    assert read(encoder("json").encode(message))[0][0] == message


def test_functions_and_nested_text_pass() -> None:
    message = Request("a", "m", ["__callback__x", ["__callback__y"]], ("x",))
    assert read(encoder("json", stock=True).encode(message))[0][0] == message
    assert encoder("json", stock=True).encode(Result("a", "__callback__x"))


# --- bounds ---------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["json", "cbor"])
def test_a_frame_over_the_limit_is_not_sent(codec: Codec) -> None:
    limits = Limits(frame=1000)
    room = 1000 - frame_size(encoder(codec, limits=limits).encode(Result("a", "x" * 500))) + 500
    frame = encoder(codec, limits=limits).encode(Result("a", "x" * room))
    assert frame_size(frame) == 1000
    assert read(frame, limits) == [(Result("a", "x" * room), 1000)]
    with pytest.raises(LimitExceeded):
        encoder(codec, limits=limits).encode(Result("a", "x" * (room + 1)))


@pytest.mark.parametrize("codec", ["json", "cbor"])
@pytest.mark.parametrize("shape", [lambda inner: [inner], lambda inner: {"k": inner}, lambda inner: (inner,)])
def test_a_value_as_deep_as_can_be_sent_can_be_read(codec: Codec, shape: Any) -> None:
    limits = Limits(depth=20)
    value: Any = 1
    deepest = None
    for level in range(1, 25):
        value = shape(value)
        try:
            frame = encoder(codec, limits=limits).encode(Result("a", value))
        except NotSerializable:
            break
        deepest = level
        [(message, _)] = read(frame, limits)
        assert isinstance(message, Result)
    assert deepest == 18  # the message and its args are two


def test_bytes_in_json_count_the_two_levels_that_they_take() -> None:
    limits = Limits(depth=10)
    value: Any = b"x"
    for _ in range(6):
        value = [value]
    assert read(encoder("json", limits=limits).encode(Result("a", value)), limits)[0][0] == Result("a", value)
    with pytest.raises(NotSerializable):
        encoder("json", limits=limits).encode(Result("a", [value]))


@pytest.mark.parametrize("codec", ["json", "cbor", "auto"])
def test_a_value_that_grows_without_end_is_refused_in_time(codec: Codec) -> None:
    twice: list[Any] = []
    twice += [twice, twice]
    with pytest.raises(NotSerializable):
        encoder(codec, limits=Limits(frame=1 << 16)).encode(Result("a", twice))
    laughs: list[Any] = ["x"]
    for _ in range(60):
        laughs = [laughs, laughs]
    with pytest.raises((LimitExceeded, NotSerializable)):
        encoder(codec, limits=Limits(frame=1 << 16)).encode(Result("a", laughs))


@pytest.mark.parametrize("codec", ["json", "cbor"])
@pytest.mark.parametrize("value", [[0] * 5000, [[0, 0]] * 2000, dict.fromkeys(map(str, range(2000)), 0)])
def test_a_value_of_more_parts_than_a_frame_has_bytes_is_refused(codec: Codec, value: Any) -> None:
    with pytest.raises(LimitExceeded):
        encoder(codec, limits=Limits(frame=1000)).encode(Result("a", value))


@pytest.mark.parametrize("codec", ["json", "cbor"])
def test_what_is_around_the_values_is_checked_too(codec: Codec) -> None:
    with pytest.raises(NotSerializable):
        encoder(codec).encode(Result(10**5000, 1) if codec == "json" else Request("a", "m\ud800", [1]))


@pytest.mark.parametrize("codec", ["json", "cbor"])
def test_a_released_memoryview_is_refused(codec: Codec) -> None:
    view = memoryview(b"ab")
    view.release()
    with pytest.raises(NotSerializable, match="released"):
        encoder(codec).encode(Result("a", view))


@pytest.mark.parametrize("codec", ["json", "cbor"])
def test_an_integer_of_too_many_digits_is_found_anywhere(codec: Codec) -> None:
    limits = Limits(digits=30)
    assert read(encoder(codec, limits=limits).encode(Result("a", {"k": [10**30 - 1]})), limits)
    with pytest.raises(NotSerializable) as caught:
        encoder(codec, limits=limits).encode(Result("a", {"k": [1, -(10**30)]}))
    assert caught.value.path == "result['k'][1]"
    text = {"k": ["9" * 100, 0.1234567890123456]}
    assert read(encoder(codec, limits=limits).encode(Result("a", text)), limits)[0][0] == Result("a", text)


class Unshown:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({10**5000: object()}, "result[<int>]"),
        ({"k" * 100: {5: object()}}, "result['" + "k" * 78 + "…][5]"),
        ({Unshown()}, "result{<Unshown>}"),
    ],
)
def test_a_path_is_shown_whatever_the_keys(value: Any, path: str) -> None:
    with pytest.raises(NotSerializable) as caught:
        encoder("cbor", limits=Limits(digits=4300)).encode(Result("a", value))
    assert caught.value.path in (path, "result.key(<int>)")


def test_a_value_shared_but_not_cyclic_is_fine() -> None:
    shared = {"k": [1, 2]}
    value = [shared, shared, {"again": shared}]
    for codec in ("json", "cbor"):
        assert read(encoder(codec).encode(Result("a", value)))[0][0] == Result("a", value)


def test_a_value_that_another_thread_changes_is_refused_or_sent_but_nothing_else() -> None:
    shared: dict[str, Any] = {}
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            shared[f"k{number % 50}"] = {"deep": [number]}
            if number % 7 == 0:
                shared.clear()

    thread = threading.Thread(target=change, daemon=True)
    thread.start()
    try:
        for _ in range(500):
            for codec in ("json", "cbor"):
                try:
                    assert read(encoder(codec).encode(Result("a", shared)))
                except NotSerializable:
                    continue
    finally:
        stop.set()
        thread.join(10)


# --- reading --------------------------------------------------------------------------------


def deep_json(levels: int, kind: str = "request") -> bytes:
    inner = b"[" * levels + b"]" * levels
    return b'{"id":"a","method":"m","args":[%b],"type":"%b"}\n' % (inner, kind.encode())


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (b'{"id":"a", oops\n', Noise),
        (b"{}\n", Noise),
        (b'{"type":"ping"}\n', Noise),
        (b'{"id":"a","type":"request","method":"m","args":[NaN]}\n', Noise),
        (b'{"id":"a","type":"request","method":"m","args":[Infinity]}\n', Noise),
        (b'{"id":"a","type":"request","method":"m","args":[1e400]}\n', Noise),
        (b'{"id":"a","type":"request","method":"\xff"}\n', Noise),
        (b'{"id":"a","type":"request","method":"m"} x\n', Noise),
        (b"{\n", Noise),
        (b'{"a":' * 100_000 + b"\n", Noise),
        (deep_json(126), Request),
        (deep_json(127), Malformed),
        (deep_json(900), Malformed),
        (b'{"id":"a","method":"m","args":[%b],"type":"request"}\n' % (b"9" * 1000), Request),
        (b'{"id":"a","method":"m","args":[%b],"type":"request"}\n' % (b"9" * 1001), Malformed),
        (b'{"id":"a","method":"m","args":[-%b],"type":"request"}\n' % (b"9" * 10_000), Malformed),
        (b'{"id":"a","method":"m","args":["%b"],"type":"request"}\n' % (b"9" * 10_000), Request),
        (b'{"id":"a","method":"m","args":["\\"%b"],"type":"request"}\n' % (b"[" * 10_000), Request),
        (b'{"id":"a","method":"m","args":["%b"],"type":"request"}\n' % (b"[{" * 10_000), Request),
    ],
)
def test_a_json_line_that_is_odd(line: bytes, wanted: type) -> None:
    decoder = Decoder(Limits())
    [(item, _)] = decoder.receive(line)
    assert type(item) is wanted
    if isinstance(item, Malformed):
        assert (item.id, item.type) == ("a", "request")
        assert "Limits." in item.reason
    assert decoder.receive(b'{"id":"b","type":"stream-cancel"}\n')[0][0] == StreamCancel("b")


def test_noise_is_cut() -> None:
    [(item, size)] = read(b"{" + b"x" * 100 + b"\n", Limits(noise=10))
    assert isinstance(item, Noise)
    assert item.data == b"{xxxxxxxxx"
    assert size == 101


def frame(value: Any) -> bytes:
    return cbor_frame(cbor2.dumps(value))


REQUEST = {"id": "a", "method": "m", "args": [], "type": "request"}


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (frame(REQUEST), Request),
        (frame(REQUEST | {"args": [cbor2.CBORTag(999, 1)]}), Malformed),
        (frame(REQUEST | {"args": [cbor2.undefined]}), Malformed),
        (frame(REQUEST | {"args": [10**1000]}), Malformed),
        (frame(REQUEST | {"method": 5}), Malformed),
        (frame(REQUEST | {"type": "ping"}), Broken),
        (frame({"args": [cbor2.CBORTag(999, 1)], "type": "ping"}), Broken),
        (frame([1]), Broken),
        (frame(1), Broken),
        (cbor_frame(b""), Broken),
        (cbor_frame(cbor2.dumps(REQUEST)[:-1]), Broken),
        (cbor_frame(cbor2.dumps(REQUEST) + b"\x00"), Broken),
        (cbor_frame(b"\xff"), Broken),
    ],
)
def test_a_cbor_frame_that_is_odd(data: bytes, wanted: type) -> None:
    decoder = Decoder(Limits())
    [(item, size)] = decoder.receive(data)
    assert type(item) is wanted
    assert size == frame_size(data)
    after = decoder.receive(b'{"id":"b","type":"stream-cancel"}\n')
    if isinstance(item, Broken):
        assert isinstance(item.error, ProtocolError)
        assert after == []
    else:
        assert after[0][0] == StreamCancel("b")
    if isinstance(item, Malformed):
        assert (item.id, item.type) == ("a", "request")


@pytest.mark.parametrize("line", [b'{"id":\n', b'{"type":"ping"}\n', b"noise\n"])
def test_after_a_cbor_frame_what_is_no_message_ends_the_stream(line: bytes) -> None:
    """FRM-5; before one, the same is noise."""
    decoder = Decoder(Limits())
    good = b'{"id":"b","type":"stream-cancel"}\n'
    assert [type(item) for item, _ in decoder.receive(line + good)] == [Noise, StreamCancel]
    found = decoder.receive(frame(REQUEST) + good + line + good + frame(REQUEST))
    assert [type(item) for item, _ in found] == [Request, StreamCancel, Broken]
    assert decoder.receive(good) == []
    assert decoder.receive_eof() == []


def test_the_end_of_the_stream_inside_a_frame() -> None:
    decoder = Decoder(Limits())
    assert decoder.receive(b'{"id":') == []
    [(item, _)] = decoder.receive_eof()
    assert isinstance(item, Broken)
    assert isinstance(item.error, ProtocolError)


def test_a_line_of_ten_megabytes() -> None:
    message = Request("a", "m", ["x" * 10_000_000])
    line = encoder("json").encode(message)
    decoder = Decoder(Limits())
    found = [item for at in range(0, len(line), 65_536) for item in decoder.receive(line[at : at + 65_536])]
    assert found == [(message, len(line) - 1)]


def test_each_value_is_the_readers_own() -> None:
    """No state passes from one message to the next, and nothing that was sent is changed."""
    value = {"raw": b"\x01", "when": memoryview(b"ab"), "list": [b"\x02"]}
    for codec in ("json", "cbor"):
        one = encoder(codec)
        assert one.encode(Result("a", value)) == one.encode(Result("a", value))
        assert type(value["when"]) is memoryview
