"""The contenders beside kkrpc_py, a program each: `PEERS`. What each of them uses, and why: ../README.md."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from benchmarks.loops import LOOPS
from benchmarks.trial import Peer

NODE_FOLDER = Path(__file__).parent / "node"
OLDEST_NODE = 20

_STREAM = frozenset({"ints", "dicts", "strings", "blocks-64k", "blocks-1m"})
_STREAMS = frozenset({"streams-1", "streams-10", "streams-100", "streams-1000"})
_CALLS = frozenset({"calls", "calls-100"})
_INLINE = frozenset({"calls-inline-100"})
_WAITS = frozenset({"latency", "first-chunk", "spawn"})


def _without(*modules: str) -> str | None:
    """The packages' names are their modules', but for gRPC's."""
    packages = {"grpc": "grpcio", "grpc_tools": "grpcio-tools"}
    missing = [packages.get(module, module) for module in modules if importlib.util.find_spec(module) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


@cache
def _node_version() -> int | None:
    node = shutil.which("node")
    if node is None:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30).stdout
    return int(version.strip().lstrip("v").partition(".")[0])


def _without_node(package: str) -> str | None:
    version = _node_version()
    if version is None:
        return "there is no Node on the path"
    if version < OLDEST_NODE:
        return f"Node {version} is too old: {OLDEST_NODE} is needed"
    if not (NODE_FOLDER / "node_modules" / package).is_dir():
        return f"npm's {package} is not installed: run `npm ci` in benchmarks/peers/node"
    return None


def _python(name: str, module: str, *options: str, workloads: frozenset[str], needs: tuple[str, ...]) -> Peer:
    command = [sys.executable, "-m", f"benchmarks.peers.{module}", *options]
    return Peer(name, command, workloads, partial(_without, *needs))


def _node(name: str, program: str, workloads: frozenset[str]) -> Peer:
    needs: Callable[[], str | None] = partial(_without_node, program)
    return Peer(name, ["node", str(NODE_FOLDER / f"{program}.mjs")], workloads, needs)


def _grpc(name: str, loop: str) -> Peer:
    everything = _STREAM | _STREAMS | _CALLS | _WAITS  # it has a task for each call: nothing is inline
    return _python(name, "grpc_aio", loop, workloads=everything, needs=("grpc", "grpc_tools", loop))


PEERS: list[Peer] = [
    _grpc("grpc.aio", "asyncio"),
    _grpc("grpc.aio uvloop", "uvloop"),
    # Its handlers are functions that its one thread runs: the nearest to either kind of handler.
    _python("rpyc", "rpyc_peer", "plain", workloads=_STREAM | _CALLS | _INLINE | _WAITS, needs=("rpyc",)),
    _python("rpyc buffiter", "rpyc_peer", "buffiter", workloads=_STREAM - {"blocks-1m"}, needs=("rpyc",)),
    # No protocol, so nothing that takes more than one thing at a time on a pipe.
    _python("multiprocessing.Pipe", "pipe", workloads=_STREAM | {"calls", "spawn"}, needs=()),
    *(
        _python(
            f"anyio pipe {loop}",
            "anyio_pipe",
            loop,
            workloads=frozenset({"calls", "blocks-64k", "blocks-1m", "spawn"}),
            needs=(loop,),
        )
        for loop in LOOPS
    ),
    _node("capnweb", "capnweb", _STREAM | _STREAMS | _CALLS | _INLINE | _WAITS),
    _node("kkrpc 0.2.2", "kkrpc", _CALLS | _INLINE | {"spawn"}),
]
