// The testee of spec/testee.md: what the conformance kit calls, over peer.mjs.

import net from 'node:net';
import { Peer, Property, RemoteStream, method } from './peer.mjs';
import { RpcError } from './wire.mjs';
import { hubMethods } from './hub_methods.mjs';
import { ActionError, actionMethod } from './action.mjs';

const EXTENSIONS = ['batch', 'result', 'cancel', 'callback', 'stream-arguments', 'kwargs', 'metadata'];
const OTHERS = [
  'bigint', 'validation', 'properties', 'construct', 'noise', 'counted', 'limits',
  'named-streams', 'uploads', 'events', 'shared-state', 'streams-client', 'actions',
];
const LIMITS = { // the three times together stay below the two seconds in which a testee ends
  frame: 262144, noise: 4096, depth: 128, digits: 1000, idBytes: 256, calls: 64, callBytes: 1048576,
  callbacks: 64, stockStreamBuffer: 524288, sendMax: 1048576, finishMs: 1000, cleanupMs: 400, drainMs: 400,
  highWaterMark: 65536, subscriptionBytes: 16777216,
};

const turn = () => new Promise((resolve) => { setImmediate(resolve); });
const isInteger = (value) => typeof value === 'bigint' || Number.isInteger(value);
const integer = (value) => (Number.isSafeInteger(Number(value)) ? Number(value) : BigInt(value));
const typeError = (text) => { throw new RpcError('TypeError', text); };

// -------------------------------------------------------------------------- counters, gates, what has a name

let names;
const forgetNames = () => {
  const kinds = ['probes', 'gates', 'functions', 'invoked', 'kept'].map((kind) => [kind, Object.create(null)]);
  names = { watchers: new Set(), ...Object.fromEntries(kinds) };
};
forgetNames();

function probe(name) {
  names.probes[name] ??= { started: 0, yielded: 0, waits: 0, interrupted: 0, cleaned: 0 };
  return names.probes[name];
}

function count(counters, counter) {
  counters[counter]++;
  names.watchers.forEach((watcher) => watcher());
}

function gate(name) {
  if (!names.gates[name]) {
    let open;
    const opened = new Promise((resolve) => { open = resolve; });
    names.gates[name] = { open, opened };
  }
  return names.gates[name];
}

/** Waits for a promise, or until the call is cancelled. */
function unlessCancelled({ abort: { signal } }, promise) {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop);
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
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
  return new RpcError(name, message, {
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
      } else if (['raise', 'refuse', 'return', 'close'].includes(kind)) {
        interrupted = false;
        if (kind === 'raise') throw makeError(what);
        if (kind === 'refuse') throw new ActionError(what);
        return kind === 'return' ? what : undefined;
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

function ownFunction(name) {
  names.functions[name] ??= (...args) => {
    count(probe(name), 'started');
    return args;
  };
  return names.functions[name];
}

/** A stream within a value: no call runs its script, so what closes it also wakes it where it waits. */
function ownStream(name, script) {
  const abort = new AbortController();
  const steps = play({ abort }, name, script);
  const close = steps.return.bind(steps);
  return Object.assign(steps, {
    return() {
      abort.abort(new RpcError('CallCancelled', 'the stream was cancelled'));
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

// -------------------------------------------------------------------------------------------- the other role

const errorOutcome = ({ name, message, fields }) => ({ error: { ...fields, name, message } });

/** The outcome of a call that `make` makes; what it names is held until the method has answered. */
async function outcomeOf(call, make) {
  try {
    const { result = null, refs = [], stream } = await make().answer;
    call.refs.push(...refs);
    return stream ? { stream } : { result };
  } catch (error) {
    return errorOutcome(error);
  }
}

async function invoke(call, name, path, args, options) {
  const { kind = 'call', words, kwargs, meta } = options ?? {};
  const outcome = await outcomeOf(call, () => {
    const values = words ? args.map(fromWords) : args;
    names.invoked[name] = peer.call(kind === 'call' ? 'request' : kind, path, values, { kwargs, meta });
    return names.invoked[name];
  });
  if (!outcome.stream) return outcome;
  names.kept[name] = outcome.stream;
  return { stream: true };
}

async function take(call, name, n) {
  const stream = names.kept[name] ?? typeError('no stream of that name');
  const values = [];
  while (values.length < n) {
    const { value, refs, end } = await unlessCancelled(call, stream.pull());
    call.refs.push(...refs);
    if (end) return { values, end: end.error ? errorOutcome(end.error) : { result: end.result } };
    values.push(value);
  }
  return { values, end: null };
}

async function abort(call, name) {
  if (names.kept[name]) await names.kept[name].dropped();
  else if (names.invoked[name]) await peer.giveUp(names.invoked[name]);
}

async function callFunction(call, f, args) {
  if (typeof f !== 'function') typeError('no function');
  if (!peer.agreed.has('callback')) return f.notify(args) ?? null;
  const outcome = await outcomeOf(call, () => f.ask(args));
  if (!outcome.stream) return outcome;
  outcome.stream.release();
  return errorOutcome(new RpcError('TypeError', 'a stream'));
}

function findHeld(value) {
  if (typeof value === 'function' || value instanceof RemoteStream) return value;
  const within = typeof value === 'object' && value !== null ? Object.values(value) : [];
  return within.map(findHeld).find(Boolean);
}

function keep(call, name, value) {
  names.kept[name] = findHeld(value)?.hold() ?? typeError('neither a function nor a stream');
  return null;
}

function forget(call, name) {
  names.kept[name]?.release();
  delete names.kept[name];
}

function release(call, name) {
  peer.forgetOwn(peer.ownIds.get(names.functions[name]));
  delete names.functions[name];
}

// ----------------------------------------------------------------------------------------------- the methods

async function barrier() {
  const { outbox } = peer;
  for (let rounds = 0, quiet = 0; quiet < 3 && rounds < 1000; rounds++) { // not for ever: a producer may never wait
    const { pushed } = outbox;
    await turn();
    await outbox.flushed();
    quiet = outbox.pushed === pushed && outbox.frames.length === 0 ? quiet + 1 : 0;
  }
}

async function reset(call) {
  const running = peer.incoming.size - 1;
  Object.values(names.gates).forEach(({ open }) => open());
  Object.values(names.invoked).forEach((made) => peer.giveUp(made));
  Object.values(names.kept).forEach((held) => held.release());
  Object.keys(names.functions).forEach((name) => release(call, name));
  hub.reset();
  await peer.cancelAll(call, 1000);
  await peer.outbox.flushed();
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
  throw new RpcError('RPCValidationError', `${path}: no integer`, { phase, method: path, issues });
};

let noise = [];
const hidden = { _hidden: method('', () => 'hidden'), _secret: new Property('secret') };
const exposed = (members) => new Map(Object.entries({ ...hidden, ...members }));

const tools = { limits: LIMITS, exposed, makeError, errorOutcome, unlessCancelled };
const hub = hubMethods({ getPeer: () => peer, ...tools });

const root = exposed({
  describe: method('', () => ({
    protocol: 1, name: 'kkrpc-node-testee', version: '1', features: [...EXTENSIONS, ...OTHERS],
  })),
  echo: method('value', (call, value) => value),
  tag: method('value', (call, value) => toWords(value)),
  make: method('words', (call, words) => fromWords(words)),
  args: method('*', (call, ...args) => ({ args, kwargs: call.kwargs })),
  nothing: method('', () => undefined),
  add,
  math: exposed({ add, deep: exposed({ add }), count: countTo }),
  meta: method('', (call) => call.meta),
  fail: method('error', (call, error) => { throw makeError(error); }),
  typed: exposed({
    input: method('n', (call, n) => checked('typed.input', 'input', ['n' in call.kwargs ? 'n' : 0])(n)),
    output: method('value', (call, value) => checked('typed.output', 'output', [])(value)),
    chunks: method('values', (call, values) => stream(values, checked('typed.chunks', 'output', []))),
  }),
  settings: exposed({
    theme: new Property('dark', true), fixed: new Property(7), tree: new Property({ a: { b: [1, 2] } }),
  }),
  Point: method('x y', (call, x, y) => ({ x, y }), true), // CALL-9: its public fields. There is no Sealed
  run: method('name script', run),
  produce: method('name script', play),
  action: actionMethod({ play, started: (name) => count(probe(name), 'started') }),
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
  notify: method('f args', (call, f, args) => (f?.notify ? f.notify(args) : typeError('no function'))),
  keep: method('name value', keep),
  kept: method('name args', (call, name, args) => callFunction(call, names.kept[name], args)),
  forget: method('name', forget),
  release: method('name', release),
  noise: method('', () => {
    const lines = noise;
    noise = [];
    return lines;
  }),
  counted: method('', () => peer.counted),
  streams: hub.streams,
  hub: hub.steering,
});

// Descriptor 1 as a socket: process.stdout would block on a full pipe, and a peer must go on reading (CLS-5).
const output = new net.Socket({ fd: 1, readable: false, writable: true });
const peer = new Peer({
  input: process.stdin, output, root, features: EXTENSIONS, limits: LIMITS,
  onNoise: (line) => noise.push(line.toString('hex')),
});
const reason = await peer.finished;
process.exit({ ProtocolError: 3, LimitExceeded: 4 }[reason?.name] ?? 0);
