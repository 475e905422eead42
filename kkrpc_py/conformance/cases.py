"""The conformance cases as they stand in `spec/conformance`: loading and choosing them.

It owns the form of a case in Python. It plays nothing (`play`) and judges no file (`lint`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

__all__ = ["Case", "Force", "Role"]

Force = Literal["MUST", "SHOULD", "MAY"]
Role = Literal["callee", "caller"]


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
