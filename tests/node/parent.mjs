// A kkrpc 0.2.2 client of a child's stdin and stdout: the stock parent of a Python child.
//
//   node parent.mjs [--record FILE] [--superjson] -- COMMAND [ARGUMENT…]
//
// Runs its scenarios, closes the child's stdin, waits for the child's end, and prints one line of
// JSON: {"exit": code or signal, "results": {scenario: result}}. A failed call's result is
// {"error": text}. --record appends every byte that arrives from the child to FILE. --superjson writes
// kkrpc's default instead of JSON.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { appendFileSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"
import { inspect, parseArgs } from "node:util"

import { NodeIo, RPCChannel } from "kkrpc"

const { values: options, positionals: command } = parseArgs({
	options: { record: { type: "string" }, superjson: { type: "boolean", default: false } },
	allowPositionals: true
})
const child = spawn(command[0], command.slice(1), { stdio: ["pipe", "pipe", "inherit"] })
const exited = once(child, "exit")
if (options.record) child.stdout.on("data", (chunk) => appendFileSync(options.record, chunk))

const channel = new RPCChannel(new NodeIo(child.stdout, child.stdin), {
	expose: {
		add: (a, b) => a + b,
		each: (count, callback) => {
			for (let i = 0; i < count; i++) callback(i)
			return count
		}
	},
	serialization: { version: options.superjson ? "superjson" : "json" }
})
const api = channel.getAPI()

const caught = (promise) => promise.catch((error) => ({ error: error.message }))
// 0.2.2 has no timeout, and does not notice the child's end: a lost answer must not hang the run.
const bounded = (promise) =>
	Promise.race([
		promise,
		exited.then(([code, signal]) => ({ error: `the child has ended: ${signal ?? code}` })),
		sleep(20_000, { error: "not answered" }, { ref: false })
	])

const scenarios = {
	calls: async () => [await api.echo("hello"), await api.math.add(1, 2), await api.math.grade2.multiply(6, 7)],
	values: () => api.echo([null, true, -1.5e-7, 2 ** 53 - 1, "héllo € 😀 \u2028 \n\t\"\\", { a: [{}, []] }]),
	nothing: async () => (await api.nothing()) ?? "nothing",
	errors: () =>
		Promise.all(
			[api.fail("as asked"), api.reject("later"), api.nope(), api.math.nope(), api.no.such.path()].map(caught)
		),
	inFlight: async () => {
		const calls = Array.from({ length: 100 }, (_, i) => api.slow((i * 7) % 50, i))
		return (await Promise.all(calls)).every((value, i) => value === i)
	},
	bytes: async () => {
		const bytes = await api.bytes(300)
		return [bytes.constructor.name, bytes.length, bytes[299], await api.total(Uint8Array.of(1, 2, 250))]
	},
	ask: () => api.ask(20, 1),
	callback: async () => {
		const seen = []
		const note = (...args) => seen.push(args)
		return [await api.each(2, note), await api.each(1, note), await api.apply(note, note), seen]
	},
	lateCallback: async () => {
		const done = []
		const answer = await new Promise((resolve) => {
			api.later(10, (text) => done.push(text), (text) => resolve([...done, text]))
		})
		return [answer, await api.text(1)]
	},
	// What a function throws is nobody's concern: 0.2.2 prints it.
	throwingCallback: () => api.each(1, () => { throw new Error("thrown in a callback") }),
	lend: () => api.lend(3),
	looksLikeACallback: async () => [await api.echo("__callback__"), await api.echo({ f: "__callback__1" })],
	// Among these results are lines of 65,536 bytes (an id has about 55), which this reader loses if
	// their line feed comes in a read of its own.
	nearly64KiB: async () => {
		for (let i = 0; i < 80; i++) {
			const length = (options.superjson ? 65_307 : 65_398) + (i % 20)
			if ((await api.text(length)).length !== length) return false
		}
		return true
	},
	large: async () => (await api.text(1_000_000)).length,
	noise: async () => {
		await api.print("half a line")
		return api.math.add(1, 1)
	},
	// 0.2.2 knows no streams: it gets the opening as a value, reports the chunks as unknown
	// messages, and never cancels.
	stream: async () => [await api.three(), await api.math.add(1, 1)]
}
if (options.superjson) {
	const describe = (value) => inspect(value, { depth: null, breakLength: Infinity })
	const shared = { n: 1 }
	const values = [
		undefined,
		new Date(5),
		new Map([["a", new Set([1, 2n])], ["b", undefined]]),
		[NaN, -Infinity, -0],
		/a+b/gi,
		new URL("https://example.org/x?y=1"),
		Uint8Array.of(1, 255),
		Int16Array.of(-300),
		{ "a.b": new Date(0), "c\\d": 1n },
		[5n, 5n]
	]
	scenarios.superjson = async () => {
		const returned = await Promise.all(values.map((value) => api.echo(value)))
		return returned.map(describe).filter((text, i) => text !== describe(values[i]))
	}
	scenarios.error = async () => {
		const error = await api.echo(new TypeError("as a value"))
		return [error instanceof Error, error.name, error.message]
	}
	scenarios.shared = async () => {
		const [a, b] = await api.echo([shared, shared])
		return [a, a === b]
	}
	scenarios.functionsWithin = () => api.echo({ n: 1, f: note, g: [note] })
	function note() {}
}

const results = {}
for (const [name, scenario] of Object.entries(scenarios)) results[name] = await bounded(caught(scenario()))
child.stdin.end()
const [code, signal] = await exited
process.stdout.write(JSON.stringify({ exit: signal ?? code, results }) + "\n")
