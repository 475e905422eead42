// npm's superjson on its own stdin and stdout, as the judge of what Python reads and writes.
//
//   node superjson_judge.mjs
//
// One JSON array a line in, one JSON value a line out:
//   ["read", line]        what superjson makes of a line, described, and what it writes of that again
//   ["write", args]       what superjson writes of described values
//   ["make", seed]        a line that superjson writes of values made by chance, kept for the next
//   ["same", line]        whether superjson makes of `line` what it makes of the one made last
//
// A description is JSON: each value with its type's name, numbers as their 64 bits, members of a Set in one
// order, and what stands in several places marked so. Python's side of it is in tests/wire/test_superjson_judge.py.
import { deepStrictEqual } from "node:assert"
import { createInterface } from "node:readline"

import superjson from "superjson"

const bits = (number) => {
	const view = new DataView(new ArrayBuffer(8))
	view.setFloat64(0, number)
	return view.getBigUint64(0).toString(16).padStart(16, "0")
}

const fromBits = (text) => {
	const view = new DataView(new ArrayBuffer(8))
	view.setBigUint64(0, BigInt("0x" + text))
	return view.getFloat64(0)
}

const byText = (a, b) => {
	const [one, other] = [JSON.stringify(a), JSON.stringify(b)]
	return one < other ? -1 : one > other ? 1 : 0
}

// Python has no identity for these, or they have none here.
const withoutIdentity = (value) =>
	typeof value !== "object" || value === null || (value instanceof Uint8Array && !(value instanceof Uint8ClampedArray))

function describe(value) {
	const seen = new Map()
	const count = (inner) => {
		if (withoutIdentity(inner)) return
		seen.set(inner, (seen.get(inner) ?? 0) + 1)
		if (seen.get(inner) > 1) return
		if (inner instanceof Map) for (const pair of inner) pair.forEach(count)
		else if (inner instanceof Set || Array.isArray(inner)) for (const item of inner) count(item)
		else if (inner instanceof Error) count(inner.cause)
		else if (Object.getPrototypeOf(inner) === Object.prototype) Object.values(inner).forEach(count)
	}
	count(value)
	const numbers = new Map()
	const tell = (inner) => {
		if (!withoutIdentity(inner) && seen.get(inner) > 1) {
			if (numbers.has(inner)) return ["again", numbers.get(inner)]
			numbers.set(inner, numbers.size)
			return ["shared", numbers.get(inner), plain(inner)]
		}
		return plain(inner)
	}
	const plain = (inner) => {
		if (inner === null || typeof inner === "boolean" || typeof inner === "string") return inner
		if (typeof inner === "number") return ["number", bits(inner)]
		if (inner === undefined) return ["undefined"]
		if (typeof inner === "bigint") return ["bigint", inner.toString()]
		if (inner instanceof Date) return ["Date", inner.getTime()]
		if (inner instanceof RegExp) return ["RegExp", inner.source, inner.flags]
		if (inner instanceof URL) return ["URL", inner.href]
		if (inner instanceof Error)
			return ["Error", inner.name, inner.message, ...(inner.cause === undefined ? [] : [tell(inner.cause)])]
		if (ArrayBuffer.isView(inner)) return [inner.constructor.name, [...inner].map(bits)]
		if (Array.isArray(inner)) return ["Array", inner.map(tell)]
		if (inner instanceof Map) return ["Map", [...inner].map((pair) => pair.map(tell))]
		if (inner instanceof Set) {
			// Marks depend on the order, and the order on no marks.
			const members = [...inner].map((member) => [bare(member), member]).sort(([a], [b]) => byText(a, b))
			return ["Set", members.map(([, member]) => tell(member))]
		}
		if (Object.getPrototypeOf(inner) === Object.prototype)
			return ["Object", Object.entries(inner).sort(([a], [b]) => byText(a, b)).map(([key, item]) => [key, tell(item)])]
		return ["unknown", Object.prototype.toString.call(inner)]
	}
	return tell(value)
}

const bare = (value) => {
	if (withoutIdentity(value)) return describe(value)
	if (value instanceof Set) return ["Set", [...value].map(bare).sort(byText)]
	if (value instanceof Map) return ["Map", [...value].map((pair) => pair.map(bare))]
	if (Array.isArray(value)) return ["Array", value.map(bare)]
	if (Object.getPrototypeOf(value) === Object.prototype)
		return ["Object", Object.entries(value).sort(([a], [b]) => byText(a, b)).map(([key, item]) => [key, bare(item)])]
	return describe(value)
}

// A described value, made.
function make(description, numbers = new Map()) {
	const again = (inner) => make(inner, numbers)
	if (!Array.isArray(description)) return description
	const [tag, ...rest] = description
	switch (tag) {
		case "again":
			return numbers.get(rest[0])
		case "shared": {
			numbers.set(rest[0], make(rest[1], numbers))
			return numbers.get(rest[0])
		}
		case "number":
			return fromBits(rest[0])
		case "undefined":
			return undefined
		case "bigint":
			return BigInt(rest[0])
		case "Date":
			return new Date(rest[0])
		case "RegExp":
			return new RegExp(...rest)
		case "URL":
			return new URL(rest[0])
		case "Error": {
			const error = new Error(rest[1], rest.length > 2 ? { cause: again(rest[2]) } : {})
			error.name = rest[0]
			return error
		}
		case "Array":
			return rest[0].map(again)
		case "Object":
			return Object.fromEntries(rest[0].map(([key, item]) => [key, again(item)]))
		case "Map":
			return new Map(rest[0].map((pair) => pair.map(again)))
		case "Set":
			return new Set(rest[0].map(again))
		default:
			return globalThis[tag].from(rest[0].map(fromBits))
	}
}

// --- values by chance ---------------------------------------------------------------------------

function generator(seed) {
	let state = seed >>> 0
	const random = () => {
		state = (state + 0x6d2b79f5) >>> 0
		let mixed = Math.imul(state ^ (state >>> 15), state | 1)
		mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed
		return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
	}
	const below = (bound) => Math.floor(random() * bound)
	const one = (choices) => choices[below(choices.length)]
	const list = (make, most = 4) => Array.from({ length: below(most + 1) }, make)
	const alphabet = ["a", "b", ".", "\\", "0", "1", "é", "😀", "\ud800", "\u2028", '"', " ", "/"]
	const text = () => list(() => one(alphabet), 5).join("")
	const numbers = [0, -0, 1, -1, 0.1, 2 ** 53, 2 ** 60, -(2 ** 70), 1e21, 1e300, 5e-324, NaN, Infinity, -Infinity]
	const number = () => one([() => one(numbers), () => below(1000) - 500, () => random() * 10 ** (below(40) - 20)])()
	const plainNumber = () => {
		const found = number()
		return Number.isFinite(found) && !Object.is(found, -0) ? found : 7
	}
	const bigint = () => BigInt(below(2 ** 30)) ** BigInt(below(5)) * (random() < 0.5 ? -1n : 1n)
	const typed = () =>
		one([
			() => Int8Array.from(list(() => below(256) - 128)),
			() => Uint8Array.from(list(() => below(256))),
			() => Uint8ClampedArray.from(list(() => below(256))),
			() => Int16Array.from(list(() => below(65536) - 32768)),
			() => Uint16Array.from(list(() => below(65536))),
			() => Int32Array.from(list(() => below(2 ** 32) - 2 ** 31)),
			() => Uint32Array.from(list(() => below(2 ** 32))),
			() => Float32Array.from(list(() => (random() - 0.5) * 1e6)),
			() => Float64Array.from(list(plainNumber))
		])()
	const leaf = () =>
		one([
			() => null,
			() => undefined,
			() => random() < 0.5,
			number,
			number,
			text,
			text,
			bigint,
			() => new Date(below(2 ** 31) * below(1000)),
			() => one([/a+b/gi, /(?:)/, /\/"\\[\n]\u2028/u, new RegExp("a\nb")]),
			() => new URL(one(["https://example.org/x?y=1", "mailto:a@b.c", "file:///é"])),
			typed
		])()
	// Keys that Python tells apart: no two equal ones, and no 1 beside true or 1n.
	const distinct = (make) => {
		const found = new Map()
		for (const key of list(make)) found.set(superjson.stringify(key), key)
		return [...found.values()]
	}
	const pool = []
	const shared = (value) => {
		if (typeof value === "object" && value !== null && !(value instanceof Error)) pool.push(value)
		return value
	}
	const key = (depth) =>
		one([text, text, () => below(50) + 2, () => new Date(below(1e9)), () => object(depth - 1), () => array(depth - 1)])()
	const names = () => (random() < 0.7 ? text() : one(["x", "y", "z.w", "q\\", "0", "10"]))
	const object = (depth) => Object.fromEntries(list(() => [names(), value(depth - 1)]))
	const array = (depth) => list(() => value(depth - 1))
	const error = (depth) => {
		const kind = one([Error, TypeError, RangeError])
		return random() < 0.5 ? new kind(text()) : new kind(text(), { cause: leafOrError(depth - 1) })
	}
	const leafOrError = (depth) => (depth > 0 && random() < 0.3 ? error(depth) : one([null, undefined, text(), number()]) ?? undefined)
	const value = (depth) => {
		if (pool.length && random() < 0.08) return one(pool)
		if (depth <= 0 || random() < 0.35) return shared(leaf())
		return shared(
			one([
				() => object(depth),
				() => object(depth),
				() => array(depth),
				() => array(depth),
				() => new Map(distinct(() => key(depth)).map((made) => [made, value(depth - 1)])),
				() => new Set(distinct(() => key(depth))),
				() => error(depth)
			])()
		)
	}
	return () => [value(5), value(4)]
}

// --- the service -----------------------------------------------------------------------------------

let kept = ""
const message = (args) => ({ id: "1", method: "m", args, type: "request", callbackIds: undefined, transferSlots: undefined, version: "superjson" })

const services = {
	read: (line) => {
		const value = superjson.parse(line)
		return { described: describe(value.args), again: superjson.stringify(value) }
	},
	write: (description) => superjson.stringify(message(make(description))),
	make: (seed) => {
		kept = superjson.stringify(message(generator(seed)()))
		return kept
	},
	same: (line) => {
		const [expected, found] = [superjson.parse(kept), superjson.parse(line)]
		deepStrictEqual(found, expected)
		// It does not look for identity. Which of it survives superjson's reader depends on the order of paths,
		// which Sets that come back in another order change.
		const tell = kept.includes('["set"') ? bare : describe
		deepStrictEqual(tell(found.args), tell(expected.args))
		return true
	}
}

for await (const line of createInterface({ input: process.stdin })) {
	const [service, argument] = JSON.parse(line)
	let answer
	try {
		answer = { ok: services[service](argument) }
	} catch (error) {
		answer = { error: String(error.stack ?? error) }
	}
	process.stdout.write(JSON.stringify(answer) + "\n")
}
