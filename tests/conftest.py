"""Every async test runs on each event loop; uvloop in `make test-all` alone.

A test module says `pytestmark = pytest.mark.anyio` and bounds every wait of its own with `anyio.fail_after`.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest

_BACKENDS: list[Any] = [
    pytest.param(("asyncio", {}), id="asyncio"),
    pytest.param(("trio", {}), id="trio"),
]
if sys.platform != "win32":
    _BACKENDS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=pytest.mark.slow))


@pytest.fixture(scope="module", params=_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The event loop that a test runs on, as anyio's pytest plugin wants it: name and options."""
    return request.param
