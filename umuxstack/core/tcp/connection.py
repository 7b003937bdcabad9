"""A TCP session at work: segment arrives (RFC 9293 3.10.7, in its order), and the application's verbs.

First the path that nearly all segments take, then the RFC's checks one by one.
Unified rules that differ from the RFC are named where they act (UM-23, UM-33).
"""

# RFC 9293 appendix B: MUST-3, MUST-11, MUST-12, MUST-22, MUST-24, MUST-26, MUST-29, MUST-54, MUST-66, SHLD-3,
# SHLD-8, SHLD-12, SHLD-21, SHLD-22, SHLD-25, SHLD-26, MAY-1, MAY-5, MAY-12; UM-35.a, UM-35.b, UM-35.c, UM-35.d,
# UM-35.e, UM-35.h, UM-35.t, UM-35.u, UM-35.w; 4443-5.2-1, 8201-5.2-7, 8201-5.2-9, 8201-5.4-6, 8201-5.4-7, 8504-5.12-1

from typing import Final, Self

from umuxstack.core.address.lease import SHARED, Lease
from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import Drop, Reason
from umuxstack.core.events import EventKind
from umuxstack.core.session.context import Context
from umuxstack.core.session.fast_open import REFUSED, is_cookie
from umuxstack.core.session.receive_buffer import Assembler, ReceiveBuffer, piece
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.congestion.registry import find, make
from umuxstack.core.tcp.emit import ECT0
from umuxstack.core.tcp.quiet import Quiet, remember
from umuxstack.core.tcp.receive import MORE_TO_COME, ReceiveHalf
from umuxstack.core.tcp.seq import MASK, unwrap
from umuxstack.core.tcp.statistics import TcpStatistics
from umuxstack.core.tcp.tcb import HANDSHAKE, HEADERS, LOST, PERSIST, PUSH, SMALLEST, SYN_DATA, Loss
from umuxstack.core.units import NEVER, TCP, Buffer, Micros, seconds
from umuxstack.core.wire import icmpv6, tcp_options
from umuxstack.core.wire import tcp as wire
from umuxstack.core.wire.checksum import checksum_ok

_ESTABLISHED: Final = EventKind.SESSION_ESTABLISHED
_ORDINARY: Final = 0x8010  # 32 bytes of header, ACK
_FIELDS = wire.FIELDS_OF_SESSION.unpack_from
_FIELDS_WITH_TIMESTAMP = wire.FIELDS_WITH_TIMESTAMP.unpack_from
_CHALLENGE_BURST: Final = seconds(1)
_PAWS_IDLE: Final = seconds(24 * 24 * 3600)  # RFC 7323 5.5: after 24 days without traffic the old value is no guide

Syn = tuple[int, int, int, tcp_options.Options]
"""What a SYN says: sequence, flags, window, options."""


class Connection(ReceiveHalf):
    """One TCP session over one pair of addresses, while it is awake; the application holds a `TcpSession`."""

    __slots__ = ()

    # Beginning

    @classmethod
    def active(
        cls,
        ctx: Context,
        pair: bytes,
        lease: Lease,
        local_port: int,
        remote_port: int,
        policy: TcpPolicy,
        now: Micros,
        early: Buffer = b"",
    ) -> Self:
        """RFC 9293 3.10.1, active OPEN: SYN goes out, with `early` data if Fast Open can. The caller registers it."""
        self = cls(ctx, pair, lease, local_port, remote_port, now, policy)
        self.rcv_wscale = self._offered_scale()
        self._enter(st.SYN_SENT)
        self.snd_nxt = self.iss + 1
        if early:
            self.write(early, now)
        self._send_syn(now)
        self._start_handshake_timer(now)
        ctx.note(now, EventKind.SESSION_OPENED, lease, pair)
        return self

    @classmethod
    def passive(
        cls,
        ctx: Context,
        pair: bytes,
        lease: Lease,
        ports: tuple[int, int],
        syn: Syn,
        policy: TcpPolicy,
        now: Micros,
    ) -> Self:
        """RFC 9293 3.10.7.2, third: a SYN came to a door. `ports`: ours, theirs; `syn`: sequence, flags, window,
        options."""
        self = cls(ctx, pair, lease, ports[0], ports[1], now, policy)
        seq, flags, window, options = syn
        self.rcv_wscale = self._offered_scale()
        self._enter(st.SYN_RECEIVED)
        self._take_syn(seq, window, options, now)
        self.use_ecn = self._hears_ecn() and flags & (wire.ECE | wire.CWR) == wire.ECE | wire.CWR
        self.snd_nxt = self.iss + 1
        self._send_syn(now)
        self._start_handshake_timer(now)
        return self

    def revive(self, iss: int, irs: int, window: int, options: tcp_options.Options, now: Micros) -> None:
        """As after `passive`, for a SYN that was answered with a cookie (RFC 4987 3.6) and forgotten."""
        self._enter(st.SYN_RECEIVED)
        self.iss = self.snd_una = iss
        self.snd_nxt = iss + 1
        self._take_syn(irs, window, options, now)
        self.rcv_adv = self.rcv_nxt + 65535

    def _take_syn(self, seq: int, window: int, options: tcp_options.Options, now: Micros) -> None:
        policy = self.policy
        self.rcv_nxt = seq + 1
        self.rcv_adv = self.rcv_nxt
        self.last_ack_sent = self.rcv_nxt
        self.use_ts = options.timestamp and policy.timestamps
        self.use_sack = options.sack_permitted and policy.sack
        self.snd_wscale = options.window_scale
        if options.window_scale < 0 or not policy.window_scaling:
            self.snd_wscale = -1  # becomes 0 with the handshake: neither side scales
            self.rcv_wscale = 0
        if self.use_ts:
            self.ts_recent = options.tsval
            self.ts_recent_at = now
        if options.mss:
            self.peer_mss = max(options.mss, SMALLEST)
        self._set_mss(now)
        self.snd_wnd = window
        self.snd_wl1 = seq
        self.snd_wl2 = self.iss
        self.max_window = window
        if policy.round_receive_buffer:
            segment = self.mss + (12 if self.use_ts else 0)
            self.rcv_limit = -(-self.rcv_limit // segment) * segment

    def _start_handshake_timer(self, now: Micros) -> None:
        policy = self.policy
        wait = self.rto
        if self.retries:
            doublings = max(self.retries - policy.syn_linear_timeouts, 0)
            wait = Micros((wait << min(doublings, 16)) + policy.rto_slop)
        at = now + min(wait, policy.rto_max)
        patience = self._patience()
        if patience:
            at = min(at, self.drs_at + patience)
        self.rto_kind = HANDSHAKE
        self.rto_at = Micros(at)
        self._arm()

    def _patience(self) -> int:
        """How long the handshake may take; 0: the number of tries decides."""
        policy = self.policy
        return policy.user_timeout or (policy.connect_timeout if self.state == st.SYN_SENT else 0)

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
        self.heard_at = now
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
            self._in_syn_sent(buf, offset, end, header, seq, ack, bits & 0xFF, window, now)
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
            if state != st.SYN_RECEIVED or ack != self.snd_nxt or self.door is None or fin:
                return False
        elif (fin or start < end) and (state not in MORE_TO_COME or nxt + end - start + fin > self.rcv_adv):
            return False
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
            elif window != self.snd_wnd or self.board:
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

    def _in_syn_sent(
        self, buf: bytes, offset: int, end: int, header: int, seq: int, ack: int, flags: int, window: int, now: Micros
    ) -> None:
        """RFC 9293 3.10.7.3."""
        drops = self.ctx.counters.drops
        acceptable = False
        if flags & wire.ACK:
            ack = unwrap(ack, self.snd_una)
            # "If SEG.ACK =< ISS or SEG.ACK > SND.NXT, send a reset (unless the RST bit is set …) and discard"
            if ack <= self.iss or ack > self.snd_nxt:
                drops[Drop.BAD_ACK] += 1
                if not flags & wire.RST:
                    self._send_rst(ack, ack=False, now=now)
                return
            acceptable = True
        if flags & wire.RST:
            if acceptable:
                self.finish(Reason.REFUSED, now)
            else:
                drops[Drop.OUT_OF_WINDOW] += 1  # a blind reset (RFC 5961 3.2 demands an acceptable ACK)
            return
        if not flags & wire.SYN or (flags & wire.FIN and not self.policy.syn_fin):
            drops[Drop.BAD_FLAGS] += 1
            return
        start = offset + header
        options = tcp_options.parse(buf, offset + 20, start)
        self._take_syn(seq, window, options, now)
        if acceptable:
            if self.use_ts and options.tsecr:
                elapsed = ((self._tsval(now) - options.tsecr) & MASK) * 1000
                if not self.retries or elapsed < 60_000_000:
                    self._measured(max(elapsed, 1000))
            elif not self.retries:
                self._measured(max(now - self.ts_recent_at, 1000))
            # RFC 3168 6.1.1: for who asked. A peer that offers it unasked is not ECN-capable, only confused.
            self.use_ecn = bool(self.syn_flags & wire.ECE) and flags & (wire.ECE | wire.CWR) == wire.ECE
            if self.use_ecn and self.policy.ecn_plus == 2:
                self.first_word |= ECT0
            if self.policy.fast_open and self.lease.kind == SHARED:
                self._fast_opened(ack, options.cookie, now)
            self.snd_una = ack
            self.snd_wl2 = ack
            self._establish(now)
            if end > start:  # "continue processing at the sixth step"
                self.rcv_adv = self.rcv_nxt + min(self.rcv_limit, 65535)  # what our SYN offered
                self._text(buf, start, end, self.rcv_nxt, 0, now)
                if self.end_reason:
                    return
            # "form an ACK segment … and send it. Data or controls that were queued for transmission MAY be included":
            # it goes at the end of this batch, with what the application writes when it hears of the connection.
            self.ack_now = True
            self.touch()
            return
        self._opened_by_both(buf, start, end, flags, now)

    def _fast_opened(self, ack: int, cookie: bytes | None, now: Micros) -> None:
        """The answer to a SYN that asked for a cookie or showed one (RFC 7413 4.1.3, 4.2.1). What of its data was not
        acknowledged is sent anew as if it had never gone out."""
        cookies, first = self.ctx.cookies, self.iss + 1
        known, _ = cookies.get(self.pair, now)
        if cookie is not None and is_cookie(cookie):
            cookies.learn(self.pair, cookie, self.peer_mss, now)
        elif known:
            cookies.learn(self.pair, known, self.peer_mss, now)  # it goes on being good; the MSS may have changed
        if ack == first and not is_cookie(cookie):
            self._refused(now)
        if self.tx is not None and ack > first:
            if ack == self.snd_nxt:
                self.syn_flags |= SYN_DATA
            self.ctx.memory -= ack - self.tx.start
            self.tx.release(ack)
        self.snd_nxt = ack

    def _refused(self, now: Micros) -> None:
        """RFC 7413 4.1.3: "not acknowledging the data in the SYN, ICMP error messages, and (most importantly) no
        response (SYN-ACK) from the server at all" are remembered, so that the next connection does without."""
        policy, cookies = self.policy, self.ctx.cookies
        if policy.fast_open and policy.remember_refusals and self.lease.kind == SHARED:
            if cookies.get(self.pair, now)[0] != REFUSED:
                cookies.learn(self.pair, REFUSED, 0, now)

    def _opened_by_both(self, buf: bytes, start: int, end: int, flags: int, now: Micros) -> None:
        """Simultaneous open. "enter SYN-RECEIVED, form a SYN,ACK segment and send it" (MUST-10)."""
        self._enter(st.SYN_RECEIVED)
        self.retries = 0
        self.snd_nxt = self.iss + 1  # data that a Fast Open sent is not known to have come
        self.use_ecn = self._hears_ecn() and flags & (wire.ECE | wire.CWR) == wire.ECE | wire.CWR
        if end > start and not self._pressed():
            # "If there are other controls or text in the segment, queue them for processing after the ESTABLISHED
            # state has been reached". The text waits where what came too early waits.
            self.assembler = Assembler()
            self.ctx.memory += self.assembler.insert(self.rcv_nxt, piece(buf, start, end))
        self._send_syn(now)
        if self.policy.round_receive_buffer:
            self.rcv_adv = self.rcv_nxt + self.rcv_limit
        self._start_handshake_timer(now)

    def _establish(self, now: Micros) -> None:
        """The handshake is complete."""
        if self.snd_wscale < 0:
            self.snd_wscale = 0
        if self.retries:  # RFC 6298 5.7: a lost SYN
            self.rto = max(self.rto, seconds(3)) if not self.srtt else self.rto
        self.retries = 0
        self._enter(st.ESTABLISHED)
        self.rto_at = NEVER
        policy = self.policy
        segments = policy.initial_window
        self.cc = make(policy.congestion, self.mss, segments * self.mss, self.ctx.congestion)
        self.drs_at = now
        self.delivered_at = now
        if policy.keepalive:
            self.aux_at = Micros(now + policy.keepalive_idle)
        self._arm()
        ctx = self.ctx
        ctx.note(now, _ESTABLISHED, self.lease, self.pair)
        ctx.stay_awake(self, now)
        self._wake()

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
            elif (options.tsval - self.ts_recent) & MASK >= 0x80000000 and now - self.ts_recent_at < _PAWS_IDLE:
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
        if not self._acceptable(seq, length, nxt, edge):
            drops[Drop.OUT_OF_WINDOW] += 1
            if flags & wire.RST:
                return
            if state == st.SYN_RECEIVED and flags & (wire.SYN | wire.ACK) == wire.SYN and seq + 1 == nxt:
                self._send_syn(now)  # the peer's SYN again: our SYN-ACK was lost
                return
            if size and self.use_sack and seq < nxt:
                self.dsack = (seq, min(seq + size, nxt))  # RFC 2883 4: what came twice
            if flags & wire.SYN:
                if self._may_challenge(now):
                    self._send_ack(now, challenge=True)
            elif size or flags & wire.FIN or self._may_challenge(now):
                self._send_ack(now)
            return

        # "Second, check the RST bit"
        if flags & wire.RST:
            self._reset_received(seq, nxt, now)
            return

        # "Fourth, check the SYN bit"
        if flags & wire.SYN:
            # RFC 5961 4.2: "TCP MUST send an ACK (challenge ACK) to the remote peer", whatever the sequence.
            drops[Drop.BAD_FLAGS] += 1
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
            if not self._handshake_done(ack, seq, window, tsecr, now):
                return
        else:
            window <<= self.snd_wscale
            if ack > self.snd_nxt or ack < self.snd_una - max(self.max_window, 65535):
                # RFC 5961 5.2: outside SND.UNA - MAX.SND.WND … SND.NXT: challenge ACK and drop.
                drops[Drop.BAD_ACK] += 1
                ignored = ack > self.snd_nxt and state == st.ESTABLISHED and not self.policy.answers_early_acks
                if not ignored and self._may_challenge(now):
                    self._send_ack(now)
                return
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
                    self._congestion_marks(buf, base, flags, size, ack, now)
                self._established_ack(seq, ack, window, blocks, tsecr, not length, now)
            elif options is not None and options.sack and self.use_sack and (self.board or self.loss is not None):
                una = self.snd_una
                self._late_blocks(ack, [(unwrap(first, una), unwrap(last, una)) for first, last in options.sack], now)
            if self.end_reason:
                return
        if not self._after_ack(now):
            return

        # "Sixth, check the URG bit"
        if flags & wire.URG and self.state in (st.ESTABLISHED, st.FIN_WAIT_1, st.FIN_WAIT_2):
            self._urgent_received(seq + urgent)
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

    def _handshake_done(self, ack: int, seq: int, window: int, tsecr: int, now: Micros) -> bool:
        """SYN-RECEIVED → ESTABLISHED. False when the session did not survive it. `tsecr`: -1 without timestamps."""
        self.snd_una = ack
        if tsecr >= 0 and self.use_ts:
            elapsed = ((self._tsval(now) - tsecr) & MASK) * 1000
            if elapsed < 60_000_000:
                self._measured(max(elapsed, 1000))
        elif not self.retries and self.rto_kind == HANDSHAKE:  # of a cookie nobody knows when it was sent
            self._measured(max(now - self.drs_at, 1000))
        door = self.door
        if door is not None and not door.on_established(self, now):
            self._send_rst(ack, ack=False, now=now)
            self.finish(Reason.LOST_RACE, now)
            return False
        self._establish(now)
        if self.policy.round_receive_buffer:
            self.rcv_adv = max(self.rcv_adv, self.rcv_nxt + self.rcv_limit)  # more than the SYN's 16 bits could say
        self.snd_wnd = window << self.snd_wscale
        self.max_window = self.snd_wnd
        self.snd_wl1 = seq
        self.snd_wl2 = ack
        if self.tx is not None or self.fin_queued:
            self.touch()
        if self.assembler is not None:  # text that came with the SYN of a simultaneous open
            self.rx = ReceiveBuffer()
            self._close_gap(self.rx)
            self.ack_due += 1
            self._wake()
            self.touch()
        return True

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

    def _after_ack(self, now: Micros) -> bool:
        """What our FIN's acknowledgement means in each state (3.10.7.4, fifth). False when nothing is left to do."""
        state = self.state
        if state < st.FIN_WAIT_1 or self.snd_una != self.snd_nxt or self.board:
            return True
        if state == st.FIN_WAIT_1:
            self._enter(st.FIN_WAIT_2)
            if self.orphan:
                self.aux_at = Micros(now + self.policy.fin_wait_2)
                self._arm()
        elif state == st.CLOSING:
            self._time_wait(now, acknowledge=False)
            return False
        elif state == st.LAST_ACK:
            self.finish(Reason.CLOSED, now)
            return False
        return True

    def _fin_received(self, now: Micros) -> None:
        """The peer's FIN is next in order: RCV.NXT advances over it, and the state moves."""
        self.rcv_nxt += 1
        if self.rcv_adv < self.rcv_nxt:
            self.rcv_adv = self.rcv_nxt
        self._wake()
        self.touch()
        state = self.state
        if state == st.ESTABLISHED and self.policy.delays_fin_ack and self.rx is not None:
            self.ack_due += 1  # it counts as a segment: with data before it that waits too, it is acknowledged at once
        else:
            self.ack_now = True
        if state == st.ESTABLISHED:
            self._enter(st.CLOSE_WAIT)
        elif state == st.FIN_WAIT_1:
            self._enter(st.CLOSING)  # ours was not acknowledged, or _after_ack had moved us on
        elif state == st.FIN_WAIT_2:
            self._time_wait(now)

    def _time_wait(self, now: Micros, *, acknowledge: bool = True) -> None:
        """Enters TIME-WAIT: the session is over, a record stays for the peer's retransmitted FIN (UM-36)."""
        if acknowledge or self.ack_now:
            self._send_ack(now)
        self._enter(st.TIME_WAIT)
        self._leave_record(Reason.CLOSED, self.policy.time_wait, now, reset=False)

    def _leave_record(self, reason: Reason, duration: Micros, now: Micros, *, reset: bool) -> None:
        if self.stage is not None and not self.stage.keeps_records:
            self.finish(reason, now)
            return
        record = Quiet(
            self.ctx,
            self.pair,
            self.lease,
            self.stage,
            duration,
            now,
            reset=reset,
            owns_lease=self.owns_lease,
            timestamps=self.use_ts,
            ports=(self.local_port, self.remote_port),
            window=self._window(),
            snd_nxt=self.snd_nxt,
            rcv_nxt=self.rcv_nxt,
            ts_recent=self.ts_recent,
            hop_limit=self.hop_limit,
        )
        remember(self.ctx, record, duration)
        self.finish(reason, now, record)

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
        at = max(self.challenge_at, now - _CHALLENGE_BURST)
        at += 1_000_000 // self.policy.challenge_acks_per_second
        if at > now:
            self.ctx.counters.drops[Drop.RATE_LIMITED] += 1
            return False
        self.challenge_at = Micros(at)
        return True

    def _congestion_marks(self, buf: bytes, base: int, flags: int, size: int, ack: int, now: Micros) -> None:
        """RFC 3168 6.1: echo CE until CWR; answer ECE once per window."""
        if flags & wire.CWR:
            self.ce_seen = False
        if buf[base + 1] >> 4 & 3 == 3:
            self.ce_seen = True
            self.ack_now = size > 0 or self.ack_now  # marked ACKs that answered each other would never end
        if flags & wire.ECE and ack > self.ecn_point and self.cc is not None:
            loss = self.loss
            if loss is None or not loss.phase:
                flight = self.snd_nxt - self.snd_una
                flight = max(flight, self.turn_flight) if self.delivered_at == now else flight
                self.cc.on_ecn(self._in_use(flight), now)
                self.cwr_due = True
            self.ecn_point = self.snd_nxt

    # ICMPv6 errors (RFC 5927, RFC 8201, RFC 9293 3.9.2.2)

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
        opening = self.state in (st.SYN_SENT, st.SYN_RECEIVED) and self.door is None
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

    def _handshake_timeout(self, now: Micros) -> None:
        self.retries += 1
        active = self.state == st.SYN_SENT
        policy = self.policy
        patience = self._patience()
        waited = patience and now - self.drs_at >= patience
        if waited or self.retries > (policy.syn_retries if active else policy.synack_retries):
            if active:
                self._refused(now)
            self.finish(Reason.TIMED_OUT, now)
            return
        if self.retries == policy.report_after:
            self._in_trouble(Reason.TIMED_OUT, now)  # SYNs "in the general way just described" (RFC 9293 3.8.3)
        self.ctx.counters.retransmitted_segments += 1
        self._send_syn(now)
        self._start_handshake_timer(now)

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
            self.finish(Reason.TIMED_OUT, now)
            return
        if not self.board:  # otherwise the retransmission timer asks already
            self._emit(wire.ACK, self.snd_una - 1, b"", 0, now, self.first_word)
        self.aux_at = Micros(now + policy.keepalive_interval)

    # The application's verbs

    def configure(self, **changes: object) -> None:
        name = changes.get("congestion")
        if name is not None:
            find(str(name), self.ctx.congestion)
        super().configure(**changes)
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
            self.rcv_limit = max(self.policy.receive_buffer, self.mss)

    def shutdown(self, now: Micros) -> None:
        """Half-close: FIN after what was written (RFC 9293 3.10.4). Calling it again does nothing."""
        if self.fin_queued or self.end_reason:
            return
        self.fin_queued = True
        if self.state < st.ESTABLISHED:
            return  # queued until the handshake is complete
        self.touch()

    def close(self, now: Micros) -> None:
        """The application is done with the session: nothing more is read. TCP finishes by itself.

        With unread data the peer learns by RST (RFC 9293 3.6.1, RFC 2525 2.17). The address goes with the session.
        """
        if self.orphan:
            return
        self.orphan = True
        unread = (self.rx is not None and self.rx.size) or self.assembler is not None
        self._drop_receive_side()
        if self.end_reason:
            return
        if self.state == st.SYN_RECEIVED and self.door is None:
            self.fin_queued = True  # RFC 9293 3.10.4: a simultaneous open completes, then FIN
            return
        if self.state < st.ESTABLISHED:
            self.finish(Reason.CLOSED, now)
            return
        if unread and self.policy.unread_resets:
            self._abort(Reason.ABORTED, now)
            return
        if self.owns_lease:
            self.ctx.retire(self.lease, now, self.pair)
        self.fin_queued = True
        if self.state == st.FIN_WAIT_2:
            self.aux_at = Micros(now + self.policy.fin_wait_2)
            self._arm()
        else:
            self.touch()

    def abort(self, now: Micros) -> None:
        """RST to the peer, and gone (RFC 9293 3.10.5)."""
        self.orphan = True
        self._drop_receive_side()
        if not self.end_reason:
            self._abort(Reason.ABORTED, now)

    def _abort(self, reason: Reason, now: Micros) -> None:
        if self.state >= st.ESTABLISHED:
            self._send_rst(self.snd_nxt, ack=True, now=now)
            self._leave_record(reason, self.ctx.config.retiring, now, reset=True)
        else:
            if self.state == st.SYN_RECEIVED and self.door is None:
                self._send_rst(self.snd_nxt, ack=True, now=now)
            self.finish(reason, now)

    def end_with_stack(self, now: Micros) -> None:
        """As `abort`, when the whole stack ends: there will be nobody for whom a record could answer."""
        delivered = self.orphan and self.state == st.FIN_WAIT_2
        self.orphan = True
        self._drop_receive_side()
        if not self.end_reason:
            if delivered:  # RST would take from the peer what it has not read yet
                self.finish(Reason.STACK_CLOSED, now)
            elif self.state >= st.ESTABLISHED:
                self._send_rst(self.snd_nxt, ack=True, now=now)
                self.finish(Reason.ABORTED, now)
            else:
                self._abort(Reason.ABORTED, now)

    def _reset_orphan(self, now: Micros) -> None:
        if not self.policy.resets_by_ack:
            self._abort(Reason.ABORTED, now)
            return
        # RFC 9293 3.5.2: "the reset takes its sequence number from the ACK field of the segment", which snd_una is now.
        self._send_rst(self.snd_una, ack=False, now=now)
        self._leave_record(Reason.ABORTED, self.ctx.config.retiring, now, reset=True)

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
            congestion=self.policy.congestion if cc is None else cc.name,
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
