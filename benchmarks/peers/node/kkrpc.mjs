// npm's kkrpc 0.2.2, two Node processes: `node kkrpc.mjs WORKLOAD COUNT`.
//
// Over the child's stdin and stdout with its NodeIo, values as plain JSON, its quicker serialization. 0.2.2 has
// calls and callbacks; it has no streams, and a callback knows no backpressure, so calls are all that is measured.
import { fileURLToPath } from "node:url"

import { NodeIo, RPCChannel } from "kkrpc"

import { runTrial, startOtherEnd } from "./trial.mjs"

const bench = {
	add: async (a, b) => a + b,
	addInline: (a, b) => a + b
}
const serialization = { version: "json" }

async function connect() {
	const { child, close, lost } = startOtherEnd(fileURLToPath(import.meta.url))
	const channel = new RPCChannel(new NodeIo(child.stdout, child.stdin), { serialization })
	return { api: channel.getAPI(), close, lost }
}

if (process.argv[2] === "serve") {
	new RPCChannel(new NodeIo(process.stdin, process.stdout), { expose: bench, serialization })
	process.stdin.on("end", () => process.exit())
} else await runTrial(connect)
