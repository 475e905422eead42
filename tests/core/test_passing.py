"""Functions and streams within values, without I/O: which are named, what is kept, what is taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kkrpc_py.core import events as ev
from kkrpc_py.core.callbacks import PassedFunctions
from kkrpc_py.core.calls import IncomingCall
from kkrpc_py.core.connection import Connection
from kkrpc_py.core.outbox import Carrying, Outbox, StreamLane
from kkrpc_py.errors import CallbackReleased, KkrpcError, LimitExceeded, NotSerializable
from kkrpc_py.limits import Limits
from kkrpc_py.wire import messages as m
from tests.core.peers import ALL_FEATURES, hello, line, read_frame

# --- the table of functions ------------------------------------------------------------------------


class Object:
    def method(self) -> None: ...

    def other(self) -> None: ...


def test_what_is_the_same_function() -> None:
    functions = PassedFunctions(100)
    one, two, items = Object(), Object(), [1]

    def entry(value: Any) -> str:
        return functions.add(value, value).id

    assert entry(one.method) == entry(one.method)
    assert entry(items.append) == entry(items.append)
    assert entry(len) == entry(len)
    different = [one.method, one.other, two.method, items.append, items.pop, [].append, len, max, one]
    assert len({entry(value) for value in different}) == len(different)
    assert len(functions) == len(different)


def test_an_entry_keeps_what_it_was_named_by_so_that_no_other_gets_its_id() -> None:
    functions = PassedFunctions(10_000)
    ids = {functions.add(print, Object()).id for _ in range(1000)}
    assert len(ids) == 1000


def test_an_id_is_never_given_twice() -> None:
    functions = PassedFunctions(1)
    seen = set()
    for _ in range(100):
        passed = functions.add(print, print)
        passed.count += 1
        seen.add(passed.id)
        assert functions.give_back(passed.id, 1)
        assert functions.get(passed.id) is None
        assert functions.was_known(passed.id)
    assert len(seen) == 100
    assert not functions.was_known("101")


def test_it_is_forgotten_when_every_message_that_named_it_is_given_back() -> None:
    functions = PassedFunctions(10)
    passed = functions.add(print, print)
    passed.count = 3
    assert functions.give_back(passed.id, 2)
    assert functions.get(passed.id) is passed
    functions.forget_unsent(passed)
    assert functions.get(passed.id) is passed
    assert functions.give_back(passed.id, 1)
    assert len(functions) == 0
    assert functions.give_back(passed.id, 1)  # released by this side meanwhile, for all it knows


def test_more_is_given_back_than_there_was() -> None:
    functions = PassedFunctions(10)
    passed = functions.add(print, print)
    passed.count = 1
    assert not functions.give_back(passed.id, 2)
    assert len(functions) == 0


def test_what_was_released_and_passed_again_is_another() -> None:
    functions = PassedFunctions(10)
    first = functions.add(print, print)
    functions.release(print)
    functions.release(print)
    second = functions.add(print, print)
    second.count = 1
    functions.forget_unsent(first)
    assert functions.give_back(first.id, 1)
    assert functions.get(second.id) is second


def test_no_more_than_the_limit() -> None:
    functions = PassedFunctions(2)
    functions.add(print, print)
    functions.add(len, len)
    functions.add(len, len)
    with pytest.raises(LimitExceeded, match=r"Limits\.callbacks"):
        functions.add(max, max)
    functions.release(len)
    functions.add(max, max)


# --- lanes that are held ---------------------------------------------------------------------------


def carrying(text: bytes, *lanes: StreamLane) -> Carrying:
    frame = Carrying(text)
    Outbox.hold(frame, lanes)
    return frame


def test_a_stream_waits_for_the_frame_that_names_it() -> None:
    outbox, outer, inner = Outbox(), StreamLane(), StreamLane()
    outbox.put_in(outer, b"large")
    outbox.put_in(outer, carrying(b"names", inner))
    outbox.put_in(inner, b"value")
    outbox.put_in(inner, b"end")
    assert outbox.take(1) == [b"large"]
    assert outbox.take(100) == [b"names", b"value", b"end"]
    assert outbox.size == 0
    outbox.put_in(inner, b"more")
    assert outbox.take(100) == [b"more"]


def test_a_frame_that_names_is_never_dropped() -> None:
    outbox, outer, inner = Outbox(), StreamLane(), StreamLane()
    outbox.put_in(outer, b"value")
    outbox.put_in(outer, carrying(b"names", inner))
    outbox.put_in(outer, b"value")
    outbox.put_in(inner, b"inner")
    outbox.drop(outer)
    assert outbox.size == len(b"names" + b"inner")
    assert outbox.take(100) == [b"names", b"inner"]
    outbox.drop(outer)
    assert outbox.size == 0


def test_a_stream_that_is_held_can_be_dropped() -> None:
    outbox, inner = Outbox(), StreamLane()
    frame = carrying(b"names", inner)
    outbox.put_in(inner, b"inner")
    outbox.drop(inner)
    outbox.put(frame)
    outbox.put_in(inner, b"end")
    assert outbox.take(100) == [b"names", b"end"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("pnctd"), st.integers(0, 9)), max_size=80))
def test_no_stream_overtakes_its_name_whatever_happens(steps: list[tuple[str, int]]) -> None:
    """`p`ut in a lane, `n`ame a new lane in a lane, or in the `c`ontrol lane, `t`ake, `d`rop."""
    outbox = Outbox()
    lanes = [StreamLane()]
    named = {0}
    sent: list[bytes] = []

    def take(most: int) -> None:
        for frame in outbox.take(most):
            kind, lane, _ = frame.split()
            if kind == b"names":
                named.add(int(lane))
            else:
                assert int(lane) in named
            sent.append(frame)

    for number, (step, choice) in enumerate(steps):
        index = choice % len(lanes)
        if step == "p":
            outbox.put_in(lanes[index], b"value %d %d" % (index, number))
        elif step in "nc":
            lanes.append(StreamLane())
            frame = carrying(b"names %d %d" % (len(lanes) - 1, number), lanes[-1])
            if step == "c":
                outbox.put(frame)
            else:
                outbox.put_in(lanes[index], frame)
        elif step == "t":
            take(choice * 10)
        else:
            outbox.drop(lanes[index])
    take(10**9)
    assert named == set(range(len(lanes)))
    assert outbox.size == outbox.control_size == 0
    for lane in range(len(lanes)):
        values = [int(frame.split()[2]) for frame in sent if frame.startswith(b"value %d " % lane)]
        assert values == sorted(values)


# --- messages --------------------------------------------------------------------------------------


class Source:
    def __aiter__(self) -> Any: ...


class Held:
    def __init__(self, id: str) -> None:
        self.id = id


class Holder:
    """The layer above: makes plain objects, and notes which producers it was given."""

    def __init__(self) -> None:
        self.connection: Connection
        self.produced: list[tuple[IncomingCall, Any]] = []
        self.callbacks: list[str] = []
        self.arguments: list[str] = []
        self.most = 1000

    def callback(self, id: str) -> Any:
        self.callbacks.append(id)
        if len(self.callbacks) > self.most:
            raise LimitExceeded("too many")
        return Held(id)

    def argument(self, id: str) -> Any:
        self.connection.accept(id)
        self.arguments.append(id)
        return Held(id)

    def unwrapped(self, value: Any, functions: PassedFunctions) -> Any:
        if value is released:
            raise CallbackReleased("released")
        return value

    def producible(self, value: Any) -> Any:
        return value if isinstance(value, Source) else None

    def produce(self, call: IncomingCall, iterable: Any) -> None:
        self.produced.append((call, iterable))


def released() -> None: ...


class Side:
    """One connection whose peer has said hello with these features."""

    def __init__(self, features: Any = ALL_FEATURES, **options: Any) -> None:
        self.holder = Holder()
        self.connection = Connection(hello=False, holder=self.holder, **options)
        self.holder.connection = self.connection
        if features is not None:
            self.connection.receive_data(hello(features=features))
            self.sent()

    def sent(self) -> list[dict[str, Any]]:
        return [read_frame(frame) for frame in self.connection.data_to_send(1 << 40)]

    def receive(self, **fields: Any) -> list[ev.Event]:
        return self.connection.receive_data(line(**fields))

    @property
    def counts(self) -> dict[str, int]:
        return {id: passed.count for id, passed in self.connection.passage.functions._by_id.items()}

    def asked(self) -> IncomingCall:
        [event] = self.receive(id="q", method="f", args=[], type="request")
        assert isinstance(event, ev.CallRequested)
        return event.call


def call(side: Side, value: Any) -> None:
    side.connection.call("f", [value, value])


def keywords(side: Side, value: Any) -> None:
    side.connection.ask(m.Request(None, "f", [], kwargs={"k": [value, value]}), None)


def construct(side: Side, value: Any) -> None:
    side.connection.ask(m.Construct(None, "f", [[value], value]), None)


def set_(side: Side, value: Any) -> None:
    side.connection.ask(m.Set(None, ("a", "b"), {"v": value, "w": value}), None)


def callback(side: Side, value: Any) -> None:
    side.connection.ask(m.Callback(None, "7", [value], kwargs={"k": value}), None)


def notice(side: Side, value: Any) -> None:
    side.connection.notify("7", [value, value])


def answer(side: Side, value: Any) -> None:
    side.connection.respond(side.asked(), [value, {"k": value}])


def chunk(side: Side, value: Any) -> None:
    asked = side.asked()
    side.connection.open_stream(asked)
    side.connection.send_chunks(asked, [[value, value]])


def last(side: Side, value: Any) -> None:
    asked = side.asked()
    side.connection.open_stream(asked)
    side.connection.end_stream(asked, [value, value])


MESSAGES = [call, keywords, construct, set_, callback, notice, answer, chunk, last]


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("send", MESSAGES)
def test_each_message_names_its_functions_once(send: Callable[[Side, Any], None]) -> None:
    side = Side()
    send(side, print)
    message = side.sent()[-1]
    assert message["callbackIds"] == ["1"]
    assert "streamIds" not in message
    assert texts(message).count("__callback__1") == 2
    assert side.counts == {"1": 1}
    send(Side(), len)
    side.receive(type="callback-release", method="", args={"1": 1})
    assert side.counts == {}


@pytest.mark.parametrize("send", MESSAGES)
def test_each_message_names_its_streams(send: Callable[[Side, Any], None]) -> None:
    side, source = Side(), Source()
    with pytest.raises(NotSerializable, match="two places"):
        send(side, source)
    assert side.connection._offered == 0
    assert side.holder.produced == []
    one, two = Source(), Source()
    sources = iter([one, two])

    def encode(value: Any) -> Any:
        return next(sources) if isinstance(value, Object) else NotImplemented

    side = Side(encode=encode)
    send(side, Object())
    message = side.sent()[-1]
    assert "callbackIds" not in message
    ids = message["streamIds"]
    assert len(ids) == 2
    assert sorted(text for text in texts(message) if text.startswith("__stream__")) == sorted(ids * 2)
    assert [(produced.id, source) for produced, source in side.holder.produced] == [
        (ids[0], one),
        (ids[1], two),
    ]


@pytest.mark.parametrize("send", MESSAGES)
@pytest.mark.parametrize("bad", [object(), "x" * 5000, released], ids=["value", "frame", "released"])
def test_what_cannot_be_sent_changes_nothing(send: Callable[[Side, Any], None], bad: Any) -> None:
    side = Side(limits=Limits(frame=2000))
    side.connection.call("before", [print])
    side.sent()
    passed = len(side.connection.outgoing)

    class Twice:
        """Both of its places hold a function, a stream, and what cannot be sent."""

    def encode(value: Any) -> Any:
        return [print, len, Source(), bad] if isinstance(value, Twice) else NotImplemented

    side.connection.passage._lowering._encode = encode
    with pytest.raises(KkrpcError):
        send(side, Twice())
    assert side.counts == {"1": 1}
    assert side.connection._offered == 0
    assert [id for id in side.connection.incoming if id != "q"] == []
    assert side.holder.produced == []
    assert len(side.connection.outgoing) == passed
    assert [text for text in texts(side.sent()) if text.startswith("__")] == []


def test_metadata_takes_neither() -> None:
    side = Side()
    for value in (print, Source()):
        with pytest.raises(NotSerializable, match="meta"):
            side.connection.ask(m.Request(None, "f", [print], meta={"m": [value]}), None)
    assert side.counts == {}
    assert side.connection._offered == 0


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"k": (x,)}, lambda x: {x}])
def test_text_that_is_one_of_the_names_is_refused(wrap: Callable[[Any], Any]) -> None:
    side = Side()
    with pytest.raises(NotSerializable, match="taken for a function"):
        side.connection.call("f", [print, wrap("__callback__1")])
    with pytest.raises(NotSerializable, match="taken for a function"):
        side.connection.ask(m.Request(None, "f", [wrap("__callback__2")], kwargs={"k": len}), None)
    assert side.counts == {}
    # Of another message, as a key, or longer, it is text.
    side.connection.call("f", [print])
    side.connection.call("f", [wrap("__callback__3"), {"__callback__3": 1}])
    side.connection.call("f", [print, wrap("__callback__33"), {"__callback__3": 1}])
    assert list(side.counts.values()) == [2]


def test_functions_in_sets_arrive_as_functions() -> None:
    side = Side()
    [event] = side.connection.receive_data(sent_by(Side(), [{print, "text"}]))
    assert isinstance(event, ev.CallRequested)
    [held] = [item for item in event.args[0] if isinstance(item, Held)]
    assert held.id == "1"
    assert "text" in event.args[0]


def sent_by(side: Side, args: list[Any]) -> bytes:
    side.connection.call("f", args)
    return b"".join(side.connection.data_to_send(1 << 40))


# --- reading ---------------------------------------------------------------------------------------


def test_what_one_peer_lends_the_other_gets() -> None:
    one, two = Side(), Side()
    value = {"a": [print, {"b": Source()}], "c": b"\0" * 9000, 1: len}
    [event] = two.connection.receive_data(sent_by(one, [value, print]))
    assert isinstance(event, ev.CallRequested)
    got, again = event.args
    assert got["a"][0] is again
    assert (again.id, got[1].id) == ("1", "2")
    assert got["a"][1]["b"].id in two.connection.outgoing
    assert two.holder.callbacks == ["1", "2"]


@pytest.mark.parametrize("most", [0, 1, 2])
def test_where_one_is_refused_the_others_are_taken_all_the_same(most: int) -> None:
    """Each is an object that gives itself back; without, the peer would hold its function for ever."""
    side = Side()
    side.holder.most = most
    said = side.receive(
        id="q", method="f", args=[], type="request",
        callbackIds=["a", "b", "c"], streamIds=["__stream__x", "no prefix", "__stream__y"],
    )  # fmt: skip
    assert said == []
    assert side.holder.callbacks == ["a", "b", "c"]
    assert side.holder.arguments == ["__stream__x", "__stream__y"]
    [refused] = [message for message in side.sent() if message["type"] == "response"]
    assert refused["id"] == "q"
    assert "error" in refused["args"]


@pytest.mark.parametrize("bad", ["x" * 300, "\ud800"])
def test_what_is_named_beside_what_is_no_id_is_taken_all_the_same(bad: str) -> None:
    side = Side()
    side.receive(
        id="q", method="f", args=[], type="request",
        callbackIds=[bad, "a"], streamIds=["__stream__x", "__stream__" + bad],
    )  # fmt: skip
    assert side.holder.callbacks == ["a"]
    assert side.holder.arguments == ["__stream__x"]
    [refused] = [message for message in side.sent() if message["type"] == "response"]
    assert refused["args"]["error"]["name"] == "ProtocolError"


@pytest.mark.parametrize(
    "fields",
    [
        {"method": 5, "args": [], "type": "request"},
        {"method": "f", "args": [], "type": "request", "kwargs": 1},
        {"method": 5, "args": [], "type": "callback"},
        {"type": "set", "value": 1},
        {"type": "response", "args": None},
        {"type": "stream-chunk", "args": {"values": []}},
        {"method": "f", "args": [], "type": "request", "id": True},
    ],
)
def test_what_a_malformed_message_names_is_taken_to_be_given_back_cbk_6(fields: dict[str, Any]) -> None:
    side = Side()
    side.receive(**{"id": "q", **fields}, callbackIds=["a"], streamIds=["__stream__x"])
    assert side.holder.callbacks == ["a"]
    assert side.holder.arguments == ["__stream__x"]


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "f", "args": [], "type": "request"},
        {"method": "C", "args": [], "type": "construct"},
        {"path": ["a"], "value": 1, "type": "set"},
        {"method": "1", "args": [], "type": "callback"},
    ],
)
def test_what_is_named_under_an_id_in_use_is_taken_to_be_given_back_cbk_6(fields: dict[str, Any]) -> None:
    side = Side()
    side.asked()
    [event] = side.receive(id="q", **fields, callbackIds=["a"], streamIds=["__stream__x"])
    assert isinstance(event, ev.Violated)
    assert side.holder.callbacks == ["a"]
    assert side.holder.arguments == ["__stream__x"]


def test_what_is_given_back_takes_as_many_messages_as_it_needs_cbk_6() -> None:
    side = Side(limits=Limits(frame=2000))
    counts = {f"{number}{chr(1) * 20}": number + 1 for number in range(100)}
    side.connection.give_back(counts)
    releases = [message["args"] for message in side.sent()]
    assert len(releases) > 1
    assert {id: count for release in releases for id, count in release.items()} == counts
    assert sum(map(len, releases)) == 100
    side.connection.give_back({"x" * 3000: 1, "y": 1})
    assert [message["args"] for message in side.sent()] == [{"y": 1}]


def test_an_error_of_the_reader_itself_fits_into_a_frame_msg_7() -> None:
    def quote(value: Any) -> Any:
        raise ValueError(f"cannot read {value}")

    side = Side(limits=Limits(frame=4200), decode=quote)
    side.receive(id="c", method="x" * 4100, args=[], type="callback")
    side.receive(id="q", method="f", args=[{"k": "x" * 4100}], type="request")
    said = [(message["id"], message["args"]["error"]["name"]) for message in side.sent()]
    assert said == [("c", "CallbackReleased"), ("q", "ValueError")]


@pytest.mark.parametrize("value", [{"k": "__stream__x"}, ["__stream__x"], "__stream__x"])
def test_a_peer_that_lends_streams_and_no_functions(value: Any) -> None:
    side = Side(features=[feature for feature in ALL_FEATURES if feature != "callback"])
    asked = side.connection.call("f", [])
    [event] = side.receive(
        id=asked.id, method="", args={"result": value}, type="response", streamIds=["__stream__x"]
    )
    assert isinstance(event, ev.Returned)
    held = event.value if isinstance(value, str) else event.value["k" if isinstance(value, dict) else 0]
    assert isinstance(held, Held)
    [requested] = side.receive(
        id="q", method="f", args=["__callback__a", ["__callback__a"], "__stream__y"], type="request",
        callbackIds=["a"], streamIds=["__stream__y"],
    )  # fmt: skip
    assert isinstance(requested, ev.CallRequested)
    assert [type(item) for item in requested.args] == [Held, list, Held]
    assert requested.args[1] == ["__callback__a"]


def test_nothing_is_named_where_nothing_is_agreed() -> None:
    side = Side(features=None)
    [event] = side.receive(
        id="q", method="f", args=["__stream__a", "__callback__b"], type="request",
        callbackIds=["b"], streamIds=["__stream__a"],
    )  # fmt: skip
    assert isinstance(event, ev.CallRequested)
    assert event.args[0] == "__stream__a"
    assert event.args[1].id == "b"
    for fields in (
        {"id": "s", "path": ["a"], "value": "__callback__b", "type": "set"},
        {"id": "c", "method": "1", "args": ["__callback__b"], "type": "callback"},
    ):
        side.receive(callbackIds=["b"], **fields)
    assert side.holder.callbacks == ["b"]


@pytest.mark.parametrize("kind", ["chunk", "end", "result"])
def test_what_nobody_waits_for_goes_back(kind: str) -> None:
    """The peer lends something in an answer to what is over: it is made, and dropped."""
    side = Side()
    fields: dict[str, Any] = {
        "chunk": {"type": "stream-chunk", "args": {"value": "__callback__a"}},
        "end": {"type": "stream-end", "args": {"result": "__callback__a"}},
        "result": {"type": "response", "args": {"result": "__callback__a"}},
    }[kind]
    side.receive(id="unknown", method="", callbackIds=["a"], streamIds=["__stream__x"], **fields)
    assert side.holder.callbacks == ["a"]
    assert side.holder.arguments == ["__stream__x"]


def test_the_users_hook_sees_mappings_after_the_names_in_them() -> None:
    seen: list[Any] = []

    def decode(mapping: dict[Any, Any]) -> Any:
        seen.append(dict(mapping))
        return mapping

    side = Side(decode=decode)
    side.receive(
        id="q", method="f", args=[{"outer": {"inner": "__callback__a"}}], type="request", callbackIds=["a"]
    )
    assert isinstance(seen[0]["inner"], Held)
    assert seen[1] == {"outer": seen[0]}
