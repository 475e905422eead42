"""Each step of a case is seen to pass and to fail, against a process that does what it is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest

from kkrpc_py.conformance.cases import Case
from kkrpc_py.conformance.results import Outcome, Verdict
from kkrpc_py.conformance.run import run

pytestmark = pytest.mark.anyio

SCRIPTED = [sys.executable, "-I", "-S", str(Path(__file__).with_name("scripted.py"))]
ALL = ["credit", "batch", "result", "cancel", "cbor", "callback", "stream-arguments", "kwargs", "metadata"]
# A failing wait lasts so long; a process must be able to start within it on a busy machine.
TIMEOUT = 2.0


def line(id: Any, type: str, args: Any = None, **more: Any) -> str:
    return json.dumps({"id": id, "method": "", "args": {} if args is None else args, "type": type, **more})


def result(value: Any, id: Any = "x") -> str:
    return line(id, "response", {"result": value})


def chunk(value: Any, id: Any = "s") -> str:
    return line(id, "stream-chunk", {"value": value})


def batch(*values: Any, id: Any = "s") -> str:
    return line(id, "stream-chunk", {"values": list(values)})


def release(args: Any) -> str:
    return json.dumps({"method": "", "args": args, "type": "callback-release"})


def say(*lines: str) -> dict[str, Any]:
    return {"call": "say", "args": list(lines)}


def expect(args: Any, id: Any = "x", **options: Any) -> dict[str, Any]:
    return {"expect": {"id": id, "type": "response", "args": args}, **options}


def request(method: str, *args: Any, id: Any = "x") -> dict[str, Any]:
    return {"id": id, "method": method, "args": list(args), "type": "request"}


class Row(NamedTuple):
    steps: list[Any]
    verdict: Verdict = Verdict.PASS
    step: int | None = None
    expected: str = ""
    seen: str = ""
    fresh: bool = True
    session: Any = "stock"


def good(*steps: Any, session: Any = "stock", fresh: bool = True) -> Row:
    return Row(list(steps), session=session, fresh=fresh)


def bad(
    *steps: Any,
    step: int | None,
    expected: str,
    seen: str,
    verdict: Verdict = Verdict.FAIL,
    session: Any = "stock",
    fresh: bool = True,
) -> Row:
    return Row(list(steps), verdict, step, expected, seen, fresh, session)


DEEP = {"$nested": [5000, 1]}
OPENED = request("echo", 1)
HELD = {"id": "s", "method": "", "args": {"result": {"__stream": True}}, "type": "response"}
SENT = b"\xd8\x18" + bytes([0x40 | 14]) + bytes.fromhex("a264747970656367657462696401")
# Two of these are the credit of bytes.
LONG = chunk("x" * (131_072 - len(chunk(""))))
RELEASE = release({"f": 1})
# Nobody answers it, and it passes functions.
NOTIFY = {"method": "f", "args": [], "type": "callback"}
ACK = line("s", "stream-ack", {"n": 10, "b": 500})
# {"id": "x", "type": "response", "args": {"result": h'00ff'}}
CBOR = "a3626964617864747970656872657370 6f6e73656461726773a166726573756c744200ff".replace(" ", "")
FRAME = f"d81858{len(CBOR) // 2:02x}{CBOR}"

ROWS: dict[str, Row] = {
    # send and expect
    "send": good({"send": request("echo", 7)}, expect({"result": 7})),
    "send-another-answer": bad(
        {"send": request("echo", 7)}, expect({"result": 8}), step=1, expected="args.result: 8", seen="7, in {"
    ),
    "send-no-answer": bad(
        {"send": request("echo", 7)},
        expect({"result": 7}),
        expect({"result": 7}),
        step=2,
        expected='a message like {"id": "x"',
        seen="nothing of it within 2 seconds",
    ),
    "send-times": good(
        {"send": request("echo", 7), "times": 3},
        *[expect({"result": 7})] * 3,
    ),
    "send-length": good(
        {"send": request("read_slowly", 1)},
        {"write": [{"text": ""}], "each": True},
        {"send": request("echo", 1, id="y"), "length": 300},
        # Its line feed is read with it.
        expect({"result": [301]}),
    ),
    "send-length-too-long": bad(
        {"send": request("echo", "x" * 100), "length": 20},
        step=0,
        expected="a case that can be played",
        seen="more than 20",
    ),
    "send-cbor": good(
        {"send": request("read_hex", len(SENT))},
        {"write": [{"text": ""}], "each": True},
        {"send": {"type": "get", "id": 1}, "serialization": "cbor"},
        expect({"result": SENT.hex()}),
    ),
    "send-cbor-of-a-length": good(
        {"send": request("read_hex", 304)},
        {"write": [{"text": ""}], "each": True},
        {"send": {"type": "get", "id": 1}, "serialization": "cbor", "length": 299},
        expect({"result": {"$regex": "d81859012ba3.*63706164.*78"}}),
    ),
    "send-cbor-of-no-length": bad(
        {"send": {"type": "get", "id": 1}, "serialization": "cbor", "length": 10},
        step=0,
        expected="a case that can be played",
        seen="no payload of 10 bytes",
    ),
    "send-deep": bad(
        {"send": request("echo", DEEP)}, expect({}), step=1, expected="a message", seen="exited with 3"
    ),
    "capture-and-use": good(
        {"send": request("echo", {"deep": [5]})},
        expect({"result": {"deep": [{"$capture": "n"}]}}),
        {"call": "echo", "args": [{"$ref": "n"}], "result": {"$plus": ["n", 0]}},
    ),
    "use-before-capture": bad(
        {"call": "echo", "args": [{"$ref": "n"}]},
        step=0,
        expected="a case that can be played",
        seen="'n' was not captured",
    ),
    "expect-by-id": good(
        say(result(1, "a"), result(2, "b")), expect({"result": 2}, "b"), expect({"result": 1}, "a")
    ),
    "expect-keeps-the-order-of-an-id": bad(
        say(chunk(1), chunk(2)),
        {"expect": {"id": "s", "type": "stream-chunk", "args": {"value": 2}}},
        step=1,
        expected="args.value: 2",
        seen="1, in",
    ),
    "expect-tells-ids-apart": bad(
        say(result(1, "1")), expect({"result": 1}, 1), step=1, expected='"id": 1', seen="not expected yet"
    ),
    "expect-tells-a-number-from-a-float": bad(
        say(result(1, id=1.0)),
        expect({"result": 1}, id=1),
        step=1,
        expected="a message",
        seen="nothing of it",
    ),
    "expect-tells-a-number-from-true": bad(
        say(result(1, id=True)),
        expect({"result": 1}, id=1),
        step=1,
        expected="a message",
        seen="nothing of it",
    ),
    "expect-by-type": good(
        say(result(1, "a"), chunk(5)),
        {"expect": {"id": {"$capture": "i"}, "type": "stream-chunk", "args": {"value": 5}}},
        expect({"result": 1}, "a"),
    ),
    "expect-a-list": good(
        say(result(1, "a"), result(2, "b")),
        {"expect": [expect({"result": 1}, "a")["expect"], expect({"result": 2}, "b")["expect"]]},
    ),
    "expect-a-list-in-another-order": bad(
        say(result(1, "a"), result(2, "b")),
        {"expect": [expect({"result": 2}, "b")["expect"], expect({"result": 1}, "a")["expect"]]},
        step=1,
        expected="after the others",
        seen="it came before them",
    ),
    "expect-another-key": bad(
        say(line("x", "response", {"result": 1}, meta={})),
        expect({"result": 1}),
        step=1,
        expected="meta: nothing",
        seen="{}",
    ),
    "expect-a-key-unknown-to-the-protocol": good(
        say(line("x", "response", {"result": 1}, trace={})), expect({"result": 1})
    ),
    "expect-options": good(
        say('{"id":"x","type":"response","method":"","args":{"result":1}}'),
        expect(
            {"result": 1},
            serialization="json",
            ascii=True,
            keys=["id", "type", "method", "args"],
            line='{"id":"x","type":"response","method":"","args":{"result":1}}',
            json={"id": "x", "type": "response", "method": "", "args": {"result": 1}},
            length_not=65536,
        ),
    ),
    "expect-ascii": bad(
        say('{"id":"x","type":"response","method":"","args":{"result":"ä"}}'),
        expect({"result": "ä"}, ascii=True),
        step=1,
        expected="ascii: true",
        seen="false",
    ),
    "expect-keys": bad(
        say('{"id":"x","type":"response","method":"","args":{"result":1}}'),
        expect({"result": 1}, keys=["type", "id", "method", "args"]),
        step=1,
        expected="keys",
        seen='["id", "type"',
    ),
    "expect-line": bad(
        say('{"id":"x", "type":"response","method":"","args":{}}'),
        expect({}, line='{"id":"x","type":"response","method":"","args":{}}'),
        step=1,
        expected="line",
        seen=', \\"type\\"',
    ),
    "expect-json": bad(
        say('{"json":{"id":"x","type":"response","method":"","args":{},"transferSlots":[]}}'),
        expect({}, json={"json": {"id": "x", "type": "response", "method": "", "args": {}}}),
        step=1,
        expected="json: .json.transferSlots",
        seen="[]",
    ),
    "expect-length-not": bad(
        say('{"id":"x","type":"response","method":"","args":{}  }'),
        expect({}, length_not=26),
        step=1,
        expected="no multiple of 26",
        seen="52 bytes",
    ),
    "expect-serialization": bad(
        say('{"json":{"id":"x","type":"response","method":"","args":{}}}'),
        expect({}, serialization="json"),
        step=1,
        expected='serialization: "json"',
        seen='"superjson"',
    ),
    "expect-cbor": good(
        {"call": "hex", "args": [FRAME]},
        {
            "expect": {
                "id": "x",
                "type": "response",
                "method": {"$absent": True},
                "args": {"result": {"$words": {"bytes": "00ff"}}},
            },
            "serialization": "cbor",
        },
    ),
    "broken-cbor": bad(
        {"send": request("hex", FRAME[:-12] + "000000000000", id="y")},
        expect({}, "y"),
        step=1,
        expected="a message",
        seen="a CBOR frame with",
    ),
    "noise-is-no-message": good(say("noise", "[1]", "", "nothing {}"), {"quiet": True}),
    "a-line-that-is-no-message": bad(
        say('{"type":"respons"}'),
        {"quiet": True},
        step=0,
        expected="an answer",
        seen="has no type of a message",
    ),
    "a-line-that-is-no-json": bad(
        say(result(1), line("x", "response", {"result": float("nan")})),
        expect({"result": 1}),
        step=0,
        expected="an answer",
        seen="NaN is no JSON",
    ),
    "a-line-that-is-no-message-after-an-answer": bad(
        {"send": request("later", '{"type":1}')},
        step=None,
        expected="an answer",
        seen="has no type of a message",
    ),
    "noise-after-a-cbor-frame": bad(
        {"call": "hex", "args": [FRAME]},
        say("noise"),
        step=1,
        expected="an answer",
        seen="noise after a CBOR frame (FRM-5)",
    ),
    # write
    "write": good(
        {"write": [{"text": json.dumps(request("echo", 1))}, {"hex": "0a"}]}, expect({"result": 1})
    ),
    "write-repeat": good(
        {"write": [{"repeat": [{"text": json.dumps(request("echo", 1)) + "\n"}], "times": 3}]},
        *[expect({"result": 1})] * 3,
    ),
    "write-a-frame": bad(
        {"write": [{"frame": "a0"}, {"text": "\n"}]},
        expect({}),
        step=1,
        expected="a message",
        seen="exited with 3",
    ),
    "write-each": good(
        {"call": "echo", "args": [1]},
        {"send": request("read_slowly", 3)},
        {"write": [{"text": "abc"}, {"repeat": [{"text": "d"}], "times": 5}, {"text": "ef"}], "each": True},
        expect({"result": [3, 5, 2]}),
    ),
    "write-bytewise": good(
        {"send": request("read_slowly", 4)},
        {"write": [{"text": "abcd"}], "bytewise": True},
        expect({"result": [1] * 4}),
    ),
    "write-to-who-does-not-read": bad(
        {"send": request("hang")},
        {"write": [{"repeat": [{"text": "x"}], "times": 1_000_000}]},
        step=1,
        expected="reads its input",
        seen="it did not within 2 seconds",
    ),
    "write-each-to-who-does-not-read": bad(
        {"send": request("hang")},
        {"write": [{"text": "x"}, {"text": "y"}], "each": True},
        step=1,
        expected="reads what was written",
        seen="it did not within 2 seconds",
    ),
    "write-to-a-closed-input": good(
        {"send": request("shut")}, {"write": [{"repeat": [{"text": "x"}], "times": 1_000_000}]}, {"exit": 4}
    ),
    # chunks
    "chunks": good(
        say(chunk(1), result(0), chunk("two")),
        {"chunks": {"id": "s", "values": [1, "two"]}},
        expect({"result": 0}),
    ),
    "chunks-of-a-range": good(
        say(*map(chunk, range(30))), {"chunks": {"id": "s", "values": {"$range": [0, 30]}}}
    ),
    "chunks-too-few": bad(
        say(chunk(1)),
        {"chunks": {"id": "s", "values": [1, 2]}},
        step=1,
        expected="chunk 1 of 2",
        seen="nothing of it",
    ),
    "chunks-others": bad(
        say(chunk(1), chunk(3)),
        {"chunks": {"id": "s", "values": [1, 2]}},
        step=1,
        expected="chunk 1",
        seen="3",
    ),
    "chunks-an-end": bad(
        say(chunk(1), line("s", "stream-end")),
        {"chunks": {"id": "s", "values": [1, 2]}},
        step=1,
        expected="stream-chunk",
        seen="stream-end",
    ),
    "chunks-of-no-form": bad(
        say(line("s", "stream-chunk", {"value": 1, "values": [1, 2]})),
        {"chunks": {"id": "s", "values": [1]}},
        step=1,
        expected="a chunk or a batch",
        seen='"values"',
        session="all",
    ),
    "chunks-no-list": bad(
        {"chunks": {"id": "s", "values": {"a": 1}}},
        step=0,
        expected="a case that can be played",
        seen="a list",
    ),
    "chunks-a-batch-not-agreed": bad(
        say(batch(1, 2)),
        {"chunks": {"id": "s", "values": [1, 2]}},
        step=1,
        expected="batch is not agreed",
        seen="values",
    ),
    "chunks-a-batch": good(
        say(batch(1, 2), chunk(3)), {"chunks": {"id": "s", "values": [1, 2, 3]}}, session=["batch"]
    ),
    "chunks-a-batch-of-one": bad(
        say(batch(1)),
        {"chunks": {"id": "s", "values": [1]}},
        step=1,
        expected="2 to 256",
        seen="1 values",
        session="all",
    ),
    "chunks-a-batch-beyond": bad(
        say(batch(1, 2, 3)),
        {"chunks": {"id": "s", "values": [1, 2]}},
        step=1,
        expected="2 chunks",
        seen="one more, 3",
        session="all",
    ),
    "chunks-after-a-hello-of-the-case": good(
        {"send": request("kkrpc.hello", {"protocol": 1, "features": ["batch"]})},
        expect({"result": {"$has": {"protocol": 1}}}),
        say(batch(1, 2)),
        {"chunks": {"id": "s", "values": [1, 2]}},
    ),
    "chunks-after-a-hello-in-bytes": good(
        {"write": [{"text": json.dumps(request("kkrpc.hello", {"features": ["batch"]})) + "\n"}]},
        expect({"result": {"$has": {"protocol": 1}}}),
        say(batch(1, 2)),
        {"chunks": {"id": "s", "values": [1, 2]}},
    ),
    # call
    "call": good({"call": "echo", "args": [{"a": [1]}], "result": {"a": [1]}}),
    "call-another-result": bad(
        {"call": "echo", "args": [{"a": [1]}], "result": {"a": [2]}},
        step=0,
        expected="the result of echo() at .a[0]: 2",
        seen="1",
    ),
    "call-an-error": bad(
        {"call": "nope"}, step=0, expected="a result of the kit's nope()", seen="is not a function"
    ),
    "call-nothing-is-null": good(
        {"call": "barrier", "result": None}, {"call": "barrier", "result": {"$absent": True}}
    ),
    "call-leaves-the-others": good(
        say(result(1)), {"call": "echo", "args": [2], "result": 2}, expect({"result": 1})
    ),
    "call-no-answer": bad(
        {"call": "hang"}, step=0, expected="an answer to the kit's hang()", seen="nothing of it"
    ),
    # barrier, quiet and the end
    "barrier": good({"barrier": True}),
    "quiet": good(say(result(1)), expect({"result": 1}), {"quiet": True}),
    "quiet-something-left": bad(
        say(result(1), result(2)), {"quiet": True}, step=1, expected="no message", seen="and 1 more"
    ),
    "quiet-what-comes-after-an-answer": bad(
        {"call": "later", "args": [result(1)]},
        {"quiet": True},
        step=1,
        expected="no message",
        seen='"result": 1',
    ),
    "quiet-a-release": good(
        {"send": {**NOTIFY, "callbackIds": ["f"]}}, say(RELEASE), {"quiet": True}, session=["callback"]
    ),
    "quiet-a-release-of-two-with-counts": good(
        {"write": [{"text": json.dumps({**NOTIFY, "callbackIds": ["g", 5, "h"]}) + "\n"}]},
        say(release({"g": 2, "h": 20.0})),
        session=["callback"],
    ),
    **{
        f"quiet-a-release-{name}": bad(
            {"send": {**NOTIFY, "callbackIds": ["f"]}},
            say(json.dumps(message) if isinstance(message, dict) else message),
            {"quiet": True},
            step=2,
            expected="no message",
            seen="callback-release",
            session=["callback"],
        )
        for name, message in {
            "of-nobody": release({"nobody": 7}),
            "of-one-and-nobody": release({"f": 1, "nobody": 1}),
            "of-nothing": release({}),
            "of-none": release({"f": 0}),
            "of-half": release({"f": 1.5}),
            "of-true": release({"f": True}),
            "of-text": release({"f": "1"}),
            "of-rubbish": release("rubbish"),
            "of-a-list": release(["f"]),
            "with-an-id": {"id": 1, **json.loads(RELEASE)},
        }.items()
    },
    "quiet-a-release-after-a-hello-of-the-case": good(
        {"send": request("kkrpc.hello", {"protocol": 1, "features": ["callback"]})},
        expect({"result": {"$has": {"protocol": 1}}}),
        {"send": {**NOTIFY, "callbackIds": ["f"]}},
        say(RELEASE),
    ),
    "quiet-a-release-toward-a-stock-peer": bad(
        {"send": {**NOTIFY, "callbackIds": ["f"]}},
        say(RELEASE),
        {"quiet": True},
        step=2,
        expected="no message",
        seen="callback-release",
    ),
    "end-something-left": bad(
        {"call": "later", "args": [chunk(1)]},
        step=None,
        expected="no message",
        seen="stream-chunk",
        fresh=False,
    ),
    "end-something-runs": bad(
        {"call": "leave", "args": [2]},
        step=None,
        expected="reset() at the end of the case at .running: 0",
        seen="2",
    ),
    "end-exit-code": bad({"send": request("stay")}, expect({}), step=None, expected="exit 0", seen="runs on"),
    # reading
    "reading": good(
        {"reading": False},
        {"send": request("echo", 1)},
        {"reading": True},
        expect({"result": 1}),
        {"reading": False},
    ),
    "reading-stopped": bad(
        {"reading": False},
        {"send": request("echo", 1)},
        expect({"result": 1}),
        step=2,
        expected="a message",
        seen="nothing",
    ),
    "reading-stopped-fills-the-pipe": bad(
        {"reading": False},
        {"send": request("say", "x" * 1_000_000)},
        {"write": [{"repeat": [{"text": "x"}], "times": 1_000_000}]},
        step=2,
        expected="reads its input",
        seen="it did not",
    ),
    # the process
    "exit": good({"end_input": True}, {"exit": 0}),
    "exit-of-its-own-accord": good({"write": [{"text": "{no\n"}]}, {"exit": [3, 4]}),
    "exit-another-code": bad(
        {"end_input": True},
        {"exit": [3, 4]},
        step=1,
        expected="exit 3 or 4 within 2 seconds",
        seen="it exited with 0",
    ),
    "exit-a-crash": bad(
        {"send": request("exit", 1, "the reason\n")},
        {"exit": 0},
        step=1,
        expected="exit 0",
        seen="it exited with 1",
        verdict=Verdict.ERROR,
    ),
    "exit-a-signal": bad(
        {"send": request("kill")},
        {"exit": 0},
        step=1,
        expected="exit 0",
        seen="ended by signal 9",
        verdict=Verdict.ERROR,
    ),
    "exit-never": bad(
        {"call": "stay"},
        {"end_input": True},
        {"exit": 0},
        step=2,
        expected="exit 0 within 2 seconds",
        seen="it runs on",
    ),
    "exit-closes-alone": bad(
        {"send": request("close")}, {"exit": 0}, step=1, expected="exit 0", seen="its output is closed"
    ),
    "exit-something-left": bad(
        say(result(1)), {"end_input": True}, {"exit": 0}, step=2, expected="no message", seen='"result": 1'
    ),
    "exit-unread": good(say(result(1)), {"end_input": True}, {"exit": 0, "unread": True}),
    "first-bytes": good(say("noise"), {"first_bytes": b"noise\n".hex()}),
    "first-bytes-others": bad(
        {"call": "echo", "args": [1]}, {"first_bytes": "0a"}, step=1, expected="begins with 0a", seen="7b22"
    ),
    "first-bytes-never": bad(
        {"first_bytes": "7b"}, step=0, expected="begins with 7b", seen="nothing of it within"
    ),
    "crash-within-a-call": bad(
        {"call": "exit", "args": [7, "Traceback\n"]},
        step=0,
        expected="an answer",
        seen="closed its output and exited with 7",
        verdict=Verdict.ERROR,
    ),
    "a-clean-exit-in-a-process-of-its-own": bad(
        {"call": "exit", "args": [3]},
        step=0,
        expected="an answer",
        seen="exited with 3",
        verdict=Verdict.FAIL,
    ),
    "a-clean-exit-in-a-shared-process": bad(
        {"call": "exit", "args": [3]},
        step=0,
        expected="an answer",
        seen="exited with 3",
        verdict=Verdict.ERROR,
        fresh=False,
    ),
    "closes-and-runs-on": bad(
        {"call": "close"},
        step=0,
        expected="an answer",
        seen="closed its output, and runs on",
        verdict=Verdict.ERROR,
    ),
    "half-a-line-at-the-end": bad(
        {"send": request("half_exit", '\n{"id')}, {"exit": 0}, step=1, expected="FRM-9", seen="half a frame"
    ),
    "half-a-frame-at-the-end": bad(
        {"call": "stay"},
        {"send": request("half_exit", "", "d8185820")},
        {"exit": 0},
        step=2,
        expected="FRM-9",
        seen="half a frame",
    ),
    "half-a-line-of-noise-at-the-end": good({"send": request("half_exit", "goodbye")}, {"exit": 0}),
    "half-a-line-unread": good(
        {"send": request("hex", "7b226964")}, {"end_input": True}, {"exit": 0, "unread": True}
    ),
    # flow control
    "acks": good(
        {"send": HELD},
        say(ACK, ACK),
        {"acks": {"id": "s", "n": 20, "b": {"$between": [900, 1100]}}},
        say(ACK),
        {"acks": {"id": "s", "n": 30}},
        session="all",
    ),
    "acks-another-sum": bad(
        {"send": HELD},
        say(ACK),
        {"acks": {"id": "s", "n": 11}},
        step=2,
        expected="the sum of n",
        seen="10",
        session="all",
    ),
    "acks-malformed": bad(
        {"send": HELD},
        say(line("s", "stream-ack", {"n": -1, "b": 0})),
        {"acks": {"id": "s"}},
        step=2,
        expected="CRD-2",
        seen="-1",
        session="all",
    ),
    "acks-half": bad(
        {"send": HELD},
        say(line("s", "stream-ack", {"n": 20.5, "b": 0})),
        {"acks": {"id": "s"}},
        step=2,
        expected="CRD-2",
        seen="20.5",
        session="all",
    ),
    "acks-of-a-float": good(
        {"send": HELD},
        say(line("s", "stream-ack", {"n": 20.0, "b": 2**60})),
        {"acks": {"id": "s", "n": 20, "b": 2**60}},
        session="all",
    ),
    "a-half-ack-may-not-come": bad(
        {"send": HELD},
        say(line("s", "stream-ack", {"n": 1, "b": 0.5})),
        {"quiet": True},
        step=2,
        expected="no message",
        seen="0.5",
        session="all",
    ),
    "an-ack-may-come": good({"send": HELD}, say(ACK), {"quiet": True}, session="all"),
    "an-ack-of-a-stream-argument-may-come": good(
        {"send": {**request("echo", "s"), "streamIds": ["s"]}},
        expect({"result": "s"}),
        say(ACK),
        session="all",
    ),
    "an-ack-of-nothing": bad(
        say(ACK), {"quiet": True}, step=1, expected="no message", seen="stream-ack", session="all"
    ),
    "an-ack-without-credit": bad(
        {"send": HELD},
        say(ACK),
        {"quiet": True},
        step=2,
        expected="no message",
        seen="stream-ack",
        session=["batch"],
    ),
    "feed": good(
        {"send": HELD},
        {"feed": {"id": "s", "values": {"$range": [0, 64]}}},
        say(ACK),
        {"feed": {"id": "s", "values": {"$range": [0, 10]}, "end": True}},
        session="all",
    ),
    "feed-starves": bad(
        {"send": HELD},
        {"feed": {"id": "s", "values": {"$range": [0, 65]}}},
        step=1,
        expected="credit for chunk 64 of 65",
        seen="nothing of it",
        session="all",
    ),
    "feed-starves-by-bytes": bad(
        {"send": HELD},
        {"feed": {"id": "s", "values": [{"$repeat": ["x", 262144]}, 1]}},
        step=1,
        expected="credit for chunk 1 of 2",
        seen="nothing of it",
        session="all",
    ),
    "feed-counts-what-was-written": bad(
        {"send": HELD},
        {"write": [{"repeat": [{"text": chunk(1) + "\n"}], "times": 60}]},
        {"feed": {"id": "s", "values": {"$range": [0, 5]}}},
        step=2,
        expected="credit for chunk 4 of 5",
        seen="nothing of it",
        session="all",
    ),
    "spent-chunks": good(
        say(*map(chunk, range(64))),
        {"spent": "s"},
        {"chunks": {"id": "s", "values": {"$range": [0, 64]}}},
        session="all",
    ),
    "spent-waits": good(
        {"send": request("slowly", 0.3, *map(chunk, range(64)))},
        {"spent": "s"},
        expect({}),
        {"drop": "s"},
        session="all",
    ),
    "spent-batches": good(
        say(batch(*range(60)), batch(*range(4))), {"drop": "s"}, {"spent": "s"}, session="all"
    ),
    "spent-bytes": good(say(LONG, LONG), {"drop": "s"}, {"spent": "s"}, session="all"),
    "spent-not": bad(
        say(*map(chunk, range(63))),
        {"spent": "s"},
        step=1,
        expected='the credit of "s" used up',
        seen="bytes are left; nothing of it within",
        session="all",
    ),
    "spent-not-one-byte": bad(
        say(LONG, LONG.replace("x", "", 1)),
        {"spent": "s"},
        step=1,
        expected="used up",
        seen="62 chunks and 1 bytes",
        session="all",
    ),
    "spent-too-many-chunks": bad(
        say(*map(chunk, range(65))),
        {"spent": "s"},
        step=1,
        expected="credit for each chunk message",
        seen="chunk message 65, of 1 chunks, with a credit of 0 chunks",
        session="all",
    ),
    "spent-a-batch-beyond": bad(
        say(*map(chunk, range(63)), batch(1, 2)),
        {"spent": "s"},
        step=1,
        expected="credit for each chunk message",
        seen="of 2 chunks, with a credit of 1 chunks",
        session="all",
    ),
    "spent-too-many-bytes": bad(
        say(LONG, LONG, chunk(1)),
        {"spent": "s"},
        step=1,
        expected="credit for each",
        seen="62 chunks and 0 bytes",
        session="all",
    ),
    "spent-after-a-grant": good(
        say(*map(chunk, range(64))),
        {"send": {"id": "s", "method": "", "args": {"n": 2, "b": 500}, "type": "stream-ack"}},
        say(chunk(1), chunk(2)),
        {"spent": "s"},
        {"drop": "s"},
        session="all",
    ),
    "spent-begins-anew-with-an-opening": good(
        say(*map(chunk, range(64))),
        {"drop": "s"},
        say(line("s", "response", {"result": {"__stream": True}}), *map(chunk, range(64))),
        expect({"result": {"__stream": True}}, "s"),
        {"spent": "s"},
        {"drop": "s"},
        session="all",
    ),
    "drop": good({"call": "later", "args": [chunk(1), chunk(2)]}, {"drop": "s"}, {"quiet": True}),
    "drop-leaves-the-rest": bad(
        say(chunk(1), line("s", "stream-end")),
        {"drop": "s"},
        {"quiet": True},
        step=2,
        expected="no message",
        seen="stream-end",
    ),
    # superjson
    "superjson": good(
        {"send": request("echo", 1)},
        {"call": "echo", "args": [1], "result": 1},
        expect({"result": 1}),
        session="superjson",
    ),
    "no-step": bad({"jump": True}, step=0, expected="a case that can be played", seen='{"jump": true}'),
    "no-hex": bad({"write": [{"hex": "0"}]}, step=0, expected="a case that can be played", seen="no hex"),
    "no-pattern": bad(
        say(result(1)), {"expect": [5]}, step=1, expected="a case that can be played", seen="5"
    ),
    "no-part": bad({"write": [{"texts": ""}]}, step=0, expected="a case that can be played", seen="no part"),
}


def case_of(name: str, row: Row) -> Case:
    session = row.session if isinstance(row.session, str) else tuple(row.session)
    return Case(
        id=name,
        title=name,
        rule="STR-1",
        force="MUST",
        level=0,
        role="callee",
        steps=tuple(row.steps),
        session=session,
        fresh=row.fresh,
    )


@pytest.fixture(scope="module")
async def outcomes(anyio_backend: Any) -> dict[str, Outcome]:
    """All rows in one run: most of their time is waiting."""
    cases = [case_of(*entry) for entry in ROWS.items()]
    with anyio.fail_after(60):
        found = await run([*SCRIPTED, *ALL, "superjson"], cases, timeout=TIMEOUT, jobs=24)
    return {outcome.case.id: outcome for outcome in found.outcomes}


@pytest.mark.parametrize("name", ROWS)
async def test_a_step(name: str, outcomes: dict[str, Outcome]) -> None:
    row, outcome = ROWS[name], outcomes[name]
    failure = outcome.failure
    assert outcome.verdict is row.verdict, failure
    if failure is not None:
        assert failure.step == row.step, failure
        assert row.expected in failure.expected
        assert row.seen in failure.seen
        assert failure.trace
