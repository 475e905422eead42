"""What one producer sends to all, the same for either way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import trial

BLOCK_1K = bytes(range(256)) * 4


@dataclass(frozen=True)
class Workload:
    what: str
    value: Callable[[int], Any]
    """The value at a place, made anew for each."""
    alone: bool = False
    """Each value leaves before the next one is made, in a frame of its own."""


WORKLOADS = {
    "dicts": Workload("small dicts as fast as they are taken, JSON", trial.dict_at),
    "blocks-1k": Workload("bytes of 1 KiB as fast as they are taken, CBOR", lambda i: BLOCK_1K),
    "dicts-alone": Workload("small dicts, each sent before the next one is made, JSON", trial.dict_at, True),
}
