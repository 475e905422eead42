"""What to know before any figure: on top of the report, of the JSON and of the picture."""

from __future__ import annotations

CAVEATS = [
    "One machine, one run: compare these figures with each other, never with those of another machine or "
    "day, and mind the spread, lowest to highest of the rounds.",
    "Both processes of a trial share this machine. What is compared runs in every round, in turns; a ratio "
    "is the median of the rounds' own ratios.",
    "Handlers do nothing and consumers only count: a real program is slower than its library, and the "
    "library is rarely what it waits for.",
    "Contenders differ in what they give for the time. multiprocessing.Pipe and the anyio pipe are floors: "
    "no calls in flight, no streams side by side, no cancelling, and no flow control but the full pipe's.",
    "rpyc is synchronous. rpyc buffiter fetches up to 1000 values at once: each waits until all are made.",
    "grpc.aio has typed messages and HTTP/2. It does not know trio: there, a ratio to it is to grpc.aio on "
    "asyncio.",
    "capnweb and kkrpc 0.2.2 run on Node, which compares two languages too. capnweb's bytes are base64 text.",
]
