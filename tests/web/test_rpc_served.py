"""`POST /rpc` over real servers: what `test_rpc` cannot see."""

from __future__ import annotations

import anyio
import httpx
import pytest

from kkrpc_py.transports.handshake import HandshakeRequest
from kkrpc_py.web.app import asgi_app
from tests.web.backends import anyio_backend, server, under
from tests.web.servers import serving
from tests.web.test_rpc import API, message

__all__ = ["anyio_backend", "server", "under"]  # fixtures

pytestmark = pytest.mark.anyio

LIMIT = 30


async def test_over_http(server: str) -> None:
    async def authenticate(request: HandshakeRequest) -> bool:
        request.state.user = request.headers.get("x-user")
        return True

    app = asgi_app(API(), authenticate=authenticate)
    with anyio.fail_after(LIMIT):
        async with serving(app, server=server) as url, httpx.AsyncClient(base_url=url) as client:
            for number in range(3):
                answer = await client.post("/rpc", json=message("add", number, 1, id=number))
                assert answer.status_code == 200
                assert answer.headers["content-type"] == "application/json"
                assert answer.json()["id"] == number
                assert answer.json()["args"] == {"result": number + 1}
            answer = await client.post("/rpc", json=message("who"), headers={"X-User": "me", "X-A": "2"})
            assert answer.json()["args"]["result"] == ["me", "2", "127.0.0.1"]
            answer = await client.post("/rpc", json=[])
            assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_JSON")


async def test_a_client_that_goes_away_ends_its_handler(server: str) -> None:
    """HTTP-12: within a second."""
    api = API()
    with anyio.fail_after(LIMIT):
        async with serving(asgi_app(api), server=server) as url:
            async with httpx.AsyncClient(base_url=url) as client, anyio.create_task_group() as tasks:

                async def call() -> None:
                    await client.post("/rpc", json=message("wait"), timeout=None)

                tasks.start_soon(call)
                await api.log.wait_for("waits")
                tasks.cancel_scope.cancel()
            with anyio.fail_after(1):
                await api.log.wait_for("stopped")
