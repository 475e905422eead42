"""What two peers agree on before anything else: the extensions (HEL-1 to HEL-7).

This module owns the names of the features and the shape of the hello; when it is sent and what
follows from it is `core.connection`'s.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BATCH",
    "CALLBACK",
    "CANCEL",
    "CBOR",
    "CREDIT",
    "KWARGS",
    "METADATA",
    "METHOD",
    "RESULT",
    "STREAM_ARGUMENTS",
    "hello_payload",
    "read_hello",
]

METHOD = "kkrpc.hello"

CREDIT = "credit"
BATCH = "batch"
RESULT = "result"
CANCEL = "cancel"
CBOR = "cbor"
CALLBACK = "callback"
STREAM_ARGUMENTS = "stream-arguments"
KWARGS = "kwargs"
METADATA = "metadata"

_PROTOCOL = 1


def hello_payload(features: frozenset[str]) -> dict[str, Any]:
    """The one argument of the hello, and the result of its answer (HEL-2)."""
    return {"protocol": _PROTOCOL, "features": sorted(features)}


def read_hello(payload: Any) -> frozenset[str] | None:
    """The features that the peer names; None where this is no hello (HEL-4).

    A feature or field that this side does not know is no error: it belongs to a later version.
    """
    if not isinstance(payload, dict):
        return None
    protocol = payload.get("protocol")
    if type(protocol) is not int or protocol != _PROTOCOL:
        return None
    features = payload.get("features")
    if not isinstance(features, list):
        return None
    return frozenset(name for name in features if isinstance(name, str))
