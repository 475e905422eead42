"""`Home`: the thread whose event loop a hub belongs to, so that a call from another one is refused."""

from __future__ import annotations

from threading import get_ident

__all__ = ["Home"]


class Home:
    """Not known before the first connection: until then a hub may be filled on any thread."""

    __slots__ = ("_thread",)

    def __init__(self) -> None:
        self._thread: int | None = None

    @property
    def known(self) -> bool:
        return self._thread is not None

    @property
    def elsewhere(self) -> bool:
        """The running thread is another one."""
        return self._thread is not None and self._thread != get_ident()

    def settle(self) -> None:
        """It is this thread."""
        self._thread = get_ident()

    def check(self) -> None:
        """Raises RuntimeError on another thread."""
        if self._thread is not None and self._thread != get_ident():
            raise RuntimeError(
                "a hub belongs to one event loop, and this is another thread: "
                "make the handler an `async def`, or mark it @kk.inline"
            )
