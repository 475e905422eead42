"""The JavaScript client over MessagePorts: with itself, with stock kkrpc, with peers that are up to no good.

The scenarios are those of `port_scenarios.mjs`, which judge for themselves: TRN-3, TRN-9, and what a page
is owed by a client whose server it does not trust.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.js_client.node import Node, started
from tests.js_client.test_python_server import SCENARIOS

PORTS = [
    *("a_port_that_is_closed", "a_socket_that_is_slow", "chunks_without_credit", "ends"),
    *("functions_and_streams_within_values", "handlers", "hello", "items", "limits", "nonsense"),
    *("port_of_a_worker", "prototypes", "stock", "thenables", "what_may_be_exposed"),
    *("what_nobody_holds_is_cancelled", "worker"),
]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    yield from started()


@pytest.mark.parametrize("scenario", PORTS)
def test_a_scenario(node: Node, scenario: str) -> None:
    node.ask(scenario)


@pytest.mark.parametrize(
    ("seed", "rounds"), [(1, 40), pytest.param(1000, 1500, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_a_storm(node: Node, seed: int, rounds: int) -> None:
    """Nothing that a peer says crashes the client, hangs it, or reaches a prototype."""
    node.ask("storm", seed=seed, rounds=rounds)


def test_all_scenarios_are_played(node: Node) -> None:
    names = node.ask("names")
    assert sorted(names["ports"]) == PORTS
    played = {*SCENARIOS, "calls", "credit", "exposed", "nobody_there", "producing", "unbounded"}
    assert set(names["servers"]) == {*played, "waits_for_the_end"}
