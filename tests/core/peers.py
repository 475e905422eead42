"""A peer that is nothing but bytes: what it sends is written out, what it gets is read without the library.

It owns no protocol: a test says every line. Frames are read here by the standard library and cbor2, so that
a fault of `kkrpc_py.wire` cannot hide itself.
"""

from __future__ import annotations

import json
from typing import Any

import cbor2

from kkrpc_py.core import events as ev
from kkrpc_py.core.calls import IncomingCall, OutgoingCall
from kkrpc_py.core.connection import Connection
from kkrpc_py.limits import Limits
from kkrpc_py.wire.codec import Codec

ALL_FEATURES = [
    "batch", "callback", "cancel", "cbor", "credit", "kwargs", "metadata", "result", "stream-arguments",
]  # fmt: skip


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def read_frame(frame: bytes) -> dict[str, Any]:
    """The mapping of one frame, and that it is one."""
    if frame[:2] == b"\xd8\x18":
        inner = cbor2.loads(frame[2:])
        assert type(inner) is bytes
        loaded = cbor2.loads(inner)
    else:
        assert frame.count(b"\n") == 1
        assert frame.endswith(b"\n")
        loaded = json.loads(frame)
    assert type(loaded) is dict
    return loaded


def request(id: Any, method: str = "f", args: Any = ()) -> bytes:
    return line(id=id, method=method, args=list(args), type="request", version="json")


def hello(id: Any = "h", features: Any = ALL_FEATURES, protocol: Any = 1) -> bytes:
    return request(id, "kkrpc.hello", [{"protocol": protocol, "features": features}])


def response(id: Any, **args: Any) -> bytes:
    return line(id=id, method="", args=args, type="response", version="json")


def hello_answer(id: Any, features: Any = ALL_FEATURES, protocol: Any = 1) -> bytes:
    return response(id, result={"protocol": protocol, "features": features})


def opened(id: Any) -> bytes:
    return response(id, result={"__stream": True})


def chunk(id: Any, *values: Any) -> bytes:
    args = {"value": values[0]} if len(values) == 1 else {"values": list(values)}
    return line(id=id, method="", args=args, type="stream-chunk")


def end(id: Any, **args: Any) -> bytes:
    return line(id=id, method="", args=args, type="stream-end")


def stream_error(id: Any, error: Any = "boom") -> bytes:
    return line(id=id, method="", args={"error": error}, type="stream-error")


def cancel(id: Any) -> bytes:
    return line(id=id, method="", args={}, type="stream-cancel")


def ack(id: Any, n: Any = 1, b: Any = 1) -> bytes:
    return line(id=id, method="", args={"n": n, "b": b}, type="stream-ack")


class Peer:
    """One `Connection`, and the wire to it.

    `agreed`: the peer has said hello: all extensions are in force. `pending`: this side has said hello,
    which is not answered (its id is `hello_id`). Else the peer is stock.
    """

    def __init__(
        self,
        *,
        agreed: bool = False,
        pending: bool = False,
        features: Any = ALL_FEATURES,
        codec: Codec = "auto",
        limits: Limits | None = None,
    ) -> None:
        self.connection = Connection(hello=pending, codec=codec, limits=limits)
        self.hello_id: Any = self.sent()[0]["id"] if pending else None
        if agreed:
            assert self.send(hello(features=features)) == [ev.Settled()]
            assert [message["id"] for message in self.sent()] == ["h"]

    def send(self, *lines: bytes) -> list[ev.Event]:
        """What the connection makes of these bytes."""
        return self.connection.receive_data(b"".join(lines))

    def sent(self) -> list[dict[str, Any]]:
        """What the connection has written since the last time."""
        return [read_frame(frame) for frame in self.connection.data_to_send(1 << 40)]

    def call(
        self, method: str = "f", args: list[Any] | None = None, *, opened_: bool = False
    ) -> OutgoingCall:
        """A call of the connection's, whose request is read; `opened_`: and answered by a stream."""
        call = self.connection.call(method, [] if args is None else args)
        assert [message["id"] for message in self.sent()] == [call.id]
        if opened_:
            assert self.send(opened(call.id)) == [ev.Opened(call)]
        return call

    def asked(self, id: Any = "q", *, opened_: bool = False) -> IncomingCall:
        """A call of the peer's; `opened_`: which the connection has answered by a stream."""
        [event] = self.send(request(id))
        assert isinstance(event, ev.CallRequested)
        if opened_:
            self.connection.open_stream(event.call)
            assert [message["args"] for message in self.sent()] == [{"result": {"__stream": True}}]
        return event.call

    def is_alive(self) -> None:
        """Nothing is left of what was, and calls go through both ways."""
        assert not self.connection.outgoing
        assert not self.connection.incoming
        before = self.connection.violations
        call = self.call("alive", [1])
        assert self.send(response(call.id, result=[2])) == [ev.Returned(call, [2])]
        asked = self.asked("alive")
        self.connection.respond(asked, 3)
        assert [message["args"] for message in self.sent()] == [{"result": 3}]
        assert self.connection.violations == before
