"""Fixtures for a module whose tests run under each server: import both of them.

`anyio_backend` is the event loop as elsewhere, together with `server`, which is for `serving`.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest

__all__ = ["anyio_backend", "server", "under"]

_UNDER: list[Any] = [
    pytest.param((("asyncio", {}), "uvicorn"), id="uvicorn"),
    pytest.param((("trio", {}), "hypercorn"), id="hypercorn-trio"),
    pytest.param((("asyncio", {}), "hypercorn"), id="hypercorn-asyncio", marks=pytest.mark.slow),
]
if sys.platform != "win32":
    _UVLOOP = (("asyncio", {"use_uvloop": True}), "uvicorn")
    _UNDER.append(pytest.param(_UVLOOP, id="uvicorn-uvloop", marks=pytest.mark.slow))


@pytest.fixture(scope="module", params=_UNDER)
def under(request: pytest.FixtureRequest) -> Any:
    """An event loop and a server that runs on it."""
    return request.param


@pytest.fixture(scope="module")
def anyio_backend(under: Any) -> Any:
    """The event loop, as anyio's pytest plugin wants it."""
    return under[0]


@pytest.fixture(scope="module")
def server(under: Any) -> str:
    """The server, as `serving` wants it."""
    name: str = under[1]
    return name
