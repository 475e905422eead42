"""Playing one case against a running testee: the steps of spec/conformance/README.md.

It owns what each step does and when it has failed. It starts no process and gives no verdict; that is `run`.
Every wait has a bound.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import anyio
import cbor2

from kkrpc_py.conformance import patterns
from kkrpc_py.conformance.cases import Case
from kkrpc_py.conformance.child import Child
from kkrpc_py.conformance.patterns import Context, Mismatch, PatternError, brief, dumps, resolve
from kkrpc_py.conformance.wire import Message, cbor_frame, padded

__all__ = ["FEATURES", "Session", "StepFailed", "describe", "hello", "play"]

FEATURES: Final = (
    "credit",
    "batch",
    "result",
    "cancel",
    "cbor",
    "callback",
    "stream-arguments",
    "kwargs",
    "metadata",
)
"""What the kit's hello names in the session "all"."""
EXIT_SECONDS: Final = 2.0
"""What a testee has to exit, at a timeout of `USUAL_TIMEOUT`; longer where that is longer."""
USUAL_TIMEOUT: Final = 5.0
EXIT_CODES: Final = (0, 3, 4)
"""The exit codes that mean something (spec/testee.md). Any other is a crash."""
BATCH: Final = (2, 256)
"""How many values a batch may hold (BAT-2)."""
CREDIT: Final = (64, 262_144)
"""What a producer begins with (CRD-1)."""

T = TypeVar("T")


class StepFailed(Exception):
    """What came is not what the case says. `crashed`: and nothing can be said to the testee any more."""

    def __init__(self, expected: str, seen: str, *, crashed: bool = False) -> None:
        super().__init__(f"expected {expected}, seen {seen}")
        self.expected = expected
        self.seen = seen
        self.crashed = crashed
        self.step: int | None = None


@dataclasses.dataclass(slots=True)
class Session:
    """A process and what was agreed with it."""

    child: Child
    kind: str | tuple[str, ...]
    testee: frozenset[str]
    """The features that the testee declares."""
    timeout: float
    fresh: bool = False
    named: frozenset[str] = frozenset()
    """The features that the kit's hello named."""
    agreed: frozenset[str] = frozenset()
    calls: int = 0

    @property
    def exit_seconds(self) -> float:
        """How long an exit is waited for."""
        return EXIT_SECONDS * max(1.0, self.timeout / USUAL_TIMEOUT)

    def next_id(self) -> str:
        """An id for a call of the kit's own."""
        self.calls += 1
        return f"kit:{self.calls}"


async def hello(session: Session) -> None:
    """Say hello as the session wants it, and read the answer; `StepFailed` if it is none."""
    if session.kind in ("stock", "superjson"):
        return
    names = FEATURES if session.kind == "all" else session.kind
    player = _Player(session, None)
    argument = {"protocol": 1, "features": list(names)}
    args = await player.call("kkrpc.hello", [argument])
    answer = args.get("result")
    features = answer.get("features") if isinstance(answer, dict) else None
    if not isinstance(features, list) or not all(isinstance(name, str) for name in features):
        raise StepFailed("an answer to hello of the form of HEL-2", brief(args))
    session.named = frozenset(names)
    session.agreed = session.named.intersection(features)


async def describe(session: Session) -> Mapping[str, Any]:
    """What the testee says of itself; `StepFailed` if it does not."""
    args = await _Player(session, None).call("describe", [])
    found = args.get("result")
    texts = {"name": {"$type": "string"}, "version": {"$type": "string"}, "protocol": {"$type": "integer"}}
    wrong = patterns.match({"$has": {**texts, "features": {"$type": "list"}}}, found, Context())
    if wrong is not None:
        raise StepFailed(f"describe(){wrong.path} {wrong.expected}", wrong.seen)
    assert isinstance(found, dict)
    if not all(isinstance(name, str) for name in found["features"]):
        raise StepFailed("describe().features as text", brief(found["features"]))
    return found


async def play(session: Session, case: Case) -> None:
    """Run the steps and the check at the end; `StepFailed` where the case fails, with its step."""
    player = _Player(session, case)
    for index, step in enumerate(case.steps):
        try:
            await player.step(step)
        except PatternError as error:
            raise StepFailed("a case that can be played", str(error)) from None
        except StepFailed as failed:
            failed.step = index
            raise
    if not any("exit" in step for step in case.steps):
        await player.check_end()


@dataclasses.dataclass(slots=True)
class _Book:
    """A stream whose producer is the kit: what it sent, and what was acknowledged."""

    chunks: int = 0
    size: int = 0
    n: int = 0
    b: int = 0


class _Player:
    def __init__(self, session: Session, case: Case | None) -> None:
        self._session = session
        self._child = session.child
        self._case = case
        self._context = Context(floats="floats" in session.testee)
        self._captured = self._context.captured
        self._hello_id: Any = None
        self._books: dict[tuple[type, Any], _Book] = {}
        self._steps: dict[str, Callable[[Mapping[str, Any]], Awaitable[None]]] = {
            "send": self._send,
            "write": self._write,
            "expect": self._expect,
            "chunks": self._chunks,
            "call": self._call,
            "barrier": self._barrier,
            "quiet": self._quiet,
            "reading": self._reading,
            "end_input": self._end_input,
            "exit": self._exit,
            "first_bytes": self._first_bytes,
            "acks": self._acks,
            "feed": self._feed,
            "drop": self._drop,
        }

    async def step(self, step: Mapping[str, Any]) -> None:
        for name, act in self._steps.items():
            if name in step:
                self._child.note(f"step: {name}")
                await act(step)
                return
        raise PatternError(f"no step {brief(step)}")

    async def check_end(self) -> None:
        self._child.note("the check at the end")
        self._child.set_reading(True)
        await self.quiet()
        args = await self.call("reset", [])
        self._demand(args.get("result"), {"running": 0}, "reset() at the end of the case")
        # What it let go of is said before its answer, and is nobody's fault.
        self._child.messages.clear()
        if self._session.fresh:
            self._child.close_input()
            await self.exit([0], unread=False)

    # Sending -------------------------------------------------------------------------------------

    async def _send(self, step: Mapping[str, Any]) -> None:
        for _ in range(step.get("times", 1)):
            await self.send(step["send"], step.get("serialization"), step.get("length"))

    async def send(self, template: Any, serialization: str | None = None, length: int | None = None) -> int:
        """Write a message; its size as CRD-7 counts it."""
        if serialization is None:
            serialization = "superjson" if self._session.kind == "superjson" else "json"
        message = _outline(template, self._captured)
        if serialization == "cbor":
            payload = self._payload(resolve(template, self._captured), length)
            data, size = cbor_frame(payload), len(payload)
        else:
            line = dumps(template, self._captured)
            if serialization == "superjson":
                line = b'{"json":' + line + b"}"
            if length is not None:
                line = self._padded(line, length)
            data, size = line + b"\n", len(line)
        self._note_sent(message, size)
        await self._written(data)
        return size

    def _padded(self, line: bytes, length: int) -> bytes:
        try:
            return padded(line, length)
        except ValueError as error:
            raise PatternError(str(error)) from None

    def _payload(self, message: dict[str, Any], length: int | None) -> bytes:
        payload: bytes = cbor2.dumps(message)
        if length is None:
            return payload
        # An ignored key, as long as it takes; where its length needs another byte, what is missing again.
        pad = length - len(cbor2.dumps({**message, "pad": ""}))
        for size in range(max(pad - 4, 0), pad + 1):
            payload = cbor2.dumps({**message, "pad": "x" * size})
            if len(payload) == length:
                return payload
        raise PatternError(f"no payload of {length} bytes can be made of this message")

    async def _written(self, data: bytes, shown: Sequence[bytes] | None = None) -> None:
        await self._bounded(self._child.write(data, shown=shown), "that the testee reads its input")

    async def _bounded(self, work: Awaitable[None], expected: str) -> None:
        with anyio.move_on_after(self._session.timeout) as scope:
            await work
        if scope.cancelled_caught:
            raise StepFailed(expected, f"it did not within {self._session.timeout:g} seconds")

    def _note_sent(self, message: Any, size: int) -> None:
        if not isinstance(message, dict):
            return
        kind, id, args = message.get("type"), message.get("id"), message.get("args")
        if message.get("method") == "kkrpc.hello" and isinstance(args, list) and args:
            features = args[0].get("features") if isinstance(args[0], dict) else None
            if isinstance(features, list) and not self._session.named:
                self._hello_id = id
                self._session.named = frozenset(name for name in features if isinstance(name, str))
        if kind == "response" and isinstance(args, dict):
            result = args.get("result")
            if isinstance(result, dict) and result.get("__stream") is True:
                self._book(id)
        if isinstance(streams := message.get("streamIds"), list):
            for stream in streams:
                self._book(stream)
        if kind == "stream-chunk" and isinstance(id, str | int) and isinstance(args, dict):
            book = self._book(id)
            values = args.get("values")
            book.chunks += len(values) if isinstance(values, list) and "value" not in args else 1
            book.size += size

    def _book(self, id: Any) -> _Book:
        return self._books.setdefault((type(id), id), _Book())

    async def _write(self, step: Mapping[str, Any]) -> None:
        parts = list(self._parts(step["write"]))
        if step.get("bytewise"):
            await self._bytewise(b"".join(parts))
        elif step.get("each"):
            for index, part in enumerate(parts):
                if index:
                    await self._bounded(self._child.was_read(), "that the testee reads what was written")
                await self._written(part, part.splitlines(keepends=True))
        else:
            data = b"".join(parts)
            await self._written(data, data.split(b"\n") if data.startswith(b"{") else [data])

    async def _bytewise(self, data: bytes) -> None:
        self._child.note(f"byte by byte, {len(data)} bytes")

        async def write() -> None:
            for index in range(len(data)):
                if index:
                    await self._child.was_read()
                await self._child.write(data[index : index + 1], shown=() if index else [data])

        await self._bounded(write(), "that the testee reads what was written")

    def _parts(self, parts: Any) -> list[bytes]:
        found: list[bytes] = []
        for part in parts:
            match part:
                case {"text": text}:
                    found.append(str(resolve(text, self._captured)).encode())
                case {"hex": text}:
                    found.append(bytes.fromhex(resolve(text, self._captured)))
                case {"frame": text}:
                    found.append(cbor_frame(bytes.fromhex(resolve(text, self._captured))))
                case {"repeat": inner, "times": times}:
                    found += self._parts(inner) * times
                case _:
                    raise PatternError(f"no part {brief(part)}")
        return found

    # Receiving -----------------------------------------------------------------------------------

    async def _wait_for(self, find: Callable[[], T | None], expected: Callable[[], str]) -> T:
        """What `find` finds, once it is there."""
        with anyio.move_on_after(self._session.timeout):
            while True:
                found = find()
                if found is not None:
                    return found
                if self._child.broken is not None:
                    raise StepFailed(expected(), f"{self._child.broken.reason}")
                if self._child.output_closed:
                    raise await self._gone(expected())
                await self._child.changed()
        raise StepFailed(expected(), f"nothing of it within {self._session.timeout:g} seconds{self._left()}")

    async def _gone(self, expected: str) -> StepFailed:
        code = await self._child.exit_code(self._session.exit_seconds)
        if code is None:
            return StepFailed(expected, "it closed its output, and runs on", crashed=True)
        # In a process of its own a testee that closes, as for a violation, is wrong; elsewhere it is gone.
        crashed = not self._session.fresh or code not in EXIT_CODES
        return StepFailed(
            expected, f"it closed its output and {_exit_text(code)}{self._left()}", crashed=crashed
        )

    def _left(self) -> str:
        left = [message.data for _, message in self._child.messages]
        if not left:
            return ""
        shown = "; ".join(data[:200].decode("utf-8", "backslashreplace") for data in left[:3])
        return f"; not expected yet: {shown}{' …' if len(left) > 3 else ''}"

    def _take(self, wanted: Callable[[Message], bool]) -> tuple[int, Message] | None:
        """The oldest message of that kind, which is no other step's any more."""
        messages = self._child.messages
        for index, (number, message) in enumerate(messages):
            if wanted(message):
                del messages[index]
                self._note_taken(message)
                return number, message
        return None

    def _note_taken(self, message: Message) -> None:
        fields = message.fields
        if (
            fields.get("type") == "response"
            and fields.get("id") == self._hello_id
            and self._hello_id is not None
        ):
            args = fields.get("args")
            result = args.get("result") if isinstance(args, dict) else None
            features = result.get("features") if isinstance(result, dict) else None
            if isinstance(features, list):
                said = frozenset(name for name in features if isinstance(name, str))
                self._session.agreed = self._session.named & said

    def _demand(self, seen: Any, expected: Any, what: str) -> None:
        found = patterns.match(expected, seen, self._context)
        if found is not None:
            raise StepFailed(f"{what}: {found.path} {found.expected}".replace(":  ", ": "), found.seen)

    async def _expect(self, step: Mapping[str, Any]) -> None:
        wanted = step["expect"]
        several = wanted if isinstance(wanted, list) else [wanted]
        before = 0
        for pattern in several:
            number, message = await self._next(pattern)
            self._check(pattern, message, step)
            if number < before:
                raise StepFailed(
                    f"{brief(pattern)} after the others in the list", f"it came before: {_text(message)}"
                )
            before = number

    async def _next(self, pattern: Mapping[str, Any]) -> tuple[int, Message]:
        ids = patterns.plain_id(pattern, self._captured)
        kind = pattern.get("type", {"$any": True})

        def wanted(message: Message) -> bool:
            if ids:
                return "id" in message.fields and _same_id(ids[0], message.fields["id"])
            return patterns.match(kind, message.fields.get("type"), Context(dict(self._captured))) is None

        return await self._wait_for(lambda: self._take(wanted), lambda: f"a message like {brief(pattern)}")

    def _check(self, pattern: Mapping[str, Any], message: Message, step: Mapping[str, Any]) -> None:
        self._context.json = message.serialization != "cbor"
        found = patterns.match_message(pattern, message.fields, self._context)
        if found is None:
            found = _options(step, message, self._context)
        if found is not None:
            raise StepFailed(f"{found.path}: {found.expected}", f"{found.seen}, in {_text(message)}")

    async def _chunks(self, step: Mapping[str, Any]) -> None:
        id = resolve(step["chunks"]["id"], self._captured)
        values = step["chunks"]["values"]
        if isinstance(values, dict):
            values = resolve(values, self._captured)
        seen = 0

        def under_id(message: Message) -> bool:
            return _same_id(id, message.fields.get("id"))

        while seen < len(values):
            _, message = await self._wait_for(
                lambda: self._take(under_id),
                functools.partial("chunk {} of {} under {}".format, seen, len(values), brief(id)),
            )
            self._check({"id": id, "type": "stream-chunk", "args": {"$type": "object"}}, message, {})
            got = self._values(message)
            for value in got:
                if seen == len(values):
                    raise StepFailed(
                        f"{len(values)} chunks", f"one more, {brief(value)}, in {_text(message)}"
                    )
                self._demand(value, values[seen], f"chunk {seen}")
                seen += 1

    def _values(self, message: Message) -> list[Any]:
        args = message.fields["args"]
        if args.keys() == {"value"}:
            return [args["value"]]
        values = args.get("values")
        if args.keys() != {"values"} or not isinstance(values, list):
            raise StepFailed("a chunk or a batch", _text(message))
        if "batch" not in self._session.agreed:
            raise StepFailed("a chunk, since batch is not agreed", _text(message))
        if not BATCH[0] <= len(values) <= BATCH[1]:
            raise StepFailed("a batch of 2 to 256 values", f"{len(values)} values, in {_text(message)}")
        return values

    # Calls of the kit ----------------------------------------------------------------------------

    async def _call(self, step: Mapping[str, Any]) -> None:
        args = await self.call(step["call"], step.get("args", []))
        if "result" not in step:
            return
        what = f"{step['call']}() returns"
        if "result" in args:
            self._demand(args["result"], step["result"], what)
        elif patterns.match({"r": step["result"]}, {}, self._context) is not None:
            # A result that is not there is null for who has no such notion (CALL-3).
            self._demand(None, step["result"], what)

    async def call(self, method: str, args: Any) -> dict[str, Any]:
        """Call a method of the testee; the `args` of its answer. An error in it fails the step."""
        id = self._session.next_id()
        version = "superjson" if self._session.kind == "superjson" else "json"
        await self.send({"id": id, "method": method, "args": args, "type": "request", "version": version})

        def wanted(message: Message) -> bool:
            return message.fields.get("id") == id and message.fields.get("type") == "response"

        _, message = await self._wait_for(
            lambda: self._take(wanted), lambda: f"an answer to the kit's {method}()"
        )
        self._context.json = message.serialization != "cbor"
        found = message.fields.get("args")
        if not isinstance(found, dict) or "error" in found:
            raise StepFailed(f"a result of the kit's {method}()", _text(message))
        return found

    async def _barrier(self, step: Mapping[str, Any]) -> None:
        await self.barrier()

    async def barrier(self) -> None:
        for _ in range(2):
            await self.call("barrier", [])

    async def _quiet(self, step: Mapping[str, Any]) -> None:
        await self.quiet()

    async def quiet(self) -> None:
        await self.barrier()
        self._demand_nothing_left()

    def _demand_nothing_left(self) -> None:
        if self._child.broken is not None:
            raise StepFailed("frames that can be read", self._child.broken.reason)
        left = [message for _, message in self._child.messages if not self._may_come(message)]
        if left:
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            raise StepFailed("no message that no step expects", f"{_text(left[0])}{more}")

    def _may_come(self, message: Message) -> bool:
        """What needs no step: a function given back, an acknowledgement of a stream of the kit."""
        kind, id = message.fields.get("type"), message.fields.get("id")
        if kind == "stream-ack" and "credit" in self._session.agreed:
            return isinstance(id, str | int) and (type(id), id) in self._books
        return kind == "callback-release"

    # Flow control --------------------------------------------------------------------------------

    async def _acks(self, step: Mapping[str, Any]) -> None:
        book = self._acknowledged(resolve(step["acks"]["id"], self._captured))
        for key in ("n", "b"):
            if key in step["acks"]:
                self._demand(
                    getattr(book, key), step["acks"][key], f"the sum of {key} of the acknowledgements"
                )

    def _acknowledged(self, id: Any) -> _Book:
        """The book of a stream with all acknowledgements that have arrived."""
        book = self._book(id)
        pattern = {
            "id": id,
            "type": "stream-ack",
            "args": {"n": {"$type": "integer"}, "b": {"$type": "integer"}},
        }

        def wanted(message: Message) -> bool:
            return message.fields.get("type") == "stream-ack" and _same_id(id, message.fields.get("id"))

        while (found := self._take(wanted)) is not None:
            self._check(pattern, found[1], {})
            book.n += int(found[1].fields["args"]["n"])
            book.b += int(found[1].fields["args"]["b"])
        return book

    async def _feed(self, step: Mapping[str, Any]) -> None:
        id = resolve(step["feed"]["id"], self._captured)
        values = step["feed"].get("values", [])
        if isinstance(values, dict):
            values = resolve(values, self._captured)

        def has_credit() -> bool | None:
            book = self._acknowledged(id)
            chunks, size = CREDIT[0] + book.n - book.chunks, CREDIT[1] + book.b - book.size
            return True if chunks > 0 and size > 0 else None

        for index, value in enumerate(values):
            await self._wait_for(
                has_credit, functools.partial("credit for chunk {} of {}".format, index, len(values))
            )
            await self.send(_message(id, "stream-chunk", {"value": value}))
        if step["feed"].get("end"):
            await self.send(_message(id, "stream-end", {}))

    async def _drop(self, step: Mapping[str, Any]) -> None:
        id = resolve(step["drop"], self._captured)
        await self.barrier()

        def wanted(message: Message) -> bool:
            return message.fields.get("type") == "stream-chunk" and _same_id(id, message.fields.get("id"))

        while self._take(wanted) is not None:
            pass

    # The process ---------------------------------------------------------------------------------

    async def _reading(self, step: Mapping[str, Any]) -> None:
        self._child.set_reading(step["reading"])

    async def _end_input(self, step: Mapping[str, Any]) -> None:
        self._child.close_input()

    async def _exit(self, step: Mapping[str, Any]) -> None:
        codes = step["exit"] if isinstance(step["exit"], list) else [step["exit"]]
        await self.exit(codes, unread=bool(step.get("unread")))

    async def exit(self, codes: Sequence[int], *, unread: bool) -> None:
        expected = f"exit {' or '.join(map(str, codes))} within {self._session.exit_seconds:g} seconds"
        until = time.monotonic() + self._session.exit_seconds
        code = await self._child.exit_code(self._session.exit_seconds)
        if code is None:
            state = "its output is closed, and it" if self._child.output_closed else "it"
            raise StepFailed(expected, f"{state} runs on{self._left()}", crashed=self._child.output_closed)
        if code not in codes:
            seen = f"it {_exit_text(code)}{self._left()}"
            raise StepFailed(expected, seen, crashed=code not in EXIT_CODES)
        if unread or not self._child.reading:
            return
        if not await self._child.closed(max(until - time.monotonic(), 0.2)):
            raise StepFailed(f"{expected}, and the end of its output", "somebody still holds its output open")
        self._demand_nothing_left()

    async def _first_bytes(self, step: Mapping[str, Any]) -> None:
        wanted = bytes.fromhex(step["first_bytes"])

        def find() -> bytes | None:
            seen = self._child.first_bytes
            return seen if len(seen) >= len(wanted) or not wanted.startswith(seen) else None

        seen = await self._wait_for(find, lambda: f"output that begins with {wanted.hex()}")
        if not seen.startswith(wanted):
            raise StepFailed(f"output that begins with {wanted.hex()}", seen[: len(wanted) + 16].hex())


def _outline(template: Any, captured: Mapping[str, Any]) -> Any:
    """What the kit itself looks at in a message that it sends."""
    if not isinstance(template, dict):
        return None
    keys = ("id", "type", "method", "streamIds", "args")
    return {key: resolve(template[key], captured) for key in keys if key in template}


def _message(id: Any, kind: str, args: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": id, "method": "", "args": args, "type": kind, "version": "json"}


def _same_id(wanted: Any, seen: Any) -> bool:
    return type(wanted) is type(seen) and bool(wanted == seen)


def _text(message: Message) -> str:
    text = (
        message.data.decode("utf-8", "backslashreplace")
        if message.serialization != "cbor"
        else brief(message.fields)
    )
    return text if len(text) <= 500 else f"{text[:350]} … {text[-100:]} ({len(text)} characters)"


def _exit_text(code: int) -> str:
    return f"exited with {code}" if code >= 0 else f"was ended by signal {-code}"


def _options(step: Mapping[str, Any], message: Message, context: Context) -> Mismatch | None:
    """What beside the pattern an `expect` asks of the frame."""
    checks: list[tuple[str, Any, Any]] = []
    if "serialization" in step:
        checks.append(("the serialization", step["serialization"], message.serialization))
    if step.get("ascii"):
        checks.append(("bytes below 0x80", True, message.data.isascii()))
    if "keys" in step:
        checks.append(("the keys", step["keys"], message.keys))
    if "line" in step:
        text = (
            message.data.decode("utf-8", "backslashreplace")
            if message.line is not None
            else message.data.hex()
        )
        checks.append(("the line", resolve(step["line"], context.captured), text))
    for what, expected, seen in checks:
        if expected != seen:
            return Mismatch(what, brief(expected), brief(seen))
    if "length_not" in step and len(message.data) % step["length_not"] == 0:
        return Mismatch("the length", f"no multiple of {step['length_not']}", f"{len(message.data)}")
    if "json" in step:
        found = patterns.match(step["json"], message.line, context)
        return found and found.within("the JSON of the line")
    return None
