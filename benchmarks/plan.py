"""Who is measured in what: every contender, and the trials of a round in their order."""

from __future__ import annotations

import fnmatch
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks import trial
from benchmarks.loops import LOOPS
from benchmarks.trial import Peer

OURS = "kkrpc_py"
FRAME_LIMIT = 16 << 20
_EVERYWHERE = frozenset({"ints", "dicts", "blocks-64k", "calls", "calls-100"})
"""What transports and codecs are compared in; the rest would tell the same once more."""
_MEMORY = frozenset({"memory-idle", "memory-streams", "memory-stalled-100", "memory-stalled-1m"})

SWEEPS = {
    "scaling": [10**4, 10**5, 10**6, 10**7],
    # The frame has a head too, so the longest text in it is a little shorter than the limit.
    "decode": [1 << 16, 1 << 20, FRAME_LIMIT - 1024],
}
"""Workloads that are run at each of these counts."""
FIXED = {
    "latency": 1000,
    "spawn": 3,
    "import": 10,
    "memory-idle": 3,
    "memory-streams": 10_000,
    "memory-stalled-100": 1_000_000,
    "memory-stalled-1m": 1000,
}
"""Counts that mean something by themselves; the others are chosen so that a trial takes long enough."""
FIRST_PROBE = {
    "blocks-64k": 100,
    "blocks-1m": 10,
    "calls": 200,
    "first-chunk": 50,
}
"""Where the search for a count begins, small enough for the slowest contender; else 1000."""
LONGER = {"streams-1": 4}
"""How much longer trials take in which more than the usual has to settle: the thousand streams that move as
many chunks as the one have a few thousand each, so that their flow is compared and not their opening."""
SELDOM = frozenset({"import", *_MEMORY, *SWEEPS})
"""Long ones, or steady ones: they are part of the first rounds alone, like transports beside stdio."""
SELDOM_ROUNDS = 3


@dataclass(frozen=True)
class Cell:
    """One trial of each round."""

    peer: Peer
    workload: str
    count: int | None = None
    """How many, or None: as many as the contender does in the time that a trial should take."""

    @property
    def label(self) -> str:
        """The workload's name in the results; a sweep has one for each count."""
        return f"{self.workload}@{self.count}" if self.workload in SWEEPS else self.workload

    @property
    def alike(self) -> tuple[str, str]:
        """Cells that use the same count.

        One stream and many are compared, and have to; loops and transports of ours are near enough.
        """
        name, workload = self.peer.name, self.workload
        if name.startswith(OURS):
            name = OURS + self.peer.command[-1]
        return name, "streams-1" if workload.startswith("streams-") else workload

    @property
    def seldom(self) -> bool:
        return self.workload in SELDOM or self.peer.name.endswith((" unix", " tcp", " json"))


def our_name(loop: str, transport: str = "stdio", codec: str = "auto") -> str:
    """What our contender is called with these settings; what is usual is left out."""
    return " ".join([OURS, loop, *[part for part in (transport, codec) if part not in ("stdio", "auto")]])


def _ours(loop: str, workloads: frozenset[str], transport: str = "stdio", codec: str = "auto") -> Peer:
    settings = ["--loop", loop, "--transport", transport, "--codec", codec]

    def missing() -> str | None:
        module = "asyncio" if loop == "asyncio" else loop
        return None if importlib.util.find_spec(module) else f"{module} is not installed"

    return Peer(
        our_name(loop, transport, codec),
        [sys.executable, "-m", "benchmarks.ours", *settings],
        workloads,
        missing,
    )


def our_contenders() -> list[Peer]:
    """The main one on each loop, with everything; then other transports and codecs, with some."""
    usual = frozenset(trial.WORKLOADS) | _MEMORY | {"scaling"}
    found = [_ours(loop, usual | ({"import", "decode"} if loop == "asyncio" else set())) for loop in LOOPS]
    for loop in LOOPS:
        some = _EVERYWHERE if loop == "asyncio" else frozenset({"ints", "calls"})
        found += [_ours(loop, some, transport=transport) for transport in ("unix", "tcp")]
        found.append(_ours(loop, _EVERYWHERE if loop == "asyncio" else frozenset({"dicts"}), codec="cbor"))
    # What "auto" writes in JSON is the same with "json"; bytes are not.
    found.append(_ours("asyncio", frozenset({"ints", "blocks-64k"}), codec="json"))
    return found


def contenders() -> list[Peer]:
    from benchmarks.peers import PEERS

    return [*our_contenders(), *PEERS]


def matching(only: Sequence[str]) -> Callable[[Peer, str], bool]:
    """Whether a trial is asked for: a glob over "WORKLOAD" or "CONTENDER/WORKLOAD", any of several."""

    def wanted(peer: Peer, workload: str) -> bool:
        names = (workload, f"{peer.name}/{workload}")
        return not only or any(fnmatch.fnmatchcase(name, glob) for glob in only for name in names)

    return wanted


def cells(peers: Sequence[Peer], wanted: Callable[[Peer, str], bool], scale: float) -> list[list[Cell]]:
    """The trials of a round, those of one workload together, so that what is compared runs close by."""

    def scaled(workload: str, count: int) -> int:
        # A frame's size is what is looked at, and does not shrink with the patience of who looks.
        return count if workload == "decode" else max(1, round(count * scale))

    groups = []
    for workload in [*trial.WORKLOADS, *trial.OUR_WORKLOADS]:
        runners = [peer for peer in peers if workload in peer.workloads and wanted(peer, workload)]
        for count in SWEEPS.get(workload, [FIXED.get(workload)]):
            fixed = None if count is None else scaled(workload, count)
            if runners:
                groups.append([Cell(peer, workload, fixed) for peer in runners])
    return groups


def order(groups: Sequence[Sequence[Cell]], round_number: int) -> list[Cell]:
    """One round: begins elsewhere each time, so that nobody always comes after the same one."""

    def turned(items: Sequence, by: int) -> list:
        by %= max(1, len(items))
        return [*items[by:], *items[:by]]

    return [
        cell
        for group in turned(groups, round_number * 7)
        for cell in turned(group, round_number)
        if not cell.seldom or round_number < SELDOM_ROUNDS
    ]
