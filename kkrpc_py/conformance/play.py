"""Playing one case against a running testee: the steps of spec/conformance/README.md.

It owns what each step does and when it has failed. It starts no process and gives no verdict (`run`), and
waits for nothing by itself (`talk`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from kkrpc_py.conformance import patterns
from kkrpc_py.conformance.books import Consumed
from kkrpc_py.conformance.cases import Case
from kkrpc_py.conformance.patterns import Context, Mismatch, PatternError, brief, resolve
from kkrpc_py.conformance.talk import Session, StepFailed, Talk, shown
from kkrpc_py.conformance.wire import Message, cbor_frame

__all__ = ["FEATURES", "describe", "hello", "leave", "play"]

FEATURES: Final = tuple("credit batch result cancel cbor callback stream-arguments kwargs metadata".split())
"""What the kit's hello names in the session "all"."""
BATCH: Final = (2, 256)
"""How many values a batch may hold (BAT-2)."""
NAME: Final = 200
"""How many characters of the testee's name and version, and of each feature, are kept."""


async def hello(session: Session) -> None:
    """Say hello as the session wants it, and read the answer; `StepFailed` if it is none."""
    if session.kind in ("stock", "superjson"):
        return
    names = FEATURES if session.kind == "all" else session.kind
    args = await Talk(session).call("kkrpc.hello", [{"protocol": 1, "features": list(names)}])
    answer = args.get("result")
    features = answer.get("features") if isinstance(answer, dict) else None
    if not isinstance(features, list) or not all(isinstance(name, str) for name in features):
        raise StepFailed("an answer to hello of the form of HEL-2", brief(args), basic=True)
    session.named = frozenset(names)
    session.agreed = session.named.intersection(features)


async def describe(session: Session) -> Mapping[str, Any]:
    """What the testee says of itself, as far as testee.md knows it; `StepFailed` if it does not."""
    found = (await Talk(session).call("describe", [])).get("result")
    wanted = {
        "protocol": 1,
        "name": {"$type": "string"},
        "version": {"$type": "string"},
        "features": {"$type": "list"},
    }
    wrong = patterns.match({"$has": wanted}, found, Context())
    if wrong is not None:
        raise StepFailed(f"describe(){wrong.path}: {wrong.expected}", wrong.seen)
    assert isinstance(found, dict)
    features = found["features"]
    if not all(isinstance(name, str) for name in features):
        raise StepFailed("describe().features: text alone", brief(features))
    # All of it stands in every report, so nothing is kept that was not looked at or has no bound.
    return {
        "protocol": 1,
        "name": found["name"][:NAME],
        "version": found["version"][:NAME],
        "features": list(dict.fromkeys(name[:NAME] for name in features)),
    }


async def play(session: Session, case: Case) -> Talk:
    """Run the steps and the check at the end; `StepFailed` where the case fails, with its step."""
    talk = Talk(session)
    player = _Player(talk)
    for index, step in enumerate(case.steps):
        try:
            await player.step(index, step)
        except PatternError as error:
            failed = StepFailed("a case that can be played", str(error))
            failed.step = index
            raise failed from None
        except StepFailed as failed:
            failed.step = index
            raise
    if not any("exit" in step for step in case.steps):
        await player.check_end()
    return talk


async def leave(talk: Talk, cases: int) -> None:
    """End a process that has played so many cases; `StepFailed` unless it leaves as testee.md says.

    Also what came since the answer to the last `reset` is looked at. Here shows what the cases left running.
    """
    talk.child.note("the end of the input")
    talk.child.close_input()
    try:
        await talk.exit([0])
    except StepFailed as failed:
        expected = (
            f"at the end of a process that has played {cases} case{'s'[: cases != 1]}: {failed.expected}"
        )
        raise StepFailed(expected, failed.seen, crashed=True) from None


class _Player:
    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._child = talk.child
        self._captured = talk.captured
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
            "spent": self._spent,
        }

    async def step(self, index: int, step: Mapping[str, Any]) -> None:
        for name, act in self._steps.items():
            if name in step:
                self._child.note(f"step {index}: {name}")
                await act(step)
                return
        self._child.note(f"step {index}: {brief(step)}")
        raise PatternError(f"there is no step {brief(step)}")

    async def check_end(self) -> None:
        self._child.note("the check at the end")
        self._child.set_reading(True)
        await self._talk.quiet()
        args = await self._talk.call("reset", [])
        self._talk.demand(args.get("result"), {"running": 0}, "reset() at the end of the case")
        # What it let go of is said before its answer, and is nobody's fault.
        self._child.inbox.clear()
        if self._talk.session.fresh:
            self._child.close_input()
            await self._talk.exit([0])

    # Sending -------------------------------------------------------------------------------------

    async def _send(self, step: Mapping[str, Any]) -> None:
        for _ in range(step.get("times", 1)):
            await self._talk.send(step["send"], step.get("serialization"), step.get("length"))

    async def _write(self, step: Mapping[str, Any]) -> None:
        parts = self._parts(step["write"])
        self._talk.note_written(b"".join(parts))
        if step.get("bytewise"):
            data = b"".join(parts)
            self._child.note(f"byte by byte, {len(data)} bytes")
            await self._talk.bounded(self._one_by_one(data), "that the testee reads what was written")
        elif step.get("each"):
            for part in parts:
                await self._talk.bounded(self._child.was_read(), "that the testee reads what was written")
                await self._talk.write(part)
        else:
            await self._talk.write(b"".join(parts), lines=[line for part in parts for line in _lines(part)])

    async def _one_by_one(self, data: bytes) -> None:
        for index in range(len(data)):
            await self._child.was_read()
            await self._child.write(data[index : index + 1], shown=[] if index else _lines(data))

    def _parts(self, parts: Any) -> list[bytes]:
        found: list[bytes] = []
        for part in parts:
            match part:
                case {"text": text}:
                    found.append(str(resolve(text, self._captured)).encode())
                case {"hex": text}:
                    found.append(self._hex(text))
                case {"frame": text}:
                    found.append(cbor_frame(self._hex(text)))
                case {"repeat": inner, "times": times}:
                    found.append(b"".join(self._parts(inner)) * times)
                case _:
                    raise PatternError(f"there is no part {brief(part)}")
        return found

    def _hex(self, template: Any) -> bytes:
        try:
            return bytes.fromhex(resolve(template, self._captured))
        except (ValueError, TypeError) as error:
            raise PatternError(f"{brief(template)} is no hex: {error}") from None

    # Receiving -----------------------------------------------------------------------------------

    async def _expect(self, step: Mapping[str, Any]) -> None:
        wanted = step["expect"]
        before = 0
        for pattern in wanted if isinstance(wanted, list) else [wanted]:
            number, message = await self._next(pattern)
            self._check(pattern, message, step)
            if number < before:
                expected = f"{brief(pattern)} after the others in the list"
                raise StepFailed(expected, f"it came before them: {shown(message)}")
            before = number

    async def _next(self, pattern: Mapping[str, Any]) -> tuple[int, Message]:
        """The message that a pattern is to be held against."""
        if not isinstance(pattern, dict):
            raise PatternError(f"the pattern of a message is an object, not {brief(pattern)}")
        ids = patterns.plain_id(pattern, self._captured)
        types = patterns.types(pattern.get("type", {"$any": True}), self._captured)
        inbox = self._child.inbox

        def find() -> tuple[int, Message] | None:
            if ids:
                return self._talk.take(id=ids[0])
            found = inbox.oldest_type(types)
            return None if found is None else self._talk.take(type=found)

        return await self._talk.wait_for(find, f"a message like {brief(pattern)}")

    def _check(self, pattern: Mapping[str, Any], message: Message, step: Mapping[str, Any]) -> None:
        context = self._talk.context
        context.json = message.serialization != "cbor"
        found = patterns.match_message(pattern, message.fields, context) or _options(step, message, context)
        if found is not None:
            raise StepFailed(f"{found.path}: {found.expected}", f"{found.seen}, in {shown(message)}")

    async def _chunks(self, step: Mapping[str, Any]) -> None:
        id = resolve(step["chunks"]["id"], self._captured)
        wanted = self._values(step["chunks"])
        seen = 0
        while seen < len(wanted):
            _, message = await self._talk.wait_for(
                lambda: self._talk.take(id=id), f"chunk {seen} of {len(wanted)} under {brief(id)}"
            )
            self._check({"id": id, "type": "stream-chunk", "args": {"$type": "object"}}, message, {})
            for value in self._chunk_values(message):
                if seen == len(wanted):
                    more = f"one more, {brief(value)}, in {shown(message)}"
                    raise StepFailed(f"{len(wanted)} chunks under {brief(id)}", more)
                self._talk.demand(value, wanted[seen], f"chunk {seen} under {brief(id)}")
                seen += 1

    def _values(self, content: Mapping[str, Any]) -> list[Any]:
        values = content.get("values", [])
        if isinstance(values, dict):
            values = resolve(values, self._captured)
        if not isinstance(values, list):
            raise PatternError(f"values are a list, not {brief(values)}")
        return values

    def _chunk_values(self, message: Message) -> list[Any]:
        args = message.fields["args"]
        if args.keys() == {"value"}:
            return [args["value"]]
        values = args.get("values")
        if args.keys() != {"values"} or not isinstance(values, list):
            raise StepFailed("a chunk or a batch", shown(message))
        if "batch" not in self._talk.session.agreed:
            raise StepFailed("a chunk, since batch is not agreed", shown(message))
        if not BATCH[0] <= len(values) <= BATCH[1]:
            raise StepFailed("a batch of 2 to 256 values", f"{len(values)} values, in {shown(message)}")
        return values

    # Calls of the kit ----------------------------------------------------------------------------

    async def _call(self, step: Mapping[str, Any]) -> None:
        args = await self._talk.call(step["call"], step.get("args", []))
        if "result" not in step:
            return
        what = f"the result of {step['call']}()"
        if "result" in args:
            self._talk.demand(args["result"], step["result"], what)
        elif patterns.match({"result": step["result"]}, {}, self._talk.context) is not None:
            # A result that is not there is null for a reader without such a notion (CALL-3).
            self._talk.demand(None, step["result"], what)

    async def _barrier(self, step: Mapping[str, Any]) -> None:
        await self._talk.barrier()

    async def _quiet(self, step: Mapping[str, Any]) -> None:
        await self._talk.quiet()

    # Flow control --------------------------------------------------------------------------------

    async def _acks(self, step: Mapping[str, Any]) -> None:
        wanted = step["acks"]
        id = resolve(wanted["id"], self._captured)
        book = self._talk.acknowledged(id)
        for key in ("n", "b"):
            if key in wanted:
                what = f"the sum of {key} acknowledged under {brief(id)}"
                self._talk.demand(getattr(book, key), wanted[key], what)

    async def _feed(self, step: Mapping[str, Any]) -> None:
        id = resolve(step["feed"]["id"], self._captured)
        values = self._values(step["feed"])

        def has_credit() -> bool | None:
            return self._talk.acknowledged(id).has_credit or None

        for index, value in enumerate(values):
            await self._talk.wait_for(
                has_credit, f"credit for chunk {index} of {len(values)} under {brief(id)}"
            )
            await self._talk.send(_stream_message(id, "stream-chunk", {"value": value}))
        if step["feed"].get("end"):
            await self._talk.send(_stream_message(id, "stream-end", {}))

    async def _drop(self, step: Mapping[str, Any]) -> None:
        id = resolve(step["drop"], self._captured)
        await self._talk.barrier()

        while self._talk.take(id=id, type="stream-chunk") is not None:
            pass

    async def _spent(self, step: Mapping[str, Any]) -> None:
        id = resolve(step["spent"], self._captured)

        def find() -> Consumed | None:
            book = self._child.inbox.consumed(id)  # a new one where a stream begins
            return book if book.overdrawn or not book.left else None

        try:
            book = await self._talk.wait_for(
                find, f"the credit of {brief(id)} used up, of chunks or of bytes"
            )
        except StepFailed as failed:
            failed.seen = f"{self._child.inbox.consumed(id).left} are left; {failed.seen}"
            raise
        if book.overdrawn:
            raise StepFailed(f"credit for each chunk message under {brief(id)}", book.overdrawn)

    # The process ---------------------------------------------------------------------------------

    async def _reading(self, step: Mapping[str, Any]) -> None:
        self._child.set_reading(step["reading"])

    async def _end_input(self, step: Mapping[str, Any]) -> None:
        self._child.close_input()

    async def _exit(self, step: Mapping[str, Any]) -> None:
        codes = step["exit"] if isinstance(step["exit"], list) else [step["exit"]]
        await self._talk.exit(codes, unread=step.get("unread", False))

    async def _first_bytes(self, step: Mapping[str, Any]) -> None:
        wanted = self._hex(step["first_bytes"])
        expected = f"output that begins with {wanted.hex()}"

        def find() -> bytes | None:
            seen = self._child.first_bytes
            return seen if len(seen) >= len(wanted) or not wanted.startswith(seen) else None

        seen = await self._talk.wait_for(find, expected)
        if not seen.startswith(wanted):
            raise StepFailed(expected, seen[: len(wanted) + 16].hex())


def _stream_message(id: Any, kind: str, args: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": id, "method": "", "args": args, "type": kind, "version": "json"}


def _lines(part: bytes) -> list[bytes]:
    """A part as the trace shows it: whole, or, where it is text, line by line."""
    return part.splitlines(keepends=True) if part.endswith(b"\n") and part.isascii() else [part]


def _options(step: Mapping[str, Any], message: Message, context: Context) -> Mismatch | None:
    """What beside the pattern an `expect` asks of the frame."""
    text = (
        message.data.decode("utf-8", "backslashreplace") if message.line is not None else message.data.hex()
    )
    seen = {
        "serialization": message.serialization,
        "ascii": message.data.isascii(),
        "keys": message.keys,
        "line": text,
    }
    for key, value in seen.items():
        expected = resolve(step.get(key), context.captured)
        if expected is not None and expected != value:
            return Mismatch(f"the option {key}", brief(expected), brief(value))
    if "length_not" in step and len(message.data) % step["length_not"] == 0:
        wanted = f"a length that is no multiple of {step['length_not']}"
        return Mismatch("the option length_not", wanted, f"{len(message.data)} bytes")
    if "json" in step:
        found = patterns.match(step["json"], message.line, context)
        return found and found.within("the option json: ")
    return None
