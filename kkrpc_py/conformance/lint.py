"""The linter of `spec/conformance`: what is wrong with the files, before anybody runs them.

`python -m kkrpc_py.conformance.lint [SPEC]` prints the problems and exits with 1 if there are any, with 2
if it cannot look. It is a tool for those who write cases, and needs `jsonschema` (the extra `dev`).

It owns what one file or all of them together must be: the schemas, ids, levels, coverage of the rules. What a
single case's steps must be is `lint_steps`.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kkrpc_py.conformance import cases as case_files
from kkrpc_py.conformance.lint_steps import problems_of_steps, problems_of_vector
from kkrpc_py.conformance.rules import Rule, rules_of

__all__ = ["LinterUnavailable", "lint", "main"]

_FRAMES = 10_000
_HINT = "the linter needs jsonschema: pip install 'kkrpc-py[dev]'"

Named = tuple[str, dict[str, Any]]
"""Where it stands, below `spec/conformance`, and the case or vector."""


class LinterUnavailable(Exception):
    """The linter cannot look: jsonschema is not installed, or a file of the specification is not there."""


def lint(spec: Path | None = None) -> list[str]:
    """Problems of `spec/conformance` below the folder `spec`, one line each; empty if it is as it should be.

    Raises LinterUnavailable.
    """
    folder = case_files.spec_folder() if spec is None else spec
    try:
        rules = rules_of(folder)
        schemas = _Schemas(folder / "conformance")
    except (OSError, ValueError) as exc:
        raise LinterUnavailable(str(exc)) from exc
    problems: list[str] = []
    cases: list[Named] = []
    vectors: list[Named] = []
    for path in _files(folder / "conformance"):
        kind = "vectors" if path.parent.name == "vectors" else "cases"
        where = str(path.relative_to(folder / "conformance"))
        content, unreadable = _read(path)
        found = [unreadable] if unreadable else schemas.problems(kind, content)
        problems += [f"{where}: {problem}" for problem in found]
        # The other checks count on the form. A file without it does not hide what is wrong in others.
        if not found:
            (vectors if kind == "vectors" else cases).extend((where, entry) for entry in content[kind])

    problems += _doubles([*cases, *vectors])
    for where, case in cases:
        wrong = [*_head(case, rules), *_level(where, case), *problems_of_steps(case, schemas.problems)]
        problems += [f"{where}: {case['id']}: {problem}" for problem in wrong]
    for where, vector in vectors:
        wrong = [*_head(vector, rules), *problems_of_vector(vector)]
        problems += [f"{where}: {vector['id']}: {problem}" for problem in wrong]
    problems += _shared_names(cases)
    return [*problems, *_coverage(folder, rules, [*cases, *vectors])]


# Files and schemas ---------------------------------------------------------------------------


def _files(folder: Path) -> list[Path]:
    return sorted(path for name in ("l[0-9]", "vectors") for path in folder.glob(f"{name}/*.json"))


def _read(path: Path) -> tuple[Any, str]:
    """The file's content, or what is wrong with it as JSON: a key that stands twice, too."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counted = collections.Counter(key for key, _ in pairs)
        for key, times in counted.items():
            if times > 1:
                raise ValueError(f"the key {key!r} stands {times} times in one object")
        return dict(pairs)

    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique), ""
    except (ValueError, RecursionError) as exc:
        return None, f"no JSON: {exc}"


class _Schemas:
    """The JSON Schemas of the folder, ready for use."""

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("jsonschema") is None:
            raise LinterUnavailable(_HINT)
        # Neither is a dependency of the library, and jsonschema has no types.
        jsonschema: Any = importlib.import_module("jsonschema")
        referencing: Any = importlib.import_module("referencing")
        contents = {
            name: json.loads((folder / name).read_text(encoding="utf-8"))
            for name in ("cases.schema.json", "vectors.schema.json")
        }
        registry: Any = referencing.Registry().with_contents(contents.items())
        self._validators: dict[str, Any] = {
            kind: jsonschema.Draft202012Validator({"$ref": reference}, registry=registry)
            for kind, reference in {
                "cases": "cases.schema.json",
                "vectors": "vectors.schema.json",
                "words": "vectors.schema.json#/$defs/words",
            }.items()
        }

    def problems(self, kind: str, content: Any) -> list[str]:
        """What of `content` does not fit the schema of that kind."""
        before = sys.getrecursionlimit()
        # jsonschema takes a dozen frames for a level of nesting, and values in words may have 128 levels.
        sys.setrecursionlimit(max(before, _FRAMES))
        try:
            errors: list[Any] = list(self._validators[kind].iter_errors(content))
        finally:
            sys.setrecursionlimit(before)
        return [problem for error in errors for problem in _described(error, content)]


def _described(error: Any, content: Any) -> Iterator[str]:
    """One error of jsonschema in few words. Of several forms it speaks of the one that was meant."""
    branches: dict[Any, list[Any]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.schema_path[0], []).append(inner)
    meant = [
        errors for errors in branches.values() if not any(_is_other_form(error, each) for each in errors)
    ]
    if len(meant) == 1:
        for inner in meant[0]:
            yield from _described(inner, content)
        return
    path = list(error.absolute_path)
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    message = f"{_cut(repr(error.instance))} has none of the forms" if branches else error.message
    yield f"{_id_at(content, path)}{place or 'the file'}: {_cut(message)}"


def _cut(text: str) -> str:
    return text if len(text) <= 160 else f"{text[:120]} … {text[-30:]}"


def _is_other_form(error: Any, inner: Any) -> bool:
    """Whether this says that the object is of another form, not that the form is not kept."""
    same_place = len(inner.absolute_path) == len(error.absolute_path)
    return same_place and inner.validator in {"required", "type", "enum"}


def _id_at(content: Any, path: Sequence[Any]) -> str:
    """The id of the case or vector that a path leads into, as a prefix."""
    if len(path) < 2 or not isinstance(path[1], int):
        return ""
    entry = content[path[0]][path[1]]
    found = entry.get("id") if isinstance(entry, dict) else None
    return f"{found}: " if isinstance(found, str) else ""


# Checks --------------------------------------------------------------------------------------


def _doubles(entries: Sequence[Named]) -> Iterator[str]:
    places: dict[str, list[str]] = {}
    for where, entry in entries:
        places.setdefault(entry["id"], []).append(where)
    for name, found in places.items():
        if len(found) > 1:
            yield f"{found[1]}: {name}: the id is used {len(found)} times ({', '.join(sorted(set(found)))})"


def _head(entry: Mapping[str, Any], rules: Mapping[str, Rule]) -> Iterator[str]:
    rule: str = entry["rule"]
    if rule not in rules:
        yield f"protocol.md has no rule {rule}"
    if entry["id"].partition("/")[0] != rule.lower():
        yield f"its id does not begin with its rule, {rule.lower()}/"


def _level(where: str, case: Mapping[str, Any]) -> Iterator[str]:
    if not where.startswith(f"l{case['level']}/"):
        yield f"level {case['level']} does not belong into this folder"


def _shared_names(cases: Sequence[Named]) -> Iterator[str]:
    """A testee may hold a function for longer than the case lasts: no other case may use its id."""
    users: dict[str, list[tuple[str, str]]] = {}
    for where, case in cases:
        sent = [step["send"] for step in case["steps"] if "send" in step and not case.get("fresh")]
        lists = [message.get(key) for message in sent for key in ("callbackIds", "streamIds")]
        names = {name for each in lists if isinstance(each, list) for name in each if isinstance(name, str)}
        for name in names:
            users.setdefault(name, []).append((where, case["id"]))
    for name, found in users.items():
        for where, case_id in found[1:]:
            yield f"{where}: {case_id}: {found[0][1]} passes a function or stream of the id {name!r} too"


def _coverage(spec: Path, rules: Mapping[str, Rule], entries: Sequence[Named]) -> Iterator[str]:
    """A rule that says MUST k times has k cases at least, or stands in `unobservable.json`."""
    path = spec / "conformance" / "unobservable.json"
    listed, unreadable = _read(path) if path.exists() else ({}, "")
    if unreadable or not isinstance(listed, dict):
        yield f"unobservable.json: {unreadable or 'it is no object'}"
        listed = {}
    covered: collections.Counter[str] = collections.Counter()
    for _, entry in entries:
        if entry["force"] == "MUST":
            covered[entry["rule"]] += len(entry.get("directions", ["a case"]))
    for name, reason in listed.items():
        if name not in rules:
            yield f"unobservable.json: protocol.md has no rule {name}"
        elif not isinstance(reason, str) or not reason.strip():
            yield f"unobservable.json: {name}: there is no reason"
        elif covered[name] >= rules[name].musts:
            yield f"unobservable.json: {name}: it has {covered[name]} cases, and is observed"
    for name, rule in rules.items():
        if covered[name] < rule.musts and name not in listed:
            yield f"{name} says MUST {rule.musts} times and has {covered[name]} cases of force MUST"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the problems; 0 if there are none, 1 if there are, 2 if it cannot look."""
    parser = argparse.ArgumentParser(
        prog="python -m kkrpc_py.conformance.lint", description="Check the files of spec/conformance."
    )
    parser.add_argument("spec", nargs="?", type=Path, metavar="SPEC", help="the folder of protocol.md")
    options = parser.parse_args(arguments)
    try:
        problems = lint(options.spec)
    except LinterUnavailable as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    for problem in problems:
        # A lone surrogate in a file must not end the linter.
        sys.stdout.write(problem.encode("utf-8", "backslashreplace").decode() + "\n")
    sys.stdout.write(f"{len(problems)} problems\n" if problems else "no problems\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
