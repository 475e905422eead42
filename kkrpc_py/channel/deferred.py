"""`Deferred`: what is a coroutine to the event loops, and runs nothing before it is stepped.

It owns the coroutine protocol. What is run, and how often, is said by what derives from it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Coroutine, Generator
from types import CodeType
from typing import Any, ClassVar

__all__ = ["Deferred"]


class Deferred(Coroutine[Any, Any, Any]):
    """`create_task`, `start_soon` and `await` take it for the coroutine that `_start` makes."""

    __slots__ = ()

    _coroutine: Coroutine[Any, Any, Any] | None
    _code: ClassVar[CodeType]
    """Of that coroutine, for who shows what runs."""

    @abstractmethod
    def _start(self) -> Coroutine[Any, Any, Any]:
        """Set `_coroutine`, and return it. Raises RuntimeError for a second time."""

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._start().__await__()

    def send(self, value: Any) -> Any:
        return (self._coroutine or self._start()).send(value)

    def throw(self, *exc: Any) -> Any:
        return (self._coroutine or self._start()).throw(*exc)

    @property
    def cr_running(self) -> bool:
        return bool(getattr(self._coroutine, "cr_running", False))

    @property
    def cr_suspended(self) -> bool:
        return bool(getattr(self._coroutine, "cr_suspended", False))

    @property
    def cr_frame(self) -> Any:
        return getattr(self._coroutine, "cr_frame", None)

    @property
    def cr_await(self) -> Any:
        return getattr(self._coroutine, "cr_await", None)

    @property
    def cr_code(self) -> CodeType:
        return self._code
