"""What the channel tests share: linked pairs with a bound, and the check that nothing is left behind.

This module owns no test. A peer without `hello` on either side stands for a stock one: nothing is agreed.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio

import kkrpc_py as kk

BOUND = 20.0
"""Seconds that a test may wait altogether. Far above what any test takes."""


@contextlib.asynccontextmanager
async def linked(
    api: Any, client_api: Any = None, *, quiet: bool = True, **options: Any
) -> AsyncIterator[tuple[kk.RPCChannel, kk.RPCChannel]]:
    """A server that exposes `api` and its client, ready; at the end of the block nothing may be left."""
    with anyio.fail_after(BOUND):
        async with kk.memory_pair(api, client_api, **options) as (server, client):
            if options.get("hello", True):
                await client.ready()
                await server.ready()
            yield server, client
            if quiet:
                await assert_quiet(server, client)


async def assert_quiet(*channels: kk.RPCChannel) -> None:
    """Wait until the tables of all channels are empty and no handler runs.

    Between peers that agreed, nobody broke a rule and no function is held; what crosses a cancel toward a
    stock peer is counted, and functions stay with it.
    """
    with anyio.fail_after(BOUND):
        for channel in channels:
            if channel.connection.calls_back:
                await until(lambda channel=channel: holds_no_function(channel))  # type: ignore[misc]  # see below
            await until(
                lambda channel=channel: (  # type: ignore[misc]  # mypy infers no lambda's default
                    not channel.connection.outgoing
                    and not channel.connection.incoming
                    and not channel._pool._running
                    and not channel._pool._jobs
                ),
            )
            connection = channel.connection
            # Counted beside the tables: streams within values, both ways, and what of them lies unread.
            assert (connection._arguments, connection._offered, connection._argument_bytes) == (0, 0, 0)
            if connection.agreed is not None:
                assert connection.violations == 0


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """What is kept by a cycle stays, and is seen to stay."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def holds_no_function(channel: kk.RPCChannel) -> bool:
    """Neither side's functions are held for the other."""
    return not len(channel.connection.passage.functions) and not len(channel.callbacks)


async def until(condition: Callable[[], bool]) -> None:
    """Let the other tasks run until `condition` holds; the caller bounds the wait."""
    turns = 0
    while not condition():
        turns += 1
        await anyio.sleep(0 if turns < 100 else 0.001)  # a thread, or another process, has yet to report


def handler_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("kkrpc_py")]


async def threads_gone(before: list[threading.Thread]) -> None:
    with anyio.fail_after(BOUND):
        await until(lambda: set(handler_threads()) <= set(before))


class Log:
    """What happened, in order, and a way to wait for the next thing. Threads may write into it too."""

    def __init__(self) -> None:
        self.entries: list[Any] = []
        self._changed: anyio.Event | None = None
        self._loop_thread = threading.get_ident()

    def __call__(self, entry: Any) -> None:
        self.entries.append(entry)
        if threading.get_ident() == self._loop_thread and self._changed is not None:
            self._changed.set()
            self._changed = None

    async def wait_for(self, entry: Any) -> None:
        while entry not in self.entries:
            self._changed = changed = self._changed or anyio.Event()
            with anyio.move_on_after(0.01):  # a thread cannot set the event
                await changed.wait()
