"""How far out of order segments arrive, as Linux tells it; watched from outside, acknowledgement by acknowledgement.

RFC 8985 knows only whether there was reordering; Linux keeps a distance in segments, counted from the highest SACKed.
"""

from typing import Final

import attrs

from umuxstack.core.tcp.tcb import SACKED, Tcb

DUP_THRESH: Final = 3  # RFC 5681 3.2: where it begins
MOST: Final = 300

Ranges = list[tuple[int, int]]


@attrs.define(slots=True)
class Reordering:
    """One session's."""

    degree: int = DUP_THRESH  # segments
    seen: int = 0  # how often
    delivered: int = 0  # segments that have arrived

    def compare(self, tcb: Tcb, before: "Look") -> None:
        """What the acknowledgement since `before` has delivered, and how late."""
        after = Look(tcb)
        fresh = [
            (max(start, s), min(end, e))
            for start, end in before.unsacked
            for s, e in ((start, tcb.snd_una), *after.sacked)
            if max(start, s) < min(end, e)
        ]
        self.delivered += sum(-(-(end - start) // tcb.mss) for start, end in fresh)
        highest = after.highest if after.sacked else tcb.snd_una
        sacked = [start for start, end in after.sacked if any(s < end and start < e for s, e in before.waiting)]
        acked = [start for start, _ in before.waiting if start < tcb.snd_una]
        for lowest in (min(sacked, default=highest), min(acked, default=highest)):
            if lowest < before.highest and lowest < highest:
                self.seen += 1
                distance = -(-(highest - lowest) // tcb.mss)
                self.degree = max(self.degree, min(distance, MOST))


class Look:
    """The scoreboard at one moment."""

    __slots__ = ("highest", "sacked", "unsacked", "waiting")

    def __init__(self, tcb: Tcb) -> None:
        self.sacked: Ranges = [(sent.start, sent.end) for sent in tcb.board if sent.state == SACKED]
        self.waiting: Ranges = [
            (sent.start, sent.end) for sent in tcb.board if sent.state != SACKED and not sent.rexmit
        ]
        self.unsacked: Ranges = [(sent.start, sent.end) for sent in tcb.board if sent.state != SACKED]
        self.highest = max((end for _, end in self.sacked), default=tcb.snd_una)
