"""A chat in the terminal: words as they are made, an answer that is interrupted, a question that is refused.

`python action_chat.py` plays a conversation; with `me` behind it you talk yourself. The server is here only
so that one command shows both (`pip install 'kkrpc-py[http]' uvicorn`).
"""

import sys
from dataclasses import dataclass, field

import anyio
import uvicorn

import kkrpc_py as kk

USERS = {"Bearer s3cret": "Ada"}


@dataclass
class Question:
    text: str
    before: list[str] = field(default_factory=list)


async def known(ctx: kk.ActionContext) -> None:
    ctx.user = USERS.get(ctx.headers.get("authorization", ""))
    if ctx.user is None:
        raise kk.ActionError("FORBIDDEN", "Who are you?", 403)


async def polite(ctx: kk.ActionContext) -> None:
    if "please" not in ctx.input.text.lower():
        raise kk.ActionError("IMPOLITE", f"Say please, {ctx.user}", 422)


@kk.stream_action(input=Question, middleware=[known, polite])
async def chat(input: Question, ctx: kk.ActionContext, stream: kk.ActionStream[dict]) -> None:
    """Stands for a model: it tells what it was asked for, and how often it has been asked before."""
    story = (
        f"Certainly, {ctx.user}. Question {len(input.before) + 1} was about {len(input.text.split())} words"
    )
    for word in [*story.split(), *("and so on " * 20).split()]:
        await anyio.sleep(0.01)
        await stream.send({"text": word})


class Chat:
    """One conversation. What was answered goes along with the next question."""

    def __init__(self, client: kk.ActionClient, patience: int) -> None:
        self._call = client.stream("chat", on_chunk=self._show, on_error=self._complain, timeout=10)
        self._patience = patience
        self._before: list[str] = []

    async def ask(self, text: str) -> None:
        await self._call.execute(Question(text, self._before))  # until the answer has ended, in whatever way
        print()
        if self._call.status == "done":
            self._before.append(text)

    def _show(self, chunk: dict) -> None:
        print(chunk["text"], end=" ", flush=True)
        if len(self._call.chunks) == self._patience:
            print("(enough)", end="")
            self._call.stop()  # the server's handler is cancelled

    def _complain(self, error: kk.ActionError) -> None:
        print(f"refused: {error.message} ({error.code}, {error.status})", end="")


async def talk(url: str) -> None:
    async with kk.ActionClient(url, headers={"Authorization": "Bearer s3cret"}) as client:
        if sys.argv[1:] == ["me"]:
            mine = Chat(client, 25)
            while text := await anyio.to_thread.run_sync(input, "> "):
                await mine.ask(text)
        else:
            played = Chat(client, 12)
            for text in ("Tell me a story, please", "Now!", "A shorter one, please"):
                print(">", text)
                await played.ask(text)


async def main() -> None:
    server = uvicorn.Server(uvicorn.Config(kk.asgi_app(actions=[chat]), port=0, log_level="warning"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await anyio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        await talk(f"http://127.0.0.1:{port}/actions")
        server.should_exit = True


anyio.run(main)
