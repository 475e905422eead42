// The wire: lines in and out (section 1), values as JSON (section 4), the order of what is written (CLS-4).

/** An error with a name that goes over the wire, and other fields (ERR-1). */
export class RpcError extends Error {
  constructor(name, message, fields = {}) {
    super(message);
    Object.assign(this, { name, fields });
  }
}

export const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

/** Divides bytes into lines, and tells messages from noise by how a line begins (FRM-1). */
export class LineReader {
  constructor(limits, onJson, onNoise) {
    Object.assign(this, { limits, onJson, onNoise });
    this.#start();
  }

  #start() { Object.assign(this, { kind: 'start', mark: 0, parts: [], kept: 0, length: 0 }); }

  push(bytes) {
    let from = 0;
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, from)) { // FRM-2: 0x0A and nothing else
      this.#append(bytes.subarray(from, end));
      this.#finish();
      from = end + 1;
    }
    this.#append(bytes.subarray(from));
  }

  end() {
    if (this.kind === 'json') throw new RpcError('ProtocolError', 'the input ended within a message'); // FRM-9
    this.#finish();
  }

  #append(bytes) {
    let from = 0;
    for (; this.kind === 'start' && from < bytes.length; from++) { // `mark`: bytes of a byte order mark so far
      const byte = bytes[from];
      if (byte === 0x7b && this.mark % 3 === 0) [this.kind, this.parts] = ['json', [Buffer.from('{')]];
      else if (byte === [0xef, 0xbb, 0xbf][this.mark]) this.mark++;
      else if (![0x20, 0x09, 0x0d].includes(byte) || this.mark % 3) this.kind = 'noise';
      if (this.kind !== 'json') this.#keep(bytes.subarray(from, from + 1));
    }
    this.length += bytes.length;
    if (this.kind === 'json') this.parts.push(bytes.subarray(from));
    else this.#keep(bytes.subarray(from));
    if (this.kind !== 'json' || this.length <= this.limits.frame) return;
    throw new RpcError('LimitExceeded', 'a line too long'); // FRM-6
  }

  #keep(bytes) { // FRM-7: no more than the limit is buffered; blanks that pass it are noise, too
    if (this.kept + bytes.length > this.limits.noise) this.kind = 'noise';
    const part = bytes.subarray(0, this.limits.noise - this.kept);
    this.kept += part.length;
    if (part.length) this.parts.push(part);
  }

  #finish() {
    const { kind, mark, length } = this;
    const line = Buffer.concat(this.parts);
    this.#start();
    if (kind === 'json') this.onJson(line, length);
    else if (kind === 'noise' || mark) this.onNoise(line);
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** The JSON of a line, `{message, flaw}`; a flaw makes it malformed (FRM-8). Null for no JSON (FRM-4). */
export function parseLine(bytes, limits) {
  let flaw = null;
  let odd = false; // there are numbers that JSON.parse may have changed
  const look = (value, level) => {
    if (typeof value === 'number') odd ||= Math.abs(value) > Number.MAX_SAFE_INTEGER;
    if (typeof value !== 'object' || value === null) return;
    if (level > limits.depth) flaw = 'message nested too deeply';
    else for (const item of Object.values(value)) look(item, level + 1);
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
    const text = utf8.decode(bytes);
    let message = JSON.parse(text);
    look(message, 1);
    if (odd && !flaw) { // JSON.parse keeps no integer beyond 2^53 - 1 (VAL-3)
      message = plain(JSON.parse(text.replace(TOKEN, (token) => {
        if (token[0] === '"') return `"s${token.slice(1)}`;
        return /[.eE]/.test(token) || Number.isSafeInteger(Number(token)) ? token : `"i${token}"`;
      })));
    }
    return { message, flaw };
  } catch {
    return null;
  }
}

/** The bytes that an object is the form of, or null (VAL-4). */
export function bytesOf({ type, data, ...rest }) {
  if (type !== 'Uint8Array' || !Array.isArray(data) || Object.keys(rest).length > 0) return null;
  const numbers = data.map((item) => (typeof item === 'bigint' ? Number(BigInt.asUintN(8, item)) : item));
  return numbers.every((item) => typeof item === 'number') ? Uint8Array.from(numbers) : null; // modulo 256
}

/** JSON text of a string, in ASCII (FRM-11). */
export const quote = (text) => JSON.stringify(text)
  .replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);

/**
 * A function that writes values as JSON, and refuses what JSON cannot carry (VAL-1). `name(value, path)` gives
 * the placeholder of a function or stream, undefined where none may stand, null for any other value;
 * `refuses(text, path)` is asked for each string.
 */
export function valueWriter({ limits, stock, name, refuses }) {
  const refuse = (value, path) => {
    const type = value?.constructor?.name ?? typeof value;
    throw new RpcError('NotSerializable', `a value of type ${type} cannot be sent, at ${path.join('.')}`);
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
      const safe = Number.isSafeInteger(Number(value));
      return (stock && !safe) || text.replace('-', '').length > limits.digits ? refuse(value, path) : text;
    }
    const named = name(value, path);
    if (named !== null) return named === undefined ? refuse(value, path) : quote(named);
    const bytes = value instanceof Uint8Array;
    if (typeof value !== 'object' || level + bytes > limits.depth) refuse(value, path); // FRM-8
    if (bytes) return `{"type":"Uint8Array","data":[${value.join(',')}]}`;
    const within = (key) => write(value[key], level + 1, [...path, key]);
    if (Array.isArray(value)) return `[${value.map((item, index) => within(index)).join(',')}]`;
    const foreign = ![Object.prototype, null].includes(Object.getPrototypeOf(value));
    if (foreign || (value.type === 'Uint8Array' && Array.isArray(value.data))) refuse(value, path); // VAL-4
    return `{${Object.keys(value).filter((key) => value[key] !== undefined) // VAL-9
      .map((key) => `${quote(key)}:${within(key)}`).join(',')}}`;
  };
  return write;
}

/**
 * What waits to be written: stream frames, and all else ahead of them (CLS-4). A producer has one frame here at
 * most, so that streams take turns. Each write begins in a turn of the event loop of its own (STR-10).
 */
export class Outbox {
  control = [];
  frames = [];
  waiting = []; // for all that is queued to be written
  bytes = 0; // of control, what is being written included
  pushed = 0; // frames that were queued so far
  writing = false;
  first = '\n'; // FRM-12

  constructor(output, sendMax, onFull) { Object.assign(this, { output, sendMax, onFull }); }

  push(line) {
    this.control.push(line);
    this.bytes += line.length + 1;
    if (this.bytes > this.sendMax) this.onFull(); // CLS-5
    this.#schedule();
  }

  /** Queues a stream frame: `{line, call, keep, sent}`; `sent(true)` once it is handed on. */
  pushFrame(frame) {
    this.frames.push(frame);
    this.pushed++;
    this.#schedule();
  }

  /** Throws away what a cancel makes pointless (CAN-1), but not what names functions or streams (CBK-6). */
  drop(call) {
    const gone = this.frames.filter((frame) => frame.call === call && !frame.keep);
    this.frames = this.frames.filter((frame) => !gone.includes(frame));
    gone.forEach((frame) => frame.sent(false));
  }

  flushed() {
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      this.#schedule();
    });
  }

  #schedule() {
    if (this.writing) return;
    this.writing = true;
    setImmediate(() => this.#write());
  }

  #write() {
    const frames = this.control.length ? [] : this.frames.splice(0, 64);
    const lines = [...this.control.splice(0), ...frames.map((frame) => frame.line)];
    frames.forEach((frame) => frame.sent(true));
    const done = (size) => {
      this.bytes -= size;
      this.writing = false;
      if (this.control.length + this.frames.length > 0) this.#schedule();
      else this.waiting.splice(0).forEach((resolve) => resolve());
    };
    if (lines.length === 0) return done(0);
    const text = `${lines.join('\n')}\n`;
    const blank = lines.length > 1 && text.length % 65536 === 1 ? ' ' : ''; // FRM-10
    this.output.write(this.first + blank + text, 'latin1', () => done(frames.length ? 0 : text.length));
    this.first = '';
    return undefined;
  }
}
