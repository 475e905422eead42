"""The linter's look into a single case or vector: fresh where that is due, patterns, captures, features.

It counts on the schemas having been checked (`lint`). It plays nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cbor2

__all__ = ["problems_of_steps", "problems_of_vector"]

Case = Mapping[str, Any]
Check = Callable[[str, Any], Sequence[str]]
"""Problems of a value by the schema of a kind: `_Schemas.problems`."""

_TYPES = {"string", "integer", "number", "boolean", "null", "list", "object"}
_SENT = {"$repeat", "$range", "$nested", "$ref"}
# Beyond RE2, which a runner in another language may have.
_NOT_RE2 = re.compile(r"\(\?(<?[=!]|P=|\(|>)|\\[1-9]|[*+?}]\+")
_MOST_BYTES = 64 * 1024 * 1024
_EXACT = 2**53 - 1
_WORD_FEATURES = {word: word for word in "decimal rational uuid ip complex date datetime set".split()}
_WORD_FEATURES["array"] = "arrays"


def problems_of_steps(case: Case, check: Check) -> list[str]:
    """What is wrong with a case beyond its schema."""
    return [*_fresh(case), *_features(case), *_built(case), *_kit_ids(case), *_Walk(check).problems(case)]


def problems_of_vector(vector: Case) -> list[str]:
    """What is wrong with a vector beyond its schema."""
    codec: str = vector["codec"]
    needed = set() if codec == "json" else {codec}
    if codec != "superjson":
        needed |= _word_features(vector.get("value"))
    missing = sorted(needed - set(vector.get("features", ())))
    problems = [f"it needs the feature {name} and does not say so" for name in missing]
    unlike = {"json": "frame", "superjson": "frame", "cbor": "noise"}[codec]
    if vector.get("error") == unlike:
        problems.append(f"the error of bytes in {codec} cannot be {unlike} (FRM-4, FRM-9)")
    return problems


def _word_features(words: Any) -> set[str]:
    """Features without which a testee has no such value."""
    if isinstance(words, list):
        return set().union(*map(_word_features, words))
    if not isinstance(words, dict):
        return set()
    found = set().union(*map(_word_features, words.values()))
    for kind, content in words.items():
        if kind in _WORD_FEATURES:
            found.add(_WORD_FEATURES[kind])
        elif kind == "int" and isinstance(content, str) and abs(int(content)) > _EXACT:
            found.add("bigint")
    return found


# A process of its own ------------------------------------------------------------------------


def _fresh(case: Case) -> Iterator[str]:
    if case.get("fresh"):
        return
    for number, step in enumerate(case["steps"]):
        kind = next((kind for kind in ("end_input", "exit", "first_bytes") if kind in step), None)
        if kind is not None:
            yield f"step {number}: a case with {kind} is fresh"
        elif any(message.get("method") == "kkrpc.hello" for message in _messages(step)):
            yield f"step {number}: a case whose steps are about the hello is fresh"
    if fault := _malformed_bytes(case["steps"]):
        yield f"{fault}: a case with malformed bytes is fresh"


def _messages(step: Case) -> list[Mapping[str, Any]]:
    patterns = step.get("send", step.get("expect", ()))
    listed = patterns if isinstance(patterns, list) else [patterns]
    return [message for message in listed if isinstance(message, dict)]


def _malformed_bytes(steps: Sequence[Case]) -> str:
    """What among the bytes that the case writes is no frame and no line of noise; empty if nothing is."""
    pending = b""
    for number, step in enumerate(steps):
        if "write" in step:
            try:
                pending = _rest(pending + _bytes_of(step["write"]))
            except ValueError as exc:
                return f"step {number}: {exc}"
        elif "send" in step and pending:
            return f"step {number}: it is sent in the middle of a line"
    return "the last bytes are no whole line or frame" if pending else ""


def _bytes_of(parts: Sequence[Case]) -> bytes:
    written = b""
    for part in parts:
        if "text" in part:
            written += part["text"].encode("utf-8", "surrogatepass")
        elif "hex" in part:
            written += bytes.fromhex(part["hex"])
        elif "frame" in part:
            payload = bytes.fromhex(part["frame"])
            written += b"\xd8\x18" + cbor2.dumps(payload)
        else:
            repeated = _bytes_of(part["repeat"])
            if len(repeated) * part["times"] > _MOST_BYTES:
                raise ValueError("it writes more than 64 MiB")
            written += repeated * part["times"]
    return written


def _rest(written: bytes) -> bytes:
    """What follows the last whole frame or line. Raises ValueError for what is malformed."""
    while written := written.lstrip(b" \t\r\n"):
        if written.startswith(b"\xd8\x18"):
            try:
                end = _item_end(written, 2)
            except IndexError:
                return written
            if not _is_one_item(_content(written[2:end])):
                raise ValueError("a CBOR frame that is not well-formed")
            written = written[end:]
            continue
        line, feed, written_after = written.partition(b"\n")
        if not feed:
            return written
        if line.startswith(b"{"):
            try:
                json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as exc:
                raise ValueError("a line that begins with { and is no JSON") from exc
            except (ValueError, RecursionError):
                pass  # digits or nesting that Python's reader does not take: JSON all the same
        written = written_after
    return b""


def _content(item: bytes) -> bytes:
    """What a byte string holds. Raises ValueError for another item."""
    if item[0] >> 5 != 2 or item[0] & 31 > 27:
        raise ValueError("a CBOR frame whose head is no byte string of definite length")
    width = 0 if item[0] & 31 < 24 else 1 << (item[0] & 31) - 24
    return item[1 + width :]


def _is_one_item(content: bytes) -> bool:
    try:
        return _item_end(content, 0) == len(content)
    except (IndexError, ValueError):
        return False


def _item_end(data: bytes, position: int) -> int:
    """Where the CBOR item that begins there ends, by its heads alone: any depth, any tag, any value.

    Raises IndexError if it goes on after the data, and ValueError if it is not well-formed, or of indefinite
    length, which a reader may refuse (VAL-7).
    """
    left = 1
    while left:
        left -= 1
        major, number = data[position] >> 5, data[position] & 31
        position += 1
        if number > 27:
            raise ValueError("a CBOR head that is not well-formed, or of indefinite length")
        if number > 23:
            width = 1 << (number - 24)
            number = int.from_bytes(data[position : position + width])
            position += width
            if position > len(data):
                raise IndexError
        if major in {2, 3}:
            position += number
            if position > len(data):
                raise IndexError
        elif major in {4, 5, 6}:
            left += {4: number, 5: 2 * number, 6: 1}[major]
    return position


# Features and ids ----------------------------------------------------------------------------


def _features(case: Case) -> Iterator[str]:
    needed = {"superjson"} if case.get("session") == "superjson" else set[str]()
    for step in case["steps"]:
        if step.get("serialization") in {"superjson", "cbor"}:
            needed.add(step["serialization"])
        for method in (step.get("call"), step.get("send", {}).get("method")):
            if not isinstance(method, str):
                continue
            if method in {"noise", "counted"}:
                needed.add(method)
            elif method.startswith("typed."):
                needed.add("validation")
    for name in sorted(needed - set(case.get("features", ()))):
        yield f"it needs the feature {name} and does not say so"


_HUB_GROUPS = {"NST": None, "UPL": "uploads", "EVT": "events", "STA": "shared-state"}
"""The rules of a hub, and the feature that those of a group need beside a side's own."""
_HUB_SIDES = {"callee": "named-streams", "caller": "streams-client"}
_ACTIONS = "ACT"
"""The other rules of level 4."""


def _built(case: Case) -> Iterator[str]:
    """Level 4 has the rules of the hub and of actions, all of them and no others, and says what they need."""
    group = case["rule"].partition("-")[0]
    if (case["level"] == 4) != (group in {*_HUB_GROUPS, _ACTIONS}):
        yield "level 4 is that of the rules " + ", ".join((*_HUB_GROUPS, _ACTIONS))
    elif case["level"] == 4:
        for name in sorted(_needed(group, case["role"]) - set(case.get("features", ()))):
            yield f"it needs the feature {name} and does not say so"


def _needed(group: str, role: str) -> set[str]:
    if group == _ACTIONS:
        return {"actions"}
    # A client of the hub has all of it that is about clients.
    feature = _HUB_GROUPS[group] if role == "callee" else None
    return {_HUB_SIDES[role]} if feature is None else {_HUB_SIDES[role], feature}


def _kit_ids(case: Case) -> Iterator[str]:
    for number, step in enumerate(case["steps"]):
        message = step.get("send", {})
        if isinstance(message.get("id"), str) and message["id"].startswith("kit:"):
            yield f"step {number}: ids that begin with kit: are the kit's own"


# Patterns ------------------------------------------------------------------------------------


class _Walk:
    """One walk through the steps of a case, in order, with what was captured so far."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._captured: set[str] = set()
        self._found: list[str] = []

    def problems(self, case: Case) -> list[str]:
        for number, step in enumerate(case["steps"]):
            before = len(self._found)
            for sent in ("send", "args", "feed", "drop", "spent"):
                self._value(step.get(sent), is_pattern=False)
            for pattern in ("expect", "json", "chunks", "acks", "result"):
                self._value(step.get(pattern), is_pattern=True)
            self._found[before:] = [f"step {number}: {problem}" for problem in self._found[before:]]
        return self._found

    def _value(self, value: Any, *, is_pattern: bool) -> None:
        if isinstance(value, list):
            for each in value:
                self._value(each, is_pattern=is_pattern)
        elif isinstance(value, dict):
            words = [key for key in value if key.startswith("$") and not key.startswith("$ref:")]
            if not words:
                for key, each in value.items():
                    if key.startswith("$ref:"):
                        self._reference(key, key.removeprefix("$ref:"))
                    self._value(each, is_pattern=is_pattern)
            elif len(value) > 1:
                self._found.append(f"{words[0]} stands beside other keys")
            else:
                self._special(words[0], value[words[0]], is_pattern=is_pattern)

    def _special(self, word: str, content: Any, *, is_pattern: bool) -> None:
        if not is_pattern and word not in _SENT:
            self._found.append(f"{word} has no meaning in what is sent")
            return
        match word, content:
            case (("$any" | "$absent"), True):
                pass
            case "$type", str() if content in _TYPES:
                pass
            case "$capture", str():
                self._captured.add(content)
            case ("$ref", str(name)) | ("$plus", [str(name), int()]):
                self._reference(word, name)
            case "$regex", str():
                self._regex(content)
            case "$oneof", [_, *_]:
                self._value(content, is_pattern=True)
            case "$between", [int() | float() as least, int() | float() as most] if least <= most:
                pass
            case (("$has" | "$error"), dict()):
                self._value(content, is_pattern=True)
            case (("$words" | "$tagged"), dict()):
                problems = self._check("words", _written_out(content))
                self._found.extend(f"{word}: {problem}" for problem in problems)
            case "$repeat", [str(), int() as times] if times >= 0:
                pass
            case "$range", [int() as first, int() as after] if first <= after:
                pass
            case "$nested", [int() as depth, inner] if depth >= 0:
                self._value(inner, is_pattern=is_pattern)
            case _:
                self._found.append(f"{word}: {json.dumps(content)[:80]} is no pattern of README.md")

    def _reference(self, word: str, name: str) -> None:
        if name not in self._captured:
            self._found.append(f"{word}: {name!r} was not captured before")

    def _regex(self, expression: str) -> None:
        try:
            re.compile(expression)
        except re.error as exc:
            self._found.append(f"$regex: {expression!r}: {exc}")
        else:
            if _NOT_RE2.search(expression):
                self._found.append(f"$regex: {expression!r} is more than RE2 knows")


def _written_out(words: Any) -> Any:
    """Words with the strings that `$repeat` stands for."""
    if isinstance(words, list):
        return [_written_out(each) for each in words]
    match words:
        case {"$repeat": [str() as text, int() as times]}:
            return text * times
        case dict():
            return {key: _written_out(each) for key, each in words.items()}
        case _:
            return words
