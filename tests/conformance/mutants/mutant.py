"""A mutant: the reference testee with one patch in one module of kkrpc_py, and how the patch gets in.

It owns the patching. What the mutants are stands in the tables beside this module (`table` joins them), what
the cases say to them in `matrix`.
"""

from __future__ import annotations

import dataclasses
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import CodeType, ModuleType

STALE = 70
"""The exit code of a mutant whose patch does not fit the module any more."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mutant:
    """One way to be wrong."""

    name: str
    rule: str
    """The rule of spec/protocol.md that is broken."""
    what: str
    """What it does wrong, in a few words."""
    module: str
    find: str
    """Occurs exactly once in the module's source."""
    replace: str

    def patched(self, source: str) -> str:
        """The module's source with the patch. Raises ValueError for one that does not fit."""
        if (times := source.count(self.find)) != 1:
            raise ValueError(f"mutant {self.name} is stale: {self.module} holds {times} times {self.find!r}")
        return source.replace(self.find, self.replace)


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads one module from its patched source, past the bytecode that may be cached of it."""

    mutant: Mutant

    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        source = self.get_data(path).decode()
        try:
            source = self.mutant.patched(source)
        except ValueError as stale:
            print(stale, file=sys.stderr)
            sys.exit(STALE)
        return compile(source, path, "exec", dont_inherit=True)


class Patching:
    """Finds the one module of a mutant, ahead of all finders."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None:
            return None
        loader = _Loader(fullname, spec.origin)
        loader.mutant = self._mutant
        return importlib.util.spec_from_file_location(fullname, spec.origin, loader=loader)
