"""Scripts, gates and probes of the reference testee (spec/testee.md).

It owns what a script does, step by step, and what is counted of it. Who may name one is `testee_api`'s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import anyio
from anyio.lowlevel import checkpoint, current_token

import kkrpc_py as kk

__all__ = ["Bench", "Probe", "Script", "error_of"]


_STEERING = {each.__name__: each for each in (SystemExit, GeneratorExit, StopIteration, StopAsyncIteration)}


def error_of(spec: dict[str, Any]) -> BaseException:
    """The exception that `fail` and `{"raise": …}` raise.

    Each name gets a class of its own, so that the library sees a handler's class and no error of its own; but
    what steers the interpreter or the loop is itself, since what it does to the channel is the question
    (ERR-6).
    """
    name, message = spec.get("name", "Error"), spec.get("message", "")
    kind: Any = _STEERING.get(name) or type(name, (Exception,), {})
    if name == "CancelledError" and hasattr(current_token().native_token, "call_soon_threadsafe"):
        kind = anyio.get_cancelled_exc_class()  # asyncio's; trio's cannot be made
    error: BaseException = kind(message)
    vars(error).update(spec.get("fields", {}))
    for note in spec.get("notes", ()):
        error.add_note(note)
    if "cause" in spec:
        error.__cause__ = error_of(spec["cause"])
    return error


_COUNTERS = ("started", "yielded", "waits", "interrupted", "cleaned")


class Probe:
    """The counters of one name."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = dict.fromkeys(_COUNTERS, 0)
        self._changed: anyio.Event | None = None

    def count(self, counter: str) -> None:
        self.counts[counter] += 1
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def reached(self, counter: str, n: int) -> None:
        while self.counts[counter] < n:
            if self._changed is None:
                self._changed = anyio.Event()
            await self._changed.wait()


@dataclasses.dataclass(eq=False)
class Polled:
    """What the library tells nobody of, and somebody waits for."""

    holds: Callable[[], bool]
    event: anyio.Event


class Bench:
    """What belongs to a connection: the probes, the gates, and what runs."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make
        """A value from its words."""
        self._probes: dict[str, Probe] = {}
        self._gates: dict[str, anyio.Event] = {}
        self._scopes: set[anyio.CancelScope] = set()
        self._polled: list[Polled] = []

    def probe(self, name: str) -> Probe:
        return self._probes.setdefault(name, Probe())

    def gate(self, name: str) -> anyio.Event:
        return self._gates.setdefault(name, anyio.Event())

    def open_gates(self) -> None:
        for gate in self._gates.values():
            gate.set()

    def reset(self) -> None:
        """Open the gates, cancel what runs, forget the names."""
        self.open_gates()
        for scope in self._scopes:
            scope.cancel()
        self._probes, self._gates = {}, {}

    @contextmanager
    def running(self) -> Generator[anyio.CancelScope]:
        """A scope that `reset` cancels: then this raises CallCancelled."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            raise kk.CallCancelled("the testee gave it up")

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what only a look can tell; `settle` looks too, so that a barrier does not miss it."""
        polled = Polled(holds, anyio.Event())
        self._polled.append(polled)
        try:
            while not holds():
                with anyio.move_on_after(_LOOK_SECONDS):
                    await polled.event.wait()
        finally:
            self._polled.remove(polled)

    async def settle(self) -> None:
        """Return once all that was ready to run has run as far as it gets."""
        while True:
            await _until_idle()
            woken = [polled for polled in self._polled if not polled.event.is_set() and polled.holds()]
            if not woken:
                return
            for polled in woken:
                polled.event.set()


_LOOK_SECONDS = 0.005
_QUIET_ROUNDS = 3
"""Rounds of the loop with nothing to do: one for what was ready, one for the sockets that it has looked at
since, and one for what that has woken."""
_MOST_ROUNDS = 2000
"""A producer that never waits, toward a peer without credit, would hold a barrier up for ever."""
_MOST_TRIO_SECONDS = 0.5
"""The same for trio."""
_BLIND_ROUNDS = 200
"""For a loop that does not show what is ready. The longest way from a byte that was read to a byte that is
written takes about a dozen hand-overs (a response read, the caller woken, its handler answered, the writer
woken; a cancelled scope, which anyio tells its tasks of in the round after, and the cleanup of each)."""


async def _until_idle() -> None:
    """Nothing but this task is ready to run.

    anyio's `wait_all_tasks_blocked` sleeps a tenth of a second on asyncio, and looks at tasks alone: not at
    callbacks of the loop, in which the channel's reader runs.
    """
    loop: Any = current_token().native_token
    if not hasattr(loop, "call_soon_threadsafe"):
        import trio.testing

        with anyio.move_on_after(_MOST_TRIO_SECONDS):
            await trio.testing.wait_all_tasks_blocked()
        return
    # What the loop will run next, this task not among it: asyncio says so nowhere in public.
    ready = getattr(loop, "_ready", None)
    quiet = 0
    for _ in range(_BLIND_ROUNDS if ready is None else _MOST_ROUNDS):
        await checkpoint()
        quiet = quiet + 1 if ready is not None and not ready else 0
        if quiet == _QUIET_ROUNDS:
            return


class Script:
    """One script: `chunks` is what it gives, `result` what it returned."""

    def __init__(self, bench: Bench, name: str, steps: Sequence[dict[str, Any]]) -> None:
        self._bench = bench
        self._probe = bench.probe(name)
        self._steps = steps
        self._cleanups: list[Sequence[dict[str, Any]]] = []
        self.result: Any = None

    async def run(self, send: Callable[[Any], Awaitable[None]] | None = None) -> Any:
        """Run it, and return what it returns; its chunks go to `send`."""
        with self._bench.running():
            chunks = self.chunks()
            try:
                async for chunk in chunks:
                    if send is not None:
                        await send(chunk)
            finally:
                await chunks.aclose()
        return self.result

    async def chunks(self) -> AsyncGenerator[Any]:
        """Where it is cancelled, at an `await` or at a `yield`, that is counted; then its cleanup runs."""
        probe = self._probe
        probe.count("started")
        try:
            for step in self._steps:
                match step:
                    case {"yield": value}:
                        probe.count("yielded")
                        yield value
                    case {"range": [first, end]}:
                        for number in range(first, end):
                            probe.count("yielded")
                            yield number
                    case {"text": [length, times]}:
                        for _ in range(times):
                            probe.count("yielded")
                            yield "x" * length
                    case {"make": words}:
                        probe.count("yielded")
                        yield self._bench.make(words)
                    case {"return": value}:
                        self.result = value
                        break
                    case {"cleanup": script}:
                        self._cleanups.append(script)
                    case _:
                        await self._act(step)
        except BaseException as exc:
            if isinstance(exc, (GeneratorExit, anyio.get_cancelled_exc_class())):
                probe.count("interrupted")
            raise
        finally:
            try:
                with anyio.CancelScope(shield=True):
                    for script in reversed(self._cleanups):
                        for step in script:
                            await self._act(step)
            finally:
                probe.count("cleaned")

    async def _act(self, step: dict[str, Any]) -> None:
        match step:
            case {"wait": gate}:
                self._probe.count("waits")
                opened = self._bench.gate(gate)
                if not opened.is_set():
                    await opened.wait()
            case {"raise": error}:
                raise error_of(error)
            case _:
                raise ValueError(f"no step of a script: {step!r}")
