"""What a channel holds of its peer, and for it, that is more than values: functions and streams within them.

It makes the objects that the application sees; which messages name them is `core.passing`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from types import GeneratorType
from typing import Any

from kkrpc_py.channel.callbacks import CallbackHost, HeldCallbacks, LocalCallback, RemoteCallback
from kkrpc_py.channel.stream import StreamCall, StreamReceiver
from kkrpc_py.channel.threads import ThreadedGenerator, Threads
from kkrpc_py.core.callbacks import PassedFunctions
from kkrpc_py.core.calls import IncomingCall

__all__ = ["Holding"]


class Holding:
    """The `Holder` of one channel."""

    def __init__(self, host: CallbackHost, callbacks: HeldCallbacks) -> None:
        self._host = host
        self._callbacks = callbacks
        self.generator_threads: Threads
        self.send: Callable[[IncomingCall, Any], None]
        """Sends a stream; the dispatcher's."""

    def callback(self, id: str) -> RemoteCallback[..., Any]:
        return self._callbacks.get(id)

    def argument(self, id: str) -> StreamCall[Any]:
        call = self._host.connection.accept(id)
        call.owner = receiver = StreamReceiver(self._host, call)
        return StreamCall(receiver)

    def unwrapped(self, value: Any, functions: PassedFunctions) -> Any:
        if isinstance(value, LocalCallback):
            value.pass_to(functions)
            return value.function
        return value

    def produce(self, call: IncomingCall, iterable: Any) -> None:
        self.send(call, iterable)

    def producible(self, value: Any) -> Any:
        if hasattr(type(value), "__aiter__"):
            return value
        if type(value) is GeneratorType:
            return ThreadedGenerator(value, self.generator_threads)
        if hasattr(type(value), "__next__"):
            return ThreadedGenerator((item for item in value), self.generator_threads)
        return None
