"""The beginning of a TCP session: both ways to open it, both at once, and the handshake's timer.

RFC 9293 3.10.1, 3.10.7.2, 3.10.7.3; RFC 6298 5.7; RFC 7413 for early data. What a handshake agrees upon is
settled here, and nowhere else. Unified rules that differ from the RFC are named where they act (UM-23).
"""

# RFC 9293 appendix B: MUST-11, MUST-22; UM-35.a, UM-35.d, UM-35.h, UM-35.w

from bisect import insort
from typing import Final, Self

from umuxstack.core.address.lease import SHARED, Lease
from umuxstack.core.config import TcpPolicy
from umuxstack.core.errors import Drop, Reason
from umuxstack.core.events import EventKind
from umuxstack.core.session.context import Context
from umuxstack.core.session.fast_open import REFUSED, is_cookie
from umuxstack.core.session.receive_buffer import Assembler, ReceiveBuffer, piece
from umuxstack.core.tcp import state as st
from umuxstack.core.tcp.accurate_ecn import ANSWERS, CE, ON, AccurateEcn, ace_of
from umuxstack.core.tcp.congestion.base import CongestionControl
from umuxstack.core.tcp.congestion.registry import make
from umuxstack.core.tcp.emit import ECT0
from umuxstack.core.tcp.receive import ReceiveHalf
from umuxstack.core.tcp.seq import MASK, unwrap
from umuxstack.core.tcp.tcb import HANDSHAKE, SMALLEST, SYN_DATA
from umuxstack.core.units import NEVER, Buffer, Micros, seconds
from umuxstack.core.wire import tcp as wire
from umuxstack.core.wire import tcp_options

_ESTABLISHED: Final = EventKind.SESSION_ESTABLISHED

Syn = tuple[int, int, int, tcp_options.Options]
"""What a SYN says: sequence, flags, window, options."""


class FastOpen:
    """What a server makes of a SYN's Fast Open option (RFC 7413 4.2.2): `data` is taken and the session is opened
    before its handshake is complete, or a cookie is granted, or neither."""

    __slots__ = ("data", "experimental", "grant")

    def __init__(self, data: bytes | None, grant: bytes | None, *, experimental: bool) -> None:
        self.data = data
        self.grant = grant
        self.experimental = experimental


NO_FAST_OPEN: Final = FastOpen(None, None, experimental=False)


class Opening(ReceiveHalf):
    """From SYN to ESTABLISHED."""

    __slots__ = ()

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
        echo: int = 0,
    ) -> Self:
        """RFC 9293 3.10.1, active OPEN: SYN goes out, with `early` data if Fast Open can. The caller registers it.

        `echo`: the timestamp that the SYN answers though nobody has sent one; RFC 7323 3.2 wants 0.
        """
        self = cls(ctx, pair, lease, local_port, remote_port, now, policy)
        self.ts_recent = echo
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
        fast_open: FastOpen = NO_FAST_OPEN,
    ) -> Self:
        """RFC 9293 3.10.7.2, third: a SYN came to a door. `ports`: ours, theirs; `syn`: sequence, flags, window,
        options."""
        self = cls(ctx, pair, lease, ports[0], ports[1], now, policy)
        seq, flags, window, options = syn
        self.rcv_wscale = self._offered_scale()
        self._enter(st.SYN_RECEIVED)
        self._take_syn(seq, window, options, now)
        asked, classic = flags & (wire.AE | wire.CWR | wire.ECE), wire.CWR | wire.ECE
        if asked and asked != classic and policy.accurate_ecn and self._hears_ecn():
            self._agree_accurately(options.ecn)  # RFC 9768 3.1.2: what is reserved asks for it as well
        else:
            self.use_ecn = asked & classic == classic and self._hears_ecn()
        self.snd_nxt = self.iss + 1
        if fast_open.data is not None:
            self._open_early(fast_open.data)
        self._send_syn(now, fast_open.grant, experimental=fast_open.experimental)
        if self.cc is not None:
            self.rcv_limit = min(self.rcv_limit, 65535)  # all that a SYN can offer; it grows as the application reads
        self._start_handshake_timer(now)
        return self

    def _open_early(self, data: bytes) -> None:
        """RFC 7413 4.2.2: "Buffer the data and notify the application", who may answer at once: a session with a
        congestion control is open. In SYN-RECEIVED its FIN waits, and so do repairs, until its SYN is acknowledged."""
        if data:
            rx = self.rx = ReceiveBuffer()
            rx.chunks.append(data)
            rx.size = len(data)
            self.ctx.memory += rx.size
            self.rcv_nxt += rx.size
            self.syn_flags |= SYN_DATA
        self.snd_wnd += 1  # the SYN, still to be acknowledged, takes no room in it
        self.cc = self._make_congestion_control()

    def _confirmed(self, tsecr: int, now: Micros) -> None:
        """The SYN-ACK of a session that was opened early is acknowledged: it is a session like any other."""
        self.snd_una = self.iss + 1
        self._measure_handshake(tsecr, now)
        if self.door is not None:
            self.door.on_established(self, now)
        self._establish(now)
        if self.orphan:
            self.fin_queued = True
        if self.board:
            self._set_timer(now, restart=True)
        self.touch()

    def _agree_accurately(self, field: int) -> AccurateEcn:
        """Both sides know RFC 9768. `field`: the ECN field of the peer's SYN or SYN-ACK."""
        accurate = self.accurate = AccurateEcn(field)
        self.ce_seen = ON
        self.use_ecn = True
        if field == CE:
            accurate.r_packets += 1
        return accurate

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
        self.rcv_adv += self.rcv_nxt  # more than 0 only after `configure` in SYN-SENT
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
            self.peer_mss = options.mss if options.mss > SMALLEST else SMALLEST
        self._set_mss(now)
        self.snd_wnd = window
        self.snd_wl1 = seq
        self.snd_wl2 = self.iss
        self.max_window = window
        if policy.round_receive_buffer:
            segment = self.mss + (12 if self.use_ts else 0)
            self.rcv_limit = -(-self.rcv_limit // segment) * segment

    def _in_syn_sent(
        self, buf: bytes, base: int, offset: int, end: int, header: int, seq: int, ack: int, flags: int, window: int,
        now: Micros,
    ) -> None:  # fmt: skip
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
        if not flags & wire.SYN or (flags & wire.FIN and not acceptable and not self.policy.syn_fin):
            drops[Drop.BAD_FLAGS] += 1
            return
        start = offset + header
        options = tcp_options.parse(buf, offset + 20, start)
        if acceptable and self.policy.checks_syn_echo and not self._was_sent(options.tsecr, now):
            drops[Drop.BAD_ACK] += 1
            self._send_rst(ack, ack=False, now=now)
            return
        self._take_syn(seq, window, options, now)
        if acceptable:
            self._measure_answer(options, now)
            self._answered_of_ecn(ace_of(buf, offset), buf[base + 1] >> 4 & 3, options, now)
            if self.lease.kind == SHARED and (self.policy.fast_open or self.snd_nxt > self.iss + 1):
                self._fast_opened(ack, options.cookie, now)
            self.snd_una = ack
            self.snd_wl2 = ack
            self._establish(now)
            if end > start:  # "continue processing at the sixth step"
                self.rcv_adv = self.rcv_nxt + self._syn_window()
                self._text(buf, start, end, self.rcv_nxt, 0, now)
                if self.end_reason:
                    return
            if flags & wire.FIN:
                self.peer_fin = unwrap((seq + 1 + end - start) & MASK, self.rcv_nxt)
            # "form an ACK segment … and send it. Data or controls that were queued for transmission MAY be included":
            # it goes at the end of this batch, with what the application writes when it hears of the connection.
            self.ack_now = True
            self.touch()
            if self.accurate is not None:
                self._send_ack(now)  # alone: what it tells of the SYN-ACK has no place in a segment with data
            return
        self._opened_by_both(buf, start, end, flags, now)

    def _answered_of_ecn(self, ace: int, field: int, options: tcp_options.Options, now: Micros) -> None:
        """What a SYN-ACK's three flags say of ECN; `field`: how it came itself."""
        policy = self.policy
        if ace in ANSWERS and policy.accurate_ecn == 2 and policy.ecn_asks and self._hears_ecn():
            accurate = self._agree_accurately(field)
            accurate.take_handshake(ace, policy.ecn_validates)
            if options.accurate is not None:
                accurate.hears_option(policy.accurate_ecn_option)
                self._set_mss(now)
        else:
            # RFC 3168 6.1.1: for who asked. A peer that offers it unasked is not ECN-capable, only confused.
            self.use_ecn = bool(self.syn_flags & wire.ECE) and ace == 1
        if self.use_ecn and policy.ecn_plus == 2:
            self.first_word |= ECT0

    def _measure_answer(self, options: tcp_options.Options, now: Micros) -> None:
        if self.use_ts and options.tsecr:
            elapsed = ((self._tsval(now) - options.tsecr) & MASK) * 1000
            if not self.retries or elapsed < 60_000_000:
                self._measured(elapsed if elapsed > 1000 else 1000)
        elif not self.retries:
            self._measured(max(now - self.ts_recent_at, 1000))

    def _was_sent(self, tsecr: int, now: Micros) -> bool:
        """Whether a SYN of ours can have had this timestamp; 0: nothing is echoed."""
        first, latest = self._tsval(self.ts_recent_at), self._tsval(now)
        return not tsecr or ((tsecr - first) & MASK < 0x80000000 and (latest - tsecr) & MASK < 0x80000000)

    def _fast_opened(self, ack: int, cookie: bytes | None, now: Micros) -> None:
        """The answer to a SYN that asked for a cookie or showed one (RFC 7413 4.1.3, 4.2.1). What of its data was not
        acknowledged is sent anew as if it had never gone out."""
        cookies, first = self.ctx.cookies, self.iss + 1
        known, _ = cookies.get(self.pair, now)
        if not self.policy.fast_open_cookies:
            cookies.learn(self.pair, None, self.peer_mss, now)  # of the server only the MSS counts
        elif cookie is not None and is_cookie(cookie):
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
        if self.tx is not None and ack < self.snd_nxt and self.snd_nxt not in self.tx.marks:
            insort(self.tx.marks, self.snd_nxt)  # it stays in one piece
        self.small = -self.snd_nxt
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
        end = min(end, start + self._syn_window())
        if end > start and not self._pressed():
            # "If there are other controls or text in the segment, queue them for processing after the ESTABLISHED
            # state has been reached". The text waits where what came too early waits.
            self.assembler = Assembler()
            self.ctx.memory += self.assembler.insert(self.rcv_nxt, piece(buf, start, end))
        self._send_syn(now)
        if self.policy.round_receive_buffer:
            self.rcv_adv = self.rcv_nxt + self.rcv_limit
        self._start_handshake_timer(now)

    def _handshake_done(self, ack: int, seq: int, window: int, tsecr: int, now: Micros) -> bool:
        """SYN-RECEIVED → ESTABLISHED. False when the session did not survive it. `tsecr`: -1 without timestamps."""
        self.snd_una = ack
        self._measure_handshake(tsecr, now)
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

    def _measure_handshake(self, tsecr: int, now: Micros) -> None:
        """`tsecr`: -1 without timestamps."""
        if tsecr >= 0 and self.use_ts:
            elapsed = ((self._tsval(now) - tsecr) & MASK) * 1000
            if elapsed < 60_000_000:
                self._measured(elapsed if elapsed > 1000 else 1000)
        elif not self.retries and self.rto_kind == HANDSHAKE:  # of a cookie nobody knows when it was sent
            self._measured(max(now - self.drs_at, 1000))

    def _make_congestion_control(self) -> CongestionControl:
        policy = self.policy
        return make(policy.congestion, self.mss, policy.initial_window * self.mss, self.ctx.congestion)

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
        if self.cc is None:
            self.cc = self._make_congestion_control()
        self.drs_at = now
        self.delivered_at = self.heard_at = now
        if policy.keepalive:
            self.aux_at = Micros(now + policy.keepalive_idle)
        self._arm()
        ctx = self.ctx
        ctx.note(now, _ESTABLISHED, self.lease, self.pair)
        ctx.stay_awake(self, now)
        self._wake()

    def _start_handshake_timer(self, now: Micros) -> None:
        policy = self.policy
        wait = self.rto
        if self.retries:
            linear = policy.syn_linear_timeouts if self.state == st.SYN_SENT else 0
            doublings = max(self.retries - linear, 0)
            wait = Micros((wait << min(doublings, 16)) + policy.rto_slop)
        at = now + (wait if wait < policy.rto_max else policy.rto_max)
        patience = self._patience()
        if patience:
            at = min(at, self.drs_at + patience)
        self.rto_kind = HANDSHAKE
        self.rto_at = Micros(at)
        self._arm()

    def _patience(self) -> int:
        """How long the handshake may take; 0: the number of tries decides."""
        policy = self.policy
        if policy.user_timeout or self.state != st.SYN_SENT:
            return policy.user_timeout
        if policy.connect_timeout or not policy.syn_linear_timeouts:
            return policy.connect_timeout
        # As long as the retries would take if their timeouts doubled from the first on (Linux)
        return sum(min(policy.rto_initial << count, policy.rto_max) for count in range(policy.syn_retries + 1))

    def _handshake_timeout(self, now: Micros) -> None:
        self.retries += 1
        active = self.state == st.SYN_SENT
        policy = self.policy
        patience = self._patience()
        waited = patience and now - self.drs_at >= patience
        tries = policy.syn_retries + policy.syn_linear_timeouts if active else policy.synack_retries
        if waited or self.retries > tries:
            if active:
                self._refused(now)
            self.finish(Reason.TIMED_OUT, now)
            return
        if self.retries == policy.report_after:
            self._in_trouble(Reason.TIMED_OUT, now)  # SYNs "in the general way just described" (RFC 9293 3.8.3)
        self.ctx.counters.retransmitted_segments += 1
        self._send_syn(now)
        self._start_handshake_timer(now)
