// Peers that say anything at all: messages made at random, among them some of every right form.

import assert from 'node:assert/strict';
import { MessageChannel } from 'node:worker_threads';
import { FEATURES, fromMessagePort } from '../../clients/js/kkrpc.js';

const turn = () => new Promise((resolve) => { setImmediate(resolve); });
const TYPES = ['request', 'construct', 'get', 'set', 'callback', 'response', 'response', 'callback-release',
  'stream-chunk', 'stream-chunk', 'stream-end', 'stream-error', 'stream-cancel', 'stream-ack', 'nonsense'];
const METHODS = ['add', 'echo', 'count', 'call', 'read', 'lend', 'wait', 'P', 'kkrpc.hello', 'settings.a', '', '__proto__', 7];

/** Numbers below n, the same for a seed in every process. */
function dice(seed) {
  let state = seed;
  return (n) => {
    state = (state * 1103515245 + 12345) % 2147483648;
    return Math.floor(state / 65536) % n;
  };
}

class Storm {
  ids = ['1', 1, '__stream__1', '__stream__2', 'x', null, undefined, {}, 1.5, '__proto__'];
  hello = null;
  answered = false;

  constructor(seed) {
    this.dice = dice(seed);
    const { port1, port2 } = new MessageChannel();
    this.port = port1;
    port1.on('message', (text) => text.split('\n').filter((line) => line[0] === '{').forEach((line) => this.#heard(JSON.parse(line))));
    this.channel = fromMessagePort(port2, {
      onError() {},
      limits: { helloMs: 5, calls: 8, callbacks: 8, stockStreamBuffer: 2000, callBytes: 5000, cleanupMs: 20, depth: 12 },
      expose: {
        add: (a, b) => a + b,
        echo: (value) => value,
        async* count() { for (let i = 0; i < 50; i++) yield i; },
        call: (f) => (typeof f === 'function' ? f(1, () => 2) : f),
        read: async (stream) => { for await (const value of stream) if (value === 7) break; },
        lend: () => [() => 1, (async function* lent() { yield () => 3; })()],
        wait: () => new Promise((resolve) => { setTimeout(resolve, this.dice(5)); }),
        settings: { a: 1 },
        P: class P { constructor(a) { this.a = a; } },
      },
      settable: ['settings.a'],
      constructible: ['P'],
    });
  }

  #heard({ id, method, callbackIds = [], streamIds = [] }) {
    if (method === 'kkrpc.hello') this.hello = id;
    if (id === 'alive') this.answered = true;
    for (const name of [id, ...callbackIds, ...streamIds]) if (name !== undefined && this.ids.length < 80) this.ids.push(name);
  }

  pick(list) { return list[this.dice(list.length)]; }

  value(depth = 0) {
    const within = () => this.value(depth + 1);
    const leaf = [null, true, this.dice(100), -1.5, 'text', '__callback__x', `__callback__${String(this.pick(this.ids))}`, '__stream__1', 2 ** 60];
    if (depth > 4 || this.dice(3)) return this.pick(leaf);
    return this.pick([
      () => ({ __stream: true }), () => [within(), within()], () => ({ a: within(), then: '__callback__x', ['__proto__']: within() }),
      () => ({ result: within() }), () => ({ error: within(), name: within(), value: within(), values: within(), n: within(), b: within() }),
    ])();
  }

  message() {
    const { dice: roll } = this;
    const [a, b, id] = [this.value(), this.value(), this.pick(this.ids)];
    const message = {
      id,
      type: this.pick(TYPES),
      method: this.pick([...METHODS, this.pick(this.ids)]),
      args: this.pick([a, [a], [a, b], { result: a }, { result: { __stream: true } }, { value: a }, { values: [a, b] }, { error: a },
        { n: roll(100), b: roll(10000) }, { x: 1, [String(this.pick(this.ids))]: roll(3) }, [{ protocol: 1, features: FEATURES }]]),
    };
    const more = {
      callbackIds: [['x'], ['x', 'y'], [String(id)], b], streamIds: [['__stream__1'], ['__stream__1', '__stream__2'], b],
      path: [['settings', 'a'], ['settings'], b], kwargs: [a], meta: [a], value: [b],
    };
    for (const [key, choices] of Object.entries(more)) if (!roll(4)) message[key] = this.pick(choices);
    const text = JSON.stringify(message);
    if (!roll(20)) return text.slice(0, roll(text.length));
    return roll(20) ? text : [...text].map((c) => (roll(40) ? c : this.pick(['{', '"', '\\', '[', '9', '\0', '\ud800']))).join('');
  }

  /** One of the calls that the channel makes meanwhile; whatever becomes of it. */
  async call() {
    const api = this.channel.remote();
    const made = this.pick([
      () => api.m(1), () => api.m(() => 1, { f: () => 2 }), () => api.s((async function* ones() { for (;;) yield 1; })()),
      () => this.channel.get('a.b'), () => this.channel.set('a', 1), () => new api.Q(),
      () => this.channel.call('t', [], { timeout: 1 + this.dice(5) }),
      () => this.channel.call('u', [], { signal: AbortSignal.timeout(1 + this.dice(5)) }),
    ])();
    try {
      for await (const _ of made) if (!this.dice(5)) break;
    } catch { /* as may be */ }
  }

  async blow() {
    const calls = [];
    if (this.dice(4)) {
      while (this.hello === null) await turn();
      const features = FEATURES.filter(() => this.dice(5));
      this.port.postMessage(`${JSON.stringify({ id: this.hello, args: { result: { protocol: 1, features } }, type: 'response' })}\n`);
    }
    for (let i = 0; i < 60; i++) {
      if (!this.dice(4)) calls.push(this.call());
      this.port.postMessage(this.message() + (this.dice(3) ? '\n' : ''));
      if (!this.dice(6)) await turn();
    }
    this.port.postMessage('{"id":"alive","method":"no such","args":[],"type":"request"}\n');
    for (let i = 0; i < 1e5 && !this.answered; i++) await turn();
    assert.equal(this.answered, true, 'it does not answer any more');
    await this.channel.close();
    await Promise.all(calls);
    this.port.close();
    const { waiting, written, ...left } = this.channel.stats;
    assert.equal(left.outgoing, 0);
    assert.deepEqual([{}.polluted, Object.keys(Object.prototype)], [undefined, []]);
  }
}

export async function storm({ seed = 1, rounds = 100 }) {
  for (let i = 0; i < rounds; i++) {
    try {
      await new Storm(seed + i).blow();
    } catch (error) {
      throw new Error(`seed ${seed + i}`, { cause: error });
    }
  }
}
