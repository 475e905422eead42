// A child in Node with the stock library, `npm install kkrpc@0.2.2`. node_parent.py starts it.
import { NodeIo, RPCChannel } from "kkrpc"

const api = {
	greet: (name) => `Hello ${name}, this is Node ${process.versions.node.split(".")[0]}`,
	math: { add: (a, b) => a + b }
}

new RPCChannel(new NodeIo(process.stdin, process.stdout), { expose: api, serialization: { version: "json" } })
