"""The chunks of one stream that somebody may still want, by number. It owns no waiting and no policy."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from kkrpc_py.wire.shared import Shared

__all__ = ["Log"]


class Log:
    """Numbers rise by one (NST-6). What is kept is one row without holes, the newest last."""

    __slots__ = ("_chunks", "_ends", "first", "next", "size", "total")

    def __init__(self, first: int) -> None:
        """`first`: the number of the first chunk that will be written."""
        self._chunks: list[Shared] = []
        self._ends: list[int] = []
        """To each chunk the bytes of all chunks up to its end."""
        self.first = first
        """The number of the oldest chunk that is kept; `next` where none is."""
        self.next = first
        """The number of the next chunk to be written."""
        self.total = 0
        """Bytes of all chunks that were ever written."""
        self.size = 0
        """Bytes of those that are kept."""

    def __len__(self) -> int:
        return len(self._chunks)

    def append(self, chunk: Shared) -> None:
        self._chunks.append(chunk)
        self.total += chunk.size
        self.size += chunk.size
        self._ends.append(self.total)
        self.next += 1

    def at(self, number: int) -> Shared:
        """The chunk of that number, which is kept."""
        return self._chunks[number - self.first]

    def between(self, number: int, end: int) -> list[Shared]:
        """The chunks from `number` on, before `end`; all of them are kept."""
        return self._chunks[number - self.first : end - self.first]

    def part(self, number: int, end: int, size: int) -> int:
        """Where to end, before `end` maybe, to have `size` bytes at most from `number` on, or one chunk."""
        most = self._begin(number) + size
        if self._ends[end - 1 - self.first] <= most:
            return end
        return max(self.first + bisect_right(self._ends, most), number + 1)

    def bytes_from(self, number: int) -> int:
        """Bytes of the chunks from that number on."""
        return self.total - self._begin(number)

    def newest(self, size: int) -> int:
        """The number from which on there are `size` bytes at most; `next` where the newest alone is more."""
        if not self._chunks or self._begin(self.first) >= self.total - size:
            return self.first
        return self.first + bisect_left(self._ends, self.total - size) + 1

    def forget(self, number: int) -> None:
        """Keep no chunk before that number."""
        count = min(number, self.next) - self.first
        if count > 0:
            self.size = self.bytes_from(self.first + count)
            del self._chunks[:count], self._ends[:count]
            self.first += count

    def _begin(self, number: int) -> int:
        index = number - self.first
        if index >= len(self._ends):
            return self.total
        return self._ends[index - 1] if index > 0 else self._ends[0] - self._chunks[0].size
