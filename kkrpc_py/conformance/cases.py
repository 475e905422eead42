"""The conformance cases as they stand in `spec/conformance`: loading them, vectors made to cases among them.

It owns the form of a case in Python, and what a vector is as a case. It plays nothing (`play`) and judges no
file (`lint`).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

__all__ = ["Case", "CaseError", "Force", "Role", "load", "load_file", "spec_folder"]

Force = Literal["MUST", "SHOULD", "MAY"]
Role = Literal["callee", "caller"]

_LEVELS = ("l0", "l1", "l2", "l3", "l4")
_DEPTH = 128
_FRAME_EXIT = 3
"""What a testee exits with after a violation that closes (spec/testee.md)."""


class CaseError(Exception):
    """A file of cases that cannot be read, with the reason."""


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One case; its keys are described in spec/conformance/README.md."""

    id: str
    title: str
    rule: str
    force: Force
    level: int
    role: Role
    steps: tuple[Mapping[str, Any], ...]
    features: frozenset[str] = frozenset()
    dialects: tuple[str, ...] = ("classic",)
    since: int = 1
    session: str | tuple[str, ...] = "stock"
    fresh: bool = False
    source: str = ""
    """The file that it is from, below spec/conformance."""


def spec_folder() -> Path:
    """Where the specification is: beside the modules in an installed package, else in the repository."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "spec"
    return installed if installed.is_dir() else package.parent / "spec"


def load(folder: Path | None = None) -> list[Case]:
    """All cases below a folder as `spec/conformance`, by level and file; vectors are at level 0.

    `CaseError` where a file cannot be read, or two cases have one id.
    """
    folder = spec_folder() / "conformance" if folder is None else folder
    cases: list[Case] = []
    for name in (_LEVELS[0], "vectors", *_LEVELS[1:]):
        for path in sorted((folder / name).glob("*.json")):
            cases += load_file(path, f"{name}/{path.name}")
    if not cases:
        raise CaseError(f"{folder} holds no cases")
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise CaseError(f"{case.source}: the id {case.id} stands twice")
        seen.add(case.id)
    return cases


def load_file(path: Path, source: str | None = None) -> list[Case]:
    """The cases of one file, of cases or of vectors."""
    source = path.name if source is None else source
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if "vectors" in content:
            return [case for vector in content["vectors"] for case in _of_vector(vector, source)]
        return [_case(entry, source) for entry in content["cases"]]
    except (OSError, ValueError) as error:
        raise CaseError(f"{source}: {error}") from None
    except KeyError as error:
        raise CaseError(f"{source}: the key {error} is missing") from None
    except (TypeError, AttributeError) as error:
        raise CaseError(f"{source}: not of the form of cases: {error}") from None


def _case(entry: Mapping[str, Any], source: str) -> Case:
    if entry["force"] not in get_args(Force) or entry["role"] not in get_args(Role):
        raise ValueError(f"{entry['id']}: no such force or role")
    session = entry.get("session", "stock")
    return Case(
        id=entry["id"],
        title=entry["title"],
        rule=entry["rule"],
        force=entry["force"],
        level=entry["level"],
        role=entry["role"],
        steps=tuple(entry["steps"]),
        features=frozenset(entry.get("features", ())),
        dialects=tuple(entry.get("dialects", ("classic",))),
        since=entry.get("since", 1),
        session=session if isinstance(session, str) else tuple(session),
        fresh=entry.get("fresh", False),
        source=source,
    )


# Vectors ------------------------------------------------------------------------------------------

_SESSIONS = {"json": "stock", "cbor": "all", "superjson": "superjson"}


def _of_vector(vector: Mapping[str, Any], source: str) -> Iterator[Case]:
    """A case for each direction."""
    for direction in vector["directions"]:
        fresh = False
        if direction == "encode":
            title = f"{vector['id']}: the value is sent so that it arrives"
            steps = _encode_steps(vector)
        elif direction == "decode":
            title = f"{vector['id']}: the bytes are read as what they are"
            error = vector.get("error")
            steps, fresh = _decode_steps(vector, error), error in {"frame", "noise"}
        else:
            raise ValueError(f"{vector['id']}: no direction {direction!r}")
        yield Case(
            id=f"{vector['id']}/{direction}",
            title=vector.get("title", title),
            rule=vector["rule"],
            force=vector.get("force", "MUST"),
            level=0,
            role="callee",
            steps=tuple(steps),
            features=frozenset(vector.get("features", ())),
            session=_SESSIONS[vector["codec"]],
            fresh=fresh,
            source=source,
        )


def _encode_steps(vector: Mapping[str, Any]) -> list[dict[str, Any]]:
    words, id = vector["value"], f"{vector['id']}/encode"
    request = {"id": id, "method": "make", "args": [words], "type": "request", "version": "json"}
    result: dict[str, Any] = {"result": {"$words": words}}
    if words == {"undefined": True}:
        # A result that is undefined as a whole is none (SUP-2).
        result = {}
    return [{"send": request}, {"expect": {"id": id, "type": "response", "args": result}}]


def _decode_steps(vector: Mapping[str, Any], error: str | None) -> list[dict[str, Any]]:
    id = f"{vector['id']}/decode"
    write = {"write": [_request(vector, id)]}
    match error:
        case None:
            result = {"$words" if _is_deep(vector["value"]) else "$tagged": vector["value"]}
            return [write, {"expect": {"id": id, "type": "response", "args": {"result": result}}}]
        case "malformed":
            reason = {"error": {"$type": "string"}}
            return [write, {"expect": {"id": id, "type": "response", "args": reason}}]
        case "frame":
            return [write, {"exit": _FRAME_EXIT}]
        case "noise":
            return [write, {"quiet": True}]
    raise ValueError(f"{vector['id']}: no error {error!r}")


def _request(vector: Mapping[str, Any], id: str) -> dict[str, str]:
    """The request with the vector's bytes as its one argument, as a part of `write`."""
    data = bytes.fromhex(vector["hex"])
    # In words a value is nested twice as deep: one that words cannot carry comes back as it is.
    method = "echo" if _is_deep(vector.get("value")) else "tag"
    head = f'{{"id":{json.dumps(id)},"method":"{method}","args":['.encode()
    match vector["codec"]:
        case "json":
            return {"hex": (head + data + b'],"type":"request","version":"json"}\n').hex()}
        case "superjson":
            tail = b'],"type":"request","version":"superjson"}'
            value, meta = _superjson_parts(data, lenient=vector.get("error") == "noise")
            more = b"" if meta is None else b',"meta":' + json.dumps(meta, separators=(",", ":")).encode()
            return {"hex": (b'{"json":' + head + value + tail + more + b"}\n").hex()}
        case "cbor":
            fields = [_text("id"), _text(id), _text("method"), _text(method), _text("args"), b"\x81" + data]
            fields += [_text("type"), _text("request"), _text("version"), _text("json")]
            return {"frame": (b"\xa5" + b"".join(fields)).hex()}
    raise ValueError(f"{vector['id']}: no codec {vector['codec']!r}")


def _is_deep(words: Any) -> bool:
    """Whether words are nested deeper than what can be sent (FRM-8), within a message."""
    level = [words] if isinstance(words, dict | list) else []
    deepest = 0
    while level:
        deepest += 1
        inner = [part.values() if isinstance(part, dict) else part for part in level]
        level = [item for part in inner for item in part if isinstance(item, dict | list)]
    return deepest > _DEPTH - 2


def _text(text: str) -> bytes:
    """A CBOR text string."""
    data = text.encode()
    size = len(data)
    head = bytes([0x60 | size]) if size < 24 else bytes([0x78, size]) if size < 256 else b""
    if not head:
        raise ValueError(f"the id {text!r} is too long")
    return head + data


_JSON_KEY = re.compile(r'\s*\{\s*"json"\s*:\s*')
_META_KEY = re.compile(r'\s*,\s*"meta"\s*:\s*')


def _superjson_parts(data: bytes, *, lenient: bool) -> tuple[bytes, Any]:
    """The text of the value as it stands, and the annotations with their paths from the message down."""
    found = None
    text = data.decode("utf-8", "replace" if lenient else "strict")
    if (key := _JSON_KEY.match(text)) is not None:
        decoder = json.JSONDecoder()
        try:
            _, end = decoder.raw_decode(text, key.end())
            meta_key = _META_KEY.match(text, end)
            meta, after = (None, end) if meta_key is None else decoder.raw_decode(text, meta_key.end())
            if text[after:].strip() == "}":
                found = text[key.end() : end].encode(), meta
        except ValueError:
            pass
    if found is not None:
        return found[0], _from_the_message(found[1])
    if lenient:
        return data, None
    raise ValueError(f'no superjson of the form {{"json": …, "meta": …}}: {text[:80]}')


def _from_the_message(meta: Any) -> Any:
    """Annotations whose paths begin at the value, as those of a message with it as the one argument."""
    if not isinstance(meta, dict):
        return meta
    place, moved = "args.0", dict(meta)
    values, equal = meta.get("values"), meta.get("referentialEqualities")
    if isinstance(values, list):
        moved["values"] = {place: values}
    elif isinstance(values, dict):
        moved["values"] = {f"{place}.{path}": found for path, found in values.items()}
    if isinstance(equal, dict):
        moved["referentialEqualities"] = {
            f"{place}.{path}": [f"{place}.{other}" if isinstance(other, str) else other for other in others]
            if isinstance(others, list)
            else others
            for path, others in equal.items()
        }
    return moved
