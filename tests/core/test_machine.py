"""Two linked connections, driven at random, against a simple model of what each call must see.

The bytes go from one to the other in any pieces, in each direction on its own; both sides call, answer,
stream, acknowledge and cancel at any moment; one may be a stock peer that ignores or refuses the hello; the
byte stream may end anywhere. The model knows of every call what was sent for it and what was received. It
finds lost, doubled and reordered chunks, answers to the wrong call, ids that are never given back, credit
below zero, a violation between honest peers, and any extension toward a peer that has not agreed to it.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import UNSET

from kkrpc_py.core import credit
from kkrpc_py.core import events as ev
from kkrpc_py.core.calls import IncomingCall, OutgoingCall
from kkrpc_py.core.connection import Connection
from kkrpc_py.core.tables import CalleeState, CallerState
from kkrpc_py.errors import ErrorValue, NotSerializable, ProtocolError
from kkrpc_py.limits import Limits
from kkrpc_py.wire.codec import Codec
from tests.core.peers import read_frame, request, response

FRAME = 40_000
"""Small enough that a batch of large values does not fit, and large enough that one does."""
RAISING = [state for state in CalleeState if state is not CalleeState.DONE]
STOPPING = [CalleeState.STOPPING_CALL, CalleeState.STOPPING_STREAM]
STOCK_TYPES = {"request", "response", "stream-chunk", "stream-end", "stream-error", "stream-cancel"}


@dataclasses.dataclass
class Call:
    """What the model knows of one call."""

    serial: int
    caller: int
    out: OutgoingCall
    inc: IncomingCall | None = None
    greeted: bool = False
    """The caller had said hello, or answered one, when it asked (HEL-5)."""
    credited: bool = False
    said: str | None = None
    """How the callee ended it: result, error, end or stopped."""
    produced: int = 0
    opened: bool = False
    received: int = 0
    unread: deque[tuple[int, int]] = dataclasses.field(default_factory=deque)
    """Chunks and bytes of the frames that the application has not taken."""
    cancelled: bool = False
    confirms: bool = False
    interrupted: bool = False
    over: bool = False
    """Nothing more may be heard of it."""


class Side:
    """One connection and the bytes on their way to it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.coming = b""
        self.frames: deque[int] = deque()
        """The lengths of the frames in `coming`; the first may have been delivered in part."""
        self.partial = b""
        """What was read of a frame whose end was not."""
        self.closed = False
        """The end of its input has come."""


class LinkedConnections(RuleBasedStateMachine):
    first_chunks, first_bytes = 64, 256 * 1024
    """The first credit (CRD-1); smaller ones meet its end more often."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(credit, "INITIAL_CHUNKS", self.first_chunks)
        self.patch.setattr(credit, "INITIAL_BYTES", self.first_bytes)
        self.serial = 0
        self.calls: list[Call] = []
        self.sides: list[Side] = []
        self.drop: str | None = None

    @initialize(
        codecs=st.sampled_from(
            [("auto", "auto"), ("auto", "auto"), ("json", "auto"), ("json", "json"), ("cbor", "cbor")]
        ),
        hellos=st.sampled_from([(True, False), (True, True), (False, False)]),
        stock=st.sampled_from([None, None, None, "ignores", "refuses"]),
        budget=st.sampled_from([1, 1 << 20]),
        callers=st.lists(st.integers(0, 1), max_size=8),
        arrived=st.booleans(),
    )
    def link(
        self,
        codecs: tuple[Codec, Codec],
        hellos: tuple[bool, bool],
        stock: str | None,
        budget: int,
        callers: list[int],
        arrived: bool,
    ) -> None:
        limits = Limits(frame=FRAME, stream_buffer=budget)
        self.budget = max(budget, self.first_bytes)
        if hellos == (True, False) and codecs[0] != "cbor":
            self.drop = stock
        for codec, hello in zip(codecs, hellos, strict=True):
            self.sides.append(Side(Connection(codec=codec, hello=hello, limits=limits)))
        self.never = hellos == (False, False) or self.drop is not None
        """No extension may ever be used."""
        for caller in callers:
            self.call(caller, None)
        if arrived:
            self.settle()

    # Picking -------------------------------------------------------------------------------

    def _served_in(self, *states: CalleeState) -> list[Call]:
        return [call for call in self.calls if call.inc is not None and call.inc.state in states]

    def _pick(self, number: int, *states: CalleeState) -> tuple[Call, IncomingCall, Connection]:
        """A call that runs in one of `states`, and the connection that serves it."""
        fitting = self._served_in(*states)
        call = fitting[number % len(fitting)]
        assert call.inc is not None
        return call, call.inc, self.sides[1 - call.caller].connection

    def _cancellable(self) -> list[Call]:
        return [call for call in self.calls if not call.over and not self.sides[call.caller].closed]

    # What the applications do --------------------------------------------------------------

    sides_ = st.integers(0, 1)
    numbers = st.integers(0, 50)
    seldom = st.sampled_from([False, False, False, True])
    """Most of the time the streams flow."""
    payloads = st.sampled_from(["", "é", 3, None, "x" * 9_000, b"\x00\xff", Decimal("1.5"), math.pi, 2**60])

    @rule(side=sides_, payload=payloads)
    def call(self, side: int, payload: Any) -> None:
        connection = self.sides[side].connection
        if self.sides[side].closed or len(self.calls) > 40:
            return
        self.serial += 1
        before = connection.outbox.size, dict(connection.outgoing)
        method = f"m{self.serial}"
        try:
            out = connection.call(method, [self.serial, payload], owner=self.serial)
        except NotSerializable as error:
            assert (connection.outbox.size, connection.outgoing) == before
            assert not error.needs_hello or connection.pending
            self._assert_needs_more_than_stock(connection, payload)
            out = connection.call(method, [self.serial, None], owner=self.serial)
        greeted = connection.agreed is not None or connection.pending or connection._greeted
        self.calls.append(Call(self.serial, side, out, greeted=greeted))

    def _assert_needs_more_than_stock(self, connection: Connection, payload: Any) -> None:
        assert type(payload) in (bytes, Decimal) or (payload == 2**60 and connection.stock)

    @precondition(lambda self: self._served_in(CalleeState.RUNNING))
    @rule(number=numbers, payload=payloads, seldom=seldom)
    def respond(self, number: int, payload: Any, seldom: bool) -> None:
        if not seldom:
            return
        call, inc, connection = self._pick(number, CalleeState.RUNNING)
        try:
            connection.respond(inc, ["r", call.serial, payload])
        except NotSerializable:
            assert inc.state is CalleeState.RUNNING
            self._assert_needs_more_than_stock(connection, payload)
            connection.respond(inc, ["r", call.serial, None])
        call.said = "result"

    @precondition(lambda self: self._served_in(*RAISING))
    @rule(number=numbers, seldom=seldom)
    def fail(self, number: int, seldom: bool) -> None:
        if seldom:
            call, inc, connection = self._pick(number, *RAISING)
            connection.fail(inc, ErrorValue("Boom", str(call.serial)))
            call.said = "error"

    @precondition(lambda self: self._served_in(CalleeState.RUNNING))
    @rule(number=numbers)
    def open_stream(self, number: int) -> None:
        call, inc, connection = self._pick(number, CalleeState.RUNNING)
        connection.open_stream(inc)
        assert (inc.window is not None) is ("credit" in inc.features)
        call.credited = inc.window is not None

    @precondition(lambda self: self._served_in(CalleeState.STREAMING))
    @rule(number=numbers, count=st.integers(1, 256), payload=payloads, bad=seldom)
    def send_chunks(self, number: int, count: int, payload: Any, bad: bool) -> None:
        call, inc, connection = self._pick(number, CalleeState.STREAMING)
        count = min(count, inc.room)
        if not count:
            assert inc.window is not None
            assert inc.window.chunks == 0 or inc.window.bytes <= 0
            return
        values: list[Any] = [[call.serial, call.produced + index, payload] for index in range(count)]
        if bad:
            values[-1] = object()
        given = list(values)
        before = (inc.window.chunks, inc.window.bytes) if inc.window else (0, 0)
        size = 0
        unsendable = False
        try:
            size = connection.send_chunks(inc, values)
        except NotSerializable:
            unsendable = True
            if type(values[0]) is not object:
                self._assert_needs_more_than_stock(connection, payload)
        sent = len(given) - len(values)
        assert values == given[sent:], "what is left is not the end of what was given"
        assert sent or unsendable
        call.produced += sent
        if inc.window is not None and sent:
            assert before[1] > 0
            assert inc.window.chunks == before[0] - sent
            assert before[1] - sent * FRAME < inc.window.bytes < before[1]
            assert unsendable or inc.window.bytes == before[1] - size
        if values:
            assert unsendable or not inc.room, "values are left, and there is credit for them"
        if unsendable:
            connection.fail(inc, ErrorValue("Boom", str(call.serial)))
            call.said = "error"

    @precondition(lambda self: self._served_in(CalleeState.STREAMING))
    @rule(number=numbers, seldom=seldom, result=st.booleans())
    def end_stream(self, number: int, seldom: bool, result: bool) -> None:
        if seldom:
            call, inc, connection = self._pick(number, CalleeState.STREAMING)
            connection.end_stream(inc, ["s", call.serial] if result else UNSET)
            call.said = "end with result" if result and inc.carries_result else "end"

    @precondition(lambda self: self._served_in(*STOPPING))
    @rule(number=numbers, late=st.booleans())
    def stopped(self, number: int, late: bool) -> None:
        call, inc, connection = self._pick(number, *STOPPING)
        if inc.lane is not None and late:
            values: list[Any] = [1, 2]
            assert connection.send_chunks(inc, values) == 0
            assert values == []
        connection.stopped(inc)
        call.said = "stopped"

    @precondition(lambda self: any(call.unread for call in self.calls))
    @rule(number=numbers, frames=st.integers(1, 9))
    def take(self, number: int, frames: int) -> None:
        fitting = [call for call in self.calls if call.unread]
        call = fitting[number % len(fitting)]
        for _ in range(min(frames, len(call.unread))):
            chunks, size = call.unread.popleft()
            granted = self.sides[call.caller].connection.taken(call.out, chunks, size)
            assert not (granted and (call.cancelled or call.over or not call.credited))

    @precondition(lambda self: self._cancellable())
    @rule(number=numbers, seldom=seldom)
    def cancel(self, number: int, seldom: bool) -> None:
        if not seldom:
            return
        fitting = self._cancellable()
        call = fitting[number % len(fitting)]
        side = self.sides[call.caller]
        agreed = call.greeted and side.connection.agreed is not None
        confirms = side.connection.cancel(call.out)
        assert confirms is agreed
        assert not (confirms and self.never)
        call.cancelled, call.confirms = True, confirms
        if call.opened and not confirms:
            call.over = True

    @rule(side=sides_)
    def give_up_hello(self, side: int) -> None:
        self.sides[side].connection.give_up_hello()
        assert not self.sides[side].connection.pending

    # The wire ------------------------------------------------------------------------------

    @precondition(lambda self: any(side.connection.outbox.size for side in self.sides))
    @rule(side=sides_, most=st.sampled_from([1, 100, 20_000, 1 << 20]))
    def write(self, side: int, most: int) -> None:
        """`side` writes what it has, or some of it."""
        connection, to = self.sides[side].connection, self.sides[1 - side]
        for frame in connection.data_to_send(most):
            message = read_frame(frame)
            if self.never or connection.agreed is None:
                self._assert_stock(side, frame, message)
            if message.get("method") == "kkrpc.hello" and self.drop is not None:
                if self.drop == "refuses":
                    refusal = response(message["id"], error="Method path kkrpc.hello not found at kkrpc")
                    # It goes where a frame begins.
                    at = self.sides[side].frames[0] if self.sides[side].frames else 0
                    coming = self.sides[side].coming
                    self.sides[side].coming = coming[:at] + refusal + coming[at:]
                    self.sides[side].frames.insert(min(1, len(self.sides[side].frames)), len(refusal))
                continue
            if not to.closed:
                to.coming += frame
                to.frames.append(len(frame))

    def _assert_stock(self, side: int, frame: bytes, message: dict[str, Any]) -> None:
        """Nothing in the frame but what kkrpc 0.7 knows (FRM-10, FRM-11, FRM-13, section 3)."""
        assert frame[:1] == b"{" or self.sides[side].connection._encoder._codec == "cbor"
        if frame[:1] == b"{":
            assert frame.isascii()
            assert (len(frame) - 1) % 65_536
        assert message["type"] in STOCK_TYPES
        match message["type"]:
            case "stream-chunk":
                assert set(message["args"]) == {"value"}
            case "stream-end":
                assert message["args"] == {}
            case "stream-cancel":
                # Toward a stock peer it is the streams alone that can be cancelled (CAN-6).
                [call] = [call for call in self.calls if call.caller == side and call.out.id == message["id"]]
                assert call.opened

    @precondition(lambda self: any(side.coming for side in self.sides))
    @rule(side=sides_, count=st.one_of(st.integers(1, 40), st.integers(1, 1 << 18)))
    def deliver(self, side: int, count: int) -> None:
        """`side` reads some bytes."""
        at = self.sides[side]
        if at.closed or not at.coming:
            return
        data, at.coming = at.coming[:count], at.coming[count:]
        left = len(data)
        while left:
            if left >= at.frames[0]:
                left -= at.frames.popleft()
                at.partial = b""
            else:
                at.frames[0] -= left
                at.partial += data[-left:]
                break
        for event in at.connection.receive_data(data):
            self._happened(side, event)

    @precondition(lambda self: self.serial > 3)
    @rule(side=sides_, seldom=seldom)
    def end_of_input(self, side: int, seldom: bool) -> None:
        at = self.sides[side]
        if at.closed or not seldom:
            return
        at.closed = True
        at.coming = b""
        events = at.connection.receive_eof()
        if at.partial == b"\xd8" and at.connection.noise:
            assert [type(event) for event in events] == [ev.Noticed], "one byte does not tell what it begins"
        elif at.partial:
            [lost] = events
            assert isinstance(lost, ev.Lost)
            assert isinstance(lost.error, ProtocolError)
        else:
            assert events == []
        open_ = [call for call in self.calls if call.caller == side and not call.over]
        assert {call.serial for call in open_} == {out.owner for out in at.connection.close()}
        for call in open_:
            call.over = True
        assert at.connection.receive_data(request("late")) == [], "something was read after the end"

    @precondition(lambda self: self._served_in(CalleeState.STREAMING))
    @rule(
        rounds=st.integers(1, 8),
        count=st.integers(1, 256),
        payload=payloads,
        read=st.booleans(),
        number=numbers,
    )
    def flow(self, rounds: int, count: int, payload: Any, read: bool, number: int) -> None:
        """The streams run for a while, all of them, and are read or not."""
        for _ in range(rounds):
            for at in range(len(self._served_in(CalleeState.STREAMING))):
                self.send_chunks(at, count, payload, False)
            if not self._served_in(CalleeState.STREAMING):
                break
            self._carry_everything()
            if read and any(call.unread for call in self.calls):
                self.take(number, 9)

    @rule()
    def settle(self) -> None:
        """All that is written arrives; then both ends agree on what is left."""
        self._carry_everything()
        for call in self.calls:
            if (
                call.over
                or call.inc is None
                or self.sides[call.caller].closed
                or self.sides[1 - call.caller].closed
            ):
                continue
            assert call.opened or call.cancelled or call.inc.state is CalleeState.RUNNING
            send, receive = call.inc.window, call.out.window
            if call.inc.state is CalleeState.STREAMING:
                assert call.received == call.produced
                assert (send is None) is (receive is None)
                if send is not None and receive is not None:
                    assert (send.chunks, send.bytes) == (receive.chunks, receive.bytes)
                    unread = sum(chunks for chunks, _ in call.unread)
                    assert call.unread or send.room > 0, f"both sides wait, {unread} unread"

    def _carry_everything(self) -> None:
        while any(side.connection.outbox.size or side.coming for side in self.sides):
            for number in (0, 1):
                self.write(number, 1 << 20)
                self.deliver(number, 1 << 30)
                if self.sides[number].closed:
                    self.sides[number].coming = b""

    # What must be heard --------------------------------------------------------------------

    def _model_of(self, out: OutgoingCall) -> Call:
        [call] = [call for call in self.calls if call.out is out]
        assert out.owner == call.serial
        assert not call.over, "heard of a call that is over"
        return call

    def _served(self, inc: IncomingCall) -> Call:
        [call] = [call for call in self.calls if call.inc is inc]
        return call

    def _happened(self, side: int, event: ev.Event) -> None:
        at = self.sides[side]
        match event:
            case ev.CallRequested(inc, args):
                [call] = [call for call in self.calls if call.serial == args[0]]
                assert call.inc is None, "the same request twice"
                assert call.caller == 1 - side
                assert inc.method == f"m{call.serial}"
                assert call.greeted or not inc.features
                assert not (self.never and inc.features)
                call.inc = inc
            case ev.Cancelled(inc):
                call = self._served(inc)
                assert call.cancelled
                assert not call.interrupted, "cancelled twice"
                call.interrupted = True
            case ev.Credited(inc):
                assert self._served(inc).credited
            case ev.Returned(out, value):
                call = self._model_of(out)
                assert call.said == "result"
                assert not call.cancelled
                assert value[:2] == ["r", call.serial]
                call.over = True
            case ev.Opened(out):
                call = self._model_of(out)
                assert not call.opened
                assert not call.cancelled
                call.opened = True
                assert call.inc is not None
                assert (out.window is not None) is call.credited, "the two ends differ about credit"
            case ev.Received(out, values, size):
                call = self._model_of(out)
                assert call.opened
                assert not call.cancelled, "a chunk after the cancel"
                expected = [[call.serial, call.received + index] for index in range(len(values))]
                assert [value[:2] for value in values] == expected
                call.received += len(values)
                assert call.received <= call.produced
                call.unread.append((len(values), size))
                if call.credited:
                    assert sum(size for _, size in call.unread) < self.budget + FRAME
            case ev.Stopped(out, result, cancelled):
                call = self._model_of(out)
                call.over = True
                if call.cancelled:
                    assert (result, cancelled) == (None, True)
                    assert call.inc is not None
                    agreed = call.greeted and at.connection.agreed is not None
                    if not agreed and call.inc.lane is not None:  # given up, and now it is a stream (CAN-6)
                        call.opened = True
                else:
                    assert not cancelled
                    assert call.received == call.produced, "an end before the last chunk"
                    assert call.said in ("end", "end with result")
                    assert result == (["s", call.serial] if call.said == "end with result" else None)
            case ev.Failed(out, error):
                call = self._model_of(out)
                call.over = True
                assert not call.cancelled
                assert call.said == "error"
                assert isinstance(error, ErrorValue)
                assert (error.name, error.message) == ("Boom", str(call.serial))
                assert call.received == call.produced, "an error before the last chunk"
            case ev.Settled():
                pass
            case _:
                raise AssertionError(f"between honest peers: {event}")

    # What must always hold -----------------------------------------------------------------

    @invariant()
    def the_tables_hold_what_is_alive_and_nothing_else(self) -> None:
        for number, side in enumerate(self.sides):
            connection = side.connection
            alive = {call.out.id: call.out for call in self.calls if call.caller == number and not call.over}
            assert connection.outgoing == alive
            assert all(out.state is not CallerState.DONE for out in alive.values())
            running = {
                call.inc.id: call.inc
                for call in self.calls
                if call.caller != number and call.inc and call.said is None
            }
            assert connection.incoming == running
            assert connection.violations == 0
            assert connection.noise <= side.closed

    @invariant()
    def no_credit_is_overdrawn(self) -> None:
        for call in self.calls:
            if call.inc is not None and call.inc.window is not None:
                assert call.inc.window.chunks >= 0
                assert call.inc.window.bytes > -FRAME
            if call.out.window is not None:
                assert call.out.window.chunks >= 0
                assert call.out.window.bytes > -FRAME

    def teardown(self) -> None:
        try:
            if self.sides:
                self._finish()
        finally:
            self.patch.undo()

    def _finish(self) -> None:
        """Every handler ends, everything is read: nothing may be left."""
        self.settle()
        while any(call.unread for call in self.calls):
            self.take(0, 1 << 30)
        self.settle()
        while self._served_in(*RAISING):
            call, inc, connection = self._pick(0, *RAISING)
            match inc.state:
                case CalleeState.RUNNING:
                    connection.respond(inc, ["r", call.serial])
                    call.said = "result"
                case CalleeState.STREAMING:
                    connection.end_stream(inc)
                    call.said = "end"
                case _:
                    connection.stopped(inc)
                    call.said = "stopped"
        self.settle()
        for side in self.sides:
            if not any(each.closed for each in self.sides):
                assert not side.connection.outgoing
            assert not side.connection.incoming
            assert side.connection.outbox.size == side.connection.outbox.control_size == 0
        if not self.drop and not any(side.closed for side in self.sides):
            agreed = [side.connection.agreed for side in self.sides]
            assert agreed[0] == agreed[1]
            assert (agreed[0] is None) is self.never
            assert not any(side.connection.pending for side in self.sides)


class LinkedConnectionsWithLittleCredit(LinkedConnections):
    first_chunks, first_bytes = 3, 200


def _settings(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def _case(machine: type[LinkedConnections], examples: int, steps: int) -> Any:
    case: Any = machine.TestCase
    case.settings = _settings(examples, steps)
    return case


class _Hard(LinkedConnections):
    """The same for longer."""


class _HardWithLittleCredit(LinkedConnectionsWithLittleCredit):
    """The same for longer."""


TestLinked = _case(LinkedConnections, 100, 60)
TestLinkedWithLittleCredit = _case(LinkedConnectionsWithLittleCredit, 100, 60)
TestLinkedHard = pytest.mark.slow(_case(_Hard, 1000, 100))
TestLinkedWithLittleCreditHard = pytest.mark.slow(_case(_HardWithLittleCredit, 1000, 100))
