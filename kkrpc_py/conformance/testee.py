"""The reference testee: `python -m kkrpc_py.conformance.testee [--backend asyncio|trio]`.

This module owns the process: the channel over its stdio, the limits that the cases know, and the exit code.
What it exposes is in `testee_api`.
"""

from __future__ import annotations

import sys

import anyio

import kkrpc_py as kk
from kkrpc_py.conformance.testee_api import API, remember_meta

# `serve_stdio` keeps its channel to itself, and with it why it was closed; and the ways to a channel import
# sockets, TLS and subprocesses, which a testee that starts hundreds of times can do without.
from kkrpc_py.transports.stdio import open_stdio

__all__ = ["main"]

LIMITS = kk.Limits(
    frame=262_144,
    noise=4_096,
    depth=128,
    digits=1_000,
    id_bytes=256,
    calls=64,
    call_bytes=1_048_576,
    callbacks=64,
    stock_stream_buffer=524_288,
    send_max=1_048_576,
)
_EXIT_CODES = {kk.ProtocolError: 3, kk.LimitExceeded: 4}
_USAGE = "usage: python -m kkrpc_py.conformance.testee [--backend asyncio|trio]"


async def serve() -> int:
    """Serve the kit until the channel is closed; returns the exit code, which says why it was."""
    api = API(LIMITS)
    channel = kk.RPCChannel(
        open_stdio(),
        expose=api,
        hello=False,
        limits=LIMITS,
        interceptors=[remember_meta],
        passthrough=api._note_noise,
    )
    channel.begin_with(b"\n")  # FRM-12, as `serve_stdio` does
    channel.state.bench = api._bench  # for the checks of its action
    async with anyio.create_task_group() as tasks, channel:
        api.hub._attach(channel, tasks)
        await channel.wait_closed()
        api._end()
        tasks.cancel_scope.cancel()
        try:
            await channel.ready()
        except kk.ChannelClosed as closed:
            return _EXIT_CODES.get(type(closed.__cause__), 0)  # type: ignore[arg-type]  # None is no key
    return 0


def main() -> None:
    """Run the process."""
    match sys.argv[1:]:
        case []:
            backend = "asyncio"
        case ["--backend", ("asyncio" | "trio") as backend]:
            pass
        case _:
            sys.exit(_USAGE)
    sys.exit(anyio.run(serve, backend=backend))


if __name__ == "__main__":
    main()
