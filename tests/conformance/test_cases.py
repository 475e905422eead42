"""Files to cases: what a vector is as a case, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import pytest

from kkrpc_py.conformance.cases import Case, CaseError, load, load_file, spec_folder

CASE = {
    "id": "str-5/x",
    "title": "t",
    "rule": "STR-5",
    "force": "SHOULD",
    "level": 2,
    "role": "caller",
    "steps": [{"barrier": True}],
}
VECTOR = {"id": "val-1/x", "rule": "VAL-1", "force": "MUST", "features": ["cbor"], "directions": ["decode"]}


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def vector(tmp_path: Path, **more: Any) -> list[Case]:
    return load_file(write(tmp_path, "v.json", {"vectors": [{**VECTOR, **more}]}))


def written(case: Case) -> bytes:
    """What the first step writes."""
    (part,) = case.steps[0]["write"]
    return bytes.fromhex(part.get("hex") or part["frame"])


def test_the_cases_of_the_specification() -> None:
    cases = load()
    assert {case.level for case in cases} == {0, 1, 2, 3, 4}
    assert [case.level for case in cases] == sorted(case.level for case in cases)
    assert {case.source.split("/")[0] for case in cases} == {"l0", "l1", "l2", "l3", "l4", "vectors"}
    assert len({case.id for case in cases}) == len(cases)
    assert (spec_folder() / "protocol.md").is_file()


def test_a_case(tmp_path: Path) -> None:
    more = {"id": "str-5/y", "features": ["cbor"], "session": ["batch"], "fresh": True, "since": 1}
    first, second = load_file(write(tmp_path, "c.json", {"cases": [CASE, {**CASE, **more}]}))
    assert first == Case(
        id="str-5/x",
        title="t",
        rule="STR-5",
        force="SHOULD",
        level=2,
        role="caller",
        steps=({"barrier": True},),
        source="c.json",
    )
    assert (second.features, second.session, second.fresh) == (frozenset({"cbor"}), ("batch",), True)
    assert hash(second.id) != hash(first.id)


def test_cases_come_by_level_and_file_with_vectors_at_level_zero(tmp_path: Path) -> None:
    names = ["l1/b.json", "l1/a.json", "l0/z.json", "l3/a.json", "other/a.json"]
    for index, name in enumerate(names):
        write(
            tmp_path,
            name,
            {
                "cases": [
                    {**CASE, "id": f"str-5/{index}", "level": int(name[1:2] or 0) if name[0] == "l" else 0}
                ]
            },
        )
    write(
        tmp_path,
        "vectors/a.json",
        {"vectors": [{**VECTOR, "codec": "json", "hex": "31", "value": {"int": "1"}}]},
    )
    found = load(tmp_path)
    assert [case.source for case in found] == [
        "l0/z.json",
        "vectors/a.json",
        "l1/a.json",
        "l1/b.json",
        "l3/a.json",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting"),
        ("[]", "not of the form"),
        ({}, "'cases' is missing"),
        ({"cases": [{**CASE, "force": "must"}]}, "no such force"),
        ({"cases": [{**CASE, "role": "any"}]}, "no such force or role"),
        ({"cases": [{key: CASE[key] for key in CASE if key != "rule"}]}, "'rule' is missing"),
        ({"cases": [None]}, "not of the form"),
        ({"vectors": [{**VECTOR, "codec": "xml", "hex": "", "value": {}}]}, "xml"),
        ({"vectors": [{**VECTOR, "codec": "json", "hex": "3", "value": {}}]}, "v.json"),
        ({"vectors": [{**VECTOR, "codec": "json", "hex": "31", "error": "odd"}]}, "no error 'odd'"),
        ({"vectors": [{**VECTOR, "codec": "json", "hex": "31", "directions": ["up"]}]}, "no direction"),
        ({"vectors": [{**VECTOR, "codec": "superjson", "hex": "31", "value": {}}]}, "no superjson"),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_a_file_that_is_none(content: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(CaseError) as caught:
        load_file(write(tmp_path, "v.json", content))
    assert str(caught.value).startswith("v.json: ")
    assert reason in str(caught.value)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="holds no cases"):
        load(tmp_path)
    with pytest.raises(CaseError, match=r"absent\.json"):
        load_file(tmp_path / "absent.json")
    write(tmp_path, "l0/a.json", {"cases": [CASE]})
    write(tmp_path, "l2/a.json", {"cases": [CASE]})
    with pytest.raises(CaseError, match=r"l2/a\.json: the id str-5/x stands twice"):
        load(tmp_path)


# Vectors --------------------------------------------------------------------------------------------


def test_a_vector_is_a_case_for_each_direction(tmp_path: Path) -> None:
    words = {"bytes": "00"}
    decode, encode = vector(
        tmp_path, codec="cbor", hex="4100", value=words, directions=["decode", "encode"], force="SHOULD"
    )
    assert (decode.id, encode.id) == ("val-1/x/decode", "val-1/x/encode")
    for case in (decode, encode):
        assert (case.rule, case.force, case.level, case.session) == ("VAL-1", "SHOULD", 0, "all")
        assert case.features == {"cbor"}
        assert not case.fresh
    request = {"id": "val-1/x/decode", "method": "tag", "args": [b"\0"], "type": "request", "version": "json"}
    assert cbor2.loads(written(decode)) == request
    assert written(decode) == cbor2.dumps(request)
    answer = {"id": "val-1/x/decode", "type": "response", "args": {"result": {"$tagged": words}}}
    assert decode.steps[1:] == ({"expect": answer},)
    assert encode.steps[0]["send"]["method"] == "make"
    assert encode.steps[0]["send"]["args"] == [words]
    assert encode.steps[1]["expect"]["args"] == {"result": {"$words": words}}


def test_the_bytes_of_json_stay_as_they_are(tmp_path: Path) -> None:
    (case,) = vector(tmp_path, codec="json", hex=b'[1.0 ,"\xff"]'.hex(), value={"null": True})
    assert case.session == "stock"
    assert written(case) == (
        b'{"id":"val-1/x/decode","method":"tag","args":[[1.0 ,"\xff"]],"type":"request","version":"json"}\n'
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"json":[1.0, 2]}', '{"json":{"id":I,"method":"tag","args":[[1.0, 2]],T}}'),
        (
            '{"json":"1","meta":{"values":["bigint"],"v":1}}',
            '{"json":{M,"args":["1"],T},"meta":{"values":{"args.0":["bigint"]},"v":1}}',
        ),
        (
            '{ "json" : {"a":"1"} , "meta" : {"values":{"a":["bigint"],"":["x"]}} }',
            '{"json":{M,"args":[{"a":"1"}],T},"meta":{"values":{"args.0.a":["bigint"],"args.0.":["x"]}}}',
        ),
        (
            '{"json":{"a":[],"b":[]},"meta":{"referentialEqualities":{"a":["b",1],"c":2}}}',
            '{"json":{M,"args":[{"a":[],"b":[]}],T},"meta":{"referentialEqualities":{"args.0.a":["args.0.b",1],"args.0.c":2}}}',
        ),
        ('{"json":1,"meta":5}', '{"json":{M,"args":[1],T},"meta":5}'),
        ('{"json":1,"meta":{"values":5}}', '{"json":{M,"args":[1],T},"meta":{"values":5}}'),
    ],
)
def test_annotations_of_superjson_are_moved_to_the_argument(text: str, line: str, tmp_path: Path) -> None:
    (case,) = vector(tmp_path, codec="superjson", hex=text.encode().hex(), value={"null": True})
    assert case.session == "superjson"
    line = line.replace("M,", '"id":I,"method":"tag",').replace("I", '"val-1/x/decode"')
    line = line.replace("T}", '"type":"request","version":"superjson"}')
    assert written(case).decode() == line + "\n"


@pytest.mark.parametrize(
    ("error", "last", "fresh"),
    [
        (
            "malformed",
            {"expect": {"id": "val-1/x/decode", "type": "response", "args": {"error": {"$type": "string"}}}},
            False,
        ),
        ("frame", {"exit": 3}, True),
        ("noise", {"quiet": True}, True),
    ],
)
def test_what_an_error_comes_to(error: str, last: Any, fresh: bool, tmp_path: Path) -> None:
    (case,) = vector(tmp_path, codec="json", hex="31", error=error)
    assert case.steps[1:] == (last,)
    assert case.fresh is fresh


def test_superjson_that_is_no_json_is_written_as_it_is(tmp_path: Path) -> None:
    (case,) = vector(tmp_path, codec="superjson", hex=b"[1,".hex(), error="noise")
    assert written(case).startswith(b'{"json":{"id":"val-1/x/decode","method":"tag","args":[[1,],"type"')


def test_what_words_cannot_carry_comes_back_as_it_is(tmp_path: Path) -> None:
    words: dict[str, Any] = {"int": "1"}
    for _ in range(80):
        words = {"list": [words]}
    (case,) = vector(tmp_path, codec="json", hex=b"1".hex(), value=words)
    assert b'"method":"echo"' in written(case)
    assert case.steps[1]["expect"]["args"] == {"result": {"$words": words}}
