"""The short ways: what nearly all acknowledgements, requests and responses need, and nothing else.

Each does the same as the long way (`recovery._on_ack`, `send._send_new`), for the case in which nothing was lost and
nothing else is under way; anything unusual is left to that. Invariant: no packet and no variable tells which way was
taken. Worth it: a request and its response take half the time in the core (`benchmarks.run --only core`).
"""

from typing import Final

from umuxstack.core.tcp.recovery import Recovery
from umuxstack.core.tcp.tcb import PERSIST, Sent
from umuxstack.core.units import NEVER, Micros
from umuxstack.core.wire import tcp as wire

_ACK_PSH: Final = wire.ACK | wire.PSH


class ShortWay(Recovery):
    """In: all is acknowledged at once. Out: it fits a segment."""

    __slots__ = ()

    def _on_plain_ack(self, ack: int, tsecr: int, now: Micros) -> None:
        """`_on_ack` for nearly all acknowledgements: in order, and nobody has lost anything."""
        board = self.board
        last = board[-1]
        cc = self.cc
        rtt = now - last.at or self._echoed(tsecr, now)
        if last.end != ack or last.rexmit or cc is None or cc.wants_samples or self.ctx.trace is not None:
            self._on_ack(ack, None, tsecr, False, False, now)
            return
        # All that was outstanding has arrived: no range need be looked at.
        delivered = ack - self.snd_una
        if self.delivered_at != now:
            self.turn_flight = delivered
        self.snd_una = ack
        self.retries = 0
        self.pipe = 0
        board.clear()
        tx = self.tx
        if tx is not None:
            upto = ack if ack < tx.end else tx.end
            self.ctx.memory -= upto - tx.start
            tx.release(upto)
            if self.want_write and self._roomy():
                self.want_write = False
                self._wake()
        if rtt:
            self._measured(rtt)
        self.delivered += delivered
        self.delivered_at = now
        limited = self.cwnd_limited or (cc.cwnd < cc.ssthresh and cc.cwnd < 2 * self.max_flight)
        cc.on_ack(delivered, rtt, 0, now, limited)
        if self.rto_kind != PERSIST:
            self.rto_at = NEVER
        if not self.touched:  # else its turn comes, and ends with this
            self._arm()

    def _send_alone(self, end: int, now: Micros) -> bool:
        """`_send_new` for nearly all requests and responses: they fit a segment, and nothing else is on its way.

        False: something needs a closer look; nothing was done.
        """
        tx = self.tx
        cc = self.cc
        nxt = self.snd_nxt
        size = end - nxt
        if (
            self.board
            or size > self.mss
            or size > self.snd_wnd
            or self.loss is not None
            or self.snd_up > nxt
            or self.use_ecn
            or self.hold
            or self.policy.cork
            or cc is None
            or cc.wants_samples
            or cc.paces
            or cc.cwnd < size + self.mss
            or now - self.delivered_at > self.rto
            or self.ctx.trace is not None
        ):
            return False
        if self.fin_queued:
            if size > 1:
                return False
            self._transmit(nxt, 0, True, True, now)
            if not self.max_flight or nxt >= self.usage_seq:
                self.cwnd_limited, self.max_flight, self.usage_seq = False, 1, end
            self._set_timer(now, restart=False)
            return True
        assert tx is not None
        if tx.marks:
            return False
        self.board.append(Sent(nxt, end, now))
        self.pipe = size
        self.snd_nxt = end
        if self.quick_acks and (self.ack_due or (self.ack_now and nxt >= -self.small)):
            self.quick_acks = 0  # as in _transmit
        self._emit(_ACK_PSH, nxt, tx.slice(nxt, end), 0, now, self.first_word)
        if size < self.mss and nxt >= -self.small:
            self.small = end
        if size > self.max_flight or nxt >= self.usage_seq:
            self.cwnd_limited, self.max_flight, self.usage_seq = False, size, end
        self._set_timer(now, restart=False)
        return True

    def _transmit(self, seq: int, size: int, fin: bool, last: bool, now: Micros) -> None:
        raise AssertionError("send.py defines it")
