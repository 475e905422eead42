"""The peer's calls: from a request to its handler, and who runs it.

This module owns which handler is meant, and where it begins: at once where it is read, or as a task in a
worker. What a task does is `channel.task`'s.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Sequence
from typing import Any

from msgspec import UNSET

from kkrpc_py.channel.expose import Exposed, Handler, Runs
from kkrpc_py.channel.interceptors import Interceptor
from kkrpc_py.channel.task import READING, VALUES, CallTask, Host, Outcome, checked
from kkrpc_py.channel.threads import Threads
from kkrpc_py.channel.workers import WorkerPool
from kkrpc_py.core.callbacks import Passed
from kkrpc_py.core.calls import IncomingCall
from kkrpc_py.errors import error_to_wire

__all__ = ["INLINE_TURN", "Dispatcher"]

_log = logging.getLogger("kkrpc_py")

INLINE_TURN = 64
"""Inline handlers that run where their requests are read, one after the other; the rest go to the workers."""


class Dispatcher:
    """Runs the handlers of one channel."""

    def __init__(
        self,
        host: Host,
        exposed: Exposed,
        interceptors: Sequence[Interceptor],
        pool: WorkerPool,
        threads: Threads,
        generator_threads: Threads,
        *,
        tracebacks: bool,
    ) -> None:
        self.host = host
        self.exposed = exposed
        self.interceptors = tuple(interceptors)
        self.pool = pool
        self.threads = threads
        self.generator_threads = generator_threads
        self.tracebacks = tracebacks
        self.callback_threads: Threads | None = None
        """Where plain functions run that the peer calls back; None: on the loop."""
        self._failed_silently = 0
        self.inline_turns = 0
        """How many more inline handlers may run before other tasks have their turn."""

    def start(
        self,
        call: IncomingCall,
        args: list[Any],
        kwargs: dict[str, Any] | None = None,
        meta: dict[str, Any] | None = None,
    ) -> None:
        """Begin `call`; the reader never waits for it."""
        if call.stopping():  # the cancel came in the same read
            self._answer_cancel(call)
            return
        try:
            handler = self.exposed.find(call.method)
            if kwargs:
                handler.check_open(kwargs)
        except Exception as exc:
            self._refuse(call, exc)
            return
        # Handlers begin in the order of their calls: not ahead of those that a worker has yet to take.
        outcome = None
        if handler.at_once and self._take_inline_turn(handler):
            outcome = self._run_inline(call, handler, args, kwargs)
            if outcome is None:
                return
        call.owner = task = CallTask(self, self.host, call, handler, args, outcome)
        if kwargs is not None or meta is not None:
            task.kwargs, task.meta = kwargs, meta
        self.pool.submit(task)

    def construct(
        self, call: IncomingCall, args: list[Any], kwargs: dict[str, Any] | None, meta: dict[str, Any] | None
    ) -> None:
        """Begin to make an instance for the peer."""
        if call.stopping():
            self._answer_cancel(call)
            return
        try:
            handler = self.exposed.constructor(call.method)
            if kwargs:
                handler.check_open(kwargs)
        except Exception as exc:
            self._refuse(call, exc)
            return
        call.owner = task = CallTask(self, self.host, call, handler, args, None, kwargs, meta, "construct")
        self.pool.submit(task)

    def property(self, call: IncomingCall, path: tuple[str, ...], value: Any) -> None:
        """Read or write a property for the peer."""
        if call.stopping():
            self._answer_cancel(call)
            return
        kind, args = ("get", []) if value is UNSET else ("set", [value])
        try:
            if value is not UNSET:
                handler = self.exposed.setter(path)
            else:
                if self.interceptors:
                    self.exposed.read(path)  # they see nothing that is not exposed
                handler = self.exposed.getter(path)
        except Exception as exc:
            self._refuse(call, exc)
            return
        outcome = None if self.interceptors else self._run_inline(call, handler, args, None)
        if outcome is not None or self.interceptors:
            call.owner = task = CallTask(self, self.host, call, handler, args, outcome, kind=kind)
            self.pool.submit(task)

    def call_back(
        self, call: IncomingCall, passed: Passed, args: list[Any], kwargs: dict[str, Any] | None
    ) -> None:
        """Call a function of this side for the peer: a `def` here and now, so that they keep their order."""
        if call.stopping():
            self._answer_cancel(call)
            return
        if passed.handler is None:
            try:
                passed.handler = Handler(passed.function)
            except Exception as exc:  # what the object says of itself is its own code
                self._refuse(call, exc)
                return
            if str(type(passed.function).__module__).startswith("kkrpc_py."):
                passed.handler.validator = None  # it only hands the call on, and so are its annotations
            if passed.handler.runs is Runs.ON_THREAD and self.callback_threads is None:
                passed.handler.runs, passed.handler.inline, passed.handler.at_once = Runs.ON_LOOP, True, True
        handler: Handler = passed.handler
        outcome = None
        if kwargs:
            try:
                handler.check_open(kwargs)
            except TypeError as exc:
                self._refuse(call, exc)
                return
        if handler.at_once and not self.host.stopping:
            outcome = self._run_inline(call, handler, args, kwargs)
            if outcome is None:
                return
        call.owner = task = CallTask(self, self.host, call, handler, args, outcome, kwargs, None, "callback")
        self.pool.submit(task)

    def produce(self, call: IncomingCall, iterable: Any) -> None:
        """Send the values of `iterable` as `call`, a stream within a value."""
        call.owner = task = CallTask(self, self.host, call, READING, [], Outcome(iterable), kind="stream")
        self.pool.submit(task)

    def report_silent(self, error: BaseException) -> None:
        """Log a failed callback whose caller waits for nothing: the first, the tenth, the hundredth."""
        self._failed_silently += 1
        if str(self._failed_silently).rstrip("0") == "1":
            _log.warning(
                "a callback failed, and its caller does not wait for it (%d so far)",
                self._failed_silently,
                exc_info=error,
            )

    def _refuse(self, call: IncomingCall, exc: Exception) -> None:
        self.host.connection.fail(call, error_to_wire(exc))
        self.host.kick()

    def _answer_cancel(self, call: IncomingCall) -> None:
        self.host.connection.stopped(call)
        self.host.kick()

    def _take_inline_turn(self, handler: Handler) -> bool:
        """Whether a handler can run where its request is read: a few in one read, none once it is over."""
        if handler.sink is not None or self.interceptors or self.host.stopping or not self.pool.all_begun:
            return False
        self.inline_turns -= 1
        return self.inline_turns >= 0

    def _run_inline(
        self, call: IncomingCall, handler: Handler, args: list[Any], kwargs: dict[str, Any] | None
    ) -> Outcome | None:
        """Run a handler here, without a task; returns what a task has to deal with, most often nothing."""
        validator = handler.validator
        try:
            if kwargs:
                args, kwargs = checked(handler, args, kwargs, call.method)
                result = contextvars.copy_context().run(handler.function, *args, **kwargs)
            else:
                handler.check(len(args))
                if validator is not None and not validator.is_plain(args):
                    args, _ = validator.arguments(args, {}, call.method)
                result = contextvars.copy_context().run(handler.function, *args)
            if validator is not None and type(result) in VALUES:
                result = validator.result(result, call.method)
        except KeyboardInterrupt as exc:
            self.host.crash(exc)
            return None
        except BaseException as exc:
            return Outcome(error=exc)
        if type(result) in VALUES and not self.host.control_congested:
            try:
                self.host.connection.respond(call, result)
                return None
            except Exception:  # the task meets the same, and says so
                pass
        return Outcome(result)

    def cancel(self, call: IncomingCall) -> None:
        """The peer has cancelled `call`."""
        task: CallTask | None = call.owner
        if task is None:  # answered when it was read
            return
        if task.scope is not None:
            task.scope.cancel()
        if task.producer is not None:
            task.producer.wake()

    def wake_producers(self) -> None:
        """Those who wait for credit under a shield of their own must see that none will come."""
        for call in self.host.connection.incoming.values():
            if call.owner is not None and call.owner.producer is not None:
                call.owner.producer.wake()

    def credit(self, call: IncomingCall) -> None:
        """The peer has granted credit to the stream of `call`."""
        task: CallTask | None = call.owner
        if task is not None and task.producer is not None:
            task.producer.credited()
