"""Reassembly (RFC 8200 4.5, 5722, 6946, 8021): pieces of a packet whose pair has an owner.

Owns the pieces, with a budget per pair and in total. A fragment carries the
pair, so one peer cannot spend another's budget. Invariant: what is kept is at
most `total` bytes, and nothing is kept longer than 60 s.
"""

# 8504-5.1-4, 8504-5.1-6, 8504-5.1-8, 8504-5.2-8

from collections import OrderedDict
from typing import Final

from umuxstack.core.counters import Counters
from umuxstack.core.errors import Drop
from umuxstack.core.units import NEVER, TCP, Micros, seconds
from umuxstack.core.wire import extension

TIMEOUT: Final = seconds(60)  # RFC 8200 4.5: "within 60 seconds of the reception of the first-arriving fragment"
PER_PAIR: Final = 128 * 1024
TOTAL: Final = 4 * 1024 * 1024
OVERHEAD: Final = 200  # what one kept piece costs beside its bytes, so that tiny pieces are not free


Refused = tuple[int, int]
"""(status of `extension`, where in the buffer the offending field is): a fragment that cannot be one."""


class _Partial:
    __slots__ = ("cost", "expires", "first", "last_end", "next_header", "pieces", "poisoned", "where")

    def __init__(self, expires: Micros) -> None:
        self.pieces: dict[int, bytes] = {}  # fragment offset -> bytes
        self.first = b""  # the unfragmentable part of the first fragment
        self.next_header = 0
        self.where = 0  # in `first`, of the field that the next header goes into
        self.last_end = -1  # total length, known once the last fragment came
        self.cost = 0
        self.expires = expires
        self.poisoned = False  # an overlap was seen: the rest is dropped too


class Reassembly:
    """All packets that wait for pieces."""

    __slots__ = ("_by_pair", "_counters", "_partials", "_used")

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._partials: OrderedDict[bytes, _Partial] = OrderedDict()  # by pair + identification, oldest first
        self._by_pair: dict[bytes, int] = {}
        self._used = 0

    def __len__(self) -> int:
        return len(self._partials)

    @property
    def used(self) -> int:
        """Bytes kept now."""
        return self._used

    def next_deadline(self) -> Micros:
        for partial in self._partials.values():
            return partial.expires
        return NEVER

    def expire(self, now: Micros) -> list[bytes]:
        """Forgets packets whose pieces did not all come in time (8200-4.5-10). Returns the first fragments of those
        whose first fragment has come, as it came: their sources are to be told (8200-4.5-11)."""
        firsts = []
        while self._partials:
            key, partial = next(iter(self._partials.items()))
            if partial.expires > now:
                break
            self._forget(key)
            if not partial.poisoned:
                self._counters.drops[Drop.FRAGMENT_TIMEOUT] += 1
                if partial.first:
                    header = bytes((partial.next_header, 0, 0, 1)) + key[32:]
                    firsts.append(_joined(partial.first, partial.where, extension.FRAGMENT, header + partial.pieces[0]))
        return firsts

    def add(self, buf: bytes, base: int, offset: int, end: int, where: int, now: Micros) -> bytes | Refused | None:
        """One fragment, its header at `offset`, the next-header field that led to it at `where`.

        Returns the whole packet, its fragment header removed, when this was the last piece missing.
        """
        drops = self._counters.drops
        field = buf[offset + 2] << 8 | buf[offset + 3]
        start, more = field & 0xFFF8, field & 1
        data = buf[offset + 8 : end]
        if start == 0 and not more:
            # 8200-4.5-8, 8200-4.5-9, RFC 6946 4: an "atomic fragment" is a whole packet, and alone.
            return _joined(buf[base:offset], where - base, buf[offset], data)
        if not data or (more and len(data) % 8):
            # 8200-4.5-12, 8200-4.5-13: not a multiple of 8 octets; "pointing to the Payload Length field"
            drops[Drop.BAD_EXTENSION] += 1
            return extension.BAD_HEADER, base + 4
        if start + len(data) + (offset - base - 40) > 65535:
            # 8200-4.5-14, 8200-4.5-15: the whole would exceed 65,535; "pointing to the Fragment Offset field"
            drops[Drop.BAD_EXTENSION] += 1
            return extension.BAD_HEADER, offset + 2
        if start == 0 and not _has_all_headers(_joined(buf[base:offset], where - base, buf[offset], data)):
            # 8200-4.5-16, 8200-4.5-17, RFC 7112 5: "that fragment should be discarded"
            drops[Drop.BAD_EXTENSION] += 1
            return extension.INCOMPLETE, base
        pair = buf[base + 8 : base + 40]
        key = pair + buf[offset + 4 : offset + 8]
        partial = self._partials.get(key)
        if partial is None:
            partial = self._partials[key] = _Partial(Micros(now + TIMEOUT))
        if partial.poisoned:
            drops[Drop.FRAGMENT_OVERLAP] += 1
            return None
        stop = start + len(data)
        known = partial.pieces.get(start)
        if known == data:
            return None  # an exact duplicate, allowed by RFC 8200 4.5
        overlap = known is not None or any(s < stop and start < s + len(p) for s, p in partial.pieces.items())
        beyond = 0 <= partial.last_end < stop or (
            not more and any(s + len(p) > stop for s, p in partial.pieces.items())
        )
        if overlap or beyond or (not more and partial.last_end not in (-1, stop)):
            # 8200-4.5-18, 8200-4.5-19, RFC 5722 4: "the entire datagram (and any constituent fragments) MUST be
            # silently discarded",
            # including those not yet received: the empty record stays until its time is over.
            drops[Drop.FRAGMENT_OVERLAP] += 1
            self._release(pair, partial)
            self._charge(pair, partial, OVERHEAD)  # less than before: it had a piece
            partial.poisoned = True
            partial.pieces.clear()
            return None
        cost = len(data) + OVERHEAD
        if self._by_pair.get(pair, 0) + cost > PER_PAIR:
            drops[Drop.FRAGMENT_BUDGET] += 1
            self._forget(key)
            return None
        while self._used + cost > TOTAL:  # the oldest of all makes room
            oldest = next(iter(self._partials))
            drops[Drop.FRAGMENT_BUDGET] += 1
            self._forget(oldest)
            if oldest == key:
                return None
        partial.pieces[start] = data
        self._charge(pair, partial, cost)
        if start == 0:
            partial.first = buf[base:offset]
            partial.next_header = buf[offset]
            partial.where = where - base
        if not more:
            partial.last_end = stop
        if partial.last_end < 0 or sum(map(len, partial.pieces.values())) != partial.last_end:
            return None
        whole = b"".join(partial.pieces[at] for at in sorted(partial.pieces))
        self._forget(key)
        if len(partial.first) - 40 + len(whole) > 65535:  # the first piece had more headers than the last
            drops[Drop.BAD_EXTENSION] += 1
            return None
        return _joined(partial.first, partial.where, partial.next_header, whole)

    def _charge(self, pair: bytes, partial: _Partial, cost: int) -> None:
        partial.cost += cost
        self._by_pair[pair] = self._by_pair.get(pair, 0) + cost
        self._used += cost

    def _release(self, pair: bytes, partial: _Partial) -> None:
        self._used -= partial.cost
        left = self._by_pair.get(pair, 0) - partial.cost
        if left > 0:
            self._by_pair[pair] = left
        else:
            self._by_pair.pop(pair, None)
        partial.cost = 0

    def _forget(self, key: bytes) -> None:
        partial = self._partials.pop(key)
        self._release(key[:32], partial)


def _has_all_headers(packet: bytes) -> bool:
    """Whether a first fragment includes "all headers through an Upper-Layer header" (RFC 8200 4.5)."""
    status, protocol, upper, _ = extension.walk(packet, 0, len(packet))
    return status != extension.TRUNCATED and upper + (20 if protocol == TCP else 8) <= len(packet)


def _joined(unfragmentable: bytes, where: int, next_header: int, data: bytes) -> bytes:
    """The packet as it was before it was fragmented (RFC 8200 4.5)."""
    header = bytearray(unfragmentable)
    header[4:6] = (len(header) - 40 + len(data)).to_bytes(2, "big")
    header[where] = next_header
    return bytes(header) + data
