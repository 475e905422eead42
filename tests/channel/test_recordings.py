"""What real kkrpc 0.7 peers wrote, in JSON and in superjson, spoken to a Python server and a Python client.

Every line of every recording is played. What a line means is read here, with no help from the codecs that
are tested: a line of superjson stays its JSON and its annotations, and is compared as both.
"""

from __future__ import annotations

import copy
import json
import math
import threading
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import kkrpc_py as kk
from kkrpc_py import js
from tests.channel.peer import Peer, at_rest, scripted, until

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parent.parent / "recordings"
FILES = sorted(
    f"{folder.name.removeprefix('classic-')}/{path.stem}"
    for folder in FOLDER.glob("classic-*")
    for path in folder.glob("*.jsonl")
)
PREFIX = "__callback__"
QUESTIONS = ("request", "get", "set", "construct")


class Line(msgspec.Struct):
    """One line: the message, and with superjson what is said of it."""

    message: dict[str, Any]
    meta: Any = None
    direction: str = ""
    text: str = ""
    """As it was recorded."""

    @property
    def id(self) -> Any:
        return self.message["id"]

    @property
    def kind(self) -> str:
        kind: str = self.message["type"]
        return kind

    @property
    def args(self) -> Any:
        return self.message["args"]

    @property
    def types(self) -> dict[str, Any]:
        """What superjson says of the message's values, by their paths."""
        return dict(self.meta.get("values", {})) if self.meta else {}

    def replace(self, **fields: Any) -> Line:
        """The same line with other fields, where it has them."""
        message = {key: fields.get(key, value) for key, value in self.message.items()}
        return msgspec.structs.replace(self, message=message, text="")

    def wire(self) -> str:
        if self.text:
            return self.text
        line: Any = self.message
        if line["version"] == "superjson":
            line = {"json": line} if self.meta is None else {"json": line, "meta": self.meta}
        return json.dumps(line, separators=(",", ":"))


def read_line(line: dict[str, Any], direction: str = "", text: str = "") -> Line:
    if "json" not in line:
        assert line["version"] == "json"
        return Line(line, None, direction, text)
    assert list(line) in (["json"], ["json", "meta"])
    assert line["json"]["version"] == "superjson"
    return Line(line["json"], line.get("meta"), direction, text)


def lines(file: str) -> list[Line]:
    text = (FOLDER / f"classic-{file}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.split("\n") if line]
    return [read_line(json.loads(row["line"]), row["dir"], row["line"]) for row in rows]


def same(ours: Line, theirs: Line) -> bool:
    """Equal in value, type and the order of the message's keys, and in what is said of it."""
    return list(ours.message) == list(theirs.message) and all(
        json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
        for a, b in ((ours.message, theirs.message), (ours.meta, theirs.meta))
    )


def test_all_recordings_are_here() -> None:
    assert len(FILES) == 48
    kinds = {line.kind for file in FILES for line in lines(file)}
    assert kinds == {*QUESTIONS, "response", "callback"} | {
        f"stream-{kind}" for kind in ("chunk", "end", "error", "cancel")
    }


# --- values -----------------------------------------------------------------------------------


def as_python(value: Any, types: dict[str, Any], here: str = "") -> Any:
    """A recorded value as Python's; `types` says of paths what stands there."""
    kind, inner = (*types[here], {})[:2] if here in types else (None, types)
    start = "" if kind else here and f"{here}."

    def within(key: Any, item: Any) -> Any:
        escaped = str(key).replace("\\", "\\\\").replace(".", "\\.")
        return as_python(item, inner, start + escaped)

    if isinstance(value, list):
        value = [within(index, item) for index, item in enumerate(value)]
    elif isinstance(value, dict):
        if set(value) == {"type", "data"}:
            return bytes(value["data"])
        value = {key: within(key, item) for key, item in value.items()}
    return value if kind is None else TYPES[str(kind)](value)


def as_key(value: Any) -> Any:
    """As it stands as a key of a Map or a member of a Set."""
    return (
        js.Object(value) if isinstance(value, dict) else js.Array(value) if isinstance(value, list) else value
    )


def as_regexp(text: str) -> js.RegExp:
    source, _, flags = text[1:].rpartition("/")
    return js.RegExp(source, flags)


TYPES: dict[str, Any] = {
    "undefined": lambda value: js.UNDEFINED,
    "bigint": js.BigInt,
    "Date": lambda text: datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z"),
    "map": lambda pairs: js.Map((as_key(key), item) for key, item in pairs),
    "set": lambda members: set(map(as_key, members)),
    "number": float,
    "regexp": as_regexp,
    "URL": js.URL,
    "Error": lambda fields: kk.RemoteError(fields["name"], fields["message"]),
    "['typed-array', 'Uint8Array']": bytes,
}


def arguments(line: Line) -> list[Any]:
    args: list[Any] = as_python({"args": line.args}, line.types)["args"]
    for path, others in (line.meta or {}).get("referentialEqualities", {}).items():
        for other in others:  # all of them are `args.<number>.<number>`
            (_, i, j), (_, k, m) = path.split("."), other.split(".")
            args[int(k)][int(m)] = args[int(i)][int(j)]
    return args


def identical(a: Any, b: Any) -> bool:
    """Equal in value and in type, at every depth."""
    if isinstance(a, kk.RemoteError) and isinstance(b, kk.RemoteError):
        return (a.name, a.message) == (b.name, b.message)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        pairs = zip(a.items(), b.items(), strict=False)
        return len(a) == len(b) and all(repr(k) == repr(m) and identical(v, w) for (k, v), (m, w) in pairs)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(identical, a, b))
    return repr(a) == repr(b) if isinstance(a, float) else bool(a == b)


# What `dates` answers in superjson. JSON knows none of it.
DATES = {
    "date": datetime(2024, 1, 2, 3, 4, 5, 678_000, UTC),
    "map": js.Map({"a": 1, "b": {"nested": True}}),
    "set": {1, "two", 3},
    "big": 12345678901234567890,
    "undef": js.UNDEFINED,
    "nan": math.nan,
    "inf": -math.inf,
    "negzero": -0.0,
    "regexp": js.RegExp("a+b", "gi"),
    "url": js.URL("https://example.org/x?y=1"),
    "bytes": b"\x00\x01\xfe\xff",
    "err": TypeError("as a value"),
}
# What `kindOf` answers. (A bigint is an int, but one that says so.)
KINDS = {
    str: "string",
    type(None): "null",
    int: "number",
    js.Undefined: "undefined",
    js.BigInt: "bigint",
    datetime: "Date",
    js.Map: "Map",
    set: "Set",
    bytes: "Uint8Array",
}


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


@kk.constructible
class Greeter:
    def __init__(self, name: str, greeting: str = "hello") -> None:
        self.name = name
        self.greeting = greeting
        self.text = f"{greeting}, {name}"
        self._made = True


class ServerAPI:
    """The API behind the recordings, in Python."""

    math = Math()
    data = Data()
    Greeter = Greeter
    counter = kk.writable(7)
    settings: dict[str, Any]
    stats: dict[str, int]

    def __init__(self) -> None:
        self.settings = {"theme": kk.writable("light"), "notifications": {"enabled": True}}
        self.stats = {"cleanups": 0, "blockedCleanups": 0}
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
        for nothing in list[int]():
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
            self.stats["cleanups"] += 1
            self.running -= 1

    async def blocked(self, ms: int) -> Any:
        self.running += 1
        try:
            yield "first"
            await anyio.sleep_forever()
        finally:
            self.stats["blockedCleanups"] += 1
            self.running -= 1

    async def returning(self, count: int) -> Any:
        return (number for number in range(count))

    async def withCallback(self, number: int, callback: Any) -> int:  # noqa: N802 - its name in the recordings
        await callback(number)
        callback.notify(number + 1)
        return number

    async def lateCallback(self, ms: int, callback: Any) -> str:  # noqa: N802 - its name in the recordings
        threading.Timer(ms / 1000, callback.notify, ["late"]).start()
        return "scheduled"

    async def nothing(self) -> None:
        pass

    async def nul(self) -> None:
        return None

    async def argc(self, *args: Any) -> int:
        return len(args)

    async def argTypes(self, *args: Any) -> list[str]:  # noqa: N802 - its name in the recordings
        return [await self.kindOf(value) for value in args]

    async def kindOf(self, value: Any) -> str:  # noqa: N802 - its name in the recordings
        return KINDS[type(value)]

    async def bigBytes(self, count: int) -> bytes:  # noqa: N802 - its name in the recordings
        return bytes(index * 7 % 256 for index in range(count))

    async def byteInfo(self, data: bytes) -> dict[str, Any]:  # noqa: N802 - its name in the recordings
        assert type(data) is bytes
        return {"ctor": "Uint8Array", "length": len(data), "sum": sum(data)}

    async def dates(self) -> Any:
        return DATES

    async def throwCustom(self) -> None:  # noqa: N802 - its name in the recordings
        data = {"field": "email", "rules": [1, "two", {"deep": True}]}
        raise ValidationError("validation failed", code="E_VALID", data=data) from Error("root cause")

    async def throwPlainCause(self) -> None:  # noqa: N802 - its name in the recordings
        cause = {"reason": "disk full", "errno": 28}
        raise kk.RemoteError("ValidationError", "with plain cause", cause=cause)

    async def throwString(self) -> None:  # noqa: N802 - its name in the recordings
        raise Error("just a string")

    async def throwType(self) -> None:  # noqa: N802 - its name in the recordings
        raise TypeError("Cannot read properties of null (reading 'x')")

    async def throwEmpty(self) -> None:  # noqa: N802 - its name in the recordings
        raise Error("")


# The differences that are meant: method -> what a Python server says instead.
NOTHING = {"result": None}
STATED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    # Python has one nothing: a function that returns none returned None.
    ("json", "nothing"): ({}, {"result": None}),
    # Its own name for a value that cannot be sent, and where it lies; JavaScript speaks of a BigInt only.
    ("json", "dates"): (
        {"error": {"name": "TypeError", "message": "Do not know how to serialize a BigInt"}},
        {
            "error": {
                "name": "NotSerializable",
                "message": "datetime at result['date'] cannot be sent unchanged",
            }
        },
    ),
    # JSON.stringify makes `{}` of an Error; a Python cause keeps its name and message.
    ("json", "throwCustom"): ({"cause": {}}, {"cause": {"name": "Error", "message": "root cause"}}),
}


def expected_answer(method: str, line: Line) -> Line:
    """What a Python server says where kkrpc said `line`: without stack, with the stated differences."""
    line = copy.deepcopy(line)
    args = line.args
    if isinstance(args.get("error"), dict):
        args["error"].pop("stack")  # sent only where the server allows it
    stated = STATED.get((line.message["version"], method))
    if stated is not None:
        theirs, ours = stated
        target = args["error"] if "cause" in theirs else args
        assert {key: target.get(key) for key in theirs} == theirs, "the recording has changed"
        for key in theirs:
            del target[key]
        target.update(ours)
    if line.message["version"] == "superjson" and method == "nothing":
        del line.meta["values"]["args.result"]  # None is null; no Python function returns undefined by itself
    if line.message["version"] == "superjson" and method == "throwCustom":
        assert line.meta["values"] == {"args.error.cause": ["Error"]}
        line.meta = None  # a mapping, since superjson's Error would lose the fields of its own
    return line


class Heard:
    """What a server says: callbacks by the function that is called, all else by id."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.by_key: dict[Any, list[Line]] = {}
        self.order: list[Any] = []

    async def until(self, key: Any, count: int) -> None:
        """Listen until `count` messages of `key` have come."""
        while len(self.by_key.get(key, ())) < count:
            self.note(await self.peer.next())

    def note(self, message: dict[str, Any]) -> None:
        line = read_line(message)
        self.by_key.setdefault(key_of(line), []).append(line)
        self.order.append(key_of(line))


def key_of(line: Line) -> Any:
    return line.message["method"] if line.kind == "callback" else line.id


@pytest.mark.parametrize("file", FILES)
async def test_recorded_clients_get_the_recorded_answers(file: str) -> None:
    serialization, name = file.split("/")
    api = ServerAPI()
    if name == "propertyErrors":
        api.settings["fresh"] = kk.writable(None)  # in JavaScript, to set is to make
    script = lines(file)
    questions = {line.id: line for line in script if line.kind in QUESTIONS}
    methods = {id: line.message["method"] or ".".join(line.message["path"]) for id, line in questions.items()}
    expected: dict[Any, list[Line]] = {id: [] for id in questions}
    cancelled = set()
    async with scripted(api, codec=serialization) as (channel, peer):
        heard = Heard(peer)
        for line in script:
            if line.direction == "c2s":
                await peer.send(line.wire())
                if line.kind == "stream-cancel":
                    cancelled.add(line.id)
                continue
            key = key_of(line)
            answer = line if line.kind == "callback" else expected_answer(methods[key], line)
            expected.setdefault(key, []).append(answer)
            await heard.until(key, len(expected[key]))
        # Calls that the recording leaves without an answer run on; all else is over.
        open_calls = {id for id in questions if not over(expected[id]) and id not in cancelled}
        await until(lambda: set(channel.connection.incoming) == open_calls)
        assert channel.connection.violations == channel.connection.noise == 0
        await peer.send({"id": "last", "method": "argc", "args": [], "type": "request"})
        await heard.until("last", 1)
    for message in await peer.rest():
        heard.note(message)
    del heard.by_key["last"]
    assert set(heard.by_key) == {key for key in expected if expected[key]}
    if not cancelled and len(open_calls) == 0 and file.endswith("callback"):
        assert heard.order[:-1] == [key_of(line) for line in script if line.direction == "s2c"]
    for key, answers in expected.items():
        got = heard.by_key.get(key, [])
        extra = got[len(answers) :]
        if key in cancelled:
            # Chunks that crossed the cancel; a stock peer is told nothing more.
            assert {line.kind for line in extra} <= {"stream-chunk"}
            crossing = [line.args["value"] for line in got if line.kind == "stream-chunk"]
            assert all(after == before + 1 for before, after in pairwise(crossing))
        elif key in open_calls:
            assert {line.kind for line in extra} <= {"stream-chunk"}
        else:
            assert not extra
        for ours, theirs in zip(got, answers, strict=False):
            if methods.get(key, "").startswith("stats."):
                # A cancelled generator's cleanup is over at once here; kkrpc's waits for its next yield.
                assert theirs.args["result"] <= ours.args["result"] <= 1
                ours = ours.replace(args=theirs.args)
            if methods.get(key) == "dates" and serialization == "superjson":
                for line in (ours, theirs):
                    line.args["result"]["set"].sort(key=str)  # a Python set has no order
            if ours.kind == "callback":
                ours = ours.replace(id=theirs.id)
            assert same(ours, theirs), (ours, theirs)
    assert api.running == 0
    streams = [method for method in methods.values() if method in ("ticker", "blocked")]
    assert sum(api.stats.values()) == len(streams)
    assert bytes(peer.heard).isascii()


def over(answers: list[Line]) -> bool:
    if not answers:
        return False
    last = answers[-1]
    if last.kind == "response":
        return bool(last.args.get("result") != {"__stream": True})
    return last.kind in ("stream-end", "stream-error")


async def test_a_slow_call_holds_up_no_other() -> None:
    """`concurrent`, in the recorded order too: the slow call was first asked and last answered."""
    script = lines("json/concurrent")
    asked = [line for line in script if line.direction == "c2s"]
    recorded = [line.id for line in script if line.direction == "s2c"]
    async with scripted(ServerAPI()) as (_, peer):
        await peer.send(*[line.wire() for line in asked])
        assert [(await peer.next())["id"] for _ in asked] == recorded


# --- a Python client --------------------------------------------------------------------------


class Outcome:
    """How one recorded question went, and how it went for the Python client."""

    def __init__(self, question: Line) -> None:
        self.question = question
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

    async def play(self, channel: kk.RPCChannel, functions: Functions, *, directly: bool) -> None:
        line = self.question
        target = channel.remote()
        for segment in line.message.get("path") or line.message["method"].split("."):
            target = target[segment]
        try:
            match line.kind:
                case "get":
                    self.answer = await target
                    return
                case "set":
                    await channel.set(target, as_python(line.message["value"], line.types, "value"))
                    self.answer = True  # what kkrpc's answer says; here nothing more is told
                    return
                case "construct":
                    self.answer = await channel.construct(target, *arguments(line))
                    return
            call = target(*map(functions.given, arguments(line)))
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
            assert identical(self.answer, None if self.value is js.UNDEFINED else self.value)
        else:  # the server went away
            assert type(self.raised) is kk.ChannelClosed


class Functions:
    """The functions of the recorded client, as Python ones, by the ids that each side gave them."""

    def __init__(self) -> None:
        self.called: dict[str, list[list[Any]]] = {}
        self.ids: dict[str, str] = {}
        """Ours, by the recorded ones."""
        self._functions: dict[str, Any] = {}

    def given(self, value: Any) -> Any:
        if not (isinstance(value, str) and value.startswith(PREFIX)):
            return value
        calls = self.called.setdefault(value.removeprefix(PREFIX), [])
        return self._functions.setdefault(value, lambda *args: calls.append(list(args)))

    def renamed(self, recorded: Line, ours: Line) -> Line:
        """`recorded` with the ids that the Python client gave."""
        if not recorded.message.get("callbackIds"):
            return recorded
        for theirs, our in zip(recorded.message["callbackIds"], ours.message["callbackIds"], strict=True):
            assert self.ids.setdefault(theirs, our) == our, "the same function has the same id"
        assert len(set(self.ids.values())) == len(self.ids)
        args = [
            PREFIX + self.ids[arg.removeprefix(PREFIX)] if str(arg).startswith(PREFIX) else arg
            for arg in recorded.args
        ]
        return recorded.replace(
            args=args, callbackIds=[self.ids[id] for id in recorded.message["callbackIds"]]
        )


def check_error(raised: kk.KkrpcError | None, recorded: Any) -> None:
    assert isinstance(raised, kk.RemoteError)
    if isinstance(recorded, str):
        missing = kk.PropertyNotFound if recorded.startswith("Property") else kk.MethodNotFound
        assert type(raised) is missing
        assert raised.message == str(raised) == recorded
        return
    fields = dict(recorded)
    assert raised.name == fields.pop("name")
    assert raised.message == fields.pop("message")
    assert raised.remote_traceback == fields.pop("stack")
    assert identical(raised.cause, fields.pop("cause", None))
    assert identical(raised.fields, fields)
    assert isinstance(raised, TypeError) == (raised.name == "TypeError")


def outcomes_of(script: list[Line]) -> dict[Any, Outcome]:
    found: dict[Any, Outcome] = {}
    for line in script:
        args = as_python({"args": line.args}, line.types)["args"]
        match line.kind:
            case "request" | "get" | "set" | "construct":
                found[line.id] = Outcome(line)
            case "response" if line.args.get("result") == {"__stream": True}:
                found[line.id].stream = True
            case "response":
                found[line.id].ended = True
                found[line.id].value = args.get("result")
                found[line.id].error = args.get("error")
            case "stream-chunk":
                found[line.id].chunks.append(args["value"])
            case "stream-end":
                found[line.id].ended = True
            case "stream-error":
                found[line.id].error = args["error"]
            case "stream-cancel":
                found[line.id].cancel_after = len(found[line.id].chunks)
    return found


@pytest.mark.parametrize("directly", [True, False], ids=["directly", "awaited"])
@pytest.mark.parametrize("hello", ["none", "unanswered", "refused"])
@pytest.mark.parametrize("file", FILES)
async def test_recorded_servers_drive_a_client(file: str, hello: str, directly: bool) -> None:
    script = lines(file)
    outcomes = outcomes_of(script)
    functions = Functions()
    serialization, _ = file.split("/")
    limits = kk.Limits(hello_seconds=0.05)
    async with scripted(hello=hello != "none", codec=serialization, limits=limits) as (channel, peer):
        if hello != "none":
            greeting = read_line(await peer.next())
            assert greeting.message["method"] == "kkrpc.hello"
            if hello == "refused":
                text = "Method path kkrpc.hello not found at kkrpc"
                refusal = {"id": greeting.id, "args": {"error": text}, "type": "response"}
                await peer.send(Line({**refusal, "version": serialization}).wire())
                await channel.ready()
        async with anyio.create_task_group() as tasks:
            for recorded in script:
                if recorded.kind == "callback":
                    id = functions.ids[recorded.message["method"]]
                    await peer.send(recorded.replace(method=id).wire())
                    continue
                outcome = outcomes[recorded.id]
                if recorded.direction == "s2c":
                    await peer.send(recorded.replace(id=outcome.id).wire())
                    continue
                if recorded.kind in QUESTIONS:
                    tasks.start_soon(partial(outcome.play, channel, functions, directly=directly))
                else:
                    outcome.read_on.set()
                sent = read_line(await peer.next())
                if recorded.kind in QUESTIONS:
                    outcome.id = sent.id
                recorded = functions.renamed(recorded.replace(id=outcome.id), sent)
                assert same(sent, recorded), (sent, recorded)
            if all(o.ended or o.error is not None or o.cancel_after is not None for o in outcomes.values()):
                await at_rest(channel)
                assert not channel.closed
            else:
                await peer.close()
        for outcome in outcomes.values():
            outcome.check()
        calls: dict[str, list[Any]] = {id: [] for id in functions.ids}
        for line in script:
            if line.kind == "callback":
                calls[line.message["method"]].append(arguments(line))
        assert functions.called == calls
        assert channel.connection.violations == channel.connection.noise == 0
    assert bytes(peer.heard).isascii()
