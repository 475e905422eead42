// A peer: calls in both directions, streams, functions and streams within values. It sends no hello of its own.

import { LineReader, Outbox, RpcError, bytesOf, isObject, parseLine, quote, valueWriter } from './wire.mjs';

const QUESTIONS = ['request', 'construct', 'get', 'set', 'callback'];
const ANSWERS = ['response', 'stream-chunk', 'stream-end', 'stream-error'];
const TYPES = [...QUESTIONS, ...ANSWERS, 'callback-release', 'stream-cancel', 'stream-ack'];

const isTexts = (value) => Array.isArray(value) && value.every((item) => typeof item === 'string');
const isCount = (value) => (typeof value === 'bigint' ? value >= 0n : Number.isSafeInteger(value) && value >= 0);
const isStream = (value) => typeof value === 'object' && typeof value?.[Symbol.asyncIterator] === 'function';
const objectOr = (value) => (isObject(value) ? value : {});
const listOr = (value) => (Array.isArray(value) ? value : []);
const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** The map key of an id, which tells 1 from "1"; undefined for what is none (MSG-2). */
function keyOf(id, limits) {
  const integer = typeof id === 'bigint' || Number.isSafeInteger(id);
  if (!integer && (typeof id !== 'string' || /\p{Surrogate}/u.test(id))) return undefined;
  const length = integer ? String(id).replace('-', '').length : Buffer.byteLength(id);
  return length <= limits.idBytes ? `${integer ? 'integer' : 'text'} ${id}` : undefined;
}

/** What makes a message malformed (CLA-3), or null. Its id is looked at elsewhere. */
function flawOf({ type, method, path, args, kwargs }) {
  const called = ['request', 'construct', 'callback'].includes(type);
  if (called && (typeof method !== 'string' || !isObject(kwargs ?? {}))) return `Invalid ${type} request`;
  if (['get', 'set'].includes(type) && path === undefined) return `Invalid ${type} request: missing path`;
  if (['get', 'set'].includes(type) && !isTexts(path)) return `Invalid ${type} request: wrong path`;
  if (['response', 'callback-release', 'stream-ack'].includes(type) && !isObject(args)) return 'missing args';
  const counts = type === 'callback-release' ? Object.values(args) : [];
  if (!counts.every((n) => isCount(n) && n > 0)) return 'wrong counts';
  if (type === 'stream-ack' && !(isCount(args.n) && isCount(args.b))) return 'wrong counts';
  const batch = type === 'stream-chunk' && isObject(args) && 'values' in args && !('value' in args);
  return batch && listOr(args.values).length === 0 ? 'wrong values' : null;
}

// ---------------------------------------------------------------------------------------- errors and lookup

/** An error that goes as a bare string (ERR-2). */
class Bare extends Error {}

const NO_METHOD = /^(Method .* is not a function|(Method|Constructor) path .* not found at .*)$/s; // ERR-3
const NO_CLASS = /^(.* is not a constructor function|No API implementation available)$/s;
const NO_PROPERTY = /^Property path .* not found at .*$/s;

/** The error that came (ERR-1, ERR-2). */
function readError(error) {
  if (!isObject(error)) {
    const text = ['string', 'bigint'].includes(typeof error) ? String(error) : JSON.stringify(error);
    if (NO_PROPERTY.test(text)) return new RpcError('PropertyNotFound', text);
    return new RpcError(NO_METHOD.test(text) || NO_CLASS.test(text) ? 'MethodNotFound' : 'Error', text);
  }
  const { name, message, stack, ...fields } = error;
  for (const issue of name === 'RPCValidationError' ? listOr(fields.issues) : []) { // ERR-7
    if (Array.isArray(issue?.path)) issue.path = issue.path.map((part) => (isObject(part) ? part.key : part));
  }
  const text = typeof message === 'string' ? message : '';
  return new RpcError(typeof name === 'string' && name ? name : 'Error', text, fields);
}

/** A function that may be called: `names` are its parameters, `?` after optional ones, `*` for any. */
export function method(names, run, constructs = false) {
  return Object.assign(run, { constructs, names: names === '*' ? null : names.split(' ').filter(Boolean) });
}

/** A value that may be read, or set. */
export class Property {
  constructor(value, writable = false) { Object.assign(this, { value, writable }); }
}

/** The arguments in order (CALL-12, KWA-1). */
function bind({ names }, args, kwargs) {
  if (names === null) return args;
  const bound = [...args];
  const plain = names.map((name) => name.replace('?', ''));
  for (const [name, value] of Object.entries(kwargs)) bound[plain.indexOf(name)] = value;
  const fits = Object.keys(kwargs).every((name) => plain.indexOf(name) >= args.length);
  if (!fits || args.length > names.length || !names.every((name, at) => name.endsWith('?') || at in bound)) {
    throw new RpcError('TypeError', 'arguments that the function does not take');
  }
  return bound;
}

/** Looks up what is exposed: Maps of functions, properties and Maps, so that no prototype is seen (CALL-6). */
function find(root, segments, kind) {
  let here = root;
  const data = kind === 'Property';
  segments.forEach((segment, at) => {
    const last = at === segments.length - 1;
    const inside = here instanceof Property ? here.value : here;
    const hidden = segment === '' || segment.startsWith('_');
    if (!hidden && inside instanceof Map) here = inside.get(segment);
    else if (!hidden && isObject(inside) && Object.hasOwn(inside, segment)) here = new Property(inside[segment]);
    else here = undefined;
    const leads = data ? here instanceof Property || (!last && here instanceof Map) : last || here instanceof Map;
    if (!leads) throw new Bare(`${kind} path ${segments.join('.')} not found at ${segment}`);
  });
  if (segments.length === 0) throw new Bare(`${kind} path  not found at `);
  return here;
}

// ---------------------------------------------------------------------------- functions and streams of the peer

/** What somebody here must hold, or it is dropped: the garbage collector would say so too late (CBK-7). */
function held(thing, dropped) {
  let holders = 0;
  const hold = () => {
    holders++;
    return thing;
  };
  return Object.assign(thing, { hold, release: () => { if (--holders === 0) dropped(); } });
}

/** A function of the peer: `ask` makes a call, `notify` wants no answer; `named`: by how many messages. */
function remoteFunction(peer, id) {
  const ask = (args) => peer.call('callback', id, args);
  const notify = (args) => peer.send('callback', undefined, { method: id, args });
  const remote = Object.assign(async (...args) => (await ask(args).answer).result, { ask, notify, named: 0 });
  return held(remote, () => {
    peer.theirs.delete(id);
    if (peer.agreed.has('callback')) peer.send('callback-release', undefined, { args: { [id]: remote.named } });
  });
}

/** A stream of the peer: the answer to a call, or found within a value. */
export class RemoteStream {
  queue = []; // {value, refs, size} of what lies unread
  waiting = [];
  unread = 0; // bytes of it
  end = null; // {result, refs} or {error}

  constructor(peer, call) { held(Object.assign(this, { peer, call }), () => this.dropped()); }

  /** Adds the values of a frame; what they name, and the frame's size, go with the last of them. */
  add(values, refs, size) {
    this.queue.push(...values.map((value) => ({ value, refs: [], size: 0 })));
    Object.assign(this.queue.at(-1), { refs, size });
    this.unread += size;
    this.#serve();
  }

  finish(end) {
    this.end ??= end;
    this.#serve();
  }

  /** The next {value, refs}, or {end, refs}. */
  pull() {
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      this.#serve();
    });
  }

  #serve() { // what came before the end comes before it (STR-9)
    while (this.waiting.length > 0 && (this.queue.length > 0 || this.end)) {
      const entry = this.queue.shift() ?? { end: this.end, refs: this.end.refs ?? [], size: 0 };
      this.unread -= entry.size;
      this.waiting.shift()(entry);
    }
  }

  /** No more of it is wanted; resolves when the cancel is complete. */
  dropped() {
    this.queue.splice(0).forEach(({ refs }) => refs.forEach((ref) => ref.release()));
    return this.peer.giveUp(this.call);
  }
}

// ------------------------------------------------------------------------------------------------- the peer

/** `finished` becomes the reason of the end: null, or the violation (an RpcError). */
export class Peer {
  counted = 0;
  hello = false; // the peer has said it: it is no stock peer
  agreed = new Set(); // features in force (HEL-3); replaced, never changed, so that calls keep theirs (HEL-5)
  incoming = new Map(); // the peer's calls, and own streams within values
  outgoing = new Map(); // own calls, and the peer's streams within values
  abandoned = new Set(); // keys of stock streams that were cancelled (CAN-2)
  own = new Map(); // own functions by id: {thing, named}
  ownIds = new Map();
  theirs = new Map(); // functions of the peer by id
  serial = 0;
  closing = false; // no more is read
  silent = false; // no more is said
  finished = new Promise((resolve) => { this.finish = resolve; });

  constructor({ input, output, root, features, limits, onNoise }) {
    Object.assign(this, { root, features, limits, onNoise });
    const full = new RpcError('LimitExceeded', 'the peer does not read its answers');
    this.outbox = new Outbox(output, limits.sendMax, () => this.close(full));
    const reader = new LineReader(limits, (line, size) => this.#line(line, size), onNoise);
    const guard = (step) => {
      try {
        if (!this.closing) step();
      } catch (error) {
        if (!(error instanceof RpcError)) throw error;
        this.close(error);
      }
    };
    input.on('data', (bytes) => guard(() => reader.push(bytes)));
    input.on('end', () => guard(() => { reader.end(); this.close(null); }));
    output.on('error', () => setTimeout(() => this.close(null), 50)); // CLS-6: what has come is read first
  }

  // ------------------------------------------------------------------------------------------------ sending

  /** The line of a message (CLA-1) and what it names. Refuses what cannot be sent; nothing has changed then. */
  #compose(type, id, { method: called = '', args = {}, ...rest }) {
    const fresh = new Map(); // function or stream -> its id
    const texts = new Set();
    const stock = !this.hello;
    const write = valueWriter({
      limits: this.limits, stock,
      name: (thing, path) => this.#name(thing, path, type, fresh),
      refuses: (text, path) => { // VAL-5
        texts.add(text);
        return stock && path.length === 2 && typeof path[1] === 'number' && text.startsWith('__callback__');
      },
    });
    const parts = Object.entries({ args, ...rest }).filter(([, value]) => value !== undefined)
      .map(([key, value]) => `"${key}":${write(value, 2, [key])}`);
    const taken = ([thing, name]) => texts.has(isStream(thing) ? name : `__callback__${name}`);
    if ([...fresh].some(taken)) { // CBK-1
      throw new RpcError('NotSerializable', 'text that would arrive as a function');
    }
    const list = (key, which) => {
      const names = [...fresh].filter(([thing]) => isStream(thing) === which).map(([, name]) => quote(name));
      return names.length > 0 ? [`"${key}":[${names}]`] : [];
    };
    const line = `{${[
      ...(id === undefined ? [] : [`"id":${typeof id === 'string' ? quote(id) : id}`]),
      `"method":${quote(called)}`, parts[0], `"type":"${type}"`,
      ...list('callbackIds', false), ...list('streamIds', true), ...parts.slice(1), '"version":"json"',
    ]}}`;
    const added = [...fresh.keys()].filter((thing) => !isStream(thing) && !this.ownIds.has(thing)).length;
    const many = added > 0 && this.own.size + added > this.limits.callbacks; // CBK-7
    if (many || line.length > this.limits.frame) throw new RpcError('LimitExceeded', 'too much'); // FRM-6
    return { line: line.length % 65536 === 0 ? `${line.slice(0, -1)} }` : line, fresh }; // FRM-10
  }

  /** The placeholder of a function or stream; undefined where none may stand (CBK-1, ARG-1); null for others. */
  #name(thing, path, type, fresh) {
    if (typeof thing !== 'function' && !isStream(thing)) return null;
    const stock = ['request', 'construct'].includes(type) && path[0] === 'args' && path.length === 2;
    if (path[0] === 'meta' || (path[1] === 'error' && type !== 'request')) return undefined;
    if (isStream(thing)) {
      if (!this.agreed.has('stream-arguments') || fresh.has(thing)) return undefined;
      let id;
      do id = `__stream__${++this.serial}`; while (this.incoming.has(`text ${id}`)); // ARG-2
      fresh.set(thing, id);
      return id;
    }
    if (!stock && !this.agreed.has('callback')) return undefined;
    if (!fresh.has(thing)) fresh.set(thing, this.ownIds.get(thing) ?? `node-${++this.serial}`);
    return `__callback__${fresh.get(thing)}`;
  }

  /** Books what a message names, once it is certain to be sent; what it returns starts its streams. */
  #commit(fresh) {
    const streams = [];
    for (const [thing, id] of fresh) {
      if (isStream(thing)) {
        streams.push([this.#enter({ id, key: `text ${id}`, size: 0, inner: true }), thing]);
      } else {
        if (!this.own.has(id)) this.own.set(id, { thing: thing.hold?.() ?? thing, named: 0 });
        this.own.get(id).named++;
        this.ownIds.set(thing, id);
      }
    }
    return () => streams.forEach(async ([call, stream]) => {
      await this.#produce(call, stream);
      this.#leave(call);
    });
  }

  send(type, id, fields = {}) {
    const { line, fresh } = this.#compose(type, id, fields);
    if (this.silent) return;
    const begin = this.#commit(fresh);
    this.outbox.push(line);
    begin();
  }

  /** Sends a frame of a stream; resolves once it is handed on, so that there is one at a time (CLS-4). */
  async #sendFrame(type, call, args) {
    const { line, fresh } = this.#compose(type, call.id, { args });
    if (this.silent) return;
    const begin = this.#commit(fresh);
    const handedOn = await new Promise((sent) => {
      this.outbox.pushFrame({ line, call, sent, keep: fresh.size > 0 });
    });
    if (handedOn) begin(); // ARG-2: not ahead of the message that names it
  }

  /** An error as data: what of it cannot be sent is left out, field by field (ERR-4). */
  #plain(error, causes = 8) {
    const { name, message } = error ?? {};
    const plain = { name: typeof name === 'string' && name ? name : 'Error', message: String(message ?? error) };
    for (const [key, value] of Object.entries(error?.fields ?? {})) {
      if (['name', 'message', 'stack'].includes(key) || (key.startsWith('_') && key !== '__notes__')) continue;
      const isError = value instanceof Error;
      if (isError && causes === 0) continue;
      const field = isError ? this.#plain(value, causes - 1) : value;
      try {
        this.#compose('response', undefined, { args: { error: { ...plain, [key]: field } } });
        plain[key] = field;
      } catch { /* left out */ }
    }
    return plain;
  }

  /** Sends an error by `send`, which throws where it is too long: then less of it. */
  async #sendError(error, send) {
    const plain = this.#plain(error);
    const forms = [plain, { name: plain.name, message: '' }, { name: 'Error', message: '' }];
    if (error instanceof Bare) forms.unshift(error.message);
    for (const form of forms) {
      try {
        return await send({ error: form });
      } catch { /* the next one */ }
    }
    return undefined;
  }

  #fail(id, error) { this.#sendError(error, (args) => this.send('response', id, { args })); }

  /** An own function may be called no more (CBK-5), or was given back (CBK-6). */
  forgetOwn(id) {
    const entry = this.own.get(id);
    this.own.delete(id);
    this.ownIds.delete(entry?.thing);
    entry?.thing.release?.();
  }

  // ------------------------------------------------------------------------------------------------ reading

  #line(bytes, size) {
    const parsed = bytes.subarray(0, 8).toString() === '{"json":' ? null : parseLine(bytes, this.limits); // CLA-6
    const { message, flaw: deep } = parsed ?? {};
    if (!isObject(message) || !TYPES.includes(message.type)) {
      return this.onNoise(bytes.subarray(0, this.limits.noise)); // FRM-4, FRM-7
    }
    if (this.closing) return undefined;
    const { type, args } = message;
    const key = keyOf(message.id, this.limits);
    const flaw = deep ?? ('id' in message && key === undefined ? 'wrong id' : flawOf(message));
    const names = this.#names(message);
    if (QUESTIONS.includes(type)) return this.#question(message, key, flaw, names, size);
    if (ANSWERS.includes(type)) return this.#answer(message, key, flaw, names, size);
    if (flaw || (key === undefined && type !== 'callback-release')) return this.#count();
    if (type === 'callback-release') return this.#released(args);
    return type === 'stream-cancel' ? this.#cancel(this.incoming.get(key)) : undefined; // CRD-6: no credit here
  }

  #count() { this.counted++; }

  /** The functions and streams that a message names, where that means something. */
  #names({ type, callbackIds, streamIds }) {
    const values = ANSWERS.includes(type) || (QUESTIONS.includes(type) && type !== 'get');
    const stock = type === 'request' || type === 'construct';
    const functions = values && isTexts(callbackIds) && (stock || this.agreed.has('callback'));
    const streams = values && isTexts(streamIds) && this.agreed.has('stream-arguments');
    return { functions: functions ? [...new Set(callbackIds)] : [], streams: streams ? streamIds : [] };
  }

  /** Takes over what a message names, as placeholder -> thing, or throws; it has been given back then. */
  #take(names) {
    const { functions, streams } = names;
    const { idBytes, callbacks, calls } = this.limits;
    const held = this.theirs.size + functions.filter((id) => !this.theirs.has(id)).length;
    const open = [...this.outgoing.values()].filter((call) => call.inner).length + streams.length;
    const short = [...functions, ...streams].every((id) => Buffer.byteLength(id) <= idBytes);
    const good = streams.every((id) => this.#usable(id)) && new Set(streams).size === streams.length;
    const many = (functions.length && Math.max(functions.length / 65536, held / callbacks) > 1) // CBK-7
      || (streams.length && open > calls); // ARG-5
    if (short && good && !many) return this.#hold(names);
    this.#giveBack(names);
    throw new RpcError(short && good ? 'LimitExceeded' : 'ProtocolError', 'functions or streams not taken');
  }

  #usable(id) { return id.startsWith('__stream__') && !this.outgoing.has(`text ${id}`); }

  #hold({ functions, streams }) {
    const things = new Map();
    for (const id of functions) {
      if (!this.theirs.has(id)) this.theirs.set(id, remoteFunction(this, id));
      this.theirs.get(id).named++;
      things.set(`__callback__${id}`, this.theirs.get(id).hold());
    }
    for (const id of streams.filter((stream) => this.#usable(stream))) {
      const call = { id, key: `text ${id}`, agreed: this.agreed, inner: true, state: 'open' };
      call.stream = new RemoteStream(this, call);
      this.outgoing.set(call.key, call);
      things.set(id, call.stream.hold());
    }
    return things;
  }

  /** CBK-6, ARG-3: what is not looked at is given back, or cancelled, all the same. */
  #giveBack(names) { for (const thing of this.#hold(names).values()) thing.release(); }

  /** A value with bytes, functions and streams in their places; `depth` is 1 at the top level of args. */
  #revive(things, value, depth) {
    if (typeof value === 'string' && things.has(value)) {
      const thing = things.get(value);
      const nowhere = typeof thing === 'function' && depth > 1 && !this.agreed.has('callback'); // CBK-1
      return nowhere ? value : thing;
    }
    if (typeof value !== 'object' || value === null) return value;
    const bytes = bytesOf(value);
    if (bytes) return bytes;
    for (const key of Object.keys(value)) value[key] = this.#revive(things, value[key], depth + 1);
    return value;
  }

  // -------------------------------------------------------------------------------------- the callee's half

  #enter(fields) {
    const call = { ...fields, agreed: this.agreed, refs: [], cancelled: false, abort: new AbortController() };
    this.incoming.set(call.key ?? call, call);
    return call;
  }

  #leave(call) {
    this.incoming.delete(call.key ?? call);
    call.refs.forEach((ref) => ref.release());
    if (this.incoming.size === 0) this.idle?.();
  }

  #question(message, key, flaw, names, size) {
    const { type } = message;
    const id = key === undefined ? undefined : message.id;
    const asked = type !== 'callback' || (this.agreed.has('callback') && key !== undefined);
    if (type === 'request' && message.method === 'kkrpc.hello' && !flaw && !this.incoming.has(key)) {
      return this.#hello(id, message.args);
    }
    const running = [...this.incoming.values()].filter((call) => !call.inner);
    const bytes = running.reduce((sum, call) => sum + call.size, size);
    const many = running.length >= this.limits.calls || bytes > this.limits.callBytes; // CALL-7
    const taken = asked && this.incoming.has(key); // MSG-3: no answer, it would be taken for the running call's
    if (flaw || many || taken) {
      this.#count();
      const error = flaw ? new Bare(flaw) : new RpcError('LimitExceeded', 'too many calls');
      if (asked && !taken) this.#fail(id, error);
      return this.#giveBack(names);
    }
    let things;
    try {
      things = this.#take(names);
    } catch (error) {
      return asked ? this.#fail(id, error) : this.#count();
    }
    const call = this.#enter({ id, key: asked ? key : undefined, size, type, asked });
    call.refs = [...things.values()];
    const each = (object, known) => Object.fromEntries(Object.entries(objectOr(object))
      .map(([name, item]) => [name, this.#revive(known, item, 2)]));
    Object.assign(call, { kwargs: each(message.kwargs, things), meta: each(message.meta, new Map()) });
    const args = this.#revive(things, listOr(message.args), 0);
    const value = this.#revive(things, message.value ?? null, 0);
    return this.#run(call, () => this.#begin(call, message, args, value));
  }

  #begin(call, { type, method: called, path }, args, value) {
    if (type === 'callback') return this.#callOwn(call, called, args);
    if (type === 'get' || type === 'set') { // CALL-10
      const found = find(this.root, path, 'Property');
      if (type === 'get') return found.value;
      if (!found.writable) throw new RpcError('PermissionError', `${path.join('.')} may not be set`);
      if (call.refs.length > 0) throw new RpcError('TypeError', 'a property holds data alone');
      found.value = value;
      return true;
    }
    const builds = type === 'construct';
    const found = find(this.root, called.split('.'), builds ? 'Constructor' : 'Method');
    if (typeof found !== 'function' || found.constructs !== builds) {
      throw new Bare(builds ? `${called} is not a constructor function` : `Method ${called} is not a function`);
    }
    return found(call, ...bind(found, args, call.kwargs));
  }

  async #callOwn(call, id, args) {
    const thing = this.own.get(id)?.thing;
    if (thing === undefined) { // CBK-5
      const passed = /^node-\d{1,15}$/.test(id) && Number(id.slice('node-'.length)) <= this.serial;
      if (!call.asked && !passed) this.#count();
      throw new RpcError('CallbackReleased', 'the function was released, or never passed');
    }
    if (Object.keys(call.kwargs).length > 0) throw new RpcError('TypeError', 'no arguments by name are taken');
    return thing(...args);
  }

  async #run(call, begin) {
    let result;
    try {
      result = await begin(); // begins at once: in the order of the calls (CALL-2)
      const stream = isStream(result) && call.asked;
      if (stream && (call.key === undefined || call.cancelled)) { // MSG-5, CAN-7: nobody will read it
        await result.return?.();
        if (!call.cancelled) throw new RpcError('ProtocolError', 'a stream needs an id');
      }
      if (call.cancelled) throw call.abort.signal.reason; // CAN-4
      if (isObject(result) && result.__stream === true) { // CLA-4
        throw new RpcError('NotSerializable', 'an object that would arrive as a stream');
      }
      const answer = { result: stream ? { __stream: true } : result };
      if (call.asked) this.send('response', call.id, { args: answer });
      if (stream) await this.#produce(call, result);
    } catch (error) {
      if (call.asked) this.#fail(call.id, error);
    }
    this.#leave(call);
  }

  /** Sends what an iterator gives, one frame at a time (section 7). Never throws. */
  async #produce(call, stream) {
    const iterator = stream[Symbol.asyncIterator]();
    call.iterator = iterator;
    let failure = null;
    let step = null;
    try {
      while (!call.cancelled) {
        step = await iterator.next();
        if (call.cancelled || step.done) break;
        await this.#sendFrame('stream-chunk', call, { value: step.value });
      }
    } catch (error) {
      failure = error;
    }
    await iterator.return().catch((error) => { failure ??= error; }); // its cleanup
    if (call.cancelled && failure?.name === 'CallCancelled') failure = null;
    if (call.cancelled && !call.agreed.has('cancel')) return; // CAN-2
    const end = call.agreed.has('result') ? { result: step?.value } : {}; // RES-1
    try {
      if (failure) throw failure;
      await this.#sendFrame('stream-end', call, call.cancelled ? { cancelled: true } : end);
    } catch (error) {
      await this.#sendError(error, (args) => this.#sendFrame('stream-error', call, args));
    }
  }

  #cancel(call) {
    if (!call || call.cancelled) return; // CAN-5, CAN-7
    call.cancelled = true;
    this.outbox.drop(call); // CAN-1
    call.abort.abort(new RpcError('CallCancelled', 'the call was cancelled'));
    call.iterator?.return().catch(() => {}); // #produce sees what it raises
  }

  /** Cancels all that runs for the peer but one call, and waits until it is gone. */
  async cancelAll(but, ms) {
    for (const call of this.incoming.values()) if (call !== but) this.#cancel(call);
    for (const end = Date.now() + ms; this.incoming.size > (but ? 1 : 0) && Date.now() < end;) await sleep(2);
  }

  #released(counts) { // CBK-6
    for (const [id, count] of Object.entries(counts)) {
      const entry = this.own.get(id);
      if (!entry) continue;
      entry.named -= Number(count);
      if (entry.named < 0) this.#count();
      if (entry.named <= 0) this.forgetOwn(id);
    }
  }

  #hello(id, args) {
    const [offer] = listOr(args);
    const readable = listOr(args).length === 1 && offer?.protocol === 1 && Array.isArray(offer.features);
    if (!readable || id === undefined) { // HEL-4
      this.#count();
      return this.#fail(id, new RpcError('ProtocolError', 'no hello of version 1'));
    }
    this.send('response', id, { args: { result: { protocol: 1, features: this.features } } });
    if (!this.hello) this.agreed = new Set(this.features.filter((name) => offer.features.includes(name)));
    this.hello = true;
    return undefined;
  }

  // -------------------------------------------------------------------------------------- the caller's half

  /** Calls the peer; `answer` becomes {result, refs} or {stream, refs}. Throws what cannot be sent. */
  call(type, called, args, { kwargs, meta } = {}) {
    if (this.closing) throw new RpcError('ChannelClosed', 'the channel is closed');
    const named = kwargs && Object.keys(kwargs).length > 0 ? kwargs : undefined;
    if (named && !this.agreed.has('kwargs')) {
      throw new RpcError('NotSerializable', 'arguments by name'); // KWA-2
    }
    const path = called.split('.');
    const said = {
      get: { path }, set: { path, value: args[0] ?? null }, callback: { method: called, args },
    }[type] ?? { method: called, args, kwargs: named, meta: this.agreed.has('metadata') ? meta : undefined };
    const id = `node:${++this.serial}`;
    const call = { id, key: `text ${id}`, agreed: this.agreed, type, state: 'waiting' };
    call.answer = new Promise((resolve, reject) => Object.assign(call, { resolve, reject }));
    call.answer.catch(() => {});
    this.send(type, id, said);
    this.outgoing.set(call.key, call);
    return call;
  }

  #over(call) {
    call.state = 'over';
    this.outgoing.delete(call.key);
    call.complete?.();
  }

  /** Gives up a call or stream; resolves when that is complete (CAN-1, CAN-3, CAN-6). */
  async giveUp(call, error = new RpcError('CallCancelled', 'given up')) {
    const { state } = call;
    if (state !== 'waiting' && state !== 'open') return call.cancelled;
    call.reject?.(error);
    call.stream?.finish({ error });
    const agreed = call.agreed.has('cancel');
    call.state = agreed ? 'cancelling' : 'given up';
    call.cancelled = agreed ? new Promise((resolve) => { call.complete = resolve; }) : null;
    if (agreed) this.send('stream-cancel', call.id);
    else if (state === 'open') this.#abandon(call);
    return call.cancelled;
  }

  /** CAN-2: where cancel is not agreed nothing is waited for, and what still comes is no violation. */
  #abandon(call) {
    this.send('stream-cancel', call.id);
    this.abandoned.add(call.key);
    this.#over(call);
  }

  #answer({ type, args: given }, key, flaw, names, size) {
    const args = objectOr(given);
    const call = this.outgoing.get(key);
    const state = call?.state ?? (this.abandoned.has(key) ? 'abandoned' : 'none');
    const response = type === 'response';
    const opening = response && !args.error && args.result?.__stream === true; // CLA-4, CLA-5
    const unexpected = state === 'none' // MSG-6; then CALL-5 and ARG-3; then STR-6
      || (response && (state === 'open' || (call?.inner && state === 'cancelling')))
      || (!response && ['waiting', 'given up'].includes(state));
    if (flaw || unexpected) {
      this.#count();
      this.#giveBack(names);
      return flaw && call && this.#malformed(call, type);
    }
    if (state === 'waiting' || state === 'open') {
      if (type === 'stream-chunk') return this.#chunk(call, args, names, size);
      return this.#answered(call, type, args, opening, names);
    }
    this.#giveBack(names);
    if (state === 'given up' && opening) return this.#abandon(call); // CAN-6
    if (opening || type === 'stream-chunk') return undefined;
    return call ? this.#over(call) : this.abandoned.delete(key);
  }

  #malformed(call, type) { // MSG-4: the call fails; all but a chunk is the callee's last word
    const waiting = call.state === 'waiting';
    if (type === 'stream-chunk' && call.state === 'given up') return;
    this.giveUp(call, new RpcError('ProtocolError', 'the peer sent a malformed message'));
    if (waiting && call.state === 'given up') this.send('stream-cancel', call.id);
    if (type !== 'stream-chunk') this.#over(call);
  }

  /** A response, an end or a stream error. */
  #answered(call, type, args, opening, names) {
    const fails = type === 'stream-error' || (type === 'response' && args.error);
    if (fails || opening) this.#giveBack(names);
    if (opening) {
      Object.assign(call, { state: 'open', stream: new RemoteStream(this, call) });
      return call.resolve({ stream: call.stream.hold() });
    }
    this.#over(call);
    const end = {};
    try {
      if (fails) throw readError(args.error || 'Stream error'); // ERR-2
      const things = this.#take(names);
      Object.assign(end, { result: this.#revive(things, args.result ?? null, 0), refs: [...things.values()] });
    } catch (error) {
      end.error = error;
    }
    if (call.stream) return call.stream.finish(end);
    return end.error ? call.reject(end.error) : call.resolve(end);
  }

  #chunk(call, args, names, size) {
    const { stream } = call;
    const within = [...this.outgoing.values()].filter((other) => other.inner && other.stream);
    const unread = within.reduce((sum, other) => sum + other.stream.unread, size);
    const much = stream.unread + size > this.limits.stockStreamBuffer // STR-12
      || (call.inner && unread > this.limits.callBytes); // ARG-5
    if (much) {
      this.#giveBack(names);
      return this.giveUp(call, new RpcError('LimitExceeded', 'too much lies unread'));
    }
    try {
      const things = this.#take(names);
      const values = 'value' in args ? [args.value] : args.values ?? [null]; // CLA-2
      return stream.add(values.map((value) => this.#revive(things, value, 0)), [...things.values()], size);
    } catch (error) {
      return this.giveUp(call, error); // CBK-7
    }
  }

  /** Ends the channel (CLS-1, CLS-2). `reason` is null at the end of the input, else the violation. */
  async close(reason) {
    if (this.closing) return;
    this.closing = true;
    const error = reason ?? new RpcError('ChannelClosed', 'the channel is closed');
    for (const call of [...this.outgoing.values()]) {
      call.reject?.(error);
      call.stream?.finish({ error });
      this.#over(call);
    }
    const { finishMs, cleanupMs, drainMs } = this.limits;
    const idle = new Promise((resolve) => { this.idle = resolve; });
    if (reason === null && this.incoming.size > 0) await Promise.race([idle, sleep(finishMs)]);
    this.silent = true;
    await this.cancelAll(null, cleanupMs);
    await Promise.race([this.outbox.flushed(), sleep(drainMs)]); // CLS-3
    this.finish(reason);
  }
}
