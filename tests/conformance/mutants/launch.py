"""The reference testee as a mutant: `python launch.py NAME [arguments of the testee]`."""

from __future__ import annotations

import sys
from pathlib import Path

# In front: a script's own folder is where Python looks first, and it is no package's.
sys.path[0] = str(Path(__file__).resolve().parents[3])

from tests.conformance.mutants.mutant import Patching
from tests.conformance.mutants.table import MUTANTS


def main() -> None:
    name = sys.argv.pop(1)
    mutant = next((each for each in MUTANTS if each.name == name), None)
    if mutant is None:
        sys.exit(f"there is no mutant {name!r}")
    sys.meta_path.insert(0, Patching(mutant))
    from kkrpc_py.conformance import testee

    # One that is never imported was never patched: then all the cases would speak for the library itself.
    if mutant.module.partition(".")[0] != "kkrpc_py":
        sys.exit(f"{mutant.module} is no module of kkrpc_py")
    testee.main()


if __name__ == "__main__":
    main()
