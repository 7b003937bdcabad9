"""What routers say of a TCP session: ICMPv6 errors, believed only if they quote what is in flight.

RFC 5927, RFC 8201, RFC 5461, RFC 9293 3.9.2.2; UM-39.
"""

# RFC 9293 appendix B: MUST-54, SHLD-25, SHLD-26; 4443-5.2-1, 8201-5.2-7, 8201-5.2-9, 8201-5.4-6, 8201-5.4-7

from umuxstack.core.errors import Drop, Reason
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.ending import Ending
from umuxstack.core.tcp.seq import unwrap
from umuxstack.core.tcp.tcb import HEADERS, LOST, Loss
from umuxstack.core.units import TCP, Micros
from umuxstack.core.wire import icmpv6


class IcmpErrors(Ending):
    """Errors about our own packets."""

    __slots__ = ()

    def on_icmp_error(
        self, kind: int, code: int, value: int, protocol: int, quoted: bytes, offset: int, now: Micros
    ) -> None:
        drops = self.ctx.counters.drops
        if protocol != TCP or len(quoted) < offset + 8:
            drops[Drop.ICMP_NOT_BELIEVED] += 1
            return
        sport = int.from_bytes(quoted[offset : offset + 2], "big")
        dport = int.from_bytes(quoted[offset + 2 : offset + 4], "big")
        seq = unwrap(int.from_bytes(quoted[offset + 4 : offset + 8], "big"), self.snd_una)
        # RFC 5927 4.1: the quoted sequence number must be of data in flight.
        if sport != self.local_port or dport != self.remote_port or not self.snd_una <= seq < self.snd_nxt:
            drops[Drop.ICMP_NOT_BELIEVED] += 1
            return
        if kind == icmpv6.PACKET_TOO_BIG:
            self._path_shrank(value, now)
            return
        reason = {
            (icmpv6.UNREACHABLE, icmpv6.PROHIBITED): Reason.PROHIBITED,
            (icmpv6.UNREACHABLE, icmpv6.PORT_UNREACHABLE): Reason.REFUSED,
            (icmpv6.PARAMETER_PROBLEM, icmpv6.UNRECOGNIZED_NEXT_HEADER): Reason.REFUSED,
        }.get((kind, code), Reason.UNREACHABLE)
        opening = self.state in (st.SYN_SENT, st.SYN_RECEIVED) and (self.door is None or self.cc is not None)
        policy = self.policy
        if kind == icmpv6.UNREACHABLE:
            fatal = policy.soft_errors_abort or reason != Reason.UNREACHABLE
        else:
            transit = reason != Reason.UNREACHABLE or (kind == icmpv6.TIME_EXCEEDED and code == icmpv6.HOP_LIMIT)
            fatal = policy.transit_errors_abort and transit
        # RFC 5461 4.1: a new connection may give up; an established one is only told (MUST-56).
        if opening and policy.icmp_aborts and fatal:
            self._refused(now)
            self.finish(reason, now)
        else:
            self._in_trouble(reason, now)

    def _path_shrank(self, mtu: int, now: Micros) -> None:
        """RFC 8201: a believed "packet too big". What is in flight in larger pieces is sent again at once."""
        # What is known of the path may have been learnt by another session behind the same /64, after ours chose its
        # MSS.
        ours = self.mss + HEADERS + (12 if self.use_ts else 0)
        if mtu < self.ctx.pmtu.floor or mtu >= max(ours, self.ctx.pmtu.get(self.pair[:16], now)):
            self.ctx.counters.drops[Drop.ICMP_NOT_BELIEVED] += 1
            return
        self.ctx.path_shrank(self.pair[:16], mtu, now)
        self._set_mss(now)
        if self.state == st.SYN_SENT and self.snd_nxt > self.iss + 1:
            # RFC 7413 4.1.3: what went with the SYN did not get through. The SYN alone does.
            self.retries += 1
            self._send_syn(now)
        if not self.board or self.state < st.ESTABLISHED:
            return
        loss = self.loss
        if loss is None:
            loss = self.loss = Loss()
        for sent in self.board:
            if sent.end - sent.start > self.mss and not sent.state:
                sent.state = LOST
                self.pipe -= sent.end - sent.start
                loss.lost += sent.end - sent.start
        self.touch()  # not congestion: the window stays
