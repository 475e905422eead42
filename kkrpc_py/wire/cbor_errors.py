"""What `cbor_codec` says of a payload that it does not read; apart, since the codec is imported late."""

from __future__ import annotations

__all__ = ["CborError", "CborRefused"]


class CborError(ValueError):
    """The payload is not one well-formed CBOR item."""


class CborRefused(CborError):
    """The item is well-formed, but passes a bound, or holds a tag or value that is not agreed on."""
