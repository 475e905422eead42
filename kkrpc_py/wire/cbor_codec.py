"""CBOR to Python values and back, exactly (VAL-4, VAL-5, FRM-8)."""

from __future__ import annotations

import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import cbor2

from kkrpc_py.limits import Limits
from kkrpc_py.wire.values import Check, Rules, digits_bound, holds_unpaired_surrogate, plain_bytes

__all__ = ["CborError", "CborReader", "CborWriter"]

_ENVELOPE_DEPTH = 2


class CborError(ValueError):
    """The payload is not one CBOR item within the bounds, of the types and tags agreed on."""


class CborWriter:
    def __init__(self, limits: Limits) -> None:
        leaves: dict[type, Check | None] = dict.fromkeys(
            (type(None), bool, int, float, bytes, bytearray, datetime.date, UUID, Fraction, complex, Decimal)
        )
        leaves |= {
            str: holds_unpaired_surrogate,
            memoryview: plain_bytes,
            datetime.datetime: _datetime_refusal,
        }
        self._rules = Rules(
            leaves=leaves,
            containers=(dict, list, tuple, set, frozenset),
            text_keys=False,
            max_int=digits_bound(limits.digits),
            depth=limits.depth - _ENVELOPE_DEPTH,
            items=limits.frame,
            finite=False,
        )

    def fit(self, value: Any, root: str) -> Any:
        if self._rules.accepts(value) is None:
            self._rules.demand(value, root)
        return value

    def fit_checked(self, value: Any, root: str) -> Any:
        self._rules.demand(value, root)
        return value

    def dumps(self, mapping: dict[str, Any]) -> bytes:
        return cbor2.dumps(mapping, encoders=_ENCODERS)


def _datetime_refusal(value: datetime.datetime) -> str | None:
    if value.tzinfo is None:
        return "it has no time zone, and CBOR's dates need one"
    return None


def _encode_memoryview(encoder: cbor2.CBOREncoder, value: memoryview) -> None:
    encoder.encode_bytes(value.tobytes())


_ENCODERS: dict[type, Any] = {memoryview: _encode_memoryview}


class CborReader:
    def __init__(self, limits: Limits) -> None:
        self._depth = limits.depth

    def loads(self, payload: bytes) -> Any:
        try:
            return cbor2.loads(
                payload, max_depth=self._depth, allow_indefinite=False, allow_duplicate_keys=False
            )
        except Exception as error:
            raise CborError(str(error)) from None

    def salvage(self, payload: bytes) -> tuple[Any, Any]:
        return None, None
