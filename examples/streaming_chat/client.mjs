// client.py in JavaScript, with plain kkrpc calls and streams alone; see README.md.
//
//     node client.mjs PATH [--ask=QUESTION]... --messages COUNT

import { parseArgs } from 'node:util';
import { connect } from './kkrpc.mjs';

const options = { ask: { type: 'string', multiple: true, default: [] }, messages: { type: 'string' } };
const { positionals: [path], values: { ask, messages } } = parseArgs({ options, allowPositionals: true });
const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

// ---- a connection that comes back -------------------------------------------------------------------------

let connection; // a promise

/** The connection, and another one than `lost`. */
function connected(lost) {
  if (connection === lost) connection = connectAgain();
  return connection;
}

async function connectAgain() {
  for (let ms = 50; ; ms = Math.min(2 * ms, 5000)) {
    try {
      return await connect(path);
    } catch {
      await sleep(ms * (0.5 + Math.random() / 2));
    }
  }
}

// ---- a named stream, over however many connections --------------------------------------------------------

/** The values of a stream; over a lost connection it goes on after the last one. */
async function* follow(name, id) {
  let after = 0; // the number of the last chunk that was read
  let epoch; // tells whether it is still the same stream
  for (let mine, lost; ; lost = mine) {
    mine = connected(lost);
    const { api, lost: isLost } = await mine;
    try {
      for await (const chunk of await api.streams.subscribe(name, id, { after, epoch })) {
        if (Array.isArray(chunk)) {
          const [number, value] = chunk;
          after = number;
          yield value;
        } else { // the mark, which comes first
          const gone = chunk.next - after - 1;
          if (gone > 0 && id !== 'state') console.error(`${gone} chunks are gone`);
          after = chunk.next - 1;
          epoch = chunk.epoch;
        }
      }
      return;
    } catch (error) {
      if (!isLost()) throw error;
    }
  }
}

// ---- the log: a shared state ------------------------------------------------------------------------------

let log = { messages: [] };
const waiting = [];

/** Snapshots of the state, and between them patches of RFC 6902. */
async function followLog() {
  for await (const { value, patch } of follow('chat-log', 'state')) {
    if (patch) patch.forEach(apply);
    else log = value;
    waiting.splice(0).forEach((wake) => wake());
  }
}

/** The operations that this server's changes are made of; npm has libraries for all of them. */
function apply({ op, path: pointer, value }) {
  const segments = pointer.split('/').slice(1).map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
  const key = segments.pop();
  const target = segments.reduce((here, part) => here[part], log);
  if (op === 'add' && Array.isArray(target)) target.splice(key === '-' ? target.length : Number(key), 0, value);
  else if (op === 'add' || op === 'replace') target[key] = value;
  else throw new Error(`an operation that is not expected here: ${op}`);
}

async function until(test) {
  while (!test()) await new Promise((resolve) => { waiting.push(resolve); });
}

// ---- the transcript ---------------------------------------------------------------------------------------

followLog().catch((error) => { console.error(error); process.exit(1); });
const { api } = await connected();
for (const question of ask) await api.chat.ask(question);
for (let number = 0; number < Number(messages); number++) {
  const message = () => log.messages[number];
  await until(() => message()?.stream);
  process.stdout.write(`> ${message().question}\n`);
  let printed = '';
  if (message().answer === null) {
    try {
      for await (const token of follow('chat', message().stream)) {
        process.stdout.write(token);
        printed += token;
      }
    } catch (error) {
      if (error.name !== 'UnknownStream') throw error; // away for longer than the server keeps it
    }
    await until(() => message().answer !== null);
  }
  process.stdout.write(`${message().answer.slice(printed.length)}\n`);
}
process.exit(0);
