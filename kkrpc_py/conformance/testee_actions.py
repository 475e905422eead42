"""The reference testee's stream action (spec/testee.md, Actions).

It owns the action's input, the two checks before it, and the steps that only its scripts have.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import kkrpc_py as kk
from kkrpc_py.conformance.testee_script import Bench, Script

__all__ = ["CHECKS", "ActionInput", "run_action"]


@dataclasses.dataclass
class ActionInput:
    """What the action takes."""

    name: str
    script: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    refuse: list[str] = dataclasses.field(default_factory=list)


async def first(ctx: kk.ActionContext) -> None:
    _check("first", ctx)


async def second(ctx: kk.ActionContext) -> None:
    _check("second", ctx)


CHECKS = (first, second)


def _check(name: str, ctx: kk.ActionContext) -> None:
    ctx.state.bench.probe(f"{ctx.input.name}.{name}").count("started")
    if name in ctx.input.refuse:
        raise kk.ActionError("REFUSED", name, 403)


async def run_action(bench: Bench, input: ActionInput, stream: kk.ActionStream[Any]) -> None:
    """Run the script of the input, with its chunks into the stream."""
    await _ActionScript(bench, input.name, input.script, stream).run(stream.send)


class _ActionScript(Script):
    """A script that may say that no more chunks come, and raise what its caller is to be told."""

    def __init__(
        self, bench: Bench, name: str, steps: list[dict[str, Any]], stream: kk.ActionStream[Any]
    ) -> None:
        super().__init__(bench, name, steps)
        self._stream = stream

    async def _act(self, step: dict[str, Any]) -> None:
        match step:
            case {"close": True}:
                await self._stream.close()
            case {"refuse": error}:
                raise kk.ActionError(
                    error["code"],
                    error["message"],
                    error["statusCode"],
                    field_errors=error.get("fieldErrors"),
                )
            case _:
                await super()._act(step)
