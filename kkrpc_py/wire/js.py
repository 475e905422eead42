"""What JavaScript has and Python has not: the types that superjson carries beside Python's own.

They are values and nothing more. Which value stands for which, and when, is `superjson`'s.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final

__all__ = ["UNDEFINED", "URL", "Array", "BigInt", "Map", "Object", "RegExp", "Uint8ClampedArray", "Undefined"]

_FLAGS = frozenset("dgimsuvy")
_LINE_ENDS = re.compile("[\n\r\u2028\u2029]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:", re.ASCII)


class Undefined:
    """The type of `UNDEFINED`, of which there is one: it is falsy, and a copy of it is itself."""

    __slots__ = ()
    _one: ClassVar[Undefined | None] = None

    def __new__(cls) -> Undefined:
        if cls._one is None:
            cls._one = object.__new__(cls)
        return cls._one

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "UNDEFINED"

    def __reduce__(self) -> str:
        return "UNDEFINED"


UNDEFINED: Final = Undefined()
"""JavaScript's `undefined`. Its `null` is None."""


class BigInt(int):
    """A `bigint`. An `int` is one by itself only where it is beyond 2**53 - 1."""

    def __repr__(self) -> str:
        return f"BigInt({int(self)})"


class Map(dict[Any, Any]):
    """A `Map`. A `dict` is one by itself only where not all of its keys are text."""

    def __repr__(self) -> str:
        return f"Map({dict.__repr__(self)})"


class RegExp:
    """A `RegExp`: its source, in JavaScript's syntax, which nothing here reads, and its flags.

    `ValueError` if the flags are not JavaScript's, or the source holds the end of a line, which
    JavaScript writes as an escape.
    """

    __slots__ = ("flags", "source")
    source: Final[str]
    flags: Final[str]

    def __init__(self, source: str, flags: str = "") -> None:
        if not _FLAGS.issuperset(flags) or len(set(flags)) != len(flags):
            raise ValueError(f"{flags!r} are no flags of a RegExp")
        if _LINE_ENDS.search(source):
            raise ValueError("a RegExp's source has no line ends; write them as escapes")
        # As JavaScript gives them.
        self.source = source or "(?:)"
        self.flags = "".join(sorted(flags))

    def __eq__(self, other: object) -> bool:
        if type(other) is not RegExp:
            return NotImplemented
        return (self.source, self.flags) == (other.source, other.flags)

    def __hash__(self) -> int:
        return hash((RegExp, self.source, self.flags))

    def __repr__(self) -> str:
        return f"RegExp({self.source!r}, {self.flags!r})"

    def __reduce__(self) -> tuple[type[RegExp], tuple[str, str]]:
        return RegExp, (self.source, self.flags)


class URL(str):
    """A `URL`, as the text that is its `href`. `ValueError` if it does not begin with a scheme."""

    __slots__ = ()

    def __new__(cls, href: str) -> URL:
        if not _SCHEME.match(href):
            raise ValueError(f"{href!r} is no absolute URL")
        return str.__new__(cls, href)

    def __repr__(self) -> str:
        return f"URL({str.__repr__(self)})"


class Uint8ClampedArray(bytes):
    """A `Uint8ClampedArray`. `bytes` are a `Uint8Array`."""

    def __repr__(self) -> str:
        return f"Uint8ClampedArray({bytes.__repr__(self)})"


class Object(dict[str, Any]):
    """An object that stands as a key of a Map or a member of a Set: as there, equal to itself alone."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # dict says None
    __eq__ = object.__eq__
    __ne__ = object.__ne__

    def __repr__(self) -> str:
        return f"Object({dict.__repr__(self)})"


class Array(list[Any]):
    """An array that stands as a key of a Map or a member of a Set: as there, equal to itself alone."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # list says None
    __eq__ = object.__eq__
    __ne__ = object.__ne__

    def __repr__(self) -> str:
        return f"Array({list.__repr__(self)})"
