"""A progress bar of work on a server: an action says how far it is, and in the end what came out.

The server is here only so that one command shows both (`pip install 'kkrpc-py[http]' uvicorn`).
"""

import hashlib
import tempfile
from dataclasses import dataclass

import anyio
import uvicorn

import kkrpc_py as kk

MEGABYTE = 1 << 20


@dataclass
class Job:
    path: str


@kk.stream_action(input=Job)
async def checksum(input: Job, ctx: kk.ActionContext, stream: kk.ActionStream[dict]) -> None:
    digest = hashlib.sha256()
    async with await anyio.open_file(input.path, "rb") as file:
        size = await file.seek(0, 2)
        await file.seek(0)
        while block := await file.read(MEGABYTE):
            digest.update(block)
            await stream.send({"done": await file.tell(), "of": size})
    await stream.send({"sha256": digest.hexdigest()})


def bar(done: int, of: int) -> str:
    filled = 24 * done // of
    return f"[{'#' * filled}{'.' * (24 - filled)}] {100 * done // of:3} %"


async def show(url: str) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(6 * MEGABYTE)
        async with kk.ActionClient(url) as client:
            async for chunk in client.stream("checksum").execute(Job(file.name)):
                if "done" in chunk:
                    print("\r" + bar(**chunk), end="", flush=True)
                else:
                    print("\nsha256", chunk["sha256"])


async def main() -> None:
    server = uvicorn.Server(uvicorn.Config(kk.asgi_app(actions=[checksum]), port=0, log_level="warning"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await anyio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        await show(f"http://127.0.0.1:{port}/actions")
        server.should_exit = True


anyio.run(main)
