"""Patterns and templates: what a case expects and what it sends (spec/conformance/README.md, Patterns).

It owns what a pattern matches and how a mismatch reads. It does not choose the message that a pattern is
held against; that is `play`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from kkrpc_py.conformance.cbor import Words, words_of
from kkrpc_py.conformance.wire import TYPES
from kkrpc_py.conformance.words import from_words

__all__ = [
    "Context",
    "Mismatch",
    "PatternError",
    "brief",
    "dumps",
    "match",
    "match_message",
    "plain_id",
    "resolve",
    "types",
]

NAMED = ("id", "args", "callbackIds", "streamIds", "kwargs", "meta", "path", "value")
"""The keys of a message that must be absent unless a pattern gives them."""
_TEMPLATES = frozenset(("$repeat", "$range", "$nested", "$ref"))
_BRIEF = 300
_ABSENT = object()


class PatternError(ValueError):
    """A fault of the case, not of the testee."""


@dataclasses.dataclass(slots=True)
class Context:
    """What a match depends on beside the pattern and the value."""

    captured: dict[str, Any] = dataclasses.field(default_factory=dict)
    floats: bool = False
    """Whether the testee tells 1.0 from 1."""
    json: bool = True
    """Whether the value came as JSON or superjson, where a float may be written as an integer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mismatch:
    """Where a value is not what was expected."""

    path: str
    expected: str
    seen: str

    def within(self, place: str) -> Mismatch:
        """The same, seen from the value around."""
        return dataclasses.replace(self, path=place + self.path)


def brief(value: Any) -> str:
    """The value on one line, shortened where it is long."""
    if value is _ABSENT:
        return "nothing there"
    try:
        text = json.dumps(value, ensure_ascii=False, default=_brief_words)
    except RecursionError:
        return f"a {type(value).__name__}, nested too deep to show"
    except (ValueError, TypeError):
        try:
            text = repr(value)
        except (ValueError, RecursionError):  # Python writes no more than 4300 digits at once
            return f"a {type(value).__name__}, too long to show"
    if len(text) > _BRIEF:
        text = f"{text[: _BRIEF // 2]} … {text[-_BRIEF // 3 :]} ({len(text)} characters)"
    return text.encode("utf-8", "backslashreplace").decode()


def _brief_words(value: Any) -> Any:
    return {"$words": value.words} if isinstance(value, Words) else repr(value)


# Templates ----------------------------------------------------------------------------------------


def resolve(template: Any, captured: Mapping[str, Any]) -> Any:
    """The value that a template stands for."""
    if isinstance(template, list):
        return [resolve(item, captured) for item in template]
    if not isinstance(template, dict):
        return template
    key = _only_key(template)
    if key in _TEMPLATES:
        return _expanded(key, template[key], captured)
    return {_key(name, captured): resolve(item, captured) for name, item in template.items()}


def _only_key(value: Mapping[str, Any]) -> str:
    return next(iter(value)) if len(value) == 1 else ""


def _key(name: str, captured: Mapping[str, Any]) -> str:
    return str(_captured(name.removeprefix("$ref:"), captured)) if name.startswith("$ref:") else name


def _expanded(key: str, content: Any, captured: Mapping[str, Any]) -> Any:
    if key == "$ref":
        return _captured(content, captured)
    try:
        first, second = content
        if key == "$repeat":
            return first * second
        if key == "$range":
            return list(range(first, second))
        value = resolve(second, captured)
        for _ in range(first):
            value = [value]
        return value
    except (TypeError, ValueError) as error:
        raise PatternError(f"{key} of {brief(content)}: {error}") from None


def _captured(name: Any, captured: Mapping[str, Any]) -> Any:
    if name not in captured:
        raise PatternError(f"{name!r} was not captured")
    return captured[name]


def dumps(template: Any, captured: Mapping[str, Any]) -> bytes:
    """The template as JSON: compact, ASCII, keys in their order, however deep."""
    return _dumped(template, captured).encode("ascii")


def _dumped(template: Any, captured: Mapping[str, Any]) -> str:
    # By hand, since $nested may be deeper than Python's own writer goes.
    if isinstance(template, list):
        return f"[{','.join(_dumped(item, captured) for item in template)}]"
    if isinstance(template, dict):
        key = _only_key(template)
        if key == "$nested":
            levels, value = template[key]
            return f"{'[' * levels}{_dumped(value, captured)}{']' * levels}"
        if key in _TEMPLATES:
            return _plain_dumped(_expanded(key, template[key], captured))
        pairs = (
            f"{_plain_dumped(_key(name, captured))}:{_dumped(item, captured)}"
            for name, item in template.items()
        )
        return f"{{{','.join(pairs)}}}"
    return _plain_dumped(template)


def _plain_dumped(value: Any) -> str:
    try:
        return _WRITER.encode(value)
    except (ValueError, TypeError) as error:
        raise PatternError(f"{brief(value)} cannot be sent: {error}") from None


def _bytes_form(value: Any) -> Any:
    if isinstance(value, Words) and "bytes" in value.words:
        return {"type": "Uint8Array", "data": list(bytes.fromhex(value.words["bytes"]))}
    raise TypeError("JSON has no form for it")


_WRITER = json.JSONEncoder(
    ensure_ascii=True, separators=(",", ":"), allow_nan=False, default=_bytes_form, check_circular=False
)


# Matching -----------------------------------------------------------------------------------------


def plain_id(pattern: Mapping[str, Any], captured: Mapping[str, Any]) -> Any:
    """The id that the pattern names, as a list of it; an empty list where it names none."""
    if "id" not in pattern:
        return []
    wanted = pattern["id"]
    if isinstance(wanted, dict) and _only_key(wanted) in _TEMPLATES:
        wanted = resolve(wanted, captured)
    return [] if wanted is None or isinstance(wanted, dict | list) else [wanted]


def types(pattern: Any, captured: Mapping[str, Any]) -> list[str]:
    """The types of messages that a pattern of the `type` matches."""
    return [name for name in sorted(TYPES) if _match(pattern, name, Context(dict(captured))) is None]


def match_message(pattern: Mapping[str, Any], fields: Mapping[str, Any], context: Context) -> Mismatch | None:
    """Why the message is not what the pattern says; None if it is."""
    wanted = {"method": "", **dict.fromkeys(NAMED, _MUST_BE_ABSENT), **pattern}
    for key, item in wanted.items():
        found = _match(item, fields.get(key, _ABSENT), context)
        if found is not None:
            return found.within(key)
    return None


_MUST_BE_ABSENT: Any = {"$absent": True}


def match(pattern: Any, value: Any, context: Context) -> Mismatch | None:
    """Why the value is not what the pattern says; None if it is."""
    return _match(pattern, value, context)


def _match(pattern: Any, value: Any, context: Context) -> Mismatch | None:
    if isinstance(pattern, dict):
        key = _only_key(pattern)
        special = _SPECIAL.get(key)
        if special is not None:
            return special(pattern[key], value, context)
        if key in _TEMPLATES:
            return _match_template(key, pattern[key], value, context)
        return _match_object(pattern, value, context)
    if value is _ABSENT:
        return _mismatch(pattern, value)
    if isinstance(pattern, list):
        return _match_list(pattern, value, context)
    return None if _equal(pattern, value) else _mismatch(pattern, value)


def _mismatch(expected: Any, seen: Any) -> Mismatch:
    return Mismatch("", brief(expected), brief(seen))


def _equal(first: Any, second: Any) -> bool:
    """Whether two values without others in them are the same: true is not 1, but 1.0 is."""
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, int | float) and isinstance(second, int | float):
        return first == second
    return type(first) is type(second) and bool(first == second)


def _match_template(key: str, content: Any, value: Any, context: Context) -> Mismatch | None:
    if key == "$nested":
        levels, inner = content
        for level in range(levels):
            if not isinstance(value, list) or len(value) != 1:
                return Mismatch(
                    "[0]" * min(level, 3), f"{levels - level} more lists of one item", brief(value)
                )
            value = value[0]
        return _match(inner, value, context)
    expected = _expanded(key, content, context.captured)
    return _match_same(expected, value)


def _match_same(expected: Any, value: Any) -> Mismatch | None:
    """As `_match`, for a value that is no pattern, whatever its keys are called."""
    if isinstance(expected, dict) and isinstance(value, dict) and expected.keys() == value.keys():
        for key, item in expected.items():
            if (found := _match_same(item, value[key])) is not None:
                return found.within(f".{key}")
        return None
    if isinstance(expected, list) and isinstance(value, list) and len(expected) == len(value):
        for index, item in enumerate(expected):
            if (found := _match_same(item, value[index])) is not None:
                return found.within(f"[{index}]")
        return None
    return None if _equal(expected, value) else _mismatch(expected, value)


def _match_object(pattern: dict[str, Any], value: Any, context: Context) -> Mismatch | None:
    if isinstance(value, Words) and _is_bytes_form(pattern):
        return _match_words({"bytes": bytes(pattern["data"]).hex()}, value, context)
    if not isinstance(value, dict):
        return _mismatch(pattern, value)
    named = {_key(name, context.captured): item for name, item in pattern.items()}
    for key, item in named.items():
        found = _match(item, value.get(key, _ABSENT), context)
        if found is not None:
            return found.within(f".{key}")
    if more := [key for key in value if key not in named]:
        return Mismatch(f".{more[0]}", "nothing there", brief(value[more[0]]))
    return None


def _is_bytes_form(pattern: dict[str, Any]) -> bool:
    return (
        pattern.keys() == {"type", "data"}
        and pattern["type"] == "Uint8Array"
        and isinstance(pattern["data"], list)
    )


def _match_list(pattern: list[Any], value: Any, context: Context) -> Mismatch | None:
    if not isinstance(value, list):
        return _mismatch(pattern, value)
    for index, (item, seen) in enumerate(zip(pattern, value, strict=False)):
        found = _match(item, seen, context)
        if found is not None:
            return found.within(f"[{index}]")
    if len(pattern) != len(value):
        return Mismatch("", f"{len(pattern)} items: {brief(pattern)}", f"{len(value)} items: {brief(value)}")
    return None


# The patterns with a dollar -----------------------------------------------------------------------


def _any(content: Any, value: Any, context: Context) -> Mismatch | None:
    return Mismatch("", "anything", brief(value)) if value is _ABSENT else None


def _absent(content: Any, value: Any, context: Context) -> Mismatch | None:
    return None if value is _ABSENT else Mismatch("", "nothing there", brief(value))


def _type(content: Any, value: Any, context: Context) -> Mismatch | None:
    test = _TYPES.get(content)
    if test is None:
        raise PatternError(f"no type {content!r}")
    return None if value is not _ABSENT and test(value) else Mismatch("", f"a {content}", brief(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
    "number": _is_number,
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "list": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def _capture(content: Any, value: Any, context: Context) -> Mismatch | None:
    if value is _ABSENT:
        return Mismatch("", "anything", brief(value))
    context.captured[content] = value
    return None


def _regex(content: Any, value: Any, context: Context) -> Mismatch | None:
    if isinstance(value, str) and re.fullmatch(content, value):
        return None
    return Mismatch("", f"text like {content}", brief(value))


def _oneof(content: Any, value: Any, context: Context) -> Mismatch | None:
    for pattern in content:
        # What a pattern captured that did not match in the end is forgotten.
        before = dict(context.captured)
        if _match(pattern, value, context) is None:
            return None
        context.captured.clear()
        context.captured.update(before)
    return Mismatch("", f"one of {brief(content)}", brief(value))


def _between(content: Any, value: Any, context: Context) -> Mismatch | None:
    low, high = resolve(content, context.captured)
    if all(map(_is_number, (low, value, high))) and low <= value <= high:
        return None
    return Mismatch("", f"a number from {low} to {high}", brief(value))


def _has(content: Any, value: Any, context: Context) -> Mismatch | None:
    if not isinstance(value, dict):
        return Mismatch("", f"an object with {brief(content)}", brief(value))
    for key, item in content.items():
        found = _match(item, value.get(key, _ABSENT), context)
        if found is not None:
            return found.within(f".{key}")
    return None


def _error(content: Any, value: Any, context: Context) -> Mismatch | None:
    if isinstance(value, str) and content.keys() <= {"message"}:
        found = _match(content["message"], value, context) if content else None
        return found and found.within(" (a bare error)")
    # It has a name and a message, both text (ERR-1), whatever the pattern asks beside.
    text: dict[str, Any] = {"name": {"$type": "string"}, "message": {"$type": "string"}}
    return _has(content, value, context) or _has(text, value, context)


def _plus(content: Any, value: Any, context: Context) -> Mismatch | None:
    name, more = content
    captured = _captured(name, context.captured)
    if not _is_number(captured):  # what the testee gave where it was captured
        return Mismatch(
            "", f"the number {name} plus {more}, and it was captured as {brief(captured)}", brief(value)
        )
    expected = captured + more
    return None if _equal(expected, value) else _mismatch(expected, value)


def _match_words(content: Any, value: Any, context: Context) -> Mismatch | None:
    if value is _ABSENT:
        return Mismatch("", f"in words {brief(content)}", brief(value))
    expected = resolve(content, context.captured)
    try:
        seen = words_of(value)
    except TypeError:
        return Mismatch("", f"in words {brief(expected)}", brief(value))
    if same_words(expected, seen, as_integer=context.json or not context.floats):
        return None
    return Mismatch("", f"in words {brief(expected)}", brief(seen))


def _tagged(content: Any, value: Any, context: Context) -> Mismatch | None:
    """Words that somebody said, which name the same value."""
    expected = resolve(content, context.captured)
    if isinstance(value, dict) and same_words(expected, value, as_integer=not context.floats):
        return None
    return Mismatch("", f"the words {brief(expected)}", brief(value))


_SPECIAL: dict[str, Callable[[Any, Any, Context], Mismatch | None]] = {
    "$any": _any,
    "$absent": _absent,
    "$type": _type,
    "$capture": _capture,
    "$regex": _regex,
    "$oneof": _oneof,
    "$between": _between,
    "$has": _has,
    "$error": _error,
    "$words": _match_words,
    "$tagged": _tagged,
    "$plus": _plus,
}


# Words --------------------------------------------------------------------------------------------


def same_words(expected: Any, seen: Any, *, as_integer: bool) -> bool:
    """Whether both name the same value: sets and maps in any order.

    `as_integer`: a float without fraction may be seen as the integer that is equal.
    """
    if not isinstance(expected, dict) or not isinstance(seen, dict) or len(expected) != 1 or len(seen) != 1:
        return False
    ((kind, content),) = expected.items()
    ((other, found),) = seen.items()
    if kind != other:
        return as_integer and kind == "float" and other == "int" and _is_float_of(content, found)

    def same(first: Any, second: Any) -> bool:
        return same_words(first, second, as_integer=as_integer)

    if kind in {"list", "set", "map"}:
        if not isinstance(found, list) or not isinstance(content, list) or len(found) != len(content):
            return False
        if kind == "list":
            return all(map(same, content, found))
        if kind == "set":
            return _pairs_off(content, found, same)
        return _pairs_off(
            content,
            found,
            lambda first, second: (
                isinstance(second, list) and len(second) == 2 and all(map(same, first, second))
            ),
        )
    if kind == "array":
        return (
            isinstance(found, dict)
            and _equal(content["type"], found.get("type"))
            and _match_same(content["shape"], found.get("shape")) is None
            and isinstance(found.get("items"), list)
            and len(content["items"]) == len(found["items"])
            and all(
                same_words(*pair, as_integer=True)
                for pair in zip(content["items"], found["items"], strict=True)
            )
        )
    return _match_same(content, found) is None


def _is_float_of(text: Any, number: Any) -> bool:
    try:
        return bool(from_words({"float": text}) == from_words({"int": number}))
    except ValueError:
        return False


def _pairs_off(first: list[Any], second: list[Any], same: Callable[[Any, Any], bool]) -> bool:
    """Whether each of the first has one of its own among the second."""
    left = list(second)
    for item in first:
        for index, other in enumerate(left):
            if same(item, other):
                del left[index]
                break
        else:
            return False
    return not left
