// What the client does with a Python server; tests/js_client/test_python_server.py has the server, and judges.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import {
  ActionError, CallCancelled, CallTimeout, CallbackReleased, ChannelClosed, MethodNotFound, NotSerializable,
  PropertyNotFound, RemoteError, RemoteStream, connect, withOptions,
} from '../../clients/js/kkrpc.js';

const { WebSocket } = createRequire(new URL('../node/package.json', import.meta.url))('ws');

async function connected(url, options, use) {
  const channel = await connect(url, { WebSocket, ...options });
  try {
    return await use(channel.remote(), channel);
  } finally {
    await channel.close();
    assert.equal(await channel.closed, null);
  }
}

/** The error that a promise is rejected with. */
const failure = (promise) => promise.then((value) => assert.fail(`a value: ${value}`), (error) => error);

/** What `read` gives once it gives the same some times in a row: each reading is a round trip. */
async function settled(read) {
  for (let last, same = 0; ;) {
    const now = await read();
    same = now === last ? same + 1 : 0;
    last = now;
    if (same === 10) return now;
  }
}

export const calls = ({ url }) => connected(url, {}, async (api, channel) => {
  assert.equal(channel.stock, false);
  assert.equal(await api.add(1, 2), 3);
  assert.equal(await api.math.deep.multiply(6, 7), 42);
  assert.equal(await api.nothing(), null);
  assert.deepEqual(await Promise.all(Array.from({ length: 100 }, (_, i) => api.add(i, 1))),
    Array.from({ length: 100 }, (_, i) => i + 1));
  assert.equal(await withOptions(api.add, { kwargs: { b: 5 } })(1), 6);
  assert.deepEqual(await withOptions(api.metadata, { meta: { traceparent: '00' } })(), { traceparent: '00' });
  return [...channel.features].sort();
});

export const values = ({ url }) => connected(url, {}, async (api) => {
  const given = [
    null, true, 0, -1.5e-7, 2 ** 53 - 1, 2n ** 53n + 1n, -(10n ** 40n), '', 'héllo € 😀 \u2028 \0 \x7f \n\t"\\',
    'lone \ud800 surrogate', '__callback__1', [[], {}, [null]], { a: [1, { b: null }], '': '', ['__proto__']: 1 },
    new Uint8Array(0), Uint8Array.from({ length: 256 }, (_, i) => i), { nested: [new Uint8Array([1, 250])] },
    'x'.repeat(200_000),
  ];
  for (const value of given) assert.deepEqual(await api.echo(value), value);
  assert.equal(Object.is(await api.echo(-0), -0), true);
  const escapes = { long: 2n ** 53n + 1n, text: '"\\\n'.repeat(1e6), tail: '\\' }; // a text that is read twice
  assert.deepEqual(await api.echo(escapes), escapes);
  assert.deepEqual(await api.echo({ left: undefined, list: [undefined] }), { list: [null] });
  const refused = [NaN, Infinity, Symbol('s'), new Date(0), new Map(), new Set(), new (class Own {})(),
    { type: 'Uint8Array', data: [1] }, new Float64Array(1), 10n ** 1000n, [[Promise.resolve()]]];
  for (const value of refused) assert.equal((await failure(api.echo(value))) instanceof NotSerializable, true);
  const around = { within: [] };
  around.within.push(around);
  assert.match((await failure(api.echo(around))).message, /a value of type .* cannot be sent, at args\.0\.within\.0/);
});

export const properties = ({ url }) => connected(url, {}, async (api, channel) => {
  assert.equal(await api.settings.theme, 'light');
  api.settings.theme = 'dark';
  assert.equal(await channel.get('settings.theme'), 'dark');
  assert.equal(await channel.set('settings.theme', 'light'), true);
  assert.equal((await failure(channel.set('settings.language', 'de'))).name, 'PermissionError');
  assert.equal((await failure(channel.get('settings._secret'))) instanceof PropertyNotFound, true);
  const heard = await new Promise((resolve) => {
    connected(url, { onError: resolve }, async (other, own) => {
      other.settings.language = 'de';
      await own.get('settings.theme');
    });
  });
  assert.equal(heard.name, 'PermissionError');
  assert.deepEqual(await new api.Point(1, 2), { x: 1, y: 2 });
});

export const errors = ({ url }) => connected(url, {}, async (api) => {
  const error = await failure(api.fail('ValueError', 'as asked'));
  assert.equal(error instanceof RemoteError && error instanceof Error, true);
  assert.deepEqual([error.name, error.message, error.code, error.fields], ['ValueError', 'as asked', 42, { code: 42 }]);
  assert.equal(`${error}`, 'ValueError: as asked');
  for (const missing of [api.nope, api.math.nope, api.no.such.path, api._hidden, api.constructor, api.__class__]) {
    assert.equal((await failure(missing())) instanceof MethodNotFound, true);
  }
  const refused = await failure(api.ask({ prompt: 7 }));
  assert.equal(refused instanceof ActionError, true);
  assert.deepEqual([refused.code, refused.status, Object.keys(refused.fieldErrors)], ['VALIDATION_ERROR', 422, ['prompt']]);
  const words = [];
  const late = await failure((async () => {
    for await (const word of api.ask({ prompt: 'two words' })) words.push(word);
  })());
  assert.deepEqual(words, ['two', 'words']);
  assert.deepEqual([late instanceof ActionError, late.code, late.status, late.message], [true, 'RATE_LIMITED', 429, 'too much']);
});

export const callbacks = ({ url }) => connected(url, {}, async (api, channel) => {
  const seen = [];
  const note = async (i) => {
    seen.push(i);
    if (i === 3) throw new RangeError('three');
    return i * 2;
  };
  assert.deepEqual(await api.each(3, note), [0, 2, 4]);
  assert.deepEqual(seen, [0, 1, 2]);
  const error = await failure(api.each(9, note));
  assert.deepEqual([error.name, error.message], ['RangeError', 'three']);
  assert.deepEqual(await api.each(2, (i) => ({ at: [i] })), [{ at: [0] }, { at: [1] }]);
  assert.equal((await api.nested({ deep: [note] })), 'called with 14');

  await api.keep(note);
  assert.equal(await api.kept(5), 10);
  channel.release(note);
  assert.match((await failure(api.kept(5))).message, /released/);
  await api.keep(note); // under a new id
  assert.equal(await api.kept(6), 12);

  const double = await api.lend();
  assert.equal(await double(21), 42);
  assert.equal(await double.notify(4), undefined);
  assert.equal(await settled(() => api.doubled()), 2);
  double.release();
  assert.equal((await failure(double(1))) instanceof CallbackReleased, true);
  while (await api.lent()); // until the server was told
  await api.forget();
  while (channel.stats.own > 0) await api.lent(); // and has told us
});

export const exposed = ({ url }) => {
  let cancelled = null;
  class Api { inherited() { return 'of the prototype'; } }
  const expose = {
    greet: (name) => `hello, ${name}`,
    math: { add: (a, b) => a + b, _hidden: () => 'hidden', version: 3 },
    api: new Api(),
    fail() { throw Object.assign(new TypeError('no'), { code: 'E_NO' }); },
    async* count(n) {
      try {
        for (let i = 0; i < n; i++) yield i;
        return 'counted';
      } finally { cancelled = n; }
    },
  };
  return connected(url, { expose }, async (api) => {
    const found = await api.explore();
    await api.explore_stream();
    while (cancelled !== 1e6) await api.add(1, 1); // its cleanup is under way
    return { found, cancelled };
  });
};

export const streams = ({ url }) => connected(url, {}, async (api, channel) => {
  const got = [];
  for await (const value of api.count(1000)) got.push(value);
  assert.deepEqual(got, Array.from({ length: 1000 }, (_, i) => i));
  const stream = await api.count(5);
  assert.equal(stream instanceof RemoteStream, true);
  assert.deepEqual(await stream.next(), { value: 0, done: false });
  const rest = [];
  for await (const value of stream) rest.push(value);
  assert.deepEqual(rest, [1, 2, 3, 4]);
  assert.equal(await stream.result, 'counted 5');
  assert.deepEqual(await stream.next(), { value: undefined, done: true });
  assert.equal(await (await api.count(5000)).drain(), 'counted 5000');
  const broken = await api.break_after(3);
  const before = [];
  const error = await failure((async () => { for await (const value of broken) before.push(value); })());
  assert.deepEqual([before, error.name, error.message], [[0, 1, 2], 'ValueError', 'broken']);
  assert.equal(await failure(broken.result), error);
  const large = [];
  for await (const text of api.large(20, 100_000)) large.push(text.length);
  assert.deepEqual(large, Array(20).fill(100_000));
  assert.equal((await failure((async () => { for await (const _ of api.add(1, 2)); })())) instanceof TypeError, true);
  const both = await Promise.all([api.count(300), api.count(200)].map(async (call) => (await call).drain()));
  assert.deepEqual(both, ['counted 300', 'counted 200']);
  assert.equal(channel.stats.outgoing, 0);
});

/** A page that does not read stops the server's generator; one that reads again lets it go on. */
export const credit = ({ url, limits }) => connected(url, { limits }, async (api) => {
  const made = () => settled(() => api.made('credit'));
  const stream = await api.watched('credit', 3000, 10);
  while (await api.made('credit') < 64);
  const unread = await made();
  for (let i = 0; i < 200; i++) assert.equal((await stream.next()).value.length, 10);
  const later = await made();
  let count = 200;
  for await (const _ of stream) count++;
  assert.equal(count, 3000);
  const large = await api.watched('large', 1000, 100_000);
  const unreadLarge = await settled(() => api.made('large'));
  await large.cancel();
  return { unread, later, unreadLarge };
});

/** Without credit the peer may run ahead, and the client has a bound. */
export const unbounded = ({ url }) => connected(url, {
  features: ['batch', 'result', 'cancel'], limits: { stockStreamBuffer: 500_000 },
}, async (api, channel) => {
  assert.deepEqual([...channel.features], ['batch', 'result', 'cancel']);
  const stream = await api.watched('unbounded', 1000, 10_000);
  await api.cleaned('unbounded');
  let count = 0;
  const error = await failure((async () => { for await (const _ of stream) count++; })());
  return { count, error: error.name };
});

export const leaving = ({ url }) => connected(url, {}, async (api, channel) => {
  for await (const value of api.watched('break', 1e6, 1)) if (value) break;
  await api.cleaned('break');
  const left = await api.watched('cancel', 1e6, 1);
  await left.next();
  await left.cancel();
  assert.equal(await api.is_clean('cancel'), true); // the cancel's answer comes after the cleanup
  assert.equal((await failure(left.result)) instanceof CallCancelled, true);
  const waiting = await api.silent('return');
  const pending = waiting.next();
  await waiting.return('over');
  assert.deepEqual(await pending, { value: undefined, done: true });
  await api.cleaned('return');
  const early = api.sleep('early');
  const given = failure(early);
  await api.add(1, 1);
  await early.cancel();
  assert.equal((await given) instanceof CallCancelled, true);
  assert.equal(await api.is_clean('early'), true);
  const thrown = await api.silent('throw');
  assert.equal((await failure(thrown.throw(new Error('mine')))).message, 'mine');
  await api.cleaned('throw');
  assert.equal(channel.stats.outgoing, 0);
});

export const signals = ({ url }) => connected(url, {}, async (api, channel) => {
  const before = AbortSignal.abort(new Error('before'));
  assert.equal((await failure(withOptions(api, { signal: before }).add(1, 2))).message, 'before');
  const during = new AbortController();
  const call = failure(withOptions(api, { signal: during.signal }).sleep('signal'));
  await api.add(1, 1);
  during.abort(new Error('during'));
  assert.equal((await call).message, 'during');
  await api.cleaned('signal');
  const open = new AbortController();
  const stream = await withOptions(api, { signal: open.signal }).silent('stream');
  const next = failure(stream.next());
  open.abort(new Error('while it waits'));
  assert.equal((await next).message, 'while it waits');
  await api.cleaned('stream');
  assert.equal((await failure(withOptions(api, { timeout: 20 }).sleep('timeout'))) instanceof CallTimeout, true);
  await api.cleaned('timeout');
  const patient = await withOptions(api, { timeout: 5000 }).count(3); // for the answer, not for the stream
  assert.equal(await patient.drain(), 'counted 3');
  assert.equal(channel.stats.outgoing, 0);
});

/** Streams as arguments, both ways. */
export const uploads = ({ url }) => connected(url, { expose: { total: async (chunks) => {
  let sum = 0;
  for await (const chunk of chunks) sum += chunk;
  return sum;
} } }, async (api) => {
  let cleaned = false;
  async function* numbers(n) {
    try {
      for (let i = 0; i < n; i++) yield i;
    } finally { cleaned = true; }
  }
  assert.equal(await api.total(numbers(2000)), 1999000);
  assert.equal(await api.total(api.count(100)), 4950); // a stream of the server's, sent back
  cleaned = false;
  assert.equal(await api.first(numbers(1e9)), 0);
  while (!cleaned) await api.add(1, 1);
  assert.equal(await api.ask_total(500), 124750);
});

/** The server's side of what a page produces: bounded by credit, and by the socket without it. */
export const producing = ({ url, features }) => {
  let made = 0;
  const expose = {
    async* produce(size) {
      for (;;) {
        made++;
        yield 'x'.repeat(size);
      }
    },
  };
  return connected(url, { expose, features, limits: { sendHighWater: 100_000 } }, async (api) => {
    const taken = await api.take_slowly(1000, 50);
    return { taken, made: await settled(async () => made) };
  });
};

export const waits_for_the_end = async ({ url }) => {
  const channel = await connect(url, { WebSocket });
  const api = channel.remote();
  const stream = await api.silent('end');
  const pending = [api.sleep('end'), stream.next(), stream.result].map(failure);
  await api.waiting();
  const failures = await Promise.all(pending);
  const reason = await channel.closed;
  assert.equal(reason instanceof ChannelClosed, true);
  for (const error of failures) assert.equal(error, reason);
  assert.equal((await failure(api.add(1, 2))) instanceof ChannelClosed, true);
  assert.equal((await failure(channel.get('x'))) instanceof ChannelClosed, true);
  await channel.close();
  return { code: reason.code, message: reason.message };
};

export const nobody_there = async ({ url }) => {
  const error = await failure(connect(url, { WebSocket }));
  assert.equal(error instanceof ChannelClosed, true);
  const given = new AbortController();
  const aborted = failure(connect(url, { WebSocket, signal: given.signal }));
  given.abort(new Error('changed my mind'));
  assert.equal((await aborted).message, 'changed my mind');
  assert.equal((await failure(connect(url, { WebSocket: undefined }))) instanceof Error, true);
  return error.message;
};
