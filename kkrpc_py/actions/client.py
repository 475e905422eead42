"""`ActionClient` and `ActionCall`: stream actions that are called over HTTP.

This module owns what is asked for and by whom. The running of one execution is `executing`'s, HTTP and
server-sent events are `fetching`'s and `reading`'s.
"""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

import anyio
import httpx
from anyio.abc import TaskGroup

from kkrpc_py.actions.executing import Callbacks, Executing, Execution, Follower, Host, Status
from kkrpc_py.actions.fetching import ActionRequest, Fetching, GivenHeaders
from kkrpc_py.errors import ActionError
from kkrpc_py.limits import Limits
from kkrpc_py.wire.json_codec import JsonWriter
from kkrpc_py.wire.lowering import Lowering

__all__ = ["ActionCall", "ActionClient"]

T = TypeVar("T")

_RESUME = 8
"""Attempts to resume in a row: with their delays they last about as long as a server waits for its client."""


class ActionClient:
    """Calls stream actions by HTTP POST, and reads the server-sent events that answer.

    ::

        async with kk.ActionClient("http://localhost:8000/actions") as client:
            async for chunk in client.stream("ai_chat").execute({"prompt": "Why?"}):
                print(chunk["text"], end="", flush=True)

    :param url: what the name of an action is put behind, with a `/`.
    :param headers: of every request, or a function that gives them, anew for each; it may be a coroutine
        function.
    :param http: the client to use, with its own settings for TLS, proxies, cookies, redirects; it is not
        closed. Its time limit for reading is not used: a stream may be quiet.
    :param limits: `frame` bounds an event, `depth` and `digits` its JSON, `stream_buffer` the bytes of chunks
        that wait to be taken.

    `execute` may be awaited outside of an `async with`; then `aclose` is to be called. Raises ValueError for
    a URL that is none of HTTP.
    """

    def __init__(
        self,
        url: str | httpx.URL,
        *,
        headers: GivenHeaders = None,
        http: httpx.AsyncClient | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._url = httpx.URL(url)
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise ValueError("the URL of an action client begins with http:// or https:// and a host")
        self._headers = headers
        self._given_http = http
        self._own_http: httpx.AsyncClient | None = None
        self._limits = limits or Limits()
        self._host = Host()
        self._writer = JsonWriter(self._limits, stock=False, with_bytes=True)
        self._lowering = Lowering(None, self._limits.depth)
        self._entered: contextlib.AbstractAsyncContextManager[TaskGroup] | None = None

    def stream(
        self,
        name: str,
        *,
        on_chunk: Callable[[Any], object] | None = None,
        on_done: Callable[[list[Any]], object] | None = None,
        on_error: Callable[[ActionError], object] | None = None,
        timeout: float | None = None,
        quiet: float | None = None,
        resume: int = _RESUME,
        keep: int | None = None,
        method: Literal["POST", "GET"] = "POST",
    ) -> ActionCall[Any]:
        """The action `name`, to be executed as often as it is wanted. Nothing is sent yet.

        The callbacks may be coroutine functions; the next chunk waits for them, and what they raise comes out
        of `execute`, after the stream was closed.

        :param on_chunk: gets each chunk, when it stands in `chunks`.
        :param on_done: gets all the chunks, when the stream has come to its end; not when it was stopped.
        :param on_error: gets what the stream ended in.
        :param timeout: seconds until the answer begins; then it is a `TIMEOUT_ERROR`.
        :param quiet: seconds without a byte until the connection counts as lost; more than the server's
            keep-alive.
        :param resume: attempts in a row to resume a stream whose connection was lost, where the events have
            ids.
        :param keep: how many of the newest chunks stay in `chunks`, for streams without end; None: all.
        :param method: GET for actions that are `safe`; then the input is a mapping, and goes into the query.

        Raises ValueError for what is none of this.
        """
        if not name or name in (".", ".."):
            raise ValueError(f"an action cannot be called {name!r}")
        if method not in ("POST", "GET"):
            raise ValueError(f"an action is called by POST or GET, not {method!r}")
        if resume < 0 or (keep is not None and keep < 0):
            raise ValueError("resume and keep are numbers from zero on")
        for seconds in (timeout, quiet):
            if seconds is not None and not seconds > 0:
                raise ValueError(f"timeout and quiet are seconds above zero, not {seconds!r}")
        path, _, query = self._url.raw_path.partition(b"?")
        path = path.rstrip(b"/") + b"/" + quote(name, safe="").encode()
        url = self._url.copy_with(raw_path=path + (b"?" + query if query else b""), fragment=None)
        request = ActionRequest(method, url, None, self._headers, timeout, quiet, resume)
        return ActionCall(self, name, request, Callbacks(on_chunk, on_done, on_error), keep)

    @property
    def http(self) -> httpx.AsyncClient:
        """The HTTP client that is used."""
        if self._given_http is not None:
            return self._given_http
        if self._own_http is None:
            # A stream keeps its connection for as long as it lasts: none may have to wait for another's.
            pool = httpx.Limits(max_keepalive_connections=20)
            # To http:// no TLS is spoken, and loading the authorities blocks for 30 ms: none are trusted.
            tls = self._url.scheme == "https" or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._own_http = httpx.AsyncClient(timeout=None, limits=pool, verify=tls)
        return self._own_http

    async def aclose(self) -> None:
        """Stop what is executed, and close the connections, where they are this client's own."""
        self._host.close()
        if self._own_http is not None:
            own, self._own_http = self._own_http, None
            with anyio.CancelScope(shield=True):
                await own.aclose()

    async def __aenter__(self) -> ActionClient:
        if self._entered is not None or self._host.closed:
            raise RuntimeError("an action client is entered once")
        self._entered = _background()
        self._host.tasks = await self._entered.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._host.close()
        try:
            assert self._entered is not None
            await self._entered.__aexit__(exc_type, exc, traceback)
        finally:
            await self.aclose()

    def _body_of(self, input: Any) -> bytes:
        """The JSON of an input; None is an empty object. Raises NotSerializable."""
        value = self._plain(input)
        text: bytes
        try:
            text = self._writer.dumps(value)
        except UnicodeEncodeError:
            text = self._writer.dumps_unpaired(value)
        return text

    def _query_of(self, input: Any) -> dict[str, str]:
        """The query that is an input: what is no text is JSON, what is None is left out.

        Raises NotSerializable, and TypeError for what is no mapping.
        """
        value = self._plain(input)
        if not isinstance(value, dict):
            raise TypeError(f"the input of a GET is a mapping, not {type(input).__name__}")
        return {
            key: item if isinstance(item, str) else json.dumps(item, separators=(",", ":"))
            for key, item in value.items()
            if item is not None
        }

    def _plain(self, input: Any) -> Any:
        value = self._lowering.lower({} if input is None else input, "input", None)
        return self._writer.fit_checked(value, "input")


@contextlib.asynccontextmanager
async def _background() -> AsyncGenerator[TaskGroup]:
    """A task group that ends with its block. What the block raises comes out as it is, in no group."""
    failure: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        try:
            yield tasks
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as exc:
            failure = exc
        tasks.cancel_scope.cancel()
    try:
        if failure is not None:
            raise failure
    finally:
        del failure


class ActionCall(Generic[T]):
    """One action of a client, and its latest execution. Made by `ActionClient.stream`.

    ::

        call = client.stream("ai_chat", on_chunk=show, on_error=complain)
        await call.execute({"prompt": "Why?"})  # until the stream has ended
        print(call.status, len(call.chunks))

    A stream that is stopped, by `stop`, by another `execute` or because its task was cancelled, closes its
    connection at once; its callbacks are called no more.
    """

    def __init__(
        self, client: ActionClient, name: str, request: ActionRequest, callbacks: Callbacks, keep: int | None
    ) -> None:
        self.name = name
        self._client = client
        self._request = request
        self._callbacks = callbacks
        self._keep = keep
        self._latest: Execution[T] | None = None
        self._begun: anyio.Event | None = None

    def execute(self, input: Any = None) -> Executing[T]:
        """Begin to execute the action: `await` what this gives, or iterate over it.

        ::

            await call.execute({"prompt": "Why?"})  # callbacks; returns at the end, whatever that is
            async for chunk in call.execute({"prompt": "Why?"}):  # or the chunks; raises ActionError

        At once `chunks`, `data` and `error` are as new and the status is "streaming"; the execution before,
        if there is one, is stopped, and returns. Awaited, it returns when the stream is done, has failed
        (`error`, `on_error`) or is stopped; it raises what a callback raises. Iterated, it reads no further
        ahead than `Limits.stream_buffer`; leaving the loop stops it.

        :param input: JSON, or what the library makes such of: dataclasses, msgspec Structs, pydantic models,
            enums. None is an empty object.

        Raises NotSerializable for an input that JSON does not carry, and RuntimeError where the client is
        closed.
        """
        client = self._client
        if client._host.closed:
            raise RuntimeError("the action client is closed")
        request = self._request
        if request.method == "GET":
            request = request.at(request.url.copy_merge_params(client._query_of(input)), None)
        else:
            request = request.at(request.url, client._body_of(input))
        fetching = Fetching(client.http, request, client._limits)
        execution: Execution[T] = Execution(
            client._host, fetching.run, self._callbacks, client._limits.stream_buffer, self._keep
        )
        self.stop()
        self._latest = execution
        if self._begun is not None:
            self._begun.set()
        return Executing(execution)

    def stop(self) -> None:
        """Stop the execution: its status is "done" at once, and the server sees the connection closed.

        May be called from a callback, and where nothing is executed.
        """
        if self._latest is not None:
            self._latest.stop()

    @property
    def chunks(self) -> list[T]:
        """What has come in the latest execution: each one has a list of its own."""
        return [] if self._latest is None else self._latest.chunks

    @property
    def data(self) -> T | None:
        """The last chunk."""
        return None if self._latest is None else self._latest.data

    @property
    def status(self) -> Status:
        """Is "idle" before the first execution, "streaming" in one, and then "done" or "error".

        One that was stopped is "done".
        """
        return "idle" if self._latest is None else self._latest.status

    @property
    def error(self) -> ActionError | None:
        """What the stream ended in, where the status is "error"."""
        return None if self._latest is None else self._latest.error

    def __aiter__(self) -> Follower[T]:
        """The chunks of the latest execution, from its first one, whoever runs it.

        Where there is none yet they are those of the first. Any number of tasks may follow, at their own
        pace; leaving such a loop stops nothing. It ends when the execution is done or stopped, and raises
        ActionError where that failed. What `keep` has dropped is left out.
        """
        return Follower(self._find)

    async def _find(self) -> Execution[T]:
        while self._latest is None:
            if self._begun is None:
                self._begun = anyio.Event()
            await self._begun.wait()
        return self._latest

    def __repr__(self) -> str:
        return f"<ActionCall {self.name!r} {self.status} chunks={len(self.chunks)}>"
