"""The way of chunks to a connection, by itself."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from kkrpc_py.limits import Limits
from kkrpc_py.web.encoding import ValueWriter
from kkrpc_py.web.outlet import PlainOutlet

pytestmark = pytest.mark.anyio


async def test_who_never_waits_gives_others_their_turn() -> None:
    """ACT-9: small chunks, for which there is room, do not hold up the event loop."""
    outlet = PlainOutlet(ValueWriter(Limits()))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            for number in range(2000):
                await outlet.send(number)
            assert turns >= 3
            assert not outlet.outbox.full
            tasks.cancel_scope.cancel()
