// A client of a hub: what reads a subscription, and what uploads (sections 20 and 21).

import { RpcError, isObject } from './wire.mjs';
import { Bell, closed, wouldBlock } from './hub.mjs';

const MOST = 256; // chunks of an upload that wait

/** Reads one subscription. */
export class Reader {
  gaps = [];
  dropped = 0;
  last = 0; // the number of the last value that was handed out
  #before = null; // the number after which the next one comes; null before the mark
  #failure = null;

  constructor(peer, name, id, options) {
    Object.assign(this, { peer, name, id, options, after: options.after === undefined ? 0 : options.after });
  }

  async open() {
    const { answer } = this.peer.call('request', 'streams.subscribe', [this.name, this.id, this.options]);
    const { stream, refs = [] } = await answer;
    refs.forEach((ref) => ref.release());
    if (!stream) throw new RpcError('ProtocolError', 'the answer is no stream'); // NST-20
    this.stream = stream;
  }

  /** The next {value, refs}, or {end}: {error}, or {} for the end. */
  async read() {
    for (;;) {
      if (this.#failure) return { end: { error: this.#failure } };
      const { value, refs, end } = await this.stream.pull();
      if (end && !end.error && this.#before === null) this.#fail('it ended before its mark');
      else if (end) return { end: end.error ? { error: end.error } : {} };
      else if (this.#before === null) this.#mark(value);
      else if (this.#isNext(value)) return { value: value[1], refs };
    }
  }

  #fail(text) {
    this.#failure = new RpcError('ProtocolError', `the subscription: ${text}`);
    this.stream.dropped();
  }

  #mark(value) { // NST-18
    const { next, epoch } = isObject(value) ? value : {};
    if (!Number.isInteger(next) || next < 1 || typeof epoch !== 'string') return this.#fail('it begins with no mark');
    if (this.after !== null && next > this.after + 1) this.gaps.push([this.after + 1, next - 1]);
    this.#before = next - 1;
    return undefined;
  }

  #isNext(value) {
    const number = Array.isArray(value) && value.length === 2 ? value[0] : null;
    if (!Number.isInteger(number) || number <= this.#before) {
      this.#fail('a chunk without a number that rises');
      return false;
    }
    this.dropped += number - this.#before - 1;
    this.#before = number;
    this.last = number;
    return true;
  }

  seen() { return { gaps: this.gaps, dropped: this.dropped, last: this.last }; }

  cancel() { return this.stream?.dropped(); }
}

/** An upload as a stream argument: the iterator that `upload.stream` is given, and what writes to it (UPL-2). */
export class Upload {
  #queue = [];
  #changed = new Bell();
  #room = new Bell();
  #end = null; // {error} or {}
  signal = false; // the server wants no more

  constructor(peer, name, id) {
    peer.call('request', 'streams.upload.stream', [name, id, this]).answer
      .catch(() => { this.#stop(); });
  }

  get ended() { return this.signal || this.#end !== null; }

  write(value) {
    if (this.ended) throw closed();
    if (this.#queue.length >= MOST) throw wouldBlock();
    this.#queue.push(value);
    this.#changed.ring();
  }

  async send(value) {
    while (!this.ended && this.#queue.length >= MOST) await this.#room.wait();
    this.write(value);
  }

  close(error = null) {
    this.#end ??= error ? { error } : {};
    this.#changed.ring();
  }

  status() { return { signal: this.signal, closed: this.ended }; }

  #stop() {
    if (!this.#end) this.signal = true;
    this.#queue = [];
    this.#changed.ring();
    this.#room.ring();
  }

  [Symbol.asyncIterator]() { return this; }

  async next() {
    for (;;) {
      if (this.signal) return { done: true };
      if (this.#queue.length > 0) {
        const value = this.#queue.shift();
        this.#room.ring();
        return { value };
      }
      if (this.#end?.error) throw this.#end.error;
      if (this.#end) return { done: true };
      await this.#changed.wait();
    }
  }

  async return() { // cancelled, or at its end
    this.#stop();
    return { done: true };
  }
}
