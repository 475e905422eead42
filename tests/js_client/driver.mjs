// Runs scenarios on demand: a line `{"scenario", …}` on stdin, a line `{"result"}` or `{"error"}` on stdout.

import { createInterface } from 'node:readline';
import * as ports from './port_scenarios.mjs';
import * as servers from './server_scenarios.mjs';
import { storm } from './storm.mjs';

const scenarios = { ...ports, ...servers, storm };

for await (const line of createInterface({ input: process.stdin })) {
  const { scenario, ...given } = JSON.parse(line);
  let told;
  try {
    const result = scenario === 'names'
      ? { ports: Object.keys(ports), servers: Object.keys(servers) } : await scenarios[scenario](given);
    told = { result: result ?? null };
  } catch (error) {
    told = { error: error?.stack ?? String(error) };
  }
  process.stdout.write(`${JSON.stringify(told)}\n`);
}
