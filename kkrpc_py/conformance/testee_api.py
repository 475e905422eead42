"""What the reference testee exposes: the methods and properties of spec/testee.md.

It owns their names and what they take. Scripts are `testee_script`'s, calls of the kit `testee_calls`'s, the
hub `testee_streams`'s, the action `testee_actions`'s, the process and its end `testee`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any, ClassVar

import kkrpc_py as kk
from kkrpc_py.conformance.testee_actions import CHECKS, ActionInput, run_action
from kkrpc_py.conformance.testee_calls import Kept, outcome_of
from kkrpc_py.conformance.testee_script import Bench, Script, error_of
from kkrpc_py.conformance.testee_streams import Hub

__all__ = ["API", "remember_meta"]

_FEATURES = (
    "credit", "batch", "result", "cancel", "cbor", "callback", "stream-arguments", "kwargs", "metadata",
    "superjson", "bigint", "floats", "validation", "properties", "construct", "noise", "counted", "limits",
    "decimal", "rational", "uuid", "ip", "complex", "date", "datetime", "set",
    "named-streams", "uploads", "events", "shared-state", "streams-client", "actions",
)  # fmt: skip

_meta: ContextVar[dict[str, Any]] = ContextVar("metadata of the running call")


async def remember_meta(ctx: kk.CallContext, next: kk.Next) -> Any:
    """The interceptor through which `meta` knows what came beside its call."""
    _meta.set(ctx.meta)
    return await next()


class Deep:
    """`math.deep`."""

    async def add(self, a: Any, b: Any) -> Any:
        return a + b


class Math:
    """`math`."""

    deep = Deep()
    _secret = "nobody's"

    async def add(self, a: Any, b: Any) -> Any:
        return a + b

    async def count(self, n: Any) -> AsyncIterator[Any]:
        for number in range(n):
            yield number

    async def _hidden(self) -> str:
        return "nobody's"


class Typed:
    """`typed`: the annotations are what is checked (ERR-7)."""

    async def input(self, n: int) -> Any:
        return n

    async def output(self, value: Any) -> int:
        return value  # type: ignore[no-any-return]  # a wrong one is the point

    async def chunks(self, values: Any) -> AsyncIterator[int]:
        for value in values:
            yield value


@kk.inline
@kk.constructible
class Point:
    """A class that may be constructed."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x = x
        self.y = y
        self._secret = "nobody's"

    def norm(self) -> float:
        """A method: nobody is sent it."""
        return float((self.x**2 + self.y**2) ** 0.5)


class Sealed:
    """A class that may not."""


class API:
    """The object that the testee exposes."""

    math = Math()
    typed = Typed()
    settings: ClassVar = {"theme": kk.writable("dark"), "fixed": 7, "tree": {"a": {"b": [1, 2]}}}
    Point = Point
    Sealed = Sealed
    _secret = "nobody's"

    def __init__(self, limits: kk.Limits) -> None:
        self._bench = Bench(self._make)
        self._kept = Kept(self._bench)
        self.hub = Hub(self._bench, limits)
        self._functions: dict[str, kk.LocalCallback[Any, Any]] = {}
        self._noise: list[str] = []

    def _make(self, words: Any) -> Any:
        from kkrpc_py.conformance.testee_words import from_words  # late, with half a dozen modules for types

        return from_words(words, self._function, lambda said: Script(self._bench, *said).chunks())

    def _function(self, name: str) -> kk.LocalCallback[Any, Any]:
        def function(*args: Any) -> list[Any]:
            self._bench.probe(name).count("started")
            return list(args)

        return self._functions.setdefault(name, kk.callback(function))

    # For the process -----------------------------------------------------------------------

    def _note_noise(self, line: bytes) -> None:
        self._noise.append(line.hex())

    def _end(self) -> None:
        """The channel is closed: nothing waits any longer."""
        self._bench.open_gates()

    # Values and paths ----------------------------------------------------------------------

    async def describe(self) -> dict[str, Any]:
        from importlib.metadata import version  # late: asked for once in a run
        from importlib.util import find_spec

        # Arrays of more than one dimension can be sent where there is numpy.
        features = [*_FEATURES, "arrays"] if find_spec("numpy") is not None else list(_FEATURES)
        return {"protocol": 1, "name": "kkrpc_py", "version": version("kkrpc-py"), "features": features}

    async def echo(self, value: Any) -> Any:
        return value

    async def tag(self, value: Any) -> Any:
        from kkrpc_py.conformance.testee_words import to_words  # as in `_make`

        return to_words(value)

    async def make(self, words: Any) -> Any:
        return self._make(words)

    async def args(self, /, *args: Any, **kwargs: Any) -> Any:
        return {"args": list(args), "kwargs": kwargs}

    async def nothing(self) -> None:
        return None

    async def add(self, a: Any, b: Any) -> Any:
        return a + b

    async def meta(self) -> Any:
        return _meta.get()

    async def fail(self, error: Any) -> None:
        raise error_of(error)

    async def _hidden(self) -> str:
        return "nobody's"

    # Scripts -------------------------------------------------------------------------------

    async def run(self, name: Any, script: Any) -> Any:
        return await Script(self._bench, name, script).run()

    async def produce(self, name: Any, script: Any, sink: kk.StreamSink[Any]) -> Any:
        # A sink, since an async generator of Python's cannot return a value.
        return await Script(self._bench, name, script).run(sink.send)

    async def count(self, n: Any) -> AsyncIterator[Any]:
        for number in range(n):
            yield number

    @kk.stream_action(input=ActionInput, middleware=CHECKS)
    async def action(self, input: ActionInput, ctx: kk.ActionContext, stream: kk.ActionStream[Any]) -> None:
        await run_action(self._bench, input, stream)

    async def open(self, gate: Any) -> None:
        self._bench.gate(gate).set()

    async def probe(self, name: Any) -> Any:
        return dict(self._bench.probe(name).counts)

    async def reached(self, name: Any, counter: Any, n: Any) -> None:
        await self._bench.probe(name).reached(counter, n)

    async def barrier(self) -> None:
        await self._bench.settle()

    async def reset(self) -> Any:
        connection = kk.current_channel().connection
        running = len(connection.incoming) - 1  # nothing public counts them; this call is one
        self._bench.reset()
        self._kept.clear()
        self.hub._reset()
        functions, self._functions = self._functions, {}
        for function in functions.values():
            function.release()
        await self._bench.settle()  # what is told of it is told before the answer
        return {"running": running}

    # The other role ------------------------------------------------------------------------

    async def invoke(self, name: Any, method: Any, args: Any, options: Any = None) -> Any:
        return await self._kept.invoke(name, method, args, options)

    async def take(self, name: Any, n: Any) -> Any:
        return await self._kept.take(name, n)

    async def abort(self, name: Any) -> None:
        await self._kept.abort(name)

    # Functions and streams in values -------------------------------------------------------

    async def call(self, f: Any, args: Any) -> Any:
        return await _called(f, args)

    async def notify(self, f: Any, args: Any) -> None:
        f.notify(*args)

    async def keep(self, name: Any, value: Any) -> None:
        self._kept.keep(name, value)

    async def kept(self, name: Any, args: Any) -> Any:
        return await _called(self._kept.function(name), args)

    async def forget(self, name: Any) -> None:
        self._kept.forget(name)
        await self._bench.settle()

    async def release(self, name: Any) -> None:
        if name in self._functions:
            self._functions[name].release()

    # What came in --------------------------------------------------------------------------

    async def noise(self) -> Any:
        noise, self._noise = self._noise, []
        return noise

    async def counted(self) -> Any:
        # The channel only logs them; its connection is where the number is.
        return kk.current_channel().connection.violations


async def _called(f: Any, args: list[Any]) -> Any:
    """The outcome of a call of the kit's function; None where functions are not answered (CBK-4)."""
    outcome = await outcome_of(f(*args))
    answered = kk.current_channel().connection.calls_back  # by itself a None says nothing
    return outcome if answered or "error" in outcome else None
