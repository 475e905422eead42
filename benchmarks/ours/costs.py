"""What is paid at the start or grows with size: the import, and the decoding of one long frame."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections import deque
from typing import Any

import anyio
from anyio.abc import ByteStream

import kkrpc_py as kk
from benchmarks import trial
from benchmarks.ours.link import ROOT

_PIECE = 1 << 16
"""As much as a pipe gives at once."""
_DECODE_BYTES = 32 << 20
"""So much is decoded of each kind in one trial, in frames of the size that is asked for."""


class _Answering(ByteStream):
    """A peer that has its answer to a request ready, in pieces like a pipe's, before it gives the first."""

    began = 0.0
    """When the first piece of the latest answer was given."""

    def __init__(self, result: bytes) -> None:
        self._result = result
        self._pieces: deque[bytes] = deque()
        self._first = False
        self._something = anyio.Event()

    async def send(self, item: bytes) -> None:
        request = json.loads(item)
        head = json.dumps({"id": request["id"], "method": "", "type": "response", "version": "json"})
        frame = head[:-1].encode() + b', "args": {"result": ' + self._result + b"}}\n"
        self._pieces.extend(frame[at : at + _PIECE] for at in range(0, len(frame), _PIECE))
        self._first = True
        self._something.set()

    async def receive(self, max_bytes: int = _PIECE) -> bytes:
        await anyio.lowlevel.checkpoint()
        while not self._pieces:
            self._something = anyio.Event()
            await self._something.wait()
        if self._first:
            self._first = False
            self.began = time.perf_counter()
        return self._pieces.popleft()

    async def send_eof(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


async def _decode_seconds(result: Any, frames: int) -> tuple[float, int]:
    """One frame's decoding, from its first piece to the value at hand; and the frame's size."""
    text = json.dumps(result).encode()
    peer = _Answering(text)
    async with kk.RPCChannel(peer, hello=False) as channel:
        times = []
        for _ in range(frames + 1):
            received = await channel.remote().anything()
            times.append(time.perf_counter() - peer.began)
            if received != result:
                raise trial.WrongResultError("the frame holds something else")
    return statistics.median(times[1:]), len(text)


async def decode(workload: str, count: int) -> dict[str, Any]:
    """A frame of about `count` bytes: one long text, which shows the cost of collecting it, and rows."""
    frames = max(3, _DECODE_BYTES // count)
    row_bytes = len(json.dumps(trial.dict_at(10**6))) + 2
    kinds = {
        "text": "x" * count,
        "rows": [trial.dict_at(10**6 + i) for i in range(max(1, count // row_bytes))],
    }
    per_byte = {}
    for kind, result in kinds.items():
        seconds, size = await _decode_seconds(result, frames)
        per_byte[kind] = seconds / size * 1e9
    return {"seconds": 0.0, "count": count, "ns_per_byte": per_byte}


def _start_seconds(program: str) -> float:
    cached = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=cached, check=True)
    return time.perf_counter() - began


def import_time(workload: str, count: int) -> dict[str, Any]:
    """Whole processes, in turns; what the import adds. The first ones write the bytecode."""
    programs = {"bare": "pass", "ours": "import kkrpc_py"}
    for program in programs.values():
        _start_seconds(program)
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(count):
        for name, program in programs.items():
            times[name].append(_start_seconds(program))
    return {
        "seconds": math.fsum(times["ours"]),
        "count": count,
        "import_ms": {
            "median": (statistics.median(times["ours"]) - statistics.median(times["bare"])) * 1e3,
            "best": (min(times["ours"]) - min(times["bare"])) * 1e3,
        },
    }
