"""Channels for code without an event loop: `kk.sync.open_process`, `connect_tcp` and so on.

It owns one thread with an event loop for each channel, how that begins and ends, and the blocking shape of
what the asynchronous API gives. Everything else is that API's: a call here is a call there, made on the
channel's thread. How a thread waits for it is `channel.portal`'s.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import socket
import ssl
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager
from types import SimpleNamespace, TracebackType
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar, Unpack, overload

import anyio

from kkrpc_py.channel import channel as asynchronous
from kkrpc_py.channel import current, endpoints
from kkrpc_py.channel.declarations import Property
from kkrpc_py.channel.options import ConnectOptions
from kkrpc_py.channel.parking import current_parking
from kkrpc_py.channel.portal import Portal, loop_threads
from kkrpc_py.channel.stream import StreamCall
from kkrpc_py.channel.threads import Post, current_post
from kkrpc_py.channel.workers import WorkerPool
from kkrpc_py.errors import ChannelClosed, KkrpcError
from kkrpc_py.transports.descriptors import DescriptorStream
from kkrpc_py.transports.process import Child, StderrTarget
from kkrpc_py.transports.sockets import SocketByteStream

__all__ = [
    "Channel",
    "RPCChannel",
    "Remote",
    "Stream",
    "connect_tcp",
    "connect_unix",
    "current_channel",
    "iterate",
    "open_process",
    "wait",
]

P = ParamSpec("P")
T = TypeVar("T")

_FORCED_SECONDS = 5.0
"""How long closing may take once Ctrl+C has come a second time, and the child was killed."""


class Options(ConnectOptions, total=False):
    """The options of the asynchronous `RPCChannel`, and which event loop it runs on."""

    backend: str
    """"asyncio" (the default) or "trio"."""
    backend_options: Mapping[str, Any] | None
    """What `anyio.run` takes under that name, such as `{"use_uvloop": True}`."""


class Remote:
    """A path on the other side: `api.math.add(1, 2)` calls it, and blocks until it is answered."""

    __kkrpc_unlisted__ = True
    _kk_channel: Channel
    _kk_target: Any

    def __init__(self, channel: Channel, target: Any) -> None:
        self.__dict__.update(_kk_channel=channel, _kk_target=target)

    def __getattr__(self, name: str) -> Remote:
        target = getattr(self._kk_target, name)  # which refuses names with an underscore
        found = self.__dict__[name] = Remote(self._kk_channel, target)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name!r} cannot be set: it is a name on the other side; see `channel.set`")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name!r} cannot be deleted: it is a name on the other side")

    def __getitem__(self, name: str) -> Remote:
        """The same as an attribute, for names that are no Python identifiers."""
        return Remote(self._kk_channel, self._kk_target[name])

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """The value, or a `Stream` where the answer is one. Raises what the asynchronous call raises."""
        return self._kk_channel._answer(self._kk_target, *args, **kwargs)

    def with_options(self, **options: Any) -> Remote:
        """The same path with options of its own for the calls: `timeout`, `metadata`."""
        return Remote(self._kk_channel, self._kk_target.with_options(**options))

    # Without these, a for loop would take __getitem__ for a sequence, and never end.
    __iter__ = None

    def __repr__(self) -> str:
        return repr(self._kk_target)


class Stream(Generic[T]):
    """A stream that a call returned: a plain `for` reads it, once.

    Leaving the loop early, or dropping the stream, cancels its producer. One thread reads at a time.
    """

    __slots__ = ("__weakref__", "_channel", "_steps", "_stream")

    def __init__(self, channel: Channel, stream: StreamCall[T]) -> None:
        self._channel = channel
        self._stream = stream
        self._steps: Generator[T, None, None] | None = None

    def __iter__(self) -> Generator[T, None, None]:
        """The one pass over the values; a second one raises RuntimeError.

        Values cross from the event loop's thread in batches: all that have arrived. Once `next(stream)` was
        used, it is the values that are left.
        """
        return self._channel.iterate(self._stream) if self._steps is None else self._steps

    def __next__(self) -> T:
        """The next value, for reading a stream by hand."""
        self._steps = iter(self)
        return next(self._steps)

    def result(self) -> Any:
        """The generator's return value, once the stream is complete; what nobody has read is discarded.

        Raises what the stream ended in, and CallCancelled after a cancel.
        """
        return self._channel._answer(self._stream.result)

    def cancel(self) -> None:
        """Stop the producer; returns when its cleanup has run, where the peer confirms that (CAN-4)."""
        with contextlib.suppress(ChannelClosed):
            self._channel._run(self._stream.cancel)

    close = cancel

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(ChannelClosed):
            self._channel._run(self._stream.__aexit__, exc_type, exc, traceback)

    @property
    def id(self) -> str | int:
        """The call's id on the wire."""
        return self._stream.id

    @property
    def method(self) -> str:
        """The dotted path that was called."""
        return self._stream.method

    @property
    def received(self) -> int:
        """Values that have arrived, read or not."""
        return self._stream.received

    @property
    def ended(self) -> bool:
        """Nothing more will arrive; some of it may still be unread."""
        return self._stream.ended

    def __repr__(self) -> str:
        return repr(self._stream)


class Channel:
    """The blocking view of a channel, from any thread but an event loop's own.

    Each call raises ChannelClosed once the channel is closed; one that waits then ends at once.
    """

    __kkrpc_unlisted__ = True
    _portal: Portal
    _channel: asynchronous.RPCChannel

    def __init__(self, channel: asynchronous.RPCChannel, portal: Portal) -> None:
        self._channel = channel
        self._portal = portal

    def _run(self, function: Callable[..., Awaitable[T]], /, *args: Any, **kwargs: Any) -> T:
        return self._portal.run(function, *args, **kwargs)

    def _answer(self, function: Callable[..., Awaitable[Any]], /, *args: Any, **kwargs: Any) -> Any:
        answer = self._run(function, *args, **kwargs)
        return Stream(self, answer) if type(answer) is StreamCall else answer

    @overload
    def remote(self) -> Any: ...

    @overload
    def remote(self, api: Callable[..., T], /) -> T: ...

    def remote(self, api: Any = None) -> Any:
        """The other side's API, whose methods block: `channel.remote().math.add(1, 2)`.

        With a class, `channel.remote(API)` has its types, and what arrives is converted to them: one whose
        methods are plain `def`, since that is what they are here.
        """
        return Remote(self, self._channel.remote() if api is None else self._channel.remote(api))

    def get(self, target: Property[T]) -> T:
        """Read a property of the other side: `channel.get(api.settings.theme)`."""
        found: T = self._answer(_read, _target(target))
        return found

    def set(self, target: Property[T], value: T) -> None:
        """Write a property of the other side: `channel.set(api.settings.theme, "dark")`."""
        self._run(self._channel.set, _target(target), value)

    def construct(self, cls: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Make an instance on the other side: `channel.construct(api.Greeter, "hi")`; its public fields."""
        return self._answer(self._channel.construct, _target(cls), *args, **kwargs)

    def invoke_local(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method that this side exposes as the peer would, but without the wire.

        A stream comes back as a plain generator.
        """
        answer = self._run(self._channel.invoke_local, method, *args, **kwargs)
        return self.iterate(answer) if hasattr(type(answer), "__aiter__") else answer

    @property
    def state(self) -> SimpleNamespace:
        """For whatever belongs to this connection, as in the asynchronous channel."""
        return self._channel.state

    def wait(self, awaitable: Awaitable[T]) -> T:
        """What `awaitable` gives, awaited on the channel's event loop."""
        return self._portal.wait(awaitable)

    def iterate(self, iterable: AsyncIterable[T]) -> Generator[T, None, None]:
        """The values of an asynchronous iterable, for a plain `for`."""
        return self._values(aiter(iterable))

    def _values(self, iterator: Any) -> Generator[Any, None, None]:
        next_batch = getattr(iterator, "next_batch", None)
        try:
            while True:
                try:
                    values = self._run(_one, iterator) if next_batch is None else self._run(next_batch)
                except StopAsyncIteration:
                    return
                yield from values
        finally:
            if next_batch is not None:
                iterator.abandon()
            elif hasattr(iterator, "aclose"):
                self._portal.start(iterator.aclose)

    def ready(self) -> None:
        """Wait until it is known which extensions the peer knows; see the asynchronous `ready`."""
        self._run(self._channel.ready)

    @property
    def closed(self) -> bool:
        """Nothing can be called any more."""
        return self._channel.closed

    def wait_closed(self) -> None:
        """Wait until the channel is closed, by whichever side."""
        with contextlib.suppress(ChannelClosed):
            self._run(self._channel.wait_closed)


async def _read(path: Any) -> Any:
    return await path


async def _one(iterator: Any) -> list[Any]:
    return [await anext(iterator)]


def _target(path: Any) -> Any:
    if not isinstance(path, Remote):
        raise TypeError(f"a path of `channel.remote()` is wanted, not {type(path).__name__}")
    return path._kk_target


def current_channel() -> Channel:
    """The blocking view of the channel whose peer called the running `def` handler.

    Raises LookupError outside of handlers.
    """
    channel = current.current_channel()
    return Channel(channel, channel.portal)


def wait(awaitable: Awaitable[T]) -> T:
    """In a `def` handler: what `awaitable` gives, such as a call of a function that the peer passed.

    It is awaited on the event loop of the handler's channel, and ends when that closes (ChannelClosed)
    or the handler is cancelled (CallCancelled). Raises LookupError outside of handlers.
    """
    return current_channel().wait(awaitable)


def iterate(iterable: AsyncIterable[T]) -> Iterator[T]:
    """In a `def` handler: the values of an asynchronous iterable, such as a stream that the peer passed."""
    return current_channel().iterate(iterable)


# A loop in a thread ------------------------------------------------------------------------


Opener: TypeAlias = Callable[[], AbstractAsyncContextManager[asynchronous.RPCChannel]]


class _LoopThread:
    """The thread of one channel: `start` opens the channel, `close` closes it."""

    def __init__(self, opener: Opener, backend: str, backend_options: Mapping[str, Any] | None) -> None:
        self.channel: asynchronous.RPCChannel
        self.portal: Portal
        self._opener = opener
        self._backend = backend
        self._backend_options = dict(backend_options or {})
        self._thread = threading.Thread(target=self._run, name="kkrpc_py loop", daemon=True)
        self._opened = threading.Event()
        """The channel can be used, or the thread has ended."""
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._post: Post | None = None
        self._unwanted = False
        self._scope: anyio.CancelScope
        self._stopped: anyio.Event

    # For other threads -----------------------------------------------------------------------

    def start(self) -> None:
        """Raises what opening raises."""
        try:
            self._thread.start()
            self._opened.wait()
        except BaseException:
            self._tell(lambda: self._scope.cancel())
            self._join()
            raise
        if self._ended.is_set():
            self.close()
            raise ChannelClosed("the channel was closed while it was opened")

    def stop(self) -> None:
        """Have the channel closed. For finalizers too: takes no lock, and does not wait."""
        self._tell(lambda: self._stopped.set())

    def close(self) -> None:
        """Close the channel, and wait for the end of the thread.

        Raises what ended the channel, if that was an interrupt. Interrupted itself, it kills the child and
        gives the rest a few seconds.
        """
        try:
            self.stop()
        finally:
            self._join()
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame

    def _tell(self, function: Callable[[], object]) -> None:
        self._unwanted = True  # in case that there is no loop yet: it looks once it can be told
        if self._post is not None:
            self._post(function)

    def _join(self) -> None:
        if self._thread.ident is None:  # interrupted before it was started
            return
        try:
            self._ended.wait()
        except BaseException:
            self._tell(self._force)
            self._ended.wait(_FORCED_SECONDS)
            raise
        self._thread.join()

    # In the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        thread = threading.get_ident()
        loop_threads.add(thread)
        try:
            anyio.run(self._main, backend=self._backend, backend_options=self._backend_options)
        except BaseException as exc:
            self._error = exc
        finally:
            loop_threads.discard(thread)
            self._ended.set()
            self._opened.set()

    async def _main(self) -> None:
        self._stopped = anyio.Event()
        with anyio.CancelScope() as self._scope:
            self._post = current_post()
            if self._unwanted:
                return
            async with self._opener() as self.channel:
                self.channel.call_back_on_threads()
                await self._serve()

    async def _serve(self) -> None:
        async with anyio.create_task_group() as tasks:
            pool = WorkerPool(tasks, current_parking())
            portal = Portal(pool, current_post(), self._closed_error, contextvars.copy_context())
            try:
                self.portal = portal
                self._opened.set()
                await self._stopped.wait()
            finally:
                portal.close()
                pool.close()
                with anyio.CancelScope(shield=True):
                    await pool.ended()

    def _closed_error(self) -> Exception:
        try:
            self.channel.check_open()
        except KkrpcError as exc:
            return exc
        return ChannelClosed("the channel was closed by this side")

    def _force(self) -> None:
        channel = self.__dict__.get("channel")  # there is none while it is being opened
        if channel is not None and isinstance(channel.byte_stream, Child):
            channel.byte_stream.kill()
        self._scope.cancel()


class RPCChannel(Channel):
    """A channel over a byte stream, with an event loop of its own in a thread of its own.

    `byte_stream` is one of these, and belongs to the channel from then on:

    - a connected `socket.socket`;
    - a pair of what is read and what is written: descriptors, or files such as a `Popen`'s stdout and stdin,
      from which nothing has been read yet;
    - a function that makes what the asynchronous `RPCChannel` takes, called on the event loop; it may be
      an `async def`.

    ``with RPCChannel(...) as channel:`` opens it. Leaving the block ends what is pending, in whichever
    thread, with ChannelClosed, closes the byte stream, and ends the loop's thread.
    """

    def __init__(self, byte_stream: Any, **options: Unpack[Options]) -> None:
        """The options are those of the asynchronous `RPCChannel`, `backend` and `backend_options`."""
        backend, backend_options, others = _divided(options)
        self._prepare(lambda: _over(byte_stream, others), backend, backend_options)

    @classmethod
    def _opened_by(
        cls,
        endpoint: Callable[..., AbstractAsyncContextManager[Any]],
        options: Options,
        *args: Any,
        **more: Any,
    ) -> RPCChannel:
        backend, backend_options, others = _divided(options)
        channel = cls.__new__(cls)
        channel._prepare(lambda: endpoint(*args, **more, **others), backend, backend_options)
        return channel

    def _prepare(self, opener: Opener, backend: str, backend_options: Mapping[str, Any] | None) -> None:
        self._loop: _LoopThread | None = None
        self._make_loop = functools.partial(_LoopThread, opener, backend, backend_options)

    def __getattr__(self, name: str) -> Any:
        if name in {"_channel", "_portal"}:
            raise RuntimeError("enter the channel first: `with channel:`")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __enter__(self) -> RPCChannel:
        if threading.get_ident() in loop_threads:
            raise RuntimeError("a blocking channel in an `async def` handler: use the asynchronous one")
        if self._loop is not None:
            raise RuntimeError("a channel can be entered once")
        self._loop = self._make_loop()
        self._loop.start()
        self._channel = self._loop.channel
        self._portal = self._loop.portal
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """What the end of the block does."""
        if self._loop is not None:
            self._loop.close()

    @property
    def closed(self) -> bool:
        """Nothing can be called any more."""
        return self._loop is not None and self._channel.closed

    def __del__(self) -> None:
        loop: _LoopThread | None = self.__dict__.get("_loop")
        if loop is not None:
            loop.stop()


def open_process(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stderr: StderrTarget = "log",
    **options: Unpack[Options],
) -> RPCChannel:
    """A channel to a child process: ``with kk.sync.open_process([...]) as channel:``.

    The parameters are those of the asynchronous `open_process`. A function for `stderr` is called on the
    channel's thread. Ctrl+C while the child is given its time to exit kills it.
    """
    return RPCChannel._opened_by(endpoints.open_process, options, command, env=env, cwd=cwd, stderr=stderr)


def connect_tcp(
    host: str, port: int, *, ssl_context: ssl.SSLContext | None = None, **options: Unpack[Options]
) -> RPCChannel:
    """A channel to a TCP server; with `ssl_context` over TLS. Entering raises OSError if nobody answers."""
    return RPCChannel._opened_by(endpoints.connect_tcp, options, host, port, ssl_context=ssl_context)


def connect_unix(path: str | os.PathLike[str], **options: Unpack[Options]) -> RPCChannel:
    """A channel to the server at the Unix socket `path`. Entering it raises OSError where nobody listens."""
    return RPCChannel._opened_by(endpoints.connect_unix, options, path)


def _divided(options: Options) -> tuple[str, Mapping[str, Any] | None, ConnectOptions]:
    others: Any = dict(options)
    return others.pop("backend", "asyncio"), others.pop("backend_options", None), others


@contextlib.asynccontextmanager
async def _over(byte_stream: Any, options: ConnectOptions) -> AsyncGenerator[asynchronous.RPCChannel]:
    stream = byte_stream
    if isinstance(stream, socket.socket):
        if isinstance(stream, ssl.SSLSocket):
            raise TypeError("an SSLSocket cannot be taken over: use connect_tcp(..., ssl_context=...)")
        stream = SocketByteStream(stream)
    elif isinstance(stream, tuple):
        stream = DescriptorStream(*map(_taken, stream))
    elif callable(stream):
        stream = stream()
        if isinstance(stream, Awaitable):
            stream = await stream
    async with asynchronous.RPCChannel(stream, **options) as channel:
        yield channel


def _taken(file: Any) -> int:
    """The descriptor of `file`, which is ours from now on."""
    if isinstance(file, int):
        return file
    fd = os.dup(file.fileno())
    file.close()
    return fd
