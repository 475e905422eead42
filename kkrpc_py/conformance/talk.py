"""The kit's side of a conversation: sending, waiting for a message, calls of the kit's own, the exit.

It owns the bounds of every wait and what a wait that failed says. What a case wants of it is the business of
`play`; which bytes go where is `child`'s.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import anyio
import cbor2

from kkrpc_py.conformance import patterns
from kkrpc_py.conformance.books import Produced, chunks_in
from kkrpc_py.conformance.child import Child
from kkrpc_py.conformance.patterns import Context, PatternError, brief, dumps, resolve
from kkrpc_py.conformance.wire import Message, cbor_frame, padded

__all__ = ["EXIT_CODES", "Session", "StepFailed", "Talk", "same_id", "shown"]

EXIT_SECONDS: Final = 2.0
"""What a testee has to exit, at a timeout of `USUAL_TIMEOUT`; longer where that is longer."""
USUAL_TIMEOUT: Final = 5.0
EXIT_CODES: Final = (0, 3, 4)
"""The exit codes that mean something (spec/testee.md). Any other is a crash."""
SHOWN: Final = 500
"""How many characters of a message a failure shows."""

T = TypeVar("T")


class StepFailed(Exception):
    """What came is not what the case says.

    `crashed`: and nothing can be said to the testee any more. `basic`: it does not even answer the kit's own
    calls, or read, which has nothing to do with what the case is about.
    """

    def __init__(self, expected: str, seen: str, *, crashed: bool = False, basic: bool = False) -> None:
        super().__init__(f"expected {expected}, seen {seen}")
        self.expected = expected
        self.seen = seen
        self.crashed = crashed
        self.basic = basic
        self.step: int | None = None


@dataclasses.dataclass(slots=True)
class Session:
    """A process and what was agreed with it."""

    child: Child
    kind: str | tuple[str, ...]
    """As `Case.session`."""
    testee: frozenset[str]
    """The features that the testee declares."""
    timeout: float
    """The bound of each wait, in seconds."""
    fresh: bool = False
    """Whether the process is for one case alone."""
    named: frozenset[str] = frozenset()
    """The features that the kit's hello named."""
    agreed: frozenset[str] = frozenset()
    """Those of them that the testee's answer named too."""
    functions: set[str] = dataclasses.field(default_factory=set)
    """The ids of all functions that the kit has passed."""
    streams: set[tuple[type, Any]] = dataclasses.field(default_factory=set)
    """The ids of all streams that the kit has opened or named."""
    calls: int = 0

    @property
    def exit_seconds(self) -> float:
        """How long an exit is waited for."""
        return EXIT_SECONDS * max(1.0, self.timeout / USUAL_TIMEOUT)

    def next_id(self) -> str:
        """An id for a call of the kit's own."""
        self.calls += 1
        return f"kit:{self.calls}"


class Talk:
    """One case's part of a session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.child = session.child
        self.context = Context(floats="floats" in session.testee)
        self.captured = self.context.captured
        self._hello_id: Any = None
        self._books: dict[tuple[type, Any], Produced] = {}

    # Sending -------------------------------------------------------------------------------------

    async def send(self, template: Any, serialization: str | None = None, length: int | None = None) -> None:
        """Write a message, padded to that length (CRD-7) if one is given."""
        if serialization is None:
            serialization = "superjson" if self.session.kind == "superjson" else "json"
        if serialization == "cbor":
            payload = _payload(resolve(template, self.captured), length)
            data, size = cbor_frame(payload), len(payload)
        else:
            line = dumps(template, self.captured)
            if serialization == "superjson":
                line = b'{"json":' + line + b"}"
            if length is not None:
                line = _padded(line, length)
            data, size = line + b"\n", len(line)
        self._note_sent(_outline(template, self.captured), size)
        await self.write(data)

    async def write(self, data: bytes, *, lines: Sequence[bytes] | None = None) -> None:
        """Write bytes; `lines` is what the trace says of them."""
        await self.bounded(self.child.write(data, shown=lines), "that the testee reads its input")

    def note_written(self, data: bytes) -> None:
        """Take note of the messages in bytes that are written: a hello, a chunk, or whatever they are."""
        for line in data.split(b"\n"):
            if line.startswith(b"{") and b'"type"' in line:
                with contextlib.suppress(ValueError, RecursionError):
                    message = json.loads(line)
                    message = message.get("json", message)
                    if isinstance(message, dict):
                        self._note_sent(message, len(line))

    async def bounded(self, work: Awaitable[None], expected: str) -> None:
        """Wait for what waits for the testee."""
        with anyio.move_on_after(self.session.timeout) as scope:
            await work
        if scope.cancelled_caught:
            seen = f"it did not within {self.session.timeout:g} seconds{self.left()}"
            raise StepFailed(expected, seen, basic=True)

    def _note_sent(self, message: Mapping[str, Any], size: int) -> None:
        kind, id, args = message.get("type"), message.get("id"), message.get("args")
        if message.get("method") == "kkrpc.hello" and isinstance(args, list) and args:
            features = args[0].get("features") if isinstance(args[0], dict) else None
            if isinstance(features, list) and not self.session.named:  # a second hello changes nothing
                self._hello_id = id
                self.session.named = frozenset(name for name in features if isinstance(name, str))
        functions = message.get("callbackIds")
        if isinstance(functions, list):
            self.session.functions.update(name for name in functions if isinstance(name, str))
        if kind == "response" and isinstance(args, dict):
            result = args.get("result")
            if isinstance(result, dict) and result.get("__stream") is True:
                self.book(id)
        streams = message.get("streamIds")
        for stream in streams if isinstance(streams, list) else ():
            self.book(stream)
        if kind == "stream-chunk" and isinstance(args, dict):
            book = self.book(id)
            book.chunks += chunks_in(args)
            book.size += size
        if kind == "stream-ack" and isinstance(args, dict):
            n, b = args.get("n"), args.get("b")
            if type(n) is int and type(b) is int and n >= 0 and b >= 0:
                self.child.inbox.consumed(id).grant(n, b)

    def book(self, id: Any) -> Produced:
        """The book of a stream of the kit."""
        self.session.streams.add(_book_key(id))
        return self._books.setdefault(_book_key(id), Produced())

    # Waiting -------------------------------------------------------------------------------------

    async def wait_for(self, find: Callable[[], T | None], expected: str) -> T:
        """What `find` finds, once it is there."""
        with anyio.move_on_after(self.session.timeout):
            while True:
                # Before what came after it, so that it is told in the same step whatever was read at once.
                if self.child.fault:
                    raise StepFailed(expected, self.child.fault)
                found = find()
                if found is not None:
                    return found
                if self.child.output_closed:
                    break
                await self.child.changed()
        if self.child.output_closed:
            raise await self._gone(expected)
        raise StepFailed(expected, f"nothing of it within {self.session.timeout:g} seconds{self.left()}")

    async def _gone(self, expected: str) -> StepFailed:
        code = await self.child.exit_code(self.session.exit_seconds)
        if code is None:
            return StepFailed(expected, "it closed its output, and runs on", crashed=True)
        # In a process of its own a testee that closes, as for a violation, is wrong; elsewhere it is gone.
        crashed = not self.session.fresh or code not in EXIT_CODES
        return StepFailed(
            expected, f"it closed its output and {_exit_text(code)}{self.left()}", crashed=crashed
        )

    def left(self) -> str:
        """What lies there unexpected, as a failure shows it."""
        inbox = self.child.inbox
        if not inbox:
            return ""
        left = [shown(message)[:200] for message in itertools.islice(inbox.left(), 3)]
        return f"; not expected yet: {'; '.join(left)}{' …' if len(inbox) > 3 else ''}"

    def take(self, *, id: Any = None, type: str | None = None) -> tuple[int, Message] | None:
        """The oldest message with that id and type, with its number; it is no other step's any more."""
        found = self.child.inbox.take(id=id, type=type)
        if found is not None:
            self._note_taken(found[1])
        return found

    def _note_taken(self, message: Message) -> None:
        fields = message.fields
        if fields["type"] == "stream-ack":
            found = _acknowledged(fields)
            if found is not None and _book_key(fields["id"]) in self._books:
                book = self.book(fields["id"])
                book.n += found[0]
                book.b += found[1]
        elif fields["type"] == "response" and self._hello_id is not None:
            args = fields.get("args")
            result = args.get("result") if isinstance(args, dict) else None
            features = result.get("features") if isinstance(result, dict) else None
            if same_id(self._hello_id, fields.get("id")) and isinstance(features, list):
                said = frozenset(name for name in features if isinstance(name, str))
                self.session.agreed = self.session.named & said

    def acknowledged(self, id: Any) -> Produced:
        """The book of a stream of the kit, with all acknowledgements that have arrived."""
        book = self.book(id)
        while (found := self.take(id=id, type="stream-ack")) is not None:
            if _acknowledged(found[1].fields) is None:
                raise StepFailed("acknowledgements of the form of CRD-2", shown(found[1]))
        return book

    # Demands -------------------------------------------------------------------------------------

    def demand(self, seen: Any, expected: Any, what: str) -> None:
        """Fail unless the value matches."""
        found = patterns.match(expected, seen, self.context)
        if found is not None:
            place = f" at {found.path}" if found.path else ""
            raise StepFailed(f"{what}{place}: {found.expected}", found.seen)

    def demand_nothing_left(self) -> None:
        """Fail if a message is there that no step has taken and that may not come unasked."""
        if self.child.fault:
            raise StepFailed("nothing that nobody may write", self.child.fault)
        left = [message for message in self.child.inbox.left() if not self._may_come(message)]
        if left:
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            raise StepFailed("no message that no step expects", f"{shown(left[0])}{more}")

    def _may_come(self, message: Message) -> bool:
        fields = message.fields
        if fields["type"] == "stream-ack":
            known = _book_key(fields.get("id")) in self.session.streams
            return known and "credit" in self.session.agreed and _acknowledged(fields) is not None
        if fields["type"] == "callback-release":
            released = _released(fields)
            return "callback" in self.session.named and bool(released) and released <= self.session.functions
        return False

    # Calls of the kit ----------------------------------------------------------------------------

    async def call(self, method: str, args: Any) -> dict[str, Any]:
        """Call a method of the testee; the `args` of its answer. An error in it fails the step."""
        id = self.session.next_id()
        version = "superjson" if self.session.kind == "superjson" else "json"
        await self.send({"id": id, "method": method, "args": args, "type": "request", "version": version})

        expected = f"an answer to the kit's {method}()"
        try:
            _, message = await self.wait_for(lambda: self.take(id=id, type="response"), expected)
        except StepFailed as failed:
            failed.basic = True
            raise
        self.context.json = message.serialization != "cbor"
        found = message.fields.get("args")
        if not isinstance(found, dict) or "error" in found:
            raise StepFailed(f"a result of the kit's {method}()", shown(message), basic=True)
        return found

    async def barrier(self) -> None:
        """Two calls of `barrier`: what the testee had to say is here then."""
        for _ in range(2):
            await self.call("barrier", [])

    async def quiet(self) -> None:
        """A barrier, and nothing is left."""
        await self.barrier()
        self.demand_nothing_left()

    # The end of the process ----------------------------------------------------------------------

    async def exit(self, codes: Sequence[int], *, unread: bool = False) -> None:
        """The testee exits with one of the codes, and has said nothing more, unless that is `unread`."""
        seconds = self.session.exit_seconds
        until = time.monotonic() + seconds
        expected = f"exit {' or '.join(map(str, codes))} within {seconds:g} seconds"
        code = await self.child.exit_code(seconds)
        if code is None:
            state = "its output is closed, and it" if self.child.output_closed else "it"
            raise StepFailed(expected, f"{state} runs on{self.left()}")
        if code not in codes:
            seen = f"it {_exit_text(code)}{self.left()}"
            raise StepFailed(expected, seen, crashed=code not in EXIT_CODES)
        if unread or not self.child.reading:
            return
        if not await self.child.closed(max(until - time.monotonic(), 0.2)):
            raise StepFailed(f"{expected}, and the end of its output", "somebody still holds its output open")
        if self.child.has_half():
            raise StepFailed("whole frames up to the end of its output (FRM-9)", "half a frame at its end")
        self.demand_nothing_left()


def _outline(template: Any, captured: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the kit itself looks at in a message that it sends."""
    if not isinstance(template, dict):
        return {}
    keys = ("id", "type", "method", "callbackIds", "streamIds", "args")
    return {key: resolve(template[key], captured) for key in keys if key in template}


def _acknowledged(fields: Mapping[str, Any]) -> tuple[int, int] | None:
    """The two counts of an acknowledgement; None if it has not the form of CRD-2."""
    anything = {"$any": True}
    pattern = {"id": anything, "type": "stream-ack", "args": {"n": anything, "b": anything}}
    if patterns.match_message(pattern, fields, Context()) is not None:
        return None
    n, b = fields["args"]["n"], fields["args"]["b"]
    return (int(n), int(b)) if _is_count(n, 0) and _is_count(b, 0) else None


def _released(fields: Mapping[str, Any]) -> set[str]:
    """The ids that a release names; none of them if it has not the form of section 3."""
    pattern = {"type": "callback-release", "args": {"$type": "object"}}
    if patterns.match_message(pattern, fields, Context()) is not None:
        return set()
    args = fields["args"]
    return set(args) if all(_is_count(count, 1) for count in args.values()) else set()


def _is_count(value: Any, least: int) -> bool:
    # As everywhere in patterns 20.0 is the integer 20: a language may have no other way to write it.
    return patterns.match({"$type": "integer"}, value, Context()) is None and value >= least


def _padded(line: bytes, length: int) -> bytes:
    try:
        return padded(line, length)
    except ValueError as error:
        raise PatternError(str(error)) from None


def _payload(message: Mapping[str, Any], length: int | None) -> bytes:
    payload: bytes = cbor2.dumps(message)
    if length is None:
        return payload
    # An ignored key as long as it takes: some bytes less where its own length takes them.
    room = length - len(cbor2.dumps({**message, "pad": ""}))
    for size in range(max(room - 4, 0), room + 1):
        payload = cbor2.dumps({**message, "pad": "x" * size})
        if len(payload) == length:
            return payload
    raise PatternError(f"no payload of {length} bytes can be made of this message")


def _book_key(id: Any) -> tuple[type, Any]:
    # What is no id has no book of its own, and is never looked for.
    return (type(id), id) if isinstance(id, str | int) else (type(id), None)


def same_id(wanted: Any, seen: Any) -> bool:
    """Whether two ids are the same: 1, "1" and 1.0 are three (MSG-2)."""
    return type(wanted) is type(seen) and bool(wanted == seen)


def shown(message: Message) -> str:
    """The message as a failure shows it, on one line."""
    text = message.data.decode("utf-8", "backslashreplace")
    if message.serialization == "cbor":
        text = brief(message.fields)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 150]} … {text[-100:]} ({len(text)} characters)"


def _exit_text(code: int) -> str:
    return f"exited with {code}" if code >= 0 else f"was ended by signal {-code}"
