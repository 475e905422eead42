"""The servers of these tests themselves."""

from __future__ import annotations

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.web.servers import serving

pytestmark = pytest.mark.anyio


async def test_a_server_serves_and_stops(anyio_backend: object) -> None:
    async def hello(request: object) -> PlainTextResponse:
        return PlainTextResponse("hello")

    app = Starlette(routes=[Route("/", hello)])
    for server in (None, "hypercorn"):
        with anyio.fail_after(10):
            async with serving(app, server=server) as url, httpx.AsyncClient() as client:
                assert (await client.get(url + "/")).text == "hello"
            with pytest.raises(httpx.ConnectError):
                async with httpx.AsyncClient() as client:
                    await client.get(url + "/")
