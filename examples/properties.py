"""Properties and construction: what a child lists of itself is read and set, and nothing else is."""

import sys

import anyio

import kkrpc_py as kk


@kk.constructible
class Greeter:
    def __init__(self, name: str, greeting: str = "hello") -> None:
        self.text = f"{greeting}, {name}"


class Editor:
    Greeter = Greeter
    version = "1.2"
    theme = kk.writable("light", type=str)

    def __init__(self) -> None:
        self.secret = "no class body names it"


async def main() -> None:
    async with kk.open_process([sys.executable, __file__, "editor"]) as channel:
        api = channel.remote()
        print("version", await api.version, "with the theme", await api.theme)

        await channel.set(api.theme, "dark")
        print("the theme is", await api.theme)

        for target, value in ((api.theme, 5), (api.version, "2.0"), (api.secret, "known")):
            try:
                await channel.set(target, value)
            except (kk.ValidationFailed, PermissionError, kk.PropertyNotFound) as error:
                print(f"refused: {error}")

        print(await channel.construct(api.Greeter, "Ada"))


if sys.argv[1:] == ["editor"]:
    kk.run_stdio(Editor())
else:
    anyio.run(main)
