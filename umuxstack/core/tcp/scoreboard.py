"""The scoreboard: which ranges were SACKed, which was sent last, and how long a round trip takes.

RFC 2018, 2883, 6675 (blocks), 8985 6.1 (order of transmission), 6298 2 (SRTT, RTTVAR, RTO). Decides nothing about
loss. Invariant: the board's ranges are disjoint and in the order of sequence numbers.
"""

# RFC 9293 appendix B: MUST-18; UM-35.f, UM-35.r

from umuxstack.core.config import TcpPolicy
from umuxstack.core.tcp.emit import Emitter
from umuxstack.core.tcp.seq import MASK
from umuxstack.core.tcp.tcb import IN_FLIGHT, SACKED, Loss, Sent
from umuxstack.core.units import Micros


class Scoreboard(Emitter):
    """What acknowledgements say of each range."""

    __slots__ = ()

    def _later(self, one: Sent | None, other: Sent) -> Sent:
        """The one that was transmitted later (RFC 8985 6.1)."""
        if one is None or (other.at, other.end) > (one.at, one.end):
            return other
        return one

    def _echoed(self, tsecr: int, now: Micros) -> int:
        """The round trip that an echoed timestamp tells, in whole milliseconds; 0 if it tells none.

        Karn: of a range that was retransmitted the echo says which transmission came (RFC 7323 4).
        """
        if tsecr < 0 or not self.use_ts:
            return 0
        elapsed = ((self._tsval(now) - tsecr) & MASK) * 1000
        return max(elapsed, 1000) if elapsed < 120_000_000 else 0

    def _measured(self, rtt: int) -> None:
        """RFC 6298 2, in integers: SRTT and RTTVAR in microseconds."""
        srtt = self.srtt
        if not srtt:
            self.srtt = rtt
            self.rttvar = rtt // 2
            self.min_rtt = rtt
        else:
            off = rtt - srtt
            self.rttvar += ((off if off >= 0 else -off) - self.rttvar) // 4
            self.srtt = srtt + off // 8
            if rtt < self.min_rtt:
                self.min_rtt = rtt
        self._set_rto(self.policy)

    def _set_rto(self, policy: TcpPolicy) -> None:
        """RFC 6298 2.3 and 2.4."""
        spread = 4 * self.rttvar
        if spread < policy.rto_variance_min:
            spread = policy.rto_variance_min
        rto = self.srtt + spread + policy.rto_slop
        if rto < policy.rto_min:
            rto = policy.rto_min
        elif rto > policy.rto_max:
            rto = policy.rto_max
        self.rto = Micros(rto)

    def _mark_sacked(
        self, loss: Loss, blocks: list[tuple[int, int]], ack: int, now: Micros
    ) -> tuple[int, Sent | None, int]:
        """Returns newly SACKed bytes, the latest transmitted range among them, and a round-trip time or 0."""
        board = self.board
        first = blocks[0]
        if first[1] <= ack or (len(blocks) > 1 and blocks[1][0] <= first[0] and first[1] <= blocks[1][1]):
            self._duplicate_reported(loss, first, now)  # DSACK, RFC 2883 4
            blocks = blocks[1:]
        gained = 0
        rtt = 0
        newest: Sent | None = None
        whole = self.policy.sacks_whole_segments
        # In order of sequence: of blocks in one ACK none came "after" another (RFC 8985 6.2 step 3).
        for start, end in sorted(blocks):
            start = max(start, ack)
            if not start < end <= self.snd_nxt:
                continue  # old, or of data that was never sent
            index = 0
            while index < len(board):
                sent = board[index]
                index += 1
                if sent.end <= start or sent.state == SACKED:
                    continue
                if sent.start >= end:
                    break
                low, high = (start, end) if not whole else self._whole_segments(sent, start, end)
                if low >= high:
                    continue
                if sent.start < low:
                    board.insert(index, sent.split(low))
                    continue
                if sent.end > high:
                    board.insert(index, sent.split(high))
                length = sent.end - sent.start
                gained += length
                loss.sacked += length
                if sent.state == IN_FLIGHT:
                    self.pipe -= length
                else:
                    loss.lost -= length
                if not sent.rexmit:
                    rtt = now - sent.at
                    if sent.end < loss.high_sacked:
                        loss.reordering = True  # it came after something sent later
                sent.state = SACKED
                newest = self._later(newest, sent)
            if end > loss.high_sacked:
                loss.high_sacked = end
        return gained, newest, rtt

    def _whole_segments(self, sent: Sent, start: int, end: int) -> tuple[int, int]:
        """What of `sent` the block covers in whole segments: half a segment is as good as none."""
        mss = self.mss
        first = max(start, sent.start)
        first += -(first - sent.start) % mss
        behind = min(end, sent.end)
        if behind < sent.end:
            behind -= (behind - sent.start) % mss
        return min(first, sent.end), behind

    def _duplicate_reported(self, loss: Loss, block: tuple[int, int], now: Micros) -> None:
        """The peer got `block` twice; recovery.py draws the conclusions."""
        raise AssertionError
