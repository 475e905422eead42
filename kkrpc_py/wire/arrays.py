"""Arrays of numbers in CBOR (RFC 8746): what each tag's bytes mean, and the limits of what is read.

It owns both directions, for little-endian elements: an `array.array` is a typed array (tags 64 to 86), a
numpy array is one within tag 40, which names its shape. What arrives with a shape is a numpy array where the
application has imported numpy, and a memoryview of that shape elsewhere.
"""

from __future__ import annotations

import sys
from array import array
from math import prod
from typing import Any

import msgspec

__all__ = ["SHAPED", "TYPED", "Tensor", "array_refusal", "read_shaped", "read_typed", "tagged_array"]

SHAPED = 40
# RFC 8746, section 2.1. `l` and `L` are of different sizes on different machines, so they are never made.
_FORMATS = {64: "B", 69: "H", 70: "I", 71: "Q", 72: "b", 77: "h", 78: "i", 79: "q", 85: "f", 86: "d"}
TYPED = frozenset(_FORMATS)
_DIMENSIONS = 32
_SIZES = {code: array(code).itemsize for code in "bBhHiIlLqQfd"}
_KINDS = {**dict.fromkeys("BHILQ", "u"), **dict.fromkeys("bhilq", "i"), **dict.fromkeys("fd", "f")}
_TAGS = {(_KINDS[code], _SIZES[code]): tag for tag, code in _FORMATS.items()}
_SWAPPED = sys.byteorder == "big"


class Tensor(msgspec.Struct, frozen=True):
    """A numpy array on its way out: its bytes with their format and shape."""

    view: memoryview

    @staticmethod
    def of(numpy: Any, value: Any) -> Tensor | None:
        """None: its elements have no tag of their own."""
        dtype = value.dtype
        if (dtype.kind, dtype.itemsize) not in _TAGS or value.ndim > _DIMENSIONS:
            return None
        return Tensor(memoryview(numpy.asarray(value, dtype.newbyteorder("="), order="C")))


def array_refusal(value: Any) -> str | None:
    """Why an `array.array` cannot be sent; None if it can."""
    return None if value.typecode in _KINDS else f"an array of {value.typecode!r} has no counterpart"


def tagged_array(value: Any) -> Any:
    """What is written for an `array.array` or a `Tensor`."""
    import cbor2  # late, as the codec itself

    if type(value) is Tensor:
        view = value.view
        shape = list(view.shape or ())
        numbers = array(view.format or "B")
        if view.nbytes:
            numbers.frombytes(view.cast("B"))
        return cbor2.CBORTag(SHAPED, [shape, tagged_array(numbers)])
    kind = _KINDS[value.typecode], value.itemsize
    if _SWAPPED:
        value = value[:]
        value.byteswap()
    return cbor2.CBORTag(_TAGS[kind], value.tobytes())


def read_typed(tag: int, content: Any) -> array[Any]:
    """A typed array; ValueError where the bytes are none."""
    if type(content) is not bytes:
        raise ValueError("a typed array must be a byte string")
    found = array(_FORMATS[tag])
    found.frombytes(content)  # ValueError for a part of an element
    if _SWAPPED:
        found.byteswap()
    return found


def read_shaped(content: Any) -> Any:
    """A numpy array, or a memoryview; ValueError where the content is none."""
    shape, numbers = content
    if type(shape) not in (list, tuple) or type(numbers) is not array or len(shape) > _DIMENSIONS:
        raise ValueError("an array with a shape must be a list of sizes and a typed array")
    if any(type(size) is not int or size < 0 for size in shape) or prod(shape) != len(numbers):
        raise ValueError("the shape of an array must fit its elements")
    numpy = sys.modules.get("numpy")  # nothing is imported for what a peer sends
    if numpy is not None and hasattr(numpy, "frombuffer"):
        return numpy.frombuffer(numbers, dtype=numbers.typecode).reshape(tuple(shape))
    view = memoryview(numbers)
    if len(shape) == 1 or not len(numbers):
        return view  # a memoryview has no empty dimensions
    flat: Any = view.cast("B")
    return flat.cast(numbers.typecode, list(shape))
