"""The direction of imports, read from the source of every module (docs/architecture.md).

`errors, limits <- wire <- core <- channel <- streaming, actions <- web, tools, conformance <- cli`; beside
them stand `transports`, on errors and anyio alone. Imports inside functions and under `TYPE_CHECKING` count
too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "kkrpc_py"
ROOT = Path(__file__).resolve().parents[1] / PACKAGE

# A layer may import itself and the layers named here.
BASE = {"errors", "limits"}
CHANNEL = BASE | {"wire", "core", "transports"}
TOP = CHANNEL | {"channel", "streaming", "actions", "web"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "limits": set(),
    "wire": BASE,
    "core": BASE | {"wire"},
    "transports": {"errors"},
    "channel": CHANNEL,
    "streaming": CHANNEL | {"channel"},
    "actions": CHANNEL | {"channel"},
    "web": CHANNEL | {"channel", "actions"},
    "testing": CHANNEL | {"channel"},
    "sync": CHANNEL | {"channel"},
    "otel": CHANNEL | {"channel"},
    "tools": TOP,
    # The judge is not the judged: what plays and judges cases reads the wire by itself.
    "conformance": {"errors"},
    "conformance.testee": {"__init__", "transports", "conformance"},
    # The public names, and what only they and the command line may reach.
    "__init__": TOP | {"sync", "tools"},
    "demo": {"__init__"},
    "cli": TOP | {"tools", "conformance", "sync", "demo", "__init__"},
    "__main__": {"cli"},
}
# What makes a layer sans-I/O: no event loop, no clock, no random source, no thread, no file.
IO_MODULES = {
    "anyio", "asyncio", "trio", "uvloop", "sniffio", "time", "random", "uuid", "secrets", "threading",
    "socket", "select", "selectors", "subprocess", "os", "signal", "concurrent", "queue", "multiprocessing",
}  # fmt: skip
# A type of value is not a source of it.
PURE_NAMES = {("uuid", "UUID")}
THIRD_PARTY: dict[str, set[str]] = {
    "errors": {"msgspec"},
    "limits": set(),
    "wire": {"msgspec", "cbor2"},
    "core": {"msgspec"},
    "transports": {"anyio"},
    "otel": {"opentelemetry"},
    # jsonpatch is the extra `state`; trio has no other way to do something later.
    "streaming": {"anyio", "msgspec", "jsonpatch", "trio"},
    # The extra `http`: its client's half, and its server's.
    "actions": {"anyio", "msgspec", "httpx", "pydantic"},
    "web": {"anyio", "msgspec", "starlette", "sse_starlette"},
    # jsonschema for those who write cases.
    "conformance": {"anyio", "cbor2", "jsonschema", "referencing"},
    "conformance.testee": {"anyio", "trio", "numpy"},
}
OTHERS_MAY_USE = {"anyio", "msgspec", "cbor2"}
# Used where they are installed, never required: their importers look first whether the loop is theirs.
OPTIONAL = {"trio", "uvloop", "sniffio", "pydantic", "jsonpatch", "websockets"}
# Parts of the standard library that not every Python here has.
LATER_STDLIB = {"annotationlib"}


def layer_of(module: str) -> str:
    """`kkrpc_py.wire.framing` -> `wire`; the package itself -> `__init__`."""
    parts = module.split(".")
    if len(parts) > 2 and parts[1] == "conformance" and parts[2].partition("_")[0] == "testee":
        return "conformance.testee"
    return parts[1] if len(parts) > 1 else "__init__"


def imports_of(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Every imported module as an absolute dotted name, with its line."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            if base.partition(".")[0] == PACKAGE:
                # `from kkrpc_py import errors` names a module, `from kkrpc_py import RPCChannel` a name.
                folder = ROOT.joinpath(*base.split(".")[1:])
                for alias in node.names:
                    known = base == PACKAGE and alias.name in ALLOWED
                    known = known or (folder / alias.name).is_dir() or (folder / f"{alias.name}.py").is_file()
                    yield node.lineno, f"{base}.{alias.name}" if known else base
            elif not all((base, alias.name) in PURE_NAMES for alias in node.names):
                yield node.lineno, base
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            first = node.args[0] if node.args else None
            literal = isinstance(first, ast.Constant) and isinstance(first.value, str)
            if called in {"import_module", "__import__"} and literal:
                yield node.lineno, first.value


def violations(module: str, source: str, *, is_package: bool = False) -> list[str]:
    layer = layer_of(module)
    if layer not in ALLOWED:
        return [f"{module}: the layer {layer!r} is not known to this test"]
    found: list[str] = []
    for line, name in imports_of(ast.parse(source), module, is_package=is_package):
        top = name.partition(".")[0]
        where = f"{module}:{line} imports {name}"
        if top == PACKAGE:
            target = layer_of(name)
            if target != layer and target not in ALLOWED[layer]:
                found.append(f"{where}: {layer} may not use {target}")
        elif layer in {"wire", "core"} and top in IO_MODULES:
            found.append(f"{where}: {layer} is sans-I/O")
        elif top not in sys.stdlib_module_names | LATER_STDLIB:
            allowed = THIRD_PARTY.get(layer, OTHERS_MAY_USE | OPTIONAL)
            if layer == "transports":
                allowed = allowed | OPTIONAL
            if top not in allowed:
                found.append(f"{where}: {layer} may not use {top}")
    return found


MODULES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_in_the_direction_of_the_layers(path: Path) -> None:
    parts = [PACKAGE, *path.relative_to(ROOT).with_suffix("").parts]
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    assert violations(module, path.read_text(encoding="utf-8"), is_package=is_package) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("kkrpc_py.errors", "from kkrpc_py.wire import messages"),
        ("kkrpc_py.wire.framing", "import time"),
        ("kkrpc_py.wire.framing", "def f():\n    import anyio.abc"),
        ("kkrpc_py.wire.framing", "from kkrpc_py.core.tables import T"),
        ("kkrpc_py.wire.framing", "from ..core import tables"),
        ("kkrpc_py.wire.framing", "from kkrpc_py import RPCChannel"),
        ("kkrpc_py.core.tables", "from secrets import token_hex"),
        ("kkrpc_py.core.tables", "import importlib; importlib.import_module('asyncio')"),
        ("kkrpc_py.core.tables", "from kkrpc_py import channel"),
        ("kkrpc_py.core.tables", "from uuid import UUID, uuid4"),
        ("kkrpc_py.core.tables", "import cbor2"),
        ("kkrpc_py.transports.stdio", "from kkrpc_py.limits import Limits"),
        ("kkrpc_py.transports.stdio", "import msgspec"),
        ("kkrpc_py.channel.channel", "from kkrpc_py.cli import main"),
        ("kkrpc_py.channel.channel", "import requests"),
        ("kkrpc_py.conformance.play", "from kkrpc_py.wire.codec import Decoder"),
        ("kkrpc_py.conformance.play", "import kkrpc_py as kk"),
        ("kkrpc_py.conformance.play", "from kkrpc_py.conformance import testee"),
        ("kkrpc_py.conformance.play", "from kkrpc_py.conformance.testee_words import to_words"),
        ("kkrpc_py.conformance.testee", "from kkrpc_py.channel import channel"),
        ("kkrpc_py.elsewhere", ""),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "kkrpc_py.wire.framing",
            "import struct\nfrom kkrpc_py.errors import KkrpcError\nfrom . import messages",
        ),
        ("kkrpc_py.core.tables", "from ..wire.messages import Request\nfrom kkrpc_py.limits import Limits"),
        ("kkrpc_py.transports.stdio", "import os, anyio\nfrom kkrpc_py.errors import ChannelClosed"),
        ("kkrpc_py.channel.channel", "from kkrpc_py.transports import stdio\nimport anyio, time"),
        ("kkrpc_py.cli", "import kkrpc_py\nfrom kkrpc_py.channel import channel"),
    ],
)
def test_a_right_import_is_left_alone(module: str, source: str) -> None:
    assert violations(module, source) == []
