"""`Producing`: what whoever produces holds, of a stream to subscribers as of an upload.

It owns the three surfaces (write, error and close; an anyio send stream; `pipe_from`) and how they end. Where
the values go is its subclasses' business.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterable
from types import TracebackType
from typing import TypeVar

import anyio
from anyio.abc import ObjectSendStream
from anyio.lowlevel import checkpoint

from kkrpc_py.channel.signals import CancelSignal
from kkrpc_py.errors import CallCancelled, StreamClosed, WouldBlock
from kkrpc_py.limits import Limits

__all__ = ["Producing"]

_CLEANUP_SECONDS = Limits().cleanup_seconds
"""What the cleanup of a source may take."""

T_contra = TypeVar("T_contra", contravariant=True)


class Producing(ObjectSendStream[T_contra]):
    """Takes values until `close` or `error`; both are final, and only the first of them counts.

    `async with` closes it at the end of the block; an exception that leaves the block, a
    cancellation too, becomes the stream's error: nobody takes half of it for the whole.
    """

    __kkrpc_unlisted__ = True

    def __init__(self, id: str) -> None:
        self.id = id
        """What the other side names it by; hard to guess unless it was given."""
        self.signal = CancelSignal()
        """Set when nobody wants it any more."""

    @property
    @abstractmethod
    def closed(self) -> bool:
        """It has ended, in whatever way: nothing can be written any more."""

    @abstractmethod
    def write(self, value: T_contra) -> None:
        """Hand on `value` without waiting.

        Raises WouldBlock where there is no room, StreamClosed after the end, NotSerializable and
        LimitExceeded for what cannot be sent.
        """

    @abstractmethod
    async def wait_room(self) -> None:
        """Wait until `write` may find room, or the end."""

    @abstractmethod
    def error(self, exc: BaseException | str) -> None:
        """End it: after what was written, the reader's loop raises that error. Nothing after the end."""

    @abstractmethod
    def close(self) -> None:
        """End it: the reader's loop ends after what was written. Nothing after the end."""

    async def send(self, item: T_contra) -> None:
        """As `write`, but waits for room."""
        await checkpoint()
        while True:
            try:
                return self.write(item)
            except WouldBlock:
                await self.wait_room()

    async def aclose(self) -> None:
        """As `close`."""
        self.close()
        await checkpoint()

    async def pipe_from(self, source: AsyncIterable[T_contra]) -> None:
        """Send what `source` yields, and close.

        Where nobody wants it any more, `source` is cancelled and closed, and this returns. What `source`
        raises becomes the stream's error and is raised here too.
        """
        with anyio.CancelScope() as scope:
            self.signal.on_cancel(scope.cancel)
            try:
                await self._pipe(source)
            finally:
                self.signal.forget(scope.cancel)

    async def _pipe(self, source: AsyncIterable[T_contra]) -> None:
        iterator = aiter(source)
        try:
            async for value in iterator:
                await self.send(value)
        except anyio.get_cancelled_exc_class():
            self.error(CallCancelled("the producer was cancelled"))
            raise
        except StreamClosed:
            if not self.signal.cancelled:
                raise
        except BaseException as exc:
            self.error(exc)
            raise
        finally:
            aclose = getattr(iterator, "aclose", None)
            if aclose is not None:
                with anyio.move_on_after(_CLEANUP_SECONDS, shield=True):
                    await aclose()
        self.close()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is None:
            await self.aclose()
        else:
            self.error(exc if isinstance(exc, Exception) else CallCancelled("the producer was cancelled"))
