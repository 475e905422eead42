"""Starts the other end of a peer's trial, and sees it gone."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

GRACE_SECONDS = 5
"""How long the other end may take to leave by itself."""


@contextmanager
def other_end(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command`, which ends with its stdin: after the block, and also when this process is killed."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, **options
    ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
