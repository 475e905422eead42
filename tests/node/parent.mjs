// A kkrpc 0.2.2 client of a child's stdin and stdout: the stock parent of a Python child.
//
//   node parent.mjs [--record FILE] -- COMMAND [ARGUMENT…]
//
// Runs its scenarios, closes the child's stdin, waits for the child's end, and prints one line of
// JSON: {"exit": code or signal, "results": {scenario: result}}. A failed call's result is
// {"error": text}. --record appends every byte that arrives from the child to FILE.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { appendFileSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"
import { parseArgs } from "node:util"

import { NodeIo, RPCChannel } from "kkrpc"

const { values: options, positionals: command } = parseArgs({
	options: { record: { type: "string" } },
	allowPositionals: true
})
const child = spawn(command[0], command.slice(1), { stdio: ["pipe", "pipe", "inherit"] })
const exited = once(child, "exit")
if (options.record) child.stdout.on("data", (chunk) => appendFileSync(options.record, chunk))

const channel = new RPCChannel(new NodeIo(child.stdout, child.stdin), {
	expose: { add: (a, b) => a + b },
	serialization: { version: "json" }
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
	callback: () => api.echo(() => {}),
	// Among these results are lines of 65,536 bytes (an id has about 55), which this reader loses if
	// their line feed comes in a read of its own.
	nearly64KiB: async () => {
		for (let i = 0; i < 80; i++) {
			const length = 65_398 + (i % 20)
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

const results = {}
for (const [name, scenario] of Object.entries(scenarios)) results[name] = await bounded(caught(scenario()))
child.stdin.end()
const [code, signal] = await exited
process.stdout.write(JSON.stringify({ exit: signal ?? code, results }) + "\n")
