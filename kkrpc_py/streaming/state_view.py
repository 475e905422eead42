"""`StateView`: what both ends of a shared state show, its value, its version and its changes.

It owns the document, which nobody else ever gets: whoever wants to read gets a copy. How it changes is
`streaming.state`'s and `streaming.remote_state`'s business.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from kkrpc_py.streaming.documents import copied

__all__ = ["StateChange", "StateView"]

_log = logging.getLogger("kkrpc_py")


class StateChange:
    """One change of a shared state, as `on_change` tells of it."""

    __slots__ = ("_document", "_patch", "version")

    def __init__(self, version: int, document: Any, patch: list[dict[str, Any]] | None) -> None:
        self.version = version
        """The version that it made."""
        self._document = document
        self._patch = patch

    @property
    def value(self) -> Any:
        """The whole value at that version: a copy, made at each access."""
        return copied(self._document)

    @property
    def patch(self) -> list[dict[str, Any]] | None:
        """The operations (RFC 6902) that led there from the version before.

        None where a client was given the whole value.
        """
        patch: list[dict[str, Any]] | None = copied(self._patch)
        return patch

    def __repr__(self) -> str:
        return f"<StateChange version={self.version}>"


class StateView:
    """The value of a shared state, which is never changed in place."""

    __kkrpc_unlisted__ = True

    def __init__(self, name: str) -> None:
        self.name = name
        self._document: Any = None
        self._version = 0
        self._observers: dict[object, Callable[[StateChange], object]] = {}
        self._untold: deque[StateChange] = deque()
        self._telling = False

    @property
    def version(self) -> int:
        """1 is the first, and each change makes the next one."""
        return self._version

    @property
    def value(self) -> Any:
        """The value now: a copy, yours to keep and to change. To read a part of a large one, use `at`."""
        return copied(self._document)

    def at(self, *path: str | int) -> Any:
        """A copy of a part: `state.at("messages", -1)` is `state.value["messages"][-1]`, at less cost.

        Raises KeyError, IndexError or TypeError, as that would.
        """
        part = self._document
        for step in path:
            part = part[step]
        return copied(part)

    def on_change(self, callback: Callable[[StateChange], object]) -> Callable[[], None]:
        """Call `callback` after each change from now on, on the event loop; what this returns ends that.

        What it raises is logged. It may change the state: that change is told of after this one.
        """
        key = object()
        self._observers[key] = callback

        def forget() -> None:
            self._observers.pop(key, None)

        return forget

    def _become(self, version: int, document: Any, patch: list[dict[str, Any]] | None) -> None:
        """Take a new document, and tell everybody."""
        self._document, self._version = document, version
        self._untold.append(StateChange(version, document, patch))
        if self._telling:
            return
        self._telling = True
        try:
            while self._untold:
                self._tell(self._untold.popleft())
        finally:
            self._telling = False

    def _tell(self, change: StateChange) -> None:
        for callback in tuple(self._observers.values()):
            try:
                callback(change)
            except Exception:
                _log.exception("a callback of the shared state %r failed", self.name)
