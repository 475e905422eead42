"""What a call can say beside its arguments: a name for each, a time limit, and who asks."""

import anyio

import kkrpc_py as kk


class Archive:
    async def search(self, text: str, *, limit: int = 3, exact: bool = False) -> list[str]:
        found = [f"{text} {number}" for number in range(100)]
        return found[:limit] if not exact else [text]

    async def reindex(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            print("archive: told to stop")


async def log_caller(ctx: kk.CallContext, next: kk.Next):
    print(f"archive: {ctx.meta['user']} calls {ctx.method}")
    return await next()


async def main() -> None:
    user = {"user": "ada"}
    async with kk.memory_pair(Archive(), interceptors=[log_caller], metadata=lambda: user) as (_, channel):
        api = channel.remote()
        print(await api.search("boats", limit=2))
        print(await api.search.with_options(metadata={"user": "bob"})("boats", exact=True))
        try:
            await api.reindex.with_options(timeout=0.2)()
        except kk.CallTimeout as error:
            print(f"{error.method} took more than {error.seconds} s")


anyio.run(main)
