"""Building segments: the one place where a session's headers are made.

Every segment that carries ACK also carries the newest window, and pays what
acknowledgement is due. Sequence numbers are masked to 32 bits here.
"""

# RFC 9293 appendix B: MUST-2, MUST-14, MUST-62, MUST-65, SHLD-5, SHLD-14; UM-35.g, UM-35.i

from typing import Final

from umuxstack.core.address.lease import SHARED
from umuxstack.core.errors import Reason
from umuxstack.core.session.context import Context
from umuxstack.core.session.fast_open import REFUSED
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.accurate_ecn import flags_of
from umuxstack.core.tcp.isn import flow_label, session_secret, timestamp_offset
from umuxstack.core.tcp.seq import MASK
from umuxstack.core.tcp.tcb import HEADERS, SYN_DATA, Tcb
from umuxstack.core.units import NEVER, TCP, Buffer, Micros
from umuxstack.core.wire import tcp as wire
from umuxstack.core.wire import tcp_options
from umuxstack.core.wire.checksum import pseudo_sum

ECT0: Final = 2 << 20  # RFC 3168 5: ECN-capable transport, in the traffic class

_build_with_timestamp = wire.build_segment_with_timestamp


class Emitter(Tcb):
    """Segments out."""

    __slots__ = ()

    def _emit(self, flags: int, seq: int, payload: Buffer, gso_size: int, now: Micros, first_word: int) -> None:
        """One segment or super-segment with ACK, in the shape that ordinary segments have."""
        window = self._window()
        rcv_nxt = self.rcv_nxt
        size = len(payload)
        if self.ce_seen:
            if self.accurate is not None:
                self._emit_accurately(flags, seq, payload, window, now, first_word)
                return
            flags |= wire.ECE
        urgent = 0
        if self.snd_up > seq:
            urgent = min(self.snd_up - seq, 65535)
            flags |= wire.URG
        if self.use_ts:
            length = 32 + size
            header = _build_with_timestamp(
                first_word, length, self.same, seq & MASK, rcv_nxt & MASK, 0x8000 | flags, window,
                (self.psum + length) % 65535, urgent,
                wire.TIMESTAMP_HEAD, (now // 1000 + self.ts_offset) & MASK, self.ts_recent,
            )  # fmt: skip
        else:
            length = 20 + size
            header = wire.build_segment(
                first_word, length, self.same, seq & MASK, rcv_nxt & MASK, 0x5000 | flags, window,
                (self.psum + length) % 65535, urgent,
            )  # fmt: skip
        self.out.append((header, payload, gso_size, wire.CHECKSUM))
        self.last_ack_sent = rcv_nxt
        self.ack_due = 0
        self.ack_now = False
        self.ack_at = NEVER
        self.ctx.counters.segments_out += 1 if not gso_size else -(-size // gso_size)

    def _emit_with_options(
        self, flags: int, seq: int, options: bytes, window: int, payload: Buffer = b"", urgent: int = 0
    ) -> None:
        """A segment in any other shape: SYN, SACK, RST."""
        length = 20 + len(options) + len(payload)
        header = wire.build_segment(
            self.first_word, length, self.same, seq & MASK, self.rcv_nxt & MASK if flags & wire.ACK else 0,
            (5 + len(options) // 4) << 12 | flags, window, (self.psum + length) % 65535, urgent,
        )  # fmt: skip
        self.out.append((header + options, payload, 0, wire.CHECKSUM))
        self.ctx.counters.segments_out += 1

    def _emit_accurately(
        self, flags: int, seq: int, payload: Buffer, window: int, now: Micros, first_word: int, sack: bytes = b""
    ) -> None:
        """`_emit` for who counts marks (RFC 9768): each segment says how many have come. Super-segments are cut here:
        who cuts them below us takes the flags for RFC 3168's, and leaves CWR to the first piece."""
        accurate = self.accurate
        assert accurate is not None
        options = tcp_options.timestamp(self._tsval(now), self.ts_recent) if self.use_ts else b""
        options += (accurate.option_bytes() if accurate.option else b"") + sack
        size, mss, usual = len(payload), self.mss, self.first_word
        if not accurate.ect:
            first_word &= ~(3 << 20)
        elif self.policy.ect_everywhere:
            first_word |= ECT0
        self.first_word = first_word
        flags &= ~(wire.CWR | wire.ECE)
        for at in range(0, size or 1, mss):
            these = flags if at + mss >= size else flags & ~(wire.PSH | wire.FIN)
            urgent = min(max(self.snd_up - seq - at, 0), 65535)
            if urgent:
                these |= wire.URG
            piece = payload[at : at + mss]
            self._emit_with_options(these | accurate.feedback(), seq + at, options, window, piece, urgent)
        self.first_word = usual
        self.last_ack_sent = self.rcv_nxt
        self.ack_due = 0
        self.ack_now = False
        self.ack_at = NEVER

    def _send_ack(self, now: Micros, *, challenge: bool = False) -> None:
        """A segment without data: acknowledgement and window, with SACK blocks if there are gaps (RFC 2018, 2883).

        `challenge`: RFC 5961's <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK>, and nothing more.
        """
        if self.use_sack and (self.assembler is not None or self.dsack is not None):
            most = 3 if self.use_ts else 4
            if self.accurate is not None and self.accurate.option:
                most -= 2 if self.use_ts else 1
            blocks = [] if self.dsack is None else [self.dsack]
            if self.assembler is not None:
                blocks += self.assembler.blocks(most)
            self.dsack = None
            options = tcp_options.timestamp(self._tsval(now), self.ts_recent) if self.use_ts else b""
            sack = tcp_options.sack([(start & MASK, end & MASK) for start, end in blocks[:most]])
            if self.accurate is not None:
                self._emit_accurately(wire.ACK, self.snd_nxt, b"", self._window(), now, self.first_word, sack)
                return
            options += sack
            flags = wire.ACK | wire.ECE if self.ce_seen else wire.ACK
            if not challenge and self._repeats_fin():
                flags |= wire.FIN
            self._emit_with_options(
                flags, self.snd_nxt - 1 if flags & wire.FIN else self.snd_nxt, options, self._window()
            )
            self.last_ack_sent = self.rcv_nxt
            self.ack_due = 0
            self.ack_now = False
            self.ack_at = NEVER
            return
        if not challenge and self._repeats_fin():
            self._emit(wire.ACK | wire.FIN, self.snd_nxt - 1, b"", 0, now, self.first_word)
            return
        self._emit(wire.ACK, self.snd_nxt, b"", 0, now, self.first_word)

    def _repeats_fin(self) -> bool:
        return (
            self.policy.repeats_fin
            and self.state in (st.FIN_WAIT_1, st.CLOSING, st.LAST_ACK)
            and self.snd_una < self.snd_nxt
        )

    def _send_syn(self, now: Micros, grant: bytes | None = None, *, experimental: bool = False) -> None:
        """SYN or SYN-ACK, by the state. A SYN-ACK offers what the peer's SYN offered (RFC 7323 1.3, 2.2).

        `grant`: a Fast Open cookie that a SYN-ACK brings; the one that is sent again does without (RFC 7413 4.2).
        """
        policy = self.policy
        answering = self.state == st.SYN_RECEIVED
        timestamps = None
        if self.use_ts if answering else policy.timestamps:
            timestamps = (self._tsval(now), self.ts_recent if self.use_ts or not answering else 0)
        scale = self.rcv_wscale
        if not (self.snd_wscale >= 0 if answering else policy.window_scaling):
            scale = -1
        sack_permitted = self.use_sack if answering else policy.sack
        if 0 < policy.syn_options_dropped_after < self.retries and not answering:
            # Perhaps something on the path cannot bear options: BSD's last resort.
            timestamps, scale, sack_permitted = None, -1, False
        ctx = self.ctx
        mtu = ctx.pmtu.get(self.pair[:16], now) if policy.announce_path_mtu else ctx.config.link.mtu
        mss = mtu - HEADERS
        if policy.mss:
            mss = min(mss, policy.mss)
        cookie = self._cookie(now) if policy.fast_open and not answering else grant
        ecn, told = self._ecn_of_syn(answering, cookie is None or not self.use_ts)
        options = tcp_options.syn(
            mss if policy.announce_mss else 0,
            window_scale=scale,
            sack_permitted=sack_permitted,
            timestamps=timestamps,
            bsd=policy.bsd_options,
            cookie=cookie,
            experimental=experimental,
            accurate=told,
        )
        # RFC 7323 2.2: "The window field in a segment where the SYN bit is set … MUST NOT be scaled."
        window = self._syn_window()
        flags = wire.SYN | ecn
        if answering:
            self.rcv_adv = max(self.rcv_adv, self.rcv_nxt + window)
            self.last_ack_sent = self.rcv_nxt
            flags |= wire.ACK
        self.syn_flags = flags | self.syn_flags & SYN_DATA
        if ecn and (policy.ecn_plus == 2 or (policy.ecn_plus and answering and not self.retries)):
            self.first_word |= ECT0
        free = policy.fast_open and not policy.fast_open_cookies and self.lease.kind == SHARED and not self.retries
        early = self._early(mss, now, free=free) if (cookie or free) and not answering else b""
        self._emit_with_options(flags, self.iss, options, window, early)
        if policy.ecn_plus < 2 or not self.use_ecn:
            self.first_word &= ~(3 << 20)

    def _ecn_of_syn(self, answering: bool, room: bool) -> tuple[int, bytes]:
        """The flags of a SYN or SYN-ACK that speak of ECN, and the option of RFC 9768 if it fits beside the others."""
        policy, accurate = self.policy, self.accurate
        if answering and accurate is not None:
            # RFC 9768 3.1.4: what is sent again does without the option, and at last without ECN.
            told = accurate.option_bytes() if policy.accurate_ecn_option and room and not accurate.syn_acks else b""
            accurate.syn_acks += 1
            accurate.offered = self.retries < 2
            return flags_of(accurate.handshake) if accurate.offered else 0, told
        if answering:
            return wire.ECE if self.use_ecn else 0, b""
        if not policy.ecn_asks or not self._hears_ecn():
            return 0, b""
        if policy.accurate_ecn == 2:  # RFC 9768 3.1.1, 3.1.4: once more, in case the first was just lost
            return wire.AE | wire.CWR | wire.ECE if self.retries <= max(policy.ecn_syn_retries, 1) else 0, b""
        # RFC 3168 6.1.1.1: without ECN when such SYNs go unanswered
        return wire.ECE | wire.CWR if self.retries <= policy.ecn_syn_retries else 0, b""

    def _syn_window(self) -> int:
        """What a SYN offers, or has offered: a buffer that has become smaller since takes nothing back (SHLD-14)."""
        window, policy = self.rcv_limit, self.policy
        if self.rcv_adv - self.rcv_nxt > window:
            window = self.rcv_adv - self.rcv_nxt
        elif policy.whole_segments:
            segment = self.ctx.config.link.mtu - HEADERS
            if policy.mss:
                segment = min(segment, policy.mss)
            if window > segment:
                window -= window % segment
        return min(window, 65535)

    def _cookie(self, now: Micros) -> bytes | None:
        """Of TCP Fast Open, for this SYN. Who refused is not asked, and a lost SYN goes without (RFC 7413 4.1.3).

        Only a shared address asks: a cookie is bound to the client's address, and an EA never comes again.
        """
        if self.lease.kind != SHARED or self.retries or not self.policy.fast_open_cookies:
            return None
        cookie, _ = self.ctx.cookies.get(self.pair, now)
        return None if cookie == REFUSED else cookie or b""

    def _early(self, mss: int, now: Micros, *, free: bool) -> Buffer:
        """The data that goes with this SYN: as much as its segment holds (RFC 7413 4.2.1)."""
        tx = self.tx
        if tx is None:
            return b""
        ctx = self.ctx
        limit = min(mss, ctx.pmtu.get(self.pair[:16], now) - HEADERS)
        end = min(tx.end, tx.start + ctx.cookies.room(self.pair, limit, now, free=free))
        self.snd_nxt = max(self.snd_nxt, end)
        return tx.slice(tx.start, end) if end > tx.start else b""

    def _offered_scale(self) -> int:
        """RFC 7323 2.3: enough to offer the largest buffer we may grow to."""
        if not self.policy.window_scaling:
            return 0
        # The smallest with 65535 << scale >= receive_buffer_max
        return min((-(-self.policy.receive_buffer_max // 65535) - 1).bit_length(), 14)

    def _send_rst(self, seq: int, *, ack: bool, now: Micros) -> None:
        # RFC 7323 3.2: the option "SHOULD be sent in an <RST> segment"; not in one that answers a bad ACK.
        options = tcp_options.timestamp(self._tsval(now), self.ts_recent) if ack and self.use_ts else b""
        window = self._window() if ack and self.policy.window_in_resets else 0
        self._emit_with_options(wire.RST | wire.ACK if ack else wire.RST, seq, options, window)

    def _give_up(self, now: Micros, *, asked: bool = False) -> None:
        """Nobody has answered for long enough. `asked`: by keep-alive probes."""
        if self.policy.resets_given_up > (0 if asked else 1):
            self._send_rst(self.snd_nxt, ack=True, now=now)
        self.finish(Reason.TIMED_OUT, now)

    def _tsval(self, now: Micros) -> int:
        return (now // 1000 + self.ts_offset) & MASK

    def _window(self) -> int:
        """The window field. Its right edge never moves back, and moves ahead only by a useful step.

        RFC 9293 3.8.6.2.2 (MUST-39): an advance of less than a segment, or half the buffer, waits.
        """
        rx = self.rx
        limit = self.rcv_limit
        nxt = self.rcv_nxt
        before = adv = self.rcv_adv
        free = limit if rx is None else limit - rx.size
        step = nxt + free - adv
        if step > 0 and (
            step >= self.mss or 2 * step >= limit or (self.policy.round_receive_buffer and free >= self.mss)
        ):
            adv += step  # BSD offers whatever there is, as long as it is a segment
        scale = self.rcv_wscale
        window = (adv - nxt + (1 << scale) - 1) >> scale
        if window > 65535:  # more than the field can say was not offered (BSD takes it all the same)
            window = 65535
            self.rcv_adv = adv if self.policy.round_receive_buffer else nxt + (window << scale)
            return window
        # Rounded up, or the right edge would move back (RFC 7323 2.4); so what the rounding promises must be taken.
        if self.policy.round_receive_buffer and nxt + (window - 1 << scale) >= before:
            self.rcv_adv = adv
            return adv - nxt >> scale  # BSD rounds down, as long as the edge moves ahead
        promised = nxt + (window << scale)
        self.rcv_adv = promised if promised > adv else adv
        return window


def send_parting_reset(
    ctx: Context,
    pair: bytes,
    local_port: int,
    remote_port: int,
    seq: int,
    ack: int,
    use_ts: bool,
    ts_recent: int,
    now: Micros,
) -> None:
    """The RST that `abort` would send, for a session that sleeps: there is no `Emit` then, only these numbers."""
    secret = session_secret(ctx.entropy, pair, local_port << 16 | remote_port)
    policy = ctx.config.tcp
    options = tcp_options.timestamp((now // 1000 + timestamp_offset(secret)) & MASK, ts_recent) if use_ts else b""
    length = 20 + len(options)
    header = wire.build(
        0x60000000 | policy.traffic_class >> 2 << 22 | flow_label(secret), length, TCP,
        policy.hop_limit or ctx.config.hop_limit, pair[16:], pair[:16], local_port, remote_port, seq, ack,
        (5 + len(options) // 4) << 12 | wire.RST | wire.ACK, 0, pseudo_sum(pair, length, TCP), 0,
    )  # fmt: skip
    ctx.queue_for(pair[:16]).append((header + options, b"", 0, wire.CHECKSUM))
    ctx.counters.segments_out += 1
