"""Errors through channels: classes, causes, notes and tracebacks, in every codec; and hostile ones."""

from __future__ import annotations

import json
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import kkrpc_py as kk
from tests.channel.harness import linked
from tests.channel.peer import Peer, chunk, opened, response, scripted, stream_error

pytestmark = pytest.mark.anyio

RECORDINGS = Path(__file__).parents[1] / "recordings"


class OutOfStock(Exception):
    def __init__(self, sku: str, left: int) -> None:
        super().__init__(f"{sku}: {left} left")
        self.sku = sku
        self.left = left


class DiskTrouble(OSError):
    def __init__(self, drive: str) -> None:
        super().__init__(28, "disk full", "/data")
        self.drive = drive


class ShopError(Exception):
    pass


CLASSES = [OutOfStock, DiskTrouble, ShopError]


class Shop:
    counter = 3

    async def order(self, sku: str) -> None:
        raise OutOfStock(sku, 0)

    def on_thread(self, sku: str) -> None:
        raise OutOfStock(sku, 0)

    @kk.inline
    def inline(self, sku: str) -> None:
        raise OutOfStock(sku, 0)

    async def some(self, sku: str) -> AsyncIterator[int]:
        yield 1
        yield 2
        raise OutOfStock(sku, 0)

    async def sent(self, sku: str, sink: kk.StreamSink[int]) -> None:
        await sink.send(1)
        await sink.send(2)
        raise OutOfStock(sku, 0)

    async def deep(self) -> None:
        try:
            try:
                raise DiskTrouble("sda")
            except DiskTrouble as exc:
                exc.add_note("while the ledger was written")
                raise OutOfStock("bolt", 2) from exc
        except OutOfStock as exc:
            raise ShopError("nothing was sold") from exc

    async def with_callback(self, callback: Any) -> str:
        try:
            await callback()
        except OutOfStock as exc:
            assert isinstance(exc, kk.RemoteError)
            raise ShopError(exc.sku) from exc
        return "no error"


@pytest.mark.parametrize("codec", ["auto", "json", "superjson", "cbor"])
async def test_an_error_of_a_class_of_ones_own(codec: Any) -> None:
    async with linked(Shop(), errors=CLASSES, codec=codec) as (_, client):
        api = client.remote()
        for name in ("order", "on_thread", "inline"):
            with pytest.raises(OutOfStock) as caught:
                await api[name]("bolt")
            assert isinstance(caught.value, kk.RemoteError)
            assert (caught.value.sku, caught.value.left) == ("bolt", 0)
            assert str(caught.value) == "bolt: 0 left"
        for name in ("some", "sent"):
            values = []
            with pytest.raises(OutOfStock) as caught:
                async for value in api[name]("nut"):
                    values.append(value)
            assert (values, caught.value.sku) == ([1, 2], "nut")
            stream = await api[name]("nail")
            with pytest.raises(OutOfStock):
                await stream.result()


@pytest.mark.parametrize("codec", ["auto", "json", "superjson", "cbor"])
async def test_a_chain_of_causes(codec: Any) -> None:
    async with linked(Shop(), errors=CLASSES, codec=codec) as (_, client):
        with pytest.raises(ShopError) as caught:
            await client.remote().deep()
    middle = caught.value.__cause__
    assert isinstance(middle, OutOfStock)
    assert (middle.sku, middle.left) == ("bolt", 2)
    inner = middle.__cause__
    assert isinstance(inner, DiskTrouble)
    assert (inner.drive, inner.errno, inner.filename) == ("sda", 28, "/data")
    assert inner.__notes__ == ["while the ledger was written"]
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.count("was the direct cause of the following exception") == 2


async def test_an_error_of_a_callback_is_itself_for_the_handler() -> None:
    async def callback() -> None:
        raise OutOfStock("screw", 1)

    async with linked(Shop(), errors=CLASSES) as (_, client):
        with pytest.raises(ShopError, match="screw") as caught:
            await client.remote().with_callback(callback)
        assert isinstance(caught.value.__cause__, OutOfStock)
        assert caught.value.__cause__.left == 1


async def test_each_side_knows_its_own_classes() -> None:
    async with linked(Shop()) as (_, client):
        with pytest.raises(kk.RemoteError) as caught:
            await client.remote().order("bolt")
        assert not isinstance(caught.value, OutOfStock)
        assert (caught.value.name, caught.value.fields) == ("OutOfStock", {"sku": "bolt", "left": 0})


async def test_classes_that_cannot_be_are_refused_by_the_channel() -> None:
    for given in ([KeyboardInterrupt], [StopIteration], [3]):
        with pytest.raises(TypeError):
            kk.RPCChannel(object(), errors=given)  # type: ignore[arg-type] # what is tested
    with pytest.raises(ValueError, match="two of the error classes"):
        kk.RPCChannel(object(), errors=[OutOfStock, OutOfStock])


async def test_every_caller_gets_an_error_of_its_own() -> None:
    caught: list[kk.RemoteError] = []
    async with linked(Shop(), errors=CLASSES) as (_, client):

        async def call() -> None:
            try:
                await client.remote().order("bolt")
            except kk.RemoteError as exc:
                caught.append(exc)

        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(call)
    assert len({id(exc) for exc in caught}) == 100


# --- from hop to hop ------------------------------------------------------------------------


async def test_the_second_hop_keeps_everything() -> None:
    async with linked(Shop(), tracebacks=True) as (_, far):

        class Between:
            async def deep(self) -> None:
                await far.remote().deep()

        # The one in between need not know the classes.
        async with linked(Between(), errors=CLASSES, tracebacks=True) as (_, near):
            with pytest.raises(ShopError) as caught:
                await near.remote().deep()
    middle = caught.value.__cause__
    assert isinstance(middle, OutOfStock)
    assert middle.sku == "bolt"
    assert isinstance(middle.__cause__, DiskTrouble)
    assert middle.__cause__.__notes__ == ["while the ledger was written"]
    assert isinstance(caught.value, kk.RemoteError)
    stack = caught.value.remote_traceback or ""
    assert stack.count('raise ShopError("nothing was sold") from exc') == 1
    assert stack.count("await far.remote().deep()") == 1
    assert stack.index("raise ShopError") < stack.index("await far")
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.count('raise ShopError("nothing was sold") from exc') == 1
    assert shown.count("await near.remote().deep()") == 1


async def test_a_hop_that_shows_no_tracebacks_shows_none_of_the_others() -> None:
    async with linked(Shop(), tracebacks=True) as (_, far):

        class Between:
            async def deep(self) -> None:
                await far.remote().deep()

        async with linked(Between()) as (_, near):
            with pytest.raises(kk.RemoteError) as caught:
                await near.remote().deep()
    assert caught.value.remote_traceback is None
    assert not hasattr(caught.value, "__notes__")
    assert "raise ShopError" not in str(caught.value.fields) + str(caught.value.cause)


async def test_a_group_says_what_is_in_it() -> None:
    class Api:
        async def several(self) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(Shop().order, "bolt")
                tasks.start_soon(Shop().order, "nut")

    async with linked(Api()) as (_, client):
        with pytest.raises(kk.RemoteError) as caught:
            await client.remote().several()
    assert caught.value.name == "ExceptionGroup"
    assert {error["sku"] for error in caught.value.fields["exceptions"]} == {"bolt", "nut"}


# --- what cannot be sent --------------------------------------------------------------------


class Odd:
    """Raises an error with fields of every kind, as its own and as its cause's."""

    async def fail(self) -> None:
        inner, outer = ValueError("inner"), OutOfStock("bolt", 0)
        for error in (inner, outer):
            vars(error).update(fine=1, itself=error, handle=object(), data=b"bytes", nan=float("nan"))
        raise outer from inner


@pytest.mark.parametrize(
    ("codec", "hello", "fields"),
    [("json", True, {"data"}), ("json", False, {"data"}), ("cbor", True, {"data", "nan"})],
)
async def test_fields_that_cannot_be_sent_are_left_out_one_by_one(
    codec: Any, hello: bool, fields: set[str]
) -> None:
    async with linked(Odd(), codec=codec, hello=hello, errors=CLASSES) as (_, client):
        with pytest.raises(OutOfStock) as caught:
            await client.remote().fail()
    assert isinstance(caught.value, kk.RemoteError)
    assert caught.value.fields.keys() == {"sku", "left", "fine"} | fields
    assert caught.value.cause == {"name": "ValueError", "message": "inner", "fine": 1}
    assert isinstance(caught.value.__cause__, ValueError)


# --- from JavaScript, and from worse --------------------------------------------------------


def recorded(folder: str, scenario: str) -> list[str]:
    lines = (RECORDINGS / folder / f"{scenario}.jsonl").read_text("utf-8").splitlines()
    return [entry["line"] for entry in map(json.loads, lines) if entry["dir"] == "s2c"]


class ValidationError(Exception):
    code: str


@pytest.mark.parametrize("folder", ["classic-json", "classic-superjson"])
async def test_an_error_of_javascripts(folder: str) -> None:
    error, plain = recorded(folder, "customError")
    async with scripted(errors=[ValidationError]) as (channel, peer):
        caught = await answered(channel, peer, error)
        assert isinstance(caught, ValidationError)
        assert isinstance(caught, kk.RemoteError)
        assert (caught.name, caught.message, caught.code) == (
            "ValidationError",
            "validation failed",
            "E_VALID",
        )
        assert caught.fields["data"] == {"field": "email", "rules": [1, "two", {"deep": True}]}
        assert "at <stack>" in (caught.remote_traceback or "")
        assert "at <stack>" in "".join(traceback.format_exception(caught))
        if folder == "classic-superjson":  # JSON makes nothing of an Error
            assert isinstance(caught.__cause__, kk.RemoteError)
            assert caught.__cause__.message == "root cause"
        else:
            assert caught.cause == {}
        caught = await answered(channel, peer, plain)
        assert isinstance(caught, ValidationError)
        assert caught.cause == {"reason": "disk full", "errno": 28}
        assert caught.__cause__ is None


async def answered(channel: kk.RPCChannel, peer: Peer, answer: Any) -> BaseException:
    """What a call raises that the peer answers so: an error, or a line whose id is replaced."""
    caught: list[BaseException] = []

    async def call() -> None:
        try:
            await channel.remote().anything()
        except Exception as exc:
            caught.append(exc)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        asked = await peer.next()
        id = asked.get("json", asked)["id"]  # asked in superjson, once the peer has written it
        if isinstance(answer, str):
            message = json.loads(answer)
            message.get("json", message)["id"] = id
            # Without blanks: the beginning of a superjson line is told byte by byte.
            await peer.send(json.dumps(message, separators=(",", ":")))
        else:
            await peer.send(response(id, error=answer["error"]))
    (exc,) = caught
    return exc


def nested(depth: int) -> Any:
    value: Any = {"name": "E", "message": "innermost"}
    for number in range(depth):
        value = {"name": "OutOfStock", "message": str(number), "cause": value, "sku": number}
    return value


HOSTILE: list[Any] = [
    {"name": "OutOfStock", "message": "m", "__proto__": {"sku": 1}, "__class__": "x", "__dict__": {}},
    {"name": "OutOfStock", "message": "m", "with_traceback": 1, "args": [], "__cause__": 2, "__notes__": {}},
    {"name": "OutOfStock", "message": {"toString": 1}, "stack": ["x"], "cause": [[[]]]},
    {"name": "x" * 200_000, "message": "y" * 200_000, "stack": "z" * 200_000},
    {"name": "KeyError", "message": "m", "__notes__": ["n" * 1000] * 1000},
    {"name": "StopAsyncIteration", "message": "m"},
    {"name": "CancelledError", "message": "m"},
    {"name": "GeneratorExit", "message": "m"},
    {"name": "RPCValidationError", "message": None, "issues": [[], {"path": [{"key": {}}] * 100}] * 100},
    {"name": "OSError", "message": "m", "errno": 10**30, "filename": {"a": 1}},
    {"name": "ExceptionGroup", "message": "m", "exceptions": [nested(3)] * 3},
    nested(100),
    {"name": 5, "message": 6},
    {},
    [],
    17,
    True,
    "Method path \u0000 not found at \ud800",
    {f"field {n}": n for n in range(5000)},
]


@pytest.mark.parametrize("error", HOSTILE, ids=lambda error: repr(error)[:40])
async def test_whatever_a_peer_calls_an_error_is_raised_shown_and_sent_on(error: Any) -> None:
    async with scripted(errors=CLASSES) as (channel, peer):
        caught = await answered(channel, peer, {"error": error})
        assert isinstance(caught, kk.KkrpcError)
        assert "".join(traceback.format_exception(caught))
        # The stream of another call ends in the same.
        values: list[Any] = []
        ends: list[BaseException] = []

        async def read() -> None:
            try:
                async for value in channel.remote().many():
                    values.append(value)
            except Exception as exc:
                ends.append(exc)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            id = (await peer.next())["id"]
            await peer.send(opened(id), chunk(id, 1), stream_error(id, error))
        assert values == [1]
        (end,) = ends
        assert type(end) is type(caught) or error in ("", [], 0)
        assert not channel.closed

    class Between:
        async def fail(self) -> None:
            raise caught

    async with linked(Between(), errors=CLASSES, tracebacks=True) as (_, client):
        with pytest.raises(kk.KkrpcError) as again:
            await client.remote().fail()
        assert type(again.value) is type(caught)
