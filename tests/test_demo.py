"""The main job on real folders: what it says is true, and it survives what folders hold."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kkrpc_py.demo.hashing import PIECE_BYTES, Hasher, work
from kkrpc_py.demo.screen import count, size

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 60
DEMO = [sys.executable, "-m", "kkrpc_py", "demo"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tmp_path / "project" / "inner"
    inner.mkdir(parents=True)
    for number in range(20):
        (inner / f"{number:02}.txt").write_bytes(bytes([number]) * 10_000 * number)
    (inner.parent / "large.bin").write_bytes(bytes(range(256)) * 8192)
    (inner.parent / "empty").touch()
    return inner.parent


def demo(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, *words], cwd=cwd, env=ENVIRONMENT, capture_output=True, encoding="utf-8", timeout=SECONDS
    )


def fingerprint(folder: Path) -> str:
    """What `sha256sum` would make of the folder's files, sorted by their bytes, and of its own output."""
    lines = hashlib.sha256()
    for file in sorted(folder.rglob("*"), key=os.fsencode):
        if file.is_file() and not file.is_symlink():
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            lines.update(f"{digest}  ".encode() + os.fsencode(file.relative_to(folder)) + b"\n")
    return lines.hexdigest()


def shows_a_cancel(output: str) -> bool:
    return (
        "the run was cancelled, its cleanup ran once" in output
        and "there before the cancel, removed after it" in output
    )


def test_every_file_is_hashed_and_a_cancelled_run_cleans_up(folder: Path, backend: str) -> None:
    began = time.monotonic()
    done = demo(str(folder), "--backend", backend)
    assert time.monotonic() - began < 20
    assert (done.returncode, done.stderr) == (0, "")
    assert f"22 files, {size(sum(range(20)) * 10_000 + 2**21)} in " in done.stdout
    assert re.search(r"\d files/s, .*B/s, [\d,]+ chunks/s", done.stdout)
    assert fingerprint(folder) in done.stdout
    assert "left out" not in done.stdout
    assert "not all of the folder" not in done.stdout
    assert shows_a_cancel(done.stdout)
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout


def test_the_default_is_the_current_folder(folder: Path) -> None:
    done = demo(cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert str(folder) in done.stdout
    assert fingerprint(folder) in done.stdout


def test_one_small_file_is_enough(tmp_path: Path, backend: str) -> None:
    (tmp_path / "one").write_bytes(b"1")
    done = demo(str(tmp_path), "--backend", backend)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 file, 1 B in " in done.stdout
    assert shows_a_cancel(done.stdout)


def test_an_empty_folder(tmp_path: Path) -> None:
    done = demo(str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 files, 0 B in " in done.stdout
    assert "no half-way" in done.stdout


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_what_is_no_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    done = demo(str(tmp_path / name))
    assert (done.returncode, done.stderr) == (1, "")
    error = "NotADirectoryError" if name == "file" else "FileNotFoundError"
    assert f"The child cannot read it: {error}: " in done.stdout
    assert str(tmp_path / name) in done.stdout.splitlines()[-1]


def test_folders_with_more_than_files(folder: Path) -> None:
    expected = fingerprint(folder)
    (folder / "loop").symlink_to(folder)
    (folder / "inner" / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "fifo")
    # A socket's path is short, so it is made where it will be.
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
    finally:
        os.chdir(here)
        os.close(here)
    done = demo(str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert expected in done.stdout
    assert "left out: 2 links" in done.stdout
    assert "left out: 2 sockets, pipes and devices" in done.stdout
    assert shows_a_cancel(done.stdout)


def test_names_that_no_terminal_should_see(tmp_path: Path) -> None:
    for name in (b"bell\x07\x1b[31m", b"\xff\xfe", "日本語 é".encode(), b"a\nb"):
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    done = demo(str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 files, " in done.stdout
    assert fingerprint(tmp_path) in done.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_left_out(folder: Path) -> None:
    (folder / "empty").chmod(0)
    (folder / "closed").mkdir(mode=0)
    done = demo(str(folder))
    (folder / "closed").chmod(0o700)
    assert (done.returncode, done.stderr) == (0, "")
    assert "left out: 1 files that cannot be read" in done.stdout
    assert "left out: 1 folders that cannot be read" in done.stdout


def test_a_large_folder_is_bounded_and_it_is_said(tmp_path: Path, backend: str) -> None:
    for number in range(4):  # sparse: they take no place, but seconds to hash
        with (tmp_path / f"{number}.bin").open("wb") as file:
            file.truncate(20 << 30)
    began = time.monotonic()
    done = demo(str(tmp_path), "--seconds", "0.5", "--backend", backend)
    assert time.monotonic() - began < 20
    assert (done.returncode, done.stderr) == (0, "")
    assert "not all of the folder: the demo stops after 0.5 s" in done.stdout
    assert "found by then: 4 files" in done.stdout


def test_on_a_terminal_there_is_a_bar(folder: Path, backend: str) -> None:
    ours, theirs = pty.openpty()
    environment = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100", "PYTHONUTF8": "1"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [*DEMO, str(folder), "--backend", backend],
        env=environment, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(theirs)
    shown = bytearray()

    def read() -> None:
        try:
            while data := os.read(ours, 65536):
                shown.extend(data)
        except OSError:  # the terminal's other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    _, errors = process.communicate(timeout=SECONDS)
    reader.join(SECONDS)
    os.close(ours)
    output = shown.decode()
    assert (process.returncode, errors) == (0, b"")
    assert "█" in output
    assert "\r\x1b[K" in output
    assert "100%" in output
    assert shows_a_cancel(output)


def test_ctrl_c_ends_it_and_its_child(tmp_path: Path, backend: str) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(500 << 30)
    with subprocess.Popen(
        [*DEMO, str(tmp_path), "--backend", backend, "--seconds", "50"],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        first = process.stdout.readline()
        process.stdout.readline()
        assert "1. The child" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGINT
    assert errors == ""
    child = int(re.findall(r"process (\d+)", first)[1])
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_output_that_nobody_reads_ends_it_quietly(folder: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [*DEMO, str(folder)], env=ENVIRONMENT, stdout=write_end, stderr=subprocess.PIPE, timeout=SECONDS
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_modules_in_the_users_folder_are_not_taken_for_the_standard_ones(folder: Path) -> None:
    (folder / "random.py").write_text("raise SystemExit('the wrong random')")
    as_installed = "import sys; from kkrpc_py.cli import main; sys.exit(main(['demo']))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", as_installed],
        cwd=folder, env=ENVIRONMENT, capture_output=True, encoding="utf-8", timeout=SECONDS,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "23 files" in done.stdout


# The child's half, without a process: what cannot be timed from outside ---------------------------


def test_files_that_vanish_or_change_while_it_runs(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).write_bytes(b"x")
    run = Hasher().hash_folder(str(tmp_path), 10)
    while next(run)["state"] != "found":
        pass
    (tmp_path / "a").unlink()
    (tmp_path / "b").unlink()
    os.mkfifo(tmp_path / "b")
    (tmp_path / "c").unlink()
    (tmp_path / "c").symlink_to("d")
    while True:
        try:
            next(run)
        except StopIteration as stop:
            summary = stop.value
            break
    assert summary["files"] == 1
    assert summary["skipped"] == {"files that vanished": 1, "files that cannot be read": 2}


def test_a_file_that_grows_is_read_as_far_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(bytes(PIECE_BYTES + 5))
    run = Hasher().hash_folder(str(tmp_path), 10)
    for chunk in run:
        if chunk["state"] == "hashing":
            with file.open("ab") as log:
                log.write(bytes(PIECE_BYTES))
            last = chunk
    assert last["bytes"] == PIECE_BYTES + 5


def test_what_is_counted() -> None:
    assert (count(1, "file"), count(1234, "file")) == ("1 file", "1,234 files")
    assert [size(n) for n in (0, 999, 1000, 1.5e6, 2e9, 3e12)] == [
        "0 B", "999 B", "1.0 kB", "1.5 MB", "2.0 GB", "3.0 TB",
    ]  # fmt: skip
    assert work(2, 10) == 2 * 4096 + 10
