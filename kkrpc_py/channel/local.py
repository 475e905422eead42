"""A call of this side's own API by itself, the way that the peer's calls take, without the wire.

It owns the life of such a call and of the stream that it may return; everything on the way is
`channel.dispatch`'s, `channel.expose`'s and the interceptors'.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import anyio

from kkrpc_py.channel.dispatch import Dispatcher
from kkrpc_py.channel.expose import Handler, Runs
from kkrpc_py.channel.interceptors import CallContext, wrap
from kkrpc_py.channel.task import checked, is_stream, settle

__all__ = ["invoke_local"]


async def invoke_local(dispatcher: Dispatcher, method: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """What the peer would get from calling `method`: a value, or an async iterator over a stream's values."""
    handler = dispatcher.exposed.find(method)
    ctx = CallContext(method, args, kwargs, local=True)
    streams: list[Any] = []

    def note(result: Any) -> None:
        if is_stream(result) and not any(result is known for known in streams):
            streams.append(result)

    async def innermost() -> Any:
        args, kwargs = checked(handler, ctx.args, ctx.kwargs, method)
        if handler.sink is not None:
            raise TypeError(f"{handler.name}() takes a StreamSink: without a peer there is nobody to send to")
        if handler.runs is Runs.ON_THREAD:
            result = await dispatcher.threads.run(handler.function, *args, **kwargs)
        else:
            result = handler.function(*args, **kwargs)
        return await settle(handler, result, dispatcher.generator_threads, method)

    returned = False
    try:
        result = await wrap(dispatcher.interceptors, ctx, innermost, note)
        if is_stream(result):
            returned = True
            return _values(result, handler, method, streams, dispatcher)
        return result
    finally:
        if not returned:
            await _close(streams, dispatcher)


async def _values(
    outermost: Any, handler: Handler, method: str, streams: list[Any], dispatcher: Dispatcher
) -> AsyncIterator[Any]:
    validator = handler.validator
    try:
        async for value in outermost:
            yield value if validator is None else validator.chunks([value], method)[0]
    finally:
        await _close(streams, dispatcher)


async def _close(streams: list[Any], dispatcher: Dispatcher) -> None:
    """Close every layer's iterator, the outermost first, each within `Limits.cleanup_seconds`."""
    async with contextlib.AsyncExitStack() as closing:
        for stream in streams:
            aclose = getattr(stream, "aclose", None)
            if aclose is not None:
                closing.push_async_callback(_bounded, aclose, dispatcher)


async def _bounded(aclose: Any, dispatcher: Dispatcher) -> None:
    with anyio.move_on_after(dispatcher.host.connection.limits.cleanup_seconds, shield=True):
        await aclose()
