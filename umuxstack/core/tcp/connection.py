"""A TCP session at work: segment arrives (RFC 9293 3.10.7, in its order), deadlines, and what can be changed under way.

First the path that nearly all segments take, then the RFC's checks one by one.
Unified rules that differ from the RFC are named where they act (UM-23, UM-33).
"""

# RFC 9293 appendix B: MUST-3, MUST-24, MUST-26, MUST-29, MUST-66, SHLD-8, SHLD-12, SHLD-21, SHLD-22, MAY-5, MAY-12;
# UM-35.a, UM-35.e, UM-35.h, UM-35.t, UM-35.u, UM-35.w; 8504-5.12-1

from typing import Final

from umuxstack.core.errors import Drop, Reason
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.congestion.registry import find, make
from umuxstack.core.tcp.marks import Marks
from umuxstack.core.tcp.receive import MORE_TO_COME
from umuxstack.core.tcp.seq import MASK, unwrap
from umuxstack.core.tcp.statistics import TcpStatistics
from umuxstack.core.tcp.tcb import HANDSHAKE, PERSIST, PUSH, SYN_DATA
from umuxstack.core.units import NEVER, TCP, Micros, seconds
from umuxstack.core.wire import tcp as wire
from umuxstack.core.wire import tcp_options
from umuxstack.core.wire.checksum import checksum_ok

_ORDINARY: Final = 0x8010  # 32 bytes of header, ACK
_FIELDS = wire.FIELDS_OF_SESSION.unpack_from
_FIELDS_WITH_TIMESTAMP = wire.FIELDS_WITH_TIMESTAMP.unpack_from
CHALLENGE_BURST: Final = seconds(1)
_PAWS_IDLE: Final = seconds(24 * 24 * 3600)  # RFC 7323 5.5: after 24 days without traffic the old value is no guide


class Connection(Marks):
    """One TCP session over one pair of addresses, while it is awake; the application holds a `TcpSession`."""

    __slots__ = ()

    # Segment arrives

    def receive(
        self, buf: bytes, base: int, offset: int, end: int, protocol: int, gso_size: int, csum_ok: bool, now: Micros
    ) -> None:
        counters = self.ctx.counters
        if protocol != TCP:
            counters.drops[Drop.FOREIGN_PROTOCOL] += 1
            return
        size = end - offset
        if size < 20:
            counters.drops[Drop.BAD_HEADER] += 1
            return
        if not csum_ok and not checksum_ok(buf, base, offset, end, TCP):
            counters.drops[Drop.BAD_CHECKSUM] += 1
            return
        counters.segments_in += 1
        if size >= 32:
            ports, seq, ack, bits, window, _, urgent, head, tsval, tsecr = _FIELDS_WITH_TIMESTAMP(buf, offset)
        else:
            ports, seq, ack, bits, window, _, urgent, head, tsval, tsecr = *_FIELDS(buf, offset), 0, 0, 0
        if ports != self.ports:
            self._other_ports(buf, base, offset, end, ports >> 16, ports & 0xFFFF, seq, bits, now)
            return
        if self.ctx.trace is not None:
            self.ctx.clock = now
        if head == wire.TIMESTAMP_HEAD and bits & 0xFFF6 == _ORDINARY and self.use_ts and not self.use_ecn:
            nxt = self.rcv_nxt
            una = self.snd_una
            acked = ack - una & MASK
            if seq == nxt & MASK and (tsval - self.ts_recent) & MASK < 0x80000000 and acked <= self.snd_nxt - una:
                # The path that nearly all segments take: in order, nothing but a timestamp (RFC 7323 5).
                if self._in_order(
                    buf, offset + 32, end, bits & wire.FIN, una + acked, window, tsval, tsecr, gso_size, now
                ):
                    return
        header = (bits >> 12) * 4
        if header < 20 or header > size:
            counters.drops[Drop.BAD_HEADER] += 1
            return
        if self.state == st.SYN_SENT:
            self._in_syn_sent(buf, base, offset, end, header, seq, ack, bits & 0xFF, window, now)
            if self.rcv_nxt == self.peer_fin and self.state == st.ESTABLISHED:
                self._fin_received(now)
            return
        self._segment(buf, base, offset, end, header, seq, ack, bits & 0xFF, window, urgent, gso_size, now)

    def _in_order(
        self,
        buf: bytes,
        start: int,
        end: int,
        fin: int,
        ack: int,
        window: int,
        tsval: int,
        tsecr: int,
        gso_size: int,
        now: Micros,
    ) -> bool:
        """`_segment` for the next segment in order, that acknowledges what was sent and is all in the window.

        False: it needs a closer look; nothing was done.
        """
        state = self.state
        nxt = self.rcv_nxt
        if state < st.ESTABLISHED:
            if state != st.SYN_RECEIVED or ack != self.snd_nxt or self.door is None or fin or self.cc is not None:
                return False
        elif (fin or start < end) and (state not in MORE_TO_COME or nxt + end - start + fin > self.rcv_adv):
            return False
        self.heard_at = now
        if self.last_ack_sent >= nxt:
            self.ts_recent = tsval
            self.ts_recent_at = now
        if state == st.SYN_RECEIVED:
            if not self._handshake_done(ack, nxt, window, tsecr, now):
                return True
        else:
            window <<= self.snd_wscale
            if ack > self.snd_una and window == self.snd_wnd and self.loss is None:
                self.snd_wl1 = nxt
                self.snd_wl2 = ack
                self._on_plain_ack(ack, tsecr, now)
                tx = self.tx
                if (tx is not None and self.snd_nxt < tx.end) or self.fin_queued:
                    self.hold = 0
                    self.touch()
            elif window != self.snd_wnd or self.board or self.hold:
                self._established_ack(nxt, ack, window, None, tsecr, start == end and not fin, now)
            if state >= st.FIN_WAIT_1 and not self._after_ack(now):
                return True
        if start < end:
            self._text(buf, start, end, nxt, gso_size, now)
            if self.end_reason:
                return True
        if fin and self.peer_fin < 0:
            self.peer_fin = nxt + end - start
        if self.rcv_nxt == self.peer_fin:  # now, or a FIN had overtaken this
            self._fin_received(now)
        return True

    def _segment(
        self,
        buf: bytes,
        base: int,
        offset: int,
        end: int,
        header: int,
        seq: int,
        ack: int,
        flags: int,
        window: int,
        urgent: int,
        gso_size: int,
        now: Micros,
    ) -> None:
        """RFC 9293 3.10.7.4, all states from SYN-RECEIVED on."""
        ctx = self.ctx
        drops = ctx.counters.drops
        state = self.state
        start = offset + header
        size = end - start
        seq = unwrap(seq, self.rcv_nxt)
        # RFC 9293 3.5.3 (SHLD-2): a RST may carry data, which explains it and takes no room in the window.
        length = 0 if flags & wire.RST else size + (flags & wire.SYN > 0) + (flags & wire.FIN > 0)
        options = tcp_options.parse(buf, offset + 20, start) if header > 20 else None

        # RFC 7323 5.3 R1: PAWS comes before everything but RST.
        if self.use_ts and not flags & wire.RST:
            if options is None or not options.timestamp:
                # RFC 7323 3.2: "If a non-<RST> segment is received without a TSopt, a TCP SHOULD silently drop"
                if state >= st.ESTABLISHED and not self.policy.tolerate_missing_timestamps:
                    drops[Drop.PAWS] += 1
                    return
            elif (options.tsval - self.ts_recent) & MASK > 0x80000000 and now - self.ts_recent_at < _PAWS_IDLE:
                drops[Drop.PAWS] += 1
                if self._may_challenge(now) or size:
                    self._send_ack(now)
                return

        # "First, check sequence number"
        nxt = self.rcv_nxt
        if state == st.SYN_RECEIVED and self.door is None and flags & (wire.SYN | wire.ACK) == wire.SYN | wire.ACK:
            if seq + 1 == nxt:
                # Figure 7: in a simultaneous open the peer's SYN comes again, now with the ACK of ours.
                seq, length, flags = nxt, length - 1, flags & ~wire.SYN
        edge = self.rcv_adv
        if not self._acceptable(seq, length, nxt, edge) and not (
            # A window that is shut takes a FIN all the same, if it is next (Linux); RFC 9293 3.4: nothing.
            flags & wire.FIN and not size and seq == nxt and self.policy.takes_beyond_window
        ):
            drops[Drop.OUT_OF_WINDOW] += 1
            if flags & wire.RST:
                return
            if state == st.SYN_RECEIVED and flags & (wire.SYN | wire.ACK) == wire.SYN and seq == self.snd_wl1:
                self._syn_again(buf, base, offset)
                self._send_syn(now)  # the peer's SYN again: our SYN-ACK was lost
                return
            if size and self.use_sack and seq < nxt:
                self.dsack = (seq, min(seq + size, nxt))  # RFC 2883 4: what came twice
                self._count_again(buf, base, size, gso_size)
            if flags & wire.SYN:
                self._reflects(buf, base)
                if self._may_challenge(now):
                    self._send_ack(now, challenge=True)
            elif size or flags & wire.FIN or self._may_challenge(now):
                # Without our own FIN again (`repeats_fin`): both would be out of the window, and answered for ever.
                self._send_ack(now, challenge=flags & wire.FIN > 0)
            return

        # "Second, check the RST bit"
        if flags & wire.RST:
            self._reset_received(seq, nxt, now)
            return

        # "Fourth, check the SYN bit"
        if flags & wire.SYN:
            # RFC 5961 4.2: "TCP MUST send an ACK (challenge ACK) to the remote peer", whatever the sequence.
            drops[Drop.BAD_FLAGS] += 1
            self._reflects(buf, base)
            if self.policy.syn_in_window and seq < edge:  # RFC 793: "it is an error, send a reset"
                self._send_rst(self.snd_nxt, ack=True, now=now)
                self.finish(Reason.RESET, now)
            elif self._may_challenge(now):
                self._send_ack(now, challenge=True)
            return

        # "Fifth, check the ACK field": "if the ACK bit is off, drop the segment and return"
        if not flags & wire.ACK:
            drops[Drop.BAD_FLAGS] += 1
            return
        ack = unwrap(ack, self.snd_una)
        if state == st.SYN_RECEIVED:
            if not self.snd_una < ack <= self.snd_nxt:
                drops[Drop.BAD_ACK] += 1
                self._send_rst(ack, ack=False, now=now)
                return
            self._take_stamp(options, seq, now)
            tsecr = options.tsecr if options is not None and options.timestamp else -1
            if self.cc is not None:
                self._confirmed(tsecr, now)
                state = st.ESTABLISHED
            elif not self._handshake_done(ack, seq, window, tsecr, now):
                return
            if self.accurate is not None:
                self._third_ack(buf, base, offset, size, gso_size, options, state == st.ESTABLISHED, now)
        if state != st.SYN_RECEIVED:
            window <<= self.snd_wscale
            if ack > self.snd_nxt or ack < self.snd_una - max(self.max_window, 65535):
                # RFC 5961 5.2: outside SND.UNA - MAX.SND.WND … SND.NXT: challenge ACK and drop.
                drops[Drop.BAD_ACK] += 1
                ignored = ack > self.snd_nxt and state == st.ESTABLISHED and not self.policy.answers_early_acks
                if not ignored and self._may_challenge(now):
                    self._send_ack(now)
                return
            # A sign of life (RFC 1122 4.2.3.6), and not before: all that was refused anybody can send.
            self.heard_at = now
            delivered, stamp = self.delivered, self.ts_recent
            self._take_stamp(options, seq, now)
            if ack >= self.snd_una:
                blocks = None
                tsecr = -1
                if options is not None:
                    if options.timestamp:
                        tsecr = options.tsecr
                    if options.sack and self.use_sack:
                        una = self.snd_una
                        blocks = [(unwrap(first, una), unwrap(last, una)) for first, last in options.sack]
                if self.use_ecn:
                    self._congestion_marks(buf, base, flags, size, gso_size, ack, now)
                self._established_ack(seq, ack, window, blocks, tsecr, not length, now)
                if self.accurate is not None:
                    self._told(buf, offset, options, delivered, ack, stamp, now)
            elif options is not None and options.sack and self.use_sack and (self.board or self.loss is not None):
                una = self.snd_una
                self._late_blocks(ack, [(unwrap(first, una), unwrap(last, una)) for first, last in options.sack], now)
            if self.end_reason:
                return
        if not self._after_ack(now):
            return

        # "Sixth, check the URG bit"
        if flags & wire.URG and self.state in (st.ESTABLISHED, st.FIN_WAIT_1, st.FIN_WAIT_2):
            self._urgent_received(seq + urgent, now)
        # "Seventh, process the segment text"
        state = self.state
        if size:
            if state in (st.ESTABLISHED, st.FIN_WAIT_1, st.FIN_WAIT_2):
                self._text(buf, start, end, seq, gso_size, now)
                if self.end_reason:
                    return
            else:
                drops[Drop.AFTER_CLOSE] += 1  # after the peer's FIN: "This should not occur"

        # "Eighth, check the FIN bit"
        if flags & wire.FIN:
            if self.peer_fin < 0:
                self.peer_fin = seq + size + (1 if flags & wire.SYN else 0)
            if not size and seq > self.rcv_nxt:
                self._send_ack(now)  # beyond a gap: a duplicate ACK (RFC 5681 4.2), as `_text` sends for data
        if self.peer_fin >= 0 and self.rcv_nxt == self.peer_fin:
            self._fin_received(now)

    def _take_stamp(self, options: tcp_options.Options | None, seq: int, now: Micros) -> None:
        """RFC 7323 4.3 (2); not of a segment whose ACK is wrong, or a forged one could shut out the peer (PAWS)."""
        if options is not None and options.timestamp and self.use_ts and seq <= self.last_ack_sent:
            self.ts_recent = options.tsval
            self.ts_recent_at = now

    def _acceptable(self, seq: int, length: int, nxt: int, edge: int) -> bool:
        """The table of RFC 9293 3.4, with one widening: see below."""
        if not length:
            # A peer that has filled the window sends its bare ACKs from the window's right edge. The RFC's table
            # refuses them (its own 3.10.7.4 asks for "special allowance"); every stack takes them.
            return nxt <= seq <= edge
        if edge == nxt:
            return False
        return seq < edge and seq + length > nxt

    def _reset_received(self, seq: int, nxt: int, now: Micros) -> None:
        """RFC 9293 3.10.7.4 second check, with RFC 5961 3.2: only the exact sequence number resets."""
        outside = seq >= self.rcv_adv  # "If the RST bit is set and … outside the current receive window", silence
        if seq != nxt and (outside or not self.policy.rst_in_window):
            self.ctx.counters.drops[Drop.OUT_OF_WINDOW] += 1
            if not outside and self._may_challenge(now):
                self._send_ack(now, challenge=True)
            return
        if self.state == st.SYN_RECEIVED and self.door is not None:
            self.finish(Reason.RESET, now)  # UM-23: the candidate goes, the LISTEN_U stays
            return
        refused = self.state == st.SYN_RECEIVED
        self.finish(Reason.REFUSED if refused else Reason.RESET, now)

    def _established_ack(
        self, seq: int, ack: int, window: int, blocks: list[tuple[int, int]] | None, tsecr: int, pure: bool, now: Micros
    ) -> None:
        """The ACK field and the window, in ESTABLISHED and later. `ack` lies in snd_una … snd_nxt."""
        una = self.snd_una
        same_window = window == self.snd_wnd
        if self.board and (ack > una or blocks or (pure and same_window)):
            self._on_ack(ack, blocks, tsecr, ack == una and pure and same_window, pure, now)
        elif blocks and blocks[0][1] <= ack and self.loss is not None:
            self._duplicate_reported(self.loss, blocks[0], now)
        # "if (SND.WL1 < SEG.SEQ or (SND.WL1 = SEG.SEQ and SND.WL2 =< SEG.ACK)), set SND.WND <- SEG.WND"
        if self.snd_wl1 < seq or (self.snd_wl1 == seq and self.snd_wl2 <= ack):
            self.snd_wl1 = seq
            self.snd_wl2 = ack
            if not same_window:
                if not self.snd_wnd and self.board and self.retries:  # it had shut over what is outstanding
                    self.retries = 0
                    self._set_timer(now, restart=True)
                self.snd_wnd = window
                if window > self.max_window:
                    self.max_window = window
                if self.rto_kind == PERSIST and window:
                    self.rto_at = NEVER
                    self.retries = 0
                    self._arm()
        tx = self.tx
        if (tx is not None and self.snd_nxt < tx.end) or self.fin_queued:
            self.hold = 0  # whoever said that more would follow has had this long
            self.touch()

    def _other_ports(
        self, buf: bytes, base: int, offset: int, end: int, sport: int, dport: int, seq: int, bits: int, now: Micros
    ) -> None:
        """UM-33: a segment of our pair with other ports is not ours; ports are a validity check here."""
        pure_syn = bits & (wire.SYN | wire.ACK | wire.RST | wire.FIN) == wire.SYN and sport and dport
        door = self.door
        if pure_syn and door is not None and door.on_second_syn(self, buf, base, offset, end, now):
            return
        self.ctx.counters.drops[Drop.OTHER_PORTS] += 1
        if not pure_syn or self.state < st.ESTABLISHED or not self.ctx.config.reset_second_syn:
            return
        if self._may_challenge(now):
            # Its ports swapped, so that the peer's new attempt fails at once instead of hanging.
            length = end - offset - (bits >> 12) * 4
            pair = self.pair
            header = wire.build(
                0x60000000, 20, TCP, self.hop_limit, pair[16:], pair[:16], dport, sport,
                0, (seq + length + 1) & MASK, 0x5000 | wire.RST | wire.ACK, 0, (self.psum + 20) % 65535, 0,
            )  # fmt: skip
            self.out.append((header, b"", 0, wire.CHECKSUM))

    def _may_challenge(self, now: Micros) -> bool:
        """RFC 5961 7 asks for a limit. Ours is per session: a global one tells third parties about us."""
        at = max(self.challenge_at, now - CHALLENGE_BURST)
        at += 1_000_000 // self.policy.challenge_acks_per_second
        if at > now:
            self.ctx.counters.drops[Drop.RATE_LIMITED] += 1
            return False
        self.challenge_at = Micros(at)
        return True

    # Deadlines

    def on_deadline(self, now: Micros) -> None:
        if self.end_reason:
            return
        if self.ack_at <= now:
            self.ack_at = NEVER
            if self.ack_due:
                self._send_ack(now)
        if self.rto_at <= now:
            if self.rto_kind == HANDSHAKE:
                self._handshake_timeout(now)
            elif self.rto_kind == PERSIST:
                self._persist(now)
            else:
                self._timer_fired(now)
        if self._is_over():
            return
        if self.pace_at <= now:
            self.pace_at = NEVER
            self.touch()
        if self.aux_at <= now:
            self.aux_at = NEVER
            self._aux(now)
        if not self._is_over():
            self._arm()

    def _is_over(self) -> bool:
        return bool(self.end_reason)

    def _aux(self, now: Micros) -> None:
        """FIN-WAIT-2 of an orphan is over, or a keep-alive is due (RFC 9293 3.8.4)."""
        policy = self.policy
        if self.state == st.FIN_WAIT_2 and self.orphan:
            self._leave_record(Reason.CLOSED, policy.time_wait, now, reset=True)
            return
        if not policy.keepalive or not st.ESTABLISHED <= self.state <= st.FIN_WAIT_2:
            return
        idle = now - self.heard_at
        if idle < policy.keepalive_idle:
            self.aux_at = Micros(self.heard_at + policy.keepalive_idle)
            return
        probes = (idle - policy.keepalive_idle) // policy.keepalive_interval
        if probes >= policy.keepalive_count or (policy.user_timeout and idle > policy.user_timeout and probes):
            self._give_up(now, asked=True)
            return
        if not self.board:  # otherwise the retransmission timer asks already
            self._emit(wire.ACK, self.snd_una - 1, b"", 0, now, self.first_word)
        self.aux_at = Micros(now + policy.keepalive_interval)

    # The application's side

    def configure(self, **changes: object) -> None:
        name = changes.get("congestion")
        if name is not None:
            find(str(name), self.ctx.congestion)
        super().configure(**changes)
        if self.end_reason:
            return  # a keep-alive of what has ended would never be heard
        now = self.heard_at
        if name is not None and self.cc is not None:
            old = self.cc  # TCP_CONGESTION: the new algorithm begins where the old one stood
            self.cc = make(str(name), self.mss, self.policy.initial_window * self.mss, self.ctx.congestion)
            self.cc.cwnd, self.cc.ssthresh = old.cwnd, old.ssthresh
        if "keepalive" in changes or "keepalive_idle" in changes:
            self.aux_at = Micros(now + self.policy.keepalive_idle) if self.policy.keepalive else NEVER
            self._arm()
        if changes.get("nodelay"):
            self.hold = PUSH  # what waits goes out, corked or not
            self.touch()
        if changes.get("cork") is False:
            self.touch()
        if "traffic_class" in changes:
            self.first_word = self.first_word & ~0xFC00000 | self.policy.traffic_class >> 2 << 22
        if "hop_limit" in changes:
            pair = self.pair
            self.same = wire.SAME.pack(TCP, self.hop_limit, pair[16:], pair[:16], self.local_port, self.remote_port)
        if "receive_buffer" in changes:
            if self.state == st.SYN_SENT:  # what the SYN offered stays open; the peer's number comes to it
                self.rcv_adv = self._syn_window()
            self.rcv_limit = max(self.policy.receive_buffer, self.mss)

    def statistics(self) -> TcpStatistics:
        """A snapshot, named after `struct tcp_info` where the fields fit; times in microseconds, sizes in bytes."""
        cc, loss, tx, rx = self.cc, self.loss, self.tx, self.rx
        return TcpStatistics(
            state=self.state_name,
            rto=self.rto,
            srtt=self.srtt,
            rttvar=self.rttvar,
            min_rtt=self.min_rtt,
            snd_mss=self.mss,
            snd_cwnd=0 if cc is None else cc.cwnd,
            snd_ssthresh=0 if cc is None else cc.ssthresh,
            congestion=self.policy.congestion,
            in_flight=self.pipe,
            unacked=self.snd_nxt - self.snd_una,
            notsent=0 if tx is None else tx.end - self.snd_nxt if tx.end > self.snd_nxt else 0,
            sacked=0 if loss is None else loss.sacked,
            lost=0 if loss is None else loss.lost,
            retransmits=self.retries,
            total_retrans=self.retransmits,
            snd_wnd=self.snd_wnd,
            rcv_wnd=self.rcv_adv - self.rcv_nxt,
            rcv_space=self.rcv_limit,
            unread=0 if rx is None else rx.size,
            timestamps=self.use_ts,
            sack=self.use_sack,
            ecn=self.use_ecn,
            syn_data=bool(self.syn_flags & SYN_DATA),
            snd_wscale=self.snd_wscale,
            rcv_wscale=self.rcv_wscale,
        )
