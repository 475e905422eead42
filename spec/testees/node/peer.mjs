// A peer: calls in both directions, streams, functions within values, over the lines of wire.mjs.
// Own hellos are not implemented (HEL-1: "neither must"); the peer's is answered.

import { LineReader, Outbox, RpcError, ValueWriter, bytesOf, padded, parseLine, quote } from './wire.mjs';

export const LIMITS = { // LIM-1
  frame: 16 << 20, noise: 65536, depth: 128, digits: 1000, idBytes: 256, calls: 16384, callBytes: 256 << 20,
  callbacks: 65536, stockStreamBuffer: 64 << 20, sendMax: 64 << 20, finishMs: 1000, cleanupMs: 2000, drainMs: 2000,
};
const CREDIT = { n: 64, b: 262144 }; // CRD-1
const MOST_CHUNKS = 4096; // the largest window that is granted (CRD-5)
const BATCH = { values: 256, bytes: 32768 }; // BAT-2, and a size that leaves turns to others
const NAMED = 65536; // CBK-7: functions in one message
const QUESTIONS = new Set(['request', 'construct', 'get', 'set', 'callback']);
const ANSWERS = new Set(['response', 'stream-chunk', 'stream-end', 'stream-error']);
const TYPES = new Set([...QUESTIONS, ...ANSWERS, 'callback-release', 'stream-cancel', 'stream-ack']);

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
const isTexts = (value) => Array.isArray(value) && value.every((item) => typeof item === 'string');
const isCount = (value) => (typeof value === 'bigint' ? value >= 0n : Number.isSafeInteger(value) && value >= 0);
const isStream = (value) => typeof value === 'object' && typeof value?.[Symbol.asyncIterator] === 'function';
const objectOr = (value) => (isObject(value) ? value : {});
const listOr = (value) => (Array.isArray(value) ? value : []);
const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
const turn = () => new Promise((resolve) => { setImmediate(resolve); });

/** The map key of an id, which tells 1 from "1"; undefined for what is no id (MSG-2). */
function keyOf(id, limits) {
  if (typeof id === 'string') {
    return Buffer.byteLength(id) <= limits.idBytes && !/\p{Surrogate}/u.test(id) ? `text ${id}` : undefined;
  }
  if (typeof id !== 'bigint' && !Number.isSafeInteger(id)) return undefined;
  return String(id).replace('-', '').length <= limits.idBytes ? `integer ${id}` : undefined;
}

/** What makes a message malformed (CLA-3), or null. Its id is looked at elsewhere. */
function flawOf(message) {
  const { type, args } = message;
  if (['request', 'construct', 'callback'].includes(type)) {
    if (typeof message.method !== 'string') return `Invalid ${type}: missing method`;
    if (message.kwargs !== undefined && message.kwargs !== null && !isObject(message.kwargs)) {
      return `Invalid ${type}: kwargs is no object`;
    }
  }
  if (type === 'get' || type === 'set') {
    if (message.path === undefined) return `Invalid ${type} request: missing path`;
    if (!isTexts(message.path)) return `Invalid ${type} request: path is no list of strings`;
  }
  if (type === 'response' && !isObject(args)) return 'a response without args';
  if (type === 'callback-release') {
    const good = isObject(args) && Object.values(args).every((count) => isCount(count) && count > 0);
    if (!good) return 'a release of nothing';
  }
  if (type === 'stream-chunk' && isObject(args) && !('value' in args) && 'values' in args) {
    if (!Array.isArray(args.values) || args.values.length === 0) return 'a batch without values';
  }
  if (type === 'stream-ack' && !(isObject(args) && isCount(args.n) && isCount(args.b))) return 'an acknowledgement';
  return null;
}

// ---------------------------------------------------------------------------------------------------------- errors

const MISSING = [ // ERR-3
  [/^Method .* is not a function$|^Method path .* not found at .*$/s, 'MethodNotFound'],
  [/^.* is not a constructor function$|^Constructor path .* not found at .*$/s, 'MethodNotFound'],
  [/^No API implementation available$/, 'MethodNotFound'],
  [/^Property path .* not found at .*$/s, 'PropertyNotFound'],
];

/** The error that came (ERR-1, ERR-2). */
function readError(error) {
  if (typeof error === 'string') {
    return new RpcError(MISSING.find(([pattern]) => pattern.test(error))?.[1] ?? 'Error', error);
  }
  if (!isObject(error)) return new RpcError('Error', typeof error === 'bigint' ? `${error}` : JSON.stringify(error));
  const { name, message, stack, ...fields } = error;
  for (const issue of name === 'RPCValidationError' ? listOr(fields.issues) : []) { // ERR-7
    if (Array.isArray(issue?.path)) issue.path = issue.path.map((part) => (isObject(part) ? part.key : part));
  }
  return new RpcError(
    typeof name === 'string' && name ? name : 'Error', typeof message === 'string' ? message : '', fields);
}

/** An error as JSON. What of it cannot be sent is left out, one by one (ERR-4); at most `budget` characters. */
function errorText(error, writer, budget, causes = 8) {
  if (error instanceof Bare && error.message.length * 6 < budget) return quote(error.message);
  const name = typeof error?.name === 'string' && error.name ? error.name : 'Error';
  const message = typeof error?.message === 'string' ? error.message : String(error);
  const rows = [];
  const add = (key, text) => {
    if (text.length + key.length * 6 + 4 > budget) return;
    budget -= text.length + key.length * 6 + 4;
    rows.push(`${quote(key)}:${text}`);
  };
  add('name', quote(name));
  const before = rows.length;
  add('message', quote(message));
  if (rows.length === before) add('message', '""');
  for (const [key, value] of Object.entries(error?.fields ?? {})) {
    const hidden = key.startsWith('_') && key !== '__notes__';
    if (hidden || ['name', 'message', 'stack'].includes(key) || value === undefined) continue;
    try {
      if (!(value instanceof Error)) add(key, writer.write(value, 4, ['error', key]));
      else if (causes > 0) add(key, errorText(value, writer, budget, causes - 1));
    } catch { /* left out */ }
  }
  return `{${rows.join(',')}}`;
}

/** An error that is sent as a bare string (ERR-2). */
class Bare extends Error {}

// ---------------------------------------------------------------------------------------------- what is exposed

/** Names that may be called, read or built. A Map, so that no prototype is ever looked into (CALL-6). */
export class Namespace {
  constructor(members) { this.members = new Map(Object.entries(members)); }

  get(name) { return name === '' || name.startsWith('_') ? undefined : this.members.get(name); }
}

/** A function; `names` are its parameters, `?` after those that may be left out, `*` for any. */
export class Method {
  constructor(names, run) {
    this.any = names === '*';
    this.names = this.any ? [] : names.split(' ').filter(Boolean).map((name) => name.replace('?', ''));
    this.needed = this.any ? 0 : names.split(' ').filter((name) => name && !name.endsWith('?')).length;
    this.run = run;
  }

  /** The arguments in order (CALL-12, KWA-1). */
  bind(args, kwargs) {
    if (this.any) return args;
    const bound = [...args];
    for (const [name, value] of Object.entries(kwargs)) {
      const index = this.names.indexOf(name);
      if (index < args.length) throw new RpcError('TypeError', `no argument ${name}, or it is given twice`);
      bound[index] = value;
    }
    const missing = this.names.slice(0, this.needed).some((name, index) => !(index in bound));
    if (missing || args.length > this.names.length) throw new RpcError('TypeError', 'arguments that do not fit');
    return bound;
  }
}

export class Class extends Method {}

export class Property {
  constructor(value, writable = false) { Object.assign(this, { value, writable }); }
}

/** Walks to the last segment but one; `missing` says in which words something is not there (CALL-6). */
function walk(root, segments, missing) {
  let here = root;
  for (const segment of segments.slice(0, -1)) {
    here = here.get(segment);
    if (!(here instanceof Namespace)) throw new Bare(`${missing} path ${segments.join('.')} not found at ${segment}`);
  }
  return here.get(segments[segments.length - 1]);
}

/** The property that a path leads to, or into; CALL-10: data and nothing else. */
function property(root, path) {
  const fail = (segment) => { throw new Bare(`Property path ${path.join('.')} not found at ${segment}`); };
  let here = root;
  let found;
  let whole = true;
  for (const segment of path) {
    if (found) {
      whole = false;
      const own = isObject(here) && !segment.startsWith('_') && segment !== '' && Object.hasOwn(here, segment);
      here = own ? here[segment] : fail(segment);
    } else {
      here = here instanceof Namespace ? here.get(segment) : fail(segment);
      if (here instanceof Property) [found, here] = [here, here.value];
      else if (!(here instanceof Namespace)) fail(segment);
    }
  }
  if (!found) fail(path.at(-1) ?? '');
  return { found, whole, value: here };
}

// ---------------------------------------------------------------------------- functions and streams of the peer

/** What is held of the peer for as long as somebody here holds it: deterministic, since JavaScript's collector is not. */
class Held {
  holders = 0;

  hold() { this.holders++; return this; }

  release() { if (--this.holders === 0) this.dropped(); }
}

/** A function of the peer (section 13). */
class RemoteFunction extends Held {
  named = 0; // messages that named it since it was last given back (CBK-6)

  constructor(peer, id) { super(); Object.assign(this, { peer, id }); }

  /** The call, or null where functions are not answered (CBK-4). */
  call(args) {
    if (!this.peer.agreed.has('callback')) return this.notify(args);
    return this.peer.call('callback', this.id, args);
  }

  notify(args) {
    this.peer.post(this.peer.compose('callback', undefined, { method: this.id, args }));
    return null;
  }

  dropped() {
    this.peer.theirs.delete(this.id);
    this.peer.release([[this.id, this.named]]);
  }
}

/** A stream of the peer: the answer to a call, or found within a value. */
class RemoteStream extends Held {
  constructor(peer, call) {
    super();
    Object.assign(this, { peer, call, queue: [], waiting: [], unread: 0 });
    this.end = null; // {result} or {error}
    this.credit = call.agreed.has('credit') ? { ...CREDIT } : null; // what the producer has left
    this.taken = { n: 0, b: 0 }; // what was taken and not granted again
    this.window = CREDIT.n;
    this.lent = []; // what the value named that was given to a `for await` last
  }

  add(values, size) {
    values.forEach((entry, index) => this.queue.push({ ...entry, bytes: index === values.length - 1 ? size : 0 }));
    this.unread += size;
    this.#serve();
  }

  finish(end) {
    this.end ??= end;
    this.#serve();
  }

  /** The next `{value, refs}`, or `{end}`. */
  pull() {
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      this.#serve();
    });
  }

  async next() {
    this.#giveBackLent();
    const { value, refs, end } = await this.pull();
    if (end?.error) throw end.error;
    this.lent = (end ?? { refs }).refs;
    return end ? { done: true, value: end.result } : { done: false, value };
  }

  async return() {
    this.#giveBackLent();
    this.dropped();
    return { done: true };
  }

  #giveBackLent() { this.lent.splice(0).forEach((ref) => ref.release()); }

  [Symbol.asyncIterator]() { return this; }

  /** No more of it is wanted: resolves when the cancel is complete. */
  dropped() {
    for (const { refs } of this.queue.splice(0)) refs.forEach((ref) => ref.release());
    this.unread = 0;
    return this.peer.giveUp(this.call, new RpcError('CallCancelled', 'the stream was given up'));
  }

  #serve() { // STR-9: what came before the end is handed out before it
    while (this.waiting.length && (this.queue.length || this.end)) {
      const entry = this.queue.shift();
      this.waiting.shift()(entry ?? { end: this.end });
      if (entry) this.#grant(entry.bytes);
    }
  }

  /** CRD-5: as values are taken, half a window at a time; so what is left is always above zero then (CRD-8). */
  #grant(bytes) {
    this.unread -= bytes;
    if (!this.credit || this.call.state !== 'open') return;
    const { taken, credit, queue } = this;
    taken.n += 1;
    taken.b += bytes;
    if (taken.n < this.window / 2 && taken.b < CREDIT.b / 2) return;
    // The window of bytes stays as it is; that of chunks becomes as many as would fill it, so small ones flow.
    const fitting = Math.floor((CREDIT.b * taken.n) / Math.max(taken.b, 1));
    const wanted = Math.min(Math.max(fitting, CREDIT.n), MOST_CHUNKS);
    const grant = { n: Math.max(wanted - credit.n - queue.length, 0), b: taken.b };
    credit.n += grant.n;
    credit.b += grant.b;
    this.window = credit.n + queue.length;
    this.taken = { n: 0, b: 0 };
    this.peer.ack(this.call, grant);
  }
}

// ------------------------------------------------------------------------------------------------------- the peer

/** `finished` resolves with why the channel ended: null at the end of the input, else an RpcError. */
export class Peer {
  counted = 0;

  constructor({ input, output, root, features, limits, onNoise }) {
    Object.assign(this, { output, root, features, onNoise });
    this.limits = { ...LIMITS, ...limits };
    this.hello = false; // the peer's hello came: it is no stock peer any more
    this.agreed = new Set(); // features in force (HEL-3)
    this.incoming = new Map(); // calls of the peer, and own streams within values
    this.load = { calls: 0, bytes: 0 }; // of those calls alone
    this.outgoing = new Map(); // own calls, and the peer's streams within values
    this.abandoned = new Set(); // streams of stock peers that were cancelled: what still comes is dropped (CAN-2)
    this.own = new Map(); // own functions that the peer may call, by id
    this.ownIds = new Map();
    this.theirs = new Map(); // the peer's functions, by id
    this.serial = 0;
    this.finished = new Promise((resolve) => { this.resolve = resolve; });
    this.outbox = new Outbox(output, this.limits.sendMax, () => {
      queueMicrotask(() => this.close(new RpcError('LimitExceeded', 'the peer does not read')));
    });
    const reader = new LineReader(this.limits, (line, size) => this.#line(line, size), (line) => onNoise(line));
    const guarded = (step) => {
      if (this.closing) return;
      try {
        step();
      } catch (error) {
        if (!(error instanceof RpcError)) throw error;
        this.close(error);
      }
    };
    input.on('data', (bytes) => guarded(() => reader.push(bytes)));
    input.on('end', () => guarded(() => { reader.end(); this.close(null); }));
    input.on('error', () => guarded(() => this.close(null)));
    output.on('error', () => { // CLS-6: what has come is read first
      this.outbox.abandon();
      setTimeout(() => guarded(() => this.close(null)), 50);
    });
  }

  // -------------------------------------------------------------------------------------------------- writing

  /** The line of a message (CLA-1); refuses what cannot be sent, before anything has changed. */
  compose(type, id, { method = '', args = '{}', path, value, kwargs, meta, body } = {}) {
    const fresh = []; // functions and streams that the message names
    const writer = new ValueWriter({
      limits: this.limits, stock: !this.hello, name: (thing, at) => this.#name(thing, at, type, fresh),
    });
    const row = (key, text) => `${quote(key)}:${text}`;
    const list = Array.isArray(args) ? writer.write(args, 2, ['args']) : body ? body(writer) : args;
    const rest = [];
    if (kwargs) rest.push(row('kwargs', writer.write(kwargs, 2, ['kwargs'])));
    if (meta) rest.push(row('meta', writer.write(meta, 2, ['meta'])));
    if (path) rest.push(row('path', writer.write(path, 2, ['path'])));
    if (type === 'set') rest.push(row('value', writer.write(value, 2, ['value'])));
    writer.check();
    const names = (kind) => fresh.filter((item) => item.kind === kind).map((item) => quote(item.id)).join(',');
    const [callbacks, streams] = [names('function'), names('stream')];
    const line = padded(`{${[
      ...(id === undefined ? [] : [row('id', typeof id === 'string' ? quote(id) : String(id))]),
      row('method', quote(method)), row('args', list), row('type', quote(type)),
      ...(callbacks ? [row('callbackIds', `[${callbacks}]`)] : []),
      ...(streams ? [row('streamIds', `[${streams}]`)] : []),
      ...rest, row('version', '"json"'),
    ].join(',')}}`);
    if (line.length > this.limits.frame) throw new RpcError('LimitExceeded', 'the message is too long'); // FRM-6
    if (this.own.size + fresh.filter((item) => item.kind === 'function' && item.isNew).length > this.limits.callbacks) {
      throw new RpcError('LimitExceeded', 'the peer holds too many functions'); // CBK-7
    }
    return { line, fresh, deepest: writer.deepest };
  }

  /** The placeholder of a function or stream, or undefined where none may stand (CBK-1, ARG-1). */
  #name(thing, path, type, fresh) {
    const known = fresh.find((item) => item.thing === thing);
    if (['error', 'meta', 'path'].includes(path[0])) return undefined;
    if (isStream(thing)) {
      if (!this.agreed.has('stream-arguments') || known) return undefined;
      let id;
      do id = `__stream__${++this.serial}`; while (this.incoming.has(keyOf(id, this.limits)));
      fresh.push({ kind: 'stream', id, thing });
      return id;
    }
    const stock = ['request', 'construct'].includes(type) && path[0] === 'args' && path.length === 2;
    if (!stock && !this.agreed.has('callback')) return undefined;
    const id = known?.id ?? this.ownIds.get(thing) ?? `node-${++this.serial}`;
    if (!known) fresh.push({ kind: 'function', id, thing, isNew: !this.ownIds.has(thing) });
    return `__callback__${id}`;
  }

  /** What a message that is about to be queued names: kept, and its streams begin once it has been written. */
  #commit({ fresh }) {
    const begin = [];
    for (const { kind, id, thing } of fresh) {
      thing.hold?.();
      if (kind === 'stream') {
        const call = this.#enter({ id, key: keyOf(id, this.limits), size: 0, inner: true });
        begin.push(() => this.#produce(call, thing[Symbol.asyncIterator]()).then(() => thing.release?.()));
      } else {
        const entry = this.own.get(id) ?? { thing, named: 0 };
        if (this.own.has(id)) thing.release?.(); // held once
        entry.named++;
        this.own.set(id, entry);
        this.ownIds.set(thing, id);
      }
    }
    return begin;
  }

  post(message) {
    if (this.silent) return;
    const begin = this.#commit(message);
    this.outbox.push(message.line);
    begin.forEach((step) => step());
  }

  #postStream(call, message) {
    if (this.silent) return;
    const begin = this.#commit(message);
    call.lane.push(message.line, {
      keep: message.fresh.length > 0, sent: () => begin.forEach((step) => step()), // ARG-2, CLS-4
    });
  }

  /** Functions that are given back, as [id, count] (CBK-6). */
  release(rows) {
    if (!this.agreed.has('callback') || rows.length === 0) return;
    this.post(this.compose('callback-release', undefined, { body: () => `{${
      rows.map(([id, count]) => `${quote(id)}:${count}`).join(',')}}` }));
  }

  /** An own function is no longer to be called (CBK-5), or the peer has given it back. */
  forgetOwn(id) {
    const entry = this.own.get(id);
    if (!entry) return;
    this.own.delete(id);
    this.ownIds.delete(entry.thing);
    entry.thing.release?.();
  }

  ack(call, { n, b }) {
    this.post(this.compose('stream-ack', call.id, { body: () => `{"n":${n},"b":${b}}` }));
  }

  #cancelTheirs(call) {
    this.post(this.compose('stream-cancel', call.id));
  }

  // -------------------------------------------------------------------------------------------------- reading

  #line(bytes, size) {
    const parsed = bytes.subarray(0, 8).toString() === '{"json":' ? null : parseLine(bytes, this.limits); // CLA-6
    if (!isObject(parsed?.message) || !TYPES.has(parsed.message.type)) {
      return this.onNoise(bytes.subarray(0, this.limits.noise)); // FRM-4, FRM-7
    }
    if (this.closing) return undefined;
    const { message } = parsed;
    const { type } = message;
    const key = keyOf(message.id, this.limits);
    const flaw = parsed.flaw ?? ('id' in message && key === undefined ? 'an id that is none' : flawOf(message));
    const names = this.#names(message);
    if (QUESTIONS.has(type)) return this.#question(message, key, flaw, names, size);
    if (ANSWERS.has(type)) return this.#answer(message, key, flaw, names, size);
    if (flaw || (key === undefined && type !== 'callback-release')) return this.#count();
    if (type === 'callback-release') return this.#released(message.args);
    const call = this.incoming.get(key);
    if (type === 'stream-cancel') return call && this.#cancel(call); // CAN-5
    if (call?.agreed.has('credit')) this.#credited(call, message.args); // CRD-6
    return undefined;
  }

  #count() { this.counted++; }

  /** The functions and streams that a message names, where that means something. */
  #names({ type, callbackIds, streamIds }) {
    const values = QUESTIONS.has(type) ? type !== 'get' : ANSWERS.has(type);
    const functions = values && isTexts(callbackIds)
      && (this.agreed.has('callback') || type === 'request' || type === 'construct');
    const streams = values && isTexts(streamIds) && this.agreed.has('stream-arguments');
    return { functions: functions ? [...new Set(callbackIds)] : [], streams: streams ? streamIds : [] };
  }

  /** Takes over what is named, or throws; then all of it has been given back. */
  #take({ functions, streams }) {
    const fits = (id) => Buffer.byteLength(id) <= this.limits.idBytes;
    const usable = (id) => id.startsWith('__stream__') && !this.outgoing.has(keyOf(id, this.limits));
    const fail = (name) => {
      this.#giveBack({ functions, streams });
      throw new RpcError(name, 'functions or streams that cannot be taken');
    };
    if (![...functions, ...streams].every(fits) || !streams.every(usable)) fail('ProtocolError'); // CBK-2, ARG-1
    if (new Set(streams).size < streams.length) fail('ProtocolError');
    const newOnes = functions.filter((id) => !this.theirs.has(id)).length;
    const open = streams.length && [...this.outgoing.values()].filter((call) => call.inner).length;
    if (functions.length > NAMED || this.theirs.size + newOnes > this.limits.callbacks) fail('LimitExceeded'); // CBK-7
    if (streams.length > NAMED || open + streams.length > this.limits.calls) fail('LimitExceeded'); // ARG-5
    const things = new Map();
    for (const id of functions) {
      if (!this.theirs.has(id)) this.theirs.set(id, new RemoteFunction(this, id));
      this.theirs.get(id).named++;
      things.set(`__callback__${id}`, this.theirs.get(id).hold());
    }
    for (const id of streams) {
      const call = { id, key: keyOf(id, this.limits), agreed: this.agreed, inner: true, state: 'open' };
      call.stream = new RemoteStream(this, call);
      this.outgoing.set(call.key, call);
      things.set(id, call.stream.hold());
    }
    return things;
  }

  #giveBack({ functions, streams }) {
    const back = [];
    for (const id of functions) {
      if (this.theirs.has(id)) this.theirs.get(id).named++; // told once it is let go of
      else back.push([id, 1]);
    }
    this.release(back);
    for (const id of new Set(streams)) { // ARG-3: a stream that is not read is cancelled
      const key = keyOf(id, this.limits);
      if (key === undefined || !id.startsWith('__stream__') || this.outgoing.has(key)) continue;
      const call = { id, key, agreed: this.agreed, inner: true, state: 'open' };
      this.outgoing.set(key, call);
      this.giveUp(call);
    }
  }

  /** The values of a message with functions, streams and bytes in their places; `refs` are those that it holds. */
  #revive(things, ...values) {
    const found = (value, depth, into) => {
      if (typeof value === 'string') {
        const thing = things.get(value);
        const here = depth === 1 || this.agreed.has('callback') || !(thing instanceof RemoteFunction); // CBK-1
        if (thing && here) into.push(thing.hold());
        return here ? thing ?? value : value;
      }
      if (typeof value !== 'object' || value === null) return value;
      const bytes = bytesOf(value);
      if (bytes) return bytes;
      for (const key of Object.keys(value)) value[key] = found(value[key], depth + 1, into);
      return value;
    };
    const entries = values.map((value) => {
      const refs = [];
      return { value: found(value, 0, refs), refs };
    });
    for (const ref of things.values()) ref.release(); // what stands nowhere is let go of here
    return entries;
  }

  // ---------------------------------------------------------------------------------------- the callee's half

  #enter({ id, key, size, inner = false }) {
    const call = {
      id, key, size, inner, agreed: this.agreed, abort: new AbortController(), cancelled: false, iterator: null,
      state: inner ? 'streaming' : 'running', refs: [], pending: [], wake: () => {},
    };
    if (call.agreed.has('credit')) call.credit = { ...CREDIT };
    this.incoming.set(key ?? call, call);
    if (!inner) this.#weigh(1, size);
    return call;
  }

  #weigh(calls, bytes) {
    this.load.calls += calls;
    this.load.bytes += bytes;
  }

  #leave(call) {
    this.incoming.delete(call.key ?? call);
    if (!call.inner) this.#weigh(-1, -call.size);
    call.refs.splice(0).forEach((ref) => ref.release());
    if (this.incoming.size === 0) this.idle?.();
  }

  #question(message, key, flaw, names, size) {
    const { type, id } = message;
    const asked = type !== 'callback' || (this.agreed.has('callback') && (key !== undefined || flaw !== null));
    const refuse = (error, counts) => {
      if (counts) this.#count();
      if (asked && !(type === 'callback' && key === undefined)) this.#fail(key === undefined ? undefined : id, error);
    };
    if (asked && this.incoming.has(key)) { // MSG-3: any answer would be taken for the running call's
      this.#giveBack(names);
      return this.#count();
    }
    if (flaw) {
      refuse(new Bare(flaw), true);
      return this.#giveBack(names);
    }
    if (type === 'request' && message.method === 'kkrpc.hello') return this.#hello(message, key);
    if (this.load.calls >= this.limits.calls || this.load.bytes + size > this.limits.callBytes) { // CALL-7
      refuse(new RpcError('LimitExceeded', 'too many calls'), true);
      return this.#giveBack(names);
    }
    let things;
    try {
      things = this.#take(names);
    } catch (error) {
      return refuse(error, false);
    }
    const named = objectOr(message.kwargs); // as a whole neither this nor the metadata is a value (VAL-4)
    const parts = this.#revive(things, listOr(message.args), message.value ?? null, [Object.values(named)]);
    const [args, value, [kwargs]] = parts.map((part) => part.value);
    const meta = objectOr(message.meta);
    for (const name of Object.keys(meta)) meta[name] = this.#revive(new Map(), meta[name])[0].value; // META-1
    const call = this.#enter({ id, key: asked ? key : undefined, size });
    call.refs = parts.flatMap((part) => part.refs);
    Object.assign(call, { meta, type, asked });
    call.kwargs = Object.fromEntries(Object.keys(named).map((name, index) => [name, kwargs[index]]));
    return this.#run(call, () => this.#begin(call, message, args, value));
  }

  #begin(call, { type, method, path }, args, value) {
    if (type === 'get') return property(this.root, path).value;
    if (type === 'set') {
      const { found, whole } = property(this.root, path);
      if (!whole || !found.writable) throw new RpcError('PermissionError', `${path.join('.')} may not be set`);
      if (call.refs.length > 0) throw new RpcError('TypeError', 'a property holds data alone');
      found.value = value;
      return true;
    }
    if (type === 'callback') {
      const entry = this.own.get(method);
      if (entry) return this.#callOwn(call, entry.thing, args);
      const passed = /^node-\d{1,15}$/.test(method) && Number(method.slice(5)) <= this.serial;
      if (!call.asked && !passed) this.#count(); // CBK-5
      throw new RpcError('CallbackReleased', 'the function was released, or never passed');
    }
    const segments = method.split('.');
    const build = type === 'construct';
    const found = walk(this.root, segments, build ? 'Constructor' : 'Method');
    if (!(found instanceof Method) || found instanceof Class !== build) {
      throw new Bare(build ? `${method} is not a constructor function` : `Method ${method} is not a function`);
    }
    return found.run(call, ...found.bind(args, call.kwargs));
  }

  async #callOwn(call, thing, args) {
    if (Object.keys(call.kwargs).length > 0) throw new RpcError('TypeError', 'no keyword arguments are taken');
    if (typeof thing === 'function') return thing(...args);
    const outcome = await thing.call(args)?.answer; // a function of the peer's that was sent back to it
    call.refs.push(...outcome?.refs ?? []);
    return outcome?.stream ?? outcome?.result;
  }

  async #run(call, begin) {
    let result;
    let failure = null;
    try {
      result = await begin(); // runs up to its first wait at once: handlers begin in order (CALL-2)
    } catch (error) {
      failure = { error };
    }
    try {
      const stream = failure === null && isStream(result);
      if (stream && (call.cancelled || !call.asked || call.key === undefined || call.type === 'get')) {
        result = await result.return(); // CAN-7, MSG-5: nobody will read it
        failure = { error: new RpcError('ProtocolError', 'a stream needs an id') };
      }
      if (call.cancelled && failure?.error !== call.abort.signal.reason && !(stream || failure === null)) {
        if (call.asked) this.#fail(call.id, failure.error);
      } else if (call.cancelled) {
        if (call.asked) this.#fail(call.id, call.abort.signal.reason);
      } else if (failure) {
        if (call.asked) this.#fail(call.id, failure.error);
      } else if (stream) {
        this.post(this.compose('response', call.id, { body: () => '{"result":{"__stream":true}}' }));
        await this.#produce(call, result);
      } else if (call.asked) this.#respond(call.id, result);
    } catch (error) {
      if (call.asked) this.#fail(call.id, error);
    }
    this.#leave(call);
  }

  #respond(id, result) {
    this.post(this.compose('response', id, { body: (writer) => {
      if (result === undefined) return '{}'; // CALL-3
      if (isObject(result) && result.__stream === true) writer.refuse(result, ['result']); // CLA-4
      return `{"result":${writer.write(result, 3, ['result'])}}`;
    } }));
  }

  #fail(id, error) { this.post(this.#composeError('response', id, error)); }

  #composeError(type, id, error) {
    const budget = this.limits.frame - 2048; // room for what stands around it, the id included
    return this.compose(type, id, { body: (writer) => `{"error":${errorText(error, writer, budget)}}` });
  }

  /** Sends what an iterator gives (section 7): as credit, room and turns allow. */
  async #produce(call, iterator) {
    Object.assign(call, { iterator, lane: this.outbox.lane(), state: 'streaming' });
    call.lane.onRoom = () => call.wake();
    let failure = null;
    let step;
    try {
      for (let steps = 1; await this.#mayProduce(call); steps++) {
        step = await iterator.next();
        if (call.cancelled || step.done) break;
        await this.#chunk(call, step.value);
        if (steps % 64 === 0) { // STR-10: others have their turn although this one never waits
          this.busy = (this.busy ?? 0) + 1;
          await turn();
          this.busy--;
        }
      }
    } catch (error) {
      failure = error;
    }
    try {
      await iterator.return(); // cleanup; nothing where it is done
    } catch (error) {
      failure ??= error;
    }
    if (call.cancelled && failure?.name === 'CallCancelled') failure = null;
    this.#finish(call, failure, step);
    if (call.inner) this.#leave(call);
  }

  #finish(call, failure, step) {
    if (call.cancelled && !call.agreed.has('cancel')) return; // CAN-2
    if (!call.cancelled) this.#flush(call);
    try {
      if (failure) throw failure;
      const result = call.agreed.has('result') && !call.cancelled ? step.value : undefined; // RES-1
      this.#postStream(call, this.compose('stream-end', call.id, { body: (writer) => {
        if (call.cancelled) return '{"cancelled":true}';
        return result === undefined ? '{}' : `{"result":${writer.write(result, 3, ['result'])}}`;
      } }));
    } catch (error) {
      this.#postStream(call, this.#composeError('stream-error', call.id, error)); // STR-4, RES-2
    }
  }

  /** Waits for credit (CRD-3) and room to send one chunk more; false once the stream is cancelled. */
  async #mayProduce(call) {
    const { credit, lane } = call;
    for (; !call.cancelled; await new Promise((resolve) => { call.wake = resolve; })) {
      if (!credit || (credit.n > call.pending.length && credit.b > 0)) {
        if (lane.hasRoom) return true;
      } else this.#flush(call);
    }
    return false;
  }

  /** One value: alone, or gathered with those that are ready in the same turn of the event loop (BAT-3). */
  async #chunk(call, value) {
    let text;
    const body = (writer) => `{"value":${text = writer.write(value, 3, ['value'])}}`;
    const message = this.compose('stream-chunk', call.id, { body });
    const alone = !call.agreed.has('batch') || message.fresh.length > 0 || message.deepest >= this.limits.depth;
    if (alone || text.length > BATCH.bytes) {
      this.#flush(call);
      if (await this.#mayProduce(call)) this.#sendChunk(call, message, 1);
      return;
    }
    if (call.pending.length === 0) {
      call.pendingBytes = 0;
      setImmediate(() => this.#flush(call));
    }
    call.pending.push(text);
    call.pendingBytes += text.length;
    if (call.pending.length >= BATCH.values || call.pendingBytes > BATCH.bytes) this.#flush(call);
  }

  #flush(call) {
    const texts = call.pending.splice(0);
    if (texts.length === 0) return;
    const args = texts.length === 1 ? `{"value":${texts[0]}}` : `{"values":[${texts.join(',')}]}`; // BAT-1
    this.#sendChunk(call, this.compose('stream-chunk', call.id, { args }), texts.length);
  }

  #sendChunk(call, message, count) {
    if (call.credit) {
      call.credit.n -= count;
      call.credit.b -= message.line.length; // CRD-7
    }
    this.#postStream(call, message);
  }

  #cancel(call) {
    if (call.cancelled) return; // CAN-7
    call.cancelled = true;
    call.pending = [];
    call.lane?.drop(); // CAN-1
    call.abort.abort(new RpcError('CallCancelled', 'the call was cancelled'));
    call.iterator?.return().catch(() => {}); // #produce waits for it, too, and sees what it raised
    call.wake();
  }

  /** Cancels all that runs for the peer but one call, and waits until it is gone. */
  async cancelAll(but, ms) {
    for (const call of this.incoming.values()) if (call !== but) this.#cancel(call);
    const end = Date.now() + ms;
    for (await turn(); this.incoming.size > (but ? 1 : 0) && Date.now() < end;) await sleep(2);
  }

  #credited(call, { n, b }) {
    if (call.state === 'running') return this.#count(); // CRD-6
    call.credit.n += Number(n);
    call.credit.b += Number(b);
    return call.wake();
  }

  #released(counts) {
    for (const [id, count] of Object.entries(counts)) {
      const entry = this.own.get(id);
      if (!entry) continue;
      entry.named -= Number(count);
      if (entry.named < 0) this.#count(); // CBK-6
      if (entry.named <= 0) this.forgetOwn(id);
    }
  }

  #hello({ id, args }, key) {
    const [offer] = listOr(args);
    const good = listOr(args).length === 1 && isObject(offer) && offer.protocol === 1 && Array.isArray(offer.features);
    const answerId = key === undefined ? undefined : id;
    if (!good) { // HEL-4
      this.#count();
      return this.#fail(answerId, new RpcError('ProtocolError', 'no hello of version 1'));
    }
    this.#respond(answerId, { protocol: 1, features: this.features });
    if (!this.hello) this.agreed = new Set(this.features.filter((name) => offer.features.includes(name))); // HEL-3
    this.hello = true;
    return undefined;
  }

  // ---------------------------------------------------------------------------------------- the caller's half

  /** Calls the peer: `{answer}`, which becomes `{result, refs}` or `{stream}`. Fails at once if it cannot be sent. */
  call(type, method, args, { kwargs, meta } = {}) {
    if (this.closing) throw new RpcError('ChannelClosed', 'the channel is closed');
    if (kwargs && Object.keys(kwargs).length === 0) kwargs = undefined;
    if (kwargs && !this.agreed.has('kwargs')) { // KWA-2
      throw new RpcError('NotSerializable', 'keyword arguments, toward a peer that does not know them');
    }
    const id = `node:${++this.serial}`;
    const said = {
      request: { method, args, kwargs }, construct: { method, args, kwargs }, callback: { method, args },
      get: { path: method.split('.') }, set: { path: method.split('.'), value: args[0] },
    }[type];
    if (['request', 'construct'].includes(type) && this.agreed.has('metadata')) said.meta = meta; // META-2
    const call = { id, key: `text ${id}`, agreed: this.agreed, inner: false, state: 'waiting', type };
    call.answer = new Promise((resolve, reject) => Object.assign(call, { resolve, reject }));
    call.answer.catch(() => {});
    const message = this.compose(type, id, said);
    this.outgoing.set(call.key, call);
    this.post(message);
    return call;
  }

  #over(call, abandon = false) {
    call.state = 'over';
    this.outgoing.delete(call.key);
    if (abandon) this.abandoned.add(call.key);
    call.cancelAnswered?.();
  }

  /** Gives up a call or stream; resolves when that is complete (CAN-1, CAN-3, CAN-6). */
  giveUp(call, error = new RpcError('CallCancelled', 'given up')) {
    const agreed = call.agreed.has('cancel');
    if (call.state === 'waiting') call.reject(error);
    else if (call.state === 'open') call.stream?.finish({ error });
    else return call.complete ?? Promise.resolve();
    if (call.state === 'waiting' && !agreed) {
      call.state = 'given up';
      return Promise.resolve();
    }
    this.#cancelTheirs(call);
    if (!agreed) {
      this.#over(call, true);
      return Promise.resolve();
    }
    call.state = 'cancelling';
    call.complete = new Promise((resolve) => { call.cancelAnswered = resolve; });
    return call.complete;
  }

  #answer(message, key, flaw, names, size) {
    const { type } = message;
    const args = objectOr(message.args);
    const call = this.outgoing.get(key);
    const refuse = () => {
      this.#count();
      this.#giveBack(names);
    };
    if (!call) {
      if (flaw || !this.abandoned.has(key)) return refuse(); // MSG-6
      if (type === 'stream-end' || type === 'stream-error') this.abandoned.delete(key);
      return this.#giveBack(names); // CAN-2
    }
    const { state } = call;
    const opening = type === 'response' && !args.error && isObject(args.result) && args.result.__stream === true;
    if (flaw) return this.#malformed(call, type, names);
    if (state === 'open') {
      if (type === 'response') return refuse();
      if (type === 'stream-chunk') return this.#chunkCame(call, args, names, size);
      return this.#ended(call, type, args, names);
    }
    if (state === 'cancelling') {
      if (call.inner && type === 'response') return refuse(); // ARG-3
      this.#giveBack(names);
      if (!opening && type !== 'stream-chunk') this.#over(call);
      return undefined;
    }
    if (type !== 'response') return refuse(); // STR-6
    if (state === 'given up') {
      this.#giveBack(names);
      if (opening) this.#cancelTheirs(call); // CAN-6
      return this.#over(call, opening);
    }
    return this.#answered(call, args, opening, names);
  }

  #malformed(call, type, names) { // MSG-4
    this.#count();
    this.#giveBack(names);
    const last = type !== 'stream-chunk';
    const error = new RpcError('ProtocolError', 'the peer sent a malformed message');
    if (call.state === 'waiting') call.reject(error);
    if (call.state === 'open') call.stream?.finish({ error });
    if (last) {
      if (call.state === 'waiting' || call.state === 'open') this.#cancelTheirs(call);
      this.#over(call);
    } else if (call.state !== 'cancelling') this.giveUp(call, error);
  }

  #answered(call, args, opening, names) {
    if (args.error) { // CLA-5
      this.#over(call);
      this.#giveBack(names);
      return call.reject(readError(args.error));
    }
    if (opening && !['get', 'set', 'construct'].includes(call.type)) {
      call.state = 'open';
      call.stream = new RemoteStream(this, call);
      this.#giveBack(names);
      return call.resolve({ stream: call.stream.hold() });
    }
    this.#over(call);
    try {
      const [{ value, refs }] = this.#revive(this.#take(names), args.result ?? null);
      return call.resolve({ result: value, refs });
    } catch (error) {
      return call.reject(error);
    }
  }

  #ended(call, type, args, names) {
    let end;
    try {
      if (type === 'stream-error') throw readError(args.error || 'Stream error'); // ERR-2
      const [{ value, refs }] = this.#revive(this.#take(names), args.result ?? null);
      end = { result: value, refs };
      names = { functions: [], streams: [] };
    } catch (error) {
      end = { error };
    }
    if (type === 'stream-error') this.#giveBack(names);
    this.#over(call);
    call.stream?.finish(end);
  }

  #chunkCame(call, args, names, size) {
    const { stream } = call;
    const values = 'value' in args ? [args.value] : args.values ?? [null];
    const stop = (error) => this.giveUp(call, error);
    if (stream.credit) {
      if (stream.credit.n < values.length || stream.credit.b <= 0) { // CRD-4
        this.#count();
        this.#giveBack(names);
        return stop(new RpcError('ProtocolError', 'a chunk without credit'));
      }
      stream.credit.n -= values.length;
      stream.credit.b -= size;
    } else if (stream.unread + size > this.limits.stockStreamBuffer) { // STR-12
      this.#giveBack(names);
      return stop(new RpcError('LimitExceeded', 'too much lies unread'));
    }
    if (call.inner) { // ARG-5
      const inner = [...this.outgoing.values()].filter((other) => other.inner && other.stream);
      if (inner.reduce((sum, other) => sum + other.stream.unread, size) > this.limits.callBytes) {
        this.#giveBack(names);
        return stop(new RpcError('LimitExceeded', 'too much lies unread'));
      }
    }
    try {
      return stream.add(this.#revive(this.#take(names), ...values), size);
    } catch (error) {
      return stop(error);
    }
  }

  // -------------------------------------------------------------------------------------------------- closing

  /** Ends the channel (CLS-1 to CLS-3): `reason` is null at the end of the input, else a violation. */
  async close(reason) {
    if (this.closing) return;
    this.closing = true;
    const { finishMs, cleanupMs, drainMs } = this.limits;
    const error = reason ?? new RpcError('ChannelClosed', 'the channel is closed');
    for (const call of [...this.outgoing.values()]) {
      if (call.state === 'waiting') call.reject(error);
      call.stream?.finish({ error });
      this.#over(call);
    }
    if (reason === null && !this.outbox.broken) {
      const idle = new Promise((resolve) => { this.idle = resolve; });
      if (this.incoming.size > 0) await Promise.race([idle, sleep(finishMs)]); // CLS-2
    }
    this.silent = true;
    await this.cancelAll(null, cleanupMs);
    await Promise.race([this.outbox.flushed(), sleep(drainMs)]);
    this.resolve(reason);
  }
}
