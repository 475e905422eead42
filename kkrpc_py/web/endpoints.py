"""What answers a request for an action, and one for a call.

`ActionEndpoint` owns the order of what may refuse it, and the life of a stream: its handler, its connection,
its client that goes away. `CallEndpoint` has HTTP's part of a call; the call itself is `rpc`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from anyio import CancelScope, create_task_group
from anyio.abc import TaskGroup
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from kkrpc_py.actions.context import ActionContext
from kkrpc_py.actions.running import BoundAction, PreparedAction
from kkrpc_py.errors import ActionError
from kkrpc_py.transports.handshake import HandshakeRequest
from kkrpc_py.web.answers import refuse
from kkrpc_py.web.body import ClientGone, InputReader, demand_json, read_body
from kkrpc_py.web.encoding import ValueWriter
from kkrpc_py.web.guards import request_of
from kkrpc_py.web.outlet import Outbox, PlainOutlet
from kkrpc_py.web.slots import Slot
from kkrpc_py.web.sse import SEND_SECONDS, EventStreamResponse
from kkrpc_py.web.streams import Streams, Visit

__all__ = ["ActionEndpoint", "Answers", "CallEndpoint"]


class _Incoming:
    """`receive`, which remembers whether the request has come to its end."""

    def __init__(self, receive: Receive) -> None:
        self.whole = False
        self._receive = receive

    async def __call__(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):
            self.whole = True
        return message


class _Endpoint:
    """Routes what `_answer` raises to the client."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = _Incoming(receive)
        try:
            await self._answer(scope, incoming, send)
        except ActionError as error:
            headers = {"Allow": error.allowed} if isinstance(error, _MethodNotAllowed) else None
            await refuse(error, scope, incoming, send, headers=headers, read=incoming.whole)
        except ClientGone:
            pass

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


class _MethodNotAllowed(ActionError):
    def __init__(self, allowed: str) -> None:
        super().__init__("METHOD_NOT_ALLOWED", "This method is not for here", 405)
        self.allowed = allowed


def _options(methods: tuple[str, ...]) -> Response:
    return Response(status_code=204, headers={"Allow": _allow(methods)})


def _allow(methods: tuple[str, ...]) -> str:
    return ", ".join((*methods, "OPTIONS"))


class ActionEndpoint(_Endpoint):
    """The ASGI application behind `/actions/{name}`.

    :param keep_alive: seconds of silence after which a stream has a comment; None: never.
    :param max_body: bytes.
    """

    def __init__(
        self,
        actions: Mapping[str, BoundAction],
        streams: Streams,
        reader: InputReader,
        writer: ValueWriter,
        *,
        keep_alive: float | None,
        max_body: int,
    ) -> None:
        self.streams = streams
        self.writer = writer
        self.keep_alive = keep_alive
        self._actions = actions
        self._reader = reader
        self._max_body = max_body

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        name, method = scope["path_params"]["name"], scope["method"]
        action = self._actions.get(name)
        if action is None:
            raise ActionError("NOT_FOUND", "There is no action of that name", 404)
        methods = ("POST", "GET", "HEAD") if action.action.safe else ("POST",)
        if method == "OPTIONS":
            await _options(methods)(scope, receive, send)
            return
        if method not in methods:
            raise _MethodNotAllowed(_allow(methods))
        request = request_of(scope)
        if method == "POST":
            demand_json(request.headers)
        if action.action.replay:
            _ = self.streams.tasks  # raises where there are none, before anything has run
        if method == "POST":
            raw = self._reader.of_body(await read_body(receive, request.headers, self._max_body))
        else:
            raw = self._reader.of_query(request.query)
        stream = _Stream(self, action, (scope, receive, send))
        try:
            await stream.serve(raw, request)
        finally:
            stream.leave()


class _Stream:
    """One request for a stream, from its input on."""

    def __init__(
        self, endpoint: ActionEndpoint, action: BoundAction, asgi: tuple[Scope, Receive, Send]
    ) -> None:
        self.visit = Visit()
        self._endpoint = endpoint
        self._action = action
        self._asgi = asgi
        self._slot = Slot()
        self._tasks: TaskGroup

    async def serve(self, raw: Any, request: HandshakeRequest) -> None:
        """Prepare the action, open the stream, and stay until it is over. Raises ActionError before."""
        scope, receive, _ = self._asgi
        headers, method = request.headers, scope["method"]
        context = ActionContext(
            self._action.name, transport="sse", headers=headers, client=request.client, state=request.state
        )
        visit, refusal = self.visit, None
        async with create_task_group() as tasks:
            self._tasks = tasks
            visit.begin(tasks, receive)
            try:
                prepared = await self._action.prepare(raw, context, text=method != "POST")
                if method == "HEAD":
                    await self._write(PlainOutlet(self._endpoint.writer).outbox)
                elif self._action.action.replay:
                    await self._keep(prepared, headers.get("last-event-id", ""))
                else:
                    await self._plain(prepared)
            except ActionError as error:
                refusal = error
            tasks.cancel_scope.cancel()
        if refusal is not None:
            raise refusal

    def leave(self) -> None:
        """It is over, and so is what its handler did afterwards."""
        self._endpoint.streams.leave(self.visit)
        self._slot.release()

    async def _plain(self, prepared: PreparedAction) -> None:
        """The handler lives as long as the connection."""
        await self._take_slot()
        outlet = PlainOutlet(self._endpoint.writer)
        # Whoever cancels this task, the handler is told first.
        handling = CancelScope(shield=True)

        def stop() -> None:
            prepared.signal.set()
            handling.cancel()
            outlet.outbox.close()

        self.visit.stop = stop
        self._endpoint.streams.opens(self.visit, stop)
        self._tasks.start_soon(_handle, prepared, outlet, handling)
        try:
            await self._write(outlet.outbox)
            prepared.signal.set()
            await outlet.handled()
        except BaseException:
            stop()
            raise

    async def _keep(self, prepared: PreparedAction, event_id: str) -> None:
        """The handler outlives the connection, or did so before."""
        streams, action, owner = self._endpoint.streams, self._action, prepared.ctx.owner
        if event_id:
            run, number = streams.runs.find(event_id, action.name, owner)
            if run.had_whole(number):
                await Response(status_code=204)(*self._asgi)
                return
            if not run.has_slot:
                await self._take_slot()
                run, number = streams.runs.find(event_id, action.name, owner)
        else:
            await self._take_slot()
            number = 0
            run = streams.runs.start(
                streams.tasks, action.name, action.action.replay, prepared, self._endpoint.writer
            )
        outbox = run.attach(number, self._slot, self.visit.gone)
        streams.opens(self.visit, run.forget)
        try:
            await self._write(outbox)
        finally:
            run.detach(outbox)

    async def _take_slot(self) -> None:
        """Only when nobody refuses any more: what anybody may begin would keep out those who may stay."""
        self._slot.take_over(await self._endpoint.streams.slots.take())

    async def _write(self, outbox: Outbox) -> None:
        self.visit.outbox = outbox
        response = EventStreamResponse(
            outbox,
            self._tasks,
            keep_alive=self._endpoint.keep_alive,
            send_seconds=SEND_SECONDS,
            on_stuck=self.visit.gone,
        )
        try:
            await response(*self._asgi)
        except OSError:
            self.visit.gone()


async def _handle(prepared: PreparedAction, outlet: PlainOutlet, scope: CancelScope) -> None:
    try:
        with scope:
            await prepared.run(outlet)
    except ActionError as error:
        outlet.fail(error)
    finally:
        outlet.leave()


class Answers(Protocol):
    """Answers single calls; raises nothing but cancellation."""

    async def answer(self, body: bytes, request: HandshakeRequest) -> tuple[int, bytes]:
        """The status, and a body of JSON."""
        ...


class CallEndpoint(_Endpoint):
    """The ASGI application behind `/rpc` (HTTP-8)."""

    def __init__(self, rpc: Answers, max_body: int) -> None:
        self._rpc = rpc
        self._max_body = max_body

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "OPTIONS":
            await _options(("POST",))(scope, receive, send)
            return
        if scope["method"] != "POST":
            raise _MethodNotAllowed(_allow(("POST",)))
        request = request_of(scope)
        demand_json(request.headers)
        body = await read_body(receive, request.headers, self._max_body)
        status, answer = 0, None
        async with create_task_group() as tasks:
            visit = Visit()
            visit.begin(tasks, receive)
            status, answer = await self._rpc.answer(body, request)
            tasks.cancel_scope.cancel()
        if answer is not None:
            response = Response(answer, status, {"Cache-Control": "no-store"}, "application/json")
            await response(scope, receive, send)
