// The wire: lines in and out (section 1), JSON as values and back (section 4). It knows no calls.

/** An error of the protocol, of the peer, or one that is to be sent: a name, a message and other fields. */
export class RpcError extends Error {
  constructor(name, message, fields = {}) {
    super(message);
    this.name = name;
    this.fields = fields;
  }
}

// ---------------------------------------------------------------------------------------------- lines that come in

const LF = 0x0a;
const BRACE = 0x7b;
const isBlank = (byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d;
const BOM = [0xef, 0xbb, 0xbf];

/** Divides bytes into lines and tells messages from noise by how a line begins (FRM-1), in linear time (FRM-2). */
export class LineReader {
  constructor(limits, onJson, onNoise) {
    Object.assign(this, { limits, onJson, onNoise });
    this.#next();
  }

  #next() {
    this.kind = 'start'; // then 'json' or 'noise'
    this.bom = 0; // bytes of the byte order mark that were seen
    this.parts = [];
    this.length = 0; // of the line so far
    this.kept = 0; // bytes in the parts of what is no message yet, or none
  }

  push(bytes) {
    for (let from = 0; from < bytes.length;) {
      const end = bytes.indexOf(LF, from);
      this.#append(bytes.subarray(from, end < 0 ? bytes.length : end));
      if (end < 0) return;
      this.#finish();
      from = end + 1;
    }
  }

  end() {
    if (this.kind === 'json') throw new RpcError('ProtocolError', 'the input ended within a message'); // FRM-9
    this.#finish();
  }

  #append(bytes) {
    let from = 0;
    while (this.kind === 'start' && from < bytes.length) {
      const byte = bytes[from];
      if (byte === BRACE && this.bom % 3 === 0) {
        [this.kind, this.parts] = ['json', []];
      } else {
        if (this.bom < 3 && byte === BOM[this.bom]) this.bom++;
        else if (!isBlank(byte) || this.bom % 3) this.kind = 'noise';
        if (this.kept === this.limits.noise) this.kind = 'noise'; // FRM-7: blanks without end
        this.#keep(bytes.subarray(from, ++from));
      }
    }
    this.length += bytes.length;
    if (this.kind === 'noise') this.#keep(bytes.subarray(from));
    if (this.kind !== 'json') return;
    this.parts.push(bytes.subarray(from));
    if (this.length > this.limits.frame) throw new RpcError('LimitExceeded', 'a line is too long'); // FRM-6
  }

  #keep(bytes) { // FRM-7: what is beyond the limit is not buffered
    const part = bytes.subarray(0, this.limits.noise - this.kept);
    this.kept += part.length;
    if (part.length) this.parts.push(part);
  }

  #finish() {
    const { kind, bom, length } = this;
    const line = Buffer.concat(this.parts);
    this.#next();
    if (kind === 'json') this.onJson(line, length);
    else if (kind === 'noise' || bom) this.onNoise(line);
  }
}

// ---------------------------------------------------------------------------------------------- JSON that comes in

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The JSON of a line: `{message, flaw}`, where a flaw says what makes it malformed (FRM-8), or null for noise. */
export function parseLine(bytes, limits) {
  const seen = { deep: false, odd: false, long: false };
  let message;
  try {
    const text = utf8.decode(bytes);
    message = JSON.parse(text);
    survey(message, 1, limits.depth, seen);
    if (seen.odd && !seen.deep) message = exact(text, limits.digits, seen);
  } catch {
    return null;
  }
  const flaw = seen.deep ? 'message nested too deeply' : seen.long ? 'integer with too many digits' : null;
  return { message, flaw };
}

/** Finds what is too deep, and numbers that JSON.parse may have changed, without following more levels than allowed. */
function survey(value, level, depth, seen) {
  if (typeof value === 'number') {
    if (!Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value))) seen.odd = true;
  } else if (typeof value === 'object' && value !== null) {
    if (level > depth) seen.deep = true;
    else for (const item of Object.values(value)) survey(item, level + 1, depth, seen);
  }
}

/** Reads text that JSON.parse has found to be JSON again, integers exactly: beyond 2^53 - 1 they are BigInts (VAL-3). */
function exact(text, digits, seen) {
  let at = 0;
  const match = (pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)[0];
    at += found.length;
    return found;
  };
  const next = () => (match(/[ \t\r\n]*/y), text[at]);
  const string = () => {
    const from = at++;
    while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1;
    return JSON.parse(text.slice(from, ++at));
  };
  const number = () => {
    const token = match(/-?[0-9.eE+-]+/y);
    const value = Number(token);
    if (!/^-?[0-9]+$/.test(token)) {
      if (!Number.isFinite(value)) throw new RangeError('beyond a double'); // VAL-2: noise
      return value;
    }
    if (Number.isSafeInteger(value)) return value;
    if (token.replace('-', '').length <= digits) return BigInt(token);
    seen.long = true;
    return NaN; // no id either
  };
  const value = () => {
    const first = next();
    if (first === '"') return string();
    if (first !== '{' && first !== '[') return /[tfn]/.test(first) ? JSON.parse(match(/[a-z]+/y)) : number();
    const close = first === '{' ? '}' : ']';
    const items = [];
    for (at++; next() !== close;) {
      if (text[at] === ',') { at++; continue; }
      if (first === '[') { items.push(value()); continue; }
      const key = string();
      next();
      at++; // the colon
      items.push([key, value()]);
    }
    at++;
    return first === '[' ? items : Object.fromEntries(items); // which makes `__proto__` a key like any other
  };
  return value();
}

/** The bytes that an object is the form of (VAL-4), or null. Uint8Array.from takes numbers modulo 256, truncated. */
export function bytesOf(object) {
  if (object.type !== 'Uint8Array' || !Array.isArray(object.data) || Object.keys(object).length !== 2) return null;
  const numbers = object.data.map((item) => (typeof item === 'bigint' ? Number(BigInt.asUintN(8, item)) : item));
  return numbers.every((item) => typeof item === 'number') ? Uint8Array.from(numbers) : null;
}

// ---------------------------------------------------------------------------------------------- JSON that goes out

/** A JSON string in ASCII: toward stock peers that is a MUST (FRM-11), elsewhere it does no harm. */
export const quote = (text) => JSON.stringify(text)
  .replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);

/** Writes the values of one message; refuses what JSON cannot carry (VAL-1). `name` gives a function or stream a name. */
export class ValueWriter {
  constructor({ limits, stock, name }) {
    Object.assign(this, { limits, stock, name });
    this.deepest = 0;
    this.names = new Set(); // placeholders of functions and streams
    this.texts = new Set(); // other strings that could be taken for one
  }

  write(value, level, path) {
    switch (typeof value) {
      case 'boolean': return String(value);
      case 'string':
        if (/^__(callback|stream)__/.test(value)) this.#watch(value, path);
        return quote(value);
      case 'number':
        if (!Number.isFinite(value)) this.refuse(value, path); // VAL-2: never as null
        if (Object.is(value, -0)) return '-0.0';
        // A double that is no exact integer is written so that no reader takes it for one.
        return Number.isInteger(value) && !Number.isSafeInteger(value) ? value.toExponential() : String(value);
      case 'bigint': return this.#integer(value, path);
      case 'undefined': return 'null';
      case 'function': return this.#named(value, path);
      case 'object': return value === null ? 'null' : this.#object(value, level, path);
      default: return this.refuse(value, path);
    }
  }

  /** To be called last: CBK-1, other text must not equal the placeholders of the same message. */
  check() {
    for (const text of this.texts) if (this.names.has(text)) this.refuse(text, ['text that names a function']);
  }

  refuse(value, path) {
    const type = value?.constructor?.name ?? typeof value;
    throw new RpcError('NotSerializable', `a ${type} cannot be sent, at ${path.join('.')}`);
  }

  #watch(text, path) {
    const top = path.length === 2 && path[0] === 'args';
    if (this.stock && top && text.startsWith('__callback__')) this.refuse(text, path); // VAL-5
    this.texts.add(text);
  }

  #integer(value, path) {
    const safe = BigInt.asIntN(54, value) === value && value !== -(2n ** 53n);
    const text = String(value);
    if ((this.stock && !safe) || text.replace('-', '').length > this.limits.digits) this.refuse(value, path);
    return text;
  }

  #named(value, path) {
    const name = this.name(value, path) ?? this.refuse(value, path);
    this.names.add(name);
    return quote(name);
  }

  #object(value, level, path) {
    if (value[Symbol.asyncIterator] || typeof value.notify === 'function') return this.#named(value, path);
    this.#enter(value, level, path);
    if (value instanceof Uint8Array) {
      this.#enter(value, level + 1, path);
      return `{"type":"Uint8Array","data":[${value.join(',')}]}`;
    }
    if (Array.isArray(value)) {
      return `[${value.map((item, index) => this.write(item, level + 1, [...path, index])).join(',')}]`;
    }
    const plain = [Object.prototype, null].includes(Object.getPrototypeOf(value));
    if (!plain || (value.type === 'Uint8Array' && Array.isArray(value.data))) this.refuse(value, path); // VAL-4
    const rows = [];
    for (const key of Object.keys(value)) { // VAL-9: a key without value is left out
      if (value[key] !== undefined) rows.push(`${quote(key)}:${this.write(value[key], level + 1, [...path, key])}`);
    }
    return `{${rows.join(',')}}`;
  }

  #enter(value, level, path) {
    if (level > this.limits.depth) this.refuse(value, path); // FRM-8
    this.deepest = Math.max(this.deepest, level);
  }
}

// ---------------------------------------------------------------------------------------------- lines that go out

const READ = 65536; // of a stock peer (FRM-10)
const GATHER = 65536; // bytes in one write
const ROOM = 65536; // bytes in a stream's lane beyond which its producer waits

/** A stream's frames, waiting to be written. */
class Lane {
  constructor(outbox) {
    Object.assign(this, { outbox, frames: [], bytes: 0, onRoom: () => {} });
  }

  get hasRoom() { return this.bytes < ROOM; }

  /** `keep`: a cancel must not take it away (CBK-6). `sent` is called when it is handed to the byte stream. */
  push(line, { keep = false, sent } = {}) {
    if (this.frames.length === 0) this.outbox.ready.push(this);
    this.frames.push({ line, keep, sent });
    this.bytes += line.length;
    this.outbox.queued++;
    this.outbox.schedule();
  }

  drop() { // CAN-1
    const kept = this.frames.filter((frame) => frame.keep);
    this.outbox.written += this.frames.length - kept.length;
    this.frames = kept;
    this.bytes = kept.reduce((sum, frame) => sum + frame.line.length, 0);
    if (kept.length === 0) this.outbox.ready = this.outbox.ready.filter((lane) => lane !== this);
  }
}

/** What waits to be written: stream frames in lanes that take turns, all else in order and ahead of them (CLS-4). */
export class Outbox {
  constructor(output, sendMax, onFull) {
    Object.assign(this, { output, sendMax, onFull });
    this.control = [];
    this.controlBytes = 0; // what is being written included
    this.ready = []; // lanes that have frames, the next one first
    this.queued = 0;
    this.written = 0;
    this.waiters = [];
    this.writing = this.scheduled = this.broken = false;
    this.first = true;
  }

  lane() { return new Lane(this); }

  push(line) {
    this.control.push(line);
    this.controlBytes += line.length + 1;
    this.queued++;
    if (this.controlBytes > this.sendMax) this.onFull(); // CLS-5
    this.schedule();
  }

  /** Resolves once everything that is queued now has been written, or will never be. */
  flushed() {
    const goal = this.queued;
    return new Promise((resolve) => {
      this.waiters.push({ goal, resolve });
      this.schedule();
    });
  }

  abandon() {
    this.broken = true;
    for (const { resolve } of this.waiters.splice(0)) resolve();
  }

  schedule() {
    if (this.scheduled || this.writing || this.broken) return;
    this.scheduled = true;
    queueMicrotask(() => {
      this.scheduled = false;
      this.#pump();
    });
  }

  #pump() {
    if (this.writing || this.broken) return;
    const lines = this.control;
    const count = lines.length;
    const control = lines.reduce((sum, line) => sum + line.length + 1, 0);
    const touched = new Set();
    this.control = [];
    for (let total = control; total < GATHER && this.ready.length > 0;) {
      const lane = this.ready.shift();
      const { line, sent } = lane.frames.shift();
      if (lane.frames.length) this.ready.push(lane);
      lane.bytes -= line.length;
      touched.add(lane);
      lines.push(line);
      total += line.length + 1;
      sent?.();
    }
    if (lines.length > 0) this.#write(lines, control);
    else this.waiters = this.waiters.filter(({ goal, resolve }) => goal > this.written || resolve());
    for (const lane of touched) if (lane.hasRoom) lane.onRoom();
  }

  #write(lines, control) {
    let text = `${this.first ? '\n' : ''}${lines.join('\n')}\n`; // FRM-12
    if (lines.length > 1 && text.length % READ === 1) text = ` ${text}`; // FRM-10
    this.first = false;
    this.writing = true;
    this.output.write(text, 'latin1', () => {
      this.writing = false;
      this.controlBytes -= control;
      this.written += lines.length;
      this.#pump();
    });
  }
}

/** A line whose length no stock peer stumbles over: one blank before the closing brace (FRM-10). */
export const padded = (line) => (line.length % READ === 0 ? `${line.slice(0, -1)} }` : line);
