"""The keyword options that every way to a channel takes. What they mean is `RPCChannel`'s."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypedDict

from kkrpc_py.channel.call import CallHook, MetadataProvider
from kkrpc_py.channel.interceptors import Interceptor
from kkrpc_py.limits import Limits
from kkrpc_py.wire.codec import Codec
from kkrpc_py.wire.lowering import DecodeHook, EncodeHook

__all__ = ["ConnectOptions", "ServeOptions"]


class ServeOptions(TypedDict, total=False):
    """The keyword options of `RPCChannel` that every way to a channel takes as well."""

    interceptors: Sequence[Interceptor]
    timeout: float | None
    codec: Codec
    hello: bool
    limits: Limits | None
    tracebacks: bool
    passthrough: Callable[[bytes], None] | None
    encode: EncodeHook | None
    decode: DecodeHook | None
    metadata: MetadataProvider | None
    on_call: CallHook | None
    errors: Iterable[type[Exception]]


class ConnectOptions(ServeOptions, total=False):
    """The same for the side that connects, which may expose something too."""

    expose: Any
