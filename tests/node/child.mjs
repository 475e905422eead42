// A kkrpc 0.2.2 server on its own stdin and stdout: the stock child of a Python parent.
//
//   node child.mjs [--record FILE] [--superjson] [--no-api]
//
// --record appends every byte that arrives to FILE. --superjson writes kkrpc's default instead of JSON.
// --no-api exposes nothing, so that no request is ever answered (0.2.2 stays silent then); the child
// calls its parent instead.
import { appendFileSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"
import { inspect, parseArgs } from "node:util"

import { NodeIo, RPCChannel } from "kkrpc"

const describe = (value) => inspect(value, { depth: null, breakLength: Infinity })

const { values: options } = parseArgs({
	options: {
		record: { type: "string" },
		superjson: { type: "boolean", default: false },
		"no-api": { type: "boolean", default: false }
	}
})

if (options.record) {
	// A listener beside kkrpc's own: a stream in between could hand it two chunks in one turn, and
	// 0.2.2 loses the second.
	process.stdin.on("data", (chunk) => appendFileSync(options.record, chunk))
}

const api = {
	echo: (value) => value,
	count: (...args) => args.length,
	math: {
		add: (a, b) => a + b,
		grade2: { multiply: (a, b) => a * b }
	},
	slow: async (ms, value) => {
		await sleep(ms)
		return value
	},
	nothing: () => undefined,
	fail: (message) => {
		throw new Error(message)
	},
	reject: async (message) => {
		await sleep(1)
		throw new TypeError(message)
	},
	bytes: (length) => Uint8Array.from({ length }, (_, i) => i % 256),
	total: (bytes) => [bytes.constructor.name, bytes.length, bytes.reduce((sum, byte) => sum + byte, 0)],
	text: (length) => "x".repeat(length),
	// Calls the parent's API before it answers.
	ask: async (a, b) => (await parent.add(a, b)) * 2,
	// Calls a function of the parent's, before it answers and after.
	each: (count, callback) => {
		for (let i = 0; i < count; i++) callback(i)
		return count
	},
	later: (ms, ...callbacks) => {
		setTimeout(() => callbacks.forEach((callback, i) => callback("late", i)), ms)
		return "scheduled"
	},
	types: (...args) => args.map((arg) => typeof arg),
	// Gives the parent a function of its own, the same one twice, and reports what it was called with.
	lend: async (count) => {
		const seen = []
		const note = (...args) => {
			seen.push(args)
		}
		return [await parent.each(count, note), await parent.each(count, note), seen]
	},
	values: () => ({
		date: new Date(5),
		map: new Map([["a", new Set([1, 2n])]]),
		bytes: Uint8Array.of(1, 255),
		numbers: [NaN, Infinity, -0]
	}),
	describe,
	print: (text) => {
		process.stdout.write(text)
	},
	exit: (code, lastWords) => {
		process.stderr.write(lastWords, () => process.exit(code))
		return sleep(60_000)
	}
}

const channel = new RPCChannel(new NodeIo(process.stdin, process.stdout), {
	expose: options["no-api"] ? undefined : api,
	serialization: { version: options.superjson ? "superjson" : "json" }
})
const parent = channel.getAPI()

if (options["no-api"]) {
	await parent.report(await parent.add(20, 22))
}
