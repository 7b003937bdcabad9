"""F-RTO (RFC 5682): was a retransmission timeout needless? Asked where there are no timestamps (RFC 3522) to tell it.

After the timeout only the first segment is sent again. The first acknowledgement that advances lets two *new* segments
go instead of repairs; the next one tells: if it acknowledges what was never sent again, the originals were only late.
Entered by a timeout and by acknowledgements during a loss, never on the path of an orderly session.
"""

from typing import Final

from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.congestion.base import LOSS
from umuxstack.core.tcp.scoreboard import Scoreboard
from umuxstack.core.tcp.tcb import IN_FLIGHT, LOST, Loss, Sent
from umuxstack.core.units import Micros

# Loss.forward
OFF: Final = 0
REPEATED: Final = 1  # the first segment was sent again: its acknowledgement is awaited (step 2)
ADVANCED: Final = 2  # new segments were sent: the next acknowledgement decides (step 3)


class ForwardRto(Scoreboard):
    """The question and its answer."""

    __slots__ = ()

    def _ask_forward(self, loss: Loss) -> None:
        """Step 1, at a timeout. Not while the repair of another goes on: then what was sent again is on its way."""
        asked = self.policy.forward_rto and not self.use_ts and loss.phase != LOSS and self.state >= st.ESTABLISHED
        loss.forward = REPEATED if asked else OFF

    def _forward(
        self, loss: Loss, ack: int, una: int, delivered: int, duplicate: bool, blocks: list[tuple[int, int]] | None,
        now: Micros,
    ) -> bool:  # fmt: skip
        """An acknowledgement while the question is open. True: nothing may be taken for lost yet."""
        if loss.forward == REPEATED:
            if ack == una:
                # 2.1 step 2a. With SACK (3.1 step 2): "Stay in step 2 and wait for the next new acknowledgment."
                if duplicate and not self.use_sack:
                    loss.forward = OFF
                return False
            loss.forward = OFF
            if ack >= loss.point or not self._send_probe(now):
                return False  # all is repaired; or no new segment may go, and the usual recovery goes on
            self._send_probe(now)
            for sent in self.board:
                if sent.state == LOST:
                    sent.state = IN_FLIGHT
                    self.pipe += sent.end - sent.start
            loss.lost = 0
            loss.forward = ADVANCED
            return True
        if ack == una and not duplicate and not delivered:
            return True  # "Other types of ACKs are ignored without any action."
        loss.forward = OFF
        needless = ack > una
        if self.use_sack:
            # 3.1 step 3: not if it covers more than RecoveryPoint, for that is the new segments' doing
            beyond = ack > loss.point or any(last > loss.point for _, last in blocks or ())
            needless = not beyond and delivered > 0
        if needless:
            self._undo(loss, now)
            return False
        for sent in self.board:
            if sent.state == IN_FLIGHT and not sent.rexmit and sent.start < loss.point:
                self._mark_lost(loss, sent)
        if self.cc is not None:
            self.cc.cwnd = min(self.cc.cwnd, 3 * self.mss)  # step 3a
        return False

    # What the others define

    def _send_probe(self, now: Micros) -> bool:
        raise AssertionError

    def _undo(self, loss: Loss, now: Micros) -> None:
        raise AssertionError

    def _mark_lost(self, loss: Loss, sent: Sent) -> None:
        raise AssertionError
