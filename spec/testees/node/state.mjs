// Shared state (section 23): patches of RFC 6902, the server's half, and the client's.

import { isDeepStrictEqual } from 'node:util';
import { RpcError, isObject } from './wire.mjs';
import { Bell, typeError } from './hub.mjs';
import { Reader } from './client.mjs';

const OPERATIONS = ['add', 'remove', 'replace', 'move', 'copy', 'test'];
const MOST_OPERATIONS = 10000;
const DEEPEST = 64;
const MOST_RESTARTS = 3; // subscriptions in a row that bring nothing
const END = Symbol('the end of a list');
const wrong = (text) => { throw new RpcError('ValueError', text); };

/** Whether it is a state (STA-1). Bytes and long integers have become no plain objects and numbers by now. */
function isState(value, depth = 0) {
  if (value === null || typeof value === 'boolean') return true;
  if (typeof value === 'string') return !/\p{Surrogate}/u.test(value);
  if (typeof value === 'number') { // from 1e21 on it is not written as an integer
    const long = Number.isInteger(value) && !Number.isSafeInteger(value) && Math.abs(value) < 1e21;
    return Number.isFinite(value) && !long;
  }
  const plain = isObject(value) && [Object.prototype, null].includes(Object.getPrototypeOf(value));
  if (!(plain || Array.isArray(value)) || depth > DEEPEST) return false;
  if (value.type === 'Uint8Array' && Array.isArray(value.data)) return false;
  return Object.entries(value).every(([key, item]) => isState(key) && isState(item, depth + 1));
}

// ---------------------------------------------------------------------------------------------------- patches

function segmentsOf(pointer) {
  if (typeof pointer !== 'string' || !/^(\/([^/~]|~[01])*)*$/.test(pointer)) wrong('no pointer');
  return pointer.split('/').slice(1).map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
}

/** The operations of a patch, with pointers as lists of segments. */
function readPatch(patch) {
  if (!Array.isArray(patch)) typeError('a patch is a list');
  if (patch.length > MOST_OPERATIONS) wrong('a patch of too many operations');
  return patch.map((given) => {
    const operation = isObject(given) ? given : wrong('an operation is an object');
    const { op, path, from, value } = operation;
    if (!OPERATIONS.includes(op)) wrong('no such operation');
    const read = { op, path: segmentsOf(path) };
    if (op === 'move' || op === 'copy') read.from = segmentsOf(from);
    if (['add', 'replace', 'test'].includes(op)) {
      if (!Object.hasOwn(operation, 'value') || !isState(value)) wrong('an operation without a fitting value');
      read.value = value;
    }
    return read;
  });
}

/** What a segment names within `parent`; undefined where there is nothing. `end`: the place behind a list, too. */
function keyIn(parent, segment, end = false) {
  if (Array.isArray(parent)) {
    const index = segment === '-' ? parent.length : /^(0|[1-9]\d*)$/.test(segment) ? Number(segment) : -1;
    return index >= 0 && index < parent.length + (end ? 1 : 0) ? index : undefined;
  }
  return isObject(parent) && (end || Object.hasOwn(parent, segment)) ? segment : undefined;
}

function valueAt(root, segments) {
  return segments.reduce((here, segment) => {
    const key = keyIn(here, segment);
    return key === undefined ? wrong('there is no such place') : here[key];
  }, root);
}

function put(parent, key, value) { // an assignment to __proto__ would be something else
  Object.defineProperty(parent, key, { value, writable: true, enumerable: true, configurable: true });
}

/** Applies one operation to a root of its own; returns the root. */
function applied(root, { op, path, from, value }) {
  const add = (target, what) => {
    if (path.length === 0) return what;
    const parent = valueAt(target, path.slice(0, -1));
    const key = keyIn(parent, path.at(-1), true);
    if (key === undefined) wrong('there is no such place');
    if (Array.isArray(parent)) parent.splice(key, 0, what);
    else put(parent, key, what);
    return target;
  };
  const remove = (target, segments) => {
    if (segments.length === 0) wrong('a state has a value');
    const parent = valueAt(target, segments.slice(0, -1));
    const key = keyIn(parent, segments.at(-1)) ?? wrong('there is no such place');
    if (Array.isArray(parent)) parent.splice(key, 1);
    else delete parent[key];
    return target;
  };
  switch (op) {
    case 'add': return add(root, structuredClone(value));
    case 'remove': return remove(root, path);
    case 'replace': {
      valueAt(root, path);
      if (path.length === 0) return structuredClone(value);
      const parent = valueAt(root, path.slice(0, -1));
      put(parent, keyIn(parent, path.at(-1)), structuredClone(value));
      return root;
    }
    case 'move': {
      const moved = valueAt(root, from);
      if (from.length < path.length && isPrefix(from, path)) wrong('a value cannot be moved into itself');
      return from.length === path.length && isPrefix(from, path) ? root : add(remove(root, from), moved);
    }
    case 'copy': return add(root, structuredClone(valueAt(root, from)));
    default: return isDeepStrictEqual(valueAt(root, path), value) ? root : wrong('a test has failed');
  }
}

/** The state that a patch makes of `value`, which stays as it is. `look` sees each operation before it is applied. */
export function patched(value, patch, { look = () => {}, most = Infinity } = {}) {
  let root = structuredClone(value);
  for (const operation of readPatch(patch)) {
    look(root, operation);
    root = applied(root, operation);
    if (operation.op === 'copy' && JSON.stringify(root).length > most) throw new RpcError('LimitExceeded', 'too large');
  }
  if (!isState(root)) wrong('what it makes is no state');
  if (JSON.stringify(root).length > most) throw new RpcError('LimitExceeded', 'too large');
  return root;
}

// ----------------------------------------------------------------------------------------------------- places

const isPrefix = (short, long) => short.every((segment, at) => segment === long[at]);

/** The places that an operation touches (STA-8). */
function placesOf(root, { op, path, from }) {
  const shifts = (segments) => { // an item is put in there, or taken out
    let parent;
    try {
      parent = valueAt(root, segments.slice(0, -1));
    } catch { /* there is nothing yet */ }
    if (segments.length === 0 || !Array.isArray(parent)) return segments;
    return segments.at(-1) === '-' ? [...segments.slice(0, -1), END] : segments.slice(0, -1);
  };
  if (op === 'move') return [shifts(path), shifts(from)];
  if (op === 'copy') return [shifts(path), from];
  return [op === 'add' || op === 'remove' ? shifts(path) : path];
}

function collide(one, other) {
  if (one.at(-1) === END && other.at(-1) === END && one.length === other.length) return false; // two that append
  return one.length <= other.length ? isPrefix(one, other) : isPrefix(other, one);
}

// ------------------------------------------------------------------------------------------------- both halves

/** The server's half; its stream tells its subscribers. */
export class SharedState {
  #changes = []; // the places that each change touched, the last ones

  constructor(hub, name, value, { writable = false, window = 256 } = {}) {
    if (!isState(value)) wrong('it is no state');
    Object.assign(this, { value, writable, window, most: hub.limits.frame });
    this.stream = hub.start(name, 'state', { next: 2, snapshot: () => ({ value: this.value }) });
    hub.channel(name).state = this;
  }

  get version() { return this.stream.next - 1; }

  mutate(version, patch) {
    if (!Number.isInteger(version) || version < 1) wrong('a version is an integer of 1 or more');
    const wanted = readPatch(patch).flatMap((operation) => placesOf(this.value, operation));
    const since = this.version - version;
    const changes = since > 0 ? this.#changes.slice(-since).flat() : [];
    const collision = changes.some((place) => wanted.some((other) => collide(place, other)));
    if (since < 0 || since > this.#changes.length || collision) { // STA-7
      throw new RpcError('StateConflict', 'the state has gone on', { version: this.version });
    }
    const places = [];
    const look = (root, operation) => places.push(...placesOf(root, operation));
    const value = patched(this.value, patch, { look, most: this.most });
    if (isDeepStrictEqual(value, this.value)) return this.version; // STA-5
    this.value = value;
    this.#changes.push(places);
    this.#changes.splice(0, this.#changes.length - this.window);
    this.stream.write({ patch: patch.map(({ op, path, from, value: given }) => ({ op, path, from, value: given })) });
    return this.version;
  }

  change(patch) { return this.mutate(this.version, patch); }
}

/** The client's half. */
export class RemoteState {
  value = undefined;
  version = 0;
  ended = null; // {error} or {}
  bell = new Bell();

  constructor(peer, name) {
    Object.assign(this, { peer, name });
    this.following = this.#follow();
  }

  async #follow() {
    for (let vain = 0; !this.ended; vain++) {
      if (vain === MOST_RESTARTS) {
        this.ended = { error: new RpcError('ProtocolError', 'the server sends no state') };
        break;
      }
      this.reader = new Reader(this.peer, this.name, 'state', {});
      try {
        await this.reader.open();
        for (;;) {
          const { value, end } = await this.reader.read();
          if (end) {
            this.ended ??= end;
            break;
          }
          if (!this.#take(value)) { // STA-10
            await this.reader.cancel();
            this.version = 0;
            break;
          }
          vain = -1;
          this.bell.ring();
        }
      } catch (error) {
        this.ended ??= { error };
      }
    }
    this.bell.ring();
  }

  #take(given) {
    const number = this.reader.last;
    if (isObject(given) && Object.hasOwn(given, 'value')) {
      if (!isState(given.value)) return false;
      Object.assign(this, { value: given.value, version: number });
      return true;
    }
    const follows = this.version > 0 && number === this.version + 1;
    if (!isObject(given) || !Array.isArray(given.patch) || !follows) return false;
    try {
      this.value = patched(this.value, given.patch);
    } catch {
      return false;
    }
    this.version = number;
    return true;
  }

  /** Resolves once there is a value. */
  async ready() {
    while (this.version === 0) {
      if (this.ended) throw this.ended.error ?? new RpcError('StreamClosed', 'the state has ended', { code: 'DF0031' });
      await this.bell.wait();
    }
  }

  async change(patch) {
    patched(this.value, patch);
    const { result } = await this.peer.call('request', 'streams.mutate', [this.name, this.version, patch]).answer;
    return result;
  }

  async cancel() {
    this.ended ??= {};
    await this.reader.cancel();
    await this.following;
  }
}
