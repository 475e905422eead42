"""Running cases against a command: processes, sessions, verdicts.

It owns who plays what in which process, and what a failure comes to. Steps are `play`'s, the process is
`child`'s, known failures are `known`'s.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import anyio

from kkrpc_py.conformance.cases import Case
from kkrpc_py.conformance.child import StartError, start
from kkrpc_py.conformance.play import describe, hello, leave, play
from kkrpc_py.conformance.results import Failure, Outcome, Run, Verdict
from kkrpc_py.conformance.talk import Session, StepFailed

__all__ = ["TesteeUnusable", "run"]

SHARED_CASES: Final = 20
"""How many cases of one session a worker takes at once."""
LEAVE_SECONDS: Final = 2.0
"""What the process that only described itself has to end. That is judged in those that play."""


class TesteeUnusable(Exception):
    """The command does not start, or does not answer `describe` as spec/testee.md says."""


async def run(
    command: Sequence[str],
    cases: Sequence[Case],
    *,
    dialect: str = "classic",
    timeout: float = 5.0,
    jobs: int = 2,
    progress: Callable[[Outcome], None] | None = None,
) -> Run:
    """Play the cases, `jobs` at a time; the outcomes in their order.

    `timeout` bounds each wait, in seconds. `progress` is called with each outcome as it comes. Raises
    `TesteeUnusable`. No process of the testee is left, however this ends.
    """
    began = time.monotonic()
    testee = await _describe(command, timeout)
    runner = _Runner(command, frozenset(testee["features"]), timeout, progress, len(cases))
    runner.skip(cases, dialect)
    # Not in a task group of one worker: an error of the kit itself shall come as it is.
    if jobs == 1:
        await runner.work()
    else:
        async with anyio.create_task_group() as tasks:
            for _ in range(max(jobs, 1)):
                tasks.start_soon(runner.work)
    outcomes = tuple(outcome for outcome in runner.outcomes if outcome is not None)
    assert len(outcomes) == len(cases)
    return Run(tuple(command), dialect, testee, outcomes, time.monotonic() - began)


async def _describe(command: Sequence[str], timeout: float) -> Mapping[str, Any]:
    failed: Exception | None = None
    found: Mapping[str, Any] = {}
    try:
        async with start(command) as child:
            session = Session(child, "stock", frozenset(), timeout)
            try:
                found = await describe(session)
                await child.end(LEAVE_SECONDS)
            except StepFailed as error:
                failed = TesteeUnusable(_unusable(error, child.stderr_tail()))
    except StartError as error:
        failed = TesteeUnusable(str(error))
    if failed is not None:
        raise failed
    return found


def _unusable(error: StepFailed, stderr: str) -> str:
    text = f"describe() was not answered as spec/testee.md says: expected {error.expected}, seen {error.seen}"
    return f"{text}\n{stderr}" if stderr else text


class _Runner:
    """The work that is left, and what came of the rest."""

    def __init__(
        self,
        command: Sequence[str],
        features: frozenset[str],
        timeout: float,
        progress: Callable[[Outcome], None] | None,
        count: int,
    ) -> None:
        self._command = command
        self._features = features
        self._timeout = timeout
        self._progress = progress
        self._units: list[list[tuple[int, Case]]] = []
        self.outcomes: list[Outcome | None] = [None] * count

    def skip(self, cases: Sequence[Case], dialect: str) -> None:
        """Set aside what cannot be played, and divide the rest into units of work."""
        groups: dict[Any, list[tuple[int, Case]]] = {}
        fresh: list[list[tuple[int, Case]]] = []
        for index, case in enumerate(cases):
            if reason := self._missing(case, dialect):
                self._done(index, Outcome(case, Verdict.SKIP, reason=reason))
            elif case.fresh:
                fresh.append([(index, case)])
            else:
                groups.setdefault(case.session, []).append((index, case))
        for group in groups.values():
            self._units += [group[at : at + SHARED_CASES] for at in range(0, len(group), SHARED_CASES)]
        self._units += fresh

    def _missing(self, case: Case, dialect: str) -> str:
        if dialect not in case.dialects:
            return f"dialect {dialect}"
        needed = set(case.features)
        if case.session == "superjson":
            needed.add("superjson")
        elif not isinstance(case.session, str):
            needed.update(case.session)
        return ", ".join(sorted(needed - self._features))

    def _done(self, index: int, outcome: Outcome) -> None:
        self.outcomes[index] = outcome
        if self._progress is not None:
            self._progress(outcome)

    def _next(self, session: Any) -> list[tuple[int, Case]] | None:
        """A unit of work, of that session if there is one."""
        for index, unit in enumerate(self._units):
            if unit[0][1].session == session and not unit[0][1].fresh:
                return self._units.pop(index)
        return self._units.pop(0) if self._units else None

    async def work(self) -> None:
        """Play units until none is left."""
        unit = self._next(None)
        while unit is not None:
            unit = await self._play_units(unit)

    async def _play_units(self, unit: list[tuple[int, Case]]) -> list[tuple[int, Case]] | None:
        """Play units in one process for as long as they can share it; what is to be played next."""
        first = unit[0][1]
        async with AsyncExitStack() as stack:
            try:
                child = await stack.enter_async_context(start(self._command))
            except StartError as error:
                index, case = unit.pop(0)
                failure = Failure(None, "a testee that starts", str(error))
                self._done(index, Outcome(case, Verdict.ERROR, failure=failure))
                return unit or self._next(None)
            session = Session(child, first.session, self._features, self._timeout, fresh=first.fresh)

            def is_last() -> bool:
                # Asked once a case has passed, so that units are not taken before there is time for them.
                nonlocal unit
                unit = unit or self._next(first.session) or []
                return not unit or unit[0][1].session != first.session or unit[0][1].fresh

            played = 0
            while True:
                index, case = unit.pop(0)
                outcome, ended = await self._play(session, case, played, is_last)
                self._done(index, outcome)
                played += 1
                if ended:
                    return unit or self._next(None)

    async def _play(
        self, session: Session, case: Case, played: int, is_last: Callable[[], bool]
    ) -> tuple[Outcome, bool]:
        """Play a case behind that many others of its process; and whether the process has ended with it."""
        began = time.monotonic()
        child = session.child
        child.begin_case()
        verdict, failure, ended = Verdict.PASS, None, True
        try:
            if not played:
                await hello(session)
            talk = await play(session, case)
            # A process of its own has ended with its case.
            ended = case.fresh or is_last()
            if ended and not case.fresh:
                await leave(talk, played + 1)
        except StepFailed as failed:
            verdict = Verdict.ERROR if failed.crashed else Verdict.FAIL
            if verdict is Verdict.FAIL and case.force != "MUST" and not failed.basic:
                verdict = Verdict.NON_STRICT
            failure = Failure(failed.step, failed.expected, failed.seen, child.trace(), child.stderr_tail())
        except Exception as error:
            # A fault of the kit, or a case that the linter would refuse: the others are played all the same.
            verdict = Verdict.ERROR
            where = traceback.format_exc(limit=-1).splitlines()
            seen = f"the kit itself failed: {error!r}, {' '.join(where[1:3]).strip()}"
            failure = Failure(None, "a case that can be played", seen, child.trace(), child.stderr_tail())
        outcome = Outcome(
            case,
            verdict,
            time.monotonic() - began,
            failure,
            before=played,
            noise=child.noise,
            first_noise=child.first_noise,
        )
        return outcome, ended
