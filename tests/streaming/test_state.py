"""Shared states: what either end shows and refuses, what goes over the wire, connections that are lost."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import kkrpc_py as kk
from kkrpc_py.limits import Limits
from tests.channel.harness import BOUND, Log, linked, until
from tests.streaming.connections import Connections
from tests.streaming.lines import Line

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def shared(
    initial: Any, *, writable: bool = True, quiet: bool = True, **options: Any
) -> AsyncIterator[tuple[kk.SharedState, kk.RemoteState]]:
    """A state, and a client that follows it."""
    hub = kk.StreamHub()
    state = hub.shared_state("s", initial=initial, writable=writable, **options)
    async with linked({"streams": hub}, quiet=quiet) as (_, client):
        async with kk.streams(client).shared_state("s") as remote:
            yield state, remote


# --- the server's end -----------------------------------------------------------------------------


async def test_the_value_is_a_copy() -> None:
    initial: dict[str, Any] = {"a": [1, (2, 3)]}
    state = kk.StreamHub().shared_state("s", initial=initial)
    initial["a"].append(4)
    assert (state.value, state.version, state.name) == ({"a": [1, [2, 3]]}, 1, "s")
    state.value["a"].clear()
    state.at("a").clear()
    assert state.value == {"a": [1, [2, 3]]}
    assert (state.at(), state.at("a", -1), state.at("a", 1, 0)) == ({"a": [1, [2, 3]]}, [2, 3], 2)
    for path, error in (("b",), KeyError), (("a", 2), IndexError), (("a", "b"), TypeError):
        with pytest.raises(error):
            state.at(*path)


async def test_a_change_makes_a_version() -> None:
    state = kk.StreamHub().shared_state("s", initial={"a": 1})
    seen: list[Any] = []
    forget = state.on_change(lambda change: seen.append((change.version, change.patch, change.value)))
    with state.mutate() as draft:
        draft["b"] = (1, 2)
        assert state.value == {"a": 1}
    assert (state.version, state.value) == (2, {"a": 1, "b": [1, 2]})
    with state.mutate() as draft:
        draft["a"] = True
        kept = draft["c"] = []
    kept.append("later")
    assert state.value == {"a": True, "b": [1, 2], "c": []}
    assert seen[0] == (2, [{"op": "add", "path": "/b", "value": [1, 2]}], {"a": 1, "b": [1, 2]})
    assert seen[1][2]["a"] is True
    forget()
    forget()
    assert state.set([1]) == 4
    assert (state.value, len(seen)) == ([1], 2)


async def test_what_changes_nothing_makes_no_version() -> None:
    state = kk.StreamHub().shared_state("s", initial={"a": 1, "b": [2]})
    state.on_change(lambda change: pytest.fail("told of no change"))
    with state.mutate() as draft:
        draft["b"] = (2,)
        draft["a"] = draft.pop("a")
    with state.mutate():
        pass
    with pytest.raises(KeyError), state.mutate() as draft:
        draft["a"] = 5
        raise KeyError
    assert state.set({"b": [2], "a": 1}) == 1
    assert (state.version, state.value) == (1, {"a": 1, "b": [2]})


@pytest.mark.parametrize("value", [None, 5, "text", True])
async def test_a_value_that_no_block_can_change_is_set(value: Any) -> None:
    state = kk.StreamHub().shared_state("s", initial=value)
    with pytest.raises(TypeError, match="set"), state.mutate():
        pytest.fail("the block was entered")
    assert state.set({"a": value}) == 2
    with state.mutate() as draft:
        draft["a"] = 6
    assert state.value == {"a": 6}


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (float("nan"), "value['a'][1]"),
        (2**53, "value['a'][1]"),
        ({1: 2}, "value['a'][1]"),
        (b"", "value['a'][1]"),
        ("\ud800", "value['a'][1]"),
        ({"type": "Uint8Array", "data": [1]}, "value['a'][1]"),
        ({"x": {1}}, "value['a'][1]['x']"),
    ],
)
async def test_what_json_has_not_is_refused(value: Any, path: str) -> None:
    hub = kk.StreamHub()
    state = hub.shared_state("s", initial={"a": [1]})
    with pytest.raises(kk.NotSerializable) as caught, state.mutate() as draft:
        draft["a"].append(value)
    assert caught.value.path == path
    with pytest.raises(kk.NotSerializable):
        state.set(value)
    with pytest.raises(kk.NotSerializable):
        hub.shared_state("other", initial=value)
    assert (state.value, state.version, hub.names()) == ({"a": [1]}, 1, ["s"])


async def test_a_state_is_bounded_by_a_frame() -> None:
    state = kk.StreamHub(limits=Limits(frame=8192)).shared_state("s", initial=[], writable=True)
    with pytest.raises(kk.LimitExceeded), state.mutate() as draft:
        draft.append("x" * 8000)
    for _ in range(7):
        state.mutate_for_peer(state.version, [{"op": "add", "path": "/-", "value": "x" * 1000}])
    with pytest.raises(kk.LimitExceeded):
        state.mutate_for_peer(state.version, [{"op": "add", "path": "/-", "value": "x" * 1000}])
    with pytest.raises(ValueError, match="too much"):
        state.mutate_for_peer(state.version, [{"op": "copy", "path": "/-", "from": ""}] * 20)
    assert (state.version, len(state.value)) == (8, 7)


async def test_blocks_that_overlap_both_count_or_one_is_told() -> None:
    state = kk.StreamHub().shared_state("s", initial={"a": {"x": 1}, "log": []})
    with state.mutate() as outer:
        outer["a"]["x"] = 2
        outer["log"].append("outer")
        with state.mutate() as inner:
            inner["a"]["y"] = 3
            inner["log"].append("inner")
        assert state.version == 2
    assert (state.version, state.value) == (3, {"a": {"x": 2, "y": 3}, "log": ["inner", "outer"]})
    with pytest.raises(kk.StateConflict) as caught, state.mutate() as outer:
        outer["a"]["x"] = 4
        with state.mutate() as inner:
            del inner["a"]
    assert (caught.value.version, state.version, state.value["log"]) == (4, 4, ["inner", "outer"])


async def test_who_is_behind_the_window_is_told() -> None:
    state = kk.StreamHub().shared_state("s", initial={}, replay_window=2, writable=True)
    for key in "abc":
        state.set(state.value | {key: 1})
    patch = [{"op": "add", "path": "/x", "value": 1}]
    with pytest.raises(kk.StateConflict) as caught:
        state.mutate_for_peer(1, patch)
    assert caught.value.version == 4
    assert state.mutate_for_peer(2, patch) == 5
    with pytest.raises(kk.StateConflict):
        state.mutate_for_peer(6, [{"op": "add", "path": "/y", "value": 1}])


async def test_callbacks_are_told_in_order_and_may_fail_or_change_the_state(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = kk.StreamHub().shared_state("s", initial={"n": 0})
    first: list[int] = []
    second: list[int] = []

    def more(change: kk.StateChange) -> None:
        first.append(change.version)
        if change.value["n"] < 3:
            with state.mutate() as draft:
                draft["n"] += 1
        raise RuntimeError("in a callback")

    state.on_change(more)
    state.on_change(lambda change: second.append(change.value["n"]))
    with caplog.at_level(logging.CRITICAL, "kkrpc_py"):
        state.set({"n": 1})
    assert (first, second, state.version) == ([2, 3, 4], [1, 2, 3], 4)


async def test_a_closed_state_keeps_its_value_and_gives_its_name_back() -> None:
    hub = kk.StreamHub()
    state = hub.shared_state("s", initial={"a": 1}, writable=True)
    with pytest.raises(kk.StreamClosed), state.mutate() as draft:
        draft["a"] = 2
        state.close()
    assert (state.closed, state.value) == (True, {"a": 1})
    with pytest.raises(kk.StreamClosed):
        state.set(1)
    with pytest.raises(kk.StreamClosed), state.mutate():
        pytest.fail("the block was entered")
    assert hub.names() == []
    hub.shared_state("s", initial=2)


def test_a_state_may_be_made_and_changed_before_there_is_a_loop() -> None:
    state = kk.StreamHub().shared_state("s", initial={"a": 1})
    with state.mutate() as draft:
        draft["a"] = 2
    assert (state.set({"a": 3}), state.value) == (3, {"a": 3})
    state.close()


async def test_a_handler_on_a_thread_is_told() -> None:
    hub = kk.StreamHub()
    state = hub.shared_state("s", initial={"a": 1})

    class App:
        def change(self) -> None:
            with state.mutate() as draft:
                draft["a"] = 2

        def put(self) -> None:
            state.set(5)

        @kk.inline
        def change_inline(self) -> None:
            self.change()

    async with linked({"app": App(), "streams": hub}) as (_, client):
        app = client.remote().app
        for call in (app.change, app.put):
            with pytest.raises(kk.RemoteError, match="thread"):
                await call()
        assert (state.version, state.value) == (1, {"a": 1})
        await app.change_inline()
        assert (state.version, state.value) == (2, {"a": 2})


# --- the wire -------------------------------------------------------------------------------------


async def test_what_goes_over_the_wire() -> None:
    hub = kk.StreamHub()
    state = hub.shared_state("s", initial={"a": 1}, writable=True)
    async with linked({"streams": hub}, hello=False, quiet=False) as (_, client):
        api = client.remote().streams

        async def begin(**options: Any) -> list[Any]:
            stream = await api.subscribe("s", "state", options)
            chunks: list[Any] = []
            async for chunk in stream:
                chunks.append(chunk)
                if type(chunk) is list and chunk[0] == state.version:
                    break
            return chunks

        mark, chunk = await begin()
        assert (mark["next"], chunk) == (1, [1, {"value": {"a": 1}}])
        assert await api.mutate("s", 1, [{"op": "replace", "path": "/a", "value": 2, "x": 0}]) == 2
        assert await api.mutate("s", 1, []) == 2
        assert await api.mutate("s", 2, [{"op": "test", "path": "/a", "value": 2}]) == 2
        patch = [2, {"patch": [{"op": "replace", "path": "/a", "value": 2}]}]
        assert await begin(after=1, epoch=mark["epoch"]) == [{"next": 2, "epoch": mark["epoch"]}, patch]
        snapshot = [{"next": 2, "epoch": mark["epoch"]}, [2, {"value": {"a": 2}}]]
        for options in ({}, {"after": 0}, {"after": None}, {"after": 1, "epoch": "other"}, {"after": 3}):
            assert await begin(**options) == snapshot
        assert await begin(overflow="block") == snapshot
        stream = await api.subscribe("s", "state", {"after": 2, "epoch": mark["epoch"]})
        assert await anext(stream) == {"next": 3, "epoch": mark["epoch"]}
        await stream.cancel()


@pytest.mark.parametrize("version", [True, 1.5, "1", None, 0, -1])
async def test_a_version_is_an_integer_from_1(version: Any) -> None:
    state = kk.StreamHub().shared_state("s", initial={}, writable=True)
    with pytest.raises(ValueError, match="version"):
        state.mutate_for_peer(version, [])


async def test_a_client_is_refused_in_this_order() -> None:
    hub = kk.StreamHub()
    asked: list[str] = []

    def may(request: kk.StreamRequest) -> bool:
        asked.append(f"{request.action} {request.name} {request.id}")
        return request.name == "s" or (request.name == "seen" and request.action == "subscribe")

    state = hub.shared_state("s", initial={"a": 1}, authorize=may)
    for name in ("hidden", "seen"):
        hub.shared_state(name, initial=1, writable=True, authorize=may)
    hub.create("stream").start("state")
    bad = [{"op": "remove", "path": "/b"}]
    async with linked({"streams": hub}) as (_, client):
        api = client.remote().streams
        for name in ("nothing", "stream", "hidden"):
            with pytest.raises(kk.UnknownStream):
                await api.mutate(name, 1, bad)
        for name in ("nothing", "hidden"):
            with pytest.raises(kk.UnknownStream):
                async with kk.streams(client).shared_state(name):
                    pytest.fail("there is a state")
        for name in ("s", "seen"):
            with pytest.raises(PermissionError):
                await api.mutate(name, 1, bad)
        state.writable = True
        with pytest.raises(ValueError, match="no operation|operation 0"):
            await api.mutate("s", 9, [1])
        with pytest.raises(kk.StateConflict) as conflict:
            await api.mutate("s", 9, bad)
        assert conflict.value.version == 1
        for patch in (bad, [{"op": "add", "path": "/b", "value": {"type": "Uint8Array", "data": [1]}}]):
            with pytest.raises(ValueError, match="nothing at|bytes"):
                await api.mutate("s", 1, patch)
        pieces = [("/b", {"type": "Uint8Array"}), ("/b/data", [1])]
        with pytest.raises(ValueError, match="bytes"):
            await api.mutate("s", 1, [{"op": "add", "path": path, "value": value} for path, value in pieces])
        # Nor for a moment: it would be sent to those who follow.
        with pytest.raises(ValueError, match="bytes"):
            both = ({"type": "Uint8Array", "data": [1]}, 1)
            await api.mutate("s", 1, [{"op": "add", "path": "/b", "value": value} for value in both])
        assert (state.version, state.value) == (1, {"a": 1})
    assert "mutate s state" in asked


# --- the client's end -----------------------------------------------------------------------------


async def test_a_client_follows_and_changes() -> None:
    async with shared({"log": []}) as (state, remote):
        changes: list[Any] = []
        remote.on_change(lambda change: changes.append((change.version, change.patch, change.value)))
        assert (remote.value, remote.version, remote.closed) == ({"log": []}, 1, False)
        with state.mutate() as draft:
            draft["log"].append("server")
        await remote.wait_version(2)
        assert changes == [(2, [{"op": "add", "path": "/log/-", "value": "server"}], {"log": ["server"]})]
        async with remote.mutate() as draft:
            draft["log"].append("client")
            draft["t"] = (1.0, True)
        # It is here, not only there.
        assert (remote.version, remote.at("log", -1)) == (3, "client")
        assert json.dumps(remote.value) == json.dumps(state.value)
        async with remote.mutate():
            pass
        with pytest.raises(KeyError):
            async with remote.mutate() as draft:
                draft.clear()
                raise KeyError
        assert state.version == 3
        await remote.set(5)
        assert (state.value, remote.value, remote.version) == (5, 5, 4)
        await remote.set(5)
        with pytest.raises(TypeError, match="set"):
            async with remote.mutate():
                pytest.fail("the block was entered")
        assert await remote.until(lambda value: value == 5) == 5
        with pytest.raises(kk.NotSerializable) as caught:
            await remote.set([float("nan")])
        assert (caught.value.path, state.version) == ("value[0]", 4)


async def test_the_loser_is_told_and_may_try_again() -> None:
    async with shared({"a": 1, "b": {"c": 1}, "log": []}) as (state, remote):
        async with remote.mutate() as draft:
            draft["a"] = 2
            draft["log"].append("second")
            with state.mutate() as other:
                other["b"]["c"] = 2
                other["log"].append("first")
        assert remote.value == state.value == {"a": 2, "b": {"c": 2}, "log": ["first", "second"]}
        with pytest.raises(kk.StateConflict) as caught:
            async with remote.mutate() as draft:
                draft["b"] = {}
                with state.mutate() as other:
                    other["b"]["c"] = 3
        assert (caught.value.version, state.version) == (4, 4)
        # Also where the other change is here before the block ends: the draft does not have it.
        with pytest.raises(kk.StateConflict):
            async with remote.mutate() as draft:
                draft["a"] += 1
                state.set(state.value | {"a": 5})
                await remote.wait_version(5)
        assert remote.value == state.value
        async with remote.mutate() as draft:
            draft["b"] = {}
        assert state.value == {"a": 5, "b": {}, "log": ["first", "second"]}
        state.set(state.value | {"new": 1})
        with pytest.raises(kk.StateConflict):
            await remote.set(1)
        assert state.at("new") == 1


async def test_who_may_not_change_it_is_told() -> None:
    async with shared({"a": 1}, writable=False) as (state, remote):
        with pytest.raises(PermissionError):
            async with remote.mutate() as draft:
                draft["a"] = 2
        assert (remote.value, state.version) == ({"a": 1}, 1)


async def test_it_ends_with_the_server_s_state() -> None:
    async with shared({"a": 1}) as (state, remote):
        waits = Log()

        async def wait(what: str, wait_for: Any) -> None:
            with pytest.raises(kk.StreamClosed, match="closed"):
                await wait_for
            waits(what)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, "version", remote.wait_version(5))
            tasks.start_soon(wait, "until", remote.until(lambda value: value == 5))
            state.set({"a": 2})
            state.close()
        assert sorted(waits.entries) == ["until", "version"]
        # What was there before the end is read.
        assert (remote.closed, remote.value) == (True, {"a": 2})
        with pytest.raises(kk.StreamClosed):
            async with remote.mutate():
                pytest.fail("the block was entered")


async def test_it_ends_with_the_channel() -> None:
    hub = kk.StreamHub()
    hub.shared_state("s", initial={"a": 1}, writable=True)
    async with linked({"streams": hub}, quiet=False) as (server, client):
        async with kk.streams(client).shared_state("s") as remote:
            async with anyio.create_task_group() as tasks:

                @tasks.start_soon
                async def wait() -> None:
                    with pytest.raises(kk.ChannelClosed):
                        await remote.wait_version(2)

                await server.aclose()
            assert (remote.closed, remote.value) == (True, {"a": 1})
            with pytest.raises(kk.ChannelClosed):
                await remote.set(1)


async def test_what_leaves_the_block_is_not_wrapped() -> None:
    async with shared({}) as (_, remote):
        pass
    assert remote.closed
    with pytest.raises(kk.StreamClosed):
        await remote.wait_version(2)
    with pytest.raises(RuntimeError, match="once"):
        async with remote:
            pass
    with pytest.raises(KeyError):
        async with shared({}, quiet=False):
            raise KeyError
    with anyio.CancelScope() as scope:
        async with shared({}, quiet=False):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(RuntimeError, match="enter"):
        await kk.RemoteState(kk.streams(kk.RPCChannel(Line().ends[0])), "s").set(1)


async def test_without_the_library_there_is_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonpatch", None)
    hub = kk.StreamHub()
    with pytest.raises(ModuleNotFoundError, match=r"kkrpc-py\[state\]"):
        hub.shared_state("s", initial=1)
    assert hub.names() == []


async def test_a_client_that_is_slow_gets_the_newest() -> None:
    hub = kk.StreamHub()
    state = hub.shared_state("s", initial={"n": 0, "text": "x" * 1000})
    with anyio.fail_after(BOUND):
        line = Line()
        async with (
            kk.RPCChannel(line.ends[0], expose={"streams": hub}),
            kk.RPCChannel(line.ends[1]) as client,
        ):
            async with kk.streams(client).shared_state("s") as remote:
                versions: list[tuple[int, bool]] = []
                remote.on_change(lambda change: versions.append((change.version, change.patch is None)))
                line.stall(True)
                for n in range(1, 2001):
                    state.set({"n": n, "text": "x" * 1000})
                    if n % 100 == 0:
                        await checkpoint()
                line.stall(False)
                await remote.wait_version(2001)
                assert remote.value == state.value
                assert len(versions) < 1000
                assert versions == sorted(versions)
                assert any(snapshot for _, snapshot in versions)


async def test_many_clients_share_one_snapshot() -> None:
    hub = kk.StreamHub()
    state = hub.shared_state("s", initial={"a": 1})
    assert state._snapshot() is state._snapshot()
    first = state._snapshot()
    state.set({"a": 2})
    assert state._snapshot() is not first


async def test_over_unix_sockets(tmp_path: Path) -> None:
    hub = kk.StreamHub()
    state = hub.shared_state("s", initial={"log": []}, writable=True)
    path = tmp_path / "socket"
    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tasks:
            await tasks.start(kk.serve_unix, {"streams": hub}, path)
            async with (
                kk.connect_unix(path) as one,
                kk.connect_unix(path, codec="cbor") as two,
                kk.streams(one).shared_state("s") as first,
                kk.streams(two).shared_state("s") as second,
            ):
                for n in range(10):
                    for remote in (first, second):
                        async with remote.mutate() as draft:
                            draft["log"].append([n, 0.5, "é"])
                await first.wait_version(state.version)
                await second.wait_version(state.version)
                assert first.value == second.value == state.value
                assert len(state.at("log")) == 20
            tasks.cancel_scope.cancel()


# --- connections that come back -------------------------------------------------------------------


async def test_it_goes_on_over_the_next_connection() -> None:
    hub = kk.StreamHub()
    state = hub.shared_state("s", initial={"n": 0}, writable=True, replay_window=4)
    connections = Connections({"streams": hub})
    with anyio.fail_after(BOUND):
        async with connections.link() as link, kk.streams(link).shared_state("s") as remote:
            changes: list[tuple[int, bool]] = []
            remote.on_change(lambda change: changes.append((change.version, change.patch is None)))
            # Nothing missed, a few changes missed, more than the server keeps.
            for missed in (0, 3, 9):
                before, lost = state.version, link.channel
                connections.allowed = False
                await connections.cut()
                await until(lambda: link.state != "connected")
                with pytest.raises(kk.ChannelClosed):
                    await remote.set({})
                for _ in range(missed):
                    state.set({"n": state.version})
                connections.allowed = True
                changes.clear()
                await link.connected(after=lost)
                await remote.wait_version(state.version)
                expected = [(before + n + 1, False) for n in range(missed)]
                assert changes == (expected if missed < 5 else [(state.version, True)])
                async with remote.mutate() as draft:
                    draft["n"] = "client"
                assert remote.value == state.value == {"n": "client"}
        assert remote.closed


async def test_what_was_under_way_fails_and_is_not_repeated() -> None:
    asked: list[Any] = []
    forever = anyio.Event()

    async def authorize(request: kk.StreamRequest) -> bool:
        if request.action == "mutate":
            asked.append(request.channel)
            await forever.wait()
        return True

    hub = kk.StreamHub()
    state = hub.shared_state("s", initial={}, writable=True, authorize=authorize)
    connections = Connections({"streams": hub})
    with anyio.fail_after(BOUND):
        async with connections.link() as link, kk.streams(link).shared_state("s") as remote:
            async with anyio.create_task_group() as tasks:

                @tasks.start_soon
                async def change() -> None:
                    with pytest.raises(kk.ChannelClosed):
                        async with remote.mutate() as draft:
                            draft["a"] = 1

                await until(lambda: len(asked) == 1)
                await connections.cut()
            state.set({"b": 1})
            await remote.until(lambda value: value == {"b": 1})
            assert (len(asked), state.version) == (1, 2)


async def test_a_state_that_is_closed_while_it_is_asked_who_may_is_unknown() -> None:
    def authorize(request: kk.StreamRequest) -> bool:
        if request.action == "mutate":
            state.close()
        return True

    hub = kk.StreamHub()
    state = hub.shared_state("s", initial={}, writable=True, authorize=authorize)
    with anyio.fail_after(BOUND):
        async with kk.memory_pair({"streams": hub}) as (_, client):
            with pytest.raises(kk.UnknownStream):
                await client.remote().streams.mutate("s", 1, [{"op": "add", "path": "/a", "value": 1}])
    assert (state.value, state.version) == ({}, 1)


async def test_a_server_that_begins_anew_is_followed_from_its_beginning() -> None:
    hub = kk.StreamHub()
    state = hub.shared_state("s", initial={"n": 0}, writable=True)
    for n in range(5):
        state.set({"n": n + 1})
    connections = Connections({"streams": hub})
    with anyio.fail_after(BOUND):
        async with connections.link() as link, kk.streams(link).shared_state("s") as remote:
            other = kk.StreamHub()
            newer = other.shared_state("s", initial={"n": "new"}, writable=True)
            connections.api = {"streams": other}

            async with anyio.create_task_group() as tasks:

                @tasks.start_soon
                async def wait() -> None:
                    with pytest.raises(kk.ChannelClosed, match="anew"):
                        await remote.wait_version(7)

                await anyio.wait_all_tasks_blocked()
                with pytest.raises(kk.StateConflict, match="anew"):
                    async with remote.mutate() as draft:
                        draft["n"] = "of the former"
                        await connections.cut()
                        await remote.until(lambda value: value == {"n": "new"})
            assert (remote.version, newer.version) == (1, 1)
            async with remote.mutate() as draft:
                draft["n"] = 1
            assert (newer.value, state.version) == ({"n": 1}, 6)


async def test_a_change_is_not_sent_before_it_is_known_to_whom() -> None:
    """The connection is there, and it is not yet known whether the server is the same: a change waits."""
    hub, other = kk.StreamHub(), kk.StreamHub()
    hub.shared_state("s", initial={"n": 0}, writable=True)
    asked: list[str] = []
    known = anyio.Event()

    async def authorize(request: kk.StreamRequest) -> bool:
        asked.append(request.action)
        await known.wait()
        return True

    newer = other.shared_state("s", initial={"n": 0}, writable=True, authorize=authorize)
    connections = Connections({"streams": hub})
    with anyio.fail_after(BOUND):
        async with connections.link() as link, kk.streams(link).shared_state("s") as remote:
            for same_server in (True, False):
                connections.api = {"streams": hub if same_server else other}
                lost = link.channel
                await connections.cut()
                await link.connected(after=lost)
                if same_server:
                    await remote.set({"n": 1})
                    continue
                async with anyio.create_task_group() as tasks:

                    @tasks.start_soon
                    async def change() -> None:
                        with pytest.raises(kk.StateConflict, match="anew"):
                            await remote.set({"n": 2})

                    await until(lambda: bool(asked))
                    await anyio.wait_all_tasks_blocked()
                    assert asked == ["subscribe"]
                    known.set()
            assert (remote.value, newer.version) == ({"n": 0}, 1)


# --- servers that do it wrong ---------------------------------------------------------------------


class Scripted:
    """A hub whose subscriptions are given: each a list of what it sends after its mark.

    The last one is given again and again. A text among the chunks is the epoch of that subscription.
    """

    def __init__(self, *subscriptions: list[Any], answer: Any = None) -> None:
        self.left = list(subscriptions)
        self.options: list[Any] = []
        self.answer = answer

    async def subscribe(self, name: str, id: str, options: Any) -> Any:
        self.options.append((options.get("after", 0), options.get("epoch")))
        chunks = self.left.pop(0) if len(self.left) > 1 else self.left[0]

        epoch, chunks = (chunks[0], chunks[1:]) if isinstance(chunks[0], str) else ("e", chunks)

        async def stream() -> AsyncIterator[Any]:
            yield {"next": chunks[0][0], "epoch": epoch}
            for chunk in chunks:
                yield chunk
            await anyio.sleep_forever()

        return stream()

    async def mutate(self, name: str, version: int, patch: Any) -> Any:
        return self.answer


GOOD = [3, {"value": {"n": 3}}]


@pytest.mark.parametrize(
    "lost",
    [
        [5, {"patch": []}],
        [4, {"patch": [{"op": "remove", "path": "/x"}]}],
        [4, {"patch": "none"}],
        [4, {"patch": [{"op": "add", "path": "/x" * 1000, "value": 1}]}],
        [4, {"neither": 1}],
        [4, {"value": {"n": float("nan")}}],
        [4, {"value": {1, 2}}],
        [4, {"value": 2**53}],
        [4, {"patch": [{"op": "add", "path": "/x", "value": b"bytes"}]}],
        [4, None],
        [4, [1]],
    ],
)
async def test_a_lost_patch_leads_to_another_subscription(lost: Any) -> None:
    server = Scripted([GOOD, lost, [6, {"value": "never read"}]], [[7, {"value": {"n": 7}}]])
    async with linked({"streams": server}, quiet=False) as (_, client):
        async with kk.streams(client).shared_state("s") as remote:
            changes: list[int] = []
            remote.on_change(lambda change: changes.append(change.version))
            await remote.wait_version(7)
            assert (remote.value, changes, server.options) == ({"n": 7}, [7], [(0, None), (0, None)])
            assert not remote.closed


async def test_a_snapshot_of_what_is_here_is_no_change() -> None:
    server = Scripted([GOOD, [5, {"patch": []}]], [GOOD, [4, {"value": 4}]])
    async with linked({"streams": server}, quiet=False) as (_, client):
        async with kk.streams(client).shared_state("s") as remote:
            changes: list[int] = []
            remote.on_change(lambda change: changes.append(change.version))
            await remote.wait_version(4)
            assert changes == [4]


async def test_a_patch_of_another_epoch_is_a_lost_one() -> None:
    server = Scripted([GOOD], ["f", [4, {"patch": []}]], ["f", [4, {"value": {"n": "f"}}]])
    connections = Connections({"streams": server})
    with anyio.fail_after(BOUND):
        async with connections.link() as link, kk.streams(link).shared_state("s") as remote:
            await connections.cut()
            await remote.until(lambda value: value["n"] == "f")
            assert (remote.version, server.options) == (4, [(0, None), (3, "e"), (0, None)])


async def test_a_snapshot_is_taken_whatever_there_was() -> None:
    chunks = [GOOD, [4, {"patch": [], "more": 1}], [6, {"value": 6, "patch": []}], [7, {"value": 6}]]
    async with linked({"streams": Scripted(chunks)}, quiet=False) as (_, client):
        async with kk.streams(client).shared_state("s") as remote:
            await remote.wait_version(7)
            assert remote.value == 6


@pytest.mark.parametrize("chunks", [[[1, {"patch": []}]], [[1, "value"]], [[1, {"value": {1: {2}}}]]])
async def test_a_server_that_sends_no_value_is_given_up(chunks: list[Any]) -> None:
    server = Scripted(chunks)
    async with linked({"streams": server}, quiet=False) as (_, client):
        with pytest.raises(kk.ProtocolError, match="no value"):
            async with kk.streams(client).shared_state("s"):
                pytest.fail("there is a value")
    assert len(server.options) < 10


@pytest.mark.parametrize("answer", [None, "4", True, 0, 4.0])
async def test_an_answer_that_is_no_version_is_an_error(answer: Any) -> None:
    async with linked({"streams": Scripted([GOOD], answer=answer)}, quiet=False) as (_, client):
        async with kk.streams(client).shared_state("s") as remote:
            with pytest.raises(kk.ProtocolError, match="no version"):
                await remote.set(1)
