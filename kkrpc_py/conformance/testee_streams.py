"""The reference testee's hub: the methods `hub.…` of spec/testee.md, which steer it on either side.

It owns what a case keeps under a key, and lets go of it at a `reset`. What goes over the wire at `streams` is
the library's.
"""

from __future__ import annotations

from typing import Any, TypeVar

import anyio
import anyio.abc

import kkrpc_py as kk
from kkrpc_py.conformance.testee_calls import Outcome, described
from kkrpc_py.conformance.testee_script import Bench, error_of

__all__ = ["Hub"]

T = TypeVar("T")

_PRODUCING = (kk.OutboundStream, kk.Upload)
_READING = (kk.StreamReader, kk.InboundReader)
_STATES = (kk.SharedState, kk.RemoteState)
_DONE: Outcome = {"result": None}


@kk.namespace
class Hub:
    """`hub`: what an application does with a hub, and with the kit's."""

    def __init__(self, bench: Bench, limits: kk.Limits) -> None:
        self._bench = bench
        self._hub = kk.StreamHub(limits=limits)
        self._kept: dict[str, Any] = {}
        self._events: dict[str, kk.EventReader] = {}
        self._letting_go: dict[str, anyio.Event] = {}
        self._channel: kk.RPCChannel | None = None
        self._tasks: anyio.abc.TaskGroup | None = None

    # For the process -----------------------------------------------------------------------

    def _attach(self, channel: kk.RPCChannel, tasks: anyio.abc.TaskGroup) -> None:
        """Expose the hub; `tasks` is where what outlives a call runs."""
        self._channel = channel
        self._tasks = tasks
        self._hub.attach(channel)

    def _reset(self) -> None:
        """Forget the keys, and close what they name."""
        for let_go in self._letting_go.values():
            let_go.set()
        for name in self._hub.names():
            channel = self._hub.get(name)
            if channel is not None:
                channel.close()
        for kept in self._kept.values():
            if isinstance(kept, _READING):
                kept.cancel()
            elif isinstance(kept, kk.Upload):
                kept.close()
        for reader in self._events.values():
            reader.close()
        self._kept, self._events, self._letting_go = {}, {}, {}

    # As the server -------------------------------------------------------------------------

    async def create(self, name: Any, options: Any = None) -> None:
        options = options or {}
        self._hub.create(
            name,
            closed_stream_retention=options.get("retention", 30.0),
            **_picked(options, "replay_window"),
            **_allowing(options),
        )

    async def drop(self, name: Any) -> None:
        self._named(name).close()

    async def ids(self, name: Any) -> list[str]:
        return self._named(name).ids()

    async def start(self, key: Any, name: Any, id: Any = None) -> str:
        self._kept[key] = stream = self._named(name).start(id)
        return stream.id

    async def inbound(self, key: Any, name: Any, options: Any = None) -> str:
        options = options or {}
        channel, asked = self._named(name), _picked(options, "high_water_mark")
        if options.get("elsewhere"):
            return await self._elsewhere(key, channel, asked)
        self._kept[key] = reader = channel.open_inbound(**asked)
        return reader.id

    async def _elsewhere(self, key: str, channel: kk.StreamChannel, asked: dict[str, Any]) -> str:
        """Open it for another session: one that the testee has with itself, until `reset`."""

        async def open_inbound() -> str:
            self._kept[key] = reader = channel.open_inbound(**asked)
            return reader.id

        session = kk.memory_pair({"open_inbound": open_inbound}, hello=False)
        _, other = await self._hold(f"the session of {key}", session)
        id: str = await other.remote().open_inbound()
        return id

    async def state(self, key: Any, name: Any, initial: Any, options: Any = None) -> None:
        options = options or {}
        self._kept[key] = self._hub.shared_state(
            name, initial=initial, **_picked(options, "writable", "replay_window"), **_allowing(options)
        )

    async def broadcast(self, event: Any, args: Any) -> int:
        return self._hub.broadcast(event, *args)

    # As a client ---------------------------------------------------------------------------

    async def subscribe(self, key: Any, name: Any, id: Any, options: Any = None) -> Outcome:
        asked = _picked(options or {}, "after", "high_water_mark", "overflow")
        reader = kk.streams(self._open).subscribe(name, id, **asked)
        try:
            with self._bench.running():
                await reader.__aenter__()  # and it is left by `cancel`, in a call of its own
        except kk.KkrpcError as exc:
            return {"error": described(exc)}
        self._kept[key] = reader
        return _DONE

    async def upload(self, key: Any, name: Any, id: Any) -> Outcome:
        self._kept[key] = kk.streams(self._open).upload(name, id)
        return _DONE

    async def watch(self, key: Any, name: Any) -> Outcome:
        try:
            with self._bench.running():
                self._kept[key] = await self._hold(key, kk.streams(self._open).shared_state(name))
        except kk.KkrpcError as exc:
            return {"error": described(exc)}
        return _DONE

    async def emit(self, event: Any, args: Any) -> None:
        kk.events(self._open).emit(event, *args)

    async def listen(self, event: Any, options: Any = None) -> None:
        asked = _picked(options or {}, "high_water_mark")
        self._events[event] = kk.events(self._open).on(event, **asked)

    async def heard(self, event: Any, n: Any) -> list[Any]:
        with self._bench.running():
            return [list((await anext(self._events[event])).args) for _ in range(n)]

    # By key --------------------------------------------------------------------------------

    async def write(self, key: Any, values: Any) -> None:
        producing = self._get(key, _PRODUCING)
        for value in values:
            producing.write(value)

    async def send(self, key: Any, value: Any) -> None:
        with self._bench.running():
            await self._get(key, _PRODUCING).send(value)

    async def error(self, key: Any, error: Any) -> None:
        self._get(key, _PRODUCING).error(error_of(error))

    async def close(self, key: Any) -> None:
        self._get(key, _PRODUCING).close()

    async def status(self, key: Any) -> dict[str, bool]:
        producing = self._get(key, _PRODUCING)
        return {"signal": producing.signal.cancelled, "closed": producing.closed}

    async def read(self, key: Any, n: Any) -> dict[str, Any]:
        reader = self._get(key, _READING)
        values: list[Any] = []
        end: Outcome | None = None
        try:
            with self._bench.running():
                while len(values) < n:
                    values.append(await reader.receive())
        except anyio.EndOfStream:
            end = _DONE
        except (kk.KkrpcError, anyio.ClosedResourceError) as exc:
            end = {"error": described(exc)}
        return {"values": values, "end": end}

    async def seen(self, key: Any) -> dict[str, Any]:
        reader = self._get(key, kk.StreamReader)
        gaps = [[gap.first, gap.last] for gap in reader.gaps]
        return {"gaps": gaps, "dropped": reader.dropped, "last": reader.last_seq}

    async def cancel(self, key: Any) -> None:
        kept = self._get(key, (*_READING, kk.RemoteState))
        if isinstance(kept, kk.StreamReader):
            with self._bench.running():
                await kept.aclose()
        elif isinstance(kept, kk.InboundReader):
            kept.cancel()
        else:
            self._letting_go.pop(key).set()

    async def change(self, key: Any, patch: Any) -> Outcome:
        state = self._get(key, _STATES)
        try:
            with self._bench.running():
                if isinstance(state, kk.SharedState):
                    with state.mutate() as draft:
                        _do(draft, patch)
                else:
                    async with state.mutate() as draft:
                        _do(draft, patch)
        except kk.KkrpcError as exc:
            return {"error": described(exc)}
        return {"result": state.version}

    async def value(self, key: Any) -> dict[str, Any]:
        state = self._get(key, _STATES)
        return {"version": state.version, "value": state.value}

    # Within --------------------------------------------------------------------------------

    @property
    def _open(self) -> kk.RPCChannel:
        assert self._channel is not None
        return self._channel

    def _named(self, name: str) -> kk.StreamChannel:
        channel = self._hub.get(name)
        if channel is None:
            raise ValueError(f"there is no channel {name!r}")
        return channel

    def _get(self, key: str, kind: Any) -> Any:
        kept = self._kept.get(key)
        if not isinstance(kept, kind):
            raise ValueError(f"nothing of that kind is kept under {key!r}")
        return kept

    async def _hold(self, key: str, manager: Any) -> Any:
        """Enter the block of `manager` in a task of its own, which leaves it when the key is let go of."""
        assert self._tasks is not None
        return await self._tasks.start(self._holding, key, manager)

    async def _holding(self, key: str, manager: Any, *, task_status: anyio.abc.TaskStatus[Any]) -> None:
        let_go = anyio.Event()
        async with manager as held:
            self._letting_go[key] = let_go
            task_status.started(held)
            await let_go.wait()


def _picked(options: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}


def _allowing(options: dict[str, Any]) -> dict[str, Any]:
    """What `authorize` is where `allow` was given."""
    if "allow" not in options:
        return {}
    allowed = options["allow"]
    return {"authorize": lambda request: request.action in allowed}


def _do(draft: Any, patch: list[dict[str, Any]]) -> None:
    """Change the draft as these operations say, and as an application would do it."""
    for operation in patch:
        *path, last = (
            each.replace("~1", "/").replace("~0", "~") for each in operation["path"].split("/")[1:]
        )
        place: Any = draft
        for segment in path:
            place = place[int(segment) if isinstance(place, list) else segment]
        key: Any = last
        if isinstance(place, list):
            key = len(place) if last == "-" else int(last)
        match operation:
            case {"op": "remove"}:
                del place[key]
            case {"op": "add", "value": value} if isinstance(place, list):
                place.insert(key, value)
            case {"op": "add" | "replace", "value": value}:
                place[key] = value
            case _:
                raise ValueError(f"no change of an application's: {operation!r}")
