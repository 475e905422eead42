"""The types of the JavaScript client: `types.ts` uses them, and TypeScript judges."""

from __future__ import annotations

import subprocess

from tests.js_client.node import HERE, NODE_DIR, node_or_skip


def test_the_types_are_those_of_the_api() -> None:
    node = node_or_skip("typescript")
    tsc = NODE_DIR / "node_modules" / "typescript" / "bin" / "tsc"
    options = (
        "--noEmit --strict --exactOptionalPropertyTypes --target es2022 --lib es2022,dom --module nodenext"
    )
    done = subprocess.run(
        [node, tsc, *options.split(), HERE / "types.ts"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == ""
    assert done.returncode == 0
