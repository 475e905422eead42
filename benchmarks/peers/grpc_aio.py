"""grpc.aio, client and server: `python -m benchmarks.peers.grpc_aio asyncio|uvloop WORKLOAD COUNT`.

Over a Unix socket. Server streaming for streams, an asynchronous generator there and `async for` here; a
unary call for a call; one channel and one stub for everything. The code for the messages is generated before
any clock runs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import grpc.aio

from benchmarks import trial
from benchmarks.peers.processes import other_end

HERE = Path(__file__).parent
SATURATED = 20
"""After as many blocks the bulk stream is at its full pace."""
# 4 MiB is what gRPC receives at most by default: enough, but not by much once a message has fields around it.
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def generate(folder: str) -> None:
    """What `python -m grpc_tools.protoc` does."""
    from grpc_tools import protoc

    arguments = [
        "protoc",
        f"-I{HERE}",
        f"--python_out={folder}",
        f"--grpc_python_out={folder}",
        "bench.proto",
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")


async def serve(folder: str) -> None:
    pb, services = import_module("bench_pb2"), import_module("bench_pb2_grpc")

    class Bench(services.BenchServicer):
        async def Add(self, request: Any, context: Any) -> Any:  # noqa: N802 - its name in bench.proto
            return pb.Number(value=request.a + request.b)

        async def Ints(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - its name in bench.proto
            for i in range(request.count):
                yield pb.Number(value=i & 0xFF)

        async def Dicts(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - its name in bench.proto
            for i in range(request.count):
                yield pb.Row(id=i, name="a file", done=True)

        async def Strings(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - its name in bench.proto
            for _ in range(request.count):
                yield pb.Text(text=trial.STRING)

        async def Blocks(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - its name in bench.proto
            block = trial.BLOCK_64K * request.times
            for _ in range(request.count):
                yield pb.Block(data=block)

    server = grpc.aio.server(options=OPTIONS)
    services.add_BenchServicer_to_server(Bench(), server)
    server.add_insecure_port(f"unix:{folder}/socket")
    await server.start()
    print("ready", flush=True)
    # The parent closes our stdin when it is done, or is no more.
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, over.set)
    await over.wait()
    await server.stop(grace=None)


class Client:
    def __init__(self, folder: str, loop: str) -> None:
        self.folder = folder
        self.loop = loop
        self.pb = import_module("bench_pb2")
        self.services = import_module("bench_pb2_grpc")

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Any]:
        """The stub of a server in a process of its own."""
        command = [sys.executable, "-m", "benchmarks.peers.grpc_aio", self.loop, "serve", self.folder]
        with other_end(command) as server:
            assert server.stdout is not None
            if not server.stdout.readline():
                raise SystemExit("the server did not start")
            async with grpc.aio.insecure_channel(f"unix:{self.folder}/socket", options=OPTIONS) as channel:
                yield self.services.BenchStub(channel)

    def stream(self, stub: Any, workload: str, count: int) -> Any:
        match workload:
            case "dicts":
                return stub.Dicts(self.pb.Count(count=count))
            case "strings":
                return stub.Strings(self.pb.Count(count=count))
            case "blocks-64k":
                return stub.Blocks(self.pb.Blocks64K(count=count, times=1))
            case "blocks-1m":
                return stub.Blocks(self.pb.Blocks64K(count=count, times=16))
            case _:
                return stub.Ints(self.pb.Count(count=count))

    async def read(self, stub: Any, workload: str, count: int) -> tuple[int, Any]:
        """How many chunks came, and the last one."""
        received, message = 0, None
        async for message in self.stream(stub, workload, count):  # noqa: B007 - the last one is checked below
            received += 1
        return received, message

    async def calls(self, stub: Any, count: int) -> int:
        total = 0
        for i in range(count):
            total += (await stub.Add(self.pb.Pair(a=i, b=1))).value
        return total

    async def measure_stream(self, stub: Any, workload: str, count: int) -> dict[str, Any]:
        began = time.perf_counter()
        received, message = await self.read(stub, workload, count)
        seconds = time.perf_counter() - began
        trial.check_stream(workload, count, received, value_of(message))
        return {"seconds": seconds}

    async def measure_streams(self, stub: Any, workload: str, count: int) -> dict[str, Any]:
        many = trial.CONCURRENCY[workload]

        async def one() -> tuple[float, int, Any]:
            received, message = await self.read(stub, workload, count // many)
            return time.perf_counter() - began, received, message

        began = time.perf_counter()
        results = await asyncio.gather(*(one() for _ in range(many)))
        seconds = time.perf_counter() - began
        for _, received, message in results:
            trial.check_stream(workload, count // many, received, value_of(message))
        ends = [end for end, _, _ in results]
        return {"seconds": seconds, "fastest": min(ends), "slowest": max(ends)}

    async def measure_calls(self, stub: Any, workload: str, count: int) -> dict[str, Any]:
        callers = trial.CONCURRENCY.get(workload, 1)
        began = time.perf_counter()
        totals = await asyncio.gather(*(self.calls(stub, count // callers) for _ in range(callers)))
        seconds = time.perf_counter() - began
        trial.check_sum(workload, count, callers, sum(totals))
        return {"seconds": seconds}

    async def timed_calls(self, stub: Any, count: int) -> list[float]:
        times, total = [], 0
        for i in range(count):
            began = time.perf_counter()
            total += (await stub.Add(self.pb.Pair(a=i, b=1))).value
            times.append(time.perf_counter() - began)
        trial.check_sum("latency", count, 1, total)
        return times

    async def measure_latency(self, stub: Any, workload: str, count: int) -> dict[str, Any]:
        idle = await self.timed_calls(stub, count)

        blocks = 0
        saturated = asyncio.Event()
        bulk = self.stream(stub, "blocks-64k", 2**40)

        async def saturate() -> None:
            nonlocal blocks
            async for _ in bulk:
                blocks += 1
                if blocks == SATURATED:
                    saturated.set()

        reader = asyncio.create_task(saturate())
        await saturated.wait()
        before, began = blocks, time.perf_counter()
        loaded = await self.timed_calls(stub, count)
        loaded_blocks, loaded_seconds = blocks - before, time.perf_counter() - began
        bulk.cancel()
        await asyncio.wait([reader])
        await stub.Add(
            self.pb.Pair(a=1, b=1)
        )  # what was under way has come: after a warm-up it is quiet again
        if not loaded_blocks:
            raise trial.WrongResultError("latency: no block came while the calls ran")
        return {
            "seconds": sum(idle),
            "idle_us": trial.percentiles_us(idle),
            "loaded_us": trial.percentiles_us(loaded),
            "loaded_blocks": loaded_blocks,
            "loaded_seconds": loaded_seconds,
        }

    async def measure_first_chunk(self, stub: Any, workload: str, count: int) -> dict[str, Any]:
        times = []
        for _ in range(count):
            began = time.perf_counter()
            call = self.stream(stub, "ints", 1000)
            first = await anext(aiter(call))
            times.append(time.perf_counter() - began)
            call.cancel()
            await stub.Add(
                self.pb.Pair(a=1, b=1)
            )  # what was under way has come: the next one's time is its own
            if first.value != trial.int_at(0):
                raise trial.WrongResultError("first-chunk: it is not the right one")
        return {"seconds": sum(times), "first_us": trial.percentiles_us(times)}

    async def measure_spawn(self, count: int) -> dict[str, Any]:
        times = []
        for _ in range(1 + count):
            began = time.perf_counter()
            async with self.connected() as stub:
                answer = await stub.Add(self.pb.Pair(a=1, b=1))
                times.append(time.perf_counter() - began)
            if answer.value != 2:
                raise trial.WrongResultError("spawn: the answer is not the right one")
        del times[0]
        return {"seconds": sum(times), "spawn_us": trial.percentiles_us(times)}

    async def trial(self, workload: str, count: int) -> None:
        if workload == "spawn":
            trial.report(count=count, **await self.measure_spawn(count))
            return
        if workload == "latency":
            measure = self.measure_latency
        elif workload == "first-chunk":
            measure = self.measure_first_chunk
        elif workload.startswith("calls"):
            measure = self.measure_calls
        elif workload.startswith("streams-"):
            measure = self.measure_streams
        else:
            measure = self.measure_stream
        async with self.connected() as stub:
            await measure(stub, workload, trial.warm_up_count(workload, count))
            trial.report(count=count, **await measure(stub, workload, count))


def value_of(message: Any) -> Any:
    """The chunk as the other contenders have it."""
    match type(message).__name__:
        case "Number":
            return message.value
        case "Row":
            return {"id": message.id, "name": message.name, "done": message.done}
        case "Text":
            return message.text
        case "Block":
            return message.data
    return None


def main() -> None:
    loop, workload, argument = sys.argv[1:]
    # Its notes that a connection has ended would hide why a trial has failed.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if loop == "uvloop":
        from uvloop import run
    else:
        from asyncio import run
    if workload == "serve":
        # An interrupted benchmark is its parent's matter.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.path.insert(0, argument)
        run(serve(argument))
        return
    with TemporaryDirectory() as folder:
        generate(folder)
        sys.path.insert(0, folder)
        run(Client(folder, loop).trial(workload, int(argument)))


if __name__ == "__main__":
    main()
