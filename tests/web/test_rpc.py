"""`POST /rpc`: one call, one answer, by the same way as over any channel (HTTP-8 to HTTP-12)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import anyio
import msgspec
import pytest

import kkrpc_py as kk
from kkrpc_py.channel.options import ServeOptions
from kkrpc_py.transports.handshake import HandshakeRequest
from kkrpc_py.web.rpc import RpcEndpoint
from tests.channel.harness import Log

pytestmark = pytest.mark.anyio

LIMIT = 30


@kk.constructible
class Point:
    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y


class API:
    theme = kk.writable("dark")
    Point = Point

    def __init__(self) -> None:
        self.log = Log()

    async def add(self, a: int, b: int) -> int:
        return a + b

    async def half(self, number: Annotated[int, msgspec.Meta(ge=0)]) -> float:
        return number / 2

    async def echo(self, value: Any = None) -> Any:
        self.log(value)
        return value

    def plain(self, text: str) -> str:
        return text.upper()

    async def fail(self) -> None:
        raise ValueError("told to the caller")

    async def large(self) -> str:
        return "x" * 2000

    async def count(self) -> AsyncIterator[int]:
        self.log("runs")
        try:
            while True:
                yield 1
                await anyio.sleep(0.001)
        finally:
            self.log("ended")

    def numbers(self) -> Iterator[int]:
        yield 1

    async def call(self, callback: Callable[[int], Any]) -> None:
        self.log("called with a function")

    async def give(self) -> Any:
        return lambda: 1

    async def wait(self) -> None:
        self.log("waits")
        try:
            await anyio.sleep_forever()
        finally:
            self.log("stopped")

    async def ask_back(self) -> str:
        try:
            await kk.current_channel().remote().anything()
        except kk.ChannelClosed as error:
            return str(error)
        return "answered"

    async def ask_itself(self) -> int:
        return int(await kk.current_channel().invoke_local("add", 3, 4))

    async def who(self) -> Any:
        channel = kk.current_channel()
        return [channel.state.user, channel.byte_stream.headers["x-a"], channel.byte_stream.client]


def message(method: str, *args: Any, id: Any = "1", type: str = "request", **more: Any) -> dict[str, Any]:
    return {"id": id, "method": method, "args": list(args), "type": type, "version": "json", **more}


async def posted(body: Any, api: Any = None, **options: Any) -> tuple[int, Any]:
    """Status and answer, without a server in between."""
    given: ServeOptions = {**options}  # type: ignore[typeddict-item]  # whatever a test wants
    endpoint = RpcEndpoint(API() if api is None else api, given)
    request = HandshakeRequest(headers={"x-a": "1"}, path="/rpc", client="10.1.1.1")
    request.state.user = "somebody"
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with anyio.fail_after(LIMIT):
        status, answer = await endpoint.answer(data, request)
    if status == 200:
        assert answer.endswith(b"\n")
    return status, json.loads(answer)


async def result(body: Any, api: Any = None, **options: Any) -> Any:
    status, answer = await posted(body, api, **options)
    assert status == 200
    assert answer["type"] == "response"
    assert "error" not in answer["args"], answer
    return answer["args"]["result"]


async def error(body: Any, api: Any = None, **options: Any) -> dict[str, Any]:
    status, answer = await posted(body, api, **options)
    assert status == 200
    found: Any = answer["args"]["error"]
    # Some have no name, as with stock kkrpc.
    return found if isinstance(found, dict) else {"name": None, "message": found}


# Calls ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["1", "ä" * 20, 7, 0, -(2**53)])
async def test_a_call(id: Any) -> None:
    """HTTP-8: 200, and a response with the id of the question."""
    status, answer = await posted(message("add", 2, 3, id=id))
    assert (status, answer) == (
        200,
        {"id": id, "method": "", "args": {"result": 5}, "type": "response", "version": "json"},
    )


async def test_a_call_without_an_id() -> None:
    """As over any channel: it is answered without one (CALL-1)."""
    question = message("add", 2, 3)
    del question["id"]
    status, answer = await posted(question)
    assert status == 200
    assert "id" not in answer
    assert answer["args"] == {"result": 5}


async def test_what_else_can_be_asked() -> None:
    assert await result(message("plain", "a")) == "A"
    assert await result(message("math.add", 2, 3), {"math": {"add": API().add}}) == 5
    assert await result(message("Point", 1, 2, type="construct")) == {"x": 1, "y": 2}
    get = {"id": "1", "method": "", "args": {}, "type": "get", "path": ["theme"], "version": "json"}
    assert await result(get) == "dark"
    api = API()
    assert await result({**get, "type": "set", "value": "light"}, api) is True
    assert await result(get, api) == "light"


async def test_errors_are_answers() -> None:
    """HTTP-8: with 200, whatever went wrong."""
    assert (await error(message("fail")))["message"] == "told to the caller"
    assert "none" in (await error(message("none")))["message"]
    assert "_log" in (await error(message("_log")))["message"]
    assert (await error(message("half", -1)))["name"] == "RPCValidationError"
    assert (await error(message("large"), limits=kk.Limits(frame=1000)))["name"] == "LimitExceeded"
    assert (await error(message("give")))["name"] == "NotSerializable"


async def test_malformed_messages_with_an_id_are_answered() -> None:
    """HTTP-11, MSG-4."""
    broken = {"id": "1", "method": 5, "args": [], "type": "request", "version": "json"}
    assert "method must be a string" in (await error(broken))["message"]
    deep = b'{"id":"1","method":"echo","args":[' + b"[" * 200 + b"]" * 200 + b'],"type":"request"}'
    assert (await posted(deep))[0] in (200, 400)


@pytest.mark.parametrize(
    "value",
    [None, True, 1.5, "ä😀", "\u2028\u2029", [1, [2]], {"a": {}}, {"type": "Uint8Array", "data": [0, 255]}],
)
async def test_values(value: Any) -> None:
    api = API()
    assert await result(message("echo", value), api) == value
    taken = api.log.entries[0]
    assert taken == (bytes([0, 255]) if isinstance(value, dict) and "data" in value else value)


async def test_superjson_is_answered_in_superjson() -> None:
    """HTTP-8: as npm's HTTP client writes by default."""
    question = {"json": message("echo", "2020-01-02T03:04:05.000Z"), "meta": {"values": {"args.0": ["Date"]}}}
    status, answer = await posted(question)
    assert status == 200
    assert answer["json"]["args"] == {"result": "2020-01-02T03:04:05.000Z"}
    assert answer["meta"]["values"]["args.result"] == ["Date"]
    status, answer = await posted({"json": message("count")})
    assert "use the WebSocket" in answer["json"]["args"]["error"]["message"]
    status, answer = await posted({"json": message("kkrpc.hello", {"protocol": 1, "features": []})})
    assert answer["json"]["args"]["result"] == {"protocol": 1, "features": []}


@pytest.mark.parametrize("codec", ["json", "cbor", "superjson", "auto"])
async def test_the_answer_is_json_whatever_channels_speak(codec: Any) -> None:
    assert await result(message("add", 2, 3), codec=codec) == 5


async def test_a_hello_agrees_on_nothing() -> None:
    """HTTP-9."""
    hello = {"protocol": 1, "features": ["cbor", "credit"]}
    assert await result(message("kkrpc.hello", hello)) == {"protocol": 1, "features": []}
    assert (await error(message("kkrpc.hello", 5)))["name"] == "ProtocolError"


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(lambda text: json.dumps(json.loads(text), indent=2).encode(), id="indented"),
        pytest.param(lambda text: text + b"\n", id="with a line feed"),
        pytest.param(lambda text: b"\r\n \t" + text + b"\r\n\r\n", id="with blanks"),
        pytest.param(lambda text: b"\xef\xbb\xbf" + text, id="with a byte order mark"),
    ],
)
async def test_layouts(layout: Callable[[bytes], bytes]) -> None:
    assert await result(layout(json.dumps(message("echo", "a  b")).encode())) == "a  b"


# What there is no answer to ------------------------------------------------------------------

CALL = json.dumps(message("echo")).encode()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="half a message"),
        pytest.param(b"hello", id="text"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"[" + CALL + b"]", id="a message in a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"{}", id="an empty object"),
        pytest.param(b'{"type":"unknown"}', id="no known type"),
        pytest.param(CALL + CALL, id="two messages"),
        pytest.param(CALL + b"\n" + CALL, id="two lines"),
        pytest.param(CALL[:-1], id="a message without its end"),
        pytest.param(b'{"id":"1","method":"\xff","args":[],"type":"request"}', id="no UTF-8"),
        pytest.param(b'{"id":"1","method":"echo","args":[NaN],"type":"request"}', id="no JSON number"),
        pytest.param(CALL.replace(b"echo", b"ec\nho"), id="a line feed within a text"),
        pytest.param(CALL.replace(b"echo", b"ec\rho"), id="a carriage return within a text"),
        pytest.param(b"\xd8\x18\x41\xa0", id="CBOR"),
        pytest.param(json.dumps({"json": 5}).encode(), id="superjson of no message"),
        pytest.param(json.dumps({"type": "request", "id": None, "args": []}).encode(), id="malformed, no id"),
        *(
            pytest.param(json.dumps(message("x", id="1", type=kind)).encode(), id=f"a {kind}")
            for kind in (
                "response",
                "callback",
                "stream-chunk",
                "stream-end",
                "stream-error",
                "stream-cancel",
            )
        ),
        pytest.param(
            json.dumps({"id": "1", "type": "stream-ack", "args": {"n": 1, "b": 1}}).encode(),
            id="a stream-ack",
        ),
        pytest.param(
            json.dumps({"type": "callback-release", "args": {"1": 1}}).encode(), id="a callback-release"
        ),
    ],
)
async def test_what_has_no_answer(body: bytes) -> None:
    """HTTP-11: 400, and nothing runs."""
    api = API()
    status, answer = await posted(body, api)
    assert (status, answer["code"], answer["statusCode"]) == (400, "INVALID_JSON", 400)
    assert api.log.entries == []


async def test_a_message_that_is_too_large() -> None:
    status, answer = await posted(message("echo", "x" * 2000), limits=kk.Limits(frame=1000))
    assert (status, answer["code"]) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("method", ["count", "numbers"])
@pytest.mark.parametrize("superjson", [False, True])
async def test_a_stream_is_refused(method: str, superjson: bool) -> None:
    """HTTP-10: by an error response, and the producer is closed."""
    api = API()
    question = {"json": message(method)} if superjson else message(method)
    _, answer = await posted(question, api)
    refusal = (answer["json"] if superjson else answer)["args"]["error"]["message"]
    assert refusal == "the answer is a stream: one HTTP request has one answer: use the WebSocket"
    assert api.log.entries in ([], ["runs", "ended"])


async def test_a_value_that_looks_like_a_stream() -> None:
    """What only mentions the mark is no stream."""
    value = {"a": '"__stream":true', "b": {"__stream": True, "c": 1}}
    assert await result(message("echo", value)) == value


@pytest.mark.parametrize("passed", [{"callbackIds": ["f"]}, {"streamIds": ["s"]}])
@pytest.mark.parametrize("type", ["request", "construct"])
async def test_functions_and_streams_are_refused(passed: dict[str, Any], type: str) -> None:
    """HTTP-10: nothing is called, neither here nor there."""
    api = API()
    refusal = await error(message("call", "__callback__f", type=type, **passed), api)
    assert refusal["message"].startswith("functions and streams cannot be passed")
    assert api.log.entries == []


async def test_nobody_can_be_called_back() -> None:
    assert "use the WebSocket" in await result(message("ask_back"))
    assert await result(message("ask_itself")) == 7


# The way of every call -----------------------------------------------------------------------


async def test_interceptors_and_what_is_known_of_the_caller() -> None:
    seen: list[str] = []

    async def look(ctx: Any, next: Any) -> Any:
        seen.append(ctx.method)
        return await next()

    assert await result(message("who"), interceptors=[look]) == ["somebody", "1", "10.1.1.1"]
    assert seen == ["who"]


async def test_what_is_unexpected_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(RpcEndpoint):
        async def _called(self, line: bytes, request: HandshakeRequest) -> bytes:
            raise RuntimeError("the password is secret")

    request = HandshakeRequest(headers={}, path="/rpc")
    status, answer = await Broken(API(), {}).answer(CALL, request)
    assert status == 500
    assert b"secret" not in answer
    assert "the password is secret" in caplog.text


async def test_calls_know_nothing_of_each_other() -> None:
    """HTTP-9: the same id, many times, at once."""
    api = API()
    results: list[Any] = []

    async def call(number: int) -> None:
        results.append((number, await result(message("echo", number), api)))

    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(call, number)
    assert sorted(results) == [(number, number) for number in range(100)]


async def test_who_is_cancelled_ends_the_handler() -> None:
    """HTTP-12."""
    api = API()
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(posted, message("wait"), api)
            await api.log.wait_for("waits")
            tasks.cancel_scope.cancel()
    assert api.log.entries == ["waits", "stopped"]
