"""What arrived from the testee and belongs to no step yet.

It owns the order of arrival, and finds the next message under an id or of a type in a time that does not grow
with what else lies there: a producer without credit may have sent a hundred thousand chunks. Chunk messages
are entered into the books of their streams as they come, whether a step ever takes them or not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from typing import Any, Final

from kkrpc_py.conformance.books import Consumed, chunks_in
from kkrpc_py.conformance.wire import Message

__all__ = ["Inbox"]

MESSAGE_BYTES: Final = 1024
"""What a message takes beside its own bytes."""


class Inbox:
    """Messages in the order of their arrival."""

    def __init__(self) -> None:
        self._count = 0
        self._messages: dict[int, Message] = {}
        self._numbers: dict[Hashable, deque[int]] = {}
        self._consumed: dict[Hashable, Consumed] = {}
        self.size = 0
        """What all of it takes in memory, roughly, in bytes."""

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, message: Message) -> None:
        """Put in what arrived last."""
        self._count += 1
        self._messages[self._count] = message
        self.size += _size(message)
        for key in _keys(message):
            self._numbers.setdefault(key, deque()).append(self._count)
        args, id = message.fields.get("args"), message.fields.get("id")
        if not isinstance(args, dict):
            return
        if message.fields["type"] == "stream-chunk":
            self.consumed(id).take(chunks_in(args), message.size)
        elif isinstance(result := args.get("result"), dict) and result.get("__stream") is True:
            # The id may have been another stream's before.
            self._consumed.pop(_id_key(id), None)

    def consumed(self, id: Any) -> Consumed:
        """The book of a stream that the kit consumes."""
        return self._consumed.setdefault(_id_key(id), Consumed())

    def take(self, *, id: Any = None, type: str | None = None) -> tuple[int, Message] | None:
        """The oldest message with that id and type (None: any), and its number; it is not here any more."""
        if id is not None:
            number = self._first(_id_key(id) if type is None else (_id_key(id), type))
        elif type is not None:
            number = self._first(type)
        else:
            number = next(iter(self._messages), None)
        if number is None:
            return None
        message = self._messages.pop(number)
        self.size -= _size(message)
        return number, message

    def _first(self, key: Hashable) -> int | None:
        numbers = self._numbers.get(key)
        while numbers:
            if numbers[0] in self._messages:
                return numbers[0]
            numbers.popleft()  # taken by another key
        return None

    def oldest_type(self, types: Iterable[str]) -> str | None:
        """Which of these types the oldest message has."""
        found = [(number, type) for type in types if (number := self._first(type)) is not None]
        return min(found)[1] if found else None

    def left(self) -> Iterable[Message]:
        """All that is here, oldest first."""
        return self._messages.values()

    def clear(self) -> None:
        """Throw away all that is here."""
        self._messages.clear()
        self._numbers.clear()
        self._consumed.clear()
        self.size = 0


def _size(message: Message) -> int:
    return len(message.data) + MESSAGE_BYTES


def _keys(message: Message) -> Iterable[Hashable]:
    type = message.fields["type"]
    yield type
    if "id" in message.fields:
        key = _id_key(message.fields["id"])
        yield key
        yield key, type


def _id_key(id: Any) -> Hashable:
    # 1, "1", 1.0 and true are four (MSG-2). What is no id at all can be looked for by its type alone.
    return (id.__class__, id) if isinstance(id, str | int | float) else (object, None)
