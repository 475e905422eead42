// What client.mjs needs of kkrpc, over the peer without dependencies that this repository has for its own tests.
// README.md has the same few lines for kkrpc 0.7.

import net from 'node:net';
import { Peer } from '../../spec/testees/node/peer.mjs';

const LIMITS = {
  frame: 2 ** 24, noise: 65536, depth: 128, digits: 1000, idBytes: 256, calls: 1024, callBytes: 2 ** 26,
  callbacks: 1024, stockStreamBuffer: 2 ** 26, sendMax: 2 ** 26, finishMs: 1000, cleanupMs: 1000, drainMs: 1000,
};

/** A connection to a Unix socket: the API at its other end, and whether it is lost. */
export async function connect(path) {
  const socket = net.createConnection(path);
  await new Promise((resolve, reject) => { socket.once('connect', resolve).once('error', reject); });
  const options = { root: new Map(), features: [], limits: LIMITS, onNoise() {} };
  const peer = new Peer({ input: socket, output: socket, ...options });
  return { api: remote(peer, []), lost: () => socket.readableEnded || socket.destroyed };
}

function remote(peer, path) {
  return new Proxy(() => {}, {
    get: (_, name) => remote(peer, [...path, name]),
    apply: async (_, self, args) => {
      const { result, stream } = await peer.call('request', path.join('.'), args).answer;
      return stream ? values(stream) : result;
    },
  });
}

async function* values(stream) {
  try {
    for (;;) {
      const { value, end } = await stream.pull();
      if (end?.error) throw end.error;
      if (end) return;
      yield value;
    }
  } finally {
    stream.release();
  }
}
