"""Random schedules, the same for the same seed, and the shortest that still fails.

Generating values takes Hypothesis longer than most schedules run; here a run is little more than what it
tests. This module owns no test.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest

Action = tuple[Any, ...]
"""The name of a method, and its arguments."""
Make = Callable[[random.Random], tuple[dict[str, Any], list[Action]]]
"""Settings and actions of one run."""
Follow = Callable[[dict[str, Any], list[Action]], None]
"""Runs them; raises where something is wrong."""


def follow_all(seeds: Iterable[int], make: Make, follow: Follow) -> None:
    """Run the schedule of each seed. Of the first that fails, raise what its shortest form raises."""
    for seed in seeds:
        settings, actions = make(random.Random(seed))
        if not _fails(settings, actions, follow):
            continue
        actions = _shortest(settings, actions, follow)
        told = "".join(f"\n  {action}," for action in actions)
        try:
            follow(settings, actions)
        except BaseException as error:
            error.add_note(f"seed {seed}\nsettings {settings}\nactions [{told}\n]")
            raise
        raise AssertionError(f"seed {seed} has failed and does so no more: chance is left in the test")


def _fails(settings: dict[str, Any], actions: list[Action], follow: Follow) -> bool:
    try:
        follow(settings, actions)
    except (Exception, pytest.fail.Exception):
        return True
    return False


def _shortest(settings: dict[str, Any], actions: list[Action], follow: Follow) -> list[Action]:
    """Leave out what can be left out: first many at once, then one by one."""
    size = len(actions)
    while size:
        at = 0
        while at < len(actions):
            fewer = actions[:at] + actions[at + size :]
            if _fails(settings, fewer, follow):
                actions = fewer
            else:
                at += size
        size //= 2
    return actions
