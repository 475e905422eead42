"""Playwright and a Chromium. Without the one a module that imports this is skipped, without the other a test.

With KKRPC_REQUIRE_BROWSER=1 it is an error that either is missing. KKRPC_CHROMIUM names the program; else it
is looked for on the path.
"""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRED = os.environ.get("KKRPC_REQUIRE_BROWSER") == "1"

try:
    from playwright.sync_api import (
        Browser,
        BrowserContext,
        Locator,
        Page,
        Playwright,
        Route,
        WebSocket,
        expect,
        sync_playwright,
    )
except ImportError:
    if REQUIRED:
        raise
    pytest.skip("there is no Playwright here: pip install playwright", allow_module_level=True)

__all__ = [
    "Browser",
    "BrowserContext",
    "Locator",
    "Page",
    "Route",
    "WebSocket",
    "expect",
    "launch",
    "sync_playwright",
]

ARGUMENTS = """
--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-features=LocalNetworkAccessChecks
""".split()
"""The last one: what a test gives in a server's place (`route.fulfill`) has no address, and the browser would
not let it reach one of this machine. It is the server that has to refuse strangers here."""


def launch(playwright: Playwright) -> Browser:
    """A Chromium with a profile of its own."""
    names = [os.environ.get("KKRPC_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found is None:
        reason = "there is no Chromium on the path, and KKRPC_CHROMIUM names none"
        pytest.fail(reason) if REQUIRED else pytest.skip(reason)
    return playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
