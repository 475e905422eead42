// The testee of spec/testee.md over clients/js: what the conformance kit calls, and the bridge from stdin and stdout.
//
// Bytes become lines here, by spec/testees/node/wire.mjs (section 1 is about byte streams; a WebSocket has none);
// all else is the client's.

import net from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import {
  CallCancelled, FEATURES, KkrpcError, RPCChannel, RemoteError, RemoteStream, handler, withOptions,
} from '../../clients/js/kkrpc.js';
import { LineReader } from '../../spec/testees/node/wire.mjs';

const OTHERS = ['bigint', 'validation', 'properties', 'construct', 'noise', 'counted', 'limits'];
const LIMITS = { // the times together stay below the two seconds in which a testee ends
  frame: 262144, noise: 4096, depth: 128, digits: 1000, idBytes: 256, calls: 64, callBytes: 1048576,
  callbacks: 64, stockStreamBuffer: 524288, sendHighWater: 65536, sendMax: 1048576, finishMs: 1000, cleanupMs: 400,
};

const turn = () => new Promise((resolve) => { setImmediate(resolve); });
const isInteger = (value) => typeof value === 'bigint' || Number.isInteger(value);
const integer = (value) => (Number.isSafeInteger(Number(value)) ? Number(value) : BigInt(value));
const typeError = (text) => { throw new TypeError(text); };

// -------------------------------------------------------------------------- counters, gates, what has a name

let names;
let stopped = new AbortController(); // what `reset` cancels
const forgetNames = () => {
  const kinds = ['probes', 'gates', 'functions', 'invoked', 'kept'].map((kind) => [kind, new Map()]);
  names = { watchers: new Set(), ...Object.fromEntries(kinds) };
};
forgetNames();

function of(map, name, make) {
  if (!map.has(name)) map.set(name, make());
  return map.get(name);
}

const probe = (name) => of(names.probes, name, () => (
  { started: 0, yielded: 0, waits: 0, interrupted: 0, cleaned: 0 }));

function count(counters, counter) {
  counters[counter]++;
  names.watchers.forEach((watcher) => watcher());
}

const gate = (name) => of(names.gates, name, () => {
  let open;
  const opened = new Promise((resolve) => { open = resolve; });
  return { open, opened };
});

/** Waits for a promise, or until the call is cancelled, or all are. */
function unlessCancelled({ signal }, promise) {
  return new Promise((resolve, reject) => {
    const signals = [signal, stopped.signal];
    const stop = () => reject(new CallCancelled('the call was cancelled'));
    if (signals.some(({ aborted }) => aborted)) stop();
    signals.forEach((each) => each.addEventListener('abort', stop));
    promise.then(resolve, reject)
      .finally(() => signals.forEach((each) => each.removeEventListener('abort', stop)));
  });
}

function reached(call, name, counter, n) {
  const counters = probe(name);
  return unlessCancelled(call, new Promise((resolve) => {
    const watcher = () => { if (counters[counter] >= n) resolve(); };
    names.watchers.add(watcher);
    watcher();
  }));
}

// -------------------------------------------------------------------------------------------------- scripts

function makeError({ name, message, fields = {}, notes, cause }) {
  return new RemoteError(name, message, {
    ...fields, ...(cause && { cause: makeError(cause) }), ...(notes && { __notes__: notes }),
  });
}

async function* play(call, name, script) {
  const counters = probe(name);
  const cleanups = [];
  let interrupted = true; // unless it ends of its own accord
  count(counters, 'started');
  try {
    for (const step of script) {
      const [[kind, what]] = Object.entries(step);
      if (kind === 'wait') {
        count(counters, 'waits');
        await unlessCancelled(call, gate(what).opened);
      } else if (kind === 'cleanup') {
        cleanups.unshift(...what);
      } else if (kind === 'raise' || kind === 'return') {
        interrupted = false;
        if (kind === 'raise') throw makeError(what);
        return what;
      } else {
        for (const value of chunks[kind](what)) {
          count(counters, 'yielded');
          yield value;
        }
      }
    }
    interrupted = false;
    return undefined;
  } finally {
    if (interrupted) count(counters, 'interrupted');
    try {
      for (const step of cleanups) { // to its end, whatever is cancelled
        if (step.raise) throw makeError(step.raise);
        count(counters, 'waits');
        await gate(step.wait).opened;
      }
    } finally {
      count(counters, 'cleaned');
    }
  }
}

const chunks = {
  * yield(value) { yield value; },
  * make(words) { yield fromWords(words); },
  * range([a, b]) { for (let i = a; i < b; i++) yield i; },
  * text([n, times]) { for (let i = 0; i < times; i++) yield 'x'.repeat(n); },
};

async function run(call, name, script) {
  const steps = play(call, name, script);
  for (;;) {
    const { done, value } = await steps.next();
    if (done) return value;
  }
}

// ------------------------------------------------------------------------------------------- values in words

const ownFunction = (name) => of(names.functions, name, () => (...args) => {
  count(probe(name), 'started');
  return args;
});

/** A stream within a value: no call runs its script, so what closes it also wakes it where it waits. */
function ownStream(name, script) {
  const abort = new AbortController();
  const steps = play(abort, name, script);
  const close = steps.return.bind(steps);
  return Object.assign(steps, {
    return() {
      abort.abort();
      return close();
    },
  });
}

function fromWords(words) {
  const [[type, what]] = Object.entries(words);
  switch (type) {
    case 'null': return null;
    case 'bool': case 'text': return what;
    case 'int': return integer(what);
    case 'float': return Buffer.from(what, 'hex').readDoubleBE();
    case 'bytes': return Uint8Array.from(Buffer.from(what, 'hex'));
    case 'list': return what.map(fromWords);
    case 'map': return Object.fromEntries(what.map(([key, value]) => [key.text, fromWords(value)]));
    case 'function': return ownFunction(what);
    case 'stream': return ownStream(...what);
    default: return Symbol(type); // what JavaScript does not have is refused where it is sent
  }
}

function toWords(value) {
  if (value === null) return { null: true };
  if (typeof value === 'boolean') return { bool: value };
  if (typeof value === 'string') return { text: value };
  if (typeof value === 'bigint' || Number.isSafeInteger(value)) return { int: String(value) };
  if (typeof value === 'number') {
    const bytes = Buffer.alloc(8);
    bytes.writeDoubleBE(value);
    return { float: bytes.toString('hex') };
  }
  if (value instanceof Uint8Array) return { bytes: Buffer.from(value).toString('hex') };
  if (Array.isArray(value)) return { list: value.map(toWords) };
  return { map: Object.entries(value).map(([key, item]) => [{ text: key }, toWords(item)]) };
}

// ----------------------------------------------------------------------- functions and streams of the kit's

const holders = new Map(); // thing -> by how many it is held

/** The functions and streams in a value. */
function thingsIn(value, found = new Set()) {
  if (typeof value === 'function' || value instanceof RemoteStream) found.add(value);
  else if (typeof value === 'object' && value !== null && !(value instanceof Uint8Array)) {
    Object.values(value).forEach((item) => thingsIn(item, found));
  }
  return found;
}

const hold = (thing) => holders.set(thing, (holders.get(thing) ?? 0) + 1);

/** The client leaves it to a garbage collector or to whoever says so; bounds of 64 do not wait for the former. */
function letGo(thing) {
  const left = holders.get(thing) - 1;
  holders.set(thing, left);
  if (left > 0) return undefined;
  holders.delete(thing);
  if (thing instanceof RemoteStream) return thing.cancel();
  return thing.release?.();
}

/** A method whose arguments' functions and streams are held as long as it, or its stream, runs. */
function method(parameters, body) {
  return handler({ parameters: parameters?.split(' ').filter(Boolean), context: true }, (call, ...args) => {
    const held = thingsIn(args);
    held.forEach(hold);
    const done = () => held.forEach(letGo);
    let result;
    try {
      result = body(call, ...args);
    } catch (error) {
      done();
      throw error;
    }
    if (typeof result?.then === 'function') return result.finally(done);
    if (typeof result?.next !== 'function') setImmediate(done);
    return result;
  });
}

const errorOutcome = (error) => {
  const { name, message, fields = {} } = error;
  const { stack, ...others } = fields;
  return { error: { ...others, name, message } };
};

async function outcomeOf(promise) {
  try {
    const result = (await promise) ?? null;
    return result instanceof RemoteStream ? { stream: result } : { result };
  } catch (error) {
    return errorOutcome(error);
  }
}

async function invoke(call, name, path, args, options) {
  const { kind = 'call', words, kwargs, meta } = options ?? {};
  const values = words ? args.map(fromWords) : args;
  const more = { kwargs, meta };
  const made = {
    call: () => channel.call(path, values, more),
    construct: () => channel.construct(path, values, more),
    get: () => channel.get(path, more),
    set: () => channel.set(path, values[0], more),
  }[kind]();
  names.invoked.set(name, made);
  const outcome = await outcomeOf(made);
  if (!outcome.stream) {
    names.invoked.delete(name); // it would hold the functions in the answer
    return outcome;
  }
  hold(outcome.stream);
  names.kept.set(name, outcome.stream);
  return { stream: true };
}

const pulls = new WeakMap(); // stream -> the step that somebody waited for in vain

async function pull(call, stream) {
  const step = pulls.get(stream) ?? stream.next();
  pulls.set(stream, step);
  step.catch(() => {});
  try {
    return await unlessCancelled(call, step);
  } finally {
    if (!call.signal.aborted) pulls.delete(stream);
  }
}

async function take(call, name, n) {
  const stream = names.kept.get(name) ?? typeError('no stream of that name');
  const values = [];
  while (values.length < n) {
    let step;
    try {
      step = await pull(call, stream);
    } catch (error) {
      if (call.signal.aborted) throw error;
      return { values, end: errorOutcome(error) };
    }
    if (step.done) return { values, end: { result: step.value ?? null } };
    values.push(step.value);
  }
  return { values, end: null };
}

async function abort(call, name) {
  if (names.kept.has(name)) await names.kept.get(name).cancel();
  else await names.invoked.get(name)?.cancel();
}

async function callFunction(call, f, args) {
  if (typeof f !== 'function') typeError('no function');
  const outcome = await outcomeOf(f(...args));
  if (!channel.features.has('callback')) return null;
  if (!outcome.stream) return outcome;
  outcome.stream.cancel();
  return errorOutcome(new TypeError('a stream'));
}

function keep(call, name, value) {
  const [thing] = thingsIn(value);
  if (!thing) typeError('neither a function nor a stream');
  hold(thing);
  names.kept.set(name, thing);
  return null;
}

async function forget(call, name) {
  const thing = names.kept.get(name);
  names.kept.delete(name);
  if (thing) letGo(thing);
}

function release(call, name) {
  channel.release(names.functions.get(name));
  names.functions.delete(name);
}

// ----------------------------------------------------------------------------------------------- the methods

async function barrier() {
  for (let rounds = 0, quiet = 0; quiet < 4 && rounds < 1000; rounds++) { // not for ever: a producer may never wait
    const { written } = channel.stats;
    await turn();
    await turn();
    quiet = channel.stats.written === written && channel.stats.waiting === 0 ? quiet + 1 : 0;
  }
}

async function reset(call) {
  const running = channel.stats.incoming - 1;
  names.gates.forEach(({ open }) => open());
  names.invoked.forEach((made) => made.cancel());
  names.kept.forEach((thing) => letGo(thing));
  [...names.functions.keys()].forEach((name) => release(call, name));
  stopped.abort();
  stopped = new AbortController();
  channel.cancelIncoming(call);
  for (let i = 0; i < 200 && channel.stats.incoming > 1; i++) await turn();
  forgetNames();
  return { running };
}

const add = method('a b', (call, a, b) => {
  if (![a, b].every((value) => ['number', 'bigint'].includes(typeof value))) typeError('no number');
  return isInteger(a) && isInteger(b) ? integer(BigInt(a) + BigInt(b)) : Number(a) + Number(b);
});

async function* stream(values, check = (value) => value) { for (const value of values) yield check(value); }

const countTo = method('n', (call, n) => stream(chunks.range([0, n])));

/** A check of ERR-7. */
const checked = (path, phase, at) => (value) => {
  if (isInteger(value)) return value;
  const issues = [{ message: 'no integer', path: at }];
  throw new RemoteError('RPCValidationError', `${path}: no integer`, { phase, method: path, issues });
};

class Point {
  constructor(x, y) { Object.assign(this, { x, y, _secret: 'secret' }); }

  norm() { return Math.hypot(this.x, this.y); }
}
class Sealed {}

let noise = [];
const hidden = { _hidden: () => 'hidden', _secret: 'secret' };
const root = {
  ...hidden,
  describe: method('', () => ({
    protocol: 1, name: 'kkrpc-js-client', version: '1', features: [...FEATURES, ...OTHERS],
  })),
  echo: method('value', (call, value) => value),
  tag: method('value', (call, value) => toWords(value)),
  make: method('words', (call, words) => fromWords(words)),
  args: handler({ anyNames: true, context: true }, ({ kwargs }, ...args) => ({ args, kwargs })),
  nothing: method('', () => undefined),
  add,
  math: { ...hidden, add, deep: { add }, count: countTo },
  meta: method('', (call) => call.meta),
  fail: method('error', (call, error) => { throw makeError(error); }),
  typed: {
    input: method('n', (call, n) => checked('typed.input', 'input', [call.kwargs.n === undefined ? 0 : 'n'])(n)),
    output: method('value', (call, value) => checked('typed.output', 'output', [])(value)),
    chunks: method('values', (call, values) => stream(values, checked('typed.chunks', 'output', []))),
  },
  settings: { theme: 'dark', fixed: 7, tree: { a: { b: [1, 2] } } },
  Point: handler({ parameters: ['x', 'y'] }, Point),
  Sealed,
  run: method('name script', run),
  produce: method('name script', play),
  count: countTo,
  open: method('gate', (call, name) => gate(name).open()),
  probe: method('name', (call, name) => ({ ...probe(name) })),
  reached: method('name counter n', reached),
  barrier: method('', barrier),
  reset: method('', reset),
  invoke: method('name method args options?', invoke),
  take: method('name n', take),
  abort: method('name', abort),
  call: method('f args', callFunction),
  notify: method('f args', (call, f, args) => (
    f?.notify ? f.notify(...args).then(() => null) : typeError('no function'))),
  keep: method('name value', keep),
  kept: method('name args', (call, name, args) => callFunction(call, names.kept.get(name), args)),
  forget: method('name', forget),
  release: method('name', release),
  noise: method('', () => {
    const lines = noise;
    noise = [];
    return lines;
  }),
  counted: method('', () => channel.counted),
};

// ------------------------------------------------------------------------------------------------ the bridge

// Descriptor 1 as a socket: process.stdout would block on a full pipe, and a peer must go on reading (CLS-5).
const output = new net.Socket({ fd: 1, readable: false, writable: true });
const listeners = new Map();
const socket = {
  readyState: 1,
  get bufferedAmount() { return output.writableLength; },
  send(text) { if (text !== '__DESTROY__') output.write(text, 'latin1'); }, // a byte stream has an end of its own
  close() {},
  addEventListener(name, listener) { listeners.set(name, listener); },
};
const tell = (name, event = {}) => listeners.get(name)?.(event);
const channel = new RPCChannel(socket, {
  expose: root, settable: ['settings.theme'], constructible: ['Point'], limits: LIMITS, hello: false,
  onNoise: (line) => noise.push(Buffer.from(line).toString('hex')),
});

// What nobody holds is given back when the garbage collector finds it: here it looks often.
setFlagsFromString('--expose-gc');
setInterval(runInNewContext('gc'), 500).unref();

let code = 0; // of a violation of what a byte stream is
const guard = (step) => {
  try {
    if (code === 0) step();
  } catch (error) {
    code = { ProtocolError: 3, LimitExceeded: 4 }[error.name] ?? 1;
    channel.close();
  }
};
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const reader = new LineReader(LIMITS, (bytes, length) => {
  try {
    const text = utf8.decode(bytes);
    tell('message', { data: text.padEnd(text.length + length - bytes.length) }); // the blanks before it count
  } catch {
    noise.push(bytes.subarray(0, LIMITS.noise).toString('hex'));
  }
}, (bytes) => noise.push(bytes.toString('hex')));

output.write('\n'); // FRM-12
process.stdin.on('data', (bytes) => guard(() => reader.push(bytes)));
process.stdin.on('end', () => guard(() => { reader.end(); tell('end'); }));
output.on('error', () => setTimeout(() => tell('close', { code: 1000 }), 50)); // CLS-6: what has come is read first

const reason = await channel.closed;
code ||= { ProtocolError: 3, LimitExceeded: 4 }[reason?.name] ?? 0;
setTimeout(() => process.exit(code), 400).unref();
output.end(() => process.exit(code));
