"""A hub, its clients and their readers, driven by a schedule, and the model that says what each must get.

Every value has its number in the model, and every reader accounts for each number: it was delivered, or
reported as a gap, or counted as dropped. This module owns no test.
"""

from __future__ import annotations

import contextlib
import math
import socket
import tempfile
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

import kkrpc_py as kk
from kkrpc_py.transports.sockets import SocketByteStream
from tests.channel.harness import BOUND, assert_quiet, until
from tests.streaming.lines import Line
from tests.streaming.schedules import Action

GRACE = 100 * BOUND
"""Seconds of grace that never end within a test."""


class Stream:
    """One stream, and the model of it."""

    def __init__(self, world: World, real: kk.OutboundStream[Any]) -> None:
        self.real = real
        self.values: list[Any] = []
        """Those that were written; the first one has the number 1."""
        self.end: str | None = None
        self.subscribed = False
        self.early: list[str] = []
        """Readers that were there when the signal was set."""
        real.signal.on_cancel(
            lambda: self.early.extend(str(each) for each in world.readings if each.is_there(self))
        )

    @property
    def newest(self) -> int:
        return len(self.values)

    def write(self, value: Any) -> None:
        self.real.write(value)
        self.values.append(value)

    async def send(self, value: Any) -> None:
        await self.real.send(value)
        self.values.append(value)

    def finish(self, how: str) -> None:
        if self.end is None:
            self.end = how
            if how == "error":
                self.real.error(ValueError("boom"))
            else:
                self.real.close()


class Reading:
    """One reader, the task that reads it, and the account of what it got."""

    def __init__(self, world: World, source: Any, options: dict[str, Any], mode: str, permits: float) -> None:
        self.world = world
        self.source = source
        self.options = options
        self.mode = mode
        self.permits = permits
        """Values that it may read before it waits for more permits."""
        self.reader = kk.streams(source).subscribe("name", "id", **options)
        self.outcome: str | None = None
        self.scope = anyio.CancelScope()
        self._one: anyio.CancelScope | None = None
        """The wait for the next value, where that is by `receive`: the reader outlives its cancellation."""
        self.leaving = False
        self.may_leave = options["overflow"] == "error" or options["on_gap"] == "error"
        """Its subscription may end before the stream does, without the loss of the connection."""
        self._permitted = anyio.Event()
        self._place: int | None = options["after"]
        """All numbers up to this one are accounted for; None: it is not known where it began."""
        self._least = world.stream, world.stream.newest
        """Where it is not known where it began: not before this."""
        self._gaps = self._dropped = 0
        self._most_dropped = self._last_gap = 0

    def __str__(self) -> str:
        return f"{self.mode} {self.options} at {self._place}: {self.outcome}, {self.reader!r}"

    # Its task --------------------------------------------------------------------------------

    async def run(self) -> None:
        try:
            with self.scope:
                self.outcome = await getattr(self, f"_{self.mode}")()
            if self.outcome is None:
                self.outcome = "stopped"
                if self.mode == "receive":  # who waited for one value may ask for the next
                    self.reader.cancel()
        except kk.ChannelClosed:
            self.outcome = "lost"
        except kk.StreamOverflow:
            self.outcome = "overflow"
        except kk.StreamGap:
            self.outcome = "gap"
        except kk.UnknownStream:
            self.outcome = "unknown"
        except (kk.CallCancelled, anyio.ClosedResourceError):
            self.outcome = "cancelled"
        except kk.RemoteError as error:
            assert (error.name, error.message) == ("ValueError", "boom")
            self.outcome = "error"
        self._count_gaps()

    async def _iterate(self) -> str:
        await self._gate()
        async for value in self.reader:
            self._got(value)
            if self.leaving:
                return "left"
            await self._gate()
        return "end"

    async def _enter(self) -> str:
        await self._gate()
        async with self.reader:
            return await self._iterate()

    async def _receive(self) -> str:
        while True:
            await self._gate()
            if self.leaving:
                await self.reader.aclose()
                return "left"
            try:
                with anyio.CancelScope() as self._one:
                    self._got(await self.reader.receive())
            except anyio.EndOfStream:
                return "end"
            except kk.StreamGap as error:
                gap = self.reader.gaps[-1]
                assert (error.first, error.last) == (gap.first, gap.last)

    async def _gate(self) -> None:
        while self.permits < 1:
            await self._permitted.wait()
        self.permits -= 1

    def permit(self, count: float) -> None:
        self.permits += count
        permitted, self._permitted = self._permitted, anyio.Event()
        permitted.set()

    def cancel(self, how: str) -> None:
        if how == "interrupt":
            if self._one is not None:
                self._one.cancel()
            return
        self.may_leave = True
        match how:
            case "cancel":
                self.reader.cancel()
            case "stop":
                self.scope.cancel()
            case _:
                self.leaving = True
        self.permit(1)

    def is_there(self, stream: Stream) -> bool:
        """It has begun to read `stream` and wants more, and nothing has happened to its connection."""
        follower = self.reader.follower
        receiver = follower._receiver
        return (
            self.outcome is None
            and receiver is not None
            and follower.marked
            and follower.epoch == stream.real.epoch
            and not (follower.cancelled or receiver.cancelled or receiver.abandoned or receiver.ended)
            and self.options["overflow"] != "error"  # it may have ended, and not know it
            and not self.world.is_cut(follower.channel)
        )

    # Its account -----------------------------------------------------------------------------

    @property
    def stream(self) -> Stream:
        """What it reads, or has read last."""
        (found,) = (each for each in self.world.streams if each.real.epoch == self.reader.epoch)
        return found

    def _got(self, value: Any) -> None:
        number = self.reader.last_seq
        self._count_gaps()
        dropped, self._dropped = self.reader.dropped - self._dropped, self.reader.dropped
        self._begin(number - 1 - dropped)
        assert number == self._place + dropped + 1
        assert value == self.stream.values[number - 1]
        if dropped:
            self._most_dropped = number - 1
        self._place = number

    def _begin(self, place: int) -> None:
        """Where it began, if that was not known yet."""
        if self._place is None:
            stream, newest = self._least
            assert stream is not self.stream or place >= newest
            self._place = place

    def _count_gaps(self) -> None:
        new = self.reader.gaps[self._gaps :]
        self._gaps += len(new)
        for gap in new:
            if gap.restarted:
                assert gap.first == 1
                self._most_dropped = 0
            else:
                assert gap.first <= gap.last
                self._begin(gap.first - 1)
                assert gap.first == self._place + 1
            self._place = gap.last
            self._last_gap = gap.last

    def check(self) -> None:
        """It has ended: as it should have, and with everything accounted for."""
        expected = {"end", "error", "lost", "cancelled", "left", "stopped"}
        match self.options["overflow"]:
            case "block":
                assert self.reader.dropped == 0
            case "error":
                assert self.reader.dropped == 0
                expected.add("overflow")
        if self.options["on_gap"] == "error" and self.mode != "receive":
            expected.add("gap")
        assert self.outcome in expected
        if self.outcome == "lost":
            assert isinstance(self.source, kk.RPCChannel)
            assert self.source.closed
        if self.reader.epoch is None:
            return
        stream = self.stream
        if self.outcome in ("end", "error"):
            assert stream.end == {"end": "close"}.get(self.outcome, "error")
            assert self._place in (None, stream.newest)
        if self.world.most_bytes is None:
            kept = 1 if self.options["overflow"] == "latest" else self.options["high_water_mark"]
            assert self._most_dropped <= max(stream.newest - kept, 0)
            assert self._last_gap <= max(stream.newest - self.world.window, 0)


class World:
    """One run. Its methods without an underscore that take plain values are the actions of a schedule."""

    def __init__(self, settings: dict[str, Any], tasks: TaskGroup) -> None:
        self.settings = settings
        self.tasks = tasks
        self.window: int = settings["window"]
        self.most_bytes: int | None = settings["most_bytes"]
        limits = kk.Limits() if self.most_bytes is None else kk.Limits(subscription_bytes=self.most_bytes)
        self.hub = kk.StreamHub(limits=limits)
        self.chat = self.hub.create(
            "name",
            replay_window=self.window,
            closed_stream_retention=GRACE,
            reconnect_grace=GRACE if settings["grace"] else 0,
            authorize=self._granted,
        )
        self.streams: list[Stream] = []
        self._start()
        self.readings: list[Reading] = []
        self.clients: dict[kk.RPCChannel, Any] = {}
        """Those that there were, each with its line."""
        self.servers: dict[kk.RPCChannel, None] = {}
        """The other ends of those that have subscribed."""
        self.links: list[kk.ReconnectingChannel] = []
        self.bare: list[kk.RPCChannel] = []
        self._closing = anyio.Event()
        self._to_send: list[tuple[Stream, Any]] = []
        self._sending = False
        self._tokens = 0

    def _granted(self, request: kk.StreamRequest) -> bool:
        self.stream.subscribed = True
        self.servers[request.channel] = None
        return True

    def _start(self) -> None:
        self.streams.append(Stream(self, self.chat.start("id")))

    @property
    def stream(self) -> Stream:
        return self.streams[-1]

    # Connections -----------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """What the whole run needs."""
        yield

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncGenerator[kk.RPCChannel]:
        """A client of the hub. Its server lives on its own, and learns by itself that it is gone."""
        settings = self.settings
        line = Line(settings["capacity"], settings["piece"])
        limits = kk.Limits(send_high_water=settings["high_water"])
        server = kk.RPCChannel(
            line.ends[0], expose={"streams": self.hub}, hello=False, codec=settings["codec"], limits=limits
        )
        self.tasks.start_soon(self._serve, server)
        async with kk.RPCChannel(line.ends[1], hello=settings["hello"], codec=settings["codec"]) as client:
            self.clients[client] = line
            yield client
        line.cut(0, lost=False)

    async def _serve(self, server: kk.RPCChannel) -> None:
        async with server:
            await server.wait_closed()

    def is_cut(self, channel: kk.RPCChannel | None) -> bool:
        if channel is None or channel.closed:
            return True
        return bool(self.clients[channel].broken)

    async def _link(self, *, task_status: Any) -> None:
        async with kk.reconnecting(self.connect, initial_delay=1e-6, max_delay=1e-6) as link:
            self.links.append(link)
            task_status.started()
            await self._closing.wait()

    async def _bare(self, *, task_status: Any) -> None:
        async with self.connect() as channel:
            self.bare.append(channel)
            task_status.started()
            await self._closing.wait()

    def _sources(self) -> list[Any]:
        return [*self.links, *self.bare]

    # Actions ---------------------------------------------------------------------------------

    def _value(self, size: int) -> Any:
        self._tokens += 1
        if self._tokens % 7 == 0:
            return self._tokens.to_bytes(3, "big") + bytes(size)
        return {"token": self._tokens, "pad": "é" * size}

    async def write(self, sizes: list[int]) -> None:
        """At once, without a turn of the loop."""
        for size in sizes:
            try:
                self.stream.write(self._value(size))
            except kk.WouldBlock:
                assert any(each.options["overflow"] == "block" for each in self.readings)
                return
            except kk.StreamClosed:
                assert self.stream.end is not None
            assert len(self.stream.real.log) <= self.window + 2 * 32 + 33 + 64

    async def send(self, sizes: list[int]) -> None:
        """By the task that sends, one after the other."""
        self._to_send += [(self.stream, self._value(size)) for size in sizes]
        if not self._sending:
            self._sending = True
            self.tasks.start_soon(self._send)

    async def _send(self) -> None:
        while self._to_send:
            stream, value = self._to_send.pop(0)
            with contextlib.suppress(kk.StreamClosed):
                await stream.send(value)
        self._sending = False

    async def subscribe(self, source: int, options: dict[str, Any], mode: str, permits: float) -> None:
        sources = self._sources()
        reading = Reading(self, sources[source % len(sources)], options, mode, permits)
        self.readings.append(reading)
        self.tasks.start_soon(reading.run)

    async def permit(self, reading: int, count: float) -> None:
        if self.readings:
            self.readings[reading % len(self.readings)].permit(count)

    async def cancel(self, reading: int, how: str) -> None:
        if self.readings:
            self.readings[reading % len(self.readings)].cancel(how)

    async def turns(self, count: int) -> None:
        for _ in range(count):
            await checkpoint()

    async def stall(self, source: int, stalled: bool) -> None:
        line = self._line(source)
        if line is not None:
            line.stall(stalled)

    async def cut(self, source: int, ends: tuple[int, ...], lost: bool) -> None:
        """Cut the present connection of one source; the end that is not named has yet to see it."""
        line = self._line(source)
        if line is not None:
            line.cut(*ends, lost=lost)

    def _line(self, source: int) -> Any:
        sources = self._sources()
        found = sources[source % len(sources)]
        with contextlib.suppress(kk.ChannelClosed):
            return self.clients[found if isinstance(found, kk.RPCChannel) else found.channel]
        return None

    @property
    def _clients(self) -> list[kk.RPCChannel]:
        """Those that are open."""
        return [each for each in self.clients if not each.closed]

    async def finish(self, how: str) -> None:
        """The end. Who waits to send is told at once."""
        self.stream.finish(how)
        with anyio.fail_after(1):
            await until(lambda: not self._sending)

    async def restart(self, how: str) -> None:
        """Another stream of the same id, once the one before has ended."""
        await self.finish(how)
        self._start()

    # The model -------------------------------------------------------------------------------

    def check(self) -> None:
        """What holds at any moment."""
        for stream in self.streams:
            assert not stream.early, "the signal was set while somebody was there"
            if stream.end is None and not self.settings["grace"] and stream.subscribed:
                assert stream.real.signal.cancelled or self._asking()
        if self.settings["grace"] and not any(each.may_leave for each in self.readings):
            assert not any(each.real.signal.cancelled for each in self.streams)

    def _asking(self) -> bool:
        """Somebody's subscription is known to a server."""
        return any(
            call.method == "streams.subscribe"
            for server in self.servers
            for call in server.connection.incoming.values()
        )

    def _settled(self) -> bool:
        """Each connection that there should be is there, at both ends, and no other."""
        connected = len(self.links) + sum(not each.closed for each in self.bare)
        return len(self._clients) == len(self.hub.channels) == connected

    async def end(self) -> None:
        """Everybody reads to the end, or leaves; then nothing is left."""
        for line in self.clients.values():
            line.stall(False)
            if line.broken:
                line.cut(0, 1, lost=False)
        if self.settings["all_leave"]:
            for reading in self.readings:
                reading.cancel("cancel")
            await until(lambda: all(each.outcome for each in self.readings))
            await until(lambda: not self._sending and not self._asking())
            self.check()
        for reading in self.readings:
            reading.permit(math.inf)
        if not self.settings["abrupt"]:
            await until(lambda: not self._sending)
        self.stream.finish(self.settings["end"])
        await until(lambda: not self._sending and all(each.outcome for each in self.readings))
        for reading in self.readings:
            reading.check()
        await until(self._settled)
        await assert_quiet(*self._clients, *self.hub.channels)
        self.check()
        self._closing.set()
        await until(lambda: not self.hub.channels and not self._asking())
        for stream in self.streams:
            assert stream.real.subscribers == 0
            assert not stream.real._parked
            assert not stream.real._blocking
            assert len(stream.real.log) <= self.window
        self.chat.close()
        assert self.chat.ids() == []


class SocketLine:
    """A client's connection by a real socket: it can be cut, but neither stalled nor cut at one end alone."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self.broken = False

    def stall(self, stalled: bool) -> None:
        """Nothing: the system passes on what is there."""

    def cut(self, *ends: int, lost: bool) -> None:
        self.broken = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class SocketWorld(World):
    """The same over a Unix socket; the server accepts whoever comes."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        with tempfile.TemporaryDirectory() as folder:
            self._path = str(Path(folder, "socket"))

            async def serve(*, task_status: Any) -> None:
                # After a client's last byte its subscriptions go on for a while: no wait for that here.
                limits = kk.Limits(send_high_water=self.settings["high_water"], finish_seconds=0.01)
                options: Any = {"codec": self.settings["codec"], "limits": limits}
                await kk.serve_unix({"streams": self.hub}, self._path, task_status=task_status, **options)

            async with anyio.create_task_group() as tasks:
                await tasks.start(serve)
                yield
                tasks.cancel_scope.cancel()

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncGenerator[kk.RPCChannel]:
        settings = self.settings
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(self._path)
        with connected.dup() as other:
            stream = SocketByteStream(connected)
            async with kk.RPCChannel(stream, hello=settings["hello"], codec=settings["codec"]) as client:
                self.clients[client] = SocketLine(other)
                yield client


async def play(
    make: Callable[[dict[str, Any], TaskGroup], World], settings: dict[str, Any], actions: list[Action]
) -> None:
    """One run, in an event loop of its own."""
    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tasks:
            world = make(settings, tasks)
            async with world.running():
                for _ in range(settings["links"]):
                    await tasks.start(world._link)
                for _ in range(settings["bare"]):
                    await tasks.start(world._bare)
                for name, *arguments in actions:
                    await getattr(world, name)(*arguments)
                    world.check()
                await world.end()
