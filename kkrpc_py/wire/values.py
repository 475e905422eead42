"""Which values a codec carries exactly, and the check of a value before it is encoded (VAL-1).

Both codecs take some types that they then change in silence (msgspec writes NaN as null and a
Decimal as a string, cbor2 writes a memoryview as a list). So nothing is encoded before it was
checked here against the codec's own `Rules`, by exact type: a subclass is another type.

There are two passes. `Rules.accepts` is the fast one: it walks a value level by level with C
built-ins and only says yes or no. `Rules.demand` is the slow one, run when the answer was no, to
say what and where. What the types are is the codecs' business, not this module's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import chain
from operator import countOf
from typing import Any, Literal

from kkrpc_py.errors import LimitExceeded, NotSerializable

__all__ = ["Check", "Rules", "digits_bound", "holds_unpaired_surrogate", "plain_bytes"]

Check = Callable[[Any], "str | None"]
"""Says why a value of its type cannot be carried; None if it can."""

_SMALL_INT = 2**63
_JAVASCRIPT = "kkrpc_py.wire.js"
_LISTS = frozenset((list, tuple))
_SETS = frozenset((set, frozenset))
_CONTAINERS = frozenset((dict, list, tuple, set, frozenset))
# Characters of a key that a path shows.
_SHOWN = 80


class Rules:
    """What one codec carries exactly.

    `leaves` maps each type that holds no others to its check, or None where every value is fine;
    `containers` are those of dict, list, tuple, set and frozenset that it takes. `keys`: a dict's
    keys must be `text`, or may be any `value`, or are `known` to be fine, which none but a codec's
    reader can say. `max_int` bounds the size of integers; with `late_ints` only `demand` minds it,
    since something else tells of such ones at less cost. `finite`: floats must be. `refuse_dict` is
    the check of a whole dict. `depth` bounds nested containers, `items` the values altogether.
    """

    def __init__(
        self,
        *,
        leaves: dict[type, Check | None],
        containers: Iterable[type],
        keys: Literal["text", "value", "known"],
        max_int: int,
        depth: int,
        items: int,
        refuse_dict: Check | None = None,
        finite: bool,
        late_ints: bool = False,
    ) -> None:
        self.containers = frozenset(containers)
        self.known = frozenset(leaves) | self.containers
        self.keys = keys
        self.depth = depth
        self.items = items
        self.max_int = max_int
        self.finite = finite
        self._refuse_dict = refuse_dict
        self._checks = {kind: check for kind, check in leaves.items() if check is not None}
        # The two types that come in thousands have bulk checks of their own below.
        self._bulk = (frozenset(self._checks) - {int, float, str}) | {
            kind for kind, wanted in ((int, not late_ints), (float, finite)) if wanted
        }
        self.sure = frozenset(leaves) - self._bulk
        """The types whose values need no look."""

    def accepts(self, value: Any) -> frozenset[type] | set[type] | None:
        """The types within `value`, keys that are text apart, if all of it is fine; else None.

        As far as this pass can see: text is left to the encoder, which refuses what is not Unicode,
        and so is `refuse_dict`.
        """
        level, floor, room = [value], self.depth, self.items
        # A list is its own first level, and so are the values of most mappings.
        if type(value) is list:
            level, floor = value, floor - 1
        elif type(value) is dict and floor > 0 and len(value) < room and self._all_text(value):
            level, floor, room = list(value.values()), floor - 1, room - 1
        found = types = set(map(type, level))
        while not types <= self.sure:
            if not types <= self.known:
                return None
            for kind in types & self._bulk:
                of_kind = level if len(types) == 1 else [v for v in level if type(v) is kind]
                if not self._accepts_all(kind, of_kind):
                    return None
            nested = types & _CONTAINERS
            if not nested:
                return found
            room -= len(level)
            inner = level if nested == types else [v for v in level if type(v) in nested]
            size = sum(map(len, inner))
            if floor <= 0 or size > room:
                return None
            floor -= 1
            level = []
            if dict in nested:
                dicts, others = inner, []
                if len(nested) > 1:
                    dicts = [v for v in inner if type(v) is dict]
                    others = [v for v in inner if type(v) is not dict]
                    size = sum(map(len, dicts))
                if self.keys != "known" and countOf(map(type, chain.from_iterable(dicts)), str) != size:
                    if self.keys == "text":
                        return None
                    level.extend(chain.from_iterable(dicts))
                level.extend(chain.from_iterable(map(dict.values, dicts)))
                inner = others
            level.extend(chain.from_iterable(inner))
            types = set(map(type, level))
            found |= types
        return found

    def _all_text(self, keys: dict[Any, Any]) -> bool:
        return self.keys == "known" or countOf(map(type, keys), str) == len(keys)

    def _accepts_all(self, kind: type, values: list[Any]) -> bool:
        if kind is int:
            return bool(max(values) <= self.max_int and min(values) >= -self.max_int)
        if kind is float:
            # A sum that is finite has finite parts; one that is not can come of large ones too.
            return math.isfinite(sum(values)) or all(map(math.isfinite, values))
        check = self._checks[kind]
        return all(check(value) is None for value in values)

    def demand(self, value: Any, root: str) -> None:
        """Raise `NotSerializable` with the path to what `accepts` refused, or `LimitExceeded`.

        Returns if there is nothing to refuse. Each container is looked at once, however often it
        occurs, so this is linear in the size of the value in memory.
        """
        seen: set[int] = set()
        above: set[int] = set()
        # An entry is a value with the way to it, or the identity of a container to leave again.
        stack: list[tuple[Any, _Way | None] | int] = [(value, None)]
        items = 0
        while stack:
            entry = stack.pop()
            if isinstance(entry, int):
                above.discard(entry)
                continue
            item, way = entry
            kind = type(item)
            reason = self._refusal(item, kind)
            if reason is not None:
                raise NotSerializable(kind.__qualname__, _path(root, way), reason)
            if kind not in _CONTAINERS:
                continue
            identity = id(item)
            if identity in above:
                raise NotSerializable(kind.__qualname__, _path(root, way), "it contains itself")
            if len(above) >= self.depth:
                raise NotSerializable(kind.__qualname__, _path(root, way), "nested deeper than Limits.depth")
            if identity in seen:
                continue
            seen.add(identity)
            above.add(identity)
            stack.append(identity)
            items += len(item)
            if items > self.items:
                break
            stack.extend(_children(item, kind, way, keys=self.keys == "value"))
        # Shared containers are written once for each place they stand in.
        if self.accepts(value) is None:
            raise LimitExceeded("the message is larger than Limits.frame or nested deeper than Limits.depth")

    def _refusal(self, item: Any, kind: type) -> str | None:
        if kind not in self.known:
            return "superjson alone carries it" if kind.__module__ == _JAVASCRIPT else ""
        if kind is int:
            return None if abs(item) <= self.max_int else self._int_refusal(item)
        if kind is float and self.finite:
            return None if math.isfinite(item) else f"JSON has no {item}"
        if kind is dict:
            if self.keys == "text":
                check = self._checks.get(str)
                for key in item:
                    if type(key) is not str:
                        return f"its key of type {type(key).__qualname__} is no str"
                    if check is not None and (reason := check(key)) is not None:
                        return f"its key {_shown(key)}: {reason}"
            return self._refuse_dict(item) if self._refuse_dict is not None else None
        check = self._checks.get(kind)
        return check(item) if check is not None else None

    def _int_refusal(self, item: int) -> str:
        if self.max_int < _SMALL_INT:
            return f"{item.bit_length()} bits, and JavaScript's numbers are exact up to 2**53 - 1"
        return "it has more digits than Limits.digits allows"


_Way = tuple[Any, str, Any]
"""The way to a value: the way to its container (or None), the form of the last step, and its key."""


def _children(item: Any, kind: type, way: _Way | None, *, keys: bool) -> list[tuple[Any, _Way | None]]:
    found: list[tuple[Any, _Way | None]]
    if kind is dict:
        found = [(value, (way, "[{}]", key)) for key, value in item.items()]
        if keys:
            found.extend((key, (way, ".key({})", key)) for key in item)
    elif kind in _LISTS:
        found = [(value, (way, "[{}]", index)) for index, value in enumerate(item)]
    else:
        found = [(value, (way, "{{{}}}", value)) for value in item]
    # The last one pushed is looked at first; the first offender is the one to name.
    found.reverse()
    return found


def _path(root: str, way: _Way | None) -> str:
    steps: list[str] = []
    while way is not None:
        way, form, key = way
        steps.append(form.format(_shown(key)))
    return root + "".join(reversed(steps))


def _shown(key: Any) -> str:
    try:
        text = repr(key)
    except Exception:
        # A user's own repr, or an integer too long to be written.
        return f"<{type(key).__qualname__}>"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def digits_bound(digits: int) -> int:
    """The largest integer of that many decimal digits.

    4300 of them at most: beyond that Python itself refuses to turn integers into text.
    """
    return int(10 ** min(digits, 4300)) - 1


def holds_unpaired_surrogate(text: str) -> str | None:
    """Why CBOR, whose text is UTF-8, cannot carry this text; None if it can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "it holds an unpaired surrogate, which UTF-8 cannot express"
    return None


def plain_bytes(view: memoryview) -> str | None:
    """Why a memoryview is not just a row of bytes; None if it is."""
    try:
        if view.ndim == 1 and view.itemsize == 1 and view.format in ("B", "b", "c"):
            return None
    except ValueError:
        return "it has been released"
    return "only a memoryview of single bytes in one dimension is sent"
