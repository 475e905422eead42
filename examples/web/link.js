// A connection that is made again whenever it is lost.

import { connect } from './kkrpc.js';

const FIRST_MS = 500;
const LONGEST_MS = 8000;

/** `state` is "connecting", "connected" or "lost"; each change is an event "state". */
export class Link extends EventTarget {
  state = 'connecting';
  channel = null;
  #now = () => {};
  #ended = false;

  constructor(url, options) {
    super();
    this.#keep(url, options);
  }

  /** What the server exposes; null without a connection. */
  get api() {
    return this.channel?.remote() ?? null;
  }

  /** Do not wait for the next try. */
  reconnect() {
    this.#now();
  }

  /** For good. */
  close() {
    this.#ended = true;
    this.channel?.close();
    this.#now();
  }

  async #keep(url, options) {
    for (let ms = FIRST_MS; !this.#ended; ms = Math.min(2 * ms, LONGEST_MS)) {
      this.#tell('connecting');
      try {
        this.channel = await connect(url, options);
        ms = FIRST_MS;
        this.#tell('connected');
        await this.channel.closed;
      } catch {
        // there is no connection; why is nothing that a browser would tell
      }
      this.channel = null;
      this.#tell('lost');
      await new Promise((resolve) => {
        this.#now = resolve;
        setTimeout(resolve, ms * (0.75 + Math.random() / 4));
      });
    }
  }

  #tell(state) {
    this.state = state;
    this.dispatchEvent(new Event('state'));
  }
}
