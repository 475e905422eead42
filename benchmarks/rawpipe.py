"""What the pipes of this machine do without any library: the figures to compare ours with.

Two processes, blocking reads and writes, no protocol and no event loop.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

MESSAGE = b"x" * 80
"""As long as a small call."""
BLOCK_BYTES = 1 << 16

_ECHO = """
import os
while data := os.read(0, 65536):
    os.write(1, data)
"""
_POUR = """
import os, sys
block = bytes(65536)
for _ in range(int(sys.argv[1])):
    left = memoryview(block)
    while left:
        left = left[os.write(1, left):]
"""


def round_trips(count: int) -> float:
    """Ping-pongs of one small message, a second."""
    with subprocess.Popen(
        [sys.executable, "-c", _ECHO], bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        to_child, from_child = child.stdin.fileno(), child.stdout.fileno()
        for trip in range(count + 1):
            if trip == 1:  # the first one waits for the child's start
                began = time.perf_counter()
            os.write(to_child, MESSAGE)
            received = 0
            while received < len(MESSAGE):
                received += len(os.read(from_child, BLOCK_BYTES))
        seconds = time.perf_counter() - began
        child.stdin.close()
    return count / seconds


def blocks(count: int) -> float:
    """Blocks of 64 KiB from child to parent, a second."""
    with subprocess.Popen(
        [sys.executable, "-c", _POUR, str(count)], bufsize=0, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        received = len(os.read(child.stdout.fileno(), BLOCK_BYTES))
        began, start = time.perf_counter(), received
        while data := os.read(child.stdout.fileno(), 1 << 20):
            received += len(data)
        seconds = time.perf_counter() - began
    return (received - start) / BLOCK_BYTES / seconds
