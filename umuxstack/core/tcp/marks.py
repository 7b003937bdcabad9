"""Explicit congestion notification at work: marks that arrive, and what the peer says of ours (RFC 3168; RFC 9768).

Entered only by sessions that agreed on ECN. Which of both is spoken the handshake has settled (opening.py).
"""

from umuxstack.core.tcp.accurate_ecn import HANDSHAKE, ace_of
from umuxstack.core.tcp.icmp_errors import IcmpErrors
from umuxstack.core.tcp.seq import MASK
from umuxstack.core.tcp.tcb import Loss
from umuxstack.core.units import Micros
from umuxstack.core.wire import tcp as wire
from umuxstack.core.wire.tcp_options import Options


class Marks(IcmpErrors):
    """Counting and reducing."""

    __slots__ = ()

    def _congestion_marks(
        self, buf: bytes, base: int, flags: int, size: int, gso_size: int, ack: int, now: Micros
    ) -> None:
        """RFC 3168 6.1: echo CE until CWR; answer ECE once per window. Or counts, which says both."""
        if self.accurate is not None:
            self._count(buf, base, size, gso_size)
            return
        if flags & wire.CWR:
            self.ce_seen = 0
        if buf[base + 1] >> 4 & 3 == 3:
            self.ce_seen = wire.ECE
            if size and not self.policy.delays_marked:  # marked ACKs that answered each other would never end
                self.ack_now = True
        if flags & wire.ECE:
            if ack > self.ecn_point:
                self._reduce(now)
            self.cwnd_limited = False  # 6.1.2: it "SHOULD NOT increase the congestion window"

    def _reduce(self, now: Micros, delivered: int = 0) -> None:
        """The network is congested: as after a loss, but nothing needs to be sent again (RFC 3168 6.1.2).

        `delivered`: by the acknowledgement that told it, if that has been looked at already.
        """
        cc, loss = self.cc, self.loss
        if cc is None:
            return
        if loss is None or not loss.phase:
            flight = self.snd_nxt - self.snd_una
            flight = max(flight, self.turn_flight) if self.delivered_at == now else flight
            in_use = self._in_use(flight)
            cc.on_ecn(in_use, now)
            self.cwr_due = self.accurate is None
            if self.policy.ecn_proportional and not cc.own_recovery:
                self._steer(in_use, delivered)
        self.ecn_point = self.snd_nxt

    def _steer(self, in_use: int, delivered: int) -> None:
        """Down to the threshold by RFC 6937's proportion, over a round trip, instead of a pause until it is reached."""
        loss = self.loss
        if loss is None:
            loss = self.loss = Loss()
        loss.steer_end = self.snd_nxt
        loss.prr_delivered = loss.prr_out = 0
        loss.prr_flight = max(in_use, self.mss)
        self._proportional(loss, delivered, clean=delivered > 0)

    # Accurate ECN

    def _count(self, buf: bytes, base: int, size: int, gso_size: int) -> None:
        """RFC 9768 3.2.2.2, 3.2.3: every segment that came, whatever becomes of it."""
        accurate = self.accurate
        assert accurate is not None
        if size:
            accurate.repeated(False)
        if (
            accurate.came(buf[base + 1] >> 4 & 3, size, -(-size // gso_size) if gso_size else 1)
            and size
            and not self.policy.delays_marked
        ):
            self.ack_now = True  # 3.2.2.5.1: "MUST emit an ACK" as soon as marked data arrives

    def _count_again(self, buf: bytes, base: int, size: int, gso_size: int) -> None:
        """The same of data that had come before."""
        accurate = self.accurate
        if accurate is not None:
            accurate.came(buf[base + 1] >> 4 & 3, size, -(-size // gso_size) if gso_size else 1)
            accurate.repeated(True)

    def _syn_again(self, buf: bytes, base: int, offset: int) -> None:
        """In SYN-RECEIVED: the newest SYN counts for what we tell (RFC 9768 3.1.5); one that asks for nothing shows
        that the path, or the peer, has trouble with marks."""
        if self.accurate is not None:
            self._reflects(buf, base)
            if not ace_of(buf, offset):
                self.accurate.ect = False

    def _third_ack(
        self,
        buf: bytes,
        base: int,
        offset: int,
        size: int,
        gso_size: int,
        options: Options | None,
        early: bool,
        now: Micros,
    ) -> None:
        """RFC 9768 3.2.2.1: the acknowledgement of our SYN-ACK tells how that arrived; one with data counts already.
        `early`: the session was opened before, and goes on with this segment."""
        accurate = self.accurate
        assert accurate is not None
        ace = ace_of(buf, offset)
        if not ace and not accurate.offered:
            # Our last SYN-ACK did not offer ECN any more, and this answers that.
            self.accurate, self.use_ecn, self.ce_seen = None, False, 0
            return
        if not size:
            accurate.take_handshake(ace, self.policy.ecn_validates)
        accurate.handshake = -1
        if options is not None and options.accurate is not None:
            accurate.hears_option(self.policy.accurate_ecn_option)
            self._set_mss(now)
        accurate.settled = early
        if not early:
            self._count(buf, base, size, gso_size)

    def _reflects(self, buf: bytes, base: int) -> None:
        """The peer's SYN or SYN-ACK once more: what we answer tells how that arrived (RFC 9768 3.2.2.1)."""
        if self.accurate is not None:
            self.accurate.handshake = HANDSHAKE[buf[base + 1] >> 4 & 3]

    def _told(
        self, buf: bytes, offset: int, options: Options | None, before: int, ack: int, since: int, now: Micros
    ) -> None:
        """What this acknowledgement says of our marks. `before`: what had been delivered before it; `since`: the newest
        timestamp then. One that is no news, by either, may be older than the last (RFC 9768 3.2.2.5.2)."""
        accurate = self.accurate
        assert accurate is not None
        newly = self.delivered - before
        stamped = False
        if self.use_ts and options is not None and options.tsval != since:
            stamped = (options.tsval - since) & MASK < 0x80000000
        if options is not None and options.accurate is not None and not accurate.option:
            accurate.hears_option(self.policy.accurate_ecn_option)
            self._set_mss(now)
        if accurate.settled or (not newly and not stamped):
            accurate.settled = False
            return
        marked = -1
        if options is not None and options.accurate is not None:
            marked = accurate.take_option(options.accurate, self.delivered)
        packets = -(-newly // self.mss)
        if accurate.marks(ace_of(buf, offset), packets, marked, self.mss) and ack > self.ecn_point:
            self._reduce(now, newly)
