"""A chat server: whoever asks, everybody sees the answer grow, a token at a time.

    python server.py PATH [--paced]

The model is scripted. With --paced it gives a token for each event "next" that a client emits.
"""

import re
import sys
from collections.abc import AsyncIterator

import anyio

import kkrpc_py as kk

ANSWERS = {
    "What is a harbour?": "A harbour is where the long road ends, and where the small boats sleep.",
    "And a lighthouse?": "A lighthouse says one word all night, in every direction, so that nobody has to "
    "ask where the rocks are. By day it says nothing, and is painted.",
    "Good night.": "Good night. The lamp is lit.",
}


class Model:
    """Stands for the slow thing that makes tokens."""

    def __init__(self, turns: kk.EventReader | None) -> None:
        self._turns = turns

    async def answer(self, question: str) -> AsyncIterator[str]:
        for token in re.split("(?<= )", ANSWERS.get(question, "I do not know.")):
            if self._turns is None:
                await anyio.sleep(0.05)
            else:
                await anext(self._turns)
            yield token


class Chat:
    """What clients may call, beside the hub."""

    def __init__(self, hub: kk.StreamHub, model: Model) -> None:
        self._model = model
        self._streams = hub.create("chat", replay_window=1000)
        self._log = hub.shared_state("chat-log", initial={"messages": []})
        self._asked, self._questions = anyio.create_memory_object_stream[tuple[int, str]](100)

    async def ask(self, question: str) -> int:
        """Put a question; returns the number of its message in the log."""
        with self._log.mutate() as draft:
            messages = draft["messages"]
            messages.append({"question": question, "stream": None, "answer": None})
            number = len(messages) - 1
        await self._asked.send((number, question))
        return number

    async def answer_all(self) -> None:
        """The server's own task: an answer goes on when the client that asked for it is gone."""
        async for number, question in self._questions:
            answer = ""
            async with self._streams.start() as stream:
                with self._log.mutate() as draft:
                    draft["messages"][number]["stream"] = stream.id
                async for token in self._model.answer(question):
                    await stream.send(token)
                    answer += token
            with self._log.mutate() as draft:
                draft["messages"][number]["answer"] = answer


async def main() -> None:
    path, *options = sys.argv[1:]
    hub = kk.StreamHub()
    chat = Chat(hub, Model(hub.on("next", high_water_mark=1000) if options == ["--paced"] else None))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(chat.answer_all)
        await tasks.start(kk.serve_unix, {"chat": chat, "streams": hub}, path)
        print(f"listening on {path}", flush=True)


if __name__ == "__main__":
    try:
        anyio.run(main)
    except KeyboardInterrupt:
        pass
