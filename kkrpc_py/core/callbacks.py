"""The functions that this side has passed to the peer, by their ids (CBK-1 to CBK-7).

It owns who holds what: how often each function was passed, and when it may be forgotten. It calls nothing.
"""

from __future__ import annotations

import types
from typing import Any

import msgspec

from kkrpc_py.errors import LimitExceeded

__all__ = ["Passed", "PassedFunctions"]


_DIGITS = 20


class Passed(msgspec.Struct, eq=False):
    """One function that the peer may call."""

    id: str
    function: Any
    key: tuple[int, int | str]
    named_by: Any
    """What was passed: `function`, or what stands for it. It is held, so that its `key` stays its own."""
    count: int = 0
    """Messages that named it and were not given back; a stock peer never gives one back."""
    handler: Any = None
    """Whatever the layer above knows of the function; the core never looks at it."""


class PassedFunctions:
    """At most `most` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_id: dict[str, Passed] = {}
        self._by_key: dict[tuple[int, int | str], Passed] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, id: str) -> Passed | None:
        return self._by_id.get(id)

    def was_known(self, id: str) -> bool:
        """Whether a function was ever passed under `id`."""
        return id.isascii() and id.isdigit() and len(id) < _DIGITS and 0 < int(id) <= self._last

    def add(self, function: Any, named_by: Any) -> Passed:
        """The entry of `function` under that name, the same one each time (CBK-2). Raises LimitExceeded."""
        key = _key(named_by)
        passed = self._by_key.get(key)
        if passed is None:
            if len(self._by_id) >= self._most:
                raise LimitExceeded(
                    f"{self._most} functions are held for the peer (Limits.callbacks): release some"
                )
            self._last += 1
            passed = Passed(str(self._last), function, key, named_by)
            self._by_id[passed.id] = self._by_key[key] = passed
        return passed

    def give_back(self, id: str, count: int) -> bool:
        """The peer holds the function no more, as far as `count` messages go. False: that is too many."""
        passed = self._by_id.get(id)
        if passed is None:
            return True  # released by this side meanwhile
        passed.count -= count
        if passed.count <= 0:
            self._forget(passed)
        return passed.count >= 0

    def forget_unsent(self, passed: Passed) -> None:
        """No message names it after all."""
        if passed.count == 0 and self._by_id.get(passed.id) is passed:
            self._forget(passed)

    def release(self, named_by: Any) -> None:
        """The peer may call what was passed as `named_by` no more."""
        passed = self._by_key.get(_key(named_by))
        if passed is not None:
            self._forget(passed)

    def clear(self) -> None:
        self._by_id.clear()
        self._by_key.clear()

    def _forget(self, passed: Passed) -> None:
        del self._by_id[passed.id], self._by_key[passed.key]


def _key(function: Any) -> tuple[int, int | str]:
    # A bound method is made anew each time it is named. Entries hold its object, so the id stays its own.
    if type(function) is types.MethodType:
        return id(function.__self__), id(function.__func__)
    if type(function) is types.BuiltinMethodType and not isinstance(function.__self__, types.ModuleType):
        return id(function.__self__), function.__name__
    return id(function), 0
