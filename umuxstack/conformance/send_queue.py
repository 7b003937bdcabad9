"""How much of a write Linux's sockets take, and when there is room again: what their scripts call the send buffer.

A write is taken in chunks of half the peer's largest window. A chunk that was begun is filled; another is begun while
the queue, with each chunk's cost beside its data, is below its limit, and what was not sent is below TCP_NOTSENT_LOWAT.
The stack's own buffer is large enough for all of it meanwhile.
"""

from typing import Final

import attrs

from umuxstack.core.tcp.tcb import Tcb

COST: Final = 1088  # of a chunk, beside its data: a header and what describes it
UNLIMITED: Final = 1 << 32
ROOMY: Final = 1 << 30  # for the stack's own buffer
LARGEST: Final = 65_535  # a chunk
LEAST: Final = 4608  # of a limit of the application's choice


@attrs.define(slots=True)
class SendQueue:
    """One socket's."""

    limit: int  # octets
    fixed: bool = False  # the application's choice (SO_SNDBUF)
    lowat: int = UNLIMITED
    full: bool = False  # somebody was told so and waits
    opened: int = 0  # how often there was room again
    tail: int = 0  # where the last chunk begins

    def room(self, tcb: Tcb, wanted: int) -> int:
        """How much to hand over at once of `wanted` octets; 0: it is full."""
        chunk = self._chunk(tcb)
        end = tcb.snd_nxt if tcb.tx is None else max(tcb.tx.end, tcb.snd_nxt)
        begun = end - max(self.tail, tcb.snd_nxt)
        if end > tcb.snd_nxt and 0 < begun < chunk:
            return min(wanted, chunk - begun)
        if self._queued(tcb, end) >= self.limit or end - tcb.snd_nxt >= self.lowat:
            self.full = True
            return 0
        self.tail = end
        return min(wanted, chunk)

    def writable(self, tcb: Tcb) -> bool:
        """Whether a third is free, and less than half of the low-water mark unsent: worth waking somebody."""
        end = tcb.snd_nxt if tcb.tx is None else max(tcb.tx.end, tcb.snd_nxt)
        cc = tcb.cc
        if self.full and not self.fixed and cc is not None:
            self._grow(cc.cwnd // tcb.mss, tcb.mss)
        queued = self._queued(tcb, end)
        free = 3 * queued <= 2 * self.limit and 2 * (end - tcb.snd_nxt) < self.lowat
        if self.full and free:
            self.full = False
            self.opened += 1
        return free

    def _grow(self, segments: int, mss: int) -> None:
        each = (1 << (mss + 640 - 1).bit_length()) + 256
        self.limit = max(self.limit, min(2 * max(segments, 10) * each, 4 << 20))

    def _chunk(self, tcb: Tcb) -> int:
        return max(min(tcb.max_window // 2, LARGEST) // tcb.mss, 1) * tcb.mss

    def _queued(self, tcb: Tcb, end: int) -> int:
        chunk = self._chunk(tcb)
        chunks = sum(-(-(sent.end - sent.start) // chunk) for sent in tcb.board) + -(-(end - tcb.snd_nxt) // chunk)
        return end - tcb.snd_una + COST * chunks
