// A kkrpc 0.2.2 peer over WebSocket and HTTP.
//
//   node websocket.mjs client URL [--superjson]    scenarios over a WebSocket
//   node websocket.mjs http URL [--superjson]      those that HTTP can have
//   node websocket.mjs server [--superjson]        a WebSocket server; prints its port, and what it received
//
// The first two print one line of JSON: {scenario: result}. A failed call's result is {"error": text}.
import { createInterface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"
import { parseArgs } from "node:util"

import { RPCChannel, WebSocketClientIO, WebSocketServerIO } from "kkrpc"
import { HTTPClientIO } from "kkrpc/http"
import { WebSocket, WebSocketServer } from "ws"

globalThis.WebSocket ??= WebSocket // Node has one of its own from version 22 on

const { values: flags, positionals: [mode, url] } = parseArgs({
	options: { superjson: { type: "boolean", default: false } },
	allowPositionals: true
})
const options = { serialization: { version: flags.superjson ? "superjson" : "json" } }
const bounded = (promise) => Promise.race([promise, sleep(10_000, { error: "not answered" }, { ref: false })])
const caught = (promise) => promise.catch((error) => ({ error: String(error.message ?? error) }))

const unary = (api) => ({
	calls: async () => [await api.echo("héllo € 😀"), await api.math.add(1, 2), await api.nothing() ?? "nothing"],
	values: () => api.echo([null, true, -1.5e-7, 2 ** 53 - 1, "\u2028 \n\t\"\\", { a: [{}, []] }]),
	bytes: async () => {
		const bytes = await api.echo(Uint8Array.of(1, 2, 255))
		return [bytes.constructor.name, ...bytes]
	},
	fail: () => caught(api.fail("as asked")),
	missing: () => caught(api.nope()),
	large: async () => (await api.echo("x".repeat(700_000))).length
})

const talking = (api) => ({
	...unary(api),
	inFlight: async () => {
		const calls = Array.from({ length: 200 }, (_, i) => api.slow((i * 7) % 50, i))
		return (await Promise.all(calls)).every((value, i) => value === i)
	},
	together: async () => {
		// Answers that share an item, and one whose line is longer than an item.
		const sizes = [10, 70_000, 65_000, 1, 200_000, 65_535, 2]
		const texts = await Promise.all(sizes.map((size) => api.echo("y".repeat(size))))
		return texts.every((text, i) => text.length === sizes[i])
	},
	callback: async () => {
		const seen = []
		return [await api.each(3, (...args) => { seen.push(args) }), seen]
	},
	askBack: () => api.ask(20, 1),
	// 0.2.2 knows no streams: it gets the opening as a value.
	stream: async () => [await api.count(3), await api.math.add(1, 1)]
})

async function run(scenarios) {
	const report = {}
	for (const [name, scenario] of Object.entries(scenarios)) report[name] = await bounded(scenario())
	console.log = () => {}
	process.stdout.write(JSON.stringify(report) + "\n")
}

if (mode === "client") {
	const io = new WebSocketClientIO({ url })
	const channel = new RPCChannel(io, { ...options, expose: { add: (a, b) => a + b } })
	await run(talking(channel.getAPI()))
	io.signalDestroy() // the server closes
	await new Promise((resolve) => { io.ws.onclose = resolve })
} else if (mode === "http") {
	await run(unary(new RPCChannel(new HTTPClientIO({ url }), options).getAPI()))
	process.exit(0) // 0.2.2 reads for ever
} else {
	const received = []
	const server = new WebSocketServer({ host: "127.0.0.1", port: 0 })
	server.on("connection", (socket, request) => {
		received.push({ path: request.url, extensions: request.headers["sec-websocket-extensions"] ?? null })
		socket.on("close", (code) => received.push({ code }))
		socket.on("message", (data, binary) => received.push({ text: String(data), binary }))
		const api = {
			echo: (value) => value,
			math: { add: (a, b) => a + b },
			slow: async (ms, value) => { await sleep(ms); return value },
			each: (count, callback) => { for (let i = 0; i < count; i++) callback(i); return count },
			ask: async (a, b) => (await remote.add(a, b)) * 2,
			fail: (message) => { throw new Error(message) },
			leave: () => { socket.close(4001, "left") }
		}
		const remote = new RPCChannel(new WebSocketServerIO(socket), { ...options, expose: api }).getAPI()
	})
	server.on("listening", () => process.stdout.write(`${server.address().port}\n`))
	for await (const _ of createInterface(process.stdin)) break // a line, or the end: report, and go
	await Promise.all([...server.clients].map((socket) => new Promise((resolve) => { socket.on("close", resolve) })))
	process.stdout.write(JSON.stringify(received) + "\n", () => process.exit(0))
}
