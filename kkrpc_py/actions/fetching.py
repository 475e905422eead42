"""`Fetching`: one execution of an action over HTTP, from its request to its end (SSE-1 to SSE-15).

It owns the request, the judgement of the answer, what the events mean, and when a stream that was cut is
asked for again. Who gets the chunks, and when it is enough, is `executing`'s.
"""

from __future__ import annotations

import contextlib
import random
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from inspect import isawaitable
from typing import Any, TypeAlias

import anyio
import httpx
import msgspec

from kkrpc_py.actions.reading import EventStreamReader
from kkrpc_py.channel.backoff import Backoff
from kkrpc_py.errors import ActionError
from kkrpc_py.errors.actions import STREAM_ERROR
from kkrpc_py.limits import Limits
from kkrpc_py.wire.json_codec import JsonError, JsonReader

__all__ = ["ActionRequest", "Fetching", "GivenHeaders", "Put"]

GivenHeaders: TypeAlias = (
    "Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]] | None"
)
"""Headers of every request, or what is asked for them before each, such as for a token that changes."""
Put: TypeAlias = Callable[[list[Any], int], Awaitable[None]]
"""Takes chunks, and the bytes that they came in; returns when there is room for more."""

_EVENT_STREAM = "text/event-stream"
_BODY_BYTES, _BODY_SECONDS = 64 * 1024, 5.0
"""What is read of an answer that is no stream, and what that may take."""
_PACKED_BYTES = 1024
"""What is unpacked at once: deflate makes 1032 times as much of it at the most."""
_LINGER_SECONDS = 0.05
"""What the end of an answer may take after the last event, for its connection to be used again."""
_TRY_AGAIN = frozenset((429, 502, 503, 504))
"""Answers to a resumption that say that there will be another one later (RFC 9110, RFC 6585)."""
_INITIAL_DELAY, _MAX_DELAY, _FACTOR, _JITTER = 0.1, 10.0, 2.0, 0.5


class ActionRequest(msgspec.Struct, frozen=True):
    """What is asked for, and how patiently. Times are seconds, None for no end."""

    method: str
    url: httpx.URL
    body: bytes | None
    headers: GivenHeaders
    timeout: float | None
    """Until the answer begins."""
    quiet: float | None
    """Without a byte, until the connection counts as lost."""
    resume: int
    """Attempts to resume in a row by which nothing comes."""

    def at(self, url: httpx.URL, body: bytes | None) -> ActionRequest:
        """The same for one input."""
        return msgspec.structs.replace(self, url=url, body=body)


class _Lost(Exception):
    """The connection was lost, or not made: a stream whose events have ids can be resumed."""

    def __init__(self, message: str, error: ActionError | None = None) -> None:
        super().__init__(message)
        self.error = ActionError(STREAM_ERROR, message, 500) if error is None else error


class Fetching:
    """One execution. `run` is called once, and ends with it."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        request: ActionRequest,
        limits: Limits,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._http = http
        self._request = request
        self._limits = limits
        self._chance = chance
        self._json = JsonReader(limits)
        self._reader = EventStreamReader(limits.frame)
        self._tries = 0
        self._tried_id = ""
        self._backoff = self._new_backoff()

    async def run(self, put: Put) -> None:
        """Put all the chunks; return at the end of the stream.

        Raises ActionError for what the server or the connection ended it in, and what the function that gives
        the headers raises. A cancelled one has closed the connection.
        """
        self._put = put
        while True:
            try:
                await self._attempt()
                return
            except _Lost as lost:
                if not self._may_resume():
                    raise lost.error from lost.__cause__
            await anyio.sleep(self._backoff.delay())

    def _may_resume(self) -> bool:
        """Whether to try once more, after a delay (SSE-15)."""
        if not self._reader.last_id:
            return False
        if self._tried_id != self._reader.last_id:  # something new came by the last one
            self._tried_id = self._reader.last_id
            self._tries = 0
            self._backoff = self._new_backoff()
        self._tries += 1
        self._backoff.failed()
        return self._tries <= self._request.resume

    def _new_backoff(self) -> Backoff:
        wanted = _INITIAL_DELAY if self._reader.retry is None else self._reader.retry
        return Backoff(
            min(max(wanted, _INITIAL_DELAY), _MAX_DELAY), _MAX_DELAY, _FACTOR, _JITTER, self._chance
        )

    async def _attempt(self) -> None:
        """One connection, to the end of the stream. Raises _Lost, and what `run` raises."""
        resuming = bool(self._reader.last_id)
        async with contextlib.AsyncExitStack() as stack:
            response: httpx.Response | None = None
            with anyio.move_on_after(self._request.timeout):
                response = await self._open(stack)
            if response is None:
                seconds = f"{self._request.timeout:g} s"
                timeout = ActionError("TIMEOUT_ERROR", f"the stream did not begin within {seconds}", 408)
                raise _Lost("timeout", timeout)
            if response.status_code == httpx.codes.OK and _media_type(response) == _EVENT_STREAM:
                await self._read(response)
            elif not (resuming and response.status_code == httpx.codes.NO_CONTENT):
                error = await self._refusal(response)
                if resuming and response.status_code in _TRY_AGAIN:
                    raise _Lost("refused for now", error)
                raise error

    async def _open(self, stack: contextlib.AsyncExitStack) -> httpx.Response:
        """Send the request; the answer has begun."""
        request = self._request
        # What packs a stream gathers it, and this is what one is to see at once.
        headers = httpx.Headers({"Accept-Encoding": "identity"})
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        given = request.headers() if callable(request.headers) else request.headers
        headers.update(await given if isawaitable(given) else given)
        headers["Accept"] = _EVENT_STREAM
        headers["Cache-Control"] = "no-store"
        if self._reader.last_id:
            headers["Last-Event-ID"] = self._reader.last_id
        usual = self._http.timeout
        message = self._http.build_request(
            request.method,
            request.url,
            headers=headers,
            content=request.body,
            timeout=httpx.Timeout(
                connect=usual.connect, read=request.quiet, write=usual.write, pool=usual.pool
            ),
        )
        message.stream = _Body(request.body or b"")
        with _losses():
            response = await self._http.send(message, stream=True)
        stack.push_async_callback(response.aclose)
        return response

    async def _read(self, response: httpx.Response) -> None:
        """The events of one answer. Raises _Lost where they end without one that is the end (SSE-6)."""
        unpack = _unpacking(response)
        reader = EventStreamReader(self._limits.frame, self._reader.last_id)
        reader.retry = self._reader.retry
        self._reader = reader
        async with _closing(response.aiter_raw()) as blocks:
            with _losses():
                async for packed in blocks:
                    for block in unpack(packed):
                        if await self._take(block):
                            await _linger(blocks)
                            return
        raise _Lost("the stream was cut before its end")

    async def _take(self, block: bytes) -> bool:
        """Put what these bytes complete; True: it was the end. Raises ActionError where that is an error."""
        chunks: list[Any] = []
        size = 0
        failure: ActionError | None = None
        done = False
        for event in self._reader.feed(block):
            if event.event == "message":
                try:
                    chunks.append(self._json.loads(event.data.encode()))
                except JsonError:
                    failure = ActionError(STREAM_ERROR, "a chunk that arrived is not JSON", 502)
                size += len(event.data)
            elif event.event == "error":
                failure = self._described(event.data.encode())
            else:
                done = event.event == "done"
            if done or failure is not None:
                break
        else:
            if self._reader.too_long:
                failure = ActionError(
                    STREAM_ERROR, f"an event is longer than Limits.frame ({self._limits.frame})", 502
                )
        if chunks:
            await self._put(chunks, size)
        if failure is not None:
            raise failure
        return done

    def _described(self, text: bytes, status: int = 500) -> ActionError:
        """The error that an error object describes (ACT-10)."""
        try:
            data = self._json.loads(text)
        except JsonError:
            data = None
        return ActionError.from_data({"statusCode": status, **(data if isinstance(data, dict) else {})})

    async def _refusal(self, response: httpx.Response) -> ActionError:
        """What an answer that is no stream says; that of its status where it has no error object."""
        status = response.status_code
        error = self._described(b"", status)
        body = await _body(response)
        kind = _media_type(response)
        if kind == _EVENT_STREAM:
            texts = [
                event.data for event in EventStreamReader(_BODY_BYTES).feed(body) if event.event == "error"
            ]
            error = self._described("".join(texts[:1]).encode(), status)
        elif kind == "application/json":
            error = self._described(body, status)
        if error.message or error.code != STREAM_ERROR:
            return error
        said = f"HTTP {status} {response.reason_phrase}".rstrip()
        if response.is_success:
            said = f"the answer is no event stream: {said} {kind}".rstrip()
        elif response.has_redirect_location:
            said += ": redirects are followed where `http` is an httpx.AsyncClient(follow_redirects=True)"
        # An error has the status of one: another one came from what cannot be an answer to this request.
        return ActionError(STREAM_ERROR, said, status if response.is_error else 502)


class _Body(httpx.AsyncByteStream):
    """The body of a request. httpx's own is a generator, which a cancelled request would leave unfinished."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Once(self._body)


class _Once(AsyncIterator[bytes]):
    def __init__(self, body: bytes) -> None:
        self._left = [body]

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


def _media_type(response: httpx.Response) -> str:
    header: str = response.headers.get("Content-Type", "")
    return header.partition(";")[0].strip().lower()


@contextlib.contextmanager
def _losses() -> Generator[None]:
    """Failures of the network are losses of the connection; those that will come again are not."""
    try:
        yield
    except httpx.RequestError as exc:
        said = str(exc) or type(exc).__name__
        if isinstance(exc, httpx.ReadTimeout):
            said = "nothing came for longer than `quiet`"
        lost = _Lost(f"the connection failed: {said}")
        if isinstance(exc, httpx.TransportError) and not isinstance(
            exc, httpx.UnsupportedProtocol | httpx.LocalProtocolError
        ):
            raise lost from exc
        raise lost.error from exc


@contextlib.asynccontextmanager
async def _closing(blocks: AsyncIterator[bytes]) -> AsyncGenerator[AsyncIterator[bytes]]:
    """Close an answer where it was left.

    httpx's generators stand in one another, and `aclose` would reach the outermost alone: the others would be
    left to the garbage collector. A read that is cancelled ends them all, and closes the connection.
    """
    try:
        yield blocks
    finally:
        with anyio.CancelScope() as scope, contextlib.suppress(httpx.RequestError):
            scope.cancel()
            async for _ in blocks:
                pass


async def _linger(blocks: AsyncIterator[bytes]) -> None:
    """Wait a moment for the end of an answer whose stream has ended, so that its connection is used again."""
    with anyio.move_on_after(_LINGER_SECONDS), contextlib.suppress(httpx.RequestError):
        async for _ in blocks:
            pass


async def _body(response: httpx.Response) -> bytes:
    """The beginning of an answer's body; less where it is cut."""
    body = b""
    async with _closing(response.aiter_raw()) as blocks:
        with anyio.move_on_after(_BODY_SECONDS), contextlib.suppress(httpx.RequestError, ActionError):
            unpack = _unpacking(response)
            async for packed in blocks:
                for block in unpack(packed):
                    body += block
                    if len(body) >= _BODY_BYTES:
                        return body[:_BODY_BYTES]
    return body


def _unpacking(response: httpx.Response) -> Callable[[bytes], Iterator[bytes]]:
    """What unpacks the blocks of a body, in pieces that are bounded. Raises ActionError where nothing does.

    Nobody was asked to pack it, but some do.
    """
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding == "identity":
        return lambda block: iter((block,))
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise ActionError(
            STREAM_ERROR, f"the answer is packed in a way that was not asked for: {coding}", 502
        )
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: gzip or zlib, as its first bytes say

    def unpack(block: bytes) -> Iterator[bytes]:
        for start in range(0, len(block), _PACKED_BYTES):
            try:
                yield unpacker.decompress(block[start : start + _PACKED_BYTES])
            except zlib.error as exc:
                raise ActionError(STREAM_ERROR, "the answer cannot be unpacked", 502) from exc

    return unpack
