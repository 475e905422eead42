"""A call of this side's own API by itself, the way that the peer's calls take, without the wire.

It owns the life of such a call and of the stream that it may return; everything on the way is
`channel.dispatch`'s, `channel.expose`'s and the interceptors'.
"""

from __future__ import annotations

import contextlib
from typing import Any

import anyio

from kkrpc_py.channel.current import current
from kkrpc_py.channel.dispatch import Dispatcher
from kkrpc_py.channel.expose import Runs
from kkrpc_py.channel.interceptors import CallContext, wrap
from kkrpc_py.channel.sink import SinkStream
from kkrpc_py.channel.task import CheckedStream, checked, is_stream, settle
from kkrpc_py.channel.threads import ThreadedGenerator

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
        result = await settle(handler, result, dispatcher.generator_threads, method)
        if handler.validator is not None and handler.validator.checks_chunks and is_stream(result):
            note(result)
            return CheckedStream(result, handler.validator, method)
        return result

    returned = False
    try:
        result = await wrap(dispatcher.interceptors, ctx, innermost, note)
        if isinstance(result, SinkStream):
            raise TypeError(f"{handler.name}() sends its stream: without a peer there is nobody to send to")
        if is_stream(result):
            values = _Values(result, streams, dispatcher)
            returned = True
            return values
        return result
    finally:
        if not returned:
            await _close(streams, dispatcher)


class _Values:
    """The values of a stream, for which the channel is the current one as for the handler itself."""

    def __init__(self, outermost: Any, streams: list[Any], dispatcher: Dispatcher) -> None:
        self._streams: list[Any] = []
        self._iterator = aiter(outermost)
        self._streams = [*streams, *([] if self._iterator is outermost else [self._iterator])]
        self._dispatcher = dispatcher
        self._channel = current.get()

    def __aiter__(self) -> _Values:
        return self

    async def __anext__(self) -> Any:
        token = current.set(self._channel)
        try:
            return await anext(self._iterator)
        except BaseException:
            await self.aclose()
            raise
        finally:
            current.reset(token)

    def __del__(self) -> None:
        # A generator of a thread's waits there to be stopped; others are the event loop's to finish.
        for stream in self._streams:
            source = getattr(stream, "__wrapped__", stream)
            if isinstance(source, ThreadedGenerator):
                source.stop()

    async def aclose(self) -> None:
        streams, self._streams = self._streams, []
        await _close(streams, self._dispatcher)


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
