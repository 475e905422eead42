"""One API for many connections: what belongs to each, names of one's own, and a call without the wire."""

import anyio

import kkrpc_py as kk


class Chat:
    async def login(self, name: str) -> str:
        kk.current_channel().state.user = name
        return f"hello {name}"

    @kk.expose("whoAmI")
    async def who_am_i(self) -> str:
        return kk.current_channel().state.user


async def only_known(ctx: kk.CallContext, next: kk.Next):
    if ctx.method != "login" and not hasattr(kk.current_channel().state, "user"):
        raise PermissionError("log in first")
    return await next()


async def main() -> None:
    chat = Chat()
    async with (
        kk.memory_pair(chat, interceptors=[only_known]) as (server, ada),
        kk.memory_pair(chat, interceptors=[only_known]) as (_, bob),
    ):
        print(await ada.remote().login("Ada"))
        print(await bob.remote().login("Bob"))
        print(await ada.remote().whoAmI(), await bob.remote().whoAmI())
        # The way that a call of Ada's would take, interceptors and all, begun on this side.
        print(await server.invoke_local("whoAmI"))


anyio.run(main)
