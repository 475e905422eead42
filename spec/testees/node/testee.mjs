// The testee of spec/testee.md, in plain JavaScript: what the conformance kit calls, over peer.mjs.

import net from 'node:net';
import { Class, Method, Namespace, Peer, Property } from './peer.mjs';
import { RpcError } from './wire.mjs';

const EXTENSIONS = ['credit', 'batch', 'result', 'cancel', 'callback', 'stream-arguments', 'kwargs', 'metadata'];
const FEATURES = [
  ...EXTENSIONS, 'bigint', 'validation', 'properties', 'construct', 'noise', 'counted', 'limits',
];
const LIMITS = { // of testee.md; the three times together stay below the two seconds in which a testee ends
  frame: 262144, noise: 4096, depth: 128, digits: 1000, idBytes: 256, calls: 64, callBytes: 1048576, callbacks: 64,
  stockStreamBuffer: 524288, sendMax: 1048576, finishMs: 1000, cleanupMs: 400, drainMs: 400,
};

const turn = () => new Promise((resolve) => { setImmediate(resolve); });
const typeError = (text) => { throw new RpcError('TypeError', text); };
const isInteger = (value) => typeof value === 'bigint' || Number.isInteger(value);
const integer = (value) => (value === BigInt(Number(value)) && Number.isSafeInteger(Number(value))
  ? Number(value) : value);
const isFunction = (value) => typeof value?.notify === 'function';
const isStream = (value) => typeof value?.pull === 'function';

/** Waits for a promise, or until the call is cancelled. */
function unlessCancelled(promise, { abort: { signal } }) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) reject(signal.reason);
    const stop = () => reject(signal.reason);
    signal.addEventListener('abort', stop);
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}

// --------------------------------------------------------------------------------------------- counters and gates

const COUNTERS = ['started', 'yielded', 'waits', 'interrupted', 'cleaned'];
let probes;
let gates;
let watchers;
let functions; // the testee's own, by name
let invoked; // calls that `invoke` made, by name
let streams; // unread, by name
let kept;

function forgetNames() {
  [probes, gates, watchers] = [new Map(), new Map(), new Set()];
  [functions, invoked, streams, kept] = [new Map(), new Map(), new Map(), new Map()];
}
forgetNames();

function entry(map, name, make) {
  if (!map.has(name)) map.set(name, make());
  return map.get(name);
}

const probeOf = (name) => entry(probes, name, () => Object.fromEntries(COUNTERS.map((counter) => [counter, 0])));

function gateOf(name) {
  return entry(gates, name, () => {
    const gate = {};
    gate.opened = new Promise((resolve) => { gate.open = resolve; });
    return gate;
  });
}

function count(probe, counter) {
  probe[counter]++;
  for (const watcher of watchers) watcher();
}

function reached(call, name, counter, n) {
  const probe = probeOf(name);
  let watcher;
  const there = new Promise((resolve) => {
    watcher = () => { if (probe[counter] >= n) resolve(); };
    watchers.add(watcher);
    watcher();
  });
  return unlessCancelled(there, call).finally(() => watchers.delete(watcher));
}

// ------------------------------------------------------------------------------------------------------- scripts

function makeError({ name, message, fields = {}, notes, cause }) {
  const all = { ...fields };
  if (cause) all.cause = makeError(cause);
  if (notes) all.__notes__ = notes;
  return new RpcError(name, message, all);
}

async function* play(call, name, script) {
  const probe = probeOf(name);
  const cleanups = [];
  let interrupted = true;
  count(probe, 'started');
  try {
    for (const step of script) {
      const [[kind, what]] = Object.entries(step);
      if (kind === 'wait') {
        count(probe, 'waits');
        await unlessCancelled(gateOf(what).opened, call);
      } else if (kind === 'raise') {
        interrupted = false;
        throw makeError(what);
      } else if (kind === 'return') {
        interrupted = false;
        return what;
      } else if (kind === 'cleanup') {
        cleanups.unshift(what);
      } else {
        for (const value of chunks(kind, what)) {
          count(probe, 'yielded');
          yield value;
        }
      }
    }
    interrupted = false;
    return undefined;
  } finally {
    if (interrupted) count(probe, 'interrupted');
    try {
      for (const steps of cleanups) await cleanUp(probe, steps);
    } finally {
      count(probe, 'cleaned');
    }
  }
}

function* chunks(kind, what) {
  if (kind === 'yield') yield what;
  else if (kind === 'make') yield fromWords(what);
  else if (kind === 'range') for (let i = what[0]; i < what[1]; i++) yield i;
  else if (kind === 'text') for (let i = 0; i < what[1]; i++) yield 'x'.repeat(what[0]);
  else throw new RpcError('ValueError', `no step ${kind}`);
}

async function cleanUp(probe, script) { // runs to its end, whatever is cancelled
  for (const step of script) {
    if ('raise' in step) throw makeError(step.raise);
    count(probe, 'waits');
    await gateOf(step.wait).opened;
  }
}

async function run(call, name, script) {
  const steps = play(call, name, script);
  for (;;) {
    const { done, value } = await steps.next();
    if (done) return value;
  }
}

// ------------------------------------------------------------------------------------------------ values in words

/** A value that JSON cannot carry and JavaScript has no counterpart for: it is refused where it is sent. */
class Unsendable {}

function double(hex) { return Buffer.from(hex, 'hex').readDoubleBE(); }

function ownFunction(name) {
  return entry(functions, name, () => (...args) => {
    count(probeOf(name), 'started');
    return args;
  });
}

/** A stream within a value: no call runs its script, so what closes it also wakes it where it waits. */
function producer(name, script) {
  const abort = new AbortController();
  const steps = play({ abort }, name, script);
  return {
    next: () => steps.next(),
    return() {
      abort.abort(new RpcError('CallCancelled', 'the stream was cancelled'));
      return steps.return();
    },
    [Symbol.asyncIterator]() { return this; },
  };
}

function fromWords(words) {
  const [[type, what]] = Object.entries(words);
  const all = (list) => list.map((item) => fromWords(item));
  switch (type) {
    case 'null': return null;
    case 'bool': case 'text': return what;
    case 'int': return integer(BigInt(what));
    case 'float': return double(what);
    case 'bytes': return new Uint8Array(Buffer.from(what, 'hex'));
    case 'list': return all(what);
    case 'map': {
      const rows = what.map(all);
      return rows.every(([key]) => typeof key === 'string') ? Object.fromEntries(rows) : new Map(rows);
    }
    case 'set': return new Set(all(what));
    case 'function': return ownFunction(what);
    case 'stream': return producer(...what);
    default: return new Unsendable();
  }
}

function toWords(value) {
  if (value === null || value === undefined) return { null: true };
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
  if (isFunction(value)) return { function: value.id };
  if (isStream(value)) return { stream: [value.call.id, []] };
  return { map: Object.entries(value).map(([key, item]) => [toWords(key), toWords(item)]) };
}

// ------------------------------------------------------------------------------------------------- the other role

const errorOutcome = ({ name, message, fields }) => ({ error: { ...fields, name, message } });

async function outcomeOf(call, answer) {
  try {
    const { result, refs, stream } = await answer;
    if (stream) return { stream };
    call.refs.push(...refs);
    return { result };
  } catch (error) {
    if (!(error instanceof RpcError)) throw error;
    return errorOutcome(error);
  }
}

async function invoke(call, name, method, args, options = {}) {
  const { kind = 'call', words, kwargs, meta } = options ?? {};
  const values = words ? args.map((item) => fromWords(item)) : args;
  let made;
  try {
    made = peer.call(kind === 'call' ? 'request' : kind, method, values, { kwargs, meta });
  } catch (error) {
    return errorOutcome(error);
  }
  invoked.set(name, made);
  const outcome = await outcomeOf(call, made.answer);
  if (outcome.stream) {
    streams.set(name, outcome.stream);
    return { stream: true };
  }
  return outcome;
}

async function take(call, name, n) {
  const stream = streams.get(name) ?? typeError(`no stream ${name}`);
  const values = [];
  while (values.length < n) {
    const { value, refs, end } = await unlessCancelled(stream.pull(), call);
    if (end) {
      call.refs.push(...end.refs?.map((ref) => ref.hold()) ?? []);
      return { values, end: end.error ? errorOutcome(end.error) : { result: end.result } };
    }
    call.refs.push(...refs);
    values.push(value);
  }
  return { values, end: null };
}

async function abort(call, name) {
  const stream = streams.get(name);
  const made = invoked.get(name);
  if (stream) await stream.dropped();
  else if (made) await peer.giveUp(made);
}

async function callFunction(call, f, args) {
  if (!isFunction(f)) typeError('no function');
  const made = f.call(args);
  if (made === null) return null;
  const outcome = await outcomeOf(call, made.answer);
  if (!outcome.stream) return outcome;
  outcome.stream.release();
  return errorOutcome(new RpcError('TypeError', 'a stream'));
}

function find(value) {
  if (isFunction(value) || isStream(value)) return value;
  if (typeof value !== 'object' || value === null) return undefined;
  for (const item of Object.values(value)) {
    const found = find(item);
    if (found) return found;
  }
  return undefined;
}

function keep(call, name, value) {
  const found = find(value) ?? typeError('neither a function nor a stream');
  (isStream(found) ? streams : kept).set(name, found.hold());
  return null;
}

function forget(call, name) {
  for (const map of [kept, streams]) {
    map.get(name)?.release();
    map.delete(name);
  }
}

function releaseOwn(call, name) {
  const id = peer.ownIds.get(functions.get(name));
  functions.delete(name);
  if (id !== undefined) peer.forgetOwn(id);
}

// ---------------------------------------------------------------------------------------------------- the methods

async function barrier() {
  for (let rounds = 0; rounds < 3 || (peer.busy > 0 && rounds < 100); rounds++) await turn();
  await peer.outbox.flushed();
}

async function reset(call) {
  const running = [...peer.incoming.values()].filter((other) => other !== call).length;
  for (const gate of gates.values()) gate.open();
  for (const made of invoked.values()) peer.giveUp(made);
  for (const held of [...kept.values(), ...streams.values()]) held.release();
  for (const name of functions.keys()) releaseOwn(call, name);
  await peer.cancelAll(call, 1000);
  await peer.outbox.flushed();
  forgetNames();
  return { running };
}

const add = (call, a, b) => {
  const [x, y] = [a, b].map((value) => (['number', 'bigint'].includes(typeof value) ? value : typeError('no number')));
  return isInteger(x) && isInteger(y) ? integer(BigInt(x) + BigInt(y)) : Number(x) + Number(y);
};

async function* countTo(call, n) { for (let i = 0; i < n; i++) yield i; }

function validate(method, phase, path, value) {
  if (isInteger(value)) return value;
  const issues = [{ message: 'no integer', path }];
  throw new RpcError('RPCValidationError', `${method}: no integer`, { phase, method, issues });
}

const typed = new Namespace({
  input: new Method('n', (call, n) => validate('typed.input', 'input', ['n' in call.kwargs ? 'n' : 0], n)),
  output: new Method('value', (call, value) => validate('typed.output', 'output', [], value)),
  chunks: new Method('values', async function* stream(call, values) {
    for (const value of values) yield validate('typed.chunks', 'output', [], value);
  }),
});

let noise = [];
const takeNoise = () => {
  const lines = noise;
  noise = [];
  return lines;
};

const hidden = { _hidden: new Method('*', () => 'hidden'), _secret: new Property('secret') };

const root = new Namespace({
  ...hidden,
  describe: new Method('', () => ({ protocol: 1, name: 'kkrpc-node-testee', version: '1', features: FEATURES })),
  echo: new Method('value', (call, value) => value),
  tag: new Method('value', (call, value) => toWords(value)),
  make: new Method('words', (call, words) => fromWords(words)),
  args: new Method('*', (call, ...args) => ({ args, kwargs: call.kwargs })),
  nothing: new Method('', () => undefined),
  add: new Method('a b', add),
  math: new Namespace({
    ...hidden,
    add: new Method('a b', add),
    count: new Method('n', countTo),
    deep: new Namespace({ add: new Method('a b', add) }),
  }),
  meta: new Method('', (call) => call.meta),
  fail: new Method('error', (call, error) => { throw makeError(error); }),
  typed,
  settings: new Namespace({
    theme: new Property('dark', true),
    fixed: new Property(7),
    tree: new Property({ a: { b: [1, 2] } }),
  }),
  // Sealed() is not listed: what may not be constructed does not exist for a peer.
  Point: new Class('x y', (call, x, y) => ({ x, y })), // public fields alone (CALL-9)
  run: new Method('name script', run),
  produce: new Method('name script', play),
  count: new Method('n', countTo),
  open: new Method('gate', (call, name) => gateOf(name).open()),
  probe: new Method('name', (call, name) => ({ ...probeOf(name) })),
  reached: new Method('name counter n', reached),
  barrier: new Method('', barrier),
  reset: new Method('', reset),
  invoke: new Method('name method args options?', invoke),
  take: new Method('name n', take),
  abort: new Method('name', abort),
  call: new Method('f args', callFunction),
  notify: new Method('f args', (call, f, args) => (isFunction(f) ? f.notify(args) : typeError('no function'))),
  keep: new Method('name value', keep),
  kept: new Method('name args', (call, name, args) => callFunction(call, kept.get(name), args)),
  forget: new Method('name', forget),
  release: new Method('name', releaseOwn),
  noise: new Method('', takeNoise),
  counted: new Method('', () => peer.counted),
});

// ---------------------------------------------------------------------------------------------------- the process

/** A socket of its own: process.stdout would block on a pipe that is full, and a peer must go on reading (CLS-5). */
function openOutput() {
  try {
    return new net.Socket({ fd: 1, readable: false, writable: true });
  } catch {
    return process.stdout; // a file or a terminal
  }
}

const peer = new Peer({
  input: process.stdin, output: openOutput(), root, features: EXTENSIONS, limits: LIMITS,
  onNoise: (line) => noise.push(line.toString('hex')),
});
const reason = await peer.finished;
process.exit({ ProtocolError: 3, LimitExceeded: 4 }[reason?.name] ?? 0); // which closes the output
