"""Files that a run leaves: whether they can be written, found out before it, and written as a whole.

It owns no content; `command` writes reports by it, `known` the list of known failures.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["Unwritable", "check_writable", "is_same", "write_whole"]


class Unwritable(Exception):
    """The file cannot be written there."""


def check_writable(path: Path) -> None:
    """Raises Unwritable where a file will not be written there. That it does not is no promise."""
    if path.is_dir():
        raise Unwritable(f"{path} is a folder")
    if path.exists() and not path.is_file():
        place = path
    elif path.parent.is_dir():
        # A new file takes the place of the old one, so the folder is what counts.
        place = path.resolve().parent
    else:
        raise Unwritable(f"there is no folder {path.parent}")
    if not os.access(place, os.W_OK):
        raise Unwritable(f"{place} may not be written to")


def is_same(first: Path, second: Path) -> bool:
    """Whether both name one file, there or not."""
    return first.resolve() == second.resolve() or (
        first.exists() and second.exists() and first.samefile(second)
    )


def write_whole(path: Path, text: str) -> None:
    """Write the file so that whoever reads it sees the old one or the new one, and never half of one.

    Raises Unwritable.
    """
    try:
        if path.exists() and not path.is_file():  # such as /dev/stdout
            path.write_text(text, encoding="utf-8")
            return
        # What a link leads to is replaced, not the link.
        path = path.resolve()
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as exc:
        raise Unwritable(f"{path}: {exc}") from exc
