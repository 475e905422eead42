// npm's capnweb, two Node processes: `node capnweb.mjs WORKLOAD COUNT`.
//
// Over the child's stdin and stdout, by an RpcTransport as capnweb documents it for streams of one's own: its
// messages are text without line feeds, so each is a line. (Quicker than its WebSockets, by TCP or a Unix socket.)
// A stream is a ReadableStream, with capnweb's own flow control.
import { fileURLToPath } from "node:url"

import { RpcSession, RpcTarget } from "capnweb"

import { VALUES, runTrial, startOtherEnd } from "./trial.mjs"

class LineTransport {
	#messages = []
	#waiting = null
	#error = null
	#output

	constructor(input, output) {
		this.#output = output
		let rest = ""
		input.setEncoding("utf8")
		input.on("data", (text) => {
			const lines = (rest + text).split("\n")
			rest = lines.pop()
			for (const line of lines) this.#arrived(line)
		})
		input.on("end", () => {
			this.#error = new Error("the other end has gone")
			this.#waiting?.reject(this.#error)
		})
		output.on("error", () => {}) // the end of the input says it too
	}

	#arrived(message) {
		if (!this.#waiting) return this.#messages.push(message)
		const { resolve } = this.#waiting
		this.#waiting = null
		resolve(message)
	}

	async send(message) {
		this.#output.write(message + "\n")
	}

	receive() {
		if (this.#messages.length) return Promise.resolve(this.#messages.shift())
		if (this.#error) return Promise.reject(this.#error)
		return new Promise((resolve, reject) => (this.#waiting = { resolve, reject }))
	}
}

class Bench extends RpcTarget {
	async add(a, b) {
		return a + b
	}

	addInline(a, b) {
		return a + b
	}

	stream(workload, count) {
		const valueAt = VALUES[workload]
		let i = 0
		return new ReadableStream({
			pull(controller) {
				if (i < count) controller.enqueue(valueAt(i++))
				else controller.close()
			}
		})
	}
}

async function connect() {
	const { child, close, lost } = startOtherEnd(fileURLToPath(import.meta.url))
	const api = new RpcSession(new LineTransport(child.stdout, child.stdin)).getRemoteMain()
	const stream = async (workload, count, consume) => consume(await api.stream(workload, count))
	return { api, stream, close, lost }
}

if (process.argv[2] === "serve") new RpcSession(new LineTransport(process.stdin, process.stdout), new Bench())
else await runTrial(connect)
