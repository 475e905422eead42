"""Which client reads from which server, and what each is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.web import clients
from benchmarks.web.clients import Opener
from benchmarks.web.workloads import LATENCY, WORKLOADS


@dataclass(frozen=True)
class Way:
    server: str
    path: str
    open: Opener
    shared: bool = False
    """One client has all streams at once; else each has a connection of its own."""
    workloads: frozenset[str] = frozenset(WORKLOADS)


@dataclass(frozen=True)
class Group:
    """Ways with the same kind of client."""

    what: str
    plain: str
    """The way that the others are compared with."""
    ways: dict[str, Way]


_COUNTED = frozenset(WORKLOADS) - frozenset(LATENCY)
GROUPS = [
    Group(
        "Server-sent events, read as bytes",
        "starlette",
        {
            "kkrpc_py action": Way("kkrpc-asgi", "/actions/stream", clients.raw_events),
            "starlette": Way("starlette", "/msgspec", clients.raw_events),
            "starlette, stdlib json": Way("starlette", "/json", clients.raw_events),
            "sse-starlette": Way("starlette", "/sse-starlette", clients.raw_events),
        },
    ),
    Group(
        "Server-sent events, read by clients",
        "starlette -> httpx-sse",
        {
            "kkrpc_py action -> ActionClient": Way(
                "kkrpc-asgi", "/actions/stream", clients.action_client, shared=True
            ),
            "kkrpc_py action -> httpx-sse": Way(
                "kkrpc-asgi", "/actions/stream", clients.httpx_sse, shared=True
            ),
            "starlette -> ActionClient": Way("starlette", "/msgspec", clients.action_client, shared=True),
            "starlette -> httpx-sse": Way("starlette", "/msgspec", clients.httpx_sse, shared=True),
        },
    ),
    Group(
        "WebSocket, counted by bare websockets",
        "starlette (counted)",
        {
            "kkrpc_py /ws (counted)": Way("kkrpc-asgi", "/ws", clients.counting_frames, workloads=_COUNTED),
            "kkrpc_py serve_websocket (counted)": Way(
                "kkrpc-websocket", "/", clients.counting_frames, workloads=_COUNTED
            ),
            "starlette (counted)": Way("starlette", "/ws", clients.counting, workloads=_COUNTED),
            "websockets (counted)": Way("websockets", "/", clients.counting, workloads=_COUNTED),
        },
    ),
    Group(
        "WebSocket, read by clients",
        "starlette -> websockets",
        {
            "kkrpc_py /ws -> kkrpc_py": Way("kkrpc-asgi", "/ws", clients.kkrpc_websocket),
            "the same, one connection": Way(
                "kkrpc-asgi", "/ws", clients.kkrpc_websocket, True, frozenset({"streams-100"})
            ),
            "kkrpc_py serve_websocket -> kkrpc_py": Way("kkrpc-websocket", "/", clients.kkrpc_websocket),
            "kkrpc_py TCP -> kkrpc_py": Way("kkrpc-tcp", "", clients.kkrpc_tcp),
            "starlette -> websockets": Way("starlette", "/ws", clients.decoding),
            "websockets -> websockets": Way("websockets", "/", clients.decoding),
        },
    ),
]
WAYS = {name: way for group in GROUPS for name, way in group.ways.items()}
