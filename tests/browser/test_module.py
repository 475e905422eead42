"""clients/js/kkrpc.js where it is at home: in a page, in a worker, between the two."""

from __future__ import annotations

import pytest

from tests.browser.chromium import Page, Route
from tests.browser.servers import ExampleServer

WORKER = """
import { connect, fromMessagePort, handler, withOptions } from './kkrpc.js';

let made = 0;
let ended = 0;

fromMessagePort(self, { expose: {
  async* count() {
    try {
      for (;;) yield made++;
    } finally {
      ended += 1;
    }
  },
  seen: () => ({ made, ended }),
  each: async (values, callback) => {
    for (const value of values) await callback(value);
    return values.length;
  },
  /** What the Python server streams, from within the worker. Only the signal reaches it while it waits. */
  chat: handler({ context: true }, async function* ({ signal }, url, input) {
    const channel = await connect(url);
    try {
      yield* await withOptions(channel.remote(), { signal }).ai_chat(input);
    } finally {
      channel.close();
    }
  }),
} });
"""


@pytest.fixture
def worker_page(page: Page) -> Page:
    """A page of the example with `window.api`: what a worker exposes."""

    def give(route: Route) -> None:
        route.fulfill(content_type="text/javascript", body=WORKER)

    page.context.route("**/test-worker.js", give)
    page.evaluate("""async () => {
        const { fromMessagePort } = await import('/kkrpc.js');
        window.worker = new Worker('/test-worker.js', { type: 'module' });
        window.channel = fromMessagePort(window.worker);
        window.api = window.channel.remote();
        await window.api.seen(); // or the error that the worker began with
    }""")
    return page


def test_break_cancels(server: ExampleServer, page: Page) -> None:
    server.step("ai_chat", 3)
    tokens = page.evaluate("""async () => {
        const { connect } = await import('/kkrpc.js');
        window.channel = await connect(`ws://${location.host}/ws`); // it stays open
        const tokens = [];
        for await (const token of window.channel.remote().ai_chat({ prompt: 'What is a harbour?' })) {
            tokens.push(token);
            if (tokens.length === 3) break;
        }
        return tokens;
    }""")
    assert tokens == ["A ", "harbour ", "is "]
    server.wait_for("ai_chat ended after 3", seconds=1)
    page.wait_for_function("window.channel.stats.outgoing === 0")


def test_a_refusal_is_thrown(page: Page) -> None:
    error = page.evaluate("""async () => {
        const { ActionError, connect } = await import('/kkrpc.js');
        const channel = await connect(`ws://${location.host}/ws`);
        try {
            for await (const token of channel.remote().ai_chat({ prompt: '', tokens: 0 }));
        } catch (error) {
            const { code, status, fieldErrors } = error;
            return { mine: error instanceof ActionError, code, status, fields: Object.keys(fieldErrors) };
        }
    }""")
    assert error == {"mine": True, "code": "VALIDATION_ERROR", "status": 422, "fields": ["prompt", "tokens"]}


def test_a_worker_behind_its_port(worker_page: Page) -> None:
    got = worker_page.evaluate("""async () => {
        const heard = [];
        const length = await api.each([1, 2, 3], (value) => { heard.push(value); });
        const numbers = [];
        for await (const number of api.count()) {
            numbers.push(number);
            if (numbers.length === 500) break;
        }
        let seen = await api.seen();
        while (seen.ended < 1) seen = await api.seen();
        return { heard, length, numbers, seen };
    }""")
    assert (got["heard"], got["length"]) == ([1, 2, 3], 3)
    assert got["numbers"] == list(range(500))
    assert got["seen"]["ended"] == 1


def test_a_worker_makes_no_more_than_is_read(worker_page: Page) -> None:
    stood, later = worker_page.evaluate("""async () => {
        window.stream = await api.count();
        await window.stream.next();
        let stood = await api.seen();
        for (let same = 0; same < 20;) { // round trips without one more
            const { made } = await api.seen();
            same = made === stood.made ? same + 1 : 0;
            stood = { made };
        }
        for (let read = 0; read < 1000; read += 1) await window.stream.next();
        const later = await api.seen();
        await window.stream.cancel();
        return [stood.made, later.made];
    }""")
    assert 1 < stood <= 65
    assert later >= 1001


def test_a_worker_with_a_connection_of_its_own(server: ExampleServer, worker_page: Page) -> None:
    server.step("ai_chat", 4)
    tokens = worker_page.evaluate("""async () => {
        const tokens = [];
        for await (const token of api.chat(`ws://${location.host}/ws`, { prompt: 'What is a harbour?' })) {
            tokens.push(token);
            if (tokens.length === 4) break;
        }
        return tokens;
    }""")
    assert tokens == ["A ", "harbour ", "is ", "where "]
    server.wait_for("ai_chat ended after 4", seconds=1)


def test_a_worker_that_is_terminated_ends_its_streams(server: ExampleServer, worker_page: Page) -> None:
    server.step("ai_chat", 1)
    worker_page.evaluate("""async () => {
        window.stream = await api.chat(`ws://${location.host}/ws`, { prompt: 'What is a harbour?' });
        await window.stream.next();
        window.worker.terminate();
    }""")
    server.wait_for("ai_chat ended after 1", seconds=1)


def test_a_message_channel_within_the_page(page: Page) -> None:
    got = page.evaluate("""async () => {
        const { ChannelClosed, fromMessagePort } = await import('/kkrpc.js');
        const { port1, port2 } = new MessageChannel();
        const there = fromMessagePort(port1, { expose: {
            math: { add: (a, b) => a + b },
            async* squares(count) {
                for (let number = 0; number < count; number += 1) yield number * number;
                return 'all';
            },
        } });
        const here = fromMessagePort(port2);
        const api = here.remote();
        const stream = await api.squares(4);
        const squares = [];
        for await (const square of stream) squares.push(square);
        const result = await stream.result;
        const sum = await api.math.add(1, 2);
        there.close();
        const reason = await here.closed;
        const after = await api.math.add(1, 2).catch((error) => error instanceof ChannelClosed);
        return { squares, result, sum, reason: reason?.name ?? null, after };
    }""")
    assert (got["squares"], got["result"], got["sum"], got["after"]) == ([0, 1, 4, 9], "all", 3, True)
