// What a trial is on Node: benchmarks/trial.py in JavaScript, as much of it as the peers here can do.
import { spawn } from "node:child_process"
import { once } from "node:events"

const BLOCK_64K = Uint8Array.from({ length: 65_536 }, (_, i) => i & 0xff)
const BLOCK_1M = Uint8Array.from({ length: 1 << 20 }, (_, i) => i & 0xff)
export const VALUES = {
	ints: (i) => i & 0xff,
	dicts: (i) => ({ id: i, name: "a file", done: true }),
	strings: () => "0123456789abcdef".repeat(64),
	"blocks-64k": () => BLOCK_64K,
	"blocks-1m": () => BLOCK_1M
}
const SATURATED = 20 // after as many blocks the bulk stream is at its full pace
const GRACE_MS = 5000

const callersOf = (workload) => (workload.endsWith("-100") && workload.startsWith("calls") ? 100 : 1)
const streamsOf = (workload) => Number(workload.split("-")[1])
const seconds = (began) => (performance.now() - began) / 1000

function check(right, what) {
	if (!right) throw new Error(`wrong result: ${what}`)
}

function sameValue(a, b) {
	if (a instanceof Uint8Array && b instanceof Uint8Array) return Buffer.compare(a, b) === 0
	return JSON.stringify(a) === JSON.stringify(b)
}

function percentiles(times) {
	const ordered = times.toSorted((a, b) => a - b)
	const at = (part) => ordered[Math.min(ordered.length - 1, Math.floor(ordered.length * part))] * 1e6
	return { p50: at(0.5), p99: at(0.99) }
}

async function read(stream) {
	let received = 0
	let last
	for await (last of stream) received++
	return [received, last]
}

async function measureStream(peer, workload, count) {
	const began = performance.now()
	const [received, last] = await peer.stream(workload, count, read)
	const took = seconds(began)
	check(received === count && sameValue(last, VALUES[workload](count - 1)), `${workload}: ${received} chunks`)
	return { seconds: took }
}

async function measureStreams(peer, workload, count) {
	const many = streamsOf(workload)
	const began = performance.now()
	const one = async () => {
		const result = await peer.stream("ints", count / many, read)
		return [seconds(began), ...result]
	}
	const results = await Promise.all(Array.from({ length: many }, one))
	const took = seconds(began)
	for (const [, received, last] of results) {
		check(received === count / many && last === VALUES.ints(count / many - 1), `${workload}: ${received} chunks`)
	}
	const ends = results.map(([end]) => end)
	return { seconds: took, fastest: Math.min(...ends), slowest: Math.max(...ends) }
}

async function measureCalls(peer, workload, count) {
	const callers = callersOf(workload)
	const each = count / callers
	const method = workload.includes("inline") ? "addInline" : "add"
	let total = 0
	const began = performance.now()
	const caller = async () => {
		let sum = 0
		for (let i = 0; i < each; i++) sum += await peer.api[method](i, 1)
		total += sum
	}
	await Promise.all(Array.from({ length: callers }, caller))
	const took = seconds(began)
	check(total === (callers * each * (each + 1)) / 2, `${workload}: the answers add up to ${total}`)
	return { seconds: took }
}

async function callTimes(peer, count) {
	const times = []
	let total = 0
	for (let i = 0; i < count; i++) {
		const began = performance.now()
		total += await peer.api.add(i, 1)
		times.push(seconds(began))
	}
	check(total === (count * (count + 1)) / 2, `latency: the answers add up to ${total}`)
	return times
}

async function measureLatency(peer, workload, count) {
	const idle = await callTimes(peer, count)
	let blocks = 0
	let over = false
	let saturated
	const full = new Promise((resolve) => (saturated = resolve))
	const bulk = peer.stream("blocks-64k", 2 ** 40, async (stream) => {
		for await (const _ of stream) {
			if (++blocks === SATURATED) saturated()
			if (over) break
		}
	})
	await full
	const before = blocks
	const began = performance.now()
	const loaded = await callTimes(peer, count)
	const loadedSeconds = seconds(began)
	const loadedBlocks = blocks - before
	over = true
	await bulk
	await peer.api.add(1, 1) // what was under way has come: after a warm-up it is quiet again
	check(loadedBlocks > 0, "latency: no block came while the calls ran")
	return {
		seconds: idle.reduce((sum, time) => sum + time, 0),
		idle_us: percentiles(idle),
		loaded_us: percentiles(loaded),
		loaded_blocks: loadedBlocks,
		loaded_seconds: loadedSeconds
	}
}

async function measureFirstChunk(peer, workload, count) {
	const times = []
	for (let i = 0; i < count; i++) {
		const began = performance.now()
		const first = await peer.stream("ints", 1000, async (stream) => {
			for await (const value of stream) {
				times.push(seconds(began))
				return value // which cancels the stream
			}
		})
		await peer.api.add(1, 1) // what was under way has come: the next one's time is its own
		check(first === 0, `first-chunk: ${first} came first`)
	}
	return { seconds: times.reduce((sum, time) => sum + time, 0), first_us: percentiles(times) }
}

async function measureSpawn(connect, count) {
	const times = []
	for (let i = 0; i <= count; i++) {
		const began = performance.now()
		const peer = await connect()
		try {
			check((await peer.api.add(1, 1)) === 2, "spawn: 1 + 1 is not 2")
			if (i > 0) times.push(seconds(began)) // the first one read the files
		} finally {
			await peer.close()
		}
	}
	return { seconds: times.reduce((sum, time) => sum + time, 0), spawn_us: percentiles(times) }
}

function measureOf(workload) {
	if (workload === "latency") return measureLatency
	if (workload === "first-chunk") return measureFirstChunk
	if (workload.startsWith("calls")) return measureCalls
	if (workload.startsWith("streams-")) return measureStreams
	return measureStream
}

function warmUpCount(workload, count) {
	const many = workload.startsWith("streams-") ? streamsOf(workload) : callersOf(workload)
	return Math.max(1, Math.floor(count / 10 / many)) * many
}

// `node PROGRAM serve` on a child's stdin and stdout; it ends with its stdin. `lost` rejects when it has ended.
export function startOtherEnd(program) {
	const child = spawn(process.execPath, [program, "serve"], { stdio: ["pipe", "pipe", "inherit"] })
	const exited = once(child, "exit")
	const close = async () => {
		child.stdin.end()
		const killer = setTimeout(() => child.kill("SIGKILL"), GRACE_MS)
		await exited
		clearTimeout(killer)
	}
	const lost = exited.then(() => Promise.reject(new Error("the other end has ended")))
	lost.catch(() => {}) // it ends in any case, once it is closed
	return { child, close, lost }
}

// `connect()` gives a peer: `api` with `add` and `addInline`, `close()`, `lost`, and, where the library has streams,
// `stream(workload, count, consume)`, which resolves to what `consume(asyncIterable)` does.
export async function runTrial(connect) {
	const [workload, argument] = process.argv.slice(2)
	const count = Number(argument)
	if (workload === "spawn") return report(count, await measureSpawn(connect, count))
	const measure = measureOf(workload)
	const peer = await connect()
	try {
		await Promise.race([measure(peer, workload, warmUpCount(workload, count)), peer.lost])
		report(count, await Promise.race([measure(peer, workload, count), peer.lost]))
	} finally {
		await peer.close()
	}
}

function report(count, figures) {
	process.stdout.write(JSON.stringify({ count, ...figures }) + "\n")
}
