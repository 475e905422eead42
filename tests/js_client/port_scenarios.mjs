// What the client does over MessagePorts and other transports, with itself, with stock kkrpc, and with peers that are
// up to no good. Each scenario judges for itself; tests/js_client/test_ports.py runs them.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { MessageChannel, Worker } from 'node:worker_threads';
import {
  ActionError, CallCancelled, CallTimeout, ChannelClosed, FEATURES, KkrpcError, LimitExceeded, MethodNotFound,
  NotSerializable, ProtocolError, RPCChannel, RemoteError, RemoteStream, connect, fromMessagePort, handler,
} from '../../clients/js/kkrpc.js';

const npm = createRequire(new URL('../node/package.json', import.meta.url));
const failure = (promise) => promise.then((value) => assert.fail(`a value: ${value}`), (error) => error);
const turn = () => new Promise((resolve) => { setImmediate(resolve); });

/** Waits until it holds; whoever runs this has a bound. */
async function until(holds) {
  while (!await holds()) await turn();
}

/** Two channels that are joined; both are closed after `use`. */
async function joined(one, other, use) {
  const { port1, port2 } = new MessageChannel();
  const [a, b] = [fromMessagePort(port1, one), fromMessagePort(port2, other)];
  await Promise.all([a.ready, b.ready]);
  try {
    await use(a.remote(), a, b);
  } finally {
    await a.close();
    assert.equal((await b.closed) instanceof ChannelClosed, true);
  }
}

/** A channel whose peer is the scenario: it says lines, and sees messages. */
class Scripted {
  heeds = 0;
  said = []; // what the channel has said and nobody has looked at
  constructor(options = {}) {
    const { port1, port2 } = new MessageChannel();
    this.port = port1;
    port1.on('message', (text) => {
      this.said.push(...text.split('\n').filter(Boolean)
        .map((line) => (line === '__DESTROY__' ? { type: line } : JSON.parse(line))));
    });
    this.channel = fromMessagePort(port2, { onError: (error) => { this.error = error; }, ...options });
    this.api = this.channel.remote();
  }

  say(...messages) {
    const lines = messages.map((message) => (typeof message === 'string' ? message : JSON.stringify(message)));
    this.port.postMessage(`${lines.join('\n')}\n`);
  }

  /** The next message of a type. */
  async heard(type) {
    let at;
    await until(() => (at = this.said.findIndex((message) => message.type === type)) >= 0);
    return this.said.splice(at, 1)[0];
  }

  /** Answers the hello. */
  async agree(features = FEATURES) {
    const { id } = await this.heard('request');
    this.say({ id, method: '', args: { result: { protocol: 1, features } }, type: 'response' });
    await this.channel.ready;
    return this;
  }

  /** What was said before was read. */
  async heeded() {
    const id = `h${this.heeds++}`;
    this.say({ id, method: 'no such', args: [], type: 'request' });
    await until(() => this.said.some((message) => message.id === id));
    this.said = this.said.filter((message) => message.id !== id);
  }

  async end() {
    await this.channel.close();
    this.port.close();
  }
}

const response = (id, result, more = {}) => ({ id, method: '', args: { result }, type: 'response', ...more });
const chunk = (id, value) => ({ id, method: '', args: { value }, type: 'stream-chunk' });
const opening = (id) => response(id, { __stream: true });

// ---------------------------------------------------------------------------------------- workers and ports

export async function worker() {
  const thread = new Worker(new URL('worker.mjs', import.meta.url));
  const channel = fromMessagePort(thread);
  const api = channel.remote();
  assert.equal(await api.add(1, 2), 3);
  assert.equal(await api.ask((i) => i * 2 + 2), 42);
  let sum = 0;
  for await (const i of api.count(3000)) sum += i;
  assert.equal(sum, 4498500);
  for await (const i of api.count(1e9)) if (i === 5) break;
  await until(async () => await api.cleaned() === 2);
  const waiting = failure(api.ask(() => new Promise(() => {})));
  api.exit(3).catch(() => {});
  assert.equal((await waiting) instanceof ChannelClosed, true);
  assert.equal((await channel.closed) instanceof ChannelClosed, true);
}

export async function port_of_a_worker() {
  const { port1, port2 } = new MessageChannel();
  const thread = new Worker(new URL('worker.mjs', import.meta.url), { workerData: { port: port2 }, transferList: [port2] });
  const channel = fromMessagePort(port1);
  const stream = await channel.remote().count(500);
  assert.equal(await stream.drain(), 'counted');
  await channel.close();
  await new Promise((resolve) => { thread.on('exit', resolve); }); // nothing keeps it
}

export async function a_port_that_is_closed() {
  const { port1, port2 } = new MessageChannel();
  const channel = fromMessagePort(port1, { hello: false });
  const waiting = failure(channel.call('x'));
  port2.close();
  assert.equal((await waiting) instanceof ChannelClosed, true);
}

/** Both ways at once: callbacks with streams, streams of functions, streams of streams. */
export const functions_and_streams_within_values = () => joined({}, {
  expose: {
    lend: () => ({ deep: [(a) => a + 1], numbers: (async function* numbers() { yield* [1, 2]; })() }),
    async* functions() { for (let i = 0; i < 100; i++) yield { times: (a) => a * i }; },
    each: async (f) => {
      const got = [];
      for await (const value of f(3)) got.push(value);
      return got;
    },
    async* streams() { for (let i = 0; i < 3; i++) yield (function* within() { yield i; yield i; })(); },
  },
}, async (api, channel, other) => {
  const { deep: [increase], numbers } = await api.lend();
  assert.equal(await increase(1), 2);
  assert.deepEqual([await numbers.next(), await numbers.next(), (await numbers.next()).done],
    [{ value: 1, done: false }, { value: 2, done: false }, true]);
  let i = 0;
  for await (const { times } of api.functions()) assert.equal(await times(2), 2 * i++);
  assert.deepEqual(await api.each(async function* count(n) { for (let at = 0; at < n; at++) yield at; }), [0, 1, 2]);
  for await (const stream of api.streams()) for await (const value of stream) assert.equal(typeof value, 'number');
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc');
  await until(() => { // whatever nobody holds is given back
    gc();
    return channel.stats.theirs <= 3 && other.stats.own <= 3; // of 102: an engine may keep the last one
  });
  assert.equal(await increase(2), 3);
  assert.deepEqual([channel.stats.outgoing, other.stats.incoming], [0, 0]);
});

export async function what_nobody_holds_is_cancelled() {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc');
  let cleaned = 0;
  await joined({}, { expose: { async* endless() { try { for (let i = 0; ; i++) yield i; } finally { cleaned++; } } } },
    async (api, channel) => {
      await (async () => { await (await api.endless()).next(); api.endless(); })();
      await until(() => {
        gc();
        return cleaned === 2;
      });
      const stillWanted = (await api.endless()).result;
      for (let i = 0; i < 5; i++) { gc(); await turn(); }
      assert.equal(channel.stats.outgoing, 1);
      stillWanted.catch(() => {});
    });
}

export const handlers = () => joined({}, {
  expose: {
    named: handler({ parameters: ['a', 'b?'] }, (a, b = 'none') => [a, b]),
    told: handler({ context: true }, ({ meta, channel, signal }, a) => [meta, channel.stock, signal.aborted, a]),
    any: handler({ anyNames: true }, ({ kwargs }, ...args) => [args, kwargs]),
    plain: (...args) => args,
    wait: handler({ context: true }, ({ signal }) => new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason));
    })),
    bare: () => { throw Object.create(null); },
    locked: () => ({ [Symbol.asyncIterator]() { throw new Error('locked'); } }),
    stuck: () => ({
      next: () => new Promise(() => {}),
      return: async () => ({ done: true }),
      [Symbol.asyncIterator]() { return this; },
    }),
    thrown: () => { throw 'a text'; }, // eslint-disable-line no-throw-literal -- others do
    rich: () => { throw new RemoteError('Rich', 'text', { code: 7, f: () => {}, __notes__: ['n'], _own: 1, cause: new Error('c') }); },
    unsendable: () => new Map(),
    looksLikeAStream: () => ({ __stream: true }),
    async* unsendableChunk() { yield 1; yield Symbol('s'); },
    async* unsendableEnd() { yield 1; return new Date(); },
    Point: class Point { constructor(x) { this.x = x; this._y = 1; } norm() {} },
    Broken: class Broken { constructor() { this.f = () => {}; } },
    data: { a: [1, { b: 2, _c: 3 }], get computed() { return 1; } },
    cyclic: (() => { const a = {}; a.a = a; a.b = a; return a; })(),
  },
  constructible: ['Point', 'Broken', 'data'],
  settable: ['data.a'],
}, async (api, channel) => {
  const call = (path, args, kwargs, meta) => channel.call(path, args, { kwargs, meta });
  assert.deepEqual(await call('named', [1]), [1, 'none']);
  assert.deepEqual(await call('named', [1], { b: 2 }), [1, 2]);
  assert.deepEqual(await call('named', [], { a: 1, b: 2 }), [1, 2]);
  for (const [args, kwargs] of [[[]], [[1, 2, 3]], [[1], { a: 2 }], [[1], { c: 2 }], [[1], { ['__proto__']: 2 }]]) {
    assert.equal((await failure(call('named', args, kwargs))).name, 'TypeError');
  }
  assert.equal((await failure(call('plain', [], { a: 1 }))).name, 'TypeError');
  assert.deepEqual(await call('any', [1], { x: 2 }), [[1], { x: 2 }]);
  assert.deepEqual(await call('told', [5], undefined, { user: 'ada' }), [{ user: 'ada' }, false, false, 5]);
  const waiting = api.wait();
  const given = failure(waiting);
  await waiting.cancel();
  assert.equal((await given) instanceof CallCancelled, true);
  assert.deepEqual([(await failure(api.thrown())).name, (await failure(api.thrown())).message], ['Error', 'a text']);
  assert.equal((await failure(api.bare())).message, '');
  assert.equal((await failure((await api.locked()).next())).message, 'locked');
  await (await api.stuck()).cancel(); // whose next step never comes
  const rich = await failure(api.rich());
  assert.deepEqual([rich.name, rich.fields], ['Rich', { code: 7, __notes__: ['n'], cause: { name: 'Error', message: 'c' } }]);
  for (const name of ['unsendable', 'looksLikeAStream']) {
    assert.equal((await failure(call(name))) instanceof RemoteError, true);
  }
  for (const name of ['unsendableChunk', 'unsendableEnd']) {
    const stream = await call(name);
    assert.equal((await stream.next()).value, 1);
    assert.equal((await failure(stream.next())).name, 'NotSerializable');
  }
  assert.deepEqual(await new api.Point(3), { x: 3 });
  assert.equal((await failure(new api.Broken())).name, 'NotSerializable');
  assert.equal((await failure(new api.data())).message, 'data is not a constructor function');
  assert.equal((await failure(new api.plain())).message, 'plain is not a constructor function');
  assert.equal((await failure(api.Point(1))).message, 'Method Point is not a function');
  assert.deepEqual(await channel.get('data.a'), [1, { b: 2 }]);
  for (const path of ['data', 'data.computed', 'cyclic', 'plain', 'data.a.0', '', '_x', []]) {
    assert.match((await failure(channel.get(path))).message, /^Property path .* not found at /);
  }
  assert.equal(await channel.set('data.a', { new: true }), true);
  assert.deepEqual(await channel.get('data.a'), { new: true });
  assert.equal((await failure(channel.set('data.a', () => {}))).name, 'TypeError');
});

export async function what_may_be_exposed() {
  for (const expose of [[], new (class Api {})(), () => {}, null, 'text']) {
    assert.throws(() => new RPCChannel(new MessageChannel().port1, { expose }), TypeError);
  }
  assert.throws(() => new RPCChannel({}), TypeError);
  await joined({}, {}, async (api) => {
    assert.equal((await failure(api.x())).message, 'No API implementation available');
  });
  assert.equal(new ActionError('ActionError', 'm', { fieldErrors: { a: 'x' }, statusCode: 4 }).status, 500);
}

// ------------------------------------------------------------------------------------------- hostile peers

export async function prototypes() {
  const expose = { add: (a, b) => a + b, ns: { value: 1 }, echo: (value) => value };
  const peer = await new Scripted({ expose, settable: ['ns.value'] }).agree();
  const paths = [
    ['__proto__', 'polluted'], ['constructor', 'prototype', 'polluted'], ['ns', '__proto__', 'polluted'],
    ['add', '__proto__', 'polluted'], ['ns', 'constructor'], ['toString'], ['add', 'call'], ['', 'ns'], ['ns.value'],
  ];
  paths.forEach((path, at) => {
    peer.say({ id: `s${at}`, method: '', args: {}, type: 'set', path, value: 'polluted' });
    peer.say({ id: `g${at}`, method: '', args: {}, type: 'get', path });
    peer.say({ id: `c${at}`, method: path.join('.'), args: [], type: 'request' });
    peer.say({ id: `n${at}`, method: path.join('.'), args: [], type: 'construct' });
  });
  for (let i = 0; i < 4 * paths.length; i++) {
    const { id, args } = await peer.heard('response');
    if (!(id === 's8' || id === 'g8')) assert.equal(typeof args.error, 'string', id);
  }
  const poison = '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}';
  peer.say(`{"id":"e","method":"echo","args":[${poison}],"type":"request"}`);
  assert.equal(JSON.stringify((await peer.heard('response')).args.result), poison);
  const call = peer.api.x();
  const { id } = await peer.heard('request');
  peer.say(`{"id":"${id}","method":"","args":{"error":{"name":"__proto__","message":"m","__proto__":{"polluted":1},"toString":1}},"type":"response","__proto__":{"polluted":1}}`);
  const error = await failure(call);
  assert.deepEqual([error instanceof RemoteError, error.name, Object.getPrototypeOf(error)], [true, '__proto__', RemoteError.prototype]);
  peer.say('{"method":"","args":{"__proto__":1,"constructor":2},"type":"callback-release"}');
  peer.say('{"id":"k","method":"echo","args":[],"kwargs":{"__proto__":1},"meta":{"__proto__":{"polluted":1}},"type":"request"}');
  assert.equal((await peer.heard('response')).args.error.name, 'TypeError');
  assert.equal({}.polluted, undefined);
  assert.equal((() => {}).polluted, undefined);
  assert.equal(expose.ns.value, 1);
  await peer.end();
}

/** A value that is a promise to whoever resolves one with it would call the peer, and wait for what it likes. */
export async function thenables() {
  const peer = await new Scripted({ expose: { echo: (value) => value } }).agree();
  const call = failure(peer.api.x());
  const { id } = await peer.heard('request');
  peer.say(response(id, { then: '__callback__t' }, { callbackIds: ['t'] }));
  assert.equal((await call) instanceof ProtocolError, true);
  peer.say({ id: 'q', method: 'echo', args: [{ then: '__callback__t' }], type: 'request', callbackIds: ['t'] });
  assert.equal((await peer.heard('response')).args.error.name, 'ProtocolError');
  const stream = peer.api.y();
  const { id: s } = await peer.heard('request');
  peer.say(opening(s), { ...chunk(s, [{ then: '__callback__t' }]), callbackIds: ['t'] });
  assert.equal((await failure((await stream).next())) instanceof ProtocolError, true);
  const texts = peer.api.z();
  const { id: z } = await peer.heard('request');
  peer.say(response(z, { then: 'a text' }));
  assert.deepEqual(await texts, { then: 'a text' });
  assert.deepEqual([(await peer.heard('callback-release')).args, (await peer.heard('callback-release')).args], [{ t: 1 }, { t: 1 }]);
  await peer.end();
}

/** Nothing that a peer says in the wrong place hangs a call, ends the channel, or throws where nobody catches it. */
export async function nonsense() {
  const noise = [];
  const peer = await new Scripted({ expose: { add: (a, b) => a + b }, onNoise: (line) => noise.push(line) }).agree();
  const types = ['request', 'construct', 'get', 'set', 'callback', 'response', 'callback-release', 'stream-chunk',
    'stream-end', 'stream-error', 'stream-cancel', 'stream-ack'];
  const odd = [null, true, 0, -1, 1.5, 2 ** 60, '', 'x', '__proto__', [], [null], {}, { result: { __stream: true } }, { n: -1, b: 'x' },
    { error: null }, { error: {} }, { error: [] }, { values: [] }, { protocol: 1, features: 7 }];
  const call = peer.api.add(1, 2);
  const { id } = await peer.heard('request');
  const pending = failure(call);
  for (const type of types) {
    for (const value of odd) {
      peer.say({ type, id: 'nobody', method: value, args: value });
      peer.say({ type, id: value, method: 'add', args: value, path: value, kwargs: value, meta: value });
      peer.say({ type, method: 'kkrpc.hello', args: [value], callbackIds: value, streamIds: value, value });
      peer.say({ type, id: `o${types.indexOf(type)}${odd.indexOf(value)}`, method: 'add', args: [value, value], path: [value], callbackIds: ['x', 'x'], streamIds: ['__stream__1', '__stream__1'] });
    }
  }
  const lines = ['no json', '{', '{}', '[]', '1', '{"type":"nothing"}', '\ufeff', '{"json":{}}', '{"a":NaN}', '{"a":1e999}', '\0', '}{'];
  lines.forEach((line) => peer.say(line));
  await peer.heeded();
  const { counted } = peer.channel;
  for (const item of [7, null, { version: 2, payload: {} }, new Uint8Array([0xff, 0x18]), new ArrayBuffer(3), ['{}']]) {
    peer.port.postMessage(item);
  }
  await peer.heeded();
  assert.equal(peer.channel.counted, counted + 5); // TRN-9
  assert.deepEqual(noise, [...lines, '\0\0\0']);
  assert.equal(peer.error instanceof ProtocolError, true); // superjson
  assert.equal(peer.channel.counted > 100, true);
  peer.say({ type: 'response', id, args: 7 }); // malformed, for a call that waits
  assert.equal((await pending) instanceof ProtocolError, true);
  const next = peer.api.add(1, 2);
  let asked;
  do asked = await peer.heard('request'); while (asked.method !== 'add');
  peer.say(response(asked.id, 3));
  assert.equal(await next, 3);
  await peer.end();
}

export async function limits() {
  const waiting = [];
  const peer = await new Scripted({
    expose: { wait: () => new Promise((resolve) => waiting.push(resolve)), keep: (f) => waiting.push(f) },
    limits: { calls: 3, callbacks: 5, depth: 10, digits: 20, idBytes: 10, noise: 5, frame: 10_000 },
  }).agree();
  for (let i = 0; i < 4; i++) peer.say({ id: i, method: 'wait', args: [], type: 'request' });
  const refused = await peer.heard('response');
  assert.deepEqual([refused.id, refused.args.error.name], [3, 'LimitExceeded']);
  waiting.splice(0).forEach((resolve) => resolve());
  for (let i = 0; i < 3; i++) await peer.heard('response');
  const ids = Array.from({ length: 6 }, (_, i) => `f${i}`);
  const names = (list) => ({ method: 'keep', args: list.map((id) => `__callback__${id}`), type: 'request', callbackIds: list });
  peer.say({ id: 1, ...names(ids) });
  assert.equal((await peer.heard('response')).args.error.name, 'LimitExceeded');
  assert.deepEqual((await peer.heard('callback-release')).args, Object.fromEntries(ids.map((id) => [id, 1])));
  const deep = (n) => `${'['.repeat(n)}${']'.repeat(n)}`;
  for (const [args, fits] of [[deep(9), true], [deep(10), false], ['[1e1]', true], [`[${'1'.repeat(20)}]`, true], [`[${'1'.repeat(22)}]`, false]]) {
    peer.say(`{"id":"d","method":"nope","args":${args},"type":"request"}`);
    assert.equal((await peer.heard('response')).args.error === 'Method nope is not a function', fits, args);
  }
  peer.say('{'.repeat(3000) + '}'.repeat(3000), 'noise that is long');
  await peer.heeded();
  assert.equal((await failure(peer.api.x('y'.repeat(10_000)))) instanceof LimitExceeded, true);
  peer.say(`{"id":"l","method":"${'x'.repeat(10_000)}","args":[],"type":"request"}`);
  const reason = await peer.channel.closed;
  assert.equal(reason instanceof LimitExceeded, true);
  assert.equal((await peer.heard('__DESTROY__')).type, '__DESTROY__');
  peer.port.close();
}

/** A producer that sends more than it may: what came is handed out, then the error. */
export async function chunks_without_credit() {
  const peer = await new Scripted().agree();
  const call = peer.api.x();
  const { id } = await peer.heard('request');
  peer.say(opening(id), ...Array.from({ length: 65 }, (_, i) => chunk(id, i)));
  const stream = await call;
  await peer.heard('stream-cancel');
  for (let i = 0; i < 64; i++) assert.equal((await stream.next()).value, i);
  assert.equal((await failure(stream.next())) instanceof ProtocolError, true);
  assert.deepEqual(await stream.next(), { value: undefined, done: true });
  assert.equal(peer.said.some(({ type }) => type === 'stream-ack'), false);
  peer.say({ id, method: '', args: { cancelled: true }, type: 'stream-end' });
  await peer.heeded();
  assert.equal(peer.channel.stats.outgoing, 0);
  await peer.end();
}

/** Every kind of end that a peer can give a call. */
export async function ends() {
  const peer = await new Scripted({ limits: { helloMs: 20 } }).agree([]);
  const streamed = async (...messages) => {
    const call = peer.api.x();
    const { id } = await peer.heard('request');
    peer.say(opening(id), ...messages.map((message) => ({ id, method: '', ...message })));
    return (await call).next();
  };
  assert.deepEqual(await streamed({ args: {}, type: 'stream-end' }), { value: null, done: true });
  assert.equal((await failure(streamed({ args: {}, type: 'stream-error' }))).message, 'Stream error');
  assert.equal((await failure(streamed({ args: { error: 'e' }, type: 'stream-error' }))).message, 'e');
  assert.equal((await failure(streamed({ args: 7, type: 'stream-chunk', id: {} }, { args: { values: 7 }, type: 'stream-chunk' })))
    instanceof ProtocolError, true);
  const early = new AbortController();
  const given = failure(peer.channel.call('y', [], { signal: early.signal }));
  const { id } = await peer.heard('request');
  early.abort(new Error('mine'));
  assert.equal((await given).message, 'mine');
  peer.say(opening(id)); // a stock peer is told once it turns out to be a stream
  await peer.heard('stream-cancel');
  peer.say(chunk(id, 1), { id, method: '', args: {}, type: 'stream-end' });
  await peer.heeded();
  assert.equal(peer.channel.stats.outgoing, 0);
  assert.equal((await failure(peer.channel.call('z', [], { timeout: 5 }))) instanceof CallTimeout, true);
  await peer.end();
}

/** Calls that need an extension wait for the hello's answer, or for the end of that wait. */
export async function hello() {
  const late = new Scripted();
  const call = late.channel.call('x', [{ within: () => 1 }]);
  const { id } = await late.heard('request');
  assert.equal(late.said.length, 0);
  late.say(response(id, { protocol: 1, features: ['callback', 'unknown', 7] }));
  const sent = await late.heard('request');
  assert.equal(sent.callbackIds.length, 1);
  late.say(response(sent.id, 1));
  assert.equal(await call, 1);
  assert.deepEqual([...late.channel.features], ['callback']);
  await late.end();

  for (const answer of [{ error: 'Method path kkrpc.hello not found at kkrpc' }, { result: 7 }, { result: { __stream: true } }, null]) {
    const stock = new Scripted({ limits: { helloMs: 30 } });
    const refused = failure(stock.channel.call('x', [{ within: () => 1 }]));
    const asked = await stock.heard('request');
    if (answer) stock.say({ id: asked.id, method: '', args: answer, type: 'response' });
    assert.equal((await refused) instanceof NotSerializable, true);
    assert.equal(stock.channel.stock, true);
    if (answer?.result?.__stream) await stock.heard('stream-cancel');
    await stock.end();
  }

  const given = new Scripted();
  const cancelled = given.channel.call('x');
  const { id: hi } = await given.heard('request');
  await given.heard('request');
  cancelled.catch(() => {});
  cancelled.cancel(); // CAN-8: said once it is known that the peer has it
  await given.heeded();
  assert.equal(given.said.length, 0);
  given.say(response(hi, { protocol: 1, features: ['cancel'] }));
  await given.heard('stream-cancel');
  await given.end();
}

// ------------------------------------------------------------------------------------------- other transports

/** An object that has a WebSocket's `send`, `onmessage` and `close`, and may be slow. */
class Socket {
  sent = [];
  readyState = 0;
  bufferedAmount = 0;
  send(text) {
    this.sent.push(text);
    this.bufferedAmount += text.length;
  }

  close(code, reason) { Object.assign(this, { closed: [code, reason], readyState: 3 }); }
}

export async function a_socket_that_is_slow() {
  const socket = new Socket();
  let made = 0;
  const expose = { async* endless() { for (;;) { made++; yield 'x'.repeat(10_000); } }, big: () => 'y'.repeat(600_000) };
  const channel = new RPCChannel(socket, { expose, hello: false, limits: { sendHighWater: 50_000, sendMax: 2_000_000 } });
  socket.onmessage({ data: '{"id":1,"method":"endless","args":[],"type":"request"}\n' });
  for (let i = 0; i < 50; i++) await turn();
  assert.deepEqual([socket.sent.length, made <= 2], [0, true], 'it is not open');
  socket.readyState = 1;
  socket.onopen();
  await until(() => socket.bufferedAmount > 50_000);
  for (let i = 0; i < 50; i++) await turn();
  assert.equal(made < 12, true, `${made} chunks for a socket that takes 50,000 bytes`);
  const stopped = made;
  socket.bufferedAmount = 0;
  await until(() => made > stopped + 3); // it goes on by itself
  for (let i = 2; i < 8; i++) socket.onmessage({ data: `{"id":${i},"method":"big","args":[],"type":"request"}\n` });
  const reason = await channel.closed;
  assert.equal(reason instanceof LimitExceeded, true);
  assert.equal(socket.closed[0], 4009);
  assert.equal(socket.sent.pop(), '__DESTROY__'); // to a stock peer
  assert.equal(socket.sent.every((text) => text.length < 700_000 && text.endsWith('\n')), true);
  const { length } = socket.sent;
  for (let i = 0; i < 20; i++) await turn();
  assert.equal(socket.sent.length, length);
}

export async function items() {
  const socket = Object.assign(new Socket(), { readyState: 1 });
  const channel = new RPCChannel(socket, { expose: { echo: (value) => value }, hello: false });
  const question = (id) => `{"id":"${id}","method":"echo","args":["é"],"type":"request"}`;
  socket.onmessage({ data: `${question('a')}\n\n \t\r${question('b')}\r\n\ufeff${question('c')}` }); // FRM-1, FRM-14
  socket.onmessage({ data: new TextEncoder().encode(question('d')) }); // text as bytes
  socket.onmessage({ data: new TextEncoder().encode(question('e')).buffer });
  await until(() => socket.sent.join('').split('\n').length === 6);
  assert.equal(socket.sent.join(''), [...'abcde'].map((id) => (
    `{"id":"${id}","method":"","args":{"result":"\\u00e9"},"type":"response","version":"json"}\n`)).join(''));
  for (const length of [65534, 65535, 65536, 65537]) { // FRM-10
    socket.sent = [];
    socket.onmessage({ data: `{"id":"x","method":"echo","args":["${'x'.repeat(length - 74)}"],"type":"request"}` });
    await until(() => socket.sent.length > 0);
    assert.notEqual(socket.sent[0].length % 65536, 1);
  }
  socket.onmessage({ data: '__DESTROY__' });
  socket.onmessage({ data: question('late') });
  assert.equal((await channel.closed).message, 'the peer has closed the connection');
  assert.deepEqual(socket.closed, [1000, '']);
}

// ---------------------------------------------------------------------------------------------- stock kkrpc

const STOCK = { serialization: { version: 'json' } };

async function with_stock(api, channel) {
  assert.equal(await api.add(1, 2), 3);
  assert.equal(channel.stock, true);
  assert.equal(await api.math.multiply(6, 7), 42);
  for (const value of [null, 'é€😀\u2028', [1, { a: null }], new Uint8Array([1, 2, 255]), { n: new Uint8Array(1) }]) {
    assert.deepEqual(await api.echo(value), value);
  }
  const seen = [];
  assert.equal(await api.each(3, (...args) => { seen.push(args); }), 3);
  assert.deepEqual(seen, [[0, 'of', 3], [1, 'of', 3], [2, 'of', 3]]);
  assert.equal((await failure(api.fail())).message, 'no');
  assert.equal((await failure(api.nope())) instanceof MethodNotFound, true);
  for (const refused of [2n ** 60n, [() => 1], '__callback__x', (async function* stream() { yield 1; })()]) {
    assert.equal((await failure(api.echo(refused))) instanceof NotSerializable, true);
  }
}

async function by_stock(api) {
  assert.equal(await api.add(1, 2), 3);
  assert.equal(await api.math.multiply(6, 7), 42);
  assert.deepEqual(await api.echo(new Uint8Array([1, 2])), new Uint8Array([1, 2]));
  const seen = [];
  assert.equal(await api.each(3, (...args) => seen.push(args)), 3);
  await until(() => seen.length === 3);
  assert.deepEqual(seen, [[0, 'of', 3], [1, 'of', 3], [2, 'of', 3]]);
  await failure(Promise.resolve(api.nope()));
}

/** npm's kkrpc 0.2.2 on both ends of a WebSocket, and behind a MessagePort. */
export async function stock() {
  const { RPCChannel: Stock, WebSocketServerIO, WebSocketClientIO, WorkerParentIO } = await import(
    new URL('../node/node_modules/kkrpc/dist/mod.js', import.meta.url));
  const { WebSocket, WebSocketServer } = npm('ws');
  const expose = {
    add: (a, b) => a + b,
    math: { multiply: (a, b) => a * b },
    echo: (value) => value,
    each: async (n, f) => {
      for (let i = 0; i < n; i++) await f(i, 'of', n);
      return n;
    },
    fail: () => { throw new TypeError('no'); },
  };
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
  await new Promise((resolve) => { server.on('listening', resolve); });
  const url = `ws://127.0.0.1:${server.address().port}`;
  let ends = null;
  server.once('connection', (socket) => { ends = [new Stock(new WebSocketServerIO(socket), { expose, ...STOCK }), socket]; });
  const client = await connect(url, { WebSocket, expose });
  await with_stock(client.remote(), client);
  await by_stock(ends[0].getAPI());
  const gone = new Promise((resolve) => { ends[1].on('close', resolve); });
  await client.close();
  assert.equal(await gone, 1000);

  const served = new Promise((resolve) => {
    server.once('connection', (socket) => resolve(new RPCChannel(socket, { expose })));
  });
  globalThis.WebSocket ??= WebSocket; // kkrpc's client takes that
  const io = new WebSocketClientIO({ url });
  const other = new Stock(io, { expose, ...STOCK });
  await by_stock(other.getAPI());
  await with_stock((await served).remote(), await served);
  io.destroy();
  assert.equal((await (await served).closed) instanceof ChannelClosed, true);
  server.close();

  const { port1, port2 } = new MessageChannel();
  let terminated;
  const ended = new Promise((resolve) => { terminated = resolve; });
  const thread = { postMessage: (data) => port2.postMessage(data), terminate: () => terminated(), onmessage: null };
  port2.on('message', (data) => thread.onmessage({ data }));
  const parent = new Stock(new WorkerParentIO(thread), { expose, ...STOCK });
  const channel = fromMessagePort(port1, { expose });
  await with_stock(channel.remote(), channel);
  await by_stock(parent.getAPI());
  await channel.close();
  await ended; // it has read __DESTROY__
  port2.close();
}
