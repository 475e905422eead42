// Held against clients/js/kkrpc.d.ts by test_types.py: it is compiled, and never run.

import { connect, fromMessagePort, handler, withOptions, ActionError, RemoteStream, RPCChannel } from '../../clients/js/kkrpc.js';

class Point { _secret = 1; constructor(public x: number, public y: number) {} norm() { return 1; } }
const api = {
  add: (a: number, b: number) => a + b,
  math: { mul: async (a: number, b: number): Promise<number> => a * b, _hidden: () => 1, deep: { neg: (a: number) => -a } },
  async *count(n: number) { for (let i = 0; i < n; i++) yield i; return 'end'; },
  *sync(n: number) { yield 'x'; return n; },
  async later(): Promise<AsyncIterable<string>> { return api.words(); },
  async *words(): AsyncGenerator<string, number> { yield 'a'; return 3; },
  each: async (n: number, f: (i: number) => void | Promise<void>) => { for (let i = 0; i < n; i++) await f(i); },
  settings: { theme: 'dark', size: 3, list: [1, 2] },
  data: new Uint8Array(3),
  Point,
  nothing: () => {},
  watch: handler({ context: true }, async function* (context, from: number) { yield { at: from, aborted: context.signal.aborted }; }),
};
type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false;
const same = <A, B>(ok: Equal<A, B>) => ok;

async function main() {
  const channel = await connect('ws://x', { expose: api, limits: { streamChunks: 64 }, signal: AbortSignal.timeout(3) });
  const remote = channel.remote<typeof api>();
  const sum: number = await remote.add(1, 2);
  const product = await remote.math.mul(1, 2); same<typeof product, number>(true);
  const neg = await remote.math.deep.neg(1); same<typeof neg, number>(true);
  for await (const i of remote.count(3)) same<typeof i, number>(true);
  const stream = await remote.count(3); same<typeof stream, RemoteStream<number, string>>(true);
  const end = await stream.result; same<typeof end, string>(true);
  for await (const i of stream) same<typeof i, number>(true);
  for await (const s of remote.sync(3)) same<typeof s, string>(true);
  for await (const s of remote.later()) same<typeof s, string>(true);
  const drained = await (await remote.words()).drain(); same<typeof drained, number>(true);
  await remote.each(3, (i) => { same<typeof i, number>(true); });
  const theme = await remote.settings.theme; same<typeof theme, string>(true);
  const settings = await remote.settings; const size: number = settings.size;
  const list = await remote.settings.list; same<typeof list, number[]>(true);
  const point = await new remote.Point(1, 2); const x: number = point.x;
  // @ts-expect-error a method is no field
  point.norm();
  // @ts-expect-error hidden
  remote.math._hidden();
  // @ts-expect-error a wrong argument
  remote.add('1', 2);
  // @ts-expect-error no such method
  remote.nope();
  for await (const w of remote.watch(3)) { const at: number = w.at; }
  const limited = withOptions(remote.math, { timeout: 3 });
  const again = await limited.mul(1, 2); same<typeof again, number>(true);
  const loose = channel.remote(); await loose.any.thing(1); for await (const c of loose.x()) c.y;
  const bytes = await remote.data; const length: number = bytes.length;
  await remote.add(1, 2).cancel();
  try { await remote.nothing(); } catch (error) { if (error instanceof ActionError) { const s: number = error.status; error.fieldErrors.x; error.code.length; } }
  const reason = await channel.closed; reason?.message;
  const worker = fromMessagePort(new Worker('x')); const port = fromMessagePort(new MessageChannel().port1);
  const own = new RPCChannel(new WebSocket('ws://x')); await own.ready;
  void [sum, size, x, length];
}
void main;
