/**
 * kkrpc for browsers, workers and Node: calls, callbacks and streams over a WebSocket or a MessagePort.
 *
 * One ES module without dependencies. It speaks the classic dialect of spec/protocol.md in JSON, as kkrpc for
 * TypeScript does where its serialization is `json`, and the extensions of that text with a peer that has them. The
 * names in comments (CRD-5) are rules of it. The types stand in kkrpc.d.ts, the use in README.md.
 *
 * Nothing here trusts the peer: what it can make grow has a bound (`LIMITS`), a path leads to own properties of plain
 * objects alone, and a key such as `__proto__` is a key like any other.
 */

/** The extensions that a hello names, unless `options.features` leaves some out. */
export const FEATURES = Object.freeze([
  'credit', 'batch', 'result', 'cancel', 'callback', 'stream-arguments', 'kwargs', 'metadata',
]);

const KIB = 1024;
const MIB = 1024 * KIB;

/** Bounds of one channel, in bytes (of UTF-8), milliseconds and numbers; `options.limits` changes some (LIM-1). */
export const LIMITS = Object.freeze({
  frame: 16 * MIB, // one message
  noise: 64 * KIB, // what is handed on of a line that is no message
  depth: 128, // nested lists and objects
  digits: 1000, // of one integer
  idBytes: 256,
  calls: 16384, // the peer's calls and streams that run here at once; as many streams within values
  callBytes: 256 * MIB, // the frames of those calls; as much of streams within values that lies unread
  callbacks: 65536, // functions held of the peer, and as many that the peer holds
  streamBuffer: MIB, // of one stream, unread, where the peer knows credit
  streamChunks: 4096, // the same in values, 64 at least; a small value costs more as an object than on the wire
  stockStreamBuffer: 64 * MIB, // the same where it does not
  sendHighWater: MIB, // what may lie in the socket before this side stops writing to it
  sendMax: 64 * MIB, // answers that the peer does not read
  helloMs: 2000, // wait for the answer to the hello
  cleanupMs: 2000, // handlers' cleanup when the channel closes
  finishMs: 1000, // handlers go on where the peer has ended its side alone (event `end`)
});

const ITEM = 64 * KIB; // lines that leave together
const DESTROY = '__DESTROY__'; // what kkrpc writes when it closes
const CODES = { ProtocolError: 4002, LimitExceeded: 4009 }; // 1002 and 1009: a page may not say those
const NONE = new Set();
const noop = () => {};

// -------------------------------------------------------------------------------------------------- errors

/** Any error of a channel. `fields` is what it says beside name and message, `code` the field of that name. */
export class KkrpcError extends Error {
  constructor(message = '', fields = {}) {
    super(message);
    this.name = new.target.name;
    this.fields = fields;
  }

  get code() { return own(this.fields, 'code'); }
}

/** The connection is gone. */
export class ChannelClosed extends KkrpcError {}
/** The call or stream was given up, by this side or by the peer. */
export class CallCancelled extends KkrpcError {}
/** No answer came in time. */
export class CallTimeout extends KkrpcError {}
/** The peer broke a rule of the protocol. */
export class ProtocolError extends KkrpcError {}
/** A bound was passed, here or at the peer. */
export class LimitExceeded extends KkrpcError {}
/** A value that cannot be sent as it is; nothing was sent. */
export class NotSerializable extends KkrpcError {}

/** The peer's handler raised: `name` is what it said. */
export class RemoteError extends KkrpcError {
  constructor(name, message, fields = {}) {
    super(message, fields);
    this.name = name;
    if (Object.hasOwn(fields, 'cause')) this.cause = fields.cause;
  }
}
/** Nothing that can be called, or constructed, is exposed under that path. */
export class MethodNotFound extends RemoteError {}
/** Nothing that can be read or set is exposed under that path. */
export class PropertyNotFound extends RemoteError {}
/** The function was released by its owner, or by this side. */
export class CallbackReleased extends RemoteError {}
/** An action refused, or failed, in words that are meant for its caller. */
export class ActionError extends RemoteError {
  get code() { // leniently, ACT-10
    const code = own(this.fields, 'code');
    return typeof code === 'string' && code ? code : 'STREAM_ERROR';
  }

  /** The HTTP status that goes with it. */
  get status() {
    const status = own(this.fields, 'statusCode');
    return Number.isInteger(status) && status >= 400 && status < 600 ? status : 500;
  }

  /** Messages by the path of the field that they are about. */
  get fieldErrors() {
    const errors = own(this.fields, 'fieldErrors');
    return isObject(errors) && Object.values(errors).every(isTexts) ? errors : {};
  }
}

// The names that choose a class; no name that a peer sends chooses anything else (ERR-3).
const OF_THE_PROTOCOL = new Map(Object.entries({ LimitExceeded, CallCancelled, ProtocolError }));
const OF_THE_PEER = new Map(Object.entries({ CallbackReleased, ActionError }));
const NO_METHOD = /^(Method .* is not a function|(Method|Constructor) path .* not found at .*)$/s;
const NO_CLASS = /^(.* is not a constructor function|No API implementation available)$/s;
const NO_PROPERTY = /^Property path .* not found at .*$/s;

/** An error that goes as a bare string (ERR-2). */
class Bare extends Error {}

/** The error that came (ERR-1, ERR-2). */
function readError(error) {
  if (!isObject(error)) {
    const text = ['string', 'bigint'].includes(typeof error) ? String(error) : JSON.stringify(error);
    if (NO_PROPERTY.test(text)) return new PropertyNotFound('PropertyNotFound', text);
    if (NO_METHOD.test(text) || NO_CLASS.test(text)) return new MethodNotFound('MethodNotFound', text);
    return new RemoteError('Error', text);
  }
  const { name: given, message: text, ...fields } = error;
  const name = typeof given === 'string' && given ? given : 'Error';
  const message = typeof text === 'string' ? text : '';
  for (const issue of name === 'RPCValidationError' ? listOr(fields.issues) : []) { // ERR-7
    if (Array.isArray(issue?.path)) issue.path = issue.path.map((part) => (isObject(part) ? part.key : part));
  }
  const Own = OF_THE_PROTOCOL.get(name);
  return Own ? new Own(message, fields) : new (OF_THE_PEER.get(name) ?? RemoteError)(name, message, fields);
}

// -------------------------------------------------------------------------------------------------- values

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
const own = (object, key) => (isObject(object) && Object.hasOwn(object, key) ? object[key] : undefined);
const listOr = (value) => (Array.isArray(value) ? value : []);
const isTexts = (value) => Array.isArray(value) && value.every((item) => typeof item === 'string');
const isCount = (value) => (typeof value === 'bigint' ? value >= 0n : Number.isSafeInteger(value) && value >= 0);
const isHidden = (name) => name === '' || name.startsWith('_');

/** Whether it is an object of data: `{…}`, of this realm or another one. */
function isPlain(value) {
  if (!isObject(value)) return false;
  const proto = Object.getPrototypeOf(value);
  return proto === null || Object.getPrototypeOf(proto) === null;
}

/** An iterator, or what has an asynchronous one: as the result of a handler it is a stream (STR-1). */
const isStream = (value) => typeof value === 'object' && value !== null
  && (typeof value[Symbol.asyncIterator] === 'function'
    || (typeof value.next === 'function' && typeof value[Symbol.iterator] === 'function'));

const encoder = new TextEncoder();
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Bytes of a text in UTF-8 (CRD-7). */
// eslint-disable-next-line no-control-regex -- ASCII is all of these
const byteLength = (text) => (/^[\0-\x7f]*$/.test(text) ? text.length : encoder.encode(text).length);

/** JSON text with strings marked by `s` and integers that no double keeps by `i`. */
function marked(text) {
  const token = /["\d-]/g; // what begins a string or number; a pattern for a whole string could be too long a way back
  const number = /-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
  const parts = [];
  let at = 0;
  for (let found; (found = token.exec(text)) !== null; token.lastIndex = at) {
    const { index } = found;
    parts.push(text.slice(at, index));
    if (found[0] === '"') {
      at = index;
      let escapes;
      do {
        at = text.indexOf('"', at + 1);
        for (escapes = 0; text[at - escapes - 1] === '\\';) escapes++;
      } while (escapes % 2 > 0);
      parts.push('"s', text.slice(index + 1, ++at));
    } else {
      number.lastIndex = index;
      const [digits] = number.exec(text);
      at = number.lastIndex;
      parts.push(/[.eE]/.test(digits) || Number.isSafeInteger(Number(digits)) ? digits : `"i${digits}"`);
    }
  }
  return parts.join('') + text.slice(at);
}

/** The JSON of a line as {message, flaw}; a flaw makes it malformed (FRM-8). Null for no JSON (FRM-4). */
function parse(text, limits) {
  let flaw = null;
  let odd = false; // there are numbers that JSON.parse may have changed
  const look = (value, level) => {
    if (typeof value === 'number') odd ||= Math.abs(value) > Number.MAX_SAFE_INTEGER;
    if (typeof value !== 'object' || value === null || flaw) return;
    if (level > limits.depth) flaw = 'message nested too deeply';
    else for (const item of Array.isArray(value) ? value : Object.values(value)) look(item, level + 1);
  };
  /** Undoes what is marked below: strings by `s`, long integers by `i`. */
  const plain = (value) => {
    if (Array.isArray(value)) return value.map(plain);
    if (isObject(value)) {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key.slice(1), plain(item)]));
    }
    if (value === Infinity || value === -Infinity) throw new RangeError('beyond a double'); // VAL-2
    if (typeof value !== 'string' || value[0] === 's') return value?.slice?.(1) ?? value;
    if (value.replace('-', '').length <= limits.digits + 1) return BigInt(value.slice(1));
    flaw = 'integer of too many digits';
    return NaN;
  };
  try {
    let message = JSON.parse(text);
    look(message, 1);
    if (odd && !flaw) { // JSON.parse keeps no integer beyond 2^53 - 1 (VAL-3)
      message = plain(JSON.parse(marked(text)));
    }
    return { message, flaw };
  } catch {
    return null;
  }
}

/** The bytes that an object is the form of, or null (VAL-4). */
function bytesOf(value) {
  if (value.type !== 'Uint8Array' || !Array.isArray(value.data) || Object.keys(value).length !== 2) return null;
  const numbers = value.data.map((item) => (typeof item === 'bigint' ? Number(BigInt.asUintN(8, item)) : item));
  return numbers.every((item) => typeof item === 'number') ? Uint8Array.from(numbers) : null; // modulo 256
}

/** JSON text of a string, in ASCII (FRM-11). */
const quote = (text) => JSON.stringify(text)
  .replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);

/**
 * A function `(value, level, path)` that writes a value as JSON, and refuses what JSON cannot carry (VAL-1).
 *
 * `name(value, path)` gives the placeholder of a function or stream, undefined where none may stand, null for any
 * other value; `refuses(text, path)` is asked for each string. `path` is the writer's to change.
 */
function valueWriter({ limits, stock, name, refuses }) {
  const refuse = (value, path) => {
    const type = value === null ? 'null' : value?.constructor?.name ?? typeof value;
    throw new NotSerializable(`a value of type ${type} cannot be sent, at ${path.join('.')}`);
  };
  const within = (value, key, level, path) => {
    path.push(key);
    const text = write(value[key], level, path);
    path.pop();
    return text;
  };
  const write = (value, level, path) => {
    if (value === null || value === undefined || typeof value === 'boolean') return String(value ?? null);
    if (typeof value === 'string') return refuses(value, path) ? refuse(value, path) : quote(value);
    if (typeof value === 'number') {
      if (!Number.isFinite(value)) refuse(value, path); // VAL-2: never as null
      if (Object.is(value, -0)) return '-0.0';
      // A double beyond the safe integers is written so that nobody takes it for an exact integer (VAL-3).
      return Number.isInteger(value) && !Number.isSafeInteger(value) ? value.toExponential() : String(value);
    }
    if (typeof value === 'bigint') {
      const text = String(value);
      const long = text.replace('-', '').length > limits.digits;
      return long || (stock && !Number.isSafeInteger(Number(value))) ? refuse(value, path) : text;
    }
    const named = name(value, path);
    if (named !== null) return named === undefined ? refuse(value, path) : quote(named);
    const bytes = value instanceof Uint8Array;
    if (typeof value !== 'object' || level + bytes > limits.depth) refuse(value, path); // FRM-8
    if (bytes) return `{"type":"Uint8Array","data":[${value.join(',')}]}`;
    if (Array.isArray(value)) {
      return `[${Array.from(value, (_, index) => within(value, index, level + 1, path)).join(',')}]`;
    }
    if (!isPlain(value) || (value.type === 'Uint8Array' && Array.isArray(value.data))) refuse(value, path); // VAL-4
    return `{${Object.keys(value).filter((key) => value[key] !== undefined) // VAL-9
      .map((key) => `${quote(key)}:${within(value, key, level + 1, path)}`).join(',')}}`;
  };
  return write;
}

// ------------------------------------------------------------------------------------------------- messages

const QUESTIONS = ['request', 'construct', 'get', 'set', 'callback'];
const ANSWERS = ['response', 'stream-chunk', 'stream-end', 'stream-error'];
const TYPES = new Set([...QUESTIONS, ...ANSWERS, 'callback-release', 'stream-cancel', 'stream-ack']);

/** The map key of an id, which tells 1 from "1"; undefined for what is none (MSG-2). */
function keyOf(id, limits) {
  const integer = typeof id === 'bigint' || Number.isSafeInteger(id);
  if (!integer && (typeof id !== 'string' || id.length > limits.idBytes || /\p{Surrogate}/u.test(id))) return undefined;
  const length = integer ? String(id).replace('-', '').length : byteLength(id);
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

// ------------------------------------------------------------------------------------------ what is exposed

const marks = new WeakMap(); // function -> what `handler` said of it

/**
 * Says more of a function that is to be exposed, or passed; returns the function.
 *
 * `parameters`: their names, `?` after optional ones: others than these are refused, and a peer may name them
 * (KWA-1). `anyNames`: it takes whatever a peer names, in its context. `context`: it is called with a context
 * `{signal, meta, kwargs, id, channel}` before its arguments; `signal` is an AbortSignal that says when the peer wants
 * no more of the call or stream, `kwargs` are the arguments by name.
 */
export function handler({ parameters, anyNames = false, context = anyNames }, run) {
  marks.set(run, { parameters, anyNames, context });
  return run;
}

/** The arguments in order (CALL-12, KWA-1). */
function bind(parameters, args, kwargs) {
  const named = Object.keys(kwargs);
  if (!parameters && named.length === 0) return args;
  const plain = listOr(parameters).map((name) => name.replace('?', ''));
  const bound = [...args];
  for (const name of named) bound[plain.indexOf(name)] = kwargs[name];
  const fits = parameters && args.length <= plain.length && named.every((name) => plain.indexOf(name) >= args.length)
    && parameters.every((name, at) => name.endsWith('?') || at in bound);
  if (fits) return bound;
  throw new TypeError('arguments that the function does not take');
}

const classText = /^class\b/;
const isClass = (value) => classText.test(Function.prototype.toString.call(value));

/** A copy of a value that is public data and nothing else, without hidden keys; undefined for any other (CALL-10). */
function publicData(given) {
  const refused = new TypeError('no data');
  const copy = (value, level) => {
    if (['function', 'symbol'].includes(typeof value) || level > LIMITS.depth) throw refused;
    if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value;
    if (Array.isArray(value)) return value.map((item) => copy(item, level + 1));
    if (!isPlain(value)) throw refused;
    const slots = Object.entries(Object.getOwnPropertyDescriptors(value))
      .filter(([key, { enumerable }]) => enumerable && !isHidden(key));
    return Object.fromEntries(slots.map(([key, slot]) => {
      if (!('value' in slot)) throw refused; // code would have to run for it
      return [key, copy(slot.value, level + 1)];
    }));
  };
  try {
    return copy(given, 1);
  } catch (error) {
    if (error === refused) return undefined;
    throw error;
  }
}

/** Looks a path up among own properties of plain objects (CALL-6). Returns the object that has the last segment. */
function find(root, segments, kind) {
  if (root === undefined) throw new Bare('No API implementation available');
  if (segments.length === 0) throw new Bare(`${kind} path  not found at `);
  let here = root;
  let parent = null;
  segments.forEach((segment, at) => {
    const slot = !isHidden(segment) && isPlain(here) ? Object.getOwnPropertyDescriptor(here, segment) : undefined;
    [parent, here] = [here, slot?.value];
    const last = at === segments.length - 1;
    const leads = !last ? isPlain(here) : kind !== 'Property' || publicData(here) !== undefined;
    if (!leads) throw new Bare(`${kind} path ${segments.join('.')} not found at ${segment}`);
  });
  return { parent, found: here };
}

// ------------------------------------------------------------------------------------------- time and turns

/** Runs a job in a later turn of the event loop, when what has come was read. */
const later = typeof setImmediate === 'function' ? setImmediate : (() => {
  const jobs = [];
  const { port1, port2 } = new MessageChannel(); // setTimeout would wait for 4 ms
  port1.onmessage = () => jobs.shift()();
  return (job) => {
    jobs.push(job);
    port2.postMessage(null);
  };
})();

/** Calls an application's listener: what it throws is nobody's here. */
function tell(listener, value) {
  try {
    listener(value);
  } catch (error) {
    queueMicrotask(() => { throw error; });
  }
}

/** Resolves with the promise, or after a time. */
function within(promise, ms) {
  let timer;
  const late = new Promise((resolve) => { timer = setTimeout(resolve, ms); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Calls `drop` once a thing is gone that nobody let go of. */
const collected = typeof FinalizationRegistry === 'function' ? new FinalizationRegistry((drop) => drop()) : null;

// ------------------------------------------------------------------------------------------------- the link

function listen(target, name, listener) {
  if (typeof target.addEventListener === 'function') target.addEventListener(name, listener);
  else if (typeof target.on === 'function') target.on(name, (data) => listener(name === 'message' ? { data } : data));
  else target[`on${name}`] = listener;
}

/** A WebSocket, or anything that has its `send`, `onmessage` and `close`; or a MessagePort, Worker or worker scope. */
class Link {
  constructor(target, { onData, onOpen, onEnd, onClose }) {
    this.target = target;
    this.port = typeof target?.send !== 'function';
    if (this.port && typeof target?.postMessage !== 'function') {
      throw new TypeError('neither a WebSocket nor a MessagePort');
    }
    if ('binaryType' in target) target.binaryType = 'arraybuffer';
    listen(target, 'message', (event) => onData(event.data));
    listen(target, 'messageerror', () => onData(null));
    listen(target, 'open', onOpen);
    listen(target, 'end', onEnd);
    listen(target, 'close', (event) => onClose(event?.code, event?.reason));
    listen(target, 'exit', () => onClose(1001)); // of a Worker in Node
    listen(target, 'error', noop); // `close` or `exit` follows, where it is the end
    target.start?.();
  }

  /** Bytes that wait in the socket: Infinity while it is not open. */
  get pressure() { return this.target.readyState === 0 ? Infinity : this.target.bufferedAmount ?? 0; }

  send(text) {
    if (this.port) this.target.postMessage(text);
    else if ((this.target.readyState ?? 1) === 1) this.target.send(text);
  }

  close(code, reason, stock) {
    if (this.port || stock) this.send(DESTROY); // a port tells nobody that it was closed (TRN-3)
    if (this.port) this.target.close?.();
    else this.target.close(code, reason);
  }
}

/**
 * What waits to be written: stream frames, and all else ahead of them (CLS-4). A producer has one frame here at most,
 * so that streams take turns; their frames leave in a later turn of the event loop, so that a producer that never
 * waits holds up nobody (STR-10).
 */
class Outbox {
  #control = []; // entries {line(), sent(whether)}
  #frames = []; // the same, with {call, keep, gone}
  #stopped = false;
  #scheduled = { control: false, frames: false, room: false };
  owed = 0; // bytes of answers that wait
  written = 0; // lines handed on

  constructor(link, limits, onFull) { Object.assign(this, { link, limits, onFull }); }

  get waiting() { return this.#control.length + this.#frames.length; }

  get #hasRoom() { return this.link.pressure <= this.limits.sendHighWater; }

  push(line, owed) {
    if (this.#stopped) return;
    const size = owed ? line.length + 1 : 0;
    this.#control.push({ line: () => line, sent: () => { this.owed -= size; } });
    this.owed += size;
    if (this.owed > this.limits.sendMax) this.onFull(); // CLS-5
    else this.#schedule('control', queueMicrotask);
  }

  pushFrame(frame) {
    if (this.#stopped) return frame.sent(false);
    frame.call.frame = frame;
    this.#frames.push(frame);
    return this.#schedule('frames', later);
  }

  /** Throws away what a cancel makes pointless (CAN-1), but not what names functions or streams (CBK-6). */
  drop({ frame }) {
    if (!frame || frame.gone || frame.keep()) return;
    frame.gone = true;
    frame.sent(false);
  }

  /** Nothing more is written. */
  stop() {
    this.#stopped = true;
    this.#control = [];
    this.#frames.splice(0).forEach((frame) => frame.gone || frame.sent(false));
  }

  #schedule(what, by) {
    if (this.#scheduled[what]) return;
    this.#scheduled[what] = true;
    by(() => {
      this.#scheduled[what] = false;
      this.flush(what !== 'control');
    });
  }

  /** Writes what there is room for: one item of stream frames, the next in another turn. `all`: whatever the room. */
  flush(frames = true, all = false) {
    while (this.#control.length > 0 && (all || this.#hasRoom)) {
      this.#control = this.#control.slice(this.#write(this.#control));
    }
    while (frames && this.#frames.length > 0 && this.#control.length === 0 && (all || this.#hasRoom)) {
      this.#frames = this.#frames.slice(this.#write(this.#frames));
      frames = all;
    }
    if (this.waiting > 0 && !this.#hasRoom) {
      this.#schedule('room', (job) => setTimeout(job, 5)); // a WebSocket does not say when it has room again
    } else if (this.#frames.length > 0) this.#schedule('frames', later);
  }

  /** Writes small lines together, a large one alone (TRN-5); returns how many entries it took. */
  #write(entries) {
    const taken = [];
    let lines = [];
    let size = 0;
    for (const entry of entries) {
      taken.push(entry);
      if (entry.gone) continue;
      const line = entry.line();
      if (lines.length > 0 && size + line.length > ITEM) {
        this.#send(lines);
        [lines, size] = [[], 0];
      }
      lines.push(line);
      size += line.length + 1;
      if (size >= ITEM) break;
    }
    if (lines.length > 0) this.#send(lines);
    taken.forEach((entry) => {
      if (entry.gone) return;
      entry.gone = true;
      entry.sent(true);
    });
    return taken.length;
  }

  #send(lines) {
    this.written += lines.length;
    const text = `${lines.join('\n')}\n`;
    const blank = lines.length > 1 && text.length % 65536 === 1 ? ' ' : ''; // FRM-10
    this.link.send(blank + text);
  }
}

// -------------------------------------------------------------------------------------- the consumer's half

const INITIAL = { chunks: 64, bytes: 256 * KIB }; // CRD-1

/** What a consumer has granted, and what came of it. `granted + unread + taken = window`, in both units (CRD-5). */
class Window {
  chunks = INITIAL.chunks;
  bytes = INITIAL.bytes;
  #size = { ...INITIAL };
  #taken = { chunks: 0, bytes: 0 };

  constructor({ streamBuffer, streamChunks }) {
    this.budget = { chunks: Math.max(streamChunks, INITIAL.chunks), bytes: Math.max(streamBuffer, INITIAL.bytes) };
  }

  /** A frame came; false: there was no credit for it (CRD-4). */
  arrived(chunks, bytes) {
    if (chunks > this.chunks || this.bytes <= 0) return false;
    this.chunks -= chunks;
    this.bytes -= bytes;
    return true;
  }

  /** What to grant now that so much was taken; null where it is not worth a message. */
  taken(chunks, bytes) {
    const taken = this.#taken;
    const size = this.#size;
    taken.chunks += chunks;
    taken.bytes += bytes;
    if (taken.chunks * 2 < size.chunks && taken.bytes * 2 < size.bytes) return null;
    const perChunk = Math.floor(taken.bytes / taken.chunks) + 1;
    const fitting = Math.min(Math.max(Math.floor(this.budget.bytes / perChunk), 1), this.budget.chunks);
    // A window that shrinks takes back nothing that was granted, only what would be granted again.
    const next = {
      chunks: Math.max(Math.min(size.chunks * 4, fitting), size.chunks - taken.chunks),
      bytes: Math.min(size.bytes * 4, this.budget.bytes),
    };
    const grant = { n: taken.chunks + next.chunks - size.chunks, b: taken.bytes + next.bytes - size.bytes };
    this.#size = next;
    this.#taken = { chunks: 0, bytes: 0 };
    this.chunks += grant.n;
    this.bytes += grant.b;
    return grant;
  }
}

/** Where a stream's values lie until they are read. The channel has this half, the reader a RemoteStream. */
class Receiver {
  unread = 0; // bytes
  #frames = []; // {values, at, size, things}
  #head = 0;
  #waiting = [];
  #end = null; // {value} or {error}; {told: true} once it was read
  #discarding = false;

  /**
   * `onTaken(chunks, bytes)`: the reader took a frame; `onCancel(error)`; `onDropped(things)`: nobody saw them.
   * `shared.bytes` counts what lies unread here, too.
   */
  constructor({ onTaken, onCancel, onDropped, shared }) {
    Object.assign(this, { onTaken, onCancel, onDropped, shared });
    this.result = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    this.result.catch(noop);
  }

  get ended() { return this.#end !== null; }

  #count(size) {
    this.unread += size;
    this.shared.bytes += size;
  }

  add(values, size, things) {
    this.#count(size);
    this.#frames.push({ values, at: 0, size, things });
    this.#serve();
  }

  finish(end) {
    if (this.#end) return;
    this.#end = end;
    if ('error' in end) this.reject(end.error);
    else this.resolve(end.value);
    this.#serve();
  }

  next() {
    const promise = new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
    this.#serve();
    return promise;
  }

  /** The next step, null where there is none yet: values first, then the end, once (STR-9). */
  #step() {
    const frame = this.#frames[this.#head];
    if (!frame) {
      const end = this.#end;
      if (end) this.#end = { told: true };
      return end;
    }
    const step = { value: frame.values[frame.at++], more: true };
    if (frame.at < frame.values.length) return step;
    this.#frames[this.#head++] = undefined;
    if (this.#head * 2 >= this.#frames.length) {
      this.#frames = this.#frames.slice(this.#head);
      this.#head = 0;
    }
    this.#count(-frame.size);
    this.onTaken(frame.values.length, frame.size); // CRD-8
    return step;
  }

  #serve() {
    if (this.#discarding) this.#drop(true);
    while (this.#waiting.length > 0) {
      const step = this.#step();
      if (!step) return;
      const { resolve, reject } = this.#waiting.shift();
      if ('error' in step) reject(step.error);
      else resolve({ value: step.value, done: !step.more });
    }
  }

  /** No more values are wanted; the producer goes on. */
  drain() {
    this.#discarding = true;
    this.#serve();
    return this.result;
  }

  #drop(taken) {
    for (const { values, at, size, things } of this.#frames.splice(0).slice(this.#head)) {
      this.#count(-size);
      if (at === 0) this.onDropped(things); // else some of them may be in use
      if (taken) this.onTaken(values.length, size);
    }
    this.#head = 0;
  }

  /** The stream is not wanted any more. Resolves once the peer has said that it has ended, where it says so. */
  cancel(error = new CallCancelled('the stream was cancelled'), told = true) {
    this.#drop(false);
    this.reject(error);
    if (told || !this.#end) this.#end = told ? { told } : { error };
    this.#serve();
    return this.onCancel(error);
  }
}

/** A stream of the peer's: an asynchronous iterator. To leave a `for await` loop, or to let go of it, cancels it. */
export class RemoteStream {
  #source;

  constructor(source) {
    this.#source = source;
    collected?.register(this, () => source.cancel(), this);
  }

  [Symbol.asyncIterator]() { return this; }

  /** The next step. Beyond its last value a stream raises the error that it ended in, or gives what it returned. */
  next() { return this.#source.next(); }

  return(value) {
    this.cancel();
    return Promise.resolve({ value, done: true });
  }

  throw(error) {
    this.cancel();
    return Promise.reject(error);
  }

  /** What the producer returned, once it has ended: a promise. It reads nothing: see `drain`. */
  get result() {
    collected?.unregister(this); // whoever waits for it need not hold the stream
    return this.#source.result;
  }

  /** Reads the rest without a look at it, and gives what the producer returned. */
  drain() {
    collected?.unregister(this);
    return this.#source.drain();
  }

  /** Wants no more. Resolves once the producer's cleanup has run, where the peer says so. */
  async cancel() { await this.#source.cancel(); }
}

// ---------------------------------------------------------------------------------------------- the channel

const entries = new WeakMap(); // function of a peer -> what its channel knows of it

/** What a message names: placeholder -> function or stream; `used` are those that its values have. */
class Things extends Map {
  used = new Set();

  /** The thing that a text stands for, or undefined. */
  use(text) {
    const thing = this.get(text);
    if (thing !== undefined) this.used.add(thing);
    return thing;
  }

  get unused() { return [...this.values()].filter((thing) => !this.used.has(thing)); }
}

const NO_THINGS = new Things();

/**
 * A channel to one peer. `target` is a WebSocket (open or not yet), a MessagePort, a Worker, the scope of a worker, or
 * any object with `send`, `onmessage` and `close`. `options` are described in kkrpc.d.ts.
 */
export class RPCChannel {
  /** Messages of the peer that broke a rule, and lines that were no messages. */
  counted = 0;
  noise = 0;
  /** Resolves once it is known what the peer has: at the latest after `helloMs`. Never rejects. */
  ready;
  /** Resolves at the end: with a KkrpcError that says why, or null where this side closed. Never rejects. */
  closed;

  #options;
  #limits;
  #root;
  #settable;
  #constructible;
  #features;
  #link;
  #outbox;
  #reason = null;
  #warned = false;
  #helloPending = false;
  #saidHello = false; // this side's hello, or its answer to one, was sent
  #known = false; // the peer's features are known: it is no stock peer
  #agreed = NONE; // features in force (HEL-3); replaced, never changed, so that calls keep theirs (HEL-5)
  #incoming = new Map(); // the peer's calls, and own streams within values
  #running = 0; // the peer's calls
  #runningBytes = 0;
  #outgoing = new Map(); // own calls, and the peer's streams within values
  #within = { streams: 0, bytes: 0 }; // the latter
  #abandoned = new Set(); // keys of stock streams that were cancelled (CAN-2)
  #own = new Map(); // own functions by id: {run, named}
  #ownIds = new Map();
  #theirs = new Map(); // functions of the peer by id
  #serial = 0;
  #prefix;
  #state = 'open'; // 'closing': nothing more is read; 'closed': nothing more is said
  #idle = noop;
  #settle = {};

  constructor(target, options = {}) {
    const { expose, settable = [], constructible = [], features = FEATURES, limits = {} } = options;
    if (expose !== undefined && !isPlain(expose)) {
      throw new TypeError('what is exposed is a plain object of functions, values and such objects');
    }
    this.#options = options;
    this.#limits = { ...LIMITS, ...limits };
    this.#root = expose;
    this.#settable = new Set(settable);
    this.#constructible = new Set(constructible);
    this.#features = features.filter((name) => FEATURES.includes(name));
    this.#prefix = options.idPrefix ?? 'js';
    this.closed = new Promise((resolve) => { this.#settle.closed = resolve; });
    this.ready = new Promise((resolve) => { this.#settle.ready = resolve; });
    this.#link = new Link(target, {
      onData: (data) => this.#receive(data),
      onOpen: () => this.#outbox.flush(),
      onEnd: () => this.#end(null, { grace: this.#limits.finishMs }),
      onClose: (code, why) => this.#lost(code, why),
    });
    this.#outbox = new Outbox(this.#link, this.#limits, () => {
      this.#end(new LimitExceeded('the peer does not read its answers'));
    });
    if (options.hello === false) this.#settle.ready();
    else this.#sayHello();
  }

  /** The peer has said no hello: it has none of the extensions. */
  get stock() { return !this.#known; }

  /** What both sides have. */
  get features() { return new Set(this.#agreed); }

  /** What there is, for those who look for leaks: numbers of calls, streams, functions, and of frames that wait. */
  get stats() {
    return {
      incoming: this.#incoming.size, outgoing: this.#outgoing.size, own: this.#own.size, theirs: this.#theirs.size,
      waiting: this.#outbox.waiting, written: this.#outbox.written,
    };
  }

  /**
   * The peer's API: `api.math.add(1, 2)` calls, `await api.settings.theme` gets, `api.settings.theme = 'dark'` sets,
   * `await new api.Point(1, 2)` constructs. See `withOptions` for a signal or a timeout.
   */
  remote(options = {}) { return proxyOf(this, [], options); }

  /** Calls a method: a promise of its value or of a RemoteStream, that `for await` takes as well. */
  call(path, args = [], options = {}) {
    const { kwargs, meta } = options;
    return this.#ask('request', { method: textOf(path), args, kwargs, meta }, options);
  }

  /** Makes an instance at the peer: a promise of its public fields. */
  construct(path, args = [], options = {}) {
    const { kwargs, meta } = options;
    return this.#ask('construct', { method: textOf(path), args, kwargs, meta }, options);
  }

  get(path, options = {}) { return this.#ask('get', { path: listOf(path) }, options); }

  set(path, value, options = {}) { return this.#ask('set', { path: listOf(path), value }, options); }

  /** An own function that was passed to the peer can be called by it no more (CBK-5). */
  release(run) {
    const id = this.#ownIds.get(run);
    if (id !== undefined) this.#forgetOwn(id);
  }

  /** Tells `onError` of what nobody else hears of, such as the failure of `api.x = 1`. */
  unheard(error) { tell(this.#options.onError ?? console.error, error); }

  /** Closes: what was said before still leaves. Resolves once handlers that ran for the peer have cleaned up. */
  async close() {
    this.#end(null);
    await this.closed;
  }

  [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() { return this.close(); }

  // ------------------------------------------------------------------------------------------------ sending

  /** The JSON of some fields `{key: value}` at a level, and what they name. Refuses what cannot be sent. */
  #encode(fields, { type, level = 2, at = [] }) {
    const fresh = new Map(); // function or stream -> its id
    const texts = new Set();
    const stock = !this.#known;
    const write = valueWriter({
      limits: this.#limits,
      stock,
      name: (thing, path) => this.#name(thing, path, type, fresh),
      refuses: (text, path) => { // VAL-5
        if (text.startsWith('__')) texts.add(text);
        return stock && path.length === 2 && typeof path[1] === 'number' && text.startsWith('__callback__');
      },
    });
    const parts = Object.entries(fields).filter(([, value]) => value !== undefined)
      .map(([key, value]) => [key, write(value, level, [...at, key])]);
    const taken = ([thing, name]) => texts.has(isStream(thing) ? name : `__callback__${name}`);
    if ([...fresh].some(taken)) throw new NotSerializable('text that would arrive as a function'); // CBK-1
    const added = [...fresh.keys()].filter((thing) => !isStream(thing) && !this.#ownIds.has(thing)).length;
    if (added > 0 && this.#own.size + added > this.#limits.callbacks) { // CBK-7
      throw new LimitExceeded('the peer holds too many functions');
    }
    return { parts, fresh };
  }

  /** The placeholder of a function or stream; undefined where none may stand (CBK-1, ARG-1); null for others. */
  #name(thing, path, type, fresh) {
    if (typeof thing !== 'function' && !isStream(thing)) return null;
    const stock = ['request', 'construct'].includes(type) && path[0] === 'args' && path.length === 2;
    if (path[0] === 'meta' || (path[1] === 'error' && ANSWERS.includes(type))) return undefined;
    if (isStream(thing)) {
      if (!this.#agreed.has('stream-arguments') || fresh.has(thing)) return undefined;
      let id;
      do id = `__stream__${this.#prefix}-${++this.#serial}`; while (this.#incoming.has(`text ${id}`)); // ARG-2
      fresh.set(thing, id);
      return id;
    }
    if (!stock && !this.#agreed.has('callback')) return undefined;
    if (!fresh.has(thing)) fresh.set(thing, this.#ownIds.get(thing) ?? `${this.#prefix}-${++this.#serial}`);
    return `__callback__${fresh.get(thing)}`;
  }

  /** The line of a message (CLA-1). */
  #line(type, id, called, parts, fresh) {
    const list = (key, which) => {
      const names = [...fresh].filter(([thing]) => isStream(thing) === which).map(([, name]) => quote(name));
      return names.length > 0 ? [`"${key}":[${names}]`] : [];
    };
    const texts = parts.map(([key, text]) => `"${key}":${text}`);
    const line = `{${[
      ...(id === undefined ? [] : [`"id":${typeof id === 'string' ? quote(id) : id}`]),
      `"method":${quote(called)}`, texts[0], `"type":"${type}"`,
      ...list('callbackIds', false), ...list('streamIds', true), ...texts.slice(1), '"version":"json"',
    ]}}`;
    if (line.length > this.#limits.frame) throw new LimitExceeded('a message too long'); // FRM-6
    return line.length % 65536 === 0 ? `${line.slice(0, -1)} }` : line; // FRM-10
  }

  /** Books what a message names, once it is certain to be sent; what it returns starts its streams. */
  #commit(fresh) {
    const streams = [];
    for (const [thing, id] of fresh) {
      if (isStream(thing)) {
        streams.push([this.#enter({ id, key: `text ${id}`, inner: true, size: 0 }), thing]);
      } else {
        if (!this.#own.has(id)) this.#own.set(id, { run: thing, named: 0 });
        this.#own.get(id).named++;
        this.#ownIds.set(thing, id);
      }
    }
    return () => streams.forEach(async ([call, stream]) => {
      await this.#produce(call, stream);
      this.#leave(call);
    });
  }

  #send(type, id, { method = '', ...fields } = {}, owed = false) {
    const { parts, fresh } = this.#encode({ args: {}, ...fields }, { type });
    const line = this.#line(type, id, method, parts, fresh);
    if (this.#state === 'closed') return;
    const begin = this.#commit(fresh);
    this.#outbox.push(line, owed);
    begin();
  }

  /** An error as data: what of it cannot be sent is left out, field by field (ERR-4). */
  #plain(error, causes = 8) {
    const { name, message } = error ?? {};
    const text = message ?? error;
    const plain = {
      name: typeof name === 'string' && name ? name : 'Error', message: isObject(text) ? '' : String(text),
    };
    const fields = error instanceof Error ? { ...(error instanceof KkrpcError ? error.fields : error) } : {};
    if (error instanceof Error && Object.hasOwn(error, 'cause')) fields.cause ??= error.cause;
    for (const [key, value] of Object.entries(fields)) {
      if (['name', 'message', 'stack'].includes(key) || (key.startsWith('_') && key !== '__notes__')) continue;
      const isError = value instanceof Error;
      if (isError && causes === 0) continue;
      try {
        const field = isError ? this.#plain(value, causes - 1) : value;
        this.#encode({ args: { error: { ...plain, [key]: field } } }, { type: 'response' });
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

  #fail(id, error) { this.#sendError(error, (args) => this.#send('response', id, { args }, true)); }

  /** An own function may be called no more (CBK-5), or was given back (CBK-6). */
  #forgetOwn(id) {
    this.#ownIds.delete(this.#own.get(id)?.run);
    this.#own.delete(id);
  }

  // ------------------------------------------------------------------------------------------------ reading

  #receive(data) {
    let text = data;
    if (data instanceof ArrayBuffer || ArrayBuffer.isView(data)) { // who sends text as bytes; CBOR is noise here
      try {
        text = utf8.decode(data);
      } catch { /* noise */ }
    }
    if (typeof text !== 'string') return this.#count(); // TRN-9
    if (text === DESTROY || text === `${DESTROY}\n`) return this.#lost(1000);
    try {
      for (let from = 0, end = 0; end >= 0 && this.#state === 'open'; from = end + 1) {
        end = text.indexOf('\n', from);
        if (end !== from) this.#read(end < 0 ? text.slice(from) : text.slice(from, end)); // FRM-14: an item ends a line
      }
    } catch (error) {
      this.#end(error instanceof KkrpcError ? error : new KkrpcError('a fault in this library', { cause: error }));
    }
    return undefined;
  }

  #heardNoise(line) {
    this.noise++;
    tell(this.#options.onNoise ?? noop, line.slice(0, this.#limits.noise)); // FRM-7
  }

  #read(line) {
    const text = line.replace(/^[ \t\r]*(?:\uFEFF[ \t\r]*(?=\{))?/, ''); // FRM-1
    if (text === '') return undefined;
    const size = byteLength(line);
    const json = text[0] === '{' && !text.startsWith('{"json":'); // CLA-6
    if (text[0] === '{' && size > this.#limits.frame) throw new LimitExceeded('a message too long'); // FRM-6
    const { message, flaw: deep } = (json && parse(text, this.#limits)) || {};
    if (!isObject(message) || !TYPES.has(message.type)) {
      if (!json && text[0] === '{' && !this.#warned) {
        this.#warned = true;
        this.unheard(new ProtocolError('the peer writes superjson: it is to be told to write json'));
      }
      return this.#heardNoise(line); // FRM-4
    }
    const { type, args } = message;
    const key = keyOf(message.id, this.#limits);
    const flaw = deep ?? ('id' in message && key === undefined ? 'wrong id' : flawOf(message));
    const names = this.#names(message);
    if (QUESTIONS.includes(type)) return this.#question(message, key, flaw, names, size);
    if (ANSWERS.includes(type)) return this.#answer(message, key, flaw, names, size);
    if (flaw || (key === undefined && type !== 'callback-release')) return this.#count();
    if (type === 'callback-release') return this.#released(args);
    const call = this.#incoming.get(key);
    return type === 'stream-cancel' ? this.#cancel(call) : this.#acknowledged(call, args);
  }

  #count() { this.counted++; }

  /** The functions and streams that a message names, where that means something. */
  #names({ type, callbackIds, streamIds }) {
    const values = ANSWERS.includes(type) || (QUESTIONS.includes(type) && type !== 'get');
    const stock = type === 'request' || type === 'construct';
    const functions = values && isTexts(callbackIds) && (stock || this.#agreed.has('callback'));
    const streams = values && isTexts(streamIds) && this.#agreed.has('stream-arguments');
    return { functions: functions ? [...new Set(callbackIds)] : [], streams: streams ? streamIds : [] };
  }

  /** Takes over what a message names, as placeholder -> thing, or throws; it has been given back then. */
  #take(names) {
    const { functions, streams } = names;
    const { idBytes, callbacks, calls } = this.#limits;
    if (functions.length + streams.length === 0) return NO_THINGS;
    const held = this.#theirs.size + functions.filter((id) => !this.#theirs.has(id)).length;
    const short = [...functions, ...streams].every((id) => byteLength(id) <= idBytes);
    const good = streams.every((id) => this.#usable(id)) && new Set(streams).size === streams.length;
    const many = Math.max(functions.length, streams.length) > 65536 // CBK-7
      || (functions.length > 0 && held > callbacks)
      || (streams.length > 0 && this.#within.streams + streams.length > calls); // ARG-5
    if (!short || !good || many) {
      this.#giveBack(names);
      throw new (short && good ? LimitExceeded : ProtocolError)('functions or streams that are not taken');
    }
    return new Things([
      ...functions.map((id) => [`__callback__${id}`, this.#theirFunction(id)]),
      ...streams.map((id) => [id, new RemoteStream(this.#theirStream(id))]),
    ]);
  }

  #usable(id) { return id.startsWith('__stream__') && !this.#outgoing.has(`text ${id}`); }

  #theirStream(id) {
    const call = { id, key: `text ${id}`, agreed: this.#agreed, inner: true, forget: noop, settle: noop };
    this.#within.streams++;
    this.#outgoing.set(call.key, call);
    return this.#attach(call);
  }

  /** CBK-6, ARG-3: what is not looked at is given back, or cancelled, all the same. */
  #giveBack({ functions, streams }) {
    this.#sayReleased(functions.slice(0, 65536).map((id) => [id, 1])); // CBK-7
    for (const id of streams.slice(0, 65536)) if (this.#usable(id)) this.#theirStream(id).cancel();
  }

  /** Lets go of functions and streams that nobody here has seen (CBK-6, ARG-3). */
  #drop(things) {
    for (const thing of things) {
      if (typeof thing === 'function') this.#unname(thing);
      else thing.cancel();
    }
  }

  /** A value with bytes, functions and streams in their places; `depth` is 1 at the top level of args. */
  #revive(things, value, depth) {
    if (typeof value === 'string') {
      if (depth > 1 && typeof things.get(value) === 'function' && !this.#agreed.has('callback')) return value; // CBK-1
      return things.use(value) ?? value;
    }
    if (typeof value !== 'object' || value === null) return value;
    const bytes = bytesOf(value);
    if (bytes) return bytes;
    const keys = Array.isArray(value) ? value.keys() : Object.keys(value); // own ones alone
    for (const key of keys) value[key] = this.#revive(things, value[key], depth + 1);
    // A promise that is resolved with it would call the peer, and wait for what that likes.
    if (typeof own(value, 'then') === 'function') throw new ProtocolError('a function is named "then"');
    return value;
  }

  // ------------------------------------------------------------------------------------ functions of the peer

  #theirFunction(id) {
    const entry = this.#theirs.get(id);
    const known = entry?.ref.deref();
    if (known) {
      entry.named++;
      return known;
    }
    const fresh = { id, named: 1, released: false };
    const run = (...args) => this.#callTheirs(fresh, args);
    run.notify = (...args) => this.#callTheirs(fresh, args, false);
    run.release = () => this.#letGo(fresh);
    // No closure here may refer to `run`: those that stay would keep it.
    fresh.ref = typeof WeakRef === 'function' ? new WeakRef(run) : { run, deref() { return this.run; } };
    collected?.register(run, () => this.#letGo(fresh));
    entries.set(run, fresh);
    this.#theirs.set(id, fresh);
    return run;
  }

  #callTheirs(entry, args, answered = true) {
    const fields = { method: entry.id, args };
    if (entry.released) {
      return Promise.reject(new CallbackReleased('CallbackReleased', 'the function was released by this side'));
    }
    if (answered && this.#agreed.has('callback')) return this.#ask('callback', fields);
    try {
      if (this.#state !== 'open') throw new ChannelClosed('the channel is closed');
      this.#send('callback', undefined, fields);
      return Promise.resolve(undefined);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** This side holds it no more (CBK-6). */
  #letGo(entry) {
    if (entry.released) return;
    entry.released = true;
    if (this.#theirs.get(entry.id) === entry) this.#theirs.delete(entry.id);
    this.#sayReleased([[entry.id, entry.named]]);
  }

  /** One of the messages that named it was not looked at. */
  #unname(run) {
    const entry = entries.get(run);
    if (entry.named === 1) this.#letGo(entry);
    else if (!entry.released) {
      entry.named--;
      this.#sayReleased([[entry.id, 1]]);
    }
  }

  #sayReleased(counts) {
    if (!this.#agreed.has('callback') || this.#state === 'closed') return;
    for (let at = 0; at < counts.length; at += 100) { // however long the ids are, a frame has room for these
      this.#send('callback-release', undefined, { args: Object.fromEntries(counts.slice(at, at + 100)) }, true);
    }
  }

  // -------------------------------------------------------------------------------------- the callee's half

  #enter(fields) {
    const call = { ...fields, agreed: this.#agreed, cancelled: false, wake: noop, interrupt: noop };
    if (call.agreed.has('credit')) call.credit = { ...INITIAL };
    this.#incoming.set(call.key ?? call, call);
    if (!call.inner) {
      this.#running++;
      this.#runningBytes += call.size;
    }
    return call;
  }

  #leave(call) {
    this.#incoming.delete(call.key ?? call);
    if (!call.inner) {
      this.#running--;
      this.#runningBytes -= call.size;
    }
    if (this.#incoming.size === 0) this.#idle();
  }

  #question(message, key, flaw, names, size) {
    const { type } = message;
    const id = key === undefined ? undefined : message.id;
    const asked = type !== 'callback' || (this.#agreed.has('callback') && key !== undefined);
    const taken = asked && this.#incoming.has(key); // MSG-3: no answer, it would be taken for the running call's
    if (type === 'request' && message.method === 'kkrpc.hello' && !flaw && !taken) return this.#hello(id, message.args);
    const many = this.#running >= this.#limits.calls || this.#runningBytes + size > this.#limits.callBytes; // CALL-7
    if (flaw || many || taken) {
      this.#count();
      if (asked && !taken) this.#fail(id, flaw ? new Bare(flaw) : new LimitExceeded('too many calls'));
      return this.#giveBack(names);
    }
    const given = {};
    let things = NO_THINGS;
    try {
      things = this.#take(names);
      const each = (object, known) => Object.fromEntries(Object.entries(isObject(object) ? object : {})
        .map(([name, item]) => [name, this.#revive(known, item, 2)]));
      given.kwargs = each(message.kwargs, things);
      given.meta = each(message.meta, NO_THINGS);
      given.args = this.#revive(things, listOr(message.args), 0);
      given.value = this.#revive(things, message.value ?? null, 0);
      this.#drop(things.unused);
    } catch (error) {
      this.#drop(things.values());
      return asked ? this.#fail(id, error) : this.#count();
    }
    const call = this.#enter({ id, key: asked ? key : undefined, size, asked, things: [...things.used] });
    return this.#run(call, () => this.#begin(call, message, given));
  }

  #begin(call, { type, method: called, path }, { args, kwargs, meta, value }) {
    if (type === 'callback') return this.#callOwn(call, called, args, kwargs);
    if (type === 'get' || type === 'set') { // CALL-10
      const { parent, found } = find(this.#root, path, 'Property');
      if (type === 'get') return publicData(found);
      if (!this.#settable.has(path.join('.'))) {
        throw new RemoteError('PermissionError', `${path.join('.')} may not be set`);
      }
      if (call.things.length > 0) throw new TypeError('a property holds data alone');
      parent[path.at(-1)] = value;
      return true;
    }
    const builds = type === 'construct';
    const { parent, found } = find(this.#root, called.split('.'), builds ? 'Constructor' : 'Method');
    const listed = this.#constructible.has(called);
    if (typeof found !== 'function' || (builds ? !listed : listed || isClass(found))) {
      throw new Bare(builds ? `${called} is not a constructor function` : `Method ${called} is not a function`);
    }
    const bound = this.#arguments(found, call, args, kwargs, meta);
    if (!builds) return Reflect.apply(found, parent, bound);
    const fields = publicData({ ...Reflect.construct(found, bound) }); // CALL-9
    if (fields === undefined) throw new NotSerializable('an instance with a public field that is no data');
    return fields;
  }

  #arguments(run, call, args, kwargs, meta = {}) {
    const { parameters, anyNames, context } = marks.get(run) ?? {};
    const bound = anyNames ? args : bind(parameters, args, kwargs);
    call.things = []; // from here on they are the function's
    if (!context) return bound;
    call.abort = new AbortController();
    return [{ signal: call.abort.signal, meta, kwargs, id: call.id, channel: this }, ...bound];
  }

  async #callOwn(call, id, args, kwargs) {
    const run = this.#own.get(id)?.run;
    if (run === undefined) { // CBK-5
      const [prefix, number] = [id.slice(0, this.#prefix.length + 1), id.slice(this.#prefix.length + 1)];
      const passed = prefix === `${this.#prefix}-` && /^\d{1,15}$/.test(number) && Number(number) <= this.#serial;
      if (!call.asked && !passed) this.#count();
      throw new CallbackReleased('CallbackReleased', 'the function was released, or never passed');
    }
    return run(...this.#arguments(run, call, args, kwargs));
  }

  async #run(call, begin) {
    let result;
    try {
      result = await begin(); // begins at once: in the order of the calls (CALL-2)
      const stream = isStream(result);
      if (stream && (call.key === undefined || call.cancelled)) { // MSG-5, CAN-7: nobody will read it
        await result.return?.();
        if (call.asked && !call.cancelled) throw new ProtocolError('a stream needs an id');
      }
      if (call.cancelled) throw new CallCancelled('the call was cancelled'); // CAN-4
      if (own(result, '__stream') === true) { // CLA-4
        throw new NotSerializable('an object that would arrive as a stream');
      }
      if (call.asked) {
        this.#send('response', call.id, { args: { result: stream ? { __stream: true } : result } }, true);
        if (stream) await this.#produce(call, result);
      }
    } catch (error) {
      if (call.asked) this.#fail(call.id, error);
    }
    this.#drop(call.things);
    this.#leave(call);
  }

  /** Sends what an iterator gives, some values a frame at most (section 7). Never throws. */
  async #produce(call, stream) {
    Object.assign(call, { streaming: true, pending: { values: [], bytes: 0, fresh: null } });
    let iterator = null;
    let failure = null;
    let step = null;
    try {
      iterator = stream[Symbol.asyncIterator]?.() ?? stream;
      for (;;) {
        while (!call.cancelled && !this.#hasRoom(call)) await new Promise((resolve) => { call.wake = resolve; });
        if (call.cancelled) break;
        step = await new Promise((resolve, reject) => { // not Promise.race: it would keep each step
          call.interrupt = resolve;
          new Promise((next) => { next(iterator.next()); }).then(resolve, reject);
        });
        if (call.cancelled || step.done) break;
        await this.#chunkOut(call, step.value);
      }
    } catch (error) {
      failure = error;
    }
    if (!step?.done || call.cancelled) {
      try {
        await iterator?.return?.(); // its cleanup
      } catch (error) {
        failure ??= error;
      }
    }
    if (call.cancelled && failure?.name === 'CallCancelled') failure = null;
    if (call.cancelled && !call.agreed.has('cancel')) return; // CAN-2
    const end = call.agreed.has('result') ? { result: step?.value } : {}; // RES-1
    try {
      if (failure) throw failure;
      await this.#frameOut('stream-end', call, call.cancelled ? { cancelled: true } : end);
    } catch (error) {
      await this.#sendError(error, (args) => this.#frameOut('stream-error', call, args));
    }
  }

  /** Whether one more value may be asked for: the credit has to do for what waits here, too (CRD-3). */
  #hasRoom({ pending, agreed, credit }) {
    const { values, bytes, fresh } = pending;
    if (fresh || values.length >= (agreed.has('batch') ? 256 : 1) || bytes >= 64 * KIB) return false; // BAT-2
    return !credit || (credit.chunks > values.length && credit.bytes > bytes);
  }

  /** Adds a value to the frame that waits; what is ready until that is written leaves with it (BAT-3). */
  async #chunkOut(call, value) {
    const { pending, agreed } = call;
    const level = agreed.has('batch') ? 4 : 3;
    const { parts: [[, text] = [, 'null']], fresh } = this.#encode(
      { value: value ?? null }, { type: 'stream-chunk', level, at: ['args'] },
    );
    const overhead = 256 + 6 * quote(String(call.id)).length + 64 * fresh.size;
    if (text.length + overhead > this.#limits.frame) throw new LimitExceeded('a chunk too long'); // STR-11
    if (pending.values.length > 0 && (fresh.size > 0 || pending.bytes + text.length > 64 * KIB)) {
      await this.#written(call);
      if (call.cancelled) return;
    }
    const begin = this.#commit(fresh);
    pending.values.push(text);
    pending.bytes += text.length;
    pending.fresh = fresh.size > 0 ? fresh : null;
    if (pending.values.length > 1) return;
    this.#outbox.pushFrame({
      call,
      keep: () => pending.fresh !== null,
      line: () => {
        const args = pending.values.length > 1 ? `{"values":[${pending.values}]}` : `{"value":${pending.values[0]}}`;
        const line = this.#line('stream-chunk', call.id, '', [['args', args]], pending.fresh ?? NO_THINGS);
        if (call.credit) {
          call.credit.chunks -= pending.values.length;
          call.credit.bytes -= line.length;
        }
        return line;
      },
      sent: (handedOn) => {
        Object.assign(pending, { values: [], bytes: 0, fresh: null });
        if (handedOn) begin(); // ARG-2: not ahead of the message that names it
        call.wake();
      },
    });
  }

  async #written(call) {
    while (call.pending.values.length > 0) await new Promise((resolve) => { call.wake = resolve; });
  }

  /** Sends an end or an error of a stream, after its chunks; it takes no credit (RES-3). */
  async #frameOut(type, call, args) {
    await this.#written(call);
    const { parts, fresh } = this.#encode({ args }, { type });
    const line = this.#line(type, call.id, '', parts, fresh);
    if (this.#state === 'closed') return;
    const begin = this.#commit(fresh);
    await new Promise((resolve) => {
      this.#outbox.pushFrame({ call, line: () => line, keep: () => true, sent: resolve }); // CAN-3
    });
    begin();
  }

  #cancel(call) {
    if (!call || call.cancelled) return; // CAN-5, CAN-7
    call.cancelled = true;
    this.#outbox.drop(call); // CAN-1
    call.abort?.abort(new CallCancelled('the call was cancelled'));
    call.wake();
    call.interrupt();
  }

  /** Cancels what runs for the peer, but for a call that a context belongs to. */
  cancelIncoming(but) {
    for (const call of [...this.#incoming.values()]) if (call.abort?.signal !== but?.signal || !but) this.#cancel(call);
  }

  #acknowledged(call, { n, b }) {
    if (!call?.credit) return; // CRD-6
    if (!call.streaming && !call.inner && !call.cancelled) this.#count();
    else if (call.streaming || call.inner) {
      call.credit.chunks = Math.min(call.credit.chunks + Number(n), Number.MAX_SAFE_INTEGER);
      call.credit.bytes = Math.min(call.credit.bytes + Number(b), Number.MAX_SAFE_INTEGER);
      call.wake();
    }
  }

  #released(counts) { // CBK-6
    for (const [id, count] of Object.entries(counts)) {
      const entry = this.#own.get(id);
      if (!entry) continue;
      entry.named -= Number(count);
      if (entry.named < 0) this.#count();
      if (entry.named <= 0) this.#forgetOwn(id);
    }
  }

  // --------------------------------------------------------------------------------------------------- hello

  #offer() { return { protocol: 1, features: this.#features }; }

  #sayHello() {
    const { helloMs } = this.#limits;
    const timer = setTimeout(this.#settle.ready, helloMs);
    this.ready.then(() => clearTimeout(timer));
    this.#helloPending = true;
    this.ready.then(() => { this.#helloPending = false; });
    const call = this.#make('request');
    call.settle = (error, answer) => {
      if (answer instanceof RemoteStream) answer.cancel();
      else if (!error && own(answer, 'protocol') === 1 && Array.isArray(answer.features)) this.#learn(answer.features);
      this.#settle.ready();
    };
    this.#put(call, 'request', { method: 'kkrpc.hello', args: [this.#offer()] });
    this.#saidHello = true;
  }

  #hello(id, args) {
    const [offer] = listOr(args);
    const readable = listOr(args).length === 1 && offer?.protocol === 1 && Array.isArray(offer.features);
    if (!readable || id === undefined) { // HEL-4
      this.#count();
      return this.#fail(id, new ProtocolError('no hello of version 1'));
    }
    this.#send('response', id, { args: { result: this.#offer() } }, true); // before anything that follows it (HEL-7)
    this.#saidHello = true;
    return this.#learn(offer.features);
  }

  /** The first knowledge is final (HEL-3). */
  #learn(features) {
    if (this.#known) return;
    this.#known = true;
    this.#agreed = new Set(this.#features.filter((name) => features.includes(name)));
    this.#settle.ready();
    for (const call of this.#outgoing.values()) { // CAN-8
      if (call.state === 'given up' && this.#inForce(call).has('cancel')) {
        call.state = 'cancelling';
        this.#send('stream-cancel', call.id);
      }
    }
  }

  /** HEL-5: what holds for a call of this side, by the order of the bytes. */
  #inForce(call) { return call.agreed ?? (call.afterHello ? this.#agreed : NONE); }

  // -------------------------------------------------------------------------------------- the caller's half

  #make(type) {
    const id = `${this.#prefix}:${++this.#serial}`;
    return { id, key: `text ${id}`, type, state: 'new', forget: noop, settle: noop };
  }

  /** Puts a question; a promise with `cancel`, and with an iterator for when a stream answers. */
  #ask(type, fields, { signal, timeout = this.#options.timeout } = {}) {
    const call = this.#make(type);
    const answer = new Promise((resolve, reject) => {
      call.settle = (error, value) => (error === null ? resolve(value) : reject(error));
    });
    const giveUp = (error) => (call.receiver ? call.receiver.cancel(error, false) : this.#giveUp(call, error));
    if (signal?.aborted) this.#settleCall(call, signal.reason);
    else {
      const aborted = () => giveUp(signal.reason);
      signal?.addEventListener('abort', aborted);
      call.forget = () => signal?.removeEventListener('abort', aborted);
      if (timeout) call.timer = setTimeout(() => giveUp(new CallTimeout(`no answer within ${timeout} ms`)), timeout);
      this.#attempt(call, type, fields);
    }
    return withStream(answer, async () => giveUp(new CallCancelled('the call was cancelled')));
  }

  /** Sends it; what a stock peer could not be sent waits for the hello's answer. */
  #attempt(call, type, fields) {
    if (call.state !== 'new') return;
    try {
      this.#put(call, type, fields);
    } catch (error) {
      if (error instanceof NotSerializable && this.#helloPending) {
        this.ready.then(() => this.#attempt(call, type, fields));
      } else this.#settleCall(call, error);
    }
  }

  #put(call, type, { kwargs, meta, ...fields }) {
    if (this.#state !== 'open') throw this.#reason ?? new ChannelClosed('the channel is closed');
    const named = kwargs && Object.keys(kwargs).length > 0 ? kwargs : undefined;
    if (named && !this.#agreed.has('kwargs')) throw new NotSerializable('the peer takes no arguments by name'); // KWA-2
    this.#send(type, call.id, { ...fields, kwargs: named, meta: this.#agreed.has('metadata') ? meta : undefined });
    Object.assign(call, { state: 'waiting', afterHello: this.#saidHello });
    this.#outgoing.set(call.key, call);
  }

  /** The answer is there, or there will be none. */
  #settleCall(call, error, value) {
    clearTimeout(call.timer);
    call.settle(error, value);
    call.settle = noop; // it held the promise, and that the stream: see RemoteStream
    if (!call.receiver) call.forget();
    if (call.state === 'new') call.state = 'over';
  }

  #over(call) {
    call.state = 'over';
    call.forget();
    this.#outgoing.delete(call.key);
    if (call.inner) this.#within.streams--;
    call.complete?.();
  }

  /** Gives a call or stream up; resolves when that is complete (CAN-1, CAN-3, CAN-6). */
  async #giveUp(call, error) {
    const { state } = call;
    if (!['new', 'waiting', 'open'].includes(state)) return call.cancelled;
    this.#settleCall(call, error);
    call.receiver?.finish({ error });
    if (state === 'new') return undefined;
    const agreed = this.#inForce(call).has('cancel');
    call.state = agreed ? 'cancelling' : 'given up';
    call.cancelled = agreed ? new Promise((resolve) => { call.complete = resolve; }) : undefined;
    if (agreed) this.#send('stream-cancel', call.id);
    else if (state === 'open') this.#abandon(call);
    return call.cancelled;
  }

  /** CAN-2: where cancel is not agreed nothing is waited for, and what still comes is no violation. */
  #abandon(call) {
    this.#send('stream-cancel', call.id);
    this.#abandoned.add(call.key);
    if (this.#abandoned.size > 4096) this.#abandoned.delete(this.#abandoned.values().next().value);
    this.#over(call);
  }

  /** Makes of a call whose stream is open what the reader reads. */
  #attach(call) {
    call.state = 'open';
    call.agreed ??= this.#inForce(call);
    if (call.agreed.has('credit')) call.window = new Window(this.#limits);
    call.receiver = new Receiver({
      shared: call.inner ? this.#within : { bytes: 0 },
      onTaken: (chunks, bytes) => {
        const grant = call.state === 'open' ? call.window?.taken(chunks, bytes) : null;
        if (grant) this.#send('stream-ack', call.id, { args: grant });
      },
      onCancel: (error) => this.#giveUp(call, error),
      onDropped: (things) => this.#drop(things),
    });
    return call.receiver;
  }

  #answer({ type, args: given }, key, flaw, names, size) {
    const args = isObject(given) ? given : {};
    const call = this.#outgoing.get(key);
    const state = call?.state ?? (this.#abandoned.has(key) ? 'abandoned' : 'none');
    const response = type === 'response';
    const opening = response && !args.error && own(args.result, '__stream') === true; // CLA-4, CLA-5
    const unexpected = state === 'none' // MSG-6; then CALL-5 and ARG-3; then STR-6
      || (response && (state === 'open' || (call?.inner && state === 'cancelling')))
      || (!response && ['waiting', 'given up'].includes(state));
    if (flaw || unexpected) {
      this.#count();
      this.#giveBack(names);
      return flaw && call && this.#malformed(call, type);
    }
    if (state === 'waiting' || state === 'open') {
      if (type === 'stream-chunk') return this.#chunkIn(call, args, names, size);
      return this.#answered(call, type, args, opening, names);
    }
    this.#giveBack(names);
    if (state === 'given up' && opening) return this.#abandon(call); // CAN-6
    if (opening || type === 'stream-chunk') return undefined;
    return call ? this.#over(call) : this.#abandoned.delete(key);
  }

  #malformed(call, type) { // MSG-4: the call fails; all but a chunk is the callee's last word
    const waiting = call.state === 'waiting';
    if (type === 'stream-chunk' && call.state === 'given up') return;
    this.#giveUp(call, new ProtocolError('the peer sent a malformed message'));
    if (waiting && call.state === 'given up') this.#send('stream-cancel', call.id);
    if (type !== 'stream-chunk') this.#over(call);
  }

  /** A response, an end or a stream error. */
  #answered(call, type, args, opening, names) {
    const fails = type === 'stream-error' || (type === 'response' && args.error);
    if (fails || opening) this.#giveBack(names);
    if (opening) return this.#settleCall(call, null, new RemoteStream(this.#attach(call)));
    let things = NO_THINGS;
    let value = null;
    let error = null;
    try {
      if (fails) error = readError(this.#revive(NO_THINGS, args.error || 'Stream error', 0)); // ERR-2
      else {
        things = this.#take(names);
        value = this.#revive(things, args.result ?? null, 0);
      }
    } catch (raised) {
      error = raised;
    }
    this.#drop(error ? things.values() : things.unused);
    this.#over(call);
    if (call.receiver) return call.receiver.finish(error ? { error } : { value });
    return this.#settleCall(call, error, value);
  }

  #chunkIn(call, args, names, size) {
    const { receiver, window, inner } = call;
    const values = 'value' in args ? [args.value] : args.values ?? [null]; // CLA-2
    const starved = window && !window.arrived(values.length, size);
    const much = (!window && receiver.unread + size > this.#limits.stockStreamBuffer) // STR-12
      || (inner && this.#within.bytes + size > this.#limits.callBytes); // ARG-5
    if (starved) this.#count(); // CRD-4
    if (starved || much) {
      this.#giveBack(names);
      const error = starved ? new ProtocolError('a chunk without credit') : new LimitExceeded('too much lies unread');
      return this.#giveUp(call, error);
    }
    let things = NO_THINGS;
    try {
      things = this.#take(names); // CBK-7
      const revived = values.map((value) => this.#revive(things, value, 0));
      this.#drop(things.unused);
      return receiver.add(revived, size, [...things.used]);
    } catch (error) {
      this.#drop(things.values());
      return this.#giveUp(call, error);
    }
  }

  // ------------------------------------------------------------------------------------------------- the end

  /** The connection has ended. */
  #lost(code = 1000, why = '') {
    const broken = ![1000, 1001, 1005].includes(code); // TRN-4
    const how = why ? `${code}, ${why}` : code;
    const text = broken ? `the connection was lost (${how})` : 'the peer has closed the connection';
    this.#end(new ChannelClosed(text, { code, reason: String(why ?? '') }), { lost: true });
  }

  /** Ends the channel (CLS-1, CLS-2). `reason` is null where this side closes; `grace`: handlers may still answer. */
  async #end(reason, { grace = 0, lost = false } = {}) {
    if (this.#state !== 'open') return;
    this.#state = 'closing';
    this.#reason = reason ?? new ChannelClosed('the channel is closed');
    for (const call of [...this.#outgoing.values()]) {
      this.#settleCall(call, this.#reason);
      call.receiver?.finish({ error: this.#reason });
      this.#over(call);
    }
    this.#settle.ready();
    const idle = new Promise((resolve) => { this.#idle = resolve; });
    if (grace > 0 && this.#incoming.size > 0) await within(idle, grace);
    this.#state = 'closed';
    this.cancelIncoming();
    if (!lost) this.#outbox.flush(true, true);
    this.#outbox.stop();
    const code = reason === null || lost ? 1000 : CODES[reason.name] ?? 4011;
    this.#link.close(code, code === 1000 ? '' : reason.message, this.stock);
    if (this.#incoming.size > 0) await within(idle, this.#limits.cleanupMs);
    this.#settle.closed(reason);
  }
}


const textOf = (path) => (Array.isArray(path) ? path.join('.') : path);
const listOf = (path) => (Array.isArray(path) ? path : path.split('.'));

/** A promise of an answer that `for await` takes, too, where the answer is a stream. */
function withStream(answer, cancel) {
  return Object.assign(answer, {
    cancel,
    async* [Symbol.asyncIterator]() {
      const stream = await answer;
      if (!(stream instanceof RemoteStream)) throw new TypeError('the call was not answered by a stream');
      return yield* stream;
    },
  });
}

// ---------------------------------------------------------------------------------------------- the proxies

const targets = new WeakMap(); // proxy -> {channel, path, options}

function proxyOf(channel, path, options) {
  const proxy = new Proxy(function remote() {}, {
    get(_, name) {
      if (typeof name !== 'string') return undefined;
      if (name !== 'then') return proxyOf(channel, [...path, name], options);
      if (path.length === 0) return undefined; // the API itself is no promise
      return (resolve, reject) => channel.get(path, options).then(resolve, reject);
    },
    set(_, name, value) {
      if (typeof name !== 'string') return false;
      channel.set([...path, name], value, options).catch((error) => channel.unheard(error));
      return true;
    },
    apply: (_, self, args) => channel.call(path, args, options),
    construct: (_, args) => channel.construct(path, args, options),
  });
  targets.set(proxy, { channel, path, options });
  return proxy;
}

/** The same part of a peer's API, whose calls are made with `{signal, timeout, kwargs, meta}`. */
export function withOptions(proxy, options) {
  const { channel, path, options: before } = targets.get(proxy) ?? {};
  if (!channel) throw new TypeError("no part of a peer's API");
  return proxyOf(channel, path, { ...before, ...options });
}

// -------------------------------------------------------------------------------------------- how to connect

/** Connects to a WebSocket server; resolves once it is open and the peer's features are known. */
export async function connect(url, options = {}) {
  const { WebSocket: Socket = globalThis.WebSocket, protocols, openMs = 10000, signal } = options;
  if (Socket === undefined) throw new TypeError('there is no WebSocket here: pass one as options.WebSocket');
  signal?.throwIfAborted();
  const socket = new Socket(url, protocols);
  const channel = new RPCChannel(socket, options);
  const aborted = () => channel.close();
  signal?.addEventListener('abort', aborted);
  try {
    const opened = new Promise((resolve) => { listen(socket, 'open', () => resolve('open')); });
    const first = await within(Promise.race([opened, channel.closed]), openMs);
    signal?.throwIfAborted();
    if (first !== 'open') {
      channel.close();
      throw first ?? new ChannelClosed(`no connection within ${openMs} ms`);
    }
    await channel.ready;
  } finally {
    signal?.removeEventListener('abort', aborted);
  }
  return channel;
}

/** A channel over a MessagePort, a Worker, or, within a worker, its scope or `parentPort`. */
export function fromMessagePort(port, options = {}) { return new RPCChannel(port, options); }
