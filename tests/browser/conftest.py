"""A real Chromium, driven through Playwright, and examples/web as a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser.servers import SECONDS, ExampleServer

if TYPE_CHECKING:
    from tests.browser.chromium import Browser, BrowserContext, Page


# For a module, not for the session: while it runs, Playwright's event loop is the running one of this thread,
# and the asynchronous tests of other modules could not begin one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from tests.browser.chromium import expect, launch, sync_playwright

    expect.set_options(timeout=SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExampleServer]:
    with ExampleServer(tmp_path_factory.mktemp("server") / "errors") as server:
        yield server


@pytest.fixture
def server(shared_server: ExampleServer) -> Iterator[ExampleServer]:
    """The example, whose streams go on when the test says so. With the pages of the test they have to end."""
    yield shared_server
    shared_server.settle()


@pytest.fixture
def context(browser: Browser, server: ExampleServer) -> Iterator[BrowserContext]:
    context = browser.new_context()
    context.set_default_timeout(SECONDS * 1000)
    yield context
    context.close()


@pytest.fixture
def new_page(context: BrowserContext) -> Iterator[Callable[[str], Page]]:
    """Opens pages. Nothing on them may go wrong unseen."""
    wrong: list[str] = []

    def open_page(url: str) -> Page:
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Security Policy" in said.text else None)
        page.goto(url)
        return page

    yield open_page
    assert wrong == []


@pytest.fixture
def page(server: ExampleServer, new_page: Callable[[str], Page]) -> Page:
    return new_page(server.url)
