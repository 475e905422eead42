"""Arguments bound on the caller's side mean what they would mean in a call of Python's own."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kkrpc_py.channel.parameters import Parameters


def bound(function: Any, *args: Any, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    return Parameters("API.f", inspect.signature(function)).bind(args, kwargs)


NOT_PLAIN = object()


def plain(a: Any, b: Any = 2, c: Any = "three", d: Any = None, *rest: Any, e: Any = 5, **others: Any) -> Any:
    return a, b, c, d, rest, e, others


def unplain(a: Any, b: Any = NOT_PLAIN, c: Any = 3, d: Any = NOT_PLAIN, e: Any = 5) -> Any:
    return a, b, c, d, e


ARGUMENTS = st.lists(st.integers(), max_size=5)
NAMED = st.sets(st.sampled_from("bcdefg")).map(lambda names: {name: ord(name) for name in names})


@settings(max_examples=500, deadline=None)
@given(st.sampled_from([plain, unplain]), ARGUMENTS, NAMED)
def test_what_is_bound_means_the_same_as_python_makes_of_it(
    function: Any, args: list[Any], kwargs: dict[str, Any]
) -> None:
    try:
        meant = function(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError, match=r"^API\.f\(\): "):
            bound(function, *args, **kwargs)
        return
    placed, named = bound(function, *args, **kwargs)
    assert function(*placed, **named) == meant
    assert placed[: len(args)] == args


@settings(deadline=None)
@given(ARGUMENTS, NAMED)
def test_nothing_crosses_by_name_that_has_a_position(args: list[Any], kwargs: dict[str, Any]) -> None:
    try:
        _, named = bound(plain, *args, **kwargs)
    except TypeError:
        return
    assert named.keys() <= {"e", "f", "g"}


def test_gaps_are_filled_with_defaults_as_long_as_they_are_plain_data() -> None:
    assert bound(plain, 1, c=30) == ([1, 2, 30], {})
    assert bound(plain, 1, c=30, d=40) == ([1, 2, 30, 40], {})
    assert bound(plain, a=1, d=40) == ([1, 2, "three", 40], {})
    assert bound(unplain, 1, c=30, e=50) == ([1], {"c": 30, "e": 50})
    assert bound(unplain, 1, 2, e=50) == ([1, 2], {"e": 50})
    assert bound(unplain, 1, 2, 3, 4, e=50) == ([1, 2, 3, 4, 50], {})


def test_what_is_left_out_at_the_end_is_the_callees_to_fill_in() -> None:
    assert bound(plain, 1) == ([1], {})
    assert bound(plain, a=1, b=20) == ([1, 20], {})


def test_a_keyword_only_argument_without_a_default_is_missed() -> None:
    def function(a: int = 1, *rest: int, key: int) -> None: ...

    for args in ((), (1,), (1, 2, 3)):
        with pytest.raises(TypeError, match="missing a required .*'key'"):
            bound(function, *args)
    assert bound(function, 1, 2, key=3) == ([1, 2], {"key": 3})


def test_where_nothing_is_known_nothing_is_checked() -> None:
    unknown = Parameters("API.f", None)
    assert unknown.bind((1, 2), {"c": 3}) == ([1, 2], {"c": 3})
