// The methods of testee.md below `hub`, and what the hub exposes at `streams`.

import { method } from './peer.mjs';
import { RpcError } from './wire.mjs';
import { Hub, typeError } from './hub.mjs';
import { Reader, Upload } from './client.mjs';
import { RemoteState, SharedState } from './state.mjs';

/** What is to be exposed as `streams` and `hub`, and `reset`. `tools` are the testee's. */
export function hubMethods({ getPeer, limits, exposed, makeError, errorOutcome, unlessCancelled }) {
  const hub = new Hub(limits);
  const things = new Map(); // by key
  const heard = new Map(); // listeners by event
  const elsewhere = { emit: () => {} }; // another session
  let unanswered = 0;
  const session = {
    emit(name, args) { // EVT-2
      if (unanswered >= limits.calls / 4) throw new RpcError('WouldBlock', 'too many events are not answered');
      const { answer } = getPeer().call('request', 'streams.emit', [name, ...args]);
      unanswered++;
      answer.then(({ stream, refs = [] }) => [stream, ...refs].forEach((thing) => thing?.release()), () => {})
        .finally(() => { unanswered--; });
    },
  };
  hub.sessions.add(session);

  const thing = (key) => things.get(key) ?? typeError('nothing of that key');
  const keep = (key, made) => {
    things.set(key, made);
    return made;
  };
  const outcome = async (make) => {
    try {
      return { result: (await make()) ?? null };
    } catch (error) {
      return errorOutcome(error);
    }
  };

  async function read(call, key, n) {
    const values = [];
    while (values.length < n) {
      const { value, refs = [], end } = await unlessCancelled(call, thing(key).read());
      call.refs.push(...refs);
      if (end) return { values, end: end.error ? errorOutcome(end.error) : { result: null } };
      values.push(value);
    }
    return { values, end: null };
  }

  function readerOptions(given) {
    const { high_water_mark: highWaterMark, ...rest } = given ?? {};
    return highWaterMark === undefined ? rest : { ...rest, highWaterMark };
  }

  const upload = exposed({
    stream: method('name id chunks', (call, name, id, chunks) => {
      const done = hub.uploaded(session, id, name).stream(chunks);
      return unlessCancelled(call, done);
    }),
    write: method('id seq chunk', (call, id, seq, chunk) => (
      unlessCancelled(call, hub.uploaded(session, id).write(seq, chunk)))),
    close: method('id', (call, id) => unlessCancelled(call, hub.uploaded(session, id).close())),
    error: method('id error', (call, id, error) => hub.uploaded(session, id).fail(error)),
  });
  const streams = exposed({
    subscribe: method('name id options?', (call, name, id, options) => hub.subscribe(name, id, options)),
    upload,
    emit: method('*', (call, name, ...args) => hub.emitted(name, args)),
    mutate: method('name version patch', (call, name, version, patch) => hub.mutate(name, version, patch)),
  });

  const steering = exposed({
    create: method('name options?', (call, name, options) => {
      const { replay_window: window, retention, allow } = options ?? {};
      hub.create(name, { window, retention, allow });
    }),
    drop: method('name', (call, name) => hub.drop(name)),
    ids: method('name', (call, name) => hub.ids(name)),
    start: method('key name id?', (call, key, name, id) => keep(key, hub.start(name, id ?? undefined)).id),
    inbound: method('key name options?', (call, key, name, options) => {
      const { high_water_mark: most, elsewhere: other } = options ?? {};
      return keep(key, hub.inbound(other ? elsewhere : session, name, most)).id;
    }),
    state: method('key name initial options?', (call, key, name, initial, options) => {
      const { writable, replay_window: window, allow } = options ?? {};
      hub.create(name, { window, retention: 0, allow });
      keep(key, new SharedState(hub, name, initial, { writable, window }));
    }),
    broadcast: method('event args', (call, event, args) => hub.broadcast(event, args)),
    subscribe: method('key name id options?', (call, key, name, id, options) => (
      outcome(() => keep(key, new Reader(getPeer(), name, id, readerOptions(options))).open()))),
    upload: method('key name id', (call, key, name, id) => (
      outcome(() => { keep(key, new Upload(getPeer(), name, id)); }))),
    watch: method('key name', (call, key, name) => (
      outcome(() => unlessCancelled(call, keep(key, new RemoteState(getPeer(), name)).ready())))),
    emit: method('event args', (call, event, args) => session.emit(event, args)),
    listen: method('event options?', (call, event, options) => {
      heard.set(event, hub.listen(event, options?.high_water_mark));
    }),
    heard: method('event n', (call, event, n) => (
      unlessCancelled(call, heard.get(event)?.take(n) ?? typeError('nobody listens')))),
    write: method('key values', (call, key, values) => values.forEach((value) => thing(key).write(value))),
    send: method('key value', (call, key, value) => unlessCancelled(call, thing(key).send(value))),
    error: method('key error', (call, key, error) => thing(key).close(makeError(error))),
    close: method('key', (call, key) => thing(key).close()),
    status: method('key', (call, key) => thing(key).status()),
    read: method('key n', read),
    seen: method('key', (call, key) => thing(key).seen()),
    cancel: method('key', (call, key) => thing(key).cancel()),
    change: method('key patch', (call, key, patch) => outcome(() => thing(key).change(patch))),
    value: method('key', (call, key) => ({ version: thing(key).version, value: thing(key).value })),
  });

  function reset() {
    for (const made of things.values()) if (made instanceof Reader || made instanceof RemoteState) made.cancel();
    things.clear();
    heard.clear();
    hub.clear();
  }

  return { streams, steering, reset };
}
