"""Parking one task: a wake is never lost, a cancellation leaves nothing behind."""

from __future__ import annotations

import anyio
import pytest

from kkrpc_py.channel.parking import Signal, current_parking
from tests.channel.harness import BOUND

pytestmark = pytest.mark.anyio


async def test_a_wake_that_comes_first_is_not_lost() -> None:
    parking = current_parking()
    place = parking.new()
    parking.wake(place)
    with anyio.fail_after(BOUND):
        await place


async def test_a_place_may_be_woken_again_and_after_its_cancellation() -> None:
    parking = current_parking()
    woken, cancelled = parking.new(), parking.new()

    async def wait() -> None:
        await woken

    async def give_up() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await cancelled

    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tg:
            tg.start_soon(wait)
            tg.start_soon(give_up)
            await anyio.wait_all_tasks_blocked()
            for _ in range(2):
                parking.wake(woken)
                parking.wake(cancelled)


async def test_a_signal_wakes_all_who_wait_and_forgets_who_gave_up() -> None:
    signal = Signal(current_parking())
    woken = 0

    async def wait() -> None:
        nonlocal woken
        await signal.wait()
        woken += 1

    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as tg:
            for _ in range(3):
                tg.start_soon(wait)
            for _ in range(100):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await signal.wait()
            await anyio.wait_all_tasks_blocked()
            assert woken == 0
            assert len(signal._waiting) == 3
            signal.wake()
        assert woken == 3
        assert not signal._waiting
