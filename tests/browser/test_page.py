"""examples/web in a real browser: what the page shows, and what the server's streams do meanwhile."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.browser.chromium import BrowserContext, Locator, Page, WebSocket, expect
from tests.browser.servers import ROOT, ExampleServer

HARBOUR = "A harbour is where the long road ends, and where the small boats sleep."
TOKENS = re.split("(?<= )", HARBOUR)
MODULES = len(list((ROOT / "kkrpc_py").rglob("*.py")))

SSE = "text/event-stream"
BROKEN_OFF = "STREAM_ERROR: the stream broke off"
EVENT_STREAMS: list[tuple[str, str, list[object]]] = [
    *((SSE, f"data: 1{end}{end}data:2{end}{end}event: done{end}data: {{}}{end}{end}", [1, 2])
      for end in ("\n", "\r\n", "\r")),
    (SSE, "\ufeffdata: 1\r\n\rdata: 2\n\revent: done\r\rdata: {}\r\n\n", [1, 2, {}, BROKEN_OFF]),
    (SSE, ": hello\n\n:\ndata: [\ndata: 1\ndata:]\nid: 7\nwhat: ever\n\nevent: done\ndata\n\n", [[1]]),
    (SSE, 'data: "größer 🚢"\n\nevent: other\ndata: 9\n\nevent: done\ndata: {}\n\ndata: 3\n', ["größer 🚢"]),
    (SSE, "data: 1\n\ndata: 2\n", [1, BROKEN_OFF]),
    (SSE, "", [BROKEN_OFF]),
    (SSE, 'event: error\ndata: {"code": "NO", "message": "y", "statusCode": 400}\n\ndata: 1\n', ["NO: y"]),
    ("text/html", "data: 1\n\n", ["STREAM_ERROR: the server answered 200"]),
]  # fmt: skip

both_ways = pytest.mark.parametrize("over", ["Server-sent events", "WebSocket"])


def ask(page: Page, question: str, over: str = "Server-sent events") -> Locator:
    """Puts a question; the newest answer."""
    expect(page.locator("#connection-state")).to_have_text("Connected")
    page.get_by_role("radio", name=over).check()
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Send").click()
    return page.locator(".answer").last


def stop_of(page: Page, card: str) -> Locator:
    return page.get_by_role("region", name=card).get_by_role("button", name="Stop")


# ---- the chat ----


@both_ways
def test_each_token_is_shown_when_it_is_sent(server: ExampleServer, page: Page, over: str) -> None:
    answer = ask(page, "What is a harbour?", over)
    server.wait_for("ai_chat began")
    expect(answer).to_have_text("")
    for sent in range(1, len(TOKENS) + 1):
        server.step("ai_chat")
        expect(answer).to_have_text("".join(TOKENS[:sent]).strip())
        if sent < len(TOKENS):
            expect(answer).to_have_attribute("aria-busy", "true")
    name = over[0].lower() + over[1:] if over.startswith("Server") else over
    expect(page.locator("#chat-state")).to_have_text(f"Done: {len(TOKENS)} tokens over {name}")
    expect(answer).not_to_have_attribute("aria-busy", "true")
    expect(stop_of(page, "Chat")).to_be_disabled()
    server.wait_for(f"ai_chat ended after {len(TOKENS)}")
    expect(page.locator("#transcript")).to_contain_text("What is a harbour?")


@both_ways
@pytest.mark.parametrize("by", ["button", "Escape"])
def test_stop_ends_the_generator_on_the_server(server: ExampleServer, page: Page, over: str, by: str) -> None:
    answer = ask(page, "What is a harbour?", over)
    server.step("ai_chat", 2)
    expect(answer).to_have_text("A harbour")
    if by == "button":
        stop_of(page, "Chat").click()
    else:
        page.get_by_label("Your question").press("Escape")
    server.wait_for("ai_chat ended after 2", seconds=1)
    expect(page.locator("#chat-state")).to_contain_text("Stopped: 2 tokens")
    expect(stop_of(page, "Chat")).to_be_disabled()
    if by == "button":
        expect(page.get_by_label("Your question")).to_be_focused()


@both_ways
def test_a_new_question_ends_the_answer_before(server: ExampleServer, page: Page, over: str) -> None:
    first = ask(page, "Tell me a long story.", over)
    server.step("ai_chat", 3)
    expect(first).to_have_text("There was a")
    ask(page, "What is a harbour?", over)
    server.wait_for("ai_chat ended after 3")
    server.step("ai_chat", len(TOKENS))
    expect(page.locator(".answer")).to_have_text(["There was a", HARBOUR])
    server.wait_for(f"ai_chat ended after {len(TOKENS)}")


@both_ways
def test_each_wrong_field_is_named_beside_it(page: Page, over: str) -> None:
    page.get_by_label("Tokens at most").fill("0")
    ask(page, "", over)
    question, tokens = page.get_by_label("Your question"), page.get_by_label("Tokens at most")
    for field, message in ((question, "of length >= 1"), (tokens, ">= 1")):
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_have_accessible_description(re.compile(message))
    expect(question).to_be_focused()
    expect(page.locator("#chat-problem")).to_have_text(
        re.compile("VALIDATION_ERROR.*422.*Input validation failed")
    )
    expect(page.locator(".answer")).to_have_count(0)


def test_by_keyboard_alone(server: ExampleServer, page: Page) -> None:
    expect(page.locator("#connection-state")).to_have_text("Connected")
    keys = page.keyboard
    keys.press("Tab")
    expect(page.get_by_text("Skip to the chat")).to_be_focused()
    keys.press("Enter")
    keys.type("What is a harbour?")
    keys.press("Tab")  # Send
    keys.press("Tab")  # Stop is disabled: the switch
    keys.press("ArrowRight")
    expect(page.get_by_role("radio", name="WebSocket")).to_be_checked()
    keys.press("Enter")
    server.step("ai_chat", len(TOKENS))
    expect(page.locator(".answer")).to_have_text(HARBOUR)
    expect(page.locator("#chat-state")).to_contain_text("over WebSocket")


def test_every_form_of_an_event_stream_is_read(page: Page) -> None:
    """The line endings, comments and fields that WHATWG HTML, 9.2.6, allows, whole and a byte at a time."""
    read = page.evaluate("""async (streams) => {
        const { streamAction } = await import('/actions.js');
        const original = window.fetch;
        const found = [];
        for (const [type, text, whole] of streams) {
            const bytes = new TextEncoder().encode(text);
            const pieces = whole ? [bytes] : Array.from(bytes, (byte) => Uint8Array.of(byte));
            const body = new ReadableStream({ start(controller) {
                pieces.forEach((piece) => controller.enqueue(piece));
                controller.close();
            } });
            window.fetch = async () => new Response(body, { headers: { 'content-type': type } });
            const got = [];
            try {
                for await (const chunk of streamAction('any', {})) got.push(chunk);
            } catch (error) {
                got.push(`${error.code}: ${error.message}`);
            }
            found.push(got);
        }
        window.fetch = original;
        return found;
    }""", [[media, text, whole] for media, text, _ in EVENT_STREAMS for whole in (True, False)])  # fmt: skip
    assert read == [chunks for *_, chunks in EVENT_STREAMS for _ in range(2)]


# ---- the files ----


def test_progress(server: ExampleServer, page: Page) -> None:
    bar = page.get_by_role("progressbar", name="Progress")
    page.get_by_role("button", name="Count").click()
    server.wait_for("count_lines began")
    for done in range(1, 4):
        server.step("count_lines")
        expect(bar).to_have_js_property("value", done)
        expect(bar).to_have_js_property("max", MODULES)
        expect(page.locator("#percent")).to_have_text(f"{100 * done // MODULES} %")
    expect(page.locator("#file")).to_have_text("actions/__init__.py")
    server.step("count_lines", MODULES - 3)
    expect(bar).to_have_js_property("value", MODULES)
    expect(page.locator("#files-state")).to_have_text(re.compile(rf"Done: \d+,\d+ lines in {MODULES} files"))
    server.wait_for(f"count_lines ended after {MODULES}")


def test_progress_is_stopped(server: ExampleServer, page: Page) -> None:
    page.get_by_role("button", name="Count").click()
    server.step("count_lines", 5)
    expect(page.get_by_role("progressbar")).to_have_js_property("value", 5)
    stop_of(page, "Files").click()
    server.wait_for("count_lines ended after 5", seconds=1)
    expect(page.locator("#files-state")).to_contain_text("Stopped")


def test_an_action_refuses(server: ExampleServer, page: Page) -> None:
    names = page.get_by_label("Names")
    names.fill("*.rs")
    names.press("Enter")
    expect(page.locator("#files-problem")).to_have_text(
        re.compile(r"NO_FILES.*404.*no module is called \*\.rs")
    )
    names.fill("")
    names.press("Enter")
    expect(names).to_have_accessible_description(re.compile("length >= 1"))
    names.fill("cli.py")
    names.press("Enter")
    server.step("count_lines", 1)
    expect(page.locator("#files-state")).to_have_text(re.compile(r"Done: \d+ lines in 1 files"))
    expect(page.locator("#files-problem")).to_be_hidden()
    expect(names).to_have_attribute("aria-invalid", "false")


# ---- the log ----


def test_a_paused_log_makes_the_generator_wait(
    server: ExampleServer, new_page: Callable[[str], Page], context: BrowserContext
) -> None:
    told: list[int] = []  # what the server says of its generator, four times a second

    def listen(socket: WebSocket) -> None:
        socket.on("framereceived", lambda text: told.extend(map(int, re.findall(r'"result": ?(\d+)', text))))

    context.on("page", lambda page: page.on("websocket", listen))
    page = new_page(server.url)
    server.step("log", 150)
    expect(page.locator("#lines li")).to_have_count(150)
    expect(page.locator("#made")).to_have_text("150")
    expect(page.locator("#read")).to_have_text("150")

    page.get_by_role("button", name="Pause").click()
    server.step("log", 850)
    while not (told[-1] > 150 and len(set(told[-4:])) == 1):
        page.wait_for_timeout(50)
    # The line that it was waiting for is read yet; then it makes what there is credit for, and stands.
    made, read, ahead = (int(page.locator(f"#{name}").inner_text()) for name in ("made", "read", "ahead"))
    assert (read, ahead) == (151, made - read)
    assert 0 < ahead <= 64
    expect(page.locator("#lines li")).to_have_count(read)
    expect(page.locator("#log-state")).to_have_text("Paused: nothing is read")

    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#lines li").last).to_contain_text("1000 ")
    expect(page.locator("#lines li")).to_have_count(200)
    expect(page.locator("#read")).to_have_text("1000")

    stop_of(page, "Live log").click()
    server.wait_for("log ended after 1000", seconds=1)
    expect(page.locator("#log-state")).to_have_text("Stopped")
    page.get_by_role("button", name="Start").click()
    server.wait_for("log began", count=2)


# ---- errors ----


def test_errors_are_shown(page: Page) -> None:
    for button, chunks, shown in (
        ("Invalid input", 0, r"VALIDATION_ERROR.*422.*how: .*'refused'.*chunks: Expected `int` >= 0"),
        ("Refused at once", 0, r"PAYMENT_REQUIRED.*402.*Middleware said no"),
        ("Fails halfway", 3, r"OUT_OF_OIL.*503.*gone out halfway"),
    ):
        page.get_by_role("button", name=button).click()
        expect(page.locator("#errors-problem")).to_have_text(re.compile(shown))
        expect(page.locator("#errors-state")).to_have_text(f"{button}: after {chunks} chunks")


def test_what_nobody_expected_is_told_without_its_text(server: ExampleServer, page: Page) -> None:
    page.get_by_role("button", name="Unexpected error").click()
    expect(page.locator("#errors-problem")).to_have_text(
        re.compile("STREAM_ERROR.*500.*Stream handler error")
    )
    expect(page.locator("body")).not_to_contain_text("what only the server")
    assert "RuntimeError: what only the server's own log tells" in server.errors.read_text()
    server.errors.write_text("")


# ---- how it looks ----


def test_it_fits(page: Page) -> None:
    page.get_by_role("button", name="Invalid input").click()
    expect(page.locator("#errors-problem")).to_be_visible()
    for width in (320, 760, 1240):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


CONTRAST = """() => {
  const channel = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) =>
    0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
  const background = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(at).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.body.querySelectorAll('*')) {
    const text = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!text || node.disabled || !node.checkVisibility()) continue;
    const both = [light(parse(getComputedStyle(node).color)), light(background(node))];
    const ratio = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
    if (ratio < 4.5) poor.push(`${node.tagName} ${node.textContent.trim()}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


def test_text_can_be_read_in_light_and_dark(server: ExampleServer, page: Page) -> None:
    page.get_by_role("button", name="Fails halfway").click()
    expect(page.locator("#errors-problem")).to_be_visible()
    server.step("log", 20)
    expect(page.locator("#lines .warn")).to_have_count(1)
    for scheme, paper in (("light", "rgb(244, 241, 234)"), ("dark", "rgb(13, 20, 28)")):
        page.emulate_media(color_scheme=scheme)
        expect(page.locator("body")).to_have_css("background-color", paper)
        assert page.evaluate(CONTRAST) == []


def test_everything_that_one_uses_has_a_name(page: Page) -> None:
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, input, progress')].filter(
        (node) => !node.textContent.trim() && !node.labels?.length && !node.getAttribute('aria-label'),
    ).map((node) => node.outerHTML)""")
    assert nameless == []
    for name in ("Chat", "Files", "Errors", "Live log"):
        expect(page.get_by_role("region", name=name)).to_have_count(1)
    expect(page.get_by_role("log", name="Questions and answers")).to_have_count(1)
    expect(page.get_by_role("status")).to_have_count(5)
