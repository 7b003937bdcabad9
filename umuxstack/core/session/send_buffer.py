"""What the application wrote and the peer has not acknowledged.

Keeps the very objects it was given and hands out slices of them, also for
retransmission: nothing is copied until a slice crosses two chunks. Positions
are sequence numbers, unwrapped. Invariant: holds exactly `start` … `end`.
"""

from bisect import bisect_right
from typing import Final

from umuxstack.core.units import Buffer

_SMALL: Final = 2048  # writes below this are gathered
_GATHER: Final = 16384  # into chunks of up to this


def octets(data: Buffer) -> memoryview:
    """A view of `data` whose length is its number of bytes, whatever its items and dimensions are."""
    view = memoryview(data)
    return view if view.ndim == 1 and view.itemsize == 1 else view.cast("B")


def lasting(data: Buffer) -> Buffer:
    """`data` as what will not change: a view of `bytes` cannot, anything else is copied."""
    if type(data) is memoryview and type(data.obj) is bytes and data.c_contiguous:
        return memoryview(data)  # ours, because the caller may release theirs
    return bytes(data)


class SendBuffer:
    __slots__ = ("_chunks", "_positions", "end", "marks", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.end = start
        self._chunks: list[Buffer] = []
        self._positions: list[int] = []  # of each chunk's first byte
        self.marks: list[int] = []  # where records end (MSG_EOR); hardly ever any

    def append(self, data: Buffer) -> None:
        """Keeps `data`, which must not change any more, or gathers it with its neighbours if it is small."""
        chunks = self._chunks
        size = len(data)
        if chunks and size < _SMALL:
            last = chunks[-1]
            length = len(last)
            if length < _SMALL or (type(last) is bytearray and length < _GATHER):
                if type(last) is not bytearray:
                    last = chunks[-1] = bytearray(last)
                last += data
                self.end += size
                return
        chunks.append(data if size >= _SMALL or type(data) is bytes else bytes(data))
        self._positions.append(self.end)
        self.end += size

    def slice(self, start: int, end: int) -> Buffer:
        """The bytes from `start` to `end`, both within the buffer; a view of the chunk where one holds them all."""
        positions = self._positions
        index = bisect_right(positions, start) - 1 if len(positions) > 1 else 0
        chunk = self._chunks[index]
        at = start - positions[index]
        length = end - start
        if at + length <= len(chunk):
            if type(chunk) is bytearray:  # it may still grow, which an exported view would forbid
                return bytes(chunk[at : at + length])
            if at == 0 and length == len(chunk):
                return chunk
            return memoryview(chunk)[at : at + length]
        parts: list[Buffer] = [memoryview(chunk)[at:]]
        missing = length - (len(chunk) - at)
        while missing:
            index += 1
            chunk = self._chunks[index]
            parts.append(memoryview(chunk)[:missing] if missing < len(chunk) else chunk)
            missing -= min(missing, len(chunk))
        return b"".join(parts)

    def next_mark(self, position: int) -> int:
        """Where the record that `position` is in ends; the buffer's end without a mark."""
        index = bisect_right(self.marks, position)
        return self.marks[index] if index < len(self.marks) else self.end

    def release(self, upto: int) -> None:
        """Everything before `upto` is acknowledged."""
        self.start = upto
        chunks, positions = self._chunks, self._positions
        if upto == self.end:
            chunks.clear()
            positions.clear()
            if self.marks:
                self.marks.clear()
            return
        done = 0
        while done < len(chunks) and positions[done] + len(chunks[done]) <= upto:
            done += 1
        if self.marks and self.marks[0] <= upto:
            del self.marks[: bisect_right(self.marks, upto)]
        if done:
            del chunks[:done]
            del positions[:done]
