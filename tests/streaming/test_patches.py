"""Patches of shared states: made and applied strictly, hostile ones refused, merged where they may be."""

from __future__ import annotations

import builtins
import copy
import random
import sys
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kkrpc_py.errors import LimitExceeded, NotSerializable
from kkrpc_py.limits import Limits
from kkrpc_py.streaming import patches
from kkrpc_py.streaming.diffs import make
from kkrpc_py.streaming.documents import DocumentRules, copied, same
from kkrpc_py.streaming.places import overlap, touched

# Few keys and small values, so that documents meet; what looks like an index or needs an escape among them.
KEYS = st.sampled_from(["a", "b", "0", "1", "-", "", "~", "/", "~1", "é"])
LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([0.0, -0.0, 1.0, 2.5, 2**53 - 1]),
    st.sampled_from(["", "a", "b", "x" * 40]),
)


def add(path: str, value: Any = 1) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}


def replace(path: str, value: Any = 1) -> dict[str, Any]:
    return {"op": "replace", "path": path, "value": value}


def equals(path: str, value: Any = 1) -> dict[str, Any]:
    return {"op": "test", "path": path, "value": value}


def remove(path: str) -> dict[str, Any]:
    return {"op": "remove", "path": path}


def moves(source: str, path: str) -> dict[str, Any]:
    return {"op": "move", "from": source, "path": path}


def copies(source: str, path: str) -> dict[str, Any]:
    return {"op": "copy", "from": source, "path": path}


def applied(document: Any, patch: Any) -> Any:
    return patches.apply(document, patches.checked(patch))


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.lists(inner, max_size=5), st.dictionaries(KEYS, inner, max_size=4))


DOCUMENTS = st.recursive(LEAVES, containers, max_leaves=25)


def changed(document: Any, random: random.Random) -> Any:
    """A copy of `document` with a change somewhere, as people make them."""
    document = copied(document)
    place, steps = document, 0
    while isinstance(place, (dict, list)) and place and random.random() < 0.7 and steps < 5:
        inner = list(place.values()) if isinstance(place, dict) else place
        inner = [item for item in inner if isinstance(item, (dict, list))]
        if not inner:
            break
        place, steps = random.choice(inner), steps + 1
    new = random.choice([None, True, 1, 1.0, "new", [1], {"a": [1, {"b": 2}]}])
    if isinstance(place, list):
        what = random.choice(["append", "insert", "remove", "replace", "shuffle"])
        if what == "append" or not place:
            place.append(new)
        elif what == "insert":
            place.insert(random.randrange(len(place)), new)
        elif what == "remove":
            place.pop(random.randrange(len(place)))
        elif what == "replace":
            place[random.randrange(len(place))] = new
        else:
            random.shuffle(place)
    elif isinstance(place, dict):
        if place and random.random() < 0.3:
            del place[random.choice(list(place))]
        else:
            place[random.choice(["a", "b", "0", "-", "c~/d"])] = new
    else:
        return new
    return document


# --- made, and applied ----------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(old=DOCUMENTS, new=DOCUMENTS)
def test_what_is_made_of_two_documents_leads_from_one_to_the_other(old: Any, new: Any) -> None:
    before = copy.deepcopy((old, new))
    patch = make(old, new)
    assert (patch == []) == same(old, new)
    assert same(applied(old, patch), new)
    assert same(list(before), [old, new])


@settings(max_examples=80, deadline=None)
@given(old=DOCUMENTS, random=st.randoms(use_true_random=False), times=st.integers(1, 4))
def test_so_does_what_is_made_of_a_few_changes(old: Any, random: random.Random, times: int) -> None:
    new = old
    for _ in range(times):
        new = changed(new, random)
    patch = make(old, new)
    before = copy.deepcopy(old)
    assert same(applied(old, patch), new)
    assert same(old, before)


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({"a": 1}, {"a": True}, [replace("/a", True)]),
        ({"a": 1}, {"a": 1.0}, [replace("/a", 1.0)]),
        ({"a": 0.0}, {"a": -0.0}, [replace("/a", -0.0)]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
        ([1], [1.0], [replace("/0", 1.0)]),
        (1, True, [replace("", True)]),
        ([], {}, [replace("", {})]),
        ({"a/b": {"~": 1}}, {"a/b": {"~": 2}}, [replace("/a~1b/~0", 2)]),
        # What is put at the end says so.
        ({"log": [1]}, {"log": [1, 2, 3]}, [
            add("/log/-", 2),
            add("/log/-", 3),
        ]),
        # Not what is put elsewhere, and a list's indexes are those of the list as it is.
        ([1, 2, 3, 4], [1, 9, 2, 3, 4], [add("/1", 9)]),
        ([1, 2, 3, 4], [1, 3, 4], [remove("/1")]),
        ([[1], [2, 3]], [[1], [2, 4]], [replace("/1/1", 4)]),
        # Smaller as a whole.
        ({"x": dict.fromkeys("abcdefghijkl", 1)}, {"x": {}}, [replace("/x", {})]),
    ],
)  # fmt: skip
def test_patches_that_are_made(old: Any, new: Any, patch: list[dict[str, Any]]) -> None:
    made = make(old, new)
    assert same(made, patch), made


def test_a_small_change_of_a_large_document_is_a_small_patch() -> None:
    old = {
        "messages": [{"id": n, "text": "hello"} for n in range(2000)],
        "users": {str(n): n for n in range(2000)},
    }
    new = copied(old)
    new["messages"][1000]["text"] = "hallo"
    assert make(old, new) == [{"op": "replace", "path": "/messages/1000/text", "value": "hallo"}]
    new = copied(old)
    del new["messages"][3]
    assert make(old, new) == [{"op": "remove", "path": "/messages/3"}]


ROWS = [{"id": n, "text": "row"} for n in range(3000)]


@pytest.mark.parametrize(
    ("new", "patch"),
    [
        # A log of so many last rows.
        ([*ROWS[2:], 1, 2], [remove("/0"), remove("/0"), add("/-", 1), add("/-", 2)]),
        ([0, *ROWS[2:], 1], None),
        ([*ROWS, 1, 2], [add("/-", 1), add("/-", 2)]),
        ([1, 2, *ROWS], [add("/0", 1), add("/1", 2)]),
        (ROWS[:-2], [remove("/2998"), remove("/2998")]),
        (ROWS[1000:], None),
        # Changes here and there, and what is put in elsewhere in the same list.
        ([*ROWS[:5], 1, *ROWS[6:2000], {"id": 2000}, *ROWS[2001:]], [replace("/5", 1), remove("/2000/text")]),
        ([*ROWS[:5], 1, *ROWS[5:2000], 2, *ROWS[2000:]], None),
        (ROWS[::-1], None),
        (ROWS[::2], None),
        ([row | {"text": "other"} for row in ROWS], None),
    ],
)
def test_long_lists(new: list[Any], patch: list[dict[str, Any]] | None) -> None:
    made = make({"rows": ROWS, "n": 1}, {"n": 1, "rows": new})
    assert applied({"rows": ROWS}, made) == {"rows": new}
    if patch is None:
        assert {operation["op"] for operation in made} == ({"remove"} if new == ROWS[1000:] else {"replace"})
    else:
        assert made == [operation | {"path": "/rows" + operation["path"]} for operation in patch]


@pytest.mark.parametrize("wrong", ["raises", "nothing", "another", "nonsense"])
def test_a_library_that_is_wrong_harms_nobody(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    class Patch:
        patch: Any = {
            "nothing": [],
            "another": [{"op": "add", "path": "/0", "value": 1}],
            "nonsense": [{"op": "add", "path": "a"}],
            "raises": None,
        }[wrong]

    def make_patch(old: Any, new: Any) -> Any:
        if wrong == "raises":
            raise RecursionError
        return Patch

    monkeypatch.setattr(patches.library(), "make_patch", make_patch)
    old: dict[str, Any] = {"a": {"b": [1, 2]}, "c": 0}
    new: dict[str, Any] = {"a": {"b": [2, 2.0, 0]}, "c": 0}
    assert make(old, new) == [{"op": "replace", "path": "/a/b", "value": [2, 2.0, 0]}]


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "jsonpatch":
            raise ModuleNotFoundError("No module named 'jsonpatch'", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "jsonpatch", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"kkrpc-py\[state\]"):
        make({"a": 1}, {"b": 1})


# --- what a peer sends ----------------------------------------------------------------------------

WIDE = dict.fromkeys(map(str, range(1000)), 1)
DOCUMENT = {"a": {"b": [1, 2, {"c": 3}]}, "n": 1, "": {"": "empty"}, "t": "text", "01": [0]}


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        (add("/x", None), DOCUMENT | {"x": None}),
        (add("/n", 2), DOCUMENT | {"n": 2}),
        (add("", [1]), [1]),
        (replace("", [1]), [1]),
        (add("/01/1", 1), DOCUMENT | {"01": [0, 1]}),
        (add("/01/-", 1), DOCUMENT | {"01": [0, 1]}),
        (add("/01/0", 1), DOCUMENT | {"01": [1, 0]}),
        (remove("/01/0"), DOCUMENT | {"01": []}),
        (replace("/a/b/2/c", 4), DOCUMENT | {"a": {"b": [1, 2, {"c": 4}]}}),
        (replace("//", 4), DOCUMENT | {"": {"": 4}}),
        (moves("/a/b/0", "/a/b/2"), DOCUMENT | {"a": {"b": [2, {"c": 3}, 1]}}),
        # Inserted where the document without it has that place.
        (moves("/a/b/0", "/a/b/1/d"), DOCUMENT | {"a": {"b": [2, {"c": 3, "d": 1}]}}),
        (moves("/a/b/0", "/a/b/-"), DOCUMENT | {"a": {"b": [2, {"c": 3}, 1]}}),
        (moves("/n", "/n"), DOCUMENT),
        (moves("", ""), DOCUMENT),
        (copies("/n", "/01/0"), DOCUMENT | {"01": [1, 0]}),
        (copies("/01", "/01/-"), DOCUMENT | {"01": [0, [0]]}),
        (copies("", ""), DOCUMENT),
        ({"op": "test", "path": "/n", "value": 1.0}, DOCUMENT),
        ({"op": "test", "path": "/a", "value": {"b": [1, 2, {"c": 3}]}, "more": "is ignored"}, DOCUMENT),
    ],
)  # fmt: skip
def test_operations(operation: dict[str, Any], result: Any) -> None:
    before = copy.deepcopy(DOCUMENT)
    given = copy.deepcopy(operation)
    assert same(applied(DOCUMENT, [operation]), result)
    assert same(DOCUMENT, before)
    assert operation == given


@pytest.mark.parametrize(
    "patch",
    [
        None, 1, "text", b"[]", {}, remove("/n"), [None], [[]], ["remove"], [1],
        [{}], [{"op": None, "path": "/n"}], [add("/n") | {"op": "Add"}], [{"op": ["add"], "path": ""}],
        [{"op": "append", "path": "/t", "value": "x"}],
        [{"op": "add", "path": "/n"}], [{"op": "replace", "path": "/n"}], [{"op": "test", "path": "/n"}],
        [{"op": "add", "value": 1}], [{"op": "remove"}], [{"op": "remove", "path": None}],
        [{"op": "remove", "path": ["n"]}], [{"op": "remove", "path": 1}],
        [{"op": "move", "path": "/n"}], [{"op": "copy", "path": "/n", "from": None}],
        [{"op": "remove", "path": "n"}], [{"op": "remove", "path": "#/n"}], [{"op": "remove", "path": "/~"}],
        [{"op": "remove", "path": "/~2"}], [{"op": "move", "path": "/x", "from": "n"}],
        # Places that are not there.
        [remove("")], [remove("/x")], [replace("/x", 1)],
        [add("/x/y", 1)], [add("/n/y", 1)],
        [add("/t/0", 1)], [replace("/t/0", "x")],
        [copies("/t/0", "/x")], [equals("/t/0", "t")],
        [copies("/x", "/y")], [moves("/x", "/y")],
        # Indexes.
        [add("/a/b/4", 1)], [add("/a/b/-1", 1)],
        [add("/a/b/01", 1)], [add("/a/b/1.0", 1)],
        [add("/a/b/+1", 1)], [add("/a/b/ 1", 1)],
        [add("/a/b/1_0", 1)], [add("/a/b/\N{ARABIC-INDIC DIGIT ONE}", 1)],
        [add("/a/b/1\n", 1)], [add("/a/b/" + "9" * 5000, 1)],
        [remove("/a/b/-")], [remove("/a/b/3")], [remove("/a/b/00")],
        [replace("/a/b/-", 1)], [equals("/a/b/-", 1)],
        [copies("/a/b/-", "/x")], [moves("/a/b/-", "/x")],
        [add("/a/b/-/x", 1)], [replace("/a/b/02/c", 1)],
        [add("/a/b/length", 1)], [add("/a/b/__class__", 1)],
        # Into itself.
        [moves("/a", "/a/b/0")], [moves("", "/x")],
        # Tests that fail.
        [equals("/n", True)], [equals("/n", "1")],
        [equals("/a/b", [1, 2])], [equals("/x", None)],
        # Too many, too deep, too large.
        [equals("", 1)] * 20_000,
        [add("/x" * 129, 1)], [add("/" * 10**6, 1)],
        [add("/x", ["x" * 100])] + [copies("/x", "/x/-")] * 60,
        [add("/x", {}), moves("/a", "/x/a"), moves("/x", "/a")] * 2000,
        [add("/x", [])] + [add("/x/-", [])] * 9000 + [moves("/x/0", "/x/-")] * 9000,
        [add("/x", [0] * 100_000)] + [add("/x/0", 1), remove("/x/0")] * 4000,
        [add("/x", [0] * 10_000)] + [equals("/x", [0] * 10_000)] * 100,
        [add("/x", WIDE)] + [copies("/x", "/y"), copies("/y", "/x")] * 1000,
        [add("/x", WIDE)] + [moves("/x", "/y"), moves("/y", "/x")] * 1000,
        [add("/a" + "/x" * 100)] * 3000,
        # What went well before an error is undone.
        [remove("/a/b/0"), remove("/x")],
    ],
)  # fmt: skip
def test_a_patch_that_is_wrong_is_a_value_error_and_changes_nothing(patch: Any) -> None:
    before = copy.deepcopy(DOCUMENT)
    with pytest.raises(ValueError) as caught:
        applied(DOCUMENT, patch)
    assert type(caught.value) is ValueError
    assert 0 < len(str(caught.value)) < 250
    assert same(DOCUMENT, before)


def test_a_patch_may_put_much_at_the_end_of_a_long_list() -> None:
    document = [0] * 200_000
    assert len(applied(document, [add("/-")] * 9000)) == 209_000
    assert len(document) == 200_000


@pytest.mark.parametrize("name", ["add", "move", "copy"])
def test_nothing_is_nested_too_deep(name: str) -> None:
    def nested(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = {"x": value}
        return value

    def put(depth: int) -> Any:
        path = "/x" * (128 - depth)
        if name == "add":
            return applied(nested(127), [add(path, nested(depth))])
        document = {"x": nested(127), "y": nested(depth)}
        return applied(document, [{"op": name, "from": "/y", "path": path}])

    assert put(10)["x"]
    with pytest.raises(ValueError, match="too deep"):
        put_deeper = nested(11)
        applied({"x": nested(127), "y": put_deeper}, [moves("/y", "/x" * 118)])
    with pytest.raises(ValueError, match="too deep"):
        applied(nested(127), [replace("/x" * 118, nested(11))])


def test_what_was_copied_is_no_longer_the_same_thing() -> None:
    patch = [
        *[add("/a/new"), copies("/a", "/b"), add("/b/only", "b"), add("/a/only", "a")],
        *[copies("/a/in", "/a/out"), replace("/a/in/x", 2), replace("/a/out/x", 3)],
    ]
    assert applied({"a": {"in": {"x": 1}}}, patch) == {
        "a": {"in": {"x": 2}, "out": {"x": 3}, "new": 1, "only": "a"},
        "b": {"in": {"x": 1}, "new": 1, "only": "b"},
    }


ANYTHING = st.recursive(
    st.one_of(LEAVES, st.binary(max_size=2), st.just(float("nan")), st.just(10**30), st.just("\ud800")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)
POINTERS = st.lists(KEYS, max_size=4).map(patches.text_of)
OPERATIONS = st.fixed_dictionaries(
    {"op": st.sampled_from(sorted(patches._NAMES)), "path": POINTERS},
    optional={"from": POINTERS, "value": ANYTHING},
)


@settings(max_examples=80, deadline=None)
@given(document=ANYTHING, patch=st.one_of(ANYTHING, st.lists(st.one_of(OPERATIONS, ANYTHING), max_size=4)))
def test_any_patch_is_applied_or_a_value_error(document: Any, patch: Any) -> None:
    before, sent = repr(document), repr(patch)
    try:
        applied(document, patch)
    except ValueError:
        pass
    assert (repr(document), repr(patch)) == (before, sent)


@settings(max_examples=80, deadline=None)
@given(document=DOCUMENTS, patch=st.lists(OPERATIONS, max_size=4))
def test_it_is_applied_as_the_library_does(document: Any, patch: Any) -> None:
    jsonpatch = patches.library()
    try:
        expected = jsonpatch.JsonPatch(patch).apply(copy.deepcopy(document))
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException):
        with pytest.raises(ValueError):
            applied(document, patch)
    else:
        assert same(applied(document, patch), expected)


def test_operations_are_sent_on_with_their_own_members_alone() -> None:
    patch = [
        {"op": "add", "path": "/a~1b", "value": 1, "from": "", "more": 1},
        {"op": "move", "path": "/c", "from": "/d", "value": 1},
        {"op": "remove", "path": "/c", "value": 1},
    ]
    assert [operation.plain() for operation in patches.checked(patch)] == [
        {"op": "add", "path": "/a~1b", "value": 1},
        {"op": "move", "path": "/c", "from": "/d"},
        {"op": "remove", "path": "/c"},
    ]


# --- places ---------------------------------------------------------------------------------------

PLACES = {
    "users": {"17": {"name": "a", "tags": ["x"]}, "-": 1},
    "log": [{"text": "a"}, {"text": "b"}],
    "n": 0,
}


def conflict(first: list[dict[str, Any]], second: list[dict[str, Any]], document: Any = PLACES) -> bool:
    places, others = (touched(patches.checked(patch), document) for patch in (first, second))
    assert overlap(places, [others]) == overlap(others, [places])
    return overlap(places, [frozenset(), others])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([replace("/n")], [replace("/n")], True),
        ([replace("/n")], [equals("/n")], True),
        ([replace("/users/17/name")], [replace("/users/17/tags")], False),
        ([replace("/users/17/name")], [remove("/users/17")], True),
        ([add("/users/18")], [add("/users/19")], False),
        ([add("/users/1")], [add("/users/17")], False),
        ([add("/users/18")], [replace("/users")], True),
        ([add("/users/-")], [add("/users/-")], True),
        ([replace("")], [add("/x")], True),
        ([replace("/log/0/text")], [replace("/log/1/text")], False),
        ([replace("/log/0")], [replace("/log/1")], False),
        ([replace("/log/0")], [replace("/log/0/text")], True),
        ([remove("/log/0")], [replace("/log/1/text")], True),
        ([add("/log/0")], [replace("/log/1")], True),
        ([add("/log/2")], [add("/log/-")], True),
        ([add("/log/-")], [add("/log/-")], False),
        ([add("/log/-")], [replace("/log/0/text")], False),
        ([add("/log/-")], [remove("/log/0")], True),
        ([add("/log/-")], [replace("/log")], True),
        # The item at that index may be another one's by then.
        ([add("/log/-"), add("/log/2/x")], [add("/log/-")], True),
        ([copies("/log/0", "/n")], [replace("/log/0/text")], True),
        ([copies("/log/0", "/n")], [replace("/log/1/text")], False),
        ([copies("/n", "/log/0")], [replace("/log/1")], True),
        ([moves("/log/0", "/n")], [replace("/log/1")], True),
        ([moves("/users/17", "/m")], [replace("/users/17/name")], True),
        ([remove("/log")], [add("/n"), add("/log/0")], True),
        ([], [replace("")], False),
    ],
)
def test_who_conflicts_with_whom(
    first: list[dict[str, Any]], second: list[dict[str, Any]], expected: bool
) -> None:
    assert conflict(first, second) is expected


def test_a_patch_that_touches_very_much_is_told_apart_by_less() -> None:
    patch = [{"op": "add", "path": f"/rows/r{n}", "value": 1} for n in range(2000)]
    assert touched(patches.checked(patch), {"rows": {}}) == {("rows",)}


@settings(max_examples=80, deadline=None)
@given(document=containers(DOCUMENTS), random=st.randoms(use_true_random=False))
def test_patches_that_do_not_conflict_give_the_same_in_either_order(
    document: Any, random: random.Random
) -> None:
    first, second = (make(document, changed(document, random)) for _ in range(2))
    # Two who append to one list get the order in which they came.
    assume(not any(op["path"].endswith("/-") for op in first + second))
    if not conflict(first, second, document):
        one = applied(applied(document, first), second)
        other = applied(applied(document, second), first)
        assert same(one, other)


@settings(max_examples=80, deadline=None)
@given(
    document=containers(DOCUMENTS),
    first=st.lists(OPERATIONS, max_size=3),
    second=st.lists(OPERATIONS, max_size=3),
)
def test_so_do_patches_of_any_operations(document: Any, first: Any, second: Any) -> None:
    try:
        after_first, after_second = (applied(document, patch) for patch in (first, second))
    except ValueError:
        return
    assume(not any(op["path"].endswith("/-") for op in first + second))
    if not conflict(first, second, document):
        assert same(applied(after_first, second), applied(after_second, first))


def test_two_who_append_both_get_their_own() -> None:
    document: dict[str, Any] = {"log": [1]}
    first, second = (make(document, {"log": [1, new]}) for new in ("a", "b"))
    assert not conflict(first, second, document)
    assert applied(applied(document, first), second) == {"log": [1, "a", "b"]}


# --- documents ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, float("nan")]}, "value['a'][1]"),
        ({"a": [1, float("inf")]}, "value['a'][1]"),
        ([2**53], "value[0]"),
        ([-(2**53)], "value[0]"),
        ({"a": "\ud800"}, "value['a']"),
        ({"\udc00": 1}, "value"),
        ({1: 2}, "value"),
        ({"a": b"bytes"}, "value['a']"),
        ([{1, 2}], "value[0]"),
        ([object()], "value[0]"),
        ({"a": {"type": "Uint8Array", "data": [1]}}, "value['a']"),
    ],
)
def test_what_a_document_cannot_hold_is_named(value: Any, path: str) -> None:
    with pytest.raises(NotSerializable) as caught:
        DocumentRules(Limits()).check(value)
    assert caught.value.path == path


def test_documents_are_bounded() -> None:
    rules = DocumentRules(Limits(frame=4096, depth=20))
    assert rules.check(["x" * 1000]) == 1004
    assert rules.check({"type": "Uint8Array", "data": "no list"}) > 0
    assert rules.check("Uint8Array") == 12
    with pytest.raises(LimitExceeded):
        rules.check(["x" * 4000])
    with pytest.raises(LimitExceeded):
        rules.check([0] * 4000)
    deep: list[Any] = []
    for _ in range(11):
        deep = [deep]
    assert rules.check(deep) == 24
    with pytest.raises(NotSerializable, match="deep"):
        rules.check([deep])
    itself: list[Any] = []
    itself.append(itself)
    with pytest.raises(NotSerializable):
        rules.check(itself)


def test_a_copy_is_a_tree_of_lists_and_mappings() -> None:
    shared = [1]
    value = {"a": shared, "b": (shared, {"c": shared})}
    result = copied(value)
    assert result == {"a": [1], "b": [[1], {"c": [1]}]}
    result["a"].append(2)
    assert (shared, result["b"]) == ([1], [[1], {"c": [1]}])


@settings(max_examples=80, deadline=None)
@given(value=DOCUMENTS)
def test_a_copy_is_the_same(value: Any) -> None:
    assert same(copied(value), value)
    assert DocumentRules(Limits()).check(value) > 0
