"""What the peer sent: in order and unread, or out of order.

Keeps views of the received packets. Positions are sequence numbers, unwrapped.
Invariant: out-of-order ranges are disjoint, sorted, and lie beyond what is in order.
"""

from bisect import bisect_left
from collections import deque
from typing import Final

from umuxstack.core.units import Buffer

# A slice this much smaller than the packet it came in is copied, so that it does not keep the packet alive.
_WORTH_KEEPING: Final = 2
SMALL: Final = 4096  # and so is what is not worth a view


def piece(buf: bytes, start: int, end: int) -> Buffer:
    """The payload `buf[start:end]`: a view where that wastes little, else a copy."""
    if (end - start) * _WORTH_KEEPING < len(buf) or end - start < SMALL:
        return buf[start:end]
    return memoryview(buf)[start:end]


class ReceiveBuffer:
    """In-order data that the application has not read yet."""

    __slots__ = ("chunks", "size")

    def __init__(self) -> None:
        self.chunks: deque[Buffer] = deque()
        self.size = 0

    def append(self, chunk: Buffer) -> None:
        self.chunks.append(chunk)
        self.size += len(chunk)

    def take_chunk(self) -> Buffer:
        """The next chunk as it is, or nothing."""
        if not self.chunks:
            return b""
        chunk = self.chunks.popleft()
        self.size -= len(chunk)
        return chunk

    def take(self, limit: int) -> bytes:
        """Up to `limit` bytes."""
        chunks = self.chunks
        if not chunks or limit <= 0:
            return b""
        first = chunks[0]
        size = len(first)
        if size > limit:
            chunks[0] = memoryview(first)[limit:]
            self.size -= limit
            return bytes(first[:limit])
        if size == self.size:
            chunks.clear()
            self.size = 0
            return first if type(first) is bytes else bytes(first)
        parts: list[Buffer] = []
        room = limit
        while chunks and len(chunks[0]) <= room:
            chunk = chunks.popleft()
            parts.append(chunk)
            room -= len(chunk)
        if room and chunks:
            parts.append(memoryview(chunks[0])[:room])
            chunks[0] = memoryview(chunks[0])[room:]
            room = 0
        self.size -= limit - room
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def peek(self, at: int) -> bytes:
        """The one byte at this distance from the front, which stays where it is."""
        for chunk in self.chunks:
            if at < len(chunk):
                return bytes(chunk[at : at + 1])
            at -= len(chunk)
        return b""


class Assembler:
    """Data beyond a gap."""

    __slots__ = ("_pieces", "_serial", "ranges", "size")

    def __init__(self) -> None:
        self.ranges: list[list[int]] = []  # [start, end, serial of the last change], disjoint and sorted
        self._pieces: list[tuple[int, Buffer]] = []  # (start, bytes), disjoint and sorted
        self._serial = 0
        self.size = 0

    def known(self, start: int, end: int) -> tuple[int, int] | None:
        """The first contiguous part of this range that is here already, if any is (RFC 2883 4)."""
        for low, high, _ in self.ranges:
            if low >= end:
                break
            if high > start:
                return max(low, start), min(high, end)
        return None

    def insert(self, start: int, chunk: Buffer) -> int:
        """Keeps what of `chunk` (its first byte at `start`) is new; returns how many bytes that were."""
        end = start + len(chunk)
        gained = 0
        at = start
        low, high, absorbed = start, end, []
        for entry in self.ranges:
            if entry[1] < start:
                continue
            if entry[0] > end:
                break
            absorbed.append(entry)
            if at < entry[0]:
                gained += self._keep(at, chunk[at - start : entry[0] - start])
            at = max(at, entry[1])
            low, high = min(low, entry[0]), max(high, entry[1])
        if at < end:
            gained += self._keep(at, chunk[at - start :])
        self._serial += 1
        merged = [low, high, self._serial]
        if absorbed:
            index = self.ranges.index(absorbed[0])
            self.ranges[index : index + len(absorbed)] = [merged]
        else:
            self.ranges.insert(bisect_left(self.ranges, merged), merged)
        self.size += gained
        return gained

    def _keep(self, start: int, chunk: Buffer) -> int:
        self._pieces.insert(bisect_left(self._pieces, start, key=lambda entry: entry[0]), (start, chunk))
        return len(chunk)

    def take_in_order(self, position: int, into: ReceiveBuffer) -> int:
        """Moves what now continues `position` into `into`; returns the new position."""
        if not self.ranges or self.ranges[0][0] > position:
            return position
        upto = position
        while self.ranges and self.ranges[0][0] <= upto:  # one segment may have covered several
            upto = max(upto, self.ranges.pop(0)[1])
        done = 0
        for start, chunk in self._pieces:
            if start >= upto:
                break
            done += 1
            self.size -= len(chunk)
            if start < position:  # this much arrived in order meanwhile
                chunk = chunk[position - start :]
                start = position
            if chunk:
                into.append(chunk)
                position = start + len(chunk)
        del self._pieces[:done]
        return upto

    def blocks(self, most: int) -> list[tuple[int, int]]:
        """For SACK: the most recently changed ranges first (RFC 2018 4)."""
        if len(self.ranges) <= 1:
            return [(start, end) for start, end, _ in self.ranges]
        newest = sorted(self.ranges, key=lambda entry: -entry[2])[:most]
        return [(start, end) for start, end, _ in newest]
