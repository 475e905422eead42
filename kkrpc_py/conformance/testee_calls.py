"""The reference testee as the one that calls: `invoke`, `take`, `abort`, and what it keeps of the kit.

It owns outcomes (spec/testee.md, "The other role") and the names of what is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio

import kkrpc_py as kk
from kkrpc_py.conformance.testee_script import Bench

__all__ = ["Kept", "outcome_of"]

Outcome = dict[str, Any]

_TRACEBACK_NOTE = "\nRaised by the peer:"
"""How the note begins that the library adds for people: it is no note of the peer's."""


async def outcome_of(call: Any) -> Outcome:
    """What awaiting `call` comes to."""
    try:
        return {"result": await call}
    except Exception as exc:
        return {"error": described(exc)}


def described(exc: BaseException) -> dict[str, Any]:
    """An error of the library or the peer, with all that it carries."""
    if isinstance(exc, kk.ValidationFailed):
        issues = [{"message": issue.message, "path": list(issue.path)} for issue in exc.issues]
        parts = {"phase": exc.phase, "method": exc.method, "issues": issues}
        return {"name": "RPCValidationError", "message": exc.message, **parts}
    if not isinstance(exc, kk.RemoteError):
        # The errors of the hub have a `code`, or the `version` of a state.
        fields = {name: getattr(exc, name, None) for name in ("code", "version")}
        told = {name: value for name, value in fields.items() if value is not None}
        return {"name": type(exc).__name__, "message": str(exc), **told}
    found = {**exc.fields, "name": exc.name, "message": exc.message}
    if exc.cause is not None:
        found["cause"] = described(exc.cause) if isinstance(exc.cause, BaseException) else exc.cause
    notes = [note for note in getattr(exc, "__notes__", ()) if not note.startswith(_TRACEBACK_NOTE)]
    if notes:
        found["__notes__"] = notes
    return found


class _Asked:
    """A call that is not answered."""

    def __init__(self) -> None:
        self.scope: anyio.CancelScope | None = None
        self.over = anyio.Event()


class Kept:
    """Calls, streams and functions under the names that a case has given them."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._named: dict[str, Any] = {}
        self._giving_up = anyio.Lock()

    def clear(self) -> None:
        self._named = {}

    def forget(self, name: str) -> None:
        kept = self._named.pop(name, None)
        if isinstance(kept, kk.RemoteCallback):
            kept.release()

    def keep(self, name: str, value: Any) -> None:
        """Keep the first function or stream in `value`. Raises ValueError where there is none."""
        found = _first(value)
        if found is None:
            raise ValueError("there is no function and no stream in the value")
        self._named[name] = found

    def function(self, name: str) -> Callable[..., Any]:
        return self._get(name, kk.RemoteCallback)  # type: ignore[no-any-return]  # as the class says

    def _get(self, name: str, kind: type) -> Any:
        kept = self._named.get(name)
        if not isinstance(kept, kind):
            raise ValueError(f"no {kind.__name__} is kept under {name!r}")
        return kept

    async def invoke(
        self, name: str, method: str, args: list[Any], options: dict[str, Any] | None = None
    ) -> Outcome:
        """Call the kit, and return the outcome; a stream stays under `name`."""
        options = options or {}
        if options.get("words"):
            args = [self._bench.make(each) for each in args]
        self._named[name] = asked = _Asked()
        try:
            with self._bench.running() as asked.scope:
                outcome = await outcome_of(_call(method, args, options))
        except kk.CallCancelled as exc:
            return {"error": described(exc)}
        finally:
            asked.over.set()
            if self._named.get(name) is asked:
                del self._named[name]
        if isinstance(outcome.get("result"), kk.StreamCall):
            self._named[name] = outcome["result"]
            return {"stream": True}
        return outcome

    async def take(self, name: str, n: int) -> dict[str, Any]:
        """Up to n chunks; fewer, and how it ended, where the stream has ended."""
        stream = self._get(name, kk.StreamCall)
        values: list[Any] = []
        try:
            while len(values) < n:
                values.append(await anext(stream))
        except StopAsyncIteration:
            return {"values": values, "end": await outcome_of(stream)}
        except kk.KkrpcError as exc:
            return {"values": values, "end": {"error": described(exc)}}
        return {"values": values, "end": None}

    async def abort(self, name: str) -> None:
        """Give up the call or stream; returns once the cancel is answered, where it is (CAN-3)."""
        kept = self._named.get(name)
        if isinstance(kept, kk.StreamCall):
            await kept.cancel()
        elif isinstance(kept, _Asked) and kept.scope is not None:
            # Nothing public tells when a call that was given up is answered. `outgoing` of the connection
            # lists the calls that are open; one at a time is given up, so that it is known which it was.
            async with self._giving_up:
                before = _cancelling()
                kept.scope.cancel()
                await kept.over.wait()
                given_up = _cancelling() - before
            await self._bench.until(lambda: not given_up & _cancelling())


def _cancelling() -> set[Any]:
    """Calls of this side whose cancel will be answered, and has not been."""
    outgoing = kk.current_channel().connection.outgoing.values()
    return {call for call in outgoing if call.state.name == "CANCELLING"}


async def _call(method: str, args: list[Any], options: dict[str, Any]) -> Any:
    channel = kk.current_channel()
    target = channel.remote()[method]
    if options.get("meta") is not None:
        target = target.with_options(metadata=options["meta"])
    kwargs = options.get("kwargs") or {}
    match options.get("kind", "call"):
        case "get":
            return await target
        case "set":
            return await channel.set(target, args[0])
        case "construct":
            return await channel.construct(target, *args, **kwargs)
        case "call":
            return await target(*args, **kwargs)
        case other:
            raise ValueError(f"no kind of call: {other!r}")


def _first(value: Any) -> Any:
    """The first function or stream in the value, at any depth."""
    if isinstance(value, (kk.RemoteCallback, kk.StreamCall)):
        return value
    parts: Any = ()
    if isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, list):
        parts = value
    return next((found for found in map(_first, parts) if found is not None), None)
