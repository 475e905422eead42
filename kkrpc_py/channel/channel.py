"""`RPCChannel`: the running thing.

It owns the tasks of one connection (a reader, a writer, and the workers), how they end, and what
they tell each other. The protocol is `core.connection`'s, handlers are `channel.dispatch`'s,
and what callers hold is in `channel.call` and `channel.stream`.
"""

from __future__ import annotations

import contextvars
import functools
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import SimpleNamespace, TracebackType
from typing import Any, ParamSpec, TypeVar, get_args, overload

import anyio
from anyio.abc import ByteReceiveStream, TaskGroup

from kkrpc_py.channel.call import CallHook, MetadataProvider, PendingCall, checked_timeout
from kkrpc_py.channel.callbacks import HeldCallbacks
from kkrpc_py.channel.current import current
from kkrpc_py.channel.declarations import Property
from kkrpc_py.channel.dispatch import INLINE_TURN, Dispatcher
from kkrpc_py.channel.expose import Exposed
from kkrpc_py.channel.holding import Holding
from kkrpc_py.channel.interceptors import Interceptor
from kkrpc_py.channel.local import invoke_local
from kkrpc_py.channel.parking import Parking, current_parking
from kkrpc_py.channel.portal import Portal
from kkrpc_py.channel.proxy import Remote, construct, set_
from kkrpc_py.channel.stream import StreamReceiver
from kkrpc_py.channel.threads import Post, Threads, current_post
from kkrpc_py.channel.workers import WorkerPool
from kkrpc_py.channel.writer import Writer
from kkrpc_py.core import events as ev
from kkrpc_py.core.calls import OutgoingCall
from kkrpc_py.core.connection import Connection
from kkrpc_py.errors import ChannelClosed, ErrorRegistry, ErrorValue, KkrpcError, error_from_wire
from kkrpc_py.limits import Limits
from kkrpc_py.wire.codec import Codec
from kkrpc_py.wire.lowering import DecodeHook, EncodeHook

__all__ = ["RPCChannel"]

_log = logging.getLogger("kkrpc_py")

T = TypeVar("T")
P = ParamSpec("P")

_READ_BYTES = 1 << 18
_LAST_WORDS_SECONDS = 0.5
"""What the reader has, once writing has failed, to read what the peer had sent before."""


class RPCChannel:
    """Both sides of a conversation over one byte stream.

    ``async with RPCChannel(byte_stream, expose=api) as channel:`` runs it. `byte_stream` is an
    `anyio.abc.ByteStream`, or an `ObjectStream` of bytes or str whose items are whole frames.
    Leaving the block ends every call and stream, closes the byte stream, and raises the block's
    own exception, if any, as it is.
    """

    __kkrpc_unlisted__ = True

    def __init__(
        self,
        byte_stream: Any,
        *,
        expose: Any = None,
        interceptors: Sequence[Interceptor] = (),
        timeout: float | None = None,
        codec: Codec = "auto",
        hello: bool = True,
        limits: Limits | None = None,
        tracebacks: bool = False,
        passthrough: Callable[[bytes], None] | None = None,
        encode: EncodeHook | None = None,
        decode: DecodeHook | None = None,
        metadata: MetadataProvider | None = None,
        on_call: CallHook | None = None,
        errors: Iterable[type[Exception]] = (),
    ) -> None:
        """Nothing is sent or read before the `async with` block begins.

        :param expose: the object or dict whose methods the peer may call; see `docs/security.md`.
        :param interceptors: run around every handler, the first one outermost.
        :param timeout: seconds after which a call without an answer raises CallTimeout; None: never.
        :param codec: "auto" writes JSON where it is exact and CBOR where both sides know it, and answers a
            peer that writes superjson in that; "superjson" writes it from the start, which a kkrpc peer reads
            by itself and which carries more than JSON.
        :param hello: offer the extensions first; a server that is called leaves it to its client.
        :param tracebacks: send the tracebacks of handlers' errors to the peer.
        :param passthrough: gets each line that is no message, without its line feed; by default
            it is logged.
        :param encode: gets each value that nothing else knows how to send, and returns what is sent in its
            place, or NotImplemented.
        :param decode: gets each mapping that arrives within a value, the inner ones first, and returns what
            takes its place.
        :param metadata: gives what each call tells the peer beside its arguments.
        :param on_call: is told of each call before it is sent, and when it is over.
        :param errors: exception classes of yours: an error of the peer that has the name of one is raised as
            an instance of it, too.
        """
        if codec not in get_args(Codec):
            raise ValueError(f"codec is one of {', '.join(get_args(Codec))}, not {codec!r}")
        hooks = {"encode": encode, "decode": decode, "metadata": metadata, "on_call": on_call}
        for name, hook in hooks.items():
            if hook is not None and not callable(hook):
                raise TypeError(f"{name} is a function, not {hook!r}")
        self.limits = limits if limits is not None else Limits()
        self.timeout = checked_timeout(timeout)
        self._errors = ErrorRegistry(errors)
        self.metadata, self.on_call, self.encode = metadata, on_call, encode
        self.state = SimpleNamespace()
        """For whatever belongs to this connection: handlers reach it by `current_channel().state`."""
        self.callbacks = HeldCallbacks(self, self.limits.callbacks)
        self._holding = Holding(self, self.callbacks)
        self.connection = Connection(
            codec=codec, hello=hello, limits=self.limits, holder=self._holding, encode=encode, decode=decode
        )
        self.post: Post
        self.parking: Parking
        self.calling = self  # what a proxy asks its host for
        self._stream = byte_stream
        self._receive: Callable[[], Awaitable[bytes]] = (
            functools.partial(byte_stream.receive, _READ_BYTES)
            if isinstance(byte_stream, ByteReceiveStream)
            else self._receive_item
        )
        self.exposed = Exposed(expose)
        self._interceptors = tuple(interceptors)
        self._tracebacks = tracebacks
        self._passthrough = passthrough
        self._lost_hook: Callable[[ChannelClosed], Awaitable[ChannelClosed]] | None = None
        self._preamble = b""
        self._error: KkrpcError | None = None
        self._when_closed: dict[Callable[[], None], None] = {}
        self._crash: BaseException | None = None
        self._entered = self._stopping = self._ended_cleanly = False
        self._lost_error: KkrpcError | None = None
        self._reader_scope = anyio.CancelScope(shield=True)

    # For those who make channels -------------------------------------------------------------

    def describe_loss(self, hook: Callable[[ChannelClosed], Awaitable[ChannelClosed]]) -> None:
        """Let `hook` say more of why the byte stream ended, such as a child's exit code."""
        self._lost_hook = hook

    def begin_with(self, preamble: bytes) -> None:
        """Write `preamble` before the first message."""
        self._preamble = preamble

    def attach(self, path: str, namespace: Any) -> None:
        """Expose `namespace` at `path` beside the API. Raises ValueError where something is there already."""
        self.exposed.attach(path, namespace, self if self._entered else None)

    def when_closed(self, tell: Callable[[], None]) -> None:
        """Call `tell`, which raises nothing, once nothing can be called any more; maybe at once."""
        if self.closed:
            tell()
        else:
            self._when_closed[tell] = None

    def forget_closed(self, tell: Callable[[], None]) -> None:
        """Do not call `tell` any more."""
        self._when_closed.pop(tell, None)

    def call_back_on_threads(self) -> None:
        """Run plain functions that the peer calls back on a thread, one after the other; not on the loop.

        Called in the channel's block, before it has passed any.
        """
        self._check_entered()
        self._dispatcher.callback_threads = Threads(1, self.post, spare=self.limits.threads)

    # Use -----------------------------------------------------------------------------------

    @overload
    def remote(self) -> Any: ...

    @overload
    def remote(self, api: Callable[..., T], /) -> T: ...

    def remote(self, api: Any = None) -> Any:
        """The other side's API: `await channel.remote().math.add(1, 2)`.

        With a class, `channel.remote(API)` has its types, and what arrives is converted to them; see
        docs/typing.md.
        """
        if api is None:
            return Remote(self, "")
        from kkrpc_py.channel.typed import typed_remote  # with the machinery of annotations

        return typed_remote(self, api)

    async def set(self, target: Property[T], value: T) -> None:
        """Write a property of the other side: `await channel.set(api.settings.theme, "dark")`.

        Raises what the peer says where it does not allow that.
        """
        await set_(target, value)

    async def construct(self, cls: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Make an instance on the other side: `await channel.construct(api.Greeter, "hi")`.

        What comes back are its public fields, by value.
        """
        return await construct(cls, list(args), kwargs)

    async def invoke_local(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a method that this side exposes as the peer would, but without the wire.

        It takes the same way: exposure, interceptors, validation; and raises what the handler raises. A
        stream comes back as an async iterator to be iterated or closed.
        """
        RPCChannel.check_open(self)  # of this side alone, whatever may be asked of the peer
        token = current.set(self)
        try:
            return await invoke_local(self._dispatcher, method, list(args), kwargs)
        finally:
            current.reset(token)

    async def ready(self) -> None:
        """Wait until it is known which extensions the peer knows.

        Returns after `Limits.hello_seconds` at the latest: a stock peer may never say. Raises
        ChannelClosed.
        """
        self._check_entered()
        await self.settled()
        self.check_open()

    @property
    def byte_stream(self) -> Any:
        """What the channel runs over; that of `open_process` has `pid` and `exit_code`."""
        return self._stream

    @property
    def closed(self) -> bool:
        """Nothing can be called any more, and everything that was pending has failed."""
        return self._error is not None

    async def wait_closed(self) -> None:
        """Wait until the channel is closed, by whichever side, and its handlers have been told to stop."""
        self._check_entered()
        await self._stopped_event.wait()

    async def aclose(self) -> None:
        """Close the channel from inside its block: what is pending fails with ChannelClosed."""
        self._check_entered()
        await self._shut()

    # For what belongs to the channel -----------------------------------------------------------

    def on_loop(self) -> bool:
        return threading.get_ident() == self._loop_thread

    def error_from_wire(self, error: ErrorValue) -> KkrpcError:
        return error_from_wire(error, self._errors)

    # Life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> RPCChannel:
        if self._entered:
            raise RuntimeError("a channel can be entered once")
        self._entered = True
        self.exposed.tell_attached(self)
        self._loop_thread = threading.get_ident()
        self.post = current_post()
        self.parking = current_parking()
        self._stopped_event = anyio.Event()
        self._settled_event = anyio.Event()
        self._writer = Writer(self._stream, self.connection, self.parking, self._preamble)
        self._read_event = anyio.Event()
        # Two pools: a generator keeps its thread while its consumer may be calling a `def`.
        self._threads = Threads(self.limits.threads, self.post)
        self._generator_threads = self._holding.generator_threads = Threads(self.limits.threads, self.post)
        self._task_group: TaskGroup = anyio.create_task_group()
        await self._task_group.__aenter__()
        self._pool = WorkerPool(self._task_group, self.parking)
        context = contextvars.copy_context()
        context.run(current.set, self)
        self.portal = Portal(self._pool, self.post, self._closed_error, context)
        self._dispatcher = Dispatcher(
            self,
            self.exposed,
            self._interceptors,
            self._pool,
            self._threads,
            self._generator_threads,
            tracebacks=self._tracebacks,
        )
        self._holding.send = self._dispatcher.produce
        self._task_group.start_soon(self._read, name="kkrpc_py reader")
        self._task_group.start_soon(self._write, name="kkrpc_py writer")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The channel's own tasks are shielded: they end here, in order, and never with an
        # exception, so that the group has nothing to wrap around the block's own.
        interruption: BaseException | None = None
        try:
            await self._shut()
            with anyio.CancelScope(shield=True):
                self._reader_scope.cancel()
                await self._read_event.wait()
                await self._pool.ended()
        except BaseException as interrupted:
            # asyncio's own `task.cancel()` goes through anyio's shields, and so does Ctrl+C.
            interruption = interrupted
            await self._abandon()
        try:
            await self._task_group.__aexit__(None, None, None)
        except anyio.get_cancelled_exc_class() as cancelled:
            # The block is cancelled from outside. That is its own exception already, unless it
            # left by another one.
            if exc is None and interruption is None:
                interruption = cancelled
        self.connection.forget()
        if self._crash is not None:
            raise self._crash
        if interruption is not None:
            raise interruption

    async def _abandon(self) -> None:
        """End everything without waiting for anybody but the handlers."""
        self._lose(ChannelClosed("the channel was closed by this side"))
        self._stop()
        self._writer.scope.cancel()
        self._reader_scope.cancel()
        try:
            await anyio.aclose_forcefully(self._stream)
        except BaseException:  # whoever interrupts again gets what he wanted: it is over
            _log.debug("closing the byte stream was interrupted", exc_info=True)

    def _lose(self, error: KkrpcError) -> None:
        """Nothing more can be called, and everything that was pending fails now."""
        if self._error is not None:
            return
        self._error = error
        for call in self.connection.close():
            self._fail(call, self._closed_error())
        self._settled_event.set()
        self._writer.wake_waiting()
        while self._when_closed:  # one may call off another
            self.forget_closed(tell := next(iter(self._when_closed)))
            tell()

    def _stop(self) -> None:
        """Cancel everything that runs for the peer; the writer ends when it has nothing left."""
        if self._stopping:
            return
        self._stopping = True
        self.portal.close()
        self._pool.close()
        self._dispatcher.wake_producers()
        self._stopped_event.set()
        self._writer.stop()

    async def _shut(self) -> None:
        """End everything but the tasks, and close the byte stream: bounded, and not to be cancelled."""
        self._lose(ChannelClosed("the channel was closed by this side"))
        self._stop()
        with anyio.CancelScope(shield=True):
            self._threads.close()
            self._generator_threads.close()
            if self._dispatcher.callback_threads is not None:
                self._dispatcher.callback_threads.close()
            with anyio.move_on_after(self.limits.drain_seconds):
                await self._writer.finished.wait()
            self._writer.scope.cancel()
            with anyio.move_on_after(self.limits.drain_seconds) as closing:
                await self._stream.aclose()
            if closing.cancelled_caught:
                _log.warning("the byte stream did not close in time")

    def _closed_error(self) -> KkrpcError:
        assert self._error is not None
        return ChannelClosed.because_of(self._error)

    def crash(self, exc: BaseException) -> None:
        self._crash = exc
        self._lose(ChannelClosed("the channel was interrupted"))
        self._stop()
        self._task_group.cancel_scope.cancel()

    def _task_failed(self, exc: BaseException) -> None:
        # A cancellation was aimed at the task alone, on asyncio: then the channel ends, in order.
        if not isinstance(exc, anyio.get_cancelled_exc_class()):
            self.crash(exc)

    # Reading -------------------------------------------------------------------------------

    async def _read(self) -> None:
        # The workers are started from here, and their handlers inherit it.
        current.set(self)
        try:
            with self._reader_scope:
                error = await self._read_until_lost()
                if self._lost_hook is not None and isinstance(error, ChannelClosed):
                    error = await self._lost_hook(error)
                self._lose(error)
                if self._ended_cleanly:
                    await self._finish_running()
        except BaseException as exc:
            self._task_failed(exc)
        finally:
            self._lose(ChannelClosed("the reader was cancelled"))
            self._stop()
            self._read_event.set()

    async def _finish_running(self) -> None:
        """The peer has sent its last byte, and may still want the answers to what it asked."""
        async with anyio.create_task_group() as tasks:

            async def unless_broken() -> None:
                await self._writer.finished.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(unless_broken)
            with anyio.move_on_after(self.limits.finish_seconds):
                await self._pool.finished()
            tasks.cancel_scope.cancel()

    async def _read_until_lost(self) -> KkrpcError:
        try:
            receive_each = getattr(self._stream, "receive_each", None)
            if receive_each is not None:  # the library's own: without a turn of the loop in between
                await receive_each(_READ_BYTES, self._take)
            else:
                while self._take(await self._receive()):
                    pass
        except anyio.EndOfStream:
            clean = self._apply(self.connection.receive_eof())
            # Where closing takes both directions with it, nobody waits for answers.
            self._ended_cleanly = clean and getattr(self._stream, "half_closes", True)
            if self._lost_error is not None:
                closed = ChannelClosed("the peer ended inside a message")
                closed.__cause__ = self._lost_error
                return closed
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as exc:
            return ChannelClosed(f"the byte stream broke: {str(exc) or type(exc).__name__}")
        except Exception as exc:
            _log.exception("the reader failed")
            return ChannelClosed(f"the reader failed: {type(exc).__name__}")
        return self._lost_error or ChannelClosed("the peer closed the channel")

    def _take(self, data: bytes) -> bool:
        """What the peer has sent; False: nothing more is to be read."""
        return self._apply(self.connection.receive_data(data))

    async def _receive_item(self) -> bytes:
        """One item of an object stream: whole frames, of which the last line may lack its line feed."""
        item = await self._stream.receive()
        data: bytes = item.encode() if isinstance(item, str) else item
        return data + b"\n"  # behind a whole frame it is an empty line, which is skipped

    def _apply(self, events: list[ev.Event]) -> bool:
        """Carry out what has happened. False: the byte stream cannot be read on."""
        reactions = self._reactions
        self._dispatcher.inline_turns = INLINE_TURN
        for event in events:
            reactions[type(event)](event)
        if self.connection.outbox.size:
            self.kick()
        self._writer.relieve()  # a cancelled stream's frames may have left
        return self._lost_error is None

    @functools.cached_property
    def _reactions(self) -> dict[type[ev.Event], Callable[[Any], None]]:
        """What is done about each kind of event."""
        return {
            ev.Received: lambda event: event.call.owner.put(event.values, event.size),
            ev.Returned: lambda event: event.call.owner.set_value(event.value),
            ev.CallRequested: lambda event: self._dispatcher.start(
                event.call, event.args, event.kwargs, event.meta
            ),
            ev.ConstructRequested: lambda event: self._dispatcher.construct(
                event.call, event.args, event.kwargs, event.meta
            ),
            ev.PropertyRequested: lambda event: self._dispatcher.property(
                event.call, event.path, event.value
            ),
            ev.CallbackRequested: lambda event: self._dispatcher.call_back(
                event.call, event.passed, event.args, event.kwargs
            ),
            ev.Credited: lambda event: self._dispatcher.credit(event.call),
            ev.Opened: lambda event: self._open(event.call),
            ev.Stopped: self._end,
            ev.Failed: self._end_failed,
            ev.Cancelled: lambda event: self._dispatcher.cancel(event.call),
            ev.Settled: lambda event: self._settled_event.set(),
            ev.Noticed: self._notice,
            ev.Violated: self._warn_of_violation,
            ev.Lost: self._stop_reading,
        }

    def _open(self, call: OutgoingCall) -> None:
        pending: PendingCall = call.owner
        call.owner = receiver = StreamReceiver(self, call)
        pending.set_stream(receiver)

    def _fail(self, call: OutgoingCall, error: ErrorValue | KkrpcError) -> None:
        owner = call.owner
        if isinstance(owner, StreamReceiver):
            owner.fail(error)
        elif owner is not None:
            owner.set_error(error)

    def _end_failed(self, failed: ev.Failed) -> None:
        self._fail(failed.call, failed.error)
        failed.call.owner = None

    def _end(self, stopped: ev.Stopped) -> None:
        owner, stopped.call.owner = stopped.call.owner, None  # what it holds is not kept by a cycle
        if isinstance(owner, StreamReceiver):
            owner.end(stopped.result)

    def _stop_reading(self, lost: ev.Lost) -> None:
        self._lost_error = lost.error

    def _warn_of_violation(self, violation: ev.Violated) -> None:
        # The first, the tenth, the hundredth: a peer must not be able to flood the log. Once it is
        # over, this side has forgotten what the peer may still answer.
        if self._error is None and str(violation.number).rstrip("0") == "1":
            _log.warning("the peer broke a rule (%d so far): %s", violation.number, violation.reason)

    def _notice(self, noise: ev.Noticed) -> None:
        if self._passthrough is None:
            _log.info(
                "not a message (%s): %s", noise.reason, noise.data[:200].decode(errors="backslashreplace")
            )
            return
        try:
            self._passthrough(noise.data)
        except Exception:
            _log.exception("the passthrough hook failed")

    # Writing -------------------------------------------------------------------------------

    async def _write(self) -> None:
        reason = "the writer was cancelled"
        try:
            reason = await self._writer.run()
            if reason:
                # Most often the reader sees the end too, with what came before it, and knows more.
                with anyio.move_on_after(_LAST_WORDS_SECONDS, shield=True):
                    await self._stopped_event.wait()
        except BaseException as exc:
            self._task_failed(exc)
        finally:
            if reason:
                self._lose(ChannelClosed(reason))
                self._stop()

    def kick(self) -> None:
        self._writer.kick()

    @property
    def congested(self) -> bool:
        return self._writer.congested

    @property
    def control_congested(self) -> bool:
        return self._writer.control_congested

    @property
    def stopping(self) -> bool:
        return self._stopping

    def when_clear(self, wake: Callable[[], None], place: int | None) -> int:
        return self._writer.when_clear(wake, place)

    def forget(self, wake: Callable[[], None]) -> None:
        self._writer.forget(wake)

    async def room_changed(self) -> None:
        await self._writer.room_changed()

    def check_open(self) -> None:
        """Raise ChannelClosed where the peer can be asked nothing."""
        if self._error is not None:
            raise self._closed_error()
        self._check_entered()

    def _check_entered(self) -> None:
        if not self._entered:
            raise RuntimeError("enter the channel first: `async with channel:`")

    async def settled(self) -> None:
        if self.connection.pending:
            with anyio.move_on_after(self.limits.hello_seconds):
                await self._settled_event.wait()
            self.connection.give_up_hello()
