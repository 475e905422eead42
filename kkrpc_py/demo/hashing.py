"""The demo's child: hashes a folder's files, and tells its parent how far it is.

Owns the walk and the hashing, with real files' hazards. Knows nothing of how it is shown.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import stat
import sys
import tempfile
import time
from collections.abc import Generator
from typing import IO, Any

import kkrpc_py as kk

__all__ = ["Hasher", "main", "work"]

PIECE_BYTES = 1 << 20
"""One read; each is a chunk of the stream."""
MOST_FILES = 200_000
LOOKING_SHARE = 0.3
"""Of the time that a run has, what may go into looking for files."""
PACE_SECONDS = 0.02

# Nothing that only looks like a file may block the child, or be followed out of the folder.
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Chunk = dict[str, Any]


@dataclasses.dataclass
class _Run:
    """One run, as it stands and as it ended: what the parent may ask for later."""

    ended: str = "no"
    cleanups: int = 0
    files: int = 0
    bytes: int = 0


class _Folder:
    """What was found in a folder: its regular files, and why others are left out."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: list[tuple[bytes, int]] = []
        self.bytes = 0
        self.skipped: collections.Counter[str] = collections.Counter()
        self.complete = True

    def look(self, until: float) -> Generator[Chunk]:
        """Find the files. Raises OSError where the folder itself cannot be read."""
        with os.scandir(self.path):
            pass
        pending = [os.fsencode(self.path)]
        while pending:
            directory = pending.pop()
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        self._note(entry, pending)
                        if len(self.files) >= MOST_FILES or time.monotonic() > until:
                            self.complete = False
                            return
            except OSError:
                self.skipped["folders that cannot be read"] += 1
            yield {"state": "looking", "files": len(self.files), "bytes": self.bytes}

    def _note(self, entry: os.DirEntry[bytes], pending: list[bytes]) -> None:
        try:
            if entry.is_symlink():
                self.skipped["links"] += 1
            elif entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                size = entry.stat(follow_symlinks=False).st_size
                self.files.append((entry.path, size))
                self.bytes += size
            else:
                self.skipped["sockets, pipes and devices"] += 1
        except OSError:
            self.skipped["files that vanished"] += 1


class Hasher:
    """The API that the child exposes."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    async def hello(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "python": sys.version.split()[0]}

    async def runs(self) -> list[dict[str, Any]]:
        """How each run so far has ended, and how often its cleanup ran."""
        return [dataclasses.asdict(run) for run in self._runs]

    def hash_folder(self, path: str, seconds: float, at_least: float = 0.0) -> Generator[Chunk, None, Chunk]:
        """Hash the regular files below `path`: a stream of progress, and a summary as its result.

        A `def`, so it runs on a thread and may block. It reads for about `seconds` at most, and
        takes its time where it would be done in less than `at_least`. Raises OSError where there
        is no such folder.
        """
        run = _Run()
        self._runs.append(run)
        try:
            with tempfile.NamedTemporaryFile(prefix="kkrpc-demo-", suffix=".sha256") as checksums:
                summary = yield from self._hash_into(checksums, checksums.name, run, path, seconds, at_least)
            run.ended = "completed"
            return summary
        except GeneratorExit:
            run.ended = "cancelled"
            raise
        except BaseException:
            run.ended = "failed"
            raise
        finally:
            run.cleanups += 1

    def _hash_into(
        self, checksums: IO[bytes], name: str, run: _Run, path: str, seconds: float, at_least: float
    ) -> Generator[Chunk, None, Chunk]:
        until = time.monotonic() + seconds
        folder = _Folder(path)
        yield from folder.look(time.monotonic() + seconds * LOOKING_SHARE)
        folder.files.sort()
        yield {"state": "found", "files": len(folder.files), "bytes": folder.bytes, "list": name}

        fingerprint = hashlib.sha256()
        total = work(len(folder.files), folder.bytes)
        began = time.monotonic()
        for file, _ in folder.files:
            shown = os.path.relpath(file, os.fsencode(path))
            digest = hashlib.sha256()
            try:
                for piece in _pieces(file):
                    digest.update(piece)
                    run.bytes += len(piece)
                    yield _progress(run, shown)
                    if time.monotonic() > until:
                        break
            except OSError as exc:
                folder.skipped[_why(exc)] += 1
            else:
                run.files += 1
                line = digest.hexdigest().encode() + b"  " + shown + b"\n"
                checksums.write(line)
                fingerprint.update(line)
                yield _progress(run, shown)
            if time.monotonic() > until:
                folder.complete = False
                break
            while time.monotonic() < began + at_least * work(run.files, run.bytes) / total:
                time.sleep(PACE_SECONDS)
                yield _progress(run, shown)
        return {
            "files": run.files,
            "bytes": run.bytes,
            "found": len(folder.files),
            "complete": folder.complete,
            "skipped": dict(folder.skipped),
            "fingerprint": fingerprint.hexdigest(),
        }


def work(files: int, size: int) -> int:
    """What hashing so many files of so many bytes costs, in bytes: opening one costs a little too."""
    return size + 4096 * files


def _progress(run: _Run, shown: bytes) -> Chunk:
    return {
        "state": "hashing",
        "files": run.files,
        "bytes": run.bytes,
        "name": shown.decode("utf-8", "replace"),
    }


def _pieces(file: bytes) -> Generator[bytes]:
    """What a regular file holds: as much as when it was opened, for one that is being written."""
    fd = os.open(file, _OPEN_FLAGS)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("no regular file any more")
        left = status.st_size
        while left > 0:
            piece = os.read(fd, min(left, PIECE_BYTES))
            if not piece:
                return
            left -= len(piece)
            yield piece
    finally:
        os.close(fd)


def _why(exc: OSError) -> str:
    return "files that vanished" if isinstance(exc, FileNotFoundError) else "files that cannot be read"


def main(backend: str) -> None:
    """Serve a `Hasher` to the parent process."""
    kk.run_stdio(Hasher(), backend=backend)
