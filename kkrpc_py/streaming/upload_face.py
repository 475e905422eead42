"""`UploadFace`: what a client calls to upload (UPL). What becomes of it is the book's of open ids."""

from __future__ import annotations

from typing import Any

import anyio
from msgspec import UNSET

from kkrpc_py.channel.current import current_channel
from kkrpc_py.channel.expose import inline, namespace
from kkrpc_py.channel.stream import StreamCall
from kkrpc_py.errors import ErrorValue, KkrpcError, RemoteError, error_from_wire, error_to_wire
from kkrpc_py.streaming.inbound import Inbound, Inbounds, ended_upload, unknown_upload
from kkrpc_py.streaming.uploaded import Streamed, Written

__all__ = ["UploadFace"]

_OWN_FIELDS = ("name", "message", "stack", "cause")


@namespace
class UploadFace:
    """`streams.upload` as a peer sees it."""

    def __init__(self, inbounds: Inbounds) -> None:
        self._inbounds = inbounds

    async def stream(self, name: Any, id: Any, chunks: Any) -> None:
        """Upload a stream argument; answered when the reader has met its end.

        Raises UnknownStream, StreamClosed where the id has an upload or its reader wants no more, and the
        error that the stream ended in.
        """
        if not isinstance(chunks, StreamCall):
            raise TypeError(
                "the chunks of an upload are a stream argument; upload.write takes them one by one"
            )
        source = Streamed(chunks)
        try:
            inbound = self._inbounds.find_named(name, id)
            if inbound.uploader is not None:
                raise ended_upload()
            inbound.uploader = source
            try:
                allowed = await inbound.allowed()
            except BaseException:
                inbound.uploader = None
                raise
            if not allowed:
                inbound.uploader = None
                raise unknown_upload()
            if inbound.done:
                raise ended_upload()
        except BaseException:
            source.cancel()
            raise
        inbound.begin(source)
        try:
            await inbound.over.wait()
        except anyio.get_cancelled_exc_class():
            if not inbound.session.channel.closed:
                source.give_up()
            raise
        _tell(inbound)

    @inline
    def write(self, id: Any, seq: Any, chunk: Any) -> Any:
        """Upload one chunk, numbered from 1 on; the answer is the highest number that may be sent now.

        It comes once there is room for the next one. A chunk that was taken already is answered so again.
        """
        source = self._written(id)
        source.put(seq, chunk)
        if source.allowed and source.credit > seq:
            return source.credit
        return source.room_beyond(seq)

    @inline
    def close(self, id: Any) -> Any:
        """All chunks have been written; answered when the reader has met the end."""
        inbound = self._inbounds.find(id)
        source = self._written(id)
        source.close()

        async def wait() -> None:
            await source.permitted()
            await inbound.over.wait()
            _tell(inbound)

        return wait()

    @inline
    def error(self, id: Any, error: Any) -> Any:
        """After what has been written the reader raises this error: a text, or a mapping with a `message`."""
        source = self._written(id)
        source.fail(_exception(error))
        return source.permitted()

    def _written(self, id: Any) -> Written:
        inbound = self._inbounds.find(id)
        if inbound.uploader is None:
            inbound.uploader = Written(inbound)
        if not isinstance(inbound.uploader, Written):
            raise ended_upload()
        return inbound.uploader


def _tell(inbound: Inbound) -> None:
    if inbound.outcome is not None:
        # Another object than the one that the reader's loop has raised.
        raise error_from_wire(error_to_wire(inbound.outcome))


def _exception(error: Any) -> KkrpcError:
    """The error that a peer sent as an argument; what it is no error by is its text."""
    if isinstance(error, RemoteError):
        return error
    if type(error) is not dict:
        return RemoteError("Error", error if type(error) is str else str(error))
    name, message, stack = error.get("name"), error.get("message"), error.get("stack")
    value = ErrorValue(
        name if type(name) is str and name else "Error",
        message if type(message) is str else "",
        stack if type(stack) is str else None,
        error.get("cause", UNSET),
        {key: field for key, field in error.items() if type(key) is str and key not in _OWN_FIELDS},
    )
    return current_channel().error_from_wire(value)
