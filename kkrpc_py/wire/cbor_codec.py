"""Python values to CBOR and back, exactly (VAL-6, VAL-7).

It owns what CBOR can carry and the bounds on what a peer's CBOR may hold. It does not own messages
(`classic`) or frames (`framing`).

cbor2 does the work. It changes some values in silence (a NaN of Decimal becomes one of float, a
memoryview a list), ignores bytes after the item, and crashes on a value nested deep enough: what
reaches it was checked first, and what it refuses is read again by `cbor_careful`.

Lengths are definite: a message is complete before it is written, so no writer needs the others.
"""

from __future__ import annotations

import io
import sys
from array import array
from collections.abc import Callable
from decimal import Decimal
from ipaddress import IPv6Address, IPv6Interface
from typing import Any

import cbor2

from kkrpc_py.limits import Limits
from kkrpc_py.wire.arrays import Tensor, array_refusal, tagged_array
from kkrpc_py.wire.cbor_careful import CarefulReader, MalformedCbor, skeleton
from kkrpc_py.wire.cbor_errors import CborError, CborRefused
from kkrpc_py.wire.cbor_tags import RefusedContent, TaggedTypes, tagged_form
from kkrpc_py.wire.values import Check, Rules, digits_bound, holds_unpaired_surrogate, plain_bytes

__all__ = ["CborReader", "CborWriter"]

# The message, its args, and the mapping in them: what every value is nested in already.
_ENVELOPE_DEPTH = 2
# cbor2 writes by recursion without a guard, and the careful reader is Python. Both have room for this.
_MAX_DEPTH = 300
_TAGGED: frozenset[type] = frozenset((Decimal, IPv6Address, IPv6Interface))
_CONVERTED: frozenset[type] = _TAGGED | {memoryview, array, Tensor}


class CborWriter:
    """Checks values and writes messages."""

    def __init__(self, limits: Limits) -> None:
        leaves: dict[type, Check | None] = dict.fromkeys(
            (type(None), bool, int, float, bytes, bytearray)  # float: NaN and the infinities too
        )
        leaves |= {str: holds_unpaired_surrogate, memoryview: plain_bytes}
        leaves |= TaggedTypes(limits.digits).leaves | {array: array_refusal, Tensor: None}
        self._rules = Rules(
            leaves=leaves,
            containers=(dict, list, tuple, set, frozenset),
            keys="value",
            max_int=digits_bound(limits.digits),
            depth=_depth(limits) - _ENVELOPE_DEPTH,
            items=limits.frame,
            finite=False,
        )
        self.types = self._rules.known
        """What is written as what it is."""

    def fit(self, value: Any, root: str) -> Any:
        """`value`, or what cbor2 writes in its place; `NotSerializable` if CBOR cannot carry it.

        Text that is no Unicode passes; `dumps` tells of it at less cost.
        """
        found = self._rules.accepts(value)
        if found is None:
            self._rules.demand(value, root)
        elif found.isdisjoint(_CONVERTED):
            return value
        return _converted(value)

    def fit_checked(self, value: Any, root: str) -> Any:
        """As `fit`, with nothing left for later."""
        self._rules.demand(value, root)
        return _converted(value)

    def dumps(self, mapping: Any) -> bytes:
        """The payload of a message, or of one value, that was fitted; `UnicodeEncodeError` as `fit` says."""
        return cbor2.dumps(mapping)


def _depth(limits: Limits) -> int:
    return min(limits.depth, _MAX_DEPTH)


def _converted(value: Any) -> Any:
    kind = type(value)
    if kind in _TAGGED:
        return tagged_form(value)
    if kind is memoryview:
        return value.tobytes()
    if kind is array or kind is Tensor:
        return tagged_array(value)
    if kind is dict:
        return {_converted(key): _converted(item) for key, item in value.items()}
    if kind in (list, tuple, set, frozenset):
        # What stands for a set's member or a key must be hashable, and is: tags around tuples.
        return kind(map(_converted, value))
    return value


def _numpy_types() -> tuple[type, ...]:
    """The type of arrays with a shape; where numpy is imported later, they take the slower way."""
    numpy = sys.modules.get("numpy")
    found = getattr(numpy, "ndarray", None)
    return (found,) if isinstance(found, type) else ()


class CborReader:
    """Parses a peer's CBOR within bounds. Each payload is decoded on its own."""

    def __init__(self, limits: Limits) -> None:
        self._depth = _depth(limits)
        self._tags = TaggedTypes(limits.digits)
        max_int = digits_bound(limits.digits)
        # Of what comes without a tag, only these can be outside of what was agreed on.
        self._rules = Rules(
            leaves={
                **dict.fromkeys((type(None), bool, int, float, str, bytes, array, memoryview)),
                **dict.fromkeys(self._tags.leaves),
                **dict.fromkeys(_numpy_types()),
            },
            containers=(dict, list, tuple, set, frozenset),
            keys="known",  # cbor2 takes text and bytes alone
            max_int=max_int,
            late_ints=max_int >= 2**64,  # without a tag there are none above, and tags have their readers
            depth=self._depth,
            items=limits.frame,
            finite=False,
        )
        tags = _BUILT_IN_TAGS | self._tags.readers.keys()
        # Made once, since that takes half as long as a small message.
        self._decoder = cbor2.CBORDecoder(
            io.BytesIO(),
            tag_hook=self._unknown_tag,
            semantic_decoders={tag: self._semantic_reader(tag) for tag in tags},
            max_depth=2 * self._depth + 1,  # tags count there; how deep it really is, the rules tell
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )

    def loads(self, payload: bytes) -> Any:
        """The value; `CborRefused` or `CborError` if there is none, and no other exception."""
        # Setting the source drops whatever the decoder still has of the last one.
        self._decoder.fp = source = io.BytesIO(payload)
        try:
            value = self._decoder.decode()
            if source.tell() == len(payload) and self._rules.accepts(value) is not None:
                return value
        except Exception:
            # Whatever it was, the second pass finds it, or reads what the first one could not.
            pass
        finally:
            source.close()  # or a large payload would stay until the next one
        try:
            return CarefulReader(payload, self._tags, self._depth).read()
        except RefusedContent as error:
            raise CborRefused(str(error)) from None
        except (MalformedCbor, RecursionError, MemoryError) as error:
            raise CborError(str(error)) from None

    def salvage(self, payload: bytes) -> tuple[Any, Any, Any, Any]:
        """What can be had of a message that `loads` refused, as `JsonReader.salvage` has it."""
        return skeleton(payload)

    def _semantic_reader(self, tag: int) -> Callable[[Any, bool], Any]:
        return lambda content, _immutable: self._tags.read(tag, content)

    def _unknown_tag(self, tag: cbor2.CBORTag, _immutable: bool) -> Any:
        return self._tags.read(tag.tag, tag.value)


# What cbor2 would read by itself: each goes through the allow-list instead.
_BUILT_IN_TAGS = frozenset(
    (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)
)
