"""A client of the chat server: prints the chat as it grows, whatever happens to the connection or to itself.

    python client.py PATH [--ask QUESTION]... [--messages COUNT]

It ends after that many messages, of which those from before it came count too.
"""

import argparse

import anyio

import kkrpc_py as kk


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--ask", action="append", default=[])
    parser.add_argument("--messages", type=int)
    args = parser.parse_args()

    async with (
        kk.reconnecting(lambda: kk.connect_unix(args.path)) as link,
        kk.streams(link).shared_state("chat-log") as log,
    ):
        for question in args.ask:
            await link.remote().chat.ask(question)
        number = 0
        while number != args.messages:
            await show(kk.streams(link), log, number)
            number += 1


async def show(streams: kk.RemoteStreams, log: kk.RemoteState, number: int) -> None:
    """Print one message: its answer from the log if it is finished, else from its stream as it grows."""
    await log.until(lambda value: len(value["messages"]) > number and value["messages"][number]["stream"])
    message = log.at("messages", number)
    print("> " + message["question"], flush=True)
    printed = ""
    if message["answer"] is None:
        try:
            async for token in streams.subscribe("chat", message["stream"], on_gap="error"):
                print(token, end="", flush=True)
                printed += token
        except (kk.UnknownStream, kk.StreamGap):
            pass  # away for longer than the server keeps it: the log has the rest, or will have it
        await log.until(lambda value: value["messages"][number]["answer"] is not None)
    print(log.at("messages", number, "answer").removeprefix(printed), flush=True)


if __name__ == "__main__":
    try:
        anyio.run(main)
    except KeyboardInterrupt:
        pass
