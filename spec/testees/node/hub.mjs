// A hub: named streams, uploads and events (sections 20 to 22). It knows no peer: a session is any object with `emit`.

import { randomBytes } from 'node:crypto';
import { RpcError } from './wire.mjs';
import { RemoteStream } from './peer.mjs';

const newId = () => randomBytes(16).toString('base64url');
export const typeError = (text) => { throw new RpcError('TypeError', text); };
export const unknown = () => new RpcError('UnknownStream', 'there is no such stream', { code: 'DF0030' });
export const closed = () => new RpcError('StreamClosed', 'the stream has ended', { code: 'DF0031' });
export const wouldBlock = () => new RpcError('WouldBlock', 'there is no room now');
const isText = (value) => typeof value === 'string';
const isNumber = (value, least) => Number.isInteger(value) && value >= least;
const sizeOf = (value) => JSON.stringify(value, (key, item) => (typeof item === 'bigint' ? String(item) : item)).length;

/** Promises that are resolved together: somebody waits for a change, and then looks again. */
export class Bell {
  #waiting = [];

  wait() { return new Promise((resolve) => { this.#waiting.push(resolve); }); }

  ring() { this.#waiting.splice(0).forEach((resolve) => resolve()); }
}

// ------------------------------------------------------------------------------------------ a stream of the hub

const OVERFLOWS = ['drop_oldest', 'latest', 'block', 'error'];

/** The options of `subscribe` (NST-3). */
function readOptions(given, limits) {
  const options = given ?? {};
  if (typeof options !== 'object' || Array.isArray(options)) typeError('options are an object');
  const { after = 0, epoch = null, highWaterMark = 256, overflow = 'drop_oldest' } = options;
  if (after !== null && !isNumber(after, 0)) typeError('after is an integer of 0 or more, or null');
  if (epoch !== null && !isText(epoch)) typeError('epoch is a string');
  if (!isNumber(highWaterMark, 1)) typeError('highWaterMark is an integer of 1 or more');
  if (!OVERFLOWS.includes(overflow)) typeError(`overflow is one of ${OVERFLOWS.join(', ')}`);
  if (highWaterMark > limits.highWaterMark) throw new RpcError('LimitExceeded', 'highWaterMark is too high');
  return { after, epoch, highWaterMark, overflow };
}

/** One subscription: the iterator that the call returns. What waits for it is in `queue`, as {chunk, size}. */
class Subscription {
  queue = [];
  bell = new Bell();
  failure = null;
  over = false;
  snapshotDue = false;

  constructor(stream, { after, epoch, highWaterMark, overflow }) {
    Object.assign(this, { stream, overflow, most: overflow === 'latest' ? 1 : highWaterMark });
    const { next, kept, window } = stream;
    let last = after;
    if (stream.snapshot) last ??= 0; // STA-3
    if (last !== null && (last >= next || (epoch !== null && epoch !== stream.epoch))) last = 0; // NST-7, NST-11
    const replayed = kept.slice(Math.max(kept.length - window, 0));
    const start = last === null ? next : Math.max(last + 1, next - replayed.length);
    this.counted = overflow === 'latest' ? 0 : next; // what is replayed does not wait (NST-8)
    this.mark = { next: start, epoch: stream.epoch };
    if (stream.snapshot && start > last + 1) {
      this.snapshotDue = true;
      this.mark.next = next - 1;
    } else {
      this.queue = replayed.filter(({ chunk: [number] }) => number >= start);
      if (overflow === 'latest' && !stream.snapshot) this.queue.splice(0, this.queue.length - 1); // NST-13
    }
  }

  [Symbol.asyncIterator]() { return this; }

  /** Whether what waits is within the bounds, with one chunk more (NST-12). */
  fits(more) {
    const waiting = this.queue.filter(({ chunk: [number] }) => number >= this.counted).concat(more);
    const bytes = waiting.reduce((sum, { size }) => sum + size, 0);
    return waiting.length <= this.most && (waiting.length === 1 || bytes <= this.stream.limits.subscriptionBytes);
  }

  push(entry) {
    if (this.over || this.snapshotDue) return;
    const fits = this.fits(entry);
    this.queue.push(entry);
    if (!fits && this.stream.snapshot) { // STA-4
      this.snapshotDue = true;
      this.queue = [];
    } else if (!fits && this.overflow === 'error') { // NST-15
      this.queue = [];
      this.failure = new RpcError('StreamOverflow', 'the subscriber was too slow', { code: 'DF0029' });
    } else if (!fits) { // NST-13
      this.queue.splice(0, this.queue.length - this.most);
      while (!this.fits([])) this.queue.shift();
    }
    this.bell.ring();
  }

  async next() {
    for (;;) {
      if (this.over) return { done: true };
      if (this.mark) {
        const value = this.mark;
        this.mark = null;
        return { value };
      }
      if (this.failure) throw this.failure;
      if (this.snapshotDue) {
        this.snapshotDue = false;
        return { value: [this.stream.next - 1, this.stream.snapshot()] };
      }
      if (this.queue.length > 0) {
        const { chunk } = this.queue.shift();
        this.stream.bell.ring();
        return { value: chunk };
      }
      if (this.stream.ended && this.stream.failure) throw this.stream.failure;
      if (this.stream.ended) return { done: true };
      await this.bell.wait();
    }
  }

  async return() {
    this.over = true;
    this.bell.ring();
    this.stream.leave(this);
    return { done: true };
  }
}

/** What the producer holds. With a `snapshot` it is that of a shared state (section 23). */
export class Stream {
  epoch = newId();
  kept = []; // the last chunks, as {chunk: [number, value], size}
  subscriptions = new Set();
  bell = new Bell(); // there may be room
  ended = false;
  failure = null;
  signal = false; // the last subscriber has gone (NST-17)

  constructor(id, { limits, window, next = 1, snapshot = null, over = () => {} }) {
    Object.assign(this, { id, limits, window, next, snapshot, over });
  }

  write(value) {
    if (this.ended) throw closed();
    const entry = { chunk: [this.next, value], size: sizeOf(value) };
    const blocks = (each) => each.overflow === 'block' && !this.snapshot && !each.fits(entry);
    if ([...this.subscriptions].some(blocks)) throw wouldBlock(); // NST-14
    this.next++;
    this.kept.push(entry);
    this.kept.splice(0, this.kept.length - this.window);
    this.subscriptions.forEach((each) => each.push(entry));
  }

  async send(value) {
    for (;;) {
      try {
        return this.write(value);
      } catch (error) {
        if (error.name !== 'WouldBlock') throw error;
        await this.bell.wait();
      }
    }
  }

  close(failure = null) {
    if (this.ended) return;
    Object.assign(this, { ended: true, failure });
    this.subscriptions.forEach((each) => each.bell.ring());
    this.bell.ring();
    this.over();
  }

  status() { return { signal: this.signal, closed: this.ended }; }

  subscribe(options) {
    const made = new Subscription(this, options);
    this.subscriptions.add(made);
    return made;
  }

  leave(subscription) {
    if (!this.subscriptions.delete(subscription)) return;
    this.bell.ring();
    if (this.subscriptions.size === 0 && !this.ended) this.signal = true;
  }
}

// -------------------------------------------------------------------------------------------------- an upload

/** What a handler holds of an upload: `read` gives {value, refs} or {end: {error} or {}}. */
class Inbound {
  way = null; // 'stream' or 'calls' (UPL-6)
  source = null; // the stream
  queue = [];
  written = 0;
  taken = 0;
  ended = null; // {error} or {}
  outcome = null; // what the uploader is told: {error} or {}
  bell = new Bell();

  constructor(session, name, most) { Object.assign(this, { session, name, most, id: newId() }); }

  get credit() { return this.taken + this.most; } // UPL-8

  async read() {
    for (;;) {
      if (this.outcome) return { end: this.outcome };
      if (this.source) {
        const { value, refs, end } = await this.source.pull();
        if (!end) return { value, refs };
        return this.#finish(end.error ? { error: end.error } : {});
      }
      if (this.queue.length > 0) {
        this.taken++;
        const value = this.queue.shift();
        this.bell.ring();
        return { value, refs: [] };
      }
      if (this.ended) return this.#finish(this.ended);
      await this.bell.wait();
    }
  }

  #finish(outcome) {
    this.outcome ??= outcome;
    this.bell.ring();
    return { end: this.outcome };
  }

  async cancel() { // UPL-4
    this.queue = [];
    this.#finish({ error: closed() });
    await this.source?.dropped();
  }

  async #done() {
    while (!this.outcome) await this.bell.wait();
    if (this.outcome.error) throw this.outcome.error;
  }

  begin(way) {
    if (this.outcome || this.ended || (this.way ?? way) !== way || (way === 'stream' && this.way)) throw closed();
    this.way = way;
  }

  stream(chunks) { // UPL-2
    if (!(chunks instanceof RemoteStream)) typeError('chunks are a stream');
    this.begin('stream');
    this.source = chunks;
    this.bell.ring();
    return this.#done();
  }

  async write(seq, chunk) { // UPL-7, UPL-8
    this.begin('calls');
    if (!isNumber(seq, 1)) throw new RpcError('ProtocolError', 'a number is an integer of 1 or more');
    if (seq > this.credit) throw new RpcError('LimitExceeded', 'the number is above the credit');
    if (seq > this.written + 1) throw new RpcError('ProtocolError', 'a number was left out');
    if (seq > this.written) {
      this.written = seq;
      this.queue.push(chunk);
      this.bell.ring();
    }
    while (this.credit <= seq) {
      if (this.outcome) throw closed();
      await this.bell.wait();
    }
    return this.credit;
  }

  close() {
    this.begin('calls');
    this.ended = {};
    this.bell.ring();
    return this.#done();
  }

  fail(error) {
    this.begin('calls');
    const { name = 'Error', message = '', ...fields } = isText(error) ? { message: error } : error ?? {};
    this.ended = { error: new RpcError(name, message, fields) };
    this.bell.ring();
  }
}

// ----------------------------------------------------------------------------------------------------- events

/** Who listens to events of one name: the newest `most` of them (EVT-3). */
class Listener {
  queue = [];
  bell = new Bell();

  constructor(most) { this.most = most; }

  push(args) {
    this.queue.push(args);
    this.queue.splice(0, this.queue.length - this.most);
    this.bell.ring();
  }

  async take(n) {
    while (this.queue.length < n) await this.bell.wait();
    return this.queue.splice(0, n);
  }
}

// ----------------------------------------------------------------------------------------------------- the hub

export class Hub {
  #channels = new Map(); // name -> {name, window, retention, allow, streams, state}
  #inbounds = new Map();
  #listeners = new Map();
  sessions = new Set();

  constructor(limits) { this.limits = limits; }

  create(name, { window = 256, retention = 30, allow = null } = {}) {
    if (this.#channels.has(name)) {
      throw new RpcError('StreamChannelExists', 'there is a channel of that name', { code: 'DF0032' });
    }
    this.#channels.set(name, { name, window, retention, allow, streams: new Map(), state: null });
  }

  channel(name) { return this.#channels.get(name) ?? typeError('no channel of that name'); }

  ids(name) { return [...this.channel(name).streams.keys()]; }

  start(name, id = newId(), more = {}) {
    const { window, retention, streams } = this.channel(name);
    if (streams.get(id)?.ended === false) typeError('the stream has not ended');
    const forget = () => { if (streams.get(id) === made) streams.delete(id); };
    const over = () => (retention > 0 ? setTimeout(forget, retention * 1000).unref() : forget()); // NST-10
    const made = new Stream(id, { limits: this.limits, window, over, ...more });
    streams.set(id, made);
    return made;
  }

  /** Closes the channel (NST-10). */
  drop(name) {
    const { streams } = this.channel(name);
    this.#channels.delete(name);
    streams.forEach((stream) => stream.close());
    for (const inbound of this.#inbounds.values()) if (inbound.name === name) inbound.cancel();
  }

  inbound(session, name, most = 256) {
    const made = new Inbound(session, this.channel(name).name, most);
    this.#inbounds.set(made.id, made);
    return made;
  }

  listen(name, most = 256) {
    const made = new Listener(most);
    this.#listeners.set(name, [...(this.#listeners.get(name) ?? []), made]);
    return made;
  }

  /** One `emit` to each session; one that fails keeps it from no other (EVT-4). */
  broadcast(name, args) {
    let told = 0;
    for (const session of this.sessions) {
      try {
        session.emit(name, args);
        told++;
      } catch { /* it is behind, or gone */ }
    }
    return told;
  }

  clear() {
    [...this.#channels.keys()].forEach((name) => this.drop(name));
    this.#inbounds.clear();
    this.#listeners.clear();
  }

  // What a session may call ------------------------------------------------------------------------------------

  #granted(name, what) {
    const channel = this.#channels.get(name);
    if (!channel || (channel.allow && !channel.allow.includes(what))) throw unknown();
    return channel;
  }

  subscribe(name, id, options) {
    if (!isText(name) || !isText(id)) typeError('a name and an id are strings');
    const read = readOptions(options, this.limits);
    const stream = this.#granted(name, 'subscribe').streams.get(id);
    if (!stream) throw unknown(); // NST-4
    return stream.subscribe(read);
  }

  /** The upload of that id, for the session that it belongs to (UPL-1). */
  uploaded(session, id, name) {
    if (!isText(id) || (name !== undefined && !isText(name))) typeError('a name and an id are strings');
    const found = this.#inbounds.get(id);
    if (found?.session !== session || (name !== undefined && found.name !== name)) throw unknown();
    this.#granted(found.name, 'upload');
    return found;
  }

  mutate(name, version, patch) {
    if (!isText(name)) typeError('a name is a string');
    const { state, allow } = this.#granted(name, 'subscribe');
    if (!state) throw unknown();
    if (!state.writable || (allow && !allow.includes('mutate'))) { // STA-9
      throw new RpcError('PermissionError', 'the state may not be changed');
    }
    return state.mutate(version, patch);
  }

  emitted(name, args) { // EVT-1
    if (!isText(name)) typeError('the name of an event is a string');
    this.#listeners.get(name)?.forEach((listener) => listener.push(args));
  }
}
