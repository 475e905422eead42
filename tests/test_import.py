"""What `import kkrpc_py` loads, and that the names which come late are there all the same.

Seen from fresh interpreters: in this one everything has long been imported. How long it takes is for the
benchmarks; here is what keeps it short.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

import kkrpc_py as kk

# Each of them costs a millisecond or more, some twenty, and a program that only describes an API needs none.
HEAVY = {
    "asyncio", "trio", "uvloop", "ssl", "socket", "selectors", "subprocess", "queue", "concurrent.futures",
    "multiprocessing", "argparse", "sysconfig", "cbor2", "ipaddress", "zoneinfo", "fractions",
    "anyio._backends._asyncio", "anyio.streams.tls",
    "kkrpc_py.channel.endpoints", "kkrpc_py.transports.process", "kkrpc_py.transports.sockets",
    "kkrpc_py.wire.cbor_codec", "kkrpc_py.cli", "kkrpc_py.demo", "kkrpc_py.sync", "kkrpc_py.tools",
    "kkrpc_py.otel", "pydantic", "numpy", "opentelemetry",
    "kkrpc_py.actions", "kkrpc_py.web", "httpx", "starlette", "websockets",
}  # fmt: skip


def fresh(code: str) -> Any:
    """What `code`, run in a new interpreter, leaves in `found`; `loaded()` is the modules since its start."""
    program = f"""
import sys
at_start = set(sys.modules)
def loaded():
    return sorted(set(sys.modules) - at_start)
{code}
import json
print(json.dumps(found))
"""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return json.loads(done.stdout)


def test_the_import_loads_nothing_heavy() -> None:
    found = fresh("import kkrpc_py; found = loaded()")
    assert "kkrpc_py.channel.channel" in found
    assert HEAVY.intersection(found) == set()


def test_the_first_way_to_a_channel_that_is_asked_for_brings_them_all() -> None:
    before, after, names = fresh("""
import kkrpc_py
before = loaded()
kkrpc_py.memory_pair
found = before, loaded(), sorted(vars(kkrpc_py))
""")
    assert "kkrpc_py.channel.endpoints" not in before
    assert "kkrpc_py.channel.endpoints" in after
    assert {"connect_tcp", "memory_pair", "open_process", "run_stdio", "serve_unix"} <= set(names)
    assert "kkrpc_py.streaming.hub" not in after


def test_a_name_that_needs_an_extra_says_which() -> None:
    texts, star = fresh("""
import sys
sys.modules.update(dict.fromkeys(("httpx", "starlette"), None))
import kkrpc_py
texts = []
for name in "ActionClient", "asgi_app":
    try:
        getattr(kkrpc_py, name)
    except ModuleNotFoundError as exc:
        texts.append(str(exc))
names = {}
exec("from kkrpc_py import *", names)
found = texts, sorted(names)
""")
    assert texts == [
        "kkrpc_py.ActionClient needs the package httpx: pip install 'kkrpc-py[http]'",
        "kkrpc_py.asgi_app needs the package starlette: pip install 'kkrpc-py[http]'",
    ]
    assert "stream_action" in star


def test_cbor_comes_with_the_first_value_that_json_does_not_carry() -> None:
    found = fresh("""
import anyio, kkrpc_py
class Api:
    async def same(self, value):
        return value
async def main():
    async with kkrpc_py.memory_pair(Api()) as (_, channel):
        with anyio.fail_after(30):
            assert await channel.remote().same([1, "two"]) == [1, "two"]
            before = loaded()
            assert await channel.remote().same({3}) == {3}
    return before, loaded()
found = anyio.run(main)
""")
    assert ["cbor2" in modules for modules in found] == [False, True]


def test_every_public_name_is_listed_and_can_be_imported() -> None:
    listed, imported = fresh(f"""
import kkrpc_py
listed = dir(kkrpc_py)
from kkrpc_py import {", ".join(kk.__all__)}
found = listed, sorted(set(globals()) & set(kkrpc_py.__all__))
""")
    assert set(kk.__all__) <= set(listed)
    assert imported == sorted(kk.__all__)


def test_a_star_import_gives_the_public_names() -> None:
    names = fresh("""
own = set(globals())
from kkrpc_py import *
found = sorted(set(globals()) - own - {"own"})
""")
    assert names == sorted(kk.__all__)


def test_what_is_no_public_name_is_missing() -> None:
    with pytest.raises(AttributeError, match="module 'kkrpc_py' has no attribute 'open_proces'"):
        kk.open_proces  # noqa: B018 - the look-up is what fails
    with pytest.raises(ImportError):
        exec("from kkrpc_py import open_proces", {})
