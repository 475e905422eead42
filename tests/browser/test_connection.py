"""Connections that are cut, servers that die, pages that are closed, and pages of strangers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import Page, expect
from tests.browser.servers import Cutter, ExampleServer, foreign_page

NewPage = Callable[[str], Page]


@pytest.fixture
def cutter(server: ExampleServer) -> Iterator[Cutter]:
    with Cutter(server.port) as cutter:
        yield cutter


def ask(page: Page, over: str) -> None:
    expect(page.locator("#connection-state")).to_have_text("Connected")
    page.get_by_role("radio", name=over).check()
    page.get_by_label("Your question").fill("What is a harbour?")
    page.get_by_role("button", name="Send").click()


@pytest.mark.parametrize("over", ["Server-sent events", "WebSocket"])
def test_a_connection_is_cut_and_comes_back(
    server: ExampleServer, cutter: Cutter, new_page: NewPage, over: str
) -> None:
    page = new_page(cutter.url)
    state, answer = page.locator("#connection-state"), page.locator(".answer")
    ask(page, over)
    server.step("log", 3)
    server.step("ai_chat", 2)
    expect(answer).to_have_text("A harbour")
    expect(page.locator("#lines li")).to_have_count(3)

    cutter.cut()
    server.wait_for("ai_chat ended after 2", seconds=1)
    server.wait_for("log ended after 3", seconds=1)
    expect(state).to_have_text("Connection lost")
    expect(page.locator("#chat-problem")).to_have_text(re.compile("STREAM_ERROR.*lost|ChannelClosed"))
    expect(page.locator("#chat-state")).to_contain_text("Failed: 2 tokens")
    expect(answer).to_have_text("A harbour")  # what has come stays
    expect(page.locator("#log-state")).to_have_text("Lost with the connection")

    cutter.mend()
    page.get_by_role("button", name="Reconnect now").click()
    expect(state).to_have_text("Connected")
    expect(page.get_by_role("button", name="Reconnect now")).to_be_hidden()
    server.wait_for("log began", count=2)
    server.step("log", 2)
    expect(page.locator("#lines li")).to_have_count(2)
    ask(page, over)
    server.step("ai_chat", 14)
    expect(page.locator("#chat-state")).to_contain_text("Done: 14 tokens")
    expect(page.locator("#chat-problem")).to_be_hidden()


def test_a_paused_log_notices_that_the_connection_is_cut(
    server: ExampleServer, cutter: Cutter, new_page: NewPage
) -> None:
    page = new_page(cutter.url)
    server.wait_for("log began")
    page.get_by_role("button", name="Pause").click()
    server.step("log", 5)
    expect(page.locator("#made")).to_have_text("5")
    cutter.cut()
    expect(page.locator("#log-state")).to_have_text("Lost with the connection")
    cutter.mend()
    server.wait_for("log began", count=2)  # by itself
    expect(page.locator("#log-state")).to_have_text("Reading")
    expect(page.get_by_role("button", name="Pause")).to_be_enabled()


def test_it_cuts_its_own_connection(server: ExampleServer, page: Page) -> None:
    server.wait_for("log began")
    page.get_by_role("button", name="Cut the connection").click()
    server.wait_for("log ended", seconds=1)
    server.wait_for("log began", count=2)
    expect(page.locator("#connection-state")).to_have_text("Connected")


def test_the_server_dies_and_is_started_again(new_page: NewPage, tmp_path: Path) -> None:
    with ExampleServer(tmp_path / "first") as first:
        page = new_page(first.url)
        first.wait_for("log began")
        ask(page, "Server-sent events")
        first.step("ai_chat", 1)
        expect(page.locator(".answer")).to_have_text("A")
        first.kill()
    expect(page.locator("#connection-state")).to_have_text(re.compile("Connection lost|Connecting"))
    expect(page.locator("#chat-problem")).to_contain_text("STREAM_ERROR")
    ask_again = page.get_by_role("button", name="And a lighthouse?")
    ask_again.click()
    expect(page.locator("#chat-problem")).to_contain_text("the connection to the server was lost")
    with ExampleServer(tmp_path / "second", first.port) as second:
        second.wait_for("log began")
        expect(page.locator("#connection-state")).to_have_text("Connected")
        ask_again.click()
        second.wait_for("ai_chat began")
        # And is stopped in the middle of an answer, and of a log.
    assert second.said("ai_chat ended") == second.said("log ended") == 1
    expect(page.locator("#chat-state")).to_contain_text("Failed: 0 tokens")


# ---- who leaves ----


@pytest.mark.parametrize("how", ["close", "navigate", "reload"])
def test_who_leaves_ends_its_streams(server: ExampleServer, page: Page, how: str) -> None:
    page.get_by_role("button", name="Count").click()
    ask(page, "Server-sent events")
    server.step("ai_chat", 1)
    server.step("count_lines", 2)
    server.step("log", 3)
    expect(page.locator(".answer")).to_have_text("A")
    expect(page.get_by_role("progressbar")).to_have_js_property("value", 2)
    expect(page.locator("#lines li")).to_have_count(3)
    if how == "close":
        page.close()
    elif how == "navigate":
        page.goto("about:blank")
    else:
        page.reload()
    for line in ("ai_chat ended after 1", "count_lines ended after 2", "log ended after 3"):
        server.wait_for(line, seconds=1)
    if how == "navigate":
        page.go_back()
        expect(page.locator("#connection-state")).to_have_text("Connected")


def test_who_leaves_ends_a_stream_over_the_socket(server: ExampleServer, page: Page) -> None:
    ask(page, "WebSocket")
    server.step("ai_chat", 1)
    expect(page.locator(".answer")).to_have_text("A")
    page.close()
    server.wait_for("ai_chat ended after 1", seconds=1)


# ---- who comes from elsewhere ----

OPEN_SOCKET = """url => new Promise((resolve) => {
  const socket = new WebSocket(url);
  socket.onopen = () => resolve('open');
  socket.onclose = ({ code }) => resolve(`closed ${code}`);
})"""
POST = """([url, type, mode]) => fetch(url, {
  method: 'POST', mode, headers: { 'content-type': type }, body: '{"prompt": "What is a harbour?"}',
}).then(({ type, status }) => `${type} ${status}`, ({ name }) => `refused: ${name}`)"""
REFUSED = """\
refused: '{}' is not among `origins`
ERROR:    ASGI callable returned without completing handshake.
"""
"""What is said once of an origin, and by uvicorn of each WebSocket that was refused with a status."""


def test_a_page_of_another_origin_is_refused(server: ExampleServer, new_page: NewPage) -> None:
    socket = f"ws://127.0.0.1:{server.port}/ws"
    action, rpc = f"{server.url}/actions/ai_chat", f"{server.url}/rpc"
    with foreign_page() as url:
        origin = url.rstrip("/")
        page = new_page(url)
        assert page.evaluate(OPEN_SOCKET, socket) == "closed 1006"
        for address in (action, rpc):
            for media_type in ("application/json", "text/plain"):  # with a preflight, and without
                assert page.evaluate(POST, [address, media_type, "cors"]) == "refused: TypeError"
            with page.expect_response(address) as response:  # what the page itself is not told
                assert page.evaluate(POST, [address, "text/plain", "no-cors"]) == "opaque 0"
            assert response.value.status == 403
        page.close()
    assert server.lines[1:] == []
    assert server.errors.read_text() == REFUSED.format(origin)
    server.errors.write_text("")

    page = new_page(server.url)  # the same from its own page
    assert page.evaluate(OPEN_SOCKET, socket) == "open"
    server.step("ai_chat", 14)
    assert page.evaluate(POST, [action, "application/json", "cors"]) == "basic 200"
    server.wait_for("ai_chat ended")
