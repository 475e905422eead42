"""`kk.reconnecting` in virtual time: delays, states, what ends it, and a cancellation at every point."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

import kkrpc_py as kk
from kkrpc_py.channel.backoff import Backoff
from kkrpc_py.streaming.reconnect import UNREAD_STATES, ReconnectingChannel, reconnecting
from tests.streaming.virtual import backend

pytestmark = pytest.mark.anyio

BOUND = 10_000.0
"""Seconds of virtual time, which cost nothing."""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return backend(request.param)


class Api:
    def __init__(self) -> None:
        self.asked = 0

    async def add(self, a: int, b: int) -> int:
        return a + b

    async def never(self) -> None:
        self.asked += 1
        await anyio.sleep_forever()


class Peer:
    """What a link connects to. Each attempt takes the next step of the script, and the last step for ever.

    A step: an exception that is raised; a number, the seconds after which the connection ends; `math.inf`; a
    function that gives the context manager itself.
    """

    def __init__(self, *script: Any) -> None:
        self.script = list(script) or [math.inf]
        self.api = Api()
        self.times: list[float] = []
        """When each attempt began."""
        self.servers: list[kk.RPCChannel] = []
        self.open = 0
        """Connections that have been made and have not ended."""

    @property
    def waits(self) -> list[float]:
        return [round(later - earlier, 6) for earlier, later in itertools.pairwise(self.times)]

    def connect(self) -> Any:
        self.times.append(anyio.current_time())
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return step() if callable(step) else self._connection(step)

    @contextlib.asynccontextmanager
    async def _connection(self, step: Any) -> AsyncIterator[kk.RPCChannel]:
        await checkpoint()
        if isinstance(step, BaseException):
            raise step
        async with anyio.create_task_group() as tasks, kk.memory_pair(self.api) as (server, client):
            self.open += 1
            self.servers.append(server)
            try:
                if step < math.inf:
                    tasks.start_soon(self._end_after, step, server)
                yield client
            finally:
                self.open -= 1
                tasks.cancel_scope.cancel()

    async def _end_after(self, seconds: float, server: kk.RPCChannel) -> None:
        await anyio.sleep(seconds)
        await server.aclose()


def link_to(peer: Peer, **options: Any) -> ReconnectingChannel:
    """Without chance, unless it is asked for."""
    return reconnecting(peer.connect, **{"random": lambda: 0.0, **options})


@contextlib.asynccontextmanager
async def linked(*script: Any, **options: Any) -> AsyncIterator[tuple[ReconnectingChannel, Peer]]:
    """A link to a peer of that script; at the end nothing may be left."""
    before = tasks_running()
    peer = Peer(*script)
    with anyio.fail_after(BOUND):
        async with link_to(peer, **options) as link:
            yield link, peer
    assert link.state == "closed"
    assert peer.open == 0
    assert tasks_running() == before


def tasks_running() -> int:
    return len(anyio.get_running_tasks())


async def state(link: ReconnectingChannel, wanted: str) -> None:
    async for now in link.states():
        if now == wanted:
            return
    raise AssertionError(f"the link was never {wanted}")


def refused() -> ConnectionRefusedError:
    return ConnectionRefusedError("nobody there")


# Delays ------------------------------------------------------------------------------------------


async def test_delays_grow_up_to_the_bound() -> None:
    async with linked(*[refused()] * 8, math.inf, initial_delay=0.1, max_delay=2.0) as (link, peer):
        assert peer.waits == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
        assert link.attempts == 8
        assert isinstance(link.last_error, ConnectionRefusedError)


@pytest.mark.parametrize(("chance", "first"), [(0.0, 1.0), (0.5, 0.875), (1.0, 0.75)])
async def test_jitter_takes_a_random_share_of_its_part(chance: float, first: float) -> None:
    options = {"initial_delay": 1.0, "jitter": 0.25, "random": lambda: chance}
    async with linked(refused(), refused(), math.inf, **options) as (_, peer):
        assert peer.waits == [first, 2 * first]


async def test_a_server_that_accepts_and_dies_at_once_is_not_hammered() -> None:
    async with linked(0.0, initial_delay=0.1, max_delay=10.0) as (link, peer):
        await anyio.sleep(100)
        assert peer.waits[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4]
        assert set(peer.waits[7:]) == {10.0}
        assert link.attempts >= len(peer.waits)


async def test_a_connection_that_lasted_resets_the_delay_and_one_that_did_not_does_not() -> None:
    script = [refused(), refused(), refused(), 0.39, 0.81, refused(), 0.09, math.inf]
    async with linked(*script, initial_delay=0.1) as (link, peer):
        await anyio.sleep(100)
        # After three failures the delay is 0.4: 0.39 seconds are one more failure, then 0.81 are none.
        assert peer.waits == pytest.approx([0.1, 0.2, 0.4, 0.39 + 0.8, 0.81 + 0.1, 0.1, 0.09 + 0.2])
        assert link.attempts == 2


@given(
    initial=st.floats(1e-6, 10),
    times=st.floats(1, 1e6),
    factor=st.floats(1, 100),
    jitter=st.floats(0, 1),
    chances=st.lists(st.floats(0, 1), min_size=1, max_size=200),
)
async def test_no_delay_is_beyond_the_bounds(
    initial: float, times: float, factor: float, jitter: float, chances: list[float]
) -> None:
    draws = iter(chances)
    backoff = Backoff(initial, initial * times, factor, jitter, lambda: next(draws))
    for failures, chance in enumerate(chances, 1):
        backoff.failed()
        delay = backoff.delay()
        longest = min(initial * times, initial * min(factor ** (failures - 1), 1e300))
        assert longest * (1 - jitter) * 0.999999 <= delay <= min(longest * 1.000001, initial * times)
        assert delay == pytest.approx(longest * (1 - jitter * chance), rel=1e-6)
    backoff.lost(initial * times)
    assert (backoff.failures, backoff._base) == (0, initial)


@pytest.mark.parametrize(
    "options",
    [
        {"initial_delay": 0},
        {"initial_delay": -1},
        {"initial_delay": math.nan},
        {"initial_delay": 11},
        {"max_delay": math.inf},
        {"max_delay": math.nan},
        {"factor": 0.5},
        {"factor": math.inf},
        {"factor": math.nan},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"jitter": math.nan},
        {"attempts": 0},
    ],
)
def test_options_without_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        reconnecting(Peer().connect, **options)


@pytest.mark.parametrize("attempts", [1.0, True, "3"])
def test_attempts_that_are_no_number_are_refused(attempts: Any) -> None:
    with pytest.raises(TypeError):
        reconnecting(Peer().connect, attempts=attempts)


def test_one_connection_is_no_way_to_make_one() -> None:
    with pytest.raises(TypeError, match="lambda"):
        reconnecting(kk.connect_unix("nowhere"))  # type: ignore[arg-type]  # the mistake
    with pytest.raises(TypeError, match="lambda"):
        reconnecting("nowhere")  # type: ignore[arg-type]  # the mistake


# States ------------------------------------------------------------------------------------------


async def test_each_observer_sees_the_state_at_first_and_then_every_change() -> None:
    peer = Peer(refused(), 5.0, 5.0, math.inf)
    link = link_to(peer)
    seen: dict[str, list[str]] = {"before": [], "first": [], "late": []}

    async def watch(name: str) -> None:
        async for state in link.states():
            seen[name].append(state)

    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, "before")
            await checkpoint()
            await checkpoint()
            async with link:
                tasks.start_soon(watch, "first")
                await anyio.sleep(5.05)
                assert link.state == "waiting"
                tasks.start_soon(watch, "late")
                await anyio.sleep(50)
                assert link.state == "connected"
    lost = ["waiting", "connecting", "connected"]
    assert seen == {
        "before": ["connecting", "waiting", "connecting", "connected", *lost, *lost, "closed"],
        "first": ["connected", *lost, *lost, "closed"],
        "late": [*lost, *lost, "closed"],
    }
    assert [state async for state in link.states()] == ["closed"]


async def test_an_observer_that_reads_late_misses_nothing_up_to_the_bound_and_then_the_oldest() -> None:
    async with linked(1.0, initial_delay=0.5) as (link, _):
        some, many = link.states(), link.states()
        await anyio.sleep(1.5 * 4 + 0.1)
        read = [await anext(some) for _ in range(13)]
        assert read == ["connected", *["waiting", "connecting", "connected"] * 4]
        await anyio.sleep(1.5 * 200)
        read = [await anext(many) for _ in range(UNREAD_STATES)]
        with anyio.move_on_after(0):
            pytest.fail(f"{await anext(many)!r} was kept too")
        assert len(link._states) == UNREAD_STATES
        cycle = {"waiting": "connecting", "connecting": "connected", "connected": "waiting"}
        assert all(cycle[earlier] == later for earlier, later in itertools.pairwise(read))
        assert read[-1] == link.state


async def test_a_cancelled_observer_misses_nothing() -> None:
    async with linked(1.0, math.inf) as (link, _):
        states = link.states()
        assert await anext(states) == "connected"
        with anyio.move_on_after(0.5):
            await anext(states)
        assert [await anext(states) for _ in range(3)] == ["waiting", "connecting", "connected"]


async def test_the_state_is_right_in_the_very_step_in_which_the_channel_is_lost() -> None:
    async with linked() as (link, _):
        channel = link.channel
        told: list[Any] = []

        def tell() -> None:
            told.append(link.state)
            with pytest.raises(kk.ChannelClosed):
                told.append(link.channel)

        channel.when_closed(tell)
        await channel.aclose()
        assert told == ["waiting"]


# What there is -----------------------------------------------------------------------------------


async def test_connected_gives_the_channel_or_waits_for_another_one() -> None:
    async with linked() as (link, peer):
        first = await link.connected()
        assert first is link.channel
        assert await link.connected(after=None) is first
        got: list[kk.RPCChannel] = []

        async def another() -> None:
            got.append(await link.connected(after=first))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(another)
            await anyio.sleep(50)
            assert got == []
            await peer.servers[0].aclose()
        assert got == [link.channel]
        assert got != [first]
        assert await link.connected(after=first) is got[0]


async def test_a_cancelled_task_gets_neither_a_channel_nor_a_state() -> None:
    async with linked() as (link, _):
        for ask in (link.connected, link.states().__anext__):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await ask()  # there is one
            assert scope.cancelled_caught


async def test_whoever_waits_for_a_channel_is_told_when_there_will_be_none() -> None:
    async with linked(1.0, refused(), attempts=3) as (link, _):
        with pytest.raises(
            kk.ChannelClosed, match="gave up after 3 attempts in a row: .*nobody there"
        ) as told:
            await link.connected(after=link.channel)
        assert link.state == "closed"
        assert told.value.__cause__ is link.last_error
        assert isinstance(link.last_error, ConnectionRefusedError)
        with pytest.raises(kk.ChannelClosed, match="gave up"):
            await link.connected()
        with pytest.raises(kk.ChannelClosed, match="gave up"):
            link.channel  # noqa: B018  # a property that raises


async def test_a_link_that_is_not_entered_has_no_channel() -> None:
    link = link_to(Peer())
    with pytest.raises(kk.ChannelClosed, match="not connected yet"):
        link.channel  # noqa: B018  # a property that raises
    with pytest.raises(RuntimeError, match="enter the link first"):
        await link.aclose()
    with pytest.raises(RuntimeError, match="enter the link first"):
        link.calling  # noqa: B018  # a property that raises
    async with link:
        with pytest.raises(RuntimeError, match="once"):
            await link.__aenter__()
    with pytest.raises(RuntimeError, match="once"):
        await link.__aenter__()


async def test_why_there_is_no_channel_is_told_with_a_childs_last_words() -> None:
    died = kk.ChannelClosed("the child process ended", exit_code=3, stderr_tail="ouch")
    async with linked(1.0, died) as (link, _):
        await anyio.sleep(20)
        with pytest.raises(kk.ChannelClosed, match="not connected: the child process ended") as told:
            link.channel  # noqa: B018  # a property that raises
        assert (told.value.exit_code, told.value.stderr_tail) == (3, "ouch")
        assert told.value.__cause__ is died


async def test_those_who_want_to_know_are_told_of_each_channel_and_of_the_end() -> None:
    peer = Peer(5.0, 5.0, math.inf)
    link = link_to(peer)
    told: dict[str, list[Any]] = {"before": [], "within": [], "forgotten": [], "closed": []}

    def tell(name: str) -> Callable[[kk.RPCChannel], None]:
        def note(channel: kk.RPCChannel) -> None:
            assert channel is link.channel
            told[name].append(channel)

        return note

    def end() -> None:
        told["closed"].append(link.state)

    def never() -> None:
        told["closed"].append("never")

    forgotten = tell("forgotten")
    with anyio.fail_after(BOUND):
        link.when_connected(tell("before"))
        link.when_closed(end)
        link.when_closed(never)
        link.forget_closed(never)
        link.forget_closed(never)
        async with link:
            assert told["before"] == [link.channel]
            link.when_connected(tell("within"))
            link.when_connected(forgotten)
            await link.connected(after=link.channel)
            link.forget_connected(forgotten)
            link.forget_connected(forgotten)
            await link.connected(after=link.channel)
            assert told["closed"] == []
        assert told["closed"] == ["closed"]
        link.when_closed(end)
        link.when_connected(tell("closed"))
    assert len(told["before"]) == 3
    assert told["within"] == told["before"]
    assert told["forgotten"] == told["before"][:2]
    assert told["closed"] == ["closed", "closed"]


# Calls -------------------------------------------------------------------------------------------


async def test_a_call_in_flight_fails_and_is_not_repeated() -> None:
    async with linked() as (link, peer):
        api = link.remote()
        failed: list[BaseException] = []

        async def call() -> None:
            with pytest.raises(kk.ChannelClosed) as told:
                await api.never()
            failed.append(told.value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await anyio.sleep(1)
            await peer.servers[0].aclose()
        assert len(failed) == 1
        with pytest.raises(kk.ChannelClosed):
            await api.add(1, 2)
        with pytest.raises(kk.ChannelClosed):
            async for _ in api.add(1, 2):
                pass
        assert link.state == "waiting"
        await link.connected()
        assert await api.add(1, 2) == 3
        await anyio.sleep(10)
        assert peer.api.asked == 1


async def test_a_call_that_was_made_before_and_is_sent_after_takes_the_new_channel() -> None:
    async with linked() as (link, peer):
        first = link.channel
        call = link.remote().add(1, 2)
        await peer.servers[0].aclose()
        await link.connected(after=first)
        assert await call == 3


async def test_the_cancel_of_a_call_goes_to_the_channel_that_it_was_sent_by() -> None:
    """Also where another channel has taken its place in the same turn."""
    async with linked() as (link, peer):
        first, api = link.channel, link.remote()
        cancelled: list[Any] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(api.never)
            await anyio.sleep(1)
            async with kk.memory_pair(peer.api) as (_, other):
                other.connection.cancel = lambda call: cancelled.append(call)  # type: ignore[method-assign]  # to see who is told
                link._channel = other
                tasks.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)
        link._channel = first
        assert cancelled == []
        assert not first.connection.outgoing


async def test_watched_calls_are_told_of_a_lost_channel_too() -> None:
    told: list[tuple[str, BaseException | None]] = []

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[kk.RPCChannel]:
        def on_call(info: kk.OutgoingInfo) -> Callable[[BaseException | None], None]:
            return lambda failure: told.append((info.method, failure))

        async with kk.memory_pair(Api(), on_call=on_call) as (_, client):
            yield client

    with anyio.fail_after(BOUND):
        async with reconnecting(connect) as link:
            assert await link.remote().add(1, 2) == 3
            await link.channel.aclose()
            with pytest.raises(kk.ChannelClosed):
                await link.remote().add(1, 2)
    assert told[0] == ("add", None)
    assert isinstance(told[1][1], kk.ChannelClosed)


async def test_a_channel_that_its_user_closes_is_lost() -> None:
    async with linked() as (link, peer):
        first = link.channel
        await first.aclose()
        second = await link.connected()
        assert second is not first
        assert isinstance(link.last_error, kk.ChannelClosed)
        assert "closed by this side" in str(link.last_error)
        assert await link.remote().add(1, 2) == 3
        assert len(peer.times) == 2


# Errors ------------------------------------------------------------------------------------------

PASSING = [
    ConnectionRefusedError("no"),
    FileNotFoundError("no"),
    TimeoutError("no"),
    kk.ChannelClosed("no"),
    kk.ProtocolError("no"),
    kk.CallTimeout("login", 1),
    anyio.BrokenResourceError("no"),
    anyio.EndOfStream("no"),
    anyio.ClosedResourceError("no"),
    ExceptionGroup("no", [OSError("no"), ExceptionGroup("no", [kk.ChannelClosed("no")])]),
]
FAULTS = [
    ValueError("wrong"),
    kk.NotSerializable("object", "args[0]"),
    kk.ValidationFailed("login", "input", []),
    RuntimeError("wrong"),
    ExceptionGroup("wrong", [OSError("no"), ValueError("wrong")]),
    KeyboardInterrupt("stop"),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
async def test_what_may_pass_is_tried_again_and_at_last_raised_as_it_is(error: Exception) -> None:
    peer = Peer(error)
    with anyio.fail_after(BOUND):
        with pytest.raises(type(error)) as told:
            async with link_to(peer, attempts=4) as link:
                pytest.fail(f"there is no connection: {link}")
    assert told.value is error
    assert len(peer.times) == 4
    async with linked(error, math.inf):
        pass


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
async def test_a_fault_is_raised_out_of_the_block_as_it_is(error: BaseException) -> None:
    with anyio.fail_after(BOUND):
        with pytest.raises(type(error)) as told:
            async with link_to(Peer(error)):
                pytest.fail("there is no connection")
        assert told.value is error
        peer = Peer(1.0, error)
        steps: list[str] = []
        with pytest.raises(type(error)) as told:
            async with link_to(peer) as link:
                try:
                    await anyio.sleep_forever()
                finally:
                    steps.append(link.state)
                    with pytest.raises(kk.ChannelClosed, match="connecting failed") as why:
                        link.channel  # noqa: B018  # a property that raises
                    steps.append(type(why.value.__cause__).__name__)
        assert told.value is error
        assert steps == ["closed", type(error).__name__]
        assert peer.open == 0
        await checkpoint()
    task = _asyncio_task()
    assert task is None or task.cancelling() == 0


def _asyncio_task() -> Any:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


async def test_a_function_that_gives_no_connection_is_a_fault() -> None:
    channel = kk.RPCChannel(None)

    @contextlib.asynccontextmanager
    async def gives(what: Any) -> AsyncIterator[Any]:
        yield what

    @contextlib.asynccontextmanager
    async def nothing() -> AsyncIterator[Any]:
        if math.pi < 3:
            yield

    def fails() -> Any:
        raise KeyError("wrong")

    for step, fault in (
        (lambda: gives((channel, channel)), TypeError),
        (lambda: gives(channel), RuntimeError),  # not entered
        (nothing, RuntimeError),
        (lambda: None, TypeError),
        (fails, KeyError),
    ):
        with pytest.raises(fault):
            async with link_to(Peer(step)):
                pytest.fail("there is no connection")


async def test_a_channel_that_is_closed_when_it_comes_is_a_failed_attempt() -> None:
    @contextlib.asynccontextmanager
    async def closed() -> AsyncIterator[kk.RPCChannel]:
        async with kk.memory_pair() as (_, client):
            await client.aclose()
            yield client

    @contextlib.asynccontextmanager
    async def swallowed() -> AsyncIterator[kk.RPCChannel]:
        async with kk.memory_pair() as (_, client):
            await client.aclose()
            with contextlib.suppress(kk.ChannelClosed):
                yield client

    async with linked(closed, swallowed, swallowed, math.inf, initial_delay=0.1) as (_, peer):
        assert peer.waits == [0.1, 0.2, 0.4]


async def test_what_the_end_of_a_lost_connection_raises() -> None:
    def ends_in(error: Exception) -> Any:
        @contextlib.asynccontextmanager
        async def connection() -> AsyncIterator[kk.RPCChannel]:
            async with kk.memory_pair() as (server, client):
                await server.aclose()
                yield client
            raise error

        return connection

    async with linked(ends_in(OSError("late")), math.inf) as (link, peer):
        async for now in link.states():
            if now == "connected" and len(peer.times) == 2:
                break
        assert isinstance(link.last_error, kk.ChannelClosed)  # why it was lost, not what came of that
    with pytest.raises(ZeroDivisionError):
        async with link_to(Peer(ends_in(ZeroDivisionError()))):
            await anyio.sleep_forever()


@pytest.mark.parametrize(("late", "raised"), [(OSError("late"), None), (ValueError("late"), ValueError)])
async def test_what_the_end_of_the_last_connection_raises(
    late: Exception, raised: type[Exception] | None
) -> None:
    @contextlib.asynccontextmanager
    async def connection() -> AsyncIterator[kk.RPCChannel]:
        async with kk.memory_pair() as (_, client):
            yield client
        raise late

    with contextlib.nullcontext() if raised is None else pytest.raises(raised):
        async with link_to(Peer(connection)):
            pass
    # As with the connection's own block: a fault takes the place of what the block raised.
    with pytest.raises(raised or KeyError) as told:
        async with link_to(Peer(connection)):
            raise KeyError("mine")
    assert raised is None or isinstance(told.value.__context__, KeyError)


async def test_the_blocks_own_error_is_raised_as_it_is() -> None:
    mine = KeyError("mine")
    for script in ([math.inf], [1.0, refused()]):
        peer = Peer(*script)
        with pytest.raises(KeyError) as told:
            async with link_to(peer):
                await anyio.sleep(5)
                raise mine
        assert told.value is mine
        assert peer.open == 0


# Closing and cancellation ------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def hanging() -> AsyncIterator[kk.RPCChannel]:
    await anyio.sleep_forever()
    yield kk.RPCChannel(None)


@pytest.mark.parametrize(
    ("script", "state_then"),
    [((math.inf,), "connected"), ((1.0, refused()), "waiting"), ((1.0, hanging), "connecting")],
)
async def test_it_is_closed_at_once_in_every_state(script: tuple[Any, ...], state_then: str) -> None:
    for leaves in (True, False):
        async with linked(*script, initial_delay=1.0, max_delay=1000) as (link, _):
            await anyio.sleep(200)
            assert link.state == state_then
            began = anyio.current_time()
            if leaves:
                continue
            await link.aclose()
            assert link.state == "closed"
            with pytest.raises(kk.ChannelClosed, match="closed by this side"):
                await link.connected()
            with pytest.raises(kk.ChannelClosed):
                await link.remote().add(1, 2)
            await link.aclose()
            assert anyio.current_time() == began
        if state_then == "connected":
            assert link.last_error is None  # an end that was wanted is none


async def test_it_is_closed_while_it_is_being_entered() -> None:
    for script in ([hanging], [refused()]):
        link = link_to(Peer(*script), initial_delay=5, max_delay=1000)
        with anyio.fail_after(BOUND):
            async with anyio.create_task_group() as tasks:

                async def enter(link: ReconnectingChannel = link) -> None:
                    with pytest.raises(kk.ChannelClosed, match="closed by this side"):
                        await link.__aenter__()

                tasks.start_soon(enter)
                await anyio.sleep(1)
                await link.aclose()


async def test_entering_can_be_bounded() -> None:
    for script in ([hanging], [refused()]):
        before, peer = tasks_running(), Peer(*script)
        began = anyio.current_time()
        with anyio.move_on_after(7) as scope:
            async with link_to(peer):
                pytest.fail("there is no connection")
        assert scope.cancelled_caught
        assert anyio.current_time() - began == 7
        assert tasks_running() == before


async def test_an_attempt_can_be_bounded_by_what_makes_it() -> None:
    """As docs/reconnecting.md has it."""

    @contextlib.asynccontextmanager
    async def bounded() -> AsyncIterator[kk.RPCChannel]:
        with anyio.fail_after(5) as connecting:
            async with kk.memory_pair(Api()) as (_, client):
                if len(peer.times) < 3:
                    await client.remote().never()
                connecting.deadline = math.inf
                yield client

    peer = Peer(bounded)
    with anyio.fail_after(BOUND):
        async with link_to(peer, initial_delay=1.0) as link:
            assert peer.waits == [6.0, 7.0]
            assert isinstance(link.last_error, TimeoutError)
            await anyio.sleep(1000)
            assert await link.remote().add(1, 2) == 3
            assert len(peer.times) == 3


async def test_connect_may_close_the_link_that_it_works_for() -> None:
    @contextlib.asynccontextmanager
    async def gives_up() -> AsyncIterator[kk.RPCChannel]:
        await link.aclose()
        await checkpoint()
        yield kk.RPCChannel(None)

    @contextlib.asynccontextmanager
    async def last() -> AsyncIterator[kk.RPCChannel]:
        async with kk.memory_pair() as (server, client):
            await server.aclose()
            yield client
        await link.aclose()

    for step in (gives_up, last):
        link = link_to(Peer(1.0, step))
        with anyio.fail_after(BOUND):
            async with link:
                with pytest.raises(kk.ChannelClosed, match="closed by this side"):
                    while True:
                        await link.connected(after=link.calling)


async def test_the_connection_ends_after_the_block_and_sees_no_cancellation_that_is_not_there() -> None:
    """The block's cleanup can still call, and the connection's own end runs in order."""
    steps: list[Any] = []

    @contextlib.asynccontextmanager
    async def connection() -> AsyncIterator[kk.RPCChannel]:
        async with kk.memory_pair(Api()) as (_, client):
            try:
                yield client
            except BaseException as exc:
                steps.append(type(exc).__name__)
                raise
            else:
                await anyio.sleep(3)  # a logout
                steps.append("logout")

    async def use() -> None:
        async with link_to(Peer(connection)) as link:
            try:
                await anyio.sleep(10)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)
                    steps.append(await link.remote().add(1, 2))

    with anyio.fail_after(BOUND):
        await use()
        assert steps == [3, "logout"]
        steps.clear()
        with anyio.move_on_after(5) as scope:
            await use()
        assert scope.cancelled_caught
        assert steps == [3, anyio.get_cancelled_exc_class().__name__]
        steps.clear()
        with anyio.move_on_after(12) as scope:  # in the middle of the logout
            await use()
        assert scope.cancelled_caught
        assert steps == [3]


async def test_the_blocks_own_error_is_stronger_than_a_cancellation_at_the_end() -> None:
    @contextlib.asynccontextmanager
    async def connection() -> AsyncIterator[kk.RPCChannel]:
        async with kk.memory_pair() as (_, client):
            yield client
            await anyio.sleep_forever()

    with pytest.raises(KeyError), anyio.move_on_after(5):
        async with link_to(Peer(connection)):
            raise KeyError("mine")


async def test_closing_waits_for_the_end_of_a_lost_connection() -> None:
    steps: list[str] = []

    @contextlib.asynccontextmanager
    async def slow_end() -> AsyncIterator[kk.RPCChannel]:
        async with kk.memory_pair() as (server, client):
            await server.aclose()
            yield client
        await anyio.sleep(5)
        steps.append("ended")

    with anyio.fail_after(BOUND):
        async with link_to(Peer(slow_end)) as link:
            await anyio.sleep(1)
            assert link.state == "waiting"
            await link.aclose()
            assert steps == ["ended"]


async def scenario(peer: Peer, link: ReconnectingChannel) -> None:
    """All that there is to wait for: entering, calls, a lost channel, the next one, closing, leaving."""
    async with link:
        await link.remote().add(1, 2)
        await anyio.sleep(0.1)
        await peer.servers[-1].aclose()
        await link.connected(after=link.calling)
        await link.remote().add(1, 2)
        await anyio.sleep(0.1)
        await link.channel.aclose()
        async for now in link.states():
            if now == "connected":
                break
        await link.aclose()


def scenario_peer() -> Peer:
    return Peer(refused(), math.inf, refused(), math.inf)


async def points() -> list[tuple[float, int]]:
    """Moments of the scenario: a time, and a number of turns of the loop after it."""
    began = anyio.current_time()
    peer = scenario_peer()
    await scenario(peer, link_to(peer))
    lasts = anyio.current_time() - began
    assert 0.5 < lasts < 1
    return [(t / 20, turns) for t in range(int(lasts * 20) + 2) for turns in range(16)]


async def test_a_cancellation_at_every_point_leaves_nothing() -> None:
    before = tasks_running()
    caught = 0
    with anyio.fail_after(BOUND):
        for seconds, turns in await points():
            peer = scenario_peer()
            link = link_to(peer)
            async with anyio.create_task_group() as tasks:

                async def run(
                    scope: anyio.CancelScope,
                    peer: Peer = peer,
                    link: ReconnectingChannel = link,
                ) -> None:
                    with scope:
                        await scenario(peer, link)

                scope = anyio.CancelScope()
                tasks.start_soon(run, scope)
                await anyio.sleep(seconds)
                for _ in range(turns):
                    await checkpoint()
                began = anyio.current_time()
                scope.cancel()
            assert anyio.current_time() == began
            caught += scope.cancelled_caught
            assert link.state == "closed" or not link._entered
            assert peer.open == 0
            assert tasks_running() == before
    assert caught > 50


async def test_a_cancellation_of_asyncios_own_at_every_point_leaves_nothing() -> None:
    if _asyncio_task() is None:
        pytest.skip("there is none on trio")
    before = tasks_running()
    caught = 0
    for seconds, turns in await points():
        peer = scenario_peer()
        link = link_to(peer)
        task = asyncio.create_task(scenario(peer, link))
        await asyncio.sleep(seconds)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(BOUND):
            with contextlib.suppress(asyncio.CancelledError):
                await task
        caught += task.cancelled()
        assert link.state == "closed" or not link._entered
        assert peer.open == 0
        assert tasks_running() == before
    assert caught > 50


async def test_a_link_whose_task_is_cancelled_by_others_is_closed() -> None:
    """As `asyncio.run` does at the end with whatever is left."""
    if _asyncio_task() is None:
        pytest.skip("there is none on trio")
    async with linked() as (link, _):
        [supervising] = [task for task in asyncio.all_tasks() if "reconnecting" in task.get_name()]
        supervising.cancel()
        with pytest.raises(kk.ChannelClosed, match="cancelled"):
            await link.connected(after=link.channel)
        await link.aclose()
