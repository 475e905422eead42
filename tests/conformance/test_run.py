"""Processes and verdicts: who plays in which process, what a failure comes to, and that nothing is left."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from kkrpc_py.conformance import child as child_module
from kkrpc_py.conformance.cases import Case
from kkrpc_py.conformance.child import start
from kkrpc_py.conformance.jsonreport import document
from kkrpc_py.conformance.junit import xml
from kkrpc_py.conformance.report import text
from kkrpc_py.conformance.results import Outcome, Run, Verdict
from kkrpc_py.conformance.run import TesteeUnusable as Unusable  # by its own name pytest takes it for tests
from kkrpc_py.conformance.run import run
from kkrpc_py.conformance.wire import Splitter
from tests.conformance.test_play import SCRIPTED, request, say
from tests.faults.processes import gone

pytestmark = pytest.mark.anyio


def case(id: str, *steps: Any, **more: Any) -> Case:
    usual = {"title": id, "rule": "STR-1", "force": "MUST", "level": 0, "role": "callee"}
    return Case(id=id, steps=steps, **{**usual, **more})


async def play(cases: Sequence[Case], *options: str, **more: Any) -> Run:
    with anyio.fail_after(30):
        return await run([*SCRIPTED, *options], cases, **{"timeout": 3.0, **more})


def verdicts(found: Run) -> list[Verdict]:
    return [outcome.verdict for outcome in found.outcomes]


def passed(id: str = "good", **more: Any) -> Case:
    return case(id, {"call": "echo", "args": [1], "result": 1}, **more)


def failed(id: str = "bad", **more: Any) -> Case:
    return case(id, {"call": "echo", "args": [1], "result": 2}, **more)


def crashed(id: str = "crash", **more: Any) -> Case:
    return case(id, {"call": "exit", "args": [9, "first\nsecond\n"]}, **more)


async def test_a_run_says_who_was_tested_and_how() -> None:
    found = await play([passed()], "floats")
    assert found.command == (*SCRIPTED, "floats")
    assert found.dialect == "classic"
    assert found.testee == {"protocol": 1, "name": "scripted", "version": "0", "features": ["floats"]}
    assert found.passed
    assert 0 < found.outcomes[0].seconds <= found.seconds


DEEP = "[" * 900 + "]" * 900
HUGE = "9" * 6000
ANY_DIGITS = [SCRIPTED[0], "-X", "int_max_str_digits=0", *SCRIPTED[1:]]


async def test_what_nobody_asked_for_and_long_names_are_in_no_report() -> None:
    said = (
        f'{{"protocol":1.0,"name":"{"n" * 5000}","version":"{"v" * 5000}","deep":{DEEP},"huge":{HUGE},'
        f'"features":["floats","floats","{"f" * 5000}"]}}'
    )
    with anyio.fail_after(30):
        found = await run([*ANY_DIGITS, f"describe={said}"], [passed(features=frozenset(("floats",)))])
    kept = {
        "protocol": 1,
        "name": "n" * 200,
        "version": "v" * 200,
        "features": ["floats", "f" * 200],
    }
    assert found.testee == kept
    assert type(found.testee["protocol"]) is int
    assert verdicts(found) == [Verdict.PASS]
    for report in (text, document, xml):
        assert "n" * 50 in report(found, {})


async def test_outcomes_come_in_the_order_of_the_cases_and_progress_as_they_happen() -> None:
    slow = case("slow", {"call": "sleep", "args": [0.5]}, fresh=True)
    cases = [slow, *(passed(f"fresh-{index}", fresh=True) for index in range(4)), passed("shared")]
    seen: list[Outcome] = []
    found = await play(cases, jobs=2, progress=seen.append)
    assert [outcome.case.id for outcome in found.outcomes] == [each.id for each in cases]
    assert {id(outcome) for outcome in seen} == {id(outcome) for outcome in found.outcomes}
    assert seen[0].case.id != "slow"
    assert set(verdicts(found)) == {Verdict.PASS}


async def test_no_cases_are_a_run_too() -> None:
    assert (await play([])).outcomes == ()


async def test_cases_of_a_session_share_a_process_and_fresh_ones_do_not() -> None:
    # `again` tells how often this process was asked that before.
    first, second = {"call": "again", "result": 0}, {"call": "again", "result": 1}
    cases = [
        case("a", first),
        case("b", first, session=("batch",)),
        case("c", first, session="superjson"),
        case("d", first, fresh=True),
        case("e", second),
        case("f", second, session=("batch",)),
        case("g", first, fresh=True),
        case("h", second, session="superjson"),
    ]
    found = await play(cases, "batch", "superjson", jobs=1)
    assert verdicts(found) == [Verdict.PASS] * len(cases)


async def test_after_a_failure_the_process_is_another_one() -> None:
    cases = [
        case("a", {"call": "again", "result": 0}),
        case("b", {"call": "again", "result": "no"}),
        case("c", {"call": "again", "result": 0}),
        case("d", {"call": "again", "result": 1}),
        case("e", {"call": "exit", "args": [0]}),
        case("f", {"call": "again", "result": 0}),
    ]
    found = await play(cases, jobs=1)
    assert [str(verdict) for verdict in verdicts(found)] == ["pass", "fail", "pass", "pass", "error", "pass"]


RELEASE = '{"method":"","args":{"f":1},"type":"callback-release"}'
PASSED = {"method": "f", "args": [], "type": "callback", "callbackIds": ["f"]}
OPENED = {"id": "s", "method": "", "args": {"result": {"__stream": True}}, "type": "response"}
ACK = '{"id":"s","method":"","args":{"n":1,"b":1},"type":"stream-ack"}'


@pytest.mark.parametrize(
    ("steps", "expected", "seen"),
    [
        ([{"call": "at_end", "args": [9]}], "exit 0 within", "it exited with 9"),
        # A code that means something elsewhere is none here.
        ([{"call": "at_end", "args": [4]}], "exit 0 within", "it exited with 4"),
        ([{"call": "stay"}], "exit 0 within 2 seconds", "it runs on"),
        ([{"call": "at_end", "args": [0, '{"id":"c"']}], "FRM-9", "half a frame"),
        (
            [{"call": "at_end", "args": [0, '{"type":"respons"}\n']}],
            "nobody may write",
            "no type of a message",
        ),
        (
            [{"call": "at_end", "args": [0, '{"id":1,"type":"stream-end"}\n']}],
            "no step expects",
            "stream-end",
        ),
        ([{"call": "at_end", "args": [0, ACK]}], "FRM-9", "half a frame"),
        ([{"call": "at_end", "args": [0, ACK + "\n"]}], "no step expects", "stream-ack"),
    ],
    ids=["code", "other-code", "stays", "half", "no-message", "message", "no-line-feed", "ack-of-nothing"],
)
async def test_a_shared_process_that_ends_badly_is_an_error_of_its_last_case(
    steps: list[Any], expected: str, seen: str
) -> None:
    cases = [passed("a"), case("b", *steps), passed("c", force="SHOULD"), passed("d", fresh=True)]
    told: list[Outcome] = []
    found = await play(cases, jobs=1, progress=told.append)
    assert [str(verdict) for verdict in verdicts(found)] == ["pass", "pass", "error", "pass"]
    assert [str(outcome.verdict) for outcome in told] == ["pass", "pass", "error", "pass"]
    failure = found.outcomes[2].failure
    assert failure is not None
    assert failure.step is None
    assert failure.expected.startswith("at the end of a process that has played 3 cases: ")
    assert expected in failure.expected
    assert seen in failure.seen
    assert ("note", b"the end of the input") in [(line.direction, line.data) for line in failure.trace]


@pytest.mark.parametrize("last", ["", "bye\n", "\n\n", f"{RELEASE}\n", f"{ACK}\n{ACK}\n"], ids=range(5))
async def test_a_shared_process_may_say_at_its_end_what_may_come_at_any_time(last: str) -> None:
    passing = [{"send": PASSED}, {"send": OPENED}, {"call": "at_end", "args": [0, last]}]
    found = await play([case("a", *passing, session=("callback", "credit"))], "callback", "credit", jobs=1)
    assert verdicts(found) == [Verdict.PASS], found.outcomes[0].failure
    assert found.outcomes[0].noise == (last == "bye\n")


async def test_each_process_ends_with_a_case_of_its_own() -> None:
    # Each session has a process, and so has what comes behind a failure.
    end = {"call": "at_end", "args": [9]}
    cases = [
        case("a", end),
        failed("b"),
        case("c", end),
        case("d", end, session=("batch",)),
        case("e", end, session="superjson"),
    ]
    found = await play(cases, "batch", "superjson", jobs=1)
    assert [str(verdict) for verdict in verdicts(found)] == ["pass", "fail", "error", "error", "error"]
    assert [outcome.before for outcome in found.outcomes] == [0, 1, 0, 0, 0]


async def test_what_nobody_may_write_is_seen_by_the_next_case_at_the_latest() -> None:
    # Said with the answer to the last question of the case, or right behind it.
    late = case("a", {"call": "after_reset", "args": ['{"type":"respons"}']})
    found = await play([late, passed("b"), passed("c")], jobs=1)
    assert sorted(map(str, verdicts(found)[:2])) == ["fail", "pass"]
    assert verdicts(found)[2] is Verdict.PASS


async def test_what_a_case_left_unread_is_not_seen_by_the_next() -> None:
    cases = [
        case("a", {"send": PASSED}, say(RELEASE), session=("callback",)),
        case("b", {"expect": {"type": "callback-release", "args": {"f": 1}}}, session=("callback",)),
    ]
    found = await play(cases, "callback", jobs=1, timeout=1.5)
    assert verdicts(found) == [Verdict.PASS, Verdict.FAIL]


async def test_force_decides_what_a_failure_is_but_a_crash_is_always_one() -> None:
    cases = [
        failed("must"),
        failed("should", force="SHOULD"),
        failed("may", force="MAY"),
        crashed("crash"),
        crashed("crash-should", force="SHOULD", fresh=True),
    ]
    found = await play(cases)
    assert verdicts(found) == [
        Verdict.FAIL,
        Verdict.NON_STRICT,
        Verdict.NON_STRICT,
        Verdict.ERROR,
        Verdict.ERROR,
    ]
    assert not found.passed


async def test_who_does_not_even_answer_is_never_forgiven() -> None:
    cases = [
        case("answer", {"call": "hang"}, force="SHOULD", fresh=True),
        case("error", {"call": "nope"}, force="MAY"),
        case(
            "reading",
            {"send": request("hang")},
            {"write": [{"text": "x" * 200_000}]},
            force="MAY",
            fresh=True,
        ),
        case("end", {"call": "exit_later", "args": []}, force="SHOULD"),
        case("expect", {"expect": {"id": 1}}, force="SHOULD", fresh=True),
    ]
    found = await play(cases, timeout=1.5, jobs=4)
    assert [str(verdict) for verdict in verdicts(found)] == ["fail", "fail", "fail", "fail", "non-strict"]


async def test_noise_is_counted_and_its_first_line_kept() -> None:
    cases = [
        case("a", say("first " + "x" * 300, "second")),
        passed("b"),
        case("c", say("third"), {"call": "nope"}),
        passed("d"),
    ]
    found = await play(cases, jobs=1)
    assert [(outcome.noise, outcome.first_noise[:7]) for outcome in found.outcomes] == [
        (2, b"first x"),
        (0, b""),
        (1, b"third"),
        (0, b""),
    ]
    assert len(found.outcomes[0].first_noise) == 200


@pytest.mark.parametrize(("size", "times"), [(200_000, 20), (10, 2000)], ids=["long", "many"])
async def test_what_floods_the_kit_is_read_no_more(
    size: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "INBOX_BYTES", 1_000_000)
    found = await play([case("flood", {"call": "flood", "args": [size, times]}), passed()], jobs=1)
    assert verdicts(found) == [Verdict.FAIL, Verdict.PASS]
    failure = found.outcomes[0].failure
    assert failure is not None
    assert failure.seen == "more than 1000000 bytes that no step has expected"


async def test_an_error_while_reading_ends_the_case_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Splitter.feed

    def broken(self: Splitter, data: bytes) -> Any:
        if b"trap" in data:
            raise MemoryError("no room")
        return feed(self, data)

    monkeypatch.setattr(Splitter, "feed", broken)
    found = await play([case("a", {"call": "echo", "args": ["trap"]}), passed()], jobs=1)
    assert verdicts(found) == [Verdict.FAIL, Verdict.PASS]
    failure = found.outcomes[0].failure
    assert failure is not None
    assert "MemoryError('no room')" in failure.seen


async def test_a_failure_has_the_trace_and_the_stderr() -> None:
    found = await play([passed(), crashed()], jobs=1)
    failure = found.outcomes[1].failure
    assert failure is not None
    assert failure.step == 0
    assert failure.seen == "it closed its output and exited with 9"
    assert failure.stderr_tail == "first\nsecond"
    assert [str(line.direction) for line in failure.trace] == ["note", "to testee"]
    assert failure.trace[1].data.startswith(b'{"id":"kit:')
    # Nothing of the case before, and the time counts from the beginning of this one.
    assert 0 <= failure.trace[0].seconds <= failure.trace[1].seconds < found.outcomes[1].seconds
    assert found.outcomes[0].failure is None


async def test_more_cases_than_one_worker_takes_at_once_share_its_process() -> None:
    cases = [case(f"c{index}", {"call": "again", "result": index}) for index in range(45)]
    assert set(verdicts(await play(cases, jobs=1))) == {Verdict.PASS}
    # Two workers have a process each: no case sees what a third one would.
    cases = [case(f"c{index}", {"call": "again", "result": {"$type": "integer"}}) for index in range(45)]
    assert set(verdicts(await play(cases, jobs=2))) == {Verdict.PASS}


async def test_a_testee_that_starts_no_more_is_an_error_of_each_case_that_needs_it(tmp_path: Path) -> None:
    command = tmp_path / "testee"
    command.symlink_to(sys.executable)
    cases = [passed("a", fresh=True), passed("b", fresh=True), passed("c"), passed("d")]
    with anyio.fail_after(20):
        found = await run(
            [str(command), *SCRIPTED[1:]],
            cases,
            jobs=1,
            progress=lambda outcome: command.unlink(missing_ok=True),
        )
    # Those that share a process are played first, in it.
    assert [str(verdict) for verdict in verdicts(found)] == ["error", "error", "pass", "pass"]
    failure = found.outcomes[0].failure
    assert failure is not None
    assert failure.step is None
    assert "No such file" in failure.seen


async def test_a_case_that_no_linter_would_let_pass_does_not_end_the_run() -> None:
    cases = [
        case("a", {"call": 5, "args": [object()]}),
        case("b", {"send": 5}),
        case("c", {"acks": 5}),
        passed(),
    ]
    found = await play(cases, jobs=1, timeout=1.5)
    assert [str(verdict) for verdict in verdicts(found)][2:] == ["error", "pass"]
    failure = found.outcomes[2].failure
    assert failure is not None
    assert "the kit itself failed: TypeError" in failure.seen
    assert "play.py" in failure.seen


async def test_a_trace_has_both_directions_noise_and_what_is_not_complete() -> None:
    half = case("half", say("noise"), {"call": "half", "args": ['{"id']})
    found = await play([half], timeout=1.5)
    failure = found.outcomes[0].failure
    assert failure is not None
    told = [(line.direction, line.data) for line in failure.trace]
    assert ("from testee", b"noise") in told
    assert told[-1] == ("note", b"the last line is not complete")
    assert told[-2][1].startswith(b'{"id')
    assert sorted(line.seconds for line in failure.trace) == [line.seconds for line in failure.trace]


async def test_a_long_trace_keeps_its_beginning_and_its_end() -> None:
    many = case("many", say(*(f"noise {index} {'x' * 9000}" for index in range(1000))), {"call": "nope"})
    failure = (await play([many])).outcomes[0].failure
    assert failure is not None
    told = [line.data for line in failure.trace]
    assert len(told) == 601
    assert any(data.startswith(b"noise 1 ") and len(data) < 5000 for data in told)
    assert any(data.startswith(b"noise 999 ") for data in told)
    assert [data for data in told if data.endswith(b"lines left out")]


async def test_what_the_testee_has_not_is_skipped() -> None:
    cases = [
        passed("needs", features=frozenset(("floats", "noise"))),
        passed("superjson", session="superjson"),
        passed("list", session=("credit", "batch")),
        passed("all", session="all"),
        passed("dialect", dialects=("compact",)),
    ]
    found = await play(cases, "floats", "credit")
    assert [(str(outcome.verdict), outcome.reason) for outcome in found.outcomes] == [
        ("skip", "noise"),
        ("skip", "superjson"),
        ("skip", "batch"),
        ("pass", ""),
        ("skip", "dialect classic"),
    ]
    assert found.passed


@pytest.mark.parametrize("answer", ['"no"', '{"protocol":1}', '{"features":[1]}', "null"])
async def test_an_answer_to_hello_of_another_form_fails_the_case(answer: str) -> None:
    found = await play([passed(session="all")], f"hello={answer}")
    failure = found.outcomes[0].failure
    assert found.outcomes[0].verdict is Verdict.FAIL
    assert failure is not None
    assert failure.step is None
    assert "HEL-2" in failure.expected


UNUSABLE: list[tuple[list[str], str]] = [
    (["/nonexistent/testee"], "No such file"),
    ([*SCRIPTED, 'describe="no"'], "describe()"),
    ([*SCRIPTED, 'describe={"protocol":1,"name":"x","version":"1","features":[1]}'], "features: text alone"),
    (
        [*SCRIPTED, 'describe={"protocol":true,"name":"x","version":"1","features":[]}'],
        ".protocol: 1, seen true",
    ),
    (
        [*SCRIPTED, 'describe={"protocol":2,"name":"x","version":"1","features":[]}'],
        ".protocol: 1, seen 2",
    ),
    (
        [*ANY_DIGITS, f'describe={{"protocol":{HUGE},"name":"x","version":"1","features":[]}}'],
        ".protocol: 1, seen",
    ),
    ([*ANY_DIGITS, f'describe={{"protocol":1,"name":{HUGE}}}'], ".name: a string"),
    ([*SCRIPTED, f'describe={{"protocol":1,"name":{DEEP}}}'], ".name: a string"),
    (
        [*SCRIPTED, f'describe={{"protocol":1,"name":"x","version":"1","features":[{DEEP}]}}'],
        "features: text alone",
    ),
    ([sys.executable, "-c", "import sys; sys.exit('cannot go on')"], "exited with 1\ncannot go on"),
    ([sys.executable, "-c", "import time; time.sleep(60)"], "nothing of it within"),
    ([sys.executable, "-c", "print('hello'); import time; time.sleep(60)"], "nothing of it within"),
]


async def test_a_testee_that_cannot_be_used() -> None:
    async def try_it(command: list[str], reason: str) -> None:
        with pytest.raises(Unusable) as caught:
            await run(command, [passed()], timeout=2)
        assert reason in str(caught.value)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for command, reason in UNUSABLE:
                tasks.start_soon(try_it, command, reason)


# Nothing is left ------------------------------------------------------------------------------------


async def spawned(file: Path) -> int:
    """The process that the testee has written down, once it has."""
    while not (file.exists() and (text := file.read_text())):
        await anyio.sleep(0.01)
    return int(text)


ENDS: dict[str, list[Any]] = {
    "passed": [],
    "failed": [{"call": "nope"}],
    "crashed": [{"call": "exit", "args": [1]}],
    "hangs": [{"call": "hang"}],
}


async def test_what_the_testee_started_is_ended_with_it(tmp_path: Path) -> None:
    files = {f"{name}-{fresh}": (steps, fresh) for name, steps in ENDS.items() for fresh in (True, False)}
    cases = [
        case(name, {"call": "spawn", "args": [str(tmp_path / name)]}, *steps, fresh=fresh)
        for name, (steps, fresh) in files.items()
    ]
    found = await play(cases, jobs=4, timeout=2)
    assert [str(verdict) for verdict in verdicts(found)] == [
        *("pass", "pass", "fail", "fail", "error", "error", "fail", "fail")
    ]
    with anyio.fail_after(5):
        for name in files:
            assert await gone(await spawned(tmp_path / name), 3)


async def test_who_leaves_its_output_to_a_process_out_of_reach_has_not_closed_it(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    steps = [{"call": "spawn", "args": [str(file), True]}, {"end_input": True}, {"exit": 0}]
    found = await play([case("c", *steps, fresh=True)])
    os.kill(await spawned(file), signal.SIGKILL)
    failure = found.outcomes[0].failure
    assert failure is not None
    assert failure.step == 2
    assert failure.seen == "somebody still holds its output open"


async def test_a_run_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:

            async def go() -> None:
                await run(
                    SCRIPTED,
                    [case("c", {"call": "spawn", "args": [str(file)]}, {"call": "hang"})],
                    timeout=60,
                )

            tasks.start_soon(go)
            pid = await spawned(file)
            tasks.cancel_scope.cancel()
        assert await gone(pid, 3)


async def test_an_error_of_the_kit_itself_leaves_nothing_and_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "pids"

    def progress(outcome: Outcome) -> None:
        raise RuntimeError("a report that cannot be written")

    with pytest.raises(BaseExceptionGroup) as caught:
        await play([case("c", {"call": "spawn", "args": [str(file)]})], progress=progress)
    assert caught.group_contains(RuntimeError, match="cannot be written")
    assert await gone(await spawned(file), 3)


async def test_a_child_is_reaped_and_its_pipes_are_closed() -> None:
    before = set(os.listdir("/dev/fd"))
    with anyio.fail_after(10):
        async with start(SCRIPTED) as child:
            pid = child.pid
            assert not child.has_exited()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert set(os.listdir("/dev/fd")) <= before
