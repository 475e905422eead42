// A worker that exposes an API: to its parent, or over a port that the parent sends it.

import { parentPort, workerData } from 'node:worker_threads';
import { fromMessagePort } from '../../clients/js/kkrpc.js';

let cleaned = 0;
fromMessagePort(workerData?.port ?? parentPort, {
  expose: {
    add: (a, b) => a + b,
    ask: (f) => f(20),
    exit: (code) => process.exit(code),
    cleaned: () => cleaned,
    async* count(n) {
      try {
        for (let i = 0; i < n; i++) yield i;
        return 'counted';
      } finally { cleaned++; }
    },
  },
});
