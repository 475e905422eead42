"""The standard input and output of this process as a byte stream.

Owns the move of the protocol off the descriptors 0 and 1, so that nothing else in the process, nor
any process that it starts, can read or write the protocol by accident (decision 0104).
"""

from __future__ import annotations

import atexit
import contextlib
import enum
import fcntl
import io
import os
import select
import stat
import sys
import threading
from typing import Final, TextIO

from kkrpc_py.transports.descriptors import DescriptorStream, open_pipe
from kkrpc_py.transports.threads import BlockingDescriptor

__all__ = ["StdioStream", "open_stdio"]

_LINE_BYTES: Final = 64 * 1024
"""A line printed between frames that is longer is divided."""
_FLUSH_SECONDS: Final = 1.0
"""What printing the rest may take at exit, if nobody reads it."""


class StdioStream(DescriptorStream):
    """The protocol's descriptors, moved away from 0 and 1. Made by `open_stdio`."""

    shares_output: bool = False
    """Stdout and stderr were one pipe or socket (``2>&1``). What is printed then goes there as whole
    lines between two sends; so a send is one or more whole frames, and CBOR frames had better not be
    agreed upon (FRM-5)."""


def open_stdio() -> StdioStream:
    """Move the protocol off the descriptors 0 and 1, and return it. Once a process; never undone.

    Afterwards descriptor 0 is the null device and descriptor 1 is what descriptor 2 is: `print()`
    goes to stderr, line by line; C code and processes started later cannot reach the protocol. A
    closed stdin is one that has ended, a closed stdout one that nobody reads. Needs no event loop.
    """
    owners = [_owner_of(0, sys.__stdin__), _owner_of(1, sys.__stdout__), _owner_of(2, sys.__stderr__)]
    for fd, owner in enumerate(owners):
        if owner is _Owner.NOBODY:
            _become_null(fd)
    read_fd = _copy(0) if owners[0] is _Owner.US else os.open(os.devnull, os.O_RDONLY)
    write_fd = _copy(1) if owners[1] is _Owner.US else _unread_pipe()
    if owners[0] is _Owner.US:
        _become_null(0)
    turn = None
    if owners[1] is _Owner.US:
        if owners[2] is _Owner.US and _is_one_channel(1, 2):
            turn = threading.Lock()
            _print_in_turn(turn)
        elif owners[2] is _Owner.ELSE:
            _become_null(1)
        else:
            os.dup2(2, 1)
    if sys.stdout is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()  # what was printed before goes where prints go
            # To a pipe Python prints in blocks; a parent wants its child's prints as they come.
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(line_buffering=True)
    stream = StdioStream(read_fd, write_fd, enlarge="write", turn=turn)
    stream.shares_output = turn is not None
    return stream


class _Owner(enum.Enum):
    """Who has one of the descriptors 0 to 2."""

    US = enum.auto()
    NOBODY = enum.auto()
    # A process that is started without a standard stream gives its number to what it opens next: its
    # event loop's epoll, perhaps.
    ELSE = enum.auto()


def _owner_of(fd: int, stream: TextIO | None) -> _Owner:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return _Owner.NOBODY
    return _Owner.ELSE if stream is None or stream.closed else _Owner.US


def _copy(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _unread_pipe() -> int:
    """The writing end of a pipe that nobody reads."""
    read_fd, write_fd = open_pipe()
    os.close(read_fd)
    return write_fd


def _become_null(fd: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null == fd:
        os.set_inheritable(fd, True)
    else:
        os.dup2(null, fd)
        os.close(null)


def _is_one_channel(one: int, other: int) -> bool:
    """Whether both are the same pipe or socket: where a write that has to wait lets others in between.

    A terminal or a file takes a write whole.
    """
    first = os.fstat(one)
    is_channel = stat.S_ISFIFO(first.st_mode) or stat.S_ISSOCK(first.st_mode)
    return is_channel and os.path.samestat(first, os.fstat(other))


def _print_in_turn(turn: threading.Lock) -> None:
    """Have all that is printed pass through a thread, which writes it in whole lines when it has `turn`."""
    output = _copy(1)
    printed_read, printed_write = open_pipe()
    os.dup2(printed_write, 1)
    os.dup2(printed_write, 2)
    os.close(printed_write)
    printer = threading.Thread(
        target=_print_lines, args=(printed_read, output, turn), name="kkrpc_py printer", daemon=True
    )
    printer.start()

    def print_rest() -> None:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
        # The printer reads until nothing more is there; if it waits in a read, an empty line wakes it.
        os.set_blocking(printed_read, False)
        if select.select([], [1], [], 0)[1]:
            os.write(1, b"\n")
        os.dup2(output, 1)
        os.dup2(output, 2)
        printer.join(_FLUSH_SECONDS)

    atexit.register(print_rest)


def _print_lines(printed: int, output: int, turn: threading.Lock) -> None:
    descriptor = BlockingDescriptor(output, select.POLLOUT)
    part = b""
    with contextlib.suppress(BlockingIOError):
        while data := os.read(printed, _LINE_BYTES):
            lines, newline, part = (part + data).rpartition(b"\n")
            if len(part) >= _LINE_BYTES:
                lines, newline, part = lines + newline + part, b"\n", b""
            # Without a reader it is dropped: whoever prints must not wait for ever.
            with turn, contextlib.suppress(OSError):
                descriptor.write(lines + newline)
    if part:
        with turn, contextlib.suppress(OSError):
            descriptor.write(part + b"\n")
