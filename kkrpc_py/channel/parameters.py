"""`Parameters`: the arguments of one call, put where the API's signature has them.

This module owns the binding on the caller's side. What the callee makes of them is its own affair.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["Parameters"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_PLAIN = (type(None), bool, int, float, str, bytes)
"""A default of one of these types may be sent in a gap: every peer understands it."""


class Parameters:
    """What a method takes."""

    __slots__ = ("_label", "_least", "_most", "_signature")

    def __init__(self, label: str, signature: inspect.Signature | None) -> None:
        """`signature`, without `self`; None: nothing is known of it, and nothing checked."""
        self._label = label
        self._signature = signature
        self._least, self._most = 0, sys.maxsize
        if signature is None:
            return
        kinds = [parameter.kind for parameter in signature.parameters.values()]
        if inspect.Parameter.VAR_POSITIONAL not in kinds:
            self._most = sum(kind in _POSITIONAL for kind in kinds)
        for parameter in signature.parameters.values():
            if parameter.default is inspect.Parameter.empty:
                if parameter.kind in _POSITIONAL:
                    self._least += 1
                elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                    self._most = -1  # no call without keywords binds

    def bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments by position as far as that goes, and those that cross by name.

        By name go keyword-only ones, and those behind a gap whose default is not plain data (in a
        Protocol it is often `...`): the callee then fills the gap. Raises TypeError where they do not
        bind.
        """
        if not kwargs and self._least <= len(args) <= self._most:
            return list(args), kwargs
        signature = self._signature
        if signature is None:
            return list(args), kwargs
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as exc:
            raise TypeError(f"{self._label}(): {exc}") from None
        return _placed(signature, given, self._label)


def _placed(
    signature: inspect.Signature, given: dict[str, Any], label: str
) -> tuple[list[Any], dict[str, Any]]:
    placed: list[Any] = []
    named: dict[str, Any] = {}
    skipped: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        name, kind = parameter.name, parameter.kind
        if name not in given:
            if kind in _POSITIONAL:
                skipped.append(parameter)
        elif kind is inspect.Parameter.KEYWORD_ONLY:
            named[name] = given[name]
        elif kind is inspect.Parameter.VAR_KEYWORD:
            named.update(given[name])
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            placed += given[name]  # nothing was skipped before it: the arguments before it have positions
        elif all(type(each.default) in _PLAIN for each in skipped):
            placed += [each.default for each in skipped]
            placed.append(given[name])
            skipped.clear()
        else:
            named[name] = given[name]
    return placed, named
