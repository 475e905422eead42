"""What real kkrpc 0.7 peers wrote, spoken to a Python server and to a Python client.

Every line of every recording is either played here or counted under the reason why it is not.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from tests.channel.peer import Peer, at_rest, scripted, until

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parent.parent / "recordings" / "classic-json"
FILES = sorted(path.stem for path in FOLDER.glob("*.jsonl"))

# What is played: the lines of calls and streams. What is not, and why, with the number of lines of each
# direction, so that nothing is left out unseen.
LATER = "callbacks, properties and construct come with a later version"
NOT_PLAYED: dict[str, dict[str, int]] = {
    # A server that refuses all of them says so; `test_what_comes_later_is_refused_as_missing` plays these.
    "callback": {"calls with a callback": 4, "callbacks": 7, "their answers": 4},
    "cancel": {"properties": 3, "their answers": 3},
    "cancelBlocked": {"properties": 32, "their answers": 32},
    "construct": {"construct": 2, "their answers": 2},
    "methodErrors": {"construct": 1, "their answers": 1},
    "property": {"properties": 11, "their answers": 11},
    "propertyErrors": {"properties": 5, "their answers": 5},
}


def lines(name: str) -> list[tuple[str, dict[str, Any]]]:
    """The messages of a recording, each with its direction."""
    text = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.split("\n") if line]
    return [(row["dir"], json.loads(row["line"])) for row in rows]


def reason_not_to_play(message: dict[str, Any]) -> str | None:
    """Of a client's line."""
    if message["type"] in ("get", "set"):
        return "properties"
    if message["type"] == "construct":
        return "construct"
    return "calls with a callback" if message.get("callbackIds") else None


def played(name: str) -> tuple[list[tuple[str, dict[str, Any]]], Counter[str]]:
    """The lines that are played, and how many are not by their reasons."""
    kept, left_out = [], Counter[str]()
    ids = set()
    for direction, message in lines(name):
        if direction == "c2s":
            reason = reason_not_to_play(message)
            if reason is not None:
                ids.add(message["id"])
        elif message["type"] == "callback":
            reason = "callbacks"
        else:
            reason = "their answers" if message["id"] in ids else None
        if reason is None:
            kept.append((direction, message))
        else:
            left_out[reason] += 1
    return kept, left_out


def test_nothing_is_left_out_unseen() -> None:
    assert len(FILES) == 24
    assert {name: dict(played(name)[1]) for name in FILES if played(name)[1]} == NOT_PLAYED, LATER


# --- a Python server --------------------------------------------------------------------------


class Error(Exception):
    """JavaScript's."""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        vars(self).update(fields)


class ValidationError(Error):
    pass


class Grade2:
    async def multiply(self, a: int, b: int) -> int:
        return a * b


class Math:
    grade2 = Grade2()

    async def add(self, a: int, b: int) -> int:
        return a + b


class Data:
    async def stream(self, count: int) -> Any:
        for index in range(count):
            await anyio.lowlevel.checkpoint()
            yield f"item-{index}"


class ServerAPI:
    """The API behind the recordings, in Python."""

    math = Math()
    data = Data()
    counter = 7

    def __init__(self) -> None:
        self.cleanups = 0
        self.running = 0

    async def echo(self, value: Any) -> Any:
        return value

    async def slow(self, ms: int) -> str:
        await anyio.sleep(ms / 1000)
        return f"slept {ms}"

    async def countdown(self, start: int) -> Any:
        for number in range(start, -1, -1):
            await anyio.lowlevel.checkpoint()
            yield number

    async def empty(self) -> Any:
        for nothing in ():
            yield nothing

    async def failing(self) -> Any:
        yield 1
        yield 2
        raise Error("something went wrong", code=42)

    async def ticker(self, ms: int) -> Any:
        self.running += 1
        number = 0
        try:
            while True:
                yield number
                number += 1
                await anyio.sleep(ms / 1000)
        finally:
            self.cleanups += 1
            self.running -= 1

    async def blocked(self, ms: int) -> Any:
        self.running += 1
        try:
            yield "first"
            await anyio.sleep_forever()
        finally:
            self.cleanups += 1
            self.running -= 1

    async def returning(self, count: int) -> Any:
        return (number for number in range(count))

    async def nothing(self) -> None:
        pass

    async def nul(self) -> None:
        return None

    async def argc(self, *args: Any) -> int:
        return len(args)

    async def argTypes(self, *args: Any) -> list[str]:  # noqa: N802
        return [await self.kindOf(value) for value in args]

    async def kindOf(self, value: Any) -> str:  # noqa: N802
        return {str: "string", type(None): "null", int: "number"}[type(value)]

    async def bigBytes(self, count: int) -> bytes:  # noqa: N802
        return bytes(index * 7 % 256 for index in range(count))

    async def byteInfo(self, data: bytes) -> dict[str, Any]:  # noqa: N802
        assert type(data) is bytes
        return {"ctor": "Uint8Array", "length": len(data), "sum": sum(data)}

    async def dates(self) -> Any:
        return {"big": 2**64, "nan": math.nan}

    async def throwCustom(self) -> None:  # noqa: N802
        data = {"field": "email", "rules": [1, "two", {"deep": True}]}
        raise ValidationError("validation failed", code="E_VALID", data=data) from Error("the root")

    async def throwPlainCause(self) -> None:  # noqa: N802
        cause = {"reason": "disk full", "errno": 28}
        raise kk.RemoteError("ValidationError", "with plain cause", cause=cause)

    async def throwString(self) -> None:  # noqa: N802
        raise Error("just a string")

    async def throwType(self) -> None:  # noqa: N802
        raise TypeError("Cannot read properties of null (reading 'x')")

    async def throwEmpty(self) -> None:  # noqa: N802
        raise Error("")


# The differences that are meant: method -> what a Python server says instead, in `args`.
STATED = {
    # Python has one nothing: a function that returns none returned None.
    "nothing": ({}, {"result": None}),
    # Its own name for a value that cannot be sent, and where it lies; JavaScript speaks of a BigInt only.
    "dates": (
        {"error": {"name": "TypeError", "message": "Do not know how to serialize a BigInt"}},
        {
            "error": {
                "name": "NotSerializable",
                "message": "int at result['big'] cannot be sent unchanged: 65 bits, and JavaScript's numbers "
                "are exact up to 2**53 - 1",
            }
        },
    ),
    # JSON.stringify makes `{}` of an Error; a Python cause keeps its name and message.
    "throwCustom": ({"cause": {}}, {"cause": {"name": "Error", "message": "the root"}}),
}


def expected_answer(method: str, message: dict[str, Any]) -> dict[str, Any]:
    """What a Python server says where kkrpc said `message`: without stack, with the stated differences."""
    message = json.loads(json.dumps(message))
    args = message["args"]
    if isinstance(args.get("error"), dict):
        args["error"].pop("stack")  # sent only where the server allows it
    if method in STATED:
        theirs, ours = STATED[method]
        target = args["error"] if method == "throwCustom" else args
        assert {key: target.get(key) for key in theirs} == theirs, "the recording has changed"
        for key in theirs:
            del target[key]
        target.update(ours)
    return message


def same(a: Any, b: Any) -> bool:
    """Equal in value, type and the order of the message's keys."""
    return list(a) == list(b) and json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


class Heard:
    """What a server says, by id."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.messages: dict[Any, list[dict[str, Any]]] = {}
        self.order: list[dict[str, Any]] = []

    async def until(self, id: Any, count: int) -> None:
        """Listen until `count` messages of `id` have come."""
        while len(self.messages.get(id, ())) < count:
            self._note(await self.peer.next())

    def note_all(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        self.messages.setdefault(message["id"], []).append(message)
        self.order.append(message)


@pytest.mark.parametrize("name", FILES)
async def test_recorded_clients_get_the_recorded_answers(name: str) -> None:
    api = ServerAPI()
    script, _ = played(name)
    methods = {message["id"]: message["method"] for _, message in script if message["type"] == "request"}
    expected: dict[Any, list[dict[str, Any]]] = {id: [] for id in methods}
    cancelled = set()
    async with scripted(api) as (channel, peer):
        heard = Heard(peer)
        for direction, message in script:
            if direction == "c2s":
                await peer.send(message)
                if message["type"] == "stream-cancel":
                    cancelled.add(message["id"])
            else:
                id = message["id"]
                expected[id].append(expected_answer(methods[id], message))
                await heard.until(id, len(expected[id]))
        # Calls that the recording leaves without an answer run on; all else is over.
        open_calls = {id for id, answers in expected.items() if not over(answers) and id not in cancelled}
        await until(lambda: set(channel.connection.incoming) == open_calls)
        assert channel.connection.violations == channel.connection.noise == 0
        await peer.send({"id": "last", "method": "argc", "args": [], "type": "request"})
        await heard.until("last", 1)
    heard.note_all(await peer.rest())
    del heard.messages["last"]
    assert set(heard.messages) == {id for id in expected if expected[id]}
    for id, answers in expected.items():
        got = heard.messages.get(id, [])
        extra = got[len(answers) :]
        if id in cancelled:
            # Chunks that crossed the cancel; a stock peer is told nothing more.
            assert {message["type"] for message in extra} <= {"stream-chunk"}
            crossing = [message["args"]["value"] for message in got if message["type"] == "stream-chunk"]
            assert all(after == before + 1 for before, after in pairwise(crossing))
        elif id in open_calls:
            assert {message["type"] for message in extra} <= {"stream-chunk"}
        else:
            assert not extra
        for ours, theirs in zip(got, answers, strict=False):
            assert same(ours, theirs), (ours, theirs)
    assert api.running == 0
    assert api.cleanups == sum(methods[id] in ("ticker", "blocked") for id in methods)
    assert bytes(peer.heard).isascii()


def over(answers: list[dict[str, Any]]) -> bool:
    if not answers:
        return False
    last = answers[-1]
    if last["type"] == "response":
        return last["args"].get("result") != {"__stream": True}
    return last["type"] in ("stream-end", "stream-error")


async def test_a_slow_call_holds_up_no_other() -> None:
    """`concurrent`, in the recorded order too: the slow call was first asked and last answered."""
    script, _ = played("concurrent")
    asked = [message for direction, message in script if direction == "c2s"]
    recorded = [message["id"] for direction, message in script if direction == "s2c"]
    async with scripted(ServerAPI()) as (_, peer):
        await peer.send(*asked)
        assert [(await peer.next())["id"] for _ in asked] == recorded


async def test_what_comes_later_is_refused_as_missing() -> None:
    """The lines that are not played yet are refused, most of them as if such a thing was missing."""
    for name in NOT_PLAYED:
        async with scripted(ServerAPI()) as (channel, peer):
            for direction, message in lines(name):
                if direction == "s2c" or reason_not_to_play(message) is None:
                    continue
                (answer,) = await peer.exchange(message)
                if message["type"] == "request":
                    text = "callbacks are not supported"
                elif message["type"] == "construct":
                    text = f"{message['method']} is not a constructor function"
                else:
                    path = message["path"]
                    text = f"Property path {'.'.join(path)} not found at {path[0]}"
                assert answer["id"] == message["id"]
                assert answer["args"] == {"error": text}
            assert channel.connection.violations == 0


# --- a Python client --------------------------------------------------------------------------


def as_python(value: Any) -> Any:
    """A recorded value as a client of ours gives it."""
    if isinstance(value, dict):
        if set(value) == {"type", "data"} and value["type"] == "Uint8Array":
            return bytes(value["data"])
        return {key: as_python(item) for key, item in value.items()}
    return [as_python(item) for item in value] if isinstance(value, list) else value


class Outcome:
    """How one recorded call went, and how it went for the Python client."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.stream = False
        self.chunks: list[Any] = []
        self.ended = False
        self.cancel_after: int | None = None
        self.value: Any = None
        self.error: Any = None
        self.id: Any = None
        """The Python client's own."""
        self.got: list[Any] = []
        self.answer: Any = None
        self.raised: kk.KkrpcError | None = None
        self.read_on = anyio.Event()
        """Set when the recorded client wanted no more."""

    async def play(self, channel: kk.RPCChannel, *, directly: bool) -> None:
        target = channel.remote()
        for segment in self.request["method"].split("."):
            target = getattr(target, segment)
        call = target(*map(as_python, self.request["args"]))
        try:
            if not self.stream:
                self.answer = await call
                return
            values = call if directly else await call
            async for value in values:
                self.got.append(value)
                if self.cancel_after == len(self.got):
                    await self.read_on.wait()
                    break
            else:
                self.answer = await values
        except kk.KkrpcError as exc:
            self.raised = exc

    def check(self) -> None:
        assert self.got == self.chunks
        if self.error is not None:
            check_error(self.raised, self.error)
        elif self.ended or self.cancel_after is not None:
            assert self.raised is None
            assert self.answer == as_python(self.value)
            assert type(self.answer) is type(as_python(self.value))
        else:  # the server went away
            assert type(self.raised) is kk.ChannelClosed


def check_error(raised: kk.KkrpcError | None, recorded: Any) -> None:
    assert isinstance(raised, kk.RemoteError)
    if isinstance(recorded, str):
        assert type(raised) is kk.MethodNotFound
        assert raised.message == str(raised) == recorded
        return
    fields = dict(recorded)
    assert raised.name == fields.pop("name")
    assert raised.message == fields.pop("message")
    assert raised.remote_traceback == fields.pop("stack")
    assert raised.cause == fields.pop("cause", None)
    assert raised.fields == fields
    assert isinstance(raised, TypeError) == (raised.name == "TypeError")


def outcomes_of(script: list[tuple[str, dict[str, Any]]]) -> dict[Any, Outcome]:
    found: dict[Any, Outcome] = {}
    for _, message in script:
        id, args = message["id"], message["args"]
        match message["type"]:
            case "request":
                found[id] = Outcome(message)
            case "response" if args.get("result") == {"__stream": True}:
                found[id].stream = True
            case "response":
                found[id].ended = True
                found[id].value = args.get("result")
                found[id].error = args.get("error")
            case "stream-chunk":
                found[id].chunks.append(args["value"])
            case "stream-end":
                found[id].ended = True
            case "stream-error":
                found[id].error = args["error"]
            case "stream-cancel":
                found[id].cancel_after = len(found[id].chunks)
    return found


@pytest.mark.parametrize("directly", [True, False], ids=["directly", "awaited"])
@pytest.mark.parametrize("hello", ["none", "unanswered", "refused"])
@pytest.mark.parametrize("name", FILES)
async def test_recorded_servers_drive_a_client(name: str, hello: str, directly: bool) -> None:
    script, _ = played(name)
    outcomes = outcomes_of(script)
    limits = kk.Limits(hello_seconds=0.05)
    async with scripted(hello=hello != "none", limits=limits) as (channel, peer):
        if hello != "none":
            greeting = await peer.next()
            assert greeting["method"] == "kkrpc.hello"
            if hello == "refused":
                text = "Method path kkrpc.hello not found at kkrpc"
                await peer.send({**greeting, "method": "", "args": {"error": text}, "type": "response"})
                await channel.ready()
        async with anyio.create_task_group() as tasks:
            for direction, recorded in script:
                outcome = outcomes[recorded["id"]]
                if direction == "s2c":
                    await peer.send(recorded | {"id": outcome.id})
                    continue
                if recorded["type"] == "request":
                    tasks.start_soon(partial(outcome.play, channel, directly=directly))
                else:
                    outcome.read_on.set()
                message = await peer.next()
                if recorded["type"] == "request":
                    outcome.id = message["id"]
                assert same(message, recorded | {"id": outcome.id}), (message, recorded)
            if all(o.ended or o.error is not None or o.cancel_after is not None for o in outcomes.values()):
                await at_rest(channel)
                assert not channel.closed
            else:
                await peer.close()
        for outcome in outcomes.values():
            outcome.check()
        assert channel.connection.violations == channel.connection.noise == 0
    assert bytes(peer.heard).isascii()
