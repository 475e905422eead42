"""What the browser talks to: the example as a process, a proxy that cuts, a page of another origin."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}

SECONDS = 20.0
"""No test waits longer for one thing."""


class ExampleServer:
    """`examples/web/server.py --paced`, and what it says.

    :param errors: the file of its standard error, which has to be empty at the end.
    """

    def __init__(self, errors: Path, port: int = 0) -> None:
        self.errors = errors
        self.lines: list[str] = []
        self._told = threading.Condition()
        with errors.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, ROOT / "examples" / "web" / "server.py", "--paced", f"--port={port}"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=ENVIRONMENT, text=True,
            )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> ExampleServer:
        try:
            self.wait_for("listening on ")
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if self.process.poll() is None and kind is None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(SECONDS)
        code = self.process.poll()
        self.kill()
        if kind is None:
            errors = self.errors.read_text()
            assert errors == "", errors
            assert code in (0, -signal.SIGKILL), f"exit code {code}"

    @property
    def url(self) -> str:
        return self.lines[0].removeprefix("listening on ")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def step(self, name: str, count: int = 1) -> None:
        """Let the stream of that name make so many steps."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name} {count}\n")
        self.process.stdin.flush()

    def wait_for(self, line: str, count: int = 1, seconds: float = SECONDS) -> None:
        """Wait until it has said so many lines that begin so."""
        with self._told:
            held = self._told.wait_for(lambda: self.said(line) >= count, seconds)
        assert held, f"no {line!r} ({count}) within {seconds} s: {self.lines}; {self.errors.read_text()}"

    def said(self, line: str) -> int:
        return sum(said.startswith(line) for said in self.lines)

    def settle(self) -> None:
        """Wait until every stream that began has ended; forget what it has said."""
        address, *lines = self.lines
        for line in lines:
            if line.endswith(" began"):
                self.wait_for(line.replace("began", "ended"), self.said(line))
        self.lines[:] = [address]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._told:
                self.lines.append(line.rstrip("\n"))
                self._told.notify_all()


class Cutter:
    """A TCP proxy whose connections can be cut, and which lets nobody through while it is down."""

    def __init__(self, port: int) -> None:
        self._back = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._up = True
        self._closing = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Cutter:
        self._start(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing = True
        with socket.create_connection(self._listener.getsockname()):  # wakes accept
            pass
        self.cut()
        for thread in self._threads:
            thread.join(SECONDS)
        self._listener.close()

    def cut(self) -> None:
        """Cut all connections, and be down."""
        with self._lock:
            self._up = False
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def mend(self) -> None:
        with self._lock:
            self._up = True

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args)  # type: ignore[arg-type]  # any callable of theirs
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            front, _ = self._listener.accept()
            with self._lock:
                if self._closing or not self._up:
                    front.close()
                    if self._closing:
                        return
                    continue
                back = socket.create_connection(self._back)
                self._open += [front, back]
            self._start(self._join, front, back)

    def _join(self, front: socket.socket, back: socket.socket) -> None:
        other = threading.Thread(target=_carry, args=(back, front))
        other.start()
        _carry(front, back)
        other.join()
        for each in (front, back):
            each.close()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


class _EmptyPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def foreign_page() -> Iterator[str]:
    """The address of an empty page of another origin: another port of the same host."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _EmptyPage) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
