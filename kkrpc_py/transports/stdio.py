"""This process's own stdin and stdout as a byte stream.

Owns the move of the protocol off the descriptors 0 and 1, so that nothing else in the process, nor
any process that it starts, can read or write the protocol by accident.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from typing import TextIO

from kkrpc_py.transports.descriptors import DescriptorStream, open_pipe

__all__ = ["open_stdio"]


def open_stdio() -> DescriptorStream:
    """Move the protocol off descriptors 0 and 1, and return it. Once a process; never undone.

    Afterwards descriptor 0 is the null device and descriptor 1 is what descriptor 2 is: `print()`
    goes to stderr, C code and processes started later cannot reach the protocol. Needs no event loop.
    """
    read_fd = _move(0, sys.__stdin__)
    write_fd = _move(1, sys.__stdout__)
    if read_fd is None:
        read_fd = os.open(os.devnull, os.O_RDONLY)
    if write_fd is None:
        unread, write_fd = open_pipe()
        os.close(unread)
    null = os.open(os.devnull, os.O_RDWR)
    with contextlib.suppress(OSError):
        os.dup2(null, 0)
    try:
        os.dup2(2, 1)
    except OSError:
        os.dup2(null, 1)
    os.close(null)
    if sys.stdout is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
    return DescriptorStream(read_fd, write_fd, enlarge="write")


def _move(fd: int, stream: TextIO | None) -> int | None:
    """A copy of a standard descriptor above 2, not inherited; None if the process has none there."""
    if stream is None or stream.closed:
        return None
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:
        return None
